"""What the model says to users' questions: a function a question, each of a run or a few, and rows against their bands.

A row's number and band are those of the issue where it has them, else of theory; nothing here is tuned to hit one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from experiments import assist_tails, memory_limit_spiral, published, published_limit, published_locks
from experiments.machine import load_machine
from experiments.published_figure import Row
from sim.go.goroutine import Body, Goroutine
from sim.go.world import World
from sim.metrics.cycles import Cycle
from sim.ops import ALLOC, DEAD, NEEDZERO, NO_OBJ, OP, TOUCH
from sim.units import MIB, MS, SEC, format_time

MACHINE = "epyc-2core"
_BATCH = 1 << 16


# Q1


def spiral() -> list[Row]:
    """Two services that leak towards a limit with GOGC=off (memory_limit_spiral)."""
    heavy, light = (
        next(one for one in memory_limit_spiral.POLICIES if one.name == name)
        for name in ("limit, GOGC=off", "light, limit, off")
    )
    rows = []
    for policy, what in ((heavy, "allocates much"), (light, "allocates little")):
        seen = list(memory_limit_spiral.run(policy))
        found = memory_limit_spiral.outcome(policy, seen)
        if found.form_half_at is not None and found.half_at is not None:
            name = f"seconds until the collector takes half of the CPU, a service that {what}"
            rows.append(Row(name, found.form_half_at, found.half_at, 0.1))
        if policy is heavy:
            on = [row.gc_share_busy for row in seen if row.limiter >= 0.99][1:]
            rows.append(
                Row("% of the Ps' time that the limiter leaves to the collector", 50, 100 * sum(on) / len(on), 0.1)
            )
        else:
            last = seen[-1]
            idle = last.gc_share - last.gc_share_busy
            rows.append(Row("% of the Ps' time past the limit, collecting", 32, 100 * last.gc_share_busy, 0.3))
            rows.append(Row("% of the Ps' time past the limit, collecting on idle Ps", 23, 100 * idle, 0.3))
    return rows


# Q2, Q5, Q6: published figures


def limit_ratio() -> list[Row]:
    """A cache at 0.5 to 0.9 of its container (published_limit)."""
    return list(published_limit.figure().rows)


def lock_knee() -> list[Row]:
    """sched.lock over GOMAXPROCS (published_locks)."""
    return list(published_locks.sched_lock().rows)


def page_heap() -> list[Row]:
    """The page heap's lock (published_locks), and what the mutex of mcentral took off (mcentral_mutex)."""
    return [*published_locks.page_heap().rows, *published.mutex().rows]


# Q4


def assists() -> list[Row]:
    """A service near saturation with and without mark assists (assist_tails), one seed."""
    as_is, none = (
        assist_tails.measure(variant, 8, published.RATE, assist_tails.WINDOW, seeds=(1,))
        for variant in ("as is", "no assists")
    )
    ratio = as_is.response_us["p99"] / none.response_us["p99"]
    return [
        Row("99th percentile of responses, times that without assists (go1.19)", 73.4 / 3.9, ratio, 0.5),
        Row("highest heap without assists, times that with them", 1.05, none.peak_mib / as_is.peak_mib, 0.1),
    ]


# Q9, Q10: one cycle of a heap that stands

# Ps -> bytes marked, and milliseconds of the wall that took (issue 19393)
_MARKED = {48: (21_693_000_000, 1435), 16: (23_136_000_000, 3500)}
_CPU_TIME = (788_000_000, 422 + 185 + 0.46)  # bytes marked, and milliseconds of CPU time, on 24 Ps (issue 40225)
_SCALE = 16  # heaps are simulated at this part of their size


def _fill(g: Goroutine, objects: int, size: int, busy: int, done: Any) -> Body:
    """Goroutine: allocate objects full of pointers that stay, let others compute, collect."""
    ops = np.zeros(_BATCH, OP)
    ops[:] = (ALLOC, NEEDZERO, NO_OBJ, size, size)
    for first in range(0, objects, _BATCH):
        yield g.run(ops[: min(_BATCH, objects - first)])
    for _ in range(busy):
        g.world.go(_compute)
    yield from g.world.gc.collect(g)
    done.succeed()


def _compute(g: Goroutine) -> Body:
    """Goroutine: compute for ever."""
    while True:
        yield g.compute(10 * MS)


