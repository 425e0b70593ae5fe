"""malloc and free without a clock: which path a request takes, all of it at once (tcmalloc.cc).

Up to 256 KiB an object comes from the thread's list of its class, and goes there when it is freed, whichever thread made
it; larger ones take pageheap_lock and a span of their own. A thread that has no cache frees straight into the spans.

``run_ops`` is the batch of these: operations in, addresses out. The timed shell composes the smaller functions of the
rooms instead, and prices what they report.

Left out: memalign, calloc (malloc and clearing), sampling, new_handler; the page-to-class cache in front of the page map.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import jit
from sim.ops import ALLOC, DEAD, SHARED
from sim.tcmalloc.central_freelist import insert_range
from sim.tcmalloc.page_heap import MAX_HEAP_PAGES, MIN_SYSTEM_ALLOC, delete_locked, new_large_locked
from sim.tcmalloc.sizeclasses import MAX_SIZE, PAGE_SHIFT, size_class
from sim.tcmalloc.span import address, allocated_size, link_of
from sim.tcmalloc.state import (
    IN_USE,
    LIVE,
    SLOT_BITS,
    SLOT_MASK,
    links,
    shared_variables,
    spans,
    threads,
    variables,
)
from sim.tcmalloc.thread_cache import (
    fetch_from_central_cache,
    list_too_long,
    not_live,
    over_budget,
    pop,
    push,
    scavenge,
)
from sim.units import Throw

MAX_REQUEST = MAX_HEAP_PAGES << PAGE_SHIFT  # bytes
MAX_LINKS = 1 << SLOT_BITS  # entries of ``links`` that a span may need


@jit
def room_is_short(h: Any, npages: Any) -> Any:
    """Whether a table could overflow before the next check, npages being the longest span asked for meanwhile.

    Every thread may be past its own check and waiting for a lock. A growth and a split take a record each.
    """
    n = h[0].nthreads + 1
    return (
        h[0].nspans + 2 * n > h[0].spans_len
        or h[0].nlinks + n * MAX_LINKS > h[0].links_len
        or h[0].heap_pages + npages + n * MIN_SYSTEM_ALLOC + 2 > h[0].pagemap_len
    )


@jit
def pages_of(size: Any) -> Any:
    """Pages of a large object."""
    return (size + (1 << PAGE_SHIFT) - 1) >> PAGE_SHIFT


@jit
def do_malloc_pages(h: Any, size: Any) -> Any:
    """A large object. (tcmalloc.cc:do_malloc_pages)"""
    return new_large_locked(h, pages_of(size)) << SLOT_BITS


@jit
def do_free_pages(h: Any, obj: Any) -> None:
    """Free a large object. (tcmalloc.cc:do_free_pages)"""
    s = obj >> SLOT_BITS
    sp = spans(h)[s]
    if obj & SLOT_MASK != 0 or sp.location != IN_USE or sp.refcount != 1:
        not_live(h, obj)
    delete_locked(h, s)


@jit
def malloc(h: Any, t: Any, size: Any) -> Any:
    """An object of size >= 0 bytes for a thread that has a cache. (tcmalloc.cc:do_malloc)"""
    if size > MAX_SIZE:
        return do_malloc_pages(h, size)
    cl = size_class(size)
    obj = pop(h, t, cl)
    if obj == 0:
        obj = fetch_from_central_cache(h, t, cl)
    return obj


@jit
def free(h: Any, t: Any, obj: Any) -> None:
    """A thread frees an object that some thread made. (tcmalloc.cc:do_free_with_callback)"""
    cl = np.int64(spans(h)[obj >> SLOT_BITS].sizeclass)
    if cl == 0:
        do_free_pages(h, obj)
        return
    if push(h, t, cl, obj):
        list_too_long(h, t, cl)
    if over_budget(h, t):
        scavenge(h, t)


@jit
def free_without_cache(h: Any, obj: Any) -> None:
    """A thread without a cache frees an object. (tcmalloc.cc:do_free_with_callback)"""
    cl = np.int64(spans(h)[obj >> SLOT_BITS].sizeclass)
    if cl == 0:
        do_free_pages(h, obj)
        return
    at = link_of(h, obj)
    if links(h)[at] != LIVE:
        not_live(h, obj)
    links(h)[at] = 0
    insert_range(h, cl, obj, np.int64(1))


@jit
def realloc(h: Any, t: Any, obj: Any, size: Any) -> Any:
    """The object of size bytes that an object becomes, 0 = there was none. (tcmalloc.cc:do_realloc_with_callback)"""
    if obj == 0:
        return malloc(h, t, size)
    old = allocated_size(h, obj)
    if old >> 1 <= size <= old:
        return obj
    grown = old + (old >> 2)
    moved = malloc(h, t, grown if old < size < grown else size)
    free(h, t, obj)
    return moved


@jit
def assign(h: Any, t: Any, op: Any, obj: Any) -> None:
    """The variable an operation names holds another object, or 0; what it held before is freed."""
    if op.obj < 0:
        return
    shared = op["flags"] & SHARED
    table = shared_variables(h) if shared else variables(h)
    at = np.int64(op.obj) if shared else threads(h)[t].variables + op.obj
    held = table[at]
    table[at] = obj
    if held != 0:
        free(h, t, held)


@jit
def run_ops(h: Any, t: Any, ops: Any, at: Any, addresses: Any) -> Any:
    """Run operations (sim/ops.py) of a thread from ``at`` on, until they end or a table is short of room: where.

    addresses: that of each allocation's object, by operation; -1 for the others. Computing takes no time here.
    """
    for i in range(at, len(ops)):
        op = ops[i]
        addresses[i] = -1
        if op.kind == ALLOC:
            size = op.arg
            if size < 0 or size > MAX_REQUEST:
                raise Throw("malloc of " + str(size) + " bytes; a request is 0 to " + str(MAX_REQUEST))
            obj = np.int64(0)
            if size <= MAX_SIZE:
                obj = pop(h, t, size_class(size))
            if obj == 0:
                if room_is_short(h, pages_of(size)):
                    return i
                obj = malloc(h, t, size)
            addresses[i] = address(h, obj)
            assign(h, t, op, obj)
        elif op.kind == DEAD:
            assign(h, t, op, np.int64(0))
    return len(ops)
