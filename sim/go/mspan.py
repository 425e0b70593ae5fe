"""One span: a run of pages cut into slots of one size (mirrors mheap.go:mspan and the bit handling of mbitmap.go).

Slot n is free iff n >= freeindex and its allocBits bit is 0; ``alloc_cache`` holds the complement of 64 allocBits
from freeindex on, so that a count of trailing zeros finds the next free slot. Slots go out in ascending order.

The workload marks slots *dead* in a bitmap of its own; marking is then ``allocated & ~dead``, 64 slots at a time,
and the next sweep turns what is not marked into free slots. A tiny block is dead when every object combined in it
is: tiny spans count their live objects per slot.

Invariants: alloc_count slots are allocated; dead is a subset of allocated; no bit at or above nelems is set.
Left out: specials, finalizers, freeIndexForScan (conservative scanning only).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.sizeclasses import class_to_allocnpages, class_to_size, span_nelems
from sim.go.state import PAGE_SHIFT, SPAN_IN_USE, TINY_SPAN_CLASS, spans, words
from sim.jit import jit
from sim.units import Throw
from sim.words import ALL, ZERO, bit64, ctz64, ones, popcount64, shr64


@jit
def words_alloc(h: Any, n: Any) -> Any:
    """n zeroed words of the bitmap pool, recycled by length or cut from its end. (mheap.go:newMarkBits)"""
    w = words(h)
    first = np.int64(h[0].free_words[n])
    if first < 0:
        first = h[0].nwords
        if first + n > h[0].words_len:
            raise Throw("bitmap pool full")
        h[0].nwords += n
        return first
    h[0].free_words[n] = np.int64(w[first]) - 1
    for i in range(n):
        w[first + i] = ZERO
    return first


@jit
def words_free(h: Any, first: Any, n: Any) -> None:
    """Give n words back to the pool; the list of free runs is threaded through them."""
    words(h)[first] = np.uint64(np.int64(h[0].free_words[n]) + 1)
    h[0].free_words[n] = first


@jit
def span_words(nelems: Any) -> Any:
    """Words of one bitmap of a span."""
    return (np.int64(nelems) + 63) >> 6


@jit
def pool_words(spanclass: Any, nelems: Any) -> Any:
    """Words a span has in the pool: three bitmaps, and a byte per slot where tiny objects combine."""
    n = 3 * span_words(nelems)
    if spanclass == TINY_SPAN_CLASS:
        n += (nelems + 7) >> 3
    return n


@jit
def init_span(h: Any, s: Any, page: Any, npages: Any, spanclass: Any, state: Any, needzero: Any, fresh: Any) -> None:
    """Make record s the span of npages at page, nothing allocated. (mheap.go:initSpan)"""
    sp = spans(h)[s]
    sp.start_page = page
    sp.npages = npages
    sp.spanclass = spanclass
    sp.state = state
    sp.needzero = needzero
    sp.fresh = fresh
    sp.freeindex = 0
    sp.alloc_count = 0
    sp.alloc_count_before_cache = 0
    sp.next = 0
    sp.sweepgen = h[0].sweepgen
    sp.alloc_cache = ALL
    if state != SPAN_IN_USE:
        sp.elemsize = 0
        sp.nelems = 0
        return
    if spanclass < 2:
        sp.elemsize = npages << PAGE_SHIFT
        sp.nelems = 1
    else:
        sp.elemsize = class_to_size[np.int64(spanclass) >> 1]
        sp.nelems = span_nelems(h, spanclass)
        if npages != class_to_allocnpages[np.int64(spanclass) >> 1]:
            raise Throw("span length differs from its class")
    nw = span_words(sp.nelems)
    first = words_alloc(h, pool_words(spanclass, np.int64(sp.nelems)))
    sp.alloc_bits = first
    sp.mark_bits = first + nw
    sp.dead_bits = first + 2 * nw


@jit
def release_bits(h: Any, s: Any) -> None:
    """Give a freed span's bitmaps back: they are one run of the pool, whatever order sweeping left them in."""
    sp = spans(h)[s]
    if sp.nelems == 0:
        return
    first = min(sp.alloc_bits, sp.mark_bits)
    words_free(h, np.int64(first), pool_words(np.int64(sp.spanclass), np.int64(sp.nelems)))
    sp.nelems = 0


@jit
def refill_alloc_cache(h: Any, s: Any, index: Any) -> None:
    """Load alloc_cache with the 64 slots from index (a multiple of 64) on. (mbitmap.go:refillAllocCache)"""
    sp = spans(h)[s]
    sp.alloc_cache = ~words(h)[np.int64(sp.alloc_bits) + (index >> 6)]


