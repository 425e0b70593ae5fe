"""The scheduler against the runtime's rules (proc.go), one rule a test; times worked out by hand.

Prices of the scheduler are 0 unless a test names them, so that a clock shows what the rule alone does.
"""

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
import simpy

from sim.costs import Price
from sim.engine.clock import OBSERVE, after, priority
from sim.go.check import check_heap
from sim.go.goroutine import Goroutine
from sim.go.metrics import read_metrics
from sim.go.params import VERSIONS
from sim.go.proc import NEXT_WAIT, RUNQ, TIME_SLICE, Proc
from sim.go.ptime import KINDS
from sim.go.sched import OS_SLICE
from sim.go.world import World
from sim.jit import PLAIN
from sim.ops import ALLOC, COMPUTE, DEAD, NEEDZERO, NO_OBJ, NOSCAN, OP, SHARED, TOUCH
from sim.units import MIB, MS, NS, SEC, US, Throw
from tests.go.prices import made_up_prices

SCHEDULER = ("goroutine_new", "goroutine_reused", "goroutine_exit", "switch", "steal", "wake_p", "os_switch")


def new_world(nprocs=1, *, version="go1.27", cpus=None, seed=1, facts=None, **steps):
    """A world with made-up prices; ``steps``: those of the scheduler in picoseconds."""
    prices = made_up_prices(version)
    given = dict.fromkeys(SCHEDULER, 0) | steps
    prices = replace(prices, steps=dict(prices.steps) | {name: Price(price) for name, price in given.items()})
    return World(facts or version, nprocs, prices, seed, cpus=cpus, gogc=-1)


def tokens(world, n):
    """Goroutines that are only moved about."""

    def never(g):
        yield

    return [Goroutine(world, f"g{i}", never, ()) for i in range(n)]


def adds_up(world):
    """Each P's picoseconds are the time, and none is negative but what it ran ahead."""
    for p in world.sched.procs:
        times = p.times()
        assert sum(times.values()) == world.now, (p.index, times)
        assert all(time >= 0 for kind, time in times.items() if kind != "ahead"), (p.index, times)


def finish(world, *events):
    """Run to the end of some goroutines; the sums must hold."""
    world.run(until=world.env.all_of(events))
    adds_up(world)


# ---------------------------------------------------------------------------------------------------- queues


def test_a_queue_holds_256_and_half_of_a_full_one_goes_to_the_global_queue_with_the_newcomer():
    world = new_world()
    p, gs = world.sched.procs[0], tokens(world, RUNQ + 1)
    for g in gs[:RUNQ]:
        p.put(g, False)
    assert (list(p.runq), len(world.sched.queue)) == (gs[:RUNQ], 0)
    p.put(gs[RUNQ], False)
    assert list(p.runq) == gs[128:256]
    assert list(world.sched.queue) == [*gs[:128], gs[256]]


def test_runnext_kicks_the_old_one_to_the_tail_and_out_of_a_full_queue():
    world = new_world()
    p, (a, b, c, *rest) = world.sched.procs[0], tokens(world, 3 + RUNQ)
    p.put(a, True)
    p.put(b, True)
    assert (p.runnext, list(p.runq)) == (b, [a])
    for g in rest[: RUNQ - 1]:
        p.put(g, False)
    p.put(c, True)
    assert p.runnext is c
    assert list(world.sched.queue) == [a, *rest[:127], b]
    assert list(p.runq) == rest[127 : RUNQ - 1]


def test_the_next_is_runnext_then_the_queue_then_a_share_of_the_global_queue():
    world = new_world(4)
    p, gs = world.sched.procs[0], tokens(world, 10)
    p.tick = 1
    world.sched.queue.extend(gs[2:])
    p.put(gs[0], False)
    p.put(gs[1], True)
    assert p._next() == (gs[1], True)  # with the rest of the time slice
    assert p._next() == (gs[0], False)
    assert p._next() == (gs[2], False)
    assert (list(p.runq), list(world.sched.queue)) == (gs[3:5], gs[5:])  # 8 / 4 + 1 in all


@pytest.mark.parametrize(("queued", "nprocs", "taken"), [(1, 8, 1), (7, 8, 1), (8, 8, 2), (3, 1, 3), (600, 4, 128)])
def test_share_of_the_global_queue(queued, nprocs, taken):
    world = new_world(nprocs)
    p = world.sched.procs[0]
    p.tick = 1
    world.sched.queue.extend(tokens(world, queued))
    p._next()
    assert (len(p.runq), len(world.sched.queue)) == (taken - 1, queued - taken)


