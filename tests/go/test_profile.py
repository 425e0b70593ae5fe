"""Heap-profile samples: a Poisson process over bytes, each with its price."""

import numpy as np
import pytest

from sim.go.metrics import latency
from sim.go.world import World
from sim.jit import PLAIN
from sim.ops import ALLOC, NO_OBJ, NOSCAN, OP
from tests.go.prices import made_up_prices


def allocate(g, sizes):
    ops = np.zeros(len(sizes), OP)
    ops["kind"], ops["flags"], ops["obj"], ops["arg"] = ALLOC, NOSCAN, NO_OBJ, sizes
    yield g.run(ops)


def profiled(rate, sizes):
    world = World("go1.27", 1, made_up_prices(), 3, gogc=-1, memprofilerate=rate)
    world.go(allocate, sizes)
    world.run()
    return world


def test_samples_come_once_in_so_many_bytes():
    sizes = np.resize([64, 1024, 256, 40_000, 16], 500 if PLAIN else 50_000)
    rate = 20_000
    world = profiled(rate, sizes)
    slots = int(world.heap.fields.live_bytes) + 16 * int((sizes == 16).sum())  # of tiny span class, not in live_bytes
    profile = latency(world)["profile"]
    # an object of s bytes is sampled with probability 1 - exp(-s / rate)
    elem = np.where(sizes == 40_000, 40_960, sizes)
    chance = 1 - np.exp(-elem / rate)
    assert elem.sum() == slots
    assert abs(profile.count - chance.sum()) < 4 * np.sqrt((chance * (1 - chance)).sum())
    assert profile.total == profile.count * world.prices.steps["profile_sample"].mean


@pytest.mark.parametrize("size", [64, 40_000])
def test_no_profile_no_samples(size):
    assert "profile" not in latency(profiled(0, [size] * 1000))
