"""What all Ps share: the global queue, idle Ps, the machine's CPUs, the pump (mirrors proc.go); stw.py stops them.

Nobody is woken while somebody searches (`Sched.wake_p`); who goes idle last is woken first. Who wakes a P pays for the
system call, by how long it has worked since it was in the system; the P runs when its thread does, by how long that slept.

The pump runs whenever a P's turn comes before the next event of the world (`Driver`). With more Ps than CPUs a P's
thread waits for one in line (`Cpus`).

Left out: as proc.py says.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import simpy

from sim.engine.clock import LOCK, OWNERS, RUN, after, now, wake
from sim.go import pump as kernel
from sim.go.goroutine import Goroutine
from sim.go.proc import Proc, Step
from sim.go.ptime import NO_CPU, SCHEDULING
from sim.go.pumpcalls import cut
from sim.go.stw import Stopping
from sim.metrics.histogram import Histogram
from sim.units import MS

if TYPE_CHECKING:
    from sim.go.world import World

# how long Linux lets a thread run while others wait (kernel/sched/fair.c: base slice, 8 CPUs or more)
OS_SLICE = 3 * MS


class Driver:
    """Runs the pump whenever a P's turn comes before the next event of the world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.env = world.env
        self.header = world.heap.header
        self.times = world.heap.arrays["p_time"]
        self.procs: list[Proc] = []
        self.events = 0
        self.env.drive = self.drive

    def enter(self, p: Proc, _: simpy.Event | None = None) -> None:
        """Put a P into the pump from now on."""
        time = now(self.env)
        self.times[p.index] = time
        self.env.turn = min(self.env.turn, (time, p.order))

    def rearm(self) -> None:
        """A P's turn has moved forward (a compute was cut)."""
        self._next(*map(int, kernel.next_turn(self.header)))

    def _next(self, turn: int, time: int) -> None:
        """The pump's next turn is this one. (turns.py)"""
        n = len(self.procs)
        self.env.turn = (time, RUN * OWNERS + turn if turn <= n else LOCK * OWNERS + turn - n - 1)

    def drive(self) -> None:
        """Run the pump up to the next event of the world, or until a P needs Python: it goes on at once."""
        self.events += 1
        answer = kernel.pump(self.header, *self.env.limit())
        if type(answer[0]) is not int:  # numpy integers in plain mode
            answer = tuple(map(int, answer))
        reason, index, time, next_index, next_time = answer
        self._next(next_index, next_time)
        if reason == kernel.STAY:
            return
        if reason == kernel.COLLECTOR:
            gc = self.world.gc
            after(self.env, time - now(self.env), gc.order).callbacks.append(gc.turn)
            return
        if reason == kernel.GRANTED:
            self.env.fire(self.world.lock_granted(index), time, None)
            return
        p = self.procs[index]
        if reason == kernel.OP_EVENT:
            after(self.env, time - now(self.env), p.order).callbacks.append(partial(self.enter, p))
        else:
            assert p.back is not None
            self.env.fire(p.back, time, reason)


class Cpus:
    """The machine's CPUs, for more Ps than CPUs: a thread runs for a slice, then the next in line gets the CPU.

    Threads whose slices end at one instant line up as they got their CPUs, else low numbers would always be first.
    """

    def __init__(self, world: World, count: int) -> None:
        self.world = world
        self.free = count
        self.waiting: list[tuple[int, int, int, Proc, simpy.Event]] = []  # a heap: since when, its last grant, which P
        self._grants = 0

    def acquire(self, p: Proc) -> Step:
        """Process step: get a CPU; taking over one from another thread costs a switch."""
        env = self.world.env
        if self.free > 0:
            self.free -= 1
            self._grant(p)
        else:
            event = simpy.Event(env)
            heappush(self.waiting, (self.world.now, p.cpu_grant, p.index, p, event))
            self.world.heap.fields.cpu_waiters = len(self.waiting)
            self._hurry()
            p.turn_to(NO_CPU)
            yield event
            p.turn_to(SCHEDULING)
            yield after(env, self.world.sched.pay("os_switch"), p.order)
        p.turn_to(SCHEDULING)
        p.fields["cpu_end"] = self.world.now + OS_SLICE

    def _grant(self, p: Proc) -> None:
        """Note who got a CPU last."""
        self._grants += 1
        p.cpu_grant = self._grants

    def release(self, p: Proc) -> None:
        """Give the CPU to the next in line."""
        if not self.waiting:
            self.free += 1
            return
        _, _, _, heir, event = heappop(self.waiting)
        self._grant(heir)
        self.world.heap.fields.cpu_waiters = len(self.waiting)
        wake(self.world.env, event, heir.order)

    def _hurry(self) -> None:
        """Computes of threads whose slice is over, or ends first, end then; mark workers look up."""
        header = self.world.heap.header
        for p in self.world.sched.procs:
            if p.wakeup is None:
                cut(header, p.index, max(self.world.now, int(p.fields["cpu_end"])))
        self.world.gc.workers.hurry()
        self.world.sched.driver.rearm()


