"""What a person reads: every figure is the summary's, every line fits, nothing depends on colours or block characters."""

import io
import os
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.render import Look, look_of, render
from experiments.result import SHOWN_METRICS
from tests.experiments.reports import made_up, row
from tests.metrics.cycle_records import cycles

NS, US, MS = 1000, 1_000_000, 1_000_000_000
PLAIN = Look(unicode=False)


def lines(report, look=PLAIN):
    return render(report, look).splitlines()


def line(report, start, look=PLAIN):
    """The one line that begins so."""
    (found,) = (text for text in lines(report, look) if text.strip().startswith(start))
    return found.strip()


def test_the_headline_says_what_was_run():
    metrics = {
        "/sim/time:seconds": 0.4,
        "/sim/mallocs:objects": 1_206_300,
        "/sim/throughput:mallocs-per-second": 3_014_863.1,
        "/memory/classes/heap/objects:bytes": 3 << 20,
        "/memory/classes/total:bytes": 4 << 20,
    }
    report = made_up([(8 * NS, 8 * NS, 10)], metrics=metrics)
    first, runtime, figures, *_ = lines(report)
    assert first == "made-up: Nothing in particular"
    assert runtime == "go1.27, 4 Ps on 4 CPUs, machine epyc-2core, seed 7"
    assert figures == "400ms simulated, 1,206,300 mallocs (3.01 M/s), heap 3.00MiB of 4.00MiB mapped"


def test_a_run_that_was_cut_short_says_so_at_the_top():
    assert "CUT SHORT" not in render(made_up([(8 * NS, 8 * NS, 10)]), PLAIN)
    report = made_up([(8 * NS, 8 * NS, 10)], metrics={"/sim/time:seconds": 0.25}, cut_short=True)
    assert lines(report)[4] == "CUT SHORT after 250ms of 1s: this is what there was"
    report.summary["config"]["run"] = {"mallocs": 5_000}
    assert lines(report)[4] == "CUT SHORT after 250ms of 5,000 mallocs: this is what there was"


def test_a_row_for_each_cause_in_the_order_of_the_path():
    times = {"p50_ns": 8.391, "p99_ns": 95.935, "p99.9_ns": 2371.583, "p99.99_ns": 8617.983, "max_ns": 121653.59}
    latency = {
        "all": row(1_206_300, 25.3711, **times),
        "fast": row(1_183_407, 9.085, 0.3513),
        "grow": row(40, 11325.32, 0.0148),
        "zero": row(3, 1.0, 0.0001),
    }
    report = made_up([(8 * NS, 8 * NS, 1_206_300)], latency)
    table = lines(report)[5:10]
    assert table[0].split() == [
        "malloc",
        "by",
        "cause",
        "calls",
        "of",
        "time",
        *["mean", "p50", "p99", "p99.9", "p99.99", "max"],
    ]
    assert table[1].split() == [
        "all",
        "1,206,300",
        "100.0",
        "%",
        "25.4ns",
        "8.39ns",
        "95.9ns",
        "2.37us",
        "8.62us",
        "122us",
    ]
    assert table[2].split()[:5] == ["fast", "path", "1,183,407", "35.1", "%"]
    assert [text.strip().split("  ")[0] for text in table[1:]] == ["all", "fast path", "heap growth", "zeroing"]
    assert "<0.1 %" in table[4]


def test_bars_are_as_long_as_the_shares():
    latency = {"all": row(8), "fast": row(8, share=0.5), "grow": row(1, share=0.25), "zero": row(1, share=1e-9)}
    report = made_up([(8 * NS, 8 * NS, 8)], latency)
    for look, character in ((PLAIN, "#"), (Look(), "█")):
        half, quarter = (line(report, start, look).count(character) for start in ("fast path", "heap growth"))
        assert half == 2 * quarter == 6
    assert line(report, "zeroing").count("#") == 1


def test_requests_have_their_own_rows():
    assert "requests" not in render(made_up([(8 * NS, 8 * NS, 10)]), PLAIN)
    queued = row(80, 12_066.9, 0.1099)
    report = made_up([(8 * NS, 8 * NS, 10)], response=row(80, 109_840.6), run_queue=queued)
    assert line(report, "response").split()[:5] == ["response", "80", "100.0", "%", "110us"]
    assert re.match(r"in run queue +80 +11.0 % #? +12.1us", line(report, "in run queue"))
    nothing = made_up([(8 * NS, 8 * NS, 10)], response=row(0, 0.0, 0.0), run_queue=row(0, 0.0, 0.0))
    assert line(nothing, "response").split() == ["response", "0", *"-" * 7]


