"""A sweep's directory and its tables, with records made by hand: nothing is lost, nothing is mixed, nothing is guessed."""

import csv
import gzip
import json
import os
import subprocess
import sys

import pytest

from experiments.errors import InputError
from experiments.sweeps import Sweep, points, store, summary, tables
from experiments.sweeps.record import Latency, Record, decode, encode
from sim.metrics.histogram import Histogram, bucket_top

LATENCIES = {0: [900, 900, 1_000_000], 1: [900, 30_000_000]}


def sweep(**changes):
    wanted = {"axes": {"gogc": [50, "off"], "assists": [True, False]}, "replications": 2}
    return Sweep("api-service", **(wanted | changes))


def latency(values):
    """The record's histogram of values, by the recorder's own."""
    one = Histogram()
    for value in values:
        one.add(value)
    held = one.counts.nonzero()[0]
    found = one.summary()
    return Latency(
        found.total, found.maximum, found.percentiles, tuple(held.tolist()), tuple(one.counts[held].tolist())
    )


def record(results, run):
    """What a run would leave; its numbers say which it is."""
    if (run.point, run.replicate) == (2, 1):
        return Record(run.key, results.code, error='it, "failed"')
    return Record(
        run.key,
        results.code,
        metrics={
            "/sim/mallocs:objects": 10 * run.point + run.replicate,
            "/sim/gc/cpu:share": 0.25,
            "/huge:bytes": 1 << 63,
        }
        | ({"/only/here:bytes": 1 << 62} if run.point == 3 else {}),
        latency={"all": latency(LATENCIES[run.replicate])} if run.point == 0 else {},
        series_columns=("time_ps", "heap_live"),
        series=((0, 1), (5, run.point)),
    )


def fill(directory, wanted=None, backwards=False, only=None):
    """A directory with the records of a sweep, written in some order."""
    wanted = wanted or sweep()
    with store.opened(directory, wanted, points.points_of(wanted)[0]) as results:
        for run in list(results.runs)[:: -1 if backwards else 1][:only]:
            store.keep(results, run.key, encode(record(results, run)))
    return store.read(directory)


def seen(run, record):
    """What a summary would do with a record: nothing here."""


