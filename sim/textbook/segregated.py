"""Segregated fit: a free list for each of some sizes (4, 8, 16, 32 ... 1024 bytes), and a general tail.

A request goes to the list of the smallest size that holds it, and takes the block at its head: one block visited. A
freed block becomes the head of its list again. Where a list is empty, it gets a *run*: 4096 bytes of fresh address
space, carved into blocks of the list's size, the lowest at the head; ``fact_carved`` counts them. A run never leaves its
list, and its blocks neither split nor merge: the price is memory that one size holds and another one needs (Wilson et
al. 1995 call this simple segregated storage).

These blocks have no header: a table with an entry a run says which list a run is for. So runs lie in a region of their
own, aligned to 4096; a block of 4 bytes takes 4 bytes, and each is aligned to its own size.

Requests beyond the largest size go to the tail: one general list with headers, splitting and coalescing (blocks.py),
searched first fit, in a region of its own.

Left out: lists by range of sizes over coalescing blocks (segregated fits in the narrower sense), and runs that are
given back when all their blocks are free.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import jit
from sim.textbook.blocks import cut_block, give, grow_region, link_between, push, take_back, unlink
from sim.textbook.state import LISTED, RUN_BYTES, RUNS, blocks, lists
from sim.words import clz64


@jit
def list_for(size: Any) -> Any:
    """The list of the smallest blocks that hold a request of 0 to LARGEST_LISTED bytes."""
    return 63 - clz64(max(size, np.int64(4)) - 1)


@jit
def carve_run(h: Any, which: Any) -> None:
    """Give an empty list a run of fresh blocks."""
    nbytes = np.int64(lists(h)[which].block_bytes)
    grow_region(h, RUNS, np.int64(RUN_BYTES))
    last = np.int64(0)
    for _ in range(RUN_BYTES // nbytes):
        at = cut_block(h, RUNS, nbytes, LISTED, which)
        link_between(h, which, last, at, np.int64(0))
        last = at
        h[0].fact_carved += 1
    h[0].free_bytes += RUN_BYTES
    h[0].fact_runs += 1


@jit
def malloc_listed(h: Any, size: Any) -> Any:
    """The block at the head of the list for a request of 0 to LARGEST_LISTED bytes: the object."""
    which = list_for(size)
    if lists(h)[which].head == 0:
        carve_run(h, which)
    at = np.int64(lists(h)[which].head)
    unlink(h, which, at)
    h[0].fact_visited += 1
    h[0].free_bytes -= blocks(h)[at].bytes
    return give(h, at, size)


@jit
def free_listed(h: Any, at: Any) -> None:
    """Free a block of a list of one size."""
    h[0].free_bytes += blocks(h)[at].bytes
    take_back(h, at, LISTED)
    push(h, np.int64(blocks(h)[at].list), at)
