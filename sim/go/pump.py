"""The pump: compiled code that advances all Ps together, each by segments, in the order of their own clocks.

Between two touches of anything shared a P owns what it uses (its cache, its spans, its goroutine's variables), so it
runs a *segment* of operations ahead of the world and then waits until every other P has come as far. A segment ends
just before a touch of something shared, or when it has lasted `max_run_ahead`. Ends of segments are the only
safepoints: there a stop-the-world, the end of a time slice or the loss of a CPU takes effect. An allocation that has
begun to touch shared state runs to its end, as mallocgc does; a compute longer than the rest of its segment can be cut
anywhere (pumpcalls.py), and so can the clearing of a large object between two chunks.

What is lock-free in the runtime is done here, and so are holds of mheap.lock and waits for it (heaplock.py). What takes
another runtime lock, ends a batch or reaches a safepoint that somebody waits at goes to Python: `pump` returns the P,
with the reason, at the very instant its clock says.
`pump` never goes past ``(limit_time, limit_priority)``, the key of the next event of the world, so the order of
everything shared is (time, rank, P) whoever does it. With ``event_per_op`` every operation comes back to Python as an
event of its own; nothing else changes, and the log is the same (tested).

Left out: the spine lock of span sets (one push in 512).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, types

from sim.go.heaplock import ask, look, release
from sim.go.malloc import TINY_SIZE, span_class_of
from sim.go.mallocgc import (
    assign,
    clear_chunk,
    combine_tiny,
    finish_malloc,
    pay_barrier,
    place_large,
    place_object,
    tiny_offset,
    touch_large,
)
from sim.go.mallocspan import got_pages, got_partial, heap_locked, pages_without_lock, settle
from sim.go.mcache import uncache_full
from sim.go.mcentral import cache_span, pay_for_refill, ready_listed
from sim.go.mgcmark import (
    ASSISTING,
    DRAINING,
    PAID,
    PARKED,
    assist,
    assist_price,
    end_assist,
    is_marked,
    marking_is_over,
    park_assist,
    retime_assists,
    test_trigger,
)
from sim.go.mgcsweep import deduct_sweep_credit, sweep_done
from sim.go.mheap import room_is_short
from sim.go.mspan import next_free_index
from sim.go.reclaim import reclaim
from sim.go.sizeclasses import class_to_allocnpages
from sim.go.state import (
    ASSIST,
    HEAP_WAIT,
    NEVER,
    PAGE_SHIFT,
    PAGE_SIZE,
    TINY_SPAN_CLASS,
    goroutines,
    heap_type,
    lock_waiters,
    log,
    mcaches,
    p_time,
    procs,
)
from sim.go.turns import first, place
from sim.jit import bare, entry, inlined, jit, view_at
from sim.ops import ALLOC, DEAD, NOSCAN, OP

# goroutine.stage: what its allocation or compute is at
SEGMENT = 0  # between two operations, at a safepoint
MIDDLE = 1  # between two operations inside a segment (event_per_op)
COMPUTING = 2  # in a compute of its own
CLEARING = 3  # a large object's memory is being cleared
CENTRAL = 4  # at mcentral's lock, to take a span with room (go1.14)
INSERT = 5  # at mcentral's lock, to enter a fresh span
PAGES = 6  # at mheap.lock, for pages or a span record
HAVE_PARTIAL = 7  # has a span with room
HAVE_NONE = 8  # mcentral had no span with room
HAVE_PAGES = 9  # has pages and a span record
LISTED = 10  # has a span of mcentral's lists, which may have to be swept first (go1.14)
TRIGGER = 11  # allocated; at its end it tests whether a collection begins
# 12 is ASSISTING (mgcmark.py)
PARKED_ASSIST = 13  # parked until background workers have paid it
ENDED_MARKING = 14  # its assist did the last of the marking
CUT_ASSIST = 15  # was preempted while marking, and is in debt still
LATE = 16  # allocated when its time slice is over, which it notices

# why a P comes back to Python
STAY = 0  # it does not
DONE = 1  # its batch is at its end
STOPPED = 2  # a stop-the-world waits
PREEMPTED = 3  # its time slice is over, or somebody waits for every P to come to a safepoint
CPU_LOST = 4  # its CPU is wanted by another thread
NEED_CENTRAL = 5
NEED_HEAP = 6
NEED_ROOM = 7  # a table must grow
OP_EVENT = 8  # event_per_op
GC_START = 9  # it is the one to start a collection
PARK = 10  # its assist parks
MARK_DONE = 11  # its assist found nothing left to mark
COLLECTOR = 12  # no P's: the collector's own turn
GRANTED = 13  # no P's in the pump: an owner outside has mheap.lock now

# log kinds
LOG_OBJECT = 1  # address
LOG_REFILL = 2  # span class
LOG_LARGE = 3  # pages
LOG_DEAD = 4  # variable

ops_at = view_at(OP)


@inlined
def note(h: Any, time: Any, p: Any, kind: Any, arg: Any) -> None:
    """Write a line of the log if there is one."""
    if h[0].log_len <= 1:
        return
    line = log(h)[h[0].log_used]
    line.time = time
    line.p = p
    line.kind = kind
    line.arg = arg
    h[0].log_used += 1


@inlined
def await_turn(h: Any, p: Any, g: Any, pos: Any, time: Any) -> Any:
    """End the segment: the P goes on when its turn comes."""
    g.pos = pos
    g.stage = SEGMENT
    procs(h)[p].lag = 0
    p_time(h)[p] = time
    return STAY


@jit
def fresh_step(h: Any, p: Any, g: Any) -> Any:
    """The span must be fresh: from the P's own caches at once, else Python takes a lock first. (mheap.go:alloc)"""
    if not sweep_done(h):
        reclaim(h, p, np.int64(g.npages))
    if not pages_without_lock(h, p, g):
        g.stage = PAGES
        return NEED_HEAP
    if h[0].mcentral_mutex and g.spanclass >= 2:
        g.stage = INSERT
        return NEED_CENTRAL
    g.stage = HAVE_PAGES
    return STAY


