"""Central lists and transfer caches: the order of objects, slots that move between classes, and holds that interleave."""

import numpy as np
import pytest
from numba import boolean, int64, types, void

from sim.jit import bare, entry
from sim.tcmalloc import central_freelist as rooms
from sim.tcmalloc import page_heap, thread_cache
from sim.tcmalloc.check import check
from sim.tcmalloc.heap import TCMalloc
from sim.tcmalloc.sizeclasses import NUM_CLASSES, class_to_size, num_objects_to_move, objects_per_span
from sim.tcmalloc.state import tcmalloc_type
from sim.units import Throw

_pair = types.UniTuple(int64, 2)


@entry(_pair(tcmalloc_type, int64, int64))
def remove_range_locked(h, cl, n):
    return rooms.remove_range_locked(bare(h), cl, n)


@entry(int64(tcmalloc_type, int64))
def new_class_span_locked(h, cl):
    s = page_heap.new_class_span_locked(bare(h), cl)
    rooms.thread_objects(bare(h), s)
    return s


@entry(_pair(tcmalloc_type, int64, int64, int64))
def populate_locked(h, cl, s, n):
    return rooms.populate_locked(bare(h), cl, s, n)


@entry(int64(tcmalloc_type, int64, int64, int64, int64))
def fetched(h, t, cl, head, count):
    return thread_cache.fetched(bare(h), t, cl, head, count)


@entry(int64(tcmalloc_type, int64, int64, int64))
def pop_range(h, t, cl, n):
    return thread_cache.pop_range(bare(h), t, cl, n)


@entry(int64(tcmalloc_type, int64, int64, int64))
def store_locked(h, cl, head, n):
    return rooms.store_locked(bare(h), cl, head, n)


@entry(boolean(tcmalloc_type, int64, int64))
def grow_cache_locked(h, cl, head):
    return rooms.grow_cache_locked(bare(h), cl, head)


@entry(boolean(tcmalloc_type, int64))
def get_slot(h, cl):
    return rooms.get_slot(bare(h), cl)


@entry(_pair(tcmalloc_type, int64, int64))
def release_list_locked(h, cl, head):
    return rooms.release_list_locked(bare(h), cl, head)


@entry(void(tcmalloc_type, int64))
def delete_locked(h, s):
    page_heap.delete_locked(bare(h), s)


@entry(int64(tcmalloc_type))
def next_donor(h):
    return rooms.next_donor(bare(h))


def with_caches(n):
    heap = TCMalloc(n)
    for t in range(n):
        heap.new_cache(t)
    return heap


def class_of(size):
    return int(np.searchsorted(class_to_size, size))


def central(heap, size):
    return heap.arrays["central"][class_of(size)]


def give_batches(heap, size, n):
    """A thread makes objects for n batches, frees them and ends: they go to the slots, if there are any."""
    batch = int(num_objects_to_move[class_of(size)])
    objects = [heap.malloc(0, size) for _ in range(n * batch)]
    heap.arrays["free_lists"]["max_length"][class_of(size)] = 8192  # thread 0's list: none goes back before the end
    heap.arrays["threads"]["max_size"][0] += 1 << 25
    heap.fields.overall_cache_size += 1 << 25
    while heap.arrays["free_lists"]["length"][class_of(size)]:
        heap.malloc(0, size)  # what the last fetch brought and nobody asked for
    for obj in objects:
        heap.free(0, obj)
    heap.delete_cache(0)
    heap.new_cache(0)


def test_every_class_starts_with_16_slots_or_a_mib():
    heap = with_caches(1)
    rows = heap.arrays["central"]
    for size, most in ((8, 64), (512, 64), (1024, 32), (2048, 16), (32768, 16), (65536, 8), (262144, 2)):
        assert central(heap, size).max_cache_size == most and central(heap, size).cache_size == min(most, 16)
    assert rows.cache_size[0] == 16 and rows.max_cache_size[0] == 64


