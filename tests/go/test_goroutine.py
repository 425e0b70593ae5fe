"""Goroutines as SimPy processes: parking, values, errors, and misuse; times worked out by hand."""

import numpy as np
import pytest
import simpy

from sim.go.check import check_heap
from sim.jit import PLAIN
from sim.ops import ALLOC, COMPUTE, DEAD, NO_OBJ, OP, SHARED
from sim.units import MS, NS, US, Throw
from tests.go.sched_world import adds_up, finish, new_world

# ---------------------------------------------------------------------------------------------------- parking, values, errors


def test_goroutines_park_on_any_event():
    world, log = new_world(2), []
    env = world.env
    mutex, tank, signal = simpy.Resource(env), simpy.Container(env, 10), env.event()

    def holder(g):
        with mutex.request() as turn:
            yield turn
            yield env.timeout(3 * US)
        yield tank.put(4)
        signal.succeed("go")

    def waiter(g):
        yield g.compute(1)
        with mutex.request() as turn:
            yield turn
            log.append(("mutex", g.world.now))
        yield tank.get(4)
        log.append(("tank", g.world.now))
        log.append((yield signal))
        a, b = env.timeout(2 * US, "a"), env.timeout(9 * US, "b")
        log.append(list((yield a | b).values()))
        log.append(list((yield a & b).values()))
        log.append(g.world.now)

    finish(world, world.go(holder), world.go(waiter))
    assert log == [("mutex", 3 * US), ("tank", 3 * US), "go", ["a"], ["a", "b"], 12 * US]


def test_the_p_of_a_parked_goroutine_runs_others():
    world = new_world()

    def sleeper(g):
        yield g.world.env.timeout(1 * MS)

    def busy(g):
        yield g.compute(1 * MS)

    finish(world, *(world.go(f) for f in (sleeper, busy)))
    assert world.now == 1 * MS


def test_values_come_back():
    world = new_world(2)

    def child(g, x):
        yield g.compute(3 * US)
        return x + 1

    def parent(g):
        one = yield g.go(child, 1, name="one")
        two = yield g.go(child, 2)
        assert (one.label, two.label) == ("one", "child")
        results = yield g.world.env.all_of([one, two])
        return [*results.values(), (yield one)]

    g = world.go(parent)
    finish(world, g)
    assert g.value == [2, 3, 2]
    assert (world.sched.created, world.sched.alive) == (3, 0)


def failing(g, after_ps):
    yield g.compute(after_ps)
    raise KeyError("lost")


def test_a_goroutine_that_raises_fails_the_run_with_its_own_error():
    world = new_world(2)
    world.go(failing, 5 * US)
    with pytest.raises(KeyError, match="lost"):
        world.run()


def test_the_waiter_gets_the_error_and_may_catch_it():
    world = new_world(2, wake_p=3 * US, switch=100)

    def parent(g, catch):
        child = yield g.go(failing, 5 * US)
        yield g.compute(1)
        try:
            yield child
        except KeyError as error:
            if catch:
                return f"caught {error}"
            raise ValueError("no child") from error

    g = world.go(parent, True)
    finish(world, g)
    assert g.value == "caught 'lost'"
    world.go(parent, False)
    with pytest.raises(ValueError, match="no child"):
        world.run()


def test_a_failed_event_waits_for_a_p_and_is_thrown_in():
    world = new_world(1, switch=100)
    event, log = world.env.event(), []

    def waiter(g):
        try:
            yield event
        except OSError as error:
            log.append((str(error), g.world.now))
        yield g.compute(1)

    def busy(g):
        yield g.compute(8 * US)

    gs = [world.go(waiter), world.go(busy)]
    world.env.timeout(2 * US).callbacks.append(lambda _: event.fail(OSError("gone")))
    finish(world, *gs)
    assert log == [("gone", 8 * US + 3 * 100)]


def test_what_is_yielded_must_be_an_event():
    world = new_world()

    def wrong(g):
        yield 5

    world.go(wrong)
    with pytest.raises(RuntimeError, match='Invalid yield value "5"'):
        world.run()


def test_a_child_runs_when_its_go_statement_is_over_and_not_without_it():
    world, log = new_world(2, goroutine_new=700 * NS, goroutine_reused=90 * NS, wake_p=100), []

    def child(g):
        log.append(g.world.now)
        yield g.compute(1)

    def parent(g):
        begun = g.world.now
        g.go(child)  # nobody waits for it to happen
        first = yield g.go(child)
        yield first
        log.append(g.world.now - begun)
        yield g.go(child)

    g = world.go(parent)
    finish(world, g)
    world.run()
    begun = 100
    assert log[0] >= begun + 700 * NS
    assert (len(log), world.sched.created) == (3, 3)
    assert log[2] - (begun + log[1]) >= 90 * NS


