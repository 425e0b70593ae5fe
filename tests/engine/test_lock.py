"""Locks against schedules worked out by hand from the runtime's algorithms, and every misuse once."""

import itertools
from dataclasses import replace

import pytest
import simpy

from sim.costs import LockPrices
from sim.engine.clock import RUN, after, priority
from sim.engine.lock import LockOrder, Park, TimedLock
from sim.engine.rng import Stream
from sim.units import Throw

PRICES = LockPrices(
    acquire=10,
    release=5,
    procyield=100,
    osyield=50,
    futex_sleep=200,
    futex_wake=40,
    wake_latency=1000,
    handoff=7,
    **dict.fromkeys(LockPrices.__slots__[8:], 0),  # of signals, and of threads that do not wait for a lock
)
WAKE = 5 + 40 + 1000  # from a release to the first step of the thread it wakes


def new_lock(discipline="fifo", name="heap", rank=1, order=None, below=None, env=None):
    if discipline == "spinbit":
        below = below or (lambda n: 1)
    return TimedLock(env or simpy.Environment(), name, rank, discipline, PRICES, order or LockOrder(), below)


def play(lock, script):
    """Run {owner: (arrives, holds)}; the log [(granted, owner, cost of its release)] in order of grants."""
    env, log = lock.env, []

    def thread(owner, arrives, holds):
        yield after(env, arrives, priority(RUN, owner))
        assert (yield from lock.acquire(owner, env.now)) == 10
        got = env.now
        assert lock.holder == owner
        lock.check()
        yield after(env, holds, priority(RUN, owner))
        log.append((got, owner, lock.release(owner, env.now)))
        lock.check()

    for owner, (arrives, holds) in script.items():
        env.process(thread(owner, arrives, holds))
    env.run()
    assert len(log) == len(script)
    return log


def draws(*values):
    """A source of the 1-in-16 draws that fails when asked more often than expected."""
    left = list(values)

    def below(n):
        assert n == 16
        return left.pop(0)

    below.left = left
    return below


def test_free_lock_grants_without_an_event():
    for discipline in ("fifo", "futex", "spinbit"):
        lock = new_lock(discipline)
        with pytest.raises(StopIteration) as stop:
            next(lock.acquire(3, 0))
        assert (stop.value.value, lock.holder, lock.env.peek()) == (10, 3, float("inf"))
        assert lock.release(3, 0) == 5
        assert (lock.holder, lock.acquisitions, lock.releases, lock.waits) == (None, 1, 1, 0)


def test_fifo_hands_over_to_the_oldest():
    lock = new_lock("fifo")
    assert play(lock, {0: (0, 100), 2: (10, 50), 1: (20, 30)}) == [(0, 0, 5), (107, 2, 5), (164, 1, 5)]
    assert (lock.waits, lock.total_wait, lock.longest_wait, lock.total_hold) == (2, 97 + 144, 144, 180)


def test_fifo_cannot_be_barged_during_the_hand_over():
    lock = new_lock("fifo")
    assert play(lock, {0: (0, 100), 1: (10, 50), 2: (103, 50)}) == [(0, 0, 5), (107, 1, 5), (164, 2, 5)]


# A futex waiter that arrives at 1 polls at 11, 111, 211, 311, 411, tries the exchange at 461, is asleep at 671.
FUTEX = {
    "taken at the next poll": ({0: (0, 250), 1: (1, 100)}, [(0, 0, 5), (311, 1, 5)], 3, 0),
    "taken by the exchange that says sleeping; its release calls wake for nobody": (
        {0: (0, 440), 1: (1, 100)},
        [(0, 0, 5), (461, 1, 45)],
        5,
        0,
    ),
    "word changes on the way to sleep: futex wait returns at once": (
        {0: (0, 500), 1: (1, 100)},
        [(0, 0, 45), (671, 1, 45)],
        5,
        0,
    ),
    "the word changes to locked on the way to sleep: nobody would wake us, so spin and say sleeping again": (
        {0: (0, 500), 1: (1, 100), 2: (600, 5000)},
        [(0, 0, 45), (600, 2, 45), (5600 + WAKE, 1, 45)],
        10,
        1,
    ),
    "asleep, then woken": ({0: (0, 1000), 1: (1, 100)}, [(0, 0, 45), (1000 + WAKE, 1, 45)], 5, 1),
    "a newcomer takes the lock before the woken thread gets there": (
        {0: (0, 1000), 1: (1, 100), 2: (1500, 100)},
        [(0, 0, 45), (1500, 2, 5), (2045, 1, 45)],
        5,
        1,
    ),
    "the woken thread finds the lock taken, spins and sleeps again": (
        {0: (0, 1000), 1: (1, 100), 2: (1500, 3000)},
        [(0, 0, 45), (1500, 2, 45), (4500 + WAKE, 1, 45)],
        10,
        2,
    ),
    "a newcomer's exchange hides the sleeper from one release, and repairs the word when it takes the lock": (
        {0: (0, 1000), 1: (1, 100), 2: (900, 100)},
        [(0, 0, 5), (1010, 2, 45), (1110 + WAKE, 1, 45)],
        5 + 1,
        1,
    ),
    "everybody spins; the longest asleep is woken": (
        {0: (0, 5000), 1: (1, 100), 2: (2, 100)},
        [(0, 0, 45), (6045, 1, 45), (6145 + WAKE, 2, 45)],
        10,
        2,
    ),
}