def test_a_batch_moves_through_a_slot_as_it_is_last_in_first_out():
    heap = with_caches(2)
    give_batches(heap, 4096, 2)
    slots = central(heap, 4096).slots[:2].tolist()
    links, spans = heap.arrays["links"], heap.arrays["spans"]
    heap.arrays["free_lists"]["max_length"][NUM_CLASSES + class_of(4096)] = 16  # thread 1 asks for a whole batch
    wanted, obj = [], slots[1]
    while obj:
        wanted.append(obj)
        obj = int(links[spans[obj >> 10].links + (obj & 1023)])
    assert [heap.malloc(1, 4096) for _ in range(16)] == wanted
    assert heap.fields.fact_transfer_hits == 1 and central(heap, 4096).used_slots == 1
    check(heap)


def test_less_than_a_batch_passes_full_slots_by():
    heap = with_caches(2)
    give_batches(heap, 64, 3)
    lists, mine = heap.arrays["free_lists"], NUM_CLASSES + class_of(64)
    while lists.max_length[mine] < 32 or lists.length[mine]:
        heap.malloc(1, 64)
        assert heap.fields.fact_transfer_hits == 0 and central(heap, 64).used_slots == 3
    heap.malloc(1, 64)  # the first that asks for 32
    assert heap.fields.fact_transfer_hits == 1 and central(heap, 64).used_slots == 2
    check(heap)


def test_objects_of_later_spans_come_first():
    """Spans of 3 and batches of 12: a fetch of 5 takes what the first span has left, then puts the next in front."""
    heap = with_caches(2)
    h, cl = heap.header, class_of(5120)
    heap.make_room(8)
    made = [new_class_span_locked(h, cl) for _ in range(2)]
    chain, n = populate_locked(h, cl, made[0], 1)
    assert (chain, n) == (made[0] << 10, 1)
    other, n = populate_locked(h, cl, made[1], 1)
    assert (other, n) == (made[1] << 10, 1)  # the newest span is first
    head, n = remove_range_locked(h, cl, 5)
    assert n == 4
    assert fetched(h, 0, cl, head, n) == (made[0] << 10) + 1
    assert [heap.malloc(0, 5120) for _ in range(3)] == [(made[0] << 10) + 2, (made[1] << 10) + 1, (made[1] << 10) + 2]
    assert [fetched(h, 1, cl, x, 1) for x in (chain, other)] == [chain, other]
    check(heap)


def test_a_fetch_brings_fewer_when_spans_run_out():
    heap = with_caches(1)
    heap.arrays["free_lists"]["max_length"][class_of(2304)] = 28
    heap.malloc(0, 2304)
    assert heap.fields.fact_fetched == objects_per_span[class_of(2304)] == 7
    assert heap.fields.fact_populated == 1
    check(heap)


def test_the_first_to_give_a_slot_is_class_0_and_then_each_in_turn():
    heap = with_caches(1)
    give_batches(heap, 8, 70)
    c = heap.arrays["central"]
    before = with_caches(1).arrays["central"].cache_size
    assert c.used_slots[1] == c.cache_size[1] == c.max_cache_size[1] == 64
    # 48 slots were missing; class 1 itself was passed over when its turn came, and the next one asked instead
    donors = [0, *range(2, 49)]
    wanted = before.copy()
    wanted[donors] -= 1
    wanted[1] = 64
    assert c.cache_size.tolist() == wanted.tolist() and heap.fields.race_counter == 49
    check(heap)


def test_from_the_second_round_on_class_0_is_asked_twice():
    heap = with_caches(1)
    asked = [next_donor(heap.header) for _ in range(3 * NUM_CLASSES + 3)]
    a_round = list(range(NUM_CLASSES))
    assert asked == a_round + [0, *a_round] + [0, *a_round] + [0]


