"""Prices of the collector, from a machine's measured tables of marking and sweeping.

Marking: CPU time per object of heaps of one shape and size each, by so many Ps; of sizes, those that have all rows. A scannable object costs a part of its own, which the
shape decides (an array of pointers is read ahead, a list waits for each element), and a part per byte up to its last
pointer. Up to 512 B that is the slope between 64 and 512 B objects of an array, from 512 B on the line through those of
1 and 2 KiB, and for large objects one array of pointers of 1 MiB. A pointer-free object costs what one of 64 B does,
whatever its size. Where objects lie in an order of their own, so that each misses the caches, the rows measured on
shuffled arrays count, as far as the machine has them. All that is of collections one right after the other; beside a
program that runs marking takes longer, by as much as it did in one whose objects are known: half of them have pointers, and
what is read of those tells which heap's prices they have (`sim.costs.mark_placed`). What it waited for memory that the
host of a virtual machine had taken is no price and is off: so many pages as objects with pointers fill, each of which is
waited for as long as a write to such a page was in the mean; others are not read. (Of 16 MiB alive, half of it without
pointers, go1.19 marked 5.3, 8.4 and 10.2 ms in minutes in which a write to such a page waited 0.3, 1.5 and 2.1 us: 0.6 of
the waits that all pages would have.) With the world stopped: the two pauses of those cycles together, half
of it each.

Globals: what a collection took longer in a program that has so many bytes more of them. That is 0.10 ns a byte of go1.19.8's
and 0.12 of go1.27.3's on one machine, where the runtime, with a clock in it, took 0.10 and 0.14 to scan those of programs on
one P with 1 MB alive. A file without that row prices them as large arrays of pointers, there 1.7 to 6.5 times as high.

Sweeping: per span, on lines between the measured sizes of pointer-free classes, and the same for pointerful ones; what
survives in a span matters little as long as something does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from fractions import Fraction
from statistics import median

from experiments.errors import InputError
from experiments.machine_file import Table
from sim.costs import IN_ORDER, MarkPrices, Price, mark_between, mark_placed, of_procs
from sim.go.sizeclasses import MIN_SIZE_FOR_MALLOC_HEADER
from sim.units import throw

SHAPES = {
    "list": "list64",
    "list-shuffled": "list64shuf",
    "tree": "tree16",
    "array": "objs64",
    "array-shuffled": "objs64shuf",
}
_ARRAYS = {"list": "", "list-shuffled": "shuf", "tree": "", "array": "", "array-shuffled": "shuf"}  # order of objects
_BYTES = {"list64": 64, "list64shuf": 64, "tree16": 16, "objs64": 64, "objs64shuf": 64}
_MIB = 1 << 20
_MILLION = 1_000_000
_PROCS = 1
_MOST_WAITED = Fraction(9, 10)  # of the time
_PAGE = 4096
_OF_A_PROGRAM = "array-shuffled"  # the shape of what a program's objects are, in the order that they are found
_NEEDED = ("leaf64", "objs64", "objs512", "ptrs1M")  # rows of whatever shape


def mark_prices(tables: Mapping[str, Table]) -> dict[str, list[MarkPrices]]:
    """By shape of heap, then by Ps and its size, rising; InputError if no size has all rows of a shape.

    What one P lacks is an error, what two lack is not there.
    """
    mark = tables["mark"]
    heaps = sorted({(int(procs), int(mib)) for _, mib, procs in mark.rows})
    first = [heap for heap in heaps if heap[0] == _PROCS]
    found = {}
    for name, row in SHAPES.items():
        whole = [heap for heap in heaps if all((shape, heap[1], heap[0]) in mark.rows for shape in (row, *_NEEDED))]
        if not any(heap in first for heap in whole):
            whole = first[-1:] or [(_PROCS, max(mib for _, mib in heaps))]  # whose missing row is named
        found[name] = [_mark_prices(mark, procs, mib, name) for procs, mib in whole]
    shuffled, arrays = found[_OF_A_PROGRAM], found["array"]
    shares = {(one.procs, one.nbytes): _share_in_order(tables, one, shuffled, arrays) for one in shuffled}
    times = {(one.procs, one.nbytes): _beside_a_program(tables, one, shuffled) for one in shuffled}

    def of_program(one: MarkPrices, sizes: Sequence[MarkPrices], share: Fraction) -> MarkPrices:
        longer = times.get((one.procs, one.nbytes), Fraction(1))
        placed, new = (_placed(tables, one, each) for each in (sizes, arrays))
        return _longer(mark_between(placed, new, share) if share else placed, longer)

    prices = {name: [of_program(one, sizes, Fraction(0)) for one in sizes] for name, sizes in found.items()}
    return prices | {IN_ORDER: [of_program(one, shuffled, shares[one.procs, one.nbytes]) for one in shuffled]}


def _beside_a_program(tables: Mapping[str, Table], one: MarkPrices, shuffled: Sequence[MarkPrices]) -> Fraction:
    """How much longer marking takes while a program runs than when nothing else happens between two collections: what was
    measured of the one by what the prices of the other make of the same objects. 1 where it was not measured."""
    picoseconds = _of_the_program(tables, _placed(tables, one, shuffled))
    return _marked(tables, one, one.procs) / picoseconds if picoseconds else Fraction(1)


def _marked(tables: Mapping[str, Table], heap: MarkPrices, procs: int, table: str = "marked") -> Fraction:
    """Picoseconds of marking in a program with the heap that some prices are of, on so many Ps, without its waits for
    memory."""
    mib = heap.nbytes // _MIB
    whole: Fraction = _MILLION * tables[table].row(*((mib, procs) if table == "marked" else (mib,)))["cpu"].median
    row = tables["withheld"].rows.get((mib, procs)) if "withheld" in tables else None
    if row is None:
        return whole
    pages = sum((size * objects for size, kind, objects in _alive(tables, heap) if kind != "noscan"), Fraction(0)) / _PAGE
    return max(whole - 1000 * pages * row["wait"].median, (1 - _MOST_WAITED) * whole)


def _alive(tables: Mapping[str, Table], heap: MarkPrices) -> list[tuple[int, str, Fraction]]:
    """Sizes, kinds and numbers of the objects alive in that program, in the heap that some prices are of: none where its
    marking was not measured."""
    key = [heap.nbytes // _MIB, heap.procs]
    known = {"alive", "marked"} <= tables.keys() and tuple(key) in tables["marked"].rows
    rows = tables["alive"].rows if known else {}
    return [(int(size), str(kind), row["objects"].median) for (size, kind, *of), row in rows.items() if of == key]


def _placed(tables: Mapping[str, Table], one: MarkPrices, sizes: Sequence[MarkPrices]) -> MarkPrices:
    """Prices of that program's heap from those of heaps of a shape: the heap was not all read."""
    read = int(sum(size * objects for size, kind, objects in _alive(tables, one) if kind != "noscan"))
    if not read:
        return next((each for each in sizes if (each.procs, each.nbytes) == (one.procs, one.nbytes)), one)
    found = mark_placed(of_procs(sizes, one.procs), one.nbytes, read)
    return replace(found, procs=one.procs, nbytes=one.nbytes, read=read)


