"""Calibration: from what the programs print to a machine file, what does not hold together, and the programs for real.

tests/data/calibrate.json.xz is what the processes of a quick calibration printed on a busy two-CPU guest, three of
each: go1.19.8 and go1.27.3, rows cut to five digits. Marking, locks and mallocs by the size of the heap were recorded
on another day than the rest, and globals on a third.
"""

import json
import lzma
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
from click.testing import CliRunner

from experiments import calibrate as work
from experiments import calibrate_host as host
from experiments.calibrate_check import problems
from experiments.calibrate_file import About, write
from experiments.calibrate_objects import SMALL
from experiments.calibrate_plan import Effort, Run, runs, system_runs
from experiments.calibrate_tables import MACHINE, SPECS, Measurements, reading, rounded
from experiments.cli_measure import calibrate
from experiments.errors import InputError
from experiments.machine import derive, slots
from experiments.machine_file import ASSUMABLE, LOCK_STEPS, OPTIONAL, SELDOM, TABLES, parse_machine, read_machine
from experiments.toolchain import NoGo, toolchains
from sim.go.params import VERSIONS

ROOT = Path(__file__).parent.parent.parent
RECORDED = json.loads(lzma.decompress((ROOT / "tests" / "data" / "calibrate.json.xz").read_bytes()))
VERSIONS_RECORDED = ("go1.19", "go1.27")
TINY = Effort(1, 1, 2, 16, 2, 2, 32, 20, 1)
OWN_STEPS = {"profile_sample", "mark_stack"}


def recorded():
    """What was recorded, gathered."""
    found = Measurements()
    for one in RECORDED:
        run = Run(**{name: tuple(value) if isinstance(value, list) else value for name, value in one["run"].items()})
        found.add(one["version"], run, one["stdout"], one["stderr"])
    return found


def printed(version, mode, table, *key):
    """The values of a row, as each process printed them."""
    lines = [json.loads(line) for one in RECORDED for line in one["stdout"].splitlines() if one["version"] == version]
    return [line["values"] for line in lines if line["table"] == table and line["key"] == list(key)]


def about(**changes):
    facts = About(
        name="guest",
        date="2026-11-29",
        description="a guest",
        cpus=2,
        wide_vectors=False,
        huge_pages="madvise",
        timer="RDTSCP",
        timer_step_ns=0.769,
        loop_mib=64,
        caveats=['a "caveat"'],
        checks={name: 0.5 for name in host.LIMITS},
        toolchains={version: f"Go {version}" for version in VERSIONS_RECORDED},
    )
    return replace(facts, **changes)


@pytest.fixture(scope="module")
def base():
    return read_machine("epyc-2core")


@pytest.fixture(scope="module")
def text(base):
    return write(about(), recorded(), base)


@pytest.fixture(scope="module")
def machine(text):
    return parse_machine(text, "guest")


# --- the file ------------------------------------------------------------------------------------------------------


def test_a_recorded_calibration_holds_together_and_prices_every_version(text, machine):
    assert problems(text, "guest") == []
    for version in ("go1.14", *VERSIONS_RECORDED):
        prices = derive(machine, version)
        assert (prices.machine, prices.version, prices.cpus) == ("guest", version, 2)
    for tables in machine.tables.values():
        assert {*TABLES, *OPTIONAL} - set(SELDOM) <= set(tables)


@pytest.mark.parametrize("version", VERSIONS_RECORDED)
def test_cells_are_median_least_and_most_of_what_processes_printed(machine, version):
    rows = {
        ("loop", 64, "scan"): ("warm_loop", machine.tables[version]["loop"]),
        ("refill", "cold", "n2048", "page cache"): ("p50", machine.tables[version]["refill"]),
        ("stack_growth", 17): ("p90", machine.tables[version]["stack_growth"]),
        ("warm", 1024, "noscan", 4): ("loop", machine.tables[version]["warm"]),
        ("hit", 64, "scan", 32, 1): ("p90", machine.tables[version]["hit"]),
    }
    for (name, *key), (column, table) in rows.items():
        values = [row[column] for row in printed(version, None, name, *key)]
        assert len(values) >= 3
        cell = table.row(*key)[column]
        expected = [median(values), min(values), max(values)]
        assert [float(one) for one in (cell.median, cell.low, cell.high)] == pytest.approx(expected, rel=1e-3, abs=6e-4)


