"""Run a recorded trace on the timed simulator, whose own pacer says when cycles begin, and hold its cycles against the record.

Inputs are what the program did, in its order and at its pace (workloads/tracestream.py), the cycles that it asked for
among it; GOGC, the memory limit and the number of Ps; the heap at the start with its metrics. When an object died is
known within bounds only: drawn between them, or the bounds themselves (workloads/tracestream_deaths.py).

Nobody recorded how large the program's globals are. They are what is left of a recorded goal when what was marked, and
GOGC's share of it, is taken away: of all cycles the least, since stacks are in it too.

Cycles are paired in turn, automatic ones between the same two forced ones; what is left over shows in the counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.machine import load_machine
from experiments.replay import Collections, Replay, replay
from sim.go import gccontroller
from sim.go.mgc import FORCED
from sim.go.mgcpacer import DEFAULT_HEAP_MINIMUM
from sim.go.world import World
from workloads.drive_trace import Player
from workloads.gotrace_cycles import RecordedCycle, recorded_cycles
from workloads.gotrace_model import Trace
from workloads.tracestream import build, check_allocations, gomaxprocs
from workloads.tracestream_deaths import DRAWN

VERSION = "go1.27"
MACHINE = "epyc-2core"
_GLOBALS = 128 << 10  # where no goal tells
_NO_GOAL = 1 << 62


@dataclass(frozen=True)
class Cycle:
    """A cycle: whether it was forced, the live heap in bytes when it began, the goal it set, 0 for none."""

    forced: bool
    heap_live: int
    goal: int


def replay_free(trace: Trace, **settings: Any) -> Replay:
    """Counts of the replay that is told of sweeps, and the collections of the simulated program; see `run_freely`.

    Raises InputError or TraceError when the trace cannot be run.
    """
    check_allocations(trace)
    cycles = run_freely(trace, **settings)
    return replace(replay(trace), gc=compare(cycles, recorded_cycles(trace)))


def run_freely(
    trace: Trace,
    *,
    gogc: int = 100,
    memory_limit: int | None = None,
    seed: int = 1,
    deaths: str = DRAWN,
) -> list[Cycle]:
    """The cycles of the simulated program. ``gogc`` -1: off; ``memory_limit``: bytes; ``deaths``: one of WAYS there."""
    recorded = recorded_cycles(trace)
    world = World(
        VERSION,
        gomaxprocs(trace),
        load_machine(MACHINE, VERSION),
        seed,
        gogc=gogc,
        memory_limit=memory_limit,
        globals_bytes=globals_bytes(recorded, gogc, memory_limit),
    )
    goals: list[int] = []

    def watch(stage: str) -> None:
        if stage == "sweeping":
            goals.append(int(gccontroller.heap_goal(world.heap.header)))

    world.gc.watcher = watch
    player = Player(world, build(trace, deaths=deaths, seed=seed, as_traced=True))
    player.start()
    world.run(until=player.done)
    return [
        Cycle(cycle.kind == FORCED, cycle.heap0, goal if goal < _NO_GOAL else 0)
        for cycle, goal in zip(world.gc.log.cycles, goals, strict=False)  # the last may have set a goal and not ended
    ]


def globals_bytes(recorded: Sequence[RecordedCycle], gogc: int, memory_limit: int | None) -> int:
    """The program's globals with pointers, in bytes; a goal that a limit or the least heap sets tells nothing."""
    if gogc <= 0 or memory_limit is not None:
        return _GLOBALS
    least = DEFAULT_HEAP_MINIMUM * gogc // 100
    told = [cycle for cycle in recorded if cycle.marked and least < cycle.goal < _NO_GOAL]
    rest = [(cycle.goal - cycle.marked) * 100 // gogc - cycle.marked for cycle in told]
    return max(min(rest), 0) if rest else _GLOBALS


def compare(cycles: Sequence[Cycle], recorded: Sequence[RecordedCycle]) -> Collections:
    """Counts, and relative errors: the heap at the begin of automatic cycles, and the goals that all cycles set.

    A recorded value that is unknown, or a goal that is none, has no error.
    """
    forced = sum(cycle.forced for cycle in cycles)
    triggers: list[float] = []
    goals: list[float] = []
    for ours, theirs in pair(cycles, recorded):
        if not theirs.forced and theirs.heap_live:
            triggers.append(ours.heap_live / theirs.heap_live - 1)
        if ours.goal and 0 < theirs.goal < _NO_GOAL:
            goals.append(ours.goal / theirs.goal - 1)
    return Collections(
        cycles=len(cycles) - forced,
        forced=forced,
        recorded_cycles=sum(not cycle.forced for cycle in recorded),
        trigger_error=tuple(triggers),
        goal_error=tuple(goals),
    )


def pair(cycles: Sequence[Any], recorded: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Cycles of two programs that correspond, in order: the forced ones in turn, and the others between them."""
    found: list[tuple[Any, Any]] = []
    for ours, theirs in zip(_runs(cycles), _runs(recorded), strict=False):
        found += list(zip(ours, theirs, strict=False))
    return found


def _runs(cycles: Sequence[Any]) -> list[list[Any]]:
    """Cycles in stretches that begin at each forced one, the automatic ones before the first apart."""
    runs: list[list[Any]] = [[]]
    for cycle in cycles:
        if cycle.forced:
            runs.append([])
        runs[-1].append(cycle)
    return runs
