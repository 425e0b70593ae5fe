"""The command line: ``allocsim COMMAND ...``.

What a person typed is checked here, at the edge; commands call the experiment of their name and show what it
returned. Nothing heavy is imported at the top, so that ``--help`` and every refusal answer at once.

Exit status: 0 done, 1 a conformance answer differs or the simulator broke an invariant of its own, 2 bad input
(one line on stderr: ``allocsim: <file>: what is wrong; what would be right``), 130 interrupted (a run shows and keeps
what there was), 141 nobody reads the output.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from experiments import (
    cli_compare,
    cli_export,
    cli_measure,
    cli_pictures,
    cli_record,
    cli_sweep,
    cli_tune,
    cli_validate,
)
from experiments.errors import InputError, visible
from experiments.output import atomic, writable
from experiments.progress import Bar, announce_compile, stoppable
from sim import __version__
from sim.units import Throw

if TYPE_CHECKING:
    from experiments.result import Report
    from workloads.scenario import Scenario

_SUFFIX = ".alloctrace"


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(__version__, prog_name="allocsim", message="%(prog)s %(version)s")
def app() -> None:
    """Simulate Go's memory allocator and hold it against recordings of the real one."""


for _command in (
    cli_compare.compare,
    cli_export.export,
    cli_measure.calibrate,
    cli_pictures.plot,
    cli_pictures.report,
    cli_sweep.sweep,
    cli_tune.tune,
    cli_validate.validate,
    *cli_record.COMMANDS,
):
    app.add_command(_command)

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
_TRACES = ("the allocator", "20 s")


@app.command("run")
@click.argument("scenario")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value of the scenario; repeatable.")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), metavar="N", help="Another seed than the scenario's.")
@_json
@click.option("-o", "--output", metavar="DIR", help="Keep the result in DIR, a new directory.")
@click.option("--timeline", is_flag=True, help="Keep a timeline in DIR, for ui.perfetto.dev.")
@click.option("--check", is_flag=True, help="Verify every invariant of the heap at the end.")
def run_(
    scenario: str,
    sets: tuple[str, ...],
    seed: int | None,
    as_json: bool,
    output: str | None,
    timeline: bool,
    check: bool,
) -> None:
    """Run a scenario on the simulated runtime and show where the time of malloc went.

    SCENARIO is the name of a shipped one (see `allocsim list`) or a TOML file. Ctrl-C ends a run early and shows what
    there is; once more gives up.
    """
    from experiments import result
    from workloads.scenario import ScenarioError, load

    if timeline and output is None:
        raise InputError("--timeline keeps a file in the result's directory; name that with -o DIR")
    target = result.free_directory(output) if output is not None else None
    try:
        chosen = load(scenario, sets, seed)
    except ScenarioError as error:
        raise InputError(str(error)) from None
    prices = _machine_file(chosen)
    announce_compile()
    from experiments.run import run

    begun = time.time()
    bar = Bar(sys.stderr) if sys.stderr.isatty() and (sys.stdout.isatty() or not as_json) else None
    with stoppable() as interrupted:
        try:
            found = run(chosen, bar, interrupted, check, lambda line: _warn(f"{scenario}: {line}"), timeline)
        finally:
            if bar is not None:
                bar.close()
        failure = None
        if target is not None:
            try:
                result.store(target, found, result.host(begun), prices)
            except InputError as error:
                failure = error  # after what was found is shown
        _show(result.report(found), as_json)
    if failure is not None:
        raise failure
    if check:
        click.echo("checked: every invariant of the heap holds", err=True)
    if target is not None:
        click.echo(f"kept in {visible(output)}", err=True)
    if found.cut_short:
        raise click.exceptions.Exit(_refuse("interrupted: the run was cut short, this is what there was", 130))


