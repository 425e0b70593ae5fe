"""Marking: how much there is to do, who does how much of it by when, and what assists owe (mirrors mgcmark.go).

What a cycle marks is settled when it begins, with the world stopped: every object that is allocated and not dead, 64
of them at a time (`mark_setup`). How long that takes is a matter of prices: per object and per byte of scan work, by
span class. So marking is a stock of CPU time, in three parts (globals, stacks, heap), and everything the pacer sees of
it (scan work of each kind) is a function of how much of the stock was given: `advance` brings it up to an instant,
for all background workers and assists at once, before anybody looks. No event happens but those that change who is
marking: the collector's own turn (`p_time[nprocs]`) is when stacks are scanned, the stock runs out or a parked assist is paid.

New objects are born marked; what dies during marking stays marked, as with the runtime's deletion barrier.

Background work becomes credit in lots of 2000 (gcCreditSlack) of all workers together: first for parked assists in
turn, the rest for whoever steals it. An assist does at least 64 KiB of work, alone or from credit; what it lacks it
waits for in the queue.

An array of pointers is scanned in one go, a large one in pieces of 128 KiB (oblets), each a job that nobody leaves half
done: for little scan work it finds thousands of objects, which are then scanned for much. So where the heap holds arrays,
its part of the stock is not even: one piece and its share of all else take turns, and who helps out with a piece helps
long. In each turn, what is scanned by the object comes first, then whole spans (go1.27; gcDrainN takes objects before
spans), which are much scan work for little time. Turns are in two parts, each at prices of its own: those whose objects are
found in the order of their allocation, then the others (a program's variables of one kind are one part of an array, and
pieces are taken from its end). What is smaller than `LEAST_ARRAY` goes under in an assist's least work.

Root jobs are globals, 16 shards an arena in which to look for spans with specials (markrootSpans), and stacks. There are no
specials here, but looking takes its time. It is in the globals' part; the shards count as no scan work. Globals are
jobs of 256 KiB, of .data and then of .bss: the first assist of a cycle, in its first 64 KiB of work, scans all of a small
program's, and .data alone where that is larger. Who runs when stacks are scanned, and does not assist, is suspended for that
(mgc.py); here at the end of all of them.

Left out: which object is found when otherwise (Green Tea's batches and a list that cannot be shared are in the prices),
that the write barrier marks what it notes (setting those mark bits is in its price, and in that of marking), specials and finalizers themselves, and that go1.14 made its shards of 512 swept spans each. Nor
is there a worker that finds nothing while who opened the heap (an array that all else hangs on) has what it found in
its own buffers: it leaves, its P sleeps, and assists do the rest of the cycle's marking. With one goroutine on two Ps
and 1 MB live that was so in 73 of 391 cycles of go1.19 (39 % of all time in assists) and 193 of 471 of go1.27 (81 %).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.costs import STEPS
from sim.go.markturns import (
    GLOBALS,
    HEAP_PART,
    STACKS,
    even,
    evened,
    heap_cpu,
    heap_whole,
    heap_work,
    in_parts,
    roots_cpu,
    uneven,
)
from sim.go.mfixalloc import PTR_SIZE
from sim.go.mgclimit import MARK_ASSIST, start_event, stop_event, update
from sim.go.mgcpacer import scan_work, trigger
from sim.go.mheap import clear_page_marks, mark_page, mark_span
from sim.go.mspan import count_live, mark_slot
from sim.go.sizeclasses import class_to_size, uses_inline_mark_bits
from sim.go.state import (
    ARENA_PAGES,
    ASSIST,
    GC_MARK,
    GC_OFF,
    NEVER,
    NUM_SPAN_CLASSES,
    PRICE_STEPS,
    SPAN_IN_USE,
    WORK_ASSIST,
    assist_queue,
    assist_ready,
    goroutines,
    mark_byte,
    mark_counts,
    mark_object,
    mcaches,
    p_time,
    prices,
    procs,
    scan_bytes,
    scan_count,
    scan_read,
    spans,
    sparse_counts,
    work_log,
)
from sim.jit import jit

CREDIT_SLACK = 2000  # scan work a background worker gathers before it gives it as credit (gcCreditSlack)
OBLET = 128 << 10  # bytes of a large object that are scanned as one job (maxObletBytes)
ROOT_BLOCK = 256 << 10  # bytes of globals that are scanned as one job (rootBlockBytes)
OVER_ASSIST_WORK = 64 << 10  # least scan work of an assist (gcOverAssistWork)
LEAST_ARRAY = OVER_ASSIST_WORK // 8  # scan work of an object that makes the stock uneven
ASSIST_TIME_SLACK = 5_000_000  # picoseconds of assist after which the CPU limiter looks (gcAssistTimeSlack)
PAGES_PER_SPAN_ROOT = 512  # of a root job that looks for specials (pagesPerSpanRoot)
EACH_BITS = 20  # of the fraction of assist_each and heap_each
ASSISTING = 12  # stage of a goroutine (pump.py) that marks to pay its debt
PLENTY = 2.0**61  # bytes, or scan work: where Go's conversions overflow at 2**63

_ASSIST = PRICE_STEPS + STEPS.index("assist")

# what an assist came to
PAID = 0  # the goroutine may allocate
DRAINING = 1  # it marks (`retime_assists` says until when)
PARKED = 2  # it waits for background workers


@jit
def of_average(h: Any, spc: Any, objects: Any, nbytes: Any, total: Any) -> Any:
    """So many live objects of a class (of large ones: bytes) times what an average one has of a total of all so far."""
    if spc & 1 or scan_count(h)[spc] == 0:
        return np.int64(0)
    of = np.float64(nbytes) if spc < 2 else np.float64(objects)
    return np.int64(of * np.float64(total) / np.float64(scan_count(h)[spc]))


@jit
def bytes_to_read(h: Any) -> Any:
    """Bytes that marking would read now of the heap's live objects. The world is stopped."""
    read = np.int64(0)
    for s in range(1, h[0].nspans):
        sp = spans(h)[s]
        if sp.state == SPAN_IN_USE and sp.spanclass & 1 == 0:
            live = count_live(h, s)
            read += of_average(h, np.int64(sp.spanclass), live, live * sp.elemsize, scan_read(h)[sp.spanclass])
    return read


