"""Blocks: cutting them from a region, splitting, coalescing, and the free lists; shared by every policy.

Boundary tags (Knuth, TAOCP 1, 2.5, algorithm C): each block of the general list's region has a header that says its
size, whether it is free and whether the block before it is; a free block says its size at its end too. So a freed
block finds both neighbours at once, without a search, and merges with those that are free: no two free blocks ever
touch. A block in use pays for the header alone; a free one holds the header, two links and the size at its end in its
own bytes, which makes the smallest block.

Splitting: a free block is split when what is left is no smaller than the smallest block. The program gets the lower
part; the remainder stays in the list in the block's place, whatever the list's order. Else the program gets all of it.

A freed block, merged or not, goes where the list's order says. Sorted by address: to the place of the neighbour that it
merged with (no search); alone, to the place found by walking the list from its head to the first block above it, each
block looked at counted in ``fact_passed``. Last in, first out: to the head.

Growth: the system's bytes join the block at the region's end, if that one is free (it keeps its place in the list), and
are one new free block otherwise (the list's last if it is sorted, else its head). A region never shrinks.

Left out: giving memory back to the system, quick lists of freed blocks that merge later, realloc.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import jit
from sim.textbook.state import FREE, GENERAL, SPARE, USED, blocks, lists, regions
from sim.units import Throw

_TIMES = (1 << 31) - 1


@jit
def new_record(h: Any) -> Any:
    """A record for a block: a spare one, or one never used."""
    r = np.int64(h[0].spare)
    if r != 0:
        h[0].spare = blocks(h)[r].next_free
        h[0].nspare -= 1
        return r
    r = h[0].nblocks
    if r >= h[0].blocks_len:
        raise Throw("block table full")
    h[0].nblocks += 1
    return r


@jit
def drop_record(h: Any, r: Any) -> None:
    """The record names no block any more."""
    b = blocks(h)[r]
    b.state = SPARE
    b.next_free = h[0].spare
    h[0].spare = r
    h[0].nspare += 1


@jit
def grow_region(h: Any, region: Any, nbytes: Any) -> None:
    """Make room for nbytes behind the frontier, in whole steps from the system."""
    r = regions(h)[region]
    lack = nbytes - (r.end - r.fence - r.frontier)
    if lack > 0:
        grown = (lack + h[0].grow_bytes - 1) // h[0].grow_bytes * h[0].grow_bytes
        if r.end + grown > r.limit:
            raise Throw("a region has no address space left")
        r.end += grown
        h[0].arena_bytes += grown
        h[0].fact_growths += 1
        h[0].fact_grown += grown


@jit
def cut_block(h: Any, region: Any, nbytes: Any, state: Any, which: Any) -> Any:
    """The block of nbytes at the frontier, which moves behind it; there must be room."""
    r = regions(h)[region]
    at = new_record(h)
    b = blocks(h)[at]
    b.addr = r.frontier
    b.bytes = nbytes
    b.requested = 0
    b.prev = r.last
    b.next = 0
    b.prev_free = 0
    b.next_free = 0
    b.list = which
    b.state = state
    if r.last != 0:
        blocks(h)[r.last].next = at
    else:
        r.first = at
    r.last = at
    r.frontier += nbytes
    return at


@jit
def link_between(h: Any, which: Any, before: Any, at: Any, after: Any) -> None:
    """Enter a block in a list between two neighbours, 0 = an end of the list."""
    table = blocks(h)
    entry = lists(h)[which]
    table[at].prev_free = before
    table[at].next_free = after
    if before != 0:
        table[before].next_free = at
    else:
        entry.head = at
    if after != 0:
        table[after].prev_free = at
    else:
        entry.tail = at
    entry.nfree += 1


@jit
def unlink(h: Any, which: Any, at: Any) -> None:
    """Take a block out of its list; a rover on it goes on to the next."""
    table = blocks(h)
    entry = lists(h)[which]
    before, after = np.int64(table[at].prev_free), np.int64(table[at].next_free)
    if before != 0:
        table[before].next_free = after
    else:
        entry.head = after
    if after != 0:
        table[after].prev_free = before
    else:
        entry.tail = before
    entry.nfree -= 1
    if h[0].rover == at:
        h[0].rover = after


@jit
def push(h: Any, which: Any, at: Any) -> None:
    """Enter a block at its list's head."""
    link_between(h, which, np.int64(0), at, np.int64(lists(h)[which].head))


@jit
def insert_by_address(h: Any, at: Any) -> None:
    """Enter a block in the general list, sorted by address, by walking it from the head."""
    table = blocks(h)
    addr = table[at].addr
    before, after = np.int64(0), np.int64(lists(h)[GENERAL].head)
    passed = 0
    while after != 0:
        passed += 1
        if table[after].addr > addr:
            break
        before = after
        after = np.int64(table[after].next_free)
    h[0].fact_passed += passed
    link_between(h, GENERAL, before, at, after)


