"""Results on disk: whole or not at all, the same bytes on every machine, read back as written, damaged ones refused."""

import csv
import json
import math
import os
import random
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import result
from experiments.errors import InputError
from experiments.machine_file import read_machine
from experiments.render import Look, render
from experiments.run import run
from sim.go.mstats import MEM_STATS, check_mem_stats
from sim.jit import PLAIN
from sim.metrics.cycles import COLUMNS
from sim.metrics.gctrace import trace_lines
from sim.metrics.go_text import go_json
from sim.metrics.histogram import BUCKETS, bucket_of_int, summarize
from sim.metrics.perfetto import packets
from sim.metrics.timeline import Timeline, add_cycle, go_tracks
from sim.units import Throw
from tests.metrics.cycle_records import cycles
from workloads.scenario import list_scenarios, load

SMALL = f"mallocs={200 if PLAIN else 5_000}"
HOST = {"host": "here", "wall_seconds": 1.5}


@pytest.fixture(scope="module")
def found():
    """A run of a service: it has everything a result can have."""
    return run(load("api-service", [SMALL]))


@pytest.fixture
def stored(found, tmp_path):
    target = result.free_directory(str(tmp_path / "out"))
    result.store(target, found, HOST)
    return target


def test_the_files(stored, found):
    names = ["host.json", "latency.csv", "memstats.json", "scenario.toml", "series.csv", "summary.json", "versions.json"]
    assert sorted(path.name for path in stored.iterdir()) == names
    assert [path.name for path in stored.parent.iterdir()] == ["out"]
    assert json.loads((stored / "summary.json").read_text()) == found.to_dict()
    assert json.loads((stored / "host.json").read_text()) == HOST
    versions = json.loads((stored / "versions.json").read_text())
    assert versions == {"allocsim": "0.1.0", "schema": 1, "go": "go1.27"}
    assert (stored.stat().st_mode & 0o777) == (0o777 & ~_umask())


def _umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_a_stored_report_is_the_one_that_was_shown(stored, found):
    shown = result.report(found)
    read = result.read(str(stored))
    assert read == shown
    assert json.dumps(read.summary) == json.dumps(shown.summary)  # in the same order
    assert render(read, Look()) == render(shown, Look())


def test_latency_csv_holds_the_histograms(stored, found):
    counts = {cause: np.zeros(BUCKETS, np.int64) for cause in found.counts}
    with (stored / "latency.csv").open() as stream:
        for row in csv.DictReader(stream):
            low, high = (round(float(row[key]) * 1000) for key in ("low_ns", "high_ns"))
            assert bucket_of_int(low) == bucket_of_int(high)
            assert not low or bucket_of_int(low - 1) < bucket_of_int(low)
            assert bucket_of_int(high + 1) > bucket_of_int(high)
            assert int(row["count"]) > 0
            counts[row["cause"]][bucket_of_int(low)] += int(row["count"])
    for cause, expected in found.counts.items():
        assert (counts[cause] == expected).all()
    whole = found.latency["all"]
    assert summarize(counts["all"], whole.total, whole.maximum) == whole


def test_series_csv_holds_the_series(stored, found):
    with (stored / "series.csv").open() as stream:
        header, *rows = csv.reader(stream)
    assert tuple(header) == found.series.columns
    assert [tuple(map(int, row)) for row in rows] == found.series.rows


@pytest.mark.parametrize("name", [name for name, _ in list_scenarios()])
def test_the_scenario_loads_again(found, tmp_path, name):
    scenario = load(name, [SMALL], seed=(1 << 64) - 1)
    result.store(tmp_path / "out", replace(found, scenario=scenario), HOST)
    assert load(tmp_path / "out" / "scenario.toml") == replace(scenario, name="scenario")


def test_a_scenario_of_odd_text_loads_again(found, tmp_path):
    scenario = replace(found.scenario, purpose='quotes " and \\ and µ and 🂡')
    result.store(tmp_path / "out", replace(found, scenario=scenario), HOST)
    assert load(tmp_path / "out" / "scenario.toml") == replace(scenario, name="scenario")


