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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from experiments.errors import InputError
from experiments.machine import load_machine
from experiments.run import Result
from experiments.toolchain import Toolchain
from experiments.validate_calibrate import Meanwhile
from experiments.validate_figures import BY_NAME, Line, Row, Seen, compare, directions, figures, totals
from experiments.validate_host import as_calibrated, drift, speeds, told_by
from experiments.validate_kept import Kept, Shown
from experiments.validate_memory import longer, marked_longer, pages_of, unpriced, withheld
from experiments.validate_memory import together as all_withheld
from experiments.validate_pauses import with_pauses
from experiments.validate_real import Watch, loops_of, run_all, types
from experiments.validate_run import interrupted, simulate, tails, together
from experiments.validate_stream import Program, check, write
from experiments.validate_workloads import Workload
from sim import __version__
from workloads.scenario import Scenario
from workloads.spec import Workers

SCHEMA = 3
_MARKING = ("assist CPU", "mark CPU", "mark wall")
_WITH_NOISE = ("malloc ", "throughput", "first touch", "pause", *_MARKING)
"""Quantities that are told with what interrupts the CPUs and which memory is missing."""


def run(
    workloads: Sequence[Workload],
    toolchains: Sequence[Toolchain],
    prices: str | Meanwhile | None = None,
    repeat: int = 3,
    watch: Watch = lambda share, doing: None,
) -> Kept:
    """Run workloads with each toolchain; what they showed.

    ``prices``: the machine file, in place of the scenarios', or how one is measured meanwhile. ``watch`` is told the share
    that is done and what is next. NoGo or InputError, one line, if something cannot be run.
    """
    measured = prices if isinstance(prices, Meanwhile) else None
    machine = None if isinstance(prices, Meanwhile) else prices
    scenarios = {one.name: [_scenario(one, go, machine) for go in toolchains] for one in workloads}
    return Kept(repeat, run_all(scenarios, toolchains, repeat, measured, watch))


def simulated(
    workloads: Sequence[Workload],
    found: Kept,
    machine: str | None = None,
    watch: Watch = lambda share, doing: None,
) -> dict[str, Any]:
    """Simulate those of the workloads that were run, with the prices of a machine file, the scenarios' if none is given, and
    compare; everything that was found.

    InputError, one line, if real programs did not make the mallocs that are simulated.
    """
    there = [one for one in workloads if one.name in found.workloads]
    scenarios = {one.name: [_scenario(one, real.go, machine) for real in found.workloads[one.name]] for one in there}
    kinds = types(scenarios)
    answer: dict[str, Any] = {"schema": SCHEMA, "allocsim": __version__, "repeat": found.repeat, "workloads": []}
    answer["provenance"] = found.provenance
    with tempfile.TemporaryDirectory(prefix="allocsim-") as folder:
        for workload in there:
            written = write(scenarios[workload.name][0], kinds, Path(folder))
            versions = []
            for scenario, real in zip(scenarios[workload.name], found.workloads[workload.name], strict=True):
                watch(1.0, f"{workload.name}, go{real.toolchain}, simulated")
                versions.append(_compared(scenario, written, real))
            answer["workloads"].append({"name": workload.name, "purpose": scenario.purpose, "versions": versions})
            written.remove()
    answer |= summed(_tables(answer))
    toolchains = list(dict.fromkeys(real.go for real in found.of_all()))
    answer["directions"] = [asdict(one) for one in directions(_pairs(answer, toolchains))]
    return answer


def _scenario(workload: Workload, go: Toolchain, machine: str | None) -> Scenario:
    """The scenario of a workload for the version that simulates a toolchain."""
    found = workload.scenario(go.model, machine)
    check(found, workload.file)
    return found


def _compared(scenario: Scenario, written: Program, real: Shown) -> dict[str, Any]:
    """One version of a workload: what was simulated beside what it showed."""
    own, runs = real.globals_bytes, real.runs
    if any(told["mallocs"] != written.mallocs for _, _, told in runs):
        raise InputError(f"{scenario.name}: has another stream now than it was run with; run it again")
    if own is not None:
        scenario = replace(scenario, globals_bytes=own)
    ours, result = simulate(scenario, written)
    alone = figures(ours)
    malloc, seen, missing = _as_seen(ours, result, scenario, real)
    table = compare([figures(one) for one, _, _ in runs], [figures(one) for _, one, _ in runs], seen)
    told = [told for _, _, told in runs]
    return {
        "version": scenario.version,
        "toolchain": real.toolchain,
        "machine": result.machine,
        "without_noise": {name: value for name, value in alone.items() if name.startswith(_WITH_NOISE)},
        "mallocs": written.mallocs,
        "globals": {"bytes": scenario.globals_bytes, "of": "scenario" if own is None else "program"},
        "table": [_row(line) for line in table],
        "host": [asdict(one) for one in speeds(told_by(loops_of(scenario), real.probes), real.probes)],
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


def _as_seen(
    ours: Seen, result: Result, scenario: Scenario, real: Shown
) -> tuple[Row, dict[str, float], dict[str, Any]]:
    """Mallocs and all figures of what was simulated, as the machine's interruptions and the memory that it lacked would have
    shown them; and of those pages, how many there were."""
    noise, missing = together(real.noise), all_withheld(real.withheld)
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
