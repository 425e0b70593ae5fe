"""Stopping the world and letting it go on: closed forms of what it takes, and that everybody really stands."""

import random
from dataclasses import replace

import numpy as np
import pytest

from sim.costs import Price
from sim.engine.clock import after
from sim.go.ptime import SYSTEM
from sim.go.stw import Stopping
from sim.go.world import World
from sim.ops import ALLOC, OP
from sim.units import MS, US, Throw
from tests.go.prices import made_up_prices
from tests.go.sched_world import SCHEDULER, adds_up

SIGNAL = 15 * US
LOCK = made_up_prices().lock
TAKE, GIVE, CALL, LATENCY = LOCK.acquire, LOCK.release, LOCK.futex_wake, LOCK.wake_latency
HANDLED = LOCK.signal_latency
POLLS = 4 * LOCK.procyield + LOCK.osyield + LOCK.futex_sleep  # until who waits for the lock is asleep


def new_world(nprocs, version="go1.27", *, signal=SIGNAL, handled=HANDLED, cpus=None, seed=1):
    """A world whose scheduler costs nothing but signals and what waking a sleeper does."""
    prices = made_up_prices(version)
    free = dict(prices.steps) | dict.fromkeys(SCHEDULER, Price(0))
    lock = replace(prices.lock, signal_latency=handled, signal_1ms=signal)
    prices = replace(prices, steps=free | {"preempt_signal": Price(signal)}, lock=lock)
    return World(version, nprocs, prices, seed, cpus=cpus, gogc=-1)


def stops(g, at, log, stands=0):
    """Goroutine: stop the world once, at an instant; the log gets when it asked, when all stood, and when it went on."""

    def step(p):
        yield after(g.world.env, at - g.world.now, p.order)
        p.turn_to(SYSTEM)
        log.append(g.world.now)
        yield from g.world.sched.stop_the_world(p)
        log.append(g.world.now)
        yield after(g.world.env, stands, p.order)
        log.append(g.world.now)
        yield after(g.world.env, g.world.sched.start_the_world(p), p.order)
        log.append(g.world.now)

    yield g.call(step)
    yield g.compute(10 * MS)  # it steals from nobody


def computes(g, length, log):
    yield g.compute(length)
    log[g.p.index] = g.world.now


def log_has(world, log, n):
    """An event for when a log has so many entries."""

    def watch():
        while len(log) < n:
            yield world.env.timeout(1 * US)

    return world.env.process(watch())


def sweeps(g, until):
    """A step that cannot be stopped."""

    def step(p):
        p.turn_to(SYSTEM)
        yield after(g.world.env, until - g.world.now, p.order)

    yield g.call(step)


@pytest.mark.parametrize("version", ["go1.27", "go1.19"])
@pytest.mark.parametrize("running", [1, 3])
def test_stopping_ps_that_run_takes_a_signal_each_and_the_lock_and_a_wake(version, running):
    """They stop before they are signalled, but the lock is taken until all are. Whose signal is the last takes it then.

    The others have had theirs and sleep again; the lock wakes one after the other. The last one wakes the stopper.
    """
    world, log, ends = new_world(1 + running, version), [], {}
    gs = [world.go(computes, 3 * MS, ends) for _ in range(running)]
    world.run(until=1 * MS)
    assert POLLS + HANDLED < SIGNAL
    gs.append(world.go(stops, 2 * MS, log))
    world.run(until=world.env.all_of(gs))
    asked, stood, *_ = log
    through_the_lock = GIVE + CALL + LATENCY + TAKE  # from one's release to the next one's having it
    last = HANDLED + TAKE if running == 1 else (running - 1) * through_the_lock
    assert stood - asked == TAKE + running * SIGNAL + last + CALL + LATENCY
    adds_up(world)


TIMES = 20 * US, 100 * US, MS, 10 * MS
CALLS, LATENCIES = (14 * US, 18 * US, 37 * US, 45 * US), (19 * US, 24 * US, 30 * US, 37 * US)


def slow_from_rest():
    names = "_20us", "", "_1ms", "_10ms"
    calls = {f"futex_wake{name}": call for name, call in zip(names, CALLS, strict=True)}
    latencies = {f"wake_latency{name}": latency for name, latency in zip(names, LATENCIES, strict=True)}
    return replace(LOCK, signal_1ms=37 * US, **calls, **latencies)


@pytest.mark.parametrize("time", [0, 5 * US, 20 * US, 60 * US, 100 * US, 730 * US, MS, 4 * MS, 10 * MS, 3000 * MS])
def test_calls_and_latencies_lie_on_lines_between_what_was_measured(time):
    prices = slow_from_rest()
    wanted = np.interp(time, TIMES, CALLS), np.interp(time, TIMES, LATENCIES)
    assert prices.waking(0, time) == (pytest.approx(wanted[0], abs=1), LATENCIES[0])
    assert prices.waking(time, 0) == (CALLS[0], pytest.approx(wanted[1], abs=1))
    assert prices.signal(15 * US, time) == pytest.approx(np.interp(time, TIMES[1:3], (15 * US, 37 * US)), abs=1)


