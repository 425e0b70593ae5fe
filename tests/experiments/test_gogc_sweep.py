"""The study of GOGC: what it claims holds in a shorter run, and what it says and writes."""

from itertools import pairwise

import pytest
from click.testing import CliRunner

from experiments import gogc_sweep as study
from sim.jit import PLAIN
from sim.units import MIB, MS

pytestmark = pytest.mark.skipif(PLAIN, reason="some 10 million mallocs")


@pytest.fixture(scope="module")
def answer():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "GOGC", (25, 100, 400))
        patch.setattr(study, "WARM_UP", 400 * MS)
        patch.setattr(study, "WINDOW", 600 * MS)
        yield study.experiment()


def test_the_closed_form_of_the_guide():
    """Its example: 10 MiB of live heap and 1 MiB of roots collect at 21 MiB, and so often as 11 MiB are allocated."""
    peak, cycles = study.closed_form(10 * MIB, 1 * MIB, 55 * MIB, 100)
    assert (peak, cycles) == (21 * MIB, 5)
    assert study.closed_form(10 * MIB, 1 * MIB, 55 * MIB, 200) == (32 * MIB, 2.5)


def test_peak_and_cpu_time_follow_the_closed_form(answer):
    for row in answer.points:
        assert row.form_peak_mib < row.peak_mib < 1.15 * row.form_peak_mib
        assert row.gc_share == pytest.approx(row.form_gc_share, rel=0.3)
        assert 0.95 * row.form_cycles_per_second - 2 < row.cycles_per_second < 1.4 * row.form_cycles_per_second + 2
        assert row.live_mib < row.marked_mib < 1.15 * row.live_mib
        assert row.gc_share_busy < row.gc_share


def test_tails_fall_as_gogc_grows_and_medians_stay(answer):
    for small, large in pairwise(answer.points):
        assert small.malloc_ns["p99"] > large.malloc_ns["p99"]
        assert small.response_us["p99"] > 0.99 * large.response_us["p99"]
        assert small.malloc_ns["p50"] == pytest.approx(large.malloc_ns["p50"], rel=0.05)
    first, *others = answer.points
    for row in others:
        assert first.malloc_ns["p99.9"] > 5 * row.malloc_ns["p99.9"] and first.response_us["p99.9"] > 1.3 * row.response_us["p99.9"]


def test_the_same_requests_at_every_gogc(answer):
    counts = [row.requests for row in answer.points]
    assert max(counts) - min(counts) <= 0.005 * max(counts)  # in flight at the window's ends


def test_tables_files_and_json(answer, tmp_path):
    pytest.importorskip("matplotlib")
    said = "\n".join(study.report(answer))
    assert "Off the closed form from GOGC=50 on" in said
    written = [line.split("/")[-1] for line in study.write(answer, tmp_path)]
    assert written == ["gogc_sweep_points.csv", "gogc_sweep.svg", "gogc_sweep.png"]


def test_help_says_what_it_is_about():
    found = CliRunner().invoke(study.main, ["--help"])
    assert found.exit_code == 0 and "GOGC=25 to 800" in found.output


