"""What a recorded execution trace is to the rest of the program: columns in merged order, and its tables.

Event kinds are codes of this module, not the wire's. Ids that the wire gives anew in each generation (stacks,
strings, types) are numbers of the whole trace here, 0 for none.

What a replayer must know: time_ns rises strictly (a tie is one apart), with the clock's steps (64 ns on some
machines) behind it; at one P the order is the order of events, at more the allocation events of two Ms are ordered
by time alone. Span ids count pages, object ids 8 bytes and stack ids 2 KiB from ``min_heap``; ids are signed, since
the heap may grow below it. SPAN, OBJECT and STACK are the snapshot at the start of the trace, among its events.
An object of a span with malloc headers is announced 8 bytes after its slot's base; frees and the snapshot name the
base. Tiny allocations repeat their block's id.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


class TraceError(Exception):
    """A file cannot be read as a trace; takes exactly one string, one line: file, what is wrong, where."""


# kind: what a, b, c hold
SPAN, SPAN_ALLOC, SPAN_FREE = 1, 2, 3  # span id, npages, kindclass (span class * 2; odd: stacks, work buffers)
OBJECT, OBJECT_ALLOC, OBJECT_FREE = 4, 5, 6  # object id, type
STACK, STACK_ALLOC, STACK_FREE = 7, 8, 9  # stack memory id, log2(bytes) + 1
GC_BEGIN, GC_END, GC_ACTIVE = 10, 11, 12  # sequence number
STW_BEGIN, STW_END = 13, 14  # reason (string)
ASSIST_BEGIN, ASSIST_END, ASSIST_ACTIVE = 15, 16, 17  # active: goroutine
SWEEP_BEGIN, SWEEP_END, SWEEP_ACTIVE = 18, 19, 20  # end: swept bytes, reclaimed bytes; active: P
HEAP_ALLOC, HEAP_GOAL = 21, 22  # bytes
GOMAXPROCS = 23  # its value
PROC_START, PROC_STOP, PROC_STEAL, PROC_STATUS = 24, 25, 26, 27  # P, sequence (status: 1 runs, 2 idle, 3, 4), M
GO_CREATE, GO_CREATE_BLOCKED, GO_CREATE_SYSCALL = 28, 29, 30  # new goroutine, its first stack
GO_START, GO_UNBLOCK, GO_SWITCH, GO_SWITCH_DESTROY = 31, 32, 33, 34  # goroutine, sequence
GO_STOP, GO_BLOCK, GO_LABEL = 35, 36, 37  # reason or label (string)
GO_DESTROY, GO_DESTROY_SYSCALL = 38, 39
GO_SYSCALL_BEGIN, GO_SYSCALL_END, GO_SYSCALL_END_BLOCKED = 40, 41, 42  # begin: sequence of the P
GO_STATUS = 43  # goroutine, M, status (1 runnable, 2 running, 3 syscall, 4 waiting)
KIND_NAMES: tuple[str, ...] = (
    *("", "span", "span_alloc", "span_free", "object", "object_alloc", "object_free"),
    *("stack", "stack_alloc", "stack_free", "gc_begin", "gc_end", "gc_active", "stw_begin", "stw_end"),
    *("assist_begin", "assist_end", "assist_active", "sweep_begin", "sweep_end", "sweep_active"),
    *("heap_alloc", "heap_goal", "gomaxprocs", "proc_start", "proc_stop", "proc_steal", "proc_status"),
    *("go_create", "go_create_blocked", "go_create_syscall", "go_start", "go_unblock"),
    *("go_switch", "go_switch_destroy", "go_stop", "go_block", "go_label", "go_destroy", "go_destroy_syscall"),
    *("go_syscall_begin", "go_syscall_end", "go_syscall_end_blocked", "go_status"),
)

EVENT_COLUMNS: dict[str, str] = {
    "time_ns": "<i8",
    "kind": "|u1",
    "p": "<i4",
    "m": "<i8",
    "g": "<i8",
    "a": "<i8",
    "b": "<i8",
    "c": "<i8",
    "stack": "<i4",
}
STACK_COLUMNS: dict[str, str] = {"frame_pc": "<i8", "frame_func": "<i4", "frame_file": "<i4", "frame_line": "<i4"}
TYPE_COLUMNS: dict[str, str] = {"type_address": "<i8", "type_size": "<i8", "type_ptr_bytes": "<i8", "type_name": "<i4"}


@dataclass(frozen=True, eq=False)
class Trace:
    """A trace in merged order; all arrays are numpy columns.

    Events, one row each: ``time_ns`` (rising strictly), ``kind``, ``p`` and ``g`` the M had just before the event
    (-1: none or not known), ``m`` (thread id), ``a``, ``b``, ``c`` (see the kinds), ``stack`` (0: none).
    Generations: ``generation`` numbers and the first row of each, ``generation_start``.
    Tables: ``strings`` (0 is empty); stack i has frames ``stack_start[i]:stack_start[i + 1]`` of the frame columns,
    innermost first, func and file as strings; types by number, row 0 none: address, size and pointer bytes of the
    element type, name as string.
    Scalars: ``go_version`` of the header ("1.26" also for Go 1.27); ``min_heap``, the address ids count from, and
    ``page_size``, both 0 without allocation events; ``gomaxprocs``, the first told, 0 if none.
    ``unknown``: what was not understood, counted by kind; ``skipped``: understood, but without a column here.
    """

    time_ns: Any
    kind: Any
    p: Any
    m: Any
    g: Any
    a: Any
    b: Any
    c: Any
    stack: Any
    generation: Any
    generation_start: Any
    strings: tuple[str, ...]
    stack_start: Any
    frame_pc: Any
    frame_func: Any
    frame_file: Any
    frame_line: Any
    type_address: Any
    type_size: Any
    type_ptr_bytes: Any
    type_name: Any
    go_version: str
    min_heap: int
    page_size: int
    gomaxprocs: int
    unknown: dict[str, int]
    skipped: dict[str, int]

    @property
    def has_allocations(self) -> bool:
        """Whether spans, objects or stacks are recorded at all (GODEBUG=traceallocfree=1 when the trace began)."""
        return bool(np.any(self.kind <= STACK_FREE))

    def counts(self) -> dict[str, int]:
        """Events by name of their kind, in the order of the kinds; kinds that do not occur are left out."""
        found = np.bincount(self.kind, minlength=len(KIND_NAMES))
        return {name: int(n) for name, n in zip(KIND_NAMES, found, strict=True) if n}
