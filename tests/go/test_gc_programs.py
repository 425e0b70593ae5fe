"""Whole programs with the collector on: every invariant after every stage, an end, and the same run again.

Programs allocate, drop, compute, wait, start goroutines, call runtime.GC and ReadMemStats, and change GOGC and the
memory limit while they run (tests/go/gc_program.py); the world is stopped from outside besides.
"""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.engine.clock import OBSERVE, after, priority
from sim.go.check_gc import check_times
from sim.go.world import World
from sim.jit import PLAIN
from sim.units import MIB, NS, US
from tests.go.gc_program import (
    LIMITS,
    PERCENTS,
    SIZES,
    Program,
    Shadow,
    body,
    draw_program,
    run_program,
    with_messages,
)
from tests.go.prices import made_up_prices
from tests.go.test_run_ahead import same

ROOT = Path(__file__).parent.parent.parent
BATCH = 40 if PLAIN else 250


def slow_marking(version, factor):
    """Prices with marking so many times as dear."""
    prices = made_up_prices(version)

    def dear(m):
        names = ("scan_object", "noscan_object", "small_byte", "large_byte", "middle_object", "middle_byte")
        return replace(m, **{name: factor * getattr(m, name) for name in names})

    return replace(prices, mark={shape: [dear(m) for m in heaps] for shape, heaps in prices.mark.items()})


WAITS = st.sampled_from((0, 1000, 5 * US, 90 * US))
STEP = st.one_of(
    st.tuples(st.just("run"), st.integers(0, 1 << 30), st.integers(1, BATCH)),
    st.tuples(st.just("run"), st.integers(0, 1 << 30), st.integers(1, BATCH)),
    st.tuples(st.sampled_from(("drop", "collect", "stats"))),
    st.tuples(st.sampled_from(("sleep", "compute")), WAITS),
    st.tuples(st.sampled_from(("malloc", "free")), st.sampled_from(SIZES[:9])),
    st.tuples(st.just("percent"), st.sampled_from(PERCENTS)),
    st.tuples(st.just("limit"), st.sampled_from(LIMITS)),
)
CHILD = st.tuples(st.just("go"), st.lists(STEP, max_size=4).map(tuple))
BODY = st.lists(st.one_of(STEP, STEP, CHILD), min_size=1, max_size=4 if PLAIN else 14).map(tuple)


@st.composite
def programs(draw):
    """A program, and where it runs: (program, options of `run_program`)."""
    bodies = draw(st.lists(BODY, min_size=1, max_size=5))
    pairs = draw(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=6))
    stops = draw(st.lists(st.tuples(st.sampled_from((1, 3 * US, 50 * US)), st.sampled_from((0, 100, 10 * US))), max_size=5))
    program = Program(with_messages(bodies, pairs), tuple(stops), draw(st.integers(0, 1 << 30)))
    version = draw(st.sampled_from(("go1.27", "go1.19", "go1.14")))
    nprocs, cpus = draw(st.sampled_from(((1, 1), (2, 2), (3, 1), (3, 3), (8, 2), (8, 8), (64, 64), (64, 5))))
    prices = slow_marking(version, draw(st.sampled_from((1, 40))))
    options = {"gogc": draw(st.sampled_from((1, 5, 20))), "memory_limit": draw(st.sampled_from((None, 8 * MIB, 16 * MIB)))}
    options["globals_bytes"] = draw(st.sampled_from((0, 5000, 128 << 10)))
    return program, {"version": version, "nprocs": nprocs, "cpus": cpus, "prices": prices} | options


@given(programs())
@settings(max_examples=3 if PLAIN else 25, derandomize=True, deadline=None, database=None)
def test_every_invariant_holds_in_every_cycle_and_the_program_ends(drawn):
    program, options = drawn
    world, checker = run_program(program, **options)
    assert checker.stages["sweeping"] == len(world.gc.log.cycles)
    check_times(world)


GRID = [
    (version, nprocs, cpus)
    for version, nprocs, cpus in (
        *(("go1.27", *n) for n in ((1, 1), (2, 2), (3, 1), (3, 2), (8, 8), (64, 64))),
        *(("go1.19", *n) for n in ((1, 1), (3, 3), (8, 2), (64, 5))),
        ("go1.14", 2, 2),
        ("go1.14", 8, 8),
    )
]
SCALE = {"length": 8, "n": 100} if PLAIN else {"length": 14, "n": 300}


