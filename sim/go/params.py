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
    spinbit_mutex: bool  # one waiter spins, the others sleep (lock_spinbit.go); else every waiter spins (lock_futex.go)
    max_small_size: int  # largest request served from a size class (malloc.go:mallocgc)
    stop_keeps_goroutine: bool  # who is stopped with the world goes on on its P; else it queues up again (goschedImpl)
    # The scavenger's index: a bit a chunk, mapped up from index 0, and one cursor (mgcscavenge.go, mpagealloc_64bit.go of
    # 1.19); else pages in use by chunk and generation, two cursors, and dense chunks passed over but by force.
    scavenge_index_bits: bool
    # The background scavenger aims at 95 times the memory limit instead of 95 % (mgcscavenge.go:gcPaceScavenger, 1.19)
    memory_limit_goal_times_95: bool
    pi_pacer: bool  # cons/mark smoothed by a PI controller; else the largest of the last five (mgcpacer.go:endCycle)
    triggered_is_heap_live: bool  # a cycle starts from heapLive as it is, not from the computed trigger (startCycle)
    memory_limit_headroom_percent: int  # of the limit's goal kept free, at least 1 MiB (memoryLimitHeapGoal)
    sweep_batch: int  # spans the background sweeper sweeps between two looks whether to yield; 1: it yields after each
    flushes_idle_page_caches: bool  # after each mark termination (mgc.go:gcMarkTermination)
    # runtime/metrics knows CPU time by class, scan sizes, settings and pauses of both kinds (metrics.go, 1.20 to 1.22)
    cpu_metrics: bool
    # A span of small objects with pointers of which an eighth is to be scanned is scanned by whole slots, and they count
    # so (mgcmark_greenteagc.go:scanSpan); on CPUs that have AVX-512 with its byte permutations, as most servers since 2019:
    # a machine whose prices say that it has not (`sim.costs.Prices.wide_vectors`) does without
    dense_scan: bool
    restart_gives_workers: bool  # Ps without work are given mark workers when the world goes on (proc.go:procresize, 1.27)
    # Most bytes of an allocation whose path calls nothing between its assist and acquirem: it cannot be preempted there, as
    # a larger one is that is to leave its P (malloc.go:mallocgc, malloc_generated.go of 1.27); before, all are on one path
    assist_inlined: int
    gosched_wakes: bool  # who yields or is preempted wakes a P to look around (proc.go:goschedImpl, 1.27)
    # Bytes of .bss of a program that only allocates. Nearly all of it is the runtime's: that of larger programs is hardly
    # larger, 133 to 156 KB in eight of ten of Go 1.27's own tools, 193 to 210 KB in sixteen of eighteen of Go 1.19's
    runtime_bss: int
    gc_assists: bool = True  # allocation marks to pay for itself (malloc.go:deductAssistCredit); Go cannot do without
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
    spinbit_mutex=False,
    max_small_size=32768,
    stop_keeps_goroutine=False,
    scavenge_index_bits=True,
    pi_pacer=True,
    triggered_is_heap_live=False,
    memory_limit_headroom_percent=0,
    sweep_batch=1,
    flushes_idle_page_caches=False,
    memory_limit_goal_times_95=True,
    cpu_metrics=False,
    dense_scan=False,
    restart_gives_workers=False,
    assist_inlined=1 << 60,
    gosched_wakes=False,
    runtime_bss=191_520,
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
        spinbit_mutex=True,
        max_small_size=32760,
        stop_keeps_goroutine=True,
        scavenge_index_bits=False,
        pi_pacer=False,
        triggered_is_heap_live=True,
        memory_limit_headroom_percent=3,
        sweep_batch=10,
        flushes_idle_page_caches=True,
        memory_limit_goal_times_95=False,
        cpu_metrics=True,
        dense_scan=True,
        restart_gives_workers=True,
        assist_inlined=80,
        gosched_wakes=True,
        runtime_bss=131_704,
    ),
}


def nearest_version(minor: int) -> str:
    """The version here that has most of the structures of Go 1.``minor``.

    1.15 brought central lists without a mutex, 1.22 malloc headers.
    """
    return "go1.14" if minor < 15 else "go1.19" if minor < 22 else "go1.27"


def set_facts(fields: Any, facts: Facts) -> None:
    """Write a version's facts into a heap's header record."""
    for name, value in asdict(facts).items():
        if name in fields.dtype.names:
            fields[name] = value
