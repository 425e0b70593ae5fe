"""Spans: their records, the lists they stand in, the map from pages, and the links of their objects (span.h, pagemap.h).

Lists are circular through a head record, as the library's are: what is prepended is found first. The map holds a span
for its first and its last page, which is all that merging neighbours needs; entries of pages inside go stale. An object
names its span by itself, so that the entries of all pages of small spans, by which free() finds a span, are left out.

Entries of ``links`` are cut in runs, one run a span; a run is kept for spans of its class when its span is gone.

Memory comes to stand behind a 4 KiB page when something is first written there, and goes when its span is released.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import inlined, jit
from sim.tcmalloc.sizeclasses import PAGE_SHIFT, class_to_size, objects_per_span
from sim.tcmalloc.state import (
    IN_USE,
    MAX_SPANS,
    SLOT_BITS,
    SLOT_MASK,
    SPARE,
    links,
    pagemap,
    spans,
    touched,
)
from sim.units import Throw

OS_PAGE_SHIFT = 12


@jit
def descriptor(h: Any, page: Any) -> Any:
    """The span that begins or ends at a page, 0 outside the heap. (page_heap.h:GetDescriptor)"""
    return np.int64(pagemap(h)[page + 1])


@jit
def record_span(h: Any, s: Any) -> None:
    """Map a span's first and last page to it. (page_heap.h:RecordSpan)"""
    sp = spans(h)[s]
    pages = pagemap(h)
    pages[sp.start + 1] = s
    pages[sp.start + sp.length] = s


@jit
def new_span(h: Any, start: Any, length: Any) -> Any:
    """A record for a run of pages, in use and for no class. (span.cc:NewSpan)"""
    s = np.int64(h[0].spare)
    if s != 0:
        h[0].spare = spans(h)[s].next
        h[0].nspare -= 1
    else:
        s = np.int64(h[0].nspans)
        if s >= MAX_SPANS:
            raise Throw(str(MAX_SPANS) + " spans are in use, and no more can be named")
        h[0].nspans += 1
    sp = spans(h)[s]
    sp.start = start
    sp.length = length
    sp.prev = 0
    sp.next = 0
    sp.objects = 0
    sp.links = 0
    sp.refcount = 0
    sp.sizeclass = 0
    sp.location = IN_USE
    return s


@jit
def delete_span(h: Any, s: Any) -> None:
    """Give a record back: it names no span. (span.cc:DeleteSpan)"""
    sp = spans(h)[s]
    sp.location = SPARE
    sp.next = h[0].spare
    h[0].spare = s
    h[0].nspare += 1


@jit
def dll_remove(h: Any, s: Any) -> None:
    """Take a span out of its list. (span.cc:DLL_Remove)"""
    table = spans(h)
    sp = table[s]
    table[sp.prev].next = sp.next
    table[sp.next].prev = sp.prev
    sp.prev = 0
    sp.next = 0


@jit
def dll_prepend(h: Any, head: Any, s: Any) -> None:
    """Put a span first in a list. (span.cc:DLL_Prepend)"""
    table = spans(h)
    first = table[head].next
    table[s].prev = head
    table[s].next = first
    table[first].prev = s
    table[head].next = s


@jit
def take_links(h: Any, cl: Any) -> Any:
    """A run of link entries for a span of a class."""
    first = np.int64(h[0].free_links[cl])
    if first != 0:
        h[0].free_links[cl] = links(h)[first]
        return first
    first = np.int64(h[0].nlinks)
    h[0].nlinks += objects_per_span[cl]
    return first


@jit
def give_links(h: Any, cl: Any, first: Any) -> None:
    """A span's run of link entries is spare: its first entry holds the next spare run of the class."""
    links(h)[first] = h[0].free_links[cl]
    h[0].free_links[cl] = first


@inlined
def link_of(h: Any, obj: Any) -> Any:
    """The entry of ``links`` of an object of a small span."""
    return np.int64(spans(h)[obj >> SLOT_BITS].links) + (obj & SLOT_MASK)


@jit
def address(h: Any, obj: Any) -> Any:
    """Where an object begins, in bytes from the heap's lowest page."""
    sp = spans(h)[obj >> SLOT_BITS]
    return (sp.start << PAGE_SHIFT) + (obj & SLOT_MASK) * class_to_size[sp.sizeclass]


@jit
def allocated_size(h: Any, obj: Any) -> Any:
    """Bytes the program may use of an object. (tcmalloc.cc:GetSizeWithCallback)"""
    sp = spans(h)[obj >> SLOT_BITS]
    if sp.sizeclass == 0:
        return sp.length << PAGE_SHIFT
    return class_to_size[sp.sizeclass]


@jit
def touch(h: Any, first: Any, nbytes: Any) -> None:
    """Write nbytes >= 1 from byte ``first`` of the heap on: memory comes to stand behind them."""
    table = touched(h)
    for os_page in range(first >> OS_PAGE_SHIFT, ((first + nbytes - 1) >> OS_PAGE_SHIFT) + 1):
        bit = np.uint8(1 << (os_page & 1))
        if table[os_page >> 1] & bit == 0:
            table[os_page >> 1] |= bit
            h[0].resident_pages += 1
            h[0].fact_touched += 1


@jit
def untouch(h: Any, s: Any) -> None:
    """The system takes back the memory behind a span (madvise with MADV_DONTNEED)."""
    sp = spans(h)[s]
    table = touched(h)
    resident = np.int64(0)
    for page in range(sp.start, sp.start + sp.length):
        bits = np.int64(table[page])
        resident += (bits & 1) + (bits >> 1)
        table[page] = 0
    h[0].resident_pages -= resident
    h[0].fact_released_resident += resident
