"""Clock: events at integer picoseconds, and who goes first when two fall on the same instant.

SimPy orders events by (time, priority, sequence), and its own ``timeout`` and ``succeed`` carry one fixed priority
each: what happens first at a tie then depends on who asked first, so on how far each processor had run ahead. Here
every event carries ``rank * 2**20 + owner`` instead, and ties order by (time, rank, owner, sequence) however the
simulation got there. SimPy's own events (0 urgent, 1 normal: process starts, ``until``) come before all of ours.

Compiled code that advances many processors by itself is a second source of events beside SimPy's queue (`Environment`):
it says when its next turn is, and is driven when that comes before the head of the queue.

Invariants: time is an ``int`` (SimPy keeps it exact past 2**53; pass an ``int`` to ``env.run`` too); delays are never
negative; an event is triggered once.

Left out: cancelling. A process that no longer wants its event ignores it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import simpy
from simpy.events import PENDING, EventPriority

from sim.units import throw

OWNERS = 1 << 20  # owners (Ps, threads, background processes) are numbered below this

# ranks: at one instant the lower goes first; 0 is SimPy's own
LOCK = 1  # polls, hand-overs and wakes of a lock
WAKE = 2  # a parked thread goes on
RUN = 3  # the next step of a running thread
OBSERVE = 4  # samplers: they see what everybody did at this instant
_LAST_RANK = OBSERVE

NO_TURN = (1 << 62, 0)  # after everything that happens


class Environment(simpy.Environment):
    """SimPy's environment with a second source of events, whose next one is due at the key ``turn``.

    ``turn`` is (time, priority), `NO_TURN` for none. When it is not after the head of the queue, a step is one call of
    ``drive()`` instead, which may do all that comes before `limit` and sets ``turn`` anew.

    Events `in_background` alone do not keep a simulation going: timers of those who only look after others.
    """

    def __init__(self) -> None:
        super().__init__()
        self.turn: tuple[int, int] = NO_TURN
        self.drive: Callable[[], None] | None = None
        self._step = super().step
        self._background = 0

    def step(self) -> None:
        """Do what comes next of the two."""
        if self.drive is not None and self.turn < (self._queue[0] if self._queue else NO_TURN):
            self.drive()
        else:
            self._step()

    def peek(self) -> float:
        """When the next event is due, of either source; infinity if there is none."""
        return min(super().peek(), self.turn[0] if self.turn < NO_TURN else float("inf"))

    def in_background(self, delay: int, owner_priority: EventPriority) -> simpy.Event:
        """As `after`, an event that nobody waits for at the end of the simulation."""
        event = after(self, delay, owner_priority)
        self._background += 1
        assert event.callbacks is not None
        event.callbacks.append(self._leave_background)
        return event

    def _leave_background(self, _: simpy.Event) -> None:
        self._background -= 1

    def run_out(self) -> None:
        """Let everything happen that is not in the background, and what comes before it."""
        while len(self._queue) > self._background or self.turn < NO_TURN:
            self.step()

    def limit(self) -> tuple[int, int]:
        """The key of the head of the queue."""
        return self._queue[0][:2] if self._queue else NO_TURN  # type: ignore[return-value]

    def fire(self, event: simpy.Event, time: int, value: Any) -> None:
        """Succeed an event and run what waits for it, at a time that nothing in the queue precedes.

        To call from ``drive`` alone: it is what `wake` and the next step would do, without the queue between them.
        """
        if event._value is not PENDING or time < self._now:
            throw(f"event fired at {time} ps, at {self._now} ps and with value {event._value!r}")
        self._now = time
        event._ok = True
        event._value = value
        callbacks, event.callbacks = event.callbacks, None  # type: ignore[assignment]
        for callback in callbacks:
            callback(event)


def priority(rank: int, owner: int) -> EventPriority:
    """The priority of an owner's events of a rank; Throw if either is outside its range."""
    if not LOCK <= rank <= _LAST_RANK:
        throw(f"event rank {rank} not in [{LOCK}, {_LAST_RANK}]")
    if type(owner) is not int or not 0 <= owner < OWNERS:
        throw(f"owner {owner!r} is not an int in [0, {OWNERS})")
    return EventPriority(rank * OWNERS + owner)


def _check_delay(delay: int) -> None:
    """Throw unless a delay is a plain int >= 0: one float, or one numpy integer, would spread to every later time."""
    if type(delay) is not int:
        throw(f"delay {delay!r} is a {type(delay).__name__}, not an int of picoseconds")
    if delay < 0:
        throw(f"delay {delay} ps is negative")


def after(env: simpy.Environment, delay: int, owner_priority: EventPriority) -> simpy.Event:
    """An event that fires ``delay`` picoseconds from now, in the tie order of ``owner_priority`` (see `priority`).

    Throw if the delay is not an int or is negative. Like a SimPy timeout the event counts as triggered at once.
    """
    _check_delay(delay)
    event = simpy.Event(env)
    # NOTE: SimPy's Timeout does the same; it has no public way to trigger an event at a priority
    event._ok = True
    event._value = None
    env.schedule(event, owner_priority, delay)
    return event


def wake(
    env: simpy.Environment, event: simpy.Event, owner_priority: EventPriority, value: Any = None, delay: int = 0
) -> None:
    """Succeed ``event`` with ``value`` in the tie order of ``owner_priority``, ``delay`` picoseconds from now.

    Throw if it was triggered before, or if the delay is not an int or is negative.
    """
    _check_delay(delay)
    if event._value is not PENDING:
        throw(f"event woken twice, again at {env.now} ps with value {value!r}")
    event._ok = True
    event._value = value
    env.schedule(event, owner_priority, delay)


def now(env: simpy.Environment) -> int:
    """The current time in picoseconds; Throw if something made it a float."""
    time = env._now  # as env.now, without a property's call
    if type(time) is not int:
        throw(f"time {time!r} is a {type(time).__name__}, not an int of picoseconds; pass ints to env.run")
    return int(time)
