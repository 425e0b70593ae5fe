"""Who sweeps what, in which order (mgcsweep.go, mheap.go:reclaim, mcentral.go:cacheSpan), against a slow model.

The model keeps lists of span numbers and reads nothing but the heap at the beginning of a sweep; its rules are written
from Go's source. Operations are chosen by Hypothesis, derandomized: the same everywhere.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import int64, types, void

from sim.costs import CELLS
from sim.go.check import check_heap
from sim.go.collect import mark_at_once
from sim.go.mcentral import cache_span, uncache_span
from sim.go.mgcsweep import deduct_sweep_credit, finish_sweep, gc_pace_sweeper, sweep, sweep_done, sweep_one
from sim.go.mspan import next_free_index
from sim.go.mspanset import place_swept
from sim.go.reclaim import heap_alloc, reclaim
from sim.go.runtime import Heap
from sim.go.sizeclasses import class_to_allocnpages, class_to_size
from sim.go.state import BLOCK_ENTRIES, NEVER, NUM_SPAN_CLASSES, PAGE_SHIFT, SPAN_IN_USE, heap_type
from sim.jit import PLAIN, entry
from sim.units import Throw
from tests.go.heap_ops import drop, flush_all, malloc

PRICE = {False: 7, True: 500_000}  # of a span that stays in use, and of one given back; plus 1000 a span class
SIZES = (16, 48, 1024, 2048, 8192, 32760, 50_000, 5 << 20)


@entry(void(heap_type, int64))
def mark(h, p):
    mark_at_once(h, p)


@entry(int64(heap_type, int64))
def sweep_next(h, p):
    return sweep_one(h, p)


@entry(void(heap_type, int64))
def pace(h, trigger):
    gc_pace_sweeper(h, trigger)


@entry(void(heap_type, int64, int64, int64))
def deduct(h, p, span_bytes, caller_pages):
    deduct_sweep_credit(h, p, span_bytes, caller_pages)


@entry(void(heap_type, int64, int64))
def reclaim_pages(h, p, npages):
    reclaim(h, p, npages)


@entry(int64(heap_type, int64, int64))
def refill(h, p, spc):
    """A refill's search and at once the giving back of what it found; 0 if nothing was."""
    s = cache_span(h, p, spc)
    if s != 0:
        uncache_span(h, p, s)
    return s


@entry(int64(heap_type, int64, int64))
def take(h, p, spc):
    """A refill's search; what it finds is kept."""
    return cache_span(h, p, spc)


@entry(int64(heap_type, int64, int64))
def large(h, p, npages):
    """A large object."""
    deduct_sweep_credit(h, p, npages << PAGE_SHIFT, npages)
    s = heap_alloc(h, p, npages, 0)
    h[0].heap_live += npages << PAGE_SHIFT
    next_free_index(h, s)
    place_swept(h, s)
    return s


@entry(types.boolean(heap_type))
def done(h):
    return sweep_done(h)


@entry(void(heap_type))
def finish(h):
    finish_sweep(h)


@entry(void(heap_type, int64))
def sweep_unacquired(h, s):
    sweep(h, -1, s, False)


def entries(heap, index):
    """A span set's entries in order, stale ones too."""
    queue, blocks = heap.arrays["spansets"][index], heap.arrays["set_blocks"]
    block, found = int(queue.head), []
    for at in range(int(queue.popped), int(queue.pushed)):
        if found and at % BLOCK_ENTRIES == 0:
            block = int(blocks.next[block])
        found.append(int(blocks.entries[block, at % BLOCK_ENTRIES]))
    return found


def sets_page_mark(_first, npages, spc, slots, marked, inline):
    """Whether marking sets the span's page mark: with inline marks, for two objects with pointers at once."""
    size = class_to_size[spc >> 1] if spc > 1 else npages << PAGE_SHIFT
    if inline and 16 <= size <= 512:
        return spc % 2 == 0 and marked > 1
    return marked > 0


