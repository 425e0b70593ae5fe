"""MemStats and runtime/metrics: fields, names and identities of the real runtime's; counts of an independent model."""

import json
import random
from bisect import bisect_left
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from sim.go.collect import collect_at_once
from sim.go.metrics import cpu_metrics, gc_metrics, memory_metrics, read_metrics
from sim.go.mstats import (
    MEM_STATS,
    PAUSES,
    CpuStats,
    GcStats,
    check_mem_stats,
    flush_all_mcaches,
    heap_stats,
    mem_stats,
)
from sim.go.runtime import Heap
from sim.go.world import World
from sim.jit import PLAIN
from sim.metrics.go_text import go_json
from sim.units import MS, NS, SEC, US, Throw
from tests.go.prices import made_up_prices
from tests.metrics.cycle_records import cycles

VERSIONS = ("go1.19", "go1.27")
DATA = Path(__file__).parent.parent / "data"
RECORDED = {version: json.loads((DATA / f"runtime_stats_{version}.json").read_text()) for version in VERSIONS}
SIZES = [1, 3, 8, 9, 15, 16, 24, 100, 512, 513, 2000, 18432, 30000, 40_000, 130_000, 1 << 20]


def real_stats(version):
    return json.loads(RECORDED[version]["memstats"])


def real_metrics(version):
    return {name: value for name, _, _, value in RECORDED[version]["metrics"]}


class Used:
    """A world whose goroutines allocated and dropped, collected at the end, and what was asked of it."""

    def __init__(self, version, seed):
        self.sizes, self.dead, self.tiny = [], [], 0
        self.world = World(version, 2, made_up_prices(version), seed, gogc=-1)
        for i in range(3):
            self.world.go(self.worker, random.Random(seed * 10 + i))
        self.world.run()
        flush_all_mcaches(self.world.heap.header)
        self.before = mem_stats(self.world.heap)
        collect_at_once(self.world.heap.header, 0)
        flush_all_mcaches(self.world.heap.header)

    def worker(self, g, rng):
        held = []
        for _ in range(30 if PLAIN else 300):
            size = rng.choice(SIZES)
            pointers = 8 if size >= 8 and rng.random() < 0.5 else 0
            obj = yield g.malloc(size, pointers)
            tiny = size < 16 and not pointers
            self.tiny += tiny
            self.sizes.append(None if tiny else self.slot(size, pointers))
            if not tiny:
                held.append((obj, self.sizes[-1]))
            if held and rng.random() < 0.5:
                obj, slot = held.pop(rng.randrange(len(held)))
                yield g.drop(obj)
                self.dead.append(slot)
        # what is left stays alive: the goroutine's variables outlive it

    def slot(self, size, pointers):
        """Bytes of the slot a request takes, by the recorded sizes; 0 for a large object."""
        known = [row["Size"] for row in real_stats("go1.27")["BySize"]] + [*LAST_CLASSES]
        if self.world.heap.facts.malloc_header and pointers and size > 512:
            size += 8
        return known[bisect_left(known, size)] if size <= 32768 else 0


LAST_CLASSES = (19072, 20480, 21760, 24576, 27264, 28672, 32768)  # classes that MemStats does not tell


@pytest.fixture(scope="module", params=VERSIONS)
def used(request):
    return Used(request.param, 3)


# Fields


@pytest.mark.parametrize("version", VERSIONS)
def test_fields_and_their_order_are_the_recorded_ones(version):
    real = real_stats(version)
    assert tuple(real) == MEM_STATS
    model = json.loads(go_json(mem_stats(Heap(version, 1))))
    assert tuple(model) == MEM_STATS
    for name, value in real.items():
        if name != "GCCPUFraction":  # 0 is 0 in JSON
            assert type(value) is type(model[name])
        if isinstance(value, list):
            assert len(value) == len(model[name])
    assert [row["Size"] for row in model["BySize"]] == [row["Size"] for row in real["BySize"]]
    assert [tuple(row) for row in model["BySize"]] == [tuple(row) for row in real["BySize"]]


