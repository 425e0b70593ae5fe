"""The pacer: when a cycle begins, how large the heap may get, how much of the marking allocation pays (mgcpacer.go).

Theory. A cycle that begins at the *trigger* shall end when the heap reaches the *goal*, with marking at 25 % of the
CPUs and no assists. The measured ratio of allocation to marking, both per CPU time (``cons_mark``), times the work that
is expected, weighed 75 to 25, is the *runway*: what the program will allocate until marking is done; trigger = goal -
runway, within bounds. If the estimate was wrong, ``assist_work_per_byte`` makes allocation do marking so that the work
left ends with the heap at the goal (``revise``). Goal: what the last cycle marked, plus gc_percent of it and of stacks
and globals; or what a memory limit leaves, if that is less.

Versions differ in three named facts (params.py): ``pi_pacer`` (cons/mark smoothed by a PI controller, which may swing
below zero; else the largest of the last five), ``triggered_is_heap_live``, ``memory_limit_headroom_percent``.

Invariants: min trigger <= trigger <= goal; no goal above 2**63 - 1; a memory limit never moves a goal up; outside a
cycle ``triggered`` is -1.

Quantities are integer bytes; times are integer picoseconds, but only their ratios matter, so any one unit gives the
same results. 2**63 - 1 stands for "no goal" and "no limit", -1 for "not triggered": Go's ^uint64(0) and MaxInt64 compare
alike. Where Go's arithmetic can overflow (a forced cycle with GC off has a goal near 2**63), it wraps and converts here
as there (sim/words.py).

The caller's matters, in Go part of these functions: after ``commit`` the pace of sweeping and scavenging, and
``revise`` if a cycle is in progress; at ``start_cycle`` the Ps' own times. Left out: the 8 KiB of stack growth that
each P keeps to itself before it reaches max_stack_scan; gcstoptheworld; gcpacertrace.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from sim.jit import jit
from sim.units import Throw
from sim.words import difference64, float_to_int64, float_to_uint64, mul64, quotient

BACKGROUND_UTILIZATION = 0.25  # of all CPUs, by mark workers; gcGoalUtilization is the same
DEFAULT_HEAP_MINIMUM = 4 << 20  # at gc_percent 100
MIN_RUNWAY = 64 << 10  # least distance of a goal from the point where its cycle began
SWEEP_MIN_HEAP_DISTANCE = 1 << 20
MEMORY_LIMIT_MIN_HEADROOM = 1 << 20
NO_LIMIT = (1 << 63) - 1
NO_GOAL = (1 << 63) - 1
NOT_TRIGGERED = -1
# bounds of the trigger between what was marked and the goal, in 64ths
TRIGGER_RATIO_DEN = 64
MIN_TRIGGER_RATIO_NUM = 45
MAX_TRIGGER_RATIO_NUM = 61
# PI controller of cons/mark (1.19): proportional gain, integral and reset time in cycles, bounds of its output
KP = 0.9
TI = 4.0
TT = 1000.0
CONS_MARK_BOUND = 1000.0

# what a mark worker is (gcMarkWorkerMode); a room of the scheduler says which runs where
NOT_WORKER = 0
DEDICATED = 1
FRACTIONAL = 2
IDLE = 3


@jit
def init(h: Any, gc_percent: Any, memory_limit: Any) -> None:
    """Set the pacer up for the first cycle. (gcControllerState.init)"""
    h[0].triggered = NOT_TRIGGERED
    h[0].memory_limit = NO_LIMIT
    set_gc_percent(h, gc_percent)
    set_memory_limit(h, memory_limit)
    commit(h, True)  # nothing to sweep before the first cycle


@jit
def set_gc_percent(h: Any, percent: Any) -> Any:
    """Set GOGC, below 0 for off; ``commit`` must follow. Gives the old value. (setGCPercent)"""
    old = np.int64(h[0].gc_percent)
    h[0].gc_percent = max(percent, -1)
    h[0].heap_minimum = DEFAULT_HEAP_MINIMUM * percent // 100 if percent >= 0 else 0  # unused while GC is off
    return old


@jit
def set_memory_limit(h: Any, limit: Any) -> Any:
    """Set the soft limit in bytes (below 0: leave it); ``commit`` must follow. Gives the old value. (setMemoryLimit)"""
    old = np.int64(h[0].memory_limit)
    if limit >= 0:
        h[0].memory_limit = limit
    return old


@jit
def expected_scan(h: Any) -> Any:
    """Work the last cycle did, globals as they are now: what a steady heap asks of the next one."""
    return h[0].last_heap_scan + h[0].last_stack_scan + h[0].globals_scan


@jit
def scan_work(h: Any) -> Any:
    """Work done in this cycle, in bytes."""
    return h[0].heap_scan_work + h[0].stack_scan_work + h[0].globals_scan_work


@jit
def start_cycle(h: Any, now: Any, procs: Any, time_triggered: Any) -> None:
    """Begin a cycle; the world is stopped. ``time_triggered``: the 2-minute timer asked for it. (startCycle)"""
    c = h[0]
    c.heap_scan_work = 0
    c.stack_scan_work = 0
    c.globals_scan_work = 0
    c.bg_scan_credit = 0
    c.assist_time = 0
    c.dedicated_mark_time = 0
    c.fractional_mark_time = 0
    c.idle_mark_time = 0
    c.mark_start_time = now
    if c.triggered_is_heap_live:
        c.triggered = c.heap_live
    else:
        c.triggered = trigger(h)[0]

    # as many dedicated workers as come closest to 25 % of the Ps; where that is more than 30 % off, fewer of them and
    # a share of each P's time for a fractional one
    goal = float(procs) * BACKGROUND_UTILIZATION
    dedicated = np.int64(goal + 0.5)
    error = float(dedicated) / goal - 1
    c.fractional_utilization_goal = 0.0
    if error < -0.3 or error > 0.3:
        if float(dedicated) > goal:
            dedicated -= 1
        c.fractional_utilization_goal = (goal - float(dedicated)) / float(procs)
    c.dedicated_mark_workers_needed = dedicated

    if not time_triggered:
        set_max_idle_mark_workers(h, procs - dedicated)
    else:  # the system is idle: no need to go full blast, but fractional workers alone guarantee no progress
        set_max_idle_mark_workers(h, 0 if dedicated > 0 else 1)
    revise(h)


@jit
def revise(h: Any) -> None:
    """Set the assist ratio by what is left of the work and of the way to the goal; only during marking. (revise)"""
    c = h[0]
    # with GC off this is a forced cycle: then as if GOGC were huge
    gc_percent = c.gc_percent if c.gc_percent >= 0 else np.int64(100000)
    work = scan_work(h)
    goal = heap_goal(h)
    expected = expected_scan(h)
    worst = c.heap_scan + c.max_stack_scan + c.globals_scan  # everything that could be scanned proves to be live
    if work > expected:
        # The heap grows. Keep the ratio as planned, by as much more runway as the worst case is more work, but let this
        # cycle take no more memory than the next one will take anyway.
        stretch = quotient(goal - c.triggered, expected) * float(worst)
        extended = difference64(float_to_int64(stretch), -c.triggered)
        hard_goal = float_to_int64((1.0 + float(gc_percent) / 100.0) * float(goal))
        goal = min(extended, hard_goal)
        expected = worst
    if c.heap_live > goal:  # past even that goal: some more room, for the worst case
        goal = float_to_int64(float(goal) * 1.1)
        expected = worst

    # Aiming high near the end does no harm, and marking an object twice may have made the rest negative.
    work_left = float(max(expected - work, 1000))
    heap_left = float(max(difference64(goal, c.heap_live), 1))
    c.assist_work_per_byte = work_left / heap_left
    c.assist_bytes_per_work = heap_left / work_left


@jit
def end_cycle(h: Any, now: Any, procs: Any) -> None:
    """Marking is done; the world is stopped. Estimates cons/mark for the next cycle. (endCycle)"""
    c = h[0]
    c.last_heap_goal = heap_goal(h)  # for the scavenger
    cpu_time = float((now - c.mark_start_time) * procs)
    utilization = BACKGROUND_UTILIZATION  # background workers are taken to have met their goal
    idle_utilization = 0.0
    if cpu_time > 0:
        utilization += float(c.assist_time) / cpu_time
        idle_utilization = float(c.idle_mark_time) / cpu_time
    if c.triggered == NOT_TRIGGERED or c.heap_live <= c.triggered:
        return  # nothing was allocated: too short a cycle to learn from
    # Allocation had the CPU time 1 - utilization; marking had the idle time on top of its own, although the program
    # was free to take that.
    allocated = float(c.heap_live - c.triggered) * (utilization + idle_utilization)
    measured = quotient(allocated, float(scan_work(h)) * (1 - utilization))
    if c.pi_pacer:
        smooth_cons_mark(h, measured)
        return
    # The largest of five errs towards cycles that begin too early, not towards assists.
    c.cons_mark = measured
    for i in range(4):
        c.cons_mark = max(c.cons_mark, c.last_cons_mark[i])
    for i in range(3):
        c.last_cons_mark[i] = c.last_cons_mark[i + 1]
    c.last_cons_mark[3] = measured


@jit
def smooth_cons_mark(h: Any, measured: Any) -> None:
    """One step of the PI controller, a cycle being its unit of time; 0 if it overflows. (piController.next, 1.19)"""
    c = h[0]
    error = measured - float(c.cons_mark)
    raw = KP * error + float(c.cons_mark_err_integral)
    output = min(max(raw, -CONS_MARK_BOUND), CONS_MARK_BOUND)
    integral = float(c.cons_mark_err_integral) + (KP / TI * error + 1.0 / TT * (output - raw))
    if math.isfinite(raw) and math.isfinite(integral):
        c.cons_mark = output
        c.cons_mark_err_integral = integral
    else:
        c.cons_mark = 0.0
        c.cons_mark_err_integral = 0.0


@jit
def reset_live(h: Any, bytes_marked: Any) -> None:
    """Live is what was marked. After ``end_cycle``, before ``commit``; the world is stopped. (resetLive)"""
    c = h[0]
    c.heap_marked = bytes_marked
    c.heap_live = bytes_marked
    c.heap_scan = c.heap_scan_work
    c.last_heap_scan = c.heap_scan_work
    c.last_stack_scan = c.stack_scan_work
    c.triggered = NOT_TRIGGERED


@jit
def commit(h: Any, sweep_done: Any) -> None:
    """Recompute the goal of gc_percent and the runway, at any time under the heap lock. (commit)

    ``sweep_done``: nothing is left to sweep; else the trigger leaves the sweeper some way.
    """
    c = h[0]
    c.sweep_dist_min_trigger = 0 if sweep_done else c.heap_live + SWEEP_MIN_HEAP_DISTANCE
    goal = np.int64(NO_GOAL)
    if c.gc_percent >= 0:
        scannable = c.heap_marked + c.last_stack_scan + c.globals_scan
        goal = c.heap_marked + np.int64(mul64(scannable, c.gc_percent) // np.uint64(100))
        goal = max(goal, np.int64(c.heap_minimum))
    c.gc_percent_heap_goal = goal
    weighed = float(c.cons_mark) * (1 - BACKGROUND_UTILIZATION) / BACKGROUND_UTILIZATION
    c.runway = float_to_uint64(weighed * float(expected_scan(h)))


@jit
def resume(h: Any, heap_live: Any, goal: Any, stack_scan: Any) -> None:
    """Set the pacer in the middle of a program's life: heapLive and goal in bytes as they were. ``commit`` must follow.

    What the last cycle marked is what gives the goal with gc_percent, stacks (``stack_scan`` bytes) and globals as they
    are, never more than heapLive; a goal no higher than the least one means that there was no cycle yet. What the
    last cycle scanned is taken as the same part of what there is. Of earlier cycles' cons/mark nothing is known: 0. A goal
    that a memory limit set, or another gc_percent, tells a wrong share.
    """
    c = h[0]
    marked = np.int64(0)
    if c.gc_percent >= 0 and goal > c.heap_minimum:
        marked = (goal - (stack_scan + c.globals_scan) * c.gc_percent // 100) * 100 // (100 + c.gc_percent)
        marked = min(max(marked, np.int64(0)), heap_live)
        c.last_heap_scan = np.int64(float(c.heap_scan) * float(marked) / float(max(heap_live, 1)))
        c.last_stack_scan = stack_scan
    c.heap_marked = marked
    c.heap_live = heap_live


@jit
def heap_goal_internal(h: Any) -> Any:
    """The goal as it stands now, and a lower bound of the trigger, <= the goal. (heapGoalInternal)"""
    c = h[0]
    goal = np.int64(c.gc_percent_heap_goal)
    limit_goal = memory_limit_heap_goal(h)
    if limit_goal < goal:  # a limit's goal is never moved up, so the sweep distance counts for nothing
        return limit_goal, np.int64(0)
    min_trigger = np.int64(c.sweep_dist_min_trigger)
    goal = max(goal, min_trigger)
    # A late start or a large allocation may have passed the goal: assists need a distance to work over.
    if c.triggered != NOT_TRIGGERED:
        goal = max(goal, c.triggered + MIN_RUNWAY)
    return goal, min_trigger


@jit
def heap_goal(h: Any) -> Any:
    """The goal in bytes as it stands now; with a memory limit it moves with the memory statistics. (heapGoal)"""
    return heap_goal_internal(h)[0]


@jit
def memory_limit_heap_goal(h: Any) -> Any:
    """The goal that keeps all the runtime's memory within the limit, never below what is marked. (memoryLimitHeapGoal)

    What is mapped and neither holds objects nor is free for them, and any excess over the limit, is not the heap's to
    use; some of the rest is left as headroom for the pacer's errors.
    """
    c = h[0]
    non_heap = c.mapped_ready - c.heap_free - (c.total_alloc - c.total_free)
    if non_heap < 0:
        raise Throw("more heap memory free and in objects than is mapped")
    marked = np.int64(c.heap_marked)
    taken = non_heap + max(c.mapped_ready - c.memory_limit, 0)
    if taken >= c.memory_limit:
        return marked
    goal = c.memory_limit - taken
    headroom = max(goal // 100 * c.memory_limit_headroom_percent, MEMORY_LIMIT_MIN_HEADROOM)
    goal = max(goal - headroom, headroom)
    return max(goal, marked)


@jit
def trigger(h: Any) -> Any:
    """At what heap_live a cycle should begin, and its goal, both in bytes. (trigger)"""
    c = h[0]
    goal, min_trigger = heap_goal_internal(h)
    marked = np.int64(c.heap_marked)
    if marked >= goal:
        return goal, goal
    # Too early a trigger means marking nearly always, and allocating black: a heap that grows. Too late leaves no
    # headroom, though a large heap with little to scan needs no more than the minimum heap.
    part = (goal - marked) // TRIGGER_RATIO_DEN
    min_trigger = max(min_trigger, marked + part * MIN_TRIGGER_RATIO_NUM)
    max_trigger = max(marked + part * MAX_TRIGGER_RATIO_NUM, goal - DEFAULT_HEAP_MINIMUM, min_trigger)
    at = min_trigger
    if c.runway <= np.uint64(goal):  # else even the earliest is too late; a negative cons/mark lands here too
        at = min(max(goal - np.int64(c.runway), min_trigger), max_trigger)
    return at, goal


@jit
def update(h: Any, d_live: Any, d_scan: Any) -> None:
    """Move heap_live and heap_scan; while marking, heap_scan stands still and assists are revised. (update)"""
    h[0].heap_live += d_live
    if h[0].gc_blacken_enabled:
        revise(h)
    else:
        h[0].heap_scan += d_scan


@jit
def add_scannable_stack(h: Any, amount: Any) -> None:
    """Goroutine stacks grew by so many bytes. (addScannableStack)"""
    h[0].max_stack_scan += amount


@jit
def add_globals(h: Any, amount: Any) -> None:
    """The program's globals that hold pointers are so many bytes more. (addGlobals)"""
    h[0].globals_scan += amount


