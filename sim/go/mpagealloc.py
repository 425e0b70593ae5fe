"""The page allocator: address-ordered first fit over sparse bitmaps (mirrors mpagealloc.go).

Every 4 MiB chunk has a bitmap of pages in use and one of scavenged pages. Above them stands a radix tree of
summaries for the whole 48-bit space: level 4 has an entry a chunk, each level above an entry for 8 below, level 0
16,384 roots of 16 GiB. ``search_addr`` is a page below which nothing is free.

Invariants: a summary equals what its bitmaps say; no free page lies below search_addr; a page in use may have a stale
scavenged bit only until it is allocated, never after. Callers hold the heap lock.
Left out: the address ranges (inUse) that Go keeps to skip holes; summaries of holes are zero here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mgcscavenge_index import index_alloc, index_free
from sim.go.mpagealloc_64bit import (
    SUMMARY_BYTES,
    page_alloc_sys_grow,
    ranges_make_room,
)
from sim.go.mpallocbits import (
    clear_bits,
    count_bits,
    find_run,
    pack_sum,
    set_bits,
    sum_end,
    sum_max,
    sum_start,
    summarize,
)
from sim.go.state import (
    CHUNK_PAGES,
    PAGE_SHIFT,
    chunk_map,
    chunks,
    summary0,
    summary1,
    summary2,
    summary3,
    summary4,
)
from sim.jit import jit
from sim.units import Throw
from sim.words import ALL, ZERO

MAX_SEARCH_ADDR = 1 << 35  # one past the last page: nothing is free


@jit
def summary(h: Any, level: Any) -> Any:
    """The summaries of a level."""
    if level == 4:
        return summary4(h)
    if level == 3:
        return summary3(h)
    if level == 2:
        return summary2(h)
    if level == 1:
        return summary1(h)
    return summary0(h)


@jit
def log_pages(level: Any) -> Any:
    """log2 of the pages an entry of a level covers. (levelLogPages)"""
    return 21 - 3 * level


@jit
def chunk_of(h: Any, page: Any) -> Any:
    """Position of a page's chunk in the chunk table; throws where the heap has not grown to."""
    at = np.int64(chunk_map(h)[page >> 9]) - 1
    if at < 0:
        raise Throw("page of no chunk")
    return at


@jit
def merge_summaries(level_entries: Any, first: Any, below_log: Any) -> Any:
    """Summary of eight entries that cover 2**below_log pages each. (mergeSummaries)"""
    whole = np.int64(1) << below_log
    start = np.int64(0)
    longest = np.int64(0)
    end = np.int64(0)
    for i in range(8):
        word = level_entries[first + i]
        s = sum_start(word)
        if start == i << below_log:
            start += s
        longest = max(longest, end + s, sum_max(word))
        end = end + whole if s == whole else sum_end(word)
    return pack_sum(start, longest, end)


@jit
def page_alloc_update(h: Any, page: Any, npages: Any) -> None:
    """Recompute the summaries over pages whose bitmaps changed. (pageAlloc.update)"""
    lo = page >> 9
    hi = (page + npages - 1) >> 9
    leaves = summary4(h)
    for index in range(lo, hi + 1):
        leaves[index] = summarize(chunks(h)[chunk_of(h, index << 9)].bits)
    for level in range(3, -1, -1):
        lo >>= 3
        hi >>= 3
        below = summary(h, level + 1)
        entries = summary(h, level)
        changed = False
        for index in range(lo, hi + 1):
            word = merge_summaries(below, index * 8, log_pages(level + 1))
            if word != entries[index]:
                entries[index] = word
                changed = True
        if not changed:
            return


@jit
def page_alloc_init(h: Any) -> None:
    """Reserve the tables of the whole address space. (pageAlloc.init)"""
    ranges_make_room(h, np.int64(0))
    h[0].reserved += SUMMARY_BYTES + (1 << 23 if h[0].scavenge_index_bits else 1 << 29)


@jit
def page_alloc_grow(h: Any, page: Any, npages: Any) -> None:
    """Enter new chunks, all free and scavenged; page and npages are multiples of 512. (pageAlloc.grow)"""
    if (page | npages) & (CHUNK_PAGES - 1):
        raise Throw("grow by something else than whole chunks")
    page_alloc_sys_grow(h, page >> 9, (page + npages) >> 9)
    h[0].reserved -= npages << PAGE_SHIFT
    for index in range(page >> 9, (page + npages) >> 9):
        at = np.int64(chunk_map(h)[index]) - 1
        if at >= 0:
            raise Throw("grow over a chunk that exists")
        at = h[0].nchunks
        if at >= h[0].chunks_len:
            raise Throw("chunk table full")
        h[0].nchunks += 1
        chunk_map(h)[index] = at + 1
        chunk = chunks(h)[at]
        chunk.index = index
        for i in range(8):
            chunk.bits[i] = ZERO
            chunk.scav[i] = ALL
    if h[0].end_chunk == 0 or page >> 9 < h[0].start_chunk:
        h[0].start_chunk = page >> 9
    h[0].end_chunk = max(h[0].end_chunk, (page + npages) >> 9)
    h[0].search_addr = min(h[0].search_addr, page)
    page_alloc_update(h, page, npages)


@jit
def page_alloc_range(h: Any, page: Any, npages: Any) -> Any:
    """Mark pages in use; how many of them were scavenged. (pageAlloc.allocRange)"""
    scav = np.int64(0)
    at = page
    end = page + npages
    while at < end:
        n = min(end - at, CHUNK_PAGES - (at & (CHUNK_PAGES - 1)))
        position = chunk_of(h, at)
        chunk = chunks(h)[position]
        first = at & (CHUNK_PAGES - 1)
        scav += count_bits(chunk.scav, first, n)
        clear_bits(chunk.scav, first, n)
        set_bits(chunk.bits, first, n)
        index_alloc(h, position, n)
        at += n
    page_alloc_update(h, page, npages)
    return scav


