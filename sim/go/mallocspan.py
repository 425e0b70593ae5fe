"""How an allocation comes by its span, with prices: a swept one with room, or pages and a record for a new one.

Pages up to 15 and records come from the P's own caches; what these lack is taken under mheap.lock, `heap_locked` being one
hold of it. Sweeping and first touches of metadata on the way are settled as they happen and paid with the span. Who gets
pages gives other memory back, where a memory limit or the heap's growth says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mcache import cache_fresh
from sim.go.mgcmark import note_work
from sim.go.mgcscavenge import bytes_to_scavenge, scavenge
from sim.go.mheap import (
    OS_PAGE_SHIFT,
    PAGE_CACHE_MAX_PAGES,
    alloc_mspan_locked,
    alloc_pages_locked,
    arena_of,
    finish_span,
    refill_page_cache_locked,
)
from sim.go.mpagecache import page_cache_alloc
from sim.go.pay import STEP, pay, shootdown, touch, touch_meta
from sim.go.sizeclasses import MIN_SIZE_FOR_MALLOC_HEADER
from sim.go.state import (
    FIRST_TOUCH,
    FRESH,
    GROW,
    HEAP_WAIT,
    LARGE,
    NO_PAGE,
    NUM_SPAN_CLASSES,
    PAGE_CACHE,
    PAGE_SEARCH,
    PAGE_SHIFT,
    PARTIAL,
    PRICE_FRESH,
    PRICE_FRESH_APART,
    PRICE_PARTIAL,
    PRICE_UNSWEPT,
    SCAVENGE,
    SPAN_IN_USE,
    SWEEP,
    WORK_SWEEP,
    arenas,
    goroutines,
    last_page,
    mcaches,
    near_share,
    prices,
    procs,
    spans,
)
from sim.jit import jit
from sim.words import ZERO, ones, shl64

NEAR_PAGES = 8  # up to so many from the last span of its class a span is near it: `allocsim calibrate` tells such refills apart
NEAR_WHOLE = 1000  # of near_share
_PAGE_CACHE_REFILL = STEP["page_cache_refill"]
_PAGE_ALLOC = STEP["page_alloc"]
_PAGE_LEVEL = STEP["page_level"]
_MSPAN_REFILL = STEP["mspan_refill"]
_GROW = STEP["grow"]
_GROW_ARENA = STEP["grow_arena"]
_MADVISE = STEP["madvise"]
_MADVISE_PAGE = STEP["madvise_page"]
_LARGE = STEP["large"]


@jit
def is_resident(h: Any, sp: Any) -> Any:
    """Whether memory stands behind all of a span: a span used before may have been given back without being written."""
    first = sp.start_page << (PAGE_SHIFT - OS_PAGE_SHIFT)
    end = first + (sp.npages << (PAGE_SHIFT - OS_PAGE_SHIFT))
    while first < end:
        n = min(end - first, 64 - (first & 63))
        mask = shl64(ones(n), first & 63)
        touched = arenas(h)[arena_of(h, first >> (PAGE_SHIFT - OS_PAGE_SHIFT))].touched
        if touched[(first & 16383) >> 6] & mask != mask:
            return False
        first += n
    return True


@jit
def pay_sweeps(h: Any, p: Any, g: Any) -> Any:
    """Picoseconds of the sweeping that the last steps did. (mgcsweep.py adds them up)"""
    cost = h[0].fact_sweep_time
    h[0].fact_sweep_time = 0
    g.owed_sweeps += cost
    g.spent[SWEEP] += cost
    return cost


@jit
def settle(h: Any, p: Any, g: Any) -> None:
    """Sweeping and new metadata of the step that ends are this allocation's to pay, before another P reads the facts."""
    g.owed += pay_sweeps(h, p, g) + touch_meta(h, p, g)


