"""What a run will probably not show as meant: said in one line each before it begins.

A run that a line warns of is run all the same; what is wrong for sure is refused elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.go.mgcpacer import DEFAULT_HEAP_MINIMUM
from sim.go.world import World
from sim.units import SEC, format_size, format_time
from workloads.estimate import bytes_a_malloc, kinds, live_bytes
from workloads.scenario import Scenario
from workloads.scenario_record import GOGC_OFF, NO_LIMIT, exact_size, exact_time
from workloads.spec import Recorded, Service, Workers

_MIB = 1 << 20
_OS_PAGE = 4096


def cautions(scenario: Scenario, world: World) -> Iterator[str]:
    """What to warn of, a line each: ``key: what is the matter; what would be right``. ``world`` has not begun."""
    for key, limit in _limits(scenario):
        yield from _small_limit(scenario, world, key, limit)
    yield from _never_freed(scenario, world)
    for i, change in enumerate(scenario.changes):
        if scenario.duration_ps is not None and change.at_ps >= scenario.duration_ps:
            end = exact_time(scenario.duration_ps)
            yield f"runtime.change.{i}.at: {exact_time(change.at_ps)} is past the run's end; write less than {end}"


def _limits(scenario: Scenario) -> Iterator[tuple[str, int]]:
    """The memory limits that a run has, with their keys."""
    if scenario.memory_limit != NO_LIMIT:
        yield "runtime.memory_limit", scenario.memory_limit
    for i, change in enumerate(scenario.changes):
        if change.memory_limit not in (None, NO_LIMIT):
            assert change.memory_limit is not None
            yield f"runtime.change.{i}.memory_limit", change.memory_limit


def _small_limit(scenario: Scenario, world: World, key: str, limit: int) -> Iterator[str]:
    """Whether a limit leaves no room for what cannot be collected."""
    own = int(world.heap.fields.mapped_ready) + DEFAULT_HEAP_MINIMUM
    live = 0
    if not isinstance(scenario.workload, Recorded):
        live = live_bytes(scenario.workload, world.heap.facts, _mallocs(scenario, world))
    needed = own + live
    if limit >= needed:
        return
    told = f"the runtime's own memory and a least heap take {format_size(own)}"
    if live:
        told = f"the workload keeps {format_size(live)} live, and {told}"
    room = exact_size(-(-(needed + live // 4) // _MIB) * _MIB)
    yield (
        f"{key}: {told}, which is more than {exact_size(limit)}: the collector will run without end, after a second a P at"
        f" half of the CPU time; write {room} or more"
    )


def _never_freed(scenario: Scenario, world: World) -> Iterator[str]:
    """Whether the heap grows as long as the run lasts."""
    duration = scenario.duration_ps
    collects = scenario.gogc != GOGC_OFF or any(change.gogc not in (None, GOGC_OFF) for change in scenario.changes)
    if collects or any(True for _ in _limits(scenario)) or duration is None or scenario.mallocs is not None:
        return
    if isinstance(scenario.workload, Recorded):
        return
    grown = bytes_a_malloc(scenario.workload.mix, world.heap.facts) * _mallocs(scenario, world)
    per_second = grown * SEC / duration
    yield (
        f'runtime.gogc: with "off" and no memory_limit nothing is ever freed: at about {format_size(per_second)} a second'
        f" the heap grows to about {format_size(grown)} in {format_time(duration)};"
        " write a percentage, a memory_limit or fewer mallocs"
    )


def _mallocs(scenario: Scenario, world: World) -> float:
    """About how many mallocs a run makes."""
    limits = [float(scenario.mallocs)] if scenario.mallocs is not None else []
    workload = scenario.workload
    if scenario.duration_ps is not None:
        if isinstance(workload, Service):
            limits.append(scenario.duration_ps / workload.interval * sum(phase.mallocs for phase in workload.phases))
        elif isinstance(workload, Workers):
            busy = min(workload.goroutines, scenario.gomaxprocs, scenario.cpus)
            limits.append(busy * scenario.duration_ps / _malloc_time(workload, world))
    return min(limits, default=0.0)


def _malloc_time(workload: Workers, world: World) -> float:
    """About how many picoseconds a worker takes for a malloc: thinking, the fast path, and touching fresh memory."""
    prices = world.prices
    fast = sum(prices.fast) / len(prices.fast)
    touch = prices.steps["first_touch"].mean / _OS_PAGE
    touched = sum(kind.share * kind.slot for kind in kinds(workload.mix, world.heap.facts) if kind.objects.touched)
    return workload.mix.think + fast + touched * touch
