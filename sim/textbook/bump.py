"""Bump allocation: a pointer into the arena that only moves up.

A request gets the bytes at the pointer, aligned up; there is no header, no list and no search. A freed object's bytes
are dead, not free: the pointer cannot say that there is a hole below it, so nothing is reused while anything lives.
Only when the last live object is freed does the pointer go back to the start. The arena grows in steps when the pointer
comes to its end, and never shrinks.

The records of dead blocks are kept until then as the simulator's knowledge of who freed what; the modelled allocator
has none.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import jit
from sim.textbook.blocks import cut_block, drop_record, give, grow_region, take_back
from sim.textbook.state import DEAD, GENERAL, USED, blocks, regions


@jit
def malloc_bump(h: Any, size: Any) -> Any:
    """The bytes at the pointer: the handle. An object of no bytes gets one, so that no two share an address."""
    nbytes = (max(size, np.int64(1)) + h[0].align_bytes - 1) & -h[0].align_bytes
    grow_region(h, GENERAL, nbytes)
    return give(h, cut_block(h, GENERAL, nbytes, USED, GENERAL), size)


@jit
def free_bump(h: Any, at: Any) -> None:
    """Leave a block dead; when it was the last live one, start again from the arena's start."""
    h[0].dead_bytes += blocks(h)[at].bytes
    take_back(h, at, DEAD)
    if h[0].live_objects == 0:
        reset(h)


@jit
def reset(h: Any) -> None:
    """Nothing lives: the pointer goes back to the start of the arena, which keeps its size."""
    r = regions(h)[GENERAL]
    at = np.int64(r.first)
    while at != 0:
        after = np.int64(blocks(h)[at].next)
        drop_record(h, at)
        at = after
    r.first = 0
    r.last = 0
    r.frontier = r.start
    h[0].dead_bytes = 0
    h[0].fact_reset = 1
