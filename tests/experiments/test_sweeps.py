"""Sweeps by real processes: whatever happens on the way, the tables are those of an undisturbed one, byte for byte."""

import csv
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from experiments import cli
from experiments.errors import InputError
from experiments.result import free_directory, store
from experiments.run import run as run_scenario
from experiments.sweeps import Sweep, read, run_sweep, work
from experiments.sweeps.spec import read_sweep
from sim.units import Throw
from workloads.scenario import load

ROOT = Path(__file__).parent.parent.parent
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}
SCENARIO = """
purpose = "small, and long enough to be killed in the middle"
[runtime]
gomaxprocs = 1
[run]
duration = "10ms"
samples = 5
[workload]
kind = "workers"
goroutines = 2
[[workload.objects]]
size = ["64B", "8KiB"]
lifetime = "request"
"""
SWEEP = """
purpose = "small"
scenario = "small.toml"
[sweep]
replications = 6
[axes]
gogc = [50, "off"]
gomaxprocs = [1, 2]
"""
SCRIPT = """
from experiments.sweeps import Sweep, run_sweep
sweep = Sweep("small.toml", axes={"gogc": [50, "off"], "gomaxprocs": [1, 2]}, replications=6)
print(len(run_sweep(sweep, "killed", jobs=2, formats=["csv"]).runs))
"""  # nothing in it is for the sake of spawned processes
RUNS = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Holds a sweep file, its scenario, and what an undisturbed sweep by one thread leaves in d."""
    found = tmp_path_factory.mktemp("sweep")
    (found / "small.toml").write_text(SCENARIO)
    (found / "sweep.toml").write_text(SWEEP)
    with ThreadPoolExecutor(1) as executor:
        run_sweep(read_sweep(str(found / "sweep.toml")), found / "d", executor, 1, ("csv",))
    return found


def tables(directory):
    return {path.name: path.read_bytes() for path in directory.glob("*.csv")}


def figures(directory):
    """The rows of a table of runs, without what is empty."""
    with (directory / "runs.csv").open(newline="") as stream:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(stream)]


def made(directory):
    """Records by name, with when they were written."""
    return {path.name: path.stat().st_mtime_ns for path in (directory / "runs").glob("*.gz")}


def begin(folder, name):
    """The command, begun in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "experiments.cli",
        "sweep",
        "sweep.toml",
        "-o",
        name,
        "--jobs",
        "2",
        "--format",
        "csv",
    ]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=ENV, start_new_session=True, **streams)


