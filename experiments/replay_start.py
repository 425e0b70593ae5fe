"""The heap at a trace's start: what the snapshot tells, and what has to be inferred.

The snapshot names every span, every taken slot and no more. Inferred, from the events that follow:

- *Cached spans.* A P's first object of a span class, when no refill (a change of heapLive) comes before it, lies in
  the span that the P had cached. That object is "excepted", never matched. Where sweeping is the rooms' own matter,
  spans that a P flushes after the first mark phase and that nobody used before were cached from the start, too.
- *The order of the central sets.* A span set hands out the span that entered it first, and that depends on a past
  nobody recorded: spans of the snapshot enter their sets in the order in which the record first touches them, by a
  free or an object, the others by address. Whether a refill takes an old span or a fresh one, and which slot, remains
  to be predicted.
- *A sweep under way.* Spans with frees before the first mark phase ends had not been swept; what is freed there was
  dead at the start. Partly free spans that a refill passed over in favour of a fresh span were in no set: some other
  P had them cached.
- *Page caches*, where pages contradict empty ones: of a P whose first small spans lie elsewhere
  (:func:`page_cache_at_start`), or of an idle P, when others pass over free pages (:func:`idle_page_cache`).

The lowest page the allocator may hand out is the lowest the whole record shows; below it lie padding pages.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.replay_repair import force_span, free_later, slot_at
from experiments.replay_state import (
    CACHED,
    FLUSH_ALL,
    GONE,
    OLD,
    TOUCHED,
    UNSWEPT,
    events,
    fresh_at,
    noted,
    order,
    rprocs,
)
from sim.go.mheap import PAGE_CACHE_MAX_PAGES, add_arenas, span_of_page
from sim.go.mpagealloc import page_alloc_grow, page_alloc_range
from sim.go.mspan import is_allocated, mark_live, set_freeindex
from sim.go.mspanset import full_swept, full_unswept, partial_unswept, place_swept, spanset_push
from sim.go.state import NUM_SPAN_CLASSES, PAGE_SHIFT, SPAN_IN_USE, mcaches, spans, words
from sim.jit import jit
from sim.words import ZERO, bit64
from workloads.gotrace_model import (
    GC_END,
    GOMAXPROCS,
    HEAP_ALLOC,
    OBJECT,
    OBJECT_ALLOC,
    OBJECT_FREE,
    PROC_START,
    SPAN,
    SPAN_ALLOC,
    SPAN_FREE,
    STW_END,
)

_ARENA_MASK = np.int64((1 << 26) - 1)


def page_cache_at_start(recorded: Any, p: int) -> tuple[int, int]:
    """The page cache that a P's first small spans prove it had: its first page and the bits of its free ones.

    It covers the 64-page block of the first of them. In it are the block's pages that are free in the snapshot, less
    those a single-page span passed over (a cache hands out its lowest page first), those given to others, and those
    left over when the P turned to another block. (0, 0) if the P has no small span.
    """
    kind, pages, npages = recorded["kind"], recorded["a"], recorded["b"]
    mine = (kind == SPAN_ALLOC) & (recorded["p"] == p) & (npages < PAGE_CACHE_MAX_PAGES)
    if not mine.any():
        return 0, 0
    base = int(pages[np.argmax(mine)]) & ~63
    left = _free_at_start(recorded, base)
    near = np.flatnonzero((kind == SPAN_ALLOC) & (pages < base + 64) & (pages + npages > base) | mine)
    given: set[int] = set()
    for i in near:
        page, count = int(pages[i]), int(npages[i])
        taken = set(range(page, page + count))
        if not mine[i]:
            left -= taken
        elif taken <= left:
            given |= taken
            left -= taken
            if count == 1:
                left -= set(range(base, page))
        elif count == 1:  # the cache was empty by then; several pages may come past it, when it has no such run
            left.clear()
            break
    return base, _bits(base, given | left)


def idle_page_cache(recorded: Any, page: int) -> tuple[int, int]:
    """The page cache around ``page`` of a P that shows none of its own: the block's pages that are free in the
    snapshot and that nobody gets before the first mark phase ends, when idle Ps lose theirs."""
    ends = np.flatnonzero(recorded["kind"] == GC_END)
    before = recorded[: ends[0]] if len(ends) else recorded
    base = page & ~63
    free = _free_at_start(recorded, base)
    near = before[(before["kind"] == SPAN_ALLOC) & (before["a"] < base + 64) & (before["a"] + before["b"] > base)]
    for first, count in zip(near["a"].tolist(), near["b"].tolist(), strict=True):
        free -= set(range(first, first + count))
    return base, _bits(base, free)


def was_free_until(recorded: Any, page: int, event: int) -> bool:
    """Whether a page is free in the snapshot and nobody has got it before an event."""
    seen = recorded[:event]
    spans_there = (seen["kind"] == SPAN) | (seen["kind"] == SPAN_ALLOC)
    return not np.any(spans_there & (seen["a"] <= page) & (seen["a"] + seen["b"] > page))


def _free_at_start(recorded: Any, base: int) -> set[int]:
    """The pages of a 64-page block that the snapshot has free: from the lowest page of all to the last one's chunk."""
    is_span = (recorded["kind"] == SPAN) | (recorded["kind"] == SPAN_ALLOC)
    at_start = recorded[recorded["kind"] == SPAN]
    end = int((at_start["a"] + at_start["b"]).max(initial=0)) + 511 & ~511
    free = set(range(max(base, int(recorded["a"][is_span].min())), min(base + 64, end)))
    near = at_start[(at_start["a"] < base + 64) & (at_start["a"] + at_start["b"] > base)]
    for first, count in zip(near["a"].tolist(), near["b"].tolist(), strict=True):
        free -= set(range(first, first + count))
    return free


