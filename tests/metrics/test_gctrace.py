"""Trace lines, byte for byte against those of the real runtime that printed the numbers behind them too."""

import json
import lzma
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.metrics.gctrace import (
    GC_FORCED,
    gctrace_line,
    pacer_end_line,
    pacer_start_line,
    parse_gctrace,
    scav_line,
    sweep_done_line,
    sweep_scav_line,
    trace_lines,
)
from sim.units import MIB, NS
from tests.metrics.cycle_records import FIRST, SWEPT, cycles

DATA = Path(__file__).parent.parent / "data"
RECORDED = json.loads(lzma.decompress((DATA / "gctrace.json.xz").read_bytes()))
VERSIONS = ("go1.19", "go1.27")


def number(text):
    if text.startswith("0x"):
        return struct.unpack("<d", struct.pack("<Q", int(text, 16)))[0]
    return {"true": True, "false": False}[text] if text in ("true", "false") else int(text)


def records(version, kind):
    """The recorded lines of a kind, each with the numbers behind it."""
    for line, raw in RECORDED[version]:
        if raw.startswith(kind + " "):
            yield line, {key: number(text) for key, text in re.findall(r"(\w+)= ?(\S+)", raw)}


def gc_cycle(raw):
    """The cycle of a recorded gctrace line. Its clock began at ``start``."""
    times = {name: (raw[name] - raw["start"]) * NS for name in ("t_sweep_term", "t_mark", "t_mark_term", "t_end")}
    cpu = {f"{name}_time": raw[name] * NS for name in ("assist", "dedicated", "fractional", "idle")}
    cpu |= {f"{name}_time": raw[name] * NS for name in ("gc_total", "gc_idle", "total")}
    sizes = {name: raw[name] for name in ("heap0", "heap1", "heap2", "procs", "stw_procs", "number")}
    return replace(
        FIRST,
        **times,
        **cpu,
        **sizes,
        kind="forced" if raw["forced"] else "heap",
        pause_sweep_term=raw["pause"] * NS,
        pause_mark_term=0,
        stop_sweep_term=0,
        stop_mark_term=0,
        heap_goal=raw["goal"],
        stack_scan=raw["stack"],
        max_stack_scan=raw["stack"],
        globals_scan=raw["globals"],
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_gctrace_lines_are_the_recorded_ones(version):
    found = list(records(version, "gc"))
    assert len(found) > 50 and any(raw["forced"] for _, raw in found)
    for line, raw in found:
        assert gctrace_line(gc_cycle(raw), version) == line


@pytest.mark.parametrize("version", VERSIONS)
def test_pacer_lines_at_the_start_are_the_recorded_ones(version):
    found = list(records(version, "start"))
    assert len(found) > 50
    for line, raw in found:
        cycle = replace(
            FIRST,
            assist_ratio=raw["ratio"],
            heap_scan=raw["scan"],
            heap0=raw["heap0"],
            heap_goal_start=raw["goal"],
            dedicated_workers=raw["dedicated"],
            fractional_goal=raw["fractional"],
        )
        assert pacer_start_line(cycle, version) == line


@pytest.mark.parametrize("version", VERSIONS)
def test_pacer_lines_at_the_end_are_the_recorded_ones(version):
    found = list(records(version, "end"))
    assert len(found) > 50 and (version == "go1.27" or any(raw["cons_mark"] < 0 for _, raw in found))
    for line, raw in found:
        start, now = raw["start"] * NS, raw["now"] * NS
        cycle = replace(
            FIRST,
            t_sweep_term=start,
            t_mark=now,
            t_mark_term=now,
            t_end=now + FIRST.t_end,
            assist_time=raw["assist"] * NS,
            procs=raw["procs"],
            stw_procs=1,
            heap_scan_work=raw["heap_work"],
            stack_scan_work=raw["stack_work"],
            globals_scan_work=raw["globals_work"],
            expected_scan_work=raw["expected_heap"] + raw["expected_stack"] + raw["globals"],
            triggered=raw["triggered"],
            heap1=raw["live"],
            heap_goal=raw["goal"],
            cons_mark=raw["cons_mark"],
            controller_reset=raw["reset"],
        )
        assert pacer_end_line(cycle, version) == line


def test_sweep_done_lines_are_the_recorded_ones():
    found = list(records("go1.27", "sweep"))
    assert len(found) > 50
    for line, raw in found:
        swept = replace(
            SWEPT,
            heap_live=raw["live"],
            heap_live_basis=raw["basis"],
            pages_swept=raw["pages"],
            pages_per_byte=raw["ratio"],
        )
        assert sweep_done_line(replace(FIRST, swept=swept), "go1.27") == line


def test_the_older_runtime_never_says_that_a_sweep_is_done():
    assert not list(records("go1.19", "sweep"))
    assert sweep_done_line(FIRST.with_swept(SWEPT), "go1.19") is None


@pytest.mark.parametrize("version", VERSIONS)
def test_scavenger_lines_are_the_recorded_ones(version):
    found = list(records(version, "scav"))
    assert len(found) > 50 and any(raw["forced"] for _, raw in found)
    for line, raw in found:
        sizes = [raw[name] for name in ("released_bg", "released_eager", "heap_released", "heap_in_use", "retained")]
        assert scav_line(*sizes, version, forced=raw["forced"], controller_reset=raw["reset"]) == line
        if not raw["forced"]:
            swept = replace(
                SWEPT, **dict(zip(("released_bg", "released_eager", "heap_released"), sizes, strict=False))
            )
            swept = replace(swept, heap_in_use=sizes[3], heap_retained=sizes[4], controller_reset=raw["reset"])
            assert sweep_scav_line(FIRST.with_swept(swept), version) == line


@pytest.mark.parametrize("version", VERSIONS)
def test_the_line_of_a_periodic_cycle_is_the_recorded_one(version):
    assert sum(line == GC_FORCED and not raw for line, raw in RECORDED[version]) >= 4


def test_marks_of_a_controller_that_failed():
    """From the source: it never did in the recordings."""
    cycle = replace(FIRST, controller_reset=True)
    assert pacer_end_line(cycle, "go1.19").endswith(")[controller reset]")
    assert pacer_end_line(cycle, "go1.27").endswith("cons/mark 0.5)")
    assert scav_line(0, 0, 0, 1, 1, "go1.27", controller_reset=True).endswith("100% util [controller reset]")


def test_a_heap_that_did_not_grow_has_no_line_at_the_end():
    assert pacer_end_line(replace(FIRST, triggered=FIRST.heap1), "go1.27") is None


def test_a_live_heap_below_its_basis_wraps_as_unsigned():
    swept = replace(SWEPT, heap_live=3 * MIB, heap_live_basis=4 * MIB)
    assert "allocated 17592186044415MB during" in sweep_done_line(replace(FIRST, swept=swept), "go1.27")


# Each number of a line comes from its place


@pytest.mark.parametrize(
    ("field", "line", "lines"),
    [
        ("assist_time", gctrace_line, VERSIONS),
        ("dedicated_time", gctrace_line, VERSIONS),
        ("idle_time", gctrace_line, VERSIONS),
        ("heap2", gctrace_line, VERSIONS),
        ("stack_scan", gctrace_line, ["go1.27"]),
        ("max_stack_scan", gctrace_line, ["go1.19"]),
        ("globals_scan", gctrace_line, VERSIONS),
        ("gc_idle_time", gctrace_line, VERSIONS),
        ("heap_goal_start", pacer_start_line, VERSIONS),
        ("heap_goal", pacer_end_line, VERSIONS),
    ],
)
def test_a_number_that_changes_shows_in_its_line(field, line, lines):
    changed = replace(FIRST, **{field: getattr(FIRST, field) * 11})
    for version in VERSIONS:
        assert (line(FIRST, version) != line(changed, version)) == (version in lines)


def test_versions_that_have_no_known_lines():
    for line in (gctrace_line, pacer_start_line, pacer_end_line, sweep_done_line):
        with pytest.raises(ValueError, match="'go1.28' is no version with known lines; one of go1.14, go1.19, go1.27 is"):
            line(FIRST, "go1.28")
        assert line(FIRST, "go1.14") == line(FIRST, "go1.19")


def test_lines_of_a_run_in_their_order():
    run = cycles(4)
    expected = []
    for cycle in run:
        expected += [GC_FORCED] * (cycle.kind == "time")
        expected += [pacer_start_line(cycle, "go1.27"), pacer_end_line(cycle, "go1.27"), gctrace_line(cycle, "go1.27")]
        expected += [line for line in (sweep_done_line(cycle, "go1.27"), sweep_scav_line(cycle, "go1.27")) if line]
    assert list(trace_lines(run, "go1.27", pacer=True, scav=True)) == expected
    assert list(trace_lines(run, "go1.27")) == [line for line in expected if line[:2] in ("gc", "GC")]


# Reading


def real_lines():
    for version in VERSIONS:
        yield from (line for line, _ in RECORDED[version] if line.startswith("gc "))


def test_every_recorded_line_reads_and_writes_the_same():
    for line in real_lines():
        assert str(parse_gctrace(line + "\n")) == line


def test_what_is_read_is_what_was_behind_the_line():
    for version in VERSIONS:
        for line, raw in records(version, "gc"):
            read = parse_gctrace(line)
            assert (read.number, read.procs, read.forced, read.leaks) == (raw["number"], raw["procs"], raw["forced"], False)
            assert read.heap == tuple(raw[name] >> 20 for name in ("heap0", "heap1", "heap2"))
            assert (read.goal, read.stacks, read.globals) == tuple(raw[key] >> 20 for key in ("goal", "stack", "globals"))
            assert 0 <= raw["t_sweep_term"] - raw["start"] - read.start < 1_000_000
            mark = raw["t_mark_term"] - raw["t_mark"]
            assert read.clock[1] <= mark < read.clock[1] + max(1000, mark // 9 + 1)
            workers = raw["dedicated"] + raw["fractional"]
            for shown, exact in zip(read.cpu[1:4], (raw["assist"], workers, raw["idle"]), strict=True):
                assert shown <= exact < shown + max(1000, exact // 9 + 1)


OTHERS = """\
gc 1 @0.021s 12%: 0.012+3.2+0.010 ms clock, 0.012+3.1/0/0+0.010 ms cpu, 3->3->3 MB, 4 MB goal, 0 MB stacks, 1 MB globals, 1 P
gc 1 @0.033s 0%: 0.008+0.35+0.005 ms clock, 0.008+0/0.065/0.27+0.005 ms cpu, 4->4->2 MB, 8532210231537 MB goal, \
0 MB stacks, 0 MB globals, 1 P (forced)
gc 7 @1.500s 3% (checking for goroutine leaks): 0.10+0.35+0.005 ms clock, 0.008+0/0.065/0.27+0.005 ms cpu, 4->4->2 MB, \
5 MB goal, 0 MB stacks, 0 MB globals, 1 P (forced)
"""


@pytest.mark.parametrize("line", OTHERS.splitlines())
def test_lines_of_other_programs(line):
    """Of go1.27 programs; the last as its source has it."""
    read = parse_gctrace(line)
    assert str(read) == line
    assert read.leaks == ("leaks" in line)


@pytest.mark.parametrize(
    "line",
    ["", "GC forced", "gc", "scav 0 KiB work, 616 KiB total, 100% util", "x" * 10_000, "gc 1 @0.0021s 12%: "]
    + ["gc 1 @0.021s 12%: 0.012+3.2+0.010 ms clock, 0.012+3.1/0/0+0.010 ms cpu, 3->3->3 MB, 4 MB goal, 1 P"],  # go1.17
)
def test_a_line_that_is_none(line):
    with pytest.raises(ValueError, match="is no gctrace line of Go 1.18 or later; one begins like 'gc 1 @") as caught:
        parse_gctrace(line)
    assert len(str(caught.value)) < 220 and "\n" not in str(caught.value)


@given(st.sampled_from(sorted(real_lines())), st.data())
def test_damaged_lines_are_refused_or_read_as_they_stand(line, data):
    at = data.draw(st.integers(0, len(line) - 1))
    damaged = line[:at] + data.draw(st.text(max_size=2)) + line[at + data.draw(st.integers(0, 3)) :]
    try:
        read = parse_gctrace(damaged)
    except ValueError as error:
        assert "is no gctrace line" in str(error)
    else:
        # the runtime would never print some of what can be read (10.17 ms): once printed it stays as it is
        assert str(parse_gctrace(str(read))) == str(read) or read.start >= 10**15
