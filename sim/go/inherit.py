"""The heap that is there when the simulated program begins: its spans, with taken and free slots, in resident memory.

A recorded program begins in the middle of its life. Its spans are made by the same rooms, one behind the other, before
the clock runs: no price, no latency, no collection. Those that a P had cached it has cached, the others wait in their
central sets. The pacer is told afterwards where its cycle stands (mgc.Collector.resume).

Left out: the free pages between the spans, which a real heap of that age has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import int64

from sim.go.mallocgc import assign, count_large, count_small
from sim.go.mheap import room_is_short, touch_pages
from sim.go.mspan import is_allocated, set_freeindex, tiny_count
from sim.go.mspanset import place_swept
from sim.go.reclaim import heap_alloc
from sim.go.state import PAGE_SHIFT, TINY_SPAN_CLASS, goroutines, heap_type, mcaches, small_alloc_count, spans, words
from sim.jit import PLAIN, address_of, bare, entry, jit, view_at
from sim.ops import OP
from sim.units import Throw, throw
from sim.words import bit64

if TYPE_CHECKING:
    from sim.go.world import World

INHERITED = np.dtype(
    [
        ("npages", "i8"),
        ("spanclass", "i8"),
        ("cached_by", "i8"),  # the P that has it cached, -1 = none
        ("end", "i8"),  # its objects are those up to here, from the span before on
    ]
)

ops_at = view_at(OP)
inherited_at = view_at(INHERITED)
slots_at = view_at(np.dtype(np.int64))


@jit
def place(h: Any, op: Any, s: Any, slot: Any) -> None:
    """Give one ALLOC operation its slot of a small span."""
    sp = spans(h)[s]
    if slot >= sp.nelems or is_allocated(h, s, slot):
        raise Throw("an inherited object has no slot of its own")
    words(h)[np.int64(sp.alloc_bits) + (slot >> 6)] |= bit64(slot & 63)
    sp.alloc_count += 1
    spc = np.int64(sp.spanclass)
    count_small(h, np.int64(0), op, spc, sp)
    if spc == TINY_SPAN_CLASS:
        tiny_count(h, s, slot, 1)
    else:
        h[0].live_bytes += sp.elemsize
    assign(h, goroutines(h)[0], op, (s << 16) | slot)


@jit
def keep(h: Any, s: Any, p: Any) -> None:
    """A small span has its objects: statistics, and where it is found, in a P's cache or in a central set."""
    sp = spans(h)[s]
    spc = np.int64(sp.spanclass)
    small_alloc_count(h)[spc >> 1] += np.int64(sp.alloc_count)
    h[0].total_alloc += np.int64(sp.alloc_count) * sp.elemsize
    if p < 0:
        place_swept(h, s)
        return
    set_freeindex(h, s, np.int64(0))
    sp.sweepgen = h[0].sweepgen + 3
    sp.alloc_count_before_cache = sp.alloc_count
    mcaches(h)[p].alloc[spc] = s


@entry(int64(heap_type, int64, int64, int64, int64, int64, int64))
def place_from(h: Any, spans_at: Any, nspans: Any, ops: Any, slots: Any, nops: Any, first: Any) -> Any:
    """Make spans from the so many-th on; how many there are when a table has to grow, or all are."""
    h = bare(h)
    rows, allocs, places = inherited_at(spans_at, nspans), ops_at(ops, nops), slots_at(slots, nops)
    for k in range(first, nspans):
        row = rows[k]
        if row.cached_by < -1 or row.cached_by >= h[0].nprocs or (row.cached_by >= 0 and row.spanclass < 2):
            raise Throw("an inherited span is cached by a P that there is not, or is a large object's")
        if room_is_short(h, row.npages):
            return np.int64(k)
        s = heap_alloc(h, np.int64(0), np.int64(row.npages), np.int64(row.spanclass))
        spans(h)[s].needzero = 1
        begin = rows[k - 1].end if k else np.int64(0)
        if row.spanclass < 2:
            count_large(h, np.int64(0), allocs[begin], s, row.npages << PAGE_SHIFT)
            assign(h, goroutines(h)[0], allocs[begin], s << 16)
        else:
            for i in range(begin, row.end):
                place(h, allocs[i], s, np.int64(places[i]))
            keep(h, s, np.int64(row.cached_by))
        touch_pages(h, spans(h)[s], np.int64(0), row.npages << PAGE_SHIFT)
    h[0].fact_meta_pages = 0
    return np.int64(nspans)


def inherit(world: World, rows: Any, ops: Any, slots: Any) -> None:
    """Have spans (INHERITED) with the objects of ALLOC operations (sim.ops.OP), in slots, before anything else happens.

    The program's variables must have been reserved. A large span has one object. Throw if two objects share a slot, or a
    span is cached by no P of the world.
    """
    if rows.dtype != INHERITED or ops.dtype != OP or world.now != 0:
        throw("inherit takes spans (INHERITED) and operations (OP), before the program begins")
    if PLAIN:
        rows, ops = rows.view(np.recarray), ops.view(np.recarray)
    slots = np.ascontiguousarray(slots, np.int64)
    if not len(slots) == len(ops) == (int(rows["end"][-1]) if len(rows) else 0):
        throw("inherited spans do not end where their objects do")
    at = 0
    while at < len(rows):
        args = (address_of(rows), len(rows), address_of(ops), address_of(slots), len(ops), at)
        at = int(place_from(world.heap.header, *args))
        if at < len(rows):
            world.heap.make_room(int(rows["npages"][at]))
    world.inherited()
