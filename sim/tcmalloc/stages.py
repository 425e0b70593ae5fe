"""The stages of TCMalloc's calls: each does one thing that other threads can see, prices it, and says what comes next.

`thread_pump` runs them when their threads' turns come; its docstring says what follows what, and which register holds
what.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import inlined, jit
from sim.ops import ALLOC, SHARED, TOUCH
from sim.tcmalloc.central_freelist import (
    NO_SPACE,
    STORED,
    grow_cache_locked,
    may_give_slot,
    next_donor,
    populate_locked,
    release_list_locked,
    remove_range_locked,
    shrink_cache_locked,
    store_locked,
    thread_objects,
)
from sim.tcmalloc.malloc import do_free_pages, pages_of
from sim.tcmalloc.page_heap import delete_locked, new_class_span_locked, new_large_locked
from sim.tcmalloc.prices import (
    FIRST_TOUCH,
    FREE_LARGE,
    FREE_LOCK_WAIT,
    FREE_PAGES,
    FREE_RELEASE,
    GROWTH,
    LARGE,
    LOCK_WAIT,
    PAGE_HEAP,
    POPULATE,
    PUSH,
    RELEASE,
    SCAVENGE,
    SPANS,
    STEPS,
    TOO_LONG,
    TRANSFER,
)
from sim.tcmalloc.sizeclasses import (
    NUM_CLASSES,
    class_to_pages,
    class_to_size,
    num_objects_to_move,
    objects_per_span,
)
from sim.tcmalloc.span import address, allocated_size, touch
from sim.tcmalloc.state import SLOT_BITS, calls, free_lists, shared_variables, spans, variables
from sim.tcmalloc.state import threads as caches
from sim.tcmalloc.thread_cache import (
    MIN_THREAD_CACHE_SIZE,
    fetched,
    increase_cache_limit_locked,
    num_to_drop,
    num_to_fetch,
    over_budget,
    pop_range,
    push,
    scavenged,
    shortened,
)
from sim.threads.clock import (
    finish_free,
    finish_malloc,
    hold,
    note,
    ops_at,
    spend,
)
from sim.threads.state import (
    FIRST_STAGE,
    LOG_FREE,
    LOG_MALLOC,
    OPS,
    prices,
    threads,
    times,
)

PAGE_HEAP_LOCK = NUM_CLASSES  # locks 0 to NUM_CLASSES - 1 are those of classes
NUM_LOCKS = NUM_CLASSES + 1

# stages
ASSIGN = FIRST_STAGE  # at a variable of the whole program's
FETCH = FIRST_STAGE + 1  # at a class lock, for objects
NEW_SPAN = FIRST_STAGE + 2  # at pageheap_lock, for a span
ENTER = FIRST_STAGE + 3  # at a class lock, with the span's objects
NEW_LARGE = FIRST_STAGE + 4  # at pageheap_lock, for a large object
OLD_LARGE = FIRST_STAGE + 5  # the same, to free one
GIVE = FIRST_STAGE + 6  # at a class lock, with a chain to give back
ASK = FIRST_STAGE + 7  # looks for a class that gives a slot
SHRINK = FIRST_STAGE + 8  # at that class's lock
SHRINK_REST = FIRST_STAGE + 9  # again, with the rest of the slot's chain
GROW = FIRST_STAGE + 10  # at its own class's lock, with a slot
SCATTER = FIRST_STAGE + 11  # at the class lock, with objects for their spans
DELETE = FIRST_STAGE + 12  # at pageheap_lock, with a whole span of its own class
DELETE_DONOR = FIRST_STAGE + 13  # of the other class
BUDGET = FIRST_STAGE + 14  # tests whether its cache is over its budget
LIMIT = FIRST_STAGE + 15  # at pageheap_lock, for more budget

# what giving back is part of
AFTER_TOO_LONG = 0
AFTER_SCAVENGE = 1

POP, PUSH_PRICE, TRANSFER_FETCH, TRANSFER_STORE = 0, 1, 2, 3
STEP = {name: i for i, name in enumerate(STEPS)}
_SPAN_FETCH, _SPAN_NEXT, _CENTRAL_MISS = STEP["span_fetch"], STEP["span_next"], STEP["central_miss"]
_POPULATE_ENTER, _CARVE_LINE, _RELEASE = STEP["populate_enter"], STEP["carve_line"], STEP["release"]
_RELEASE_OBJECT, _SCAVENGE_OBJECT = STEP["release_object"], STEP["scavenge_object"]
_SLOT_ASK, _SLOT_GIVE, _SCAVENGE = STEP["slot_ask"], STEP["slot_give"], STEP["scavenge"]
_BUDGET, _BUDGET_ASK = STEP["budget"], STEP["budget_ask"]
_EXACT_LIST, _SPLIT_LIST = STEP["exact_list"], STEP["split_list"]
_EXACT_SET, _SPLIT_SET, _PAGE_FREE = STEP["exact_set"], STEP["split_set"], STEP["page_free"]
_GROW, _MADVISE, _MADVISE_PAGE = STEP["grow"], STEP["madvise"], STEP["madvise_page"]
_POPULATE_TOUCH, _FIRST_TOUCH = STEP["populate_touch"], STEP["first_touch"]


def _tails() -> Any:
    """By class: whether an object may reach into a 4 KiB page in which none begins, and which cutting did not touch."""
    found = np.zeros(NUM_CLASSES, np.uint8)
    for cl in range(1, NUM_CLASSES):
        size, n = int(class_to_size[cl]), int(objects_per_span[cl])
        found[cl] = len({i * size >> 12 for i in range(n)}) <= (n * size - 1) >> 12
    return found


reaches = _tails()


@jit
def touch_price(h: Any, k: Any, obj: Any, size: Any) -> Any:
    """The program writes ``size`` bytes of its object: picoseconds of first touches."""
    touch(h, address(h, obj), max(size, np.int64(1)))
    faults = h[0].fact_touched
    h[0].fact_touched = 0
    return faults * prices(k)[_FIRST_TOUCH]


@jit
def page_heap_time(h: Any, k: Any, t: Any, cause: Any, release_cause: Any) -> Any:
    """What was done under pageheap_lock: picoseconds, entered by cause; the facts are cleared. (page_heap.py)"""
    c, price = h[0], prices(k)
    th = threads(k)[t]
    pages = c.fact_exact_list * price[_EXACT_LIST] + c.fact_split_list * price[_SPLIT_LIST]
    pages += c.fact_exact_set * price[_EXACT_SET] + c.fact_split_set * price[_SPLIT_SET]
    pages += (c.fact_deleted - c.fact_growths) * price[_PAGE_FREE]  # growth was measured with the free in it
    grown = c.fact_growths * price[_GROW]
    released = c.fact_released_spans * price[_MADVISE] + c.fact_released_resident * price[_MADVISE_PAGE]
    th.spent[cause] += pages
    if grown > 0:
        th.spent[GROWTH] += grown
    th.spent[release_cause] += released
    h[0].fact_exact_list = 0
    h[0].fact_split_list = 0
    h[0].fact_exact_set = 0
    h[0].fact_split_set = 0
    h[0].fact_deleted = 0
    h[0].fact_growths = 0
    h[0].fact_released_spans = 0
    h[0].fact_released_resident = 0
    return pages + grown + released


@jit
def spans_time(h: Any, k: Any, first: Any) -> Any:
    """Picoseconds of taking objects from spans, ``first`` from the first of them; the fact is cleared."""
    visited = h[0].fact_spans_visited
    h[0].fact_spans_visited = 0
    return first + (visited - 1) * prices(k)[_SPAN_NEXT]


@jit
def take_object(h: Any, k: Any, t: Any, cl: Any, head: Any, count: Any) -> None:
    """A fetch came back with a chain: its first object is the malloc's."""
    threads(k)[t].obj = fetched(h, t, cl, head, count)
    place(h, k, t)