@jit
def refill_step(h: Any, p: Any, g: Any, spc: Any, now: Any) -> Any:
    """Trade the P's full span of a class for one with room, as far as no lock is needed. (mcache.go:refill)"""
    if room_is_short(h, np.int64(16)):
        return NEED_ROOM
    note(h, now, p, LOG_REFILL, spc)
    uncache_full(h, p, spc)
    g.spanclass = spc
    g.npages = class_to_allocnpages[spc >> 1]
    if h[0].mcentral_mutex:
        pay_for_refill(h, p, spc)
        g.stage = CENTRAL
        return NEED_CENTRAL
    g.span = cache_span(h, p, spc)
    if g.span != 0:
        g.stage = HAVE_PARTIAL
        return STAY
    return fresh_step(h, p, g)


@jit
def large_step(h: Any, p: Any, g: Any, op: Any, now: Any) -> Any:
    """Begin a large object: its pages, as far as no lock is needed. (mcache.go:allocLarge)"""
    g.npages = (op.arg + PAGE_SIZE - 1) >> PAGE_SHIFT
    if room_is_short(h, g.npages):
        return NEED_ROOM
    note(h, now, p, LOG_LARGE, g.npages)
    g.spanclass = op["flags"] & NOSCAN
    deduct_sweep_credit(h, p, g.npages << PAGE_SHIFT, np.int64(g.npages))
    return fresh_step(h, p, g)


@jit
def compute_until(h: Any, p: Any, g: Any, start: Any) -> Any:
    """Run what is left of a compute from ``start`` on, to its end or that of the slice or the CPU's, cuttable anywhere."""
    pr = procs(h)[p]
    part = max(min(g.left, pr.slice_end - start), np.int64(0))
    if h[0].cpu_waiters > 0:
        part = min(part, max(pr.cpu_end - start, np.int64(0)))
    g.left -= part
    g.stage = COMPUTING
    pr.compute_time += part
    p_time(h)[p] = start + part
    return STAY


