"""Prices add up: a slow oracle says what each malloc costs by cause, and every picosecond is found again.

The oracle runs the same operations on a second heap without a clock (tests/go/heap_ops.py), reads there what the rooms
report (spans made, pages grown, levels walked, metadata touched), keeps its own set of touched pages and its own tiny
blocks, and multiplies by prices that do not vary. Varying prices are held to the sums alone.
"""

import random
from dataclasses import replace

import numpy as np
import pytest

import sim.go.proc
from sim.costs import Price
from sim.go.collect import collect_at_once
from sim.go.runtime import Heap
from sim.go.sizeclasses import class_to_size
from sim.go.state import CAUSES, HIT_APART, HIT_CLEARED, HIT_FEW, HIT_FRESH, HIT_KINDS, HIT_MARKING, HIT_SOME
from sim.go.world import World
from sim.jit import PLAIN
from sim.metrics.histogram import BUCKETS, bucket_top
from sim.ops import ALLOC, COMPUTE, DEAD, NEEDZERO, NO_OBJ, NOSCAN, OP, TOUCH
from sim.units import MS, NS, US
from tests.go import stack_ops
from tests.go.heap_ops import FRESH, HIT, PARTIAL, STEPS, malloc_by_steps
from tests.go.prices import made_up_prices

VERSIONS = ("go1.14", "go1.19", "go1.27")
SMALL = [1, 3, 4, 7, 8, 8, 12, 15, 16, 16, 24, 64, 64, 200, 500, 512, 513, 600, 1016, 1024, 3000, 9000]
LARGE = [32760, 32761, 40000, 130_000, 1 << 20]
HUGE = [5 << 20, 9 << 20]
CHUNK = 256 << 10  # bytes cleared at once
VARIABLES = 40
FAULT_LATER = ("touch_5us", "touch_20us", "touch_100us")
COUNTS = ("fact_meta_pages", "nchunks", "narenas")


def fixed_prices(version):
    """The made-up prices, none of them varying, nor any page fault longer after other work: the oracle has no clock."""
    prices = made_up_prices(version)
    return replace(
        prices,
        steps={name: Price(0 if name in FAULT_LATER else price.mean) for name, price in prices.steps.items()},
        refill_fresh=tuple(Price(price.mean) for price in prices.refill_fresh),
    )


def random_batch(rng, n):
    ops = np.zeros(n, OP)
    for i in range(n):
        what = rng.random()
        if what < 0.80:
            flags = rng.choice((0, NOSCAN)) | rng.choice((0, NEEDZERO)) | rng.choice((0, 0, TOUCH))
            sizes = SMALL if rng.random() < 0.96 else LARGE if rng.random() < 0.9 else HUGE
            size = rng.choice(sizes)
            obj = rng.choice((NO_OBJ, *[rng.randrange(VARIABLES) for _ in range(5)]))
            ops[i] = (ALLOC, flags, obj, size, 0 if flags & NOSCAN else 8)
        elif what < 0.95:
            ops[i] = (DEAD, 0, rng.randrange(VARIABLES), 0, 0)
        else:
            ops[i] = (COMPUTE, 0, 0, rng.choice((5 * NS, 700 * NS, 3000 * NS)), 0)
    return ops


def hit(prices, spc, kind):
    """A hit of memory that needs no clearing, of one cleared right after another malloc, or with other work between, by how
    many mallocs of other kinds there were."""
    (heap,) = prices.heaps
    return {
        HIT_FRESH: prices.fast[spc],
        HIT_CLEARED: prices.fast[spc] + heap.zero[spc],
        HIT_APART: heap.hit[spc].mean,
        HIT_SOME: heap.hit_some[spc].mean,
        HIT_FEW: heap.hit_few[spc].mean,
    }[kind]


