"""Mallocs of a program that does other things between them: by hand from rows of one's own, and what a file without some does."""

import itertools
import re
from dataclasses import replace
from fractions import Fraction

import pytest

from experiments.errors import InputError
from experiments.machine import derive, load_machine
from experiments.machine_file import ALONE, Reading, Table, parse_machine, read_machine, text_of
from experiments.machine_gc import noted, stopped
from experiments.machine_mixed import mixed, one_allocates, swept
from experiments.machine_small import small_heaps
from sim.go.sizeclasses import class_to_size
from tests.experiments.test_machine import CLASS, objects_per_span, span_costs

HEAPS = ((4, 1), (4, 2))
HIT = 0.99 * 240 + 0.01 * 900  # of 4096 bytes in the mean, ns
FRESH = {8192: Fraction(200), 32768: Fraction(300)}  # of a fresh span with one slot, ns


def row(p10, p50, p90, p99, mean99):
    return readings(p10=p10, p50=p50, p90=p90, p99=p99, mean99=mean99)


def readings(**given):
    return {name: Reading(*3 * (Fraction(one),)) for name, one in given.items()}


def near_and_far(rows):
    return Table("m.toml: refilled_near", "s", "ns", {key: readings(**row) for key, row in rows.items()})


def tables(without=()):
    hits = {64: row(10, 20, 40, 120, 25), 4096: row(100, 200, 400, 900, 240), 8192: row(1, 1, 1, 1, 1)}
    calls = {64: row(210, 320, 640, 1020, 365), 4096: row(400, 600, 900, 1900, 650)}
    calls |= {8192: row(700, 900, 1500, 2900, 1000), 32768: row(2700, 3000, 4500, 9900, 3200)}
    found = {}
    for name, sizes in (("hit", hits), ("refilled", calls)):
        keys = {(size, "scan", *heap): one for size, one in sizes.items() for heap in HEAPS}
        found[name] = Table(
            f"m.toml: {name}", "s", "ns", {key: one for key, one in keys.items() if (name, *key) not in without}
        )
    return found


def derived(procs=2, without=()):
    return mixed(tables(without), "scan", 4, procs, FRESH.get)


def test_the_last_hundredth_counts_at_least_as_its_first():
    """The mean of the others alone would lack what only few calls take."""
    found = derived()
    assert found.hits[64].mean == round(1000 * (0.99 * 25 + 0.01 * 120))
    assert found.refills[64].mean == round(1000 * (0.99 * (365 - 25) + 0.01 * (1020 - 120)))
    assert found.hits[64].cells[512] == pytest.approx(20_000, rel=0.01)


def test_a_malloc_that_refills_takes_as_long_as_timed_a_hit_in_the_mean_and_its_refill():
    """A malloc that refills pays the mean of hits, whatever of the refills' quantiles it meets."""
    found = derived()
    for size, timed in ((64, 320), (4096, 600)):
        assert found.hits[size].mean + found.refills[size].cells[512] == pytest.approx(1000 * timed, rel=0.01)


def test_calls_for_one_slot_are_no_hits_and_their_fresh_span_is_paid_apart():
    found = derived()
    whole = 0.99 * 1000 + 0.01 * 2900
    added = 0.99 * (650 - 240) + 0.01 * (1900 - 900)
    assert set(found.refills) == {64, 4096} and set(found.singles) == set(FRESH)
    assert found.singles[8192].mean == round(1000 * (whole - 200))
    assert found.hits[8192].mean == round(1000 * (whole - added)), "the right end of the line for classes of some slots"
    assert found == derived(without=[("hit", 8192, "scan", 4, 2)]), "a row of hits for one slot is nothing"


def test_hits_while_the_collector_marks_are_as_timed_and_those_of_one_slot_as_others():
    found = tables()
    found["hit_marking"] = Table("m.toml: hit_marking", "s", "ns", {(64, "scan", 4, 2): row(20, 60, 90, 300, 70)})
    marking = mixed(found, "scan", 4, 2, FRESH.get).marking
    assert marking[64].mean == round(1000 * (0.99 * 70 + 0.01 * 300)) and marking[64].cells[512] == pytest.approx(60_000, rel=0.01)
    assert marking[8192] == derived().hits[8192] and set(marking) == {64, 8192, 32768}
    assert not derived().marking, "a file without such calls"


def test_missing_rows_are_those_of_fewer_ps():
    found = derived(without=[("refilled", 32768, "scan", 4, 2), ("hit", 64, "scan", 4, 2)])
    assert found.borrowed == {64: 1, 32768: 1}
    assert found.singles == derived().singles and found.hits == derived().hits


