"""What Python asks of compiled code between two runs of the pump: to hold a lock, to cut what runs, to give a batch.

An allocation that needs a runtime lock has left the pump (pump.py); Python waits for the lock and then calls here for
what is done under it, and says what of the time it let pass the allocation owes. What preempts, cuts a compute or an
assist in progress, so that its P comes to a safepoint now. All of them read and write stages that the pump defines.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, types, void

from sim.go.mallocgc import hold, next_sample
from sim.go.mcentral import take_listed
from sim.go.mgcmark import ASSISTING, work_for
from sim.go.pay import STEP, pay
from sim.go.pump import COMPUTING, HAVE_NONE, HAVE_PAGES, INSERT, LISTED, SEGMENT, hold_heap, ops_at
from sim.go.state import CENTRAL_WAIT, NEVER, goroutines, heap_type, p_time, procs, variables
from sim.jit import bare, entry, inlined, jit
from sim.ops import ALLOC, COMPUTE, DEAD, SHARED

MAX_SIZE = 1 << 40  # bytes of an allocation
MAX_ARG = 1 << 61  # picoseconds of a compute

_CENTRAL_PRICE = STEP["central"]


@entry(types.UniTuple(int64, 2)(heap_type, int64, int64, int64))
def with_heap_lock(h: Any, p: Any, waited: Any, tried: Any) -> Any:
    """One hold of mheap.lock for the allocation of P: (picoseconds to hold it, 1 if that was all it needs)."""
    held, complete = hold_heap(bare(h), p, waited, tried != 0)
    return held, np.int64(complete)


@entry(int64(heap_type, int64, int64))
def with_central_lock(h: Any, p: Any, waited: Any) -> Any:
    """One hold of mcentral's lock for the allocation of P: picoseconds to hold it. (go1.14 mcentral.go:cacheSpan)"""
    h = bare(h)
    g = goroutines(h)[procs(h)[p].g]
    held = pay(h, p, _CENTRAL_PRICE)
    g.spent[CENTRAL_WAIT] += waited + held
    if g.stage == INSERT:
        g.stage = HAVE_PAGES
        return held
    g.span = take_listed(h, np.int64(g.spanclass))
    g.stage = LISTED if g.span != 0 else HAVE_NONE
    return held


@jit
def cut_compute(h: Any, p: Any, time: Any) -> None:
    """End the compute of a P at ``time``, if it is in one then."""
    pr = procs(h)[p]
    g = goroutines(h)[pr.g]
    if p_time(h)[p] == NEVER or g.stage != COMPUTING or p_time(h)[p] <= time:
        return
    rest = p_time(h)[p] - time
    g.left += rest
    pr.compute_time -= rest
    p_time(h)[p] = time


@jit
def cut_assists(h: Any, now: Any) -> None:
    """Assists in progress end now."""
    for p in range(h[0].nprocs):
        if p_time(h)[p] != NEVER and p_time(h)[p] > now and goroutines(h)[procs(h)[p].g].stage == ASSISTING:
            p_time(h)[p] = now


@entry(void(heap_type, int64, int64))
def cut(h: Any, p: Any, time: Any) -> None:
    """Cut the compute of a P at ``time``, so that it reaches a safepoint then."""
    cut_compute(bare(h), p, time)


@entry(void(heap_type, int64))
def preempt_all(h: Any, now: Any) -> None:
    """Computes and assists in progress come to a safepoint now; others do at the end of their segment. (preemptall)"""
    h = bare(h)
    for p in range(h[0].nprocs):
        cut_compute(h, p, now)
    cut_assists(h, now)


@entry(void(heap_type, int64, int64, int64))
def owe(h: Any, p: Any, cause: Any, picoseconds: Any) -> None:
    """Charge time that Python let pass to the allocation in progress on P."""
    h = bare(h)
    goroutines(h)[procs(h)[p].g].spent[cause] += picoseconds


@inlined
def is_wrong(op: Any, nshared: Any, nvars: Any) -> Any:
    """Whether an operation may not be run; computed without a branch."""
    kind, arg, obj = op.kind, op.arg, op.obj
    n = nshared if op["flags"] & SHARED else nvars
    in_order = (kind <= COMPUTE) & (arg >= 0) & (arg <= MAX_ARG) & ((kind == COMPUTE) | (obj < n))
    allocates = (kind != ALLOC) | ((arg >= 1) & (arg <= MAX_SIZE) & (obj >= -1))
    dies = (kind != DEAD) | (obj >= 0)
    return not (in_order & allocates & dies)


@entry(int64(heap_type, int64, int64, int64, int64, int64))
def begin(h: Any, goroutine: Any, address: Any, nops: Any, base: Any, nvars: Any) -> Any:
    """Give a goroutine its next batch; -1, or the index of the first operation that may not be run."""
    h = bare(h)
    ops = ops_at(address, nops)
    nshared = h[0].shared_variables_len
    for i in range(nops):
        if is_wrong(ops[i], nshared, nvars):
            return np.int64(i)
    g = goroutines(h)[goroutine]
    g.ops = address
    g.nops = nops
    g.pos = 0
    g.variables = base
    g.left = 0
    g.stage = SEGMENT
    return np.int64(-1)


@entry(void(heap_type))
def start_profile(h: Any) -> None:
    """Every P draws the bytes until its first heap-profile sample. (mcache.go:allocmcache)"""
    h = bare(h)
    for p in range(h[0].nprocs):
        next_sample(h, p)


@entry(void(heap_type, int64, int64, int64))
def drop_all(h: Any, goroutine: Any, base: Any, n: Any) -> None:
    """A goroutine ended: what its variables hold is dead, credit it has is everybody's. (proc.go:gdestroy)"""
    h = bare(h)
    for i in range(base, base + n):
        hold(h, variables(h), i, np.int64(0))
    g = goroutines(h)[goroutine]
    if h[0].gc_blacken_enabled and g.assist_bytes > 0:
        credit = work_for(h, g.assist_bytes)
        h[0].bg_scan_credit += credit
        h[0].returned_scan_work += credit
    g.assist_bytes = 0
    g.noted = 0
