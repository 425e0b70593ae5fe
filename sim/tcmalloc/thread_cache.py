"""A thread's cache: a free list for each class, LIFO, which nobody else touches (thread_cache.h, thread_cache.cc).

*Slow start*: a list fetches as many objects as it may hold (max_length, one at first), a batch at most, and may hold one
more after each fetch, from one batch on a whole batch more, up to 8192. A list that grows longer gives a batch back; in
slow start it may hold one more then, too; beyond a batch every fourth time costs it a batch of max_length.

*Scavenging*: when a free takes the cache over its budget (max_size), every list gives back half of the objects that it
did not need since the last scavenge (its low-water mark), and the budget grows by 64 KiB: out of what caches may have
together (32 MiB), or, when all of that is claimed, by stealing from one of the next ten caches, round robin, that has
more than 512 KiB. Nothing limits what one thread may claim. A cache made when nothing is left gets 512 KiB all the same,
unless it can steal 64 KiB.

Functions that end in ``_locked`` are holds of pageheap_lock. Those that take from or give to a central list do it at once,
with no clock; a shell does the same by the smaller functions they call.

Left out: sampling; the caches' own bytes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import inlined, jit
from sim.tcmalloc.central_freelist import insert_range, remove_range
from sim.tcmalloc.sizeclasses import NUM_CLASSES, class_to_size, num_objects_to_move
from sim.tcmalloc.span import link_of
from sim.tcmalloc.state import CACHED, LIVE, NO_CACHE, NO_THREAD, free_lists, links, threads
from sim.units import Throw

STEAL_AMOUNT = 64 << 10  # bytes
MIN_THREAD_CACHE_SIZE = 512 << 10  # a cache with no more is not stolen from
MAX_DYNAMIC_LENGTH = 8192  # kMaxDynamicFreeListLength
MAX_OVERAGES = 3
MAX_CACHES_ASKED = 10


@inlined
def pop(h: Any, t: Any, cl: Any) -> Any:
    """The object freed last of a class, the program's now; 0 if the list is empty. (ThreadCache::Allocate)"""
    f = free_lists(h)[t * NUM_CLASSES + cl]
    obj = np.int64(f.head)
    if obj != 0:
        at = link_of(h, obj)
        f.head = links(h)[at]
        links(h)[at] = LIVE
        f.length -= 1
        f.low_water = min(f.low_water, f.length)
        threads(h)[t].cached -= class_to_size[cl]
    return obj


@jit
def not_live(h: Any, obj: Any) -> None:
    """A free of what the program does not have."""
    raise Throw("object " + str(obj) + " is freed, but the program does not have it")


@inlined
def push(h: Any, t: Any, cl: Any, obj: Any) -> Any:
    """The program frees an object of a class; whether the list is too long now. (ThreadCache::Deallocate)

    The object counts in the cache's bytes, so the next test is `over_budget`, after the list has been shortened.
    """
    at = link_of(h, obj)
    if links(h)[at] != LIVE:
        not_live(h, obj)
    f = free_lists(h)[t * NUM_CLASSES + cl]
    links(h)[at] = f.head
    f.head = obj
    f.length += 1
    threads(h)[t].cached += class_to_size[cl]
    return f.length > f.max_length


@inlined
def over_budget(h: Any, t: Any) -> Any:
    """Whether a cache has to scavenge."""
    return threads(h)[t].cached > threads(h)[t].max_size


@jit
def num_to_fetch(h: Any, t: Any, cl: Any) -> Any:
    """Objects that a fetch asks for. (FetchFromCentralCache)"""
    return min(np.int64(free_lists(h)[t * NUM_CLASSES + cl].max_length), num_objects_to_move[cl])


@jit
def fetched(h: Any, t: Any, cl: Any, head: Any, count: Any) -> Any:
    """The first object of a chain of count >= 1 is the program's, the others an empty list. (FetchFromCentralCache)"""
    f = free_lists(h)[t * NUM_CLASSES + cl]
    at = link_of(h, head)
    f.head = links(h)[at]
    links(h)[at] = LIVE
    f.length += count - 1
    threads(h)[t].cached += class_to_size[cl] * (count - 1)
    batch = num_objects_to_move[cl]
    if f.max_length < batch:
        f.max_length += 1
    else:
        length = min(np.int64(f.max_length) + batch, np.int64(MAX_DYNAMIC_LENGTH))
        f.max_length = length - length % batch
    return head


@jit
def fetch_from_central_cache(h: Any, t: Any, cl: Any) -> Any:
    """An object for the program, and more for its empty list, at once. (FetchFromCentralCache)"""
    head, count = remove_range(h, cl, num_to_fetch(h, t, cl))
    return fetched(h, t, cl, head, count)


@jit
def pop_range(h: Any, t: Any, cl: Any, n: Any) -> Any:
    """Take the first n objects of a list, 1 <= n <= its length, as a chain; they no longer count in the cache's bytes.

    (PopRange)
    """
    f = free_lists(h)[t * NUM_CLASSES + cl]
    head = np.int64(f.head)
    at = link_of(h, head)
    for _ in range(n - 1):
        at = link_of(h, np.int64(links(h)[at]))
    f.head = links(h)[at]
    links(h)[at] = 0
    f.length -= n
    f.low_water = min(f.low_water, f.length)
    threads(h)[t].cached -= class_to_size[cl] * n
    return head


@jit
def release_to_central_cache(h: Any, t: Any, cl: Any, n: Any) -> None:
    """Give up to n >= 1 objects of a list to the central one, in whole batches and a rest. (ReleaseToCentralCache)"""
    n = min(np.int64(n), np.int64(free_lists(h)[t * NUM_CLASSES + cl].length))
    while n > 0:
        chain = min(n, num_objects_to_move[cl])
        insert_range(h, cl, pop_range(h, t, cl, chain), chain)
        n -= chain


