"""A simulated Go program: heap, Ps, locks, prices and streams on one clock; where an experiment begins.

    world = World("go1.27", gomaxprocs=8, prices=prices, seed=1)

    def worker(g, n):
        for _ in range(n):
            obj = yield g.malloc(64)
            yield g.drop(obj)

    world.go(worker, 1000)
    world.run(until=1 * SEC)

Everything random comes from named streams of the seed, so that the same arguments give the same run, to the byte.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
import simpy

from sim.costs import (
    CELLS,
    IN_ORDER,
    STEPS,
    HeapPrices,
    MarkPrices,
    Price,
    Prices,
    allocating,
    between,
    mark_between,
    mark_placed,
    of_procs,
    place,
    smallness,
)
from sim.engine import clock
from sim.engine.lock import LockOrder, TimedLock
from sim.engine.rng import Stream
from sim.go.goroutine import Body, Goroutine
from sim.go.heaplock import HeapLock
from sim.go.mallocspan import NEAR_WHOLE
from sim.go.metrics import settle_hits
from sim.go.mgc import Collector
from sim.go.newstack import Stacks
from sim.go.params import VERSIONS, Facts
from sim.go.pumpcalls import start_profile
from sim.go.roots import Roots
from sim.go.runtime import Heap
from sim.go.scalars import NUM_STACK_ORDERS
from sim.go.sched import Sched
from sim.go.sizeclasses import MIN_SIZE_FOR_MALLOC_HEADER, class_to_size
from sim.go.state import (
    HIT_APART,
    NUM_CAUSES,
    NUM_SPAN_CLASSES,
    PRICE_FRESH,
    PRICE_FRESH_APART,
    PRICE_PARTIAL,
    PRICE_STEPS,
    PRICE_UNSWEPT,
)
from sim.go.timers import Timers
from sim.metrics.histogram import BUCKETS
from sim.metrics.timeline import Timeline
from sim.units import US, throw

MAX_RUN_AHEAD = 1 * US
FEWEST_MALLOCS = 1000  # between two collections, by which who allocates is judged
_L = TypeVar("_L", bound=TimedLock)
_Between = tuple[HeapPrices, HeapPrices, Fraction]  # two measured heaps that one lies between, and where
# a refill may take mheap.lock with none of mcentral's held; a stack pool takes it inside its own (lockrank.go)
_SCHED_RANK, _CENTRAL_RANK, _POOL_RANK, _HEAP_RANK = 5, 10, 15, 20
_PLACED = PRICE_STEPS - PRICE_PARTIAL  # rows of prices that change with the heap


def install_prices(heap: Heap, prices: Prices) -> None:
    """Write prices into a heap's tables."""
    tables, fields = heap.tables, heap.fields
    tables.allocate("fast_price", NUM_SPAN_CLASSES)[:] = prices.fast
    listed: dict[int, Price] = {PRICE_STEPS + i: prices.steps[name] for i, name in enumerate(STEPS)}
    listed |= {PRICE_FRESH + i: price for i, price in enumerate(prices.refill_fresh)}
    rows = tables.allocate("prices", PRICE_STEPS + len(STEPS))
    # refills, but for those with fresh spans in a loop, change with the heap (World.price_heap): a row of cells each
    rows["row"][PRICE_PARTIAL:PRICE_STEPS] = np.arange(_PLACED)
    varying: dict[tuple[int, ...], int] = {}
    for index, price in listed.items():
        rows["mean"][index] = price.mean
        rows["row"][index] = (
            -1 if price.cells is None else varying.setdefault(price.cells, _PLACED + len(varying))
        )
    cells = tables.allocate("cells", CELLS * (_PLACED + len(varying)))
    if varying:
        cells[CELLS * _PLACED :] = np.concatenate([np.array(x, np.int64) for x in varying])
    tables.allocate("sweep_kept", NUM_SPAN_CLASSES)[:] = prices.sweep_kept
    tables.allocate("sweep_freed", NUM_SPAN_CLASSES)[:] = prices.sweep_freed
    fields.large_fresh_scan, fields.large_fresh_noscan = prices.large_fresh
    fields.large_zero_scan, fields.large_zero_noscan = prices.large_zero
    fields.stack_copy_small, fields.stack_copy_middle, fields.stack_copy_large = prices.stack_copy


