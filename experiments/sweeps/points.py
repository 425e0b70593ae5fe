"""The points of a sweep and their runs: settings in a defined order, checked before anything runs.

Replication r has the same seed at every point, so that differences between points are those of their settings.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from experiments.machine_file import read_machine
from experiments.result import toml_value
from experiments.sweeps.code import code_version, file_digest
from experiments.sweeps.record import SCHEMA
from experiments.sweeps.spec import DRAWN, MAX_RUNS, Range, Sweep, Value, limits
from workloads.scenario import Scenario, ScenarioError, full_key, load, make_absolute
from workloads.scenario_record import exact_size, exact_time
from workloads.scenario_values import shown

_DIGITS = 6  # significant ones of a number drawn


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of settings. ``keys``: what its runs are recorded under, by replicate."""

    number: int
    values: dict[str, Value]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """The ``replicate``-th run of a point, with this seed; recorded under ``key``."""

    point: int
    replicate: int
    seed: int
    key: str


def values_of(sweep: Sweep) -> Iterator[dict[str, Value]]:
    """The settings of each point, in order: of a grid the last axis varies fastest."""
    if sweep.kind == "list":
        yield from map(dict, sweep.points)
    elif sweep.kind in DRAWN:
        yield from _drawn(sweep)
    else:
        combined: Any = itertools.product if sweep.kind == "grid" else zip
        for values in combined(*sweep.axes.values()):
            yield dict(zip(sweep.axes, values, strict=True))


def _drawn(sweep: Sweep) -> Iterator[dict[str, Value]]:
    """Points drawn with the sweep's seed."""
    if sweep.kind == "random":
        from numpy.random import default_rng

        places = default_rng(sweep.seed).random((sweep.samples, len(sweep.axes)))
    else:
        from scipy.stats.qmc import LatinHypercube

        places = LatinHypercube(len(sweep.axes), rng=sweep.seed).random(sweep.samples)
    for row in places.tolist():
        yield {key: value_at(axis, u) for (key, axis), u in zip(sweep.axes.items(), row, strict=True)}


def value_at(axis: Any, u: float) -> Value:
    """The value of an axis at a place from 0 to 1: of a range by its scale, whole between whole ends."""
    if not isinstance(axis, Range):
        return axis[min(int(u * len(axis)), len(axis) - 1)]
    unit, low, high = limits(axis)
    whole = isinstance(low, int) and isinstance(high, int)
    end = high + 1 if whole else high
    if axis.scale == "log":
        found = math.exp(math.log(low) + u * (math.log(end) - math.log(low)))
    else:
        found = low + u * (end - low)
    if not whole:
        return min(max(float(f"{found:.{_DIGITS}g}"), low), high)
    number = min(max(int(found), int(low)), int(high))
    return exact_size(number) if unit == "size" else exact_time(number) if unit == "time" else number


def points_of(sweep: Sweep) -> tuple[list[Point], list[Scenario]]:
    """Every point, and the scenario of each with the sweep's first seed.

    InputError, before anything runs, names the setting that the scenario lacks or the point whose values it refuses.
    """
    check_keys(sweep)
    if (runs := _count(sweep) * sweep.replications) > MAX_RUNS:
        sweep.refuse("axes", f"make {runs:,} runs, more than {MAX_RUNS:,}; write fewer values or replications")
    points, scenarios = [], []
    files = _Files()
    for number, values in enumerate(values_of(sweep)):
        scenario = _resolved(sweep, number, values)
        _check_machine(sweep, scenario.machine, scenario.version, files)
        content = files.content(scenario)
        seeds = range(sweep.seed, sweep.seed + sweep.replications)
        points.append(Point(number, values, tuple(_key(content, seed) for seed in seeds)))
        scenarios.append(scenario)
    return points, scenarios


def _count(sweep: Sweep) -> int:
    """How many points a sweep has."""
    if sweep.kind in DRAWN:
        return sweep.samples
    if sweep.kind == "list":
        return len(sweep.points)
    lengths = [len(axis) for axis in sweep.axes.values() if not isinstance(axis, Range)]
    return math.prod(lengths) if sweep.kind == "grid" else lengths[0]