def test_who_has_worked_for_long_signals_and_wakes_at_the_price_of_cold_caches():
    """Two Ps have computed for 4 ms when one stops the other: both of its calls are dear, and much less so 60 us later."""
    world, log = new_world(2), []
    world.prices = replace(world.prices, lock=slow_from_rest())

    def stops_twice(g):
        def step(p):
            for pause in (4 * MS - world.now, 60 * US):
                yield after(world.env, pause, p.order)
                p.turn_to(SYSTEM)
                asked = world.now
                yield from world.sched.stop_the_world(p)
                log.append(world.now - asked)
                yield after(world.env, world.sched.start_the_world(p), p.order)

        yield g.call(step)

    world.run(until=world.env.all_of([world.go(computes, 9 * MS, {}), world.go(stops_twice)]))
    cold, warm = log
    call = int(np.interp(4 * MS, TIMES, CALLS))
    assert cold == pytest.approx(TAKE + 37 * US + HANDLED + TAKE + call + LATENCIES[0], abs=US // 5)
    assert TAKE + SIGNAL + HANDLED + TAKE + CALLS[0] + LATENCIES[0] <= warm < cold - 40 * US


def test_a_stop_waits_for_the_latest_safepoint():
    world, log = new_world(2), []
    gs = [world.go(sweeps, 7 * MS), world.go(stops, 2 * MS, log)]
    world.run(until=world.env.all_of(gs))
    assert log[1] == 7 * MS + TAKE + CALL + LATENCY


def test_idle_ps_stop_for_nothing():
    world, log = new_world(8), []
    world.run(until=world.go(stops, 2 * MS, log))
    asked, stood, goes_on, done = log
    assert (stood - asked, done - goes_on) == (TAKE + GIVE, 0)
    assert len(world.sched.idle) == 7


def test_who_comes_while_the_stopper_falls_asleep_need_not_wake_it():
    world, log = new_world(2, signal=0, handled=0), []
    at = 2 * MS + TAKE + GIVE + LOCK.futex_sleep // 2
    gs = [world.go(sweeps, at), world.go(stops, 2 * MS, log)]
    world.run(until=world.env.all_of(gs))
    assert log[1] == 2 * MS + TAKE + GIVE + LOCK.futex_sleep


def test_ps_with_work_are_woken_one_by_one_when_the_world_goes_on():
    """With go1.27 each keeps its goroutine: the k-th in order goes on after k calls and the latency of its thread."""
    world, log, ends, stands = new_world(4), [], {}, 1 * MS
    gs = [world.go(computes, 3 * MS, ends) for _ in range(3)]
    world.run(until=1 * MS)
    begun = {p.index: p._since for p in world.sched.procs if p.wakeup is None}
    gs.append(world.go(stops, 2 * MS, log, stands))
    world.run(until=world.env.all_of(gs))
    asked, _, goes_on, done = log
    assert done - goes_on == 3 * CALL
    for k, index in enumerate(sorted(ends), 1):
        stood = goes_on + k * CALL + LATENCY - (asked + TAKE)
        assert ends[index] == begun[index] + 3 * MS + stood


def test_before_ps_without_work_of_their_own_go_idle_and_one_is_woken():
    """With go1.19 goroutines that were stopped are in the global queue: the starter wakes nobody by name."""
    world, log, ends = new_world(3, "go1.19"), [], {}
    gs = [world.go(computes, 3 * MS, ends) for _ in range(2)]
    world.run(until=1 * MS)
    gs.append(world.go(stops, 2 * MS, log))
    world.run(until=log_has(world, log, 4))
    assert log[3] == log[2] and len(world.sched.queue) == 2
    assert [p.index for p in world.sched.idle] == [2, 1], "the lowest is woken first"


def test_a_barrier_preempts_and_lets_go_on_at_once():
    world, ends, done = new_world(2), {}, []

    def body(g):
        def step(p):
            yield after(world.env, 2 * MS - world.now, p.order)
            yield from world.sched.acquire_world(p)
            yield from world.sched.for_each_p(p)
            done.append(world.now)
            world.sched.release_world()

        yield g.call(step)

    gs = [world.go(computes, 3 * MS, ends)]
    world.run(until=1 * MS)
    (begun,) = (p._since for p in world.sched.procs if p.wakeup is None)
    gs.append(world.go(body))
    world.run(until=world.env.all_of(gs))
    ran = 2 * MS + TAKE + SIGNAL + HANDLED + TAKE  # the other P has the lock, and calls to wake the one that waits
    assert done == [ran + CALL + LATENCY]
    assert list(ends.values()) == [begun + 3 * MS + (ran + CALL + GIVE) - (2 * MS + TAKE)]


def test_waiting_for_every_p_needs_worldsema():
    world = new_world(2)
    world.run()
    with pytest.raises(Throw, match="worldsema"):
        next(world.sched.for_each_p(world.sched.procs[0]))


@pytest.mark.parametrize("between", [0, LATENCY // 2, LATENCY + 3 * US])
def test_no_mark_worker_is_given_twice_or_lost_when_stops_follow_each_other(between):
    """Ps that are given workers when the world goes on run them once their threads do; the next stop may be sooner."""
    world, log = new_world(8), []
    fields, dedicated = world.heap.fields, 2  # of 8 Ps, 25 %

    def collects(g):
        ops = np.zeros(30_000, OP)
        ops["kind"], ops["obj"], ops["arg"], ops["ptr_bytes"] = ALLOC, range(len(ops)), 64, 64
        yield g.run(ops, len(ops))
        yield from g.world.gc.collect(g)

    def stops_while_marking(p):
        while not world.gc.workers.marking:
            yield after(world.env, 1 * US, p.order)
            yield from world.sched.at_safepoint(p, True)
            p.turn_to(SYSTEM)
        for _ in range(10):
            yield from world.sched.stop_the_world(p)
            if not world.gc.workers.marking:
                break
            log.append(int(fields.dedicated_mark_workers_needed))
            yield after(world.env, world.sched.start_the_world(p), p.order)
            log.append(int(fields.dedicated_mark_workers_needed))
            yield after(world.env, between, p.order)

    def stopper(g):
        yield g.call(stops_while_marking)

    world.run(until=world.env.all_of([world.go(collects), world.go(stopper)]))
    assert len(log) == 20, "marking takes longer than the stops"
    assert log == [dedicated, 0] * 10
    (cycle,) = world.gc.log.cycles
    assert cycle.dedicated_time > 0
    adds_up(world)


# ---------------------------------------------------------------------------------------------------- everybody stands


def random_stops(nprocs, version, cpus, seed):
    """Goroutines that compute, allocate, stop the world and wait at barriers, and stops from outside; nothing may move."""
    world, rng, held = new_world(nprocs, version, cpus=cpus, seed=seed, signal=2 * US), random.Random(seed), []

    def look(p):
        arrays = world.heap.arrays
        return [
            (int(arrays["p_time"][q.index]), int(arrays["procs"][q.index]["mallocs"]), q.kind)
            for q in world.sched.procs
            if q is not p
        ]

    def stands(p, before):
        held.append(world.now)
        assert look(p) == before, "nothing moves while the world stands"

    def stop(p):
        yield from world.sched.stop_the_world(p)
        before = look(p)
        yield after(world.env, rng.choice((0, 1 * US, 30 * US)), p.order)
        stands(p, before)
        yield after(world.env, world.sched.start_the_world(p), p.order)
        world.sched.wake_p(p)

    def barrier(p):
        yield from world.sched.acquire_world(p)
        yield from world.sched.for_each_p(p)
        assert not any(q["barrier"] for q in world.heap.arrays["procs"])
        world.sched.release_world()

    def body(g):
        for _ in range(12):
            what = rng.randrange(5)
            if what < 2:
                yield g.call(stop if what else barrier)
            elif what == 2:
                yield g.compute(rng.choice((1, 20 * US, 300 * US)))
            elif what == 3:
                yield g.drop((yield g.malloc(rng.choice((64, 40_000)))))
            else:
                yield world.env.timeout(rng.choice((0, 5 * US, 90 * US)))

    def outside():
        while True:
            yield world.env.timeout(rng.randrange(1, 400 * US))
            yield from world.sched.stop_the_world()
            before = look(None)
            yield world.env.timeout(3 * US)
            stands(None, before)
            world.sched.start_the_world()

    world.env.process(outside())
    world.run(until=world.env.all_of([world.go(body) for _ in range(nprocs + 2)]))
    assert len(held) > nprocs
    adds_up(world)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("nprocs", "version", "cpus"), [(2, "go1.19", None), (5, "go1.27", None), (6, "go1.19", 2), (4, "go1.27", 1)]
)
def test_nothing_moves_while_the_world_stands(nprocs, version, cpus, seed):
    random_stops(nprocs, version, cpus, seed)


def test_a_stop_that_forgets_a_p_is_noticed(monkeypatch):
    right = Stopping._are_all_there
    monkeypatch.setattr(Stopping, "_are_all_there", lambda self: right(self) or (self.stopping and self._stopped > 0))
    with pytest.raises((AssertionError, Throw)):
        for seed in range(5):
            random_stops(5, "go1.27", None, seed)
