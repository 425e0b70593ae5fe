"""Figures of a run under the names of Go's runtime/metrics, our own under ``/sim/`` (mirrors metrics.go).

Each version has the names that it has in reality. A histogram is told by some of its values, ``/p50``, ``/max``, or,
by size, by its buckets that are not empty. As in the runtime, what a P has allocated from a span that it still caches is not counted yet in ``/gc/heap/allocs``;
``/sim/mallocs`` is exact. Latencies are not here: see `latency`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.go.mstats import CpuStats, GcStats, heap_stats, mem_stats, rss
from sim.go.pay import STEP
from sim.go.ptime import KINDS
from sim.go.sizeclasses import class_to_size
from sim.go.state import ALL, CAUSES, FAST, HIT_CLEARED, HIT_FRESH, HIT_KINDS, TINY, ZEROING
from sim.metrics.histogram import BUCKETS, Histogram, Summary, bucket_of_int, summarize
from sim.units import SEC

if TYPE_CHECKING:
    from sim.go.runtime import Heap
    from sim.go.world import World

_UINT64 = (1 << 64) - 1


def latency_counts(world: World) -> tuple[Any, Any, Any]:
    """Counts (causes x buckets), picoseconds and maxima by cause of every mallocgc call so far.

    Calls that were nothing but a hit in the cached span, or a tiny object combined, enter here.
    """
    arrays = world.heap.arrays
    counts = arrays["histograms"].reshape(len(CAUSES), BUCKETS).copy()
    times, maxima = arrays["cause_time"].copy(), arrays["cause_max"].copy()
    enter = _enter_hits(world, counts, times, maxima)
    tiny_calls = int(world.heap.fields.tiny_calls)
    if tiny_calls:
        for cause in (TINY, ALL):
            enter(cause, int(arrays["prices"][STEP["tiny"]]["mean"]), tiny_calls)
    return counts, times, maxima


def settle_hits(world: World) -> None:
    """Enter the hits so far in the histograms, before their prices change."""
    arrays = world.heap.arrays
    counts = arrays["histograms"].reshape(len(CAUSES), BUCKETS)
    _enter_hits(world, counts, arrays["cause_time"], arrays["cause_max"])
    arrays["fast_calls"][:] = 0


def _enter_hits(world: World, counts: Any, times: Any, maxima: Any) -> Callable[[int, int, int], None]:
    """Add hits in cached spans to histograms; what does so with one price.

    The clock knows the mean of hits that take more or less long; here they are spread over its equally likely values.
    """
    arrays = world.heap.arrays

    def enter(cause: int, price: int, calls: int) -> None:
        counts[cause, bucket_of_int(price)] += calls
        times[cause] += calls * price
        maxima[cause] = max(int(maxima[cause]), price)

    for index in np.flatnonzero(arrays["fast_calls"]):
        calls = int(arrays["fast_calls"][index])
        spc, kind = divmod(int(index), HIT_KINDS)
        fast = int(arrays["fast_price"][spc])
        whole = {HIT_FRESH: fast, HIT_CLEARED: fast + int(arrays["zero_price"][spc])}.get(kind)
        if whole is not None:
            values = [(whole, calls)]
        else:
            values = _distinct(world.hit_cells(kind, spc), calls)
        for value, times_met in values:
            if times_met:
                enter(FAST, min(fast, value), times_met)
                enter(ALL, value, times_met)
                if value > fast:
                    enter(ZEROING, value - fast, times_met)
    return enter


def _distinct(cells: Any, calls: int) -> list[tuple[int, int]]:
    """Calls shared out among rising cells: values and how many have each."""
    values, first = np.unique(cells, return_index=True)
    met = np.add.reduceat(shares(calls, len(cells)), first)
    return list(zip(values.tolist(), met.tolist(), strict=True))


def shares(count: int, parts: int) -> Any:
    """A count shared out among so many equal parts, what is left over at even distances."""
    base, left = divmod(count, parts)
    found = np.full(parts, base)
    found[(2 * np.arange(left) + 1) * parts // (2 * left or 1)] += 1
    return found


def latency(world: World) -> dict[str, Summary]:
    """Latency of mallocgc, whole (``all``) and by cause, for the causes that occurred."""
    return summaries(*latency_counts(world))


def summaries(counts: Any, times: Any, maxima: Any) -> dict[str, Summary]:
    """The same, of what `latency_counts` gave."""
    found = {}
    for cause, name in enumerate(CAUSES):
        summary = summarize(counts[cause], int(times[cause]), int(maxima[cause]))
        if summary.count:
            found[name] = summary
    return found


def read_metrics(world: World) -> dict[str, int | float]:
    """Memory, collector, scheduler and simulation figures at this instant."""
    gc = world.gc.log.gc_stats()
    times = _times(world)
    cpu = replace(gc.cpu, idle_time=times["idle"], total_time=world.now * len(world.sched.procs))
    return (
        memory_metrics(world.heap)
        | gc_metrics(world.heap, gc)
        | (cpu_metrics(cpu) if world.heap.facts.cpu_metrics else {})
        | _scheduler(world)
        | _simulation(world, times)
    )


def memory_metrics(heap: Heap) -> dict[str, int | float]:
    """Where memory is, and what was allocated and freed. (heapStatsAggregate, sysStatsAggregate)"""
    fields, stats, objects = heap.fields, mem_stats(heap), heap_stats(heap)
    in_objects = objects.total_allocated - objects.total_freed
    return {
        "/gc/heap/allocs:bytes": objects.total_allocated,
        "/gc/heap/allocs:objects": objects.total_allocs,
        "/gc/heap/frees:bytes": objects.total_freed,
        "/gc/heap/frees:objects": objects.total_frees,
        "/gc/heap/objects:objects": objects.total_allocs - objects.total_frees,
        "/gc/heap/tiny/allocs:objects": objects.tiny_allocs,
        **_by_size("/gc/heap/allocs-by-size:bytes", [allocs for _, allocs, _ in objects.by_size], objects.large_allocs),
        **_by_size("/gc/heap/frees-by-size:bytes", [frees for _, _, frees in objects.by_size], objects.large_frees),
        "/memory/classes/heap/free:bytes": int(fields.heap_free),
        "/memory/classes/heap/objects:bytes": in_objects,
        "/memory/classes/heap/released:bytes": int(fields.heap_released),
        "/memory/classes/heap/stacks:bytes": int(fields.stacks_in_use),
        "/memory/classes/heap/unused:bytes": int(fields.heap_in_use) - in_objects,
        "/memory/classes/metadata/mcache/free:bytes": stats["MCacheSys"] - stats["MCacheInuse"],
        "/memory/classes/metadata/mcache/inuse:bytes": stats["MCacheInuse"],
        "/memory/classes/metadata/mspan/free:bytes": stats["MSpanSys"] - stats["MSpanInuse"],
        "/memory/classes/metadata/mspan/inuse:bytes": stats["MSpanInuse"],
        "/memory/classes/metadata/other:bytes": stats["GCSys"],
        "/memory/classes/os-stacks:bytes": stats["StackSys"] - stats["StackInuse"],
        "/memory/classes/other:bytes": stats["OtherSys"],
        "/memory/classes/profiling/buckets:bytes": stats["BuckHashSys"],
        "/memory/classes/total:bytes": stats["Sys"],
    }


def _by_size(name: str, counts: Sequence[int], large: int) -> dict[str, int]:
    """A histogram of objects by size, its empty buckets left out: each by the size of its slots, then larger ones."""
    found = {f"{name}/{size}": count for size, count in zip(class_to_size, counts, strict=True) if count}
    return found | ({f"{name}/large": large} if large else {})


def gc_metrics(heap: Heap, gc: GcStats) -> dict[str, int | float]:
    """What the collector did and is set to, of the metrics that the heap's version has."""
    found: dict[str, int | float] = {
        "/gc/cycles/automatic:gc-cycles": gc.num_gc - gc.num_forced_gc,
        "/gc/cycles/forced:gc-cycles": gc.num_forced_gc,
        "/gc/cycles/total:gc-cycles": gc.num_gc,
        "/gc/heap/goal:bytes": gc.heap_goal,
        "/gc/limiter/last-enabled:gc-cycle": gc.limiter_last_enabled,
        **_seconds("/gc/pauses:seconds", gc.pauses),
        "/gc/stack/starting-size:bytes": gc.starting_stack_size,
    }
    if heap.facts.cpu_metrics:
        found |= {
            "/gc/gogc:percent": gc.gc_percent & _UINT64,  # off is -1, and shows as Go shows it
            "/gc/gomemlimit:bytes": gc.memory_limit,
            "/gc/heap/live:bytes": gc.heap_marked,
            "/gc/scan/globals:bytes": gc.globals_scan,
            "/gc/scan/heap:bytes": gc.heap_scan,
            "/gc/scan/stack:bytes": gc.last_stack_scan,
            "/gc/scan/total:bytes": gc.globals_scan + gc.heap_scan + gc.last_stack_scan,
            **_seconds("/sched/pauses/stopping/gc:seconds", gc.stopping),
            **_seconds("/sched/pauses/total/gc:seconds", gc.pauses),
        }
    return found