def test_the_second_class_asked_gives_a_full_slot_and_its_batch_goes_to_spans():
    heap = with_caches(1)
    give_batches(heap, 16, 16)
    give_batches(heap, 32, 16)
    for size in (16, 32):
        assert central(heap, size).used_slots == central(heap, size).cache_size == 16
    give_batches(heap, 8, 16)
    heap.fields.race_counter = 2  # classes 2 and 3 are both full: the first gives nothing, the second must
    counter = int(central(heap, 32).counter)
    give_batches(heap, 8, 1)
    assert (central(heap, 16).cache_size, central(heap, 32).cache_size, central(heap, 8).cache_size) == (16, 15, 17)
    assert central(heap, 32).used_slots == 15 and central(heap, 32).counter == counter + 32
    assert central(heap, 8).used_slots == 17 and heap.fields.race_counter == 4
    check(heap)


def test_nobody_gives_and_the_batch_goes_to_its_spans():
    heap = with_caches(1)
    give_batches(heap, 8, 16)
    heap.arrays["central"]["cache_size"][[2, 3]] = 0
    heap.fields.race_counter = 2
    before = int(heap.fields.fact_released_objects)
    give_batches(heap, 8, 1)
    assert central(heap, 8).used_slots == 16 and heap.fields.fact_released_objects == before + 32
    assert heap.fields.race_counter == 4
    check(heap)


def test_two_threads_that_both_found_nothing_both_make_a_span():
    heap = with_caches(2)
    h, cl = heap.header, class_of(5120)
    heap.make_room(8)
    assert [remove_range_locked(h, cl, 1)[1] for _ in range(2)] == [0, 0]
    first, second = (new_class_span_locked(h, cl) for _ in range(2))
    head, n = populate_locked(h, cl, second, 5)
    assert n == 3  # the other span is not entered yet
    assert fetched(h, 1, cl, head, n) == second << 10
    head, n = populate_locked(h, cl, first, 1)
    assert fetched(h, 0, cl, head, n) == first << 10
    check(heap)


def test_a_slot_that_comes_too_late_is_not_used():
    """While a class asked another for a slot with its own lock free, others brought it to the most it may have."""
    heap = with_caches(1)
    give_batches(heap, 8, 16)
    h, cl = heap.header, 1
    obj = [heap.malloc(0, 8) for _ in range(32)]
    heap.arrays["free_lists"]["max_length"][cl] = 8192
    for x in obj:
        heap.free(0, x)
    chain = pop_range(h, 0, cl, 32)
    assert store_locked(h, cl, chain, 32) == rooms.WANTS_SLOT
    assert get_slot(h, cl)
    heap.arrays["central"]["cache_size"][cl] = 64
    assert not grow_cache_locked(h, cl, chain)
    assert store_locked(h, cl, chain, 31) == rooms.NO_SPACE
    heap.arrays["central"]["cache_size"][cl] = 16
    assert grow_cache_locked(h, cl, chain)
    check(heap)


def test_a_list_is_released_span_by_span_with_the_lock_free_between():
    heap = with_caches(1)
    objects = [heap.malloc(0, 32768) for _ in range(3)]  # a span each
    heap.arrays["free_lists"]["max_length"][class_of(32768)] = 10
    heap.arrays["threads"]["max_size"][0] = heap.fields.overall_cache_size = 1 << 20
    heap.fields.unclaimed_cache_space = 0
    while heap.arrays["free_lists"]["length"][class_of(32768)]:
        heap.malloc(0, 32768)
    for obj in objects:
        heap.free(0, obj)
    rest = pop_range(heap.header, 0, class_of(32768), 3)
    for obj in objects[::-1]:
        rest, span = release_list_locked(heap.header, class_of(32768), rest)
        assert span == obj >> 10
        delete_locked(heap.header, span)
        assert (rest == 0) == (obj == objects[0])
    check(heap)


def test_a_span_that_lost_its_last_object_may_not_get_another():
    heap = with_caches(1)
    obj = heap.malloc(0, 32768)
    heap.free(-1, obj)
    with pytest.raises(Throw, match="which has none outside"):
        release_list_locked(heap.header, class_of(32768), obj)
    with pytest.raises(Throw, match="is freed, but not in use"):
        delete_locked(heap.header, obj >> 10)
