"""The command as a person meets it: a process, its exit status, and one line on stderr for each bad input."""

import json
import lzma
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from workloads import gotrace

ROOT = Path(__file__).parent.parent.parent
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}


def python(*arguments, cwd, stdout=subprocess.PIPE):
    command = [sys.executable, *map(str, arguments)]
    streams = {"stdout": stdout, "stderr": subprocess.PIPE}
    return subprocess.run(command, cwd=cwd, env=ENV, text=True, timeout=120, check=False, **streams)


def allocsim(*arguments, cwd, stdout=subprocess.PIPE):
    return python("-W", "error:::experiments", "-m", "experiments.cli", *arguments, cwd=cwd, stdout=stdout)


def said(run):
    """What a run said on stderr, but for the line about the first compile."""
    return "".join(line for line in run.stderr.splitlines(keepends=True) if not line.startswith("compiling the"))


def refusal(*arguments, cwd):
    """The one line that refuses a command line: exit status 2, nothing on stdout, nothing written."""
    before = sorted(cwd.rglob("*"))
    run = allocsim(*arguments, cwd=cwd)
    assert run.returncode == 2, run
    assert run.stdout == ""
    lines = said(run).splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("allocsim: ")
    assert sorted(cwd.rglob("*")) == before
    return lines[0].removeprefix("allocsim: ")


def test_help_is_there_for_every_command(tmp_path):
    run = allocsim("--help", cwd=tmp_path)
    assert run.returncode == 0 and run.stderr == ""
    for command in ("run", "list", "show", "import", "replay", "conform", "calibrate"):
        assert f"  {command} " in run.stdout
        inner = allocsim(command, "--help", cwd=tmp_path)
        assert inner.returncode == 0 and inner.stdout.startswith(f"Usage: allocsim {command} [OPTIONS]")


def test_help_loads_nothing_heavy(tmp_path):
    code = "import sys; from experiments import cli; cli._run(['--help']); print(sorted({'numba', 'numpy', 'scipy', 'simpy', 'pydantic'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_the_distribution_s(tmp_path):
    assert allocsim("--version", cwd=tmp_path).stdout == "allocsim 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "fault", "hint"),
    [
        ([], "missing command", "see allocsim --help"),
        (["frobnicate"], "'frobnicate'", "see allocsim --help"),
        (["--fast"], "--fast", "see allocsim --help"),
        (["replay"], "TRACE", "see allocsim replay --help"),
        (["replay", "a", "b"], "extra argument (b)", "see allocsim replay --help"),
        (["replay", "--fast", "a"], "--fast", "see allocsim replay --help"),
        (["replay", "--gc", "loose", "a"], "'loose'", "see allocsim replay --help"),
        (["replay", "--gogc", "50", "a"], "--gogc goes with --gc free alone", "see allocsim replay --help"),
        (["replay", "--gc", "coupled", "--deaths", "drawn", "a"], "--deaths goes with", "see allocsim replay --help"),
        (["import", "a", "-o"], "-o", "see allocsim --help"),
    ],
)
def test_a_wrong_command_line(tmp_path, arguments, fault, hint):
    what, _, right = refusal(*arguments, cwd=tmp_path).partition("; ")
    assert fault in what and right == hint


@pytest.mark.parametrize(
    ("option", "value", "right"),
    [
        ("--gogc", "-5", 'write a percentage from 1 to 100000, or "off"'),
        ("--gogc", "many", 'write a percentage from 1 to 100000, or "off"'),
        ("--memory-limit", "12 potatoes", "write a number and one of B, KiB, MiB, GiB, TiB"),
        ("--memory-limit", "0B", "write what is from 1B to below 1TiB, or off"),
        ("--memory-limit", "8388608TiB", "write what is from 1B to below 1TiB, or off"),
        ("--memory-limit", "-1GiB", 'write "512MiB" for instance'),
    ],
)
def test_a_wrong_setting_of_a_free_replay(tmp_path, option, value, right):
    said = refusal("replay", "a", "--gc", "free", option, value, cwd=tmp_path)
    assert value in said and right in said


@pytest.mark.parametrize("command", ["import", "replay", "conform"])
def test_inputs_that_are_no_files(tmp_path, command):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert refusal(command, "nowhere", cwd=tmp_path) == "nowhere: no such file; name one that exists"
    assert refusal(command, "folder", cwd=tmp_path) == "folder: is a directory; name a file in it"
    assert refusal(command, "pipe", cwd=tmp_path) == "pipe: is not a plain file; write what it holds to one first"
    assert refusal(command, "a\nb", cwd=tmp_path) == "a\\nb: no such file; name one that exists"
    assert refusal(command, "x" * 300, cwd=tmp_path).endswith("(File name too long); name a file that can")
    assert refusal(command, "", cwd=tmp_path) == "'': no such file; name one that exists"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_input_without_permission(tmp_path):
    (tmp_path / "mine").touch(mode=0)
    assert "Permission denied" in refusal("replay", "mine", cwd=tmp_path)