def runs_of(sweep_seed: int, points: list[Point]) -> list[Run]:
    """Every run, point by point."""
    return [
        Run(point.number, replicate, sweep_seed + replicate, key)
        for point in points
        for replicate, key in enumerate(point.keys)
    ]


def check_keys(sweep: Sweep) -> None:
    """InputError unless axes and [set] name settings that are not each other's, nor the seed."""
    from workloads.scenario_schema import SECTIONS

    paths: dict[tuple[str, ...], str] = {}
    axes = sweep.points[0] if sweep.kind == "list" else sweep.axes
    for where, keys in (("axes" if sweep.kind != "list" else "point", axes), ("set", sweep.set)):
        for key in keys:
            try:
                path = tuple(full_key(key, SECTIONS, ""))
            except ScenarioError as error:
                sweep.refuse(where, str(error).removeprefix(": "))
            if path == ("run", "seed"):
                sweep.refuse(
                    f"{where}.{key}", "seeds are those of the sweep; write seed and replications under [sweep]"
                )
            if path in paths:
                sweep.refuse(f"{where}.{key}", f"is the same setting as {paths[path]}; leave one of them out")
            paths[path] = f"{where}.{key}"


def _resolved(sweep: Sweep, number: int, values: Mapping[str, Value]) -> Scenario:
    """The scenario of a point; InputError says whose fault it is that there is none."""
    try:
        return _load(sweep, values)
    except ScenarioError as error:
        what = str(error).removeprefix(f"{_scenario(sweep)}: ")
        try:
            _load(sweep, {})
        except ScenarioError as without:
            if str(without) == str(error):
                sweep.refuse("scenario", str(error))
        told = ", ".join(f"{key} = {shown(value)}" for key, value in values.items())
        sweep.refuse(f"point {number} ({told})", what)


def _scenario(sweep: Sweep) -> str:
    """What the scenario's file is, or its name."""
    is_path = "/" in sweep.scenario or sweep.scenario.endswith(".toml")
    return str(sweep.folder / sweep.scenario) if is_path else sweep.scenario


def _load(sweep: Sweep, values: Mapping[str, Value]) -> Scenario:
    from workloads.scenario_schema import SECTIONS

    sets = []
    for key, value in (dict(sweep.set) | dict(values)).items():
        section, *rest = full_key(key, SECTIONS, "")
        raw = {section: {".".join(rest): value}}
        make_absolute(raw, sweep.folder)
        sets.append(f"{key}={toml_value(raw[section]['.'.join(rest)])}")
    return load(_scenario(sweep), sets, sweep.seed)


def _check_machine(sweep: Sweep, machine: str, version: str, files: _Files) -> None:
    if (machine, version) not in files.machines:
        read_machine(machine).measured(version)
        files.machines.add((machine, version))


class _Files:
    """Files that scenarios name, read once: what decides a run is what they hold, not where they stand."""

    def __init__(self) -> None:
        self.machines: set[tuple[str, str]] = set()
        self._digests: dict[str, str] = {}

    def _digest(self, path: str) -> str:
        if path not in self._digests:
            self._digests[path] = file_digest(path)
        return self._digests[path]

    def content(self, scenario: Scenario) -> str:
        """Everything that decides a run but its seed, as text that is the same on every machine."""
        config = scenario.resolved()
        del config["purpose"], config["run"]["seed"]
        machine = config["machine"]
        if "/" in machine["prices"]:
            machine["prices"] = self._digest(machine["prices"])
        if "trace" in config["workload"]:
            config["workload"]["trace"] = self._digest(config["workload"]["trace"])
        return json.dumps({"schema": SCHEMA, "code": code_version(), "config": config}, sort_keys=True)


def files_of(scenario: Scenario) -> list[str]:
    """The files that a scenario names, which each run of it reads."""
    named = scenario.machine, getattr(scenario.workload, "trace", "")
    return [path for path in named if "/" in path]


def _key(content: str, seed: int) -> str:
    """What a run is recorded under."""
    return hashlib.sha256(f"{seed}\n{content}".encode()).hexdigest()[:32]
