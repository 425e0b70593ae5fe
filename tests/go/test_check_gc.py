"""Each invariant of a cycle is broken on purpose and noticed; the shadow of live objects too."""

import numpy as np
import pytest

from sim.go import check_gc, gcwork
from sim.go.check_gc import CycleChecker, Slots, check_times, watch
from sim.go.state import GC_MARK, GC_OFF, SPAN_IN_USE, TINY_SPAN_CLASS
from sim.go.world import World
from sim.ops import ALLOC, DEAD, NOSCAN, OP
from sim.units import Throw
from tests.go.gc_program import Shadow
from tests.go.prices import made_up_prices

KEPT = 200


class Reached(Exception):
    """The stage that a test asked for."""


def worker(g, rounds):
    """Goroutine: replaces tiny, small and large objects, drops some, and asks for a collection now and then."""
    ops = np.zeros(3 * KEPT, OP)
    for i in range(KEPT):
        size = (5, 24, 600, 3000, 40_000 if i % 50 == 3 else 100)[i % 5]
        ops[3 * i] = (ALLOC, NOSCAN if i % 2 else 0, i, size, 0 if i % 2 else 8)
        ops[3 * i + 1] = (ALLOC, NOSCAN, -1, 64, 0)
        ops[3 * i + 2] = (DEAD, 0, (7 * i) % KEPT if i % 3 else i, 0, 0)
    for _ in range(rounds):
        yield g.run(ops, KEPT)
        yield from g.world.gc.collect(g)
        yield from g.world.gc.collect(g)  # all that it marked is still to be swept


def at(stage, version="go1.27", nth=3):
    """A world stopped at a stage of its nth cycle, and what has checked it up to before that."""
    world = World(version, 2, made_up_prices(version), 1, gogc=10)
    checker = watch(world)

    def look(name):
        if name == stage and checker.stages[name] == nth - 1:
            raise Reached
        checker(name)

    world.gc.watcher = look
    worker_of = world.go(worker, 2 * nth)
    with pytest.raises(Reached):
        world.run(until=worker_of)
    return world, checker


def first(bits, slots):
    """Span and slot of the first bit that is set."""
    at = int(np.flatnonzero(bits)[0])
    word = int(bits[at])
    return int(slots.span[at]), 64 * int(slots.at[at]) + (word & -word).bit_length() - 1


def flip(world, name, s, slot):
    """Turn one bit of a span's bitmap round."""
    word = int(world.heap.arrays["spans"][name][s]) + slot // 64
    world.heap.arrays["words"][word] ^= np.uint64(1 << slot % 64)


def small(slots, bits):
    """Bits of spans that hold no tiny blocks."""
    tiny = slots.heap.arrays["spans"].spanclass[slots.span] == TINY_SPAN_CLASS
    return np.where(tiny, np.uint64(0), bits)


@pytest.fixture(scope="module")
def marking():
    return at("marking")[0]


def test_a_stage_that_nobody_broke_passes():
    for stage in ("swept", "marking", "marked", "sweeping"):
        world, checker = at(stage)
        checker(stage)
        assert checker.stages[stage] == 3
        assert world.sched.stopping


@pytest.mark.parametrize("kind", ["live", "dead", "free", "tiny"])
def test_wrong_marks_after_set_up_are_noticed(kind):
    world, checker = at("marking")
    slots = Slots(world.heap)
    if kind == "tiny":
        cache = next(c for c in world.heap.arrays["mcaches"] if c["tiny_span"])
        s, slot, match = int(cache["tiny_span"]), int(cache["tiny_slot"]), "is live, but not marked"
        flip(world, "mark_bits", s, slot)
    else:
        bits, match = {
            "live": (slots.allocated & ~slots.dead, "is live, but not marked"),
            "dead": (small(slots, slots.dead), "is marked, but free or dead"),
            "free": (np.where(slots.span == slots.span[0], ~slots.allocated, np.uint64(0)), "is marked, but free or dead"),
        }[kind]
        flip(world, "mark_bits", *first(bits, slots))
    with pytest.raises(Throw, match=match):
        checker("marking")


