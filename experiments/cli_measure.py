"""Commands that measure real Go: the command line alone, their logic is in modules of their names."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from experiments.errors import InputError, visible
from experiments.output import writable, write_whole
from experiments.progress import Bar, announce_compile, say


@click.command()
@click.option(
    "--go", "gos", multiple=True, metavar="GO", help="A go command, 1.19 to 1.27; repeatable [default: those found]."
)
@click.option(
    "-o", "--output", metavar="FILE", help="The machine file to write [default: NAME.toml in this directory]."
)
@click.option("--name", metavar="NAME", help="What the machine is called [default: its host name].")
@click.option("--quick", is_flag=True, help="Less of everything: a rough file in a minute or two.")
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
def calibrate(gos: tuple[str, ...], output: str | None, name: str | None, quick: bool, force: bool) -> None:
    """Measure what the paths of real Go cost on this machine and write them to a machine file.

    It takes some ten minutes for two toolchains, and the machine should have nothing else to do.
    """
    from experiments.calibrate_host import host_name
    from experiments.toolchain import toolchains

    if name is not None and not (name.strip() and name.isprintable()):
        raise InputError(f"--name: {visible(name) or 'nothing'} is no name; give the machine one of plain letters")
    called = name if name is not None else host_name()
    target = writable(Path(output if output is not None else f"{called}.toml"), force)
    chosen = toolchains(gos)
    click.echo(f"measuring {' and '.join(f'go{go.version} ({go.path})' for go in chosen)} ...", err=True)
    from experiments import calibrate as work
    from experiments.calibrate_plan import FULL, QUICK

    bar = Bar(sys.stderr) if sys.stderr.isatty() else None

    def tell(line: str) -> None:
        if bar is not None:
            bar.close()  # it draws itself again
        say(line)

    try:
        found = work.calibrate(chosen, QUICK if quick else FULL, called, tell, bar or (lambda share: None))
    finally:
        if bar is not None:
            bar.close()
    write_whole(target, found.text)
    announce_compile()
    from experiments.calibrate_show import loops, summary

    rows = summary(found.machine)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for first, *others in rows:
        click.echo(
            "  ".join([first.ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True))])
        )
    for version in found.machine.tables:
        click.echo(str(loops(found.machine, version)))
    prices = target if "/" in str(target) else f"./{target}"
    click.echo(f"kept in {visible(target)}; use it with --set prices={visible(prices)}", err=True)
    say(f"the machine was busy: {'; '.join(found.busy)}" if found.busy else "the machine was quiet")