@jit
def begin_alloc(h: Any, p: Any, g: Any, op: Any, spc: Any, now: Any) -> Any:
    """The first touch of something shared by an allocation, at its turn; STAY when it can be completed now."""
    reason = large_step(h, p, g, op, now) if spc < 2 else refill_step(h, p, g, spc, now)
    settle(h, p, g)
    return reason


@jit
def complete_alloc(h: Any, p: Any, g: Any, now: Any) -> Any:
    """An allocation has its span: place the object. Picoseconds; -1 when it is not at its end yet.

    That is, a large one has bytes to clear, or a collection may be due when its time is over, or its time slice is by
    then: who took a span calls a function that looks whether a collection is due, and preemption is noticed where a
    function begins (gcTrigger.test; but for `is_called_away` nothing else of a malloc can, as it holds its thread).
    """
    op = ops_at(g.ops, g.nops)[g.pos]
    spc = np.int64(g.spanclass)
    cost = got_partial(h, p, g) if g.stage == HAVE_PARTIAL else got_pages(h, p, g)
    if spc >= 2:
        due = test_trigger(h)
        s = np.int64(g.span)
        slot = next_free_index(h, s)
        note(h, now, p, LOG_OBJECT, (s << 16) | slot)
        g.left = 0
        cost += place_object(h, p, g, op, spc, s, slot, True)
    else:
        cost += place_large(h, p, g, op)
        due = test_trigger(h)  # heapLive has its bytes only now
        note(h, now, p, LOG_OBJECT, np.int64(g.span) << 16)
    if due or now + cost >= procs(h)[p].slice_end:
        g.stage = TRIGGER if due else LATE
        p_time(h)[p] = now + cost
        return np.int64(-1)
    if g.left > 0:
        g.stage = CLEARING
        p_time(h)[p] = now + cost
        return np.int64(-1)
    finish_malloc(h, p, g)
    return cost + touch_large(h, p, g, op) if spc < 2 else cost


@jit
def end_trigger(h: Any, p: Any, g: Any, now: Any) -> Any:
    """An allocation that tested for a collection, or was late, ends, or goes on to clear its object: picoseconds, -1 in that case."""
    op = ops_at(g.ops, g.nops)[g.pos]
    if g.left > 0:
        g.stage = CLEARING
        p_time(h)[p] = now
        return np.int64(-1)
    finish_malloc(h, p, g)
    procs(h)[p].mallocs += 1
    g.pos += 1
    g.stage = SEGMENT
    return touch_large(h, p, g, op) if g.spanclass < 2 else np.int64(0)


@jit
def paid(h: Any, g: Any) -> Any:
    """The debt of the allocation at ``pos`` is paid; picoseconds that looking after it costs."""
    cost = assist_price(h)
    g.spent[ASSIST] += cost
    g.assist_paid = 2
    g.stage = SEGMENT
    return cost


@jit
def resolve_assist(h: Any, p: Any, g: Any, now: Any, outcome: Any) -> Any:
    """What becomes of a goroutine in debt: (why Python is needed or STAY, picoseconds it owes or -1 while it marks)."""
    while True:
        if outcome == PAID:
            return np.int64(STAY), paid(h, g)
        if outcome == DRAINING:
            g.stage = ASSISTING
            g.assist_start = now
            p_time(h)[p] = now
            retime_assists(h, now)
            return np.int64(STAY), np.int64(-1)
        if park_assist(h, np.int64(procs(h)[p].g), now):
            g.stage = PARKED_ASSIST
            return np.int64(PARK), np.int64(-1)
        outcome = assist(h, p, g, now)


