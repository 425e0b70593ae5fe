"""Sleeping goroutines: when they go on, by what P has nothing to do, in whole milliseconds of epoll."""

import pytest

from sim.go.timers import poll_time
from sim.units import MS, US
from tests.go.sched_world import adds_up, new_world
from tests.go.test_stw import LATENCY


def sleeper(g, length, log):
    start = g.world.now
    yield g.world.timers.sleep(g, length)
    log.append(g.world.now - start)


def computes(g, length):
    yield g.compute(length)


@pytest.mark.parametrize(
    ("delay", "wait"), [(-1, 0), (0, 0), (1, 1), (999, 1), (1000, 1), (1999, 1), (2000, 2), (3400, 3)]
)
def test_epoll_waits_whole_milliseconds(delay, wait):
    assert poll_time(delay * US) == wait * MS


@pytest.mark.parametrize(
    ("length", "polls"), [(111 * US, [1]), (1 * MS, [1]), (3400 * US, [3, 1]), (2100 * US, [2, 1])]
)
def test_when_nobody_runs_a_thread_in_epoll_wakes_the_sleeper(length, polls):
    """Each wait is followed by the thread's latency; what is left then is waited for anew."""
    world, log = new_world(1), []
    world.run(until=world.go(sleeper, length, log))
    assert log == [sum(polls) * MS + len(polls) * LATENCY]
    adds_up(world)


def test_a_p_that_schedules_looks_at_its_timers():
    world, log = new_world(1), []
    g = world.go(sleeper, 111 * US, log)
    world.go(computes, 700 * US)
    world.run(until=g)
    assert log == [700 * US]


def test_a_p_that_looks_for_work_looks_at_everybodys():
    """The sleeper's P is busy with another goroutine; the other P ends its work at 700 us and finds the timer due."""
    world, log = new_world(2), []

    def body(g):
        yield g.go(computes, 50 * MS)
        yield from sleeper(g, 300 * US, log)

    world.go(computes, 700 * US)
    world.run(until=10 * US)
    world.run(until=world.go(body))
    assert world.now == 700 * US


def test_who_sleeps_shorter_cuts_the_wait_short():
    world, log = new_world(2), []
    world.go(sleeper, 50 * MS, log)
    world.run(until=5 * MS)
    g = world.go(sleeper, 2 * MS, log)
    world.run(until=g)
    assert log == [2 * MS + LATENCY]
    world.run()
    assert 50 * MS <= log[1] <= 52 * MS
