"""Sweeping as the rooms' own matter: what is swept when follows from their rules, and the record's frees tell deaths
alone. Against recorded programs, and on small records where each rule decides where a span comes to lie."""

from dataclasses import replace

import numpy as np
import pytest

from experiments import replay as module
from experiments.replay import replay
from experiments.replay_cycles import trigger_bounds
from experiments.replay_state import SWEEPER_START
from sim.jit import PLAIN
from tests.experiments.records import EIGHT, FULL, at, collection, damaged, fresh, missed, run, slot, span, trace_of
from tests.traces import trace_path
from workloads.gotrace import read_trace
from workloads.gotrace_cycles import recorded_cycles
from workloads.gotrace_model import (
    EVENT_COLUMNS,
    GC_BEGIN,
    GC_END,
    GO_BLOCK,
    GO_START,
    GO_STOP,
    HEAP_ALLOC,
    HEAP_GOAL,
    OBJECT_FREE,
    PROC_STATUS,
    SPAN,
    SPAN_ALLOC,
    SPAN_FREE,
    STW_BEGIN,
    SWEEP_BEGIN,
    SWEEP_END,
)

needs_speed = pytest.mark.skipif(PLAIN, reason="hundreds of thousands of events")
JSON = "test-encoding_json-code-P1-gogc_default"

# cycles that the heap triggered and cycles that runtime.GC forced, as the runtime's own gctrace lines say
RECORDED = {
    JSON: (5, 9),
    "xbench-json-P2-gogc_default": (2, 1),
    "test-fmt-tests-P1-gogc_off": (0, 1),
    "compile-go_scanner-P1-gogc_off": (0, 0),
}


@pytest.fixture(scope="module")
def traces():
    if PLAIN:
        pytest.skip("hundreds of thousands of events")
    return {name: read_trace(trace_path(name)) for name in RECORDED}


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_programs(traces, name):
    """At one P every span base and slot, at two every span base and all but four slots."""
    result = replay(traces[name], "coupled")
    natural, forced = RECORDED[name]
    assert (result.gc.cycles, result.gc.recorded_cycles, result.gc.forced) == (natural, natural, forced)
    assert result.spans_matched == result.spans_total
    assert result.slots_total - result.slots_matched - result.excepted <= (4 if "P2" in name else 0)


def late_frees(trace):
    """The same record, but that dead objects are freed only when the next cycle begins, and heap spans never."""
    kind, page = trace.kind, trace.a
    heap = np.zeros(len(kind), bool)
    holds = {}  # page: whether it is a heap span's
    for i in np.flatnonzero(np.isin(kind, (SPAN, SPAN_ALLOC, SPAN_FREE))).tolist():
        if kind[i] == SPAN_FREE:
            heap[i] = holds.pop(int(page[i]), False)
        else:
            holds[int(page[i])] = trace.c[i] % 2 == 0
    first = np.flatnonzero(kind == GC_END)[1]  # the first sweep also tells of the heap at the start
    heap[:first] = False
    rows = first + np.flatnonzero(kind[first:] == OBJECT_FREE)
    last = np.append(np.flatnonzero(kind == GC_BEGIN), len(kind))
    place = np.arange(len(kind), dtype=float)
    place[rows] = last[np.searchsorted(last, rows)] - 0.5
    order = np.argsort(place, kind="stable")
    order = order[~heap[order]]
    columns = {name: getattr(trace, name)[order] for name in EVENT_COLUMNS}
    return replace(trace, **columns | {"time_ns": trace.time_ns[np.sort(order)]})


@pytest.mark.parametrize("name", [JSON, "xbench-json-P2-gogc_default"])
def test_when_the_record_frees_does_not_matter(traces, name):
    as_recorded = replay(traces[name], "coupled")
    late = replay(late_frees(traces[name]), "coupled")
    assert late.spans_total == as_recorded.spans_total and late.slots_total == as_recorded.slots_total
    told = replay(late_frees(traces[name]))
    assert told.spans_matched < told.spans_total * 0.9, "a replay that is told finds its spans still in use"
    assert late.spans_matched >= late.spans_total - 2
    assert late.slots_matched >= as_recorded.slots_matched - 10


def test_wrong_triggers_and_turns_are_noticed(traces, monkeypatch):
    """Each rule is needed: without it spans come to lie elsewhere."""

    def misses():
        return sum(replay(traces[JSON], "coupled").misses.values())

    assert misses() == 0
    infer = module.infer_triggers

    def late_trigger(trace, recorded):
        infer(trace, recorded)
        recorded["b"][trace.kind == HEAP_GOAL] += 8 << 20

    monkeypatch.setattr(module, "infer_triggers", late_trigger)
    assert misses() > 0
    monkeypatch.setattr(module, "infer_triggers", infer)
    name_sweepers = module.name_sweepers
    monkeypatch.setattr(module, "name_sweepers", lambda trace, recorded: None)
    assert misses() > 0

    def lazy_sweeper(trace, recorded):
        name_sweepers(trace, recorded)
        recorded["c"][recorded["kind"] == SWEEPER_START] = 3

    monkeypatch.setattr(module, "name_sweepers", lazy_sweeper)
    assert misses() > 0


