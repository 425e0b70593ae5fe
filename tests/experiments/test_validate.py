"""Real against simulated: the generated program does what its stream says, and the table's arithmetic is right."""

import time
from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import validate, validate_page
from experiments.cli_validate import validate as command
from experiments.errors import InputError
from experiments.program_globals import globals_of
from experiments.toolchain import NoGo
from experiments.validate_figures import Line, Row, Seen, compare, directions, figures, read_cycles, totals
from experiments.validate_host import drift
from experiments.validate_kept import Shown
from experiments.validate_memory import measure_withheld
from experiments.validate_run import Noise, interrupted, replayer, run_real, simulate, tails, together
from experiments.validate_stream import check, go_source, kinds_of, preorder, write
from experiments.validate_workloads import WORKLOADS
from sim.jit import PLAIN
from sim.metrics.histogram import BUCKETS, bucket_of_int, bucket_top
from sim.ops import ALLOC, COMPUTE, DEAD, NO_OBJ, SHARED
from workloads.scenario import load
from workloads.streams import WorkerStream, batches, requests, share

WORKERS = """
purpose = "Two workers with every kind of lifetime"
[runtime]
gomaxprocs = 2
[run]
mallocs = 3_001
[workload]
kind = "workers"
goroutines = 2
think = "1us"
round_mallocs = 10
[[workload.objects]]
size = ["7B", "16B", "1KiB"]
pointers = 0.0
lifetime = "request"
[[workload.objects]]
size = ["24B", "64B", "2KiB"]
pointers = 0.5
pointer_bytes = 0.5
lifetime = { ops = 20, dist = "exponential" }
[[workload.objects]]
size = { low = "100B", high = "40KiB" }
lifetime = { cache = 10 }
[[workload.objects]]
weight = 0.1
size = "32B"
lifetime = "immortal"
"""
SERVICE = """
purpose = "Requests with sessions"
[runtime]
gomaxprocs = 2
[run]
duration = "20ms"
[workload]
kind = "service"
rate = 5000
phases = [{ compute = "5us", mallocs = 10 }]
[[workload.objects]]
size = ["48B", "200B"]
pointers = 1.0
lifetime = "request"
[[workload.objects]]
size = "512B"
lifetime = { cache = 50 }
"""
TREES = """
purpose = "Trees"
[runtime]
gomaxprocs = 1
heap_shape = "tree"
[run]
mallocs = 1_000
[workload]
kind = "workers"
goroutines = 1
think = "500ns"
round_mallocs = 31
[[workload.objects]]
size = ["16B", "40B"]
pointers = 1.0
lifetime = "request"
"""


def scenario(folder, text, sets=()):
    path = folder / "tiny.toml"
    path.write_text(text)
    return load(path, sets)


# The real program


def all_ops(found):
    """The operations of each stream of workers, whole."""
    workload = found.workload
    for worker in range(workload.goroutines):
        stream = WorkerStream(workload.mix, workload.round_mallocs, found.seed, f"worker/{worker}")
        part = batches(stream, share(found.mallocs, worker, workload.goroutines))
        yield np.concatenate([ops.copy() for ops in part])


def executed(ops):
    """Mallocs by size and pointers of some operations, their variables at the end, and what they compute."""
    counts, variables, immortal, compute = Counter(), {}, 0, 0
    for kind, _, obj, arg, pointers in ops.tolist():
        if kind == ALLOC:
            counts[arg, pointers] += 1
            if obj == NO_OBJ:
                immortal += 1
            else:
                variables[obj] = True
        elif kind == DEAD:
            variables.pop(obj, None)
        elif kind == COMPUTE:
            compute += arg
    return counts, len(variables) + immortal, compute


def by_kind(counts, kinds, tables):
    """Counts in the order of the types; the rest are slices, and the tables."""
    known = [counts.pop(kind, 0) for kind in kinds]
    return (*known, sum(counts.values()) + tables)


@pytest.fixture(scope="module")
def built(tmp_path_factory, go):
    """The program, with the types of all three scenarios."""
    folder = tmp_path_factory.mktemp("scenarios")
    mixes = [scenario(folder, text).workload.mix for text in (WORKERS, SERVICE, TREES)]
    kinds = kinds_of(mixes)
    with replayer(go, kinds) as program:
        yield program, kinds, go


