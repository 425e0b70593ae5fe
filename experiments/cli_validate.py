"""The command ``allocsim validate``."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from experiments.errors import InputError
from experiments.progress import announce_compile, say

if TYPE_CHECKING:
    from experiments.toolchain import Toolchain
    from experiments.validate_calibrate import Meanwhile
    from experiments.validate_kept import Kept
    from experiments.validate_workloads import Workload


@click.command()
@click.option(
    "--go", "gos", multiple=True, metavar="GO", help="A go command to run with; repeatable [default: the one found]."
)
@click.option(
    "--machine", metavar="NAME|FILE", help="The machine file that prices the simulation [default: epyc-2core]."
)
@click.option("--calibrate", metavar="FILE", help="Measure prices between the real runs, into a new machine file.")
@click.option("--only", metavar="PATTERN", help="Only workloads whose names match, as in 'grid-50MB-*'.")
@click.option("--repeat", type=click.IntRange(1, 100), default=3, show_default=True, help="Real runs of each.")
@click.option("--keep", metavar="FILE.json.xz", help="Keep what the real runs show in a file.")
@click.option("--kept", metavar="FILE.json.xz", help="Compare with real runs that were kept, in place of new ones.")
@click.option("--explain", is_flag=True, help="Show too which paths the tails of malloc come from.")
@click.option("-o", "--output", metavar="FILE.md", help="Write a page, and all its figures as JSON beside it.")
@click.option("--force", is_flag=True, help="Replace files that are to be written if they exist.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def validate(
    gos: tuple[str, ...],
    machine: str | None,
    calibrate: str | None,
    only: str | None,
    repeat: int,
    keep: str | None,
    kept: str | None,
    explain: bool,
    output: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Run workloads as real Go programs and simulated, and show how far apart they are.

    Latency of malloc, throughput, cycles, heaps, pauses and assists, on the real runtime and in the model. With all
    workloads and two versions it takes a quarter of an hour; the machine should have nothing else to do.

    Before each real run, loops of `allocsim calibrate` tell how fast the host is relative to the machine file; if it
    has drifted by more than a tenth, that is said. A shared host drifts within the hour, so have prices measured in the
    same one, between the real runs (ten minutes more):

    \b
        allocsim validate --calibrate now.toml --keep now.json.xz -o now.md

    What the real runs showed can be kept, and compared with other prices or another model in some minutes, without any go:

    \b
        allocsim validate --kept now.json.xz --machine now.toml -o again.md
    """
    from experiments import validate_page
    from experiments.output import writable
    from experiments.validate_workloads import chosen

    target = validate_page.target(output, force) if output is not None else None
    if machine is not None and calibrate is not None:
        raise InputError("--machine and --calibrate: prices are read or measured; give one of them")
    if kept is not None and (gos or calibrate is not None or keep is not None):
        raise InputError("--kept: nothing is run; leave out --go, --calibrate and --keep")
    workloads, options = chosen(only), _options(gos, kept, machine, calibrate, only, repeat)
    keeping = writable(Path(keep), force) if keep is not None else None
    progress = _Progress()
    try:
        if kept is None:
            found, prices = _run(workloads, gos, machine, calibrate, repeat, force, progress, options)
        else:
            found, prices = _read(Path(kept), workloads, machine)
        if keeping is not None:
            from experiments.validate_kept import write_kept

            write_kept(keeping, found)
        from experiments.validate import simulated

        answer = simulated(workloads, found, prices, progress)
    finally:
        progress.close()
    lines = [*validate_page.text(answer), *(["", *validate_page.explanation(answer)] if explain else [])]
    click.echo(json.dumps(answer, indent=1) if as_json else "\n".join(lines))
    if target is not None:
        made_by = found.command if kept is not None else None
        validate_page.store(target, answer, " ".join([*options, f"-o {target.name}"]), made_by)


