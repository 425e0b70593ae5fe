"""Goroutine stacks: cache, pools, large ones; growing and shrinking (mirrors stack.go).

A stack is a power of two of bytes, 2 KiB at least. Those of 2, 4, 8 and 16 KiB (orders 0 to 3) come from the P's
stackcache, a list an order: when it is empty, 16 KiB of stacks are taken from the order's stackpool; when it holds 32
KiB, half of them are given back. A pool is a list of spans of 32 KiB cut into stacks, those with a free stack; a new
span hands out its highest address first. Larger stacks are spans of their own.

What is free goes back to the heap at once while the collector is off: a span of the pool with its last stack, a large
stack itself. While it runs (``gc_phase``), such spans stay as they are, large ones in the lists of ``stackLarge`` by
bit length, until `free_stack_spans` after mark termination; the collector could mistake a pointer into them otherwise.

Go threads its lists through the free stacks themselves. Here the links stand in the pool of words: a span of a pool has
2 words and one a stack there, the head of its free stacks, the span before it in the pool's list, and each stack's
next.

A goroutine's stack is in its row: the lowest address, its size, and the bytes its frames reach down from the top, which
the workload declares. A stack holds ``size - 928`` bytes of frames (the guard); more makes it double, as often as
needed, copying what it holds each time.

Each function that Go runs under a lock, or that takes memory, counts it in the ``fact_`` scalars: locks of pools,
spans, system pages touched first. Functions that may end with spans to give back return the first of them, linked by
``next``, for the caller to free (`free_manual`): each takes mheap.lock.

Invariants: a free stack is in one cache or in its span's list; a span's alloc_count is the number of its stacks that
are not in its list; a span is in its pool's list if that is not empty; ``stackcache_size`` is what the list holds.

Left out: stackLarge's lock (held for one step of a list), debug settings, frame-by-frame adjusting (in the price), the
jump to a size that fits one very large frame, signal and system stacks of C code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mheap import alloc_span, free_span_locked, span_of_page, touch_pages
from sim.go.mspan import words_alloc, words_free
from sim.go.scalars import NUM_STACK_LARGE, NUM_STACK_ORDERS
from sim.go.state import (
    GC_OFF,
    PAGE_SHIFT,
    SPAN_MANUAL,
    goroutines,
    mcaches,
    spans,
    words,
)
from sim.jit import jit
from sim.units import Throw

STACK_MIN = 2048  # fixedStack: the smallest
STACK_CACHE_SIZE = 32 << 10  # bytes of a span of a pool; a cache that holds as much gives half of it back
STACK_SPAN_PAGES = STACK_CACHE_SIZE >> PAGE_SHIFT
STACK_GUARD = 928  # bytes below which frames may not reach: 800 of nosplit calls and 128 of a small frame
STACK_NOSPLIT = 800
G0_STACK = 16 << 10  # bytes of a thread's own stack, and of its signal handler's (proc.go:allocm, os_linux.go:mpreinit)
GSIGNAL_STACK = 32 << 10
MAX_STACK_SIZE = 1_000_000_000  # bytes (proc.go:main)

_HEAD, _PREV, _LINKS = 0, 1, 2  # words of a span of a pool


@jit
def stack_order(size: Any) -> Any:
    """log2(size / 2 KiB), for sizes below 32 KiB."""
    order = 0
    while size > STACK_MIN:
        size >>= 1
        order += 1
    return order


@jit
def bit_length(n: Any) -> Any:
    """Bits of n; the list of stackLarge for n pages. (stacklog2)"""
    bits = 0
    while n > 0:
        n >>= 1
        bits += 1
    return bits


@jit
def free_list_head(h: Any, s: Any) -> Any:
    """Address of the first free stack of a span, 0 if none. (mspan.manualFreeList)"""
    return np.int64(words(h)[np.int64(spans(h)[s].alloc_bits) + _HEAD])


@jit
def set_free_list_head(h: Any, s: Any, address: Any) -> None:
    """Make a stack the first free one of its span."""
    words(h)[np.int64(spans(h)[s].alloc_bits) + _HEAD] = np.uint64(address)


@jit
def stack_span(h: Any, address: Any) -> Any:
    """The span of a stack; throws where there is none."""
    s = span_of_page(h, address >> PAGE_SHIFT)
    if s == 0 or spans(h)[s].state != SPAN_MANUAL or spans(h)[s].elemsize == 0:
        raise Throw("freeing stack not in a stack span")
    return s


@jit
def link_word(h: Any, address: Any) -> Any:
    """The word that holds the link of a stack of a pool."""
    s = stack_span(h, address)
    sp = spans(h)[s]
    return np.int64(sp.alloc_bits) + _LINKS + (address - (sp.start_page << PAGE_SHIFT)) // sp.elemsize


@jit
def next_stack(h: Any, address: Any) -> Any:
    """The stack behind one in its list, 0 if none. (gclinkptr.next)"""
    return np.int64(words(h)[link_word(h, address)])


@jit
def set_next_stack(h: Any, address: Any, following: Any) -> None:
    """Link a stack to another."""
    words(h)[link_word(h, address)] = np.uint64(following)


# spans of a pool


@jit
def pool_insert(h: Any, order: Any, s: Any) -> None:
    """Put a span in front of a pool's list. (mSpanList.insert)"""
    first = np.int64(h[0].stackpool[order])
    spans(h)[s].next = first
    words(h)[np.int64(spans(h)[s].alloc_bits) + _PREV] = np.uint64(0)
    if first != 0:
        words(h)[np.int64(spans(h)[first].alloc_bits) + _PREV] = np.uint64(s)
    h[0].stackpool[order] = s


