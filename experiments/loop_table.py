"""The measured loop of mallocs, run in the simulator: does it take as long as it did on the machine?

``python -m experiments.loop_table`` runs one goroutine on one P for each row of a machine's loop table: objects of one
size and kind, collection off, not written by the loop, that must read as zeros; pointerful ones over 512 B 8 bytes
short, as they were measured. Each object lets go of the one before, so that nothing stays live. *Cold* is a fresh
heap. *Warm* is recycled memory: the loop has been run with its objects written (without that, memory nobody wrote
would be cleared, and faulted in, only now), everything has died and was swept at once, without a clock. A loop fills
arenas of 64 MiB, so that what happens once in a chunk or an arena has its share in the mean, as the derivation of the
prices (machine.py) takes it.

The mean is all time of the P in mallocs, locks included, by the number of mallocs.

``--sources`` holds single calls against the tables of refills (by where the span came from: its page modulo 64, 512
and 8192) and of large objects; medians, with how far they are off. Prices were derived from some of them, none has to
be met.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import click
import numpy as np

from experiments.errors import InputError
from experiments.machine import derive, slots
from experiments.machine_file import Machine, Reading, read_machine
from sim.costs import Prices
from sim.go.collect import collect_at_once
from sim.go.gcwork import flush_cache
from sim.go.mpagecache import PAGE_CACHE_PAGES
from sim.go.params import VERSIONS
from sim.go.sizeclasses import MALLOC_HEADER_SIZE, MIN_SIZE_FOR_MALLOC_HEADER, class_to_allocnpages, class_to_size
from sim.go.state import ALL, ARENA_PAGES, CHUNK_PAGES, PAGE_SIZE
from sim.go.world import World
from sim.metrics.histogram import BUCKETS, summarize
from sim.ops import ALLOC, NEEDZERO, NO_OBJ, NOSCAN, OP, TOUCH

TOLERANCE = 0.10
_BATCH = 1 << 16
_STEPS = {ARENA_PAGES: "64 MiB arena", CHUNK_PAGES: "4 MiB chunk", 64: "page cache refill"}
_LARGE_BYTES = 512 << 20
_SIZES = [int(size) for size in class_to_size]


def batch(size: int, kind: str, n: int) -> Any:
    """n mallocs of objects that fill slots of ``size`` bytes, each let go of by the next."""
    short = MALLOC_HEADER_SIZE if kind == "scan" and size > MIN_SIZE_FOR_MALLOC_HEADER else 0
    ops = np.zeros(n, OP)
    ops["kind"] = ALLOC
    ops["flags"] = NEEDZERO | (NOSCAN if kind == "noscan" else 0)
    ops["arg"] = size - short
    ops["ptr_bytes"] = 8 if kind == "scan" else 0
    return ops


def mallocs_of(version: str, size: int, kind: str, npages: int) -> int:
    """How many mallocs fill so many pages (a multiple of 512) with spans."""
    facts, noscan = VERSIONS[version], kind == "noscan"
    if size > facts.max_small_size and noscan:
        return npages // -(-size // PAGE_SIZE)
    slot = 16 if noscan and size < 16 else size
    each = int(class_to_allocnpages[_SIZES.index(slot)])
    return npages // each * slots(facts, slot, each, noscan) * (slot // size)


# a program has spans of other lengths before its loop: records and pages run out apart
_OTHERS = batch(32768, "scan", 3)


class Loop:
    """One goroutine at a time on one P of a program that does nothing but allocate."""

    def __init__(self, version: str, prices: Prices) -> None:
        self.world = World(version, 1, prices, seed=1, gogc=-1)
        self.world.price_heap(prices.heaps[-1].nbytes, 0)  # the one that was measured, though this one is shorter
        self.heap = self.world.heap

    def run(self, ops: Any, n: int) -> float:
        """The first n of the operations, repeated; nanoseconds a malloc. What the last one made is dead, too."""
        before = self._spent()

        def body(g: Any) -> Any:
            for at in range(0, n, len(ops)):
                yield g.run(ops[: n - at], 1)

        self.world.run(until=self.world.go(body))
        time, mallocs = (now - then for now, then in zip(self._spent(), before, strict=True))
        assert mallocs == n
        return time / mallocs / 1000

    def _spent(self) -> tuple[int, int]:
        """Picoseconds in mallocs, waits for locks included, and mallocs so far."""
        proc = self.world.sched.procs[0]
        return int(proc.fields["malloc_time"]) + proc.times()["lock"], int(proc.fields["mallocs"])

    def spans(self, ops: Any, n: int) -> list[tuple[int, int]]:
        """Run the operations n times, which must fill a span each: (its first page, picoseconds of the slow calls)."""
        arrays = self.heap.arrays
        found: list[tuple[int, int]] = []

        def body(g: Any) -> Any:
            for _ in range(n):
                before = int(arrays["cause_time"][ALL])
                yield g.run(ops, 1)
                span = int(arrays["goroutines"][g.id]["span"])
                found.append((int(arrays["spans"][span]["start_page"]), int(arrays["cause_time"][ALL]) - before))

        self.world.run(until=self.world.go(body))
        return found

    def recycle(self, ops: Any, n: int) -> None:
        """Run the first n of the operations, repeated, the program writing the objects, and free what is dead."""
        collect_at_once(self.heap.header, 0)
        written = ops.copy()
        written["flags"] |= TOUCH
        self.run(written, n)
        collect_at_once(self.heap.header, 0)
        flush_cache(self.heap.header, 0, self.world.now, 1)  # else the next begins with pages that this one did not reach

    def forget(self) -> None:
        """Empty the histograms."""
        for name in ("histograms", "cause_time", "cause_max"):
            self.heap.arrays[name][:] = 0


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the loop table: nanoseconds a malloc."""

    version: str
    size: int
    kind: str
    mode: str
    measured: float
    low: float
    high: float
    simulated: float

    @property
    def error(self) -> float:
        """Relative to the measured median."""
        return self.simulated / self.measured - 1

    @property
    def within(self) -> bool:
        """Whether it is within 10 %."""
        return abs(self.error) <= TOLERANCE


