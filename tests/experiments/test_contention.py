"""The study of contention: against the bounds of a closed queueing network, and what it says and writes."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from experiments import contention as study
from sim.jit import PLAIN

pytestmark = pytest.mark.skipif(PLAIN, reason="some million mallocs")

SMALL = {"LIVE": 2048, "WARM_UP": 20_000, "WARM_UP_EACH": 2000, "WINDOW": 40_000}


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(study, name, value)
        yield


@pytest.fixture(scope="module")
def answer():
    """Fewer models, under one load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "MODELS", ("segregated-fit", "tcmalloc", "go1.27"))
        patch.setattr(study, "THINKS", (1000,))
        patch.setattr(study, "THREADS", (1, 2, 4, 8, 16))
        return study.experiment()


def mean_value_analysis(n, think, demand):
    """Throughput of n customers who think and queue at one server, both exponential. (Reiser and Lavenberg 1980)"""
    queue = 0.0
    for customers in range(1, n + 1):
        response = demand * (1 + queue)
        rate = customers / (think + response)
        queue = rate * response
    return rate


def test_a_model_stops_where_twice_the_threads_add_less_than_a_fifth():
    assert study.stops({1: 10.0, 2: 19.0, 4: 23.0, 8: 28.0, 16: 40.0}) is None  # 21 % the least
    assert study.stops({1: 10.0, 2: 19.0, 4: 22.7, 8: 40.0}) == 2
    assert study.stops({1: 10.0, 2: 5.0}) == 1
    assert study.stops({1: 10.0, 4: 10.0}) is None  # nobody doubled them


def test_one_lock_is_a_machine_repairman(monkeypatch):
    """No hand-off: N / (think + hold) or 1 / hold, and between them no worse than were the holds exponential too."""
    real = study.thread_world

    def without_handoff(*arguments):
        world = real(*arguments)
        world.fields.handoff = 0
        world.prices = replace(world.prices, handoff=0)
        return world

    monkeypatch.setattr(study, "thread_world", without_handoff)
    points = {n: study.measure("segregated-fit", n, 600) for n in (1, 2, 4, 8, 11, 16, 32, 64)}
    hold = 1 / points[64].ceiling
    cycle = 1 / points[1].mallocs_per_second
    knee = cycle / hold
    assert 8 < knee < 16  # both sides are there
    for n, point in points.items():
        rate = point.mallocs_per_second
        assert 1 / point.ceiling == pytest.approx(hold, rel=0.02)  # the lists are as long with any number
        assert rate <= 1.01 * min(n / cycle, 1 / hold)
        assert rate >= 0.99 * mean_value_analysis(n, cycle - hold, hold)
    rates = {n: point.mallocs_per_second for n, point in points.items()}
    assert rates[64] == pytest.approx(1 / hold, rel=0.005)
    assert knee / 2 < study.stops(rates) < 2 * knee / (1 + study.LEAST)  # twice as many are beyond it


def test_a_lock_that_is_waited_for_hands_over_each_time(answer):
    """With hand-offs of 100 ns it comes to 1 / (hold + hand-offs), and stops about the knee of that."""
    points = [point for point in answer.points if point.model == "segregated-fit"]
    end = next(end for end in answer.ends if end.model == "segregated-fit")
    last = points[-1]
    assert last.mallocs_per_second == pytest.approx(last.ceiling, rel=0.01)
    assert last.ceiling < 1e9 / 200  # a malloc and a free, two hand-offs
    assert last.lock_wait > 0.7 > points[0].lock_wait == 0
    assert end.knee / 2 < end.stops < 2 * end.knee / (1 + study.LEAST)


def test_caches_of_threads_and_of_ps_scale_where_the_lock_does_not(answer):
    rates = {(point.model, point.threads): point.mallocs_per_second for point in answer.points}
    assert rates["tcmalloc", 16] > 15 * rates["tcmalloc", 1]
    assert rates["go1.27", 4] > 3.5 * rates["go1.27", 1]
    assert {end.model: end.stops for end in answer.ends}["tcmalloc"] is None
    assert rates["segregated-fit", 16] < 5 * rates["segregated-fit", 1]


def test_page_and_plot(answer, tmp_path):
    pytest.importorskip("matplotlib")
    assert len(list(study.write(answer, tmp_path))) == 4
    assert any(line.split()[:1] == ["tcmalloc"] for line in study.report(answer))
    names = ("contention.md", "contention.svg", "contention.png", "contention_points.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    page = (tmp_path / "contention.md").read_text()
    assert "| segregated-fit |" in page and "| at 4 |" in page and "not up to 16" in page


def test_help_says_what_it_is_about():
    found = CliRunner().invoke(study.main, ["--help"])
    assert found.exit_code == 0 and "1 to 64 threads" in found.output


def test_the_page_that_comes_with_it_is_of_the_models_it_has():
    """Not its numbers: they are ours."""
    page = (study.Path(study.__file__).parent / "contention.md").read_text()
    assert all(page.count(f"| {model} |") == len(study.THINKS) for model in study.MODELS)
