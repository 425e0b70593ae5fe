"""The main job: run a scenario on the simulated runtime and gather what was seen.

`run` is the main loop: build a world, let time pass in steps so that it can be watched and interrupted, read the
result. The steps are chosen by the clock on the wall and change nothing of what happens in simulated time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import simpy

from experiments import collector
from experiments.cautions import cautions
from experiments.errors import InputError
from experiments.machine import load_machine
from experiments.result import SCHEMA
from sim import __version__
from sim.engine.clock import OBSERVE, after, priority
from sim.go import gccontroller
from sim.go.check import check_heap
from sim.go.metrics import latency_counts, read_metrics, summaries
from sim.go.mstats import flush_all_mcaches, mem_stats
from sim.go.params import VERSIONS
from sim.go.state import CAUSES
from sim.go.world import World
from sim.metrics.cycles import NO_GOAL, Cycle
from sim.metrics.gctrace import trace_lines
from sim.metrics.histogram import PERCENTILES, Summary
from sim.metrics.series import Series
from sim.metrics.timeline import Timeline
from sim.units import MS, US
from workloads.drive import Load
from workloads.gotrace_model import TraceError
from workloads.scenario import Scenario
from workloads.scenario_record import Change
from workloads.spec import PPM, Recorded, Service

_STEP_SECONDS = 0.05  # how long a step should take on the wall
_FIRST_STEP = 100 * US
_FIELDS = ("heap_in_use", "heap_free", "heap_released", "mapped_ready", "live_bytes", "heap_live")
_GAUGES = ("mallocs", *_FIELDS, "heap_goal", "resident", "goroutines", "runnable")
_OS_PAGE = 4096
_COLLECTING = {"assist", "flush_span", "mark_stack", "mark_specials", "write_barrier", "globals"}  # prices of a collection


@dataclass(frozen=True)
class Result:
    """What a run showed. ``cut_short``: it was interrupted, and this is what was there.

    ``latency``: mallocgc by cause; ``response`` and ``queued``: a service's requests, else None. ``counts``: the
    histograms behind ``latency``, causes x buckets. ``series``: gauges over time. ``metrics``: by runtime/metrics names.
    ``machine``: what the machine file calls itself. ``memstats``: runtime.MemStats at the end. ``cycles``, ``gctrace``,
    ``gcdebug``, ``timeline``: collections, the lines the runtime would have printed of them, the same with gcpacertrace
    and scavtrace, and what happened when, if there were any.
    """

    scenario: Scenario
    cut_short: bool
    metrics: dict[str, int | float]
    latency: dict[str, Summary]
    response: Summary | None
    queued: Summary | None
    counts: dict[str, Any]
    series: Series
    machine: str
    assumed: dict[str, str]
    memstats: dict[str, Any]
    cycles: tuple[Cycle, ...] = ()
    gctrace: tuple[str, ...] = ()
    gcdebug: tuple[str, ...] = ()
    timeline: Timeline | None = None

    def to_dict(self) -> dict[str, Any]:
        """The shape of ``allocsim run --json``: everything but histograms and series; nothing of the host or wall time.

        ``config`` is `Scenario.resolved`, with the machine by its own name wherever its file stands.
        """
        config = self.scenario.resolved()
        config["machine"]["prices"] = self.machine
        whole = self.latency["all"].total if "all" in self.latency else 0
        answer: dict[str, Any] = {
            "schema": SCHEMA,
            "allocsim": __version__,
            "scenario": self.scenario.name,
            "seed": self.scenario.seed,
            "cut_short": self.cut_short,
            "config": config,
            "metrics": self.metrics,
            "latency": {name: _summary(one, whole) for name, one in self.latency.items()},
        }
        if self.response is not None and self.queued is not None:
            answer["response"] = _summary(self.response, self.response.total)
            answer["run_queue"] = _summary(self.queued, self.response.total)
        answer["assumed_prices"] = self.assumed
        return answer


def _summary(one: Summary, whole: int) -> dict[str, int | float]:
    """A summary in nanoseconds, with its share of a whole time."""
    named = {f"p{str(q).removesuffix('.0')}_ns": value / 1000 for q, value in zip(PERCENTILES, one.percentiles, strict=True)}
    return {
        "count": one.count,
        "share": one.total / whole if whole else 0.0,
        "mean_ns": one.mean / 1000,
        **named,
        "max_ns": one.maximum / 1000,
    }


def build(scenario: Scenario, timeline: Timeline | None = None) -> World:
    """The world of a scenario, nothing has happened yet; InputError if its machine file cannot be used."""
    facts = replace(
        VERSIONS[scenario.version],
        mcentral_mutex=scenario.mcentral_mutex,
        gc_assists=scenario.assists,
        linear_layout=scenario.layout == "linear",
    )
    return World(
        facts,
        scenario.gomaxprocs,
        load_machine(scenario.machine, scenario.version),
        scenario.seed,
        cpus=scenario.cpus,
        max_run_ahead=scenario.max_run_ahead_ps,
        memprofilerate=scenario.memprofilerate,
        gogc=scenario.gogc,
        memory_limit=scenario.memory_limit,
        heap_shape=scenario.heap_shape,
        in_order=Fraction(scenario.in_order_ppm, PPM),
        globals_bytes=scenario.globals_bytes,
        write_barriers=not isinstance(scenario.workload, Recorded),  # in recorded times they are
        timeline=timeline,
    )


def _change(world: World, changes: Sequence[Change]) -> Any:
    """Process: change settings of the collector when their time has come."""
    for change in changes:
        yield world.env.timeout(change.at_ps - world.now)
        if change.gogc is not None:
            world.gc.set_gc_percent(change.gogc)
        if change.memory_limit is not None:
            world.gc.set_memory_limit(change.memory_limit)


def _observe(world: World, series: Series) -> Any:
    """Process: sample the gauges at multiples of the series' interval, after everything else of the instant.

    A heap goal of 0 stands for none.
    """
    order = priority(OBSERVE, 0)
    fields = world.heap.fields
    while True:
        row = (
            world.mallocs,
            *(int(fields[name]) for name in _FIELDS),
            goal if (goal := int(gccontroller.heap_goal(world.heap.header))) < NO_GOAL else 0,
            int(fields.resident_pages) * _OS_PAGE,
            world.sched.alive,
            world.sched.runnable(),
        )
        series.add(world.now, row)
        yield after(world.env, series.interval - world.now % series.interval, order)


def _first(env: simpy.Environment, *events: simpy.Event) -> simpy.Event:
    """Fires with the first of some events. (SimPy's any_of takes the callbacks of an inner any_of away when it fires.)"""
    first = simpy.Event(env)

    def fire(_: simpy.Event) -> None:
        if not first.triggered:
            first.succeed()

    for event in events:
        assert event.callbacks is not None
        event.callbacks.append(fire)
    return first


def _progress(scenario: Scenario, world: World, load: Load) -> float:
    """How much of a run is done, 0 to 1."""
    shares = [0.0]
    if scenario.duration_ps is not None:
        shares.append(world.now / scenario.duration_ps)
    if load.mallocs:
        shares.append(world.mallocs / load.mallocs)
    return min(max(shares), 1.0)


def _start(scenario: Scenario, load: Load) -> simpy.Event:
    """Start the workload; the event that ends the run. InputError if its trace cannot be read any more."""
    workload, duration, mallocs = scenario.workload, scenario.duration_ps, scenario.mallocs
    if isinstance(workload, Service):
        load.start_service(workload, duration, mallocs)
        return load.done
    if isinstance(workload, Recorded):
        try:
            load.start_trace(workload, mallocs)
        except TraceError as error:
            raise InputError(str(error)) from error
    else:
        load.start_workers(workload, mallocs)
    return load.done if duration is None else _first(load.world.env, load.done, load.world.env.timeout(duration))


def run(
    scenario: Scenario,
    watch: Callable[[float], None] | None = None,
    interrupted: Callable[[], bool] | None = None,
    check: bool = False,
    warn: Callable[[str], None] | None = None,
    timeline: bool = False,
    load_of: Callable[[World], Load] = Load,
) -> Result:
    """Run a scenario to its end, or until ``interrupted()``.

    ``watch`` is told the share that is done after each step. ``check``: verify every invariant of the heap at the end
    (Throw names the first that does not hold). ``warn`` is told, before it begins, what the run will probably not show
    as meant, a line each. ``timeline``: record what happens when. ``load_of`` makes what starts the workload in a world.
    """
    world = build(scenario, Timeline() if timeline else None)
    if warn is not None:
        for line in cautions(scenario, world):
            warn(line)
    load = load_of(world)
    series = Series(_GAUGES, scenario.samples, (scenario.duration_ps or MS) // scenario.samples or 1)
    world.env.process(_observe(world, series))
    world.env.process(_change(world, scenario.changes))
    end = _start(scenario, load)
    cut_short = False
    step = _FIRST_STEP
    while not end.processed and not cut_short:
        begun = time.perf_counter()
        world.run(until=_first(world.env, end, world.env.timeout(step)))
        took = time.perf_counter() - begun
        step = max(US, min(4 * step, int(step * _STEP_SECONDS / max(took, 1e-6))))
        if watch is not None:
            watch(_progress(scenario, world, load))
        cut_short = interrupted is not None and interrupted() and not end.processed
    if check:
        check_heap(world.heap)
    return _result(scenario, world, load, series, cut_short)


def _result(scenario: Scenario, world: World, load: Load, series: Series, cut_short: bool) -> Result:
    """Read everything off a world; its Ps' caches are flushed for that, as ReadMemStats does, which takes what they have not
    used off the live heap: its peak is what it was before."""
    collected = collector.figures(world)
    flush_all_mcaches(world.heap.header)
    metrics = read_metrics(world) | collected | load.figures
    if load.response is not None:
        metrics["/sim/requests/arrived:requests"] = load.requests
        metrics["/sim/requests/done:requests"] = load.response.summary().count
    counted = latency_counts(world)
    counts = dict(zip(CAUSES, counted[0], strict=True))
    if load.response is not None and load.queued is not None:
        counts |= {"response": load.response.counts, "run_queue": load.queued.counts}
    return Result(
        scenario=scenario,
        cut_short=cut_short,
        metrics=metrics,
        latency=summaries(*counted),
        response=load.response.summary() if load.response is not None else None,
        queued=load.queued.summary() if load.queued is not None else None,
        counts=counts,
        series=series,
        machine=world.prices.machine,
        assumed=_assumed(scenario, world),
        memstats=mem_stats(world.heap, world.gc.log.gc_stats()),
        cycles=tuple(world.gc.log.cycles),
        gctrace=tuple(trace_lines(world.gc.log.cycles, scenario.version)),
        gcdebug=tuple(trace_lines(world.gc.log.cycles, scenario.version, pacer=True, scav=True)),
        timeline=world.gc.log.finish(),
    )


def _assumed(scenario: Scenario, world: World) -> dict[str, str]:
    """The assumed prices, without those that such a run cannot have paid."""
    never = {"lock.handoff"}  # no lock of the runtime is fifo
    if not world.central_locks:
        never.add("central")
    if scenario.cpus >= scenario.gomaxprocs:
        never.add("os_switch")
    if not scenario.memprofilerate:
        never.add("profile_sample")
    if not scenario.assists:
        never.add("assist")
    if not world.write_barriers:
        never.add("write_barrier")
    if not world.gc.started:
        never |= _COLLECTING
    if not world.heap.fields.scavenge_assist_time + world.heap.fields.scavenge_background_time:
        never |= {"madvise", "madvise_page", "tlb_shootdown"}
    return {name: reason for name, reason in world.prices.assumed.items() if name not in never}
