"""Each invariant is broken on purpose, and noticed."""

from itertools import pairwise

import numpy as np
import pytest

from sim.ops import ALLOC, DEAD, OP
from sim.tcmalloc import check as module
from sim.tcmalloc.check import check
from sim.tcmalloc.heap import TCMalloc
from sim.tcmalloc.sizeclasses import NUM_CLASSES, class_to_size
from sim.tcmalloc.state import (
    CACHED,
    IN_USE,
    LIVE,
    NO_THREAD,
    NONEMPTY,
    NORMAL,
    NUM_HEADS,
    ON_NORMAL,
    ON_RETURNED,
    SPARE,
)
from sim.tcmalloc.stats import page_map
from sim.units import Throw

N = 600


@pytest.fixture(scope="module")
def busy():
    """A heap with something in every place: caches, slots, both kinds of lists and sets, spare runs of links."""
    heap = TCMalloc(3)
    for t in range(3):
        heap.new_cache(t)
    rng = np.random.default_rng(5)
    for t in (0, 1, 0, 1):
        ops = np.zeros(N, OP)
        ops["kind"] = np.where(rng.random(N) < 0.6, ALLOC, DEAD)
        ops["obj"] = rng.integers(0, N // 2, N)
        ops["arg"] = np.exp(rng.uniform(0, np.log(1 << 16), N)).astype(np.int64)
        ops["arg"][:: N // 20] = rng.integers(1 << 18, 4 << 20, 20)
        heap.run_ops(t, ops)
        for index in (0, 1, 4, 128, 128):
            heap.fields.scavenge_counter, heap.fields.release_index = 0, index
            heap.free(0, heap.malloc(0, 300_000))
    objects = [heap.malloc(2, 16384) for _ in range(4)]
    for obj in objects:
        heap.free(2, obj)
    objects = [heap.malloc(2, 4608) for _ in range(40)]  # 5 a span
    for obj in objects[::4]:
        heap.free(-1, obj)
    heap.delete_cache(2)
    heap.new_cache(2)
    check(heap)
    kinds = {kind for _, length, kind, _ in page_map(heap) if length <= 128} | {
        -kind for _, length, kind, _ in page_map(heap) if length > 128
    }
    assert kinds >= {0, 1, 2, -1, -2} and heap.arrays["central"].used_slots.any()
    return heap


@pytest.fixture
def heap(busy):
    """A copy that a test may break."""
    copy = TCMalloc(3)
    copy.tables = busy.tables.copy()
    copy.header, copy.arrays = copy.tables.header, copy.tables.arrays
    check(copy)
    return copy


def spans_where(heap, **wanted):
    spans = heap.arrays["spans"][: int(heap.fields.nspans)]
    found = np.arange(len(spans)) >= NUM_HEADS
    for name, value in wanted.items():
        found &= value(spans[name]) if callable(value) else spans[name] == value
    return np.flatnonzero(found).tolist()


def small(heap):
    """A span of a class with a free object inside, another object behind it, and some outside."""
    spans, links = heap.arrays["spans"], heap.arrays["links"]
    for s in spans_where(heap, location=IN_USE, sizeclass=lambda x: x > 0, objects=lambda x: x > 0):
        sp = spans[s]
        if links[sp.links + (int(sp.objects) & 1023)] != 0:
            return s
    raise AssertionError


def listed(heap):
    """Thread and class of a list with some objects."""
    at = int(np.flatnonzero(heap.arrays["free_lists"].length > 2)[0])
    return heap.arrays["free_lists"][at], at


def bump(table, row, field, by=1):
    def change(heap):
        rows = heap.arrays[table]
        rows[field][row(heap)] += by

    return change


def put(table, row, field, value):
    def change(heap):
        heap.arrays[table][field][row(heap)] = value

    return change


def scalar(name, by=1):
    def change(heap):
        heap.fields[name] += by

    return change


def first(**wanted):
    return lambda heap: spans_where(heap, **wanted)[0]


def a_list(heap):
    return listed(heap)[1]


def a_class(heap):
    return int(np.flatnonzero(heap.arrays["central"].used_slots)[0])


def nonempty_list(heap):
    return NONEMPTY + int(heap.arrays["spans"].sizeclass[small(heap)])


def normal_list(heap):
    spans = heap.arrays["spans"]
    return next(NORMAL + k for k in range(1, 129) if spans.next[NORMAL + k] != NORMAL + k)


def map_hole(heap):
    s = spans_where(heap, location=IN_USE)[3]
    heap.arrays["pagemap"][int(heap.arrays["spans"].start[s]) + 1] = 0


def map_end(heap):
    s = spans_where(heap, location=IN_USE, length=lambda x: x > 1)[0]
    sp = heap.arrays["spans"][s]
    heap.arrays["pagemap"][int(sp.start + sp.length)] = 0


def free_neighbours(heap):
    rows = page_map(heap)
    at = next(i for i, (a, b) in enumerate(pairwise(rows)) if {a[2], b[2]} == {1, 2})
    for row in rows[at : at + 2]:
        heap.arrays["spans"]["location"][heap.arrays["pagemap"][row[0] + 1]] = ON_NORMAL


def wrong_list(heap):
    head = normal_list(heap)
    spans = heap.arrays["spans"]
    spans["location"][spans.next[head]] = ON_RETURNED


def set_order(heap):
    large = heap.arrays["large_normal"]
    large[:2] = large[:2][::-1].copy()


def link_twice(heap):
    """A span's second free object leads back to the first."""
    s = small(heap)
    sp, links = heap.arrays["spans"][s], heap.arrays["links"]
    second = int(links[sp.links + (int(sp.objects) & 1023)])
    links[sp.links + (second & 1023)] = sp.objects


def link_away(heap):
    """A span's list leads into another span of the class."""
    spans = heap.arrays["spans"]
    for s in spans_where(heap, location=IN_USE, objects=lambda x: x > 0):
        same = spans_where(heap, location=IN_USE, sizeclass=spans.sizeclass[s], objects=lambda x: x > 0)
        if spans.sizeclass[s] and len(same) > 1:
            spans["objects"][same[0]] = spans.objects[same[1]]
            return
    raise AssertionError


def live_in_cache(heap):
    """An object that the program has is in a thread's list, too."""
    f, _ = listed(heap)
    obj = int(f.head)
    heap.arrays["links"][heap.arrays["spans"].links[obj >> 10] + (obj & 1023)] = LIVE


def lost(heap):
    """A thread's list forgets its first object."""
    f, at = listed(heap)
    obj = int(f.head)
    cl = at % NUM_CLASSES
    heap.arrays["free_lists"]["head"][at] = heap.arrays["links"][heap.arrays["spans"].links[obj >> 10] + (obj & 1023)]
    heap.arrays["free_lists"]["length"][at] -= 1
    heap.arrays["free_lists"]["low_water"][at] = 0
    heap.arrays["threads"]["cached"][at // NUM_CLASSES] -= class_to_size[cl]


def wrong_class(heap):
    """A list holds an object of another class."""
    lists = heap.arrays["free_lists"]
    a, b = np.flatnonzero(lists.length > 0)[:2]
    lists["head"][a] = lists.head[b]


def short_batch(heap):
    cl = a_class(heap)
    obj = int(heap.arrays["central"].slots[cl][0])
    at = heap.arrays["spans"].links[obj >> 10] + (obj & 1023)
    heap.arrays["links"][at] = 0


def drained_in_nonempty(heap):
    heap.arrays["spans"]["objects"][small(heap)] = 0


def memory_behind_returned(heap):
    s = spans_where(heap, location=ON_RETURNED)[0]
    heap.arrays["touched"][int(heap.arrays["spans"].start[s])] |= 1
    heap.fields.resident_pages += 1


def run_lost(heap):
    cl = int(np.flatnonzero(heap.fields.free_links)[0])
    heap.fields.free_links[cl] = 0


BROKEN = {
    "map_hole": (map_hole, "begins no span"),
    "map_end": (map_end, "ends span"),
    "overlap": (bump("spans", first(location=ON_NORMAL), "length"), "ends span|begins no span|the heap has"),
    "record_leaked": (scalar("nspare"), "records in use"),
    "record_spare": (put("spans", first(location=IN_USE), "location", SPARE), "begins no span"),
    "free_neighbours": (free_neighbours, "free neighbours of the same kind"),
    "wrong_list": (wrong_list, "not just its own|free neighbours"),
    "list_prev": (lambda heap: put("spans", normal_list, "prev", 0)(heap), "its link says"),
    "set_order": (set_order, "not just its own in order"),
    "set_count": (scalar("nlarge_normal", -1), "not just its own in order"),
    "free_bytes": (scalar("free_bytes"), "free, unmapped, committed"),
    "unmapped_bytes": (scalar("unmapped_bytes"), "free, unmapped, committed"),
    "committed_bytes": (scalar("committed_bytes"), "free, unmapped, committed"),
    "commit_total": (scalar("total_commit_bytes"), "committed in all"),
    "links_leaked": (scalar("nlinks"), "entries were cut"),
    "run_moved": (bump("spans", small, "links"), "a run of links begins"),
    "run_lost": (run_lost, "a run of links begins|entries were cut"),
    "list_length": (bump("free_lists", a_list, "length"), "counts"),
    "low_water": (put("free_lists", a_list, "low_water", 10_000), "low water 10000"),
    "max_length": (put("free_lists", a_list, "max_length", 0), "may hold 0"),
    "no_batches": (put("free_lists", a_list, "max_length", 8191), "may hold 8191"),
    "cached": (bump("threads", lambda heap: 0, "cached"), "thread 0's lists hold"),
    "wrong_class": (wrong_class, "which is no object of class"),
    "live_in_cache": (live_in_cache, "which is no object|refcount|counts"),
    "lost": (lost, "refcount"),
    "link_twice": (link_twice, "which is in a list already"),
    "link_away": (link_away, "an object of span"),
    "slots": (put("central", a_class, "cache_size", 0), "slots, at most"),
    "slots_most": (put("central", a_class, "cache_size", 65), "slots, at most"),
    "slot_from_nowhere": (bump("central", lambda heap: 1, "cache_size"), "there were"),
    "short_batch": (short_batch, "holds no batch"),
    "nonempty": (drained_in_nonempty, "not just their own"),
    "central_list": (put("spans", nonempty_list, "next", 0), "no span"),
    "refcount": (bump("spans", small, "refcount"), "refcount"),
    "counter": (bump("central", a_class, "counter"), "objects, .* spans; has"),
    "num_spans": (bump("central", a_class, "num_spans"), "objects, .* spans; has"),
    "budget": (bump("threads", lambda heap: 1, "max_size"), "bytes, .* are unclaimed"),
    "unclaimed": (scalar("unclaimed_cache_space"), "are unclaimed"),
    "caches": (scalar("thread_heap_count"), "the list of caches is"),
    "cache_unlisted": (put("threads", lambda heap: int(heap.fields.thread_heaps), "next", NO_THREAD), "the list of caches"),
    "cache_prev": (put("threads", lambda heap: 1, "prev", 1), "its link says"),
    "steal": (scalar("next_memory_steal", 100), "has no cache"),
    "resident": (scalar("resident_pages"), "memory stands behind .* pages"),
    "returned": (memory_behind_returned, "which was returned"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_broken_is_noticed(heap, fault):
    breaks, says = BROKEN[fault]
    breaks(heap)
    with pytest.raises(Throw, match=says):
        check(heap)


def test_the_ledger_counts_what_the_program_has(heap, monkeypatch):
    """It follows from the checks before it, unless the statistics themselves are wrong."""
    told = module.numeric_properties(heap) | {"generic.current_allocated_bytes": 1}
    monkeypatch.setattr(module, "numeric_properties", lambda heap: told)
    with pytest.raises(Throw, match="the heap less all that is free are 1"):
        check(heap)


def test_a_heap_with_nothing_in_it_is_whole():
    heap = TCMalloc(2)
    check(heap)
    heap.new_cache(1)
    check(heap)
    assert heap.arrays["threads"].state.tolist() == [0, CACHED]
