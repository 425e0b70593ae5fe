"""A sweep file, checked: which settings of a scenario are varied, how they are combined, how often each is repeated.

    purpose = "GOGC x limit"                 # optional
    scenario = "api-service"                 # a shipped one, or a path, from this file's folder; required

    [set]                                    # settings of all points, as `allocsim run --set` takes them
    run.duration = "100ms"

    [sweep]
    kind = "grid"                            # default: each value of an axis with each of the others
    replications = 5                         # default 1: runs of each point, with seeds seed, seed + 1, ...
    seed = 1                                 # default: the same seeds at every point (common random numbers)

    [axes]
    gogc = [50, 100, 200]                    # settings that are varied: numbers, text, true or false
    memory_limit = ["off", "128MiB"]

Other kinds:

    kind = "zip"                             # axes of the same length, value by value

    kind = "list"                            # the points one by one, in place of [axes]
    [[point]]
    gogc = 50
    workload.rate = 1000

    kind = "latin-hypercube"                 # or "random": points drawn with the sweep's seed
    samples = 20                             # how many points
    [axes]
    gogc = { low = 25, high = 400, scale = "log" }            # between whole numbers whole ones are drawn
    memory_limit = { low = "64MiB", high = "1GiB" }           # sizes, times; scale = "linear" is the default
    gomaxprocs = [1, 2, 4]                                    # one of these

Keys of settings are those of scenarios: dotted, or the last part where that says which. A key with dots may stand
quoted or not.
"""

from __future__ import annotations

import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from experiments.errors import InputError, visible
from sim.units import parse_size, parse_time
from workloads.scenario import ScenarioError, parse, read_text
from workloads.scenario_values import shown

Value = int | float | str | bool
"""What an axis may hold."""

Kind = Literal["grid", "zip", "list", "latin-hypercube", "random"]
DRAWN = ("latin-hypercube", "random")
MAX_RUNS = 1_000_000
_SHIPPED = Path(__file__).parent / "examples"
_TOP = ("purpose", "scenario", "set", "sweep", "axes", "point")
_SWEEP = ("kind", "replications", "seed", "samples")
_RANGE = ("low", "high", "scale")
_UNITS: tuple[tuple[Literal["size", "time"], Callable[[str], int]], ...] = (("size", parse_size), ("time", parse_time))


@dataclass(frozen=True, slots=True)
class Range:
    """From low to high, both included: numbers, or sizes or times as text."""

    low: int | float | str
    high: int | float | str
    scale: Literal["linear", "log"] = "linear"


