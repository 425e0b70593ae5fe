"""The composition root: one textbook heap, its threads' variables and room in its tables; and what Python asks of it.

Each call is one entry of compiled code, with no clock.

Speed of ``run_ops`` (a 2-core AMD EPYC VM, 60 % mallocs of 1 to 999 bytes, the others deaths): 23 to 29 million
operations a second of bump and of segregated fit's lists, whatever lives; with 28 objects live 10 to 17 of all others.
A free block looked at costs 4 ns: with 600 live 12 to 15 million of first and next fit last in, first out (2 blocks a
malloc), 2 to 6 of best fit and of any list sorted by address (30 to 90 blocks a malloc, as many to find a place); with
6,000 live 5 to 7 and 0.2 to 1.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import int64, void

from sim.jit import PLAIN, bare, entry
from sim.ops import OP, SHARED
from sim.textbook import malloc as rooms
from sim.textbook.state import (
    BEST_FIT,
    BUMP,
    FIRST_FIT,
    GENERAL,
    HEADER_BYTES,
    LINK_BYTES,
    NEXT_FIT,
    RUN_BYTES,
    SEGREGATED_FIT,
    new_tables,
    textbook_type,
)
from sim.units import KIB

POLICIES = {
    "bump": BUMP,
    "first-fit": FIRST_FIT,
    "next-fit": NEXT_FIT,
    "best-fit": BEST_FIT,
    "segregated-fit": SEGREGATED_FIT,
}
ORDERS = ("address", "lifo")
DEFAULT_ALIGN_BYTES = 16  # what malloc owes any C type on a 64-bit machine
DEFAULT_GROW_BYTES = 128 * KIB

_ops_type = numba.from_dtype(OP)[::1]


@entry(int64(textbook_type, int64))
def malloc(h: Any, size: Any) -> Any:
    """rooms.malloc; the object, 0 if a table is short of room."""
    h = bare(h)
    if rooms.room_is_short(h):
        return np.int64(0)
    return rooms.malloc(h, size)


@entry(void(textbook_type, int64))
def free(h: Any, obj: Any) -> None:
    """rooms.free."""
    rooms.free(bare(h), obj)


@entry(int64(textbook_type, int64))
def address(h: Any, obj: Any) -> Any:
    """rooms.address."""
    return rooms.address(bare(h), obj)


@entry(int64(textbook_type, int64, _ops_type, int64, int64[::1]))
def run_ops(h: Any, t: Any, ops: Any, at: Any, addresses: Any) -> Any:
    """rooms.run_ops."""
    return rooms.run_ops(bare(h), t, bare(ops), at, bare(addresses))


class Textbook:
    """A heap of one textbook policy (``POLICIES``), without a byte.

    ``order``: how the general free list is sorted, by ``address`` or last in, first out (``lifo``): segregated fit's
    tail has one too, bump has no list and takes none. ``align_bytes``: a power of two from 8 to 4096, of what malloc
    returns but from segregated fit's lists. ``grow_bytes``: a multiple of 4096, what a region grows by.
    ``header`` is what rooms take, ``fields`` the same record for Python, ``arrays`` the tables by name.
    """

    def __init__(
        self,
        policy: str,
        order: str | None = None,
        nthreads: int = 1,
        align_bytes: int = DEFAULT_ALIGN_BYTES,
        grow_bytes: int = DEFAULT_GROW_BYTES,
    ) -> None:
        if policy not in POLICIES:
            raise ValueError(f"policy is {policy!r}; it is one of {', '.join(POLICIES)}")
        if order not in ((None,) if policy == "bump" else ORDERS):
            raise ValueError(f"order is {order!r}; it is None for bump, else one of {', '.join(ORDERS)}")
        if nthreads < 1:
            raise ValueError(f"nthreads is {nthreads}; a program has a thread at least")
        if not 8 <= align_bytes <= 4096 or align_bytes & (align_bytes - 1):
            raise ValueError(f"align_bytes is {align_bytes}; it is a power of two from 8 to 4096")
        if grow_bytes < RUN_BYTES or grow_bytes % RUN_BYTES:
            raise ValueError(f"grow_bytes is {grow_bytes}; it is a multiple of {RUN_BYTES}")
        self.tables = new_tables()
        self.header = self.tables.header
        self.arrays = self.tables.arrays
        fields = self.fields
        fields.policy = POLICIES[policy]
        fields.address_ordered = order == "address"
        fields.align_bytes = align_bytes
        fields.min_block = (HEADER_BYTES + 3 * LINK_BYTES + align_bytes - 1) & -align_bytes
        fields.grow_bytes = grow_bytes
        fields.nthreads = nthreads
        if policy != "bump":
            region = self.arrays["regions"][GENERAL]
            region.start += -HEADER_BYTES % align_bytes
            region.frontier = region.start
            region.fence = HEADER_BYTES

    @property
    def fields(self):  # type: ignore[no-untyped-def]
        """The header record: scalars by name."""
        return self.tables.fields

    def make_room(self) -> None:
        """Grow the table of blocks so that it is not short of room (malloc.room_is_short)."""
        self.tables.at_least("blocks", self.tables.scalar("nblocks") + rooms.MAX_RECORDS)

    def malloc(self, size: int) -> int:
        """An object of 0 to 1 TiB. Throw when its region would be larger than 16 TiB."""
        if not 0 <= size <= rooms.MAX_REQUEST:
            raise ValueError(f"{size} bytes are asked for; a request is 0 to {rooms.MAX_REQUEST}")
        obj = malloc(self.header, size)
        if obj == 0:
            self.make_room()
            obj = malloc(self.header, size)
        return int(obj)

    def free(self, obj: int) -> None:
        """Free an object; Throw unless it is live."""
        free(self.header, obj)

    def address(self, obj: int) -> int:
        """Where an object's bytes begin; Throw unless it is live."""
        return int(address(self.header, obj))

    def run_ops(self, t: int, ops: Any) -> Any:
        """Run a batch of operations (sim/ops.py) of a thread: the address of each allocation's object, -1 for others."""
        if not 0 <= t < self.tables.scalar("nthreads"):
            raise ValueError(f"thread {t} is none of {self.tables.scalar('nthreads')}")
        if PLAIN:
            ops = ops.view(np.recarray)
        addresses = np.empty(len(ops), np.int64)
        shared = (ops["flags"] & SHARED).astype(bool)
        own, common = (int(ops["obj"][flagged].max(initial=-1)) + 1 for flagged in (~shared, shared))
        self.make_variables(own, common)
        done = 0
        while True:
            done = run_ops(self.header, t, ops, done, addresses)
            if done == len(ops):
                return addresses
            self.make_room()

    def make_variables(self, n: int, shared: int) -> None:
        """Every thread has n variables of its own or more, the whole program ``shared``."""
        self.tables.at_least("shared_variables", shared)
        had, nthreads = self.tables.scalar("nvariables"), self.tables.scalar("nthreads")
        if n <= had:
            return
        held = self.arrays["variables"][: nthreads * had].reshape(nthreads, had).copy()
        table = self.tables.allocate("variables", nthreads * 2 * n)
        table[:] = 0
        table.reshape(nthreads, 2 * n)[:, :had] = held
        self.fields.nvariables = 2 * n
