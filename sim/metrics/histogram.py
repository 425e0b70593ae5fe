"""Log-linear histograms of integer values, three significant digits (the layout of HdrHistogram).

Values below 2048 have a bucket each; above, every power of two is cut into 1024 buckets, so a bucket is never wider
than 1/1024 of its values. Counts are plain arrays of fixed length: they add, and never grow with what they count.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sim.jit import jit
from sim.words import clz64

SUB_BITS = 10
MAX_BITS = 53  # values are clamped below 2**53: 2.5 hours of picoseconds
NUM_BUCKETS = (MAX_BITS - SUB_BITS + 1) << SUB_BITS


@jit
def bucket_of(value: Any) -> Any:
    """Bucket of a value >= 0."""
    if value < 2 << SUB_BITS:
        return np.int64(value)
    if value >= 1 << MAX_BITS:
        return np.int64(NUM_BUCKETS - 1)
    shift = 63 - SUB_BITS - clz64(np.uint64(value))
    return (shift << SUB_BITS) + (np.int64(value) >> shift)


def bucket_bounds() -> tuple[Any, Any]:
    """Lowest and highest value of every bucket."""
    index = np.arange(NUM_BUCKETS, dtype=np.int64)
    shift = np.maximum((index >> SUB_BITS) - 1, 0)
    low = (index - (shift << SUB_BITS)) << shift
    return low, low + (np.int64(1) << shift) - 1


def percentiles(counts: Any, wanted: Iterable[float]) -> list[int]:
    """Highest value equivalent to each percentile (0..100], as HdrHistogram reports it; 0 for an empty histogram."""
    total = int(counts.sum())
    if total == 0:
        return [0 for _ in wanted]
    _, high = bucket_bounds()
    cumulative = np.cumsum(counts)
    result = []
    for q in wanted:
        # the smallest count that is at least q percent, in integers: q has at most 6 decimals
        rank = max(1, -(-total * round(q * 10**6) // 10**8))
        result.append(int(high[int(np.searchsorted(cumulative, rank))]))
    return result


def maximum(counts: Any) -> int:
    """Highest value of the last bucket in use; 0 for an empty histogram."""
    used = np.flatnonzero(counts)
    return int(bucket_bounds()[1][used[-1]]) if len(used) else 0