@app.command("list")
@_json
def list_(as_json: bool) -> None:
    """List the scenarios that come with the program."""
    from workloads.scenario import list_scenarios

    scenarios = list_scenarios()
    if as_json:
        _print_json([{"name": name, "purpose": purpose} for name, purpose in scenarios])
        return
    width = max(len(name) for name, _ in scenarios)
    for name, purpose in scenarios:
        _print(textwrap.fill(purpose, 100, initial_indent=name.ljust(width + 2), subsequent_indent=" " * (width + 2)))


@app.command()
@click.argument("directory", metavar="DIR")
@_json
def show(directory: str, as_json: bool) -> None:
    """Show a result that `allocsim run -o DIR` kept, or what `allocsim sweep` or `tune` found, of that -o DIR."""
    from experiments.result import read

    if cli_sweep.is_sweep(directory):
        cli_sweep.show(directory, as_json)
        return
    if cli_tune.is_tune(directory):
        cli_tune.show(directory, as_json)
        return
    _show(read(directory), as_json)


@app.command("import")
@click.argument("trace")
@click.option("-o", "--output", metavar="FILE", help=f"Where to write [default: NAME{_SUFFIX} in this directory].")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def import_(trace: str, output: str | None, force: bool) -> None:
    """Turn a recorded Go execution trace into a compact file that replays at once.

    TRACE is raw or .xz, recorded by Go 1.22 or later with GODEBUG=traceallocfree=1.
    """
    source = _readable(trace)
    target = writable(Path(output) if output is not None else Path(_imported_name(source)), force, [source])
    announce_compile(*_TRACES, ("gotrace_wire", "gotrace_merge"))
    from workloads import gotrace

    with _about(source, gotrace.TraceError):
        recorded = gotrace.read_trace(source)
    with atomic(target) as temporary:
        gotrace.save(recorded, temporary)
    rows = [(name.replace("_", " "), f"{count:,}") for name, count in recorded.counts().items()]
    rows.append(("not understood", f"{sum(recorded.unknown.values()):,}"))
    _print_table([(visible(target), "count"), *rows])


