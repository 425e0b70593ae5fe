"""Giving memory back: which free pages go to the system (mirrors mgcscavenge.go, the choice of pages).

The highest addresses go first, the opposite end from allocation. In a chunk the highest free, unscavenged run is
taken, at most what is still asked for, from its top; where that would split a free huge page the run is extended
down to include all of it. Left out here, and part of the collector: pacing, the background cursor, the density rule.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mpallocbits import set_bits
from sim.go.state import CHUNK_PAGES, PAGE_SHIFT, chunk_map, chunks
from sim.jit import jit
from sim.words import bit64

HUGE_PAGES = 256  # runtime pages of a 2 MiB system page


@jit
def can_scavenge(chunk: Any, page: Any) -> Any:
    """Whether a page of a chunk is free and backed by memory."""
    return (chunk.bits[page >> 6] | chunk.scav[page >> 6]) & bit64(page & 63) == 0


@jit
def find_scavenge_candidate(chunk: Any, limit: Any) -> Any:
    """First page and length of what to release from a chunk, at most ``limit`` pages but for a huge page's sake.

    Length 0: nothing. (mgcscavenge.go:findScavengeCandidate)
    """
    end = np.int64(CHUNK_PAGES)
    while end > 0 and not can_scavenge(chunk, end - 1):
        end -= 1
    low = end
    while low > 0 and can_scavenge(chunk, low - 1):
        low -= 1
    start = end - min(end - low, limit)
    if start == end:
        return start, np.int64(0)
    huge_above = (start + HUGE_PAGES - 1) & ~np.int64(HUGE_PAGES - 1)
    huge_below = start & ~np.int64(HUGE_PAGES - 1)
    if huge_above <= end and huge_below >= low:
        start = huge_below
    return start, end - start


@jit
def scavenge(h: Any, nbytes: Any) -> Any:
    """Release free pages from the highest address down until nbytes are; the bytes released. (pageAlloc.scavenge)"""
    released = np.int64(0)
    index = h[0].end_chunk - 1
    while index >= h[0].start_chunk and released < nbytes:
        at = np.int64(chunk_map(h)[index]) - 1
        npages = np.int64(0)
        if at >= 0:
            left = (nbytes - released + (1 << PAGE_SHIFT) - 1) >> PAGE_SHIFT
            start, npages = find_scavenge_candidate(chunks(h)[at], left)
            set_bits(chunks(h)[at].scav, start, npages)
            released += npages << PAGE_SHIFT
        if npages == 0:
            index -= 1
    return released
