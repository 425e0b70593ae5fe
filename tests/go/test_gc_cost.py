"""What the collector costs us: events and words, counted, never timed. (experiments/big_heap.py times a large heap)"""

import numpy as np
import pytest

from experiments.big_heap import measure
from sim.go import mspan
from sim.go.state import SPAN_IN_USE
from sim.go.world import World
from sim.jit import PLAIN
from sim.ops import ALLOC, NO_OBJ, OP
from sim.units import MIB
from tests.go.prices import made_up_prices

SIZES = (16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)

# Events of SimPy and calls of the pump, a million mallocs of ten sizes, 16 MiB live, GOGC=100: allowed, and as they were
# when this was written. A P's hold of the heap lock, or its wait for it, is no event; a cycle is some thirty events a P for
# its stops, and a look of a worker every 100,000 bytes scanned; a background sweep is an event every tenth span, on go1.19,
# which yields after each, three a span; a step of the scavenger is one. Without the collector: 30 on 8 Ps, 170 on 64.
BUDGETS = [
    ("go1.27", 1, 1_600),  # 1,240, most of them the scavenger's
    ("go1.27", 8, 6_000),  # 4,550
    ("go1.27", 64, 25_000),  # 11,900 to 19,400, as it falls: another picosecond a page fault is another number
    ("go1.19", 1, 600),  # 460
    ("go1.19", 8, 9_300),  # 7,100
    ("go1.19", 64, 45_000),  # 36,200
]


def mixed(g, variables, rounds):
    """Goroutine: replaces what its variables hold, again and again."""
    ops = np.zeros(variables, OP)
    ops["kind"], ops["obj"], ops["ptr_bytes"] = ALLOC, range(variables), 8
    ops["arg"] = [SIZES[i % len(SIZES)] for i in range(variables)]
    for _ in range(rounds):
        yield g.run(ops, variables)


@pytest.mark.skipif(PLAIN, reason="millions of allocations")
@pytest.mark.parametrize(("version", "nprocs", "budget"), BUDGETS)
def test_events_a_million_mallocs_with_the_collector_on(version, nprocs, budget):
    world = World(version, nprocs, made_up_prices(version), 1)
    gs = [world.go(mixed, 16 * MIB // nprocs // 220, 68) for _ in range(nprocs)]
    world.run(until=world.env.all_of(gs))
    mallocs = int(world.heap.arrays["procs"]["mallocs"].sum())
    assert mallocs > 2_000_000
    assert len(world.gc.log.cycles) >= 15
    events = next(world.env._eid) + world.sched.driver.events
    assert events * 1_000_000 // mallocs <= budget


def events_of_marking(live):
    """Events from mark set-up to mark termination while nothing else runs, on two Ps; and scan work."""
    world = World("go1.27", 2, made_up_prices(), 1, gogc=-1, globals_bytes=0)
    counts = {}

    def watcher(stage):
        counts[stage] = next(world.env._eid) + world.sched.driver.events

    def main(g):
        ops = np.zeros(live // 1024, OP)
        ops["kind"], ops["obj"], ops["arg"], ops["ptr_bytes"] = ALLOC, NO_OBJ, 1016, 8
        yield g.run(ops, 0)
        yield from world.gc.collect(g)

    world.gc.watcher = watcher
    world.run(until=world.go(main))
    return counts["marked"] - counts["marking"]


def test_events_of_a_mark_phase_do_not_grow_with_its_objects():
    """But for looks of workers: one every 100,000 bytes of scan work, here 16 bytes an object, and one each root job, of
    which a second arena has 16."""
    few, many = events_of_marking(MIB // 4), events_of_marking(MIB if PLAIN else 64 * MIB)
    assert many - few <= 3 * (64 * MIB // 1024 * 16 // 100_000 + 16)


@pytest.mark.skipif(not PLAIN, reason="compiled code cannot be counted")
@pytest.mark.parametrize("version", ["go1.27", "go1.19"])
def test_marking_visits_each_bitmap_word_once_however_many_objects_it_holds(version, monkeypatch):
    """Of spans with pointers once more before, for how much is going to be read."""
    visited = []
    allocated_word = mspan.allocated_word
    world = World(version, 1, made_up_prices(version), 1, gogc=-1)

    def counted(h, s, i):
        visited.append((int(s), int(i)))
        return allocated_word(h, s, i)

    def watcher(stage):
        if stage == "swept":
            visited.clear()
        elif stage == "marking":
            spans = world.heap.arrays["spans"][: int(world.heap.fields.nspans)]
            used = np.flatnonzero(spans.state == SPAN_IN_USE)
            words = [(int(s), i) for s in used for i in range((int(spans.nelems[s]) + 63) // 64)]
            read = [word for word in words if spans.spanclass[word[0]] & 1 == 0]
            seen.append((sorted(visited) == sorted(words + read), len(words)))

    def main(g):
        for size, keep in ((8, 1), (8, 50), (64, 1), (64, 50)):  # one object in so many lives
            ops = np.zeros(400, OP)
            ops["kind"], ops["arg"], ops["obj"] = ALLOC, size, [NO_OBJ if i % keep == 0 else i for i in range(400)]
            yield g.run(ops, 400)
            yield from world.gc.collect(g)

    seen = []
    monkeypatch.setattr(mspan, "allocated_word", counted)
    world.gc.watcher = watcher
    world.run(until=world.go(main))
    assert len(seen) == 4
    assert all(right for right, _ in seen)


def test_a_large_heap_is_built_marked_and_counted():
    """The experiment that times 10 GiB, with little."""
    nbytes = MIB // 8 if PLAIN else 64 * MIB
    figures = measure(nbytes)
    assert figures["objects"] == nbytes // 64
    assert figures["bitmap words"] == 2 * figures["spans"]
    assert figures["spans"] == -(-figures["objects"] // 124)  # of 8 KiB less 128 bytes of marks and 128 of pointer bits
