"""mallocgc with its prices: what one allocation does to the heap, and where its picoseconds go (mirrors malloc.go).

The pump (pump.py) decides *when* a step happens; the functions here do it at that instant with the rooms, price what
the rooms report, and return picoseconds that the P owes from then on. An allocation's picoseconds gather by cause in
its goroutine's ``spent`` and enter the histograms when it is complete; one that was nothing but a hit in the cached
span is only counted (``fast_calls``), since all of a span class and kind cost the same, or the mean of what they cost.

Time that malloc causes and does not spend itself, the program's own first touch of new memory, is paid by the P but
is no part of the allocation's latency.

Left out: write barriers, debug hooks.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.costs import STEPS
from sim.engine.rng import draw64, exponential
from sim.go.malloc import TINY_SIZE
from sim.go.mcache import cache_fresh, update_heap_live
from sim.go.mfixalloc import PTR_SIZE
from sim.go.mgcmark import mark_new_object, note_work
from sim.go.mgcscavenge import bytes_to_scavenge, scavenge
from sim.go.mheap import (
    OS_PAGE_SHIFT,
    PAGE_CACHE_MAX_PAGES,
    alloc_mspan_locked,
    alloc_pages_locked,
    arena_of,
    finish_span,
    refill_page_cache_locked,
    touch_pages,
)
from sim.go.mpagecache import page_cache_alloc
from sim.go.mspan import next_free_index, set_alive, set_dead, tiny_count
from sim.go.mspanset import place_swept
from sim.go.sizeclasses import MALLOC_HEADER_SIZE, MIN_SIZE_FOR_MALLOC_HEADER
from sim.go.state import (
    ALL,
    FAST,
    FIRST_TOUCH,
    FRESH,
    GC_MARK,
    GC_OFF,
    GROW,
    HEAP_WAIT,
    HIT_APART,
    HIT_CLEARED,
    HIT_FRESH,
    HIT_KINDS,
    HIT_MARKING,
    LARGE,
    MAX_FRESH,
    NEVER,
    NO_PAGE,
    NUM_CAUSES,
    PAGE_CACHE,
    PAGE_SEARCH,
    PAGE_SHIFT,
    PARTIAL,
    PRICE_FRESH,
    PRICE_PARTIAL,
    PRICE_STEPS,
    PROFILE,
    SCAVENGE,
    SPAN_IN_USE,
    SWEEP,
    TINY,
    TINY_SPAN_CLASS,
    WORK_SWEEP,
    ZEROING,
    arenas,
    cause_max,
    cause_time,
    cells,
    fast_calls,
    fast_price,
    goroutines,
    histograms,
    hit_price,
    marking_price,
    mcaches,
    p_time,
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
from sim.words import ZERO, ones, shl64, shr64

STEP = {name: PRICE_STEPS + i for i, name in enumerate(STEPS)}
_TINY_PRICE = STEP["tiny"]
_PAGE_CACHE_REFILL = STEP["page_cache_refill"]
_PAGE_ALLOC = STEP["page_alloc"]
_PAGE_LEVEL = STEP["page_level"]
_MSPAN_REFILL = STEP["mspan_refill"]
_GROW = STEP["grow"]
_GROW_ARENA = STEP["grow_arena"]
_FIRST_TOUCH = STEP["first_touch"]
_READ_TOUCH = STEP["read_touch"]
_COPY_TOUCH = STEP["copy_touch"]
_HUGE_TOUCH = STEP["huge_touch"]
_META_TOUCH = STEP["meta_touch"]
_MADVISE = STEP["madvise"]
_MADVISE_PAGE = STEP["madvise_page"]
_TLB_SHOOTDOWN = STEP["tlb_shootdown"]
_PROFILE_SAMPLE = STEP["profile_sample"]
_LARGE = STEP["large"]

CLEAR_CHUNK = 256 << 10  # bytes of a large object cleared between two preemption checks (memclrNoHeapPointersChunked)


@jit
def pay(h: Any, p: Any, row: Any) -> Any:
    """The price of a step: its mean, or a draw from the P's own stream where it varies. Picoseconds."""
    price = prices(h)[row]
    if price.row < 0:
        return price["mean"]
    pr = procs(h)[p]
    cell = np.int64(shr64(draw64(pr.draw_key, pr.draws), 54))
    pr.draws += np.uint64(1)
    return cells(h)[(price.row << 10) + cell]


