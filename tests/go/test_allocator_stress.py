"""Random operations against the rooms, all invariants after every step; and each invariant broken on purpose."""

import itertools
import random

import numpy as np
import pytest

from sim.go.check import check_heap, check_layout
from sim.go.runtime import Heap
from sim.go.sizeclasses import class_to_size
from sim.go.state import SPAN_DEAD, SPAN_IN_USE, SPANALLOC
from sim.jit import PLAIN
from sim.units import Throw
from tests.go.heap_ops import address, cycle, drop, flush_all, free_stack, malloc, stack

SIZES = [1, 8, 16, 24, 64, 100, 512, 513, 1024, 5000, 20000, 32760, 32761, 40000, 200000, 3 << 20]


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
@pytest.mark.parametrize("seed", range(2))
def test_random_operations_keep_every_invariant(version, seed):
    rng = random.Random(seed)
    heap = Heap(version, 3)
    live = {}  # address -> (end, span, slot)
    stacks = []
    for step in range(40 if PLAIN else 1500):
        heap.make_room(1 << 10)
        h, what, p = heap.header, rng.random(), rng.randrange(3)
        if what < 0.75:
            size, noscan = rng.choice(SIZES), rng.randrange(2)
            for _ in range(rng.choice((1, 1, 30))):
                s, slot = malloc(h, p, size, noscan)
                at = address(heap, s, slot)
                end = at + int(heap.arrays["spans"][s].elemsize)
                assert end - at >= size and at % 8 == 0 and at not in live
                assert s < 2 or int(heap.arrays["spans"][s].elemsize) in (*class_to_size, end - at)
                live[at] = (end, s, slot)
                if size > 20000:
                    break
        elif what < 0.9 and live:
            for at in rng.sample(sorted(live), min(len(live), 20)):
                _, s, slot = live.pop(at)
                drop(h, s, slot)
        elif what < 0.95:
            stacks.append(stack(h, p, rng.choice((1, 4, 8, 40))))
        elif what < 0.97 and stacks:
            free_stack(h, p, stacks.pop(rng.randrange(len(stacks))))
        elif what < 0.98:
            flush_all(h)
        else:
            cycle(h)
        if step % 10 == 0 or PLAIN:
            check_heap(heap)
    spans_of_objects = sorted((at, end) for at, (end, _, _) in live.items())
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans_of_objects))
    check_heap(heap)


def used_heap():
    heap = Heap("go1.27", 2)
    for size in (16, 64, 600, 40000):
        for _ in range(3):
            malloc(heap.header, 0, size, 1)
    free_stack(heap.header, -1, stack(heap.header, -1, 4))
    stack(heap.header, 0, 4)
    check_heap(heap)
    return heap


def first_in_use(heap):
    return int(np.flatnonzero(heap.arrays["spans"].state == SPAN_IN_USE)[0])


def put_in_two_places(heap):
    cache = heap.arrays["mcaches"]
    cache[1].alloc[:] = cache[0].alloc


def lose_a_span(heap):
    heap.arrays["mcaches"][0].alloc[:] = 0


def overlap_pages(heap):
    live = np.flatnonzero(heap.arrays["spans"].state == SPAN_IN_USE)
    heap.arrays["spans"].start_page[live[1]] = heap.arrays["spans"].start_page[live[0]]


def miscount(heap):
    heap.arrays["spans"].alloc_count[first_in_use(heap)] += 1


def kill_a_free_slot(heap):
    span = heap.arrays["spans"][int(np.argmax(heap.arrays["spans"].nelems))]
    heap.arrays["words"][int(span.dead_bits)] |= np.uint64(1 << 40)


def lose_bytes(heap):
    heap.fields.heap_free -= 8192
    heap.fields.heap_in_use += 8192


def invent_bytes(heap):
    heap.fields.heap_released += 4096


def break_a_tail(heap):
    flush_all(heap.header)
    queue = heap.arrays["spansets"]
    queue.tail[int(np.flatnonzero(queue.head)[0])] = 0


def close_a_ring(heap):
    queue = heap.arrays["spansets"]
    block = int(queue.head[np.flatnonzero(queue.head)[0]])
    heap.arrays["set_blocks"].next[block] = block


def enter_twice(heap):
    flush_all(heap.header)
    queue = heap.arrays["spansets"]
    index = int(np.flatnonzero(queue.pushed - queue.popped)[0])
    entries = heap.arrays["set_blocks"].entries[int(queue.head[index])]
    entries[int(queue.pushed[index])] = entries[int(queue.pushed[index]) - 1]
    queue.pushed[index] += 1


def enter_no_span(heap):
    queue = heap.arrays["spansets"]
    heap.arrays["set_blocks"].entries[int(queue.head[np.flatnonzero(queue.head)[0]]), 0] = 0


def drain_too_early(heap):
    flush_all(heap.header)
    cycle(heap.header)
    heap.fields.sweep_drained = 1


def forget_to_advance(heap):
    flush_all(heap.header)
    heap.arrays["spans"].sweepgen[first_in_use(heap)] += 2


