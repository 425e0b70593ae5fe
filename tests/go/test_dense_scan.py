"""How much scan work a cycle counts of spans of small objects: whole slots where an eighth of them or more are marked."""

from dataclasses import replace

import numpy as np
import pytest

from sim.go.params import VERSIONS
from sim.go.world import World
from sim.ops import ALLOC, DEAD, OP
from tests.go.prices import made_up_prices

SIZE, POINTERS = 64, 8
NELEMS = (8192 - 128 - 128) // SIZE  # in a span with its pointer bitmap and its mark bits
LIVE = (0, 1, 2, NELEMS // 8 - 1, NELEMS // 8, NELEMS)  # objects that live, by span


def program(g):
    """Goroutine: fill a span for each of LIVE, let so many of its objects live, and collect."""
    n = len(LIVE) * NELEMS
    ops = np.zeros(n, OP)
    ops["kind"], ops["obj"], ops["arg"], ops["ptr_bytes"] = ALLOC, range(n), SIZE, POINTERS
    yield g.run(ops, n)
    dead = np.flatnonzero(np.arange(n) % NELEMS >= np.repeat(LIVE, NELEMS))
    drops = np.zeros(len(dead), OP)
    drops["kind"], drops["obj"] = DEAD, dead
    yield g.run(drops, n)
    yield from g.world.gc.collect(g)


def work(facts, wide_vectors=True):
    """Heap scan work of the one cycle."""
    world = World(facts, 1, replace(made_up_prices(), wide_vectors=wide_vectors), 1, gogc=-1)
    world.run(until=world.go(program))
    (cycle,) = world.gc.log.cycles
    return cycle.heap_scan_work


@pytest.mark.parametrize("dense", [True, False])
def test_dense_spans_count_whole_slots(dense):
    """By hand, span by span: one object alone and fewer than an eighth count what they hold up to their last pointer."""
    facts = replace(VERSIONS["go1.27"], dense_scan=dense)
    expected = sum(live * (SIZE if dense and live > 1 and live >= NELEMS // 8 else POINTERS) for live in LIVE)
    assert work(facts) == expected


def test_machines_without_wide_vectors_scan_no_span_densely():
    assert work(VERSIONS["go1.27"], wide_vectors=False) == sum(LIVE) * POINTERS


def test_older_versions_know_no_dense_spans():
    assert work(VERSIONS["go1.19"]) == sum(LIVE) * POINTERS
