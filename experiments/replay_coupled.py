"""Sweeping as the rooms' own matter: a replay that is told when cycles begin and end, never what is swept when.

From the first recorded mark termination on, frees of the record only tell what died: an object freed between the ends
of two mark phases was dead at the first. Which span is swept when, and its memory so recycled, follows from the rooms:

- *Allocations* pay: mgcsweep.deduct_sweep_credit before a refill or a large object, with our own pages, swept pages and
  heapLive; a refill's own sweeping; the page reclaimer before a fresh span.
- *The background sweeper* runs where the record shows its goroutine on a P. It sweeps ten spans, then yields unless
  another P is idle (mgcsweep.go:bgsweep); it goes to sleep only when nothing is left.
- *runtime.GC* yields after each span it sweeps; each of those yields is one span.
- *Sweep termination* sweeps what is left when the next cycle begins.

Pacing needs the trigger. Of heapLive only what mark termination set it to is taken from the record, and what it was
after a miss; the trigger is inferred from when the next cycle begins (replay_cycles).

After a miss the rooms are put into the recorded state, as far as it shows: a span the record allocates from is there,
one that the record has freed is gone, and pages the record has not freed yet are *withheld* from the page allocator
until it does.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.replay_repair import NO_P, cached_by, force_span, forget_span, page_is_free, shelve
from experiments.replay_state import AHEAD, TO_THE_END, events, freed_at, noted, shadow, withheld
from experiments.replay_sweep import finish_told, is_unswept, mark_dead_until, sweep_rest
from sim.go.mgcsweep import begin_sweep, deduct_sweep_credit, sweep_done, sweep_one
from sim.go.mheap import free_span_locked, span_of_page
from sim.go.mpagealloc import page_alloc_range, page_free
from sim.go.mspanset import full_swept, place_swept, spanset_remove
from sim.go.reclaim import reclaim
from sim.go.state import PAGE_SHIFT, SPAN_IN_USE, SPAN_MANUAL, mcaches, spans
from sim.jit import jit
from sim.words import bit64
from workloads.gotrace_model import OBJECT_FREE


@jit
def begin_cycle(h: Any, r: Any, i: Any) -> None:
    """Mark termination at event i: what is dead is known, and every span is to be swept."""
    if r[0].ours:
        sweep_rest(h)
    else:
        finish_told(h)
    mark_dead_until(h, r, i + 1)
    begin_sweep(h)
    r[0].marking = 0
    if r[0].coupled:
        h[0].heap_live = r[0].live
        r[0].ours = 1
    r[0].gc_ended = 1


@jit
def pay_for_span(h: Any, p: Any, npages: Any, is_large: Any) -> None:
    """What a fresh heap span waits for, beside a refill's credit. (mcache.go:allocLarge, mheap.go:alloc)"""
    if is_large:
        deduct_sweep_credit(h, p, npages << PAGE_SHIFT, npages)
    if not sweep_done(h):
        reclaim(h, p, npages)


@jit
def begin_turn(h: Any, r: Any, i: Any) -> None:
    """The background sweeper gets a P at event i. With one P, nothing else happens before its turn ends."""
    e = events(r)[i]
    r[0].turn = i
    r[0].turn_swept = 0
    r[0].turn_spans = e.c if e.c != TO_THE_END else h[0].pages_in_use - h[0].pages_swept
    if r[0].nprocs == 1:
        end_turn(h, r, e.b)


@jit
def take_turn(h: Any, r: Any, i: Any) -> None:
    """The background sweeper's turn has come as far as event i: its spans are spread evenly over it."""
    e = events(r)[r[0].turn]
    until = events(r)[e.b].time
    done = r[0].turn_spans * (events(r)[i].time - e.time) // max(until - e.time, 1)
    while r[0].turn_swept < done and sweep_one(h, e.p) >= 0:
        r[0].turn_swept += 1


@jit
def end_turn(h: Any, r: Any, i: Any) -> None:
    """The background sweeper's turn ends at event i."""
    if r[0].turn < 0:
        return
    take_turn(h, r, i)
    if events(r)[r[0].turn].c == TO_THE_END:
        sweep_rest(h)
    r[0].turn = -1


