"""mallocgc with its prices: what one allocation does to the heap, and where its picoseconds go (mirrors malloc.go).

The pump (pump.py) decides *when* a step happens; the functions here do it at that instant with the rooms, price what
the rooms report, and return picoseconds that the P owes from then on. An allocation's picoseconds gather by cause in
its goroutine's ``spent`` and enter the histograms when it is complete; one that was nothing but a hit in the cached
span is only counted (``fast_calls``), since all of a span class and kind cost the same, or the mean of what they cost.

Time that malloc causes and does not spend itself, the program's own first touch of new memory, is paid by the P but
is no part of the allocation's latency. Nor is what the write barrier takes while the collector marks, of pointers that
variables held or take: variables are taken to be in the heap, and each pointer to cost the same, though one write in some
hundred empties the barrier's buffer for all of them.

Left out: the barriers of other writes, debug hooks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.engine.rng import exponential
from sim.go.malloc import TINY_SIZE
from sim.go.mcache import update_heap_live
from sim.go.mfixalloc import PTR_SIZE
from sim.go.mgcmark import mark_new_object
from sim.go.mspan import next_free_index, set_alive, set_dead, tiny_count
from sim.go.mspanset import place_swept
from sim.go.pay import STEP, pay, pay_bytes, touch, touch_header, touch_meta
from sim.go.sizeclasses import MALLOC_HEADER_SIZE, MIN_SIZE_FOR_MALLOC_HEADER
from sim.go.state import (
    ALL,
    FAST,
    FEW_OTHERS,
    FIRST_TOUCH,
    GC_OFF,
    HIT_APART,
    HIT_CLEARED,
    HIT_EMPTY,
    HIT_EMPTY_FEW,
    HIT_FEW,
    HIT_FRESH,
    HIT_KINDS,
    HIT_MARKING,
    HIT_NEXT,
    HIT_NEXT_FEW,
    HIT_SOME,
    LARGE,
    NUM_CAUSES,
    NUM_SPAN_CLASSES,
    PAGE_SHIFT,
    PROFILE,
    SOME_OTHERS,
    TINY,
    TINY_SPAN_CLASS,
    ZEROING,
    cause_max,
    cause_time,
    fast_calls,
    fast_price,
    histograms,
    hit_price,
    last_malloc,
    last_marked,
    marking_price,
    mcaches,
    prices,
    procs,
    scan_bytes,
    scan_count,
    scan_read,
    shared_variables,
    spans,
    variables,
    zero_price,
)
from sim.jit import inlined, jit
from sim.metrics.histogram import BUCKETS, bucket_of
from sim.ops import NEEDZERO, NOSCAN, SHARED, TOUCH

_TINY_PRICE = STEP["tiny"]
_PROFILE_SAMPLE = STEP["profile_sample"]

CLEAR_CHUNK = 256 << 10  # bytes of a large object cleared between two preemption checks (memclrNoHeapPointersChunked)


@inlined
def kill(h: Any, held: Any) -> None:
    """The workload dropped what a variable held; a tiny block dies with the last of its objects."""
    s = held >> 16
    slot = held & 0xFFFF
    h[0].live_objects -= 1
    sp = spans(h)[s]
    if sp.spanclass == TINY_SPAN_CLASS:
        if tiny_count(h, s, slot, -1) == 0:
            set_dead(h, s, slot)
        return
    h[0].live_bytes -= sp.elemsize
    set_dead(h, s, slot)


@inlined
def hold(h: Any, v: Any, i: Any, held: Any) -> None:
    """Variable i of table v takes another object, or 0 for nil; what it held is dead."""
    if v[i] != 0:
        kill(h, v[i])
    v[i] = held


@inlined
def assign(h: Any, g: Any, op: Any, held: Any) -> None:
    """The variable an operation names takes what it holds now: ``span << 16 | slot``, or 0 for nil.

    While the collector marks, the write barrier notes both. (mwbbuf.go)
    """
    if op.obj < 0:
        return
    shared = op["flags"] & SHARED
    v = shared_variables(h) if shared else variables(h)
    i = np.int64(op.obj) if shared else g.variables + op.obj
    if h[0].gc_blacken_enabled:
        g.noted += np.int64(v[i] != 0) + np.int64(held != 0)
    hold(h, v, i, held)


@jit
def pay_barrier(h: Any, p: Any, g: Any) -> Any:
    """Picoseconds that the write barrier takes for what it has noted: the program's own time, but no work that it does
    between two mallocs (`compute_seen`). (wbBufFlush)"""
    pr = procs(h)[p]
    cost = np.int64(g.noted) * h[0].write_barrier
    g.noted = 0
    if pr.compute_seen == pr.compute_time:
        pr.compute_seen += cost
    pr.compute_time += cost
    return cost


@jit
def finish_malloc(h: Any, p: Any, g: Any) -> None:
    """Enter a completed allocation in the histograms, whole and by cause; ``spent`` is empty again."""
    counts = histograms(h)
    total = np.int64(0)
    for cause in range(1, NUM_CAUSES):
        spent = g.spent[cause]
        if spent == 0:
            continue
        total += spent
        counts[cause * BUCKETS + bucket_of(spent)] += 1
        cause_time(h)[cause] += spent
        cause_max(h)[cause] = max(cause_max(h)[cause], spent)
        g.spent[cause] = 0
    counts[ALL * BUCKETS + bucket_of(total)] += 1
    cause_time(h)[ALL] += total
    cause_max(h)[ALL] = max(cause_max(h)[ALL], total)


@inlined
def tiny_offset(h: Any, p: Any, size: Any) -> Any:
    """Where a tiny object fits into the P's current block, -1 if it does not. (malloc.go:mallocgcTiny)"""
    c = mcaches(h)[p]
    off = c.tinyoffset
    if size & 7 == 0:
        off = (off + 7) & ~np.int64(7)
    elif size & 3 == 0:
        off = (off + 3) & ~np.int64(3)
    elif size & 1 == 0:
        off = (off + 1) & ~np.int64(1)
    if c.tiny_span == 0 or off + size > 16:
        return np.int64(-1)
    return off


