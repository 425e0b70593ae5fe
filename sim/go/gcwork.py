"""The collector's compiled steps for Python to call: one at a time, at an instant, on the state of the whole heap.

Each returns facts or picoseconds; when they pass is the caller's matter (mgc.py, mgcworker.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, types, void

from sim.go import mgclimit, mgcpacer
from sim.go.gfree import free_dead_stacks
from sim.go.markturns import roots_cpu
from sim.go.mcache import prepare_for_sweep
from sim.go.mgcmark import CREDIT_SLACK as CREDIT_SLACK  # noqa: PLC0414 - for its users in Python
from sim.go.mgcmark import (
    EACH_BITS,
    ROOT_BLOCK,
    advance,
    arm,
    bytes_to_read,
    cpu_for,
    flush_bg_credit,
    is_marked,
    mark_setup,
    ready_all_assists,
    retime_assists,
    roots_end_now,
    span_roots,
)
from sim.go.mgcscavenge_index import next_gen
from sim.go.mgcsweep import begin_sweep, finish_sweep, gc_pace_sweeper, sweep_done, sweep_one
from sim.go.mpagecache import page_cache_flush
from sim.go.pay import STEP
from sim.go.pumpcalls import cut_assists
from sim.go.stack import free_stack_spans, gc_compute_starting_stack_size, scan_stack
from sim.go.stackcost import clear_stack_facts, stack_cost
from sim.go.state import (
    GC_MARK,
    GC_MARK_TERMINATION,
    GC_OFF,
    NEVER,
    NUM_SPAN_CLASSES,
    heap_type,
    mcaches,
    p_time,
    prices,
)
from sim.jit import bare, entry, jit

CHECK_WORK = 100_000  # of heap scan work between two looks whether to leave (drainCheckThreshold, idleCheckThreshold)

_META_TOUCH = STEP["meta_touch"]
_FLUSH_SPAN = STEP["flush_span"]
_FREE_SPAN = STEP["free_span"]
_MARK_SPECIALS = STEP["mark_specials"]


@jit
def sweep_time(h: Any) -> Any:
    """Picoseconds of the sweeping since the last call, metadata it was first to touch included."""
    cost = h[0].fact_sweep_time + h[0].fact_meta_pages * prices(h)[_META_TOUCH]["mean"]
    h[0].fact_sweep_time = 0
    h[0].fact_meta_pages = 0
    return cost


@entry(int64(heap_type))
def heap_is_due(h: Any) -> Any:
    """Whether the heap asks for a collection, for who is about to start one. (gcTrigger.test)"""
    h = bare(h)
    return np.int64(h[0].gc_phase == GC_OFF and h[0].heap_live >= mgcpacer.trigger(h)[0])


@entry(types.UniTuple(int64, 2)(heap_type, int64, int64))
def sweep_some(h: Any, p: Any, n: Any) -> Any:
    """Sweep up to n spans in the background's order on a P: (how many, picoseconds). Fewer than n: nothing is left."""
    h = bare(h)
    swept = np.int64(0)
    while swept < n and sweep_one(h, p) >= 0:
        swept += 1
    return swept, sweep_time(h)


@entry(int64(heap_type, int64))
def finish_sweep_now(h: Any, p: Any) -> Any:
    """With the world stopped: sweep what is left, and close the sweep; picoseconds. (finishsweep_m)"""
    h = bare(h)
    while sweep_one(h, p) >= 0:
        pass
    finish_sweep(h)
    return sweep_time(h)


@jit
def scan_stacks(h: Any, p: Any) -> Any:
    """The stacks of all live goroutines: (how many, bytes of scan work, picoseconds of moving to half of it those who use
    little of theirs, and of freeing the stacks of dead ones)."""
    clear_stack_facts(h)
    free_dead_stacks(h, p)
    n = np.int64(0)
    work = np.int64(0)
    for g in range(1, h[0].ngs):
        used = scan_stack(h, p, np.int64(g))
        n += used > 0
        work += used
    return n, work, stack_cost(h, p)


@entry(int64(heap_type))
def bytes_read(h: Any) -> Any:
    """Bytes that marking would read of the heap's live objects, with the world stopped."""
    return bytes_to_read(bare(h))


