"""Compiled merge of a generation's batches into one order (internal/trace/batchcursor.go, reader.go).

Each M's batches are in order already. A binary heap holds the next event of each M by time; the event on top is
taken if the scheduler's state allows it (gotrace_order), else the others are tried in order of time. So at two Ps and
more the order is causal in scheduling and GC phases, while the allocation events of two Ms are ordered by time alone.
Equal times fall as they do in the Go reader: the heap moves in the same way.

Decoding happens here too, an event at a time as it comes to the front, from bytes that count_events has checked. Left
out: CPU samples, which belong to no M's events.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import entry, jit, table
from workloads.gotrace_order import (
    ARGS,
    GO,
    LOST,
    STUCK,
    TIME_LIMIT,
    TOO_MUCH_WORK,
    H,
    advance,
    args,
    cur,
)
from workloads.gotrace_wire import (
    BAD_TIME,
    BATCH,
    I64,
    ID_AT,
    KINDS,
    NARGS,
    OK,
    STACK_AT,
    uvarint,
)

data = table("data", np.uint8)
batches = table("batches", BATCH)
heap = table("heap", np.int64)
ids = table("ids", np.int64)
edges = table("edges", np.int64)
columns = table("columns", np.int64)


@jit
def _next_event(h: Any, i: Any) -> Any:
    """Put an M's next event at the front of its cursor: 1, 0 if there is none, BAD_TIME (batchcursor.go:nextEvent)."""
    row = cur(h)[i]
    while row.at == row.end:
        if row.batch == row.batches:
            return 0
        batch = batches(h)[row.batch]
        start = np.float64(batch.time) * h[0].ns
        h[0].where = batch.head
        if not start < TIME_LIMIT:
            return BAD_TIME
        row.batch += 1
        row.at = batch.off
        row.end = batch.off + batch.length
        row.time = np.int64(start)
    text = data(h)
    numbers = args(h)
    end = row.end
    code = np.int64(text[row.at])
    row.start = row.at
    row.code = code
    at = row.at + 1
    for k in range(-1, NARGS[code]):  # the time comes first
        value, at = uvarint(text, at, end)
        if k >= 0:
            numbers[ARGS * i + k] = value
            continue
        later = np.float64(value) * h[0].ns
        if value < 0 or not later < TIME_LIMIT or row.time >= TIME_LIMIT - np.int64(later):
            h[0].where = row.start
            return BAD_TIME
        row.time += np.int64(later)
    for k in range(NARGS[code], 3):
        numbers[ARGS * i + k] = 0
    row.at = at
    return 1


@jit
def _sift(h: Any, count: Any, i: Any) -> None:
    """Move place i of a heap of count cursors up, or else down, to where it belongs."""
    order = heap(h)
    rows = cur(h)
    moved = order[i]
    time = rows[moved].time
    while i > 0 and rows[order[(i - 1) >> 1]].time > time:
        order[i] = order[(i - 1) >> 1]
        i = (i - 1) >> 1
    while True:
        least = i
        bound = time
        for child in range(2 * i + 1, min(2 * i + 3, count)):
            if rows[order[child]].time < bound:
                least = child
                bound = rows[order[child]].time
        if least == i:
            break
        order[i] = order[least]
        i = least
    order[i] = moved


@jit
def _drop(h: Any, count: Any, i: Any) -> None:
    """Bring place i to the top and put the last of count cursors in its stead: ties fall as in the Go reader."""
    order = heap(h)
    while i > 0:
        order[i] = order[(i - 1) >> 1]
        i = (i - 1) >> 1
    order[0] = order[count - 1]


@jit
def _sort(h: Any, count: Any) -> Any:
    """Sort the heap by time, stably; returns the steps it took."""
    order = heap(h)
    rows = cur(h)
    steps = count
    for i in range(1, count):
        moved = order[i]
        time = rows[moved].time
        j = i
        while j > 0 and rows[order[j - 1]].time > time:
            order[j] = order[j - 1]
            j -= 1
        order[j] = moved
        steps += i - j
    return steps


@jit
def _choose(h: Any, count: Any) -> Any:
    """The place in the heap whose event has just happened, or a refusal (reader.go:ReadEvent)."""
    for place in range(count):
        i = heap(h)[place]
        done = advance(h, i)
        if done == GO:
            return place
        if done < 0 or place == 0:
            h[0].where = cur(h)[i].start
        if done < 0:
            return done
        if place == 0:
            h[0].work -= _sort(h, count)
            if h[0].work < 0:
                return TOO_MUCH_WORK
    return STUCK


@jit
def _look_up(h: Any, which: Any, value: Any) -> Any:
    """The number of this file for an id of the generation; 0 for 0 and, counted, for an id without an entry."""
    low = edges(h)[which]
    if 0 <= value < edges(h)[which + 1] - low and ids(h)[low + value] >= 0:
        return ids(h)[low + value]
    edges(h)[LOST + which] += 1
    return np.int64(0)


@jit
def _emit(h: Any, i: Any) -> None:
    """Write a cursor's event as the next row, ids turned into numbers of this file."""
    code = cur(h)[i].code
    out = columns(h)
    numbers = args(h)
    rows = h[0].rows
    n = h[0].out
    h[0].out = n + 1
    for at in range(ARGS):
        which = ID_AT[code, at]
        if which >= 0:
            numbers[ARGS * i + at] = _look_up(h, which, numbers[ARGS * i + at])
    stack = STACK_AT[code]
    if stack >= 0:
        out[8 * rows + n] = numbers[ARGS * i + stack]
        numbers[ARGS * i + stack] = 0
    out[n] = h[0].last_ns
    out[rows + n] = KINDS[code]
    out[2 * rows + n] = h[0].at_p
    out[3 * rows + n] = h[0].at_m
    out[4 * rows + n] = h[0].at_g
    for at in range(3):
        out[(5 + at) * rows + n] = numbers[ARGS * i + at]


@entry(I64(H))
def merge(h: Any) -> Any:
    """Merge a generation's event batches into the columns, from row h[0].out on; OK or a refusal.

    ``batches`` are grouped by M; each cursor names an M and its range of batches, in the order in which the Ms first
    appear. The byte of the event refused is left in h[0].where.
    """
    entered = np.int64(0)  # cursors whose first event has been sought
    count = np.int64(0)
    while entered < len(cur(h)) or count > 0:
        if entered < len(cur(h)):
            i = entered
            place = count
            heap(h)[count] = i
            entered += np.int64(1)
            count += 1
        else:
            place = _choose(h, count)
            if place < 0:
                return place
            i = heap(h)[place]
            h[0].last_ns = max(h[0].last_ns + 1, cur(h)[i].time)
            if KINDS[cur(h)[i].code] > 0:
                _emit(h, i)
        more = _next_event(h, i)
        if more < 0:
            return more
        if more == 0:
            _drop(h, count, place)
            count -= 1
            place = np.int64(0)
        if count > 0:
            _sift(h, count, place)
    return OK