@inlined
def combine_tiny(h: Any, p: Any, g: Any, op: Any, off: Any) -> Any:
    """Put a tiny object into the current block; picoseconds. Not counted as a call here if time was spent before."""
    c = mcaches(h)[p]
    c.tinyoffset = off + op.arg
    c.tiny_allocs += 1
    s = np.int64(c.tiny_span)
    slot = np.int64(c.tiny_slot)
    if tiny_count(h, s, slot, 1) == 1:
        set_alive(h, s, slot)
    assign(h, g, op, (s << 16) | slot)
    h[0].live_objects += 1
    cost = prices(h)[_TINY_PRICE]["mean"]
    if g.assist_paid == 2:
        g.spent[TINY] += cost
        finish_malloc(h, p, g)
    else:
        h[0].tiny_calls += 1
    g.assist_paid = 0
    return cost


@jit
def start_tiny_block(h: Any, p: Any, size: Any, s: Any, slot: Any) -> None:
    """Make a new tiny block the current one if it has more room left than the old. (malloc.go:mallocgcTiny)"""
    c = mcaches(h)[p]
    tiny_count(h, s, slot, 1)
    if c.tiny_span == 0 or size < c.tinyoffset:
        c.tiny_span = s
        c.tiny_slot = slot
        c.tinyoffset = size


@jit
def next_sample(h: Any, p: Any) -> None:
    """Draw the bytes until the P's next heap-profile sample. (mcache.go:nextSample)"""
    pr = procs(h)[p]
    c = mcaches(h)[p]
    c.next_sample, pr.samples = exponential(pr.sample_key, pr.samples, h[0].memprofilerate)


@jit
def profile_sample(h: Any, p: Any, nbytes: Any) -> Any:
    """Count an allocation towards the next sample; picoseconds if it is the one. (malloc.go:profilealloc)"""
    c = mcaches(h)[p]
    c.next_sample -= nbytes
    if c.next_sample >= 0:
        return np.int64(0)
    next_sample(h, p)
    return pay(h, p, _PROFILE_SAMPLE)


@inlined
def scanned_again(size: Any, ptr_bytes: Any, elemsize: Any) -> Any:
    """Bytes that marking reads behind an object with a header: the header tells a type and no length.

    So the slot is read as elements of it to its end; what the object leaves free there as the beginning of another.
    (mbitmap.go:typePointers.next, mgcmark_greenteagc.go:scanObject)
    """
    rest = elemsize - MALLOC_HEADER_SIZE - size
    return min(rest, ptr_bytes) if rest >= PTR_SIZE else np.int64(0)


@inlined
def count_small(h: Any, p: Any, op: Any, spc: Any, sp: Any) -> None:
    """Statistics of a small object that was placed: how many live, and what marking one will scan.

    Objects with and without pointers alternate unpredictably: both take the same path, the latter adding nothing.
    """
    h[0].live_objects += 1
    scan = np.int64(op["flags"] & NOSCAN == 0)
    scanned = ptr_bytes = scan * op.ptr_bytes
    read = ptr_bytes
    if (scan != 0) & (h[0].malloc_header != 0) & (sp.elemsize > MIN_SIZE_FOR_MALLOC_HEADER):
        again = scanned_again(op.arg, ptr_bytes, sp.elemsize)
        scanned = MALLOC_HEADER_SIZE + (op.arg + again if again > 0 else ptr_bytes)
        read += again
        ptr_bytes = np.int64(sp.elemsize)
    mcaches(h)[p].scan_alloc += ptr_bytes
    scan_bytes(h)[spc] += scanned
    scan_read(h)[spc] += read
    scan_count(h)[spc] += scan


