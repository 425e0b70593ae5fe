"""Stacks on the clock: what go statements, growth and exits wait for and pay (mirrors newproc1, newstack and goexit0).

The rooms (stack.py, gfree.py) say what happens; here a P does it step by step, taking the runtime's locks: the pool's for a
refill or a release of its cache, mheap.lock inside it for pages of a new span and once for each span given back. A step
that needs no lock is one call of compiled code. Nothing of it is preempted, as on a system stack.

A goroutine made from outside the program has no P: its stack comes from the pools, and takes nobody's time, as its go
statement does not. A P's thread gets its own two stacks when it first wakes, in no time either.

Left out: frames are not followed, a goroutine says how far they reach; what a stack costs to scan; sched.gFree.lock.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import int64, types, void

from sim.engine.clock import after
from sim.go.gfree import come_alive, die, enter_dead, get_dead, keeps_stack, new_row, take_stack
from sim.go.gfree import newproc as newproc_at_once
from sim.go.mallocgc import STEP, pages_without_lock, pay, pay_bytes
from sim.go.mheap import finish_span, free_span_locked, room_is_short
from sim.go.ptime import LOCKED, SCHEDULING, STACK_TIME
from sim.go.pump import SEGMENT
from sim.go.stack import (
    G0_STACK,
    GSIGNAL_STACK,
    MAX_STACK_SIZE,
    STACK_CACHE_SIZE,
    STACK_GUARD,
    STACK_MIN,
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
    use_bytes,
)
from sim.go.state import (
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
from sim.units import Throw, throw

if TYPE_CHECKING:
    import simpy

    from sim.engine.lock import TimedLock
    from sim.go.goroutine import Goroutine
    from sim.go.proc import Proc
    from sim.go.world import World

    Step = Generator[simpy.Event, Any, Any]

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
def stack_cost(h: Any, p: Any) -> Any:
    """Picoseconds of what the stack rooms counted since they were cleared, spans given back to the heap not included."""
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
        h[0].stack_copies += h[0].fact_copies
        h[0].stack_copied += h[0].fact_copied[0] + h[0].fact_copied[1] + h[0].fact_copied[2]
    h[0].fact_meta_pages = 0
    clear_stack_facts(h)
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


@entry(types.UniTuple(int64, 3)(heap_type, int64))
def newproc(h: Any, p: Any) -> Any:
    """A g for a go statement on P: (g, what it still needs, 1 if it is a new one). The table has room for one more."""
    h = bare(h)
    clear_stack_facts(h)
    g = get_dead(h, p)
    if g == 0:
        return new_row(h), np.int64(STACK), np.int64(1)
    if keeps_stack(h, g):
        come_alive(h, g)
        return g, np.int64(DONE), np.int64(0)
    set_old_stack(h, p, g)
    return g, np.int64(STACK), np.int64(0)


@entry(int64(heap_type))
def newproc_outside(h: Any) -> Any:
    """A goroutine made by nobody in the program; 0 if a table must grow first."""
    h = bare(h)
    if room_is_short(h, np.int64(STACK_SPAN_PAGES)):
        return np.int64(0)
    meta = h[0].fact_meta_pages
    g = newproc_at_once(h, np.int64(-1))
    h[0].fact_meta_pages = meta
    return g


@entry(void(heap_type, int64, int64))
def new_thread(h: Any, p: Any, g0: Any) -> None:
    """The stacks of a P's thread: for signals, and its own if the system did not give it one. (allocm, mpreinit)"""
    h = bare(h)
    meta = h[0].fact_meta_pages
    if g0 != 0:
        procs(h)[p].g0_stack = stackalloc(h, p, np.int64(G0_STACK))
    procs(h)[p].gsignal_stack = stackalloc(h, p, np.int64(GSIGNAL_STACK))
    h[0].fact_meta_pages = meta


@entry(types.UniTuple(int64, 2)(heap_type, int64, int64, int64))
def alloc(h: Any, p: Any, g: Any, size: Any) -> Any:
    """A stack for g, as far as no lock is needed: (what it still needs, picoseconds). (stackalloc)"""
    h = bare(h)
    if room_is_short(h, max(size >> PAGE_SHIFT, np.int64(STACK_SPAN_PAGES))):
        return np.int64(ROOM), np.int64(0)
    clear_stack_facts(h)
    small = is_small(size)
    x = cache_take(h, p, stack_order(size)) if small else large_take(h, size)
    if x == 0:
        return np.int64(POOL if small else PAGES), np.int64(0)
    place(h, p, g, x, size)
    return np.int64(DONE), stack_cost(h, p)


