"""One scenario on one allocator, whichever it is: what `compare` puts side by side.

Go's versions run goroutines (`run`); TCMalloc and the textbook allocators run the same streams on threads: a worker is
a thread, a goroutine of a recorded trace too, a service's requests go to a pool of GOMAXPROCS threads, and there are as
many CPUs as Go's Ps can use at once. Dead objects are freed at once there, in Go when the collector has found them; of
a trace only the marks are known between which an object died.

Bytes. *Footprint*: what the heap has of the system and has not given back; metadata apart. *Resident*: what memory
stands behind, in Go that of stacks too. *Live*: slots or blocks of objects that are not dead. *Internal* fragmentation:
what objects were given beyond what they asked for, of what they asked for; over all mallocs of the run (of Go's, asked
for is what the workload's shares come to). *Idle*: the part of the footprint in which no live object is, the mean over
time: free memory, external fragmentation, caches, and in Go what is dead and not collected yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from experiments.errors import InputError
from experiments.machine_threads import load_thread_machine
from experiments.run import run
from sim.go.params import VERSIONS
from sim.metrics.histogram import PERCENTILES, Summary
from sim.metrics.series import Series
from sim.ops import ALLOC
from sim.tcmalloc.check import check as check_tcmalloc
from sim.tcmalloc.sizeclasses import PAGE_SIZE
from sim.tcmalloc.stats import numeric_properties
from sim.tcmalloc.world import TCMallocWorld
from sim.textbook.check import check as check_textbook
from sim.textbook.heap import ORDERS
from sim.textbook.world import TextbookWorld
from sim.threads.state import NEVER
from sim.threads.world import ThreadWorld
from sim.units import MS, NS, SEC
from workloads.drive_threads import ServiceLoad, WorkerLoad
from workloads.drive_threads_trace import TraceLoad
from workloads.gotrace_model import TraceError
from workloads.scenario import Scenario
from workloads.spec import Recorded, Service
from workloads.tracestream import Program, build, read

TCMALLOC = "tcmalloc"
_OS_PAGE = 4096
_COLUMNS = ("footprint", "resident", "live")


@dataclass(frozen=True)
class Cause:
    """A cause of time of mallocs, or of frees where threads call those."""

    name: str
    calls: int
    time_share: float  # of all time of mallocs and frees
    mean_ns: float


@dataclass(frozen=True)
class Outcome:
    """What a model did with the scenario. Waits of Go's are those at mheap.lock and mcentral's locks."""

    model: str
    seconds: float
    mallocs: int
    mallocs_per_second: float
    malloc_ns: dict[str, float]
    free_mean_ns: float  # 0 for Go, which has no free
    gc_cpu_seconds: float  # without marking on idle Ps; 0 for allocators that do not collect
    response_us: dict[str, float]  # empty but for services
    lock_waits: int
    lock_wait_seconds: float
    peak_footprint: int
    peak_resident: int
    internal: float
    idle: float
    causes: tuple[Cause, ...]
    memory: tuple[tuple[int, ...], ...]  # time_ps, footprint, resident, live
    assumed: dict[str, str]


def simulate(model: str, scenario: Scenario, thread_machine: str) -> Outcome:
    """Run a scenario on a model, and check its invariants at the end. InputError says what does not go together."""
    if isinstance(scenario.workload, Recorded) and scenario.duration_ps is not None:
        raise InputError(
            f"{scenario.name}: run.duration cuts a trace at another malloc with each model; give run.mallocs, or neither"
        )
    return _go(model, scenario) if model in VERSIONS else _threads(model, scenario, thread_machine)


def _percentiles(one: Summary, unit: int) -> dict[str, float]:
    named = {f"p{q:g}": value / unit for q, value in zip(PERCENTILES, one.percentiles, strict=True)}
    return {"mean": one.mean / unit, **named, "max": one.maximum / unit}


def _causes(latency: dict[str, Summary], wholes: tuple[str, ...]) -> tuple[Cause, ...]:
    whole = sum(latency[name].total for name in wholes if name in latency) or 1
    return tuple(
        Cause(name, one.count, one.total / whole, one.mean / NS) for name, one in latency.items() if name not in wholes
    )


def _memory(rows: Sequence[tuple[int, ...]]) -> tuple[int, int, float]:
    """(peak footprint, peak resident, mean idle share) of rows of time, footprint, resident, live."""
    shares = [1 - row[3] / row[1] for row in rows if row[1]]
    return max(row[1] for row in rows), max(row[2] for row in rows), sum(shares) / len(shares) if shares else 0.0


def _go(version: str, scenario: Scenario) -> Outcome:
    mutex = VERSIONS[version].mcentral_mutex
    found = run(replace(scenario, version=version, mcentral_mutex=mutex), check=True)  # type: ignore[arg-type]
    figures, columns = found.metrics, found.series.columns
    at = {name: columns.index(name) for name in columns}
    rows = [
        (row[0], row[at["heap_in_use"]] + row[at["heap_free"]], row[at["resident"]], row[at["live_bytes"]])
        for row in found.series.rows
    ]
    footprint, resident, idle = _memory(rows)
    locks = ("mheap", "mcentral")
    asked = _asked(scenario, int(figures["/sim/mallocs:objects"]))
    return Outcome(
        model=version,
        seconds=float(figures["/sim/time:seconds"]),
        mallocs=int(figures["/sim/mallocs:objects"]),
        mallocs_per_second=float(figures["/sim/throughput:mallocs-per-second"]),
        malloc_ns=_percentiles(found.latency["all"], NS),
        free_mean_ns=0.0,
        gc_cpu_seconds=float(figures["/sim/gc/cpu:share"]) * float(figures["/sim/time:seconds"]) * scenario.gomaxprocs,
        response_us=_percentiles(found.response, 1000 * NS) if found.response is not None else {},
        lock_waits=sum(int(figures[f"/sim/locks/{name}/waits:events"]) for name in locks),
        lock_wait_seconds=sum(float(figures[f"/sim/locks/{name}/wait:seconds"]) for name in locks),
        peak_footprint=footprint,
        peak_resident=resident,
        internal=float(figures["/gc/heap/allocs:bytes"]) / max(asked, 1) - 1,
        idle=idle,
        causes=_causes(found.latency, ("all",)),
        memory=tuple(rows),
        assumed=dict(found.assumed),
    )


def _asked(scenario: Scenario, mallocs: int) -> float:
    """Bytes that so many mallocs of the workload ask for, by its shares; of a trace, those of all its objects.

    Those that were there when it began are in it: Go's counts have them.
    """
    if isinstance(scenario.workload, Recorded):
        program = _program(scenario)
        return float(program.ops["arg"][program.ops["kind"] == ALLOC].sum() + program.inherited["arg"].sum())
    objects = scenario.workload.mix.objects
    means = [sum((low + high) / 2 * w for low, high, w in one.sizes) / sum(w for *_, w in one.sizes) for one in objects]
    mean = sum(one.weight * mean for one, mean in zip(objects, means, strict=True)) / sum(one.weight for one in objects)
    return mean * mallocs


def _program(scenario: Scenario) -> Program:
    """What the goroutines of a recorded trace do; InputError if it cannot be read any more."""
    assert isinstance(scenario.workload, Recorded)
    try:
        return build(read(scenario.workload.trace), scenario.mallocs, seed=scenario.seed)
    except TraceError as error:
        raise InputError(str(error)) from error


def world_of(model: str, scenario: Scenario, machine: str) -> ThreadWorld:
    """The world of a model of threads in which nothing has happened yet."""
    workload = scenario.workload
    if isinstance(workload, Recorded):
        n = len(_program(scenario).starts)
    else:
        n = scenario.gomaxprocs if isinstance(workload, Service) else workload.goroutines
    return thread_world(model, n, min(scenario.gomaxprocs, scenario.cpus), machine, scenario.seed)


def thread_world(model: str, nthreads: int, cpus: int, machine: str, seed: int) -> ThreadWorld:
    """The world of a model in which so many threads are idle; a list sorted by address unless the name says otherwise."""
    if model == TCMALLOC:
        return TCMallocWorld(nthreads, load_thread_machine(machine, "tcmalloc"), seed, cpus=cpus)
    policy, _, order = model.partition(":")
    prices = load_thread_machine(machine, "textbook")
    chosen = None if policy == "bump" else order or ORDERS[0]
    return TextbookWorld(policy, nthreads, prices, seed, order=chosen, cpus=cpus)


def memory_of(world: ThreadWorld) -> tuple[int, int, int]:
    """(footprint, resident, live) of a world of threads, bytes."""
    heap = world.heap
    if isinstance(world, TCMallocWorld):
        figures, fields = numeric_properties(heap), heap.fields
        footprint = int(fields.heap_pages) * PAGE_SIZE - int(fields.unmapped_bytes)
        return footprint, int(fields.resident_pages) * _OS_PAGE, figures["generic.current_allocated_bytes"]
    fields = heap.fields
    return int(fields.arena_bytes), int(world.fields.resident_pages) * _OS_PAGE, int(fields.used_bytes)


def _threads(model: str, scenario: Scenario, machine: str) -> Outcome:
    world = world_of(model, scenario, machine)
    load, series = _drive(world, scenario)
    rows = series.rows or [(world.now, *memory_of(world))]
    seconds = world.now / SEC
    mallocs = world.mallocs
    world.close()
    (check_tcmalloc if isinstance(world, TCMallocWorld) else check_textbook)(world.heap)
    latency, locks = world.latency(), world.lock_figures()
    footprint, resident, idle = _memory(rows)
    response = load.response.summary() if isinstance(load, ServiceLoad) else None
    frees = latency.get("all frees")
    return Outcome(
        model=model,
        seconds=seconds,
        mallocs=mallocs,
        mallocs_per_second=mallocs / seconds if seconds else 0.0,
        malloc_ns=_percentiles(latency["all"], NS),
        free_mean_ns=frees.mean / NS if frees is not None else 0.0,
        gc_cpu_seconds=0.0,
        response_us=_percentiles(response, 1000 * NS) if response is not None else {},
        lock_waits=locks.waits,
        lock_wait_seconds=locks.wait_time / SEC,
        peak_footprint=footprint,
        peak_resident=resident,
        internal=world.given_bytes / max(world.asked_bytes, 1) - 1,
        idle=idle,
        causes=_causes(latency, ("all", "all frees")),
        memory=tuple(rows),
        assumed=dict(world.prices.assumed),
    )


def _drive(world: ThreadWorld, scenario: Scenario) -> tuple[Any, Series]:
    """Run a world to the scenario's end, its memory looked at on the way."""
    workload, duration, mallocs = scenario.workload, scenario.duration_ps, scenario.mallocs
    load: WorkerLoad | ServiceLoad | TraceLoad
    if isinstance(workload, Service):
        load, end = ServiceLoad(world, workload, duration, mallocs), NEVER
    elif isinstance(workload, Recorded):
        load, end = TraceLoad(world, _program(scenario)), NEVER
    else:
        load, end = WorkerLoad(world, workload, mallocs), NEVER if duration is None else duration
    series = Series(_COLUMNS, scenario.samples, (duration or MS) // scenario.samples or 1)
    for limit in _limits(series, end):
        if load.advance(limit):
            break
        series.add(world.now, memory_of(world))
    return load, series


def _limits(series: Series, end: int) -> Iterator[int]:
    """Multiples of the series' interval, then the end."""
    time = 0
    while time < end:
        time = min(time + series.interval - time % series.interval, end)
        yield time