def test_a_machine_file_comes_along(found, tmp_path):
    """A result with prices of one's own can be moved and run again, and names no path of this machine."""
    source = Path(read_machine("epyc-2core").path)
    text = (Path(result.__file__).parent / "machines" / source.name).read_bytes()
    (tmp_path / "mine.toml").write_bytes(text)
    scenario = load("api-service", [SMALL, f"prices={tmp_path}/mine.toml"])
    result.store(tmp_path / "out", replace(found, scenario=scenario), HOST, text)
    moved = tmp_path / "elsewhere"
    (tmp_path / "out").rename(moved)
    again = load(moved / "scenario.toml")
    assert again.machine == str(moved / "machine.toml")
    assert Path(again.machine).read_bytes() == text
    assert all(str(tmp_path).encode() not in path.read_bytes() for path in moved.iterdir())


# Places


def refused(function, *arguments):
    with pytest.raises(InputError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message and "; " in message
    return message


def test_places_that_are_refused_before_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("kept")
    (tmp_path / "file").write_text("kept")
    (tmp_path / "link").symlink_to("full")
    hint = "name a new directory with -o"
    assert refused(result.free_directory, "full") == f"full: exists and is not empty; {hint}"
    assert refused(result.free_directory, "link") == f"link: exists and is not empty; {hint}"
    assert refused(result.free_directory, "file") == "file: exists and is no directory; name a new one with -o"
    assert "is no directory" in refused(result.free_directory, "")
    assert "is no directory" in refused(result.free_directory, "a\0b")
    assert f"no/where: there is no directory {tmp_path}/no" in refused(result.free_directory, "no/where")
    assert f"there is no directory {tmp_path}/file" in refused(result.free_directory, "file/out")
    assert "File name too long" in refused(result.free_directory, "x" * 300)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "is in use" in refused(result.free_directory, ".")
    assert (tmp_path / "full" / "file").read_text() == "kept"


def test_a_parent_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # whoever runs this, and on whatever disk
    assert f"directory {tmp_path} is not writable" in refused(result.free_directory, str(tmp_path / "out"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_parent_without_permission(tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o500)
    assert "is not writable" in refused(result.free_directory, str(tmp_path / "theirs" / "out"))


def test_an_empty_directory_is_taken(found, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "link").symlink_to("out")
    result.store(result.free_directory(str(tmp_path / "link")), found, HOST)
    assert (tmp_path / "link" / "summary.json").exists() and (tmp_path / "link").is_symlink()


def test_a_place_that_was_taken_meanwhile_is_left_alone(found, tmp_path):
    target = result.free_directory(str(tmp_path / "out"))
    target.mkdir()
    (target / "theirs").write_text("kept")
    message = refused(result.store, target, found, HOST)
    assert sorted(path.name for path in target.iterdir()) == ["theirs"]
    kept = Path(message.partition("the result is in ")[2])
    assert result.read(str(kept)) == result.report(found)


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_nothing(found, tmp_path, monkeypatch, failure):
    def fail(rows):
        raise failure

    monkeypatch.setattr(result, "_comma_separated", fail)
    if isinstance(failure, OSError):
        assert "No space left on device" in refused(result.store, tmp_path / "out", found, HOST)
    else:
        with pytest.raises(KeyboardInterrupt):
            result.store(tmp_path / "out", found, HOST)
    assert list(tmp_path.iterdir()) == []


# Damage


def test_directories_that_hold_no_result(stored, tmp_path):
    (tmp_path / "empty").mkdir()
    wrote = "that `allocsim run -o` wrote"
    assert refused(result.read, str(tmp_path / "no")) == f"{tmp_path}/no: is no directory; name one {wrote}"
    assert refused(result.read, "a\0b").endswith(f"is no directory; name one {wrote}")
    assert refused(result.read, "").startswith("'': is no directory")
    assert refused(result.read, str(stored / "summary.json")).endswith(f"is no directory; name one {wrote}")
    assert "holds no result" in refused(result.read, str(tmp_path / "empty"))


def test_another_schema_is_named(stored):
    path = stored / "summary.json"
    summary = json.loads(path.read_text()) | {"schema": 2, "allocsim": "9.9"}
    path.write_text(json.dumps(summary))
    expected = f"{path}: is of schema 2, written by allocsim 9.9; this is 0.1.0, which reads schema 1"
    assert refused(result.read, str(stored)) == expected


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "1", '{"schema": true}', '{"schema": 1}', "\xff", "[" * 100_000, '{"a": NaN}', "9" * 5000]
    + ['{"schema": 1.0}', '{"schema": "1"}', '{"schema": 1, "scenario": 3}'],
)
def test_a_summary_that_is_none(stored, text):
    (stored / "summary.json").write_bytes(text.encode("latin-1"))
    assert "summary.json: is damaged (" in refused(result.read, str(stored))


@pytest.mark.parametrize(
    "text",
    ["", "cause\n", "cause,low_ns,high_ns,count\nall,1.000,1.000\n", "cause,low_ns,high_ns,count\nall,x,1.000,2\n"]
    + [
        f"cause,low_ns,high_ns,count\nall,{row}\n"
        for row in ("1.000,1.000,-2", "2.000,1.000,2", "1.0,1.000,2", "1.000,1.000,0")
    ]
    + [
        "cause,low_ns,high_ns,count\nall,1.000,1.000,1\nall,1.000,1.000,1\n",
        "cause,low_ns,high_ns,count\nall,1.000,1.000,1\n",
    ],
)
def test_a_histogram_that_is_none(stored, text):
    (stored / "latency.csv").write_text(text)
    assert "latency.csv: is damaged (" in refused(result.read, str(stored))


def test_files_that_are_missing_or_no_files(stored):
    (stored / "latency.csv").unlink()
    assert "latency.csv: no such file" in refused(result.read, str(stored))
    os.mkfifo(stored / "latency.csv")
    assert "latency.csv: no such file" in refused(result.read, str(stored))  # and does not wait for a writer
    (stored / "summary.json").unlink()
    (stored / "summary.json").mkdir()
    assert "summary.json: no such file" in refused(result.read, str(stored))


def test_files_are_bounded(stored, monkeypatch):
    with (stored / "summary.json").open("r+b") as stream:
        stream.truncate(1 << 40)  # sparse: nothing of it may be read but the first part
    assert "larger than 16 MiB" in refused(result.read, str(stored))


def mutations(value, path=()):
    """The paths of everything in a document."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from mutations(value[key], (*path, key))


def test_whatever_is_read_can_be_shown(stored):
    """Each value of a summary taken away, or replaced by something of another type or size."""
    path = stored / "summary.json"
    text = path.read_text()
    wrong = [None, True, -1, 1.5, 10**30, 1e300, "text", [], {}]
    accepted = 0
    for place in mutations(json.loads(text)):
        for value in (wrong if len(place) < 4 else wrong[:3]) if place else ():
            summary = json.loads(text)
            node = summary
            for key in place[:-1]:
                node = node[key]
            if value is None:
                del node[place[-1]]
            else:
                node[place[-1]] = value
            path.write_text(json.dumps(summary))
            try:
                report = result.read(str(stored))
            except InputError as error:
                assert "\n" not in str(error)
            else:
                accepted += 1
                render(report, Look())
    assert accepted > 0


def test_bytes_that_were_flipped(stored, tmp_path):
    draw = random.Random(1)
    for name in ("summary.json", "latency.csv"):
        whole = (stored / name).read_bytes()
        for _ in range(100):
            damaged = bytearray(whole[: draw.randrange(len(whole))] if draw.random() < 0.2 else whole)
            for _ in range(draw.randrange(4)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            (stored / name).write_bytes(damaged)
            try:
                render(result.read(str(stored)), Look())
            except InputError as error:
                assert "\n" not in str(error)
        (stored / name).write_bytes(whole)
    assert math.isfinite(result.read(str(stored)).summary["latency"]["all"]["mean_ns"])
    shutil.rmtree(stored)


# Collections


@pytest.fixture
def collected(found, tmp_path):
    """A stored result of a run with collections, the lines of gctrace and a timeline."""
    timeline = Timeline()
    tracks = go_tracks(timeline, 4)
    run = tuple(cycles(5))
    for cycle in run:
        add_cycle(timeline, tracks, cycle)
    lines = tuple(trace_lines(run, "go1.27"))
    metrics = found.metrics | {"/gc/cycles/total:gc-cycles": len(run)}
    with_gc = replace(found, cycles=run, gctrace=lines, timeline=timeline, metrics=metrics)
    for name in ("out", "again"):
        result.store(tmp_path / name, with_gc, HOST)
    return with_gc, tmp_path / "out"


def test_memstats_json_is_what_the_real_one_looks_like(stored, found):
    text = (stored / "memstats.json").read_text()
    assert text == go_json(found.memstats) + "\n"
    stats = json.loads(text)
    check_mem_stats(stats)
    assert tuple(stats) == MEM_STATS
    assert stats["Mallocs"] == found.metrics["/sim/mallocs:objects"]


def test_files_of_collections(collected):
    with_gc, target = collected
    new = {"gc_cycles.csv", "gctrace.txt", "timeline.pftrace"}
    assert new < {path.name for path in target.iterdir()}
    assert (target / "gctrace.txt").read_text().splitlines() == list(with_gc.gctrace)
    assert (target / "timeline.pftrace").read_bytes() == b"".join(packets(with_gc.timeline, "api-service"))
    with (target / "gc_cycles.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert tuple(table[0]) == COLUMNS
    for row, cycle in zip(table, with_gc.cycles, strict=True):
        assert (int(row["number"]), row["kind"], int(row["heap0_bytes"])) == (cycle.number, cycle.kind, cycle.heap0)
    assert all(path.read_bytes() == (target.parent / "again" / path.name).read_bytes() for path in target.iterdir())


def test_collections_are_shown_again(collected):
    with_gc, target = collected
    report = result.read(str(target))
    assert report == result.report(with_gc) and report.cycles == with_gc.cycles
    assert "5 collections (1 forced)" in render(report, Look())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: lines[:-1], "4 cycles, and summary.json counts 5"),
        (lambda lines: lines[:2] + lines[3:], "line 3: cycle 3 comes as number 2"),
        (lambda lines: [lines[0].replace("heap0", "heap9"), *lines[1:]], "line 1: its first line names other columns"),
        (lambda lines: [lines[0], lines[1] + ",1", *lines[2:]], "line 2: .* cells, and there are"),
        (lambda lines: [lines[0], lines[1].replace(",heap,", ",full,"), *lines[2:]], "line 2: 'full' is no kind of cycle"),
        (lambda lines: [lines[0], "x" + lines[1], *lines[2:]], "line 2: number is 'x1', which is no int"),
        (lambda lines: [], "its first line names other columns"),
    ],
)
def test_a_table_of_cycles_that_is_damaged(collected, damage, message):
    path = collected[1] / "gc_cycles.csv"
    path.write_text("".join(f"{line}\n" for line in damage(path.read_text().splitlines())))
    text = refused(result.read, str(collected[1]))
    assert text.startswith(f"{path}: is damaged (") and re.search(message, text)


def test_a_table_of_cycles_that_is_missing(collected):
    (collected[1] / "gc_cycles.csv").unlink()
    assert "gc_cycles.csv: no such file" in refused(result.read, str(collected[1]))


def test_bytes_of_the_table_that_were_flipped(collected):
    path, draw = collected[1] / "gc_cycles.csv", random.Random(2)
    whole = path.read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            render(result.read(str(collected[1])), Look())
        except InputError as error:
            assert "\n" not in str(error)


def test_a_timeline_that_does_not_nest_leaves_nothing(found, tmp_path):
    timeline = Timeline()
    track = timeline.track("t")
    timeline.slice(track, 0, 2, "a")
    timeline.slice(track, 1, 3, "b")
    with pytest.raises(Throw, match="overlap"):
        result.store(tmp_path / "out", replace(found, timeline=timeline), HOST)
    assert list(tmp_path.iterdir()) == []
