"""The values of a scenario file: quantities, numbers, texts and weights, their limits and how they are refused.

A validator takes what TOML gave and returns the resolved value. Its ValueError says "what is wrong; what is right";
the file and the key are added by who knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from math import gcd, isfinite, lcm
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from sim.units import SEC, parse_size, parse_time
from workloads.scenario_record import GOGC_OFF, NO_LIMIT, exact_time

MAX_TIME = (1 << 63) - 1  # ps: what an int64 holds, 106 days
MAX_MEAN = 3600 * SEC  # of a random time: 44 times as much is still far from MAX_TIME
MAX_SIZE = (1 << 40) - 1
MAX_GOGC = 100_000
MAX_GLOBALS = 1 << 36
MAX_STACK = 511 << 20  # bytes of frames: a stack ends at 512 MiB, of which a guard is kept free
MAX_OPS = 1 << 39  # mean lifetime in mallocs
MAX_RANGE = 1 << 31  # sizes in one range
MAX_COUNT = 10**9  # whatever is counted within a goroutine; also the largest sum of weights
MAX_PLACES = 10**8  # of all caches of all goroutines: each takes some bytes of ours
MIN_RATE, MAX_RATE = 0.001, 1e9
MAX_TEXT = 40  # characters of a value shown, or of a quantity read


def shown(value: Any) -> str:
    """A value as TOML would write it, cut short."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= MAX_TEXT else f'"{value[:MAX_TEXT]}..."'
    if isinstance(value, int):
        return str(value) if abs(value) < 10**MAX_TEXT else "a number of many digits"
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, dict):
        return "a table"
    return "a list" if isinstance(value, list) else "a date or time"


def whole(low: int, high: int) -> Any:
    """A whole number from low to high."""

    def check(value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{shown(value)} is not allowed; write a whole number from {low} to {high}")
        return value

    return BeforeValidator(check)


def real(low: float, high: float) -> Any:
    """A finite number from low to high."""

    def check(value: Any) -> float:
        if type(value) not in (int, float) or not low <= value <= high:
            raise ValueError(f"{shown(value)} is not allowed; write a number from {low:g} to {high:g}")
        return float(value)

    return BeforeValidator(check)


def _quantity(parse: Callable[[str], int], low: int, high: int, limits: str, example: str) -> Any:
    """A time or a size in its limits."""

    def check(value: Any) -> int:
        if type(value) is not str:
            raise ValueError(f'{shown(value)} is no text with a unit; write "{example}" for instance')
        if value.strip().startswith("-"):
            raise ValueError(f'{shown(value)} is negative; write "{example}" for instance')
        if len(value) > MAX_TEXT:
            raise ValueError(f'{shown(value)} is too long; write "{example}" for instance')
        try:
            found = parse(value)
        except ValueError as error:
            hint = "" if ";" in str(error) else f'; write "{example}" for instance'
            raise ValueError(f"{error}{hint}") from None
        if not low <= found <= high:
            raise ValueError(f"{shown(value)} is out of range; write what is {limits}")
        return found

    return BeforeValidator(check)


def off_or(quantity: Any, off: int = 0) -> Any:
    """The word ``off``, which is the integer ``off``, or a quantity."""

    def check(value: Any) -> int:
        return off if value == "off" else int(quantity.func(value))

    return BeforeValidator(check)


def time(low: int, high: int, example: str) -> Any:
    """A duration from low to high picoseconds; the example is shown to who wrote no duration."""
    most = exact_time(high) if high < MAX_TIME else "106 days"
    return _quantity(parse_time, low, high, f"from {exact_time(low)} to {most}", example)


def _line(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"{shown(value)} is not one line of text; write what the scenario is for")
    return value


def gogc_percent(value: Any) -> int:
    """GOGC in percent, -1 for off; ValueError if it is neither."""
    if value == "off":
        return GOGC_OFF
    if type(value) is not int or not 1 <= value <= MAX_GOGC:
        raise ValueError(f'{shown(value)} is not allowed; write a percentage from 1 to {MAX_GOGC}, or "off"')
    return value


def gogc_text(value: str) -> int:
    """`gogc_percent` of what a person typed."""
    return gogc_percent(int(value) if value.isdecimal() and len(value) < 20 else value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{shown(value)} is no name; write a name or path in quotes")
    return value


def _weight(value: Any) -> Fraction:
    """A weight exactly as written: 0.1 is a tenth."""
    if type(value) not in (int, float) or not isfinite(value) or not 0 <= value <= MAX_COUNT:
        raise ValueError(f"{shown(value)} is not allowed; write a number from 0 to {MAX_COUNT}")
    return Fraction(repr(value))


Line = Annotated[str, BeforeValidator(_line)]
Gogc = Annotated[int, BeforeValidator(gogc_percent)]
Name = Annotated[str, BeforeValidator(_text)]
Size = Annotated[int, _quantity(parse_size, 1, MAX_SIZE, "from 1B to below 1TiB", "64B")]
SizeOrOff = Annotated[int, off_or(_quantity(parse_size, 1, MAX_SIZE, "from 1B to below 1TiB, or off", "512KiB"))]
limit: Callable[[str], int] = off_or(_quantity(parse_size, 1, MAX_SIZE, "from 1B to below 1TiB, or off", "512MiB"), NO_LIMIT).func
Limit = Annotated[int, BeforeValidator(limit)]
GlobalsSize = Annotated[int, _quantity(parse_size, 0, MAX_GLOBALS, "from 0B to 64GiB", "128KiB")]
Stack = Annotated[int, _quantity(parse_size, 1, MAX_STACK, "from 1B to 511MiB", "8KiB")]
MeanTime = Annotated[int, time(0, MAX_MEAN, "500ns")]
Share = Annotated[float, real(0, 1)]
Count = Annotated[int, whole(1, MAX_COUNT)]
Weight = Annotated[Any, BeforeValidator(_weight)]
Dist = Literal["fixed", "exponential"]


def normal_weights(weights: Sequence[Fraction]) -> list[int]:
    """Weights as the smallest integers of the same shares; rounded where their sum would be more than a billion."""
    scale = lcm(*(weight.denominator for weight in weights))
    parts = [int(weight * scale) for weight in weights]
    total = sum(parts)
    if total // gcd(*parts) > MAX_COUNT:
        parts = [(w * MAX_COUNT + total) // (2 * total) for w in parts]  # half of it: rounding again changes nothing
    divisor = gcd(*parts)
    return [w // divisor for w in parts]


def normal_sizes(sizes: Iterable[tuple[int, int, int | Fraction]]) -> tuple[tuple[int, int, int], ...]:
    """Sizes (low, high, weight) with `normal_weights`, those of weight 0 left out."""
    parts = list(sizes)
    weights = normal_weights([Fraction(weight) for _, _, weight in parts])
    return tuple((low, high, w) for (low, high, _), w in zip(parts, weights, strict=True) if w)
