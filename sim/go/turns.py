"""Whose turn in the pump is next: that of a P, of the collector, or of one who waits for mheap.lock.

A turn is a number: a P's index, behind the last P the collector, behind it the look turns at mheap.lock (heaplock.py) by
owner. At one instant looks come first, then Ps in their order, then the collector, as the clock's ranks say.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.engine.clock import LOCK, OWNERS, RUN
from sim.go.state import NEVER
from sim.jit import inlined


@inlined
def first(h: Any, times: Any) -> Any:
    """The next turn, and when it is; P 0 at NEVER if there is none."""
    nprocs = h[0].nprocs
    time = times[0]
    for i in range(1, nprocs + 1):
        time = min(time, times[i])
    look_time = h[0].heap_lock_look
    if look_time <= time and look_time < NEVER:
        return nprocs + 1 + h[0].heap_lock_looker, look_time
    p = np.int64(0)
    while times[p] != time:
        p += 1
    return p, time


@inlined
def place(nprocs: Any, turn: Any) -> Any:
    """The priority of a turn among all that happens at its instant. (sim/engine/clock.py)"""
    return RUN * OWNERS + turn if turn <= nprocs else LOCK * OWNERS + turn - nprocs - 1