@jit
def dense_class(h: Any, spc: Any) -> Any:
    """Whether spans of a class may be scanned as whole slots. (mgcmark_greenteagc.go:tryDeferToSpanScan, scanSpan)"""
    return h[0].dense_scan and spc & 1 == 0 and uses_inline_mark_bits(h, np.int64(class_to_size[spc >> 1]))


@jit
def mark_live_objects(h: Any) -> Any:
    """Mark what is live, and count it: (CPU picoseconds, scan work) that finding it takes. The world is stopped.

    A span is taken as scanned once, when all of its live objects are found; one found alone is scanned by itself.
    """
    counts, sparse = mark_counts(h), sparse_counts(h)
    large, work, found, dense_work = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    for spc in range(NUM_SPAN_CLASSES):
        counts[spc] = 0
        sparse[spc] = 0
    for s in range(1, h[0].nspans):
        sp = spans(h)[s]
        if sp.state != SPAN_IN_USE:
            continue
        live = mark_span(h, s)
        counts[sp.spanclass] += live
        found += live
        if live > 1 and live >= sp.nelems >> 3 and dense_class(h, np.int64(sp.spanclass)):
            dense_work += live * sp.elemsize
        else:
            sparse[sp.spanclass] += live
        h[0].bytes_marked += live * sp.elemsize
        if sp.spanclass == 0:
            large += live * sp.elemsize
    cpu, ordered, dense, dense_cpu = np.int64(0), np.int64(0), np.int64(0), 0.0
    for spc in range(NUM_SPAN_CLASSES):
        work += of_average(h, np.int64(spc), sparse[spc], large, scan_bytes(h)[spc])
        read = of_average(h, np.int64(spc), counts[spc], large, scan_read(h)[spc])
        own = counts[spc] * mark_object(h)[spc] + np.int64(np.float64(read) * np.float64(mark_byte(h)[spc]) / 1000.0)
        cpu += own
        ordered += counts[spc] * mark_object(h)[NUM_SPAN_CLASSES + spc]
        ordered += np.int64(np.float64(read) * np.float64(mark_byte(h)[NUM_SPAN_CLASSES + spc]) / 1000.0)
        if spc & 1 == 0 and counts[spc] > sparse[spc]:
            dense += counts[spc] - sparse[spc]
            dense_cpu += np.float64(own) * np.float64(counts[spc] - sparse[spc]) / np.float64(counts[spc])
    work += dense_work
    array_work, pieces = arrays(h, large)
    in_arrays = min(found, array_work // PTR_SIZE)
    set_oblets(h, array_work, pieces, in_arrays, cpu)
    finding = (
        np.float64(dense) * np.float64(mark_object(h)[1]) * np.float64(in_arrays) / np.float64(max(found, np.int64(1)))
    )
    rest = np.float64(cpu - h[0].mark_array_cpu)
    h[0].mark_dense_cpu = np.int64(min(max(dense_cpu - finding, 0.0), rest))
    h[0].mark_dense_work = dense_work
    h[0].mark_ordered_cpu = min(np.int64(h[0].mark_in_order * np.float64(ordered)), cpu)
    return cpu, work


@jit
def arrays(h: Any, large: Any) -> Any:
    """Live objects of much scan work, of which so many bytes are large: their (scan work, number of pieces).

    Of pieces of several sizes as many as there would be if all were of the size that the work meets on average.
    """
    counts = mark_counts(h)
    total, squares = np.int64(0), 0.0
    for spc in range(0, NUM_SPAN_CLASSES, 2):
        work = of_average(h, np.int64(spc), counts[spc], large, scan_bytes(h)[spc])
        if work < LEAST_ARRAY or work < LEAST_ARRAY * counts[spc]:
            continue
        each = np.float64(work) / np.float64(counts[spc])
        piece = each / max(np.floor(each / OBLET + 0.5), 1.0)
        total += work
        squares += np.float64(work) * piece
    if total == 0:
        return total, np.int64(0)
    return total, np.int64(np.float64(total) * np.float64(total) / squares + 0.5)


@jit
def set_oblets(h: Any, work: Any, pieces: Any, objects: Any, whole: Any) -> None:
    """How the heap is not even: arrays of so much scan work in so many pieces, which point to so many of the objects.

    Finding an object costs what a pointer-free one costs, of which nothing is read; arrays of any size are read as large
    ones are. ``whole``: picoseconds of the heap.
    """
    h[0].mark_oblets = pieces
    cpu = objects * mark_object(h)[1] + np.int64(np.float64(work) * np.float64(mark_byte(h)[0]) / 1000.0)
    h[0].mark_array_cpu = min(cpu, whole)
    h[0].mark_array_work = work


@jit
def mark_new_object(h: Any, s: Any, slot: Any) -> None:
    """An object allocated while marking is born black. (gcmarknewobject)"""
    if mark_slot(h, s, slot):
        h[0].bytes_marked += spans(h)[s].elemsize
        mark_page(h, s)


@jit
def grey_tiny_blocks(h: Any) -> None:
    """Mark every P's current tiny block: more may be put into it. (gcMarkTinyAllocs)"""
    for p in range(h[0].nprocs):
        c = mcaches(h)[p]
        s = np.int64(c.tiny_span)
        if s != 0 and mark_slot(h, s, np.int64(c.tiny_slot)):
            h[0].bytes_marked += spans(h)[s].elemsize
            if not uses_inline_mark_bits(h, spans(h)[s].elemsize):
                mark_page(h, s)


@jit
def span_roots(h: Any) -> Any:
    """How many shards of the heap have their specials looked for: of all arenas there are now. (gcMarkRootPrepare)"""
    return h[0].narenas * (ARENA_PAGES // PAGES_PER_SPAN_ROOT)


@jit
def mark_setup(h: Any, stack_work: Any, stack_cpu: Any, globals_work: Any, globals_cpu: Any, now: Any) -> None:
    """Settle what this cycle marks and how long it takes. (gcResetMarkState, gcMarkRootPrepare, and all that follows)

    ``globals_cpu``: picoseconds of globals and shards of the heap, root jobs both.
    """
    h[0].bytes_marked = 0
    clear_page_marks(h)
    heap_cpu, heap_work = mark_live_objects(h)
    grey_tiny_blocks(h)
    h[0].mark_works[GLOBALS] = globals_work
    h[0].mark_works[STACKS] = stack_work
    h[0].mark_works[HEAP_PART] = heap_work
    h[0].mark_cpus[GLOBALS] = globals_cpu
    h[0].mark_cpus[STACKS] = globals_cpu + stack_cpu
    h[0].mark_cpus[HEAP_PART] = globals_cpu + stack_cpu + heap_cpu
    h[0].mark_total = max(globals_cpu + stack_cpu + heap_cpu, np.int64(1))
    h[0].mark_cpu = 0
    h[0].mark_time = now
    h[0].mark_unflushed = 0
    h[0].mark_rest = 0
    h[0].mark_over = 0
    h[0].mark_roots_over = 0
    h[0].background_scan_work = 0
    h[0].assist_scan_work = 0
    h[0].assist_each = 0
    h[0].heap_each = 0
    h[0].assists = 0
    h[0].stolen_scan_work = 0
    h[0].paid_scan_work = 0
    h[0].returned_scan_work = 0
    for g in range(h[0].goroutines_len):
        goroutines(h)[g].assist_bytes = 0


@jit
def work_by(h: Any, part: Any, cpu: Any) -> Any:
    """Scan work of a part that is done when so much CPU was given."""
    first = h[0].mark_cpus[part - 1] if part > 0 else np.int64(0)
    whole = h[0].mark_cpus[part] - first
    given = min(max(cpu - first, np.int64(0)), whole)
    if given == whole:
        return h[0].mark_works[part] if cpu >= first else np.int64(0)
    at = np.float64(given)
    if part == HEAP_PART:
        at = evened(h, at)
        if not even(h):
            return min(np.int64(heap_work(h, at)), h[0].mark_works[part])
    return np.int64(np.float64(h[0].mark_works[part]) * (at / np.float64(whole)))


@jit
def cpu_when_even(h: Any, done: Any) -> Any:
    """CPU of the heap until so much scan work is done, if order made no difference."""
    if not even(h):
        return heap_cpu(h, done)
    whole = np.float64(heap_whole(h))
    return whole * (np.float64(done) / np.float64(h[0].mark_works[HEAP_PART]))


@jit
def cpu_for(h: Any, work: Any) -> Any:
    """CPU picoseconds, from here on, until so much more scan work is done: to the end of marking if there is less."""
    at = h[0].mark_cpu
    for part in range(3):
        end = h[0].mark_cpus[part]
        if at >= end:
            continue
        left = h[0].mark_works[part] - work_by(h, part, at)
        if left > work and part == HEAP_PART and (in_parts(h) or not even(h)):
            first, done = roots_cpu(h), h[0].mark_works[part] - left + work
            until = first + np.int64(uneven(h, cpu_when_even(h, done))) + 1
            return max(min(until, end) - h[0].mark_cpu, at - h[0].mark_cpu + 1)
        if left > work:
            return at - h[0].mark_cpu + np.int64(np.float64(end - at) * (np.float64(work) / np.float64(left))) + 1
        work -= left
        at = end
    return h[0].mark_total - h[0].mark_cpu


@jit
def is_marked(h: Any) -> Any:
    """Whether nothing is left to mark."""
    return h[0].mark_cpu >= h[0].mark_total


@jit
def marking_is_over(h: Any) -> Any:
    """Whether nothing is left to mark and nobody marks."""
    return is_marked(h) and h[0].mark_workers + h[0].mark_assists == 0


@jit
def test_trigger(h: Any) -> Any:
    """Whether the heap asks for a collection. (mgc.go:gcTrigger.test, gcTriggerHeap)"""
    if h[0].gc_phase != GC_OFF or h[0].gc_starting:
        return False
    at, _ = trigger(h)
    return h[0].heap_live >= at


@jit
def bytes_for(h: Any, work: Any) -> Any:
    """Bytes of allocation that so much scan work pays for; with GC off, in a forced cycle, more than anybody allocates."""
    return np.int64(min(np.float64(work) * h[0].assist_bytes_per_work, PLENTY))


@jit
def work_for(h: Any, nbytes: Any) -> Any:
    """Scan work that pays for so many bytes."""
    return np.int64(min(np.float64(nbytes) * h[0].assist_work_per_byte, PLENTY))


@jit
def pay_waiters(h: Any, work: Any) -> Any:
    """Pay parked assists in turn with background work; what is left of it. (gcFlushBgCredit)

    Who is paid in part goes to the end of the queue.
    """
    if h[0].assist_head == h[0].assist_tail:
        return work
    ring = assist_queue(h)
    nbytes = bytes_for(h, work)
    while h[0].assist_head != h[0].assist_tail and nbytes > 0:
        index = ring[h[0].assist_head % h[0].assist_queue_len]
        h[0].assist_head += 1
        g = goroutines(h)[index]
        if nbytes + g.assist_bytes >= 0:
            nbytes += g.assist_bytes
            g.assist_bytes = 0
            assist_ready(h)[h[0].assist_nready] = index
            h[0].assist_nready += 1
        else:
            g.assist_bytes += nbytes
            nbytes = np.int64(0)
            ring[h[0].assist_tail % h[0].assist_queue_len] = index
            h[0].assist_tail += 1
    return work_for(h, nbytes)


@jit
def flush_bg_credit(h: Any, work: Any) -> None:
    """Background work becomes credit. (gcFlushBgCredit)"""
    left = pay_waiters(h, work)
    h[0].background_scan_work += work
    h[0].paid_scan_work += work - left
    h[0].bg_scan_credit += left


@jit
def advance(h: Any, now: Any) -> None:
    """Bring marking up to an instant; no work but what is in progress was done since the last call."""
    k = h[0].mark_workers + h[0].mark_assists
    passed = now - h[0].mark_time
    h[0].mark_time = now
    if passed <= 0 or k == 0 or is_marked(h):
        return
    h[0].mark_cpu = min(h[0].mark_cpu + k * passed, h[0].mark_total)
    before, heap_before = scan_work(h), h[0].heap_scan_work
    h[0].stack_scan_work = work_by(h, STACKS, h[0].mark_cpu)
    h[0].globals_scan_work = work_by(h, GLOBALS, h[0].mark_cpu)
    h[0].heap_scan_work = work_by(h, HEAP_PART, h[0].mark_cpu)
    done = scan_work(h) - before
    h[0].assist_each += (done << EACH_BITS) // k
    h[0].heap_each += ((h[0].heap_scan_work - heap_before) << EACH_BITS) // k
    share = done * h[0].mark_workers + h[0].mark_rest
    h[0].mark_unflushed += share // k
    h[0].mark_rest = share % k
    while h[0].mark_unflushed >= CREDIT_SLACK:
        h[0].mark_unflushed -= CREDIT_SLACK
        flush_bg_credit(h, np.int64(CREDIT_SLACK))


@jit
def lots_until_paid(h: Any) -> Any:
    """Lots of credit until the first of the parked assists is paid, at the present ratio."""
    nbytes = max(bytes_for(h, np.int64(CREDIT_SLACK)), np.int64(1))
    n = h[0].assist_tail - h[0].assist_head
    best = np.int64(1 << 40)
    for i in range(n):
        g = goroutines(h)[assist_queue(h)[(h[0].assist_head + i) % h[0].assist_queue_len]]
        rounds = max((-g.assist_bytes + nbytes - 1) // nbytes, np.int64(1))
        best = min(best, (rounds - 1) * n + i + 1)
    return best


@jit
def roots_end_now(h: Any) -> Any:
    """Whether all root jobs are done, and the collector does not know yet."""
    return not h[0].mark_roots_over and h[0].mark_cpu >= roots_cpu(h)


@jit
def arm(h: Any) -> None:
    """Set the collector's next turn: roots are scanned, marking is over, or a parked assist is paid; at once if that is so."""
    due = np.int64(NEVER)
    k = h[0].mark_workers + h[0].mark_assists
    if h[0].assist_nready > 0 or (h[0].gc_phase == GC_MARK and (roots_end_now(h) or (is_marked(h) and not h[0].mark_over))):
        due = h[0].now
    elif h[0].gc_phase == GC_MARK and k > 0:
        left = (h[0].mark_total if h[0].mark_roots_over else roots_cpu(h)) - h[0].mark_cpu
        if h[0].mark_workers > 0 and h[0].assist_head != h[0].assist_tail:
            work = lots_until_paid(h) * CREDIT_SLACK - h[0].mark_unflushed
            left = min(left, cpu_for(h, work * k // h[0].mark_workers + 1))
        due = h[0].mark_time + (left + k - 1) // k
    p_time(h)[h[0].nprocs] = due


@jit
def steal_credit(h: Any, g: Any, work: Any, debt: Any) -> Any:
    """Take background credit for an assist's work; the work that is left. (gcAssistAlloc)"""
    credit = h[0].bg_scan_credit
    if credit <= 0:
        return work
    if credit < work:
        stolen = credit
        g.assist_bytes += 1 + bytes_for(h, stolen)
    else:
        stolen = work
        g.assist_bytes += debt
    h[0].bg_scan_credit -= stolen
    h[0].stolen_scan_work += stolen
    return work - stolen


@jit
def whole_block(h: Any, work: Any) -> Any:
    """So much scan work from now on, and what is left then of a block of globals: who began one scans all of it. (markroot)

    Blocks are of .data, then of .bss. Of globals no more is told than their size: .bss is that of every program, the rest .data.
    """
    scanned, whole = h[0].globals_scan_work, h[0].mark_works[GLOBALS]
    if scanned + work >= whole:
        return work
    data = max(whole - h[0].runtime_bss, np.int64(0))
    first, end = (np.int64(0), data) if scanned + work <= data else (data, whole)
    return min(first + (scanned + work - first + ROOT_BLOCK - 1) // ROOT_BLOCK * ROOT_BLOCK, end) - scanned


@jit
def assist(h: Any, p: Any, g: Any, now: Any) -> Any:
    """A goroutine in debt steals credit, and begins to mark for what is missing: PAID, DRAINING or PARKED. (gcAssistAlloc)"""
    advance(h, now)
    if h[0].limiter_enabled:
        return PAID
    debt = -g.assist_bytes
    work = work_for(h, debt)
    if work < OVER_ASSIST_WORK:
        work = np.int64(OVER_ASSIST_WORK)
        debt = bytes_for(h, work)
    work = steal_credit(h, g, work, debt)
    if work == 0:
        return PAID
    if is_marked(h):
        return PARKED
    g.assist_work = work
    g.assist_base = h[0].assist_each
    start_event(h, p, MARK_ASSIST, now)
    h[0].mark_assists += 1
    arm(h)
    return DRAINING


@jit
def note_work(h: Any, p: Any, kind: Any, time: Any, length: Any) -> None:
    """Tell a timeline, if there is one with room, what a P did within mallocgc."""
    if h[0].work_used >= h[0].work_log_len or h[0].work_log_len == 1 or length == 0:
        return
    line = work_log(h)[h[0].work_used]
    line.time = time
    line.length = length
    line.p = p
    line.kind = kind
    h[0].work_used += 1


@jit
def end_assist(h: Any, p: Any, g: Any, now: Any) -> Any:
    """A draining assist ends: it did its work, or marking is over, or it was preempted: PAID or PARKED.

    Leaves in ``g.assist_work`` what it did not do.
    """
    advance(h, now)
    h[0].mark_assists -= 1
    asked = now - g.assist_start
    done = (h[0].assist_each - g.assist_base) >> EACH_BITS
    g.assist_work = max(g.assist_work - done, np.int64(0))
    g.assist_bytes += 1 + bytes_for(h, done)
    h[0].assist_scan_work += done
    h[0].assists += 1
    g.spent[ASSIST] += asked
    procs(h)[p].assist_time += asked
    h[0].assist_time += asked
    note_work(h, p, WORK_ASSIST, now - asked, asked)
    stop_event(h, p, MARK_ASSIST, now)
    if asked > ASSIST_TIME_SLACK:
        update(h, now)
    arm(h)
    return PAID if g.assist_bytes >= 0 else PARKED


@jit
def retime_assists(h: Any, now: Any) -> None:
    """Who marks has changed: when each assist in progress will have done its work, its part of all that is done.

    Marking shares out work evenly among all who mark, at the price of whatever part it is at.
    """
    k = h[0].mark_workers + h[0].mark_assists
    if h[0].mark_assists == 0:
        return
    rest = h[0].mark_works[STACKS] + h[0].mark_works[GLOBALS] + h[0].mark_works[HEAP_PART] - scan_work(h)
    for p in range(h[0].nprocs):
        pr = procs(h)[p]
        g = goroutines(h)[pr.g]
        if p_time(h)[p] == NEVER or g.stage != ASSISTING:
            continue
        left = max(g.assist_work - ((h[0].assist_each - g.assist_base) >> EACH_BITS), np.int64(0))
        work = whole_block(h, left * k + k) if left < rest else rest
        due = now + (cpu_for(h, min(work, rest)) + k - 1) // k
        if h[0].stop or pr.barrier:
            due = now
        p_time(h)[p] = max(min(due, pr.slice_end), now)


@jit
def park_assist(h: Any, index: Any, now: Any) -> Any:
    """Queue a goroutine for credit; False when there is some now, so that it may try again. (gcParkAssist)"""
    advance(h, now)
    if h[0].bg_scan_credit > 0:
        arm(h)
        return False
    assist_queue(h)[h[0].assist_tail % h[0].assist_queue_len] = index
    h[0].assist_tail += 1
    arm(h)
    return True


@jit
def ready_all_assists(h: Any) -> None:
    """Marking is over: parked assists go on unpaid. (gcWakeAllAssists)"""
    while h[0].assist_head != h[0].assist_tail:
        assist_ready(h)[h[0].assist_nready] = assist_queue(h)[h[0].assist_head % h[0].assist_queue_len]
        h[0].assist_nready += 1
        h[0].assist_head += 1


@jit
def assist_price(h: Any) -> Any:
    """What an assist costs besides its marking: the look at the credit."""
    return prices(h)[_ASSIST]["mean"]
