"""The five-level page allocator against a flat first fit over a plain Python set of free pages.

The address spaces are sparse and huge, so that the search crosses entries at every level of the tree.
"""

import random

import numpy as np
import pytest
from numba import int64, types, void

from sim.go.mpagealloc import merge_summaries, page_alloc, page_alloc_grow, page_free
from sim.go.mpallocbits import find_bit_run64, find_run, pack_sum, sum_end, sum_max, sum_start, summarize
from sim.go.runtime import Heap
from sim.go.state import LEVEL_BITS, heap_type
from sim.jit import PLAIN, entry

CHUNK = 512


@entry(types.UniTuple(int64, 2)(heap_type, int64))
def alloc(h, npages):
    return page_alloc(h, npages)


@entry(void(heap_type, int64, int64))
def free(h, page, npages):
    page_free(h, page, npages)


@entry(void(heap_type, int64, int64))
def grow(h, page, npages):
    page_alloc_grow(h, page, npages)


@entry(int64(types.uint64, int64))
def bit_run(word, n):
    return find_bit_run64(word, n)


@entry(types.UniTuple(int64, 2)(types.uint64[::1], int64, int64))
def run_in_chunk(bits, npages, search):
    return find_run(bits, npages, search)


@entry(types.uint64(types.uint64[::1]))
def summary_of(bits):
    return summarize(bits)


class Flat:
    """The slow oracle: the lowest address with n free pages in a row."""

    def __init__(self):
        self.free = []  # sorted list of [first, end) runs

    def add(self, first, end):
        self.free.append([first, end])
        self.free.sort()
        merged = [self.free[0]]
        for run in self.free[1:]:
            if run[0] == merged[-1][1]:
                merged[-1][1] = run[1]
            else:
                merged.append(run)
        self.free = merged

    def take(self, n):
        for run in self.free:
            if run[1] - run[0] >= n:
                run[0] += n
                if run[0] == run[1]:
                    self.free.remove(run)
                return run[0] - n
        return -1


def spaces():
    """Sets of chunks: dense, at both ends of the 48-bit space, and astride entries of each level."""
    yield "dense", list(range(100, 108))
    yield "both ends", [0, 1, (1 << 26) - 2, (1 << 26) - 1]
    for level in range(4):
        covered = 1 << (26 - sum(LEVEL_BITS[: level + 1]))  # chunks below one entry of the level
        edge = 5 * covered
        yield f"astride an entry of level {level}", [edge - 2, edge - 1, edge, edge + 1, edge + 7 * covered]


@pytest.mark.parametrize(("name", "chunks"), list(spaces()))
def test_first_fit_in_address_order(name, chunks):
    rng = random.Random(name)
    heap, flat, held = Heap("go1.27", 1), Flat(), []
    for c in chunks:
        heap.make_room(CHUNK)
        grow(heap.header, c * CHUNK, CHUNK)
        flat.add(c * CHUNK, (c + 1) * CHUNK)
    for _ in range(60 if PLAIN else 4000):
        if held and rng.random() < 0.48:
            page, n = held.pop(rng.randrange(len(held)))
            free(heap.header, page, n)
            flat.add(page, page + n)
        else:
            n = rng.choice((1, 1, 2, 3, 8, 17, 64, 100, 500, 513, 700))
            page, _ = alloc(heap.header, n)
            assert page == flat.take(n)
            if page >= 0:
                held.append((page, n))
    for page, n in held:
        free(heap.header, page, n)
        flat.add(page, page + n)
    longest = max(end - first for first, end in flat.free)
    assert alloc(heap.header, longest + 1)[0] == -1
    assert alloc(heap.header, longest)[0] == flat.take(longest)


def test_grown_pages_are_scavenged_once():
    heap = Heap("go1.27", 1)
    heap.make_room(CHUNK)
    grow(heap.header, CHUNK, CHUNK)
    assert alloc(heap.header, 5) == (CHUNK, 5)
    free(heap.header, CHUNK, 5)
    assert alloc(heap.header, 7) == (CHUNK, 2)  # five were used before


def random_bits(rng):
    text = "".join(rng.choice("01") * rng.choice((1, 3, 20, 64, 130)) for _ in range(40))[:CHUNK].ljust(CHUNK, "0")
    return text, np.array([int(text[i : i + 64][::-1], 2) for i in range(0, CHUNK, 64)], np.uint64)


def test_chunk_bitmaps_against_strings():
    rng = random.Random(7)
    for _ in range(3 if PLAIN else 300):
        text, bits = random_bits(rng)
        word = summary_of(bits)
        runs = text.split("1")
        assert word == int(pack(len(runs[0]), max(map(len, runs)), len(runs[-1])))
        for n in (1, 2, 9, 63, 64, 65, 200):
            search = rng.randrange(CHUNK)
            found, first_free = run_in_chunk(bits, n, search)
            assert found == text.find("0" * n, search)
            assert found < 0 or first_free == text.find("0", search)
        inverted = text[:64].replace("0", "x").replace("1", "0").replace("x", "1")
        for n in (1, 2, 5, 33, 64):
            at = text[:64].find("0" * n)
            assert bit_run(np.uint64(int(inverted[::-1], 2)), n) == (64 if at < 0 else at)


def pack(start, longest, end):
    return start | longest << 21 | end << 42


@entry(types.uint64(types.uint64[::1], int64))
def merged(entries, log_pages):
    return merge_summaries(entries, 0, log_pages)


@entry(types.UniTuple(int64, 3)(types.uint64))
def unpacked(word):
    return sum_start(word), sum_max(word), sum_end(word)


@entry(types.uint64(int64, int64, int64))
def packed(start, longest, end):
    return pack_sum(start, longest, end)


def test_merging_eight_summaries():
    whole = np.uint64(pack(512, 512, 512))
    none = np.uint64(0)
    assert unpacked(merged(np.array([whole] * 8), 9)) == (4096, 4096, 4096)
    entries = np.array([whole, none, np.uint64(pack(3, 40, 10)), whole, whole, np.uint64(pack(7, 9, 0)), none, whole])
    assert unpacked(merged(entries, 9)) == (512, 10 + 1024 + 7, 512)


def test_a_whole_root_entry_packs_into_a_word_of_its_own():
    assert packed(1 << 21, 1 << 21, 1 << 21) == np.uint64(1 << 63)
    assert unpacked(np.uint64(1 << 63)) == (1 << 21, 1 << 21, 1 << 21)
