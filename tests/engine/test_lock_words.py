"""Timed locks against a second model, written from the runtime's lock2 and unlock2 word for word.

Here the lock word has its bits, sleepers are a kernel queue (lock_futex.go of go1.19) or a linked list of Ms
(lock_spinbit.go of go1.27), and every step of the source is one here. Both must grant the same lock to the same thread
at the same picosecond, and pay the same.
"""

import random
from dataclasses import replace

import pytest
import simpy

from sim.engine.clock import LOCK, RUN, after, priority, wake
from sim.engine.lock import LockOrder, TimedLock
from tests.engine.test_lock import PRICES


class FutexWord:
    """lock_futex.go."""

    def __init__(self, env, prices, below):
        self.env, self.prices = env, prices
        self.key = 0  # mutex_unlocked, mutex_locked, mutex_sleeping
        self.sleepers = []

    def lock(self, owner):
        turn, prices = priority(LOCK, owner), self.prices
        v, self.key = self.key, 1
        if v == 0:
            return
        wait = v
        yield after(self.env, prices.acquire, turn)
        while True:
            for pause in [prices.procyield] * 4 + [prices.osyield]:
                if self.key == 0:
                    self.key = wait
                    return
                yield after(self.env, pause, turn)
            v, self.key = self.key, 2
            if v == 0:
                return
            wait = 2
            yield after(self.env, prices.acquire + prices.futex_sleep, turn)
            if self.key == 2:
                event = simpy.Event(self.env)
                self.sleepers.append((event, turn))
                yield event

    def unlock(self):
        prices = self.prices
        v, self.key = self.key, 0
        assert v != 0, "unlock of unlocked lock"
        if v != 2:
            return prices.release
        cost = prices.release + prices.futex_wake
        if self.sleepers:
            event, turn = self.sleepers.pop(0)
            wake(self.env, event, turn, None, cost + prices.wake_latency)
        return cost


class M:
    def __init__(self, turn):
        self.turn, self.next, self.event, self.asleep_at = turn, None, None, 0


class SpinbitWord:
    """lock_spinbit.go, without the stack lock: a push or pop is one instant."""

    def __init__(self, env, prices, below):
        self.env, self.prices, self.below = env, prices, below
        self.locked = self.sleeping = self.spinning = False
        self.head = None

    def lock(self, owner):
        prices, m = self.prices, M(priority(LOCK, owner))
        was_locked, was_sleeping = self.locked, self.sleeping
        self.locked, self.sleeping = True, False  # Xchg8
        if not was_locked:
            self.sleeping = was_sleeping  # Or8
            return
        yield after(self.env, prices.acquire, m.turn)
        we_spin = at_tail = False
        i = 0
        while True:
            if not self.locked:
                self.locked = True
                self.sleeping = self.head is not None if we_spin else True
                if we_spin:
                    self.spinning = False
                return
            if not we_spin and not self.spinning:
                self.spinning = we_spin = True
            if (we_spin or at_tail) and i < 5:
                yield after(self.env, prices.procyield if i < 4 else prices.osyield, m.turn)
                i += 1
                continue
            m.next, self.head = self.head, m
            self.sleeping = True
            if we_spin:
                self.spinning = we_spin = False
            m.event = simpy.Event(self.env)
            m.asleep_at = self.env.now + prices.acquire + prices.futex_sleep
            yield m.event
            at_tail, m.next = m.next is None, None
            i = 1  # set to 0, then the loop's i++

    def unlock(self):
        was_sleeping = self.sleeping
        assert self.locked, "unlock of unlocked lock"
        self.locked = self.sleeping = False  # Xchg8
        return self.prices.release + (self.wake() if was_sleeping else 0)

    def wake(self):
        anti_starve = self.below(16) == 0
        if not (anti_starve or not self.spinning) or self.head is None:
            return 0
        woken = self.head
        if anti_starve:
            before = None
            while woken.next is not None:
                before, woken = woken, woken.next
            if before is not None:
                before.next = None
        if woken is self.head:
            self.head = woken.next
        prices = self.prices
        entering = woken.asleep_at - self.env.now
        delay = entering if entering > 0 else prices.release + prices.futex_wake + prices.wake_latency
        wake(self.env, woken.event, woken.turn, None, delay)
        return prices.futex_wake


class Timed:
    """The lock under test, called as the models are."""

    def __init__(self, discipline, env, prices, below):
        below = below if discipline == "spinbit" else None
        self.timed = TimedLock(env, "heap", 1, discipline, prices, LockOrder(), below)

    def lock(self, owner):
        yield from self.timed.acquire(owner, self.timed.env.now)

    def unlock(self):
        return self.timed.release(self.timed.holder, self.timed.env.now)


def play(make, seed, prices):
    """Random threads on one lock: what each got when, and paid for its release."""
    env, log = simpy.Environment(), []
    wakes = random.Random(seed)
    lock = make(env, prices, lambda n: wakes.randrange(n) if seed % 3 else wakes.choice((0, 1)))

    def thread(owner, rng, eager):
        for _ in range(40):
            yield after(env, rng.randrange(40) * eager, priority(RUN, owner))
            yield from lock.lock(owner)
            got = env.now
            yield after(env, rng.choice((0, 1, 25, 400, 3000)) + 10, priority(RUN, owner))
            cost = lock.unlock()
            log.append((got, owner, cost))
            yield after(env, cost, priority(RUN, owner))

    for owner in range(2 + seed % 7):
        env.process(thread(owner, random.Random(seed * 100 + owner), random.Random(seed).choice((5, 25, 500))))
    env.run()
    return log


def random_prices(seed):
    rng = random.Random(seed)
    return replace(
        PRICES,
        procyield=rng.choice((25, 100, 600)),
        futex_sleep=rng.choice((0, 200, 1000)),
        wake_latency=rng.choice((0, 50, 1000, 5000)),
        futex_wake=rng.choice((0, 40, 1500)),
    )


MODELS = {"futex": FutexWord, "spinbit": SpinbitWord}


@pytest.mark.parametrize("discipline", MODELS)
def test_the_same_grants_as_the_source_read_word_for_word(discipline):
    sleeps = 0
    for seed in range(150):
        prices = random_prices(seed)
        expected = play(MODELS[discipline], seed, prices)
        assert play(lambda *args: Timed(discipline, *args), seed, prices) == expected, seed
        assert len(expected) == 40 * (2 + seed % 7)
        sleeps += sum(cost > prices.release for _, _, cost in expected)
    assert sleeps > 1000


@pytest.mark.parametrize(("discipline", "other"), [("futex", "spinbit"), ("spinbit", "futex")])
def test_another_discipline_would_be_noticed(discipline, other):
    logs = [play(lambda *args, d=d: Timed(d, *args), 5, PRICES) for d in (discipline, other)]
    assert logs[0] == play(MODELS[discipline], 5, PRICES) != logs[1]
