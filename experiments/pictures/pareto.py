"""Points that no other beats: Pareto's front."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def front(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which rows no other row is at most equal to in every column and lower in one; columns are costs, lower is better."""
    no_worse = (costs[:, None, :] <= costs[None, :, :]).all(axis=2)
    lower = (costs[:, None, :] < costs[None, :, :]).any(axis=2)
    return np.asarray(~(no_worse & lower).any(axis=0))
