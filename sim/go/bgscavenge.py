"""The scavenger's goroutine, and everything of scavenging that takes time (mirrors mgcscavenge.go:scavengerState).

The background scavenger works in rounds: quanta of 64 KiB until it has worked for a millisecond, both goals are met or
nothing is left. A round that released something is followed by a sleep, so that it takes 1 % of the CPU time
(mgcscavenge_pacer.py), another by parking until somebody wakes it: the end of sweeping before a cycle (`wake`), or
sysmon soon after a sweep has run out of spans (`ready`). Woken it goes to the global queue, behind the program's own.

One run of pages is one stay on the system stack: the heap lock is taken twice, for real, and in between the pages are in
nobody's hands while the system takes them. Whoever holds the lock pays for it as for a search of the page allocator.

Left out: sysmon itself: it is taken to look every 10 ms, as when it has found nothing to do for a while, even when all Ps
are idle and it would sleep.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import simpy
from numba import int64, types

from sim.engine.clock import WAKE, after, priority, wake
from sim.go.goroutine import Goroutine, SystemStack
from sim.go.mgcscavenge import scavenge_begin, scavenge_end
from sim.go.mgcscavenge_index import index_find
from sim.go.mgcscavenge_pacer import MIN_WORK_TIME, PHYS_PAGE, SleepPacer, should_stop
from sim.go.ptime import LOCKED, SCAVENGING
from sim.go.state import NO_GOAL, heap_type
from sim.jit import bare, entry
from sim.units import MS, NS, throw

if TYPE_CHECKING:
    from sim.go.proc import Proc, Step
    from sim.go.world import World

QUANTUM = 64 << 10  # bytes asked for at a time (scavengeQuantum)
SYSMON_PERIOD = 10 * MS  # between two looks of a sysmon that has backed off (proc.go:sysmon)
_NS_PER_PHYS_PAGE = 10e3  # taken for a quantum's work that took less than a nanosecond


@entry(types.UniTuple(int64, 2)(heap_type, int64))
def find(h: Any, force: Any) -> Any:
    """Where to look next: (chunk index, page in it), -1 for nowhere."""
    return index_find(h, force != 0)


@entry(types.UniTuple(int64, 2)(heap_type, int64, int64, int64, int64))
def begin(h: Any, p: Any, index: Any, search: Any, nbytes: Any) -> Any:
    """The heap lock's first hold for a run: (pages of it, 4 KiB pages of them that memory stands behind)."""
    h = bare(h)
    return scavenge_begin(h, p, index, search, nbytes)


@entry(int64(heap_type, int64))
def end(h: Any, p: Any) -> Any:
    """Its second hold: bytes released."""
    h = bare(h)
    return scavenge_end(h, p)


