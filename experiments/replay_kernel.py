"""The compiled half of a replay: recorded events against the rooms, without a clock.

Each recorded span and slot is first predicted by the rooms, then compared; after a miss the rooms are put into the
recorded state, so that one miss does not cause the next. What a trace does not record at its start (which span
each P has cached, the order of the central sets) is inferred: partly free spans of the snapshot start in the
central sets in address order, and a P's first span of each class is taken from the record ("excepted").

Frees appear when a span is swept, not when an object dies: an object freed between the ends of two mark phases was
dead at the first. So the dead bits of a cycle are set at its GC end, and the rooms' own sweeping must find them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64

from sim.go import mcache as mcache_room
from sim.go.malloc import refill
from sim.go.mcentral import have_span, uncache_span
from sim.go.mgcsweep import sweep, sweep_one, try_acquire
from sim.go.mheap import (
    ARENA_BYTES,
    ARENA_SHIFT,
    add_arenas,
    alloc_mspan_locked,
    alloc_span,
    finish_span,
    free_span_locked,
    room_is_short,
    span_of_page,
)
from sim.go.mpagealloc import page_alloc_grow, page_alloc_range
from sim.go.mspan import is_allocated, mark_live, next_free_index, set_dead, set_freeindex
from sim.go.mspanset import full_unswept, partial_swept, partial_unswept, place_swept, spanset_pop, spanset_remove
from sim.go.state import (
    CHUNK_PAGES,
    PAGE_SHIFT,
    SPAN_IN_USE,
    SPAN_MANUAL,
    TINY_SPAN_CLASS,
    arena_map,
    chunk_map,
    chunks,
    heap_type,
    mcaches,
    spans,
    words,
)
from sim.jit import entry, jit
from sim.words import ZERO, bit64
from workloads.gotrace_model import (
    GC_END,
    OBJECT,
    OBJECT_ALLOC,
    OBJECT_FREE,
    SPAN,
    SPAN_ALLOC,
    SPAN_FREE,
    SWEEP_BEGIN,
    SWEEP_END,
)

# counters of a replay
SPANS = 0
SPANS_MATCHED = 1
SLOTS = 2
SLOTS_MATCHED = 3
TINY = 4
EXCEPTED = 5
MISS_SPAN_BASE = 6  # a fresh span where the rooms chose other pages
MISS_PARTIAL = 7  # a fresh span where the rooms had a partly free one
MISS_NO_REFILL = 8  # a fresh span where the rooms' cached span had room
MISS_OTHER_SPAN = 9  # the object lies in another span than the cached one
MISS_SLOT = 10  # the right span, another slot
MISS_UNKNOWN_SPAN = 11  # an object in no span the record told of
NUM_COUNTERS = 12

FLUSH_ALL = 255  # kind of an event that flushes every P's cache


@jit
def page_is_free(h: Any, page: Any) -> Any:
    """Whether the page allocator itself (no P's page cache) has a page."""
    at = np.int64(chunk_map(h)[page >> 9]) - 1
    if at < 0:
        return False
    return chunks(h)[at].bits[(page >> 6) & 7] & bit64(page & 63) == ZERO


@jit
def take_pages(h: Any, page: Any, npages: Any, nprocs: Any) -> None:
    """Take recorded pages wherever they are: in the page allocator, in a P's page cache, or under a wrong span."""
    at = page
    while at < page + npages:
        if chunk_map(h)[at >> 9] == 0:
            if arena_map(h)[at >> 13] == 0:
                add_arenas(h, at >> 13 << ARENA_SHIFT, np.int64(ARENA_BYTES))
            page_alloc_grow(h, at >> 9 << 9, np.int64(CHUNK_PAGES))
            h[0].heap_released += CHUNK_PAGES << PAGE_SHIFT
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
        at += 1


@jit
def detach(h: Any, s: Any, nprocs: Any) -> None:
    """Take a span out of whatever cache or set holds it."""
    spc = np.int64(spans(h)[s].spanclass)
    for p in range(nprocs):
        if np.int64(mcaches(h)[p].alloc[spc]) == s:
            mcaches(h)[p].alloc[spc] = 0
            return
    for i in range(4):
        if spanset_remove(h, spc * 4 + i, s):
            return


@jit
def forget_span(h: Any, s: Any, nprocs: Any) -> None:
    """Drop a span the record does not have."""
    sp = spans(h)[s]
    if sp.state == SPAN_IN_USE:
        detach(h, s, nprocs)
        sp.alloc_count = 0
    free_span_locked(h, np.int64(-1), s)


@jit
def force_span(h: Any, page: Any, npages: Any, kindclass: Any, nprocs: Any) -> Any:
    """Make the recorded span exist at its recorded place."""
    take_pages(h, page, npages, nprocs)
    s = alloc_mspan_locked(h, np.int64(-1))
    state = SPAN_MANUAL if kindclass & 1 else SPAN_IN_USE
    finish_span(h, s, page, npages, kindclass >> 1, state, np.int64(0))
    return s


@jit
def sync_sweep(h: Any, p: Any, s: Any, by_allocation: Any, nprocs: Any) -> None:
    """The record swept this span now: let the background's order catch up with it.

    Sweeping on behalf of an allocation takes a span of the class wanted, out of that order: the refill that
    follows will do it by itself, so nothing is swept here.
    """
    if by_allocation or np.int64(spans(h)[s].sweepgen) != np.int64(h[0].sweepgen) - 2:
        return
    while True:
        swept = sweep_one(h, p)
        if swept == s or swept == 0:
            return


@jit
def sweep_directly(h: Any, p: Any, s: Any, preserve: Any) -> None:
    """Sweep an unswept span that the record has swept out of the rooms' order; ``preserve`` as for sweep."""
    spc = np.int64(spans(h)[s].spanclass)
    if np.int64(spans(h)[s].sweepgen) != np.int64(h[0].sweepgen) - 2:
        return
    if not spanset_remove(h, partial_unswept(h, spc), s):
        spanset_remove(h, full_unswept(h, spc), s)
    if try_acquire(h, s):
        sweep(h, p, s, preserve)


@jit
def on_snapshot_object(h: Any, addr: Any) -> None:
    """A slot that is taken at the start."""
    s = span_of_page(h, addr >> PAGE_SHIFT)
    if s == 0:
        return
    sp = spans(h)[s]
    slot = (addr - (sp.start_page << PAGE_SHIFT)) // sp.elemsize
    if slot < sp.nelems and not is_allocated(h, s, slot):
        words(h)[np.int64(sp.alloc_bits) + (slot >> 6)] |= bit64(slot & 63)
        sp.alloc_count += 1


@jit
def set_up(h: Any, kind: Any, a: Any, b: Any, c: Any, base: Any, nprocs: Any) -> None:
    """The heap of the snapshot: pages, spans, taken slots, partly free spans in the central sets."""
    lowest = np.int64(1) << 60
    last = base
    for i in range(len(kind)):
        if kind[i] == SPAN or kind[i] == SPAN_ALLOC:
            lowest = min(lowest, base + a[i])
        if kind[i] == SPAN:
            last = max(last, base + a[i] + b[i])
    if lowest >= last:
        lowest = base
    npages = max((last - base + 511) & ~np.int64(511), 512)
    end = (base + npages) << PAGE_SHIFT
    arena_end = (end + (1 << 26) - 1) & ~np.int64((1 << 26) - 1)
    arena_base = (base << PAGE_SHIFT) & ~np.int64((1 << 26) - 1)
    add_arenas(h, arena_base, arena_end - arena_base)
    h[0].arena_hint = arena_end
    h[0].cur_arena_base = end
    h[0].cur_arena_end = arena_end
    page_alloc_grow(h, base, npages)
    h[0].heap_released += npages << PAGE_SHIFT
    if lowest > base:
        page_alloc_range(h, base, lowest - base)
    for i in range(len(kind)):
        if kind[i] == SPAN:
            force_span(h, base + a[i], b[i], c[i], nprocs)
    for i in range(len(kind)):
        if kind[i] == OBJECT:
            on_snapshot_object(h, (base << PAGE_SHIFT) + a[i] * 8)
    for i in range(len(kind)):
        if kind[i] == SPAN and c[i] & 1 == 0:
            s = span_of_page(h, base + a[i])
            set_freeindex(h, s, np.int64(0))
            place_swept(h, s)


@jit
def mark_dead_until(h: Any, kind: Any, a: Any, first: Any, base: Any) -> None:
    """Set the dead bits of every object that is freed before the next GC end, and mark the rest of the heap."""
    i = first
    while i < len(kind) and kind[i] != GC_END:
        if kind[i] == OBJECT_FREE:
            addr = (base << PAGE_SHIFT) + a[i] * 8
            s = span_of_page(h, addr >> PAGE_SHIFT)
            if s != 0 and spans(h)[s].state == SPAN_IN_USE:
                sp = spans(h)[s]
                set_dead(h, s, (addr - (sp.start_page << PAGE_SHIFT)) // sp.elemsize)
        i += 1
    for s in range(1, h[0].nspans):
        if spans(h)[s].state == SPAN_IN_USE:
            mark_live(h, s)


@jit
def on_gc_end(h: Any, kind: Any, a: Any, i: Any, base: Any, nprocs: Any) -> None:
    """A mark phase is over: what dies in this cycle is known, every span is to be swept, caches are flushed."""
    while sweep_one(h, np.int64(-1)) != 0:
        pass
    mark_dead_until(h, kind, a, i + 1, base)
    h[0].sweepgen += 2
    h[0].central_index = 0
    for p in range(nprocs):
        mcache_room.prepare_for_sweep(h, p)


@jit
def on_span_alloc(h: Any, n: Any, seen: Any, p: Any, page: Any, npages: Any, kindclass: Any, nprocs: Any) -> None:
    """A fresh span: would the rooms have taken a fresh one, and these pages?"""
    n[SPANS] += 1
    spc = kindclass >> 1
    if kindclass & 1 or spc < 2 or p < 0:
        state = SPAN_MANUAL if kindclass & 1 else SPAN_IN_USE
        s = alloc_span(h, p, npages, spc, state)
        if spans(h)[s].start_page == page:
            n[SPANS_MATCHED] += 1
            if state == SPAN_IN_USE:
                next_free_index(h, s)
                place_swept(h, s)
            return
        n[MISS_SPAN_BASE] += 1
        forget_span(h, s, nprocs)
        s = force_span(h, page, npages, kindclass, nprocs)
        if state == SPAN_IN_USE:
            next_free_index(h, s)
            place_swept(h, s)
        return
    on_refill(h, n, seen, p, spc, page, npages, kindclass, nprocs)


@jit
def on_refill(
    h: Any, n: Any, seen: Any, p: Any, spc: Any, page: Any, npages: Any, kindclass: Any, nprocs: Any
) -> None:
    """A refill that ended with a fresh span."""
    cached = np.int64(mcaches(h)[p].alloc[spc])
    if not seen[p, spc]:
        seen[p, spc] = True
        while spanset_pop(h, partial_swept(h, spc)) != 0:  # cached elsewhere, or the refill would have taken them
            pass
    early = cached != 0 and spans(h)[cached].alloc_count != spans(h)[cached].nelems
    if early:
        n[MISS_NO_REFILL] += 1
        mcaches(h)[p].alloc[spc] = 0
        uncache_span(h, p, cached)
    before = h[0].fact_spans
    s = refill(h, p, spc)
    fresh = h[0].fact_spans != before
    if fresh and spans(h)[s].start_page == page:
        if not early:
            n[SPANS_MATCHED] += 1
        return
    if not early:
        n[MISS_SPAN_BASE if fresh else MISS_PARTIAL] += 1
    mcaches(h)[p].alloc[spc] = 0
    if fresh:
        forget_span(h, s, nprocs)
    else:
        uncache_span(h, p, s)
    s = force_span(h, page, npages, kindclass, nprocs)
    mcache_room.cache_fresh(h, p, spc, s)


@jit
def adopt(h: Any, p: Any, spc: Any, s: Any, nprocs: Any) -> None:
    """Make the recorded span the P's cached one."""
    cached = np.int64(mcaches(h)[p].alloc[spc])
    if cached == s:
        return
    if cached != 0:
        mcaches(h)[p].alloc[spc] = 0
        uncache_span(h, p, cached)
    sweep_directly(h, p, s, True)
    detach(h, s, nprocs)
    if spans(h)[s].alloc_count != spans(h)[s].nelems:
        have_span(h, s)
    mcache_room.cache_fresh(h, p, spc, s)


@jit
def on_object_alloc(h: Any, n: Any, seen: Any, p: Any, addr: Any, nprocs: Any) -> None:
    """An object: does the rooms' next slot of its span class lie at its address?"""
    n[SLOTS] += 1
    s = span_of_page(h, addr >> PAGE_SHIFT)
    if s == 0 or spans(h)[s].state != SPAN_IN_USE or p < 0:
        n[MISS_UNKNOWN_SPAN] += 1
        return
    sp = spans(h)[s]
    spc = np.int64(sp.spanclass)
    slot = (addr - (sp.start_page << PAGE_SHIFT)) // sp.elemsize
    if spc < 2:
        n[SLOTS_MATCHED] += 1
        return
    if spc == TINY_SPAN_CLASS and is_allocated(h, s, slot):
        n[SLOTS_MATCHED] += 1
        n[TINY] += 1
        return
    first = not seen[p, spc]
    seen[p, spc] = True
    cached = np.int64(mcaches(h)[p].alloc[spc])
    got = np.int64(-1)
    if cached != 0:
        got = next_free_index(h, cached)
    if got < 0 and not (first and cached == 0):
        cached = refill(h, p, spc)
        if cached == s:
            got = next_free_index(h, s)
    if cached == s and got == slot:
        n[SLOTS_MATCHED] += 1
        return
    if first:
        n[EXCEPTED] += 1
    else:
        n[MISS_SLOT if cached == s else MISS_OTHER_SPAN] += 1
    if got >= 0:
        give_back(h, cached, got)
    adopt(h, p, spc, s, nprocs)
    take_slot(h, s, slot)


@jit
def give_back(h: Any, s: Any, slot: Any) -> None:
    """Undo taking a slot."""
    spans(h)[s].alloc_count -= 1
    set_freeindex(h, s, slot)


@jit
def take_slot(h: Any, s: Any, slot: Any) -> None:
    """Take the recorded slot; free slots below it stay free only if the record never takes them."""
    sp = spans(h)[s]
    if is_allocated(h, s, slot):
        return
    skipped = np.int64(0)
    for i in range(np.int64(sp.freeindex), slot):
        if not is_allocated(h, s, i):
            skipped += 1
    sp.alloc_count += 1 + skipped
    set_freeindex(h, s, slot + 1)


@entry(int64(heap_type, int64[::1], int64[:, ::1], int64, int64[::1], int64, int64, *([int64[::1]] * 5)))
def replay_events(
    h: Any, n: Any, seen: Any, start: Any, in_sweep: Any, base: Any, nprocs: Any, kind: Any, ps: Any, a: Any, b: Any, c: Any
) -> Any:
    """Replay events from ``start`` on; returns the index it stopped at, short of the end when a table must grow.

    ``base``: page number of the trace's lowest heap address. ``ps``: the P of each event, -1 if none.
    """
    if start == 0:
        set_up(h, kind, a, b, c, base, nprocs)
    for i in range(start, len(kind)):
        k = kind[i]
        p = ps[i]
        if k == OBJECT_ALLOC:
            on_object_alloc(h, n, seen, p, (base << PAGE_SHIFT) + a[i] * 8, nprocs)
        elif k == SPAN_ALLOC:
            if room_is_short(h, b[i]):
                return np.int64(i)
            on_span_alloc(h, n, seen, p, base + a[i], b[i], c[i], nprocs)
        elif k == OBJECT_FREE:
            s = span_of_page(h, base + (a[i] >> 10))
            if s != 0:
                sync_sweep(h, p, s, p >= 0 and in_sweep[p] != 0, nprocs)
        elif k == SPAN_FREE:
            s = span_of_page(h, base + a[i])
            if s != 0 and spans(h)[s].state == SPAN_MANUAL:
                free_span_locked(h, p, s)
            elif s != 0:
                sweep_directly(h, p, s, False)
        elif k == GC_END:
            on_gc_end(h, kind, a, i, base, nprocs)
        elif k == FLUSH_ALL:
            for q in range(nprocs):
                mcache_room.release_all(h, q)
        elif k == SWEEP_BEGIN and p >= 0:
            in_sweep[p] = 1
        elif k == SWEEP_END and p >= 0:
            in_sweep[p] = 0
    return np.int64(len(kind))
