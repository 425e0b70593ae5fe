"""Conformance with the real TCMalloc's recorded answers, and what the command says of files it cannot use."""

import copy
import json
import lzma
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments.cli import app
from experiments.conform import conform
from experiments.errors import InputError
from sim.jit import PLAIN

RECORDED = sorted((Path(__file__).parents[1] / "data" / "tcmalloc").glob("*.json.xz"))
TOTALS = {  # addresses, statistics, spans and lines of text
    "01_fixed64_churn": 5383,
    "03_uniform_1_1024_random": 9258,
    "05_fleet0_steady": 11286,
    "08_ramp_up_down": 9938,
    "10_large_mixed": 6348,
    "14_waves_threadcache": 12553,
    "16_forced_coalesce": 9182,
}


def recorded(number):
    (path,) = [p for p in RECORDED if p.name.startswith(number)]
    return json.loads(lzma.decompress(path.read_bytes()))


def shortened(data, checkpoints=2):
    """The same sequence up to its nth checkpoint."""
    ends = [i for i, op in enumerate(data["ops"]) if op == ["s"]]
    ops = data["ops"][: ends[checkpoints - 2]]
    allocations = sum(op[0] == "a" for op in ops)
    kept = {key: value for key, value in data.items() if key != "end_stats_text"}
    return kept | {"ops": ops, "addr": data["addr"][:allocations], "checkpoints": data["checkpoints"][:checkpoints]}


def write(tmp_path, content):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(content))
    return path


def test_which_sequences_there_are():
    assert [p.name.removesuffix(".json.xz") for p in RECORDED] == list(TOTALS)


@pytest.mark.skipif(PLAIN, reason="100,000 operations: the short test below runs plain too")
@pytest.mark.parametrize("path", RECORDED, ids=lambda p: p.name.removesuffix(".json.xz"))
def test_every_recorded_answer(path):
    result = conform(path)
    assert (result.equal, result.first_difference) == (result.total, None)
    assert result.total == TOTALS[path.name.removesuffix(".json.xz")]


@pytest.mark.parametrize("number", ["01", "05", "10", "16"])
def test_the_beginning_of_a_sequence(tmp_path, number):
    result = conform(write(tmp_path, shortened(recorded(number))))
    assert (result.equal, result.first_difference) == (result.total, None)
    assert result.total > 300


def change(data, *keys, to):
    """A copy with one value changed."""
    data = copy.deepcopy(data)
    at = data
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = to(at[keys[-1]]) if callable(to) else to
    return data


@pytest.mark.parametrize(
    ("keys", "to", "difference"),
    [
        (("addr", 7, 1), lambda x: x + 8, r"addr\[7\]: recorded \[\d+, \d+\], computed"),
        (("checkpoints", 1, "stats", "tcmalloc.thread_cache_free_bytes"), 1, r"checkpoints\[1\] tcmalloc.thread_cache_free"),
        (("checkpoints", 1, "spans", 3, 3), lambda x: x + 1, r"checkpoints\[1\] spans\[3\]: recorded"),
    ],
)
def test_a_wrong_answer_is_found_and_named(tmp_path, keys, to, difference):
    data = change(shortened(recorded("01")), *keys, to=to)
    result = conform(write(tmp_path, data))
    assert result.equal == result.total - 1
    assert re.match(difference, result.first_difference)


def test_a_span_too_few_and_a_line_of_text_differ(tmp_path):
    data = shortened(recorded("01"))
    data["checkpoints"][1]["spans"].pop()
    data["end_stats_text"] = "MALLOC:              1              Thread heaps in use\n"
    result = conform(write(tmp_path, data))
    assert "spans" in result.first_difference and "recorded none" in result.first_difference
    assert result.total - result.equal > 2


@pytest.mark.skipif(PLAIN, reason="19,000 operations")
def test_the_budget_of_caches_is_the_one_of_the_environment(tmp_path):
    """The only sequence that needs it lies elsewhere: what this one computes differs with the smallest budget."""
    data = recorded("14")
    data["env"]["TCMALLOC_MAX_TOTAL_THREAD_CACHE_BYTES"] = "1"
    assert conform(write(tmp_path, data)).equal < TOTALS["14_waves_threadcache"]


