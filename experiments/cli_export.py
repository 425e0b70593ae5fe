"""``allocsim export``: a stored result in the formats that other tools read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from experiments.errors import InputError, visible
from experiments.output import atomic, writable, write_whole

if TYPE_CHECKING:
    from experiments.export.exported import Exported, Histogram

_TIMELINE = "timeline.pftrace"


@click.command("export", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("directories", nargs=-1, required=True, metavar="DIR...")
@click.option(
    "--format",
    "form",
    required=True,
    type=click.Choice(["benchstat", "hgrm", "hlog", "openmetrics", "csv", "perfetto"]),
    help="What to write.",
)
@click.option("--cause", metavar="NAME", help="One cause of latency alone, as latency.csv names it [hgrm: all].")
@click.option("-o", "--output", metavar="FILE", help="Where to write [default: stdout].")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def export(directories: tuple[str, ...], form: str, cause: str | None, output: str | None, force: bool) -> None:
    """Write results that `allocsim run -o DIR` kept, or the runs of a sweep, in a format that other tools read.

    benchstat: Go benchmark text, each run a sample; `benchstat -col gogc FILE` compares settings. hgrm: a percentile
    distribution of HdrHistogram, all runs merged. hlog: its interval log, a tag per cause. openmetrics: a snapshot of
    one result under client_golang's names. csv: a row per run. perfetto: the timeline of one result.
    """
    if form in ("openmetrics", "perfetto") and len(directories) > 1:
        raise InputError(f"{directories[1]}: {form} is of one result alone; export each by itself")
    if form in ("csv", "perfetto") and cause is not None:
        raise InputError(f"--cause {cause}: {form} knows no causes; leave --cause out")
    if form == "perfetto" and output is None:
        raise InputError("perfetto is no text; name a file with -o FILE")
    places = [os.path.normpath(one) for one in directories]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise InputError(f"{directories[number]}: is named twice; a result counts once")
    target = writable(Path(output), force, _files(directories)) if output is not None else None
    if form == "perfetto":
        assert target is not None
        _copy_timeline(directories[0], target)
        return
    from experiments.export.stored import runs_in

    runs = [(one, run) for one in directories for run in runs_in(one)]
    if form == "openmetrics" and len(runs) > 1:
        what = f"holds {len(runs)} runs of a sweep, and openmetrics is of one result alone"
        raise InputError(f"{directories[0]}: {what}; name one that `allocsim run -o` wrote")
    chosen = _chosen(runs, "all" if form == "hgrm" and cause is None else cause)
    try:
        text = "".join(f"{line}\n" for line in _FORMATS[form](chosen))
    except ValueError as error:  # buckets that no run of ours has
        raise InputError(f"{', '.join(directories)}: damaged latency.csv ({error}); run the scenario again") from None
    if target is None:
        click.echo(text, nl=False)
    else:
        write_whole(target, text)


def _files(directories: Sequence[str]) -> list[Path]:
    """What the directories that exist hold: nothing of it is written over."""
    return [path for one in directories if "\0" not in one and Path(one).is_dir() for path in Path(one).iterdir()]


def _chosen(runs: Sequence[tuple[str, Exported]], cause: str | None) -> list[Exported]:
    """The runs, each by where it stands, with the histogram of one cause, or with all; InputError if one lacks it."""
    from dataclasses import replace

    if cause is None:
        return [run for _, run in runs]
    for name, run in runs:
        if not run.histograms.get(cause):
            known = ", ".join(run.histograms) or "none at all"
            raise InputError(f"{name}: has no latencies of cause {cause}; it has {known}")
    return [replace(run, histograms={cause: run.histograms[cause]}) for _, run in runs]


def _benchmark(runs: Sequence[Exported]) -> Iterable[str]:
    from experiments.export import benchmark

    return benchmark.lines(runs)


def _hgrm(runs: Sequence[Exported]) -> Iterable[str]:
    from experiments.export import hdr
    from experiments.stats.quantiles import merge

    merged: Histogram = merge(histogram for run in runs for histogram in run.histograms.values())
    return hdr.percentile_distribution(merged)


def _hlog(runs: Sequence[Exported]) -> Iterable[str]:
    from experiments.export import hdr

    return hdr.interval_log((run.histograms, float(run.metrics["/sim/time:seconds"])) for run in runs)


def _openmetrics(runs: Sequence[Exported]) -> Iterable[str]:
    from experiments.export import openmetrics

    return openmetrics.lines(runs[0])


def _csv(runs: Sequence[Exported]) -> Iterable[str]:
    from experiments.export import table

    return table.lines(runs)


_FORMATS: dict[str, Callable[[Sequence[Exported]], Iterable[str]]] = {
    "benchstat": _benchmark,
    "hgrm": _hgrm,
    "hlog": _hlog,
    "openmetrics": _openmetrics,
    "csv": _csv,
}


def _copy_timeline(name: str, target: Path) -> None:
    """Copy the timeline of a result; InputError where it has none."""
    from experiments.result import read

    read(name)
    source = Path(name) / _TIMELINE
    if not source.is_file():
        raise InputError(f"{visible(name)}: has no {_TIMELINE}; run the scenario again with --timeline")
    with atomic(target) as temporary:
        shutil.copyfile(source, temporary)
