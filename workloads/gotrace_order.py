"""Which event may come next: the scheduler's state while a trace is merged (internal/trace/order.go), compiled.

A G starts only when it is runnable and the sequence number is the next one, a P likewise, a system call that lost its
P ends after the loss, and GC cycles count up. Events that the state does not allow yet wait; events that no later
state can allow are refused with a code of :data:`ORDER_REASONS`.

State stands in flat tables behind one header: cursors (one per M with events in the generation), Ms, Ps, Gs (open
addressing by id; a dead G keeps its place, ids are not used twice). Merging carries on from one generation to the
next in the same tables.

Left out: checks of nested ranges and user regions (their events pass), and the extra P steal that the Go reader makes
up when a cgo thread ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import header_dtype, header_type, jit, table
from sim.words import mix64
from workloads.gotrace_wire import (
    BATCH,
    FIRST_EXPERIMENTAL,
    GC_ACTIVE,
    GC_BEGIN,
    GC_END,
    GO_BLOCK,
    GO_CREATE,
    GO_CREATE_BLOCKED,
    GO_CREATE_SYSCALL,
    GO_DESTROY,
    GO_DESTROY_SYSCALL,
    GO_START,
    GO_STATUS,
    GO_STATUS_STACK,
    GO_STOP,
    GO_SWITCH,
    GO_SWITCH_DESTROY,
    GO_SYSCALL_BEGIN,
    GO_SYSCALL_END,
    GO_SYSCALL_END_BLOCKED,
    GO_UNBLOCK,
    NEEDS,
    PROC_START,
    PROC_STATUS,
    PROC_STEAL,
    PROC_STOP,
    STW_BEGIN,
    STW_END,
)

CURSOR = np.dtype(
    [
        ("m", "i8"),  # row in the table of Ms
        ("batch", "i8"),  # the next batch, and the one after its last
        ("batches", "i8"),
        ("at", "i8"),  # the next byte, and the one after its batch
        ("end", "i8"),
        ("time", "i8"),  # the event at the front: nanoseconds, code, first byte; its numbers are in ``args``
        ("code", "i8"),
        ("start", "i8"),
    ]
)
M = np.dtype([("id", "i8"), ("p", "i8"), ("g", "i8")])  # sorted by id; -1: none
P = np.dtype([("status", "i8"), ("seq", "i8"), ("gen", "i8")])  # status 0: never seen
G = np.dtype([("id", "i8"), ("status", "i8"), ("seq", "i8"), ("gen", "i8"), ("stw", "i8")])  # id -1: free, 0: dead
LOST = 4
ARGS = 4  # places for numbers of a cursor's event

TABLES: dict[str, Any] = {
    "data": np.uint8,  # the whole trace
    "batches": BATCH,  # of this generation, grouped by M
    "cur": CURSOR,
    "args": np.int64,
    "heap": np.int64,  # cursors
    "ms": M,
    "ps": P,
    "gs": G,
    "ids": np.int64,  # this generation's ids of stacks, strings, types to numbers of the file; -1: none
    "edges": np.int64,  # where each of the three begins and ends in ids; from LOST on, ids that had no entry
    "columns": np.int64,  # the columns of the trace, one after the other
}
SCALARS = [
    ("gen", "i8"),
    ("first_gen", "i8"),
    ("ns", "f8"),  # nanoseconds per tick
    ("gc_seq", "i8"),
    ("gc", "i8"),
    ("last_ns", "i8"),  # of the last event
    ("rows", "i8"),  # of the columns, and how many are written
    ("out", "i8"),
    ("at_m", "i8"),  # where the event at hand happens
    ("at_p", "i8"),
    ("at_g", "i8"),
    ("work", "i8"),  # steps of sorting that are left
    ("where", "i8"),  # first byte of the event at hand
]
HEADER = header_dtype(SCALARS, TABLES)
H = header_type(HEADER)

args = table("args", np.int64)
cur = table("cur", CURSOR)
ms = table("ms", M)
ps = table("ps", P)
gs = table("gs", G)

MAX_P = 1 << 16
TIME_LIMIT = 1 << 62
_P_RUNNING, _P_IDLE, _P_SYSCALL, _P_ABANDONED = 1, 2, 3, 4
_G_RUNNABLE, _G_RUNNING, _G_SYSCALL, _G_WAITING = 1, 2, 3, 4
_GC_OFF, _GC_ON = 1, 2  # 0: not known yet

_WAIT, GO = 0, 1
STUCK, TOO_MUCH_WORK, BAD_P, BAD_G, BAD_STATUS, NO_M, NO_P, NO_G, HAS_G = range(-30, -21)
BAD_P_STATE, BAD_G_STATE, BAD_GC, BAD_STEAL = range(-40, -36)
ORDER_REASONS: dict[int, str] = {
    STUCK: "no event of any thread can come next; the trace is damaged",
    TOO_MUCH_WORK: "the threads' events cannot be put in order in reasonable time; the trace is damaged",
    BAD_P: f"a P number of {MAX_P} or more",
    BAD_G: "a goroutine number out of range",
    BAD_STATUS: "a status that contradicts the events before it",
    NO_M: "an event of no thread that needs one",
    NO_P: "an event on a thread without a P that needs one",
    NO_G: "an event on a thread without a goroutine that needs one",
    HAS_G: "a goroutine starts on a thread that has one",
    BAD_P_STATE: "an event that the state of its P does not allow",
    BAD_G_STATE: "an event that the state of its goroutine does not allow",
    BAD_GC: "a GC phase that contradicts the events before it",
    BAD_STEAL: "a P is stolen from a thread that does not have it",
}


@jit
def _find_g(h: Any, g: Any) -> Any:
    """The place of a goroutine, or of the free row where it belongs."""
    mask = len(gs(h)) - 1
    place = np.int64(mix64(np.uint64(g)) & np.uint64(mask))
    while gs(h)[place].id != g and gs(h)[place].id != -1:
        place = (place + 1) & mask
    return place


@jit
def _new_g(h: Any, g: Any, status: Any) -> Any:
    """Give a goroutine that does not exist its state; BAD_STATUS if it exists."""
    if g < 0:
        return BAD_G
    place = _find_g(h, g)
    if gs(h)[place].status != 0:
        return BAD_STATUS
    gs(h)[place].id = g
    gs(h)[place].status = status
    gs(h)[place].seq = 0
    gs(h)[place].gen = h[0].gen
    gs(h)[place].stw = 0
    return GO


@jit
def _find_m(h: Any, m: Any) -> Any:
    """The row of a thread in the table sorted by id, -1 if it has none."""
    low = 0
    high = len(ms(h))
    while low < high:
        middle = (low + high) >> 1
        if ms(h)[middle].id < m:
            low = middle + 1
        else:
            high = middle
    return low if low < len(ms(h)) and ms(h)[low].id == m else -1


@jit
def _p_follows(h: Any, p: Any, seq: Any) -> Any:
    """Whether seq follows the P's last sequence number of this generation."""
    return ps(h)[p].gen == h[0].gen and ps(h)[p].seq + 1 == seq


