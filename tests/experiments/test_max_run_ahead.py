"""How far a P may run ahead of the others is no parameter of the model: halving it moves nothing that a run tells of malloc.

Replications: as many seeds, each run with the bound and with its half on the same draws. A quantity's mean difference
has a t-interval over these pairs. The statement is of all quantities of all scenarios at once, so each interval has
the level that Bonferroni asks of it. It holds where every interval holds zero, where no difference is larger than two
intervals of the quantity itself, and where the intervals are narrow enough to say something: two tests show what else
they would have found.

What the bound does move is told here too: an allocating P stops at the end of its segment, so a pause depends on what
is left of one, up to the bound. It is 10 us long.
"""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import t

import experiments.run
from experiments.machine import load_machine
from experiments.run import run
from sim.costs import Price
from sim.jit import PLAIN
from sim.metrics.histogram import PERCENTILES
from sim.units import NS, US
from workloads.scenario import load

pytestmark = pytest.mark.skipif(PLAIN, reason="tens of millions of mallocs")

SEEDS = range(1, 13)
RUNS = {"cache-eviction": ("mallocs=400000",), "api-service": ("duration=100ms",), "batch-worker": ("mallocs=600000",)}
"""Scenarios of 4, 4 and 8 Ps that collect: a closed loop of old garbage, an open loop, a closed one of young garbage."""
TAILS = tuple(q for q in PERCENTILES if q <= 99.9)
QUANTITIES = (*(f"p{q:g}" for q in TAILS), "throughput", "peak heap")
LEVEL = 0.05 / (len(RUNS) * len(QUANTITIES))
NARROW = (0.002, 0.002, 0.08, 0.22, 0.07, 0.06)
"""Half widths of the differences' intervals at most, of the mean: the 99.9th percentile of batch-worker lies where those
who touch fresh memory end and those who get more of it begin, and scatters by a tenth from seed to seed. Who comes last to a stop decides who sleeps, and wakes when: from then
on two runs on the same draws go their own ways."""
FACTOR = t.ppf(1 - LEVEL / 2, len(SEEDS) - 1)
BUCKET = 2.0**-10  # of a value: the resolution of a percentile


def replications(name, *sets):
    """Runs of a scenario: quantities by seed, and the median pause of each, picoseconds."""
    rows, pauses = [], []
    for seed in SEEDS:
        result = run(load(name, (*RUNS[name], *sets), seed))
        assert len(result.cycles) >= 7
        whole = result.latency["all"]
        assert whole.count > 2 / (1 - TAILS[-1] / 100), "there is something above the last percentile"
        figures = (result.metrics["/sim/throughput:mallocs-per-second"], result.metrics["/sim/heap/peak:bytes"])
        rows.append((*whole.percentiles[: len(TAILS)], *figures))
        pauses.append(result.metrics["/gc/pauses:seconds/p50"] * 1e12)
    return np.array(rows, float), np.array(pauses)


def half_width(samples):
    """Half of the t-interval of each quantity's mean."""
    return FACTOR * samples.std(axis=0, ddof=1) / len(samples) ** 0.5


def moved(before, after):
    """The quantities whose mean differs between runs on the same seeds, as the pairs tell it."""
    difference = after - before
    real = np.abs(difference.mean(axis=0)) > np.maximum(half_width(difference), BUCKET * before.mean(axis=0))
    return {name for name, found in zip(QUANTITIES, real, strict=True) if found}


@pytest.fixture(scope="module")
def whole():
    """Replications of every scenario with the bound as it is by default, made once."""
    return {name: replications(name, "max_run_ahead=1us") for name in RUNS}


@pytest.mark.parametrize("name", RUNS)
def test_halving_it_moves_nothing_of_malloc_by_more_than_its_confidence_interval(whole, name):
    assert load(name).max_run_ahead_ps == 1 * US, "the bound that is halved is the one that runs have"
    (before, long), (after, short) = whole[name], replications(name, "max_run_ahead=500ns")
    assert moved(before, after) == set()
    scale = before.mean(axis=0)
    difference = np.abs((after - before).mean(axis=0))
    assert (difference <= np.maximum(2 * half_width(before), BUCKET * scale)).all(), difference / scale
    assert (half_width(after - before) < NARROW * scale).all(), half_width(after - before) / scale
    assert abs((short - long).mean()) < 500 * NS + half_width(short - long), "by how much the bounds differ at most"


def test_a_bound_a_hundred_times_larger_would_be_found(whole):
    before, _ = whole["batch-worker"]
    after, _ = replications("batch-worker", "max_run_ahead=100us")
    assert moved(before, after)


def test_prices_of_hits_a_tenth_higher_would_be_found(whole, monkeypatch):
    def dearer(*which):
        prices = load_machine(*which)
        heaps, small = ([dearer_hits(heap) for heap in each] for each in (prices.heaps, prices.small_heaps))
        return replace(prices, fast=more(prices.fast), heaps=heaps, small_heaps=small)

    def dearer_hits(heap):
        names = ("hit", "hit_some", "hit_few", "marking", "marking_next", "marking_empty")
        dearer = {
            name: tuple(Price(one.mean * 11 // 10, one.cells and more(one.cells)) for one in getattr(heap, name)) for name in names
        }
        return replace(heap, zero=more(heap.zero), **dearer)

    def more(prices):
        return tuple(price * 11 // 10 for price in prices)

    monkeypatch.setattr(experiments.run, "load_machine", dearer)
    before, _ = whole["batch-worker"]
    after, _ = replications("batch-worker", "max_run_ahead=1us")
    assert {"p50", "p90"} <= moved(before, after)


def test_a_quantity_that_does_not_move_is_not_found(whole):
    """And one shifted by twice its bucket in every pair is, however small that is."""
    before, _ = whole["api-service"]
    assert moved(before, before) == set()
    assert moved(before, before * (1 + 2 * BUCKET)) == set(QUANTITIES)