@dataclass(frozen=True)
class Sweep:
    """What a sweep file says, or the same from Python; InputError, one line, says which key is wrong.

    ``scenario``: a shipped name, or a path. ``samples``: points to be drawn, of kinds that draw. ``points``: those of
    kind "list". ``source`` and ``folder``: what messages call it, and where relative paths start.
    """

    scenario: str
    axes: Mapping[str, Sequence[Value] | Range] = field(default_factory=dict)
    kind: Kind = "grid"
    replications: int = 1
    seed: int = 1
    samples: int = 0
    points: Sequence[Mapping[str, Value]] = ()
    set: Mapping[str, Any] = field(default_factory=dict)
    purpose: str = ""
    source: str = field(default="Sweep", compare=False)
    folder: Path = field(default_factory=Path, compare=False)

    def __post_init__(self) -> None:
        for key, what in (("scenario", self.scenario), ("purpose", self.purpose)):
            if not isinstance(what, str) or (key == "scenario" and not what) or not what.isprintable():
                self.refuse(key, f'{shown(what)} is not one line of text; write {key} = "..."')
        if self.kind not in get_args(Kind):
            self.refuse("sweep.kind", f"{shown(self.kind)} is not known; write {', '.join(get_args(Kind))}")
        for key, value in self.set.items():
            if not _plain(value):
                self.refuse(f"set.{key}", f"{shown(value)} is not allowed; write text, numbers, lists or tables")
        self._whole("sweep.replications", self.replications, 1, MAX_RUNS)
        self._whole("sweep.seed", self.seed, 0, (1 << 64) - self.replications)
        if self.kind in DRAWN:
            self._whole("sweep.samples", self.samples, 1, MAX_RUNS)
        elif self.samples:
            self.refuse("sweep.samples", f"is of kind {' or '.join(DRAWN)} alone; leave it out")
        if self.kind == "list":
            self._check_points()
        else:
            self._check_axes()

    def refuse(self, key: str, what: str) -> NoReturn:
        """Raise the error of a key: what is wrong; what would be right."""
        raise InputError(visible(f"{self.source}: {key}: {what}"))

    def _whole(self, key: str, value: Any, low: int, high: int) -> None:
        if type(value) is not int or not low <= value <= high:
            self.refuse(key, f"{shown(value)} is not allowed; write a whole number from {low} to {high}")

    def _value(self, key: str, value: Any) -> None:
        if not isinstance(value, Value) or (isinstance(value, float) and not math.isfinite(value)):
            self.refuse(key, f"{shown(value)} is not allowed; write a number, text in quotes, true or false")
        if isinstance(value, str) and not value.isprintable():
            self.refuse(key, f"{shown(value)} is not one line of text; write one")

    def _check_points(self) -> None:
        if self.axes:
            self.refuse("axes", "are not of kind list; write [[point]] for each point, or another kind")
        if not self.points:
            self.refuse("point", "missing; write [[point]] and its settings for each point")
        for number, point in enumerate(self.points):
            if not isinstance(point, Mapping) or list(point) != list(self.points[0]) or not point:
                keys = ", ".join(self.points[0]) if isinstance(self.points[0], Mapping) else ""
                self.refuse(
                    f"point {number}", f"has other settings than point 0; write {keys or 'key = value'}, in that order"
                )
            for key, value in point.items():
                self._value(f"point {number}: {key}", value)

    def _check_axes(self) -> None:
        if self.points:
            self.refuse("point", 'is of kind list; write kind = "list" under [sweep], or [axes]')
        if not self.axes:
            self.refuse("axes", "missing; write [axes] and a line such as gogc = [50, 100, 200]")
        for key, axis in self.axes.items():
            where = f"axes.{key}"
            if isinstance(axis, Range):
                self._check_range(where, axis)
            elif isinstance(axis, str | bytes) or not isinstance(axis, Sequence) or not axis:
                right = "[50, 100]" if self.kind not in DRAWN else "[50, 100] or { low = 50, high = 100 }"
                what = "has no values" if axis in ([], ()) else f"{shown(axis)} is no list of values"
                self.refuse(where, f"{what}; write {right}")
            else:
                for value in axis:
                    self._value(where, value)
        lengths = {key: len(axis) for key, axis in self.axes.items() if not isinstance(axis, Range)}
        if self.kind == "zip" and len(set(lengths.values())) > 1:
            told = ", ".join(f"{key} has {length}" for key, length in lengths.items())
            self.refuse("axes", f"of kind zip differ in length ({told}); write as many values for each")

    def _check_range(self, where: str, axis: Range) -> None:
        if self.kind not in DRAWN:
            self.refuse(where, f"a range is of kind {' or '.join(DRAWN)} alone; write a list of values")
        if axis.scale not in ("linear", "log"):
            self.refuse(where, f"scale {shown(axis.scale)} is not known; write linear or log")
        try:
            _, low, high = limits(axis)
        except ValueError as error:
            self.refuse(where, str(error))
        if not low < high:
            self.refuse(where, f"low {shown(axis.low)} is not below high {shown(axis.high)}; write them the other way")
        if axis.scale == "log" and low <= 0:
            self.refuse(where, f'{shown(axis.low)} has no logarithm; write a low above 0, or scale = "linear"')


def _plain(value: Any) -> bool:
    """Whether JSON can say a value of TOML: all but dates and times."""
    if isinstance(value, list | dict):
        return all(map(_plain, value.values() if isinstance(value, dict) else value))
    return isinstance(value, Value)