@jit
def fetch(h: Any, k: Any, t: Any) -> None:
    """At the class lock for objects. (CentralFreeList::RemoveRange)"""
    th = threads(k)[t]
    call = calls(h)[t]
    cl = call.cl
    head, count = remove_range_locked(h, cl, num_to_fetch(h, t, cl))
    if count == 0:
        cost, cause = prices(k)[_CENTRAL_MISS], POPULATE
        th.stage = NEW_SPAN
    elif h[0].fact_transfer_hits > 0:
        h[0].fact_transfer_hits = 0
        cost, cause = prices(k)[TRANSFER_FETCH], TRANSFER
    else:
        cost, cause = spans_time(h, k, prices(k)[_SPAN_FETCH]), SPANS
    th.spent[cause] += cost
    hold(k, t, cl, cost, LOCK_WAIT)
    if count > 0:
        take_object(h, k, t, cl, head, count)


@jit
def new_span(h: Any, k: Any, t: Any) -> None:
    """At pageheap_lock for a span of a class; then it is cut, with no lock. (CentralFreeList::Populate)"""
    th = threads(k)[t]
    call = calls(h)[t]
    s = new_class_span_locked(h, call.cl)
    hold(k, t, np.int64(PAGE_HEAP_LOCK), page_heap_time(h, k, t, PAGE_HEAP, RELEASE), LOCK_WAIT)
    thread_objects(h, s)
    faults = h[0].fact_touched
    h[0].fact_touched = 0
    lines = min(objects_per_span[call.cl], class_to_pages[call.cl] << 7)
    spend(k, t, POPULATE, lines * prices(k)[_CARVE_LINE])
    spend(k, t, FIRST_TOUCH, faults * prices(k)[_POPULATE_TOUCH])
    call.span = s
    th.stage = ENTER


