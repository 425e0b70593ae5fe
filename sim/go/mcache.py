"""Per-P cache of spans (mirrors mcache.go).

One span per span class, and the tiny block. Only the owning P touches it: no lock, its local clock may run ahead.
Invariants: a cached span has sweepgen == heap sweepgen + 3 (or + 1 until the flush after a cycle) and is in no set.

Statistics move only when a span is given back: what a cached span handed out is not counted yet, as in Go.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mcentral import uncache_span
from sim.go.mgcmark import advance, arm
from sim.go.mgcpacer import update
from sim.go.stack import stackcache_clear
from sim.go.state import NUM_SPAN_CLASSES, PAGE_SHIFT, TINY_SPAN_CLASS, mcaches, small_alloc_count, spans
from sim.jit import jit
from sim.units import Throw


@jit
def flush_stats(h: Any, p: Any, s: Any) -> None:
    """Count what a cached span handed out since it was cached. (mcache.go:refill and releaseAll)"""
    sp = spans(h)[s]
    used = np.int64(sp.alloc_count) - np.int64(sp.alloc_count_before_cache)
    sp.alloc_count_before_cache = 0
    small_alloc_count(h)[np.int64(sp.spanclass) >> 1] += used
    h[0].total_alloc += used * sp.elemsize
    if sp.spanclass == TINY_SPAN_CLASS:
        h[0].tiny_allocs += mcaches(h)[p].tiny_allocs
        mcaches(h)[p].tiny_allocs = 0


@jit
def update_heap_live(h: Any, live: Any, scan: Any) -> None:
    """Charge heapLive and heapScan; what that revises, marking knows at once. (gcController.update)"""
    if h[0].gc_blacken_enabled:
        advance(h, h[0].now)
    update(h, live, scan)
    if h[0].gc_blacken_enabled:
        arm(h)


@jit
def uncache_full(h: Any, p: Any, spc: Any) -> None:
    """Give the full span of a class back, the first half of a refill. (mcache.go:refill)"""
    c = mcaches(h)[p]
    s = np.int64(c.alloc[spc])
    if s == 0:
        return
    sp = spans(h)[s]
    if sp.alloc_count != sp.nelems:
        raise Throw("refill of span with free space remaining")
    if np.int64(sp.sweepgen) != np.int64(h[0].sweepgen) + 3:
        raise Throw("bad sweepgen in refill")
    flush_stats(h, p, s)
    uncache_span(h, p, s)
    c.alloc[spc] = 0


@jit
def cache_fresh(h: Any, p: Any, spc: Any, s: Any) -> None:
    """Make a span with room the cached one, the second half of a refill. (mcache.go:refill)

    heapLive is charged for the whole rest of the span, tail waste included: objects themselves never touch it.
    """
    sp = spans(h)[s]
    sp.sweepgen = h[0].sweepgen + 3
    sp.alloc_count_before_cache = sp.alloc_count
    c = mcaches(h)[p]
    update_heap_live(h, (sp.npages << PAGE_SHIFT) - np.int64(sp.alloc_count) * sp.elemsize, c.scan_alloc)
    c.scan_alloc = 0
    c.alloc[spc] = s


@jit
def release_all(h: Any, p: Any) -> None:
    """Give every cached span back and drop the tiny block. (mcache.go:releaseAll)

    The rest of a span cached in this generation is refunded to heapLive; a stale one's is not, heapLive was reset.
    """
    c = mcaches(h)[p]
    sg = np.int64(h[0].sweepgen)
    live = np.int64(0)
    for spc in range(NUM_SPAN_CLASSES):
        s = np.int64(c.alloc[spc])
        if s == 0:
            continue
        sp = spans(h)[s]
        flush_stats(h, p, s)
        if np.int64(sp.sweepgen) != sg + 1:
            live -= (np.int64(sp.nelems) - np.int64(sp.alloc_count)) * sp.elemsize
        uncache_span(h, p, s)
        c.alloc[spc] = 0
    c.tiny_span = 0
    c.tinyoffset = 0
    update_heap_live(h, live, c.scan_alloc)
    c.scan_alloc = 0


@jit
def prepare_for_sweep(h: Any, p: Any) -> None:
    """Flush a cache that is older than this cycle's sweep, before the P allocates again. (mcache.go:prepareForSweep)"""
    c = mcaches(h)[p]
    if c.flush_gen == h[0].sweepgen:
        return
    release_all(h, p)
    stackcache_clear(h, p)
    c.flush_gen = h[0].sweepgen