def _values(price: Price) -> Any:
    """The equally likely values of a price."""
    return np.full(CELLS, price.mean) if price.cells is None else np.array(price.cells)


def _cells(low: Price, high: Price, at: Fraction) -> Any:
    """The equally likely values of a price between two, quantile by quantile."""
    return between(_values(low), _values(high), at)


def _blended(heaps: Sequence[_Between], small: Fraction, of: Callable[[HeapPrices], Any]) -> Any:
    """Something of the prices of heaps: between two measured ones, and then between objects of all sizes and small ones."""
    all_sizes, small_ones = (between(of(low), of(high), at) for low, high, at in heaps)
    return between(all_sizes, small_ones, small)


def _count_allocating(made: Sequence[int]) -> int:
    """On how many Ps about as many mallocs were made: as many equal shares are as concentrated (1 / sum of squares).

    A goroutine that went from one P to another counts on both: so does what it left in the one's caches.
    """
    squares = sum(n * n for n in made)
    return (2 * sum(made) ** 2 + squares) // (2 * squares)


class World:
    """One simulated program. ``env`` is its SimPy environment, whose time is integer picoseconds.

    ``cpus``: CPUs of the machine, by default one for every P. ``max_run_ahead``: how long a P runs before it waits for
    the others, picoseconds; a stop-the-world waits that long for an allocating P at most. ``run_ahead=False`` makes
    every operation an event (slow, for tests). ``gogc``: GOGC, -1 for off; ``memory_limit``: GOMEMLIMIT, bytes.
    ``heap_shape``: which of the machine's measured heaps marking costs as much as (`Prices.mark`). ``in_order``: of a
    shuffled array, the share of objects that are found in the order of their allocation, one part of it (where they take
    turns with others, four of five, `mixed` took 0.43 to 0.55 of all that order saves). ``globals_bytes``:
    the program's globals with pointers. ``memprofilerate``: mean bytes between heap-profile samples, 0 for no
    profile. ``write_barriers``: what they take while the collector marks is not part of what the program computes, and comes
    on top of it. ``log_lines``: room for a log of what happened, for tests. ``timeline``: takes slices of what Ps, collector and locks do.
    """

    def __init__(
        self,
        version: str | Facts,
        gomaxprocs: int,
        prices: Prices,
        seed: int,
        *,
        cpus: int | None = None,
        max_run_ahead: int = MAX_RUN_AHEAD,
        run_ahead: bool = True,
        mcentral_mutex: bool | None = None,
        gogc: int = 100,
        memory_limit: int | None = None,
        heap_shape: str = "array-shuffled",
        in_order: Fraction = Fraction(0),
        globals_bytes: int = 128 << 10,
        memprofilerate: int = 0,
        write_barriers: bool = True,
        log_lines: int = 0,
        timeline: Timeline | None = None,
    ) -> None:
        facts = VERSIONS[version] if isinstance(version, str) else version
        if mcentral_mutex is not None:
            facts = replace(facts, mcentral_mutex=mcentral_mutex)
        facts = replace(facts, dense_scan=facts.dense_scan and prices.wide_vectors)
        self.env = clock.Environment()
        self.seed = seed
        self.prices = prices
        self.heap = Heap(facts, gomaxprocs)
        install_prices(self.heap, prices)
        self._prepare(gomaxprocs, max_run_ahead, run_ahead, log_lines)
        self.roots = Roots(self.heap)
        if memprofilerate:
            self.heap.fields.memprofilerate = memprofilerate
            start_profile(self.heap.header)
        self.lock_order = LockOrder()
        discipline = "spinbit" if facts.spinbit_mutex else "futex"
        self.sched_lock = self._lock("sched.lock", _SCHED_RANK, discipline, TimedLock)
        self._heap_lock = self._lock("mheap.lock", _HEAP_RANK, discipline, HeapLock)
        self.central_locks = [
            self._lock(f"mcentral[{i}].lock", _CENTRAL_RANK, discipline, TimedLock)
            for i in range(NUM_SPAN_CLASSES if facts.mcentral_mutex else 0)
        ]
        if heap_shape not in prices.mark:
            throw(f"heap shape {heap_shape!r} is none of {', '.join(prices.mark)}")
        self._heap_prices, self._small_prices = (
            [allocating(heaps, gomaxprocs, n) for n in range(1, gomaxprocs + 1)]
            for heaps in (prices.heaps, prices.small_heaps or prices.heaps)
        )
        self._mean_sizes = prices.mean_sizes
        self.write_barriers = write_barriers
        self._bytes = 0  # allocated, then
        self._small = Fraction(0)  # how near objects were to small ones only, between the last two times
        self._allocated = np.zeros(gomaxprocs, np.int64)  # mallocs by P, when the heap was priced last
        self._allocating = gomaxprocs  # Ps that made about as many of those before that
        self._refill_fresh = prices.refill_fresh
        self._mark_prices = of_procs(prices.mark[heap_shape], gomaxprocs)
        self._ordered_prices, self._in_order = self._mark_prices, in_order
        if in_order and IN_ORDER in prices.mark:
            self._ordered_prices = of_procs(prices.mark[IN_ORDER], gomaxprocs)
        self.heap.fields.mark_in_order = float(in_order)
        for name, rows in (("zero_price", 1), ("near_share", 1), ("hit_price", 3), ("marking_price", 5)):
            self.heap.tables.allocate(name, rows * NUM_SPAN_CLASSES)
        self.step_means = {name: price.mean for name, price in prices.steps.items()}
        self._placed: Any = None
        self.price_heap(0, 0)
        self.cpus = gomaxprocs if cpus is None else cpus
        self.gc = Collector(self, gogc, memory_limit, globals_bytes, timeline)
        for lock in (self._heap_lock, *self.central_locks):
            self.gc.log.watch_lock(lock)
        if timeline is None:  # which is told of every hold
            key = self.stream("lock/mheap.lock").key
            self._heap_lock.keep_in(self.heap.tables, gomaxprocs, key, lambda: self.sched.driver.rearm())
        self.pool_locks = [
            self._lock(f"stackpool[{i}].mu", _POOL_RANK, discipline, TimedLock) for i in range(NUM_STACK_ORDERS)
        ]
        self.stacks = Stacks(self)
        self.sched = Sched(self, self.cpus)
        self.timers = Timers(self)
        self.sched.start(gomaxprocs)

    def _prepare(self, nprocs: int, max_run_ahead: int, run_ahead: bool, log_lines: int) -> None:
        """The tables and scalars of the clock's side."""
        tables, fields = self.heap.tables, self.heap.fields
        fields.max_run_ahead = max_run_ahead
        fields.event_per_op = not run_ahead
        fields.fact_meta_pages = 0  # touched before the program began
        tables.allocate("histograms", NUM_CAUSES * BUCKETS)
        tables.allocate("cause_time", NUM_CAUSES)
        tables.allocate("cause_max", NUM_CAUSES)
        if log_lines:
            tables.allocate("log", log_lines)
        for index, proc in enumerate(self.heap.arrays["procs"]):
            proc["draw_key"] = self.stream(f"prices/p{index}").key
            proc["sample_key"] = self.stream(f"profile/p{index}").key

    def price_heap(self, nbytes: int, read: int) -> None:
        """From now on clearing and marking cost what they do in a heap of so many bytes, no P being in a malloc.

        Memory comes back to malloc after about so many others, and marking to an object that it reads after ``read`` bytes:
        it is in one cache or another. How many Ps allocate, and how small objects, is what they have done since the last time,
        if that was much; at first all do, of all sizes.
        """
        self._judge_mallocs()
        marking = tuple(mark_placed(one, nbytes, read) for one in (self._mark_prices, self._ordered_prices))
        heaps = tuple(place(one[self._allocating - 1], nbytes) for one in (self._heap_prices, self._small_prices))
        placed = heaps, self._small, marking
        if placed != self._placed:
            settle_hits(self)
            self._placed = placed
            self._price_hits(heaps)
            self._price_refills(*heaps[0])
            self._price_fresh(heaps)
            self._price_marking(*marking)

    def inherited(self) -> None:
        """What is allocated now was there before the program began: no malloc of its own."""
        self._bytes = int(self.heap.fields.total_alloc)

    def _judge_mallocs(self) -> None:
        """How many Ps have allocated since the last time, and how small objects."""
        made = self.heap.arrays["procs"]["mallocs"] - self._allocated
        allocated = int(self.heap.fields.total_alloc) - self._bytes
        self._allocated += made
        self._bytes += allocated
        mallocs = int(made.sum())
        if mallocs >= FEWEST_MALLOCS:
            self._allocating = _count_allocating(made.tolist())
            if self._mean_sizes[1]:
                self._small = smallness(self._mean_sizes, allocated // mallocs)

    def _price_hits(self, heaps: Sequence[_Between]) -> None:
        """What hits cost in the mean by span class, those of each kind after those of the one before."""

        def means_of(heap: HeapPrices) -> Any:
            return np.array([price.mean for row in heap.hits() + heap.hits_marking() for price in row])

        means, arrays = _blended(heaps, self._small, means_of), self.heap.arrays
        arrays["hit_price"][:] = means[: len(arrays["hit_price"])]
        arrays["marking_price"][:] = means[len(arrays["hit_price"]) :]

    def _price_refills(self, low: HeapPrices, high: HeapPrices, at: Fraction) -> None:
        """What clearing in a loop and refills cost by span class, between two measured heaps."""
        arrays = self.heap.arrays
        for spc in range(NUM_SPAN_CLASSES):
            arrays["zero_price"][spc] = between(low.zero[spc], high.zero[spc], at)
        unswept = (heap.refill_unswept or heap.refill_partial for heap in (low, high))
        for first, ends in ((PRICE_PARTIAL, (low.refill_partial, high.refill_partial)), (PRICE_UNSWEPT, unswept)):
            for spc, (one, other) in enumerate(zip(*ends, strict=True)):
                self._price_row(first + spc, between(one.mean, other.mean, at), _cells(one, other, at))
        whole = (NEAR_WHOLE,) * NUM_SPAN_CLASSES
        for spc, (one, other) in enumerate(zip(low.refill_near or whole, high.refill_near or whole, strict=True)):
            arrays["near_share"][spc] = between(one, other, at)
        self._price_sweeps(low, high, at)
        if self.write_barriers:
            self.heap.fields.write_barrier = between(low.write_barrier, high.write_barrier, at)
        if low.stopped is not None and high.stopped is not None:
            for step in ("stw_sweep_term", "stw_mark_term"):
                self.step_means[step] = between(low.stopped, high.stopped, at)

    def _price_fresh(self, heaps: Sequence[_Between]) -> None:
        """What refills with fresh spans cost beside other work."""

        def fresh(heap: HeapPrices) -> Sequence[Price]:
            return heap.refill_fresh or self._refill_fresh

        means = _blended(heaps, self._small, lambda heap: np.array([price.mean for price in fresh(heap)]))
        cells = _blended(heaps, self._small, lambda heap: np.array([_values(price) for price in fresh(heap)]))
        for spc in range(NUM_SPAN_CLASSES):
            self._price_row(PRICE_FRESH_APART + spc, means[spc], cells[spc])

    def _price_row(self, row: int, mean: int, cells: Any) -> None:
        """A price that changes with the heap takes these values."""
        arrays, at = self.heap.arrays, CELLS * (row - PRICE_PARTIAL)
        arrays["prices"]["mean"][row] = mean
        arrays["cells"][at : at + CELLS] = cells

    def _price_sweeps(self, low: HeapPrices, high: HeapPrices, at: Fraction) -> None:
        """What sweeping a span costs between two measured heaps, where that was measured in both."""
        self.heap.fields.unswept_told = bool(low.refill_unswept and high.refill_unswept)
        told = bool(low.swept and high.swept)
        self.heap.fields.swept_told = told
        if told:
            rows = [_cells(one, other, at) for one, other in zip(low.swept, high.swept, strict=True)]
            self.heap.arrays["swept_cells"][:] = np.concatenate(rows)

    def hit_cells(self, kind: int, spc: int) -> Any:
        """Equally likely values of hits of a kind, HIT_APART or a later one, as they are priced now."""
        heaps, small, _ = self._placed
        return _blended(heaps, small, lambda heap: _values((heap.hits() + heap.hits_marking())[kind - HIT_APART][spc]))

    def _price_marking(self, shuffled: MarkPrices, ordered: MarkPrices) -> None:
        """What marking costs by span class: of all in the mean, and of what is found in the order of its allocation."""
        mean = mark_between(shuffled, ordered, self._in_order)
        self.mark_large_byte = int(mean.large_byte)
        told = self.prices.globals_byte
        self.mark_globals_byte = self.mark_large_byte if told is None else told
        self._mark_row(0, mean)
        self._mark_row(NUM_SPAN_CLASSES, ordered)

    def _mark_row(self, first: int, prices: MarkPrices) -> None:
        """Write prices into the row of marking's tables that begins there."""
        arrays = self.heap.arrays

        def price(name: str) -> int:
            return int(getattr(prices, name))

        scan = {
            "small": (price("scan_object"), price("small_byte")),
            "middle": (price("middle_object"), price("middle_byte")),
            "large": (price("scan_object"), price("large_byte")),
        }
        noscan = price("noscan_object")
        for spc in range(NUM_SPAN_CLASSES):
            small = class_to_size[spc >> 1] <= MIN_SIZE_FOR_MALLOC_HEADER
            kind = "large" if spc < 2 else "small" if small else "middle"
            row = first + spc
            arrays["mark_object"][row], arrays["mark_byte"][row] = (noscan, 0) if spc & 1 else scan[kind]

    def _lock(self, name: str, rank: int, discipline: str, kind: type[_L]) -> _L:
        below = self.stream(f"lock/{name}").below if discipline == "spinbit" else None
        return kind(self.env, name, rank, discipline, self.prices.lock, self.lock_order, below)

    @property
    def heap_lock(self) -> HeapLock:
        """mheap.lock as it is now."""
        self._heap_lock.refresh()
        return self._heap_lock

    def lock_granted(self, owner: int) -> simpy.Event:
        """What an owner outside the pump waits for that has mheap.lock now."""
        return self._heap_lock.granted(owner)

    @property
    def now(self) -> int:
        """The current time in picoseconds."""
        return clock.now(self.env)

    @property
    def mallocs(self) -> int:
        """Allocations so far, those that were there before the program began apart."""
        return int(self.heap.arrays["procs"]["mallocs"].sum())

    def stream(self, name: str) -> Stream:
        """The random stream of a component: the same whatever other streams there are."""
        return Stream(self.seed, name)

    def go(self, function: Callable[..., Body], *args: Any, name: str = "", stack: int = 0) -> Goroutine:
        """Start ``function(g, *args)`` as a goroutine from outside the program; ``stack`` as in `Goroutine.go`."""
        g = Goroutine(self, name or function.__name__, function, args, stack)
        g.start()
        return g

    def go_system(self, function: Callable[..., Body], *args: Any, name: str) -> Goroutine:
        """Start a goroutine of the runtime's own, which nobody counts."""
        g = Goroutine(self, name, function, args, system=True)
        g.start()
        return g

    def run(self, until: int | simpy.Event | None = None) -> None:
        """Let time pass: to an integer picosecond, to an event, or until nothing is left to happen.

        What the runtime would do by itself for ever, a collection every two minutes, does not count as left.
        """
        if until is None:
            self.env.run_out()
        else:
            self.env.run(until=until)
