"""Bitmaps of one 512-page chunk: counting and finding runs of zeros (mirrors mpallocbits.go).

A chunk's bitmap is eight 64-bit words, 1 = in use. A summary of any stretch of pages is (start, max, end): the free
pages at its start, its longest free run, the free pages at its end, packed into 21 bits each.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.state import CHUNK_PAGES
from sim.jit import jit
from sim.words import ZERO, clz64, ctz64, ones, popcount64, shl64, shr64

SUM_BITS = 21
MAX_PACKED = 1 << SUM_BITS  # pages of a root entry: does not fit into 21 bits, has a word of its own
_ALL_FREE = np.uint64(1 << 63)
_SUM_MASK = np.uint64(MAX_PACKED - 1)
_SHIFT_MAX = np.uint64(SUM_BITS)
_SHIFT_END = np.uint64(2 * SUM_BITS)


@jit
def pack_sum(start: Any, longest: Any, end: Any) -> Any:
    """A summary as one word. (mpagealloc.go:packPallocSum)"""
    if longest == MAX_PACKED:
        return _ALL_FREE
    return np.uint64(start) | (np.uint64(longest) << _SHIFT_MAX) | (np.uint64(end) << _SHIFT_END)


@jit
def sum_start(word: Any) -> Any:
    """Free pages at the start. (pallocSum.start)"""
    return np.int64(MAX_PACKED) if word == _ALL_FREE else np.int64(word & _SUM_MASK)


@jit
def sum_max(word: Any) -> Any:
    """Longest run of free pages. (pallocSum.max)"""
    return np.int64(MAX_PACKED) if word == _ALL_FREE else np.int64((word >> _SHIFT_MAX) & _SUM_MASK)


@jit
def sum_end(word: Any) -> Any:
    """Free pages at the end. (pallocSum.end)"""
    return np.int64(MAX_PACKED) if word == _ALL_FREE else np.int64((word >> _SHIFT_END) & _SUM_MASK)


@jit
def set_bits(bits: Any, first: Any, n: Any) -> None:
    """Set n bits of a chunk from first on."""
    while n > 0:
        at = first & 63
        k = min(n, 64 - at)
        bits[first >> 6] |= shl64(ones(k), at)
        first += k
        n -= k


@jit
def clear_bits(bits: Any, first: Any, n: Any) -> None:
    """Clear n bits of a chunk from first on."""
    while n > 0:
        at = first & 63
        k = min(n, 64 - at)
        bits[first >> 6] &= ~shl64(ones(k), at)
        first += k
        n -= k


@jit
def count_bits(bits: Any, first: Any, n: Any) -> Any:
    """Ones among n bits of a chunk from first on."""
    count = np.int64(0)
    while n > 0:
        at = first & 63
        k = min(n, 64 - at)
        count += popcount64(shr64(bits[first >> 6], at) & ones(k))
        first += k
        n -= k
    return count


@jit
def find_bit_run64(word: Any, n: Any) -> Any:
    """Index of the first run of n ones in a word, 64 if there is none; n in [1, 64]. (findBitRange64)

    Shortens every run by n - 1 from above, doubling the step, so that only starts of long enough runs stay.
    """
    left = n - 1
    step = np.int64(1)
    while left > 0 and word != ZERO:
        step = min(step, left)
        word &= shr64(word, step)
        left -= step
        step *= 2
    return ctz64(word)


@jit
def summarize(bits: Any) -> Any:
    """Summary of a chunk from its bitmap. (pallocBits.summarize)"""
    start = np.int64(-1)
    longest = np.int64(0)
    run = np.int64(0)
    for i in range(8):
        used = bits[i]
        if used == ZERO:
            run += 64
            continue
        low = ctz64(used)
        run += low
        if start < 0:
            start = run
        longest = max(longest, run)
        inner = ~used
        # runs strictly inside the word: grow a probe while some run is longer than the best
        while longest < 64 and find_bit_run64(inner, longest + 1) < 64:
            longest += 1
        run = clz64(used)
    if start < 0:
        return pack_sum(np.int64(CHUNK_PAGES), np.int64(CHUNK_PAGES), np.int64(CHUNK_PAGES))
    return pack_sum(start, max(longest, run), run)


@jit
def find_run(bits: Any, npages: Any, search: Any) -> Any:
    """First run of npages free pages at or after ``search`` in a chunk: (index or -1, first free page or -1).

    The second value is where a later search may start. (pallocBits.find)
    """
    first_free = np.int64(-1)
    run: Any = np.int64(0)
    start: Any = np.int64(0)
    for i in range(search >> 6, 8):
        free = ~bits[i]
        if i == search >> 6:
            free &= ~ones(search & 63)
        if free == ZERO:
            run = 0
            continue
        if first_free < 0:
            first_free = i * 64 + ctz64(free)
        low = ctz64(~free)
        if run == 0:
            start = i * 64
        if run + low >= npages:
            return start, first_free
        if low < 64:
            if npages <= 64:
                at = find_bit_run64(free, npages)
                if at < 64:
                    return i * 64 + at, first_free
            run = clz64(~free)
            start = (i + 1) * 64 - run
        else:
            run += 64
    return np.int64(-1), first_free
