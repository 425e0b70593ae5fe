"""Published figures: what counts as right, the lock by queueing theory, the guide's pictures by its closed form."""

import pytest
from click.testing import CliRunner

from experiments import published, published_guide, published_limit, published_locks
from experiments.published_figure import Figure, Row
from sim.costs import LockPrices
from sim.jit import PLAIN
from sim.units import MIB, SEC

FREE = LockPrices(**dict.fromkeys(LockPrices.__slots__, 0))


def test_outcomes():
    assert Row("a", 100, 109, 0.1).outcome == "within"
    assert Row("a", 100, 89, 0.1).outcome == "outside"
    assert Row("a", 100, 100, 0.1, fitted=True).outcome == "fitted"
    assert Row("a", 80, 100).error == pytest.approx(0.25)


@pytest.mark.parametrize("threads", [88, 150])
def test_a_full_queue_takes_what_its_hold_leaves(threads):
    """Past saturation a lock is held all the time: so many threads share 1 / hold, the rest of a cycle is waiting."""
    work = 50 * published_locks.HOLD
    share = published_locks.lock_share(threads, work, "fifo", FREE)
    cycle = threads * published_locks.HOLD
    assert share == pytest.approx(1 - (work + published_locks.HOLD) / cycle, abs=0.01)


def test_work_is_fitted_to_the_first_row():
    work = published_locks.fitted_work("fifo", FREE)
    assert published_locks.lock_share(22, work, "fifo", FREE) == pytest.approx(0.0056, rel=0.02)


@pytest.mark.skipif(PLAIN, reason="50,000 mallocs and their compile")
@pytest.mark.parametrize("gogc", [50, 100])
def test_the_guide_s_program(gogc):
    """Ten seconds of program and each cycle's 40 ms and scan of up to 20 MiB; the peak is the goal, live + GOGC percent."""
    took, share, peak, cycles = published_guide.simulate(gogc, 0)
    each = published_guide.FIXED + 20 * MIB * SEC // published_guide.SCAN
    assert cycles * published_guide.FIXED < (took - 10) * SEC < 1.02 * cycles * each
    assert share == pytest.approx(100 * (took - 10) / took)
    assert peak == pytest.approx(20 * (1 + gogc / 100), rel=0.06)
    assert cycles == pytest.approx(published_guide.PUBLISHED[gogc, 0][3], abs=4)


@pytest.mark.skipif(PLAIN, reason="some million mallocs")
def test_cycles_of_a_limited_heap_go_as_its_room():
    """Of what the limit leaves to a cycle, it begins at seven tenths at least and is over before all is used up."""
    (tight, _), (wide, highest) = (published_limit.simulate(limit, 6.0) for limit in (8.0, 10.0))
    assert 0.5 * 2.0 < wide - tight < 2.0
    assert 0.85 * 10.0 < highest < 10.0


def test_page_and_command(monkeypatch, tmp_path):
    made = Figure("A figure", "https://example.org", "nothing", (Row("ns", 10, 10.5), Row("us", 1, 3)), "It says so.")
    monkeypatch.setattr(published, "FIGURES", (lambda: made,))
    page = tmp_path / "page.md"
    result = CliRunner().invoke(published.main, ["-o", str(page)])
    assert result.exit_code == 0 and page.read_text() == result.stdout
    assert "2 numbers, 1 of them within" in result.stdout
    assert "| us | 1 | 3 | +200 % | 10 % | outside |" in result.stdout
    result = CliRunner().invoke(published.main, ["--json"])
    assert '"outcome": "within"' in result.stdout
    result = CliRunner().invoke(published.main, ["-o", str(tmp_path / "nowhere" / "page.md")])
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].endswith("nowhere; make it first")
