"""The allocator's invariants, checked over the whole state at once: for tests and ``--check``.

Each predicate throws with the numbers that break it.

- Pages: spans tile the heap without a gap or an overlap, the page map leads to the first and last page of each; no two
  free neighbours are of the same kind.
- Page heap: every free span is in the list of its length and kind or in the set of its kind, and nothing else is; sets are
  in order; free, returned and committed bytes are what the spans say.
- Objects: each object of a span is in one place: with the program, in one thread's list, in one slot's chain, or in its
  span's own list; a span's refcount counts those outside it. Runs of links overlap nowhere and none is lost.
- Central lists: every span of a class is in nonempty or, when drained, in empty; counts are right; slots in use <= slots
  <= the most of the class; a slot holds a batch; no slot came from nowhere.
- Caches of threads: lengths and bytes are what the lists hold, marks are within them, max_length is one that slow start
  gives (a scavenge may leave a list longer than that).
- Budget: what caches may hold and what nobody claimed are all there is; the list of caches is whole.
- Memory: stands behind as many 4 KiB pages as are counted, and behind no returned span.
- Ledger: what the program has is the heap less all that is free.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.tcmalloc.heap import TCMalloc
from sim.tcmalloc.sizeclasses import (
    NUM_CLASSES,
    PAGE_SHIFT,
    class_to_pages,
    class_to_size,
    num_objects_to_move,
    objects_per_span,
)
from sim.tcmalloc.state import (
    CACHED,
    EMPTY,
    IN_USE,
    LIVE,
    MAX_PAGES,
    NO_THREAD,
    NONEMPTY,
    NORMAL,
    NUM_HEADS,
    ON_NORMAL,
    ON_RETURNED,
    RETURNED,
    SLOT_BITS,
    SLOT_MASK,
    SPARE,
    new_tables,
)
from sim.tcmalloc.stats import numeric_properties
from sim.tcmalloc.thread_cache import MAX_DYNAMIC_LENGTH
from sim.units import throw

_SLOTS = int(new_tables().arrays["central"].cache_size.sum())  # of all classes, at the start


def tiling(heap: TCMalloc) -> list[int]:
    """Check the pages; all spans in order of address."""
    spans, pagemap = heap.arrays["spans"], heap.arrays["pagemap"]
    found: list[int] = []
    page, end = 0, int(heap.fields.heap_pages)
    while page < end:
        s = int(pagemap[page + 1])
        sp = spans[s]
        if s < NUM_HEADS or sp.location == SPARE or sp.start != page or sp.length < 1:
            throw(f"page {page} begins no span: the map has {s}")
        page += int(sp.length)
        if pagemap[page] != s:
            throw(f"page {page - 1} ends span {s}, the map has {int(pagemap[page])}")
        if found and sp.location != IN_USE and sp.location == spans[found[-1]].location:
            throw(f"spans {found[-1]} and {s} are free neighbours of the same kind")
        found.append(s)
    used = int(heap.fields.nspans - heap.fields.nspare) - NUM_HEADS
    if page != end or used != len(found):
        throw(f"{len(found)} spans cover {page} pages; the heap has {end}, and {used} records in use")
    return found


def list_of(heap: TCMalloc, head: int) -> list[int]:
    """The spans of a list, its links checked."""
    spans, limit = heap.arrays["spans"], int(heap.fields.nspans)
    found: list[int] = []
    before, s = head, int(spans.next[head])
    while s != head:
        if not NUM_HEADS <= s < limit or len(found) > limit:
            throw(f"list {head} leads to {s}, which is no span")
        if spans.prev[s] != before:
            throw(f"span {s} in list {head} comes after {before}, its link says {int(spans.prev[s])}")
        found.append(s)
        before, s = s, int(spans.next[s])
    if spans.prev[head] != before:
        throw(f"list {head} ends with {before}, its link says {int(spans.prev[head])}")
    return found


def check_page_heap(heap: TCMalloc, order: list[int]) -> None:
    """Lists, sets and bytes of free spans."""
    spans, fields = heap.arrays["spans"], heap.fields
    nbytes = {ON_NORMAL: 0, ON_RETURNED: 0}
    wanted: dict[tuple[int, int], set[int]] = {}
    for s in order:
        location, length = int(spans.location[s]), int(spans.length[s])
        if location != IN_USE:
            nbytes[location] += length << PAGE_SHIFT
            wanted.setdefault((location, min(length, MAX_PAGES + 1)), set()).add(s)
    for location, head in ((ON_NORMAL, NORMAL), (ON_RETURNED, RETURNED)):
        for length in range(1, MAX_PAGES + 1):
            found = list_of(heap, head + length)
            if set(found) != wanted.get((location, length), set()) or len(found) != len(set(found)):
                throw(f"free list of {length} pages, kind {location}, holds spans {found}, not just its own")
        kind = "normal" if location == ON_NORMAL else "returned"
        large = heap.arrays[f"large_{kind}"][: int(fields[f"nlarge_{kind}"])].tolist()
        if large != sorted(wanted.get((location, MAX_PAGES + 1), ()), key=lambda s: (spans.length[s], spans.start[s])):
            throw(f"the set of large {kind} spans holds {large}, not just its own in order")
    committed = (int(fields.heap_pages) << PAGE_SHIFT) - nbytes[ON_RETURNED]
    counted = (int(fields.free_bytes), int(fields.unmapped_bytes), int(fields.committed_bytes))
    if counted != (nbytes[ON_NORMAL], nbytes[ON_RETURNED], committed):
        throw(f"free, unmapped, committed bytes are counted {counted}; spans say {nbytes}, {committed}")
    if int(fields.total_commit_bytes - fields.total_decommit_bytes) != committed:
        throw(f"{int(fields.total_commit_bytes)} bytes committed in all, less what was decommitted, are not {committed}")


class _Places:
    """Which objects were found in a list so far."""

    def __init__(self, heap: TCMalloc) -> None:
        self.spans, self.links = heap.arrays["spans"], heap.arrays["links"]
        self.nspans = int(heap.fields.nspans)
        self.seen = np.zeros(int(heap.fields.nlinks), bool)
        self.outside = np.zeros(self.nspans, np.int64)  # objects in caches and slots, by span

    def chain(self, where: str, head: int, cl: int, span: int = 0) -> int:
        """Walk a list of objects of a class (of one span, if it is given): its length."""
        length, obj = 0, head
        while obj != 0:
            s, slot = obj >> SLOT_BITS, obj & SLOT_MASK
            sp = self.spans[s if NUM_HEADS <= s < self.nspans else 0]  # record 0 is never in use
            if sp.location != IN_USE or sp.sizeclass != cl or slot >= objects_per_span[cl]:
                throw(f"{where} holds {obj}, which is no object of class {cl}")
            if span and s != span:
                throw(f"{where} holds {obj}, an object of span {s}")
            at = int(sp.links) + slot
            if self.seen[at]:
                throw(f"{where} holds object {obj}, which is in a list already")
            self.seen[at] = True
            if not span:
                self.outside[s] += 1
            length, obj = length + 1, int(self.links[at])
        return length


def check_threads(heap: TCMalloc, places: _Places) -> None:
    """Lists of threads that have a cache; others have none."""
    threads, lists = heap.arrays["threads"], heap.arrays["free_lists"]
    for t in range(int(heap.fields.nthreads)):
        if threads.state[t] != CACHED:
            continue
        cached = 0
        for cl in range(NUM_CLASSES):
            f, batch = lists[t * NUM_CLASSES + cl], int(num_objects_to_move[cl])
            where = f"thread {t}'s list of class {cl}"
            length = places.chain(where, int(f.head), cl)
            cached += length * int(class_to_size[cl])
            if length != f.length or not 0 <= f.low_water <= length:
                throw(f"{where} holds {length} objects, counts {int(f.length)}, low water {int(f.low_water)}")
            broken = f.max_length > batch and cl and f.max_length % batch
            if broken or not 1 <= f.max_length <= MAX_DYNAMIC_LENGTH:
                throw(f"{where} may hold {int(f.max_length)} objects, its batch is {batch}")
        if cached != threads.cached[t]:
            throw(f"thread {t}'s lists hold {cached} bytes, it counts {int(threads.cached[t])}")


def check_central(heap: TCMalloc, order: list[int], places: _Places) -> int:
    """Central lists, slots and every object's place; the bytes of objects that the program has."""
    spans, rows = heap.arrays["spans"], heap.arrays["central"]
    live = 0
    by_class: list[set[int]] = [set() for _ in range(NUM_CLASSES)]
    for s in order:
        if spans.location[s] == IN_USE and spans.sizeclass[s]:
            by_class[int(spans.sizeclass[s])].add(s)
        elif spans.location[s] == IN_USE:
            live += int(spans.length[s]) << PAGE_SHIFT
    for cl, mine in enumerate(by_class):
        c, batch, n = rows[cl], int(num_objects_to_move[cl]), int(objects_per_span[cl])
        if not 0 <= c.used_slots <= c.cache_size <= c.max_cache_size:
            throw(f"class {cl} uses {int(c.used_slots)} of {int(c.cache_size)} slots, at most {int(c.max_cache_size)}")
        for slot in range(int(c.used_slots)):
            if places.chain(f"slot {slot} of class {cl}", int(c.slots[slot]), cl) != batch:
                throw(f"slot {slot} of class {cl} holds no batch of {batch}")
        nonempty, drained = list_of(heap, NONEMPTY + cl), list_of(heap, EMPTY + cl)
        if set(nonempty) != {s for s in mine if spans.objects[s]} or set(drained) != mine - set(nonempty):
            throw(f"central lists of class {cl} hold spans {nonempty} and {drained}, not just their own")
        free = 0
        for s in sorted(mine):
            sp = spans[s]
            inside = places.chain(f"span {s}", int(sp.objects), cl, s)
            free += inside
            with_program = int((places.links[int(sp.links) : int(sp.links) + n] == LIVE).sum())
            outside = with_program + int(places.outside[s])
            if sp.length != class_to_pages[cl] or sp.refcount < 1 or sp.refcount != outside or outside + inside != n:
                throw(f"span {s}: {inside} objects inside, {outside} outside, refcount {int(sp.refcount)}, of {n}")
            live += with_program * int(class_to_size[cl])
        if (c.counter, c.num_spans) != (free, len(mine)):
            throw(f"class {cl} counts {int(c.counter)} objects, {int(c.num_spans)} spans; has {free}, {len(mine)}")
    if rows.cache_size.sum() > _SLOTS:
        throw(f"classes have {int(rows.cache_size.sum())} slots; there were {_SLOTS}")
    return live


