"""Pages that the host has to bring, met by simulated calls: against a slow model of single pages, and theory."""

from types import SimpleNamespace

import numpy as np
import pytest

from experiments.validate_figures import Row
from experiments.validate_memory import (
    NONE,
    Pages,
    Withheld,
    Writes,
    longer,
    marked_longer,
    pages_of,
    together,
    unpriced,
    withheld,
)
from sim.costs import CELLS, Price
from sim.metrics.histogram import BUCKETS, bucket_of_int, bucket_top

US = 1_000_000  # picoseconds
HOST = Withheld(Writes(1_000, np.full(50, 100_000.0)), Writes(100_000, np.linspace(80_000, 180_000, 200)))


def histogram(calls):
    """Counts of calls, given as {picoseconds: how many}."""
    counts = np.zeros(BUCKETS, np.int64)
    for value, many in calls.items():
        counts[bucket_of_int(value)] += many
    return counts


def row(calls):
    return Row(histogram(calls), sum(value * many for value, many in calls.items()), max(calls))


def causes(**given):
    return {cause: histogram(given.get(cause, {})) for cause in ("zero", "first_touch", "assist")}


def met(**given):
    """Pages of a run, none of what is not given."""
    none = dict.fromkeys(("cleared", "assisted", "marked", "fresh", "fresh_by_program"), 0.0)
    return Pages(**none | given)


def above(counts, threshold):
    return int(counts[bucket_of_int(threshold) + 1 :].sum())


def cleared_page_by_page(sizes, seed):
    """What each malloc of some sizes waits for, in nanoseconds: each page it is the first to write to is missing or not."""
    random = np.random.default_rng(seed)
    ends = np.cumsum(sizes)
    begun = (ends - 1) // 4096 - (ends - sizes - 1) // 4096
    waits = np.zeros(len(sizes))
    for i in np.flatnonzero(begun):
        missing = random.random(begun[i]) < HOST.old.share
        waits[i] = random.choice(HOST.old.long_ns, missing.sum()).sum()
    return waits


