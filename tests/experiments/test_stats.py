"""Statistics by hand: small cases with known answers, what is refused, and the same bytes from the same seed."""

import math

import numpy as np
import pytest
from scipy import stats

from experiments.stats.batches import batch_means
from experiments.stats.interval import Interval, t_interval
from experiments.stats.paired import paired_difference, paired_ratio
from experiments.stats.quantiles import merge, order_statistics_interval, quantile, quantile_interval
from experiments.stats.stopping import Precision, progress
from experiments.stats.warmup import after_cycles, end_of_cycle, mser5
from sim.metrics.histogram import BUCKETS, PERCENTILES, bucket_of_int, bucket_top, summarize

GEOMETRIC = [(1, 1, 50), (2, 3, 25), (4, 7, 15), (8, 15, 10)]


def test_t_interval_is_scipys():
    sample = np.random.default_rng(1).normal(5, 2, 12)
    found = t_interval(sample, 0.9)
    low, high = stats.t.interval(0.9, 11, sample.mean(), stats.sem(sample))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)
    assert (found.n, found.level) == (12, 0.9)


def test_relative_half_width():
    assert Interval(10, 9, 11, 0.95, 5).relative == 0.1
    assert Interval(-10, -11, -9, 0.95, 5).relative == 0.1
    assert Interval(0, -1, 1, 0.95, 5).relative == math.inf
    assert Interval(0, 0, 0, 0.95, 5).relative == 0.0