def test_every_61st_turn_takes_one_from_the_global_queue_first():
    world = new_world()
    p, gs = world.sched.procs[0], tokens(world, 4)
    world.sched.queue.extend(gs[2:])
    p.put(gs[0], False)
    p.put(gs[1], True)
    p.tick = 122
    assert p._next() == (gs[2], False)
    p.tick = 123
    assert p._next() == (gs[1], True)
    assert (list(p.runq), list(world.sched.queue)) == ([gs[0]], [gs[3]])


def steal(world, thief):
    """Run one attempt to steal as a process: (what it took, how long it took)."""
    begun = world.now
    taken = world.env.process(thief._steal())
    world.env.run(until=taken)
    return taken.value, world.now - begun


@pytest.mark.parametrize(("queued", "taken"), [(1, 1), (2, 1), (3, 2), (5, 3), (256, 128)])
def test_a_thief_takes_the_oldest_half_and_runs_the_last_of_them(queued, taken):
    world = new_world(2)
    thief, victim = world.sched.procs
    gs = tokens(world, queued)
    victim.runq.extend(gs)
    assert steal(world, thief) == (gs[taken - 1], 0)
    assert (list(thief.runq), list(victim.runq)) == (gs[: taken - 1], gs[taken:])


def test_runnext_is_stolen_last_and_after_3_us_if_its_p_runs():
    world = new_world(3)
    world.run()
    thief, a, b = world.sched.procs
    next_one, queued = tokens(world, 2)
    a.runnext = next_one
    b.runq.append(queued)
    a.wakeup = None  # it runs
    assert steal(world, thief) == (queued, 0)
    assert steal(world, thief) == (next_one, NEXT_WAIT)
    assert steal(world, thief) == (None, 0)


def test_a_p_that_takes_its_runnext_within_3_us_keeps_it():
    world = new_world(2)
    world.run()
    thief, victim = world.sched.procs
    (victim.runnext,) = tokens(world, 1)
    victim.wakeup = None
    world.env.timeout(NEXT_WAIT - 1).callbacks.append(lambda _: setattr(victim, "runnext", None))
    assert steal(world, thief) == (None, NEXT_WAIT)


# ---------------------------------------------------------------------------------------------------- order and slices


def test_the_last_go_statement_runs_first_then_the_others_in_order():
    world, log = new_world(), []

    def child(g, name):
        log.append(name)
        yield g.compute(1)

    def parent(g):
        for name in "abcd":
            yield g.go(child, name)

    finish(world, world.go(parent))
    world.run()
    assert log == ["d", "a", "b", "c"]


def test_slices_of_10_ms_and_the_preempted_queue_up():
    switch, turns = 1 * US, []
    world = new_world(switch=switch)

    def worker(g, name, work):
        turns.append(name)
        yield g.compute(work)
        turns.append((name, g.world.now))

    a, b = world.go(worker, "a", 35 * MS), world.go(worker, "b", 25 * MS)
    finish(world, a, b)
    # a b a b a b(5) a(5): seven turns
    assert turns == ["a", "b", ("b", 6 * switch + 55 * MS), ("a", 7 * switch + 60 * MS)]
    assert world.sched.procs[0].times()["scheduling"] == 7 * switch
    # b queued for a's slice; each waited for the other's turns and the switches to them
    assert (a.waited, b.waited) == (25 * MS + 3 * switch, 30 * MS + 3 * switch)


def test_a_pair_that_readies_each_other_keeps_others_out_for_one_slice():
    world, log = new_world(), []
    ends = [simpy.Store(world.env), simpy.Store(world.env)]

    def player(g, me):
        while True:
            yield ends[me].get()
            yield g.compute(7 * US)
            yield ends[1 - me].put("ball")

    def late(g):
        log.append(g.world.now)
        yield g.compute(1)

    world.go(player, 0)
    world.go(player, 1)
    world.run(until=1 * US)
    ends[0].put("ball")
    world.run(until=1 * MS)
    world.go(late)
    world.run(until=30 * MS)
    # the ball came from outside at 1 us: that turn's slice ends 10 ms later, in the middle of a compute
    assert log == [1 * US + TIME_SLICE]


