"""An OpenMetrics snapshot of a run's end: what a scrape of the simulated program would have shown, and our own figures.

The text format: OpenMetrics 1.0 (prometheus.io/docs/specs/om/open_metrics_spec). Go's metrics are called as
client_golang calls them (prometheus/internal/go_runtime_metrics.go: RuntimeMetricsToProm), so that dashboards for Go
programs find them; ours are those under /sim/, called ``allocsim_...`` by the same rule.

A runtime histogram of which a result keeps only some values is a summary here, its largest value the quantile 1. Objects by
size are histograms in powers of two, as client_golang has them. Latencies are histograms in steps of 1, 2, 5 from 1 ns
to 10 s; a bucket of ours that a limit cuts, 0.1 % wide, counts above it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from experiments.export.exported import REQUESTS, Exported, Histogram, total, whole_sum

CUMULATIVE = frozenset(
    {
        "/cpu/classes/gc/mark/assist:cpu-seconds",
        "/cpu/classes/gc/mark/dedicated:cpu-seconds",
        "/cpu/classes/gc/mark/idle:cpu-seconds",
        "/cpu/classes/gc/pause:cpu-seconds",
        "/cpu/classes/gc/total:cpu-seconds",
        "/cpu/classes/idle:cpu-seconds",
        "/cpu/classes/scavenge/assist:cpu-seconds",
        "/cpu/classes/scavenge/background:cpu-seconds",
        "/cpu/classes/scavenge/total:cpu-seconds",
        "/cpu/classes/total:cpu-seconds",
        "/cpu/classes/user:cpu-seconds",
        "/gc/cycles/automatic:gc-cycles",
        "/gc/cycles/forced:gc-cycles",
        "/gc/cycles/total:gc-cycles",
        "/gc/heap/allocs:bytes",
        "/gc/heap/allocs:objects",
        "/gc/heap/frees:bytes",
        "/gc/heap/frees:objects",
        "/gc/heap/tiny/allocs:objects",
        "/sched/goroutines-created:goroutines",
    }
)
"""Go's metrics that only grow, of those a run has. (runtime/metrics/description.go, Cumulative)"""

_OURS_CUMULATIVE = ("/sim/time", "/sim/mallocs:", "/sim/locks/", "/sim/segments:", "/sim/stacks/cop", "/sim/requests/")
_QUANTILES = {"p50": "0.5", "p90": "0.9", "p99": "0.99", "max": "1"}
_BY_SIZE_SUMS = {
    "/gc/heap/allocs-by-size:bytes": "/gc/heap/allocs:bytes",
    "/gc/heap/frees-by-size:bytes": "/gc/heap/frees:bytes",
}
_SIZES = [1 << k for k in range(3, 16)]  # of slots, bytes; larger objects have spans of their own
_LIMITS = [mantissa * 10**power for power in range(3, 14) for mantissa in (1, 2, 5)][:31]  # picoseconds, 1 ns to 10 s
_PS_PER_SECOND = 10**12


@dataclass(frozen=True, slots=True)
class _Family:
    """The names of a metric: ``name`` as scraped, less a counter's ``_total``, and ``unit``, with which it ends."""

    name: str
    unit: str


def family(metric: str) -> _Family:
    """What a metric of runtime/metrics, or ours, is called. (RuntimeMetricsToProm)"""
    path, _, unit = metric.partition(":")
    unit = unit.replace("-", "_").replace("*", "_").replace("/", "_per_")
    path = path.replace("-", "_").replace("/", "_")
    name = f"allocsim{path.removeprefix('_sim')}" if path.startswith("_sim_") else f"go{path}"
    return _Family(f"{name}_{unit}", unit)