@pytest.mark.parametrize("command", ["import", "replay", "conform"])
@pytest.mark.parametrize(
    "content", [b"", b"hello\n", bytes(range(256)) * 20, lzma.compress(b"hello"), b"\xfd7zXZ\0cut"]
)
def test_inputs_with_the_wrong_content(tmp_path, command, content):
    (tmp_path / "wrong").write_bytes(content)
    assert refusal(command, "wrong", cwd=tmp_path).startswith("wrong: ")


def test_outputs_that_cannot_be_written(tmp_path):
    (tmp_path / "t.trace").write_bytes(b"go 1.27 trace\0\0\0")
    (tmp_path / "folder").mkdir()
    (tmp_path / "t.alloctrace").write_text("kept")
    there = "t.alloctrace: exists already; name another file with -o, or replace it with --force"
    assert refusal("import", "t.trace", cwd=tmp_path) == there
    assert refusal("import", "t.trace", "-o", "t.alloctrace", cwd=tmp_path) == there
    found = refusal("import", "t.trace", "-o", "folder", cwd=tmp_path)
    assert found == "folder: is a directory; name a file in it with -o"
    found = refusal("import", "t.trace", "-o", "no/where", cwd=tmp_path)
    assert found == "no/where: there is no directory no; make it first"
    found = refusal("import", "t.trace", "-o", "t.trace", "--force", cwd=tmp_path)
    assert found == "t.trace: is what is read; name another file with -o"
    assert (tmp_path / "t.alloctrace").read_text() == "kept"


def test_a_failed_import_leaves_the_old_file(tmp_path):
    (tmp_path / "t.trace").write_bytes(b"no trace at all")
    (tmp_path / "t.alloctrace").write_text("kept")
    assert refusal("import", "t.trace", "--force", cwd=tmp_path).startswith("t.trace: ")
    assert (tmp_path / "t.alloctrace").read_text() == "kept"


# Four chunks of pages, all free: first fit takes them from the lowest address on. Allocations answer two numbers
# each (first page, scavenged bytes), frees none.
ANSWERS = [[0, 1, 0, 0], [0, 3, 1, 0], [1, 0, 1], [0, 2, 4, 0], [0, 1, 0, 0]]


def answers(path, operations):
    path.write_text(json.dumps({"sequences": [{"Seed": 1, "Chunks": [0, 1, 2, 3], "Ops": operations}]}))
    return path.name


def test_conform_says_how_many_answers_are_equal(tmp_path):
    name = answers(tmp_path / "right.json", ANSWERS)
    run = allocsim("conform", name, cwd=tmp_path)
    assert run.returncode == 0 and run.stdout == "8 of 8 equal\n"
    run = allocsim("conform", name, "--json", cwd=tmp_path)
    assert run.returncode == 0 and said(run) == ""
    found = json.loads(run.stdout)["conform"]
    assert found == {"kind": "page allocator", "total": 8, "equal": 8, "first_difference": None}


def test_conform_fails_where_an_answer_differs(tmp_path):
    name = answers(tmp_path / "wrong.json", [*ANSWERS, [0, 1, 3, 0]])
    run = allocsim("conform", name, cwd=tmp_path)
    assert run.returncode == 1
    counted, difference = run.stdout.splitlines()
    assert counted == "9 of 10 equal"
    assert difference == "first difference: sequence 0, operation 5: page recorded 3, computed 6"
    assert json.loads(allocsim("conform", name, "--json", cwd=tmp_path).stdout)["conform"]["equal"] == 9


TRACE = ROOT / "tests/data/test-fmt-tests-P1-gogc_off.trace.xz"
XBENCH = ROOT / "tests/data/xbench-json-P2-gogc_default.trace.xz"


def test_replay_finds_every_address_of_a_trace_of_one_p_without_gc(tmp_path):
    run = allocsim("replay", TRACE, "--json", cwd=tmp_path)
    assert run.returncode == 0 and said(run) == ""
    found = json.loads(run.stdout)["replay"]
    spans, slots = found["spans"], found["slots"]
    assert spans["matched"] == spans["total"] > 0
    assert slots["matched"] == slots["total"] - slots["excepted"] > 0
    assert slots.keys() == {"total", "matched", "tiny", "excepted"}
    assert sum(found["misses"].values()) == 0 and found["unknown_events"] == 0


def test_a_coupled_replay_says_how_many_collections_it_ran(tmp_path):
    found = json.loads(allocsim("replay", TRACE, "--gc", "coupled", "--json", cwd=tmp_path).stdout)
    assert found["replay"] == json.loads(allocsim("replay", TRACE, "--json", cwd=tmp_path).stdout)["replay"]
    assert found["gc"] == {"cycles": 0, "forced": 1, "recorded_cycles": 0, "trigger_error": [], "goal_error": []}
    text = allocsim("replay", TRACE, "--gc", "coupled", cwd=tmp_path)
    assert text.returncode == 0 and said(text) == ""
    assert "0 collections, of 0 recorded, and 1 forced." in text.stdout