def _of_the_program(tables: Mapping[str, Table], prices: MarkPrices) -> Fraction:
    """Picoseconds of marking what was alive in that program, at these prices."""
    alive = _alive(tables, prices)
    return sum((objects * _of_object(prices, size, kind) for size, kind, objects in alive), Fraction(0))


def _share_in_order(
    tables: Mapping[str, Table], one: MarkPrices, shuffled: Sequence[MarkPrices], arrays: Sequence[MarkPrices]
) -> Fraction:
    """Of objects found in the order in which they were allocated, in memory that was used before: so far from the prices of
    shuffled ones to those of an array just built that a program takes as much less as it did. 0 where that was not
    measured. The share is that of one P; others were not measured."""
    if "marked_in_order" not in tables or not _alive(tables, one):
        return Fraction(0)
    mib = one.nbytes // _MIB
    if (mib, _PROCS) not in tables["marked"].rows or (mib,) not in tables["marked_in_order"].rows:
        return Fraction(0)
    whole, least = (_of_the_program(tables, _placed(tables, one, sizes)) for sizes in (shuffled, arrays))
    if least >= whole:
        return Fraction(0)
    wanted = whole * _marked(tables, one, _PROCS, "marked_in_order") / _marked(tables, one, _PROCS)
    return min(max((whole - wanted) / (whole - least), Fraction(0)), Fraction(1))


def _of_object(prices: MarkPrices, size: int, kind: str) -> Fraction:
    """Picoseconds of finding and scanning an object full of pointers, or one without any."""
    if kind == "noscan":
        return Fraction(prices.noscan_object)
    if size <= MIN_SIZE_FOR_MALLOC_HEADER:
        return prices.scan_object + Fraction(size * prices.small_byte, 1000)
    return prices.middle_object + Fraction(size * prices.middle_byte, 1000)


def _longer(prices: MarkPrices, times: Fraction) -> MarkPrices:
    """All prices so many times as high."""
    names = [one.name for one in fields(prices) if one.name not in ("procs", "nbytes", "read")]
    return replace(prices, **{name: round(times * getattr(prices, name)) for name in names})


