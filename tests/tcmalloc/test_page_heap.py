"""The page heap's rules one by one: what fits, what merges, what is released, when it grows."""

import pytest

from sim.tcmalloc.check import check
from sim.tcmalloc.heap import TCMalloc
from sim.tcmalloc.page_heap import DEFAULT_RELEASE_DELAY, MAX_HEAP_PAGES
from sim.tcmalloc.sizeclasses import PAGE_SHIFT
from sim.tcmalloc.stats import page_map
from sim.units import MIB, Throw

USED, FREE, RETURNED = range(3)


@pytest.fixture
def heap():
    heap = TCMalloc(1)
    heap.new_cache(0)
    return heap


def big(heap, npages):
    """A large object of npages > 32."""
    return heap.malloc(0, npages << PAGE_SHIFT)


def page(heap, obj):
    return heap.address(obj) >> PAGE_SHIFT


def rows(heap, *lengths):
    """Objects side by side, with one of 33 pages kept behind each."""
    made = []
    for length in lengths:
        made.append(big(heap, length))
        big(heap, 33)
    return made


def free(heap, *objects):
    for obj in objects:
        heap.free(0, obj)
    check(heap)


def release_next(heap, index):
    """The next free releases a span, of the list of index + 1 pages first, of the large ones for index 128."""
    heap.fields.scavenge_counter = 0
    heap.fields.release_index = index


def layout(heap):
    return [(length, kind) for _, length, kind, _ in page_map(heap)]


def test_growth_is_what_is_asked_but_a_mib_at_least(heap):
    big(heap, 200)
    assert heap.fields.heap_pages == 200
    assert page(heap, big(heap, 33)) == 200
    assert heap.fields.heap_pages == 328 and layout(heap)[-1] == (95, FREE)
    assert heap.fields.fact_grown == 328 and heap.fields.reserve_count == 2
    check(heap)


def test_growth_merges_with_a_free_tail(heap):
    big(heap, 33)  # 95 pages left
    assert page(heap, big(heap, 100)) == 33
    assert heap.fields.heap_pages == 256 and layout(heap) == [(33, USED), (100, USED), (123, FREE)]


def test_the_first_list_that_has_a_span_gives_it_and_keeps_the_rest(heap):
    a, b, _ = rows(heap, 40, 50, 60)
    at = page(heap, a), page(heap, b)
    free(heap, b, a)
    assert page(heap, big(heap, 45)) == at[1]  # 40 is too short, 50 the first that is not
    assert page(heap, big(heap, 40)) == at[0]
    check(heap)


def test_lists_are_last_in_first_out(heap):
    objects = rows(heap, 40, 40, 40)
    at = [page(heap, obj) for obj in objects]
    free(heap, *objects)
    assert [page(heap, big(heap, 40)) for _ in range(3)] == at[::-1]


def test_the_best_fit_of_the_large_ones_ties_to_the_lower_address(heap):
    objects = rows(heap, 150, 140, 160, 140)
    at = [page(heap, obj) for obj in objects]
    free(heap, *objects)
    assert [page(heap, big(heap, n)) for n in (135, 140, 141, 129)] == [at[1], at[3], at[0], at[2]]
    assert heap.fields.fact_split_set >= 3
    check(heap)


@pytest.mark.parametrize("returned", [0, 1])
@pytest.mark.parametrize(("lengths", "first"), [((140, 140), 0), ((140, 141), 0), ((141, 140), 1)])
def test_the_best_fit_is_of_either_kind(heap, returned, lengths, first):
    objects = rows(heap, *lengths)
    at = [page(heap, obj) for obj in objects]
    release_next(heap, 128)
    free(heap, objects[returned])
    free(heap, objects[1 - returned])
    assert {kind for length, kind in layout(heap) if length in lengths} == {FREE, RETURNED}
    assert page(heap, big(heap, 130)) == at[first]
    check(heap)


def test_only_neighbours_of_the_same_kind_merge(heap):
    a, b, c = big(heap, 40), big(heap, 50), big(heap, 60)
    _, d = rows(heap, 33, 70)
    free(heap, a)
    release_next(heap, 89)  # b merges with a to 90 pages before the clock runs out
    free(heap, b)
    assert layout(heap)[:2] == [(90, RETURNED), (60, USED)]
    free(heap, c)
    assert layout(heap)[:2] == [(90, RETURNED), (60, FREE)]
    release_next(heap, 59)
    free(heap, d)
    assert layout(heap)[0] == (150, RETURNED)


def test_a_returned_span_of_the_right_length_beats_a_longer_normal_one(heap):
    a, b = rows(heap, 40, 41)
    at = page(heap, a), page(heap, b)
    release_next(heap, 39)
    free(heap, a)
    assert layout(heap)[0] == (40, RETURNED)
    free(heap, b)
    before = int(heap.fields.total_commit_bytes)
    assert page(heap, big(heap, 40)) == at[0]
    assert heap.fields.total_commit_bytes - before == 40 << PAGE_SHIFT and heap.fields.fact_recommitted == 40
    check(heap)


def test_normal_comes_before_returned_at_the_same_length(heap):
    a, b = rows(heap, 40, 40)
    at = page(heap, a), page(heap, b)
    release_next(heap, 39)
    free(heap, a)
    free(heap, b)
    assert [page(heap, big(heap, 40)) for _ in range(2)] == [at[1], at[0]]


def test_the_rest_of_a_returned_span_stays_returned(heap):
    (a,) = rows(heap, 100)
    release_next(heap, 99)
    free(heap, a)
    big(heap, 40)
    assert layout(heap)[:2] == [(40, USED), (60, RETURNED)]
    check(heap)


