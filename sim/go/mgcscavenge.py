"""Giving memory back: which free pages go to the system, and when allocation does it (mirrors mgcscavenge.go).

The highest addresses go first, the opposite end from allocation. In the chunk that the index names
(mgcscavenge_index.py) the highest free, unscavenged run is taken, at most what is still asked for, from its top; where
that would split a free huge page the run is extended down to include all of it. The run is found and marked in use
under the heap lock, given back without the lock (madvise), and freed and marked scavenged under the lock again:
meanwhile nobody can allocate it. Scavenging so takes `scavenge_begin`, then `scavenge_end`, on a P, which remembers the
run; `scavenge_one` does both at once, for whoever lets no time pass in between.

What the system then takes is the memory behind the run's 4 KiB pages (``ARENA.touched``): they fault again when next
touched. ``resident_pages`` counts those that are left, the heap's part of the RSS.

Scavenging at allocation (`bytes_to_scavenge`) and in the background (bgscavenge.py) work towards goals set at the end of
each cycle (mgcscavenge_pacer.py). Callers hold the heap lock, but for `bytes_to_scavenge`.

Left out: physical pages above 8 KiB, and MADV_NOHUGEPAGE and MADV_HUGEPAGE of go1.19: a huge page that was given back in
part faults in whole again, where the real one stays small.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mgcscavenge_index import index_find, set_empty
from sim.go.mpagealloc import page_alloc_update
from sim.go.mpallocbits import clear_bits, set_bits
from sim.go.state import (
    ARENA_PAGES,
    CHUNK_PAGES,
    NO_GOAL,
    PAGE_SHIFT,
    PAGE_SIZE,
    arena_map,
    arenas,
    chunk_map,
    chunks,
    procs,
)
from sim.jit import jit
from sim.words import ALL, bit64, ones, popcount64, shl64

HUGE_PAGES = 256  # runtime pages of a 2 MiB system page


@jit
def can_scavenge(chunk: Any, page: Any) -> Any:
    """Whether a page of a chunk is free and backed by memory."""
    return (chunk.bits[page >> 6] | chunk.scav[page >> 6]) & bit64(page & 63) == 0


@jit
def find_scavenge_candidate(chunk: Any, search: Any, limit: Any) -> Any:
    """First page and length of what to release from a chunk, at most ``limit`` pages but for a huge page's sake.

    Looks at the 64 pages around page ``search`` and below. Length 0: nothing. (mgcscavenge.go:findScavengeCandidate)
    """
    word = search >> 6
    while word >= 0 and chunk.bits[word] | chunk.scav[word] == ALL:
        word -= 1
    end = (word + 1) << 6
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
def resident(h: Any, page: Any, npages: Any, clear: Any) -> Any:
    """How many 4 KiB pages of a run within one arena memory stands behind; it is gone afterwards if ``clear``."""
    at = np.int64(arena_map(h)[page >> 13]) - 1
    if at < 0:
        return np.int64(0)
    touched = arenas(h)[at].touched
    first = (page & (ARENA_PAGES - 1)) << 1
    end = first + (npages << 1)
    count = np.int64(0)
    while first < end:
        n = min(end - first, 64 - (first & 63))
        mask = shl64(ones(n), first & 63)
        count += popcount64(touched[first >> 6] & mask)
        if clear:
            touched[first >> 6] &= ~mask
        first += n
    return count


@jit
def candidate(h: Any, index: Any, search: Any, nbytes: Any) -> Any:
    """What to release of a chunk, at most nbytes or so: (position, first page in it, pages); flagged empty if nothing."""
    at = np.int64(chunk_map(h)[index]) - 1
    npages = nbytes // PAGE_SIZE + (nbytes % PAGE_SIZE != 0)
    if h[0].scavenge_index_bits:
        search = np.int64(CHUNK_PAGES - 1)
    first, n = find_scavenge_candidate(chunks(h)[at], search, npages)
    if n == 0:
        set_empty(h, at)
    return at, first, n


@jit
def scavenge_begin(h: Any, p: Any, index: Any, search: Any, nbytes: Any) -> Any:
    """The first half of scavengeOne, under the lock: find a run in a chunk and mark it in use; the P remembers it.

    Returns (pages, 4 KiB pages of them that memory stands behind); 0 pages: nothing there, and nothing to end.
    """
    at, first, n = candidate(h, index, search, nbytes)
    if n == 0:
        return np.int64(0), np.int64(0)
    page = (index << 9) + first
    set_bits(chunks(h)[at].bits, first, n)
    page_alloc_update(h, page, n)
    procs(h)[p].scav_page = page
    procs(h)[p].scav_npages = n
    return n, resident(h, page, n, False)


@jit
def scavenge_end(h: Any, p: Any) -> Any:
    """The second half, under the lock again, the run given back: free it and mark it scavenged. Bytes released.

    The runtime moves the ledger just before it asks for the lock again; here all of it moves with the lock held.
    """
    page = procs(h)[p].scav_page
    n = procs(h)[p].scav_npages
    procs(h)[p].scav_npages = 0
    at = np.int64(chunk_map(h)[page >> 9]) - 1
    clear_bits(chunks(h)[at].bits, page & (CHUNK_PAGES - 1), n)
    page_alloc_update(h, page, n)
    h[0].search_addr = min(h[0].search_addr, page)
    return released(h, at, page, n)


@jit
def released(h: Any, at: Any, page: Any, npages: Any) -> Any:
    """Account for a run given back to the system, of the chunk at position ``at``; its bytes."""
    set_bits(chunks(h)[at].scav, page & (CHUNK_PAGES - 1), npages)
    h[0].resident_pages -= resident(h, page, npages, True)
    nbytes = npages << PAGE_SHIFT
    h[0].heap_released += nbytes
    h[0].heap_free -= nbytes
    h[0].mapped_ready -= nbytes
    return nbytes


@jit
def scavenge_one(h: Any, index: Any, search: Any, nbytes: Any) -> Any:
    """Release one run of a chunk, from page ``search`` down, at most nbytes or so; the bytes. (pageAlloc.scavengeOne)

    The free pages stay free throughout: what comes out is what the two halves leave. Counts the run in
    ``fact_scav_runs`` and its resident pages in ``fact_scav_pages``.
    """
    at, first, n = candidate(h, index, search, nbytes)
    if n == 0:
        return np.int64(0)
    page = (index << 9) + first
    h[0].fact_scav_runs += 1
    h[0].fact_scav_pages += resident(h, page, n, False)
    return released(h, at, page, n)


@jit
def scavenge(h: Any, nbytes: Any, force: Any, heeds_limiter: Any) -> Any:
    """Release free pages from the highest address down until nbytes are, or nothing is left; the bytes released.

    ``force``: dense chunks too. ``heeds_limiter``: stop after a run while the CPU limiter is on. (pageAlloc.scavenge)
    """
    total = np.int64(0)
    while total < nbytes:
        index, search = index_find(h, force)
        if index < 0:
            break
        total += scavenge_one(h, index, search, nbytes - total)
        if heeds_limiter and h[0].limiter_enabled:
            break
    return total


@jit
def free_os_memory(h: Any) -> Any:
    """Release everything that is free, at once; the bytes. (mheap.go:scavengeAll, for debug.FreeOSMemory)"""
    return scavenge(h, np.int64(NO_GOAL), True, False)


@jit
def bytes_to_scavenge(h: Any, scav: Any, growth: Any) -> Any:
    """What an allocation should release first: (bytes, whether by force). (mheap.go:allocSpan, from HaveSpan on)

    ``scav``: bytes of its pages that it will take back from the system; ``growth``: bytes the heap grew by for it. By
    force if a memory limit asks for it, in go1.27 (go1.19 knows no other way).
    """
    nbytes = np.int64(0)
    force = False
    if not h[0].limiter_enabled and h[0].mapped_ready > h[0].memory_limit - scav:
        nbytes = h[0].mapped_ready - (h[0].memory_limit - scav)
        force = True
    if growth > 0 and h[0].gc_percent_goal != NO_GOAL:
        overage = h[0].heap_in_use + h[0].heap_free + growth - h[0].gc_percent_goal
        nbytes = max(nbytes, min(growth, overage))
    return nbytes, force
