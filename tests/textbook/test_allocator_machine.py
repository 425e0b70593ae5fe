"""Random operations chosen by Hypothesis: every invariant of the heap after each of them.

The machine keeps its own list of what it holds: no object may overlap another one, each is aligned, and every byte of
the arena is in one place. The choice is derandomized, so a run is the same everywhere.
"""

import bisect
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sim.jit import PLAIN
from sim.ops import ALLOC, DEAD, OP, SHARED
from sim.textbook.check import check
from sim.textbook.heap import Textbook
from sim.textbook.state import GENERAL
from sim.units import Throw
from tests.textbook.test_policies import KINDS

EDGES = [0, 1, 4, 5, 8, 9, 23, 24, 25, 1024, 1025, 4064, 4072, 4080, 8184, 100_000]
SIZES = st.one_of(st.integers(0, 200), st.integers(0, 5000), st.sampled_from(EDGES))
OPS = st.tuples(st.sampled_from([ALLOC, ALLOC, DEAD]), st.sampled_from([0, 0, SHARED]), st.integers(0, 30), SIZES)


class Machine(RuleBasedStateMachine):
    policy, order, align = "first-fit", "lifo", 16

    def __init__(self):
        super().__init__()
        self.heap = Textbook(self.policy, self.order, nthreads=2, align_bytes=self.align, grow_bytes=4096)
        self.starts, self.sizes = [], {}  # addresses of live objects in order; bytes by address
        self.objects, self.variables = {}, {}  # objects by address; addresses by variable
        self.stale = []

    def enter(self, at, size):
        listed = self.policy == "segregated-fit" and size <= 1024
        align = 1 << max(size - 1, 3).bit_length() if listed else self.align
        assert at % align == 0
        i = bisect.bisect(self.starts, at)
        for before, after in pairwise([*self.starts[max(i - 1, 0) : i], at, *self.starts[i : i + 1]]):
            assert before + max((self.sizes | {at: size})[before], 1) <= after  # one of no bytes has its own address
        self.starts.insert(i, at)
        self.sizes[at] = size

    def leave(self, at):
        self.starts.remove(at)
        del self.sizes[at]

    @rule(size=SIZES, count=st.sampled_from([1, 1, 5, 40]))
    def malloc(self, size, count):
        for _ in range(count):
            obj = self.heap.malloc(size)
            at = self.heap.address(obj)
            self.enter(at, size)
            self.objects[at] = obj

    @precondition(lambda self: self.objects)
    @rule(first=st.integers(0, 1 << 20), count=st.sampled_from([1, 1, 5, 40]), step=st.sampled_from([-1, 0, 1, 7]))
    def free(self, first, count, step):
        for k in range(min(count, len(self.objects))):
            at = sorted(self.objects)[(first + k * step) % len(self.objects)]
            self.leave(at)
            self.stale.append(self.objects.pop(at))
            self.heap.free(self.stale[-1])

    @precondition(lambda self: self.stale)
    @rule(which=st.integers(0, 1 << 20))
    def free_again(self, which):
        with pytest.raises(Throw, match="is no live object"):
            self.heap.free(self.stale[which % len(self.stale)])

    @rule(t=st.integers(0, 1), operations=st.lists(OPS, max_size=40))
    def run_ops(self, t, operations):
        ops = np.array([(*operation, 0) for operation in operations], OP)
        for (kind, flags, obj, size), at in zip(operations, self.heap.run_ops(t, ops).tolist(), strict=True):
            assert (at >= 0) == (kind == ALLOC)
            if kind == ALLOC:
                self.enter(at, size)
            variable = (SHARED if flags else -t, obj)
            if variable in self.variables:
                self.leave(self.variables.pop(variable))
            if kind == ALLOC:
                self.variables[variable] = at

    @invariant()
    def whole(self):
        check(self.heap)
        fields = self.heap.fields
        assert fields.live_objects == len(self.starts) and fields.live_bytes == sum(self.sizes.values())
        regions = self.heap.arrays["regions"]
        unused = sum(int(r.end - r.frontier) for r in regions if r.end > r.start)
        padding = int(regions[GENERAL].start & 4095) if fields.arena_bytes and regions[GENERAL].end > 1 << 44 else 0
        assert fields.arena_bytes == fields.used_bytes + fields.free_bytes + fields.dead_bytes + unused + padding

    def teardown(self):
        """All is freed: one block is left of the general region, nothing of bump's."""
        for obj in self.objects.values():
            self.heap.free(obj)
        ops = np.zeros(31, OP)
        ops["kind"], ops["obj"] = DEAD, np.arange(31)
        for t, flags in ((0, 0), (1, 0), (0, SHARED)):
            ops["flags"] = flags
            self.heap.run_ops(t, ops)
        check(self.heap)
        fields = self.heap.fields
        assert fields.live_bytes == fields.used_bytes == fields.dead_bytes == 0
        assert self.heap.arrays["lists"].nfree[GENERAL] <= 1


@pytest.mark.parametrize("align", [8, 64])
@pytest.mark.parametrize(("policy", "order"), KINDS)
def test_every_invariant_after_every_operation(policy, order, align):
    class Chosen(Machine):
        pass

    Chosen.policy, Chosen.order, Chosen.align = policy, order, align
    examples, steps = (4, 20) if PLAIN else (12, 40)
    run_state_machine_as_test(
        Chosen,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, derandomize=True, deadline=None, database=None
        ),
    )
