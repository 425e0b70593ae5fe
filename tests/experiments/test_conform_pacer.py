"""Conformance with the real pacer's recorded answers, and what the command says of files that are none."""

import json
import lzma
from copy import deepcopy
from pathlib import Path

import pytest

from experiments.conform import conform
from experiments.errors import InputError

DATA = Path(__file__).parents[1] / "data"
RECORDED = DATA / "pacer.json.xz"  # go1.27.3; its eight scenarios are named after the runtime's own


def write(tmp_path, content):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def scenarios():
    return json.loads(lzma.decompress(RECORDED.read_bytes()))["scenarios"]


@pytest.mark.parametrize(("name", "total"), [("pacer.json.xz", 94200), ("pacer_go119.json.xz", 9826)])
def test_every_recorded_answer_of_the_pacer(name, total):
    result = conform(DATA / name)
    assert (result.kind, result.equal, result.total, result.first_difference) == ("pacer", total, total, None)


def test_all_numbers_of_all_events_count(scenarios):
    rows = [row for scenario in scenarios for row in scenario["events"]]
    assert len(scenarios) == 8
    shown = {"start": 5, "revise": 3, "end": 3}
    assert sum(shown[row[0]] for row in rows) == 94200


def test_one_versions_pacer_gives_not_the_others_answers(tmp_path, scenarios):
    result = conform(write(tmp_path, {"version": "go1.19", "scenarios": scenarios}))
    assert result.equal < result.total == 94200


@pytest.mark.parametrize(
    ("event", "field", "difference"),
    [
        (0, 3, "event 0 (start): triggered recorded 3997697, computed 3997696"),
        (0, 6, "event 0 (start): heapMarked recorded 1, computed 0"),
        (1, 7, "event 1 (revise): heap goal recorded 4194305, computed 4194304"),
        (2, 5, "event 2 (end): heapLive recorded 291448, computed 291447"),
        (1, 6, "event 1 (revise): assistWorkPerByte recorded 0.86318031, computed 0.8631803080010152"),
    ],
)
def test_a_wrong_answer_is_found_and_named(tmp_path, scenarios, event, field, difference):
    steady = deepcopy(next(s for s in scenarios if s["name"] == "Steady"))
    steady["events"] = steady["events"][:3]
    row = steady["events"][event]
    row[field] = 0.86318031 if isinstance(row[field], float) else row[field] + 1
    result = conform(write(tmp_path, {"scenarios": [steady]}))
    assert (result.equal, result.total) == (10, 11)
    assert result.first_difference == f"scenario Steady, {difference}"


def test_a_ratio_may_differ_by_rounding_alone(tmp_path, scenarios):
    one = deepcopy(scenarios[0])
    one["events"] = one["events"][:1]
    one["events"][0][7] *= 1 + 5e-10
    assert conform(write(tmp_path, {"scenarios": [one]})).equal == 5
    one["events"][0][7] *= 1 + 1e-8
    assert conform(write(tmp_path, {"scenarios": [one]})).equal == 4


START = ["start", 8192, 1, 3997696, 4194304, 3997696, 0, 0.16666666666666666]
REVISE = ["revise", 29303, 29303, 262144, 8192, 32768, 0.8631803080010152, 4194304, 4026999]
END = ["end", 291447, 0, 144531, 4194304, 291447, 291447]


def changed(row, i, value):
    return [*row[:i], value, *row[i + 1 :]]


def malformed(events=(), **settings):
    usual = {"name": "Odd", "gcPercent": 100, "memoryLimit": (1 << 63) - 1, "globalsBytes": 32768, "nCores": 8}
    scenario = usual | {"events": [START, *events]} | settings
    return {"scenarios": [{name: value for name, value in scenario.items() if value is not None}]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"scenarios": [7]}, "scenarios[0]: a scenario is an object with name, gcPercent,"),
        (malformed(gcPercent=None), "scenarios[0] Odd: lacks gcPercent"),
        (malformed(name="two\nlines", nCores=None), "scenarios[0]: lacks nCores"),
        (malformed(name=None, nCores=None), "scenarios[0]: lacks nCores"),
        ({"scenarios": [{**malformed()["scenarios"][0], "events": {}}]}, "scenarios[0] Odd: events is no list"),
        (malformed(gcPercent=-2), "scenarios[0] Odd: gcPercent is -2; it is an integer from -1 to 2147483647"),
        (malformed(memoryLimit=1 << 63), "scenarios[0] Odd: memoryLimit is 9223372036854775808; it is"),
        (malformed(nCores=0), "scenarios[0] Odd: nCores is 0; it is an integer from 1 to"),
        (malformed(nCores=True), "scenarios[0] Odd: nCores is True;"),
        (malformed(globalsBytes="32k"), "scenarios[0] Odd: globalsBytes is '32k';"),
        (malformed([["stop"]]), "scenarios[0] Odd: events[1]: an event is [kind, numbers ...], its kind one of start, "),
        (malformed([[]]), "events[1]: an event is [kind, numbers ...]"),
        (malformed([[["end"], 1]]), "events[1]: an event is [kind, numbers ...]"),
        (malformed([END[:-1]]), "events[1] (end): 5 numbers; it has 6: bytes marked, assist time, cycle duration, heap"),
        (malformed([changed(END, 1, -1)]), "events[1] (end): bytes marked is -1; it is an integer from 0 to"),
        (malformed([changed(END, 3, 1.5)]), "events[1] (end): cycle duration is 1.5; it is an integer"),
        (malformed([changed(END, 3, 1 << 60)]), "events[1] (end): cycle duration is 1152921504606846976;"),
        (malformed([changed(END, 6, None)]), "events[1] (end): heapMarked is None;"),
        (malformed([REVISE, changed(REVISE, 3, 1 << 70)]), "events[2] (revise): d heapScanWork is 118059162071741130"),
        (malformed([changed(REVISE, 6, "much")]), "events[1] (revise): assistWorkPerByte is 'much'; it is a number"),
        (malformed([changed(START, 2, 1.01)]), "events[1] (start): scannable fraction is 1.01; it is a number from 0 to 1"),
        (malformed([changed(REVISE, 1, -5000000)]), "events[1] (revise): takes heapLive or heapScan below 0"),
        (malformed() | {"version": "go1.99"}, "version is 'go1.99'; known: go1.14, go1.19, go1.27"),
        (malformed() | {"version": ["go1.19"]}, "version is ['go1.19']; known"),
    ],
)
def test_malformed_files_are_refused_in_one_line(tmp_path, content, says):
    with pytest.raises(InputError) as refused:
        conform(write(tmp_path, content))
    text = str(refused.value)
    assert says in text and "\n" not in text and text.startswith(str(tmp_path / "answers.json: ")[:-2])


def test_a_not_a_number_is_no_ratio(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps(malformed([changed(REVISE, 6, float("nan"))])))
    with pytest.raises(InputError, match="assistWorkPerByte is nan"):
        conform(path)
