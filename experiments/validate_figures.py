"""What is compared: figures of a run, real or simulated, made alike of what each tells.

Both sides give a histogram of mallocs, the lines of gctrace and gcpacertrace, and MemStats; both go through the same
functions, so that a figure that a line cuts to MiB is cut on both sides.

Heaps are exact where a pacer line tells them; what is marked comes from the gctrace line, in whole MiB. Both lines are
printed by whoever ends a cycle, a goroutine in malloc perhaps, the former with the world stopped: so what lines tell is
taken from real runs of their own (*traced*), all else from runs without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, PlainSerializer

from sim.metrics.gctrace import GcLine, parse_gctrace
from sim.metrics.histogram import summarize

MIB = 1 << 20
Numbers = Annotated[Any, BeforeValidator(np.asarray), PlainSerializer(lambda array: array.tolist())]
"""An array, which a file has as a list."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A row of the table. ``traced``: from the lines of cycles."""

    name: str
    unit: str
    traced: bool = False


_LATENCY = (("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99))
QUANTITIES = (
    *(Quantity(f"malloc {name}", "ns") for name, _ in _LATENCY),
    Quantity("malloc max", "ns"),
    Quantity("malloc mean", "ns"),
    Quantity("throughput", "M/s"),
    Quantity("cycles", ""),
    Quantity("allocated", "MiB"),
    Quantity("heap at trigger", "MiB", True),
    Quantity("goal", "MiB", True),
    Quantity("peak", "MiB", True),
    Quantity("marked", "MiB", True),
    Quantity("scan work", "MiB", True),
    Quantity("pauses", "ms"),
    Quantity("pause max", "us"),
    Quantity("assist CPU", "ms", True),
    Quantity("mark CPU", "ms", True),
    Quantity("mark wall", "ms", True),
    Quantity("GC CPU share", "%", True),
    Quantity("first touch", "ms"),
    Quantity("response p50", "us"),
    Quantity("response p90", "us"),
    Quantity("response p99", "us"),
    Quantity("response p99.9", "us"),
)
BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}


# Lines of the runtime


@dataclass(frozen=True, slots=True)
class SeenCycle:
    """A cycle as its lines tell it: bytes live when it began and when marking was done, its goal, heap scan work.

    The last four are None without a pacer line.
    """

    line: GcLine
    heap0: int | None = None
    heap1: int | None = None
    goal: int | None = None
    scan: int | None = None


_PACER = re.compile(
    r"pacer: \d+% CPU \(\d+ exp\.\) for (\d+)\+\d+\+\d+ B work \(\d+ B exp\.\) in (\d+) B -> (\d+) B \(∆goal (-?\d+), .*"
)


def read_cycles(lines: Iterable[str]) -> list[SeenCycle]:
    """The cycles that lines of gctrace and gcpacertrace tell, which may stand among others."""
    found, pacer = [], None
    for line in lines:
        if match := _PACER.match(line):
            scan, heap0, heap1, beyond = map(int, match.groups())
            pacer = heap0, heap1, heap1 - beyond, scan
        elif line.startswith("gc ") and " ms clock, " in line:
            found.append(SeenCycle(parse_gctrace(line), *(pacer or ())))
            pacer = None
    return found


# Figures


@dataclass(frozen=True, slots=True)
class Row:
    """A histogram: counts by bucket, sum and maximum, picoseconds."""

    counts: Numbers
    total: int
    maximum: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What one run showed. Times in nanoseconds; ``begun`` from the program's start, as cycles are timed."""

    malloc: Row
    cycles: Sequence[SeenCycle] | None  # None where its lines were not asked for
    memstats: Mapping[str, Any]
    before: Mapping[str, Any]  # MemStats when it began
    begun: int
    wall: int
    procs: int
    first_touch: float
    pause_max: int  # of all cycles, both pauses of each; MemStats tells the last 256
    response: Row | None = None


def figures(seen: Seen) -> dict[str, float]:
    """The figures of a run by the names of `QUANTITIES`; those that it cannot tell are left out."""
    found = _latency(seen.malloc, "malloc", 1000)
    found["throughput"] = seen.malloc.counts.sum() / seen.wall * 1000
    found |= _heap(seen)
    found |= _collector(seen)
    found["first touch"] = seen.first_touch / 1e6
    if seen.response is not None:
        found |= _latency(seen.response, "response", 1_000_000)
        del found["throughput"]  # it is the rate of arrivals
    return {name: float(value) for name, value in found.items() if name in BY_NAME}


def _latency(row: Row, name: str, unit: int) -> dict[str, float]:
    summary = summarize(row.counts, row.total, row.maximum, [wanted for _, wanted in _LATENCY])
    found = {
        f"{name} {label}": value / unit
        for (label, _), value in zip(_LATENCY, summary.percentiles, strict=True)
    }
    return found | {f"{name} max": row.maximum / unit, f"{name} mean": summary.mean / unit}


def _heap(seen: Seen) -> dict[str, float]:
    """Heaps: peak of the whole run, all others of the second half of its time, where the live heap stands."""
    found: dict[str, float] = {
        "cycles": seen.memstats["NumGC"] - seen.before["NumGC"],
        "allocated": (seen.memstats["TotalAlloc"] - seen.before["TotalAlloc"]) / MIB,
    }
    if seen.cycles is None:
        return found
    late = [one for one in seen.cycles if one.line.start >= seen.begun + seen.wall / 2]
    if late:
        found["marked"] = mean(one.line.heap[2] for one in late)
    for name, field in (("heap at trigger", "heap0"), ("goal", "goal"), ("scan work", "scan")):
        values = [value for one in late if (value := getattr(one, field)) is not None]
        if values:
            found[name] = median(values) / MIB
    heaps = [one.heap1 for one in seen.cycles if one.heap1 is not None]
    if heaps:
        found["peak"] = max(heaps) / MIB
    return found


def _collector(seen: Seen) -> dict[str, float]:
    """Pauses, and CPU time of the collector; that of idle Ps is in marking, not in the share."""
    found = {"pauses": (seen.memstats["PauseTotalNs"] - seen.before["PauseTotalNs"]) / 1e6}
    if seen.memstats["NumGC"] > seen.before["NumGC"]:
        found["pause max"] = seen.pause_max / 1000
    if seen.cycles is None:
        return found
    cpu = [sum(column) for column in zip(*(one.line.cpu for one in seen.cycles), strict=True)] or [0] * 5
    return found | {
        "assist CPU": cpu[1] / 1e6,
        "mark CPU": sum(cpu[1:4]) / 1e6,
        "mark wall": sum(one.line.clock[1] for one in seen.cycles) / 1e6,
        "GC CPU share": 100 * (cpu[0] + cpu[1] + cpu[2] + cpu[4]) / (seen.wall * seen.procs),
    }


# Errors


@dataclass(frozen=True, slots=True)
class Line:
    """A quantity of one workload and version: real (median of its runs, and their extremes), simulated."""

    quantity: str
    real: float
    low: float
    high: float
    simulated: float

    @property
    def error(self) -> float | None:
        """Relative error; None where the real figure is 0 and the simulated one is not."""
        if self.real == 0:
            return 0.0 if self.simulated == 0 else None
        return (self.simulated - self.real) / self.real

    @property
    def beyond(self) -> bool:
        """The simulated figure lies outside what the real runs showed."""
        return not self.low <= self.simulated <= self.high


def compare(
    plain: Sequence[Mapping[str, float]], traced: Sequence[Mapping[str, float]], ours: Mapping[str, float]
) -> list[Line]:
    """A line for each quantity that both sides tell, of real runs without and with lines of cycles."""
    found = []
    for quantity in QUANTITIES:
        runs = traced if quantity.traced else plain
        values = [run[quantity.name] for run in runs if quantity.name in run]
        if values and quantity.name in ours:
            found.append(Line(quantity.name, median(values), min(values), max(values), ours[quantity.name]))
    return found


@dataclass(frozen=True, slots=True)
class Total:
    """|error| of a quantity over all workloads: how many there are, median and 90th percentile, how many beyond the spread."""

    quantity: str
    n: int
    median: float
    p90: float
    beyond: int


def totals(tables: Iterable[Sequence[Line]]) -> list[Total]:
    """Errors summed up by quantity."""
    lines = [line for table in tables for line in table]
    found = []
    for quantity in QUANTITIES:
        ours = [line for line in lines if line.quantity == quantity.name]
        errors = sorted(abs(line.error) for line in ours if line.error is not None)
        if errors:
            rank = -(-9 * len(errors) // 10) - 1  # the least that 90 % do not exceed
            beyond = sum(line.beyond for line in ours)
            found.append(Total(quantity.name, len(errors), median(errors), errors[rank], beyond))
    return found


@dataclass(frozen=True, slots=True)
class Direction:
    """How a quantity differs from an older version to a newer one, over workloads where the real runs do not overlap.

    ``same``: the model differs in the same direction. ``others``: workloads where it does not, with both ratios.
    """

    quantity: str
    differ: int
    same: int
    others: tuple[tuple[str, float, float], ...]


def directions(pairs: Mapping[str, tuple[Sequence[Line], Sequence[Line]]]) -> list[Direction]:
    """For each quantity, over workloads by name (older version, newer version)."""
    found = []
    for quantity in QUANTITIES:
        differ, others = 0, []
        for name, (old, new) in pairs.items():
            both = [next((one for one in table if one.quantity == quantity.name), None) for table in (old, new)]
            before, after = both
            if before is None or after is None or not (before.high < after.low or after.high < before.low):
                continue
            differ += 1
            if (after.real - before.real) * (after.simulated - before.simulated) <= 0:
                others.append((name, _ratio(after.real, before.real), _ratio(after.simulated, before.simulated)))
        if differ:
            found.append(Direction(quantity.name, differ, differ - len(others), tuple(others)))
    return found


def _ratio(after: float, before: float) -> float:
    return after / before if before else float("inf")
