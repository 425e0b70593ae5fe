"""Goroutines, Ps and the scheduler as SimPy processes (mirrors proc.go).

A goroutine is a SimPy process whose resumption waits for a P: its Python code takes no simulated time and runs when a P
runs it. Inside, ``yield g.run(ops)`` (thousands of operations), ``yield g.malloc(n)``, ``yield g.drop(obj)``,
``yield g.compute(ps)`` and ``yield g.go(function, ...)`` use the P; any other SimPy event parks the goroutine and frees
the P until it fires. A P is a SimPy process too: it takes goroutines from its queue of 256 and runnext, the global
queue or another P, and hands their batches to the pump; when a lock is needed it waits for it, keeping its goroutine.

The scheduler's rules are the runtime's: runnext inherits the time slice of 10 ms, every 61st turn looks at the global
queue first, a full queue moves half to the global one, a thief takes half of its victim's queue (runnext only on the
last of four passes), a woken P that finds work wakes the next one, and only one searches at a time.

Left out: sched.lock's contention, sysmon and syscalls, netpoll (timers and outside events put goroutines on an idle
P or the global queue), the 3 us a thief waits before it takes a running P's runnext.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy

from sim.engine.clock import RUN, after, now, priority, wake
from sim.go import pump as kernel
from sim.go.state import CENTRAL_WAIT, HEAP_WAIT, OFF_P
from sim.jit import PLAIN
from sim.metrics.histogram import Histogram
from sim.ops import ALLOC, COMPUTE, DEAD, NEEDZERO, NOSCAN, OP, SHARED
from sim.units import MS, throw

if TYPE_CHECKING:
    from sim.go.world import World

TIME_SLICE = 10 * MS  # forcePreemptNS (proc.go)
OS_SLICE = 3 * MS  # how long Linux lets a thread run while others wait (kernel/sched/fair.c: base slice, 8 CPUs or more)
RUNQ = 256  # length of a P's queue (runtime2.go)
GLOBAL_PERIOD = 61  # turns between looks at the global queue first (proc.go:findRunnable)
GLOBAL_BATCH = RUNQ // 2
STEAL_PASSES = 4

Body = Generator[simpy.Event, Any, Any]
Step = Generator[simpy.Event, Any, Any]


class Work(simpy.Event):
    """What a goroutine asks of its P: to run a batch of operations."""

    def __init__(self, g: Goroutine, ops: Any, variables: int, result: Any) -> None:
        super().__init__(g.world.env)
        self.ops = ops.view(np.recarray) if PLAIN else ops
        self.variables = variables  # own variables the operations name
        self.result = result


class Goroutine(simpy.Process):
    """A goroutine: a SimPy process that runs when a P runs it. Made by ``world.go`` or, from inside, ``g.go``.

    It is an event too: it fires with the function's return value when it ends. ``waited`` is the picoseconds it has
    spent runnable without a P.
    """

    def __init__(self, world: World, name: str, function: Callable[..., Body], args: tuple[Any, ...]) -> None:
        self.world = world
        self.id = world.sched.new_id()
        self.p: Proc | None = None  # the P it runs on
        self.waited = 0
        self.label = name
        self._cause: simpy.Event | None = None  # the event it goes on with
        self._queued = 0
        self._off_since = -1
        super().__init__(world.env, function(self, *args))

    # what its own code yields

    def run(self, ops: Any, variables: int = 0) -> Work:
        """Run a batch: an array of `sim.ops.OP` records, unchanged until done; its own variables are 0..variables-1.

        Throw if a record is none, names another variable, or asks for less than 1 byte or more than 1 TiB.
        """
        if not isinstance(ops, np.ndarray) or ops.dtype != OP or ops.ndim != 1 or not ops.flags.c_contiguous:
            throw("a batch is a contiguous array of sim.ops.OP")
        return Work(self, ops, variables, None)

    def malloc(self, size: int, ptr_bytes: int = 0, needzero: bool = True) -> Work:
        """Allocate ``size`` bytes, pointers in the first ``ptr_bytes``; its value is a handle for `drop`."""
        handle = self.world.roots.new_handle()
        flags = SHARED | (NEEDZERO if needzero else 0) | (0 if ptr_bytes else NOSCAN)
        return Work(self, _one(ALLOC, flags, handle, size, ptr_bytes), 0, handle)

    def drop(self, handle: int) -> Work:
        """Drop the object of a handle: it is dead, and the handle may name another from now on."""
        self.world.roots.free_handle(handle)
        return Work(self, _one(DEAD, SHARED, handle, 0, 0), 0, None)

    def compute(self, picoseconds: int) -> Work:
        """Run that long without allocating; can be preempted anywhere."""
        return Work(self, _one(COMPUTE, 0, 0, picoseconds, 0), 0, None)

    def go(self, function: Callable[..., Body], *args: Any, name: str = "") -> Work:
        """Start ``function(child, *args)`` as a goroutine; its value is the child. (newproc)"""
        sched = self.world.sched
        price = sched.pay("goroutine_reused" if sched.has_dead() else "goroutine_new")
        work = Work(self, _one(COMPUTE, 0, 0, price, 0), 0, None)
        work.result = Goroutine(self.world, name or function.__name__, function, args)
        return work

    def interrupt(self, cause: Any = None) -> None:
        """Goroutines cannot be interrupted, as in Go: send them something they wait for."""
        throw(f"goroutine {self.label} cannot be interrupted ({cause!r})")

    # what SimPy and the P do with it

    def _resume(self, event: simpy.Event) -> None:
        """The event it waited for fired (SimPy calls this): it is runnable. (ready)"""
        self._cause = event
        self.world.sched.ready(self)

    def advance(self) -> Work | None:
        """Run its Python code up to the next yield, on its P; the work it then asks for, None if it parked or ended."""
        cause, self._cause = self._cause, None
        assert cause is not None
        super()._resume(cause)
        target = self._target
        return target if isinstance(target, Work) else None

    def finish(self, work: Work) -> None:
        """Its work is done: the value of the yield is the work's result."""
        work._ok = True
        work._value = work.result
        work.callbacks = None  # type: ignore[assignment]
        self._cause = work


