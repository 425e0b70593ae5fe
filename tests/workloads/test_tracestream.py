"""A recorded trace as a workload: what each goroutine does equals the record, and playing it always comes to an end."""

from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.go.check import check_heap
from sim.go.goroutine import Goroutine
from sim.go.pump import LOG_DEAD, LOG_OBJECT
from sim.go.sizeclasses import class_to_size
from sim.go.world import World
from sim.jit import PLAIN
from sim.ops import ALLOC, COMPUTE, NEEDZERO, NOSCAN, SHARED
from sim.units import NS
from tests.go.prices import made_up_prices
from tests.traces import trace_path
from workloads import gotrace_model as t
from workloads import tracestream_items as item
from workloads.drive_trace import Player
from workloads.gotrace import read_trace
from workloads.gotrace_objects import find_objects
from workloads.tracestream import ORPHANS, RECORDED, TRACED_MALLOC, build
from workloads.tracestream_deaths import DRAWN, EARLIEST, LATEST, WAYS, Allocated, Dying, find_deaths
from workloads.tracestream_stacks import find_depths

NAMES = [
    "gofmt-nethttp_server-P1-gogc_off",
    "test-fmt-tests-P1-gogc_off",
    "xbench-json-P2-gogc_default",
    "compile-go_scanner-P1-gogc_off",
]
TINY = 5
FEW = 300 if PLAIN else None  # mallocs that a run makes


@pytest.fixture(scope="module", params=NAMES)
def recorded(request):
    trace = read_trace(trace_path(request.param))
    return trace, build(trace)


