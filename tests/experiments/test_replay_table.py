"""The table of replays: what a row says, and what it says to bad input."""

import re

import pytest
from click.testing import CliRunner

from experiments.replay_table import HEAD, gogc_of, main, spread, table
from sim.jit import PLAIN
from tests.traces import trace_path

XBENCH = "xbench-json-P2-gogc_default"


def test_gogc_is_read_off_the_name():
    assert [gogc_of(f"a-P1-gogc_{name}.trace.xz") for name in ("off", "default", "50")] == [-1, 100, 50]
    assert gogc_of("my.trace") == 100


def test_errors_are_told_by_their_median_the_largest_and_how_many_are_small():
    assert spread([]) == "-"
    assert spread([0.01, -0.03, 0.051, -0.2]) == "4.05 %, 20.0 %; 2 of 4"


def test_rows_have_the_columns_of_the_head():
    lines = table([tuple("x" for _ in HEAD)]).splitlines()
    assert len(lines) == 3 and len({line.count("|") for line in lines}) == 1


@pytest.mark.skipif(PLAIN, reason="a whole trace, five times")
def test_a_trace_has_its_row_and_the_page_is_written(tmp_path):
    page = tmp_path / "page.md"
    result = CliRunner().invoke(main, [str(trace_path(XBENCH)), "-o", str(page)])
    assert result.exit_code == 0
    cells = [cell.strip() for cell in page.read_text().splitlines()[-1].strip("|").split("|")]
    assert cells[:2] == [XBENCH, "349 of 349"] and cells[5:7] == ["2", "2"]
    assert re.fullmatch(r"[\d.]+ %, [\d.]+ %; 3 of 3", cells[-1])


def test_what_cannot_be_read_is_one_line(tmp_path):
    result = CliRunner().invoke(main, [str(tmp_path / "none.trace")])
    (line,) = result.stderr.splitlines()
    assert result.exit_code == 2 and line.startswith(f"replay_table: {tmp_path / 'none.trace'}: ")


def test_a_page_that_cannot_be_written_is_one_line_before_any_work(tmp_path):
    result = CliRunner().invoke(main, [str(trace_path(XBENCH)), "-o", str(tmp_path / "nowhere" / "page.md")])
    assert result.exit_code == 2 and not result.stdout
    (line,) = result.stderr.splitlines()
    assert line.endswith("nowhere; make it first")
