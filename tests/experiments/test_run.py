"""The main job as a whole: same seed same bytes, exact counts, invariants at the end, interruption."""

import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import experiments.run
from experiments.run import build, run
from sim.jit import PLAIN
from sim.metrics.perfetto import packets
from sim.units import MS
from workloads.scenario import list_scenarios, load

ROOT = Path(__file__).parent.parent.parent
SMALL = 300 if PLAIN else 20_000
NAMES = [name for name, _ in list_scenarios()]


def small(name, *sets):
    """A shipped scenario, cut down to so many mallocs and a few Ps."""
    goroutines = ("goroutines=50",) if name == "many-goroutines" else ()
    return load(name, (f"mallocs={SMALL}", *goroutines, *sets))


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_scenario_runs_and_keeps_every_invariant(name):
    result = run(small(name), check=True)
    assert not result.cut_short
    whole = result.latency["all"]
    mallocs = result.metrics["/sim/mallocs:objects"]
    assert whole.count == mallocs >= SMALL
    assert mallocs == SMALL or name == "api-service"  # the last request is served to its end
    parts = [one for cause, one in result.latency.items() if cause != "all"]
    assert sum(part.total for part in parts) == whole.total
    assert all(part.maximum <= whole.maximum for part in parts)
    counted = result.metrics["/gc/heap/allocs:objects"] + result.metrics["/gc/heap/tiny/allocs:objects"]
    assert counted == mallocs + result.metrics.get("/sim/trace/inherited:objects", 0)
    assert result.metrics["/memory/classes/heap/objects:bytes"] >= result.metrics["/sim/live:bytes"]
    used = sum(value for key, value in result.metrics.items() if key.startswith("/memory/classes/heap/"))
    assert used == result.metrics["/memory/classes/total:bytes"] - sum(
        value for key, value in result.metrics.items() if "metadata" in key or "classes/other" in key
    )


_CODE = """
import json, sys
import experiments.run
from experiments.run import build, run
from workloads.scenario import load
for name, seed, *sets in json.loads(sys.argv[1]):
    result = run(load(name, sets, seed))
    counts = [c.tolist() for c in map(lambda a: a[a > 0], result.counts.values())]
    print(json.dumps([result.to_dict(), result.series.rows, counts]))
"""


def bytes_of(hash_seed, runs):
    """What another process printed of runs, each a line."""
    return subprocess.run(
        [sys.executable, "-c", _CODE, json.dumps(runs)],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
    ).stdout.splitlines()


@pytest.mark.skipif(PLAIN, reason="the compiled runs are what users compare")
def test_same_seed_same_bytes_in_any_process():
    """Whatever else ran in it before."""
    service, many = (f"mallocs={SMALL}",), (f"mallocs={SMALL}", "goroutines=50")
    runs = [("api-service", 7, *service), ("many-goroutines", 7, *many)]
    first, second, third, fourth = bytes_of("1", [*runs, ("api-service", 8, *service), ("many-goroutines", 8, *many)])
    assert bytes_of("2", runs[::-1]) == [second, first]
    assert third != first and fourth != second
    json.loads(first), json.loads(second)


@pytest.mark.parametrize("name", ["ten-size", "api-service", "large-objects"])
def test_run_ahead_bound_does_not_show(name):
    """Halving max_run_ahead changes how often Ps wait for each other, and without a collector nothing that a user sees.

    With one, tests/experiments/test_max_run_ahead.py says what it does.
    """

    def seen(bound):
        answer = run(small(name, "gogc=off", f"max_run_ahead={bound}")).to_dict()
        assert answer["metrics"].pop("/sim/segments:segments") > 0
        assert answer["config"]["run"].pop("max_run_ahead") == bound
        return answer

    assert seen("1us") == seen("500ns")


def test_a_run_ends_at_its_duration_whatever_comes_first():
    scenario = load("ten-size", ("duration=20us" if PLAIN else "duration=2ms", "mallocs=100000000"))
    result = run(scenario)
    assert result.metrics["/sim/time:seconds"] * 1000 * MS == scenario.duration_ps
    assert not result.cut_short


# The collector


def seen(monkeypatch, *arguments):
    """The result of a run, and its world."""
    worlds = []

    def built(*those):
        worlds.append(build(*those))
        return worlds[-1]

    monkeypatch.setattr(experiments.run, "build", built)
    return run(load(*arguments), check=True), worlds[0]


