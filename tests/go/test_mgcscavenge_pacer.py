"""The scavenger's pacing: the real controller's recorded answers to the bit, and its goals by hand."""

import struct
from fractions import Fraction

import pytest

from sim.go.mgcscavenge_pacer import COOLDOWN, PIController, SleepPacer, gc_pace_scavenger, heap_retained, should_stop
from sim.go.runtime import Heap
from sim.go.state import NO_GOAL
from sim.units import GIB, MIB
from tests.go.scavenge_ops import recorded


def double(bits):
    return struct.unpack(">d", bytes.fromhex(bits))[0]


@pytest.mark.parametrize("number", range(2))
def test_the_controller_gives_the_recorded_outputs(number):
    record = recorded()["controllers"][number]
    *parameters, setpoint = record["Par"]
    controller, failures = PIController(*parameters), 0
    for value, period, output, ok in record["Rows"]:
        found = controller.next(double(value), setpoint, double(period))
        assert found == (double(output), ok == "1")
        failures += ok == "0"
    assert failures > 0


@pytest.mark.parametrize("number", range(7))
def test_sleeps_are_the_recorded_ones(number):
    record = recorded()["sleeps"][number]
    pacer = SleepPacer()
    for worked, sleep, slept in record["Events"]:
        assert pacer.sleep_time(float(worked)) == sleep
        pacer.slept(float(worked), slept, record["Procs"])
    assert len(record["Events"]) > 50 and pacer.resets == 0


def test_a_wrong_gain_is_noticed():
    for name, wrong in (("kp", 0.34), ("ti", 3.1e6), ("tt", 2e9), ("max", 400.0)):
        record = recorded()["sleeps"][0 if name != "max" else 6]
        pacer = SleepPacer()
        setattr(pacer.controller, name, wrong)
        found = []
        for worked, _, slept in record["Events"]:
            found.append(pacer.sleep_time(float(worked)))
            pacer.slept(float(worked), slept, record["Procs"])
        assert found != [sleep for _, sleep, _ in record["Events"]], name


def test_five_seconds_without_the_controller_when_it_failed():
    pacer = SleepPacer()
    pacer.slept(1e6, 10**9, 1)
    assert pacer.sleep_ratio > 0.001
    pacer.controller.err_integral = float("inf")
    pacer.slept(1e6, 10**8, 1)
    assert (pacer.sleep_ratio, pacer.cooldown, pacer.resets) == (0.001, COOLDOWN, 1)
    assert pacer.controller.err_integral == 0.0
    pacer.slept(1e6, 2_998_999_999, 1)  # less than a millisecond counts as one
    assert pacer.cooldown == 2_000_000_001
    pacer.slept(3.5, 1_999_000_001, 1)
    assert (pacer.cooldown, pacer.sleep_ratio) == (0, 0.001)
    pacer.slept(1e6, 10**9, 1)
    assert pacer.sleep_ratio != 0.001


# ---------------------------------------------------------------------------------------------------- goals


def heap_with(version="go1.27", **fields):
    heap = Heap(version, 1)
    for name, value in fields.items():
        heap.fields[name] = value
    return heap


def goals(heap, heap_goal, last_heap_goal):
    gc_pace_scavenger(heap, heap_goal, last_heap_goal)
    return int(heap.fields.gc_percent_goal), int(heap.fields.memory_limit_goal)


def test_the_heap_goal_is_a_tenth_more_than_the_heap_will_grow_to():
    heap = heap_with(heap_in_use=60 * MIB, heap_free=40 * MIB, last_heap_in_use=50 * MIB)
    assert goals(heap, 12 * MIB, 10 * MIB) == (66 * MIB, NO_GOAL)
    # odd bytes: rounded down by each division, then up to a page of 4 KiB
    heap.fields.last_heap_in_use = 50 * MIB + 12345
    whole = int(Fraction(50 * MIB + 12345) * Fraction(7, 9))
    assert goals(heap, 7, 9)[0] == -(-(whole + whole // 10) // 4096) * 4096


def test_no_heap_goal_before_the_first_cycle_has_ended_or_where_it_is_met():
    heap = heap_with(heap_in_use=60 * MIB, heap_free=40 * MIB, last_heap_in_use=50 * MIB)
    assert goals(heap, 12 * MIB, 0)[0] == NO_GOAL
    assert goals(heap, 1 << 62, 10 * MIB)[0] == NO_GOAL  # far beyond any heap
    heap.fields.heap_free = 6 * MIB
    assert goals(heap, 12 * MIB, 10 * MIB)[0] == NO_GOAL
    heap.fields.heap_free = 6 * MIB + 4095
    assert goals(heap, 12 * MIB, 10 * MIB)[0] == NO_GOAL
    heap.fields.heap_free = 6 * MIB + 4096
    assert goals(heap, 12 * MIB, 10 * MIB)[0] == 66 * MIB


@pytest.mark.parametrize(("version", "goal"), [("go1.27", 950_000_000), ("go1.19", NO_GOAL), ("go1.14", NO_GOAL)])
def test_five_percent_under_the_limit_but_ninety_times_over_it_in_go119(version, goal):
    heap = heap_with(version, mapped_ready=950_000_001, memory_limit=1_000_000_000)
    assert goals(heap, 1, 1) == (NO_GOAL, goal)
    heap.fields.mapped_ready = 950_000_000
    assert goals(heap, 1, 1)[1] == NO_GOAL
    heap.fields.mapped_ready = 95_000_000_001
    assert goals(heap, 1, 1)[1] == (goal if goal != NO_GOAL else 95_000_000_000)


def test_no_limit_is_no_goal():
    for version in ("go1.19", "go1.27"):
        assert goals(heap_with(version, mapped_ready=100 * GIB), 1, 1)[1] == NO_GOAL


def test_the_background_stops_when_both_goals_are_met():
    heap = heap_with(heap_in_use=5, heap_free=5, mapped_ready=20)
    assert heap_retained(heap) == 10 and should_stop(heap)
    heap.fields.gc_percent_goal, heap.fields.memory_limit_goal = 10, 20
    assert should_stop(heap)
    heap.fields.gc_percent_goal = 9
    assert not should_stop(heap)
    heap.fields.gc_percent_goal, heap.fields.memory_limit_goal = 10, 19
    assert not should_stop(heap)
