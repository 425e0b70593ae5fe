"""The central sets of spans, by span class and state (mirrors mspanset.go and mcentral.go's accessors).

Each span class has partial[2] and full[2], FIFO sets; which of the two holds swept spans follows from the heap's
sweepgen, so they swap roles when it advances by 2. Cached spans are in no set. There is no lock: pushes and pops
are atomic in Go and single steps here.

A set is threaded through the spans' ``next``; ``pushed`` and ``popped`` count as Go's tail and head do, since every
512th push takes the spine lock and a block from the pool, or memory for one (and for a longer spine). A block whose
512 entries were popped goes back to the pool. In go1.14, with its lists, there are no blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mfixalloc import GC_SYS, PTR_SIZE, persistent_alloc, touch_meta
from sim.go.state import NUM_SPAN_CLASSES, spans, spansets
from sim.jit import jit
from sim.units import Throw

BLOCK_ENTRIES = 512
INITIAL_SPINE_CAP = 256
CACHE_LINE = 64


@jit
def partial_swept(h: Any, spanclass: Any) -> Any:
    """Index of the set of swept spans with a free slot. (mcentral.go:partialSwept)"""
    return np.int64(spanclass) * 4 + ((np.int64(h[0].sweepgen) >> 1) & 1)


@jit
def partial_unswept(h: Any, spanclass: Any) -> Any:
    """Index of the set of spans with a free slot that are still to be swept."""
    return np.int64(spanclass) * 4 + 1 - ((np.int64(h[0].sweepgen) >> 1) & 1)


@jit
def full_swept(h: Any, spanclass: Any) -> Any:
    """Index of the set of swept spans without a free slot."""
    return partial_swept(h, spanclass) + 2


@jit
def full_unswept(h: Any, spanclass: Any) -> Any:
    """Index of the set of full spans that are still to be swept."""
    return partial_unswept(h, spanclass) + 2


@jit
def add_block(h: Any, index: Any) -> None:
    """Enter a block, from the pool or new, in a set's spine. (mspanset.go:push, under the spine lock)"""
    q = spansets(h)[index]
    if q.spine_len == q.spine_cap:
        cap = max(2 * np.int64(q.spine_cap), np.int64(INITIAL_SPINE_CAP))
        at = persistent_alloc(h, np.int64(-1), cap * PTR_SIZE, np.int64(CACHE_LINE), GC_SYS)
        touch_meta(h, at, cap * PTR_SIZE)
        q.spine_cap = cap
    if h[0].spanset_pool > 0:
        h[0].spanset_pool -= 1
    else:
        at = persistent_alloc(h, np.int64(-1), h[0].spanset_block_bytes, h[0].spanset_block_align, GC_SYS)
        touch_meta(h, at, h[0].spanset_block_bytes)
        h[0].spanset_blocks += 1
    q.spine_len += 1


@jit
def count_pop(h: Any, index: Any) -> None:
    """Count a span taken out; the last of a block's frees the block. (mspanset.go:pop, its end)"""
    q = spansets(h)[index]
    q.popped += 1
    if q.popped & (BLOCK_ENTRIES - 1) == 0 and not h[0].mcentral_mutex:
        h[0].spanset_pool += 1


@jit
def spanset_reset(h: Any, index: Any) -> None:
    """Start an empty set's counts anew, its last block going to the pool. (mspanset.go:reset)"""
    q = spansets(h)[index]
    if q.head != 0:
        raise Throw("attempt to clear non-empty span set")
    if q.popped & (BLOCK_ENTRIES - 1) != 0 and not h[0].mcentral_mutex:
        h[0].spanset_pool += 1
    q.pushed = 0
    q.popped = 0
    q.spine_len = 0


@jit
def reset_unswept_sets(h: Any) -> None:
    """Reset every set of spans to sweep: sweeping is over. (mgcsweep.go:finishsweep_m)"""
    for spanclass in range(NUM_SPAN_CLASSES):
        spanset_reset(h, partial_unswept(h, spanclass))
        spanset_reset(h, full_unswept(h, spanclass))


@jit
def spanset_push(h: Any, index: Any, s: Any) -> None:
    """Append a span to a set. (mspanset.go:push)"""
    q = spansets(h)[index]
    spans(h)[s].next = 0
    if q.tail == 0:
        q.head = s
    else:
        spans(h)[q.tail].next = s
    q.tail = s
    if q.pushed & (BLOCK_ENTRIES - 1) == 0 and not h[0].mcentral_mutex:
        add_block(h, index)
    q.pushed += 1


@jit
def spanset_pop(h: Any, index: Any) -> Any:
    """Take the oldest span of a set; 0 when it is empty. (mspanset.go:pop)"""
    q = spansets(h)[index]
    s = np.int64(q.head)
    if s != 0:
        q.head = spans(h)[s].next
        if q.head == 0:
            q.tail = 0
        count_pop(h, index)
    return s


@jit
def place_swept(h: Any, s: Any) -> None:
    """Push a swept span where it belongs: partial if it has a free slot, else full."""
    sp = spans(h)[s]
    if sp.alloc_count == sp.nelems:
        spanset_push(h, full_swept(h, sp.spanclass), s)
    else:
        spanset_push(h, partial_swept(h, sp.spanclass), s)


@jit
def spanset_remove(h: Any, index: Any, s: Any) -> Any:
    """Take one span out of the middle of a set; False when it is not there. Go has no such step: replays need it."""
    q = spansets(h)[index]
    before = np.int64(0)
    at = np.int64(q.head)
    while at != 0 and at != s:
        before = at
        at = np.int64(spans(h)[at].next)
    if at == 0:
        return False
    after = spans(h)[s].next
    if before == 0:
        q.head = after
    else:
        spans(h)[before].next = after
    if after == 0:
        q.tail = before
    count_pop(h, index)
    return True