@pytest.mark.skipif(PLAIN, reason="100,000 mallocs and more")
@pytest.mark.parametrize("name", ["api-service", "batch-worker", "cache-eviction", "large-objects", "many-goroutines"])
def test_collecting_scenarios_have_several_cycles_and_their_figures(monkeypatch, name):
    size = {"large-objects": 50_000, "many-goroutines": 500_000}.get(name, 400_000)
    result, world = seen(monkeypatch, name, (f"mallocs={size}",))
    metrics, cycles = result.metrics, result.cycles
    assert metrics["/gc/cycles/total:gc-cycles"] == len(cycles) >= 3
    assert metrics["/gc/pauses:seconds/count"] == 2 * len(cycles)
    pauses = [pause for one in cycles for pause in (one.pause_sweep_term, one.pause_mark_term)]
    assert metrics["/gc/pauses:seconds/max"] * 1e12 == pytest.approx(max(pauses))
    assert min(pauses) <= metrics["/gc/pauses:seconds/p50"] * 1e12 <= max(pauses)
    assert metrics["/sim/heap/peak:bytes"] >= max(cycle.heap1 for cycle in cycles)
    # the collector's time as its cycles tell it, and as the Ps do (theirs has the sweeping before the first pause too)
    spent = sum(metrics[f"/sim/time/{kind}:cpu-seconds"] for kind in ("assist", "gc-dedicated", "gc-fractional"))
    whole = metrics["/sim/time:seconds"] * world.heap.fields.nprocs
    # with the stopper's own share of the pauses at least, and at most that of all Ps, of which some may be idle
    least, most = ((spent + n * sum(pauses) / 1e12) / whole for n in (1, int(world.heap.fields.nprocs)))
    assert 0.95 * least <= metrics["/sim/gc/cpu:share"] <= 1.05 * most
    assert 0 <= metrics["/sim/gc/assists:share"] < metrics["/sim/gc/cpu:share"] < 1
    assert {"assist", "flush_span", "mark_stack", "mark_specials", "write_barrier", "globals"} <= set(result.assumed)


@pytest.mark.skipif(PLAIN, reason="100,000 mallocs and more")
def test_without_assists_nobody_marks_in_malloc_and_the_heap_overshoots_its_goal():
    def overshoot(assists):
        result = run(load("batch-worker", ("mallocs=400000", f"assists={assists}")), check=True)
        return result, max(cycle.heap1 / cycle.heap_goal for cycle in result.cycles)

    (on, within), (off, beyond) = overshoot("true"), overshoot("false")
    assert "assist" in on.latency and "assist" in on.assumed
    assert not {"assist", "assist_parked"} & off.latency.keys() and "assist" not in off.assumed
    assert off.metrics["/sim/gc/assists:share"] == 0
    assert within < 1.2 < beyond  # the last of marking, the barriers and the stop after it let the heap grow a little


@pytest.mark.skipif(PLAIN, reason="100,000 mallocs and more")
def test_gauges_of_the_heap_agree_with_each_other():
    result = run(load("cache-eviction", ("mallocs=400000",)))
    rows = [dict(zip(result.series.columns, row, strict=True)) for row in result.series.rows]
    assert len(rows) > 50
    for row in rows:
        assert row["live_bytes"] <= row["heap_live"] <= result.metrics["/sim/heap/peak:bytes"]
        assert row["heap_live"] <= row["heap_in_use"] and row["resident"] <= row["mapped_ready"]
        assert row["heap_goal"] >= 4 << 20
    assert any(row["heap_live"] > after["heap_live"] for row, after in pairwise(rows)), "collections make it fall"


def test_without_a_collector_nothing_of_it_is_paid_or_assumed():
    result = run(small("batch-worker", "gogc=off"))
    assert not {"assist", "flush_span", "mark_stack", "mark_specials", "write_barrier", "globals"} & set(result.assumed)
    assert result.metrics["/gc/cycles/total:gc-cycles"] == result.metrics["/sim/gc/cpu:share"] == 0
    assert result.metrics["/sim/heap/peak:bytes"] >= result.metrics["/sim/live:bytes"]
    goals = [row[result.series.columns.index("heap_goal")] for row in result.series.rows]
    assert set(goals) == {0}, "none"


