"""The scavenge index against the real one: its recorded answers, and the tables of mgcscavenge_test.go driven anew.

Pages count from the first chunk's first.
"""

import pytest

from sim.go import mgcscavenge_index
from sim.go.runtime import Heap
from sim.jit import PLAIN
from sim.units import Throw
from tests.go.scavenge_ops import (
    BASE,
    CHUNK,
    alloc,
    cache_alloc,
    chunked_heap,
    cursor,
    empty,
    fill_cache,
    find,
    flush_cache,
    free,
    generation,
    give_back,
    grow,
    index_change,
    recorded,
)

VERSIONS = ("go1.19", "go1.27")


# ---------------------------------------------------------------------------------------------------- recorded answers


def replayed(heap, row):
    """The answers of one recorded operation, in the record's order."""
    h, op, a = heap.header, row[0], row[1:]
    if op in (0, 4):
        page, scav = alloc(h, a[0]) if op == 0 else cache_alloc(h, 0, a[0])
        return [page - BASE if page >= 0 else -1, scav << 13]
    if op == 1:
        free(h, BASE + a[0], a[1])
        return []
    if op == 2:
        freed = give_back(h, a[0], a[1])
        return [freed, *cursor(heap, "bg"), *cursor(heap, "force")]
    if op == 3:
        fill_cache(h, 0)
        c = heap.arrays["mcaches"][0]
        signed = [int(c[name].astype("i8")) for name in ("pcache", "pcache_scav")]
        return [int(c["pcache_base"]) - BASE, *signed] if signed[0] else [-1, 0, 0]
    if op == 5:
        flush_cache(h, 0)
    elif op == 6:
        generation(h)
    else:
        index, page = find(h, a[0])
        return [index - (BASE >> 9) if index >= 0 else -1, page]
    return []


ARGUMENTS = {0: 1, 1: 2, 2: 2, 3: 0, 4: 1, 5: 0, 6: 0, 7: 1}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("number", range(6))
def test_every_recorded_answer(version, number):
    sequence = recorded()["index"][version][number]
    heap = chunked_heap(version, sequence["Chunks"])
    answers = 0
    for i, row in enumerate(sequence["Ops"][: 200 if PLAIN else None]):
        if row[0] == 3:
            heap.arrays["mcaches"][0]["pcache"] = 0  # a cache that ran empty was dropped
        expected = row[1 + ARGUMENTS[row[0]] :]
        assert replayed(heap, row) == expected, (i, row)
        answers += len(expected)
    if PLAIN:
        return
    assert answers > 1000
    for index, *expected in sequence["Final"]:
        at = heap.arrays["chunk_map"][(BASE >> 9) + index] - 1
        found = [int(heap.arrays["chunks"][at][name]) for name in ("in_use", "last_in_use", "gen", "flags")]
        assert found == expected, index


# ---------------------------------------------------------------------------------------------------- TestScavengeIndex

LAST = CHUNK - 1


def down(first, last, page=LAST):
    return [(index, page) for index in range(first, last - 1, -1)]


# (pages that become available, each [first, end)), then (chunk, page) found one after the other; chunk * 512 + page
INDEX = {
    "uninitialized": ([], []),
    "one page": ([(3, 4)], [(0, 3)]),
    "first page": ([(0, 1)], [(0, 0)]),
    "several pages": ([(9, 14)], [(0, 13)]),
    "whole chunk": ([(0, 512)], [(0, LAST)]),
    "last page": ([(511, 512)], [(0, LAST)]),
    "two chunks": ([(128, 512 + 128)], [(1, 127), (0, LAST)]),
    "two chunks, offset": ([(7 * 512 + 128, 8 * 512 + 129)], [(8, 128), (7, LAST)]),
    "seven chunks, offset": ([(6 * 512 + 11, 13 * 512 + 15)], [(13, 14), *down(12, 6)]),
    "32 chunks": ([(0, 32 * 512)], down(31, 0)),
    "32 chunks, offset": ([(3 * 512, 35 * 512)], down(34, 3)),
    "chunk by chunk": ([(i * 512, (i + 1) * 512) for i in range(32)], down(31, 0)),
    "the same chunk twice": ([(0, 512)] * 2, [(0, LAST)]),
    "the same 32 chunks twice": ([(0, 32 * 512)] * 2, down(31, 0)),
    "32 chunks twice, shifted": ([(4 * 512, 31 * 512), (5 * 512, 36 * 512)], down(35, 4)),
}