@jit
def _g_follows(h: Any, place: Any, seq: Any) -> Any:
    """Whether seq follows the goroutine's last sequence number of this generation."""
    return gs(h)[place].gen == h[0].gen and gs(h)[place].seq + 1 == seq


@jit
def _proc_status(h: Any, m: Any, p: Any, status: Any) -> Any:
    """order.go:advanceProcStatus."""
    if status < _P_RUNNING or status > _P_ABANDONED:
        return BAD_STATUS
    old = ps(h)[p].status
    promoted = old == _P_SYSCALL and status == _P_ABANDONED
    if old != 0 and old != status and not promoted:
        return BAD_STATUS
    if old == 0:
        ps(h)[p].status = status
    ps(h)[p].seq = 0
    ps(h)[p].gen = h[0].gen
    if promoted:
        found = -1
        for i in range(len(ms(h))):
            if ms(h)[i].p == p:
                found = i
        if found < 0:
            return BAD_STATUS
        h[0].at_m = ms(h)[found].id
        h[0].at_p = p
        h[0].at_g = ms(h)[found].g
    elif status == _P_RUNNING or status == _P_SYSCALL:
        ms(h)[m].p = p
    return GO


@jit
def _proc_steal(h: Any, m: Any, p: Any, seq: Any, victim: Any) -> Any:
    """order.go:advanceProcSteal."""
    status = ps(h)[p].status
    if status != _P_SYSCALL and status != _P_ABANDONED:
        return _WAIT
    if not _p_follows(h, p, seq):
        return _WAIT
    if ms(h)[m].id == -1:
        return NO_M
    if status == _P_SYSCALL:
        row = _find_m(h, victim)
        if row < 0 or ms(h)[row].p != p:
            return BAD_STEAL
        ms(h)[row].p = -1
    ps(h)[p].status = _P_IDLE
    ps(h)[p].seq = seq
    return GO