def test_a_run_without_mallocs():
    text = render(made_up([]), PLAIN)
    assert "no malloc was made" in text and "malloc latency" not in text


# The histogram


def drawn(report, look=PLAIN):
    """The rows of the histogram without their margin, top first; the axis; the ticks."""
    text = lines(report, look)
    top = next(i for i, one in enumerate(text) if one.startswith("malloc latency")) + 1
    corner = next(i for i in range(top, len(text)) if text[i].strip()[0] in "+└")
    return [one[8:] for one in text[top:corner]], text[corner][7:], text[corner + 1][7:], text[corner + 2 :]


@pytest.mark.parametrize("power", range(3, 13))
def test_a_bar_stands_at_its_time(power):
    """Just above a power of ten the bar stands right of that power's tick, just below left of it."""
    names = {
        3: "1ns",
        4: "10ns",
        5: "100ns",
        6: "1us",
        7: "10us",
        8: "100us",
        9: "1ms",
        10: "10ms",
        11: "100ms",
        12: "1s",
    }
    above = int(10**power * 1.001)
    report = made_up([(100, 100, 1), (above, above, 1), (10**13, 10**13, 1)])
    rows, axis, ticks, _ = drawn(report)
    tick = re.search(rf"(?<!\d){names[power]}", ticks).start()
    assert axis[tick] == "+"
    assert [i for i, c in enumerate(rows[-1]) if c != " "][1] == tick
    below = int(10**power * 0.999)
    rows, *_ = drawn(made_up([(100, 100, 1), (below, below, 1), (10**13, 10**13, 1)]))
    assert [i for i, c in enumerate(rows[-1]) if c != " "][1] == tick - 1


def test_bars_are_as_high_as_the_logarithm_of_the_calls():
    report = made_up([(10 * NS, 10 * NS, 10_000), (1 * US, 1 * US, 100), (1 * MS, 1 * MS, 1)])
    rows, *_ = drawn(report, Look())
    heights = [sum(1 for one in rows if i < len(one) and one[i] == "█") for i in range(max(map(len, rows)))]
    high, half, none = [i for i in range(len(heights)) if any(i < len(one) and one[i] != " " for one in rows)]
    assert heights[high] == 2 * heights[half] == 8 and heights[none] == 0
    assert rows[-1][none] == "▁"
    labels = [text[:6].strip() for text in lines(report, Look()) if text[7:8] in ("┤", "│")]
    assert [label for label in labels if label] == ["10k", "1k", "100", "10", "1"]
    assert labels[-1] == "1" and len(labels) == 10


def test_percentiles_are_marked_at_their_times():
    times = {"p50_ns": 10.01, "p99_ns": 100.1, "p99.9_ns": 1001.0, "p99.99_ns": 1001.0, "max_ns": 1_000_000.0}
    report = made_up([(10 * NS, 10 * NS, 99), (1 * MS, 1 * MS, 1)], {"all": row(100, **times)})
    _, _, ticks, below = drawn(report)
    for mark, tick in (("^p50", "10ns"), ("^p99", "100ns"), ("^p99.9", "1us"), ("^p99.99", "1us")):
        pattern = re.escape(mark) + r"(?![.\d])"
        (found,) = (m.start() for one in below for m in [re.search(pattern, one)] if m)
        assert found - 7 == ticks.index(tick) + 1  # one right of the tick: the first column above it


# Time and memory