class Sched(Stopping):
    """The global scheduler: queues, idle Ps, and stopping the world. (runtime2.go:schedt)"""

    def __init__(self, world: World, cpus: int) -> None:
        super().__init__(world, Driver(world), Cpus(world, cpus))
        self.queue: deque[Goroutine] = deque()
        self.created = self.alive = 0
        self.spinning = 0  # Ps that look for work
        self.limiter_due = 0  # when the GC CPU limiter is to be looked after
        self.keeps_stopped = world.heap.facts.stop_keeps_goroutine
        self.latencies = Histogram()  # from runnable to running
        self._last_running: tuple[int, Proc | None] = (-1, None)

    def start(self, nprocs: int) -> None:
        """Make the Ps, all idle."""
        self.procs.extend(Proc(self.world, index) for index in range(nprocs))
        self.driver.procs = self.procs

    # prices and goroutines

    def note_alive(self, counted: bool) -> None:
        """A goroutine came to life; the runtime's own are not counted."""
        self.created += counted
        self.alive += counted

    def note_dead(self, g: Goroutine) -> None:
        """A goroutine ended."""
        self.alive -= not g.system
        self.world.roots.release(g)

    # runnable goroutines

    def runnable(self) -> int:
        """Goroutines that wait for a P."""
        return len(self.queue) + sum(len(p.runq) + (p.runnext is not None) for p in self.procs)

    def note_running(self, p: Proc) -> None:
        """A goroutine's Python code runs on this P now: what it readies at this instant goes to its queue."""
        self._last_running = (self.world.now, p)

    def running(self) -> Proc | None:
        """The P whose goroutine's code ran last at this very instant."""
        time, p = self._last_running
        return p if time == self.world.now else None

    def _queued(self, g: Goroutine, marking: bool = False) -> None:
        """A goroutine is runnable from now on; ``marking``: on the queue of a P that marks."""
        g.queued = self.world.now
        g.queued_marking = marking

    def ready(self, g: Goroutine) -> None:
        """A goroutine is runnable: runnext of the P that readied it, else of an idle P, else the global queue. (ready)"""
        self._queued(g)
        p = self.running()
        if p is not None:
            p.put(g, True)
        else:
            self.queue.append(g)
        self.wake_p(p)

    def ready_global(self, g: Goroutine, by: Proc | None = None) -> None:
        """A goroutine goes to the end of the global queue; ``by``: the P it was taken off. (goschedImpl, injectglist)"""
        self._queued(g)
        self.queue.append(g)
        if by is None or self.world.heap.facts.gosched_wakes:
            self.wake_p(by)

    def ready_on(self, p: Proc, g: Goroutine, to_next: bool = False) -> None:
        """A goroutine is runnable, at the end of the queue of a P that marks, or next on it."""
        self._queued(g, marking=True)
        p.put(g, to_next)
        self.wake_p()

    def requeue_stopped(self, p: Proc, g: Goroutine) -> None:
        """A goroutine stopped with the world: the next on its P, before go1.27 the last of all. (goschedImpl)"""
        if not self.keeps_stopped:
            self.ready_global(g, p)
            return
        self._queued(g)
        p.put(g, True)

    def wake_p(self, by: Proc | None = None) -> None:
        """Wake an idle P to look for work, unless one is looking already; the call takes ``by`` time. (wakep, startm)"""
        if self.stopping or not self.idle or self.spinning:
            return
        p = self.idle.pop()
        prices = self.world.prices.lock
        call, latency = prices.waking(self.world.now - p.asleep_since, 0 if by is None else by.worked())
        if by is not None:
            by.debt += call
        p.spinning = True
        self.spinning = 1
        assert p.wakeup is not None
        longer = call + latency - prices.futex_wake - prices.wake_latency  # than a thread of the price's sleep
        wake(self.world.env, p.wakeup, p.order, None, max(self.pay("wake_p") + longer, 0))
        p.wakeup = None