def limits(axis: Range) -> tuple[Literal["size", "time", "number"], int | float, int | float]:
    """What a range is of, and its ends: bytes of sizes, picoseconds of times, or numbers.

    ValueError says what is wrong with it, and what would be right.
    """
    low, high = axis.low, axis.high
    if isinstance(low, str) and isinstance(high, str):
        for unit, parse in _UNITS:
            try:
                return unit, parse(low), parse(high)
            except ValueError:
                continue
        raise ValueError(
            f'{shown(low)} and {shown(high)} are not two sizes or times; write "64MiB", or "10us", for each'
        )
    if type(low) not in (int, float) or type(high) not in (int, float):
        raise ValueError(f"{shown(low)} and {shown(high)} are not two of a kind; write numbers, sizes or times")
    assert not isinstance(low, str) and not isinstance(high, str)
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"{shown(low)} and {shown(high)} are not finite; write two that are")
    return "number", low, high


def read_sweep(name: str, sets: Mapping[str, Any] | None = None) -> Sweep:
    """The sweep of a file, or a shipped one by its name; InputError names the file and the key.

    ``sets`` go over those of the file.
    """
    path = _find(name)
    raw = read_tables(name, path, _TOP, ("set", "sweep", "axes"))
    known_keys(name, "sweep.", raw["sweep"], _SWEEP)
    points = raw.get("point", [])
    if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
        raise InputError(f"{name}: point: {shown(points)} is no list of tables; write [[point]] for each point")
    return Sweep(
        scenario=raw["scenario"],
        purpose=raw.get("purpose", ""),
        axes=axes_of(name, raw["axes"]),
        points=tuple(flat(point) for point in points),
        set=flat(raw["set"]) | dict(sets or {}),
        source=name,
        folder=path.parent,
        **raw["sweep"],
    )


def read_tables(name: str, path: Path, top: Sequence[str], tables: Sequence[str]) -> dict[str, Any]:
    """A file that names a scenario, with these keys at the top, of which some are tables, empty if left out.

    InputError names the file, by ``name``, and the key.
    """
    try:
        raw = parse(read_text(path, name), name)
    except ScenarioError as error:
        raise InputError(str(error)) from None
    known_keys(name, "", raw, top)
    for key in tables:
        if not isinstance(raw.setdefault(key, {}), dict):
            raise InputError(f"{name}: {key}: {shown(raw[key])} is no table; write [{key}] and lines key = value under it")
    if "scenario" not in raw:
        raise InputError(f'{name}: scenario: missing; add scenario = "api-service", or a path of one')
    return raw


def _find(name: str) -> Path:
    """The path of a sweep: a shipped name, or else a file."""
    shipped = {path.stem: path for path in sorted(_SHIPPED.glob("*.toml"))}
    path = Path(name)
    if name not in shipped and path.suffix != ".toml" and path.name == name and not os.path.isfile(name):
        raise InputError(
            visible(f"{name or repr(name)}: no such sweep; name a .toml file, or one of {', '.join(shipped)}")
        )
    return shipped.get(name, path)


def known_keys(file: str, where: str, table: Mapping[str, Any], keys: Sequence[str]) -> None:
    """InputError unless a table has these keys alone."""
    for key in table:
        if key not in keys:
            close = difflib.get_close_matches(key[:40], keys, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(keys)}"
            raise InputError(visible(f"{file}: {where}{key[:80]}: unknown key; {hint}"))


def flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted keys, whether these were quoted or not; a range is no further table."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and not value.keys() & {"low", "high"}:
            found |= {f"{key}.{inner}": one for inner, one in flat(value).items()}
        else:
            found[key] = value
    return found


def axes_of(file: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """The axes of a file's table: lists, and ranges as records."""
    return {key: _axis(file, key, axis) for key, axis in flat(table).items()}


def _axis(file: str, key: str, axis: Any) -> Any:
    """An axis, its range as a record."""
    if not isinstance(axis, dict):
        return axis
    known_keys(file, f"axes.{key}.", axis, _RANGE)
    for end in ("low", "high"):
        if end not in axis:
            raise InputError(f"{file}: axes.{key}.{end}: missing; write {{ low = 1, high = 10 }} with both")
    return Range(**axis)