@jit
def pool_remove(h: Any, order: Any, s: Any) -> None:
    """Take a span out of a pool's list. (mSpanList.remove)"""
    before = np.int64(words(h)[np.int64(spans(h)[s].alloc_bits) + _PREV])
    behind = np.int64(spans(h)[s].next)
    if before != 0:
        spans(h)[before].next = behind
    else:
        if h[0].stackpool[order] != s:
            raise Throw("span is not in its stack pool's list")
        h[0].stackpool[order] = behind
    if behind != 0:
        words(h)[np.int64(spans(h)[behind].alloc_bits) + _PREV] = np.uint64(before)
    spans(h)[s].next = 0


@jit
def drop_links(h: Any, s: Any) -> None:
    """Give the words of a span of a pool back: it is on its way to the heap."""
    sp = spans(h)[s]
    words_free(h, np.int64(sp.alloc_bits), _LINKS + STACK_CACHE_SIZE // sp.elemsize)
    sp.elemsize = 0


@jit
def cut_span(h: Any, s: Any, order: Any) -> None:
    """Cut a new span into stacks and enter it in its pool. Writing their links touches memory. (stackpoolalloc)"""
    sp = spans(h)[s]
    size = np.int64(STACK_MIN) << order
    n = STACK_CACHE_SIZE // size
    sp.elemsize = size
    sp.alloc_bits = words_alloc(h, _LINKS + n)
    base = sp.start_page << PAGE_SHIFT
    last = np.int64(0)
    for i in range(n):
        words(h)[np.int64(sp.alloc_bits) + _LINKS + i] = np.uint64(last)
        last = base + i * size
        touch_stack_memory(h, s, i * size, np.int64(8))
    set_free_list_head(h, s, last)
    pool_insert(h, order, s)
    h[0].fact_stack_spans += 1


@jit
def touch_stack_memory(h: Any, s: Any, offset: Any, nbytes: Any) -> None:
    """Count the system pages of a span that are touched for the first time."""
    small, huge = touch_pages(h, spans(h)[s], offset, nbytes)
    h[0].fact_stack_touched += small
    h[0].fact_stack_huge += huge


@jit
def stackpoolalloc(h: Any, order: Any, spare: Any) -> Any:
    """A stack from a pool; ``spare`` is a new span for it to cut when it has none. (stackpoolalloc)"""
    s = np.int64(h[0].stackpool[order])
    if s == 0:
        if spare == 0:
            raise Throw("stack pool is empty")
        s = spare
        cut_span(h, s, order)
    x = free_list_head(h, s)
    if x == 0:
        raise Throw("span has no free stacks")
    following = next_stack(h, x)
    set_free_list_head(h, s, following)
    spans(h)[s].alloc_count += 1
    if following == 0:
        pool_remove(h, order, s)
    return x


@jit
def stackpoolfree(h: Any, order: Any, x: Any) -> Any:
    """Give a stack back to its pool; its span if that goes back to the heap with it, else 0. (stackpoolfree)"""
    s = stack_span(h, x)
    sp = spans(h)[s]
    if sp.elemsize != np.int64(STACK_MIN) << order or sp.alloc_count <= 0:
        raise Throw("freeing stack not in a stack span of its size, or one that is free")
    head = free_list_head(h, s)
    if head == 0:
        pool_insert(h, order, s)
    set_next_stack(h, x, head)
    set_free_list_head(h, s, x)
    sp.alloc_count -= 1
    if h[0].gc_phase != GC_OFF or sp.alloc_count != 0:
        return np.int64(0)
    pool_remove(h, order, s)
    drop_links(h, s)
    h[0].fact_stack_frees += 1
    return s


@jit
def pool_is_short(h: Any, order: Any) -> Any:
    """Whether a refill of 16 KiB will need a new span."""
    size = np.int64(STACK_MIN) << order
    wanted = np.int64(STACK_CACHE_SIZE // 2)
    s = np.int64(h[0].stackpool[order])
    while s != 0 and wanted > 0:
        wanted -= STACK_CACHE_SIZE - np.int64(spans(h)[s].alloc_count) * size
        s = np.int64(spans(h)[s].next)
    return wanted > 0


@jit
def free_manual(h: Any, p: Any, s: Any) -> None:
    """Give spans back to the heap, from s on along ``next``. (mheap.go:freeManual of each)"""
    while s != 0:
        following = np.int64(spans(h)[s].next)
        free_span_locked(h, p, s)
        s = following


# the cache of a P


@jit
def stackcacherefill(h: Any, p: Any, order: Any, spare: Any) -> None:
    """Take 16 KiB of stacks from the pool into an empty list of the P's cache. (stackcacherefill)

    ``spare``: a new span if the pool is short, else 0. One that is not needed after all becomes the pool's too.
    """
    c = mcaches(h)[p]
    h[0].fact_pool_locks += 1
    first = np.int64(0)
    size = np.int64(0)
    while size < STACK_CACHE_SIZE // 2:
        x = stackpoolalloc(h, order, spare)
        set_next_stack(h, x, first)
        first = x
        size += np.int64(STACK_MIN) << order
    if spare != 0 and spans(h)[spare].elemsize == 0:
        cut_span(h, spare, order)
    c.stackcache_list[order] = first
    c.stackcache_size[order] = size


@jit
def release_to(h: Any, p: Any, order: Any, keep: Any) -> Any:
    """Give stacks of the P's cache back until it holds ``keep`` bytes; spans that go back to the heap with them."""
    c = mcaches(h)[p]
    h[0].fact_pool_locks += 1
    x = np.int64(c.stackcache_list[order])
    size = np.int64(c.stackcache_size[order])
    freed = np.int64(0)
    while size > keep:
        following = next_stack(h, x)
        s = stackpoolfree(h, order, x)
        if s != 0:
            spans(h)[s].next = freed
            freed = s
        x = following
        size -= np.int64(STACK_MIN) << order
    c.stackcache_list[order] = x
    c.stackcache_size[order] = size
    return freed


@jit
def stackcacherelease(h: Any, p: Any, order: Any) -> Any:
    """Give half of a full list of the P's cache back; the spans to give back to the heap. (stackcacherelease)"""
    return release_to(h, p, order, np.int64(STACK_CACHE_SIZE // 2))


@jit
def stackcache_clear(h: Any, p: Any) -> None:
    """Empty the P's cache, as its mcache is flushed. (stackcache_clear)"""
    for order in range(NUM_STACK_ORDERS):
        free_manual(h, p, release_to(h, p, order, np.int64(0)))


@jit
def cache_take(h: Any, p: Any, order: Any) -> Any:
    """A stack from the P's cache, 0 if it has none of the order."""
    c = mcaches(h)[p]
    x = np.int64(c.stackcache_list[order])
    if x != 0:
        c.stackcache_list[order] = next_stack(h, x)
        c.stackcache_size[order] -= np.int64(STACK_MIN) << order
    return x


@jit
def cache_put(h: Any, p: Any, order: Any, x: Any) -> None:
    """Put a stack into the P's cache, which has room."""
    c = mcaches(h)[p]
    if spans(h)[stack_span(h, x)].elemsize != np.int64(STACK_MIN) << order:
        raise Throw("freeing a stack that is not of its span's size")
    set_next_stack(h, x, np.int64(c.stackcache_list[order]))
    c.stackcache_list[order] = x
    c.stackcache_size[order] += np.int64(STACK_MIN) << order


# stacks of any size


@jit
def is_small(size: Any) -> Any:
    """Whether stacks of a size come from pools; throws if it is none of a stack."""
    if size < STACK_MIN or size & (size - 1) != 0:
        raise Throw("stack size not a power of 2")
    return size < np.int64(STACK_MIN) << NUM_STACK_ORDERS and size < STACK_CACHE_SIZE


@jit
def large_take(h: Any, size: Any) -> Any:
    """A stack from stackLarge, 0 if there is none of the size."""
    index = bit_length(size >> PAGE_SHIFT)
    s = np.int64(h[0].stack_large[index])
    if s == 0:
        return s
    h[0].stack_large[index] = spans(h)[s].next
    spans(h)[s].next = 0
    return spans(h)[s].start_page << PAGE_SHIFT


@jit
def large_from(h: Any, s: Any, size: Any) -> Any:
    """Make a new span a large stack; its address."""
    spans(h)[s].elemsize = size
    h[0].fact_stack_spans += 1
    return spans(h)[s].start_page << PAGE_SHIFT


@jit
def large_free(h: Any, address: Any) -> Any:
    """A large stack is free: its span if it goes back to the heap now, else 0. (stackfree, its end)"""
    s = stack_span(h, address)
    spans(h)[s].next = 0
    if h[0].gc_phase == GC_OFF:
        spans(h)[s].elemsize = 0
        h[0].fact_stack_frees += 1
        return s
    index = bit_length(spans(h)[s].npages)
    spans(h)[s].next = h[0].stack_large[index]
    h[0].stack_large[index] = s
    return np.int64(0)


@jit
def stackalloc(h: Any, p: Any, size: Any) -> Any:
    """The address of a new stack, every step at once. P -1: from the pool, past any cache. (stackalloc)"""
    small = is_small(size)
    order = stack_order(size) if small else 0
    x = large_take(h, size) if not small else cache_take(h, p, order) if p >= 0 else np.int64(0)
    if x != 0:
        return x
    s = np.int64(0)
    if not small or (pool_is_short(h, order) if p >= 0 else h[0].stackpool[order] == 0):
        s = alloc_span(h, p, np.int64(STACK_SPAN_PAGES) if small else size >> PAGE_SHIFT, 0, SPAN_MANUAL)
    if not small:
        return large_from(h, s, size)
    if p < 0:
        h[0].fact_pool_locks += 1
        return stackpoolalloc(h, order, s)
    stackcacherefill(h, p, order, s)
    return cache_take(h, p, order)


@jit
def stackfree(h: Any, p: Any, address: Any, size: Any) -> None:
    """Give a stack back, every step at once. P -1: to the pool, past any cache. (stackfree)"""
    if not is_small(size):
        free_manual(h, p, large_free(h, address))
        return
    order = stack_order(size)
    if p < 0:
        h[0].fact_pool_locks += 1
        free_manual(h, p, stackpoolfree(h, order, address))
        return
    if mcaches(h)[p].stackcache_size[order] >= STACK_CACHE_SIZE:
        free_manual(h, p, stackcacherelease(h, p, order))
    cache_put(h, p, order, address)


@jit
def free_stack_spans(h: Any, p: Any) -> None:
    """Give back what the collection kept: pool spans without a stack in use, all large ones. (freeStackSpans)"""
    for order in range(NUM_STACK_ORDERS):
        h[0].fact_pool_locks += 1
        s = np.int64(h[0].stackpool[order])
        while s != 0:
            following = np.int64(spans(h)[s].next)
            if spans(h)[s].alloc_count == 0:
                pool_remove(h, order, s)
                drop_links(h, s)
                h[0].fact_stack_frees += 1
                free_manual(h, p, s)
            s = following
    for index in range(NUM_STACK_LARGE):
        s = np.int64(h[0].stack_large[index])
        h[0].stack_large[index] = 0
        while s != 0:
            following = np.int64(spans(h)[s].next)
            h[0].fact_stack_frees += 1
            free_span_locked(h, p, s)
            s = following


# the stack of a goroutine


@jit
def give_stack(h: Any, g: Any, address: Any, size: Any) -> None:
    """A goroutine that has none gets a stack."""
    row = goroutines(h)[g]
    if row.stack != 0:
        raise Throw("goroutine has a stack already")
    row.stack = address
    row.stack_size = size


@jit
def use_bytes(h: Any, g: Any, nbytes: Any) -> None:
    """The goroutine's frames reach so far down its stack, which holds them; writing them touches memory."""
    row = goroutines(h)[g]
    if row.stack == 0 or nbytes + STACK_GUARD > row.stack_size or nbytes <= 0:
        raise Throw("frames reach beyond the stack")
    row.stack_used = nbytes
    offset = row.stack - (spans(h)[stack_span(h, row.stack)].start_page << PAGE_SHIFT)
    touch_stack_memory(h, stack_span(h, row.stack), offset + row.stack_size - nbytes, nbytes)


@jit
def next_stack_size(h: Any, g: Any) -> Any:
    """What a goroutine's stack grows to; throws at the limit. (newstack)"""
    size = 2 * goroutines(h)[g].stack_size
    if size > MAX_STACK_SIZE:
        raise Throw("stack overflow: goroutine stack exceeds 1000000000-byte limit")
    return size


@jit
def copy_class(size: Any) -> Any:
    """Which price per byte a copy to a stack of a size has: up to 8 KiB 0, up to 32 KiB 1, beyond 2."""
    if size <= 8 << 10:
        return 0
    return 1 if size <= 32 << 10 else 2


@jit
def move_stack(h: Any, g: Any, address: Any, size: Any) -> Any:
    """Copy what a goroutine uses of its stack to another one, which it has from then on; the old one's address.

    (copystack, between stackalloc and stackfree)
    """
    row = goroutines(h)[g]
    old = row.stack
    if old == 0:
        raise Throw("nil stackbase")
    h[0].max_stack_scan += size - row.stack_size
    h[0].fact_copies += 1
    h[0].fact_copied[copy_class(size)] += row.stack_used
    h[0].stack_copies += 1
    h[0].stack_copied += row.stack_used
    row.stack = address
    row.stack_size = size
    use_bytes(h, g, row.stack_used)
    return old


@jit
def copystack(h: Any, p: Any, g: Any, size: Any) -> None:
    """Move a goroutine to a stack of another size. (copystack)"""
    old_size = goroutines(h)[g].stack_size
    old = move_stack(h, g, stackalloc(h, p, size), size)
    stackfree(h, p, old, old_size)


@jit
def fill_stack(h: Any, g: Any) -> None:
    """The goroutine's frames reach as far as its stack allows: the next one makes it grow."""
    use_bytes(h, g, goroutines(h)[g].stack_size - STACK_GUARD)


@jit
def use_stack(h: Any, p: Any, g: Any, nbytes: Any) -> None:
    """The goroutine's frames reach so far down: its stack doubles until they fit, every step at once. (newstack)"""
    while nbytes + STACK_GUARD > goroutines(h)[g].stack_size:
        size = next_stack_size(h, g)
        fill_stack(h, g)
        copystack(h, p, g, size)
    use_bytes(h, g, nbytes)


@jit
def shrink_stack(h: Any, p: Any, g: Any) -> Any:
    """Halve the stack of a goroutine that uses less than a quarter of it; whether it did. (shrinkstack)"""
    row = goroutines(h)[g]
    size = row.stack_size // 2
    if row.stack == 0:
        raise Throw("missing stack in shrinkstack")
    if size < STACK_MIN or row.stack_used + STACK_NOSPLIT >= row.stack_size // 4:
        return False
    copystack(h, p, g, size)
    return True


# what the collector asks


@jit
def scan_stack(h: Any, p: Any, g: Any) -> Any:
    """A collection scans a goroutine's stack on P: bytes of scan work, 0 of a dead one. (mgcmark.go:scanstack)

    It halves a stack of which little is used.
    """
    row = goroutines(h)[g]
    if row.stack_used == 0:
        return np.int64(0)
    used = row.stack_used
    h[0].scanned_stack_size += used
    h[0].scanned_stacks += 1
    shrink_stack(h, p, g)
    return used


@jit
def scannable_stack_bytes(h: Any) -> Any:
    """Bytes of the stacks of all live goroutines. (gcController.maxStackScan)"""
    return h[0].max_stack_scan


@jit
def stack_scan_work(h: Any) -> Any:
    """Bytes that all live goroutines use of their stacks: the scan work of a collection now."""
    work = np.int64(0)
    for g in range(1, h[0].ngs):
        work += goroutines(h)[g].stack_used
    return work


@jit
def gc_compute_starting_stack_size(h: Any) -> None:
    """What goroutines begin with from now on: the mean of the stacks scanned since. (gcComputeStartingStackSize)"""
    size = np.int64(STACK_MIN)
    if h[0].scanned_stacks > 0:
        mean = h[0].scanned_stack_size // h[0].scanned_stacks + STACK_GUARD
        mean = min(mean, np.int64(MAX_STACK_SIZE))
        while size < mean:
            size <<= 1
    h[0].starting_stack_size = size
    h[0].scanned_stack_size = 0
    h[0].scanned_stacks = 0
