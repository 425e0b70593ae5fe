"""Off-heap metadata: against MemStats of real programs, and the allocators' own rules."""

import pytest
from numba import int64, void

from sim.go.check import check_heap
from sim.go.malloc import small_slot, span_class_of
from sim.go.mfixalloc import (
    GC_SYS,
    new_mark_bits,
    next_mark_bit_arena_epoch,
    persistent_alloc,
)
from sim.go.mstats import mem_stats
from sim.go.runtime import Heap
from sim.go.state import SPANALLOC, heap_type
from sim.jit import PLAIN, entry
from tests.go.heap_ops import free_stack, malloc, stack

# A Go program, GOGC=off, GOMAXPROCS=1, no memory profile: a slice of 4 Mi slice headers, then five times 64 MiB in
# objects of 1024 bytes without pointers, ReadMemStats after each. GCSys includes what the collector's own tables take.
MEASURED = {
    "go1.27": [
        # MSpanInuse, MSpanSys, GCSys, OtherSys
        (1324160, 1338240, 1961792, 552308),
        (2634880, 2643840, 2236240, 532852),
        (3945600, 3949440, 2510688, 537972),
        (5256320, 5271360, 2785136, 825780),
        (6567040, 6576960, 3059584, 757172),
    ],
    "go1.19": [
        (1191168, 1204128, 12370304, 452731),
        (2370816, 2375712, 14733072, 575099),
        (3550464, 3563568, 17095840, 705771),
        (4730112, 4735152, 19458608, 889579),
        (5909760, 5923008, 21821376, 684379),
    ],
}
MCACHE = {"go1.27": (2296, 16072), "go1.19": (1200, 15600)}  # MCacheInuse and MCacheSys of those programs
CHUNK = 256 << 10


@entry(void(heap_type, int64, int64, int64))
def fill(h, p, size, n):
    for _ in range(n):
        small_slot(h, p, span_class_of(h, size, 1))


@entry(int64(heap_type, int64, int64, int64))
def persistent(h, p, nbytes, align):
    return persistent_alloc(h, p, nbytes, align, GC_SYS)


@entry(void(heap_type, int64, int64))
def mark_bits(h, nelems, n):
    for _ in range(n):
        new_mark_bits(h, nelems)


@entry(void(heap_type))
def next_epoch(h):
    next_mark_bit_arena_epoch(h)


@pytest.mark.skipif(PLAIN, reason="330,000 objects")
@pytest.mark.parametrize("version", list(MEASURED))
def test_growth_of_metadata_as_the_runtime_reports_it(version):
    heap = Heap(version, 1)
    heap.make_room(1 << 17)
    malloc(heap.header, 0, 96 << 20, 1)
    rows = []
    for _ in MEASURED[version]:
        for _ in range(16):
            heap.make_room(1 << 17)
            fill(heap.header, 0, 1024, 4096)
        stats = mem_stats(heap)
        rows.append([stats[name] for name in ("MSpanInuse", "MSpanSys", "GCSys", "OtherSys")])
        assert (stats["MCacheInuse"], stats["MCacheSys"]) == MCACHE[version]
    check_heap(heap)
    for before, after, measured_before, measured in zip(
        rows[:-1], rows[1:], MEASURED[version][:-1], MEASURED[version][1:], strict=True
    ):
        model = [b - a for a, b in zip(before, after, strict=True)]
        real = [b - a for a, b in zip(measured_before, measured, strict=True)]
        assert model[0] == real[0] and model[2] == real[2]  # span records; all of the collector's metadata
        # chunks fall at other moments, since the program's start used some: their sum agrees but for whole chunks
        assert (model[1] + model[3] - real[1] - real[3]) % CHUNK == 0
    # what the real program has beyond the model's is constant: workbufs and tables of the collector
    assert 0 < MEASURED[version][-1][2] - rows[-1][2] < 300_000


def ledger(heap):
    return int(heap.fields.other_sys), int(heap.fields.gc_sys), int(heap.fields.mapped_ready)