@jit
def pay_owed(h: Any, p: Any, g: Any) -> Any:
    """Picoseconds of what was settled since the allocation began: they pass now, whatever was waited for in between."""
    settle(h, p, g)
    note_work(h, p, WORK_SWEEP, h[0].now, g.owed_sweeps)
    g.owed_sweeps = 0
    cost = g.owed
    g.owed = 0
    return cost


@jit
def cache_span_found(h: Any, p: Any, spc: Any, s: Any) -> Any:
    """Cache a span; whether it is near the one that the P had cached last in that class."""
    at = NUM_SPAN_CLASSES * p + spc
    page = np.int64(spans(h)[s].start_page)
    near = abs(page - last_page(h)[at]) <= NEAR_PAGES
    last_page(h)[at] = page
    cache_fresh(h, p, spc, s)
    return near


@jit
def got_partial(h: Any, p: Any, g: Any) -> Any:
    """A refill found a span with room: cache it; picoseconds.

    Neighbours share lines of what a refill and sweeping read (mark bits, the heap's bitmap and its tables of pages): in a heap
    that no cache holds a span near the last one takes less.
    """
    spc = np.int64(g.spanclass)
    cost = pay(h, p, (PRICE_UNSWEPT if h[0].fact_took_unswept else PRICE_PARTIAL) + spc)
    if cache_span_found(h, p, spc, np.int64(g.span)):
        cost = cost * near_share(h)[spc] // NEAR_WHOLE
    h[0].fact_took_unswept = 0  # nobody else has refilled since
    g.spent[PARTIAL] += cost
    cost += pay_owed(h, p, g)  # spans swept on the way and their mark bits, a block for the span given back
    procs(h)[p].malloc_time += cost
    return cost


@jit
def madvise_price(h: Any, p: Any, runs: Any, npages: Any) -> Any:
    """Picoseconds of giving back so many runs with so many resident 4 KiB pages in all. (mem_linux.go:sysUnusedOS)

    Each call interrupts the CPUs of other Ps.
    """
    cost = npages * prices(h)[_MADVISE_PAGE]["mean"]
    for _ in range(runs):
        cost += pay(h, p, _MADVISE) + shootdown(h, p)
    return cost


@jit
def scavenge_for_span(h: Any, p: Any, scav: Any, growth: Any) -> Any:
    """Give other memory back for a span that P got pages for; picoseconds. (mheap.go:allocSpan, from HaveSpan on)

    ``scav``: scavenged pages among the span's; ``growth``: pages the heap grew by for it. For spans of objects and of
    stacks alike. The runtime takes the heap lock twice a run and lets others allocate meanwhile; here all of it happens at
    one instant, and the two holds cost their time without anybody queueing for them.
    """
    nbytes, force = bytes_to_scavenge(h, scav << PAGE_SHIFT, growth << PAGE_SHIFT)
    if nbytes <= 0:
        return np.int64(0)
    h[0].fact_scav_runs = 0
    h[0].fact_scav_pages = 0
    h[0].scav_released_eager += scavenge(h, nbytes, force, True)
    cost = madvise_price(h, p, h[0].fact_scav_runs, h[0].fact_scav_pages)
    for _ in range(2 * h[0].fact_scav_runs):
        cost += pay(h, p, _PAGE_ALLOC)
    h[0].scavenge_assist_time += cost
    return cost


@jit
def fresh_row(h: Any, p: Any, spc: Any) -> Any:
    """The row of the price of a fresh span, which takes longer where the P did something else since its last malloc."""
    if spc < 2:
        return np.int64(_LARGE)
    pr = procs(h)[p]
    return spc + (PRICE_FRESH if pr.compute_time == pr.compute_seen else PRICE_FRESH_APART)


