"""Random streams: named, counter-based, integers only; the same numbers on every machine.

A stream is a key and a counter: value i is ``mix64(key + (i + 1) * 0x9E3779B97F4A7C15)``, the SplitMix64 sequence
(Steele, Lea, Flood 2014) from the key, which is the first 8 bytes (little endian) of blake2b over the seed (8 bytes,
little endian) and the name. So a stream depends on its seed and name alone: adding one, or drawing from another,
never moves it. Compiled code continues a stream from its ``key`` and ``counter``; Python calls the same functions.

Exponential draws come from a table of the quantiles ``-ln(1 - k/1024)``, in units of 2**-30, made by integer
arithmetic: no libm, whose last bit differs between machines. The top 10 bits of a value choose a cell, the next 32
the place in it, linearly. The last cell has no end: since the distribution is memoryless, it stands for ln(1024) plus
a fresh draw. Linear cells put the mean 7.9e-5 and the variance 7.8e-4 (relative) too high, and nothing else: it is
exact at every quantile of the table.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numba import int64, types, uint64

from sim.jit import entry, jit
from sim.units import throw
from sim.words import add64, mix64, mul64, shr64

_GOLDEN = np.uint64(0x9E37_79B9_7F4A_7C15)
_CELLS = 1024
_FRACTION = 30  # bits after the point in the table
_SERIES_BITS = 96
_UNIT = 1 << _FRACTION
_PLACE_BITS = 32
_PLACE = np.uint64((1 << _PLACE_BITS) - 1)
_LAST = _CELLS - 1
MAX_MEAN = 1 << 55  # ps, ten hours: keeps a draw below 2**63 unless 36 last cells follow each other


def unit_quantiles() -> Any:
    """Quantiles 0, 1/1024 .. 1023/1024 of the unit exponential distribution, in units of 2**-30, as int64.

    Their steps are ln((1024-k)/(1023-k)) = 2 atanh(1/(2047-2k)), summed as a series with 96 bits after the point.
    """
    total = 0
    quantiles = [0]
    for divisor in range(2 * _CELLS - 1, 1, -2):
        power, term = (2 << _SERIES_BITS) // divisor, 1
        while power:
            total += power // term
            power //= divisor * divisor
            term += 2
        quantiles.append(total)
    half = 1 << (_SERIES_BITS - _FRACTION - 1)
    return np.array([(x + half) >> (_SERIES_BITS - _FRACTION) for x in quantiles], dtype=np.int64)


_QUANTILES = unit_quantiles()


@jit
def draw64(key: Any, counter: Any) -> Any:
    """Value ``counter`` (0, 1, ...) of the stream with this key, a uniform word."""
    return mix64(add64(key, mul64(np.uint64(counter + 1), _GOLDEN)))


@jit
def scale(mean: Any, quantile: Any) -> Any:
    """mean * quantile / 2**30, to the nearest, for 0 <= mean < 2**60 without leaving 63 bits."""
    low = mean & (_UNIT - 1)
    return (mean >> _FRACTION) * quantile + ((low * quantile + (_UNIT >> 1)) >> _FRACTION)


@jit
def exponential(key: Any, counter: Any, mean: Any) -> Any:
    """An exponential draw of this mean, and the counter after the values it used; 0 < mean <= MAX_MEAN."""
    total = np.int64(0)
    while True:
        word = draw64(key, counter)
        counter += 1
        cell = np.int64(shr64(word, 54))
        if cell < _LAST:
            break
        total += scale(mean, _QUANTILES[_LAST])
    left = _QUANTILES[cell]
    place = np.int64(shr64(word, 22) & _PLACE)
    inside = ((_QUANTILES[cell + 1] - left) * place) >> _PLACE_BITS
    return total + scale(mean, left + inside), counter


@entry(uint64(uint64, int64))
def _draw64(key: Any, counter: Any) -> Any:
    """draw64 for Python."""
    return draw64(key, counter)


@entry(types.UniTuple(int64, 2)(uint64, int64, int64))
def _exponential(key: Any, counter: Any, mean: Any) -> Any:
    """exponential for Python."""
    return exponential(key, counter, mean)


class Stream:
    """A named stream of a seed: ``key`` (uint64) says which, ``counter`` how many values are used up."""

    __slots__ = ("counter", "key", "name")

    def __init__(self, seed: int, name: str) -> None:
        if type(seed) is not int or not 0 <= seed < 1 << 64:
            throw(f"seed {seed!r} of stream {name} is not an int in [0, 2**64)")
        self.name = name
        digest = hashlib.blake2b(seed.to_bytes(8, "little") + name.encode()).digest()
        self.key = int.from_bytes(digest[:8], "little")
        self.counter = 0

    def next_u64(self) -> int:
        """The next value: uniform in [0, 2**64)."""
        value = int(_draw64(self.key, self.counter))
        self.counter += 1
        return value

    def below(self, n: int) -> int:
        """Uniform in [0, n), as the high half of value * n: no value is off by more than 2**-64. Throw unless n > 0."""
        if not 0 < n <= 1 << 64:
            throw(f"stream {self.name}: below({n}), not in (0, 2**64]")
        return self.next_u64() * n >> 64

    def next_words(self, n: int) -> Any:
        """The next n values at once, as an array of uint64."""
        with np.errstate(over="ignore"):
            word = np.uint64(self.key) + np.arange(self.counter + 1, self.counter + n + 1, dtype=np.uint64) * _GOLDEN
            word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
            word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
        self.counter += n
        return word ^ (word >> np.uint64(31))

    def exponential(self, mean_ps: int) -> int:
        """Exponentially distributed integer picoseconds of this mean; Throw unless it is an int in (0, MAX_MEAN]."""
        if type(mean_ps) is not int or not 0 < mean_ps <= MAX_MEAN:
            throw(f"stream {self.name}: mean {mean_ps!r} ps is not an int in (0, {MAX_MEAN}]")
        value, counter = _exponential(self.key, self.counter, mean_ps)
        self.counter = int(counter)
        return int(value)
