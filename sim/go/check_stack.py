"""The invariants of stacks and of dead goroutines, checked over the whole state at once (part of check.py).

- Every stack of a span of stacks is held once: by a goroutine, a thread, a P's cache, a P that is about to free it, or
  the span's own list. Caches hold what they say; pools list just the spans with a free stack.
- A goroutine is alive, on a stack that holds its frames, or in one list of dead ones, or a P is about to bring it to
  life.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim.go.runtime import Heap
from sim.go.scalars import NUM_STACK_ORDERS
from sim.go.stack import G0_STACK, GSIGNAL_STACK, STACK_GUARD, STACK_MIN
from sim.go.state import ARENA_PAGES, PAGE_SHIFT, SPAN_MANUAL
from sim.units import throw

STACK_SIZES = tuple(STACK_MIN << order for order in range(NUM_STACK_ORDERS))


def _linked(heap: Heap, first: int, what: str) -> list[int]:
    """Addresses of a list of free stacks of pools."""
    found: list[int] = []
    spans, words = heap.arrays["spans"], heap.arrays["words"]
    while first != 0:
        if len(found) >= int(heap.fields.nwords):
            throw(f"the list of {what} is a ring")
        found.append(first)
        s = _span_of(heap, first)
        size, base = int(spans.elemsize[s]), int(spans.start_page[s]) << PAGE_SHIFT
        if size not in STACK_SIZES or (first - base) % size:
            throw(f"{what} holds {first:#x}, which is no stack of a pool")
        first = int(words[int(spans.alloc_bits[s]) + 2 + (first - base) // size])
    return found


def _span_of(heap: Heap, address: int) -> int:
    """The span of an address, 0 if none."""
    page = address >> PAGE_SHIFT
    arena = int(heap.arrays["arena_map"][page // ARENA_PAGES]) - 1
    return int(heap.arrays["page_span"][arena * ARENA_PAGES + page % ARENA_PAGES]) if arena >= 0 else 0


def _pool_lists(heap: Heap) -> dict[int, list[int]]:
    """Free stacks of each span in a pool's list; the lists, and the counts of their spans, are checked."""
    fields, spans, words = heap.fields, heap.arrays["spans"], heap.arrays["words"]
    free: dict[int, list[int]] = {}
    for order, size in enumerate(STACK_SIZES):
        before, s = 0, int(fields.stackpool[order])
        while s != 0:
            if s in free or int(words[int(spans.alloc_bits[s]) + 1]) != before or int(spans.elemsize[s]) != size:
                throw(f"span {s} stands wrongly in the list of stack pool {order}")
            free[s] = _linked(heap, int(words[int(spans.alloc_bits[s])]), f"free stacks of span {s}")
            if not free[s]:
                throw(f"span {s} has no free stack but is in the list of stack pool {order}")
            before, s = s, int(spans.next[s])
    return free


def _large_free(heap: Heap) -> set[int]:
    """Spans in the lists of stackLarge."""
    found: set[int] = set()
    for index in range(len(heap.fields.stack_large)):
        s = int(heap.fields.stack_large[index])
        while s != 0:
            if s in found or int(heap.arrays["spans"].npages[s]).bit_length() != index:
                throw(f"span {s} stands wrongly in list {index} of large stacks")
            found.add(s)
            s = int(heap.arrays["spans"].next[s])
    return found


def _holders(heap: Heap, free: dict[int, list[int]], large: set[int]) -> list[tuple[int, int, str]]:
    """Who holds a stack: (address or 0, bytes, name). The Ps' caches are checked for their sizes."""
    spans, procs, caches = heap.arrays["spans"], heap.arrays["procs"], heap.arrays["mcaches"]
    rows = heap.arrays["goroutines"][: int(heap.fields.ngs)]
    held = [(int(g["stack"]), int(g["stack_size"]), f"goroutine {i}") for i, g in enumerate(rows) if g["stack"]]
    for i, p in enumerate(procs):
        held.append((int(p["g0_stack"]), G0_STACK, f"the thread of P{i}"))
        held.append((int(p["gsignal_stack"]), GSIGNAL_STACK, f"the thread of P{i}"))
        held.append((int(p["old_stack"]), int(p["old_stack_size"]), f"P{i}, which frees it"))
        for order, size in enumerate(STACK_SIZES):
            cached = _linked(heap, int(caches["stackcache_list"][i, order]), f"P{i}'s stack cache {order}")
            if len(cached) * size != int(caches["stackcache_size"][i, order]):
                throw(f"P{i} caches {len(cached)} stacks of {size}, not {caches['stackcache_size'][i, order]} bytes")
            held += [(x, size, f"P{i}'s stack cache {order}") for x in cached]
    held += [(x, int(spans.elemsize[s]), f"the list of span {s}") for s, found in free.items() for x in found]
    held += [(int(spans.start_page[s]) << PAGE_SHIFT, int(spans.elemsize[s]), "stackLarge") for s in large]
    return held