def test_no_cycle_begins_below_the_lower_bound_of_its_trigger(traces):
    checked = 0
    for trace in traces.values():
        live = np.where(trace.kind == HEAP_ALLOC, trace.a, 0)
        ends = np.flatnonzero(trace.kind == GC_END)
        for begin, forced in [(one.begin, one.forced) for one in recorded_cycles(trace)]:
            before = ends[ends < begin]
            goals = np.flatnonzero(trace.kind[:begin] == HEAP_GOAL)
            if forced or not len(before) or not len(goals):
                continue
            marked = int(live[: before[-1]][live[: before[-1]] > 0][-1])
            low, high = trigger_bounds(int(trace.a[goals[-1]]), marked)
            assert low <= high <= int(trace.a[goals[-1]])
            assert int(live[:begin][live[:begin] > 0][-1]) >= low
            checked += 1
    assert checked >= 5


def test_trigger_bounds():
    mib = 1 << 20
    assert trigger_bounds(68 * mib, 4 * mib) == (49 * mib, 65 * mib)
    assert trigger_bounds(200 * mib, 8 * mib) == (143 * mib, 196 * mib), "4 MiB before the goal, if that is later"
    assert trigger_bounds(4 * mib, 3 * mib) == (4 * mib, 4 * mib), "a mebibyte at least, for the sweeper"
    assert trigger_bounds(5 * mib, 6 * mib) == (5 * mib, 5 * mib)


# Pages 1 to 32 hold dead objects of one span class, in the order of their pages, behind page 0, which is full of live
# ones; page 33 is cached. A stack of 16 pages takes the lowest 16 free pages in a row, and reclaims none: so it tells
# whether 17 spans are swept. Page 64 is the first behind the P's page cache.
DEAD = [e for page in range(1, 33) for e in fresh(page, (0, 1))] + fresh(33)
DEATHS = [slot(page, n, kind=OBJECT_FREE) for page in range(1, 33) for n in (0, 1)]
DEATHS += [at(SPAN_FREE, page) for page in range(1, 33)]
LOW, HIGH = at(SPAN_ALLOC, 1, 16, 1), at(SPAN_ALLOC, 64, 16, 1)
SWEEPER = 3
STARTS = at(GO_START, SWEEPER)


def yields(why="runtime.Gosched", kind=GO_STOP, p=0):
    return at(kind, p=p, g=SWEEPER, why=why, frames=("runtime.goschedIfBusy", "runtime.bgsweep"))


PARKS = yields("GC background sweeper wait", GO_BLOCK)
STEP = at(GO_STOP, why="runtime.Gosched", frames=("runtime.Gosched", "runtime.GC", "main.main"))


def swept(*turns, gomaxprocs=1):
    """After these events, whether 17 spans are swept at least."""
    low = run(FULL, DEAD, collection(), *turns, LOW, DEATHS, gomaxprocs=gomaxprocs, gc="coupled")
    high = run(FULL, DEAD, collection(), *turns, HIGH, DEATHS, gomaxprocs=gomaxprocs, gc="coupled")
    assert missed(low) in ({}, {"fresh_span_elsewhere": 1}), missed(low)
    assert (missed(low) == {}) == (missed(high) != {})
    return missed(low) == {}


TURN = [STARTS, yields()]
CUT = [STARTS, yields("preempted")]


@pytest.mark.parametrize(
    ("turns", "enough"),
    [
        ([], False),
        (TURN, False),
        (TURN * 2, True),
        (CUT * 2, False),
        (CUT + TURN + CUT + TURN, True),
        ([STARTS, PARKS], True),
        ([STEP] * 16, False),
        ([STEP] * 17, True),
        (TURN + [STEP] * 6, False),
        (TURN + [STEP] * 7, True),
        (DEATHS, False),
    ],
)
def test_the_background_sweeps_ten_and_runtime_gc_one_at_a_time(turns, enough):
    assert swept(turns) == enough


def test_a_turn_beside_another_p_goes_on_while_that_runs():
    """It will sweep all 32 spans: half of them when half of its time is over, which is at the 16 pages."""

    def turn(before, after):
        events = [at(HEAP_ALLOC)] * before, [at(HEAP_ALLOC)] * after
        low = run(
            *(FULL, DEAD, collection(), at(GO_START, SWEEPER, p=1), events[0], LOW, events[1]),
            yields("GC background sweeper wait", GO_BLOCK, p=1),
            DEATHS,
            gomaxprocs=2,
            gc="coupled",
        )
        return not missed(low)

    assert turn(20, 10)
    assert not turn(10, 20)


