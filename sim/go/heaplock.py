"""mheap.lock kept by compiled code, so that Ps wait for it without an event of the world for each step of the wait.

The rules of waiting are those of `sim.engine.lock`, both kinds of them the runtime has had: futex (`heap_lock_spinbit` 0)
and spinbit. A hold of a P that took the lock in the pump ends at the next turn of that P (pump.py); a look of one that
waits at the lock, or its waking, is a *look turn*, due at `LOCK_WAITER.due`, which comes before what Ps do at that
instant, as the clock's ranks say. A P in the pump that is granted the lock goes on there. Whoever else wants it, a P that is
in Python or a thread of no P, takes the very same steps, and its process goes on when the pump has come to the grant.

Python's `TimedLock` keeps the lock instead where a timeline is told of every hold. Who keeps it changes nothing but our
own time (tested).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import simpy
from numba import int64, void

from sim.engine.lock import Step, TimedLock
from sim.engine.rng import draw64
from sim.go.state import NEVER, heap_type, lock_waiters
from sim.jit import Tables, bare, entry, inlined, jit
from sim.units import throw
from sim.words import ZERO, shr64

ROUNDS = 5  # looks before a waiter sleeps: four procyield(30), one osyield
_NOBODY = -1

# LOCK_WAITER.stage
_SPINNING = 0  # between two looks, or on its way to the first
_ENTERING = 1  # futex: on its way to sleep
_ASLEEP = 2


@jit
def note_looks(h: Any) -> None:
    """Which look turn is the next one, and when: the lowest owner of the earliest."""
    waiters = lock_waiters(h)
    due = np.int64(NEVER)
    first = np.int64(_NOBODY)
    for owner in range(h[0].lock_waiters_len):
        if waiters[owner].due < due:
            due = waiters[owner].due
            first = np.int64(owner)
    h[0].heap_lock_look = due
    h[0].heap_lock_looker = first


@jit
def grant(h: Any, owner: Any, now: Any) -> None:
    """The lock is this owner's; who waits knows no end of the hold yet."""
    h[0].heap_lock_holder = owner
    h[0].heap_lock_since = now
    h[0].heap_lock_until = 0
    h[0].heap_lock_acquisitions += 1


@jit
def ask(h: Any, owner: Any, now: Any, tried: Any, outside: Any) -> Any:
    """An owner wants the lock: True if it has it, else it is one of those who wait from now on. (lock2)

    ``tried``: it has held it for the same allocation before; ``outside``: it is not in the pump.
    """
    if h[0].heap_lock_holder < 0:
        grant(h, owner, now)
        return True
    w = lock_waiters(h)[owner]
    w.asked = now
    w.tried = tried
    w.outside = outside
    w.spins = 0
    w.at_tail = 0
    w.turn = 0
    w.stage = _SPINNING
    w.word = h[0].heap_lock_sleeping
    w.due = now + h[0].lock_acquire
    h[0].heap_lock_sleeping = 0  # the lost exchange wrote "locked"
    h[0].heap_lock_waits += 1
    h[0].heap_lock_waiters += 1
    note_looks(h)
    return False


@jit
def spin(h: Any, w: Any, now: Any) -> None:
    """The lock was found held: when the next look is that could find something else. (lock.py:TimedLock._poll)"""
    left = h[0].heap_lock_until - now
    pause = np.int64(0)
    while True:
        pause += h[0].lock_procyield if w.turn < ROUNDS - 1 else h[0].lock_osyield
        w.turn += 1
        h[0].heap_lock_spins += 1
        if w.turn == ROUNDS or pause > left:
            break
    w.due = now + pause


@jit
def sleep(h: Any, owner: Any, asleep_at: Any) -> None:
    """An owner sleeps, or will from ``asleep_at`` on, until it is woken: behind those who do already."""
    w = lock_waiters(h)[owner]
    w.stage = _ASLEEP
    w.due = NEVER
    w.asleep_at = asleep_at
    w.older = h[0].heap_lock_newest
    w.newer = _NOBODY
    if w.older < 0:
        h[0].heap_lock_oldest = owner
    else:
        lock_waiters(h)[w.older].newer = owner
    h[0].heap_lock_newest = owner
    h[0].heap_lock_futex_sleeps += 1


