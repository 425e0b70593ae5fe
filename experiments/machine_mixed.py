"""Mallocs of a program that does other things between them, from a machine's tables hit and refilled.

Of spans with more slots than one a hit is what was timed. A malloc that refills pays the mean of hits, so a refill from a
swept span is what the other calls of the same size take besides that mean, and so is one with a fresh span, which gives
all its slots. A refill that has to sweep the span it takes is dearer by less than a span swept apart: what refilling
reads sweeping has read. Either is cheaper, in a heap that no cache holds, whose span is near the last one, by as much as in
a program of few types, where many are (table refilled_near). Sizes too few of which were timed are as the nearest. A span
of one slot has no hits, and none of its refills finds a swept span with room: what such calls take besides a fresh span is
the ``singles``' own. Sizes in between have hits too (6 slots in a span of 56 KiB), but none was timed: on the line to them
lies what is left of the calls for one slot once what a refill adds to the next smaller size is off.

While the collector marks hits take longer: setting an object's mark bit is an atomic operation, which waits until all
that was written before is in the cache, the zeros of the object too. A file without such calls has them as others.

Means are those of undisturbed calls: of the last hundredth no more is taken than that it is as long as its first. Rows
that a process could not tell, too few calls, are those of the same heap on fewer Ps, if it was measured there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import accumulate
from typing import TypeVar

from experiments.machine_file import ALONE, Key, Reading, Table
from experiments.quantiles import between, distribution, least_mean, picoseconds
from sim.costs import SWEPT, Price

_QUANTILES = {"p10": 100, "p50": 500, "p90": 900, "p99": 990}  # per mille

_PROCS = 3  # where the keys of all these tables have the number of Ps

_T = TypeVar("_T")

Row = dict[str, Fraction]
"""Quantiles of calls and their ``mean``, nanoseconds."""


@dataclass(slots=True)
class Mixed:
    """Prices by measured slot size, empty where nothing was measured: ``hits`` clear a slot of the span at hand, ``marking``
    do so while the collector marks, ``refills`` from swept spans, from ``unswept`` and ``fresh`` ones add to hits,
    ``singles`` clear the only slot of a fresh span, which is paid apart; ``near``: shares of ``refills`` and ``unswept`` that
    they take whose span is near the last one.

    ``some``, ``few``: hits after fewer other mallocs than ``hits``; ``next``: those while marking that take the next slot,
    ``next_few`` after few others, ``empty`` and ``empty_few`` the same of spans that came back empty. Empty if none were told apart.

    ``borrowed``: sizes whose rows are missing, and the number of Ps whose rows stand for them.
    """

    hits: dict[int, Price] = field(default_factory=dict)
    marking: dict[int, Price] = field(default_factory=dict)
    some: dict[int, Price] = field(default_factory=dict)
    few: dict[int, Price] = field(default_factory=dict)
    next: dict[int, Price] = field(default_factory=dict)
    next_few: dict[int, Price] = field(default_factory=dict)
    empty: dict[int, Price] = field(default_factory=dict)
    empty_few: dict[int, Price] = field(default_factory=dict)
    refills: dict[int, Price] = field(default_factory=dict)
    unswept: dict[int, Price] = field(default_factory=dict)
    fresh: dict[int, Price] = field(default_factory=dict)
    near: dict[int, Fraction] = field(default_factory=dict)
    singles: dict[int, Price] = field(default_factory=dict)
    borrowed: dict[int, int] = field(default_factory=dict)


def mixed(
    tables: Mapping[str, Table], kind: str, mib: int, procs: int, single: Callable[[int], Fraction | None]
) -> Mixed:
    """Prices of a heap of so many MiB on so many Ps.

    ``single`` tells what a fresh span for the one slot of a size takes, in nanoseconds, None for spans of more slots.
    InputError: a size that was measured elsewhere has no rows here, on fewer Ps neither; but for refills of the smallest.
    """
    found = Mixed()
    if "hit" not in tables or "refilled" not in tables:
        return found
    added: Row = {}
    swept_first = _sweeping(tables, kind, mib, procs)
    for size in sorted({int(size) for size, one, *_ in tables["refilled"].rows if one == kind}):
        key, fresh = (size, kind, mib), single(size)
        if fresh is None:
            seldom = not found.refills and not any((*key, few) in tables["refilled"].rows for few in range(1, procs + 1))
            used = _measured_on(tables, ("hit",) if seldom else ("refilled", "hit"), key, procs)
            hit = _hits(tables, (*key, used), found)
            if not seldom:
                whole = _row(tables["refilled"].row(*key, used))
                added = _less(whole, dict.fromkeys(whole, hit["mean"]))
                found.refills[size] = _price(added)
                share = _near(tables.get("refilled_near"), key, procs, hit["mean"])
                if share is not None:
                    found.near[size] = share
                if swept_first:
                    nearest = of_nearest(swept_first, size)
                    found.unswept[size] = _price({name: added[name] + nearest[name] for name in added})
            new = _on_fewer(tables.get("refilled_fresh"), key, procs)
            if new is not None:
                found.fresh[size] = _price(_less(new, dict.fromkeys(new, hit["mean"])))
        else:
            used = _measured_on(tables, ("refilled",), key, procs)
            whole = _row(tables["refilled"].row(*key, used))
            found.singles[size] = _price(_less(whole, dict.fromkeys(whole, fresh)))
            if added:
                for told in _kinds(found):
                    if told:
                        told[size] = _price(_less(whole, dict.fromkeys(whole, added["mean"])))
        if used != procs:
            found.borrowed[size] = used
    return found


def _hits(tables: Mapping[str, Table], key: Key, found: Mixed) -> Row:
    """Enter a size's prices of hits, the row of those after many others given."""
    size = int(key[0])
    hit = _told(tables, key, "hit", "more others") or _row(tables["hit"].row(*key))
    found.hits[size] = _price(hit)
    marking = _told(tables, key, "hit_marking", "marking, another slot")
    if marking is not None:
        found.marking[size] = _price(marking)
    if "hit_after" in tables:
        for told, name, after in (
            (found.some, "hit", "to 31 others"),
            (found.few, "hit", "to 7 others"),
            (found.next, "hit_marking", "marking, next slot"),
            (found.next_few, None, "marking, next slot to 7 others"),  # a file without has them as `next`
            (found.empty, None, "marking, empty span"),
            (found.empty_few, None, "marking, empty span to 7 others"),
        ):
            row = _told(tables, key, name, after)
            if row is not None:
                told[size] = _price(row)
    return hit


