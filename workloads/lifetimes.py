"""How long objects live, from knowing of each only between which two ages it died: an estimate of the distribution.

Each object gives an interval of ages (low, high] in which it died; one that was alive at the end has no upper bound.
The estimate puts mass on bins of ages, four to an octave, and makes what was seen most likely: each round shares every
object among the bins of its interval in proportion to their mass (self-consistency: Turnbull, "The empirical
distribution function with arbitrarily grouped, censored and truncated data", 1976). It begins with as much mass in every
bin; between bins that no object tells apart that remains: ages there are uniform by their logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_LEAST_LOG, _MOST_LOG, _PER_OCTAVE = 4, 43, 4  # bins from 16 bytes on
_ROUNDS = 200


@dataclass(frozen=True, eq=False)
class Lifetimes:
    """``share[i]`` of all objects died before the age ``edges[i]``; linear in between."""

    edges: Any
    share: Any

    def draw(self, low: Any, high: Any, uniform: Any) -> Any:
        """Ages at death between ``low`` and ``high`` (arrays), from uniform numbers in [0, 1).

        Where the estimate has nothing every age is as likely.
        """
        below, above = (between(age, self.edges, self.share) for age in (low, high))
        age = between(below + (above - below) * uniform, self.share, self.edges)
        age = np.where(above > below, age, low + (high - low) * uniform)
        return np.clip(age, low, high).astype(np.int64)


def between(x: Any, xs: Any, ys: Any) -> Any:
    """ys at x, linear between rising xs, the first or last value beyond them.

    One operation at a time, which rounds alike on every machine: np.interp may fuse two.
    """
    cell = np.clip(np.searchsorted(xs, x, "right") - 1, 0, len(xs) - 2)
    width = xs[cell + 1] - xs[cell]
    way = np.divide(x - xs[cell], width, out=np.zeros(np.shape(x)), where=width > 0)
    rise = np.clip(way, 0.0, 1.0) * (ys[cell + 1] - ys[cell])
    return ys[cell] + rise


def estimate(low: Any, high: Any) -> Lifetimes:
    """From the ages between which objects died, in bytes; ``high`` of those that were still alive: any negative age."""
    steps = np.arange(_PER_OCTAVE) * (1 << _LEAST_LOG) // _PER_OCTAVE
    octaves = 1 << np.arange(_MOST_LOG - _LEAST_LOG)
    edges = np.append(0, (((1 << _LEAST_LOG) + steps)[None, :] * octaves[:, None]).ravel())
    n = len(edges)  # bins; the last one has no end
    first = np.searchsorted(edges, low, "right") - 1
    last = np.where(high < 0, n - 1, np.maximum(np.searchsorted(edges, high, "left") - 1, first))
    total = np.bincount(first * n + last, minlength=n * n)
    pairs = np.flatnonzero(total)
    first, last, total = pairs // n, pairs % n, total[pairs]
    mass = np.full(n, 1 / n)
    for _ in range(_ROUNDS):
        below = np.append(0.0, np.cumsum(mass))
        covered = below[last + 1] - below[first]
        each = np.divide(total, covered, out=np.zeros_like(covered), where=covered > 0)
        change = np.bincount(first, each, n + 1) - np.bincount(last + 1, each, n + 1)
        mass = mass * np.maximum(np.cumsum(change)[:n], 0.0)
        mass /= max(np.cumsum(mass)[-1], 1e-300)
    return Lifetimes(edges, np.append(0.0, np.cumsum(mass)[:-1]))
