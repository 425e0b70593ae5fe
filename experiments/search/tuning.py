"""A search carried out: points are tried batch by batch, the best ones run anew, and what is known of them is said.

    DIR/tune.json         what was asked, and the version of the code
    DIR/search            the points tried, a sweep's directory that grows batch by batch
    DIR/confirm           the best ones with fresh seeds, a sweep's directory
    DIR/found.json        what was found

The same command goes on where it was ended: the search asks for the same points again, whose runs are there; it may ask
for more samples, candidates, or fresh runs. The best are chosen by the runs of the search, and a least of many draws is
too good to be true; so they are run anew with seeds that the search has not seen, the same ones for all (common random
numbers), and compared pair by pair.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.output import write_whole
from experiments.search import asking
from experiments.search.aims import Aim, Tried, front, ranked
from experiments.search.metrics import NoFigure
from experiments.search.spec import Tune
from experiments.stats.interval import Interval, t_interval
from experiments.stats.paired import paired_difference
from experiments.sweeps import store, tables
from experiments.sweeps.code import code_version
from experiments.sweeps.points import Point, points_of
from experiments.sweeps.pool import Crew, Given
from experiments.sweeps.record import Record
from experiments.sweeps.spec import Sweep, Value
from experiments.sweeps.store import Results
from experiments.sweeps.sweeping import carry_out, crew_of, make_missing

LEVEL = 0.95
_ASKED, _FOUND = "tune.json", "found.json"
_MAY_CHANGE = ("purpose", "samples", "candidates", "confirm")  # of a search that goes on


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A candidate run anew. ``point``: its number in the search. ``figures``: of all fresh runs together.

    ``each``: the objective of each run; ``broken``: how many runs break a bound.
    """

    point: int
    figures: tuple[float, ...]
    each: tuple[float, ...]
    broken: int


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to: the points tried, the front among them, the candidates run anew, the best first.

    ``against``: for each other candidate its objective less the best's, run by run; all of these intervals hold
    together at `LEVEL`. ``kept``: whether the best keeps every bound.
    """

    tune: Mapping[str, Any]
    tried: Sequence[Tried]
    front: Sequence[int]
    confirmed: Sequence[Confirmed]
    mean: Interval | None
    against: Sequence[Interval]
    kept: bool


@dataclass
class Watch:
    """Who looks on: told of progress and warnings, asked whether to stop."""

    progress: Callable[[int, int], None] = lambda made, whole: None
    interrupted: Callable[[], bool] = lambda: False
    warn: Callable[[str], None] = lambda line: None


def tune(aim: Tune, directory: str | Path, executor: Executor | None = None, jobs: int | None = None) -> Found:
    """Search in a directory, new or begun before; what was found. InputError, one line, if it cannot be done.

    ``executor``: any of concurrent.futures, with ``jobs`` workers; if none is given, as many processes of our own, or
    one for each CPU.
    """
    count = jobs or len(os.sched_getaffinity(0))
    with crew_of(count) if executor is None else nullcontext(Given(executor, lambda: count)) as crew:
        found = carry_out_tune(aim, directory, crew, Watch())
    assert found is not None
    return found


def carry_out_tune(asked: Tune, directory: str | Path, crew: Crew, watch: Watch) -> Found | None:
    """Search, and run the best anew; what was found, kept in the directory too. None if it was interrupted."""
    target = Path(directory)
    _begin(asked, target)
    evaluation = _Evaluation(asked, target / "search", crew, watch)
    tried = asking.search(asked.axes, asked.aim, asked.samples, asked.batch, asked.seed, evaluation)
    if tried is None:
        return None
    best = ranked(asked.aim, tried)[: asked.candidates]
    if not best:
        raise InputError(f"{target}: every run failed; the first: {next(one.error for one in tried)}")
    carry_out(evaluation.sweep(), target / "search", crew, tables.formats())
    confirmed = _confirm(asked, tried, best, target / "confirm", crew, watch)
    if confirmed is None:
        return None
    found = _found(asked, tried, confirmed)
    write_whole(target / _FOUND, json.dumps(as_json(found), indent=1) + "\n")
    return found


def _begin(asked: Tune, target: Path) -> None:
    """Write down what is asked; InputError if the directory holds something else."""
    whole = {"code": code_version(), "tune": asked.described()}
    try:
        target.mkdir(exist_ok=True)
        held = (target / _ASKED).read_bytes() if (target / _ASKED).exists() else None
        if held is None and any(target.iterdir()):
            raise InputError(f"{target}: exists and holds no search; name a new directory with -o")
    except FileNotFoundError:
        raise InputError(f"{target}: there is no directory {target.parent}; make it first") from None
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); name another directory with -o") from None
    if held is not None:
        _check_same(target, whole, _parsed(target / _ASKED, held))
    text = json.dumps(whole, indent=1) + "\n"
    if held != text.encode():
        write_whole(target / _ASKED, text)


def _check_same(target: Path, now: Mapping[str, Any], before: Mapping[str, Any]) -> None:
    """InputError unless what a directory holds can go on as what is asked now."""
    if before.get("code") != now["code"]:
        what = f"was begun by allocsim {before.get('code')}, this is {now['code']}"
        raise InputError(f"{target}: {what}; name a new directory with -o")
    old = before.get("tune")
    for key, value in now["tune"].items():
        if key not in _MAY_CHANGE and (not isinstance(old, dict) or json.loads(json.dumps(value)) != old.get(key)):
            raise InputError(f"{target}: holds another search, whose {key} is another; name a new directory with -o")


def _parsed(path: Path, held: bytes) -> dict[str, Any]:
    try:
        whole = json.loads(held)
        if isinstance(whole, dict):
            return whole
    except (ValueError, RecursionError):
        pass
    raise InputError(f"{path}: is damaged; search again in a new directory")


class _Evaluation:
    """Points tried, as a sweep that grows: called with more of them it runs those and says what came out."""

    def __init__(self, asked: Tune, directory: Path, crew: Crew, watch: Watch) -> None:
        self._asked, self._directory, self._crew, self._watch = asked, directory, crew, watch
        self._points: list[dict[str, Value]] = []
        self._before = store.read(directory).points if (directory / store.SWEEP).exists() else []

    def sweep(self) -> Sweep:
        """The points so far; those that an earlier search in the directory asked for after them too."""
        points = [*self._points, *(dict(one.values) for one in self._before[len(self._points) :])]
        return replace(self._asked.sweep_of_axes, axes={}, kind="list", samples=0, points=tuple(points))

    def __call__(self, points: list[dict[str, Value]]) -> list[Tried] | None:
        first = len(self._points)
        self._points += points
        for mine, held in zip(self._points, self._before, strict=False):
            if mine != held.values:
                raise InputError(
                    f"{self._directory}: holds points that this search does not ask for (another optuna?);"
                    " name a new directory with -o"
                )
        sweep = self.sweep()
        places, scenarios = points_of(sweep)
        with store.opened(self._directory, sweep, places) as results:
            done, whole = first * sweep.replications, _runs(self._asked)
            whole_now, _, _ = make_missing(
                results,
                scenarios,
                self._crew,
                lambda made, missing: self._watch.progress(done + made, whole),
                self._watch.interrupted,
                self._watch.warn,
            )
            if not whole_now:
                return None
            return [_tried(self._asked, results, place) for place in places[first : len(self._points)]]


def _runs(asked: Tune) -> int:
    """How many runs a search makes."""
    return asked.samples * asked.replications + asked.candidates * asked.confirm


def _records(results: Results, point: Point) -> list[Record]:
    return [results.record(run) for run in results.runs if run.point == point.number]


def _tried(asked: Tune, results: Results, point: Point) -> Tried:
    records = _records(results, point)
    error = next((record.error for record in records if record.error is not None), None)
    if error is not None:
        return Tried(point.values, error=error)
    return Tried(point.values, _figures(asked, asked.aim, records))


def _figures(asked: Tune, aim: Aim, records: Sequence[Record]) -> tuple[float, ...]:
    try:
        return aim.figures(records)
    except NoFigure as error:
        asked.refuse("tune", str(error))


def _confirm(
    asked: Tune, tried: Sequence[Tried], best: Sequence[int], directory: Path, crew: Crew, watch: Watch
) -> list[Confirmed] | None:
    """The candidates with fresh seeds, the best first; None if it was interrupted."""
    before = store.read(directory).points if (directory / store.SWEEP).exists() else []
    points = [dict(point.values) for point in before]  # of when fewer points had been tried
    points += [dict(tried[place].values) for place in best if tried[place].values not in points]
    sweep = replace(
        asked.sweep_of_axes,
        axes={},
        kind="list",
        samples=0,
        replications=asked.confirm,
        seed=asked.seed + asked.replications,
        points=tuple(points),
    )
    done = asked.samples * asked.replications
    told = (lambda made, missing: watch.progress(done + made, _runs(asked)), watch.interrupted, watch.warn)
    outcome = carry_out(sweep, directory, crew, tables.formats(), *told)
    if not outcome.whole:
        return None
    found = []
    for place in best:
        records = _records(outcome.results, outcome.results.points[points.index(dict(tried[place].values))])
        if all(record.error is None for record in records):
            each = [_figures(asked, asked.aim, [record]) for record in records]
            broken = sum(not asked.aim.feasible(one) for one in each)
            whole = _figures(asked, asked.aim, records)
            found.append(Confirmed(place, whole, tuple(one[0] for one in each), broken))
    return sorted(found, key=lambda one: (asked.aim.rank(one.figures), one.point))


def _found(asked: Tune, tried: Sequence[Tried], confirmed: Sequence[Confirmed]) -> Found:
    pairs = len(list(itertools.combinations(confirmed, 2)))
    level = 1 - (1 - LEVEL) / max(pairs, 1)  # Bonferroni: whichever is the best was not known before
    return Found(
        tune=asked.described(),
        tried=tried,
        front=front(asked.aim, tried),
        confirmed=confirmed,
        mean=t_interval(confirmed[0].each, LEVEL) if confirmed else None,
        against=[paired_difference(confirmed[0].each, one.each, level).interval for one in confirmed[1:]],
        kept=bool(confirmed) and asked.aim.feasible(confirmed[0].figures),
    )


def as_json(found: Found) -> dict[str, Any]:
    """What was found, as JSON has it: figures in seconds and bytes."""
    names = [_objective(found), *(text for text in found.tune["subject_to"])]

    def figures(values: Sequence[float]) -> dict[str, float]:
        return dict(zip(names, values, strict=True))

    points = [
        {"point": place, "values": dict(one.values)} | (_outcome(one, figures)) for place, one in enumerate(found.tried)
    ]
    confirmed = [
        {"point": one.point, "values": dict(found.tried[one.point].values), "figures": figures(one.figures)}
        | {"each": list(one.each), "runs_that_break_a_bound": one.broken}
        for one in found.confirmed
    ]
    against = [_interval(one) for one in found.against]
    return {
        "tune": dict(found.tune),
        "best": confirmed[0] if confirmed else None,
        "keeps_bounds": found.kept,
        "objective_of_best": _interval(found.mean) if found.mean is not None else None,
        "others": [one | {"less_best": interval} for one, interval in zip(confirmed[1:], against, strict=True)],
        "front": [points[place] for place in found.front],
        "points": points,
    }


def _outcome(one: Tried, figures: Callable[[Sequence[float]], dict[str, float]]) -> dict[str, Any]:
    """What JSON says of a point besides its settings."""
    return {"figures": figures(one.figures)} if one.figures else {"error": one.error}


def _objective(found: Found) -> str:
    return str(found.tune["minimise"] or found.tune["maximise"])


def _interval(one: Interval) -> dict[str, float]:
    return {"estimate": one.estimate, "low": one.low, "high": one.high, "level": one.level, "n": one.n}
