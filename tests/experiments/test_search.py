"""Search and sensitivity: functions with known optima and indices in place of the simulator, and one small real search."""

import json
import math
from concurrent.futures import ThreadPoolExecutor

import pytest
from click.testing import CliRunner

from experiments import cli
from experiments.errors import InputError
from experiments.search import Range, Tune, aims, asking, sensitivity, tuning
from experiments.search.aims import Aim, Tried, bound
from experiments.search.metrics import NoFigure, metric
from experiments.search.sensitivity import axes_of, indices
from experiments.search.spec import read_tune
from experiments.stats.paired import paired_difference
from experiments.sweeps import Sweep, read, run_sweep
from experiments.sweeps.pool import Given
from experiments.sweeps.record import Latency, Record
from sim.jit import PLAIN
from sim.metrics.histogram import bucket_of_int

SMALL = """
purpose = "small"
[runtime]
gomaxprocs = 1
[run]
duration = "2ms"
samples = 5
[workload]
kind = "workers"
goroutines = 2
[[workload.objects]]
size = ["64B", "8KiB"]
lifetime = "request"
"""


def record(*microseconds, rss=0, cycles=0):
    """A run whose requests took so long."""
    buckets = sorted({bucket_of_int(us * 10**6) for us in microseconds})
    counts = tuple(sum(bucket_of_int(us * 10**6) == bucket for us in microseconds) for bucket in buckets)
    latency = Latency(0, max(microseconds) * 10**6, (0,) * 6, tuple(buckets), counts)
    series = ((0, 1, 5), (1, 1, rss), (2, 1, 6))
    metrics = {"/gc/cycles/total:gc-cycles": cycles, "/sim/heap/peak:bytes": 10 * cycles}
    return Record(
        "",
        "",
        metrics=metrics,
        latency={"response": latency},
        series_columns=("time_ps", "x", "resident"),
        series=series,
    )


# Figures


def test_figures_of_replications():
    """Of 100 and 100 requests, three of 100 are slow in one run alone: p99 of all is slow, the mean of both is not it."""
    runs = [record(*[10] * 97, *[1000] * 3, rss=70, cycles=4), record(*[10] * 100, rss=90, cycles=7)]
    p99 = metric("response:p99")
    assert [p99.of_run(run) for run in runs] == pytest.approx([1e-3, 1e-5], rel=2e-3)
    assert p99.of_runs(runs) == pytest.approx(1e-3, rel=2e-3)
    assert metric("/sim/latency/response:seconds/p99").of_runs(runs) == p99.of_runs(runs)
    assert metric("peak-rss").of_runs(runs) == 90
    assert metric("/gc/cycles/total:gc-cycles").of_runs(runs) == 5.5
    assert metric("peak-heap").of_runs(runs) == 70
    assert metric("sweep:p50").of_runs(runs) == 0.0  # no malloc swept
    with pytest.raises(NoFigure, match="run-queue:p50: its runs have no such latency; write one of .*malloc.*response"):
        metric("run-queue:p50").of_runs(runs)
    with pytest.raises(NoFigure, match="did you mean /gc/cycles/total:gc-cycles"):
        metric("/gc/cycles/totl:gc-cycles").of_runs(runs)


def test_bounds_are_in_the_unit_of_their_figure():
    assert (bound("peak-rss<=2GiB").limit, bound("response:p99 <= 2ms").limit) == (2 << 30, 2e-3)
    assert (bound("gc-cpu<=5%").limit, bound("throughput>=1e6").limit) == (0.05, 1e6)
    assert bound("peak-rss<=100B").violation(150) == 0.5
    assert bound("throughput>=100").violation(150) == -0.5


def test_the_best_and_the_front():
    """By hand: (cost, memory) with memory at most 10; what breaks the bound ranks behind all that keep it."""
    aim = Aim(metric("gc-cpu"), True, (bound("peak-heap<=10B"),))
    figures = [(5, 10), (1, 12), (6, 4), (5, 9), (7, 4), (), (3, 11), (5, 9)]
    tried = [Tried({"gogc": number}, one) for number, one in enumerate(figures)]
    assert aims.ranked(aim, tried) == [0, 3, 7, 2, 4, 6, 1]
    assert aims.front(aim, tried) == [2, 3, 6, 1]
    most = Aim(metric("throughput"), False)
    assert aims.ranked(most, [Tried({"a": i}, (value,)) for i, value in enumerate((3, 8, 5))]) == [1, 2, 0]


# The search