def test_a_goroutine_in_the_global_queue_waits_61_turns_at_most():
    world, turns = new_world(), []

    def child(g):
        yield g.compute(1 * US)
        turns.append("child")

    def parent(g):
        for _ in range(200):
            yield g.go(child)

    def outsider(g):
        turns.append("outsider")
        yield g.compute(1)

    world.go(parent)
    world.run(until=1)
    world.go(outsider)
    world.run()
    assert turns.index("outsider") <= 61
    assert len(turns) == 201


# ---------------------------------------------------------------------------------------------------- waking


def test_one_p_is_woken_at_a_time_and_who_finds_work_wakes_the_next():
    wake, started = 5 * US, []
    world = new_world(8, wake_p=wake, steal=100 * NS)

    def child(g):
        started.append((g.world.now, g.p.index))
        yield g.compute(1 * MS)

    def parent(g):
        for _ in range(7):
            yield g.go(child)
        yield g.compute(1 * MS)

    peak = []
    p = world.go(parent)

    def watch(_):
        peak.append(world.sched.spinning)
        if p.is_alive:
            world.env.timeout(100 * NS).callbacks.append(watch)

    watch(None)
    finish(world, p)
    world.run()
    times = [time for time, _ in started]
    assert len({index for _, index in started}) == 7, "each on a P of its own"
    # the first to come finds the oldest child, half of them with it, and wakes the next, who finds half of the rest ...
    assert all(later - earlier >= wake for earlier, later in itertools.pairwise(times))
    assert times[0] == 2 * wake + 100 * NS  # the outside wakes the parent's P, which wakes another
    assert max(peak) == 1


def test_nobody_is_woken_while_somebody_looks_for_work():
    world = new_world(4, wake_p=5 * US)
    world.run()
    a, b = tokens(world, 2)
    world.sched.queue.extend([a, b])
    world.sched.wake_p()
    assert (len(world.sched.idle), world.sched.spinning) == (3, 1)
    world.sched.wake_p()
    assert (len(world.sched.idle), world.sched.spinning) == (3, 1)


def test_who_ran_out_of_work_and_stole_wakes_the_next():
    world = new_world(3, wake_p=5 * US)
    world.run()
    victim, thief, other = world.sched.procs
    for p in (victim, thief):
        p.wakeup = None  # they run
        world.sched.idle.remove(p)
        world.sched.cpus.free -= 1
    victim.runq.extend(tokens(world, 6))
    found = world.env.process(thief._find())
    world.run(until=found)
    assert (thief.spinning, other.spinning, world.sched.idle) == (False, True, [])


def test_spinning_is_for_half_of_the_busy_ps():
    world = new_world(4)
    world.run()
    a, b, c, _ = world.sched.procs
    for p in (a, b):
        p.wakeup = None
        world.sched.idle.remove(p)
        world.sched.cpus.free -= 1
    c.spinning, world.sched.spinning = True, 1
    a.runq.extend(tokens(world, 4))
    world.env.process(b._find())
    world.env.step()
    assert b in world.sched.idle, "two are busy and one spins: it leaves the work to that one"
    assert len(a.runq) == 4


def test_an_event_of_this_instant_parks_nobody():
    world = new_world(2, switch=1 * US, wake_p=1 * MS)
    store, log = simpy.Store(world.env), []

    def worker(g):
        log.append(g.world.now)
        for i in range(100):
            yield store.put(i)
        assert (yield store.get()) == 0
        yield g.world.env.timeout(0)
        log.append(g.world.now)
        yield g.compute(5)
        log.append(g.world.now)

    finish(world, world.go(worker))
    assert log == [1 * MS + 1 * US, 1 * MS + 1 * US, 1 * MS + 1 * US + 5]


def test_a_hand_over_on_one_p_costs_a_switch_and_no_wake():
    switch = 200 * NS
    world = new_world(1, switch=switch, wake_p=1 * MS)
    there, back = simpy.Store(world.env), simpy.Store(world.env)

    def server(g):
        while True:
            work = yield there.get()
            yield g.compute(work)
            yield back.put("done")

    def client(g):
        begun = g.world.now
        for _ in range(1000):
            yield there.put(1 * US)
            yield back.get()
        return g.world.now - begun

    world.go(server)
    g = world.go(client)
    finish(world, g)
    assert g.value == 1000 * (1 * US + 2 * switch)


# ---------------------------------------------------------------------------------------------------- parking, values, errors


