"""What a run's collector did, in figures that Go has no names for: its share of the CPU time, the highest heap."""

from __future__ import annotations

from collections.abc import Sequence

from sim.go.world import World
from sim.metrics.cycles import Cycle


def cpu_time(world: World, seen: Sequence[Cycle]) -> int:
    """CPU time of some cycles, picoseconds: marking, but not by idle Ps, and every P while the world is stopped."""
    procs = len(world.sched.procs)
    marking = sum(one.dedicated_time + one.fractional_time + one.assist_time for one in seen)
    return marking + procs * sum(one.pause_time for one in seen)


def peak_heap(world: World, seen: Sequence[Cycle]) -> int:
    """The largest live heap so far by the runtime's own count (heapLive), which falls at the end of a cycle, and where
    caches are flushed: to be asked before that."""
    return max([one.heap1 for one in seen] + [int(world.heap.fields.heap_live)])


def figures(world: World) -> dict[str, int | float]:
    """The figures that a result has. A cycle that has not ended is not counted."""
    seen = world.gc.log.cycles
    whole = world.now * len(world.sched.procs)
    return {
        "/sim/gc/cpu:share": cpu_time(world, seen) / whole if whole else 0.0,
        "/sim/gc/assists:share": sum(one.assist_time for one in seen) / whole if whole else 0.0,
        "/sim/heap/peak:bytes": peak_heap(world, seen),
    }
