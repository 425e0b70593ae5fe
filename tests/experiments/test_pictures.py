"""What pictures draw, against slow computations of the same from raw values, tables and cycles; how they are written."""

import csv
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from scipy import stats

from experiments import cli, result
from experiments.errors import InputError
from experiments.pictures import canvas, curves, of_runs, of_sweep, tails
from experiments.pictures.heap import heap, read_series
from experiments.pictures.pareto import front
from experiments.pictures.points import axes_of, gather
from experiments.run import run
from experiments.sweeps import Sweep, read, run_sweep
from workloads.scenario import load

pytest.importorskip("matplotlib")

ROOT = Path(__file__).parent.parent.parent
SETTINGS = ["mallocs=70000"]
AXES = {"gogc": [50, 200], "memory_limit": ["off", "8MiB"]}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A result with some cycles, in a directory."""
    folder = tmp_path_factory.mktemp("stored") / "run"
    result.store(
        result.free_directory(str(folder)), run(load("api-service", SETTINGS, 1)), {"date": "2026-01-01", "host": "h"}
    )
    return folder


def swept(folder, **others):
    sweep = Sweep("api-service", **{"axes": AXES, "replications": 5, "set": {"mallocs": 15_000}} | others)
    with ThreadPoolExecutor(1) as one:
        return run_sweep(sweep, folder, one, 1, ["csv"])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return swept(tmp_path_factory.mktemp("swept") / "sweep")


def rows(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def buckets(values):
    """The histogram of values below 2048 ps, which have a bucket each."""
    return [(value, value, count) for value, count in sorted(Counter(values).items())]


# Tails


def test_a_tail_counts_what_is_greater():
    values = np.random.default_rng(1).integers(0, 2048, 700).tolist()
    found = tails.tail(buckets(values))
    x = np.arange(2100)
    assert found.at(x).tolist() == [sum(value > one for value in values) for one in x]
    assert found.share[-1] == 0


def test_shares_are_those_of_raw_mallocs():
    rng = np.random.default_rng(2)
    mallocs = []
    for number in range(4000):
        fast, kind = int(rng.integers(1, 20)), rng.random()
        parts = {"fast": fast}
        if number < 4:
            parts |= {"grow": 600} if number < 2 else {"sweep": 600}
        elif kind < 0.08:
            parts |= {"zero": int(rng.integers(20, 1000))}
        elif kind < 0.12:
            parts |= {"assist": int(rng.integers(500, 1900))}
        elif kind < 0.15:
            parts |= {"zero": int(rng.integers(200, 500)), "assist": int(rng.integers(200, 500))}
        mallocs.append(parts)
    causes = ("fast", "zero", "assist", "grow", "sweep")
    histograms = {cause: buckets([one[cause] for one in mallocs if cause in one]) for cause in causes}
    found = tails.shares({"all": buckets([sum(one.values()) for one in mallocs])} | histograms)
    assert list(found.by_cause) == ["zero", "assist", tails.OTHERS, tails.TOGETHER]
    unseen = 0
    for i, above in enumerate(found.above.tolist()):
        longer = [one for one in mallocs if sum(one.values()) > above]
        assert 0 < len(longer) <= 400
        alone = {cause: sum(one.get(cause, 0) > above for one in longer) for cause in causes}
        assert sum(share[i] for share in found.by_cause.values()) == pytest.approx(1)
        parts = max(len(longer), sum(alone.values()))
        assert found.by_cause["zero"][i] == pytest.approx(alone["zero"] / parts)
        assert found.by_cause["assist"][i] == pytest.approx(alone["assist"] / parts)
        assert found.by_cause[tails.OTHERS][i] == pytest.approx(
            (alone["grow"] + alone["sweep"] + alone["fast"]) / parts
        )
        if above >= 500:  # no malloc has two causes so long: the rest is exact
            none = sum(all(time <= above for time in one.values()) for one in longer)
            unseen += none
            assert found.by_cause[tails.TOGETHER][i] == pytest.approx(none / len(longer))
    assert unseen


def test_percentiles_are_marked_on_the_curve(stored):
    drawn = of_runs.read_runs([str(stored)])[0]
    upper = of_runs.latency([drawn]).axes[0]
    curve, *marks = upper.lines
    for mark in marks:
        (time,), (share,) = mark.get_data()
        after = curve.get_xdata() >= time
        assert curve.get_ydata()[after][0] <= share * 1.0001
        assert curve.get_ydata()[~after][-1] >= share * 0.9999
    assert len(marks) == 4


# The heap


def test_goals_of_cycles_are_those_that_the_runtime_told(stored):
    cycles = result.read(str(stored)).cycles
    series = read_series(str(stored))
    assert len(cycles) > 3
    found = heap({name: values[:1] for name, values in series.items()}, cycles)
    times, goals = found.goals.T
    known = np.array(series["time_ps"]) < cycles[-1].t_end  # what the next cycle's goal is only the next one tells
    told = goals[np.searchsorted(times, series["time_ps"], side="right") - 1]
    assert told[known].tolist() == np.array(series["heap_goal"])[known].tolist()
    assert len(set(told[known])) > 2
    whole = heap(series, cycles)
    assert whole.live[:, 1].max() == max(*series["heap_live"], *(one.heap1 for one in cycles))
    begun = {one.t_sweep_term: one.heap0 for one in cycles if one.kind == "heap"}
    for (since, trigger), (until, nothing) in whole.triggers.reshape(-1, 2, 2):
        assert since < until
        assert np.isnan(nothing)
        if until in begun:
            assert begun[until] >= trigger > 0


# Sweeps


def test_a_front_is_what_nothing_beats():
    costs = np.random.default_rng(3).integers(0, 6, (120, 3)).astype(float)
    best = [
        not any(all(a <= b for a, b in zip(other, one, strict=True)) and other != one for other in costs.tolist())
        for one in costs.tolist()
    ]
    assert front(costs).tolist() == best
    assert 1 < sum(best) < 60


def test_curves_are_means_and_merged_quantiles_of_the_tables(sweep):
    runs, histograms = (rows(sweep.directory / f"{name}.csv") for name in ("runs", "histograms"))
    for curve in curves(sweep, "throughput", "gogc"):
        assert curve.x == (50, 200)
        for i, gogc in enumerate(curve.x):
            of_point = [one for one in runs if int(one["gogc"]) == gogc and curve.label.endswith(one["memory_limit"])]
            values = [float(one["/sim/throughput:mallocs-per-second"]) for one in of_point]
            assert len(values) == 5
            low, high = stats.t.interval(0.95, 4, np.mean(values), stats.sem(values))
            assert (curve.y[i], curve.low[i], curve.high[i]) == pytest.approx((np.mean(values), low, high))
    (curve,) = curves(str(sweep.directory), "response-p90", "gogc", memory_limit="off")
    of_point = [one for one in histograms if one["point"] == "0" and one["cause"] == "response"]
    values = sorted(float(one["high_ns"]) for one in of_point for _ in range(int(one["count"])))
    assert curve.y[0] * 1e9 == pytest.approx(values[-(-len(values) * 9 // 10) - 1])
    assert curve.low[0] <= curve.y[0] <= curve.high[0]


def test_too_few_runs_have_no_interval(tmp_path):
    few = swept(tmp_path / "few", axes={"gogc": [50]}, replications=2)
    (mean,), (tail,) = curves(few, "heap-peak", "gogc"), curves(few, "malloc-p99", "gogc")
    assert mean.low[0] <= mean.y[0] <= mean.high[0]
    assert tail.y[0] > 0
    assert np.isnan(tail.low).all()


def test_runs_that_are_missing_are_told_and_none_is_one_line(sweep, tmp_path, capsys):
    part = tmp_path / "part"
    shutil.copytree(sweep.directory, part)
    for key in (*sweep.points[3].keys, sweep.points[1].keys[0]):
        (part / "runs" / f"{key}.json.gz").unlink()
    results = read(part)
    axes = axes_of(results)
    found = gather(results, lambda row: of_sweep.pareto_metrics(row, "d"))
    figure = of_sweep.heat(found, found.metrics[1], axes["gogc"], axes["memory_limit"], {})
    assert [text.get_text() for text in figure.axes[0].texts].index("-") == 3
    assert figure.get_suptitle() == "heap peak (5 seeds a point, 0 runs failed, 6 not made)"
    shutil.rmtree(part / "runs")
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(part), "-o", str(tmp_path / "x.html")])
    assert ended.value.code == 2
    why = "has no run to draw (none was made); give the command of the sweep again"
    assert capsys.readouterr().err == f"allocsim: {part}: {why}\n"


def test_a_map_shows_means_where_its_axes_say(sweep):
    axes = axes_of(sweep)
    found = gather(sweep, lambda row: of_sweep.pareto_metrics(row, "d"))
    figure = of_sweep.heat(found, found.metrics[0], axes["memory_limit"], axes["gogc"], {})
    shown = figure.axes[0].collections[0].get_array()
    runs = rows(sweep.directory / "runs.csv")
    for row, gogc in enumerate(AXES["gogc"]):
        for column, limit in enumerate(AXES["memory_limit"]):
            of_point = [one for one in runs if (int(one["gogc"]), one["memory_limit"]) == (gogc, limit)]
            mean = np.mean([float(one["/sim/gc/cpu:share"]) for one in of_point])
            assert shown[row, column] == pytest.approx(100 * mean)


@pytest.mark.parametrize(
    "options",
    [
        *(["run", "--kind", kind] for kind in ("latency", "response", "heap")),
        *(["sweep", "--kind", kind] for kind in ("heat", "bands", "pareto")),
    ],
    ids=lambda options: options[-1],
)
def test_pictures_have_the_same_bytes_each_time(options, stored, sweep, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place, *others = [str({"run": stored, "sweep": sweep.directory}.get(one, one)) for one in options]
    for file in ("a.svg", "b.svg"):
        with pytest.raises(SystemExit) as ended:
            cli.main(["plot", place, *others, "-o", file])
        assert ended.value.code == 0
    assert Path("a.svg").read_bytes() == Path("b.svg").read_bytes()
    assert len(list(ET.parse("a.svg").iter())) > 100
    assert str(tmp_path) not in Path("a.svg").read_text()


def test_the_research_example_is_the_readmes(sweep, tmp_path, monkeypatch):
    from experiments.examples import confidence_bands as example

    source = (ROOT / "experiments" / "examples" / "confidence_bands.py").read_text()
    assert len(source.splitlines()) <= 30
    quoted = "".join(f"    {line}\n" if line else "\n" for line in source.splitlines())
    assert quoted in (ROOT / "README.md").read_text()
    with ThreadPoolExecutor(1) as one:
        monkeypatch.setattr(example, "gogc", [50, 200])
        monkeypatch.setattr(example, "run_sweep", partial(run_sweep, executor=one, jobs=1))
        monkeypatch.chdir(tmp_path)
        example.main("tiny", replications=5, duration="1ms")
    assert len(read("tiny").runs) == 20
    drawn = ET.parse("tiny.svg")
    bands = [one for one in drawn.iter("{http://www.w3.org/2000/svg}g") if one.get("id", "").startswith("FillBetween")]
    assert len(bands) == 6


# Reports


class Page(HTMLParser):
    """Checks a page while it is read: nothing from elsewhere, tags that match, ids that are one's own."""

    EMPTY = frozenset({"meta", "br", "path", "use", "rect", "image"})

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.used, self.values, self.pictures = [], Counter(), set(), {}, 0
        self.label, self.tags = "", Counter()
        self.feed(text)
        self.close()
        assert not self.open
        assert max(self.ids.values()) == 1
        assert self.used <= self.ids.keys()
        assert not self.tags.keys() & {
            "script",
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "video",
            "base",
            "form",
            "metadata",
        }

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        assert len(given) == len(attributes)
        self.tags[tag] += 1
        self.pictures += tag == "svg"
        if "id" in given:
            self.ids[given["id"]] += 1
        assert not given.keys() & {"src", "srcset", "action", "poster", "data", "onclick", "onload"}
        for name in ("href", "xlink:href"):
            if (target := given.get(name)) is not None:
                assert target.startswith(("#", "data:image/png;base64,"))
                self.used |= {target[1:]} if target.startswith("#") else set()
        for value in given.values():
            self.used |= set(re.findall(r"url\(#([^)]*)\)", value or ""))
        if tag == "data":
            self.values.setdefault(self.label, []).append(float(given["value"]))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in self.EMPTY:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("dt", "th"):
            self.label = data
        if self.open and self.open[-1] == "style":
            assert "@import" not in data
            assert "http" not in data


