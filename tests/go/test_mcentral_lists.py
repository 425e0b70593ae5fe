"""mcentral of go1.14, how often its mutex is taken (mcentral.go:cacheSpan of that release): by hand, hold for hold."""

import numpy as np
import pytest

from sim.go.check import check_heap
from sim.go.world import World
from sim.ops import ALLOC, DEAD, NO_OBJ, OP
from tests.go.heap_ops import cycle
from tests.go.prices import made_up_prices

SIZE, SLOTS = 1024, 8  # objects of a span of 8 KiB, without pointers bitmap or header below go1.27


def allocate(n, first):
    """n objects into variables from ``first`` on, or into none."""
    ops = np.zeros(n, OP)
    for i in range(n):
        ops[i] = (ALLOC, 0, NO_OBJ if first is None else first + i, SIZE, 8)
    return ops


def run(version, spans, dead, more=1):
    """Fill spans and one more, let one object die in each of ``dead``, collect, allocate ``more`` objects.

    The one more is cached when the collection comes, which then sweeps it. What each object took: (holds of the mutex,
    new spans).
    """
    world = World(version, 1, made_up_prices(version), 1, gogc=-1)
    seen = []

    def worker(g):
        yield g.run(allocate((spans + 1) * SLOTS, 0), (spans + 1) * SLOTS)
        for span in dead:
            drop = np.zeros(1, OP)
            drop[0] = (DEAD, 0, span * SLOTS, 0, 0)
            yield g.run(drop, (spans + 1) * SLOTS)
        cycle(g.world.heap.header)
        for _ in range(more):
            before = [lock.acquisitions for lock in world.central_locks], int(world.heap.fields.pages_in_use)
            yield g.run(allocate(1, None))
            after = [lock.acquisitions for lock in world.central_locks], int(world.heap.fields.pages_in_use)
            seen.append((sum(after[0]) - sum(before[0]), after[1] - before[1]))

    world.run(until=world.go(worker))
    check_heap(world.heap)
    assert all(lock.holder is None for lock in world.central_locks)
    return seen


def test_a_fresh_span_takes_it_twice_and_a_hit_in_the_cache_never():
    world = World("go1.14", 1, made_up_prices("go1.14"), 1, gogc=-1)

    def worker(g):
        yield g.run(allocate(3 * SLOTS, None))

    world.run(until=world.go(worker))
    assert sum(lock.acquisitions for lock in world.central_locks) == 3 * 2
    assert sum(lock.waits for lock in world.central_locks) == 0


@pytest.mark.parametrize("full", [0, 1, 5])
def test_a_full_span_is_swept_after_the_unlock_and_costs_a_hold(full):
    assert run("go1.14", full + 1, [full]) == [(full + 1, 0)]


def test_there_is_no_budget():
    assert run("go1.14", 150, [149]) == [(150, 0)]
    assert run("go1.19", 150, [149]) == [(0, 1)], "after 101 spans go1.19 takes a fresh one"


def test_nothing_with_room_costs_a_hold_for_each_and_two_for_the_fresh_one():
    assert run("go1.14", 4, []) == [(4 + 2, 1)]


def test_a_span_swept_with_room_is_used_up_then_the_next_is_found():
    # a slot in span 0 and one in 2: the second refill sweeps 1, which stays full, and takes 2
    assert run("go1.14", 3, [0, 2], more=2) == [(1, 0), (2, 0)]
