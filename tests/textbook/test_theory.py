"""What theory and the literature say about the textbook allocators.

- The fifty-percent rule (Knuth, TAOCP 1, 2.5): where each of N blocks in use is equally likely to be the next one freed,
  and a request splits its block with probability p, there are p N / 2 free blocks in equilibrium. No policy takes part
  in the derivation but by p: each freed block takes away two free blocks, one or none and makes one, and a request that
  does not split takes one away; what is left over is that a region's ends are no neighbours, one free block at most.
- Its known deviation (Shore, "Anomalous behavior of the fifty-percent rule in dynamic memory allocation", CACM 20, 1977):
  objects are cut from the same end of a free block, so that neighbours are of an age. Where they also die in order of
  age, that is where lifetimes vary less than exponential ones do, they merge more and free blocks are fewer; where
  lifetimes vary more, there are more. The rule's condition is broken by just that.
- Fragmentation (Wilson et al. 1995; Johnstone and Wilson 1998): best fit, and first fit in order of address, waste less
  than next fit, whatever its order. They measured programs of three shapes, ramp, peak and plateau; here are made up ones
  of those shapes, so the order is claimed and no number.
- Bump: its footprint is every byte ever requested, aligned.
"""

import heapq

import numpy as np
import pytest

from sim.ops import ALLOC, DEAD, NO_OBJ, OP
from sim.textbook.check import check
from sim.textbook.heap import ORDERS, Textbook
from sim.textbook.state import GENERAL

LIVE = 1000
BATCH = 50
GROUPS = 30  # of batches, whose means hardly know each other: 5 turnovers of all objects each


def uniform_sizes(rng, n):
    return rng.integers(8, 1000, n)


def few_sizes(rng, n):
    return rng.integers(1, 9, n) * 64 - 8


def powers_of_two(rng, n):
    return 1 << np.minimum(rng.geometric(0.5, n) + 3, 12)


def group_means(values):
    """Mean and standard error of a series without its first quarter, from means of groups."""
    steady = values[len(values) // 4 :]
    means = steady[len(steady) % GROUPS :].reshape(GROUPS, -1).mean(axis=1)
    return means.mean(), means.std(ddof=1) / GROUPS**0.5


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [uniform_sizes, few_sizes, powers_of_two])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("policy", ["first-fit", "next-fit", "best-fit"])
def test_fifty_percent_rule(policy, order, sizes):
    """Any of 1000 objects is the next one to die, and another one is made; p goes from 7 to 99 %."""
    rng = np.random.default_rng(0)
    heap = Textbook(policy, order)
    ops = np.zeros(LIVE, OP)
    ops["obj"], ops["arg"] = np.arange(LIVE), sizes(rng, LIVE)
    heap.run_ops(0, ops)
    batches = 200 * LIVE // BATCH
    free, split = np.zeros(batches), np.zeros(batches)
    ops = np.zeros(2 * BATCH, OP)
    ops["kind"][::2] = DEAD
    for k in range(batches):
        ops["obj"] = np.repeat(rng.integers(0, LIVE, BATCH), 2)
        ops["arg"][1::2] = sizes(rng, BATCH)
        heap.fields.fact_splits = 0
        heap.run_ops(0, ops)
        free[k], split[k] = heap.arrays["lists"].nfree[GENERAL], heap.fields.fact_splits
    deviation, error = group_means(free - split / BATCH * LIVE / 2)
    assert error < 0.0015 * LIVE  # narrow: free blocks are 35 to 480
    assert abs(deviation) < 1 + 4 * error


def aged_ops(sizes, lifetimes):
    """Operations for objects made one by one, each of which dies after that many others were made."""
    ops, due, spare, variables = [], [], [], 0
    for i, (size, lifetime) in enumerate(zip(sizes.tolist(), lifetimes.tolist(), strict=True)):
        while due and due[0][0] <= i:
            spare.append(heapq.heappop(due)[1])
            ops.append((DEAD, 0, spare[-1], 0, 0))
        if not spare:
            spare.append(variables)
            variables += 1
        heapq.heappush(due, (i + lifetime, spare[-1]))
        ops.append((ALLOC, 0, spare.pop(), size, 0))
    return np.array(ops, OP)


