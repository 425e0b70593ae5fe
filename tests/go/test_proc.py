"""A P's rules against the runtime's (proc.go), one rule a test; times worked out by hand.

Prices of the scheduler are 0 unless a test names them, so that a clock shows what the rule alone does.
"""

import itertools
import random

import pytest
import simpy

from sim.go.proc import NEXT_WAIT, RUNQ, TIME_SLICE, TIMER_SLACK
from sim.units import MS, NS, US
from tests.go.sched_world import finish, new_world, tokens

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


def look_period(world):
    """Picoseconds between two looks of sysmon: its sleep, the timer's slack, and until it runs."""
    return TIME_SLICE + TIMER_SLACK + world.prices.lock.wake_latency_10ms


def sysmon(works, period, switch):
    """Turns of goroutines that compute so long, on one P: (time, who) at each turn's begin and each goroutine's end.

    As `retake` does it: a look that sees another turn than the last did notes it, one that sees the same ends it.
    """
    queue, time, turn, noted, seen = list(enumerate(works)), 0, 0, 0, []
    while queue:
        who, left = queue.pop(0)
        time += switch
        turn += 1
        seen.append((time, who))
        while left:
            look = (time // period + 1) * period
            left, time = (0, time + left) if time + left < look else (left - (look - time), look)
            if left and noted == turn:
                queue.append((who, left))
                break
            noted = turn if left else noted
        else:
            seen.append((time, who))
    return seen


@pytest.mark.parametrize("seed", range(5))
def test_a_slice_ends_when_sysmon_sees_it_twice_and_the_preempted_queue_up(seed):
    switch, seen, rng = 1 * US, [], random.Random(seed)
    works = [rng.randrange(1, 70 * MS) for _ in range(rng.randrange(2, 5))]
    world = new_world(switch=switch)

    def worker(g, who, work):
        seen.append((g.world.now, who))
        yield g.compute(work)
        seen.append((g.world.now, who))

    gs = [world.go(worker, who, work) for who, work in enumerate(works)]
    finish(world, *gs)
    expected = sysmon(works, look_period(world), switch)
    first = [next(turn for turn in expected if turn[1] == who) for who in range(len(works))]
    ends = [max(turn for turn in expected if turn[1] == who) for who in range(len(works))]
    assert sorted(seen) == sorted(first + ends)
    turns = len(expected) - len(works)
    assert world.sched.procs[0].times()["scheduling"] == turns * switch


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
    # the ball came from outside at 1 us: that turn's slice ends when sysmon sees it again, in the middle of a compute
    assert log == [2 * look_period(world)]


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