def shown(built, found, written):
    """What a run of a scenario's program shows, and what it told."""
    program, _, go = built
    seen, told = run_real(program, found, written, True)
    noise, missing = Noise(1.0, np.zeros(0)), measure_withheld(program, 300 * 4096, 0.01)
    return Shown(go.version, globals_of(program), [(seen, seen, told)], [noise], [missing])


@pytest.mark.skipif(PLAIN, reason="thousands of mallocs")
@pytest.mark.parametrize("readable", [True, False])
def test_the_simulation_has_the_real_programs_globals(built, tmp_path, monkeypatch, readable):
    """As its file and, where there is one, its metric say; where it does not, as the scenario has them."""
    program, kinds, go = built
    found = scenario(tmp_path, WORKERS, [f"runtime.version={go.model}"])
    written, simulated = write(found, kinds, tmp_path), []
    real = shown(built, found, written)
    monkeypatch.setattr(validate, "simulate", lambda scenario, written: simulated.append(scenario) or simulate(scenario, written))
    monkeypatch.setattr(validate, "speeds", lambda *given: [])
    if not readable:
        real.globals_bytes = None
    answer = validate._compared(found, written, real)
    nbytes = globals_of(program) if readable else 128 * 1024
    assert [one.globals_bytes for one in simulated] == [nbytes]
    assert answer["globals"] == {"bytes": nbytes, "of": "program" if readable else "scenario"}
    if readable:
        assert go.minor < (1, 21) or real.runs[0][2]["metrics"]["/gc/scan/globals:bytes"] == nbytes
    else:
        assert "as in the scenario" in next(line for line in validate_page._notes(answer) if "lobals" in line)


@pytest.mark.parametrize("traced", [False, True])
def test_workers_run_exactly_their_streams(built, tmp_path, traced):
    program, kinds, _ = built
    found = scenario(tmp_path, WORKERS)
    written = write(found, kinds, tmp_path)
    seen, told = run_real(program, found, written, traced)
    ops = [executed(one) for one in all_ops(found)]
    assert tuple(told["by_kind"]) == by_kind(sum((one[0] for one in ops), Counter()), kinds, 2)
    assert told["live"] == sum(one[1] for one in ops)
    assert told["mem_profile_rate"] == 0
    assert (seen.cycles is not None) == traced


def test_time_outside_malloc_is_what_the_stream_computes(built, tmp_path):
    """It cannot be less; how much more is the machine's affair."""
    program, kinds, _ = built
    found = scenario(tmp_path, TREES)
    seen, told = run_real(program, found, write(found, kinds, tmp_path), False)
    ((_, _, compute),) = [executed(one) for one in all_ops(found)]
    assert compute == 1000 * 500_000
    assert told["wall_ns"] >= 0.999 * (compute + told["malloc_ps"]) / 1000 - told["debt_ns"]
    assert told["debt_ns"] < 50_000
    assert seen.wall == told["wall_ns"]


def test_histogram_has_our_layout(built, tmp_path):
    """The program's own sum of what it counted lies within what the buckets, as Python reads them, can hold."""
    program, kinds, _ = built
    found = scenario(tmp_path, WORKERS)
    written = write(found, kinds, tmp_path)
    seen, _ = run_real(program, found, written, False)
    counts = seen.malloc.counts
    tops = np.array([bucket_top(i) for i in range(BUCKETS)])
    assert counts.sum() == written.mallocs == 3_001 + 2
    assert int((counts[1:] * (tops[:-1] + 1)).sum()) <= seen.malloc.total <= int((counts * tops).sum())
    assert bucket_of_int(seen.malloc.maximum) == np.flatnonzero(counts)[-1]


def test_writes_to_a_heap_are_all_seen_and_take_their_time(built):
    """How many of them are long is the host's affair; a turn takes no less than is asked for."""
    program, _, _ = built
    begun = time.monotonic()
    found = measure_withheld(program, 300 * 4096 + 5, 0.2)
    assert time.monotonic() - begun > 3 * 0.2
    assert found.fresh.pages == 300 and found.old.pages % 300 == 0
    assert found.old.pages >= 2 * 300
    assert all(0 <= one.share <= 1 and (one.long_ns > 0).all() for one in (found.fresh, found.old))


