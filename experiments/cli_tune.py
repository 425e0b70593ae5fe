"""``allocsim tune``: the best setting of a scenario within bounds, and how sure that is."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from experiments.cli_sweep import crew, many_runs, settings, warn
from experiments.errors import InputError, visible
from experiments.progress import Bar, stoppable


@click.command("tune", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("file")
@click.option(
    "--minimise", metavar="FIGURE", help="What is to be least, such as response:p99.9, malloc:p99, peak-rss, gc-cpu."
)
@click.option("--maximise", metavar="FIGURE", help="What is to be most, such as throughput, in place of that.")
@click.option("--subject-to", multiple=True, metavar="BOUND", help="A bound, such as 'peak-rss<=2GiB'; repeatable.")
@click.option(
    "--axis",
    "axes",
    multiple=True,
    metavar="KEY=VALUES",
    help="A setting that is varied: gogc=50..400, memory_limit=64MiB..1GiB:log, gomaxprocs=2,4,8; repeatable.",
)
@click.option("--samples", type=int, metavar="N", help="Points to try [default: 40].")
@click.option("--replications", type=int, metavar="N", help="Runs of each [default: 3].")
@click.option("--confirm", type=int, metavar="N", help="Fresh runs of each of the best [default: 10].")
@click.option("--seed", type=int, metavar="N", help="Of the search and its runs [default: 1].")
@click.option(
    "-o", "--output", metavar="DIR", required=True, help="Keep the results in DIR; a search begun there goes on."
)
@many_runs
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def tune(
    file: str,
    axes: tuple[str, ...],
    output: str,
    jobs: int | None,
    scheduler: str | None,
    sets: tuple[str, ...],
    as_json: bool,
    **changes: Any,
) -> None:
    """Find the settings at which a figure is least, or most, within bounds on others.

    FILE is a tune file (experiments/search/spec.py says every key), or a scenario: a shipped one or a file. Points are
    tried batch by batch, as Optuna asks (pip install 'allocsim[search]'); the best are run anew with fresh seeds and
    compared. The same command again goes on where it was ended. Exit status 1: no point keeps the bounds.
    """
    from experiments.search.spec import read_tune
    from experiments.search.tuning import Watch, carry_out_tune
    from experiments.search.tuning import as_json as json_of

    if jobs is not None and scheduler is not None:
        raise click.UsageError("--jobs counts processes of this machine, and a scheduler has its own; leave out one")
    asked = read_tune(file, changes, axes, settings(file, sets))
    bar = Bar(sys.stderr) if sys.stderr.isatty() else None

    def progress(made: int, whole: int) -> None:
        if bar is not None:
            bar(made / whole, f"{made:,} of {whole:,} runs")

    with crew(jobs, scheduler) as workers, stoppable() as interrupted:
        try:
            found = carry_out_tune(asked, output, workers, Watch(progress, interrupted, warn))
        finally:
            if bar is not None:
                bar.close()
    if found is None:
        click.echo("allocsim: interrupted: every run that was made is kept; the same command goes on", err=True)
        raise click.exceptions.Exit(130)
    _print(json_of(found), as_json)
    click.echo(f"kept in {visible(output)}: found.json, search, confirm", err=True)
    if not found.kept:
        raise click.exceptions.Exit(1)


def is_tune(directory: str) -> bool:
    """Whether a directory is a search's."""
    return os.path.exists(os.path.join(directory, "tune.json"))


def show(directory: str, as_json: bool) -> None:
    """Print what a search found; InputError if it is not at its end, or if that is damaged."""
    path = os.path.join(directory, "found.json")
    try:
        with open(path, encoding="utf-8") as stream:
            found = json.load(stream)
        _print(found, as_json)
    except FileNotFoundError:
        raise InputError(
            f"{directory}: the search is not at its end; give its command again, or show {directory}/search"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: is damaged; give the command of the search again, which writes it anew") from None


def _print(found: Any, as_json: bool) -> None:
    from experiments.search import report

    text = json.dumps(found, indent=2) if as_json else "\n".join(report.text(found))
    encoding = sys.stdout.encoding or "ascii"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))
