"""What GODEBUG=gctrace=1 printed, out of a program's log: the lines of its cycles among whatever else it said.

The runtime writes a line with several calls, so that other output may precede it without a line break, as a log
collector's stamp does; a log that was cut off ends within one. Such lines are counted, not guessed at. The format is
that of Go 1.18 to 1.27 (mgc.go:gcMarkTermination); before, lines say nothing of stacks and globals.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sim.metrics.gctrace import GcLine, parse_gctrace

_BEGIN = re.compile(r"(?<![\w.])gc \d{1,10} @\d{1,17}\.\d{3}s ")
_MAX_LOG = 1 << 30  # bytes
MAX_LINE = 1000
"""Characters of a line that are looked at: gctrace's are some 200 long."""


@dataclass(frozen=True, slots=True)
class GcLog:
    """Lines of cycles in their order; how many others there were, and how many began like one but were damaged."""

    lines: tuple[GcLine, ...]
    others: int
    damaged: int


def gctrace_part(line: str) -> str | None:
    """The part of a line of output from a gctrace line's beginning on; None if there is none."""
    found = _BEGIN.search(line[:MAX_LINE])
    return None if found is None else line[found.start() : MAX_LINE].rstrip()


def parse_log(lines: Iterable[str], source: str) -> GcLog:
    """The cycles of a log; ValueError, one line, if it has none, or those of two programs."""
    found: list[GcLine] = []
    others = damaged = 0
    why = ""
    for number, line in enumerate(lines, 1):
        text = gctrace_part(line)
        if text is None:
            others += 1
            continue
        try:
            one = parse_gctrace(text)
        except ValueError as error:
            damaged += 1
            why = why or f"line {number}: {error}"
            continue
        if found and one.number <= found[-1].number:
            raise ValueError(
                f"{source}, line {number}: cycle {one.number} after cycle {found[-1].number}: two programs wrote this"
                " log; keep the lines of one"
            )
        found.append(one)
    if not found:
        what = why or "no line of GODEBUG=gctrace=1; run the program with that, for some cycles"
        raise ValueError(f"{source}{', ' if why else ': '}{what}")
    return GcLog(tuple(found), others, damaged)


def read_log(path: str | os.PathLike[str]) -> GcLog:
    """The cycles of a log in a file; ValueError, one line, if it cannot be read or used."""
    source = Path(path)
    try:
        if source.stat().st_size > _MAX_LOG:
            raise ValueError(f"{source}: is larger than 1 GiB; keep its lines of gctrace alone: grep '^gc '")
        with source.open(encoding="utf-8", errors="replace", newline="\n") as stream:
            return parse_log(stream, str(source))
    except OSError as error:
        raise ValueError(f"{source}: cannot be read: {error.strerror}") from error