def _checked(name: str) -> Callable[[click.Context, click.Parameter, str | None], int | None]:
    """A value as a scenario's key of that name takes it."""

    def check(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
        from workloads import scenario_values

        if value is None:
            return None
        try:
            return int(getattr(scenario_values, name)(value))
        except ValueError as error:
            raise click.BadParameter(str(error), ctx, param) from None

    return check


@app.command()
@click.argument("trace")
@click.option(
    "--gc",
    type=click.Choice(["coupled", "free"]),
    help="coupled: sweep by the model's own rules, told only when cycles begin and end and who runs where. free: also run "
    "the program on the clock, where the model's pacer says when cycles begin "
    "[default: what is swept when is told by the trace].",
)
@click.option("--gogc", callback=_checked("gogc_text"), metavar="PERCENT|off", help="With free: the GOGC of the recorded program [default: 100].")
@click.option("--memory-limit", callback=_checked("limit"), metavar="SIZE|off", help="With free: its GOMEMLIMIT, such as 512MiB [default: none].")
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), metavar="N", help="With free: of deaths drawn [default: 1].")
@click.option(
    "--deaths",
    type=click.Choice(["drawn", "earliest", "latest"]),
    help="With free: when objects die within the bounds that the trace tells [default: drawn].",
)
@_json
def replay(trace: str, gc: str | None, as_json: bool, **settings: Any) -> None:
    """Replay a recorded trace: how many addresses does the model hand out as recorded, and how do its collections go?

    TRACE is a raw execution trace, raw or .xz, a file that `allocsim import` wrote, or a directory of `allocsim record`.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if given and gc != "free":
        raise click.UsageError(f"--{next(iter(given)).replace('_', '-')} goes with --gc free alone")
    source = _readable(cli_record.trace_in(trace))
    announce_compile(*_TRACES, ("gotrace_wire", "gotrace_merge", "replay_kernel", *(["pump"] if gc == "free" else [])))
    from experiments.replay import replay as run
    from experiments.replay_free import replay_free
    from workloads import gotrace

    with _about(source, gotrace.TraceError, InputError):
        recorded = gotrace.read_trace(source)
        answer = (replay_free(recorded, **given) if gc == "free" else run(recorded, gc)).to_dict()
    if as_json:
        _print_json(answer)
    else:
        _show_replay(source, answer)


def _show_replay(source: Path, answer: dict[str, Any]) -> None:
    """What `replay` found, as tables."""
    found = answer["replay"]
    spans, slots = found["spans"], found["slots"]
    predictable = slots["total"] - slots["excepted"]
    _print_table(
        [
            (visible(source), "predictable", "as recorded", "share"),
            ("span bases", f"{spans['total']:,}", f"{spans['matched']:,}", _share(spans["matched"], spans["total"])),
            ("object slots", f"{predictable:,}", f"{slots['matched']:,}", _share(slots["matched"], predictable)),
        ]
    )
    click.echo(f"\n{slots['tiny']:,} of these slots are combined tiny allocations; {slots['excepted']:,} more objects")
    click.echo("are excepted: the first of a span class on a P whose span is older than the trace.")
    if "gc" in answer:
        cycles = answer["gc"]
        click.echo(f"{cycles['cycles']:,} collections, of {cycles['recorded_cycles']:,} recorded, and {cycles['forced']:,} forced.")
        for name, what in (("trigger_error", "heap when a cycle begins"), ("goal_error", "goal that a cycle sets")):
            if cycles[name]:
                errors = [abs(error) for error in cycles[name]]
                click.echo(f"{what}: off by {100 * median(errors):.2f} %, the median, and {100 * max(errors):.1f} % at most.")
    if found["unknown_events"]:
        click.echo(f"{found['unknown_events']:,} events were not understood.")
    misses = {cause: count for cause, count in found["misses"].items() if count}
    if misses:
        total = sum(misses.values())
        rows = [(cause.replace("_", " "), f"{count:,}", _share(count, total)) for cause, count in misses.items()]
        click.echo()
        _print_table([("misses by cause", "count", "share"), *rows])


@app.command()
@click.argument("file")
@_json
def conform(file: str, as_json: bool) -> None:
    """Put recorded answers of the real runtime, or TCMalloc, to the model; exit 1 where one differs.

    FILE holds recorded answers, as .json or .json.xz.
    """
    source = _readable(file)
    announce_compile(*_TRACES, ("conform_pages", "conform_pacer", "heap"))
    from experiments.conform import conform as run

    with _about(source, InputError):
        answer = run(source)
    if as_json:
        keys = ("kind", "total", "equal", "first_difference")
        _print_json({"conform": {key: getattr(answer, key) for key in keys}})
    else:
        click.echo(f"{answer.equal:,} of {answer.total:,} equal")
        if answer.first_difference is not None:
            click.echo(f"first difference: {answer.first_difference}")
    if answer.equal != answer.total:
        raise click.exceptions.Exit(1)


@app.command()
@click.option("--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="Repetitions; the best counts.")
@click.option("--gc", "collect", is_flag=True, help="With the collector on, and 50 MiB live.")
@_json
def bench(repeat: int, collect: bool, as_json: bool) -> None:
    """Time the simulator on this machine, against plain SimPy and the real Go runtime.

    Simulated mallocs a second of wall time, ten sizes, GC off (or GOGC=100), with 1, 8 and 64 Ps. Takes about half a
    minute.
    """
    announce_compile()
    from experiments.bench import run_bench, table

    answer = run_bench(repeat, watch=lambda doing: click.echo(doing, err=True), collect=collect)
    if as_json:
        _print_json(answer)
        return
    _print_table(table(answer))
    details = answer["details"]
    gc = "GOGC=100, 50 MiB live" if details["gc"] else "GC off"
    click.echo(f"\nWall time, the best of {repeat}; {gc}; {details['go'] or 'no Go'}, {details['cpus']} CPUs.")
    if details["no_go"] is not None:
        click.echo(f"The real runtime was not timed: {details['no_go']}")


def _machine_file(scenario: Scenario) -> bytes | None:
    """What the machine file of a scenario holds, if it is named by its path; InputError unless it has prices for it."""
    from experiments.machine_file import read_machine

    if "/" not in scenario.machine:
        read_machine(scenario.machine).measured(scenario.version)
        return None
    held = _readable(scenario.machine).read_bytes()
    read_machine(scenario.machine).measured(scenario.version)
    return held


def _show(report: Report, as_json: bool) -> None:
    """Print a result as JSON, or as text that fits the terminal."""
    if as_json:
        _print_json(report.summary)
        return
    from experiments.render import look_of, render

    _print(render(report, look_of(sys.stdout)))


def _print(text: str) -> None:
    """Text for people, with escapes for what the encoding of stdout has not."""
    encoding = sys.stdout.encoding or "ascii"
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def _readable(name: str) -> Path:
    """The path of an input; InputError unless it is a plain file that can be opened."""
    try:
        mode = os.stat(name).st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"{name}: is a directory; name a file in it")
        if not stat.S_ISREG(mode):
            raise InputError(f"{name}: is not a plain file; write what it holds to one first")
        with open(name, "rb"):
            return Path(name)
    except FileNotFoundError:
        raise InputError(f"{name or repr(name)}: no such file; name one that exists") from None
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{name}: cannot be read ({what}); name a file that can") from None


def _imported_name(source: Path) -> str:
    """``dir/x.trace.xz`` becomes ``x.alloctrace``."""
    name = source.name
    for suffix in (".xz", ".trace", _SUFFIX):
        name = name.removesuffix(suffix) or name
    return name + _SUFFIX


@contextmanager
def _about(source: Path, *errors: type[Exception]) -> Iterator[None]:
    """Errors about the contents of ``source`` become InputError and name it."""
    try:
        yield
    except errors as error:
        message = str(error)
        raise InputError(message if message.startswith(f"{source}: ") else f"{source}: {message}") from error


def _share(part: int, whole: int) -> str:
    """A share in percent, rounded down so that 100 % means all."""
    if not whole:
        return "-"
    thousandths = part * 100_000 // whole
    return f"{thousandths // 1000}.{thousandths % 1000:03} %"


def _print_json(answer: Any) -> None:
    click.echo(json.dumps(answer, indent=2))


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows in columns, the first one the heading; all columns but the first aligned at the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        click.echo("  ".join(cells))


def _warn(message: str) -> None:
    """One line on stderr of a run that goes on all the same."""
    click.echo(f"allocsim: warning: {visible(message)}", err=True)


def _refuse(message: str, status: int) -> int:
    """One line on stderr, whatever the message holds."""
    click.echo(f"allocsim: {visible(message)}", err=True)
    return status


def _usage(error: click.UsageError) -> str:
    """What click says of a wrong command line, and where to read what is right."""
    command = error.ctx.command_path if error.ctx is not None else "allocsim"
    what = error.format_message().rstrip(".")
    return f"{what[:1].lower()}{what[1:]}; see {command} --help"


def _run(arguments: Sequence[str] | None) -> int:
    """Run a command; its exit status."""
    try:
        with app.make_context("allocsim", list(sys.argv[1:] if arguments is None else arguments)) as context:
            app.invoke(context)
        return 0
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.UsageError as error:
        return _refuse(_usage(error), 2)
    except InputError as error:
        return _refuse(str(error), 2)
    except Throw as error:
        return _refuse(f"an invariant of the simulator is broken (please report it): {error}", 1)
    except MemoryError:
        return _refuse("out of memory; give it more, or a smaller input", 1)


def _guarded(run: Callable[[], int]) -> int:
    """A run whose output may vanish and which may be interrupted, at any point."""
    try:
        status = run()
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _refuse("interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: nothing to flush at exit
        return 128 + signal.SIGPIPE
    except OSError as error:
        return _refuse(f"{error.filename or 'output'}: {error.strerror}; make room or name another file", 2)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command ``allocsim``: run it on ``arguments`` (default: the process's own) and exit."""
    sys.exit(_guarded(lambda: _run(arguments)))


if __name__ == "__main__":
    main()