@jit
def finish_assist(h: Any, p: Any, g: Any, now: Any) -> Any:
    """The time of an assist is over, or marking is, or it is preempted: as `resolve_assist`."""
    g.stage = SEGMENT
    outcome = end_assist(h, p, g, now)
    retime_assists(h, now)
    if marking_is_over(h):
        g.stage = ENDED_MARKING
        return np.int64(MARK_DONE), np.int64(-1)
    if g.assist_work > 0 and outcome == PARKED and not is_marked(h):
        g.stage = CUT_ASSIST
        g.assist_paid = 2
        return np.int64(STOPPED if h[0].stop else PREEMPTED), np.int64(-1)
    return resolve_assist(h, p, g, now, outcome)


@jit
def is_called_away(h: Any, p: Any, g: Any, time: Any) -> Any:
    """Whether an allocation that has assisted notices that it is to leave its P: where it calls a function before it goes on.

    Left out: those whose debt credit pays at once, and those that waited for marking to end.
    """
    pr = procs(h)[p]
    if ops_at(g.ops, g.nops)[g.pos].arg <= h[0].assist_inlined:
        return False
    return h[0].stop != 0 or pr.barrier != 0 or time >= pr.slice_end


@jit
def retry_assist(h: Any, p: Any, g: Any, now: Any) -> Any:
    """An assist that was preempted goes on, unless there is no marking any more: as `resolve_assist`."""
    outcome = assist(h, p, g, now) if h[0].gc_blacken_enabled else np.int64(PAID)
    return resolve_assist(h, p, g, now, outcome)


@jit
def charge_assist(h: Any, p: Any, g: Any, nbytes: Any, now: Any) -> Any:
    """Charge an allocation while marking: as `resolve_assist`, (STAY, 0) when it has credit. (deductAssistCredit)"""
    g.assist_bytes -= nbytes
    g.assist_paid = 1
    if g.assist_bytes >= 0:
        return np.int64(STAY), np.int64(0)
    return resolve_assist(h, p, g, now, assist(h, p, g, now))


@inlined
def run_ops(h: Any, p: Any, g: Any, start: Any, lag: Any) -> Any:
    """Run operations from ``start + lag`` on until the segment's end or a touch of something shared."""
    pr = procs(h)[p]
    ops = ops_at(g.ops, g.nops)
    c = mcaches(h)[p]
    limit = h[0].max_run_ahead
    logging = h[0].log_len > 1
    pos = g.pos
    if g.noted > 0:
        lag += pay_barrier(h, p, g)  # of an allocation that ended elsewhere
    while pos < g.nops:
        op = ops[pos]
        if op.kind == ALLOC:
            if h[0].gc_blacken_enabled and h[0].gc_assists and g.assist_paid == 0:
                if lag > 0 and g.assist_bytes < op.arg:
                    return await_turn(h, p, g, pos, start + lag)
                g.pos = pos
                reason, cost = charge_assist(h, p, g, op.arg, start)
                if reason != STAY or cost < 0:
                    return reason
                pr.malloc_time += cost
                lag += cost
            spc = span_class_of(h, op.arg, np.int64(op["flags"] & NOSCAN))
            off = np.int64(-1)
            if spc == TINY_SPAN_CLASS and op.arg < TINY_SIZE:
                off = tiny_offset(h, p, op.arg)
            if off >= 0:
                cost = combine_tiny(h, p, g, op, off)
                pr.malloc_time += cost
                lag += cost
            else:
                s = np.int64(c.alloc[spc])
                slot = np.int64(-1)
                if s != 0:
                    slot = next_free_index(h, s)
                if slot >= 0:
                    if logging:
                        note(h, start + lag, p, LOG_OBJECT, (s << 16) | slot)
                    lag += place_object(h, p, g, op, spc, s, slot, False)
                else:
                    if lag > 0:
                        return await_turn(h, p, g, pos, start + lag)
                    g.pos = pos
                    reason = begin_alloc(h, p, g, op, spc, start)
                    if reason != STAY:
                        return reason
                    lag = complete_alloc(h, p, g, start)
                    if lag < 0:
                        return STAY
            pr.mallocs += 1
        elif op.kind == DEAD:
            if logging:
                note(h, start + lag, p, LOG_DEAD, np.int64(op.obj))
            assign(h, g, op, np.int64(0))
        elif lag + op.arg <= limit:
            lag += op.arg
            pr.compute_time += op.arg
        else:
            if lag > 0:
                return await_turn(h, p, g, pos, start + lag)
            g.pos = pos
            g.left = op.arg
            return compute_until(h, p, g, start)
        pos += 1
        if g.noted > 0:
            lag += pay_barrier(h, p, g)
        if lag >= limit:
            return await_turn(h, p, g, pos, start + lag)
        if h[0].event_per_op:
            g.pos = pos
            g.stage = MIDDLE
            pr.lag = lag
            p_time(h)[p] = start + lag
            return STAY
    if lag > 0:
        return await_turn(h, p, g, pos, start + lag)
    g.pos = pos
    return DONE


