"""Segregated fit: a free list for each of some sizes (4, 8, 16, 32, ... bytes), and a general tail.

A request goes to the list of the smallest size that holds it, and takes the block at its head: one block visited. A
freed block becomes the head of its list again. Where a list is empty, it gets a *run*: a page of fresh address space,
carved into blocks of the list's size, the lowest at the head; ``fact_carved`` counts them. A run never leaves its list,
and its blocks neither split nor merge: the price is memory that one size holds and another one needs (Wilson et al.
1995 call this simple segregated storage).

These blocks have no header: a table with an entry a page says which list a page is for. So runs lie in a region of their
own, aligned to pages; a block of 4 bytes is 4 bytes, and is aligned to the largest power of two that divides its size.

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
from sim.textbook.state import LISTED, RUNS, blocks, list_for, lists


@jit
def carve_run(h: Any, which: Any) -> None:
    """Give an empty list a run of fresh blocks."""
    nbytes = np.int64(lists(h)[which].block_bytes)
    grow_region(h, RUNS, h[0].run_bytes)
    last = np.int64(0)
    for _ in range(h[0].run_bytes // nbytes):
        at = cut_block(h, RUNS, nbytes, LISTED, which)
        link_between(h, which, last, at, np.int64(0))
        last = at
        h[0].free_bytes += nbytes
        h[0].fact_carved += 1


@jit
def malloc_listed(h: Any, size: Any) -> Any:
    """The block at the head of the list for a request up to ``largest_listed``: its handle."""
    which = np.int64(list_for(h)[size])
    if lists(h)[which].head == 0:
        carve_run(h, which)
    at = np.int64(lists(h)[which].head)
    unlink(h, which, at)
    h[0].fact_visited = 1
    h[0].free_bytes -= blocks(h)[at].bytes
    return give(h, at, size)


@jit
def free_listed(h: Any, at: Any) -> None:
    """Free a block of a list of one size."""
    h[0].free_bytes += blocks(h)[at].bytes
    take_back(h, at, LISTED)
    push(h, np.int64(blocks(h)[at].list), at)