class Index:
    """An index of 64 chunks that were dense in the last generation and are empty for the scavenger."""

    def __init__(self, version, force):
        self.heap, self.force = Heap(version, 1), force
        self.heap.make_room(64 * CHUNK)
        for index in range(64):
            grow(self.heap.header, BASE + index * CHUNK)
        index_change(self.heap.header, BASE, 64 * CHUNK, 1)
        generation(self.heap.header)
        index_change(self.heap.header, BASE, 64 * CHUNK, 0)
        for index in range(64):
            empty(self.heap.header, (BASE >> 9) + index)
        fields = self.heap.fields
        fields.scav_search_bg = fields.scav_search_force = fields.scav_free_hwm = -1
        fields.scav_marked_bg = fields.scav_marked_force = 0

    def mark(self, first, limit):
        index_change(self.heap.header, BASE + first, limit - first, 1)
        index_change(self.heap.header, BASE + first, limit - first, 0)

    def find(self):
        index, page = find(self.heap.header, self.force)
        if index < 0:
            return None
        empty(self.heap.header, index)
        return index - (BASE >> 9), page

    def finds(self, expected):
        for one in expected:
            assert self.find() == one
        assert self.find() is None


@pytest.mark.parametrize("name", INDEX)
def test_what_the_background_finds_a_generation_later(name):
    marks, found = INDEX[name]
    index = Index("go1.27", 0)
    for first, limit in marks:
        index.mark(first, limit)
    assert index.find() is None  # dense until the generation ends
    generation(index.heap.header)
    index.finds(found)


@pytest.mark.parametrize(("version", "force"), [("go1.27", 1), ("go1.19", 0), ("go1.19", 1)])
@pytest.mark.parametrize("name", INDEX)
def test_what_force_and_go119_find_at_once(version, force, name):
    marks, found = INDEX[name]
    index = Index(version, force)
    for first, limit in marks:
        index.mark(first, limit)
    index.finds(found)


@pytest.mark.parametrize(("version", "force"), [("go1.27", 0), ("go1.27", 1), ("go1.19", 0)])
def test_marks_between_finds(version, force):
    index = Index(version, force)
    for i in range(32):
        index.mark(i * 512, (i + 1) * 512)
        generation(index.heap.header)
        assert index.find() == (i, LAST)
    assert index.find() is None


# ---------------------------------------------------------------------------------------------------- by hand


@pytest.mark.parametrize(("taken", "found"), [(495, True), (496, False)])
def test_a_chunk_is_dense_from_496_pages_on(taken, found):
    heap = chunked_heap("go1.27", [0])
    generation(heap.header)
    alloc(heap.header, taken)
    assert (find(heap.header, 0)[0] >= 0) == found
    assert find(heap.header, 1)[0] >= 0
    generation(heap.header)
    free(heap.header, BASE, 400)  # it was dense when the last generation ended
    assert (find(heap.header, 0)[0] >= 0) == found
    generation(heap.header)
    assert find(heap.header, 0) == (BASE >> 9, LAST)  # finds in vain have left the cursor, which was marked, where it was


@pytest.mark.skipif(not PLAIN, reason="compiled code does not see a changed constant")
def test_a_wrong_density_is_noticed(monkeypatch):
    monkeypatch.setattr(mgcscavenge_index, "DENSE_PAGES", 495)
    with pytest.raises(AssertionError):
        test_a_chunk_is_dense_from_496_pages_on(495, True)


def test_counts_out_of_range_are_noticed():
    heap = chunked_heap("go1.27", [0])
    with pytest.raises(Throw, match="allocated pages below zero"):
        index_change(heap.header, BASE, 1, 0)
    alloc(heap.header, 512)
    with pytest.raises(Throw, match="too many pages allocated in chunk"):
        index_change(heap.header, BASE, 1, 1)