def _one(kind: int, flags: int, obj: int, arg: int, ptr_bytes: int) -> Any:
    """A batch of one operation."""
    ops = np.zeros(1, OP)
    ops[0] = (kind, flags, obj, arg, ptr_bytes)
    return ops


class Proc:
    """A P and the thread that runs it: its queue, and the process that runs goroutines. (runtime2.go:p)"""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.order = priority(RUN, index)
        self.runq: deque[Goroutine] = deque()
        self.runnext: Goroutine | None = None
        self.tick = 0  # schedtick
        self.slice_end = 0
        self.back: simpy.Event | None = None  # the pump gives the P back by it
        self.wakeup: simpy.Event | None = None  # it is idle and waits for this
        self.idle_time = self.lock_time = self.stopped_time = self.no_cpu_time = 0
        self._idle_since = -1
        self.draws = world.stream(f"scheduler/p{index}")
        self.fields = world.heap.arrays["procs"][index]
        world.env.process(self._run())

    # queues

    def put(self, g: Goroutine, to_next: bool) -> None:
        """Queue a goroutine here, as runnext or at the tail; a full queue moves half to the global one. (runqput)"""
        kicked: Goroutine | None = g
        if to_next:
            kicked, self.runnext = self.runnext, g
        if kicked is None:
            return
        self.runq.append(kicked)
        if len(self.runq) > RUNQ:
            self.world.sched.queue.extend(self.runq.popleft() for _ in range(RUNQ // 2 + 1))

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

    def _steal(self) -> Goroutine | None:
        """Half of another P's queue, the oldest first; its runnext only at the end. (stealWork)"""
        procs = self.world.sched.procs
        if not any(victim.runq or victim.runnext for victim in procs):
            return None
        for last in (*(False,) * (STEAL_PASSES - 1), True):
            first = self.draws.below(len(procs))
            for i in range(len(procs)):
                victim = procs[(first + i) % len(procs)]
                if victim is self:
                    continue
                if victim.runq:
                    taken = [victim.runq.popleft() for _ in range((len(victim.runq) + 1) // 2)]
                    self.runq.extend(taken[:-1])
                    return taken[-1]
                if last and victim.runnext is not None:
                    g, victim.runnext = victim.runnext, None
                    return g
        return None

    # the process

    def _run(self) -> Step:
        """Process: schedule and execute, for ever. (schedule)"""
        yield from self._idle()
        while True:
            g, inherits = yield from self._find()
            self.tick += 1
            if not inherits:
                self.slice_end = self.world.now + TIME_SLICE
                self.fields["slice_end"] = self.slice_end
            wait = self.world.now - g._queued
            g.waited += wait
            self.world.sched.latencies.add(wait)
            yield after(self.world.env, self.world.sched.pay("switch"), self.order)
            yield from self._execute(g)

    def _find(self) -> Step:
        """Process step: a goroutine to run, going idle until there is one. (findRunnable)"""
        sched, env = self.world.sched, self.world.env
        while True:
            if sched.stopping:
                yield from self._stopped()
            g, inherits = self._next()
            if g is None:
                g = self._steal()
                if g is not None:
                    yield after(env, sched.pay("steal"), self.order)
            if g is not None:
                if sched.spinning is self:
                    sched.spinning = None
                    sched.wake_p()
                return g, inherits
            sched.cpus.release(self)
            yield from self._idle()

    def _idle(self) -> Step:
        """Process step: nothing to do; sleep until woken to look for work. (stopm)"""
        sched, env = self.world.sched, self.world.env
        if sched.spinning is self:
            sched.spinning = None
        since = self._idle_since = self.world.now
        self.wakeup = simpy.Event(env)
        sched.idle.append(self)
        if sched.stopping:
            sched.check_stopped()
        yield self.wakeup
        self.idle_time += self.world.now - since
        self._idle_since = -1
        yield from self._get_cpu()

    def idle_until_now(self) -> int:
        """Picoseconds idle so far, the time since it went idle last included."""
        return self.idle_time + (self.world.now - self._idle_since if self._idle_since >= 0 else 0)

    def _get_cpu(self) -> Step:
        """Process step: wait for a CPU, if threads outnumber them."""
        since = self.world.now
        yield from self.world.sched.cpus.acquire(self)
        self.no_cpu_time += self.world.now - since

    def _stopped(self) -> Step:
        """Process step: a stop-the-world is on; wait for its end."""
        sched = self.world.sched
        since = self.world.now
        sched.cpus.release(self)
        while sched.stopping:
            yield sched.report_stopped()
        self.stopped_time += self.world.now - since
        yield from self._get_cpu()

    def _execute(self, g: Goroutine) -> Step:
        """Process step: run a goroutine until it parks, ends or is preempted. (execute)"""
        sched = self.world.sched
        g.p = self
        work = g._target if isinstance(g._target, Work) and g._cause is None else None
        while True:
            if sched.stopping:
                yield from self._stopped()
            if work is None:
                sched.note_running(self)
                work = g.advance()
                if work is None:
                    break
                self.world.roots.submit(g, work)
            self.fields["g"] = g.id
            if (yield from self._work(g)) == kernel.PREEMPTED:
                g.p = None
                sched.ready_global(g)
                return
            g.finish(work)
            work = None
        g.p = None
        if not g.is_alive:
            sched.note_dead(g)
            yield after(self.world.env, sched.pay("goroutine_exit"), self.order)

    def _work(self, g: Goroutine) -> Step:
        """Process step: run the goroutine's batch in the pump to its end (DONE) or that of its slice (PREEMPTED)."""
        env, heap, driver = self.world.env, self.world.heap, self.world.sched.driver
        if g._off_since >= 0:
            kernel.owe(heap.header, self.index, OFF_P, self.world.now - g._off_since)
            g._off_since = -1
        while True:
            self.back = simpy.Event(env)
            driver.enter(self)
            reason = yield self.back
            if reason == kernel.DONE:
                return reason
            if reason == kernel.NEED_HEAP:
                yield from self._heap_lock()
            elif reason == kernel.NEED_CENTRAL:
                yield from self._central_lock(g)
            elif reason == kernel.NEED_ROOM:
                heap.make_room(int(heap.arrays["goroutines"][g.id]["npages"]))
            elif reason == kernel.STOPPED:
                since = self.world.now
                yield from self._stopped()
                self._was_off(g, since)
            elif reason == kernel.CPU_LOST:
                since = self.world.now
                self.world.sched.cpus.release(self)
                yield from self._get_cpu()
                self._was_off(g, since)
            elif reason == kernel.PREEMPTED:
                if int(heap.arrays["goroutines"][g.id]["stage"]) == kernel.CLEARING:
                    g._off_since = self.world.now
                return reason

    def _was_off(self, g: Goroutine, since: int) -> None:
        """Charge time off the P to the allocation it interrupted, if it did."""
        if int(self.world.heap.arrays["goroutines"][g.id]["stage"]) == kernel.CLEARING:
            kernel.owe(self.world.heap.header, self.index, OFF_P, self.world.now - since)

    def _heap_lock(self) -> Step:
        """Process step: take mheap.lock as often as the allocation needs it. (mheap.go:allocSpan)"""
        env, lock, header = self.world.env, self.world.heap_lock, self.world.heap.header
        tried = complete = 0
        while not complete:
            asked = self.world.now
            yield from lock.acquire(self.index, asked)
            held, complete = kernel.with_heap_lock(header, self.index, self.world.now - asked, tried)
            tried = 1
            yield after(env, int(held), self.order)
            yield from self._unlock(lock, HEAP_WAIT)
            self.lock_time += self.world.now - asked

    def _central_lock(self, g: Goroutine) -> Step:
        """Process step: take the mcentral lock of the refill's span class once. (go1.14 mcentral.go:cacheSpan)"""
        env, heap = self.world.env, self.world.heap
        lock = self.world.central_locks[int(heap.arrays["goroutines"][g.id]["spanclass"])]
        asked = self.world.now
        yield from lock.acquire(self.index, asked)
        held = kernel.with_central_lock(heap.header, self.index, self.world.now - asked)
        yield after(env, int(held), self.order)
        yield from self._unlock(lock, CENTRAL_WAIT)
        self.lock_time += self.world.now - asked

    def _unlock(self, lock: Any, cause: int) -> Step:
        """Process step: release a lock; waking a sleeper takes the waker's time. The rest is in the price of the hold."""
        extra = lock.release(self.index, self.world.now) - lock.prices.release
        if extra > 0:
            kernel.owe(self.world.heap.header, self.index, cause, extra)
            yield after(self.world.env, extra, self.order)


class Driver:
    """Runs the pump whenever a P's turn comes before the next event of the world."""

    def __init__(self, world: World) -> None:
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

    def _next(self, p: int, time: int) -> None:
        """The next turn is this P's."""
        self.env.turn = (time, self.procs[p].order)

    def drive(self) -> None:
        """Run the pump up to the next event of the world, or until a P needs Python: it goes on at once."""
        self.events += 1
        answer = map(int, kernel.pump(self.header, *self.env.limit()))  # numpy integers in plain mode
        reason, index, time, next_index, next_time = answer
        self._next(next_index, next_time)
        if reason == kernel.STAY:
            return
        p = self.procs[index]
        if reason == kernel.OP_EVENT:
            after(self.env, time - now(self.env), p.order).callbacks.append(partial(self.enter, p))
        else:
            assert p.back is not None
            self.env.fire(p.back, time, reason)


class Cpus:
    """The machine's CPUs, for more Ps than CPUs: a thread runs for a slice, then the next in line gets the CPU."""

    def __init__(self, world: World, count: int) -> None:
        self.world = world
        self.free = count
        self.waiting: deque[tuple[Proc, simpy.Event]] = deque()

    def acquire(self, p: Proc) -> Step:
        """Process step: get a CPU; taking over one from another thread costs a switch."""
        env = self.world.env
        if self.free > 0:
            self.free -= 1
        else:
            event = simpy.Event(env)
            self.waiting.append((p, event))
            self.world.heap.fields.cpu_waiters = len(self.waiting)
            self._hurry()
            yield event
            yield after(env, self.world.sched.pay("os_switch"), p.order)
        p.fields["cpu_end"] = self.world.now + OS_SLICE

    def release(self, p: Proc) -> None:
        """Give the CPU to the next in line."""
        if not self.waiting:
            self.free += 1
            return
        heir, event = self.waiting.popleft()
        self.world.heap.fields.cpu_waiters = len(self.waiting)
        wake(self.world.env, event, heir.order)

    def _hurry(self) -> None:
        """Computes of threads whose slice is over, or ends first, end then."""
        header = self.world.heap.header
        for p in self.world.sched.procs:
            if p.wakeup is None:
                kernel.cut(header, p.index, max(self.world.now, int(p.fields["cpu_end"])))
        self.world.sched.driver.rearm()


class Sched:
    """The global scheduler: queues, idle Ps, and stopping the world. (runtime2.go:schedt)"""

    def __init__(self, world: World, cpus: int) -> None:
        self.world = world
        self.queue: deque[Goroutine] = deque()
        self.idle: list[Proc] = []  # the last one to go idle is woken first
        self.stopping = False
        self.created = self.alive = 0
        self.driver = Driver(world)
        self.cpus = Cpus(world, cpus)
        self.spinning: Proc | None = None  # the one woken P that looks for work
        self.latencies = Histogram()  # from runnable to running
        self._free_ids: list[int] = []
        self._ids = 1
        self._last_running: tuple[int, Proc | None] = (-1, None)
        self._stopped_procs = 0
        self._all_stopped: simpy.Event | None = None
        self._restart: simpy.Event | None = None
        self.procs: list[Proc] = []

    def start(self, nprocs: int) -> None:
        """Make the Ps, all idle."""
        self.procs.extend(Proc(self.world, index) for index in range(nprocs))
        self.driver.procs = self.procs

    # prices and identities

    def pay(self, step: str) -> int:
        """A price of the scheduler: its mean."""
        return self.world.prices.steps[step].mean

    def new_id(self) -> int:
        """A row in the table of goroutines, of a dead one if there is any."""
        self.created += 1
        self.alive += 1
        if self._free_ids:
            return self._free_ids.pop()
        self._ids += 1
        self.world.roots.reserve_goroutines(self._ids)
        return self._ids - 1

    def has_dead(self) -> bool:
        """Whether a go statement finds a dead goroutine to reuse. (gfget)"""
        return bool(self._free_ids)

    def note_dead(self, g: Goroutine) -> None:
        """A goroutine ended."""
        self.alive -= 1
        self._free_ids.append(g.id)
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

    def ready(self, g: Goroutine) -> None:
        """A goroutine is runnable: runnext of the P that readied it, else of an idle P, else the global queue. (ready)"""
        g._queued = self.world.now
        p = self.running()
        if p is not None:
            p.put(g, True)
        else:
            self.queue.append(g)
        self.wake_p()

    def ready_global(self, g: Goroutine) -> None:
        """A preempted goroutine goes to the end of the global queue. (goschedImpl)"""
        g._queued = self.world.now
        self.queue.append(g)
        self.wake_p()

    def wake_p(self) -> None:
        """Wake an idle P to look for work, unless one is looking already. (wakep)"""
        if self.stopping or not self.idle or self.spinning is not None:
            return
        p = self.spinning = self.idle.pop()
        assert p.wakeup is not None
        wake(self.world.env, p.wakeup, p.order, None, self.pay("wake_p"))
        p.wakeup = None

    # stopping the world

    def stop_the_world(self) -> Step:
        """Process step: stop every P at its next safepoint; on return all are. (stopTheWorldWithSema)"""
        if self.stopping:
            throw("the world is being stopped already")
        env, header = self.world.env, self.world.heap.header
        self.stopping = True
        self.world.heap.fields.stop = 1
        self._restart = simpy.Event(env)
        self._all_stopped = simpy.Event(env)
        self._stopped_procs = 0
        for p in self.procs:
            kernel.cut(header, p.index, self.world.now)
        self.driver.rearm()
        self.check_stopped()
        yield self._all_stopped

    def report_stopped(self) -> simpy.Event:
        """A P has stopped; the event that ends the stop."""
        self._stopped_procs += 1
        self.check_stopped()
        assert self._restart is not None
        return self._restart

    def check_stopped(self) -> None:
        """Tell the stopper when every P is stopped or idle."""
        assert self._all_stopped is not None
        if self._stopped_procs + len(self.idle) == len(self.procs) and not self._all_stopped.triggered:
            wake(self.world.env, self._all_stopped, priority(RUN, len(self.procs)))

    def start_the_world(self) -> None:
        """Let every P go on. (startTheWorldWithSema)"""
        if not self.stopping:
            throw("the world is not stopped")
        assert self._restart is not None
        self.stopping = False
        self.world.heap.fields.stop = 0
        wake(self.world.env, self._restart, priority(RUN, len(self.procs)))
        if self.queue or any(p.runq for p in self.procs):
            self.wake_p()
