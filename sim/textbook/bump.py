"""Bump allocation: a pointer into the arena that only moves up.

A request gets the bytes at the pointer, aligned up; there is no header, no list and no search. A freed object's bytes
are dead, not free: the pointer cannot say that there is a hole below it, so nothing is reused while anything lives.
Only when the last live object is freed does the pointer go back to the start. The arena grows in steps when the pointer
comes to its end, and never shrinks. So as long as something lives, its footprint is every byte ever requested, aligned.

The modelled allocator counts what is live and keeps nothing else. Records of live objects are the simulator's; they are
in a row by address, with holes between them where objects died, and a record names no block once its object is dead.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import jit
from sim.textbook.blocks import cut_block, drop_record, give, grow_region, take_back
from sim.textbook.state import GENERAL, USED, blocks, regions


@jit
def malloc_bump(h: Any, size: Any) -> Any:
    """The bytes at the pointer: the object. One of no bytes gets some too, so that no two share an address."""
    nbytes = (max(size, np.int64(1)) + h[0].align_bytes - 1) & -h[0].align_bytes
    grow_region(h, GENERAL, nbytes)
    return give(h, cut_block(h, GENERAL, nbytes, USED, GENERAL), size)


@jit
def free_bump(h: Any, at: Any) -> None:
    """An object is dead; when it was the last live one, start again from the arena's start."""
    table = blocks(h)
    r = regions(h)[GENERAL]
    before, after = np.int64(table[at].prev), np.int64(table[at].next)
    if before != 0:
        table[before].next = after
    else:
        r.first = after
    if after != 0:
        table[after].prev = before
    else:
        r.last = before
    h[0].dead_bytes += table[at].bytes
    take_back(h, at, USED)
    drop_record(h, at)
    if h[0].live_objects == 0:
        r.frontier = r.start
        h[0].dead_bytes = 0
        h[0].fact_resets += 1
