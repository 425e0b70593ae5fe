"""A calibration whose processes take turns with the real runs of a validation: what the host does then meets both alike.

The first repetition comes before them, and tells which loops there are to compare the host with; the others are spread over
the real runs. The machine file is written once it holds together, before anything is simulated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.calibrate import Say, Session, check, settle
from experiments.calibrate_plan import FULL, Effort
from experiments.machine_file import Machine, parse_machine
from experiments.output import write_whole
from experiments.toolchain import Toolchain


@dataclass(slots=True)
class Meanwhile:
    """A calibration to be kept in a file, absolute; ``say`` is told of it in lines. InputError where none can be made."""

    path: Path
    say: Say
    effort: Effort = FULL
    _session: Session = field(init=False)
    _steps: Iterator[float] = field(init=False)
    _done: float = 0.0

    def __post_init__(self) -> None:
        check(self.effort)

    def begin(self, toolchains: Sequence[Toolchain], programs: Sequence[Path]) -> Machine:
        """The first repetition, with the programs calibrate that were built with these toolchains; what it comes to."""
        by_version = {go.model: program for go, program in zip(toolchains, programs, strict=True)}
        self._session = Session(self.path.stem, toolchains, by_version, self.effort, self.say)
        self._steps = self._session.everything()
        self.until(0.0)
        text, _ = self._session.text()
        return parse_machine(text, self._session.name)

    def until(self, share: float) -> None:
        """So much of the other repetitions: 1 for all of them."""
        first = 1 / self.effort.processes
        while self._done < first + share * (1 - first) - 1e-9:
            self._done = next(self._steps)

    def end(self) -> None:
        """The rest, and the file. InputError, and no file, if what was measured contradicts itself."""
        self.until(1.0)
        found = settle(self._session)
        if found.busy:
            self.say(f"the machine was busy: {'; '.join(found.busy)}")
        write_whole(self.path, found.text)
