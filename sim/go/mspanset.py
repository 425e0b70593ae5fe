"""The central sets of spans, by span class and state (mirrors mspanset.go and mcentral.go's accessors).

Each span class has partial[2] and full[2], FIFO sets; which of the two holds swept spans follows from the heap's
sweepgen, so they swap roles when it advances by 2. Cached spans are in no set. There is no lock: pushes and pops
are atomic in Go and single steps here.

A set is threaded through the spans' ``next``; ``pushed`` and ``popped`` count as Go's head and tail do, since a
block of 512 entries is a step that takes the spine lock.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.state import spans, spansets
from sim.jit import jit


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
def spanset_push(h: Any, index: Any, s: Any) -> None:
    """Append a span to a set. (mspanset.go:push)"""
    q = spansets(h)[index]
    spans(h)[s].next = 0
    if q.tail == 0:
        q.head = s
    else:
        spans(h)[q.tail].next = s
    q.tail = s
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
        q.popped += 1
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
    q.popped += 1
    return True
