"""What a published figure is, held against the model: rows of published and simulated numbers, and their band."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from experiments.errors import InputError
from experiments.output import writable, write_whole


@dataclass(frozen=True, slots=True)
class Row:
    """One number: what it is with its unit, as published, as simulated, and how far they may lie apart, as a share.

    ``fitted``: the model was given it, so that it proves nothing.
    """

    what: str
    published: float
    simulated: float
    band: float = 0.1
    fitted: bool = False

    @property
    def error(self) -> float:
        """The simulated number over the published one, less 1."""
        return self.simulated / self.published - 1

    @property
    def outcome(self) -> str:
        """``fitted``, ``within`` or ``outside`` of the band."""
        if self.fitted:
            return "fitted"
        return "within" if abs(self.error) <= self.band else "outside"


@dataclass(frozen=True, slots=True)
class Figure:
    """A published figure: where it stands, what of it was fitted, and what the outcome says."""

    name: str
    source: str
    fitted: str
    rows: tuple[Row, ...]
    says: str


def table(rows: Sequence[Row], known: str) -> Iterator[str]:
    """Rows as a table of Markdown; ``known``: what the numbers are called that the simulated ones are held against."""
    yield from (f"| what | {known} | simulated | error | band | outcome |", "|---|---|---|---|---|---|")
    for row in rows:
        numbers = f"{row.published:.4g} | {row.simulated:.4g} | {100 * row.error:+.0f} % | {100 * row.band:.0f} %"
        yield f"| {row.what} | {numbers} | {row.outcome} |"


def show(name: str, output: Path | None, as_json: bool, make: Callable[[], tuple[Iterator[str], Any]]) -> None:
    """The body of a command: print the page that ``make`` makes, or its JSON, and write the page; errors are one line."""
    try:
        target = None if output is None else writable(output, force=True)
        lines, found = make()
        text = "\n".join(lines) + "\n"
        click.echo(json.dumps(found, indent=1) if as_json else text.rstrip("\n"))
        if target is not None:
            write_whole(target, text)
    except InputError as error:
        click.echo(f"{name}: {error}", err=True)
        sys.exit(2)
