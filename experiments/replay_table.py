"""How far replays are from their records: ``python -m experiments.replay_table TRACE... [-o FILE]``.

One row a trace, in Markdown. Told and coupled replays (replay.py): span bases and slots at the recorded address, of
those that can be predicted. The free one (replay_free.py): automatic cycles, as simulated and as recorded, with those
when all objects die as early or as late as the record allows; and how far off the heap is when they begin, and the
goals that all cycles set: median, largest, and how many are within 5 %.

GOGC is read off the file's name, where ``gogc_off``, ``gogc_50`` or the like stands in it; 100 otherwise.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np

from experiments.errors import InputError
from experiments.output import writable, write_whole
from experiments.replay import Replay, replay
from experiments.replay_free import compare, in_record, run_freely
from workloads.gotrace import read_trace
from workloads.gotrace_model import TraceError
from workloads.tracestream import check_allocations
from workloads.tracestream_deaths import DRAWN, EARLIEST, LATEST

HEAD = (
    *("trace", "told: spans", "slots", "coupled: spans", "slots"),
    *("free: cycles", "recorded", "earliest, latest", "heap at trigger", "goals"),
)
WITHIN = 0.05
INTRO = """\
# Replays against their records

Execution traces of real programs (Go 1.27.3, `GODEBUG=traceallocfree=1`, GOMAXPROCS and GOGC as their names say). What
each kind of replay is told, and what the columns mean, says `experiments/replay_table.py`, which writes this page:

    python -m experiments.replay_table TRACE... -o experiments/replay_errors.md

In a free replay a cycle that is off by more than 5 % is nearly always one before which a single large object came just
below the trigger, or just above it. That moves the cycle, what it marks, and all that follows until the next forced one.

"""


def gogc_of(name: str) -> int:
    """GOGC in percent that a file's name speaks of, -1 for off."""
    found = re.search(r"gogc_(off|\d+)", name)
    return 100 if found is None else -1 if found[1] == "off" else int(found[1])


def row(path: Path) -> tuple[str, ...]:
    """A trace's row. TraceError or InputError if it cannot be replayed."""
    trace = read_trace(path)
    check_allocations(trace)
    gogc, recorded = gogc_of(path.name), in_record(trace)
    free = {way: compare(run_freely(trace, gogc=gogc, deaths=way), recorded) for way in (DRAWN, EARLIEST, LATEST)}
    drawn = free[DRAWN]
    return (
        path.name.split(".")[0],
        *_matched(replay(trace)),
        *_matched(replay(trace, "coupled")),
        str(drawn.cycles),
        str(drawn.recorded_cycles),
        f"{free[EARLIEST].cycles}, {free[LATEST].cycles}",
        spread(drawn.trigger_error),
        spread(drawn.goal_error),
    )


def _matched(found: Replay) -> Iterator[str]:
    """Spans, and the share of slots."""
    yield f"{found.spans_matched:,} of {found.spans_total:,}"
    slots = found.slots_total - found.excepted
    yield f"{100 * found.slots_matched / slots:.3f} %" if slots else "-"


def spread(errors: Sequence[float]) -> str:
    """Median and largest of relative errors, and how many are small."""
    if not errors:
        return "-"
    off = np.abs(errors)
    small = int((off <= WITHIN).sum())
    return f"{100 * float(np.median(off)):.2f} %, {100 * float(off.max()):.1f} %; {small} of {len(off)}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a table in Markdown."""
    lines = [HEAD, tuple("---" for _ in HEAD), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


@click.command("replay_table", context_settings={"help_option_names": ["-h", "--help"]}, help=__doc__)
@click.argument("traces", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a page with the table there.")
def main(traces: tuple[Path, ...], output: Path | None) -> None:
    """Replay each trace in every way, and show the table."""
    rows: list[tuple[str, ...]] = []
    try:
        target = None if output is None else writable(output, force=True, sources=traces)
    except InputError as error:
        click.echo(f"replay_table: {error}", err=True)
        sys.exit(2)
    for path in traces:
        try:
            rows.append(row(path))
        except (TraceError, InputError) as error:
            text = str(error)
            click.echo(f"replay_table: {text if text.startswith(str(path)) else f'{path}: {text}'}", err=True)
            sys.exit(2)
        click.echo(f"{rows[-1][0]}: done", err=True)
    click.echo(table(rows), nl=False)
    if target is not None:
        try:
            write_whole(target, INTRO + table(rows))
        except InputError as error:
            click.echo(f"replay_table: {error}", err=True)
            sys.exit(2)


if __name__ == "__main__":
    main()
