"""The composition root: one TCMalloc heap, its threads and room in its tables; and what Python asks of it.

Each call is one entry of compiled code, with no clock. A program's main thread has two caches: one is made before
thread-local storage is ready and abandoned with 64 KiB of the budget in it (ThreadCache::CreateCacheIfNecessary); whoever
wants it makes a thread for it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import int64, void

from sim.jit import PLAIN, bare, entry
from sim.ops import OP, SHARED
from sim.tcmalloc import malloc as rooms
from sim.tcmalloc import span, thread_cache
from sim.tcmalloc.page_heap import MIN_SYSTEM_ALLOC
from sim.tcmalloc.sizeclasses import NUM_CLASSES, PAGE_SHIFT
from sim.tcmalloc.state import MAX_PAGES, SLOT_BITS, new_tables, tcmalloc_type

DEFAULT_OVERALL_CACHE_SIZE = 32 << 20  # bytes (kDefaultOverallThreadCacheSize)
MIN_OVERALL_CACHE_SIZE = 512 << 10
MAX_OVERALL_CACHE_SIZE = 1 << 30

_ops_type = numba.from_dtype(OP)[::1]


@entry(int64(tcmalloc_type, int64, int64))
def malloc(h: Any, t: Any, size: Any) -> Any:
    """rooms.malloc; the object's handle, 0 if a table is short of room."""
    h = bare(h)
    if rooms.room_is_short(h, rooms.pages_of(size)):
        return np.int64(0)
    return rooms.malloc(h, t, size)


@entry(void(tcmalloc_type, int64, int64))
def free(h: Any, t: Any, obj: Any) -> None:
    """rooms.free; a thread below 0 has no cache."""
    h = bare(h)
    if t < 0:
        rooms.free_without_cache(h, obj)
    else:
        rooms.free(h, t, obj)


@entry(int64(tcmalloc_type, int64, int64, int64))
def realloc(h: Any, t: Any, obj: Any, size: Any) -> Any:
    """rooms.realloc; the new handle, 0 if a table is short of room."""
    h = bare(h)
    if rooms.room_is_short(h, 2 * rooms.pages_of(size)):
        return np.int64(0)
    return rooms.realloc(h, t, obj, size)


@entry(int64(tcmalloc_type, int64))
def address(h: Any, obj: Any) -> Any:
    """span.address."""
    return span.address(bare(h), obj)


@entry(void(tcmalloc_type, int64))
def new_cache(h: Any, t: Any) -> None:
    """thread_cache.new_cache_locked."""
    thread_cache.new_cache_locked(bare(h), t)


@entry(void(tcmalloc_type, int64))
def delete_cache(h: Any, t: Any) -> None:
    """A thread ends: thread_cache.cleanup and delete_cache_locked."""
    h = bare(h)
    thread_cache.cleanup(h, t)
    thread_cache.delete_cache_locked(h, t)


@entry(int64(tcmalloc_type, int64, _ops_type, int64, int64[::1]))
def run_ops(h: Any, t: Any, ops: Any, at: Any, addresses: Any) -> Any:
    """rooms.run_ops."""
    return rooms.run_ops(bare(h), t, bare(ops), at, bare(addresses))


def pages_of(size: int) -> int:
    """Pages that a request of a size may need; ValueError for one that no heap has."""
    if not 0 <= size <= rooms.MAX_REQUEST:
        raise ValueError(f"{size} bytes are asked for; a request is 0 to {rooms.MAX_REQUEST}")
    return -(-size >> PAGE_SHIFT)


