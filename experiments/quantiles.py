"""Distributions from a few measured quantiles and a mean, as 1024 equally likely values.

Cell k stands for the quantile (2k+1)/2048. Up to the first measured quantile all cells hold its value. Between two
measured ones they rise: linearly below the median; above it along t**k, the same k everywhere, the smallest whole k
that does not exceed the mean (tails are convex, k = 1 is a line). Above the last measured quantile they rise linearly
by what is then missing to the mean, so that the mean is exact. Only integers are used: the same cells on every machine.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache

from sim.costs import CELLS, Price

Points = Sequence[tuple[int, int]]
"""Measured quantiles: (per mille, picoseconds), rising in both."""

_SHARPEST = 64  # the largest k: a tail this sharp is a step


def picoseconds(ns: Fraction) -> int:
    """The nearest whole picosecond, halves to even."""
    return round(ns * 1000)


def distribution(points: Points, mean: int) -> Price:
    """The price with these quantiles and this mean; ValueError if no distribution has both."""
    for (left, low), (right, high) in itertools.pairwise(points):
        if not (0 < left < right < 1000 and 0 <= low <= high):
            raise ValueError(f"quantiles {list(points)} do not rise")
    for bend in range(1, _SHARPEST + 1):
        cells, first_of_tail = _body(points, bend)
        missing = CELLS * mean - sum(cells)
        if missing >= 0:
            return _lift(cells, first_of_tail, missing)
    raise ValueError(
        f"mean {mean} ps is below {-(-sum(cells) // CELLS)} ps, the least that quantiles {list(points)} allow"
    )


def least_mean(points: Points) -> int:
    """The least mean that `distribution` takes with these quantiles."""
    return -(-sum(_body(points, _SHARPEST)[0]) // CELLS)


def scaled(price: Price, mean: int) -> Price:
    """The same shape with another mean, all cells multiplied."""
    if price.cells is None or price.mean == 0:
        return Price(mean)
    return _exact([cell * mean // price.mean for cell in price.cells], mean)


def between(left: Price, right: Price, place: Fraction) -> Price:
    """The price at ``place`` (0 = left, 1 = right) between two, quantile by quantile; its mean is rounded up."""
    mean = math.ceil(left.mean + (right.mean - left.mean) * place)
    if left.cells is None or right.cells is None:
        return Price(mean)
    pairs = zip(left.cells, right.cells, strict=True)
    up, whole = place.numerator, place.denominator
    return _exact([(low * (whole - up) + high * up) // whole for low, high in pairs], mean)


def _exact(cells: list[int], mean: int) -> Price:
    """Cells that were rounded down; the last one takes what that cost, so that the mean is exact."""
    cells[-1] += CELLS * mean - sum(cells)
    return Price(mean, tuple(cells))


def _body(points: Points, bend: int) -> tuple[list[int], int]:
    """Cells without the rise above the last quantile, and the first cell of that tail."""
    ends = [((q * 2 * CELLS // 1000) + 1) // 2 for q, _ in points]  # first cell at or above each quantile
    cells = [points[0][1]] * ends[0]
    for (left, low), (right, high), end in zip(points, points[1:], ends[1:], strict=False):
        power = bend if left >= 500 else 1
        places, width = _powers(left, right, len(cells), end, power)
        cells += [low + (high - low) * place // width for place in places]
    return cells + [points[-1][1]] * (CELLS - ends[-1]), ends[-1]


@cache
def _powers(left: int, right: int, start: int, end: int, power: int) -> tuple[list[int], int]:
    """How far cells from ``start`` to ``end`` are on their way between two quantiles, and the whole way, both to a power.

    Kept, because few quantiles are measured and many rows have the same ones.
    """
    places = range((2 * start + 1) * 1000 - left * 2 * CELLS, (2 * end + 1) * 1000 - left * 2 * CELLS, 2000)
    return [place**power for place in places], ((right - left) * 2 * CELLS) ** power


def _lift(cells: list[int], tail: int, missing: int) -> Price:
    """The price whose cells from ``tail`` on rise linearly by ``missing`` in all."""
    count = CELLS - tail
    mean = (sum(cells) + missing) // CELLS
    for j in range(count):
        cells[tail + j] += missing * (2 * j + 1) // (count * count)
    return _exact(cells, mean)