@jit
def got_pages(h: Any, p: Any, g: Any) -> Any:
    """Pages and a span record are there: make them a span; picoseconds. (mheap.go:allocSpan, mcentral.go:grow)

    On memory nobody touched, mark bits or pointer bits at the span's end are its first touch (go1.27).
    """
    s = np.int64(g.span)
    scavenging = scavenge_for_span(h, p, g.scav, g.growth)
    g.spent[SCAVENGE] += scavenging
    finish_span(h, s, g.page, g.npages, np.int64(g.spanclass), SPAN_IN_USE, g.scav)
    sp = spans(h)[s]
    if not sp.fresh and not is_resident(h, sp):
        sp.fresh = 1
    cost = pay(h, p, fresh_row(h, p, np.int64(g.spanclass)))
    g.spent[FRESH if g.spanclass >= 2 else LARGE] += cost
    cost += scavenging
    used = sp.nelems * sp.elemsize
    end = g.npages << PAGE_SHIFT
    if sp.fresh and used < end and sp.elemsize <= MIN_SIZE_FOR_MALLOC_HEADER and h[0].inline_mark_bits:
        faults = touch(h, p, sp, end - 128, np.int64(128))
        g.spent[FIRST_TOUCH] += faults
        cost += faults
    if g.spanclass >= 2:
        cache_span_found(h, p, np.int64(g.spanclass), s)
    cost += pay_owed(h, p, g)
    procs(h)[p].malloc_time += cost
    return cost


@jit
def take_record(h: Any, p: Any, g: Any) -> None:
    """A span record from the P's cache; no lock. (mheap.go:tryAllocMSpan)"""
    g.span = alloc_mspan_locked(h, p)


@jit
def pages_without_lock(h: Any, p: Any, g: Any) -> Any:
    """Pages and a record from the P's own caches; False when the heap lock is needed for either."""
    c = mcaches(h)[p]
    g.page = NO_PAGE
    g.scav = 0
    g.growth = 0
    if g.npages < PAGE_CACHE_MAX_PAGES:
        g.page, g.scav = page_cache_alloc(h, p, g.npages)
    if g.page < 0 or c.mspancache_len == 0:
        return False
    take_record(h, p, g)
    return True


@jit
def heap_locked(h: Any, p: Any, waited: Any, tried: Any) -> Any:
    """What one hold of mheap.lock does for an allocation: (picoseconds held, whether it is complete). (mheap.go:allocSpan)

    ``waited``: picoseconds the P waited for the lock; ``tried``: an earlier hold filled the page cache already.
    """
    g = goroutines(h)[procs(h)[p].g]
    c = mcaches(h)[p]
    g.spent[HEAP_WAIT] += waited
    if g.page < 0 and g.npages < PAGE_CACHE_MAX_PAGES and c.pcache == ZERO and not tried:
        walked = h[0].levels_walked
        refill_page_cache_locked(h, p)
        held = pay(h, p, _PAGE_CACHE_REFILL) + (h[0].levels_walked - walked) * prices(h)[_PAGE_LEVEL]["mean"]
        g.spent[PAGE_CACHE] += held
        g.page, g.scav = page_cache_alloc(h, p, g.npages)
        if g.page < 0 or c.mspancache_len == 0:
            return held, False
        take_record(h, p, g)
        return held, True
    held = np.int64(0)
    if g.page < 0:
        walked = h[0].levels_walked
        h[0].fact_grown = 0
        h[0].fact_arenas = 0
        g.page, g.scav = alloc_pages_locked(h, g.npages)
        g.growth = h[0].fact_grown
        held += pay(h, p, _PAGE_ALLOC) + (h[0].levels_walked - walked) * prices(h)[_PAGE_LEVEL]["mean"]
        g.spent[PAGE_SEARCH] += held
        grown = pay(h, p, _GROW) if h[0].fact_grown > 0 else np.int64(0)
        for _ in range(h[0].fact_arenas):
            grown += pay(h, p, _GROW_ARENA)
        g.spent[GROW] += grown
        held += grown
    if c.mspancache_len == 0:
        records = pay(h, p, _MSPAN_REFILL)
        g.spent[PAGE_SEARCH] += records
        held += records
    take_record(h, p, g)
    return held + touch_meta(h, p, g), True