@inlined
def others_since(h: Any, p: Any, spc: Any) -> Any:
    """Mallocs on a P since its last from that span class."""
    return procs(h)[p].mallocs - last_malloc(h)[NUM_SPAN_CLASSES * p + spc] - 1


@inlined
def hit_apart(h: Any, p: Any, spc: Any, slow: Any) -> Any:
    """The kind of a hit with other work before it: the fewer other mallocs there were since the last from its span class,
    the more of what malloc reads and decides is at hand. A new span is not."""
    others = others_since(h, p, spc)
    if slow or others >= SOME_OTHERS:
        return np.int64(HIT_APART)
    return np.int64(HIT_FEW) if others < FEW_OTHERS else np.int64(HIT_SOME)


@inlined
def hit_marking(h: Any, p: Any, spc: Any, held: Any) -> Any:
    """The kind of a hit while the collector marks: part of the next slot may be in the cache with the last, all of it if the last
    was a moment ago. Where nothing else in the span was alive no other CPU has read what is beside the slot."""
    last = NUM_SPAN_CLASSES * p + spc
    follows = held == last_marked(h)[last] + 1
    last_marked(h)[last] = held
    if not follows:
        return np.int64(HIT_MARKING)
    few = others_since(h, p, spc) < FEW_OTHERS
    if spans(h)[held >> 16].alloc_count_before_cache == 0:
        return np.int64(HIT_EMPTY_FEW) if few else np.int64(HIT_EMPTY)
    return np.int64(HIT_NEXT_FEW) if few else np.int64(HIT_NEXT)


@inlined
def place_object(h: Any, p: Any, g: Any, op: Any, spc: Any, s: Any, slot: Any, refilled: Any) -> Any:
    """The end of a small allocation: clearing, header, variable, statistics; picoseconds the P owes for it.

    ``refilled``: it took the span from the central list or the heap just now; whoever did that for it ends it, too.
    """
    slow = refilled or g.assist_paid == 2  # it has spent other time before
    pr = procs(h)[p]
    sp = spans(h)[s]
    cost = fast_price(h)[spc]
    offset = slot * sp.elemsize
    kind, clearing = np.int64(HIT_FRESH), np.int64(0)
    tiny = op["flags"] & NOSCAN != 0 and op.arg < TINY_SIZE
    zeroed = np.int64(sp.needzero != 0 and (tiny or op["flags"] & NEEDZERO != 0))
    if h[0].gc_phase != GC_OFF:  # setting its mark bit waits for what was written before
        kind = hit_marking(h, p, spc, (s << 16) | slot)
        whole = marking_price(h)[NUM_SPAN_CLASSES * (kind - HIT_MARKING) + spc]
        cost = min(cost, whole)
        clearing = whole - cost
    elif zeroed:
        kind, clearing = np.int64(HIT_CLEARED), zero_price(h)[spc]
        if pr.compute_time != pr.compute_seen:
            kind = hit_apart(h, p, spc, slow)
            whole = hit_price(h)[NUM_SPAN_CLASSES * (kind - HIT_APART) + spc]
            cost = min(cost, whole)
            clearing = whole - cost
    last_malloc(h)[NUM_SPAN_CLASSES * p + spc] = pr.mallocs
    pr.compute_seen = np.int64(-1) if op["flags"] & TOUCH else pr.compute_time  # writing the object is other work
    faults = np.int64(0)
    if sp.fresh:
        if zeroed or tiny:  # a tiny block is always cleared
            faults = touch(h, p, sp, offset, sp.elemsize)
        elif h[0].malloc_header and spc & 1 == 0 and sp.elemsize > MIN_SIZE_FOR_MALLOC_HEADER:
            faults = touch_header(h, p, sp, offset)
    sampled = profile_sample(h, p, sp.elemsize) if h[0].memprofilerate > 0 else np.int64(0)
    if slow or faults > 0 or sampled > 0:
        g.spent[FAST] += cost
        g.spent[PROFILE] += sampled
        cost += sampled
        g.spent[FIRST_TOUCH] += faults
        cost += faults
        g.spent[ZEROING] += clearing
        cost += clearing
        if not refilled:
            finish_malloc(h, p, g)
    else:
        fast_calls(h)[HIT_KINDS * spc + kind] += 1
        cost += clearing
    pr.malloc_time += cost
    count_small(h, p, op, spc, sp)
    if h[0].gc_phase != GC_OFF:
        mark_new_object(h, s, slot)
        g.assist_bytes -= sp.elemsize - op.arg
    g.assist_paid = 0
    if spc == TINY_SPAN_CLASS:
        if tiny:
            start_tiny_block(h, p, op.arg, s, slot)
        else:
            tiny_count(h, s, slot, 1)
    else:
        h[0].live_bytes += sp.elemsize
    assign(h, g, op, (s << 16) | slot)
    if sp.fresh and op["flags"] & TOUCH:
        faults = touch(h, p, sp, offset, op.arg)
        pr.touch_time += faults
        cost += faults
    return cost


