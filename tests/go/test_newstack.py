"""Stacks on the clock: growth and go statements cost what was measured, locks are taken, no picosecond is lost."""

import random
from dataclasses import replace
from statistics import median

import pytest
import simpy

from experiments.machine import load_machine
from experiments.machine_file import read_machine
from experiments.run import build
from sim.costs import Price
from sim.go.check import check_heap
from sim.go.metrics import read_metrics
from sim.go.state import GC_MARK, GC_OFF, SPAN_MANUAL
from sim.go.world import World
from sim.jit import PLAIN
from sim.units import MS, NS, US, Throw
from tests.go import stack_ops as ops
from tests.go.heap_ops import flush_pages
from tests.go.prices import made_up_prices
from workloads.drive import Load
from workloads.scenario import load
from workloads.spec import Workers

MACHINE = "epyc-2core"
KIB = 1 << 10


def fixed_world(nprocs=1, seed=1, **steps):
    """Prices that do not vary, those of the scheduler 0 unless given."""
    prices = made_up_prices()
    nothing = ("goroutine_new", "goroutine_reused", "goroutine_exit", "switch", "steal", "wake_p", "os_switch")
    named = {name: Price(price.mean) for name, price in prices.steps.items()} | dict.fromkeys(nothing, Price(0))
    named |= {name: Price(price) for name, price in steps.items()}
    return World("go1.27", nprocs, replace(prices, steps=named), seed, gogc=-1)


def row(world, g):
    return world.heap.arrays["goroutines"][g.id]


def run(world, body, *args, **options):
    """The value of one goroutine from outside, and its world checked."""
    g = world.go(body, *args, **options)
    world.run(until=g)
    check_heap(world.heap)
    for p in world.sched.procs:
        times = p.times()
        assert sum(times.values()) == world.now and all(time >= 0 for kind, time in times.items() if kind != "ahead")
    return g.value


def waits(g):
    yield simpy.Event(g.world.env)


# ---------------------------------------------------------------------------------------------------- as measured


def grows(g, nbytes, times):
    """Goroutine: children one after the other that use so much stack; how long each took for it."""
    took = []

    def child(g):
        begun = g.world.now
        yield g.use_stack(nbytes)
        took.append(g.world.now - begun)

    for _ in range(times):
        yield (yield g.go(child))
    return took


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
@pytest.mark.parametrize("kib", [2, 5, 17, 65])
def test_growth_on_memory_used_before_takes_what_was_measured(version, kib):
    world = World(version, 1, load_machine(MACHINE, version), 1, gogc=-1)
    took = run(world, grows, kib * KIB, 60 if PLAIN else 400)
    measured = read_machine(MACHINE).tables[version]["stack_growth"].row(kib)["p50"]
    assert float(measured.low) - 1 <= median(took[20:]) / 1000 <= float(measured.high) * 1.01
    assert took[0] > 2 * median(took[20:])  # first touches


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
def test_go_statements_on_memory_never_used_take_what_was_measured(version):
    world = World(version, 1, load_machine(MACHINE, version), 1, gogc=-1)
    n = 256 if PLAIN else 1 << 14  # 32 MiB of stacks

    def starts(g):
        for _ in range(n):
            yield g.go(waits)

    run(world, starts)
    times = world.sched.procs[0].times()  # those started run too, in time for scheduling
    mean = sum(times[kind] for kind in ("compute", "lock", "stacks")) / n / 1000
    measured = read_machine(MACHINE).tables[version]["goroutine"].row("new")["mean"]
    slack = 0.25 if PLAIN else 0.02  # the heap's growth comes in lumps
    assert float(measured.low) * (1 - slack) <= mean <= float(measured.high) * (1 + slack)


# ---------------------------------------------------------------------------------------------------- rule by rule


