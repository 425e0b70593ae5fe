"""Sweeping: unmarked slots become free, empty spans go back to the heap (mirrors mgcsweep.go).

A cycle's mark termination adds 2 to the heap's sweepgen (`begin_sweep`): swept spans are now unswept, and whoever needs
one sweeps it first. Exactly one sweeper owns a span (sweepgen - 1). ``sweep_one`` walks the sets in the background's
order: span classes upward, full spans before partial ones.

*Proportional sweep.* What is allocated pays for sweeping: `gc_pace_sweeper` sets pages to sweep per byte of growing
heap, so that all is swept 1 MiB before the next cycle's trigger, and `deduct_sweep_credit` sweeps what an allocation
owes before it gets a span.

Invariants: a span in use when the sweep begins is swept once, so ``pages_swept`` ends at the pages in use then; while
``sweep_drained`` is set no set holds a span that is still to be swept. The sweep is *done* when it is drained and
nobody holds it open (``sweepers``: the end of mark termination does, until the last P's cache is flushed).

Every sweep leaves facts to price: ``fact_swept``, ``fact_swept_free``, ``fact_freed``, and, but for a span that a refill
takes and pays for itself (``fact_took_unswept``), ``fact_sweep_time`` by the table ``swept_cells``, else by
``sweep_kept`` and ``sweep_freed`` (picoseconds by span class; all zero where nobody installed prices).

Left out here: specials, and who sweeps in the background and when, which is the collector's shell. Left out by it: the
queue at mheap.lock, which the runtime takes for each empty span (freeSpan). Its hold is in the price; nobody waits for it.
Most of these spans are freed by allocations that sweep, inside one turn of the pump, which would have to become a turn
for each; the lock taken by the background sweeper alone shows next to nothing: of 1.2 million mallocs of api-service, 4
instead of 1 waited for it.
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
from sim.go.pay import drawn
from sim.go.sizeclasses import class_to_size
from sim.go.state import (
    NUM_SPAN_CLASSES,
    PAGE_SIZE,
    SPAN_IN_USE,
    small_free_count,
    spans,
    sweep_freed,
    sweep_kept,
    swept_cells,
)
from sim.jit import jit
from sim.units import Throw

SWEEP_MIN_HEAP_DISTANCE = 1 << 20  # bytes before the trigger at which all shall be swept (mgcsweep.go:gcPaceSweeper)


@jit
def begin_sweep(h: Any) -> None:
    """Mark termination: every span in use is to be swept from now on. (mgc.go:gcSweep)

    The last sweep must be finished. The caller flushes the caches, each before its P allocates again
    (mcache.prepare_for_sweep), and paces the sweep.
    """
    h[0].sweepgen += 2
    h[0].sweep_drained = 0
    h[0].pages_swept = 0
    h[0].sweep_arenas = h[0].narenas
    h[0].reclaim_index = 0
    h[0].reclaim_credit = 0
    h[0].central_index = 0


@jit
def sweep_done(h: Any) -> Any:
    """Whether everything is swept and nobody holds the sweep open. (mgcsweep.go:isSweepDone)"""
    return h[0].sweep_drained != 0 and h[0].sweepers == 0


@jit
def gc_pace_sweeper(h: Any, trigger: Any) -> None:
    """Set the pages to sweep per byte by which heap_live grows towards ``trigger``, bytes. (mgcsweep.go:gcPaceSweeper)"""
    if sweep_done(h):
        h[0].sweep_pages_per_byte = 0.0
        return
    distance = max(trigger - h[0].heap_live - SWEEP_MIN_HEAP_DISTANCE, np.int64(PAGE_SIZE))
    todo = h[0].pages_in_use - h[0].pages_swept
    if todo <= 0:
        h[0].sweep_pages_per_byte = 0.0
        return
    h[0].sweep_pages_per_byte = np.float64(todo) / np.float64(distance)
    h[0].sweep_heap_live_basis = h[0].heap_live
    h[0].pages_swept_basis = h[0].pages_swept


@jit
def try_acquire(h: Any, s: Any) -> Any:
    """Claim an unswept span for sweeping. (mgcsweep.go:tryAcquire)"""
    sp = spans(h)[s]
    if np.int64(sp.sweepgen) != np.int64(h[0].sweepgen) - 2:
        return False
    sp.sweepgen = h[0].sweepgen - 1
    return True


@jit
def sweep_price(h: Any, p: Any, spanclass: Any, freed: Any) -> Any:
    """Picoseconds of sweeping a span on P p: a draw from what that takes beside other work, more for the first span since
    the last were paid; where nobody measured that, a mean of the span's class."""
    if h[0].swept_told == 0:
        return sweep_freed(h)[spanclass] if freed else sweep_kept(h)[spanclass]
    return swept_cells(h)[drawn(h, p, 2 * np.int64(h[0].fact_sweep_time > 0) + np.int64(freed))]


