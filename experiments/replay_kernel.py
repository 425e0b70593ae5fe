"""The compiled half of a replay: recorded events against the rooms, without a clock.

Each recorded span and slot is first predicted by the rooms, then compared; after a miss the rooms are put into the
recorded state (replay_repair), so that one miss does not cause the next. The frees of a trace, who runs where and who
asks for what are taken from the record; where the spans and slots come to lie never is. What a trace does not record
at its start is inferred in replay_start; how sweeping is followed stands in replay_sweep, and how it goes by the rooms'
own rules instead in replay_coupled.

An object's event comes after its allocation, and its goroutine may be stopped in between. So a refill with a fresh
span takes its slot at once, whoever announces it and when; another object that is announced after later slots of its
span is a miss of its own kind (MISS_LATE): its span was where the rooms had it, but the order was not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64

from experiments.replay_coupled import (
    begin_cycle,
    begin_turn,
    end_turn,
    is_ahead,
    on_recorded_free,
    pay_for_span,
    restore,
    set_shadow,
    shadow_at,
    shelve_ahead,
    take_turn,
    withhold,
)
from experiments.replay_repair import (
    NEAR_PAGES,
    adopt,
    cached_by,
    force_span,
    give_back,
    slot_at,
    take_slot,
    undo_span,
)
from experiments.replay_start import set_up
from experiments.replay_state import (
    EXCEPTED,
    FLUSH_ALL,
    GC_STEP,
    MAX_ASKED,
    MISS_LATE,
    MISS_NO_REFILL,
    MISS_OTHER_SPAN,
    MISS_PARTIAL,
    MISS_SLOT,
    MISS_SPAN_BASE,
    MISS_UNKNOWN_SPAN,
    OLD,
    PROMISED,
    SLOTS,
    SLOTS_MATCHED,
    SPANS,
    SPANS_MATCHED,
    SWEEPER_END,
    SWEEPER_START,
    TINY,
    events,
    note_miss,
    noted,
    replay_type,
    rprocs,
)
from experiments.replay_sweep import (
    catch_up,
    flush_idle,
    is_unswept,
    look_ahead,
    on_gomaxprocs,
    on_span_free,
    on_stw_end,
    refill_sweeps,
    sweep_aside,
    sweep_rest,
)
from sim.go.mcache import cache_fresh, prepare_for_sweep, release_all, uncache_full, update_heap_live
from sim.go.mcentral import cache_span
from sim.go.mgcsweep import gc_pace_sweeper, sweep_one
from sim.go.mheap import PAGE_CACHE_MAX_PAGES, alloc_span, mark_page, room_is_short, span_of_page
from sim.go.mspan import is_allocated, next_free_index
from sim.go.mspanset import partial_swept, place_swept, spanset_push_front
from sim.go.state import PAGE_SHIFT, SPAN_IN_USE, SPAN_MANUAL, TINY_SPAN_CLASS, heap_type, mcaches, spans
from sim.jit import entry, jit
from sim.words import ZERO
from workloads.gotrace_model import (
    GC_BEGIN,
    GC_END,
    GOMAXPROCS,
    HEAP_ALLOC,
    HEAP_GOAL,
    OBJECT_ALLOC,
    OBJECT_FREE,
    PROC_START,
    PROC_STATUS,
    PROC_STOP,
    SPAN,
    SPAN_ALLOC,
    SPAN_FREE,
    STW_END,
    SWEEP_BEGIN,
    SWEEP_END,
)

_NONE = np.int64(-1)


@jit
def expect_page_cache(h: Any, r: Any, p: Any, npages: Any) -> Any:
    """Before a span of P: its cached pages; counts the page caches it takes."""
    if p < 0:
        return ZERO
    pcache = mcaches(h)[p].pcache
    if npages < PAGE_CACHE_MAX_PAGES and pcache == ZERO:
        rprocs(r)[p].loads += 1
    return pcache


@jit
def miss_span_base(r: Any, p: Any, page: Any, chosen: Any) -> None:
    """A fresh span elsewhere; while some P's page cache at the start is unknown, that may be why: ask."""
    note_miss(r, np.int64(MISS_SPAN_BASE), page, _NONE, chosen, _NONE)
    if r[0].asked < MAX_ASKED:
        for q in range(r[0].nprocs):
            if rprocs(r)[q].start_known == 0 and rprocs(r)[q].loads <= 1:
                r[0].want = p
                r[0].chosen = chosen
        r[0].asked += r[0].want >= 0


