"""Exports, each read back by an independent reader: benchstat, hdrhistogram, prometheus_client, csv."""

import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from experiments import cli, result
from experiments.export import benchmark, hdr, openmetrics, table
from experiments.export.exported import Exported
from experiments.run import run
from experiments.stats.quantiles import merge, quantile
from experiments.toolchain import NoGo, command, toolchains
from sim.jit import PLAIN
from sim.metrics.histogram import BUCKETS, bucket_of_int
from workloads.scenario import load

SMALL = f"mallocs={200 if PLAIN else 5_000}"


@pytest.fixture(scope="module")
def found():
    """Two runs of a service that differ in their seed, one with a timeline."""
    return [run(load("api-service", [SMALL], seed), timeline=seed == 1) for seed in (1, 2)]


@pytest.fixture(scope="module")
def directories(found, tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    for number, one in enumerate(found, 1):
        result.store(result.free_directory(str(folder / f"run{number}")), one, {})
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def runs(found):
    return [
        Exported(one["scenario"], one["config"], one["metrics"], histograms)
        for one, histograms in (
            (each.to_dict(), {cause: result.buckets(row) for cause, row in each.counts.items()}) for each in found
        )
    ]


def counted(seed, values=2000):
    """A histogram of values of all magnitudes up to the last bucket."""
    rng = np.random.default_rng(seed)
    places = np.bincount(rng.integers(0, BUCKETS, values), minlength=BUCKETS)
    places[bucket_of_int(40_000)] = 10**12
    places[-1] = 1
    return result.buckets(places)


# Go benchmark text


def read_benchmarks(text):
    """The documented grammar (golang.org/design/14313-benchmark-format): (config, name, iterations, {unit: value})."""
    config, found = {}, []
    for line in text.splitlines():
        if line.startswith("Benchmark"):
            name, iterations, *rest = line.split()
            assert len(rest) >= 2
            assert len(rest) % 2 == 0
            values = {unit: float(value) for value, unit in zip(rest[::2], rest[1::2], strict=True)}
            assert len(values) == len(rest) // 2
            found.append((dict(config), name.removeprefix("Benchmark"), int(iterations), values))
        elif key := re.fullmatch(r"([a-z][^\sA-Z:]*):(?:[ \t]+(.*))?", line):
            if key[2]:
                config[key[1]] = key[2]
            else:
                config.pop(key[1], None)
        else:  # ignored, but for units
            assert re.fullmatch(r"Unit( \S+)( [^\s=]+=\S+)+|#.*|", line), line
    return found


def test_benchmark_text_follows_the_grammar(runs, found):
    answer = read_benchmarks("\n".join(benchmark.lines(runs)))
    assert len(answer) == sum(1 + sum(1 for one in each.histograms.values() if one) for each in runs)
    configs = {json.dumps(config, sort_keys=True) for config, *_ in answer}
    assert len(configs) == 1  # seeds are samples of one benchmark, not two benchmarks
    config = answer[0][0]
    assert config["goos"] == "linux"
    assert (config["gogc"], config["gomaxprocs"], config["version"], config["rate"]) == ("100", "4", "go1.27", "20000")
    assert "seed" not in config
    first = {name: (iterations, values) for _, name, iterations, values in answer[: len(answer) // 2]}
    whole = found[0].latency["all"]
    iterations, values = first["Malloc/cause=all-4"]
    assert iterations == whole.count
    assert values["ns/op"] == pytest.approx(whole.mean / 1000, rel=5e-4)
    assert values["p99-ns"] == whole.percentiles[2] / 1000
    assert first["Response-4"][1]["p50-ns"] == found[0].response.percentiles[0] / 1000
    assert first["Run-4"][1]["ns/op"] == pytest.approx(found[0].metrics["/sim/time:seconds"] * 1e9, rel=1e-8)


def test_settings_that_differ_make_other_benchmarks(runs):
    one = runs[0]
    runtime = one.config["runtime"]
    objects = [*one.config["workload"]["objects"][:-1]]
    others = [
        replace(one, config=one.config | {"runtime": {k: v for k, v in runtime.items() if k != "gogc"}}),
        replace(one, config=one.config | {"workload": one.config["workload"] | {"objects": objects}}),
        replace(one, metrics=dict(one.metrics) | {"/sched/gomaxprocs:threads": 1}),
    ]
    answer = read_benchmarks("\n".join(benchmark.lines([one, *others])))
    configs = [config for config, name, *_ in answer if name in ("Run", "Run-4")]
    assert [config.get("gogc") for config in configs] == ["100", None, "100", "100"]
    assert len({config["objects"] for config in configs}) == 2
    assert {name for _, name, *_ in answer} >= {"Malloc/cause=all", "Malloc/cause=all-4"}


@pytest.mark.skipif(shutil.which("benchstat") is None, reason="no benchstat on PATH")
def test_benchstat_reads_it(runs, tmp_path):
    changed = [replace(one, config=one.config | {"runtime": one.config["runtime"] | {"gogc": 200}}) for one in runs]
    path = tmp_path / "bench.txt"
    path.write_text("\n".join(benchmark.lines([*runs, *changed])) + "\n")
    done = subprocess.run(
        ["benchstat", "-col", "gogc", "-format", "csv", str(path)], capture_output=True, text=True, check=True
    )
    assert not [line for line in done.stderr.splitlines() if "bench.txt" in line]  # no syntax errors
    rows = [row for row in csv.reader(done.stdout.splitlines()) if row and row[0] == "Malloc/cause=all-4"]
    medians = [np.median([quantile(one.histograms["all"], 0.5) for one in runs]) * 1e-12] * 2
    assert any([float(row[1]), float(row[3])] == pytest.approx(medians, rel=1e-6) for row in rows)


# HdrHistogram


def read_log(path):
    """The intervals of a .hlog file by the package of HdrHistogram's own project."""
    histogram, log = pytest.importorskip("hdrh.histogram"), pytest.importorskip("hdrh.log")
    reader = log.HistogramLogReader(str(path), histogram.HdrHistogram(1, (1 << 53) - 1, 3))
    found = []
    while (one := reader.get_next_interval_histogram()) is not None:
        found.append(one)
    reader.close()
    return found


def log_of(tmp_path, runs):
    path = tmp_path / "x.hlog"
    path.write_text("\n".join(hdr.interval_log(runs)) + "\n")
    return path


@pytest.mark.parametrize("seed", [1, 2])
def test_interval_logs_hold_every_count(tmp_path, seed):
    histogram = counted(seed)
    (read,) = read_log(log_of(tmp_path, [({"all": histogram}, 1.0)]))
    assert read.get_total_count() == sum(count for *_, count in histogram)
    for low, high, count in histogram:
        assert read.get_count_at_value(low) == read.get_count_at_value(high) == count
        assert (read.get_lowest_equivalent_value(high), read.get_highest_equivalent_value(low)) == (low, high)
    for q in (0.001, 0.5, 0.9999):
        assert read.get_value_at_percentile(100 * q) == quantile(histogram, q)


def test_interval_logs_tag_causes_and_follow_in_time(tmp_path, runs):
    path = log_of(tmp_path, [(one.histograms, one.metrics["/sim/time:seconds"]) for one in runs])
    read = read_log(path)
    counted_causes = [[cause for cause, one in each.histograms.items() if one] for each in runs]
    assert [one.get_tag() for one in read] == counted_causes[0] + counted_causes[1]
    first, second = read[0], read[len(counted_causes[0])]
    length = 1000 * runs[0].metrics["/sim/time:seconds"]
    assert (first.get_start_time_stamp(), second.get_start_time_stamp()) == (0, pytest.approx(length, rel=1e-4))
    assert first.get_end_time_stamp() == pytest.approx(length, rel=1e-4)
    first.add(second)  # merged by the reader as by us
    assert first.get_value_at_percentile(99) == quantile(merge(one.histograms["all"] for one in runs), 0.99)
    largest = float(path.read_text().splitlines()[5].split(",")[3])
    assert largest == pytest.approx(runs[0].histograms["all"][-1][1] / 1e9)


@pytest.mark.parametrize("histogram", [counted(3), [(7, 7, 1)], [(5, 5, 1), (9, 9, 1)]])
def test_percentile_distributions_are_those_of_hdrhistogram(tmp_path, histogram):
    (read,) = read_log(log_of(tmp_path, [({"all": histogram}, 1.0)]))
    text = list(hdr.percentile_distribution(histogram))
    assert text[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in text[2:-3]]
    values, levels, counts = ([float(row[column]) for row in rows] for column in range(3))
    total = read.get_total_count()
    assert levels[:11] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75][: len(levels) - 1] + [1.0] * (
        len(levels) < 12
    )
    assert (levels[-1], counts[-1], len(rows[-1])) == (1.0, total, 3)
    below = {0: 0} | {
        one.value_iterated_to / 1000: one.total_count_to_this_value for one in read.get_recorded_iterator()
    }
    reached = list(below)
    for row, value, level, count in zip(rows[:-1], values, levels, counts, strict=False):
        assert below[value] == count
        before = below[reached[reached.index(value) - 1]]
        assert before / total < level + 1e-12 <= count / total + 2e-12 or value == reached[1]
        assert 1 - 1 / float(row[3]) == pytest.approx(level, abs=0.01 / float(row[3]) ** 2 + 1e-12)
    facts = dict(re.findall(r"(\w[\w ]*?) *= *([\d.]+)", "\n".join(text[-3:])))
    assert float(facts["Mean"]) == pytest.approx(read.get_mean_value() / 1000, abs=5e-4, rel=1e-9)
    assert float(facts["StdDeviation"]) == pytest.approx(read.get_stddev() / 1000, abs=6e-4, rel=1e-9)
    assert float(facts["Max"]) == read.get_highest_equivalent_value(read.get_max_value()) / 1000
    assert int(facts["Total count"]) == total
    assert (int(facts["Buckets"]), int(facts["SubBuckets"])) == (read.bucket_count, read.sub_bucket_count)


# OpenMetrics

CLIENT_GOLANG = {  # as its go_collector_metrics_go126_test.go lists them
    "/cpu/classes/gc/mark/assist:cpu-seconds": "go_cpu_classes_gc_mark_assist_cpu_seconds_total",
    "/gc/cycles/total:gc-cycles": "go_gc_cycles_total_gc_cycles_total",
    "/gc/gogc:percent": "go_gc_gogc_percent",
    "/gc/heap/allocs:bytes": "go_gc_heap_allocs_bytes_total",
    "/gc/heap/objects:objects": "go_gc_heap_objects_objects",
    "/gc/heap/tiny/allocs:objects": "go_gc_heap_tiny_allocs_objects_total",
    "/gc/limiter/last-enabled:gc-cycle": "go_gc_limiter_last_enabled_gc_cycle",
    "/gc/stack/starting-size:bytes": "go_gc_stack_starting_size_bytes",
    "/memory/classes/metadata/mspan/inuse:bytes": "go_memory_classes_metadata_mspan_inuse_bytes",
    "/memory/classes/os-stacks:bytes": "go_memory_classes_os_stacks_bytes",
    "/sched/gomaxprocs:threads": "go_sched_gomaxprocs_threads",
    "/sched/goroutines-created:goroutines": "go_sched_goroutines_created_goroutines_total",
    "/sim/heap/peak:bytes": "allocsim_heap_peak_bytes",
    "/sim/throughput:mallocs-per-second": "allocsim_throughput_mallocs_per_second",
    "/sim/time/malloc:cpu-seconds": "allocsim_time_malloc_cpu_seconds_total",
}


def read_snapshot(one):
    """Samples by name and labels, and types, by Prometheus' own reader."""
    parser = pytest.importorskip("prometheus_client.openmetrics.parser")
    families = list(parser.text_string_to_metric_families("\n".join(openmetrics.lines(one)) + "\n"))
    samples = {(s.name, *sorted(s.labels.items())): s.value for family in families for s in family.samples}
    return samples, {family.name: family.type for family in families}


def test_snapshots_are_read_by_prometheus_client(runs):
    one = runs[0]
    samples, types = read_snapshot(one)
    for metric, name in CLIENT_GOLANG.items():
        assert samples[(name,)] == float(one.metrics[metric]), metric
    info = (("scenario", "api-service"), ("seed", "1"), ("version", "go1.27"))
    assert samples[("allocsim_run_info", *info)] == 1
    assert samples[("go_sched_latencies_seconds", ("quantile", "0.99"))] == one.metrics["/sched/latencies:seconds/p99"]
    assert samples[("go_gc_pauses_seconds_count",)] == one.metrics["/gc/pauses:seconds/count"]
    assert (types["go_sched_latencies_seconds"], types["allocsim_malloc_seconds"]) == ("summary", "histogram")
    by_size = [v for k, v in one.metrics.items() if k.startswith("/gc/heap/allocs-by-size:bytes/")]
    assert samples[("go_gc_heap_allocs_by_size_bytes_bucket", ("le", "+Inf"))] == sum(by_size)
    small = sum(one.metrics.get(f"/gc/heap/allocs-by-size:bytes/{size}", 0) for size in (8, 16, 24, 32))
    assert samples[("go_gc_heap_allocs_by_size_bytes_bucket", ("le", "32.0"))] == small
    for cause in ("all", "fast"):
        counts = one.histograms[cause]
        whole = sum(n for *_, n in counts)
        for limit, picoseconds in (("1e-08", 10_000), ("5e-07", 500_000), ("10.0", 10**13)):
            key = ("allocsim_malloc_seconds_bucket", ("cause", cause), ("le", limit))
            assert samples[key] == sum(n for _, high, n in counts if high <= picoseconds)
        assert samples[("allocsim_malloc_seconds_count", ("cause", cause))] == whole
        assert samples[("allocsim_malloc_seconds_sum", ("cause", cause))] > 0
    assert samples[("allocsim_response_seconds_count",)] == one.metrics["/sim/requests/done:requests"]


def test_snapshots_escape_what_a_scenario_may_be_called(runs):
    samples, _ = read_snapshot(replace(runs[0], scenario='a "b"\\c'))
    assert any(("scenario", 'a "b"\\c') in key for key in samples)


def test_what_grows_is_what_the_runtime_says_grows(runs):
    try:
        newest = toolchains(())[-1]
    except NoGo:
        pytest.skip("no Go toolchain")
    version = runs[0].config["runtime"]["version"]
    if (newest.model, newest.distance) != (version, 0):
        pytest.skip(f"go{newest.version} has not all metrics of {version}")
    root = Path(command([newest.path, "env", "GOROOT"]).strip())
    text = (root / "src/runtime/metrics/description.go").read_text()
    told = {}
    for block in text.split("Name:")[1:]:
        name = re.search(r'"(/[^"]+)"', block)
        told[name[1]] = bool(re.search(r"Cumulative:\s+true", block)) and "KindFloat64Histogram" not in block
    ours = {name for name in runs[0].metrics if name.count("/", name.index(":")) == 0 and not name.startswith("/sim/")}
    assert ours <= told.keys()
    assert {name for name in ours if told[name]} == ours & openmetrics.CUMULATIVE


# Tables


def test_tables_have_a_row_per_run(runs):
    less = replace(runs[1], metrics={k: v for k, v in runs[1].metrics.items() if k != "/gc/heap/live:bytes"})
    rows = list(csv.DictReader(table.lines([runs[0], less])))
    assert [row["seed"] for row in rows] == ["1", "2"]
    assert [row["gogc"] for row in rows] == ["100", "100"]
    assert json.loads(rows[0]["objects"]) == runs[0].config["workload"]["objects"]
    for name, value in runs[0].metrics.items():
        assert json.loads(rows[0][name]) == value
    assert rows[1]["/gc/heap/live:bytes"] == ""


# The command


@pytest.fixture
def export(tmp_path, monkeypatch, capsys):
    """A function: run the command in an empty directory; its exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main(["export", *map(str, arguments)])
        return (ended.value.code, *capsys.readouterr())

    return call


def test_the_command_writes_what_the_formats_say(export, directories, runs, tmp_path):
    one, other = directories
    merged = merge(each.histograms["all"] for each in runs)
    expected = {
        ("benchstat", one, other): benchmark.lines(runs),
        ("hgrm", one, other): hdr.percentile_distribution(merged),
        ("hgrm", one, "--cause", "response"): hdr.percentile_distribution(runs[0].histograms["response"]),
        ("hlog", one): hdr.interval_log([(runs[0].histograms, runs[0].metrics["/sim/time:seconds"])]),
        ("openmetrics", one): openmetrics.lines(runs[0]),
        ("csv", one, other): table.lines(runs),
    }
    for (form, *arguments), lines in expected.items():
        text = "".join(f"{line}\n" for line in lines)
        assert export(*arguments, "--format", form) == (0, text, "")
    assert export(one, "--format", "csv", "-o", "x.csv")[0] == 0
    assert (tmp_path / "x.csv").read_text() == "".join(f"{line}\n" for line in table.lines(runs[:1]))
    assert export(one, "--format", "perfetto", "-o", "x.pftrace") == (0, "", "")
    assert (tmp_path / "x.pftrace").read_bytes() == (one / "timeline.pftrace").read_bytes()


def test_bad_input_gets_one_line(export, directories, tmp_path):
    one, other = directories
    (tmp_path / "empty").mkdir()
    (tmp_path / "there").write_text("mine")
    old, odd = tmp_path / "old", tmp_path / "odd"
    shutil.copytree(one, old)
    summary = json.loads((old / "summary.json").read_text())
    (old / "summary.json").write_text(json.dumps(summary | {"schema": 99}))
    shutil.copytree(one, odd)
    text = (odd / "latency.csv").read_text()
    (odd / "latency.csv").write_text(text + "odd,4.000,4.000,1\nodd,4.001,4.001,1\n")
    before = sorted(tmp_path.rglob("*"))
    refused = {
        ("nowhere", "--format", "hgrm"): "nowhere: is no directory",
        ("empty", "--format", "csv"): "empty: holds no result",
        (old, "--format", "csv"): "is of schema 99",
        (odd, "--format", "hlog"): "odd: damaged latency.csv (two buckets are one of HdrHistogram, at 4001 ps",
        (one, "--format", "pdf"): "'pdf' is not one of 'benchstat', 'hgrm'",
        (one,): "missing option '--format'",
        (one, "--format", "hgrm", "--cause", "central"): f"{one}: has no latencies of cause central; it has all",
        (one, other, "--format", "openmetrics"): f"{other}: openmetrics is of one result alone",
        (one, f"{one}/", "--format", "csv"): f"{one}/: is named twice",
        (one, "--format", "csv", "--cause", "all"): "--cause all: csv knows no causes",
        (one, "--format", "perfetto"): "perfetto is no text",
        (other, "--format", "perfetto", "-o", "x"): "has no timeline.pftrace; run the scenario again with --timeline",
        (one, "--format", "csv", "-o", "there"): "there: exists already",
        (one, "--format", "csv", "--force", "-o", one / "series.csv"): "is what is read",
        (one, "--format", "csv", "-o", "no/x"): "there is no directory no",
    }
    for arguments, what in refused.items():
        status, out, err = export(*arguments)
        assert (status, out, err.count("\n")) == (2, "", 1), (arguments, err)
        assert what in err
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there").read_text() == "mine"
