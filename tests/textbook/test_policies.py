"""Each policy and order of insertion against the slow model: the same blocks, the same steps, one operation at a time."""

import numpy as np
import pytest

from sim.jit import PLAIN
from sim.ops import ALLOC, COMPUTE, DEAD, NO_OBJ, OP, SHARED
from sim.textbook.check import check
from sim.textbook.heap import POLICIES, Textbook
from sim.units import Throw
from tests.textbook.oracle import oracle

KINDS = [(policy, order) for policy in POLICIES for order in ("address", "lifo") if policy != "bump"] + [("bump", None)]
OPERATIONS = 1_500 if PLAIN else 20_000


def facts_of(heap):
    """What the rooms say has happened, by the names that the slow model uses."""
    names = [name for name in heap.fields.dtype.names if name.startswith("fact_")]
    return {name.removeprefix("fact_"): int(heap.fields[name]) for name in names}


def sizes(rng, n):
    """Small ones, ones of every magnitude, and the edges of everything that rounds."""
    edges = np.array([0, 1, 4, 5, 8, 9, 23, 24, 25, 40, 41, 1008, 1016, 1023, 1024, 1025, 4087, 4088, 20_000])
    kinds = [rng.integers(0, 200, n), np.exp(rng.uniform(0, np.log(20_000), n)).astype(np.int64), rng.choice(edges, n)]
    return np.choose(rng.integers(0, 3, n), kinds)


@pytest.mark.parametrize("align", [8, 16, 64])
@pytest.mark.parametrize(("policy", "order"), KINDS)
def test_the_same_blocks_and_steps_as_the_slow_model(policy, order, align):
    """In waves: the heap fills, is churned at random, and is emptied from one end, from the other, or at random."""
    rng = np.random.default_rng([align, *policy.encode()])
    heap, model = Textbook(policy, order, align_bytes=align, grow_bytes=8192), oracle(policy, order, align, 8192)
    held, share = [], 0.5
    for i, size in enumerate(sizes(rng, OPERATIONS).tolist()):
        if i % 100 == 0:
            wave = rng.integers(6)
            share = (0.9, 0.5, 0.5, 0.2, 0.1, 0.0 if rng.random() < 0.3 else 0.5)[wave]
        if not held or (rng.random() < share and len(held) < 400):
            obj = heap.malloc(size)
            block, at = model.malloc(size)
            assert heap.address(obj) == at
            held.append((obj, block))
        else:
            obj, block = held.pop({3: 0, 4: -1}.get(wave, rng.integers(len(held))))
            heap.free(obj)
            model.free(block)
        facts = facts_of(heap)
        assert facts == {name: model.facts[name] for name in facts}, i
        if i % (OPERATIONS // 20) == 0:
            check(heap)
    assert int(heap.fields.arena_bytes) == model.arena()
    told = {name for name, value in facts_of(heap).items() if value}
    general = {"visited", "splits", "coalesced", "growths", "grown"} | ({"passed"} if order == "address" else set())
    wanted = {"bump": {"growths", "grown", "resets"}, "segregated-fit": general | {"runs", "carved"}}
    assert told == wanted.get(policy, general)


def batch(rng, n, variables):
    ops = np.zeros(n, OP)
    ops["kind"] = rng.choice([ALLOC, DEAD, COMPUTE], n, p=[0.55, 0.4, 0.05])
    ops["obj"] = rng.integers(0, variables, n)
    ops["obj"][rng.random(n) < 0.01] = NO_OBJ
    ops["flags"] = np.where(rng.random(n) < 0.2, SHARED, 0)
    ops["arg"] = sizes(rng, n)
    return ops


@pytest.mark.parametrize(("policy", "order"), KINDS)
def test_batches_of_threads_are_the_same_operations(policy, order):
    """Variables of two threads and shared ones, whose number grows; what a variable held is freed after it is assigned."""
    rng = np.random.default_rng([7, *policy.encode()])
    heap, model = Textbook(policy, order, nthreads=2), oracle(policy, order, 16, 128 << 10)
    held = {}
    for variables in (10, 40, 80, 400, 400):
        for t in (1, 0):
            ops = batch(rng, OPERATIONS // 10, variables)
            wanted = []
            for kind, flags, obj, size, _ in ops.tolist():
                block, at = model.malloc(size) if kind == ALLOC else (None, -1)
                wanted.append(at)
                if kind != COMPUTE and obj != NO_OBJ:
                    before = held.pop((flags or t, obj), None)
                    if before is not None:
                        model.free(before)
                    if kind == ALLOC:
                        held[flags or t, obj] = block
            assert heap.run_ops(t, ops).tolist() == wanted
            check(heap)
    facts = facts_of(heap)
    assert facts == {name: model.facts[name] for name in facts}


def test_a_batch_may_make_more_objects_than_there_are_records():
    heap = Textbook("first-fit", "lifo")
    ops = np.zeros(12_000, OP)
    ops["obj"], ops["arg"] = NO_OBJ, 100
    before = len(heap.arrays["blocks"])
    steps = np.unique(np.diff(heap.run_ops(0, ops)))
    assert steps.tolist() == [112, 128]  # what is left at the end of a growth may be too short to be split off
    assert len(heap.arrays["blocks"]) > before and heap.fields.live_objects == 12_000
    check(heap)


@pytest.mark.parametrize(("policy", "order"), KINDS)
def test_what_is_not_live_is_not_freed(policy, order):
    heap = Textbook(policy, order)
    first, second = heap.malloc(24), heap.malloc(3000)
    heap.free(first)
    again = heap.malloc(24)
    for obj in (first, 0, -1, 1 << 32, second + 1000, second + (1 << 32)):
        with pytest.raises(Throw, match=f"^{obj} is no live object: never given out, or freed before$"):
            heap.free(obj)
        with pytest.raises(Throw, match="is no live object"):
            heap.address(obj)
    heap.free(second)
    with pytest.raises(Throw, match="is no live object"):
        heap.free(second)
    heap.free(again)
    assert heap.fields.live_objects == heap.fields.used_bytes == 0
    check(heap)


def test_requests_that_no_heap_has():
    heap = Textbook("best-fit", "address")
    for size in (-1, (1 << 40) + 1):
        with pytest.raises(ValueError, match=f"{size} bytes are asked for; a request is 0 to 1099511627776"):
            heap.malloc(size)
        ops = np.zeros(1, OP)
        ops["arg"] = size
        with pytest.raises(Throw, match=f"malloc of {size} bytes; a request is 0 to 1099511627776"):
            heap.run_ops(0, ops)
    for _ in range(15):
        heap.malloc(1 << 40)
    with pytest.raises(Throw, match="a region has no address space left"):
        heap.malloc(1 << 40)
    assert heap.fields.arena_bytes < 16 << 40 and heap.fields.live_bytes == 15 << 40
    check(heap)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"policy": "worst-fit", "order": "lifo"}, "policy is 'worst-fit'; it is one of bump, first-fit"),
        ({"policy": "first-fit"}, "order is None; it is None for bump, else one of address, lifo"),
        ({"policy": "bump", "order": "lifo"}, "order is 'lifo'; it is None for bump, else one of address, lifo"),
        ({"policy": "bump", "nthreads": 0}, "nthreads is 0; a program has a thread at least"),
        ({"policy": "bump", "align_bytes": 24}, "align_bytes is 24; it is a power of two from 8 to 4096"),
        ({"policy": "bump", "grow_bytes": 5000}, "grow_bytes is 5000; it is a multiple of 4096"),
    ],
)
def test_heaps_that_cannot_be(wrong, text):
    with pytest.raises(ValueError) as error:
        Textbook(**wrong)
    assert str(error.value).startswith(text)