def check_links(heap: TCMalloc, order: list[int]) -> None:
    """Runs of links: of spans, and spare; together all that were ever cut."""
    spans, links = heap.arrays["spans"], heap.arrays["links"]
    runs = [
        (int(spans.links[s]), int(objects_per_span[spans.sizeclass[s]]))
        for s in order
        if spans.location[s] == IN_USE and spans.sizeclass[s]
    ]
    limit = int(heap.fields.nlinks)
    for cl in range(1, NUM_CLASSES):
        first = int(heap.fields.free_links[cl])
        while first != 0 and len(runs) <= limit:
            runs.append((first, int(objects_per_span[cl])))
            first = int(links[first])
    end = 1
    for first, n in sorted(runs):
        if first != end:
            throw(f"a run of links begins at {first}, the one before it ends at {end}")
        end += n
    if end != limit:
        throw(f"runs of links end at {end}; {limit} entries were cut")


def check_budget(heap: TCMalloc) -> None:
    """The budget of caches, and their list."""
    threads, fields = heap.arrays["threads"], heap.fields
    listed: list[int] = []
    t, before = int(fields.thread_heaps), NO_THREAD
    while t != NO_THREAD and len(listed) <= fields.nthreads:
        if threads.prev[t] != before:
            throw(f"cache {t} comes after {before}, its link says {int(threads.prev[t])}")
        listed.append(t)
        before, t = t, int(threads.next[t])
    have = np.flatnonzero(threads.state == CACHED).tolist()
    if sorted(listed) != have or fields.thread_heap_count != len(have):
        throw(f"the list of caches is {listed}, counted {int(fields.thread_heap_count)}; threads with one are {have}")
    if int(fields.next_memory_steal) not in [*listed, NO_THREAD]:
        throw(f"the next to be stolen from is {int(fields.next_memory_steal)}, which has no cache")
    claimed = int(threads.max_size[have].sum())
    if claimed + int(fields.unclaimed_cache_space) != fields.overall_cache_size:
        throw(
            f"caches may hold {claimed} bytes, {int(fields.unclaimed_cache_space)} are unclaimed,"
            f" of {int(fields.overall_cache_size)}"
        )


def check_memory(heap: TCMalloc, order: list[int]) -> None:
    """4 KiB pages that memory stands behind."""
    spans, touched = heap.arrays["spans"], heap.arrays["touched"]
    resident = int(((touched & 1) + (touched >> 1)).sum(dtype=np.int64))
    if resident != heap.fields.resident_pages or touched[int(heap.fields.heap_pages) :].any():
        throw(f"memory stands behind {resident} pages of 4 KiB, counted {int(heap.fields.resident_pages)}")
    for s in order:
        start, length = int(spans.start[s]), int(spans.length[s])
        if spans.location[s] == ON_RETURNED and touched[start : start + length].any():
            throw(f"memory stands behind span {s}, which was returned")


def check(heap: TCMalloc) -> None:
    """All of the above, in that order."""
    order = tiling(heap)
    check_page_heap(heap, order)
    check_links(heap, order)
    places = _Places(heap)
    check_threads(heap, places)
    live = check_central(heap, order, places)
    check_budget(heap)
    check_memory(heap, order)
    told: Any = numeric_properties(heap)["generic.current_allocated_bytes"]
    if told != live:
        throw(f"the program has {live} bytes; the heap less all that is free are {told}")
