"""A long run seen from a terminal: the compile before it, how far it is, and Ctrl-C."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

import click

from experiments.errors import visible

_PATIENCE = 2.0  # seconds without a bar
_EVERY = 0.1  # seconds between two drawings


class Bar:
    """One line on a terminal, redrawn in place from the second second on, gone at the end."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._begun = clock()
        self._due = self._begun + _PATIENCE
        self._drawn = 0

    def __call__(self, share: float, of_what: str = "") -> None:
        """Show that a share of 0 to 1 is done; ``of_what``: in other words."""
        now = self._clock()
        if now < self._due:
            return
        self._due = now + _EVERY
        passed = now - self._begun
        left = f"{_duration(passed / share - passed)} left" if share >= 0.01 else ""
        cells = 30
        full = int(share * cells)
        told = " ".join(words for words in (of_what, _duration(passed), left) if words)
        text = f"{int(share * 100):3} % [{'#' * full}{'.' * (cells - full)}] {told}"
        text = text[: shutil.get_terminal_size().columns - 1]
        self._stream.write("\r" + text.ljust(self._drawn))
        self._stream.flush()
        self._drawn = len(text)

    def close(self) -> None:
        """Leave the line empty."""
        if self._drawn:
            self._stream.write("\r" + " " * self._drawn + "\r")
            self._stream.flush()
            self._drawn = 0


def _duration(seconds: float) -> str:
    """Seconds on the wall, as a person tells them."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, seconds_left = divmod(whole, 60)
    return f"{minutes}:{seconds_left:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{seconds_left:02}"


def announce_compile(
    what: str = "the simulated runtime",
    about: str = "half a minute",
    modules: tuple[str, ...] = ("pump", "streams_fill"),
) -> bool:
    """Say on stderr, before it happens, why the first run on a machine takes longer: ``modules`` are to be compiled.

    Whether it was said.
    """
    from sim.jit import cache_is_cold

    cold = cache_is_cold(*modules)
    if cold:
        click.echo(f"compiling {what} for this machine (once, about {about}) ...", err=True)
    return cold


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """A context in which Ctrl-C only asks to stop, once: the function given says whether it was asked.

    The second Ctrl-C is a KeyboardInterrupt as ever. Where SIGINT is ignored, as in a background job, it stays so.
    """
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def say(message: object) -> None:
    """A line on stderr, of which nothing acts on a terminal."""
    click.echo(f"allocsim: {visible(str(message))}", err=True)