LIFETIMES = {  # of mean 1, by coefficient of variation
    0.0: lambda rng, n: np.ones(n),
    0.58: lambda rng, n: rng.uniform(0, 2, n),
    1.0: lambda rng, n: rng.exponential(1, n),
    3.5: lambda rng, n: rng.exponential(np.where(rng.random(n) < 0.9, 0.2, 8.2)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("policy", "order"), [("first-fit", "address"), ("first-fit", "lifo"), ("next-fit", "address")]
)
def test_lifetimes_bend_the_fifty_percent_rule_either_way(policy, order):
    ratios = []
    for lifetimes in LIFETIMES.values():
        rng = np.random.default_rng(0)
        n = 100 * LIVE
        ages = np.maximum(np.rint(lifetimes(rng, n) * LIVE), 1).astype(np.int64)
        heap = Textbook(policy, order)
        ops = aged_ops(uniform_sizes(rng, n), ages)
        free, expected = [], []
        for batch in np.array_split(ops, n // BATCH):
            heap.fields.fact_splits = 0
            heap.run_ops(0, batch)
            split = int(heap.fields.fact_splits) / max((batch["kind"] == ALLOC).sum(), 1)
            free.append(int(heap.arrays["lists"].nfree[GENERAL]))
            expected.append(split * int(heap.fields.live_objects) / 2)
        scale = np.mean(expected[len(expected) // 4 :])
        ratios.append(group_means(np.array(free) / scale - np.array(expected) / scale))
    fixed, uniform, exponential, varied = ratios
    assert abs(exponential[0]) < 4 * exponential[1] + 1 / scale and exponential[1] < 0.01
    assert fixed[0] < -0.9  # in order of age: hardly a free block is left
    assert fixed[0] + 4 * fixed[1] < uniform[0] - 4 * uniform[1]
    assert uniform[0] < -4 * uniform[1]
    assert varied[0] > 4 * varied[1]


def program_sizes(rng, n):
    """As programs ask: mostly of ten sizes, the rest of any magnitude."""
    some = np.array([16, 24, 32, 40, 48, 64, 96, 128, 256, 512])
    often = rng.choice(some, n, p=np.array([20, 20, 15, 10, 10, 8, 6, 5, 4, 2]) / 100)
    return np.where(rng.random(n) < 0.7, often, np.exp(rng.uniform(np.log(8), np.log(8192), n)).astype(np.int64))


def ramp(rng, n):
    """A tenth of all objects stay, the others die soon: live bytes only grow."""
    return np.where(rng.random(n) < 0.1, 10 * n, rng.exponential(200, n))


def peak(rng, n):
    """Ten phases: half of a phase's objects die at its end, some outlive it, the others die soon."""
    until_the_end = n // 10 - np.arange(n) % (n // 10)
    kind = rng.random(n)
    soon = np.where(kind < 0.98, rng.exponential(50, n), rng.exponential(n / 4, n))
    return np.where(kind < 0.5, until_the_end, soon)


def plateau(rng, n):
    """Live bytes are much the same for long: half of all objects live for a tenth of the run, the others die soon."""
    return np.where(rng.random(n) < 0.5, rng.exponential(n / 10, n), rng.exponential(50, n))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [program_sizes, uniform_sizes])
@pytest.mark.parametrize("shape", [ramp, peak, plateau])
def test_best_fit_and_first_fit_by_address_waste_less_than_next_fit(shape, sizes):
    """Four programs of each shape; memory from the system over the most that was live."""
    wasted = {}
    for seed in range(4):
        rng = np.random.default_rng(seed)
        n = 50_000
        ops = aged_ops(sizes(rng, n), shape(rng, n).astype(np.int64) + 1)
        for policy in ("first-fit", "next-fit", "best-fit"):
            for order in ORDERS:
                heap = Textbook(policy, order, grow_bytes=4096)
                heap.run_ops(0, ops)
                ratio = int(heap.fields.arena_bytes) / int(heap.fields.peak_live_bytes)
                wasted.setdefault((policy, order), []).append(ratio)
    good = [wasted["best-fit", "address"], wasted["best-fit", "lifo"], wasted["first-fit", "address"]]
    bad = [wasted["next-fit", "address"], wasted["next-fit", "lifo"]]
    assert all(np.max(better) < np.min(worse) for better in good for worse in bad)


@pytest.mark.parametrize("align", [8, 16, 256])
def test_bump_takes_every_byte_ever_requested_aligned(align):
    rng = np.random.default_rng(align)
    heap = Textbook("bump", align_bytes=align, grow_bytes=4096)
    ops = np.zeros(1 + 3000, OP)
    ops["kind"][1:] = rng.choice([ALLOC, DEAD], 3000)
    ops["obj"], ops["arg"] = rng.integers(0, 20, 3001), uniform_sizes(rng, 3001)
    ops["obj"][0] = NO_OBJ  # lives to the end
    heap.run_ops(0, ops)
    check(heap)
    requested = ops["arg"][ops["kind"] == ALLOC]
    aligned = int((-(-requested // align) * align).sum())
    assert heap.fields.used_bytes + heap.fields.dead_bytes == aligned
    assert heap.fields.arena_bytes == -(-aligned // 4096) * 4096