@jit
def pay_bytes(h: Any, p: Any, nbytes: Any, rate: Any) -> Any:
    """nbytes at a rate in femtoseconds a byte: whole picoseconds, the rest carried to the P's next such price."""
    pr = procs(h)[p]
    total = nbytes * rate + pr.rest
    pr.rest = total % 1000
    return total // 1000


@jit
def touch_some(h: Any, p: Any, sp: Any, offset: Any, nbytes: Any) -> Any:
    """Make bytes of a span resident that may not be: as `touch`, with the span's word of what is behind its start."""
    small, huge = touch_pages(h, sp, offset, nbytes)
    known = np.int64(sp.fresh)
    if offset >> OS_PAGE_SHIFT < known:
        sp.fresh = min(max(((offset + nbytes - 1) >> OS_PAGE_SHIFT) + 2, known), np.int64(MAX_FRESH))
    cost = np.int64(0)
    for _ in range(small):
        cost += pay(h, p, _FIRST_TOUCH)
    for _ in range(huge):
        cost += pay(h, p, _HUGE_TOUCH)
    return cost


@inlined
def touch(h: Any, p: Any, sp: Any, offset: Any, nbytes: Any) -> Any:
    """Make bytes of a fresh span resident: picoseconds of the page faults for system pages that were not."""
    if ((offset + nbytes - 1) >> OS_PAGE_SHIFT) + 1 < np.int64(sp.fresh):
        return np.int64(0)
    return touch_some(h, p, sp, offset, nbytes)


@jit
def others_run(h: Any, p: Any) -> Any:
    """Whether another P runs, on whose CPU the system has to have page table entries forgotten that it changes."""
    if h[0].mark_workers > 0:
        return True
    for q in range(h[0].nprocs):
        if q != p and p_time(h)[q] != NEVER:
            return True
    return False


@jit
def touch_header(h: Any, p: Any, sp: Any, offset: Any) -> Any:
    """Picoseconds of the page faults, if any, of writing a type's address before an object. (mbitmap.go:heapSetTypeSmallHeader)

    While marking the write barrier reads first what was there: two faults of the system, and the second interrupts the
    CPUs of other Ps that run, since the page of zeros may be in use there.
    """
    if h[0].gc_phase != GC_MARK:
        return touch(h, p, sp, offset, np.int64(MALLOC_HEADER_SIZE))
    small, huge = touch_pages(h, sp, offset, np.int64(MALLOC_HEADER_SIZE))
    cost = np.int64(0)
    if huge:
        cost += pay(h, p, _HUGE_TOUCH)
    if small:
        cost += pay(h, p, _READ_TOUCH) + pay(h, p, _COPY_TOUCH)
        if others_run(h, p):
            cost += pay(h, p, _TLB_SHOOTDOWN)
    return cost


@jit
def is_resident(h: Any, sp: Any) -> Any:
    """Whether memory stands behind all of a span: a span used before may have been given back without being written."""
    first = sp.start_page << (PAGE_SHIFT - OS_PAGE_SHIFT)
    end = first + (sp.npages << (PAGE_SHIFT - OS_PAGE_SHIFT))
    while first < end:
        n = min(end - first, 64 - (first & 63))
        mask = shl64(ones(n), first & 63)
        touched = arenas(h)[arena_of(h, first >> (PAGE_SHIFT - OS_PAGE_SHIFT))].touched
        if touched[(first & 16383) >> 6] & mask != mask:
            return False
        first += n
    return True


