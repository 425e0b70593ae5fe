"""MemStats of a heap and its collector, field by field as Go has it (mirrors mstats.go:readmemstats_m, cpuStats).

What a heap's header does not know, the collector's goal, cycles, pauses and CPU time, is in a `GcStats`, which the
collector keeps. Objects are counted as spans are given back, so `flush_all_mcaches` comes first, as in ReadMemStats.

Identities, checked where MemStats is made: what size classes and large objects count adds up to total_alloc and
total_free; Sys is the sum of its parts; HeapSys = HeapInuse + HeapIdle; HeapIdle >= HeapReleased.

Time: MemStats' Unix times count from the program's start, and its nanoseconds are cut from picoseconds.
Left out, and zero: profiling buckets, stacks of threads, the collector's work buffers (part of GCSys).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numba import void

from sim.go.mcache import release_all
from sim.go.mfixalloc import SYS_PAGE
from sim.go.runtime import Heap
from sim.go.sizeclasses import class_to_size
from sim.go.stack import stackcache_clear
from sim.go.state import CACHEALLOC, SPANALLOC, heap_type
from sim.jit import bare, entry
from sim.metrics.cycles import Cycle
from sim.metrics.histogram import Histogram
from sim.units import NS, throw

PAUSES = 256  # of the last cycles, that MemStats tells
BY_SIZE = 61  # size classes it tells, class 0 for none among them
NO_LIMIT = (1 << 63) - 1  # GOMEMLIMIT=off

MEM_STATS = (
    ("Alloc", "TotalAlloc", "Sys", "Lookups", "Mallocs", "Frees", "HeapAlloc", "HeapSys", "HeapIdle", "HeapInuse")
    + ("HeapReleased", "HeapObjects", "StackInuse", "StackSys", "MSpanInuse", "MSpanSys", "MCacheInuse", "MCacheSys")
    + ("BuckHashSys", "GCSys", "OtherSys", "NextGC", "LastGC", "PauseTotalNs", "PauseNs", "PauseEnd", "NumGC")
    + ("NumForcedGC", "GCCPUFraction", "EnableGC", "DebugGC", "BySize")
)
"""The fields of runtime.MemStats in their order."""


@entry(void(heap_type))
def flush_all_mcaches(h: Any) -> None:
    """Give back what every P has cached, so that all it allocated is counted. (mstats.go:flushallmcaches)"""
    h = bare(h)
    for p in range(h[0].nprocs):
        release_all(h, p)
        stackcache_clear(h, p)


def rss(heap: Heap) -> int:
    """Bytes of the heap, stacks included, that memory stands behind: its part of what the system shows as RSS."""
    return int(heap.fields.resident_pages) * SYS_PAGE


@dataclass(slots=True)
class CpuStats:
    """CPU time of all Ps since the program's start by what it went to, picoseconds. (mstats.go:cpuStats)"""

    gc_assist_time: int = 0
    gc_dedicated_time: int = 0  # of dedicated and fractional workers
    gc_idle_time: int = 0
    gc_pause_time: int = 0
    scavenge_assist_time: int = 0
    scavenge_bg_time: int = 0
    idle_time: int = 0
    total_time: int = 0  # Ps times time

    @property
    def gc_total_time(self) -> int:
        """All of the collector's."""
        return self.gc_assist_time + self.gc_dedicated_time + self.gc_idle_time + self.gc_pause_time

    @property
    def scavenge_total_time(self) -> int:
        """All of the scavenger's."""
        return self.scavenge_assist_time + self.scavenge_bg_time

    @property
    def user_time(self) -> int:
        """What is left: the program, but also sweeping and scheduling."""
        return self.total_time - self.gc_total_time - self.scavenge_total_time - self.idle_time

    def accumulate_gc_pause_time(self, dt: int, procs: int) -> None:
        """So many Ps stood still for the collector for ``dt``. (accumulateGCPauseTime)

        go1.27 counts while stopping the Ps that have stopped (their time, on 1 P), then all Ps; go1.19 those on CPUs
        from the stop's beginning to its end, min(GOMAXPROCS, CPUs).
        """
        self.gc_pause_time += dt * procs

    def accumulate_marking(self, assist: int, dedicated: int, fractional: int, idle: int) -> None:
        """A cycle's marking took so much. (accumulate)"""
        self.gc_assist_time += assist
        self.gc_dedicated_time += dedicated + fractional
        self.gc_idle_time += idle