def test_the_time_of_the_ps_adds_up():
    spent = {
        "malloc": 0.25, "lock": 0.17, "assist": 0.1, "gc-dedicated": 0.2, "gc-fractional": 0.06, "gc-idle": 0.01,
        "stopped": 0.04, "system": 0.02, "compute": 1.5, "first-touch-by-program": 0.25, "idle": 1.0,
    }  # fmt: skip
    metrics = {f"/sim/time/{kind}:cpu-seconds": seconds for kind, seconds in spent.items()}
    metrics |= {"/sim/time:seconds": 1.0, "/sim/locks/mheap/wait:seconds": 0.125}
    report = made_up([(500 * NS, 500 * NS, 1_000_000)], {"all": row(1_000_000, 500.0)}, metrics)
    look = Look(width=80, unicode=False)  # blocks below each other
    assert line(report, "where the time of 4 Ps went", look).split()[-1] == "4.00s"
    shares = {
        "malloc": "420ms 10.5 %",
        "of it waiting": "125ms 3.1 %",
        "mark assists": "100ms 2.5 %",
        "mark workers": "260ms 6.5 %",
        "marking on idle Ps": "10.0ms 0.2 %",
        "world stopped": "40.0ms 1.0 %",
        "the runtime's goroutines": "20.0ms 0.5 %",
        "compute": "1.50s 37.5 %",
        "idle": "1.00s 25.0 %",
    }
    shares |= {"first touches by the program": "250ms 6.2 %", "scheduling": "400ms 10.0 %"}
    text = "\n".join(lines(report, look)).partition("where the time")[2]
    for name, figures in shares.items():
        (found,) = re.findall(rf"^ *{name}.*$", text, re.MULTILINE)
        assert " ".join(found.rstrip(" #").split()).endswith(figures), found
    assert "waiting for a CPU" not in text


def test_the_collector_has_a_line():
    assert line(made_up([]), "GOGC") == "GOGC 100, 0 cycles, heap peak 0B"
    metrics = {
        "/gc/cycles/total:gc-cycles": 12,
        "/gc/pauses:seconds/p50": 8.2e-6,
        "/gc/pauses:seconds/max": 21e-6,
        "/sim/gc/cpu:share": 0.031,
        "/sim/gc/assists:share": 0.0002,
        "/sim/heap/peak:bytes": 31 << 20,
    }
    report = made_up([], metrics=metrics)
    report.summary["config"]["runtime"] = {"version": "go1.27", "gogc": "off", "memory_limit": "1GiB"}
    assert line(report, "GOGC") == (
        "GOGC off, limit 1GiB, 12 cycles, pauses 8.20us p50, 21.0us max, 3.1 % of CPU (<0.1 % assists), heap"
    )
    assert "peak 31.0MiB" in lines(report)


def test_the_memory_adds_up():
    parts = {"objects": 600, "unused": 100, "free": 0, "released": 200, "stacks": 20}
    metrics = {f"/memory/classes/heap/{name}:bytes": size << 20 for name, size in parts.items()}
    metrics |= {"/memory/classes/total:bytes": 1000 << 20, "/sim/live:bytes": 300 << 20}
    report = made_up([(8 * NS, 8 * NS, 10)], metrics=metrics)
    look = Look(width=80, unicode=False)
    text = "\n".join(lines(report, look)).partition("memory at the end")[2]
    found = dict(re.findall(r"^ *(\S.*?)  +\S+iB +([\d.]+) %$", text, re.MULTILINE))
    assert found.pop("of them live") == "30.0"
    assert found == {
        "objects, dead ones too": "60.0",
        "unused in spans": "10.0",
        "never used, or given back": "20.0",
        "stacks": "2.0",
        "the runtime's own": "8.0",
    }


def test_assumed_prices_are_the_last_line():
    assert lines(made_up([]))[-1] == "assumed, not measured: 2 lock steps, steal"
    assert lines(made_up([], assumed_prices={}))[-1] == "every price was measured"


# Terminals


def plain(text):
    return re.sub(r"\x1b\[[\d;]*m", "", text)


def big():
    """A report with the widest figures there are."""
    latency = {cause: row(10**7, 123_456_789.0, 0.999) for cause in ("all", "refill_partial", "heap_wait")}
    metrics = {name: 123_456 if "seconds" in name else 1023 << 40 for name in SHOWN_METRICS}
    metrics |= {"/sched/gomaxprocs:threads": 1024, "/sim/time:seconds": 120.5}  # together as long as all else
    malloc = [(1 * NS, 1 * NS, 10**7 - 1), (999 * MS, 999 * MS, 1)]
    report = made_up(malloc, latency, metrics, response=row(10**7), run_queue=row(9))
    report.summary["config"]["purpose"] = "word " * 60
    report.summary["assumed_prices"] = {f"a_price_{i}": "so" for i in range(30)}
    return report


@pytest.mark.parametrize("unicode", [True, False])
@pytest.mark.parametrize("width", range(80, 101))
def test_every_line_fits(width, unicode):
    found = lines(big(), Look(width, unicode))
    assert max(map(len, found)) <= width
    assert all(text == text.rstrip() for text in found)


