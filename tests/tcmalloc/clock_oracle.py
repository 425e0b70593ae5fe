"""A slow event simulation of threads on TCMalloc, over the same rooms: what the compiled pump must equal.

Each thread is a generator, written straight from the library's text: a malloc or a free from its beginning to its end,
with a ``yield`` before whatever it does, so that nothing runs ahead. One loop resumes whoever has the lowest (time,
number). Locks have holders and queues. Prices are taken from how the rooms' facts differ before and after a step.

Run as a program (in plain mode, so that Python can call the rooms), it prints what happened as JSON.
"""

import heapq
import json
import sys
from collections import deque

import numpy as np

from sim.ops import ALLOC, COMPUTE, DEAD, NO_OBJ, OP, SHARED, TOUCH
from sim.tcmalloc import central_freelist as central
from sim.tcmalloc import malloc as rooms
from sim.tcmalloc import page_heap, span, thread_cache
from sim.tcmalloc.heap import TCMalloc
from sim.tcmalloc.prices import STEPS
from sim.tcmalloc.sizeclasses import MAX_SIZE, NUM_CLASSES, class_to_pages, objects_per_span, size_class
from sim.tcmalloc.sizeclasses import num_objects_to_move as batch_of
from sim.tcmalloc.state import SLOT_BITS, TCMALLOC
from sim.tcmalloc.stats import numeric_properties, page_map

THREADS = 4
HANDOFF = 70_001
PRICES = {name: 1000 * (5 + i) + 7 * i for i, name in enumerate(STEPS)}
BUDGET = 1536 << 10  # of all caches
FACTS = [name for name in TCMALLOC.names if name.startswith("fact_")]
SCALARS = [
    "heap_pages",
    "scavenge_counter",
    "release_index",
    "race_counter",
    "next_memory_steal",
    "unclaimed_cache_space",
]


def operations(seed, t):
    """A thread's operations: of odd seeds mixed ones, of even seeds swings."""
    return mixed(seed, t) if seed % 2 else swings(seed, t)


def swings(seed, t, n=900, times=2):
    """Mallocs of n small objects, then their deaths; thread 0 has large ones, the others begin late."""
    rng = np.random.default_rng([seed, t])
    one = np.zeros(2 * n, OP)
    one["kind"] = np.repeat([ALLOC, DEAD], n)
    one["obj"] = np.concatenate([np.arange(n), rng.permutation(n)])
    ops = np.concatenate([one] * times)
    ops["arg"] = rng.choice([30_000, 9_000] if t == 0 else [60, 200, 200, 200, 1024 * t], len(ops))
    if t == 0:
        return ops[(ops["obj"] < 200)]
    late = np.zeros(1, OP)
    late["kind"], late["arg"], late["obj"] = COMPUTE, 20_000_000, NO_OBJ
    return np.concatenate([late, ops])