def loop_means(version: str, prices: Prices, size: int, kind: str, npages: int) -> dict[str, float]:
    """Nanoseconds a malloc, cold and warm, of loops that fill so many pages."""
    n = mallocs_of(version, size, kind, npages)
    ops = batch(size, kind, min(n, _BATCH))
    loop = Loop(version, prices)
    cold = loop.run(ops, n)
    loop.recycle(ops, mallocs_of(version, size, kind, npages + PAGE_CACHE_PAGES))  # it begins with what is cached
    return {"cold": cold, "warm": loop.run(ops, n)}


def table(machine: Machine, version: str, most: int = 4 * ARENA_PAGES) -> Iterator[Row]:
    """The loop table of a version, measured and simulated: 64 MiB of objects up to 64 B, at most so many pages of others."""
    prices = derive(machine, version)
    for key, readings in machine.tables[version]["loop"].rows.items():
        size, kind = int(key[0]), str(key[1])
        means = loop_means(version, prices, size, kind, ARENA_PAGES if size <= 64 else most)
        for mode, simulated in means.items():
            measured = readings[f"{mode}_loop"]
            yield Row(version, size, kind, mode, *_floats(measured), simulated)


def _floats(reading: Reading) -> tuple[float, float, float]:
    return float(reading.median), float(reading.low), float(reading.high)


@dataclass(frozen=True, slots=True)
class Source:
    """A median of single calls, nanoseconds: of refills by source, or of large objects."""

    version: str
    mode: str
    what: str
    source: str
    measured: float
    simulated: float
    n: int

    @property
    def error(self) -> float:
        """Relative to the measured median."""
        return self.simulated / self.measured - 1


def _source(page: int) -> str:
    """Where a fresh span's pages must have come from."""
    for step, name in _STEPS.items():
        if page % step == 0:
            return name
    return "page cache"


