"""When the objects of a recorded trace die: between the last mark they survived and the mark that missed them.

A sweep's free of an object says that the mark before it missed it, and that the mark before that did not, if the object
was there. When it died in between is not recorded. It is *drawn*, each malloc of the program being as likely; or the
bounds are taken, *earliest* and *latest*.

Deaths are carried out some at a time, at up to `POINTS` evenly spaced mallocs of each interval between two marks and at
its end. A drawn one is carried out at the last point before it, unless its object comes later than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.engine.rng import Stream
from workloads import gotrace_model as t
from workloads.gotrace_model import Trace

DRAWN, EARLIEST, LATEST = WAYS = ("drawn", "earliest", "latest")
POINTS = 32  # of each interval between two marks
_LEAST = 64  # mallocs between two points
_GOLDEN = 0x9E37_79B9_7F4A_7C15


@dataclass(frozen=True, eq=False)
class Deaths:
    """``rows``: the points, as rows of the trace, rising. ``at``: of each object that dies, the number of its point."""

    rows: Any
    at: Any


def marks(trace: Trace, rows: int) -> tuple[Any, Any]:
    """First and last row of each mark phase that ended before a row; one that began before the trace begins at 0."""
    kind = trace.kind[:rows]
    ends = np.flatnonzero(kind == t.GC_END)
    begins = np.flatnonzero((kind == t.GC_BEGIN) | (kind == t.GC_ACTIVE))
    at = np.searchsorted(begins, ends) - 1
    return np.where(at >= 0, begins[np.maximum(at, 0)] if len(begins) else 0, 0), ends


def interval(trace: Trace, rows: int, born: Any, freed: Any) -> tuple[Any, Any]:
    """Rows between which objects died that were announced at row ``born`` and freed at row ``freed``.

    One that was freed before a mark of the trace had ended died at its free, for all the trace tells.
    """
    begins, ends = marks(trace, rows)
    mark = np.searchsorted(ends, freed) - 1
    known = mark >= 0
    begin, end = np.append(begins, 0), np.append(ends, 0)
    last = np.where(known, begin[mark], freed)
    last = np.where(born >= last, np.where(known, end[mark], freed), last)  # allocated while it was being marked
    last = np.where(born >= last, freed, last)
    survived = np.where(mark >= 1, begin[np.maximum(mark - 1, 0)], 0)
    return np.maximum(born, survived), last


def _points(trace: Trace, rows: int, made: Any) -> Any:
    """Rows at which deaths are carried out: of each interval the begin, points, and the begin of the next mark."""
    begins, _ = marks(trace, rows)
    edges = np.unique(np.concatenate([[0], begins, [rows - 1]]))
    found = [edges]
    for first, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        low, high = np.searchsorted(made, [first, end]).tolist()
        n = min((high - low) // _LEAST, POINTS)
        found.append(made[low + (high - low) * np.arange(1, n) // max(n, 1)])
    return np.unique(np.concatenate(found))


def _draw(seed: int, n: int) -> Any:
    """n uniform words of 32 bits."""
    key = np.uint64(Stream(seed, "trace/deaths").key)
    with np.errstate(over="ignore"):
        word = key + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return ((word ^ (word >> np.uint64(31))) >> np.uint64(32)).astype(np.int64)


def find_deaths(trace: Trace, rows: int, made: Any, born: Any, freed: Any, block: Any, way: str, seed: int) -> Deaths:
    """When objects die that were announced at rows ``born`` and freed at rows ``freed``, before row ``rows``.

    ``made``: rows of all mallocs. ``block``: tiny objects of one block die together, with the last of them.
    """
    if not len(born):
        return Deaths(np.zeros(0, np.int64), np.zeros(0, np.int64))
    first, last = interval(trace, rows, born, freed)
    _, block = np.unique(block, return_inverse=True)
    for edge, of in ((first, np.maximum), (last, np.maximum)):
        both = np.zeros(int(block.max()) + 1, np.int64)
        of.at(both, block, edge)
        edge[:] = both[block]
    points = _points(trace, rows, made)
    if way == EARLIEST:
        row = first
    elif way == LATEST:
        row = last
    else:
        low, high = np.searchsorted(made, first), np.searchsorted(made, last)
        share = _draw(seed, int(block.max()) + 1)[block]
        row = np.maximum(made[np.minimum(low + ((high - low) * share >> 32), len(made) - 1)], first)
    at = np.searchsorted(points, row, "right") - 1
    at += points[at] < first  # not before its object is there
    return Deaths(points, np.minimum(at, len(points) - 1))
