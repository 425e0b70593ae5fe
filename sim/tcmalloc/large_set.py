"""Free spans of more than 128 pages, ordered by (length, start): the two std::sets of the page heap.

An ordered array of span records each: a search takes the steps a tree would, an insertion moves what lies behind. The
array of a heap with a thousand such spans is 4 KiB.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import jit
from sim.tcmalloc.state import ON_NORMAL, large_normal, large_returned, spans
from sim.units import Throw


@jit
def lower_bound(h: Any, array: Any, n: Any, length: Any, start: Any) -> Any:
    """How many of the first n spans of the array come before (length, start)."""
    table = spans(h)
    low = np.int64(0)
    high = np.int64(n)
    while low < high:
        middle = (low + high) >> 1
        sp = table[array[middle]]
        if sp.length < length or (sp.length == length and sp.start < start):
            low = middle + 1
        else:
            high = middle
    return low


@jit
def insert(h: Any, array: Any, n: Any, s: Any) -> None:
    """Enter a span into an array of n, which has room."""
    sp = spans(h)[s]
    at = lower_bound(h, array, n, sp.length, sp.start)
    for i in range(n, at, -1):
        array[i] = array[i - 1]
    array[at] = s


@jit
def erase(h: Any, array: Any, n: Any, s: Any) -> None:
    """Take a span out of an array of n."""
    sp = spans(h)[s]
    at = lower_bound(h, array, n, sp.length, sp.start)
    if at == n or array[at] != s:
        raise Throw("span " + str(s) + " is not in its set")
    for i in range(at, n - 1):
        array[i] = array[i + 1]


@jit
def insert_large(h: Any, s: Any) -> None:
    """Enter a free span into the set of its kind."""
    if spans(h)[s].location == ON_NORMAL:
        insert(h, large_normal(h), h[0].nlarge_normal, s)
        h[0].nlarge_normal += 1
    else:
        insert(h, large_returned(h), h[0].nlarge_returned, s)
        h[0].nlarge_returned += 1


@jit
def erase_large(h: Any, s: Any) -> None:
    """Take a free span out of the set of its kind."""
    if spans(h)[s].location == ON_NORMAL:
        erase(h, large_normal(h), h[0].nlarge_normal, s)
        h[0].nlarge_normal -= 1
    else:
        erase(h, large_returned(h), h[0].nlarge_returned, s)
        h[0].nlarge_returned -= 1


@jit
def best_fit(h: Any, npages: Any) -> Any:
    """The shortest span of either set of npages or more, among equals the lowest; 0 if there is none. (AllocLarge)"""
    table = spans(h)
    best = np.int64(0)
    at = lower_bound(h, large_normal(h), h[0].nlarge_normal, npages, np.int64(0))
    if at < h[0].nlarge_normal:
        best = np.int64(large_normal(h)[at])
    at = lower_bound(h, large_returned(h), h[0].nlarge_returned, npages, np.int64(0))
    if at < h[0].nlarge_returned:
        other = np.int64(large_returned(h)[at])
        if best == 0 or table[other].length < table[best].length:
            return other
        if table[other].length == table[best].length and table[other].start < table[best].start:
            return other
    return best