def convex(points):
    """(x - 3)^2 + (y - 2)^2 where x + y may be 3 at most: least, 2, at (2, 1)."""
    return [Tried(one, ((one["x"] - 3) ** 2 + (one["y"] - 2) ** 2, one["x"] + one["y"])) for one in points]


def test_a_convex_function_within_a_bound():
    pytest.importorskip("optuna", minversion="5")
    aim = Aim(metric("gc-cpu"), True, (bound("throughput<=3"),))
    axes = {"x": Range(0.0, 5.0), "y": Range(0.0, 5.0)}
    tried = asking.search(axes, aim, 100, 8, 1, convex)
    best = tried[aims.ranked(aim, tried)[0]]
    assert best.figures[1] <= 3
    assert 2 <= best.figures[0] < 2.2
    first = [one.values for one in tried[:20]]
    assert [one.values for one in asking.search(axes, aim, 20, 8, 1, convex)] == first
    assert [one.values for one in asking.search(axes, aim, 20, 8, 2, convex)] != first


def test_the_best_of_some_settings():
    pytest.importorskip("optuna", minversion="5")
    aim = Aim(metric("throughput"), False)
    axes = {"shape": ["tree", "list", "array"], "n": Range(1, 4)}
    found = asking.search(axes, aim, 40, 4, 1, lambda points: [Tried(p, (len(p["shape"]) * p["n"],)) for p in points])
    assert found[aims.ranked(aim, found)[0]].values == {"shape": "array", "n": 4}
    assert {one.values["n"] for one in found} <= {1, 2, 3, 4}


def test_failed_points_are_passed_over():
    pytest.importorskip("optuna", minversion="5")
    aim = Aim(metric("gc-cpu"), True)
    found = asking.search(
        {"x": Range(0.0, 1.0)},
        aim,
        24,
        8,
        1,
        lambda points: [Tried(p, (p["x"],) if p["x"] > 0.5 else (), "dead") for p in points],
    )
    assert 0.5 < found[aims.ranked(aim, found)[0]].figures[0] < 0.6


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return Tune(str(path), {"gogc": Range(25, 400, "log")}, "peak-heap", "", ["gc-cpu<=90%"], 6, 2, 3, 2, 3)


@pytest.mark.skipif(PLAIN, reason="some million mallocs")
def test_a_search_goes_on_where_it_was_ended(small, tmp_path, capsys):
    pytest.importorskip("optuna", minversion="5")
    with ThreadPoolExecutor(1) as executor:
        found = tuning.tune(small, tmp_path / "whole", executor, 1)
        crew = Given(executor, lambda: 1)
        watch = tuning.Watch(interrupted=lambda: any((tmp_path / "cut/search/runs").glob("*.gz")))
        assert tuning.carry_out_tune(small, tmp_path / "cut", crew, watch) is None
        held = set((tmp_path / "cut/search/runs").iterdir())
        assert 0 < len(held) < 12
        tuning.tune(small, tmp_path / "cut", executor, 1)
    whole = (tmp_path / "whole" / "found.json").read_bytes()
    assert (tmp_path / "cut" / "found.json").read_bytes() == whole
    assert len(read(tmp_path / "whole" / "search").points) == 6
    best, other = found.confirmed
    assert [run.seed for run in read(tmp_path / "whole" / "confirm").runs] == [3, 4, 5] * 2  # none that the search saw
    assert best.figures[0] == max(best.each) <= max(other.each)
    assert found.against[0] == paired_difference(best.each, other.each, 0.95).interval
    with pytest.raises(SystemExit) as ended:
        cli.main(["show", str(tmp_path / "whole")])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"best: gogc = {found.tried[best.point].values['gogc']}\n" in shown
    assert json.loads(whole)["best"]["figures"]["peak-heap"] == best.figures[0]
    with pytest.raises(InputError, match="cut: holds another search, whose minimise is another; name a new directory"):
        other = Tune(small.scenario, small.axes, "", "peak-heap", small.subject_to, 6, 2, 3, 2, 3)
        tuning.tune(other, tmp_path / "cut", jobs=1)


def test_intervals_of_all_pairs_hold_together(small):
    """Three candidates make three pairs: each interval is one of 1 - 0.05 / 3."""
    each = [(1.0, 2.0, 4.0), (3.0, 3.5, 4.0), (2.0, 4.0, 5.5)]
    confirmed = [tuning.Confirmed(0, (1.0, 0.5), one, 0) for one in each]
    found = tuning._found(small, [Tried({"gogc": 50}, (1.0, 0.5))], confirmed)
    assert [one.estimate for one in found.against] == pytest.approx([7 / 6, 1.5])
    assert all(one.level == pytest.approx(1 - 0.05 / 3) for one in found.against)


