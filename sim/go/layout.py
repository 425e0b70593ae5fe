"""Where the heap lies in the address space (mirrors malloc.go:mallocinit and sysAlloc).

*Sparse* (from Go 1.11 on): 64 MiB arenas anywhere, found through an index of 4 Mi pointers (L1 has one entry, L2 is
32 MiB, paged in on demand). 128 hints (64 in go1.27, which keeps the rest for user arenas) say where to ask: 0x00c0,
0x01c0, ... above 32 zero bits. A hint moves behind what it gave, so the heap stays contiguous; a hint whose place
is taken is dropped; with no hint left the system chooses, and both sides of its choice become hints. Each arena brings
its own metadata (heapArena).

*Linear* (before Go 1.11): one reservation, spans 512 MiB | bitmap 16 GiB | arena 512 GiB, the arena from 0xc420000000.
Growth moves arena_used, here ``cur_arena_base``; 8 bytes of spans a page and 2 bits of bitmap a word are mapped in step,
the bitmap downwards from the arena. When the 512 GiB are used up there is no more. Arena records exist here too (they
hold the page bits), but cost nothing.

Which pages are chosen does not depend on the layout: both grow by multiples of 4 MiB and ask the same page allocator.

Addresses that others hold are a small table (``occupied``), given by the caller. With ``randomized_heap_base`` the
hints come from the first 20 bits of one word, ``heap_rand``, which the runtime draws at start; rooms draw nothing.

Left out: the race detector's and other platforms' hints, user arenas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mfixalloc import GC_SYS, OTHER_SYS, PTR_SIZE, SYS_PAGE, persistent_alloc, sys_alloc_meta
from sim.go.state import ARENA_HINT_ALLOC, ARENA_PAGES, PAGE_SHIFT, arena_map, arenas, fixallocs
from sim.jit import jit
from sim.units import Throw
from sim.words import shr64

ARENA_SHIFT = 26
ARENA_BYTES = 1 << ARENA_SHIFT
NUM_HINTS = 128
HINT_BASE = 0x00C0 << 32
HINT_STEP_SHIFT = 40
RAND_HEAP_ADDR_BITS = 46  # random heap addresses are below (malloc.go:mallocinit, amd64)
ARENA_INDEX_BYTES = 8 << 22  # the L2 arena map
MMAP_TOP = 0x7FFF_F7FF_F000  # where Linux places mappings downwards from, without its own randomization: stacks above
MMAP_MIN = 64 << 10

LINEAR_SPANS = 512 << 20
LINEAR_BITMAP = 16 << 30
LINEAR_ARENA = 512 << 30
LINEAR_BITMAP_CHUNK = 8192
HEAP_BITMAP_SCALE = 32  # bytes of heap a byte of the 2-bit bitmap covers

# bits of ARENA.meta_touched: a 4 KiB page each, in the order of go1.19's heapArena
_SPANS_PAGE = 512
_PAGE_BITS_PAGE = 528


@jit
def is_taken(h: Any, base: Any, end: Any) -> Any:
    """Whether an arena or somebody else holds part of [base, end)."""
    if end > MMAP_TOP:
        return True
    for i in range(h[0].noccupied):
        if base < h[0].occupied[2 * i + 1] and h[0].occupied[2 * i] < end:
            return True
    for index in range(base >> ARENA_SHIFT, (end + ARENA_BYTES - 1) >> ARENA_SHIFT):
        if arena_map(h)[index] != 0:
            return True
    return False


@jit
def general_hint(h: Any, i: Any) -> Any:
    """Address of the hint with number i. (malloc.go:mallocinit)

    Randomized: the arena's number is random, and i counts up its top byte, bits 38 to 45; the runtime merges in all but
    bits 40 to 47 of the random address, so that some hints coincide.
    """
    if not h[0].randomized_heap_base:
        return (np.int64(i) << HINT_STEP_SHIFT) | HINT_BASE
    top = RAND_HEAP_ADDR_BITS - ARENA_SHIFT
    base = np.int64(shr64(h[0].heap_rand, 64 - top)) << ARENA_SHIFT
    shift = RAND_HEAP_ADDR_BITS - 8
    prefix = ((base >> shift) + i) & 0xFF
    return (prefix << shift) | (base & ~(np.int64(0xFF) << 40))


@jit
def heap_hints(h: Any) -> Any:
    """Hints the heap starts with: half of them are for user arenas in go1.27."""
    return np.int64(NUM_HINTS // 2 if h[0].inline_mark_bits else NUM_HINTS)


@jit
def next_hint(h: Any) -> None:
    """Drop the hint at the head of the list, if there is one, for the next."""
    if h[0].arena_hint != 0:
        fixallocs(h)[ARENA_HINT_ALLOC].inuse -= fixallocs(h)[ARENA_HINT_ALLOC].record_bytes
    h[0].arena_hint_down = 0
    if h[0].arena_hints_left > 0:
        h[0].arena_hint = general_hint(h, heap_hints(h) - h[0].arena_hints_left)
        h[0].arena_hints_left -= 1
    else:
        h[0].arena_hint = h[0].arena_hint_below
        h[0].arena_hint_down = h[0].arena_hint_below != 0
        h[0].arena_hint_below = 0


@jit
def system_choice(h: Any, nbytes: Any) -> Any:
    """The highest aligned place with room, as Linux searches downwards; 0 if none. (malloc.go:sysReserveAligned)

    Asks for an arena more than needed and trims both ends.
    """
    size = nbytes + ARENA_BYTES
    end = np.int64(MMAP_TOP)
    moved = True
    while moved:
        moved = False
        for i in range(h[0].noccupied):
            if end - size < h[0].occupied[2 * i + 1] and h[0].occupied[2 * i] < end:
                end = h[0].occupied[2 * i]
                moved = True
        for at in range(h[0].narenas):
            base = arenas(h)[at].index << ARENA_SHIFT
            if end - size < base + ARENA_BYTES and base < end:
                end = base
                moved = True
    if end - size < MMAP_MIN:
        return np.int64(0)
    return (end - size + ARENA_BYTES - 1) & ~np.int64(ARENA_BYTES - 1)


@jit
def sys_reserve_hinted(h: Any, nbytes: Any) -> Any:
    """Reserve address space at the first hint that is free, else where the system says; 0 if nowhere."""
    while h[0].arena_hint != 0:
        p = h[0].arena_hint - nbytes if h[0].arena_hint_down else h[0].arena_hint
        if p > 0 and not is_taken(h, p, p + nbytes):
            h[0].arena_hint = p if h[0].arena_hint_down else p + nbytes
            return p
        next_hint(h)
    v = system_choice(h, nbytes)
    if v != 0:
        h[0].arena_hint = v + nbytes
        h[0].arena_hint_down = 0
        h[0].arena_hint_below = v
        fixallocs(h)[ARENA_HINT_ALLOC].inuse += 2 * fixallocs(h)[ARENA_HINT_ALLOC].record_bytes
    return v


@jit
def arena_metadata(h: Any) -> None:
    """A heapArena, its place in allArenas, and the arena map before the first. (malloc.go:sysAlloc, its end)"""
    if h[0].arena_index == 0:
        h[0].arena_index = ARENA_INDEX_BYTES
    persistent_alloc(h, np.int64(-1), h[0].arena_meta_bytes, np.int64(PTR_SIZE), GC_SYS)
    if h[0].narenas == h[0].arenas_cap:
        h[0].arenas_cap = max(2 * h[0].arenas_cap, np.int64(SYS_PAGE // PTR_SIZE))
        persistent_alloc(h, np.int64(-1), h[0].arenas_cap * PTR_SIZE, np.int64(PTR_SIZE), GC_SYS)


@jit
def enter_arenas(h: Any, base: Any, end: Any) -> None:
    """Records of the arenas that [base, end) reaches into and that have none yet."""
    for index in range(base >> ARENA_SHIFT, (end + ARENA_BYTES - 1) >> ARENA_SHIFT):
        if arena_map(h)[index] != 0:
            continue
        at = h[0].narenas
        if at >= h[0].arenas_len or (at + 1) * ARENA_PAGES > h[0].page_span_len:
            raise Throw("arena table full")
        if not h[0].linear_layout:
            arena_metadata(h)
        arenas(h)[at].index = index
        arena_map(h)[index] = at + 1
        h[0].narenas += 1


@jit
def add_arenas(h: Any, base: Any, nbytes: Any) -> None:
    """Enter reserved arenas in the index, with their metadata. (malloc.go:sysAlloc)"""
    enter_arenas(h, base, base + nbytes)
    h[0].reserved += nbytes


@jit
def sys_alloc(h: Any, ask: Any) -> Any:
    """Reserve whole arenas: (address, bytes), or (0, 0) when there is no address space. (malloc.go:sysAlloc)"""
    nbytes = (ask + ARENA_BYTES - 1) & ~np.int64(ARENA_BYTES - 1)
    base = sys_reserve_hinted(h, nbytes)
    if base == 0:
        return np.int64(0), np.int64(0)
    add_arenas(h, base, nbytes)
    return base, nbytes


@jit
def linear_reserve(h: Any) -> None:
    """Reserve spans, bitmap and arena in one piece at the first place that is free. (malloc.go:mallocinit, Go 1.10)"""
    whole = np.int64(LINEAR_SPANS + LINEAR_BITMAP + LINEAR_ARENA)
    for i in range(NUM_HINTS):
        p = general_hint(h, i)
        if not is_taken(h, p, p + whole):
            h[0].reserved += whole
            h[0].cur_arena_base = p + LINEAR_SPANS + LINEAR_BITMAP
            h[0].cur_arena_end = h[0].cur_arena_base + LINEAR_ARENA
            return
    raise Throw("runtime: cannot reserve arena virtual address space")


@jit
def linear_map(h: Any, base: Any, nbytes: Any) -> None:
    """Map spans and bitmap up to the new arena_used. (mheap.go:mapSpans, mapBits, Go 1.10)"""
    enter_arenas(h, base, base + nbytes)
    used = base + nbytes - (h[0].cur_arena_end - LINEAR_ARENA)
    spans_bytes = (((used >> PAGE_SHIFT) * PTR_SIZE) + SYS_PAGE - 1) & ~np.int64(SYS_PAGE - 1)
    bitmap_bytes = (used // HEAP_BITMAP_SCALE + LINEAR_BITMAP_CHUNK - 1) & ~np.int64(LINEAR_BITMAP_CHUNK - 1)
    more_spans = max(spans_bytes - h[0].linear_spans_mapped, np.int64(0))
    more_bitmap = max(bitmap_bytes - h[0].linear_bitmap_mapped, np.int64(0))
    sys_alloc_meta(h, more_spans, OTHER_SYS)
    sys_alloc_meta(h, more_bitmap, GC_SYS)
    h[0].linear_spans_mapped += more_spans
    h[0].linear_bitmap_mapped += more_bitmap
    h[0].reserved -= more_spans + more_bitmap


@jit
def touch_arena_page(h: Any, at: Any, bit: Any) -> None:
    """Count a page of an arena's metadata at its first touch."""
    mask = np.uint64(1) << np.uint64(bit & 63)
    word = arenas(h)[at].meta_touched[bit >> 6]
    if word & mask == 0:
        arenas(h)[at].meta_touched[bit >> 6] = word | mask
        h[0].fact_meta_pages += 1


@jit
def touch_arena_meta(h: Any, page: Any, npages: Any, heap_span: Any) -> None:
    """First touches of the metadata of a span's pages.

    Every span writes its spans[] entries (8 bytes a page) and reads zeroedBase; a heap span sets its page bit too, and
    where the version keeps a heap bitmap, clears its part (256 bytes a page; mbitmap.go:initSpan in go1.19).
    """
    last = page + npages - 1
    for unit in range(page >> 9, (last >> 9) + 1):
        at = np.int64(arena_map(h)[unit >> 4]) - 1
        touch_arena_page(h, at, _SPANS_PAGE + (unit & 15))
        if not h[0].linear_layout:
            touch_arena_page(h, at, _PAGE_BITS_PAGE + np.int64(h[0].inline_mark_bits))
    if not heap_span:
        return
    if not h[0].linear_layout:
        touch_arena_page(h, np.int64(arena_map(h)[page >> 13]) - 1, _PAGE_BITS_PAGE)
    if not h[0].heap_bits_in_span:
        for unit in range(page >> 4, (last >> 4) + 1):
            touch_arena_page(h, np.int64(arena_map(h)[unit >> 9]) - 1, unit & 511)