def test_a_sweeper_yields_only_when_no_p_is_idle():
    """A second batch, when P 1 was idle for as long as one takes."""
    idle, busy = at(PROC_STATUS, 1, 2, p=-1), at(PROC_STATUS, 1, 1, p=-1)
    long = [at(HEAP_ALLOC)] * 4500
    assert swept(idle, STARTS, long, yields(), gomaxprocs=2)
    assert not swept(busy, STARTS, long, yields(), gomaxprocs=2)


def test_allocations_pay_for_sweeping():
    """The goal is so near that a refill pays for all there is to sweep, although it finds a span with room."""
    commit = [at(HEAP_ALLOC, 1 << 20), at(HEAP_GOAL, 1 << 20)]
    room, refill = fresh(34, range(7), EIGHT), slot(34, 7, EIGHT)
    paced = run(FULL, DEAD, room, collection(commit=commit), refill, LOW, DEATHS, gc="coupled")
    assert missed(paced) == {}
    unpaced = run(FULL, DEAD, room, collection(), refill, LOW, DEATHS, gc="coupled")
    assert missed(unpaced) == {"fresh_span_elsewhere": 1}


def test_a_fresh_span_reclaims_as_many_pages_as_it_takes():
    """Of a heap object; the chunk that the search comes to is swept to its end."""
    large = span(1, 1, npages=16)
    assert missed(run(FULL, DEAD, collection(), large, DEATHS, gc="coupled")) == {}


def test_a_large_object_counts_at_once():
    """After marking, heapLive is what the record says; a large object adds its pages to it."""
    trace = trace_of(FULL, at(HEAP_ALLOC, 1 << 20), collection(), span(1, 1, npages=16))
    heap, tables = module._run(trace, True)
    assert not tables.fields.logged
    assert int(heap.fields.heap_live) == (1 << 20) + 16 * 8192


def test_sweep_termination_sweeps_the_rest():
    assert missed(run(FULL, DEAD, collection(), DEATHS, collection(), LOW, gc="coupled")) == {}


def test_pages_that_the_record_frees_later_are_withheld_after_a_miss():
    """The rooms sweep 20 spans; in this record nobody has, and stacks take other pages: one miss, not one each."""
    stacks = [at(SPAN_ALLOC, 64 + 16 * i, 16, 1) for i in range(5)]
    result = run(FULL, DEAD, collection(), TURN * 2, stacks, DEATHS, at(SPAN_ALLOC, 1, 16, 1), gc="coupled")
    assert missed(result) == {"fresh_span_elsewhere": 1}


def test_a_span_the_rooms_freed_is_there_again_when_the_record_uses_it():
    """In the record a refill took page 1 with its dead objects; the rooms had given it back."""
    sweep = [at(SWEEP_BEGIN), slot(1, 0, kind=OBJECT_FREE), slot(1, 1, kind=OBJECT_FREE), at(SWEEP_END)]
    result = run(FULL, DEAD, collection(), [STARTS, PARKS], slot(33, 1), sweep, slot(1, 0), slot(1, 1), gc="coupled")
    assert missed(result) == {"object_in_other_span": 1}


def test_without_collections_it_is_the_same_replay():
    parts = [FULL, fresh(1, (0, 1)), fresh(200, (0, 1)), fresh(201)]
    assert run(*parts).to_dict() == {"replay": run(*parts, gc="coupled").to_dict()["replay"]}
    assert run(*parts, gc="coupled").to_dict()["gc"] == {
        "cycles": 0,
        "forced": 0,
        "recorded_cycles": 0,
        "trigger_error": (),
        "goal_error": (),
    }


def test_a_cycle_is_forced_when_runtime_gc_stops_the_world_for_it():
    forced = at(GC_BEGIN), at(GO_STOP), at(STW_BEGIN, frames=("runtime.stopTheWorldWithSema", "runtime.gcStart", "runtime.GC"))
    natural = at(GC_BEGIN), at(STW_BEGIN, frames=("runtime.stopTheWorldWithSema", "runtime.gcStart", "runtime.mallocgc"))
    cycles = recorded_cycles(trace_of(*forced, *natural, at(GC_BEGIN)))
    assert [one.forced for one in cycles] == [True, False, False]


@needs_speed
@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_record_is_counted_as_misses_and_breaks_nothing(seed):
    trace = damaged(read_trace(trace_path("xbench-json-P2-gogc_default")), seed)
    result = replay(trace, "coupled")
    assert result.spans_matched < result.spans_total and result.slots_matched < result.slots_total
    assert result.spans_matched > result.spans_total // 2 and result.slots_matched > result.slots_total // 2