class Model:
    """A sweep from its beginning on. ``swept``: span classes' [partial, full] lists; ``unswept`` likewise."""

    def __init__(self, heap):
        spans, sg = heap.arrays["spans"], int(heap.fields.sweepgen)
        self.todo = {int(s) for s in np.flatnonzero((spans.state == SPAN_IN_USE) & (spans.sweepgen == sg - 2))}
        self.span = {}  # number: (first page, pages, span class, slots, marked)
        self.page = {}  # first page of a span in use: its number
        for s in map(int, np.flatnonzero(spans.state == SPAN_IN_USE)):
            one = spans[s]
            words = heap.arrays["words"][int(one.mark_bits) : int(one.mark_bits) + (int(one.nelems) + 63) // 64]
            marked = int(np.bitwise_count(words).sum())
            self.span[s] = int(one.start_page), int(one.npages), int(one.spanclass), int(one.nelems), marked
            self.page[int(one.start_page)] = s
        now = sg >> 1 & 1
        self.swept = [[entries(heap, 4 * c + now), entries(heap, 4 * c + 2 + now)] for c in range(NUM_SPAN_CLASSES)]
        self.unswept = [
            [entries(heap, 4 * c + 1 - now), entries(heap, 4 * c + 3 - now)] for c in range(NUM_SPAN_CLASSES)
        ]
        self.arenas = [int(i) for i in heap.arrays["arenas"]["index"][: int(heap.fields.narenas)]]
        inline = bool(heap.fields.inline_mark_bits)
        self.marked_pages = {one[0] for s, one in self.span.items() if s in self.todo and sets_page_mark(*one, inline)}
        self.pages_in_use = sum(one[1] for one in self.span.values())
        self.pages_swept = int(heap.fields.pages_swept)
        self.order, self.at, self.drained = [], 0, False  # (span, given back), in the order of sweeping
        self.per_byte, self.live, self.live_basis, self.pages_basis = 0.0, int(heap.fields.heap_live), 0, 0
        self.credit, self.index = 0, 0

    def sweep(self, s, preserve):
        """Pages given back."""
        self.todo.remove(s)
        first, npages, spc, slots, marked = self.span[s]
        free = marked == 0 and not preserve
        self.order.append((s, free))
        self.pages_swept += npages
        if free:
            self.pages_in_use -= npages
            del self.page[first]
        elif not preserve:
            self.swept[spc][marked == slots].append(s)
        return npages if free else 0

    def sweep_one(self):
        while not self.drained and self.at < 2 * NUM_SPAN_CLASSES:
            queue = self.unswept[self.at // 2][1 - self.at % 2]
            while queue:
                s = queue.pop(0)
                if s in self.todo:
                    npages = self.sweep(s, False)
                    self.credit += npages
                    return npages
            self.at += 1
        self.drained = True
        return -1

    def pace(self, trigger):
        todo = self.pages_in_use - self.pages_swept
        self.per_byte = 0.0
        if not self.drained and todo > 0:
            self.per_byte = todo / max(trigger - self.live - (1 << 20), 8192)
            self.live_basis, self.pages_basis = self.live, self.pages_swept

    def deduct(self, span_bytes, caller_pages):
        if self.per_byte:
            target = int(self.per_byte * (span_bytes + max(0, self.live - self.live_basis))) - caller_pages
            while target > self.pages_swept - self.pages_basis:
                if self.sweep_one() < 0:
                    self.per_byte = 0.0
                    break

    def reclaim(self, npages):
        while npages > 0 and self.index < NEVER:
            take = min(self.credit, npages)
            self.credit, npages = self.credit - take, npages - take
            if npages == 0:
                return
            if self.index // 8192 >= len(self.arenas):
                self.index = NEVER
                return
            first = self.arenas[self.index // 8192] * 8192 + self.index % 8192
            self.index += 512
            found = 0
            for page in range(first, first + 512):
                s = self.page.get(page)
                if not self.drained and s in self.todo and page not in self.marked_pages:
                    found += self.sweep(s, False)
            self.credit += max(found - npages, 0)
            npages = max(npages - found, 0)

    def refill(self, spc):
        self.deduct(class_to_allocnpages[spc >> 1] * 8192, 0)
        found = self.find(spc)
        if found:
            self.swept[spc][0].append(found)
        return found

    def find(self, spc):
        if self.swept[spc][0]:
            return self.swept[spc][0].pop(0)
        budget = 101
        for kind in (0, 1):
            queue = self.unswept[spc][kind]
            while budget and queue:
                budget -= 1
                s = queue.pop(0)
                if s in self.todo:
                    self.sweep(s, True)
                    if kind == 0 or self.span[s][4] < self.span[s][3]:
                        return s
                    self.swept[spc][1].append(s)
        return 0

    def large(self, npages):
        self.deduct(npages * 8192, npages)
        if not self.drained:
            self.reclaim(npages)
        self.live += npages * 8192
        self.pages_in_use += npages

    def entered(self, s, page):
        """The large object got this span, there."""
        self.page[page] = s
        self.swept[0][1].append(s)

    def compare(self, heap):
        fields, spans, sg = heap.fields, heap.arrays["spans"], int(heap.fields.sweepgen)
        left = {int(s) for s in np.flatnonzero((spans.state == SPAN_IN_USE) & (spans.sweepgen == sg - 2))}
        assert left == self.todo
        now = sg >> 1 & 1
        for spc in range(NUM_SPAN_CLASSES):
            for kind in (0, 1):
                assert entries(heap, 4 * spc + 2 * kind + now) == self.swept[spc][kind]
                assert entries(heap, 4 * spc + 2 * kind + 1 - now) == self.unswept[spc][kind]
        assert (int(fields.pages_swept), int(fields.pages_in_use)) == (self.pages_swept, self.pages_in_use)
        assert (int(fields.reclaim_credit), int(fields.reclaim_index)) == (self.credit, self.index)
        assert float(fields.sweep_pages_per_byte) == self.per_byte
        assert bool(fields.sweep_drained) == self.drained == done(heap.header)
        assert int(fields.fact_swept) == len(self.order)
        assert int(fields.fact_swept_free) == sum(free for _, free in self.order)
        assert int(fields.fact_sweep_time) == sum(PRICE[free] + 1000 * self.span[s][2] for s, free in self.order)


def prepared(version, counts, keep, seed):
    """A marked heap, its caches flushed, and its pages in use at mark termination.

    ``counts`` objects of each of SIZES; of 8 runs of 20 about ``keep`` live on, but for one in eight of their objects.
    """
    heap = Heap(version, 2)
    rng = np.random.Generator(np.random.PCG64(seed))
    for size, count in zip(SIZES, counts, strict=True):
        alive = True
        for i in range(count):
            heap.make_room(1 << 10)
            s, slot = malloc(heap.header, i // 40 % 2, size, i // 300 % 2)
            if i % 20 == 0:
                alive = rng.integers(8) < keep
            if not alive or rng.integers(8) == 0:
                drop(heap.header, s, slot)
    in_use = int(heap.fields.pages_in_use)
    mark(heap.header, 0)
    heap.arrays["sweep_kept"][:] = PRICE[False] + 1000 * np.arange(NUM_SPAN_CLASSES)
    heap.arrays["sweep_freed"][:] = PRICE[True] + 1000 * np.arange(NUM_SPAN_CLASSES)
    for name in ("fact_swept", "fact_swept_free", "fact_sweep_time"):
        heap.fields[name] = 0
    return heap, in_use


OPERATIONS = st.one_of(
    st.tuples(st.just("pace"), st.integers(0, 12 << 20)),
    st.tuples(st.just("deduct"), st.sampled_from([8192, 32768, 400_000]), st.integers(0, 50)),
    st.tuples(st.just("reclaim"), st.sampled_from([1, 2, 9, 100, 5000])),
    st.tuples(st.just("refill"), st.sampled_from([4, 5, 10, 11, 64, 65, 102, 103, 134])),
    st.tuples(st.just("large"), st.sampled_from([5, 40, 700])),
    st.tuples(st.just("sweep_one")),
)


def apply(heap, model, op, *args):
    """One operation on both."""
    heap.make_room(1 << 10)
    h = heap.header
    if op == "pace":
        trigger = args[0] + int(heap.fields.heap_live)
        pace(h, trigger)
        model.pace(trigger)
    elif op == "deduct":
        deduct(h, 1, *args)
        model.deduct(*args)
    elif op == "reclaim":
        reclaim_pages(h, 0, *args)
        model.reclaim(*args)
    elif op == "refill":
        assert refill(h, 1, *args) == model.refill(*args)
    elif op == "large":
        s = large(h, 0, *args)
        model.large(*args)
        model.entered(s, int(heap.arrays["spans"].start_page[s]))
    else:
        assert sweep_next(h, 0) == model.sweep_one()


COUNTS = (700, 700, 60, 60, 20, 9, 5, 3) if PLAIN else (4000, 3000, 600, 300, 120, 40, 12, 6)


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
@settings(max_examples=3 if PLAIN else 16, derandomize=True, deadline=None, database=None)
@given(
    seed=st.integers(0, 1 << 16),
    keep=st.integers(0, 8),
    shrink=st.integers(1, 6),
    operations=st.lists(OPERATIONS, min_size=4, max_size=40),
)
def test_the_same_spans_are_swept_in_the_same_order(version, seed, keep, shrink, operations):
    heap, in_use = prepared(version, [n // shrink for n in COUNTS], keep, seed)
    model = Model(heap)
    for operation in [*operations, ("pace", 1 << 20), ("large", 1)]:
        apply(heap, model, *operation)
        model.compare(heap)
        if not PLAIN:
            check_heap(heap)
    while model.sweep_one() >= 0:
        sweep_next(heap.header, 1)
    assert sweep_next(heap.header, 1) == -1
    model.compare(heap)
    assert int(heap.fields.pages_swept) == in_use, "each page in use at mark termination is swept once"
    finish(heap.header)
    check_heap(heap)


def lose_credit(heap):
    heap.fields.reclaim_credit += 1


def skip_a_chunk(heap):
    heap.fields.reclaim_index += 512


def skip_a_class(heap):
    heap.fields.central_index += 1


def mark_a_dead_page(heap):
    arena = heap.arrays["arenas"][0]
    arena["page_marks"][:] = arena["page_in_use"]


def forget_the_marks(heap):
    heap.arrays["arenas"][0]["page_marks"][:] = 0


def count_a_page_twice(heap):
    heap.fields.pages_swept += 1


def double_the_debt(heap):
    heap.fields.sweep_pages_per_byte *= 2


def drain_early(heap):
    heap.fields.sweep_drained = 1


def swap_two_spans(heap):
    for index in range(len(heap.arrays["spansets"])):
        queue = heap.arrays["spansets"][index]
        at = int(queue.popped) % BLOCK_ENTRIES
        if int(queue.pushed) - int(queue.popped) > 1 and at < BLOCK_ENTRIES - 1:
            row = heap.arrays["set_blocks"].entries[int(queue.head)]
            row[at], row[at + 1] = row[at + 1], row[at]


STEPS = [
    ("pace", 4 << 20),
    ("reclaim", 300),
    ("deduct", 400_000, 3),
    ("refill", 4),
    ("large", 40),
    *[("sweep_one",)] * 3,
]


@pytest.mark.parametrize(
    "damage",
    [
        lose_credit,
        skip_a_chunk,
        skip_a_class,
        mark_a_dead_page,
        forget_the_marks,
        count_a_page_twice,
        double_the_debt,
        drain_early,
        swap_two_spans,
    ],
)
def test_the_model_notices_a_sweep_that_goes_wrong(damage):
    heap, _ = prepared("go1.27", COUNTS, 4, 1)
    model = Model(heap)
    for step in STEPS:
        apply(heap, model, *step)
        model.compare(heap)
    heap, _ = prepared("go1.27", COUNTS, 4, 1)
    model = Model(heap)
    with pytest.raises(AssertionError):
        for step in STEPS:
            apply(heap, model, *step)
            if step[0] == "pace":
                damage(heap)
            else:
                model.compare(heap)


def filled(nspans, dead):
    """Full spans of four 2048-byte objects in 8 KiB each, marked; all of the spans in ``dead`` are wholly dead."""
    heap = Heap("go1.19", 1)
    for i in range(4 * nspans):
        heap.make_room(1 << 10)
        s, slot = malloc(heap.header, 0, 2048, 1)
        if i // 4 in dead:
            drop(heap.header, s, slot)
    flush_all(heap.header)
    mark(heap.header, 0)
    return heap


SPC = 77  # 2048 bytes without pointers


@pytest.mark.parametrize(("full", "swept", "found"), [(99, 100, True), (100, 101, True), (101, 101, False)])
def test_a_refill_looks_at_101_spans(full, swept, found):
    heap = filled(full + 1, {full})
    assert (refill(heap.header, 0, SPC) != 0) == found
    assert int(heap.fields.fact_swept) == swept


def test_entries_of_reclaimed_spans_cost_budget_too():
    heap = filled(102, set(range(102)))
    reclaim_pages(heap.header, 0, 101)
    assert int(heap.fields.fact_swept_free) == 102, "the reclaimer finishes its chunk"
    assert int(heap.fields.reclaim_credit) == 1
    assert refill(heap.header, 0, SPC) == 0
    assert [len(entries(heap, 4 * SPC + kind)) for kind in range(4)] in ([0, 0, 0, 1], [0, 0, 1, 0])
    assert sweep_next(heap.header, 0) == -1, "the last entry is stale as well"
    check_heap(heap)


def test_credit_is_used_before_the_search_goes_on():
    heap = filled(40, set(range(40)))
    for npages in range(1, 4):
        assert sweep_next(heap.header, 0) == 1
        assert int(heap.fields.reclaim_credit) == npages
    reclaim_pages(heap.header, 0, 3)
    assert (int(heap.fields.reclaim_credit), int(heap.fields.reclaim_index)) == (0, 0)
    reclaim_pages(heap.header, 0, 1)
    assert (int(heap.fields.reclaim_credit), int(heap.fields.reclaim_index)) == (36, 512)
    assert int(heap.fields.fact_reclaim_chunks) == 1


def test_all_is_swept_a_mebibyte_before_the_trigger():
    heap = filled(1000, ())
    live = int(heap.fields.heap_live)
    distance = 10 << 20
    pace(heap.header, live + distance + (1 << 20))
    for grown in range(0, distance, 64 << 10):
        heap.fields.heap_live = live + grown
        deduct(heap.header, 0, 8192, 0)
        assert int(heap.fields.pages_swept) == 1000 * (grown + 8192) // distance
    heap.fields.heap_live = live + distance
    deduct(heap.header, 0, 8192, 0)
    assert int(heap.fields.pages_swept) == 1000
    deduct(heap.header, 0, 16384, 0)
    assert done(heap.header), "one page more is owed, and found to be the end"
    assert float(heap.fields.sweep_pages_per_byte) == 0.0


def test_a_heap_that_shrank_owes_for_the_span_alone():
    heap = filled(1000, ())
    pace(heap.header, int(heap.fields.heap_live) + (11 << 20))
    heap.fields.heap_live -= 1 << 20
    deduct(heap.header, 0, 1 << 20, 60)
    assert int(heap.fields.pages_swept) == 1000 // 10 - 60


def test_a_sweep_held_open_is_not_done():
    heap = filled(3, ())
    heap.fields.sweepers = 1
    while sweep_next(heap.header, 0) >= 0:
        pass
    assert heap.fields.sweep_drained
    assert int(heap.fields.fact_drained) == 1
    assert not done(heap.header)
    with pytest.raises(Throw, match="active sweepers"):
        finish(heap.header)
    heap.fields.sweepers = 0
    assert done(heap.header)
    assert sweep_next(heap.header, 0) == -1
    assert int(heap.fields.fact_drained) == 1, "only the first to find nothing wakes the scavenger"
    finish(heap.header)


def test_what_must_not_be_throws():
    heap = filled(3, ())
    with pytest.raises(Throw, match="non-empty span set"):
        finish(heap.header)
    with pytest.raises(Throw, match="nobody acquired"):
        sweep_unacquired(heap.header, int(np.flatnonzero(heap.arrays["spans"].state == SPAN_IN_USE)[0]))


def test_before_the_first_cycle_nothing_is_swept_or_reclaimed():
    heap = Heap("go1.27", 1)
    assert done(heap.header)
    malloc(heap.header, 0, 64, 1)
    assert sweep_next(heap.header, 0) == -1
    pace(heap.header, 4 << 20)
    deduct(heap.header, 0, 1 << 30, 0)
    assert int(heap.fields.fact_swept) == int(heap.fields.reclaim_index) == 0


def test_beside_other_work_the_first_span_since_the_last_were_paid_takes_longer():
    """Three spans in a row, then somebody pays: whatever their class, each takes what is drawn for its place and end."""
    heap, _ = prepared("go1.27", COUNTS if PLAIN else [n // 4 for n in COUNTS], 4, seed=1)
    took = {("first", 0): 1009, ("first", 1): 1013, ("next", 0): 101, ("next", 1): 103}
    heap.arrays["swept_cells"][:] = np.repeat(list(took.values()), CELLS)
    heap.fields.swept_told = 1
    seen = set()
    for i in range(200):
        if i % 3 == 0:
            heap.fields.fact_sweep_time = 0
        before = int(heap.fields.fact_sweep_time)
        pages = sweep_next(heap.header, 0)
        if pages < 0:
            break
        place = ("next" if i % 3 else "first", int(pages > 0))
        assert int(heap.fields.fact_sweep_time) - before == took[place]
        seen.add(place)
    assert seen == set(took)


def test_a_refill_that_sweeps_the_span_it_takes_pays_for_both_at_once_and_for_spans_without_room_apart():
    heap, _ = prepared("go1.27", COUNTS if PLAIN else [n // 4 for n in COUNTS], 2, seed=1)
    heap.arrays["swept_cells"][:] = 100
    heap.fields.swept_told = heap.fields.unswept_told = 1
    seen = set()
    for spc in range(2, NUM_SPAN_CLASSES):
        s = 1
        while s:
            unswept = heap.arrays["spans"].sweepgen == heap.fields.sweepgen - 2
            before = int(heap.fields.fact_swept)
            heap.fields.fact_sweep_time = heap.fields.fact_took_unswept = 0
            s = take(heap.header, 0, spc)
            swept, took = int(heap.fields.fact_swept) - before, int(heap.fields.fact_took_unswept)
            assert took == (s > 0 and unswept[s])
            assert int(heap.fields.fact_sweep_time) == 100 * (swept - took)
            seen.add((took, min(swept, 2)))
    assert seen >= {(1, 1), (1, 2), (0, 0)}
