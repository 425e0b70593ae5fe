"""TCMalloc on the clock: against a slow event simulation, without a clock, and against theory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sim.ops import ALLOC, COMPUTE, DEAD, NO_OBJ, OP
from sim.tcmalloc.check import check
from sim.tcmalloc.heap import TCMalloc
from sim.tcmalloc.prices import STEPS
from sim.tcmalloc.world import TCMallocWorld
from sim.threads.state import NEVER
from sim.threads.world import ThreadPrices
from sim.units import Throw
from tests.tcmalloc import clock_oracle
from tests.tcmalloc.clock_oracle import BUDGET, HANDOFF, PRICES, THREADS, operations, state

ROOT = Path(__file__).parents[2]
SEEDS = (1, 2, 3, 4)
SPENT = ("malloc_time", "free_time", "compute_time", "touch_time", "idle_time", "queued_time", "switch_time")


def world(nthreads=THREADS, steps=None, **options):
    prices = ThreadPrices("test", PRICES | (steps or {}), HANDOFF, 10_000_000, 2_000_000, 0, {})
    return TCMallocWorld(nthreads, prices, 1, **options)


def start(w, batches):
    for t, ops in enumerate(batches):
        w.submit(t, ops)
        w.wake(t, 0, 0)


def finish(w):
    """Run all threads to the ends of their batches: when each was there."""
    ends = {}
    while (t := w.advance(NEVER)) is not None:
        ends[t] = w.now
        w.rest(t)
    check(w.heap)
    for t, end in ends.items():
        row = w.clock.arrays["threads"][t]
        assert sum(int(row[name]) for name in SPENT) == end
    return ends


@pytest.fixture(scope="module")
def oracle():
    """What the slow simulation says of each seed."""
    env = os.environ | {"NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, clock_oracle.__file__, *map(str, SEEDS)]
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    return dict(zip(SEEDS, json.loads(run.stdout), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_every_call_and_the_heap_equal_the_slow_simulation(oracle, seed):
    w = world(overall_cache_size=BUDGET, log_lines=1 << 16)
    start(w, [operations(seed, t) for t in range(THREADS)])
    finish(w)
    wanted = oracle[seed]
    assert sorted(w.log()) == [tuple(line) for line in wanted["log"]]
    assert json.loads(json.dumps(state(w.heap))) == wanted["state"]
    assert sum(one.waits for one in w.locks().values()) == wanted["waited"]


def test_the_slow_simulation_sees_every_stage(oracle):
    seen = {name: sum(one["seen"][name] for one in oracle.values()) for name in oracle[1]["seen"]}
    rare = "transfer_hits stored slots_stolen empty_spans budget_stolen too_long split_set growths"
    assert [name for name in rare.split() if not seen[name]] == []