def test_hits_are_told_apart_by_what_lies_between_as_far_as_they_were_timed():
    found = tables()
    key = 64, "scan", 4, 2
    rows = {(*key, "to 7 others"): row(9, 11, 15, 80, 12), (*key, "more others"): row(12, 25, 60, 200, 35)}
    found["hit_after"] = Table("m.toml: hit_after", "s", "ns", rows)
    found["hit_marking"] = Table("m.toml: hit_marking", "s", "ns", {key: row(20, 60, 90, 300, 70)})
    mine = mixed(found, "scan", 4, 2, FRESH.get)
    assert [mine.few[64].cells[512], mine.some[64].cells[512], mine.hits[64].cells[512]] == pytest.approx([11e3, 20e3, 25e3], rel=0.01)
    assert mine.next[64] == mine.marking[64] and mine.few[4096] == mine.hits[4096] == derived().hits[4096]
    assert mine.refills[64].mean == round(1000 * (0.99 * (365 - 35) + 0.01 * (1020 - 200))), "a new span is none of the last"
    assert not derived().few and not derived().next, "a file without such calls"


def test_hits_from_spans_that_came_back_empty_are_as_timed_and_missing_ones_as_others():
    found, key = tables(), (64, "scan", 4, 2)
    rows = {(*key, "marking, empty span"): row(20, 30, 90, 300, 50), (*key, "marking, empty span to 7 others"): row(20, 25, 60, 200, 35)}
    found["hit_after"] = Table("m.toml: hit_after", "s", "ns", rows)
    mine = mixed(found, "scan", 4, 2, FRESH.get)
    assert [mine.empty[64].cells[512], mine.empty_few[64].cells[512]] == pytest.approx([30e3, 25e3], rel=0.01)
    assert not derived().empty and mine.hits == derived().hits


def test_a_program_of_small_types_has_hits_of_its_own_up_to_their_size():
    named = load_machine("xeon-2core", "go1.27")
    heap = replace(next(one for one in named.heaps if one.procs == 2 and one.allocate == 0), nbytes=4 << 20)
    rows = {(size, kind, 4, 2, "small, to 7 others"): row(1, 2, 3, 4, 2) for size in (8, 64) for kind in ("scan", "noscan")}
    fresh = {(64, "noscan", 4, 2): row(400, 702, 900, 1902, 802)}
    told = {"hit_after": rows, "refilled_fresh_small": fresh}
    timed = {name: Table(f"m.toml: {name}", "s", "ns", one) for name, one in told.items()}
    (small,) = small_heaps(timed, [heap, replace(heap, nbytes=32 << 20)])
    own = [spc for spc, price in enumerate(small.hit_few) if price.cells and price.cells[512] == pytest.approx(2000, rel=0.01)]
    assert own == [spc for spc in range(2, 136) if class_to_size[spc >> 1] <= 64]
    assert small.refill_fresh[0::2] == heap.refill_fresh[0::2] and small.refill_fresh[20:] == heap.refill_fresh[20:]
    assert [one.cells[512] for one in small.refill_fresh[3:14:2]] == pytest.approx([700_000] * 6, rel=0.01)
    assert small.hit == heap.hit and small.hit_few[0] == heap.hit_few[0] and small.hit_few[20:] == heap.hit_few[20:]
    assert not small_heaps(tables(), [heap]), "a file without such calls"


def test_refills_with_fresh_spans_take_what_is_more_than_a_hit_and_those_of_fewer_ps_stand_for_missing_ones():
    found = tables()
    found["refilled_fresh"] = Table("m.toml: refilled_fresh", "s", "ns", {(4096, "scan", 4, 1): row(600, 900, 1500, 3000, 1000)})
    mine = mixed(found, "scan", 4, 2, FRESH.get)
    assert set(mine.fresh) == {4096} and mine.fresh[4096].cells[512] == pytest.approx(1000 * (900 - HIT), rel=0.01)
    assert mine.fresh[4096].mean == round(1000 * (0.99 * (1000 - 240) + 0.01 * (3000 - 900)))
    assert mine.refills == derived().refills and not derived().fresh, "a file without such calls"


def test_refills_that_sweep_their_span_are_dearer_by_what_the_nearest_size_on_the_most_ps_tells():
    found = tables()
    rows = {(4096, "scan", 4, procs): row(500, 700 + 50 * procs, 1100, 1900, 800) for procs in (1, 2)}
    rows[64, "scan", 32, 1] = rows[64, "noscan", 4, 1] = row(9000, 9000, 9000, 9000, 9000)  # another heap, another kind
    found["refilled_unswept"] = Table("m.toml: refilled_unswept", "s", "ns", rows)
    mine = mixed(found, "scan", 4, 2, FRESH.get)
    swept_first = 700 + 50 * 2 - 600  # more than a refill from a swept span
    refilled = [320 - (0.99 * 25 + 0.01 * 120), 600 - HIT]
    assert [mine.unswept[size].cells[512] for size in (64, 4096)] == pytest.approx(
        [1000 * (one + swept_first) for one in refilled], rel=0.01
    )
    assert mixed(found, "scan", 4, 1, FRESH.get).unswept[64].cells[512] == pytest.approx(1000 * (refilled[0] + 150), rel=0.01)
    assert set(mine.unswept) == set(mine.refills) and mine.refills == derived().refills
    assert not derived().unswept, "a file without such calls"