def test_a_growth_pays_a_copy_of_what_the_stack_held():
    world = fixed_world(stack_copy=200 * NS)

    def body(g):
        yield g.use_stack(5 * KIB)  # touches what it will need
        yield g.use_stack(1)
        ops.shrink_stack(g.world.heap.header, 0, g.id)
        ops.shrink_stack(g.world.heap.header, 0, g.id)
        assert int(row(g.world, g)["stack_size"]) == 2 * KIB
        begun = g.world.now
        yield g.use_stack(5 * KIB)
        return g.world.now - begun

    small = world.prices.stack_copy[0]
    assert run(world, body) == 2 * 200 * NS + ((2 + 4) * KIB - 2 * 928) * small // 1000


def test_what_fits_takes_no_time_and_less_may_be_used_later():
    world = fixed_world()

    def body(g):
        yield g.use_stack(2 * KIB - 928)
        yield g.use_stack(100)
        return g.world.now, int(row(g.world, g)["stack_used"]), int(row(g.world, g)["stack_size"])

    assert run(world, body) == (0, 100, 2 * KIB)


@pytest.mark.parametrize("inside", [False, True])
def test_a_declared_stack_is_grown_when_the_goroutine_first_runs(inside):
    world = fixed_world()

    def child(g):
        seen = int(row(g.world, g)["stack_size"]), int(row(g.world, g)["stack_used"])
        yield g.compute(1)
        return seen

    def parent(g):
        one = yield g.go(child, stack=10_000)
        before = int(row(g.world, one)["stack_size"])
        assert before == 2 * KIB
        return (yield one)

    assert run(world, parent) == (16 * KIB, 10_000) if inside else run(world, child, stack=10_000) == (16 * KIB, 10_000)


def test_goroutines_from_outside_take_no_time_and_have_stacks_at_once():
    world = fixed_world()

    gs = [world.go(waits) for _ in range(100)]
    assert int(world.heap.fields.max_stack_scan) == 200 * KIB
    assert len({int(row(world, g)["stack"]) for g in gs}) == 100
    world.run(until=1 * US)
    assert world.sched.procs[0].times()["stacks"] == world.sched.procs[0].times()["lock"] == 0
    check_heap(world.heap)


def test_a_dead_goroutines_row_and_stack_are_the_next_ones():
    world = fixed_world()

    def child(g):
        yield g.compute(1)

    def parent(g):
        seen = []
        for _ in range(3):
            one = yield g.go(child)
            seen.append((one.id, int(row(g.world, one)["stack"])))
            yield one
            yield g.compute(1 * US)
        return seen

    assert len(set(run(world, parent))) == 1


def test_every_eighth_go_statement_takes_the_pools_lock_and_every_sixteenth_makes_a_span():
    world = fixed_world(goroutine_new=1 * NS)

    def starts(g):
        took = []
        for _ in range(64):
            begun = g.world.now
            spans = int(g.world.heap.fields.stacks_in_use)
            locks = g.world.pool_locks[0].acquisitions
            yield g.go(waits)
            spans = (int(g.world.heap.fields.stacks_in_use) - spans) // (32 * KIB)
            took.append((g.world.now - begun, g.world.pool_locks[0].acquisitions - locks, spans))
        return took

    took = run(world, starts)
    # the pool's first span holds the stack of this goroutine, which came from outside: 15 are left for two refills
    assert [i for i, (_, locks, _) in enumerate(took) if locks] == list(range(0, 64, 8))
    assert [i for i, (_, _, spans) in enumerate(took) if spans] == [8, 24, 40, 56]
    mean = {name: price.mean for name, price in world.prices.steps.items()}
    for time, locks, spans in took:
        least = 1 * NS + locks * mean["stack_pool"] + spans * (mean["stack_span"] + 8 * mean["first_touch"])
        assert least <= time and (spans or time == least)


