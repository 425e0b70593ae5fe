"""``allocsim validate``: workloads run as real programs and simulated, and how far apart they are, in one table.

The workloads are scenarios of ``validation/``; each becomes a Go program (validate_stream.py) that runs the very same
operations on the real runtime, and is simulated with the prices of a machine file. They share nothing with the loops
that a machine's prices are measured with, and no price may be chosen by what comes out here.

Every real run is repeated, all workloads and versions in turn so that a drift of the machine meets all alike; each
repetition is two runs, one of which prints its cycles (validate_figures.py). The real figure is the median. Before each
repetition loops of the calibration are run again, which tells how fast the host is relative to it (validate_host.py),
and what interrupts the CPUs is measured; after it, which memory the host of a virtual machine takes away
(validate_memory.py). Prices may be measured in between the real runs (validate_calibrate.py). Errors are summed up over
all workloads, and over those beside which the host was as calibrated; simulated figures are never scaled.

The simulation has as many bytes of globals as the real program's file says (program_globals.py), in place of its
scenario's: that is a fact of the program.

Left out of the model, and so part of the errors: what else runs on the machine (its interruptions are
measured alongside), caches of the CPU that the program's own objects push the allocator's data out of, and what a Go
program holds before its main begins (some 0.2 MB, of which 45 to 84 KiB are scanned in each cycle: with 1 MB live, up to a tenth
of the scan work). A peak is the highest of all cycles: one that is cut short by luck of the scheduler decides it, on
either side. Left out of the comparison: resident memory, and time in the system.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

from experiments.calibrate import built_with
from experiments.calibrate_host import back, memory
from experiments.calibrate_tables import Measurements
from experiments.machine import load_machine
from experiments.machine_file import Machine, read_machine
from experiments.program_globals import globals_of
from experiments.run import Result
from experiments.toolchain import Toolchain
from experiments.validate_calibrate import Meanwhile
from experiments.validate_figures import BY_NAME, Line, Row, Seen, compare, directions, figures, totals
from experiments.validate_host import Loop, as_calibrated, drift, loops, probe, speeds
from experiments.validate_memory import Withheld, longer, marked_longer, measure_withheld, pages_of, unpriced, withheld
from experiments.validate_memory import together as all_withheld
from experiments.validate_pauses import with_pauses
from experiments.validate_run import Noise, interrupted, measure_noise, replayer, run_real, simulate, tails, together
from experiments.validate_stream import Kind, Program, check, kinds_of, write
from experiments.validate_workloads import Workload
from sim import __version__
from workloads.scenario import Scenario
from workloads.spec import Recorded, Workers

SCHEMA = 3
_MARKING = ("assist CPU", "mark CPU", "mark wall")
_WITH_NOISE = ("malloc ", "throughput", "first touch", "pause", *_MARKING)
"""Quantities that are told with what interrupts the CPUs and which memory is missing."""

Watch = Callable[[float, str], None]


def validate(
    workloads: Sequence[Workload],
    toolchains: Sequence[Toolchain],
    prices: str | Meanwhile | None = None,
    repeat: int = 3,
    watch: Watch = lambda share, doing: None,
) -> dict[str, Any]:
    """Run and simulate workloads with each toolchain; everything that was found.

    ``prices``: the machine file, in place of the scenarios', or how one is measured meanwhile. ``watch`` is told the share
    that is done and what is next. NoGo or InputError, one line, if something cannot be run.
    """
    measured = prices if isinstance(prices, Meanwhile) else None
    machine = None if isinstance(prices, Meanwhile) else prices
    scenarios = {one.name: [_scenario(one, go, machine) for go in toolchains] for one in workloads}
    loads = [by[0].workload for by in scenarios.values()]
    kinds = kinds_of([load.mix for load in loads if not isinstance(load, Recorded)])
    answer: dict[str, Any] = {"schema": SCHEMA, "allocsim": __version__, "repeat": repeat, "workloads": []}
    with ExitStack() as stack:
        watch(0.0, "building")
        programs = [stack.enter_context(replayer(go, kinds)) for go in toolchains]
        clocks = [stack.enter_context(built_with(go)) for go in toolchains]
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="allocsim-")))
        real = {name: [Real(*one) for one in zip(by, programs, clocks, strict=True)] for name, by in scenarios.items()}
        known = None
        if measured is not None:
            watch(0.0, "calibrating, the first time")
            known = measured.begin(toolchains, clocks)
        _run_all(real, known, kinds, folder, repeat, measured, watch)
        for workload in workloads:
            versions = []
            written = write(scenarios[workload.name][0], kinds, folder)
            for go, one in zip(toolchains, real[workload.name], strict=True):
                watch(1.0, f"{workload.name}, go{go.version}, simulated")
                if measured is not None:
                    one.scenario = _scenario(workload, go, str(measured.path))
                versions.append(_compared(go, written, one))
            answer["workloads"].append({"name": workload.name, "purpose": one.scenario.purpose, "versions": versions})
            _remove(written)
    answer |= summed(_tables(answer))
    answer["directions"] = [asdict(one) for one in directions(_pairs(answer, toolchains))]
    return answer


def _run_all(
    real: Mapping[str, Sequence[Real]],
    known: Machine | None,
    kinds: Sequence[Kind],
    folder: Path,
    repeat: int,
    measured: Meanwhile | None,
    watch: Watch,
) -> None:
    """All real runs, and the calibration between them; ``known``: the machine file to compare the host with, if it is no
    scenario's."""
    wanted = {name: [one.loops(known) for one in versions] for name, versions in real.items()}
    done, steps = 0, repeat * len(real)
    for number in range(repeat):
        for name, versions in real.items():
            written = write(versions[0].scenario, kinds, folder)
            watch(done / steps, f"{name}, run {number + 1} of {repeat}")
            for one, loops_of_one in zip(versions, wanted[name], strict=True):
                one.repeat(written, loops_of_one)
            _remove(written)
            done += 1
            if measured is not None:
                watch(done / steps, "calibrating")
                measured.until(done / steps)
    if measured is not None:
        measured.end()


