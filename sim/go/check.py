"""The allocator's invariants, checked over the whole state at once: for tests and ``--check``, not for speed.

Each predicate throws with the numbers that break it. Spans: every in-use span is in exactly one place (one P's
cache or one set), no two spans share a page, counts agree with bitmaps, dead slots are allocated. Ledger: in use +
stacks + free + released equals the bytes the page allocator manages, and heap_in_use the sum of its spans.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.runtime import Heap
from sim.go.state import PAGE_SHIFT, SPAN_DEAD, SPAN_IN_USE
from sim.units import throw


def _bits(words: Any, first: int, nelems: int) -> Any:
    """A bitmap as booleans."""
    raw = np.asarray(words[first : first + (nelems + 63) // 64]).view(np.uint8)
    return np.unpackbits(raw, bitorder="little").astype(bool)


def check_places(heap: Heap) -> None:
    """Every in-use span in exactly one cache or set; none that is not in use in any."""
    arrays = heap.arrays
    places: dict[int, list[str]] = {}
    for p, cache in enumerate(arrays["mcaches"]):
        for spc in np.flatnonzero(cache.alloc):
            places.setdefault(int(cache.alloc[spc]), []).append(f"P{p}.alloc[{spc}]")
    for index, queue in enumerate(arrays["spansets"]):
        s, last, seen = int(queue.head), 0, 0
        while s != 0:
            places.setdefault(s, []).append(f"set {index}")
            last, s = s, int(arrays["spans"][s].next)
            seen += 1
            if seen > int(heap.fields.nspans):
                throw(f"span set {index} is a ring")
        if last != int(queue.tail):
            throw(f"span set {index} ends at {last}, its tail says {queue.tail}")
    for s in range(1, int(heap.fields.nspans)):
        where = places.get(s, [])
        if arrays["spans"][s].state == SPAN_IN_USE and len(where) != 1:
            throw(f"span {s} is in {len(where)} places: {', '.join(where) or 'none'}")
        if arrays["spans"][s].state != SPAN_IN_USE and where:
            throw(f"span {s} is not in use but in {', '.join(where)}")


def check_spans(heap: Heap) -> None:
    """Counts against bitmaps, and the page map against spans: no overlap."""
    arrays = heap.arrays
    owner: dict[int, int] = {}
    for s in range(1, int(heap.fields.nspans)):
        sp = arrays["spans"][s]
        if sp.state == SPAN_DEAD:
            continue
        for page in range(int(sp.start_page), int(sp.start_page + sp.npages)):
            if page in owner:
                throw(f"page {page:#x} is in span {owner[page]} and span {s}")
            owner[page] = s
        if sp.state != SPAN_IN_USE:
            continue
        nelems = int(sp.nelems)
        allocated = _bits(arrays["words"], int(sp.alloc_bits), nelems)
        dead = _bits(arrays["words"], int(sp.dead_bits), nelems)
        if allocated[nelems:].any() or dead[nelems:].any():
            throw(f"span {s} has bits at or above its {nelems} slots")
        allocated[: int(sp.freeindex)] = True
        if int(allocated[:nelems].sum()) != int(sp.alloc_count):
            throw(f"span {s} holds {int(allocated[:nelems].sum())} objects, its alloc_count says {sp.alloc_count}")
        if (dead & ~allocated).any():
            throw(f"span {s} has dead slots that are not allocated")
        index = int(arrays["arena_map"][int(sp.start_page) >> 13]) - 1
        if int(arrays["page_span"][index * 8192 + (int(sp.start_page) & 8191)]) != s:
            throw(f"the page map does not lead to span {s}")


def check_ledger(heap: Heap) -> None:
    """The byte ledger sums to what is mapped, and in use to the spans."""
    fields, arrays = heap.fields, heap.arrays
    mapped = int(fields.nchunks) << 22
    total = int(fields.heap_in_use + fields.stacks_in_use + fields.heap_free + fields.heap_released)
    if total != mapped:
        throw(f"ledger sums to {total} bytes, {mapped} are mapped")
    live = arrays["spans"][1 : int(fields.nspans)]
    in_use = int(live.npages[live.state == SPAN_IN_USE].sum()) << PAGE_SHIFT
    if in_use != int(fields.heap_in_use):
        throw(f"spans in use cover {in_use} bytes, heap_in_use says {fields.heap_in_use}")
    if min(int(fields.heap_free), int(fields.heap_released), int(fields.stacks_in_use)) < 0:
        throw("a part of the ledger is negative")


def check_heap(heap: Heap) -> None:
    """Every invariant of the rooms; Throw names the first that does not hold."""
    check_places(heap)
    check_spans(heap)
    check_ledger(heap)
