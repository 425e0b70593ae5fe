"""The textbook allocators on the clock: every call takes what a slow event simulation over the slow models says."""

import heapq

import numpy as np
import pytest

from sim.ops import ALLOC, COMPUTE, DEAD, NO_OBJ, OP, SHARED, TOUCH
from sim.textbook.check import check
from sim.textbook.prices import STEPS
from sim.textbook.world import TextbookWorld
from sim.threads.prices import ThreadPrices
from sim.threads.state import NEVER
from tests.textbook.oracle import BASES, RUN, oracle

PRICES = {name: 1000 * (5 + i) + 7 * i for i, name in enumerate(STEPS)}
HANDOFF = 40_001
THREADS = 3
KINDS = [
    ("bump", None),
    ("first-fit", "lifo"),
    ("next-fit", "address"),
    ("best-fit", "address"),
    ("segregated-fit", "lifo"),
]
ALIGN, GROW = 16, 8192
SPENT = ("malloc_time", "free_time", "compute_time", "touch_time", "idle_time", "queued_time", "switch_time")


def operations(t, n=700):
    """A thread's operations: waves of mallocs and deaths, a part of them of variables of all threads."""
    rng = np.random.default_rng([5, t])
    ops = np.zeros(n, OP)
    wave = np.repeat(rng.random(n // 50), 50)
    ops["kind"] = np.where(rng.random(n) < 0.1, COMPUTE, np.where(rng.random(n) < wave, ALLOC, DEAD))
    sizes = rng.choice([0, 8, 60, 700, 3000, 20_000], n) + rng.integers(0, 90, n)
    ops["arg"] = np.where(ops["kind"] == COMPUTE, rng.integers(0, 200_000, n), sizes)
    shared = rng.random(n) < 0.3
    ops["flags"] = SHARED * shared | TOUCH * (rng.random(n) < 0.6)
    ops["obj"] = np.where(shared, rng.integers(0, 40, n), rng.integers(0, 60, n))
    ops["obj"] = np.where((rng.random(n) < 0.02) | (ops["kind"] == COMPUTE), NO_OBJ, ops["obj"])
    return ops


class Slow:
    """Threads as generators, resumed in the order of (time, thread); one lock, free from a time on for the next."""

    def __init__(self, policy, order, batches):
        self.policy, self.model = policy, oracle(policy, order, ALIGN, GROW)
        self.pages, self.shared, self.log = set(), {}, []
        self.now = self.free_at = self.waits = 0
        events = [(0, t, self.thread(t, ops)) for t, ops in enumerate(batches)]
        while events:
            self.now, t, task = heapq.heappop(events)
            delay = next(task, None)
            if delay is not None:
                heapq.heappush(events, (self.now + delay, t, task))

    def touch(self, first, nbytes):
        """First touches of a write, in picoseconds."""
        new = set(range(first // 4096, (first + nbytes - 1) // 4096 + 1)) - self.pages
        self.pages |= new
        return len(new) * PRICES["first_touch"]

    def hold(self, cost):
        """How long until a thread that comes now has had the lock for ``cost``."""
        begin = self.now
        if self.free_at > self.now:
            begin = self.free_at + HANDOFF
            self.waits += 1
        self.free_at = begin + cost
        return self.free_at - self.now

    def malloc(self, size):
        """(block, address, picoseconds under the lock)."""
        before = self.model.facts.copy()
        block, at = self.model.malloc(size)
        d = {name: self.model.facts[name] - before[name] for name in self.model.facts}
        names = {"visited": "visit", "splits": "split", "growths": "grow"}
        cost = PRICES["malloc"] + sum(d.get(name, 0) * PRICES[price] for name, price in names.items())
        cost += min(d.get("carved", 0), d.get("runs", 0) * RUN // 64) * PRICES["carve_line"]
        if d.get("runs", 0):
            cost += self.touch(block.at, RUN)
        elif self.policy != "bump" and block.at < BASES[1]:
            cost += self.touch(block.at, 8)
            if d.get("splits", 0):
                cost += self.touch(block.at + block.nbytes, 24)
            if d.get("growths", 0):
                general = getattr(self.model, "tail", self.model)
                cost += self.touch(general.end - 16, 16)
        return block, at, cost

    def free(self, block):
        """Picoseconds under the lock."""
        before = self.model.facts.copy()
        cost = PRICES["free"]
        if self.policy != "bump" and block.at < BASES[1]:
            cost += self.touch(block.at, 24) + self.touch(block.at + block.nbytes - 8, 8)
        self.model.free(block)
        d = {name: self.model.facts[name] - before[name] for name in self.model.facts}
        return cost + d.get("passed", 0) * PRICES["visit"] + d.get("coalesced", 0) * PRICES["coalesce"]

    def thread(self, t, ops):
        own = {}
        for kind, flags, variable, arg, _ in ops.tolist():
            if kind == COMPUTE:
                yield arg
                continue
            block = None
            if kind == ALLOC:
                block, at, cost = self.malloc(arg)
                took = self.hold(cost)
                self.log.append((self.now + took, t, False, took))
                yield took
                if flags & TOUCH:
                    yield self.touch(at, max(arg, 1))
            if variable == NO_OBJ:
                continue
            table = self.shared if flags & SHARED else own
            held = table.pop(variable, None)
            if block is not None:
                table[variable] = block
            if held is not None:
                took = self.hold(self.free(held))
                self.log.append((self.now + took, t, True, took))
                yield took


@pytest.mark.parametrize(("policy", "order"), KINDS)
def test_every_call_takes_what_the_slow_simulation_says(policy, order):
    batches = [operations(t) for t in range(THREADS)]
    prices = ThreadPrices("test", PRICES, HANDOFF, 10_000_000, 2_000_000, 0, {})
    w = TextbookWorld(policy, THREADS, prices, 1, order=order, align_bytes=ALIGN, grow_bytes=GROW, log_lines=1 << 14)
    for t, ops in enumerate(batches):
        w.submit(t, ops)
        w.wake(t, 0, 0)
    while (t := w.advance(NEVER)) is not None:
        row = w.clock.arrays["threads"][t]
        assert sum(int(row[name]) for name in SPENT) == w.now
        w.rest(t)
    check(w.heap)
    slow = Slow(policy, order, batches)
    assert sorted((time, t, is_free, took) for time, t, is_free, _, took in w.log()) == sorted(slow.log)
    assert w.locks()["global"].waits == slow.waits > 100
    assert int(w.fields.resident_pages) == len(slow.pages)
    assert int(w.heap.fields.arena_bytes) == slow.model.arena()
