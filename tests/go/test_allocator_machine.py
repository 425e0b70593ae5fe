"""Random operations on three Ps, chosen by Hypothesis: every invariant of the heap after each of them.

The machine keeps its own list of what it holds: no slot may overlap one that is held, or dropped but not yet collected.
The choice is derandomized, so a run is the same everywhere.
"""

import bisect
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sim.go.check import check_heap
from sim.go.params import VERSIONS
from sim.go.runtime import Heap
from sim.go.state import PAGE_SHIFT, SPAN_IN_USE
from sim.jit import PLAIN
from tests.go.heap_ops import address, cycle, drop, flush_all, flush_pages, free_stack, malloc, release, stack

EDGES = [1, 8, 15, 16, 17, 512, 513, 1016, 1017, 1024, 32760, 32761, 32768, 32769, 1 << 20, 5 << 20, 70 << 20]
SIZES = st.one_of(st.integers(1, 1 << 11), st.integers(1, 1 << 17), st.sampled_from(EDGES))
PS = st.integers(0, 2)
MEMORY_LIMIT = 400 << 20


class Machine(RuleBasedStateMachine):
    facts = VERSIONS["go1.27"]

    def __init__(self):
        super().__init__()
        self.heap = Heap(self.facts, 3)
        self.starts, self.held = [], {}  # addresses in order; address -> (end, span, slot, alive)
        self.stacks = []

    def ready(self):
        self.heap.make_room(1 << 14)
        return self.heap.header

    @rule(p=PS, size=st.sampled_from([8, 16, 48, 200, 1000]), noscan=st.integers(0, 1))
    def fill(self, p, size, noscan):
        self.malloc_many(p, size, noscan, 70 if PLAIN else 600)

    @rule(p=PS, size=SIZES, noscan=st.integers(0, 1), count=st.sampled_from([1, 1, 3, 40]))
    def malloc(self, p, size, noscan, count):
        if int(self.heap.fields.heap_in_use) + size <= MEMORY_LIMIT:
            self.malloc_many(p, size, noscan, count if size <= 4096 else 1)

    def malloc_many(self, p, size, noscan, count):
        for _ in range(count):
            s, slot = malloc(self.ready(), p, size, noscan)
            span = self.heap.arrays["spans"][s]
            at = address(self.heap, s, slot)
            end = at + int(span.elemsize)
            assert end - at >= size and at % 8 == 0 and end <= int(span.start_page + span.npages) << PAGE_SHIFT
            i = bisect.bisect(self.starts, at)
            assert i == 0 or self.held[self.starts[i - 1]][0] <= at
            assert i == len(self.starts) or end <= self.starts[i]
            self.starts.insert(i, at)
            self.held[at] = (end, s, slot, True)

    @precondition(lambda self: self.starts)
    @rule(first=st.integers(0, 1 << 10), step=st.sampled_from([1, 1, 2, 7]), cycles=st.sampled_from([0, 1, 2, 3]))
    def drop(self, first, step, cycles):
        first %= len(self.starts)
        for at in self.starts[first : first + 400 : step]:
            end, s, slot, alive = self.held[at]
            if alive:
                drop(self.heap.header, s, slot)
                self.held[at] = (end, s, slot, False)

        for _ in range(cycles):
            self.collect()

    @rule()
    def collect(self):
        cycle(self.ready())
        self.held = {at: entry for at, entry in self.held.items() if entry[3]}
        self.starts = sorted(self.held)

    @rule()
    def flush(self):
        flush_all(self.ready())

    @rule(p=PS)
    def flush_pages(self, p):
        flush_pages(self.ready(), p)

    @rule(nbytes=st.integers(1, 32 << 20))
    def release(self, nbytes):
        assert 0 <= release(self.ready(), nbytes) <= nbytes + (2 << 20)

    @rule(p=PS, npages=st.sampled_from([1, 4, 4, 8, 16, 40]))
    def stack(self, p, npages):
        self.stacks.append(stack(self.ready(), p, npages))

    @precondition(lambda self: self.stacks)
    @rule(p=PS, data=st.data())
    def free_stack(self, p, data):
        free_stack(self.ready(), p, self.stacks.pop(data.draw(st.integers(0, len(self.stacks) - 1))))

    @invariant()
    def all_invariants_hold(self):
        check_heap(self.heap)

    def teardown(self):
        for s in {entry[1] for entry in self.held.values()}:
            assert self.heap.arrays["spans"][s].state == SPAN_IN_USE


@pytest.mark.parametrize("linear", [False, True], ids=["sparse", "linear"])
@pytest.mark.parametrize("version", list(VERSIONS))
def test_every_invariant_after_every_operation(version, linear):
    class Chosen(Machine):
        facts = replace(VERSIONS[version], linear_layout=linear)

    examples, steps = (3, 40) if PLAIN else (10, 50)
    run_state_machine_as_test(
        Chosen,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, derandomize=True, deadline=None, database=None
        ),
    )
