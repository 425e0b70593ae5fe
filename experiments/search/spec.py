"""A tune file, checked: what is to be minimised within which bounds, over which axes, by how many runs.

    purpose = "The shortest tail in 64 MiB"  # optional
    scenario = "api-service"                 # a shipped one, or a path, from this file's folder; required

    [set]                                    # settings of all points, as in a sweep
    run.duration = "100ms"

    [tune]
    minimise = "response:p99.9"              # or maximise; figures are those of experiments/search/metrics.py
    subject_to = ["peak-rss <= 64MiB"]       # optional; <= or >=
    samples = 40                             # default: points that are tried
    replications = 3                         # default: runs of each point, with seeds seed, seed + 1, ...
    batch = 8                                # default: points asked for at once, side by side; more learn less from each other
    candidates = 3                           # default: the best ones, run anew
    confirm = 10                             # default: runs of each of them, with seeds that the search has not seen
    seed = 1                                 # default: of the runs and of the search

    [axes]                                   # as in a sweep of kind latin-hypercube
    gogc = { low = 25, high = 400, scale = "log" }
    gomaxprocs = [2, 4, 8]

The command line says the same: ``allocsim tune api-service --minimise response:p99.9 --subject-to 'peak-rss<=64MiB' --axis
gogc=25..400:log --axis gomaxprocs=2,4,8``, or changes what a file says.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

from experiments.errors import InputError, visible
from experiments.search.aims import Aim, bound
from experiments.search.metrics import metric
from experiments.sweeps.points import check_keys
from experiments.sweeps.spec import Range, Sweep, Value, axes_of, flat, known_keys, read_tables
from workloads.scenario import ScenarioError, parse, read_text, value_of
from workloads.scenario_values import shown

_TOP = ("purpose", "scenario", "set", "tune", "axes")
_TUNE = ("minimise", "maximise", "subject_to", "samples", "replications", "batch", "candidates", "confirm", "seed")
_RANGE = re.compile(r"(.+?)\.\.(.+?)(?::(log|linear))?")
_MAX = 100_000  # points, or runs of one


@dataclass(frozen=True)
class Tune:
    """What a tune file says, or the same from Python; InputError, one line, says which key is wrong.

    ``source`` and ``folder``: what messages call it, and where relative paths start.
    """

    scenario: str
    axes: Mapping[str, Sequence[Value] | Range] = field(default_factory=dict)
    minimise: str = ""
    maximise: str = ""
    subject_to: Sequence[str] = ()
    samples: int = 40
    replications: int = 3
    batch: int = 8
    candidates: int = 3
    confirm: int = 10
    seed: int = 1
    set: Mapping[str, Any] = field(default_factory=dict)
    purpose: str = ""
    source: str = field(default="Tune", compare=False)
    folder: Path = field(default_factory=Path, compare=False)

    def __post_init__(self) -> None:
        for key, least in (("samples", 1), ("replications", 1), ("batch", 1), ("candidates", 2), ("confirm", 2)):
            value = getattr(self, key)
            if type(value) is not int or not least <= value <= _MAX:
                self.refuse(
                    f"tune.{key}", f"{shown(value)} is not allowed; write a whole number from {least} to {_MAX}"
                )
        if bool(self.minimise) == bool(self.maximise):
            self.refuse("tune", 'wants one of minimise and maximise; write minimise = "response:p99.9"')
        if not isinstance(self.subject_to, Sequence) or isinstance(self.subject_to, str):
            self.refuse("tune.subject_to", f'{shown(self.subject_to)} is no list; write ["peak-rss <= 2GiB"]')
        _ = self.aim
        check_keys(self.sweep_of_axes)

    def refuse(self, key: str, what: str) -> NoReturn:
        """Raise the error of a key: what is wrong; what would be right."""
        raise InputError(visible(f"{self.source}: {key}: {what}"))

    @cached_property
    def aim(self) -> Aim:
        """The objective and the bounds; InputError if a figure is none."""
        key, text = ("minimise", self.minimise) if self.minimise else ("maximise", self.maximise)
        try:
            objective = metric(self._line(key, text))
            key = "subject_to"
            bounds = tuple(bound(self._line(key, one)) for one in self.subject_to)
        except ValueError as error:
            self.refuse(f"tune.{key}", str(error))
        return Aim(objective, bool(self.minimise), bounds)

    def _line(self, key: str, text: Any) -> str:
        if not isinstance(text, str):
            self.refuse(f"tune.{key}", f"{shown(text)} is no text; write a figure such as response:p99.9, in quotes")
        return text

    @cached_property
    def sweep_of_axes(self) -> Sweep:
        """A sweep that draws from the axes, with the first seeds; InputError if an axis or a seed is wrong."""
        if type(self.seed) is not int or not 0 <= self.seed < (1 << 32) - 2 * _MAX:
            self.refuse("tune.seed", f"{shown(self.seed)} is not allowed; write a whole number from 0 to 4000000000")
        return Sweep(
            self.scenario,
            self.axes,
            "latin-hypercube",
            self.replications,
            self.seed,
            self.samples,
            set=self.set,
            purpose=self.purpose,
            source=self.source,
            folder=self.folder,
        )

    def described(self) -> dict[str, Any]:
        """All that it says, as JSON has it."""
        axes = {key: asdict(axis) if isinstance(axis, Range) else list(axis) for key, axis in self.axes.items()}
        keys = ("purpose", "scenario", *_TUNE)
        return {key: getattr(self, key) for key in keys} | {
            "subject_to": list(self.subject_to),
            "set": dict(self.set),
            "axes": axes,
        }


def read_tune(
    name: str, changes: Mapping[str, Any], axes: Sequence[str] = (), sets: Mapping[str, Any] | None = None
) -> Tune:
    """The search of a tune file, or one in a scenario, by its name or file, with what the command line says of it.

    ``changes``: keys of [tune]; what is None or empty changes nothing. ``axes``: texts ``key=low..high[:log]`` or
    ``key=value,value``, added or in place of those of the same key. InputError names file or option, and key.
    """
    path = Path(name)
    raw: dict[str, Any] = {"scenario": name, "set": {}, "tune": {}, "axes": {}}
    folder = Path()
    if _is_tune_file(path, name):
        raw = read_tables(name, path, _TOP, ("set", "tune", "axes"))
        folder = path.parent
    known_keys(name, "tune.", raw["tune"], _TUNE)
    given = {key: value for key, value in changes.items() if value not in (None, "", ())}
    if given.keys() & {"minimise", "maximise"}:
        raw["tune"] = {key: value for key, value in raw["tune"].items() if key not in ("minimise", "maximise")}
    return Tune(
        scenario=raw["scenario"],
        axes=axes_of(name, raw["axes"]) | dict(_axis(name, text) for text in axes),
        set=flat(raw["set"]) | dict(sets or {}),
        purpose=raw.get("purpose", ""),
        source=name,
        folder=folder,
        **(raw["tune"] | given),
    )


def _is_tune_file(path: Path, name: str) -> bool:
    """Whether a file names a scenario; else it is one, or a shipped one's name."""
    if path.suffix != ".toml" and "/" not in name and not os.path.isfile(name):
        return False
    try:
        held = parse(read_text(path, name), name)
    except ScenarioError as error:
        raise InputError(str(error)) from None
    return bool(held.keys() & {"scenario", "tune", "axes"})


def _axis(name: str, text: str) -> tuple[str, Any]:
    """An axis of the command line."""
    key, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not key or not values:
        raise InputError(
            visible(f"{name}: --axis {text[:80]}: is no axis; write gogc=25..400, gogc=25..400:log or gomaxprocs=1,2,4")
        )
    found = _RANGE.fullmatch(values)
    try:
        if found:
            low, high = (value_of(found[place], key, name) for place in (1, 2))
            return key, Range(low, high, found[3] or "linear")  # type: ignore[arg-type]
        return key, [value_of(value.strip(), key, name) for value in values.split(",")]
    except ScenarioError as error:
        raise InputError(str(error)) from None
