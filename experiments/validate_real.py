"""The real side of a validation: repetitions of the generated programs, all workloads and versions in turn, and how the host
was beside them.

Each repetition is two runs, one of which prints its cycles. Prices may be measured in between (validate_calibrate.py).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.calibrate import built_with
from experiments.calibrate_host import back, memory
from experiments.machine_file import Machine, read_machine
from experiments.program_globals import globals_of
from experiments.toolchain import Toolchain
from experiments.validate_calibrate import Meanwhile
from experiments.validate_figures import Seen
from experiments.validate_host import Loop, loops, probe
from experiments.validate_kept import Shown
from experiments.validate_memory import Withheld, measure_withheld
from experiments.validate_run import measure_noise, replayer, run_real
from experiments.validate_stream import Kind, Program, kinds_of, write
from workloads.scenario import Scenario
from workloads.spec import Recorded

Watch = Callable[[float, str], None]


@dataclass(slots=True)
class Real:
    """A workload's program of a toolchain, the program calibrate of the same, and what they showed."""

    scenario: Scenario
    built: Path
    calibrate: Path
    shown: Shown
    size: int = 1 << 30  # bytes that the program has of the system, as its last run told

    def repeat(self, written: Program, wanted: Sequence[Loop]) -> None:
        """A look at the host, a repetition, and another look."""
        self.shown.probes.append(probe(self.calibrate, wanted))
        self.shown.noise.append(measure_noise(self.built))
        seen, told = self._run(written, traced=False)
        self.shown.runs.append((seen, self._run(written, traced=True)[0], told))
        self.shown.withheld.append(self._withheld(seen))

    def _withheld(self, seen: Seen) -> Withheld:
        """Which memory the host lacks: of a heap as large as a run's goal, or as it grew, in the time between two cycles."""
        self._back()
        heap = min(seen.memstats["NextGC"], seen.memstats["HeapSys"], memory("MemAvailable") << 8)
        turn = seen.wall / 1e9 / max(1, seen.memstats["NumGC"] - seen.before["NumGC"])
        return measure_withheld(self.built, heap, turn)

    def _run(self, written: Program, traced: bool) -> tuple[Seen, dict[str, Any]]:
        """A run on memory that the host stands behind."""
        self._back()
        seen, told = run_real(self.built, self.scenario, written, traced)
        self.size = told["memstats"]["Sys"]
        return seen, told

    def _back(self) -> None:
        """Have the host stand behind as much memory as a run needs, and at most a quarter of what is free."""
        back(min(self.size, memory("MemAvailable") << 8) >> 20)


def loops_of(scenario: Scenario, known: Machine | None = None) -> list[Loop]:
    """What tells how fast the host is, of a machine file: the scenario's if there is no other."""
    return loops(known or read_machine(scenario.machine), scenario.version, scenario.gomaxprocs, scenario.heap_shape)


def types(scenarios: Mapping[str, Sequence[Scenario]]) -> tuple[Kind, ...]:
    """The types of objects of all workloads."""
    loads = (by[0].workload for by in scenarios.values())
    return kinds_of([load.mix for load in loads if not isinstance(load, Recorded)])


def run_all(
    scenarios: Mapping[str, Sequence[Scenario]],
    toolchains: Sequence[Toolchain],
    repeat: int,
    measured: Meanwhile | None,
    watch: Watch,
) -> dict[str, list[Shown]]:
    """Run workloads' programs with each toolchain, ``scenarios`` by their names in the order of the toolchains; and have prices
    measured in between. NoGo, one line, if something cannot be run."""
    kinds = types(scenarios)
    with ExitStack() as stack:
        watch(0.0, "building")
        programs = [stack.enter_context(replayer(go, kinds)) for go in toolchains]
        clocks = [stack.enter_context(built_with(go)) for go in toolchains]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="allocsim-")))
        real = {
            name: [
                Real(one, program, clock, Shown(go.version, globals_of(program)))
                for one, go, program, clock in zip(by, toolchains, programs, clocks, strict=True)
            ]
            for name, by in scenarios.items()
        }
        known = None
        if measured is not None:
            watch(0.0, "calibrating, the first time")
            known = measured.begin(toolchains, clocks)
        in_turns(real, known, kinds, folder, repeat, measured, watch)
    return {name: [one.shown for one in versions] for name, versions in real.items()}


def in_turns(
    real: Mapping[str, Sequence[Real]],
    known: Machine | None,
    kinds: Sequence[Kind],
    folder: Path,
    repeat: int,
    measured: Meanwhile | None,
    watch: Watch,
) -> None:
    """All repetitions, and the calibration between them; ``known``: the machine file to compare the host with, if it is no
    scenario's."""
    wanted = {name: [loops_of(one.scenario, known) for one in versions] for name, versions in real.items()}
    done, steps = 0, repeat * len(real)
    for number in range(repeat):
        for name, versions in real.items():
            watch(done / steps, f"{name}, run {number + 1} of {repeat}")
            written = write(versions[0].scenario, kinds, folder)
            for one, loops_of_one in zip(versions, wanted[name], strict=True):
                one.repeat(written, loops_of_one)
            written.remove()
            done += 1
            if measured is not None:
                watch(done / steps, "calibrating")
                measured.until(done / steps)
    if measured is not None:
        measured.end()