def refills(machine: Machine, version: str) -> Iterator[Source]:
    """Medians of refills by where the span came from."""
    prices, measured = derive(machine, version), machine.tables[machine.measured(version)]["refill"]
    for name in sorted({str(name) for _, name, _ in measured.rows}, key=lambda name: (int(name[1:]), name)):
        size, kind = int(name[1:]), "scan" if name[0] == "p" else "noscan"
        nspans = ARENA_PAGES // int(class_to_allocnpages[_SIZES.index(size)])
        n = mallocs_of(version, size, kind, ARENA_PAGES)
        ops = batch(size, kind, n // nspans)
        loop = Loop(version, prices)
        loop.run(_OTHERS, len(_OTHERS))
        calls = {"cold": [(_source(page), time) for page, time in loop.spans(ops, nspans)]}
        loop.recycle(ops, n)
        calls["warm"] = [(_source(page), time) for page, time in loop.spans(ops, nspans)]
        if ("partial", name, "partial swept") in measured.rows:
            ops[0]["obj"] = NO_OBJ  # one object of each span survives
            loop.recycle(ops, n)
            ops[0]["obj"] = 0
            calls["partial"] = [("partial swept", time) for _, time in loop.spans(ops[1:], nspans)]
        for mode, found in calls.items():
            for source in dict(found):
                times = [time for where, time in found if where == source]
                if (mode, name, source) in measured.rows:
                    median = float(measured.row(mode, name, source)["p50"].median)
                    yield Source(version, mode, name, source, median, float(np.median(times)) / 1000, len(times))


def large_objects(machine: Machine, version: str) -> Iterator[Source]:
    """Quantiles of large objects."""
    prices, measured = derive(machine, version), machine.tables[machine.measured(version)]["large"]
    wanted = {"p10": 10.0, "p50": 50.0, "p90": 90.0, "p99": 99.0}
    for size, kind in sorted({(int(size), str(kind)) for _, size, kind in measured.rows}):
        n = _LARGE_BYTES // size
        ops = batch(size, kind, n)
        loop = Loop(version, prices)
        for mode in ("cold", "warm"):
            loop.forget()
            loop.run(ops, n)
            arrays = loop.heap.arrays
            time, longest = int(arrays["cause_time"][ALL]), int(arrays["cause_max"][ALL])
            found = summarize(arrays["histograms"][:BUCKETS], time, longest, tuple(wanted.values()))
            row = measured.row(mode, size, kind)
            for name, simulated in zip(wanted, found.percentiles, strict=True):
                yield Source(version, mode, f"{kind} {size}", name, float(row[name].median), simulated / 1000, n)
            loop.recycle(ops, n)


def _print(rows: list[Row], sources: list[Source]) -> None:
    """Both tables."""
    for row in rows:
        line = f"{row.version:7} {row.size:6} {row.kind:6} {row.mode:4} {row.measured:8.1f} [{row.low:g}-{row.high:g}]"
        click.echo(f"{line:55} {row.simulated:8.1f} {row.error:+7.1%}{'' if row.within else '  not within 10 %'}")
    click.echo(f"{sum(row.within for row in rows)} of {len(rows)} rows within {TOLERANCE:.0%}; ns per malloc")
    for one in sources:
        line = f"{one.version:7} {one.mode:7} {one.what:15} {one.source:17} {one.measured:9.0f} {one.simulated:9.0f}"
        click.echo(f"{line} {one.error:+7.0%}  n={one.n}")


class Refused(click.ClickException):
    """Bad input, in one line."""

    exit_code = 2


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--machine", "name", default="epyc-2core", show_default=True, help="A machine file, by path or name.")
@click.option("--version", "wanted", metavar="GO", help="Only this version of Go, such as go1.27.")
@click.option("--sources", "with_sources", is_flag=True, help="Single calls too: refills by source, large objects.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
def main(name: str, wanted: str | None, with_sources: bool, as_json: bool) -> None:
    """Hold the simulator against the measured loop of mallocs of a machine."""
    try:
        machine = read_machine(name)
        versions = [wanted] if wanted else sorted(machine.tables)
        if wanted and wanted not in machine.tables:
            raise InputError(f"{machine.path}: {wanted} was not measured; {', '.join(sorted(machine.tables))} were")
        rows = [row for version in versions for row in table(machine, version)]
    except InputError as error:
        raise Refused(str(error)) from None
    sources: list[Source] = []
    if with_sources:
        for version in versions:
            sources += [*refills(machine, version), *large_objects(machine, version)]
    if as_json:
        found = {
            "machine": machine.name,
            "loop": [{**asdict(row), "error": row.error, "within": row.within} for row in rows],
            "sources": [{**asdict(one), "error": one.error} for one in sources],
        }
        click.echo(json.dumps(found, indent=1))
        return
    _print(rows, sources)


if __name__ == "__main__":
    main()
