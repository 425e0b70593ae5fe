"""Figures of stored runs: latency and what it is made of, response times, the heap over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments import result
from experiments.errors import InputError, visible
from experiments.pictures import canvas, tails
from experiments.pictures.heap import Heap, heap, read_series
from experiments.render import CAUSES
from sim.units import MS, NS, format_time, parse_size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MARKED = ("p50", "p99", "p99.9", "p99.99")
_FIRST = 1 * NS  # where axes of latency begin at the latest
_MANY = 400  # cycles, from which they are no longer shaded one by one


@dataclass(frozen=True)
class Stored:
    """A stored result as pictures take it: ``label`` tells it from others."""

    name: str
    label: str
    report: result.Report
    histograms: Mapping[str, result.Buckets]

    @property
    def summary(self) -> dict[str, Any]:
        """What ``run --json`` prints."""
        return self.report.summary


def read_runs(names: Sequence[str]) -> list[Stored]:
    """Stored results; InputError where there is none. Of several each is called what tells them apart, else by its place."""
    reports = [result.read(name) for name in names]
    return [
        Stored(name, label, report, result.read_histograms(name))
        for name, report, label in zip(names, reports, _labels(names, reports), strict=True)
    ]


def _labels(names: Sequence[str], reports: Sequence[result.Report]) -> list[str]:
    """The settings in which results differ, or else the directories."""
    from experiments.export.exported import settings

    configs = [dict(settings(one.summary["config"])) | {"seed": one.summary["seed"]} for one in reports]
    differ = [key for key in configs[0] if any(one.get(key) != configs[0][key] for one in configs)]
    told = [", ".join(f"{key} {one.get(key)}" for key in differ) for one in configs]
    same_scenario = len({one.summary["scenario"] for one in reports}) == 1
    if same_scenario and len(set(told)) == len(told) and max(map(len, told)) <= 60:
        return [visible(one) for one in told]
    return [visible(name) for name in names]


# Latency


def latency(runs: Sequence[Stored]) -> Figure:
    """How many mallocs took longer than how long; of one run which causes made those, too."""
    from matplotlib.figure import Figure

    for run in runs:
        if not run.histograms.get("all"):
            raise InputError(f"{run.name}: has no latency to draw (no malloc was made); run it for longer")
    if len(runs) > 1:
        figure = Figure(figsize=(7.6, 4.2), layout="constrained")
        axes = figure.subplots()
        for i, run in enumerate(runs):
            colour = canvas.PALETTE[i % len(canvas.PALETTE)]
            _tail(axes, run.histograms["all"], label=run.label, color=colour)
        _latency_axes(axes, "malloc latency", "mallocs that took longer")
        axes.set_xlabel("latency")
        axes.legend()
        return figure
    figure = Figure(figsize=(7.6, 6.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2.4))
    run = runs[0]
    _tail(upper, run.histograms["all"], label="all mallocs", color=canvas.INK)
    _mark(upper, run.summary["latency"]["all"])
    _latency_axes(upper, "malloc latency", "mallocs that took longer")
    _stack(lower, run.histograms)
    return figure


def _tail(axes: Any, buckets: result.Buckets, **look: Any) -> None:
    found = tails.tail(buckets)
    share = found.share
    kept = share > 0
    x = [min(_FIRST, float(found.lows[0])), *found.above[kept], found.above[-1]]
    axes.step(x, [1.0, *share[kept], 0.5 / found.total], where="post", linewidth=1.5, **look)  # 0 has no logarithm


def _mark(axes: Any, summary: Mapping[str, float]) -> None:
    """Percentiles as a result tells them."""
    for name in _MARKED:
        time, share = summary[f"{name}_ns"] * NS, 1 - float(name[1:]) / 100
        if share * summary["count"] < 1:  # the maximum, under another name
            break
        axes.plot([time], [share], "o", color=canvas.PALETTE[1], markersize=4)
        text = f"{name} {format_time(time)}"
        axes.annotate(text, (time, share), (7, 4), textcoords="offset points", fontsize="small")


def _latency_axes(axes: Any, title: str, what: str) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set(xscale="log", yscale="log", title=title, ylabel=what)
    canvas.time_axis(axes.xaxis)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: _one_in(share)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _one_in(share: float) -> str:
    """A share of a power of ten."""
    return "all" if share >= 1 else f"{100 * share:g} %" if share >= 0.0099 else f"1 in {1 / share:,.0f}"


def _stack(axes: Any, histograms: Mapping[str, result.Buckets]) -> None:
    """Which causes made the mallocs that took longer, at each latency."""
    from matplotlib.ticker import PercentFormatter

    mallocs = {cause: rows for cause, rows in histograms.items() if cause not in ("response", "run_queue")}
    found = tails.shares(mallocs)
    rows = [[*row, row[-1]] for row in found.by_cause.values()]  # as far out as the longest malloc
    names = [CAUSES.get(cause, visible(cause)) for cause in found.by_cause]
    looks = [_COLOURS.get(cause, canvas.QUIET) for cause in found.by_cause]
    if rows:
        x = [*found.above, max(mallocs["all"][-1][1], found.above[-1])]
        axes.stackplot(x, rows, labels=names, colors=looks, linewidth=0, step="post")
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.05), reverse=True, handlelength=1.0, labelspacing=0.3)
    axes.set(ylim=(0, 1), xlabel="latency", ylabel="made by (from p90 on)")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(visible=False)


_COLOURS = {
    "tiny": "#dddddd",
    "fast": "#bbccee",
    "zero": "#77aadd",
    "first_touch": "#4477aa",
    "large": "#222255",
    "refill_partial": "#ccddaa",
    "refill_fresh": "#88bb66",
    "page_cache": "#44aa99",
    "page_search": "#117733",
    "grow": "#225522",
    "sweep": "#999933",
    "heap_wait": "#aa3377",
    "central_wait": "#cc99bb",
    "profile": "#664477",
    "assist": "#ee6677",
    "assist_parked": "#ffaabb",
    "stw": "#ccbb44",
    "gc_worker": "#ee8866",
    "off_p": "#eedd88",
    "scavenge": "#bb8855",
    tails.OTHERS: "#cccccc",
    tails.TOGETHER: canvas.QUIET,
}


def response(run: Stored) -> Figure:
    """How many requests took longer than how long, and what of it was waiting for a P."""
    from matplotlib.figure import Figure

    if not run.histograms.get("response"):
        raise InputError(f"{run.name}: has no requests to draw; run a scenario of kind service")
    figure = Figure(figsize=(7.6, 3.8), layout="constrained")
    axes = figure.subplots()
    parts = (("response", "response", 0), ("run_queue", "of it in the run queue", 3))
    for name, label, colour in parts:
        if run.histograms.get(name):
            _tail(axes, run.histograms[name], label=label, color=canvas.PALETTE[colour])
    _mark(axes, run.summary["response"])
    _latency_axes(axes, "response times", "requests that took longer")
    axes.set_xlabel("time")
    axes.set_xlim(left=max(run.histograms["response"][0][0] / 10, 1))
    axes.legend(loc="lower left")
    return figure


# The heap


def over_time(run: Stored) -> Figure:
    """The live heap with goals and triggers; cycles shaded while they mark."""
    from matplotlib.figure import Figure

    found = heap(read_series(run.name), run.report.cycles)
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes = figure.subplots()
    highest = max(float(part[:, 1].max()) for part in (found.live, found.resident) if len(part))
    unit, name = canvas.bytes_unit(highest)
    _draw_heap(axes, found, unit)
    limit = run.summary["config"]["runtime"]["memory_limit"]
    if limit != "off":
        axes.axhline(parse_size(limit) / unit, color=canvas.PALETTE[5], linestyle="-.", label=f"memory limit {limit}")
    many = "" if len(found.marking) <= _MANY else ", not shaded"
    axes.set(title=f"heap, {len(found.marking):,} GC cycles{many}", xlabel="time in ms", ylabel=name, ylim=(0, None))
    axes.set_xlim(0, run.summary["metrics"]["/sim/time:seconds"] * 1e3 or None)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.14), ncols=5, columnspacing=1.2)
    return figure


def _draw_heap(axes: Any, found: Heap, unit: float) -> None:
    colours = canvas.PALETTE
    if len(found.marking) <= _MANY:
        for i, (since, until) in enumerate(found.marking / MS):
            axes.axvspan(since, until, color=colours[3], alpha=0.45, linewidth=0, label="" if i else "marking")
    parts = ((found.resident, "resident", canvas.QUIET, "-", 1.0), (found.live, "live heap", colours[0], "-", 1.4))
    for rows, label, colour, line, width in parts:
        axes.plot(rows[:, 0] / MS, rows[:, 1] / unit, line, color=colour, linewidth=width, label=label)
    steps = ((found.goals, "goal", colours[1], "-"), (found.triggers, "trigger", colours[2], "--"))
    for rows, label, colour, line in steps:
        if len(rows):
            x, y = rows[:, 0] / MS, rows[:, 1] / unit
            axes.step(x, y, line, where="post", color=colour, linewidth=1.1, label=label)
