"""What Ps share: the machine's CPUs, the runtime's locks, and a world that stops; times worked out by hand.

Prices of the scheduler are 0 unless a test names them, so that a clock shows what the rule alone does.
"""

from dataclasses import replace

import numpy as np
import pytest
import simpy

from sim.engine.clock import after, priority
from sim.go.check import check_heap
from sim.go.params import VERSIONS
from sim.go.sched import OS_SLICE
from sim.jit import PLAIN
from sim.ops import ALLOC, NEEDZERO, NO_OBJ, OP
from sim.units import MIB, MS, NS, SEC, US
from tests.go.sched_world import adds_up, finish, new_world

# ---------------------------------------------------------------------------------------------------- more Ps than CPUs


def on_cpu(world):
    """Picoseconds of CPU that the Ps used so far."""
    off = ("idle", "stopped", "no_cpu")
    return sum(time for p in world.sched.procs for kind, time in p.times().items() if kind not in off)


def test_cpus_are_shared_fairly_and_never_idle():
    nprocs, cpus, switch = 8, 3, 2 * US
    world = new_world(nprocs, cpus=cpus, os_switch=switch)

    def worker(g):
        yield g.compute(1 * SEC)

    for _ in range(nprocs):
        world.go(worker)
    world.run(until=20 * MS)
    before, shares = on_cpu(world), [p.times() for p in world.sched.procs]
    world.run(until=620 * MS)
    adds_up(world)
    used = [p.times()["compute"] - share["compute"] for p, share in zip(world.sched.procs, shares, strict=True)]
    switches = sum(p.times()["scheduling"] - s["scheduling"] for p, s in zip(world.sched.procs, shares, strict=True))
    assert on_cpu(world) - before == cpus * 600 * MS
    assert sum(used) + switches == cpus * 600 * MS
    assert max(used) - min(used) <= OS_SLICE + switch
    assert 600 * MS * cpus // (OS_SLICE + switch) - cpus <= switches // switch <= 600 * MS * cpus // OS_SLICE + cpus


def test_a_compute_that_begins_while_a_thread_waits_ends_with_its_cpu_slice():
    world, log = new_world(2, cpus=1), []

    def worker(g):
        yield g.compute(1 * MS)
        yield g.compute(9 * MS)
        log.append((g.p.index, g.world.now))

    finish(world, world.go(worker), world.go(worker))
    # 3 + 3 + 3 + 3 + 3 + 3 + 1 + 1 ms
    assert sorted(time for _, time in log) == [19 * MS, 20 * MS]


def test_goroutines_that_only_talk_do_not_starve_a_thread():
    world = new_world(2, cpus=1, switch=1 * US, os_switch=1 * US)
    a, b = simpy.Store(world.env), simpy.Store(world.env)

    def player(g, mine, other):
        while True:
            yield mine.get()
            yield other.put(0)

    def worker(g):
        yield g.compute(5 * MS)

    world.go(player, a, b)
    world.go(player, b, a)
    a.put(0)
    g = world.go(worker)
    world.run(until=20 * MS)
    adds_up(world)
    assert not g.is_alive


def test_idle_ps_hold_no_cpu():
    world = new_world(4, cpus=1)

    def worker(g):
        yield g.world.env.timeout(1 * MS)
        yield g.compute(1 * MS)

    finish(world, *(world.go(worker) for _ in range(4)))
    assert world.now == 5 * MS
    assert world.sched.cpus.free == 0
    world.run(until=6 * MS)
    assert world.sched.cpus.free == 1


# ---------------------------------------------------------------------------------------------------- locks


def outsider(world, begin, hold):
    """Process: a thread of no P holds mheap.lock for a while."""
    owner = len(world.sched.procs)
    yield after(world.env, begin, priority(3, owner))
    yield from world.heap_lock.acquire(owner, world.now)
    yield after(world.env, hold, priority(3, owner))
    world.heap_lock.release(owner, world.now)


def test_a_goroutine_that_waits_for_a_runtime_lock_keeps_its_p():
    world, log = new_world(), []

    def allocates(g):
        yield g.malloc(1 * MIB)
        log.append("allocated")

    def other(g):
        log.append(g.world.now)
        yield g.compute(1)

    world.env.process(outsider(world, 0, 2 * MS))
    world.run(until=10)
    finish(world, world.go(allocates), world.go(other))
    assert log[0] == "allocated"
    assert log[1] > 2 * MS
    assert world.sched.procs[0].times()["lock"] >= 2 * MS - 10
    assert world.heap_lock.waits == 1


# ---------------------------------------------------------------------------------------------------- stopping the world


def use_all_memory(world):
    """Everything mapped so far counts as used before: memory stands behind it, and it must be cleared."""
    world.heap.arrays["arenas"]["zeroed_base"][:] = 64 * MIB
    world.heap.arrays["arenas"]["touched"][:] = 2**64 - 1


