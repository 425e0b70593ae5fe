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
from sim.tcmalloc.world import TCMallocWorld
from sim.threads.prices import ThreadPrices
from sim.threads.state import NEVER
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


def test_the_comparison_notices_a_broken_order(oracle):
    """Threads that run one after the other, each from time 0 on, do other things than side by side."""
    w = world(overall_cache_size=BUDGET, log_lines=1 << 16)
    for t in range(THREADS):
        w.submit(t, operations(1, t))
        w.wake(t, 0, 0)
        assert w.advance(NEVER) == t
        w.rest(t)
    check(w.heap)
    calls = [(t, is_free, obj) for _, t, is_free, obj, _ in w.log()]
    assert sorted(calls) != sorted((t, is_free, obj) for _, t, is_free, obj, _ in oracle[1]["log"])


def test_one_thread_does_what_it_does_without_a_clock():
    ops = operations(3, 0)
    ops = ops[(ops["flags"] & clock_oracle.SHARED) == 0]
    w, heap = world(1, log_lines=1 << 16), TCMalloc(1)
    start(w, [ops])
    finish(w)
    heap.new_cache(0)
    held, calls = {}, []
    for kind, _, variable, nbytes, _ in ops.tolist():
        if kind == COMPUTE:
            continue
        obj = heap.malloc(0, nbytes) if kind == ALLOC else 0
        if obj:
            calls.append((False, obj))
        if variable == NO_OBJ:
            continue
        old, held[variable] = held.get(variable, 0), obj
        if old:
            heap.free(0, old)
            calls.append((True, old))
    assert [(is_free, obj) for _, _, is_free, obj, _ in w.log()] == calls
    wanted, got = state(heap), state(w.heap)
    assert got.pop("resident") >= wanted.pop("resident")  # the program writes its objects only on the clock
    assert got == wanted


@pytest.mark.parametrize("step", [1_000_000, 77_777_777])
def test_stopping_to_look_changes_nothing(step):
    whole, parts = (world(overall_cache_size=BUDGET, log_lines=1 << 16) for _ in range(2))
    for w in (whole, parts):
        start(w, [operations(2, t) for t in range(THREADS)])
    finish(whole)
    left, limit = THREADS, 0
    while left:
        limit += step
        while (t := parts.advance(limit)) is not None:
            parts.rest(t)
            left -= 1
    assert sorted(parts.log()) == sorted(whole.log()) and state(parts.heap) == state(whole.heap)


def test_what_has_begun_is_finished_when_the_world_is_closed():
    w = world(overall_cache_size=BUDGET)
    start(w, [operations(1, t) for t in range(THREADS)])
    assert w.advance(30_000_000) is None
    some = w.mallocs
    w.close()
    check(w.heap)
    assert 0 < some <= w.mallocs <= some + THREADS


def large_only(cost):
    """Prices by which every hold of pageheap_lock for a large object takes ``cost``, and its growth nothing."""
    found = ("exact_list", "split_list", "exact_set", "split_set", "page_free")
    return dict.fromkeys(found, cost) | {"grow": 0}


def test_waits_for_the_page_heap_are_those_of_m_d_1():
    """Poisson arrivals of large mallocs, one a thread: mean wait rho * D / (2 * (1 - rho)) (Pollaczek-Khinchine)."""
    hold, rho, n = 1_000_000, 0.5, 2000
    w = world(n, large_only(hold))
    w.fields.handoff = 0
    gaps = np.random.default_rng(12).exponential(hold / rho, n)
    arrivals = np.cumsum(gaps).astype(np.int64)
    start(w, [one_large(int(at)) for at in arrivals])
    finish(w)
    lock = w.locks()["page heap"]
    assert lock.holds == n and lock.hold_time == n * hold
    free_at, waits = 0, []
    for at in arrivals.tolist():  # Lindley's recursion, exact
        waits.append(max(free_at - at, 0))
        free_at = max(free_at, at) + hold
    assert lock.wait_time == sum(waits) and lock.longest_wait == max(waits)
    assert lock.wait_time / n == pytest.approx(rho * hold / (2 * (1 - rho)), rel=0.15)


def one_large(compute):
    ops = np.zeros(2, OP)
    ops["kind"], ops["arg"], ops["obj"] = [COMPUTE, ALLOC], [compute, 300_000], NO_OBJ
    return ops


@pytest.mark.parametrize(("nthreads", "bound"), [(2, "threads"), (40, "lock")])
def test_throughput_is_that_of_a_closed_queue(nthreads, bound):
    """Each thread computes, takes and frees a large object, over and over: N / cycle, or what the lock can do."""
    cycles, think, hold = 400, 10_000_000, 500_000
    w = world(nthreads, large_only(hold))
    ops = np.zeros(3 * cycles, OP)
    ops["kind"], ops["arg"] = np.tile([COMPUTE, ALLOC, DEAD], cycles), np.tile([think, 300_000, 0], cycles)
    start(w, [ops] * nthreads)
    end = max(finish(w).values())
    alone, busy = think + 2 * hold, 2 * (hold + HANDOFF) * nthreads
    assert (alone > busy) == (bound == "threads")
    assert end == pytest.approx(cycles * max(alone, busy), rel=0.02)


def test_threads_of_one_cpu_take_turns():
    """Three threads compute 25 ms each on one CPU, 10 ms a slice and 2 ms a switch: 0 1 2 0 1 2 0 1 2."""
    ms = 1_000_000_000
    w = world(3, cpus=1)
    w.fields.slice, w.fields.switch = 10 * ms, 2 * ms
    ops = np.zeros(1, OP)
    ops["kind"], ops["arg"], ops["obj"] = COMPUTE, 25 * ms, NO_OBJ
    start(w, [ops] * 3)
    assert finish(w) == {0: 77 * ms, 1: 84 * ms, 2: 91 * ms}


def test_an_operation_of_no_meaning_is_refused():
    w = world(1)
    ops = np.zeros(2, OP)
    ops["arg"] = [8, -1]
    with pytest.raises(Throw, match="operation 1 of a batch of thread 0"):
        w.submit(0, ops)
