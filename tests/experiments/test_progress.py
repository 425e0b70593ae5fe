"""The bar of a long run, Ctrl-C, and the line before the first compile."""

import io
import os
import signal

import pytest

from experiments import progress


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def bar(monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((100, 24)))
    stream, clock = io.StringIO(), Clock()
    return progress.Bar(stream, clock), stream, clock


def at(bar, seconds, share):
    """What is on the line after a drawing so many seconds after the start."""
    drawing, stream, clock = bar
    clock.now = 100 + seconds
    before = len(stream.getvalue())
    drawing(share)
    return stream.getvalue()[before:]


def test_a_short_run_has_no_bar(bar):
    assert at(bar, 1.9, 0.9) == ""
    bar[0].close()
    assert bar[1].getvalue() == ""


def test_a_long_run_has_one_line_that_goes_away(bar):
    assert at(bar, 4, 0.25) == "\r 25 % [" + "#" * 7 + "." * 23 + "] 4 s 12 s left"
    assert at(bar, 4.05, 0.26) == ""  # not more often than can be read
    assert at(bar, 5, 0.999) == "\r 99 % [" + "#" * 29 + ".] 5 s 0 s left "  # covers the one before
    bar[0].close()
    assert bar[1].getvalue().endswith("left \r" + " " * 51 + "\r")
    assert "\n" not in bar[1].getvalue()


def test_the_bar_says_of_what(bar):
    drawing, stream, clock = bar
    clock.now += 4
    drawing(0.25, "30 of 120 runs, 7.5/s")
    assert stream.getvalue().endswith("] 30 of 120 runs, 7.5/s 4 s 12 s left")


def test_no_estimate_before_one_percent(bar):
    assert at(bar, 7200, 0.0).endswith("] 2:00:00")
    assert at(bar, 7300, 0.5).endswith("] 2:01:40 2:01:40 left")


def test_a_narrow_terminal(bar, monkeypatch):
    monkeypatch.setattr("shutil.get_terminal_size", lambda: os.terminal_size((20, 24)))
    assert len(at(bar, 4, 0.25)) == 20  # with the carriage return: 19 columns


def test_ctrl_c_asks_once_and_then_interrupts():
    before = signal.getsignal(signal.SIGINT)
    with progress.stoppable() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGINT)
        assert asked()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ignored_ctrl_c_stays_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with progress.stoppable() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert not asked()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("cold", [True, False])
def test_the_first_compile_is_announced(monkeypatch, capsys, cold):
    monkeypatch.setattr("sim.jit.cache_is_cold", lambda *modules: cold and modules == ("this", "that"))
    progress.announce_compile("a thing", "a while", ("this", "that"))
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == ("compiling a thing for this machine (once, about a while) ...\n" if cold else "")


def test_a_cache_is_cold_until_every_module_is_in_it(monkeypatch, tmp_path):
    from sim import jit

    monkeypatch.setattr(jit, "CACHE_DIR", tmp_path)
    monkeypatch.setattr(jit, "PLAIN", False)
    assert jit.cache_is_cold("pump") and jit.cache_is_cold("pump", "fill")
    (tmp_path / "go_1").mkdir()
    (tmp_path / "go_1" / "pump.begin-429.py311.1.nbc").touch()
    assert not jit.cache_is_cold("pump")
    assert jit.cache_is_cold("pump", "fill")
    monkeypatch.setattr(jit, "PLAIN", True)
    assert not jit.cache_is_cold("pump", "fill")


def test_the_modules_that_are_announced_are_those_with_entries():
    """A module that was renamed would be announced for ever."""
    from pathlib import Path

    root = Path(progress.__file__).parent.parent
    for stem in ("pump", "thread_pump", "lock_pump", "streams_fill", "gotrace_wire", "gotrace_merge", "replay_kernel", "conform_pages", "conform_pacer"):
        (path,) = (p for top in ("sim", "workloads", "experiments") for p in (root / top).rglob(f"{stem}.py"))
        assert "@entry(" in path.read_text()
