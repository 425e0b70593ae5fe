"""What steps cost a P: prices drawn in the pump, and page faults on memory that a step is first to touch.

The price of a step is its mean, or a draw from the P's own stream; prices by the byte carry their remainder along, so that
time adds up exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.costs import STEPS
from sim.engine.rng import draw64
from sim.go.mheap import OS_PAGE_SHIFT, touch_pages
from sim.go.sizeclasses import MALLOC_HEADER_SIZE
from sim.go.state import FIRST_TOUCH, GC_MARK, MAX_FRESH, PRICE_STEPS, cells, prices, procs
from sim.jit import inlined, jit
from sim.units import US
from sim.words import shr64

STEP = {name: PRICE_STEPS + i for i, name in enumerate(STEPS)}
_FIRST_TOUCH = STEP["first_touch"]
_READ_TOUCH = STEP["read_touch"]
_COPY_TOUCH = STEP["copy_touch"]
_HUGE_TOUCH = STEP["huge_touch"]
_META_TOUCH = STEP["meta_touch"]
_TLB_SHOOTDOWN = STEP["tlb_shootdown"]
_TOUCH_5US = STEP["touch_5us"]
_TOUCH_20US = STEP["touch_20us"]
_TOUCH_100US = STEP["touch_100us"]


@jit
def drawn(h: Any, p: Any, row: Any) -> Any:
    """Which cell a draw from the P's own stream hits in a row of `sim.costs.CELLS` of them."""
    pr = procs(h)[p]
    cell = np.int64(shr64(draw64(pr.draw_key, pr.draws), 54))
    pr.draws += np.uint64(1)
    return (row << 10) + cell


@jit
def pay(h: Any, p: Any, row: Any) -> Any:
    """The price of a step: its mean, or a draw from the P's own stream where it varies. Picoseconds."""
    price = prices(h)[row]
    if price.row < 0:
        return price["mean"]
    return cells(h)[drawn(h, p, price.row)]


@jit
def pay_bytes(h: Any, p: Any, nbytes: Any, rate: Any) -> Any:
    """nbytes at a rate in femtoseconds a byte: whole picoseconds, the rest carried to the P's next such price."""
    pr = procs(h)[p]
    total = nbytes * rate + pr.rest
    pr.rest = total % 1000
    return total // 1000


@jit
def fault_after(h: Any, p: Any) -> Any:
    """What a page fault takes longer after what the P has done since its last one, which is forgotten; picoseconds.

    The caches have lost the system's code and data: on straight lines between the times that were measured. Left out: what
    else ran on the P's CPU, a mark worker say, and that of several pages that one step touches all but the first are alike.
    """
    pr = procs(h)[p]
    done = pr.malloc_time + pr.compute_time + pr.assist_time
    worked = done - pr.fault_seen
    pr.fault_seen = done
    at_5us, at_20us, at_100us = (
        prices(h)[_TOUCH_5US]["mean"],
        prices(h)[_TOUCH_20US]["mean"],
        prices(h)[_TOUCH_100US]["mean"],
    )
    if worked < 5 * US:
        return at_5us * worked // (5 * US)
    if worked < 20 * US:
        return at_5us + (at_20us - at_5us) * (worked - 5 * US) // (15 * US)
    return at_20us + (at_100us - at_20us) * (min(worked, np.int64(100 * US)) - 20 * US) // (80 * US)


@jit
def touch_some(h: Any, p: Any, sp: Any, offset: Any, nbytes: Any) -> Any:
    """Make bytes of a span resident that may not be: as `touch`, with the span's word of what is behind its start."""
    small, huge = touch_pages(h, sp, offset, nbytes)
    known = np.int64(sp.fresh)
    if offset >> OS_PAGE_SHIFT < known:
        sp.fresh = min(max(((offset + nbytes - 1) >> OS_PAGE_SHIFT) + 2, known), np.int64(MAX_FRESH))
    cost = fault_after(h, p) if small > 0 else np.int64(0)
    for _ in range(small):
        cost += pay(h, p, _FIRST_TOUCH)
    for _ in range(huge):
        cost += pay(h, p, _HUGE_TOUCH)
    return cost


@inlined
def touch(h: Any, p: Any, sp: Any, offset: Any, nbytes: Any) -> Any:
    """Make bytes of a fresh span resident: picoseconds of the page faults for system pages that were not."""
    if ((offset + nbytes - 1) >> OS_PAGE_SHIFT) + 1 < np.int64(sp.fresh):
        return np.int64(0)
    return touch_some(h, p, sp, offset, nbytes)


@jit
def shootdown(h: Any, p: Any) -> Any:
    """Picoseconds of interrupting the CPUs of other Ps, which are to forget page table entries that the system changes.

    With more than one P somebody else is taken to run; that idle CPUs need no interrupt is left out.
    """
    return pay(h, p, _TLB_SHOOTDOWN) if h[0].nprocs > 1 else np.int64(0)


@jit
def touch_header(h: Any, p: Any, sp: Any, offset: Any) -> Any:
    """Page faults, if any, of writing a type's address before an object. (mbitmap.go:heapSetTypeSmallHeader)

    While marking the write barrier reads first what was there: two faults of the system, and the second interrupts the
    CPUs of other Ps (at least one of them marks, as a rule), since the page of zeros may be in use there.
    """
    if h[0].gc_phase != GC_MARK:
        return touch(h, p, sp, offset, np.int64(MALLOC_HEADER_SIZE))
    small, huge = touch_pages(h, sp, offset, np.int64(MALLOC_HEADER_SIZE))
    cost = np.int64(0)
    if huge:
        cost += pay(h, p, _HUGE_TOUCH)
    if small:
        cost += fault_after(h, p) + pay(h, p, _READ_TOUCH) + pay(h, p, _COPY_TOUCH) + shootdown(h, p)
    return cost


@jit
def touch_meta(h: Any, p: Any, g: Any) -> Any:
    """Page faults on metadata that the last steps were first to use (mfixalloc.py counts them); picoseconds."""
    cost = fault_after(h, p) if h[0].fact_meta_pages > 0 else np.int64(0)
    while h[0].fact_meta_pages > 0:
        h[0].fact_meta_pages -= 1
        cost += pay(h, p, _META_TOUCH)
    g.spent[FIRST_TOUCH] += cost
    return cost
