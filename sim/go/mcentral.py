"""The central list of a span class: where a P trades its full span for one with room (mirrors mcentral.go).

A refill first sweeps what it owes (mgcsweep.deduct_sweep_credit). Then it takes a swept partial span; else it sweeps
partial, then full spans, at most 100 (the budget bounds the time against 1 % more space); else the caller grows the
list with a fresh span.

Up to go1.14 two lists stand behind a mutex instead, nonempty and empty; the shell takes it. Under it a refill only
unlinks a span and links it again: swept or not, a span is swept after the unlock, and if it is still full the lock is
taken again, without a budget. A fresh span comes from the heap with the lock free, which is then taken to enter it;
the full span that a refill gives up stays where it is, so that takes no lock. Left out of go1.14: the order of its
lists (spans with room were last in, first out, swept and unswept mixed; here they come as above), the walk over spans
that somebody else is sweeping, and the lock when a sweeper or a cache that is flushed moves a span between the lists.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.mgcsweep import deduct_sweep_credit, sweep, try_acquire
from sim.go.mspan import set_freeindex
from sim.go.mspanset import (
    full_swept,
    full_unswept,
    partial_swept,
    partial_unswept,
    place_swept,
    spanset_pop,
    spanset_push,
)
from sim.go.sizeclasses import class_to_allocnpages
from sim.go.state import PAGE_SHIFT, spans
from sim.jit import jit
from sim.units import Throw

SPAN_BUDGET = 100  # spans a refill may look at before it grows the heap instead (mcentral.go:cacheSpan)


@jit
def take_unswept(h: Any, p: Any, spanclass: Any) -> Any:
    """Sweep spans of the class within the budget until one has room; 0 if none. (mcentral.go:cacheSpan)"""
    budget = SPAN_BUDGET
    while budget >= 0:
        s = spanset_pop(h, partial_unswept(h, spanclass))
        if s == 0:
            break
        budget -= 1
        if try_acquire(h, s):
            sweep(h, p, s, True)
            return s
    while budget >= 0:
        s = spanset_pop(h, full_unswept(h, spanclass))
        if s == 0:
            break
        budget -= 1
        if try_acquire(h, s):
            sweep(h, p, s, True)
            if spans(h)[s].alloc_count != spans(h)[s].nelems:
                return s
            spanset_push(h, full_swept(h, spanclass), s)
    return np.int64(0)


@jit
def have_span(h: Any, s: Any) -> None:
    """Ready a span for the cache: alloc_cache aligned to its freeindex. (mcentral.go:cacheSpan, havespan)"""
    sp = spans(h)[s]
    if sp.alloc_count == sp.nelems or sp.freeindex == sp.nelems:
        raise Throw("span has no free space")
    set_freeindex(h, s, np.int64(sp.freeindex))


@jit
def pay_for_refill(h: Any, p: Any, spanclass: Any) -> None:
    """Sweep what a refill of the class owes. (mcentral.go:cacheSpan, its beginning)"""
    deduct_sweep_credit(h, p, class_to_allocnpages[spanclass >> 1] << PAGE_SHIFT, np.int64(0))


@jit
def cache_span(h: Any, p: Any, spanclass: Any) -> Any:
    """A span with room from the class's sets, readied for the cache; 0 when the heap must give a fresh one."""
    pay_for_refill(h, p, spanclass)
    s = spanset_pop(h, partial_swept(h, spanclass))
    if s == 0:
        s = take_unswept(h, p, spanclass)
    if s != 0:
        have_span(h, s)
    return s


@jit
def take_listed(h: Any, spanclass: Any) -> Any:
    """What a refill does under the mutex: a span off the lists, swept or claimed for sweeping; 0 if there is none.

    (go1.14 mcentral.go:cacheSpan)
    """
    s = spanset_pop(h, partial_swept(h, spanclass))
    if s != 0:
        return s
    for index in (partial_unswept(h, spanclass), full_unswept(h, spanclass)):
        while True:
            s = spanset_pop(h, index)
            if s == 0:
                break
            if try_acquire(h, s):
                return s
    return np.int64(0)


@jit
def ready_listed(h: Any, p: Any, s: Any) -> Any:
    """What it does with that span after the unlock: True when it has room, now that it is swept. (mcentral.go:cacheSpan)"""
    sp = spans(h)[s]
    if np.int64(sp.sweepgen) != np.int64(h[0].sweepgen):
        sweep(h, p, s, True)
        if sp.alloc_count == sp.nelems:
            spanset_push(h, full_swept(h, np.int64(sp.spanclass)), s)
            return False
    have_span(h, s)
    return True


@jit
def uncache_span(h: Any, p: Any, s: Any) -> None:
    """Take a span back from a cache; one cached since before this cycle is swept now. (mcentral.go:uncacheSpan)"""
    sp = spans(h)[s]
    if np.int64(sp.sweepgen) == np.int64(h[0].sweepgen) + 1:
        sp.sweepgen = h[0].sweepgen - 1
        sweep(h, p, s, False)
        return
    sp.sweepgen = h[0].sweepgen
    place_swept(h, s)
