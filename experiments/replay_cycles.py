"""What a recorded trace tells of its collections beside its memory: cycles, who forced them, and who sweeps where.

The trigger is not recorded. The pacer's formula has bounds that follow from the goal and from what was marked
(mgcpacer.go:trigger): 45/64 of the way, or 1 MiB if that is more, to 61/64 of it, or the goal less 4 MiB. A cycle that
the heap triggers begins at the first refill or large object that reaches the trigger. So if a bound lies between
heapLive then and heapLive before, that is the trigger; else it is heapLive then, within the bounds. Where the next
cycle is forced, or none follows, the trigger was not reached: the lower bound, or heapLive reached if that is more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments import replay_state as state
from workloads.gotrace_model import (
    GC_ACTIVE,
    GC_BEGIN,
    GC_END,
    GO_BLOCK,
    GO_START,
    GO_STOP,
    GO_SWITCH,
    GO_SWITCH_DESTROY,
    HEAP_ALLOC,
    HEAP_GOAL,
    STW_BEGIN,
    Trace,
)

_MIN_NUM, _MAX_NUM, _DEN = 45, 61, 64  # minTriggerRatioNum, maxTriggerRatioNum, triggerRatioDen
_SWEEP_MIN_HEAP_DISTANCE = 1 << 20
_HEAP_MINIMUM = 4 << 20
_NO_GOAL = 1 << 62  # the goal where the heap triggers nothing


@dataclass(frozen=True)
class Cycles:
    """Mark phases of a trace: ``natural`` ones and those that runtime.GC ``forced``."""

    natural: int
    forced: int


def stack_names(trace: Trace, row: int) -> list[str]:
    """The functions of an event's stack, innermost first."""
    first, end = trace.stack_start[trace.stack[row]], trace.stack_start[trace.stack[row] + 1]
    return [trace.strings[int(name)] for name in trace.frame_func[first:end]]


def begins(trace: Trace) -> list[tuple[int, bool]]:
    """The mark phases: the event that shows it first, and whether runtime.GC forced it.

    What the stop-the-world of its sweep termination has in its stack tells; of one under way at the start nothing does.
    """
    found = []
    stops = np.flatnonzero(trace.kind == STW_BEGIN)
    for row in np.flatnonzero((trace.kind == GC_BEGIN) | (trace.kind == GC_ACTIVE)).tolist():
        at = int(np.searchsorted(stops, row))
        forced = trace.kind[row] == GC_BEGIN and at < len(stops) and "runtime.GC" in stack_names(trace, int(stops[at]))
        found.append((row, bool(forced)))
    return found


def count_cycles(trace: Trace) -> Cycles:
    """The mark phases in a trace."""
    forced = sum(forced for _, forced in begins(trace))
    return Cycles(natural=len(begins(trace)) - forced, forced=forced)


def name_sweepers(trace: Trace, recorded: Any) -> None:
    """Give the events at which somebody sweeps on his own their kinds (replay_state)."""
    stops = np.flatnonzero((trace.kind == GO_STOP) | (trace.kind == GO_BLOCK))
    sweeper: set[int] = set()
    for row in stops.tolist():
        names = stack_names(trace, row)
        if "runtime.bgsweep" in names:
            sweeper.add(int(trace.g[row]))
        elif trace.kind[row] == GO_STOP and "runtime.GC" in names and "runtime.Gosched" in names[:1]:
            recorded["kind"][row] = state.GC_STEP
    if not sweeper:
        return
    mine = np.isin(trace.g, list(sweeper))
    starts = np.isin(trace.kind, (GO_START, GO_SWITCH, GO_SWITCH_DESTROY)) & np.isin(trace.a, list(sweeper))
    recorded["kind"][starts] = state.SWEEPER_START
    recorded["kind"][mine & (trace.kind == GO_STOP)] = state.SWEEPER_STOP
    recorded["kind"][mine & (trace.kind == GO_BLOCK)] = state.SWEEPER_PARK


def trigger_bounds(goal: int, marked: int) -> tuple[int, int]:
    """The lowest and the highest trigger for a goal and the bytes marked, sweeping being under way. (trigger)"""
    if goal <= marked:
        return goal, goal
    low = max((goal - marked) // _DEN * _MIN_NUM + marked, marked + _SWEEP_MIN_HEAP_DISTANCE)
    high = (goal - marked) // _DEN * _MAX_NUM + marked
    if goal > _HEAP_MINIMUM:
        high = max(high, goal - _HEAP_MINIMUM)
    return low, max(high, low)


def infer_triggers(trace: Trace, recorded: Any) -> None:
    """Write into every HEAP_GOAL event, as b, the trigger in bytes that its commit set."""
    live_rows = np.flatnonzero(trace.kind == HEAP_ALLOC)
    ends = np.flatnonzero(trace.kind == GC_END)
    cycle = begins(trace)
    for row in np.flatnonzero(trace.kind == HEAP_GOAL).tolist():
        goal = int(trace.a[row]) or _NO_GOAL
        if goal < 0 or goal > _NO_GOAL:
            goal = _NO_GOAL
        end = int(np.searchsorted(ends, row)) - 1
        marked = _live_before(trace, live_rows, int(ends[end])) if end >= 0 else 0
        low, high = trigger_bounds(goal, marked)
        following = next(((begin, forced) for begin, forced in cycle if begin > row), (len(trace.kind), True))
        reached = _live_before(trace, live_rows, following[0])
        recorded["b"][row] = _trigger(low, high, reached, _step_before(trace, live_rows, following[0]), following[1])


def _trigger(low: int, high: int, reached: int, before: int, forced: bool) -> int:
    """See the module; ``before``: heapLive before the refill or large object that made it ``reached``."""
    if forced:
        return min(max(low, reached), high)
    for bound in (low, high):
        if before < bound <= reached:
            return bound
    return min(max(reached, low), high)


def _live_before(trace: Trace, live_rows: Any, row: int) -> int:
    """heapLive as recorded last before an event; 0 if it was not."""
    at = int(np.searchsorted(live_rows, row)) - 1
    return int(trace.a[live_rows[at]]) if at >= 0 else 0


def _step_before(trace: Trace, live_rows: Any, row: int) -> int:
    """The value before that."""
    at = int(np.searchsorted(live_rows, row)) - 2
    return int(trace.a[live_rows[at]]) if at >= 0 else 0
