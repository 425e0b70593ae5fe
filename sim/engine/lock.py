"""Timed locks of the runtime: who gets a lock, when, and what each step costs; and park/wake of one thread.

A lock grants at once, without an event, when it is free. Otherwise the owner waits by the lock's discipline:

- ``fifo``: a release hands the lock to the oldest waiter. For queueing theory and for locks of unknown kind.
- ``futex`` (go1.19 lock_futex.go): the lock word is unlocked, locked or sleeping. Every waiter polls it before each
  of 4 procyield(30) and one osyield, then writes "sleeping" and enters futex wait, which returns at once if the word
  changed on the way. Unlock frees the lock first and then wakes the thread asleep longest if the word said
  "sleeping"; whoever comes before the woken thread takes the lock.
- ``spinbit`` (go1.27 lock_spinbit.go): one waiter at a time owns the right to spin, as above; the others push
  themselves on a stack and sleep. Unlock wakes nobody while a waiter spins, else the top of the stack; with
  probability 1/16 it wakes the bottom instead, even beside a spinner, and a thread from the bottom may spin too.

Time. An atomic exchange has its effect at its start. The one that takes the lock and those of a release run on after
the grant, so `TimedLock.acquire` and `TimedLock.release` return picoseconds the caller adds to its own clock; all
other steps pass as events. A woken thread runs ``release + futex_wake + wake_latency`` after the release began, or,
if it was still on its way to sleep (spinbit), when it would have got there. Wait is from the call of acquire to the
grant; hold is from the grant to the release.

Invariants: a lagging clock never touches a lock; an owner takes locks in strictly rising rank; only the holder
releases; a free fifo lock has no waiters; a free lock's word never says "sleeping".

Left out: uniprocessors (no spinning at all), the exception for sched.lock (all its waiters spin), traffic of the
polled cache line, the stack lock bit and failing compare-and-swap of spinbit (a push or pop is one instant).
A waiter cannot be interrupted: the runtime does not preempt a thread inside lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import simpy
from simpy.events import EventPriority

from sim.costs import LockPrices
from sim.engine import clock
from sim.engine.clock import after, priority, wake
from sim.units import throw

Step = Generator[simpy.Event, Any, int]
"""A process step: takes simulated time under ``yield from`` and returns picoseconds."""

DISCIPLINES = ("fifo", "futex", "spinbit")
_ACTIVE_SPINS = 4  # procyield rounds before the osyield
_TAIL_WAKE_PERIOD = 16  # spinbit: one wake in so many goes to the oldest sleeper


class LockOrder:
    """Which locks each owner holds or waits for: shared by all locks of a world (mirrors lockrank.go's checks).

    Stricter than the runtime, which knows a partial order: here a lock must outrank every lock already held.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: dict[int, list[TimedLock]] = {}

    def enter(self, owner: int, lock: TimedLock) -> None:
        """Note that an owner goes for a lock; Throw if it has that one, or one of the same or a higher rank."""
        held = self._held.get(owner)
        if held is None:
            priority(clock.LOCK, owner)  # refuses what is no owner
            self._held[owner] = [lock]
            return
        if held and held[-1].rank >= lock.rank:
            if lock in held:
                throw(f"owner {owner} acquires lock {lock.name}, which it already holds or waits for")
            throw(
                f"owner {owner} acquires lock {lock.name} of rank {lock.rank} "
                f"while it holds {held[-1].name} of rank {held[-1].rank}; ranks must rise"
            )
        held.append(lock)

    def leave(self, owner: int, lock: TimedLock) -> None:
        """Note that an owner gave a lock back, in any order."""
        self._held[owner].remove(lock)

    def held(self, owner: int) -> tuple[str, ...]:
        """Names of the locks an owner holds or waits for, lowest rank first."""
        return tuple(lock.name for lock in self._held.get(owner, ()))


@dataclass(slots=True)
class _Sleeper:
    """A thread in a lock's queue or stack."""

    owner: int
    event: simpy.Event
    asleep_at: int


class TimedLock:
    """One lock of the runtime. ``below(n)`` draws the 1-in-16 of spinbit and must be given for it alone.

    Counts: acquisitions, releases, waits (acquisitions not granted at once), waiters now, total_wait, longest_wait
    and total_hold in picoseconds, spins (procyield and osyield rounds), futex_sleeps (threads that fell asleep),
    futex_wakes (wake calls paid).
    """

    def __init__(
        self,
        env: simpy.Environment,
        name: str,
        rank: int,
        discipline: str,
        prices: LockPrices,
        order: LockOrder,
        below: Callable[[int], int] | None = None,
    ) -> None:
        if discipline not in DISCIPLINES:
            throw(f"lock {name}: discipline {discipline!r} is none of {', '.join(DISCIPLINES)}")
        if (below is not None) != (discipline == "spinbit"):
            throw(f"lock {name}: discipline {discipline} {'needs' if below is None else 'takes no'} random draws")
        self.env = env
        self.name = name
        self.rank = rank
        self.discipline = discipline
        self.prices = prices
        self.order = order
        self.holder: int | None = None
        self.waiters = self.acquisitions = self.releases = self.waits = 0
        self.total_wait = self.longest_wait = self.total_hold = 0
        self.spins = self.futex_sleeps = self.futex_wakes = 0
        self.held: Callable[[int, int, int], None] | None = None  # told of each hold: its begin, its end, whose
        self.held_until = 0
        self._below = below
        self._rounds = (prices.procyield,) * _ACTIVE_SPINS + (prices.osyield,)
        self._since = 0  # the grant to the holder
        self._asleep: deque[_Sleeper] = deque()  # oldest first
        self._sleeping = False  # the word says that somebody sleeps; may be false while some do
        self._spinning = False  # spinbit: a waiter owns the right to spin
        self._wait: Callable[[int, EventPriority], Generator[simpy.Event, Any, None]]
        self._pass_on: Callable[[bool], bool]
        self._wait, self._pass_on = {
            "fifo": (self._wait_fifo, self._pass_on_fifo),
            "futex": (self._wait_futex, self._pass_on_futex),
            "spinbit": (self._wait_spinbit, self._pass_on_spinbit),
        }[discipline]

    def acquire(self, owner: int, now: int) -> Step:
        """Process step. Take the lock; returns the picoseconds of the taking exchange, which the caller owes.

        On return ``env.now`` is the time of the grant. Throw if ``now``, the owner's own clock, is not the world's,
        or if the owner holds or waits for this lock or one it does not outrank. (lock2)
        """
        self.enter(owner, now)
        if self.holder is None:
            self.holder = owner
            self._since = now
            self.acquisitions += 1
            return self.prices.acquire
        self.waits += 1
        self.waiters += 1
        try:
            yield from self._wait(owner, priority(clock.LOCK, owner))
        except simpy.Interrupt:
            throw(f"owner {owner} was interrupted while it waits for lock {self.name}")
        self.waiters -= 1
        self.acquisitions += 1
        self._since = clock.now(self.env)
        waited = self._since - now
        self.total_wait += waited
        self.longest_wait = max(self.longest_wait, waited)
        return self.prices.acquire

    def release(self, owner: int, now: int) -> int:
        """Give the lock back at once; returns the picoseconds the caller owes for it and for a wake call.

        Throw if the owner does not hold it, or if ``now``, its own clock, is not the world's. (unlock2)
        """
        self.leave(owner, now)
        self.releases += 1
        self.total_hold += now - self._since
        if self.held is not None:
            self.held(self._since, now, owner)
        self.holder = None
        self.held_until = 0
        if not self.waiters and not self._sleeping:
            return self.prices.release
        sleeping, self._sleeping = self._sleeping, False
        if not self._pass_on(sleeping):
            return self.prices.release
        self.futex_wakes += 1
        return self.prices.release + self.prices.futex_wake

    def enter(self, owner: int, now: int) -> None:
        """Note that an owner goes for the lock; Throw as `acquire` says."""
        if now != self.env.now:
            throw(f"owner {owner} at {now} ps acquires lock {self.name} at {self.env.now} ps; sync first")
        self.order.enter(owner, self)

    def leave(self, owner: int, now: int) -> None:
        """Note that an owner gives the lock back; Throw as `release` says."""
        if now != self.env.now:
            throw(f"owner {owner} at {now} ps releases lock {self.name} at {self.env.now} ps; sync first")
        if self.holder != owner:
            holder = "nobody" if self.holder is None else f"owner {self.holder}"
            throw(f"owner {owner} releases lock {self.name}, held by {holder}")
        self.order.leave(owner, self)

    def keep_until(self, time: int) -> None:
        """The holder does not release it before ``time``, and then in a step of rank RUN or later; it may say so."""
        self.held_until = time

    def _sleep(self, owner: int, asleep_at: int) -> simpy.Event:
        """Queue up an owner; the event it must wait for."""
        event = simpy.Event(self.env)
        self._asleep.append(_Sleeper(owner, event, asleep_at))
        return event

    def _wake(self, sleeper: _Sleeper, at_tail: bool) -> None:
        """Let a thread go on when a wake call that starts after this release reaches it."""
        prices = self.prices
        entering = sleeper.asleep_at - clock.now(self.env)
        delay = entering if entering > 0 else prices.release + prices.futex_wake + prices.wake_latency
        wake(self.env, sleeper.event, priority(clock.LOCK, sleeper.owner), at_tail, delay)

    def _wait_fifo(self, owner: int, order: EventPriority) -> Generator[simpy.Event, Any, None]:
        """Process step. Queue up; the lock is ours when the event fires."""
        yield self._sleep(owner, 0)

    def _pass_on_fifo(self, sleeping: bool) -> bool:
        """Hand over to the oldest waiter (there is one): the lock is never free in between."""
        sleeper = self._asleep.popleft()
        self.holder = sleeper.owner
        wake(self.env, sleeper.event, priority(clock.LOCK, sleeper.owner), None, self.prices.handoff)
        return False

    def _poll(self, turn: int) -> tuple[int, int]:
        """The lock was found held: how long until the next look at it that could find something else, and its turn.

        Looks until `held_until` cannot, that instant included: those who release come after those who look.
        """
        pause = self._rounds[turn]
        first, turn = turn, turn + 1
        left = self.held_until - clock.now(self.env)
        while turn < len(self._rounds) and pause <= left:
            pause += self._rounds[turn]
            turn += 1
        self.spins += turn - first
        return pause, turn

    def _wait_futex(self, owner: int, order: EventPriority) -> Generator[simpy.Event, Any, None]:
        """Process step. Poll, then sleep, until taken. (go1.19 lock_futex.go:lock2)"""
        prices = self.prices
        sleeping = self._sleeping  # what the word must say again once we have it, or a sleeper is forgotten
        self._sleeping = False  # the lost exchange wrote "locked"
        yield after(self.env, prices.acquire, order)
        while True:
            turn = 0
            while turn < len(self._rounds):
                if self.holder is None:
                    self.holder = owner
                    self._sleeping = sleeping
                    return
                pause, turn = self._poll(turn)
                yield after(self.env, pause, order)
            sleeping = self._sleeping = True
            if self.holder is None:
                self.holder = owner
                return
            yield after(self.env, prices.acquire + prices.futex_sleep, order)
            if self.holder is not None and self._sleeping:
                self.futex_sleeps += 1
                yield self._sleep(owner, 0)

    def _pass_on_futex(self, sleeping: bool) -> bool:
        """Wake the longest asleep if the word said so; the call is paid even if nobody sleeps yet. (unlock2)"""
        if sleeping and self._asleep:
            self._wake(self._asleep.popleft(), False)
        return sleeping

    def _wait_spinbit(self, owner: int, order: EventPriority) -> Generator[simpy.Event, Any, None]:
        """Process step. Spin if nobody else does, else sleep, until taken. (lock_spinbit.go:lock2)"""
        prices = self.prices
        self._sleeping = False  # the lost exchange wrote "locked"; who takes or sleeps next repairs it
        yield after(self.env, prices.acquire, order)
        we_spin = at_tail = False
        turn = 0
        while self.holder is not None:
            if not self._spinning:
                self._spinning = we_spin = True
            if we_spin and turn < len(self._rounds):
                pause, turn = self._poll(turn)
                yield after(self.env, pause, order)
                continue
            if at_tail and turn < len(self._rounds):
                self.spins += 1
                yield after(self.env, self._rounds[turn], order)
                turn += 1
                continue
            if we_spin:
                self._spinning = we_spin = False
            self._sleeping = True
            self.futex_sleeps += 1
            at_tail = yield self._sleep(owner, clock.now(self.env) + prices.acquire + prices.futex_sleep)
            turn = 1  # one round less than a newcomer, as in the runtime's loop
        self.holder = owner
        if we_spin:
            self._spinning = False
        self._sleeping = bool(self._asleep) or not we_spin

    def _pass_on_spinbit(self, sleeping: bool) -> bool:
        """Wake the top of the stack, the bottom, or nobody. (lock_spinbit.go:unlock2Wake)"""
        if not sleeping or self._below is None:
            return False
        oldest = self._below(_TAIL_WAKE_PERIOD) == 0
        if not self._asleep or (self._spinning and not oldest):
            return False
        sleeper = self._asleep.popleft() if oldest else self._asleep.pop()
        self._wake(sleeper, oldest or not self._asleep)
        return True

    def asleep(self) -> int:
        """How many threads sleep, or are about to."""
        return len(self._asleep)

    def check(self) -> None:
        """Throw if an invariant of the lock does not hold at this instant."""
        if self.holder is None and self._sleeping:
            throw(f"lock {self.name} is free but its word says that somebody sleeps")
        if self.asleep() > self.waiters:
            throw(f"lock {self.name}: {self.asleep()} asleep of {self.waiters} waiters")
        if self.holder is None and self.acquisitions != self.releases:
            throw(f"lock {self.name} is free after {self.acquisitions} acquisitions, {self.releases} releases")
        if self.discipline == "fifo" and self.holder is None and self.waiters:
            throw(f"fifo lock {self.name} is free with {self.waiters} waiters")


class Park:
    """One-shot park and wake of one owner; remembers a wake that came first (lock_futex.go:notesleep, notewakeup)."""

    __slots__ = ("_event", "env", "owner", "woken")

    def __init__(self, env: simpy.Environment, owner: int) -> None:
        self.env = env
        self.owner = owner
        self.woken = False
        self._event: simpy.Event | None = None

    def wait(self) -> Step:
        """Process step. Park until woken, not at all if that was before; returns the picoseconds parked. (notesleep)

        Throw if the owner parked here before.
        """
        if self._event is not None:
            throw(f"owner {self.owner} parks twice, again at {self.env.now} ps")
        start = clock.now(self.env)
        self._event = simpy.Event(self.env)
        if not self.woken:
            yield self._event
        return clock.now(self.env) - start

    def wake(self, latency: int) -> None:
        """Let the owner go on ``latency`` picoseconds from now if it is parked, at once if it parks later. (notewakeup)

        Throw if it was woken before.
        """
        if self.woken:
            throw(f"double wakeup of owner {self.owner} at {self.env.now} ps")
        self.woken = True
        if self._event is not None:
            wake(self.env, self._event, priority(clock.WAKE, self.owner), None, latency)
