"""TCMalloc on the clock, compiled: threads run ahead where nobody sees it, and take their turns where somebody does.

A thread's own list, its variables and the objects it holds are its own: a hit, a push, a compute, the program's first
touch of an object are done ahead of the other threads. All else is a *stage*, done when the thread has the lowest
clock: one hold of a class lock or of pageheap_lock, one look at another class for a slot, one test of a budget that
another thread might steal from, one assignment of a variable of the whole program's.

A fetch is: class lock; if that found nothing, pageheap_lock for a span, cutting it without a lock, class lock. Giving
back is for each chain: class lock, where it goes into a slot or its objects go to their spans; pageheap_lock for each
span that is whole by that, class lock for the rest; and where a slot has to come from another class, a look at that
class and its lock first. What a call is at between two turns stands in the table ``calls``.

A call that is more than a pop or a push pays what such calls were measured to take in all, the pop or push in it
included. Waiting for a lock comes on top.

The test whether a cache is over its budget is ahead of the others only where no thief could change its answer: a cache
of up to 512 KiB is never stolen from. Caches are made before the threads start and are there when they end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, types

from sim.jit import bare, entry, inlined, jit
from sim.ops import ALLOC, DEAD, SHARED, TOUCH
from sim.tcmalloc.malloc import pages_of, room_is_short
from sim.tcmalloc.sizeclasses import (
    MAX_SIZE,
    class_to_pages,
    class_to_size,
    size_class,
)
from sim.tcmalloc.stages import (
    ASK,
    ASSIGN,
    BUDGET,
    DELETE,
    DELETE_DONOR,
    ENTER,
    FETCH,
    GIVE,
    GROW,
    LIMIT,
    NEW_LARGE,
    NEW_SPAN,
    OLD_LARGE,
    POP,
    PUSH_PRICE,
    SCATTER,
    SHRINK,
    SHRINK_REST,
    ask,
    assign,
    delete,
    enter_span,
    fetch,
    free_quickly,
    give,
    grow,
    new_large,
    new_span,
    next_chain,
    old_large,
    raise_budget,
    reaches,
    scatter,
    shrink,
    test_budget,
    touch_price,
)
from sim.tcmalloc.state import calls, tcmalloc_type, variables
from sim.tcmalloc.state import threads as caches
from sim.tcmalloc.thread_cache import (
    pop,
)
from sim.threads.clock import (
    FINISHED,
    NEED_ROOM,
    STAY,
    compute,
    end_slice,
    first_two,
    goes_on,
    note,
    ops_at,
)
from sim.threads.state import (
    DONE,
    LOG_FREE,
    LOG_MALLOC,
    OPS,
    SLICE,
    clock_type,
    prices,
    threads,
    times,
)


@inlined
def run_ops(h: Any, k: Any, t: Any, limit: Any) -> None:
    """Run operations from the thread's clock on, until one needs a turn, the limit or the end of slice or batch."""
    th = threads(k)[t]
    ops = ops_at(th.ops, th.nops)
    own = caches(h)[t].variables
    table = variables(h)
    pop_price, push_price = prices(k)[POP], prices(k)[PUSH_PRICE]
    time = times(k)[t]
    pos = th.pos
    nops = pos if k[0].closing else th.nops
    stop = min(limit, th.slice_end)
    mallocs, frees, touched, asked, given = np.int64(0), np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    stage = np.int64(DONE)
    while pos < nops:
        if time >= stop:
            stage = np.int64(OPS if time < th.slice_end else SLICE)
            break
        op = ops[pos]
        held = np.int64(0)
        if op.kind == ALLOC:
            cl = np.int64(0)
            obj = np.int64(0)
            if op.arg <= MAX_SIZE:
                cl = size_class(op.arg)
                obj = pop(h, t, cl)
            if obj == 0:
                calls(h)[t].cl = cl
                stage = np.int64(NEW_LARGE if cl == 0 else FETCH)
                break
            time += pop_price
            mallocs += 1
            asked += op.arg
            given += class_to_size[cl]
            note(k, t, time, LOG_MALLOC, obj, pop_price)
            if op["flags"] & TOUCH and reaches[cl]:
                faults = touch_price(h, k, obj, op.arg)
                touched += faults
                time += faults
            if op.obj >= 0:
                if op["flags"] & SHARED:
                    th.obj = obj
                    stage = np.int64(ASSIGN)
                    break
                held = table[own + op.obj]
                table[own + op.obj] = obj
        elif op.kind == DEAD:
            if op.obj >= 0:
                if op["flags"] & SHARED:
                    stage = np.int64(ASSIGN)
                    break
                held = table[own + op.obj]
                table[own + op.obj] = 0
        else:
            time, ended = compute(k, th, op, time)
            if not ended:
                continue
        if held != 0:
            times(k)[t] = time
            if not free_quickly(h, k, t, held):
                time = times(k)[t]
                stage = th.stage
                break
            time += push_price
            frees += 1
            note(k, t, time, LOG_FREE, held, push_price)
        pos += 1
    th.pos = pos
    th.stage = stage
    times(k)[t] = time
    k[0].hits += mallocs
    k[0].pushes += frees
    th.mallocs += mallocs
    th.frees += frees
    th.malloc_time += mallocs * pop_price
    th.free_time += frees * push_price
    th.touch_time += touched
    th.asked_bytes += asked
    th.given_bytes += given


