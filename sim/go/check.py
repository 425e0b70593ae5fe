"""The allocator's invariants, checked over the whole state at once: for tests and ``--check``.

Each predicate throws with the numbers that break it.

- Places: every in-use span is in exactly one place, one P's cache or one set.
- Spans: no two share a page, each starts in an arena, counts agree with bitmaps, dead slots are allocated, the page map
  leads to them.
- Pages: the page allocator holds in use just what spans, page caches, scavengers at work and the random padding hold;
  nothing is free below its search address; the leaf summaries say what the bitmaps say.
- Scavenger: its index counts what the bitmaps say, and no flagged chunk lies above the cursor for force; memory stands
  behind mapped pages that are not scavenged, as many as resident_pages says.
- Ledger: the heap's parts sum to the bytes mapped for it and follow from bitmaps and spans; every byte of metadata is in
  one statistic; mapped_ready is the sum of all statistics less what is released, reserved what is left of reservations.
- Stacks and goroutines: see check_stack.py.
- Layout: arenas overlap nothing others hold, and their index leads to them.
- Pacer: what is marked <= trigger <= goal (or all are the goal), counts are not negative, marking began somewhere.
- GC CPU limiter: its bucket's level is within its capacity; it is on only while the bucket is full.

Whole columns are compared at a time: a heap of some thousand spans takes about a millisecond.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from sim.go import gccontroller
from sim.go.check_stack import check_goroutines, check_stacks
from sim.go.layout import (
    ARENA_BYTES,
    ARENA_INDEX_BYTES,
    ARENA_SHIFT,
    LINEAR_ARENA,
    LINEAR_BITMAP,
    LINEAR_SPANS,
    NUM_HINTS,
)
from sim.go.mfixalloc import GCBITS_CHUNK, PERSISTENT_CHUNK, PTR_SIZE, SYS_PAGE
from sim.go.mgcpacer import NOT_TRIGGERED
from sim.go.mpagealloc_64bit import ADDR_RANGE, CHUNK_MAP_BYTES, INITIAL_RANGES, SUMMARY_BYTES
from sim.go.mspanset import INITIAL_SPINE_CAP
from sim.go.pump import HAVE_PAGES, INSERT, PAGES
from sim.go.runtime import Heap
from sim.go.state import (
    ARENA_HINT_ALLOC,
    ARENA_PAGES,
    BLOCK_ENTRIES,
    CACHEALLOC,
    CHUNK_PAGES,
    PAGE_SHIFT,
    SPAN_DEAD,
    SPAN_IN_USE,
    SPAN_MANUAL,
    SPANALLOC,
)
from sim.units import throw

_ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def low_bits(n: Any) -> Any:
    """Words with their lowest n bits set, n clipped to [0, 64]."""
    n = np.clip(n, 0, 64).astype(np.uint64)
    shift = (np.uint64(64) - n) & np.uint64(63)
    return np.where(n == 0, np.uint64(0), _ALL >> shift)


def _set_entries(heap: Heap, index: int) -> list[int]:
    """The entries of a span set, stale ones included; its blocks against its counts."""
    queue, blocks = heap.arrays["spansets"][index], heap.arrays["set_blocks"].view(np.ndarray)
    popped, pushed = int(queue.popped), int(queue.pushed)
    chain, block, wanted = [], int(queue.head), -(-pushed // BLOCK_ENTRIES) - popped // BLOCK_ENTRIES
    while block != 0:
        chain.append(block)
        block = int(blocks["next"][block])
        if len(chain) > wanted:
            break
    if len(chain) != wanted or (chain[-1] if chain else 0) != int(queue.tail) or pushed < popped:
        throw(f"span set {index} holds entries {popped} to {pushed}, its chain of {len(chain)} blocks others")
    entries = np.concatenate([blocks["entries"][block] for block in chain]) if chain else np.zeros(0, np.int32)
    first = popped % BLOCK_ENTRIES
    found: list[int] = entries[first : first + pushed - popped].tolist()
    return found


def _check_set_blocks(heap: Heap) -> None:
    """Every row of set_blocks is in one set or free."""
    fields, sets = heap.fields, heap.arrays["spansets"]
    used = int((-(-sets.pushed // BLOCK_ENTRIES) - sets.popped // BLOCK_ENTRIES).sum())
    free, at = 0, int(fields.free_set_block)
    while at != 0 and free <= int(fields.nset_blocks):
        free, at = free + 1, int(heap.arrays["set_blocks"].next[at])
    if used + free != int(fields.nset_blocks) - 1:
        throw(f"{used} blocks of span sets are used, {free} free, of {int(fields.nset_blocks) - 1}")


def check_places(heap: Heap) -> None:
    """Every in-use span in exactly one cache or set; none that is not in use in any.

    An entry among the spans to be swept is stale, and no place, when its span is swept or not in use.
    """
    arrays, n = heap.arrays, int(heap.fields.nspans)
    places: dict[int, list[str]] = {}
    cached = np.asarray(arrays["mcaches"].alloc)
    for p, spc in np.argwhere(cached != 0):
        places.setdefault(int(cached[p, spc]), []).append(f"P{p}.alloc[{spc}]")
    state = arrays["spans"].state[:n].tolist()
    sweepgen = arrays["spans"].sweepgen[:n].tolist()
    sg = int(heap.fields.sweepgen)
    sets = arrays["spansets"]
    for index in np.flatnonzero((sets.head != 0) | (sets.tail != 0) | (sets.pushed != sets.popped)).tolist():
        unswept = index & 1 != sg >> 1 & 1
        if unswept and heap.fields.sweep_drained and sets.pushed[index] != sets.popped[index]:
            throw(f"span set {index} still holds spans to sweep, but the sweep is drained")
        for s in _set_entries(heap, index):
            if not 0 < s < n:
                throw(f"span set {index} holds {s}, which is no span")
            if unswept and (state[s] != SPAN_IN_USE or sweepgen[s] != sg - 2):
                continue
            places.setdefault(s, []).append(f"set {index}")
            if not unswept and state[s] == SPAN_IN_USE and sweepgen[s] != sg:
                throw(f"span {s} is in set {index} of swept spans, its sweepgen is {sweepgen[s]} of {sg}")
    _check_set_blocks(heap)
    for s in range(1, n):
        where = places.get(s, [])
        if state[s] == SPAN_IN_USE and len(where) != 1:
            throw(f"span {s} is in {len(where)} places: {', '.join(where) or 'none'}")
        if state[s] != SPAN_IN_USE and where:
            throw(f"span {s} is not in use but in {', '.join(where)}")


def _span_pages(heap: Heap) -> tuple[Any, Any]:
    """Every page of every live span, and the span each belongs to."""
    spans = heap.arrays["spans"][: int(heap.fields.nspans)]
    live = np.flatnonzero(spans.state != SPAN_DEAD)
    npages = spans.npages[live]
    owner = np.repeat(live, npages)
    offset = np.arange(len(owner)) - np.repeat(np.cumsum(npages) - npages, npages)
    return np.repeat(spans.start_page[live], npages) + offset, owner


def check_spans(heap: Heap) -> None:
    """No overlap, and the page map against spans; counts against bitmaps."""
    arrays = heap.arrays
    pages, owner = _span_pages(heap)
    order = np.argsort(pages, kind="stable")
    twice = np.flatnonzero(pages[order][1:] == pages[order][:-1])
    if len(twice):
        a, b = order[twice[0]], order[twice[0] + 1]
        throw(f"page {int(pages[a]):#x} is in span {owner[a]} and span {owner[b]}")
    arena = arrays["arena_map"][pages // ARENA_PAGES].astype(np.int64) - 1
    if (arena < 0).any():
        throw(f"span {owner[int(np.argmin(arena))]} lies outside every arena")
    wrong = np.flatnonzero(arrays["page_span"][arena * ARENA_PAGES + pages % ARENA_PAGES] != owner)
    if len(wrong):
        throw(f"the page map does not lead to span {owner[wrong[0]]} from page {int(pages[wrong[0]]):#x}")
    mapped = int(np.count_nonzero(arrays["page_span"][: int(heap.fields.narenas) * ARENA_PAGES]))
    if mapped != len(pages):
        throw(f"the page map leads to spans from {mapped} pages, spans have {len(pages)}")
    _check_bitmaps(heap)


def _check_bitmaps(heap: Heap) -> None:
    """allocBits and dead bits of every in-use span against its counts, word by word."""
    arrays = heap.arrays
    spans = arrays["spans"][: int(heap.fields.nspans)]
    used = np.flatnonzero(spans.state == SPAN_IN_USE)
    if not len(used):
        return
    nelems = spans.nelems[used].astype(np.int64)
    nwords = (nelems + 63) // 64
    first = np.cumsum(nwords) - nwords
    which = np.repeat(np.arange(len(used)), nwords)
    i = np.arange(int(nwords.sum())) - first[which]
    allocated = arrays["words"][spans.alloc_bits[used].astype(np.int64)[which] + i]
    dead = arrays["words"][spans.dead_bits[used].astype(np.int64)[which] + i]
    beyond = ~low_bits(nelems[which] - 64 * i)
    bad = np.flatnonzero((allocated | dead) & beyond)
    if len(bad):
        s = which[bad[0]]
        throw(f"span {used[s]} has bits at or above its {nelems[s]} slots")
    allocated |= low_bits(spans.freeindex[used].astype(np.int64)[which] - 64 * i) & ~beyond
    held = np.add.reduceat(np.bitwise_count(allocated).astype(np.int64), first)
    bad = np.flatnonzero(held != spans.alloc_count[used])
    if len(bad):
        s = used[bad[0]]
        throw(f"span {s} holds {held[bad[0]]} objects, its alloc_count says {spans.alloc_count[s]}")
    bad = np.flatnonzero(dead & ~allocated)
    if len(bad):
        throw(f"span {used[which[bad[0]]]} has dead slots that are not allocated")


def _cached_pages(heap: Heap, field: str) -> Any:
    """Page numbers of the ones in a field of the Ps' page caches."""
    caches = heap.arrays["mcaches"]
    bits = np.unpackbits(np.ascontiguousarray(caches[field] & caches["pcache"]).view(np.uint8), bitorder="little")
    at = np.flatnonzero(bits)
    return caches["pcache_base"][at // 64] + at % 64


def _chunk_bits(heap: Heap, field: str) -> Any:
    """A bitmap of all chunks, a row a chunk, as booleans."""
    words = np.ascontiguousarray(heap.arrays["chunks"][field][: int(heap.fields.nchunks)])
    return np.unpackbits(words.view(np.uint8), bitorder="little").reshape(-1, CHUNK_PAGES).astype(bool)


def _spanless(heap: Heap) -> Any:
    """Rows of goroutines whose allocation has pages and no span yet."""
    rows = heap.arrays["goroutines"]
    return rows[np.isin(rows["stage"], (PAGES, INSERT, HAVE_PAGES)) & (rows["page"] >= 0)]


def _page_numbers(runs: list[tuple[int, int]]) -> Any:
    """The pages of runs of pages."""
    return np.concatenate([np.zeros(0, np.int64), *(page + np.arange(npages) for page, npages in runs)])


def _pages_in_flight(heap: Heap) -> Any:
    """Page numbers of the runs that scavengers are giving back."""
    return _page_numbers(heap.arrays["procs"][["scav_page", "scav_npages"]].tolist())


def check_pages(heap: Heap) -> None:
    """The page allocator's bitmaps against who holds pages; its search address and leaf summaries."""
    fields = heap.fields
    used = _chunk_bits(heap, "bits")
    first_page = heap.arrays["chunks"]["index"][: len(used)] * CHUNK_PAGES
    row, bit = np.nonzero(used)
    held = np.sort(first_page[row] + bit)
    padding = int(fields.padding_start) + np.arange(int(fields.padding_pages))
    taken = _page_numbers(_spanless(heap)[["page", "npages"]].tolist())
    held_by = [_span_pages(heap)[0], _cached_pages(heap, "pcache"), _pages_in_flight(heap), taken, padding]
    wanted = np.sort(np.concatenate(held_by))
    if not np.array_equal(held, wanted):
        odd = np.setxor1d(held, wanted)
        page = int(odd[0]) if len(odd) else int(wanted[np.flatnonzero(np.diff(wanted) == 0)[0]])
        throw(f"{len(held)} pages are in use, holders have {len(wanted)}; the first that differs is {page:#x}")
    row, bit = np.nonzero(~used)
    lowest = int((first_page[row] + bit).min(initial=1 << 35))
    if lowest < int(fields.search_addr):
        throw(f"page {lowest:#x} is free below the search address {int(fields.search_addr):#x}")
    _check_leaves(heap, ~used)


def _check_leaves(heap: Heap, free: Any) -> None:
    """Start, longest and end run of free pages of each chunk against its leaf summary."""
    if not len(free):
        return
    at = np.arange(1, CHUNK_PAGES + 1)
    run = at - np.maximum.accumulate(np.where(free, 0, at), axis=1)  # free pages that end at each page
    start = np.where(free.all(axis=1), CHUNK_PAGES, np.argmin(free, axis=1))
    word = start.astype(np.uint64) | run.max(axis=1).astype(np.uint64) << np.uint64(21)
    word |= run[:, -1].astype(np.uint64) << np.uint64(42)
    index = heap.arrays["chunks"]["index"][: len(free)]
    bad = np.flatnonzero(heap.arrays["summary4"][index] != word)
    if len(bad):
        throw(f"the summary of chunk {int(index[bad[0]]):#x} differs from its bitmap")


def check_ledger(heap: Heap) -> None:
    """The heap's part of the ledger sums to what is mapped, and follows from spans and bitmaps."""
    fields, arrays = heap.fields, heap.arrays
    mapped = int(fields.nchunks) << 22
    total = int(fields.heap_in_use + fields.stacks_in_use + fields.heap_free + fields.heap_released)
    if total != mapped:
        throw(f"ledger sums to {total} bytes, {mapped} are mapped")
    spans = arrays["spans"][: int(fields.nspans)]
    for state, name in ((SPAN_IN_USE, "heap_in_use"), (SPAN_MANUAL, "stacks_in_use")):
        held = int(spans.npages[spans.state == state].sum()) << PAGE_SHIFT
        if held != int(fields[name]):
            throw(f"spans cover {held} bytes, {name} says {fields[name]}")
    released = int(_chunk_bits(heap, "scav").sum()) + len(_cached_pages(heap, "pcache_scav"))
    released += int(_spanless(heap)["scav"].sum())
    if released << PAGE_SHIFT != int(fields.heap_released):
        throw(f"{released << PAGE_SHIFT} bytes are scavenged, heap_released says {fields.heap_released}")


def check_scavenger(heap: Heap) -> None:
    """The scavenge index against the bitmaps, and memory against what is mapped and not scavenged."""
    fields, arrays = heap.fields, heap.arrays
    chunks = arrays["chunks"][: int(fields.nchunks)]
    index = np.ascontiguousarray(chunks["index"])
    if not fields.scavenge_index_bits:
        flying = np.unique(_pages_in_flight(heap) // CHUNK_PAGES, return_counts=True)
        in_use = _chunk_bits(heap, "bits").sum(axis=1)
        in_use -= np.array([dict(zip(*flying, strict=True)).get(i, 0) for i in index], np.int64).reshape(in_use.shape)
        bad = np.flatnonzero(in_use != chunks["in_use"])
        if len(bad):
            throw(f"{in_use[bad[0]]} pages of chunk {index[bad[0]]:#x} are in use, in_use says {chunks['in_use'][bad[0]]}")
        bad = np.flatnonzero((chunks["gen"] > fields.scav_gen) | (chunks["last_in_use"] > CHUNK_PAGES))
        if len(bad):
            throw(f"chunk {index[bad[0]]:#x} is of generation {chunks['gen'][bad[0]]}, the index of {fields.scav_gen}")
    top = int(index[chunks["flags"] != 0].max(initial=-1))
    if top > int(fields.scav_search_force) >> 9:
        throw(f"chunk {top:#x} may have something to scavenge, above the cursor at page {int(fields.scav_search_force):#x}")
    _check_resident(heap)


def _check_resident(heap: Heap) -> None:
    """The 4 KiB pages that memory stands behind: in chunks, not scavenged, and counted."""
    fields, arrays = heap.fields, heap.arrays
    words = np.ascontiguousarray(arrays["arenas"]["touched"][: int(fields.narenas)])
    bits = np.unpackbits(words.view(np.uint8), bitorder="little").reshape(-1, 2 * ARENA_PAGES)
    row, bit = np.nonzero(bits)
    if len(row) != int(fields.resident_pages):
        throw(f"memory stands behind {len(row)} system pages, resident_pages says {fields.resident_pages}")
    page = np.unique(arrays["arenas"]["index"][row] * ARENA_PAGES + bit // 2)
    chunk = arrays["chunk_map"][page // CHUNK_PAGES].astype(np.int64) - 1
    if (chunk < 0).any():
        throw(f"memory stands behind page {int(page[int(np.argmin(chunk))]):#x}, which is not mapped")
    scavenged = _chunk_bits(heap, "scav")[chunk, page % CHUNK_PAGES] | np.isin(page, _cached_pages(heap, "pcache_scav"))
    if scavenged.any():
        throw(f"memory stands behind page {int(page[int(np.argmax(scavenged))]):#x}, which is scavenged")


def _round(n: int, unit: int) -> int:
    return -(-n // unit) * unit


def _doubled(first: int, n: int) -> list[int]:
    """Lengths of the arrays a list of n has had, doubling from ``first``; none while it is empty."""
    lengths = [first] if n else []
    while lengths and lengths[-1] < n:
        lengths.append(2 * lengths[-1])
    return lengths


def _page_allocator_mapped(heap: Heap) -> int:
    """Bytes of summaries and scavenge index that the chunks there are need mapped, in 4 KiB pages."""
    fields = heap.fields
    index = heap.arrays["chunks"]["index"][: int(fields.nchunks)]
    if not len(index):
        return 0
    pages = 32 + sum(len(np.unique(index >> 3 * (4 - level) + 9)) for level in range(1, 5))
    biased = index ^ (1 << 25)
    if fields.scavenge_index_bits:
        pages += int(biased.max() >> 15) + 1
    else:
        pages += int(biased.max() >> 9) - int(biased.min() >> 9) + 1
    return pages * SYS_PAGE


def _small_gc_metadata(heap: Heap) -> int:
    """Bytes persistentalloc cut for span sets, the list of arenas and that of address ranges, outgrown ones included."""
    fields, sets = heap.fields, heap.arrays["spansets"]
    blocks = int(fields.spanset_pool)
    if not fields.mcentral_mutex:
        blocks += int((-(-sets.pushed // BLOCK_ENTRIES) - sets.popped // BLOCK_ENTRIES).sum())
    if blocks != int(fields.spanset_blocks):
        throw(f"{blocks} span-set blocks are used or free, {fields.spanset_blocks} were made")
    arenas = 0 if fields.linear_layout else int(fields.narenas)
    spines = sum(sum(_doubled(INITIAL_SPINE_CAP, int(cap))) for cap in sets.spine_cap[sets.spine_cap > 0])
    pointers = spines + sum(_doubled(SYS_PAGE // PTR_SIZE, arenas))
    ranges = sum(_doubled(INITIAL_RANGES, int(fields.in_use_cap)))
    return blocks * int(fields.spanset_block_bytes) + pointers * PTR_SIZE + ranges * ADDR_RANGE


def check_metadata(heap: Heap) -> None:
    """Every statistic of metadata from the structures it pays for, and the sums over all."""
    fields, arrays = heap.fields, heap.arrays
    fixed = arrays["fixallocs"]
    free, at = 0, int(fixed.list[SPANALLOC])
    while at != 0:
        free, at = free + 1, int(arrays["spans"].next[at])
        if free > int(fields.nspans):
            throw("the list of free span records is a ring")
    for which, made, freed, sys, name in (
        (SPANALLOC, int(fields.nspans) - 1, free, int(fields.mspan_sys), "mspan"),
        (CACHEALLOC, int(fields.nprocs), 0, int(fields.mcache_sys), "mcache"),
    ):
        size, nalloc, inuse = int(fixed.record_bytes[which]), int(fixed.nalloc[which]), int(fixed.inuse[which])
        if inuse != (made - freed) * size:
            throw(f"{made - freed} {name} records are in use, inuse says {inuse} bytes of {size}")
        if sys != _round(made * size, nalloc):
            throw(f"{made} {name} records take chunks of {nalloc} bytes, {name}_sys says {sys}")
    small = _small_gc_metadata(heap)
    bits = int(fields.gcbits_next + fields.gcbits_current + fields.gcbits_previous + fields.gcbits_spare)
    tables = _page_allocator_mapped(heap)
    gc = small + bits * GCBITS_CHUNK + tables + int(fields.linear_bitmap_mapped)
    gc += len(np.unique(arrays["chunks"]["index"][: int(fields.nchunks)] >> 13)) * CHUNK_MAP_BYTES
    if not fields.linear_layout:
        gc += int(fields.narenas) * int(fields.arena_meta_bytes)
    if gc != int(fields.gc_sys):
        throw(f"the collector's metadata takes {gc} bytes, gc_sys says {fields.gc_sys}")
    other = int(fields.persistent_chunks) * PERSISTENT_CHUNK + int(fields.allspans_cap) * PTR_SIZE
    other += int(fields.linear_spans_mapped) - small - int(fields.mspan_sys) - int(fields.mcache_sys)
    if other != int(fields.other_sys):
        throw(f"other metadata takes {other} bytes, other_sys says {fields.other_sys}")
    _check_totals(heap, tables)


def _check_totals(heap: Heap, tables: int) -> None:
    """Ready memory and reserved address space; ``tables``: mapped bytes of the page allocator's tables."""
    fields = heap.fields
    ready = int(fields.heap_in_use + fields.heap_free + fields.stacks_in_use)
    ready += int(fields.mspan_sys + fields.mcache_sys + fields.gc_sys + fields.other_sys)
    if ready != int(fields.mapped_ready):
        throw(f"statistics sum to {ready} ready bytes, mapped_ready says {fields.mapped_ready}")
    reserved = SUMMARY_BYTES + (1 << 23 if fields.scavenge_index_bits else 1 << 29) - tables
    reserved -= int(fields.nchunks) << 22
    if fields.linear_layout:
        reserved += LINEAR_SPANS + LINEAR_BITMAP + LINEAR_ARENA
        reserved -= int(fields.linear_spans_mapped + fields.linear_bitmap_mapped)
    else:
        reserved += int(fields.narenas) << ARENA_SHIFT
    if reserved != int(fields.reserved):
        throw(f"{reserved} bytes of address space are left of the reservations, reserved says {fields.reserved}")


def check_layout(heap: Heap) -> None:
    """Arenas against their index, what others hold, and the chunks in them."""
    fields, arrays = heap.fields, heap.arrays
    index = arrays["arenas"]["index"][: int(fields.narenas)]
    if not np.array_equal(arrays["arena_map"][index], np.arange(1, len(index) + 1)):
        throw("the arena index does not lead to its arenas")
    for i in range(int(fields.noccupied)):
        first, end = int(fields.occupied[2 * i]), int(fields.occupied[2 * i + 1])
        inside = index[((index << ARENA_SHIFT) < end) & ((index << ARENA_SHIFT) + ARENA_BYTES > first)]
        if len(inside):
            throw(f"arena {int(inside[0]):#x} lies in {first:#x}..{end:#x}, which others hold")
    chunk = arrays["chunks"]["index"][: int(fields.nchunks)]
    if (arrays["arena_map"][chunk >> 4] == 0).any():
        throw("a chunk lies outside every arena")
    wanted = 0 if fields.linear_layout or not len(index) else ARENA_INDEX_BYTES
    if int(fields.arena_index) != wanted:
        throw(f"the arena map takes {wanted} bytes, arena_index says {fields.arena_index}")
    hints = 0 if fields.linear_layout else int(fields.arena_hints_left)
    hints += int(fields.arena_hint != 0) + int(fields.arena_hint_below != 0)
    if fields.inline_mark_bits and not fields.linear_layout:
        hints += NUM_HINTS // 2  # user arenas'
    fixed = arrays["fixallocs"]
    if int(fixed.inuse[ARENA_HINT_ALLOC]) != hints * int(fixed.record_bytes[ARENA_HINT_ALLOC]):
        throw(f"there are {hints} arena hints, inuse says {fixed.inuse[ARENA_HINT_ALLOC]} bytes")


def check_pacer(heap: Heap) -> None:
    """Trigger and goal against what is marked, and the pacer's counts."""
    fields = heap.fields
    for name in ("heap_live", "heap_scan", "heap_marked", "heap_scan_work", "stack_scan_work", "globals_scan_work"):
        if fields[name] < 0:
            throw(f"{name} is {fields[name]} bytes")
    if fields.heap_marked > fields.heap_live:
        throw(f"more is marked, {fields.heap_marked} bytes, than is live, {fields.heap_live}")
    if fields.gc_percent_heap_goal < fields.heap_minimum:
        throw(f"a goal of {fields.gc_percent_heap_goal} bytes is shorter than any, {fields.heap_minimum}")
    trigger, goal = gccontroller.trigger(heap.header)
    if not min(int(fields.heap_marked), goal) <= trigger <= goal:
        throw(f"the trigger {trigger} is not between {fields.heap_marked} marked and the goal {goal}")
    if fields.gc_blacken_enabled and fields.triggered == NOT_TRIGGERED:
        throw("marking runs without a trigger")
    if fields.gc_blacken_enabled and not fields.assist_work_per_byte > 0:
        throw(f"assist_work_per_byte is {fields.assist_work_per_byte} while marking")
    if fields.idle_mark_workers < 0 or fields.dedicated_mark_workers_needed < 0:
        throw(f"{fields.idle_mark_workers} idle mark workers, {fields.dedicated_mark_workers_needed} dedicated needed")


def check_limiter(heap: Heap) -> None:
    """The GC CPU limiter's bucket."""
    fields = heap.fields
    fill, capacity = int(fields.limiter_fill), int(fields.limiter_capacity)
    if not 0 <= fill <= capacity:
        throw(f"the limiter's bucket holds {fill} of {capacity} ps")
    if fields.limiter_enabled and fill != capacity:
        throw(f"the limiter is on with {fill} of {capacity} ps in its bucket")


def check_heap(heap: Heap, stacks: Mapping[int, int] = MappingProxyType({})) -> None:
    """Every invariant of the rooms; Throw names the first that does not hold. ``stacks``: see `check_stacks`."""
    check_layout(heap)
    check_places(heap)
    check_spans(heap)
    check_pages(heap)
    check_ledger(heap)
    check_scavenger(heap)
    check_metadata(heap)
    check_pacer(heap)
    check_limiter(heap)
    check_stacks(heap, stacks)
    check_goroutines(heap)
