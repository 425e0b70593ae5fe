"""The page allocator's metadata, mapped as the heap grows (mirrors mpagealloc_64bit.go and mpagealloc.go:grow).

The summaries of the whole 48-bit space are reserved at start, 585 MiB; growth maps whole 4 KiB pages of them, and the
root level at once. Chunk bitmaps come in arrays of 8192 (1 MiB), straight from the system. The scavenge index is mapped
from the lowest to the highest page the heap has needed: 8 bytes a chunk in go1.27; a bit a chunk in go1.19, whose first
growth maps it from index 0 on, 4 MiB for a heap at 0xc000000000.

Chunk numbers are address >> 22; Go's own are those plus 2**25, which matters to go1.19's index only.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mfixalloc import GC_SYS, SYS_PAGE, persistent_alloc, sys_alloc_meta
from sim.go.state import chunk_map, summary_pages
from sim.jit import jit
from sim.words import ZERO, bit64

SUMMARY_BYTES = sum(8 << (14 + 3 * level) for level in range(5))
_ENTRIES_PER_PAGE_LOG = 9  # 8-byte entries
CHUNK_MAP_LOG = 13  # chunks of one array of bitmaps
CHUNK_MAP_BYTES = 128 << CHUNK_MAP_LOG  # two bitmaps of 512 bits a chunk
_BITMAPS_PER_PAGE = 32
_CHUNK_MAP_BITS = 149792  # where the chunk maps' bits begin in ``summary_pages``, behind those of the five levels
_CHUNK_BIAS = 1 << 25  # Go's chunk numbers start at address -2**47
ADDR_RANGE = 16  # bytes of an addrRange
INITIAL_RANGES = 16


@jit
def first_visit(h: Any, bit: Any) -> Any:
    """1 when a bit of summary_pages was clear, and set it; else 0."""
    word = summary_pages(h)[bit >> 6]
    mask = bit64(bit & 63)
    if word & mask != ZERO:
        return np.int64(0)
    summary_pages(h)[bit >> 6] = word | mask
    return np.int64(1)


@jit
def map_ready(h: Any, npages: Any) -> None:
    """Map reserved 4 KiB pages of the page allocator's tables. (mem.go:sysMap, sysUsed)"""
    sys_alloc_meta(h, npages * SYS_PAGE, GC_SYS)
    h[0].reserved -= npages * SYS_PAGE


@jit
def summary_grow(h: Any, lo: Any, hi: Any) -> None:
    """Map the summaries of chunks [lo, hi). (pageAlloc.sysGrow)"""
    if h[0].end_chunk == 0:
        map_ready(h, np.int64(32))  # a block of the root level is the whole level
        h[0].summary_mapped += 32
    base = np.int64(0)
    for level in range(5):
        shift = 3 * (4 - level) + _ENTRIES_PER_PAGE_LOG
        fresh = np.int64(0)
        for page in range(lo >> shift, ((hi - 1) >> shift) + 1):
            fresh += first_visit(h, base + page)
        h[0].fact_meta_pages += fresh
        if level > 0:
            map_ready(h, fresh)
            h[0].summary_mapped += fresh
        if level == (2 if h[0].scavenge_index_bits else 4):  # as many chunks as a page of the scavenge index covers
            h[0].fact_meta_pages += fresh
        base += np.int64(32) << (3 * level)


@jit
def scavenge_index_grow(h: Any, lo: Any, hi: Any) -> None:
    """Map the scavenge index over chunks [lo, hi), contiguous with what it has. (scavengeIndex.grow)"""
    shift = 15 if h[0].scavenge_index_bits else 9
    need_min = (lo ^ _CHUNK_BIAS) >> shift
    need_max = (((hi - 1) ^ _CHUNK_BIAS) >> shift) + 1
    have_min = h[0].scav_index_min
    have_max = h[0].scav_index_max
    need_max = max(need_max, have_min)
    if need_min > have_max and (have_max != 0 or h[0].scavenge_index_bits):
        need_min = have_max
    if have_max == 0:
        fresh = need_max - need_min
        have_min = need_min
    else:
        fresh = max(have_min - need_min, np.int64(0)) + max(need_max - have_max, np.int64(0))
    map_ready(h, fresh)
    h[0].scav_index_min = min(have_min, need_min)
    h[0].scav_index_max = max(have_max, need_max)


@jit
def chunk_bitmaps_grow(h: Any, lo: Any, hi: Any) -> None:
    """Make room for the bitmaps of chunks [lo, hi), which exist from then on. (pageAlloc.grow, its end)"""
    for index in range(lo >> CHUNK_MAP_LOG, ((hi - 1) >> CHUNK_MAP_LOG) + 1):
        if first_visit(h, _CHUNK_MAP_BITS + index):
            sys_alloc_meta(h, np.int64(CHUNK_MAP_BYTES), GC_SYS)
            h[0].chunk_maps += 1
    first = lo & ~np.int64(_BITMAPS_PER_PAGE - 1)
    while first < hi:
        touched = False
        for i in range(first, first + _BITMAPS_PER_PAGE):
            if chunk_map(h)[i] != 0:
                touched = True
                break
        if not touched:
            h[0].fact_meta_pages += 1
        first += _BITMAPS_PER_PAGE


@jit
def ranges_grow(h: Any, lo: Any, hi: Any) -> None:
    """Enter [lo, hi) in the list of contiguous stretches. (mranges.go:addrRanges.add)"""
    change = np.int64(1)
    if lo > 0 and chunk_map(h)[lo - 1] != 0:
        change -= 1
    if hi < 1 << 26 and chunk_map(h)[hi] != 0:
        change -= 1
    if change > 0 and h[0].in_use_ranges + 1 > h[0].in_use_cap:
        ranges_make_room(h, 2 * h[0].in_use_cap)
    h[0].in_use_ranges += change


@jit
def ranges_make_room(h: Any, cap: Any) -> None:
    """A longer array of address ranges; the old one is leaked. (mranges.go:addrRanges.init and add)"""
    persistent_alloc(h, np.int64(-1), max(cap, INITIAL_RANGES) * ADDR_RANGE, np.int64(8), GC_SYS)
    h[0].in_use_cap = max(cap, INITIAL_RANGES)


@jit
def page_alloc_sys_grow(h: Any, lo: Any, hi: Any) -> None:
    """All metadata of new chunks [lo, hi), before they are entered anywhere. (pageAlloc.grow)"""
    summary_grow(h, lo, hi)
    scavenge_index_grow(h, lo, hi)
    chunk_bitmaps_grow(h, lo, hi)
    ranges_grow(h, lo, hi)
