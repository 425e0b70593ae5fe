"""The textbook allocators' whole state: every record and table, on one page.

Addresses are absolute bytes. A *block* is a stretch of address space that the allocator hands out or keeps free as a
whole; its record names the blocks beside it, as its boundary tags do in memory, and its neighbours in a free list, as
the links inside a free block do. Blocks are named by their index in ``blocks``, 0 stands for none.

An *object* is a block in use, named by ``times << 32 | block``, times being how often the block's record was given
away: a handle of another time is stale, and freeing it throws. 0 is no object.

A *region* is address space from the system that grows at its end: all policies have one, segregated fit has two. From
its base on it is padding (so that what follows a header is aligned), blocks one behind the other from ``start`` up to
``frontier``, bytes that no block has had yet, and ``fence`` bytes, the header at its end by which the last block sees
that nothing follows. It holds no byte before it grows for the first time.

List 0 is the general free list: blocks of any size. The others hold blocks of one size each (segregated.py).

One block record is 48 bytes, whatever its block's size is.
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

GENERAL = 0  # the general list; the region it has blocks in
RUNS = 1  # the region of lists of one size
NUM_REGIONS = 2
BASES = (1 << 44, 2 << 44)  # where a region begins; it may grow up to the next one

HEADER_BYTES = 8  # of a block of the general list: its size, and in two low bits whether it and the one before are free
LINK_BYTES = 8  # of the two links in a free block, and of the size at its end

SMALLEST_LISTED = 4  # bytes of the blocks of list 1; of each list after it twice as many
LARGEST_LISTED = 1024
NUM_LISTS = 1 + (LARGEST_LISTED // SMALLEST_LISTED).bit_length()
RUN_BYTES = 4096

BLOCK = np.dtype(
    [
        ("addr", "i8"),  # where it begins: at its header, if it has one
        ("bytes", "i8"),  # header and padding included
        ("requested", "i8"),  # what the program asked for; 0 unless in use
        ("prev", "i4"),  # block that ends where this one begins, 0 = it is its region's first (bump: see bump.py)
        ("next", "i4"),  # block that begins where this one ends
        ("prev_free", "i4"),  # neighbours in its free list; whatever they were, unless it is in one
        ("next_free", "i4"),  # of spare records: the next spare one
        ("times", "i4"),  # how often it was given away
        ("list", "u1"),  # its list: GENERAL or a list of one size
        ("state", "u1"),
    ],
    align=True,
)

REGION = np.dtype(
    [
        ("start", "i8"),
        ("frontier", "i8"),  # end of its last block
        ("end", "i8"),
        ("limit", "i8"),  # how far it may grow
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
    "variables": np.int64,  # objects that the threads' variables hold, thread * nvariables + variable; 0 = nil
    "shared_variables": np.int64,  # the same of the whole program's
}

SCALARS = [
    # what the allocator is
    ("policy", "u1"),
    ("address_ordered", "u1"),  # the general list is sorted by address; else a freed block becomes its head
    ("align_bytes", "i8"),  # a power of 2
    ("min_block", "i8"),  # bytes of the smallest block of the general list
    ("grow_bytes", "i8"),  # a region grows by a multiple of it
    ("nthreads", "i8"),
    ("nvariables", "i8"),  # of each thread
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
    ("dead_bytes", "i8"),  # bump: below the pointer, and of no live object
    ("arena_bytes", "i8"),  # all regions; never less than before
    ("peak_live_bytes", "i8"),
    # what happened, for a shell to price: sums, which it clears
    ("fact_visited", "i8"),  # free blocks that searches looked at, those they took included
    ("fact_passed", "i8"),  # free blocks looked at to find freed blocks' places in a sorted list
    ("fact_splits", "i8"),
    ("fact_coalesced", "i8"),  # neighbours that merged with a freed block, up to 2 each
    ("fact_growths", "i8"),  # times that the system was asked for memory, and bytes it gave
    ("fact_grown", "i8"),
    ("fact_runs", "i8"),  # runs carved into blocks of one size, and those blocks
    ("fact_carved", "i8"),
    ("fact_resets", "i8"),  # bump: nothing was live, the pointer went back to the start
]

TEXTBOOK = header_dtype(SCALARS, TABLES)
textbook_type = header_type(TEXTBOOK)

blocks = table("blocks", BLOCK)
regions = table("regions", REGION)
lists = table("lists", LIST)
variables = table("variables", np.int64)
shared_variables = table("shared_variables", np.int64)


def new_tables() -> Tables:
    """Tables without a block, in regions without a byte; the header says no policy yet."""
    tables = Tables(TEXTBOOK, TABLES)
    for name in TABLES:
        tables.allocate(name, 1)
    tables.allocate("blocks", 4096)
    rows = tables.allocate("regions", NUM_REGIONS)
    rows["start"] = rows["frontier"] = rows["end"] = BASES
    rows["limit"] = np.array(BASES) + BASES[0]
    tables.allocate("lists", NUM_LISTS)["block_bytes"][1:] = [SMALLEST_LISTED << k for k in range(NUM_LISTS - 1)]
    tables.fields.nblocks = 1  # record 0 is no block
    return tables
