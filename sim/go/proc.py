"""Ps as SimPy processes, each its own scheduler (mirrors proc.go); what they share is in sched.py.

A P is a SimPy process: it takes goroutines from its queue of 256 and runnext, the global queue or another P, and hands
their batches to the pump; when a lock is needed it waits for it, keeping its goroutine and its CPU.

The scheduler's rules are the runtime's: every 61st turn looks at the global queue first, a full queue moves half of it
and the newcomer to the global one, a thief takes half of its victim's queue (runnext only on the last of four passes, of
a running P after 3 us), nobody is woken while somebody searches, and who searched and found wakes the next. runnext
inherits the time slice. Sysmon, which looks at all Ps every 10 ms, ends a slice when it sees it the second time: 10 to
20 ms after it began. A goroutine that goes on at the instant it would park has not parked (goroutine.py).

Each picosecond of a P is of one kind (`Proc.times`): in the pump, which knows it as malloc, compute or first touch, or
one of `KINDS`. They add up to the time, whatever happened.

Left out: sched.lock's contention but for stops (stw.py), what else sysmon does and that it looks more often in its first
25 ms, after it met a stopped world and after all Ps were idle (it looks at multiples of its period), syscalls, netpoll
but for timers (timers.py): outside events put goroutines on the global queue and wake a P.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import simpy

from sim.engine.clock import RUN, after, priority
from sim.go import gccontroller, gcwork, mgclimit
from sim.go import pump as kernel
from sim.go.goroutine import GOSCHED, Goroutine, SystemStack, Work
from sim.go.mgc import HEAP_TRIGGER
from sim.go.mgcmark import ASSISTING
from sim.go.mgcpacer import NOT_WORKER
from sim.go.ptime import IDLE, KINDS, LOCKED, PUMPED, SCHEDULING, STOPPED, SYSTEM
from sim.go.pumpcalls import cut, owe, with_central_lock, with_heap_lock
from sim.go.state import ASSIST_PARKED, CENTRAL_WAIT, GC_WORKER, HEAP_WAIT, NEVER, OFF_P, STW
from sim.units import MS, US

if TYPE_CHECKING:
    from sim.go.world import World

TIME_SLICE = 10 * MS  # forcePreemptNS, and as long sysmon sleeps when it finds nothing to do (proc.go)
TIMER_SLACK = 50 * US  # by which Linux lets a timer of a thread be late (timer_slack_ns)
RUNQ = 256  # length of a P's queue (runtime2.go)
GLOBAL_PERIOD = 61  # turns between looks at the global queue first (proc.go:findRunnable)
GLOBAL_BATCH = RUNQ // 2
STEAL_PASSES = 4
NEXT_WAIT = 3 * US  # before a running P's runnext is stolen: it may be about to run it itself (proc.go:runqgrab)

_PUMP_TIMES = {"malloc": "malloc", "compute": "compute", "first_touch": "touch", "assist": "assist"}

Step = Generator[simpy.Event, Any, Any]


class Proc:
    """A P and the thread that runs it: its queue, and the process that runs goroutines. (runtime2.go:p)"""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.order = priority(RUN, index)
        self.runq: deque[Goroutine] = deque()
        self.runnext: Goroutine | None = None
        self.tick = 0  # schedtick
        self.back: simpy.Event | None = None  # the pump gives the P back by it
        self.wakeup: simpy.Event | None = None  # it is idle and waits for this
        self.parked: simpy.Event | None = None  # it stopped with the world and waits for this
        self.asleep_since = world.now  # its thread, if it is asleep
        self._in_system = world.now  # when it was last
        self.held = False  # and has a goroutine in the middle of a step
        self.worker = NOT_WORKER  # the kind of mark worker that it was given when the world went on
        self.debt = 0  # picoseconds of wake calls that it has yet to spend
        self.spinning = False  # it looks for work
        self.scanner: Proc | None = None  # whose worker or assist suspends the goroutine here
        self.slice_end = 0  # when the time slice ends that began here last, picoseconds
        self.cpu_grant = 0  # when it last got a CPU, among all Ps
        self.fractional_time = 0  # as a fractional mark worker in this cycle
        self._spent = [0] * len(KINDS)
        self._kind = IDLE
        self._since = world.now
        self._running = ""  # the goroutine in the pump
        self.draws = world.stream(f"scheduler/p{index}")
        self.fields = world.heap.arrays["procs"][index]
        world.env.process(self._run())

    # its time

    def turn_to(self, kind: int) -> None:
        """Its time is of another kind from now on."""
        time = self.world.now
        if self._kind != PUMPED:
            self._spent[self._kind] += time - self._since
        if self.world.gc.log.timeline is not None and time > self._since:
            self.world.gc.log.was(self.index, self._since, time, self._running if self._kind == PUMPED else KINDS[self._kind])
        self._kind, self._since = kind, time

    @property
    def kind(self) -> int:
        """What its time goes to now (ptime.py)."""
        return self._kind

    def worked(self) -> int:
        """Picoseconds since its thread was in the system, where it is now: it makes a call there, or was asleep."""
        worked, self._in_system = self.world.now - self._in_system, self.world.now
        return worked

    def ahead(self) -> int:
        """Picoseconds its own clock is ahead of the world's: a segment or a compute in progress."""
        due = int(self.world.heap.arrays["p_time"][self.index])
        return due - self.world.now if self._kind == PUMPED and due != NEVER and not self.fields["at_lock"] else 0

    def times(self) -> dict[str, int]:
        """Picoseconds so far by kind: those of `KINDS`, malloc, compute and first_touch; they add up to the time.

        What is left of a compute or an assist in progress is not counted yet. The rest of a segment in progress is (its
        operations are done): ``ahead`` takes it off, at most the run-ahead.
        """
        spent = dict(zip(KINDS, self._spent, strict=True))
        if self._kind != PUMPED:
            spent[KINDS[self._kind]] += self.world.now - self._since
        spent["lock"] += int(self.fields["lock_time"])
        if self.fields["at_lock"]:
            spent["lock"] += self.world.now - int(self.fields["lock_since"])
        spent |= {kind: int(self.fields[f"{name}_time"]) for kind, name in _PUMP_TIMES.items()}
        ahead = self.ahead()
        g = self.world.heap.arrays["goroutines"][self.fields["g"]]
        if self._kind == PUMPED and g["stage"] == ASSISTING:  # none of it is in assist_time yet
            spent["assist"] += self.world.now - int(g["assist_start"])
            ahead = 0
        elif g["stage"] == kernel.COMPUTING:
            spent["compute"] -= ahead
            ahead = 0
        return {"ahead": -ahead} | spent

    # queues

    def put(self, g: Goroutine, to_next: bool) -> None:
        """Queue a goroutine here, as runnext or at the tail; a full queue moves half to the global one. (runqput)"""
        kicked: Goroutine | None = g
        if to_next:
            kicked, self.runnext = self.runnext, g
        if kicked is None:
            return
        if len(self.runq) < RUNQ:
            self.runq.append(kicked)
            return
        self.world.sched.queue.extend(self.runq.popleft() for _ in range(RUNQ // 2))
        self.world.sched.queue.append(kicked)

    def hand_over(self) -> None:
        """Leave the own queue to others: a dedicated mark worker stays. (gcBgMarkWorker)"""
        sched = self.world.sched
        if self.runnext is not None:
            self.runq.append(self.runnext)
            self.runnext = None
        sched.queue.extend(self.runq)
        self.runq.clear()
        sched.wake_p(self)

    def _next(self) -> tuple[Goroutine | None, bool]:
        """The next goroutine without looking at other Ps, and whether it inherits the time slice. (findRunnable)"""
        sched = self.world.sched
        if self.tick % GLOBAL_PERIOD == 0 and sched.queue:
            return sched.queue.popleft(), False
        if self.runnext is not None:
            g, self.runnext = self.runnext, None
            return g, True
        if self.runq:
            return self.runq.popleft(), False
        if sched.queue:
            n = min(len(sched.queue), len(sched.queue) // len(sched.procs) + 1, GLOBAL_BATCH)
            g = sched.queue.popleft()
            self.runq.extend(sched.queue.popleft() for _ in range(n - 1))
            return g, False
        return None, False

    def _steal(self) -> Step:
        """Process step: half of another P's queue, the oldest first, or at the end its runnext. (stealWork, runqgrab)"""
        sched = self.world.sched
        procs = sched.procs
        for last in (*(False,) * (STEAL_PASSES - 1), True):
            first = self.draws.below(len(procs))
            for i in range(len(procs)):
                if sched.stopping:
                    return None
                victim = procs[(first + i) % len(procs)]
                if victim is self:
                    continue
                while victim.runq or (last and victim.runnext is not None):
                    if victim.runq:
                        taken = [victim.runq.popleft() for _ in range((len(victim.runq) + 1) // 2)]
                        self.runq.extend(taken[:-1])
                        return taken[-1]
                    g = victim.runnext
                    if victim.wakeup is None and victim.parked is None:
                        yield after(self.world.env, NEXT_WAIT, self.order)
                    if victim.runnext is g:
                        victim.runnext = None
                        return g
        return None

    # the process

    def _run(self) -> Step:
        """Process: schedule and execute, for ever. (schedule)"""
        yield from self._idle()
        while True:
            g, inherits = yield from self._find()
            wait = self.world.now - g.queued
            g.waited += wait
            self.world.sched.latencies.add(wait)
            yield after(self.world.env, self.world.sched.pay("switch"), self.order)
            if not inherits:
                self.begin_slice()
            yield from self._execute(g)

    def suspend(self, scanner: Proc) -> None:
        """The goroutine here is sent a signal and leaves its P, for who scans its stack and readies it again. (suspendG)

        Its slice goes on: who runs next and inherits it has what is left.
        """
        self.scanner = scanner
        at = self.world.now + self.world.prices.lock.signal_latency
        self.fields["slice_end"] = min(self.slice_end, at)
        cut(self.world.heap.header, self.index, at)

    def begin_slice(self) -> None:
        """A turn that does not inherit its time slice: sysmon notes it at its next look, and ends it at the one after. (retake)"""
        self.tick += 1
        self.slice_end = self._look_of_sysmon(2)

    def _look_of_sysmon(self, n: int) -> int:
        """When sysmon looks at all Ps the n-th time from now on, picoseconds."""
        period = TIME_SLICE + TIMER_SLACK + self.world.prices.lock.wake_latency_10ms
        return (self.world.now // period + n) * period

    def _find(self) -> Step:
        """Process step: a goroutine to run, going idle until there is one. (findRunnable)"""
        sched, env, workers = self.world.sched, self.world.env, self.world.gc.workers
        while True:
            yield from sched.at_safepoint(self)
            self.world.timers.run_due(self)
            yield from self.pay_debt()
            if sched.stopping or self.fields["barrier"]:
                continue
            if sched.cpus.waiting and self.world.now >= self.fields["cpu_end"]:
                yield from self.lose_cpu()
                continue
            if self.world.now >= sched.limiter_due:
                sched.limiter_due = int(gcwork.look_at_limiter(self.world.heap.header, self.world.now))
            if workers.marking and (mode := workers.pick(self)):
                self._found()
                sched.wake_p(self)  # for what this P had to run
                yield from workers.run(self, mode)
                continue
            g, inherits = self._next()
            if g is None and (self.spinning or 2 * sched.spinning < len(sched.procs) - len(sched.idle)):
                self._spin(True)
                if sched.runnable():
                    g = yield from self._steal()
                if g is not None:
                    yield after(env, sched.pay("steal"), self.order)
                elif self.world.timers.run_due(self, everybody=True):
                    continue
            if g is not None:
                self._found()
                return g, inherits
            if sched.stopping or self.fields["barrier"] or sched.queue or (self.spinning and sched.runnable()):
                continue  # it came while this P looked elsewhere
            if workers.marking and (mode := workers.pick_idle()):
                self._found()
                yield from workers.run(self, mode)
                continue
            sched.cpus.release(self)
            yield from self._idle()

    def _found(self) -> None:
        """It has something to do; if it looked for it, another one looks from now on. (resetspinning)"""
        if self.spinning:
            self._spin(False)
            self.world.sched.wake_p(self)

    def pay_debt(self) -> Step:
        """Process step: spend the time that waking others took."""
        while self.debt:
            debt, self.debt = self.debt, 0
            yield after(self.world.env, debt, self.order)

    def _spin(self, on: bool) -> None:
        """Begin or end to look for work: nobody is woken for that meanwhile. (becomeSpinning)"""
        self.world.sched.spinning += on - self.spinning
        self.spinning = on

    def _idle(self) -> Step:
        """Process step: nothing to do; sleep until woken to look for work. (stopm)"""
        sched, env = self.world.sched, self.world.env
        self._spin(False)
        self.turn_to(IDLE)
        self.wakeup = simpy.Event(env)
        self.asleep_since = self.world.now
        sched.idle.append(self)
        self.world.timers.left_idle()
        header = self.world.heap.header
        gccontroller.start_event(header, self.index, mgclimit.IDLE, self.world.now)
        if sched.stopping:
            sched.check_stopped(self)
        yield self.wakeup
        self.worked()
        gccontroller.stop_event(header, self.index, mgclimit.IDLE, self.world.now)
        if not self.fields["gsignal_stack"]:
            self.world.stacks.new_thread(self)
        yield from sched.cpus.acquire(self)
        yield from self.flush()

    def flush(self) -> Step:
        """Process step: flush the cache if a sweep has begun since it was. (proc.go:acquirep, prepareForSweep)"""
        header = self.world.heap.header
        cost = int(gcwork.flush_cache(header, self.index, self.world.now, 0))
        if cost:
            self.turn_to(SYSTEM)
            yield after(self.world.env, cost, self.order)
            self.turn_to(SCHEDULING)

    def lose_cpu(self) -> Step:
        """Process step: another thread has the CPU next; wait for one."""
        self.world.sched.cpus.release(self)
        yield from self.world.sched.cpus.acquire(self)

    def stand(self, held: bool = False) -> Step:
        """Process step: a stop-the-world is on; wait until somebody wakes its thread again. (gcstopm, stopm)

        ``held``: its goroutine is in the middle of a step, so that it has something to do as soon as the world goes on.
        """
        sched, header = self.world.sched, self.world.heap.header
        self._spin(False)
        self.turn_to(STOPPED)
        self.world.gc.workers.take_back(self)
        self.held = held
        self.parked = called = simpy.Event(self.world.env)
        yield from sched.report_stopped(self)
        self.asleep_since = self.world.now
        sched.cpus.release(self)
        yield called
        self.worked()
        self.parked = None
        if self._kind == IDLE:
            gccontroller.stop_event(header, self.index, mgclimit.IDLE, self.world.now)
        yield from sched.cpus.acquire(self)
        yield from self.flush()

    def left_idle(self) -> None:
        """The world goes on and this P, which stopped, has nothing to do: it is idle. (procresize, pidleput)"""
        self.turn_to(IDLE)
        self.wakeup, self.parked = self.parked, None
        self.world.timers.left_idle()
        gccontroller.start_event(self.world.heap.header, self.index, mgclimit.IDLE, self.world.now)

    def _execute(self, g: Goroutine) -> Step:
        """Process step: run a goroutine until it parks, ends or is taken off the P. (execute)"""
        sched = self.world.sched
        g.p = self
        self.scanner = None
        if self.slice_end <= self.world.now:
            self.slice_end = self._look_of_sysmon(1)  # who inherits a slice that is over is preempted when sysmon looks again
        self.fields["slice_end"] = self.slice_end
        self.fields["g"] = g.id
        if g.frames:
            frames, g.frames = g.frames, 0
            yield from self.world.stacks.use(g, frames, self)
        work: Work | SystemStack | None = g.unfinished()
        while True:
            if sched.stopping:
                g.p = None
                sched.requeue_stopped(self, g)
                return
            if work is None:
                sched.note_running(self)
                work = g.advance()
                if work is None:
                    if g.is_alive and (yield from self._settle(g)):
                        continue
                    break
                yield from self.pay_debt()
                if isinstance(work, Work):
                    if work.before is not None:
                        yield from work.before(self)
                    self.world.roots.submit(g, work)
            if not (yield from self._do(g, work)):
                g.p = None
                return
            work = None
        g.p = None
        if not g.is_alive:
            sched.note_dead(g)
            yield from self.world.stacks.goexit(g, self)
            yield after(self.world.env, sched.pay("goroutine_exit"), self.order)

    def _do(self, g: Goroutine, work: Work | SystemStack) -> Step:
        """Process step: do what a goroutine asks of its P; False when it left the P over it, on a queue or parked."""
        sched = self.world.sched
        if isinstance(work, SystemStack):
            self.turn_to(SYSTEM)
            result = yield from work.step(self)
            self.turn_to(SCHEDULING)
            if sched.cpus.waiting and self.world.now >= self.fields["cpu_end"]:
                yield from self.lose_cpu()
            sched.note_running(self)
            g.answer(work, result)
            if result is not GOSCHED and self.world.now < self.fields["slice_end"] and not self.fields["barrier"]:
                return True
            sched.ready_global(g, self)
            return False
        self.fields["g"] = g.id
        reason = yield from self._work(g)
        if reason == kernel.PREEMPTED and self.scanner is not None:
            self.world.gc.workers.give(self.scanner, g)
        elif reason == kernel.PREEMPTED:
            sched.ready_global(g, self)
        elif reason == kernel.STOPPED:
            sched.requeue_stopped(self, g)
        elif reason == kernel.PARK:
            self.world.gc.park(g)
        else:
            sched.note_running(self)
            g.finish(work)
            return True
        return False

    def _settle(self, g: Goroutine) -> Step:
        """Process step: let everything of this instant happen; whether it brought the event that a goroutine yielded."""
        g.settling = True
        yield after(self.world.env, 0, self.order)
        g.settling = False
        return g.cause is not None

    def _work(self, g: Goroutine) -> Step:
        """Process step: run the goroutine's batch in the pump: to its end (DONE), or PREEMPTED, STOPPED or PARK."""
        env, heap, sched = self.world.env, self.world.heap, self.world.sched
        if g.off_since >= 0:
            self._owe_absence(g)
        self._running = g.label
        while True:
            self.turn_to(PUMPED)
            self.back = simpy.Event(env)
            sched.driver.enter(self)
            reason = yield self.back
            if reason == kernel.NEED_HEAP:
                self.turn_to(LOCKED)
                yield from self.heap_lock()
            elif reason == kernel.NEED_CENTRAL:
                self.turn_to(LOCKED)
                yield from self._central_lock(g)
            elif reason == kernel.NEED_ROOM:
                heap.make_room(int(heap.arrays["goroutines"][g.id]["npages"]))
            elif reason == kernel.CPU_LOST:
                since = self.world.now
                yield from self.lose_cpu()
                if self._is_in_malloc(g):
                    owe(heap.header, self.index, OFF_P, self.world.now - since)
            elif reason in (kernel.GC_START, kernel.MARK_DONE):
                yield from self._collect(reason)
            else:
                self.turn_to(SCHEDULING)
                if reason == kernel.PARK or (reason != kernel.DONE and self._is_in_malloc(g)):
                    g.off_since = self.world.now
                    g.off_in = reason
                return reason

    def _collect(self, reason: int) -> Step:
        """Process step: the allocation in progress begins a cycle, or ends one; the time is its own. (gcStart, gcMarkDone)"""
        since, gc = self.world.now, self.world.gc
        self.turn_to(SYSTEM)
        yield from gc.start(self, HEAP_TRIGGER) if reason == kernel.GC_START else gc.mark_done(self)
        owe(self.world.heap.header, self.index, STW, self.world.now - since)

    def _owe_absence(self, g: Goroutine) -> None:
        """A goroutine is back on a P in the middle of mallocgc: where the time went. (``g.off_in``: why it left)"""
        header, time = self.world.heap.header, self.world.now
        waited = time - g.queued
        if g.off_in == kernel.PARK:
            owe(header, self.index, ASSIST_PARKED, g.queued - g.off_since)
            owe(header, self.index, GC_WORKER if g.queued_marking else OFF_P, waited)
        else:
            owe(header, self.index, STW if g.off_in == kernel.STOPPED else OFF_P, time - g.off_since)
        g.off_since = -1

    def _is_in_malloc(self, g: Goroutine) -> bool:
        """Whether a goroutine is in the middle of mallocgc: its time off the P is part of that."""
        row = self.world.heap.arrays["goroutines"][g.id]
        return int(row["stage"]) in (kernel.CLEARING, kernel.LATE) or int(row["assist_paid"]) == 2

    def heap_lock(self) -> Step:
        """Process step: take mheap.lock as often as the allocation needs it. (mheap.go:allocSpan)"""
        env, lock, header = self.world.env, self.world.heap_lock, self.world.heap.header
        complete = tried = 0
        while not complete:
            asked = self.world.now
            yield from lock.acquire(self.index, asked)
            held, complete = with_heap_lock(header, self.index, self.world.now - asked, tried)
            tried = 1
            lock.keep_until(self.world.now + int(held))
            yield after(env, int(held), self.order)
            yield from self._unlock(lock, HEAP_WAIT)

    def _central_lock(self, g: Goroutine) -> Step:
        """Process step: take the mcentral lock of the refill's span class once. (go1.14 mcentral.go:cacheSpan)"""
        env, heap = self.world.env, self.world.heap
        lock = self.world.central_locks[int(heap.arrays["goroutines"][g.id]["spanclass"])]
        asked = self.world.now
        yield from lock.acquire(self.index, asked)
        held = with_central_lock(heap.header, self.index, self.world.now - asked)
        lock.keep_until(self.world.now + int(held))
        yield after(env, int(held), self.order)
        yield from self._unlock(lock, CENTRAL_WAIT)

    def _unlock(self, lock: Any, cause: int) -> Step:
        """Process step: release a lock; waking a sleeper takes the waker's time. The rest is in the price of the hold."""
        extra = lock.release(self.index, self.world.now) - lock.prices.release
        if extra > 0:
            owe(self.world.heap.header, self.index, cause, extra)
            yield after(self.world.env, extra, self.order)