def test_marking_is_what_gctrace_says(machine):
    """By hand, from the lines: workers' CPU time by objects, and the two pauses."""
    processes = [
        one
        for one in RECORDED
        if one["version"] == "go1.27"
        and one["run"]["arguments"][:3] == ["mark", "-shape=list64", "-mib=64"]
        and one["run"]["procs"] == 1
    ]
    assert len(processes) == 3
    cpu, pauses = [], []
    for line in (line for one in processes for line in one["stderr"].splitlines()[-one["run"]["traced"] :]):
        clock, spent = line.split(": ")[1].split(" ms clock, ")
        first, _, last = map(float, clock.split("+"))
        workers = spent.split(" ms cpu")[0].split("+")[1]
        cpu.append(sum(map(float, workers.split("/"))))
        pauses.append(1000 * (first + last))
    row = machine.tables["go1.27"]["mark"].row("list64", 64, 1)
    objects = 64 * (1 << 20) / 64
    assert float(row["per_object"].median) == pytest.approx(1e6 * median(cpu) / objects, rel=1e-3)
    assert float(row["pauses"].median) == pytest.approx(median(pauses), rel=1e-3)


@pytest.mark.parametrize("version", VERSIONS_RECORDED)
def test_a_byte_of_globals_costs_what_they_added_to_a_collection(machine, text, version):
    more, less = (printed(version, None, "globals", which) for which in ("with", "without"))
    took = [median(one["gc"] for one in rows) for rows in (more, less)]
    nbytes = more[0]["bytes"]
    assert derive(machine, version).globals_byte == pytest.approx(1e6 * (took[0] - took[1]) / nbytes, rel=2e-3)
    assert 7 << 20 < nbytes <= 8 << 20 and len(more) == len(less) == 3


def test_a_file_without_globals_prices_them_as_before(base):
    """As large objects: `sim.costs.Prices.globals_byte`."""
    found = recorded()
    for version in VERSIONS_RECORDED:
        del found.tables[version, "globals"]
    lines, start = write(about(), found, base).splitlines(), None
    for version in VERSIONS_RECORDED:
        start = lines.index(f'["{version}".globals]')
        del lines[start : lines.index("]", start) + 1]
    assert derive(parse_machine("\n".join(lines), "guest"), "go1.27").globals_byte is None
    assert derive(base, "go1.27").globals_byte is None


def test_measured_prices_are_not_assumed_and_every_price_has_one_place(machine, base):
    shootdown = {"tlb_shootdown"} & set(recorded().singles(MACHINE, "steps"))  # only where the other thread ran enough
    steps = {"read_touch", "copy_touch", "madvise", "madvise_page", "os_switch", "preempt_signal", "wake_p"} | shootdown | OWN_STEPS
    steps |= {"touch_5us", "touch_20us", "touch_100us"}
    lock = set(LOCK_STEPS) - {"handoff"}
    for version in VERSIONS_RECORDED:
        prices = derive(machine, version)
        expected = (set(ASSUMABLE) - steps) | {"lock.handoff", "switch", "stack_span"}
        assert set(prices.assumed) == expected
        for name in lock:
            values = recorded().singles(MACHINE, "lock")[name]
            assert getattr(prices.lock, name) == pytest.approx(1000 * median(values), rel=1e-3), name
        for name in OWN_STEPS:
            assert prices.steps[name].mean == pytest.approx(
                1000 * median(recorded().singles(version, "steps")[name]), rel=1e-3
            )
        assert prices.steps["steal"].mean == 1000 * base.steps["steal"].ns
        assert prices.assumed["steal"] == f"as for epyc-2core: {base.steps['steal'].reason}"


