"""With one P and no collection the rooms must hand out the very addresses the real runtime did."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.errors import InputError
from experiments.replay import replay
from sim.jit import PLAIN
from tests.traces import trace_path
from workloads.gotrace import read_trace
from workloads.gotrace_model import OBJECT_ALLOC, SPAN_ALLOC, STACK_FREE

pytestmark = pytest.mark.skipif(PLAIN, reason="hundreds of thousands of events")

# spans and objects of each trace, as the record's own summary counts them
RECORDED = {
    "gofmt-nethttp_server-P1-gogc_off": (233, 39380),
    "test-fmt-tests-P1-gogc_off": (131, 24214),
    "compile-go_scanner-P1-gogc_off": (1512, 167374),
}


@pytest.mark.parametrize("name", RECORDED)
def test_every_span_and_slot_at_the_recorded_address(name):
    result = replay(read_trace(trace_path(name)))
    assert (result.spans_total, result.slots_total) == RECORDED[name]
    assert result.spans_matched == result.spans_total
    assert result.slots_matched + result.excepted == result.slots_total
    assert result.excepted < 70  # at most one a span class and P
    assert not any(result.misses.values()) and result.unknown_events == 0


@pytest.fixture(scope="module")
def smallest():
    return read_trace(trace_path("test-fmt-tests-P1-gogc_off"))


def test_a_span_elsewhere_is_a_miss_and_causes_no_other(smallest):
    moved = smallest.a.copy()
    at = np.flatnonzero((smallest.kind == SPAN_ALLOC) & (smallest.c & 1 == 1))[-1]
    moved[at] += 64
    result = replay(replace(smallest, a=moved))
    assert result.misses["fresh_span_elsewhere"] >= 1
    assert result.spans_matched < result.spans_total


def test_an_object_elsewhere_is_a_miss(smallest):
    moved = smallest.a.copy()
    at = np.flatnonzero(smallest.kind == OBJECT_ALLOC)[5000]
    moved[at] += 1 << 20
    result = replay(replace(smallest, a=moved))
    assert result.slots_matched + result.excepted < result.slots_total
    assert sum(result.misses.values()) >= 1


def test_a_trace_without_allocations_says_which_setting_it_needs(smallest):
    keep = smallest.kind > STACK_FREE
    columns = {name: getattr(smallest, name)[keep] for name in ("time_ns", "kind", "p", "m", "g", "a", "b", "c", "stack")}
    with pytest.raises(InputError, match="GODEBUG=traceallocfree=1"):
        replay(replace(smallest, **columns))
