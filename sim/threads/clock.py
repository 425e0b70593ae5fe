"""What threads of any model do on the clock: take their turns, hold locks, share CPUs, enter what their calls took.

*Turns*. The thread with the lowest (clock, number) goes next, and does one thing that others can see: one hold of a
lock, one look at or one assignment of something shared. What nobody else sees it does ahead of the others (the model's
pump).

*Locks* are FIFO. A thread that arrives at time a is granted the lock at a, or if it is held then at its release and a
hand-off later; it holds it for what the rooms say was done under it. So a hold is one turn: the lock is free again at
grant + hold, and whoever arrives later, in time, finds that. What a hold does to the rooms is done at its arrival. A
waiting thread spins: it keeps its CPU.

*CPUs*. A thread is pinned to a CPU. Where a CPU has several, the ready ones take turns round robin: at the end of its
slice a thread goes to the queue's end, if there is a queue, between two operations or in the middle of a compute.
Inside a malloc or a free it is not descheduled, so no holder of a lock ever is: that is kinder than a real system. The
switch is the next thread's to pay.

Left out: locks that put waiters to sleep, cost of cache lines that a lock's last holder wrote but for the hand-off,
migration between CPUs.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import int64, types, void

from sim.jit import bare, entry, inlined, jit, view_at
from sim.metrics.histogram import BUCKETS, bucket_of
from sim.ops import ALLOC, COMPUTE, DEAD, NO_OBJ, OP, SHARED
from sim.threads.state import (
    DONE,
    NEVER,
    NOBODY,
    OPS,
    cause_max,
    cause_time,
    clock_type,
    cpus,
    histograms,
    locks,
    log,
    threads,
    times,
)

STAY = 0  # why a pump comes back to Python: there is nothing to do before its limit
FINISHED = 1  # a thread's batch is at its end
NEED_ROOM = 2  # a table must grow

ops_at = view_at(OP)


@inlined
def note(k: Any, t: Any, time: Any, kind: Any, obj: Any, took: Any) -> None:
    """Write a line of the log, if there is room for one."""
    if k[0].log_used + 1 >= k[0].log_len:
        return
    line = log(k)[k[0].log_used]
    line.time = time
    line.thread = t
    line.kind = kind
    line.arg = obj
    line.took = took
    k[0].log_used += 1


@inlined
def first_two(k: Any) -> Any:
    """Whose turn it is and when, and who comes next and when; among equals the lower number. NEVER for nobody."""
    clocks = times(k)
    t, other = np.int64(0), np.int64(0)
    time, other_time = clocks[0], np.int64(NEVER)
    for i in range(1, k[0].nthreads):
        if clocks[i] < other_time:
            if clocks[i] < time:
                other, other_time = t, time
                t, time = np.int64(i), clocks[i]
            else:
                other, other_time = np.int64(i), clocks[i]
    return t, time, other, other_time


@inlined
def goes_on(t: Any, time: Any, other: Any, other_time: Any, limit: Any) -> Any:
    """Whether a thread at ``time`` is the next still, before the limit and before what `first_two` said comes next."""
    return time < limit and (time < other_time or (time == other_time and t < other))


@jit
def hold(k: Any, t: Any, lock: Any, cost: Any, wait_cause: Any) -> None:
    """A thread takes a lock when its clock says so, and is at its release: it held it for ``cost``."""
    word = locks(k)[lock]
    arrival = times(k)[t]
    grant = arrival
    if word.free_at > arrival:
        grant = word.free_at + k[0].handoff
        waited = grant - arrival
        word.waits += 1
        word.wait_time += waited
        word.longest_wait = max(word.longest_wait, waited)
        threads(k)[t].spent[wait_cause] += waited
    word.free_at = grant + cost
    word.holds += 1
    word.hold_time += cost
    word.longest_hold = max(word.longest_hold, cost)
    times(k)[t] = word.free_at


@jit
def spend(k: Any, t: Any, cause: Any, cost: Any) -> None:
    """Time of a thread's call that passes without a lock."""
    threads(k)[t].spent[cause] += cost
    times(k)[t] += cost


@jit
def enter_call(k: Any, t: Any, first: Any, end: Any) -> Any:
    """Enter what a call took in the histograms, whole (``first``) and by cause (up to ``end``): picoseconds."""
    counts = histograms(k)
    th = threads(k)[t]
    total = np.int64(0)
    for cause in range(first + 1, end):
        spent = th.spent[cause]
        if spent > 0:
            total += spent
            counts[cause * BUCKETS + bucket_of(spent)] += 1
            cause_time(k)[cause] += spent
            cause_max(k)[cause] = max(cause_max(k)[cause], spent)
            th.spent[cause] = 0
    counts[first * BUCKETS + bucket_of(total)] += 1
    cause_time(k)[first] += total
    cause_max(k)[first] = max(cause_max(k)[first], total)
    return total