@jit
def on_span_alloc(h: Any, r: Any, e: Any) -> None:
    """A fresh span: would the rooms have taken a fresh one, and these pages? (mcache.go:refill, mheap.go:allocSpan)"""
    r[0].count[SPANS] += 1
    p = e.p
    spc = e.c >> 1
    page = r[0].base_page + e.a
    state = np.int64(SPAN_MANUAL if e.c & 1 else SPAN_IN_USE)
    is_refill = state == SPAN_IN_USE and spc >= 2 and p >= 0
    if r[0].ours and p >= 0:
        prepare_for_sweep(h, p)
    missed = is_refill and finds_room(h, r, p, spc, page)
    if r[0].ours and state == SPAN_IN_USE:
        pay_for_span(h, p, e.b, spc < 2)
    pcache = expect_page_cache(h, r, p, e.b)
    search = h[0].search_addr
    s = alloc_span(h, p, e.b, spc, state)
    chosen = np.int64(spans(h)[s].start_page)
    if chosen != page:
        if not missed:
            miss_span_base(r, p, page, chosen)
        undo_span(h, p, s, pcache, search, r[0].nprocs)
        if r[0].ours:
            withhold(h, r, chosen, e.b)
        s = force_span(h, r, p, page, e.b, e.c)
    elif not missed:
        r[0].count[SPANS_MATCHED] += 1
    noted(r)[s] = 0
    if is_refill:
        cache_fresh(h, p, spc, s)
        sweep_aside(h, r, spc)
        noted(r)[s] = PROMISED
    if state == SPAN_IN_USE:
        next_free_index(h, s)
        if not is_refill:
            place_swept(h, s)
            update_heap_live(h, e.b << PAGE_SHIFT, np.int64(0))
    if r[0].coupled:
        set_shadow(r, e, r[0].event + 1)
        if missed or chosen != page:
            h[0].heap_live = r[0].live + (e.b << PAGE_SHIFT if state == SPAN_IN_USE else 0)


@jit
def finds_room(h: Any, r: Any, p: Any, spc: Any, page: Any) -> Any:
    """Before a fresh span of a refill: whether the rooms would have found room in an old one. What they find is
    shelved, until the heap is their only choice too."""
    rprocs(r)[p].seen[spc] = 1
    cached = np.int64(mcaches(h)[p].alloc[spc])
    cause = np.int64(0)
    if cached != 0 and spans(h)[cached].alloc_count != spans(h)[cached].nelems:
        cause = np.int64(MISS_NO_REFILL)
    else:
        uncache_full(h, p, spc)
        cached = cache_span(h, p, spc)
        if cached != 0:
            cause = np.int64(MISS_PARTIAL)
    if cause != 0:
        note_miss(r, cause, page, _NONE, np.int64(spans(h)[cached].start_page), _NONE)
    while cached != 0:
        mcaches(h)[p].alloc[spc] = 0
        shelve_ahead(h, r, cached)
        cached = cache_span(h, p, spc)
    return cause != 0


@jit
def on_object_alloc(h: Any, r: Any, e: Any) -> None:
    """An object: does the rooms' next slot of its span class lie at its address?"""
    r[0].count[SLOTS] += 1
    addr = (r[0].base_page << PAGE_SHIFT) + e.a * 8
    s = restore(h, r, addr >> PAGE_SHIFT) if r[0].ours else span_of_page(h, addr >> PAGE_SHIFT)
    if s == 0 or spans(h)[s].state != SPAN_IN_USE or e.p < 0:
        note_miss(r, np.int64(MISS_UNKNOWN_SPAN), addr >> PAGE_SHIFT, _NONE, _NONE, _NONE)
        return
    spc = np.int64(spans(h)[s].spanclass)
    slot = slot_at(h, s, addr)
    if slot < 0:
        note_miss(r, np.int64(MISS_UNKNOWN_SPAN), addr >> PAGE_SHIFT, _NONE, _NONE, _NONE)
        return
    taken = is_allocated(h, s, slot) and not is_unswept(h, s)  # what fills an unswept span may be garbage
    if r[0].marking and not (spc == TINY_SPAN_CLASS and taken):
        mark_page(h, s)
    if spc < 2:
        r[0].count[SLOTS_MATCHED] += 1
        return
    if slot == 0 and noted(r)[s] & PROMISED:
        noted(r)[s] &= ~np.uint8(PROMISED)
        r[0].count[SLOTS_MATCHED] += 1
        return
    p = e.p
    if r[0].ours:
        prepare_for_sweep(h, p)
    if spc == TINY_SPAN_CLASS and taken:
        r[0].count[SLOTS_MATCHED] += 1
        r[0].count[TINY] += 1
        return
    first = rprocs(r)[p].seen[spc] == 0
    rprocs(r)[p].seen[spc] = 1
    if first and noted(r)[s] & OLD:
        r[0].count[EXCEPTED] += 1
        adopt(h, p, spc, s, r[0].nprocs)
        take_slot(h, s, slot)
        return
    predict_slot(h, r, p, s, slot, taken)


