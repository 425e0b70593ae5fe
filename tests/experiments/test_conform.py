"""Conformance with the real runtime's recorded answers, and what the command says of other files."""

import json
import lzma
from pathlib import Path

import pytest

from experiments.conform import conform
from experiments.errors import InputError
from sim.jit import PLAIN

RECORDED = Path(__file__).parents[1] / "data" / "pagealloc.json.xz"


def sequences():
    return json.loads(lzma.decompress(RECORDED.read_bytes()))["sequences"]


def write(tmp_path, content):
    path = tmp_path / "answers.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.skipif(PLAIN, reason="31,000 operations: the short test below runs plain too")
def test_every_recorded_answer_of_the_page_allocator():
    result = conform(RECORDED)
    assert (result.equal, result.first_difference) == (result.total, None)
    assert result.total == 37637  # every page, byte count and mask of the ten sequences


def test_the_first_operations_of_each_sequence(tmp_path):
    short = [dict(s, Ops=s["Ops"][:60]) for s in sequences()]
    result = conform(write(tmp_path, {"sequences": short}))
    assert result.equal == result.total > 500


def test_a_wrong_answer_is_found_and_named(tmp_path):
    first = sequences()[0]
    first["Ops"] = first["Ops"][:20]
    first["Ops"][2][2] += 1
    result = conform(write(tmp_path, {"sequences": [first]}))
    assert result.equal == result.total - 1
    assert result.first_difference == "sequence 0, operation 2: page recorded 104, computed 103"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "not JSON"),
        ("[1, 2", "not JSON"),
        ([], "unknown kind"),
        ({"sequences": []}, "unknown kind"),
        ({"scenarios": []}, "unknown kind"),
        ({"sequences": [{"Ops": []}]}, "lacks"),
        ({"sequences": [{"Chunks": [0], "Ops": [[9, 1]]}]}, "malformed"),
        ({"sequences": [{"Chunks": [0], "Ops": [[0, "x", 0, 0]]}]}, "malformed"),
        ({"sequences": [{"Chunks": [0], "Ops": [[0, 0, 0, 0]]}]}, "out of range"),
        ({"sequences": [{"Chunks": [0, 0], "Ops": []}]}, "distinct"),
        ({"sequences": [{"Chunks": [0], "Ops": [[1, 5000, 1]]}]}, "impossible"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, says):
    with pytest.raises(InputError, match=says) as refused:
        conform(write(tmp_path, content))
    assert "\n" not in str(refused.value) and "answers.json" in str(refused.value)


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        conform(tmp_path / "nowhere.json")
    damaged = tmp_path / "damaged.json.xz"
    damaged.write_bytes(RECORDED.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged xz"):
        conform(damaged)
