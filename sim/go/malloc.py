"""mallocgc: which path a request takes and which slot it gets (mirrors malloc.go).

``small_slot`` is the whole small path without a clock: the cached span's next slot, else a refill. The timed
interpreter calls the same pieces one by one, pricing and syncing in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mcache import cache_fresh, uncache_full
from sim.go.mcentral import cache_span
from sim.go.mspan import next_free_index
from sim.go.reclaim import heap_alloc
from sim.go.sizeclasses import MALLOC_HEADER_SIZE, MIN_SIZE_FOR_MALLOC_HEADER, class_to_allocnpages, size_class
from sim.go.state import TINY_SPAN_CLASS, mcaches
from sim.jit import jit

TINY_SIZE = 16


@jit
def span_class_of(h: Any, size: Any, noscan: Any) -> Any:
    """Span class of a request of size >= 1: tiny objects go to 5, large ones to 0 or 1. (malloc.go:mallocgc)"""
    if (size < TINY_SIZE) & (noscan != 0):
        return np.int64(TINY_SPAN_CLASS)
    if size > h[0].max_small_size:
        return np.int64(noscan)
    size += MALLOC_HEADER_SIZE * ((h[0].malloc_header != 0) & (noscan == 0) & (size > MIN_SIZE_FOR_MALLOC_HEADER))
    return size_class(size) * 2 + noscan


@jit
def refill(h: Any, p: Any, spc: Any) -> Any:
    """Trade the P's full span of a class for one with room, at once. (mcache.go:refill)"""
    uncache_full(h, p, spc)
    s = cache_span(h, p, spc)
    if s == 0:
        s = heap_alloc(h, p, class_to_allocnpages[spc >> 1], spc)
    cache_fresh(h, p, spc, s)
    return s


@jit
def small_slot(h: Any, p: Any, spc: Any) -> Any:
    """The next slot of a span class on a P: (span, slot). (malloc.go:nextFree)"""
    s = np.int64(mcaches(h)[p].alloc[spc])
    slot = np.int64(-1)
    if s != 0:
        slot = next_free_index(h, s)
    if slot < 0:
        s = refill(h, p, spc)
        slot = next_free_index(h, s)
    return s, slot