def report(place, file):
    with pytest.raises(SystemExit) as ended:
        cli.main(["report", str(place), "-o", str(file)])
    assert ended.value.code == 0
    return file.read_text()


def test_a_report_of_a_run_is_whole_and_says_what_the_result_says(stored, tmp_path):
    text = report(stored, tmp_path / "a.html")
    assert text == report(stored, tmp_path / "b.html")
    page, summary = Page(text), json.loads((stored / "summary.json").read_text())
    assert page.pictures == 3
    for name, value in summary["metrics"].items():
        assert float(value) in page.values[name]
    assert page.values["malloc p99"] == [summary["latency"]["all"]["p99_ns"]]
    names = ("count", "share", "mean_ns", "p50_ns", "p90_ns", "p99_ns", "p99.9_ns", "p99.99_ns", "max_ns")
    assert page.values["zeroing"] == [summary["latency"]["zero"][name] for name in names]
    for reason in summary["assumed_prices"].values():
        assert reason in text.replace("&#x27;", "'").replace("&quot;", '"').replace("&amp;", "&")
    assert "2026-01-01" in text
    assert (stored / "scenario.toml").read_text() in text.replace("&quot;", '"').replace("&#x27;", "'")


def test_a_report_of_a_sweep_is_whole_and_says_what_its_tables_say(sweep, tmp_path):
    text = report(sweep.directory, tmp_path / "a.html")
    assert text == report(sweep.directory, tmp_path / "b.html")
    page = Page(text)
    assert page.pictures == 7
    runs = rows(sweep.directory / "runs.csv")
    means = [np.mean([float(one["/sim/gc/cpu:share"]) for one in runs if one["point"] == str(n)]) for n in range(4)]
    told = [values for label, values in page.values.items() if label in ("50", "200")]
    assert {round(mean, 12) for mean in means} <= {round(value, 12) for values in told for value in values}


