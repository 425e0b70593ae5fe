"""The composition root: one heap with its version's facts, its Ps and room in its tables."""

from __future__ import annotations

from sim.go.params import VERSIONS, Facts, set_facts
from sim.go.state import ARENA_PAGES, CHUNK_PAGES, new_tables

MSPAN_SIZE = {True: 160, False: 136}  # bytes of an mspan record, with and without inline mark bits
FIRST_ARENA = 0xC000000000  # first of Go's arena hints; 1.27 moves it by a random offset
HEAP_ARENA_SIZE = {True: 69_632, False: 2_166_784}  # bytes of a heapArena; before, 2 MiB of it are the heap bitmap


class Heap:
    """A Go heap of one version, empty.

    ``header`` is what rooms take, ``fields`` the same record for Python, ``arrays`` the tables by name.
    """

    def __init__(self, version: str | Facts, nprocs: int) -> None:
        self.tables = new_tables()
        self.facts = VERSIONS[version] if isinstance(version, str) else version
        fields = self.fields
        set_facts(fields, self.facts)
        fields.nprocs = nprocs
        fields.mspan_size = MSPAN_SIZE[self.facts.inline_mark_bits]
        fields.arena_meta_bytes = HEAP_ARENA_SIZE[self.facts.inline_mark_bits]
        self.tables.allocate("mcaches", nprocs)
        self.tables.allocate("procs", nprocs)
        fields.arena_hint = FIRST_ARENA
        self.header = self.tables.header
        self.arrays = self.tables.arrays

    @property
    def fields(self):  # type: ignore[no-untyped-def]
        """The header record: scalars by name."""
        return self.tables.fields

    def make_room(self, npages: int) -> None:
        """Grow every table that spans of npages could overflow (mheap.room_is_short says when)."""
        fields, lengths = self.fields, self.tables
        wanted = {
            "spans": fields.nspans + 1024,
            "words": fields.nwords + (1 << 14),
            "chunks": fields.nchunks + npages // CHUNK_PAGES + 64,
            "arenas": fields.narenas + npages // ARENA_PAGES + 4,
        }
        for name, need in wanted.items():
            if need > len(self.tables.arrays[name]):
                lengths.allocate(name, max(int(need), 2 * len(self.tables.arrays[name])))
        lengths.allocate("page_span", len(self.tables.arrays["arenas"]) * ARENA_PAGES)