def test_trees_end_with_the_path_of_the_last_round(built, tmp_path):
    program, kinds, _ = built
    found = scenario(tmp_path, TREES)
    written = write(found, kinds, tmp_path)
    _, told = run_real(program, found, written, False)
    ((counts, live, _),) = [executed(one) for one in all_ops(found)]
    assert tuple(told["by_kind"]) == by_kind(counts, kinds, 1)
    assert live == 1000 % 31  # nodes, and these depths of them are in the table
    assert told["live"] == len(set(preorder(31)[0][:live].tolist()))
    assert written.variables == (5,)


def test_requests_run_exactly_their_stream(built, tmp_path):
    program, kinds, _ = built
    found = scenario(tmp_path, SERVICE)
    written = write(found, kinds, tmp_path)
    seen, told = run_real(program, found, written, False)
    all_requests = list(requests(found.workload, found.seed, found.duration_ps, None))
    counts, _, _ = executed(np.concatenate([ops for _, ops, _, _ in all_requests]))
    shared = np.concatenate([ops[(ops["flags"] & SHARED) != 0] for _, ops, _, _ in all_requests])
    tables = 1 + sum(own > 0 for _, _, own, _ in all_requests)
    assert tuple(told["by_kind"]) == by_kind(counts, kinds, tables)
    assert told["requests"] == len(all_requests) == seen.response.counts.sum()
    assert told["live"] == executed(shared)[1]


@pytest.mark.skipif(PLAIN, reason="thousands of mallocs, thrice")
@pytest.mark.parametrize("text", [WORKERS, SERVICE, TREES])
def test_both_sides_make_the_same_mallocs(built, tmp_path, text):
    """Bytes by class too, which is sizes and headers as the real runtime has them."""
    program, kinds, go = built
    found = scenario(tmp_path, text, [f"runtime.version={go.model}"])
    written = write(found, kinds, tmp_path)
    seen, _ = run_real(program, found, written, True)
    ours, result = simulate(found, written)
    assert result.metrics["/sim/mallocs:objects"] == written.mallocs == ours.malloc.counts.sum()
    real = seen.memstats["TotalAlloc"] - seen.before["TotalAlloc"]
    simulated = ours.memstats["TotalAlloc"]
    assert simulated <= real <= simulated + 64_000  # goroutines and threads of the program itself
    table = compare([figures(seen)], [figures(seen)], figures(ours))
    assert {"malloc p50", "cycles", "allocated", "pauses"} <= {line.quantity for line in table}
    assert len(tails([seen.malloc], result, ours.malloc)) == 3


def test_another_stream_than_was_written_is_noticed(built, tmp_path):
    program, kinds, _ = built
    found = scenario(tmp_path, TREES)
    written = write(found, kinds, tmp_path)
    words = np.fromfile(written.files[0], np.uint64)
    words[:-2].tofile(written.files[0])
    with pytest.raises(NoGo, match="made 1000 mallocs, and 1001 were written"):
        run_real(program, found, written, False)


# Streams and types


def test_preorder_is_that_of_a_full_binary_tree():
    def walk(levels, depth=0, right=0):
        if levels:
            yield depth, right
            yield from walk(levels - 1, depth + 1, 0)
            yield from walk(levels - 1, depth + 1, 1)

    depth, right = preorder(20)
    assert list(zip(depth.tolist(), right.tolist(), strict=True)) == list(walk(5))[:20]


def test_types_have_the_sizes_and_pointers_that_are_asked_for():
    source = go_source([(7, 0), (24, 16), (64, 64)])
    assert "type type0 [7]byte\n" in source
    assert "type type1 struct {\n\tpointers [2]unsafe.Pointer\n\tplain [1]uintptr\n}\n" in source
    assert "type type2 struct {\n\tpointers [8]unsafe.Pointer\n}\n" in source


