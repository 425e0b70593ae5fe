"""Wire format of Go execution traces, version 2 (internal/trace/tracev2): codes, tables, compiled decoding.

A trace is a 16-byte header and batches: one byte, little-endian base-128 numbers (generation, M, base time, size),
then ``size`` bytes of events. An event is its code, the time since the event before it in its batch, and as many
numbers as :data:`NARGS` says. Everything here works on one flat byte array and refuses instead of reading past
the end of a batch; refusals are a code of :data:`REASONS` and the byte offset of what was refused.

Mirrors tracev2/events.go, batch.go and the decoding half of batchcursor.go. Left out: the formats before Go 1.22.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from sim.jit import entry, header_type, jit
from workloads import gotrace_model as kinds

I64 = types.int64
BYTES = types.uint8[::1]
INTS = types.int64[::1]

EVENT_BATCH, STACKS, STACK, STRINGS, STRING, CPU_SAMPLES, CPU_SAMPLE, FREQUENCY = 1, 2, 3, 4, 5, 6, 7, 8
EXPERIMENTAL_BATCH, SYNC, CLOCK_SNAPSHOT, END_OF_GENERATION = 49, 50, 51, 52
ALLOC_FREE = 1  # the one experiment that is understood
MAX_BATCH = 64 << 10  # bytes of events in a batch
MAX_STRING = 1 << 10
MAX_FRAMES = 128

PROCS_CHANGE, PROC_START, PROC_STOP, PROC_STEAL, PROC_STATUS = 9, 10, 11, 12, 13
GO_CREATE, GO_CREATE_SYSCALL, GO_START, GO_DESTROY, GO_DESTROY_SYSCALL = 14, 15, 16, 17, 18
GO_STOP, GO_BLOCK, GO_UNBLOCK, GO_SYSCALL_BEGIN, GO_SYSCALL_END, GO_SYSCALL_END_BLOCKED = 19, 20, 21, 22, 23, 24
GO_STATUS, STW_BEGIN, STW_END, GC_ACTIVE, GC_BEGIN, GC_END = 25, 26, 27, 28, 29, 30
SWEEP_ACTIVE, SWEEP_BEGIN, SWEEP_END, ASSIST_ACTIVE, ASSIST_BEGIN, ASSIST_END = 31, 32, 33, 34, 35, 36
HEAP_ALLOC, HEAP_GOAL, GO_LABEL = 37, 38, 39
USER_TASK_BEGIN, USER_TASK_END, USER_REGION_BEGIN, USER_REGION_END, USER_LOG = 40, 41, 42, 43, 44
GO_SWITCH, GO_SWITCH_DESTROY, GO_CREATE_BLOCKED, GO_STATUS_STACK = 45, 46, 47, 48
FIRST_EXPERIMENTAL = 128
SPAN, SPAN_ALLOC, SPAN_FREE = 128, 129, 130
HEAP_OBJECT, HEAP_OBJECT_ALLOC, HEAP_OBJECT_FREE = 131, 132, 133
GOROUTINE_STACK, GOROUTINE_STACK_ALLOC, GOROUTINE_STACK_FREE = 134, 135, 136

_NEEDS_M, _NEEDS_P, _NEEDS_G = 0, 1, 2  # an event with a G has a P, one with a P has an M
_UNCHECKED = -1  # the order's own rules look at the context
# code: (numbers after the time, place of the stack among them or -1, what the emitting M must hold)
_EVENTS: dict[int, tuple[int, int, int]] = {
    PROCS_CHANGE: (2, 1, _NEEDS_G),
    PROC_START: (2, -1, _UNCHECKED),
    PROC_STOP: (0, -1, _UNCHECKED),
    PROC_STEAL: (3, -1, _UNCHECKED),
    PROC_STATUS: (2, -1, _UNCHECKED),
    GO_CREATE: (3, 2, _UNCHECKED),
    GO_CREATE_SYSCALL: (1, -1, _UNCHECKED),
    GO_START: (2, -1, _UNCHECKED),
    GO_DESTROY: (0, -1, _NEEDS_G),
    GO_DESTROY_SYSCALL: (0, -1, _UNCHECKED),
    GO_STOP: (2, 1, _NEEDS_G),
    GO_BLOCK: (2, 1, _NEEDS_G),
    GO_UNBLOCK: (3, 2, _UNCHECKED),
    GO_SYSCALL_BEGIN: (2, 1, _NEEDS_G),
    GO_SYSCALL_END: (0, -1, _NEEDS_G),
    GO_SYSCALL_END_BLOCKED: (0, -1, _UNCHECKED),
    GO_STATUS: (3, -1, _UNCHECKED),
    STW_BEGIN: (2, 1, _NEEDS_G),
    STW_END: (0, -1, _NEEDS_G),
    GC_ACTIVE: (1, -1, _UNCHECKED),
    GC_BEGIN: (2, 1, _UNCHECKED),
    GC_END: (1, -1, _UNCHECKED),
    SWEEP_ACTIVE: (1, -1, _UNCHECKED),
    SWEEP_BEGIN: (1, 0, _NEEDS_P),
    SWEEP_END: (2, -1, _NEEDS_P),
    ASSIST_ACTIVE: (1, -1, _UNCHECKED),
    ASSIST_BEGIN: (1, 0, _NEEDS_G),
    ASSIST_END: (0, -1, _NEEDS_G),
    HEAP_ALLOC: (1, -1, _NEEDS_P),
    HEAP_GOAL: (1, -1, _NEEDS_P),
    GO_LABEL: (1, -1, _NEEDS_G),
    USER_TASK_BEGIN: (4, 3, _NEEDS_G),
    USER_TASK_END: (2, 1, _NEEDS_G),
    USER_REGION_BEGIN: (3, 2, _NEEDS_G),
    USER_REGION_END: (3, 2, _NEEDS_G),
    USER_LOG: (4, 3, _NEEDS_G),
    GO_SWITCH: (2, -1, _NEEDS_G),
    GO_SWITCH_DESTROY: (2, -1, _NEEDS_G),
    GO_CREATE_BLOCKED: (3, 2, _UNCHECKED),
    GO_STATUS_STACK: (4, 3, _UNCHECKED),
    SPAN: (3, -1, _NEEDS_M),
    SPAN_ALLOC: (3, -1, _NEEDS_M),
    SPAN_FREE: (1, -1, _NEEDS_M),
    HEAP_OBJECT: (2, -1, _NEEDS_M),
    HEAP_OBJECT_ALLOC: (2, -1, _NEEDS_M),
    HEAP_OBJECT_FREE: (1, -1, _NEEDS_M),
    GOROUTINE_STACK: (2, -1, _NEEDS_M),
    GOROUTINE_STACK_ALLOC: (2, -1, _NEEDS_M),
    GOROUTINE_STACK_FREE: (1, -1, _NEEDS_M),
}
NARGS = np.array([_EVENTS.get(code, (-1, -1, -1))[0] for code in range(256)], np.int64)
STACK_AT = np.array([_EVENTS.get(code, (-1, -1, -1))[1] for code in range(256)], np.int64)
NEEDS = np.array([_EVENTS.get(code, (-1, -1, -1))[2] for code in range(256)], np.int64)
STACK_ID, STRING_ID, TYPE_ID = 0, 1, 2


def _ids() -> Any:
    """Which numbers of an event, by code and place, are ids of a generation's tables; -1: none."""
    found = np.full((256, 4), -1, np.int64)
    for code in np.flatnonzero(STACK_AT >= 0):
        found[code, STACK_AT[code]] = STACK_ID
    found[[GO_CREATE, GO_CREATE_BLOCKED], 1] = STACK_ID
    found[[GO_STOP, GO_BLOCK, GO_LABEL, STW_BEGIN, STW_END], 0] = STRING_ID
    found[[HEAP_OBJECT, HEAP_OBJECT_ALLOC], 1] = TYPE_ID
    return found


