"""TCMalloc's whole state: every record and table, on one page.

The rooms are functions over these tables; none keeps state of its own.

- *Pages* are 8 KiB and count from the lowest one of the heap, a single run that only grows (sbrk). ``pagemap`` leads
  from the first and the last page of every span to its record.
- *Spans* are runs of pages, named by their index in ``spans``. A span is in use for one large object, in use for objects
  of one size class, or free: normal (memory stands behind it) or returned (given back to the system). The lowest
  records are no spans but heads of circular lists (page_heap.py, central_freelist.py).
- An *object* is named by ``span << 10 | slot``, a large one by its span's slot 0; 0 is no object. In memory free lists
  run through the objects themselves; here each object of a span has one entry of ``links``, which holds the next object
  of whatever list it is in (0 at the end), or LIVE while the program has it. So order is exact, one object is in one
  place, and a second free is seen.
- A *thread* is an index into ``threads``; its free list of class cl is ``free_lists[thread * NUM_CLASSES + cl]``.

A free list holds handles of 32 bits: at most 2**21 spans at a time, 16 GiB of heap if all were of one page.

Bytes: 40 a span, 4 an object of a small span, 5 a page, 20 a class of each thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import Tables, header_dtype, header_type, table
from sim.tcmalloc.sizeclasses import NUM_CLASSES, class_to_size, num_objects_to_move

SLOT_BITS = 10  # the most objects of a span are 1024
SLOT_MASK = (1 << SLOT_BITS) - 1
MAX_SPANS = 1 << 31 - SLOT_BITS
LIVE = -1  # link of an object that the program has

MAX_PAGES = 128  # longer free spans are in the two sets (kMaxPages)
MAX_TRANSFER_ENTRIES = 64  # slots of a transfer cache (kMaxNumTransferEntries)
DEFAULT_CACHE_SIZE = 16  # of them at the start
TRANSFER_LIMIT = 1 << 20  # bytes of a class that its slots may hold, or one slot

# record of a list's head: NORMAL + k and RETURNED + k for free spans of k pages, NONEMPTY + cl and EMPTY + cl by class
NORMAL = 0
RETURNED = NORMAL + MAX_PAGES
NONEMPTY = RETURNED + MAX_PAGES + 1
EMPTY = NONEMPTY + NUM_CLASSES
NUM_HEADS = EMPTY + NUM_CLASSES

# span.location; a record that names no span is SPARE
IN_USE = 0
ON_NORMAL = 1
ON_RETURNED = 2
SPARE = 3

NO_THREAD = -1

# thread.state
NO_CACHE = 0
CACHED = 1  # it has a cache, which is in the list of caches

SPAN = np.dtype(
    [
        ("start", "i8"),  # page
        ("length", "i8"),  # pages
        ("prev", "i4"),  # neighbours in its list
        ("next", "i4"),  # of spare records: the next spare one
        ("objects", "i4"),  # first free object, 0 = all are handed out
        ("links", "i4"),  # entry of ``links`` of its object 0
        ("refcount", "i4"),  # objects outside the span: the program's, and those in caches of threads and in slots
        ("sizeclass", "u1"),  # 0 = one large object
        ("location", "u1"),
    ],
    align=True,
)

FREE_LIST = np.dtype(
    [
        ("head", "i4"),  # object freed last, 0 = none
        ("length", "i4"),
        ("low_water", "i4"),  # the least length since the last scavenge
        ("max_length", "i4"),
        ("overages", "i4"),  # times that the list grew too long since that last cost it something
    ],
    align=True,
)

THREAD = np.dtype(
    [
        ("cached", "i8"),  # bytes in its free lists (size_)
        ("max_size", "i8"),  # bytes beyond which it scavenges
        ("prev", "i4"),  # neighbours in the list of caches, newest first; NO_THREAD at the ends
        ("next", "i4"),
        ("variables", "i8"),  # first of its own
        ("state", "u1"),
    ],
    align=True,
)

CALL = np.dtype(  # what a thread's call is at between its turns on a clock (thread_pump.py)
    [
        ("cl", "i8"),  # its class, or the one that a scavenge is at
        ("chain", "i8"),  # objects in hand
        ("span", "i8"),  # a span just made, or whole
        ("left", "i8"),  # objects to give back after the chain
        ("drop", "i8"),  # how many a scavenge wanted of the list
        ("after", "i8"),  # what giving back is part of
        ("donor", "i8"),  # the class asked for a slot, whether for any slot, and what is left of that slot's chain
        ("force", "i8"),
        ("rest", "i8"),
    ],
    align=True,
)

CENTRAL = np.dtype(
    [
        ("counter", "i8"),  # free objects in its spans
        ("num_spans", "i8"),
        ("used_slots", "i4"),
        ("cache_size", "i4"),  # slots it may use
        ("max_cache_size", "i4"),
        ("slots", "i4", (MAX_TRANSFER_ENTRIES,)),  # first object of a chain of one batch each
    ],
    align=True,
)

TABLES: dict[str, Any] = {
    "spans": SPAN,
    "links": np.int32,
    "pagemap": np.int32,  # page + 1 -> span, 0 = none; exact for first and last pages of spans only
    "touched": np.uint8,  # by page: bits 0 and 1, memory stands behind its first and second 4 KiB
    "large_normal": np.int32,  # free spans of more than MAX_PAGES by (length, start)
    "large_returned": np.int32,
    "central": CENTRAL,  # by class
    "threads": THREAD,
    "free_lists": FREE_LIST,
    "calls": CALL,  # by thread
    "variables": np.int64,  # objects that each thread's variables hold, 0 = nil
    "shared_variables": np.int64,  # the same of the whole program's
}

SCALARS = [
    # what it is
    ("nthreads", "i8"),  # rows of ``threads``
    ("overall_cache_size", "i8"),  # bytes that caches of threads may hold together
    ("release_rate", "f8"),  # TCMALLOC_RELEASE_RATE
    # tables
    ("nspans", "i8"),  # span records ever used, heads included
    ("spare", "i4"),  # of those the first that names no span now
    ("nspare", "i8"),
    ("nlinks", "i8"),  # entries ever used; entry 0 is for none
    ("free_links", "i4", (NUM_CLASSES,)),  # the first entry of the first spare run, by class
    # the page heap
    ("heap_pages", "i8"),  # pages grown so far
    ("nlarge_normal", "i8"),
    ("nlarge_returned", "i8"),
    ("free_bytes", "i8"),  # in normal free spans
    ("unmapped_bytes", "i8"),  # in returned ones
    ("committed_bytes", "i8"),
    ("scavenge_counter", "i8"),  # pages to be freed until a span is released
    ("release_rate_read", "u1"),  # the rate counts: something was freed before
    ("release_index", "i8"),  # list the next release looks at: pages - 1; MAX_PAGES = the large ones
    ("scavenge_count", "i8"),
    ("commit_count", "i8"),
    ("total_commit_bytes", "i8"),
    ("decommit_count", "i8"),
    ("total_decommit_bytes", "i8"),
    ("reserve_count", "i8"),
    ("resident_pages", "i8"),  # 4 KiB pages of the heap that memory stands behind
    # transfer caches
    ("race_counter", "i8"),  # class that is asked for a slot next
    # caches of threads
    ("thread_heaps", "i8"),  # the newest, NO_THREAD = there is none
    ("thread_heap_count", "i8"),
    ("next_memory_steal", "i8"),  # cache that is asked for budget next
    ("unclaimed_cache_space", "i8"),  # bytes; below 0 when more is promised than there is
    # what happened, for a shell to price: sums, which it clears
    ("fact_transfer_hits", "i8"),  # batches from a slot
    ("fact_spans_visited", "i8"),  # spans that objects were taken from
    ("fact_fetched", "i8"),  # objects taken from them
    ("fact_populated", "i8"),  # spans cut into objects, and those objects
    ("fact_carved", "i8"),
    ("fact_stored", "i8"),  # batches put into a slot
    ("fact_slots_asked", "i8"),  # classes asked for a slot, and slots they gave
    ("fact_slots_stolen", "i8"),
    ("fact_released_objects", "i8"),  # objects given back to their spans
    ("fact_empty_spans", "i8"),  # spans that went back to the page heap with them
    ("fact_too_long", "i8"),  # lists that were too long
    ("fact_scavenges", "i8"),
    ("fact_scavenged_lists", "i8"),  # lists that a scavenge took objects from
    ("fact_caches_asked", "i8"),  # caches of other threads asked for budget, and 64 KiB they gave
    ("fact_budget_stolen", "i8"),
    ("fact_lists_searched", "i8"),  # the page heap: free lists looked at for a span
    ("fact_exact_list", "i8"),  # spans found: in a list, of just the right length or split, or in a set
    ("fact_split_list", "i8"),
    ("fact_exact_set", "i8"),
    ("fact_split_set", "i8"),
    ("fact_deleted", "i8"),  # spans freed, and neighbours that merged with a free span
    ("fact_coalesced", "i8"),
    ("fact_recommitted", "i8"),  # pages of returned spans put to use
    ("fact_growths", "i8"),  # calls of sbrk, and pages of them
    ("fact_grown", "i8"),
    ("fact_forced", "i8"),  # times that all normal free spans were released before growing
    ("fact_released_spans", "i8"),  # calls of madvise, and 4 KiB pages that memory stood behind in them
    ("fact_released_resident", "i8"),
    ("fact_touched", "i8"),  # 4 KiB pages touched for the first time
]

TCMALLOC = header_dtype(SCALARS, TABLES)  # type: ignore[arg-type]
tcmalloc_type = header_type(TCMALLOC)

spans = table("spans", SPAN)
links = table("links", np.int32)
pagemap = table("pagemap", np.int32)
touched = table("touched", np.uint8)
large_normal = table("large_normal", np.int32)
large_returned = table("large_returned", np.int32)
central = table("central", CENTRAL)
threads = table("threads", THREAD)
free_lists = table("free_lists", FREE_LIST)
calls = table("calls", CALL)
variables = table("variables", np.int64)
shared_variables = table("shared_variables", np.int64)


def new_tables() -> Tables:
    """Tables of a heap without a page or a thread: empty lists, transfer caches of their first size."""
    tables = Tables(TCMALLOC, TABLES)
    for name in TABLES:
        tables.allocate(name, 1)
    heads = tables.allocate("spans", 4096)[:NUM_HEADS]
    heads["prev"] = heads["next"] = np.arange(NUM_HEADS)
    heads["location"] = SPARE
    tables.allocate("links", 1 << 14)
    tables.allocate("pagemap", 1 << 12)
    tables.allocate("touched", 1 << 12)
    tables.allocate("large_normal", 64)
    tables.allocate("large_returned", 64)
    rows = tables.allocate("central", NUM_CLASSES)
    rows["max_cache_size"] = MAX_TRANSFER_ENTRIES
    batch_bytes = class_to_size[1:] * num_objects_to_move[1:]
    rows["max_cache_size"][1:] = np.clip(TRANSFER_LIMIT // batch_bytes, 1, MAX_TRANSFER_ENTRIES)
    rows["cache_size"] = np.minimum(rows["max_cache_size"], DEFAULT_CACHE_SIZE)
    fields = tables.fields
    fields.nspans = NUM_HEADS
    fields.nlinks = 1
    fields.release_index = MAX_PAGES
    fields.thread_heaps = fields.next_memory_steal = NO_THREAD
    return tables
