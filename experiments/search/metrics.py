"""Figures of a point by name: what is minimised, bounded, or explained.

    response:p99.9  malloc:p99  sweep:p50    percentiles of latency: of requests ("response", "run_queue"), of mallocs, or of
                                             a cause of theirs; seconds
    peak-rss                                 bytes of the heap that memory stands behind, the highest of a run's samples
    peak-heap  gc-cpu  throughput            /sim/heap/peak:bytes, /sim/gc/cpu:share, /sim/throughput:mallocs-per-second
    /gc/cycles/total:gc-cycles               any column of a sweep's table of runs (experiments/sweeps/tables.py)

Of several replications: percentiles are those of their merged histograms, peaks and maxima their highest, all others
the mean. Percentiles of what is kept without a histogram (pauses) are refused, since those of runs make none of all.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from experiments.sweeps.record import Record
from experiments.sweeps.summary import percentiles
from experiments.sweeps.tables import figures_of
from sim.units import SEC, format_size, format_time, parse_size, parse_time

SHORT = {
    "peak-heap": "/sim/heap/peak:bytes",
    "heap-peak": "/sim/heap/peak:bytes",  # what pictures call it
    "gc-cpu": "/sim/gc/cpu:share",
    "throughput": "/sim/throughput:mallocs-per-second",
}
_RSS = "peak-rss"
_REQUESTS = ("response", "run_queue")
_QUANTILE = re.compile(r"(?:/sim/latency/)?([a-z_-]+):(?:seconds/)?p(\d{1,2}(?:\.\d{1,6})?)")
_HIGHEST = re.compile(r"peak|/max$")


class NoFigure(ValueError):
    """A run has no such figure; takes one string: what would be right."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure by ``name``. ``unit``: s, B or nothing. ``source``: a column, or the cause of a latency at ``percent``."""

    name: str
    source: str
    unit: Literal["s", "B", ""]
    percent: float | None = None

    def of_run(self, record: Record) -> float:
        """The figure of one run; NoFigure if it has none."""
        return self.of_runs([record])

    def of_runs(self, records: Sequence[Record]) -> float:
        """The figure of the replications of a point; NoFigure if they have none."""
        if self.percent is not None:
            return self._latency(records)
        values = [self._column(record) for record in records]
        return max(values) if _HIGHEST.search(self.name) or _HIGHEST.search(self.source) else sum(values) / len(values)

    def _latency(self, records: Sequence[Record]) -> float:
        parts = [record.latency[self.source] for record in records if self.source in record.latency]
        if not parts:
            self._check_cause(records)
            return 0.0
        return percentiles(parts, [self.percent or 0.0])[0] / SEC

    def _check_cause(self, records: Sequence[Record]) -> None:
        """NoFigure unless it is a cause of mallocs, which may have been that of none."""
        from sim.go.state import CAUSES

        there = {cause for record in records for cause in record.latency}
        if self.source not in CAUSES:
            others = ", ".join(sorted({*CAUSES, *there} - {"all"} | {"malloc"}))
            raise NoFigure(f"{self.name}: its runs have no such latency; write one of {others}")

    def _column(self, record: Record) -> float:
        if self.name == _RSS:
            place = record.series_columns.index("resident")
            return max((row[place] for row in record.series), default=0)
        held = figures_of(record)
        if self.source not in held:
            close = difflib.get_close_matches(self.source[:80], held, n=1, cutoff=0.4)
            right = f"did you mean {close[0]}?" if close else f"write response:p99, {_RSS} or {', '.join(SHORT)}"
            raise NoFigure(f"{self.name}: its runs have no such figure; {right}")
        return held[self.source]

    def shown(self, value: float) -> str:
        """A value of it for people, a difference too."""
        sign = "-" if value < 0 else ""
        if not math.isfinite(value):
            return str(value)
        if self.unit == "s":
            return sign + format_time(abs(value) * SEC)
        return sign + format_size(abs(value)) if self.unit == "B" else f"{value:.4g}"

    def parsed(self, text: str) -> float:
        """A bound on it as a person writes it; ValueError says what would be right."""
        try:
            if self.unit == "s":
                return parse_time(text) / SEC
            if self.unit == "B":
                return float(parse_size(text))
        except ValueError:
            right = "a time such as 2ms" if self.unit == "s" else "a size such as 2GiB"
            raise ValueError(f"{text[:40]!r} is no bound on {self.name}; write {right}") from None
        try:
            value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{text[:40]!r} is no bound on {self.name}; write a number such as 0.05")
        return value


def metric(name: str) -> Metric:
    """The figure of a name; ValueError says what would be right. Whether runs have it only they can tell."""
    found = _QUANTILE.fullmatch(name)
    if found:
        cause = found[1].replace("-", "_")
        return Metric(name, "all" if cause == "malloc" else cause, "s", float(found[2]))
    if name == _RSS:
        return Metric(name, "", "B")
    source = SHORT.get(name, name)
    if not source.startswith("/") or ":" not in source:
        raise ValueError(
            f"{name[:80]!r} is no figure; write response:p99.9, malloc:p99, {_RSS}, {', '.join(SHORT)}"
            " or a column of the table of runs such as /gc/cycles/total:gc-cycles"
        )
    if re.search(r"/p\d", source):
        raise ValueError(
            f"{name[:80]}: percentiles of several runs make none of all; write its maximum, /max, or a latency"
        )
    unit = source.partition(":")[2].partition("/")[0]
    return Metric(name, source, {"bytes": "B", "seconds": "s"}.get(unit, ""))  # type: ignore[arg-type]