@jit
def shortened(h: Any, t: Any, cl: Any) -> None:
    """What a list that was too long may hold, after it gave a batch back. (ListTooLong)"""
    h[0].fact_too_long += 1
    f = free_lists(h)[t * NUM_CLASSES + cl]
    batch = num_objects_to_move[cl]
    if f.max_length < batch:
        f.max_length += 1
    elif f.max_length > batch:
        f.overages += 1
        if f.overages > MAX_OVERAGES:
            f.max_length -= batch
            f.overages = 0


@jit
def list_too_long(h: Any, t: Any, cl: Any) -> None:
    """Shorten a list that is longer than it may be, at once. (ListTooLong)"""
    release_to_central_cache(h, t, cl, num_objects_to_move[cl])
    shortened(h, t, cl)


@jit
def num_to_drop(h: Any, t: Any, cl: Any) -> Any:
    """Objects of a list that a scavenge gives back, 0 if all were needed since the last one. (Scavenge)"""
    low_water = np.int64(free_lists(h)[t * NUM_CLASSES + cl].low_water)
    return max(low_water >> 1, np.int64(1)) if low_water > 0 else np.int64(0)


@jit
def scavenged(h: Any, t: Any, cl: Any, dropped: Any) -> None:
    """What a list may hold after a scavenge; its low-water mark starts anew. (Scavenge)"""
    f = free_lists(h)[t * NUM_CLASSES + cl]
    batch = num_objects_to_move[cl]
    if dropped > 0:
        h[0].fact_scavenged_lists += 1
        if f.max_length > batch:
            f.max_length = max(f.max_length - batch, batch)
    f.low_water = f.length


@jit
def increase_cache_limit_locked(h: Any, t: Any) -> None:
    """64 KiB more of budget for a cache, if there are any or another cache can spare them. (IncreaseCacheLimitLocked)"""
    table = threads(h)
    if h[0].unclaimed_cache_space > 0:
        h[0].unclaimed_cache_space -= STEAL_AMOUNT
        table[t].max_size += STEAL_AMOUNT
        return
    for _ in range(MAX_CACHES_ASKED):
        if h[0].next_memory_steal == NO_THREAD:
            h[0].next_memory_steal = h[0].thread_heaps
        victim = h[0].next_memory_steal
        h[0].next_memory_steal = table[victim].next
        h[0].fact_caches_asked += 1
        if victim != t and table[victim].max_size > MIN_THREAD_CACHE_SIZE:
            table[victim].max_size -= STEAL_AMOUNT
            table[t].max_size += STEAL_AMOUNT
            h[0].fact_budget_stolen += 1
            return


@jit
def scavenge(h: Any, t: Any) -> None:
    """Give back what a cache over its budget did not need, at once, and raise the budget. (Scavenge)"""
    h[0].fact_scavenges += 1
    for cl in range(1, NUM_CLASSES):
        drop = num_to_drop(h, t, cl)
        if drop > 0:
            release_to_central_cache(h, t, cl, drop)
        scavenged(h, t, cl, drop)
    increase_cache_limit_locked(h, t)


@jit
def new_cache_locked(h: Any, t: Any) -> None:
    """Make a thread's cache: it stands first in the list of caches. (ThreadCache::NewHeap, Init)"""
    th = threads(h)[t]
    if th.state != NO_CACHE:
        raise Throw("thread " + str(t) + " already has a cache")
    th.cached = 0
    th.max_size = 0
    increase_cache_limit_locked(h, t)
    if th.max_size == 0:
        th.max_size = MIN_THREAD_CACHE_SIZE
        h[0].unclaimed_cache_space -= MIN_THREAD_CACHE_SIZE
    for cl in range(NUM_CLASSES):
        f = free_lists(h)[t * NUM_CLASSES + cl]
        f.head = 0
        f.length = 0
        f.low_water = 0
        f.max_length = 1
        f.overages = 0
    th.state = CACHED
    th.prev = NO_THREAD
    th.next = h[0].thread_heaps
    if th.next != NO_THREAD:
        threads(h)[th.next].prev = t
    else:
        h[0].next_memory_steal = t
    h[0].thread_heaps = t
    h[0].thread_heap_count += 1


@jit
def cleanup(h: Any, t: Any) -> None:
    """Give all objects of a cache to the central lists, at once. (ThreadCache::Cleanup)"""
    for cl in range(1, NUM_CLASSES):
        release_to_central_cache(h, t, cl, np.int64(free_lists(h)[t * NUM_CLASSES + cl].length))


@jit
def delete_cache_locked(h: Any, t: Any) -> None:
    """An empty cache goes with its thread, and its budget to whoever comes next. (ThreadCache::DeleteCache)"""
    th = threads(h)[t]
    if th.state != CACHED or th.cached != 0:
        raise Throw("thread " + str(t) + " has no cache, or one with objects in it")
    if th.next != NO_THREAD:
        threads(h)[th.next].prev = th.prev
    if th.prev != NO_THREAD:
        threads(h)[th.prev].next = th.next
    if h[0].thread_heaps == t:
        h[0].thread_heaps = th.next
    if h[0].next_memory_steal == t:
        h[0].next_memory_steal = th.next
    if h[0].next_memory_steal == NO_THREAD:
        h[0].next_memory_steal = h[0].thread_heaps
    h[0].unclaimed_cache_space += th.max_size
    h[0].thread_heap_count -= 1
    th.state = NO_CACHE