@dataclass(slots=True)
class GcStats:
    """What the collector knows and the heap's header does not; bytes and picoseconds.

    Settings and sizes are as of now: whoever reads statistics sets them first. `add` takes a cycle when it ends.
    The defaults are those of a program with the collector off.
    """

    gc_percent: int = -1  # GOGC, -1 = off
    memory_limit: int = NO_LIMIT
    heap_goal: int = NO_LIMIT
    heap_marked: int = 0
    heap_scan: int = 0
    last_stack_scan: int = 0
    globals_scan: int = 0
    starting_stack_size: int = 2048
    limiter_last_enabled: int = 0  # cycle in which the CPU limiter was last on
    cpu: CpuStats = field(default_factory=CpuStats)
    num_gc: int = 0
    num_forced_gc: int = 0
    last_gc: int = 0  # when the last cycle ended
    pause_total: int = 0
    pause: list[int] = field(default_factory=lambda: [0] * PAUSES)  # by cycle, the last 256: its pauses, and its end
    pause_end: list[int] = field(default_factory=lambda: [0] * PAUSES)
    gc_cpu_fraction: float = 0.0  # as of the last cycle's end
    stopping: Histogram = field(default_factory=Histogram)  # how long it took to stop the world, and how long it stood
    pauses: Histogram = field(default_factory=Histogram)

    def add(self, cycle: Cycle) -> None:
        """A cycle has ended, the next one. (gcMarkTermination)"""
        if cycle.number != self.num_gc + 1:
            throw(f"cycle {cycle.number} follows cycle {self.num_gc}")
        place = self.num_gc % PAUSES
        self.pause[place], self.pause_end[place] = cycle.pause_time, cycle.t_end
        self.num_gc += 1
        self.num_forced_gc += cycle.forced
        self.last_gc = cycle.t_end
        self.pause_total += cycle.pause_time
        self.gc_cpu_fraction = cycle.gc_cpu_fraction
        for stop, pause in (
            (cycle.stop_sweep_term, cycle.pause_sweep_term),
            (cycle.stop_mark_term, cycle.pause_mark_term),
        ):
            self.stopping.add(stop)
            self.pauses.add(pause)


@dataclass(frozen=True, slots=True)
class HeapStats:
    """Objects and bytes allocated and freed so far. (metrics.go:heapStatsAggregate)

    ``by_size``: size of a slot, allocated, freed, by size class; class 0 is none. Tiny objects combined into a block
    are in none of these but ``tiny_allocs``; the block is.
    """

    total_allocated: int
    total_freed: int
    total_allocs: int
    total_frees: int
    large_allocs: int
    large_frees: int
    tiny_allocs: int
    by_size: tuple[tuple[int, int, int], ...]


def heap_stats(heap: Heap) -> HeapStats:
    """What was allocated and freed, as far as it is flushed from the Ps' caches; throws where two counts disagree."""
    fields, arrays = heap.fields, heap.arrays
    counts = zip(class_to_size, arrays["small_alloc_count"], arrays["small_free_count"], strict=True)
    by_size = tuple((int(size), int(allocs), int(frees)) for size, allocs, frees in counts)
    allocated = int(fields.large_alloc) + sum(size * allocs for size, allocs, _ in by_size)
    freed = int(fields.large_free) + sum(size * frees for size, _, frees in by_size)
    if allocated != int(fields.total_alloc):
        throw(f"total_alloc {int(fields.total_alloc)} and consistent stats {allocated} are not equal")
    if freed != int(fields.total_free):
        throw(f"total_free {int(fields.total_free)} and consistent stats {freed} are not equal")
    return HeapStats(
        total_allocated=allocated,
        total_freed=freed,
        total_allocs=int(fields.large_alloc_count) + sum(allocs for _, allocs, _ in by_size),
        total_frees=int(fields.large_free_count) + sum(frees for _, _, frees in by_size),
        large_allocs=int(fields.large_alloc_count),
        large_frees=int(fields.large_free_count),
        tiny_allocs=int(fields.tiny_allocs),
        by_size=by_size,
    )


