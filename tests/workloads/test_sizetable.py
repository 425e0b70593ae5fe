"""Size tables: Little's law through a stream, a table measured from a recorded trace, and bad rows."""

from fractions import Fraction
from math import sqrt
from pathlib import Path

import numpy as np
import pytest

import workloads
from sim.jit import PLAIN
from sim.ops import ALLOC, OP
from tests.workloads.stream_model import interpret
from workloads.gotrace import read_trace
from workloads.gotrace_model import GC_BEGIN, OBJECT_ALLOC
from workloads.sizetable import format_rows, measure, read_size_table
from workloads.streams import WorkerStream

JSON = Path(workloads.__file__).parent / "data" / "json.csv"
TRACE = Path(__file__).parent.parent / "data" / "xbench-json-P2-gogc_default.trace.xz"


def table(tmp_path, text, **options):
    path = tmp_path / "table.csv"
    path.write_text(text)
    return read_size_table(path, **options)


def test_a_table_becomes_a_mix(tmp_path):
    found = table(
        tmp_path, "# mine\n\nsize, rate, live\n 32, 1000, 50\n16, 3000.5, 0.5\n", pointers_ppm=7, dist="fixed"
    )
    assert [row.size for row in found.rows] == [16, 32]
    assert found.rate == Fraction("4000.5")
    assert found.interval == round(10**12 / 4000.5)
    small, large = found.mix.objects
    assert Fraction(small.weight, large.weight) == Fraction("3.0005")
    assert (large.lifetime.kind, large.lifetime.mean, large.lifetime.dist) == (
        "ops",
        200,
        "fixed",
    )  # 50 * 4000.5 / 1000
    assert small.lifetime.mean == 1  # 0.67 mallocs
    assert (small.sizes, small.pointers_ppm) == (((16, 16, 1),), 7)


def test_a_stream_keeps_what_the_table_says_alive(tmp_path):
    """Shares are rates; objects of a size alive, and their time average, are ``live``: Little's law."""
    rows = {16: (6000, 30), 64: (3000, 60), 512: (1000, 10)}
    found = table(tmp_path, "size,rate,live\n" + "".join(f"{s},{r},{n}\n" for s, (r, n) in rows.items()))
    n = 2000 if PLAIN else 60_000
    ops = np.zeros(2 * n, OP)
    WorkerStream(found.mix, 1000, 1, "w").fill(ops)
    run = interpret(ops)
    n = len(run.objects)
    for size, (rate, live) in rows.items():
        share, mean = rate / 10_000, live * 10_000 / rate
        lives = np.array([min(one.died, n) - one.born for one in run.objects if one.size == size])
        assert abs(len(lives) - share * n) <= 4 * sqrt(n * share * (1 - share))
        assert abs(lives.sum() / n - live) <= 4 * mean * sqrt(2 * share / n) + share * mean * mean / n


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows; write a header size,rate,live"),
        ("size,rate,live\n", "no rows"),
        ("size,live,rate\n16,1,1\n", "line 1: 'size,live,rate' is not the header; write size,rate,live"),
        ("16,1,1\n", "line 1: '16,1,1' is not the header"),
        ("size,rate,live\n16,1\n", "line 2: 2 values, not the three"),
        ("# note\nsize,rate,live\n16,1,1\n\n16,2,2\n", "line 5: size 16 stands in an earlier line"),
        ("size,rate,live\n16,fast,1\n", "line 2: rate 'fast' is not a number such as 12 or 0.5"),
        ("size,rate,live\n16,1/3,1\n", "line 2: rate '1/3' is not a number"),
        ("size,rate,live\n16,nan,1\n", "line 2: rate 'nan' is not a number"),
        ("size,rate,live\n16,,1\n", "line 2: rate '' is not a number"),
        ("size,rate,live\n16,0,1\n", "line 2: rate 0 must be positive"),
        ("size,rate,live\n16,1,-1\n", "line 2: live -1 must be 0 or more"),
        ("size,rate,live\n0,1,1\n", "line 2: size 0 must be positive"),
        ("size,rate,live\n1.5,1,1\n", "line 2: size 1.5 is not a whole number of bytes"),
        ("size,rate,live\n16,1,1e30\n", "line 2: live / rate is a lifetime of more than"),
        ("size,rate,live\n1e15,1,1\n", "line 2: size 1e15 is not a whole number of bytes below"),
    ],
)
def test_bad_rows_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        table(tmp_path, text)


def test_an_unreadable_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none.csv: cannot be read: No such file"):
        read_size_table(tmp_path / "none.csv")


def test_the_shipped_table_is_the_traces(tmp_path):
    """The table is what its note says: remade from the trace, and within the trace's own counts."""
    trace = read_trace(TRACE)
    rows = measure(trace)
    text = "".join(line for line in JSON.read_text().splitlines(keepends=True) if not line.startswith("#"))
    assert text == format_rows(rows)
    seconds = float(trace.time_ns[-1] - trace.time_ns[0]) / 1e9
    allocated = float(sum(row.rate for row in rows)) * seconds
    announced = int((trace.kind == OBJECT_ALLOC).sum())
    assert 0.95 * announced < allocated <= announced  # but for objects put into a tiny block that was there
    assert all(row.live >= 0 for row in rows)
    # what the runtime said it found alive at the end of the last cycle, 18 MiB, is one of three cycles'
    assert 5 << 20 < sum(row.live * row.size for row in rows) < 27 << 20
    assert len(read_size_table(JSON).rows) == len(rows)


def test_a_trace_without_a_cycle_is_refused():
    trace = read_trace(TRACE)
    trace.kind[trace.kind == GC_BEGIN] = 0
    with pytest.raises(ValueError, match="no GC cycle"):
        measure(trace)


def test_streams_of_the_shipped_table():
    found = read_size_table(JSON)
    ops = np.zeros(3000, OP)
    WorkerStream(found.mix, 1000, 1, "w").fill(ops)
    interpret(ops)
    assert set(ops["arg"][ops["kind"] == ALLOC].tolist()) <= {row.size for row in found.rows}
