"""The central free list of a size class, its transfer cache included (central_freelist.cc).

Free objects are in lists of their spans; spans with a free object are in the list nonempty, drained ones in empty. A
fetch takes from the first nonempty span, then from the next, and may come back with fewer than it was asked for: a new
span is made only when the first look found none. An object that comes back goes to the head of its span's list; when it
was the last one outside, the span goes back to the page heap at once.

The *transfer cache* is a stack of slots, a chain of just one batch in each, so that a batch moves from thread to thread
as a whole. A class starts with up to 16 slots and may have up to 64 (1 MiB of objects, or one slot). It gets another one
only from another class: the next two of a turn through all classes are asked, the first for a slot it does not use, the
second for any, whose chain then goes to its spans. Class 0 has 16 slots and no objects, and is the first to be asked.

One lock a class covers all of it. What one hold of it does is a function whose name ends in ``_locked``; spans are made
and freed, and other classes asked, with the lock free. ``remove_range`` and ``insert_range`` do it all at once, for where
there is no clock. Chains end with 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import jit
from sim.tcmalloc.page_heap import delete_locked, new_class_span_locked
from sim.tcmalloc.sizeclasses import NUM_CLASSES, PAGE_SHIFT, class_to_size, num_objects_to_move, objects_per_span
from sim.tcmalloc.span import dll_prepend, dll_remove, give_links, link_of, take_links, touch
from sim.tcmalloc.state import EMPTY, NONEMPTY, SLOT_BITS, central, links, spans
from sim.units import Throw

# what became of a batch
STORED = 0
NO_SPACE = 1  # its class may have no more slots, or it is no whole batch
WANTS_SLOT = 2  # another class may give one


@jit
def fetch_from_one_span(h: Any, cl: Any, n: Any) -> Any:
    """Up to n objects of the first nonempty span: (first, last, how many), how many 0 if there is none.

    (FetchFromOneSpans)
    """
    table = spans(h)
    s = np.int64(table[NONEMPTY + cl].next)
    if s == NONEMPTY + cl:
        return np.int64(0), np.int64(0), np.int64(0)
    sp = table[s]
    first = np.int64(sp.objects)
    last = first
    count = np.int64(1)
    rest = np.int64(links(h)[link_of(h, last)])
    while count < n and rest != 0:
        last = rest
        rest = np.int64(links(h)[link_of(h, last)])
        count += 1
    if rest == 0:
        dll_remove(h, s)
        dll_prepend(h, EMPTY + cl, s)
    sp.objects = rest
    links(h)[link_of(h, last)] = 0
    sp.refcount += count
    central(h)[cl].counter -= count
    h[0].fact_spans_visited += 1
    h[0].fact_fetched += count
    return first, last, count


@jit
def fetch_from_spans(h: Any, cl: Any, n: Any) -> Any:
    """Up to n objects of nonempty spans: (chain, how many); those of later spans come first. (RemoveRange)"""
    head, _, count = fetch_from_one_span(h, cl, n)
    while 0 < count < n:
        first, last, more = fetch_from_one_span(h, cl, n - count)
        if more == 0:
            break
        links(h)[link_of(h, last)] = head
        head = first
        count += more
    return head, count


@jit
def remove_range_locked(h: Any, cl: Any, n: Any) -> Any:
    """n >= 1 objects, or fewer: (chain, how many); 0 of them when a span has to be made. (RemoveRange)"""
    c = central(h)[cl]
    if n == num_objects_to_move[cl] and c.used_slots > 0:
        c.used_slots -= 1
        h[0].fact_transfer_hits += 1
        return np.int64(c.slots[c.used_slots]), np.int64(n)
    return fetch_from_spans(h, cl, n)


@jit
def thread_objects(h: Any, s: Any) -> None:
    """Cut a span into objects, linked in order of address: each is written to. No lock is held. (Populate)"""
    sp = spans(h)[s]
    cl = np.int64(sp.sizeclass)
    n = objects_per_span[cl]
    first = take_links(h, cl)
    sp.links = first
    sp.objects = s << SLOT_BITS
    sp.refcount = 0
    table = links(h)
    start = sp.start << PAGE_SHIFT
    for slot in range(n):
        table[first + slot] = (s << SLOT_BITS) + slot + 1
        touch(h, start + slot * class_to_size[cl], np.int64(8))
    table[first + n - 1] = 0
    h[0].fact_populated += 1
    h[0].fact_carved += n


@jit
def populate_locked(h: Any, cl: Any, s: Any, n: Any) -> Any:
    """Enter a span just cut, and take up to n objects: (chain, how many). (Populate's end, RemoveRange)"""
    c = central(h)[cl]
    dll_prepend(h, NONEMPTY + cl, s)
    c.num_spans += 1
    c.counter += objects_per_span[cl]
    return fetch_from_spans(h, cl, n)


@jit
def remove_range(h: Any, cl: Any, n: Any) -> Any:
    """n >= 1 objects of a class, or fewer, at once: (chain, how many). (RemoveRange)"""
    head, count = remove_range_locked(h, cl, n)
    if count == 0:
        s = new_class_span_locked(h, cl)
        thread_objects(h, s)
        head, count = populate_locked(h, cl, s, n)
    return head, count


@jit
def release_to_span(h: Any, cl: Any, obj: Any) -> Any:
    """One object back to its span; the span if none of it is outside any more, unlinked, else 0. (ReleaseToSpans)"""
    s = obj >> SLOT_BITS
    sp = spans(h)[s]
    if sp.sizeclass != cl or sp.refcount <= 0:
        raise Throw("an object of class " + str(cl) + " is released to span " + str(s) + ", which has none outside")
    if sp.objects == 0:
        dll_remove(h, s)
        dll_prepend(h, NONEMPTY + cl, s)
    c = central(h)[cl]
    c.counter += 1
    sp.refcount -= 1
    h[0].fact_released_objects += 1
    if sp.refcount > 0:
        links(h)[link_of(h, obj)] = sp.objects
        sp.objects = obj
        return np.int64(0)
    c.counter -= objects_per_span[cl]
    c.num_spans -= 1
    dll_remove(h, s)
    give_links(h, cl, np.int64(sp.links))
    h[0].fact_empty_spans += 1
    return s


@jit
def release_list_locked(h: Any, cl: Any, head: Any) -> Any:
    """Objects of a chain back to their spans, until one is whole: (rest of the chain, that span or 0).

    The caller frees the span with this lock free, then goes on with the rest. (ReleaseListToSpans)
    """
    while head != 0:
        following = np.int64(links(h)[link_of(h, head)])
        s = release_to_span(h, cl, head)
        head = following
        if s != 0:
            return head, s
    return head, np.int64(0)


@jit
def release_list(h: Any, cl: Any, head: Any) -> None:
    """All objects of a chain back to their spans, at once. (ReleaseListToSpans)"""
    while head != 0:
        head, s = release_list_locked(h, cl, head)
        if s != 0:
            delete_locked(h, s)


@jit
def store_locked(h: Any, cl: Any, head: Any, n: Any) -> Any:
    """Put a chain of n into a free slot: STORED, NO_SPACE or WANTS_SLOT. (InsertRange, MakeCacheSpace)"""
    c = central(h)[cl]
    if n != num_objects_to_move[cl]:
        return NO_SPACE
    if c.used_slots < c.cache_size:
        c.slots[c.used_slots] = head
        c.used_slots += 1
        h[0].fact_stored += 1
        return STORED
    return NO_SPACE if c.cache_size == c.max_cache_size else WANTS_SLOT


@jit
def next_donor(h: Any) -> Any:
    """The class whose turn it is to be asked for a slot. (EvictRandomSizeClass; its counter has no lock)

    At the end of a round the counter is set to what it read, so that class 0 comes twice in a row from then on.
    """
    t = h[0].race_counter
    h[0].race_counter += 1
    if t >= NUM_CLASSES:
        t -= NUM_CLASSES
        h[0].race_counter = t
    return t


@jit
def may_give_slot(h: Any, cl: Any, force: Any) -> Any:
    """Whether it is worth taking the lock of a class to ask it for a slot. (ShrinkCache's quick check)"""
    c = central(h)[cl]
    h[0].fact_slots_asked += 1
    return c.cache_size > 0 and (force or c.used_slots != c.cache_size)


@jit
def shrink_cache_locked(h: Any, cl: Any, force: Any) -> Any:
    """Take a slot from a class: (whether it gave one, the chain that was in it or 0). (ShrinkCache)

    The chain is released next, under the same lock: see release_list_locked.
    """
    c = central(h)[cl]
    full = c.used_slots == c.cache_size
    if c.cache_size == 0 or (full and not force):
        return False, np.int64(0)
    c.cache_size -= 1
    h[0].fact_slots_stolen += 1
    if not full:
        return True, np.int64(0)
    c.used_slots -= 1
    return True, np.int64(c.slots[c.used_slots])


@jit
def grow_cache_locked(h: Any, cl: Any, head: Any) -> Any:
    """Put a batch into the slot another class gave; False if this one may have no more by now. (MakeCacheSpace)"""
    c = central(h)[cl]
    if c.cache_size >= c.max_cache_size:
        return False
    c.cache_size += 1
    c.slots[c.used_slots] = head
    c.used_slots += 1
    h[0].fact_stored += 1
    return True


@jit
def evict_random_size_class(h: Any, cl: Any, force: Any) -> Any:
    """Ask the next class for a slot for cl, at once; whether it gave one. (EvictRandomSizeClass)"""
    donor = next_donor(h)
    if donor == cl or not may_give_slot(h, donor, force):
        return False
    gave, chain = shrink_cache_locked(h, donor, force)
    release_list(h, donor, chain)
    return gave


@jit
def get_slot(h: Any, cl: Any) -> Any:
    """Ask two classes for a slot for cl, at once: one it does not use, then any; whether there is one. (MakeCacheSpace)"""
    return evict_random_size_class(h, cl, False) or evict_random_size_class(h, cl, True)


@jit
def insert_range(h: Any, cl: Any, head: Any, n: Any) -> None:
    """Take a chain of n objects of a class back, at once. (InsertRange)"""
    stored = store_locked(h, cl, head, n)
    if stored == STORED:
        return
    if stored == WANTS_SLOT and get_slot(h, cl) and grow_cache_locked(h, cl, head):
        return
    release_list(h, cl, head)
