"""Which slot each object of a recorded trace lies in, which tiny block it shares, and which sweep freed it.

A page belongs to the span announced last before; an object to the slot of its address. An allocation into a slot that
already holds one is a tiny object combined into that block (span class 5 alone); a free ends what the slot holds.
All at once, by sorting: no pass over the events in Python.

Left out: what a free whose object was never announced was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.go.sizeclasses import class_to_allocnpages, class_to_size
from sim.go.state import TINY_SPAN_CLASS
from workloads.gotrace_model import OBJECT, OBJECT_FREE, SPAN, SPAN_ALLOC, Trace

_MAX_PAGES = 1 << 27  # of a span: 1 TiB
_SMALL_PAGES = int(class_to_allocnpages.max())  # an object of a larger span begins on its first page
ID_BYTES = 8  # object ids count these


@dataclass(frozen=True, eq=False)
class Objects:
    """The objects of a trace, in the order of their events: numpy columns, one row each.

    ``row``: of the event (OBJECT or OBJECT_ALLOC) that announced it. ``spanclass``: -1 in no known span. ``size``:
    bytes of its slot, all pages of a large object's span, 0 unknown. ``offset``: bytes from the slot's base.
    ``span``: row of the event that announced its span, -1 unknown; ``slot``: its number in there.
    ``block``: index of the object whose slot it was combined into, of itself if of none. ``freed``: row of its free;
    the number of the trace's events if there is none.
    """

    row: Any
    spanclass: Any
    size: Any
    offset: Any
    block: Any
    freed: Any
    span: Any
    slot: Any


def _spans_of(trace: Trace, page: Any, row: Any) -> Any:
    """The row that announced the span each page belonged to at a row; -1 for none."""
    made = np.flatnonzero((trace.kind == SPAN) | (trace.kind == SPAN_ALLOC))
    pages = np.clip(trace.b[made], 1, _SMALL_PAGES)
    total = int(pages.sum())
    owner = np.repeat(np.arange(len(made)), pages)
    inside = np.arange(total) - np.repeat(np.cumsum(pages) - pages, pages)
    known, rank = np.unique(trace.a[made][owner] + inside, return_inverse=True)
    if not len(known):
        return np.full(len(page), -1)
    n = len(trace.kind) + 1
    keys = rank * n + made[owner]
    order = np.argsort(keys)
    keys = keys[order]
    at = np.minimum(np.searchsorted(known, page), len(known) - 1)
    found = np.searchsorted(keys, at * n + row) - 1
    hit = (known[at] == page) & (found >= 0)
    hit &= keys[np.maximum(found, 0)] // n == at
    return np.where(hit, made[owner[order[np.maximum(found, 0)]]], -1)


def find_objects(trace: Trace) -> Objects:
    """The objects of a trace with allocation events; some 0.5 us an event."""
    row = np.flatnonzero((trace.kind >= OBJECT) & (trace.kind <= OBJECT_FREE))
    ids = trace.a[row]
    per_page = max(trace.page_size // ID_BYTES, 1)
    span = _spans_of(trace, ids // per_page, row)
    kindclass = np.where(span >= 0, trace.c[span], 1)
    sizeclass = kindclass >> 2
    held = (kindclass & 1 == 0) & (sizeclass >= 0) & (sizeclass < len(class_to_size))
    size = np.asarray(class_to_size, np.int64)[np.where(held, sizeclass, 0)]
    large = np.clip(trace.b[span], 1, _MAX_PAGES) * trace.page_size
    size = np.where(held, np.where(size > 0, size, large), 0)
    inside = np.where(held, (ids - trace.a[span] * per_page) * ID_BYTES, 0)
    slot = inside // np.maximum(size, 1)
    spanclass = np.where(held, kindclass >> 1, -1)
    key = np.where(held, span * (int(slot.max(initial=0)) + 1) + slot, -1 - np.arange(len(row)))
    block, freed = _lives(trace.kind[row] == OBJECT_FREE, key, spanclass, row, len(trace.kind))
    made = np.flatnonzero(trace.kind[row] != OBJECT_FREE)
    number = np.zeros(len(row), np.int64)
    number[made] = np.arange(len(made))
    return Objects(
        row=row[made],
        spanclass=spanclass[made],
        size=size[made],
        offset=(inside - slot * size)[made],
        block=number[block[made]],
        freed=freed[made],
        span=span[made],
        slot=slot[made],
    )


def _lives(is_free: Any, key: Any, spanclass: Any, row: Any, never: int) -> tuple[Any, Any]:
    """For events of slots ``key``, in order: the event of the block each object shares, and the row that freed it."""
    order = np.argsort(key, kind="stable")
    free, group = is_free[order], key[order]
    empty = np.ones(len(order), bool)  # the slot held nothing before
    empty[1:] = (group[1:] != group[:-1]) | free[:-1]
    first = ~free & (empty | (spanclass[order] != TINY_SPAN_CLASS))
    last = np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))
    freed = np.full(len(order), never)
    ends = np.flatnonzero(free & ~empty)
    freed[last[ends - 1]] = row[order[ends]]
    block_of, freed_of = np.empty_like(order), np.empty_like(order)
    block_of[order] = order[last]
    freed_of[order] = freed[last]
    return block_of, freed_of
