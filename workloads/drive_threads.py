"""Threads that run a workload on an allocator: the same streams of operations that goroutines run, to the byte.

Workers: a thread for each goroutine of the workload. A service: a pool of threads; a request goes to the idle thread of
the lowest number, which has to be woken, or waits, first come, first served, for the first thread that is done.
Response times count from the intended arrival, so that a late start is in them (no coordinated omission).
"""

from __future__ import annotations

from collections import deque
from typing import Any

from sim.metrics.histogram import Histogram
from sim.threads.state import NEVER
from sim.threads.world import ThreadWorld
from workloads.spec import Service, Workers
from workloads.streams import WorkerStream, batches, requests, share


class WorkerLoad:
    """Workers running on a world with a thread for each of them; together they make so many mallocs, or no end."""

    def __init__(self, world: ThreadWorld, workers: Workers, mallocs: int | None) -> None:
        self.world = world
        n = workers.goroutines
        if world.nthreads != n:
            raise ValueError(f"{n} workers run on a world of {n} threads, not of {world.nthreads}")
        self._workers = [
            batches(
                WorkerStream(workers.mix, workers.round_mallocs, world.seed, f"worker/{i}"),
                None if mallocs is None else share(mallocs, i, n),
            )
            for i in range(n)
        ]
        for t, worker in enumerate(self._workers):
            ops = next(worker, None)
            if ops is not None:
                world.submit(t, ops)
                world.wake(t, 0, 0)

    def advance(self, limit: int) -> bool:
        """Let time pass to ``limit``; True, at the time when the last one ended, if all are done before."""
        while (t := self.world.advance(limit)) is not None:
            ops = next(self._workers[t], None)
            if ops is None:
                self.world.rest(t)
                if self.world.all_idle():
                    return True
            else:
                self.world.submit(t, ops)
        return False


class ServiceLoad:
    """Requests that arrive, until a time or until those that arrived make so many mallocs together; a pool serves them.

    ``response`` and ``queued``: histograms of the requests that are done, from the intended arrival to the end, and the
    part of it without a CPU, being woken or switched to included.
    """

    def __init__(self, world: ThreadWorld, service: Service, duration: int | None, mallocs: int | None) -> None:
        self.world = world
        self.response, self.queued = Histogram(), Histogram()
        self.requests = 0
        self._requests = requests(service, world.seed, duration, mallocs)
        self._idle = list(range(world.nthreads))  # sorted
        self._queue: deque[tuple[int, Any]] = deque()
        self._serving = [(0, 0, 0)] * world.nthreads  # arrival, when it got the thread, time without a CPU before that
        self._next, self._ops = self._next_arrival()

    def advance(self, limit: int) -> bool:
        """Let time pass to ``limit``; True, at the time when the last one ended, if all are done before."""
        while True:
            until = min(limit, self._next)
            t = self.world.advance(until)
            if t is not None:
                self._end(t)
                if self._next == NEVER and len(self._idle) == self.world.nthreads:
                    return True
            elif until == limit:
                return False
            else:
                self._arrive()

    def _next_arrival(self) -> tuple[int, Any]:
        """When the next request arrives, and its operations; NEVER if none does any more."""
        time, ops, _, _ = next(self._requests, (NEVER, None, 0, 0))
        return time, ops

    def _arrive(self) -> None:
        arrived, ops = self._next, self._ops
        self.requests += 1
        self._next, self._ops = self._next_arrival()
        if self._idle:
            t = self._idle.pop(0)
            self._begin(t, arrived, ops, arrived)
            self.world.wake(t, arrived, self.world.prices.wake)
        else:
            self._queue.append((arrived, ops))

    def _begin(self, t: int, arrived: int, ops: Any, now: int) -> None:
        self._serving[t] = (arrived, now, self.world.without_cpu(t))
        self.world.submit(t, ops)

    def _end(self, t: int) -> None:
        """A thread is done with a request: it takes the next one, or is idle."""
        now = self.world.now
        arrived, begun, before = self._serving[t]
        self.response.add(now - arrived)
        self.queued.add(begun - arrived + self.world.without_cpu(t) - before)
        if self._queue:
            self._begin(t, *self._queue.popleft(), now)
        else:
            self.world.rest(t)
            self._idle.append(t)
            self._idle.sort()
