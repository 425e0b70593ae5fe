"""The cycle's shell, one rule of the runtime a test: who waits for whom, what is timed from when, who pays for what."""

from dataclasses import replace

import numpy as np
import pytest

from sim.costs import Price
from sim.engine.clock import after
from sim.go import gccontroller, gcwork
from sim.go import pump as kernel
from sim.go.check_gc import Slots, watch
from sim.go.mgc import Collector
from sim.go.mgclimit import IDLE
from sim.go.ptime import GC_IDLE
from sim.go.world import World
from sim.jit import PLAIN
from sim.ops import ALLOC, COMPUTE, DEAD, NOSCAN, OP
from sim.units import MS, NS, US
from tests.go.gc_program import draw_program, run_program
from tests.go.prices import made_up_prices, with_wakes
from tests.go.test_gc_programs import slow_marking

N = 60 if PLAIN else 600


def allocate(n, size=1016, scan=True, first=0):
    """Operations that fill n variables."""
    ops = np.zeros(n, OP)
    ops["kind"], ops["obj"], ops["arg"] = ALLOC, range(first, first + n), size
    ops["flags"] = 0 if scan else NOSCAN
    ops["ptr_bytes"] = size if scan else 0
    return ops


def drop(n):
    """Operations that drop what n variables hold."""
    ops = np.zeros(n, OP)
    ops["kind"], ops["obj"] = DEAD, range(n)
    return ops


def compute(picoseconds, n=1):
    """So long without allocating."""
    ops = np.zeros(n, OP)
    ops["kind"], ops["arg"] = COMPUTE, picoseconds // n
    return ops


def holder(g, n, rounds=1, then=None):
    """Goroutine: allocates into n variables again and again, then collects, or does something else."""
    ops = allocate(n)
    for _ in range(rounds):
        yield g.run(ops, n)
    if then is None:
        yield from g.world.gc.collect(g)
    else:
        yield from then(g)


def parked(collector, g):
    """Goroutine in the background sweeper's place: it never sweeps."""
    yield collector.world.env.event()


# ------------------------------------------------------------------------------------------- fewer CPUs than Ps


def test_a_collection_on_one_cpu_stops_ps_that_wait_for_it():
    """The stopper's thread sleeps meanwhile: else a P that waits for the CPU would be waited for, for ever."""
    world = World("go1.27", 3, made_up_prices(), 1, cpus=1, gogc=-1)
    watch(world)
    gs = [world.go(holder, N) for _ in range(3)]
    world.run(until=world.env.all_of(gs))
    assert len(world.gc.log.cycles) >= 1


