"""Tie order and refusals of the clock."""

import itertools

import numpy as np
import pytest
import simpy

from sim.engine.clock import (
    LOCK,
    NO_TURN,
    OBSERVE,
    OWNERS,
    RUN,
    WAKE,
    Environment,
    after,
    now,
    priority,
    wake,
)
from sim.units import Throw


def test_ties_order_by_rank_then_owner_whatever_the_order_of_asking():
    asked = [(rank, owner) for rank in (LOCK, WAKE, RUN, OBSERVE) for owner in (0, 7, OWNERS - 1)]
    for seed in range(20):
        env, log = simpy.Environment(), []
        for i in np.random.default_rng(seed).permutation(len(asked)):
            who = asked[i]
            after(env, 5, priority(*who)).callbacks.append(lambda _, log=log, who=who: log.append(who))
        env.run()
        assert log == sorted(asked)


def test_same_time_rank_and_owner_order_by_sequence():
    env, log = simpy.Environment(), []
    for i in range(5):
        after(env, 3, priority(RUN, 1)).callbacks.append(lambda _, i=i: log.append(i))
    env.run()
    assert log == [0, 1, 2, 3, 4]


def test_simpys_own_events_come_first():
    env, log = simpy.Environment(), []
    after(env, 4, priority(LOCK, 0)).callbacks.append(lambda _: log.append("ours"))
    env.timeout(4).callbacks.append(lambda _: log.append("SimPy's"))
    env.run()
    assert log == ["SimPy's", "ours"]


def test_wake_carries_its_value_and_priority_and_delay():
    for order in itertools.permutations(range(3)):
        env, log = simpy.Environment(), []
        events = [simpy.Event(env) for _ in range(3)]
        for owner in order:

            def note(event, env=env, log=log, owner=owner):
                log.append((env.now, owner, event.value))

            events[owner].callbacks.append(note)
            wake(env, events[owner], priority(WAKE, owner), value=owner * 10, delay=9 if owner == 0 else 0)
        env.run()
        assert log == [(0, 1, 10), (0, 2, 20), (9, 0, 0)]


def test_integers_stay_exact_beyond_doubles():
    env = simpy.Environment()
    after(env, 2**60 + 1, priority(RUN, 0))
    env.run()
    assert now(env) == 2**60 + 1


@pytest.mark.parametrize(
    ("delay", "message"),
    [(1.0, "1.0 is a float"), (-1, "-1 ps is negative"), (np.int64(3), "is a int64"), (True, "is a bool")],
)
def test_delays_refused(delay, message):
    env = simpy.Environment()
    with pytest.raises(Throw, match=message):
        after(env, delay, priority(RUN, 0))
    with pytest.raises(Throw, match=message):
        wake(env, simpy.Event(env), priority(RUN, 0), delay=delay)
    assert env.peek() == float("inf")


def test_event_woken_twice_refused():
    env = simpy.Environment()
    event = simpy.Event(env)
    wake(env, event, priority(WAKE, 0))
    with pytest.raises(Throw, match="woken twice"):
        wake(env, event, priority(WAKE, 0))
    with pytest.raises(Throw, match="woken twice"):
        wake(env, after(env, 1, priority(RUN, 0)), priority(WAKE, 0))


@pytest.mark.parametrize("who", [(0, 1), (OBSERVE + 1, 1), (RUN, -1), (RUN, OWNERS), (RUN, 1.0)])
def test_priorities_refused(who):
    with pytest.raises(Throw, match=r"not in|not an int in"):
        priority(*who)


def test_a_float_time_is_noticed():
    env = simpy.Environment()
    env.run(until=2.5)
    with pytest.raises(Throw, match=r"time 2\.5 is a float"):
        now(env)


def driven(turns, log):
    """An environment with a second source whose turns are at these (time, rank, owner); it logs and takes one a step."""
    env = Environment()
    keys = sorted((time, priority(rank, owner)) for time, rank, owner in turns)

    def drive():
        assert keys[0] < env.limit()
        time, order = keys.pop(0)
        event = simpy.Event(env)
        event.callbacks.append(lambda e: log.append((env.now, e.value)))
        env.turn = keys[0] if keys else NO_TURN
        env.fire(event, time, order)

    env.turn = keys[0]
    env.drive = drive
    return env


def test_both_sources_in_one_order():
    log = []
    turns = [(5, RUN, 1), (7, LOCK, 3), (7, RUN, 0), (7, RUN, 2), (9, RUN, 0)]
    queued = [(7, RUN, 1), (7, LOCK, 2), (8, WAKE, 0), (9, OBSERVE, 0)]
    env = driven(turns, log)
    for time, rank, owner in queued:
        order = priority(rank, owner)
        after(env, time, order).callbacks.append(lambda _, order=order: log.append((env.now, order)))
    assert env.peek() == 5
    env.run(until=9)  # SimPy's own events come before all of ours
    assert len(log) == 7
    env.run()
    assert log == sorted((time, priority(rank, owner)) for time, rank, owner in turns + queued)
    assert env.peek() == float("inf")


def test_a_source_alone_keeps_time_passing():
    log = []
    env = driven([(3, RUN, 0), (4, RUN, 0)], log)
    assert env.peek() == 3
    env.run()
    assert [time for time, _ in log] == [3, 4]
    with pytest.raises(simpy.core.EmptySchedule):
        env.step()


def test_fired_in_the_past_or_twice_refused():
    env = Environment()
    event = simpy.Event(env)
    env.fire(event, 5, "once")
    assert (env.now, event.value, event.processed) == (5, "once", True)
    with pytest.raises(Throw, match="event fired at 6 ps, at 5 ps and with value 'once'"):
        env.fire(event, 6, "twice")
    with pytest.raises(Throw, match="event fired at 4 ps, at 5 ps"):
        env.fire(simpy.Event(env), 4, None)
