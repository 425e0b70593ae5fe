"""The pacer and the GC CPU limiter for Python to call: what the shell does once a cycle, and what settings change.

Each does what its namesake of mgcpacer or mgclimit does; compiled code calls that one. Times are picoseconds.
"""

from __future__ import annotations

from typing import Any

from numba import boolean, int64, types, void

from sim.go import mgclimit, mgcpacer
from sim.go.stack import stack_scan_work
from sim.go.state import heap_type, mcaches
from sim.jit import bare, entry


@entry(void(heap_type, int64, int64))
def init(h: Any, gc_percent: Any, memory_limit: Any) -> None:
    """Set the pacer up for a first cycle with this GOGC (-1 = off) and limit in bytes (mgcpacer.NO_LIMIT = none)."""
    mgcpacer.init(bare(h), gc_percent, memory_limit)


@entry(int64(heap_type, int64))
def set_gc_percent(h: Any, percent: Any) -> Any:
    """Set GOGC, -1 for off; ``commit`` must follow. Gives the old value."""
    return mgcpacer.set_gc_percent(bare(h), percent)


@entry(int64(heap_type, int64))
def set_memory_limit(h: Any, limit: Any) -> Any:
    """Set the soft memory limit in bytes; ``commit`` must follow. Gives the old value."""
    return mgcpacer.set_memory_limit(bare(h), limit)


@entry(void(heap_type, boolean))
def commit(h: Any, sweep_done: Any) -> None:
    """Recompute goal and runway; ``revise`` must follow if a cycle is in progress."""
    mgcpacer.commit(bare(h), sweep_done)


@entry(void(heap_type, int64, int64, boolean))
def start_cycle(h: Any, now: Any, procs: Any, time_triggered: Any) -> None:
    """Begin a cycle on so many Ps."""
    mgcpacer.start_cycle(bare(h), now, procs, time_triggered)


@entry(void(heap_type))
def revise(h: Any) -> None:
    """Set the assist ratio anew."""
    mgcpacer.revise(bare(h))


@entry(void(heap_type, int64, int64))
def end_cycle(h: Any, now: Any, procs: Any) -> None:
    """Marking is done: estimate cons/mark."""
    mgcpacer.end_cycle(bare(h), now, procs)


@entry(void(heap_type, int64))
def reset_live(h: Any, bytes_marked: Any) -> None:
    """Live is what was marked, in bytes."""
    mgcpacer.reset_live(bare(h), bytes_marked)


@entry(void(heap_type, int64, int64))
def resume(h: Any, heap_live: Any, goal: Any) -> None:
    """Be in the middle of a program's life; ``commit`` must follow. All scannable bytes allocated so far count."""
    h = bare(h)
    for p in range(h[0].nprocs):
        h[0].heap_scan += mcaches(h)[p].scan_alloc
        mcaches(h)[p].scan_alloc = 0
    mgcpacer.resume(h, heap_live, goal, stack_scan_work(h))


@entry(int64(heap_type))
def heap_goal(h: Any) -> Any:
    """The heap goal in bytes."""
    return mgcpacer.heap_goal(bare(h))


@entry(types.UniTuple(int64, 2)(heap_type))
def trigger(h: Any) -> Any:
    """The trigger and the heap goal, in bytes."""
    return mgcpacer.trigger(bare(h))


@entry(void(heap_type, boolean, int64))
def start_gc_transition(h: Any, enable_gc: Any, now: Any) -> None:
    """The world is stopped to begin marking or to end it."""
    mgclimit.start_gc_transition(bare(h), enable_gc, now)


@entry(void(heap_type, int64))
def finish_gc_transition(h: Any, now: Any) -> None:
    """That pause is over."""
    mgclimit.finish_gc_transition(bare(h), now)


@entry(void(heap_type, int64))
def update_limiter(h: Any, now: Any) -> None:
    """Count the time since the last update; mgclimit.need_update says when it is due."""
    mgclimit.update(bare(h), now)


@entry(boolean(heap_type, int64, int64, int64))
def start_event(h: Any, p: Any, kind: Any, now: Any) -> Any:
    """P p begins something the limiter counts (mgclimit's kinds); False if it is in an event already."""
    return mgclimit.start_event(bare(h), p, kind, now)


@entry(void(heap_type, int64, int64, int64))
def stop_event(h: Any, p: Any, kind: Any, now: Any) -> None:
    """That ends."""
    mgclimit.stop_event(bare(h), p, kind, now)
