"""What is sought: an objective, bounds on other figures, and of what was found the best and the Pareto front."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.search.metrics import Metric, metric
from experiments.sweeps.record import Record
from experiments.sweeps.spec import Value

_BOUND = re.compile(r"\s*(\S+?)\s*(<=|>=)\s*(\S+)\s*")


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure must be at most (``upper``), or at least, so much."""

    metric: Metric
    limit: float
    upper: bool

    def violation(self, value: float) -> float:
        """By how much of the limit a value breaks it; 0 or less if it does not."""
        excess = value - self.limit if self.upper else self.limit - value
        return excess / (abs(self.limit) or 1.0)

    def __str__(self) -> str:
        return f"{self.metric.name} {'<=' if self.upper else '>='} {self.metric.shown(self.limit)}"


def bound(text: str) -> Bound:
    """The bound that a text such as ``peak-rss <= 2GiB`` is; ValueError says what would be right."""
    found = _BOUND.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:80]!r} is no bound; write FIGURE<=VALUE or FIGURE>=VALUE, such as peak-rss<=2GiB")
    figure = metric(found[1])
    return Bound(figure, figure.parsed(found[3]), found[2] == "<=")


@dataclass(frozen=True, slots=True)
class Aim:
    """The objective, to be ``lowest`` or else highest, and the bounds."""

    objective: Metric
    lowest: bool
    bounds: tuple[Bound, ...] = ()

    def figures(self, records: Sequence[Record]) -> tuple[float, ...]:
        """The objective and what is bounded, of the replications of a point; NoFigure if they have one of them not."""
        return tuple(one.of_runs(records) for one in (self.objective, *(each.metric for each in self.bounds)))

    def worse(self, figures: Sequence[float]) -> tuple[float, ...]:
        """The figures turned so that more of each is worse."""
        signs = [1 if self.lowest else -1, *(1 if one.upper else -1 for one in self.bounds)]
        return tuple(sign * value for sign, value in zip(signs, figures, strict=True))

    def violations(self, figures: Sequence[float]) -> list[float]:
        """By how much of each bound the figures break it; 0 or less if they do not."""
        return [one.violation(value) for one, value in zip(self.bounds, figures[1:], strict=True)]

    def rank(self, figures: Sequence[float]) -> tuple[float, float]:
        """Less is better: what keeps all bounds by its objective, before all that does not, by how much that breaks them."""
        return sum(max(0.0, one) for one in self.violations(figures)), self.worse(figures)[0]

    def feasible(self, figures: Sequence[float]) -> bool:
        """Whether every bound is kept."""
        return not self.rank(figures)[0]


@dataclass(frozen=True, slots=True)
class Tried:
    """A point: its settings, and its figures (`Aim.figures`), or else why there are none."""

    values: Mapping[str, Value]
    figures: tuple[float, ...] = ()
    error: str | None = None


def ranked(aim: Aim, tried: Sequence[Tried]) -> list[int]:
    """The points with figures, the best first, each setting once."""
    seen: list[Mapping[str, Value]] = []
    order = sorted(
        (place for place, one in enumerate(tried) if one.figures), key=lambda i: (aim.rank(tried[i].figures), i)
    )
    found = []
    for place in order:
        if tried[place].values not in seen:
            seen.append(tried[place].values)
            found.append(place)
    return found


def front(aim: Aim, tried: Sequence[Tried]) -> list[int]:
    """The points that no other is at least as good as in every figure, and better in one; by the first bounded figure.

    The figures are the objective and those with bounds, whether kept or not: what another bound would buy.
    """
    places = ranked(aim, tried)
    costs = {place: aim.worse(tried[place].figures) for place in places}

    def beaten(place: int) -> bool:
        mine = costs[place]
        return any(other != mine and all(a <= b for a, b in zip(other, mine, strict=True)) for other in costs.values())

    kept = [place for place in places if not beaten(place)]
    once = {costs[place]: place for place in reversed(kept)}
    return sorted(once.values(), key=lambda place: (*costs[place][1:], costs[place][0], place))