def test_goroutines_park_on_any_event():
    world, log = new_world(2), []
    env = world.env
    mutex, tank, signal = simpy.Resource(env), simpy.Container(env, 10), env.event()

    def holder(g):
        with mutex.request() as turn:
            yield turn
            yield env.timeout(3 * US)
        yield tank.put(4)
        signal.succeed("go")

    def waiter(g):
        yield g.compute(1)
        with mutex.request() as turn:
            yield turn
            log.append(("mutex", g.world.now))
        yield tank.get(4)
        log.append(("tank", g.world.now))
        log.append((yield signal))
        a, b = env.timeout(2 * US, "a"), env.timeout(9 * US, "b")
        log.append(list((yield a | b).values()))
        log.append(list((yield a & b).values()))
        log.append(g.world.now)

    finish(world, world.go(holder), world.go(waiter))
    assert log == [("mutex", 3 * US), ("tank", 3 * US), "go", ["a"], ["a", "b"], 12 * US]


def test_the_p_of_a_parked_goroutine_runs_others():
    world = new_world()

    def sleeper(g):
        yield g.world.env.timeout(1 * MS)

    def busy(g):
        yield g.compute(1 * MS)

    finish(world, *(world.go(f) for f in (sleeper, busy)))
    assert world.now == 1 * MS


def test_values_come_back():
    world = new_world(2)

    def child(g, x):
        yield g.compute(3 * US)
        return x + 1

    def parent(g):
        one = yield g.go(child, 1, name="one")
        two = yield g.go(child, 2)
        assert (one.label, two.label) == ("one", "child")
        results = yield g.world.env.all_of([one, two])
        return [*results.values(), (yield one)]

    g = world.go(parent)
    finish(world, g)
    assert g.value == [2, 3, 2]
    assert (world.sched.created, world.sched.alive) == (3, 0)


def failing(g, after_ps):
    yield g.compute(after_ps)
    raise KeyError("lost")


def test_a_goroutine_that_raises_fails_the_run_with_its_own_error():
    world = new_world(2)
    world.go(failing, 5 * US)
    with pytest.raises(KeyError, match="lost"):
        world.run()


def test_the_waiter_gets_the_error_and_may_catch_it():
    world = new_world(2, wake_p=3 * US, switch=100)

    def parent(g, catch):
        child = yield g.go(failing, 5 * US)
        yield g.compute(1)
        try:
            yield child
        except KeyError as error:
            if catch:
                return f"caught {error}"
            raise ValueError("no child") from error

    g = world.go(parent, True)
    finish(world, g)
    assert g.value == "caught 'lost'"
    world.go(parent, False)
    with pytest.raises(ValueError, match="no child"):
        world.run()


def test_a_failed_event_waits_for_a_p_and_is_thrown_in():
    world = new_world(1, switch=100)
    event, log = world.env.event(), []

    def waiter(g):
        try:
            yield event
        except OSError as error:
            log.append((str(error), g.world.now))
        yield g.compute(1)

    def busy(g):
        yield g.compute(8 * US)

    gs = [world.go(waiter), world.go(busy)]
    world.env.timeout(2 * US).callbacks.append(lambda _: event.fail(OSError("gone")))
    finish(world, *gs)
    assert log == [("gone", 8 * US + 3 * 100)]


def test_what_is_yielded_must_be_an_event():
    world = new_world()

    def wrong(g):
        yield 5

    world.go(wrong)
    with pytest.raises(RuntimeError, match='Invalid yield value "5"'):
        world.run()


def test_a_child_runs_when_its_go_statement_is_over_and_not_without_it():
    world, log = new_world(2, goroutine_new=700 * NS, goroutine_reused=90 * NS, wake_p=100), []

    def child(g):
        log.append(g.world.now)
        yield g.compute(1)

    def parent(g):
        begun = g.world.now
        g.go(child)  # nobody waits for it to happen
        first = yield g.go(child)
        yield first
        log.append(g.world.now - begun)
        yield g.go(child)

    g = world.go(parent)
    finish(world, g)
    world.run()
    begun = 100
    assert log[0] >= begun + 700 * NS
    assert (len(log), world.sched.created) == (3, 3)
    assert log[2] - (begun + log[1]) >= 90 * NS


def test_goroutines_of_the_outside_wake_a_p():
    world, log = new_world(2, wake_p=5 * US, switch=100 * NS), []

    def request(g):
        log.append(g.world.now)
        yield g.compute(1)

    world.run(until=1 * MS)
    world.run(until=world.go(request))
    assert log == [1 * MS + 5 * US + 100 * NS]


