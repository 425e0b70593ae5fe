"""How Go writes numbers: times of gctrace (mgc.go:fmtNSAsMS), floats of print (print.go) and of encoding/json.

The runtime's ``print`` of a float changed: up to go1.25 it has its own digits, seven of them with a sign and an
exponent of three (``+2.500000e-001``), computed by repeated multiplication, so not always the nearest; today it is
strconv's shortest form that reads back the same (``0.25``, ``1e+06``). Both are reproduced digit for digit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_DIGITS = 7  # of a printed float of old


def itoa_div(value: int, decimals: int) -> str:
    """An integer >= 0 divided by 10**decimals, all of the decimals written. (mgc.go:itoaDiv)"""
    digits = str(value).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits


def fmt_ns_as_ms(ns: int) -> str:
    """Nanoseconds >= 0 as milliseconds: whole ones from 10 ms on, else two digits, at most three decimals. (fmtNSAsMS)

    Cuts, never rounds; below 1 us it is ``0``.
    """
    if ns >= 10_000_000:
        return itoa_div(ns // 1_000_000, 0)
    value, decimals = ns // 1000, 3
    if not value:
        return "0"
    while value >= 100:
        value //= 10
        decimals -= 1
    return itoa_div(value, decimals)


def _special(value: float) -> str | None:
    """Not a number, or an infinity."""
    if math.isnan(value):
        return "NaN"
    return ("+Inf" if value > 0 else "-Inf") if math.isinf(value) else None


def print_float_fixed(value: float) -> str:
    """A float64 as the runtime's print wrote it: ``+d.dddddde+ddd``. (print.go:printfloat, 1.19)

    The order of the operations is the runtime's, for they round.
    """
    special = _special(value)
    if special is not None:
        return special
    sign, exponent = "-" if math.copysign(1.0, value) < 0 else "+", 0
    value = abs(value)
    if value:
        while value >= 10:
            exponent += 1
            value /= 10
        while value < 1:
            exponent -= 1
            value *= 10
        half = 5.0
        for _ in range(_DIGITS):
            half /= 10
        value += half
        if value >= 10:
            exponent += 1
            value /= 10
    digits = ""
    for _ in range(_DIGITS):
        digit = int(value)
        digits += str(digit)
        value = (value - digit) * 10
    return f"{sign}{digits[0]}.{digits[1:]}e{'-' if exponent < 0 else '+'}{abs(exponent):03}"


def _shortest(value: float) -> tuple[str, str, int]:
    """Sign, shortest digits that read back the same, and decimal exponent of the first; of a finite float."""
    mantissa, _, exponent = f"{value!r}".lower().partition("e")
    sign = "-" if mantissa.startswith("-") else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = (whole + fraction).lstrip("0")
    power = int(exponent or 0) + len(whole) - 1 - (len(whole + fraction) - len(digits))
    return sign, digits.rstrip("0") or "0", power if digits else 0


def _plain(digits: str, power: int) -> str:
    """Digits without an exponent. (strconv's format f)"""
    if power < 0:
        return "0." + "0" * (-power - 1) + digits
    whole = digits[: power + 1].ljust(power + 1, "0")
    return f"{whole}.{digits[power + 1 :]}" if len(digits) > power + 1 else whole


def print_float(value: float) -> str:
    """A float64 as the runtime's print writes it today: strconv's ``g``, shortest. (print.go:printfloat64, 1.27)"""
    special = _special(value)
    if special is not None:
        return special
    sign, digits, power = _shortest(value)
    if -4 <= power < 6:
        return sign + _plain(digits, power)
    return sign + _scientific(digits, power)


def _scientific(digits: str, power: int) -> str:
    """Digits with an exponent of at least two. (strconv's format e)"""
    point = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{digits[0]}{point}e{'-' if power < 0 else '+'}{abs(power):02}"


def json_float(value: float) -> str:
    """A finite float64 as encoding/json writes it: an exponent below 1e-6 and from 1e21 on. (floatEncoder.encode)"""
    sign, digits, power = _shortest(value)
    if -6 <= power < 21:
        return sign + _plain(digits, power)
    text = _scientific(digits, power)
    return sign + (text[:-2] + text[-1] if text[-4:-1] == "e-0" else text)


def go_json(value: Any) -> str:
    """Mappings, lists, numbers and booleans as encoding/json's Marshal writes them: on one line, without a space."""
    if isinstance(value, Mapping):
        return "{" + ",".join(f'"{name}":{go_json(inner)}' for name, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(go_json, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return json_float(value) if isinstance(value, float) else str(value)
