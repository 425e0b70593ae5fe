"""Units: integer picoseconds, bytes, pages; and how people write them.

Time is an integer number of picoseconds everywhere inside the simulator, so that 12.4 ns is exact and two
events at the same instant really tie. Sizes are integer bytes. Both are written the way Go writes them
(``512MiB``, ``500us``, ``off``) at the edges and nowhere else.
"""

from __future__ import annotations

import re
from typing import NewType

Time = NewType("Time", int)  # picoseconds
Bytes = NewType("Bytes", int)
Pages = NewType("Pages", int)  # runtime pages of 8 KiB

PS = 1
NS = 1_000
US = 1_000_000
MS = 1_000_000_000
SEC = 1_000_000_000_000

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
TIB = 1 << 40

_TIME_UNITS = {"ps": PS, "ns": NS, "us": US, "µs": US, "ms": MS, "s": SEC, "m": 60 * SEC, "h": 3600 * SEC}
_SIZE_UNITS = {"B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}
_NUMBER = re.compile(r"^(\d+(?:\.\d+)?)([A-Za-zµ]+)$")


class Throw(Exception):
    """A broken invariant of the simulator: takes exactly one string (SimPy rebuilds exceptions from args)."""


def throw(message: str) -> None:
    """Stop the run: the text is the predicate that does not hold, with its numbers first."""
    raise Throw(message)


def _scaled(text: str, units: dict[str, int], what: str) -> int:
    """``12.5us`` as an integer in the smallest unit, by decimal arithmetic: no float rounds it."""
    found = _NUMBER.match(text.strip())
    if found is None or found.group(2) not in units:
        raise ValueError(f"{text!r} is not a {what}; write a number and one of {', '.join(units)}")
    whole, _, fraction = found.group(1).partition(".")
    scale = 10 ** len(fraction)
    value, rest = divmod(int(whole + fraction) * units[found.group(2)], scale)
    if rest:
        raise ValueError(f"{text!r} is finer than the smallest unit of a {what}")
    return value


def parse_time(text: str) -> Time:
    """A duration such as ``500us`` or ``1.5ms`` in picoseconds; ValueError says what would be right."""
    return Time(_scaled(text, _TIME_UNITS, "duration"))


def parse_size(text: str) -> Bytes:
    """A size such as ``512MiB`` or ``64B`` in bytes; ValueError says what would be right."""
    return Bytes(_scaled(text, _SIZE_UNITS, "size"))


def significant(value: float) -> str:
    """A number >= 1 with three significant digits, more where it has more before the point, and no exponent."""
    rounded = float(f"{value:.3g}")
    if rounded >= 1000:
        return f"{value:.0f}"
    return f"{value:.{0 if rounded >= 100 else 1 if rounded >= 10 else 2}f}"


def format_time(ps: float) -> str:
    """Picoseconds >= 0 for people: three significant digits and a unit."""
    for unit, name in ((SEC, "s"), (MS, "ms"), (US, "us"), (NS, "ns")):
        if ps >= 0.9995 * unit:  # what would be rounded to 1000 of a unit is 1 of the next
            return significant(ps / unit) + name
    return f"{ps:.0f}ps" if ps else "0s"


def format_size(n: float) -> str:
    """Bytes >= 0 for people: three significant digits (four from 1000 on) and a binary unit."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if n >= (1 - 1 / 2048) * unit:  # what would be rounded to 1024 of a unit is 1 of the next
            return significant(n / unit) + name
    return f"{n:.0f}B"