@entry(int64(heap_type, int64, int64))
def take_pages(h: Any, p: Any, size: Any) -> Any:
    """Pages of the span that a stack of a size needs, into the row of the P's goroutine: 0 none are needed, 1 it has
    them, 2 mheap.lock is needed first."""
    h = bare(h)
    small = is_small(size)
    if small and not pool_is_short(h, stack_order(size)):
        return np.int64(0)
    g = goroutines(h)[procs(h)[p].g]
    g.spanclass = 0
    g.npages = STACK_SPAN_PAGES if small else size >> PAGE_SHIFT
    return np.int64(1 if pages_without_lock(h, p, g) else 2)


@entry(types.UniTuple(int64, 2)(heap_type, int64, int64, int64, int64))
def finish_alloc(h: Any, p: Any, g: Any, size: Any, fresh: Any) -> Any:
    """A stack for g with the pool's lock held, or of a span of its own; ``fresh``: with pages taken before.

    Picoseconds to have it, which is as long as the pool's lock is held, and to move there.
    """
    h = bare(h)
    clear_stack_facts(h)
    s = np.int64(0)
    if fresh != 0:
        row = goroutines(h)[procs(h)[p].g]
        s = np.int64(row.span)
        finish_span(h, s, row.page, row.npages, 0, SPAN_MANUAL, row.scav)
        row.stage = SEGMENT
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


@entry(int64(heap_type, int64))
def free(h: Any, p: Any) -> Any:
    """Free the stack that the P is to free, or know its span: POOL if the pool's lock is needed first. (stackfree)"""
    h = bare(h)
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


@entry(int64(heap_type, int64))
def release(h: Any, p: Any) -> Any:
    """Give half of the P's cache back, with the pool's lock held, then put the P's old stack there. Picoseconds."""
    h = bare(h)
    clear_stack_facts(h)
    pr = procs(h)[p]
    order = stack_order(pr.old_stack_size)
    pr.old_spans = stackcacherelease(h, p, order)
    cache_put(h, p, order, pr.old_stack)
    pr.old_stack = 0
    return stack_cost(h, p)


@entry(int64(heap_type, int64))
def free_span(h: Any, p: Any) -> Any:
    """Give the first of the P's old spans back, with mheap.lock held: picoseconds. (freeManual)"""
    h = bare(h)
    pr = procs(h)[p]
    s = np.int64(pr.old_spans)
    pr.old_spans = spans(h)[s].next
    free_span_locked(h, p, s)
    cost = pay(h, p, _FREE_SPAN) + pay_times(h, p, _META_TOUCH, h[0].fact_meta_pages)
    h[0].fact_meta_pages = 0
    return cost


@entry(types.UniTuple(int64, 2)(heap_type, int64, int64, int64))
def grow(h: Any, p: Any, g: Any, nbytes: Any) -> Any:
    """The frames of g reach so far: (the size its stack must grow to first, 0 if it holds them, picoseconds)."""
    h = bare(h)
    clear_stack_facts(h)
    if nbytes + STACK_GUARD > goroutines(h)[g].stack_size:
        size = next_stack_size(h, g)
        fill_stack(h, g)
        return size, stack_cost(h, p)
    use_bytes(h, g, nbytes)
    return np.int64(0), stack_cost(h, p)


@entry(int64(heap_type, int64, int64))
def goexit(h: Any, p: Any, g: Any) -> Any:
    """A goroutine ended on P: whether the P has its stack to free. (gdestroy, gfput)"""
    h = bare(h)
    die(h, g)
    old = False
    if not keeps_stack(h, g):
        old = set_old_stack(h, p, g)
    enter_dead(h, p, g)
    return np.int64(old)