def test_two_ps_wait_for_a_pools_lock():
    world = fixed_world(2, stack_pool=50 * US)

    def starts(g):
        yield g.compute(1 * US)
        yield g.go(waits)
        return g.world.now

    gs = [world.go(starts) for _ in range(2)]
    world.run(until=world.env.all_of(gs))
    assert abs(gs[0].value - gs[1].value) >= 50 * US  # one after the other
    assert world.pool_locks[0].waits == 1
    assert min(p.times()["lock"] for p in world.sched.procs) >= 50 * US
    check_heap(world.heap)


@pytest.mark.parametrize("others", [0, 3, 40])
def test_a_pool_that_others_use_while_a_p_waits_for_pages_keeps_its_order(others):
    world = fixed_world()
    lock = world.heap_lock

    def holder():
        yield from lock.acquire(1000, world.now)
        yield world.env.timeout(50 * US)
        for _ in range(others):
            world.go(waits)
        yield world.env.timeout(50 * US)
        lock.release(1000, world.now)

    def starts(g):
        for _ in range(15):  # the pool's first span is used up
            yield g.go(waits)
        flush_pages(world.heap.header, 0)
        world.env.process(holder())
        yield g.compute(1 * US)
        for _ in range(16):
            yield g.go(waits)

    world.run(until=world.go(starts))
    assert world.heap_lock.waits == 1 and lock.holder is None
    spans = world.heap.arrays["spans"][: int(world.heap.fields.nspans)]
    assert not ((spans.state == SPAN_MANUAL) & (spans.elemsize == 0)).any(), "the span it waited for belongs to nobody"
    check_heap(world.heap)


def test_a_freed_span_of_stacks_takes_the_heap_lock_unless_the_collector_runs():
    world = fixed_world(free_span=7 * US)

    def body(g):
        times = []
        for phase in (GC_OFF, GC_MARK):
            g.world.heap.fields.gc_phase = phase
            yield g.use_stack(100 * KIB)
            ops.shrink_stack(g.world.heap.header, 0, g.id) if phase else None
            begun = g.world.now
            yield g.use_stack(200 * KIB)  # 128 KiB are freed
            times.append(g.world.now - begun)
            yield g.use_stack(1)
            g.world.heap.fields.gc_phase = GC_OFF
            ops.free_stack_spans(g.world.heap.header, 0)
            while ops.shrink_stack(g.world.heap.header, 0, g.id):
                pass
        return times

    off, on = run(world, body)
    assert off - on >= 7 * US


def test_the_thread_of_a_p_has_its_stacks_once_it_woke():
    world = fixed_world(5)

    def body(g):
        yield g.compute(1 * MS)
        return g.p.index

    ran = run(world, body)
    procs = world.heap.arrays["procs"]
    woken = [i for i in range(5) if procs["gsignal_stack"][i]]
    assert ran in woken and len(woken) == 2  # who found the goroutine woke the next one to look for more
    assert [i for i in range(5) if procs["g0_stack"][i]] == [i for i in woken if i]  # the system gave the first its own


def test_the_limit_ends_the_run():
    world = fixed_world()

    def body(g):
        yield g.use_stack(900_000_000)

    with pytest.raises(Throw, match="goroutine stack exceeds 1000000000-byte limit"):
        run(world, body)


@pytest.mark.parametrize("nbytes", [0, -1, 1.5, 2_000_000_000, True, "8KiB"])
def test_frames_that_cannot_be_are_refused(nbytes):
    world = fixed_world()

    def body(g):
        yield g.use_stack(nbytes)

    with pytest.raises(Throw, match="frames of"):
        run(world, body)


def test_metrics_tell_of_stacks():
    world = fixed_world()

    def body(g):
        yield g.use_stack(5 * KIB)
        return read_metrics(g.world)

    metrics = run(world, body)
    assert metrics["/gc/stack/starting-size:bytes"] == 2 * KIB
    assert metrics["/sim/stacks/live:bytes"] == 8 * KIB
    assert (metrics["/sim/stacks/copies:events"], metrics["/sim/stacks/copied:bytes"]) == (2, 6 * KIB - 2 * 928)
    assert metrics["/memory/classes/heap/stacks:bytes"] == int(world.heap.fields.stacks_in_use)
    assert metrics["/sim/time/stacks:cpu-seconds"] > 0


