"""Versions are a table: every difference between runtimes is a named fact of one of three versions.

go1.14 is the allocator as older texts describe it (mcentral's lists behind a mutex; structures and prices of
go1.19 otherwise); go1.19 that of the classic texts; go1.27 today's. A fact can be switched on any version:
"what did this mechanism buy?" is the question research asks.

Sources: Go 1.19.8 and 1.27.3, the files named at each fact.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Facts:
    """What the rooms ask of a version."""

    inline_mark_bits: bool  # 128 bytes of mark bits in spans of 16..512 B (mgcmark_greenteagc.go)
    heap_bits_in_span: bool  # pointer bitmap in scan spans up to 512 B (mbitmap.go:heapBitsInSpan)
    malloc_header: bool  # 8 bytes of type before scan objects over 512 B (malloc.go:mallocgcSmallScanHeader)
    mcentral_mutex: bool  # two lists behind a lock instead of span sets (mcentral.go up to 1.14)
    huge_page_advice: bool  # MADV_HUGEPAGE on heap memory: 2 MiB faults (mem_linux.go:sysUsedOS, 1.19)
    skip_zeroing_scavenged: bool  # a span whose pages were all scavenged reads as zeros (mheap.go:initSpan)
    clears_scan_in_chunks: bool  # large pointerful objects too are cleared 256 KiB at a time, preemptibly (malloc.go)
    # runtime/metrics knows CPU time by class, scan sizes, settings and pauses of both kinds (metrics.go, 1.20 to 1.22)
    cpu_metrics: bool
    spinbit_mutex: bool  # one waiter spins, the others sleep (lock_spinbit.go); else every waiter spins (lock_futex.go)
    max_small_size: int  # largest request served from a size class (malloc.go:mallocgc)
    stop_keeps_goroutine: bool  # who is stopped with the world goes on on its P; else it queues up again (goschedImpl)
    scavenge_index_bits: bool  # a bit a chunk, mapped up from index 0 (mpagealloc_64bit.go:scavengeIndex.grow, 1.19)
    linear_layout: bool = False  # one spans/bitmap/arena reservation, as before Go 1.11
    # Random first arena, chunk and page (malloc.go:mallocinit, mheap.go:grow). Go 1.27 has it on; it is off here, so
    # that addresses start at 0xc000000000 and runs and versions compare.
    randomized_heap_base: bool = False


_GO119 = Facts(
    inline_mark_bits=False,
    heap_bits_in_span=False,
    malloc_header=False,
    mcentral_mutex=False,
    huge_page_advice=True,
    skip_zeroing_scavenged=False,
    clears_scan_in_chunks=False,
    cpu_metrics=False,
    spinbit_mutex=False,
    max_small_size=32768,
    stop_keeps_goroutine=False,
    scavenge_index_bits=True,
)
VERSIONS: dict[str, Facts] = {
    "go1.14": replace(_GO119, mcentral_mutex=True),
    "go1.19": _GO119,
    "go1.27": Facts(
        inline_mark_bits=True,
        heap_bits_in_span=True,
        malloc_header=True,
        mcentral_mutex=False,
        huge_page_advice=False,
        skip_zeroing_scavenged=True,
        clears_scan_in_chunks=True,
        cpu_metrics=True,
        spinbit_mutex=True,
        max_small_size=32760,
        stop_keeps_goroutine=True,
        scavenge_index_bits=False,
    ),
}


def set_facts(fields: Any, facts: Facts) -> None:
    """Write a version's facts into a heap's header record."""
    for name, value in asdict(facts).items():
        if name in fields.dtype.names:
            fields[name] = value
