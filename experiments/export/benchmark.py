"""Go benchmark text: a line per cause and run, as ``go test -bench`` prints benchmarks; benchstat reads it.

The format: "Proposal: Go Benchmark Data Format" (golang.org/design/14313-benchmark-format), and units with
golang.org/x/perf/benchunit in mind: what ends in ``-ns`` it shows in seconds.

Configuration lines (``gogc: 100``) hold every setting but the seed, so that runs that differ in nothing else are
samples of one benchmark: ``benchstat -col gogc FILE`` compares settings, ``benchstat OLD NEW`` files of equal ones.
``ns/op`` is a mean, so of the whole is what benchstat summarizes of it; a percentile's median over runs is no percentile of
all runs together, and says how far runs agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from experiments.export.exported import REQUESTS, Exported, Histogram, settings, total, whole_sum

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999}
_RUN = {
    "/sim/throughput:mallocs-per-second": "mallocs/s",
    "/gc/cycles/total:gc-cycles": "gc-cycles",
    "/sim/gc/cpu:share": "gc-cpu-share",
    "/sim/gc/assists:share": "assist-share",
    "/sim/heap/peak:bytes": "peak-heap-bytes",
    "/memory/classes/total:bytes": "mapped-bytes",
}


def lines(runs: Iterable[Exported]) -> Iterator[str]:
    """The lines of a file of some runs, in their order."""
    yield "Unit mallocs/s better=higher"
    known: dict[str, str] = {}
    for run in runs:
        keys = _keys(run)
        yield ""
        yield f"# {run.scenario}, seed {run.seed}"  # no key: each of them would get a table of its own
        yield from (f"{key}:" for key in known if key not in keys)
        yield from (f"{key}: {value}" for key, value in keys.items() if known.get(key) != value)
        known = keys
        yield from _benchmarks(run)


def _keys(run: Exported) -> dict[str, str]:
    """Configuration: first the keys that Go's own benchmarks have, so that tools group by them.

    The models are those of Linux on amd64, whatever machine simulates them.
    """
    found = {"goos": "linux", "goarch": "amd64", "pkg": f"allocsim/{_value(run.scenario)}"}
    machine = run.config.get("machine", {})
    if "prices" in machine:
        found["cpu"] = f"{_value(machine['prices'])} (simulated)"
    for name, value in settings(run.config):
        if name != "prices":
            found[_key(name)] = _value(value)
    return {key: value for key, value in found.items() if value}


def _key(name: str) -> str:
    """A name as a key: no space, colon or capital."""
    return "".join("_" if c.isspace() or c == ":" else c for c in name.lower())


def _value(value: Any) -> str:
    """A value on one line; tables and lists, which may be long, by a digest of their JSON."""
    if isinstance(value, Mapping | list | tuple):
        if not value:
            return "none"
        return "sha256-" + hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(str(value).split())


def _benchmarks(run: Exported) -> Iterator[str]:
    procs = int(run.metrics.get("/sched/gomaxprocs:threads", 1))
    suffix = f"-{procs}" if procs != 1 else ""
    values = [(run.metrics[name], unit) for name, unit in _RUN.items() if name in run.metrics]
    if "/sim/time:seconds" in run.metrics:
        values.insert(0, (run.metrics["/sim/time:seconds"] * 1e9, "ns/op"))
    if values:
        yield _line(f"Run{suffix}", 1, values)
    for name, histogram in run.histograms.items():
        if histogram:
            called = name.title().replace("_", "") if name in REQUESTS else f"Malloc/cause={name}"
            yield _line(f"{called}{suffix}", total(histogram), _latencies(histogram))


def _latencies(histogram: Histogram) -> list[tuple[float, str]]:
    """The mean and some quantiles in nanoseconds; quantiles and the maximum are the tops of their buckets."""
    from experiments.stats.quantiles import quantile

    mean = whole_sum(histogram) / total(histogram) / 1000
    quantiles = [(quantile(histogram, q) / 1000, f"{name}-ns") for name, q in _QUANTILES.items()]
    return [(mean, "ns/op"), *quantiles, (histogram[-1][1] / 1000, "max-ns")]


def _line(name: str, count: int, values: Iterable[tuple[float, str]]) -> str:
    return "\t".join([f"Benchmark{name}", str(count), *(f"{_number(value)} {unit}" for value, unit in values)])


def _number(value: float) -> str:
    """Whole numbers as such, others to nine digits."""
    return str(int(value)) if value == int(value) else f"{value:.9g}"
