"""What a recorded trace tells of its collections beside its memory: cycles, who forced them, and who sweeps where.

The trigger is not recorded. The pacer's formula has bounds that follow from the goal and from what was marked
(mgcpacer.go:trigger): 45/64 of the way, or 1 MiB if that is more, to 61/64 of it, or the goal less 4 MiB. A cycle that
the heap triggers begins at the first refill or large object that reaches the trigger. So if a bound lies between
heapLive then and heapLive before, that is the trigger; else it is heapLive then, within the bounds. Where the next
cycle is forced, or none follows, the trigger was not reached: it is put as far between marked heap and goal as the last
one that was (else the next one, else the lower bound), and no lower than heapLive got.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np

from experiments import replay_state as state
from sim.go.mgcpacer import (
    DEFAULT_HEAP_MINIMUM,
    MAX_TRIGGER_RATIO_NUM,
    MIN_TRIGGER_RATIO_NUM,
    SWEEP_MIN_HEAP_DISTANCE,
    TRIGGER_RATIO_DEN,
)
from sim.go.params import VERSIONS
from sim.metrics.cycles import NO_GOAL
from workloads.gotrace_cycles import recorded_cycles, stack_names
from workloads.gotrace_model import (
    GC_END,
    GO_BLOCK,
    GO_START,
    GO_STOP,
    GO_SWITCH,
    GO_SWITCH_DESTROY,
    HEAP_ALLOC,
    HEAP_GOAL,
    PROC_START,
    PROC_STATUS,
    PROC_STOP,
    Trace,
)

_P_IDLE = 2  # PROC_STATUS
SWEEP_BATCH = VERSIONS["go1.27"].sweep_batch  # spans the background sweeper sweeps before it may yield
# nanoseconds of a batch: 0.2 us a span (table sweep of machines/epyc-2core.toml, 16 to 8192 bytes, all to none kept:
# means of 0.04 to 0.49 us), and as much for what tracing adds to it
_BATCH_NS = SWEEP_BATCH * 400


def name_sweepers(trace: Trace, recorded: Any) -> None:
    """Give the events at which somebody sweeps on his own account their kinds, and what follows from them (replay_state).

    The background sweeper's turn on a P ends by yielding after a batch, by being preempted in the middle of one, or by
    going to sleep when nothing is left. It yields at once unless a P is idle, so how many batches fit into the time for
    which one was is all that takes a price.
    """
    sweeper: set[int] = set()
    for row in np.flatnonzero((trace.kind == GO_STOP) | (trace.kind == GO_BLOCK)).tolist():
        names = stack_names(trace, row)
        if "runtime.bgsweep" in names:
            sweeper.add(int(trace.g[row]))
        elif "runtime.GC" in names and names[0] == "runtime.Gosched" and trace.kind[row] == GO_STOP:
            recorded["kind"][row] = state.GC_STEP
    mine = list(sweeper)
    starts = np.isin(trace.kind, (GO_START, GO_SWITCH, GO_SWITCH_DESTROY)) & np.isin(trace.a, mine)
    ends = np.flatnonzero(np.isin(trace.kind, (GO_STOP, GO_BLOCK)) & np.isin(trace.g, mine))
    preempted = [i for i, text in enumerate(trace.strings) if text == "preempted"]
    idle = _idle_until(trace)
    for row in np.flatnonzero(starts).tolist():
        at = int(np.searchsorted(ends, row))
        if at == len(ends):
            break
        end = int(ends[at])
        recorded["kind"][row], recorded["b"][row] = state.SWEEPER_START, end
        recorded["kind"][end] = state.SWEEPER_END
        if trace.kind[end] == GO_BLOCK:
            recorded["c"][row] = state.TO_THE_END
        elif trace.a[end] in preempted:
            recorded["c"][row] = 0
        else:
            recorded["c"][row] = SWEEP_BATCH * (1 + int(idle[end] - idle[row]) // _BATCH_NS)


def _idle_until(trace: Trace) -> Any:
    """For every event, the nanoseconds up to it for which some P was idle."""
    running: dict[int, bool] = {}
    step = np.zeros(len(trace.kind), np.int64)
    rows = np.flatnonzero(np.isin(trace.kind, (PROC_START, PROC_STOP, PROC_STATUS))).tolist()
    for row, following in pairwise([*rows, len(step) - 1]):
        if trace.kind[row] == PROC_STOP:
            running[int(trace.p[row])] = False
        else:
            running[int(trace.a[row])] = trace.kind[row] == PROC_START or trace.b[row] != _P_IDLE
        if not all(running.values()):
            step[row + 1 : following + 1] = np.diff(trace.time_ns[row : following + 1])
    return np.cumsum(step)


def trigger_bounds(goal: int, marked: int) -> tuple[int, int]:
    """The lowest and the highest trigger for a goal and the bytes marked, sweeping being under way. (trigger)"""
    if goal <= marked:
        return goal, goal
    low = max((goal - marked) // TRIGGER_RATIO_DEN * MIN_TRIGGER_RATIO_NUM + marked, marked + SWEEP_MIN_HEAP_DISTANCE)
    high = (goal - marked) // TRIGGER_RATIO_DEN * MAX_TRIGGER_RATIO_NUM + marked
    if goal > DEFAULT_HEAP_MINIMUM:
        high = max(high, goal - DEFAULT_HEAP_MINIMUM)
    return low, max(high, low)


def infer_triggers(trace: Trace, recorded: Any) -> None:
    """Write into every HEAP_GOAL event, as b, the trigger in bytes that its commit set; see the module."""
    live_rows = np.flatnonzero(trace.kind == HEAP_ALLOC)
    ends = np.flatnonzero(trace.kind == GC_END)
    cycles = recorded_cycles(trace)
    known, unknown = [], []  # (event, trigger's share of the way); (event, low, high, marked, goal, reached)
    for row in np.flatnonzero(trace.kind == HEAP_GOAL).tolist():
        goal = int(trace.a[row])
        if not 0 < goal < NO_GOAL:
            goal = NO_GOAL
        end = int(np.searchsorted(ends, row)) - 1
        marked = _live(trace, live_rows, int(ends[end]), 1) if end >= 0 else 0
        low, high = trigger_bounds(goal, marked)
        begin, forced = next(((cycle.begin, cycle.forced) for cycle in cycles if cycle.begin > row), (len(trace.kind), True))
        reached = _live(trace, live_rows, begin, 1)
        if forced:
            unknown.append((row, low, high, marked, goal, reached))
            continue
        trigger = _reached_trigger(low, high, reached, _live(trace, live_rows, begin, 2))
        recorded["b"][row] = trigger
        if end >= 0 and goal > marked:
            known.append((row, Fraction(trigger - marked, goal - marked)))
    for row, low, high, marked, goal, reached in unknown:
        share = next((share for at, share in reversed(known) if at < row), known[0][1] if known else Fraction(0))
        recorded["b"][row] = min(max(low, reached, marked + int(share * (goal - marked))), high)


def _reached_trigger(low: int, high: int, reached: int, before: int) -> int:
    """The trigger that a refill or a large object reached, which made heapLive ``reached`` from ``before``."""
    for bound in (low, high):
        if before < bound <= reached:
            return bound
    return min(max(reached, low), high)


def _live(trace: Trace, live_rows: Any, row: int, back: int) -> int:
    """heapLive as it was recorded last (``back`` 1) or last but one (2) before an event; 0 if it was not."""
    at = int(np.searchsorted(live_rows, row)) - back
    return int(trace.a[live_rows[at]]) if at >= 0 else 0