def test_set_up_outside_the_mark_phase_is_noticed(marking):
    marking.heap.fields.gc_phase = GC_OFF
    with pytest.raises(Throw, match="left phase 0"):
        check_gc.check_marking(marking.heap)
    marking.heap.fields.gc_phase = GC_MARK
    check_gc.check_marking(marking.heap)


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("live", "is live, but not marked"),
        ("free", "is marked, but free"),
        ("lost", "was marked and is not any more"),
        ("dead", "was dead before the cycle, but is marked"),
    ],
)
def test_wrong_marks_when_marking_is_over_are_noticed(kind, match):
    world, checker = at("marked")
    slots, before = Slots(world.heap), checker._slots
    arrays = world.heap.arrays
    if kind == "live":
        flip(world, "mark_bits", *first(slots.allocated & ~slots.dead, slots))
    elif kind == "free":
        flip(world, "mark_bits", *first(np.where(slots.span == slots.span[0], ~slots.allocated, np.uint64(0)), slots))
    elif kind == "lost":  # an object that died since, else it would be missed as a live one
        s, slot = first(before.marked, before)
        arrays["words"][int(arrays["spans"].dead_bits[s]) + slot // 64] |= np.uint64(1 << slot % 64)
        flip(world, "mark_bits", s, slot)
        world.heap.fields.bytes_marked -= arrays["spans"].elemsize[s]
    else:
        s, slot = first(small(before, before.dead & ~before.marked), before)
        flip(world, "mark_bits", s, slot)
        world.heap.fields.bytes_marked += arrays["spans"].elemsize[s]
        check = check_gc.check_page_marks
        with pytest.MonkeyPatch.context() as patch:  # whose bit may be missing now, which is not this test's matter
            patch.setattr(check_gc, "check_page_marks", lambda _: None)
            with pytest.raises(Throw, match=match):
                checker("marked")
        assert check is check_gc.check_page_marks
        return
    with pytest.raises(Throw, match=match):
        checker("marked")


@pytest.mark.parametrize("part", ["stack", "globals", "heap"])
def test_scan_work_left_is_noticed(part):
    world, checker = at("marked")
    world.heap.fields[f"{part}_scan_work"] -= 1
    with pytest.raises(Throw, match=f"bytes of {part} scan work are done"):
        checker("marked")


@pytest.mark.parametrize("who", ["mark_workers", "mark_assists", "idle_mark_workers"])
def test_who_still_marks_is_noticed(who):
    world, checker = at("marked")
    world.heap.fields[who] += 1
    with pytest.raises(Throw, match="still mark when marking is over"):
        checker("marked")


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("bg_scan_credit", 1, "bg_scan_credit says"),
        ("stolen_scan_work", 1, "bg_scan_credit says"),
        ("paid_scan_work", -1, "bg_scan_credit says"),
        ("returned_scan_work", 1, "bg_scan_credit says"),
        ("mark_unflushed", -1, "no credit yet"),
        ("assist_scan_work", 1000, "assists have done"),
        ("heap_scan_work", -(1 << 40), "the background has credit"),
    ],
)
def test_wrong_credit_is_noticed(name, change, match):
    world, _ = at("marked")
    check_gc.check_credit(world.heap)
    world.heap.fields[name] += change
    with pytest.raises(Throw, match=match):
        check_gc.check_credit(world.heap)


def test_wrong_bytes_marked_are_noticed(marking):
    marking.heap.fields.bytes_marked += 8
    with pytest.raises(Throw, match="bytes_marked says"):
        check_gc.check_bytes_marked(marking.heap)
    marking.heap.fields.bytes_marked -= 8


def test_wrong_page_marks_are_noticed(marking):
    pages = marking.heap.arrays["arenas"]["page_marks"][0]
    at = int(np.flatnonzero(pages)[0])
    word = int(pages[at])
    pages[at] = word & (word - 1)
    with pytest.raises(Throw, match="but its page is not marked"):
        check_gc.check_page_marks(marking.heap)
    pages[at] = word
    pages[127] |= np.uint64(1)
    with pytest.raises(Throw, match="pages are marked, .* of spans with marked objects"):
        check_gc.check_page_marks(marking.heap)
    pages[127] ^= np.uint64(1)
    check_gc.check_page_marks(marking.heap)


def test_a_sweep_that_is_not_over_is_noticed():
    world, checker = at("swept")
    heap = world.heap
    fields, arrays = heap.fields, heap.arrays
    check_gc.check_swept(heap)
    fields.sweep_drained = 0
    with pytest.raises(Throw, match="the sweep is not over"):
        check_gc.check_swept(heap)
    fields.sweep_drained, fields.sweepers = 1, 1
    with pytest.raises(Throw, match="the sweep is not over"):
        check_gc.check_swept(heap)
    fields.sweepers = 0
    unswept = 4 * 10 + 1 - (int(fields.sweepgen) >> 1 & 1)
    arrays["spansets"].pushed[unswept] += 1
    with pytest.raises(Throw, match=f"span set {unswept} still holds"):
        check_gc.check_swept(heap)
    arrays["spansets"].pushed[unswept] -= 1
    s = int(np.flatnonzero(arrays["spans"].state[: int(fields.nspans)] == SPAN_IN_USE)[0])
    generation = int(arrays["spans"].sweepgen[s])
    arrays["spans"].sweepgen[s] = int(fields.sweepgen) - 2
    with pytest.raises(Throw, match=f"span {s} in use has sweepgen"):
        check_gc.check_swept(heap)
    arrays["spans"].sweepgen[s] = generation
    arrays["mcaches"].flush_gen[1] -= 2
    with pytest.raises(Throw, match="cache is older"):
        check_gc.check_swept(heap)
    arrays["mcaches"].flush_gen[1] += 2
    fields.pages_swept += 1
    with pytest.raises(Throw, match="pages were swept"):
        checker("swept")