@jit
def touch_meta(h: Any, p: Any, g: Any) -> Any:
    """Page faults on metadata that the last steps were first to use (mfixalloc.py counts them); picoseconds."""
    cost = np.int64(0)
    while h[0].fact_meta_pages > 0:
        h[0].fact_meta_pages -= 1
        cost += pay(h, p, _META_TOUCH)
    g.spent[FIRST_TOUCH] += cost
    return cost


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
    """The variable an operation names takes what it holds now: ``span << 16 | slot``, or 0 for nil."""
    if op.obj < 0:
        return
    if op["flags"] & SHARED:
        hold(h, shared_variables(h), np.int64(op.obj), held)
    else:
        hold(h, variables(h), g.variables + op.obj, held)


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
def place_object(h: Any, p: Any, g: Any, op: Any, spc: Any, s: Any, slot: Any, slow: Any) -> Any:
    """The end of a small allocation: clearing, header, variable, statistics; picoseconds the P owes for it.

    ``slow``: it went through a refill, so it has spent other time before.
    """
    pr = procs(h)[p]
    sp = spans(h)[s]
    cost = fast_price(h)[spc]
    offset = slot * sp.elemsize
    kind, clearing = np.int64(HIT_FRESH), np.int64(0)
    tiny = op["flags"] & NOSCAN != 0 and op.arg < TINY_SIZE
    zeroed = np.int64(sp.needzero != 0 and (tiny or op["flags"] & NEEDZERO != 0))
    if h[0].gc_phase != GC_OFF:  # setting its mark bit waits for what was written before
        kind, cost = np.int64(HIT_MARKING), min(cost, marking_price(h)[spc])
        clearing = marking_price(h)[spc] - cost
    elif zeroed:
        kind, clearing = np.int64(HIT_CLEARED), zero_price(h)[spc]
        if pr.compute_time != pr.compute_seen:
            kind, cost = np.int64(HIT_APART), min(cost, hit_price(h)[spc])
            clearing = hit_price(h)[spc] - cost
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
        if not h[0].gc_test_due:
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
def pay_sweeps(h: Any, p: Any, g: Any) -> Any:
    """Picoseconds of the sweeping that the last steps did. (mgcsweep.py adds them up)"""
    cost = h[0].fact_sweep_time
    h[0].fact_sweep_time = 0
    g.owed_sweeps += cost
    g.spent[SWEEP] += cost
    return cost


@jit
def settle(h: Any, p: Any, g: Any) -> None:
    """Sweeping and new metadata of the step that ends are this allocation's to pay, before another P reads the facts."""
    g.owed += pay_sweeps(h, p, g) + touch_meta(h, p, g)


@jit
def pay_owed(h: Any, p: Any, g: Any) -> Any:
    """Picoseconds of what was settled since the allocation began: they pass now, whatever was waited for in between."""
    settle(h, p, g)
    note_work(h, p, WORK_SWEEP, h[0].now, g.owed_sweeps)
    g.owed_sweeps = 0
    cost = g.owed
    g.owed = 0
    return cost


@jit
def got_partial(h: Any, p: Any, g: Any) -> Any:
    """A refill found a span with room: cache it; picoseconds."""
    cost = pay(h, p, PRICE_PARTIAL + np.int64(g.spanclass))
    g.spent[PARTIAL] += cost
    cost += pay_owed(h, p, g)  # spans swept on the way and their mark bits, a block for the span given back
    procs(h)[p].malloc_time += cost
    cache_fresh(h, p, np.int64(g.spanclass), np.int64(g.span))
    return cost


@jit
def madvise_price(h: Any, p: Any, runs: Any, npages: Any) -> Any:
    """Picoseconds of giving back so many runs with so many resident 4 KiB pages in all. (mem_linux.go:sysUnusedOS)

    Each call interrupts the CPUs of other Ps that run.
    """
    cost = npages * prices(h)[_MADVISE_PAGE]["mean"]
    for _ in range(runs):
        cost += pay(h, p, _MADVISE)
        if others_run(h, p):
            cost += pay(h, p, _TLB_SHOOTDOWN)
    return cost


@jit
def scavenge_for_span(h: Any, p: Any, scav: Any, growth: Any) -> Any:
    """Give other memory back for a span that P got pages for; picoseconds. (mheap.go:allocSpan, from HaveSpan on)

    ``scav``: scavenged pages among the span's; ``growth``: pages the heap grew by for it. For spans of objects and of
    stacks alike. The runtime takes the heap lock twice a run and lets others allocate meanwhile; here all of it happens at
    one instant, and the two holds cost their time without anybody queueing for them.
    """
    nbytes, force = bytes_to_scavenge(h, scav << PAGE_SHIFT, growth << PAGE_SHIFT)
    if nbytes <= 0:
        return np.int64(0)
    h[0].fact_scav_runs = 0
    h[0].fact_scav_pages = 0
    h[0].scav_released_eager += scavenge(h, nbytes, force, True)
    cost = madvise_price(h, p, h[0].fact_scav_runs, h[0].fact_scav_pages)
    for _ in range(2 * h[0].fact_scav_runs):
        cost += pay(h, p, _PAGE_ALLOC)
    h[0].scavenge_assist_time += cost
    return cost


