"""Allocators side by side: the same stream for all, the same bytes for one seed, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from experiments.cli_compare import LISTS, MODELS, ORDERS, compare
from experiments.errors import InputError
from sim.go.params import VERSIONS

ROOT = Path(__file__).parents[2]
SMALL = ["--set", "mallocs=20000", "--set", "goroutines=2", "--set", "gomaxprocs=2", "--scenario", "ten-size"]


def run(*arguments):
    result = CliRunner().invoke(compare, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.stdout


def test_names_of_models_are_those_there_are():
    from sim.textbook import heap

    assert set(MODELS) >= {*VERSIONS, "tcmalloc", *heap.POLICIES}
    assert {*LISTS, "bump"} == set(heap.POLICIES) and ORDERS == heap.ORDERS


def test_models_see_one_stream_and_keep_their_own_memory(tmp_path):
    models = ["go1.27", "tcmalloc", "bump", "best-fit:lifo", "segregated-fit"]
    text = run(*models, *SMALL, "--json", "-o", str(tmp_path / "out"))
    found = {one["model"]: one for one in json.loads(text)["compare"]}
    assert list(found) == models
    assert {one["mallocs"] for one in found.values()} == {20000}
    for one in found.values():
        assert abs(sum(cause["time_share"] for cause in one["causes"]) - 1) < 1e-9
        assert one["peak_resident"] > 0 <= one["idle"] < 1
        assert one["peak_footprint"] >= one["peak_resident"] or one["model"] == "go1.27"  # stacks are resident too
        assert one["malloc_ns"]["p50"] <= one["malloc_ns"]["p99.99"] <= one["malloc_ns"]["max"]
    assert found["bump"]["internal"] < found["tcmalloc"]["internal"] + 0.05
    assert found["best-fit:lifo"]["internal"] > 8 / 230  # a header each, of 230 bytes asked for on average
    assert found["tcmalloc"]["lock_waits"] < found["segregated-fit"]["lock_waits"]
    assert (
        (tmp_path / "out" / "compare_memory.csv")
        .read_text()
        .startswith("model,time_ns,footprint,resident,live\ngo1.27,")
    )
    assert run(*models, *SMALL, "--json") == text


def test_a_service_answers_on_every_model():
    text = run("go1.19", "tcmalloc", "first-fit:lifo", "--set", "duration=2ms", "--seed", "5")
    lines = text.splitlines()
    assert lines[1].startswith("seed 5, ")
    at = next(i for i, line in enumerate(lines) if line.split()[:1] == ["response"])
    assert [line.split()[0] for line in lines[at + 1 : at + 4]] == ["go1.19", "tcmalloc", "first-fit:lifo"]


def test_a_recorded_trace_runs_on_every_model():
    text = run("go1.27", "tcmalloc", "best-fit", "--scenario", "recorded-gofmt", "--json")
    found = {one["model"]: one for one in json.loads(text)["compare"]}
    assert {one["mallocs"] for one in found.values()} == {39_380}  # nothing dies: it was recorded with GOGC=off
    assert found["go1.27"]["internal"] == pytest.approx(0, abs=0.01)  # requests are its slots
    assert 0 < found["tcmalloc"]["internal"] < found["best-fit"]["internal"]
    seconds = [one["seconds"] for one in found.values()]
    assert max(seconds) < 1.2 * min(seconds)  # most of it is the program's own


def test_collecting_is_counted_for_every_version_and_two_machines_are_said():
    small = ("--scenario", "batch-worker", "--set", "mallocs=60000", "--set", "goroutines=2", "--json")
    arguments = ["go1.19", "go1.27", "tcmalloc", *small, "--set", "prices=xeon-2core"]
    result = CliRunner().invoke(compare, arguments, catch_exceptions=False)
    seconds = {one["model"]: one["gc_cpu_seconds"] for one in json.loads(result.stdout)["compare"]}
    assert seconds["go1.19"] > 0 < seconds["go1.27"] and seconds["tcmalloc"] == 0
    assert "two machines are compared too (go1.19, go1.27: prices of xeon-2core, the others: prices of epyc-2core)" in (
        result.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["jemalloc"], "jemalloc: no such model; known are go1.14, go1.19, go1.27, tcmalloc, bump"),
        (["bump:lifo"], "bump:lifo: no such model"),
        (["tcmalloc", "--scenario", "nosuch"], "nosuch"),
        (["tcmalloc", "-o", "."], r"\.: is there already; name a new directory"),
        (["tcmalloc", "--scenario", "recorded-gofmt", "--set", "duration=1ms"], "recorded-gofmt: run.duration cuts a"),
        (["tcmalloc", "--thread-machine", "nosuch"], "nosuch: no such machine"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(arguments, fault):
    with pytest.raises(InputError, match=f"^{fault}") as error:
        CliRunner().invoke(compare, arguments, catch_exceptions=False)
    assert "\n" not in str(error.value)


def test_refusals_and_help_load_nothing_heavy():
    code = (
        "import sys; from experiments.cli import _run; print(_run(['compare', 'nosuch']), _run(['compare', '--help']));"
        "print(sorted({'numba', 'numpy', 'simpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip().endswith("2 0\n[]")
