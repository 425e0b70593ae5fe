"""Distributions from quantiles: they rise, keep the mean to the picosecond and pass through what was measured."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.quantiles import between, distribution, least_mean, picoseconds, scaled
from sim.costs import CELLS, Price

values = st.integers(0, 10**9)


@st.composite
def quantiles(draw):
    per_mille = sorted(draw(st.sets(st.integers(1, 999), min_size=1, max_size=6)))
    return list(
        zip(per_mille, sorted(draw(st.lists(values, min_size=len(per_mille), max_size=len(per_mille)))), strict=True)
    )


def check(price):
    assert len(price.cells) == CELLS
    assert list(price.cells) == sorted(price.cells)
    assert sum(price.cells) == CELLS * price.mean


@given(quantiles(), st.integers(0, 10**9))
def test_cells_rise_through_the_quantiles_and_keep_the_mean(points, more):
    mean = least_mean(points) + more
    price = distribution(points, mean)
    assert price.mean == mean
    check(price)
    for q, value in points:
        below = [cell for k, cell in enumerate(price.cells) if (2 * k + 1) * 1000 < q * 2 * CELLS]
        assert all(cell <= value for cell in below)
        assert all(cell >= value for cell in price.cells[len(below) :])


@given(quantiles())
def test_a_mean_the_quantiles_do_not_allow_is_refused(points):
    least = least_mean(points)
    if least > 0:
        with pytest.raises(ValueError, match=f"mean {least - 1} ps is below {least} ps, the least that"):
            distribution(points, least - 1)


@pytest.mark.parametrize(
    "points", [[(500, 3), (500, 4)], [(500, 3), (900, 2)], [(500, -3), (900, 2)], [(0, 1), (500, 2)]]
)
def test_quantiles_that_do_not_rise_are_refused(points):
    with pytest.raises(ValueError, match="do not rise"):
        distribution(points, 100)


def test_a_line_stays_a_line():
    """Quantiles of the uniform distribution on 0..1000 ns above its p10, with the mean such a line has."""
    points = [(q, q * 1000) for q in (100, 500, 900)]
    wanted = [max(100_000, (2 * k + 1) * 1_000_000 // (2 * CELLS)) for k in range(CELLS)]
    price = distribution(points, round(Fraction(sum(wanted), CELLS)))
    assert all(abs(cell - one) <= 2000 for cell, one in zip(price.cells, wanted, strict=True))


@given(quantiles(), values, st.integers(0, 10**8))
def test_scaling_keeps_the_shape(points, more, mean):
    price = scaled(distribution(points, least_mean(points) + more), mean)
    assert price.mean == mean
    if price.cells is not None:
        check(price)


@given(quantiles(), quantiles(), st.fractions(0, 1, max_denominator=100))
def test_between_two_lie_all_others(left, right, place):
    low, high = (distribution(points, least_mean(points)) for points in (left, right))
    price = between(low, high, place)
    check(price)
    assert 0 <= price.mean - (low.mean + (high.mean - low.mean) * place) < 1
    for one, two, cell in list(zip(low.cells, high.cells, price.cells, strict=True))[:-1]:
        assert min(one, two) <= cell <= max(one, two)


def test_a_price_that_does_not_vary_stays_so():
    assert scaled(Price(10), 30) == Price(30)
    assert between(Price(10), Price(20), Fraction(1, 2)) == Price(15)


def test_nanoseconds_become_the_nearest_picosecond():
    assert picoseconds(Fraction("10.2")) == 10_200
    assert [picoseconds(Fraction(n, 2000)) for n in (1, 2, 3)] == [0, 1, 2]
