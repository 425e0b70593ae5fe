"""The GC CPU limiter: no more than half of the CPU time for the collector, over a window (mirrors mgclimit.go).

Theory. A leaky bucket holds CPU time: GC time fills it, the program's time drains it, both at full weight, so that it
stays full only while GC takes half of all CPU time or more. While it is full the limiter is on: assists return at once
and memory is not scavenged for allocation. Its capacity of 1 s a P is all the leeway there is: the bucket never goes
below empty, so no idle day earns credit. GC time is: every CPU while the world is stopped for a phase change; while
marking, 25 % of all CPU time for the workers, whatever they really took; assists. Time that Ps were idle, or marked
only because they were, counts as nobody's.

Invariants: 0 <= fill <= capacity; the limiter is on only while the bucket is full; between the start and the end of
a transition nobody else updates it; a P is in at most one event at a time.

All times are integer picoseconds; fill, capacity and overflow are picoseconds of CPU time. Go's lock is left out: an
update is one step here, and only a transition lasts. Left out too: the cycle in which the limiter was last on, and the
sum of idle time (statistics).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mgcpacer import BACKGROUND_UTILIZATION
from sim.go.state import procs
from sim.jit import jit
from sim.units import Throw

CAPACITY_PER_PROC = 10**12  # 1 s
UPDATE_PERIOD = 10**10  # 10 ms

# what a P may be at that the limiter counts (limiterEventType)
NO_EVENT = 0
IDLE_MARK_WORK = 1
MARK_ASSIST = 2
SCAVENGE_ASSIST = 3
IDLE = 4


@jit
def start_gc_transition(h: Any, enable_gc: Any, now: Any) -> None:
    """The world is stopped to begin marking, or to end it; count what was before. (startGCTransition)"""
    if h[0].limiter_transitioning:
        raise Throw("failed to acquire lock to start a GC transition")
    if h[0].limiter_gc_enabled == enable_gc:
        raise Throw("transitioning GC to the same state as before?")
    update(h, now)
    h[0].limiter_gc_enabled = enable_gc
    h[0].limiter_transitioning = True


@jit
def finish_gc_transition(h: Any, now: Any) -> None:
    """The pause is over: nobody else ran since its start, so all of it is GC time. (finishGCTransition)"""
    if not h[0].limiter_transitioning:
        raise Throw("finishGCTransition called without starting one?")
    if now >= h[0].limiter_last_update:
        accumulate(h, np.int64(0), (now - h[0].limiter_last_update) * h[0].limiter_nprocs)
    h[0].limiter_last_update = now
    h[0].limiter_transitioning = False


@jit
def need_update(h: Any, now: Any) -> Any:
    """Is the last update more than 10 ms ago? (needUpdate)"""
    return now - h[0].limiter_last_update > UPDATE_PERIOD


@jit
def add_assist_time(h: Any, duration: Any) -> None:
    """An assist took so long; the next update counts it. (addAssistTime)"""
    h[0].limiter_assist_time_pool += duration


@jit
def add_idle_time(h: Any, duration: Any) -> None:
    """A P was idle for so long; the next update takes it out of the total. (addIdleTime)"""
    h[0].limiter_idle_time_pool += duration


@jit
def update(h: Any, now: Any) -> None:
    """Count the time since the last update, that of Ps' events in progress too. (update, updateLocked)

    During a transition nothing: its end counts everything. A time before the last update is ignored.
    """
    c = h[0]
    if c.limiter_transitioning or now < c.limiter_last_update:
        return
    window = (now - c.limiter_last_update) * c.limiter_nprocs
    c.limiter_last_update = now
    gc_time = np.int64(c.limiter_assist_time_pool)
    idle_time = np.int64(c.limiter_idle_time_pool)
    c.limiter_assist_time_pool = 0
    c.limiter_idle_time_pool = 0
    for p in range(len(procs(h))):
        kind = procs(h)[p].limiter_event
        duration = consume_event(h, p, now)
        if kind == MARK_ASSIST or kind == SCAVENGE_ASSIST:
            gc_time += duration
        else:
            idle_time += duration
    if c.limiter_gc_enabled:  # by the whole window: workers' 25 % are of all CPUs, idle ones too
        gc_time += np.int64(float(window) * BACKGROUND_UTILIZATION)
    accumulate(h, window - idle_time - gc_time, gc_time)


@jit
def accumulate(h: Any, mutator_time: Any, gc_time: Any) -> None:
    """Move the bucket's level by gc_time - mutator_time, and say whether it is full. (accumulate)"""
    c = h[0]
    change = gc_time - mutator_time
    headroom = c.limiter_capacity - c.limiter_fill
    if change > 0 and headroom <= change:
        c.limiter_overflow += change - headroom
        c.limiter_fill = c.limiter_capacity
        c.limiter_enabled = True
        return
    c.limiter_fill = max(c.limiter_fill + change, 0)
    if change != 0 and headroom == 0:
        c.limiter_enabled = False


@jit
def reset_capacity(h: Any, now: Any, nprocs: Any) -> None:
    """The number of Ps is another from now on. (resetCapacity)"""
    c = h[0]
    if c.limiter_transitioning:
        raise Throw("failed to acquire lock to reset capacity")
    update(h, now)
    c.limiter_nprocs = nprocs
    c.limiter_capacity = nprocs * CAPACITY_PER_PROC
    if c.limiter_fill > c.limiter_capacity:
        c.limiter_fill = c.limiter_capacity
        c.limiter_enabled = True
    elif c.limiter_fill < c.limiter_capacity:
        c.limiter_enabled = False


@jit
def start_event(h: Any, p: Any, kind: Any, now: Any) -> Any:
    """P p begins something that counts; False if it is in an event already, which its time goes to. (limiterEvent.start)"""
    proc = procs(h)[p]
    if proc.limiter_event != NO_EVENT:
        return False
    proc.limiter_event = kind
    proc.limiter_event_start = now
    return True


@jit
def consume_event(h: Any, p: Any, now: Any) -> Any:
    """How long P p's event is in progress since it was last asked; 0 if it is in none. (limiterEvent.consume)"""
    proc = procs(h)[p]
    if proc.limiter_event == NO_EVENT or now <= proc.limiter_event_start:
        return np.int64(0)
    duration = now - proc.limiter_event_start
    proc.limiter_event_start = now
    return duration


@jit
def stop_event(h: Any, p: Any, kind: Any, now: Any) -> None:
    """P p's event ends; what no update has counted of it goes into the pools. (limiterEvent.stop)"""
    proc = procs(h)[p]
    if proc.limiter_event != kind or kind == NO_EVENT:
        raise Throw("limiterEvent.stop: found wrong event in p's limiter event slot")
    duration = consume_event(h, p, now)
    proc.limiter_event = NO_EVENT
    if kind == MARK_ASSIST or kind == SCAVENGE_ASSIST:
        add_assist_time(h, duration)
    else:
        add_idle_time(h, duration)
