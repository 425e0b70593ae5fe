"""The GC CPU limiter against recorded answers of the real one, closed forms, and its own invariants."""

import json
import lzma
from pathlib import Path

import numpy as np
import pytest
from numba import boolean, int64, void

from sim.go import mgclimit
from sim.go.check import check_limiter
from sim.go.gccontroller import finish_gc_transition, start_event, start_gc_transition, stop_event, update_limiter
from sim.go.mgclimit import IDLE, IDLE_MARK_WORK, MARK_ASSIST, NO_EVENT, SCAVENGE_ASSIST
from sim.go.runtime import Heap
from sim.go.state import heap_type
from sim.jit import bare, entry
from sim.units import MS, SEC, US, Throw

RECORDED = Path(__file__).parents[1] / "data" / "limiter.json.xz"
PS = 1000  # a nanosecond of the record
UPDATE, ASSIST, IDLE_TIME, START, FINISH, RESET, ASK = range(7)


@entry(void(heap_type, int64, int64))
def reset(h, now, nprocs):
    mgclimit.reset_capacity(h, now, nprocs)


@entry(void(heap_type, int64))
def assist(h, duration):
    mgclimit.add_assist_time(h, duration)


@entry(boolean(heap_type, int64))
def due(h, now):
    return mgclimit.need_update(h, now)


@entry(void(heap_type, int64[:, ::1], int64[:, ::1]))
def make_calls(h, calls, states):
    h = bare(h)
    c = h[0]
    now = 0
    for i in range(len(calls)):
        code, at = calls[i, 0], calls[i, 1]
        if code == UPDATE:
            mgclimit.update(h, at)
        elif code == ASSIST:
            mgclimit.add_assist_time(h, at)
        elif code == IDLE_TIME:
            mgclimit.add_idle_time(h, at)
        elif code == START:
            mgclimit.start_gc_transition(h, calls[i, 2] == 1, at)
        elif code == FINISH:
            mgclimit.finish_gc_transition(h, at)
        elif code == RESET:
            mgclimit.reset_capacity(h, at, calls[i, 2])
        if code != ASSIST and code != IDLE_TIME:
            now = at
        states[i, 0] = c.limiter_fill
        states[i, 1] = c.limiter_capacity
        states[i, 2] = c.limiter_overflow
        states[i, 3] = c.limiter_enabled
        states[i, 4] = mgclimit.need_update(h, now)


def test_every_recorded_state_of_the_real_limiter():
    """The runtime's own test's calls, and twelve random sequences."""
    recorded = json.loads(lzma.decompress(RECORDED.read_bytes()))["sequences"]
    limiting = 0
    for number, sequence in enumerate(recorded):
        calls = np.array(sequence["Calls"], np.int64)
        calls[:, 1] *= PS
        wanted = np.array(sequence["States"], np.int64)
        wanted[:, :3] *= PS
        heap = Heap("go1.27", sequence["Procs"])
        states = np.zeros_like(wanted)
        make_calls(heap.header, calls, states)
        wrong = np.flatnonzero((states != wanted).any(axis=1))
        assert not len(wrong), f"sequence {number}, call {wrong[0]}: {states[wrong[0]]} for {wanted[wrong[0]]}"
        check_limiter(heap)
        limiting += int(wanted[:, 3].sum())
    assert limiting > 50


def marking(nprocs=4):
    """A heap that marks from 1 ms on; its bucket holds 1 ms of all CPUs."""
    heap = Heap("go1.27", nprocs)
    start_gc_transition(heap.header, True, 0)
    finish_gc_transition(heap.header, MS)
    assert int(heap.fields.limiter_fill) == nprocs * MS
    return heap