@pytest.mark.parametrize(
    ("text", "sets", "why"),
    [
        (WORKERS, ["workload.objects.0.zeroed=false"], "objects.0.zeroed: new memory of a Go program is zeroed"),
        (WORKERS, ["workload.objects.2.pointers=0.1"], "objects.2.size: objects with pointers have types"),
        (WORKERS, ["workload.objects.0.pointers=0.1"], "multiples of 8B"),
        (WORKERS, ["runtime.assists=false"], "runtime.assists: a real program cannot"),
        (WORKERS, ["runtime.heap_shape=list"], "runtime.heap_shape: list cannot be built"),
        (WORKERS, ["runtime.heap_shape=tree"], "objects.0: nodes of a tree have two pointers"),
        (WORKERS, ["run.duration=1s"], "run.duration: a worker of a real program counts mallocs"),
        (SERVICE, ["runtime.heap_shape=tree"], "trees are what workers build"),
        (SERVICE, ["workload.stack=8KiB"], "workload.stack: the real program's frames"),
    ],
)
def test_what_no_program_can_do_is_refused(tmp_path, text, sets, why):
    with pytest.raises(InputError, match=why) as error:
        check(scenario(tmp_path, text, sets), "tiny.toml")
    assert "\n" not in str(error.value)


def test_shipped_workloads_can_be_run():
    for workload in WORKLOADS:
        for version in ("go1.19", "go1.27"):
            check(workload.scenario(version, None), workload.file)


# Figures


LINES = """\
pacer: assist ratio=+1.039772e+000 (scan 0 MB in 3->4 MB) workers=0++2.500000e-001
pacer: 57% CPU (25 exp.) for 603856+864+131072 B work (750432 B exp.) in 3472456 B -> 4182080 B (∆goal -12224, cons/mark +1.0e+000)
gc 1 @0.250s 2%: 0.010+2.0+0.030 ms clock, 0.020+0.50/1.5/0.25+0.060 ms cpu, 3->3->1 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 2 P
something else
gc 2 @0.900s 2%: 0.010+1.0+0.010 ms clock, 0.020+0.50/0.50/0+0.020 ms cpu, 3->4->2 MB, 4 MB goal, 0 MB stacks, 0 MB globals, 2 P
"""


def test_lines_of_cycles():
    first, second = read_cycles(LINES.splitlines())
    assert (first.heap0, first.heap1, first.goal, first.scan) == (3472456, 4182080, 4194304, 603856)
    assert (second.line.number, second.heap0, second.goal) == (2, None, None)


def a_run(values, **others):
    counts = np.zeros(BUCKETS, np.int64)
    for value in values:
        counts[bucket_of_int(value)] += 1
    memstats = {
        "NumGC": 3,
        "TotalAlloc": 3 << 20,
        "PauseTotalNs": 60_000,
    }
    before = {"NumGC": 1, "TotalAlloc": 1 << 20, "PauseTotalNs": 10_000}
    given = {
        "cycles": None,
        "begun": 200_000_000,
        "wall": 1_000_000_000,
        "procs": 2,
        "first_touch": 2e6,
        "pause_max": 30_000,
    } | others
    return Seen(Row(counts, sum(values), max(values)), memstats=memstats, before=before, **given)


def test_figures_of_a_run():
    found = figures(a_run([1_000] * 98 + [2_000] + [10_000]))
    assert found["malloc p50"] == 1.0
    assert found["malloc p99"] == 2.0
    assert found["malloc max"] == 10.0
    assert found["malloc mean"] == pytest.approx((98 + 2 + 10) / 100)
    assert found["throughput"] == pytest.approx(100 / 1e9 * 1000)
    assert (found["cycles"], found["allocated"], found["pauses"], found["pause max"]) == (2, 2, 0.05, 30)
    assert found["first touch"] == 2
    assert "marked" not in found


def test_figures_of_cycles():
    found = figures(a_run([1_000], cycles=read_cycles(LINES.splitlines())))
    assert found["marked"] == 2  # of the second half
    assert "goal" not in found
    assert found["peak"] == pytest.approx(4182080 / (1 << 20))
    assert found["assist CPU"] == pytest.approx(1.0)
    assert found["mark CPU"] == pytest.approx(3.25)
    assert found["mark wall"] == pytest.approx(3.0)
    assert found["GC CPU share"] == pytest.approx(100 * (0.02 + 0.5 + 1.5 + 0.06 + 0.02 + 0.5 + 0.5 + 0.02) / 2000)


def test_errors_and_spread():
    (line,) = compare([{"cycles": 10}, {"cycles": 12}, {"cycles": 20}], [], {"cycles": 9.0, "goal": 4.0})
    assert (line.real, line.low, line.high, line.simulated) == (12, 10, 20, 9)
    assert line.error == pytest.approx(-0.25)
    assert line.beyond
    assert not Line("cycles", 12, 9, 20, 9).beyond
    assert Line("cycles", 0, 0, 0, 0).error == 0
    assert Line("cycles", 0, 0, 0, 1).error is None