def _bits(base: int, pages: set[int]) -> int:
    return sum(1 << (page - base) for page in pages)


@jit
def take_snapshot(h: Any, r: Any) -> None:
    """Pages, spans, taken slots and page caches of the start; spans are in no set yet."""
    base = r[0].base_page
    ev = events(r)
    lowest = np.int64(1) << 60
    last = base
    for i in range(len(ev)):
        if ev[i].kind == SPAN or ev[i].kind == SPAN_ALLOC:
            lowest = min(lowest, base + ev[i].a)
        if ev[i].kind == SPAN:
            last = max(last, base + ev[i].a + ev[i].b)
    if lowest >= last:
        lowest = base
    npages = max((last - base + 511) & ~np.int64(511), 512)
    end = (base + npages) << PAGE_SHIFT
    arena_end = (end + _ARENA_MASK) & ~_ARENA_MASK
    arena_base = (base << PAGE_SHIFT) & ~_ARENA_MASK
    add_arenas(h, arena_base, arena_end - arena_base)
    h[0].arena_hint = arena_end
    h[0].cur_arena_base = end
    h[0].cur_arena_end = arena_end
    h[0].sweepgen = 2
    page_alloc_grow(h, base, npages)
    h[0].heap_released += npages << PAGE_SHIFT
    if lowest > base:
        page_alloc_range(h, base, lowest - base)
    for i in range(len(ev)):
        if ev[i].kind == SPAN:
            s = force_span(h, r, np.int64(-1), base + ev[i].a, ev[i].b, ev[i].c)
            noted(r)[s] = OLD
        elif ev[i].kind == OBJECT:
            take_snapshot_object(h, (base << PAGE_SHIFT) + ev[i].a * 8)
    for p in range(r[0].nprocs):
        mcaches(h)[p].flush_gen = h[0].sweepgen
        for i in range(64):
            if rprocs(r)[p].start_bits & bit64(i) != ZERO:
                page_alloc_range(h, base + rprocs(r)[p].start_base + i, np.int64(1))
        mcaches(h)[p].pcache_base = base + rprocs(r)[p].start_base
        mcaches(h)[p].pcache = rprocs(r)[p].start_bits


@jit
def take_snapshot_object(h: Any, addr: Any) -> None:
    """A slot that is taken at the start."""
    s = span_of_page(h, addr >> PAGE_SHIFT)
    if s == 0 or spans(h)[s].state != SPAN_IN_USE:
        return
    slot = slot_at(h, s, addr)
    if slot >= 0 and not is_allocated(h, s, slot):
        words(h)[np.int64(spans(h)[s].alloc_bits) + (slot >> 6)] |= bit64(slot & 63)
        spans(h)[s].alloc_count += 1


@jit
def touch(r: Any, s: Any) -> None:
    """The record shows a span of the snapshot for the first time."""
    if noted(r)[s] & TOUCHED == 0:
        noted(r)[s] |= TOUCHED
        order(r)[r[0].ordered] = s
        r[0].ordered += 1


@jit
def survey_object(h: Any, r: Any, p: Any, s: Any, known: Any) -> None:
    """An object in a span of the snapshot; ``known``: cached spans can still be told from the record."""
    spc = np.int64(spans(h)[s].spanclass)
    proc = rprocs(r)[p]
    first = proc.seen[spc] == 0
    proc.seen[spc] = 1
    untouched = noted(r)[s] & TOUCHED == 0
    touch(r, s)
    room = spans(h)[s].alloc_count != spans(h)[s].nelems
    if known and first and untouched and room and proc.last_kind != HEAP_ALLOC and spc >= 2:
        noted(r)[s] |= CACHED
        mcaches(h)[p].alloc[spc] = s
        spans(h)[s].sweepgen = h[0].sweepgen + 3


