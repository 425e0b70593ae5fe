"""Scavenging against a slow model of it, and what it does to memory, ledger and the cost of allocating."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sim.costs import Price
from sim.go.check import check_heap, check_scavenger
from sim.go.collect import collect_at_once
from sim.go.mstats import rss
from sim.go.runtime import Heap
from sim.go.state import CAUSES, FIRST_TOUCH, NO_GOAL
from sim.go.world import World
from sim.jit import PLAIN
from sim.ops import ALLOC, DEAD, NEEDZERO, NOSCAN, OP, TOUCH
from sim.units import KIB, MIB, NS, US, Throw
from tests.go.prices import made_up_prices
from tests.go.scavenge_model import Model
from tests.go.scavenge_ops import (
    ALL_OF_IT,
    BASE,
    alloc,
    begin,
    cache_alloc,
    chunked_heap,
    cursor,
    end,
    fill_cache,
    find,
    flush_cache,
    free,
    generation,
    give_all_back,
    give_back,
    grow,
    wanted,
)

# ---------------------------------------------------------------------------------------------------- the model

SIZES = st.sampled_from([1, 2, 5, 16, 60, 64, 130, 256, 400, 490, 512, 700])
BYTES = st.sampled_from([1, 8192, 64 * KIB, 200_000, MIB, 3 * MIB, ALL_OF_IT])


class Machine(RuleBasedStateMachine):
    version = "go1.27"

    def __init__(self):
        super().__init__()
        self.heap = Heap(self.version, 2)
        self.heap.make_room(1 << 14)
        self.h = self.heap.header
        self.model = Model(two=self.version == "go1.27")
        self.held, self.cached = [], []
        for chunk in (1, 2, 5):
            self.grow(chunk)

    @precondition(lambda self: len(self.model.chunks) < 6)
    @rule(chunk=st.integers(0, 8))
    def grow(self, chunk):
        if chunk not in self.model.chunks:
            grow(self.h, BASE + chunk * 512)
            self.model.grow(chunk)

    @rule(n=SIZES)
    def alloc(self, n):
        page, scavenged = alloc(self.h, n)
        expected = self.model.first_fit(n)
        assert page == (BASE + expected if expected >= 0 else -1)
        if expected >= 0:
            assert scavenged == self.model.take(range(expected, expected + n))
            self.held.append((expected, n))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), cut=st.sampled_from([0, 0, 0, 1, 7, 100]), top=st.booleans())
    def free(self, data, cut, top):
        page, n = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        if 0 < cut < n:  # an end of it only
            first = page if top else page + n - cut
            self.held.append((first, n - cut) if top else (page, n - cut))
            page, n = (page + n - cut, cut) if top else (first, cut)
        free(self.h, BASE + page, n)
        self.model.give(range(page, page + n))

    @precondition(lambda self: not self.cached and self.model.free)
    @rule()
    def fill_cache(self):
        fill_cache(self.h, 0)
        lowest = min(self.model.free)
        self.cached = [p for p in range(lowest // 64 * 64, lowest // 64 * 64 + 64) if p in self.model.free]
        self.back = self.model.scavenged & set(self.cached)
        self.model.take(self.cached)

    @precondition(lambda self: self.cached)
    @rule(n=st.sampled_from([1, 1, 3]))
    def cache_alloc(self, n):
        page, scavenged = cache_alloc(self.h, 0, n)
        fits = [p for p in self.cached if all(p + i in self.cached for i in range(n))]
        assert page == (BASE + fits[0] if fits else -1)
        if fits:
            pages = set(range(fits[0], fits[0] + n))
            assert scavenged == len(pages & self.back)
            self.cached = [p for p in self.cached if p not in pages]
            self.held.append((fits[0], n))

    @precondition(lambda self: self.cached)
    @rule()
    def flush_cache(self):
        flush_cache(self.h, 0)
        self.model.give(self.cached, self.back & set(self.cached), seen=self.model.two)
        self.cached = []

    @rule(nbytes=BYTES, force=st.sampled_from([0, 0, 1]))
    def scavenge(self, nbytes, force):
        assert give_back(self.h, nbytes, force) == self.model.scavenge(nbytes, force)

    @rule()
    def generation(self):
        generation(self.h)
        self.model.generation()

    @rule(force=st.sampled_from([0, 1]))
    def find(self, force):
        index, page = find(self.h, force)
        assert (None if index < 0 else (index - (BASE >> 9), page)) == self.model.find(force)

    @invariant()
    def both_agree(self):
        for name in ("bg", "force") if self.model.two else ("force",):
            mine = getattr(self.model, name)
            assert cursor(self.heap, name) == (-1 if mine.page is None else mine.page, mine.marked)
        n = int(self.heap.fields.nchunks)
        chunks = self.heap.arrays["chunks"][:n]
        first = chunks["index"] * 512 - BASE
        for field, pages in (("bits", self.model.free), ("scav", self.model.scavenged)):
            bits = np.unpackbits(np.ascontiguousarray(chunks[field]).view(np.uint8), bitorder="little").reshape(n, -1)
            row, bit = np.nonzero(bits == (field == "scav"))
            assert set((first[row] + bit).tolist()) == pages
        flagged = {int(index) - (BASE >> 9) for index in chunks["index"][chunks["flags"] != 0]}
        assert flagged == self.model.flagged
        check_scavenger(self.heap)


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
def test_pages_cursors_and_releases_are_those_of_the_model(version):
    class Chosen(Machine):
        pass

    Chosen.version = version
    examples, steps = (2, 15) if PLAIN else (40, 60)
    run_state_machine_as_test(
        Chosen,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, derandomize=True, deadline=None, database=None
        ),
    )


# ---------------------------------------------------------------------------------------------------- one run in flight


def test_a_run_in_flight_is_in_use_for_everybody_and_free_and_scavenged_afterwards():
    heap = chunked_heap("go1.27", [0, 1])
    index, page = find(heap.header, 1)
    assert begin(heap.header, 1, index, page, 64 * KIB) == (256, 0)  # a huge page is not split
    assert alloc(heap.header, 1024)[0] == -1
    assert alloc(heap.header, 768) == (BASE, 0)
    free(heap.header, BASE, 768)
    released = int(heap.fields.heap_released)
    assert end(heap.header, 1) == 2 * MIB
    assert int(heap.fields.heap_released) == released + 2 * MIB
    assert alloc(heap.header, 1024) == (BASE, 256)


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
def test_everything_goes_when_forced(version):
    heap = chunked_heap(version, [0, 1, 14])
    alloc(heap.header, 500)
    assert give_all_back(heap.header) == (3 * 512 - 500) * 8192
    assert give_all_back(heap.header) == 0


def test_dense_chunks_go_by_force_alone():
    heap = chunked_heap("go1.27", [0, 1])
    alloc(heap.header, 500)
    generation(heap.header)
    assert give_back(heap.header, ALL_OF_IT, 0) == 512 * 8192
    assert give_back(heap.header, ALL_OF_IT, 1) == 12 * 8192


# ---------------------------------------------------------------------------------------------------- memory

SIZE = 256 * KIB
FLAGS = NOSCAN | TOUCH | NEEDZERO


def batch(*rows):
    """Operations: (kind, flags, variable, size, 0) each."""
    ops = np.zeros(len(rows), OP)
    for i, row in enumerate(rows):
        ops[i] = row
    return ops


def allocs(n, first=0, size=SIZE, flags=FLAGS):
    return batch(*((ALLOC, flags, first + i, size, 0) for i in range(n)))


def deaths(n, first=0):
    return batch(*((DEAD, 0, first + i, 0, 0) for i in range(n)))


def priced(version="go1.27", nprocs=1, **steps):
    """A world with made-up prices; those in ``steps`` by name, in picoseconds."""
    prices = made_up_prices(version)
    steps = dict.fromkeys(("touch_5us", "touch_20us", "touch_100us"), 0) | steps
    prices = replace(prices, steps=dict(prices.steps) | {name: Price(price) for name, price in steps.items()})
    return World(version, nprocs, prices, 1, gogc=-1)


def counted(heap):
    """Bytes of the heap that memory stands behind, bit by bit."""
    return 4096 * int(np.bitwise_count(heap.arrays["arenas"]["touched"]).sum())


def faults(heap):
    """Picoseconds of page faults on the heap: those of the program, and those of clearing, which come first in go1.19."""
    return int(heap.arrays["procs"]["touch_time"].sum() + heap.arrays["cause_time"][FIRST_TOUCH])


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
def test_what_is_given_back_leaves_the_rss_and_faults_again(version):
    world = priced(version, first_touch=1000 * NS, huge_touch=7000 * NS, meta_touch=0)
    heap, fields = world.heap, world.heap.fields
    seen, given_back = [], []

    def note():
        check_heap(heap)
        assert rss(heap) == counted(heap)
        seen.append((rss(heap), faults(heap)))

    def body(g):
        n = 40
        yield g.run(allocs(n), n)
        note()
        yield g.run(deaths(n), n)
        collect_at_once(heap.header, 0)
        before = int(fields.mapped_ready), int(fields.heap_free)
        freed = give_back(heap.header, 4 * MIB, 1)
        assert 4 * MIB <= freed < 6 * MIB  # down to the start of a huge page it would split
        given_back.append(freed)
        assert (int(fields.mapped_ready), int(fields.heap_free)) == (before[0] - freed, before[1] - freed)
        note()
        yield g.run(allocs(n), n)
        note()
        yield g.run(deaths(n), n)
        collect_at_once(heap.header, 0)
        give_all_back(heap.header)
        note()

    world.run(until=world.go(body))
    (full, paid), (less, _), (again, paid_again), (rest, _) = seen
    assert full >= 40 * SIZE and paid > 0
    assert less == full - given_back[0]
    assert again == full
    assert paid_again - paid == given_back[0] // 4096 * 1000 * NS  # spans of 256 KiB have no huge page of their own
    assert rest == full - 40 * SIZE


def test_a_huge_page_comes_back_whole_in_go119():
    world = priced("go1.19", first_touch=1000 * NS, huge_touch=7000 * NS, meta_touch=0)
    heap = world.heap

    def body(g):
        stacks = rss(heap)
        yield g.run(allocs(1, size=8 * MIB), 1)
        assert rss(heap) == counted(heap) == stacks + 8 * MIB
        yield g.run(deaths(1), 1)
        collect_at_once(heap.header, 0)
        freed, paid = give_back(heap.header, MIB, 1), faults(heap)
        assert 2 * MIB <= freed < 4 * MIB  # a huge page is not split
        assert rss(heap) == counted(heap) == stacks + 8 * MIB - freed
        yield g.run(allocs(1, size=8 * MIB), 1)
        assert rss(heap) == counted(heap) == stacks + 8 * MIB
        assert faults(heap) - paid == 7000 * NS + (freed - 2 * MIB) // 4096 * 1000 * NS
        check_heap(heap)

    world.run(until=world.go(body))


# ---------------------------------------------------------------------------------------------------- when allocating


@pytest.mark.parametrize(
    ("fields", "scav", "growth", "expected"),
    [
        ({}, 1 << 40, 1 << 40, (0, False)),  # no limit, no goal
        ({"memory_limit": 1000, "mapped_ready": 900}, 100, 0, (0, False)),
        ({"memory_limit": 1000, "mapped_ready": 900}, 101, 0, (1, True)),
        ({"memory_limit": 1000, "mapped_ready": 1900}, 0, 50, (900, True)),
        ({"memory_limit": 1000, "mapped_ready": 1900, "limiter_enabled": 1}, 0, 50, (0, False)),
        ({"gc_percent_goal": 1000, "heap_in_use": 600, "heap_free": 300}, 0, 0, (0, False)),  # the heap did not grow
        ({"gc_percent_goal": 1000, "heap_in_use": 600, "heap_free": 300}, 0, 100, (0, False)),
        ({"gc_percent_goal": 1000, "heap_in_use": 600, "heap_free": 300}, 0, 140, (40, False)),
        ({"gc_percent_goal": 1000, "heap_in_use": 900, "heap_free": 500}, 0, 140, (140, False)),
        ({"gc_percent_goal": 1000, "heap_in_use": 900, "heap_free": 500, "limiter_enabled": 1}, 0, 140, (140, False)),
        ({"gc_percent_goal": 1000, "heap_in_use": 2000, "memory_limit": 50, "mapped_ready": 60}, 0, 140, (140, True)),
        ({"gc_percent_goal": 1000, "heap_in_use": 2000, "memory_limit": 50, "mapped_ready": 260}, 0, 140, (210, True)),
    ],
)
def test_what_an_allocation_should_give_back(fields, scav, growth, expected):
    heap = Heap("go1.27", 1)
    for name, value in fields.items():
        heap.fields[name] = value
    assert wanted(heap.header, scav, growth) == expected


PRICES = {"madvise": 1000 * NS, "madvise_page": 10 * NS, "tlb_shootdown": 300 * NS, "page_alloc": 7 * NS}


HOLE = 32 * 8192


def with_garbage(world, then):
    """Run ``then(g)`` on a heap with 20 holes of 256 KiB with memory behind them, the generation after their death begun."""

    def body(g):
        yield g.run(allocs(40, 40), 80)
        yield g.run(deaths(40, 40)[::2].copy(), 80)
        collect_at_once(world.heap.header, 0)
        collect_at_once(world.heap.header, 0)
        yield from then(g)

    world.run(until=world.go(body))
    check_heap(world.heap)


def spent(world):
    at = CAUSES.index("scavenge")
    return int(world.heap.arrays["cause_time"][at]), int(world.heap.arrays["cause_max"][at])


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
@pytest.mark.parametrize("nprocs", [1, 2])
def test_a_memory_limit_makes_allocations_give_back_its_excess(version, nprocs):
    world = priced(version, nprocs, **PRICES)
    fields = world.heap.fields

    def then(g):
        fields.gc_starting = 1  # none begins, however much the limit asks for it
        fields.memory_limit = int(fields.mapped_ready) - 3 * MIB
        before = int(fields.mapped_ready)
        yield g.run(allocs(1), 80)
        assert int(fields.mapped_ready) == before - 3 * MIB == int(fields.memory_limit)
        yield g.run(allocs(1, 1), 80)
        assert int(fields.mapped_ready) == before - 3 * MIB

    with_garbage(world, then)
    assert int(fields.scav_released_eager) == 3 * MIB
    run = 1000 * NS + 2 * 7 * NS + HOLE // 4096 * 10 * NS + (300 * NS if nprocs > 1 else 0)
    cost = 3 * MIB // HOLE * run
    assert spent(world) == (cost, cost)
    assert int(fields.scavenge_assist_time) == cost


def test_pages_taken_back_from_the_system_count_towards_the_limit():
    world = priced(**PRICES)
    fields = world.heap.fields

    def then(g):
        fields.memory_limit = int(fields.mapped_ready) + MIB - 2 * HOLE
        yield g.run(allocs(1, size=MIB), 80)  # longer than any hole: from behind them, memory never used
        assert int(fields.scav_released_eager) == 2 * HOLE
        assert int(fields.mapped_ready) == int(fields.memory_limit)

    with_garbage(world, then)


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
def test_the_limiter_keeps_allocations_from_it(version):
    world = priced(version, **PRICES)
    fields = world.heap.fields

    def then(g):
        fields.gc_starting = 1
        fields.memory_limit, fields.limiter_enabled = int(fields.mapped_ready) - 3 * MIB, 1
        fields.limiter_fill, fields.limiter_last_update = int(fields.limiter_capacity), 1 << 62  # full, and stays so
        yield g.run(allocs(1), 80)

    with_garbage(world, then)
    assert int(fields.scav_released_eager) == 0
    assert spent(world) == (0, 0)


def test_heap_growth_is_paid_for_with_what_lies_free():
    world = priced(**PRICES)
    fields = world.heap.fields

    def then(g):
        fields.gc_percent_goal = 0
        grown = int(fields.nchunks)
        yield g.run(allocs(2), 80)  # from the holes: no growth
        assert (int(fields.nchunks), int(fields.scav_released_eager)) == (grown, 0)
        fields.gc_percent_goal = int(fields.heap_in_use + fields.heap_free) + 16 * MIB - 2 * HOLE
        yield g.run(allocs(1, 2, size=16 * MIB, flags=NOSCAN), 80)
        assert int(fields.nchunks) == grown + 4
        assert int(fields.scav_released_eager) == 2 * HOLE  # as much as the growth leads beyond the goal
        fields.gc_percent_goal = 0
        yield g.run(allocs(1, 3, size=3 * MIB, flags=NOSCAN), 80)
        assert int(fields.nchunks) == grown + 5
        assert int(fields.scav_released_eager) == 2 * HOLE + 4 * MIB  # as much as it grew by

    with_garbage(world, then)
    assert spent(world)[0] == int(fields.scavenge_assist_time) > 0


def test_a_picosecond_more_for_a_page_is_noticed():
    with pytest.raises(AssertionError):
        PRICES["madvise_page"] += 1
        try:
            test_a_memory_limit_makes_allocations_give_back_its_excess("go1.27", 1)
        finally:
            PRICES["madvise_page"] -= 1


# ---------------------------------------------------------------------------------------------------- broken on purpose


def damaged(damage):
    world = priced()

    def then(g):
        damage(world.heap)
        yield g.compute(1 * US)

    with_garbage(world, then)


def chunk_of(heap, page):
    return heap.arrays["chunks"][heap.arrays["chunk_map"][page >> 9] - 1]


def miscount_a_chunk(heap):
    heap.arrays["chunks"]["in_use"][0] += 1


def live_in_the_future(heap):
    heap.arrays["chunks"]["gen"][1] = heap.fields.scav_gen + 1


def forget_the_cursor(heap):
    heap.fields.scav_search_force = -1


def forget_a_chunk_above_the_cursor(heap):
    heap.fields.scav_search_force -= 512


def count_more_memory(heap):
    heap.fields.resident_pages += 1


def touch_what_is_not_mapped(heap):
    heap.arrays["arenas"]["touched"][0, 255] |= np.uint64(1 << 63)
    heap.fields.resident_pages += 1


def keep_memory_behind_scavenged_pages(heap):
    touched = heap.arrays["arenas"]["touched"].copy()
    give_back(heap.header, 64 * KIB, 1)
    heap.arrays["arenas"]["touched"][:] = touched
    heap.fields.resident_pages = int(np.bitwise_count(touched).sum())


def lose_a_run_in_flight(heap):
    begin(heap.header, 0, *find(heap.header, 1), 64 * KIB)
    check_heap(heap)
    heap.arrays["procs"]["scav_npages"][0] = 0


def release_on_paper_only(heap):
    heap.fields.heap_released += 8192
    heap.fields.heap_free -= 8192


@pytest.mark.parametrize(
    ("damage", "predicate"),
    [
        (miscount_a_chunk, "in_use says"),
        (live_in_the_future, "is of generation"),
        (forget_the_cursor, "above the cursor"),
        (forget_a_chunk_above_the_cursor, "above the cursor"),
        (count_more_memory, "resident_pages says"),
        (touch_what_is_not_mapped, "which is not mapped"),
        (keep_memory_behind_scavenged_pages, "which is scavenged"),
        (lose_a_run_in_flight, "pages are in use, holders have"),
        (release_on_paper_only, "heap_released says"),
    ],
)
def test_each_invariant_notices_its_damage(damage, predicate):
    with pytest.raises(Throw, match=predicate):
        damaged(damage)


def test_without_a_limit_nothing_is_scavenged():
    world = priced()
    assert int(world.heap.fields.memory_limit) == NO_GOAL

    def then(g):
        yield g.run(allocs(20, size=MIB), 80)

    with_garbage(world, then)
    assert spent(world) == (0, 0)
