"""Histograms against sorted values; series against their bound."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import int64

from sim.jit import entry
from sim.metrics.histogram import BUCKETS, PERCENTILES, TOP, Histogram, bucket_of, bucket_of_int, bucket_top
from sim.metrics.series import Series

VALUES = st.integers(0, 2**TOP - 1)


@entry(int64(int64))
def compiled_bucket(value):
    return bucket_of(value)


@given(VALUES)
def test_a_value_lies_in_its_bucket_which_is_a_thousandth_wide(value):
    bucket = bucket_of_int(value)
    assert bucket == compiled_bucket(value)
    low = bucket_top(bucket - 1) + 1 if bucket else 0
    assert low <= value <= bucket_top(bucket)
    assert bucket_top(bucket) - low <= value / 1024


def test_edges_of_the_range():
    assert [bucket_of_int(v) for v in (0, 1, 2047, 2048, 2049, 2050)] == [0, 1, 2047, 2048, 2048, 2049]
    assert bucket_of_int(2**TOP - 1) == BUCKETS - 1
    for beyond in (2**TOP, 2**62):
        assert bucket_of_int(beyond) == compiled_bucket(beyond) == BUCKETS - 1


@given(st.lists(VALUES, min_size=1, max_size=300))
def test_percentiles_are_those_of_the_sorted_values(values):
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    summary = histogram.summary()
    assert (summary.count, summary.total, summary.maximum) == (len(values), sum(values), max(values))
    ordered = sorted(values)
    for q, found in zip(PERCENTILES, summary.percentiles, strict=True):
        true = ordered[math.ceil(round(q * len(values), 6) / 100) - 1]
        assert true <= found <= true * (1 + 1 / 1024) + 1


def test_nothing_has_no_percentiles():
    summary = Histogram().summary()
    assert summary.count == summary.total == summary.maximum == summary.mean == 0
    assert set(summary.percentiles) == {0}


@pytest.mark.parametrize("steps", [5, 100, 12_345])
def test_a_series_keeps_rows_at_multiples_of_its_interval_and_is_bounded(steps):
    series = Series(("n",), 50, 10)
    time = 0
    for _ in range(steps):
        series.add(time, (time * 2,))
        time += series.interval - time % series.interval
    assert len(series.rows) < 100
    assert len(series.rows) >= min(steps, 50)
    times = np.array([row[0] for row in series.rows])
    assert (np.diff(times) == series.interval).all()
    assert all(row[1] == 2 * row[0] for row in series.rows)