@pytest.mark.parametrize("case", FUTEX)
def test_futex_by_hand(case):
    script, expected, spins, sleeps = FUTEX[case]
    lock = new_lock("futex")
    assert play(lock, script) == expected
    assert (lock.spins, lock.futex_sleeps) == (spins, sleeps)
    assert lock.futex_wakes == sum(cost == 45 for _, _, cost in expected)


# (script, draws, log, spins, sleeps); a spinning waiter polls as above, any other sleeps at its first look
SPINBIT = {
    "the spinner takes it, nobody is woken": ({0: (0, 250), 1: (1, 100)}, [], [(0, 0, 5), (311, 1, 5)], 3, 0),
    "no wake beside a spinner; then last in, first out": (
        {0: (0, 250), 1: (1, 100), 2: (2, 100), 3: (3, 100)},
        [1, 15, 1, 1],
        [(0, 0, 5), (311, 1, 45), (411 + WAKE, 3, 45), (1556 + WAKE, 2, 5)],
        3,
        2,
    ),
    "one in sixteen: the oldest, even beside a spinner": (
        {0: (0, 250), 1: (1, 100), 2: (2, 100), 3: (3, 100)},
        [0, 1, 1, 1],
        [(0, 0, 45), (311, 1, 45), (250 + WAKE, 2, 5), (411 + WAKE, 3, 5)],
        3,
        2,
    ),
    "one in sixteen: the oldest instead of the newest": (
        {0: (0, 250), 1: (1, 100), 2: (2, 100), 3: (3, 100)},
        [1, 0, 1, 1],
        [(0, 0, 5), (311, 1, 45), (411 + WAKE, 2, 45), (1556 + WAKE, 3, 5)],
        3,
        2,
    ),
    "a spinner that gives up frees the right to spin; a wake finds it still entering sleep": (
        {0: (0, 1000), 1: (1, 100), 2: (500, 100)},
        [1, 1, 1],
        [(0, 0, 45), (960 + 210, 2, 45), (1270 + WAKE, 1, 5)],
        10,
        2,
    ),
    "a woken thread may spin, one round less": (
        {0: (0, 1000), 1: (1, 100), 2: (1500, 5000)},
        [1, 1, 1],
        [(0, 0, 45), (1500, 2, 45), (6500 + WAKE, 1, 5)],
        5 + 4,
        2,
    ),
    "the only sleeper is the bottom: woken, it spins beside the spinner": (
        {0: (0, 1000), 1: (1, 100), 2: (1500, 700), 3: (2000, 20)},
        [1, 1],
        [(0, 0, 45), (1500, 2, 5), (2210, 3, 5), (2245, 1, 5)],
        (5 + 2) + 2,
        1,
    ),
    "woken from the bottom, it spins beside the spinner": (
        {0: (0, 250), 1: (1, 1300), 2: (2, 100), 3: (3, 100), 4: (1200, 100)},
        [0, 1, 1, 1],
        [(0, 0, 45), (311, 1, 5), (1645, 2, 45), (1660 + 210, 4, 45), (1970 + WAKE, 3, 5)],
        3 + 5 + 4,
        3,
    ),
}


@pytest.mark.parametrize("case", SPINBIT)
def test_spinbit_by_hand(case):
    script, values, expected, spins, sleeps = SPINBIT[case]
    below = draws(*values)
    lock = new_lock("spinbit", below=below)
    assert play(lock, script) == expected
    assert (lock.spins, lock.futex_sleeps, below.left) == (spins, sleeps, [])