def test_a_dedicated_worker_shares_the_only_cpu():
    """Marking takes 40 ms of CPU time. On four Ps of one CPU the program computes meanwhile, slice by slice."""
    prices = slow_marking("go1.27", 1)
    costs = {"scan_object": 40 * MS // N, "small_byte": 0, "middle_object": 40 * MS // N, "middle_byte": 0}
    mark = {shape: [replace(m, **costs)] for shape, (m,) in prices.mark.items()}
    world = World("go1.27", 4, replace(prices, mark=mark), 1, cpus=1, gogc=-1)
    world.go(computing_beside, 500 * MS)
    world.run(until=world.go(holder, N))
    (cycle,) = world.gc.log.cycles
    computed = sum(p.times()["compute"] for p in world.sched.procs)
    duration = cycle.t_mark_term - cycle.t_mark
    assert cycle.dedicated_time > 30 * MS  # the time it had its P: also while that had no CPU
    assert duration > 45 * MS
    assert computed > 5 * MS  # idle workers of other Ps have the CPU in turn too


def computing_beside(g, length):
    """Goroutine: computes, for as long as it is let."""
    yield g.run(compute(length, 100), 0)


# ------------------------------------------------------------------------------------------- what is timed from when


@pytest.mark.parametrize("version", ["go1.27", "go1.19"])
def test_the_pacers_clock_runs_from_the_first_stop_to_the_second(version):
    """Stopping and what is done then is part of the cycle at its beginning, and no part of it at its end."""
    starts, ends = [], []

    def watcher(stage):
        fields = world.heap.fields
        if stage == "marking":
            starts.append(int(fields.mark_start_time))
            assert world.now > starts[-1]
        elif stage == "marked":
            ends.append(fields.copy())

    world = World(version, 2, made_up_prices(version), 1, gogc=-1)
    world.gc.watcher = watcher
    world.run(until=world.go(holder, N, 2))
    (cycle,) = world.gc.log.cycles
    assert starts == [cycle.t_sweep_term]
    assert cycle.pause_sweep_term > 0 < cycle.pause_mark_term


def test_a_stop_that_waits_for_another_is_timed_from_when_that_is_over():
    """The runtime takes worldsema first, and looks at the clock then. Here others stop the world half of the time."""
    world = World("go1.27", 2, made_up_prices(), 1, gogc=2)

    def stopper():
        while True:
            yield from world.sched.stop_the_world()
            yield world.env.timeout(1 * MS)
            world.sched.start_the_world()
            yield world.env.timeout(7 * US)

    world.env.process(stopper())
    gs = [world.go(holder, N, 60 if PLAIN else 12) for _ in range(2)]
    world.run(until=world.env.all_of(gs))
    cycles = world.gc.log.cycles
    assert len(cycles) > 3
    assert max(max(cycle.stop_sweep_term, cycle.stop_mark_term) for cycle in cycles) < 500 * US


# ------------------------------------------------------------------------------------------- stops


def test_a_stop_does_not_wait_for_the_sweep_before_a_cycle(monkeypatch):
    """A start sweeps what the last cycle left, as any goroutine: a stop of the world interrupts it between two spans."""
    prices = made_up_prices()
    prices = replace(prices, sweep_kept=(50 * US,) * 136)
    world = World("go1.27", 2, prices, 1, gogc=-1)
    monkeypatch.setattr("sim.go.mgc.Collector._bgsweep", parked)
    stops = []

    def stopper():
        while True:
            yield world.env.timeout(37 * US)
            asked = world.now
            yield from world.sched.stop_the_world()
            stops.append(world.now - asked)
            world.sched.start_the_world()

    def twice(g):
        yield g.call(world.gc._forced)
        while not world.gc.log.cycles:
            yield world.env.timeout(10 * US)
        world.env.process(stopper())
        yield g.call(world.gc._forced)

    world.run(until=world.go(holder, N, 1, twice))
    swept = int(world.heap.fields.pages_swept)
    assert len(stops) > swept // 2 > 3
    assert max(stops) <= 50 * US


def test_a_stop_interrupts_an_assist_which_goes_on_afterwards():
    world = World("go1.27", 2, slow_marking("go1.27", 100), 1, gogc=2)
    stops, stages = [], set()

    def stopper():
        while True:
            yield world.env.timeout(61 * US)
            asked = world.now
            yield from world.sched.stop_the_world()
            stops.append(world.now - asked)
            rows = world.heap.arrays["goroutines"]
            stages.update(int(row["stage"]) for row in rows)
            yield world.env.timeout(1 * US)
            world.sched.start_the_world()

    world.env.process(stopper())
    watch(world)
    gs = [world.go(holder, N, 6) for _ in range(2)]
    world.run(until=world.env.all_of(gs))
    assert kernel.CUT_ASSIST in stages
    assist = max(cycle.assist_time for cycle in world.gc.log.cycles)
    assert assist > 300 * US
    assert max(stops) < 100 * US  # an assist of 64 KiB of work takes milliseconds here


def test_a_start_that_is_not_due_any_more_lets_who_waits_go_on(monkeypatch):
    """The limit that made a cycle due is lifted while its starter sweeps: it begins none; runtime.GC does not wait for it."""
    monkeypatch.setattr("sim.go.mgc.Collector._bgsweep", parked)
    prices = replace(made_up_prices(), sweep_kept=(500 * US,) * 136)
    world = World("go1.27", 3, prices, 1, gogc=-1)

    def starter(g):
        yield g.call(lambda p: world.gc.start(p, "heap"))

    def collector(g):
        starting.append(int(world.heap.fields.gc_starting))
        yield from world.gc.collect(g)

    def then(g):
        yield g.call(world.gc._forced)
        while not world.gc.log.cycles:
            yield world.env.timeout(10 * US)
        world.gc.set_memory_limit(1)
        yield g.go(starter)
        yield world.env.timeout(700 * US)
        waits = yield g.go(collector)
        yield world.env.timeout(700 * US)
        starting.append(int(world.heap.fields.gc_starting))
        world.gc.set_memory_limit(1 << 50)
        yield waits

    starting = []
    world.run(until=world.go(holder, N, 1, then))
    assert starting == [1, 1]
    assert [cycle.kind for cycle in world.gc.log.cycles] == ["forced", "forced"]


# ------------------------------------------------------------------------------------------- workers


def barriers_of(world, gs):
    """How many ragged barriers each cycle had, by those that ended."""
    counts, barrier = [], world.sched.for_each_p

    def counted(by, idle=None):
        if idle is None:
            seen[0] += 1
        else:  # caches are flushed: the cycle is over
            counts.append(seen[0])
            seen[0] = 0
        return barrier(by, idle)

    seen = [0]
    world.sched.for_each_p = counted
    world.run(until=world.env.all_of(gs))
    return counts


def test_ragged_barriers_go_on_until_one_finds_nothing_new():
    """Two; real programs on one P had two in each of 887 cycles, go1.19 and go1.27. Three where a mutator beside has assisted."""
    alone = World("go1.27", 1, made_up_prices("go1.27"), 1)
    one = barriers_of(alone, [alone.go(holder, 5000, 30)])
    assert len(one) > 5 and set(one) == {2}
    beside = World("go1.27", 2, made_up_prices("go1.27"), 1)
    two = barriers_of(beside, [beside.go(holder, 5000, 30)])
    assert len(two) > 5 and set(two) == {2, 3} and two.count(3) > two.count(2)
    forced = World("go1.27", 2, made_up_prices("go1.27"), 1, gogc=-1)
    assert barriers_of(forced, [forced.go(holder, 5000)]) == [2]  # nobody allocates beside


def test_an_idle_worker_leaves_for_its_own_queue_and_the_global_one_alone():
    """Marking with idle workers on three Ps, and goroutines in the queue of a fourth that computes: they stay.

    4 MB of scan work take 40 ms of CPU time, so that a worker looks up every millisecond.
    """
    prices = slow_marking("go1.27", 1)
    mark = {shape: [replace(m, scan_object=0, small_byte=0, large_byte=10_000_000)] for shape, (m,) in prices.mark.items()}
    world = World("go1.27", 4, replace(prices, mark=mark), 1, gogc=-1)

    def crowd(g):
        yield g.compute(2 * MS)  # others mark by now
        kinds = [p._kind for p in world.sched.procs]
        for _ in range(3):
            yield g.go(computing_beside, 1 * US)
        waiting = [len(p.runq) + (p.runnext is not None) for p in world.sched.procs]
        yield g.compute(3 * MS)
        later = [len(p.runq) + (p.runnext is not None) for p in world.sched.procs]
        seen.append((kinds, sum(waiting), sum(later)))

    def main(g):
        yield g.run(allocate(40, 100_000), 40)
        yield g.go(crowd)
        yield from world.gc.collect(g)

    seen = []
    world.run(until=world.go(main))
    ((kinds, before, later),) = seen
    assert kinds.count(GC_IDLE) >= 2
    assert 2 <= before <= later == 3


def test_what_waits_for_a_p_that_becomes_a_worker_runs_elsewhere():
    """Goroutines queue on the one busy P of four; after the stop it becomes a dedicated worker, and they run elsewhere at
    once, not when its slice hands them over."""
    prices = slow_marking("go1.19", 1)
    mark = {shape: [replace(m, scan_object=400 * MS // N, small_byte=0, large_byte=0)] for shape, (m,) in prices.mark.items()}
    lock = with_wakes(prices.lock, 0)  # else one of them runs before the collection begins
    world = World("go1.19", 4, replace(prices, mark=mark, lock=lock), 1, gogc=-1)
    waits = []

    def late(g):
        waits.append(world.now - asked[0])
        yield g.compute(0)

    def crowd(g):
        for _ in range(3):
            yield g.go(late)
        asked.append(world.now)
        yield from world.gc.collect(g)

    asked = []
    world.run(until=world.go(holder, N, 1, crowd))
    assert len(waits) == 3
    assert max(waits) < 5 * MS


# ------------------------------------------------------------------------------------------- runtime.GC


def test_all_that_was_dead_is_free_when_runtime_gc_returns(monkeypatch):
    """Spans of other Ps' caches too, which are in no set and are flushed when those go on, or late by who ended the cycle."""

    def late(collector, p):
        yield after(world.env, 2 * MS, p.order)
        yield from flush_idle(collector, p)

    flush_idle = Collector._flush_idle
    monkeypatch.setattr(Collector, "_flush_idle", late)
    world = World("go1.27", 12, made_up_prices(), 1, gogc=-1)
    ready = []

    def neighbour(g):
        yield g.compute(100 * US)
        yield g.run(allocate(40, 24), 40)
        yield g.run(drop(40), 40)
        ready.append(g)
        yield world.env.event()  # its P's cache keeps the span

    def main(g):
        for _ in range(20):
            yield g.go(neighbour)
        while len(ready) < 20:
            yield world.env.timeout(5 * US)
        yield g.run(allocate(40, 24), 40)
        yield g.run(drop(40), 40)
        assert sum(cache["alloc"].any() for cache in world.heap.arrays["mcaches"]) > 6
        yield from world.gc.collect(g)
        assert gcwork.is_sweep_done(world.heap.header)
        slots = Slots(world.heap)
        slots.none(slots.allocated & slots.dead, "was dead before runtime.GC, and is not free after it")

    world.run(until=world.go(main))
    assert len(world.gc.log.cycles) == 1


# ------------------------------------------------------------------------------------------- who pays


@pytest.mark.parametrize("version", ["go1.27", "go1.19", "go1.14"])
def test_no_p_leaves_sweeping_behind_for_another_to_pay(version, monkeypatch):
    """Whenever compiled code returns, what was swept and touched is in somebody's account already."""
    pump, seen = kernel.pump, []

    def checked(header, *limit):
        answer = pump(header, *limit)
        assert header[0]["fact_sweep_time"] == header[0]["fact_meta_pages"] == 0
        seen.append(int(header[0]["fact_swept"]))
        return answer

    monkeypatch.setattr(kernel, "pump", checked)
    monkeypatch.setattr("sim.go.mgc.Collector._bgsweep", parked)
    scale = {"length": 6, "n": 80} if PLAIN else {"length": 14, "n": 300}
    world, _ = run_program(draw_program(3, 6, **scale), version, 3, checked=False)
    assert len(set(seen)) > 3
    sweep = int(world.heap.arrays["cause_time"][kernel_cause("sweep")])
    assert sweep > 0


def kernel_cause(name):
    """The row of a cause."""
    from sim.go.state import CAUSES

    return CAUSES.index(name)


def test_a_large_allocation_leaves_scan_bytes_to_the_next_refill():
    """mcache.go:allocLarge charges heapLive alone."""
    world = World("go1.27", 1, made_up_prices(), 1, gogc=-1)
    scans = []

    def main(g):
        yield g.run(allocate(3, 64), 3)
        scans.append(int(world.heap.fields.heap_scan))
        yield g.run(allocate(1, 100_000, first=3), 4)
        scans.append(int(world.heap.fields.heap_scan))
        yield g.run(allocate(200, 64, first=4), 204)
        scans.append(int(world.heap.fields.heap_scan))

    world.run(until=world.go(main))
    assert scans[0] == scans[1] < scans[2]


def test_a_goroutine_made_runnable_by_credit_waited_for_a_worker():
    """Parked assists are paid by workers and go on; all of that is in latencies by cause, and nothing is lost."""
    world = World("go1.27", 4, slow_marking("go1.27", 60), 1, gogc=2)
    watch(world)
    gs = [world.go(holder, N, 6) for _ in range(8)]
    world.run(until=world.env.all_of(gs))
    assert world.heap.arrays["cause_time"][kernel_cause("assist_parked")] > 0
    assert not world.gc._parked
    assert world.heap.fields.assist_head == world.heap.fields.assist_tail


def test_a_timer_collects_two_minutes_after_the_last_cycle():
    world = World("go1.27", 2, made_up_prices(), 1)

    def main(g):
        yield from holder(g, N)
        yield g.run(allocate(4, 64), 4)
        yield world.env.timeout(121 * 1_000 * MS)

    world.run(until=world.go(main))
    assert [cycle.kind for cycle in world.gc.log.cycles] == ["forced", "time"]
    gap = world.gc.log.cycles[1].t_sweep_term - world.gc.log.cycles[0].t_end
    assert 0 <= gap - 120 * 1_000 * MS < 1 * MS


@pytest.mark.parametrize("nprocs", [1, 2, 4])
def test_marking_that_ends_as_its_last_worker_looks_up_ends_the_cycle(nprocs):
    """With less to scan than a worker scans between two looks, its first look and the end fall on one instant.

    It may leave of its own then; the cycle ends all the same, and took what its price says, to the picosecond.
    """
    prices = made_up_prices()
    per_object = 700 * NS
    mark = {shape: [replace(m, scan_object=per_object, small_byte=0, large_byte=0)] for shape, (m,) in prices.mark.items()}
    steps = dict(prices.steps) | dict.fromkeys(("mark_stack", "mark_specials"), Price(0))
    world = World("go1.27", nprocs, replace(prices, mark=mark, steps=steps), 1, gogc=-1, globals_bytes=0)

    def main(g):
        yield g.run(allocate(N, 64), N)
        yield from world.gc.collect(g)

    world.run(until=world.go(main))
    (cycle,) = world.gc.log.cycles
    assert int(world.heap.fields.mark_works[2]) < gcwork.CHECK_WORK
    spent = cycle.dedicated_time + cycle.fractional_time + cycle.idle_time
    assert N * per_object <= spent < N * per_object + nprocs  # picoseconds are not divided


def test_the_limiter_counts_no_pause_as_idle_time():
    """Ps that are idle when the world stops are the stopper's until it goes on: all of a pause is the collector's time."""
    world = World("go1.27", 8, made_up_prices(), 1, gogc=-1)
    seen = []
    finish = gccontroller.finish_gc_transition

    def noted(header, now):
        finish(header, now)
        seen.append([now - int(p["limiter_event_start"]) for p in world.heap.arrays["procs"] if p["limiter_event"] == IDLE])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gccontroller, "finish_gc_transition", noted)
        world.run(until=world.go(holder, N))
    assert len(seen) == 2
    assert len(seen[0]) >= 6
    assert not any(seen[0])


@pytest.mark.parametrize("scan", [True, False])
def test_a_large_object_that_passes_the_trigger_begins_a_cycle_itself(scan):
    """mallocgcLarge tests after allocLarge has counted its bytes: no later allocation is needed. (malloc.go)"""
    world = World("go1.27", 1, made_up_prices(), 1)
    trigger, _ = gccontroller.trigger(world.heap.header)
    ops = np.concatenate([allocate(1, int(trigger) + (64 << 10), scan), compute(50 * MS)])
    world.go(lambda g: (yield g.run(ops, 1)))
    world.run()
    (cycle,) = world.gc.log.cycles
    assert cycle.kind == "heap" and cycle.heap0 > trigger
    assert cycle.t_sweep_term < 5 * MS  # long before the goroutine is done