START = shortened(recorded("01"))


@pytest.mark.parametrize(
    ("keys", "to", "says"),
    [
        (("ops",), 5, "ops is no list"),
        (("addr",), {}, "addr is no list"),
        (("checkpoints",), [], "too few checkpoints"),
        (("checkpoints",), lambda c: [*c, c[0]], "checkpoints.2. is one too many"),
        (("checkpoints", 1), 7, r"checkpoints\[1\] is 7"),
        (("checkpoints", 1), {}, r"checkpoints\[1\] lacks stats or spans"),
        (("checkpoints", 1, "stats", "x.y"), 1, "'x.y' is not known; known: generic.current"),
        (("checkpoints", 1, "stats", "generic.heap_size"), "1", "generic.heap_size is '1'; it is an integer"),
        (("checkpoints", 1, "spans", 2), [1, 2], r"spans\[2\] is \[1, 2\]; a span is"),
        (("ops", 3), ["a", 3], r'ops\[3\] is \[.a., 3\]; an operation is \["a", id, size\]'),
        (("ops", 3), ["b", 3, 1], r"ops\[3\] is .*; an operation is"),
        (("ops", 3), [["a"], 3, 1], r"ops\[3\] is .*; an operation is"),
        (("ops", 3, 2), -1, r"ops\[3\]: size is -1; it is an integer from 0"),
        (("ops", 3, 2), 1 << 50, r"ops\[3\]: size is 1125899906842624"),
        (("ops", 3, 2), 1.5, r"ops\[3\]: size is 1.5"),
        (("ops", 3, 1), None, r"ops\[3\]: id None; an id is"),
        (("ops", 3, 1), [1], r"ops\[3\]: id \[1\]; an id is"),
        (("ops", 3, 1), 2, r"ops\[3\]: id 2 is live already"),
        (("ops", 3), ["f", 77777], r"ops\[3\]: id 77777 is not live"),
        (("startup_ops", 2), ["c", "s9"], r"startup_ops\[2\]: id 's9' is not live"),
        (("startup_ops", 2), ["s"], r"startup_ops\[2\] is"),
        (("addr", 0), [1], r"addr\[0\] is \[1\]; an address is \[page, offset\]"),
        (("addr", 0, 1), 8192, r"addr\[0\]: offset is 8192"),
        (("addr",), lambda a: a[:-1], "addr has .* rows; there are more"),
        (("addr",), lambda a: [*a, a[0]], "addr has .* rows; there are"),
        (("page_size",), 4096, "page_size is 4096; the model has pages of 8192"),
        (("env",), [], r"env is \[\]; it is an object"),
        (("env", "TCMALLOC_SAMPLE_PARAMETER"), "1", "TCMALLOC_SAMPLE_PARAMETER is '1'; sampling is not modelled"),
        (("env", "TCMALLOC_HEAP_LIMIT_MB"), "1", "'TCMALLOC_HEAP_LIMIT_MB' is not modelled; known"),
        (("env", "TCMALLOC_RELEASE_RATE"), "fast", "are numbers"),
        (("env", "TCMALLOC_RELEASE_RATE"), "nan", "are numbers"),
        (("end_stats_text",), 3, "end_stats_text is 3; it is a text"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, keys, to, says):
    with pytest.raises(InputError, match=says) as refused:
        conform(write(tmp_path, change(START, *keys, to=to)))
    assert "\n" not in str(refused.value) and "answers.json" in str(refused.value)


def test_more_than_the_heap_can_be_is_refused(tmp_path):
    data = change(START, "ops", to=[["a", i, (1 << 40) - 1] for i in range(3)])
    data["addr"] = [[0, 0]] * 3
    with pytest.raises(InputError, match="asks for the impossible: out of memory"):
        conform(write(tmp_path, data))


def test_the_command(tmp_path):
    good = CliRunner().invoke(app, ["conform", str(write(tmp_path, START))])
    assert good.exit_code == 0 and "equal" in good.stdout
    wrong = CliRunner().invoke(app, ["conform", str(write(tmp_path, change(START, "addr", 3, 0, to=1 << 20)))])
    assert wrong.exit_code == 1 and "first difference: addr[3]" in wrong.stdout