@pytest.mark.parametrize("share", [0.5, 0.625, 0.75, 1.0])
def test_how_long_until_the_limiter_is_on(share):
    """GC at a share u of P CPUs fills the bucket of P seconds at (2u - 1) P: full after 1 / (2u - 1) s; never at half."""
    heap = marking()
    h, fields = heap.header, heap.fields
    now, step = MS, 10 * MS
    for _ in range(450):
        now += step
        assist(h, int((share - 0.25) * step * 4))
        update_limiter(h, now)
        check_limiter(heap)
        if fields.limiter_enabled:
            break
    if share == 0.5:
        assert not fields.limiter_enabled and int(fields.limiter_fill) == 4 * MS
    else:
        assert now - MS == -(-(SEC - MS) / (2 * share - 1) // step) * step
    # with it on, assists stop: background workers alone empty it again, at half the rate the CPUs could
    if fields.limiter_enabled:
        update_limiter(h, now + SEC)
        assert not fields.limiter_enabled and int(fields.limiter_fill) == 2 * SEC


def test_events_in_progress_count_up_to_now_and_once():
    heap = marking()
    h, fields = heap.header, heap.fields
    assert start_event(h, 0, MARK_ASSIST, MS) and start_event(h, 1, SCAVENGE_ASSIST, 2 * MS)
    assert start_event(h, 2, IDLE, 3 * MS) and start_event(h, 3, IDLE_MARK_WORK, 4 * MS)
    assert not start_event(h, 0, SCAVENGE_ASSIST, 2 * MS)  # inside an assist: that has the time already
    update_limiter(h, 5 * MS)
    # 16 ms of CPU: 4 of workers, 4 and 3 of assists; 2 and 1 idle; 2 are left to the program
    assert int(fields.limiter_fill) == (4 + 4 + 4 + 3 - 2) * MS
    for p, kind in enumerate((MARK_ASSIST, SCAVENGE_ASSIST, IDLE, IDLE_MARK_WORK)):
        stop_event(h, p, kind, 6 * MS)
    assert int(fields.limiter_assist_time_pool) == int(fields.limiter_idle_time_pool) == 2 * MS
    update_limiter(h, 6 * MS)
    # of 4 ms: 1 of workers, 2 of assists, 2 idle; so the program had -1, for the workers are counted as if at work
    assert int(fields.limiter_fill) == (13 + 3 + 1) * MS
    assert int(fields.limiter_assist_time_pool) == int(fields.limiter_idle_time_pool) == 0
    assert start_event(h, 0, IDLE, 6 * MS)


def test_an_update_is_due_after_ten_milliseconds():
    heap = marking()
    assert not due(heap.header, 11 * MS) and due(heap.header, 11 * MS + 1)


def test_an_old_time_and_a_transition_are_no_time_for_an_update():
    heap = marking()
    h, fields = heap.header, heap.fields
    update_limiter(h, MS - US)
    assert (int(fields.limiter_last_update), int(fields.limiter_fill)) == (MS, 4 * MS)
    start_gc_transition(h, False, 2 * MS)
    update_limiter(h, 3 * MS)
    assert int(fields.limiter_last_update) == 2 * MS
    finish_gc_transition(h, 3 * MS)
    assert int(fields.limiter_fill) == (4 - 2 + 4) * MS


def test_what_may_not_happen_is_refused():
    heap = marking()
    h = heap.header
    with pytest.raises(Throw, match="to the same state as before"):
        start_gc_transition(h, True, 2 * MS)
    with pytest.raises(Throw, match="without starting one"):
        finish_gc_transition(h, 2 * MS)
    start_gc_transition(h, False, 2 * MS)
    with pytest.raises(Throw, match="to start a GC transition"):
        start_gc_transition(h, True, 2 * MS)
    with pytest.raises(Throw, match="to reset capacity"):
        reset(h, 2 * MS, 5)
    finish_gc_transition(h, 3 * MS)
    for kind in (NO_EVENT, MARK_ASSIST):
        with pytest.raises(Throw, match="wrong event"):
            stop_event(h, 0, kind, 4 * MS)


@pytest.mark.parametrize(
    ("fill", "on", "says"), [(-1, 0, "holds -1 of"), (4 * SEC + 1, 0, "holds 4000000000001 of"), (5, 1, "is on with 5 of")]
)
def test_a_broken_bucket_is_found(fill, on, says):
    heap = Heap("go1.27", 4)
    check_limiter(heap)
    heap.fields.limiter_fill, heap.fields.limiter_enabled = fill, on
    with pytest.raises(Throw, match=says):
        check_limiter(heap)