def test_the_first_period_of_the_release_clock_is_2_gib(heap):
    a = big(heap, 1 << 14)
    assert heap.fields.scavenge_counter == DEFAULT_RELEASE_DELAY  # set when the heap first grew
    for _ in range(16):
        heap.free(0, a)
        a = big(heap, 1 << 14)
    assert (heap.fields.scavenge_counter, heap.fields.scavenge_count) == (0, 0)
    heap.free(0, a)
    assert heap.fields.scavenge_count == 1 and layout(heap) == [(1 << 14, RETURNED)]
    assert heap.fields.scavenge_counter == 1 << 20  # 1000 pages for each released, but no more than this


@pytest.mark.parametrize(("rate", "wait"), [(1.0, 40_000), (2.0, 20_000), (0.5, 80_000)])
def test_a_thousand_pages_are_freed_for_each_released(rate, wait):
    heap = TCMalloc(1, release_rate=rate)
    heap.new_cache(0)
    (a,) = rows(heap, 40)
    release_next(heap, 39)
    free(heap, a)
    assert heap.fields.scavenge_counter == wait and heap.fields.release_index == 40


def test_nothing_is_released_at_rate_0():
    heap = TCMalloc(1, release_rate=0)
    heap.new_cache(0)
    (a,) = rows(heap, 40)
    release_next(heap, 39)
    free(heap, a)
    assert heap.fields.scavenge_counter == DEFAULT_RELEASE_DELAY and heap.fields.decommit_count == 0


def test_releases_go_round_the_lists_and_take_the_oldest_span(heap):
    a, b, c, large, shorter, *clock = rows(heap, 40, 40, 60, 150, 140, *[33] * 6)
    tail = page_map(heap)[-1]
    assert tail[2] == FREE and big(heap, tail[1])
    free(heap, a, b, c, large, shorter)
    heap.fields.release_index = 39
    at = [page(heap, obj) for obj in (a, c, shorter, clock[0], b, large)]
    for i, obj in enumerate(clock):  # a free of 33 pages each that turns the clock; nothing merges
        heap.fields.scavenge_counter = 0
        free(heap, obj)
        assert sorted(at[: i + 1]) == [p for p, _, kind, _ in page_map(heap) if kind == RETURNED]


@pytest.mark.parametrize(("asked", "forced"), [(63, 0), (64, 1)])
def test_all_merges_before_growth_crosses_128_mib_by_what_is_asked(heap, asked, forced):
    """The heap grows by 128 pages either way; only the pages asked for decide."""
    below = (128 * MIB >> PAGE_SHIFT) - 64
    free(heap, big(heap, 2 * 62 + 33 + 70 * 95))
    a, b, _ = big(heap, 62), big(heap, 62), big(heap, 33)
    others = rows(heap, *[62] * 70)
    big(heap, below - int(heap.fields.heap_pages))
    assert heap.fields.heap_pages == below and heap.fields.free_bytes == 0
    release_next(heap, 61)
    free(heap, a)
    free(heap, b, *others)  # more than a quarter of the heap; a was returned, b not: neighbours that do not merge
    assert heap.fields.decommit_count == 1
    at = page(heap, big(heap, asked))
    assert heap.fields.fact_forced == forced and heap.fields.decommit_count == 1 + 71 * forced
    assert at == (0 if forced else below)
    check(heap)


@pytest.mark.parametrize("missing", ["returned", "normal", "quarter"])
def test_nothing_is_forced_without_much_of_both_kinds(heap, missing):
    below = (128 * MIB >> PAGE_SHIFT) - 64
    free(heap, big(heap, 95 * 70))
    objects = rows(heap, *[62] * 70)
    big(heap, below - int(heap.fields.heap_pages))
    objects = objects[:60] if missing == "quarter" else objects
    for i, obj in enumerate(objects):
        if missing == "normal" or (missing == "quarter" and i == 0):
            release_next(heap, 61)
        heap.free(0, obj)
    big(heap, 64)
    assert heap.fields.fact_forced == 0 and heap.fields.heap_pages == below + 128
    check(heap)


def test_memory_comes_by_4_kib_and_goes_with_the_span(heap):
    obj = heap.malloc(0, 2048)  # a span of two pages, each object written to: four pages of 4 KiB
    assert heap.fields.resident_pages == heap.fields.fact_touched == 4
    heap.malloc(0, 8)  # one page of 1024 objects
    assert heap.fields.resident_pages == 6
    big(heap, 40)  # nobody has written there
    assert heap.fields.resident_pages == 6
    heap.fields.scavenge_counter = 0
    heap.fields.release_index = 1
    heap.free(-1, obj)
    assert heap.fields.resident_pages == 2 and heap.fields.fact_released_resident == 4
    check(heap)


def test_a_second_free_is_seen(heap):
    obj = big(heap, 40)
    heap.free(0, obj)
    with pytest.raises(Throw, match="the program does not have it"):
        heap.free(0, obj)
    small = heap.malloc(0, 100)
    heap.free(0, small)
    for t in (0, -1):
        with pytest.raises(Throw, match="the program does not have it"):
            heap.free(t, small)


def test_what_no_heap_has_is_refused(heap):
    with pytest.raises(Throw, match="out of memory: "):
        big(heap, MAX_HEAP_PAGES - 100)
        big(heap, MAX_HEAP_PAGES - 100)
    for size in (-1, (MAX_HEAP_PAGES << PAGE_SHIFT) + 1):
        with pytest.raises(ValueError, match="bytes are asked for; a request is 0 to"):
            heap.malloc(0, size)
    with pytest.raises(ValueError, match="is no object's handle"):
        heap.free(0, 1 << 40)
