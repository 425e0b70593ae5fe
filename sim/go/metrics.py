"""Figures of a run under the names of Go's runtime/metrics, our own under ``/sim/`` (mirrors metrics.go).

As in the runtime, what a P has allocated from a span that it still caches is not counted yet in ``/gc/heap/allocs``;
``/sim/mallocs`` is exact. Latencies are not here: see `latency`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.go.mallocgc import STEP
from sim.go.mstats import mem_stats
from sim.go.state import ALL, CAUSES, FAST, TINY, ZEROING
from sim.metrics.histogram import BUCKETS, Summary, bucket_of_int, summarize
from sim.units import SEC

if TYPE_CHECKING:
    from sim.go.world import World


def latency_counts(world: World) -> tuple[Any, Any, Any]:
    """Counts (causes x buckets), picoseconds and maxima by cause of every mallocgc call so far.

    Calls that were nothing but a hit in the cached span, or a tiny object combined, enter here.
    """
    arrays = world.heap.arrays
    counts = arrays["histograms"].reshape(len(CAUSES), BUCKETS).copy()
    times, maxima = arrays["cause_time"].copy(), arrays["cause_max"].copy()

    def enter(cause: int, price: int, calls: int) -> None:
        counts[cause, bucket_of_int(price)] += calls
        times[cause] += calls * price
        maxima[cause] = max(int(maxima[cause]), price)

    for index in np.flatnonzero(arrays["fast_calls"]):
        calls = int(arrays["fast_calls"][index])
        spc, zeroed = divmod(int(index), 2)
        fast, zero = int(arrays["fast_price"][spc]), int(arrays["zero_price"][spc]) if zeroed else 0
        enter(FAST, fast, calls)
        enter(ALL, fast + zero, calls)
        if zero:
            enter(ZEROING, zero, calls)
    tiny_calls = int(world.heap.fields.tiny_calls)
    if tiny_calls:
        for cause in (TINY, ALL):
            enter(cause, int(arrays["prices"][STEP["tiny"]]["mean"]), tiny_calls)
    return counts, times, maxima


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
    """Memory, scheduler and simulation figures at this instant."""
    times = _times(world)
    return _memory(world) | _scheduler(world, times) | _simulation(world, times)


def _memory(world: World) -> dict[str, int | float]:
    fields, arrays = world.heap.fields, world.heap.arrays
    stats = mem_stats(world.heap)
    small = int(arrays["small_alloc_count"].sum())
    freed = int(arrays["small_free_count"].sum())
    objects = int(fields.total_alloc - fields.total_free)
    return {
        "/gc/heap/allocs:bytes": int(fields.total_alloc),
        "/gc/heap/allocs:objects": small + int(fields.large_alloc_count),
        "/gc/heap/frees:bytes": int(fields.total_free),
        "/gc/heap/frees:objects": freed,
        "/gc/heap/objects:objects": small + int(fields.large_alloc_count) - freed,
        "/gc/heap/tiny/allocs:objects": int(fields.tiny_allocs),
        "/gc/stack/starting-size:bytes": int(fields.starting_stack_size),
        "/memory/classes/heap/free:bytes": int(fields.heap_free),
        "/memory/classes/heap/objects:bytes": objects,
        "/memory/classes/heap/released:bytes": int(fields.heap_released),
        "/memory/classes/heap/stacks:bytes": int(fields.stacks_in_use),
        "/memory/classes/heap/unused:bytes": int(fields.heap_in_use) - objects,
        "/memory/classes/metadata/mcache/free:bytes": stats["MCacheSys"] - stats["MCacheInuse"],
        "/memory/classes/metadata/mcache/inuse:bytes": stats["MCacheInuse"],
        "/memory/classes/metadata/mspan/free:bytes": stats["MSpanSys"] - stats["MSpanInuse"],
        "/memory/classes/metadata/mspan/inuse:bytes": stats["MSpanInuse"],
        "/memory/classes/metadata/other:bytes": stats["GCSys"],
        "/memory/classes/other:bytes": stats["OtherSys"],
        "/memory/classes/total:bytes": stats["Sys"],
    }


def _times(world: World) -> dict[str, int]:
    """Picoseconds of all Ps together, by kind; they add up to the time of each (`Proc.times`)."""
    times = [p.times() for p in world.sched.procs]
    return {kind: sum(one[kind] for one in times) for kind in times[0]}


def _scheduler(world: World, times: dict[str, int]) -> dict[str, int | float]:
    sched = world.sched
    user = times["malloc"] + times["compute"] + times["first_touch"] + times["stacks"] + times["ahead"]
    latencies = sched.latencies.summary()
    return {
        "/cpu/classes/idle:cpu-seconds": times["idle"] / SEC,
        "/cpu/classes/total:cpu-seconds": world.now * len(sched.procs) / SEC,
        "/cpu/classes/user:cpu-seconds": user / SEC,
        "/sched/gomaxprocs:threads": len(sched.procs),
        "/sched/goroutines:goroutines": sched.alive,
        "/sched/goroutines-created:goroutines": sched.created,
        "/sched/latencies:seconds/p50": latencies.percentiles[0] / SEC,
        "/sched/latencies:seconds/p99": latencies.percentiles[2] / SEC,
        "/sched/latencies:seconds/max": latencies.maximum / SEC,
    }


def _simulation(world: World, times: dict[str, int]) -> dict[str, int | float]:
    fields, procs = world.heap.fields, world.heap.arrays["procs"]
    mallocs = int(procs["mallocs"].sum())
    central, pools = world.central_locks, world.pool_locks
    return {
        "/sim/time:seconds": world.now / SEC,
        "/sim/mallocs:objects": mallocs,
        "/sim/throughput:mallocs-per-second": mallocs * SEC / world.now if world.now else 0.0,
        "/sim/live:objects": int(fields.live_objects),
        "/sim/live:bytes": int(fields.live_bytes),
        "/sim/spans:spans": int(fields.nspans) - 1,
        "/sim/time/malloc:cpu-seconds": times["malloc"] / SEC,
        "/sim/time/compute:cpu-seconds": times["compute"] / SEC,
        "/sim/time/first-touch-by-program:cpu-seconds": times["first_touch"] / SEC,
        "/sim/time/stacks:cpu-seconds": times["stacks"] / SEC,
        "/sim/time/lock:cpu-seconds": times["lock"] / SEC,
        "/sim/time/scheduling:cpu-seconds": times["scheduling"] / SEC,
        "/sim/time/no-cpu:cpu-seconds": times["no_cpu"] / SEC,
        "/sim/time/stopped:cpu-seconds": times["stopped"] / SEC,
        "/sim/time/idle:cpu-seconds": times["idle"] / SEC,
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
