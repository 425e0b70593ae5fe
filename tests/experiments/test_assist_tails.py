"""The study of tails: its claims hold in shorter runs, and what it says and writes."""

import pytest

from experiments import assist_tails as study
from sim.jit import PLAIN
from sim.units import MS

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PLAIN, reason="some 25 million mallocs")]

RATES = (10_000, 27_500)  # on 4 Ps: a third of the load, and near saturation


@pytest.fixture(scope="module", autouse=True)
def small():
    """Half of the Ps and of the requests, one seed."""
    shorter = {"RATES": RATES, "RATES_ON": 4, "PROCS": (1, 4), "SEEDS": (1,), "REQUESTS": 1_500}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (shorter | {"WARM_UP": 200 * MS, "WINDOW": 250 * MS}).items():
            patch.setattr(study, name, value)
        yield


@pytest.fixture(scope="module")
def answer(small):
    return study.experiment()


@pytest.fixture
def by(answer):
    return {(one.variant, one.rate): one for one in answer.by_rate}


def test_causes_add_up_to_what_is_slow(answer):
    for one in answer.by_rate + answer.by_procs:
        parts = sum(count for cause, count in one.slow.items() if cause != "all")
        assert parts == pytest.approx(one.slow["all"], rel=0.05, abs=1)
        assert one.slow["all"] <= 1e6


def test_assists_take_over_as_idle_ps_go(by):
    shares, sweeping = ([by["as is", rate].slow[one] / by["as is", rate].slow["all"] for rate in RATES] for one in ("assist", "sweep"))
    assert shares[0] < 0.6 < shares[1]
    assert sweeping[0] > 1.5 * sweeping[1]
    assert by["as is", RATES[1]].busy > 0.8 and by["as is", RATES[0]].busy < 0.4


def test_without_assists_malloc_has_shorter_tails_and_the_heap_overshoots(by):
    for rate in RATES:
        assert by["no assists", rate].slow["assist"] == 0
        assert by["no assists", rate].slow["sweep"] == pytest.approx(by["as is", rate].slow["sweep"], rel=0.35)
    busy, none = by["as is", RATES[1]], by["no assists", RATES[1]]
    assert none.malloc_ns["p99.9"] < 0.6 * busy.malloc_ns["p99.9"]
    assert none.response_us["p99"] < busy.response_us["p99"]
    assert 1.05 < none.peak_mib / busy.peak_mib < 1.4
    idle = by["as is", RATES[0]].peak_mib
    assert by["no assists", RATES[0]].peak_mib == pytest.approx(idle, rel=0.05)


def test_a_larger_gogc_runs_fewer_cycles_in_a_larger_heap(by):
    for rate in RATES:
        assert by["GOGC=400", rate].cycles < by["as is", rate].cycles / 2
        assert by["GOGC=400", rate].peak_mib > 1.5 * by["as is", rate].peak_mib
        assert by["GOGC=400", rate].slow["assist"] < by["as is", rate].slow["assist"]


def test_stops_are_rarer_per_malloc_with_more_ps(answer):
    one, four = (point for point in answer.by_procs if point.variant == "as is")
    assert (one.procs, four.procs) == (1, 4)
    assert four.slow["stw"] < one.slow["stw"] / 2
    assert four.busy == pytest.approx(one.busy, abs=0.08)


def test_seeds_are_merged(monkeypatch):
    monkeypatch.setattr(study, "WARM_UP", 50 * MS)
    one, other, both = (study.measure("as is", 1, 5_500, 100 * MS, seeds) for seeds in ((1,), (2,), (1, 2)))
    assert one.requests + other.requests == both.requests == pytest.approx(2 * 550, rel=0.1)
    assert one.cycles + other.cycles == both.cycles > 2
    p99 = sorted((one.response_us["p99"], other.response_us["p99"]))
    assert p99 == [both.response_p99_least_us, both.response_p99_most_us]
    assert p99[0] < both.response_us["p99"] < p99[1]


def test_tables_and_files(answer, tmp_path):
    pytest.importorskip("matplotlib")
    said = "\n".join(study.report(answer))
    assert "of the slow mallocs are assists" in said
    written = [line.split("/")[-1] for line in study.write(answer, tmp_path)]
    names = ["assist_tails_by_rate.csv", "assist_tails_by_procs.csv", "assist_tails.svg", "assist_tails.png"]
    assert written == names
