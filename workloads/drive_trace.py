"""Goroutines that do again what a recorded trace says (tracestream.py), on a simulated program."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import simpy

from sim.go.goroutine import Body, Goroutine
from sim.go.inherit import inherit
from sim.go.world import World
from workloads.tracestream import Program
from workloads.tracestream_items import COLLECT, CREATE, FIRE, MEM_STATS, REAP, SLEEP, SLEEP_ORPHAN, STACK, WAIT


class Player:
    """A program that is being played: ``done`` fires when every goroutine is at its end."""

    def __init__(self, world: World, program: Program) -> None:
        self.world = world
        self.program = program
        self.done: simpy.Event = simpy.Event(world.env)
        self._left = len(program.starts)
        self._events: dict[int, simpy.Event] = {}  # those that one side has come to
        self._passed = program.first[:-1].copy()  # by goroutine: the step whose operations come next
        self._late: dict[int, list[Any]] = defaultdict(list)  # groups of deaths that wait for their goroutine

    def start(self) -> None:
        """Have the heap that the program begins with, and start the goroutines that are there at once; the others follow."""
        self.world.roots.reserve_shared_up_to(self.program.variables)
        start = self.program.start
        spans = start.spans.copy()
        spans["cached_by"][spans["cached_by"] >= len(self.world.sched.procs)] = -1  # of a P that this run has not
        inherit(self.world, spans, self.program.inherited, start.slots)
        if start.heap_live:
            self.world.gc.resume(start.heap_live, start.heap_goal)
        starts = self.program.starts
        order = np.argsort(starts, kind="stable")
        order = order[starts[order] >= 0]
        self.world.env.process(self._begin(order.tolist(), starts[order].tolist()))

    def _begin(self, goroutines: list[int], times: list[int]) -> Any:
        """Process: start what nobody in the program starts, at its time."""
        for i, time in zip(goroutines, times, strict=True):
            if time > self.world.now:
                yield self.world.env.timeout(time - self.world.now)
            self.world.go(self._play, i, name=self._name(i))

    def _name(self, i: int) -> str:
        return f"goroutine/{self.program.names[i]}"

    def _event(self, number: int) -> simpy.Event:
        """An event's one side has come: the event, which the other side finds too."""
        found = self._events.pop(number, None)
        if found is None:
            found = self._events[number] = simpy.Event(self.world.env)
        return found

    def _play(self, g: Goroutine, i: int) -> Body:
        """Goroutine: its steps in turn."""
        program, env = self.program, self.world.env
        first, end = program.first[i : i + 2].tolist()
        at = int(program.steps["end"][first - 1]) if first else 0
        for step, (kind, arg, upto) in enumerate(program.steps[first:end].tolist(), first):
            if upto > at:
                yield g.run(program.ops[at:upto])
                at = upto
            self._passed[i] = step + 1
            if i in self._late:
                yield from self._reap(g, self._late.pop(i))
            if kind == WAIT:
                yield self._event(arg)
            elif kind == FIRE:
                self._event(arg).succeed()
            elif kind == CREATE:
                yield g.go(self._play, arg, name=self._name(arg))
            elif kind in (SLEEP, SLEEP_ORPHAN):
                yield env.timeout(arg)
            elif kind == COLLECT:
                yield from self.world.gc.collect(g)
            elif kind == MEM_STATS:
                yield from self.world.gc.read_mem_stats(g)
            elif kind == STACK:
                yield g.use_stack(arg)
            elif kind == REAP:
                yield from self._reap(g, program.groups[program.points[arg] : program.points[arg + 1]].tolist())
        self._left -= 1
        if not self._left:
            self.done.succeed()

    def _reap(self, g: Goroutine, groups: list[Any]) -> Body:
        """Goroutine: drop groups of objects; those not all allocated yet are left to the goroutine that will."""
        for group in groups:
            owner, last_step, start, stop = group
            if owner < 0 or self._passed[owner] > last_step:
                yield g.run(self.program.deaths[start:stop])
            else:
                self._late[owner].append(group)
