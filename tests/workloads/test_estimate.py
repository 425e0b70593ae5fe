"""Estimates of a workload against the simulated heap, and slot sizes against the allocator's own."""

import pytest

from experiments.run import build
from sim.go.params import VERSIONS
from sim.jit import PLAIN
from workloads.drive import Load
from workloads.estimate import bytes_a_malloc, live_bytes, slot_bytes
from workloads.scenario import load

GO127, GO119 = VERSIONS["go1.27"], VERSIONS["go1.19"]
MALLOCS = 2_000 if PLAIN else 200_000


def running(name, *sets):
    """A world at the moment when its workers have made so many mallocs, which go on; and the scenario."""
    scenario = load(name, ("gogc=off", f"mallocs={2 * MALLOCS}", *sets))
    world = build(scenario)
    Load(world).start_workers(scenario.workload, scenario.mallocs)
    procs = world.heap.arrays["procs"]
    while int(procs["mallocs"].sum()) < MALLOCS:
        world.run(until=world.now + 10_000_000)
    return scenario, world


def test_slots_are_those_of_the_versions():
    assert [slot_bytes(size, True, GO127) for size in (8, 24, 33, 512, 513, 1024, 32_760)] == [
        8, 24, 48, 512, 576, 1152, 32_768,
    ]  # fmt: skip
    assert [slot_bytes(size, False, GO127) for size in (3, 15, 16, 1024, 32_760, 32_769)] == [3, 15, 16, 1024, 32_768, 40_960]
    assert [slot_bytes(size, True, GO119) for size in (513, 1024, 32_768, 32_769)] == [576, 1024, 32_768, 40_960]


@pytest.mark.parametrize(
    "sets",
    [
        ("objects=[{size='64B', lifetime='immortal', pointers=0.5}]",),
        ("objects=[{size=['16B', '1000B'], pointers=1.0, lifetime={ops=400}}]",),
        ("objects=[{size={low='100B', high='4KiB'}, lifetime={ops=10}}, {size='32B', lifetime='immortal', weight=0.5}]",),
        ("objects=[{size='128B', lifetime={bytes='4KiB'}}, {size='64B', weight=3, lifetime={cache=30}}]",),
    ],
)
def test_what_is_live_is_what_the_workload_declares(sets):
    scenario, world = running("ten-size", "goroutines=4", "gomaxprocs=4", *sets)
    mallocs = int(world.heap.arrays["procs"]["mallocs"].sum())
    expected = live_bytes(scenario.workload, GO127, mallocs)
    assert int(world.heap.fields.live_bytes) == pytest.approx(expected, rel=0.1 if not PLAIN else 0.3)


def test_bytes_of_a_malloc_are_those_of_the_heap():
    scenario, world = running("batch-worker")
    mallocs = int(world.heap.arrays["procs"]["mallocs"].sum())
    objects = int(world.heap.fields.heap_in_use)
    assert objects / mallocs == pytest.approx(bytes_a_malloc(scenario.workload.mix, GO127), rel=0.5 if PLAIN else 0.1)


def test_no_more_is_live_than_was_made():
    scenario = load("cache-eviction")
    settled = live_bytes(scenario.workload, GO127)
    assert live_bytes(scenario.workload, GO127, 1000) < settled / 10
    assert live_bytes(scenario.workload, GO127, 10**9) == settled
    assert live_bytes(load("api-service").workload, GO127) == pytest.approx(4000 * 4.6 * 1024, rel=0.05)
