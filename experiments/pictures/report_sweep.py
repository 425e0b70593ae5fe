"""The report of a sweep: maps, bands and front of what its points found, a table of them, and how it was made."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from experiments.errors import visible
from experiments.pictures import canvas, of_sweep, page
from experiments.pictures.metrics import Metric, metric_of, of_service
from experiments.pictures.points import LEAST_FOR_QUANTILES, LEVEL, Axis, Gathered, Setting, gather, shown, told
from experiments.result import toml_value
from experiments.stats.interval import Interval
from experiments.sweeps import store
from experiments.sweeps.store import Results

_ROWS = 2_000  # of the table of points
_FAILURES = 20


def page_of(directory: str) -> str:
    """The page of a sweep; InputError if there is none, or if no run of it was made."""
    results = store.read(directory)
    found = gather(results, lambda row: _metrics(row, directory))
    sweep = results.sweep
    name = visible(sweep["scenario"])
    title = f"{visible(sweep['purpose'])} ({name})" if sweep["purpose"] else f"A sweep of {name}"
    lead = page.beware(list(_cautions(found))) + page.figures(_figures(found))
    return page.page(title, lead, _sections(found))


def _metrics(row: Mapping[str, Any], where: str) -> list[Metric]:
    """What a report tells of each point; the first three are what points are held against each other by."""
    first = of_sweep.pareto_metrics(row, where)
    names = ["throughput", "gc-cycles", "malloc-p50", "malloc-p99", "malloc-p99.9"]
    names += ["response-p50", "response-p99.9"] if of_service(row) else []
    others = [metric_of(name, row, where) for name in names]
    return list(dict.fromkeys((*first, *others)))


def _sections(found: Gathered) -> Iterator[tuple[str, str]]:
    axes = list(found.axes.values())
    drawn = (found.metrics[2], found.metrics[0], found.metrics[1])
    if len(axes) > 1 and found.gridded:
        yield "Over two settings", "".join(_map(found, metric, axes[0], axes[1]) for metric in drawn)
    yield f"Against {axes[0].name}", "".join(_bands(found, metric, axes) for metric in drawn)
    if len(found.results.points) > 1:
        yield "What no other point beats", _front(found)
    yield "Every point", _table(found)
    yield "Runs that failed", _failures(found.results) if found.failed else ""
    yield "How far to trust this", _trust(found)
    yield "How it was made", _made(found.results)


def _cautions(found: Gathered) -> Iterator[str]:
    if found.failed:
        yield f"{found.failed:,} of {len(found.results.runs):,} runs failed, and are in no figure here; see below."
    if found.missing:
        yield f"{found.missing:,} of {len(found.results.runs):,} runs were not made yet: points rest on fewer seeds."
    seeds = found.results.sweep["replications"]
    if seeds < 2:
        yield "One run of each point: nothing here says how much is chance. Give more replications."
    elif seeds < LEAST_FOR_QUANTILES:
        least = f"{LEAST_FOR_QUANTILES} are the least, ten advised"
        yield f"{seeds} runs of each point are too few for intervals of percentiles; {least}."


def _figures(found: Gathered) -> Iterator[tuple[str, page.Cell]]:
    sweep = found.results.sweep
    yield "points", page.count(len(found.results.points))
    yield "seeds of each", page.count(sweep["replications"])
    yield "runs made", page.count(found.made)
    for axis in found.axes.values():
        few = ", ".join(map(shown, axis.values)) if len(axis.values) <= 8 else f"{len(axis.values)} values"
        yield axis.name, page.text(few)


def _map(found: Gathered, metric: Metric, x: Axis, y: Axis) -> str:
    label = f"{metric.title} over {x.name} and {y.name}"
    name = f"map{found.metrics.index(metric)}"
    return page.picture(lambda: of_sweep.heat(found, metric, x, y, {}), name, label, f"{label}.")


def _bands(found: Gathered, metric: Metric, axes: list[Axis]) -> str:
    fixed: dict[str, Setting] = {axis.name: axis.values[0] for axis in axes[2:]} if found.gridded else {}
    label = f"{metric.title} against {axes[0].name}"
    how = "of all runs of a point together, resampled by run" if metric.cause else "of the mean over runs"
    enough = found.results.sweep["replications"] >= (LEAST_FOR_QUANTILES if metric.cause else 2)
    interval = f"{100 * LEVEL:g} % interval {how}" if enough else "too few runs for an interval"
    caption = f"{label}; {interval}" + (f". Others held at {told(fixed, fixed)}." if fixed else ".")
    name = f"bands{found.metrics.index(metric)}"
    return page.picture(lambda: of_sweep.bands(found, metric, axes[0], fixed), name, label, caption)


def _front(found: Gathered) -> str:
    cpu, peak, tail = (metric.title for metric in found.metrics[:3])
    caption = (
        f"Ringed are the points that no other is at least as good as in {cpu}, {peak} and {tail}, and better in one."
        " Estimates are compared, not their intervals: neighbours may be as good."
    )
    return page.picture(lambda: of_sweep.pareto(found, {}), "front", f"{cpu} against {peak} and {tail}", caption)


def _table(found: Gathered) -> str:
    axes, points = list(found.axes), found.results.points[:_ROWS]
    best = set(of_sweep.on_front(found, found.metrics[:3], {})[1])
    per_second = (", mallocs/s" if one.name.endswith("mallocs-per-second") else "" for one in found.metrics)
    head = [*axes, *(one.title + unit for one, unit in zip(found.metrics, per_second, strict=True))]
    rows = [
        [
            *(page.text(shown(point.values[name])) for name in axes),
            *(_estimate(metric, found.estimate(point.number, metric)) for metric in found.metrics),
        ]
        for point in points
    ]
    more = len(found.results.points) - len(points)
    note = f"{more:,} points more are in the sweep's tables. " if more else ""
    note += f"± is half of the {100 * LEVEL:g} % interval's width; coloured rows are those that no other beats."
    return page.table(head, rows, lambda i: points[i].number in best) + f'<p class="dim">{page.text(note)}</p>'


def _estimate(metric: Metric, one: Interval | None) -> page.Cell:
    """An estimate and half of its interval's width, in a unit for people."""
    if one is None:
        return "-"
    unit, name = canvas.unit_of(metric.name, [one.estimate])
    half = f" ± {float(f'{one.half_width / unit:.2g}'):.10g}" if math.isfinite(one.half_width) else ""
    if name.endswith(("per-second", "cycles")):  # the heading says so
        name = name.partition(" ")[0] if " " in name else ""
    return page.figure_of(one.estimate, f"{one.estimate / unit:.4g}{half} {name}".strip())


