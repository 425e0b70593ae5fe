"""Goroutines that run a workload on a simulated program: closed-loop workers, an open-loop service, a recorded trace.

A service's response times count from the intended arrival, so that a late start is in them (no coordinated omission).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import simpy

from sim.go.goroutine import Body, Goroutine
from sim.go.world import World
from sim.metrics.histogram import Histogram
from sim.ops import ALLOC
from workloads.spec import Recorded, Service, Workers
from workloads.streams import Arrivals, RequestStream, WorkerStream, operations

BATCH = 4096  # operations a worker hands over at once; at 1024 a run of 8 Ps takes a third longer, more gain nothing


class Load:
    """A workload that is running: ``done`` fires when all of it is.

    ``response`` and ``queued`` are histograms of a service's requests: from the intended arrival to the end, and the
    part of it runnable without a P. None for workers and traces. ``mallocs``: those to come, None if that is not
    known. ``figures``: what a trace says of itself.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.done: simpy.Event = simpy.Event(world.env)
        self.response: Histogram | None = None
        self.queued: Histogram | None = None
        self.requests = 0
        self.mallocs: int | None = None
        self.figures: dict[str, int | float] = {}
        self._left = 0

    def _ended(self, _: simpy.Event) -> None:
        self._left -= 1
        if self._left == 0:
            self.done.succeed()

    def await_process(self, process: simpy.Process) -> None:
        """One more that must end before the workload is done."""
        self._left += 1
        assert process.callbacks is not None
        process.callbacks.append(self._ended)

    # workers

    def start_workers(self, workers: Workers, mallocs: int | None) -> None:
        """Start the workers; together they end after so many mallocs, or never."""
        self.mallocs = mallocs
        for i in range(workers.goroutines):
            share = None
            if mallocs is not None:
                share = mallocs // workers.goroutines + (i < mallocs % workers.goroutines)
            stream = WorkerStream(workers.mix, workers.round_mallocs, self.world.seed, f"worker/{i}")
            self.await_process(self.world.go(_worker, stream, share, name=f"worker/{i}", stack=workers.stack))

    # trace

    def start_trace(self, recorded: Recorded, mallocs: int | None) -> None:
        """Start the goroutines of a recorded trace, cut off at its so many-th malloc if there is a limit.

        TraceError, one line, if the file has become one that cannot be replayed.
        """
        # only here: importing them compiles the reader of traces
        from workloads.drive_trace import Player
        from workloads.tracestream import build, read

        program = build(read(recorded.trace), mallocs, seed=self.world.seed)
        self.mallocs, self.figures = program.mallocs, program.figures
        player = Player(self.world, program)
        self.done = player.done
        player.start()

    # service

    def start_service(self, service: Service, duration: int | None, mallocs: int | None) -> None:
        """Start requests arriving, until a time or until those that arrived make so many mallocs together."""
        self.mallocs = mallocs
        self.response, self.queued = Histogram(), Histogram()
        self.await_process(self.world.env.process(self._arrive(service, duration, mallocs)))

    def _arrive(self, service: Service, duration: int | None, mallocs: int | None) -> Any:
        """Process: each request is a goroutine from its intended arrival on."""
        world, seed = self.world, self.world.seed
        stream = RequestStream(service, seed, "service")
        for time in Arrivals(service, seed, "service"):
            if (duration is not None and time >= duration) or (mallocs is not None and stream.mallocs >= mallocs):
                return
            yield world.env.timeout(time - world.now)
            ops = stream.next()
            world.roots.reserve_shared_up_to(stream.shared_ids)
            self.requests += 1
            name = f"request/{self.requests}"
            self.await_process(world.go(self.request, ops, stream.ids, int(time), name=name, stack=service.stack))

    def request(self, g: Goroutine, ops: Any, variables: int, arrived: int) -> Body:
        """Goroutine: one request."""
        yield g.run(ops, variables)
        assert self.response is not None and self.queued is not None
        self.response.add(g.world.now - arrived)
        self.queued.add(g.waited)


def _worker(g: Goroutine, stream: WorkerStream, mallocs: int | None) -> Body:
    """Goroutine: run a stream, to its so many-th malloc if there is a limit."""
    ops = operations(BATCH if mallocs is None else min(BATCH, 3 * mallocs + 64))
    while mallocs is None or stream.mallocs < mallocs:
        before = stream.mallocs
        stream.fill(ops)
        batch = ops
        if mallocs is not None and stream.mallocs > mallocs:
            batch = ops[: int(np.flatnonzero(ops["kind"] == ALLOC)[mallocs - before - 1]) + 1]
        yield g.run(batch, stream.ids)
