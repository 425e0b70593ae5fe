"""The commands ``allocsim record`` and ``allocsim fit``: what a person typed is checked here, and the answer shown."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import click

from experiments.errors import InputError, visible
from experiments.output import writable, write_whole
from experiments.progress import announce_compile, say
from workloads.recorded_files import RECORD, trace_of

_SECONDS = 5.0
_MAX_SECONDS = 86_400.0


def trace_in(name: str) -> str:
    """The trace in a directory that `allocsim record` wrote, or the name itself; InputError if there is no trace."""
    try:
        return str(trace_of(Path(name))) if name and "\0" not in name else name
    except ValueError as error:
        raise InputError(str(error)) from None


@click.command("record", context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False})
@click.option(
    "-o", "--output", metavar="DIR", help="Keep what is gathered in DIR, a new directory [default: NAME.record]."
)
@click.option(
    "--pprof", "url", metavar="URL", help="Where the command serves net/http/pprof: fetch trace and heap profile."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, _MAX_SECONDS),
    help=f"With --pprof: of trace [default: {_SECONDS:g}].",
)
@click.option(
    "--no-trace", is_flag=True, help="No trace: the program runs as fast as ever, but nothing tells pointers."
)
@click.argument("command", nargs=-1, required=True, metavar="-- CMD [ARG]...")
def record_(
    output: str | None, url: str | None, seconds: float | None, no_trace: bool, command: tuple[str, ...]
) -> None:
    """Run a Go test or program and gather gctrace lines, a trace and a heap profile for `replay` and `fit`.

    CMD is `go test PACKAGE` (one package), `go run`, the binary of a test, or a program; its output and exit status are
    as ever. Ctrl-C ends CMD, and keeps what was gathered.
    """
    from experiments.record import record

    if not command[0]:
        raise InputError("'': is no command; write it after --, as in allocsim record -- go test ./mypackage")
    if seconds is not None and url is None:
        raise click.UsageError("--seconds goes with --pprof alone")
    found = record(command, output, url=url, seconds=seconds or _SECONDS, trace=not no_trace)
    for note in found.notes:
        say(f"record: {note}")
    where = output if output is not None else found.directory.name
    sizes = [f"{name} ({_size(found.directory / name)})" for name in found.told["files"]]
    kept = f"kept in {where}: {', '.join([*sizes, RECORD])}"
    if found.status:
        kept = f"the command ended with exit status {found.status}; {kept}"
    say(f"record: {found.cycles:,} collections; {kept}")
    if found.status:
        raise click.exceptions.Exit(found.status)


def _size(path: Path) -> str:
    from sim.units import format_size

    return format_size(path.stat().st_size)


@click.command("fit")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "-o", "--output", metavar="FILE", help="Where to write the scenario [default: NAME.toml in this directory]."
)
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="A value of the scenario that is known better; repeatable.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.001, 1e7),
    metavar="N",
    help="How long the program ran, for a heap profile alone.",
)
@click.option("--no-run", is_flag=True, help="Write the scenario only: rates are then an estimate.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def fit_(
    sources: tuple[str, ...],
    output: str | None,
    force: bool,
    sets: tuple[str, ...],
    seconds: float | None,
    no_run: bool,
    as_json: bool,
) -> None:
    """Make a scenario whose collections are those that were recorded, and show how close they come.

    SOURCE is a directory of `allocsim record`, a gctrace log, an execution trace or a heap profile; or one of each.
    """
    for source in sources:
        _check_source(source)
    name = f"{Path(os.path.abspath(sources[0])).name.split('.')[0] or 'fitted'}.toml"
    target = writable(Path(output if output is not None else name), force, sources)
    announce_compile(modules=("pump", "streams_fill", "gotrace_wire", "gotrace_merge"))
    from experiments.fit import fit, table

    found = fit(sources, sets=sets, seconds=seconds, simulate=not no_run, tell=lambda line: say(f"fit: {line}"))
    write_whole(target, found.text)
    for caution in found.cautions:
        say(f"warning: {caution}")
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    elif rows := table(found):
        _table(rows)
        click.echo("\n* met: what the program computes, and a guessed share of pointers, were chosen for that.")
    say(f"fit: written to {target}; run it with allocsim run {target}")


def _check_source(name: str) -> None:
    """InputError unless a source is there, a plain file or a directory, under a name that can be written down."""
    if not name.isprintable():
        raise InputError(f"{visible(name)}: has characters that are no text in its name; rename it")
    try:
        path = Path(name)
        if name and (path.is_dir() or path.is_file()):
            return
        missing = not name or not path.exists()
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({error}); name a file that can") from None
    if missing:
        raise InputError(f"{name or repr(name)}: no such file; name one that exists, or a directory of allocsim record")
    raise InputError(f"{name}: is not a plain file; write what it holds to one first")


def _table(rows: Sequence[Sequence[str]]) -> None:
    """Rows in columns, all but the first aligned at the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        click.echo("  ".join(cells))


COMMANDS = (record_, fit_)
