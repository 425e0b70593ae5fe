"""The textbook allocators on the clock, compiled: one lock around each malloc and each free.

A thread computes and changes its own variables ahead of the others. All else is a turn: a hold of the lock, which lasts
for what the rooms say was done under it (each free block looked at, splits, merges, growth); an assignment of a
variable of the whole program's; the program's first touch of pages, since objects of several threads may lie in one.

Memory comes to stand behind a 4 KiB page when it is first written: by the program, or by the allocator under its lock.
That writes a block's header when it hands the block out, header and links of what a split left, links and the size at
the end of a block that is freed, the end of a region that has grown, and all of a run that it carves. Lists of one size
and bump allocation have no headers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, types

from sim.jit import bare, entry, jit
from sim.ops import ALLOC, DEAD, SHARED, TOUCH
from sim.textbook.malloc import address, block_of, free, malloc, room_is_short
from sim.textbook.prices import (
    BASE,
    COALESCE,
    FIRST_TOUCH,
    FREE_BASE,
    FREE_LOCK_WAIT,
    FREE_TOUCH,
    GROWTH,
    LOCK_WAIT,
    PLACE,
    SEARCH,
    SPLIT,
    STEPS,
)
from sim.textbook.state import (
    BASES,
    BUMP,
    GENERAL,
    HEADER_BYTES,
    LINK_BYTES,
    NUM_REGIONS,
    RUN_BYTES,
    RUNS,
    blocks,
    regions,
    shared_variables,
    textbook_type,
    variables,
)
from sim.threads.clock import (
    FINISHED,
    NEED_ROOM,
    STAY,
    compute,
    end_slice,
    finish_free,
    finish_malloc,
    first_two,
    goes_on,
    hold,
    ops_at,
)
from sim.threads.state import (
    DONE,
    FIRST_STAGE,
    LOG_FREE,
    LOG_MALLOC,
    OPS,
    SLICE,
    clock_type,
    prices,
    threads,
    times,
    touched,
)

NUM_LOCKS = 1

# stages
NEW = FIRST_STAGE  # at the lock, to allocate
OLD = FIRST_STAGE + 1  # at the lock, to free
WRITE = FIRST_STAGE + 2  # the program is about to write pages that no memory stands behind
ASSIGN = FIRST_STAGE + 3  # at a variable of the whole program's

_OS_PAGE_SHIFT = 12
_MALLOC, _FREE, _VISIT, _SPLIT, _COALESCE, _GROW, _CARVE_LINE, _FIRST_TOUCH = range(len(STEPS))


@jit
def region_of(addr: Any) -> Any:
    """The region that an address lies in."""
    return np.int64(RUNS if addr >= BASES[RUNS] else GENERAL)


@jit
def untouched(k: Any, addr: Any, nbytes: Any) -> Any:
    """4 KiB pages among nbytes >= 1 that no memory stands behind."""
    region = region_of(addr)
    first = addr - BASES[region]
    table = touched(k)
    n = np.int64(0)
    for page in range(first >> _OS_PAGE_SHIFT, ((first + nbytes - 1) >> _OS_PAGE_SHIFT) + 1):
        n += 1 - table[NUM_REGIONS * page + region]
    return n


@jit
def touch(k: Any, addr: Any, nbytes: Any) -> Any:
    """Write nbytes >= 1: picoseconds of first touches."""
    n = untouched(k, addr, nbytes)
    if n > 0:
        region = region_of(addr)
        first = addr - BASES[region]
        for page in range(first >> _OS_PAGE_SHIFT, ((first + nbytes - 1) >> _OS_PAGE_SHIFT) + 1):
            touched(k)[NUM_REGIONS * page + region] = 1
        k[0].resident_pages += n
    return n * prices(k)[_FIRST_TOUCH]


@jit
def needs_room(h: Any, k: Any, t: Any) -> Any:
    """Whether a thread that is about to allocate could overflow a table."""
    th = threads(k)[t]
    if th.stage != NEW:
        return False
    if room_is_short(h):
        return True
    size = ops_at(th.ops, th.nops)[th.pos].arg
    for region in range(NUM_REGIONS):
        end = regions(h)[region].end - BASES[region] + size + 2 * h[0].grow_bytes
        if NUM_REGIONS * (end >> _OS_PAGE_SHIFT) + NUM_REGIONS > k[0].touched_len:
            return True
    return False


@jit
def write_block(h: Any, k: Any, obj: Any) -> Any:
    """What the allocator writes to hand out a block: picoseconds of first touches."""
    b = blocks(h)[block_of(h, obj)]
    if h[0].policy == BUMP:
        return np.int64(0)
    if b.list != GENERAL:
        return touch(k, b.addr, np.int64(RUN_BYTES)) if h[0].fact_runs > 0 else np.int64(0)
    cost = touch(k, b.addr, np.int64(HEADER_BYTES))
    if h[0].fact_splits > 0:
        cost += touch(k, b.addr + b.bytes, np.int64(HEADER_BYTES + 2 * LINK_BYTES))
    if h[0].fact_growths > 0:
        nbytes = np.int64(HEADER_BYTES + LINK_BYTES)
        cost += touch(k, regions(h)[GENERAL].end - nbytes, nbytes)
    return cost


@jit
def write_freed(h: Any, k: Any, obj: Any) -> Any:
    """What the allocator writes into a block that is about to be freed: picoseconds of first touches."""
    b = blocks(h)[block_of(h, obj)]
    if h[0].policy == BUMP or b.list != GENERAL:
        return np.int64(0)
    links = touch(k, b.addr, np.int64(HEADER_BYTES + 2 * LINK_BYTES))
    return links + touch(k, b.addr + b.bytes - LINK_BYTES, np.int64(LINK_BYTES))


@jit
def new(h: Any, k: Any, t: Any) -> None:
    """At the lock to allocate; the object's variable comes next."""
    th = threads(k)[t]
    op = ops_at(th.ops, th.nops)[th.pos]
    price = prices(k)
    th.obj = malloc(h, op.arg)
    faults = write_block(h, k, th.obj)
    search = h[0].fact_visited * price[_VISIT]
    lines = h[0].fact_runs * (RUN_BYTES >> 6)
    split = h[0].fact_splits * price[_SPLIT] + min(lines, h[0].fact_carved) * price[_CARVE_LINE]
    grown = h[0].fact_growths * price[_GROW]
    h[0].fact_visited = 0
    h[0].fact_splits = 0
    h[0].fact_growths = 0
    h[0].fact_runs = 0
    h[0].fact_carved = 0
    th.spent[BASE] += price[_MALLOC]
    th.spent[SEARCH] += search
    th.spent[SPLIT] += split
    th.spent[GROWTH] += grown
    th.spent[FIRST_TOUCH] += faults
    hold(k, t, np.int64(0), price[_MALLOC] + search + split + grown + faults, LOCK_WAIT)
    finish_malloc(k, t, th.obj, LOG_MALLOC, op.arg, blocks(h)[block_of(h, th.obj)].bytes)
    if op["flags"] & TOUCH and untouched(k, address(h, th.obj), max(op.arg, np.int64(1))) > 0:
        th.stage = WRITE
    else:
        place(h, k, t)