def _remove(written: Program) -> None:
    """The files of a program: they take up to a hundred megabytes."""
    for file in written.files:
        file.unlink()


@dataclass(slots=True)
class Real:
    """The real side of a workload and version: repetitions of its program, and how the host was beside them.

    ``runs``: of each repetition a run, one with lines of cycles, and what the first printed besides.
    """

    scenario: Scenario
    built: Path
    calibrate: Path  # the program
    runs: list[tuple[Seen, Seen, Mapping[str, Any]]] = field(default_factory=list)
    noise: list[Noise] = field(default_factory=list)
    withheld: list[Withheld] = field(default_factory=list)
    probes: list[Mapping[str, Measurements]] = field(default_factory=list)
    size: int = 1 << 30  # bytes that the program has of the system, as its last run told

    def loops(self, known: Machine | None = None) -> list[Loop]:
        """What tells how fast the host is, of a machine file: the scenario's if there is no other."""
        one = self.scenario
        return loops(known or read_machine(one.machine), one.version, one.gomaxprocs, one.heap_shape)

    def repeat(self, written: Program, wanted: Sequence[Loop]) -> None:
        """A look at the host, a repetition, and another look."""
        self.probes.append(probe(self.calibrate, wanted))
        self.noise.append(measure_noise(self.built))
        seen, told = self._run(written, traced=False)
        self.runs.append((seen, self._run(written, traced=True)[0], told))
        self.withheld.append(self._withheld(seen))

    def _withheld(self, seen: Seen) -> Withheld:
        """Which memory the host lacks: of a heap as large as a run's goal, or as it grew, in the time between two cycles."""
        self._back()
        heap = min(seen.memstats["NextGC"], seen.memstats["HeapSys"], memory("MemAvailable") << 8)
        turn = seen.wall / 1e9 / max(1, seen.memstats["NumGC"] - seen.before["NumGC"])
        return measure_withheld(self.built, heap, turn)

    def _run(self, written: Program, traced: bool) -> tuple[Seen, Mapping[str, Any]]:
        """A run on memory that the host stands behind."""
        self._back()
        seen, told = run_real(self.built, self.scenario, written, traced)
        self.size = told["memstats"]["Sys"]
        return seen, told

    def _back(self) -> None:
        """Have the host stand behind as much memory as a run needs, and at most a quarter of what is free."""
        back(min(self.size, memory("MemAvailable") << 8) >> 20)


def _scenario(workload: Workload, go: Toolchain, machine: str | None) -> Scenario:
    """The scenario of a workload for the version that simulates a toolchain."""
    found = workload.scenario(go.model, machine)
    check(found, workload.file)
    return found