def _kinds(found: Mixed) -> tuple[dict[int, Price], ...]:
    """All prices of hits."""
    return found.hits, found.marking, found.some, found.few, found.next, found.next_few, found.empty, found.empty_few


def _measured_on(tables: Mapping[str, Table], wanted: tuple[str, ...], key: Key, procs: int) -> int:
    """So many Ps, or the nearest number below that has rows in all tables wanted."""
    for fewer in range(procs, 1, -1):
        if all((*key, fewer) in tables[name].rows for name in wanted):
            return fewer
    for name in wanted:
        tables[name].row(*key, 1)
    return 1


def _told(tables: Mapping[str, Table], key: Key, name: str | None, after: str) -> Row | None:
    """The row of the hits that table hit_after tells apart so, of all in another table, if one is named, if it has none;
    None if that has none either."""
    found = tables["hit_after"].rows.get((*key, after)) if "hit_after" in tables else None
    if found is None and name is not None and name in tables:
        found = tables[name].rows.get(key)
    return None if found is None else _row(found)


def _sweeping(tables: Mapping[str, Table], kind: str, mib: int, procs: int) -> dict[int, Row]:
    """What a refill takes longer that has to sweep the span it takes, by size, each on so many Ps or the nearest number below
    that tells."""
    rows = tables["refilled_unswept"].rows if "refilled_unswept" in tables else {}
    found = {}
    for key in sorted(rows, key=lambda key: int(key[_PROCS])):
        size, one, heap, used = key
        if (one, heap) == (kind, mib) and int(used) <= procs and key in tables["refilled"].rows:
            found[int(size)] = _less(_row(rows[key]), _row(tables["refilled"].rows[key]))
    return found