ID_AT = _ids()

_KIND_OF_CODE: dict[int, int] = {
    SPAN: kinds.SPAN,
    SPAN_ALLOC: kinds.SPAN_ALLOC,
    SPAN_FREE: kinds.SPAN_FREE,
    HEAP_OBJECT: kinds.OBJECT,
    HEAP_OBJECT_ALLOC: kinds.OBJECT_ALLOC,
    HEAP_OBJECT_FREE: kinds.OBJECT_FREE,
    GOROUTINE_STACK: kinds.STACK,
    GOROUTINE_STACK_ALLOC: kinds.STACK_ALLOC,
    GOROUTINE_STACK_FREE: kinds.STACK_FREE,
    GC_BEGIN: kinds.GC_BEGIN,
    GC_END: kinds.GC_END,
    GC_ACTIVE: kinds.GC_ACTIVE,
    STW_BEGIN: kinds.STW_BEGIN,
    STW_END: kinds.STW_END,
    ASSIST_BEGIN: kinds.ASSIST_BEGIN,
    ASSIST_END: kinds.ASSIST_END,
    ASSIST_ACTIVE: kinds.ASSIST_ACTIVE,
    SWEEP_BEGIN: kinds.SWEEP_BEGIN,
    SWEEP_END: kinds.SWEEP_END,
    SWEEP_ACTIVE: kinds.SWEEP_ACTIVE,
    HEAP_ALLOC: kinds.HEAP_ALLOC,
    HEAP_GOAL: kinds.HEAP_GOAL,
    PROCS_CHANGE: kinds.GOMAXPROCS,
    PROC_START: kinds.PROC_START,
    PROC_STOP: kinds.PROC_STOP,
    PROC_STEAL: kinds.PROC_STEAL,
    PROC_STATUS: kinds.PROC_STATUS,
    GO_CREATE: kinds.GO_CREATE,
    GO_CREATE_BLOCKED: kinds.GO_CREATE_BLOCKED,
    GO_CREATE_SYSCALL: kinds.GO_CREATE_SYSCALL,
    GO_START: kinds.GO_START,
    GO_UNBLOCK: kinds.GO_UNBLOCK,
    GO_SWITCH: kinds.GO_SWITCH,
    GO_SWITCH_DESTROY: kinds.GO_SWITCH_DESTROY,
    GO_STOP: kinds.GO_STOP,
    GO_BLOCK: kinds.GO_BLOCK,
    GO_LABEL: kinds.GO_LABEL,
    GO_DESTROY: kinds.GO_DESTROY,
    GO_DESTROY_SYSCALL: kinds.GO_DESTROY_SYSCALL,
    GO_SYSCALL_BEGIN: kinds.GO_SYSCALL_BEGIN,
    GO_SYSCALL_END: kinds.GO_SYSCALL_END,
    GO_SYSCALL_END_BLOCKED: kinds.GO_SYSCALL_END_BLOCKED,
    GO_STATUS: kinds.GO_STATUS,
    GO_STATUS_STACK: kinds.GO_STATUS,
}
KINDS = np.array([_KIND_OF_CODE.get(code, 0) for code in range(256)], np.int64)  # 0: no column

