"""Collections in a replay: what dies, who sweeps it when, and which caches are flushed.

Frees appear when a span is swept, not when an object dies: an object freed between the ends of two mark phases was
dead at the first. So the dead bits of a cycle are set at its GC end, and the rooms' own sweeping must find them.

Three sweepers leave traces of different kinds. The background's order (bgsweep, runtime.GC, and an allocation that
pays its sweep credit) shows in the frees: the rooms sweep in that order up to each span the record sweeps. A refill
sweeps spans of its own class, which the rooms do by themselves when they get to it: nothing is done ahead. Reclaiming
for the page heap looks for wholly dead spans, by address: such a span is freed where the record frees it, whatever
the rooms' order.

Caches are flushed when the runtime does: of the P that ends the cycle within the stop, of each other P when it
starts again, and of idle Ps, with their page caches, after the stop (mgc.go:gcMarkTermination). When exactly that
happens is not recorded: it is put at the next event of the thread that ended the cycle, whatever stacks it frees in
between; a P that the restarted world has woken by then is no longer idle.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.replay_repair import NO_P, cached_by, forget_span, free_later, sweep_directly
from experiments.replay_state import events, freed_at, order, rprocs
from sim.go.mcache import prepare_for_sweep, release_all
from sim.go.mgcsweep import finish_sweep, sweep, sweep_one, try_acquire
from sim.go.mheap import clear_page_marks, free_span_locked, mark_span, span_of_page
from sim.go.mpagecache import page_cache_flush
from sim.go.mspan import span_words
from sim.go.mspanset import (
    full_unswept,
    partial_swept,
    partial_unswept,
    spanset_first,
    spanset_next,
    spanset_pop,
    spanset_push_front,
    spanset_remove,
)
from sim.go.state import NUM_SPAN_CLASSES, PAGE_SHIFT, SPAN_IN_USE, SPAN_MANUAL, mcaches, spans, spansets, words
from sim.jit import jit
from sim.words import ZERO, popcount64
from workloads.gotrace_model import GC_END, OBJECT_ALLOC, OBJECT_FREE, PROC_START, SPAN_ALLOC, SWEEP_BEGIN

_AHEAD = 10_000  # events looked at for what a thread does next


@jit
def is_unswept(h: Any, s: Any) -> Any:
    """Whether this cycle has still to sweep a span."""
    return np.int64(spans(h)[s].sweepgen) == np.int64(h[0].sweepgen) - 2


@jit
def is_wholly_dead(h: Any, s: Any) -> Any:
    """Whether marking found no object of a span."""
    for i in range(span_words(spans(h)[s].nelems)):
        if words(h)[np.int64(spans(h)[s].mark_bits) + i] != ZERO:
            return False
    return True


@jit
def has_garbage(h: Any, s: Any) -> Any:
    """Whether sweeping an unswept span will free something."""
    live = np.int64(0)
    for i in range(span_words(spans(h)[s].nelems)):
        live += popcount64(words(h)[np.int64(spans(h)[s].mark_bits) + i])
    return live != spans(h)[s].alloc_count


@jit
def is_next(h: Any, s: Any, slack: Any) -> Any:
    """Whether the background's order comes to a span next, but for spans without garbage, which leave no trace.

    ``slack``: how many spans with garbage may come before, held by other sweepers that have not announced it yet.
    """
    for sweep_class in range(h[0].central_index, 2 * NUM_SPAN_CLASSES):
        spc = np.int64(sweep_class) >> 1
        index = partial_unswept(h, spc) if sweep_class & 1 else full_unswept(h, spc)
        block = np.int64(spansets(h)[index].head)
        for i in range(spansets(h)[index].popped, spansets(h)[index].pushed):
            block, at = spanset_next(h, index, block, i)
            if at == s:
                return True
            if is_unswept(h, at) and has_garbage(h, at):
                slack -= 1
                if slack < 0:
                    return False
    return False


@jit
def refill_sweeps(h: Any, spc: Any) -> Any:
    """The span that a refill of a class would sweep and take, 0 if none. (mcentral.go:cacheSpan)"""
    if spanset_first(h, partial_swept(h, spc)) != 0:
        return np.int64(0)
    s = spanset_first(h, partial_unswept(h, spc))
    if s != 0:
        return s
    index = full_unswept(h, spc)
    block = np.int64(spansets(h)[index].head)
    for i in range(spansets(h)[index].popped, spansets(h)[index].pushed):
        block, s = spanset_next(h, index, block, i)
        if has_garbage(h, s):
            return s
    return np.int64(0)


@jit
def sweep_until(h: Any, p: Any, s: Any) -> None:
    """Sweep in the background's order up to a span; 0: to the end. (mgcsweep.go:sweepone)

    Other spans with garbage stay unswept in their set: they are swept where the record frees it.
    """
    while h[0].central_index < 2 * NUM_SPAN_CLASSES:
        spc = np.int64(h[0].central_index) >> 1
        index = partial_unswept(h, spc) if h[0].central_index & 1 else full_unswept(h, spc)
        passed = np.int64(0)  # the last span passed over; their records' ``next`` chains them
        found = spanset_pop(h, index)
        while found != 0:
            if found != s and is_unswept(h, found) and has_garbage(h, found):
                spans(h)[found].next = passed
                passed = found
            elif try_acquire(h, found):
                sweep(h, p, found, False)
            if found == s:
                break
            found = spanset_pop(h, index)
        while passed != 0:
            spanset_push_front(h, index, passed)
            passed = np.int64(spans(h)[passed].next)
        if found == s and s != 0:
            return
        h[0].central_index += 1


@jit
def look_ahead(r: Any, i: Any, proc: Any) -> None:
    """What an allocation that begins to sweep at event i will get: see the fields of a P (replay_state)."""
    m = events(r)[i].m
    proc.in_sweep = 1
    proc.sweeps_more = 0
    proc.sweep_last = -1
    proc.sweep_page = -1
    proc.sweep_fresh = -1
    for j in range(i + 1, min(len(events(r)), i + _AHEAD)):
        e = events(r)[j]
        if e.m != m:
            continue
        if e.kind == SWEEP_BEGIN:
            proc.sweeps_more = 1
        elif e.kind == OBJECT_FREE and not proc.sweeps_more:
            proc.sweep_last = r[0].base_page + (e.a >> 10)
        elif e.kind == OBJECT_ALLOC:
            proc.sweep_page = r[0].base_page + (e.a >> 10)
            return
        elif e.kind == SPAN_ALLOC and e.c & 1 == 0:
            proc.sweep_fresh = e.c >> 1
            return


@jit
def left_to_refill(h: Any, r: Any, p: Any, s: Any) -> Any:
    """Whether a free comes from a refill's own sweeping, which the rooms do when they get to it.

    That is so for the span whose slot the allocation gets, unless sweep credit was paid with it: a refill's sweeping
    ends with the span it takes, so then another sweep or another span's frees may follow, or the background's order
    comes to the span and a refill's does not.
    """
    proc = rprocs(r)[p]
    if proc.in_sweep == 0 or span_of_page(h, proc.sweep_page) != s:
        return False
    if proc.sweeps_more or span_of_page(h, proc.sweep_last) != s:
        return False
    return refill_sweeps(h, np.int64(spans(h)[s].spanclass)) == s or not is_next(h, s, np.int64(0))


@jit
def set_aside(h: Any, r: Any, s: Any) -> None:
    """A span of the very class that a fresh span is allocated for: reclaiming sweeps it after the refill has looked."""
    spc = np.int64(spans(h)[s].spanclass)
    if not spanset_remove(h, partial_unswept(h, spc), s):
        spanset_remove(h, full_unswept(h, spc), s)
    if r[0].aside < len(order(r)):
        order(r)[r[0].aside] = s
        r[0].aside += 1


@jit
def sweep_aside(h: Any, r: Any, spc: Any) -> None:
    """After a fresh span: sweep what reclaiming swept for it."""
    for i in range(r[0].aside):
        s = order(r)[i]
        if np.int64(spans(h)[s].spanclass) == spc and is_unswept(h, s):
            sweep_directly(h, s)
    r[0].aside = 0


@jit
def flush_before_start(h: Any, r: Any, i: Any) -> None:
    """A thread without a P sweeps: it is flushing the P it is about to start. (proc.go:acquirepNoTrace)"""
    m = events(r)[i].m
    for j in range(i + 1, min(len(events(r)), i + _AHEAD)):
        if events(r)[j].m == m and events(r)[j].kind == PROC_START:
            prepare_for_sweep(h, events(r)[j].a)
            return


@jit
def catch_up(h: Any, r: Any, i: Any, s: Any) -> None:
    """The record frees in span s at event i: let the rooms come to it as far as their order says."""
    p = events(r)[i].p
    if p < 0:
        flush_before_start(h, r, i)
    if np.int64(spans(h)[s].sweepgen) == np.int64(h[0].sweepgen) + 1:
        q = cached_by(h, s, r[0].nprocs)
        if q >= 0:
            prepare_for_sweep(h, q)
        return
    if not is_unswept(h, s) or is_wholly_dead(h, s):
        return
    if p >= 0 and left_to_refill(h, r, p, s):
        return
    if p >= 0 and rprocs(r)[p].in_sweep and rprocs(r)[p].sweep_fresh == np.int64(spans(h)[s].spanclass):
        set_aside(h, r, s)
    elif is_next(h, s, r[0].nprocs - 1):
        sweep_until(h, p, s)
    else:
        sweep_directly(h, s)


@jit
def on_span_free(h: Any, r: Any, i: Any, s: Any) -> None:
    """A span is freed: a stack's or work buffer's, or one whose objects are all dead."""
    page = np.int64(spans(h)[s].start_page)
    if spans(h)[s].state == SPAN_MANUAL:
        free_span_locked(h, NO_P, s)
        return
    catch_up(h, r, i, s)
    if span_of_page(h, page) == s:
        sweep_directly(h, s)
    if span_of_page(h, page) == s:
        forget_span(h, s, r[0].nprocs)


@jit
def mark_dead_until(h: Any, r: Any, first: Any) -> None:
    """Set the dead bits of every object that is freed before the next GC end, and mark the rest of the heap."""
    base = r[0].base_page
    freed_at(r)[:] = 0
    i = first
    while i < len(events(r)) and events(r)[i].kind != GC_END:
        if events(r)[i].kind == OBJECT_FREE:
            addr = (base << PAGE_SHIFT) + events(r)[i].a * 8
            s = span_of_page(h, addr >> PAGE_SHIFT)
            if s != 0 and spans(h)[s].state == SPAN_IN_USE:
                free_later(h, s, addr)
                if freed_at(r)[s] == 0:
                    freed_at(r)[s] = i
        i += 1
    for s in range(1, h[0].nspans):
        if spans(h)[s].state == SPAN_IN_USE:
            mark_span(h, np.int64(s))


@jit
def sweep_rest(h: Any) -> None:
    """Sweep what is left, in the background's order."""
    while sweep_one(h, NO_P) >= 0:
        pass


