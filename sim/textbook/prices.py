"""What a step of a textbook allocator costs and under which cause it is entered: names in the order of the tables."""

from __future__ import annotations

STEPS = (
    "malloc",  # hold of the lock, search and all below apart
    "free",
    "visit",  # a free block looked at
    "split",
    "coalesce",  # a neighbour merged
    "grow",  # memory asked from the system
    "carve_line",  # each cache line of 64 bytes that cutting a run writes
    "first_touch",  # of a 4 KiB page
)

# causes: of a malloc
ALL = 0
BASE = 1
SEARCH = 2
SPLIT = 3
GROWTH = 4
LOCK_WAIT = 5
FIRST_TOUCH = 6
# of a free
FREE = 7
FREE_BASE = 8
PLACE = 9
COALESCE = 10
FREE_LOCK_WAIT = 11
FREE_TOUCH = 12

CAUSES = (
    "all",
    "base",
    "search",
    "split and carve",
    "heap growth",
    "lock wait",
    "first touch",
    "all frees",
    "base of frees",
    "place search",
    "coalesce",
    "lock wait, freeing",
    "first touch, freeing",
)
