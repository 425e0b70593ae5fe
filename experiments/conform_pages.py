"""Recorded answers of the real page allocator.

Such a file holds sequences of operations and what the runtime's own page allocator answered to each; they run on one
fresh allocator and page cache a sequence, and every answered number is one comparison.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numba import int64, void

from experiments.conform_file import Conformance
from experiments.errors import InputError
from sim.go.mgcscavenge import scavenge
from sim.go.mgcscavenge_index import index_alloc, index_free
from sim.go.mpagealloc import page_alloc, page_alloc_grow, page_free
from sim.go.mpagecache import alloc_to_cache, page_cache_alloc, page_cache_flush
from sim.go.runtime import Heap
from sim.go.state import CHUNK_PAGES, PAGE_SHIFT, chunks, heap_type, mcaches
from sim.jit import entry
from sim.units import Throw
from sim.words import ZERO

# operation codes of a recorded sequence, with the number of arguments and of answers that follow them
ALLOC, FREE, SCAVENGE, FILL_CACHE, CACHE_ALLOC, FLUSH_CACHE = range(6)
_FIELDS = {ALLOC: (1, 2), FREE: (2, 0), SCAVENGE: (1, 1), FILL_CACHE: (0, 3), CACHE_ALLOC: (1, 2), FLUSH_CACHE: (0, 0)}
_ANSWERS = {
    ALLOC: ("page", "scavenged bytes"),
    SCAVENGE: ("released bytes",),
    FILL_CACHE: ("cache base", "cache mask", "scavenged mask"),
    CACHE_ALLOC: ("page", "scavenged bytes"),
}
_BASE_CHUNK = 0xC000000000 >> 22


@entry(void(heap_type, int64[::1]))
def grow_chunks(h: Any, indexes: Any) -> None:
    """Make these chunks exist, all free and backed by memory."""
    for index in indexes:
        page_alloc_grow(h, index * CHUNK_PAGES, np.int64(CHUNK_PAGES))
    for at in range(h[0].nchunks):
        for i in range(8):
            chunks(h)[at].scav[i] = ZERO
        index_alloc(h, at, np.int64(CHUNK_PAGES))
        index_free(h, at, np.int64(0), np.int64(CHUNK_PAGES))


@entry(void(heap_type, int64, int64[:, ::1], int64[:, ::1]))
def run_sequence(h: Any, base: Any, ops: Any, answers: Any) -> None:
    """Run operations (code and two arguments a row) and write the answers; pages count from ``base``."""
    for i in range(len(ops)):
        code = ops[i, 0]
        if code == ALLOC or code == CACHE_ALLOC:
            if code == ALLOC:
                page, scav = page_alloc(h, ops[i, 1])
            else:
                page, scav = page_cache_alloc(h, 0, ops[i, 1])
            answers[i, 0] = page - base if page >= 0 else -1
            answers[i, 1] = scav << PAGE_SHIFT
        elif code == FREE:
            page_free(h, base + ops[i, 1], ops[i, 2])
        elif code == SCAVENGE:
            answers[i, 0] = scavenge(h, ops[i, 1], True, False)
        elif code == FILL_CACHE:
            alloc_to_cache(h, 0)
            c = mcaches(h)[0]
            answers[i, 0] = c.pcache_base - base if c.pcache != ZERO else -1
            answers[i, 1] = np.int64(c.pcache)
            answers[i, 2] = np.int64(c.pcache_scav)
        else:
            page_cache_flush(h, 0)


def _sequence(path: Path, number: int, sequence: Any) -> tuple[Any, Any, Any]:
    """Chunks, operations and recorded answers of one sequence as arrays; InputError names what is malformed."""
    where = f"{path}: sequences[{number}]"
    if not isinstance(sequence, dict) or not {"Chunks", "Ops"} <= sequence.keys():
        raise InputError(f'{where} lacks "Chunks" or "Ops"; each sequence has both')
    rows = sequence["Ops"]
    codes = np.zeros((len(rows), 3), np.int64)
    answers = np.zeros((len(rows), 3), np.int64)
    try:
        chunk_indexes = np.array(sequence["Chunks"], dtype=np.int64)
        for i, row in enumerate(rows):
            arguments, answered = _FIELDS[row[0]]
            if len(row) != 1 + arguments + answered:
                raise ValueError
            codes[i, : 1 + arguments] = row[: 1 + arguments]
            answers[i, :answered] = row[1 + arguments :]
    except (KeyError, ValueError, TypeError, IndexError, OverflowError):
        raise InputError(f"{where}: malformed chunks or operation; an operation is [code, numbers ...]") from None
    _check_ranges(where, chunk_indexes, codes)
    return np.sort(chunk_indexes), codes, answers


def _check_ranges(where: str, chunk_indexes: Any, codes: Any) -> None:
    """Refuse what no page allocator could be asked: the rooms would rightly throw."""
    pages = codes[np.isin(codes[:, 0], (ALLOC, CACHE_ALLOC)), 1]
    span = 1 << 25
    if chunk_indexes.ndim != 1 or not len(chunk_indexes) or len(np.unique(chunk_indexes)) != len(chunk_indexes):
        raise InputError(f"{where}: Chunks must be distinct numbers")
    if chunk_indexes.min() < 0 or chunk_indexes.max() >= span or (pages <= 0).any() or (pages > span).any():
        raise InputError(f"{where}: a chunk or a number of pages is out of range")


def conform_pages(path: Path, data: Any) -> Conformance:
    """Run every sequence of operations and compare all answers."""
    total = equal = 0
    first: str | None = None
    for number, sequence in enumerate(data["sequences"]):
        chunk_indexes, ops, recorded = _sequence(path, number, sequence)
        heap = Heap("go1.27", 1)
        heap.make_room(len(chunk_indexes) * CHUNK_PAGES)
        answers = np.zeros_like(recorded)
        try:
            grow_chunks(heap.header, chunk_indexes + _BASE_CHUNK)
            run_sequence(heap.header, _BASE_CHUNK * CHUNK_PAGES, ops, answers)
        except Throw as broken:
            raise InputError(f"{path}: sequences[{number}] asks for the impossible: {broken}") from None
        width = np.array([_FIELDS[int(code)][1] for code in ops[:, 0]], dtype=np.int64)
        asked = np.arange(3) < width[:, None]
        same = (answers == recorded) & asked
        total += int(asked.sum())
        equal += int(same.sum())
        if first is None and not np.array_equal(same, asked):
            i, j = (int(x[0]) for x in np.nonzero(asked & ~same))
            what = _ANSWERS[int(ops[i, 0])][j]
            first = f"sequence {number}, operation {i}: {what} recorded {recorded[i, j]}, computed {answers[i, j]}"
    return Conformance("page allocator", total, equal, first)
