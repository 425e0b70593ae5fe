"""Tails of latency: how many calls took longer than how long, and which causes made them.

A result keeps a histogram of all mallocs and one of the time each cause took within them, not the causes of each malloc.
Of the mallocs that took longer than x, those in which cause c alone took longer than x are counted exactly. These may
overlap where two causes each took longer, and miss mallocs in which only several together did. So the shares are parts of
the larger of both numbers, the mallocs and the sum over causes; what is missing is "several together".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Buckets = Sequence[tuple[int, int, int]]
"""(low, high, count): picoseconds, both of the bucket."""
TOGETHER = "several together"
OTHERS = "others"
_POINTS = 480  # at which shares are told
_TAIL = 0.1  # shares are of the longest tenth: what is common is the fast path
_LITTLE = 0.02  # causes that are never more are told as one


@dataclass(frozen=True, slots=True)
class Tail:
    """``counts[i]`` values were greater than ``above[i]``, picoseconds; of ``total``.

    Exact: ``above`` are the tops of buckets that hold something, whose lowest values are ``lows``.
    """

    lows: npt.NDArray[np.int64]
    above: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    total: int

    @property
    def share(self) -> npt.NDArray[np.float64]:
        """The complementary distribution."""
        return self.counts / self.total

    def at(self, x: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """How many values were greater than each of these; those of the bucket that holds it count as no greater."""
        padded = np.concatenate([[self.total], self.counts])
        places = self.above.searchsorted(x, side="left")
        inside = np.append(self.lows, np.iinfo(np.int64).max)[places] <= x
        return np.asarray(padded[places + inside])


def tail(buckets: Buckets) -> Tail:
    """The tail of a histogram whose buckets are in order."""
    rows = np.array(buckets, np.int64).reshape(-1, 3)
    passed = rows[:, 2].cumsum()
    total = int(passed[-1]) if len(passed) else 0
    return Tail(rows[:, 0], rows[:, 1], total - passed, total)


@dataclass(frozen=True, slots=True)
class Shares:
    """Of the mallocs that took longer than ``above[i]`` picoseconds, ``by_cause[c][i]`` is the share that cause c made."""

    above: npt.NDArray[np.int64]
    by_cause: Mapping[str, npt.NDArray[np.float64]]


def shares(histograms: Mapping[str, Buckets]) -> Shares:
    """Which causes the longest tenth of all mallocs (``all``) is made of, as far out as any malloc is longer."""
    whole = tail(histograms["all"])
    first, last = max(int(whole.above[0]), 1), int(whole.above[-1])
    grid = np.unique(np.geomspace(first, max(last, first + 1), _POINTS).astype(np.int64))
    tops = whole.above[np.minimum(whole.above.searchsorted(grid), len(whole.above) - 1)]
    longer_than = whole.at(tops)
    above = np.unique(tops[(longer_than > 0) & (longer_than <= _TAIL * whole.total)])
    longer = whole.at(above).astype(np.float64)
    alone = {cause: tail(rows).at(above) for cause, rows in histograms.items() if cause != "all" and rows}
    told = sum(alone.values(), np.zeros(len(above)))
    parts = np.maximum(longer, told)
    found = {cause: counts / parts for cause, counts in alone.items() if counts.any()}
    little = [cause for cause, share in found.items() if share.max() < _LITTLE]
    if len(little) > 1:
        found[OTHERS] = np.asarray(sum(found.pop(cause) for cause in little))
    together = np.maximum(longer - told, 0) / parts
    if together.any():
        found[TOGETHER] = together
    return Shares(above, found)
