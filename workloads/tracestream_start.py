"""The heap that a recorded trace begins with: the snapshot's spans and objects, and which spans the Ps had cached.

What the sweep under way at the start then frees was dead: it is left out, and so are spans that hold nothing else. Which
spans were cached the snapshot does not tell. A P's first object of a span class that no refill comes before (a refill
tells heapLive) lies in the span that the P had cached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.go.inherit import INHERITED
from sim.metrics.cycles import NO_GOAL
from workloads import gotrace_model as t
from workloads.gotrace_cycles import marks
from workloads.gotrace_model import Trace
from workloads.gotrace_objects import Objects


@dataclass(frozen=True, eq=False)
class Start:
    """``spans``: sim.go.inherit.INHERITED. ``objects``: indices into the trace's objects, span by span. ``slots``: theirs.

    ``heap_live`` and ``heap_goal``: bytes, 0 if no metric tells.
    """

    spans: Any
    objects: Any
    slots: Any
    heap_live: int
    heap_goal: int


def _cached(trace: Trace, objects: Objects, rows: int) -> tuple[Any, Any]:
    """Rows of the snapshot's spans that a P had cached, rising, and the Ps."""
    ends = np.flatnonzero(trace.kind[:rows] == t.GC_END)  # then caches are flushed
    until = int(ends[0]) if len(ends) else rows
    found: dict[int, int] = {}
    for p in range(trace.gomaxprocs):
        mine = np.flatnonzero(
            (trace.p[:until] == p) & ((trace.kind[:until] == t.OBJECT_ALLOC) | (trace.kind[:until] == t.HEAP_ALLOC))
        )
        refills = trace.kind[mine] == t.HEAP_ALLOC
        after_refill = np.append(False, refills[:-1])
        made, after = mine[~refills], after_refill[~refills]
        at = np.searchsorted(objects.row, made)
        spanclass, first = np.unique(objects.spanclass[at], return_index=True)
        first = first[(spanclass >= 2) & ~after[first]]
        span = objects.span[at[first]]
        old = trace.kind[span] == t.SPAN
        found |= {row: p for row in span[old].tolist() if row not in found}
    cached = sorted(found)
    return np.array(cached, np.int64), np.array([found[row] for row in cached], np.int64)


def _first(trace: Trace, metric: int, rows: int) -> tuple[int, int]:
    """Where a metric is told first, and its value in bytes, 0 if it is not or is none."""
    told = np.flatnonzero(trace.kind[:rows] == metric)
    if not len(told):
        return 0, 0
    value = int(trace.a[told[0]])
    return int(told[0]), value if 0 < value < NO_GOAL else 0


def _heap_live(trace: Trace, objects: Objects, mine: Any, rows: int) -> int:
    """heapLive before anything was allocated. The first refill or large object that the metric counts is in it: less that.

    Its object is the next one that the same P announces. A refill charges what its span has free.
    """
    first, live = _first(trace, t.HEAP_ALLOC, rows)
    if not live:
        return 0
    made = np.flatnonzero((trace.kind[first:rows] == t.OBJECT_ALLOC) & (trace.p[first:rows] == trace.p[first]))
    charge = 0
    if len(made):
        one = int(np.searchsorted(objects.row, first + made[0]))
        span = int(objects.span[one])
        if span >= 0:
            taken = int((objects.span[mine] == span).sum()) * int(objects.size[one])
            charge = int(trace.b[span]) * trace.page_size - taken
    return max(live - charge, 1)


def find_start(trace: Trace, objects: Objects, rows: int) -> Start:
    """What is there when the first ``rows`` rows of a trace begin."""
    _, ends = marks(trace, rows)
    swept = ends[0] if len(ends) else rows
    kept = (trace.kind[objects.row] == t.OBJECT) & (objects.size > 0) & (objects.row < rows)
    mine = np.flatnonzero(kept & ~(objects.freed < swept))
    order = np.lexsort((objects.slot[mine], objects.span[mine]))
    mine = mine[order]
    slots = objects.slot[mine]
    new = np.ones(len(mine), bool)
    new[1:] = (np.diff(objects.span[mine]) != 0) | (np.diff(slots) != 0)
    mine, slots = mine[new], slots[new]
    cached, by = _cached(trace, objects, rows)
    row = np.union1d(objects.span[mine], cached)
    spans = np.zeros(len(row), INHERITED)
    spans["npages"], spans["spanclass"] = trace.b[row], trace.c[row] >> 1
    spans["cached_by"] = -1
    spans["cached_by"][np.searchsorted(row, cached)] = by
    spans["end"] = np.searchsorted(objects.span[mine], row, "right")
    goal = _first(trace, t.HEAP_GOAL, len(trace.kind))[1]
    return Start(spans, mine, slots, _heap_live(trace, objects, mine, rows), goal)
