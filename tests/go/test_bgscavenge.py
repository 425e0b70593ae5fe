"""The background scavenger in simulated time: 1 % of the CPUs, sleeps and wakes as the runtime's, and no harm done."""

from dataclasses import replace

import numpy as np
import pytest

from sim.costs import Price
from sim.go.bgscavenge import SYSMON_PERIOD, Scavenger
from sim.go.check import check_heap
from sim.go.collect import collect_at_once
from sim.go.mgcscavenge_pacer import heap_retained
from sim.go.mstats import rss
from sim.go.proc import TIME_SLICE
from sim.go.world import World
from sim.jit import PLAIN
from sim.ops import ALLOC, DEAD, NEEDZERO, NOSCAN, OP, TOUCH
from sim.units import GIB, KIB, MIB, MS, NS, SEC, US, Throw
from tests.go.prices import made_up_prices, with_wakes

HOLE = 256 * KIB
SCHEDULER = ("goroutine_new", "goroutine_reused", "goroutine_exit", "switch", "steal", "wake_p", "os_switch", "preempt_signal")


def new_world(version="go1.27", nprocs=1, *, cpus=None, page=10 * US, call=0, free_scheduler=True):
    """A world and its scavenger; a system page costs ``page`` to give back, a run ``call``, nothing else in scavenging."""
    prices = made_up_prices(version)
    steps = {"madvise": call, "madvise_page": page, "tlb_shootdown": 0, "page_alloc": 0}
    if free_scheduler:
        steps |= dict.fromkeys(SCHEDULER, 0)
    steps = dict(prices.steps) | {name: Price(price) for name, price in steps.items()}
    lock = with_wakes(prices.lock, 0) if free_scheduler else prices.lock
    world = World(version, nprocs, replace(prices, steps=steps, lock=lock), 1, cpus=cpus, gogc=-1)
    scavenger = Scavenger(world)
    scavenger.start()
    return world, scavenger


def free_memory(world, nbytes, hole=HOLE):
    """Let the heap have free memory, in so many holes with memory behind them, that the background may take."""
    n = nbytes // hole
    ops = np.zeros(4 * n, OP)
    ops[: 2 * n]["kind"] = ALLOC
    ops[: 2 * n]["flags"] = NOSCAN | TOUCH | NEEDZERO
    ops[: 2 * n]["arg"] = hole
    ops["obj"] = np.tile(np.arange(2 * n), 2)
    ops[2 * n :]["kind"] = DEAD

    def body(g):
        yield g.run(ops[: 2 * n].copy(), 2 * n)
        yield g.run(ops[2 * n :][::2].copy(), 2 * n)
        collect_at_once(world.heap.header, 0)
        collect_at_once(world.heap.header, 0)
        yield world.env.event()  # keeps the others for ever

    world.go(body)
    world.run()
    assert int(world.heap.fields.heap_free) == nbytes
    return world.now


def busy(g):
    """A program that uses all it can get and allocates nothing."""
    while True:
        yield g.compute(SEC)


def released(world):
    return int(world.heap.fields.scav_released_bg)


# ---------------------------------------------------------------------------------------------------- one percent


@pytest.mark.skipif(PLAIN, reason="minutes in plain mode")
@pytest.mark.parametrize(("nprocs", "goroutines"), [(1, 0), (1, 1), (2, 0), (2, 2), (4, 4)])
def test_one_percent_of_the_cpus(nprocs, goroutines):
    """Whether they idle or are busy, over 2 minutes in which memory to give back does not run out."""
    world, scavenger = new_world(nprocs=nprocs)
    begun = free_memory(world, 1 * GIB)
    for _ in range(goroutines):
        world.go(busy)
    world.heap.fields.gc_percent_goal = 0
    scavenger.wake()
    duration = 120 * SEC if nprocs < 4 else 40 * SEC
    world.run(until=begun + duration)
    left = int(world.heap.fields.heap_free)
    assert left > 0
    share = int(world.heap.fields.scavenge_background_time) / (duration * nprocs)
    assert 0.008 <= share <= 0.012
    assert scavenger.pacer.resets == 0
    assert 0 <= 1 * GIB - left - released(world) <= 1 * MIB  # the program's stacks come out of it
    # what its Ps spent is that time: madvise, and nothing for the lock; but for the bout in progress, told when it ends
    spent = sum(p.times()["scavenging"] for p in world.sched.procs) - released(world) // 4096 * 10 * US
    assert 0 <= spent < 2 * MS
    check_heap(world.heap)


