"""One long run cut into batches, whose means are nearly independent if the batches are long enough.

Conway, "Some tactical problems in digital simulation", Management Science 10 (1963); Schmeiser, "Batch size effects in the
analysis of simulation output", Operations Research 30 (1982): 10 to 30 batches; Law, section 9.5.3. The test of von Neumann
(1941) as Fishman uses it: "Grouping observations in digital simulation", Management Science 24 (1978).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from experiments.stats.interval import Interval, Numbers, observations, t_interval

_REJECTS = 1.645  # the normal quantile of a one-sided test at 5 %
_LEAST = 8  # batches; the normal approximation of the test holds from there


@dataclass(frozen=True, slots=True)
class BatchMeans:
    """``interval`` of the mean; ``size``: observations in a batch; ``lag1``: how far neighbouring batch means correlate.

    ``independent``: False where the test of von Neumann finds, at 5 %, that they do: the interval is then too narrow.
    """

    interval: Interval
    size: int
    lag1: float
    independent: bool


def batch_means(values: Numbers, batches: int = 20, level: float = 0.95) -> BatchMeans:
    """The steady-state mean of one run, its warm-up deleted before.

    Batches are of equal length; what does not fill one is left out at the beginning, nearest to the warm-up. Wrong where
    batches are shorter than a few times what the series remembers. ``independent`` finds that out when it is gross:
    with 20 batches a correlation of 0.2, which makes the interval a fifth too narrow, escapes it more often than not.
    """
    if batches < _LEAST:
        raise ValueError(f"{batches} batches are too few; {_LEAST} are the least, 20 usual")
    array = observations(values, 2 * batches)
    size = len(array) // batches
    means = array[len(array) - size * batches :].reshape(batches, size).mean(axis=1)
    lag1 = _von_neumann(means)
    # under independence its variance is (n - 2) / (n * n - 1)
    independent = lag1 <= _REJECTS * math.sqrt((batches - 2) / (batches * batches - 1))
    return BatchMeans(t_interval(means, level), size, lag1, independent)


def _von_neumann(means: Numbers) -> float:
    """One less half of von Neumann's ratio: the correlation of neighbours, corrected at both ends; 0 of a constant."""
    array = np.asarray(means)
    spread = float(((array - array.mean()) ** 2).sum())
    return 1 - float((np.diff(array) ** 2).sum()) / (2 * spread) if spread else 0.0