def _seconds(name: str, histogram: Histogram) -> dict[str, int | float]:
    """What a histogram of picoseconds says in seconds, and how many values it holds."""
    summary = histogram.summary()
    return {
        f"{name}/count": summary.count,
        f"{name}/p50": summary.percentiles[0] / SEC,
        f"{name}/p99": summary.percentiles[2] / SEC,
        f"{name}/max": summary.maximum / SEC,
    }


def cpu_metrics(cpu: CpuStats) -> dict[str, int | float]:
    """CPU time by class; gc, scavenge, idle and user add up to total. Go tells those of the last cycle's end."""
    return {
        "/cpu/classes/gc/mark/assist:cpu-seconds": cpu.gc_assist_time / SEC,
        "/cpu/classes/gc/mark/dedicated:cpu-seconds": cpu.gc_dedicated_time / SEC,
        "/cpu/classes/gc/mark/idle:cpu-seconds": cpu.gc_idle_time / SEC,
        "/cpu/classes/gc/pause:cpu-seconds": cpu.gc_pause_time / SEC,
        "/cpu/classes/gc/total:cpu-seconds": cpu.gc_total_time / SEC,
        "/cpu/classes/idle:cpu-seconds": cpu.idle_time / SEC,
        "/cpu/classes/scavenge/assist:cpu-seconds": cpu.scavenge_assist_time / SEC,
        "/cpu/classes/scavenge/background:cpu-seconds": cpu.scavenge_bg_time / SEC,
        "/cpu/classes/scavenge/total:cpu-seconds": cpu.scavenge_total_time / SEC,
        "/cpu/classes/total:cpu-seconds": cpu.total_time / SEC,
        "/cpu/classes/user:cpu-seconds": cpu.user_time / SEC,
    }