@jit
def enter_span(h: Any, k: Any, t: Any) -> None:
    """At the class lock with a span just cut. (CentralFreeList::Populate, RemoveRange)"""
    th = threads(k)[t]
    call = calls(h)[t]
    cl = call.cl
    head, count = populate_locked(h, cl, call.span, num_to_fetch(h, t, cl))
    cost = spans_time(h, k, prices(k)[_POPULATE_ENTER])
    th.spent[POPULATE] += cost
    hold(k, t, cl, cost, LOCK_WAIT)
    take_object(h, k, t, cl, head, count)


@jit
def new_large(h: Any, k: Any, t: Any, size: Any) -> None:
    """At pageheap_lock for a large object. (do_malloc_pages)"""
    th = threads(k)[t]
    th.obj = new_large_locked(h, pages_of(size)) << SLOT_BITS
    hold(k, t, np.int64(PAGE_HEAP_LOCK), page_heap_time(h, k, t, LARGE, RELEASE), LOCK_WAIT)
    place(h, k, t)


@jit
def old_large(h: Any, k: Any, t: Any) -> None:
    """At pageheap_lock to free a large object. (do_free_pages)"""
    do_free_pages(h, threads(k)[t].obj)
    hold(k, t, np.int64(PAGE_HEAP_LOCK), page_heap_time(h, k, t, FREE_LARGE, FREE_RELEASE), FREE_LOCK_WAIT)
    end_free(k, t)


@jit
def end_free(k: Any, t: Any) -> None:
    """The free, and with it the operation, is at its end."""
    th = threads(k)[t]
    finish_free(k, t, th.obj, LOG_FREE)
    th.pos += 1
    th.stage = OPS


@jit
def giving_cause(call: Any) -> Any:
    """What the time of giving back is entered as."""
    return SCAVENGE if call.after == AFTER_SCAVENGE else TOO_LONG


@jit
def scatter(h: Any, k: Any, t: Any, cl: Any, head: Any, cost: Any, stage: Any) -> Any:
    """In a hold of a class lock: a chain's objects back to their spans, until one is whole; whether all are back.

    ``cost``: of what else the hold did. ``stage``: that of a thread with a whole span.
    """
    th = threads(k)[t]
    call = calls(h)[t]
    price = _SCAVENGE_OBJECT if call.after == AFTER_SCAVENGE else _RELEASE_OBJECT
    s = np.int64(0)
    if head != 0:
        head, s = release_list_locked(h, cl, head)
        cost += prices(k)[_RELEASE] + h[0].fact_released_objects * prices(k)[price]
        h[0].fact_released_objects = 0
    th.spent[giving_cause(call)] += cost
    hold(k, t, cl, cost, FREE_LOCK_WAIT)
    if s == 0:
        return True
    call.span = s
    if stage == DELETE:
        call.chain = head
    else:
        call.rest = head
    th.stage = stage
    return False


@jit
def next_chain(h: Any, k: Any, t: Any) -> None:
    """A chain is given back: the list's next one, or what comes after all of them."""
    th = threads(k)[t]
    call = calls(h)[t]
    if call.left > 0:
        th.stage = GIVE
    elif call.after == AFTER_TOO_LONG:
        shortened(h, t, call.cl)
        th.stage = BUDGET
    else:
        walk(h, k, t)


