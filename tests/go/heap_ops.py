"""A heap's operations without a clock, for Python to call: what the tests of the whole allocator share."""

from numba import int64, types, void

from sim.go.collect import mark_at_once
from sim.go.malloc import small_slot, span_class_of
from sim.go.mcache import cache_fresh, release_all, uncache_full
from sim.go.mcentral import cache_span
from sim.go.mgcscavenge import scavenge
from sim.go.mgcsweep import deduct_sweep_credit, sweep_done
from sim.go.mheap import (
    alloc_mspan_locked,
    alloc_pages_locked,
    alloc_span,
    finish_span,
    free_span_locked,
    refill_page_cache_locked,
)
from sim.go.mpagecache import page_cache_alloc, page_cache_flush
from sim.go.mspan import next_free_index, set_dead
from sim.go.mspanset import place_swept
from sim.go.reclaim import heap_alloc, reclaim
from sim.go.sizeclasses import class_to_allocnpages
from sim.go.state import PAGE_SHIFT, SPAN_IN_USE, SPAN_MANUAL, heap_type, mcaches
from sim.jit import entry


@entry(types.UniTuple(int64, 2)(heap_type, int64, int64, int64))
def malloc(h, p, size, noscan):
    """A slot for a request: (span, slot)."""
    spc = span_class_of(h, size, noscan)
    if spc >= 2:
        return small_slot(h, p, spc)
    npages = (size + 8191) >> PAGE_SHIFT
    deduct_sweep_credit(h, p, npages << PAGE_SHIFT, npages)
    s = heap_alloc(h, p, npages, spc)
    slot = next_free_index(h, s)
    place_swept(h, s)
    return s, slot


# what a malloc did, beside span and slot: where its slot came from, then 1 for each step taken and levels walked in it
HIT, PARTIAL, FRESH = range(3)
STEPS = ("source", "cache_refills", "cache_levels", "searches", "search_levels", "record_refills")


@entry(types.UniTuple(int64, 8)(heap_type, int64, int64, int64))
def malloc_by_steps(h, p, size, noscan):
    """A slot for a request, room by room: (span, slot, *STEPS). (malloc.go:nextFree, mcache.go:refill, mheap.go:allocSpan)"""
    spc = span_class_of(h, size, noscan)
    npages = (size + 8191) >> PAGE_SHIFT
    if spc >= 2:
        npages = class_to_allocnpages[spc >> 1]
        s = int(mcaches(h)[p].alloc[spc])
        slot = next_free_index(h, s) if s != 0 else -1
        if slot >= 0:
            return s, slot, HIT, 0, 0, 0, 0, 0
        uncache_full(h, p, spc)
        s = cache_span(h, p, spc)
        if s != 0:
            cache_fresh(h, p, spc, s)
            return s, next_free_index(h, s), PARTIAL, 0, 0, 0, 0, 0
    if not sweep_done(h):
        reclaim(h, p, npages)
    page, scav = -1, 0
    refills = 0
    start = h[0].levels_walked
    if npages < 16:
        if mcaches(h)[p].pcache == 0:
            refills = 1
            refill_page_cache_locked(h, p)
        page, scav = page_cache_alloc(h, p, npages)
    middle = h[0].levels_walked
    searches = int(page < 0)
    if searches:
        page, scav = alloc_pages_locked(h, npages)
    records = int(mcaches(h)[p].mspancache_len == 0)
    s = alloc_mspan_locked(h, p)
    finish_span(h, s, page, npages, spc, SPAN_IN_USE, scav)
    if spc >= 2:
        cache_fresh(h, p, spc, s)
    slot = next_free_index(h, s)
    if spc < 2:
        place_swept(h, s)
    return s, slot, FRESH, refills, middle - start, searches, h[0].levels_walked - middle, records


@entry(int64(heap_type, int64, int64))
def stack(h, p, npages):
    return alloc_span(h, p, npages, 0, SPAN_MANUAL)


@entry(void(heap_type, int64, int64))
def free_stack(h, p, s):
    free_span_locked(h, p, s)


@entry(void(heap_type, int64, int64))
def drop(h, s, slot):
    set_dead(h, s, slot)


@entry(void(heap_type))
def flush_all(h):
    for p in range(h[0].nprocs):
        release_all(h, p)


@entry(void(heap_type, int64))
def flush_pages(h, p):
    page_cache_flush(h, p)


@entry(int64(heap_type, int64))
def release(h, nbytes):
    """Give free memory back to the system, dense chunks too."""
    return scavenge(h, nbytes, True, False)


@entry(void(heap_type))
def cycle(h):
    """A whole collection without a clock: the old sweep is finished, everything is marked, a new sweep begins."""
    mark_at_once(h, -1)


def address(heap, s, slot):
    span = heap.arrays["spans"][s]
    return (int(span.start_page) << PAGE_SHIFT) + slot * int(span.elemsize)
