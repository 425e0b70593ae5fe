"""The page heap: spans from pages, pages from arenas (mirrors mheap.go).

Up to 16 pages come from the P's page cache of 64 (no lock); the rest, and the refill of that cache, from the page
allocator under the heap lock; when that has no run long enough the heap grows by multiples of 4 MiB out of 64 MiB
arenas. Functions whose name ends in ``_locked`` are what Go does while it holds mheap.lock: the shell takes that
lock around them and prices what they report in the header's ``fact_`` scalars.

The byte ledger: heap_in_use + stacks_in_use + heap_free + heap_released equals the bytes mapped for the heap.
Moving pages into or out of a P's page cache changes none of them. Where arenas lie is the layout's matter
(sim/go/layout.py); records and other metadata are cut outside the heap (sim/go/mfixalloc.py).

With ``randomized_heap_base`` the first chunk lies at a random place in the first arena and begins with pages that are
never used (they stay in heap_released). The runtime's first growth is for one small span; here whoever comes first
triggers it and grows again for the rest.

Left out: zeroing itself and first touches (the price of both is told by malloc), user arenas, 32-bit layouts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.layout import ARENA_BYTES as ARENA_BYTES  # noqa: PLC0414 - part of what the heap offers to replays
from sim.go.layout import ARENA_SHIFT as ARENA_SHIFT  # noqa: PLC0414
from sim.go.layout import (
    NUM_HINTS,
    heap_hints,
    linear_map,
    linear_reserve,
    next_hint,
    sys_alloc,
    touch_arena_meta,
)
from sim.go.layout import add_arenas as add_arenas  # noqa: PLC0414
from sim.go.mfixalloc import (
    MCACHE_SYS,
    MSPAN_SYS,
    OTHER_SYS,
    fixalloc_cut,
    fixalloc_init,
    free_span_record_locked,
    new_mark_bits,
    span_record_locked,
)
from sim.go.mpagealloc import mark_random_padding_pages, page_alloc, page_alloc_grow, page_alloc_init, page_free
from sim.go.mpagecache import alloc_to_cache, page_cache_alloc
from sim.go.mspan import init_span, mark_live, pool_words, release_bits
from sim.go.sizeclasses import uses_inline_mark_bits
from sim.go.state import (
    ARENA_HINT_ALLOC,
    ARENA_PAGES,
    CACHEALLOC,
    CHUNK_PAGES,
    MSPAN_CACHE_LEN,
    NUM_SPAN_CLASSES,
    PAGE_SHIFT,
    SPAN_DEAD,
    SPAN_IN_USE,
    SPANALLOC,
    arena_map,
    arenas,
    mcaches,
    page_span,
    spans,
)
from sim.jit import jit
from sim.units import Throw
from sim.words import ALL, ZERO, bit64, popcount64, shl64, shr64

PAGE_CACHE_MAX_PAGES = 16  # a quarter of the page cache: longer spans bypass it (mheap.go:allocSpan)
CHUNK_BYTES = CHUNK_PAGES << PAGE_SHIFT
ARENA_HINT_SIZE = 24
OS_PAGE_SHIFT = 12
HUGE_OS_PAGES = 512  # system pages of 2 MiB


@jit
def alloc_mspan_locked(h: Any, p: Any) -> Any:
    """A span record from the P's cache, filled by 64 when empty. (mheap.go:allocMSpanLocked)"""
    if p < 0:
        return span_record_locked(h, p)
    c = mcaches(h)[p]
    if c.mspancache_len == 0:
        for i in range(MSPAN_CACHE_LEN // 2):
            c.mspancache[i] = span_record_locked(h, p)
        c.mspancache_len = MSPAN_CACHE_LEN // 2
    c.mspancache_len -= 1
    return np.int64(c.mspancache[c.mspancache_len])


@jit
def free_mspan_locked(h: Any, p: Any, s: Any) -> None:
    """Give a span record back. (mheap.go:freeMSpanLocked)"""
    spans(h)[s].state = SPAN_DEAD
    if p >= 0 and mcaches(h)[p].mspancache_len < MSPAN_CACHE_LEN:
        c = mcaches(h)[p]
        c.mspancache[c.mspancache_len] = s
        c.mspancache_len += 1
        return
    free_span_record_locked(h, s)


@jit
def arena_of(h: Any, page: Any) -> Any:
    """Position in the arena table of the arena a page lies in; throws where no arena is."""
    at = np.int64(arena_map(h)[page >> 13]) - 1
    if at < 0:
        raise Throw("page outside every arena")
    return at


@jit
def span_of_page(h: Any, page: Any) -> Any:
    """The span that holds a page, 0 if none. (mheap.go:spanOf)"""
    at = np.int64(arena_map(h)[page >> 13]) - 1
    if at < 0:
        return np.int64(0)
    return np.int64(page_span(h)[at * ARENA_PAGES + (page & (ARENA_PAGES - 1))])


@jit
def set_spans(h: Any, page: Any, npages: Any, s: Any) -> None:
    """Map pages to their span. (mheap.go:setSpans)"""
    ps = page_span(h)
    for i in range(page, page + npages):
        ps[arena_of(h, i) * ARENA_PAGES + (i & (ARENA_PAGES - 1))] = s


@jit
def out_of_memory(h: Any, ask: Any) -> None:
    """No address space is left. (mheap.go:grow, and who called it)"""
    in_use = h[0].heap_in_use + h[0].heap_free + h[0].heap_released
    raise Throw("out of memory: cannot allocate " + str(ask) + "-byte block (" + str(in_use) + " in use)")


@jit
def new_arena_locked(h: Any, ask: Any) -> None:
    """Make curArena hold ask more bytes: extended where contiguous, else moved. (mheap.go:grow)"""
    if h[0].linear_layout:
        out_of_memory(h, ask)
    first = h[0].cur_arena_base == 0
    base, nbytes = sys_alloc(h, ask)
    if nbytes == 0:
        out_of_memory(h, ask)
    if base == h[0].cur_arena_end:
        h[0].cur_arena_end = base + nbytes
    else:
        rest = h[0].cur_arena_end - h[0].cur_arena_base
        if rest > 0:
            page_alloc_grow(h, h[0].cur_arena_base >> PAGE_SHIFT, rest >> PAGE_SHIFT)
            h[0].heap_released += rest
            h[0].fact_grown += rest >> PAGE_SHIFT
        h[0].cur_arena_base = base
        h[0].cur_arena_end = base + nbytes
        if first and h[0].randomized_heap_base:
            chunk = np.int64(shr64(shl64(h[0].heap_rand, 20), 60))
            h[0].cur_arena_base = base + chunk * CHUNK_BYTES
    h[0].fact_arenas += nbytes >> ARENA_SHIFT


@jit
def grow_step_locked(h: Any, ask: Any) -> None:
    """Map ask more bytes at the end of curArena, all free and released."""
    if h[0].cur_arena_base + ask > h[0].cur_arena_end:
        new_arena_locked(h, ask)
    v = h[0].cur_arena_base
    if h[0].linear_layout:
        linear_map(h, v, ask)
    h[0].cur_arena_base = v + ask
    h[0].heap_released += ask
    page_alloc_grow(h, v >> PAGE_SHIFT, ask >> PAGE_SHIFT)
    h[0].fact_grown += ask >> PAGE_SHIFT


@jit
def heap_grow_locked(h: Any, npages: Any) -> None:
    """Make at least npages more available, in steps of 4 MiB; throws when out of address space. (mheap.go:grow)"""
    if h[0].randomized_heap_base and h[0].cur_arena_base == 0:
        grow_step_locked(h, np.int64(CHUNK_BYTES))
        padding = np.int64(shr64(shl64(h[0].heap_rand, 24), 55))  # the page of a random byte offset in the chunk
        mark_random_padding_pages(h, (h[0].cur_arena_base - CHUNK_BYTES) >> PAGE_SHIFT, padding)
        if npages <= CHUNK_PAGES - padding:
            return
    grow_step_locked(h, ((npages + CHUNK_PAGES - 1) & ~np.int64(CHUNK_PAGES - 1)) << PAGE_SHIFT)


@jit
def alloc_pages_locked(h: Any, npages: Any) -> Any:
    """npages from the page allocator, growing the heap when it has no such run: (page, scavenged pages)."""
    page, scav = page_alloc(h, npages)
    if page < 0:
        heap_grow_locked(h, npages)
        page, scav = page_alloc(h, npages)
        if page < 0:
            raise Throw("grew heap, but no adequate free space found")
    return page, scav


@jit
def refill_page_cache_locked(h: Any, p: Any) -> None:
    """Fill the P's page cache; the heap grows later if there was nothing to take. (mheap.go:allocSpan)"""
    alloc_to_cache(h, p)


@jit
def alloc_needs_zero(h: Any, page: Any, npages: Any) -> Any:
    """Whether any of the pages was used before, by each arena's high-water mark. (mheap.go:allocNeedsZero)"""
    needs = False
    while npages > 0:
        arena = arenas(h)[arena_of(h, page)]
        first = page & (ARENA_PAGES - 1)
        n = min(npages, ARENA_PAGES - first)
        if (first << PAGE_SHIFT) < arena.zeroed_base:
            needs = True
        arena.zeroed_base = max(arena.zeroed_base, (first + n) << PAGE_SHIFT)
        page += n
        npages -= n
    return needs


@jit
def finish_span(h: Any, s: Any, page: Any, npages: Any, spanclass: Any, state: Any, scav: Any) -> None:
    """Initialise an allocated span and account for it: no lock needed. (mheap.go:allocSpan, from HaveSpan on)"""
    h[0].fact_spans += 1
    needzero = alloc_needs_zero(h, page, npages)
    if h[0].skip_zeroing_scavenged and scav == npages:
        needzero = False
    init_span(h, s, page, npages, spanclass, state, needzero, scav > 0)
    set_spans(h, page, npages, s)
    nbytes = npages << PAGE_SHIFT
    scav_bytes = scav << PAGE_SHIFT
    h[0].heap_released -= scav_bytes
    h[0].heap_free -= nbytes - scav_bytes
    h[0].mapped_ready += scav_bytes
    if state == SPAN_IN_USE:
        h[0].heap_in_use += nbytes
        arena = arenas(h)[arena_of(h, page)]
        bit = page & (ARENA_PAGES - 1)
        arena.page_in_use[bit >> 6] |= bit64(bit & 63)
        h[0].pages_in_use += npages
        new_mark_bits(h, spans(h)[s].nelems)
        new_mark_bits(h, spans(h)[s].nelems)
    else:
        h[0].stacks_in_use += nbytes
    touch_arena_meta(h, page, npages, state == SPAN_IN_USE)


@jit
def alloc_span(h: Any, p: Any, npages: Any, spanclass: Any, state: Any) -> Any:
    """A span of npages, every step at once: for callers without a clock. (mheap.go:allocSpan)"""
    page = np.int64(-1)
    scav = np.int64(0)
    if p >= 0 and npages < PAGE_CACHE_MAX_PAGES:
        if mcaches(h)[p].pcache == ZERO:
            refill_page_cache_locked(h, p)
        page, scav = page_cache_alloc(h, p, npages)
    if page < 0:
        page, scav = alloc_pages_locked(h, npages)
    s = alloc_mspan_locked(h, p)
    finish_span(h, s, page, npages, spanclass, state, scav)
    return s


@jit
def free_span_locked(h: Any, p: Any, s: Any) -> None:
    """Give a span's pages back; a heap span must be in no set and no cache. (mheap.go:freeSpanLocked)"""
    sp = spans(h)[s]
    nbytes = sp.npages << PAGE_SHIFT
    if sp.state == SPAN_IN_USE:
        if sp.alloc_count != 0 and sp.spanclass >= 2:
            raise Throw("freeing a span with allocated objects")
        h[0].pages_in_use -= sp.npages
        arena = arenas(h)[arena_of(h, sp.start_page)]
        bit = sp.start_page & (ARENA_PAGES - 1)
        arena.page_in_use[bit >> 6] &= ~bit64(bit & 63)
        h[0].heap_in_use -= nbytes
    else:
        h[0].stacks_in_use -= nbytes
    h[0].heap_free += nbytes
    set_spans(h, sp.start_page, sp.npages, 0)
    page_free(h, sp.start_page, sp.npages)
    release_bits(h, s)
    free_mspan_locked(h, p, s)


@jit
def mark_page(h: Any, s: Any) -> None:
    """Set a span's page mark: an object was marked in it as born during the mark phase. (mgcmark.go:gcmarknewobject)"""
    page = np.int64(spans(h)[s].start_page)
    bit = page & (ARENA_PAGES - 1)
    arenas(h)[arena_of(h, page)].page_marks[bit >> 6] |= bit64(bit & 63)


@jit
def mark_span(h: Any, s: Any) -> Any:
    """Mark what is not dead in an in-use span: how many objects. Sets the span's page mark where the runtime does.

    A span without its page mark is what the page reclaimer looks for (sim/go/reclaim.py). Up to go1.19 every marked
    object sets it (mgcmark.go:greyobject). With inline mark bits (go1.27, objects of 16 to 512 bytes) it is set when a
    queued span with pointers is scanned and more than the one object that queued it is marked by then; never for a span
    without pointers (mgcmark_greenteagc.go:tryDeferToSpanScan, scanSpan). The order of marking is not modelled here:
    two marked objects are taken to be enough. (Of spans that reclaiming came to in recorded programs none of 39 with
    one marked object had the mark, 9 of 31 with two, 20 of 22 with three, 400 of 402 with six or more.)
    """
    live = mark_live(h, s)
    sp = spans(h)[s]
    if uses_inline_mark_bits(h, sp.elemsize):
        if sp.spanclass & 1 == 0 and live >= 2:
            mark_page(h, s)
    elif live > 0:
        mark_page(h, s)
    return live


@jit
def clear_page_marks(h: Any) -> None:
    """Before a mark phase: no span has a marked object. (mgc.go:gcResetMarkState)"""
    for i in range(h[0].narenas):
        for j in range(ARENA_PAGES // 64):
            arenas(h)[i].page_marks[j] = ZERO


@jit
def touch_pages(h: Any, sp: Any, offset: Any, nbytes: Any) -> Any:
    """Make bytes of a span resident: how many system pages, small and huge, were touched for the first time.

    Before go1.27 the runtime asks for huge pages over the whole aligned 2 MiB ranges of a span it takes from the system
    (mem_linux.go:sysUsedOS): the first touch of such a range makes all of it resident at once.
    """
    small = np.int64(0)
    huge = np.int64(0)
    start = sp.start_page << (PAGE_SHIFT - OS_PAGE_SHIFT)
    end = start + (sp.npages << (PAGE_SHIFT - OS_PAGE_SHIFT))
    first = start + (offset >> OS_PAGE_SHIFT)
    for page in range(first, start + ((offset + nbytes - 1) >> OS_PAGE_SHIFT) + 1):
        touched = arenas(h)[arena_of(h, page >> (PAGE_SHIFT - OS_PAGE_SHIFT))].touched
        word = (page & 16383) >> 6
        if touched[word] & bit64(page & 63) != ZERO:
            continue
        range_start = page & ~np.int64(HUGE_OS_PAGES - 1)
        if h[0].huge_page_advice and range_start >= start and range_start + HUGE_OS_PAGES <= end:
            for i in range(word & ~np.int64(7), (word & ~np.int64(7)) + 8):
                h[0].resident_pages += 64 - popcount64(touched[i])
                touched[i] = ALL
            huge += 1
        else:
            touched[word] |= bit64(page & 63)
            h[0].resident_pages += 1
            small += 1
    return small, huge


@jit
def room_is_short(h: Any, npages: Any) -> Any:
    """Whether a table could overflow before the next check, npages being the longest span asked for meanwhile.

    Every P may be past its own check and waiting for the heap lock. A whole sweep in between takes no more
    than some blocks of span sets a class: it pops what it pushes.
    """
    n = h[0].nprocs + 1
    return (
        h[0].nspans + n * MSPAN_CACHE_LEN > h[0].spans_len
        or h[0].nwords + (n + 64) * pool_words(5, 512) > h[0].words_len
        or h[0].nset_blocks + 8 * NUM_SPAN_CLASSES > h[0].set_blocks_len
        or h[0].nchunks + npages // CHUNK_PAGES + n * (ARENA_PAGES // CHUNK_PAGES) > h[0].chunks_len
        or h[0].narenas + npages // ARENA_PAGES + n + 2 > h[0].arenas_len
    )


@jit
def mallocinit(h: Any, mspan_size: Any, mcache_size: Any) -> None:
    """Set up an empty heap's off-heap allocators, its Ps' caches and its place. (malloc.go:mallocinit, mheap.init)"""
    fixalloc_init(h, SPANALLOC, mspan_size, MSPAN_SYS)
    fixalloc_init(h, CACHEALLOC, mcache_size, MCACHE_SYS)
    fixalloc_init(h, ARENA_HINT_ALLOC, np.int64(ARENA_HINT_SIZE), OTHER_SYS)
    page_alloc_init(h)
    for _ in range(h[0].nprocs):
        fixalloc_cut(h, np.int64(-1), CACHEALLOC)
    if h[0].linear_layout:
        linear_reserve(h)
        return
    for _ in range(NUM_HINTS):
        fixalloc_cut(h, np.int64(-1), ARENA_HINT_ALLOC)
    h[0].arena_hints_left = heap_hints(h)
    next_hint(h)
