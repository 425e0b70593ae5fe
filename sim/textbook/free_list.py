"""One free list of blocks of any size: first fit, next fit and best fit are three short searches over it.

A request needs a block of ``header + size`` bytes, aligned up, and no less than the smallest block. Each search walks
the list, and every free block it looks at counts in ``fact_visited``, the one it takes included: there is no index
beside the list, so best fit sees all of it unless a block fits exactly.

- First fit begins at the head and takes the first block that is large enough.
- Next fit begins where the last search ended (the *rover*: the remainder of the block taken then, or else the block
  behind it), wraps around once, and takes the first one. When the rover's block merges, the rover stays with what it
  becomes.
- Best fit takes the smallest block that is large enough, among equals the one nearest the head; an exact fit ends it.

Where none is large enough, the region grows and its last block is taken, without a second search.

How the list is sorted, how blocks split and merge: blocks.py. Left out: trees and bins for best fit, search from a
hint on insertion (a sorted list is walked from its head), trimming of the region's end.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import jit
from sim.textbook.blocks import coalesce, grow_free, take_back, take_free
from sim.textbook.state import BEST_FIT, FREE, GENERAL, HEADER_BYTES, NEXT_FIT, blocks, lists


@jit
def block_bytes(h: Any, size: Any) -> Any:
    """Bytes of the block that a request needs, its header included."""
    nbytes = (size + HEADER_BYTES + h[0].align_bytes - 1) & -h[0].align_bytes
    return max(nbytes, h[0].min_block)


@jit
def first_fit(h: Any, nbytes: Any, at: Any, end: Any) -> Any:
    """The first block of nbytes or more from ``at`` to before ``end`` (0: to the list's end), or 0."""
    table = blocks(h)
    visited = 0
    while at != end:
        visited += 1
        if table[at].bytes >= nbytes:
            break
        at = np.int64(table[at].next_free)
    h[0].fact_visited += visited
    return at if at != end else np.int64(0)


@jit
def next_fit(h: Any, nbytes: Any) -> Any:
    """The first block of nbytes or more from the rover on, the list taken as a ring, or 0."""
    head = np.int64(lists(h)[GENERAL].head)
    start = np.int64(h[0].rover)
    if start == 0:
        start = head
    found = first_fit(h, nbytes, start, np.int64(0))
    if found == 0:
        found = first_fit(h, nbytes, head, start)
    return found


@jit
def best_fit(h: Any, nbytes: Any) -> Any:
    """The smallest block of nbytes or more, the first among equals, or 0."""
    table = blocks(h)
    best, least, visited = np.int64(0), np.int64(1 << 62), 0
    at = np.int64(lists(h)[GENERAL].head)
    while at != 0:
        visited += 1
        has = table[at].bytes
        if nbytes <= has < least:
            best, least = at, has
            if has == nbytes:
                break
        at = np.int64(table[at].next_free)
    h[0].fact_visited += visited
    return best


@jit
def malloc_general(h: Any, size: Any) -> Any:
    """A block of the general list for a request: the object. Segregated fit searches it first fit."""
    nbytes = block_bytes(h, size)
    if h[0].policy == BEST_FIT:
        at = best_fit(h, nbytes)
    elif h[0].policy == NEXT_FIT:
        at = next_fit(h, nbytes)
    else:
        at = first_fit(h, nbytes, np.int64(lists(h)[GENERAL].head), np.int64(0))
    if at == 0:
        at = grow_free(h, nbytes)
    if h[0].policy == NEXT_FIT:
        h[0].rover = at  # taking the block moves it on to the remainder, or to the block behind
    return take_free(h, at, nbytes, size)


@jit
def free_general(h: Any, at: Any) -> None:
    """Free a block in use of the general region."""
    h[0].free_bytes += blocks(h)[at].bytes
    take_back(h, at, FREE)
    coalesce(h, at)
