"""Logs of real programs, and what collectors of logs, other writers and cut disks make of them."""

from pathlib import Path

import pytest

from workloads.gctrace_log import gctrace_part, parse_log, read_log

DATA = Path(__file__).parent.parent / "data" / "recorded"
LOGS = {"json-go1.27.3-P1": 22, "churn-go1.27.3-P1": 71, "json-go1.19.8-P1": 19, "grow-go1.19.8-P2": 43}
LINES = (DATA / "json-go1.27.3-P1.log").read_text().splitlines(keepends=True)


@pytest.mark.parametrize(("name", "cycles"), LOGS.items())
def test_every_line_of_real_logs_is_read(name, cycles):
    path = DATA / f"{name}.log"
    log = read_log(path)
    assert [line.number for line in log.lines] == list(range(1, cycles + 1))
    assert "".join(f"{line}\n" for line in log.lines) == path.read_text()
    assert (log.others, log.damaged) == (0, 0)


def test_other_output_in_between_and_before_is_left_out():
    mixed = [text for line in LINES for text in (f"2026-01-01T00:00:00Z app[1]: {line}", "serving gc 5 @ noon\n", "\n")]
    log = parse_log(mixed, "log")
    assert log.lines == parse_log(LINES, "log").lines
    assert (log.others, log.damaged) == (2 * len(LINES), 0)


@pytest.mark.parametrize("cut", [30, 60, len(LINES[-1]) - 6])
def test_a_last_line_that_was_cut_off_counts_as_damaged(cut):
    log = parse_log([*LINES[:-1], LINES[-1][:cut]], "log")
    assert (len(log.lines), log.damaged) == (len(LINES) - 1, 1)


def test_crlf_and_forced_cycles():
    log = parse_log([LINES[0].rstrip("\n") + " (forced)\r\n", "GC forced\r\n", LINES[1].rstrip("\n") + "\r\n"], "log")
    assert [line.forced for line in log.lines] == [True, False]


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["hello\n"], "log: no line of GODEBUG=gctrace=1"),
        (
            ["gc 1 @0.031s 0%: 0.011+0.21+0.008 ms clock, 0.1+0/0/0+0 ms cpu, 4->4->0 MB, 5 MB goal, 8 P\n"],
            "of Go 1.18 or later",
        ),
        ([LINES[0], LINES[1], LINES[0]], "log, line 3: cycle 1 after cycle 2: two programs wrote this log"),
    ],
)
def test_logs_that_cannot_be_used(lines, fault):
    with pytest.raises(ValueError, match="^log") as caught:
        parse_log(lines, "log")
    assert fault in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="cannot be read"):
        read_log(tmp_path / "nothing")


def test_words_that_end_in_gc_begin_no_line():
    assert gctrace_part("argc 1 @0.002s 3%: x") is None
    assert gctrace_part("x gc 1 @0.002s 3%: y\n") == "gc 1 @0.002s 3%: y"