@jit
def walk(h: Any, k: Any, t: Any) -> None:
    """A scavenge goes on behind the list ``cl`` to the next that gives objects back, or to the budget. (Scavenge)"""
    th = threads(k)[t]
    call = calls(h)[t]
    if call.cl > 0:
        scavenged(h, t, call.cl, call.drop)
    for cl in range(call.cl + 1, NUM_CLASSES):
        drop = num_to_drop(h, t, cl)
        if drop > 0:
            call.cl = cl
            call.left = drop
            call.drop = drop
            th.stage = GIVE
            return
        scavenged(h, t, cl, drop)
    th.stage = LIMIT


@jit
def give(h: Any, k: Any, t: Any) -> None:
    """At the class lock with the next chain of a list. (ReleaseToCentralCache, InsertRange)"""
    th = threads(k)[t]
    call = calls(h)[t]
    cl = call.cl
    n = min(call.left, num_objects_to_move[cl])
    call.left -= n
    call.chain = pop_range(h, t, cl, n)
    stored = store_locked(h, cl, call.chain, n)
    if stored == NO_SPACE:
        if scatter(h, k, t, cl, call.chain, np.int64(0), np.int64(DELETE)):
            next_chain(h, k, t)
        return
    cost = prices(k)[TRANSFER_STORE if stored == STORED else _CENTRAL_MISS]
    th.spent[giving_cause(call)] += cost
    hold(k, t, cl, cost, FREE_LOCK_WAIT)
    if stored == STORED:
        next_chain(h, k, t)
    else:
        call.force = 0
        th.stage = ASK


@jit
def ask(h: Any, k: Any, t: Any) -> None:
    """Look at the class whose turn it is to give a slot. (EvictRandomSizeClass, ShrinkCache's quick check)"""
    th = threads(k)[t]
    call = calls(h)[t]
    donor = next_donor(h)
    asked = donor != call.cl and may_give_slot(h, donor, call.force != 0)
    spend(k, t, giving_cause(call), prices(k)[_SLOT_ASK])
    if asked:
        call.donor = donor
        th.stage = SHRINK
    else:
        ask_again(th, call)


@jit
def ask_again(th: Any, call: Any) -> None:
    """A class gave no slot: ask the next one for any slot, or give up."""
    if call.force:
        th.stage = SCATTER
    else:
        call.force = 1
        th.stage = ASK


@jit
def shrink(h: Any, k: Any, t: Any) -> None:
    """At the lock of the class that is asked for a slot. (ShrinkCache)"""
    th = threads(k)[t]
    call = calls(h)[t]
    gave, chain = shrink_cache_locked(h, call.donor, call.force != 0)
    if not scatter(h, k, t, call.donor, chain, prices(k)[_SLOT_GIVE], np.int64(DELETE_DONOR)):
        return
    if gave:
        th.stage = GROW
    else:
        ask_again(th, call)


@jit
def grow(h: Any, k: Any, t: Any) -> None:
    """At the class lock again, with a slot for the chain. (MakeCacheSpace)"""
    th = threads(k)[t]
    call = calls(h)[t]
    if grow_cache_locked(h, call.cl, call.chain):
        th.spent[giving_cause(call)] += prices(k)[TRANSFER_STORE]
        hold(k, t, call.cl, prices(k)[TRANSFER_STORE], FREE_LOCK_WAIT)
        next_chain(h, k, t)
    elif scatter(h, k, t, call.cl, call.chain, np.int64(0), np.int64(DELETE)):
        next_chain(h, k, t)


@jit
def delete(h: Any, k: Any, t: Any) -> None:
    """At pageheap_lock with a span whose objects are all back. (ReleaseToSpans)"""
    th = threads(k)[t]
    call = calls(h)[t]
    delete_locked(h, call.span)
    hold(k, t, np.int64(PAGE_HEAP_LOCK), page_heap_time(h, k, t, FREE_PAGES, FREE_RELEASE), FREE_LOCK_WAIT)
    if th.stage == DELETE_DONOR:
        th.stage = SHRINK_REST if call.rest != 0 else GROW
    elif call.chain != 0:
        th.stage = SCATTER
    else:
        next_chain(h, k, t)