def mem_stats(heap: Heap, gc: GcStats | None = None) -> dict[str, Any]:
    """runtime.MemStats: Go's fields in Go's order, as JSON has them. Without ``gc`` no collection has happened.

    Throws where an identity does not hold.
    """
    gc = GcStats() if gc is None else gc
    fields, arrays = heap.fields, heap.arrays
    objects = heap_stats(heap)
    mallocs = objects.total_allocs + objects.tiny_allocs  # tiny objects die with their block
    frees = objects.total_frees + objects.tiny_allocs
    in_use, idle = int(fields.heap_in_use), int(fields.heap_free + fields.heap_released)
    parts = {
        "HeapSys": in_use + idle,
        "StackSys": int(fields.stacks_in_use),
        "MSpanSys": int(fields.mspan_sys),
        "MCacheSys": int(fields.mcache_sys),
        "BuckHashSys": 0,
        "GCSys": int(fields.gc_sys),
        "OtherSys": int(fields.other_sys),
    }
    values: dict[str, Any] = {
        **parts,
        "Alloc": objects.total_allocated - objects.total_freed,
        "TotalAlloc": objects.total_allocated,
        "Sys": sum(parts.values()),
        "Lookups": 0,
        "Mallocs": mallocs,
        "Frees": frees,
        "HeapAlloc": objects.total_allocated - objects.total_freed,
        "HeapIdle": idle,
        "HeapInuse": in_use,
        "HeapReleased": int(fields.heap_released),
        "HeapObjects": mallocs - frees,
        "StackInuse": int(fields.stacks_in_use),
        "MSpanInuse": int(arrays["fixallocs"].inuse[SPANALLOC]),
        "MCacheInuse": int(arrays["fixallocs"].inuse[CACHEALLOC]),
        "NextGC": gc.heap_goal,
        "LastGC": gc.last_gc // NS,
        "PauseTotalNs": gc.pause_total // NS,
        "PauseNs": [pause // NS for pause in gc.pause],
        "PauseEnd": [end // NS for end in gc.pause_end],
        "NumGC": gc.num_gc,
        "NumForcedGC": gc.num_forced_gc,
        "GCCPUFraction": gc.gc_cpu_fraction,
        "EnableGC": True,
        "DebugGC": False,
        "BySize": [{"Size": size, "Mallocs": a, "Frees": f} for size, a, f in objects.by_size[:BY_SIZE]],
    }
    stats = {name: values[name] for name in MEM_STATS}
    check_mem_stats(stats)
    mapped_ready = int(fields.mapped_ready)
    if mapped_ready != stats["Sys"] - stats["HeapReleased"]:
        throw(f"mapped_ready {mapped_ready} and Sys {stats['Sys']} less HeapReleased are not equal")
    return stats


def check_mem_stats(stats: Mapping[str, Any]) -> None:
    """Throw unless the identities of MemStats hold, whoever made it."""

    def equal(name: str, *parts: str) -> None:
        if stats[name] != (total := sum(stats[part] for part in parts)):
            throw(f"{name} {stats[name]} is not {' + '.join(parts)} {total}")

    equal("Sys", "HeapSys", "StackSys", "MSpanSys", "MCacheSys", "BuckHashSys", "GCSys", "OtherSys")
    equal("HeapSys", "HeapInuse", "HeapIdle")
    equal("HeapAlloc", "Alloc")
    equal("Mallocs", "Frees", "HeapObjects")
    for smaller, larger in (
        ("HeapReleased", "HeapIdle"),
        ("HeapAlloc", "HeapInuse"),
        ("Alloc", "TotalAlloc"),
        ("StackInuse", "StackSys"),
        ("MSpanInuse", "MSpanSys"),
        ("MCacheInuse", "MCacheSys"),
        ("NumForcedGC", "NumGC"),
    ):
        if stats[smaller] > stats[larger]:
            throw(f"{smaller} {stats[smaller]} is more than {larger} {stats[larger]}")
    for size in stats["BySize"]:
        if size["Frees"] > size["Mallocs"]:
            throw(f"{size['Frees']} objects of {size['Size']} bytes freed of {size['Mallocs']}")