def test_what_came_out_as_nothing_stays_assumed(base):
    found = recorded()
    found.tables[MACHINE, "steps"]["madvise",]["ns"] = [-3.0, 1.0, -2.0]
    found.tables["go1.19", "steps"]["mark_stack",]["ns"] = [-3.0]  # a step is measured with each version, or with none
    assumed = derive(parse_machine(write(about(), found, base), "guest"), "go1.27").assumed
    assert {"madvise", "mark_stack"} <= set(assumed) and "profile_sample" not in assumed


def test_the_kinds_of_fault_are_those_that_the_heap_shows(machine, base):
    assert machine.small_fault == ("go heap first touch", "go1.27")
    assert machine.huge_fault == ("go heap first touch", "go1.19")
    found = recorded()
    for key in [key for key in found.tables[MACHINE, "first_touch"] if key[1] == "go1.19"]:
        del found.tables[MACHINE, "first_touch"][key]
    alone = parse_machine(write(about(toolchains={"go1.27": "Go"}), found, base), "guest")
    assert alone.small_fault == ("go heap first touch", "go1.27")
    assert alone.huge_fault == ("mmap first touch, huge pages advised", "go1.27")
    assert alone.alias == {} and derive(alone, "go1.27").steps["huge_touch"].mean > 0
    with pytest.raises(InputError, match=r"^guest: no prices for go1.14; it has go1.27$"):
        derive(alone, "go1.14")


def test_numbers_have_four_digits():
    assert [rounded(number) for number in (123456.0, 12.3456, 0.12345, 1e-9, 7.0)] == [123500, 12.35, 0.123, 0, 7]
    assert reading([3.0, 1.0, 2.0, 10.0]) == [2.5, 1, 10]


def test_what_is_no_row_is_refused():
    run = Run(("lock",), ("lock",))
    with pytest.raises(InputError, match=r"^calibrate lock printed 'hello', which is no row$"):
        Measurements().add("go1.27", run, "hello\n", "")
    marked = Run(("mark", "-shape=list64"), ("mark",), traced=2)
    row = json.dumps({"table": "mark", "key": ["list64", 64, 1], "values": {"objects": 1}})
    with pytest.raises(InputError, match=r"^calibrate mark -shape=list64: 1 of 2 gctrace lines came$"):
        Measurements().add("go1.27", marked, row, "gc 1 @0.")
    with pytest.raises(InputError, match=r"^calibrate mark -shape=list64: 'gc 1 @0.' is no gctrace line"):
        Measurements().add("go1.27", marked, row, "gc 1 @0.\ngc 1 @0.")


# --- what does not hold together -----------------------------------------------------------------------------------


def change(found, version, table, key, **columns):
    found.tables[version, table][key].update({name: 3 * [value] for name, value in columns.items()})


BROKEN = [
    ("refill", ("cold", "n2048", "page cache refill"), {"p50": 1.0, "p90": 1.0}, False, "page cache refill (1 ns) is no longer than"),
    ("refill", ("warm", "n2048", "4 MiB chunk"), {"p50": 1.0}, False, "warm, n2048, 4 MiB chunk (1 ns) is no longer than"),
    ("refill", ("cold", "n2048", "64 MiB arena"), {"mean": 2.0}, False, "cold, n2048, 64 MiB arena (2 ns) is no longer than"),
    ("refill", ("partial", "p64", "partial swept"), {"p50": 0.0}, False, "partial, p64, partial swept (0 ns) is no longer"),
    ("sweep", ("n64", "none"), {"p50": 1.0}, False, "n64, none (1 ns) is no longer than n64, all"),
    ("stack_growth", (5,), {"p50": 1.0}, False, "5 (1 ns) is no longer than 2 ("),
    ("mark", ("objs64shuf", 32, 1), {"per_object": 900.0}, False, "objs64shuf on 1 Ps in 64 MiB ("),
    ("mark", ("objs2048", 64, 2), {"per_object": 700.0}, False, "objs2048 in 64 MiB on 2 Ps (700 ns) is hardly longer than objs1024 ("),
    ("loop", (64, "scan"), {"warm_loop": 1.0}, False, "64 B scan: the cold loop leaves a fast path ("),
    ("loop", (64, "noscan"), {"cold_loop": 0.5}, False, "64 B noscan: the refills of the cold loop take longer than all of it"),
    ("globals", ("with",), {"gc": 1.0}, True, "a collection takes no longer with globals than without"),
    ("spawn", ("spawn+run+exit",), {"mean": 1.0}, True, "go1.27.spawn: spawn+run+exit is less than a reused g"),
    ("goroutine", ("reused",), {"mean": 1.0}, True, "go1.27.goroutine: mean 1000 ps is below"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "key", "columns", "fatal", "what"), BROKEN)