def test_totals_are_median_and_ninetieth_percentile():
    tables = [[Line("cycles", 100, 99, 101, 100 + error)] for error in (-1, 2, -3, 4, 5, 6, 7, 8, 9, -30)]
    (total,) = totals(tables)
    assert (total.n, total.beyond) == (10, 9)
    assert total.median == pytest.approx(0.055)
    assert total.p90 == pytest.approx(0.09)


def test_directions_count_what_really_differs():
    def one(real, simulated, spread=1):
        return [Line("cycles", real, real - spread, real + spread, simulated)]

    pairs = {
        "same": (one(10, 20), one(20, 30)),
        "other": (one(10, 20), one(20, 10)),
        "overlap": (one(10, 20, 5), one(12, 10, 5)),
    }
    (found,) = directions(pairs)
    assert (found.quantity, found.differ, found.same, found.others) == ("cycles", 2, 1, (("other", 2.0, 0.5),))


# The page and the command


def answer():
    row = {"quantity": "malloc p50", "unit": "ns", "real": 20.0, "low": 19.0, "high": 21.0, "simulated": 22.0}
    tail = {"above_us": 1.0, "real": 12.5, "low": 12.0, "high": 13.0, "simulated": 10.0, "interrupted": 11.0}
    tail |= {"by_cause": {"assist": 7.0}}
    real = {"unpaid_driver_ms": 0.0, "wall_s": 1.0, "late_us": {"p50": 1.0, "p99": 2.0, "max": 30.0}}
    version = {"toolchain": "1.27.3", "machine": "m", "real": real, "tails": [tail], "without_noise": {}}
    version["table"] = [row | {"error": 0.1, "beyond": True}]
    missing = {"pages": 1000, "share": 0.0125, "p50_us": 130.0, "p99_us": 180.0}
    met = {"cleared": 12_345.0, "fresh": 70.0, "fresh_by_program": 8.0, "marked": 900.0, "assisted": 90.0}
    version["withheld"] = {"fresh": missing, "old": missing | {"share": 0.0005}, "met": met}
    version["globals"] = {"bytes": 165_386, "of": "program"}
    version["noise"] = {"a_second": 10.0, "p50_us": 2.0, "p99_us": 5.0, "max_us": 9.0, "share": 0.001}
    spread = {"low": 1.2, "high": 1.5, "calibrated_low": 0.95, "calibrated_high": 1.02}
    version["host"] = [{"aspect": "marking", "loop": "mark -mib=32", "ratio": 1.34} | spread]
    where = {"date": "D", "cpu": "C", "cpus": 2, "system": "S", "huge_pages": "madvise", "toolchains": ["go1.27.3"]}
    return {
        "repeat": 3,
        "workloads": [{"name": "w", "purpose": "P", "versions": [version]}],
        "summary": [{"quantity": "malloc p50", "n": 1, "median": 0.1, "p90": 0.1, "beyond": 1}],
        "directions": [{"quantity": "cycles", "differ": 2, "same": 1, "others": [["w", 2.0, 0.5]]}],
        "summary_as_calibrated": [],
        "drift": drift([version]),
        "provenance": where | {"load_before": 0.1, "load_after": 0.2},
    }