@jit
def test_budget(h: Any, k: Any, t: Any) -> None:
    """After a push: scavenge if the cache is over its budget, else the free is at its end. (Deallocate)"""
    call = calls(h)[t]
    if not over_budget(h, t):
        end_free(k, t)
        return
    h[0].fact_scavenges += 1
    spend(k, t, SCAVENGE, prices(k)[_SCAVENGE])
    call.after = AFTER_SCAVENGE
    call.cl = 0
    walk(h, k, t)


@jit
def raise_budget(h: Any, k: Any, t: Any) -> None:
    """At pageheap_lock for more budget; the scavenge is at its end. (IncreaseCacheLimit)"""
    increase_cache_limit_locked(h, t)
    cost = prices(k)[_BUDGET] + h[0].fact_caches_asked * prices(k)[_BUDGET_ASK]
    h[0].fact_caches_asked = 0
    threads(k)[t].spent[SCAVENGE] += cost
    hold(k, t, np.int64(PAGE_HEAP_LOCK), cost, FREE_LOCK_WAIT)
    end_free(k, t)


@jit
def free_slowly(h: Any, k: Any, t: Any, obj: Any, cl: Any, too_long: Any) -> None:
    """A free that is more than a push, which is done: the stage it is at next."""
    th = threads(k)[t]
    call = calls(h)[t]
    th.obj = obj
    if cl == 0:
        th.stage = OLD_LARGE
    elif too_long:
        call.cl = cl
        call.left = min(num_objects_to_move[cl], np.int64(free_lists(h)[t * NUM_CLASSES + cl].length))
        call.after = AFTER_TOO_LONG
        th.stage = GIVE
    else:
        th.spent[PUSH] += prices(k)[PUSH_PRICE]
        times(k)[t] += prices(k)[PUSH_PRICE]
        th.stage = BUDGET


@inlined
def free_quickly(h: Any, k: Any, t: Any, obj: Any) -> Any:
    """Free an object if that is a push and no more; else False, and what is left to do is the thread's stage."""
    cl = np.int64(spans(h)[obj >> SLOT_BITS].sizeclass)
    too_long = False
    if cl != 0:
        too_long = push(h, t, cl, obj)
        cache = caches(h)[t]
        if not too_long and cache.cached <= min(cache.max_size, np.int64(MIN_THREAD_CACHE_SIZE)):
            return True
    free_slowly(h, k, t, obj, cl, too_long)
    return False


@jit
def place(h: Any, k: Any, t: Any) -> None:
    """A malloc that took more than a pop is complete; its variable comes next. Nobody else sees this."""
    th = threads(k)[t]
    op = ops_at(th.ops, th.nops)[th.pos]
    finish_malloc(k, t, th.obj, LOG_MALLOC, op.arg, allocated_size(h, th.obj))
    if op["flags"] & TOUCH:
        faults = touch_price(h, k, th.obj, op.arg)
        th.touch_time += faults
        times(k)[t] += faults
    if op["flags"] & SHARED and op.obj >= 0:
        th.stage = ASSIGN
        return
    th.stage = OPS
    held = np.int64(0)
    if op.obj >= 0:
        at = caches(h)[t].variables + op.obj
        held = variables(h)[at]
        variables(h)[at] = th.obj
    release_held(h, k, t, held)


@jit
def assign(h: Any, k: Any, t: Any) -> None:
    """A variable of the whole program's holds another object, or none; what it held is freed."""
    th = threads(k)[t]
    op = ops_at(th.ops, th.nops)[th.pos]
    held = shared_variables(h)[op.obj]
    shared_variables(h)[op.obj] = th.obj if op.kind == ALLOC else np.int64(0)
    th.stage = OPS
    release_held(h, k, t, held)


@jit
def release_held(h: Any, k: Any, t: Any, held: Any) -> None:
    """What a variable held is freed, if it held anything; the operation ends unless that takes a turn."""
    th = threads(k)[t]
    if held != 0:
        if not free_quickly(h, k, t, held):
            return
        price = prices(k)[PUSH_PRICE]
        times(k)[t] += price
        th.free_time += price
        th.frees += 1
        k[0].pushes += 1
        note(k, t, times(k)[t], LOG_FREE, held, price)
    th.pos += 1
