"""How many replications: until the interval's half width is a given share of the mean.

Law and Kelton's sequential procedure: Law, section 9.4.1. The share asked for is tightened from g to g / (1 + g), since it
is the truth, not the estimate, that the error should be a share of.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from experiments.stats.interval import Interval, Numbers, checked_level, t_interval


@dataclass(frozen=True, slots=True)
class Precision:
    """What is asked for: a half width of so great a share of the mean (0.05 for 5 %), at this confidence.

    ``least`` and ``most``: replications. The coverage of what is stopped on is a little below ``level``, the more so the
    fewer replications it may stop at; Law advises ten at the least and a share of at most 0.15.
    """

    relative: float
    level: float = 0.95
    least: int = 10
    most: int = 1000

    def __post_init__(self) -> None:
        checked_level(self.level)
        if not 0 < self.relative < math.inf:
            raise ValueError(f"a relative half width of {self.relative} is none; 0.05 is 5 %")
        if not 2 <= self.least <= self.most:
            raise ValueError(
                f"at least {self.least} and at most {self.most} replications fit no run; 2 <= least <= most"
            )


@dataclass(frozen=True, slots=True)
class Progress:
    """What is known after some replications. ``more``: how many to add before asking again, 0 to stop.

    ``reached``: the precision is there; if not and ``more`` is 0, the most allowed were made. ``interval``: None of fewer
    than two.
    """

    more: int
    reached: bool
    interval: Interval | None


def progress(values: Numbers, wanted: Precision) -> Progress:
    """Whether to go on after these replications' figures.

    ``more`` is what the variance seen so far asks for, at most as many again as there are: a caller that runs replications
    side by side may add them all at once. A caller that adds one at a time stops earliest.
    """
    n = len(values)
    interval = t_interval(values, wanted.level) if n >= 2 else None
    if interval is None or n < wanted.least:
        return Progress(wanted.least - n, False, interval)
    tightened = wanted.relative / (1 + wanted.relative)
    if interval.relative <= tightened:
        return Progress(0, True, interval)
    if n >= wanted.most:
        return Progress(0, False, interval)
    needed = n * min((interval.relative / tightened) ** 2, 2.0)
    return Progress(min(max(math.ceil(needed), n + 1), wanted.most) - n, False, interval)