@jit
def end_sweep(h: Any) -> None:
    """Sweep termination, the world being stopped. (mgcsweep.go:finishsweep_m)"""
    sweep_rest(h)
    finish_sweep(h)


@jit
def finish_told(h: Any) -> None:
    """The next mark phase is over: whatever the record has not shown to be swept was swept without a trace."""
    sweep_until(h, NO_P, np.int64(0))
    for s in range(1, h[0].nspans):
        if spans(h)[s].state == SPAN_IN_USE and is_unswept(h, np.int64(s)):
            sweep_directly(h, np.int64(s))


@jit
def flush_idle(h: Any, r: Any) -> None:
    """After the stop of mark termination: caches that are still stale, and the page caches of idle Ps."""
    r[0].finish_m = -1
    for p in range(r[0].nprocs):
        prepare_for_sweep(h, np.int64(p))
        if rprocs(r)[p].idle_since_stop:
            page_cache_flush(h, np.int64(p))
            rprocs(r)[p].start_known = 1


@jit
def on_gomaxprocs(h: Any, r: Any, p: Any, nprocs: Any) -> None:
    """Each stop ends here: the stopping P flushes a stale cache, Ps beyond the new number go. (proc.go:procresize)"""
    if p >= 0:
        prepare_for_sweep(h, p)
    for q in range(nprocs, r[0].nprocs):
        page_cache_flush(h, np.int64(q))
        release_all(h, np.int64(q))
        mcaches(h)[q].flush_gen = h[0].sweepgen
        rprocs(r)[q].start_known = 1


@jit
def on_stw_end(h: Any, r: Any, p: Any, m: Any) -> None:
    """The world starts again: nothing is left to sweep after sweep termination, idle Ps follow mark termination."""
    if r[0].gc_began:
        r[0].gc_began = 0
        r[0].marking = 1
        clear_page_marks(h)
        if r[0].ours:
            end_sweep(h)
        else:
            sweep_until(h, NO_P, np.int64(0))
    if r[0].gc_ended:
        r[0].gc_ended = 0
        r[0].finish_m = m
        for q in range(r[0].nprocs):
            rprocs(r)[q].idle_since_stop = q != p and rprocs(r)[q].running == 0