@jit
def set_shadow(r: Any, e: Any, value: Any) -> None:
    """The record has a span, or none any more (value 0), on the pages of event e."""
    for at in range(e.a, e.a + e.b):
        if 0 <= at < r[0].shadow_len:
            shadow(r)[at] = value


@jit
def shadow_at(r: Any, page: Any) -> Any:
    """The event of the span the record has on a page, -1 if none."""
    at = page - r[0].base_page
    if 0 <= at < r[0].shadow_len:
        return np.int64(shadow(r)[at]) - 1
    return np.int64(-1)


@jit
def withhold(h: Any, r: Any, page: Any, npages: Any) -> None:
    """The rooms chose pages for a span that are elsewhere in the record: those it has not freed yet are none to choose."""
    for at in range(page, page + npages):
        if shadow_at(r, at) < 0 or span_of_page(h, at) != 0 or withheld(r)[at - r[0].base_page]:
            continue
        if page_is_free(h, at):
            page_alloc_range(h, at, np.int64(1))
        else:
            for p in range(r[0].nprocs):
                c = mcaches(h)[p]
                if 0 <= at - c.pcache_base < 64:
                    c.pcache &= ~bit64(at - c.pcache_base)
        withheld(r)[at - r[0].base_page] = 1


@jit
def release(h: Any, r: Any, e: Any) -> None:
    """The record frees the span of event e: what was withheld of it is free."""
    for at in range(e.a, e.a + e.b):
        if 0 <= at < r[0].withheld_len and withheld(r)[at]:
            withheld(r)[at] = 0
            if span_of_page(h, r[0].base_page + at) == 0:
                page_free(h, r[0].base_page + at, np.int64(1))


@jit
def restore(h: Any, r: Any, page: Any) -> Any:
    """The span the record has on a page, made anew if the rooms have freed it; 0 if nobody has one there."""
    k = shadow_at(r, page)
    if k < 0 or events(r)[k].c & 1:
        return span_of_page(h, page)
    e = events(r)[k]
    first = r[0].base_page + e.a
    s = span_of_page(h, first)
    sp = spans(h)[s]
    if s != 0 and sp.state == SPAN_IN_USE and sp.start_page == first and sp.npages == e.b and sp.spanclass == e.c >> 1:
        return s
    for at in range(e.a, min(e.a + e.b, r[0].withheld_len)):
        withheld(r)[at] = 0
    return force_span(h, r, NO_P, first, e.b, e.c)


@jit
def is_ahead(r: Any, s: Any) -> Any:
    """Whether the rooms have swept a span before the record does."""
    return r[0].ours and freed_at(r)[s] > r[0].event


@jit
def shelve_ahead(h: Any, r: Any, s: Any) -> None:
    """Take a span that is in no set out of the way; if the rooms were only too early, until the record sweeps it."""
    shelve(h, s)
    if is_ahead(r, s):
        noted(r)[s] |= AHEAD


@jit
def on_recorded_free(h: Any, r: Any, i: Any) -> None:
    """The record frees an object or a span: the program's own if it holds a stack or work buffers, else ours to say."""
    e = events(r)[i]
    if e.kind == OBJECT_FREE:
        s = span_of_page(h, r[0].base_page + (e.a >> 10))
        if s != 0 and noted(r)[s] & AHEAD:
            noted(r)[s] &= ~np.uint8(AHEAD)
            if spanset_remove(h, full_swept(h, np.int64(spans(h)[s].spanclass)), s):
                place_swept(h, s)
        return
    page = r[0].base_page + e.a
    k = shadow_at(r, page)
    s = span_of_page(h, page)
    if k >= 0:
        set_shadow(r, events(r)[k], np.int64(0))
        release(h, r, events(r)[k])
        if events(r)[k].c & 1 == 0:
            if s == 0 or spans(h)[s].state != SPAN_IN_USE or np.int64(spans(h)[s].start_page) != page:
                return
            if not is_unswept(h, s) and spans(h)[s].alloc_count == 0 and cached_by(h, s, r[0].nprocs) < 0:
                forget_span(h, s, r[0].nprocs)
            return
    if s != 0 and spans(h)[s].state == SPAN_MANUAL and np.int64(spans(h)[s].start_page) == page:
        free_span_locked(h, NO_P, s)
