"""Time series of gauges that never grow: when the points are too many every second one goes and the interval doubles."""

from __future__ import annotations

from collections.abc import Sequence


class Series:
    """Rows of integers taken at equal intervals, at most ``2 * points`` of them.

    ``interval``: picoseconds until the next row is due; it doubles, so the rows kept are at its multiples.
    """

    def __init__(self, columns: Sequence[str], points: int, interval: int) -> None:
        self.columns = ("time_ps", *columns)
        self.points = points
        self.interval = interval
        self.rows: list[tuple[int, ...]] = []

    def add(self, time: int, values: Sequence[int]) -> None:
        """Take a row."""
        self.rows.append((time, *values))
        if len(self.rows) >= 2 * self.points:
            self.interval *= 2
            self.rows = [row for row in self.rows if row[0] % self.interval == 0]