def test_refills_near_the_last_span_are_shares_of_those_that_are_not_and_of_fewer_ps_where_those_are_missing():
    found = tables()
    rows = {
        (64, "scan", 4, 1): {"near": 26, "far": 126},
        (4096, "scan", 4, 1): {"near": 1246, "far": 2246},
        (4096, "scan", 4, 2): {"near": 746, "far": 1246},
    }
    found["refilled_near"] = near_and_far(rows)
    near = mixed(found, "scan", 4, 2, FRESH.get).near
    hits = [0.99 * 25 + 0.01 * 120, HIT]
    assert [float(near[size]) for size in (64, 4096)] == pytest.approx([(26 - hits[0]) / (126 - hits[0]), (746 - hits[1]) / (1246 - hits[1])])
    assert not derived().near, "a file without such calls"
    alone = {ALONE[name]: found[name] for name in ("hit", "refilled")}
    assert mixed(one_allocates(found | alone), "scan", 4, 2, FRESH.get).near == near, "of one goroutine it was not told apart"
    found["refilled_near"] = near_and_far({(64, "scan", 4, 1): {"near": 1, "far": 2}})
    assert mixed(found, "scan", 4, 2, FRESH.get).near == {64: 1}, "no refill takes less than nothing"


def test_of_one_goroutine_on_several_ps_what_is_missing_is_as_on_one_but_for_sweeping():
    found = tables()
    alone = row(30, 40, 50, 60, 45)
    for name in ("hit", "refilled"):
        found[f"{name}_alone"] = Table(f"m.toml: {name}_alone", "s", "ns", {(64, "scan", 4, 2): alone})
    kept = {procs: {("next", "kept", 4, procs): row(10 * procs, 20, 40, 120, 25)} for procs in (1, 2)}
    found["swept"] = Table("m.toml: swept", "s", "ns", kept[1])
    assert one_allocates(tables()) == {}, "a file without"
    found["swept_alone"] = Table("m.toml: swept_alone", "s", "ns", kept[2])
    own = one_allocates(found)
    mine = mixed(own, "scan", 4, 2, FRESH.get)
    assert mine.hits[64].cells[512] == pytest.approx(40_000, rel=0.01) and derived().hits[64].cells[512] < 25_000
    assert mine.hits[4096] == derived(procs=1).hits[4096] and mine.borrowed == {4096: 1, 8192: 1, 32768: 1}
    assert own["swept"].rows == kept[2]


def test_refills_of_the_smallest_slots_may_be_too_few():
    rows = tables(without=[("refilled", 64, "scan", 4, procs) for procs in (1, 2)])
    elsewhere = {(64, "scan", 32, 1): row(210, 320, 640, 1020, 365)}
    rows["refilled"] = Table("m.toml: refilled", "s", "ns", {**rows["refilled"].rows, **elsewhere})
    found = mixed(rows, "scan", 4, 2, FRESH.get)
    assert set(found.refills) == {4096} and found.hits == derived().hits and not found.borrowed


@pytest.mark.parametrize("table", ["hit", "refilled"])
def test_a_size_without_rows_on_one_p_is_refused_in_a_line(table):
    key = (4096, "scan", 4, 1)
    with pytest.raises(InputError, match=rf"^m.toml: {table} has no row 4096, scan, 4, 1; prices are derived from it$"):
        derived(procs=1, without=[(table, *key)])


def test_a_heap_whose_pauses_were_not_measured_has_those_of_a_smaller_one():
    paused = Table(
        "m.toml: paused", "s", "us", {(mib,): {"both": Reading(*3 * (Fraction(us),))} for mib, us in ((4, 8), (64, 20))}
    )
    assert [stopped(paused, mib) for mib in (2, 4, 32, 64, 256)] == [
        4_000_000,
        4_000_000,
        4_000_000,
        10_000_000,
        10_000_000,
    ]
    assert stopped(None, 4) is None