@jit
def _advance_proc(h: Any, code: Any, m: Any, p: Any, x: Any, y: Any) -> Any:
    """Events of a P: start, stop, steal, status."""
    if code == PROC_STOP:
        p = ms(h)[m].p
        if p < 0:
            return NO_P
        if ps(h)[p].status != _P_RUNNING and ps(h)[p].status != _P_SYSCALL:
            return BAD_P_STATE
        ps(h)[p].status = _P_IDLE
        ms(h)[m].p = -1
        return GO
    if p < 0 or p >= MAX_P:
        return BAD_P
    if code == PROC_STATUS:
        return _proc_status(h, m, p, x)
    if code == PROC_STEAL:
        return _proc_steal(h, m, p, x, y)
    if ps(h)[p].status != _P_IDLE or ms(h)[m].p != -1:
        return _WAIT
    if not _p_follows(h, p, x):
        return _WAIT
    if ms(h)[m].id == -1:
        return NO_M
    ps(h)[p].status = _P_RUNNING
    ps(h)[p].seq = x
    ms(h)[m].p = p
    return GO


@jit
def _go_status(h: Any, m: Any, g: Any, thread: Any, status: Any) -> Any:
    """order.go:advanceGoStatus."""
    if status < _G_RUNNABLE or status > _G_WAITING:
        return BAD_STATUS
    if g < 0:
        return BAD_G
    place = _find_g(h, g)
    old = gs(h)[place].status
    first = h[0].gen == h[0].first_gen
    if old == 0:
        if not first:
            return BAD_STATUS
        _new_g(h, g, status)
    elif old != status:
        return BAD_STATUS
    gs(h)[place].seq = 0
    gs(h)[place].gen = h[0].gen
    if status == _G_RUNNING:
        ms(h)[m].g = g
    elif status == _G_SYSCALL:
        if thread == -1:
            return NO_M
        if thread == ms(h)[m].id:
            if not first and ms(h)[m].g != g:
                return BAD_STATUS
            ms(h)[m].g = g
            return GO
        row = _find_m(h, thread)
        if row >= 0:
            if ms(h)[row].g != -1 and ms(h)[row].g != g:
                return BAD_STATUS
            if ms(h)[row].g == g:
                h[0].at_g = g
            ms(h)[row].g = g
        h[0].at_m = thread
    return GO


@jit
def _go_start(h: Any, m: Any, g: Any, seq: Any) -> Any:
    """order.go:advanceGoStart."""
    place = _find_g(h, g)
    if gs(h)[place].status != _G_RUNNABLE:
        return _WAIT
    if not _g_follows(h, place, seq):
        return _WAIT
    if ms(h)[m].p < 0:
        return NO_P
    if ms(h)[m].g != -1:
        return HAS_G
    gs(h)[place].status = _G_RUNNING
    gs(h)[place].seq = seq
    ms(h)[m].g = g
    return GO