def lose_a_block(heap):
    heap.fields.nset_blocks += 1


def miscount_a_set(heap):
    heap.arrays["spansets"].pushed[0] += 1


def kill_a_cached_span(heap):
    heap.arrays["spans"].state[int(heap.arrays["mcaches"].alloc[0].max())] = SPAN_DEAD


def move_out_of_the_heap(heap):
    heap.arrays["spans"].start_page[first_in_use(heap)] += 1 << 20


def mislead_the_page_map(heap):
    heap.arrays["page_span"][int(heap.arrays["spans"].start_page[first_in_use(heap)]) % 8192] = 0


def remember_a_freed_span(heap):
    heap.arrays["page_span"][8191] = 1


def set_a_bit_beyond(heap):
    span = heap.arrays["spans"][first_in_use(heap)]
    heap.arrays["words"][int(span.alloc_bits) + (int(span.nelems) - 1) // 64] |= np.uint64(1 << 63)


def leak_a_page(heap):
    heap.arrays["chunks"].bits[0, 7] |= np.uint64(1 << 63)


def forget_the_lowest_free_page(heap):
    heap.fields.search_addr += 512


def spoil_a_summary(heap):
    heap.arrays["summary4"][int(heap.arrays["chunks"]["index"][0])] ^= np.uint64(1)


def charge_stacks_twice(heap):
    heap.fields.stacks_in_use += 8192
    heap.fields.heap_free -= 8192


def release_on_paper_only(heap):
    heap.fields.heap_free -= 8192
    heap.fields.heap_released += 8192


def ring_of_records(heap):
    s = int(heap.arrays["fixallocs"].list[SPANALLOC])
    heap.arrays["spans"].next[s] = s


def lose_a_record(heap):
    heap.arrays["fixallocs"].list[SPANALLOC] = 0


def charge(field, nbytes):
    def damage(heap):
        heap.fields[field] += nbytes

    damage.__name__ = field
    return damage


def lose_an_arena(heap):
    heap.arrays["arena_map"][int(heap.arrays["arenas"]["index"][0])] = 7


def lay_something_over_the_heap(heap):
    heap.fields.occupied[:2] = (0xC000001000, 0xC000002000)
    heap.fields.noccupied = 1


@pytest.mark.parametrize(
    ("damage", "predicate"),
    [
        (put_in_two_places, "2 places"),
        (lose_a_span, "0 places"),
        (overlap_pages, "is in span"),
        (miscount, "alloc_count says"),
        (kill_a_free_slot, "dead slots that are not allocated"),
        (lose_bytes, "heap_in_use says"),
        (invent_bytes, "ledger sums"),
        (break_a_tail, "its chain of 1 blocks others"),
        (close_a_ring, "its chain of 2 blocks others"),
        (miscount_a_set, "its chain of 0 blocks others"),
        (enter_twice, "is in 2 places: set"),
        (enter_no_span, "which is no span"),
        (drain_too_early, "but the sweep is drained"),
        (forget_to_advance, "of swept spans, its sweepgen is"),
        (lose_a_block, "blocks of span sets are used"),
        (kill_a_cached_span, "is not in use but in"),
        (move_out_of_the_heap, "outside every arena"),
        (mislead_the_page_map, "does not lead to span"),
        (remember_a_freed_span, "the page map leads to spans from"),
        (set_a_bit_beyond, "bits at or above"),
        (leak_a_page, "pages are in use, holders have"),
        (forget_the_lowest_free_page, "below the search address"),
        (spoil_a_summary, "differs from its bitmap"),
        (charge_stacks_twice, "stacks_in_use says"),
        (release_on_paper_only, "heap_released says"),
        (ring_of_records, "free span records is a ring"),
        (lose_a_record, "records are in use, inuse says"),
        (charge("mspan_sys", 160), "mspan_sys says"),
        (charge("mcache_sys", -2296), "mcache_sys says"),
        (charge("spanset_pool", 1), "span-set blocks are used or free"),
        (charge("gc_sys", 64 << 10), "gc_sys says"),
        (charge("gcbits_next", 1), "gc_sys says"),
        (charge("other_sys", 8), "other_sys says"),
        (charge("allspans_cap", 1), "other_sys says"),
        (charge("mapped_ready", 4096), "mapped_ready says"),
        (charge("reserved", 4096), "reserved says"),
        (lose_an_arena, "arena index does not lead"),
        (lay_something_over_the_heap, "which others hold"),
        (charge("arena_index", 8), "arena_index says"),
        (charge("arena_hints_left", -1), "arena hints, inuse says"),
    ],
)
def test_each_invariant_notices_its_damage(damage, predicate):
    heap = used_heap()
    damage(heap)
    with pytest.raises(Throw, match=predicate):
        check_heap(heap)


def test_a_chunk_outside_every_arena_is_noticed():
    heap = used_heap()
    heap.arrays["chunks"]["index"][0] += 1 << 10
    with pytest.raises(Throw, match="a chunk lies outside every arena"):
        check_layout(heap)
