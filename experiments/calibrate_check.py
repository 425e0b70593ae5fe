"""Does a calibrated machine file hold together? What would be refused, and differences that noise turned round.

Prices are differences of rows (machine.py). Where a row that does more reads less than one that does less, the
derivation would take nothing for the difference; that is a contradiction here, and the table is measured again.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from experiments.calibrate_tables import MACHINE
from experiments.errors import InputError
from experiments.machine import derive, slots
from experiments.machine_file import Key, Table, parse_machine
from sim.costs import Prices
from sim.go.params import VERSIONS
from sim.go.sizeclasses import class_to_allocnpages, class_to_size

_SIZES = [int(size) for size in class_to_size]
_TINY = 8  # objects that share a block
_LEFT = 0.05  # by how much the two may disagree
_LESS = 0.65  # of what it takes in the smaller heap, marking may take in the larger one
_TWICE = 1.15  # times as long at least takes an object of twice the size

_PLACE = re.compile(
    r"(?P<version>go\d+\.\d+)\.(?P<table>\w+)|(?P<machine>first_touch|(?:measured|assumed)\.(?:lock|steps))"
)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a table of a version; ``fatal`` if prices cannot be derived.

    ``rows``: if not all of it, the arguments of the processes that measure the rows at fault.
    """

    version: str
    table: str
    what: str
    fatal: bool = False
    rows: tuple[str, ...] = ()


def problems(text: str, name: str) -> list[Problem]:
    """What is wrong with a file; InputError if it is refused for something that is not a table."""
    try:
        machine = parse_machine(text, name)
    except InputError as error:
        return [_refused(str(error), name)]
    found: list[Problem] = []
    for version, tables in machine.tables.items():
        try:
            found += contradictions(version, tables)
            found += _too_few(version, tables)
            found += _marking(version, tables["mark"])
            found += _loops(version, tables["loop"], derive(machine, version))
        except InputError as error:
            found.append(_refused(str(error), name))
    return found


def _refused(message: str, name: str) -> Problem:
    """The table that a refusal is about; InputError as it was if it is about none."""
    what = message.removeprefix(f"{name}: ")
    place = _PLACE.match(what)
    if place is None:
        raise InputError(message)
    if place["machine"]:
        return Problem(MACHINE, place["machine"].split(".")[-1], what, True)
    return Problem(place["version"], place["table"], what, True)


def contradictions(version: str, tables: Mapping[str, Table]) -> Iterator[Problem]:
    """Rows of a version's tables that do more and read less."""
    for table, column, keys in _ordered(tables):
        rows = [(", ".join(map(str, key)), tables[table].row(*key)[column].median) for key in keys]
        for (less, low), (more, high) in itertools.pairwise(rows):
            if high <= low:
                what = f"{more} ({float(high):g} ns) is no longer than {less} ({float(low):g} ns)"
                yield Problem(version, table, what, rows=_arguments(keys[0]))


def _ordered(tables: Mapping[str, Table]) -> Iterator[tuple[str, str, list[Key]]]:
    """Rows that rise in a column, by table."""
    sources = ("same span", "page cache", "page cache refill", "4 MiB chunk")
    for mode in ("cold", "warm"):
        yield "refill", "p50", [(mode, "n2048", source) for source in sources]
    yield "refill", "mean", [("cold", "n2048", source) for source in ("4 MiB chunk", "64 MiB arena")]
    for which, name, source in tables["refill"].rows:
        if source == "partial swept":
            yield "refill", "p50", [(which, name, "same span"), (which, name, source)]
    yield "sweep", "p50", [("n64", keep) for keep in ("all", "none")]
    yield "stack_growth", "p50", [(kib,) for kib in (2, 5, 17, 65)]
    yield "goroutine", "mean", [("reused",), ("new",)]


def _arguments(key: Key) -> tuple[str, ...]:
    """The arguments of processes that measure a row, as far as it names a size class."""
    for part in map(str, key):
        if part[0] in "np" and part[1:].isdigit():
            return f"-size={part[1:]}", f"-kind={'scan' if part[0] == 'p' else 'noscan'}"
    return ()


def _too_few(version: str, tables: Mapping[str, Table]) -> Iterator[Problem]:
    """Rows of mallocs in a heap that a process could not tell, since it saw too few calls; those for one slot no hits."""
    for name in ("hit", "refilled"):
        rows = tables[name].rows if name in tables else {}
        sizes, heaps = ({(key[0], key[1]) for key in rows}, {(key[2], key[3]) for key in rows})
        for (size, kind), (mib, procs) in itertools.product(sorted(sizes), sorted(heaps)):
            if (size, kind, mib, procs) in rows or (name == "hit" and _is_one(version, int(size), kind == "noscan")):
                continue
            what = f"too few calls for {size} B {kind} in a heap of {mib} MiB on {procs} Ps"
            yield Problem(version, name, what, rows=(f"-mib={mib}",))


def _marking(version: str, mark: Table) -> Iterator[Problem]:
    """Objects that take less to mark in a larger heap, or hardly more where they are twice as large: of each row there are
    few collections, and prices of larger objects lie on the line through two of them."""
    times = {(str(key[0]), int(key[1]), int(key[2])): float(row["per_object"].median) for key, row in mark.rows.items()}
    for shape, procs in sorted({(shape, procs) for shape, _, procs in times}):
        heaps = sorted(mib for one, mib, its in times if (one, its) == (shape, procs))
        for small, large in itertools.pairwise(heaps):
            low, high = times[shape, small, procs], times[shape, large, procs]
            if high < _LESS * low:
                what = f"{shape} on {procs} Ps in {large} MiB ({high:g} ns) is shorter than in {small} MiB ({low:g} ns)"
                yield Problem(version, "mark", what, rows=(f"-shape={shape}",))
        half = shape.replace("2048", "1024")
        for mib in heaps if half != shape else ():
            low, high = times.get((half, mib, procs), 0.0), times[shape, mib, procs]
            if high < _TWICE * low:
                what = f"{shape} in {mib} MiB on {procs} Ps ({high:g} ns) is hardly longer than {half} ({low:g} ns)"
                yield Problem(version, "mark", what, rows=(f"-mib={mib}", f"-shape={shape}"))


def _is_one(version: str, size: int, noscan: bool) -> bool:
    """Whether a span of the class holds one object."""
    sizeclass = _SIZES.index(size)
    return slots(VERSIONS[version], size, int(class_to_allocnpages[sizeclass]), noscan) == 1


def _loops(version: str, loop: Table, prices: Prices) -> Iterator[Problem]:
    """Loops on fresh and on recycled memory that leave no fast path that both could have."""
    for size, kind in loop.rows:
        if size not in _SIZES or (size == _TINY and kind == "noscan"):
            continue
        fast = prices.fast[2 * _SIZES.index(size) + (kind == "noscan")] / 1000
        warm = float(loop.row(size, kind)["warm_loop"].median)
        if fast > (1 + _LEFT) * warm:
            what = f"the cold loop leaves a fast path ({fast:.4g} ns) longer than the warm loop ({warm:g} ns)"
        elif fast == 0:
            what = "the refills of the cold loop take longer than all of it"
        else:
            continue
        yield Problem(version, "loop", f"{size} B {kind}: {what}", rows=(f"-size={size}", f"-kind={kind}"))