def churn(discipline, owners, seed, told=False):
    """Every owner takes and gives back 100 times at random; log of [(granted, owner, waited, held)].

    ``told``: the lock is told how long each holds it.
    """
    env = simpy.Environment()
    lock = new_lock(discipline, env=env, below=Stream(seed, "wake").below if discipline == "spinbit" else None)
    log, inside = [], set()

    def thread(owner):
        stream = Stream(seed, f"thread/{owner}")
        clock = 0
        for _ in range(100):
            pause = stream.below(60) * 25  # a coarse grid, so that many instants tie
            yield after(env, pause, priority(RUN, owner))
            clock = env.now
            debt = yield from lock.acquire(owner, clock)
            got = env.now
            assert not inside
            inside.add(owner)
            hold = debt + stream.below(8) * 25
            if told:
                lock.held_until = env.now + hold
            yield after(env, hold, priority(RUN, owner))
            inside.remove(owner)
            log.append((got, owner, got - clock, env.now - got))
            yield after(env, lock.release(owner, env.now), priority(RUN, owner))
            lock.check()

    for owner in owners:
        env.process(thread(owner))
    env.run()
    return lock, log


@pytest.mark.parametrize("discipline", ["futex", "spinbit"])
def test_looks_that_cannot_find_the_lock_free_need_no_event(discipline):
    (lock, log), (told, same_log) = (churn(discipline, range(8), 7, told) for told in (False, True))
    assert log == same_log
    assert (lock.spins, lock.futex_sleeps, lock.futex_wakes) == (told.spins, told.futex_sleeps, told.futex_wakes)
    assert next(told.env._eid) < next(lock.env._eid)


@pytest.mark.parametrize("discipline", ["fifo", "futex", "spinbit"])
def test_nobody_is_lost_and_counts_add_up(discipline):
    lock, log = churn(discipline, range(8), seed=5)
    waits = [waited for _, _, waited, _ in log]
    assert len(log) == 800 == lock.acquisitions == lock.releases
    assert (lock.holder, lock.waiters) == (None, 0)
    assert lock.waits > 100
    assert (lock.total_wait, lock.longest_wait) == (sum(waits), max(waits))
    assert lock.total_hold == sum(held for _, _, _, held in log)
    if discipline != "fifo":
        assert lock.spins > 0
        assert 0 < lock.futex_sleeps
        assert 0 < lock.futex_wakes


@pytest.mark.parametrize("discipline", ["fifo", "futex", "spinbit"])
def test_the_log_does_not_depend_on_the_order_of_creation(discipline):
    logs = [churn(discipline, owners, seed=9)[1] for owners in (range(6), (5, 3, 1, 4, 0, 2))]
    assert logs[0] == logs[1]
    assert logs[0] != churn(discipline, range(6), seed=10)[1]


def test_simultaneous_arrivals_are_served_by_owner():
    for created in itertools.permutations(range(4)):
        log = play(new_lock("fifo"), {owner: (100, 20) for owner in created})
        assert [owner for _, owner, _ in log] == [0, 1, 2, 3]


def test_simultaneous_hand_overs_of_two_locks_go_by_owner():
    env, order, log = simpy.Environment(), LockOrder(), []
    locks = [new_lock(name=name, rank=1, order=order, env=env) for name in "ab"]

    def waiter(lock, owner):
        yield from lock.acquire(owner, 0)
        log.append((env.now, owner))

    for lock, holder, owner in ((locks[0], 0, 5), (locks[1], 1, 4)):
        take(lock, holder)
        env.process(waiter(lock, owner))
    env.run(until=10)
    locks[0].release(0, 10)
    locks[1].release(1, 10)
    env.run()
    assert log == [(17, 4), (17, 5)]


def take(lock, owner, now=0):
    """Acquire a free lock outside of any process."""
    for _ in lock.acquire(owner, now):
        raise AssertionError("had to wait")


MISUSES = {
    "release of a free lock": (lambda a, b: a.release(1, 0), "owner 1 releases lock heap, held by nobody"),
    "release of another's": (lambda a, b: (take(a, 1), a.release(2, 0)), "owner 2 releases .* held by owner 1"),
    "release twice": (lambda a, b: (take(a, 1), a.release(1, 0), a.release(1, 0)), "held by nobody"),
    "acquired twice": (lambda a, b: (take(a, 1), take(a, 1)), "owner 1 acquires lock heap, which it already holds"),
    "rank falls": (lambda a, b: (take(b, 1), take(a, 1)), "heap of rank 1 while it holds sched of rank 2"),
    "acquire by a clock ahead": (lambda a, b: take(a, 1, 7), "owner 1 at 7 ps acquires lock heap at 0 ps"),
    "release by a clock ahead": (lambda a, b: (take(a, 1), a.release(1, 7)), "owner 1 at 7 ps releases lock heap at 0"),
    "not an owner": (lambda a, b: take(a, -1), "owner -1 is not an int"),
}


