"""Memory for the allocator's own records, outside the heap (mirrors mfixalloc.go, malloc.go:persistentalloc and
mheap.go:newMarkBits).

``persistentalloc`` cuts 256 KiB chunks from the system, one per P and a global one, and never takes anything back;
64 KiB or more goes to the system directly. ``fixalloc`` cuts 16 KiB pieces of that into records of one size and
recycles them last in, first out. Mark bits come from 64 KiB arenas that are recycled whole, two cycles later.

Every byte counts in one statistic: a persistentalloc chunk in other_sys until a part of it is handed out for one of
the others. ``mapped_ready`` has them all.

``fact_meta_pages`` counts 4 KiB pages of metadata touched for the first time, each when its first byte is handed out:
span and mcache records, span-set blocks and spines, mark bits, the allspans array (its copies too), headers of chunks
and of bit arenas; and by first touch in heapArena (heap bitmap, spans[], page bits, zeroedBase), page summaries, chunk
bitmaps and the scavenge index. Recycled records, blocks and bit arenas count nothing. Left out of that count: the lists
of arenas and of address ranges and the 32 MiB arena map (a page in gigabytes of heap).

Where the caller knows no P (span-set blocks, arena lists), the global chunk serves instead of the P's own: bytes in use
are right, other_sys may be short by up to a chunk a P.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.state import SPANALLOC, fixallocs, mcaches, spans
from sim.jit import jit
from sim.units import Throw

# the statistic that bytes from the system count in
OTHER_SYS = 0
GC_SYS = 1
MSPAN_SYS = 2
MCACHE_SYS = 3

SYS_PAGE_SHIFT = 12
SYS_PAGE = 1 << SYS_PAGE_SHIFT
FIXALLOC_CHUNK = 16 << 10
PERSISTENT_CHUNK = 256 << 10
MAX_BLOCK = 64 << 10  # from this size on persistentalloc asks the system for just the block
PTR_SIZE = 8
GCBITS_CHUNK = 64 << 10
GCBITS_ARENA = GCBITS_CHUNK - 16  # a 64 KiB arena of mark bits, less its header


@jit
def sys_charge(h: Any, stat: Any, nbytes: Any) -> None:
    """Add bytes to a statistic. (mstats.go:sysMemStat.add)"""
    if stat == OTHER_SYS:
        h[0].other_sys += nbytes
    elif stat == GC_SYS:
        h[0].gc_sys += nbytes
    elif stat == MSPAN_SYS:
        h[0].mspan_sys += nbytes
    else:
        h[0].mcache_sys += nbytes


@jit
def sys_alloc_meta(h: Any, nbytes: Any, stat: Any) -> None:
    """Ready memory straight from the system; negative: given back. (mem.go:sysAlloc, sysFree)"""
    sys_charge(h, stat, nbytes)
    h[0].mapped_ready += nbytes


@jit
def touch_meta(h: Any, at: Any, nbytes: Any) -> None:
    """Count the system pages whose first byte lies in fresh metadata at ``at`` of a page-aligned block."""
    h[0].fact_meta_pages += ((at + nbytes - 1) >> SYS_PAGE_SHIFT) - ((at - 1) >> SYS_PAGE_SHIFT)


@jit
def persistent_alloc(h: Any, p: Any, nbytes: Any, align: Any, stat: Any) -> Any:
    """Bytes that are never given back: where they lie in their chunk. (malloc.go:persistentalloc)

    ``p``: the P whose chunk it comes from, -1 for the global one; ``align``: a power of 2, at most 8 KiB.
    """
    if nbytes >= MAX_BLOCK:
        sys_alloc_meta(h, nbytes, stat)
        return np.int64(0)
    off = np.int64(h[0].palloc_off) if p < 0 else np.int64(mcaches(h)[p].palloc_off)
    at = (off + align - 1) & -align
    if off == 0 or at + nbytes > PERSISTENT_CHUNK:
        sys_alloc_meta(h, np.int64(PERSISTENT_CHUNK), OTHER_SYS)
        h[0].persistent_chunks += 1
        touch_meta(h, np.int64(0), PTR_SIZE)  # the link to the chunk before
        at = (PTR_SIZE + align - 1) & -align
    if p < 0:
        h[0].palloc_off = at + nbytes
    else:
        mcaches(h)[p].palloc_off = at + nbytes
    sys_charge(h, stat, nbytes)
    sys_charge(h, OTHER_SYS, -nbytes)
    return at


@jit
def fixalloc_init(h: Any, which: Any, size: Any, stat: Any) -> None:
    """An allocator of records of ``size`` bytes. (mfixalloc.go:init)"""
    f = fixallocs(h)[which]
    f.record_bytes = size
    f.nalloc = FIXALLOC_CHUNK // size * size
    f.chunk = 0
    f.nchunk = 0
    f.inuse = 0
    f.list = 0
    f.stat = stat


@jit
def fixalloc_cut(h: Any, p: Any, which: Any) -> None:
    """A record never used before. (mfixalloc.go:alloc, its second half)"""
    f = fixallocs(h)[which]
    if f.nchunk < f.record_bytes:
        f.chunk = persistent_alloc(h, p, f.nalloc, np.int64(8), np.int64(f.stat))
        f.nchunk = f.nalloc
    touch_meta(h, f.chunk, f.record_bytes)
    f.chunk += f.record_bytes
    f.nchunk -= f.record_bytes
    f.inuse += f.record_bytes


@jit
def record_span(h: Any) -> None:
    """Enter a new span record in allspans, which grows by half, from 64 KiB on. (mheap.go:recordspan)"""
    length = h[0].nspans - 1  # emptymspan is not among them
    cap = h[0].allspans_cap
    if length >= cap:
        new = max(np.int64(MAX_BLOCK // PTR_SIZE), cap * 3 // 2)
        sys_alloc_meta(h, (new - cap) * PTR_SIZE, OTHER_SYS)
        h[0].allspans_cap = new
        if length > 0:
            touch_meta(h, np.int64(0), length * PTR_SIZE)
    touch_meta(h, length * PTR_SIZE, PTR_SIZE)


@jit
def span_record_locked(h: Any, p: Any) -> Any:
    """A span record, the one freed last or a new one: its index. (mfixalloc.go:alloc)"""
    f = fixallocs(h)[SPANALLOC]
    s = np.int64(f.list)
    if s != 0:
        f.list = spans(h)[s].next
        f.inuse += f.record_bytes
        return s
    s = h[0].nspans
    if s >= h[0].spans_len:
        raise Throw("span table full")
    fixalloc_cut(h, p, SPANALLOC)
    record_span(h)
    h[0].nspans += 1
    return s


@jit
def free_span_record_locked(h: Any, s: Any) -> None:
    """Give a span record back. (mfixalloc.go:free)"""
    f = fixallocs(h)[SPANALLOC]
    spans(h)[s].next = f.list
    f.list = s
    f.inuse -= f.record_bytes


@jit
def new_mark_bits(h: Any, nelems: Any) -> None:
    """Account for a bitmap of a span in the arena of the next epoch. (mheap.go:newMarkBits)"""
    nbytes = ((np.int64(nelems) + 63) >> 6) << 3
    if h[0].gcbits_next == 0 or h[0].gcbits_free + nbytes > GCBITS_ARENA:
        new_bits_arena(h)
    if h[0].gcbits_fresh:
        touch_meta(h, GCBITS_CHUNK - GCBITS_ARENA + h[0].gcbits_free, nbytes)
    h[0].gcbits_free += nbytes


@jit
def new_bits_arena(h: Any) -> None:
    """Head the next epoch's arenas with a recycled one, else one from the system. (mheap.go:newArenaMayUnlock)"""
    h[0].gcbits_next += 1
    h[0].gcbits_free = 0
    if h[0].gcbits_spare > 0:
        h[0].gcbits_spare -= 1
        h[0].gcbits_fresh = 0
        return
    sys_alloc_meta(h, np.int64(GCBITS_CHUNK), GC_SYS)
    h[0].gcbits_fresh = 1
    touch_meta(h, np.int64(0), GCBITS_CHUNK - GCBITS_ARENA)


@jit
def next_mark_bit_arena_epoch(h: Any) -> None:
    """All spans are swept: nothing uses the epoch before last any more. (mheap.go:nextMarkBitArenaEpoch)"""
    h[0].gcbits_spare += h[0].gcbits_previous
    h[0].gcbits_previous = h[0].gcbits_current
    h[0].gcbits_current = h[0].gcbits_next
    h[0].gcbits_next = 0
