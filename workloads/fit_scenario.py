"""A fitted workload as a scenario file: TOML that says beside each number where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf
from typing import Any

from sim.go.params import VERSIONS
from sim.units import SEC
from workloads.fit import GARBAGE, GUESS, Fit, filled, fit, fit_rows, mutators
from workloads.recording import Recording, limit_of, model_version, percent_of
from workloads.scenario import apply_sets
from workloads.scenario_record import Scenario, ScenarioError, exact_size, exact_time
from workloads.scenario_schema import resolve
from workloads.scenario_values import MAX_STACK
from workloads.spec import PPM, Lifetime, Objects, Workers

MAX_MALLOCS = 10_000_000
"""Mallocs that a fitted scenario makes at most if nothing is said: a second of ours, or some more."""
_MALLOC = 40_000  # picoseconds that a malloc takes, about, before anything is run
_GLOBALS = 1 << 20  # bytes from which on lines tell them
_WIDTH = 110
_SIZES = "sizes: {}; weights: of a billion objects made"

Tables = dict[str, Any]
Why = dict[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class Draft:
    """A fitted scenario: tables of its file, the comment of each key, the fit, and what to be careful about.

    ``guessed``: the objects, by number, of which nothing tells how many hold pointers.
    """

    name: str
    raw: Tables
    why: Why
    fit: Fit
    cautions: tuple[str, ...]
    source: str  # of sizes
    guessed: tuple[int, ...]

    def scenario(self) -> Scenario:
        """The scenario; ScenarioError where a value that was set is wrong."""
        return resolve(self.raw, f"{self.name}.toml", self.name)

    def with_values(self, think: int, pointers: float | None, sets: Sequence[str]) -> Draft:
        """The same with other computing before each malloc, and another share of pointers, unless they were set."""
        raw, why = deepcopy(self.raw), dict(self.why)
        workload = raw["workload"]
        workload["think"] = exact_time(think)
        why["workload", "think"] = (
            f"so that {self.fit.rate / 1e6:.4g} MB a second are allocated, as recorded: by some runs"
        )
        if pointers is not None:
            for i in self.guessed:
                workload["objects"][i]["pointers"] = round(pointers, 3)
            why["workload", "objects"] = (
                f"{_SIZES.format(self.source)}; pointers: so that marking takes the CPU time recorded"
            )
        _change(raw, why, sets, self.name)
        return replace(self, raw=raw, why=why)

    def text(self, head: Sequence[str] = ()) -> str:
        """The file."""
        lines = [*head, *self.cautions]
        return "".join(f"{line}\n" for line in (*(f"# {line}" for line in lines), *_toml(self.raw, self.why)))


def _change(raw: Tables, why: Why, sets: Sequence[str], name: str) -> None:
    """Carry out sets, and say so in the comments."""
    before, named = deepcopy(raw), {one.partition("=")[0].strip().split(".")[-1] for one in sets}
    apply_sets(raw, sets, f"{name}.toml")
    for section, table in raw.items():
        if isinstance(table, dict):
            changed = {key for key, value in table.items() if before.get(section, {}).get(key) != value}
            why |= {(section, key): "as set" for key in changed | (named & set(table))}


def draft(recorded: Recording, sets: Sequence[str] = ()) -> Draft:
    """The scenario of a recording. ValueError, or ScenarioError for a wrong set, of one line."""
    raw, why, cautions = _settings(recorded)
    known, guess = _known(recorded, raw, sets)
    facts = VERSIONS[known.version]
    if recorded.cycles:
        found = fit(recorded.cycles, recorded.sizes, facts, whole=recorded.whole)
    else:
        found = fit_rows(recorded.sizes, facts)
    cautions += found.cautions
    seconds = _seconds(recorded)
    length = min(seconds, MAX_MALLOCS / found.mallocs)
    raw["run"] = {"duration": _time(length)}
    why["run", "duration"] = "as long as the recorded cycles" if recorded.cycles else "as long as the program ran"
    if length < seconds:
        why["run", "duration"] = f"of {seconds:.3g} s recorded: {MAX_MALLOCS // 10**6} million mallocs"
        whole = f"--set duration={seconds:.3g}s for all"
        cautions.append(f"the scenario is the first {length:.3g} s of {seconds:.3g}; {whole}")
    if not recorded.cycles and (there := filled(found.lives, length)) < 0.9:
        cautions.append(f"lifetimes are as long as the run: {100 * there:.0f} % of what lives will be there at its end")
    assert isinstance(known.workload, Workers)
    raw["workload"] = _workload(recorded, found, known.workload.goroutines)
    why["workload", "goroutines"] = guess
    why["workload", "think"] = f"an estimate, for {found.mallocs:.4g} mallocs and {found.rate / 1e6:.4g} MB a second"
    why["workload", "objects"] = _SIZES.format(recorded.sizes.source)
    if "stack" in raw["workload"]:
        why["workload", "stack"] = f"all stacks, by {recorded.settings.sources['stacks']}"
    objects = raw["workload"]["objects"]
    _change(raw, why, sets, recorded.name)
    resolve(raw, f"{recorded.name}.toml", recorded.name)  # refuses a wrong set
    guessed: tuple[int, ...] = ()
    if recorded.sizes.pointers is None and raw["workload"].get("objects") is objects:
        guessed = tuple(i for i, kind in enumerate(found.mix.objects) if kind.pointers_ppm == round(GUESS * PPM))
    return Draft(recorded.name, raw, why, found, (*recorded.cautions, *cautions), recorded.sizes.source, guessed)


def _known(recorded: Recording, settings: Tables, sets: Sequence[str]) -> tuple[Scenario, str]:
    """A scenario with the settings of a recording and those set, and why it has so many goroutines."""
    raw = deepcopy(settings) | {"run": {"mallocs": 1}}
    goroutines, guess = 1, ""
    for _ in range(2):  # how many goroutines there are depends on how many Ps are set
        raw["workload"] = {"kind": "workers", "goroutines": goroutines, "objects": [{"size": "16B"}]}
        apply_sets(raw, [one for one in sets if "objects" not in one.partition("=")[0]], f"{recorded.name}.toml")
        known = resolve(raw, f"{recorded.name}.toml", recorded.name)
        goroutines, guess = mutators(recorded.cycles, known.gomaxprocs)
    if not isinstance(known.workload, Workers):
        raise ScenarioError(f"{recorded.name}.toml: workload.kind: a fit is of kind workers; leave it as it is")
    return known, guess


def _workload(recorded: Recording, found: Fit, goroutines: int) -> Tables:
    """The table of the workload."""
    workload: Tables = {
        "kind": "workers",
        "goroutines": goroutines,
        "think": exact_time(max(round(goroutines * SEC / found.mallocs) - _MALLOC, 0)),
        "think_dist": "exponential",
    }
    stacks = recorded.settings.stacks or 0
    if stacks >= _GLOBALS:
        workload["stack"] = exact_size(min(int(stacks / goroutines), MAX_STACK))
    return workload | {"objects": [_object(kind, goroutines) for kind in found.mix.objects]}


def described(found: Fit, recorded: Recording) -> list[str]:
    """What was fitted, in lines for the head of the file."""
    lines = [
        "Fitted by allocsim; formulas: workloads/fit.py.",
        f"Cycles: {recorded.cycles_from or 'none'}. Sizes: {recorded.sizes.source}.",
    ]
    for one in found.lives:
        if one.seconds == inf:
            lines.append(f"Live: {one.rate / 1e6:.3g} MB more each second, for ever.")
        else:
            lines.append(f"Live: {one.amount / 1e6:.3g} MB of objects with a mean lifetime of {one.seconds:.3g} s.")
    if recorded.cycles:
        lines.append(
            f"The rest is garbage within some {GARBAGE} mallocs. The curves' median error: {100 * found.error:.1f} %."
        )
    return lines


def _seconds(recorded: Recording) -> float:
    if not recorded.cycles:
        return recorded.settings.seconds or 1.0
    return recorded.cycles[-1].end - (0.0 if recorded.whole else recorded.cycles[0].end)


def _time(seconds: float) -> str:
    return exact_time(max(round(seconds * 1e6), 1) * (SEC // 10**6))


def _settings(recorded: Recording) -> tuple[Tables, Why, list[str]]:
    """Tables of how the program ran; why; cautions."""
    told = recorded.settings
    version, caution = model_version(told.version)
    cautions = [caution] if caution else []
    runtime: Tables = {
        "version": version,
        "gomaxprocs": told.procs or 1,
        "gogc": percent_of(told.gogc),
        "memory_limit": limit_of(told.memory_limit),
    }
    by_default = "not told: the default"
    why = {("runtime", key): told.sources.get(name, by_default) for key, name in _KEYS.items()}
    if told.procs is None:
        cautions.append("nothing tells how many Ps the program had: one is taken; --set gomaxprocs=4 for four")
    if (told.globals_ or 0) >= _GLOBALS:
        runtime["globals"] = exact_size(int(told.globals_ or 0))
        why["runtime", "globals"] = told.sources["globals_"]
    return {"purpose": f"{recorded.name}, as recorded", "runtime": runtime}, why, cautions


_KEYS = {"version": "version", "gomaxprocs": "procs", "gogc": "gogc", "memory_limit": "memory_limit"}


def _object(kind: Objects, goroutines: int) -> Tables:
    """A kind of object as the file has it, its lifetime in mallocs of one goroutine."""
    parts = kind.sizes
    size: Any = exact_size(parts[0][0])
    if len(parts) > 1:
        size = [{"size": exact_size(low), "weight": weight} for low, _, weight in parts]
    found = {"weight": kind.weight, "pointers": kind.pointers_ppm / PPM}
    if kind.pointers_ppm and kind.pointer_bytes_ppm != PPM:
        found["pointer_bytes"] = kind.pointer_bytes_ppm / PPM
    return found | {"lifetime": _lifetime(kind.lifetime, goroutines), "size": size}


def _lifetime(lifetime: Lifetime, goroutines: int) -> Any:
    if lifetime.kind == "immortal":
        return "immortal"
    ops = lifetime.mean if lifetime.mean == GARBAGE else max(1, round(lifetime.mean / goroutines))
    return {"ops": ops, "dist": lifetime.dist}


def _toml(raw: Mapping[str, Any], why: Why) -> Iterator[str]:
    """Lines of a file: a section per table, lists of tables a line each, comments behind."""
    yield f"purpose = {_value(raw['purpose'])}"
    for section, table in raw.items():
        if not isinstance(table, dict):
            continue
        yield ""
        yield f"[{section}]"
        for key, value in table.items():
            comment = f"  # {why[section, key]}" if (section, key) in why else ""
            if not isinstance(value, list):
                yield f"{key} = {_value(value)}{comment}"
                continue
            yield f"{key} = [{comment}"
            for one in value:
                yield from _wrapped(f"    {_value(one)},")
            yield "]"


def _wrapped(line: str) -> Iterator[str]:
    """A line cut after commas of a list, where it is long."""
    while len(line) > _WIDTH and (cut := line.rfind("}, {", 0, _WIDTH)) >= 0:
        yield line[: cut + 2]
        line = "        " + line[cut + 3 :]
    yield line


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_value(one)}' for key, one in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value)