class Oracle:
    """What each operation must cost, from the facts of a heap without a clock."""

    def __init__(self, version, prices):
        self.heap = Heap(version, 1)
        self.begin()
        self.facts = self.heap.facts
        self.prices = prices
        self.mean = {name: price.mean for name, price in prices.steps.items()}
        self.touched = set()
        self.tiny = None  # bytes used of the current tiny block
        self.rest = 0  # femtoseconds
        self.mallocs = []  # by cause, of each that was not fast or combined
        self.fast = {}  # (span class, kind of hit) -> calls
        self.combined = self.compute = self.seen = self.program = 0
        self.order = []  # of all mallocs, the span class that each took a slot from, None if from none

    def begin(self):
        """The stacks of the world's goroutine, which nobody in the program starts, and of its thread's signal handler."""
        self.heap.tables.allocate("goroutines", 4)
        stack_ops.newproc(self.heap.header, -1)
        self.heap.arrays["procs"]["gsignal_stack"] = stack_ops.stackalloc(self.heap.header, 0, 32 << 10)

    def run(self, ops):
        for op in ops:
            if op["kind"] == COMPUTE:
                self.compute += int(op["arg"])
            elif op["kind"] == ALLOC:
                self.alloc(int(op["arg"]), int(op["flags"]))

    def collect(self, world):
        """Collect both heaps; what is dead in the other is dead here."""
        n = int(world.heap.fields.nwords)
        assert n == self.heap.fields.nwords
        self.heap.arrays["words"][:n] = world.heap.arrays["words"][:n]
        collect_at_once(self.heap.header, 0)
        collect_at_once(world.heap.header, 0)
        self.tiny = None

    def alloc(self, size, flags):
        noscan, needzero = bool(flags & NOSCAN), bool(flags & NEEDZERO)
        tiny = noscan and size < 16
        if tiny and self.tiny is not None:
            align = 8 if size % 8 == 0 else 4 if size % 4 == 0 else 2 if size % 2 == 0 else 1
            at = -(-self.tiny // align) * align
            if at + size <= 16:
                self.tiny = at + size
                self.combined += 1
                self.order.append(None)
                return
        if tiny and (self.tiny is None or size < self.tiny):
            self.tiny = size
        self.heap.make_room(size >> 13)
        fields = self.heap.fields
        before = {name: int(fields[name]) for name in COUNTS}
        s, slot, *steps = map(int, malloc_by_steps(self.heap.header, 0, size, int(noscan)))
        did = dict(zip(STEPS, steps, strict=True)) | {name: int(fields[name]) - before[name] for name in COUNTS}
        span = self.heap.arrays["spans"][s]
        spent = dict.fromkeys(CAUSES, 0)
        if did["source"] != HIT:
            self.refill(spent, span, did)
        if size <= self.facts.max_small_size:
            cleared = bool(span["needzero"]) and (needzero or tiny)
            self.place(spent, span, slot, did["source"] != HIT, tiny, cleared)
            self.seen = None if flags & TOUCH else self.compute
        else:
            self.place_large(spent, span, size, noscan, bool(span["needzero"]) and needzero)
        self.order.append(int(span["spanclass"]) if size <= self.facts.max_small_size else None)
        if flags & TOUCH:
            self.program += self.touch(span, slot * int(span["elemsize"]), size)

    def refill(self, spent, span, did):
        """A span with room, or pages and a record for a new one, and what of it is touched first."""
        spc, mean = int(span["spanclass"]), self.mean
        if spc >= 2 and self.facts.mcentral_mutex:  # to take a span with room, and to enter a fresh one
            spent["central_wait"] = mean["central"] * (2 if did["source"] == FRESH else 1)
        spent["first_touch"] = did["fact_meta_pages"] * mean["meta_touch"]
        if did["source"] == PARTIAL:
            spent["refill_partial"] = self.prices.heaps[0].refill_partial[spc].mean
            return
        level = mean["page_level"]
        spent["page_cache"] = did["cache_refills"] * mean["page_cache_refill"] + did["cache_levels"] * level
        spent["page_search"] = did["searches"] * mean["page_alloc"] + did["search_levels"] * level
        spent["page_search"] += did["record_refills"] * mean["mspan_refill"]
        spent["grow"] = (did["nchunks"] > 0) * mean["grow"] + did["narenas"] * mean["grow_arena"]
        if spc < 2:
            spent["large"] = mean["large"]
            return
        spent["refill_fresh"] = self.prices.refill_fresh[spc].mean
        nbytes = int(span["npages"]) << 13
        used = int(span["nelems"] * span["elemsize"])
        if self.facts.inline_mark_bits and span["elemsize"] <= 512 and used < nbytes:
            spent["first_touch"] += self.touch(span, nbytes - 1, 1)

    def place(self, spent, span, slot, refilled, tiny, cleared):
        spc, size = int(span["spanclass"]), int(span["elemsize"])
        faults = 0
        if cleared or tiny:
            faults = self.touch(span, slot * size, size)
        elif self.facts.malloc_header and not spc & 1 and size > 512:
            faults = self.touch(span, slot * size, 8)
        kind = (self.apart(spc, refilled) if self.compute != self.seen else HIT_CLEARED) if cleared else HIT_FRESH
        if not refilled and not faults:
            self.fast[spc, kind] = self.fast.get((spc, kind), 0) + 1
            return
        whole = hit(self.prices, spc, kind)
        spent["first_touch"] += faults
        spent["fast"] += min(whole, self.prices.fast[spc])
        spent["zero"] += max(0, whole - self.prices.fast[spc])
        self.mallocs.append(spent)

    def apart(self, spc, refilled):
        """Right after 7 others at most, after 31 at most, or neither; a span that is new is none of the last ones."""
        if refilled:
            return HIT_APART
        return HIT_FEW if spc in self.order[-8:] else HIT_SOME if spc in self.order[-32:] else HIT_APART

    def place_large(self, spent, span, size, noscan, cleared):
        spent["large"] += self.by_bytes(size, self.prices.large_fresh[noscan])
        if cleared:
            chunked = noscan or self.facts.clears_scan_in_chunks
            for at in range(0, size, CHUNK if chunked else size):
                n = min(size - at, CHUNK if chunked else size)
                spent["zero"] += self.by_bytes(n, self.prices.large_zero[noscan])
                spent["first_touch"] += self.touch(span, at, n)
        self.mallocs.append(spent)

    def by_bytes(self, n, rate):
        whole, self.rest = divmod(n * rate + self.rest, 1000)
        return whole

    def touch(self, span, offset, n):
        """Picoseconds of faults; in old versions a whole 2 MiB at once where the span covers it."""
        start = int(span["start_page"]) << 1
        end = start + (int(span["npages"]) << 1)
        first = (int(span["start_page"]) << 13) + offset
        cost = 0
        for page in range(first >> 12, ((first + n - 1) >> 12) + 1):
            if page in self.touched:
                continue
            huge = page - page % 512
            if self.facts.huge_page_advice and start <= huge and huge + 512 <= end:
                self.touched.update(range(huge, huge + 512))
                cost += self.mean["huge_touch"]
            else:
                self.touched.add(page)
                cost += self.mean["first_touch"]
        return cost


def bucket(value):
    """The only bucket whose top is the first at or above a value."""
    shift = max(value.bit_length() - 11, 0)
    found = (shift << 10) + (value >> shift)
    assert bucket_top(found) >= value and (found == 0 or bucket_top(found - 1) < value)
    return found


def run(version, prices, seed, oracle=None, batches=12, n=1500, runs_ahead=True):
    """A goroutine that runs random batches and now and then a collection; its world, and when it began and ended."""
    world = World(version, 1, prices, seed, run_ahead=runs_ahead, gogc=-1)
    rng = random.Random(seed)
    times = []

    def body(g):
        times.append(world.now)
        for i in range(batches):
            ops = random_batch(rng, n)
            yield g.run(ops, VARIABLES)
            if oracle:
                oracle.run(ops)
            if i % 4 == 3:
                times.append(world.now)
                if oracle:
                    oracle.collect(world)
                else:
                    collect_at_once(world.heap.header, 0)
        times.append(world.now)

    world.run(until=world.go(body))
    return world, times[0], times[-1]


@pytest.fixture(autouse=True)
def no_preemption(monkeypatch):
    monkeypatch.setattr(sim.go.proc, "TIME_SLICE", 1 << 50)


def check(world, oracle):
    """The histograms, rows and sums of the world are the oracle's."""
    arrays = world.heap.arrays
    assert world.heap.fields.tiny_calls == oracle.combined
    calls = {divmod(i, HIT_KINDS): int(count) for i, count in enumerate(arrays["fast_calls"]) if count}
    assert calls == oracle.fast
    for cause, name in enumerate(CAUSES):
        spent = [sum(m.values()) if name == "all" else m[name] for m in oracle.mallocs]
        spent = [one for one in spent if one or name == "all"]
        assert int(arrays["cause_time"][cause]) == sum(spent), name
        assert int(arrays["cause_max"][cause]) == max(spent, default=0), name
        counts = np.bincount([bucket(one) for one in spent], minlength=BUCKETS)
        assert np.array_equal(arrays["histograms"][cause * BUCKETS :][:BUCKETS], counts), name
    proc = arrays["procs"][0]
    assert (int(proc["touch_time"]), int(proc["compute_time"])) == (oracle.program, oracle.compute)


SCALE = {"batches": 4, "n": 60} if PLAIN else {}


COLLECTOR = {"assist", "assist_parked", "sweep", "stw", "gc_worker"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("seed", range(3))
def test_every_malloc_costs_what_the_oracle_says(version, seed):
    prices = fixed_prices(version)
    oracle = Oracle(version, prices)
    world, _, _ = run(version, prices, seed, oracle, **SCALE)
    check(world, oracle)
    if not PLAIN:
        seen = {name for m in oracle.mallocs for name, spent in m.items() if spent}
        never = {"all", "tiny", "heap_wait", "off_p", "profile", "scavenge"} | COLLECTOR | (set() if version == "go1.14" else {"central_wait"})
        assert seen == set(CAUSES) - never


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("runs_ahead", [True, False])
def test_sums(version, runs_ahead):
    """Causes sum to the whole; the P's time is that of mallocs, locks, computes and touches; each malloc is counted."""
    prices = made_up_prices(version)
    scale = {"batches": 2, "n": 60} if PLAIN else {"batches": 6, "n": 800}
    world, begin, end = run(version, prices, 5, runs_ahead=runs_ahead, **scale)
    arrays, sched = world.heap.arrays, world.sched.procs[0]
    times, counts = arrays["cause_time"], arrays["histograms"].reshape(-1, BUCKETS)
    proc = arrays["procs"][0]
    calls = arrays["fast_calls"].reshape(-1, HIT_KINDS)[:, :HIT_MARKING]
    assert PLAIN or calls.sum(axis=0).all()
    fast = sum(int(n) * hit(prices, i, kind) for i, row in enumerate(calls) for kind, n in enumerate(row))
    tiny = int(world.heap.fields.tiny_calls)
    whole = int(times[0]) + fast + tiny * prices.steps["tiny"].mean
    assert int(times[0]) == int(times[1:].sum())
    assert int(proc["malloc_time"]) + sched.times()["lock"] == whole
    assert end - begin == whole + int(proc["compute_time"]) + int(proc["touch_time"])
    assert int(counts[0].sum()) + int(calls.sum()) + tiny == int(proc["mallocs"])
    assert min(tiny, int(calls.sum()), int(counts[0].sum()), int(proc["touch_time"])) > 0


CHANGED = ["tiny", "page_cache_refill", "page_alloc", "page_level", "mspan_refill", "grow", "grow_arena", "first_touch"]


@pytest.mark.parametrize("step", [*CHANGED, "meta_touch", "large", "central", "huge_touch"])
def test_a_picosecond_more_is_noticed(step):
    if PLAIN and step in ("page_cache_refill", "mspan_refill", "grow_arena"):
        pytest.skip("in so short a run the goroutine's stack pays for them")
    version = {"central": "go1.14", "huge_touch": "go1.19"}.get(step, "go1.27")
    prices = fixed_prices(version)
    more = replace(prices, steps={**prices.steps, step: Price(prices.steps[step].mean + 1)})
    oracle = Oracle(version, prices)
    world, begin, end = run(version, more, 0, oracle, **SCALE)
    if step == "tiny":  # combined objects are counted, not entered: their price is in the P's time
        check(world, oracle)
        slow = sum(sum(m.values()) for m in oracle.mallocs)
        fast = sum(n * hit(prices, i, kind) for (i, kind), n in oracle.fast.items())
        rest = end - begin - slow - fast - oracle.compute - oracle.program
        assert rest == oracle.combined * (prices.steps["tiny"].mean + 1)
    elif not PLAIN or step not in ("huge_touch", "page_level"):
        with pytest.raises(AssertionError):
            check(world, oracle)


@pytest.mark.parametrize(("size", "ptr_bytes"), [(1024, 1024), (2048, 2048), (1000, 8), (640, 320), (1016, 1016), (520, 16)])
def test_a_slot_with_a_header_is_scanned_to_its_end(size, ptr_bytes):
    """Against the walk word by word: elements of the type one after the other, as long as the slot is."""
    slot = next(one for one in class_to_size if one >= size + 8)
    pointers = [at for at in range(8, slot, 8) if (at - 8) % size < ptr_bytes]
    ops = np.zeros(1, OP)
    ops[0] = (ALLOC, NEEDZERO, NO_OBJ, size, ptr_bytes)

    def program(g):
        yield g.run(ops)

    world = World("go1.27", 1, made_up_prices("go1.27"), seed=1)
    world.go(program)
    world.run()
    assert world.heap.arrays["scan_bytes"].sum() == pointers[-1] + 8
    assert world.heap.arrays["scan_read"].sum() == 8 * len(pointers)


@pytest.mark.parametrize(("worked", "more"), [(0, 0), (2, 40), (5, 100), (10, 200), (20, 400), (60, 600), (100, 800), (900, 800)])
def test_a_page_fault_takes_longer_after_other_work(worked, more):
    """On lines through 100 ns after 5 us, 400 after 20 and 800 after 100, but for what the malloc itself took."""
    steps = {**fixed_prices("go1.27").steps, **dict(zip(FAULT_LATER, (Price(n * NS) for n in (100, 400, 800)), strict=True))}
    world = World("go1.27", 1, replace(fixed_prices("go1.27"), steps=steps), seed=1, gogc=-1)
    seen = []
    ops = np.zeros(3, OP)
    ops["obj"] = NO_OBJ
    ops[0] = ops[2] = (ALLOC, NOSCAN | TOUCH, NO_OBJ, 4096, 0)  # of one span, a page each
    ops[1] = (COMPUTE, 0, NO_OBJ, worked * US, 0)

    def program(g):
        for part in (ops[:1], ops[1:]):
            yield g.run(part)
            seen.append(int(world.heap.arrays["procs"][0]["touch_time"]))

    world.go(program)
    world.run()
    took = seen[1] - seen[0] - steps["first_touch"].mean
    assert more * NS <= took <= (more + 2) * NS


def test_a_slice_that_ends_in_a_refill_is_noticed_in_it(monkeypatch):
    """Two goroutines whose every malloc takes a new span and more time than all else: each slice ends in one."""
    monkeypatch.setattr(sim.go.proc, "TIME_SLICE", MS // 20)
    monkeypatch.setattr(sim.go.proc, "TIMER_SLACK", 0)
    world = World("go1.27", 1, fixed_prices("go1.27"), seed=1, gogc=-1)
    ops = np.zeros(400, OP)
    ops[:] = (ALLOC, NOSCAN, NO_OBJ, 32 << 10, 0)

    def program(g):
        yield g.run(ops)

    for _ in range(2):
        world.go(program)
    world.run()
    off = world.heap.arrays["histograms"].reshape(-1, BUCKETS)[CAUSES.index("off_p")]
    time_slice = 2 * (MS // 20 + world.prices.lock.wake_latency_10ms)
    slices = world.now // time_slice
    assert slices // 2 <= off.sum() <= slices
    assert world.heap.arrays["cause_max"][CAUSES.index("off_p")] >= time_slice