@jit
def needs_room(h: Any, k: Any, t: Any) -> Any:
    """Whether a thread that is about to ask for a span could overflow a table."""
    th = threads(k)[t]
    if th.stage == NEW_LARGE:
        return room_is_short(h, pages_of(ops_at(th.ops, th.nops)[th.pos].arg))
    return th.stage == NEW_SPAN and room_is_short(h, class_to_pages[calls(h)[t].cl])


@jit
def turn(h: Any, k: Any, t: Any) -> None:
    """What a thread's stage is, done."""
    th = threads(k)[t]
    call = calls(h)[t]
    stage = th.stage
    if stage == FETCH:
        fetch(h, k, t)
    elif stage == ASSIGN:
        assign(h, k, t)
    elif stage == NEW_SPAN:
        new_span(h, k, t)
    elif stage == ENTER:
        enter_span(h, k, t)
    elif stage == NEW_LARGE:
        new_large(h, k, t, ops_at(th.ops, th.nops)[th.pos].arg)
    elif stage == OLD_LARGE:
        old_large(h, k, t)
    elif stage == GIVE:
        give(h, k, t)
    elif stage == ASK:
        ask(h, k, t)
    elif stage == SHRINK:
        shrink(h, k, t)
    elif stage == SHRINK_REST:
        if scatter(h, k, t, call.donor, call.rest, np.int64(0), np.int64(DELETE_DONOR)):
            th.stage = GROW
    elif stage == GROW:
        grow(h, k, t)
    elif stage == SCATTER:
        if scatter(h, k, t, call.cl, call.chain, np.int64(0), np.int64(DELETE)):
            next_chain(h, k, t)
    elif stage == BUDGET:
        test_budget(h, k, t)
    elif stage == LIMIT:
        raise_budget(h, k, t)
    else:
        delete(h, k, t)


@entry(types.UniTuple(int64, 2)(tcmalloc_type, clock_type, int64))
def pump(h: Any, k: Any, limit: Any) -> Any:
    """Advance the threads in the order of their clocks, as long as they are before the limit: (reason, thread).

    Reason is STAY there, else why a thread needs Python: FINISHED or NEED_ROOM.
    """
    h, k = bare(h), bare(k)
    while True:
        t, time, other, other_time = first_two(k)
        if time >= limit:
            return np.int64(STAY), t
        while goes_on(t, time, other, other_time, limit):
            stage = threads(k)[t].stage
            if stage == OPS:
                run_ops(h, k, t, limit)
            elif stage == SLICE:
                end_slice(k, t)
            elif stage == DONE:
                return np.int64(FINISHED), t
            elif needs_room(h, k, t):
                return np.int64(NEED_ROOM), t
            else:
                turn(h, k, t)
            time = times(k)[t]
