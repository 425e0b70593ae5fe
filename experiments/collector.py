"""What a run's collector did, in a few figures: cycles, pauses, its share of the CPU time, the highest heap.

The records of cycles are read here and nowhere else in this folder.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.go.world import World
from sim.metrics.histogram import Histogram
from sim.units import SEC


@dataclass(frozen=True, slots=True)
class Cycle:
    """One collection, picoseconds and bytes: when it began and ended, its two pauses, CPU time of marking but that of
    idle Ps, time of assists (in it too), and the heap when it began, when it ended, and what of it was live."""

    begun: int
    ended: int
    pauses: tuple[int, int]
    marking: int
    assists: int
    heap_begun: int
    heap_ended: int
    live: int
    goal: int


def cycles(world: World) -> list[Cycle]:
    """The collections that have ended, in order."""
    return [
        Cycle(
            begun=one["t_sweep_term"],
            ended=one["t_end"],
            pauses=(one["t_mark"] - one["t_sweep_term"], one["t_end"] - one["t_mark_term"]),
            marking=one["dedicated_time"] + one["fractional_time"] + one["assist_time"],
            assists=one["assist_time"],
            heap_begun=one["heap0"],
            heap_ended=one["heap1"],
            live=one["heap2"],
            goal=one["goal"],
        )
        for one in world.gc.cycles
    ]


def cpu_time(world: World, seen: list[Cycle]) -> int:
    """CPU time of some cycles, picoseconds: marking, but not by idle Ps, and every P while the world is stopped."""
    procs = len(world.sched.procs)
    return sum(cycle.marking + procs * sum(cycle.pauses) for cycle in seen)


def peak_heap(world: World, seen: list[Cycle]) -> int:
    """The largest live heap so far by the runtime's own count (heapLive), which falls at the end of a cycle alone."""
    return max([cycle.heap_ended for cycle in seen] + [int(world.heap.fields.heap_live)])


def figures(world: World) -> dict[str, int | float]:
    """The figures that a result has. A cycle that has not ended is not counted."""
    seen = cycles(world)
    pauses = Histogram()
    for cycle in seen:
        for pause in cycle.pauses:
            pauses.add(pause)
    summary = pauses.summary()
    whole = world.now * len(world.sched.procs)
    return {
        "/sim/gc/cycles:cycles": len(seen),
        "/sim/gc/pauses:seconds/count": summary.count,
        "/sim/gc/pauses:seconds/p50": summary.percentiles[0] / SEC,
        "/sim/gc/pauses:seconds/p99": summary.percentiles[2] / SEC,
        "/sim/gc/pauses:seconds/max": summary.maximum / SEC,
        "/sim/gc/cpu:share": cpu_time(world, seen) / whole if whole else 0.0,
        "/sim/gc/assists:share": sum(cycle.assists for cycle in seen) / whole if whole else 0.0,
        "/sim/heap/peak:bytes": peak_heap(world, seen),
    }
