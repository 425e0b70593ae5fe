"""A heap that is there before the program begins: the rooms' own invariants hold, and the pacer stands where it is told."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.go import gccontroller
from sim.go.check import check_heap
from sim.go.check_gc import watch
from sim.go.inherit import INHERITED, inherit
from sim.go.mstats import mem_stats
from sim.go.sizeclasses import class_to_allocnpages, class_to_size
from sim.go.state import SPAN_IN_USE, TINY_SPAN_CLASS
from sim.go.world import World
from sim.jit import PLAIN
from sim.ops import ALLOC, NO_OBJ, NOSCAN, OP
from sim.units import MS, Throw
from tests.go.prices import made_up_prices

SCAN_64, SCAN_1024 = 2 * int(np.searchsorted(class_to_size, 64)), 2 * int(np.searchsorted(class_to_size, 1024))


def world_with(contents, nprocs=1, **options):
    """A world with spans: (span class, pages, P that has it cached, slots taken); and the operations that made them."""
    rows = np.zeros(len(contents), INHERITED)
    ops, slots = [], []
    for row, (spanclass, npages, cached_by, taken) in zip(rows, contents, strict=True):
        size = int(class_to_size[spanclass >> 1]) or npages * 8192
        header = 8 if size > 512 and spanclass & 1 == 0 and spanclass > 1 else 0
        slots += taken
        for _ in taken:
            noscan = spanclass & 1
            ops.append((ALLOC, NOSCAN * noscan, NO_OBJ, size - header, 0 if noscan else size - header))
        row["npages"], row["spanclass"], row["cached_by"], row["end"] = npages, spanclass, cached_by, len(slots)
    world = World("go1.27", nprocs, made_up_prices(), 1, **options)
    inherit(world, rows, np.array(ops, OP), np.array(slots, np.int64))
    world.gc.resume(live_of(world), 4 << 20)
    return world


def in_use(world):
    """The spans of objects."""
    spans = world.heap.arrays["spans"]
    return spans[spans["state"] == SPAN_IN_USE]


def live_of(world):
    """heapLive as the runtime has it: of a cached span all pages, of another one its objects."""
    spans = in_use(world)
    whole = spans["sweepgen"] == int(world.heap.fields.sweepgen) + 3  # cached
    return int(np.where(whole, spans["npages"] * 8192, spans["alloc_count"].astype(np.int64) * spans["elemsize"]).sum())


def malloc(g, n, size=64):
    ops = np.zeros(n, OP)
    ops["kind"], ops["obj"], ops["arg"], ops["ptr_bytes"] = ALLOC, NO_OBJ, size, size
    yield g.run(ops)


def test_a_span_that_a_p_has_cached_is_filled_before_any_other():
    world = world_with([(SCAN_64, 1, 0, [0, 2, 3]), (SCAN_64, 1, -1, [5])])
    spans, fields = world.heap.arrays["spans"], world.heap.fields
    before = int(fields.heap_live)
    (nelems,) = set(spans["nelems"][spans["spanclass"] == SCAN_64].tolist())
    world.go(malloc, nelems - 3)
    world.run(until=1 * MS)
    assert int(fields.heap_live) == before  # nothing was refilled: its rest was charged before
    assert sorted(spans["alloc_count"][spans["spanclass"] == SCAN_64].tolist()) == [1, nelems]
    world.go(malloc, 1)
    world.run(until=2 * MS)
    assert int(fields.heap_live) == before + 8192 - 64  # the other one, less what it holds
    check_heap(world.heap)


def test_statistics_and_memory_count_what_was_there():
    world = world_with([(SCAN_64, 1, 0, [1, 2]), (SCAN_1024, 1, -1, [7]), (0, 9, -1, [0]), (TINY_SPAN_CLASS, 1, -1, [3])])
    world.go(lambda g: (yield from g.world.gc.read_mem_stats(g)))
    world.run(until=1 * MS)
    found = mem_stats(world.heap, world.gc.log.gc_stats())
    assert found["HeapObjects"] == 5 and found["Alloc"] == 2 * 64 + 1024 + 9 * 8192 + 16
    assert int(world.heap.fields.resident_pages) * 4096 >= 12 * 8192
    check_heap(world.heap)


def test_two_objects_in_one_slot_are_refused():
    with pytest.raises(Throw, match="no slot of its own"):
        world_with([(SCAN_64, 1, -1, [4, 4])])


@settings(max_examples=5 if PLAIN else 30, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(2, 135), st.integers(-1, 1), st.sets(st.integers(0, 1 << 20), max_size=12)), max_size=12
    ),
    st.booleans(),
)
def test_any_heap_passes_the_checks_and_a_collection(contents, collect):
    """Cached once a P and class; then a collection finds them all alive, the checks of each of its stages on."""
    cached, spans = set(), []
    for spanclass, p, taken in contents:
        size, npages = int(class_to_size[spanclass >> 1]), int(class_to_allocnpages[spanclass >> 1])
        slots = sorted({slot % max((npages * 8192 - 512) // size, 1) for slot in taken}) or [0]
        if (spanclass, p) in cached:
            p = -1
        cached.add((spanclass, p))
        spans.append((spanclass, npages, p, slots))
    world = world_with(spans, nprocs=2)
    check_heap(world.heap)
    watch(world)
    n = sum(len(slots) for _, _, _, slots in spans)
    assert int(world.heap.fields.live_objects) == n
    if collect:
        world.go(lambda g: (yield from world.gc.collect(g)))
    world.go(malloc, 20)
    world.run(until=20 * MS)
    check_heap(world.heap)
    assert int(world.heap.fields.live_objects) == n + 20


# The pacer in the middle of a program's life


@pytest.mark.parametrize(("gogc", "goal"), [(100, 12 << 20), (50, 9 << 20), (200, 17 << 20)])
def test_a_resumed_pacer_has_the_goal_it_is_told(gogc, goal):
    world = world_with([(0, 700, -1, [0])], gogc=gogc, globals_bytes=100_000)
    world.gc.resume(7 << 20, goal)
    assert int(gccontroller.heap_goal(world.heap.header)) == pytest.approx(goal, abs=2)
    fields = world.heap.fields
    assert int(fields.heap_live) == 7 << 20
    assert int(fields.heap_marked) + (int(fields.heap_marked) + 100_000) * gogc // 100 == pytest.approx(goal, abs=4)


def test_before_the_first_cycle_nothing_was_marked():
    world = world_with([(0, 300, -1, [0])])
    assert int(world.heap.fields.heap_marked) == 0
    assert int(gccontroller.heap_goal(world.heap.header)) == 4 << 20


# runtime.ReadMemStats


def test_reading_memory_statistics_stops_the_world_and_empties_every_cache():
    world = World("go1.27", 2, made_up_prices(), 1, gogc=-1)
    seen = []

    def reader(g):
        yield g.compute(1 * MS)
        before = int(world.heap.fields.heap_live)
        found = yield from g.world.gc.read_mem_stats(g)
        seen.append((before, int(world.heap.fields.heap_live), found["Mallocs"]))

    world.go(malloc, 100)
    world.go(malloc, 30, 1000)
    world.go(reader)
    world.run(until=5 * MS)
    ((before, after, mallocs),) = seen
    caches = world.heap.arrays["mcaches"]["alloc"]
    assert not caches.any() and mallocs == 130
    spans = in_use(world)
    free = (spans["nelems"].astype(np.int64) - spans["alloc_count"]) * spans["elemsize"]
    assert after == int((spans["npages"] * 8192 - free).sum()) < before  # what the caches had free is not live any more
    assert not world.sched.stopping
    check_heap(world.heap)


@pytest.mark.parametrize(("spanclass", "cached_by"), [(SCAN_64, 2), (SCAN_64, -2), (0, 0)])
def test_a_span_cached_by_nobody_there_is_refused(spanclass, cached_by):
    with pytest.raises(Throw, match="cached by a P that there is not"):
        world_with([(spanclass, 1, cached_by, [0])], nprocs=2)