@pytest.mark.parametrize(("stack", "size"), [("288B", 2), ("1120B", 2), ("1121B", 4), ("6KiB", 8), ("20KiB", 32)])
def test_workers_and_requests_of_a_scenario_reach_as_deep_as_it_says(stack, size):
    for name, *less in (("many-goroutines", "goroutines=20"), ("api-service", "rate=1000000")):
        scenario = load(name, [*less, "gomaxprocs=2", f"stack={stack}", "mallocs=3000"])
        world = build(scenario)
        running = Load(world)
        if isinstance(scenario.workload, Workers):
            running.start_workers(scenario.workload, 3000)
        else:
            running.start_service(scenario.workload, None, 3000)
        world.run(until=50 * US)
        rows = world.heap.arrays["goroutines"]
        used = set(rows["stack_size"][rows["stack_used"] > 288].tolist())
        assert used == ({size * KIB} if stack != "288B" else set())
        check_heap(world.heap)


# ---------------------------------------------------------------------------------------------------- all of it at once


def wild(g, rng, depth):
    for _ in range(rng.randrange(1, 6)):
        what = rng.randrange(5)
        if what == 0 and depth:
            yield g.go(wild, random.Random(rng.random()), depth - 1, stack=rng.choice((0, 3000, 40_000)))
        elif what == 1:
            yield g.use_stack(rng.choice((1, 500, 3000, 9000, 70_000, 300_000)))
        elif what == 2:
            yield g.world.env.timeout(rng.randrange(50 * US))
        elif what == 3:
            yield (yield g.go(wild, random.Random(rng.random()), 0, stack=rng.choice((0, 6000))))
        else:
            yield g.malloc(rng.choice((64, 5000, 200_000)))


def collector(world, rng, checks):
    """Process: phases come and go; stacks are scanned and shrunk while the world stands."""
    while True:
        yield world.env.timeout(rng.randrange(100 * US))
        yield from world.sched.stop_the_world()
        heap = world.heap
        if heap.fields.gc_phase == GC_OFF:
            heap.fields.gc_phase = GC_MARK
            for p in world.sched.procs:
                ops.free_dead_stacks(heap.header, p.index)
            for g in range(1, int(heap.fields.ngs)):
                ops.scan_stack(heap.header, 0, g)
        else:
            heap.fields.gc_phase = GC_OFF
            ops.compute_starting_size(heap.header)
            ops.free_stack_spans(heap.header, 0)
            for p in world.sched.procs:
                ops.stackcache_clear(heap.header, p.index)
        checks(world)
        world.sched.start_the_world()


def digest(nprocs, seed, run_ahead=True):
    rng = random.Random(seed)
    world = World("go1.27", nprocs, made_up_prices(), seed, run_ahead=run_ahead, cpus=rng.choice((None, 1)), gogc=-1)
    seen = []

    def checks(world):
        heap = world.heap
        check_heap(heap)
        seen.append((world.now, int(heap.fields.stacks_in_use), int(heap.fields.max_stack_scan), int(heap.fields.ngs)))

    gs = [world.go(wild, random.Random(rng.random()), 3, stack=rng.choice((0, 5000))) for _ in range(12)]
    world.env.process(collector(world, rng, checks))
    world.run(until=world.env.all_of(gs))
    check_heap(world.heap)
    for p in world.sched.procs:
        assert sum(p.times().values()) == world.now
    seen.append([p.times() for p in world.sched.procs])
    return seen


@pytest.mark.parametrize("nprocs", [1, 2, 8])
@pytest.mark.parametrize("seed", range(2 if PLAIN else 8))
def test_invariants_hold_whenever_the_world_stands_with_run_ahead_and_without(nprocs, seed):
    assert digest(nprocs, seed) == digest(nprocs, seed) == digest(nprocs, seed, run_ahead=False)