@jit
def _go_unblock(h: Any, g: Any, seq: Any) -> Any:
    """order.go:advanceGoUnblock."""
    place = _find_g(h, g)
    if gs(h)[place].status != _G_WAITING:
        return _WAIT
    if not _g_follows(h, place, seq):
        return _WAIT
    gs(h)[place].status = _G_RUNNABLE
    gs(h)[place].seq = seq
    return GO


@jit
def _running_g(h: Any, m: Any, status: Any) -> Any:
    """The place of the goroutine on a thread if it is in this status, else a refusal."""
    if ms(h)[m].g == -1:
        return NO_G
    place = _find_g(h, ms(h)[m].g)
    return place if gs(h)[place].status == status else BAD_G_STATE


@jit
def _go_switch(h: Any, code: Any, m: Any, g: Any, seq: Any) -> Any:
    """order.go:advanceGoSwitch."""
    mine = _running_g(h, m, np.int64(_G_RUNNING))
    if mine < 0:
        return mine
    place = _find_g(h, g)
    if gs(h)[place].status != _G_WAITING:
        return _WAIT
    if not _g_follows(h, place, seq):
        return _WAIT
    gs(h)[mine].status = _G_WAITING if code == GO_SWITCH else 0
    gs(h)[place].status = _G_RUNNING
    gs(h)[place].seq = seq
    ms(h)[m].g = g
    return GO


@jit
def _go_stop(h: Any, code: Any, m: Any) -> Any:
    """order.go:advanceGoStopExec: the running goroutine ends, yields or blocks."""
    place = _running_g(h, m, np.int64(_G_RUNNING))
    if place < 0:
        return place
    if code == GO_DESTROY:
        gs(h)[place].status = 0
    else:
        gs(h)[place].status = _G_RUNNABLE if code == GO_STOP else _G_WAITING
    ms(h)[m].g = -1
    return GO


@jit
def _go_syscall(h: Any, code: Any, m: Any, seq: Any) -> Any:
    """Into a system call and out of it (order.go:advanceGoSyscallBegin, ...End, ...EndBlocked, DestroySyscall)."""
    p = ms(h)[m].p
    if code == GO_SYSCALL_END_BLOCKED and p >= 0 and ps(h)[p].status == _P_SYSCALL:
        return _WAIT  # it will lose this P first
    place = _running_g(h, m, _G_RUNNING if code == GO_SYSCALL_BEGIN else _G_SYSCALL)
    if place < 0:
        return place
    if code == GO_SYSCALL_BEGIN:
        if not _p_follows(h, p, seq):
            return BAD_P_STATE
        gs(h)[place].status = _G_SYSCALL
        ps(h)[p].status = _P_SYSCALL
        ps(h)[p].seq = seq
    elif code == GO_SYSCALL_END:
        if ps(h)[p].status != _P_SYSCALL:
            return BAD_P_STATE
        gs(h)[place].status = _G_RUNNING
        ps(h)[p].status = _P_RUNNING
    elif code == GO_SYSCALL_END_BLOCKED:
        gs(h)[place].status = _G_RUNNABLE
        ms(h)[m].g = -1
    else:
        if p >= 0:
            if ps(h)[p].status != _P_SYSCALL:
                return BAD_P_STATE
            ps(h)[p].status = _P_ABANDONED
            ms(h)[m].p = -1
        gs(h)[place].status = 0
        ms(h)[m].g = -1
    return GO


