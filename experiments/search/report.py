"""What a search found, as text for people, from what `tuning.as_json` keeps of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.search.aims import Bound, bound
from experiments.search.metrics import Metric, metric


def text(found: Mapping[str, Any]) -> Iterator[str]:
    """The best setting, how sure that is, and the front."""
    asked = found["tune"]
    bounds = {one: bound(one) for one in asked["subject_to"]}
    word = "minimise" if asked["minimise"] else "maximise"
    objective = metric(asked["minimise"] or asked["maximise"])
    if asked["purpose"]:
        yield asked["purpose"]
    yield f"{word} {objective.name} of {asked['scenario']}" + "".join(f", {one}" for one in bounds.values())
    fresh = asked["seed"] + asked["replications"]
    yield (
        f"{len(found['points'])} points of {asked['replications']} runs (seeds from {asked['seed']}), the best"
        f" {1 + len(found['others'])} anew with {asked['confirm']} (seeds from {fresh})"
    )
    failed = [one for one in found["points"] if "error" in one]
    if failed:
        yield f"{len(failed)} points failed; the first, {_told(failed[0]['values'])}: {failed[0]['error']}"
    yield ""
    yield from _best(found, objective, bounds)
    yield from _against(found, objective)
    yield ""
    yield from _front(found, objective, bounds)


def _best(found: Mapping[str, Any], objective: Metric, bounds: Mapping[str, Bound]) -> Iterator[str]:
    best = found["best"]
    if best is None:
        yield "no candidate: a fresh run of each failed"
        return
    what = "best" if found["keeps_bounds"] else "NO POINT KEEPS THE BOUNDS; the nearest"
    yield f"{what}: {_told(best['values'])}"
    one = found["objective_of_best"]
    yield (
        f"  {objective.name}: {objective.shown(best['figures'][objective.name])} of {one['n']} runs together; of one run"
        f" {objective.shown(one['estimate'])}, {100 * one['level']:g} % between {_limits(objective, one)}"
    )
    for name, held in bounds.items():
        value = best["figures"][name]
        state = "broken" if held.violation(value) > 0 else "kept"
        yield f"  {held.metric.name}: {held.metric.shown(value)}, {state} ({held})"
    if bounds:
        yield f"  {best['runs_that_break_a_bound']} of {one['n']} runs break a bound"


def _limits(objective: Metric, interval: Mapping[str, Any]) -> str:
    return f"{objective.shown(interval['low'])} and {objective.shown(interval['high'])}"


def _against(found: Mapping[str, Any], objective: Metric) -> Iterator[str]:
    """The others, each against the best."""
    others = found["others"]
    if not others:
        return
    yield f"others, their {objective.name} less the best's, run by run of the same seeds (95 % for all pairs together):"
    for one in others:
        less = one["less_best"]
        keeps = "" if not one["runs_that_break_a_bound"] else f", {one['runs_that_break_a_bound']} runs break a bound"
        apart = "cannot be told apart" if less["low"] <= 0 <= less["high"] else "differs"
        yield (
            f"  {_told(one['values'])}: {objective.shown(less['estimate'])}, between {_limits(objective, less)}:"
            f" {apart}{keeps}"
        )
    if any(one["less_best"]["low"] <= 0 <= one["less_best"]["high"] for one in others):
        yield "  (the same command with a larger --confirm tells more of them apart)"


def _front(found: Mapping[str, Any], objective: Metric, bounds: Mapping[str, Bound]) -> Iterator[str]:
    points = found["front"]
    if not points:
        return
    yield f"front: of {len(found['points'])} points tried, those that none beats in every figure"
    axes = list(points[0]["values"])
    rows = [[*axes, objective.name, *(one.metric.name for one in bounds.values()), ""]]
    for one in points:
        held = [each.violation(one["figures"][name]) <= 0 for name, each in bounds.items()]
        cells = [each.metric.shown(one["figures"][name]) for name, each in bounds.items()]
        marks = "" if all(held) else "breaks a bound"
        values = (str(one["values"][axis]) for axis in axes)
        rows.append([*values, objective.shown(one["figures"][objective.name]), *cells, marks])
    yield from _columns(rows)


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in values.items())
