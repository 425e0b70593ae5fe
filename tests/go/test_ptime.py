"""Each picosecond of a P is of one kind, whatever happens."""

import random

import numpy as np
import pytest
import simpy

from sim.engine.clock import OBSERVE, after, priority
from sim.go.check import check_heap
from sim.go.metrics import read_metrics
from sim.go.proc import Proc
from sim.go.ptime import KINDS
from sim.jit import PLAIN
from sim.ops import ALLOC, COMPUTE, NEEDZERO, NOSCAN, OP, TOUCH
from sim.units import MIB, MS, NS, SEC, US
from tests.go.sched_world import adds_up, new_world


def mixed(g, rng, depth, channel):
    """Everything a goroutine may do, at random."""
    for _ in range(rng.randrange(1, 6)):
        what = rng.randrange(9)
        if what < 3:
            ops = np.zeros(rng.randrange(1, 40), OP)
            for i in range(len(ops)):
                size = rng.choice((5, 16, 64, 600, 3000, 20_000, 70_000))
                flags = rng.choice((0, NOSCAN, NEEDZERO, TOUCH, NOSCAN | NEEDZERO | TOUCH))
                ops[i] = rng.choice(((ALLOC, flags, i % 4, size, 0), (COMPUTE, 0, 0, rng.randrange(3 * US), 0)))
            yield g.run(ops, 4)
        elif what == 3:
            yield g.compute(rng.choice((1, 50 * US, 13 * MS)))
        elif what == 4:
            yield g.world.env.timeout(rng.choice((0, 1, 7 * US)))
        elif what == 5 and depth:
            children = []
            for _ in range(rng.randrange(1, 9)):
                children.append((yield g.go(mixed, random.Random(rng.random()), depth - 1, channel)))
            yield g.world.env.all_of(children)
        elif what == 6:
            yield channel.put(rng.random())
            yield channel.get()
        else:
            handle = yield g.malloc(rng.choice((24, 1 * MIB)))
            yield g.drop(handle)


def busy_world(nprocs, seed, checks):
    """A world where everything happens; ``checks()`` is called at random instants."""
    rng = random.Random(seed)
    version = rng.choice(("go1.14", "go1.19", "go1.27"))
    cpus = rng.choice((None, 1, max(1, nprocs // 3)))
    prices = {"wake_p": 5 * US, "switch": 100 * NS, "steal": 300 * NS, "os_switch": 2 * US, "goroutine_exit": 30 * NS}
    world = new_world(nprocs, version=version, cpus=cpus, seed=seed, **prices)
    channel = simpy.Store(world.env, 3)

    def observer():
        while True:
            yield after(world.env, rng.randrange(1, 60 * US if cpus is None else 300 * US), priority(OBSERVE, 0))
            checks(world)

    def stopper():
        while True:
            yield world.env.timeout(rng.randrange(200 * US if cpus is None else 1 * MS))
            yield from world.sched.stop_the_world()
            checks(world)
            yield world.env.timeout(rng.choice((0, 3 * US)))
            world.sched.start_the_world()

    gs = [world.go(mixed, random.Random(rng.random()), 2, channel) for _ in range(rng.randrange(1, min(2 * nprocs, 40) + 2))]
    world.env.process(observer())
    world.env.process(stopper())
    world.run(until=world.env.all_of(gs))
    checks(world)
    return world


@pytest.mark.parametrize("nprocs", [1, 8, 64])
@pytest.mark.parametrize("seed", range(2 if PLAIN else 5))
def test_each_picosecond_of_a_p_is_of_one_kind(nprocs, seed):
    if PLAIN and nprocs == 64:
        pytest.skip("too slow uncompiled")
    world = busy_world(nprocs, seed, adds_up)
    metrics = read_metrics(world)
    names = (*KINDS, "malloc", "compute", "first-touch-by-program", "assist")
    whole = sum(metrics[f"/sim/time/{name.replace('_', '-')}:cpu-seconds"] for name in names)
    whole -= metrics["/sim/time/run-ahead:cpu-seconds"]
    assert whole == pytest.approx(nprocs * world.now / SEC)
    check_heap(world.heap)


def test_a_picosecond_that_is_counted_twice_or_not_at_all_is_noticed(monkeypatch):
    right = Proc.turn_to
    monkeypatch.setattr(Proc, "turn_to", lambda p, kind: right(p, kind) if kind != 1 else None)  # LOCKED is forgotten
    with pytest.raises(AssertionError):
        for seed in range(6):
            busy_world(8, seed, adds_up)
