"""What exporters take of a run, wherever it was kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Histogram = list[tuple[int, int, int]]
"""Buckets that hold something: lowest and highest value in picoseconds, both of the bucket, and count."""

REQUESTS = ("response", "run_queue")
"""Histograms that are of a service's requests; the others are of mallocs, by cause."""


@dataclass(frozen=True, slots=True)
class Exported:
    """A run: its scenario's name and resolved config, as ``run --json`` prints it, metrics by their names of
    runtime/metrics, and histograms by cause."""

    scenario: str
    config: Mapping[str, Any]
    metrics: Mapping[str, int | float]
    histograms: Mapping[str, Histogram]

    @property
    def seed(self) -> int | None:
        """The seed, if its config names one."""
        seed = self.config.get("run", {}).get("seed")
        return int(seed) if seed is not None else None


def settings(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The settings of a config by the names that ``run --set`` takes, tables and lists as they are; no seed, no purpose.

    A name that two sections have is given in full the second time: ``workload.mallocs``.
    """
    seen = set()
    for section, table in config.items():
        if not isinstance(table, Mapping):
            continue
        for key, value in table.items():
            if (section, key) == ("run", "seed"):
                continue
            name = f"{section}.{key}" if key in seen else key
            seen.add(key)
            yield name, value


def total(histogram: Histogram) -> int:
    """How many values were counted."""
    return sum(count for _, _, count in histogram)


def whole_sum(histogram: Histogram) -> float:
    """The sum of the values, picoseconds, each in the middle of its bucket: off by 0.05 % at most."""
    return sum((low + high) / 2 * count for low, high, count in histogram)
