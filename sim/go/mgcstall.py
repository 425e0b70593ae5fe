"""Waits in marking: memory that the machine below this one took has to be brought back before an object can be read.

A part of marking's CPU time is such waits, each much longer than an object takes. They happen anywhere, so that an assist
meets none, or one, or several: the stock of marking is not even. Of the heap's part each `PER_STRETCH` waits share a
stretch of the time, at places drawn at random in what the stretch holds of marking proper; a stretch takes the same time,
and gets as much work done, as it would if all of it were even. A cycle takes as much longer or shorter as its last one,
of which it has but a part, begins with more or fewer waits than that: as long on average.

Measured: calibrate's `mixed` times the mallocs that assist (experiments/machine_gc.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.engine.rng import draw64
from sim.jit import jit
from sim.words import shr64

PER_STRETCH = 8
PPM = 1_000_000
_CYCLE_BITS = 36  # of the counter of draws, for those of a cycle
_PLACE_BITS = 30


@jit
def stretch(h: Any) -> Any:
    """Picoseconds in which so many waits are; 0 if there are none."""
    if h[0].mark_stalls == 0 or h[0].mark_stall == 0:
        return np.int64(0)
    return PER_STRETCH * h[0].mark_stall * PPM // h[0].mark_stalls


@jit
def stall_place(h: Any, number: Any, proper: Any) -> Any:
    """Where the wait of this number in the cycle is, in its stretch's picoseconds of marking proper."""
    counter = (np.int64(h[0].sweepgen) << _CYCLE_BITS) + number
    word = np.int64(shr64(draw64(h[0].stall_key, counter), 64 - _PLACE_BITS))
    return np.int64(np.float64(word) * np.float64(proper) / (1 << _PLACE_BITS))


@jit
def even_time(h: Any, given: Any) -> Any:
    """What so much of the heap's time comes to if all of it were even."""
    length = stretch(h)
    if length == 0:
        return given
    k = given // length
    proper = length - PER_STRETCH * h[0].mark_stall
    left = given - k * length
    last = np.int64(-1)
    for _ in range(PER_STRETCH):  # the waits in order
        place, number = proper, np.int64(-1)
        for i in range(PER_STRETCH):
            one = (stall_place(h, k * PER_STRETCH + i, proper) << 3) + i
            if one > last and (number < 0 or one < number):
                place, number = one >> 3, one
        if left <= place:
            break
        left = max(place, left - h[0].mark_stall)
        last = number
    return k * length + np.int64(np.float64(left) * (np.float64(length) / np.float64(proper)))


@jit
def stalled_time(h: Any, even: Any) -> Any:
    """How long it takes until that is done which would take so long if all were even: the inverse, as early as it can be."""
    length = stretch(h)
    if length == 0:
        return even
    k = even // length
    proper = length - PER_STRETCH * h[0].mark_stall
    done = np.int64(np.float64(even - k * length) * (np.float64(proper) / np.float64(length)))
    met = 0
    for i in range(PER_STRETCH):
        if stall_place(h, k * PER_STRETCH + i, proper) < done:
            met += 1
    return k * length + done + met * h[0].mark_stall