def _failures(results: Results) -> str:
    rows: list[tuple[str, str]] = []
    for run, record in results.records():
        if record.error is not None and len(rows) < _FAILURES:
            rows.append((f"{told(results.values(run), results.values(run))}, seed {run.seed}", record.error))
    return page.definitions(rows)


def _trust(found: Gathered) -> str:
    seeds = (
        "Runs of different points have the same seeds, so that differences between points are less of chance than the"
        " intervals of each let fear. A peak or a far percentile of few runs is only a hint."
    )
    assumed = "`allocsim run` of one point, and the report of its result, name the prices that nobody measured."
    return "".join(f"<p>{page.text(line)}</p>" for line in (page.FAR, assumed, seeds))


def _made(results: Results) -> str:
    sweep = results.sweep
    last = sweep["seed"] + sweep["replications"] - 1
    rows = [
        ("made by", f"allocsim {results.code}"),
        ("kept in", page.named(str(results.directory))),
        ("scenario", sweep["scenario"]),
        ("kind", sweep["kind"]),
        ("seeds", f"{sweep['seed']} to {last}, the same at every point"),
        *page.host_of(str(results.directory)),
    ]
    settings = [f"{key} = {toml_value(value)}" for key, value in sweep["set"].items()]
    settings += ["", *(f"{key} = {toml_value(value)}" for key, value in sweep["axes"].items())]
    return page.definitions(rows) + page.hidden(
        "settings of all points, and axes", page.quoted("\n".join(settings).strip())
    )