def test_what_the_write_barrier_takes_is_that_of_the_nearest_smaller_heap_on_as_many_ps():
    told = {(4, 1): 5, (256, 1): 27, (4, 2): 10, (32, 2): -1}
    rows = {key: {"note": Reading(*3 * (Fraction(ns),))} for key, ns in told.items()}
    barrier = Table("m.toml: write_barrier", "s", "ns", rows)
    assert [noted(barrier, mib, 1) for mib in (2, 4, 32, 256, 512)] == [5000, 5000, 5000, 27000, 27000]
    assert [noted(barrier, mib, 2) for mib in (4, 32)] == [10_000, 0]
    assert noted(barrier, 4, 4) == noted(None, 4, 1) == 0, "nobody measured it"


# --- the file that comes with the program ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prices():
    return {version: load_machine("xeon-2core", version) for version in ("go1.19", "go1.27")}


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
def test_prices_add_up_to_the_loops_of_small_heaps(prices, version):
    """Every size, 32 KiB too, which go1.27 serves as a large object: in a heap of 4 MiB it is cleared in the cache."""
    mine = prices[version]
    heaps = {heap.nbytes >> 20: heap for heap in mine.heaps if heap.procs == 1}
    for (size, kind, mib), measured in read_machine("xeon-2core").tables[version]["warm"].rows.items():
        if size == 8 and kind == "noscan":
            continue  # tiny
        sizeclass, npages, *_ = CLASS[size]
        n, spc = objects_per_span(version, size, kind), 2 * sizeclass + (kind == "noscan")
        recycled, _ = span_costs(mine, version, size, npages, n, kind)
        zero = heaps[mib].zero[spc] / 1000
        predicted = mine.fast[spc] / 1000 + zero + (mine.refill_fresh[spc].mean / 1000 + recycled) / n
        assert zero == 0 or predicted == pytest.approx(float(measured["loop"].median), rel=0.001), (size, kind, mib)


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
@pytest.mark.parametrize("kind", [0, 1])
def test_larger_slots_and_larger_heaps_are_never_cheaper(prices, version, kind):
    """But for noise, up to a quarter of it between heaps that are measured minutes apart. Slots that are alone in their spans are another line."""
    several = [i for i in range(2, 68) if CLASS[int(class_to_size[i])][4 - kind if version == "go1.27" else 2] > 1]
    for heap in prices[version].heaps:
        means = [heap.hit[2 * i + kind].mean for i in several]
        assert all(one > 0 for one in means) and all(b > 0.7 * a for a, b in itertools.pairwise(means)), heap.procs
    by_procs = [
        [heap for heap in prices[version].heaps if (heap.procs, heap.allocate) == which] for which in ((1, 0), (2, 0), (2, 1))
    ]
    assert len({len(heaps) for heaps in by_procs}) == 1
    for heaps in by_procs:
        for small, large in itertools.pairwise(heaps):
            for spc in range(4, 136):
                assert large.hit[spc].mean > 0.7 * small.hit[spc].mean, (spc, small.nbytes, large.nbytes)
                assert large.zero[spc] >= 0.7 * small.zero[spc], (spc, small.nbytes, large.nbytes)
                before, after = (one.hit[spc].mean + one.refill_partial[spc].mean for one in (small, large))
                assert after > 0.7 * before, "of what was timed, refills are differences"


def test_what_stands_for_rows_that_are_missing_is_said(prices):
    text, path = text_of("xeon-2core")
    rows = [line for line in text.splitlines() if not re.match(r" +\[32768, \"\w+\", 256, 2,", line)]
    found = derive(parse_machine("\n".join(rows), path), "go1.27")
    assert {name: why for name, why in found.assumed.items() if name.startswith("malloc")} == {
        f"malloc 32768 B {kind}, 256 MiB, 2 Ps{who}": "too few calls were timed: as on 1"
        for kind in ("scan", "noscan")
        for who in ("", ", one goroutine")
    }
    one, two = (heap for heap in found.heaps if heap.nbytes == 256 << 20 and not heap.allocate)
    assert one.hit[-2:] == two.hit[-2:] and one.hit[4:6] != two.hit[4:6]


def test_spans_that_too_few_told_are_swept_as_on_fewer_ps_else_as_other_spans():
    first, kept, freed = row(200, 300, 400, 500, 310), row(10, 20, 40, 120, 25), row(100, 200, 300, 400, 210)
    rows = {("first", "kept", 4, 2): first, ("next", "kept", 4, 2): kept, ("next", "freed", 4, 1): freed}
    found = swept(Table("m.toml: swept", "s", "ns", rows), 4, 2)
    means = [round(1000 * (0.99 * mean + 0.01 * last)) for mean, last in ((310, 500), (210, 400), (25, 120), (210, 400))]
    assert [one.mean for one in found] == means
    assert swept(Table("m.toml: swept", "s", "ns", rows), 4, 1) == ()
    assert swept(Table("m.toml: swept", "s", "ns", rows), 32, 2) == () == swept(None, 4, 2)
