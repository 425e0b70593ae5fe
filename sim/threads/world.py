"""A program of threads on one clock, whatever its allocator: batches in, time passes, what was seen.

A subclass brings a heap of its rooms, its pump and its table of steps and causes. Threads are numbered from 0 and idle
at first; `submit` and `wake` give one something to do. Nothing here is random: the same calls give the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.jit import PLAIN, Tables, address_of
from sim.metrics.histogram import BUCKETS, Summary, bucket_of_int, summarize
from sim.threads.clock import FINISHED, NEED_ROOM, rest, submit, wake
from sim.threads.prices import ThreadPrices
from sim.threads.state import LOG_FREE, NEVER, NOBODY, new_tables
from sim.units import throw


@dataclass(frozen=True, slots=True)
class LockFigures:
    """What happened at a lock, or at several together: counts and picoseconds."""

    holds: int
    hold_time: int
    longest_hold: int
    waits: int
    wait_time: int
    longest_wait: int


class ThreadWorld:
    """One simulated program of threads.

    ``heap``: its allocator's (`header`, `tables`, `make_variables`). ``clock``: the tables of the clock's side,
    ``fields`` the header of those. ``log_lines``: room for a log of mallocs and frees, for tests.
    """

    def __init__(
        self,
        heap: Any,
        pump: Callable[..., Any],
        steps: Sequence[str],
        causes: Sequence[str],
        first_free_cause: int,
        nlocks: int,
        longest: int,
        nthreads: int,
        cpus: int,
        prices: ThreadPrices,
        seed: int,
        log_lines: int,
    ) -> None:
        if not 1 <= cpus:
            raise ValueError(f"cpus is {cpus}; a machine has one at least")
        self.heap = heap
        self.prices = prices
        self.seed = seed
        self.causes = tuple(causes)
        self.nthreads = nthreads
        self.cpus = min(cpus, nthreads)
        self.now = 0
        self._pump = pump
        self._longest = longest
        self._batches: list[Any] = [None] * nthreads  # keeps what the threads' rows point to
        self.clock: Tables = new_tables(nthreads, self.cpus, nlocks, len(causes), log_lines)
        self.clock.allocate("prices", len(steps))[:] = [prices.steps[name] for name in steps]
        fields = self.clock.fields
        fields.first_free_cause = first_free_cause
        fields.handoff = prices.handoff
        fields.switch = prices.switch
        fields.slice = prices.slice if self.cpus < nthreads else NEVER

    @property
    def fields(self):  # type: ignore[no-untyped-def]
        """The clock's header record: scalars by name."""
        return self.clock.fields

    def submit(self, t: int, ops: Any) -> None:
        """Give a thread that is idle or at the end of its batch the next one; Throw names an operation of no meaning.

        The operations must not be changed until the thread is at their end.
        """
        if PLAIN:
            ops = ops.view(np.recarray)
        bad, own, shared = submit(self.clock.header, t, address_of(ops), ops, self._longest)
        if bad >= 0:
            throw(f"operation {bad} of a batch of thread {t} may not be run: {ops[bad]}")
        self._batches[t] = ops
        self._make_variables(t, int(own), int(shared))

    def wake(self, t: int, time: int, cost: int) -> None:
        """An idle thread goes on from a time on that no other thread has passed in its turns, ``cost`` later."""
        wake(self.clock.header, t, time, cost)

    def rest(self, t: int) -> None:
        """A thread at the end of its batch is idle."""
        rest(self.clock.header, t)

    def clock_of(self, t: int) -> int:
        """What the clock of a thread says; NEVER if it is idle or waits for its CPU."""
        return int(self.clock.arrays["times"][t])

    def without_cpu(self, t: int) -> int:
        """Picoseconds that a thread had something to do and was not on its CPU, or on its way there, so far."""
        row = self.clock.arrays["threads"][t]
        return int(row["queued_time"]) + int(row["switch_time"])

    def all_idle(self) -> bool:
        """Whether no thread has anything to do."""
        return bool((self.clock.arrays["cpus"]["running"] == NOBODY).all())

    def advance(self, limit: int) -> int | None:
        """Let time pass to ``limit``, or until a thread is at the end of its batch: that thread, else None."""
        while True:
            reason, t = self._pump(self.heap.header, self.clock.header, limit)
            if reason == NEED_ROOM:
                self._make_room(int(t))
                continue
            if reason == FINISHED or limit < NEVER:
                self.now = self.clock_of(int(t)) if reason == FINISHED else limit
            return int(t) if reason == FINISHED else None

    def close(self) -> None:
        """No operation begins any more, and those that have begun are done: invariants hold after this."""
        self.fields.closing = 1
        while (t := self.advance(NEVER)) is not None:
            self.rest(t)

    def _make_variables(self, t: int, own: int, shared: int) -> None:
        raise NotImplementedError

    def _make_room(self, t: int) -> None:
        """Grow the tables that the next turn of a thread could overflow."""
        raise NotImplementedError

    def _argument(self, t: int) -> int:
        """Bytes that the allocation a thread is at asks for."""
        return int(self._batches[t]["arg"][self.clock.arrays["threads"]["pos"][t]])

    # what was seen

    @property
    def mallocs(self) -> int:
        """Mallocs so far."""
        return int(self.clock.arrays["threads"]["mallocs"].sum())

    @property
    def asked_bytes(self) -> int:
        """Bytes that mallocs asked for so far."""
        return int(self.clock.arrays["threads"]["asked_bytes"].sum())

    @property
    def given_bytes(self) -> int:
        """Bytes of the objects or blocks that they were given."""
        return int(self.clock.arrays["threads"]["given_bytes"].sum())

    def latency_counts(self) -> tuple[Any, list[int], list[int]]:
        """Histograms of mallocs and frees by cause: (causes x buckets, total times, longest)."""
        fields, arrays = self.fields, self.clock.arrays
        counts = arrays["histograms"].reshape(len(self.causes), BUCKETS).copy()
        total, longest = arrays["cause_time"].tolist(), arrays["cause_max"].tolist()
        first = int(fields.first_free_cause)
        for name, number, whole in (("pop", int(fields.hits), 0), ("push", int(fields.pushes), first)):
            if number:
                price = self.prices.steps[name]
                for cause in (whole, whole + 1):
                    counts[cause, bucket_of_int(price)] += number
                    total[cause] += number * price
                    longest[cause] = max(longest[cause], price)
        return counts, total, longest

    def latency(self) -> dict[str, Summary]:
        """Mallocs and frees by cause, those that happened."""
        rows = zip(self.causes, *self.latency_counts(), strict=True)
        return {name: summarize(row, total, longest) for name, row, total, longest in rows if row.any()}

    def lock_figures(self, first: int = 0, end: int | None = None) -> LockFigures:
        """What happened at locks first to end - 1, all of them by default."""
        rows = self.clock.arrays["locks"][first:end]
        sums = {name: int(rows[name].sum()) for name in ("holds", "hold_time", "waits", "wait_time")}
        most = {name: int(rows[name].max(initial=0)) for name in ("longest_hold", "longest_wait")}
        return LockFigures(**sums, **most)

    def log(self) -> list[tuple[int, int, bool, int, int]]:
        """The log: (when it ended, thread, whether it was a free, object, picoseconds), by thread in order."""
        rows = self.clock.arrays["log"][: int(self.fields.log_used)].tolist()
        return [(time, t, kind == LOG_FREE, obj, took) for time, t, kind, obj, took in rows]
