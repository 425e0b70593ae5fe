"""Numbers as Go writes them, against what the real functions wrote."""

import json
import math
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.metrics.go_text import fmt_ns_as_ms, go_json, itoa_div, json_float, print_float, print_float_fixed

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "go_text.json").read_text())


def float_of(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def test_times_are_the_recorded_ones():
    assert len(RECORDED["ns"]) > 100
    assert [[ns, fmt_ns_as_ms(ns)] for ns, _ in RECORDED["ns"]] == RECORDED["ns"]


def test_floats_are_the_recorded_ones():
    assert len(RECORDED["float"]) > 200
    for bits, fixed, shortest, marshalled in RECORDED["float"]:
        value = float_of(bits)
        assert (print_float_fixed(value), print_float(value)) == (fixed, shortest)
        assert (marshalled is not None) == math.isfinite(value)
        assert marshalled is None or json_float(value) == marshalled


def test_a_last_digit_that_is_rounded_once_more_would_be_noticed():
    """Python's own seven digits are not the old print's: it rounds with each step."""
    assert any(f"{float_of(bits):+.6e}"[:9] != fixed[:9] for bits, fixed, _, _ in RECORDED["float"] if "e" in fixed)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_shortest_forms_read_back_the_same(value):
    for text in (print_float(value), json_float(value)):
        assert float(text) == value and math.copysign(1, float(text)) == math.copysign(1, value)
    assert float(json.loads(json_float(value))) == value


@given(st.floats(min_value=1e-300, max_value=1e300), st.booleans())
def test_the_fixed_form_has_seven_digits(value, negative):
    text = print_float_fixed(-value if negative else value)
    assert float(text) == pytest.approx(-value if negative else value, rel=1e-6)
    assert len(text) == 14 and text[0] == "+-"[negative]


@given(st.integers(0, 1 << 63))
def test_a_time_is_cut_to_what_its_digits_can_say(ns):
    text = fmt_ns_as_ms(ns)
    whole, _, fraction = text.partition(".")
    shown = int(whole + fraction.ljust(6, "0"))
    step = 10 ** (6 - len(fraction))
    assert shown <= ns < shown + step or (shown == 0 and ns < 1000)
    assert len(whole.lstrip("0") + fraction) <= 3 or not fraction


def test_decimals():
    assert [itoa_div(value, 3) for value in (0, 7, 1234)] == ["0.000", "0.007", "1.234"]
    assert itoa_div(42, 0) == "42"


def test_json_of_what_marshal_takes():
    assert go_json({"A": 1, "B": [True, False, 0.5, 1e-7], "C": {"D": -3}}) == (
        '{"A":1,"B":[true,false,0.5,1e-7],"C":{"D":-3}}'
    )
