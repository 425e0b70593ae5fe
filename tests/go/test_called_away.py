"""A time slice that is over when an assist is: who leaves its P in the middle of the malloc (pump.py:is_called_away)."""

from dataclasses import replace

import numpy as np
import pytest

import sim.go.proc
from sim.go.params import VERSIONS
from sim.go.state import CAUSES
from sim.go.world import World
from sim.jit import PLAIN
from sim.metrics.histogram import BUCKETS
from sim.ops import ALLOC, OP
from sim.units import KIB, MS
from tests.go.test_gc_theory import bare_prices

pytestmark = pytest.mark.skipif(PLAIN, reason="a hundred thousand allocations")


def left(facts, size):
    """Mallocs that were off their P, of two goroutines on one that do little but mark in assists."""
    world = World(facts, 1, bare_prices("go1.27", mark_object=size * 20), 1, globals_bytes=128 * KIB)
    ops = np.zeros(20_000, OP)
    ops["kind"], ops["obj"], ops["arg"], ops["ptr_bytes"] = ALLOC, range(20_000), size, size

    def program(g):
        for _ in range(40):
            yield g.run(ops, 20_000)

    world.run(until=world.env.all_of([world.go(program) for _ in range(2)]))
    assert len(world.gc.log.cycles) > 3 and sum(p.times()["assist"] for p in world.sched.procs) > 0
    return int(world.heap.arrays["histograms"].reshape(-1, BUCKETS)[CAUSES.index("off_p")].sum())


@pytest.mark.parametrize(
    ("version", "size", "leaves"), [("go1.19", 96, False), ("go1.27", 80, False), ("go1.27", 96, True)]
)
def test_only_larger_objects_of_go127_leave_after_an_assist(version, size, leaves, monkeypatch):
    """Against a runtime in which all do, and one in which none does."""
    monkeypatch.setattr(sim.go.proc, "TIME_SLICE", MS // 10)
    monkeypatch.setattr(sim.go.proc, "TIMER_SLACK", 0)
    facts = VERSIONS[version]
    never, always = (left(replace(facts, assist_inlined=most), size) for most in (1 << 60, 0))
    assert always > 1.2 * never
    assert left(facts, size) == (always if leaves else never)