def test_contradictions_are_found_and_their_table_named(base, table, key, columns, fatal, what):
    found = recorded()
    change(found, "go1.27", table, key, **columns)
    wrong = problems(write(about(), found, base), "guest")
    assert {(one.version, one.table) for one in wrong} == {("go1.27", table)}
    assert any(what in one.what and one.fatal == fatal for one in wrong), wrong


def test_a_missing_row_and_a_bad_first_touch_are_about_their_tables(base):
    found = recorded()
    del found.tables["go1.19", "refill"]["cold", "n2048", "64 MiB arena"]
    (one,) = problems(write(about(), found, base), "guest")
    assert (one.version, one.table, one.fatal) == ("go1.19", "refill", True)
    found = recorded()
    change(found, MACHINE, "first_touch", ("go heap first touch", "go1.27"), mean=300.0)
    assert {(one.version, one.table, one.fatal) for one in problems(write(about(), found, base), "guest")} == {
        (MACHINE, "first_touch", True)
    }


@pytest.mark.parametrize("version", VERSIONS_RECORDED)
def test_large_objects_whose_line_leaves_nothing_for_the_object_itself(base, version):
    """64 KiB for nothing and 1 MiB for much: the price per object is none, not less."""
    found = recorded()
    for kind in ("scan", "noscan"):
        change(found, version, "large", ("cold", 65536, kind), p10=1.0, p50=1.0, p90=1.0, p99=1.0, max=1.0)
    change(found, version, "loop", (32768, "noscan"), cold_p50=0.0)
    assert derive(parse_machine(write(about(), found, base), "guest"), version).steps["large"].mean >= 0


class Fake(work.Session):
    """A session whose processes print what was recorded; ``mended`` tells whether measuring again helps."""

    def again(self, version, table, rows=()):
        self.asked.append((version, table, *rows))
        if self.mended:
            self.found.tables[version, table] = recorded().tables[version, table]

    def about(self, notes=()):
        return about(caveats=list(notes)), []


def session(said, mended):
    one = Fake("guest", (), {}, TINY, said.append, recorded())
    one.asked, one.mended = [], mended
    return one


def test_a_table_that_contradicts_itself_is_measured_again():
    said = []
    one = session(said, mended=True)
    change(one.found, "go1.27", "spawn", ("spawn+run+exit",), mean=1.0)
    found = work.settle(one)
    assert one.asked == [("go1.27", "spawn")]
    assert said == [
        "go1.27.spawn: spawn+run+exit is less than a reused g and assumed goroutine_exit; measuring it again"
    ]
    assert found.machine.tables["go1.27"]["spawn"].row("spawn+run+exit")["mean"].median > 1


