"""The heap over time, as a stored result has it: gauges of series.csv, and what is known of each cycle exactly.

Gauges are sampled; of each cycle gc_cycles.csv has the live heap when it began, when marking was done, and after it. Put
together the curve has its peaks and its drops where they were.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from experiments.errors import InputError
from sim.metrics.cycles import NO_GOAL, Cycle

NEEDED = ("time_ps", "heap_live", "heap_goal", "resident")
_MAX = 256 << 20  # bytes of series.csv
_MAX_VALUE = 1 << 80

Points = npt.NDArray[np.float64]
"""Rows of time in picoseconds and bytes."""


@dataclass(frozen=True, slots=True)
class Heap:
    """What is drawn: the live heap, as the runtime counts it, and memory that stands behind the heap.

    ``goals`` and ``triggers``: steps, a row where each begins to hold; none where there is none. ``marking``: when each
    cycle marked, from and to.
    """

    live: Points
    resident: Points
    goals: Points
    triggers: Points
    marking: Points


def read_series(name: str) -> dict[str, list[int]]:
    """The columns of a stored result's gauges; InputError if there are none, or if they are damaged."""
    path = Path(name) / "series.csv"
    found: dict[str, list[int]] = {}
    try:
        with path.open("r", encoding="utf-8", newline="") as stream:
            rows = csv.reader(stream.read(_MAX).splitlines())
        head = next(rows, [])
        if not set(NEEDED) <= set(head) or len(set(head)) != len(head):
            raise ValueError(f"its first line lacks one of {', '.join(NEEDED)}")
        found = {column: [] for column in head}
        for row in rows:
            for column, cell in zip(head, row, strict=True):
                if not 0 <= (value := int(cell)) < _MAX_VALUE:
                    raise ValueError(f"{column} is {cell[:40]}")
                found[column].append(value)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); run the scenario again") from None
    except (ValueError, csv.Error) as error:
        where = f"line {rows.line_num}: " if found else ""
        raise InputError(f"{path}: is damaged ({where}{str(error)[:80]}); run the scenario again") from None
    if found["time_ps"] != sorted(found["time_ps"]):
        raise InputError(f"{path}: is damaged (its times go back); run the scenario again")
    return found


def heap(series: dict[str, list[int]], cycles: Sequence[Cycle]) -> Heap:
    """What there is to draw of gauges and cycles."""
    sampled = list(zip(series["time_ps"], series["heap_live"], strict=True))
    known = [
        row
        for one in cycles
        for row in ((one.t_sweep_term, one.heap0), (one.t_mark_term, one.heap1), (one.t_end, one.heap2))
    ]
    ended = [0, *(one.t_end for one in cycles)]
    goals = list(zip(series["time_ps"], series["heap_goal"], strict=True))
    goals += [(since, one.heap_goal_start) for since, one in zip(ended, cycles, strict=False)]
    goals += [(one.t_mark_term, one.heap_goal) for one in cycles]  # a memory limit may have moved it meanwhile
    triggers = [row for since, one in zip(ended, cycles, strict=False) for row in _held(since, one)]
    return Heap(
        live=_points(sorted(sampled + known)),
        resident=_points(zip(series["time_ps"], series["resident"], strict=True)),
        goals=_points((time, goal if goal < NO_GOAL else np.nan) for time, goal in sorted(set(goals))),
        triggers=_points(triggers),
        marking=_points((one.t_mark, one.t_mark_term) for one in cycles),
    )


def _held(since: int, cycle: Cycle) -> tuple[tuple[int, float], tuple[int, float]]:
    """A cycle's trigger, from the end of the one before until it began; none if it began for another reason."""
    trigger = float(cycle.trigger) if cycle.kind == "heap" and cycle.trigger < NO_GOAL else np.nan
    return (since, trigger), (cycle.t_sweep_term, np.nan)


def _points(rows: object) -> Points:
    return np.array(list(rows), np.float64).reshape(-1, 2)  # type: ignore[call-overload]