def test_the_runtimes_own_test_of_the_scavenger():
    """mgcscavenge_test.go:TestScavenger: nearly 64 MiB at 10 us a page, again with nothing to do, again, and to a goal."""
    work = 64 * MIB - 3 * HOLE
    world, scavenger = new_world()
    done, worked, begun = 0, 0, 0

    def verify():
        fields = world.heap.fields
        assert scavenger.parked and released(world) == done
        assert abs((int(fields.scavenge_background_time) - worked) / (world.now - begun) - 0.01) <= 0.005
        check_heap(world.heap)

    for goal in (0, work // 4):
        begun = free_memory(world, work)
        worked = int(world.heap.fields.scavenge_background_time)
        world.heap.fields.gc_percent_goal = heap_retained(world.heap) - work + goal
        scavenger.wake()
        world.run()
        done += work - goal
        verify()
        now = world.now
        scavenger.wake()
        world.run()
        assert world.now == now
        verify()
        if PLAIN:
            return


# ---------------------------------------------------------------------------------------------------- rounds and sleeps


def test_a_round_is_a_millisecond_of_work_and_sleeps_a_thousand_times_as_long_at_first():
    world, scavenger = new_world()
    begun = free_memory(world, 8 * MIB)
    world.heap.fields.gc_percent_goal = 0
    scavenger.wake()
    world.run(until=begun + 3 * MS)
    # 64 KiB are 160 us: seven quanta
    assert (released(world), int(world.heap.fields.scavenge_background_time)) == (7 * 64 * KIB, 1120 * US)
    assert world.sched.alive == 1 and scavenger.parked
    world.run(until=begun + 1120 * US + 1120 * MS - 1)
    assert released(world) == 7 * 64 * KIB
    world.run(until=begun + 1120 * US + 1120 * MS + 3 * MS)
    assert released(world) == 14 * 64 * KIB


def test_it_stops_at_its_goal_and_parks():
    world, scavenger = new_world()
    free_memory(world, 8 * MIB)
    before = heap_retained(world.heap)
    world.heap.fields.gc_percent_goal = before - 3 * 64 * KIB - 1
    scavenger.wake()
    world.run()
    assert heap_retained(world.heap) == before - 4 * 64 * KIB
    assert scavenger.parked
    world.heap.fields.gc_percent_goal = before - 5 * 64 * KIB
    world.run()
    assert heap_retained(world.heap) == before - 4 * 64 * KIB  # nobody woke it
    scavenger.wake()
    world.run()
    assert heap_retained(world.heap) == before - 5 * 64 * KIB


def test_a_memory_limit_goal_is_one_too():
    world, scavenger = new_world()
    free_memory(world, 8 * MIB)
    fields = world.heap.fields
    before = int(fields.mapped_ready)
    fields.memory_limit_goal = before - 64 * KIB
    scavenger.wake()
    world.run()
    assert int(fields.mapped_ready) == before - 64 * KIB


def test_a_wake_ends_its_sleep_and_counts_what_it_slept():
    world, scavenger = new_world()
    begun = free_memory(world, 8 * MIB)
    world.heap.fields.gc_percent_goal = 0
    scavenger.wake()
    world.run(until=begun + 10 * MS)
    scavenger.wake()
    world.run(until=begun + 12 * MS)
    assert released(world) == 14 * 64 * KIB
    # 1.12 ms of 10: far beyond 1 %, so it sleeps as long as it can
    assert scavenger.pacer.sleep_ratio == 0.001
    assert scavenger.pacer.controller.err_integral < 0


@pytest.mark.parametrize("asleep", [False, True])
def test_sysmon_wakes_it_within_ten_milliseconds(asleep):
    world, scavenger = new_world()
    begun = free_memory(world, 8 * MIB)
    world.heap.fields.gc_percent_goal = 0
    if asleep:
        scavenger.wake()
        world.run(until=begun + 20 * MS)
    so_far = released(world)
    asked = world.now
    scavenger.ready()
    scavenger.ready()
    look = asked - asked % SYSMON_PERIOD + SYSMON_PERIOD
    world.run(until=look)
    assert released(world) == so_far
    world.run(until=look + 2 * MS)
    assert released(world) == so_far + 7 * 64 * KIB
    assert not scavenger.sysmon_wake


def test_sysmon_asks_again_while_it_is_at_work():
    world, scavenger = new_world(page=SEC // 100)
    begun = free_memory(world, 8 * MIB)
    world.heap.fields.gc_percent_goal = 0
    scavenger.wake()
    scavenger.ready()
    world.run(until=begun + 100 * MS)
    assert scavenger.sysmon_wake  # it has not parked since: 160 ms a quantum
    world.run(until=begun + 200 * MS)
    assert not scavenger.sysmon_wake


def test_a_quantum_that_takes_no_time_counts_ten_microseconds_a_page():
    world, scavenger = new_world(page=0)
    begun = free_memory(world, 8 * MIB)
    world.heap.fields.gc_percent_goal = 0
    scavenger.wake()
    world.run(until=begun + 1 * MS)
    assert released(world) == 7 * 64 * KIB


# ---------------------------------------------------------------------------------------------------- among the others


def test_woken_it_goes_behind_the_programs_own():
    world, scavenger = new_world()
    begun = free_memory(world, 8 * MIB)
    ran = []

    def mark(g, name):
        ran.append(name)
        yield g.compute(1 * MS)
        ran.append(name)

    def first(g):
        yield g.go(mark, "child")
        scavenger.wake()
        yield g.compute(1 * MS)

    world.heap.fields.gc_percent_goal = 0
    world.go(first)
    world.run(until=begun + 1 * MS + 50 * US)  # starting them takes some
    assert released(world) == 0 and ran == ["child"]
    world.run(until=begun + 2 * MS + 100 * US)
    assert ran == ["child", "child"] and not scavenger.parked


def test_stopping_the_world_waits_for_the_run_in_hand():
    world, scavenger = new_world(nprocs=2, page=100 * US)
    begun = free_memory(world, 8 * MIB)
    world.heap.fields.gc_percent_goal = 0
    scavenger.wake()
    stopped = []

    def stopper():
        yield world.env.timeout(1 * MS)  # in the middle of a run of 1.6 ms
        check_heap(world.heap)
        assert int(world.heap.arrays["procs"]["scav_npages"].sum()) == 8
        yield from world.sched.stop_the_world()
        stopped.append(world.now)
        assert int(world.heap.arrays["procs"]["scav_npages"].sum()) == 0
        yield world.env.timeout(5 * MS)
        assert released(world) == 0  # it tells what it released when it goes to sleep
        check_heap(world.heap)
        world.sched.start_the_world()

    world.env.process(stopper())
    world.run(until=begun + 20 * MS)
    assert stopped == [begun + 1600 * US]
    assert released(world) == 64 * KIB


def test_a_run_in_hand_is_nobody_elses_and_the_heap_lock_is_taken_twice():
    world, scavenger = new_world(nprocs=2, page=100 * US)
    begun = free_memory(world, 64 * KIB, hole=64 * KIB)
    world.heap.fields.gc_percent_goal = 0
    before = world.heap_lock.acquisitions
    scavenger.wake()
    world.run(until=begun + 1 * MS)
    assert world.heap_lock.acquisitions == before + 1
    chunks = int(world.heap.fields.nchunks)

    def body(g):
        for _ in range(10):
            yield g.malloc(64 * KIB)

    world.run(until=world.go(body))
    assert int(world.heap.fields.nchunks) == chunks
    world.run(until=begun + 3 * MS)
    assert int(world.heap.fields.heap_free) == 0
    check_heap(world.heap)
    assert rss(world.heap) < 64 * KIB * 3


def test_it_is_preempted_between_runs_after_its_time_slice(monkeypatch):
    world, scavenger = new_world(page=100 * US)
    begun = free_memory(world, 8 * MIB)
    world.heap.fields.gc_percent_goal = 0
    monkeypatch.setattr("sim.go.bgscavenge.MIN_WORK_TIME", 1e9)
    world.go(busy)
    scavenger.wake()
    world.run(until=begun + 2 * TIME_SLICE + 5 * MS)
    worked = world.sched.procs[0].times()["scavenging"]
    assert TIME_SLICE <= worked <= TIME_SLICE + 2 * 1600 * US


def test_free_os_memory_takes_everything_dense_chunks_too():
    world, scavenger = new_world(nprocs=2)
    free_memory(world, 4 * MIB)
    fields = world.heap.fields
    freed = []

    def body(g):
        freed.append((yield from scavenger.free_os_memory()))

    start = world.now
    world.run(until=world.go(body))
    assert freed == [4 * MIB] and int(fields.heap_free) == 0
    assert world.now - start == 4 * MIB // 4096 * 10 * US
    assert (released(world), int(fields.scav_released_eager), int(fields.scavenge_background_time)) == (0, 0, 0)
    check_heap(world.heap)


def test_it_can_be_started_once():
    _, scavenger = new_world()
    with pytest.raises(Throw, match="already wired"):
        scavenger.start()


@pytest.mark.skipif(PLAIN, reason="minutes in plain mode")
@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
def test_it_works_beside_a_program_that_allocates(version):
    """Ps that outnumber the CPUs, collections all the time, a memory limit: every invariant holds, every time adds up."""
    world, scavenger = new_world(version, 3, cpus=2, page=50 * NS, call=900 * NS, free_scheduler=False)
    fields = world.heap.fields
    fields.gc_starting = 1  # the limit's own collections would reset what is counted: there are none
    n = 300

    def body(g, seed):
        rng = np.random.default_rng(seed)
        for i in range(60):
            ops = np.zeros(2 * n, OP)
            ops["obj"] = np.concatenate([rng.permutation(n), np.arange(n)])
            ops["kind"] = np.repeat([DEAD, ALLOC], n)
            ops["arg"] = 2 ** rng.integers(3, 18, 2 * n)
            ops["flags"] = np.where(ops["kind"] == ALLOC, NOSCAN | TOUCH | NEEDZERO, 0)
            ops[:n]["arg"] = 0
            yield g.run(ops, n)
            if seed == 0 and i % 6 == 5:
                yield from collect(g)

    def collect(g):
        done = world.env.event()

        def stopper():
            yield from world.sched.stop_the_world()
            check_heap(world.heap)
            collect_at_once(world.heap.header, 0)
            fields.gc_percent_goal = int(fields.heap_in_use) + 2 * MIB
            fields.memory_limit_goal = fields.memory_limit = int(fields.mapped_ready) - 4 * MIB
            world.sched.start_the_world()
            scavenger.wake()
            done.succeed()

        world.env.process(stopper())
        yield done

    world.run(until=world.env.all_of([world.go(body, seed) for seed in range(4)]))
    check_heap(world.heap)
    assert released(world) > 0 and int(fields.scav_released_eager) > 0
    for p in world.sched.procs:
        times = p.times()
        assert sum(times.values()) == world.now
    assert sum(p.times()["scavenging"] for p in world.sched.procs) > 0
