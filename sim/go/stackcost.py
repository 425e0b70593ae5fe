"""What stacks cost: the rooms' steps between two locks, with their prices (compiled; newstack.py takes the locks).

The rooms count (the ``fact_`` scalars), `stack_cost` multiplies by prices. A collector that scans and shrinks stacks,
or gives spans back, pays the same way: `clear_stack_facts`, its steps, `stack_cost` and `stack_frees_cost`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, types

from sim.go.gfree import come_alive, die, enter_dead, get_dead, keeps_stack, new_row, take_stack
from sim.go.mallocspan import pages_without_lock
from sim.go.mheap import finish_span, free_span_locked, room_is_short
from sim.go.pay import STEP, pay, pay_bytes
from sim.go.stack import (
    STACK_CACHE_SIZE,
    STACK_GUARD,
    STACK_SPAN_PAGES,
    cache_put,
    cache_take,
    fill_stack,
    give_stack,
    is_small,
    large_free,
    large_from,
    large_take,
    move_stack,
    next_stack_size,
    pool_is_short,
    stack_order,
    stackalloc,
    stackcacherefill,
    stackcacherelease,
    stackfree,
    use_bytes,
)
from sim.go.state import (
    NO_PAGE,
    NUM_CAUSES,
    PAGE_SHIFT,
    SPAN_MANUAL,
    goroutines,
    heap_type,
    mcaches,
    procs,
    spans,
)
from sim.jit import bare, entry, jit
from sim.units import Throw

# what a step still needs
DONE = 0
POOL = 1  # the pool's lock
PAGES = 2  # pages for a span of its own
ROOM = 3  # a table must grow
STACK = 4  # a stack

_STACK_POOL = STEP["stack_pool"]
_STACK_SPAN = STEP["stack_span"]
_STACK_COPY = STEP["stack_copy"]
_FREE_SPAN = STEP["free_span"]
_FIRST_TOUCH = STEP["first_touch"]
_HUGE_TOUCH = STEP["huge_touch"]
_META_TOUCH = STEP["meta_touch"]


@jit
def clear_stack_facts(h: Any) -> None:
    """Forget what was counted so far: somebody else's, who paid nothing for it."""
    h[0].fact_pool_locks = 0
    h[0].fact_stack_spans = 0
    h[0].fact_stack_frees = 0
    h[0].fact_stack_touched = 0
    h[0].fact_stack_huge = 0
    h[0].fact_copies = 0
    for i in range(3):
        h[0].fact_copied[i] = 0


@jit
def pay_times(h: Any, p: Any, row: Any, times: Any) -> Any:
    """A price so many times; picoseconds."""
    cost = np.int64(0)
    for _ in range(times):
        cost += pay(h, p, row)
    return cost


@jit
def stack_frees_cost(h: Any, p: Any) -> Any:
    """Picoseconds of the spans of stacks given back to the heap since that was asked or cleared: mheap.lock is held."""
    cost = pay_times(h, p, _FREE_SPAN, h[0].fact_stack_frees)
    h[0].fact_stack_frees = 0
    return cost


@jit
def stack_cost(h: Any, p: Any) -> Any:
    """Picoseconds of all else that the rooms of stacks counted since that was asked or cleared."""
    cost = pay_times(h, p, _STACK_POOL, h[0].fact_pool_locks)
    cost += pay_times(h, p, _STACK_SPAN, h[0].fact_stack_spans)
    cost += pay_times(h, p, _FIRST_TOUCH, h[0].fact_stack_touched)
    cost += pay_times(h, p, _HUGE_TOUCH, h[0].fact_stack_huge)
    cost += pay_times(h, p, _META_TOUCH, h[0].fact_meta_pages)
    cost += pay_times(h, p, _STACK_COPY, h[0].fact_copies)
    if h[0].fact_copies > 0:
        cost += pay_bytes(h, p, h[0].fact_copied[0], h[0].stack_copy_small)
        cost += pay_bytes(h, p, h[0].fact_copied[1], h[0].stack_copy_middle)
        cost += pay_bytes(h, p, h[0].fact_copied[2], h[0].stack_copy_large)
    frees = h[0].fact_stack_frees
    clear_stack_facts(h)
    h[0].fact_stack_frees = frees
    h[0].fact_meta_pages = 0
    return cost


