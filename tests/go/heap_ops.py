"""A heap's operations without a clock, for Python to call: what the tests of the whole allocator share."""

from numba import int64, types, void

from sim.go.malloc import small_slot, span_class_of
from sim.go.mcache import prepare_for_sweep, release_all
from sim.go.mgcscavenge import scavenge
from sim.go.mgcsweep import finish_sweep, sweep_one
from sim.go.mheap import alloc_span, free_span_locked
from sim.go.mpagecache import page_cache_flush
from sim.go.mspan import mark_live, next_free_index, set_dead
from sim.go.mspanset import place_swept
from sim.go.state import PAGE_SHIFT, SPAN_IN_USE, SPAN_MANUAL, heap_type, spans
from sim.jit import entry


@entry(types.UniTuple(int64, 2)(heap_type, int64, int64, int64))
def malloc(h, p, size, noscan):
    """A slot for a request: (span, slot)."""
    spc = span_class_of(h, size, noscan)
    if spc >= 2:
        return small_slot(h, p, spc)
    s = alloc_span(h, p, (size + 8191) >> PAGE_SHIFT, spc, SPAN_IN_USE)
    slot = next_free_index(h, s)
    place_swept(h, s)
    return s, slot


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
    """Give free memory back to the system, on the ledger too."""
    released = scavenge(h, nbytes)
    h[0].heap_free -= released
    h[0].heap_released += released
    h[0].mapped_ready -= released
    return released


@entry(void(heap_type))
def cycle(h):
    """A whole collection without a clock: the old sweep is finished, everything is marked, a new sweep begins."""
    while sweep_one(h, -1) != 0:
        pass
    finish_sweep(h)
    for s in range(1, h[0].nspans):
        if spans(h)[s].state == SPAN_IN_USE:
            mark_live(h, s)
    h[0].sweepgen += 2
    h[0].central_index = 0
    for p in range(h[0].nprocs):
        prepare_for_sweep(h, p)


def address(heap, s, slot):
    span = heap.arrays["spans"][s]
    return (int(span.start_page) << PAGE_SHIFT) + slot * int(span.elemsize)
