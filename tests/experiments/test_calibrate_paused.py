"""Pauses of a calibration, of collections in the same order as a real process of go1.19.8 had them in a bad hour."""

import pytest

from experiments.calibrate_plan import Run
from experiments.calibrate_tables import Measurements
from experiments.errors import InputError

MIXED = Run(("mixed", "-mib=256", "-rounds=4"), ("marked", "paused"), 1, traced=2)


def lines(*pauses, forced=False):
    """Of collections whose two pauses took so many microseconds together, four of them mark termination."""
    end = " (forced)" if forced else ""
    return "".join(
        f"gc {n} @{n}.512s 5%: {(us - 4) / 1000:g}+50+0.004 ms clock, 0.1+0.2/50/0+0.004 ms cpu, "
        f"126->130->127 MB, 252 MB goal, 0 MB stacks, 0 MB globals, 1 P{end}\n"
        for n, us in enumerate(pauses, 1)
    )


@pytest.mark.parametrize(
    ("text", "both"),
    [
        (lines(36, 700, 23, forced=True) + lines(20_004, 154, 257, 33, 32, 154), 32.5),
        (lines(30, 29, 163, 28, 31), 29.5),
        (lines(50, 40, forced=True), 45.0),  # none by itself
    ],
)
def test_pauses_are_of_collections_that_nothing_disturbed(text, both):
    found = Measurements()
    found.add("go1.19", MIXED, "", text)
    (row,) = found.rows("go1.19", "paused")
    assert row == [256, pytest.approx([both] * 3)]


def test_a_line_that_is_none_is_told():
    with pytest.raises(InputError, match="calibrate mixed"):
        Measurements().add("go1.19", MIXED, "", "gc 1 what\n" + lines(30, 30))