@entry(void(heap_type, int64, int64, int64, int64, int64))
def begin_marking(h: Any, p: Any, now: Any, per_stack: Any, per_byte: Any, per_globals_byte: Any) -> None:
    """With the world stopped: settle what is marked, and let marking begin. (gcStart, setGCPhase(_GCmark))

    ``per_stack``: picoseconds a stack; ``per_byte``, ``per_globals_byte``: femtoseconds a byte of stacks, of globals.
    """
    h = bare(h)
    h[0].now = now
    h[0].gc_phase = GC_MARK
    stacks, work, moving = scan_stacks(h, p)
    nglobals = np.int64(h[0].globals_scan)
    stack_cpu = stacks * per_stack + work * per_byte // 1000 + moving
    specials_cpu = span_roots(h) * prices(h)[_MARK_SPECIALS]["mean"]
    globals_cpu = nglobals * per_globals_byte // 1000 + specials_cpu
    mark_setup(h, work, stack_cpu, nglobals, globals_cpu, now)
    jobs = (nglobals + ROOT_BLOCK - 1) // ROOT_BLOCK + span_roots(h) + stacks
    h[0].mark_root_job = (globals_cpu + stack_cpu) // max(jobs, np.int64(1)) + 1
    h[0].gc_blacken_enabled = 1
    h[0].gc_starting = 0
    arm(h)


@entry(int64(heap_type, int64))
def free_stacks(h: Any, p: Any) -> Any:
    """After a cycle: spans of stacks that nobody uses go back to the heap; picoseconds. (freeStackSpans)"""
    h = bare(h)
    clear_stack_facts(h)
    free_stack_spans(h, p)
    cost = h[0].fact_stack_frees * prices(h)[_FREE_SPAN]["mean"]
    clear_stack_facts(h)
    return cost


@entry(int64(heap_type, int64))
def look_at_limiter(h: Any, now: Any) -> Any:
    """What the scheduler does about the GC CPU limiter now and then; when it is to look again. (findRunnable)"""
    h = bare(h)
    if mgclimit.need_update(h, now):
        mgclimit.update(h, now)
    return h[0].limiter_last_update + mgclimit.UPDATE_PERIOD + 1


@entry(void(heap_type, int64, int64))
def change_workers(h: Any, now: Any, change: Any) -> None:
    """A background worker begins (1) or ends (-1) to mark."""
    h = bare(h)
    h[0].now = now
    advance(h, now)
    h[0].mark_workers += change
    arm(h)
    retime_assists(h, now)


@entry(types.UniTuple(int64, 3)(heap_type, int64))
def collector_turn(h: Any, now: Any) -> Any:
    """Bring marking up to now: (parked assists paid and whether root jobs ended since the last look, whether nothing is
    left to mark). If nothing is, assists in progress end now.
    """
    h = bare(h)
    h[0].now = now
    advance(h, now)
    roots_ended = np.int64(roots_end_now(h))
    h[0].mark_roots_over |= roots_ended
    if is_marked(h):
        h[0].mark_over = 1
        flush_bg_credit(h, h[0].mark_unflushed)
        h[0].mark_unflushed = 0
        cut_assists(h, now)
        p_time(h)[h[0].nprocs] = NEVER
    ready = h[0].assist_nready
    h[0].assist_nready = 0
    if not is_marked(h):
        arm(h)
    return ready, roots_ended, np.int64(is_marked(h))


@entry(int64(heap_type, int64))
def end_marking(h: Any, now: Any) -> Any:
    """With the world stopped: no more marking, allocations owe nothing; parked assists to be made ready. (gcMarkDone)"""
    h = bare(h)
    h[0].now = now
    h[0].gc_blacken_enabled = 0
    h[0].gc_phase = GC_MARK_TERMINATION
    ready_all_assists(h)
    gc_compute_starting_stack_size(h)
    p_time(h)[h[0].nprocs] = NEVER
    ready = h[0].assist_nready
    h[0].assist_nready = 0
    for p in range(h[0].nprocs):
        mcaches(h)[p].scan_alloc = 0
    return ready


