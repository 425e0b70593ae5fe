"""The allocator's whole state: every record and table, on one page.

The rooms (mspan, mcache, mcentral, mheap, mpagealloc, malloc) are functions over these tables; none keeps state of
its own. One header record holds the scalars of Go's package globals (mheap_, pages) and the address and length
of each table; every compiled function takes that header as ``h`` and reads scalars as ``h[0].sweepgen``.

Addresses are absolute. A *page* is a page number, address >> 13; a *chunk* is page >> 9 (4 MiB); an *arena* is
page >> 13 (64 MiB). Spans are named by their index in the span table; 0 stands for emptymspan and "none".

Bitmaps of a span live in one pool of 64-bit words (``words``), ceil(nelems/64) words each; tiny spans (span
class 5) carry a count of live tiny objects per slot behind them, one byte each.

A variable of the workload (sim/ops.py) holds ``span << 16 | slot``: one look-up finds an object that dies.

Bytes for 2.7 million spans of the ten-size mix: 72 a span, about 24 for its bitmaps, 4 a page for the page map.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import Tables, header_dtype, header_type, table

PAGE_SHIFT = 13
PAGE_SIZE = 1 << PAGE_SHIFT
CHUNK_PAGES = 512
ARENA_PAGES = 8192
NUM_SPAN_CLASSES = 136
NUM_SIZE_CLASSES = 68
TINY_SPAN_CLASS = 5
MSPAN_CACHE_LEN = 128
NUM_STACK_ORDERS = 4
NUM_STACK_LARGE = 36  # lists of large stack spans, by bit length of their pages
SUMMARY_LEVELS = 5
LEVEL_BITS = (14, 3, 3, 3, 3)
SUMMARY_PAGE_WORDS = 2469  # bits for 32 + 256 + 2048 + 16384 + 131072 pages of summaries and 8192 chunk maps
NO_PAGE = -1
NEVER = 1 << 62
NO_GOAL = (1 << 63) - 1  # no memory limit, or a goal of the scavenger that is met
MAX_OCCUPIED = 8
MAX_FRESH = 255  # of a span's ``fresh``

# mspan.state
SPAN_DEAD = 0
SPAN_IN_USE = 1
SPAN_MANUAL = 2

# gcphase
GC_OFF = 0
GC_MARK = 1  # write barrier on, new objects black
GC_MARK_TERMINATION = 2

SPAN = np.dtype(
    [
        ("start_page", "i8"),  # startAddr >> 13
        ("npages", "i8"),
        ("elemsize", "i8"),  # bytes of a slot; of the whole span for a large object
        ("alloc_cache", "u8"),  # complement of alloc_bits from freeindex on; bit 0 is slot freeindex
        ("alloc_bits", "i4"),  # first word of allocBits in the pool
        ("mark_bits", "i4"),  # first word of gcmarkBits
        ("dead_bits", "i4"),  # first word of the slots the workload has dropped (not in Go)
        ("freeindex", "i4"),  # slots below are taken; the next one is sought from here
        ("nelems", "i4"),
        ("alloc_count", "i4"),
        ("alloc_count_before_cache", "i4"),
        ("next", "i4"),  # next span in the list of free records
        # sweepgen against the heap's sg: sg-2 needs sweeping, sg-1 being swept, sg swept and ready,
        # sg+1 cached before this cycle's sweep began and still cached, sg+3 swept, then cached, still cached
        ("sweepgen", "u4"),
        ("spanclass", "u1"),
        ("state", "u1"),
        ("needzero", "u1"),  # memory was used before: a new object may have to be cleared
        # 0 = memory stands behind all of it; else pages came from the system, and 1 + how many 4 KiB pages from its start
        # on are known to be resident, up to 255
        ("fresh", "u1"),
    ],
    align=True,
)

SPANSET = np.dtype(
    [
        ("head", "i4"),  # block of the entry to pop next, 0 = none
        ("tail", "i4"),  # block of the entry pushed last
        ("pushed", "i8"),  # entries since the last reset, as Go's tail and head indexes: the set is [popped, pushed)
        ("popped", "i8"),
        ("spine_len", "i4"),  # blocks entered in the spine since the last reset
        ("spine_cap", "i4"),  # blocks the spine has room for
    ],
    align=True,
)

BLOCK_ENTRIES = 512  # spans of a block of a span set (mspanset.go:spanSetBlockEntries)
SET_BLOCK = np.dtype([("next", "i4"), ("entries", "i4", (BLOCK_ENTRIES,))], align=True)

MCACHE = np.dtype(
    [
        ("alloc", "i4", (NUM_SPAN_CLASSES,)),  # cached span by span class; 0 = emptymspan
        ("tiny_span", "i4"),  # span of the current tiny block, 0 = none
        ("tiny_slot", "i4"),
        ("tinyoffset", "i8"),
        ("tiny_allocs", "i8"),
        ("next_sample", "i8"),  # bytes until the next heap-profile sample
        ("scan_alloc", "i8"),
        ("flush_gen", "u4"),  # heap sweepgen at the last flush
        ("pcache_base", "i8"),  # first page of the 64 the page cache covers
        ("pcache", "u8"),  # its free pages, 1 = free
        ("pcache_scav", "u8"),  # which of them are scavenged
        ("mspancache", "i4", (MSPAN_CACHE_LEN,)),  # free span records
        ("mspancache_len", "i4"),
        ("palloc_off", "i4"),  # bytes used of the P's own persistentalloc chunk, 0 = it has none (p.palloc)
        ("stackcache_list", "i8", (NUM_STACK_ORDERS,)),  # address of the first free stack by order (2, 4, 8, 16 KiB)
        ("stackcache_size", "i8", (NUM_STACK_ORDERS,)),  # bytes in that list
    ],
    align=True,
)

CHUNK = np.dtype(
    [
        ("index", "i8"),  # address >> 22
        ("bits", "u8", (8,)),  # 1 = in use
        ("scav", "u8", (8,)),  # 1 = scavenged: not backed by memory
        ("in_use", "i4"),  # pages in use now, for the scavenger's density rule
        ("last_in_use", "i4"),  # the same at the end of the last generation
        ("gen", "u4"),
        ("flags", "u4"),  # 1: something in it was freed since a scavenger found nothing (mgcscavenge_index)
    ],
    align=True,
)

ARENA = np.dtype(
    [
        ("index", "i8"),  # address >> 26
        ("zeroed_base", "i8"),  # bytes from the arena's start that have been used before
        ("page_in_use", "u8", (128,)),  # first page of each in-use span
        ("page_marks", "u8", (128,)),
        ("touched", "u8", (256,)),  # 4 KiB system pages that memory stands behind
        # 4 KiB pages of the arena's metadata touched so far: 512 of heap bitmap, 16 of spans[], 2 of the rest
        ("meta_touched", "u8", (9,)),
    ],
    align=True,
)

# which fixalloc of mheap (index of table ``fixallocs``)
SPANALLOC = 0
CACHEALLOC = 1
ARENA_HINT_ALLOC = 2

FIXALLOC = np.dtype(
    [
        ("record_bytes", "i8"),  # Go's size
        ("nalloc", "i8"),  # bytes of a chunk: the multiple of size that fits 16 KiB
        ("chunk", "i8"),  # where the next record is cut, within its persistentalloc chunk
        ("nchunk", "i8"),  # bytes left in the chunk
        ("inuse", "i8"),  # bytes of records handed out and not given back
        ("list", "i4"),  # record freed last (LIFO, linked through the records), 0 = none
        ("stat", "i4"),  # the statistic its bytes count in (mfixalloc)
    ],
    align=True,
)

# where the time of one mallocgc call went; row 0 of the histograms is the whole call
CAUSES = (
    "all",
    "tiny",  # combined into the current tiny block
    "fast",  # the next slot of the cached span
    "refill_partial",  # trading a full span for a swept one with room
    "refill_fresh",  # trading it for a new one: initialising it, pages from the P's page cache
    "central_wait",  # mcentral's lock (go1.14): waiting for it and holding it
    "heap_wait",  # waiting for mheap.lock
    "page_cache",  # holding it to take 64 pages at once
    "page_search",  # holding it to search the page allocator
    "grow",  # holding it while the heap grows
    "first_touch",  # page faults on memory that malloc itself is first to touch
    "zero",  # clearing used memory
    "large",  # a large object beyond its pages
    "off_p",  # off the P in the middle of mallocgc
    "profile",  # recording it for the heap profile
    "assist",  # marking for the collector, to pay for what the goroutine allocates
    "assist_parked",  # parked until background workers have paid the debt
    "sweep",  # sweeping spans on the way to one with room, or to pay for the heap's growth
    "stw",  # stopped with the world, or stopping it to start a collection
    "gc_worker",  # off the P in the middle of mallocgc while a collection is marking
    "scavenge",  # giving other memory back, because of a memory limit or because the heap grew
)
ALL, TINY, FAST, PARTIAL, FRESH, CENTRAL_WAIT, HEAP_WAIT, PAGE_CACHE, PAGE_SEARCH, GROW, FIRST_TOUCH = range(11)
ZEROING, LARGE, OFF_P, PROFILE, ASSIST, ASSIST_PARKED, SWEEP, STW, GC_WORKER, SCAVENGE = range(11, 21)
NUM_CAUSES = len(CAUSES)

# rows of the price table: by span class, then sim.costs.STEPS in order
PRICE_FRESH = 0
PRICE_PARTIAL = NUM_SPAN_CLASSES
PRICE_STEPS = 2 * NUM_SPAN_CLASSES
PRICE = np.dtype([("mean", "i8"), ("row", "i8")], align=True)  # row of cells, or -1: always the mean

# a goroutine as the compiled interpreter of operations sees it; index 0 is nobody
GOROUTINE = np.dtype(
    [
        ("ops", "i8"),  # address of its batch of operations
        ("nops", "i8"),
        ("pos", "i8"),  # the next one
        ("variables", "i8"),  # first of its own
        ("left", "i8"),  # picoseconds left of a compute that was cut; bytes left to clear of a large object
        ("stage", "u1"),  # what the allocation in progress waits for (sim/go/pump.py)
        ("span", "i4"),  # span record taken for it
        ("spanclass", "i4"),
        ("page", "i8"),  # pages taken for it, NO_PAGE if none yet
        ("npages", "i8"),
        ("scav", "i8"),  # how many of them were scavenged
        ("owed", "i8"),  # picoseconds of sweeping and metadata that it has yet to spend
        ("owed_sweeps", "i8"),  # those of sweeping
        ("assist_bytes", "i8"),  # bytes it may allocate before it has to assist (gcAssistBytes)
        ("assist_work", "i8"),  # scan work that the assist in progress has to do
        ("assist_base", "i8"),  # assist_each when it began
        ("assist_start", "i8"),  # when it began
        ("assist_paid", "u1"),  # the allocation at ``pos`` has been charged to assist_bytes: 1, and 2 if that took time
        # its stack (sim/go/stack.py, gfree.py)
        ("stack", "i8"),  # lowest address, 0 = it has none
        ("stack_size", "i8"),  # bytes
        ("stack_used", "i8"),  # bytes its frames reach down from the top, 0 = it is dead
        ("schedlink", "i4"),  # the next dead one in its list
        ("growth", "i8"),  # pages the heap grew by to have them
        ("spent", "i8", (NUM_CAUSES,)),  # picoseconds of the allocation so far, by cause
    ],
    align=True,
)

# a P as the interpreter sees it; its clock stands in the table p_time
PROC = np.dtype(
    [
        ("g", "i4"),  # the goroutine it runs
        ("lag", "i8"),  # picoseconds run ahead in the segment in progress
        ("slice_end", "i8"),  # the goroutine's 10 ms are over
        ("cpu_end", "i8"),  # another thread may have the CPU from here on
        ("draw_key", "u8"),  # the stream of price draws of this P
        ("draws", "u8"),
        ("sample_key", "u8"),  # the stream of distances between heap-profile samples
        ("samples", "i8"),  # values of it used
        ("barrier", "u1"),  # somebody waits for it to come to a safepoint
        ("rest", "i8"),  # femtoseconds carried over by per-byte prices, so that time adds up exactly
        ("malloc_time", "i8"),  # picoseconds inside mallocgc on this P's own clock (lock waits not included)
        ("compute_time", "i8"),
        ("compute_seen", "i8"),  # what that was at the last malloc, -1 if the program wrote to the object after it
        ("touch_time", "i8"),  # first touches by the program
        ("assist_time", "i8"),  # marking inside mallocgc
        ("lock_time", "i8"),  # holds of mheap.lock that compiled code granted
        ("mallocs", "i8"),
        ("segments", "i8"),
        ("limiter_event", "u1"),  # what it is at that the GC CPU limiter counts (mgclimit)
        ("limiter_event_start", "i8"),  # since when that is not counted yet
        # stacks (sim/go/stack.py, gfree.py)
        ("gfree", "i4"),  # dead goroutines of this P, the last one to die first
        ("gfree_n", "i4"),
        ("g0_stack", "i8"),  # stacks of the thread that runs it (16 KiB, 32 KiB), 0 = there is none yet
        ("gsignal_stack", "i8"),
        ("old_stack", "i8"),  # a stack it is about to free, 0 = none
        ("old_stack_size", "i8"),
        ("old_spans", "i4"),  # spans of stacks it is about to give back to the heap, linked by next
        ("scav_page", "i8"),  # what a scavenger on it is giving back: in use in the bitmaps, held by nobody else
        ("scav_npages", "i8"),
    ],
    align=True,
)

# kinds of hits in a cached span: of memory that needs no clearing, right after another malloc, or after other work, and any
# while the collector marks
HIT_FRESH = 0
HIT_CLEARED = 1
HIT_APART = 2
HIT_MARKING = 3
HIT_KINDS = 4

# what a timeline is told of within mallocgc
WORK_ASSIST = 1
WORK_SWEEP = 2
WORK = np.dtype([("time", "i8"), ("length", "i8"), ("p", "i4"), ("kind", "i4")], align=True)

LOG = np.dtype([("time", "i8"), ("p", "i4"), ("kind", "i4"), ("arg", "i8")], align=True)

TABLES: dict[str, Any] = {
    "spans": SPAN,
    "words": np.uint64,
    "set_blocks": SET_BLOCK,  # blocks of the span sets
    "spansets": SPANSET,  # index spanclass * 4 + {0, 1} for partial[i], + {2, 3} for full[i]
    "mcaches": MCACHE,  # by P
    "chunks": CHUNK,
    "chunk_map": np.int32,  # chunk index -> 1 + position in chunks; 0 = not ours
    "summary0": np.uint64,
    "summary1": np.uint64,
    "summary2": np.uint64,
    "summary3": np.uint64,
    "summary4": np.uint64,
    "summary_pages": np.uint64,  # bit a 4 KiB page of the summaries touched so far (mpagealloc_64bit)
    "fixallocs": FIXALLOC,  # SPANALLOC, CACHEALLOC, ARENA_HINT_ALLOC
    "arenas": ARENA,
    "arena_map": np.int32,  # arena index -> 1 + position in arenas
    "page_span": np.int32,  # position in arenas * 8192 + page in arena -> span
    "variables": np.int64,  # what each goroutine's variables hold: span << 16 | slot, 0 = nil
    "shared_variables": np.int64,  # the same of the whole program's
    "prices": PRICE,
    "cells": np.int64,  # equally likely values of prices that vary, 1024 a row
    "fast_price": np.int64,  # by span class
    "zero_price": np.int64,
    "hit_price": np.int64,  # a hit that clears, with other work before it: the mean
    "marking_price": np.int64,  # a hit while the collector marks: the mean
    "mark_object": np.int64,  # picoseconds a marked object, by span class
    "mark_byte": np.int64,  # femtoseconds a byte of scan work, by span class
    "sweep_kept": np.int64,  # picoseconds to sweep a span that stays in use, by span class
    "sweep_freed": np.int64,  # and one whose pages go back to the heap
    "small_alloc_count": np.int64,  # by size class, flushed at refill
    "small_free_count": np.int64,
    "fast_calls": np.int64,  # mallocs that were nothing but a fast-path hit: span class * HIT_KINDS + kind
    "histograms": np.int64,  # latency counts of all other mallocs, BUCKETS a cause
    "cause_time": np.int64,  # their picoseconds by cause
    "cause_max": np.int64,
    "procs": PROC,  # by P
    # by P: when its next step is due, NEVER if it is not in the pump; behind them the collector's next turn
    "p_time": np.int64,
    "scan_bytes": np.int64,  # bytes up to their last pointer of all objects allocated so far, by span class
    "scan_read": np.int64,  # and how many of those marking reads
    "scan_count": np.int64,  # how many those are; for large objects their bytes
    "mark_counts": np.int64,  # objects of the last mark set-up, by span class
    "sparse_counts": np.int64,  # and those of them that are not scanned as whole slots
    "assist_queue": np.int32,  # goroutines parked in an assist: a ring
    "assist_ready": np.int32,  # those whose debt was paid since Python looked last
    "goroutines": GOROUTINE,
    "work_log": WORK,  # assists and sweeps, for a timeline; length 1 = off
    "log": LOG,  # what happened in order, for tests; length 1 = off
}

SCALARS = [
    # facts of the version (params.py)
    ("inline_mark_bits", "u1"),
    ("heap_bits_in_span", "u1"),
    ("malloc_header", "u1"),
    ("dense_scan", "u1"),
    ("mcentral_mutex", "u1"),
    ("huge_page_advice", "u1"),
    ("skip_zeroing_scavenged", "u1"),
    ("clears_scan_in_chunks", "u1"),
    ("linear_layout", "u1"),
    ("randomized_heap_base", "u1"),
    ("scavenge_index_bits", "u1"),
    ("max_small_size", "i8"),
    ("pi_pacer", "u1"),
    ("triggered_is_heap_live", "u1"),
    ("memory_limit_headroom_percent", "i8"),
    ("gc_assists", "u1"),
    # mheap_
    ("sweepgen", "u4"),
    ("sweep_drained", "u1"),  # nothing is left in the sets to sweep (sweep.active's drained bit)
    ("sweepers", "i4"),  # sweepers that keep the sweep from being done, beyond the one at work (sweep.active)
    ("central_index", "i8"),  # sweep class the background sweeper is at, 272 = done
    ("pages_in_use", "i8"),
    ("pages_swept", "i8"),
    ("pages_swept_basis", "i8"),  # pages_swept where the sweep ratio starts
    ("sweep_heap_live_basis", "i8"),  # heap_live where it starts
    ("sweep_pages_per_byte", "f8"),  # proportional sweep ratio
    ("reclaim_index", "i8"),  # next page of the arenas to reclaim from, 1 << 62 = nothing left
    ("reclaim_credit", "i8"),  # pages swept in excess of what was asked
    ("heap_live", "i8"),
    ("heap_scan", "i8"),
    ("total_alloc", "i8"),
    ("total_free", "i8"),
    ("large_alloc", "i8"),
    ("large_alloc_count", "i8"),
    ("large_free", "i8"),
    ("large_free_count", "i8"),
    ("tiny_allocs", "i8"),
    ("cur_arena_base", "i8"),  # bytes
    ("cur_arena_end", "i8"),
    ("arena_hint", "i8"),  # where the next arena is asked for, 0 = no hint left
    ("arena_hint_down", "u1"),  # that hint ends there instead
    ("arena_hint_below", "i8"),  # the hint behind it that grows downwards, 0 = none
    ("arena_hints_left", "i8"),  # general hints behind it
    ("heap_rand", "u8"),  # the word a randomized heap base is drawn from
    ("padding_pages", "i8"),  # random pages at the heap's start that are never used
    ("padding_start", "i8"),
    ("occupied", "i8", (2 * MAX_OCCUPIED,)),  # address ranges others hold, [first, end) each
    ("noccupied", "i8"),
    ("linear_spans_mapped", "i8"),  # bytes of the linear layout's spans and bitmap that are mapped
    ("linear_bitmap_mapped", "i8"),
    # pages (mpagealloc): see there
    ("search_addr", "i8"),  # page; no free page below it
    ("levels_walked", "i8"),  # steps of the radix search so far
    ("start_chunk", "i8"),
    ("end_chunk", "i8"),
    ("nchunks", "i8"),
    # its scavenge index: cursors are pages, NO_PAGE = nothing to find (mgcscavenge_index)
    ("scav_search_bg", "i8"),
    ("scav_search_force", "i8"),
    ("scav_marked_bg", "u1"),  # the cursor rose and has not fallen since
    ("scav_marked_force", "u1"),
    ("scav_free_hwm", "i8"),  # highest page freed this generation
    ("scav_gen", "u4"),
    ("scav_index_min", "i8"),  # 4 KiB pages of the scavenge index that are mapped: [min, max)
    ("scav_index_max", "i8"),
    ("summary_mapped", "i8"),  # 4 KiB pages of summaries that are mapped
    ("chunk_maps", "i8"),  # 1 MiB arrays of chunk bitmaps
    ("in_use_ranges", "i8"),  # contiguous stretches of the heap, and room for
    ("in_use_cap", "i8"),
    # counts of records in use
    ("nspans", "i8"),
    ("narenas", "i8"),  # len(allArenas)
    ("sweep_arenas", "i8"),  # how many of them there were when this sweep began, and this mark
    ("mark_arenas", "i8"),
    ("arenas_cap", "i8"),
    ("allspans_cap", "i8"),
    ("nwords", "i8"),
    ("free_words", "i4", (129,)),  # heads of lists of free runs, by length in words
    # the byte ledger: what the runtime has from the system
    ("heap_in_use", "i8"),
    ("heap_free", "i8"),
    ("heap_released", "i8"),
    ("stacks_in_use", "i8"),
    ("mapped_ready", "i8"),
    ("mspan_sys", "i8"),
    ("mcache_sys", "i8"),
    ("gc_sys", "i8"),  # gcMiscSys: mark bits, arena metadata, page-allocator summaries, span sets
    ("other_sys", "i8"),
    ("reserved", "i8"),  # address space in the Reserved state
    ("arena_index", "i8"),  # bytes of the L2 arena map: paged in on demand, in no statistic of Go's
    # off-heap metadata (mfixalloc)
    ("palloc_off", "i4"),  # bytes used of the global persistentalloc chunk, 0 = none
    ("persistent_chunks", "i8"),  # 256 KiB chunks, the Ps' included
    ("gcbits_free", "i8"),  # next free byte of the arena that heads the next epoch's
    ("gcbits_fresh", "u1"),  # that arena is straight from the system
    ("gcbits_next", "i8"),  # 64 KiB arenas of mark bits by epoch
    ("gcbits_current", "i8"),
    ("gcbits_previous", "i8"),
    ("gcbits_spare", "i8"),
    ("nset_blocks", "i8"),  # rows of set_blocks ever used
    ("free_set_block", "i4"),  # the first of those that are free, 0 = none
    ("spanset_blocks", "i8"),  # blocks of span sets made so far
    ("spanset_pool", "i8"),  # of them unused
    # the pacer (mgcpacer.py); heap_live, heap_scan, total_alloc, total_free, mapped_ready, heap_free are its inputs too
    ("gc_blacken_enabled", "u1"),  # marking: heap_scan stands still, each change of heap_live revises the assist ratio
    ("gc_percent", "i8"),  # GOGC, -1 = off
    ("memory_limit", "i8"),  # bytes, 2**63 - 1 = none
    ("heap_minimum", "i8"),
    ("runway", "u8"),  # bytes the program is expected to allocate while marking goes on
    ("cons_mark", "f8"),  # bytes allocated per bytes marked, both per CPU time
    ("last_cons_mark", "f8", (4,)),  # as measured, the oldest first (without pi_pacer)
    ("cons_mark_err_integral", "f8"),  # of the PI controller (with pi_pacer)
    ("gc_percent_heap_goal", "i8"),  # 2**63 - 1 = none
    ("sweep_dist_min_trigger", "i8"),
    ("triggered", "i8"),  # where the cycle in progress began, -1 = none is
    ("last_heap_goal", "i8"),
    ("last_heap_scan", "i8"),
    ("last_stack_scan", "i8"),
    ("globals_scan", "i8"),
    ("heap_marked", "i8"),
    ("heap_scan_work", "i8"),
    ("stack_scan_work", "i8"),
    ("globals_scan_work", "i8"),
    ("bg_scan_credit", "i8"),
    ("assist_time", "i8"),  # these times in picoseconds
    ("dedicated_mark_time", "i8"),
    ("fractional_mark_time", "i8"),
    ("idle_mark_time", "i8"),
    ("mark_start_time", "i8"),
    ("dedicated_mark_workers_needed", "i8"),
    ("idle_mark_workers", "i8"),  # at work now
    ("max_idle_mark_workers", "i8"),
    ("assist_work_per_byte", "f8"),
    ("assist_bytes_per_work", "f8"),
    ("fractional_utilization_goal", "f8"),
    # the GC CPU limiter (mgclimit.py), times in picoseconds
    ("limiter_enabled", "u1"),  # the bucket is full: assists return at once
    ("limiter_gc_enabled", "u1"),  # marking, as of the last transition
    ("limiter_transitioning", "u1"),
    ("limiter_fill", "i8"),
    ("limiter_capacity", "i8"),
    ("limiter_overflow", "i8"),  # GC time so far that found no room
    ("limiter_assist_time_pool", "i8"),  # since the last update
    ("limiter_idle_time_pool", "i8"),
    ("limiter_last_update", "i8"),
    ("limiter_nprocs", "i8"),
    # stacks (sim/go/stack.py): who else frees or keeps spans depends on the phase
    ("gc_phase", "u1"),  # GC_OFF, GC_MARK, GC_MARK_TERMINATION
    ("stackpool", "i4", (NUM_STACK_ORDERS,)),  # first span of each order with a free stack
    ("stack_large", "i4", (NUM_STACK_LARGE,)),  # first free span of large stacks, by bit length of its pages
    ("starting_stack_size", "i8"),  # bytes a goroutine begins with, unless its g is new
    ("scanned_stack_size", "i8"),  # bytes and stacks scanned since that was set last, on all Ps
    ("scanned_stacks", "i8"),
    ("max_stack_scan", "i8"),  # bytes of the stacks of live goroutines
    ("stack_copies", "i8"),  # stacks copied so far, and their bytes
    ("stack_copied", "i8"),
    ("ngs", "i8"),  # goroutines ever made (allgs), and one for nobody
    ("gfree_stack", "i4"),  # dead ones that no P has, with and without a stack
    ("gfree_nostack", "i4"),
    ("gfree_global", "i8"),  # how many
    # the scavenger (mgcscavenge.py); goals in bytes, NO_GOAL = off
    ("gc_percent_goal", "i8"),  # heap to retain
    ("memory_limit_goal", "i8"),  # mapped_ready to come down to
    ("last_heap_in_use", "i8"),  # heap_in_use at the last mark termination
    ("resident_pages", "i8"),  # 4 KiB pages of the heap that memory stands behind: ones in ARENA.touched
    ("scav_released_bg", "i8"),  # bytes released since the last line of scavtrace: by the background scavenger
    ("scav_released_eager", "i8"),  # by allocation (go1.27; go1.19's line counts the background alone)
    ("scavenge_assist_time", "i8"),  # picoseconds of scavenging by allocation and in the background since the start
    ("scavenge_background_time", "i8"),
    # what the workload holds
    ("live_objects", "i8"),
    ("live_bytes", "i8"),  # slot bytes; of tiny objects none
    # the clock's side (sim/go/pump.py)
    ("stop", "u1"),  # stop-the-world wanted: no new segment begins
    ("event_per_op", "u1"),  # run-ahead off: every operation is an event of its own
    ("cpu_waiters", "i4"),  # threads waiting for a CPU
    # mheap.lock (heaplock.py)
    ("heap_lock_here", "u1"),  # compiled code keeps it: nobody waits
    ("heap_lock_holder", "i8"),  # the P in a hold that compiled code granted, -1 = none
    ("heap_lock_since", "i8"),  # when it began
    ("heap_lock_acquisitions", "i8"),  # since Python counted them last
    ("heap_lock_hold", "i8"),  # picoseconds of those that ended
    ("max_run_ahead", "i8"),  # picoseconds
    ("nprocs", "i8"),
    ("log_used", "i8"),
    ("work_used", "i8"),
    ("tiny_calls", "i8"),  # mallocs combined into a tiny block
    ("large_fresh_scan", "i8"),  # femtoseconds a byte
    ("large_fresh_noscan", "i8"),
    ("large_zero_scan", "i8"),
    ("large_zero_noscan", "i8"),
    # marking on the clock (mgcmark.py)
    ("now", "i8"),  # when the step in progress happens
    ("gc_starting", "u1"),  # a goroutine is on its way to stop the world for a collection
    ("gc_test_due", "u1"),  # the allocation in progress is to test whether a collection begins
    ("bytes_marked", "i8"),
    ("mark_time", "i8"),  # up to when marking was advanced
    ("mark_cpu", "i8"),  # picoseconds of CPU it was given so far
    ("mark_total", "i8"),  # picoseconds of CPU that all of it takes
    ("mark_cpus", "i8", (3,)),  # of them until the end of stacks, of globals, of the heap
    ("mark_works", "i8", (3,)),  # scan work of each, bytes
    ("mark_oblets", "i8"),  # pieces that large arrays of pointers are scanned in
    ("mark_array_cpu", "i8"),  # of the heap's: picoseconds for all of them, finding what they point to
    ("mark_array_work", "i8"),  # and their scan work
    ("mark_over", "u1"),  # nothing is left to mark, and the collector has been told
    ("mark_workers", "i8"),  # background workers marking now
    ("mark_assists", "i8"),  # assists marking now
    # who scanned, and what became of the credit for it, in this cycle (bytes of scan work)
    ("background_scan_work", "i8"),  # background workers, given as credit
    ("assist_scan_work", "i8"),  # assists
    ("assists", "i8"),  # how many of them have ended
    ("stolen_scan_work", "i8"),  # credit that assists took
    ("paid_scan_work", "i8"),  # credit that went to parked ones
    ("returned_scan_work", "i8"),  # credit left of goroutines that ended
    ("assist_each", "i8"),  # scan work that an assist has done which marked all the time, in 2**-20 bytes
    ("mark_unflushed", "i8"),  # work of background workers not yet given as credit
    ("mark_rest", "i8"),  # remainder of that division
    ("assist_head", "i8"),  # ring assist_queue: next to be paid, and end
    ("assist_tail", "i8"),
    ("assist_nready", "i8"),
    ("stack_copy_small", "i8"),  # femtoseconds a byte of a stack copied, by the size of the new one
    ("stack_copy_middle", "i8"),
    ("stack_copy_large", "i8"),
    # what the last locked step did, for the shell to price; the shell clears them
    ("fact_grown", "i8"),  # pages the heap grew by
    ("fact_arenas", "i8"),  # arenas it reserved
    ("fact_spans", "i8"),  # spans initialised
    ("fact_meta_pages", "i8"),  # 4 KiB pages of metadata touched for the first time (mfixalloc)
    ("fact_swept", "i8"),  # spans swept
    ("fact_swept_free", "i8"),  # of them, whose pages went back to the heap: a hold of mheap.lock each
    ("fact_freed", "i8"),  # objects freed
    ("fact_sweep_time", "i8"),  # picoseconds of that, by sweep_kept and sweep_freed
    ("fact_drained", "i8"),  # sweeps that were the first to find nothing left: the scavenger is woken then
    ("fact_reclaim_chunks", "i8"),  # chunks of 512 pages searched for dead spans, mheap.lock held
    ("fact_pool_locks", "i8"),  # times a stackpool lock was taken
    ("fact_stack_spans", "i8"),  # spans of stacks cut or handed out, and given back to the heap
    ("fact_stack_frees", "i8"),
    ("fact_stack_touched", "i8"),  # 4 KiB pages of stacks touched for the first time, and huge ones
    ("fact_stack_huge", "i8"),
    ("fact_copies", "i8"),  # stacks copied, and their bytes, by how large they are now (stack.py:copy_class)
    ("fact_copied", "i8", (3,)),
    ("fact_scav_runs", "i8"),  # runs of pages given back to the system, each by a call of it
    ("fact_scav_pages", "i8"),  # 4 KiB pages that memory stood behind in them
    # sizes of records of the version
    ("arena_meta_bytes", "i8"),
    ("spanset_block_bytes", "i8"),
    ("spanset_block_align", "i8"),
    ("memprofilerate", "i8"),  # mean bytes between heap-profile samples, 0 = no profile
]

HEAP = header_dtype(SCALARS, TABLES)  # type: ignore[arg-type]
heap_type = header_type(HEAP)

spans = table("spans", SPAN)
words = table("words", np.uint64)
spansets = table("spansets", SPANSET)
set_blocks = table("set_blocks", SET_BLOCK)
mcaches = table("mcaches", MCACHE)
chunks = table("chunks", CHUNK)
chunk_map = table("chunk_map", np.int32)
summary0 = table("summary0", np.uint64)
summary1 = table("summary1", np.uint64)
summary2 = table("summary2", np.uint64)
summary3 = table("summary3", np.uint64)
summary4 = table("summary4", np.uint64)
summary_pages = table("summary_pages", np.uint64)
fixallocs = table("fixallocs", FIXALLOC)
arenas = table("arenas", ARENA)
arena_map = table("arena_map", np.int32)
page_span = table("page_span", np.int32)
variables = table("variables", np.int64)
shared_variables = table("shared_variables", np.int64)
prices = table("prices", PRICE)
cells = table("cells", np.int64)
fast_price = table("fast_price", np.int64)
zero_price = table("zero_price", np.int64)
hit_price = table("hit_price", np.int64)
marking_price = table("marking_price", np.int64)
sweep_kept = table("sweep_kept", np.int64)
sweep_freed = table("sweep_freed", np.int64)
small_alloc_count = table("small_alloc_count", np.int64)
small_free_count = table("small_free_count", np.int64)
fast_calls = table("fast_calls", np.int64)
histograms = table("histograms", np.int64)
cause_time = table("cause_time", np.int64)
cause_max = table("cause_max", np.int64)
procs = table("procs", PROC)
scan_bytes = table("scan_bytes", np.int64)
scan_read = table("scan_read", np.int64)
scan_count = table("scan_count", np.int64)
mark_object = table("mark_object", np.int64)
mark_byte = table("mark_byte", np.int64)
mark_counts = table("mark_counts", np.int64)
sparse_counts = table("sparse_counts", np.int64)
assist_queue = table("assist_queue", np.int32)
assist_ready = table("assist_ready", np.int32)
p_time = table("p_time", np.int64)
goroutines = table("goroutines", GOROUTINE)
log = table("log", LOG)
work_log = table("work_log", WORK)


def new_tables() -> Tables:
    """Tables of an empty address space: no chunk, no arena, no span but emptymspan. Nothing is sized for P yet."""
    tables = Tables(HEAP, TABLES)
    for name in TABLES:
        tables.allocate(name, 1)
    tables.allocate("spans", 4096)
    tables.allocate("words", 1 << 14)
    tables.allocate("spansets", 4 * NUM_SPAN_CLASSES)
    tables.allocate("set_blocks", 16 * NUM_SPAN_CLASSES)
    tables.allocate("chunks", 64)
    tables.allocate("chunk_map", 1 << 26)
    bits = 0
    for level, level_bits in enumerate(LEVEL_BITS):
        bits += level_bits
        tables.allocate(f"summary{level}", 1 << bits)
    tables.allocate("summary_pages", SUMMARY_PAGE_WORDS)
    tables.allocate("fixallocs", 3)
    tables.allocate("arenas", 4)
    tables.allocate("arena_map", 1 << 22)
    tables.allocate("page_span", 4 * ARENA_PAGES)
    tables.allocate("sweep_kept", NUM_SPAN_CLASSES)
    tables.allocate("sweep_freed", NUM_SPAN_CLASSES)
    tables.allocate("small_alloc_count", NUM_SIZE_CLASSES)
    tables.allocate("small_free_count", NUM_SIZE_CLASSES)
    tables.allocate("fast_calls", HIT_KINDS * NUM_SPAN_CLASSES)
    for name in ("scan_bytes", "scan_read", "scan_count", "mark_counts", "sparse_counts", "mark_object", "mark_byte"):
        tables.allocate(name, NUM_SPAN_CLASSES)
    fields = tables.fields
    fields.nspans = 1  # span 0 is emptymspan: no slot, never in a set
    fields.nwords = 1
    fields.nset_blocks = 1
    fields.free_words[:] = -1
    fields.search_addr = 1 << 35
    fields.heap_lock_holder = -1
    fields.sweep_drained = 1  # no sweep before the first cycle (mgc.go:gcinit)
    fields.starting_stack_size = 2048
    fields.ngs = 1  # row 0 is nobody
    fields.scav_search_bg = fields.scav_search_force = fields.scav_free_hwm = NO_PAGE
    fields.gc_percent_goal = fields.memory_limit_goal = fields.memory_limit = NO_GOAL
    return tables