def test_a_batch_of_a_thread_that_is_none():
    with pytest.raises(ValueError, match="thread 2 is none of 2"):
        Textbook("bump", nthreads=2).run_ops(2, np.zeros(1, OP))


def test_a_next_fit_program_by_hand():
    """Four blocks of 48 bytes with every other one free: the rover goes on, wraps around, and stays with what merges."""
    heap = Textbook("next-fit", "address", grow_bytes=4096)
    a, _, c, _ = (heap.malloc(40) for _ in range(4))
    first, third = heap.address(a), heap.address(c)
    rest = heap.address(heap.malloc(40)) + 48
    heap.free(c)
    heap.free(a)
    assert heap.address(heap.malloc(40)) == rest  # not the holes: the search goes on behind the last block taken
    large = heap.malloc(4096 - 16 - 7 * 48 + 8 * 5)  # all that is left behind it
    assert heap.fields.rover == 0
    assert [heap.address(heap.malloc(n)) for n in (40, 40)] == [first, third]
    heap.free(large)
    check(heap)


@pytest.mark.parametrize("order", ["address", "lifo"])
@pytest.mark.parametrize("policy", ["first-fit", "next-fit", "best-fit"])
def test_growth_takes_no_step_too_many(policy, order):
    """Padding and fence take 16 bytes of the first step; a free block at the end counts for what is missing."""
    heap = Textbook(policy, order, grow_bytes=4096)
    first = heap.malloc(4096 - 16 - 8)
    assert heap.fields.arena_bytes == heap.fields.fact_grown == 4096 and heap.fields.free_bytes == 0
    heap.malloc(1000)
    assert heap.fields.arena_bytes == 2 * 4096 and heap.fields.free_bytes == 4096 - 1008
    heap.malloc(4096 - 1008 + 4096 - 8)
    assert heap.fields.arena_bytes == 3 * 4096 and heap.fields.free_bytes == 0
    heap.free(first)
    heap.malloc(4096 - 8 + 1)  # too large for the hole, and nothing is free at the end: one byte too many for one step
    assert heap.fields.arena_bytes == 5 * 4096 and heap.fields.fact_growths == 4
    check(heap)