def test_ten_thousand_goroutines_on_64_ps():
    n, per = (300, 3) if PLAIN else (10_000, 5)
    world = new_world(64, wake_p=5 * US, switch=100 * NS, steal=300 * NS, goroutine_new=500 * NS)
    done = []

    def child(g, i):
        for _ in range(per):
            handle = yield g.malloc(48)
            yield g.compute(1 * US + i % 7)
            yield g.drop(handle)
        done.append(i)

    def parent(g):
        for i in range(n):
            yield g.go(child, i)

    finish(world, world.go(parent))
    world.run()
    adds_up(world)
    assert sorted(done) == list(range(n))
    assert (world.sched.alive, world.sched.created) == (0, n + 1)
    procs = world.heap.arrays["procs"]
    assert int(procs["mallocs"].sum()) == n * per
    spawning = world.sched.created - 1 if n <= 64 else 0
    assert spawning >= 0
    busy = sum(per * (1 * US + i % 7) for i in range(n))
    assert busy <= int(procs["compute_time"].sum()) <= busy + n * 500 * NS
    assert int(world.heap.fields.live_objects) == 0
    check_heap(world.heap)


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

NEEDS_CLEARING = replace(VERSIONS["go1.27"], skip_zeroing_scavenged=False)


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


# ---------------------------------------------------------------------------------------------------- misuse


def records(*ops):
    batch = np.zeros(len(ops), OP)
    for i, op in enumerate(ops):
        batch[i] = op
    return batch


FINE = (COMPUTE, 0, 0, 1, 0)
BAD = {
    "no such kind": (3, 0, 0, 1, 0),
    "no size": (ALLOC, 0, 0, 0, 0),
    "too large": (ALLOC, 0, 0, (1 << 40) + 1, 0),
    "variable beyond the goroutine's": (ALLOC, 0, 2, 8, 8),
    "no variable to drop": (DEAD, 0, NO_OBJ, 0, 0),
    "shared variable that is not there": (DEAD, SHARED, 1000, 0, 0),
    "negative compute": (COMPUTE, 0, 0, -1, 0),
    "endless compute": (COMPUTE, 0, 0, (1 << 61) + 1, 0),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_operations_are_refused_by_number(case):
    world = new_world()

    def worker(g):
        yield g.run(records(FINE, BAD[case], FINE), 2)

    world.go(worker)
    with pytest.raises(Throw, match="operation 1 of a batch of goroutine worker may not be run"):
        world.run()


@pytest.mark.parametrize("ops", [[FINE], np.zeros(3), np.zeros((2, 2), OP), np.zeros(8, OP)[::2]])
def test_what_is_no_batch_is_refused(ops):
    world = new_world()

    def worker(g):
        yield g.run(ops)

    world.go(worker)
    with pytest.raises(Throw, match="a batch is a contiguous array"):
        world.run()


def refuse(body, message, error=Throw):
    world = new_world(2)
    world.go(body)
    with pytest.raises(error, match=message):
        world.run()


def test_misuse_by_a_goroutine_is_refused():
    def drops_twice(g):
        handle = yield g.malloc(8)
        yield g.drop(handle)
        yield g.drop(handle)

    def drops_nothing(g):
        yield g.drop(7)

    def waits_for_two(g):
        yield g.compute(5) | g.world.env.timeout(3)

    def interrupts(g):
        child = yield g.go(computes)
        child.interrupt("stop it")

    def starts_no_generator(g):
        yield g.go(print)

    refuse(drops_twice, "drop of 0, which names no object")
    refuse(drops_nothing, "drop of 7, which names no object")
    refuse(waits_for_two, "waits_for_two waits for work together with other events")
    refuse(interrupts, "goroutine computes cannot be interrupted")
    refuse(starts_no_generator, "goroutine print is no generator")


def test_misuse_from_outside_is_refused():
    world = new_world(2)
    with pytest.raises(Throw, match="goroutine <lambda> is no generator"):
        world.go(lambda g: None)
    assert (world.sched.alive, world.sched.created) == (0, 0)
    with pytest.raises(Throw, match="the world is not stopped"):
        world.sched.start_the_world()


def test_a_handle_names_nothing_else_before_its_drop_was_run():
    world = new_world()

    def worker(g):
        handle = yield g.malloc(64)
        work = g.drop(handle)
        assert (yield g.malloc(64)) != handle
        yield work
        assert (yield g.malloc(64)) == handle

    finish(world, world.go(worker))
    assert int(world.heap.fields.live_objects) == 2


# ---------------------------------------------------------------------------------------------------- time adds up


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