@pytest.mark.skipif(PLAIN, reason="some million mallocs")
def test_a_list_may_grow_at_its_end(small, tmp_path):
    with ThreadPoolExecutor(1) as executor:
        for count in (1, 2):
            points = [{"gogc": gogc} for gogc in (50, 60)[:count]]
            results = run_sweep(
                Sweep(small.scenario, kind="list", points=points), tmp_path / "d", executor, 1, ("csv",)
            )
            assert len(list((tmp_path / "d" / "runs").iterdir())) == len(results.runs) == count
        with pytest.raises(InputError, match="of 2 points, not 1"):
            run_sweep(Sweep(small.scenario, kind="list", points=[{"gogc": 50}]), tmp_path / "d", executor, 1)


# Sensitivity


def test_sobol_indices_of_the_ishigami_function():
    """Ishigami and Homma (1990), a = 7, b = 0.1: the variance's parts in closed form."""
    pytest.importorskip("SALib")
    a, b = 7, 0.1
    first = (1 + b * math.pi**4 / 5) ** 2 / 2
    with_third = b**2 * math.pi**8 * (1 / 18 - 1 / 50)
    whole = first + a**2 / 8 + with_third
    problem = {"num_vars": 3, "names": ["x1", "x2", "x3"], "bounds": [[-math.pi, math.pi]] * 3}

    def ishigami(points):
        return [math.sin(p["x1"]) + a * math.sin(p["x2"]) ** 2 + b * p["x3"] ** 4 * math.sin(p["x1"]) for p in points]

    found = indices(problem, ishigami, "sobol", 1024, 1)
    assert found["S1"] == pytest.approx([first / whole, a**2 / 8 / whole, 0], abs=0.03)
    assert found["ST"] == pytest.approx([1 - a**2 / 8 / whole, a**2 / 8 / whole, with_third / whole], abs=0.03)


def test_morris_effects_of_a_plane():
    """Of 2 x + 3 ln y the effects are the same everywhere: through the whole range 2 * 10 and 3 ln 100."""
    pytest.importorskip("SALib")
    problem = {"names": ["x", "y"], "bounds": [[0.0, 10.0], [1.0, 100.0]], "dists": ["unif", "logunif"]}
    found = indices(problem, lambda points: [2 * p["x"] + 3 * math.log(p["y"]) for p in points], "morris", 8, 1)
    assert found["mu_star"].tolist() == pytest.approx([20, 3 * math.log(100)], rel=1e-4)
    assert found["sigma"].tolist() == pytest.approx([0, 0], abs=1e-3)


@pytest.mark.skipif(PLAIN, reason="some million mallocs")
def test_what_gogc_does_to_the_number_of_cycles(small, tmp_path):
    pytest.importorskip("SALib")
    problem = {"names": ["gogc", "memory_limit"], "bounds": [[50, 400], ["10GiB", "20GiB"]]}
    with ThreadPoolExecutor(1) as executor:
        found = sensitivity(
            problem,
            small.scenario,
            "/gc/cycles/total:gc-cycles",
            tmp_path / "d",
            "morris",
            2,
            executor=executor,
            jobs=1,
        )
    assert found["mu"][0] < 0 == found["mu_star"][1]  # a larger GOGC collects less often; such a limit does nothing
    assert len(read(tmp_path / "d").points) == 2 * 3


# What is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"minimise": ""}, "tune: wants one of minimise and maximise"),
        ({"maximise": "gc-cpu"}, "tune: wants one of minimise and maximise"),
        ({"minimise": "p99"}, "tune.minimise: 'p99' is no figure; write response:p99.9"),
        ({"minimise": "/gc/pauses:seconds/p99"}, "percentiles of several runs make none of all; write its maximum"),
        ({"subject_to": "peak-rss<=2GiB"}, 'is no list; write ["peak-rss <= 2GiB"]'),
        ({"subject_to": ["peak-rss < 2GiB"]}, "is no bound; write FIGURE<=VALUE or FIGURE>=VALUE"),
        ({"subject_to": ["peak-rss<=2ms"]}, "'2ms' is no bound on peak-rss; write a size such as 2GiB"),
        ({"subject_to": ["gc-cpu<=much"]}, "'much' is no bound on gc-cpu; write a number such as 0.05"),
        ({"samples": 0}, "tune.samples: 0 is not allowed; write a whole number from 1"),
        ({"confirm": 1}, "tune.confirm: 1 is not allowed; write a whole number from 2"),
        ({"seed": -1}, "tune.seed: -1 is not allowed"),
        ({"axes": {}}, "axes: missing"),
        ({"axes": {"gogc": Range(400, 25)}}, "axes.gogc: low 400 is not below high 25"),
        ({"axes": {"gcog": Range(25, 400)}}, "gcog: unknown key; did you mean"),
    ],
)
def test_a_wrong_search_is_refused(changes, said):
    right = {"scenario": "api-service", "axes": {"gogc": Range(25, 400)}, "minimise": "gc-cpu"}
    with pytest.raises(InputError) as refused:
        Tune(**(right | changes))
    (line,) = str(refused.value).splitlines()
    assert said in line


