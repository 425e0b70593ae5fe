"""What a recorded trace says of its collections: when they mark, who asked for them, and the heap's metrics.

The trace's range of a mark phase begins before the stop of its sweep termination, and ends with mark termination; the
metric of the heap is told once more right before that end, as what was marked, and the goal right after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads.gotrace_model import GC_ACTIVE, GC_BEGIN, GC_END, HEAP_ALLOC, HEAP_GOAL, STW_BEGIN, Trace


@dataclass(frozen=True)
class RecordedCycle:
    """``begin``: the row of its mark phase; ``stop``: that of the stop of the world which follows, or -1.

    ``forced``: runtime.GC asked for it. ``heap_live``: bytes as last told before it, 0 if they were not.
    ``marked`` and ``goal``: what it marked and the goal that it set, in bytes, 0 if the trace ends before.
    """

    begin: int
    stop: int
    forced: bool
    heap_live: int
    marked: int
    goal: int


def stack_names(trace: Trace, row: int) -> list[str]:
    """The functions of an event's stack, innermost first."""
    if not trace.stack[row]:
        return []
    first, end = trace.stack_start[trace.stack[row]], trace.stack_start[trace.stack[row] + 1]
    return [trace.strings[int(name)] for name in trace.frame_func[first:end]]


def in_runtime_gc(trace: Trace) -> Any:
    """Whether runtime.GC is in the stack of each row."""
    inside = np.zeros(len(trace.stack_start), bool)
    if "runtime.GC" in trace.strings:
        frames = np.flatnonzero(trace.frame_func == trace.strings.index("runtime.GC"))
        inside[np.searchsorted(trace.stack_start, frames, "right") - 1] = True
    return inside[trace.stack]


def marks(trace: Trace, rows: int) -> tuple[Any, Any]:
    """First and last row of each mark phase that ended before a row; one that began before the trace begins at 0."""
    kind = trace.kind[:rows]
    ends = np.flatnonzero(kind == GC_END)
    begins = np.flatnonzero((kind == GC_BEGIN) | (kind == GC_ACTIVE))
    at = np.searchsorted(begins, ends) - 1
    return np.where(at >= 0, begins[np.maximum(at, 0)] if len(begins) else 0, 0), ends


def recorded_cycles(trace: Trace) -> list[RecordedCycle]:
    """The mark phases of a trace, also one under way at its start or its end.

    What the stop of its sweep termination has in its stack tells who asked; of one under way at the start nothing does.
    """
    kind = trace.kind
    stops, ends = np.flatnonzero(kind == STW_BEGIN), np.flatnonzero(kind == GC_END)
    heap, goals = np.flatnonzero(kind == HEAP_ALLOC), np.flatnonzero(kind == HEAP_GOAL)
    in_gc = in_runtime_gc(trace)
    found = []
    for begin in np.flatnonzero((kind == GC_BEGIN) | (kind == GC_ACTIVE)).tolist():
        at = int(np.searchsorted(stops, begin))
        stop = int(stops[at]) if kind[begin] == GC_BEGIN and at < len(stops) else -1
        end = int(np.append(ends, -1)[np.searchsorted(ends, begin)])
        cycle = RecordedCycle(
            begin=begin,
            stop=stop,
            forced=stop >= 0 and bool(in_gc[stop]),
            heap_live=_value(trace, heap, begin, -1),
            marked=_value(trace, heap, end, -1) if end >= 0 else 0,
            goal=_value(trace, goals, end, 0) if end >= 0 else 0,
        )
        found.append(cycle)
    return found


def _value(trace: Trace, rows: Any, row: int, step: int) -> int:
    """A metric, told at ``rows``, as it was told last before a row (step -1) or first after it (0); 0 if it was not."""
    at = int(np.searchsorted(rows, row)) + step
    return int(trace.a[rows[at]]) if 0 <= at < len(rows) else 0


def memory_stats_stops(trace: Trace, rows: int) -> Any:
    """Rows of the stops of the world in which runtime.ReadMemStats flushes every P's cache."""
    reasons = [i for i, text in enumerate(trace.strings) if "read mem stats" in text]
    return np.flatnonzero((trace.kind[:rows] == STW_BEGIN) & np.isin(trace.a[:rows], reasons))