@pytest.mark.parametrize("version", VERSIONS)
def test_text_is_as_marshal_writes_it(version):
    assert go_json(real_stats(version)) == RECORDED[version]["memstats"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_identities_hold_in_the_real_runtime(version):
    check_mem_stats(real_stats(version))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Sys", "Sys .* is not HeapSys"),
        ("GCSys", "Sys .* is not HeapSys"),
        ("HeapSys", "Sys .* is not HeapSys"),
        ("HeapIdle", "HeapSys .* is not HeapInuse"),
        ("HeapInuse", "HeapSys .* is not HeapInuse"),
        ("HeapAlloc", "HeapAlloc .* is not Alloc"),
        ("Mallocs", "Mallocs .* is not Frees"),
        ("HeapObjects", "Mallocs .* is not Frees"),
    ],
)
def test_an_identity_that_does_not_hold(name, message):
    stats = real_stats("go1.27")
    stats[name] += 1
    with pytest.raises(Throw, match=message):
        check_mem_stats(stats)


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("HeapReleased", "HeapIdle"),
        ("StackInuse", "StackSys"),
        ("MSpanInuse", "MSpanSys"),
        ("MCacheInuse", "MCacheSys"),
        ("NumForcedGC", "NumGC"),
    ],
)
def test_a_part_that_is_more_than_its_whole(smaller, larger):
    stats = real_stats("go1.27")
    stats[smaller] = stats[larger] + 1
    with pytest.raises(Throw, match=f"{smaller} .* is more than {larger}"):
        check_mem_stats(stats)


def test_more_frees_than_mallocs():
    stats = real_stats("go1.27")
    stats["BySize"][5]["Frees"] = stats["BySize"][5]["Mallocs"] + 1
    with pytest.raises(Throw, match="objects of 48 bytes freed of"):
        check_mem_stats(stats)


# Counts


def test_mallocs_and_frees_are_what_was_asked_for(used):
    stats = mem_stats(used.world.heap)
    assert stats["Mallocs"] == used.before["Mallocs"] == len(used.sizes)
    assert used.before["Frees"] == heap_stats(used.world.heap).tiny_allocs
    made, dead = Counter(used.sizes), Counter(used.dead)
    for row in stats["BySize"]:
        if row["Size"] not in (0, 16):  # large objects; the blocks of tiny objects are among those of 16 bytes
            assert (row["Mallocs"], row["Frees"]) == (made[row["Size"]], dead[row["Size"]])
    objects = heap_stats(used.world.heap)
    assert (objects.large_allocs, objects.large_frees) == (made[0], dead[0]) and dead[0] > 0
    blocks = next(row["Mallocs"] for row in stats["BySize"] if row["Size"] == 16) - made[16]
    assert blocks + objects.tiny_allocs == used.tiny > 0


def test_bytes_are_those_of_the_slots(used):
    before, stats = used.before, mem_stats(used.world.heap)
    objects = heap_stats(used.world.heap)
    small = sum(size * (allocs - frees) for size, allocs, frees in objects.by_size)
    in_large = int(used.world.heap.fields.large_alloc - used.world.heap.fields.large_free)
    assert stats["HeapAlloc"] == small + in_large
    assert before["HeapAlloc"] - stats["HeapAlloc"] == stats["TotalAlloc"] - stats["HeapAlloc"] > 0
    spans = used.world.heap.arrays["spans"]
    in_use = spans[(spans.state == 1)]
    assert stats["HeapAlloc"] == int((in_use.elemsize * in_use.alloc_count).sum())  # nothing is cached: count the slots
    assert stats["HeapInuse"] == int(in_use.npages.sum()) << 13


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("total_alloc", "total_alloc .* and consistent stats .* are not equal"),
        ("large_alloc", "total_alloc .* and consistent stats .* are not equal"),
        ("total_free", "total_free .* and consistent stats .* are not equal"),
        ("large_free", "total_free .* and consistent stats .* are not equal"),
        ("mapped_ready", "mapped_ready .* and Sys .* less HeapReleased are not equal"),
        ("other_sys", "mapped_ready .* and Sys .* less HeapReleased are not equal"),
    ],
)
def test_counts_that_disagree_are_noticed(field, message):
    heap = Heap("go1.27", 1)
    heap.fields[field] += 8192
    with pytest.raises(Throw, match=message):
        mem_stats(heap)


# The collector's part


