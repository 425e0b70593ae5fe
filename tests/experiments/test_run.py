"""The main job as a whole: same seed same bytes, exact counts, invariants at the end, interruption."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.run import run
from sim.jit import PLAIN
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
    used = sum(value for key, value in result.metrics.items() if key.startswith("/memory/classes/heap/"))
    assert used == result.metrics["/memory/classes/total:bytes"] - sum(
        value for key, value in result.metrics.items() if "metadata" in key or "classes/other" in key
    )


_CODE = """
import json, sys
from experiments.run import run
from workloads.scenario import load
result = run(load(sys.argv[1], sys.argv[3:], int(sys.argv[2])))
print(json.dumps([result.to_dict(), result.series.rows, [c.tolist() for c in map(lambda a: a[a > 0], result.counts.values())]]))
"""


def bytes_of(name, seed, hash_seed, *sets):
    """What a run of another process printed."""
    return subprocess.run(
        [sys.executable, "-c", _CODE, name, str(seed), *sets],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        check=True,
    ).stdout


@pytest.mark.skipif(PLAIN, reason="the compiled runs are what users compare")
@pytest.mark.parametrize("name", ["api-service", "many-goroutines"])
def test_same_seed_same_bytes_in_any_process(name):
    sets = (f"mallocs={SMALL}", *(("goroutines=50",) if name == "many-goroutines" else ()))
    first = bytes_of(name, 7, "1", *sets)
    assert first == bytes_of(name, 7, "2", *sets)
    assert first != bytes_of(name, 8, "1", *sets)
    json.loads(first)


@pytest.mark.parametrize("name", ["ten-size", "api-service", "large-objects"])
def test_run_ahead_bound_does_not_show(name):
    """Halving max_run_ahead changes how often Ps wait for each other, and nothing that a user sees."""

    def seen(bound):
        answer = run(small(name, f"max_run_ahead={bound}")).to_dict()
        assert answer["metrics"].pop("/sim/segments:segments") > 0
        assert answer["config"]["run"].pop("max_run_ahead") == bound
        return answer

    assert seen("1us") == seen("500ns")


def test_a_run_ends_at_its_duration_whatever_comes_first():
    scenario = load("ten-size", ("duration=20us" if PLAIN else "duration=2ms", "mallocs=100000000"))
    result = run(scenario)
    assert result.metrics["/sim/time:seconds"] * 1000 * MS == scenario.duration_ps
    assert not result.cut_short


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