def brute_mser5(values):
    """MSER-5 as its paper puts it, cut by cut."""
    means = [np.mean(values[i : i + 5]) for i in range(0, len(values) - 4, 5)]
    errors = [np.sum((means[d:] - np.mean(means[d:])) ** 2) / (len(means) - d) ** 2 for d in range(len(means) // 2 + 1)]
    return 5 * int(np.argmin(errors))


@pytest.mark.parametrize("level", [0.0, 1e9])
def test_mser5_cuts_where_its_definition_does(level):
    rng = np.random.default_rng(2)
    for length in (50, 123, 500):
        series = level + rng.normal(0, 1, length) + 8 * np.exp(-np.arange(length) / 10)
        found = mser5(series)
        assert found.cut == brute_mser5(series)
    assert found.settled


def test_mser5_says_when_a_series_still_drifts():
    drift = np.arange(200) + np.random.default_rng(3).normal(0, 1, 200)
    assert mser5(drift).cut == 100
    assert not mser5(drift).settled
    assert mser5(np.ones(60)).cut == 0


def test_warm_up_by_cycles():
    ends = [10, 25, 40]
    assert [end_of_cycle(ends, n) for n in (0, 1, 3)] == [0, 10, 40]
    assert [after_cycles([5, 10, 20, 40, 50], ends, n) for n in (0, 1, 3)] == [0, 1, 3]
    with pytest.raises(ValueError, match="3 collections ended, fewer than the 4 of warm-up"):
        end_of_cycle(ends, 4)


def test_batches_leave_the_beginning_out():
    found = batch_means([999.0] * 3 + [1.0, 3.0] * 8, 8)
    assert (found.interval.estimate, found.size, found.interval.n) == (2.0, 2, 8)
    assert (found.interval.half_width, found.independent) == (0.0, True)
    steps = batch_means(np.repeat(np.arange(8), 5), 8)
    assert steps.lag1 == pytest.approx(1 - 7 / (2 * 42))
    assert not steps.independent


def test_pairs_that_change_alike():
    found = paired_difference([1.0, 2.0, 4.0], [2.0, 3.0, 5.0])
    assert (found.interval.estimate, found.interval.half_width, found.saved) == (1.0, 0.0, math.inf)
    ratio = paired_ratio([1.0, 2.0, 4.0], [2.0, 4.0, 8.0])
    assert ratio.interval.estimate == pytest.approx(2.0)
    assert ratio.interval.half_width < 1e-12
    crossed = paired_difference([1.0, 2.0, 3.0], [3.0, 2.0, 1.0])
    assert crossed.saved == 0.5  # common numbers that do harm


def as_buckets(values):
    counts = np.bincount([bucket_of_int(v) for v in values], minlength=BUCKETS)
    tops = [bucket_top(i) for i in range(-1, BUCKETS)]
    return counts, [(tops[i] + 1 if i else 0, tops[i + 1], int(counts[i])) for i in counts.nonzero()[0].tolist()]


def test_quantiles_are_those_that_a_run_shows():
    values = (np.random.default_rng(4).exponential(50_000, 3000)).astype(int).tolist()
    counts, buckets = as_buckets(values)
    shown = summarize(counts, sum(values), 1 << 60).percentiles
    assert tuple(quantile(buckets, q / 100) for q in PERCENTILES) == shown
    halves = [as_buckets(half)[1] for half in (values[:1000], values[1000:])]
    assert merge(halves) == buckets


def test_ranks_are_exact():
    each = [(i, i, 1) for i in range(1, 101)]
    assert [quantile(each, q) for q in (0.07, 0.29, 0.5, 0.57, 0.995, 0.001)] == [7, 29, 50, 57, 100, 1]


def brute_bootstrap(histograms, q, rng, resamples):
    """The resampled quantiles, one by one."""
    draws = rng.integers(len(histograms), size=(resamples, len(histograms)))
    return sorted(quantile(merge([histograms[i] for i in row]), q) for row in draws)


def test_bootstrap_limits_are_resampled_quantiles():
    rng = np.random.default_rng(5)
    replications = [as_buckets(rng.exponential(20_000 * (1 + i % 3), 200).astype(int).tolist())[1] for i in range(8)]
    found = quantile_interval(replications, 0.9, np.random.default_rng(6), 0.9, 499)
    drawn = brute_bootstrap(replications, 0.9, np.random.default_rng(6), 499)
    tail = stats.norm.cdf(-math.sqrt(8 / 7) * stats.t.ppf(0.95, 7))  # Hesterberg's expanded percentiles
    first = math.floor(tail * 500) - 1
    assert (found.low, found.high) == (drawn[first], drawn[-1 - first])
    assert found == quantile_interval(replications, 0.9, np.random.default_rng(6), 0.9, 499)
    assert found != quantile_interval(replications, 0.9, np.random.default_rng(7), 0.9, 499)
    assert found.estimate == quantile(merge(replications), 0.9)


def test_order_statistics_are_scipys():
    values = np.arange(1, 201)
    found = order_statistics_interval([(int(v), int(v), 1) for v in values], 0.9)
    theirs = stats.quantile_test(values, q=180.5, p=0.9).confidence_interval(0.95)
    assert (found.low, found.high) == (theirs.low, theirs.high)


def test_stopping():
    wanted = Precision(0.1, least=5, most=40)
    assert progress([], wanted).more == 5
    assert progress([1.0, 1.1, 0.9], wanted).more == 2
    alike = progress([1.0, 1.01, 0.99, 1.0, 1.0], wanted)
    assert (alike.more, alike.reached) == (0, True)
    wide = [1.0, 3.0] * 5
    assert progress(wide, wanted).more == 10  # at most as many again
    assert progress(wide * 3, wanted).more == 10  # up to the most
    over = progress(wide * 4, wanted)
    assert (over.more, over.reached) == (0, False)
    edge = [1 + 0.13 * (-1) ** i for i in range(10)]
    assert 0.1 / 1.1 < t_interval(edge).relative < 0.1  # of the estimate it would do, of the truth it may not
    assert progress(edge, wanted).more == 2


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: t_interval([1.0]), "1 observations are too few; 2 are the least"),
        (lambda: t_interval([1.0, math.nan]), "what is no number"),
        (lambda: t_interval([[1.0, 2.0]]), "2 dimensions"),
        (lambda: t_interval([1.0, 2.0], 95), "a level of 95 is none"),
        (lambda: mser5([1.0] * 49), "49 observations are too few; 50 are the least"),
        (lambda: batch_means([1.0] * 100, 7), "7 batches are too few"),
        (lambda: paired_difference([1.0, 2.0], [1.0, 2.0, 3.0]), "2 and 3 replications make no pairs"),
        (lambda: paired_ratio([1.0, 2.0], [0.0, 2.0]), "figures above 0"),
        (lambda: merge([[(0, 4, 1)], [(2, 5, 1)]]), "buckets 0 to 4 and 2 on overlap"),
        (lambda: merge([[(0, 4, 1)], [(0, 5, 1)]]), "buckets 0 to 5 and 4 differ"),
        (lambda: quantile_interval([[]] * 5, 0.5, np.random.default_rng(1)), "nothing was counted"),
        (lambda: quantile([], 0.5), "nothing was counted"),
        (lambda: quantile(GEOMETRIC, 99), "a quantile of 99 is none"),
        (lambda: quantile_interval([GEOMETRIC] * 4, 0.5, np.random.default_rng(1)), "4 histograms are too few"),
        (lambda: Precision(0.0), "relative half width of 0.0"),
        (lambda: Precision(0.1, least=9, most=8), "at least 9 and at most 8"),
    ],
)
def test_what_cannot_be_computed_is_said(call, what):
    with pytest.raises(ValueError, match=what):
        call()