class Stacks:
    """What Ps do with stacks, as process steps."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.header = world.heap.header
        self.locks = world.pool_locks

    def check_frames(self, nbytes: int) -> int:
        """Bytes that a goroutine's frames are said to reach; Throw if they cannot."""
        if type(nbytes) is not int or not 0 < nbytes <= MAX_STACK_SIZE:
            throw(f"frames of {nbytes!r} bytes are not an int in [1, {MAX_STACK_SIZE}]")
        return nbytes

    def _rows(self) -> None:
        """Have a row for one more goroutine."""
        self.world.roots.reserve_goroutines(self.world.heap.tables.scalar("ngs") + 1)

    def outside(self) -> int:
        """The row of a goroutine that nobody in the program starts."""
        self._rows()
        g = newproc_outside(self.header)
        if g == 0:
            self.world.heap.make_room(STACK_SPAN_PAGES)
            g = newproc_outside(self.header)
        return int(g)

    def new_thread(self, p: Proc) -> None:
        """The P's thread begins; the first one has its own stack from the system. (allocm)"""
        self.world.heap.make_room(GSIGNAL_STACK >> PAGE_SHIFT)
        new_thread(self.header, p.index, p.index > 0)

    def newproc(self, child: Goroutine, ops: Any, p: Proc) -> Step:
        """Process step: a go statement's g and stack; its own price becomes that of the operation. (newproc1)"""
        self._rows()
        g, todo, new = map(int, newproc(self.header, p.index))
        child.id = g
        ops["arg"][0] = self.world.sched.pay("goroutine_new" if new else "goroutine_reused")
        if todo == DONE:
            return
        if p.fields["old_stack"]:
            yield from self._free(p)
        yield from self._alloc(p, g, STACK_MIN if new else self.world.heap.tables.scalar("starting_stack_size"))

    def use(self, g: Goroutine, nbytes: int, p: Proc) -> Step:
        """Process step: the frames of P's goroutine reach so far; its stack doubles until it holds them. (newstack)"""
        while True:
            size, cost = map(int, grow(self.header, p.index, g.id, nbytes))
            yield from self._spend(p, cost)
            if not size:
                return
            yield from self._alloc(p, g.id, size)
            yield from self._free(p)

    def goexit(self, g: Goroutine, p: Proc) -> Step:
        """Process step: a goroutine ended, its g and stack are free. (goexit0, gfput)"""
        if goexit(self.header, p.index, g.id):
            yield from self._free(p)

    def _spend(self, p: Proc, picoseconds: int) -> Step:
        """Process step: time that stacks take."""
        if picoseconds:
            p.turn_to(STACK_TIME)
            yield after(self.world.env, picoseconds, p.order)
            p.turn_to(SCHEDULING)

    def _alloc(self, p: Proc, g: int, size: int) -> Step:
        """Process step: a stack for a g, its first or one to move to. (stackalloc)"""
        todo, cost = map(int, alloc(self.header, p.index, g, size))
        if todo == ROOM:
            self.world.heap.make_room(max(size >> PAGE_SHIFT, STACK_SPAN_PAGES))
            todo, cost = map(int, alloc(self.header, p.index, g, size))
        if todo == POOL:
            lock = self._pool(size)
            yield from self._acquire(p, lock)
            fresh = yield from self._pages(p, size)
            held, cost = map(int, finish_alloc(self.header, p.index, g, size, int(fresh)))
            yield from self._hold(p, lock, held)
        elif todo == PAGES:
            yield from self._pages(p, size)
            cost = sum(map(int, finish_alloc(self.header, p.index, g, size, 1)))
        yield from self._spend(p, cost)

    def _pages(self, p: Proc, size: int) -> Step:
        """Process step: the pages of a span for stacks of a size; whether any are needed. (allocManual)"""
        todo = int(take_pages(self.header, p.index, size))
        if todo == 2:
            p.turn_to(LOCKED)
            yield from p.heap_lock()
        return todo > 0

    def _free(self, p: Proc) -> Step:
        """Process step: free the stack that the P is to free. (stackfree)"""
        if free(self.header, p.index) == POOL:
            lock = self._pool(int(p.fields["old_stack_size"]))
            yield from self._acquire(p, lock)
            yield from self._hold(p, lock, release(self.header, p.index))
        while p.fields["old_spans"]:
            yield from self._acquire(p, self.world.heap_lock)
            yield from self._hold(p, self.world.heap_lock, free_span(self.header, p.index))

    def _pool(self, size: int) -> TimedLock:
        """The lock of the pool of a size."""
        return self.locks[size.bit_length() - STACK_MIN.bit_length()]

    def _acquire(self, p: Proc, lock: TimedLock) -> Step:
        """Process step: take a lock."""
        p.turn_to(LOCKED)
        yield from lock.acquire(p.index, self.world.now)

    def _hold(self, p: Proc, lock: TimedLock, held: Any) -> Step:
        """Process step: hold it for so long, give it back, and wake who sleeps on it."""
        p.turn_to(LOCKED)
        yield after(self.world.env, int(held), p.order)
        extra = lock.release(p.index, self.world.now) - lock.prices.release
        if extra > 0:
            yield after(self.world.env, extra, p.order)
        p.turn_to(SCHEDULING)