def test_a_heap_live_that_is_too_small_is_noticed():
    for stage, wanted in (("swept", "heap_live says"), ("sweeping", "heap_live says")):
        world, checker = at(stage)
        world.heap.fields.heap_live -= 1 << 20
        with pytest.raises(Throw, match=wanted):
            checker(stage)


def test_a_heap_live_that_is_not_what_was_marked_is_noticed_when_sweeping_begins():
    world, checker = at("sweeping")
    world.heap.fields.heap_live += 8
    with pytest.raises(Throw, match="bytes are marked, heap_live says"):
        checker("sweeping")


def test_picoseconds_too_many_or_negative_are_noticed(marking):
    p = marking.sched.procs[1]
    p._spent[0] += 1
    with pytest.raises(Throw, match="the times of P1 sum to"):
        check_times(marking)
    p._spent[0] -= 1
    p._spent[0], p._spent[1] = p._spent[0] + p._spent[1] + 1, -1
    with pytest.raises(Throw, match="P1 was -1 ps at lock"):
        check_times(marking)


def test_marking_that_ends_without_beginning_is_noticed():
    world, _ = at("marked")
    with pytest.raises(Throw, match="never began"):
        CycleChecker(world)("marked")


# --------------------------------------------------------------------- faults in the collector, not in its state


def collecting(monkeypatch, name, fault):
    """Run a program with one of the collector's steps replaced: ``fault(step, *args)``."""
    step = getattr(gcwork, name)
    monkeypatch.setattr(gcwork, name, lambda *args: fault(step, *args))
    world = World("go1.27", 2, made_up_prices(), 1, gogc=10)
    watch(world)
    world.run(until=world.go(worker, 4))


def test_a_sweep_left_undone_is_noticed(monkeypatch):
    monkeypatch.setattr(gcwork, "sweep_some", lambda *args: (0, 0))
    monkeypatch.setattr(gcwork, "is_sweep_done", lambda *args: 1)
    with pytest.raises(Throw, match="the sweep is not over"):
        collecting(monkeypatch, "finish_sweep_now", lambda step, *args: 0)


def test_a_cache_that_is_not_flushed_is_noticed(monkeypatch):
    with pytest.raises(Throw):
        collecting(monkeypatch, "flush_cache", lambda step, *args: 0)


def test_an_object_that_marking_misses_is_noticed(monkeypatch):
    def misses_one(step, header, *args):
        step(header, *args)
        heap = worlds[0].heap
        slots = Slots(heap)
        flip(worlds[0], "mark_bits", *first(small(slots, slots.marked), slots))

    worlds = []
    old = World.__init__

    def noted(self, *args, **options):
        old(self, *args, **options)
        worlds.append(self)

    monkeypatch.setattr(World, "__init__", noted)
    with pytest.raises(Throw, match="is live, but not marked"):
        collecting(monkeypatch, "begin_marking", misses_one)


# ------------------------------------------------------------------------------------------- the shadow


def holder(g, shadow):
    shadow.begin(g, range(20))
    ops = np.zeros(20, OP)
    for i in range(20):
        ops[i] = (ALLOC, NOSCAN, i, 64, 0)
    yield g.run(ops, 20)
    shadow.end(g)
    yield g.world.env.event()


@pytest.mark.parametrize("fault", ["none", "freed", "moved", "shared", "dead", "gone"])
def test_the_shadow_notices_a_live_object_that_is_not_left_alone(fault):
    world = World("go1.27", 1, made_up_prices(), 1)
    shadow = Shadow(world)
    g = world.go(holder, shadow)
    world.run()
    (s, slot, _), (_, other, _) = shadow.places[g, 3], shadow.places[g, 4]
    table, base = world.heap.arrays["variables"], world.roots._runs[g.id][0]
    span = world.heap.arrays["spans"][s]
    if fault == "none":
        shadow.check()
        return
    if fault == "freed":
        span["freeindex"] = 0
    elif fault == "moved":
        table[base + 3] += 1
    elif fault == "shared":
        table[base + 3] = s << 16 | other
        shadow.places[g, 3] = shadow.places[g, 4]
    elif fault == "dead":
        flip(world, "dead_bits", s, slot)
    else:
        span["state"] = 0
    with pytest.raises(AssertionError):
        shadow.check()