def test_what_stays_contradictory_is_refused_or_said_in_the_file():
    one = session([], mended=False)
    change(one.found, "go1.27", "spawn", ("spawn+run+exit",), mean=1.0)
    with pytest.raises(InputError, match="^measured 3 times: go1.27.spawn: .*; calibrate when the machine is quiet$"):
        work.settle(one)
    assert one.asked == 2 * [("go1.27", "spawn")]
    said = []
    one = session(said, mended=False)
    change(one.found, "go1.19", "sweep", ("n64", "none"), p50=1.0)
    assert "Not resolved: go1.19.sweep: n64, none (1 ns) is no longer than n64, all (" in work.settle(one).text
    assert len(said) == 2 and one.asked == 2 * [("go1.19", "sweep", "-size=64", "-kind=noscan")]


def test_rows_of_too_few_calls_are_to_be_measured_again(base):
    """Those on two Ps can be done without, as the rest of the file tells; those on one cannot."""
    found = recorded()
    for kind in ("scan", "noscan"):
        del found.tables["go1.27", "refilled"][32768, kind, 64, 2]
    two = problems(write(about(), found, base), "guest")
    assert {(one.version, one.table, one.rows, one.fatal) for one in two} == {("go1.27", "refilled", ("-mib=64",), False)}
    assert "too few calls for 32768 B scan in a heap of 64 MiB on 2 Ps" in [one.what for one in two]
    del found.tables["go1.27", "refilled"][32768, "scan", 64, 1]
    (refused,) = (one for one in problems(write(about(), found, base), "guest") if one.fatal)
    assert (refused.version, refused.table) == ("go1.27", "refilled")
    assert refused.what == "go1.27.refilled has no row 32768, scan, 64, 1; prices are derived from it"


def test_a_type_that_few_processes_told_of_has_no_row():
    """Three processes with a heap of 4 MiB, one of which refilled a type often enough to tell; one alone with 32 MiB."""
    found = Measurements()
    for mib, sizes in ((4, (64, 32)), (4, (64,)), (4, (64,)), (32, (64, 32))):
        lines = [
            json.dumps({"table": "refilled", "key": [size, "scan", mib, 1], "values": dict.fromkeys(("p10", "p50", "p90", "p99", "mean99"), 1.0)})
            for size in sizes
        ]
        found.add("go1.27", Run(("mixed",), ("refilled",)), "\n".join(lines), "")
    assert [row[:4] for row in found.rows("go1.27", "refilled")] == [[32, "scan", 32, 1], [64, "scan", 4, 1], [64, "scan", 32, 1]]


def test_the_heap_of_the_loops_is_the_one_they_cycled_through(machine, text):
    """64 MiB in a quick calibration, where the same heap has hits and pauses of its own."""
    prices = derive(machine, "go1.27")
    found = [(heap.procs, heap.allocate, heap.nbytes >> 20) for heap in prices.heaps]
    assert found == [(*who, mib) for who in ((1, 0), (2, 0), (2, 1)) for mib in (4, 32, 64)]
    assert all(heap.stopped is not None for heap in prices.heaps)
    older = parse_machine("\n".join(line for line in text.splitlines() if not line.startswith("loop_mib")), "guest")
    with pytest.raises(InputError, match=r"^guest: loop_mib: calls were timed in heaps of 4, 32, 64 MiB, not of 256; write what"):
        derive(older, "go1.27")
    with pytest.raises(InputError, match=r"^guest: loop_mib: 0 is not a whole number above 0$"):
        parse_machine(text.replace("loop_mib = 64", "loop_mib = 0", 1), "guest")


def test_vectors_that_the_collector_looks_for_are_those_of_the_cpu(machine, text, monkeypatch, tmp_path):
    assert not derive(machine, "go1.27").wide_vectors
    assert derive(parse_machine(text.replace("wide_vectors = false", "wide_vectors = true"), "guest"), "go1.27").wide_vectors
    with pytest.raises(InputError, match=r"^guest: host.wide_vectors: 1 is not true or false$"):
        parse_machine(text.replace("wide_vectors = false", "wide_vectors = 1"), "guest")
    ice_lake = "fpu popcnt avx512f avx512dq avx512bw avx512vl avx512vbmi gfni avx512_bitalg"
    for flags, wide in ((ice_lake, True), (ice_lake.replace(" gfni", ""), False), ("fpu popcnt avx2", False)):
        monkeypatch.setattr(host, "_cpu_lines", lambda flags=flags: iter([("model name", "x"), ("flags", flags)]))
        assert host.wide_vectors() == wide


