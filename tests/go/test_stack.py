"""Stacks and dead goroutines against a plain model of the runtime's lists, every address; and by hand, rule by rule."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from sim.go.check import check_heap
from sim.go.params import VERSIONS
from sim.go.runtime import Heap
from sim.go.state import GC_MARK, GC_MARK_TERMINATION, GC_OFF
from sim.jit import PLAIN
from sim.units import Throw
from tests.go import stack_ops as ops
from tests.go.stack_model import GUARD, KIB, Goroutines, Stacks

SIZES = [2 * KIB, 4 * KIB, 8 * KIB, 16 * KIB]
NPROCS = 2
PS = st.integers(-1, NPROCS - 1)


def new_heap(version="go1.27", nprocs=NPROCS):
    heap = Heap(version, nprocs)
    heap.make_room(1 << 14)
    heap.tables.allocate("goroutines", 4096)
    return heap


def facts(heap):
    """What the last operations counted: locks of pools, spans made and given back, stacks copied and their bytes."""
    f = heap.fields
    names = ("fact_pool_locks", "fact_stack_spans", "fact_stack_frees", "fact_copies")
    found = (*(int(f[name]) for name in names), int(f.fact_copied.sum()))
    for name in names:
        f[name] = 0
    f.fact_copied[:] = 0
    return found


class Machine(RuleBasedStateMachine):
    version = "go1.27"

    def __init__(self):
        super().__init__()
        self.heap = new_heap(self.version)
        self.model = Stacks(NPROCS)
        self.gs = Goroutines(self.model, NPROCS)
        self.held = {}  # address -> bytes, of stacks no goroutine has

    def header(self):
        self.heap.make_room(1 << 12)
        return self.heap.header

    def same(self, answer, predict):
        """What the rooms answered is what the model predicts."""
        self.model.told = int(answer)
        assert predict() == int(answer)
        return int(answer)

    def row(self, g):
        row = self.heap.arrays["goroutines"][g]
        return (int(row["stack"]), int(row["stack_size"])), int(row["stack_used"])

    @rule(p=PS, size=st.sampled_from([*SIZES, 2 * KIB, 32 * KIB, 64 * KIB, 1024 * KIB]), count=st.integers(1, 12))
    def alloc(self, p, size, count):
        for _ in range(count if size < 64 * KIB else 1):
            address = self.same(ops.stackalloc(self.header(), p, size), lambda: self.model.alloc(p, size))
            assert self.held.setdefault(address, size) == size

    @precondition(lambda self: self.held)
    @rule(p=PS, first=st.integers(0, 1 << 10), step=st.sampled_from([1, 1, 3]), count=st.integers(1, 30))
    def free(self, p, first, step, count):
        addresses = list(self.held)
        for address in addresses[first % len(addresses) :: step][:count]:
            size = self.held.pop(address)
            ops.stackfree(self.header(), p, address, size)
            self.model.free(p, address, size)

    @rule(p=st.integers(0, NPROCS - 1))
    def flush(self, p):
        ops.flush(self.header(), p)
        self.model.clear(p)

    @rule(phase=st.sampled_from([GC_OFF, GC_MARK, GC_MARK_TERMINATION]))
    def turn(self, phase):
        ended = self.model.gc and phase == GC_OFF
        self.heap.fields.gc_phase = phase
        self.model.gc = phase != GC_OFF
        if ended:
            ops.free_stack_spans(self.header(), 0)
            self.model.free_spans()

    @rule(p=PS, count=st.integers(1, 70))
    def go(self, p, count):
        for _ in range(count):
            g = int(ops.newproc(self.header(), p))
            self.model.told = self.row(g)[0][0]
            assert self.gs.start(p) == g

    @precondition(lambda self: self.gs.used)
    @rule(p=PS, first=st.integers(0, 1 << 10), count=st.integers(1, 70))
    def exit(self, p, first, count):
        alive = list(self.gs.used)
        for g in alive[first % len(alive) :][:count]:
            ops.goexit(self.header(), p, g)
            self.gs.end(p, g)

    @precondition(lambda self: self.gs.used)
    @rule(p=PS, which=st.integers(0, 1 << 10), nbytes=st.one_of(st.integers(1, 5000), st.integers(1, 60000)))
    def grow(self, p, which, nbytes):
        g = list(self.gs.used)[which % len(self.gs.used)]
        while nbytes + GUARD > self.gs.stack[g][1]:  # one doubling at a time, so that each address is told
            size = self.gs.stack[g][1]
            ops.use_stack(self.header(), p, g, size - GUARD + 1)
            self.model.told = self.row(g)[0][0]
            self.gs.move(p, g, 2 * size)
        ops.use_stack(self.header(), p, g, nbytes)
        self.gs.used[g] = nbytes

    @precondition(lambda self: self.gs.used)
    @rule(p=PS)
    def scan_all(self, p):
        for g in list(self.gs.used):
            assert ops.scan_stack(self.header(), p, g) == self.gs.used[g]
            self.model.told = self.row(g)[0][0]
            self.gs.scan(p, g)
        ops.compute_starting_size(self.header())
        self.gs.new_starting_size()

    @rule(p=PS)
    def free_dead(self, p):
        ops.free_dead_stacks(self.header(), p)
        self.gs.free_dead(p)

    @invariant()
    def agree(self):
        fields = self.heap.fields
        assert int(fields.stacks_in_use) == self.model.in_use
        assert int(fields.starting_stack_size) == self.gs.starting
        for g in range(1, self.gs.made + 1):
            assert self.row(g) == (self.gs.stack.get(g, (0, 0)), self.gs.used.get(g, 0))
        whole = sum(size for g, (_, size) in self.gs.stack.items() if g in self.gs.used)
        assert tuple(ops.stack_work(self.heap.header)) == (whole, sum(self.gs.used.values()))
        check_heap(self.heap, self.held)


@pytest.mark.parametrize("version", list(VERSIONS))
def test_every_address_is_the_models(version):
    class Chosen(Machine):
        pass

    Chosen.version = version
    examples, steps = (6, 30) if PLAIN else (12, 60)
    run_state_machine_as_test(
        Chosen,
        settings=settings(
            max_examples=examples, stateful_step_count=steps, derandomize=True, deadline=None, database=None
        ),
    )


# ---------------------------------------------------------------------------------------------------- by hand


def base_of(heap, address):
    span = int(heap.arrays["page_span"][(address >> 13) % 8192])
    return int(heap.arrays["spans"].start_page[span]) << 13


@pytest.mark.parametrize("size", SIZES)
def test_a_cache_takes_16_kib_from_a_pool_and_hands_out_the_last_first(size):
    heap = new_heap()
    n = 16 * KIB // size
    first = [int(ops.stackalloc(heap.header, 0, size)) for _ in range(n)]
    base = base_of(heap, first[0])
    assert first == [base + 16 * KIB + i * size for i in range(n)]  # the highest of the span were taken first
    assert facts(heap) == (1, 1, 0, 0, 0)
    assert int(ops.stackalloc(heap.header, 0, size)) == base  # the lower half of the span
    assert facts(heap) == (1, 0, 0, 0, 0)


@pytest.mark.parametrize("size", SIZES)
def test_a_cache_of_32_kib_gives_half_back_before_it_takes_another(size):
    heap = new_heap()
    n = 32 * KIB // size
    stacks = [int(ops.stackalloc(heap.header, -1, size)) for _ in range(n + 1)]
    facts(heap)
    cached = heap.arrays["mcaches"].stackcache_size[0]
    for address in stacks[:-1]:
        ops.stackfree(heap.header, 0, address, size)
    assert (facts(heap), int(cached.sum())) == ((0, 0, 0, 0, 0), 32 * KIB)
    ops.stackfree(heap.header, 0, stacks[-1], size)
    assert (facts(heap)[0], int(cached.sum())) == (1, 16 * KIB + size)
    check_heap(heap)


def test_without_a_p_stacks_come_from_the_pool_one_by_one_from_the_top():
    heap = new_heap()
    stacks = [int(ops.stackalloc(heap.header, -1, 8 * KIB)) for _ in range(4)]
    base = base_of(heap, stacks[0])
    assert stacks == [base + 24 * KIB, base + 16 * KIB, base + 8 * KIB, base]
    assert facts(heap) == (4, 1, 0, 0, 0)
    for address in stacks:
        ops.stackfree(heap.header, -1, address, 8 * KIB)
    assert facts(heap) == (4, 0, 1, 0, 0) and int(heap.fields.stacks_in_use) == 0


@pytest.mark.parametrize("size", [2 * KIB, 32 * KIB, 256 * KIB])
def test_while_the_collector_runs_spans_stay_until_the_end(size):
    heap = new_heap()
    address = int(ops.stackalloc(heap.header, -1, size))
    span = max(size, 32 * KIB)
    heap.fields.gc_phase = GC_MARK
    ops.stackfree(heap.header, -1, address, size)
    assert (int(heap.fields.stacks_in_use), facts(heap)[2]) == (span, 0)
    assert int(ops.stackalloc(heap.header, -1, size)) == address  # and can be had again
    ops.stackfree(heap.header, -1, address, size)
    heap.fields.gc_phase = GC_OFF
    ops.free_stack_spans(heap.header, 0)
    assert (int(heap.fields.stacks_in_use), facts(heap)[2]) == (0, 1)
    check_heap(heap)


def test_growth_doubles_copies_what_the_stack_held_and_frees_the_old_one():
    heap = new_heap()
    g = int(ops.newproc(heap.header, 0))
    facts(heap)
    ops.use_stack(heap.header, 0, g, 2 * KIB - GUARD)  # fits
    assert facts(heap)[3:] == (0, 0)
    ops.use_stack(heap.header, 0, g, 17 * KIB)
    row = heap.arrays["goroutines"][g]
    assert (int(row["stack_size"]), int(row["stack_used"])) == (32 * KIB, 17 * KIB)
    assert facts(heap)[3:] == (4, sum(size * KIB - GUARD for size in (2, 4, 8, 16)))
    check_heap(heap)


@pytest.mark.parametrize(
    ("size", "used", "after"),
    [
        (16, 16 * KIB // 4 - 800, 16),
        (16, 16 * KIB // 4 - 801, 8),
        (4, 223, 2),
        (4, 224, 4),
        (2, 1, 2),  # never below 2 KiB
    ],
)
def test_a_scanned_stack_of_which_less_than_a_quarter_is_used_is_halved(size, used, after):
    heap = new_heap()
    g = int(ops.newproc(heap.header, 0))
    ops.use_stack(heap.header, 0, g, size * KIB - GUARD)
    ops.use_stack(heap.header, 0, g, used)
    assert ops.scan_stack(heap.header, 0, g) == used
    assert int(heap.arrays["goroutines"][g]["stack_size"]) == after * KIB
    assert ops.shrink_stack(heap.header, 0, g) == int(after > 2 and used + 800 < after * KIB // 4)
    check_heap(heap)


@pytest.mark.parametrize(
    ("used", "starting"),
    [((), 2), ((100,), 2), ((1120,), 2), ((1121,), 4), ((100, 6000), 4), ((7000, 7300), 8), ((7264,), 8), ((7265,), 16)],
)
def test_goroutines_begin_with_what_the_scanned_ones_used_on_average(used, starting):
    heap = new_heap()
    for nbytes in used:
        g = int(ops.newproc(heap.header, 0))
        ops.use_stack(heap.header, 0, g, nbytes)
        ops.scan_stack(heap.header, 0, g)
    ops.compute_starting_size(heap.header)
    assert int(heap.fields.starting_stack_size) == starting * KIB
    fresh = int(ops.newproc(heap.header, 0))  # a new g begins with 2 KiB whatever others do
    assert int(heap.arrays["goroutines"][fresh]["stack_size"]) == 2 * KIB
    ops.goexit(heap.header, 0, fresh)
    again = int(ops.newproc(heap.header, 0))
    assert again == fresh and int(heap.arrays["goroutines"][again]["stack_size"]) == starting * KIB
    check_heap(heap)


def test_a_stack_over_a_thousand_million_bytes_is_the_end():
    heap = new_heap()
    heap.make_room(1 << 18)
    g = int(ops.newproc(heap.header, 0))
    ops.use_stack(heap.header, 0, g, 512 * KIB * KIB - GUARD)
    with pytest.raises(Throw, match="goroutine stack exceeds 1000000000-byte limit"):
        ops.use_stack(heap.header, 0, g, 512 * KIB * KIB - GUARD + 1)


def test_the_64th_dead_goroutine_of_a_p_sends_33_to_the_global_list():
    heap = new_heap()
    gs = [int(ops.newproc(heap.header, 0)) for _ in range(64)]
    for g in gs[:63]:
        ops.goexit(heap.header, 0, g)
    assert (int(heap.arrays["procs"]["gfree_n"][0]), int(heap.fields.gfree_global)) == (63, 0)
    ops.goexit(heap.header, 0, gs[63])
    assert (int(heap.arrays["procs"]["gfree_n"][0]), int(heap.fields.gfree_global)) == (31, 33)
    assert [int(ops.newproc(heap.header, 0)) for _ in range(2)] == [gs[30], gs[29]]  # its own, the last dead first
    assert int(ops.newproc(heap.header, 1)) == gs[62]  # the other P takes 32 of the global list, and the last of them
    assert (int(heap.arrays["procs"]["gfree_n"][1]), int(heap.fields.gfree_global)) == (31, 1)
    check_heap(heap)


def test_a_collection_frees_the_stacks_of_the_global_dead_who_go_before_those_that_have_none():
    heap = new_heap()
    gs = [int(ops.newproc(heap.header, 0)) for _ in range(5)]
    for g in gs[:2]:  # no stack of the size that goroutines begin with: none is kept
        ops.use_stack(heap.header, 0, g, 3 * KIB)
    for g in gs:
        ops.goexit(heap.header, -1, g)
    ops.free_dead_stacks(heap.header, 0)
    assert [int(heap.arrays["goroutines"][g]["stack"]) for g in gs] == [0] * 5
    assert [int(ops.newproc(heap.header, -1)) for _ in range(6)] == [gs[4], gs[3], gs[2], gs[1], gs[0], 6]
    check_heap(heap)


@pytest.mark.parametrize(
    ("size", "problem"),
    [(2049, "not a power of 2"), (1024, "not a power of 2"), (0, "not a power of 2"), (3 * KIB, "not a power of 2")],
)
def test_sizes_that_are_none(size, problem):
    with pytest.raises(Throw, match=problem):
        ops.stackalloc(new_heap().header, 0, size)


def test_frees_of_what_is_no_stack_are_refused():
    heap = new_heap()
    address = int(ops.stackalloc(heap.header, -1, 2 * KIB))
    for wrong, size, problem in (
        (address, 4 * KIB, "of its size"),
        (address + (1 << 30), 2 * KIB, "not in a stack span"),
    ):
        with pytest.raises(Throw, match=problem):
            ops.stackfree(heap.header, -1, wrong, size)
    ops.stackfree(heap.header, -1, address, 2 * KIB)
    with pytest.raises(Throw, match="not in a stack span"):  # its span went back to the heap with it
        ops.stackfree(heap.header, -1, address, 2 * KIB)


# ---------------------------------------------------------------------------------------------------- invariants, broken


def full_heap():
    """Goroutines alive and dead, stacks cached, in pools and in stackLarge."""
    heap = new_heap()
    gs = [int(ops.newproc(heap.header, 0)) for _ in range(100)]
    ops.use_stack(heap.header, 0, gs[0], 40 * KIB)
    ops.use_stack(heap.header, 1, gs[1], 3 * KIB)
    for g in gs[10:]:
        ops.goexit(heap.header, 1, g)
    heap.fields.gc_phase = GC_MARK
    ops.stackfree(heap.header, 0, int(ops.stackalloc(heap.header, 0, 64 * KIB)), 64 * KIB)
    check_heap(heap)
    return heap


def pool_span(heap):
    return heap.arrays["spans"][int(heap.fields.stackpool[0])]


def _word(heap, offset, value):
    heap.arrays["words"][int(pool_span(heap).alloc_bits) + offset] = value


def _set(record, field, value):
    record[field] = value


BREAKS = {
    "used by two": (
        lambda h: _set(h.arrays["goroutines"][4], "stack", h.arrays["goroutines"][3]["stack"]),
        "is held by goroutine 3 and goroutine 4",
    ),
    "lost": (lambda h: _set(h.arrays["goroutines"][10 + 60], "stack", 0), "are known"),
    "no stack": (lambda h: _set(h.arrays["goroutines"][2], "stack", 0xC000000000 + (60 << 20)), "is none of a span of stacks"),
    "between two": (
        lambda h: _set(h.arrays["goroutines"][2], "stack", int(h.arrays["goroutines"][2]["stack"]) + 8),
        "is none of a span of stacks",
    ),
    "cache size": (lambda h: _set(h.arrays["mcaches"][0], "stackcache_size", [0, 0, 0, 0]), "caches .* stacks of"),
    "count": (lambda h: _set(pool_span(h), "alloc_count", 1), "free stacks of 16, alloc_count 1"),
    "pool's link": (lambda h: _word(h, 1, 77), "stands wrongly in the list of stack pool 0"),
    "empty in the pool": (lambda h: _word(h, 0, 0), "has no free stack but is in the list of stack pool 0"),
    "out of the pool": (lambda h: h.fields.stackpool.__setitem__(0, 0), "are known"),
    "large in a wrong list": (
        lambda h: (h.fields.stack_large.__setitem__(9, h.fields.stack_large[4]), h.fields.stack_large.__setitem__(4, 0)),
        "stands wrongly in list 9 of large stacks",
    ),
    "large twice": (
        lambda h: _set(h.arrays["spans"][int(h.fields.stack_large[4])], "next", int(h.fields.stack_large[4])),
        "stands wrongly in list 4",
    ),
    "frames": (lambda h: _set(h.arrays["goroutines"][3], "stack_used", 2 * KIB), "goroutine 3 has frames of 2048 bytes"),
    "scannable": (lambda h: _set(h.fields, "max_stack_scan", 1), "max_stack_scan"),
    "dead count": (lambda h: _set(h.arrays["procs"][1], "gfree_n", 5), "not what their counts say"),
    "global count": (lambda h: _set(h.fields, "gfree_global", 5), "not what their counts say"),
    "alive among the dead": (lambda h: _set(h.arrays["procs"][0], "gfree", 2), "stands wrongly among P0's dead"),
    "in the wrong list": (
        lambda h: (_set(h.fields, "gfree_nostack", h.fields.gfree_stack), _set(h.fields, "gfree_stack", 0)),
        "stands wrongly among dead ones without",
    ),
    "forgotten": (
        lambda h: (_set(h.arrays["procs"][1], "gfree", 0), _set(h.arrays["procs"][1], "gfree_n", 0)),
        "in no list",
    ),
}


@pytest.mark.parametrize("what", list(BREAKS))
def test_a_broken_invariant_is_found(what):
    heap = full_heap()
    break_it, problem = BREAKS[what]
    break_it(heap)
    with pytest.raises(Throw, match=problem):
        check_heap(heap)


def test_a_stack_nobody_has_is_missed_and_one_of_two_holders_is_told():
    heap = full_heap()
    address = int(ops.stackalloc(heap.header, 0, 16 * KIB))
    with pytest.raises(Throw, match="are known"):
        check_heap(heap)
    check_heap(heap, {address: 16 * KIB})
    with pytest.raises(Throw, match="is held by"):
        check_heap(heap, {address: 16 * KIB, int(heap.arrays["goroutines"][3]["stack"]): 2 * KIB})