@pytest.mark.parametrize(("version", "nprocs", "cpus"), GRID[3::5] if PLAIN else GRID)
def test_programs_of_many_cycles(version, nprocs, cpus):
    """As above with more cycles than Hypothesis cares to draw."""
    world, checker = run_program(draw_program(nprocs, 6, **SCALE), version, nprocs, cpus=cpus)
    cycles = len(world.gc.log.cycles)
    assert checker.stages["sweeping"] == cycles
    assert cycles >= (1 if PLAIN else 5)


# ------------------------------------------------------------------------------------------- the same again


def digest(world):
    """A run's bytes: cycles, latencies, times of Ps, where objects lie."""
    text = repr((world.now, world.gc.log.cycles, [p.times() for p in world.sched.procs]))
    state = hashlib.sha256(text.encode())
    for name in ("histograms", "cause_time", "fast_calls", "words", "small_alloc_count"):
        state.update(np.ascontiguousarray(world.heap.arrays[name]).tobytes())
    return state.hexdigest()


def run_for_digest(version, nprocs, limit):
    program = draw_program(5, 5, **SCALE)
    return digest(run_program(program, version, nprocs, checked=False, memory_limit=limit)[0])


@pytest.mark.parametrize(("version", "nprocs"), [("go1.27", 3)] if PLAIN else [("go1.27", 3), ("go1.19", 8)])
@pytest.mark.parametrize("limit", [None, 16 * MIB])
def test_the_same_seed_gives_the_same_bytes(version, nprocs, limit):
    assert run_for_digest(version, nprocs, limit) == run_for_digest(version, nprocs, limit)


def test_the_same_seed_gives_the_same_bytes_in_another_process():
    code = "from tests.go.test_gc_programs import run_for_digest; print(run_for_digest('go1.27', 3, None))"
    env = os.environ | {"PYTHONHASHSEED": "77", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == run_for_digest("go1.27", 3, None)


def test_checking_changes_nothing():
    program = draw_program(6, 5, **SCALE)
    bare, _ = run_program(program, nprocs=3, checked=False)
    checked, _ = run_program(program, nprocs=3)
    assert digest(bare) == digest(checked)


# ------------------------------------------------------------------------------------------- run-ahead


@pytest.mark.parametrize(
    ("version", "nprocs", "cpus"),
    [("go1.27", 2, 2)] if PLAIN else [("go1.27", 1, 1), ("go1.27", 3, 2), ("go1.27", 8, 8), ("go1.19", 3, 3), ("go1.14", 2, 2)],
)
@pytest.mark.parametrize("limit", [None, 16 * MIB])
def test_run_ahead_changes_nothing(version, nprocs, cpus, limit):
    """With memory limits, runtime.GC, GOGC that changes, slow marking with assists, and stops."""
    scale = {"length": 5, "n": 90} if PLAIN else {"length": 6, "n": 200}
    program = draw_program(nprocs, 7, **scale)
    runs = []
    for run_ahead in (True, False):
        options = {"cpus": cpus, "memory_limit": limit, "run_ahead": run_ahead, "log_lines": 100_000}
        world, _ = run_program(program, version, nprocs, checked=False, prices=slow_marking(version, 20), **options)
        lines = world.heap.arrays["log"][: int(world.heap.fields.log_used)]
        runs.append((world, [], lines))
    same(*runs)
    (on, _, _), (off, _, _) = runs
    assert on.gc.log.cycles == off.gc.log.cycles
    assert len(on.gc.log.cycles) >= (1 if PLAIN else 3)
    assert [p.times() for p in on.sched.procs] == [p.times() for p in off.sched.procs]


# ------------------------------------------------------------------------------------------- times at any instant


@pytest.mark.parametrize("nprocs", [2] if PLAIN else [1, 3, 8])
def test_picoseconds_add_up_at_any_instant(nprocs):
    """In the middle of assists, computes, stops and mark workers too."""
    world = World("go1.27", nprocs, slow_marking("go1.27", 30), 3, gogc=1)
    looks = []

    def look(_):
        check_times(world)
        looks.append(world.now)
        again = after(world.env, 2_317 * NS, priority(OBSERVE, 0))
        again.callbacks.append(look)

    shadow = Shadow(world)
    steps = tuple(step for k in range(3) for step in (("run", k, BATCH), ("compute", 90 * US), ("collect",)))
    gs = [world.go(body, steps, shadow, None) for _ in range(4)]
    look(None)
    world.run(until=world.env.all_of(gs))
    assert len(looks) > 100
    assert sum(p.times()["assist"] for p in world.sched.procs) > 0