def test_measuring_again_adds_processes_of_that_table_alone(monkeypatch):
    one = work.Session("guest", (), {"go1.19": Path("19"), "go1.27": Path("27")}, TINY, print)
    ran = []

    def execute(built, run):
        ran.append((str(built), run.arguments[0]))
        row = {"table": run.arguments[0], "key": [0], "values": {"compute": 1.0}}
        return json.dumps(row) if run.arguments[0] == "reference" else "", ""

    monkeypatch.setattr(work, "execute", execute)
    one.again("go1.19", "spawn")
    assert ran == [("19", "goroutines"), ("27", "reference")]
    ran.clear()
    one.again(MACHINE, "first_touch")
    assert ran == [("19", "fault"), ("27", "fault"), ("27", "reference")]
    ran.clear()
    one.again("go1.27", "sweep", ("-size=64", "-kind=scan"))
    assert ran == [("27", "sweep"), ("27", "reference")]
    ran.clear()
    one.again(MACHINE, "lock")
    assert ran == [("27", "lock"), ("27", "futex"), ("27", "madvise"), ("27", "faults"), ("27", "reference")]


# --- a busy machine ------------------------------------------------------------------------------------------------


def test_a_busy_machine_is_noticed(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    before = host.Account(busy=100.0, stolen=1.0, ours=5.0, wall=50.0)
    after = host.Account(busy=114.0, stolen=2.0, ours=15.0, wall=60.0)  # 20 CPU seconds, 10 of ours, 4 of others
    references = [{"compute": 2.0, "memory": 100.0}, {"compute": 2.1, "memory": 125.0}]
    found = host.checks(before, after, references, 30.0)
    assert found == {"steal_percent": 5, "others_percent": 20, "drift_percent": 25, "spread_percent": 30}
    assert host.complaints(found) == [
        "the hypervisor took 5 % of the CPU time",
        "other processes used 20 % of the CPU time",
        "the same loop took up to 25 % longer at times",
        "repetitions of the loops of mallocs are 30 % apart",
    ]
    quiet = host.checks(before, replace(after, busy=110.0, stolen=1.0), references[:1], 1.0)
    assert host.complaints(quiet) == []


def test_the_account_knows_whose_time_it_is():
    before = host.Account.now()
    subprocess.run([sys.executable, "-c", "sum(range(5_000_000))"], check=True)
    after = host.Account.now()
    assert 0 < after.ours - before.ours
    assert after.busy - before.busy >= 0.5 * (after.ours - before.ours) - 0.02  # ticks of 10 ms


def test_spread_is_that_of_the_median_row():
    found = Measurements()
    for values in ([1.0, 2.0, 3.0], [10.0, 10.0, 11.0], [5.0, 5.0, 5.0]):
        found.tables.setdefault(("go1.27", "loop"), {})[len(found.tables), values[0]] = {"warm_loop": values}
    assert found.spread("loop", "warm_loop") == pytest.approx(10.0)


# --- the machine file's single prices ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[assumed.lock]", "[assumed.lock]\nacquire = { ns = 3, reason = 'so' }", "measured.lock.acquire: is in assumed.lock too; a price has one place"),
        ("[assumed.steps]", "[assumed.steps]\nmark_stack = { ns = 3, reason = 'so' }", "go1.19.steps.mark_stack: is in assumed.steps too"),
        ('["go1.19".steps]\n', '["go1.19".steps]\nmadvise = { ns = [1, 1, 1], source = "so" }\n', "go1.19.steps.madvise: is in measured.steps too"),
        ("madvise_page = { ns = [", "madvise_page = { ns = [-1, ", "measured.steps.madvise_page.ns: [-1, "),
        ("osyield = {", "osyields = {", "measured.lock.osyields: unknown key; known are acquire release"),
        ("drift_percent", "drift", "host.checks.drift: unknown key; known are steal_percent"),

    ],
)  # fmt: skip
def test_a_single_price_has_one_place(text, old, new, said):
    assert old in text
    with pytest.raises(InputError) as caught:
        parse_machine(text.replace(old, new, 1), "guest")
    assert str(caught.value).startswith(f"guest: {said}")


