"""The composition root: one heap with its version's facts, its Ps and room in its tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import int64, void

from sim.go import mgclimit, mgcpacer, mheap
from sim.go.params import VERSIONS, Facts, set_facts
from sim.go.scalars import MAX_OCCUPIED
from sim.go.state import (
    ARENA_PAGES,
    CHUNK_PAGES,
    MSPAN_CACHE_LEN,
    NEVER,
    NUM_SPAN_CLASSES,
    heap_type,
    new_tables,
)
from sim.jit import entry

# bytes of the runtime's own records, as the compiler lays them out on linux/amd64 (1.27.3; 1.19.8)
MSPAN_SIZE = {True: 160, False: 144}  # keys: with and without inline mark bits
MCACHE_SIZE = {True: 2296, False: 1200}
HEAP_ARENA_SIZE = {True: 69_648, False: 2_165_776}  # before, 2 MiB of it are the heap bitmap
SPANSET_BLOCK = {True: (4608, 512), False: (4120, 64)}  # and its alignment


@entry(void(heap_type, int64, int64))
def mallocinit(h: Any, mspan_size: Any, mcache_size: Any) -> None:
    """mheap.mallocinit, for Python to call; the collector is off and no memory limit set."""
    mheap.mallocinit(h, mspan_size, mcache_size)
    mgcpacer.init(h, -1, mgcpacer.NO_LIMIT)
    mgclimit.reset_capacity(h, np.int64(0), h[0].nprocs)


class Heap:
    """A Go heap of one version, empty.

    ``heap_rand``: the 64-bit word a version with ``randomized_heap_base`` places its heap by. ``occupied``: address
    ranges [first, end) in bytes that others hold, at most 8; the heap goes around them.
    ``header`` is what rooms take, ``fields`` the same record for Python, ``arrays`` the tables by name.
    """

    def __init__(
        self, version: str | Facts, nprocs: int, heap_rand: int = 0, occupied: Sequence[tuple[int, int]] = ()
    ) -> None:
        if not 0 <= heap_rand < 1 << 64:
            raise ValueError(f"heap_rand is {heap_rand}; it is a 64-bit word")
        if len(occupied) > MAX_OCCUPIED or any(not 0 <= first < end < 1 << 48 for first, end in occupied):
            raise ValueError(f"occupied takes up to {MAX_OCCUPIED} ranges [first, end) below 2**48")
        self.tables = new_tables()
        self.facts = VERSIONS[version] if isinstance(version, str) else version
        fields = self.fields
        set_facts(fields, self.facts)
        fields.nprocs = nprocs
        inline = self.facts.inline_mark_bits
        fields.arena_meta_bytes = HEAP_ARENA_SIZE[inline]
        fields.spanset_block_bytes, fields.spanset_block_align = SPANSET_BLOCK[inline]
        fields.heap_rand = np.uint64(heap_rand)
        fields.noccupied = len(occupied)
        for i, (first, end) in enumerate(occupied):
            fields.occupied[2 * i] = first
            fields.occupied[2 * i + 1] = end
        self.tables.allocate("mcaches", nprocs)
        self.tables.allocate("procs", nprocs)
        for name in ("last_malloc", "last_marked", "last_page"):
            self.tables.allocate(name, nprocs * NUM_SPAN_CLASSES)
        self.tables.allocate("p_time", nprocs + 1)[:] = NEVER
        self.header = self.tables.header
        self.arrays = self.tables.arrays
        mallocinit(self.header, MSPAN_SIZE[inline], MCACHE_SIZE[inline])

    @property
    def fields(self):  # type: ignore[no-untyped-def]
        """The header record: scalars by name."""
        return self.tables.fields

    def make_room(self, npages: int) -> None:
        """Grow every table that spans of npages could overflow (mheap.room_is_short says when)."""
        fields, lengths = self.fields, self.tables
        n = int(fields.nprocs) + 8
        wanted = {
            "spans": fields.nspans + n * MSPAN_CACHE_LEN,
            "words": fields.nwords + (n << 10) + (1 << 14),
            "chunks": fields.nchunks + npages // CHUNK_PAGES + n * (ARENA_PAGES // CHUNK_PAGES),
            "arenas": fields.narenas + npages // ARENA_PAGES + n,
            "set_blocks": fields.nset_blocks + 8 * NUM_SPAN_CLASSES,
        }
        for name, need in wanted.items():
            lengths.at_least(name, int(need))
        if len(self.tables.arrays["page_span"]) < len(self.tables.arrays["arenas"]) * ARENA_PAGES:
            lengths.allocate("page_span", len(self.tables.arrays["arenas"]) * ARENA_PAGES)
