"""When the objects of a recorded trace die: between the last mark they survived and the mark that missed them.

A sweep's free of an object says that the mark before it missed it, and that the mark before that did not, if the object
was there. When it died in between is not recorded. It is *drawn* from the distribution of lifetimes, in bytes allocated
meanwhile, that these bounds make likely of all objects of its size (lifetimes.py); of objects older than the trace each
byte is as likely. Or the bounds themselves are taken, *earliest* and *latest*.

Deaths are carried out some at a time: at up to `POINTS` mallocs of each interval between two marks, the bytes allocated
in between being the same, and at its end. A drawn one is carried out at the last point before it, unless its object
comes later than that.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from sim.engine.rng import Stream
from workloads.gotrace_cycles import marks
from workloads.gotrace_model import OBJECT_ALLOC, Trace
from workloads.lifetimes import estimate

DRAWN, EARLIEST, LATEST = WAYS = ("drawn", "earliest", "latest")
POINTS = 64  # of each interval between two marks
_LEAST = 16 << 10  # bytes allocated between two points


@dataclass(frozen=True, eq=False)
class Deaths:
    """``rows``: the points, as rows of the trace, rising. ``at``: of each object that dies, the number of its point."""

    rows: Any
    at: Any


@dataclass(frozen=True, eq=False)
class Dying:
    """Objects: the rows that announced and freed them, the bytes of their slots, and which tiny block they share.

    Tiny objects of one block die together, with the last of them.
    """

    born: Any
    freed: Any
    size: Any
    block: Any


def interval(begins: Any, ends: Any, born: Any, freed: Any) -> tuple[Any, Any]:
    """Rows between which objects died that were announced at row ``born`` and freed at row ``freed``.

    ``begins``, ``ends``: of the mark phases (gotrace_cycles.marks). One that was freed before a mark of the trace had ended died at its free, for all the trace tells.
    """
    mark = np.searchsorted(ends, freed) - 1
    known = mark >= 0
    begin, end = np.append(begins, 0), np.append(ends, 0)
    last = np.where(known, begin[mark], freed)
    last = np.where(born >= last, np.where(known, end[mark], freed), last)  # allocated while it was being marked
    last = np.where(born >= last, freed, last)
    survived = np.where(mark >= 1, begin[np.maximum(mark - 1, 0)], 0)
    return np.maximum(born, survived), last


@dataclass(frozen=True, eq=False)
class Allocated:
    """The program's mallocs: their rows, rising, and the bytes allocated before each of them and in all."""

    rows: Any
    before: Any

    @classmethod
    def of(cls, rows: Any, sizes: Any) -> Allocated:
        """``sizes``: bytes of each malloc."""
        return cls(rows, np.append(0, np.cumsum(sizes)))

    def at(self, row: Any) -> Any:
        """Bytes allocated before a row."""
        return self.before[np.searchsorted(self.rows, row)]

    def row(self, nbytes: Any) -> Any:
        """The row of the malloc that comes when so many bytes are allocated, the last malloc's if none does."""
        return self.rows[np.minimum(np.searchsorted(self.before, nbytes), len(self.rows) - 1)]


def _points(begins: Any, rows: int, made: Allocated) -> Any:
    """Rows at which deaths are carried out: of each interval the begin, points, and the begin of the next mark."""
    edges = np.unique(np.concatenate([[0], begins, [rows - 1]]))
    found = [edges]
    for low, high in pairwise(made.at(edges).tolist()):
        n = min((high - low) // _LEAST, POINTS)
        found.append(made.row(low + (high - low) * np.arange(1, n) // max(n, 1)))
    return np.unique(np.concatenate(found))


def _draw(made: Allocated, objects: Dying, first: Any, last: Any, dies: Any, known: Any, share: Any) -> Any:
    """Rows at which the objects die that do, ``share`` being uniform; of those not ``known`` the birth is not recorded."""
    birth = made.at(objects.born)
    low, high = made.at(first) - birth, made.at(last) - birth
    age = low + ((high - low) * share).astype(np.int64)
    for size in np.unique(objects.size[known & dies]):
        same = known & (objects.size == size)
        lifetimes = estimate(low[same], np.where(dies, high, -1)[same])
        same &= dies
        age[same] = lifetimes.draw(low[same], high[same], share[same])
    return np.clip(made.row(birth + age), first, last)


def find_deaths(trace: Trace, rows: int, made: Allocated, objects: Dying, way: str, seed: int) -> Deaths:
    """When objects die before row ``rows``."""
    dies = objects.freed < rows
    if not dies.any():
        return Deaths(np.zeros(0, np.int64), np.zeros(0, np.int64))
    begins, ends = marks(trace, rows)
    first, last = interval(begins, ends, objects.born, np.where(dies, objects.freed, rows - 1))
    # one that nobody freed was there for certain up to the begin of the last mark
    first = np.where(dies, first, np.maximum(objects.born, begins[-1] if len(begins) else 0))
    _, block = np.unique(objects.block, return_inverse=True)
    for edge in (first, last):
        latest = np.zeros(int(block.max()) + 1, np.int64)
        np.maximum.at(latest, block, edge)
        edge[:] = latest[block]
    points = _points(begins, rows, made)
    if way == DRAWN:
        words = Stream(seed, "trace/deaths").next_words(int(block.max()) + 1)
        share = ((words >> np.uint64(32)).astype(np.float64) / (1 << 32))[block]
        row = _draw(made, objects, first, last, dies, trace.kind[objects.born] == OBJECT_ALLOC, share)
    else:
        row = first if way == EARLIEST else last
    at = np.searchsorted(points, row[dies], "right") - 1
    at += points[at] < first[dies]  # not before its object is there
    return Deaths(points, np.minimum(at, len(points) - 1))
