"""Two configurations under common random numbers: the same streams for both, compared replication by replication.

Law, sections 10.2.1 (paired t) and 11.2 (common random numbers).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.stats.interval import Interval, Numbers, observations, t_interval


@dataclass(frozen=True, slots=True)
class Paired:
    """``interval`` of what changed; ``saved``: by what factor pairing made its variance less than independent pairs' is.

    A factor below 1 says that the common numbers did harm; infinite: each pair shows the very same change.
    """

    interval: Interval
    saved: float


def paired_difference(base: Numbers, other: Numbers, level: float = 0.95) -> Paired:
    """The mean of ``other - base`` over pairs of replications of the same seed, in their unit.

    Wrong where the pairs are no pairs (order both by seed), or where few differences are far from normal.
    """
    before, after = _pairs(base, other)
    return _paired(before, after, t_interval(after - before, level))


def paired_ratio(base: Numbers, other: Numbers, level: float = 0.95) -> Paired:
    """The ratio ``other / base`` over pairs, by the mean of log ratios: 0.9 means 10 % less.

    What is estimated is the ratio of geometric means. It is that of the means where both vary by the same share from
    replication to replication, and near it where they vary little; else compare differences. ValueError unless all
    figures are above 0.
    """
    before, after = _pairs(base, other)
    if min(before.min(), after.min()) <= 0:
        raise ValueError("a ratio needs figures above 0; compare differences")
    before, after = np.log(before), np.log(after)
    logs = t_interval(after - before, level)
    low, middle, high = (math.exp(one) for one in (logs.low, logs.estimate, logs.high))
    return _paired(before, after, Interval(middle, low, high, level, logs.n))


def _pairs(base: Numbers, other: Numbers) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    before, after = observations(base, 2, "pairs"), observations(other, 2, "pairs")
    if len(before) != len(after):
        raise ValueError(f"{len(before)} and {len(after)} replications make no pairs; run the same seeds for both")
    return before, after


def _paired(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], interval: Interval) -> Paired:
    apart = float(before.var(ddof=1) + after.var(ddof=1))
    together = float((after - before).var(ddof=1))
    if not together:
        return Paired(interval, math.inf if apart else 1.0)
    return Paired(interval, apart / together)
