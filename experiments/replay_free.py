"""Run a recorded trace on the timed simulator, whose own pacer says when cycles begin, and hold its cycles against the record.

Inputs are what the program did, in its order and at its pace (workloads/tracestream.py), the cycles that it asked for
among it; GOGC, the memory limit and the number of Ps; the heap at the start with its metrics. When an object died is
known within bounds only: drawn between them, or the bounds themselves (workloads/tracestream_deaths.py).

Nobody recorded how large the program's globals are. They are what is left of a recorded goal when what was marked, and
GOGC's share of it, is taken away: of all cycles the least, since stacks are in it too.

Cycles are paired in order: forced ones in turn, and the automatic ones between two of them so that the program has made
about as many mallocs before both (`pair`). What is left over, of either, shows in the counts.

A pacer is no clock: whether one large object comes before the trigger or passes it decides about all cycles from there
to the next forced one. So single runs differ, by the seed of the deaths and by a refill more or less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from experiments.machine import load_machine
from experiments.replay import Collections, Replay, replay
from sim.go import gccontroller
from sim.go.mgc import FORCED
from sim.go.mgcpacer import DEFAULT_HEAP_MINIMUM
from sim.go.world import World
from sim.metrics.cycles import NO_GOAL
from workloads.drive_trace import Player
from workloads.gotrace_cycles import RecordedCycle, recorded_cycles
from workloads.gotrace_model import OBJECT_ALLOC, Trace
from workloads.tracestream import build, check_allocations, gomaxprocs
from workloads.tracestream_deaths import DRAWN

VERSION = "go1.27"
MACHINE = "epyc-2core"
_GLOBALS = 128 << 10  # where no goal tells


@dataclass(frozen=True)
class GcRange:
    """A cycle: whether it was forced, mallocs before it, the live heap in bytes when it began, the goal it set, 0 for none."""

    forced: bool
    mallocs: int
    heap_live: int
    goal: int


def replay_free(
    trace: Trace,
    *,
    gogc: int = 100,
    memory_limit: int | None = None,
    seed: int = 1,
    deaths: str = DRAWN,
) -> Replay:
    """Counts of the replay that is told of sweeps, and the collections of the simulated program; see `run_freely`."""
    cycles = run_freely(trace, gogc=gogc, memory_limit=memory_limit, seed=seed, deaths=deaths)
    return replace(replay(trace), gc=compare(cycles, in_record(trace)))


def run_freely(
    trace: Trace,
    *,
    gogc: int = 100,
    memory_limit: int | None = None,
    seed: int = 1,
    deaths: str = DRAWN,
) -> list[GcRange]:
    """The cycles of the simulated go1.27 program, at the shipped machine's prices.

    ``gogc``: percent, -1 for off; ``memory_limit``: bytes; ``deaths``: one of tracestream_deaths.WAYS. Raises TraceError
    when nothing in the trace can be run.
    """
    check_allocations(trace)
    recorded = recorded_cycles(trace)
    world = World(
        VERSION,
        gomaxprocs(trace),
        load_machine(MACHINE, VERSION),
        seed,
        gogc=gogc,
        memory_limit=memory_limit,
        globals_bytes=globals_bytes(recorded, gogc, memory_limit),
        write_barriers=False,  # they are in recorded times
    )
    mallocs: list[int] = []
    goals: list[int] = []

    def watch(stage: str) -> None:
        if stage == "marking":
            mallocs.append(world.mallocs)
        elif stage == "sweeping":
            goals.append(int(gccontroller.heap_goal(world.heap.header)))

    world.gc.watcher = watch
    player = Player(world, build(trace, deaths=deaths, seed=seed, as_traced=True))
    player.start()
    world.run(until=player.done)
    ended = zip(world.gc.log.cycles, mallocs, goals, strict=False)  # the last one may not have ended
    return [
        GcRange(cycle.kind == FORCED, before, cycle.heap0, goal if goal < NO_GOAL else 0) for cycle, before, goal in ended
    ]


def in_record(trace: Trace) -> list[GcRange]:
    """The cycles of a trace; one under way at its start or its end is among them."""
    made = np.flatnonzero((trace.kind == OBJECT_ALLOC) & (trace.g >= 0))
    return [
        GcRange(
            one.forced,
            int(np.searchsorted(made, one.begin)),
            one.heap_live,
            one.goal if one.goal < NO_GOAL else 0,
        )
        for one in recorded_cycles(trace)
    ]


def globals_bytes(recorded: Sequence[RecordedCycle], gogc: int, memory_limit: int | None) -> int:
    """The program's globals with pointers, in bytes; a goal that a limit or the least heap sets tells nothing."""
    if gogc <= 0 or memory_limit is not None:
        return _GLOBALS
    least = DEFAULT_HEAP_MINIMUM * gogc // 100
    told = [cycle for cycle in recorded if cycle.marked and least < cycle.goal < NO_GOAL]
    rest = [(cycle.goal - cycle.marked) * 100 // gogc - cycle.marked for cycle in told]
    return max(min(rest), 0) if rest else _GLOBALS


def compare(cycles: Sequence[GcRange], recorded: Sequence[GcRange]) -> Collections:
    """Counts, and relative errors: the heap at the begin of automatic cycles, and the goals that all cycles set.

    A recorded value that is unknown, or a goal that is none, has no error.
    """
    forced = sum(cycle.forced for cycle in cycles)
    pairs = pair(cycles, recorded)
    return Collections(
        cycles=len(cycles) - forced,
        forced=forced,
        recorded_cycles=sum(not cycle.forced for cycle in recorded),
        trigger_error=tuple(
            ours.heap_live / theirs.heap_live - 1 for ours, theirs in pairs if theirs.heap_live and not theirs.forced
        ),
        goal_error=tuple(ours.goal / theirs.goal - 1 for ours, theirs in pairs if ours.goal and theirs.goal),
    )


def pair(cycles: Sequence[GcRange], recorded: Sequence[GcRange]) -> list[tuple[GcRange, GcRange]]:
    """Cycles of two programs that correspond, in order: the forced ones in turn, and others between the same two.

    Between those all of whom there are fewer have a partner: so that the mallocs before partners differ least in sum.
    """
    found: list[tuple[GcRange, GcRange]] = []
    for ours, theirs in zip(_runs(cycles), _runs(recorded), strict=False):
        if ours and theirs and ours[0].forced:
            found.append((ours.pop(0), theirs.pop(0)))
        found += _align(ours, theirs) if len(ours) <= len(theirs) else [(b, a) for a, b in _align(theirs, ours)]
    return found


def _runs(cycles: Sequence[GcRange]) -> list[list[GcRange]]:
    """Cycles in stretches that begin at each forced one, the automatic ones before the first apart."""
    runs: list[list[GcRange]] = [[]]
    for cycle in cycles:
        if cycle.forced:
            runs.append([])
        runs[-1].append(cycle)
    return runs


def _align(few: Sequence[GcRange], many: Sequence[GcRange]) -> list[tuple[GcRange, GcRange]]:
    """A partner in order for each of the few. ``least[i][j]``: the least sum for the first i, of the first j."""
    least = [[0] * (len(many) + 1)] + [[1 << 62] * (len(many) + 1) for _ in few]
    for i, one in enumerate(few, 1):
        for j in range(i, len(many) + 1):
            with_it = least[i - 1][j - 1] + abs(one.mallocs - many[j - 1].mallocs)
            least[i][j] = min(least[i][j - 1], with_it)
    found: list[tuple[GcRange, GcRange]] = []
    j = len(many)
    for i in range(len(few), 0, -1):
        while least[i][j - 1] == least[i][j]:
            j -= 1
        found.append((few[i - 1], many[j - 1]))
        j -= 1
    return found[::-1]