def test_goroutines_of_the_outside_wake_a_p():
    world, log = new_world(2, wake_p=5 * US, switch=100 * NS), []

    def request(g):
        log.append(g.world.now)
        yield g.compute(1)

    world.run(until=1 * MS)
    world.run(until=world.go(request))
    assert log == [1 * MS + 5 * US + 100 * NS]


def test_ten_thousand_goroutines_on_64_ps():
    n, per = (300, 3) if PLAIN else (10_000, 5)
    world = new_world(64, wake_p=5 * US, switch=100 * NS, steal=300 * NS, goroutine_new=500 * NS)
    done = []

    def child(g, i):
        for _ in range(per):
            handle = yield g.malloc(48)
            yield g.compute(1 * US + i % 7)
            yield g.drop(handle)
        done.append(i)

    def parent(g):
        for i in range(n):
            yield g.go(child, i)

    finish(world, world.go(parent))
    world.run()
    adds_up(world)
    assert sorted(done) == list(range(n))
    assert (world.sched.alive, world.sched.created) == (0, n + 1)
    procs = world.heap.arrays["procs"]
    assert int(procs["mallocs"].sum()) == n * per
    busy = sum(per * (1 * US + i % 7) for i in range(n))
    assert busy <= int(procs["compute_time"].sum()) <= busy + n * 500 * NS
    assert int(world.heap.fields.live_objects) == 0
    check_heap(world.heap)


# ---------------------------------------------------------------------------------------------------- misuse


def records(*ops):
    batch = np.zeros(len(ops), OP)
    for i, op in enumerate(ops):
        batch[i] = op
    return batch


FINE = (COMPUTE, 0, 0, 1, 0)
BAD = {
    "no such kind": (3, 0, 0, 1, 0),
    "no size": (ALLOC, 0, 0, 0, 0),
    "too large": (ALLOC, 0, 0, (1 << 40) + 1, 0),
    "variable beyond the goroutine's": (ALLOC, 0, 2, 8, 8),
    "no variable to drop": (DEAD, 0, NO_OBJ, 0, 0),
    "shared variable that is not there": (DEAD, SHARED, 1000, 0, 0),
    "negative compute": (COMPUTE, 0, 0, -1, 0),
    "endless compute": (COMPUTE, 0, 0, (1 << 61) + 1, 0),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_operations_are_refused_by_number(case):
    world = new_world()

    def worker(g):
        yield g.run(records(FINE, BAD[case], FINE), 2)

    world.go(worker)
    with pytest.raises(Throw, match="operation 1 of a batch of goroutine worker may not be run"):
        world.run()


@pytest.mark.parametrize("ops", [[FINE], np.zeros(3), np.zeros((2, 2), OP), np.zeros(8, OP)[::2]])
def test_what_is_no_batch_is_refused(ops):
    world = new_world()

    def worker(g):
        yield g.run(ops)

    world.go(worker)
    with pytest.raises(Throw, match="a batch is a contiguous array"):
        world.run()


def refuse(body, message, error=Throw):
    world = new_world(2)
    world.go(body)
    with pytest.raises(error, match=message):
        world.run()


def test_misuse_by_a_goroutine_is_refused():
    def drops_twice(g):
        handle = yield g.malloc(8)
        yield g.drop(handle)
        yield g.drop(handle)

    def drops_nothing(g):
        yield g.drop(7)

    def waits_for_two(g):
        yield g.compute(5) | g.world.env.timeout(3)

    def interrupts(g):
        child = yield g.go(failing, 1 * MS)
        child.interrupt("stop it")

    def starts_no_generator(g):
        yield g.go(print)

    refuse(drops_twice, "drop of 0, which names no object")
    refuse(drops_nothing, "drop of 7, which names no object")
    refuse(waits_for_two, "waits_for_two waits for work together with other events")
    refuse(interrupts, "goroutine failing cannot be interrupted")
    refuse(starts_no_generator, "goroutine print is no generator")


def test_misuse_from_outside_is_refused():
    world = new_world(2)
    with pytest.raises(Throw, match="goroutine <lambda> is no generator"):
        world.go(lambda g: None)
    assert (world.sched.alive, world.sched.created) == (0, 0)
    with pytest.raises(Throw, match="the world is not stopped"):
        world.sched.start_the_world()


def test_a_handle_names_nothing_else_before_its_drop_was_run():
    world = new_world()

    def worker(g):
        handle = yield g.malloc(64)
        work = g.drop(handle)
        assert (yield g.malloc(64)) != handle
        yield work
        assert (yield g.malloc(64)) == handle

    finish(world, world.go(worker))
    assert int(world.heap.fields.live_objects) == 2