@pytest.mark.parametrize("discipline", ["fifo", "futex", "spinbit"])
@pytest.mark.parametrize("misuse", MISUSES)
def test_misuse_is_refused(misuse, discipline):
    env, order = simpy.Environment(), LockOrder()
    locks = [new_lock(discipline, name, rank, order, env=env) for name, rank in (("heap", 1), ("sched", 2))]
    action, message = MISUSES[misuse]
    with pytest.raises(Throw, match=message):
        action(*locks)


def test_rising_ranks_are_fine_and_may_be_released_in_any_order():
    env, order = simpy.Environment(), LockOrder()
    locks = [new_lock(name=name, rank=rank, order=order, env=env) for name, rank in (("a", 1), ("b", 2), ("c", 3))]
    for lock in locks:
        take(lock, 4)
    take(new_lock(name="other", rank=2, order=order, env=env), 5)
    locks[1].release(4, 0)
    assert order.held(4) == ("a", "c")
    take(new_lock(name="d", rank=4, order=order, env=env), 4)
    locks[0].release(4, 0)
    assert (order.held(4), order.held(5), order.held(6)) == (("c", "d"), ("other",), ())
    with pytest.raises(Throw, match="a of rank 1 while it holds d of rank 4"):
        take(locks[0], 4)


def test_acquire_while_waiting_for_the_same_lock_is_refused():
    lock = new_lock("fifo")
    take(lock, 0)
    next(lock.acquire(1, 0))
    with pytest.raises(Throw, match="owner 1 acquires lock heap, which it already holds or waits for"):
        next(lock.acquire(1, 0))


def test_a_waiter_cannot_be_interrupted():
    lock = new_lock("futex")
    take(lock, 0)
    process = lock.env.process(lock.acquire(1, 0))
    lock.env.timeout(50).callbacks.append(lambda _: process.interrupt())
    with pytest.raises(Throw, match="owner 1 was interrupted"):
        lock.env.run()


@pytest.mark.parametrize(
    ("discipline", "below", "message"),
    [
        ("lifo", None, "'lifo' is none of fifo, futex, spinbit"),
        ("spinbit", None, "discipline spinbit needs random draws"),
        ("futex", lambda n: 1, "discipline futex takes no random draws"),
    ],
)
def test_wrong_disciplines_are_refused(discipline, below, message):
    with pytest.raises(Throw, match=message):
        TimedLock(simpy.Environment(), "heap", 1, discipline, PRICES, LockOrder(), below)


@pytest.mark.parametrize("price", [-1, 2.5, None])
def test_wrong_prices_are_refused(price):
    with pytest.raises(Throw, match=f"lock price osyield is {price}"):
        replace(PRICES, osyield=price)


BREAKS = {
    "somebody sleeps": lambda lock: setattr(lock, "_sleeping", True),
    "1 asleep of 0 waiters": lambda lock: lock._asleep.append(None),
    "free after 3 acquisitions, 2 releases": lambda lock: setattr(lock, "acquisitions", 3),
    "free with 1 waiters": lambda lock: setattr(lock, "waiters", 1),
}


@pytest.mark.parametrize("message", BREAKS)
def test_check_sees_each_broken_invariant(message):
    lock = new_lock("fifo")
    play(lock, {0: (0, 10), 1: (1, 10)})
    lock.check()
    BREAKS[message](lock)
    with pytest.raises(Throw, match=message):
        lock.check()


def parked(wake_at, wait_at, latency=30):
    env, log = simpy.Environment(), []
    park = Park(env, 2)

    def sleeper():
        yield after(env, wait_at, priority(RUN, 2))
        log.append((yield from park.wait()))
        log.append(env.now)

    def waker():
        yield after(env, wake_at, priority(RUN, 1))
        park.wake(latency)

    env.process(sleeper())
    env.process(waker())
    env.run()
    return log


def test_park_then_wake_pays_the_latency():
    assert parked(wake_at=100, wait_at=40) == [90, 130]


def test_a_wake_that_came_first_is_remembered_and_free():
    assert parked(wake_at=40, wait_at=60) == [0, 60]
    assert parked(wake_at=50, wait_at=50) == [0, 50]  # owner 1 goes first at a tie


def test_park_misuse_is_refused():
    park = Park(simpy.Environment(), 2)
    park.wake(0)
    with pytest.raises(Throw, match="double wakeup of owner 2"):
        park.wake(0)
    for _ in park.wait():
        raise AssertionError("had to wait")
    with pytest.raises(Throw, match="owner 2 parks twice"):
        next(park.wait())
