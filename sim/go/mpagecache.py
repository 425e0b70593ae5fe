"""The page cache of a P: 64 aligned pages taken from the page allocator at once (mirrors mpagecache.go).

Its free pages are marked in use in the page allocator, so they are invisible to other Ps and to the scavenger.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mgcscavenge_index import index_alloc, index_free
from sim.go.mpagealloc import MAX_SEARCH_ADDR, chunk_of, page_alloc_update, page_find
from sim.go.mpallocbits import find_bit_run64, find_run
from sim.go.state import CHUNK_PAGES, chunks, mcaches, summary4
from sim.jit import jit
from sim.words import ZERO, bit64, ctz64, ones, popcount64, shl64

PAGE_CACHE_PAGES = 64


@jit
def alloc_to_cache(h: Any, p: Any) -> None:
    """Give P the aligned block with the first free page; its cache stays empty when there is none. (allocToCache)"""
    c = mcaches(h)[p]
    c.pcache = ZERO
    c.pcache_scav = ZERO
    search = h[0].search_addr
    if search >> 9 >= h[0].end_chunk:
        return
    if summary4(h)[search >> 9] != ZERO:
        at, _ = find_run(chunks(h)[chunk_of(h, search)].bits, np.int64(1), search & (CHUNK_PAGES - 1))
        page = (search >> 9 << 9) + at
    else:
        page, _ = page_find(h, np.int64(1))
    if page < 0:
        h[0].search_addr = MAX_SEARCH_ADDR
        return
    base = page & ~np.int64(PAGE_CACHE_PAGES - 1)
    chunk = chunks(h)[chunk_of(h, base)]
    word = (base & (CHUNK_PAGES - 1)) >> 6
    c.pcache_base = base
    c.pcache = ~chunk.bits[word]
    c.pcache_scav = chunk.scav[word] & c.pcache
    chunk.scav[word] &= ~c.pcache
    chunk.bits[word] |= c.pcache
    page_alloc_update(h, base, np.int64(PAGE_CACHE_PAGES))
    index_alloc(h, chunk_of(h, base), popcount64(c.pcache))
    h[0].search_addr = base + PAGE_CACHE_PAGES - 1


@jit
def page_cache_alloc(h: Any, p: Any, npages: Any) -> Any:
    """npages from P's cache: (page or -1, scavenged pages among them). (pageCache.alloc)"""
    c = mcaches(h)[p]
    if c.pcache == ZERO:
        return np.int64(-1), np.int64(0)
    at = ctz64(c.pcache) if npages == 1 else find_bit_run64(c.pcache, npages)
    if at >= 64:
        return np.int64(-1), np.int64(0)
    mask = shl64(ones(npages), at)
    scav = popcount64(c.pcache_scav & mask)
    c.pcache &= ~mask
    c.pcache_scav &= ~mask
    return c.pcache_base + at, scav


@jit
def page_cache_flush(h: Any, p: Any) -> None:
    """Give the cached pages back. (pageCache.flush)"""
    c = mcaches(h)[p]
    if c.pcache == ZERO:
        return
    chunk = chunks(h)[chunk_of(h, c.pcache_base)]
    word = (c.pcache_base & (CHUNK_PAGES - 1)) >> 6
    chunk.bits[word] &= ~c.pcache
    chunk.scav[word] |= c.pcache_scav & c.pcache
    if not h[0].scavenge_index_bits:  # go1.19 forgets to: what a cache gives back is not found until more is freed there
        for i in range(64):
            if c.pcache & bit64(i) != ZERO:
                index_free(h, chunk_of(h, c.pcache_base), (word << 6) + i, np.int64(1))
    h[0].search_addr = min(h[0].search_addr, c.pcache_base + ctz64(c.pcache))
    page_alloc_update(h, c.pcache_base, np.int64(PAGE_CACHE_PAGES))
    c.pcache = ZERO
    c.pcache_scav = ZERO