# Bad input


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("plot nothing", "nothing: is no directory; name one that `allocsim run -o` wrote"),
        ("plot .", ".: holds no result; name a directory that `allocsim run -o` wrote"),
        ("plot SWEEP RUN", "SWEEP: is a sweep; draw it by itself"),
        ("plot RUN --kind heat", "RUN: is no sweep, and has no picture heat; there are latency, response, heap"),
        ("plot SWEEP --kind heap", "SWEEP: is a sweep, and has no picture heap; there are bands, heat, pareto"),
        ("plot RUN --metric gc-cpu", "--metric: latency takes none; it is of bands, heat"),
        ("plot RUN RUN --kind heap", "RUN: heap is of one result alone; draw each by itself"),
        ("plot RUN -o x.pdf", "x.pdf: ends in neither .svg nor .png; name a file that does with -o"),
        ("plot RUN -o no/x.svg", "no/x.svg: there is no directory no; make it first"),
        ("plot SWEEP --metric gc-cpus", "SWEEP: no metric gc-cpus; did you mean gc-cpu?"),
        (
            "plot SWEEP --metric /sim/gc/cpu:shares",
            "SWEEP: no metric /sim/gc/cpu:shares; did you mean /sim/gc/cpu:share?",
        ),
        ("plot SWEEP --metric asist-p99", "SWEEP: no metric asist-p99; did you mean assist-p99?"),
        (
            "plot SWEEP --metric profile-p99",
            "SWEEP: no run there has /sim/latency/profile:seconds/p99; name another metric",
        ),
        ("plot SWEEP --x memory_limits", "SWEEP: no axis memory_limits; did you mean memory_limit?"),
        ("plot SWEEP --x gogc --y gogc", "SWEEP: gogc: cannot be both axes of a map; name another with --y"),
        ("plot SWEEP --where gogc", "SWEEP: --where gogc: is not axis=value; write one such as gogc=100"),
        ("plot SWEEP --where gogc=2000", "SWEEP: no gogc of 2000; did you mean 200?"),
        (
            "plot SWEEP --kind heat --where gogc=50",
            "SWEEP: has one axis alone, memory_limit, and a map takes two; draw --kind bands",
        ),
        ("report RUN -o x.txt", "x.txt: does not end in .html; name a file that does with -o"),
        ("report nothing -o x.html", "nothing: is no directory; name one that `allocsim run -o` wrote"),
    ],
)
def test_bad_input_gets_one_line(words, line, stored, sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": str(stored), "SWEEP": str(sweep.directory)}
    with pytest.raises(SystemExit) as ended:
        cli.main([places.get(word, word) for word in words.split()])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    for name, place in places.items():
        told = told.replace(place, name)
    assert told == f"allocsim: {line}\n"
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_one_line_says_how_to_get_it(stored, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(canvas.importlib.util, "find_spec", lambda name: None)
    for command in ("plot", "report"):
        with pytest.raises(SystemExit) as ended:
            cli.main([command, str(stored), "-o", str(tmp_path / "x.html")])
        assert ended.value.code == 2
        assert capsys.readouterr().err == (
            "allocsim: matplotlib: is not installed, and draws pictures; pip install 'allocsim[plot]'\n"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("time_ps", "time", "is damaged (its first line lacks one of time_ps, heap_live, heap_goal, resident)"),
        ("\n0,", "\n-1,", "is damaged (line 2: time_ps is -1)"),
        ("\n0,", "\n900000000000000,", "is damaged (its times go back)"),
    ],
)
def test_damaged_series_are_told(old, new, what, stored, tmp_path):
    text = (stored / "series.csv").read_text().replace(old, new, 1)
    (tmp_path / "series.csv").write_text(text)
    with pytest.raises(InputError, match=re.escape(f"{tmp_path / 'series.csv'}: {what}; run the scenario again")):
        read_series(str(tmp_path))


def test_refusals_import_nothing_heavy(tmp_path):
    script = (
        "import sys; from experiments import cli\n"
        "try: cli.main(['plot', 'nothing'])\n"
        "except SystemExit as ended: print(ended.code, sorted({'numba', 'matplotlib.figure'} & sys.modules.keys()))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ended.stdout == "2 []\n"