@jit
def touch_cleared(h: Any, p: Any, g: Any, offset: Any, nbytes: Any) -> Any:
    """Page faults of clearing part of a large object where no memory stands behind all of it; picoseconds."""
    sp = spans(h)[np.int64(g.span)]
    faults = touch(h, p, sp, offset, nbytes) if sp.fresh else np.int64(0)
    g.spent[FIRST_TOUCH] += faults
    return faults


@jit
def count_large(h: Any, p: Any, op: Any, s: Any, nbytes: Any) -> None:
    """Take the one slot of a large object's span, with its statistics. (mcache.go:allocLarge)"""
    sp = spans(h)[s]
    next_free_index(h, s)
    h[0].total_alloc += nbytes
    h[0].large_alloc += nbytes
    h[0].large_alloc_count += 1
    h[0].live_bytes += nbytes
    h[0].live_objects += 1
    update_heap_live(h, nbytes, np.int64(0))
    place_swept(h, s)
    if op["flags"] & NOSCAN == 0:
        mcaches(h)[p].scan_alloc += sp.elemsize if h[0].malloc_header else op.ptr_bytes
        scan_bytes(h)[0] += op.ptr_bytes
        scan_read(h)[0] += op.ptr_bytes
        scan_count(h)[0] += nbytes


@jit
def place_large(h: Any, p: Any, g: Any, op: Any) -> Any:
    """A large object in its own span: accounting, and clearing unless that is done in chunks; picoseconds.

    Leaves in ``g.left`` the bytes still to clear. (mcache.go:allocLarge, malloc.go:mallocgcLarge)
    """
    s = np.int64(g.span)
    sp = spans(h)[s]
    nbytes = g.npages << PAGE_SHIFT
    count_large(h, p, op, s, nbytes)
    noscan = op["flags"] & NOSCAN != 0
    if h[0].gc_phase != GC_OFF:
        mark_new_object(h, s, np.int64(0))
        g.assist_bytes -= nbytes - op.arg
    g.assist_paid = 0
    assign(h, g, op, s << 16)
    cost = pay_bytes(h, p, op.arg, h[0].large_fresh_noscan if noscan else h[0].large_fresh_scan)
    g.spent[LARGE] += cost
    if h[0].memprofilerate > 0:
        sampled = profile_sample(h, p, nbytes)
        g.spent[PROFILE] += sampled
        cost += sampled
    g.left = 0
    if op["flags"] & NEEDZERO and sp.needzero:
        if noscan or h[0].clears_scan_in_chunks:
            g.left = op.arg
        else:
            cleared = pay_bytes(h, p, op.arg, h[0].large_zero_scan)
            g.spent[ZEROING] += cleared
            cost += cleared + touch_cleared(h, p, g, np.int64(0), op.arg)
    cost += touch_meta(h, p, g)
    procs(h)[p].malloc_time += cost
    return cost


@jit
def clear_chunk(h: Any, p: Any, g: Any, op: Any) -> Any:
    """Clear the next 256 KiB of a large object; picoseconds."""
    n = min(g.left, np.int64(CLEAR_CHUNK))
    faults = touch_cleared(h, p, g, op.arg - g.left, n)
    g.left -= n
    cost = pay_bytes(h, p, n, h[0].large_zero_noscan if op["flags"] & NOSCAN else h[0].large_zero_scan)
    g.spent[ZEROING] += cost
    cost += faults
    procs(h)[p].malloc_time += cost
    return cost


@jit
def touch_large(h: Any, p: Any, g: Any, op: Any) -> Any:
    """The program writes a large object it was just given; picoseconds of its page faults."""
    sp = spans(h)[np.int64(g.span)]
    if not (sp.fresh and op["flags"] & TOUCH):
        return np.int64(0)
    faults = touch(h, p, sp, np.int64(0), op.arg)
    procs(h)[p].touch_time += faults
    return faults
