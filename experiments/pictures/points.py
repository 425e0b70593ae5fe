"""A sweep's points with estimates of figures, and curves of them over an axis.

A figure's estimate is the mean of a point's replications, with a t interval; that of a quantile of latency is the quantile
of their merged histograms, with a bootstrap interval. An interval needs two replications, of a quantile five: with
fewer there is none, and its ends are NaN.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from experiments.errors import InputError
from experiments.pictures.metrics import Metric, metric_of, near
from experiments.stats.interval import Interval, t_interval
from experiments.stats.quantiles import merge, quantile, quantile_interval
from experiments.sweeps import store
from experiments.sweeps.record import Latency, Record
from experiments.sweeps.store import Results
from experiments.sweeps.tables import row_of
from sim.units import parse_size, parse_time

LEVEL = 0.95
_SEED = 20_11  # of the bootstrap: the same limits each time
LEAST_FOR_QUANTILES = 5  # replications, for an interval
_MAX_CURVES = 8
_SECOND = 1e12  # picoseconds

Setting = int | float | str | bool


@dataclass(frozen=True)
class Axis:
    """A setting that a sweep varied: its values in order, and where each is drawn.

    ``scale``: "linear" or "log" of numbers, sizes and times; "category" where one of them is none, as "off".
    ``unit``: "size", "time" or "number".
    """

    name: str
    values: tuple[Setting, ...]
    places: tuple[float, ...]
    scale: str
    unit: str = "number"

    def place(self, value: Setting) -> float:
        """Where a value is drawn."""
        return self.places[self.values.index(value)]


@dataclass(frozen=True)
class Gathered:
    """What runs of a sweep found: known columns, and by point and metric the replications' values or histograms."""

    results: Results
    axes: Mapping[str, Axis]
    metrics: tuple[Metric, ...]
    values: Mapping[tuple[int, str], Sequence[Any]]
    made: int
    failed: int
    _estimates: dict[tuple[int, str], Interval | None] = field(default_factory=dict)

    @property
    def missing(self) -> int:
        """Runs that were not made yet."""
        return len(self.results.runs) - self.made - self.failed

    @property
    def gridded(self) -> bool:
        """Whether points share values of their axes, so that all but one can be held fixed."""
        return self.results.sweep["kind"] in ("grid", "list")

    def estimate(self, point: int, metric: Metric) -> Interval | None:
        """A metric of a point; None if no run of it has any."""
        key = point, metric.name
        if key not in self._estimates:
            self._estimates[key] = _estimate(metric, self.values.get(key, ()))
        return self._estimates[key]


def _estimate(metric: Metric, values: Sequence[Any]) -> Interval | None:
    if not values:
        return None
    if metric.cause is None:
        if len(values) > 1:
            return t_interval(values, LEVEL)
        return Interval(float(values[0]), math.nan, math.nan, LEVEL, 1)
    if len(values) < LEAST_FOR_QUANTILES:
        whole = quantile(merge(values), metric.q) / _SECOND
        return Interval(whole, math.nan, math.nan, LEVEL, len(values))
    found = quantile_interval(values, metric.q, np.random.default_rng(_SEED), LEVEL)
    return Interval(found.estimate / _SECOND, found.low / _SECOND, found.high / _SECOND, LEVEL, found.n)


def gather(results: Results, choose: Callable[[Mapping[str, Any]], Sequence[Metric]]) -> Gathered:
    """Read every record once and take what is asked for.

    ``choose`` is given the row of a run that was made, and says which metrics. InputError if no run was made.
    """
    metrics: tuple[Metric, ...] = ()
    values: dict[tuple[int, str], list[Any]] = {}
    made = failed = 0
    for run, record in results.records():
        if record.error is not None:
            failed += 1
            continue
        row = row_of(results, run, record)
        if not made:
            metrics = tuple(choose(row))
        made += 1
        for metric in metrics:
            found = _value(metric, record, row)
            if found is not None:
                values.setdefault((run.point, metric.name), []).append(found)
    if not made:
        what = f"all {failed} that were made failed" if failed else "none was made"
        raise InputError(f"{results.directory}: has no run to draw ({what}); give the command of the sweep again")
    return Gathered(results, axes_of(results), metrics, values, made, failed)


def _value(metric: Metric, record: Record, row: Mapping[str, Any]) -> Any:
    if metric.cause is None:
        return row.get(metric.name)
    one = record.latency.get(metric.cause)
    return _histogram(one) if one is not None else None


def _histogram(one: Latency) -> npt.NDArray[np.int64]:
    return np.array(one.rows(), np.int64).reshape(-1, 3)


# Axes


