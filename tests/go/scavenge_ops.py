"""The page allocator and its scavenger for Python to call: what the tests of scavenging share."""

import json
import lzma
from pathlib import Path

import numpy as np
from numba import boolean, int64, types, void

from sim.go.mgcscavenge import bytes_to_scavenge, free_os_memory, scavenge, scavenge_begin, scavenge_end
from sim.go.mgcscavenge_index import index_alloc, index_find, index_free, next_gen, set_empty
from sim.go.mpagealloc import page_alloc, page_alloc_grow, page_free
from sim.go.mpagecache import alloc_to_cache, page_cache_alloc, page_cache_flush
from sim.go.runtime import Heap
from sim.go.state import chunk_map, heap_type
from sim.jit import entry

CHUNK = 512
PAGE = 8192
BASE = 0xC000000000 >> 13
ALL_OF_IT = (1 << 63) - 1
RECORDED = Path(__file__).parents[1] / "data" / "scavenge.json.xz"


def recorded():
    return json.loads(lzma.decompress(RECORDED.read_bytes()))


@entry(types.UniTuple(int64, 2)(heap_type, int64))
def alloc(h, npages):
    return page_alloc(h, npages)


@entry(void(heap_type, int64, int64))
def free(h, page, npages):
    page_free(h, page, npages)


@entry(void(heap_type, int64))
def grow(h, page):
    page_alloc_grow(h, page, 512)


@entry(int64(heap_type, int64, int64))
def give_back(h, nbytes, force):
    return scavenge(h, nbytes, force != 0, False)


@entry(int64(heap_type))
def give_all_back(h):
    return free_os_memory(h)


@entry(types.UniTuple(int64, 2)(heap_type, int64, int64, int64, int64))
def begin(h, p, index, search, nbytes):
    return scavenge_begin(h, p, index, search, nbytes)


@entry(int64(heap_type, int64))
def end(h, p):
    return scavenge_end(h, p)


@entry(types.Tuple((int64, boolean))(heap_type, int64, int64))
def wanted(h, scav, growth):
    return bytes_to_scavenge(h, scav, growth)


@entry(void(heap_type))
def generation(h):
    next_gen(h)


@entry(types.UniTuple(int64, 2)(heap_type, int64))
def find(h, force):
    return index_find(h, force != 0)


@entry(void(heap_type, int64))
def fill_cache(h, p):
    alloc_to_cache(h, p)


@entry(types.UniTuple(int64, 2)(heap_type, int64, int64))
def cache_alloc(h, p, npages):
    return page_cache_alloc(h, p, npages)


@entry(void(heap_type, int64))
def flush_cache(h, p):
    page_cache_flush(h, p)


@entry(void(heap_type, int64, int64, int64))
def index_change(h, page, npages, allocated):
    """Tell the index alone that pages were allocated or freed."""
    while npages > 0:
        first = page & 511
        n = min(npages, 512 - first)
        at = np.int64(chunk_map(h)[page >> 9]) - 1
        if allocated:
            index_alloc(h, at, n)
        else:
            index_free(h, at, first, n)
        page += n
        npages -= n


@entry(void(heap_type, int64))
def empty(h, index):
    set_empty(h, np.int64(chunk_map(h)[index]) - 1)


def chunked_heap(version, indexes, base=BASE):
    """A page allocator with these chunks from page ``base`` on, all free, backed by memory and known to the scavenger."""
    heap = Heap(version, 2)
    heap.make_room(len(indexes) * CHUNK)
    for index in indexes:
        grow(heap.header, base + index * CHUNK)
        index_change(heap.header, base + index * CHUNK, CHUNK, 1)
        index_change(heap.header, base + index * CHUNK, CHUNK, 0)
    heap.arrays["chunks"]["scav"] = 0
    return heap


def cursor(heap, which, base=BASE):
    """(page from ``base``, -1 for none; whether it is marked) of the cursor ``bg`` or ``force``."""
    page = int(heap.fields[f"scav_search_{which}"])
    return (-1 if page < 0 else page - base), int(heap.fields[f"scav_marked_{which}"])
