"""Records of cycles: their invariants, each broken on purpose; rows of text that read back the same."""

from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.metrics.cycles import COLUMNS, Cycle, Swept, from_row, rows
from sim.units import Throw
from tests.metrics.cycle_records import FIRST, SWEPT, cycles


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "idle"}, "'idle' is no kind of cycle; one of heap, time, forced is"),
        ({"number": 0}, "cycle 0: 2 of 4 Ps stopped"),
        ({"stw_procs": 5}, "cycle 1: 5 of 4 Ps stopped"),
        ({"stw_procs": 0}, "cycle 1: 0 of 4 Ps stopped"),
        ({"t_mark": FIRST.t_sweep_term - 1}, "phases begin out of order"),
        ({"t_mark_term": FIRST.t_mark - 1}, "phases begin out of order"),
        ({"t_end": FIRST.t_mark_term - 1}, "phases begin out of order"),
        ({"t_sweep_term": -1}, "phases begin out of order"),
        ({"pause_mark_term": FIRST.t_end - FIRST.t_sweep_term}, "cycle 1: paused for"),
        ({"stop_sweep_term": FIRST.pause_sweep_term + 1}, "stopping the world took longer than it stood still"),
        ({"stop_mark_term": FIRST.pause_mark_term + 1}, "stopping the world took longer than it stood still"),
        ({"gc_idle_time": FIRST.gc_total_time + 1}, "idle marking"),
        ({"swept": replace(SWEPT, t_done=FIRST.t_end - 1)}, "before marking ended"),
        ({"heap2": -1}, "Cycle.heap2 is -1"),
        ({"assist_ratio": -0.5}, "Cycle.assist_ratio is -0.5"),
    ],
)
def test_a_cycle_that_cannot_be(changes, message):
    with pytest.raises(Throw, match=message):
        replace(FIRST, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heap_in_use": SWEPT.heap_retained + 1}, "bytes of heap in use of"),
        ({"spans_swept": -1}, "Swept.spans_swept is -1"),
    ],
)
def test_a_sweep_that_cannot_be(changes, message):
    with pytest.raises(Throw, match=message):
        replace(SWEPT, **changes)


def test_what_follows_from_a_cycle():
    assert (FIRST.forced, replace(FIRST, kind="forced").forced) == (False, True)
    assert FIRST.pause_time == FIRST.pause_sweep_term + FIRST.pause_mark_term
    assert FIRST.scan_work == 1_023_000
    assert FIRST.gc_cpu_fraction == 1000 / 48_000
    assert replace(FIRST, total_time=0).gc_cpu_fraction == 0
    assert FIRST.with_swept(SWEPT).swept is SWEPT and FIRST.swept is None


def test_cons_mark_may_be_negative():
    assert replace(FIRST, cons_mark=-1.05).cons_mark == -1.05


def test_every_field_has_a_column_and_every_unit_its_suffix():
    plain = {column.removeprefix("swept_").removesuffix("_ps").removesuffix("_bytes") for column in COLUMNS}
    assert plain == {field.name for kind in (Cycle, Swept) for field in fields(kind)} - {"swept"}
    for name in ("t_mark_ps", "swept_t_done_ps", "assist_time_ps", "heap0_bytes", "runway_bytes", "swept_spans_swept"):
        assert name in COLUMNS
    assert all(column.endswith(("_ps", "_bytes")) for column in COLUMNS if "heap" in column or "time" in column)


def test_rows_read_back_the_same():
    run = cycles(5)
    assert [from_row(row) for row in rows(run)] == run
    assert all(not cell for cell, column in zip(list(rows(run))[-1], COLUMNS, strict=True) if column.startswith("swept_"))


@given(
    st.floats(0, 1e300),
    st.floats(-1e300, 1e300),
    st.floats(0, 1e-5),
    st.integers(0, (1 << 63) - 1),
    st.booleans(),
)
def test_rows_are_exact(ratio, cons_mark, per_byte, goal, reset):
    cycle = replace(FIRST, assist_ratio=ratio, cons_mark=cons_mark, heap_goal=goal, controller_reset=reset)
    cycle = cycle.with_swept(replace(SWEPT, pages_per_byte=per_byte, controller_reset=not reset))
    (row,) = rows([cycle])
    assert from_row(row) == cycle


@pytest.mark.parametrize("cell", ["", "x", "1.5", "-1", "1e3", "9" * 21, " 1", "1_0", "\u0661"])
def test_a_cell_that_is_no_integer(cell):
    (row,) = rows([FIRST])
    row[COLUMNS.index("heap0_bytes")] = cell
    with pytest.raises(ValueError, match="heap0_bytes is '.*', which is no int"):
        from_row(row)


@pytest.mark.parametrize("cell", ["", "nan", "inf", "1e9999", "1e999", "0x1p3", "1_0.5"])
def test_a_cell_that_is_no_float(cell):
    (row,) = rows([FIRST])
    row[COLUMNS.index("assist_ratio")] = cell
    with pytest.raises(ValueError, match="assist_ratio is '.*', which is no float"):
        from_row(row)


def test_rows_that_are_too_short_or_half_swept():
    (row,) = rows([FIRST.with_swept(SWEPT)])
    with pytest.raises(ValueError, match="cells, and there are"):
        from_row(row[:-1])
    row[-1] = ""
    with pytest.raises(ValueError, match="swept_controller_reset is '', which is no bool"):
        from_row(row)


def test_a_row_that_no_cycle_can_have():
    (row,) = rows([FIRST])
    row[COLUMNS.index("t_mark_ps")] = "0"
    with pytest.raises(Throw, match="phases begin out of order"):
        from_row(row)