BATCH = np.dtype(
    [
        ("gen", "i8"),
        ("m", "i8"),
        ("time", "i8"),  # ticks
        ("off", "i8"),  # first byte and number of bytes of its events
        ("length", "i8"),
        ("exp", "i8"),  # experiment; END_MARK: no batch but the end of a generation
        ("head", "i8"),  # first byte of its header
    ]
)
END_MARK = -1

OK = 0
MORE = 1  # the batch is not complete yet
FULL = 2  # the table of batches is full
BAD_BATCH, BAD_NUMBER, BIG_BATCH, CUT_BATCH, BAD_GENERATION, BAD_TIME = -1, -2, -3, -4, -5, -6
BAD_EVENT, CUT_EVENT = -7, -8
REASONS: dict[int, str] = {
    BAD_BATCH: "no batch starts here; the file is damaged or no Go execution trace",
    BAD_NUMBER: "a number longer than 64 bits",
    BIG_BATCH: "a batch of more than 65536 bytes",
    CUT_BATCH: "the trace is cut off inside a batch",
    BAD_GENERATION: "generation number out of range",
    BAD_TIME: "time out of range",
    BAD_EVENT: "no timed event of Go 1.22 to 1.27 starts here",
    CUT_EVENT: "an event runs past the end of its batch",
}