@jit
def rank(h: Any, s: Any) -> Any:
    """In which turn a refill comes to a span: 0 swept, 1 unswept with a free slot, 2 unswept and full."""
    if not is_unswept(h, s):
        return 0
    return 2 if spans(h)[s].alloc_count == spans(h)[s].nelems else 1


@jit
def predict_slot(h: Any, r: Any, p: Any, s: Any, slot: Any, taken: Any) -> None:
    """Take the rooms' next slot of a class on P; if it is not the recorded one, undo that and take the recorded."""
    spc = np.int64(spans(h)[s].spanclass)
    page = np.int64(spans(h)[s].start_page)
    cached = np.int64(mcaches(h)[p].alloc[spc])
    got = np.int64(-1)
    if cached != 0:
        got = next_free_index(h, cached)
    if got >= 0:
        if cached == s and got == slot:
            r[0].count[SLOTS_MATCHED] += 1
            return
        note_slot(h, r, p, s, slot, cached, got, taken)
        give_back(h, cached, got)
    elif not predict_refill(h, r, p, s, slot, taken):
        return
    elif r[0].ours:
        s = restore(h, r, page)  # a refill's credit may have freed it
    owner = cached_by(h, s, r[0].nprocs)
    if not taken and (owner < 0 or owner == p):
        adopt(h, p, spc, s, r[0].nprocs)
    take_slot(h, s, slot)
    if r[0].ours:
        h[0].heap_live = r[0].live


@jit
def predict_refill(h: Any, r: Any, p: Any, s: Any, slot: Any, taken: Any) -> Any:
    """The refill of predict_slot, as far as finding an old span; True after a miss, with its choice undone.

    If the recorded span comes later in turn than the chosen one, the chosen one was in no set: it is shelved.
    """
    spc = np.int64(spans(h)[s].spanclass)
    recorded_rank = rank(h, s)
    swept = refill_sweeps(h, spc)
    chosen_rank = rank(h, swept) if swept != 0 else 0
    uncache_full(h, p, spc)
    chosen = cache_span(h, p, spc)
    if chosen == 0:  # a fresh span, which the record would have told
        note_slot(h, r, p, s, slot, chosen, _NONE, taken)
        return True
    cache_fresh(h, p, spc, chosen)
    got = next_free_index(h, chosen)
    if chosen == s and got == slot:
        r[0].count[SLOTS_MATCHED] += 1
        return False
    note_slot(h, r, p, s, slot, chosen, got, taken)
    give_back(h, chosen, got)
    mcaches(h)[p].alloc[spc] = 0
    spans(h)[chosen].sweepgen = h[0].sweepgen
    if chosen == s:
        cache_fresh(h, p, spc, s)
    elif recorded_rank > chosen_rank or is_ahead(r, chosen):
        shelve_ahead(h, r, chosen)
    else:
        spanset_push_front(h, partial_swept(h, spc), chosen)
    return True


@jit
def note_slot(h: Any, r: Any, p: Any, s: Any, slot: Any, chosen: Any, got: Any, taken: Any) -> None:
    """An object elsewhere than in the slot ``got`` of the span ``chosen``, where the rooms put it."""
    owner = cached_by(h, s, r[0].nprocs)
    cause = np.int64(MISS_SLOT if chosen == s else MISS_OTHER_SPAN)
    if taken or (owner >= 0 and owner != p):
        cause = np.int64(MISS_LATE)
    chosen_page = np.int64(spans(h)[chosen].start_page) if chosen != 0 else _NONE
    note_miss(r, cause, np.int64(spans(h)[s].start_page), slot, chosen_page, got)


