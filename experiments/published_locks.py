"""Published figures of locks: sched.lock over GOMAXPROCS (golang/go issue 67585), mheap.lock (design document 35112).

Issue 67585: tile38 on a machine of 88 CPUs, GOMAXPROCS 22, 44 and 88: 0.56, 2.4 and 35 % of the CPU time is spent in
runtime.lock, for sched.lock. The model does not have that lock among its rooms; here it stands alone: a thread per P
takes it, holds it, and works until it takes it again, exponential times all of them. One number, the share of its time
a P would hold it if it were alone, is fitted to the 0.56 %; 44 and 88 are predicted, by a lock that hands over at once
(a queue) and by our model of the lock that Go had then (lock_futex.go), whose waiters poll and sleep.

Design 35112 (1.14's page allocator): with 1 KiB objects the page heap is met "every 10th allocation or so"; most spans
of small objects should be had without the lock (80 % and more); a search took the prototype 680 ns, 20 ns on average
with the P's page cache. The 4.0 us that 1.12 held the lock are of a treap, which is not modelled.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import simpy

from experiments.machine import load_machine
from experiments.published_figure import Figure, Row
from sim.costs import LockPrices
from sim.engine import clock
from sim.engine.lock import LockOrder, TimedLock
from sim.engine.rng import Stream
from sim.go.metrics import latency_counts
from sim.go.state import CAUSES
from sim.go.world import World
from sim.units import MS, NS, US
from workloads.drive import Load
from workloads.spec import Lifetime, Mix, Objects, Workers

MACHINE = "epyc-2core"
SHARE = {22: 0.0056, 44: 0.024, 88: 0.35}  # of CPU time, by GOMAXPROCS
HOLD = 1 * US
_TIME = 50 * MS


def _thread(env: simpy.Environment, lock: TimedLock, owner: int, work: int, draws: Stream) -> Generator[simpy.Event, Any, None]:
    """Process: work, take the lock, hold it, for ever."""
    while True:
        yield env.timeout(draws.exponential(work))
        owed = yield from lock.acquire(owner, clock.now(env))
        yield env.timeout(owed + HOLD)
        yield env.timeout(lock.release(owner, clock.now(env)))


def lock_share(threads: int, work: int, discipline: str, prices: LockPrices) -> float:
    """Of the CPU time, what waits for the lock: all of the wait of a queue, polling and system calls of a futex lock."""
    env = clock.Environment()
    lock = TimedLock(env, "sched.lock", 1, discipline, prices, LockOrder())
    for i in range(threads):
        env.process(_thread(env, lock, i, work, Stream(1, f"thread/{i}")))
    env.run(until=_TIME)
    if discipline == "fifo":
        return lock.total_wait / (threads * _TIME)
    polling = lock.spins * (4 * prices.procyield + prices.osyield) // 5
    calls = lock.futex_sleeps * prices.futex_sleep + lock.futex_wakes * prices.futex_wake
    asleep = max(0, lock.total_wait - polling - calls)
    return (polling + calls) / (threads * _TIME - asleep)


def fitted_work(discipline: str, prices: LockPrices) -> int:
    """Mean picoseconds between two holds at which 22 Ps lose the published share; to a percent."""
    low, high = 10 * HOLD, 1000 * HOLD
    while high > 1.01 * low:
        middle = (low + high) // 2
        low, high = (middle, high) if lock_share(22, middle, discipline, prices) > SHARE[22] else (low, middle)
    return high


def sched_lock() -> Figure:
    """Issue 67585."""
    measured = load_machine(MACHINE, "go1.19").lock
    free = LockPrices(**dict.fromkeys(LockPrices.__slots__, 0))
    rows = []
    for name, discipline, prices in (("queue", "fifo", free), ("lock_futex", "futex", measured)):
        work = fitted_work(discipline, prices)
        rows += [
            Row(
                f"{name}: % of CPU time in lock at GOMAXPROCS={procs}",
                100 * share,
                100 * lock_share(procs, work, discipline, prices),
                0.3,
                procs == 22,
            )
            for procs, share in SHARE.items()
        ]
    return Figure(
        name="sched.lock over GOMAXPROCS",
        source="https://github.com/golang/go/issues/67585",
        fitted="the time between two holds, for each lock by its first row",
        rows=tuple(rows),
        says="The queue hands over at once, and all of its waiting counts as CPU time. Who waits in lock_futex as modelled sleeps"
        " after some polling, and takes no CPU time then; that a holder is slowed down by those who poll its cache line, which"
        " keeps more of them awake, is left out of the model.",
    )


def page_heap() -> Figure:
    """Design 35112."""
    world = World("go1.27", 8, load_machine(MACHINE, "go1.27"), 1)
    load = Load(world)
    mix = Mix((Objects(1, ((1024, 1024, 1),), 0, 0, Lifetime("ops", 20_000)),), 200 * NS)
    load.start_workers(Workers(8, mix), 2_000_000)
    world.run(until=load.done)
    counts, _, _ = latency_counts(world)
    calls = dict(zip(CAUSES, counts.sum(axis=1).tolist(), strict=True))
    spans, lock = calls["refill_fresh"], world.heap_lock
    locked = calls["page_cache"] + calls["page_search"]
    step = world.prices.steps
    return Figure(
        name="page heap: how often, and how long under its lock",
        source="https://go.googlesource.com/proposal/+/master/design/35112-scaling-the-page-allocator.md",
        fitted="nothing; one search of the page allocator is an assumed price, 30 ns",
        rows=(
            Row("mallocs of 1 KiB to a refill", 10, calls["all"] / (spans + calls["refill_partial"]), 0.3),
            Row("% of new spans without the lock, aimed at", 80, 100 * (1 - locked / spans), 0.25),
            Row("ns of one search", 680, (step["page_alloc"].mean + 5 * step["page_level"].mean) / NS, 0.5),
            Row("ns a span with the P's page cache", 20, lock.total_hold / spans / NS, 0.5),
        ),
        says="The last row's hold has what the prototype left out: growth of the heap, and giving back spans that were swept.",
    )
