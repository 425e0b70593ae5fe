"""What a run will probably not show as meant: said in one line each before it begins.

A run that a line warns of is run all the same; what is wrong for sure is refused elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.go.mgcpacer import DEFAULT_HEAP_MINIMUM
from sim.go.world import World
from sim.units import SEC, format_size, format_time
from workloads.estimate import bytes_a_malloc, kinds, live_bytes
from workloads.gotrace_model import TraceError
from workloads.scenario import Scenario
from workloads.scenario_record import GOGC_OFF, NO_LIMIT, Change, exact_size, exact_time
from workloads.spec import Recorded, Service, Workers

_MIB = 1 << 20
_OS_PAGE = 4096
_HUGE_HEAP = 64 << 30  # bytes that are hardly meant; to keep track of them takes us 2 GB


def cautions(scenario: Scenario, world: World) -> Iterator[str]:
    """What to warn of, a line each: ``key: what is the matter; what would be right``. ``world`` has not begun."""
    for key, limit in _limits(scenario):
        yield from _small_limit(scenario, world, key, limit)
    yield from _never_freed(scenario, world)
    for i, change in enumerate(scenario.changes):
        if scenario.duration_ps is not None and _is_late(scenario, change):
            end = exact_time(scenario.duration_ps)
            yield f"runtime.change.{i}.at: {exact_time(change.at_ps)} is past the run's end; write less than {end}"


def _limits(scenario: Scenario) -> Iterator[tuple[str, int]]:
    """The memory limits that a run has, with their keys."""
    if scenario.memory_limit != NO_LIMIT:
        yield "runtime.memory_limit", scenario.memory_limit
    for i, change in enumerate(scenario.changes):
        if change.memory_limit not in (None, NO_LIMIT) and not _is_late(scenario, change):
            assert change.memory_limit is not None
            yield f"runtime.change.{i}.memory_limit", change.memory_limit


def _small_limit(scenario: Scenario, world: World, key: str, limit: int) -> Iterator[str]:
    """Whether a limit leaves no room for what cannot be collected."""
    own = int(world.heap.fields.mapped_ready) + DEFAULT_HEAP_MINIMUM
    if not isinstance(scenario.workload, Recorded):
        live = live_bytes(scenario.workload, world.heap.facts, _mallocs(scenario, world))
    else:
        live = _kept(scenario.workload, scenario)
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


def _kept(recorded: Recorded, scenario: Scenario) -> int:
    """Bytes that a recorded program never gives up; 0 where it is not run to its end, or cannot be read any more."""
    from workloads.tracestream import kept_bytes, read  # only here: importing it compiles the reader of traces

    if scenario.duration_ps is not None:
        return 0
    try:
        return kept_bytes(read(recorded.trace), scenario.mallocs)
    except TraceError:  # whoever starts it says so
        return 0


def _never_freed(scenario: Scenario, world: World) -> Iterator[str]:
    """Whether the heap grows to the run's end, for longer or further than can be meant."""
    duration, mallocs = scenario.duration_ps, _mallocs(scenario, world)
    key, since = _uncollected(scenario)
    if key is None or isinstance(scenario.workload, Recorded):
        return
    grown = bytes_a_malloc(scenario.workload.mix, world.heap.facts) * mallocs
    if duration is not None:
        grown *= 1 - since / duration
    if scenario.mallocs is not None:  # so many are meant
        if grown < _HUGE_HEAP:
            return
        pace, within = "", f"{scenario.mallocs:,} mallocs"
    else:
        assert duration is not None  # what is no trace has one of the two
        pace = f"at about {format_size(grown * SEC / (duration - since))} a second "
        within = format_time(duration - since)
    by = f" by about {format_size(grown)}" if since else f" to about {format_size(grown)}"
    yield (
        f'{key}: with "off" and no memory_limit nothing is ever freed: {pace}the heap grows{by} in {within};'
        " write a percentage, a memory_limit or fewer mallocs"
    )


def _uncollected(scenario: Scenario) -> tuple[str | None, int]:
    """The key of what leaves the run's end without a collector, and since when; (None, 0) if nothing does."""
    gogc, limit = scenario.gogc, scenario.memory_limit
    found: tuple[str | None, int] = (None, 0)
    if gogc == GOGC_OFF and limit == NO_LIMIT:
        found = "runtime.gogc", 0
    for i, change in enumerate(scenario.changes):
        if _is_late(scenario, change):
            continue
        gogc = gogc if change.gogc is None else change.gogc
        limit = limit if change.memory_limit is None else change.memory_limit
        if gogc != GOGC_OFF or limit != NO_LIMIT:
            found = None, 0
        elif found[0] is None:
            found = f"runtime.change.{i}.{'memory_limit' if change.gogc is None else 'gogc'}", change.at_ps
    return found


def _is_late(scenario: Scenario, change: Change) -> bool:
    """Whether a change never comes."""
    return scenario.duration_ps is not None and change.at_ps >= scenario.duration_ps


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