def _on_fewer(table: Table | None, key: Key, procs: int) -> Row | None:
    """The row of a key on so many Ps, or the nearest number below that has one; None if none has."""
    found = _readings(table, key, procs)
    return None if found is None else _row(found)


def _readings(table: Table | None, key: Key, procs: int) -> Mapping[str, Reading] | None:
    """The same row as the file has it."""
    rows = table.rows if table is not None else {}
    return next((rows[*key, fewer] for fewer in range(procs, 0, -1) if (*key, fewer) in rows), None)


def _near(table: Table | None, key: Key, procs: int, hit: Fraction) -> Fraction | None:
    """How long a refill takes whose span is near the one before it, relative to others; None if it was not measured on so
    many Ps, nor on fewer."""
    row = _readings(table, key, procs)
    if row is None:
        return None
    near, far = (max(row[name].median - hit, Fraction(0)) for name in ("near", "far"))
    return near / far if far else Fraction(1)


def one_allocates(tables: Mapping[str, Table]) -> dict[str, Table]:
    """The tables of a program of which one goroutine allocates: on several Ps as timed alone, on one as they are, which stands for
    rows that are missing; but for sweeping, which others do at the same time. Empty if that was not measured."""
    found: dict[str, Table] = {}
    if not all(ALONE[name] in tables for name in ("hit", "refilled")):
        return found
    for name, alone in ALONE.items():
        table = tables.get(name) or tables.get(alone)
        if table is not None:
            others = tables[name].rows if name in tables and name != "swept" else {}
            timed = tables[alone].rows if alone in tables else {}
            found[name] = replace(table, rows={**{key: row for key, row in others.items() if key[_PROCS] == 1}, **timed})
    if "refilled_near" in tables:
        found["refilled_near"] = tables["refilled_near"]  # a share, which nobody measured apart
    return found


def swept(table: Table | None, mib: int, procs: int) -> tuple[Price, ...]:
    """Sweeping a span of a heap of so many MiB on so many Ps, in the order of `SWEPT`; nothing if that was not measured.

    What too few spans told is as on fewer Ps, else as other spans: first ones as the next, those given back as those kept.
    """
    found = []
    for place, left in SWEPT:
        alike = ((place, left), ("next", left), (place, "kept"), ("next", "kept"))
        told = (_on_fewer(table, (*one, mib), procs) for one in alike)
        row = next((one for one in told if one is not None), None)
        if row is None:
            return ()
        found.append(_price(row))
    return tuple(found)


def of_nearest(measured: Mapping[int, _T], size: int) -> _T:
    """What was measured of the nearest size, of two as near the smaller one."""
    return measured[min(measured, key=lambda one: (abs(one - size), one))]


def at_size(measured: Mapping[int, Price], size: int) -> Price:
    """On a line between the measured sizes, beyond them as at the last."""
    size = min(max(size, min(measured)), max(measured))
    low = max(one for one in measured if one <= size)
    high = min(one for one in measured if one >= size)
    return measured[low] if low == high else between(measured[low], measured[high], Fraction(size - low, high - low))


def more_than(readings: Mapping[str, Reading], hit: Price) -> Price:
    """What calls of a row take more than a hit, whose mean a malloc pays that refills."""
    row = _row(readings)
    return _price(_less(row, dict.fromkeys(row, Fraction(hit.mean, 1000))))


def price_of(readings: Mapping[str, Reading]) -> Price:
    """What a row of a table says."""
    return _price(_row(readings))


def _row(readings: Mapping[str, Reading]) -> Row:
    """A row as measured, with its mean."""
    row = {name: readings[name].median for name in _QUANTILES}
    return {**row, "mean": (99 * readings["mean99"].median + row["p99"]) / 100}


def _less(row: Row, off: Row) -> Row:
    """What is left of each number, nothing at least."""
    return {name: max(Fraction(0), row[name] - off[name]) for name in row}


def _price(row: Row) -> Price:
    """A row as a price."""
    rising = list(accumulate((picoseconds(row[name]) for name in _QUANTILES), max))  # differences may not
    points = list(zip(_QUANTILES.values(), rising, strict=True))
    return distribution(points, max(picoseconds(row["mean"]), least_mean(points)))