def workers(process):
    """The processes that a sweep began to run batches in."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def until(condition, process=None):
    """Wait for something to be so."""
    for _ in range(6000):
        if condition():
            return
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.01)
    raise AssertionError("it never came")


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_sweep_killed_in_every_way_ends_as_if_nothing_had_happened(folder):
    """Begun by the command, ended by the same sweep from Python."""
    target = folder / "killed"
    first = begin(folder, "killed")
    until(lambda: len(made(target)) >= 2, first)
    os.kill(workers(first)[0], signal.SIGKILL)
    before = len(made(target))
    until(lambda: len(made(target)) > before, first)  # it goes on
    os.killpg(first.pid, signal.SIGINT)  # as a terminal does: to all of them
    _, said = first.communicate(timeout=60)
    assert first.returncode == 130
    assert said.splitlines()[-1].endswith("runs were made and kept; the same command goes on")
    assert "Traceback" not in said
    kept = made(target)
    assert 3 <= len(kept) < RUNS
    assert tables(target) == {}

    second = begin(folder, "killed")
    until(lambda: len(made(target)) >= len(kept) + 2, second)
    theirs = workers(second)
    second.kill()
    second.communicate(timeout=60)
    until(lambda: not any(map(alive, theirs)))  # nobody works on for a parent that is dead
    assert kept.items() <= made(target).items()
    kept = made(target)
    assert len(kept) < RUNS

    (folder / "script.py").write_text(SCRIPT)
    third = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=ENV, capture_output=True, text=True, timeout=120, check=False
    )
    assert third.stdout == f"{RUNS}\n", third.stderr
    assert kept.items() <= made(target).items()  # nothing was made twice
    assert tables(target) == tables(folder / "d")


def test_a_cluster_makes_the_same_tables(folder, capfd):
    distributed = pytest.importorskip("distributed")
    cluster = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with distributed.LocalCluster(**cluster, host="127.0.0.1", silence_logs=50) as running:
        command = ["sweep", str(folder / "sweep.toml"), "-o", str(folder / "dask"), "--format", "csv"]
        with pytest.raises(SystemExit) as ended:
            cli.main([*command, "--scheduler", running.scheduler_address])
    assert ended.value.code == 0, capfd.readouterr()
    assert tables(folder / "dask") == tables(folder / "d")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "tcp://127.0.0.1", "fax://127.0.0.1:9"])
def test_a_scheduler_that_is_not_there_is_one_line(folder, capfd, monkeypatch, address):
    pytest.importorskip("distributed")
    monkeypatch.setattr("experiments.sweeps.cluster._PATIENCE", 0.3)
    with pytest.raises(SystemExit) as ended:
        cli.main(["sweep", str(folder / "sweep.toml"), "-o", str(folder / "no"), "--scheduler", address])
    assert ended.value.code == 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith(f"allocsim: {address}: no scheduler answers (")
    assert not (folder / "no").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.toml", "-o", "no"], "none.toml: no such file; name one that exists"),
        (["sweep.toml"], "missing option '-o' / '--output'; see allocsim sweep --help"),
        (
            ["sweep.toml", "-o", "no", "--jobs", "2", "--scheduler", "tcp://a:1"],
            "--jobs counts processes of this machine",
        ),
        (["sweep.toml", "-o", "no", "--set", "gogc=1"], "sweep.toml: set.gogc: is the same setting as axes.gogc"),
        (["sweep.toml", "-o", "no", "--set", "gogc"], "sweep.toml: --set gogc: is not key=value"),
        (["sweep.toml", "-o", "no", "--set", "cpus=0"], "machine.cpus: 0 is not allowed"),
        (["sweep.toml", "-o", "small.toml"], "small.toml: cannot be written (File exists)"),
    ],
)
def test_a_refusal_is_one_line(folder, capfd, monkeypatch, arguments, said):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        cli.main(["sweep", *arguments])
    assert ended.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert said in line
    assert not (folder / "no").exists()


def test_a_record_says_what_the_run_said(folder):
    results = read(folder / "d")
    run = results.runs[7]  # point 1, gomaxprocs 2
    record = results.record(run)
    expected = run_scenario(load(folder / "small.toml", ["gogc=50", "gomaxprocs=2"], seed=2))
    assert (run.point, run.seed) == (1, 2)
    assert record.metrics == expected.metrics
    assert record.series == tuple(expected.series.rows)
    assert set(record.latency) == {name for name, counts in expected.counts.items() if counts.any()}
    for name, one in record.latency.items():
        assert (one.count, one.total, one.maximum) == (
            expected.latency[name].count,
            expected.latency[name].total,
            expected.latency[name].maximum,
        )
        assert one.percentiles == expected.latency[name].percentiles
        assert dict(zip(one.buckets, one.counts, strict=True)) == {
            bucket: count for bucket, count in enumerate(expected.counts[name].tolist()) if count
        }
    assert len(record.cycles) == len(expected.cycles)


def test_exports_take_the_runs_of_a_sweep(folder, capfd, monkeypatch):
    """Each like the result of that run, exported by itself."""
    monkeypatch.chdir(folder)

    def export(name, form):
        with pytest.raises(SystemExit) as ended:
            cli.main(["export", name, "--format", form])
        return (ended.value.code, *capfd.readouterr())

    expected = run_scenario(load(folder / "small.toml", ["gogc=off", "gomaxprocs=1"], seed=3))
    alone = folder / "alone"
    store(free_directory(str(alone)), expected, {})
    one = next(csv.DictReader(export("alone", "csv")[1].splitlines()))
    rows = list(csv.DictReader(export("d", "csv")[1].splitlines()))
    assert [(row["gogc"], row["gomaxprocs"], row["seed"]) for row in rows] == [
        (gogc, procs, str(seed)) for gogc in ("50", "off") for procs in "12" for seed in range(1, 7)
    ]
    (same,) = (row for row in rows if (row["gogc"], row["gomaxprocs"], row["seed"]) == ("off", "1", "3"))
    figures = {name: value for name, value in same.items() if value and name != "scenario"}
    assert figures == {name: one[name] for name in figures}
    assert len(figures) > 50

    def benchmarks(name):
        blocks = export(name, "benchstat")[1].split("\n\n")[1:]
        return [[line for line in block.splitlines() if line.startswith("Benchmark")] for block in blocks]

    assert benchmarks("d")[2 * 6 + 2] == benchmarks("alone")[0]
    assert len(benchmarks("d")) == RUNS
    assert export("d", "openmetrics")[::2] == (
        2,
        "allocsim: d: holds 24 runs of a sweep, and openmetrics is of one result alone; name one that `allocsim run -o` wrote\n",
    )


def test_a_failing_point_leaves_its_error_and_is_tried_again(folder, capfd, monkeypatch):
    real = run_scenario

    def run(scenario):
        if scenario.gomaxprocs == 2 and scenario.seed == 3:
            raise Throw("1 == 2 does not hold\nhere")
        return real(scenario)

    def command(directory):
        """The command in this process, by a thread."""
        with ThreadPoolExecutor(1) as executor, pytest.raises(SystemExit) as ended:
            monkeypatch.setattr("experiments.sweeps.sweeping.crew_of", lambda jobs: _crew(executor))
            cli.main(["sweep", str(folder / "sweep.toml"), "-o", str(directory), "--format", "csv"])
        return ended.value.code, capfd.readouterr()

    monkeypatch.setattr("experiments.run.run", run)
    status, (shown, said) = command(folder / "failed")
    assert status == 1
    assert said.splitlines()[-1].startswith("allocsim: 2 of 24 runs failed; ")
    assert (
        "failed: point 1 (gogc = 50, gomaxprocs = 2), seed 3: an invariant of the simulator is broken: 1 == 2" in shown
    )
    rows, whole = figures(folder / "failed"), figures(folder / "d")
    assert [number for number, (a, b) in enumerate(zip(rows, whole, strict=True)) if a != b] == [6 + 2, 18 + 2]
    asked = {"point": "1", "replicate": "2", "seed": "3", "gogc": "50", "gomaxprocs": "2"}
    assert rows[8] == asked | {"error": "an invariant of the simulator is broken: 1 == 2 does not hold here"}
    with pytest.raises(SystemExit) as ended:
        cli.main(["show", str(folder / "failed")])
    assert ended.value.code == 0
    assert ", 2 failed" in capfd.readouterr().out
    monkeypatch.setattr("experiments.run.run", real)
    assert command(folder / "failed")[0] == 0
    assert tables(folder / "failed") == tables(folder / "d")


def _crew(executor):
    from contextlib import nullcontext

    from experiments.sweeps.pool import Given

    return nullcontext(Given(executor, lambda: 1))


def test_damaged_records_are_made_again(folder, tmp_path):
    import shutil

    shutil.copytree(folder / "d", tmp_path / "d")
    results = read(tmp_path / "d")
    whole = {path: path.read_bytes() for path in (tmp_path / "d" / "runs").iterdir()}
    for run, held in zip(results.runs[:2], (b"", b"nonsense"), strict=True):
        results.path(run.key).write_bytes(held)
    with ThreadPoolExecutor(1) as executor:
        run_sweep(read_sweep(str(folder / "sweep.toml")), tmp_path / "d", executor, 1, ("csv",))
    assert {path: path.read_bytes() for path in whole} == whole


def test_a_machine_file_that_changes_meanwhile_ends_the_sweep(folder, monkeypatch, tmp_path):
    """Runs after the change are not kept; with the file as it was the sweep goes on."""
    machine = tmp_path / "m.toml"
    held = (ROOT / "experiments/machines/epyc-2core.toml").read_text()
    machine.write_text(held)
    ran = []

    def run(scenario):
        ran.append(scenario.seed)
        if len(ran) == 3:
            machine.write_text(held + "\n")
        return run_scenario(scenario)

    sweep = Sweep(
        str(folder / "small.toml"), axes={"gogc": [50]}, replications=5, set={"prices": str(machine), "gomaxprocs": 1}
    )
    monkeypatch.setattr("experiments.run.run", run)
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(InputError, match=r"m\.toml: was changed while the sweep ran, or is another on this worker"):
            run_sweep(sweep, tmp_path / "d", executor, 1, ("csv",))
        assert 0 < len(made(tmp_path / "d")) <= 2
        machine.write_text(held)
        run_sweep(sweep, tmp_path / "d", executor, 1, ("csv",))
    assert len(made(tmp_path / "d")) == 5


def test_a_sweep_file_that_is_edited_meanwhile_is_told_of(folder, capfd, monkeypatch, tmp_path):
    (tmp_path / "small.toml").write_text(SCENARIO)
    (tmp_path / "sweep.toml").write_text(SWEEP.replace("replications = 6", ""))

    def run(scenario):
        (tmp_path / "small.toml").write_text(SCENARIO.replace("goroutines = 2", "goroutines = 3"))
        return run_scenario(scenario)

    monkeypatch.setattr("experiments.run.run", run)
    with ThreadPoolExecutor(1) as executor:
        monkeypatch.setattr("experiments.sweeps.sweeping.crew_of", lambda jobs: _crew(executor))
        with pytest.raises(SystemExit) as ended:
            cli.main(["sweep", str(tmp_path / "sweep.toml"), "-o", str(tmp_path / "d"), "--format", "csv"])
    assert ended.value.code == 0
    assert "sweep.toml: it or its scenario was edited while the sweep ran" in capfd.readouterr().err.splitlines()[-2]


def test_a_worker_of_other_code_is_refused(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(work, "code_version", lambda: "0.9+abc")
    with (
        ThreadPoolExecutor(1) as executor,
        pytest.raises(InputError, match=r"a worker has allocsim 0.9\+abc, the sweep "),
    ):
        run_sweep(Sweep("api-service", axes={"gogc": [50]}), tmp_path / "d", executor, 1, ("csv",))
