"""Recorded stacks of real programs (Go 1.27.3) against the rooms: every address; stack_replay.py says what is inferred."""

from functools import lru_cache

import pytest

from sim.jit import PLAIN
from tests.go import stack_ops as ops
from tests.go.stack_replay import Replay
from tests.traces import trace_path
from workloads import gotrace_model as t
from workloads.gotrace import read_trace

pytestmark = pytest.mark.skipif(PLAIN, reason="reads traces of hundreds of thousands of events")

TRACES = {  # name: (stacks, of them from before the trace began, spans)
    "compile-go_scanner-P1-gogc_off": (19, 10, 4),
    "gofmt-nethttp_server-P1-gogc_off": (11, 6, 2),
    "test-fmt-tests-P1-gogc_off": (189, 6, 7),
}


@lru_cache(maxsize=1)
def open_trace(name):
    return read_trace(trace_path(name))


@pytest.mark.parametrize("name", list(TRACES))
def test_every_stack_of_a_program_on_one_p_is_handed_out_in_the_recorded_order(name):
    replay = Replay(open_trace(name))
    stacks, old, spans = TRACES[name]
    assert replay.counts == {
        "stacks": stacks,
        "matched": stacks,
        "old": old,
        "old matched": old,
        "spans": spans,
        "spans when recorded": spans,
    }
    replay.check()


def test_on_two_ps_with_collections_every_stack_that_is_not_from_before_the_trace_is():
    replay = Replay(open_trace("xbench-json-P2-gogc_default"))
    counts = replay.counts
    assert (counts["stacks"], counts["old"], counts["spans"], counts["spans when recorded"]) == (22, 15, 5, 5)
    assert all(old for _, _, old in replay.misses)
    replay.check()


class Impatient(Replay):
    """Flushes caches as soon as the mark is over, with the world still stopped."""

    def step(self, kind, p, a, b, c):
        super().step(kind, p, a, b, c)
        if kind == t.GC_END:
            self.flush()


class Empty(Replay):
    """Begins with empty caches."""

    def cut(self, span, size, used):
        super().cut(span, size, used)
        ops.stackcache_clear(self.header(), 0)


@pytest.mark.parametrize("wrong", [Impatient, Empty])
def test_what_the_runtime_does_otherwise_shows(wrong):
    assert len(wrong(open_trace("test-fmt-tests-P1-gogc_off")).misses) > 0
