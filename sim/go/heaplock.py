"""mheap.lock in two keepers' hands: compiled code keeps it while nobody waits, Python's `TimedLock` else.

Most holds find the lock free and end before anybody else asks for it. Those need no event: the pump grants the lock,
and the end of the hold is the next turn of the P (pump.py). As soon as somebody else touches the lock it is Python's,
with the hold in progress, by the lock's own discipline, until a release leaves nobody who waits. Who keeps it changes
nothing but our own time: the end of a hold has the same time and the same place among others at that instant.
"""

from __future__ import annotations

from typing import Any

from sim.engine.lock import Step, TimedLock
from sim.jit import Tables, jit


@jit
def is_free(h: Any) -> Any:
    """Whether compiled code keeps the lock and nobody holds it."""
    return h[0].heap_lock_here != 0 and h[0].heap_lock_holder < 0


@jit
def grant(h: Any, p: Any, now: Any) -> None:
    """P takes the free lock."""
    h[0].heap_lock_holder = p
    h[0].heap_lock_since = now
    h[0].heap_lock_acquisitions += 1


@jit
def end_hold(h: Any, now: Any) -> Any:
    """The hold in progress is over; False if it is for Python to release the lock. Picoseconds held, and that."""
    held = now - h[0].heap_lock_since
    h[0].heap_lock_holder = -1
    if not h[0].heap_lock_here:
        return held, False
    h[0].heap_lock_hold += held
    return held, True


class HeapLock(TimedLock):
    """mheap.lock for Python. Its state and counts are up to date from `take_over` on, until nobody waits for it."""

    _tables: Tables | None = None

    def keep_in(self, tables: Tables) -> None:
        """From now on compiled code over these tables keeps the lock whenever nobody waits for it."""
        self._tables = tables
        tables.header["heap_lock_here"] = 1

    def take_over(self) -> None:
        """The lock is Python's now, with whoever holds it."""
        tables = self._tables
        if tables is None or not tables.scalar("heap_lock_here"):
            return
        tables.header["heap_lock_here"] = 0
        self.acquisitions += tables.scalar("heap_lock_acquisitions")
        self.total_hold += tables.scalar("heap_lock_hold")
        self.releases += tables.scalar("heap_lock_acquisitions")
        for count in ("heap_lock_acquisitions", "heap_lock_hold"):
            tables.header[count] = 0
        holder = tables.scalar("heap_lock_holder")
        if holder >= 0:
            self.releases -= 1
            self.holder, self._since = holder, tables.scalar("heap_lock_since")
            self.held_until = int(tables.arrays["p_time"][holder])
            self.order.enter(holder, self)

    def acquire(self, owner: int, now: int) -> Step:
        """As any lock's, with the hold in progress if compiled code granted it."""
        self.take_over()
        return super().acquire(owner, now)

    def release(self, owner: int, now: int) -> int:
        """As any lock's; compiled code keeps the lock again if nobody waits for it."""
        owed = super().release(owner, now)
        if self._tables is not None and self.holder is None and not self.waiters:
            self._tables.header["heap_lock_here"] = 1
        return owed
