"""Stacks on the clock: what go statements, growth and exits wait for and pay (mirrors newproc1, newstack and goexit0).

The rooms (stack.py, gfree.py) say what happens; here a P does it step by step, taking the runtime's locks: the pool's
for a refill or a release of its cache, mheap.lock inside it for pages of a new span and once for each span given back.
A step that needs no lock is one call of compiled code. Nothing of it is preempted, as on a system stack.

A goroutine made from outside the program has no P: its stack comes from the pools, and takes nobody's time, as its go
statement does not. A P's thread gets its own two stacks when it first wakes, in no time either.

Left out: frames are not followed, a goroutine says how far they reach; what a stack costs to scan; sched.gFree.lock.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from sim.engine.clock import after
from sim.go import stackcost as kernel
from sim.go.ptime import LOCKED, SCHEDULING, STACK_TIME
from sim.go.stack import G0_STACK, GSIGNAL_STACK, MAX_STACK_SIZE, STACK_MIN, STACK_SPAN_PAGES
from sim.go.state import PAGE_SHIFT
from sim.units import throw

if TYPE_CHECKING:
    import simpy

    from sim.engine.lock import TimedLock
    from sim.go.goroutine import Goroutine
    from sim.go.proc import Proc
    from sim.go.world import World

    Step = Generator[simpy.Event, Any, Any]


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

    def _call(self, what: int, p: int = -1, g: int = 0, size: int = 0, more: bool = False) -> tuple[int, int, int]:
        """One step of compiled code."""
        a, b, c = kernel.call(self.header, what, p, g, size, more)
        return int(a), int(b), int(c)

    def _at_once(self, p: int, g: int, size: int) -> int:
        """The address of a stack outside the program's time, for g or for a P's thread."""
        address = int(kernel.alloc_at_once(self.header, p, g, size))
        if not address:
            self.world.heap.make_room(STACK_SPAN_PAGES)
            address = int(kernel.alloc_at_once(self.header, p, g, size))
        return address

    def _starting_size(self) -> int:
        """Bytes a goroutine begins with whose g is not new."""
        return self.world.heap.tables.scalar("starting_stack_size")

    def _rows(self) -> None:
        """Have a row for one more goroutine."""
        self.world.roots.reserve_goroutines(self.world.heap.tables.scalar("ngs") + 1)

    def outside(self) -> int:
        """The row of a goroutine that nobody in the program starts."""
        self._rows()
        g, todo, new = self._call(kernel.NEWPROC)
        if todo != kernel.DONE:
            self._at_once(-1, g, STACK_MIN if new else self._starting_size())
        return g

    def new_thread(self, p: Proc) -> None:
        """The P's thread begins; the first one has its own stack from the system. (allocm)"""
        if p.index > 0:
            p.fields["g0_stack"] = self._at_once(p.index, 0, G0_STACK)
        p.fields["gsignal_stack"] = self._at_once(p.index, 0, GSIGNAL_STACK)

    def newproc(self, child: Goroutine, ops: Any, p: Proc) -> Step:
        """Process step: a go statement's g and stack; its own price becomes that of the operation. (newproc1)"""
        self._rows()
        g, todo, new = self._call(kernel.NEWPROC, p.index)
        child.id = g
        ops["arg"][0] = self.world.sched.pay("goroutine_new" if new else "goroutine_reused")
        if todo == kernel.DONE:
            return
        if p.fields["old_stack"]:
            yield from self._free(p)
        yield from self._alloc(p, g, STACK_MIN if new else self._starting_size())

    def use(self, g: Goroutine, nbytes: int, p: Proc) -> Step:
        """Process step: the frames of P's goroutine reach so far; its stack doubles until it holds them. (newstack)"""
        while True:
            size, cost, _ = self._call(kernel.GROW, p.index, g.id, nbytes)
            yield from self._spend(p, cost)
            if not size:
                return
            yield from self._alloc(p, g.id, size)
            yield from self._free(p)

    def goexit(self, g: Goroutine, p: Proc) -> Step:
        """Process step: a goroutine ended, its g and stack are free. (goexit0, gfput)"""
        old, _, _ = self._call(kernel.GOEXIT, p.index, g.id)
        if old:
            yield from self._free(p)

    def _spend(self, p: Proc, picoseconds: int) -> Step:
        """Process step: time that stacks take."""
        if picoseconds:
            p.turn_to(STACK_TIME)
            yield after(self.world.env, picoseconds, p.order)
            p.turn_to(SCHEDULING)

    def _alloc(self, p: Proc, g: int, size: int) -> Step:
        """Process step: a stack for a g, its first or one to move to. (stackalloc)"""
        todo, cost, _ = self._call(kernel.ALLOC, p.index, g, size)
        if todo == kernel.ROOM:
            self.world.heap.make_room(max(size >> PAGE_SHIFT, STACK_SPAN_PAGES))
            todo, cost, _ = self._call(kernel.ALLOC, p.index, g, size)
        if todo == kernel.POOL:
            lock = self._pool(size)
            yield from self._acquire(p, lock)
            fresh = yield from self._pages(p, size)
            held, cost, _ = self._call(kernel.FINISH_ALLOC, p.index, g, size, fresh)
            yield from self._hold(p, lock, held)
        elif todo == kernel.PAGES:
            yield from self._pages(p, size)
            cost = sum(self._call(kernel.FINISH_ALLOC, p.index, g, size, True))
        yield from self._spend(p, cost)

    def _pages(self, p: Proc, size: int) -> Step:
        """Process step: the pages of a span for stacks of a size; whether any are needed. (allocManual)"""
        todo, _, _ = self._call(kernel.TAKE_PAGES, p.index, size=size)
        if todo == 2:
            p.turn_to(LOCKED)
            yield from p.heap_lock()
        return todo > 0

    def _free(self, p: Proc) -> Step:
        """Process step: free the stack that the P is to free. (stackfree)"""
        todo, _, _ = self._call(kernel.FREE, p.index)
        if todo == kernel.POOL:
            lock = self._pool(int(p.fields["old_stack_size"]))
            yield from self._acquire(p, lock)
            held, _, _ = self._call(kernel.RELEASE, p.index)
            yield from self._hold(p, lock, held)
        while p.fields["old_spans"]:
            yield from self._acquire(p, self.world.heap_lock)
            held, _, _ = self._call(kernel.FREE_SPAN_STEP, p.index)
            yield from self._hold(p, self.world.heap_lock, held)

    def _pool(self, size: int) -> TimedLock:
        """The lock of the pool of a size."""
        return self.locks[size.bit_length() - STACK_MIN.bit_length()]

    def _acquire(self, p: Proc, lock: TimedLock) -> Step:
        """Process step: take a lock."""
        p.turn_to(LOCKED)
        yield from lock.acquire(p.index, self.world.now)

    def _hold(self, p: Proc, lock: TimedLock, held: int) -> Step:
        """Process step: hold it for so long, give it back, and wake who sleeps on it."""
        p.turn_to(LOCKED)
        yield after(self.world.env, held, p.order)
        extra = lock.release(p.index, self.world.now) - lock.prices.release
        if extra > 0:
            yield after(self.world.env, extra, p.order)
        p.turn_to(SCHEDULING)
