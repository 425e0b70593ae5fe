"""The command as a person meets it: a process, its exit status, and one line on stderr for each bad input."""

import json
import lzma
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}


def allocsim(*arguments, cwd, **more):
    command = [sys.executable, "-W", "error:::experiments", "-m", "experiments.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=ENV, capture_output=True, text=True, timeout=120, **more)


def refusal(*arguments, cwd):
    """The one line that refuses a command line: exit status 2, nothing on stdout, nothing written."""
    before = sorted(cwd.rglob("*"))
    run = allocsim(*arguments, cwd=cwd)
    assert run.returncode == 2, run
    assert run.stdout == ""
    lines = [line for line in run.stderr.splitlines() if not line.startswith("compiling")]
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("allocsim: ")
    assert sorted(cwd.rglob("*")) == before
    return lines[0].removeprefix("allocsim: ")


def test_help_is_there_for_every_command(tmp_path):
    run = allocsim("--help", cwd=tmp_path)
    assert run.returncode == 0 and run.stderr == ""
    for command in ("import", "replay", "conform"):
        assert f"  {command} " in run.stdout
        inner = allocsim(command, "--help", cwd=tmp_path)
        assert inner.returncode == 0 and inner.stdout.startswith(f"Usage: allocsim {command} [OPTIONS] ")


def test_help_starts_at_once(tmp_path):
    def seconds():
        start = time.perf_counter()
        allocsim("--help", cwd=tmp_path)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.3


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
        (["import", "a", "-o"], "-o", "see allocsim --help"),
    ],
)
def test_a_wrong_command_line(tmp_path, arguments, fault, hint):
    what, _, right = refusal(*arguments, cwd=tmp_path).partition("; ")
    assert fault in what and right == hint


@pytest.mark.parametrize("command", ["import", "replay", "conform"])
def test_inputs_that_are_no_files(tmp_path, command):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert refusal(command, "nowhere", cwd=tmp_path) == "nowhere: no such file; name one that exists"
    assert refusal(command, "folder", cwd=tmp_path) == "folder: is a directory; name a file in it"
    assert refusal(command, "pipe", cwd=tmp_path) == "pipe: is not a plain file; write what it holds to one first"
    assert refusal(command, "a\nb", cwd=tmp_path) == "a\\nb: no such file; name one that exists"
    assert refusal(command, "x" * 300, cwd=tmp_path).endswith("(File name too long); name a file that can")
    assert refusal(command, "", cwd=tmp_path).endswith(": no such file; name one that exists")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_input_without_permission(tmp_path):
    (tmp_path / "mine").touch(mode=0)
    assert "Permission denied" in refusal("replay", "mine", cwd=tmp_path)


@pytest.mark.parametrize("command", ["import", "replay", "conform"])
@pytest.mark.parametrize("content", [b"", b"hello\n", bytes(range(256)) * 20, lzma.compress(b"hello"), b"\xfd7zXZ\0cut"])
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
    assert found == "t.trace: is the trace itself; name another file with -o"
    assert (tmp_path / "t.alloctrace").read_text() == "kept"


def test_a_failed_import_leaves_the_old_file(tmp_path):
    (tmp_path / "t.trace").write_bytes(b"no trace at all")
    (tmp_path / "t.alloctrace").write_text("kept")
    assert refusal("import", "t.trace", "--force", cwd=tmp_path).startswith("t.trace: ")
    assert (tmp_path / "t.alloctrace").read_text() == "kept"


# Four chunks of pages, all free: first fit takes them from the lowest address on.
ANSWERS = [[0, 1, 0, 0], [0, 3, 1, 0], [1, 0, 1], [0, 2, 4, 0], [0, 1, 0, 0]]


def answers(path, operations):
    path.write_text(json.dumps({"sequences": [{"Seed": 1, "Chunks": [0, 1, 2, 3], "Ops": operations}]}))
    return path.name


def test_conform_says_how_many_answers_are_equal(tmp_path):
    name = answers(tmp_path / "right.json", ANSWERS)
    run = allocsim("conform", name, cwd=tmp_path)
    assert run.returncode == 0 and run.stdout == "5 of 5 equal\n"
    run = allocsim("conform", name, "--json", cwd=tmp_path)
    assert run.returncode == 0 and run.stderr == ""
    found = json.loads(run.stdout)["conform"]
    assert found == {"kind": "pagealloc", "total": 5, "equal": 5, "first_difference": None}


def test_conform_fails_where_an_answer_differs(tmp_path):
    name = answers(tmp_path / "wrong.json", [*ANSWERS, [0, 1, 3, 0]])
    run = allocsim("conform", name, cwd=tmp_path)
    assert run.returncode == 1
    counted, difference = run.stdout.splitlines()
    assert counted == "5 of 6 equal" and difference.startswith("first difference: ")
    assert json.loads(allocsim("conform", name, "--json", cwd=tmp_path).stdout)["conform"]["equal"] == 5


def test_a_kind_of_answers_nobody_knows(tmp_path):
    (tmp_path / "other.json").write_text(json.dumps({"melodies": []}))
    assert refusal("conform", "other.json", cwd=tmp_path).startswith("other.json: ")


def test_nobody_reads_the_output(tmp_path):
    name = answers(tmp_path / "right.json", ANSWERS)
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "experiments.cli", "conform", name]
    run = subprocess.run(command, cwd=tmp_path, env=ENV, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (run.returncode, run.stderr) == (1, "")


def test_output_to_a_full_disk_is_no_success(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    name = answers(tmp_path / "right.json", ANSWERS)
    command = [sys.executable, "-m", "experiments.cli", "conform", name]
    with open("/dev/full", "w") as full:
        run = subprocess.run(command, cwd=tmp_path, env=ENV, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 2
    assert run.stderr == "allocsim: output: No space left on device; make room or name another file\n"


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
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=ENV, capture_output=True, text=True)
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
