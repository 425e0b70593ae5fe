"""Tie order and refusals of the clock."""

import itertools

import numpy as np
import pytest
import simpy

from sim.engine.clock import LOCK, OBSERVE, OWNERS, RUN, WAKE, after, now, priority, wake
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
