"""What a step of TCMalloc costs and under which cause it is entered: names in the order of the compiled tables."""

from __future__ import annotations

STEPS = (
    "pop",  # a malloc from the thread's own list
    "push",  # a free into it
    "transfer_fetch",  # hold of a class lock: a batch from a slot
    "transfer_store",  # a batch into a slot
    "span_fetch",  # objects from a span
    "span_next",  # and from each further span
    "central_miss",  # nothing found, or no slot free
    "populate_enter",  # a span just cut is entered, and objects taken from it
    "carve_line",  # without a lock: each cache line of 64 bytes that cutting a span writes
    "release",  # hold of a class lock: objects back to their spans
    "release_object",  # and each of them
    "scavenge_object",  # the same for a scavenge's, which nobody used for long
    "slot_ask",  # without a lock: another class looked at for a slot
    "slot_give",  # hold of its lock
    "scavenge",  # without a lock: a walk over all lists of a cache
    "budget",  # hold of pageheap_lock: more budget for a cache
    "budget_ask",  # and each other cache looked at
    "exact_list",  # hold of pageheap_lock: a span found in a list, of the right length
    "split_list",  # or longer
    "exact_set",  # the same in a set
    "split_set",
    "page_free",  # a span freed
    "grow",  # the heap grown
    "madvise",  # a span given back to the system
    "madvise_page",  # and each 4 KiB page that memory stood behind
    "populate_touch",  # first touch of a 4 KiB page by cutting a span
    "first_touch",  # by the program
)

# causes: of a malloc
ALL = 0
HIT = 1
TRANSFER = 2
SPANS = 3
POPULATE = 4
PAGE_HEAP = 5
GROWTH = 6
LARGE = 7
LOCK_WAIT = 8
FIRST_TOUCH = 9
RELEASE = 10
# of a free
FREE = 11
PUSH = 12
TOO_LONG = 13
SCAVENGE = 14
FREE_PAGES = 15
FREE_LARGE = 16
FREE_LOCK_WAIT = 17
FREE_RELEASE = 18

CAUSES = (
    "all",
    "thread cache hit",
    "transfer cache",
    "spans",
    "populate",
    "page heap",
    "heap growth",
    "large object",
    "lock wait",
    "first touch",
    "forced release",
    "all frees",
    "push",
    "list too long",
    "scavenge",
    "spans freed",
    "large object freed",
    "lock wait, freeing",
    "release",
)