class Slow:
    """What a trace's heap events mean, one by one: pages in a dictionary, slots in another."""

    def __init__(self, trace):
        pages, held = {}, {}
        self.mallocs = defaultdict(list)  # by goroutine: (span class, slot bytes, number of its block)
        self.freed = {}  # block: how many cycles had ended
        self.at_start = 0
        blocks = cycles = 0
        for kind, g, a, b, c in zip(
            trace.kind, *(x.tolist() for x in (trace.g, trace.a, trace.b, trace.c)), strict=True
        ):
            if kind in (t.SPAN, t.SPAN_ALLOC):
                size = 0 if c & 1 else int(class_to_size[c >> 2]) or b * 8192
                pages.update((a + i, (a, c >> 1, size)) for i in range(b))
            elif kind in (t.OBJECT, t.OBJECT_ALLOC, t.OBJECT_FREE):
                first, spanclass, size = pages[a // 1024]
                slot = (first, (8 * a - 8192 * first) // size)
                if kind == t.OBJECT_FREE:
                    self.freed[held.pop(slot)] = cycles
                    continue
                if slot not in held:
                    blocks += 1
                    held[slot] = blocks if kind == t.OBJECT_ALLOC else -blocks
                    self.at_start += kind == t.OBJECT
                if kind == t.OBJECT_ALLOC:
                    self.mallocs[g].append((spanclass, size, held[slot]))
            elif kind == t.GC_END:
                cycles += 1


def operations_of(program, i):
    """The operations of a goroutine."""
    ends = program.steps["end"]
    first, end = program.first[i : i + 2]
    return program.ops[ends[first - 1] if first else 0 : ends[end - 1]]


def class_of(size, noscan):
    """Span class and slot of a request in go1.27: objects with pointers over 512 bytes carry a header of 8."""
    if noscan and size < 16:
        return TINY, 16
    if size > 32760:
        return noscan, -(-size // 8192) * 8192
    if not noscan and size > 512:
        size += 8
    sizeclass = int(np.searchsorted(class_to_size, size))
    return 2 * sizeclass + noscan, int(class_to_size[sizeclass])


def classes_of(program, i):
    """Span class and slot of each malloc of a goroutine."""
    ops = operations_of(program, i)
    ops = ops[ops["kind"] == ALLOC]
    return [class_of(int(size), int(flags & NOSCAN)) for size, flags in zip(ops["arg"], ops["flags"], strict=True)]


# The program is the record


def test_mallocs_of_each_goroutine_are_the_recorded_ones_in_order(recorded):
    trace, program = recorded
    slow = Slow(trace)
    assert program.mallocs == sum(len(found) for g, found in slow.mallocs.items() if g >= 0)
    for i, name in enumerate(program.names.tolist()):
        ops = operations_of(program, i)
        ops = ops[ops["kind"] == ALLOC]
        wanted = [(spanclass, size) for spanclass, size, _ in slow.mallocs.pop(name, [])]
        assert classes_of(program, i) == wanted
        assert np.all((ops["ptr_bytes"] > 0) == (ops["flags"] & NOSCAN == 0))
        assert np.all(ops["ptr_bytes"] <= ops["arg"])
    assert set(slow.mallocs) <= {-1}


def test_every_freed_object_dies_once(recorded):
    """Also one that was there at the start, unless the sweep under way then frees it."""
    trace, program = recorded
    slow = Slow(trace)
    block_of = {}
    for i, name in enumerate(program.names.tolist()):
        ops = operations_of(program, i)
        for op, (_, _, block) in zip(ops[ops["kind"] == ALLOC], slow.mallocs[name], strict=True):
            assert (op["obj"] >= 0) == (block in slow.freed) == bool(op["flags"] & SHARED)
            if op["obj"] >= 0:
                block_of[int(op["obj"])] = block
    old = program.inherited["obj"][program.inherited["obj"] >= 0].tolist()
    assert len(block_of) + len(old) == len(program.deaths) == program.variables
    assert sorted(program.deaths["obj"].tolist()) == sorted([*block_of, *old])
    assert len(old) == sum(cycles > 0 for block, cycles in slow.freed.items() if block < 0)
    assert len(program.inherited) == slow.at_start - sum(cycles == 0 for block, cycles in slow.freed.items() if block < 0)
    assert program.points[-1] == len(program.groups)


def slow_bounds(trace, objects, i):
    """Rows between which an object that is freed died, by looking at one mark after the other."""
    born, freed = int(objects.row[i]), int(objects.freed[i])
    begin, phases = 0, []
    for row in np.flatnonzero(np.isin(trace.kind, (t.GC_BEGIN, t.GC_END))).tolist():
        if trace.kind[row] == t.GC_BEGIN:
            begin = row
        elif row < freed:
            phases.append((begin, row))
    if not phases:
        return born, freed
    begin, end = phases[-1]  # which missed it; it survived the one before
    last = begin if begin > born else end if end > born else freed
    return max(born, phases[-2][0]) if len(phases) > 1 else born, last


@pytest.mark.parametrize("way", WAYS)
def test_deaths_lie_within_their_bounds(recorded, way):
    trace, _ = recorded
    objects = find_objects(trace)
    rows = len(trace.kind)
    made = np.flatnonzero((trace.kind == t.OBJECT_ALLOC) & (trace.g >= 0))
    allocated = Allocated.of(made, objects.size[np.searchsorted(objects.row, made)])
    dying = Dying(objects.row, objects.freed, objects.size, objects.block)
    found = find_deaths(trace, rows, allocated, dying, way, 1)
    dies = np.flatnonzero(objects.freed < rows)
    assert len(found.at) == len(dies)
    bounds = {int(i): slow_bounds(trace, objects, i) for i in dies[:: 1 + len(dies) // 2000]}
    for i, at in zip(dies.tolist(), found.at.tolist(), strict=True):
        mates = np.flatnonzero(objects.block == objects.block[i]) if objects.spanclass[i] == TINY and i in bounds else [i]
        if i in bounds and len(mates) == 1:
            first, last = bounds[i]
            soonest = int(np.searchsorted(found.rows, first))  # the first point at which it is there
            latest = max(int(np.searchsorted(found.rows, last, "right")) - 1, soonest)
            wanted = {EARLIEST: (soonest, soonest), LATEST: (latest, latest), DRAWN: (soonest, latest)}[way]
            assert wanted[0] <= at <= wanted[1], (i, first, last)


def test_a_wrong_slot_size_would_be_found(recorded):
    """The comparison above fails when it should."""
    trace, program = recorded
    at = int(np.flatnonzero(program.ops["kind"] == ALLOC)[-1])
    program.ops["arg"][at] += 8 * 1024
    try:
        with pytest.raises(AssertionError):
            test_mallocs_of_each_goroutine_are_the_recorded_ones_in_order((trace, program))
    finally:
        program.ops["arg"][at] -= 8 * 1024


def test_what_waits_stands_after_what_it_waits_for(recorded):
    """Each event, child and wait has one other side, and nothing waits for what comes later in the record."""
    _, program = recorded
    sides = Counter(
        (int(s["kind"]), int(s["arg"])) for s in program.steps if s["kind"] in (item.WAIT, item.FIRE, item.CREATE)
    )
    for event in range(program.events):
        assert sides.pop((item.WAIT, event)) == sides.pop((item.FIRE, event)) == 1
    assert sides == Counter((item.CREATE, int(i)) for i in np.flatnonzero(program.starts < 0))
    assert sorted(program.steps["arg"][program.steps["kind"] == item.REAP]) == list(range(len(program.points) - 1))


# Playing it


def play(program, procs, player=Player, log_lines=0):
    """Play a program to its end: the world and the player."""
    world = World("go1.27", procs, made_up_prices(), 1, gogc=-1, log_lines=log_lines)
    running = player(world, program)
    running.start()
    world.run()
    return world, running


@pytest.mark.parametrize("procs", [1, 3])
@pytest.mark.parametrize("name", NAMES[:3])
def test_a_run_makes_every_malloc_and_death_and_ends(name, procs):
    trace = read_trace(trace_path(name))
    program = build(trace, FEW)
    world, player = play(program, procs, log_lines=2 * len(program.ops))
    assert player.done.processed
    log = world.heap.arrays["log"][: int(world.heap.fields.log_used)]
    assert int(world.heap.arrays["procs"]["mallocs"].sum()) == program.mallocs
    assert int(world.heap.fields.live_objects) == program.mallocs + len(program.inherited) - len(program.deaths)
    assert int((log["kind"] == LOG_DEAD).sum()) == len(program.deaths)
    assert world.sched.alive == 0
    check_heap(world.heap)


@pytest.mark.parametrize("name", NAMES)
def test_every_allocation_of_a_run_lands_in_the_recorded_span_class(name):
    trace = read_trace(trace_path(name))
    program = build(trace, FEW)
    program.steps["kind"][program.steps["kind"] == item.COLLECT] = item.MEM_STATS  # freed spans would change their class
    world, _ = play(program, trace.gomaxprocs, log_lines=2 * len(program.ops))
    log = world.heap.arrays["log"][: int(world.heap.fields.log_used)]
    landed = world.heap.arrays["spans"]["spanclass"][log["arg"][log["kind"] == LOG_OBJECT] >> 16]
    objects = find_objects(trace)
    own = (objects.block == np.arange(len(objects.row))) & (trace.kind[objects.row] == t.OBJECT_ALLOC)
    wanted = objects.spanclass[own & (trace.g[objects.row] >= 0)]
    if FEW is not None:
        wanted = wanted[: len(landed)]
    excess = np.bincount(landed, minlength=136) - np.bincount(wanted, minlength=136)
    assert 0 <= excess[TINY] <= 2  # of blocks begun before the trace, where the run has none to combine into
    excess[TINY] = 0
    assert not excess.any()
    if name == NAMES[0]:  # one P, no collection, hardly any blocking: all of them in the very order
        assert np.array_equal(landed, wanted)


@pytest.mark.skipif(PLAIN, reason="whole traces")
@pytest.mark.parametrize("name", NAMES)
def test_simulated_time_is_of_the_order_of_the_recorded(name):
    """With made-up prices; what is left out (collector, tracing) makes it shorter."""
    trace = read_trace(trace_path(name))
    program = build(trace)
    world = World("go1.27", trace.gomaxprocs, made_up_prices(), 1, gogc=-1)
    player = Player(world, program)
    player.start()
    world.run(until=player.done)
    assert 0.6 < world.now / 1e12 / program.figures[RECORDED] < 1.1


class Ordered(Player):
    """Checks, while it plays, that no goroutine passes a wait before its event has been fired."""

    def __init__(self, world, program):
        super().__init__(world, program)
        self.fired = set()
        self.order = []

    def _event(self, number):
        event = super()._event(number)
        event.callbacks = (
            event.callbacks if event.callbacks is None else [*event.callbacks, lambda _: self.fired.add(number)]
        )
        return event

    def _play(self, g, i):
        self.order.append(i)
        inner, value = super()._play(g, i), None
        while True:
            try:
                event = inner.send(value)
            except StopIteration:
                return
            step = self.program.steps[self._passed[i] - 1] if self._passed[i] > self.program.first[i] else None
            value = yield event
            if step is not None and step["kind"] == item.WAIT and not hasattr(event, "ops"):
                assert int(step["arg"]) in self.fired


def test_wake_ups_and_births_of_a_run_are_causal():
    program = build(read_trace(trace_path(NAMES[1])), FEW)
    _, player = play(program, 1, Ordered)
    assert player.done.processed
    assert len(player.fired) == program.events > (0 if PLAIN else 70)
    assert sorted(player.order) == list(range(len(program.starts)))
    parent = {
        int(step["arg"]): int(np.searchsorted(program.first, k, "right")) - 1
        for k, step in enumerate(program.steps)
        if step["kind"] == item.CREATE
    }
    place = {i: at for at, i in enumerate(player.order)}
    assert all(place[child] > place[one] for child, one in parent.items())


def test_an_event_that_nobody_fires_would_be_found():
    program = build(read_trace(trace_path(NAMES[1])), FEW)
    steps = program.steps.copy()
    fires = np.flatnonzero(steps["kind"] == item.FIRE)
    if not len(fires):
        pytest.skip("the cut trace wakes nobody")
    steps["kind"][fires[0]] = item.DONE
    _, player = play(replace(program, steps=steps), 1)
    assert not player.done.triggered


# Traces made by hand


def made(events, gomaxprocs=1):
    """A trace of (kind, g, a, b, c) or (nanoseconds, kind, ...), 100 ns apart where no time is given."""
    time, rows = -1, []
    for event in events:
        time = max(event[0], time + 1) if len(event) == 6 else time + 100
        rows.append((time, *event[-5:]))
    columns = np.array(rows, np.int64).reshape(-1, 6).T
    zero = np.zeros(columns.shape[1], np.int64)
    return t.Trace(
        time_ns=columns[0], kind=columns[1].astype(np.uint8), p=zero, m=zero, g=columns[2],
        a=columns[3], b=columns[4], c=columns[5], stack=zero.astype(np.int32),
        generation=np.array([1]), generation_start=np.array([0]), strings=("", "GC (dedicated)"),
        stack_start=np.array([0, 0]), frame_pc=zero[:0], frame_func=zero[:0], frame_file=zero[:0],
        frame_line=zero[:0], type_address=zero[:1], type_size=np.array([0, 40]), type_ptr_bytes=np.array([0, 8]),
        type_name=zero[:1], go_version="1.27", min_heap=0, page_size=8192, gomaxprocs=gomaxprocs, unknown={}, skipped={},
    )  # fmt: skip


def span(page, npages, spanclass):
    return (t.SPAN_ALLOC, 1, page, npages, 2 * spanclass)


def ops_of(program, i=0):
    return [(int(op["kind"]), int(op["arg"])) for op in operations_of(program, i)]


MALLOC_NS = TRACED_MALLOC // NS


def test_compute_is_the_time_on_a_p_without_what_the_runtime_does_itself():
    program = build(
        made(
            [
                (0, t.GO_STATUS, -1, 1, 0, 2),
                (1000, *span(0, 1, 9)),
                (1900, t.HEAP_ALLOC, 1, 8192, 0, 0),
                (1950, t.OBJECT_ALLOC, 1, 0, 0, 0),  # since its span was allocated it was in malloc
                (1960, t.OBJECT_ALLOC, 1, 4, 0, 0),  # faster than a traced malloc
                (2950, t.GO_STOP, 1, 0, 0, 0),  # preempted
                (7000, t.GO_START, -1, 1, 0, 0),
                (7100, t.STW_BEGIN, 1, 0, 0, 0),
                (9100, t.STW_END, 1, 0, 0, 0),
                (9200, t.ASSIST_BEGIN, 1, 0, 0, 0),
                (9700, t.ASSIST_END, 1, 0, 0, 0),
                (9800, t.SWEEP_BEGIN, 1, 0, 0, 0),
                (9900, t.SWEEP_END, 1, 0, 0, 0),
                (10_000, t.GO_SYSCALL_BEGIN, 1, 0, 0, 0),
                (13_000, t.GO_SYSCALL_END, 1, 0, 0, 0),  # kept its P
                (13_100, t.OBJECT_ALLOC, 1, 8, 0, 0),
                (13_200, t.GO_SYSCALL_BEGIN, 1, 0, 0, 0),
                (19_200, t.GO_SYSCALL_END_BLOCKED, 1, 0, 0, 0),
                (19_300, t.GO_START, -1, 1, 0, 0),
                (19_500, t.GO_DESTROY, 1, 0, 0, 0),
            ]
        )
    )
    on_p = 990 + 100 + 100 + 100 + 100 + 3000 + 100
    assert ops_of(program) == [
        *((COMPUTE, (1000 - MALLOC_NS) * NS), (ALLOC, 32), (ALLOC, 32)),
        *((COMPUTE, (on_p - MALLOC_NS) * NS), (ALLOC, 32), (COMPUTE, 100 * NS), (COMPUTE, 200 * NS)),
    ]
    assert program.steps.tolist() == [(item.SLEEP, 6000 * NS, 6), (item.DONE, 0, 7)]


def test_sizes_are_those_of_slots():
    heads = [span(0, 1, 2 * 5), span(1, 1, 2 * 30), span(3, 5, 0), span(8, 3, 1), span(11, 1, 2 * 5 + 1)]
    objects = [(0, 1), (1024 + 1, 0), (3 * 1024, 1), (8 * 1024, 0), (11 * 1024, 0), (50_000, 0)]
    program = build(made(heads + [(t.OBJECT_ALLOC, 1, a, b, 0) for a, b in objects]))
    ops = program.ops[program.ops["kind"] == ALLOC]
    big = int(class_to_size[30])
    assert big > 512
    assert ops["arg"].tolist() == [48, big - 8, 5 * 8192, 3 * 8192, 48, 16]  # the last lies in no span
    assert ops["ptr_bytes"].tolist() == [8, big - 8, (5 * 8192 // 40 - 1) * 40 + 8, 0, 0, 0]
    assert (ops["flags"] & NOSCAN).tolist() == [0, 0, 0, 1, 1, 1]
    assert (ops["flags"] & NEEDZERO > 0).tolist() == [True, False, True, False, False, False]
    assert program.figures["/sim/trace/unknown-size/mallocs:objects"] == 1


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 8)), min_size=1, max_size=20))
def test_tiny_blocks_fill_as_recorded(blocks):
    """A tiny allocator that is asked for these sizes makes one block for each recorded one."""
    events = [span(0, 1, TINY)]
    for i, (early, late) in enumerate(blocks):
        events += [(t.OBJECT_ALLOC, 1, 2 * i + half, 0, 0) for half, n in enumerate((early, late)) for _ in range(n)]
    program = build(made(events))
    sizes = program.ops["arg"][program.ops["kind"] == ALLOC].tolist()
    found, left = [], 16
    for size in sizes:
        align = 8 if size % 8 == 0 else 4 if size % 4 == 0 else 2 if size % 2 == 0 else 1
        start = -(-left // align) * align
        if size == 16 or start + size > 16:
            found.append([0, 0])
            start = 0
        found[-1][start >= 8] += 1
        left = start + size
    assert found == [list(block) for block in blocks]


def test_goroutines_start_wait_and_wake_as_recorded():
    program = build(
        made(
            [
                (0, t.GO_STATUS, -1, 1, 0, 2),
                (0, t.GO_STATUS, -1, 2, 0, 4),  # waits for 1
                (0, t.GO_STATUS, -1, 3, 0, 4),  # waits for nobody known
                (1, *span(0, 1, 9)),
                (100, t.OBJECT_ALLOC, 1, 0, 0, 0),
                (200, t.GO_CREATE, 1, 4, 0, 0),
                (300, t.GO_UNBLOCK, 1, 2, 0, 0),
                (400, t.GO_BLOCK, 1, 0, 0, 0),
                (500, t.GO_START, -1, 2, 0, 0),
                (600, t.GO_UNBLOCK, 2, 1, 0, 0),
                (700, t.GO_UNBLOCK, -1, 3, 0, 0),
                (800, t.GO_CREATE, -1, 5, 0, 0),
                (900, t.GO_UNBLOCK, 2, 4, 0, 0),  # is not blocked
                (950, t.GO_UNBLOCK, 2, 9, 0, 0),  # nothing is known of it
            ]
        )
    )
    steps = {
        int(name): program.steps[program.first[i] : program.first[i + 1]][["kind", "arg"]].tolist()
        for i, name in enumerate(program.names)
    }
    assert program.names.tolist() == [1, 2, 3, 4, 5, 9]
    assert steps[1] == [(item.CREATE, 3), (item.FIRE, 0), (item.WAIT, 1), (item.DONE, 0)]
    assert steps[2] == [(item.WAIT, 0), (item.FIRE, 1), (item.FIRE, 2), (item.DONE, 0)]
    assert steps[3] == [(item.SLEEP_ORPHAN, 698 * NS), (item.DONE, 0)]
    assert steps[4] == steps[5] == [(item.DONE, 0)]
    assert steps[9] == [(item.WAIT, 2), (item.DONE, 0)]
    assert program.starts.tolist() == [0, 0, 0, -1, 800 * NS, 0]
    assert (program.figures[ORPHANS], program.figures["/sim/trace/stray-wakeups:events"]) == (1, 1)


def test_goroutines_of_the_runtime_keep_their_mallocs_alone():
    trace = made(
        [
            (0, t.GO_STATUS, -1, 1, 0, 2),
            (1, *span(0, 1, 9)),
            (100, t.OBJECT_ALLOC, 1, 0, 0, 0),
            (200, t.GO_START, -1, 7, 0, 0),
            (210, t.GO_LABEL, 7, 1, 0, 0),
            (300, t.OBJECT_ALLOC, 7, 4, 0, 0),
            (900, t.GO_UNBLOCK, 7, 1, 0, 0),
            (950, t.GO_START, -1, 8, 0, 0),
            (960, t.GO_LABEL, 8, 1, 0, 0),
        ]
    )
    program = build(trace)
    assert program.names.tolist() == [1, 7]
    assert ops_of(program, 1) == [(ALLOC, 32)]
    assert program.steps[program.first[1] :]["kind"].tolist() == [item.DONE]
    assert program.figures["/sim/trace/left-out:goroutines"] == 1


def test_deaths_wait_for_a_goroutine_that_is_late():
    """2 allocates long after 1 has carried out the deaths, though it was recorded before: on another P it is slower."""
    events = [
        (0, t.GO_STATUS, -1, 1, 0, 2),
        (0, t.GO_STATUS, -1, 2, 0, 2),
        (1, *span(0, 1, 9)),
        (500_000, t.OBJECT_ALLOC, 2, 0, 0, 0),
        (500_010, t.OBJECT_ALLOC, 1, 4, 0, 0),
        (500_020, t.GC_END, -1, 0, 0, 0),
        (500_030, t.OBJECT_ALLOC, 1, 8, 0, 0),
        (500_040, t.OBJECT_FREE, -1, 0, 0, 0),
        (500_050, t.OBJECT_FREE, -1, 4, 0, 0),
    ]
    program = build(made(events))
    ops = program.ops.copy()
    ops["arg"][np.flatnonzero(ops["kind"] == COMPUTE)[0]] = 0  # goroutine 1 is fast
    for procs in (1, 2):
        world, player = play(replace(program, ops=ops), procs)
        assert player.done.processed
        assert int(world.heap.fields.live_objects) == 1


def test_a_limit_of_mallocs_cuts_the_trace_off(recorded):
    trace, program = recorded
    cut = build(trace, 50)
    assert cut.mallocs == int((cut.ops["kind"] == ALLOC).sum()) == 50
    for name in cut.names.tolist():
        mine, whole = (classes_of(one, one.names.tolist().index(name)) for one in (cut, program))
        assert mine == whole[: len(mine)]
    assert build(trace, 10**9).figures == program.figures


KINDS = [k for k in range(t.GC_BEGIN, len(t.KIND_NAMES)) if k != t.GO_LABEL] + 3 * [
    *(t.OBJECT_ALLOC, t.OBJECT_FREE, t.GO_BLOCK, t.GO_UNBLOCK, t.GO_CREATE, t.GO_START, t.GO_SWITCH, t.GC_END),
]


@settings(max_examples=30 if PLAIN else 200, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.integers(-1, 4), st.integers(0, 5), st.integers(0, 1), st.integers(1, 4)),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 3),
)
def test_no_order_of_events_deadlocks_or_loses_a_malloc(events, procs):
    """Anything may unblock anything at any time, ids may be born twice: it runs to its end all the same."""
    trace = made([span(0, 1, 5), (t.OBJECT_ALLOC, 1, 1000, 0, 0), *events])
    program = build(trace)
    assert program.mallocs == int(((trace.kind == t.OBJECT_ALLOC) & (trace.g >= 0)).sum())
    world, player = play(program, procs)
    assert player.done.processed
    assert int(world.heap.arrays["procs"]["mallocs"].sum()) == program.mallocs
    assert int(world.heap.fields.live_objects) == program.mallocs + len(program.inherited) - len(program.deaths)


# Stacks


def stacks(*events):
    """Depths told by stack events (kind, goroutine, stack id, log of its size) on one thread."""
    trace = made([(t.GO_STATUS, -1, 1, 0, 2), *((kind, g, a, log + 1, 0) for kind, g, a, log in events)])
    return [(int(row), int(g), int(depth)) for row, g, depth in zip(*find_depths(trace, len(trace.kind)), strict=True)]


def test_a_stack_that_doubles_was_full_and_one_that_halves_hardly_used():
    """Rows count from the status at 0. Beyond 4 KiB; a third of the way to what follows a grown one is taken as 3/4 full."""
    filler = [(t.STACK_ALLOC, 9, 90 + i, 11) for i in range(6)]  # others' stacks, which tell nothing
    found = stacks(
        *((t.STACK, -1, 1, 12), (t.STACK_ALLOC, 1, 2, 13), (t.STACK_FREE, 1, 1, 0), *filler),  # rows 1 to 9
        *((t.STACK_ALLOC, 7, 3, 12), (t.STACK_FREE, 7, 2, 0)),  # rows 10, 11: a worker halves it
    )
    assert found == [(2, 1, 4096), (2 + (10 - 2) // 3, 1, 6144), (2 + (10 - 2) * 2 // 3, 1, 1024)]


def test_a_stack_replaced_by_one_of_another_size_tells_nothing():
    assert stacks((t.STACK, -1, 1, 12), (t.STACK_ALLOC, 1, 2, 14), (t.STACK_FREE, 1, 1, 0)) == []
    assert stacks((t.STACK, -1, 1, 12), (t.STACK_ALLOC, 1, 2, 12), (t.STACK_FREE, 1, 1, 0)) == []
    assert stacks((t.STACK, -1, 1, 12), (t.STACK_ALLOC, 7, 2, 11), (t.STACK_FREE, 7, 1, 0)) == []  # nobody knows whose


@pytest.mark.skipif(PLAIN, reason="a whole trace")
def test_goroutines_use_their_stacks_as_far_as_told(monkeypatch):
    trace = read_trace(trace_path("test-encoding_json-code-P1-gogc_default"))
    used, told = defaultdict(list), defaultdict(list)
    original = Goroutine.use_stack

    def use_stack(g, nbytes):
        used[g.label].append(nbytes)
        return original(g, nbytes)

    monkeypatch.setattr(Goroutine, "use_stack", use_stack)
    program = build(trace)
    world, _ = play(program, 1)
    for _, g, depth in zip(*find_depths(trace, len(trace.kind)), strict=True):
        told[f"goroutine/{g}"].append(int(depth))
    assert used and all(depths == told[name][: len(depths)] for name, depths in used.items())  # none after its last event
    assert max(map(max, used.values())) >= 16384
    check_heap(world.heap)


# The heap at the start


def test_the_heap_at_the_start_is_told_less_what_the_first_refill_or_large_object_adds():
    """The metric comes after it; the program allocates it again."""
    snapshot = [(t.SPAN, -1, 0, 1, 2 * 18), *((t.OBJECT, -1, 14 * i, 0, 0) for i in range(7))]
    large = [span(8, 384, 1), (t.HEAP_ALLOC, 1, 3_145_728 + 1_008_000, 0, 0), (t.OBJECT_ALLOC, 1, 8 * 1024, 0, 0)]
    assert build(made([*snapshot, *large])).start.heap_live == 1_008_000
    refill = [(t.HEAP_ALLOC, 1, 1_000_000, 0, 0), (t.OBJECT_ALLOC, 1, 14 * 7, 0, 0)]
    assert build(made([*snapshot, *refill])).start.heap_live == 1_000_000 - (8192 - 7 * 112)
    assert build(made([*snapshot, (t.OBJECT_ALLOC, 1, 14 * 7, 0, 0)])).start.heap_live == 0


def test_a_run_on_fewer_ps_than_recorded_has_the_caches_of_those_there_are():
    trace = read_trace(trace_path(NAMES[2]))
    program = build(trace, FEW)
    program.start.spans["cached_by"] = np.where(program.start.spans["spanclass"] > 1, 5, -1)
    world, player = play(program, 2)
    assert player.done.processed
    check_heap(world.heap)


def test_wake_ups_of_a_recorded_collection_are_no_strays():
    """A goroutine that waited for a cycle's end, or in its assist, is woken by the collector; the simulated one does that."""
    for name in NAMES:
        assert build(read_trace(trace_path(name))).figures["/sim/trace/stray-wakeups:events"] == 0