@jit
def flushed_by(r: Any, i: Any, in_stop: Any) -> Any:
    """The P whose cache a free at event i empties after the first mark phase, -1 if it is none or cannot be told.

    ``in_stop``: the P that ends the cycle flushes its own before the world goes on. A thread without a P flushes that
    of the P it is about to start.
    """
    e = events(r)[i]
    if e.p >= 0:
        return e.p if in_stop else np.int64(-1)
    for j in range(i + 1, min(len(events(r)), i + 10_000)):
        if events(r)[j].m == e.m and events(r)[j].kind == PROC_START:
            return events(r)[j].a if 0 <= events(r)[j].a < r[0].nprocs else np.int64(-1)
    return np.int64(-1)


@jit
def survey_flushed(h: Any, r: Any, p: Any, s: Any) -> None:
    """P flushes a span of the snapshot that nobody has used since: it had it cached from the start."""
    spc = np.int64(spans(h)[s].spanclass)
    if p < 0 or spc < 2 or noted(r)[s] & TOUCHED or rprocs(r)[p].seen[spc] or mcaches(h)[p].alloc[spc] != 0:
        return
    noted(r)[s] |= CACHED
    mcaches(h)[p].alloc[spc] = s
    spans(h)[s].sweepgen = h[0].sweepgen + 3


@jit
def survey(h: Any, r: Any) -> None:
    """Read the record ahead for what the snapshot does not tell, see the module."""
    known: Any = np.bool_(True)  # no cache flushed yet: cached spans show
    swept = False  # the first mark phase is over
    ends = 0
    in_stop: Any = np.bool_(False)
    for i in range(len(events(r))):
        e = events(r)[i]
        p = e.p
        if e.kind == GC_END or e.kind == FLUSH_ALL:
            known = np.bool_(False)
            swept |= e.kind == GC_END
            ends += e.kind == GC_END
        elif e.kind == GOMAXPROCS or e.kind == STW_END:
            in_stop = np.bool_(e.kind == GOMAXPROCS)
        elif e.kind == SPAN_ALLOC:
            spc = e.c >> 1
            if known and e.c & 1 == 0 and spc >= 2 and p >= 0:
                rprocs(r)[p].seen[spc] = 1
                if fresh_at(r)[spc] < 0:
                    fresh_at(r)[spc] = r[0].ordered
        elif e.kind == OBJECT_ALLOC or e.kind == OBJECT_FREE or e.kind == SPAN_FREE:
            page = e.a if e.kind == SPAN_FREE else e.a >> 10
            s = span_of_page(h, r[0].base_page + page)
            if s == 0 or spans(h)[s].state != SPAN_IN_USE or noted(r)[s] & GONE:
                continue
            if e.kind == OBJECT_ALLOC:
                if p >= 0:
                    survey_object(h, r, p, s, known)
            else:
                if r[0].coupled and ends == 1 and e.kind == OBJECT_FREE:
                    survey_flushed(h, r, flushed_by(r, np.int64(i), in_stop), s)
                touch(r, s)
                if not swept:
                    noted(r)[s] |= UNSWEPT
                if e.kind == SPAN_FREE:
                    noted(r)[s] |= GONE
                elif not swept:
                    addr = (r[0].base_page << PAGE_SHIFT) + e.a * 8
                    free_later(h, s, addr)
        if p >= 0:
            rprocs(r)[p].last_kind = e.kind


@jit
def place_at_start(h: Any, r: Any, s: Any, position: Any) -> None:
    """Put a span of the snapshot into the set it was in; ``position`` in ``order``."""
    sp = spans(h)[s]
    spc = np.int64(sp.spanclass)
    if noted(r)[s] & UNSWEPT:
        sp.sweepgen = h[0].sweepgen - 2
        mark_live(h, s)
        if sp.alloc_count == sp.nelems:
            spanset_push(h, full_unswept(h, spc), s)
        else:
            spanset_push(h, partial_unswept(h, spc), s)
        return
    if sp.alloc_count != sp.nelems and 0 <= fresh_at(r)[spc] <= position:
        for p in range(r[0].nprocs):
            if mcaches(h)[p].alloc[spc] == 0 and rprocs(r)[p].seen[spc] == 0:
                mcaches(h)[p].alloc[spc] = s
                sp.sweepgen = h[0].sweepgen + 3
                return
        spanset_push(h, full_swept(h, spc), s)
        return
    place_swept(h, s)


@jit
def set_up(h: Any, r: Any) -> None:
    """The heap at the start of the trace."""
    take_snapshot(h, r)
    nspans = h[0].nspans
    for s in range(1, nspans):
        if spans(h)[s].state == SPAN_IN_USE:
            set_freeindex(h, np.int64(s), np.int64(0))
    survey(h, r)
    for i in range(r[0].ordered):
        s = order(r)[i]
        if noted(r)[s] & CACHED == 0:
            place_at_start(h, r, s, np.int64(i))
    for s in range(1, nspans):
        if spans(h)[s].state == SPAN_IN_USE and noted(r)[s] & TOUCHED == 0:
            place_at_start(h, r, np.int64(s), r[0].ordered)
    for p in range(r[0].nprocs):
        for spc in range(NUM_SPAN_CLASSES):
            rprocs(r)[p].seen[spc] = 0
