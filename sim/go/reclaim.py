"""The page reclaimer: memory is freed before the heap grows (mirrors mheap.go:reclaim, reclaimChunk and alloc).

While a sweep is under way, whoever wants npages of fresh heap first gives back at least as many. It looks for spans
without a single marked object, in the order of addresses, 512 pages at a time: every arena has a bit for the first page
of each span in use and one for those of them with a marked object. Pages found in excess, and those `sweep_one` frees,
are credit for the next who asks. The entries of spans swept so stay in the sets of spans to be swept, stale.

Invariants: the search only goes forward, each page is looked at once in a cycle; ``reclaim_credit`` is never negative.

It stands apart from mheap.py because it sweeps, and sweeping frees spans there.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mgcsweep import sweep, sweep_done, try_acquire
from sim.go.mheap import alloc_span
from sim.go.state import ARENA_PAGES, NEVER, SPAN_IN_USE, arenas, page_span, spans
from sim.jit import jit
from sim.words import ZERO, bit64, ctz64

PAGES_PER_RECLAIMER_CHUNK = 512


@jit
def reclaim_chunk(h: Any, p: Any, index: Any) -> Any:
    """Sweep the spans without a marked object that start in 512 pages of an arena: pages given back. (reclaimChunk)

    ``index`` counts pages over all arenas, in the order in which they were made.
    """
    if h[0].sweep_drained:
        return np.int64(0)
    at = index // ARENA_PAGES
    first = index & (ARENA_PAGES - 1)
    arena = arenas(h)[at]
    npages = np.int64(0)
    for i in range(first >> 6, (first + PAGES_PER_RECLAIMER_CHUNK) >> 6):
        todo = arena.page_in_use[i] & ~arena.page_marks[i]
        while todo != ZERO:
            bit = ctz64(todo)
            todo &= ~bit64(bit)
            s = np.int64(page_span(h)[at * ARENA_PAGES + (i << 6) + bit])
            if try_acquire(h, s):
                n = np.int64(spans(h)[s].npages)
                if sweep(h, p, s, False):
                    npages += n
    return npages


@jit
def reclaim(h: Any, p: Any, npages: Any) -> None:
    """Give at least npages back to the heap before it is asked for as many, if there are any. (mheap.go:reclaim)"""
    while npages > 0 and h[0].reclaim_index < NEVER:
        if h[0].reclaim_credit > 0:
            take = min(h[0].reclaim_credit, npages)
            h[0].reclaim_credit -= take
            npages -= take
            continue
        index = h[0].reclaim_index
        if index // ARENA_PAGES >= h[0].sweep_arenas:
            h[0].reclaim_index = NEVER
            return
        h[0].reclaim_index = index + PAGES_PER_RECLAIMER_CHUNK
        h[0].fact_reclaim_chunks += 1
        found = reclaim_chunk(h, p, index)
        if found > npages:
            h[0].reclaim_credit += found - npages
        npages -= min(found, npages)


@jit
def heap_alloc(h: Any, p: Any, npages: Any, spanclass: Any) -> Any:
    """A span of the heap, pages being reclaimed first while sweeping is not done; no clock. (mheap.go:alloc)"""
    if not sweep_done(h):
        reclaim(h, p, npages)
    return alloc_span(h, p, npages, spanclass, SPAN_IN_USE)