def test_pauses_of_the_last_256_cycles():
    gc, run = GcStats(), cycles(300)
    for cycle in run:
        gc.add(cycle)
    stats = mem_stats(Heap("go1.27", 1), gc)
    assert (stats["NumGC"], stats["NumForcedGC"]) == (300, 75)
    assert stats["LastGC"] == run[-1].t_end // NS == stats["PauseEnd"][(300 + 255) % 256]
    assert stats["PauseTotalNs"] == sum(cycle.pause_time for cycle in run) // NS
    for cycle in run[-PAUSES:]:
        place = (cycle.number + 255) % 256
        assert (stats["PauseNs"][place], stats["PauseEnd"][place]) == (cycle.pause_time // NS, cycle.t_end // NS)
    assert stats["GCCPUFraction"] == run[-1].gc_cpu_fraction == 1000 / 48_000
    assert gc.pauses.summary().count == gc.stopping.summary().count == 600
    assert gc.pauses.maximum == 69 * US and gc.stopping.maximum == 30 * US


def test_a_cycle_that_is_left_out_is_noticed():
    gc = GcStats()
    with pytest.raises(Throw, match="cycle 2 follows cycle 0"):
        gc.add(cycles(2)[1])


def test_cpu_time_is_of_one_class():
    cpu = CpuStats(idle_time=20 * MS, total_time=100 * MS, scavenge_assist_time=1 * MS, scavenge_bg_time=2 * MS)
    cpu.accumulate_gc_pause_time(3 * MS, 4)
    cpu.accumulate_marking(1 * MS, 5 * MS, 2 * MS, 4 * MS)
    assert (cpu.gc_total_time, cpu.scavenge_total_time, cpu.user_time) == (24 * MS, 3 * MS, 53 * MS)
    found = cpu_metrics(cpu)
    assert found["/cpu/classes/gc/mark/dedicated:cpu-seconds"] == 7 * MS / SEC
    assert found["/cpu/classes/gc/pause:cpu-seconds"] == 12 * MS / SEC


# runtime/metrics

# what a version has and the model does not: what no simulated program does, and what is not counted
NOT_MODELLED = {
    "/cgo/go-to-c-calls:calls",
    "/gc/cleanups/executed:cleanups",
    "/gc/cleanups/queued:cleanups",
    "/gc/finalizers/executed:finalizers",
    "/gc/finalizers/queued:finalizers",
    "/sched/goroutines/not-in-go:goroutines",
    "/sched/goroutines/runnable:goroutines",
    "/sched/goroutines/running:goroutines",
    "/sched/goroutines/waiting:goroutines",
    "/sched/pauses/stopping/other:seconds",
    "/sched/pauses/total/other:seconds",
    "/sched/threads/total:threads",
    "/sync/mutex/wait/total:seconds",
}


def family(name, kinds):
    """The metric a figure belongs to: its own, or the histogram it tells a value of."""
    whole, _, part = name.rpartition("/")
    return whole if kinds.get(whole) == "histogram" and part else name


def test_names_and_kinds_are_those_of_the_version(used):
    version = "go1.27" if used.world.heap.facts.cpu_metrics else "go1.19"
    kinds = {name: kind for name, kind, _, _ in RECORDED[version]["metrics"]}
    found = {name: value for name, value in read_metrics(used.world).items() if not name.startswith("/sim/")}
    assert {family(name, kinds) for name in found} == kinds.keys() - NOT_MODELLED
    for name, value in found.items():
        assert type(value) is {"uint64": int, "float64": float}.get(kinds.get(name), type(value))
        if name.endswith(("/count", "/8", "/large")):
            assert type(value) is int


def check_metrics(found):
    """The identities of runtime/metrics, whoever read them."""

    def total(*names):
        return sum(found[name] for name in names)

    heap = [f"/memory/classes/heap/{part}:bytes" for part in ("objects", "unused", "free", "released", "stacks")]
    others = [name for name in found if name.startswith("/memory/classes/") and name not in heap]
    assert total(*heap) + total(*others) == 2 * found["/memory/classes/total:bytes"]
    assert total("/gc/heap/frees:objects", "/gc/heap/objects:objects") == found["/gc/heap/allocs:objects"]
    assert total("/gc/heap/frees:bytes", heap[0]) == found["/gc/heap/allocs:bytes"]
    assert total("/gc/cycles/automatic:gc-cycles", "/gc/cycles/forced:gc-cycles") == found["/gc/cycles/total:gc-cycles"]
    if "/gc/scan/total:bytes" in found:
        assert total(*(f"/gc/scan/{part}:bytes" for part in ("globals", "heap", "stack"))) == found["/gc/scan/total:bytes"]
        parts = ("gc/total", "idle", "scavenge/total", "user")
        whole = found["/cpu/classes/total:cpu-seconds"]
        assert total(*(f"/cpu/classes/{part}:cpu-seconds" for part in parts)) == pytest.approx(whole, rel=1e-12)
    return total(*heap)


def test_identities(used):
    found = read_metrics(used.world)
    stats = mem_stats(used.world.heap)
    assert check_metrics(found) == stats["HeapSys"] + stats["StackInuse"] > 0
    assert found["/memory/classes/heap/unused:bytes"] == stats["HeapInuse"] - stats["HeapAlloc"]
    for what in ("allocs", "frees"):
        by_size = sum(value for name, value in found.items() if name.startswith(f"/gc/heap/{what}-by-size"))
        assert by_size == found[f"/gc/heap/{what}:objects"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_same_identities_hold_in_the_real_runtime(version):
    found = real_metrics(version)
    check_metrics(found)
    for what in ("allocs", "frees"):
        assert sum(found[f"/gc/heap/{what}-by-size:bytes"]) == found[f"/gc/heap/{what}:objects"]


@pytest.mark.parametrize(
    "name",
    ["/memory/classes/heap/unused:bytes", "/gc/heap/frees:objects", "/gc/heap/frees:bytes", "/gc/cycles/forced:gc-cycles"]
    + ["/gc/scan/heap:bytes", "/cpu/classes/gc/total:cpu-seconds"],
)
def test_an_identity_of_the_metrics_that_does_not_hold(used, name):
    found = read_metrics(used.world)
    if name in found:
        found[name] += 1
        with pytest.raises(AssertionError):
            check_metrics(found)


def test_the_collector_as_the_metrics_tell_it():
    gc = GcStats(gc_percent=200, memory_limit=1 << 30, heap_goal=7, heap_marked=5, heap_scan=3, last_stack_scan=2)
    gc = replace(gc, globals_scan=1, limiter_last_enabled=9, cpu=CpuStats(gc_assist_time=3 * MS))
    for cycle in cycles(4):
        gc.add(cycle)
    today, then = (gc_metrics(Heap(version, 1), gc) for version in ("go1.27", "go1.19"))
    assert then.items() < today.items()
    assert {name: value for name, value in today.items() if "seconds" not in name} == {
        "/gc/cycles/automatic:gc-cycles": 3,
        "/gc/cycles/forced:gc-cycles": 1,
        "/gc/cycles/total:gc-cycles": 4,
        "/gc/gogc:percent": 200,
        "/gc/gomemlimit:bytes": 1 << 30,
        "/gc/heap/goal:bytes": 7,
        "/gc/heap/live:bytes": 5,
        "/gc/limiter/last-enabled:gc-cycle": 9,
        "/gc/scan/globals:bytes": 1,
        "/gc/scan/heap:bytes": 3,
        "/gc/scan/stack:bytes": 2,
        "/gc/scan/total:bytes": 6,
        "/gc/stack/starting-size:bytes": 2048,
    }
    for name in ("/gc/pauses:seconds", "/sched/pauses/total/gc:seconds"):
        assert today[f"{name}/count"] == 8 and today[f"{name}/max"] == 69 * US / SEC
        assert today[f"{name}/p50"] == pytest.approx(49 * US / SEC, rel=0.001)
    assert today["/sched/pauses/stopping/gc:seconds/max"] == 30 * US / SEC


def test_gogc_off_shows_as_in_the_real_runtime():
    assert gc_metrics(Heap("go1.27", 1), GcStats())["/gc/gogc:percent"] == 18446744073709551615  # read with GOGC=off
    assert gc_metrics(Heap("go1.27", 1), GcStats())["/gc/gomemlimit:bytes"] == 9223372036854775807


def test_by_size_holds_what_the_size_classes_count(used):
    found, objects = memory_metrics(used.world.heap), heap_stats(used.world.heap)
    for size, allocs, frees in objects.by_size:
        assert found.get(f"/gc/heap/allocs-by-size:bytes/{size}", 0) == allocs
        assert found.get(f"/gc/heap/frees-by-size:bytes/{size}", 0) == frees
    assert found["/gc/heap/allocs-by-size:bytes/large"] == objects.large_allocs > 0
