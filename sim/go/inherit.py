"""Objects that are there when the simulated program begins: placed at no time by the first P, in resident memory.

A recorded program begins in the middle of its life. What it has then is allocated by the same rooms, packed, before the
clock runs: no price, no latency, no collection. The pacer is told afterwards where its cycle stands
(mgc.Collector.resume).

Left out: the pages' and free slots' places among the objects, which a real heap of that age has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import int64

from sim.go.malloc import small_slot, span_class_of
from sim.go.mallocgc import assign, count_large, count_small
from sim.go.mheap import room_is_short, touch_pages
from sim.go.mspan import tiny_count
from sim.go.reclaim import heap_alloc
from sim.go.state import PAGE_SHIFT, PAGE_SIZE, TINY_SPAN_CLASS, goroutines, heap_type, spans
from sim.jit import PLAIN, address_of, bare, entry, jit, view_at
from sim.ops import NOSCAN, OP

if TYPE_CHECKING:
    from sim.go.world import World


ops_at = view_at(OP)


@jit
def place(h: Any, op: Any) -> None:
    """Give one ALLOC operation its object, from P 0's cache."""
    p = np.int64(0)
    noscan = np.int64(op["flags"] & NOSCAN != 0)
    spc = span_class_of(h, np.int64(op.arg), noscan)
    if spc < 2:
        npages = (op.arg + PAGE_SIZE - 1) >> PAGE_SHIFT
        s = heap_alloc(h, p, npages, spc)
        count_large(h, p, op, s, npages << PAGE_SHIFT)
        slot = np.int64(0)
    else:
        s, slot = small_slot(h, p, spc)
        count_small(h, p, op, spc, spans(h)[s])
        if spc == TINY_SPAN_CLASS:
            tiny_count(h, s, slot, 1)
        else:
            h[0].live_bytes += spans(h)[s].elemsize
    sp = spans(h)[s]
    if slot == 0:
        touch_pages(h, sp, np.int64(0), np.int64(sp.npages) << PAGE_SHIFT)
    assign(h, goroutines(h)[0], op, (s << 16) | slot)


@entry(int64(heap_type, int64, int64, int64))
def place_from(h: Any, address: Any, nops: Any, first: Any) -> Any:
    """Place operations from the so many-th on; how many are placed when a table has to grow, or all are."""
    h = bare(h)
    ops = ops_at(address, nops)
    for i in range(first, nops):
        if room_is_short(h, (ops[i].arg + PAGE_SIZE - 1) >> PAGE_SHIFT):
            return np.int64(i)
        place(h, ops[i])
    h[0].fact_meta_pages = 0
    return np.int64(nops)


def inherit(world: World, ops: Any) -> None:
    """Have the objects of ALLOC operations (sim.ops.OP) in the heap before anything else happens."""
    assert ops.dtype == OP and world.now == 0
    ops = ops.view(np.recarray) if PLAIN else ops
    at = 0
    while at < len(ops):
        at = int(place_from(world.heap.header, address_of(ops), len(ops), at))
        if at < len(ops):
            world.heap.make_room(int(ops["arg"][at]) + PAGE_SIZE >> PAGE_SHIFT)
