"""Stopping the world, waiting for every P, and letting them go on (mirrors proc.go: stopTheWorldWithSema, forEachP, ...).

Who stops the world holds sched.lock while it asks: a system call for every P that runs a goroutine or a mark worker, one
after the other, sends a signal. Ps without work count as stopped. All others stop at their next safepoint: computes and
assists in progress there and then (function prologues, and the signal), what allocates at the end of its segment
(pump.py), a mark worker at once. Each gives itself up under sched.lock. Who comes for that sooner than its own signal,
which finds the lock taken until then and sleeps, looks again when the signal interrupts its sleep; from then on it polls
and sleeps as long as others are signalled. The last one wakes the stopper, which sleeps. `for_each_p` goes the same way,
but each P goes on at once when it has been there.

What a call that signals or wakes takes depends on how long its thread has worked since it was in the system, and how soon
the other thread runs on how long it has slept (costs.py:LockPrices).

When the world goes on its starter wakes the Ps that have something to do one by one, at the price of a call each, and at
the end one of the others to look around. Each runs when its thread does. Where the version says so, Ps without work are
given mark workers first.

Stops exclude each other (worldsema): who waits for that holds on to its P, but comes to safepoints for others. Stops from
outside the program (``by`` is None) take no time of their own: nobody is signalled or woken for them.

Left out: that the request is repeated after 100 us, loops without a call (only the signal stops those, a few microseconds
later), threads in system calls, and netpoll of a world that goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import simpy

from sim.engine.clock import RUN, after, priority, wake
from sim.go.ptime import IDLE, NO_CPU, SCHEDULING, STOPPED, SYSTEM
from sim.go.pumpcalls import preempt_all
from sim.units import throw

if TYPE_CHECKING:
    from sim.go.proc import Proc, Step
    from sim.go.sched import Cpus, Driver
    from sim.go.world import World

_UNSIGNALLED = (IDLE, STOPPED, SCHEDULING, NO_CPU)  # no goroutine runs, or the signal interrupts no CPU


class Stopping:
    """What stops the Ps of a world. ``stopping``: every P is to stop, or has. ``barring``: Ps `for_each_p` waits for."""

    def __init__(self, world: World, driver: Driver, cpus: Cpus) -> None:
        self.world = world
        self.driver = driver
        self.cpus = cpus
        self.lock = world.sched_lock
        self.procs: list[Proc] = []
        self.idle: list[Proc] = []  # the last one to go idle is woken first
        self.stopping = False
        self.barring = 0
        self._holder: object = None  # who has worldsema: a P, or this for the outside
        self._releases = False  # the end of the stop gives it back
        self._changed = simpy.Event(world.env)  # for those who wait for worldsema
        self._by: Proc | None = None  # who stops the world or waits at a barrier
        self._note: simpy.Event | None = None  # what it sleeps on, once it does
        self._asleep_at = 0
        self._stopped = 0
        self._signalled: dict[int, int] = {}  # when each P that is sent a signal has had it

    def pay(self, step: str) -> int:
        """A price of the scheduler: its mean, as it is now."""
        return self.world.step_means[step]

    def wake_p(self, by: Proc | None = None) -> None:
        """Wake an idle P to look for work (sched.py)."""
        raise NotImplementedError

    # worldsema

    def acquire_world(self, by: Proc | None) -> Step:
        """Process step: be the only one who may stop the world. (semacquire of worldsema)"""
        while self._holder is not None:
            if by is None:
                yield self._changed
                continue
            if not self.stopping and not by.fields["barrier"]:
                self.cpus.release(by)
                yield self._changed
                yield from self.cpus.acquire(by)
            yield from self.at_safepoint(by, True)
            by.turn_to(SYSTEM)
        self._holder = self if by is None else by

    def release_world(self) -> None:
        """Somebody else may."""
        self._holder = None
        self._tell()

    def _tell(self) -> None:
        """Those who wait for worldsema look again."""
        changed, self._changed = self._changed, simpy.Event(self.world.env)
        wake(self.world.env, changed, priority(RUN, len(self.procs)))

    # safepoints

    def at_safepoint(self, p: Proc, held: bool = False) -> Step:
        """Process step: a P is at a safepoint: it does what others wait for. ``held``: as in `Proc.stand`."""
        while self.stopping or p.fields["barrier"]:
            if self.stopping:
                yield from p.stand(held)
            else:
                yield from self._pass_barrier(p)

    def _pass_barrier(self, p: Proc) -> Step:
        """Process step: what `for_each_p` waits for. (runSafePointFn)"""
        p.turn_to(SCHEDULING)
        p.fields["barrier"] = 0
        yield from self._take_lock(p)
        self.barring -= 1
        yield from self._give_back(p)

    def report_stopped(self, p: Proc) -> Step:
        """Process step: a P has come to its safepoint and gives itself up. (gcstopm)"""
        if self._by is None:
            self._stopped += 1
            self.check_stopped()
            return
        yield from self._take_lock(p)
        self._stopped += 1
        yield from self._give_back(p)

    def _take_lock(self, p: Proc) -> Step:
        """Process step: take sched.lock, not before the signal that is sent under it has been handled."""
        early = self._signalled.pop(p.index, 0) - self.world.now
        if early > 0:
            yield after(self.world.env, early, p.order)
        taking = yield from self.lock.acquire(p.index, self.world.now)
        yield after(self.world.env, taking, p.order)

    def _give_back(self, p: Proc) -> Step:
        """Process step: the last one wakes who waits, and sched.lock is free again."""
        yield after(self.world.env, self.check_stopped(p), p.order)
        yield after(self.world.env, self.lock.release(p.index, self.world.now), p.order)

    def check_stopped(self, p: Proc | None = None) -> int:
        """Wake who waits for every P if none is missing, from a P; picoseconds of the call. (notewakeup)"""
        if self._note is None or self._note.triggered or not self._are_all_there():
            return 0
        env = self.world.env
        if self._by is None:
            wake(env, self._note, priority(RUN, len(self.procs)))
            return 0
        falling_asleep = self._asleep_at - self.world.now
        if falling_asleep > 0:  # the note has changed when it gets there
            wake(env, self._note, self._by.order, None, falling_asleep)
            return 0
        call, latency = self.world.prices.lock.waking(-falling_asleep, 0 if p is None else p.worked())
        wake(env, self._note, self._by.order, None, call + latency)
        return call

    def _are_all_there(self) -> bool:
        own = int(self._by is not None)
        return self._stopped + len(self.idle) + own == len(self.procs) if self.stopping else self.barring == 0

    # stopping, and waiting for all

    def stop_the_world(self, by: Proc | None = None) -> Step:
        """Process step: stop every P at its next safepoint; on return all are. (stopTheWorldWithSema)

        ``by``: the P this step runs on counts as stopped at once. Who has not taken worldsema does so for the stop.
        """
        if by is None or self._holder is not by:
            yield from self.acquire_world(by)
            self._releases = True
        if by is not None:
            by.turn_to(STOPPED)
            yield from self._take_lock(by)
        self._by = by
        self._stopped = 0
        self.stopping = True
        self.world.heap.fields.stop = 1
        signals = self._preempt_all(by)
        self.world.gc.workers.stop()
        yield from self._await_all(by, signals)
        self._note = None
        if by is not None:
            by.turn_to(STOPPED)

    def for_each_p(self, by: Proc, idle: Step | None = None) -> Step:
        """Process step of who has worldsema: until every P with a goroutine has been at a safepoint. (forEachP)

        Goroutines are preempted for it, and queue up again. ``idle`` is done meanwhile, in place of idle Ps.
        """
        if self._holder is not by:
            throw(f"P {by.index} waits for all Ps without worldsema")
        yield from self._take_lock(by)
        self._by = by
        for p in self.procs:
            if p is not by and p.wakeup is None:
                p.fields["barrier"] = 1
                self.barring += 1
        signals = self._preempt_all(by)
        yield from self._await_all(by, signals, idle)
        self._note = None
        by.turn_to(SYSTEM)

    def _preempt_all(self, by: Proc | None) -> int:
        """Computes and assists in progress come to a safepoint now; picoseconds of the signals. (preemptall, preemptM)"""
        running = [p.index for p in self.procs if p is not by and p.kind not in _UNSIGNALLED]
        ends = 0
        for index in running:
            if by is not None:
                ends += self.world.prices.lock.signal(self.pay("preempt_signal"), by.worked())
                self._signalled[index] = self.world.now + ends + self.world.prices.lock.signal_latency
        preempt_all(self.world.heap.header, self.world.now)
        self.driver.rearm()
        self._tell()
        return ends

    def _await_all(self, by: Proc | None, signals: int, idle: Step | None = None) -> Step:
        """Process step: signal, give sched.lock back, and sleep until the last P wakes this one. (notetsleep)"""
        env = self.world.env
        if by is None:
            self._note = simpy.Event(env)
            self.check_stopped()
            yield self._note
            return
        yield after(env, signals, by.order)
        if idle is not None:
            yield from idle
        yield after(env, self.lock.release(by.index, self.world.now), by.order)
        if self._are_all_there():
            return
        self._note = simpy.Event(env)
        self._asleep_at = self.world.now + self.world.prices.lock.futex_sleep
        self.cpus.release(by)
        yield self._note
        by.worked()
        yield from self.cpus.acquire(by)

    # going on

    def start_the_world(self, by: Proc | None = None) -> int:
        """Let every P go on; picoseconds that the wake calls take ``by``, the P this is done on. (startTheWorldWithSema)

        When they have passed, `wake_p` is its to call.
        """
        if not self.stopping:
            throw("the world is not stopped")
        self.stopping = False
        self.world.heap.fields.stop = 0
        if self._releases:
            self._releases = False
            self.release_world()
        if by is None:
            for p in self.procs:
                if p.parked is not None:
                    wake(self.world.env, p.parked, p.order)
            self.wake_p()
            return 0
        prices, calls = self.world.prices.lock, 0
        for p in self._share_out():
            sleeps_on = p.parked if p.wakeup is None else p.wakeup
            assert sleeps_on is not None
            p.wakeup = None
            call, latency = prices.waking(self.world.now - p.asleep_since, by.worked())
            calls += call
            wake(self.world.env, sleeps_on, p.order, None, calls + latency)
        return calls

    def _share_out(self) -> list[Proc]:
        """The Ps to wake, in order; all others are idle from now on. (procresize)"""
        runnable: list[Proc] = []
        idle: list[Proc] = []
        marking: list[Proc] = []
        for p in self.procs:
            if p.parked is not None and (p.held or p.runq or p.runnext is not None):
                runnable.append(p)
            elif p.parked is not None or p.wakeup is not None:
                idle.append(p)
        workers = self.world.gc.workers
        if self.world.heap.facts.restart_gives_workers:
            while idle and workers.marking and workers.assign(idle[0]):
                marking.insert(0, idle.pop(0))
        else:
            idle.reverse()
        for p in idle:
            if p.wakeup is None:
                p.left_idle()
        self.idle[:] = idle
        return marking + runnable
