"""``allocsim sweep``: many runs of one scenario, resumable, on all cores or a cluster."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from experiments.errors import InputError, visible
from experiments.progress import Bar, stoppable

if TYPE_CHECKING:
    from experiments.sweeps.pool import Crew
    from experiments.sweeps.store import Results


def many_runs(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that makes many runs: who makes them, and what is set for all."""
    options = (
        click.option(
            "--jobs", type=click.IntRange(1, 4096), metavar="N", help="Worker processes [default: one for each CPU]."
        ),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Run on a Dask cluster, such as tcp://host:8786, in place of processes.",
        ),
        click.option(
            "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value of all points; repeatable."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command("sweep", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file")
@click.option(
    "-o", "--output", metavar="DIR", required=True, help="Keep the results in DIR; a sweep begun there goes on."
)
@many_runs
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(["parquet", "csv", "jsonl"]),
    help="Of the tables; repeatable [default: parquet where pyarrow is installed, else csv].",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def sweep(
    file: str,
    output: str,
    jobs: int | None,
    scheduler: str | None,
    sets: tuple[str, ...],
    formats: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a scenario at every point of a sweep, keep each result at once, and write tables of them.

    FILE is a TOML file (experiments/sweeps/spec.py says every key), or gc-settings or limit-and-load. The same command again goes on where it was ended,
    however that came about, and tries again what failed. Exit status 1: some runs failed, and the tables say why.
    """
    from experiments.sweeps import tables
    from experiments.sweeps.spec import read_sweep
    from experiments.sweeps.sweeping import carry_out

    if jobs is not None and scheduler is not None:
        raise click.UsageError("--jobs counts processes of this machine, and a scheduler has its own; leave out one")
    wanted = tables.formats(formats)
    chosen = read_sweep(file, settings(file, sets))
    bar = Bar(sys.stderr) if sys.stderr.isatty() else None
    with crew(jobs, scheduler) as workers, stoppable() as interrupted:
        try:
            done = carry_out(chosen, output, workers, wanted, _watch(bar), interrupted, warn)
        finally:
            if bar is not None:
                bar.close()
    if not done.whole:
        click.echo(f"allocsim: interrupted: {done.made:,} runs were made and kept; the same command goes on", err=True)
        raise click.exceptions.Exit(130)
    _warn_if_edited(file, sets, done.results)
    _print(done.summary, as_json)
    click.echo(f"kept in {visible(output)}: {', '.join(path.name for path in done.written)}", err=True)
    if done.failed:
        click.echo(
            f"allocsim: {done.failed:,} of {len(done.results.runs):,} runs failed; {visible(output)} says why", err=True
        )
        raise click.exceptions.Exit(1)


def _warn_if_edited(file: str, sets: tuple[str, ...], results: Results) -> None:
    """Say so if a sweep file, or a file that it names, is no longer what the results are of."""
    from experiments.sweeps.points import points_of
    from experiments.sweeps.spec import read_sweep

    try:
        same = points_of(read_sweep(file, settings(file, sets)))[0] == results.points
    except InputError:
        same = False
    if not same:
        warn(f"{file}: it or its scenario was edited while the sweep ran; these results are of what stood there before")


def settings(file: str, sets: tuple[str, ...]) -> dict[str, Any]:
    """Texts ``key=value`` as settings."""
    from workloads.scenario import ScenarioError, value_of

    found: dict[str, Any] = {}
    for text in sets:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"{file}: --set {text[:80]}: is not key=value; write one such as gomaxprocs=8")
        try:
            found[key.strip()] = value_of(value, key.strip(), file)
        except ScenarioError as error:
            raise InputError(str(error)) from None
    return found


@contextmanager
def crew(jobs: int | None, scheduler: str | None) -> Iterator[Crew]:
    """Who works: processes of our own, or a cluster's."""
    if scheduler is not None:
        from experiments.sweeps.cluster import connected

        with connected(scheduler) as found:
            yield found
        return
    from experiments.sweeps.sweeping import crew_of

    with crew_of(jobs or len(os.sched_getaffinity(0))) as found:
        yield found


def _watch(bar: Bar | None) -> Any:
    """What tells the bar how far a sweep is."""
    begun = time.monotonic()

    def progress(made: int, missing: int) -> None:
        if bar is not None and missing:
            rate = made / max(time.monotonic() - begun, 1e-9)
            bar(made / missing, f"{made:,} of {missing:,} runs, {rate:.1f}/s")

    return progress


def warn(line: str) -> None:
    click.echo(f"allocsim: warning: {visible(line)}", err=True)


def is_sweep(directory: str) -> bool:
    """Whether a directory is a sweep's."""
    return os.path.exists(os.path.join(directory, "sweep.json"))


def show(directory: str, as_json: bool) -> None:
    """Print what a sweep found so far."""
    from experiments.sweeps import store, summary

    _print(summary.summary(store.read(directory)), as_json)


def _print(found: Mapping[str, Any], as_json: bool) -> None:
    from experiments.sweeps import summary

    text = json.dumps(found, indent=2) if as_json else "\n".join(summary.text(found))
    encoding = sys.stdout.encoding or "ascii"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))
