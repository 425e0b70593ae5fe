"""A whole collection at one instant: for callers that want recycled memory and no clock (after mgc.go:gcStart to gcSweep).

What is left of the last sweep is done, what is not dead is marked, the sweep's generation advances, the caches are
flushed and everything is swept. Nothing of it costs simulated time: metadata it touches first is taken as touched.

Left out: everything that makes a collection take its time, which is the collector's matter.
"""

from __future__ import annotations

from typing import Any

from numba import int64, void

from sim.go.mcache import prepare_for_sweep
from sim.go.mgcscavenge_index import next_gen
from sim.go.mgcsweep import begin_sweep, finish_sweep, sweep_one
from sim.go.mheap import clear_page_marks, mark_span
from sim.go.state import SPAN_IN_USE, heap_type, spans
from sim.jit import bare, entry, jit


@jit
def mark_at_once(h: Any, p: Any) -> None:
    """Finish the last sweep, mark what is not dead, begin the next sweep; caches are flushed for it."""
    while sweep_one(h, p) >= 0:
        pass
    finish_sweep(h)
    clear_page_marks(h)
    for s in range(1, h[0].nspans):
        if spans(h)[s].state == SPAN_IN_USE:
            mark_span(h, s)
    begin_sweep(h)
    h[0].last_heap_in_use = h[0].heap_in_use
    next_gen(h)
    for i in range(h[0].nprocs):
        prepare_for_sweep(h, i)


@entry(void(heap_type, int64))
def collect_at_once(h: Any, p: Any) -> None:
    """Mark, sweep and free everything that is dead, on P p; no P may be in the middle of an allocation."""
    h = bare(h)
    mark_at_once(h, p)
    while sweep_one(h, p) >= 0:
        pass
    h[0].fact_meta_pages = 0
    h[0].fact_sweep_time = 0