def lines(run: Exported) -> Iterator[str]:
    """The lines of a snapshot."""
    yield from _info(run)
    parts: dict[str, dict[str, int | float]] = {}
    for name, value in run.metrics.items():
        path, colon, unit = name.partition(":")
        unit, _, part = unit.partition("/")
        parts.setdefault(path + colon + unit, {})[part] = value
    for name, values in parts.items():
        if "" in values:
            yield from _plain(name, values[""])
        elif name in _BY_SIZE_SUMS:
            yield from _by_size(name, values, run.metrics.get(_BY_SIZE_SUMS[name]))
        else:
            yield from _summary(name, values)
    mallocs = {cause: one for cause, one in run.histograms.items() if one and cause not in REQUESTS}
    yield from _latency("allocsim_malloc_seconds", "latency of mallocgc by cause; all: whole calls", mallocs)
    for cause in REQUESTS:
        if run.histograms.get(cause):
            yield from _latency(f"allocsim_{cause}_seconds", "of requests", {"": run.histograms[cause]})
    yield "# EOF"


def _info(run: Exported) -> Iterator[str]:
    runtime = run.config.get("runtime", {})
    found = {"scenario": run.scenario, "version": runtime.get("version"), "seed": run.seed}
    labels = ",".join(f'{key}="{_escaped(str(value))}"' for key, value in found.items() if value is not None)
    yield "# TYPE allocsim_run info"
    yield "# HELP allocsim_run what was simulated"
    yield f"allocsim_run_info{{{labels}}} 1"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _head(name: str, kind: str, unit: str, text: str) -> Iterator[str]:
    yield f"# TYPE {name} {kind}"
    yield f"# UNIT {name} {unit}"
    yield f"# HELP {name} {text}"


def _plain(metric: str, value: float) -> Iterator[str]:
    """A counter or a gauge."""
    names = family(metric)
    grows = metric in CUMULATIVE or metric.startswith(_OURS_CUMULATIVE)
    yield from _head(names.name, "counter" if grows else "gauge", names.unit, metric)
    yield f"{names.name}{'_total' if grows else ''} {value!r}"


def _summary(metric: str, values: Mapping[str, int | float]) -> Iterator[str]:
    names = family(metric)
    yield from _head(names.name, "summary", names.unit, metric)
    for part, quantile in _QUANTILES.items():
        if part in values:
            yield f'{names.name}{{quantile="{quantile}"}} {values[part]!r}'
    if "count" in values:
        yield f"{names.name}_count {values['count']!r}"


def _by_size(metric: str, values: Mapping[str, int | float], size: float | None) -> Iterator[str]:
    """A histogram of objects by size; its exact sum is another metric."""
    names = family(metric)
    yield from _head(names.name, "histogram", names.unit, metric)
    sized = [(int(part), int(count)) for part, count in values.items() if part != "large"]
    for limit in _SIZES:
        yield f'{names.name}_bucket{{le="{float(limit)!r}"}} {sum(count for size, count in sized if size <= limit)}'
    count = sum(map(int, values.values()))
    yield f'{names.name}_bucket{{le="+Inf"}} {count}'
    if size is not None:
        yield f"{names.name}_sum {size!r}"
        yield f"{names.name}_count {count}"


def _latency(name: str, text: str, histograms: Mapping[str, Histogram]) -> Iterator[str]:
    """Histograms of picoseconds by cause; one without a cause is called ``""``."""
    yield from _head(name, "histogram", "seconds", text)
    for cause, histogram in histograms.items():
        cause_label = f'cause="{_escaped(cause)}"' if cause else ""
        for limit, below in zip(_LIMITS, _below(histogram, _LIMITS), strict=True):
            yield f"{name}_bucket{{{_joined(cause_label, _le(limit / _PS_PER_SECOND))}}} {below}"
        count, labels = total(histogram), f"{{{cause_label}}}" if cause_label else ""
        yield f"{name}_bucket{{{_joined(cause_label, _le(float('inf')))}}} {count}"
        yield f"{name}_sum{labels} {whole_sum(histogram) / _PS_PER_SECOND!r}"
        yield f"{name}_count{labels} {count}"


def _joined(*labels: str) -> str:
    return ",".join(filter(None, labels))


def _le(limit: float) -> str:
    return f'le="{"+Inf" if limit == float("inf") else repr(limit)}"'


def _below(histogram: Histogram, limits: Iterable[int]) -> Iterator[int]:
    """How many values are in buckets that lie at or below each limit."""
    count, place = 0, 0
    for limit in limits:
        while place < len(histogram) and histogram[place][1] <= limit:
            count += histogram[place][2]
            place += 1
        yield count
