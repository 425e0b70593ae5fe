"""Goroutines that run a workload on a simulated program: closed-loop workers, an open-loop service, a recorded trace.

A service's response times count from the intended arrival, so that a late start is in them (no coordinated omission).
"""

from __future__ import annotations

from typing import Any

import simpy

from sim.go.goroutine import Body, Goroutine
from sim.go.world import World
from sim.metrics.histogram import Histogram
from workloads.spec import Recorded, Service, Workers
from workloads.streams import WorkerStream, batches, requests, share


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
            part = None if mallocs is None else share(mallocs, i, workers.goroutines)
            stream = WorkerStream(workers.mix, workers.round_mallocs, self.world.seed, f"worker/{i}")
            self.await_process(self.world.go(_worker, stream, part, name=f"worker/{i}", stack=workers.stack))

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
        world = self.world
        for time, ops, variables, shared in requests(service, world.seed, duration, mallocs):
            yield world.env.timeout(time - world.now)
            world.roots.reserve_shared_up_to(shared)
            self.requests += 1
            name = f"request/{self.requests}"
            self.await_process(world.go(self.request, ops, variables, int(time), name=name, stack=service.stack))

    def request(self, g: Goroutine, ops: Any, variables: int, arrived: int) -> Body:
        """Goroutine: one request."""
        yield g.run(ops, variables)
        assert self.response is not None and self.queued is not None
        self.response.add(g.world.now - arrived)
        self.queued.add(g.waited)


def _worker(g: Goroutine, stream: WorkerStream, mallocs: int | None) -> Body:
    """Goroutine: run a stream, to its so many-th malloc if there is a limit."""
    for ops in batches(stream, mallocs):
        yield g.run(ops, stream.ids)
