"""Prices of marking, by hand from rows of one's own."""

from fractions import Fraction

import pytest

from experiments.machine_file import Reading, Table
from experiments.machine_gc import mark_prices
from sim.costs import MarkPrices

NS = {
    "list64": 40,
    "list64shuf": 500,
    "tree16": 20,
    "objs64": 20,
    "objs64shuf": 80,
    "leaf64": 10,
    "objs512": 20 + 448 // 7,
    "ptrs1M": 1 << 19,
}
SHUFFLED = {"leaf64shuf": 30, "objs512shuf": 80 + 448 // 4, "objs1024shuf": 700, "objs2048shuf": 700 + 512}
ORDERED = {"objs1024": 300, "objs2048": 300 + 256}


def table(rows):
    readings = {name: Reading(*3 * (Fraction(ns),)) for name, ns in rows.items()}
    return Table("m.toml: mark", "s", "u", {(name, 1): {"per_object": one} for name, one in readings.items()})


def test_without_rows_of_their_own_shuffled_heaps_and_headers_are_priced_like_others():
    found = mark_prices(table(NS))
    small = round(1_000_000 / 7)
    assert found["array"] == MarkPrices(round(20_000 - 64_000 / 7), 10_000, small, 500_000, round(20_000 - 64_000 / 7), 500_000)
    assert found["array-shuffled"].noscan_object == 10_000
    assert found["array-shuffled"].small_byte == small
    assert found["list-shuffled"].middle_object == found["list-shuffled"].scan_object


def test_shuffled_rows_price_shuffled_heaps_alone():
    found = mark_prices(table(NS | SHUFFLED | ORDERED))
    shuffled, ordered = found["array-shuffled"], found["array"]
    assert shuffled == MarkPrices(80_000 - 16_000, 30_000, 250_000, 500_000, 700_000 - 512_000, 500_000)
    assert (ordered.noscan_object, ordered.middle_object, ordered.middle_byte) == (10_000, 300_000 - 256_000, 250_000)
    assert found["list-shuffled"].noscan_object == 30_000
    assert found["tree"].noscan_object == 10_000


def test_what_is_measured_gives_itself_again():
    """An object of 1 KiB, of 2 KiB and of 512 B costs what its row says."""
    rows = NS | SHUFFLED
    prices = mark_prices(table(rows))["array-shuffled"]
    for size in (1024, 2048):
        assert prices.middle_object + size * prices.middle_byte // 1000 == pytest.approx(1000 * rows[f"objs{size}shuf"])
    assert prices.scan_object + 512 * prices.small_byte // 1000 == pytest.approx(1000 * rows["objs512shuf"])
