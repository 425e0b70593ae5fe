"""The study of tails: its claims hold in shorter runs, and what it says and writes."""

import pytest

from experiments import assist_tails as study
from sim.jit import PLAIN
from sim.units import MS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PLAIN, reason="some 50 million mallocs")]


@pytest.fixture(scope="module")
def answer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "RATES", (20_000, 55_000))
        patch.setattr(study, "PROCS", (1, 4))
        patch.setattr(study, "SEEDS", (1, 2))
        patch.setattr(study, "WINDOW", 250 * MS)
        patch.setattr(study, "REQUESTS", 3_000)
        yield study.experiment()


@pytest.fixture
def by(answer):
    return {(one.variant, one.rate): one for one in answer.by_rate}


def test_causes_add_up_to_what_is_slow(answer):
    for one in answer.by_rate + answer.by_procs:
        parts = sum(count for cause, count in one.slow.items() if cause != "all")
        assert parts == pytest.approx(one.slow["all"], rel=0.05, abs=1)
        assert one.slow["all"] <= 1e6


def test_assists_take_over_as_idle_ps_go(by):
    shares = [by["as is", rate].slow["assist"] / by["as is", rate].slow["all"] for rate in (20_000, 55_000)]
    assert shares[0] < 0.5 and shares[1] > 0.6
    assert by["as is", 55_000].busy > 0.8 and by["as is", 20_000].busy < 0.4
    assert by["as is", 20_000].slow["sweep"] > by["as is", 20_000].slow["assist"]


def test_without_assists_malloc_has_shorter_tails_and_the_heap_overshoots(by):
    for rate in (20_000, 55_000):
        assert by["no assists", rate].slow["assist"] == 0
        assert by["no assists", rate].slow["sweep"] == pytest.approx(by["as is", rate].slow["sweep"], rel=0.35)
    busy, none = by["as is", 55_000], by["no assists", 55_000]
    assert none.malloc_ns["p99.9"] < 0.5 * busy.malloc_ns["p99.9"]
    assert none.response_us["p99"] < busy.response_us["p99"]
    assert 1.05 < none.peak_mib / busy.peak_mib < 1.4
    idle = by["as is", 20_000].peak_mib
    assert by["no assists", 20_000].peak_mib == pytest.approx(idle, rel=0.05)


def test_a_larger_gogc_runs_fewer_cycles_in_a_larger_heap(by):
    for rate in (20_000, 55_000):
        assert by["GOGC=400", rate].cycles < by["as is", rate].cycles / 2
        assert by["GOGC=400", rate].peak_mib > 1.5 * by["as is", rate].peak_mib
        assert by["GOGC=400", rate].slow["assist"] < by["as is", rate].slow["assist"]


def test_stops_are_rarer_per_malloc_with_more_ps(answer):
    one, four = (point for point in answer.by_procs if point.variant == "as is")
    assert (one.procs, four.procs) == (1, 4)
    assert four.slow["stw"] < one.slow["stw"] / 2
    assert four.busy == pytest.approx(one.busy, abs=0.08)


def test_seeds_are_merged(answer, by):
    for one in answer.by_rate:
        low, high = one.response_p99_least_us, one.response_p99_most_us
        assert low * 0.999 <= one.response_us["p99"] <= high * 1.001
        assert one.requests == pytest.approx(2 * 0.25 * one.rate, rel=0.1)


def test_tables_and_files(answer, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(study, "RATES", (20_000, 55_000))
    said = "\n".join(study.report(answer))
    assert "of the slow mallocs are assists" in said
    written = [line.split("/")[-1] for line in study.write(answer, tmp_path)]
    names = ["assist_tails_by_rate.csv", "assist_tails_by_procs.csv", "assist_tails.svg", "assist_tails.png"]
    assert written == names
