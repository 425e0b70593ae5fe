"""Small records of a program written by hand, event by event, for replays.

Spans of class 44 (4096 bytes, two slots, one page) and of class 32 (1024 bytes, eight slots, one page), both without
pointers; goroutine and thread follow the P unless told.
"""

from dataclasses import replace

import numpy as np

from experiments.replay import replay
from workloads.gotrace_model import (
    EVENT_COLUMNS,
    GC_BEGIN,
    GC_END,
    GOMAXPROCS,
    HEAP_ALLOC,
    OBJECT,
    OBJECT_ALLOC,
    OBJECT_FREE,
    SPAN,
    SPAN_ALLOC,
    STW_BEGIN,
    STW_END,
    Trace,
)

PAIR, EIGHT = 89, 65
SIZE = {PAIR: 4096, EIGHT: 1024}


def at(kind, a=0, b=0, c=0, p=0, g=None, m=None, why=None, frames=()):
    """An event; ``why``: a text that stands for ``a``, ``frames``: the functions of its stack, innermost first."""
    return (kind, p, m if m is not None else 10 + p, g if g is not None else 100 + p, a, b, c, why, frames)


def span(page, spc=PAIR, p=0, g=None, npages=1, kind=SPAN_ALLOC):
    return at(kind, page, npages, 2 * spc, p, g)


def slot(page, number, spc=PAIR, p=0, g=None, kind=OBJECT_ALLOC):
    return at(kind, page * 1024 + number * SIZE[spc] // 8, p=p, g=g)


def old(page, slots=(), spc=PAIR, npages=1):
    """A span of the snapshot with its taken slots."""
    return [span(page, spc, npages=npages, kind=SPAN), *(slot(page, n, spc, kind=OBJECT) for n in slots)]


def fresh(page, slots=(0,), spc=PAIR, p=0):
    return [span(page, spc, p), *(slot(page, n, spc, p) for n in slots)]


def collection(p=0, freed=(), commit=()):
    """A whole cycle that P ends; ``freed`` are the events between the stop and the flush of idle Ps, ``commit`` those
    that set its pacing within the stop."""
    stop, go = at(STW_BEGIN, p=p), at(STW_END, p=p)
    flush = [at(GOMAXPROCS, 2, p=p), go, *freed, at(HEAP_ALLOC, p=p)]
    return [at(GC_BEGIN, p=p), stop, go, stop, at(GC_END, p=p), *commit, *flush]


def trace_of(*parts, gomaxprocs=1):
    """A trace of these events and lists of them, a nanosecond apart."""
    rows = [e for part in parts for e in (part if isinstance(part, list) else [part])]
    columns = {name: np.zeros(len(rows), dtype) for name, dtype in EVENT_COLUMNS.items()}
    columns["time_ns"][:] = range(len(rows))
    for i, name in enumerate(("kind", "p", "m", "g", "a", "b", "c")):
        columns[name][:] = [row[i] for row in rows]
    texts, functions, start = [""], [], [0, 0]
    for i, (*_, why, frames) in enumerate(rows):
        if why is not None:
            columns["a"][i] = len(texts)
            texts.append(why)
        if frames:
            functions += range(len(texts), len(texts) + len(frames))
            texts += frames
            start.append(len(functions))
            columns["stack"][i] = len(start) - 2
    none = np.zeros(0, np.int64)
    tables = dict.fromkeys(("generation", "generation_start", "frame_pc", "frame_file", "frame_line"), none)
    tables |= dict.fromkeys(("type_address", "type_size", "type_ptr_bytes", "type_name"), none)
    tables |= {"stack_start": np.array(start), "frame_func": np.array(functions, np.int64)}
    scalars = {"go_version": "1.26", "min_heap": 0xC0_0000_0000, "page_size": 8192, "gomaxprocs": gomaxprocs}
    return Trace(**columns, **tables, **scalars, strings=tuple(texts), unknown={}, skipped={})


def run(*parts, gomaxprocs=1, gc=None):
    """Replay a record: events and lists of them."""
    return replay(trace_of(*parts, gomaxprocs=gomaxprocs), gc)


def missed(result):
    return {cause: n for cause, n in result.misses.items() if n}


FULL = old(0, range(2))  # so that page 0 is the lowest


def damaged(trace, seed):
    """Events lost, swapped with the next, or moved to another page."""
    rng = np.random.default_rng(seed)
    columns = {name: getattr(trace, name).copy() for name in EVENT_COLUMNS}
    swapped = rng.integers(0, len(trace.kind) - 1, 300)
    for column in columns.values():
        for i in swapped:
            column[i], column[i + 1] = column[i + 1], column[i]
    moved = rng.choice(np.flatnonzero(columns["kind"] <= OBJECT_FREE), 100)
    pages = rng.integers(-200, 3000, 100)
    columns["a"][moved] += np.where(columns["kind"][moved] >= OBJECT, pages * 1024, pages)
    kept = rng.random(len(trace.kind)) > 0.02
    return replace(trace, **{name: column[kept] for name, column in columns.items()})
