"""Random operations of four threads, chosen by Hypothesis: every invariant of the heap after each of them.

The machine keeps its own list of what it holds: no object may overlap another one, whichever thread made or frees it, and
what the program has, rounded up to classes and pages, is what the heap says it has. The choice is derandomized, so a run
is the same everywhere.
"""

import bisect

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sim.jit import PLAIN
from sim.tcmalloc.check import check
from sim.tcmalloc.heap import TCMalloc
from sim.tcmalloc.sizeclasses import MAX_SIZE, class_to_size
from sim.tcmalloc.stats import numeric_properties, page_map, stats_lines
from sim.units import MIB

EDGES = [0, 1, 8, 9, 1024, 1025, 2304, 32768, 65536, MAX_SIZE, MAX_SIZE + 1, 1 << 20, (1 << 20) + 1, 5 << 20, 40 << 20]
SIZES = st.one_of(st.integers(0, 1 << 11), st.integers(1, 1 << 18), st.sampled_from(EDGES))
THREADS = st.integers(0, 3)
LIMIT = 600 * MIB


def usable(size):
    """Bytes that an object of a size takes, by the library's table."""
    if size > MAX_SIZE:
        return -(-size // 8192) * 8192
    return int(class_to_size[max(np.searchsorted(class_to_size, size), 1)])


class Machine(RuleBasedStateMachine):
    budget = 32 * MIB

    def __init__(self):
        super().__init__()
        self.heap = TCMalloc(4, overall_cache_size=self.budget)
        self.heap.new_cache(0)
        self.cached = {0}
        self.starts, self.held = [], {}  # addresses in order; address -> (end, object)
        self.live = 0

    def who(self, t):
        """That thread, with a cache from now on."""
        if t not in self.cached:
            self.cached.add(t)
            self.heap.new_cache(t)
        return t

    def enter(self, obj, size):
        at = self.heap.address(obj)
        end = at + usable(size)
        assert at % (8 if size <= 8 else 16) == 0 and end <= int(self.heap.fields.heap_pages) << 13
        i = bisect.bisect(self.starts, at)
        assert i == 0 or self.held[self.starts[i - 1]][0] <= at
        assert i == len(self.starts) or end <= self.starts[i]
        self.starts.insert(i, at)
        self.held[at] = end, obj
        self.live += end - at

    def leave(self, i):
        at = self.starts.pop(i % len(self.starts))
        end, obj = self.held.pop(at)
        self.live -= end - at
        return obj

    @rule(t=THREADS, size=SIZES, count=st.sampled_from([1, 1, 3, 40, 400]))
    def malloc(self, t, size, count):
        count = count if size <= 2048 and not (PLAIN and count > 40) else 1 if size > 1 << 16 else min(count, 40)
        if int(self.heap.fields.heap_pages) * 8192 + size * count <= LIMIT:
            for _ in range(count):
                self.enter(self.heap.malloc(self.who(t), size), size)

    @precondition(lambda self: self.held)
    @rule(t=THREADS, at=st.integers(0, 1 << 20), count=st.sampled_from([1, 2, 40, 400]), step=st.sampled_from([-1, 0, 7]))
    def free(self, t, at, count, step):
        """One thread frees what any may have made."""
        for k in range(min(count, len(self.starts))):
            self.heap.free(self.who(t), self.leave(at + k * step))

    @precondition(lambda self: self.held)
    @rule(at=st.integers(0, 1 << 20))
    def free_without_cache(self, at):
        self.heap.free(-1, self.leave(at))

    @precondition(lambda self: self.held)
    @rule(t=THREADS, at=st.integers(0, 1 << 20), size=st.integers(1, 1 << 12))
    def realloc(self, t, at, size):
        obj = self.leave(at)
        old = int(self.heap.arrays["spans"].length[obj >> 10]) << 13
        cl = int(self.heap.arrays["spans"].sizeclass[obj >> 10])
        old = int(class_to_size[cl]) if cl else old
        moved = self.heap.realloc(self.who(t), obj, size)
        if moved == obj:
            self.enter(moved, old)
        else:
            self.enter(moved, old + old // 4 if old < size < old + old // 4 else size)

    @rule(t=THREADS)
    def exit(self, t):
        if t in self.cached:
            self.cached.remove(t)
            self.heap.delete_cache(t)

    @rule()
    def clock_runs_out(self):
        self.heap.fields.scavenge_counter = 0

    @rule(donor=st.integers(0, 85))
    def turn(self, donor):
        self.heap.fields.race_counter = donor

    @invariant()
    def whole(self):
        check(self.heap)
        told = numeric_properties(self.heap)
        assert told["generic.current_allocated_bytes"] == self.live
        assert sum(length for _, length, _, _ in page_map(self.heap)) * 8192 == told["generic.heap_size"]

    def teardown(self):
        """All is freed and all threads end: every object was in some cache, so nothing is left but slots and tails."""
        while self.starts:
            self.heap.free(-1, self.leave(0))
        for t in sorted(self.cached):
            self.heap.delete_cache(t)
        check(self.heap)
        told = numeric_properties(self.heap)
        assert told["generic.current_allocated_bytes"] == told["tcmalloc.thread_cache_free_bytes"] == 0
        assert self.heap.fields.unclaimed_cache_space == self.heap.fields.overall_cache_size
        assert stats_lines(self.heap)[0].split()[1] == "0"


@pytest.mark.parametrize("budget", [MIB, 32 * MIB], ids=["poor", "rich"])
def test_every_invariant_after_every_operation(budget):
    class Chosen(Machine):
        pass

    Chosen.budget = budget
    examples, steps = (8, 30) if PLAIN else (25, 50)
    run_state_machine_as_test(
        Chosen,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, derandomize=True, deadline=None, database=None
        ),
    )


@pytest.mark.parametrize("seed", range(1 if PLAIN else 2))
def test_long_runs_in_which_every_mechanism_takes_part(seed):
    """Threads that make what others free, in waves of sizes; the mechanisms are counted, so that none stays untested."""
    rng = np.random.default_rng(seed)
    heap = TCMalloc(4, overall_cache_size=3 * MIB)
    for t in range(4):
        heap.new_cache(t)
    objects = []
    for wave in range(8 if PLAIN else 40):
        size = int(np.exp(rng.uniform(np.log(8), np.log(1 << 16))))
        made, freed = rng.integers(4, size=2)
        for _ in range(60 if PLAIN else min(3000, (2 << 20) // size)):
            objects.append(heap.malloc(int(made), int(size * rng.uniform(0.5, 1.5))))
        objects += [heap.malloc(int(made), int(rng.integers(1 << 18, 4 << 20))) for _ in range(3)]
        rng.shuffle(objects)
        keep = len(objects) // 2 if wave % 7 else 0
        for obj in objects[keep:]:
            heap.free(int(freed), obj)
        del objects[keep:]
        if wave % 5 == 0:
            heap.fields.scavenge_counter = 0
        if wave % 9 == 0:
            heap.delete_cache(wave % 4)
            heap.new_cache(wave % 4)
        check(heap)
    if not PLAIN:
        facts = [name for name in heap.fields.dtype.names if name.startswith("fact_") and name != "fact_forced"]
        assert [name for name in facts if not heap.fields[name]] == []