@jit
def mark_random_padding_pages(h: Any, page: Any, npages: Any) -> None:
    """Block pages of one chunk for ever: in use, yet scavenged. (pageAlloc.markRandomPaddingPages)"""
    if npages == 0:
        return
    chunk = chunks(h)[chunk_of(h, page)]
    set_bits(chunk.bits, page & (CHUNK_PAGES - 1), npages)
    set_bits(chunk.scav, page & (CHUNK_PAGES - 1), npages)
    index_alloc(h, chunk_of(h, page), npages)
    h[0].padding_start = page
    h[0].padding_pages = npages
    page_alloc_update(h, page, npages)


@jit
def first_mapped(h: Any, page: Any) -> Any:
    """The first page at or after ``page`` in a chunk that exists; MAX_SEARCH_ADDR if none. (findMappedAddr)"""
    index = page >> 9
    index = max(index, h[0].start_chunk)
    page = max(page, index << 9)
    while index < h[0].end_chunk:
        if chunk_map(h)[index] != 0:
            return page
        index += 1
        page = index << 9
    return np.int64(MAX_SEARCH_ADDR)


@jit
def scan_block(h: Any, level: Any, first: Any, npages: Any) -> Any:
    """Look for npages among the entries of one block of a level, in address order.

    Returns (page or -1, entry to descend into or -1, first entry seen with free pages or -1).
    A run may end one entry's pages and begin the next's: both ends count together.
    """
    entries = summary(h, level)
    shift = log_pages(level)
    n = 1 << 14 if level == 0 else 8
    whole = np.int64(1) << shift
    j = first
    at_search = h[0].search_addr >> shift
    if first <= at_search < first + n:
        j = at_search
    run: Any = np.int64(0)
    start: Any = np.int64(0)
    seen = np.int64(-1)
    while j < first + n:
        word = entries[j]
        if word == ZERO:
            run = 0
            j += 1
            continue
        if seen < 0:
            seen = j
        s = sum_start(word)
        if run + s >= npages:
            if run == 0:
                start = j << shift
            return start, np.int64(-1), seen
        if sum_max(word) >= npages:
            return np.int64(-1), j, seen
        if run > 0 and s == whole:
            run += whole
        else:
            run = sum_end(word)
            start = ((j + 1) << shift) - run
        j += 1
    return np.int64(-1), np.int64(-1), seen


@jit
def page_find(h: Any, npages: Any) -> Any:
    """First run of npages in address order: (page or -1, page below which nothing is free). (pageAlloc.find)"""
    # [first_free, bound) holds the lowest free page: narrowed while the search descends through it, kept otherwise
    first_free = np.int64(0)
    bound: Any = np.int64(MAX_SEARCH_ADDR)
    block = np.int64(0)
    for level in range(5):
        h[0].levels_walked += 1
        page, entry, seen = scan_block(h, level, block, npages)
        if seen >= 0 and first_free <= seen << log_pages(level) < bound:
            first_free = seen << log_pages(level)
            bound = (seen + 1) << log_pages(level)
        if page >= 0:
            return page, first_mapped(h, first_free)
        if entry < 0:
            if level == 0:
                return np.int64(-1), np.int64(MAX_SEARCH_ADDR)
            raise Throw("bad summary data")
        block = entry << 3
    base = block >> 3 << 9
    at, free = find_run(chunks(h)[chunk_of(h, base)].bits, npages, np.int64(0))
    if at < 0:
        raise Throw("bad summary data")
    if first_free <= base + free < bound:
        first_free = base + free
    return base + at, first_mapped(h, first_free)


@jit
def page_alloc(h: Any, npages: Any) -> Any:
    """Take the first run of npages: (page or -1, scavenged pages among them). (pageAlloc.alloc)"""
    search = h[0].search_addr
    if search >> 9 >= h[0].end_chunk:
        return np.int64(-1), np.int64(0)
    page = np.int64(-1)
    below = np.int64(0)
    offset = search & (CHUNK_PAGES - 1)
    if CHUNK_PAGES - offset >= npages and sum_max(summary4(h)[search >> 9]) >= npages:
        at, free = find_run(chunks(h)[chunk_of(h, search)].bits, npages, offset)
        if at >= 0:
            page = (search >> 9 << 9) + at
        if free >= 0:
            below = (search >> 9 << 9) + free
    if page < 0:
        page, below = page_find(h, npages)
        if page < 0:
            if npages == 1:
                h[0].search_addr = MAX_SEARCH_ADDR
            return np.int64(-1), np.int64(0)
    scav = page_alloc_range(h, page, npages)
    h[0].search_addr = max(h[0].search_addr, below)
    return page, scav


@jit
def page_free(h: Any, page: Any, npages: Any) -> None:
    """Give pages back. (pageAlloc.free)"""
    h[0].search_addr = min(h[0].search_addr, page)
    at = page
    end = page + npages
    while at < end:
        n = min(end - at, CHUNK_PAGES - (at & (CHUNK_PAGES - 1)))
        position = chunk_of(h, at)
        clear_bits(chunks(h)[position].bits, at & (CHUNK_PAGES - 1), n)
        index_free(h, position, at & (CHUNK_PAGES - 1), n)
        at += n
    page_alloc_update(h, page, npages)