def stop(world, at, length, log):
    """Process: stop the world once; the log gets when it stood and who ran."""
    yield world.env.timeout(at - world.now)
    yield from world.sched.stop_the_world()
    log.append(world.now)
    standing = [(p.times(), int(world.heap.arrays["p_time"][p.index])) for p in world.sched.procs]
    yield world.env.timeout(length)
    never = max(due for _, due in standing)
    for p, (times, due) in zip(world.sched.procs, standing, strict=True):
        later = p.times()
        assert due == never == int(world.heap.arrays["p_time"][p.index])
        grown = {kind for kind in later if later[kind] != times[kind]}
        assert grown <= {"stopped", "idle"}, "nothing else happens while the world stands"
    adds_up(world)
    world.sched.start_the_world()


def computes(g):
    yield g.compute(1 * MS)


def clears(g):
    yield g.malloc(100 * MIB)
    use_all_memory(g.world)
    yield g.malloc(32 * MIB)


def allocates_for_ever(g):
    ops = np.zeros(100_000, OP)
    ops[:] = (ALLOC, NEEDZERO, NO_OBJ, 64, 8)
    yield g.run(ops)


def waits_for_the_lock(g):
    yield g.malloc(1 * MIB)


def parks(g):
    yield g.world.env.timeout(1 * MS)


# what runs, CPUs, how long the world takes to stop at most
STATES = {
    "idle": ([], 2, 0),
    "parked": ([parks], 2, 0),
    "computing": ([computes, computes], 2, 0),
    "without a CPU": ([computes, computes], 1, 2 * US),
    "clearing a large object": ([clears], 2, 256 * 1024 * 47),
    "allocating": ([allocates_for_ever], 2, 5 * US),
    "in a lock": ([waits_for_the_lock], 2, 600 * US),
    "all": ([computes, clears, waits_for_the_lock, allocates_for_ever, parks, computes], 4, 600 * US),
}


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
@pytest.mark.parametrize("state", STATES)
def test_the_world_stops_whatever_the_ps_do_and_goes_on(state, version):
    bodies, cpus, longest = STATES[state]
    if PLAIN and allocates_for_ever in bodies:
        pytest.skip("too slow uncompiled")
    facts = replace(VERSIONS[version], skip_zeroing_scavenged=False)
    world, log = new_world(max(2, len(bodies)), version=version, facts=facts, cpus=cpus, os_switch=2 * US), []
    gs = [world.go(body) for body in bodies]
    if clears in bodies:
        while not (world.heap.arrays["goroutines"]["stage"] == 3).any():  # CLEARING
            world.run(until=world.now + 100 * NS)
    at = world.now + 300 * US
    if waits_for_the_lock in bodies and clears not in bodies:
        world.env.process(outsider(world, 0, at + 500 * US))
    stopper = world.env.process(stop(world, at, 50 * US, log))
    world.run(until=stopper)
    finish(world, *gs)
    assert at <= log[0] <= at + longest
    for body, g in zip(bodies, gs, strict=True):
        assert not g.is_alive, body
    if clears not in bodies:  # it claims memory that was never touched
        check_heap(world.heap)


def test_who_stops_the_world_second_waits_for_the_first():
    world, log = new_world(1), []
    g = world.go(computes)
    world.env.process(stop(world, 100 * US, 50 * US, log))
    world.env.process(stop(world, 120 * US, 50 * US, log))
    finish(world, g)
    assert log == [100 * US, 150 * US]
    assert world.now == 1100 * US


def test_a_stopped_compute_takes_as_long_as_ever():
    world, log = new_world(1), []
    g = world.go(computes)
    world.env.process(stop(world, 400 * US, 70 * US, log))
    finish(world, g)
    assert (log, world.now) == ([400 * US], 1070 * US)
    assert world.sched.procs[0].times() | {"compute": 0, "stopped": 0} == dict.fromkeys(world.sched.procs[0].times(), 0)


@pytest.mark.parametrize(("version", "first"), [("go1.27", "running"), ("go1.19", "queued")])
def test_who_is_stopped_goes_on_first_or_queues_up_again_by_version(version, first):
    world, log = new_world(1, version=version), []

    def running(g):
        yield g.compute(1 * MS)
        log.append("running")

    def queued(g):
        yield g.compute(1 * US)
        log.append("queued")

    gs = [world.go(running), world.go(queued)]
    world.env.process(stop(world, 100 * US, 10 * US, []))
    finish(world, *gs)
    assert log[0] == first


def test_work_that_comes_while_the_world_stands_runs_after_it():
    world, log = new_world(2, wake_p=5 * US), []

    def late(g):
        log.append(g.world.now)
        yield g.compute(1)

    world.env.process(stop(world, 100 * US, 100 * US, []))
    world.env.timeout(150 * US).callbacks.append(lambda _: world.go(late))
    world.run()
    assert log == [205 * US]


def test_two_stops_in_a_row():
    world, log = new_world(3, wake_p=5 * US), []

    def stopper():
        yield from stop(world, 100 * US, 10 * US, log)
        yield from stop(world, 110 * US, 10 * US, log)

    gs = [world.go(computes) for _ in range(3)]
    world.env.process(stopper())
    finish(world, *gs)
    assert log == [100 * US, 110 * US]