@jit
def got_pages(h: Any, p: Any, g: Any) -> Any:
    """Pages and a span record are there: make them a span; picoseconds. (mheap.go:allocSpan, mcentral.go:grow)

    On memory nobody touched, mark bits or pointer bits at the span's end are its first touch (go1.27).
    """
    s = np.int64(g.span)
    scavenging = scavenge_for_span(h, p, g.scav, g.growth)
    g.spent[SCAVENGE] += scavenging
    finish_span(h, s, g.page, g.npages, np.int64(g.spanclass), SPAN_IN_USE, g.scav)
    sp = spans(h)[s]
    if not sp.fresh and not is_resident(h, sp):
        sp.fresh = 1
    row = PRICE_FRESH + np.int64(g.spanclass) if g.spanclass >= 2 else _LARGE
    cost = pay(h, p, row)
    g.spent[FRESH if g.spanclass >= 2 else LARGE] += cost
    cost += scavenging
    used = sp.nelems * sp.elemsize
    end = g.npages << PAGE_SHIFT
    if sp.fresh and used < end and sp.elemsize <= MIN_SIZE_FOR_MALLOC_HEADER and h[0].inline_mark_bits:
        faults = touch(h, p, sp, end - 128, np.int64(128))
        g.spent[FIRST_TOUCH] += faults
        cost += faults
    if g.spanclass >= 2:
        cache_fresh(h, p, np.int64(g.spanclass), s)
    cost += pay_owed(h, p, g)
    procs(h)[p].malloc_time += cost
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


@jit
def take_record(h: Any, p: Any, g: Any) -> None:
    """A span record from the P's cache; no lock. (mheap.go:tryAllocMSpan)"""
    g.span = alloc_mspan_locked(h, p)


@jit
def pages_without_lock(h: Any, p: Any, g: Any) -> Any:
    """Pages and a record from the P's own caches; False when the heap lock is needed for either."""
    c = mcaches(h)[p]
    g.page = NO_PAGE
    g.scav = 0
    g.growth = 0
    if g.npages < PAGE_CACHE_MAX_PAGES:
        g.page, g.scav = page_cache_alloc(h, p, g.npages)
    if g.page < 0 or c.mspancache_len == 0:
        return False
    take_record(h, p, g)
    return True


@jit
def heap_locked(h: Any, p: Any, waited: Any, tried: Any) -> Any:
    """What one hold of mheap.lock does for an allocation: (picoseconds held, whether it is complete). (mheap.go:allocSpan)

    ``waited``: picoseconds the P waited for the lock; ``tried``: an earlier hold filled the page cache already.
    """
    g = goroutines(h)[procs(h)[p].g]
    c = mcaches(h)[p]
    g.spent[HEAP_WAIT] += waited
    if g.page < 0 and g.npages < PAGE_CACHE_MAX_PAGES and c.pcache == ZERO and not tried:
        walked = h[0].levels_walked
        refill_page_cache_locked(h, p)
        held = pay(h, p, _PAGE_CACHE_REFILL) + (h[0].levels_walked - walked) * prices(h)[_PAGE_LEVEL]["mean"]
        g.spent[PAGE_CACHE] += held
        g.page, g.scav = page_cache_alloc(h, p, g.npages)
        if g.page < 0 or c.mspancache_len == 0:
            return held, False
        take_record(h, p, g)
        return held, True
    held = np.int64(0)
    if g.page < 0:
        walked = h[0].levels_walked
        h[0].fact_grown = 0
        h[0].fact_arenas = 0
        g.page, g.scav = alloc_pages_locked(h, g.npages)
        g.growth = h[0].fact_grown
        held += pay(h, p, _PAGE_ALLOC) + (h[0].levels_walked - walked) * prices(h)[_PAGE_LEVEL]["mean"]
        g.spent[PAGE_SEARCH] += held
        grown = pay(h, p, _GROW) if h[0].fact_grown > 0 else np.int64(0)
        for _ in range(h[0].fact_arenas):
            grown += pay(h, p, _GROW_ARENA)
        g.spent[GROW] += grown
        held += grown
    if c.mspancache_len == 0:
        records = pay(h, p, _MSPAN_REFILL)
        g.spent[PAGE_SEARCH] += records
        held += records
    take_record(h, p, g)
    return held + touch_meta(h, p, g), True