@jit
def uvarint(data: Any, at: Any, end: Any) -> Any:
    """A base-128 number at ``at``: (value as int64 bits, next offset); offset -1 if cut off by end, -2 if too long."""
    value = np.int64(0)
    shift = 0
    while at < end:
        byte = np.int64(data[at])
        at += 1
        if shift == 63 and byte > 1:
            return value, -2
        value |= (byte & 127) << np.int64(shift)
        if byte < 128:
            return value, at
        shift += 7
    return value, -1


@jit
def _batch_head(data: Any, at: Any, end: Any, row: Any) -> Any:
    """Fill row from the four numbers at ``at``: (status, offset of the first event or of what was refused)."""
    gen, after = uvarint(data, at, end)
    m, after = uvarint(data, after, end) if after >= 0 else (gen, after)
    time, after = uvarint(data, after, end) if after >= 0 else (gen, after)
    size, after = uvarint(data, after, end) if after >= 0 else (gen, after)
    if after < 0:
        return (MORE if after == -1 else BAD_NUMBER), row.head
    if gen <= 0 or gen >= 1 << 40:
        return BAD_GENERATION, row.head
    if time < 0:
        return BAD_TIME, row.head
    if size < 0 or size > MAX_BATCH:
        return BIG_BATCH, row.head
    row.gen = gen
    row.m = m
    row.time = time
    row.length = size
    row.off = after
    return OK, after


@entry(I64(BYTES, I64, header_type(BATCH), INTS))
def index_batches(data: Any, at: Any, rows: Any, reached: Any) -> Any:
    """List the complete batches from byte ``at`` on: OK, FULL or a refusal (batch.go:readBatch).

    Leaves the byte reached (or refused) and the number of rows filled in ``reached``.
    """
    end = len(data)
    count = 0
    while at < end:
        reached[0] = at
        reached[1] = count
        if count == len(rows):
            return FULL
        row = rows[count]
        row.head = at
        code = np.int64(data[at])
        if code == END_OF_GENERATION:
            row.exp = END_MARK
            at += 1
        elif code != EVENT_BATCH and code != EXPERIMENTAL_BATCH:
            return BAD_BATCH
        else:
            head = at + 1
            row.exp = 0
            if code == EXPERIMENTAL_BATCH:
                if head == end:
                    return OK
                row.exp = np.int64(data[head])
                head += 1
            status, where = _batch_head(data, head, end, row)
            if status < 0:
                return status
            if status == MORE or where + row.length > end:
                return OK
            at = where + row.length
        count += 1
    reached[0] = at
    reached[1] = count
    return OK


@entry(I64(BYTES, header_type(BATCH), INTS, INTS))
def count_events(data: Any, rows: Any, counts: Any, where: Any) -> Any:
    """Add the events of event batches to counts by code, checking every number: OK, or a refusal of byte where[0]."""
    for i in range(len(rows)):
        at = rows[i].off
        end = at + rows[i].length
        while at < end:
            code = np.int64(data[at])
            where[0] = at
            if NARGS[code] < 0:
                return BAD_EVENT
            at += 1
            for _ in range(NARGS[code] + 1):
                _, at = uvarint(data, at, end)
                if at < 0:
                    return CUT_EVENT if at == -1 else BAD_NUMBER
            counts[code] += 1
    return OK


@entry(I64(BYTES, INTS))
def numbers(data: Any, out: Any) -> Any:
    """Read bytes as nothing but numbers into out: how many, or a refusal with the byte refused in out[0]."""
    count = 0
    at = 0
    while at < len(data):
        value, after = uvarint(data, at, len(data))
        if after < 0:
            out[0] = at
            return CUT_EVENT if after == -1 else BAD_NUMBER
        out[count] = value
        at = after
        count += 1
    return count