@jit
def write(h: Any, k: Any, t: Any) -> None:
    """The program writes its new object."""
    th = threads(k)[t]
    op = ops_at(th.ops, th.nops)[th.pos]
    faults = touch(k, address(h, th.obj), max(op.arg, np.int64(1)))
    th.touch_time += faults
    times(k)[t] += faults
    place(h, k, t)


@jit
def place(h: Any, k: Any, t: Any) -> None:
    """A new object's variable: a thread's own at once, the whole program's at its turn."""
    th = threads(k)[t]
    op = ops_at(th.ops, th.nops)[th.pos]
    if op.obj >= 0 and op["flags"] & SHARED:
        th.stage = ASSIGN
        return
    held = np.int64(0)
    if op.obj >= 0:
        held = swap(h, t, op, th.obj)
    release_held(th, held)


@jit
def swap(h: Any, t: Any, op: Any, obj: Any) -> Any:
    """A variable of a thread's own holds another object: what it held."""
    at = t * h[0].nvariables + op.obj
    held = variables(h)[at]
    variables(h)[at] = obj
    return held


@jit
def release_held(th: Any, held: Any) -> None:
    """What a variable held is to be freed, if it held anything; else the operation is at its end."""
    if held != 0:
        th.obj = held
        th.stage = OLD
    else:
        th.stage = OPS
        th.pos += 1


@jit
def assign(h: Any, k: Any, t: Any) -> None:
    """A variable of the whole program's holds another object, or none."""
    th = threads(k)[t]
    op = ops_at(th.ops, th.nops)[th.pos]
    held = shared_variables(h)[op.obj]
    shared_variables(h)[op.obj] = th.obj if op.kind == ALLOC else np.int64(0)
    release_held(th, held)


@jit
def old(h: Any, k: Any, t: Any) -> None:
    """At the lock to free an object; the operation is at its end then."""
    th = threads(k)[t]
    price = prices(k)
    faults = write_freed(h, k, th.obj)
    free(h, th.obj)
    place_search = h[0].fact_passed * price[_VISIT]
    merged = h[0].fact_coalesced * price[_COALESCE]
    h[0].fact_passed = 0
    h[0].fact_coalesced = 0
    th.spent[FREE_BASE] += price[_FREE]
    th.spent[PLACE] += place_search
    th.spent[COALESCE] += merged
    th.spent[FREE_TOUCH] += faults
    hold(k, t, np.int64(0), price[_FREE] + place_search + merged + faults, FREE_LOCK_WAIT)
    finish_free(k, t, th.obj, LOG_FREE)
    th.pos += 1
    th.stage = OPS


@jit
def run_ops(h: Any, k: Any, t: Any, limit: Any) -> None:
    """Run operations from the thread's clock on, until one needs a turn, the limit or the end of slice or batch."""
    th = threads(k)[t]
    ops = ops_at(th.ops, th.nops)
    nops = th.pos if k[0].closing else th.nops
    while th.pos < nops:
        time = times(k)[t]
        if time >= th.slice_end:
            th.stage = SLICE
            return
        if time >= limit:
            return
        op = ops[th.pos]
        if op.kind == ALLOC:
            th.stage = NEW
            return
        if op.kind == DEAD:
            if op.obj >= 0 and op["flags"] & SHARED:
                th.stage = ASSIGN
                return
            held = swap(h, t, op, np.int64(0)) if op.obj >= 0 else np.int64(0)
            release_held(th, held)
            if th.stage != OPS:
                return
        else:
            time, ended = compute(k, th, op, time)
            times(k)[t] = time
            th.pos += np.int64(ended)
    th.stage = DONE


@jit
def turn(h: Any, k: Any, t: Any) -> None:
    """What a thread's stage is, done."""
    stage = threads(k)[t].stage
    if stage == NEW:
        new(h, k, t)
    elif stage == OLD:
        old(h, k, t)
    elif stage == WRITE:
        write(h, k, t)
    else:
        assign(h, k, t)


@entry(types.UniTuple(int64, 2)(textbook_type, clock_type, int64))
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
