"""Figures of a sweep: a metric over two axes, against one axis with confidence bands, and what no point beats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.errors import InputError, visible
from experiments.pictures import canvas
from experiments.pictures.metrics import SHORT, Metric, metric_of, of_service
from experiments.pictures.pareto import front
from experiments.pictures.points import LEVEL, Axis, Curve, Gathered, Setting, curves_of, shown, told
from sim.units import format_size, format_time

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MAPS = 6  # maps in a figure
_TOLD = 12  # points of a front that are told one by one
_HALF_WIDTH = 58  # letters that half of a figure has room for
_NEAR = 12  # dots between points whose numbers would lie on each other


def caption(found: Gathered, what: str) -> str:
    """A title that says how many runs it rests on."""
    seeds = found.results.sweep["replications"]
    runs = f"{seeds:,} seed{'' if seeds == 1 else 's'} a point"
    if found.failed or found.missing:
        runs += f", {found.failed:,} runs failed, {found.missing:,} not made"
    return f"{what} ({runs})"


def _fixed(fixed: Mapping[str, Setting]) -> str:
    return f", {told(fixed, fixed)}" if fixed else ""


# A metric over two axes


def heat(found: Gathered, metric: Metric, x: Axis, y: Axis, fixed: Mapping[str, Setting]) -> Figure:
    """A map of a metric for each combination of the other axes' values, all in one scale of colour."""
    from matplotlib.figure import Figure

    place = found.results.directory
    if x.name == y.name:
        raise InputError(f"{place}: {x.name}: cannot be both axes of a map; name another with --y")
    if not found.gridded:
        kind = found.results.sweep["kind"]
        raise InputError(f"{place}: is of kind {kind}, whose points fill no map; draw bands or pareto, or sweep a grid")
    others = [name for name in found.axes if name not in (x.name, y.name) and name not in fixed]
    maps: dict[str, Any] = {}
    for point in found.results.points:
        if any(point.values[name] != value for name, value in fixed.items()):
            continue
        cells = maps.setdefault(told(point.values, others), np.full((len(y.values), len(x.values)), np.nan))
        estimate = found.estimate(point.number, metric)
        if estimate is not None:
            row, column = (axis.values.index(point.values[axis.name]) for axis in (y, x))
            cells[row, column] = estimate.estimate
    if len(maps) > _MAPS:
        wish = " ".join(f"--where {name}=..." for name in others)
        raise InputError(f"{place}: {len(maps)} maps are too many for one picture; fix {wish}")
    if all(np.isnan(cells).all() for cells in maps.values()):
        raise InputError(f"{place}: no run there has {metric.name}; name another metric")
    columns = min(len(maps), 2)
    rows = -(-len(maps) // columns)
    size = (max(1.1 + 0.78 * len(x.values) * columns + 1.4, 4.8), max(1.0 + (0.5 * len(y.values) + 0.9) * rows, 2.8))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    _maps(figure, list(panels), maps, metric, x, y)
    figure.suptitle(caption(found, f"{metric.title}{_fixed(fixed)}"), fontsize="medium")
    return figure


def _maps(figure: Figure, panels: list[Axes], maps: Mapping[str, Any], metric: Metric, x: Axis, y: Axis) -> None:
    from matplotlib.colors import LogNorm, Normalize

    values = np.concatenate([cells[np.isfinite(cells)] for cells in maps.values()])
    unit, name = canvas.unit_of(metric.name, values.tolist())
    least, most = float(values.min()) / unit, float(values.max()) / unit
    norm = LogNorm(least, most) if least > 0 and most > 20 * least else Normalize(least, most)
    image: Any = None
    for panel, (label, cells) in zip(panels, maps.items(), strict=False):
        edges = (np.arange(length + 1) - 0.5 for length in reversed(cells.shape))
        image = panel.pcolormesh(*edges, cells / unit, cmap="viridis", norm=norm)
        for (row, column), value in np.ndenumerate(cells / unit):
            bright = np.isfinite(value) and norm(value) > 0.6
            text = (f"{value:.3g}" if value < 1000 else f"{value:.0f}") if np.isfinite(value) else "-"
            colour = "#000000" if bright else "#ffffff" if np.isfinite(value) else canvas.INK
            panel.text(column, row, text, ha="center", va="center", color=colour, fontsize="small")
        panel.set_xticks(range(len(x.values)), [shown(value) for value in x.values])
        panel.set_yticks(range(len(y.values)), [shown(value) for value in y.values])
        panel.set(title=label, xlabel=x.name, ylabel=y.name)
        panel.grid(visible=False)
        panel.label_outer()
    for panel in panels[len(maps) :]:
        panel.set_visible(False)
    bar = figure.colorbar(image, ax=panels, label=name)
    if isinstance(norm, LogNorm):
        canvas.plain_log(bar.ax.yaxis)


# A metric against one axis


def bands(found: Gathered, metric: Metric, axis: Axis, fixed: Mapping[str, Setting]) -> Figure:
    """A metric against an axis: the estimates, and their 95 % intervals as bands or, where points are drawn, as bars."""
    from matplotlib.figure import Figure

    lines = curves_of(found, metric, axis, fixed)
    figure = Figure(figsize=(7.6, 4.4), layout="constrained")
    axes = figure.subplots()
    ends = [value for line in lines for part in (line.y, line.low, line.high) for value in part]
    unit, name = canvas.unit_of(metric.name, ends)
    with_intervals = False
    for i, (line, label) in enumerate(_told_apart(lines)):
        colour = canvas.PALETTE[i]
        low, high = line.low / unit, line.high / unit
        there = np.isfinite(low)
        with_intervals |= bool(there.any())
        if found.gridded:
            axes.plot(line.places, line.y / unit, "o-", color=colour, markersize=4, label=label)
            axes.fill_between(line.places, low, high, color=colour, alpha=0.22, linewidth=0)
        else:
            axes.plot(line.places, line.y / unit, "o", color=colour, markersize=4, label=label)
            axes.vlines(line.places[there], low[there], high[there], color=colour, alpha=0.6)
    interval = f"{100 * LEVEL:g} % interval" if with_intervals else "too few runs for an interval"
    title = caption(found, f"{metric.title}{_fixed(fixed)}, {interval}")
    axes.set(title=title, xlabel=axis.name, ylabel=f"{metric.title}, {name}" if name else metric.title)
    _place_axis(axes, axis)
    estimates = [value for line in lines for value in line.y]
    if min(estimates) > 0 and max(estimates) > 20 * min(estimates):
        axes.set_yscale("log")
        canvas.plain_log(axes.yaxis)
    if len(lines) > 1:
        axes.legend()
    return figure


def _told_apart(lines: Sequence[Curve]) -> Iterator[tuple[Curve, str]]:
    """Curves, each with its label; those that lie on each other as one, with the labels of all."""
    alike: dict[bytes, list[Curve]] = {}
    for line in lines:
        alike.setdefault(np.stack([line.places, line.y, line.low, line.high]).tobytes(), []).append(line)
    for group in alike.values():
        yield group[0], "\n".join(line.label for line in group)


def _place_axis(axes: Any, axis: Axis) -> None:
    """Ticks where values are, or, of many, where the axis likes them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MultipleLocator, NullLocator

    if axis.scale == "log":
        axes.set_xscale("log")
    if len(axis.values) <= 12:
        axes.set_xticks(axis.places, [shown(value) for value in axis.values])
        axes.xaxis.set_minor_locator(NullLocator())
        return
    write: Callable[[float], str] = {"size": format_size, "time": format_time, "number": "{:g}".format}[axis.unit]
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: write(max(value, 0))))
    if axis.scale == "log":
        base, steps = (2.0, (1.0,)) if axis.unit == "size" else (10.0, (1.0, 2.0, 5.0))
        axes.xaxis.set_major_locator(LogLocator(base, steps))
        axes.xaxis.set_minor_locator(NullLocator())
    elif axis.unit == "size":
        axes.xaxis.set_major_locator(
            MultipleLocator(2.0 ** round(math.log2((max(axis.places) - min(axis.places)) / 6)))
        )


# What no point beats


def pareto_metrics(known: Mapping[str, Any], where: str) -> tuple[Metric, Metric, Metric]:
    """What points are held against each other by: CPU of the collector, peak of the heap, p99 of what users see."""
    last = "response-p99" if of_service(known) else "malloc-p99"
    first, second, third = (metric_of(name, known, where) for name in (SHORT["gc-cpu"], SHORT["heap-peak"], last))
    return first, second, third


def on_front(found: Gathered, metrics: Sequence[Metric], fixed: Mapping[str, Setting]) -> tuple[list[int], list[int]]:
    """The numbers of the points that have all these metrics, and of those of them that no other beats, by the first."""
    numbers, costs = [], []
    for point in found.results.points:
        estimates = [found.estimate(point.number, metric) for metric in metrics]
        if any(point.values[name] != value for name, value in fixed.items()):
            continue
        held = [one.estimate for one in estimates if one is not None]
        if len(held) == len(metrics):
            numbers.append(point.number)
            costs.append(held)
    if not numbers:
        return [], []
    table = np.array(costs)
    best = [number for number, kept in zip(numbers, front(table), strict=True) if kept]
    order = {number: tuple(row) for number, row in zip(numbers, costs, strict=True)}
    return numbers, sorted(best, key=lambda number: order[number])


def pareto(found: Gathered, fixed: Mapping[str, Setting]) -> Figure:
    """Every point by the first three metrics, `pareto_metrics`: CPU upwards, memory to the right, p99 as colour.

    Those that no other beats are numbered.
    """
    from matplotlib.colors import LogNorm, Normalize
    from matplotlib.figure import Figure

    metrics = cpu, peak, tail = found.metrics[:3]
    numbers, best = on_front(found, metrics, fixed)
    if not numbers:
        raise InputError(f"{found.results.directory}: no point has {', '.join(one.title for one in metrics)}")
    table = np.array([[_value(found, number, metric) for metric in metrics] for number in numbers])
    units = [canvas.unit_of(metric.name, table[:, i].tolist()) for i, metric in enumerate(metrics)]
    table = table / [unit for unit, _ in units]
    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axes = figure.subplots()
    least, most = table[:, 2].min(), table[:, 2].max()
    norm = LogNorm(least, most) if 0 < least < most else Normalize(least, most)
    kept = np.isin(numbers, best)
    for rows, size, edge in ((table[~kept], 34, "none"), (table[kept], 70, canvas.INK)):
        image = axes.scatter(rows[:, 1], rows[:, 0], s=size, c=rows[:, 2], cmap="viridis", norm=norm, edgecolors=edge)
    bar = figure.colorbar(image, ax=axes, label=f"{tail.title}, {units[2][1]}")
    if isinstance(norm, LogNorm):
        canvas.plain_log(bar.ax.yaxis)
    axes.set(xlabel=f"{peak.title}, {units[1][1]}", ylabel=f"{cpu.title}, {units[0][1]}")
    axes.set_title(caption(found, f"what no other point beats{_fixed(fixed)}"))
    if table[:, 0].min() > 0 and table[:, 0].max() > 20 * table[:, 0].min():
        axes.set_yscale("log")
        canvas.plain_log(axes.yaxis)
    _tell_front(axes, found, best, {number: row for number, row in zip(numbers, table, strict=True)})
    return figure


def _value(found: Gathered, number: int, metric: Metric) -> float:
    estimate = found.estimate(number, metric)
    assert estimate is not None
    return estimate.estimate


def _tell_front(axes: Any, found: Gathered, best: Sequence[int], rows: Mapping[int, Any]) -> None:
    """Numbers beside the points of the front, and what they stand for; those that found the same have one."""
    from matplotlib.lines import Line2D

    places: dict[tuple[float, ...], list[int]] = {}
    for number in best:
        places.setdefault(tuple(rows[number]), []).append(number)
    labels = []
    for i, numbers in enumerate(list(places.values())[:_TOLD], 1):
        alike = f" ({len(numbers) - 1} more alike)" if len(numbers) > 1 else ""
        labels.append(f"{i}:  " + visible(told(found.results.points[numbers[0]].values, found.axes)) + alike)
    if len(places) > _TOLD:
        labels.append(f"{len(places) - _TOLD} more without a number")
    _number(axes, [(place[1], place[0]) for place in list(places)[:_TOLD]])
    columns = 2 if max(map(len, labels)) <= _HALF_WIDTH else 1
    axes.figure.set_figheight(axes.figure.get_figheight() + 0.17 * math.ceil(len(labels) / columns))
    handles = [Line2D([], [], linestyle="none")] * len(labels)
    axes.figure.legend(handles, labels, loc="outside lower left", ncols=columns, handlelength=0)


def _number(axes: Any, places: Sequence[tuple[float, float]]) -> None:
    """Number points from 1 on, those together that are too near each other to be told apart."""
    dots = axes.transData.transform(places)
    groups: list[list[int]] = []
    for i, dot in enumerate(dots):
        near = [group for group in groups if np.abs(dots[group[0]] - dot).max() < _NEAR]
        if near:
            near[0].append(i)
        else:
            groups.append([i])
    for group in groups:
        numbers = ", ".join(str(i + 1) for i in group)
        x, y = places[group[0]]
        axes.annotate(numbers, (x, y), (6, 5), textcoords="offset points", fontsize="small")
