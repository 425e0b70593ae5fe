"""The scalars of a heap's header, by subject: Go's package globals (mheap_, work, gcController), and the clock's side.

With the tables of state.py they make up the record that every compiled function takes (sim.jit). ``fact_`` scalars say
what the last step did, for whoever prices it.
"""

from __future__ import annotations

NUM_STACK_ORDERS = 4
NUM_STACK_LARGE = 36  # lists of large stack spans, by bit length of their pages
MAX_OCCUPIED = 8

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
    ("assist_inlined", "i8"),
    ("runtime_bss", "i8"),
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
    ("heap_lock_here", "u1"),  # compiled code keeps it
    ("heap_lock_spinbit", "u1"),  # by the rules of go1.27, else those of go1.19
    ("heap_lock_holder", "i8"),  # the owner that holds it, -1 = none
    ("heap_lock_since", "i8"),  # when that hold began
    ("heap_lock_until", "i8"),  # it does not end before
    ("heap_lock_sleeping", "u1"),  # the word says that somebody sleeps
    ("heap_lock_spinning", "u1"),  # spinbit: a waiter owns the right to spin
    ("heap_lock_oldest", "i8"),  # who sleeps longest, -1 = nobody
    ("heap_lock_newest", "i8"),
    ("heap_lock_look", "i8"),  # when somebody who waits looks next, NEVER = not before a release
    ("heap_lock_looker", "i8"),  # who
    ("heap_lock_key", "u8"),  # spinbit: the stream that says who is woken
    ("heap_lock_draws", "i8"),  # values of it used
    ("heap_lock_acquisitions", "i8"),
    ("heap_lock_hold", "i8"),  # picoseconds of the holds that ended
    ("heap_lock_waits", "i8"),
    ("heap_lock_waiters", "i8"),  # now
    ("heap_lock_total_wait", "i8"),  # picoseconds
    ("heap_lock_longest_wait", "i8"),
    ("heap_lock_spins", "i8"),
    ("heap_lock_futex_sleeps", "i8"),
    ("heap_lock_futex_wakes", "i8"),
    ("lock_acquire", "i8"),  # prices of the steps of a lock, picoseconds
    ("lock_release", "i8"),
    ("lock_procyield", "i8"),
    ("lock_osyield", "i8"),
    ("lock_futex_sleep", "i8"),
    ("lock_futex_wake", "i8"),
    ("lock_wake_latency", "i8"),
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
    ("bytes_marked", "i8"),
    ("mark_time", "i8"),  # up to when marking was advanced
    ("mark_cpu", "i8"),  # picoseconds of CPU it was given so far
    ("mark_total", "i8"),  # picoseconds of CPU that all of it takes
    ("mark_cpus", "i8", (3,)),  # of them until the end of globals, of stacks, of the heap
    ("mark_root_job", "i8"),  # picoseconds of a root job, the mean
    ("mark_roots_over", "u1"),  # all root jobs are done, and the collector has been told
    ("mark_works", "i8", (3,)),  # scan work of each, bytes
    ("mark_oblets", "i8"),  # pieces that arrays of pointers are scanned in
    ("mark_array_cpu", "i8"),  # of the heap's: picoseconds for all of them, finding what they point to
    ("mark_array_work", "i8"),  # and their scan work
    ("mark_dense_cpu", "i8"),  # of it that of spans scanned whole, and their scan work
    ("mark_dense_work", "i8"),
    ("mark_in_order", "f8"),  # share of it that is found in the order of its allocation, before the rest
    ("mark_ordered_cpu", "i8"),  # and its picoseconds
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
    ("heap_each", "i8"),  # likewise of the heap alone
    ("mark_unflushed", "i8"),  # work of background workers not yet given as credit
    ("mark_rest", "i8"),  # remainder of that division
    ("assist_head", "i8"),  # ring assist_queue: next to be paid, and end
    ("assist_tail", "i8"),
    ("assist_nready", "i8"),
    ("stack_copy_small", "i8"),  # femtoseconds a byte of a stack copied, by the size of the new one
    ("stack_copy_middle", "i8"),
    ("stack_copy_large", "i8"),
    ("swept_told", "i8"),  # 1 if swept_cells are filled
    ("write_barrier", "i8"),  # picoseconds that noting a pointer takes while marking
    ("unswept_told", "i8"),  # 1 if what a refill takes that sweeps its span itself is known
    # what the last locked step did, for the shell to price; the shell clears them
    ("fact_grown", "i8"),  # pages the heap grew by
    ("fact_arenas", "i8"),  # arenas it reserved
    ("fact_spans", "i8"),  # spans initialised
    ("fact_meta_pages", "i8"),  # 4 KiB pages of metadata touched for the first time (mfixalloc)
    ("fact_swept", "i8"),  # spans swept
    ("fact_swept_free", "i8"),  # of them, whose pages went back to the heap: a hold of mheap.lock each
    ("fact_freed", "i8"),  # objects freed
    ("fact_sweep_time", "i8"),  # picoseconds of that, by swept_cells, or by sweep_kept and sweep_freed
    ("fact_took_unswept", "i8"),  # 1 if one of them was swept by the refill that takes it: not in that time if unswept_told
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