@jit
def _go_create(h: Any, code: Any, m: Any, g: Any) -> Any:
    """order.go:advanceGoCreate, advanceGoCreateSyscall."""
    in_syscall = code == GO_CREATE_SYSCALL
    if in_syscall and ms(h)[m].id == -1:
        return NO_M
    if in_syscall and ms(h)[m].g != -1:
        return HAS_G
    if not in_syscall and ms(h)[m].p < 0:
        return NO_P
    status = np.int64(_G_RUNNABLE)
    if in_syscall:
        status = np.int64(_G_SYSCALL)
    elif code == GO_CREATE_BLOCKED:
        status = np.int64(_G_WAITING)
    made = _new_g(h, g, status)
    if in_syscall and made == GO:
        ms(h)[m].g = g
    return made


@jit
def _gc(h: Any, code: Any, m: Any, seq: Any) -> Any:
    """GC cycles count up by one at begin and end (order.go:advanceGCBegin, advanceGCEnd, advanceGCActive)."""
    phase = h[0].gc
    if code == GC_ACTIVE and h[0].gen == h[0].first_gen:
        if phase != 0:
            return BAD_GC
    elif code == GC_BEGIN and phase == 0:
        pass
    else:
        if seq != h[0].gc_seq + 1:
            return _WAIT
        if (phase == _GC_ON) != (code != GC_BEGIN):
            return BAD_GC
        if ms(h)[m].g == -1:
            return NO_G
    h[0].gc_seq = seq
    h[0].gc = _GC_OFF if code == GC_END else _GC_ON
    return GO


@jit
def _advance_go(h: Any, i: Any) -> Any:
    """Events that change a goroutine or the GC's phase, by code."""
    code = cur(h)[i].code
    m = cur(h)[i].m
    x = args(h)[ARGS * i]
    y = args(h)[ARGS * i + 1]
    if code == GO_START:
        return _go_start(h, m, x, y)
    if code == GO_UNBLOCK:
        return _go_unblock(h, x, y)
    if code == GO_STOP or code == GO_BLOCK or code == GO_DESTROY:
        return _go_stop(h, code, m)
    if (GO_SYSCALL_BEGIN <= code <= GO_SYSCALL_END_BLOCKED) or code == GO_DESTROY_SYSCALL:
        return _go_syscall(h, code, m, x)
    if code == GO_CREATE or code == GO_CREATE_BLOCKED or code == GO_CREATE_SYSCALL:
        return _go_create(h, code, m, x)
    if code == GO_STATUS or code == GO_STATUS_STACK:
        return _go_status(h, m, x, y, args(h)[ARGS * i + 2])
    if code == GO_SWITCH or code == GO_SWITCH_DESTROY:
        return _go_switch(h, code, m, x, y)
    if GC_ACTIVE <= code <= GC_END:
        return _gc(h, code, m, x)
    return GO  # ranges, metrics, labels and annotations change nothing here


@jit
def advance(h: Any, i: Any) -> Any:
    """Let a cursor's event happen: 1 done, 0 not yet, below 0 refused (order.go:Advance)."""
    code = cur(h)[i].code
    m = cur(h)[i].m
    h[0].at_m = ms(h)[m].id
    h[0].at_p = ms(h)[m].p
    h[0].at_g = ms(h)[m].g
    need = NEEDS[code]
    if need >= 0 and h[0].at_m == -1:
        return NO_M
    if code >= FIRST_EXPERIMENTAL:
        return GO
    if need >= 1 and h[0].at_p == -1:
        return NO_P
    if need == 2 and h[0].at_g == -1:
        return NO_G
    if PROC_START <= code <= PROC_STATUS:
        return _advance_proc(h, code, m, args(h)[ARGS * i], args(h)[ARGS * i + 1], args(h)[ARGS * i + 2])
    if code == STW_BEGIN or code == STW_END:
        place = _find_g(h, h[0].at_g)
        if code == STW_BEGIN:
            gs(h)[place].stw = args(h)[ARGS * i]
        else:
            args(h)[ARGS * i] = gs(h)[place].stw
        return GO
    return _advance_go(h, i)
