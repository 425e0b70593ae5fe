"""The collector's cycle on the clock (mirrors mgc.go).

    triggered -> sweep what is left -> [stop: finish sweeping, settle what is marked] -> mark, mutators assisting
    -> ragged barriers -> [stop: pacing, generations advance] -> caches flushed -> sweeping, in the background and on demand

The goroutine whose allocation meets the trigger begins the cycle on its P; whoever marks last, worker or assist, ends
it. The two steps in brackets have the world stopped: the time until every P has reached a safepoint, and the work done
then, are the pauses. What a cycle marks is settled in the first of them (mgcmark.py).

Ragged barriers come until one finds that no P has shared out work since the one before. The first always does: whoever
marked has filled buffers. So there are two, and a third where an assist on a P that has gone on allocating left
its last buffers there: the first barrier hands these over, and who scans them shares out what they hold.

Each P flushes its cache when it goes on after the second stop, before it allocates; for idle ones the P that ended the
cycle does it, with their page caches where the version says so, while it waits for all others once more.

Left out: sync.Pool and other caches cleared with the world stopped, finalizers and specials, the semaphores' queues (a
goroutine that meets the trigger while another starts a cycle goes on; it is stopped at its next safepoint), debug
modes of gcstoptheworld, and that a goroutine is suspended when its own stack's turn comes, by who scans
it: here all are that run when the last stack is scanned, and the lowest worker's P gets them, or that of the lowest assist.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import simpy

from sim.engine.clock import RUN, after, priority
from sim.go import gccontroller, gcwork
from sim.go.bgscavenge import Scavenger
from sim.go.gclog import GcLog
from sim.go.goroutine import GOSCHED, Body, Goroutine
from sim.go.mgcmark import ASSISTING
from sim.go.mgcpacer import NO_LIMIT
from sim.go.mgcscavenge_pacer import gc_pace_scavenger
from sim.go.mgcworker import MarkWorkers
from sim.go.mstats import flush_all_mcaches, mem_stats
from sim.go.ptime import PUMPED, SYSTEM
from sim.units import SEC

if TYPE_CHECKING:
    from sim.go.proc import Proc, Step
    from sim.go.world import World
    from sim.metrics.timeline import Timeline

FORCE_PERIOD = 120 * SEC  # a cycle at least that often (proc.go:forcegcperiod)
BARRIERS = 2  # ragged ones at the end of marking, at least (gcMarkDone)
HEAP_TRIGGER, TIME_TRIGGER, FORCED = "heap", "time", "forced"


class Collector:
    """The collector of one world. ``log``: the record of its cycles. ``scavenger``: from the first cycle on.

    ``watcher``: told, with the world stopped, of each stage of a cycle: swept, marking, marked, sweeping (check_gc.py).
    """

    def __init__(
        self,
        world: World,
        gc_percent: int,
        memory_limit: int | None,
        globals_bytes: int,
        timeline: Timeline | None = None,
    ) -> None:
        self.world = world
        self.workers = MarkWorkers(world)
        self.log = GcLog(world, timeline)
        self.started = 0
        self.watcher: Callable[[str], None] | None = None
        self.finishing = False
        self._assisted: list[int] = []  # picoseconds of each P's assists before this cycle
        self._left_over = False  # a P that does not mark has work in its buffers
        self._news = simpy.Event(world.env)  # a cycle is over, or its caches are flushed, or one that was to begin does not
        self._sweeper: Goroutine | None = None
        self._sweep = simpy.Event(world.env)  # there is something to sweep
        self._last_end = -1
        self._parked: dict[int, Goroutine] = {}
        self.scavenger: Scavenger | None = None
        self.order = priority(RUN, int(world.heap.fields.nprocs))
        world.heap.fields.globals_scan = globals_bytes
        gccontroller.init(world.heap.header, gc_percent, NO_LIMIT if memory_limit is None else memory_limit)

    # settings

    def set_gc_percent(self, percent: int) -> int:
        """Set GOGC from now on, -1 for off; the old value. (debug.SetGCPercent)"""
        old = int(gccontroller.set_gc_percent(self.world.heap.header, percent))
        self._commit()
        return old

    def set_memory_limit(self, nbytes: int) -> int:
        """Set the memory limit in bytes from now on; the old value. (debug.SetMemoryLimit)"""
        old = int(gccontroller.set_memory_limit(self.world.heap.header, nbytes))
        self._commit()
        return old

    def resume(self, heap_live: int, heap_goal: int) -> None:
        """The program is in the middle of its life, where the heap's metrics were these bytes (`mgcpacer.resume`)."""
        gccontroller.resume(self.world.heap.header, heap_live, heap_goal)
        self._commit()

    def _commit(self) -> None:
        """New goals and paces, and what follows for the collector's turn."""
        self.world.heap.fields.now = self.world.now
        self._pace()
        self.world.sched.driver.rearm()

    def _pace(self) -> None:
        """New goals of the pacer, the sweeper and the scavenger. (gcControllerCommit)"""
        heap = self.world.heap
        gcwork.pace(heap.header)
        self.log.paced()
        gc_pace_scavenger(heap, int(gccontroller.heap_goal(heap.header)), int(heap.fields.last_heap_goal))

    def _wake_scavenger(self) -> None:
        """The sweep before this cycle is finished; with the first one the scavenger starts. (finishsweep_m, gcenable)"""
        if self.scavenger is None:
            self.scavenger = Scavenger(self.world)
            self.scavenger.start()
        else:
            self.scavenger.wake()

    # the collector's own turn

    def turn(self, _: simpy.Event) -> None:
        """Parked assists were paid, all stacks are scanned, or nothing is left to mark."""
        nready, roots_ended, marked = map(int, gcwork.collector_turn(self.world.heap.header, self.world.now))
        self._ready_assists(nready)
        if roots_ended:
            self._suspend_running()
        if marked and not self.finishing:
            self._left_over = any(map(self._has_buffers, self.world.sched.procs))
            self.workers.end()
        self.world.sched.driver.rearm()

    def _suspend_running(self) -> None:
        """Stacks are scanned: whose goroutine ran meanwhile was preempted for that. (suspendG)

        Not who assists, whose stack is scanned as it is, and who scans others if no worker does.
        """
        running = [p for p in self.world.sched.procs if p.kind == PUMPED]
        scanner = self.workers.lowest() or next(filter(self._assists, running), None)
        if scanner is None:
            return
        for p in running:
            if not self._assists(p):
                p.suspend(scanner)

    def _assists(self, p: Proc) -> bool:
        """Whether the goroutine that a P runs marks to pay its debt."""
        return bool(self.world.heap.arrays["goroutines"][p.fields["g"]]["stage"] == ASSISTING)

    def _has_buffers(self, p: Proc) -> bool:
        """Whether a P that runs a goroutine has work from an assist in this cycle; who still assists has used it up."""
        return p.kind == PUMPED and p.fields["assist_time"] != self._assisted[p.index] and not self._assists(p)

    def park(self, g: Goroutine) -> None:
        """A goroutine's assist waits for credit. (gcParkAssist)"""
        self._parked[g.id] = g

    def _ready_assists(self, n: int) -> None:
        """The first n of those that were paid may run again: on the queue of a P that marks. (gcFlushBgCredit)"""
        sched, paid = self.world.sched, self.world.heap.arrays["assist_ready"]
        for index in paid[:n].tolist():
            g = self._parked.pop(index)
            p = self.workers.lowest()
            if p is None:
                sched.ready_global(g)
            else:
                sched.ready_on(p, g)

    # a cycle begins

    def start(self, p: Proc, kind: str) -> Step:
        """Process step on a P: begin a cycle, if its trigger still holds when the sweep is finished. (gcStart)"""
        world, fields, header = self.world, self.world.heap.fields, self.world.heap.header
        if fields.gc_phase or fields.gc_starting:
            return
        fields.gc_starting = 1
        while self._is_due(kind) and not self._has_swept(p):
            yield after(world.env, self._cost, p.order)
            yield from world.sched.at_safepoint(p, True)
            p.turn_to(SYSTEM)
        yield from world.sched.acquire_world(p)
        if not self._is_due(kind):
            fields.gc_starting = 0
            world.sched.release_world()
            self._announce()
            return
        begun = world.now
        self.log.before()
        yield from world.sched.stop_the_world(p)
        stopped = world.now
        gccontroller.start_gc_transition(header, True, begun)
        cost = int(gcwork.finish_sweep_now(header, p.index)) + world.sched.pay("stw_sweep_term")
        yield after(world.env, cost, p.order)
        self.log.swept()
        self._wake_scavenger()
        self._tell("swept")
        self._begin_marking(p, kind, begun)
        self._tell("marking")
        self.log.begin(kind, begun, stopped)
        calls = world.sched.start_the_world(p)
        self.log.marking(world.now + calls)
        gccontroller.finish_gc_transition(header, world.now + calls)
        yield from self._go_on(p, calls)
        world.sched.release_world()

    def _go_on(self, p: Proc, calls: int) -> Step:
        """Process step: the world goes on, whose starter has so much to spend on waking Ps. (startTheWorldWithSema)"""
        if calls:
            yield after(self.world.env, calls, p.order)
        self.world.sched.wake_p(p)  # before the scavenger, which was woken in the stop, does
        yield from p.pay_debt()
        p.turn_to(SYSTEM)

    def _is_due(self, kind: str) -> bool:
        """Whether what triggers a cycle still does; only heap and settings may have changed meanwhile. (gcTrigger.test)"""
        return kind != HEAP_TRIGGER or bool(gcwork.heap_is_due(self.world.heap.header))

    def _has_swept(self, p: Proc) -> bool:
        """Sweep one span of what the last cycle left; True when nothing is. ``_cost`` is its picoseconds."""
        swept, cost = gcwork.sweep_some(self.world.heap.header, p.index, 1)
        self._cost = int(cost)
        return int(swept) == 0

    def _begin_marking(self, p: Proc, kind: str, begun: int) -> None:
        """The world is stopped: settle what is marked and who marks. The pacer's clock runs since it was asked to stop."""
        world, fields, header = self.world, self.world.heap.fields, self.world.heap.header
        world.price_heap(int(fields.heap_live), gcwork.bytes_read(header))
        per_byte = world.mark_large_byte, world.mark_globals_byte
        gcwork.begin_marking(header, p.index, world.now, world.sched.pay("mark_stack"), *per_byte)
        gccontroller.start_cycle(header, begun, int(fields.nprocs), kind == TIME_TRIGGER)
        for proc in world.sched.procs:
            proc.fractional_time = 0
        self._assisted = world.heap.arrays["procs"]["assist_time"].tolist()
        self.started += 1
        self.finishing = False
        self.workers.begin()

    # a cycle ends

    def mark_done(self, p: Proc) -> Step:
        """Process step on the P of whoever marked last: end the cycle. (gcMarkDone, gcMarkTermination)"""
        if self.finishing:
            return
        self.finishing = True
        world, header = self.world, self.world.heap.header
        yield from world.sched.acquire_world(p)
        for _ in range(BARRIERS + self._left_over):
            yield from world.sched.for_each_p(p)
        begun = world.now
        yield from world.sched.stop_the_world(p)
        stopped = world.now
        gccontroller.start_gc_transition(header, False, begun)
        self._tell("marked")
        self._terminate(p, begun)
        self._tell("sweeping")
        yield after(world.env, world.sched.pay("stw_mark_term"), p.order)
        gccontroller.finish_gc_transition(header, world.now)
        self.log.end(begun, stopped)
        self._last_end = world.now
        self._announce()
        yield from self._go_on(p, world.sched.start_the_world(p))
        yield from p.flush()
        yield after(world.env, int(gcwork.free_stacks(header, p.index)), p.order)
        yield from world.sched.for_each_p(p, self._flush_idle(p))
        gcwork.release_sweep(header)
        world.sched.release_world()
        self._announce()
        self._arm_timer()

    def _tell(self, stage: str) -> None:
        if self.watcher is not None:
            self.watcher(stage)

    def _announce(self) -> None:
        """Let those who wait for a cycle look again."""
        news, self._news = self._news, simpy.Event(self.world.env)
        news.succeed()

    def _terminate(self, p: Proc, begun: int) -> None:
        """The world is stopped: no more marking, what was learnt for the next cycle, and a new sweep begins."""
        world, fields, header = self.world, self.world.heap.fields, self.world.heap.header
        self.workers.marking = False
        self._ready_assists(int(gcwork.end_marking(header, world.now)))
        self.log.terminating()
        gccontroller.end_cycle(header, begun, int(fields.nprocs))
        marked = int(fields.bytes_marked)
        gccontroller.reset_live(header, marked)
        gcwork.begin_sweeping(header)
        fields.last_heap_in_use = fields.heap_in_use
        self._pace()
        gcwork.next_scavenge_generation(header)
        world.sched.note_running(p)  # whose runnext the sweeper is
        if self._sweeper is None:
            self._sweeper = world.go_system(self._bgsweep, name="bgsweep")
        elif not self._sweep.triggered:
            self._sweep.succeed()

    def _flush_idle(self, p: Proc) -> Step:
        """Process step: flush the caches of idle Ps for them. (gcMarkTermination, forEachP)"""
        world = self.world
        pages_too = world.heap.facts.flushes_idle_page_caches
        for other in world.sched.procs:
            if other.wakeup is not None:
                cost = int(gcwork.flush_cache(world.heap.header, other.index, world.now, int(pages_too)))
                if cost:
                    yield after(world.env, cost, p.order)

    # sweeping in the background

    def _bgsweep(self, g: Goroutine) -> Body:
        """Goroutine: sweep whenever a cycle has left something to sweep. (bgsweep)"""
        while True:
            self._sweep = simpy.Event(self.world.env)
            while (yield g.call(self._sweep_on)) is GOSCHED:
                pass
            self.log.swept()
            if self.scavenger is not None:
                self.scavenger.ready()
            yield self._sweep

    def _sweep_on(self, p: Proc) -> Step:
        """Process step of the sweeper: batches, until nothing is left or the P is wanted (GOSCHED)."""
        world = self.world
        batch = world.heap.facts.sweep_batch
        while True:
            swept, cost = map(int, gcwork.sweep_some(world.heap.header, p.index, batch))
            yield after(world.env, cost, p.order)
            if swept < batch:
                return None
            busy = not world.sched.idle or world.now >= int(p.fields["slice_end"])
            if world.sched.stopping or p.fields["barrier"] or batch == 1 or busy:
                return GOSCHED

    # cycles on demand

    def collect(self, g: Goroutine) -> Body:
        """``yield from world.gc.collect(g)`` in a goroutine: a whole cycle and its sweep. (runtime.GC)"""
        wanted = self.started + 1
        while self.started < wanted:
            if self.workers.marking or self.world.heap.fields.gc_starting:
                yield self._news  # of the cycle in progress, which began too early
            else:
                yield g.call(self._forced)
        while len(self.log.cycles) < wanted:
            yield self._news
        while self.started == wanted and (yield g.call(self._sweep_one)) is GOSCHED:
            pass
        while self.started == wanted and not gcwork.is_sweep_done(self.world.heap.header):
            yield self._news  # until all caches are flushed, whose spans are in no set

    def read_mem_stats(self, g: Goroutine) -> Body:
        """``yield from world.gc.read_mem_stats(g)`` in a goroutine: MemStats, the world being stopped. (runtime.ReadMemStats)

        It takes until every P has reached a safepoint; emptying their caches and counting is free here.
        """
        world = self.world
        found: list[dict[str, Any]] = []

        def step(p: Proc) -> Step:
            yield from world.sched.stop_the_world(p)
            world.heap.fields.now = world.now
            flush_all_mcaches(world.heap.header)
            found.append(mem_stats(world.heap, self.log.gc_stats()))
            yield from self._go_on(p, world.sched.start_the_world(p))

        yield g.call(step)
        return found[0]

    def _forced(self, p: Proc) -> Step:
        yield from self.start(p, FORCED)

    def _sweep_one(self, p: Proc) -> Step:
        """Process step: sweep one span, then let others run (GOSCHED) unless nothing is left."""
        swept, cost = map(int, gcwork.sweep_some(self.world.heap.header, p.index, 1))
        yield after(self.world.env, cost, p.order)
        return GOSCHED if swept else None

    def _arm_timer(self) -> None:
        """Two minutes after the last cycle comes one anyway, if anything was allocated since. (sysmon, forcegchelper)"""
        end, allocated = self._last_end, self.world.mallocs
        timer = self.world.env.in_background(max(end + FORCE_PERIOD - self.world.now, 0), self.order)

        def due(_: simpy.Event) -> None:
            if self._last_end == end and int(self.world.heap.fields.gc_percent) >= 0 and self.world.mallocs != allocated:
                self.world.go_system(self._timed, name="forcegc")

        assert timer.callbacks is not None
        timer.callbacks.append(due)

    def _timed(self, g: Goroutine) -> Body:
        def step(p: Proc) -> Step:
            yield from self.start(p, TIME_TRIGGER)

        yield g.call(step)
