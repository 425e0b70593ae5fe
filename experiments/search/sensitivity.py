"""Which settings matter: SALib's problem in, its samples through a sweep, its Sobol or Morris indices out.

Sobol (Saltelli et al., "Variance based sensitivity analysis of model output", Computer Physics Communications 181 (2010)):
``S1``, the share of the variance of a figure that a setting makes by itself, ``ST``, with all that it makes together with
others. Morris (Technometrics 33 (1991)): ``mu_star``, the mean effect of a setting, here of a move through all of its
range, and ``sigma``, how much that depends on where the others stand; rough, for a tenth of the runs.

Runs are random, and part of a figure's variance is the seeds': the same seed at all points (common random numbers) and
several replications make that part small.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from experiments.errors import InputError, visible
from experiments.search.metrics import NoFigure, metric
from experiments.sweeps.points import check_keys, value_at
from experiments.sweeps.spec import Range, Sweep, Value
from workloads.scenario_values import shown

Method = Literal["sobol", "morris"]
Evaluate = Callable[[list[dict[str, Value]]], Sequence[float]]
_KEYS = {"num_vars", "names", "bounds", "groups", "dists", "outputs"}
_SCALES: Mapping[str, Literal["linear", "log"]] = {"unif": "linear", "logunif": "log"}


def sensitivity(
    problem: Mapping[str, Any],
    scenario: str,
    figure: str,
    directory: str | Path,
    method: Method = "sobol",
    samples: int = 64,
    replications: int = 1,
    seed: int = 1,
    set: Mapping[str, Any] | None = None,
    executor: Any = None,
    jobs: int | None = None,
) -> Any:
    """Indices of a figure (metrics.py) of a scenario, as SALib's result: a dict of arrays by name, with `to_df`.

    ``problem``: names, which are settings, and bounds: numbers (between whole ones whole ones are tried), sizes or times.
    ``samples``: N of SALib: runs are N (2 D + 2) of D settings for Sobol, N (D + 1) for Morris, times ``replications``.
    The directory is that of a sweep, and the same call goes on in it. InputError, one line, if it cannot be done.
    """
    from experiments.sweeps.sweeping import run_sweep

    try:
        wanted = metric(figure)
    except ValueError as error:
        raise InputError(f"sensitivity: figure: {error}") from None
    axes = axes_of(problem)
    base: dict[str, Any] = {"replications": replications, "seed": seed, "set": set or {}, "source": "sensitivity"}
    check_keys(Sweep(scenario, axes, "random", samples=1, **base))

    def evaluate(points: list[dict[str, Value]]) -> list[float]:
        results = run_sweep(Sweep(scenario, kind="list", points=points, **base), directory, executor, jobs)
        held: list[list[Any]] = [[] for _ in points]
        for run, record in results.records():
            if record.error is not None:
                raise InputError(f"{directory}: runs failed, and indices need all of them; the first: {record.error}")
            held[run.point].append(record)
        try:
            return [wanted.of_runs(records) for records in held]
        except NoFigure as error:
            raise InputError(f"sensitivity: figure: {error}") from None

    return indices(problem, evaluate, method, samples, seed)


def axes_of(problem: Mapping[str, Any]) -> dict[str, Range]:
    """The axes that a SALib problem names; InputError says which key of it is wrong."""
    if not isinstance(problem, Mapping) or not {"names", "bounds"} <= problem.keys() <= _KEYS:
        _refuse("", f"{shown(problem)} is none; write {{'names': ['gogc'], 'bounds': [[25, 400]]}}")
    names, bounds = list(problem["names"]), list(problem["bounds"])
    dists = list(problem.get("dists") or ["unif"] * len(names))
    if len({len(names), len(bounds), len(dists), problem.get("num_vars", len(names))}) != 1 or not names:
        _refuse("names", f"has {len(names)} names, {len(bounds)} bounds, {len(dists)} dists; write as many of each")
    found = {}
    for name, ends, dist in zip(names, bounds, dists, strict=True):
        if dist not in _SCALES:
            _refuse("dists", f"{shown(dist)} is not known here; write unif or logunif")
        if isinstance(ends, str) or len(ends) != 2 or name in found:
            _refuse("bounds", f"{shown(ends)} of {name} are no two ends of one setting; write [25, 400]")
        low, high = (end.item() if hasattr(end, "item") else end for end in ends)
        found[str(name)] = Range(low, high, _SCALES[dist])
    return found


def _refuse(key: str, what: str) -> NoReturn:
    raise InputError(visible(f"problem: {key + ': ' if key else ''}{what}"))


def indices(problem: Mapping[str, Any], evaluate: Evaluate, method: Method, samples: int, seed: int) -> Any:
    """SALib's indices of whatever ``evaluate`` says of points; sampled and resampled with this seed."""
    if method not in ("sobol", "morris"):
        raise InputError(f"sensitivity: method: {shown(method)} is not known; write sobol or morris")
    if samples < 2 or (method == "sobol" and samples & (samples - 1)):
        raise InputError(f"sensitivity: samples: {samples} are not allowed; write 64, or another power of 2 from 2 on")
    try:
        import numpy as np
        from SALib.analyze import morris as of_morris
        from SALib.analyze import sobol as of_sobol
        from SALib.sample import morris, sobol
    except ImportError:
        raise InputError("sensitivity: SALib is not installed; pip install 'allocsim[search]'") from None
    axes = axes_of(problem)
    unit = {"num_vars": len(axes), "names": list(axes), "bounds": [[0.0, 1.0]] * len(axes)}
    if problem.get("groups"):
        unit["groups"] = list(problem["groups"])
    sample = (sobol if method == "sobol" else morris).sample(unit, samples, seed=seed)
    points = [dict(zip(axes, map(value_at, axes.values(), row), strict=True)) for row in sample.tolist()]
    found = np.asarray(evaluate(points), float)
    if not found.std():
        raise InputError(f"sensitivity: the figure is {found[0]:g} at every point; nothing explains it")
    if method == "sobol":
        return of_sobol.analyze(unit, found, seed=seed)
    return of_morris.analyze(unit, sample, found, seed=seed)
