"""Histograms of counts: merged, never averaged, and intervals of their quantiles.

A histogram is a list of (low, high, count): both limits belong to the bucket, in order, none of them shared, as
sim/metrics/histogram.py cuts them and as stored results keep them. A quantile is the top of the bucket in which the value
of that rank lies, so that it is too high by a bucket's width at most (0.1 % there).

Why no mean of percentiles: the mean of ten p99s is not the p99 of all requests, however many runs there are; it is off
by the bias that each run's own p99 has. Merged, the bias is that of all requests together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.stats.interval import Interval, checked_level, t_quantile

Histogram = Sequence[tuple[int, int, int]]
"""Buckets that hold something: lowest and highest value, count."""

RESAMPLES = 1999
_LEAST = 5  # histograms; of fewer, resampling knows nothing
_HAIR = 1e-12  # so that 0.07 of 100 is rank 7, not 8: what a product of doubles may be too high by


def merge(histograms: Iterable[Histogram]) -> list[tuple[int, int, int]]:
    """One histogram of all that was counted; ValueError if they are not cut alike."""
    counts: dict[tuple[int, int], int] = {}
    for one in histograms:
        for low, high, count in one:
            counts[low, high] = counts.get((low, high), 0) + count
    merged = [(low, high, counts[low, high]) for low, high in sorted(counts)]
    for (low, high, _), (after, _, _) in zip(merged, merged[1:], strict=False):
        if after <= high:
            raise ValueError(f"buckets {low} to {high} and {after} on overlap; merge histograms that are cut alike")
    return merged


def quantile(histogram: Histogram, q: float) -> int:
    """The value that a share ``q`` of all counted is at most: 0.99 for p99. ValueError of nothing counted."""
    counts = np.cumsum([count for _, _, count in histogram], dtype=np.int64)
    if not len(counts) or not counts[-1]:
        raise ValueError("nothing was counted; a quantile needs values")
    return histogram[int(np.searchsorted(counts, _rank(q, counts[-1])))][1]


def quantile_interval(
    histograms: Sequence[Histogram],
    q: float,
    rng: np.random.Generator,
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """The quantile of independent replications' merged histograms, with a bootstrap interval.

    Whole replications are drawn anew, since values within one depend on each other (cluster bootstrap: Davison and
    Hinkley, Bootstrap Methods and their Application, section 3.8). The limits are percentiles of the resampled quantiles,
    taken as much farther out as few clusters need (Hesterberg, "What teachers should know about the bootstrap", The
    American Statistician 69 (2015), section 5.3: plain percentiles are about as wide as z intervals with n for n - 1).

    For one long run give the histograms of its batches instead: they are as good as replications if long enough. Wrong for
    quantiles so far out that most replications hold no value above: the limits cannot exceed what was seen. At least ten
    replications with ten values above each are advised. The same generator state gives the same limits.
    """
    if len(histograms) < _LEAST:
        raise ValueError(f"{len(histograms)} histograms are too few to resample; {_LEAST} are the least, ten advised")
    if resamples < 100:
        raise ValueError(f"{resamples} resamples are too few; {RESAMPLES} are usual")
    n = len(histograms)
    merged = merge(histograms)
    estimate = quantile(merged, q)
    drawn = np.sort(_resampled(_cumulative(histograms, merged), q, rng.integers(n, size=(resamples, n))))
    tail = _expanded_tail(level, n)
    first = max(0, math.floor(tail * (resamples + 1)) - 1)  # the k-th of B stands for k / (B + 1)
    tops = [high for _, high, _ in merged]
    low, high = tops[int(drawn[first])], tops[int(drawn[resamples - 1 - first])]
    return Interval(estimate, low, high, level, n)


def order_statistics_interval(histogram: Histogram, q: float, level: float = 0.95) -> Interval:
    """The quantile of one histogram of independent values, between two order statistics.

    The number of values below the true quantile is binomial whatever they are distributed like: Conover, Practical
    Nonparametric Statistics, 3rd ed., section 3.2. The limits hold at least ``level``; one is the least or the greatest
    value where too few lie beyond. Wrong, and far too narrow, where values depend on each other: those of requests that
    queue do; give `quantile_interval` replications or batches for them.
    """
    from scipy.stats import binom

    counts = np.cumsum([count for _, _, count in histogram], dtype=np.int64)
    estimate = quantile(histogram, q)
    n = int(counts[-1])
    tail = (1 - checked_level(level)) / 2
    ranks = binom.ppf(tail, n, q), binom.isf(tail, n, q) + 1  # P(X < low) <= tail, P(X >= high) <= tail
    low, high = (histogram[int(np.searchsorted(counts, min(max(rank, 1), n)))][1] for rank in ranks)
    return Interval(estimate, low, high, level, n)


def _rank(q: float, count: Any) -> Any:
    """The rank of the quantile among so many values (or arrays of both), 1 the least."""
    if not 0 < q < 1:
        raise ValueError(f"a quantile of {q} is none; it lies between 0 and 1, such as 0.99")
    return np.maximum(np.ceil(q * np.asarray(count, np.float64) * (1 - _HAIR)), 1).astype(np.int64)


def _cumulative(histograms: Sequence[Histogram], merged: Histogram) -> npt.NDArray[np.int64]:
    """What each histogram (row) counts up to each bucket of the merged one (column)."""
    column = {low: place for place, (low, _, _) in enumerate(merged)}
    counts = np.zeros((len(histograms), len(merged)), np.int64)
    for row, one in zip(counts, histograms, strict=True):
        for low, _, count in one:
            row[column[low]] += count
    return counts.cumsum(axis=1)


def _resampled(cumulative: npt.NDArray[np.int64], q: float, draws: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bucket of the quantile of each merged row of draws, found by halving, all rows at once."""
    ranks = _rank(q, cumulative[:, -1][draws].sum(axis=1))
    low = np.zeros(len(draws), np.int64)
    high = np.full(len(draws), cumulative.shape[1] - 1)
    while (low < high).any():
        middle = (low + high) // 2
        enough = cumulative[draws, middle[:, None]].sum(axis=1) >= ranks
        high = np.where(enough, middle, high)
        low = np.where(enough, low, middle + 1)
    return low


def _expanded_tail(level: float, n: int) -> float:
    """The probability beyond either limit, for n clusters."""
    from scipy.special import ndtr

    return float(ndtr(-math.sqrt(n / (n - 1)) * t_quantile(level, n - 1)))