@jit
def next_free_index(h: Any, s: Any) -> Any:
    """Take the next free slot at or after freeindex; -1 when the span is full. (mbitmap.go:nextFreeIndex)

    Unlike Go's, it counts the slot as allocated: the caller always uses it.
    """
    sp = spans(h)[s]
    index = np.int64(sp.freeindex)
    n = np.int64(sp.nelems)
    cache = sp.alloc_cache
    while index < n:
        if cache != ZERO:
            skip = ctz64(cache)
            slot = index + skip
            if slot >= n:
                break
            index = slot + 1
            cache = shr64(cache, skip + 1)
            if index & 63 == 0 and index < n:
                refill_alloc_cache(h, s, index)
                cache = sp.alloc_cache
            sp.alloc_cache = cache
            sp.freeindex = index
            sp.alloc_count += 1
            return slot
        index = (index + 64) & ~np.int64(63)
        if index < n:
            refill_alloc_cache(h, s, index)
            cache = sp.alloc_cache
    sp.freeindex = n
    sp.alloc_cache = ZERO
    return np.int64(-1)


@jit
def set_freeindex(h: Any, s: Any, freeindex: Any) -> None:
    """Place freeindex and align alloc_cache to it. (mcentral.go:cacheSpan, its end)"""
    sp = spans(h)[s]
    sp.freeindex = freeindex
    if freeindex < sp.nelems:
        refill_alloc_cache(h, s, freeindex & ~np.int64(63))
        sp.alloc_cache = shr64(sp.alloc_cache, freeindex & 63)
    else:
        sp.alloc_cache = ZERO


@jit
def allocated_word(h: Any, s: Any, i: Any) -> Any:
    """Bits of the allocated slots among [64 i, 64 i + 64): below freeindex, or set in allocBits. (isFree)"""
    sp = spans(h)[s]
    below = np.int64(sp.freeindex) - (i << 6)
    word = words(h)[np.int64(sp.alloc_bits) + i]
    if below > 0:
        word |= ones(min(below, np.int64(64)))
    return word


@jit
def is_allocated(h: Any, s: Any, slot: Any) -> Any:
    """Whether a slot holds an object, dead or alive."""
    return allocated_word(h, s, slot >> 6) & bit64(slot & 63) != ZERO


@jit
def set_dead(h: Any, s: Any, slot: Any) -> None:
    """The workload dropped the object in a slot."""
    word = np.int64(spans(h)[s].dead_bits) + (slot >> 6)
    words(h)[word] |= bit64(slot & 63)


@jit
def set_alive(h: Any, s: Any, slot: Any) -> None:
    """A tiny block whose objects were all dropped takes another one."""
    word = np.int64(spans(h)[s].dead_bits) + (slot >> 6)
    words(h)[word] &= ~bit64(slot & 63)


@jit
def tiny_count(h: Any, s: Any, slot: Any, change: Any) -> Any:
    """Change the count of live tiny objects in a slot of a tiny span; the count after it."""
    sp = spans(h)[s]
    word = np.int64(sp.dead_bits) + span_words(sp.nelems) + (slot >> 3)
    shift = np.uint64((slot & 7) << 3)
    w = words(h)
    count = np.int64((w[word] >> shift) & np.uint64(255)) + change
    w[word] = (w[word] & ~(np.uint64(255) << shift)) | (np.uint64(count) << shift)
    return count


@jit
def mark_live(h: Any, s: Any) -> Any:
    """Set gcmarkBits to allocated & ~dead: what a complete mark phase finds reachable. How many objects that is."""
    sp = spans(h)[s]
    w = words(h)
    live = np.int64(0)
    for i in range(span_words(sp.nelems)):
        marks = allocated_word(h, s, i) & ~w[np.int64(sp.dead_bits) + i]
        w[np.int64(sp.mark_bits) + i] = marks
        live += popcount64(marks)
    return live


@jit
def count_live(h: Any, s: Any) -> Any:
    """How many objects are allocated and not dead."""
    live = np.int64(0)
    for i in range(span_words(spans(h)[s].nelems)):
        live += popcount64(allocated_word(h, s, i) & ~words(h)[np.int64(spans(h)[s].dead_bits) + i])
    return live


@jit
def mark_slot(h: Any, s: Any, slot: Any) -> Any:
    """Set a slot's mark; False if it was set already."""
    word = np.int64(spans(h)[s].mark_bits) + (slot >> 6)
    bit = bit64(slot & 63)
    if words(h)[word] & bit != ZERO:
        return False
    words(h)[word] |= bit
    return True


@jit
def sweep_bits(h: Any, s: Any) -> Any:
    """Turn unmarked slots into free ones: allocBits = gcmarkBits, marks cleared. (mgcsweep.go:sweep, its middle)

    Returns the number of objects freed. The caller sets sweepgen and places the span.
    """
    sp = spans(h)[s]
    w = words(h)
    live = np.int64(0)
    for i in range(span_words(sp.nelems)):
        allocated = allocated_word(h, s, i)
        marks = w[np.int64(sp.mark_bits) + i]
        if marks & ~allocated != ZERO:
            raise Throw("marked slot is not allocated")
        w[np.int64(sp.dead_bits) + i] &= marks
        w[np.int64(sp.alloc_bits) + i] = ZERO
        live += popcount64(marks)
    old = sp.alloc_bits
    sp.alloc_bits = sp.mark_bits
    sp.mark_bits = old
    freed = np.int64(sp.alloc_count) - live
    if freed < 0:
        raise Throw("sweep increased the allocation count")
    sp.alloc_count = live
    set_freeindex(h, s, np.int64(0))
    if freed > 0:
        sp.needzero = 1
    return freed
