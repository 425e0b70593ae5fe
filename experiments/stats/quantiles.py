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
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.stats.interval import Interval, checked_level, t_quantile

Histogram = Sequence[tuple[int, int, int]] | npt.NDArray[np.int64]
"""Buckets that hold something: lowest and highest value, count; as tuples, or rows of an array."""

RESAMPLES = 1999
_ALIKE = "merge histograms that are cut alike"
_NOTHING = "nothing was counted; a quantile needs values"
_LEAST = 5  # histograms; of fewer, resampling knows nothing
_HAIR = 1e-12  # so that 0.07 of 100 is rank 7, not 8: what a product of doubles may be too high by


@dataclass(frozen=True)
class _Table:
    """Several histograms side by side: limits of all their buckets, and counts, histograms x buckets."""

    lows: npt.NDArray[np.int64]
    highs: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


def _table(histograms: Iterable[Histogram]) -> _Table:
    rows = [np.asarray(one, np.int64).reshape(-1, 3) for one in histograms]
    cells = np.concatenate([np.empty((0, 3), np.int64), *rows])
    lows, first, column = np.unique(cells[:, 0], return_index=True, return_inverse=True)
    highs = cells[first, 1]
    for low, high in cells[cells[:, 1] != highs[column], :2]:
        raise ValueError(f"buckets {low} to {high} and {highs[lows.searchsorted(low)]} differ; {_ALIKE}")
    for place in np.flatnonzero(lows[1:] <= highs[:-1]):
        raise ValueError(f"buckets {lows[place]} to {highs[place]} and {lows[place + 1]} on overlap; {_ALIKE}")
    counts = np.zeros((len(rows), len(lows)), np.int64)
    np.add.at(counts, (np.repeat(np.arange(len(rows)), [len(one) for one in rows]), column), cells[:, 2])
    return _Table(lows, highs, counts)


def merge(histograms: Iterable[Histogram]) -> list[tuple[int, int, int]]:
    """One histogram of all that was counted; ValueError if they are not cut alike."""
    table = _table(histograms)
    return list(zip(table.lows.tolist(), table.highs.tolist(), table.counts.sum(axis=0).tolist(), strict=True))


def quantile(histogram: Histogram, q: float) -> int:
    """The value that a share ``q`` of all counted is at most: 0.99 for p99. ValueError of nothing counted."""
    counts = np.cumsum([count for _, _, count in histogram], dtype=np.int64)
    if not len(counts) or not counts[-1]:
        raise ValueError(_NOTHING)
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
    table = _table(histograms)
    cumulative = table.counts.cumsum(axis=1)
    estimate = _resampled(cumulative, q, np.arange(n)[None, :])  # every one once
    drawn = np.sort(_resampled(cumulative, q, rng.integers(n, size=(resamples, n))))
    tail = _expanded_tail(level, n)
    first = max(0, math.floor(tail * (resamples + 1)) - 1)  # the k-th of B stands for k / (B + 1)
    middle, low, high = table.highs[[estimate[0], drawn[first], drawn[resamples - 1 - first]]].tolist()
    return Interval(middle, low, high, level, n)


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


def _resampled(cumulative: npt.NDArray[np.int64], q: float, draws: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The bucket of the quantile of each merged row of draws, found by halving, all rows at once."""
    if not cumulative.size or not cumulative[:, -1].any():
        raise ValueError(_NOTHING)
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