def test_ascii_is_enough():
    assert render(big(), PLAIN).isascii()
    assert not render(big(), Look()).isascii()


def test_colours_tell_nothing_by_themselves():
    coloured = render(big(), Look(colour=True))
    assert "\x1b[" in coloured
    without = "\n".join(one.rstrip() for one in plain(coloured).splitlines())
    assert without == render(big(), Look())
    assert "\x1b" not in render(big(), Look())


def test_names_cannot_command_the_terminal():
    report = made_up([(8 * NS, 8 * NS, 10)], {"all": row(10), "\x1b[31m": row(1)}, scenario="a\nb\x1b[2J")
    report.summary["assumed_prices"] = {"\x07": "so"}
    assert "\x1b" not in render(report, PLAIN) and "\x07" not in render(report, PLAIN)
    assert lines(report)[0] == "a\\nb\\x1b[2J: Nothing in particular"


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


def test_a_terminal_is_asked_what_it_can_do(monkeypatch):
    for name in ("NO_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback: os.terminal_size((93, 24)))
    assert look_of(io.TextIOWrapper(io.BytesIO(), "utf-8")) == Look(100, True, False)
    assert look_of(Terminal(io.BytesIO(), "utf-8")) == Look(93, True, True)
    assert look_of(Terminal(io.BytesIO(), "latin-1")) == Look(93, False, True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert look_of(Terminal(io.BytesIO(), "ascii")) == Look(93, False, False)
    monkeypatch.setattr("shutil.get_terminal_size", lambda fallback: os.terminal_size((20, 24)))
    assert look_of(Terminal(io.BytesIO(), "utf-8")) == Look(80, True, False)


@given(
    st.lists(
        st.tuples(st.integers(0, 1 << 62), st.integers(1, 1 << 50)), min_size=1, max_size=20, unique_by=lambda x: x[0]
    )
)
def test_any_histogram_can_be_drawn(values):
    malloc = [(value, value, count) for value, count in sorted(values)]
    text = lines(made_up(malloc, {"all": row(sum(count for _, count in values), malloc[0][0] / NS)}))
    assert max(map(len, text)) <= 100


# Collections


def cycle_block(cycles, look=PLAIN):
    """The lines about collections."""
    (block,) = [part for part in render(made_up([], cycles=tuple(cycles)), look).split("\n\n") if "collection" in part]
    return block.splitlines()


def test_collections_are_summed_up_and_shown():
    run = cycles(4)
    head, columns, *shown = cycle_block(run)
    assert head == "4 collections (1 forced), paused for 472us, at most 118us in one"
    cells = [re.split(r"  +", row.strip()) for row in shown]
    assert re.split(r"  +", columns.strip())[2:6] == ["at", "paused", "mark", "heap"]
    expected = ["3", "forced", "30.0ms", "118us", "1.95ms", "6.00MiB", "5.00MiB", "3.00MiB", "6.00MiB", "300us", "2 %"]
    assert cells[2] == expected
    assert [row[:2] for row in cells] == [["1", "heap"], ["2", "heap"], ["3", "forced"], ["4", "time"]]


def test_of_many_collections_the_first_and_the_last_are_shown():
    _, _, *shown = cycle_block(cycles(50))
    assert [row.split()[0] for row in shown] == [*"123456", "38", *map(str, range(45, 51))]
    assert shown[6].strip() == "38 more"
    assert [row.split()[0] for row in cycle_block(cycles(12))[2:]] == [str(i) for i in range(1, 13)]


def test_a_goal_that_is_none():
    assert cycle_block([replace(cycles(1)[0], heap_goal=(1 << 63) - (1 << 58))])[-1].split()[8] == "none"


def test_no_collection_no_word_of_it():
    assert "collection" not in render(made_up([]), PLAIN)


@pytest.mark.parametrize("width", [80, 96, 100, 150])
def test_collections_fit_the_terminal(width):
    """Also with numbers as wide as they get."""
    run = [
        replace(cycle, number=cycle.number + 99_990, heap0=1023 << 40, heap_goal=1023 << 40, heap1=1023 << 30, kind="forced")
        for cycle in cycles(20)
    ]
    for colour in (False, True):
        lines = [plain(text) for text in cycle_block(run, Look(width=width, colour=colour))]
        assert max(map(len, lines)) <= width