def _times(world: World) -> dict[str, int]:
    """Picoseconds of all Ps together, by kind; they add up to the time of each (`Proc.times`)."""
    times = [p.times() for p in world.sched.procs]
    return {kind: sum(one[kind] for one in times) for kind in times[0]}


def _scheduler(world: World) -> dict[str, int | float]:
    sched = world.sched
    latencies = sched.latencies.summary()
    found: dict[str, int | float] = {
        "/sched/gomaxprocs:threads": len(sched.procs),
        "/sched/goroutines:goroutines": sched.alive,
        "/sched/latencies:seconds/p50": latencies.percentiles[0] / SEC,
        "/sched/latencies:seconds/p99": latencies.percentiles[2] / SEC,
        "/sched/latencies:seconds/max": latencies.maximum / SEC,
    }
    if world.heap.facts.cpu_metrics:
        found["/sched/goroutines-created:goroutines"] = sched.created
    return found


def _simulation(world: World, times: dict[str, int]) -> dict[str, int | float]:
    fields, procs = world.heap.fields, world.heap.arrays["procs"]
    mallocs = world.mallocs
    central, pools = world.central_locks, world.pool_locks
    return {
        "/sim/time:seconds": world.now / SEC,
        "/sim/mallocs:objects": mallocs,
        "/sim/throughput:mallocs-per-second": mallocs * SEC / world.now if world.now else 0.0,
        "/sim/live:objects": int(fields.live_objects),
        "/sim/live:bytes": int(fields.live_bytes),
        "/sim/heap/resident:bytes": rss(world.heap),
        "/sim/spans:spans": int(fields.nspans) - 1,
        "/sim/time/malloc:cpu-seconds": times["malloc"] / SEC,
        "/sim/time/compute:cpu-seconds": times["compute"] / SEC,
        "/sim/time/first-touch-by-program:cpu-seconds": times["first_touch"] / SEC,
        "/sim/time/assist:cpu-seconds": times["assist"] / SEC,
        **{f"/sim/time/{kind.replace('_', '-')}:cpu-seconds": times[kind] / SEC for kind in KINDS},
        "/sim/time/run-ahead:cpu-seconds": -times["ahead"] / SEC,  # of the above, beyond the end
        "/sim/locks/mheap/acquisitions:events": world.heap_lock.acquisitions,
        "/sim/locks/mheap/waits:events": world.heap_lock.waits,
        "/sim/locks/mheap/wait:seconds": world.heap_lock.total_wait / SEC,
        "/sim/locks/mheap/hold:seconds": world.heap_lock.total_hold / SEC,
        "/sim/locks/mcentral/acquisitions:events": sum(lock.acquisitions for lock in central),
        "/sim/locks/mcentral/waits:events": sum(lock.waits for lock in central),
        "/sim/locks/mcentral/wait:seconds": sum(lock.total_wait for lock in central) / SEC,
        "/sim/locks/stackpool/acquisitions:events": sum(lock.acquisitions for lock in pools),
        "/sim/locks/stackpool/waits:events": sum(lock.waits for lock in pools),
        "/sim/locks/stackpool/wait:seconds": sum(lock.total_wait for lock in pools) / SEC,
        "/sim/locks/stackpool/hold:seconds": sum(lock.total_hold for lock in pools) / SEC,
        "/sim/stacks/live:bytes": int(fields.max_stack_scan),
        "/sim/stacks/copies:events": int(fields.stack_copies),
        "/sim/stacks/copied:bytes": int(fields.stack_copied),
        "/sim/segments:segments": int(procs["segments"].sum()),
    }
