"""Caches of threads: slow start, scavenging and the budget they share, by the arithmetic of the library's rules."""

import numpy as np
import pytest

from sim.ops import ALLOC, DEAD, OP, SHARED
from sim.tcmalloc.check import check
from sim.tcmalloc.heap import TCMalloc
from sim.tcmalloc.sizeclasses import NUM_CLASSES, class_to_size, num_objects_to_move
from sim.tcmalloc.state import NO_THREAD
from sim.units import KIB, MIB, Throw

STEP = 64 * KIB


def with_caches(n, **settings):
    heap = TCMalloc(n, **settings)
    for t in range(n):
        heap.new_cache(t)
    return heap


def free_list(heap, t, size):
    return heap.arrays["free_lists"][t * NUM_CLASSES + int(size_class_of(size))]


def size_class_of(size):
    return np.searchsorted(class_to_size, size)


def budgets(heap):
    return heap.arrays["threads"].max_size.tolist()


def set_budgets(heap, *sizes):
    """Caches that may hold so much, and nothing left to claim."""
    heap.arrays["threads"]["max_size"] = sizes
    heap.fields.overall_cache_size = sum(sizes)
    heap.fields.unclaimed_cache_space = 0


def scavenge(heap, t):
    """One scavenge of a cache: what the thread frees takes it over its budget, and then it has those objects again."""
    before, budget = int(heap.fields.fact_scavenges), budgets(heap)[t]
    objects = [heap.malloc(t, 256 * KIB) for _ in range(budget // (256 * KIB) + 1)]
    freed = 0
    while heap.fields.fact_scavenges == before:
        heap.free(t, objects[freed])
        freed += 1
    for _ in range(freed):
        heap.malloc(t, 256 * KIB)
    assert heap.fields.fact_scavenges == before + 1


def test_slow_start_asks_for_one_more_each_time_up_to_a_batch_then_a_batch_more():
    heap = with_caches(1)
    asked = []
    for _ in range(36):
        before = int(heap.fields.fact_fetched)
        f = free_list(heap, 0, 64)
        for _ in range(int(f.length) + 1):
            heap.malloc(0, 64)
        asked.append((int(heap.fields.fact_fetched) - before, int(free_list(heap, 0, 64).max_length)))
    wanted, left = [], 0
    for n, then in [(n, n + 1) for n in range(1, 32)] + [(32, 64), (32, 96), (32, 128), (32, 160), (32, 192)]:
        left = left or 128  # objects of a new span, which is made only when there is none at all
        wanted.append((min(n, left), then))
        left -= min(n, left)
    assert asked == wanted
    check(heap)


def test_no_list_may_hold_more_than_8192():
    heap = with_caches(1)
    ops = np.zeros(40_000, OP)
    ops["kind"], ops["arg"], ops["obj"] = ALLOC, 8, -1
    heap.run_ops(0, ops)
    assert free_list(heap, 0, 8).max_length == 8192
    heap = with_caches(1)
    ops["arg"] = 2304  # batches of 28: a multiple of it
    heap.run_ops(0, ops)
    assert free_list(heap, 0, 2304).max_length == 8192 // 28 * 28


def test_a_list_too_long_gives_a_batch_back_and_shrinks_every_fourth_time():
    heap = with_caches(1)
    n, batch = 1000, 32
    objects = [heap.malloc(0, 64) for _ in range(n)]
    f = free_list(heap, 0, 64)
    length, max_length, overages, too_long = int(f.length), int(f.max_length), 0, 0
    for obj in objects:
        heap.free(0, obj)
        length += 1
        if length > max_length:
            length -= batch
            too_long += 1
            overages += max_length > batch
            if overages == 4:
                max_length, overages = max_length - batch, 0
        f = free_list(heap, 0, 64)
        assert (int(f.length), int(f.max_length), int(f.overages)) == (length, max_length, overages)
    assert heap.fields.fact_too_long == too_long > 4 and heap.fields.fact_scavenges == 0
    check(heap)


def test_a_list_in_slow_start_gives_all_it_has():
    """min(batch, length) go, not the shorter of max_length and batch."""
    heap = with_caches(2)
    objects = [heap.malloc(0, 64) for _ in range(3)]
    lengths = []
    for obj in objects:  # another thread frees them: its list may hold one
        heap.free(1, obj)
        f = free_list(heap, 1, 64)
        lengths.append((int(f.length), int(f.max_length)))
    assert lengths == [(1, 1), (0, 2), (1, 2)]
    check(heap)


def test_the_thread_that_frees_has_the_object_next():
    heap = with_caches(3)
    obj = heap.malloc(0, 100)
    heap.free(1, obj)
    heap.malloc(0, 100), heap.malloc(2, 100)
    assert heap.malloc(1, 100) == obj
    check(heap)


def test_a_scavenge_drops_half_of_what_was_not_needed_since_the_last():
    heap = with_caches(1)
    for size, n in ((64, 40), (1024, 9)):
        for obj in [heap.malloc(0, size) for _ in range(n)]:
            heap.free(0, obj)
    scavenge(heap, 0)  # the marks of both lists were 0, and are their lengths now
    lengths = [int(free_list(heap, 0, size).length) for size in (64, 1024)]
    maxima = [int(free_list(heap, 0, size).max_length) for size in (64, 1024)]
    assert [int(free_list(heap, 0, size).low_water) for size in (64, 1024)] == lengths
    kept = [heap.malloc(0, 64) for _ in range(6)]
    for obj in kept:
        heap.free(0, obj)
    scavenge(heap, 0)
    marks = lengths[0] - 6, lengths[1]
    wanted = [length - max(mark // 2, 1) for length, mark in zip(lengths, marks, strict=True)]
    assert [int(free_list(heap, 0, size).length) for size in (64, 1024)] == wanted
    shrunk = [max(m - 32, 32) if m > 32 else m for m in maxima]
    assert [int(free_list(heap, 0, size).max_length) for size in (64, 1024)] == shrunk
    check(heap)


def test_a_list_never_used_since_drops_its_only_object():
    heap = with_caches(1)
    heap.free(0, heap.malloc(0, 64))
    scavenge(heap, 0)
    assert free_list(heap, 0, 64).length == 1
    scavenge(heap, 0)
    assert free_list(heap, 0, 64).length == 0


def test_a_scavenge_claims_64_kib_and_one_thread_may_claim_all():
    heap = with_caches(1, overall_cache_size=6 * MIB)
    claimed = []
    while heap.fields.unclaimed_cache_space > 0:
        scavenge(heap, 0)
        claimed.append(budgets(heap)[0])
    assert claimed == list(range(2 * STEP, 6 * MIB + 1, STEP))  # past 4 MiB, which limits nothing
    scavenge(heap, 0)
    assert budgets(heap) == [6 * MIB]  # nothing left, nobody to steal from
    check(heap)


@pytest.mark.parametrize(("asked", "given"), [(1, 512 * KIB), (3 * MIB, 3 * MIB), (5 << 30, 1 << 30)])
def test_what_caches_may_hold_is_clipped(asked, given):
    heap = TCMalloc(1, overall_cache_size=asked)
    assert heap.fields.overall_cache_size == heap.fields.unclaimed_cache_space == given


def test_the_last_claim_may_take_more_than_there_is():
    heap = TCMalloc(3, overall_cache_size=512 * KIB)
    heap.fields.unclaimed_cache_space = heap.fields.overall_cache_size = STEP + 1
    heap.new_cache(0)
    heap.new_cache(1)
    assert budgets(heap)[:2] == [STEP, STEP] and heap.fields.unclaimed_cache_space == 1 - STEP
    check(heap)


def test_a_cache_made_when_nothing_is_left_steals_or_gets_512_kib_all_the_same():
    heap = TCMalloc(12, overall_cache_size=1 * MIB)
    heap.new_cache(0)
    while heap.fields.unclaimed_cache_space > 0:
        scavenge(heap, 0)
    assert budgets(heap)[0] == 1 * MIB
    for t in range(1, 9):  # (1 MiB - 512 KiB) / 64 KiB
        heap.new_cache(t)
        assert budgets(heap)[t] == STEP
    assert budgets(heap)[0] == 512 * KIB and heap.fields.unclaimed_cache_space == 0
    heap.new_cache(9)
    assert budgets(heap)[9] == 512 * KIB and heap.fields.unclaimed_cache_space == -512 * KIB
    check(heap)
    heap.delete_cache(9)
    assert heap.fields.unclaimed_cache_space == 0
    heap.delete_cache(1)
    assert heap.fields.unclaimed_cache_space == STEP
    check(heap)


def test_stealing_goes_round_the_caches_newest_first():
    heap = with_caches(4)
    set_budgets(heap, MIB, MIB, MIB, MIB)  # itself is passed over, though it could spare some
    heap.fields.next_memory_steal = NO_THREAD  # the end of the list: it starts anew, with thread 3
    seen = []
    for _ in range(5):
        before = budgets(heap)
        scavenge(heap, 3)
        (victim,) = [t for t in range(3) if budgets(heap)[t] != before[t]]
        assert budgets(heap)[victim] == before[victim] - STEP and budgets(heap)[3] == before[3] + STEP
        seen.append(victim)
    assert seen == [2, 1, 0, 2, 1]
    check(heap)


def test_caches_of_512_kib_are_not_stolen_from_and_ten_are_asked():
    heap = with_caches(14)
    set_budgets(heap, MIB, *[512 * KIB] * 12, STEP)
    heap.fields.next_memory_steal = 13  # itself, then 12 down to 4 make ten
    scavenge(heap, 13)
    assert budgets(heap) == [MIB, *[512 * KIB] * 12, STEP]
    assert heap.fields.fact_caches_asked == 10 and heap.fields.next_memory_steal == 3
    scavenge(heap, 13)  # 3, 2, 1, and the one that can spare it
    assert budgets(heap) == [MIB - STEP, *[512 * KIB] * 12, 2 * STEP]
    assert heap.fields.fact_caches_asked == 14 and heap.fields.fact_budget_stolen == 1
    check(heap)


def test_who_is_stolen_from_gives_memory_back_only_at_its_own_next_free():
    heap = with_caches(2)
    sizes = [heap.malloc(0, 32 * KIB) for _ in range(30)]
    set_budgets(heap, 30 * 32 * KIB, STEP)
    for obj in sizes:
        heap.free(0, obj)
    held = int(heap.arrays["threads"].cached[0])
    set_budgets(heap, max(held, 600 * KIB), STEP)
    heap.fields.next_memory_steal = 0
    scavenge(heap, 1)
    assert budgets(heap)[1] == 2 * STEP
    assert heap.arrays["threads"].cached[0] == held
    check(heap)


def test_a_thread_that_ends_gives_its_lists_back_in_batches():
    heap = with_caches(2)
    batch = int(num_objects_to_move[size_class_of(64)])
    for obj in [heap.malloc(0, 64) for _ in range(700)]:
        heap.free(0, obj)
    length, budget = int(free_list(heap, 0, 64).length), budgets(heap)[0]
    slots = int(heap.arrays["central"].used_slots[size_class_of(64)])
    counted, unclaimed = int(heap.fields.fact_stored), int(heap.fields.unclaimed_cache_space)
    heap.delete_cache(0)
    assert length > 2 * batch and heap.fields.fact_stored - counted == length // batch
    assert heap.arrays["central"].used_slots[size_class_of(64)] == slots + length // batch
    assert heap.fields.unclaimed_cache_space == unclaimed + budget
    assert heap.fields.thread_heaps == heap.fields.next_memory_steal == 1
    check(heap)
    heap.delete_cache(1)
    check(heap)
    heap.new_cache(0)
    assert heap.fields.next_memory_steal == 0
    check(heap)


def test_a_thread_without_a_cache_frees_into_the_span():
    heap = with_caches(1)
    obj = heap.malloc(0, 72_704)
    pages = int(heap.fields.free_bytes)
    heap.free(-1, obj)  # the only object: its span goes at once
    assert heap.fields.free_bytes == pages + 9 * 8192 and heap.fields.fact_stored == 0
    check(heap)


@pytest.mark.parametrize("wrong", ["twice", "none"])
def test_a_cache_is_made_once_and_ends_once(wrong):
    heap = with_caches(1)
    if wrong == "none":
        heap.delete_cache(0)
    with pytest.raises(Throw, match="already has a cache" if wrong == "twice" else "has no cache"):
        heap.new_cache(0) if wrong == "twice" else heap.delete_cache(0)


@pytest.mark.parametrize(
    ("size", "new", "moves", "usable"),
    [
        (24, 32, False, 32),  # fits what it has
        (32, 16, False, 32),  # half of it or more
        (32, 15, True, 16),
        (1024, 1025, True, 1280),  # less than a quarter more: a quarter more
        (1024, 1280, True, 1280),
        (1024, 2000, True, 2048),
        (300_000, 400_000, True, 401_408),  # 37 pages are 303,104 bytes, a quarter more is 378,880
        (300_000, 310_000, True, 385_024),
    ],
)
def test_realloc_stays_between_half_and_all_and_grows_by_a_quarter(size, new, moves, usable):
    heap = with_caches(1)
    obj = heap.realloc(0, 0, size)
    moved = heap.realloc(0, obj, new)
    assert (moved != obj) == moves
    span = heap.arrays["spans"][moved >> 10]
    assert usable == (int(class_to_size[span.sizeclass]) or int(span.length) * 8192)
    check(heap)


def test_operations_assign_variables_and_free_what_they_held():
    heap = with_caches(1)
    ops = np.zeros(6, OP)
    ops["kind"] = [ALLOC, ALLOC, ALLOC, DEAD, DEAD, ALLOC]
    ops["arg"] = [100, 300_000, 100, 0, 0, 100]
    ops["obj"] = [0, 1, 0, 1, 1, -1]
    at = heap.run_ops(0, ops)
    assert (at[[3, 4]] == -1).all() and at[0] != at[2]
    assert at[5] == at[0]  # freed when variable 0 took another object
    assert heap.arrays["variables"][1] == 0
    check(heap)


def test_shared_variables_are_others_and_any_thread_may_end_what_they_hold():
    heap = with_caches(2)
    ops = np.zeros(2, OP)
    ops["kind"], ops["arg"], ops["flags"] = ALLOC, 100, [0, SHARED]  # both are variable 0
    at = heap.run_ops(0, ops)
    ops = np.zeros(2, OP)
    ops["kind"], ops["arg"], ops["flags"], ops["obj"] = [DEAD, ALLOC], 100, [SHARED, 0], [0, -1]
    assert heap.run_ops(1, ops)[1] == at[1]
    assert heap.arrays["variables"][0] and not heap.arrays["shared_variables"][0]
    check(heap)


def test_each_thread_has_variables_of_its_own_and_may_come_to_have_more():
    heap = with_caches(2)
    ops = np.zeros(3, OP)
    ops["kind"], ops["arg"], ops["obj"] = ALLOC, 100, [0, 1, 2]
    at = [heap.run_ops(t, ops).tolist() for t in (0, 1, 0)]
    assert len({*at[0], *at[1]}) == 6
    ops["obj"] = [0, 40, 80]  # variables 1 and 2 hold on
    heap.run_ops(0, ops)
    ops["kind"], ops["obj"] = DEAD, [0, 1, 2]
    for t in (0, 1):
        heap.run_ops(t, ops)
    held = heap.arrays["variables"][heap.arrays["variables"] != 0]
    assert len(held) == len(set(held.tolist())) == 2
    check(heap)


def test_a_request_no_heap_has_stops_the_batch():
    heap = with_caches(1)
    for size in (-1, (1 << 40) + 1):
        ops = np.zeros(1, OP)
        ops["arg"] = size
        with pytest.raises(Throw, match="a request is 0 to 1099511627776"):
            heap.run_ops(0, ops)


@pytest.mark.parametrize("size", [0, 1, 8])
def test_the_smallest_object_has_8_bytes(size):
    heap = with_caches(1)
    heap.malloc(0, size)
    assert heap.malloc(0, size) == heap.malloc(0, 8) - 1


