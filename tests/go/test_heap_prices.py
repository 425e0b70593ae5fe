"""Prices that depend on how large the heap is: which hold when, and that no malloc is lost when they change."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from sim.costs import HeapPrices, MarkPrices, Price, eighths, smallness
from sim.go.inherit import INHERITED, inherit
from sim.go.metrics import latency_counts, settle_hits, shares
from sim.go.state import (
    ALL,
    FAST,
    FRESH,
    GC_MARK,
    GC_OFF,
    HIT_APART,
    HIT_CLEARED,
    HIT_EMPTY,
    HIT_EMPTY_FEW,
    HIT_FEW,
    HIT_FRESH,
    HIT_KINDS,
    HIT_MARKING,
    HIT_NEXT,
    HIT_NEXT_FEW,
    HIT_SOME,
    PARTIAL,
    PRICE_FRESH_APART,
    SWEEP,
    ZEROING,
)
from sim.go.world import World
from sim.jit import PLAIN
from sim.metrics.histogram import bucket_of_int
from sim.ops import ALLOC, COMPUTE, DEAD, NEEDZERO, NO_OBJ, NOSCAN, OP, TOUCH
from sim.units import NS
from tests.go.prices import made_up_prices

MIB = 1 << 20
SPC, SIZE = 2 * 6 | 1, 64  # pointer-free


def heap(mib, nanoseconds, cells=False):
    """Clearing takes so long in a loop, a hit with other work before it twice as long, some of them less, some more."""
    ps = nanoseconds * NS
    hit = Price(2 * ps, tuple(ps + 2 * ps * i // 1023 for i in range(1024))) if cells else Price(2 * ps)
    return HeapPrices(1, mib * MIB, (ps,) * 136, (hit,) * 136, (hit,) * 136, (Price(300 * NS),) * 136, 5 * ps)


def marking(mib, nanoseconds):
    return MarkPrices(1, mib * MIB, nanoseconds * NS, nanoseconds * NS, 0, 0, nanoseconds * NS, 0)


def a_world(heaps, marks=(), procs=1):
    prices = replace(made_up_prices(), heaps=list(heaps), mark={"array-shuffled": list(marks) or [marking(4, 10)]})
    return World("go1.27", procs, prices, seed=3)


def churn(g, n, live, think):
    """Goroutine: a live heap, then garbage; between two mallocs so many picoseconds of other work."""
    ops = np.zeros(live, OP)
    ops[:] = (ALLOC, NEEDZERO | NOSCAN, NO_OBJ, SIZE, 0)
    yield g.run(ops, 1)
    turn = [(ALLOC, NEEDZERO | NOSCAN, 0, SIZE, 0), *([(COMPUTE, 0, 0, think, 0)] if think else []), (DEAD, 0, 0, 0, 0)]
    ops = np.array(turn * (n // 8), OP)
    for _ in range(8):
        yield g.run(ops, 1)


@pytest.mark.skipif(PLAIN, reason="400,000 mallocs")
def test_no_malloc_is_lost_when_prices_change():
    world = a_world([heap(4, 10, True), heap(8, 100, True)])
    world.go(churn, 400_000, 40_000, 50 * NS)
    world.run()
    assert len(world.gc.log.cycles) >= 3 and world.heap.arrays["zero_price"][SPC] > 10 * NS
    counts, times, maxima = latency_counts(world)
    assert counts[ALL].sum() == world.mallocs and times[ALL] == times[1:].sum()
    again = latency_counts(world)
    settle_hits(world)
    assert not world.heap.arrays["fast_calls"].any()
    for before, once_more, after in zip((counts, times, maxima), again, latency_counts(world), strict=True):
        assert np.array_equal(before, once_more) and np.array_equal(before, after)


@pytest.mark.skipif(PLAIN, reason="a million mallocs")
def test_prices_are_those_of_the_heap_when_the_last_cycle_began():
    world = a_world([heap(4, 10), heap(32, 70)], [marking(4, 10), marking(32, 40)])
    arrays = world.heap.arrays

    def found():
        return [int(arrays[name][SPC]) // NS for name in ("zero_price", "hit_price", "mark_object")]

    assert found() == [10, 20, 10]
    world.price_heap(8 * MIB, 0)  # a third of the way, in the logarithm
    assert found() == [30, 60, 20]
    world.go(churn, 800_000, 130_000, 0)  # 8 MiB live
    world.run()
    begun = world.gc.log.cycles[-1].heap0
    third = Fraction(eighths(begun) - eighths(4 * MIB), 24)
    assert 12 * MIB < begun < 32 * MIB and third.denominator > 1
    assert world.sched.pay("stw_mark_term") == 50 * NS + 300 * NS * third.numerator // third.denominator
    assert [int(arrays[name][SPC]) for name in ("zero_price", "mark_object")] == [
        10 * NS + 60 * NS * third.numerator // third.denominator,
        10 * NS + 30 * NS * third.numerator // third.denominator,
    ]


@pytest.mark.skipif(PLAIN, reason="a million mallocs")
def test_marking_is_priced_by_what_it_reads_pointer_free_objects_by_the_heap():
    world = a_world([heap(4, 10)], [marking(4, 10), marking(64, 50)])
    pointers = np.zeros(4 * MIB // 32, OP)  # 8 MiB of objects, of each the first half up to its last pointer
    pointers[:] = (ALLOC, NEEDZERO, NO_OBJ, 64, 32)

    def program(g):
        for _ in range(2):
            yield g.run(pointers, 0)
        yield from churn(g, 800_000, 130_000, 0)

    world.go(program)
    world.run()
    at = Fraction(eighths(world.gc.log.cycles[-1].heap0) - eighths(4 * MIB), 32)
    assert Fraction(3, 4) < at < 1
    mark_object = world.heap.arrays["mark_object"]
    assert [int(mark_object[spc]) for spc in (SPC - 1, SPC)] == [20 * NS, 10 * NS + 40 * NS * at.numerator // at.denominator]


@pytest.mark.skipif(PLAIN, reason="hundreds of thousands of mallocs")
@pytest.mark.parametrize("goroutines", [1, 2])
def test_hits_are_priced_by_how_many_ps_allocate_and_those_while_marking_by_how_many_there_are(goroutines):
    alone = replace(heap(4, 10), procs=2, allocate=1, marking=heap(4, 30).marking)
    world = a_world([heap(4, 50), alone, replace(heap(4, 30), procs=2)], procs=2)
    arrays = world.heap.arrays
    assert [int(arrays[name][SPC]) for name in ("hit_price", "marking_price")] == [60 * NS, 60 * NS], "at first all may"
    for _ in range(goroutines):
        world.go(churn, 200_000, 0, 50 * NS)
    world.run()
    assert len(world.gc.log.cycles) >= 2
    assert [int(arrays[name][SPC]) for name in ("hit_price", "marking_price")] == [(20, 60)[goroutines - 1] * NS, 60 * NS]


@pytest.mark.skipif(PLAIN, reason="400,000 mallocs")
def test_a_hit_after_other_work_has_a_price_of_its_own_and_is_as_long_as_one_of_its_values():
    found = {}
    for think in (0, 50 * NS):
        world = a_world([heap(4, 10, True)])
        world.go(churn, 200_000, 0, think)
        world.run()
        calls = world.heap.arrays["fast_calls"].reshape(-1, HIT_KINDS)[SPC]
        found[think] = calls, latency_counts(world)
    (loop, (counts, *_)), (apart, (others, *_)) = found.values()
    assert loop[HIT_FEW] == apart[HIT_CLEARED] == 0 and min(loop[HIT_CLEARED], apart[HIT_FEW]) > 50_000
    assert loop[HIT_FRESH] == apart[HIT_FRESH]
    fast = made_up_prices().fast[SPC]
    assert counts[ALL][bucket_of_int(fast + 10 * NS)] >= loop[HIT_CLEARED]
    values = np.array([10 * NS + 20 * NS * i // 1023 for i in range(1024)])
    expected = np.bincount([bucket_of_int(int(value)) for value in values], minlength=others.shape[1]) * (apart[HIT_FEW] / 1024)
    expected[bucket_of_int(fast)] += apart[HIT_FRESH]
    assert np.abs(others[ALL] - expected)[: bucket_of_int(30 * NS) + 1].max() <= 1100 and counts[ZEROING].sum() > 0
    assert others[FAST].sum() == others[ALL].sum()


@pytest.mark.parametrize("think", [0, 50 * NS])
def test_a_fresh_span_has_the_price_of_the_heap_with_other_work_before_it_and_in_a_loop_another(think):
    world = a_world([replace(heap(4, 10), refill_fresh=(Price(4000 * NS),) * 136)])
    turn = [*([(COMPUTE, 0, 0, think, 0)] if think else []), (ALLOC, NEEDZERO | NOSCAN, NO_OBJ, SIZE, 0)]

    def body(g):
        yield g.run(np.array(turn * 100 * (8192 // SIZE), OP), 1)

    world.go(body)
    world.run()
    counts, times, _ = latency_counts(world)
    assert counts[FRESH].sum() == pytest.approx(100, abs=2) and not world.gc.log.cycles
    expected = 4000 * NS if think else made_up_prices().refill_fresh[SPC].mean
    assert times[FRESH] / counts[FRESH].sum() == pytest.approx(expected, rel=0.1)


@pytest.mark.skipif(PLAIN, reason="400,000 mallocs")
def test_a_refill_that_sweeps_its_span_has_a_price_of_its_own_with_the_sweep_in_it():
    found = {}
    for told in (False, True):
        both = (Price(900 * NS),) * 136 if told else ()
        world = a_world([replace(heap(4, 10), swept=(Price(500 * NS),) * 4, refill_unswept=both)])
        world.go(churn, 400_000, 40_000, 50 * NS)
        world.run()
        counts, times, _ = latency_counts(world)
        found[told] = counts[PARTIAL].sum(), times[PARTIAL], times[SWEEP]
    (refills, apart, sweeping), (others, together, less) = found.values()
    assert apart == 300 * NS * refills
    own, rest = divmod(together - 300 * NS * others, 600 * NS)
    assert rest == 0 and 0 < own < others
    assert sweeping - less == pytest.approx(500 * NS * own, rel=0.1)


@pytest.mark.skipif(PLAIN, reason="hundreds of thousands of mallocs")
def test_a_refill_takes_less_whose_span_is_near_the_last_one_of_its_class():
    """Beside pages that are looked up after each malloc."""
    world = a_world([replace(heap(4, 10), refill_near=(500,) * 136)])
    arrays, took = world.heap.arrays, {True: set(), False: set()}
    turn = np.array([(COMPUTE, 0, 0, 50 * NS, 0), (ALLOC, NEEDZERO | NOSCAN, 0, SIZE, 0)], OP)

    def body(g):
        yield from churn(g, 200_000, 40_000, 50 * NS)
        last = None
        for _ in range(40_000):
            before = int(arrays["cause_time"][PARTIAL])
            yield g.run(turn, 1)
            paid = int(arrays["cause_time"][PARTIAL]) - before
            page = int(arrays["spans"]["start_page"][arrays["mcaches"]["alloc"][0, SPC]])
            if paid and last is not None:
                took[abs(page - last) <= 8].add(paid)
            last = page

    world.go(body)
    world.run()
    assert took == {True: {150 * NS}, False: {300 * NS}}


@pytest.mark.skipif(PLAIN, reason="hundreds of thousands of mallocs")
def test_a_hit_while_the_collector_marks_has_a_price_of_its_own_whatever_was_before_it():
    slow = tuple(Price(900 * NS) for _ in range(136))
    world = a_world([replace(heap(4, 10), marking=slow)], [marking(4, 2000)])
    marked, next_one = [], []

    def marking_hits(world):
        return world.heap.arrays["fast_calls"].reshape(-1, HIT_KINDS)[SPC, HIT_MARKING:HIT_KINDS].copy()

    def watched(g):
        ops = np.zeros(1000, OP)
        ops[:] = (ALLOC, NEEDZERO | NOSCAN, 0, SIZE, 0)
        for _ in range(400):
            marks = bool(world.heap.fields.gc_blacken_enabled)
            before = marking_hits(world).sum()
            yield g.run(ops, 1)
            after = marking_hits(world).sum()
            next_one.append(marking_hits(world)[1:].sum() > 0)
            if marks == bool(world.heap.fields.gc_blacken_enabled) and after >= before:
                marked.append((marks, after - before))

    def keep(g):
        ops = np.zeros(40_000, OP)
        ops[:] = (ALLOC, NEEDZERO | NOSCAN, NO_OBJ, SIZE, 0)
        yield g.run(ops, 1)
        yield from watched(g)

    world.go(keep)
    world.run()
    assert {n > 900 for marks, n in marked if marks} == {True} and {n for marks, n in marked if not marks} == {0}
    assert any(next_one), "those of garbage follow each other"
    counts, _, _ = latency_counts(world)
    assert counts[ALL][bucket_of_int(900 * NS)] >= sum(n for _, n in marked)


@pytest.mark.skipif(PLAIN, reason="hundreds of thousands of mallocs")
def test_writing_to_the_object_is_other_work():
    kinds = {}
    for flag in (0, TOUCH):
        world = a_world([heap(4, 10)])

        def body(g, flag=flag):
            ops = np.zeros(200_000, OP)
            ops[:] = (ALLOC, NEEDZERO | NOSCAN | flag, 0, SIZE, 0)
            yield g.run(ops, 1)

        world.go(body)
        world.run()
        kinds[flag] = world.heap.arrays["fast_calls"].reshape(-1, HIT_KINDS)[SPC]
    assert kinds[0][HIT_FEW] == kinds[TOUCH][HIT_CLEARED] == 0
    assert min(kinds[0][HIT_CLEARED], kinds[TOUCH][HIT_FEW]) > 50_000


@pytest.mark.skipif(PLAIN, reason="hundreds of thousands of mallocs")
@pytest.mark.parametrize(
    ("others", "kind", "phase"),
    [
        (7, HIT_FEW, GC_OFF),
        (8, HIT_SOME, GC_OFF),
        (31, HIT_SOME, GC_OFF),
        (32, HIT_APART, GC_OFF),
        (7, HIT_EMPTY_FEW, GC_MARK),
        (8, HIT_EMPTY, GC_MARK),
    ],
)
def test_a_hit_is_priced_by_how_many_other_mallocs_lie_between(others, kind, phase):
    world = a_world([heap(4, 10)])
    world.heap.fields.gc_phase = phase

    def body(g):
        ops = np.zeros(200 * (others + 1), OP)
        ops[:] = (ALLOC, NEEDZERO | NOSCAN | TOUCH, 0, 2 * SIZE, 0)
        ops["arg"][:: others + 1] = SIZE
        for _ in range(200_000 // len(ops)):
            yield g.run(ops, 1)

    world.go(body)
    world.run()
    calls = world.heap.arrays["fast_calls"].reshape(-1, HIT_KINDS)[SPC, HIT_APART:]
    if phase == GC_MARK:
        calls[HIT_MARKING - HIT_APART] = 0  # the first of a span
    else:
        calls = calls[: HIT_FEW - HIT_APART + 1]  # the others while a cycle marks
    assert calls[kind - HIT_APART] == calls.sum() > 1000


@pytest.mark.skipif(PLAIN, reason="hundreds of thousands of mallocs")
@pytest.mark.parametrize("left", [0, 2])
def test_a_hit_while_marking_is_told_apart_where_something_was_alive_in_its_span(left):
    """Of eight objects in a row so many stay alive, and what comes after finds room between them, or whole spans."""
    world = a_world([heap(4, 10)], [marking(4, 2000)])
    n = 80_000
    held, dead = np.zeros(n, OP), np.zeros(n, OP)
    held[:] = (ALLOC, NEEDZERO | NOSCAN, 0, SIZE, 0)
    dead[:] = (DEAD, 0, 0, 0, 0)
    held["obj"] = dead["obj"] = np.arange(n)

    def body(g):
        yield g.run(held, n)
        yield g.run(dead[np.arange(n) % 8 >= left], n)
        yield g.run(np.array([(ALLOC, NEEDZERO | NOSCAN, n - 1, SIZE, 0)] * 200_000, OP), n)

    world.go(body)
    world.run()
    calls = world.heap.arrays["fast_calls"].reshape(-1, HIT_KINDS)[SPC]
    among = calls[[HIT_NEXT, HIT_NEXT_FEW]].sum()
    assert len(world.gc.log.cycles) >= 4 and calls[[HIT_EMPTY, HIT_EMPTY_FEW]].sum() > 1000
    assert among > 100 if left else among == 0


@pytest.mark.skipif(PLAIN, reason="200,000 mallocs")
def test_hits_and_fresh_spans_lie_between_those_of_small_types_and_of_all_by_the_mean_size_of_objects():
    large, small = (replace(heap(4, 10), refill_fresh=(Price(ns * NS),) * 136) for ns in (300, 700))
    small = [replace(small, hit=(Price(8 * NS),) * 136)]
    mark = {"array-shuffled": [marking(4, 10)]}
    world = World(
        "go1.27", 1, replace(made_up_prices(), heaps=[large], small_heaps=small, mean_sizes=(16, 256), mark=mark), seed=3
    )
    arrays = world.heap.arrays
    assert arrays["hit_price"][SPC] == 20 * NS, "nothing is known at first"
    world.go(churn, 200_000, 40_000, 50 * NS)
    world.run()
    assert len(world.gc.log.cycles) >= 2
    assert arrays["hit_price"][SPC] == 14 * NS, "64 B, half way between 16 and 256"
    assert set(world.hit_cells(HIT_APART, SPC)) == {14 * NS}
    assert arrays["prices"]["mean"][PRICE_FRESH_APART + SPC] == 500 * NS
    assert [smallness((16, 256), size) for size in (8, 16, 256, 999)] == [1, 1, 0, 0]


def test_what_was_there_before_the_program_tells_nothing_of_the_size_of_its_objects():
    large, small = heap(4, 10), heap(4, 4)
    prices = replace(made_up_prices(), heaps=[large], small_heaps=[small], mean_sizes=(16, 256))
    world = World("go1.27", 1, prices, seed=3, gogc=-1)
    rows = np.zeros(1, INHERITED)
    rows["npages"], rows["spanclass"], rows["cached_by"], rows["end"] = 1000, 1, -1, 1
    inherit(world, rows, np.array([(ALLOC, NOSCAN, NO_OBJ, 1000 * 8192, 0)], OP), np.zeros(1, np.int64))
    world.go(lambda g: (yield g.run(np.array([(ALLOC, NOSCAN, NO_OBJ, 16, 0)] * 40_000, OP))))
    world.run()
    world.price_heap(4 * MIB, 0)
    assert world.heap.arrays["hit_price"][SPC] == 8 * NS, "as of small types, whatever has 8 MB"


def test_calls_are_shared_out_evenly():
    for count, parts in ((0, 8), (1, 8), (5, 8), (8, 8), (1023, 1024), (5000, 1024)):
        found = shares(count, parts)
        assert found.sum() == count and found.max() - found.min() <= 1
        assert abs(found[: parts // 2].sum() - found[parts // 2 :].sum()) <= 1