@jit
def sweep(h: Any, p: Any, s: Any, preserve: Any) -> Any:
    """Sweep an acquired span; True when its pages went back to the heap. (mgcsweep.go:sweep)

    ``preserve``: the caller wants the span whatever its state, and places it itself. If it has room the caller takes it, and
    what that costs together is the caller's to pay, where it is known: what the one reads first the other finds at hand.
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
    h[0].fact_swept += 1
    h[0].fact_freed += freed
    sp.sweepgen = h[0].sweepgen
    if not preserve and sp.alloc_count == 0:
        h[0].fact_swept_free += 1
        h[0].fact_sweep_time += sweep_price(h, p, np.int64(sp.spanclass), True)
        free_span_locked(h, p, s)
        return True
    if preserve and h[0].unswept_told and sp.alloc_count != sp.nelems:
        h[0].fact_took_unswept = 1
    else:
        h[0].fact_sweep_time += sweep_price(h, p, np.int64(sp.spanclass), False)
    if not preserve:
        if sp.spanclass < 2:
            spanset_push(h, full_swept(h, sp.spanclass), s)
        else:
            place_swept(h, s)
    return False


@jit
def next_span_for_sweep(h: Any) -> Any:
    """Take the next span of the background's order out of its set; 0 when all are empty. (mgcsweep.go:nextSpanForSweep)"""
    while h[0].central_index < 2 * NUM_SPAN_CLASSES:
        spanclass = np.int64(h[0].central_index) >> 1
        if h[0].central_index & 1 == 0:
            s = spanset_pop(h, full_unswept(h, spanclass))
        else:
            s = spanset_pop(h, partial_unswept(h, spanclass))
        if s != 0:
            return s
        h[0].central_index += 1
    return np.int64(0)


@jit
def sweep_one(h: Any, p: Any) -> Any:
    """Sweep the next span of the background's order. (mgcsweep.go:sweepone)

    Pages given back to the heap, 0 if the span stays in use, -1 when nothing is left to sweep.
    """
    if h[0].sweep_drained:
        return np.int64(-1)
    while True:
        s = next_span_for_sweep(h)
        if s == 0:
            h[0].sweep_drained = 1
            h[0].fact_drained += 1
            return np.int64(-1)
        if spans(h)[s].state != SPAN_IN_USE or not try_acquire(h, s):
            continue
        npages = np.int64(spans(h)[s].npages)
        if not sweep(h, p, s, False):
            return np.int64(0)
        h[0].reclaim_credit += npages
        return npages


@jit
def sweep_debt(h: Any, span_bytes: Any, caller_pages: Any) -> Any:
    """Pages to sweep before ``span_bytes`` may be allocated; the caller sweeps ``caller_pages`` more itself."""
    grown = span_bytes + max(h[0].heap_live - h[0].sweep_heap_live_basis, np.int64(0))
    target = np.int64(h[0].sweep_pages_per_byte * np.float64(grown)) - caller_pages
    return target - (h[0].pages_swept - h[0].pages_swept_basis)


@jit
def deduct_sweep_credit(h: Any, p: Any, span_bytes: Any, caller_pages: Any) -> None:
    """Sweep until the allocation of a span of ``span_bytes`` owes nothing. (mgcsweep.go:deductSweepCredit)

    The debt is computed anew after each span, so a change of pacing in between counts at once.
    """
    if h[0].sweep_pages_per_byte == 0.0:
        return
    while sweep_debt(h, span_bytes, caller_pages) > 0:
        if sweep_one(h, p) < 0:
            h[0].sweep_pages_per_byte = 0.0
            return


@jit
def finish_sweep(h: Any) -> None:
    """Nothing is left to sweep: renew the sets and the mark bits' epoch. (mgcsweep.go:finishsweep_m, after its sweeping)"""
    if h[0].sweepers != 0:
        raise Throw("active sweepers found at start of mark phase")
    reset_unswept_sets(h)
    next_mark_bit_arena_epoch(h)