@entry(void(heap_type))
def begin_sweeping(h: Any) -> None:
    """With the world stopped: the phase is off, every span is to be swept; the sweep is held open. (gcSweep)"""
    h = bare(h)
    h[0].gc_phase = GC_OFF
    begin_sweep(h)
    h[0].sweepers += 1


@entry(void(heap_type))
def release_sweep(h: Any) -> None:
    """All caches are flushed: the sweep may be done when nothing is left. (gcMarkTermination, its end)"""
    bare(h)[0].sweepers -= 1


@entry(int64(heap_type))
def is_sweep_done(h: Any) -> Any:
    """Whether everything is swept. (isSweepDone)"""
    return np.int64(sweep_done(bare(h)))


@entry(int64(heap_type, int64, int64, int64))
def flush_cache(h: Any, p: Any, now: Any, pages_too: Any) -> Any:
    """Flush a P's cache if it is older than this sweep; picoseconds. (mcache.go:prepareForSweep)

    ``pages_too``: its page cache as well, whatever its age.
    """
    h = bare(h)
    h[0].now = now
    if pages_too:
        page_cache_flush(h, p)
    c = mcaches(h)[p]
    if c.flush_gen == h[0].sweepgen:
        return np.int64(0)
    cached = np.int64(0)
    for spc in range(NUM_SPAN_CLASSES):
        cached += c.alloc[spc] != 0
    prepare_for_sweep(h, p)
    return cached * prices(h)[_FLUSH_SPAN]["mean"] + sweep_time(h)


@entry(int64(heap_type, int64, int64))
def pick_worker(h: Any, now: Any, fractional_time: Any) -> Any:
    """The kind of mark worker a P is to run now, NOT_WORKER for none. (findRunnableGCWorker)"""
    h = bare(h)
    h[0].now = now
    advance(h, now)
    if is_marked(h):
        return np.int64(mgcpacer.NOT_WORKER)
    return np.int64(mgcpacer.pick_worker(h, now, fractional_time))


@entry(int64(heap_type, int64))
def pick_idle_worker(h: Any, now: Any) -> Any:
    """Whether an idle P is to mark; it counts from then on. (findRunnable, idle-time marking)"""
    h = bare(h)
    h[0].now = now
    advance(h, now)
    return np.int64(not is_marked(h) and mgcpacer.add_idle_mark_worker(h))


@entry(void(heap_type, int64, int64))
def stop_worker(h: Any, mode: Any, duration: Any) -> None:
    """A mark worker ran so long and stops. (markWorkerStop)"""
    mgcpacer.mark_worker_stop(bare(h), mode, duration)


@entry(types.UniTuple(int64, 3)(heap_type, int64, int64))
def worker_look(h: Any, now: Any, due: Any) -> Any:
    """A worker looks up: (whether it asks itself if it is to leave, picoseconds to its next look as fast as marking is now,
    `heap_each` from which on it asks then, 0 for any).

    It asks after each root job, and when it has scanned as much of the heap as was due. (gcDrain)
    """
    h = bare(h)
    h[0].now = now
    advance(h, now)
    if h[0].mark_cpu < roots_cpu(h):
        return np.int64(1), h[0].mark_root_job, np.int64(0)
    asks = h[0].heap_each >= due
    if asks:
        due = h[0].heap_each + (np.int64(CHECK_WORK) << EACH_BITS)
    k = max(h[0].mark_workers + h[0].mark_assists, np.int64(1))
    work = ((due - h[0].heap_each) >> EACH_BITS) + 1
    return np.int64(asks), max((cpu_for(h, work * k) + k - 1) // k, np.int64(1)), due


@entry(void(heap_type))
def next_scavenge_generation(h: Any) -> None:
    """The scavenger's index begins a generation. (scavengeIndex.nextGen)"""
    next_gen(bare(h))


@entry(int64(heap_type))
def pace(h: Any) -> Any:
    """New goals: of the pacer, and the pace of sweeping; the trigger. (mgcpacer.go:gcControllerCommit)"""
    h = bare(h)
    mgcpacer.commit(h, sweep_done(h))
    if h[0].gc_phase == GC_MARK:
        advance(h, h[0].now)
        mgcpacer.revise(h)
        arm(h)
    at, _ = mgcpacer.trigger(h)
    gc_pace_sweeper(h, at)
    return at
