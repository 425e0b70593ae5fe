"""The textbook allocators' whole state: every record and table, on one page.

Addresses are absolute bytes. A *block* is a stretch of address space that the allocator hands out or keeps free as a
whole; its record names the blocks beside it, as its boundary tags do in memory, and its neighbours in a free list, as
the links inside a free block do. Blocks are named by their index in ``blocks``, 0 stands for none.

A *region* is address space from the system, and grows at its end: all but segregated fit have one. From ``start`` on it
is padding (so that what follows a header is aligned), blocks one behind the other up to ``frontier``, bytes that no
block has had yet, and ``fence`` bytes, the header at its end by which the last block sees that nothing follows.

List 0 is the general free list: blocks of any size. The others hold blocks of one size each (segregated.py).

One block record is 56 bytes, whatever its block's size is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import Tables, header_dtype, header_type, table

# policy
BUMP = 0
FIRST_FIT = 1
NEXT_FIT = 2
BEST_FIT = 3
SEGREGATED_FIT = 4

# block.state; a record that names no block is SPARE
SPARE = 0
USED = 1
FREE = 2  # in the general list
LISTED = 3  # free, in a list of one size
DEAD = 4  # bump only: freed, but nothing can have it before all is free

GENERAL = 0  # the general list; the region it has blocks in
RUNS = 1  # the region of lists of one size

BLOCK = np.dtype(
    [
        ("addr", "i8"),  # where it begins: at its header, if it has one
        ("bytes", "i8"),  # header and padding included
        ("requested", "i8"),  # what the program asked for; of used blocks only
        ("prev", "i4"),  # block that ends where this one begins, 0 = it is its region's first
        ("next", "i4"),  # block that begins where this one ends
        ("prev_free", "i4"),  # neighbours in its free list
        ("next_free", "i4"),  # of spare records: the next spare one
        ("times", "i4"),  # how often malloc gave it away: a handle of another time is stale
        ("list", "i4"),  # its list: GENERAL or a list of one size
        ("state", "u1"),
    ],
    align=True,
)

REGION = np.dtype(
    [
        ("start", "i8"),
        ("frontier", "i8"),  # end of its last block
        ("end", "i8"),
        ("fence", "i8"),  # bytes kept at its end
        ("first", "i4"),  # its blocks by address
        ("last", "i4"),
    ],
    align=True,
)

LIST = np.dtype(
    [
        ("head", "i4"),
        ("tail", "i4"),
        ("nfree", "i8"),
        ("block_bytes", "i8"),  # of each block; 0 = any size
    ],
    align=True,
)

TABLES: dict[str, Any] = {
    "blocks": BLOCK,
    "regions": REGION,  # GENERAL, RUNS
    "lists": LIST,
    "list_for": np.int32,  # list of one size for a request, by bytes up to the largest such size
    "variables": np.int64,  # handles that the workload's variables hold, 0 = nil
    "shared_variables": np.int64,
}

SCALARS = [
    # what the allocator is
    ("policy", "u1"),
    ("address_ordered", "u1"),  # the general list is sorted by address; else a freed block becomes its head
    ("header_bytes", "i8"),
    ("align_bytes", "i8"),  # a power of 2
    ("min_block", "i8"),
    ("grow_bytes", "i8"),  # a region grows by a multiple of it
    ("run_bytes", "i8"),
    ("nlists", "i8"),  # the general one included
    ("largest_listed", "i8"),  # requests up to it go to a list of one size; -1 = none do
    # where it stands
    ("rover", "i4"),  # next fit: free block at which the next search begins, 0 = at the list's head
    ("nblocks", "i8"),  # block records ever used, record 0 included
    ("spare", "i4"),  # of those the first that names no block now
    ("nspare", "i8"),
    # bytes and counts as of now
    ("live_objects", "i8"),
    ("live_bytes", "i8"),  # requested
    ("used_bytes", "i8"),  # of blocks in use
    ("free_bytes", "i8"),  # of free blocks, those in lists of one size included
    ("dead_bytes", "i8"),
    ("arena_bytes", "i8"),  # all regions
    # since the start
    ("peak_live_bytes", "i8"),
    ("requested_bytes", "i8"),
    ("mallocs", "i8"),
    ("frees", "i8"),
    ("visited", "i8"),  # sums of the facts below
    ("passed", "i8"),
    ("splits", "i8"),
    ("coalesced", "i8"),
    # what the last malloc or free did, for a shell to price
    ("fact_visited", "i8"),  # free blocks that the search looked at, the one it took included
    ("fact_passed", "i8"),  # free blocks looked at to find a freed block's place in a sorted list
    ("fact_split", "u1"),
    ("fact_coalesced", "u1"),  # neighbours merged with the freed block, 0 to 2
    ("fact_grown", "i8"),  # bytes from the system
    ("fact_carved", "i8"),  # blocks of one size made of a new run
    ("fact_reset", "u1"),  # bump: nothing is live, the pointer went back to the start
]

TEXTBOOK = header_dtype(SCALARS, TABLES)
textbook_type = header_type(TEXTBOOK)

blocks = table("blocks", BLOCK)
regions = table("regions", REGION)
lists = table("lists", LIST)
list_for = table("list_for", np.int32)
variables = table("variables", np.int64)
shared_variables = table("shared_variables", np.int64)


def new_tables() -> Tables:
    """Tables without a block, and header scalars of zero."""
    tables = Tables(TEXTBOOK, TABLES)
    for name in TABLES:
        tables.allocate(name, 1)
    tables.allocate("blocks", 1024)
    tables.allocate("regions", 2)
    tables.fields.nblocks = 1  # record 0 is no block
    return tables
