"""Background mark workers: which P marks when, and until when (mirrors mgc.go:gcBgMarkWorker and findRunnableGCWorker).

A P asks for a worker whenever it looks for something to run, before any goroutine; an idle P asks last. What a worker
marks meanwhile is the stock's matter (mgcmark.py); here it only holds its P:

- *dedicated*: until marking is over. After one time slice it hands its P's run queue to the global one.
- *fractional*: until it has had more than 1.2 times its share of the P's time since marking began.
- *idle*: until a goroutine waits in its P's queue or the global one.

The last two look up after each root job, here of mean length, and every 100,000 units of the heap's scan work; and when
a goroutine that they suspended to scan its stack is runnable again (`MarkWorkers.give`). A worker begins a time slice,
whose rest such a goroutine inherits. Everyone leaves at once for a stop of the world. When nothing is left to mark the
worker on the lowest P ends the cycle.

Left out: enlistWorker's preempting of a running P (a P meets a dedicated worker at its next turn, at the latest after
its slice), and that a worker is woken by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import simpy

from sim.engine.clock import after, wake
from sim.go import gccontroller, gcwork
from sim.go.mgclimit import IDLE_MARK_WORK
from sim.go.mgcpacer import DEDICATED, FRACTIONAL, IDLE, NOT_WORKER
from sim.go.ptime import OF_WORKER, SCHEDULING
from sim.go.state import NEVER

if TYPE_CHECKING:
    from sim.go.goroutine import Goroutine
    from sim.go.proc import Proc, Step
    from sim.go.world import World

FRACTIONAL_SLACK = 1.2


@dataclass
class Look:
    """When a worker looks up next, picoseconds, and from how much of the heap scanned by each (`heap_each`) on it asks itself
    whether to leave; 0: at its next look, whatever it scanned."""

    at: int
    due: int = 0


class MarkWorkers:
    """The background workers of one world. ``marking``: a cycle is in its mark phase. ``active``: Ps that mark now."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.marking = False
        self.active: dict[int, Proc] = {}
        self._looks: dict[int, Look] = {}  # of those that look up, as long as they are on their Ps
        self._waiting: dict[int, simpy.Event] = {}  # what each of them waits for
        self._marked = False  # nothing is left to mark in this cycle
        self.unfinished = False  # and nobody was there to end it
        self._finisher: Proc | None = None

    def begin(self) -> None:
        """A cycle's marking begins."""
        self.marking = True
        self._marked = False

    def pick(self, p: Proc) -> int:
        """The kind of worker this P is to run before anything else."""
        if self.unfinished:
            self.take_back(p)
            return DEDICATED
        if p.worker == NOT_WORKER:
            self.assign(p)
        mode, p.worker = p.worker, NOT_WORKER
        return mode

    def assign(self, p: Proc) -> bool:
        """Whether a P was given a worker, to run before anything else; it counts from now on. (assignWaitingGCWorker)"""
        p.worker = int(gcwork.pick_worker(self.world.heap.header, self.world.now, p.fractional_time))
        return p.worker != NOT_WORKER

    def take_back(self, p: Proc) -> None:
        """A P stops before it has run the worker that it was given: others may have it. (releaseNextGCMarkWorker)"""
        if p.worker != NOT_WORKER:
            gcwork.stop_worker(self.world.heap.header, p.worker, 0)
            p.worker = NOT_WORKER

    def pick_idle(self) -> int:
        """The kind of worker a P without work is to run."""
        return IDLE if gcwork.pick_idle_worker(self.world.heap.header, self.world.now) else NOT_WORKER

    def run(self, p: Proc, mode: int) -> Step:
        """Process step: mark on a P as a worker of a kind, and end the cycle if it falls to this one."""
        if self.unfinished:
            self.unfinished = False
            yield from self.world.gc.mark_done(p)
            return
        world, header = self.world, self.world.heap.header
        begun = world.now
        p.begin_slice()
        if mode == IDLE:
            gccontroller.start_event(header, p.index, IDLE_MARK_WORK, begun)
        self._join(p, mode)
        yield from self._hold(p, mode, begun)
        self._looks.pop(p.index, None)
        self._leave(p)
        gcwork.stop_worker(header, mode, world.now - begun)
        if mode == IDLE:
            gccontroller.stop_event(header, p.index, IDLE_MARK_WORK, world.now)
        if mode == FRACTIONAL:
            p.fractional_time += world.now - begun
        p.turn_to(SCHEDULING)
        if self._finisher is p:
            self._finisher = None
            yield from world.gc.mark_done(p)

    def _join(self, p: Proc, mode: int) -> None:
        """A P marks from now on."""
        p.turn_to(OF_WORKER[mode])
        self.active[p.index] = p
        gcwork.change_workers(self.world.heap.header, self.world.now, 1)
        self.world.sched.driver.rearm()

    def _leave(self, p: Proc) -> None:
        """It does not, from now on."""
        if self.active.pop(p.index, None) is not None:
            gcwork.change_workers(self.world.heap.header, self.world.now, -1)
            self.world.sched.driver.rearm()

    def _hold(self, p: Proc, mode: int, begun: int) -> Step:
        """Process step: keep the P until the worker leaves it. Its CPU it shares with other threads."""
        sched, fields = self.world.sched, self.world.heap.fields
        look = Look(p.slice_end)
        if mode != DEDICATED:
            self._looks[p.index] = look
            self._looks_up(look)
        while not self.world.gc.finishing:
            yield from self._wait(p, look.at)
            if sched.stopping or self._marked:
                return
            if sched.cpus.waiting and self.world.now >= p.fields["cpu_end"]:
                self._leave(p)
                without = int(fields.heap_each)
                yield from p.lose_cpu()
                if sched.stopping or self._marked:
                    return
                self._join(p, mode)
                look.due += (int(fields.heap_each) - without) if look.due else 0
            if self.world.now < look.at:
                continue
            if mode == DEDICATED:
                look.at = NEVER
                p.hand_over()
            elif self._looks_up(look) and self._is_to_leave(p, mode, begun):
                return

    def _looks_up(self, look: Look) -> bool:
        """Whether a worker that looks up asks itself if it is to leave; when it does next. (gcDrain)"""
        asks, until, look.due = map(int, gcwork.worker_look(self.world.heap.header, self.world.now, look.due))
        look.at = self.world.now + until
        return bool(asks)

    def _is_to_leave(self, p: Proc, mode: int, begun: int) -> bool:
        """Whether a worker has had its share of the time, or something else waits for its P. (pollFractionalWorkerExit, pollWork)"""
        if mode == FRACTIONAL:
            fields = self.world.heap.fields
            own = p.fractional_time + self.world.now - begun
            elapsed = self.world.now - int(fields.mark_start_time)
            return own / elapsed > FRACTIONAL_SLACK * float(fields.fractional_utilization_goal)
        return bool(self.world.sched.queue or p.runq or p.runnext is not None)  # not: in other Ps' queues

    def _wait(self, p: Proc, look: int) -> Step:
        """Process step: until the worker is to look up, is called off, or its CPU is wanted."""
        self._waiting[p.index] = called = simpy.Event(self.world.env)
        if look != NEVER:
            self._call(p, look - self.world.now)
        if self.world.sched.cpus.waiting:
            self._call(p, max(int(p.fields["cpu_end"]) - self.world.now, 0))
        yield called
        del self._waiting[p.index]

    def _call(self, p: Proc, delay: int) -> None:
        """Have a worker look up after so many picoseconds, if it waits for the same then as now."""
        called = self._waiting[p.index]

        def look_up(_: simpy.Event) -> None:
            if not called.triggered:
                wake(self.world.env, called, p.order)

        timer = after(self.world.env, delay, p.order)
        assert timer.callbacks is not None
        timer.callbacks.append(look_up)

    def _call_off(self) -> None:
        """Every worker looks up now."""
        for index in sorted(self._waiting):
            if not self._waiting[index].triggered:
                wake(self.world.env, self._waiting[index], self.active[index].order)

    def give(self, p: Proc, g: Goroutine) -> None:
        """Who marks on a P has scanned the stack of a goroutine that it suspended: the goroutine is next there. (resumeG)

        Scanning it was a root job, after which a worker looks up, if it ever does. Here it may have left by then, and its
        P be idle.
        """
        if p.wakeup is not None:
            self.world.sched.ready_global(g)
            return
        self.world.sched.ready_on(p, g, True)
        look = self._looks.get(p.index)
        if look is None:
            return
        look.at, look.due = self.world.now, 0
        called = self._waiting.get(p.index)
        if called is not None and not called.triggered:
            wake(self.world.env, called, p.order)

    def hurry(self) -> None:
        """A thread waits for a CPU: workers give theirs up when they have had it long enough."""
        for index in sorted(self._waiting):
            p = self.active[index]
            self._call(p, max(int(p.fields["cpu_end"]) - self.world.now, 0))

    def stop(self) -> None:
        """The world stops: every worker leaves its P."""
        self._call_off()

    def end(self) -> None:
        """Nothing is left to mark: every worker leaves, the one on the lowest P ends the cycle."""
        self._marked = True
        if self.active:
            self._finisher = self.active[min(self.active)]
            self._call_off()
        elif int(self.world.heap.fields.mark_assists) == 0:
            self.unfinished = True
            self.world.sched.wake_p()

    def lowest(self) -> Proc | None:
        """The active worker's P of the lowest number."""
        return self.active[min(self.active)] if self.active else None