class Scavenger:
    """The background scavenger of a world. `start` starts its goroutine; it parks until it is first woken."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pacer = SleepPacer()
        self.g: Goroutine | None = None
        self.parked = False  # or asleep
        self.sysmon_wake = False
        self._waking = simpy.Event(world.env)
        self._order = priority(WAKE, len(world.sched.procs))

    def start(self) -> None:
        """Start its goroutine. (mgc.go:gcenable)"""
        if self.g is not None:
            throw("scavenger state is already wired")
        self.g = self.world.go_system(bgscavenge, self, name="bgscavenge")
        self.g.injected = True

    # waking it

    def ready(self) -> None:
        """Have sysmon wake it: the sweep has run out of spans. (scavengerState.ready)"""
        if not self.sysmon_wake:
            self.sysmon_wake = True
            self._await_sysmon()

    def _await_sysmon(self) -> None:
        """sysmon looks at the next multiple of its period."""
        look = after(self.world.env, SYSMON_PERIOD - self.world.now % SYSMON_PERIOD, self._order)
        assert look.callbacks is not None
        look.callbacks.append(self._sysmon)

    def _sysmon(self, _: simpy.Event) -> None:
        """What sysmon does about it: it wakes the scavenger, once that has parked."""
        if self.sysmon_wake:
            self.wake()
        if self.sysmon_wake:
            self._await_sysmon()

    def wake(self) -> None:
        """Wake it if it is parked or asleep: there is work, or other goals. (scavengerState.wake)"""
        if self.parked:
            self.sysmon_wake = False
            self.parked = False
            wake(self.world.env, self._waking, self._order)

    def park(self) -> simpy.Event:
        """What its goroutine yields to park. (scavengerState.park)"""
        self.parked = True
        self._waking = simpy.Event(self.world.env)
        return self._waking

    # its work, each called on its goroutine

    def sleep(self, worked: float) -> Generator[simpy.Event, Any, None]:
        """Sleep after so many nanoseconds of work, or until woken; then set the pace anew. (scavengerState.sleep)"""
        start = self._nanotime()
        waking = self.park()
        timer = after(self.world.env, self.pacer.sleep_time(worked) * NS, self._order)
        assert timer.callbacks is not None
        timer.callbacks.append(lambda _: self.wake() if self._waking is waking else None)
        yield waking
        self.pacer.slept(worked, self._nanotime() - start, len(self.world.sched.procs))

    def run(self) -> Generator[simpy.Event, Any, tuple[int, float]]:
        """One round: (bytes released, nanoseconds worked). (scavengerState.run)"""
        heap = self.world.heap
        released, worked = 0, 0.0
        while worked < MIN_WORK_TIME and not should_stop(heap):
            begun, start = self.world.now, self._nanotime()
            freed = yield from self._scavenge(QUANTUM)
            heap.fields.scavenge_background_time += self.world.now - begun
            worked += (self._nanotime() - start) or _NS_PER_PHYS_PAGE * (freed // PHYS_PAGE)
            released += freed
            if freed < QUANTUM:
                break
        return released, worked

    def free_os_memory(self) -> Generator[simpy.Event, Any, int]:
        """Give back all that is free, ``yield from`` any goroutine; bytes. (mheap.go:runtime_debug_freeOSMemory)

        The collection that debug.FreeOSMemory makes first is the caller's.
        """
        freed: int = yield SystemStack(self.world.env, self._scavenge_all)
        return freed

    def _nanotime(self) -> int:
        return self.world.now // NS

    def _scavenge(self, nbytes: int) -> Generator[simpy.Event, Any, int]:
        """Release nbytes or so in the background's way; less if nothing is left. (pageAlloc.scavenge)"""
        total = 0
        while total < nbytes:
            index, search = map(int, find(self.world.heap.header, 0))
            if index < 0:
                break
            total += yield SystemStack(self.world.env, partial(self._one, index, search, nbytes - total))
        return total

    def _scavenge_all(self, p: Proc) -> Step:
        """Process step: everything, dense chunks too. (mheap.go:scavengeAll)"""
        total = 0
        while True:
            index, search = map(int, find(self.world.heap.header, 1))
            if index < 0:
                return total
            total += yield from self._one(index, search, NO_GOAL - total, p)

    def _one(self, index: int, search: int, nbytes: int, p: Proc) -> Step:
        """Process step: one run of a chunk, on a P; the bytes released. (pageAlloc.scavengeOne)"""
        sched, header = self.world.sched, self.world.heap.header
        yield from self._lock(p)
        npages, backed = map(int, begin(header, p.index, index, search, nbytes))
        yield from self._unlock(p)
        if npages == 0:
            return 0
        p.turn_to(SCAVENGING)
        cost = sched.pay("madvise") + backed * sched.pay("madvise_page")
        cost += sched.pay("tlb_shootdown") if len(sched.procs) > 1 else 0
        yield after(self.world.env, cost, p.order)
        yield from self._lock(p)
        nbytes = int(end(header, p.index))
        yield from self._unlock(p)
        return nbytes

    def _lock(self, p: Proc) -> Step:
        """Process step: take the heap lock."""
        p.turn_to(LOCKED)
        yield from self.world.heap_lock.acquire(p.index, self.world.now)

    def _unlock(self, p: Proc) -> Step:
        """Process step: hold the heap lock for as long as a search takes, then free it."""
        lock = self.world.heap_lock
        yield after(self.world.env, self.world.sched.pay("page_alloc"), p.order)
        extra = lock.release(p.index, self.world.now) - lock.prices.release
        if extra > 0:
            yield after(self.world.env, extra, p.order)


def bgscavenge(g: Goroutine, scavenger: Scavenger) -> Generator[simpy.Event, Any, None]:
    """The body of the background scavenger's goroutine. (mgcscavenge.go:bgscavenge)"""
    yield scavenger.park()
    while True:
        released, worked = yield from scavenger.run()
        if released == 0:
            yield scavenger.park()
            continue
        g.world.heap.fields.scav_released_bg += released
        yield from scavenger.sleep(worked)