def mixed(seed, t, n=1600):
    """Bursts of mallocs and of deaths, of small objects and some large ones, some of variables of all threads."""
    rng = np.random.default_rng([seed, t])
    ops = np.zeros(n, OP)
    burst = np.repeat(rng.random(n // 100), 100)
    ops["kind"] = rng.choice([ALLOC, DEAD, COMPUTE], n, p=[0.45, 0.45, 0.1])
    ops["kind"] = np.where(ops["kind"] == COMPUTE, COMPUTE, np.where(rng.random(n) < burst, ALLOC, DEAD))
    sizes = rng.choice(
        [24, 64, 200, 1000, 3072, 9000, 32000, 150_000, 300_000], n, p=[0.2, 0.2, 0.15, 0.1, 0.1, 0.1, 0.1, 0.03, 0.02]
    )
    ops["arg"] = np.where(ops["kind"] == COMPUTE, rng.integers(0, 300_000, n), sizes - rng.integers(0, 20, n))
    shared = rng.random(n) < 0.2
    ops["flags"] = SHARED * shared | TOUCH * (rng.random(n) < 0.5)
    ops["obj"] = np.where(shared, rng.integers(0, 120, n), rng.integers(0, 250, n))
    ops["obj"] = np.where((rng.random(n) < 0.01) | (ops["kind"] == COMPUTE), NO_OBJ, ops["obj"])
    return ops


class Lock:
    def __init__(self):
        self.held, self.queue = False, deque()


class Oracle:
    def __init__(self, seed):
        self.heap = TCMalloc(THREADS, BUDGET)
        self.h = self.heap.header
        for t in reversed(range(THREADS)):
            self.heap.new_cache(t)
        self.locks = [Lock() for _ in range(NUM_CLASSES + 1)]
        self.events, self.parked, self.now = [], {}, 0
        self.own, self.shared = [{} for _ in range(THREADS)], {}
        self.log, self.waited = [], 0
        self.seen = {}  # sums of facts
        for t in range(THREADS):
            heapq.heappush(self.events, (0, 1, t, self.thread(t, operations(seed, t))))

    def run(self):
        while self.events:
            self.now, _, t, task = heapq.heappop(self.events)
            if t < 0:
                task()
                continue
            try:
                delay = next(task)
            except StopIteration:
                continue
            if delay is not None:  # None: it waits in a lock's queue
                heapq.heappush(self.events, (self.now + delay, 1, t, task))
            else:
                self.parked[t] = task

    def step(self, room, *args):
        """Do something to the rooms: what it returned, and the facts it added."""
        before = [int(self.h[0][name]) for name in FACTS]
        found = room(self.h, *args)
        facts = {name[5:]: int(self.h[0][name]) - was for name, was in zip(FACTS, before, strict=True)}
        for name, more in facts.items():
            self.seen[name] = self.seen.get(name, 0) + more
        return found, facts

    def hold(self, t, number, cost):
        """Hold a lock, once it is free, for so long."""
        lock = self.locks[number]
        if lock.held:
            lock.queue.append(t)
            self.waited += 1
            yield None
            yield HANDOFF
        lock.held = True
        heapq.heappush(self.events, (self.now + cost, 0, -1 - number, lambda: self.release(lock)))
        yield cost

    def release(self, lock):
        lock.held = bool(lock.queue)  # it is the next one's already
        if lock.queue:
            t = lock.queue.popleft()
            heapq.heappush(self.events, (self.now, 1, t, self.parked.pop(t)))

    def pages_cost(self, d):
        """What a hold of pageheap_lock cost."""
        p = PRICES
        cost = sum(d[name] * p[name] for name in ("exact_list", "split_list", "exact_set", "split_set"))
        cost += (d["deleted"] - d["growths"]) * p["page_free"] + d["growths"] * p["grow"]
        return cost + d["released_spans"] * p["madvise"] + d["released_resident"] * p["madvise_page"]

    def malloc(self, t, size):
        p, h = PRICES, self.h
        self.heap.make_room(rooms.pages_of(size))
        if size > MAX_SIZE:
            s, d = self.step(page_heap.new_large_locked, rooms.pages_of(size))
            yield from self.hold(t, NUM_CLASSES, self.pages_cost(d))
            return s << SLOT_BITS
        cl = size_class(size)
        obj = thread_cache.pop(h, t, cl)
        if obj:
            yield p["pop"]
            return obj
        n = thread_cache.num_to_fetch(h, t, cl)
        (head, count), d = self.step(central.remove_range_locked, cl, n)
        visits = p["span_fetch"] + (d["spans_visited"] - 1) * p["span_next"]
        cost = p["transfer_fetch"] if d["transfer_hits"] else visits if count else p["central_miss"]
        yield from self.hold(t, cl, cost)
        if not count:
            s, d = self.step(page_heap.new_class_span_locked, cl)
            yield from self.hold(t, NUM_CLASSES, self.pages_cost(d))
            _, d = self.step(central.thread_objects, s)
            lines = min(int(objects_per_span[cl]), int(class_to_pages[cl]) * 8192 // 64)
            yield lines * p["carve_line"] + d["touched"] * p["populate_touch"]
            (head, count), d = self.step(central.populate_locked, cl, s, n)
            yield from self.hold(t, cl, p["populate_enter"] + (d["spans_visited"] - 1) * p["span_next"])
        return thread_cache.fetched(h, t, cl, head, count)

    def scatter(self, t, cl, chain, each, first=0):
        """A chain to its spans; ``first``: what else its first hold costs."""
        while chain or first:
            s, cost = 0, first
            if chain:
                (chain, s), d = self.step(central.release_list_locked, cl, chain)
                cost += PRICES["release"] + d["released_objects"] * each
            yield from self.hold(t, cl, cost)
            first = 0
            if s:
                _, d = self.step(page_heap.delete_locked, s)
                yield from self.hold(t, NUM_CLASSES, self.pages_cost(d))

    def find_slot(self, t, cl, each):
        for force in (False, True):
            donor = central.next_donor(self.h)
            ask = donor != cl and central.may_give_slot(self.h, donor, force)
            yield PRICES["slot_ask"]
            if ask:
                (gave, chain), _ = self.step(central.shrink_cache_locked, donor, force)
                yield from self.scatter(t, donor, chain, each, PRICES["slot_give"])
                if gave:
                    return True
        return False

    def give_back(self, t, cl, n, each):
        p = PRICES
        while n > 0:
            count = min(n, int(batch_of[cl]))
            n -= count
            chain = thread_cache.pop_range(self.h, t, cl, count)
            stored, _ = self.step(central.store_locked, cl, chain, count)
            if stored == central.STORED:
                yield from self.hold(t, cl, p["transfer_store"])
                continue
            if stored == central.WANTS_SLOT:
                yield from self.hold(t, cl, p["central_miss"])
                found = yield from self.find_slot(t, cl, each)
                if found and central.grow_cache_locked(self.h, cl, chain):
                    yield from self.hold(t, cl, p["transfer_store"])
                    continue
            yield from self.scatter(t, cl, chain, each)

    def free(self, t, obj):
        h, p = self.h, PRICES
        cl = int(self.heap.arrays["spans"].sizeclass[obj >> SLOT_BITS])
        if cl == 0:
            _, d = self.step(rooms.do_free_pages, obj)
            yield from self.hold(t, NUM_CLASSES, self.pages_cost(d))
            return
        if thread_cache.push(h, t, cl, obj):
            length = int(self.heap.arrays["free_lists"].length[t * NUM_CLASSES + cl])
            yield from self.give_back(t, cl, min(int(batch_of[cl]), length), p["release_object"])
            self.step(thread_cache.shortened, t, cl)
        else:
            yield p["push"]
        if not thread_cache.over_budget(h, t):
            return
        yield p["scavenge"]
        for each in range(1, NUM_CLASSES):
            drop = thread_cache.num_to_drop(h, t, each)
            yield from self.give_back(t, each, drop, p["scavenge_object"])
            thread_cache.scavenged(h, t, each, drop)
        _, d = self.step(thread_cache.increase_cache_limit_locked, t)
        yield from self.hold(t, NUM_CLASSES, p["budget"] + d["caches_asked"] * p["budget_ask"])

    def thread(self, t, ops):
        for op in ops.tolist():
            kind, flags, variable, arg, _ = op
            if kind == COMPUTE:
                yield arg
                continue
            obj = 0
            if kind == ALLOC:
                begun = self.now
                obj = yield from self.malloc(t, arg)
                self.log.append((self.now, t, False, int(obj), self.now - begun))
                if flags & TOUCH:
                    _, d = self.step(span.touch, span.address(self.h, obj), max(arg, 1))
                    yield d["touched"] * PRICES["first_touch"]
            if variable == NO_OBJ:
                continue
            table = self.shared if flags & SHARED else self.own[t]
            held, table[variable] = table.get(variable, 0), obj
            if held:
                begun = self.now
                yield from self.free(t, held)
                self.log.append((self.now, t, True, int(held), self.now - begun))


def state(heap):
    """What a heap is at its end, apart from the sizes of its tables."""
    lists, rows = heap.arrays["free_lists"], heap.arrays["central"]
    return {
        "pages": page_map(heap),
        "figures": numeric_properties(heap),
        "lists": [lists[name].tolist() for name in ("head", "length", "low_water", "max_length", "overages")],
        "caches": [heap.arrays["threads"][name].tolist() for name in ("cached", "max_size")],
        "slots": [rows.slots[cl][: rows.used_slots[cl]].tolist() for cl in range(NUM_CLASSES)],
        "cache_sizes": rows.cache_size.tolist(),
        "scalars": {name: int(heap.fields[name]) for name in SCALARS},
        "resident": int(heap.fields.resident_pages),
    }


def main():
    answers = []
    for seed in map(int, sys.argv[1:]):
        oracle = Oracle(seed)
        oracle.run()
        answer = {"log": sorted(oracle.log), "state": state(oracle.heap), "waited": oracle.waited, "seen": oracle.seen}
        answers.append(answer)
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