def test_small_blocks_share_a_chunk_and_large_ones_come_from_the_system():
    heap = Heap("go1.27", 2)
    other, gc, ready = ledger(heap)
    assert persistent(heap.header, 0, 100, 8) == 8  # a chunk begins with the link to the one before
    assert ledger(heap) == (other + CHUNK - 100, gc + 100, ready + CHUNK)
    assert persistent(heap.header, 0, 10, 64) == 128
    assert persistent(heap.header, 1, 10, 8) == 8  # each P has a chunk of its own
    other, gc, ready = ledger(heap)
    persistent(heap.header, 0, 64 << 10, 8)
    assert ledger(heap) == (other, gc + (64 << 10), ready + (64 << 10))
    for _ in range(4):
        last = persistent(heap.header, 0, 60000, 8)
    assert last + 60000 <= CHUNK
    assert persistent(heap.header, 0, 60000, 8) == 8  # the rest of the chunk is too small: it is wasted


def test_metadata_pages_count_once_each():
    heap = Heap("go1.27", 1)
    heap.fields.fact_meta_pages = 0
    nelems, bitmaps = 64, (4 * 65520) // 8
    mark_bits(heap.header, nelems, bitmaps)
    assert int(heap.fields.gcbits_next) == 4 and int(heap.fields.fact_meta_pages) == 4 * 16


def test_mark_bits_are_recycled_two_epochs_later():
    heap = Heap("go1.19", 1)
    for made in (1, 2, 3):
        mark_bits(heap.header, 1000, 400)
        assert int(heap.fields.gc_sys) // (64 << 10) >= made
        next_epoch(heap.header)
    assert int(heap.fields.gcbits_spare) == 1
    pages, gc = int(heap.fields.fact_meta_pages), int(heap.fields.gc_sys)
    mark_bits(heap.header, 1000, 400)
    assert (int(heap.fields.fact_meta_pages), int(heap.fields.gc_sys)) == (pages, gc)
    assert int(heap.fields.gcbits_spare) == 0 and int(heap.fields.gcbits_next) == 1


def test_span_records_are_recycled_last_in_first_out():
    heap = Heap("go1.27", 1)
    heap.make_room(1 << 14)
    held = [stack(heap.header, -1, 4) for _ in range(5)]  # no P: records come from the heap's own list
    for s in held:
        free_stack(heap.header, -1, s)
    check_heap(heap)
    assert int(heap.arrays["fixallocs"].inuse[SPANALLOC]) == 0
    pages = int(heap.fields.fact_meta_pages)
    assert [stack(heap.header, -1, 4) for _ in range(5)] == held[::-1]
    assert int(heap.fields.fact_meta_pages) == pages  # nothing of it is fresh
    check_heap(heap)


def test_a_p_keeps_records_for_itself():
    heap = Heap("go1.27", 1)
    heap.make_room(1 << 14)
    held = [stack(heap.header, 0, 4) for _ in range(200)]
    assert int(heap.arrays["fixallocs"].inuse[SPANALLOC]) == 256 * 160  # taken 64 at a time
    for s in held:
        free_stack(heap.header, 0, s)
    kept = int(heap.arrays["mcaches"].mspancache_len[0])
    assert kept == 128 and int(heap.arrays["fixallocs"].inuse[SPANALLOC]) == 128 * 160
    check_heap(heap)


def test_first_touches_of_arena_metadata_follow_the_heap():
    small = {}
    for version in ("go1.19", "go1.27"):
        heap = Heap(version, 1)
        heap.make_room(1 << 14)
        malloc(heap.header, 0, 64 << 20, 1)
        heap.fields.fact_meta_pages = 0
        malloc(heap.header, 0, 64 << 20, 1)
        small[version] = int(heap.fields.fact_meta_pages)
    # 16 pages of spans[], those of page bits and zeroedBase; before 1.27 the heap bitmap's 512 pages too
    assert small == {"go1.19": 512 + 16 + 1, "go1.27": 16 + 2}