def contents(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def refusal(act, *arguments):
    """The line that refuses something."""
    with pytest.raises(InputError) as error:
        act(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_read_is_what_was_written(tmp_path):
    results = fill(tmp_path / "d")
    assert len(results.runs) == 8
    for run, found in results.records():
        assert found == record(results, run)
    assert results.values(results.runs[-1]) == {"gogc": "off", "assists": False}


def test_tables_are_the_same_bytes_in_whatever_order_runs_were_made(tmp_path):
    formats = ("csv", "jsonl")
    for name in ("a", "b"):
        tables.write(fill(tmp_path / name, backwards=name == "b"), formats, seen)
    a, b = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert {path.suffix for path in a} == {".gz", ".json", ".csv", ".jsonl"}
    assert a == b


def test_rows_of_the_tables(tmp_path):
    results = fill(tmp_path / "d")
    names = {path.name for path in tables.write(results, ("csv", "jsonl"), seen)}
    assert names == {f"{table}.{kind}" for table in ("runs", "series", "histograms") for kind in ("csv", "jsonl")}
    with (tmp_path / "d" / "runs.csv").open(newline="") as stream:
        runs = list(csv.DictReader(stream))
    assert list(runs[0])[:6] == ["point", "replicate", "seed", "gogc", "assists", "error"]
    assert [(row["point"], row["replicate"], row["seed"]) for row in runs[:3]] == [
        ("0", "0", "1"),
        ("0", "1", "2"),
        ("1", "0", "1"),
    ]
    assert [row["gogc"] for row in runs] == ["50"] * 4 + ["off"] * 4
    assert [row["assists"] for row in runs[:4]] == ["true", "true", "false", "false"]
    assert [row["/sim/mallocs:objects"] for row in runs] == ["0", "1", "10", "11", "20", "", "30", "31"]
    assert [row["error"] for row in runs] == [""] * 5 + ['it, "failed"', "", ""]
    assert [row["/only/here:bytes"] for row in runs] == [""] * 6 + [str(1 << 62)] * 2
    assert float(runs[0]["/sim/latency/all:seconds/mean"]) == pytest.approx(sum(LATENCIES[0]) / 3 / 1e12)
    assert float(runs[0]["/sim/latency/all:seconds/p50"]) == 900e-12
    assert runs[0]["/sim/latency/all:calls"] == "3"
    assert float(runs[1]["/sim/latency/all:seconds/max"]) == 30e-6
    lines = [json.loads(line) for line in (tmp_path / "d" / "histograms.jsonl").read_text().splitlines()]
    assert [(one["point"], one["replicate"], one["cause"], one["count"]) for one in lines] == [
        (0, 0, "all", 2),
        (0, 0, "all", 1),
        (0, 1, "all", 1),
        (0, 1, "all", 1),
    ]
    assert lines[0]["low_ns"] == lines[0]["high_ns"] == 0.9
    assert lines[3]["low_ns"] <= 30_000 <= lines[3]["high_ns"]
    with (tmp_path / "d" / "series.csv").open(newline="") as stream:
        assert list(csv.reader(stream))[:3] == [
            ["point", "replicate", "time_ps", "heap_live"],
            ["0", "0", "0", "1"],
            ["0", "0", "5", "0"],
        ]


def test_parquet_holds_the_same_rows(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    results = fill(tmp_path / "d")
    tables.write(results, ("jsonl", "parquet"), seen)
    for table in ("runs", "series", "histograms"):
        lines = [json.loads(line) for line in (tmp_path / "d" / f"{table}.jsonl").read_text().splitlines()]
        for line in lines:
            if line.get("/huge:bytes"):
                line["/huge:bytes"] = 2.0**63  # more than Parquet's integers hold
            if "gogc" in line:  # numbers and "off": text
                line |= {"gogc": str(line["gogc"]), "assists": str(line["assists"]).lower()}
        found = parquet.read_table(tmp_path / "d" / f"{table}.parquet")
        assert found.to_pylist() == lines
    schema = parquet.read_schema(tmp_path / "d" / "runs.parquet")
    assert str(schema.field("/only/here:bytes").type) == "int64"
    assert str(schema.field("/sim/gc/cpu:share").type) == "double"


def test_without_pyarrow_tables_are_csv_and_parquet_is_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert tables.formats() == ("csv",)
    assert refusal(tables.formats, ("parquet",)).startswith(
        "parquet: pyarrow is not installed; pip install 'allocsim[data]'"
    )


def test_percentiles_of_a_point_are_of_all_its_values_together(tmp_path):
    results = fill(tmp_path / "d")
    (point, *_) = summary.summary(results)["points"]
    assert point["runs"] == 2
    ordered = sorted(LATENCIES[0] + LATENCIES[1])
    assert point["malloc_ns"]["p50"] == ordered[2] / 1000  # the third of five; a mean of medians is 0.9 too,
    assert point["malloc_ns"]["p99.9"] == ordered[-1] / 1000  # but that of maxima is not
    both = [record(results, run).latency["all"] for run in results.runs[:2]]
    (found,) = summary.percentiles(both, [70.0])
    assert found == bucket_top(int(latency([ordered[3]]).buckets[0]))
    failed = summary.summary(results)["failed"]
    assert [(one["point"], one["replicate"], one["error"]) for one in failed] == [(2, 1, 'it, "failed"')]


def test_a_begun_sweep_goes_on_and_more_replications_take_over_what_is_there(tmp_path):
    before = fill(tmp_path / "d")
    made = contents(tmp_path / "d" / "runs")
    more = sweep(replications=3)
    with store.opened(tmp_path / "d", more, points.points_of(more)[0]) as results:
        assert [run.replicate for run in results.runs if not results.has(run)] == [2, 2, 2, 2]
        assert results.record(results.runs[0]) == before.record(before.runs[0])
    assert contents(tmp_path / "d" / "runs") == made
    assert len(store.read(tmp_path / "d").runs) == 12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"replications": 1}, "holds 2 replications, not 1; ask for as many or more, or name a new directory with -o"),
        (
            {"seed": 2},
            "holds another sweep: scenario, [set] or seed of its point 0 (gogc = 50, assists = True) were others",
        ),
        ({"set": {"run.duration": "1ms"}}, "holds another sweep: scenario, [set] or seed of its point 0"),
        ({"axes": {"gogc": [50]}}, "holds another sweep, of 4 points, not 1; name a new directory"),
        (
            {"axes": {"gogc": [50, 60], "assists": [True, False]}},
            "its point 2 is gogc = off, assists = True, not gogc = 60",
        ),
        ({"scenario": "batch-worker"}, "holds another sweep: scenario, [set] or seed"),
    ],
)
def test_a_directory_of_another_sweep_is_refused_and_left_as_it_is(tmp_path, changes, said):
    fill(tmp_path / "d")
    held = contents(tmp_path / "d")
    scenario = changes.pop("scenario", "api-service")
    wanted = {"axes": {"gogc": [50, "off"], "assists": [True, False]}, "replications": 2} | changes
    assert said in refusal(fill, tmp_path / "d", Sweep(scenario, **wanted))
    assert contents(tmp_path / "d") == held