def cycle(version: str, procs: int, nbytes: int, size: int, shape: str = "array-shuffled") -> Cycle:
    """A forced cycle of so many live bytes in objects of one size, while all Ps have work to do."""
    world = World(version, procs, load_machine(MACHINE, version), 1, gogc=-1, heap_shape=shape)
    done = world.env.event()
    world.go(_fill, nbytes // size, size, procs, done)
    world.run(until=done)
    return world.gc.log.cycles[-1]


def _cpu(one: Cycle) -> int:
    """CPU time of marking, picoseconds."""
    return one.assist_time + one.dedicated_time + one.fractional_time + one.idle_time


def large_heap() -> list[Row]:
    """Heaps of 22 and 23 GB that a quarter of 48 and 16 Ps marks, and one of 0.8 GB; 256-byte objects, go1.19."""
    rows = []
    for procs, (nbytes, wall) in _MARKED.items():
        found = cycle("go1.19", procs, nbytes // _SCALE, 256)
        took = (found.t_mark_term - found.t_mark) * _SCALE / MS
        rows.append(Row(f"ms to mark {nbytes / 1e9:.3g} GB on {procs} Ps", wall, took, 0.5))
    nbytes, cpu = _CPU_TIME
    found = cycle("go1.19", 24, nbytes // _SCALE, 256)
    rows.append(Row(f"ms of CPU time to mark {nbytes / 1e9:.3g} GB on 24 Ps", cpu, _cpu(found) * _SCALE / MS, 0.5))
    return rows


def green_tea() -> list[Row]:
    """What marking 256 MiB of 64-byte objects takes in go1.27 over go1.19, by the heap's shape."""
    rows = []
    for shape in ("array-shuffled", "tree"):
        new, old = (_cpu(cycle(version, 2, 256 * MIB, 64, shape)) for version in ("go1.27", "go1.19"))
        rows.append(Row(f"CPU time of marking, shape {shape}, times that of go1.19", 0.75, new / old, 0.2))
    return rows


# Q12

_PEAK, _KEPT = 512 * MIB, 64 * MIB  # the scavenger gives back huge pages whole: 2 MiB are little of these
_OBJECT = 1024
_PROCS = 2
_LOOK = 20 * MS
_PERIODS = {100 * MS: 2 * SEC, SEC: 12 * SEC}  # between collections: how long to look
_LIMIT = 256 * MIB


def _ops(first: int, count: int, same: int | None = None) -> Any:
    """Allocations into variables from a first one on, or all into the same."""
    ops = np.zeros(count, OP)
    ops[:] = (ALLOC, NEEDZERO | TOUCH, 0, _OBJECT, 0)
    ops["obj"] = np.arange(first, first + count) if same is None else same
    return ops


def _shrinks(g: Goroutine, period: int) -> Body:
    """Goroutine: a heap that grows, of which an eighth stays; then nothing but a collection now and then."""
    count, kept = _PEAK // _OBJECT, _KEPT // _OBJECT
    dead = np.zeros(count - kept, OP)
    dead["kind"], dead["obj"] = DEAD, np.arange(kept, count)
    yield g.run(np.concatenate([_ops(0, count), dead]), count)
    while True:
        yield from g.world.gc.collect(g)
        yield g.world.env.timeout(period)


def _garbage(g: Goroutine, done: Any) -> Body:
    """Goroutine: a heap that stays, then 2 GiB of garbage."""
    kept = _KEPT // _OBJECT
    yield g.run(_ops(1, kept), kept + 1)
    for _ in range(2 * 1024 * MIB // _OBJECT // _BATCH):
        yield g.run(_ops(0, _BATCH, same=0), kept + 1)
    done.succeed()


def given_back() -> list[Row]:
    """A heap of 512 MiB that shrinks to 64 MiB, collected often and seldom; and one that fills a limit again and again."""
    rows = []
    for period, length in _PERIODS.items():
        world = World("go1.27", _PROCS, load_machine(MACHINE, "go1.27"), 1)
        world.go(_shrinks, period)
        fields = world.heap.fields
        samples = []
        for end in range(_LOOK, length, _LOOK):
            world.run(until=end)
            samples.append((end, int(fields.scavenge_background_time)))
        kept = int(fields.heap_in_use + fields.heap_free) / int(fields.last_heap_in_use)
        often = f"a collection each {format_time(period)}"
        rows.append(Row(f"heap kept, times what is in use when marking ends; {often}", 1.10, kept, 0.05))
        rows.append(Row(f"% of the Ps' time, giving back; {often}", 1, 100 * _busy_share(samples) / _PROCS, 0.25))
    rows.append(Row("highest memory, times the limit, GOGC=off", 0.97, _highest() / _LIMIT, 0.03))
    return rows


def _busy_share(samples: Sequence[tuple[int, int]]) -> float:
    """The background scavenger's share of one CPU, from its first work to its last."""
    last = samples[-1][1]
    idle = len(list(takewhile(lambda one: not one[1], samples)))
    first, end = samples[max(idle - 1, 0)], next(one for one in samples if one[1] == last)
    return (end[1] - first[1]) / (end[0] - first[0])


def _highest() -> int:
    """The most memory that a program maps whose garbage fills a limit again and again; bytes."""
    world = World("go1.27", _PROCS, load_machine(MACHINE, "go1.27"), 1, gogc=-1, memory_limit=_LIMIT)
    done = world.env.event()
    world.go(_garbage, done)
    highest = 0
    while not done.processed:
        world.run(until=world.now + MS)
        highest = max(highest, int(world.heap.fields.mapped_ready))
    return highest
