"""What a calibration found, in short: for people, as rows of a table; and how the simulated loops compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.loop_table import TOLERANCE, Row, table
from experiments.machine import derive
from experiments.machine_file import Machine, Measured
from sim.go.sizeclasses import class_to_size
from sim.go.state import ARENA_PAGES

_FAST = (16, 64, 512, 1024)
_SOURCES = ("page cache", "page cache refill", "4 MiB chunk", "64 MiB arena")
_SHAPES = ("list64", "list64shuf", "objs64", "leaf64")
_SIZES = [int(size) for size in class_to_size]


def summary(machine: Machine) -> list[tuple[str, ...]]:
    """Rows of text: what, and nanoseconds by version."""
    versions = sorted(machine.tables)
    prices = [derive(machine, version) for version in versions]
    rows = [("nanoseconds", *versions)]
    for size in _FAST:
        spc = 2 * _SIZES.index(size)
        cells = (f"{one.fast[spc | 1] / 1000:.1f} / {one.fast[spc] / 1000:.1f}" for one in prices)
        rows.append((f"fast path, {size} B, noscan / scan", *cells))
    for source in _SOURCES:
        rows.append((f"refill, fresh memory: {source}", *_medians(machine, "refill", ("cold", "n2048", source), "p50")))
    rows.append(
        ("refill, swept span of 64 B", *_medians(machine, "refill", ("partial", "n64", "partial swept"), "p50"))
    )
    touches = (machine.first_touch.row("go heap first touch", version)["mean"].median for version in versions)
    rows.append(("first touch of 4 KiB of heap, mean", *(f"{float(one):.0f}" for one in touches)))
    for shape in _SHAPES:
        for mib in sorted({int(mib) for tables in machine.tables.values() for _, mib, _ in tables["mark"].rows}):
            what = f"marking an object, {shape}, {mib} MiB"
            rows.append((what, *_medians(machine, "mark", (shape, mib, 1), "per_object")))
    told = [one.globals_byte for one in prices]
    rows.append(("marking 1000 bytes of globals", *("-" if each is None else f"{each / 1000:.1f}" for each in told)))
    noted = {key for tables in machine.tables.values() if "write_barrier" in tables for key in tables["write_barrier"].rows}
    for mib in sorted({int(mib) for mib, procs in noted if procs == 1}):
        rows.append((f"write barrier, a pointer, {mib} MiB", *_medians(machine, "write_barrier", (mib, 1), "note")))
    for name in ("futex_wake", "wake_latency"):
        one = machine.lock[name]
        cell = f"{float(one.ns):.0f}" if isinstance(one, Measured) else f"{float(one.ns):.0f} (assumed)"
        rows.append((name.replace("_", " "), *(cell for _ in versions)))
    return rows


def _medians(machine: Machine, name: str, key: tuple[str | int, ...], column: str) -> list[str]:
    """A median of each version, if it was measured."""
    tables = [machine.tables[version].get(name) for version in sorted(machine.tables)]
    found = [table.rows.get(key) if table is not None else None for table in tables]
    return [f"{float(row[column].median):.4g}" if row is not None else "-" for row in found]


@dataclass(frozen=True, slots=True)
class Loops:
    """The loops of mallocs of a version, simulated with the derived prices: how many are met, and the worst."""

    version: str
    rows: Sequence[Row]

    def __str__(self) -> str:
        """In a line."""
        within = sum(row.within for row in self.rows)
        worst = max(self.rows, key=lambda row: abs(row.error))
        where = (
            f"{worst.size} B {worst.kind} {worst.mode}, {worst.measured:g} ns measured, {worst.simulated:.1f} simulated"
        )
        return (
            f"{self.version}: the derived prices reproduce {within} of {len(self.rows)} measured loops within "
            f"{TOLERANCE:.0%}; worst {worst.error:+.1%} ({where})"
        )


def loops(machine: Machine, version: str) -> Loops:
    """Simulate the loops of a version, one arena each."""
    return Loops(version, list(table(machine, version, ARENA_PAGES)))
