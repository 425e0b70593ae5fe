"""``allocsim plot`` and ``allocsim report``: pictures and pages of stored results and sweeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.cli_sweep import is_sweep
from experiments.errors import InputError, visible
from experiments.output import writable, write_whole

if TYPE_CHECKING:
    from experiments.pictures.metrics import Metric

_OF_RUNS = ("latency", "response", "heap")
_OF_SWEEP = ("bands", "heat", "pareto")
_OF_AXES = {"x_name": "--x", "y_name": "--y", "metric": "--metric", "where": "--where"}
_TAKEN = {"bands": ("x_name", "metric", "where"), "heat": tuple(_OF_AXES), "pareto": ("where",)}


@click.command("plot", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("directories", nargs=-1, required=True, metavar="DIR...")
@click.option(
    "--kind",
    type=click.Choice([*_OF_RUNS, *_OF_SWEEP]),
    help="What to draw [default: latency of runs, heat of a sweep, bands if it has one axis].",
)
@click.option("--x", "x_name", metavar="AXIS", help="Of a sweep: the axis to the right [default: the first].")
@click.option("--y", "y_name", metavar="AXIS", help="Of a map: the axis upwards [default: the next].")
@click.option(
    "--metric",
    metavar="NAME",
    help="Of a sweep: a column of its table of runs, a short name such as gc-cpu or heap-peak, or a quantile such as"
    " malloc-p99.9 [default: response-p99 of a service, else malloc-p99].",
)
@click.option("--where", multiple=True, metavar="AXIS=VALUE", help="Only points with this setting; repeatable.")
@click.option(
    "-o", "--output", metavar="FILE", help="Where to write, .svg or .png [default: KIND.svg in this directory]."
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def plot(directories: tuple[str, ...], kind: str | None, output: str | None, force: bool, **options: Any) -> None:
    """Draw results that `allocsim run -o DIR` kept, or a sweep that `allocsim sweep -o DIR` did.

    latency: how many mallocs took longer than how long, and which causes made those; of several DIRs the first alone.
    response: the same of a service's requests. heap: live heap, goal, trigger and GC cycles over time. heat: a metric
    over two axes of a sweep. bands: a metric against one, with 95 % intervals. pareto: CPU of the collector against the
    heap's peak and p99, and the points that no other beats.
    """
    from experiments.pictures import canvas

    canvas.needed()
    sweep = _one_kind(directories)
    kind = kind or (_usual_of_sweep(directories[0]) if sweep else "latency")
    _check_options(directories, kind, sweep, options)
    target = _target(Path(output) if output is not None else Path(f"{kind}.svg"), force)
    draw = _sweep_picture(directories[0], kind, **options) if sweep else _run_picture(directories, kind)
    canvas.write(draw, target)
    click.echo(f"drawn in {visible(target)}", err=True)


def _one_kind(directories: Sequence[str]) -> bool:
    """Whether it is a sweep; InputError if there are others beside it."""
    for name in directories:
        if is_sweep(name) and len(directories) > 1:
            raise InputError(f"{name}: is a sweep; draw it by itself")
    return is_sweep(directories[0])


def _usual_of_sweep(name: str) -> str:
    from experiments.pictures.points import axes_of
    from experiments.sweeps import store

    results = store.read(name)
    return "heat" if len(axes_of(results)) > 1 and results.sweep["kind"] in ("grid", "list") else "bands"


def _check_options(directories: Sequence[str], kind: str, sweep: bool, options: dict[str, Any]) -> None:
    """InputError unless this kind of picture is of such directories, and takes what was given."""
    if (kind in _OF_SWEEP) != sweep:
        kinds, what = (_OF_SWEEP, "a sweep") if sweep else (_OF_RUNS, "no sweep")
        raise InputError(f"{directories[0]}: is {what}, and has no picture {kind}; there are {', '.join(kinds)}")
    if kind in ("response", "heap") and len(directories) > 1:
        raise InputError(f"{directories[1]}: {kind} is of one result alone; draw each by itself")
    for name, option in _OF_AXES.items():
        if options[name] and name not in _TAKEN.get(kind, ()):
            takers = ", ".join(one for one, taken in _TAKEN.items() if name in taken)
            raise InputError(f"{option}: {kind} takes none; it is of {takers}")


def _target(path: Path, force: bool) -> Path:
    from experiments.pictures import canvas

    if path.suffix not in canvas.SUFFIXES:
        raise InputError(f"{path}: ends in neither .svg nor .png; name a file that does with -o")
    return writable(path, force)


def _run_picture(directories: Sequence[str], kind: str) -> Callable[[], Any]:
    from experiments.pictures import of_runs

    runs = of_runs.read_runs(directories)
    if kind == "latency":
        return lambda: of_runs.latency(runs)
    one = {"response": of_runs.response, "heap": of_runs.over_time}[kind]
    return lambda: one(runs[0])


def _sweep_picture(
    name: str, kind: str, x_name: str | None, y_name: str | None, metric: str | None, where: Sequence[str]
) -> Callable[[], Any]:
    from experiments.pictures import of_sweep
    from experiments.pictures.points import axes_of, axis_of, gather, where_of
    from experiments.sweeps import store

    results = store.read(name)
    axes = axes_of(results)
    fixed = where_of(axes, where, name)
    free = [axis for axis in axes.values() if axis.name not in fixed]
    x = axis_of(axes, x_name, name) if x_name is not None else next(iter(free), None)
    y = axis_of(axes, y_name, name) if y_name is not None else next((axis for axis in free if axis != x), None)
    if kind != "pareto":
        if x is None or x.name in fixed:
            raise InputError(f"{name}: --where leaves no axis to draw over; leave out {x_name or next(iter(axes))}")
        if kind == "heat" and (y is None or y.name in fixed):
            raise InputError(f"{name}: has one axis alone, {x.name}, and a map takes two; draw --kind bands")
    if kind == "pareto":
        found = gather(results, lambda row: of_sweep.pareto_metrics(row, name))
        return lambda: of_sweep.pareto(found, fixed)
    found = gather(results, lambda row: [_metric(metric, row, name)])
    if kind == "heat":
        return lambda: of_sweep.heat(found, found.metrics[0], x, y, fixed)  # type: ignore[arg-type]
    return lambda: of_sweep.bands(found, found.metrics[0], x, fixed)  # type: ignore[arg-type]


def _metric(wanted: str | None, row: Any, name: str) -> Metric:
    """The metric that is asked for, or what users of the program see."""
    from experiments.pictures.metrics import metric_of, of_service

    return metric_of(wanted or ("response-p99" if of_service(row) else "malloc-p99"), row, name)


@click.command("report", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("directory", metavar="DIR")
@click.option("-o", "--output", metavar="FILE", required=True, help="Where to write the page, FILE.html.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def report(directory: str, output: str, force: bool) -> None:
    """Write one HTML page of a stored result or a sweep: pictures, tables, settings, and what to beware of.

    The page needs nothing else: no network, no script, no font.
    """
    from experiments.pictures import canvas

    canvas.needed()
    if Path(output).suffix not in (".html", ".htm"):
        raise InputError(f"{output}: does not end in .html; name a file that does with -o")
    target = writable(Path(output), force)
    if is_sweep(directory):
        from experiments.pictures import report_sweep

        text = report_sweep.page_of(directory)
    else:
        from experiments.pictures import report_run

        text = report_run.page_of(directory)
    write_whole(target, text)
    click.echo(f"written to {visible(target)}", err=True)
