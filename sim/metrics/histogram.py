"""Log-linear latency histograms (HDR, three significant digits), as rows of counts that never grow.

A value below 2048 has a bucket of its own; above, each power of two is cut into 1024, so that a bucket is at most
0.1 % wide. Values are picoseconds; those of 2**53 (2.5 hours) and more share the last bucket. Counts, the exact sum and
the exact maximum are kept per row; everything derived from them is computed when asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.jit import jit
from sim.words import clz64

SUB_BITS = 10
TOP = 53
BUCKETS = ((TOP - SUB_BITS) << SUB_BITS) + (1 << SUB_BITS)
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99, 99.999)


@jit
def bucket_of(value: Any) -> Any:
    """The bucket of a value >= 0."""
    if value < 2 << SUB_BITS:
        return value
    shift = 63 - SUB_BITS - clz64(value)
    return min((shift << SUB_BITS) + (value >> shift), np.int64(BUCKETS - 1))


def bucket_of_int(value: int) -> int:
    """`bucket_of` for Python."""
    shift = max(value.bit_length() - SUB_BITS - 1, 0)
    return min((shift << SUB_BITS) + (value >> shift), BUCKETS - 1)


def bucket_top(bucket: int) -> int:
    """The largest value of a bucket."""
    shift = max((bucket >> SUB_BITS) - 1, 0)
    return ((bucket - (shift << SUB_BITS) + 1) << shift) - 1


def bucket_rows(buckets: Sequence[int], counts: Sequence[int]) -> list[tuple[int, int, int]]:
    """The lowest and the highest value of some buckets, both of the bucket, and what they count."""
    return [(bucket_top(i - 1) + 1 if i else 0, bucket_top(i), n) for i, n in zip(buckets, counts, strict=True)]


@dataclass(frozen=True, slots=True)
class Summary:
    """What a row of counts says: picoseconds; ``percentiles`` by `PERCENTILES`, each the top of its bucket."""

    count: int
    total: int
    maximum: int
    percentiles: tuple[int, ...]

    @property
    def mean(self) -> float:
        """Mean in picoseconds; 0 of nothing."""
        return self.total / self.count if self.count else 0.0


def percentile(cumulative: Any, wanted: float) -> int:
    """The top of the first bucket at which the cumulative counts reach a share of ``wanted`` percent."""
    rank = max(1, -int(-(wanted * float(cumulative[-1])) // 100))
    return bucket_top(int(np.searchsorted(cumulative, rank)))


def summarize(counts: Any, total: int, maximum: int, wanted: Sequence[float] = PERCENTILES) -> Summary:
    """Summary of one row; no percentile exceeds the exact maximum."""
    cumulative = np.cumsum(counts)
    if not cumulative[-1]:
        return Summary(0, 0, 0, (0,) * len(wanted))
    return Summary(
        int(cumulative[-1]), total, maximum, tuple(min(percentile(cumulative, q), maximum) for q in wanted)
    )


class Histogram:
    """A row of counts that Python fills: values of a goroutine or a request, picoseconds >= 0."""

    __slots__ = ("counts", "maximum", "total")

    def __init__(self) -> None:
        self.counts = np.zeros(BUCKETS, np.int64)
        self.total = self.maximum = 0

    def add(self, value: int) -> None:
        """Count a value."""
        self.counts[bucket_of_int(value)] += 1
        self.total += value
        self.maximum = max(self.maximum, value)

    def summary(self) -> Summary:
        """What it holds."""
        return summarize(self.counts, self.total, self.maximum)
