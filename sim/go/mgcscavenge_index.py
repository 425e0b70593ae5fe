"""Which chunks have free memory that could be given back (mirrors mgcscavenge.go:scavengeIndex).

Every 4 MiB chunk has a flag "something to scavenge", set by each free and cleared by a scavenger that found nothing. A
cursor stands at the highest page that may be worth a look; `index_find` walks down from it.

*go1.27* counts the pages in use of each chunk. One with at least 496 of its 512 pages in use now, or at the end of the
last generation, is *dense*: the heap is packed upwards from low addresses, so its holes will soon be filled again, and
giving them back would break a huge page for nothing. The background scavenger and growth of the
heap pass over dense chunks; a memory limit and FreeOSMemory (``force``) do not. Each has a cursor of its own. The one
for force rises with each free; that of the background only with the generation, at mark termination, to the highest page
freed since the last one: what is freed now can be given back after the next collection at the earliest.

*go1.19* (``scavenge_index_bits``) has the flags and one cursor, which rises with each free; no generation.

A cursor is marked when it rises, and unmarked when it falls. In the runtime this keeps a racing find from losing the
rise; here nothing races, yet it shows: a find that runs out of chunks leaves a marked cursor where it is.

Invariants: ``in_use`` counts the chunk's pages in use but for those just being scavenged; no flagged chunk lies above the
cursor that rises with each free. Callers hold the heap lock, but for `index_find`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.state import CHUNK_PAGES, NO_PAGE, chunk_map, chunks
from sim.jit import jit
from sim.units import Throw

DENSE_PAGES = 496  # scavChunkHiOccPages: 0.96875 of 512
HAS_FREE = 1  # chunk.flags (scavChunkHasFree)


@jit
def raise_force(h: Any, page: Any) -> None:
    """Move the cursor that rises with each free up to a page. (scavengeIndex.free; mark in go1.19)"""
    if h[0].scav_search_force < page:
        h[0].scav_search_force = page
        h[0].scav_marked_force = 1


@jit
def begin_generation(h: Any, at: Any) -> None:
    """Note a chunk's pages in use at the end of the last generation, at its first change in this one."""
    chunk = chunks(h)[at]
    if chunk.gen != h[0].scav_gen:
        chunk.last_in_use = chunk.in_use
        chunk.gen = h[0].scav_gen


@jit
def index_alloc(h: Any, at: Any, npages: Any) -> None:
    """npages of the chunk at position ``at`` were allocated. (scavengeIndex.alloc)"""
    if h[0].scavenge_index_bits:
        return
    chunk = chunks(h)[at]
    if chunk.in_use + npages > CHUNK_PAGES:
        raise Throw("too many pages allocated in chunk?")
    begin_generation(h, at)
    chunk.in_use += npages
    if chunk.in_use == CHUNK_PAGES:
        chunk["flags"] = 0


@jit
def index_free(h: Any, at: Any, first: Any, npages: Any) -> None:
    """npages from page ``first`` of the chunk at position ``at`` on were freed. (scavengeIndex.free; mark in go1.19)"""
    chunk = chunks(h)[at]
    page = (chunk.index << 9) + first + npages - 1
    if not h[0].scavenge_index_bits:
        if chunk.in_use < npages:
            raise Throw("allocated pages below zero?")
        begin_generation(h, at)
        chunk.in_use -= npages
        h[0].scav_free_hwm = max(h[0].scav_free_hwm, page)
    chunk["flags"] = HAS_FREE
    raise_force(h, page)


@jit
def next_gen(h: Any) -> None:
    """Begin a generation, at mark termination: peak use, just before sweeping frees. (scavengeIndex.nextGen)"""
    if h[0].scavenge_index_bits:
        return
    h[0].scav_gen += 1
    if h[0].scav_search_bg < h[0].scav_free_hwm:
        h[0].scav_search_bg = h[0].scav_free_hwm
        h[0].scav_marked_bg = 1
    h[0].scav_free_hwm = NO_PAGE


@jit
def set_empty(h: Any, at: Any) -> None:
    """A scavenger found nothing in the chunk at position ``at``. (scavengeIndex.setEmpty; clear in go1.19)"""
    chunks(h)[at]["flags"] = 0


@jit
def should_scavenge(h: Any, at: Any, force: Any) -> Any:
    """Whether a scavenger should look into the chunk at position ``at``. (scavChunkData.shouldScavenge)"""
    chunk = chunks(h)[at]
    if chunk["flags"] == 0:
        return False
    if force:
        return True
    if chunk.gen == h[0].scav_gen and chunk.last_in_use >= DENSE_PAGES:
        return False
    return chunk.in_use < DENSE_PAGES


@jit
def index_find(h: Any, force: Any) -> Any:
    """The highest chunk that may have something to scavenge: (chunk index, page in it to search down from).

    (-1, 0) when there is none. Lowers the cursor to what it found. (scavengeIndex.find)
    """
    background = not force and not h[0].scavenge_index_bits
    search = h[0].scav_search_bg if background else h[0].scav_search_force
    marked = h[0].scav_marked_bg if background else h[0].scav_marked_force
    if search == NO_PAGE:
        return np.int64(-1), np.int64(0)
    start = search >> 9
    index = start
    while index >= h[0].start_chunk:
        at = np.int64(chunk_map(h)[index]) - 1
        if at >= 0 and should_scavenge(h, at, not background):
            break
        index -= 1
    if index == start:
        return index, search & (CHUNK_PAGES - 1)
    found = index >= h[0].start_chunk
    if not found and marked:
        return np.int64(-1), np.int64(0)
    search = (index << 9) + CHUNK_PAGES - 1 if found else np.int64(NO_PAGE)
    if background:
        h[0].scav_search_bg = search
        h[0].scav_marked_bg = 0
    else:
        h[0].scav_search_force = search
        h[0].scav_marked_force = 0
    if not found:
        return np.int64(-1), np.int64(0)
    return index, np.int64(CHUNK_PAGES - 1)
