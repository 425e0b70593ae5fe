"""The central sets of spans, by span class and state (mirrors mspanset.go and mcentral.go's accessors).

Each span class has partial[2] and full[2], FIFO sets; which of the two holds swept spans follows from the heap's
sweepgen, so they swap roles when it advances by 2. Cached spans are in no set. There is no lock: pushes and pops
are atomic in Go and single steps here.

A set is a chain of blocks of 512 entries; ``pushed`` and ``popped`` count as Go's tail and head do, since every 512th
push takes the spine lock and a block from the pool, or memory for one (and for a longer spine). A block whose 512
entries were popped goes back to the pool. In go1.14, with its lists, blocks are no memory of the program's.

A span may be swept while it stands in a set of spans to be swept: the page reclaimer finds spans by address. Its entry
stays, and who pops it sees by the sweepgen that it is stale, be the span freed, used again, or in another set by then.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mfixalloc import GC_SYS, PTR_SIZE, persistent_alloc, touch_meta
from sim.go.state import BLOCK_ENTRIES, NUM_SPAN_CLASSES, set_blocks, spans, spansets
from sim.jit import jit
from sim.units import Throw

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
def take_set_block(h: Any) -> Any:
    """A block of entries, recycled or new."""
    block = np.int64(h[0].free_set_block)
    if block != 0:
        h[0].free_set_block = set_blocks(h)[block].next
    else:
        block = h[0].nset_blocks
        if block >= h[0].set_blocks_len:
            raise Throw("table of span-set blocks full")
        h[0].nset_blocks += 1
    set_blocks(h)[block].next = 0
    return block


@jit
def drop_head_block(h: Any, index: Any) -> None:
    """Give a set's first block back."""
    q = spansets(h)[index]
    block = np.int64(q.head)
    q.head = set_blocks(h)[block].next
    if q.head == 0:
        q.tail = 0
    set_blocks(h)[block].next = h[0].free_set_block
    h[0].free_set_block = block


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
def spanset_reset(h: Any, index: Any) -> None:
    """Start an empty set's counts anew, its last block going to the pool. (mspanset.go:reset)"""
    q = spansets(h)[index]
    if q.pushed != q.popped:
        raise Throw("attempt to clear non-empty span set")
    if q.popped & (BLOCK_ENTRIES - 1) != 0:
        drop_head_block(h, index)
        if not h[0].mcentral_mutex:
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
    at = q.pushed & (BLOCK_ENTRIES - 1)
    if at == 0:
        if not h[0].mcentral_mutex:
            add_block(h, index)
        block = take_set_block(h)
        if q.tail == 0:
            q.head = block
        else:
            set_blocks(h)[q.tail].next = block
        q.tail = block
    set_blocks(h)[q.tail].entries[at] = s
    q.pushed += 1


@jit
def spanset_pop(h: Any, index: Any) -> Any:
    """Take the oldest entry of a set; 0 when it is empty. (mspanset.go:pop)"""
    q = spansets(h)[index]
    if q.popped == q.pushed:
        return np.int64(0)
    s = np.int64(set_blocks(h)[q.head].entries[q.popped & (BLOCK_ENTRIES - 1)])
    q.popped += 1
    if q.popped & (BLOCK_ENTRIES - 1) == 0:
        drop_head_block(h, index)
        if not h[0].mcentral_mutex:
            h[0].spanset_pool += 1
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
def spanset_next(h: Any, index: Any, block: Any, at: Any) -> Any:
    """Walk a set: the block and the entry at position ``at`` (of [popped, pushed)), after ``block`` of the one before.

    Position popped begins with the block ``head``.
    """
    if at != spansets(h)[index].popped and at & (BLOCK_ENTRIES - 1) == 0:
        block = np.int64(set_blocks(h)[block].next)
    return block, np.int64(set_blocks(h)[block].entries[at & (BLOCK_ENTRIES - 1)])


@jit
def spanset_first(h: Any, index: Any) -> Any:
    """The oldest entry of a set, which stays in it; 0 when it is empty."""
    q = spansets(h)[index]
    if q.popped == q.pushed:
        return np.int64(0)
    return np.int64(set_blocks(h)[q.head].entries[q.popped & (BLOCK_ENTRIES - 1)])


@jit
def spanset_remove(h: Any, index: Any, s: Any) -> Any:
    """Take one span out of the middle of a set; False when it is not there. Go has no such step: replays need it."""
    q = spansets(h)[index]
    block = np.int64(q.head)
    before = s  # each entry ahead of it moves up by one
    for at in range(q.popped, q.pushed):
        block, found = spanset_next(h, index, block, at)
        if found == s:
            break
    else:
        return False
    end = at
    block = np.int64(q.head)
    for at in range(q.popped, end + 1):
        block, found = spanset_next(h, index, block, at)
        set_blocks(h)[block].entries[at & (BLOCK_ENTRIES - 1)] = before
        before = found
    spanset_pop(h, index)
    return True


@jit
def spanset_push_front(h: Any, index: Any, s: Any) -> None:
    """Put a span back as the oldest of a set. Go has no such step: replays need it."""
    q = spansets(h)[index]
    if q.popped == 0:
        q.pushed += BLOCK_ENTRIES
        q.popped += BLOCK_ENTRIES
    if q.popped & (BLOCK_ENTRIES - 1) == 0:
        if not h[0].mcentral_mutex:
            add_block(h, index)
        block = take_set_block(h)
        set_blocks(h)[block].next = q.head
        q.head = block
        if q.tail == 0:
            q.tail = block
    q.popped -= 1
    set_blocks(h)[q.head].entries[q.popped & (BLOCK_ENTRIES - 1)] = s
