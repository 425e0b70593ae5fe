"""Assists and blocks of globals, which nobody leaves half scanned: against a list of jobs taken one after the other."""

import random

import numpy as np
import pytest
from numba import int64

from sim.go import mgcmark
from sim.go.runtime import Heap
from sim.go.state import heap_type
from sim.jit import bare, entry

KIB = 1 << 10


@entry(int64(heap_type, int64))
def whole_block(h, work):
    return mgcmark.whole_block(bare(h), np.int64(work))


def a_heap(globals_bytes, heap_work, scanned=0, version="go1.19"):
    """Marking that has done so much of the globals."""
    heap = Heap(version, 1)
    heap.fields.mark_works[:] = globals_bytes, 900, heap_work
    heap.fields.globals_scan_work = scanned
    return heap


def blocks(globals_bytes, bss):
    """Where root jobs end: of .data, then of .bss."""
    data = max(globals_bytes - bss, 0)
    return [*range(256 * KIB, data, 256 * KIB), data, *range(data + 256 * KIB, globals_bytes, 256 * KIB), globals_bytes]


def taken(globals_bytes, bss, scanned, wanted):
    """Scan work of who takes jobs until it did what is wanted: globals by the block, all else by the byte."""
    done, at = 0, scanned
    for end in blocks(globals_bytes, bss):
        if done < wanted and at < end:
            done, at = done + end - at, end
    return max(done, wanted)


@pytest.mark.parametrize("seed", range(20))
def test_an_assist_ends_with_a_block(seed):
    rng = random.Random(seed)
    size = rng.randrange(1, 2000 * KIB)
    scanned = rng.choice((0, rng.randrange(size), size))
    heap = a_heap(size, 10**9, scanned)
    for wanted in (1, 64 * KIB, rng.randrange(1, 900 * KIB), 3000 * KIB):
        assert whole_block(heap.header, wanted) == taken(size, heap.facts.runtime_bss, scanned, wanted)


def test_the_first_assist_of_a_cycle_scans_all_globals_of_a_small_program():
    """A program's .data of 33,360 bytes and .bss of 193,728, go1.19: 271 of 391 first assists did 225,000 to 245,000."""
    assert whole_block(a_heap(33_360 + 193_728, 10**6).header, 64 * KIB) == pytest.approx(235_000, rel=0.04)


def test_the_first_assist_of_a_cycle_leaves_the_bss_of_a_program_whose_data_is_large():
    """Of go1.27's html/template tests, .data of 100,138 bytes and .bss of 141,912; .data is guessed from the sum of both."""
    heap = a_heap(100_138 + 141_912, 10**6, version="go1.27")
    data = whole_block(heap.header, 64 * KIB)
    assert data == pytest.approx(100_138, rel=0.15)
    heap.fields.globals_scan_work = data
    assert whole_block(heap.header, 64 * KIB) == 100_138 + 141_912 - data