def _compared(go: Toolchain, written: Program, real: Real) -> dict[str, Any]:
    """What one version of a workload showed."""
    own, runs = globals_of(real.built), real.runs
    scenario = real.scenario if own is None else replace(real.scenario, globals_bytes=own)
    ours, result = simulate(scenario, written)
    alone = figures(ours)
    malloc, seen, missing = _as_seen(ours, result, real)
    table = compare([figures(one) for one, _, _ in runs], [figures(one) for _, one, _ in runs], seen)
    told = [told for _, _, told in runs]
    return {
        "version": scenario.version,
        "toolchain": go.version,
        "machine": result.machine,
        "without_noise": {name: value for name, value in alone.items() if name.startswith(_WITH_NOISE)},
        "mallocs": written.mallocs,
        "globals": {"bytes": scenario.globals_bytes, "of": "scenario" if own is None else "program"},
        "table": [_row(line) for line in table],
        "host": [asdict(one) for one in speeds(real.loops(), real.probes)],
        "noise": together(real.noise).to_dict(),
        "withheld": missing,
        "tails": tails([one.malloc for one, _, _ in runs], result, malloc),
        "latency_by_cause": result.to_dict()["latency"],
        "assumed_prices": result.assumed,
        "real": {
            "clock_overhead_ns": median(one["overhead_ps"] for one in told) / 1000,
            "unpaid_driver_ms": median(one["debt_ns"] for one in told) / 1e6,
            "interruptions": median(one["interruptions"] for one in told),
            "minor_faults": median(one["minor_faults"] for one in told),
            "cpu_s": median(one["user_ns"] + one["system_ns"] for one in told) / 1e9,
            "wall_s": median(one["wall_ns"] for one in told) / 1e9,
            "late_us": told[0].get("late_us"),
            "metrics": told[0]["metrics"],
        },
    }


def _as_seen(ours: Seen, result: Result, real: Real) -> tuple[Row, dict[str, float], dict[str, Any]]:
    """Mallocs and all figures of what was simulated, as the machine's interruptions and the memory that it lacked would have
    shown them; and of those pages, how many there were."""
    scenario, noise, missing = real.scenario, together(real.noise), all_withheld(real.withheld)
    first_touch = load_machine(scenario.machine, scenario.version).steps["first_touch"]
    pages = pages_of(result, unpriced(missing.fresh, first_touch))
    malloc = interrupted(withheld(ours.malloc, result.counts, pages, missing, scenario.seed), noise, scenario.seed)
    touched = ours.first_touch + pages.fresh_by_program * missing.fresh.mean
    ours = with_pauses(ours, result, noise, missing)
    found = figures(replace(ours, malloc=malloc, first_touch=touched))
    times = marked_longer(1e6 * found["mark CPU"], pages, missing)
    found |= {name: times * found[name] for name in _MARKING}
    if isinstance(scenario.workload, Workers):
        at_once = min(scenario.workload.goroutines, scenario.gomaxprocs)
        computing = 1e9 * result.metrics["/sim/time/compute:cpu-seconds"]
        found["throughput"] *= ours.wall / longer(ours.wall, computing, pages, missing, noise.share, at_once)
    return malloc, found, missing.to_dict() | {"met": asdict(pages)}


def summed(versions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Errors of all workloads and versions, and of those beside which the host was as calibrated; how far it was not."""
    quiet = [one for one in versions if as_calibrated(one)]
    return {
        "summary": [asdict(one) for one in totals(map(_lines, versions))],
        "summary_as_calibrated": [asdict(one) for one in totals(map(_lines, quiet))],
        "drift": drift(versions),
    }


def _row(line: Line) -> dict[str, Any]:
    return asdict(line) | {"unit": BY_NAME[line.quantity].unit, "error": line.error, "beyond": line.beyond}


def _lines(version: Mapping[str, Any]) -> list[Line]:
    return [Line(*(row[name] for name in ("quantity", "real", "low", "high", "simulated"))) for row in version["table"]]


def _tables(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [version for workload in answer["workloads"] for version in workload["versions"]]


def _pairs(answer: Mapping[str, Any], toolchains: Sequence[Toolchain]) -> dict[str, tuple[list[Line], list[Line]]]:
    """Tables of the oldest and the newest toolchain by workload, where two different versions were simulated."""
    old, new = min(toolchains, key=lambda go: go.minor), max(toolchains, key=lambda go: go.minor)
    if old.model == new.model:
        return {}
    found = {}
    for workload in answer["workloads"]:
        by = {version["toolchain"]: version for version in workload["versions"]}
        found[workload["name"]] = (_lines(by[old.version]), _lines(by[new.version]))
    return found
