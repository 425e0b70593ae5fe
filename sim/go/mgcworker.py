"""Background mark workers: which P marks when, and until when (mirrors mgc.go:gcBgMarkWorker and findRunnableGCWorker).

A P asks for a worker whenever it looks for something to run, before any goroutine; an idle P asks last. What a worker
marks meanwhile is the stock's matter (mgcmark.py); here it only holds its P:

- *dedicated*: until marking is over. After one time slice it hands its P's run queue to the global one.
- *fractional*: until it has had more than 1.2 times its share of the P's time since marking began.
- *idle*: until a goroutine waits in its P's queue or the global one.

The last two look up every 100,000 units of scan work, as the runtime does (not after each root job too). Everyone
leaves at once for a stop of the world. When nothing is left to mark the worker on the lowest P ends the cycle.

Left out: enlistWorker's preempting of a running P (a P meets a dedicated worker at its next turn, at the latest after
its slice), and that a worker is woken by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import simpy

from sim.engine.clock import after, wake
from sim.go import gccontroller, gcwork
from sim.go.mgclimit import IDLE_MARK_WORK
from sim.go.mgcpacer import DEDICATED, FRACTIONAL, IDLE, NOT_WORKER
from sim.go.ptime import OF_WORKER, SCHEDULING

if TYPE_CHECKING:
    from sim.go.proc import Proc, Step
    from sim.go.world import World

CHECK_WORK = 100_000  # units of scan work between two looks whether to leave (drainCheckThreshold, idleCheckThreshold)
FRACTIONAL_SLACK = 1.2
MARKED = "marked"  # why a worker is called off
STOPPING = "stopping"


class MarkWorkers:
    """The background workers of one world. ``marking``: a cycle is in its mark phase."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.marking = False
        self.active: dict[int, Proc] = {}
        self._called: dict[int, simpy.Event] = {}
        self.unfinished = False  # marking is over and nobody was there to end the cycle
        self._finisher: Proc | None = None

    def pick(self, p: Proc) -> int:
        """The kind of worker this P is to run before anything else."""
        if self.unfinished:
            return DEDICATED
        return int(gcwork.pick_worker(self.world.heap.header, self.world.now, p.fractional_time))

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
        p.turn_to(OF_WORKER[mode])
        self.active[p.index] = p
        if mode == IDLE:
            gccontroller.start_event(header, p.index, IDLE_MARK_WORK, begun)
        gcwork.change_workers(header, begun, 1)
        world.sched.driver.rearm()
        yield from self._hold(p, mode, begun)
        del self.active[p.index]
        gcwork.change_workers(header, world.now, -1)
        world.sched.driver.rearm()
        gcwork.stop_worker(header, mode, world.now - begun)
        if mode == IDLE:
            gccontroller.stop_event(header, p.index, IDLE_MARK_WORK, world.now)
        if mode == FRACTIONAL:
            p.fractional_time += world.now - begun
        p.turn_to(SCHEDULING)
        if self._finisher is p:
            self._finisher = None
            yield from world.gc.mark_done(p)

    def _hold(self, p: Proc, mode: int, begun: int) -> Step:
        """Process step: keep the P until the worker leaves it."""
        sched, fields = self.world.sched, self.world.heap.fields
        look: int | None = self.world.gc.check_time if mode != DEDICATED else p.time_slice
        while True:
            why = yield from self._wait(p, look)
            if why is not None:
                return
            if mode == DEDICATED:
                look = None
                p.hand_over()
            elif mode == FRACTIONAL:
                own = p.fractional_time + self.world.now - begun
                elapsed = self.world.now - int(fields.mark_start_time)
                if own / elapsed > FRACTIONAL_SLACK * float(fields.fractional_utilization_goal):
                    return
            elif sched.queue or p.runq or p.runnext is not None:  # not: in other Ps' queues (proc.go:pollWork)
                return

    def _wait(self, p: Proc, picoseconds: int | None) -> Step:
        """Process step: until the worker is called off (why), or so long (None)."""
        called = self._called[p.index] = simpy.Event(self.world.env)

        def time_is_over(_: simpy.Event) -> None:
            if not called.triggered:
                wake(self.world.env, called, p.order)

        if picoseconds is not None:
            timer = after(self.world.env, picoseconds, p.order)
            assert timer.callbacks is not None
            timer.callbacks.append(time_is_over)
        why = yield called
        del self._called[p.index]
        return why

    def _call_off(self, why: str) -> None:
        for index in sorted(self._called):
            if not self._called[index].triggered:
                wake(self.world.env, self._called[index], self.active[index].order, why)

    def stop(self) -> None:
        """The world stops: every worker leaves its P."""
        self._call_off(STOPPING)

    def end(self) -> None:
        """Nothing is left to mark: every worker leaves, the one on the lowest P ends the cycle."""
        if self.active:
            self._finisher = self.active[min(self.active)]
            self._call_off(MARKED)
        elif int(self.world.heap.fields.mark_assists) == 0:
            self.unfinished = True
            self.world.sched.wake_p()

    def lowest(self) -> Proc | None:
        """The active worker's P of the lowest number."""
        return self.active[min(self.active)] if self.active else None
