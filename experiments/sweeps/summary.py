"""What a sweep found in short, point by point: for `allocsim sweep` and `allocsim show`.

Latencies are those of all replications together, from their merged histograms; shares and rates are means of the
replications, peaks their highest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from experiments.sweeps.points import Run
from experiments.sweeps.record import Latency, Record
from experiments.sweeps.store import Results
from sim.units import format_size, format_time

_PERCENTILES = (50.0, 99.0, 99.9)
_FIGURES = {  # by name in JSON: the metric, and how those of replications become one
    "mallocs_per_second": ("/sim/throughput:mallocs-per-second", "mean"),
    "gc_cycles": ("/gc/cycles/total:gc-cycles", "mean"),
    "gc_cpu": ("/sim/gc/cpu:share", "mean"),
    "heap_peak": ("/sim/heap/peak:bytes", "max"),
}
_LATENCIES = {"malloc": "all", "response": "response"}
_FAILURES_SHOWN = 5


def merged(parts: Sequence[Latency]) -> Counter[int]:
    """Histograms of several runs as one: counts by bucket."""
    found: Counter[int] = Counter()
    for one in parts:
        found.update(dict(zip(one.buckets, one.counts, strict=True)))
    return found


@cache
def _top(bucket: int) -> int:
    from sim.metrics.histogram import bucket_top

    return bucket_top(bucket)


def percentiles(parts: Sequence[Latency], wanted: Sequence[float]) -> list[int]:
    """Percentiles of several runs' values together, picoseconds: the tops of their buckets, no more than the maximum."""
    counts = sorted(merged(parts).items())
    total, most = sum(count for _, count in counts), max((one.maximum for one in parts), default=0)
    found = []
    for q in wanted:
        rank, passed, top = max(1, -int(-(q * total) // 100)), 0, 0
        for bucket, count in counts:
            passed += count
            if passed >= rank:
                top = _top(bucket)
                break
        found.append(min(top, most))
    return found


def summary(results: Results) -> dict[str, Any]:
    """`Summary` of every record in a directory; InputError if one cannot be read."""
    found = Summary(results)
    for run, record in results.records():
        found.add(run, record)
    return found.found()


class Summary:
    """What runs found, from their records one by one; only what is shown of them is held."""

    def __init__(self, results: Results) -> None:
        self._results = results
        self._made: list[list[Record]] = [[] for _ in results.points]
        self._failed: list[dict[str, Any]] = []

    def add(self, run: Run, record: Record) -> None:
        """Take a run in."""
        if record.error is not None:
            self._failed.append(_failure(self._results, run, record.error))
            return
        latency = {cause: record.latency[cause] for cause in _LATENCIES.values() if cause in record.latency}
        self._made[run.point].append(replace(record, latency=latency, series=(), cycles=()))

    def found(self) -> dict[str, Any]:
        """The shape of ``allocsim sweep --json``."""
        results = self._results
        made = sum(map(len, self._made)) + len(self._failed)
        return {
            "sweep": results.sweep,
            "code": results.code,
            "runs": len(results.runs),
            "missing": len(results.runs) - made,
            "failed": self._failed,
            "points": [
                {"point": point.number, "values": point.values} | _point(records)
                for point, records in zip(results.points, self._made, strict=True)
            ],
        }


def _failure(results: Results, run: Run, error: str) -> dict[str, Any]:
    values = results.values(run)
    return {"point": run.point, "values": values, "replicate": run.replicate, "seed": run.seed, "error": error}


def _point(records: Sequence[Record]) -> dict[str, Any]:
    """What the runs of a point found together."""
    found: dict[str, Any] = {"runs": len(records)}
    for name, (metric, how) in _FIGURES.items():
        values = [record.metrics[metric] for record in records if metric in record.metrics]
        if values:
            found[name] = max(values) if how == "max" else sum(values) / len(values)
    for name, cause in _LATENCIES.items():
        parts = [record.latency[cause] for record in records if cause in record.latency]
        if parts:
            times = percentiles(parts, _PERCENTILES)
            found[f"{name}_ns"] = {f"p{q:g}": ps / 1000 for q, ps in zip(_PERCENTILES, times, strict=True)}
    return found


def text(found: Mapping[str, Any]) -> Iterator[str]:
    """A summary for people: a line for each point."""
    sweep = found["sweep"]
    if sweep["purpose"]:
        yield sweep["purpose"]
    whole = found["runs"]
    state = [
        f"{whole:,} runs of {sweep['scenario']}: {len(found['points']):,} points, {sweep['replications']} seeds from {sweep['seed']}"
    ]
    state += [f"{found['missing']:,} not made yet"] if found["missing"] else []
    state += [f"{len(found['failed']):,} failed"] if found["failed"] else []
    yield ", ".join(state)
    yield ""
    yield from _table(found["points"])
    for one in found["failed"][:_FAILURES_SHOWN]:
        settings = ", ".join(f"{key} = {value}" for key, value in one["values"].items())
        yield f"failed: point {one['point']} ({settings}), seed {one['seed']}: {one['error']}"
    if len(found["failed"]) > _FAILURES_SHOWN:
        yield f"and {len(found['failed']) - _FAILURES_SHOWN:,} more, in the tables"


def _table(points: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    axes = list(points[0]["values"])
    columns = {
        "runs": lambda one: str(one["runs"]),
        "M/s": lambda one: f"{one['mallocs_per_second'] / 1e6:.3g}",
        "cycles": lambda one: f"{one['gc_cycles']:.4g}",
        "GC CPU": lambda one: f"{100 * one['gc_cpu']:.2f} %",
        "heap peak": lambda one: format_size(one["heap_peak"]),
        **{f"malloc p{q:g}": _latency("malloc_ns", f"p{q:g}") for q in _PERCENTILES},
    }
    if any("response_ns" in one for one in points):
        columns |= {f"response p{q:g}": _latency("response_ns", f"p{q:g}") for q in _PERCENTILES[1:]}
    rows = [[*axes, *columns]]
    for one in points:
        cells = [str(one["values"][axis]) for axis in axes]
        for show in columns.values():
            try:
                cells.append(show(one))
            except KeyError:
                cells.append("-")
        rows.append(cells)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))


def _latency(name: str, percentile: str) -> Any:
    return lambda one: format_time(one[name][percentile] * 1000)