def _options(
    gos: Sequence[str], kept: str | None, machine: str | None, calibrate: str | None, only: str | None, repeat: int
) -> list[str]:
    """What the command was given, files without their folders."""
    options = [
        *("--go GO" for _ in gos),
        f"--kept {Path(kept).name}" if kept else "",
        f"--machine {Path(machine).name}" if machine else "",
        f"--calibrate {Path(calibrate).name}" if calibrate else "",
        f"--only '{only}'" if only else "",
        "" if kept else f"--repeat {repeat}",
    ]
    return [one for one in options if one]


def _run(
    workloads: Sequence[Workload],
    gos: Sequence[str],
    machine: str | None,
    calibrate: str | None,
    repeat: int,
    force: bool,
    progress: _Progress,
    options: Sequence[str],
) -> tuple[Kept, str | None]:
    """Real runs, with where, when and how they were made; and the machine file that prices the simulation, which may be new."""
    toolchains = _toolchains(gos)
    measured = _meanwhile(calibrate, force, progress) if calibrate is not None else None
    prices = _machine(machine, [go.model for go in toolchains])
    announce_compile()
    from experiments.validate import run

    before, begun = os.getloadavg(), time.time()
    found = run(workloads, toolchains, prices if measured is None else measured, repeat, progress)
    where = _provenance(before, begun, [go.version for go in toolchains])
    found = replace(found, command=" ".join(options), provenance=where)
    return found, prices if measured is None else str(measured.path)


def _read(path: Path, workloads: Sequence[Workload], machine: str | None) -> tuple[Kept, str | None]:
    """Real runs that were kept, and the machine file that prices the simulation."""
    announce_compile()
    from experiments.validate_kept import read_kept

    found = read_kept(path, {one.name for one in workloads})
    return found, _machine(machine, list({one.go.model for one in found.of_all()}))


def _toolchains(gos: Sequence[str]) -> list[Toolchain]:
    """The toolchains of some go commands, or the one that is found; NoGo or InputError, one line."""
    from experiments.toolchain import toolchain

    found = [toolchain(go) for go in gos] or [toolchain()]
    for number, one in enumerate(found):
        if one.version in {other.version for other in found[:number]}:
            raise InputError(f"--go {one.path}: is go{one.version}, as is another; give each version once")
    return found


def _machine(name: str | None, versions: Sequence[str]) -> str | None:
    """A machine file as a scenario names it: a path is absolute there. InputError unless it has prices for the versions."""
    from experiments.machine_file import read_machine

    if name is None:
        return None
    for version in versions:
        read_machine(name).measured(version)
    return str(Path(name).absolute()) if "/" in name or name.endswith(".toml") else name


def _meanwhile(name: str, force: bool, progress: _Progress) -> Meanwhile:
    """Prices to be measured, once it is sure that they can be kept."""
    from experiments.output import writable
    from experiments.validate_calibrate import Meanwhile

    def tell(line: str) -> None:
        progress.close()
        say(line)

    return Meanwhile(writable(Path(name), force).absolute(), tell)


def _provenance(before: tuple[float, float, float], begun: float, toolchains: list[str]) -> dict[str, Any]:
    """Where, when and with what."""
    from experiments.calibrate_host import cpu_model, huge_pages
    from experiments.result import host

    return host(begun) | {
        "cpu": cpu_model(),
        "huge_pages": huge_pages(),
        "toolchains": [f"go{version}" for version in toolchains],
        "load_before": round(before[0], 2),
        "load_after": round(os.getloadavg()[0], 2),
    }


class _Progress:
    """One line on a terminal that says what is being done; nothing elsewhere."""

    def __init__(self) -> None:
        self._shown = 0
        self._terminal = sys.stderr.isatty()

    def __call__(self, share: float, doing: str) -> None:
        if self._terminal:
            text = f"{int(100 * share):3} %  {doing}"
            sys.stderr.write("\r" + text.ljust(self._shown))
            sys.stderr.flush()
            self._shown = len(text)

    def close(self) -> None:
        """Leave the line empty."""
        if self._shown:
            sys.stderr.write("\r" + " " * self._shown + "\r")
            sys.stderr.flush()
