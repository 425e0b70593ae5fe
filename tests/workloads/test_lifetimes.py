"""The estimate of lifetimes against a known distribution of which only intervals are told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.lifetimes import between, estimate

N = 20_000


def censored(lives, ages):
    """The intervals that looking at some ages tells of lives: those beyond the last age are alive still."""
    at = np.searchsorted(ages, lives)
    low = np.append(0, ages)[at]
    return low, np.append(ages, -1)[at]


@pytest.mark.parametrize("mean", [3_000, 200_000])
def test_a_distribution_is_found_again_at_the_ages_that_objects_were_looked_at(mean):
    """Each object is looked at at three ages of its own, as marks come at any age."""
    rng = np.random.default_rng(1)
    lives = rng.exponential(mean, N).astype(np.int64) + 1
    looks = np.sort(rng.integers(1, 6 * mean, (N, 3)), axis=1)
    bounds = [censored(life, ages) for life, ages in zip(lives, looks, strict=True)]
    low, high = (np.array(column) for column in zip(*bounds, strict=True))
    found = estimate(low, high)
    for age in (mean // 4, mean, 3 * mean):
        truth = 1 - np.exp(-age / mean)
        assert np.interp(age, found.edges, found.share) == pytest.approx(truth, abs=0.03)


def test_drawn_lives_are_distributed_as_the_true_ones_though_each_interval_is_wide():
    """Half of all objects live for 1 KB, half for 1 MB, and every one is looked at once: uniform draws would not tell."""
    rng = np.random.default_rng(2)
    lives = np.where(rng.random(N) < 0.5, 1_000, 1_000_000)
    looks = np.exp(rng.uniform(np.log(100), np.log(4_000_000), N)).astype(np.int64)
    low, high = np.where(lives > looks, looks, 0), np.where(lives > looks, -1, looks)
    found = estimate(low, high)
    died = high >= 0
    drawn = found.draw(low[died], high[died], rng.random(int(died.sum())))
    long = high[died] > 1_300_000
    assert (drawn[long] < 2_000).mean() == pytest.approx((lives[died][long] == 1_000).mean(), abs=0.05)
    uniform = low[died] + (high - low)[died] * rng.random(int(died.sum()))
    assert (uniform[long] < 2_000).mean() < 0.01


def test_where_nothing_is_told_ages_are_uniform_by_their_logarithm():
    found = estimate(np.zeros(10, np.int64), np.full(10, 1 << 20))
    octaves = np.diff(np.interp([1 << n for n in range(8, 20)], found.edges, found.share))
    assert octaves == pytest.approx(np.full(11, octaves[0]), rel=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40)), min_size=1, max_size=30),
    st.lists(st.booleans(), min_size=30, max_size=30),
    st.floats(0, 1, exclude_max=True),
)
def test_draws_lie_in_their_intervals(pairs, alive, uniform):
    low = np.array([min(pair) for pair in pairs])
    high = np.array([max(pair) for pair in pairs])
    found = estimate(low, np.where(alive[: len(pairs)], -1, high))
    assert np.all(np.diff(found.share) >= 0) and found.share[-1] <= 1 + 1e-9
    drawn = found.draw(low, high, np.full(len(pairs), uniform))
    assert np.all((low <= drawn) & (drawn <= high))


def test_between_is_linear_and_ends_at_the_ends():
    xs, ys = np.array([0, 10, 20, 20, 40]), np.array([0.0, 1.0, 1.0, 3.0, 5.0])
    at = np.array([-5, 0, 5, 10, 15, 20, 30, 40, 99])
    assert between(at, xs, ys).tolist() == [0, 0, 0.5, 1, 1, 3, 4, 5, 5]
