"""Where the heap lies: hints and misses, contiguous growth, the linear reservation, random bases."""

from dataclasses import replace

import numpy as np
import pytest
from numba import int64, types, void

from sim.go.check import check_heap
from sim.go.layout import LINEAR_ARENA, MMAP_TOP, general_hint, sys_alloc
from sim.go.mheap import heap_grow_locked
from sim.go.params import VERSIONS
from sim.go.runtime import Heap
from sim.go.state import PAGE_SHIFT, heap_type
from sim.jit import PLAIN, entry
from sim.units import Throw
from tests.go.heap_ops import cycle, drop, flush_all, malloc, release, stack
from tests.traces import trace_path
from workloads.gotrace import read_trace
from workloads.gotrace_model import SPAN, SPAN_ALLOC

MIB = 1 << 20
GIB = 1 << 30
FIRST = 0xC000000000


@entry(types.UniTuple(int64, 2)(heap_type, int64))
def reserve(h, nbytes):
    return sys_alloc(h, nbytes)


@entry(void(heap_type, int64))
def grow(h, npages):
    heap_grow_locked(h, npages)


@entry(int64(heap_type, int64))
def hint(h, i):
    return general_hint(h, i)


def large(heap, nbytes):
    """The address of a large object."""
    heap.make_room(nbytes >> PAGE_SHIFT)
    s, _ = malloc(heap.header, 0, nbytes, 1)
    return int(heap.arrays["spans"].start_page[s]) << PAGE_SHIFT


def linear(version="go1.19", **more):
    return Heap(replace(VERSIONS[version], linear_layout=True), 1, **more)


def test_a_heap_grows_contiguously_behind_its_hint():
    heap = Heap("go1.19", 1)
    assert [large(heap, n * MIB) for n in (4, 60, 4, 200)] == [FIRST + n * MIB for n in (0, 4, 64, 68)]
    # what is left of the second arena does not count when 200 MiB are asked for: four more are reserved
    assert int(heap.fields.narenas) == 6 and int(heap.fields.cur_arena_end) == FIRST + 384 * MIB
    check_heap(heap)


def test_a_taken_hint_is_dropped_and_the_rest_of_the_arena_used():
    taken = (FIRST + 64 * MIB, FIRST + 65 * MIB)
    heap = Heap("go1.27", 1, occupied=[taken])
    assert large(heap, 8 * MIB) == FIRST
    second = 0x01C000000000
    assert large(heap, 60 * MIB) == second  # the next hint: 0x01c0 above 32 zero bits
    assert large(heap, 50 * MIB) == FIRST + 8 * MIB  # the rest of the first arena is not lost
    assert large(heap, 4 * MIB) == FIRST + 58 * MIB
    assert large(heap, 70 * MIB) == second + 60 * MIB  # the current arena is extended
    check_heap(heap)


def test_without_hints_the_system_chooses_and_its_place_gives_new_hints():
    heap = Heap("go1.19", 1, occupied=[(FIRST, 0x7FFF00000000)])
    heap.make_room((2 * GIB) >> PAGE_SHIFT)
    base, nbytes = reserve(heap.header, 10 * MIB)
    assert base >= 0x7FFF00000000 and base % (64 * MIB) == 0 and nbytes == 64 * MIB
    assert reserve(heap.header, 64 * MIB)[0] == base - 64 * MIB  # above is no room: it grows downwards
    assert reserve(heap.header, 256 * MIB)[0] == base - 320 * MIB
    check_heap(heap)


def test_a_place_the_system_chose_grows_upwards_first():
    low = 0x700000000000
    heap = Heap("go1.19", 1, occupied=[(64 << 10, low), (low + GIB, MMAP_TOP)])
    base = low + GIB - 128 * MIB  # an arena more than asked for, trimmed
    places = [reserve(heap.header, 64 * MIB)[0] for _ in range(4)]
    assert places == [base, base + 64 * MIB, base - 64 * MIB, base - 128 * MIB]
    check_heap(heap)


def test_an_address_space_without_room_is_out_of_memory():
    heap = Heap("go1.27", 1, occupied=[(0, FIRST), (FIRST + 64 * MIB, (1 << 47) - 1)])
    large(heap, 60 * MIB)
    with pytest.raises(Throw, match=r"out of memory: cannot allocate 8388608-byte block \(62914560 in use\)"):
        large(heap, 8 * MIB)


def test_hints_of_each_version():
    heap = Heap("go1.19", 1)
    assert [hint(heap.header, i) for i in (0, 1, 127)] == [0x00C0 << 32, 0x01C0 << 32, 0x7FC0 << 32]
    assert int(heap.fields.arena_hints_left) == 127  # behind the one at the head
    assert int(Heap("go1.27", 1).fields.arena_hints_left) == 63  # the rest is for user arenas


