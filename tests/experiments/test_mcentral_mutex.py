"""The experiment on mcentral's mutex: its parts, and what it says and writes, with few and short runs."""

import json
import sys

import pytest
from click.testing import CliRunner

from experiments import mcentral_mutex as experiment
from experiments import study
from experiments.machine import load_machine
from sim.costs import Price
from sim.units import NS, US


@pytest.fixture
def prices():
    return experiment.used_memory(load_machine(experiment.MACHINE, "go1.14"))


@pytest.fixture(scope="module")
def answer():
    """A small experiment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "PS", (1, 2))
        patch.setattr(experiment, "MEASURED", {ps: experiment.MEASURED[ps] for ps in (1, 8, 28)})
        patch.setattr(experiment, "CENTRAL", (100,))
        patch.setattr(experiment, "PROCYIELD", (600,))
        patch.setattr(experiment, "WAKE_LATENCY", (1_000, 5_000))
        patch.setattr(experiment, "_START", 200 * US)  # of few Ps
        patch.setattr(experiment, "_WANTED", 4000)
        patch.setattr(experiment, "_WANTED_EACH", 1000)
        yield experiment.experiment()


@pytest.fixture
def few(answer, monkeypatch):
    """The program that says the small one."""
    monkeypatch.setattr(experiment, "PS", (1, 2))
    measured = {"measured_mib_per_second": experiment.MEASURED}
    return study.command("mcentral_mutex", lambda: answer, experiment.report, experiment.write, measured)


def test_the_plateau_is_the_least_number_near_the_best():
    assert experiment.plateau({1: 10.0, 2: 19.0, 4: 20.0, 8: 19.5}) == 2
    assert experiment.plateau({ps: float(mutex) for ps, (mutex, _) in experiment.MEASURED.items()}) == 8
    assert experiment.plateau({ps: float(sets) for ps, (_, sets) in experiment.MEASURED.items()}) == 16


def test_the_mutex_on_go119_is_go114_and_costs_two_holds_a_refill(prices):
    old, switched = (experiment.measure(config, prices, 4) for config in ("go1.14", "go1.19+mutex"))
    assert old.mallocs_per_second == switched.mallocs_per_second < experiment.measure("go1.19", prices, 4).mallocs_per_second
    one, none = (experiment.measure(config, prices, 1) for config in ("go1.14", "go1.19"))
    extra = 1e9 / one.mallocs_per_second - 1e9 / none.mallocs_per_second
    assert extra == pytest.approx(2 * 100 / 8, rel=0.02)  # holds of 100 ns over 8 objects of 1 KiB a span
    assert (none.central_wait, one.central_wait, one.waits_per_refill) == (0, 0, 0)


def test_two_holds_bound_the_throughput_whatever_the_number_of_ps(prices):
    slow = experiment.with_prices(prices, 1000, 600, 5000)
    assert slow.steps["central"] == Price(1000 * NS)
    for ps in (8, 32):
        point = experiment.measure("go1.14", slow, ps)
        assert point.mallocs_per_second <= 8 * 1e9 / 2000
        assert point.central_wait > 0.5


def test_the_work_is_fitted_to_the_span_sets(answer):
    rows = [row for row in answer.benchmark if row.measured_sets is not None]
    assert [row.ps for row in rows] == [1, 8, 28]
    for row in rows:
        assert row.each_fit_sets == pytest.approx(row.measured_sets, rel=0.03)
        assert row.each_fit_mutex < row.each_fit_sets


def test_tables_files_and_json(few, tmp_path):
    answer = CliRunner().invoke(few, ["-o", str(tmp_path / "deep" / "er")])
    assert answer.exit_code == 0, answer.output
    assert "Plateau" in answer.output
    written = {path.name for path in (tmp_path / "deep" / "er").iterdir()}
    assert {f"mcentral_mutex_{part}.csv" for part in ("alone", "benchmark", "sensitivity")} <= written
    answer = CliRunner().invoke(few, ["--json"])
    said = json.loads(answer.stdout)
    assert said["measured_mib_per_second"]["8"] == [5240, 8230]
    assert set(said["assumed"]) >= {"central", "lock.procyield"}
    assert [row["ps"] for row in said["benchmark"]] == [1, 2, 8, 28]


def test_without_matplotlib_it_writes_the_tables_and_says_so(few, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    answer = CliRunner().invoke(few, ["-o", str(tmp_path)])
    assert answer.exit_code == 0
    assert "no plot: matplotlib is not installed" in answer.output
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv"] * 3


def test_the_plot_is_the_same_bytes_each_time(few, tmp_path):
    pytest.importorskip("matplotlib")
    for folder in ("a", "b"):
        assert CliRunner().invoke(few, ["-o", str(tmp_path / folder)]).exit_code == 0
    for name in ("mcentral_mutex.svg", "mcentral_mutex.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