@jit
def pick_worker(h: Any, now: Any, fractional_time: Any) -> Any:
    """What kind of mark worker a P should run now, if there is work; a dedicated one counts as started.

    ``fractional_time``: how long this P ran a fractional worker in this cycle. (assignWaitingGCWorker, in 1.19 part of
    findRunnableGCWorker)
    """
    c = h[0]
    if c.dedicated_mark_workers_needed > 0:
        c.dedicated_mark_workers_needed -= 1
        return DEDICATED
    if c.fractional_utilization_goal == 0:
        return NOT_WORKER
    elapsed = now - c.mark_start_time
    if elapsed > 0 and float(fractional_time) / float(elapsed) > c.fractional_utilization_goal:
        return NOT_WORKER
    return FRACTIONAL


@jit
def mark_worker_stop(h: Any, mode: Any, duration: Any) -> None:
    """A mark worker ran so long and stops. (markWorkerStop)"""
    c = h[0]
    if mode == DEDICATED:
        c.dedicated_mark_time += duration
        c.dedicated_mark_workers_needed += 1
    elif mode == FRACTIONAL:
        c.fractional_mark_time += duration
    elif mode == IDLE:
        c.idle_mark_time += duration
        remove_idle_mark_worker(h)
    else:
        raise Throw("markWorkerStop: unknown mark worker mode")


@jit
def need_idle_mark_worker(h: Any) -> Any:
    """Is there room for one more idle mark worker? (needIdleMarkWorker)"""
    return h[0].idle_mark_workers < h[0].max_idle_mark_workers


@jit
def add_idle_mark_worker(h: Any) -> Any:
    """Count one more idle mark worker, if there is room; the caller must become it then. (addIdleMarkWorker)"""
    if not need_idle_mark_worker(h):
        return False
    h[0].idle_mark_workers += 1
    return True


@jit
def remove_idle_mark_worker(h: Any) -> None:
    """An idle mark worker stops. (removeIdleMarkWorker)"""
    if h[0].idle_mark_workers <= 0:
        raise Throw("negative idle mark workers")
    h[0].idle_mark_workers -= 1


@jit
def set_max_idle_mark_workers(h: Any, n: Any) -> None:
    """How many may start; those at work above it go by themselves. (setMaxIdleMarkWorkers)"""
    h[0].max_idle_mark_workers = n