def test_a_price_that_is_nowhere_is_missing(text):
    lines = [line for line in text.splitlines() if not line.startswith("osyield = ")]
    with pytest.raises(InputError, match=r"^guest: assumed.lock.osyield: missing$"):
        parse_machine("\n".join(lines), "guest")
    only = text.splitlines()
    only.remove(next(line for line in only if line.startswith("mark_stack = ")))
    with pytest.raises(InputError, match=r"^guest: assumed.steps.mark_stack: missing$"):
        parse_machine("\n".join(only), "guest")


# --- toolchains and the command ------------------------------------------------------------------------------------


def fake_go(folder, version):
    folder.mkdir()
    go = folder / "go"
    go.write_text(f"#!/bin/sh\necho go version go{version} linux/amd64\n")
    go.chmod(0o755)
    return str(go)


def test_one_toolchain_stands_for_each_version(tmp_path, monkeypatch):
    old, new = fake_go(tmp_path / "a", "1.21.3"), fake_go(tmp_path / "b", "1.26.1")
    assert [(go.model, go.version) for go in toolchains([new, old])] == [("go1.19", "1.21.3"), ("go1.27", "1.26.1")]
    other = fake_go(tmp_path / "c", "1.27.0")
    with pytest.raises(InputError, match=r"^go1.26.1 and go1.27.0 both stand for go1.27; give one of them$"):
        toolchains([new, other])
    monkeypatch.setattr("experiments.toolchain._ELSEWHERE", (f"{tmp_path}/*/go",))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}/b:/usr/bin:/bin")
    assert [go.version for go in toolchains([])] == ["1.21.3", "1.27.0"]


def allocsim(*arguments, cwd, path):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path, "HOME": str(cwd)}
    code = "import sys; from experiments import cli, toolchain; toolchain._ELSEWHERE = (); sys.executable = '/none/python'; "
    code += "cli.main(sys.argv[1:]) if 'numba' not in sys.modules else sys.exit(9)"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60, check=False)


def test_without_a_toolchain_one_line_says_how_to_get_one(tmp_path):
    run = allocsim("calibrate", cwd=tmp_path, path=str(tmp_path))
    assert (run.returncode, run.stdout, len(run.stderr.splitlines())) == (2, "", 1)
    assert "there is no go on PATH" in run.stderr and "pip install allocsim[go]" in run.stderr
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "mine.toml").write_text("mine")
    run = allocsim("calibrate", "-o", "mine.toml", cwd=tmp_path, path=str(tmp_path))
    assert run.returncode == 2 and run.stderr == (
        "allocsim: mine.toml: exists already; name another file with -o, or replace it with --force\n"
    )
    assert (tmp_path / "mine.toml").read_text() == "mine"


def test_the_file_is_kept_and_told_in_short(tmp_path, monkeypatch, text, machine):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("experiments.toolchain.toolchains", lambda given: [])
    monkeypatch.setattr(work, "calibrate", lambda *given: work.Calibration(text, machine, ["others ran"]))
    monkeypatch.setattr("experiments.calibrate_show.loops", lambda machine, version: f"loops of {version}")
    run = CliRunner().invoke(calibrate, ["--name", "guest"])
    assert run.exit_code == 0, run.output
    assert (tmp_path / "guest.toml").read_text() == text and len(list(tmp_path.iterdir())) == 1
    rows = {line[:40].strip(): line[40:].split() for line in run.stdout.splitlines()}
    assert rows["nanoseconds"] == ["go1.19", "go1.27"]
    for version, cell in zip(VERSIONS_RECORDED, rows["futex wake"], strict=True):
        assert float(cell) == pytest.approx(derive(machine, version).lock.futex_wake / 1000, abs=1)
    for version, cell in zip(VERSIONS_RECORDED, rows["marking an object, leaf64, 64 MiB"], strict=True):
        assert float(cell) == pytest.approx(float(machine.tables[version]["mark"].row("leaf64", 64, 1)["per_object"].median), rel=1e-3)
    assert {"loops of go1.19", "loops of go1.27"} <= set(rows)
    assert run.stderr.splitlines()[-2:] == [
        "kept in guest.toml; use it with --set prices=./guest.toml",
        "allocsim: the machine was busy: others ran",
    ]


