"""95 % intervals hold a known truth in 93 to 97 % of 1,000 trials on M/M/1, method by method; broken ones do not."""

import math

import numpy as np
import pytest

from experiments.stats.batches import batch_means
from experiments.stats.interval import t_interval, t_quantile
from experiments.stats.paired import paired_difference, paired_ratio
from experiments.stats.quantiles import merge, order_statistics_interval, quantile, quantile_interval
from experiments.stats.stopping import Precision, progress
from experiments.stats.warmup import mser5
from tests.experiments import mm1

TRIALS = 1000


def covers(share):
    """Whether a share of trials is within what 95 % intervals should reach."""
    return 0.93 <= share <= 0.97


def coverage(intervals, truth):
    return np.mean([one.holds(truth) for one in intervals])


def test_replications_of_a_transient():
    means = mm1.waits(np.random.default_rng(1), 60 * TRIALS, 200, 0.5, start=0).mean(axis=1).reshape(TRIALS, 60)
    assert covers(coverage(map(t_interval, means), mm1.mean_of_first(200, 0.5)))
    assert coverage(map(t_interval, means), mm1.mean_wait(0.5)) < 0.93  # it is not yet steady


def test_replications_after_warm_up_deletion():
    rng = np.random.default_rng(2)
    kept, whole, each, unsettled = [], [], [], 0
    for _ in range(TRIALS):
        waits = mm1.waits(rng, 20, 1000, 0.5, start=30)
        warm = mser5(waits.mean(axis=0))
        unsettled += not warm.settled
        kept.append(t_interval(waits[:, warm.cut :].mean(axis=1)))
        whole.append(t_interval(waits.mean(axis=1)))
        if len(each) < 100:
            each.append(t_interval([one[mser5(one).cut :].mean() for one in waits]))
    assert unsettled <= 0.01 * TRIALS
    assert covers(coverage(kept, mm1.mean_wait(0.5)))
    assert coverage(whole, mm1.mean_wait(0.5)) < 0.01  # nothing deleted
    assert coverage(each, mm1.mean_wait(0.5)) < 0.85  # each run's own large values deleted with its warm-up


def test_batch_means():
    rng = np.random.default_rng(3)
    runs = [mm1.waits(rng, 1, 20_000, 0.5)[0] for _ in range(TRIALS)]
    found = [batch_means(run) for run in runs]
    truth = mm1.mean_wait(0.5)
    assert covers(coverage((one.interval for one in found), truth))
    assert 0.93 <= np.mean([one.independent for one in found]) <= 0.97  # a test at 5 %
    assert coverage(map(t_interval, runs), truth) < 0.6  # as if customers were independent
    short = [batch_means(run[:400]) for run in runs]
    assert coverage((one.interval for one in short), truth) < 0.9
    tiny = [batch_means(run[:800], 200) for run in runs[:200]]
    assert np.mean([one.independent for one in tiny]) < 0.05  # found out


def test_pairs_under_common_random_numbers():
    rng = np.random.default_rng(4)
    load, faster, runs, customers = 0.5, 0.8, 20, 2000
    before, after = mm1.mean_wait(load), faster * mm1.mean_wait(faster * load)
    differences, ratios, apart = [], [], []
    for _ in range(TRIALS):
        services = rng.exponential(1.0, (runs, customers))
        gaps = rng.exponential(1 / load, (runs, customers))
        base, other = (
            mm1.walk(scale * services - gaps, np.zeros(runs))[:, 100:].mean(axis=1) for scale in (1.0, faster)
        )
        differences.append(paired_difference(base, other))
        ratios.append(paired_ratio(base, other))
        apart.append(welch(base, other))
    assert covers(coverage((one.interval for one in differences), after - before))
    assert covers(coverage((one.interval for one in ratios), after / before))
    assert 3 < np.median([one.saved for one in differences]) < 6
    assert np.median([one.saved for one in ratios]) > 15
    gap = after - before
    assert np.mean([abs(middle - gap) <= half for middle, half in apart]) > 0.99  # as if independent: twice too wide


def welch(base, other):
    """A difference of means as of independent samples of one size, and half of its interval's width."""
    error = math.sqrt((base.var(ddof=1) + other.var(ddof=1)) / len(base))
    return other.mean() - base.mean(), t_quantile(0.95, 2 * len(base) - 2) * error


def bucket(values):
    """Buckets of 1 %."""
    return np.floor(np.log(np.maximum(values, 0.01)) * 100).astype(int) + 500


def histograms(values):
    """A histogram of each row of sojourn times, by buckets."""
    found = bucket(values)
    width = found.max() + 1
    rows = np.bincount((found + width * np.arange(len(found))[:, None]).ravel(), minlength=width * len(found))
    rows = rows.reshape(len(found), width)
    return [np.column_stack([(at := row.nonzero()[0]), at, row[at]]) for row in rows]


@pytest.mark.parametrize("runs", [10, 1], ids=["replications", "batches of one run"])
def test_quantiles_of_merged_histograms(runs):
    rng = np.random.default_rng(5)
    truth = int(bucket(mm1.sojourn_quantile(0.95, 0.5)))
    found, alone = [], []
    for _ in range(TRIALS):
        sojourns = mm1.waits(rng, runs, 8000 // runs, 0.5) + rng.exponential(1.0, (runs, 8000 // runs))
        clusters = histograms(sojourns.reshape(10, 800))
        found.append(quantile_interval(clusters, 0.95, rng, resamples=199))
        if len(alone) < 200:
            alone.append(order_statistics_interval(merge(clusters), 0.95))
    assert covers(coverage(found, truth))
    assert coverage(alone, truth) < 0.8  # as if customers were independent


def test_a_mean_of_percentiles_is_something_else():
    rng = np.random.default_rng(6)
    truth = mm1.sojourn_quantile(0.99, 0.5)
    sojourns = mm1.waits(rng, 20 * TRIALS, 100, 0.5) + rng.exponential(1.0, (20 * TRIALS, 100))
    each = np.quantile(sojourns, 0.99, axis=1, method="inverted_cdf")
    assert each.mean() < 0.85 * truth  # 20,000 replications, and still far off
    assert coverage(map(t_interval, each.reshape(TRIALS, 20)), truth) < 0.3
    assert abs(quantile(merge(histograms(sojourns[:5000])), 0.99) - int(bucket(truth))) <= 2  # within 2 %


def test_quantiles_of_one_histogram_of_independent_values():
    rng = np.random.default_rng(7)
    values = rng.exponential(1.0, (TRIALS, 2000))
    found = [order_statistics_interval(one, 0.9) for one in histograms(values)]
    assert 0.95 <= coverage(found, int(bucket(math.log(10)))) <= 0.99  # at least 95 %: ranks and buckets are whole


def stopped(wanted, seed, size):
    """The intervals at which 1,000 sequences of replications stop."""
    pool = mm1.waits(np.random.default_rng(seed), size, 120, 0.3).mean(axis=1)
    found, at = [], 0
    for _ in range(TRIALS):
        n = 0
        while (now := progress(pool[at : at + n], wanted)).more:
            n += now.more
            assert at + n <= len(pool)
        assert now.reached
        at += n
        found.append(now.interval)
    return found


def test_sequential_stopping():
    found = stopped(Precision(0.08, least=20), seed=8, size=140_000)
    assert max(one.half_width / one.estimate for one in found) <= 0.08
    assert covers(coverage(found, mm1.mean_wait(0.3)))


def test_stopping_on_a_few_that_are_alike_by_chance():
    assert coverage(stopped(Precision(0.5, least=2), seed=9, size=20_000), mm1.mean_wait(0.3)) < 0.92