def test_the_linear_layout_of_the_classic_picture():
    heap = linear()
    assert int(heap.fields.reserved) >= 512 * MIB + 16 * GIB + 512 * GIB
    assert large(heap, 4 * MIB) == 0xC420000000  # 512 MiB of spans and 16 GiB of bitmap lie below
    before = int(heap.fields.other_sys), int(heap.fields.gc_sys)
    large(heap, 60 * MIB)
    assert int(heap.fields.linear_spans_mapped) == 64 * MIB // 8192 * 8
    assert int(heap.fields.linear_bitmap_mapped) == 64 * MIB // 32
    grown = int(heap.fields.other_sys) - before[0], int(heap.fields.gc_sys) - before[1]
    assert grown == (60 * MIB // 1024, 60 * MIB // 32)
    assert int(heap.fields.arena_index) == 0
    check_heap(heap)


def test_the_linear_reservation_goes_where_it_fits():
    heap = linear(occupied=[(0xD000000000, 0xD000001000)])
    assert large(heap, 4 * MIB) == 0x01C420000000


@pytest.mark.skipif(PLAIN, reason="pages of 512 GiB")
def test_the_linear_layout_runs_out_of_its_512_gib():
    heap = linear()
    heap.make_room(LINEAR_ARENA >> PAGE_SHIFT)
    grow(heap.header, (LINEAR_ARENA >> PAGE_SHIFT) - 512)
    grow(heap.header, 512)
    with pytest.raises(Throw, match=r"out of memory: cannot allocate 4194304-byte block \(549755813888 in use\)"):
        grow(heap.header, 1)


@pytest.mark.parametrize("version", list(VERSIONS))
def test_both_layouts_choose_the_same_pages(version):
    rng = np.random.default_rng(5)
    heaps = [Heap(replace(VERSIONS[version], linear_layout=flag), 2) for flag in (False, True)]
    start = [FIRST >> PAGE_SHIFT, 0xC420000000 >> PAGE_SHIFT]
    live = []
    for _ in range(60 if PLAIN else 1500):
        what, p = rng.random(), int(rng.integers(2))
        size = int(rng.choice([1, 24, 300, 5000, 33000, 300000, 9 << 20], p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.08, 0.02]))
        for heap in heaps:
            heap.make_room(1 << 12)
        if what < 0.8:
            got = [malloc(heap.header, p, size, 1) for heap in heaps]
            pages = [int(h.arrays["spans"].start_page[g[0]]) - s for h, g, s in zip(heaps, got, start, strict=True)]
            assert pages[0] == pages[1] and got[0] == got[1]
            live.append(got[0])
        elif what < 0.9 and live:
            s, slot = live.pop(int(rng.integers(len(live))))
            for heap in heaps:
                drop(heap.header, s, slot)
        elif what < 0.95:
            assert len({stack(heap.header, p, 4) for heap in heaps}) == 1
        elif what < 0.97:
            assert len({release(heap.header, 1 << 20) for heap in heaps}) == 1
        else:
            for heap in heaps:
                (cycle if what < 0.99 else flush_all)(heap.header)
    for heap in heaps:
        check_heap(heap)


def word(arena, chunk, page):
    """The boot-time word that places the heap: 20 bits of arena number, 4 of chunk, 9 of page."""
    return arena << 44 | chunk << 40 | page << 31


@pytest.mark.parametrize("nbytes", [8192, 3 * MIB, 64 * MIB, 100 * MIB])
def test_a_random_base_moves_arena_chunk_and_page(nbytes):
    facts = replace(VERSIONS["go1.27"], randomized_heap_base=True)
    heap = Heap(facts, 1, heap_rand=word(0x1B2FA, 9, 317))
    at = large(heap, nbytes)
    lowest = (0x1B2FA << 26) + (9 << 22) + 317 * 8192
    assert at == lowest if nbytes <= 512 * 8192 - 317 * 8192 else at >= lowest
    assert large(heap, 8192) in (lowest, lowest + nbytes)
    assert int(heap.fields.padding_pages) == 317
    check_heap(heap)


def test_a_random_base_is_off_unless_asked_for():
    assert large(Heap("go1.27", 1, heap_rand=word(5, 5, 5)), 8192) == FIRST


@pytest.mark.skipif(PLAIN, reason="reads whole traces")
@pytest.mark.parametrize("name", ["gofmt-nethttp_server", "test-fmt-tests", "compile-go_scanner"])
def test_recorded_random_bases_are_within_reach(name):
    """Real go1.27 programs: some word puts the first page where theirs was."""
    trace = read_trace(trace_path(f"{name}-P1-gogc_off"))
    spans = np.isin(trace.kind, (SPAN, SPAN_ALLOC))
    base = int(trace.min_heap)
    lowest = base + int(trace.a[spans].min()) * 8192
    assert base % (4 * MIB) == 0 and base < 1 << 46 and lowest - base < 4 * MIB
    chosen = word(base >> 26, base >> 22 & 15, (lowest - base) >> PAGE_SHIFT)
    heap = Heap(replace(VERSIONS["go1.27"], randomized_heap_base=True), 1, heap_rand=chosen)
    assert large(heap, 8192) == lowest


def test_random_hints_are_a_step_apart_but_for_the_bits_the_runtime_keeps():
    facts = replace(VERSIONS["go1.27"], randomized_heap_base=True)
    heap = Heap(facts, 1, heap_rand=word(0x00001, 0, 0))
    assert [hint(heap.header, i) for i in range(3)] == [(i << 38) + (1 << 26) for i in range(3)]
    heap = Heap(facts, 1, heap_rand=word(0x03000, 0, 0))  # bits 38 and 39 of the address
    assert [hint(heap.header, i) >> 38 for i in (0, 1, 2, 3, 4, 5)] == [3, 7, 7, 7, 7, 11]


@pytest.mark.parametrize("bad", [1 << 64, -1, [(5, 5)], [(-1, 5)], [(0, 1)] * 9])
def test_impossible_places_are_refused(bad):
    with pytest.raises(ValueError, match="64-bit word|occupied takes"):
        Heap("go1.27", 1, **{"occupied" if isinstance(bad, list) else "heap_rand": bad})