class TCMalloc:
    """A TCMalloc heap without a page, and threads without caches.

    ``overall_cache_size``: bytes that caches may hold together, clipped to 512 KiB to 1 GiB as the library does
    (TCMALLOC_MAX_TOTAL_THREAD_CACHE_BYTES). ``release_rate``: TCMALLOC_RELEASE_RATE, 0 = nothing is released by the
    clock. ``header`` is what rooms take, ``fields`` the same record for Python, ``arrays`` the tables by name.
    """

    def __init__(
        self, nthreads: int, overall_cache_size: int = DEFAULT_OVERALL_CACHE_SIZE, release_rate: float = 1.0
    ) -> None:
        if nthreads < 1:
            raise ValueError(f"nthreads is {nthreads}; a program has a thread at least")
        if not 0 <= release_rate < float("inf"):
            raise ValueError(f"release_rate is {release_rate}; it is 0 (nothing is released) or more")
        self.tables = new_tables()
        fields = self.tables.fields
        fields.nthreads = nthreads
        fields.release_rate = release_rate
        fields.overall_cache_size = min(max(overall_cache_size, MIN_OVERALL_CACHE_SIZE), MAX_OVERALL_CACHE_SIZE)
        fields.unclaimed_cache_space = fields.overall_cache_size
        self.tables.allocate("threads", nthreads)
        self.tables.allocate("calls", nthreads)
        self.tables.allocate("free_lists", nthreads * NUM_CLASSES)
        self._nvariables = [0] * nthreads  # of each thread's own
        self._variables_end = 0
        self.header = self.tables.header
        self.arrays = self.tables.arrays

    @property
    def fields(self):  # type: ignore[no-untyped-def]
        """The header record: scalars by name."""
        return self.tables.fields

    def make_room(self, npages: int) -> None:
        """Grow every table that one more span of npages for each thread could overflow (malloc.room_is_short)."""
        fields, n = self.fields, int(self.fields.nthreads) + 1
        pages = int(fields.heap_pages) + npages + n * MIN_SYSTEM_ALLOC + 2
        wanted = {
            "spans": int(fields.nspans) + 2 * n,
            "links": int(fields.nlinks) + n * rooms.MAX_LINKS,
            "pagemap": pages,
            "touched": pages,
            "large_normal": pages // MAX_PAGES,  # no more large spans fit into the heap
            "large_returned": pages // MAX_PAGES,
        }
        for name, need in wanted.items():
            self.tables.at_least(name, need)

    def new_cache(self, t: int) -> None:
        """A thread's cache is made, as by its first malloc."""
        new_cache(self.header, t)

    def delete_cache(self, t: int) -> None:
        """A thread that has a cache ends."""
        delete_cache(self.header, t)

    def malloc(self, t: int, size: int) -> int:
        """A thread's malloc of 0 to 1 TiB: the object's handle. Throw when the heap would be larger than that."""
        pages = pages_of(size)
        obj = malloc(self.header, t, size)
        if obj == 0:
            self.make_room(pages)
            obj = malloc(self.header, t, size)
        return int(obj)

    def free(self, t: int, obj: int) -> None:
        """A thread's free; of a thread that has no cache, for t = -1."""
        self._check(obj)
        free(self.header, t, obj)

    def realloc(self, t: int, obj: int, size: int) -> int:
        """A thread's realloc: the new handle; obj = 0 is NULL."""
        pages = 2 * pages_of(size)
        moved = realloc(self.header, t, obj, size)
        if moved == 0:
            self.make_room(pages)
            moved = realloc(self.header, t, obj, size)
        return int(moved)

    def address(self, obj: int) -> int:
        """Where an object begins, in bytes from the heap's lowest page."""
        return int(address(self.header, obj))

    def run_ops(self, t: int, ops: Any) -> Any:
        """Run a batch of operations (sim/ops.py) of a thread: the address of each allocation's object, -1 for others."""
        if PLAIN:
            ops = ops.view(np.recarray)
        addresses = np.empty(len(ops), np.int64)
        shared = (ops["flags"] & SHARED).astype(bool)
        own, common = (int(ops["obj"][flagged].max(initial=-1)) + 1 for flagged in (~shared, shared))
        self.make_variables(t, own, common)
        done = 0
        while True:
            done = run_ops(self.header, t, ops, done, addresses)
            if done == len(ops):
                return addresses
            self.make_room(pages_of(int(ops["arg"][done])))

    def hold(self, t: int, variable: int, obj: int) -> None:
        """A variable of a thread's own, which holds nothing, holds an object from now on."""
        self.make_variables(t, variable + 1, 0)
        self.arrays["variables"][int(self.arrays["threads"]["variables"][t]) + variable] = obj

    def make_variables(self, t: int, n: int, shared: int) -> None:
        """A thread has n variables of its own or more, the whole program ``shared``.

        A thread's get a new stretch at the end of the table when they were fewer.
        """
        self.tables.at_least("shared_variables", shared)
        had = self._nvariables[t]
        if n <= had:
            return
        first, end = int(self.arrays["threads"]["variables"][t]), self._variables_end
        self.tables.at_least("variables", end + 2 * n)
        table = self.arrays["variables"]
        table[end : end + had] = table[first : first + had]
        table[first : first + had] = 0
        self.arrays["threads"]["variables"][t] = end
        self._nvariables[t] = 2 * n
        self._variables_end = end + 2 * n

    def _check(self, obj: int) -> None:
        if not 0 < obj >> SLOT_BITS < self.tables.scalar("nspans"):
            raise ValueError(f"{obj} is no object's handle")
