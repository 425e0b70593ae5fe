"""Threads that do again what a recorded trace says (tracestream.py), a thread for each goroutine.

What a goroutine computed, allocated and waited for is the thread's; what the collector found dead is freed at the point
where the program drops it, by the thread that runs next (tracestream_deaths.py: only the marks around a death are
recorded). The heap that the program begins with is allocated before the clock starts, by thread 0 and for nothing.

Left out, since threads on these allocators have none of it: calls of the collector, statistics of memory, growth of
stacks, and what starting a thread costs beyond waking one.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator
from typing import Any

from sim.threads.state import NEVER
from sim.threads.world import ThreadWorld
from workloads.tracestream import Program
from workloads.tracestream_items import CREATE, FIRE, REAP, SLEEP, SLEEP_ORPHAN, WAIT


class TraceLoad:
    """A program of a trace on a world that has a thread for each of its goroutines."""

    def __init__(self, world: ThreadWorld, program: Program) -> None:
        n = len(program.starts)
        if world.nthreads != n:
            raise ValueError(f"{n} goroutines run on a world of {n} threads, not of {world.nthreads}")
        self.world = world
        self.program = program
        self._steps = [self._play(i) for i in range(n)]
        self._left = n
        self._happened: set[int] = set()  # events that nobody has waited for yet
        self._waiting: dict[int, int] = {}  # by event, the goroutine that does
        self._passed = program.first[:-1].copy()  # by goroutine: the step whose operations come next
        self._late: dict[int, list[Any]] = defaultdict(list)  # groups of deaths that wait for their goroutine
        self._ready: deque[int] = deque()  # woken at this instant
        self._timers = [(int(time), i) for i, time in enumerate(program.starts) if time >= 0]
        heapq.heapify(self._timers)
        world.heap.run_ops(0, program.inherited)
        for name in world.heap.fields.dtype.names:
            if name.startswith("fact_"):
                world.heap.fields[name] = 0  # nobody pays for it

    def advance(self, limit: int) -> bool:
        """Let time pass to ``limit``; True, at the time when the last one ended, if all are done before."""
        while self._left:
            until = min(limit, self._timers[0][0] if self._timers else NEVER)
            t = self.world.advance(until)
            if t is not None:
                self._go_on(t, True)
            elif self._timers and self._timers[0][0] <= until:
                self._ready.append(heapq.heappop(self._timers)[1])
            else:
                return False
            while self._ready:
                self._go_on(self._ready.popleft(), False)
        return True

    def _go_on(self, t: int, running: bool) -> None:
        """A thread goes on with its next operations, or has none now and leaves its CPU, if it has one."""
        ops = next(self._steps[t], None)
        if ops is not None:
            self.world.submit(t, ops)
            if not running:
                self.world.wake(t, self.world.now, self.world.prices.wake)
        elif running:
            self.world.rest(t)

    def _play(self, i: int) -> Iterator[Any]:
        """A goroutine's steps in turn: the operations to run next, None when it has to wait."""
        program = self.program
        first, end = program.first[i : i + 2].tolist()
        at = int(program.steps["end"][first - 1]) if first else 0
        for step, (kind, arg, upto) in enumerate(program.steps[first:end].tolist(), first):
            if upto > at:
                yield program.ops[at:upto]
                at = upto
            self._passed[i] = step + 1
            yield from self._reap(self._late.pop(i, ()))
            if kind == WAIT:
                if arg not in self._happened:
                    self._waiting[arg] = i
                    yield None
                self._happened.discard(arg)
            elif kind == FIRE:
                self._happened.add(arg)
                if arg in self._waiting:
                    self._ready.append(self._waiting.pop(arg))
            elif kind == CREATE:
                self._ready.append(arg)
            elif kind in (SLEEP, SLEEP_ORPHAN):
                heapq.heappush(self._timers, (self.world.now + arg, i))
                yield None
            elif kind == REAP:
                yield from self._reap(program.groups[program.points[arg] : program.points[arg + 1]].tolist())
        self._left -= 1

    def _reap(self, groups: Any) -> Iterator[Any]:
        """Free groups of objects; those not all allocated yet are left to the goroutine that will."""
        for group in groups:
            owner, last_step, start, stop = group
            if owner < 0 or self._passed[owner] > last_step:
                yield self.program.deaths[start:stop]
            else:
                self._late[owner].append(group)
