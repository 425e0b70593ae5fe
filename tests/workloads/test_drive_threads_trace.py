"""Recorded traces on threads: everything the trace has is run, in its order, and nothing else."""

import numpy as np
import pytest

from experiments.compare_models import thread_world
from sim.ops import ALLOC, COMPUTE, DEAD, NO_OBJ, OP, SHARED
from sim.tcmalloc.check import check
from sim.textbook.check import check as check_textbook
from sim.threads.state import NEVER
from sim.units import US
from tests.traces import trace_path
from workloads.drive_threads_trace import TraceLoad
from workloads.tracestream import STEP, Program, build, read
from workloads.tracestream_items import CREATE, DONE, FIRE, REAP, SLEEP, WAIT

ENDS = [("tcmalloc", check), ("segregated-fit", check_textbook)]


@pytest.fixture(scope="module")
def recorded():
    """Two Ps, collections, 16 goroutines that wait for each other."""
    return build(read(str(trace_path("xbench-json-P2-gogc_default"))))


@pytest.mark.parametrize(("model", "check_heap"), ENDS)
def test_a_recorded_program_is_run_whole(recorded, model, check_heap):
    n = len(recorded.starts)
    world = thread_world(model, n, 2, "epyc-2core", 1)
    load = TraceLoad(world, recorded)
    before = world.mallocs
    assert load.advance(NEVER)
    check_heap(world.heap)
    ops, rows = recorded.ops, world.clock.arrays["threads"]
    mine = np.repeat(np.arange(n), np.diff(np.append(0, recorded.steps["end"][recorded.first[1:] - 1])))
    for kind, counted in ((ALLOC, "mallocs"), (COMPUTE, "compute_time")):
        weights = np.where(ops["kind"] == kind, ops["arg"] if kind == COMPUTE else 1, 0)
        assert rows[counted].tolist() == np.bincount(mine, weights, n).astype(int).tolist()
    assert before == 0 and rows["frees"].sum() == len(recorded.deaths)
    kept = [part["arg"][(part["kind"] == ALLOC) & (part["obj"] == NO_OBJ)] for part in (ops, recorded.inherited)]
    held = int(world.heap.fields.live_objects) if model != "tcmalloc" else None
    assert held in (None, sum(map(len, kept)))


def program(goroutines, deaths=(), groups=(), points=(0,)):
    """A program of goroutines, each (start or -1, [(operations before, kind, arg)])."""
    ops, steps, first = [], [], [0]
    for _, mine in goroutines:
        for before, kind, arg in mine:
            ops += before
            steps.append((kind, arg, len(ops)))
        first.append(len(steps))
    return Program(
        ops=np.array(ops, OP),
        steps=np.array(steps, STEP),
        first=np.array(first),
        starts=np.array([start for start, _ in goroutines]),
        names=np.arange(len(goroutines)),
        start=None,
        inherited=np.zeros(0, OP),
        deaths=np.array(list(deaths), OP),
        groups=np.array(groups, np.int64).reshape(-1, 4),
        points=np.array(points),
        events=0,
        variables=len(deaths),
        mallocs=0,
        figures={},
    )


def compute(time):
    return [(COMPUTE, 0, NO_OBJ, time, 0)]


def run(made, cpus):
    world = thread_world("bump", len(made.starts), cpus, "epyc-2core", 1)
    world.prices = world.prices.__class__(**{n: getattr(world.prices, n) for n in world.prices.__slots__} | {"wake": 0})
    world.fields.switch = 0
    assert TraceLoad(world, made).advance(NEVER)
    return world


def test_who_waits_goes_on_when_it_is_woken_and_who_was_woken_before_at_once():
    made = program(
        [
            (0, [(compute(10 * US), FIRE, 0), ([], CREATE, 2), (compute(5 * US), FIRE, 1), ([], DONE, 0)]),
            (0, [(compute(1 * US), WAIT, 0), (compute(20 * US), WAIT, 1), (compute(1 * US), DONE, 0)]),
            (-1, [([], SLEEP, 30 * US), (compute(7 * US), DONE, 0)]),
        ]
    )
    world = run(made, 3)
    assert world.now == 47 * US  # 10, asleep for 30, 7; the second was done at 31
    assert world.clock.arrays["threads"]["idle_time"].tolist() == [0, 9 * US, 40 * US]
    assert run(made, 1).now == 47 * US  # while one sleeps the others compute


def test_a_group_of_deaths_waits_for_the_goroutine_that_allocates_it():
    new = [(ALLOC, SHARED, 0, 64, 0)]
    goroutines = [
        (0, [(compute(1 * US), REAP, 0), ([], DONE, 0)]),
        (0, [(compute(9 * US) + new + compute(1 * US), DONE, 0)]),
    ]
    made = program(goroutines, [(DEAD, SHARED, 0, 0, 0)], [(1, 2, 0, 1)], (0, 1))
    assert run(made, 2).clock.arrays["threads"]["frees"].tolist() == [0, 1]
    goroutines[0] = (0, [(compute(90 * US), REAP, 0), ([], DONE, 0)])
    made = program(goroutines, [(DEAD, SHARED, 0, 0, 0)], [(1, 2, 0, 1)], (0, 1))
    assert run(made, 2).clock.arrays["threads"]["frees"].tolist() == [1, 0]
