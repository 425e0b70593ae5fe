"""The page heap: spans from pages, pages from the system (page_heap.cc).

Free spans of up to 128 pages stand in a list by length, longer ones in a set; normal and returned spans apart. A request
takes the first span of the first list that has one, normal before returned at the same length, else the best fit of both
sets; what is left over goes back to where it came from, unmerged. A span that is freed merges with its neighbours, but
only of its own kind. Where nothing fits the heap grows by the pages asked for, 1 MiB at least, and those pages are freed
into it.

*Release clock*: each page freed turns it. When it runs out, one whole normal span goes back to the system, round robin
over the lists, and 1000 pages must be freed for each page released before the next does. The first period is 2 GiB.
*Forced coalescing*: when free pages are a quarter of the heap, there are some of both kinds, and growing would cross a
multiple of 128 MiB, all normal spans are released first, so that all merge.

What is done under pageheap_lock is in functions whose name ends in ``_locked``; a shell takes that lock around them and
prices the facts they add to the header.

Bytes: free_bytes + committed in use + unmapped_bytes are all the heap; committed_bytes is all but unmapped_bytes.

Left out: TCMALLOC_AGGRESSIVE_DECOMMIT, TCMALLOC_HEAP_LIMIT_MB, memalign's split, sampled spans; metadata (it comes in
chunks of its own, 8 MiB from the same sbrk, the second of which would part the heap's run at some GiB) and growth by
mmap when sbrk fails.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import jit
from sim.tcmalloc.large_set import best_fit, erase_large, insert_large
from sim.tcmalloc.sizeclasses import PAGE_SHIFT, class_to_pages
from sim.tcmalloc.span import (
    delete_span,
    descriptor,
    dll_prepend,
    dll_remove,
    new_span,
    record_span,
    untouch,
)
from sim.tcmalloc.state import (
    IN_USE,
    MAX_PAGES,
    NORMAL,
    ON_NORMAL,
    ON_RETURNED,
    RETURNED,
    large_normal,
    spans,
)
from sim.units import Throw

MIN_SYSTEM_ALLOC = MAX_PAGES  # pages the heap grows by at least
DEFAULT_RELEASE_DELAY = 1 << 18  # pages freed until the next attempt, when nothing could be released
MAX_RELEASE_DELAY = 1 << 20
FORCED_COALESCE_INTERVAL = 128 << 20
ALL_PAGES = 0x7FFFFFFF
MAX_HEAP_PAGES = 1 << 27  # 1 TiB: a limit of this model, of its page map


@jit
def prepend_to_free_list(h: Any, s: Any) -> None:
    """A free span enters its list or set. (PrependToFreeList)"""
    sp = spans(h)[s]
    if sp.location == ON_NORMAL:
        h[0].free_bytes += sp.length << PAGE_SHIFT
    else:
        h[0].unmapped_bytes += sp.length << PAGE_SHIFT
    if sp.length > MAX_PAGES:
        insert_large(h, s)
    else:
        dll_prepend(h, (NORMAL if sp.location == ON_NORMAL else RETURNED) + sp.length, s)


@jit
def remove_from_free_list(h: Any, s: Any) -> None:
    """A free span leaves its list or set. (RemoveFromFreeList)"""
    sp = spans(h)[s]
    if sp.location == ON_NORMAL:
        h[0].free_bytes -= sp.length << PAGE_SHIFT
    else:
        h[0].unmapped_bytes -= sp.length << PAGE_SHIFT
    if sp.length > MAX_PAGES:
        erase_large(h, s)
    else:
        dll_remove(h, s)


@jit
def commit_pages(h: Any, npages: Any) -> None:
    """Count pages as backed by memory; no system call on Linux. (CommitSpan)"""
    h[0].commit_count += 1
    h[0].committed_bytes += npages << PAGE_SHIFT
    h[0].total_commit_bytes += npages << PAGE_SHIFT


@jit
def carve(h: Any, s: Any, n: Any) -> Any:
    """Put the front n pages of a free span to use; the rest stays of its kind. (Carve)"""
    sp = spans(h)[s]
    location = np.int64(sp.location)
    remove_from_free_list(h, s)
    sp.location = IN_USE
    extra = sp.length - n
    large = sp.length > MAX_PAGES
    if extra > 0:
        sp.length = n
        leftover = new_span(h, sp.start + n, extra)
        spans(h)[leftover].location = location
        record_span(h, leftover)
        prepend_to_free_list(h, leftover)
        record_span(h, s)
    if large and extra > 0:
        h[0].fact_split_set += 1
    elif large:
        h[0].fact_exact_set += 1
    elif extra > 0:
        h[0].fact_split_list += 1
    else:
        h[0].fact_exact_list += 1
    if location == ON_RETURNED:
        commit_pages(h, n)
        h[0].fact_recommitted += n
    return s


@jit
def search_free_and_large_lists(h: Any, n: Any) -> Any:
    """A span of n pages out of free ones, 0 if none is long enough. (SearchFreeAndLargeLists)"""
    table = spans(h)
    for length in range(n, MAX_PAGES + 1):
        for head in (NORMAL + length, RETURNED + length):
            s = np.int64(table[head].next)
            if s != head:
                h[0].fact_lists_searched += length - n + 1
                return carve(h, s, n)
    h[0].fact_lists_searched += max(MAX_PAGES + 1 - n, np.int64(0))
    s = best_fit(h, n)
    return carve(h, s, n) if s != 0 else s


@jit
def merge_into_free_list(h: Any, s: Any) -> None:
    """A span that became free merges with free neighbours of its kind and enters its list. (MergeIntoFreeList)"""
    sp = spans(h)[s]
    before = descriptor(h, sp.start - 1)
    after = descriptor(h, sp.start + sp.length)
    if before != 0 and spans(h)[before].location == sp.location:
        remove_from_free_list(h, before)
        sp.start -= spans(h)[before].length
        sp.length += spans(h)[before].length
        delete_span(h, before)
        h[0].fact_coalesced += 1
    if after != 0 and spans(h)[after].location == sp.location:
        remove_from_free_list(h, after)
        sp.length += spans(h)[after].length
        delete_span(h, after)
        h[0].fact_coalesced += 1
    record_span(h, s)
    prepend_to_free_list(h, s)


@jit
def release_span(h: Any, s: Any) -> Any:
    """Give the memory of a normal free span back to the system; its pages. (ReleaseSpan)"""
    sp = spans(h)[s]
    n = sp.length
    h[0].decommit_count += 1
    h[0].committed_bytes -= n << PAGE_SHIFT
    h[0].total_decommit_bytes += n << PAGE_SHIFT
    h[0].fact_released_spans += 1
    untouch(h, s)
    remove_from_free_list(h, s)
    sp.location = ON_RETURNED
    merge_into_free_list(h, s)
    return n


@jit
def release_at_least_npages(h: Any, npages: Any) -> Any:
    """Release spans, one a list, the oldest or the shortest of it, until npages are; the pages. (ReleaseAtLeastNPages)"""
    released = np.int64(0)
    while released < npages and h[0].free_bytes > 0:
        for _ in range(MAX_PAGES + 1):
            if released >= npages:
                break
            if h[0].release_index > MAX_PAGES:
                h[0].release_index = 0
            index = h[0].release_index
            s = np.int64(0)
            if index == MAX_PAGES:
                if h[0].nlarge_normal > 0:
                    s = np.int64(large_normal(h)[0])
            else:
                head = NORMAL + index + 1
                last = np.int64(spans(h)[head].prev)
                if last != head:
                    s = last
            if s != 0:
                released += release_span(h, s)
            h[0].release_index += 1
    return released


@jit
def incremental_scavenge(h: Any, n: Any) -> None:
    """Turn the release clock by n freed pages. (IncrementalScavenge)

    What is freed first is freed while the library is being initialised, before it knows its rate: that sets the long delay.
    """
    h[0].scavenge_counter -= n
    if h[0].scavenge_counter >= 0:
        return
    if not h[0].release_rate_read or h[0].release_rate <= 1e-6:
        h[0].release_rate_read = 1
        h[0].scavenge_counter = DEFAULT_RELEASE_DELAY
        return
    h[0].scavenge_count += 1
    released = release_at_least_npages(h, np.int64(1))
    if released == 0:
        h[0].scavenge_counter = DEFAULT_RELEASE_DELAY
    else:
        wait = 1000.0 / h[0].release_rate * float(released)
        h[0].scavenge_counter = np.int64(min(wait, float(MAX_RELEASE_DELAY)))


@jit
def delete_locked(h: Any, s: Any) -> None:
    """Free a span in use, of whatever it was. (PageHeap::Delete)"""
    sp = spans(h)[s]
    if sp.location != IN_USE:
        raise Throw("span " + str(s) + " is freed, but not in use")
    n = sp.length
    sp.sizeclass = 0
    sp.refcount = 0
    sp.location = ON_NORMAL
    h[0].fact_deleted += 1
    merge_into_free_list(h, s)
    incremental_scavenge(h, n)


@jit
def grow_heap(h: Any, n: Any) -> None:
    """Get pages from the system, enough for n, and free them. (GrowHeap)"""
    ask = max(n, np.int64(MIN_SYSTEM_ALLOC))
    if h[0].heap_pages + ask > MAX_HEAP_PAGES:
        raise Throw("out of memory: " + str(n) + " pages of 8 KiB asked for, " + str(h[0].heap_pages) + " in the heap")
    h[0].reserve_count += 1
    h[0].fact_growths += 1
    h[0].fact_grown += ask
    commit_pages(h, ask)
    s = new_span(h, h[0].heap_pages, ask)
    h[0].heap_pages += ask
    record_span(h, s)
    delete_locked(h, s)


@jit
def must_coalesce(h: Any, n: Any) -> Any:
    """Whether growing by n pages is a reason to release all normal free spans first. (PageHeap::New)"""
    c = h[0]
    system = c.heap_pages << PAGE_SHIFT
    if c.free_bytes == 0 or c.unmapped_bytes == 0 or c.free_bytes + c.unmapped_bytes < system // 4:
        return False
    return system // FORCED_COALESCE_INTERVAL != (system + (n << PAGE_SHIFT)) // FORCED_COALESCE_INTERVAL


@jit
def new_locked(h: Any, n: Any) -> Any:
    """A span of n >= 1 pages, in use and for no class. (PageHeap::New)"""
    s = search_free_and_large_lists(h, n)
    if s != 0:
        return s
    if must_coalesce(h, n):
        h[0].fact_forced += 1
        release_at_least_npages(h, np.int64(ALL_PAGES))
        s = search_free_and_large_lists(h, n)
        if s != 0:
            return s
    grow_heap(h, n)
    return search_free_and_large_lists(h, n)


@jit
def new_class_span_locked(h: Any, cl: Any) -> Any:
    """A span for objects of a class, not cut yet: what Populate does under this lock. (CentralFreeList::Populate)"""
    s = new_locked(h, class_to_pages[cl])
    spans(h)[s].sizeclass = cl
    return s


@jit
def new_large_locked(h: Any, n: Any) -> Any:
    """A span of n pages for one large object, the program's at once. (tcmalloc.cc:do_malloc_pages)"""
    s = new_locked(h, n)
    spans(h)[s].refcount = 1
    return s