def check_stacks(heap: Heap, others: Mapping[int, int]) -> None:
    """Every stack of every span of stacks; ``others``: stacks, address to bytes, that nobody known here holds."""
    spans = heap.arrays["spans"][: int(heap.fields.nspans)]
    free, large = _pool_lists(heap), _large_free(heap)
    owner: dict[int, str] = {}
    counts: dict[int, int] = {}
    held = _holders(heap, free, large) + [(address, size, "somebody") for address, size in others.items()]
    for address, size, name in held:
        if address == 0:
            continue
        s = _span_of(heap, address)
        offset = address - (int(spans.start_page[s]) << PAGE_SHIFT)
        if s == 0 or spans.state[s] != SPAN_MANUAL or int(spans.elemsize[s]) != size or offset % size:
            throw(f"stack {address:#x} of {size} bytes, held by {name}, is none of a span of stacks")
        if address in owner:
            throw(f"stack {address:#x} is held by {owner[address]} and {name}")
        owner[address] = name
        counts[s] = counts.get(s, 0) + 1
    for s in np.flatnonzero((spans.state == SPAN_MANUAL) & (spans.elemsize != 0)).tolist():
        whole = (int(spans.npages[s]) << PAGE_SHIFT) // int(spans.elemsize[s])
        if counts.get(s, 0) != whole:
            throw(f"of {whole} stacks of span {s} {counts.get(s, 0)} are known")
        in_list = len(free.get(s, ()))
        if int(spans.elemsize[s]) in STACK_SIZES and int(spans.alloc_count[s]) != whole - in_list:
            throw(f"span {s} has {in_list} free stacks of {whole}, alloc_count {spans.alloc_count[s]}")


def check_goroutines(heap: Heap) -> None:
    """Rows of goroutines: alive on a stack that holds their frames, or in one list of dead ones."""
    fields, procs = heap.fields, heap.arrays["procs"]
    rows = heap.arrays["goroutines"][: int(fields.ngs)]
    alive = rows["stack_used"] > 0
    bad = np.flatnonzero(alive & ((rows["stack"] == 0) | (rows["stack_used"] + STACK_GUARD > rows["stack_size"])))
    if len(bad):
        throw(f"goroutine {bad[0]} has frames of {rows['stack_used'][bad[0]]} bytes beyond its stack")
    if int(rows["stack_size"][alive].sum()) != int(fields.max_stack_scan):
        throw(f"stacks of live goroutines are not the {fields.max_stack_scan} bytes of max_stack_scan")
    lists = [(f"P{i}'s dead goroutines", int(p["gfree"]), int(p["gfree_n"])) for i, p in enumerate(procs)]
    heads = int(fields.gfree_stack), int(fields.gfree_nostack)
    seen: set[int] = set()
    counts = []
    for name, g, _ in [*lists, ("dead ones with a stack", heads[0], 0), ("dead ones without", heads[1], 0)]:
        before = len(seen)
        while g != 0:
            if g in seen or alive[g] or (name.startswith("dead") and (rows["stack"][g] != 0) != (name[-1] == "k")):
                throw(f"goroutine {g} stands wrongly among {name}")
            seen.add(g)
            g = int(rows["schedlink"][g])
        counts.append(len(seen) - before)
    if counts[:-2] != [n for _, _, n in lists] or sum(counts[-2:]) != int(fields.gfree_global):
        throw(f"lists of dead goroutines hold {counts}, not what their counts say")
    if len(rows) - 1 - int(alive.sum()) - len(seen) > len(procs):  # each P may be about to bring one to life
        throw("a dead goroutine is in no list")