def test_a_directory_of_another_version_of_the_code_is_refused_and_left_as_it_is(tmp_path, monkeypatch):
    fill(tmp_path / "d")
    held = contents(tmp_path / "d")
    for module in (store, points):
        monkeypatch.setattr(module, "code_version", lambda: "0.9+abc")
    line = refusal(fill, tmp_path / "d")
    assert "was begun by allocsim " in line
    assert (
        ", this is 0.9+abc, whose results may differ; name a new directory with -o, or go on with that version" in line
    )
    assert contents(tmp_path / "d") == held


def test_records_of_another_schema_or_version_are_not_mixed_in(tmp_path):
    results = fill(tmp_path / "d")
    run = results.runs[0]
    held = json.loads(gzip.decompress(results.path(run.key).read_bytes()))
    results.path(run.key).write_bytes(gzip.compress(json.dumps(held | {"schema": 2, "allocsim": "7.0"}).encode()))
    assert "is of schema 2, written by allocsim 7.0; this is " in refusal(results.record, run)
    results.path(run.key).write_bytes(gzip.compress(json.dumps(held | {"code": "7.0+1"}).encode()))
    assert "was made by allocsim 7.0+1, the sweep by " in refusal(results.record, run)
    whole = json.loads((tmp_path / "d" / "sweep.json").read_text())
    (tmp_path / "d" / "sweep.json").write_text(json.dumps(whole | {"schema": 2, "allocsim": "7.0"}))
    assert "is of schema 2, written by allocsim 7.0; this is " in refusal(store.read, tmp_path / "d")


def test_damage_is_named(tmp_path):
    results = fill(tmp_path / "d")
    path = results.path(results.runs[0].key)
    whole = path.read_bytes()
    parsed = json.loads(gzip.decompress(whole))
    swapped = results.path(results.runs[1].key).read_bytes()
    broken = [whole[:-9], whole[:40], b"", whole + b"x", whole[:60] + b"?" + whole[61:], b"text", swapped]
    broken += [
        gzip.compress(json.dumps(one).encode())
        for one in ([], {}, parsed | {"metrics": {"a": "1"}}, parsed | {"series": [[1]]}, {"schema": 1})
    ]
    for held in broken:
        path.write_bytes(held)
        line = refusal(results.record, results.runs[0])
        assert line.startswith(f"{path}: is damaged ("), held
        assert line.endswith("; give the command of the sweep again, which runs it again")
    (tmp_path / "d" / "sweep.json").write_text('{"schema": 1, "points": [{"values": {}, "keys": ["../../etc"]}]}')
    assert "sweep.json: is damaged (" in refusal(store.read, tmp_path / "d")


def test_a_full_disk_stops_the_sweep_and_leaves_whole_records_alone(tmp_path):
    """RLIMIT_FSIZE stands in for it: a write past it fails in the middle, as on a full disk."""
    code = f"""
import resource, sys
sys.path[:0] = {[os.getcwd(), os.path.dirname(__file__)]}
from experiments.errors import InputError
from experiments.sweeps import store, points
from test_sweep_store import sweep
with store.opened("d", sweep(), points.points_of(sweep())[0]) as results:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    store.keep(results, results.runs[0].key, b"x" * 99)
    try:
        store.keep(results, results.runs[1].key, b"x" * 200)
    except InputError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "cannot be written (File too large); make room and give the same command again, which goes on" in run.stdout
    assert [len(held) for held in contents(tmp_path / "d" / "runs").values()] == [99]


def test_two_sweeps_at_a_time_in_a_directory_are_one_too_many(tmp_path):
    wanted = sweep()
    found, _ = points.points_of(wanted)
    with store.opened(tmp_path / "d", wanted, found):
        assert "another sweep is at work in it" in refusal(fill, tmp_path / "d")
    fill(tmp_path / "d")


def test_directories_that_cannot_be_used(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert "exists and holds no sweep; name a new directory with -o" in refusal(fill, tmp_path / "full")
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"
    assert "cannot be written (File exists)" in refusal(fill, tmp_path / "full" / "mine.txt")
    assert "there is no directory" in refusal(fill, tmp_path / "no" / "d")
    assert "holds no sweep; name a directory that `allocsim sweep -o` wrote" in refusal(store.read, tmp_path / "full")


def test_a_record_round_trips_as_the_same_bytes():
    one = Record(
        "k", "c", metrics={"a": 0.1, "b": 1 << 62}, latency={"all": latency([5, 5, 70_000])}, cycles=(("1", "x"),)
    )
    assert decode(encode(one)) == one
    assert encode(decode(encode(one))) == encode(one)
