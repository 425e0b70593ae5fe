"""While the collector marks, what a variable held and what it takes is noted by the write barrier, which takes its time."""

from dataclasses import replace

import numpy as np
import pytest

from sim.costs import Price
from sim.go.params import VERSIONS
from sim.go.state import FRESH
from sim.go.world import World
from sim.ops import ALLOC, COMPUTE, DEAD, NEEDZERO, NO_OBJ, NOSCAN, OP, SHARED
from sim.units import KIB, NS, US
from tests.go.prices import made_up_prices

NOTE = 7 * NS
# kind, variable, bytes; and the pointers that the barrier notes
WRITES = [
    (ALLOC, 0, 64, 1),  # it was nil
    (ALLOC, 0, 64, 2),
    (ALLOC, 0, 64 * KIB, 2),
    (ALLOC, NO_OBJ, 64, 0),
    (DEAD, 0, 0, 1),
    (DEAD, 0, 0, 0),
    (ALLOC, 1, 8, 1),  # tiny
    (ALLOC, 1, 8, 2),  # in the same block
    (COMPUTE, 0, 0, 0),
]


def a_world(note=NOTE, **options):
    prices = made_up_prices()
    apart = (Price(3 * US),) * 136
    heaps = [replace(heap, write_barrier=note, refill_fresh=apart) for heap in prices.heaps]
    facts = replace(VERSIONS["go1.27"], gc_assists=False)
    return World(facts, 1, replace(prices, heaps=heaps), 1, gogc=-1, **options)


def batch(flags):
    ops = np.zeros(len(WRITES), OP)
    ops["kind"], ops["obj"], ops["arg"] = zip(*(one[:3] for one in WRITES), strict=True)
    ops["flags"] = NOSCAN | flags
    return ops


def computed(world, flags=0, marking=True):
    """Picoseconds that the program computed beside its first touches."""
    if flags:
        world.roots.reserve_shared_up_to(2)
    world.heap.fields.gc_blacken_enabled = marking
    world.run(until=world.go(lambda g: (yield g.run(batch(flags), 0 if flags else 2))))
    return world.sched.procs[0].times()["compute"]


@pytest.mark.parametrize("flags", [0, SHARED])
def test_each_pointer_that_a_variable_held_or_takes_is_noted(flags):
    assert computed(a_world(), flags) == NOTE * sum(notes for *_, notes in WRITES)


def test_nothing_is_noted_unless_the_collector_marks():
    assert computed(a_world(), marking=False) == 0


def test_a_program_whose_times_have_barriers_in_them_pays_none():
    assert computed(a_world(write_barriers=False)) == 0


@pytest.mark.parametrize("then", [0, 100 * US])
def test_barriers_of_an_allocation_that_is_cleared_apart_are_paid_with_it(then):
    """By whoever runs there then, if it is the last of a batch."""
    world = a_world()
    world.heap.fields.gc_blacken_enabled = 1
    ops = np.zeros(2 if then else 1, OP)
    ops["kind"], ops["arg"], ops["flags"] = COMPUTE, then, NEEDZERO | NOSCAN
    ops[0]["kind"], ops[0]["arg"] = ALLOC, 640 * KIB
    world.run(until=world.go(lambda g: (yield g.run(ops, 1))))
    assert world.sched.procs[0].times()["compute"] == NOTE + then
    assert not world.heap.arrays["goroutines"]["noted"].any()


def test_a_barrier_is_no_work_between_two_mallocs():
    """In a loop that does nothing but malloc, a refill with a fresh span takes what it does in such a loop."""

    def fresh_alone(note, between=0):
        world = a_world(note)
        world.heap.fields.gc_blacken_enabled = 1
        ops = np.array([(ALLOC, NOSCAN, 0, 1024, 0), (COMPUTE, 0, 0, between, 0)] * 100, OP)
        world.run(until=world.go(lambda g: (yield g.run(ops, 1))))
        return int(world.heap.arrays["cause_time"][FRESH])

    assert fresh_alone(0) == fresh_alone(NOTE) != fresh_alone(0, NOTE)


@pytest.mark.parametrize("run_ahead", [False, True])
def test_a_program_makes_fewer_mallocs_in_a_cycle_by_what_barriers_take(run_ahead):
    """Half of the time of each malloc and death goes to the barrier: its computing is twice as long, as is the batch."""

    def times(note):
        world = a_world(note, run_ahead=run_ahead)
        world.heap.fields.gc_blacken_enabled = 1
        ops = np.zeros(300, OP)
        ops["kind"] = np.tile([ALLOC, COMPUTE, DEAD], 100)
        ops["arg"] = np.tile([64, 2 * US, 0], 100)
        ops["flags"] = NOSCAN
        done = world.go(lambda g: (yield g.run(ops, 1)))
        world.run(until=done)
        return world.now, world.sched.procs[0].times()["compute"]

    (without, _), (with_barriers, computing) = times(0), times(1 * US)
    assert computing == 400 * US and with_barriers - without == 200 * US