@jit
def on_free(h: Any, r: Any, i: Any) -> None:
    """An object or a span is freed."""
    e = events(r)[i]
    if r[0].ours:
        on_recorded_free(h, r, i)
        return
    if r[0].coupled and e.kind == SPAN_FREE and shadow_at(r, r[0].base_page + e.a) >= 0:
        set_shadow(r, events(r)[shadow_at(r, r[0].base_page + e.a)], np.int64(0))
    s = span_of_page(h, r[0].base_page + (e.a if e.kind == SPAN_FREE else e.a >> 10))
    if s == 0:
        return
    if e.kind == SPAN_FREE:
        on_span_free(h, r, i, s)
    else:
        catch_up(h, r, i, s)


@jit
def on_proc(h: Any, r: Any, e: Any) -> None:
    """A P starts, stops or is taken away."""
    if e.kind == PROC_STOP:
        if e.p >= 0:
            rprocs(r)[e.p].running = 0
    elif 0 <= e.a < r[0].nprocs:
        rprocs(r)[e.a].running = e.kind == PROC_START or (e.kind == PROC_STATUS and e.b != 2)
        if e.kind == PROC_START:
            rprocs(r)[e.a].idle_since_stop = 0
            prepare_for_sweep(h, e.a)


@jit
def on_collector(h: Any, r: Any, e: Any) -> Any:
    """What concerns sweeping as the rooms' own matter; whether it is nothing else."""
    k = e.kind
    if k == HEAP_ALLOC:
        r[0].live = e.a
    elif k == SPAN:
        set_shadow(r, e, r[0].event + 1)
    elif k == HEAP_GOAL:
        if r[0].ours:
            gc_pace_sweeper(h, e.b)
    elif k == SWEEPER_START:
        if r[0].ours:
            begin_turn(h, r, r[0].event)
    elif k == SWEEPER_END:
        end_turn(h, r, r[0].event)
    elif k == GC_STEP:
        if r[0].ours:
            sweep_one(h, e.p)
    else:
        return r[0].ours and (k == SWEEP_BEGIN or k == SWEEP_END)
    return True


@jit
def on_phase(h: Any, r: Any, i: Any) -> None:
    """Stops, mark phases, and whatever else moves no memory by itself."""
    e = events(r)[i]
    k = e.kind
    if r[0].coupled and on_collector(h, r, e):
        return
    if k == GC_BEGIN:
        r[0].gc_began = 1
        if r[0].ours:
            sweep_rest(h)
    elif k == GC_END:
        begin_cycle(h, r, i)
    elif k == STW_END:
        on_stw_end(h, r, e.p, e.m)
    elif k == GOMAXPROCS:
        on_gomaxprocs(h, r, e.p, e.a)
    elif k == FLUSH_ALL:
        for q in range(r[0].nprocs):
            release_all(h, np.int64(q))
    elif k == SWEEP_BEGIN and e.p >= 0:
        look_ahead(r, i, rprocs(r)[e.p])
    elif k == SWEEP_END and e.p >= 0:
        rprocs(r)[e.p].in_sweep = 0
    elif PROC_START <= k <= PROC_STATUS:
        on_proc(h, r, e)


@jit
def is_stack_free(h: Any, r: Any, e: Any) -> Any:
    """Whether an event frees a span of stacks or work buffers."""
    if e.kind != SPAN_FREE:
        return False
    s = span_of_page(h, r[0].base_page + e.a)
    return s != 0 and spans(h)[s].state == SPAN_MANUAL


@entry(int64(heap_type, replay_type, int64))
def replay_events(h: Any, r: Any, start: Any) -> Any:
    """Replay events from number ``start`` on; returns the number of the next, short of the end when a table must grow
    or when the page cache at the start of some P may have to be inferred (``want`` is a P)."""
    if start == 0:
        set_up(h, r)
    for i in range(start, len(events(r))):
        e = events(r)[i]
        r[0].event = i
        if r[0].finish_m == e.m and not is_stack_free(h, r, e):
            flush_idle(h, r)
        if r[0].turn >= 0:
            take_turn(h, r, np.int64(i))
        k = e.kind
        if k == OBJECT_ALLOC:
            on_object_alloc(h, r, e)
        elif k == SPAN_ALLOC:
            if room_is_short(h, e.b + NEAR_PAGES) or h[0].nspans + 256 > r[0].noted_len:
                return np.int64(i)
            on_span_alloc(h, r, e)
            if r[0].want >= 0:
                return np.int64(i + 1)
        elif k == OBJECT_FREE or k == SPAN_FREE:
            on_free(h, r, np.int64(i))
        else:
            on_phase(h, r, np.int64(i))
    return np.int64(len(events(r)))
