"""Times and sizes as people read them: three digits, and never a thousand of a unit."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.units import GIB, KIB, MIB, MS, NS, SEC, TIB, US, format_size, format_time, parse_size, parse_time


@pytest.mark.parametrize(
    ("ps", "text"),
    [
        (0, "0s"),
        (1, "1ps"),
        (999, "999ps"),
        (1000, "1.00ns"),
        (8391, "8.39ns"),
        (9_996, "10.0ns"),
        (99_960, "100ns"),
        (999_400, "999ns"),
        (999_700, "1.00us"),
        (1_500 * US, "1.50ms"),
        (999_999_999_999, "1.00s"),
        (1234 * SEC, "1234s"),
        (100_000 * SEC, "100000s"),
    ],
)
def test_times(ps, text):
    assert format_time(ps) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (KIB, "1.00KiB"),
        (1013 * KIB, "1013KiB"),
        (MIB - 1, "1.00MiB"),
        (1536 * MIB, "1.50GiB"),
        (GIB - KIB, "1.00GiB"),
        (5000 * TIB, "5000TiB"),
    ],
)
def test_sizes(n, text):
    assert format_size(n) == text


@given(st.integers(1, 10**20))
def test_a_time_is_read_back_within_half_of_its_last_digit(ps):
    text = format_time(ps)
    digits = text.rstrip("pnums").replace(".", "")
    unit = next(
        unit for name, unit in (("ps", 1), ("ns", NS), ("us", US), ("ms", MS), ("s", SEC)) if text.endswith(name)
    )
    assert len(digits) == 3 or unit in (1, SEC)
    assert abs(parse_time(text) - ps) <= max(Decimal(ps) / 199, unit // 2 if len(digits) > 3 else 0)


@given(st.integers(1, 10**15))
def test_a_size_is_read_back_within_half_of_its_last_digit(n):
    whole = format_size(n)
    scale = {"KiB": KIB, "MiB": MIB, "GiB": GIB, "TiB": TIB}.get(whole[-3:], 1)
    number = Decimal(whole.rstrip("KMGTiB"))
    assert abs(number * scale - n) <= Decimal(n) / 199
    if number == int(number):
        assert parse_size(f"{int(number)}{whole[-3:] if scale > 1 else 'B'}") == int(number) * scale