@jit
def wake(h: Any, oldest: Any, now: Any) -> None:
    """Wake who sleeps longest, or shortest; there is one."""
    owner = h[0].heap_lock_oldest if oldest else h[0].heap_lock_newest
    w = lock_waiters(h)[owner]
    if w.older < 0:
        h[0].heap_lock_oldest = w.newer
    else:
        lock_waiters(h)[w.older].newer = w.newer
    if w.newer < 0:
        h[0].heap_lock_newest = w.older
    else:
        lock_waiters(h)[w.newer].older = w.older
    w.stage = _SPINNING
    w.turn = h[0].heap_lock_spinbit  # there a round less than a newcomer, as in the runtime's loop
    w.at_tail = oldest or h[0].heap_lock_oldest < 0
    w.due = w.asleep_at
    if w.due <= now:
        w.due = now + h[0].lock_release + h[0].lock_futex_wake + h[0].lock_wake_latency


@jit
def look_futex(h: Any, owner: Any, w: Any, now: Any) -> Any:
    """A look turn of a waiter: whether it takes the lock. (go1.19 lock_futex.go:lock2)"""
    if w.stage == _ENTERING:
        if h[0].heap_lock_holder >= 0 and h[0].heap_lock_sleeping:
            sleep(h, owner, np.int64(0))
            return False
        w.stage = _SPINNING
        w.turn = 0
    if w.turn < ROUNDS:
        if h[0].heap_lock_holder < 0:
            h[0].heap_lock_sleeping = w.word
            return True
        spin(h, w, now)
        return False
    w.word = 1
    h[0].heap_lock_sleeping = 1
    if h[0].heap_lock_holder < 0:
        return True
    w.stage = _ENTERING
    w.due = now + h[0].lock_acquire + h[0].lock_futex_sleep
    return False


@jit
def look_spinbit(h: Any, owner: Any, w: Any, now: Any) -> Any:
    """A look turn of a waiter: whether it takes the lock. (lock_spinbit.go:lock2)"""
    if h[0].heap_lock_holder < 0:
        if w.spins:
            h[0].heap_lock_spinning = 0
        h[0].heap_lock_sleeping = h[0].heap_lock_oldest >= 0 or not w.spins
        return True
    if not h[0].heap_lock_spinning:
        h[0].heap_lock_spinning = 1
        w.spins = 1
    if w.spins and w.turn < ROUNDS:
        spin(h, w, now)
        return False
    if w.at_tail and w.turn < ROUNDS:
        w.due = now + (h[0].lock_procyield if w.turn < ROUNDS - 1 else h[0].lock_osyield)
        w.turn += 1
        h[0].heap_lock_spins += 1
        return False
    if w.spins:
        h[0].heap_lock_spinning = 0
        w.spins = 0
    h[0].heap_lock_sleeping = 1
    sleep(h, owner, now + h[0].lock_acquire + h[0].lock_futex_sleep)
    return False


@jit
def look(h: Any, owner: Any, now: Any) -> Any:
    """The look turn of an owner that waits: picoseconds it has waited if the lock is its now, else -1."""
    w = lock_waiters(h)[owner]
    taken = look_spinbit(h, owner, w, now) if h[0].heap_lock_spinbit else look_futex(h, owner, w, now)
    waited = np.int64(-1)
    if taken:
        w.due = NEVER
        waited = now - w.asked
        h[0].heap_lock_waiters -= 1
        h[0].heap_lock_total_wait += waited
        h[0].heap_lock_longest_wait = max(h[0].heap_lock_longest_wait, waited)
        grant(h, owner, now)
    note_looks(h)
    return waited


@jit
def pass_on(h: Any, now: Any) -> Any:
    """The lock is free; whether its last holder makes a wake call. (unlock2, unlock2Wake)"""
    if not h[0].heap_lock_sleeping:
        return False
    h[0].heap_lock_sleeping = 0
    sleeps = h[0].heap_lock_oldest >= 0
    if not h[0].heap_lock_spinbit:
        if sleeps:
            wake(h, True, now)
        return True  # paid even if nobody sleeps yet
    oldest = shr64(draw64(h[0].heap_lock_key, h[0].heap_lock_draws), 60) == ZERO  # one wake in 16
    h[0].heap_lock_draws += 1
    if not sleeps or (h[0].heap_lock_spinning and not oldest):
        return False
    wake(h, oldest, now)
    return True


@inlined
def release(h: Any, now: Any) -> Any:
    """The hold in progress is over: picoseconds of a wake call that the holder owes beside the exchange."""
    h[0].heap_lock_holder = _NOBODY
    h[0].heap_lock_until = 0
    h[0].heap_lock_hold += now - h[0].heap_lock_since
    if not pass_on(h, now):
        return np.int64(0)
    h[0].heap_lock_futex_wakes += 1
    note_looks(h)
    return h[0].lock_futex_wake


