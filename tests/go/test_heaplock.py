"""mheap.lock: whoever keeps it, compiled code or the timed lock in Python, the program's run is the same."""

import numpy as np
import pytest

from sim.go.check import check_heap
from sim.go.check_gc import check_times
from sim.go.world import World
from sim.jit import PLAIN
from sim.metrics.timeline import Timeline
from sim.ops import ALLOC, COMPUTE, NEEDZERO, OP, TOUCH
from sim.units import NS, US
from tests.go.prices import made_up_prices

SIZES = (2048, 8192, 8192, 24_576, 40_000, 90_000, 8192)  # a span for most objects: the lock is taken again and again
COUNTS = ("acquisitions", "releases", "waits", "total_wait", "longest_wait", "total_hold", "spins", "futex_sleeps")


def allocates(g, index, rounds):
    """Goroutine: replaces what its variables hold, with some computing in between."""
    ops = np.zeros(2 * len(SIZES), OP)
    ops["kind"], ops["flags"], ops["obj"] = ALLOC, NEEDZERO | TOUCH, np.arange(len(ops)) // 2
    ops["arg"] = np.repeat(SIZES, 2)
    ops["ptr_bytes"] = 64
    ops["kind"][1::2], ops["flags"][1::2], ops["arg"][1::2] = COMPUTE, 0, 100 * NS * (1 + index % 3)
    for _ in range(rounds):
        yield g.run(ops, len(SIZES))


def seen(world):
    """What a run came to so far: times of every P, the lock's counts, mallocs."""
    check_times(world)
    lock = world.heap_lock
    lock.check()
    return [p.times() for p in world.sched.procs], [getattr(lock, name) for name in COUNTS], world.mallocs


def run(version, nprocs, gogc, timeline):
    """A run that is looked at now and then: what was seen, what became of every table, the world."""
    world = World(version, nprocs, made_up_prices(version), 1, gogc=gogc, timeline=timeline, cpus=max(nprocs // 2, 1))
    gs = [world.go(allocates, i, 6 if PLAIN else 60) for i in range(nprocs + 2)]
    log = []
    for _ in range(4):
        for step in (1, 33 * US, 100 * US):
            world.run(until=world.now + step)
            log.append(seen(world))
    world.run(until=world.env.all_of(gs))
    log.append((world.now, *seen(world)))
    check_heap(world.heap)
    arrays = world.heap.arrays
    tables = [arrays[name].tobytes() for name in ("histograms", "cause_time", "cause_max", "fast_calls", "page_span")]
    return log, tables, world


CASES = [("go1.27", 1, -1), ("go1.27", 16, -1), ("go1.27", 16, 20), ("go1.19", 16, 20), ("go1.14", 16, 20)]


@pytest.mark.parametrize(("version", "nprocs", "gogc"), CASES)
def test_who_keeps_the_lock_changes_nothing(version, nprocs, gogc):
    """A timeline is told of every hold, so that Python keeps the lock then."""
    log, tables, world = run(version, nprocs, gogc, None)
    timed_log, timed_tables, timed_world = run(version, nprocs, gogc, Timeline())
    assert log == timed_log
    assert tables == timed_tables
    assert world.heap_lock.acquisitions > 20
    assert nprocs == 1 or world.heap_lock.waits > 0
    assert world.sched.driver.events < timed_world.sched.driver.events


def test_a_hold_of_compiled_code_is_waited_for():
    """Two Ps, one lock: a thread outside comes while a P holds it, and waits for the rest of that hold."""
    world = World("go1.27", 1, made_up_prices(), 1, gogc=-1)
    g = world.go(allocates, 0, 20)
    header = world.heap.tables
    while header.scalar("heap_lock_holder") < 0:
        world.run(until=world.now + 10_000)
    assert world.sched.procs[0].ahead() == 0
    asked = world.now
    granted = []

    def outsider():
        yield from world.heap_lock.acquire(1, world.now)
        granted.append(world.now)
        yield world.env.timeout(5 * US)
        world.heap_lock.release(1, world.now)

    end = int(world.heap.arrays["p_time"][0])
    world.env.process(outsider())
    world.run(until=g)
    assert len(granted) == 1
    assert granted[0] >= end > asked
    assert world.heap_lock.waits >= 1
