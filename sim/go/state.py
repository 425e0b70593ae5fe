"""The allocator's whole state: every record and table.

The rooms (mspan, mcache, mcentral, mheap, mpagealloc, malloc) are functions over these tables; none keeps state of
its own. One header record holds the scalars of Go's package globals (scalars.py) and the address and length
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

from sim.costs import CELLS, SWEPT
from sim.go.scalars import NUM_STACK_ORDERS, SCALARS
from sim.jit import Tables, header_dtype, header_type, table

PAGE_SHIFT = 13
PAGE_SIZE = 1 << PAGE_SHIFT
CHUNK_PAGES = 512
ARENA_PAGES = 8192
NUM_SPAN_CLASSES = 136
NUM_SIZE_CLASSES = 68
TINY_SPAN_CLASS = 5
MSPAN_CACHE_LEN = 128
SUMMARY_LEVELS = 5
LEVEL_BITS = (14, 3, 3, 3, 3)
SUMMARY_PAGE_WORDS = 2469  # bits for 32 + 256 + 2048 + 16384 + 131072 pages of summaries and 8192 chunk maps
NO_PAGE = -1
NEVER = 1 << 62
NO_GOAL = (1 << 63) - 1  # no memory limit, or a goal of the scavenger that is met
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

# rows of the price table: by span class, fresh spans with other work before them and spans that a refill sweeps itself apart;
# then sim.costs.STEPS in order
PRICE_FRESH = 0
PRICE_PARTIAL = NUM_SPAN_CLASSES
PRICE_FRESH_APART = 2 * NUM_SPAN_CLASSES
PRICE_UNSWEPT = 3 * NUM_SPAN_CLASSES
PRICE_STEPS = 4 * NUM_SPAN_CLASSES
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
        ("noted", "i8"),  # pointers that the write barrier has noted, and that are not paid for yet
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
        ("slice_end", "i8"),  # the goroutine's time slice is over
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
        ("fault_seen", "i8"),  # what malloc, compute and assist time were together at the P's last page fault
        ("assist_time", "i8"),  # marking inside mallocgc
        ("lock_time", "i8"),  # at mheap.lock in the pump
        ("at_lock", "u1"),  # it is there: waits, holds it, or wakes the next
        ("lock_since", "i8"),  # since when
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

# who waits for mheap.lock, if it does (sim/go/heaplock.py)
LOCK_WAITER = np.dtype(
    [
        ("due", "i8"),  # when it looks at the lock next, NEVER = it does not wait, or sleeps
        ("asked", "i8"),  # since when it waits
        ("asleep_at", "i8"),  # a wake call does not reach it before
        ("older", "i4"),  # its neighbours among those who sleep, -1 = none
        ("newer", "i4"),
        ("stage", "u1"),
        ("turn", "u1"),  # looks since it came or was woken
        ("spins", "u1"),  # spinbit: it owns the right to spin
        ("at_tail", "u1"),  # spinbit: it was woken as the one that slept longest
        ("word", "u1"),  # futex: what the word must say once it has the lock, or a sleeper is forgotten
        ("outside", "u1"),  # it is not in the pump
        ("tried", "u1"),  # it has held the lock for the same allocation before
    ],
    align=True,
)

# kinds of hits in a cached span: of memory that needs no clearing, right after another malloc, or after other work; the
# latter also by how many other mallocs of the P lie between it and the last one from that span class. While the collector
# marks, any, and those of the slot right after the last one's, the latter apart in spans that had nothing alive in them when
# they were taken.
HIT_FRESH = 0
HIT_CLEARED = 1
HIT_APART = 2
HIT_SOME = 3
HIT_FEW = 4
HIT_MARKING = 5
HIT_NEXT = 6
HIT_NEXT_FEW = 7
HIT_EMPTY = 8
HIT_EMPTY_FEW = 9
HIT_KINDS = 10
FEW_OTHERS = 8  # fewer than that, as truth/calibrate/warm.go has it
SOME_OTHERS = 32

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
    # means, by span class: of hits with other work before them (HIT_APART, HIT_SOME, HIT_FEW: three rows), and while marking
    "hit_price": np.int64,
    "marking_price": np.int64,  # (a row for each of HIT_MARKING and those after it)
    "last_malloc": np.int64,  # by P and span class: how many mallocs the P had made before the last one there
    "last_marked": np.int64,  # and what the last one while marking gave: span << 16 | slot
    "last_page": np.int64,  # and the first page of the last span that the P cached there
    "near_share": np.int64,  # by span class: what a refill takes whose span is near that one, thousandths of any other's
    "mark_object": np.int64,  # picoseconds a marked object, by span class: of all in the mean, of what is found in order
    "mark_byte": np.int64,  # femtoseconds a byte of scan work, in the same two rows
    "sweep_kept": np.int64,  # picoseconds to sweep a span that stays in use, by span class
    "sweep_freed": np.int64,  # and one whose pages go back to the heap
    "swept_cells": np.int64,  # equally likely values of what sweeping a span takes beside other work, 1024 each of costs.SWEPT
    "small_alloc_count": np.int64,  # by size class, flushed at refill
    "small_free_count": np.int64,
    "fast_calls": np.int64,  # mallocs that were nothing but a fast-path hit: span class * HIT_KINDS + kind
    "histograms": np.int64,  # latency counts of all other mallocs, BUCKETS a cause
    "cause_time": np.int64,  # their picoseconds by cause
    "cause_max": np.int64,
    "procs": PROC,  # by P
    "lock_waiters": LOCK_WAITER,  # by owner: who waits for mheap.lock
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
last_malloc = table("last_malloc", np.int64)
last_marked = table("last_marked", np.int64)
last_page = table("last_page", np.int64)
near_share = table("near_share", np.int64)
sweep_kept = table("sweep_kept", np.int64)
sweep_freed = table("sweep_freed", np.int64)
swept_cells = table("swept_cells", np.int64)
small_alloc_count = table("small_alloc_count", np.int64)
small_free_count = table("small_free_count", np.int64)
fast_calls = table("fast_calls", np.int64)
histograms = table("histograms", np.int64)
cause_time = table("cause_time", np.int64)
cause_max = table("cause_max", np.int64)
procs = table("procs", PROC)
lock_waiters = table("lock_waiters", LOCK_WAITER)
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
    tables.allocate("swept_cells", len(SWEPT) * CELLS)
    tables.allocate("small_alloc_count", NUM_SIZE_CLASSES)
    tables.allocate("small_free_count", NUM_SIZE_CLASSES)
    tables.allocate("fast_calls", HIT_KINDS * NUM_SPAN_CLASSES)
    for name in ("scan_bytes", "scan_read", "scan_count", "mark_counts", "sparse_counts"):
        tables.allocate(name, NUM_SPAN_CLASSES)
    for name in ("mark_object", "mark_byte"):
        tables.allocate(name, 2 * NUM_SPAN_CLASSES)
    fields = tables.fields
    fields.nspans = 1  # span 0 is emptymspan: no slot, never in a set
    fields.nwords = 1
    fields.nset_blocks = 1
    fields.free_words[:] = -1
    fields.search_addr = 1 << 35
    fields.heap_lock_holder = -1
    fields.heap_lock_look = NEVER
    fields.sweep_drained = 1  # no sweep before the first cycle (mgc.go:gcinit)
    fields.starting_stack_size = 2048
    fields.ngs = 1  # row 0 is nobody
    fields.scav_search_bg = fields.scav_search_force = fields.scav_free_hwm = NO_PAGE
    fields.gc_percent_goal = fields.memory_limit_goal = fields.memory_limit = NO_GOAL
    return tables