@entry(int64(heap_type, int64, int64))
def ask_outside(h: Any, owner: Any, now: Any) -> Any:
    """An owner that is not in the pump wants the lock: 1 if it has it, 0 if it waits."""
    return np.int64(ask(bare(h), owner, now, False, True))


@entry(int64(heap_type, int64))
def release_outside(h: Any, now: Any) -> Any:
    """It gives the lock back, as `release`."""
    return release(bare(h), now)


@entry(void(heap_type))
def free_lock(h: Any) -> None:
    """Nobody has the lock, or waits for it."""
    h = bare(h)
    h[0].heap_lock_holder = _NOBODY
    h[0].heap_lock_oldest = _NOBODY
    h[0].heap_lock_newest = _NOBODY
    for owner in range(h[0].lock_waiters_len):
        lock_waiters(h)[owner].due = NEVER
    note_looks(h)


_PRICES = ("acquire", "release", "procyield", "osyield", "futex_sleep", "futex_wake", "wake_latency")
_COUNTS = ("acquisitions", "waits", "waiters", "total_wait", "longest_wait", "spins", "futex_sleeps", "futex_wakes")


class HeapLock(TimedLock):
    """mheap.lock for Python. Where compiled code keeps it, its state and counts are those of the last `refresh`."""

    _tables: Tables | None = None

    def keep_in(self, tables: Tables, nprocs: int, key: int, rearm: Callable[[], None]) -> None:
        """Compiled code over these tables keeps the lock, which nobody has; ``key``: its random stream, for spinbit.

        ``rearm`` has the world look anew at when the pump's next turn is.
        """
        self._tables, self._rearm = tables, rearm
        self._granted: dict[int, simpy.Event] = {}
        tables.allocate("lock_waiters", nprocs)
        tables.header["heap_lock_here"] = 1
        tables.header["heap_lock_spinbit"] = self.discipline == "spinbit"
        tables.header["heap_lock_key"] = key
        for name in _PRICES:
            tables.header[f"lock_{name}"] = getattr(self.prices, name)
        free_lock(tables.header)

    def refresh(self) -> None:
        """Its state and counts as they are now."""
        tables = self._tables
        if tables is None:
            return
        for name in _COUNTS:
            setattr(self, name, tables.scalar(f"heap_lock_{name}"))
        self.total_hold = tables.scalar("heap_lock_hold")
        holder = tables.scalar("heap_lock_holder")
        self.holder = None if holder < 0 else holder
        self.releases = self.acquisitions - (holder >= 0)
        self._sleeping = bool(tables.scalar("heap_lock_sleeping"))

    def asleep(self) -> int:
        """As any lock's."""
        if self._tables is None:
            return super().asleep()
        return int(np.count_nonzero(self._tables.arrays["lock_waiters"]["stage"] == _ASLEEP))

    def acquire(self, owner: int, now: int) -> Step:
        """As any lock's."""
        return super().acquire(owner, now) if self._tables is None else self._acquire(self._tables, owner, now)

    def _acquire(self, tables: Tables, owner: int, now: int) -> Step:
        """Process step: as `acquire`, by an owner that is not in the pump."""
        self.enter(owner, now)
        rows = tables.arrays["lock_waiters"]
        if owner >= len(rows):
            tables.at_least("lock_waiters", owner + 1)
            tables.arrays["lock_waiters"]["due"][len(rows) :] = NEVER
        if not ask_outside(tables.header, owner, now):
            granted = self._granted[owner] = simpy.Event(self.env)
            self._rearm()
            try:
                yield granted
            except simpy.Interrupt:
                throw(f"owner {owner} was interrupted while it waits for lock {self.name}")
        return self.prices.acquire

    def granted(self, owner: int) -> simpy.Event:
        """What an owner waits for that is not in the pump; the lock is its now."""
        return self._granted.pop(owner)

    def keep_until(self, time: int) -> None:
        """As any lock's."""
        super().keep_until(time)
        if self._tables is not None:
            self._tables.header["heap_lock_until"] = time

    def release(self, owner: int, now: int) -> int:
        """As any lock's."""
        if self._tables is None:
            return super().release(owner, now)
        self.refresh()
        self.leave(owner, now)
        extra = int(release_outside(self._tables.header, now))
        self._rearm()
        return self.prices.release + extra