@jit
def place(h: Any, p: Any, g: Any, address: Any, size: Any) -> None:
    """A goroutine gets a new stack: its first, with which it comes to life, or one that it moves to."""
    row = goroutines(h)[g]
    if row.stack == 0:
        give_stack(h, g, address, size)
        come_alive(h, g)
        return
    pr = procs(h)[p]
    if pr.old_stack != 0:
        raise Throw("a P frees two stacks at once")
    pr.old_stack_size = row.stack_size
    pr.old_stack = move_stack(h, g, address, size)


@jit
def set_old_stack(h: Any, p: Any, g: Any) -> Any:
    """A dead g's stack, if it has one, is the P's to free; whether there is something to do."""
    address, size = take_stack(h, g)
    procs(h)[p].old_stack = address
    procs(h)[p].old_stack_size = size
    return address != 0


@jit
def newproc(h: Any, p: Any) -> Any:
    """A g for a go statement on P: (g, what it still needs, 1 if it is a new one). The table has room for one more.

    P -1: for one from outside.
    """
    clear_stack_facts(h)
    g = get_dead(h, p)
    if g == 0:
        return new_row(h), np.int64(STACK), np.int64(1)
    if keeps_stack(h, g):
        come_alive(h, g)
        return g, np.int64(DONE), np.int64(0)
    if p >= 0:
        set_old_stack(h, p, g)
    else:
        address, size = take_stack(h, g)
        if address != 0:
            stackfree(h, p, address, size)
    return g, np.int64(STACK), np.int64(0)


@jit
def alloc(h: Any, p: Any, g: Any, size: Any) -> Any:
    """A stack for g, as far as no lock is needed: (what it still needs, picoseconds). (stackalloc)"""
    if room_is_short(h, max(size >> PAGE_SHIFT, np.int64(STACK_SPAN_PAGES))):
        return np.int64(ROOM), np.int64(0)
    clear_stack_facts(h)
    small = is_small(size)
    x = cache_take(h, p, stack_order(size)) if small else large_take(h, size)
    if x == 0:
        return np.int64(POOL if small else PAGES), np.int64(0)
    place(h, p, g, x, size)
    return np.int64(DONE), stack_cost(h, p)


@jit
def take_pages(h: Any, p: Any, size: Any) -> Any:
    """Pages of the span that a stack of a size needs, into the row of the P's goroutine: 0 none are needed, 1 it has
    them, 2 mheap.lock is needed first."""
    small = is_small(size)
    if small and not pool_is_short(h, stack_order(size)):
        return np.int64(0)
    g = goroutines(h)[procs(h)[p].g]
    g.spanclass = 0
    g.npages = STACK_SPAN_PAGES if small else size >> PAGE_SHIFT
    return np.int64(1 if pages_without_lock(h, p, g) else 2)


@jit
def finish_alloc(h: Any, p: Any, g: Any, size: Any, fresh: Any) -> Any:
    """A stack for g with the pool's lock held, or of a span of its own; ``fresh``: with pages taken before.

    Picoseconds to have it, which is as long as the pool's lock is held, and to move there.
    """
    clear_stack_facts(h)
    s = np.int64(0)
    if fresh != 0:
        row = goroutines(h)[procs(h)[p].g]
        s = np.int64(row.span)
        finish_span(h, s, row.page, row.npages, 0, SPAN_MANUAL, row.scav)
        row.page = NO_PAGE  # they are the span's now
        for cause in range(NUM_CAUSES):
            row.spent[cause] = 0  # the time went to the stack, no allocation of the goroutine's
    if is_small(size):
        stackcacherefill(h, p, stack_order(size), s)
        x = cache_take(h, p, stack_order(size))
    else:
        x = large_from(h, s, size)
    held = stack_cost(h, p)
    place(h, p, g, x, size)
    return held, stack_cost(h, p)


