"""What a run's collector did, in a few figures: cycles, pauses, its share of the CPU time, the highest heap.

The records of cycles are read here and nowhere else in this folder.
"""

from __future__ import annotations

from sim.go.world import World
from sim.metrics.cycles import Cycle
from sim.metrics.histogram import Histogram
from sim.units import SEC


def cycles(world: World) -> list[Cycle]:
    """The collections that have ended, in order."""
    return world.gc.log.cycles


def cpu_time(world: World, seen: list[Cycle]) -> int:
    """CPU time of some cycles, picoseconds: marking, but not by idle Ps, and every P while the world is stopped."""
    procs = len(world.sched.procs)
    marking = sum(one.dedicated_time + one.fractional_time + one.assist_time for one in seen)
    return marking + procs * sum(one.pause_time for one in seen)


def peak_heap(world: World, seen: list[Cycle]) -> int:
    """The largest live heap so far by the runtime's own count (heapLive), which falls at the end of a cycle alone."""
    return max([one.heap1 for one in seen] + [int(world.heap.fields.heap_live)])


def figures(world: World) -> dict[str, int | float]:
    """The figures that a result has. A cycle that has not ended is not counted."""
    seen = cycles(world)
    pauses = Histogram()
    for one in seen:
        pauses.add(one.pause_sweep_term)
        pauses.add(one.pause_mark_term)
    summary = pauses.summary()
    whole = world.now * len(world.sched.procs)
    return {
        "/sim/gc/cycles:cycles": len(seen),
        "/sim/gc/pauses:seconds/count": summary.count,
        "/sim/gc/pauses:seconds/p50": summary.percentiles[0] / SEC,
        "/sim/gc/pauses:seconds/p99": summary.percentiles[2] / SEC,
        "/sim/gc/pauses:seconds/max": summary.maximum / SEC,
        "/sim/gc/cpu:share": cpu_time(world, seen) / whole if whole else 0.0,
        "/sim/gc/assists:share": sum(one.assist_time for one in seen) / whole if whole else 0.0,
        "/sim/heap/peak:bytes": peak_heap(world, seen),
    }