def test_page_is_written_with_its_figures(tmp_path):
    path = validate_page.target(str(tmp_path / "errors.md"), False)
    validate_page.store(path, answer(), "-o errors.md")
    text = path.read_text()
    assert "| malloc p50, ns | 20.0 | 19.0 | 21.0 | 22.0 | +10.0 % | beyond |" in text
    assert "| 1 us | 12.5 | 12.0 | 13.0 | 10.0 | 11.0 | assist 7.00 |" in text
    assert "\n**THE HOST WAS NOT AS CALIBRATED: the host took 1.34 times" in text
    assert "| malloc p50 | 1 | 10.0 % | 10.0 % | 1 of 1 | 0 | - |" in text
    assert (
        "| w | go1.27.3 | 1.34 [1.20, 1.50] | 10.0 | 2.00 | 5.00 | 0.10 | 1.25 | 130 | 0.05 | 130 | drifted |" in text
    )
    assert (
        "mallocs to 12345 used pages and 70.0 fresh ones, the program to 8.00 fresh ones; 900 pages were marked, 90.0 of them by "
        "assists." in text
    )
    assert "Globals with pointers: 165386 B, as many as the real program's file says." in text
    assert "- marking: `mark -mib=32`; processes of the calibration itself read go1.27.3 0.95 to 1.02 times" in text
    assert "| cycles | 2 | 1 | w x2.00, x0.5 |" in text
    assert "allocsim validate -o errors.md" in text
    assert sorted(one.name for one in tmp_path.iterdir()) == ["errors.json", "errors.md"]
    with pytest.raises(InputError, match="errors.md: exists already; .* or replace it with --force"):
        validate_page.target(str(path), False)
    assert validate_page.target(str(path), True) == path


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["-o", "errors"], "name a file that ends with .md"),
        (["-o", "nowhere/errors.md"], "there is no directory nowhere"),
        (["--go", "/nowhere/go"], "nowhere/go: No such file or directory"),
    ],
)
def test_bad_input_is_one_line(arguments, why):
    found = CliRunner().invoke(command, arguments)
    assert isinstance(found.exception, InputError)
    assert why in str(found.exception)
    assert "\n" not in str(found.exception)


def test_unknown_workload_and_machine(monkeypatch):
    monkeypatch.setattr("experiments.cli_validate._toolchains", lambda gos: [])
    found = CliRunner().invoke(command, ["--only", "gird*"])
    assert "--only gird*: is no workload; some are" in str(found.exception)


# The machine's interruptions


def test_interruptions_meet_calls_as_a_poisson_process():
    """10,000 a second of 3 us each, on calls of 100 ns and of 200 us: so many meet one, and the mean grows by rate * gap."""
    noise = Noise(2.0, np.full(20_000, 3_000.0))
    counts = np.zeros(BUCKETS, np.int64)
    short, long = bucket_of_int(100_000), bucket_of_int(200_000_000)
    counts[short], counts[long] = 1_000_000, 1_000
    row = Row(counts, 1_000_000 * 100_000 + 1_000 * 200_000_000, 200_000_000)
    seen = interrupted(row, noise, 1)
    assert seen.counts.sum() == counts.sum() and row.counts[short] == 1_000_000
    assert counts[short] - seen.counts[short] == pytest.approx(1_000, rel=0.15)
    assert seen.counts[bucket_of_int(100_000 + 3_000_000)] == pytest.approx(1_000, rel=0.15)
    assert seen.counts[long] == pytest.approx(1_000 * np.exp(-2), rel=0.25)
    assert seen.total - row.total == pytest.approx(10_000 * (0.1 + 0.2) * 3_000_000, rel=0.1)
    assert seen.maximum > row.maximum
    again = interrupted(row, noise, 1)
    assert (again.counts == seen.counts).all() and again.total == seen.total


def test_interruptions_measured_at_several_times_are_as_one():
    found = together([Noise(1.0, np.array([2_000.0, 4_000.0])), Noise(3.0, np.array([6_000.0]))])
    assert (found.seconds, found.a_second) == (4.0, 0.75)
    assert found.to_dict()["p50_us"] == 4.0


def test_tails_are_told_with_the_spread_of_runs_and_with_interruptions():
    """Real: one, three and two calls of ten above 1 us; simulated two of ten, three with interruptions."""

    def row(above):
        return a_run([1_000] * (10 - above) + [20_000_000] * above).malloc

    simulated = SimpleNamespace(counts={"all": row(2).counts, "assist": row(1).counts, "response": row(9).counts})
    first, *_, last = tails([row(1), row(3), row(2)], simulated, row(3))
    assert (first["real"], first["low"], first["high"]) == (200_000, 100_000, 300_000)
    assert (first["simulated"], first["interrupted"], first["by_cause"]) == (200_000, 300_000, {"assist": 100_000})
    assert (last["above_us"], last["real"], last["interrupted"]) == (100, 0, 0)


def test_a_quiet_machine_changes_nothing():
    counts = np.zeros(BUCKETS, np.int64)
    counts[[10, 30_000]] = 5, 7
    seen = interrupted(Row(counts, 99, 98), Noise(2.0, np.zeros(0)), 1)
    assert (seen.counts == counts).all() and (seen.total, seen.maximum) == (99, 98)