@jit
def hold_heap(h: Any, p: Any, waited: Any, tried: Any) -> Any:
    """What one hold of mheap.lock does for the allocation of P: (picoseconds of it, whether that was all it needs)."""
    g = goroutines(h)[procs(h)[p].g]
    held, complete = heap_locked(h, p, waited, tried)
    if complete:
        g.stage = INSERT if h[0].mcentral_mutex and g.spanclass >= 2 else HAVE_PAGES
    return held, complete


@jit
def begin_hold(h: Any, p: Any, now: Any, waited: Any, tried: Any) -> None:
    """P has taken mheap.lock: its turn comes when it gives it back."""
    held, _ = hold_heap(h, p, waited, tried)
    p_time(h)[p] = now + held
    h[0].heap_lock_until = now + held


@jit
def ask_heap(h: Any, p: Any, now: Any, tried: Any) -> Any:
    """P takes mheap.lock, or waits for it; always STAY."""
    pr = procs(h)[p]
    if not pr.at_lock:
        pr.at_lock = 1
        pr.lock_since = now
    if ask(h, p, now, tried, False):
        begin_hold(h, p, now, np.int64(0), tried)
    else:
        p_time(h)[p] = NEVER
    return STAY


@jit
def after_hold(h: Any, p: Any, g: Any, now: Any) -> Any:
    """P gives mheap.lock back, or has woken the next: STAY while it has more to do there, or DONE."""
    if h[0].heap_lock_holder == p:
        waking = release(h, now)
        if waking > 0:
            g.spent[HEAP_WAIT] += waking
            p_time(h)[p] = now + waking
            return STAY
    if g.stage == PAGES:
        return ask_heap(h, p, now, True)
    pr = procs(h)[p]
    pr.at_lock = 0
    pr.lock_time += now - pr.lock_since
    return DONE


@jit
def look_turn(h: Any, owner: Any, now: Any) -> Any:
    """Somebody who waits for mheap.lock looks at it: GRANTED if it is that of an owner outside now, else STAY."""
    waited = look(h, owner, now)
    if waited < 0:
        return STAY
    w = lock_waiters(h)[owner]
    if w.outside:
        return GRANTED
    begin_hold(h, owner, now, waited, w.tried != 0)
    return STAY


@inlined
def safepoint(h: Any, p: Any, now: Any) -> Any:
    """Whether something waits for this P at the end of its segment."""
    pr = procs(h)[p]
    if h[0].stop:
        return STOPPED
    if pr.barrier or now >= pr.slice_end:
        return PREEMPTED
    if h[0].cpu_waiters > 0 and now >= pr.cpu_end:
        return CPU_LOST
    pr.segments += 1
    return STAY