def test_a_file_and_what_the_command_line_says_of_it(tmp_path):
    file = tmp_path / "tune.toml"
    text = (
        'scenario = "small.toml"\n[tune]\nminimise = "gc-cpu"\nsamples = 9\n[axes]\ngogc = { low = 25, high = 400 }\n'
    )
    file.write_text(text)
    (tmp_path / "small.toml").write_text(SMALL)
    asked = read_tune(
        str(file), {"maximise": "throughput", "minimise": None, "seed": 4}, ["gogc=50..100:log", "gomaxprocs=1,2"]
    )
    assert asked == Tune(
        "small.toml", {"gogc": Range(50, 100, "log"), "gomaxprocs": [1, 2]}, maximise="throughput", samples=9, seed=4
    )
    alone = read_tune(str(tmp_path / "small.toml"), {"minimise": "gc-cpu"}, ["memory_limit=1MiB..2GiB"])
    assert (alone.scenario, alone.axes) == (str(tmp_path / "small.toml"), {"memory_limit": Range("1MiB", "2GiB")})
    for more, said in (("[tunes]\n", "unknown key; did you mean tune?"), ("[set]\nx = 1\n", "x: unknown key")):
        file.write_text(text + more)
        with pytest.raises(InputError, match=said):
            read_tune(str(file), {})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.toml"], "nowhere.toml"),
        (["api-service", "--axis", "gogc"], "api-service: --axis gogc: is no axis; write gogc=25..400"),
        (["api-service", "--minimise", "gc-cpu"], "api-service: axes: missing"),
        (
            ["api-service", "--minimise", "gc-cpu", "--axis", "gogc=5..50", "-o", "no/d"],
            "there is no directory no; make it first",
        ),
    ],
)
def test_the_command_refuses_in_one_line(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["tune", *arguments, *([] if "-o" in arguments else ["-o", "d"])])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_other_directories_are_left_as_they_are(small, tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").write_text("mine")
    with pytest.raises(InputError, match="d: exists and holds no search; name a new directory"):
        tuning.tune(small, tmp_path / "d", jobs=1)
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["mine"]


def test_without_the_extra_it_says_what_to_install(small, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    monkeypatch.setitem(__import__("sys").modules, "SALib.analyze", None)
    with pytest.raises(InputError, match=r"optuna is not installed; pip install 'allocsim\[search\]'"):
        asking.search({"x": Range(0.0, 1.0)}, small.aim, 1, 1, 1, convex)
    with pytest.raises(InputError, match=r"SALib is not installed; pip install 'allocsim\[search\]'"):
        indices({"names": ["x"], "bounds": [[0.0, 1.0]]}, lambda points: [0.0], "morris", 2, 1)


@pytest.mark.parametrize(
    ("problem", "said"),
    [
        ({"names": ["gogc"]}, "problem: .* is none; write"),
        ({"names": ["gogc"], "bounds": [[1, 2], [3, 4]]}, "problem: names: has 1 names, 2 bounds, 1 dists"),
        ({"names": ["gogc"], "bounds": [[1, 2]], "dists": ["norm"]}, "problem: dists: .norm. is not known here"),
        ({"names": ["gogc"], "bounds": [[1, 2, 3]]}, "problem: bounds: .* of gogc are no two ends"),
    ],
)
def test_a_wrong_problem_is_refused(problem, said):
    with pytest.raises(InputError, match=said):
        axes_of(problem)


def test_help_needs_no_numba():
    assert "Exit status 1: no point keeps the bounds" in CliRunner().invoke(cli.app, ["tune", "-h"]).output.replace(
        "\n  ", " "
    )
