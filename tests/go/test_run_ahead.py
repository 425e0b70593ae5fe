"""Run-ahead is exact: the log of a run is the same whether every operation is an event or Ps run whole segments."""

import random

import numpy as np
import pytest

from sim.go import pump
from sim.go.check import check_heap
from sim.go.world import World
from sim.jit import PLAIN
from sim.ops import ALLOC, COMPUTE, DEAD, NEEDZERO, NO_OBJ, NOSCAN, OP, TOUCH
from sim.units import NS, US
from tests.go.prices import made_up_prices

SIZES = [1, 7, 8, 12, 16, 64, 64, 200, 600, 1024, 3000, 9000, 32760, 70_000, 1 << 20]


def batch(rng, n, variables):
    """Random operations: allocations of every kind, deaths, computes short and long, many of equal length."""
    ops = np.zeros(n, OP)
    held = set()
    for i in range(n):
        what = rng.random()
        if what < 0.7:
            flags = rng.choice((0, NOSCAN)) | rng.choice((0, NEEDZERO)) | rng.choice((0, TOUCH))
            size = rng.choice(SIZES[:10]) if rng.random() < 0.97 else rng.choice(SIZES)
            obj = rng.choice((NO_OBJ, rng.randrange(variables)))
            ops[i] = (ALLOC, flags, obj, size, 0 if flags & NOSCAN else max(size // 16 * 8, 8))
            held.add(obj)
        elif what < 0.85:
            ops[i] = (DEAD, 0, rng.randrange(variables), 0, 0)
        else:
            ops[i] = (COMPUTE, 0, 0, rng.choice((50 * NS, 100 * NS, 700 * NS, 3 * US, 40 * US)), 0)
    return ops


def goroutine(g, seed, batches, n):
    rng = random.Random(seed)
    children = []
    for _ in range(batches):
        yield g.run(batch(rng, n, 50), 50)
        what = rng.random()
        if what < 0.2:
            yield g.world.env.timeout(rng.choice((0, 1000, 5 * US)))
        elif what < 0.3 and batches > 1:
            children.append((yield g.go(goroutine, rng.random(), 1, n)))
        elif what < 0.5:
            handle = yield g.malloc(rng.choice(SIZES[:9]))
            yield g.drop(handle)
    yield from children  # nobody may have run ahead of the end


def stopper(world, seed, log):
    """Process: stop the world at random instants for a while; what it sees is part of the log."""
    rng = random.Random(seed)
    while True:
        yield world.env.timeout(rng.choice((1, 500 * NS, 3 * US, 20 * US)) * rng.randrange(1, 4))
        asked = world.env.now
        yield from world.sched.stop_the_world()
        allocated = int(world.heap.fields.live_objects)
        log.append(("stopped", asked, world.env.now, allocated, [int(t) for t in world.heap.arrays["p_time"]]))
        yield world.env.timeout(rng.choice((0, 100, 10 * US)))
        world.sched.start_the_world()


def run(run_ahead, nprocs, seed, *, cpus=None, version="go1.27", goroutines=None, batches=3, n=150, stops=True, gogc=-1):
    world = World(
        version, nprocs, made_up_prices(version), seed, run_ahead=run_ahead, log_lines=400_000, cpus=cpus, gogc=gogc
    )
    log = []
    gs = [world.go(goroutine, seed * 1000 + i, batches, n) for i in range(goroutines or nprocs + 2)]
    if stops:
        world.env.process(stopper(world, seed, log))
    world.run(until=world.env.all_of(gs))
    check_heap(world.heap)
    lines = world.heap.arrays["log"][: int(world.heap.fields.log_used)]
    return world, log, lines


def same(a, b):
    """Both logs: everything shared in its order, private operations by P."""
    (world, stops, lines), (other, other_stops, other_lines) = a, b
    assert stops == other_stops
    assert world.env.now == other.env.now
    for private in (False, True):
        mine, theirs = (
            x[np.isin(x["kind"], (pump.LOG_OBJECT, pump.LOG_DEAD)) == private] for x in (lines, other_lines)
        )
        if private:
            mine, theirs = (x[np.lexsort((np.arange(len(x)), x["p"]))] for x in (mine, theirs))
        assert len(mine) == len(theirs)
        different = np.flatnonzero(np.asarray(mine != theirs))
        assert not len(different), f"line {different[0]}: {mine[different[0]]} or {theirs[different[0]]}"
    for name in ("histograms", "cause_time", "fast_calls"):
        assert np.array_equal(world.heap.arrays[name], other.heap.arrays[name])


CASES = [(p, v) for v in ("go1.27", "go1.14") for p in (1, 2, 8, 64)]


@pytest.mark.parametrize(("nprocs", "version"), CASES)
@pytest.mark.parametrize("seed", range(1 if PLAIN else 2))
def test_log_is_the_same_with_run_ahead_off(nprocs, version, seed):
    scale = {"batches": 1, "n": 12, "goroutines": min(nprocs, 8)} if PLAIN else {}
    off = run(False, nprocs, seed, version=version, **scale)
    on = run(True, nprocs, seed, version=version, **scale)
    same(on, off)
    assert on[0].sched.driver.events < off[0].sched.driver.events
    assert on[1] or PLAIN, "the world was never stopped"


@pytest.mark.parametrize("seed", range(1 if PLAIN else 2))
def test_log_is_the_same_with_fewer_cpus_than_ps(seed):
    scale = {"batches": 1, "n": 12} if PLAIN else {"n": 800}
    same(*(run(ahead, 8, seed, cpus=2, **scale) for ahead in (False, True)))


@pytest.mark.parametrize(("nprocs", "version"), CASES)
@pytest.mark.parametrize("seed", range(1 if PLAIN else 2))
def test_log_is_the_same_with_run_ahead_off_while_collecting(nprocs, version, seed):
    """A heap of at least 80 KiB is collected again and again."""
    scale = {"batches": 2, "n": 40, "goroutines": min(nprocs, 8), "gogc": 1} if PLAIN else {"gogc": 2, "n": 400}
    off = run(False, nprocs, seed, version=version, **scale)
    on = run(True, nprocs, seed, version=version, **scale)
    same(on, off)
    assert on[0].gc.log.cycles == off[0].gc.log.cycles
    assert PLAIN or len(on[0].gc.log.cycles) >= 3
    for p, q in zip(on[0].sched.procs, off[0].sched.procs, strict=True):
        mine, theirs = ({k: t for k, t in x.times().items() if k != "ahead"} for x in (p, q))
        assert sum(mine.values()) - p.ahead() == sum(theirs.values()) - q.ahead() == on[0].now


def test_a_touch_out_of_turn_is_noticed(monkeypatch):
    """The comparison fails when ties between Ps are broken the other way round in one of the runs."""
    a = run(True, 2, 1, stops=False, n=20 if PLAIN else 150)
    b = run(True, 2, 1, stops=False, n=20 if PLAIN else 150)
    b[2]["p"] = 1 - b[2]["p"]
    with pytest.raises(AssertionError):
        same(a, b)
