"""The same stream and seed through several allocators, side by side: ``allocsim compare``.

Common random numbers: sizes, lifetimes, think times and arrivals are the same to the byte for every model, so what
differs is the allocators' doing. One table, and with ``-o`` the same as CSV with what each model's memory was over
time, and a plot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, make_dataclass
from pathlib import Path
from typing import Any

from experiments import study
from experiments.compare_models import Outcome, simulate
from sim.units import MIB, NS, SEC, format_size, format_time
from workloads.scenario import Scenario

_SHOWN = ("p50", "p99", "p99.9", "p99.99", "max")
_LEAST_SHARE = 0.005  # of the time, of a cause that is shown


@dataclass(frozen=True)
class _Cause:
    model: str
    cause: str
    calls: int
    time_share: float
    mean_ns: float


@dataclass(frozen=True)
class _Memory:
    model: str
    time_ns: float
    footprint: int
    resident: int
    live: int


def compare(
    models: Sequence[str], scenario: Scenario, thread_machine: str, watch: Callable[[str], None]
) -> list[Outcome]:
    """Run the scenario on each model in turn; ``watch`` is told which."""
    found = []
    for model in models:
        watch(model)
        found.append(simulate(model, scenario, thread_machine))
    return found


def report(scenario: Scenario, outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The text for the terminal."""
    yield f"{scenario.name}: {scenario.purpose}"
    cpus = min(scenario.cpus, scenario.gomaxprocs)
    yield f"seed {scenario.seed}, {scenario.gomaxprocs} Ps or as many threads at a time, {cpus} CPUs"
    yield ""
    head = [
        "model",
        "mallocs",
        "M/s",
        "mean",
        *_SHOWN,
        "free",
        "lock waits",
        "waited",
        "footprint",
        "resident",
        "internal",
        "idle",
    ]
    yield from study.table([_row(one) for one in outcomes], head)
    if any(one.response_us for one in outcomes):
        yield ""
        rows = [
            [one.model, *(_time(one.response_us, name, 1000 * NS) for name in ("mean", *_SHOWN))] for one in outcomes
        ]
        yield from study.table(rows, ["response", "mean", *_SHOWN])
    yield ""
    for one in outcomes:
        shown = sorted((c for c in one.causes if c.time_share >= _LEAST_SHARE), key=lambda c: -c.time_share)
        yield f"{one.model}: " + ", ".join(f"{c.name.replace('_', ' ')} {100 * c.time_share:.1f} %" for c in shown)
    yield ""
    yield "Times are of mallocs; lock waits of mallocs and frees. footprint, resident: peaks. internal: bytes given"
    yield "beyond those asked for. idle: part of the footprint without a live object, mean over time."
    yield f"Assumed, not measured: {', '.join(sorted({name for one in outcomes for name in one.assumed}))}."


def _time(values: dict[str, float], name: str, unit: int) -> str:
    return format_time(values[name] * unit) if values else "-"


def _row(one: Outcome) -> list[str]:
    return [
        one.model,
        f"{one.mallocs:,}",
        f"{one.mallocs_per_second / 1e6:.2f}",
        *(_time(one.malloc_ns, name, NS) for name in ("mean", *_SHOWN)),
        format_time(one.free_mean_ns * NS) if one.free_mean_ns else "-",
        f"{one.lock_waits:,}",
        format_time(one.lock_wait_seconds * SEC),
        format_size(one.peak_footprint),
        format_size(one.peak_resident),
        f"{100 * one.internal:.1f} %",
        f"{100 * one.idle:.0f} %",
    ]


def as_json(scenario: Scenario, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """The shape of ``--json``: nothing of the host or of wall time."""
    return {"scenario": scenario.name, "config": scenario.resolved(), "compare": [asdict(one) for one in outcomes]}


def write(outcomes: Sequence[Outcome], folder: Path) -> Iterator[str]:
    """Write tables and plot; what was written, or why not."""
    flat = [{k: v for k, v in asdict(one).items() if k not in ("causes", "memory", "assumed")} for one in outcomes]
    row = make_dataclass("Row", list(flat[0]))
    parts: dict[str, Sequence[Any]] = {
        "models": [row(**values) for values in flat],
        "causes": [_Cause(one.model, c.name, c.calls, c.time_share, c.mean_ns) for one in outcomes for c in one.causes],
        "memory": [_Memory(one.model, look[0] / NS, *look[1:]) for one in outcomes for look in one.memory],
    }
    yield from study.write(folder, "compare", parts, lambda: _plot(outcomes))


def _plot(outcomes: Sequence[Outcome]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    (rate, latency), (memory, causes) = figure.subplots(2, 2)
    rates = rate.barh([one.model for one in outcomes], [one.mallocs_per_second / 1e6 for one in outcomes])
    rate.bar_label(rates, fmt="%.3g", padding=2)
    rate.set(title="throughput", xlabel="million mallocs a second")
    rate.invert_yaxis()
    for one in outcomes:
        points = [name for name in one.malloc_ns if name != "mean"]
        latency.plot(points, [max(one.malloc_ns[name], 0.1) for name in points], "o-", label=one.model)
        times = [row[0] * 1000 / SEC for row in one.memory]
        (line,) = memory.plot(times, [row[1] / MIB for row in one.memory], label=one.model)
        memory.plot(times, [row[3] / MIB for row in one.memory], ":", color=line.get_color())
    latency.set(title="malloc latency", ylabel="ns", yscale="log")
    memory.set(title="footprint, and live objects (dotted)", xlabel="ms", xscale="log", ylabel="MiB", ylim=(0, None))
    _bars(causes, outcomes)
    for axes in (latency, memory, causes):
        axes.legend(fontsize="x-small")
    return figure


def _bars(axes: Any, outcomes: Sequence[Outcome]) -> None:
    """A bar of time for each model, a colour a cause."""
    from matplotlib import colormaps

    colours = colormaps["tab20"]
    shown: dict[str, dict[int, float]] = {}
    for i, one in enumerate(outcomes):
        for cause in one.causes:
            if cause.time_share >= 4 * _LEAST_SHARE:
                shown.setdefault(cause.name.replace("_", " "), {})[i] = cause.time_share
    left = [0.0] * len(outcomes)
    for number, (name, shares) in enumerate(shown.items()):
        places = list(shares)
        axes.barh(places, list(shares.values()), left=[left[i] for i in places], color=colours(number % 20), label=name)
        for i in places:
            left[i] += shares[i]
    names = [one.model for one in outcomes]
    axes.set(title="time of mallocs and frees by cause", yticks=range(len(names)), yticklabels=names, xlim=(0, 1.5))
    axes.invert_yaxis()
