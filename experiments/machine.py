"""Prices of a machine: derived from its measured tables, so that they add up to its measured loops again.

A loop of n mallocs per span costs, per malloc and on recycled memory (W, "warm") or memory never touched (C, "cold"):

    W = fast + zero + (refill + around + marks) / n      around = page cache and span records: 1 of 64 each
    C = fast + (refill + around + touches + metadata + growth) / n

- touches: 4 KiB pages of the span that malloc itself is first to write. go1.27 keeps mark bits and pointer bitmaps in
  the last 256 bytes of spans up to 512 B, one page per span; over 512 B a pointerful slot begins with a header, so
  each page a slot begins in. A tiny block is always cleared: every page of a tiny span. Nothing else: fresh memory is
  not cleared, and the measured loops do not write their objects.
- metadata: span records (160 B in go1.27, 144 B before), their place in allspans (three words: it grows by half and is
  copied each time), that in a span set (a block for 512), two mark bitmaps (new ones on recycled memory too: theirs
  comes back two collections later), and before go1.27 the heap bitmap, 1/32 of the span, which each fresh span clears;
  each at one fault per 4 KiB. The measured refills show the last to the page: with go1.19 every 16th span of 8 KiB
  costs 2.1 us more, and 64 KiB objects are 260 or 2233 ns.
- growth: one in 512 pages meets a heap to be grown, one in 8192 an arena. Of the span that meets it, what it costs
  over a refill of the page cache: that includes first touches of the page allocator's own tables and of the arena's,
  and the search in vain before it. On recycled memory the next chunk costs a walk down the radix tree instead.

Whoever simulates these loops has to count the same things; `tests/experiments/test_machine.py` does so apart from
this file. For each measured size and kind the two equations are solved for fast and zero. The refill price is that of
2 KiB spans on fresh memory (nothing of theirs is touched) less the metadata in it; with 3 slots or fewer, where fast
would come out below that of 1 KiB, the refill takes the difference instead. What would be negative is 0 and the loop
is missed by that much. Other size classes lie on lines between the measured ones.

Those loops cycle through hundreds of MiB and do nothing else. By the size of the heap (tables warm, hit, refilled, if the
file has them) clearing in a loop is what the loop of that heap leaves for it, and of a program that does other things
between its mallocs, hits and refills from swept spans are as they were timed in one: call by call, so that they vary.

A go statement that makes a g was measured with its stack. Of that mean the sixteenth part of a span of stacks is the
simulation's to pay (`_Spans.stacks`: the span, its eight first touches, metadata, growth, and two refills of a P's
stack cache); the rest, with the g itself in it, is the price. Growth (`_growth`) was measured in goroutines whose
frames reach so far, on memory used before: it is the sum of the doublings on the way, each a fixed part and what the
stack before held, at three rates by the size of the new one, since copying and adjusting frames grow with it. What
stacks of 32 KiB and more take besides, a span of their own and the old one's return, is paid apart. With four rows
and four unknowns the medians come out again; a rate that would be negative is 0, and its two rows share the fixed
part.

Medians and means are used as they are; a price that is a difference of two tables has as its mean the difference of
their means, or the least its quantiles allow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, partial
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.machine_file import KINDS, LOCK_STEPS, Assumed, Machine, Reading, Table, read_machine
from experiments.machine_gc import globals_byte, mark_prices, noted, pauses, stopped, sweep_prices
from experiments.machine_mixed import Mixed, at_size, mixed, of_nearest, one_allocates, swept
from experiments.machine_small import mean_sizes, small_heaps
from experiments.quantiles import distribution, least_mean, picoseconds, scaled
from sim.costs import STEPS, HeapPrices, LockPrices, Price, Prices
from sim.go.params import VERSIONS, Facts
from sim.go.runtime import MSPAN_SIZE, SPANSET_BLOCK
from sim.go.sizeclasses import (
    INLINE_MARK_BITS_SIZE,
    MIN_SIZE_FOR_MALLOC_HEADER,
    class_to_allocnpages,
    class_to_size,
)
from sim.go.stack import STACK_CACHE_SIZE, STACK_GUARD, STACK_MIN
from sim.go.state import ARENA_PAGES, BLOCK_ENTRIES, CHUNK_PAGES, NUM_SIZE_CLASSES, PAGE_SIZE, SUMMARY_LEVELS

OS_PAGE = 4096
_BITMAP = 32  # bytes of heap per byte of heap bitmap before go1.27: two bits a word
_LARGEST, _KIB64, _MIB = 32 << 10, 64 << 10, 1 << 20
_EMPTY = "marking_empty", "marking_empty_few"
_FEW = 3  # slots per span up to which the refill, not the fast path, makes the loop
_SIZES = [int(size) for size in class_to_size]
# tables without which something takes what nobody measured
_UNPRICED = {
    "write_barrier": "nobody measured what it takes: nothing",
    "globals": "nobody measured what marking them takes: as much a byte as a large object",
}
_PAGES = [int(pages) for pages in class_to_allocnpages]
_CLASSES = [(sizeclass, kind) for sizeclass in range(NUM_SIZE_CLASSES) for kind in KINDS]  # by span class


def load_machine(path_or_name: str | Path, version: str) -> Prices:
    """Prices of a Go version on a machine: a file by its path, or one that comes with the program by name.

    InputError, one line, says what is wrong with the file, or that it has no prices for the version.
    """
    if isinstance(path_or_name, str) and "/" not in path_or_name and not path_or_name.endswith(".toml"):
        return _shipped(path_or_name, version)
    return derive(read_machine(path_or_name), version)


@cache
def _shipped(name: str, version: str) -> Prices:
    """Derived once in a process: that takes 0.1 s, more than a short run does."""
    return derive(read_machine(name), version)


def derive(machine: Machine, version: str) -> Prices:
    """Prices of a Go version from a machine file that was read before; InputError if its tables contradict."""
    measured_version = machine.measured(version)
    tables, single = machine.tables[measured_version], machine.steps_of(measured_version)
    facts = VERSIONS[version]
    steps = {name: Price(picoseconds(one.ns)) for name, one in single.items()}
    steps = _steps(machine, tables, facts, steps) | pauses(tables["mark"])
    spans = _Spans(facts, steps)
    base = _refill_fresh(tables["refill"], spans)
    steps["stack_span"] = base
    steps["goroutine_new"] = _goroutine_new(tables["goroutine"], spans)
    steps["stack_copy"], stack_copy = _growth(tables["stack_growth"], steps)
    large = _large(tables, spans)
    steps["large"] = large.price
    rows = _loops(tables["loop"], spans, base.mean, large)
    steps["tiny"] = _tiny(tables["loop"], spans, rows["noscan"])
    fast, fresh = [], []
    for sizeclass, kind in _CLASSES:
        at = _on_lines(rows[kind], _SIZES[sizeclass])
        fast.append(round(at.fast))
        fresh.append(scaled(base, round(at.refill)))
    kept, freed = sweep_prices(tables["sweep"], [_LARGEST, *_SIZES[1:]])  # class 0: large objects
    singles = {**{f"lock.{name}": one for name, one in machine.lock.items()}, **single}
    assumed = {name: one.reason for name, one in singles.items() if isinstance(one, Assumed)}
    assumed["stack_span"] = "a refill with a fresh span of 2 KiB slots, the same but for mcentral's sets in it"
    assumed["switch"] = "spawn+run+exit less a reused g and less goroutine_exit, which is assumed"
    assumed |= {name: reason for name, reason in _UNPRICED.items() if name not in tables}
    heaps, borrowed = _heaps(machine, tables, spans, rows, fresh)
    small = small_heaps(tables, heaps)
    return Prices(
        machine=machine.name,
        version=version,
        cpus=machine.cpus,
        fast=tuple(fast),
        heaps=heaps,
        refill_fresh=tuple(fresh),
        large_fresh=large.fresh,
        large_zero=large.zero,
        sweep_kept=kept,
        sweep_freed=freed,
        mark=mark_prices(tables),
        stack_copy=stack_copy,
        steps={name: steps[name] for name in STEPS},
        lock=LockPrices(**{name: picoseconds(machine.lock[name].ns) for name in LOCK_STEPS}),
        assumed=assumed | borrowed,
        wide_vectors=machine.wide_vectors,
        small_heaps=small,
        mean_sizes=mean_sizes() if small else (0, 0),
        globals_byte=globals_byte(tables.get("globals")),
    )


def slots(facts: Facts, size: int, npages: int, noscan: bool) -> int:
    """Objects in a span. (sim/go/sizeclasses.py:span_nelems, which only compiled code can call)"""
    reserve = 0
    if facts.inline_mark_bits and 16 <= size <= MIN_SIZE_FOR_MALLOC_HEADER:
        reserve += INLINE_MARK_BITS_SIZE
    if facts.heap_bits_in_span and not noscan and size <= MIN_SIZE_FOR_MALLOC_HEADER:
        reserve += npages * PAGE_SIZE // 64
    return (npages * PAGE_SIZE - reserve) // size


@dataclass(frozen=True, slots=True)
class _Spans:
    """What a fresh span costs besides its refill price, in picoseconds."""

    facts: Facts
    steps: Mapping[str, Price]

    def slots(self, size: int, kind: str) -> int:
        """Objects in a span of a size class."""
        return slots(self.facts, size, _PAGES[_SIZES.index(size)], kind == "noscan")

    def around(self, npages: int) -> Fraction:
        """On any memory: its share of refilling the page cache and the span records."""
        return (Fraction(npages) * self.steps["page_cache_refill"].mean + self.steps["mspan_refill"].mean) / 64

    def warm(self, npages: int, n: int) -> Fraction:
        """On recycled memory, with n slots."""
        walk = Fraction(npages * SUMMARY_LEVELS * self.steps["page_level"].mean, CHUNK_PAGES)
        return self.around(npages) + walk + self.marks(n) * self.meta

    def cold(self, size: int, npages: int, noscan: bool) -> Fraction:
        """On memory never touched."""
        n = slots(self.facts, size, npages, noscan)
        return (
            self.around(npages)
            + self.touches(size, npages, noscan) * self.steps["first_touch"].mean
            + (self.record() + self.marks(n) + self.bitmap(npages)) * self.meta
            + self.growth(npages)
        )

    def stacks(self) -> Fraction:
        """For 16 stacks of 2 KiB on memory never touched: their span, and the P's cache filled twice from it."""
        npages = STACK_CACHE_SIZE // PAGE_SIZE
        record = Fraction(MSPAN_SIZE[self.facts.inline_mark_bits] + 3 * 8, OS_PAGE)
        return (
            self.steps["stack_span"].mean
            + 2 * self.steps["stack_pool"].mean
            + Fraction(STACK_CACHE_SIZE, OS_PAGE) * self.steps["first_touch"].mean
            + self.around(npages)
            + record * self.meta
            + self.growth(npages)
        )

    def growth(self, npages: int) -> Fraction:
        """The share of so many pages in the heap's growth."""
        chunk = self.steps["grow"].mean + _besides_growth(self.steps)
        arena = self.steps["grow_arena"].mean + _arena_pages(self.facts) * self.meta
        return Fraction(npages) * chunk / CHUNK_PAGES + Fraction(npages * arena, ARENA_PAGES)

    @property
    def meta(self) -> int:
        """First touch of a page of metadata."""
        return self.steps["meta_touch"].mean

    def touches(self, size: int, npages: int, noscan: bool) -> int:
        """Pages of the span that malloc is first to write, tiny blocks aside."""
        n = slots(self.facts, size, npages, noscan)
        if size <= MIN_SIZE_FOR_MALLOC_HEADER:
            return int(n * size < npages * PAGE_SIZE and (self.facts.inline_mark_bits or self.facts.heap_bits_in_span))
        return len({i * size // OS_PAGE for i in range(n)}) if self.facts.malloc_header and not noscan else 0

    def record(self) -> Fraction:
        """Pages of metadata for a span record, its place in allspans and in a span set."""
        inline = self.facts.inline_mark_bits
        return (MSPAN_SIZE[inline] + 3 * 8 + Fraction(SPANSET_BLOCK[inline][0], BLOCK_ENTRIES)) / OS_PAGE

    def marks(self, n: int) -> Fraction:
        """Pages of metadata for two mark bitmaps of n slots."""
        return Fraction(2 * 8 * -(-n // 64), OS_PAGE)

    def bitmap(self, npages: int) -> Fraction:
        """Pages of heap bitmap."""
        return Fraction(0) if self.facts.heap_bits_in_span else Fraction(npages * PAGE_SIZE, _BITMAP * OS_PAGE)


def _measured(row: Mapping[str, Reading], table: Table) -> Price:
    """A measured row of quantiles and mean as a price."""
    per_mille = {"p10": 100, "p50": 500, "p90": 900, "p99": 990, "p999": 999}
    points = [(q, picoseconds(row[name].median)) for name, q in per_mille.items() if name in row]
    try:
        return distribution(points, picoseconds(row["mean"].median))
    except ValueError as error:
        raise InputError(f"{table.name}: {error}") from None


def _difference(
    more: Mapping[str, Reading],
    less: Mapping[str, Reading],
    off_mean: Fraction = Fraction(0),
    off_each: Fraction = Fraction(0),
) -> Price:
    """What one row of the refill table has over another, in ns less ``off_each``; ``off_mean`` is off its mean alone."""
    p50, p90, mean = (
        max(Fraction(0), more[name].median - less[name].median - off_each) for name in ("p50", "p90", "mean")
    )
    points = [(500, picoseconds(p50)), (900, picoseconds(max(p50, p90)))]
    return distribution(points, max(picoseconds(max(Fraction(0), mean - off_mean)), least_mean(points)))


def _besides_growth(steps: Mapping[str, Price]) -> Fraction:
    """What a refill that grows the heap pays besides growth, of each 4 MiB (picoseconds).

    A page cache that finds nothing, a search at the root; a search for the one span; and a page of the arena's spans[]
    and a 32nd of one of chunk bitmaps, touched first.
    """
    searches = sum(steps[name].mean for name in ("page_cache_refill", "page_level", "page_alloc"))
    return searches + Fraction(33, 32) * steps["meta_touch"].mean


def _arena_pages(facts: Facts) -> int:
    """Pages of a heapArena besides spans[] and heap bitmap that its first span touches: page bits and zeroedBase."""
    return 2 if facts.inline_mark_bits else 1


def _steps(
    machine: Machine, tables: Mapping[str, Table], facts: Facts, single: Mapping[str, Price]
) -> dict[str, Price]:
    """All steps but ``tiny``, ``large``, ``goroutine_new`` and those of stacks that are derived from others."""
    steps = dict(single)
    touch = machine.first_touch
    steps["first_touch"] = steps["meta_touch"] = _measured(touch.row(*machine.small_fault), touch)
    # a 2 MiB page faults once in 512 touches of 4 KiB: its median is about the 99.9th percentile of all
    huge = touch.row(*machine.huge_fault)
    whole = [(500, picoseconds(huge["p999"].median))]
    steps["huge_touch"] = distribution(whole, max(512 * picoseconds(huge["mean"].median), least_mean(whole)))
    refill = tables["refill"]
    # 2 KiB noscan: nothing of such a span is touched, and clearing a slot is a small part
    cache, chunk, arena = (
        refill.row("cold", "n2048", source) for source in ("page cache refill", "4 MiB chunk", "64 MiB arena")
    )
    warm = {name: refill.row("warm", "n2048", name) for name in ("page cache", "page cache refill", "4 MiB chunk")}
    steps["page_cache_refill"] = _difference(warm["page cache refill"], warm["page cache"])
    levels = warm["4 MiB chunk"]["p50"].median - warm["page cache refill"]["p50"].median  # a walk of all five
    steps["page_level"] = Price(picoseconds(max(Fraction(0), levels / SUMMARY_LEVELS)))
    steps["grow"] = _difference(chunk, cache, off_each=_besides_growth(steps) / 1000)
    touched = Fraction(_arena_pages(facts) * steps["meta_touch"].mean, 1000)
    rest = arena["mean"].median - chunk["mean"].median - touched
    steps["grow_arena"] = Price(picoseconds(max(Fraction(0), rest)))
    goroutine, sweep = tables["goroutine"], tables["sweep"]
    steps["goroutine_reused"] = _measured(goroutine.row("reused"), goroutine)
    steps["free_span"] = _difference(sweep.row("n64", "none"), sweep.row("n64", "all"))
    whole_life = picoseconds(tables["spawn"].row("spawn+run+exit")["mean"].median)
    others = whole_life - steps["goroutine_reused"].mean - steps["goroutine_exit"].mean
    if others < 0:
        raise InputError(f"{tables['spawn'].name}: spawn+run+exit is less than a reused g and assumed goroutine_exit")
    steps["switch"] = Price(others)
    return steps


def _refill_fresh(refill: Table, spans: _Spans) -> Price:
    """A refill with pages from the page cache, less the malloc itself and the metadata touched in it."""
    hit, malloc = refill.row("cold", "n2048", "page cache"), refill.row("cold", "n2048", "same span")
    # pages at multiples of 64 are in another row: of 64 spans' bitmap pages only those of the other 63 are in this one
    bitmap = (spans.bitmap(1) - Fraction(1, 64)) * Fraction(64, 63) if spans.bitmap(1) else Fraction(0)
    pages = spans.record() + spans.marks(PAGE_SIZE // 2048) + bitmap
    metadata = pages * spans.meta + Fraction(spans.steps["mspan_refill"].mean, 64)
    return _difference(hit, malloc, metadata / 1000)


def _goroutine_new(goroutine: Table, spans: _Spans) -> Price:
    """A go statement that makes a g, without what its stack takes."""
    mean = 1000 * goroutine.row("new")["mean"].median - spans.stacks() / (STACK_CACHE_SIZE // STACK_MIN)
    if mean < 0:
        raise InputError(f"{goroutine.name}: a new g takes less than the first touches of its stack")
    return Price(round(mean))


def _growth(table: Table, steps: Mapping[str, Price]) -> tuple[Price, tuple[int, int, int]]:
    """Moving to a larger stack: the fixed part, and femtoseconds a byte by the size of the new one (stack.py:copy_class).

    The rows end with stacks of 4, 8, 32 and 128 KiB.
    """
    to4, to8, to32, to128 = (1000 * table.row(kib)["p50"].median for kib in (2, 5, 17, 65))
    held = {size: (size << 10) - STACK_GUARD for size in (2, 4, 8, 16, 32, 64)}
    span, back = (_median(steps[name]) for name in ("stack_span", "free_span"))
    small = max(Fraction(0), (to8 - 2 * to4) / (held[4] - held[2]))
    fixed = to4 - small * held[2] if small else to8 / 2
    middle = (to32 - to8 - 2 * fixed - span) / (held[8] + held[16])
    large = (to128 - to32 - 2 * fixed - 2 * span - 2 * back - steps["page_alloc"].mean) / (held[32] + held[64])
    per_byte = [round(1000 * max(Fraction(0), rate)) for rate in (small, middle, large)]
    return Price(max(0, round(fixed))), (per_byte[0], per_byte[1], per_byte[2])


def _median(price: Price) -> int:
    """The median of a price."""
    return price.mean if price.cells is None else price.cells[len(price.cells) // 2]


def _partial(refill: Table, kind: str) -> dict[int, Price]:
    """Refills from a swept span with room, less the malloc itself, by measured slot size."""
    found = {}
    for mode, name, source in sorted(refill.rows):
        measured = str(name)
        if mode == "partial" and source == "partial swept" and measured[0] == "np"[kind == "scan"]:
            found[int(measured[1:])] = _difference(refill.row(mode, name, source), refill.row(mode, name, "same span"))
    if not found:
        raise InputError(f"{refill.name} has no row of mode partial for {kind} classes; prices are derived from it")
    return found


@dataclass(frozen=True, slots=True)
class _Row:
    """Derived at one slot size, picoseconds."""

    size: int
    fast: Fraction
    zero: Fraction
    refill: Fraction


@dataclass(frozen=True, slots=True)
class _Large:
    """Derived for large objects: per object, and per byte in femtoseconds by (scan, noscan)."""

    price: Price
    fresh: tuple[int, int]
    zero: tuple[int, int]


def _loops(loop: Table, spans: _Spans, refill: int, large: _Large) -> dict[str, list[_Row]]:
    """Fast path, clearing and refill of each measured size, by kind, rising; small classes only."""
    loop.row(16, "noscan")  # tiny blocks
    for kind in KINDS:
        loop.row(1024, kind)  # the least fast path of larger ones
    rows: dict[str, list[_Row]] = {kind: [] for kind in KINDS}
    for size, kind in sorted((int(size), str(kind)) for size, kind in loop.rows):
        if size not in _SIZES or kind not in KINDS:
            raise InputError(f"{loop.name} has a row {size}, {kind}; rows are of a size class, scan or noscan")
        noscan = kind == "noscan"
        if noscan and size < 16:
            continue  # tiny objects
        if noscan and size > spans.facts.max_small_size:
            last = rows["noscan"][-1]
            rows["noscan"].append(_Row(size, last.fast, Fraction(size * large.zero[1], 1000), last.refill))
            continue
        npages = _PAGES[_SIZES.index(size)]
        n = slots(spans.facts, size, npages, noscan)
        warm, cold = (1000 * loop.row(size, kind)[name].median for name in ("warm_loop", "cold_loop"))
        floor = Fraction(0) if n > _FEW else next(row.fast for row in rows[kind] if row.size == 1024)
        price = Fraction(refill)
        fast = cold - (price + spans.cold(size, npages, noscan)) / n
        if fast < floor:
            fast = floor
            price = max(Fraction(0), n * (cold - fast) - spans.cold(size, npages, noscan)) if n <= _FEW else price
        zero = max(Fraction(0), warm - fast - (price + spans.warm(npages, n)) / n)
        rows[kind].append(_Row(size, fast, zero, price))
    return rows


def _on_lines(rows: Sequence[_Row], size: int) -> _Row:
    """Between the measured sizes on a line, beyond them as at the last."""
    after = next((i for i, row in enumerate(rows) if row.size >= size), len(rows) - 1)
    right = rows[after]
    if right.size <= size or after == 0:
        return right
    left = rows[after - 1]
    place = Fraction(size - left.size, right.size - left.size)
    fast, zero, refill = (
        getattr(left, name) + (getattr(right, name) - getattr(left, name)) * place
        for name in ("fast", "zero", "refill")
    )
    return _Row(size, fast, zero, refill)


def _heaps(
    machine: Machine,
    tables: Mapping[str, Table],
    spans: _Spans,
    rows: Mapping[str, Sequence[_Row]],
    fresh: Sequence[Price],
) -> tuple[tuple[HeapPrices, ...], dict[str, str]]:
    """Mallocs on recycled memory by Ps and the size of the heap, rising: as far as warm, hit, refilled, paused and others have it;
    and what stands for rows that are missing.

    The largest one on one P is that of the loops, which is there in any case. Loops were measured on one P alone.
    """
    sizes = {(1, machine.loop_mib)}
    if "warm" in tables:
        sizes |= {(1, int(mib)) for _, _, mib in tables["warm"].rows}
    if "hit" in tables:
        measured = sorted({int(mib) for *_, mib, procs in tables["hit"].rows if procs == 1})
        if machine.loop_mib not in measured:
            told = f"calls were timed in heaps of {', '.join(map(str, measured))} MiB, not of {machine.loop_mib}"
            raise InputError(f"{machine.path}: loop_mib: {told}; write what the loops of mallocs cycled through")
        sizes |= {(int(procs), int(mib)) for _, _, mib, procs in tables["hit"].rows}
    paused = {mib: stopped(tables.get("paused"), mib) for _, mib in sizes}
    in_loops = {kind: _partial(tables["refill"], kind) for kind in KINDS}
    found, borrowed = [], {}
    own = one_allocates(tables)
    shared = {(procs, 0, mib) for procs, mib in sizes}
    for procs, allocate, mib in sorted(shared | {(procs, 1, mib) for procs, mib in sizes if procs > 1 and own}):
        timed = own if allocate else tables
        cleared = {kind: _cleared(rows[kind], kind, tables.get("warm"), mib, spans) for kind in KINDS}
        calls = {kind: mixed(timed, kind, mib, procs, partial(_single, rows[kind], kind, spans)) for kind in KINDS}
        found.append(
            HeapPrices(
                procs=procs,
                nbytes=mib * _MIB,
                stopped=paused[mib],
                write_barrier=noted(tables.get("write_barrier"), mib, procs),
                swept=swept(timed.get("swept"), mib, procs) or swept(tables.get("swept"), mib, procs),
                allocate=allocate,
                **_by_class(cleared, calls, in_loops, spans, fresh),
            )
        )
        for kind in KINDS:
            for size, used in calls[kind].borrowed.items():
                where = f"{mib} MiB, {procs} Ps{', one goroutine' if allocate else ''}"
                borrowed[f"malloc {size} B {kind}, {where}"] = f"too few calls were timed: as on {used}"
    return tuple(found), borrowed


def _by_class(
    cleared: Mapping[str, Sequence[_Row]],
    calls: Mapping[str, Mixed],
    in_loops: Mapping[str, Mapping[int, Price]],
    spans: _Spans,
    fresh: Sequence[Price],
) -> dict[str, tuple[Any, ...]]:
    """A heap's prices by span class, by their names in `HeapPrices`. ``in_loops``, ``fresh``: refills where none were timed
    beside other work."""
    found: dict[str, list[Any]] = defaultdict(list)
    for spc, (sizeclass, kind) in enumerate(_CLASSES):
        at, size, timed = _on_lines(cleared[kind], _SIZES[sizeclass]), _SIZES[sizeclass], calls[kind]
        one = sizeclass > 0 and spans.slots(size, kind) == 1
        found["zero"].append(round(at.zero))
        for name, price in _hits(timed, size, one, Price(round(at.fast) + round(at.zero))).items():
            found[name].append(price)
        found["refill_partial"].append(at_size(timed.refills or in_loops[kind], size))
        found["refill_fresh"].append(fresh[spc] if one or not timed.fresh else at_size(timed.fresh, size))
        if all(each.unswept for each in calls.values()):
            found["refill_unswept"].append(at_size(timed.unswept, size))
        if all(each.near for each in calls.values()):
            found["refill_near"].append(round(1000 * of_nearest(timed.near, size)))
    if not all(each.empty for each in calls.values()):
        for name in _EMPTY:
            del found[name]
    return {name: tuple(prices) for name, prices in found.items()}


def _hits(calls: Mixed, size: int, one: bool, loop: Price) -> dict[str, Price]:
    """Hits of a size by their names in `HeapPrices`; ``one``: its spans have one slot. ``loop``: as in a loop of mallocs, which is
    what is known of them if none were timed by themselves."""
    hits = calls.singles if one else calls.hits
    found = {"hit": at_size(hits, size) if hits else loop}
    for name, told, other in (
        ("hit_some", calls.some, "hit"),
        ("hit_few", calls.few, "hit_some"),
        ("marking", calls.marking, "hit"),
        ("marking_next", calls.next, "marking"),
        ("marking_next_few", calls.next_few, "marking_next"),
        ("marking_empty", calls.empty, "marking_next"),
        ("marking_empty_few", calls.empty_few, "marking_empty"),
    ):
        found[name] = found[other] if one or not told else at_size(told, size)
    return found


def _single(rows: Sequence[_Row], kind: str, spans: _Spans, size: int) -> Fraction | None:
    """Nanoseconds that a fresh span of recycled memory for the one slot of a size takes; None if it has more."""
    if spans.slots(size, kind) > 1:
        return None
    return (_on_lines(rows, size).refill + spans.warm(_PAGES[_SIZES.index(size)], 1)) / 1000


def _cleared(rows: Sequence[_Row], kind: str, warm: Table | None, mib: int, spans: _Spans) -> list[_Row]:
    """Rows with what clearing takes in the loops of a heap of so many MiB, where those were measured."""
    found = []
    for row in rows:
        measured = warm.rows.get((row.size, kind, mib)) if warm is not None else None
        if measured is None:
            found.append(row)
            continue
        npages, n = _PAGES[_SIZES.index(row.size)], spans.slots(row.size, kind)
        zero = 1000 * measured["loop"].median - row.fast - (row.refill + spans.warm(npages, n)) / n
        found.append(replace(row, zero=max(Fraction(0), zero)))
    return found


def _tiny(loop: Table, spans: _Spans, rows: Sequence[_Row]) -> Price:
    """The second of two 8-byte objects in a block: the mean of what the cold and the warm loop leave for it."""
    block = rows[0]
    n = slots(spans.facts, block.size, 1, True)
    pages = PAGE_SIZE // OS_PAGE - spans.touches(block.size, 1, True)  # those the refill has not touched yet
    touched = pages * spans.steps["first_touch"].mean
    measured = loop.row(8, "noscan")
    cold = block.fast + (block.refill + spans.cold(block.size, 1, True) + touched) / n
    warm = block.fast + block.zero + (block.refill + spans.warm(1, n)) / n
    left = [2 * 1000 * measured[name].median - other for name, other in (("cold_loop", cold), ("warm_loop", warm))]
    return Price(round(max(Fraction(0), (left[0] + left[1]) / 2)))


def _large(tables: Mapping[str, Table], spans: _Spans) -> _Large:
    """Large objects: per byte on fresh memory a line through the medians of 64 KiB and 1 MiB, clearing on top of it.

    Before go1.27 half of the 64 KiB objects touch a page of heap bitmap first; their p10 is one that did not. 16 MiB
    objects grow the heap at each step and tell nothing of the line. Clearing is the mean of three sizes; where the loop
    of 32 KiB objects is one of large objects it weighs as much as those together (it is a mean, they are medians, 10 %
    lower), its median per object as much as theirs, and it tells the mean of the price per object too.
    """
    table, facts = tables["large"], spans.facts
    bases, fresh, zero = [], [], []
    for kind in KINDS:
        untouched = "p50" if facts.heap_bits_in_span else "p10"
        small = 1000 * table.row("cold", _KIB64, kind)[untouched].median
        big = 1000 * table.row("cold", _MIB, kind)["p50"].median - spans.bitmap(_MIB // PAGE_SIZE) * spans.meta
        big -= spans.steps["page_alloc"].mean  # 64 KiB come from the page cache
        slope = max(Fraction(0), (big - small) / (_MIB - _KIB64))
        bases.append(max(Fraction(0), small - slope * _KIB64))
        fresh.append(slope)
        sizes = (_KIB64, _MIB, 16 * _MIB)
        cleared = (1000 * table.row("warm", size, kind)["p50"].median - bases[-1] - slope * size for size in sizes)
        zero.append(sum((one / size for one, size in zip(cleared, sizes, strict=True)), Fraction(0)) / len(sizes))
    p50 = sum(bases) / len(bases)
    price = Price(round(p50))
    if facts.max_small_size < _LARGEST:
        loop, row = tables["loop"].row(_LARGEST, "noscan"), table.row("cold", _KIB64, "noscan")
        npages = _LARGEST // PAGE_SIZE
        per_byte = fresh[1] * _LARGEST
        p50 = max(Fraction(0), (p50 + 1000 * loop["cold_p50"].median - per_byte) / 2)
        mean = 1000 * loop["cold_loop"].median - spans.cold(_LARGEST, npages, True) - per_byte
        points = [(500, round(p50)), (900, round(p50 + 1000 * (row["p90"].median - row["p50"].median)))]
        price = distribution(points, max(round(mean), least_mean(points)))
        rate = (1000 * loop["warm_loop"].median - price.mean - spans.warm(npages, 1) - per_byte) / _LARGEST
        zero[1] = (zero[1] + rate) / 2
    scan, noscan = (round(1000 * max(Fraction(0), rate)) for rate in zero)
    return _Large(price, (round(1000 * fresh[0]), round(1000 * fresh[1])), (scan, noscan))