@jit
def give(h: Any, at: Any, requested: Any) -> Any:
    """Mark a block as in use for a request and enter it in the statistics: the object."""
    b = blocks(h)[at]
    b.state = USED
    b.requested = requested
    times = np.int64(b.times) + 1 if b.times < _TIMES else np.int64(1)
    b.times = times
    h[0].live_objects += 1
    h[0].live_bytes += requested
    h[0].peak_live_bytes = max(h[0].peak_live_bytes, h[0].live_bytes)
    h[0].used_bytes += b.bytes
    return (times << 32) | at


@jit
def take_back(h: Any, at: Any, state: Any) -> None:
    """Mark a block that was in use as something else, and take it out of the statistics of those in use."""
    b = blocks(h)[at]
    h[0].live_objects -= 1
    h[0].live_bytes -= b.requested
    h[0].used_bytes -= b.bytes
    b.requested = 0
    b.state = state


@jit
def split(h: Any, at: Any, nbytes: Any) -> None:
    """Cut a free block of the general list down to nbytes: the rest is a free block in its place in the list."""
    table = blocks(h)
    rest = new_record(h)
    b, r = table[at], table[rest]
    r.addr = b.addr + nbytes
    r.bytes = b.bytes - nbytes
    r.requested = 0
    r.list = GENERAL
    r.state = FREE
    r.prev = at
    r.next = b.next
    if b.next != 0:
        table[b.next].prev = rest
    else:
        regions(h)[GENERAL].last = rest
    b.next = rest
    b.bytes = nbytes
    had_rover = h[0].rover == at
    before, after = np.int64(b.prev_free), np.int64(b.next_free)
    unlink(h, GENERAL, at)
    link_between(h, GENERAL, before, rest, after)
    if had_rover:
        h[0].rover = rest


@jit
def take_free(h: Any, at: Any, nbytes: Any, requested: Any) -> Any:
    """Give the program nbytes at the start of a free block of the general list: the object."""
    b = blocks(h)[at]
    if b.bytes - nbytes >= h[0].min_block:
        h[0].fact_splits += 1
        split(h, at, nbytes)
    else:
        unlink(h, GENERAL, at)
    h[0].free_bytes -= b.bytes
    return give(h, at, requested)


@jit
def absorb(h: Any, at: Any) -> None:
    """Merge a block of the general region with the one behind it, whose record goes."""
    table = blocks(h)
    b = table[at]
    gone = np.int64(b.next)
    b.bytes += table[gone].bytes
    b.next = table[gone].next
    if b.next != 0:
        table[b.next].prev = at
    else:
        regions(h)[GENERAL].last = at
    drop_record(h, gone)


@jit
def coalesce(h: Any, at: Any) -> None:
    """Enter a block of state FREE, in no list yet, merged with the neighbours that are free.

    The lower block's record stays. A rover on a neighbour that merges stays with what it becomes.
    """
    table = blocks(h)
    before, after = np.int64(table[at].prev), np.int64(table[at].next)
    merge_before = before != 0 and table[before].state == FREE
    merge_after = after != 0 and table[after].state == FREE
    had_rover = h[0].rover != 0 and ((merge_before and h[0].rover == before) or (merge_after and h[0].rover == after))
    h[0].fact_coalesced += int(merge_before) + int(merge_after)
    if not h[0].address_ordered:
        if merge_before:
            unlink(h, GENERAL, before)
        if merge_after:
            unlink(h, GENERAL, after)
        push(h, GENERAL, at if not merge_before else before)
    elif merge_before:
        if merge_after:
            unlink(h, GENERAL, after)
    elif merge_after:
        left, right = np.int64(table[after].prev_free), np.int64(table[after].next_free)
        unlink(h, GENERAL, after)
        link_between(h, GENERAL, left, at, right)
    else:
        insert_by_address(h, at)
    if merge_after:
        absorb(h, at)
    if merge_before:
        absorb(h, before)
    if had_rover:
        h[0].rover = before if merge_before else at


@jit
def grow_free(h: Any, nbytes: Any) -> Any:
    """The free block of at least nbytes at the general region's end, once the region has grown; none was large enough."""
    table = blocks(h)
    r = regions(h)[GENERAL]
    last = np.int64(r.last)
    joins = last != 0 and table[last].state == FREE
    if joins:
        nbytes -= table[last].bytes
    grow_region(h, GENERAL, nbytes)
    rest = r.end - r.fence - r.frontier
    h[0].free_bytes += rest
    if joins:
        table[last].bytes += rest
        r.frontier += rest
        return last
    at = cut_block(h, GENERAL, rest, FREE, GENERAL)
    if h[0].address_ordered:
        link_between(h, GENERAL, np.int64(lists(h)[GENERAL].tail), at, np.int64(0))
    else:
        push(h, GENERAL, at)
    return at
