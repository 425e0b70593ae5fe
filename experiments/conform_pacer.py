"""Recorded answers of the real pacer.

Such a file holds scenarios: a pacer's settings, the calls made on one test copy of the runtime's gcController, and what
it showed after each. Every number shown is one comparison: bytes exactly, the assist ratio to 1e-9 of itself. A test
copy has no memory of its own: nothing mapped, allocated or free. Times are the recorder's nanoseconds, since only their
ratios matter. A file says which runtime it was recorded with by "version"; without it, it was go1.27.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numba import float64, int64

from experiments.conform_file import Conformance
from experiments.errors import InputError
from sim.go.mgcpacer import commit, end_cycle, heap_goal, init, reset_live, revise, start_cycle, trigger
from sim.go.params import VERSIONS, set_facts
from sim.go.state import heap_type, new_tables
from sim.jit import bare, entry
from sim.units import Throw

START, REVISE, END = range(3)
_EVENTS = ("start", "revise", "end")
_RATIO = "assistWorkPerByte"
_ARGUMENTS = (
    ("stack bytes", "scannable fraction"),
    ("d heapLive", "d heapScan", "d heapScanWork", "d stackScanWork", "d globalsScanWork"),
    ("bytes marked", "assist time", "cycle duration"),
)
_ANSWERS = (
    ("triggered", "heap goal", "heapLive", "heapMarked", _RATIO),
    (_RATIO, "heap goal", "heapLive"),
    ("heap goal", "heapLive", "heapMarked"),
)
_BYTES = 1 << 48  # more than that no heap has
_TIME = 1 << 50  # ns; 13 days
_LIMITS = {"gcPercent": (-1, 1 << 31), "memoryLimit": (0, 1 << 63), "globalsBytes": (0, _BYTES), "nCores": (1, 1 << 10)}
_TOLERANCE = 1e-9


@entry(int64(heap_type, int64[::1], int64[::1], int64[:, ::1], float64[::1], int64[:, ::1], float64[::1]))
def run_events(h: Any, settings: Any, kinds: Any, arguments: Any, fractions: Any, answers: Any, ratios: Any) -> Any:
    """Make the calls; write what the pacer shows after each. The first impossible event, or their number.

    settings: gcPercent, memoryLimit, globalsBytes, nCores. An event's integers stand in the order of its arguments and
    answers, the fraction and the ratio apart. (The calls as in export_test.go:GCController.)
    """
    h = bare(h)
    c = h[0]
    init(h, settings[0], settings[1])
    for i in range(len(kinds)):
        if kinds[i] == START:
            c.max_stack_scan = arguments[i, 0]
            c.globals_scan = settings[2]
            c.heap_live = max(trigger(h)[0], c.heap_marked)
            c.heap_scan += np.int64(float(c.heap_live - c.heap_marked) * fractions[i])
            start_cycle(h, np.int64(0), settings[3], False)
            answers[i, 0] = c.triggered
            answers[i, 1] = heap_goal(h)
            answers[i, 2] = c.heap_live
            answers[i, 3] = c.heap_marked
            ratios[i] = c.assist_work_per_byte
        elif kinds[i] == REVISE:
            c.heap_live += arguments[i, 0]
            c.heap_scan += arguments[i, 1]
            c.heap_scan_work += arguments[i, 2]
            c.stack_scan_work += arguments[i, 3]
            c.globals_scan_work += arguments[i, 4]
            if c.heap_live < 0 or c.heap_scan < 0:
                return i
            revise(h)
            ratios[i] = c.assist_work_per_byte
            answers[i, 0] = heap_goal(h)
            answers[i, 1] = c.heap_live
        else:
            c.assist_time = arguments[i, 1]
            end_cycle(h, arguments[i, 2], settings[3])
            reset_live(h, arguments[i, 0])
            commit(h, False)
            answers[i, 0] = heap_goal(h)
            answers[i, 1] = c.heap_live
            answers[i, 2] = c.heap_marked
    return len(kinds)


def _integer(where: str, name: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value < high:
        raise InputError(f"{where}: {name} is {value!r:.60}; it is an integer from {low} to {high - 1}")
    return value


def _number(where: str, name: str, value: Any, low: float, high: float) -> float:
    if type(value) not in (int, float) or not low <= value <= high:
        raise InputError(f"{where}: {name} is {value!r:.60}; it is a number from {low:g} to {high:g}")
    return float(value)


def _argument(where: str, kind: int, name: str, value: Any) -> int:
    if name in ("assist time", "cycle duration"):
        return _integer(where, name, value, 0, _TIME)
    return _integer(where, name, value, -_BYTES + 1 if kind == REVISE else 0, _BYTES)


class _Events:
    """The events of a scenario as arrays; InputError names what is malformed."""

    def __init__(self, where: str, rows: list[Any]) -> None:
        n = len(rows)
        self.kinds = np.zeros(n, np.int64)
        self.arguments = np.zeros((n, 5), np.int64)
        self.fractions = np.zeros(n, np.float64)
        self.answers = np.zeros((n, 4), np.int64)
        self.ratios = np.zeros(n, np.float64)
        for i, row in enumerate(rows):
            self._read(f"{where}: events[{i}]", i, row)

    def _read(self, where: str, i: int, row: Any) -> None:
        if not isinstance(row, list) or not row or row[0] not in _EVENTS:
            raise InputError(f"{where}: an event is [kind, numbers ...], its kind one of {', '.join(_EVENTS)}")
        kind = self.kinds[i] = _EVENTS.index(row[0])
        names, shown = _ARGUMENTS[kind], _ANSWERS[kind]
        where += f" ({row[0]})"
        if len(row) != 1 + len(names) + len(shown):
            form = ", ".join(names + shown)
            raise InputError(f"{where}: {len(row) - 1} numbers; it has {len(names + shown)}: {form}")
        at = 0
        for name, value in zip(names, row[1:], strict=False):
            if name == "scannable fraction":
                self.fractions[i] = _number(where, name, value, 0, 1)
            else:
                self.arguments[i, at] = _argument(where, kind, name, value)
                at += 1
        at = 0
        for name, value in zip(shown, row[1 + len(names) :], strict=True):
            if name == _RATIO:
                self.ratios[i] = _number(where, name, value, 0, float("inf"))
            else:
                self.answers[i, at] = _integer(where, name, value, 0, 1 << 63)
                at += 1


def _settings(where: str, scenario: Any) -> Any:
    """gcPercent, memoryLimit, globalsBytes and nCores of a scenario."""
    if not isinstance(scenario, dict):
        raise InputError(f"{where}: a scenario is an object with name, {', '.join(_LIMITS)} and events")
    missing = [name for name in (*_LIMITS, "events") if name not in scenario]
    if missing:
        raise InputError(f"{where}: lacks {missing[0]}")
    if not isinstance(scenario["events"], list):
        raise InputError(f"{where}: events is no list")
    return np.array([_integer(where, name, scenario[name], *_LIMITS[name]) for name in _LIMITS], dtype=np.int64)


def _compare(name: str, recorded: _Events, answers: Any, ratios: Any) -> tuple[int, int, str | None]:
    """How many numbers were shown, how many are equal, and the first that is not."""
    integers = np.array([len(shown) - (_RATIO in shown) for shown in _ANSWERS])[recorded.kinds]
    asked = np.zeros((len(answers), 5), bool)
    asked[:, :4] = np.arange(4) < integers[:, None]
    asked[:, 4] = recorded.kinds != END
    same = np.zeros_like(asked)
    same[:, :4] = answers == recorded.answers
    same[:, 4] = np.abs(ratios - recorded.ratios) <= _TOLERANCE * recorded.ratios
    wrong = asked & ~same
    first = None
    if wrong.any():
        i, j = (int(x[0]) for x in np.nonzero(wrong))
        kind = int(recorded.kinds[i])
        what = _RATIO if j == 4 else [shown for shown in _ANSWERS[kind] if shown != _RATIO][j]
        was, now = (recorded.ratios[i], ratios[i]) if j == 4 else (recorded.answers[i, j], answers[i, j])
        first = f"scenario {name}, event {i} ({_EVENTS[kind]}): {what} recorded {was}, computed {now}"
    return int(asked.sum()), int((asked & same).sum()), first


def conform_pacer(path: Path, data: Any) -> Conformance:
    """Make every scenario's calls and compare all that the pacer shows."""
    version = data.get("version", "go1.27")
    if not isinstance(version, str) or version not in VERSIONS:
        raise InputError(f"{path}: version is {version!r:.60}; known: {', '.join(VERSIONS)}")
    total = equal = 0
    first: str | None = None
    for number, scenario in enumerate(data["scenarios"]):
        name = scenario.get("name") if isinstance(scenario, dict) else None
        named = isinstance(name, str) and name.isprintable() and len(name) < 80
        where = f"{path}: scenarios[{number}]" + (f" {name}" if named else "")
        settings = _settings(where, scenario)
        recorded = _Events(where, scenario["events"])
        tables = new_tables()
        set_facts(tables.fields, VERSIONS[version])
        answers, ratios = np.zeros_like(recorded.answers), np.zeros_like(recorded.ratios)
        try:
            done = run_events(
                tables.header, settings, recorded.kinds, recorded.arguments, recorded.fractions, answers, ratios
            )
        except Throw as broken:
            raise InputError(f"{where}: asks for the impossible: {broken}") from None
        if done < len(answers):
            raise InputError(f"{where}: events[{done}] (revise): takes heapLive or heapScan below 0")
        shown, same, difference = _compare(str(name if named else number), recorded, answers, ratios)
        total, equal, first = total + shown, equal + same, first or difference
    return Conformance("pacer", total, equal, first)
