"""malloc and free without a clock: which way a request and a freed object go, by policy.

One function each, all of it at once: a program holds one global lock meanwhile, and whoever has the clock prices what
the facts (state.py) say was done under it. Objects are freed at once when the workload says they are dead.

``run_ops`` is the batch of these: operations in, addresses out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import jit
from sim.ops import ALLOC, DEAD, SHARED
from sim.textbook.bump import free_bump, malloc_bump
from sim.textbook.free_list import free_general, malloc_general
from sim.textbook.segregated import free_listed, malloc_listed
from sim.textbook.state import (
    BUMP,
    GENERAL,
    HEADER_BYTES,
    LARGEST_LISTED,
    RUN_BYTES,
    SEGREGATED_FIT,
    SMALLEST_LISTED,
    USED,
    blocks,
    shared_variables,
    variables,
)
from sim.units import Throw

MAX_REQUEST = 1 << 40  # bytes
MAX_RECORDS = RUN_BYTES // SMALLEST_LISTED  # that a malloc may need: a run's, or one of growth and one of a split


@jit
def room_is_short(h: Any) -> Any:
    """Whether the next malloc could overflow the table of blocks."""
    return h[0].nspare + h[0].blocks_len - h[0].nblocks < MAX_RECORDS


@jit
def malloc(h: Any, size: Any) -> Any:
    """An object of 0 to MAX_REQUEST bytes; there must be room in the table of blocks."""
    if h[0].policy == BUMP:
        return malloc_bump(h, size)
    if h[0].policy == SEGREGATED_FIT and size <= LARGEST_LISTED:
        return malloc_listed(h, size)
    return malloc_general(h, size)


@jit
def block_of(h: Any, obj: Any) -> Any:
    """The block of a live object; Throw for any other number."""
    at = obj & 0xFFFF_FFFF
    if 0 < at < h[0].nblocks:
        b = blocks(h)[at]
        if b.state == USED and b.times == obj >> 32:
            return at
    raise Throw(str(obj) + " is no live object: never given out, or freed before")


@jit
def free(h: Any, obj: Any) -> None:
    """Free a live object."""
    at = block_of(h, obj)
    if h[0].policy == BUMP:
        free_bump(h, at)
    elif blocks(h)[at].list != GENERAL:
        free_listed(h, at)
    else:
        free_general(h, at)


@jit
def address(h: Any, obj: Any) -> Any:
    """Where a live object's bytes begin."""
    b = blocks(h)[block_of(h, obj)]
    if h[0].policy == BUMP or b.list != GENERAL:
        return np.int64(b.addr)
    return b.addr + HEADER_BYTES


@jit
def assign(h: Any, t: Any, op: Any, obj: Any) -> None:
    """The variable an operation names holds another object, or 0; what it held before is freed."""
    if op.obj < 0:
        return
    shared = op["flags"] & SHARED
    table = shared_variables(h) if shared else variables(h)
    at = np.int64(op.obj) if shared else t * h[0].nvariables + op.obj
    held = table[at]
    table[at] = obj
    if held != 0:
        free(h, held)


@jit
def run_ops(h: Any, t: Any, ops: Any, at: Any, addresses: Any) -> Any:
    """Run operations (sim/ops.py) of a thread from ``at`` on, until they end or a table is short of room: where.

    addresses: that of each allocation's object, by operation; -1 for the others. Computing takes no time here.
    """
    for i in range(at, len(ops)):
        op = ops[i]
        addresses[i] = -1
        if op.kind == ALLOC:
            size = op.arg
            if size < 0 or size > MAX_REQUEST:
                raise Throw("malloc of " + str(size) + " bytes; a request is 0 to " + str(MAX_REQUEST))
            if room_is_short(h):
                return i
            obj = malloc(h, size)
            addresses[i] = address(h, obj)
            assign(h, t, op, obj)
        elif op.kind == DEAD:
            assign(h, t, op, np.int64(0))
    return len(ops)
