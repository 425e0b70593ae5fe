"""Tables of ``size, rate, live`` as mixes: what a program allocates, told by size alone.

A table is CSV with that header, a line for each size: its bytes, mallocs of it a second, and objects of it alive on
average; ``#`` begins a comment. Little's law gives the mean lifetime, live / rate seconds. In a stream, time counts
in mallocs of all sizes, so that a lifetime is live * (sum of rates) / rate of them: at the table's rate, the mix has
the table's live objects, size by size.

:func:`measure` makes such a table from a recorded Go trace. Left out, since a table does not tell it: which sizes
die together, bursts, and how lifetimes spread around their mean.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import Literal

import numpy as np

from sim.units import SEC
from workloads.gotrace_model import GC_BEGIN, OBJECT_ALLOC, Trace
from workloads.gotrace_objects import find_objects
from workloads.spec import PPM, Lifetime, Mix, Objects
from workloads.streams import check_mix
from workloads.streams_state import MAX_OPS, MAX_SIZE

COLUMNS = ("size", "rate", "live")


@dataclass(frozen=True, slots=True)
class Row:
    """One size of a table."""

    size: int  # bytes
    rate: Fraction  # mallocs a second
    live: Fraction  # objects, on average


@dataclass(frozen=True, slots=True)
class SizeTable:
    """A table read: its rows, the mix, and the rate of all its mallocs."""

    rows: tuple[Row, ...]
    mix: Mix
    rate: Fraction  # mallocs a second

    @property
    def interval(self) -> int:
        """Mean picoseconds between two mallocs, to the nearest."""
        return round(SEC / self.rate)


def _number(text: str, least: int, column: str, where: str) -> Fraction:
    """A decimal number of a cell, exactly."""
    try:
        if "/" in text or "_" in text:
            raise ValueError
        value = Fraction(text.strip())
    except ValueError:
        raise ValueError(f"{where}: {column} {text.strip()!r} is not a number such as 12 or 0.5") from None
    if value < least or (value == 0 and column != "live"):
        raise ValueError(f"{where}: {column} {text.strip()} must be {'0 or more' if column == 'live' else 'positive'}")
    return value


def _parse(lines: Iterable[str], source: str) -> dict[int, Row]:
    """The rows of a table by line, sizes rising; ValueError names source and line."""
    header, found, sizes = False, dict[int, Row](), set[int]()
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        where = f"{source}, line {number}"
        cells = next(csv.reader([line], skipinitialspace=True))
        if not header:
            header = True
            if tuple(cell.strip() for cell in cells) != COLUMNS:
                raise ValueError(f"{where}: {line.strip()!r} is not the header; write {','.join(COLUMNS)}")
            continue
        if len(cells) != len(COLUMNS):
            raise ValueError(f"{where}: {len(cells)} values, not the three of {','.join(COLUMNS)}")
        size = _number(cells[0], 1, "size", where)
        if size.denominator != 1 or size >= MAX_SIZE:
            raise ValueError(f"{where}: size {cells[0].strip()} is not a whole number of bytes below {MAX_SIZE}")
        if int(size) in sizes:
            raise ValueError(f"{where}: size {size} stands in an earlier line; write each size once")
        sizes.add(int(size))
        found[number] = Row(int(size), _number(cells[1], 0, "rate", where), _number(cells[2], 0, "live", where))
    if not found:
        raise ValueError(f"{source}: no rows; write a header {','.join(COLUMNS)} and a line for each size")
    total = sum((row.rate for row in found.values()), Fraction(0))
    for number, row in found.items():
        if row.live * total / row.rate > MAX_OPS:
            raise ValueError(
                f"{source}, line {number}: live / rate is a lifetime of more than {MAX_OPS} mallocs of the whole table;"
                " write fewer live objects or a higher rate"
            )
    return dict(sorted(found.items(), key=lambda item: item[1].size))


def mix_of(
    rows: Sequence[Row],
    *,
    pointers_ppm: int = PPM // 2,
    pointer_bytes_ppm: int = PPM,
    dist: Literal["fixed", "exponential"] = "exponential",
) -> Mix:
    """The mix of a table: a kind for each size, weighted by rate, with the lifetime in mallocs that keeps it live.

    A lifetime under one malloc becomes one. A table says nothing of pointers: by default half of the objects are full
    of them. ValueError if a stream cannot hold a row.
    """
    total = sum((row.rate for row in rows), Fraction(0))
    scale = lcm(*(row.rate.denominator for row in rows))
    objects = [
        Objects(
            weight=int(row.rate * scale),
            sizes=((row.size, row.size, 1),),
            pointers_ppm=pointers_ppm,
            pointer_bytes_ppm=pointer_bytes_ppm,
            lifetime=Lifetime("ops", max(1, round(row.live * total / row.rate)), dist),
        )
        for row in rows
    ]
    mix = Mix(tuple(objects))
    check_mix(mix)
    return mix


def read_size_table(
    path: str | os.PathLike[str],
    *,
    pointers_ppm: int = PPM // 2,
    pointer_bytes_ppm: int = PPM,
    dist: Literal["fixed", "exponential"] = "exponential",
) -> SizeTable:
    """Read a table; see :func:`mix_of` for the options. ValueError, one line: file, line, and what would be right."""
    source = Path(path)
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    rows = tuple(_parse(lines, str(source)).values())
    mix = mix_of(rows, pointers_ppm=pointers_ppm, pointer_bytes_ppm=pointer_bytes_ppm, dist=dist)
    return SizeTable(rows, mix, sum((row.rate for row in rows), Fraction(0)))


def format_rows(rows: Iterable[Row]) -> str:
    """The rows as CSV, with three decimals."""
    lines = [",".join(COLUMNS)]
    lines += [f"{row.size},{float(row.rate):.3f},{float(row.live):.3f}" for row in rows]
    return "\n".join(lines) + "\n"


def measure(trace: Trace) -> list[Row]:
    """A table of a recorded trace with allocation events: sizes are those of slots, a tiny block counts once.

    ``rate``: objects allocated over the length of the trace. ``live``: the mean, over its GC cycles, of the objects
    that a cycle's mark found alive: there when it began, and not freed before the next one began. Sizes that were
    never allocated in the trace have no rate and are left out. ValueError if the trace has no cycle.
    """
    begins = np.flatnonzero(trace.kind == GC_BEGIN)
    if not len(begins):
        raise ValueError("the trace has no GC cycle, so that it does not tell what is live")
    objects = find_objects(trace)
    own = (objects.block == np.arange(len(objects.row))) & (objects.size > 0)
    sizes, which = np.unique(objects.size[own], return_inverse=True)
    row, freed = objects.row[own], objects.freed[own]
    made = np.bincount(which[trace.kind[row] == OBJECT_ALLOC], minlength=len(sizes))
    until = np.append(begins[1:], len(trace.kind))  # a cycle's frees come before the next one's begin
    cycles = np.maximum(np.searchsorted(until, freed, "right") - np.searchsorted(begins, row), 0)
    live = np.zeros(len(sizes), np.int64)
    np.add.at(live, which, cycles)
    seconds = Fraction(int(trace.time_ns[-1] - trace.time_ns[0]), 10**9)
    counts = zip(sizes.tolist(), made.tolist(), live.tolist(), strict=True)
    return [Row(size, n / seconds, Fraction(alive, len(begins))) for size, n, alive in counts if n]
