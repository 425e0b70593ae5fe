"""Putting the rooms into the recorded state: spans, slots and page caches where the record has them.

After a miss the rooms must not go on from what they chose, or one miss would cause the next. Undone is what the wrong
choice took, with the page cache it may have loaded; then the recorded span is made where it stood. What that says
about the P's page cache is drawn too: a span of less than 16 pages at an address the P's cache does not cover means
that the P had other pages cached than the rooms thought.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.replay_state import noted
from sim.go.mcache import cache_fresh
from sim.go.mcentral import have_span, uncache_span
from sim.go.mgcsweep import sweep, try_acquire
from sim.go.mheap import (
    ARENA_BYTES,
    ARENA_SHIFT,
    PAGE_CACHE_MAX_PAGES,
    add_arenas,
    alloc_mspan_locked,
    finish_span,
    free_span_locked,
    heap_grow_locked,
    span_of_page,
)
from sim.go.mpagealloc import chunk_of, page_alloc_grow, page_alloc_range
from sim.go.mpagecache import page_cache_flush
from sim.go.mpallocbits import find_bit_run64
from sim.go.mspan import is_allocated, set_dead, set_freeindex
from sim.go.mspanset import full_swept, full_unswept, partial_swept, partial_unswept, spanset_push, spanset_remove
from sim.go.state import (
    CHUNK_PAGES,
    PAGE_SHIFT,
    SPAN_IN_USE,
    SPAN_MANUAL,
    arena_map,
    chunk_map,
    chunks,
    mcaches,
    spans,
)
from sim.jit import jit
from sim.words import ZERO, bit64, ones, shl64

NO_P = np.int64(-1)
NEAR_PAGES = 1 << 17  # 1 GiB: a page within this behind the heap's end is reached by growing the heap


@jit
def slot_at(h: Any, s: Any, addr: Any) -> Any:
    """The slot of a span that an address lies in, -1 if it is behind the last one."""
    sp = spans(h)[s]
    slot = (addr - (sp.start_page << PAGE_SHIFT)) // sp.elemsize
    return slot if slot < sp.nelems else np.int64(-1)


@jit
def free_later(h: Any, s: Any, addr: Any) -> None:
    """The object at an address is dead: the next mark phase will not reach it."""
    slot = slot_at(h, s, addr)
    if slot >= 0:
        set_dead(h, s, slot)


@jit
def page_is_free(h: Any, page: Any) -> Any:
    """Whether the page allocator itself (no P's page cache) has a page."""
    at = np.int64(chunk_map(h)[page >> 9]) - 1
    if at < 0:
        return False
    return chunks(h)[at].bits[(page >> 6) & 7] & bit64(page & 63) == ZERO


@jit
def reach(h: Any, page: Any) -> None:
    """Grow the heap to a recorded page outside it: in steps as it grows by itself, or else by a new arena there."""
    top = h[0].cur_arena_base >> PAGE_SHIFT
    while chunk_map(h)[page >> 9] == 0 and 0 <= page - (h[0].cur_arena_base >> PAGE_SHIFT) <= page - top < NEAR_PAGES:
        heap_grow_locked(h, np.int64(CHUNK_PAGES))
    if chunk_map(h)[page >> 9] != 0:
        return
    if arena_map(h)[page >> 13] == 0:
        add_arenas(h, page >> 13 << ARENA_SHIFT, np.int64(ARENA_BYTES))
    page_alloc_grow(h, page >> 9 << 9, np.int64(CHUNK_PAGES))
    h[0].heap_released += CHUNK_PAGES << PAGE_SHIFT
    if page > top:  # growth goes on from there, as the address hint does
        h[0].cur_arena_base = ((page >> 9) + 1) << 9 << PAGE_SHIFT
        h[0].arena_hint = ((page >> 13) + 1) << ARENA_SHIFT
        h[0].cur_arena_end = h[0].arena_hint


@jit
def take_pages(h: Any, page: Any, npages: Any, nprocs: Any) -> None:
    """Take recorded pages wherever they are: in the page allocator, in a P's page cache, or under a wrong span."""
    for at in range(page, page + npages):
        if chunk_map(h)[at >> 9] == 0:
            reach(h, at)
        s = span_of_page(h, at)
        if s != 0:
            forget_span(h, s, nprocs)
        if page_is_free(h, at):
            page_alloc_range(h, at, np.int64(1))
        else:
            for p in range(nprocs):
                c = mcaches(h)[p]
                if 0 <= at - c.pcache_base < 64:
                    c.pcache &= ~bit64(at - c.pcache_base)


@jit
def cached_by(h: Any, s: Any, nprocs: Any) -> Any:
    """The P that has a span cached, -1 if none."""
    spc = np.int64(spans(h)[s].spanclass)
    for p in range(nprocs):
        if np.int64(mcaches(h)[p].alloc[spc]) == s:
            return np.int64(p)
    return np.int64(-1)


@jit
def detach(h: Any, s: Any, nprocs: Any) -> None:
    """Take a span out of whatever cache or set holds it; a stale entry of it, once swept, stays where it is."""
    spc = np.int64(spans(h)[s].spanclass)
    p = cached_by(h, s, nprocs)
    if p >= 0:
        mcaches(h)[p].alloc[spc] = 0
        return
    if np.int64(spans(h)[s].sweepgen) == np.int64(h[0].sweepgen) - 2:
        index = partial_unswept(h, spc)
    else:
        index = partial_swept(h, spc)
    if not spanset_remove(h, index, s):
        spanset_remove(h, index + 2, s)


@jit
def forget_span(h: Any, s: Any, nprocs: Any) -> None:
    """Drop a span the record does not have; its pages go to the page allocator."""
    sp = spans(h)[s]
    if sp.state == SPAN_IN_USE:
        detach(h, s, nprocs)
        sp.alloc_count = 0
    free_span_locked(h, NO_P, s)


@jit
def undo_span(h: Any, p: Any, s: Any, pcache: Any, search: Any, nprocs: Any) -> None:
    """Undo the span the rooms just made for P; ``pcache`` and ``search`` are the P's cached pages and search_addr
    before it. Pages of the page cache go back there, and a page cache loaded for it goes back too."""
    page = np.int64(spans(h)[s].start_page)
    npages = np.int64(spans(h)[s].npages)
    forget_span(h, s, nprocs)
    if p >= 0 and npages < PAGE_CACHE_MAX_PAGES:
        c = mcaches(h)[p]
        if 0 <= page - c.pcache_base < 64:
            page_alloc_range(h, page, npages)
            c.pcache |= shl64(ones(npages), page - c.pcache_base)
        if pcache == ZERO:
            page_cache_flush(h, p)
    h[0].search_addr = min(h[0].search_addr, search)


@jit
def steer_page_cache(h: Any, p: Any, page: Any, npages: Any, nprocs: Any) -> None:
    """Give P the page cache that its recorded small span at ``page`` proves, if it is not the one it has.

    The cache was the 64-page block around ``page``. It hands out its lowest page first, so for a single page those
    below it were not cached. Several pages may also come from the page allocator, when the cache has no such run.
    """
    c = mcaches(h)[p]
    if 0 <= page - c.pcache_base < 64 and c.pcache & bit64(page - c.pcache_base) != ZERO:
        return
    if npages > 1 and c.pcache != ZERO and find_bit_run64(c.pcache, npages) >= 64 and page_is_free(h, page):
        return
    base = page & ~np.int64(63)
    page_cache_flush(h, p)
    for q in range(nprocs):
        if mcaches(h)[q].pcache_base == base and mcaches(h)[q].pcache & bit64(page - base) != ZERO:
            page_cache_flush(h, np.int64(q))
    free = ~chunks(h)[chunk_of(h, base)].bits[(base >> 6) & 7]
    if npages == 1:
        free &= ~ones(page - base)
    for i in range(64):
        if free & bit64(i) != ZERO:
            page_alloc_range(h, base + i, np.int64(1))
    c.pcache_base = base
    c.pcache = free
    c.pcache_scav = ZERO


@jit
def force_span(h: Any, r: Any, p: Any, page: Any, npages: Any, kindclass: Any) -> Any:
    """Make the recorded span exist at its recorded place; P (-1: none) is who asked for it."""
    nprocs = r[0].nprocs
    if chunk_map(h)[page >> 9] == 0:
        reach(h, page)
    if p >= 0 and npages < PAGE_CACHE_MAX_PAGES:
        steer_page_cache(h, p, page, npages, nprocs)
    take_pages(h, page, npages, nprocs)
    s = alloc_mspan_locked(h, NO_P)
    state = SPAN_MANUAL if kindclass & 1 else SPAN_IN_USE
    finish_span(h, s, page, npages, kindclass >> 1, state, np.int64(0))
    noted(r)[s] = 0
    return s


@jit
def shelve(h: Any, s: Any) -> None:
    """Take a span that is in no set out of the way until the next sweep: the record shows that no refill finds it
    with room, so it is treated as full."""
    spans(h)[s].sweepgen = h[0].sweepgen
    spanset_push(h, full_swept(h, np.int64(spans(h)[s].spanclass)), s)


@jit
def acquire_unswept(h: Any, s: Any) -> Any:
    """Take a span that is still to be swept from its set, to sweep it; False if it is swept."""
    if np.int64(spans(h)[s].sweepgen) != np.int64(h[0].sweepgen) - 2:
        return False
    spc = np.int64(spans(h)[s].spanclass)
    if not spanset_remove(h, partial_unswept(h, spc), s):
        spanset_remove(h, full_unswept(h, spc), s)
    return try_acquire(h, s)


@jit
def sweep_directly(h: Any, s: Any) -> None:
    """Sweep an unswept span that the record has swept out of the rooms' order."""
    if acquire_unswept(h, s):
        sweep(h, NO_P, s, False)


@jit
def adopt(h: Any, p: Any, spc: Any, s: Any, nprocs: Any) -> None:
    """Make the recorded span the P's cached one."""
    cached = np.int64(mcaches(h)[p].alloc[spc])
    if cached == s:
        return
    if cached != 0:
        mcaches(h)[p].alloc[spc] = 0
        uncache_span(h, p, cached)
    if acquire_unswept(h, s):
        sweep(h, p, s, True)
    detach(h, s, nprocs)
    if spans(h)[s].alloc_count != spans(h)[s].nelems:
        have_span(h, s)
    cache_fresh(h, p, spc, s)


@jit
def give_back(h: Any, s: Any, slot: Any) -> None:
    """Undo taking a slot."""
    spans(h)[s].alloc_count -= 1
    set_freeindex(h, s, slot)


@jit
def take_slot(h: Any, s: Any, slot: Any) -> None:
    """Take the recorded slot; free slots below it are taken too, as slots go out in ascending order: their objects
    are announced later."""
    sp = spans(h)[s]
    if is_allocated(h, s, slot):
        return
    skipped = np.int64(0)
    for i in range(np.int64(sp.freeindex), slot):
        if not is_allocated(h, s, i):
            skipped += 1
    sp.alloc_count += 1 + skipped
    set_freeindex(h, s, slot + 1)