@pytest.mark.skipif(PLAIN, reason="100,000 mallocs and more")
def test_the_collector_is_switched_on_and_off_while_the_program_runs(monkeypatch):
    changes = "runtime.change=[{at='2ms', gogc=50}, {at='4ms', gogc='off'}]"
    result, _ = seen(monkeypatch, "batch-worker", ("gogc=off", "duration=8ms", changes))
    begun = [cycle.t_sweep_term for cycle in result.cycles]
    assert len(begun) > 3
    assert 2 * MS <= begun[0] < 2.1 * MS and begun[-1] < 4.1 * MS


@pytest.mark.skipif(PLAIN, reason="100,000 mallocs and more")
def test_a_memory_limit_holds_from_when_it_is_set(monkeypatch):
    changes = "runtime.change=[{at='40ms', memory_limit='40MiB'}]"
    result, _ = seen(monkeypatch, "cache-eviction", (changes,))
    before = [cycle for cycle in result.cycles if cycle.t_end < 40 * MS]
    after = [cycle for cycle in result.cycles if cycle.t_sweep_term > 40 * MS]
    assert max(cycle.heap_goal for cycle in before) > 40 << 20 > max(cycle.heap_goal for cycle in after)
    assert len(after) > len(before)
    assert result.metrics["/sim/heap/peak:bytes"] > 40 << 20


def test_a_larger_gogc_means_fewer_cycles_and_a_larger_heap(monkeypatch):
    def figures(gogc):
        metrics = run(small("cache-eviction", f"gogc={gogc}", f"mallocs={400 if PLAIN else 200_000}")).metrics
        return metrics["/gc/cycles/total:gc-cycles"], metrics["/sim/heap/peak:bytes"]

    few, many = figures(400), figures(50)
    assert few[0] < many[0] and few[1] > many[1] or PLAIN


def test_an_interrupted_run_keeps_what_was_there():
    polls = iter([False, True])
    shares = []
    result = run(load("ten-size", ("mallocs=100000000",)), shares.append, lambda: next(polls), check=True)
    assert result.cut_short and result.to_dict()["cut_short"]
    assert 0 < result.latency["all"].count == result.metrics["/sim/mallocs:objects"] < 100_000_000
    assert shares == sorted(shares) and 0 < shares[-1] < 1


def test_a_service_counts_from_the_intended_arrival():
    """Overloaded twice over, the queue grows all the time: responses of the last requests take half the whole run."""
    sets = [
        "gomaxprocs=1",
        "cpus=1",
        "workload.arrivals='constant'",
        "workload.rate=20000",
        "workload.phases=[{compute='100us', mallocs=2}]",
    ]
    requests = 30 if PLAIN else 400
    result = run(load("api-service", (*sets, f"duration={requests * 50}us")))
    took = result.metrics["/sim/time:seconds"]
    assert result.response.count == result.metrics["/sim/requests/done:requests"] == requests - 1
    assert result.response.maximum / 1e12 == pytest.approx(took / 2, rel=0.05)
    assert result.queued.total / result.response.total > 0.9
    light = run(load("api-service", (*sets, "workload.rate=2000", f"duration={requests * 500}us")))
    assert light.response.percentiles[0] / 1e6 == pytest.approx(100, rel=0.1)


@pytest.mark.skipif(PLAIN, reason="a quarter of a million mallocs")
def test_a_timeline_has_sweeps_where_they_are_paid():
    """What a refill swept before it waited for a lock passes after that: within the goroutine's own slices."""
    timeline = run(load("api-service", ["duration=80ms", "gomaxprocs=8"]), timeline=True).timeline
    b"".join(packets(timeline, "api-service"))  # slices nest
    rows = zip(timeline.slice_tracks, timeline.begins, timeline.ends, timeline.slice_names, strict=True)
    slices = [(track, begin, end, timeline.names[name]) for track, begin, end, name in rows]
    own = {row[:3] for row in slices if row[3].startswith("request/")}
    sweeps = [row for row in slices if row[3] == "sweep" and timeline.tracks[row[0]].name.startswith("P")]
    assert len(sweeps) > 10
    for track, begin, end, _ in sweeps:
        assert any(t == track and b <= begin and end <= e for t, b, e in own)
