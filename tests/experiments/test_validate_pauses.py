"""Pauses that meet interruptions and missing memory: against theory, and against what real runtimes touch."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from experiments.validate_memory import NONE, Withheld, Writes
from experiments.validate_pauses import paused, swept_pages, with_pauses
from experiments.validate_run import Noise
from experiments.validate_workloads import WORKLOADS
from tests.experiments.test_validate import a_run

US = 1_000_000  # picoseconds
QUIET = Noise(2.0, np.zeros(0))


def cycles(number, sweep_term, mark_term):
    one = SimpleNamespace(pause_sweep_term=sweep_term, pause_mark_term=mark_term, pause_time=sweep_term + mark_term)
    return [one] * number


def test_interruptions_meet_pauses_by_how_long_they_take():
    """20,000 a second of 3 us each: a pause of 100 us meets two, one of 10 us a fifth of one."""
    longer = paused(cycles(20_000, 10 * US, 100 * US), Noise(2.0, np.full(40_000, 3_000.0)), NONE, 100.0, 1)
    assert longer.mean(axis=0) / US == pytest.approx([0.6, 6.0], rel=0.05)
    assert (longer[:, 1] == 0).mean() == pytest.approx(np.exp(-2), rel=0.05)
    assert set((longer % (3 * US)).flat) == {0}
    again = paused(cycles(20_000, 10 * US, 100 * US), Noise(2.0, np.full(40_000, 3_000.0)), NONE, 100.0, 1)
    assert (longer == again).all()


def test_a_missing_page_lengthens_sweep_termination_alone():
    """Two of a thousand pages are missing, of a hundred that each touches."""
    old = Writes(100_000, np.linspace(80_000, 180_000, 200))
    longer = paused(cycles(20_000, 10 * US, 100 * US), QUIET, old, 100.0, 1)
    assert not longer[:, 1].any()
    assert (longer[:, 0] == 0).mean() == pytest.approx(np.exp(-0.2), rel=0.02)
    assert longer[:, 0].mean() / US == pytest.approx(0.2 * 130, rel=0.05)


def test_a_quiet_machine_changes_no_pause():
    assert not paused(cycles(10, 10 * US, 100 * US), QUIET, NONE, 100.0, 1).any()
    assert paused([], QUIET, NONE, 100.0, 1).shape == (0, 2)


@pytest.mark.parametrize(
    ("workload", "counted"), [("trees", (58, 69)), ("grid-1MB-P1-W1", (95, 110)), ("service", (156, 165))]
)
def test_pages_of_a_sweep_termination(workload, counted):
    """Medians that patched runtimes of go1.19.8 and go1.27.3 counted while they reset their lists of spans."""
    (found,) = (one for one in WORKLOADS if one.name == workload)
    assert swept_pages(found.scenario("go1.27", None).workload.mix) == pytest.approx(sum(counted) / 2, rel=0.1)


def test_both_figures_of_pauses_are_lengthened():
    """Every page is missing, and takes a microsecond longer."""
    (grid,) = (one for one in WORKLOADS if one.name == "grid-1MB-P1-W1")
    ours = a_run([1_000])
    ours = replace(ours, memstats={**ours.memstats, "PauseTotalNs": 220_000}, pause_max=110_000)
    result = SimpleNamespace(cycles=cycles(2, 10 * US, 100 * US), scenario=grid.scenario("go1.27", None))
    old = Writes(1_000, np.full(1_000, 1_000.0))
    seen = with_pauses(ours, result, QUIET, Withheld(NONE, old))
    more = seen.memstats["PauseTotalNs"] - 220_000
    assert more / 1_000 == pytest.approx(2 * swept_pages(result.scenario.workload.mix), rel=0.3)
    assert more / 2 <= seen.pause_max - 110_000 < more
