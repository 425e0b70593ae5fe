"""The globals that a program of `allocsim calibrate` has: of such words as were counted, and so many bytes as it says."""

import json
import re
from collections import Counter

import pytest

from experiments import calibrate as work
from experiments.calibrate_globals import TABLE_BYTES, globals_file
from experiments.calibrate_plan import FULL, WITH_GLOBALS, runs
from experiments.program_globals import globals_of

# Counted in programs that print a line: bytes of .data and .bss, words of them that are pointers, those that lead into the
# binary, and groups of 64 bytes without a pointer.
COUNTED = {"go1.19": (30_768 + 192_576, 1746 + 9173, 1137 + 29, 1261), "go1.27": (19_378 + 132_216, 1482 + 9233, 928 + 53, 286)}


def words_of(text):
    """Whether each word of an element is a pointer, by the fields of its type."""
    return [kind == "unsafe.Pointer" for n, kind in re.findall(r"\t_ \[(\d+)\](\S+)", text) for _ in range(int(n))]


@pytest.mark.parametrize("version", COUNTED)
def test_they_are_as_those_of_a_small_program(version):
    text = globals_file(version)
    words = words_of(text)
    nbytes, pointers, aimed, empty = COUNTED[version]
    assert 8 * len(words) == pytest.approx(nbytes, abs=128)  # whole groups
    assert sum(words) == pytest.approx(pointers, rel=1e-3)
    groups = Counter(sum(words[at : at + 8]) for at in range(0, len(words), 8))
    assert groups[0] == empty and groups[8] > 1024
    offsets = list(map(int, re.search(r"uintptr\{(.*)\}", text).group(1).split(", ")))
    assert len(set(offsets)) == len(offsets) == aimed
    assert all(offset % 8 == 0 and words[offset // 8] for offset in offsets)
    (n,) = map(int, re.findall(r"var table \[(\d+)\]", text))
    assert n * 8 * len(words) <= TABLE_BYTES < (n + 1) * 8 * len(words)
    assert globals_file(version) == text, "another time another one"


def test_without_there_are_none():
    assert "var table [0]struct {\n}" in globals_file(None) and words_of(globals_file(None)) == []


def test_of_two_programs_one_has_them(go):
    """Real ones: the linker gives one so many bytes more, and a collection takes longer there."""
    found, nbytes = {}, {}
    with work.built_with(go) as built:
        for run in (run for run in runs(FULL, 1) if run.tables == ("globals",)):
            row = json.loads(work.execute(built, run)[0])
            found[row["key"][0]] = row["values"]
            nbytes[row["key"][0]] = globals_of(built.with_name(WITH_GLOBALS) if run.program else built)
    assert set(found) == {"with", "without"} and found["without"]["bytes"] == 0
    if None not in nbytes.values():
        more = nbytes["with"] - nbytes["without"]
        assert 0 <= more - found["with"]["bytes"] < 4096
    assert found["with"]["gc"] > found["without"]["gc"]