def test_calls_meet_missing_pages_as_those_of_a_slow_model_do():
    """64 B, 512 B and 8 KiB are cleared in any order, at 16 B/ns: which are hit, how many are how long, their sum."""
    many = {64: 64_000, 512: 16_000, 8192: 2_000}
    sizes = np.random.default_rng(1).permutation(np.repeat(list(many), list(many.values())))
    slow = [cleared_page_by_page(sizes, seed) for seed in range(20)]
    took = {size: 1000 * size // 16 for size in many}
    calls = row({10_000 + took[size]: n for size, n in many.items()})
    zero = {took[size]: n for size, n in many.items()}
    pages = met(cleared=sizes.sum() / 4096)
    ours = [withheld(calls, causes(zero=zero), pages, HOST, seed) for seed in range(20)]
    assert all(one.counts.sum() == len(sizes) for one in ours)
    for size in many:
        bucket = bucket_of_int(10_000 + took[size])
        hit = np.mean([calls.counts[bucket] - one.counts[bucket] for one in ours])
        theirs = np.mean([(waits[sizes == size] > 0).sum() for waits in slow])
        assert hit == pytest.approx(theirs, rel=0.25, abs=0.5)
    for threshold in (50, 100, 150):
        theirs = np.mean([(waits > 1000 * threshold).sum() for waits in slow])
        assert np.mean([above(one.counts, threshold * US) for one in ours]) == pytest.approx(theirs, rel=0.25)
    gained = np.mean([1000 * waits.sum() for waits in slow])
    assert np.mean([one.total - calls.total for one in ours]) == pytest.approx(gained, rel=0.15)


def test_fresh_pages_are_as_those_first_written_to_and_the_sum_is_theirs():
    calls = row({50_000: 100_000, 2 * US: 1_000})
    pages = met(fresh=2_000.0, fresh_by_program=9_000.0)
    seen = withheld(calls, causes(first_touch={2 * US: 1_000}), pages, HOST, 3)
    hit = above(seen.counts, 50 * US)
    assert hit == pytest.approx(2_000 * 0.05, abs=4 * 10)  # four deviations
    assert calls.counts[bucket_of_int(2 * US)] - seen.counts[bucket_of_int(2 * US)] == hit
    assert seen.total - calls.total == hit * 100 * US
    assert seen.maximum == bucket_top(bucket_of_int(2 * US)) + 100 * US


def test_an_assist_is_as_long_as_it_marks_missing_pages():
    """Each marks 16 pages in 30 us; the longer ones of 60 us twice as many, and so are hit twice as often."""
    random = np.random.default_rng(5)
    marks = {30 * US: (20_000, 16), 60 * US: (5_000, 32)}
    calls, assist = row({10_000: 10**6} | {took: n for took, (n, _) in marks.items()}), {took: n for took, (n, _) in marks.items()}
    pages = met(assisted=float(sum(n * each for n, each in marks.values())))
    seen = [withheld(calls, causes(assist=assist), pages, HOST, seed) for seed in range(10)]
    for took, (n, each) in marks.items():
        slow = np.mean([(random.binomial(each, HOST.old.share, n) > 0).sum() for _ in range(10)])
        hit = np.mean([calls.counts[bucket_of_int(took)] - one.counts[bucket_of_int(took)] for one in seen])
        assert hit == pytest.approx(slow, rel=0.1)
    assert all((one.counts - calls.counts)[: bucket_of_int(20 * US)].sum() == 0 for one in seen), "no other call is"


def test_marking_takes_as_much_longer_as_its_pages_are_missing():
    """Of a million pages marked in a second two in a thousand are missing, for 130 us."""
    assert marked_longer(1e9, met(marked=1e6), HOST) == pytest.approx(1 + 1e6 * 0.002 * 130_000 / 1e9)
    assert marked_longer(0.0, met(), HOST) == 1


def test_same_seed_same_calls():
    calls, zero = row({50_000: 100_000}), causes(zero={20_000: 100_000})
    pages = met(cleared=50_000.0)
    first, again, other = (withheld(calls, zero, pages, HOST, seed) for seed in (1, 1, 2))
    assert (first.counts == again.counts).all() and first.total == again.total
    assert (first.counts != other.counts).any()


@pytest.mark.parametrize("host", [Withheld(NONE, NONE), Withheld(Writes(9, np.zeros(0)), Writes(99, np.zeros(0)))])
def test_a_host_that_lacks_nothing_changes_nothing(host):
    calls = row({50_000: 100, 70_000: 1})
    pages = met(cleared=5e6, assisted=5e6, marked=9e6, fresh=5e6, fresh_by_program=5e6)
    seen = withheld(calls, causes(zero={20_000: 100}, first_touch={1_000: 5}, assist={30_000: 9}), pages, host, 1)
    assert (seen.counts == calls.counts).all() and (seen.total, seen.maximum) == (calls.total, calls.maximum)
    assert longer(1e9, 5e8, pages, host, 0.0, 1) == 1e9
    assert marked_longer(1e9, pages, host) == 1


def test_what_several_looks_showed_is_as_one():
    found = together([HOST, Withheld(Writes(3_000, np.full(10, 200_000.0)), NONE)])
    assert found.fresh.share == 60 / 4_000
    assert found.fresh.mean == (50 * 100_000 + 10 * 200_000) / 4_000
    assert found.old.share == HOST.old.share
    assert found.to_dict()["fresh"] == {"pages": 4_000, "share": 0.015, "p50_us": 100, "p99_us": 200}


def test_a_wait_of_one_of_two_goroutines_is_half_a_wait_of_the_run():
    """For 180 fresh pages of 5 us each (a twentieth takes 100 us longer) and 1000 read in assists, of 0.1 us each (a
    thousandth takes 100 us longer), goroutines wait a millisecond in all."""
    host = Withheld(HOST.fresh, Writes(1_000, np.full(1, 100_000.0)))
    pages = met(marked=9_000.0, assisted=1_000.0, fresh=150.0, fresh_by_program=30.0)
    assert longer(9e6, 4e6, pages, host, 0.0, 1) == pytest.approx(10e6)
    assert longer(9e6, 4e6, pages, host, 0.0, 2) == pytest.approx(9.5e6)
    assert longer(9e6, 4e6, pages, host, 0.2, 1) == pytest.approx(11e6)  # a fifth of 5 ms it does not run


def test_long_touches_that_the_price_has_are_not_told_twice():
    """Fresh pages take 5 us longer in the mean; two values of the price's 1024 are 256 and 1280 us: 1.5 us of it."""
    cells = (1_300_000,) * (CELLS - 3) + (15 * US, 257_300_000, 1_281_300_000)
    assert unpriced(HOST.fresh, Price(0, cells)) == pytest.approx(1 - 1.5 / 5)
    assert unpriced(HOST.fresh, Price(1_300_000)) == 1
    assert unpriced(Writes(1_000, np.full(1, 100_000.0)), Price(0, cells)) == 0
    assert unpriced(NONE, Price(0, cells)) == 0


def test_pages_of_a_run():
    """4000 mallocs of 1 MiB together fill 300 spans, the less; three in four clear."""
    latency = {"all": 4_000, "zero": 3_000, "refill_partial": 100, "refill_fresh": 200}
    result = SimpleNamespace(
        latency={cause: SimpleNamespace(count=n, total=0) for cause, n in latency.items()}
        | {"first_touch": SimpleNamespace(count=100)},
        memstats={"TotalAlloc": 1 << 20},
        metrics={
            "/sim/heap/resident:bytes": 400 * 4096,
        },
        cycles=[
            SimpleNamespace(heap_scan_work=n * 4096, assist_time=a, dedicated_time=d, fractional_time=0, idle_time=i)
            for n, a, d, i in ((300, 10, 20, 10), (100, 0, 40, 0))
        ],
    )
    found = pages_of(result, 0.5)
    assert found == Pages(cleared=0.75 * 600, assisted=400 * 10 / 80, marked=400, fresh=50.0, fresh_by_program=150.0)
    result.memstats["TotalAlloc"] = 40 << 20
    assert pages_of(result, 1.0).cleared == 0.75 * 10_240
