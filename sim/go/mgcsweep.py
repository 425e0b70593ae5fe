"""Sweeping: unmarked slots become free, empty spans go back to the heap (mirrors mgcsweep.go).

A cycle's mark termination adds 2 to the heap's sweepgen: swept spans are now unswept, and whoever needs one sweeps
it first. Exactly one sweeper owns a span (sweepgen - 1). ``sweep_one`` walks the sets in the background's order:
span classes upward, full spans before partial ones.

Left out here, and part of the collector: pacing, credit, specials.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mfixalloc import new_mark_bits, next_mark_bit_arena_epoch
from sim.go.mheap import free_span_locked
from sim.go.mspan import sweep_bits
from sim.go.mspanset import (
    full_swept,
    full_unswept,
    partial_unswept,
    place_swept,
    reset_unswept_sets,
    spanset_pop,
    spanset_push,
)
from sim.go.sizeclasses import class_to_size
from sim.go.state import NUM_SPAN_CLASSES, SPAN_IN_USE, small_free_count, spans
from sim.jit import jit
from sim.units import Throw


@jit
def try_acquire(h: Any, s: Any) -> Any:
    """Claim an unswept span for sweeping. (mgcsweep.go:tryAcquire)"""
    sp = spans(h)[s]
    if np.int64(sp.sweepgen) != np.int64(h[0].sweepgen) - 2:
        return False
    sp.sweepgen = h[0].sweepgen - 1
    return True


@jit
def sweep(h: Any, p: Any, s: Any, preserve: Any) -> Any:
    """Sweep an acquired span; True when its pages went back to the heap. (mgcsweep.go:sweep)

    ``preserve``: the caller wants the span whatever its state, and places it itself.
    """
    sp = spans(h)[s]
    if np.int64(sp.sweepgen) != np.int64(h[0].sweepgen) - 1:
        raise Throw("sweep of a span nobody acquired")
    h[0].pages_swept += sp.npages
    freed = sweep_bits(h, s)
    new_mark_bits(h, sp.nelems)
    if freed > 0:
        if sp.spanclass >= 2:
            small_free_count(h)[np.int64(sp.spanclass) >> 1] += freed
            h[0].total_free += freed * class_to_size[np.int64(sp.spanclass) >> 1]
        else:
            h[0].total_free += sp.elemsize
            h[0].large_free += sp.elemsize
            h[0].large_free_count += 1
    sp.sweepgen = h[0].sweepgen
    if preserve:
        return False
    if sp.alloc_count == 0:
        free_span_locked(h, p, s)
        return True
    if sp.spanclass < 2:
        spanset_push(h, full_swept(h, sp.spanclass), s)
    else:
        place_swept(h, s)
    return False


@jit
def sweep_one(h: Any, p: Any) -> Any:
    """Sweep the next span of the background's order; 0 when nothing is left to sweep. (mgcsweep.go:sweepone)"""
    while h[0].central_index < 2 * NUM_SPAN_CLASSES:
        spanclass = np.int64(h[0].central_index) >> 1
        if h[0].central_index & 1 == 0:
            s = spanset_pop(h, full_unswept(h, spanclass))
        else:
            s = spanset_pop(h, partial_unswept(h, spanclass))
        if s == 0:
            h[0].central_index += 1
            continue
        if spans(h)[s].state == SPAN_IN_USE and try_acquire(h, s):
            sweep(h, p, s, False)
            return s
    return np.int64(0)


@jit
def finish_sweep(h: Any) -> None:
    """Nothing is left to sweep: renew the sets and the mark bits' epoch. (mgcsweep.go:finishsweep_m, after its sweeping)"""
    reset_unswept_sets(h)
    next_mark_bit_arena_epoch(h)