def test_a_free_replay_says_how_far_its_collections_are_from_the_recorded_ones(tmp_path):
    run = allocsim("replay", TRACE, "--gc", "free", "--gogc", "off", "--seed", "7", "--deaths", "latest", "--json", cwd=tmp_path)
    assert run.returncode == 0 and said(run) == ""
    found = json.loads(run.stdout)
    assert found["replay"] == json.loads(allocsim("replay", TRACE, "--json", cwd=tmp_path).stdout)["replay"]
    assert found["gc"] == {"cycles": 0, "forced": 1, "recorded_cycles": 0, "trigger_error": [], "goal_error": []}
    text = allocsim("replay", XBENCH, "--gc", "free", cwd=tmp_path).stdout
    assert "2 collections, of 2 recorded, and 1 forced." in text
    assert "heap when a cycle begins: off by" in text and "goal that a cycle sets: off by" in text
    limited = json.loads(allocsim("replay", TRACE, "--gc", "free", "--memory-limit", "3MiB", "--json", cwd=tmp_path).stdout)
    assert limited["gc"]["cycles"] > 0


def test_an_imported_trace_replays_as_the_original_does(tmp_path):
    run = allocsim("import", TRACE, cwd=tmp_path)
    assert run.returncode == 0 and said(run) == ""
    (written,) = tmp_path.iterdir()
    assert written.name == "test-fmt-tests-P1-gogc_off.alloctrace"
    heading, *rows = run.stdout.splitlines()
    assert heading.split() == [written.name, "count"]
    counts = {" ".join(row.split()[:-1]): int(row.split()[-1].replace(",", "")) for row in rows}
    assert counts["span alloc"] > 0 and counts["object alloc"] > 0 and counts["not understood"] == 0
    first = written.read_bytes()
    assert allocsim("import", TRACE, "--force", cwd=tmp_path).returncode == 0
    assert written.read_bytes() == first
    original = allocsim("replay", TRACE, "--json", cwd=tmp_path).stdout
    assert allocsim("replay", written.name, "--json", cwd=tmp_path).stdout == original
    table = allocsim("replay", written.name, cwd=tmp_path).stdout.splitlines()
    assert table[0].split() == [written.name, "predictable", "as", "recorded", "share"]
    found = json.loads(original)["replay"]["spans"]
    assert table[1].split() == ["span", "bases", f"{found['total']:,}", f"{found['matched']:,}", "100.000", "%"]


def test_a_trace_without_allocations_says_what_to_set(tmp_path):
    source = gotrace.read_trace(TRACE)
    keep = source.kind > gotrace.STACK_FREE
    events = {name: getattr(source, name)[keep] for name in ("time_ns", "kind", "p", "m", "g", "a", "b", "c", "stack")}
    gotrace.save(replace(source, generation_start=source.generation_start * 0, **events), tmp_path / "bare")
    refused = refusal("replay", "bare", cwd=tmp_path)
    assert refused.startswith("bare: ") and "GODEBUG=traceallocfree=1" in refused


def test_a_kind_of_answers_nobody_knows(tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"melodies": []}))
    assert refusal("conform", "other.json", cwd=tmp_path).startswith("other.json: ")


def test_a_scenario_of_the_pacer_that_lacks_something(tmp_path):
    (tmp_path / "pacer.json").write_text(json.dumps({"scenarios": [{"name": "Odd", "gcPercent": 100, "events": []}]}))
    assert refusal("conform", "pacer.json", cwd=tmp_path) == "pacer.json: scenarios[0] Odd: lacks memoryLimit"


def test_nobody_reads_the_output(tmp_path):
    name = answers(tmp_path / "right.json", ANSWERS)
    reader, writer = os.pipe()
    os.close(reader)
    run = allocsim("conform", name, cwd=tmp_path, stdout=writer)
    os.close(writer)
    assert (run.returncode, said(run)) == (141, "")


def test_output_to_a_full_disk_is_no_success(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    name = answers(tmp_path / "right.json", ANSWERS)
    with open("/dev/full", "w") as full:
        run = allocsim("conform", name, cwd=tmp_path, stdout=full)
    assert run.returncode == 2
    assert said(run) == "allocsim: output: No space left on device; make room or name another file\n"


@pytest.mark.parametrize(
    ("failure", "status", "line"),
    [
        ("KeyboardInterrupt", 130, "interrupted"),
        ("Throw('3 < 4')", 1, "an invariant of the simulator is broken (please report it): 3 < 4"),
        ("MemoryError", 1, "out of memory; give it more, or a smaller input"),
        ("InputError('f: is odd; make it even')", 2, "f: is odd; make it even"),
    ],
)
def test_a_failure_inside_a_command_is_one_line(tmp_path, failure, status, line):
    code = f"""
from experiments import cli
from experiments.errors import InputError
from sim.units import Throw
@cli.app.command()
def fail():
    raise {failure}
cli.main(["fail"])
"""
    run = python("-c", code, cwd=tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (status, "", f"allocsim: {line}\n")


def test_ctrl_c_from_outside(tmp_path):
    code = """
import time
from experiments import cli
@cli.app.command()
def wait():
    print("waiting", flush=True)
    time.sleep(60)
cli.main(["wait"])
"""
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "allocsim: interrupted\n")
