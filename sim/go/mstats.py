"""Memory statistics under MemStats' names, derived from the ledger (mirrors mstats.go:readmemstats_m).

Only what says where memory is. Left out: objects (Alloc, Mallocs, Frees), which need the caches flushed first, and what
belongs to the collector and to threads (NextGC, pauses, workbufs, system stacks, profiling buckets).
"""

from __future__ import annotations

from typing import Any

from numba import void

from sim.go.mcache import release_all
from sim.go.mfixalloc import SYS_PAGE
from sim.go.runtime import Heap
from sim.go.stack import stackcache_clear
from sim.go.state import CACHEALLOC, SPANALLOC, heap_type
from sim.jit import bare, entry


@entry(void(heap_type))
def flush_all_mcaches(h: Any) -> None:
    """Give back what every P has cached, so that all it allocated is counted. (mstats.go:flushallmcaches)"""
    h = bare(h)
    for p in range(h[0].nprocs):
        release_all(h, p)
        stackcache_clear(h, p)


def rss(heap: Heap) -> int:
    """Bytes of the heap, stacks included, that memory stands behind: its part of what the system shows as RSS."""
    return int(heap.fields.resident_pages) * SYS_PAGE


def mem_stats(heap: Heap) -> dict[str, int]:
    """The memory fields of Go's MemStats, and MappedReady (gcController.mappedReady)."""
    fields, arrays = heap.fields, heap.arrays
    heap_sys = int(fields.heap_in_use + fields.heap_free + fields.heap_released)
    meta = {
        "MSpanSys": int(fields.mspan_sys),
        "MCacheSys": int(fields.mcache_sys),
        "GCSys": int(fields.gc_sys),
        "OtherSys": int(fields.other_sys),
    }
    stacks = int(fields.stacks_in_use)
    return {
        "Sys": heap_sys + stacks + sum(meta.values()),
        "HeapSys": heap_sys,
        "HeapIdle": int(fields.heap_free + fields.heap_released),
        "HeapInuse": int(fields.heap_in_use),
        "HeapReleased": int(fields.heap_released),
        "StackInuse": stacks,
        "StackSys": stacks,
        "MSpanInuse": int(arrays["fixallocs"].inuse[SPANALLOC]),
        "MCacheInuse": int(arrays["fixallocs"].inuse[CACHEALLOC]),
        **meta,
        "MappedReady": int(fields.mapped_ready),
    }