# --- the programs for real -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_process_runs_and_fills_its_tables(go):
    found = Measurements()
    with work.built_with(go) as built:
        for run in [*runs(TINY, 2), *system_runs(TINY)]:
            found.add(go.model, run, *work.execute(built, run))
        with pytest.raises(NoGo, match=r"^calibrate mark -shape=ring failed: panic: no shape ring$"):
            work.execute(built, Run(("mark", "-shape=ring"), ("mark",)))
    for table in (*TABLES, *OPTIONAL):
        rows = found.rows(go.model, table)
        assert rows or table in SELDOM, table
        assert all(len(row) == len(SPECS[table].split()) for row in rows), table
    assert found.rows(MACHINE, "first_touch")
    for (size, *_), row in [*found.tables[go.model, "hit"].items(), *found.tables[go.model, "refilled"].items()]:
        assert row["p10"] <= row["p50"] <= row["p90"] <= row["p99"] and row["p10"][0] < row["mean99"][0] <= row["p99"][0], size
    assert {size for size, *_ in found.tables[go.model, "hit"]} <= {size for size in SMALL if size <= 4096}, "one slot has no hits"
    lock = found.singles(MACHINE, "lock")
    assert set(lock) >= {"acquire", "release", "procyield", "osyield", "futex_sleep"} and set(lock) <= set(LOCK_STEPS)
    assert set(found.singles(go.model, "steps")) == OWN_STEPS
    refill = found.tables[go.model, "refill"]
    for name, npages in (("n64", 1), ("p64", 1), ("n2048", 1)):  # refills are told from other calls by spans' slots
        counts = {source: row["n"][0] for (mode, cls, source), row in refill.items() if (mode, cls) == ("cold", name)}
        refills = sum(n for source, n in counts.items() if not source.startswith("same span"))
        each = slots(VERSIONS[go.model], int(name[1:]), npages, name[0] == "n")
        # spans at both ends, and refills left out in which the system gave the CPU away
        assert sum(counts.values()) / each == pytest.approx(refills, abs=2.01), name
    partly = {source: row["n"][0] for (mode, cls, source), row in refill.items() if (mode, cls) == ("partial", "n2048")}
    assert sum(partly.values()) / 3 == pytest.approx(partly["partial swept"], abs=1.01)  # one slot of four is taken
    assert found.tables[go.model, "mark"]["tree16", 2, 1]["objects"][0] == pytest.approx(((2 << 20) // 16 - 1) / 1e6)


@pytest.mark.slow
def test_refills_near_the_last_span_take_less_in_a_heap_that_no_cache_holds(go):
    run = Run(("mixed", "-mib=256", "-rounds=4", "-most=2048", "-near"), ("refilled_near",))
    found = Measurements()
    with work.built_with(go) as built:
        for _ in range(3):
            found.add(go.model, run, *work.execute(built, run))
    rows = {tuple(row[:2]): row[4:] for row in found.rows(go.model, "refilled_near")}
    assert {(size, kind) for size in (1024, 2048) for kind in ("scan", "noscan")} <= set(rows)
    for kind in ("scan", "noscan"):
        near, far = (median for median, *_ in rows[2048, kind])
        assert 0.4 * far < near < far