def axes_of(results: Results) -> dict[str, Axis]:
    """The settings that differ between points, or the first one, by name; each with its values in the sweep's order."""
    names = list(results.points[0].values)
    found = {name: _axis(name, tuple(dict.fromkeys(one.values[name] for one in results.points))) for name in names}
    varied = {name: axis for name, axis in found.items() if len(axis.values) > 1}
    return varied or {names[0]: found[names[0]]}


def _axis(name: str, values: tuple[Setting, ...]) -> Axis:
    for unit, parse in (("number", _number), ("size", parse_size), ("time", parse_time)):
        try:
            places = tuple(float(parse(value)) for value in values)  # type: ignore[arg-type]
        except (ValueError, TypeError, AttributeError):
            continue
        least, most = min(places), max(places)
        return Axis(name, values, places, "log" if least > 0 and most >= 8 * least else "linear", unit)
    return Axis(name, values, tuple(map(float, range(len(values)))), "category")


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return value


def axis_of(axes: Mapping[str, Axis], name: str, where: str) -> Axis:
    """The axis of a name, in full or its last part; InputError names the nearest one."""
    for full, axis in axes.items():
        if name in (full, full.rpartition(".")[2]):
            return axis
    raise InputError(f"{where}: no axis {name[:80]}; {near(name, list(axes))}")


def where_of(axes: Mapping[str, Axis], texts: Sequence[str], where: str) -> dict[str, Setting]:
    """Settings ``axis=value`` that points must have; InputError if the sweep has no such axis or value."""
    found: dict[str, Setting] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"{where}: --where {text[:80]}: is not axis=value; write one such as gogc=100")
        axis = axis_of(axes, name.strip(), where)
        told = {shown(one): one for one in axis.values}
        if value.strip() not in told:
            raise InputError(f"{where}: no {axis.name} of {value[:40]}; {near(value.strip(), list(told))}")
        found[axis.name] = told[value.strip()]
    return found


def shown(value: Setting) -> str:
    """A setting as people write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def told(values: Mapping[str, Setting], names: Iterable[str]) -> str:
    """Some of a point's settings on one line."""
    return ", ".join(f"{name.rpartition('.')[2]} {shown(values[name])}" for name in names)


# Curves


@dataclass(frozen=True)
class Curve:
    """A metric over an axis, the other settings fixed: ``x``, the axis's values; ``y`` and its 95 % interval.

    In the metric's own unit. ``low`` and ``high`` are NaN where there are too few replications.
    """

    label: str
    x: tuple[Setting, ...]
    places: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def curves(results: Results | str | os.PathLike[str], metric: str, axis: str, **where: Setting) -> list[Curve]:
    """A metric against an axis, a curve for each combination of the other axes' values; ``where`` fixes some of them.

    ``results``: of a sweep, or its directory. ``metric``: a column of its table of runs, a short name (metrics.py), or
    any quantile such as response-p99.5. InputError, one line, if there is no such thing.
    """
    if not isinstance(results, Results):
        results = store.read(Path(results))
    place = str(results.directory)
    found = gather(results, lambda row: [metric_of(metric, row, place)])
    fixed = where_of(found.axes, [f"{name}={shown(value)}" for name, value in where.items()], place)
    return curves_of(found, found.metrics[0], axis_of(found.axes, axis, place), fixed)


def curves_of(found: Gathered, metric: Metric, axis: Axis, fixed: Mapping[str, Setting]) -> list[Curve]:
    """`curves` of what was gathered; InputError if there are too many to be told apart.

    One curve alone of a sweep whose axes all vary at once: of kind zip, or drawn.
    """
    others = [name for name in found.axes if name != axis.name and name not in fixed]
    if not found.gridded:
        others = []
    groups: dict[str, list[tuple[float, Setting, Interval]]] = {}
    for point in found.results.points:
        if any(point.values[name] != value for name, value in fixed.items()):
            continue
        estimate = found.estimate(point.number, metric)
        if estimate is not None:
            value = point.values[axis.name]
            groups.setdefault(told(point.values, others), []).append((axis.place(value), value, estimate))
    if len(groups) > _MAX_CURVES:
        wish = " ".join(f"--where {name}=..." for name in others)
        raise InputError(
            f"{found.results.directory}: {len(groups)} curves over {axis.name} are too many to be told apart; fix {wish}"
        )
    if not groups:
        raise InputError(f"{found.results.directory}: no run there has {metric.name}; name another metric")
    return [_curve(label, rows) for label, rows in groups.items()]


def _curve(label: str, rows: list[tuple[float, Setting, Interval]]) -> Curve:
    rows = sorted(rows, key=lambda row: row[0])
    ends = np.array([(one.estimate, one.low, one.high) for _, _, one in rows])
    places = np.array([place for place, _, _ in rows])
    return Curve(label, tuple(value for _, value, _ in rows), places, ends[:, 0], ends[:, 1], ends[:, 2])