@jit
def finish_malloc(k: Any, t: Any, obj: Any, kind: Any, asked: Any, given: Any) -> None:
    """A malloc that did more than the shortest path is complete: bytes asked for, and those of its object."""
    took = enter_call(k, t, np.int64(0), k[0].first_free_cause)
    th = threads(k)[t]
    th.malloc_time += took
    th.mallocs += 1
    th.asked_bytes += asked
    th.given_bytes += given
    note(k, t, times(k)[t], kind, obj, took)


@jit
def finish_free(k: Any, t: Any, obj: Any, kind: Any) -> None:
    """A free that did more than the shortest path is complete."""
    took = enter_call(k, t, k[0].first_free_cause, k[0].ncauses)
    threads(k)[t].free_time += took
    threads(k)[t].frees += 1
    note(k, t, times(k)[t], kind, obj, took)


@inlined
def compute(k: Any, th: Any, op: Any, time: Any) -> Any:
    """Run a compute from ``time`` on, to its end or that of the thread's slice: (then, whether it is at its end)."""
    left = th.compute_left if th.compute_left > 0 else op.arg
    part = min(left, th.slice_end - time)
    th.compute_left = left - part
    th.compute_time += part
    return time + part, part == left


@jit
def dispatch(k: Any, c: Any, time: Any) -> None:
    """A CPU is free: the first of its queue runs, once it is switched to."""
    cpu = cpus(k)[c]
    t = np.int64(cpu.head)
    cpu.running = t
    if t == NOBODY:
        return
    th = threads(k)[t]
    cpu.head = th.next
    if cpu.head == NOBODY:
        cpu.tail = NOBODY
    th.queued_time += time - th.since
    start_on_cpu(k, t, time, k[0].switch)


@jit
def start_on_cpu(k: Any, t: Any, time: Any, cost: Any) -> None:
    """A thread has its CPU, and runs when the cost of getting there is paid."""
    th = threads(k)[t]
    th.switch_time += cost
    th.slice_end = min(time + cost + k[0].slice, np.int64(NEVER))
    times(k)[t] = time + cost


@jit
def enqueue(k: Any, t: Any, time: Any) -> None:
    """A ready thread waits for its CPU from now on."""
    th = threads(k)[t]
    cpu = cpus(k)[th.cpu]
    th.since = time
    th.next = NOBODY
    times(k)[t] = NEVER
    if cpu.head == NOBODY:
        cpu.head = t
    else:
        threads(k)[cpu.tail].next = t
    cpu.tail = t


@jit
def end_slice(k: Any, t: Any) -> None:
    """A thread's slice is over, at its turn: the next of its CPU runs, or if nobody waits it goes on."""
    th = threads(k)[t]
    time = times(k)[t]
    th.stage = OPS
    if cpus(k)[th.cpu].head == NOBODY:
        th.slice_end = time + k[0].slice
        return
    enqueue(k, t, time)
    dispatch(k, np.int64(th.cpu), time)


@entry(types.UniTuple(int64, 3)(clock_type, int64, int64, numba.from_dtype(OP)[::1], int64))
def submit(k: Any, t: Any, address: Any, ops: Any, longest: Any) -> Any:
    """Give a thread that is at the end of its batch the next one; an allocation is of 0 to ``longest`` bytes.

    (operation that may not be run, -1 = all may; variables of its own that it names; those of the whole program's).
    """
    own, shared = np.int64(0), np.int64(0)
    for i in range(len(ops)):
        op = ops[i]
        allowed = op.obj >= NO_OBJ and op.arg >= 0
        if not allowed or op.kind > COMPUTE or (op.kind == ALLOC and op.arg > longest):
            return np.int64(i), own, shared
        if op.kind == ALLOC or op.kind == DEAD:
            if op["flags"] & SHARED:
                shared = max(shared, np.int64(op.obj) + 1)
            else:
                own = max(own, np.int64(op.obj) + 1)
    th = threads(k)[t]
    th.ops = address
    th.nops = len(ops)
    th.pos = 0
    th.stage = OPS
    return np.int64(-1), own, shared


@entry(void(clock_type, int64, int64, int64))
def wake(k: Any, t: Any, time: Any, cost: Any) -> None:
    """An idle thread has something to do from ``time`` on: it gets its CPU, ``cost`` later, or waits for it."""
    k = bare(k)
    th = threads(k)[t]
    th.idle_time += time - th.since
    if cpus(k)[th.cpu].running == NOBODY:
        cpus(k)[th.cpu].running = t
        start_on_cpu(k, t, time, cost)
    else:
        enqueue(k, t, time)


@entry(void(clock_type, int64))
def rest(k: Any, t: Any) -> None:
    """A thread at the end of its batch has nothing to do: its CPU goes to the next one."""
    k = bare(k)
    th = threads(k)[t]
    time = times(k)[t]
    th.stage = DONE
    th.since = time
    times(k)[t] = NEVER
    dispatch(k, np.int64(th.cpu), time)
