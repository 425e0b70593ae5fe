"""Streams against published values, an independent slow model, and the distributions they claim."""

import itertools
import os
import subprocess
import sys
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
from numba import int64, types, uint64
from scipy import stats

from sim.engine.rng import MAX_MEAN, Stream, draw64, exponential, scale, unit_quantiles
from sim.jit import PLAIN, entry
from sim.units import Throw

MASK = 2**64 - 1
# first outputs of the public-domain splitmix64.c for the state 1234567
SPLITMIX = [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
]


@entry(uint64(uint64, int64))
def word_of(key, counter):
    return draw64(key, counter)


@entry(types.UniTuple(int64, 3)(uint64, int64, int64, int64))
def total_of(key, counter, n, mean):
    """Sum of n exponential draws, the last of them, and the counter after them."""
    total = np.int64(0)
    value = np.int64(0)
    for _ in range(n):
        value, counter = exponential(key, counter, mean)
        total += value
    return total, value, counter


@entry(int64(int64, int64))
def scaled(mean, quantile):
    return scale(mean, quantile)


def slow_word(key, i):
    z = (key + (i + 1) * 0x9E3779B97F4A7C15) & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def slow_exponential(key, i, mean):
    """The documented rule with unbounded integers; (value, next counter)."""
    table = [int(q) for q in unit_quantiles()]
    total = 0
    while slow_word(key, i) >> 54 == 1023:
        total += (mean * table[1023] + 2**29) >> 30
        i += 1
    word = slow_word(key, i)
    cell, place = word >> 54, word >> 22 & (2**32 - 1)
    q = table[cell] + ((table[cell + 1] - table[cell]) * place >> 32)
    return total + (mean * q + 2**29 >> 30), i + 1


def test_words_are_splitmix64s():
    assert [int(word_of(1234567, i)) for i in range(5)] == SPLITMIX


def test_pinned_stream():
    """The key comes from coreutils: printf '\\1\\0\\0\\0\\0\\0\\0\\0sizes/g17' | b2sum."""
    stream = Stream(1, "sizes/g17")
    assert stream.key.to_bytes(8, "little").hex() == "5fe9a638a1f3246d"
    assert [stream.next_u64() for _ in range(1000)] == [slow_word(stream.key, i) for i in range(1000)]


def test_table_is_the_quantiles():
    with localcontext() as context:
        context.prec = 50
        exact = [-(1 - Decimal(k) / 1024).ln() * 2**30 for k in range(1024)]
    assert [int(q) for q in unit_quantiles()] == [int(x.to_integral_value()) for x in exact]


def test_moments_of_linear_cells_are_what_the_docstring_says():
    q = [Fraction(int(x), 2**30) for x in unit_quantiles()]
    first = sum((a + b) / 2 for a, b in itertools.pairwise(q)) / 1024
    second = sum((a * a + a * b + b * b) / 3 for a, b in itertools.pairwise(q)) / 1024
    mean = (first + q[-1] / 1024) * Fraction(1024, 1023)
    square = (second + (q[-1] ** 2 + 2 * q[-1] * mean) / 1024) * Fraction(1024, 1023)
    assert float(mean - 1) == pytest.approx(7.9e-5, rel=0.01)
    assert float(square - mean**2 - 1) == pytest.approx(7.8e-4, rel=0.01)


@pytest.mark.parametrize("mean", [1, 999, 12_400, 10**9, 2**30, 2**40 + 12345, MAX_MEAN])
def test_exponential_equals_the_slow_model(mean):
    stream = Stream(3, "slow")
    counter = 0
    for _ in range(60):
        value, counter = slow_exponential(stream.key, counter, mean)
        assert (stream.exponential(mean), stream.counter) == (value, counter)


def test_tail_draws_again_and_equals_the_slow_model():
    stream = Stream(4, "tail")
    tails = [i for i in range(20_000) if slow_word(stream.key, i) >> 54 == 1023]
    assert 5 <= len(tails) <= 40
    for i in tails:
        stream.counter = i
        expected, counter = slow_exponential(stream.key, i, 10**6)
        assert (stream.exponential(10**6), stream.counter) == (expected, counter)
        assert counter > i + 1
        assert expected > 6_931_471


def test_compiled_code_continues_a_stream():
    """20,000 draws hold some from the last cell, so the counter is not simply the number of draws."""
    stream, other = Stream(5, "handed over"), Stream(5, "handed over")
    total, last, stream.counter = (int(x) for x in total_of(stream.key, 0, 20_000, 777))
    values = [other.exponential(777) for _ in range(20_000)]
    assert (total, last, stream.counter) == (sum(values), values[-1], other.counter)
    assert stream.counter > 20_000
    assert [stream.next_u64() for _ in range(5)] == [other.next_u64() for _ in range(5)]