def _mark_prices(mark: Table, procs: int, mib: int, shape: str) -> MarkPrices:
    """Of one shape and size of heap."""

    def per_object(shape: str) -> Fraction:
        return 1000 * mark.row(shape, mib, procs)["per_object"].median

    def has(*shapes: str) -> bool:
        return all((shape, mib, procs) in mark.rows for shape in shapes)

    row, order = SHAPES[shape], _ARRAYS[shape]
    noscan = f"leaf64{order}" if has(f"leaf64{order}") else "leaf64"
    shuffled = order if has(f"objs512{order}") else ""
    small = max(Fraction(0), (per_object(f"objs512{shuffled}") - per_object(f"objs64{shuffled}")) / (512 - 64))
    own = max(Fraction(0), per_object(row) - small * _BYTES[row])
    large = per_object("ptrs1M") / _MIB
    middle, middle_byte = own, large
    one, two = (f"objs{size}{order}" for size in (1024, 2048))
    if has(one, two):
        middle_byte = max(Fraction(0), (per_object(two) - per_object(one)) / 1024)
        middle = max(Fraction(0), per_object(one) - 1024 * middle_byte)
    return MarkPrices(
        procs=procs,
        nbytes=mib * _MIB,
        scan_object=round(own),
        noscan_object=round(per_object(noscan)),
        small_byte=round(1000 * small),
        large_byte=round(1000 * large),
        middle_object=round(middle),
        middle_byte=round(1000 * middle_byte),
    )


def pauses(mark: Table) -> dict[str, Price]:
    """The steps done with the world stopped."""
    largest = {str(shape): int(mib) for shape, mib, procs in sorted(mark.rows) if procs == _PROCS}
    rows = [mark.row(shape, largest.get(shape, max(largest.values(), default=1)), _PROCS) for shape in SHAPES.values()]
    both = median(1_000_000 * row["pauses"].median for row in rows)
    return {name: Price(round(both / 2)) for name in ("stw_sweep_term", "stw_mark_term")}


def globals_byte(table: Table | None) -> int | None:
    """Femtoseconds of marking a byte of globals; None if that was not measured, InputError if it is nothing."""
    if table is None:
        return None
    more, less = table.row("with"), table.row("without")
    spent = more["gc"].median - less["gc"].median
    if spent <= 0 or more["bytes"].median <= less["bytes"].median:
        raise InputError(f"{table.name}: a collection takes no longer with globals than without")
    return round(1_000_000 * spent / (more["bytes"].median - less["bytes"].median))


def stopped(paused: Table | None, mib: int) -> int | None:
    """One pause of a heap of so many MiB, picoseconds: as measured in one of that size, else in the nearest one smaller,
    else in the smallest; None if there are none."""
    if paused is None:
        return None
    return round(500_000 * paused.row(_nearest([int(one) for (one,) in paused.rows], mib))["both"].median)


def noted(barrier: Table | None, mib: int, procs: int) -> int:
    """A pointer noted by the write barrier in a heap of so many MiB, picoseconds, as `stopped`; 0 if nobody measured it."""
    sizes = [int(one) for one, by in barrier.rows if by == procs] if barrier is not None else []
    if barrier is None or not sizes:
        return 0
    return max(round(1000 * barrier.row(_nearest(sizes, mib), procs)["note"].median), 0)


def _nearest(sizes: Sequence[int], mib: int) -> int:
    """The largest that is no larger, else the smallest."""
    return max((one for one in sizes if one <= mib), default=min(sizes))


def sweep_prices(sweep: Table, sizes: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Picoseconds by span class (two for each of ``sizes``): of a span of which something survives, and of one freed."""
    kept: dict[int, Fraction] = {}
    freed: dict[int, Fraction] = {}
    for name, keep in sorted((str(name), str(keep)) for name, keep in sweep.rows):
        if name[0] != "n":
            continue
        mean = 1000 * sweep.row(name, keep)["mean"].median
        size = int(name[1:])
        if keep == "none":
            freed[size] = mean
        else:
            kept[size] = (kept[size] + mean) / 2 if size in kept else mean
    if not kept or not freed:
        throw(f"{sweep.name} has no rows of pointer-free classes")
    return tuple(_by_class(kept, sizes)), tuple(_by_class(freed, sizes))


def _by_class(measured: Mapping[int, Fraction], sizes: Sequence[int]) -> list[int]:
    """On lines between the measured sizes, beyond them as at the last; each size twice, scan and noscan."""
    found = []
    for size in sizes:
        low = max((one for one in measured if one <= size), default=min(measured))
        high = min((one for one in measured if one >= size), default=max(measured))
        place = Fraction(size - low, high - low) if low < high else Fraction(0)
        found += 2 * [round(measured[low] + (measured[high] - measured[low]) * place)]
    return found