@inlined
def step(h: Any, p: Any, now: Any) -> Any:
    """One turn of a P, whose clock says ``now``: why it comes back to Python, or STAY with its next turn in p_time."""
    pr = procs(h)[p]
    g = goroutines(h)[pr.g]
    lag = np.int64(0)
    start = now
    h[0].now = now
    if pr.at_lock:
        reason = after_hold(h, p, g, now)
        if reason != DONE:
            return reason
    if g.stage == MIDDLE:
        lag = pr.lag
        start = now - lag
    elif g.stage == SEGMENT or g.stage == COMPUTING or g.stage == CLEARING:
        reason = safepoint(h, p, now)
        if reason != STAY:
            return reason
        if g.stage == COMPUTING:
            if g.left > 0:
                return compute_until(h, p, g, now)
            g.pos += 1
        elif g.stage == CLEARING:
            op = ops_at(g.ops, g.nops)[g.pos]
            if g.left > 0:
                p_time(h)[p] = now + clear_chunk(h, p, g, op)
                return STAY
            finish_malloc(h, p, g)
            lag = touch_large(h, p, g, op)
            pr.mallocs += 1
            g.pos += 1
    elif g.stage == TRIGGER or g.stage == LATE:
        reason = safepoint(h, p, now) if g.stage == LATE else np.int64(GC_START if test_trigger(h) else STAY)
        if reason != STAY:
            return reason
        lag = end_trigger(h, p, g, now)
        if lag < 0:
            return STAY
    elif g.stage == ASSISTING or g.stage == CUT_ASSIST:
        reason, lag = finish_assist(h, p, g, now) if g.stage == ASSISTING else retry_assist(h, p, g, now)
        if reason != STAY or lag < 0:
            return reason
        pr.malloc_time += lag
        if is_called_away(h, p, g, now + lag):
            return await_turn(h, p, g, np.int64(g.pos), now + lag)
    elif g.stage == PARKED_ASSIST or g.stage == ENDED_MARKING:
        lag = paid(h, g)
        pr.malloc_time += lag
    else:
        if g.stage == LISTED:
            has_room = ready_listed(h, p, np.int64(g.span))
            settle(h, p, g)
            if not has_room:
                g.stage = CENTRAL
                return NEED_CENTRAL
            g.stage = HAVE_PARTIAL
        elif g.stage == INSERT:  # mheap.lock gave the pages; mcentral's comes after it
            return NEED_CENTRAL
        elif g.stage == HAVE_NONE:
            reason = fresh_step(h, p, g)
            settle(h, p, g)
            if reason != STAY:
                return reason
        lag = complete_alloc(h, p, g, now)
        if lag < 0:
            return STAY
        pr.mallocs += 1
        g.pos += 1
    g.stage = SEGMENT
    return run_ops(h, p, g, start, lag)


@entry(types.UniTuple(int64, 5)(heap_type, int64, int64))
def pump(h: Any, limit_time: Any, limit_priority: Any) -> Any:
    """Advance the Ps in the pump, in the order of (time, P), as long as they are before the limit's key.

    Returns (reason, p, time, next turn, next time). Reason is STAY there, else why P p needs Python at that time: it has
    left the pump, until ``p_time[p]`` puts it back; p is the number of Ps for COLLECTOR, the owner for GRANTED. The turn
    that is due next, and when, is as `first` says.
    """
    h = bare(h)
    times = p_time(h)
    nprocs = h[0].nprocs
    while True:
        p, time = first(h, times)
        if time > limit_time or (time == limit_time and place(nprocs, p) > limit_priority) or time == NEVER:
            return np.int64(STAY), p, time, p, time
        if p > nprocs:
            p -= nprocs + 1
            if look_turn(h, p, time) == GRANTED:
                turn, due = first(h, times)
                return np.int64(GRANTED), p, time, turn, due
            continue
        reason = step(h, p, time) if p < nprocs else COLLECTOR
        if reason == NEED_HEAP and h[0].heap_lock_here:
            reason = ask_heap(h, p, time, False)
        if reason == STAY and h[0].event_per_op and goroutines(h)[procs(h)[p].g].stage == MIDDLE:
            time = times[p]
            reason = OP_EVENT
        if reason != STAY:
            times[p] = NEVER
            turn, due = first(h, times)
            return np.int64(reason), p, time, turn, due


@entry(types.UniTuple(int64, 2)(heap_type))
def next_turn(h: Any) -> Any:
    """Whose turn in the pump comes first, as `first` says, and when; (0, NEVER) if nobody's does."""
    h = bare(h)
    return first(h, p_time(h))