@pytest.mark.skipif(PLAIN, reason="compares compiled with plain")
def test_plain_python_draws_the_same():
    code = (
        "from sim.engine.rng import Stream; s = Stream(6, 'modes');"
        "print([(s.next_u64(), s.exponential(10**9), s.below(16)) for _ in range(300)], s.counter)"
    )
    plain = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    s = Stream(6, "modes")
    rows = [(s.next_u64(), s.exponential(10**9), s.below(16)) for _ in range(300)]
    assert plain.stdout.strip() == f"{rows} {s.counter}"


@pytest.mark.parametrize("mean", [0, 1, 2**30 - 1, 2**30, 2**55 - 1, 2**60 - 1])
@pytest.mark.parametrize("quantile", [0, 1, 2**30, 7442611180])
def test_scale_is_exact(mean, quantile):
    assert int(scaled(mean, quantile)) == (mean * quantile + 2**29) >> 30


def words(seed, name, n):
    stream = Stream(seed, name)
    return np.array([stream.next_u64() for _ in range(n)], dtype=np.uint64)


def test_bits_and_bytes_are_uniform():
    n = 20_000
    raw = words(7, "bits", n).view(np.uint8).reshape(n, 8)
    ones = np.unpackbits(raw, axis=1).sum(axis=0, dtype=np.int64)
    assert 1e-3 < stats.chi2.sf(((ones - n / 2) ** 2 / (n / 4)).sum(), df=64) < 1 - 1e-3
    for byte in range(8):
        assert stats.chisquare(np.bincount(raw[:, byte], minlength=256)).pvalue > 1e-3
    pairs = raw[:-1, 0].astype(int) // 16 * 16 + raw[1:, 0] // 16  # neighbours in the sequence
    assert stats.chisquare(np.bincount(pairs, minlength=256)).pvalue > 1e-3


def test_below_is_uniform_and_in_range():
    stream = Stream(8, "below")
    for n in (1, 7, 16, 1000):
        counts = np.bincount([stream.below(n) for _ in range(20_000)], minlength=n)
        assert len(counts) == n
        assert n == 1 or stats.chisquare(counts).pvalue > 1e-3
    big = [stream.below(2**64) for _ in range(100)]
    stream.counter -= 100
    assert big == [stream.next_u64() for _ in range(100)]


def test_exponential_distribution():
    n, mean = 100_000, 10**9
    stream = Stream(9, "exponential")
    x = np.array([stream.exponential(mean) for _ in range(n)]) / mean
    assert abs(x.mean() - 1) < 4 / n**0.5
    assert abs(x.var() - 1) < 4 * (8 / n) ** 0.5
    assert stats.kstest(x, "expon").pvalue > 0.01
    tail = x[x > np.log(1024)] - np.log(1024)
    assert stats.kstest(tail, "expon").pvalue > 0.01


def test_streams_do_not_move_one_another():
    alone = [Stream(1, "a").next_u64() for _ in range(1)] + list(words(1, "a", 100))
    a, b = Stream(1, "a"), Stream(1, "b")
    mixed = []
    for _ in range(100):
        mixed.append(a.next_u64())
        b.exponential(5)
        Stream(1, "c").next_u64()
    assert mixed == [int(w) for w in alone[1:]]


def test_streams_are_unlike_one_another():
    n = 20_000
    sequences = [words(seed, name, n) for seed, name in ((1, "a"), (1, "b"), (2, "a"), (1, "a/1"), (1, "a/2"))]
    assert len(np.unique(np.concatenate(sequences))) == 5 * n
    unit = [s / 2.0**64 for s in sequences]
    for i in range(5):
        for j in range(i):
            assert abs(np.corrcoef(unit[i], unit[j])[0, 1]) < 4 / n**0.5


def test_bad_arguments_are_refused():
    for seed in (-1, 2**64, 1.0):
        with pytest.raises(Throw, match=r"seed .* of stream x"):
            Stream(seed, "x")
    stream = Stream(1, "x")
    for n in (0, -3, 2**64 + 1):
        with pytest.raises(Throw, match="stream x: below"):
            stream.below(n)
    for mean in (0, -1, 2.5, MAX_MEAN + 1):
        with pytest.raises(Throw, match="stream x: mean"):
            stream.exponential(mean)
    assert stream.counter == 0


def test_many_words_at_once_are_the_next_ones():
    one, many = Stream(7, "x"), Stream(7, "x")
    wanted = [one.next_u64() for _ in range(10)]
    assert [int(word) for n in (3, 0, 7) for word in many.next_words(n)] == wanted
    assert many.next_u64() == one.next_u64()
