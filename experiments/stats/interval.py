"""Confidence intervals, and the t interval of a mean over independent replications.

Law, Simulation Modeling and Analysis, 5th ed., section 4.5 and (replications) 9.4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = Sequence[float] | npt.NDArray[Any]
"""Observations in one dimension."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between two limits that hold the truth with probability ``level``, in the unit of the observations.

    ``n``: how many independent observations it rests on: replications, batches or pairs.
    """

    estimate: float
    low: float
    high: float
    level: float
    n: int

    @property
    def half_width(self) -> float:
        """Half of the distance between the limits."""
        return (self.high - self.low) / 2

    @property
    def relative(self) -> float:
        """Half width as a share of the estimate; infinite around 0 unless the width is 0 as well."""
        if not self.half_width:
            return 0.0
        return self.half_width / abs(self.estimate) if self.estimate else math.inf

    def holds(self, truth: float) -> bool:
        """Whether this value is within the limits."""
        return self.low <= truth <= self.high


def observations(values: Numbers, least: int, what: str = "observations") -> npt.NDArray[np.float64]:
    """The values as an array; ValueError unless they are finite, in one dimension and at least so many."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1:
        raise ValueError(f"{what} have {array.ndim} dimensions; one is right")
    if len(array) < least:
        raise ValueError(f"{len(array)} {what} are too few; {least} are the least")
    if not np.isfinite(array).all():
        raise ValueError(f"{what} hold infinities or what is no number; leave failed runs out")
    return array


def t_quantile(level: float, freedom: float) -> float:
    """What a t variable with so many degrees of freedom stays within, up or down, with probability ``level``."""
    from scipy.special import stdtrit  # scipy.stats.t.ppf is this, 0.5 s of import and 0.1 ms of each call dearer

    return float(stdtrit(freedom, (1 + checked_level(level)) / 2))


def checked_level(level: float) -> float:
    """A confidence level; ValueError unless it is between 0 and 1."""
    if not 0 < level < 1:
        raise ValueError(f"a level of {level} is none; it lies between 0 and 1, such as 0.95")
    return level


def t_interval(values: Numbers, level: float = 0.95) -> Interval:
    """The mean of independent observations, such as one figure of each replication.

    Wrong where observations depend on each other: successive requests of one run do (see batches). Only approximate where
    few of them are far from normal: ten or more replications whose figures are means or peaks do, a maximum or a tail
    quantile of each does not.
    """
    array = observations(values, 2)
    n = len(array)
    mean = float(array.mean())
    half = t_quantile(level, n - 1) * float(array.std(ddof=1)) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, level, n)