@jit
def free(h: Any, p: Any) -> Any:
    """Free the stack that the P is to free, or know its span: POOL if the pool's lock is needed first. (stackfree)"""
    pr = procs(h)[p]
    if is_small(pr.old_stack_size):
        order = stack_order(pr.old_stack_size)
        if mcaches(h)[p].stackcache_size[order] >= STACK_CACHE_SIZE:
            return np.int64(POOL)
        cache_put(h, p, order, pr.old_stack)
    else:
        pr.old_spans = large_free(h, pr.old_stack)
    pr.old_stack = 0
    return np.int64(DONE)


@jit
def release(h: Any, p: Any) -> Any:
    """Give half of the P's cache back, with the pool's lock held, then put the P's old stack there. Picoseconds."""
    clear_stack_facts(h)
    pr = procs(h)[p]
    order = stack_order(pr.old_stack_size)
    pr.old_spans = stackcacherelease(h, p, order)
    cache_put(h, p, order, pr.old_stack)
    pr.old_stack = 0
    return stack_cost(h, p)


@jit
def free_span(h: Any, p: Any) -> Any:
    """Give the first of the P's old spans back, with mheap.lock held: picoseconds. (freeManual)"""
    pr = procs(h)[p]
    s = np.int64(pr.old_spans)
    pr.old_spans = spans(h)[s].next
    free_span_locked(h, p, s)
    cost = pay(h, p, _FREE_SPAN) + pay_times(h, p, _META_TOUCH, h[0].fact_meta_pages)
    h[0].fact_meta_pages = 0
    return cost


@jit
def grow(h: Any, p: Any, g: Any, nbytes: Any) -> Any:
    """The frames of g reach so far: (the size its stack must grow to first, 0 if it holds them, picoseconds)."""
    clear_stack_facts(h)
    if nbytes + STACK_GUARD > goroutines(h)[g].stack_size:
        size = next_stack_size(h, g)
        fill_stack(h, g)
        return size, stack_cost(h, p)
    use_bytes(h, g, nbytes)
    return np.int64(0), stack_cost(h, p)


@jit
def goexit(h: Any, p: Any, g: Any) -> Any:
    """A goroutine ended on P: whether the P has its stack to free. (gdestroy, gfput)"""
    die(h, g)
    old = False
    if not keeps_stack(h, g):
        old = set_old_stack(h, p, g)
    enter_dead(h, p, g)
    return np.int64(old)


# what `call` does
NEWPROC, ALLOC, TAKE_PAGES, FINISH_ALLOC, FREE, RELEASE, FREE_SPAN_STEP, GROW, GOEXIT = range(9)


@entry(types.UniTuple(int64, 3)(heap_type, int64, int64, int64, int64, int64))
def call(h: Any, what: Any, p: Any, g: Any, size: Any, more: Any) -> Any:
    """Do one of the steps above; what it returns, and 0 for the rest.

    One entry for all, and none of it asks the heap for a span at once: numba optimizes whatever a function reaches, again
    for each function on the way.
    """
    h = bare(h)
    zero = np.int64(0)
    if what == NEWPROC:
        return newproc(h, p)
    if what == ALLOC:
        todo, cost = alloc(h, p, g, size)
        return todo, cost, zero
    if what == TAKE_PAGES:
        return take_pages(h, p, size), zero, zero
    if what == FINISH_ALLOC:
        held, cost = finish_alloc(h, p, g, size, more)
        return held, cost, zero
    if what == FREE:
        return free(h, p), zero, zero
    if what == RELEASE:
        return release(h, p), zero, zero
    if what == FREE_SPAN_STEP:
        return free_span(h, p), zero, zero
    if what == GROW:
        larger, cost = grow(h, p, g, size)
        return larger, cost, zero
    return goexit(h, p, g), zero, zero


@entry(int64(heap_type, int64, int64, int64))
def alloc_at_once(h: Any, p: Any, g: Any, size: Any) -> Any:
    """A stack outside the program's time, for goroutine g or, if that is 0, for a thread: its address; 0 if a table must
    grow first. (malg)"""
    h = bare(h)
    if room_is_short(h, max(size >> PAGE_SHIFT, np.int64(STACK_SPAN_PAGES))):
        return np.int64(0)
    meta = h[0].fact_meta_pages
    x = stackalloc(h, p, size)
    if g != 0:
        place(h, p, g, x, size)
    h[0].fact_meta_pages = meta
    return x
