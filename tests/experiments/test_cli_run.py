"""`run`, `list` and `show` as a person meets them: what they print and keep, Ctrl-C, and one line for each bad input."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import experiments.run
from experiments import cli
from sim.jit import PLAIN
from workloads.scenario import list_scenarios

ROOT = Path(__file__).parent.parent.parent
ENV = {**os.environ, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
SMALL = ("--set", f"mallocs={200 if PLAIN else 5_000}")
HEAVY = {"numba", "numpy", "scipy", "simpy", "pydantic"}


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """A function: run a command in an empty directory; its exit status, stdout, and stderr without the compile's line."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.main([str(one) for one in arguments])
        out, err = capsys.readouterr()
        lines = [one for one in err.splitlines() if not one.startswith("compiling the simulated runtime")]
        return ended.value.code, out, lines

    return call


@pytest.fixture
def refusal(command, tmp_path):
    """A function: the one line that refuses a command line."""

    def call(*arguments):
        before = sorted(tmp_path.rglob("*"))
        status, out, lines = command(*arguments)
        assert (status, out, len(lines)) == (2, "", 1), (status, out, lines)
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0].removeprefix("allocsim: ")

    return call


def process(*arguments, cwd, env=ENV):
    command = [sys.executable, "-m", "experiments.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)


# What is printed and kept


def test_a_run_is_shown_kept_and_shown_again(command):
    status, text, said = command("run", "api-service", *SMALL, "-o", "out")
    assert (status, said) == (0, ["kept in out"])
    assert (
        text.startswith("api-service: ") and "assumed, not measured: " in "".join(text.splitlines()[-3:])
    )
    assert command("show", "out") == (0, text, [])
    status, printed, _ = command("show", "out", "--json")
    assert status == 0 and printed == Path("out/summary.json").read_text()
    status, again, said = command("run", "api-service", *SMALL, "--json")
    assert (status, again, said) == (0, printed, [])
    found = json.loads(printed)
    assert found["cut_short"] is False and found["latency"]["all"]["count"] > 0


def test_the_text_tells_the_figures_of_the_json(command):
    _, text, _ = command("run", "api-service", *SMALL, "-o", "out")
    found = json.loads(Path("out/summary.json").read_text())
    mallocs = found["metrics"]["/sim/mallocs:objects"]
    assert f"{mallocs:,} mallocs" in text
    assert re.search(rf"^all +{mallocs:,} +100.0 %", text, re.MULTILINE)
    assert re.search(rf"^response +{found['response']['count']:,} +100.0 %", text, re.MULTILINE)
    assert len(re.findall(r"^  \S.*%.*[num]s$", text, re.MULTILINE)) >= len(found["latency"]) - 1
    assert all(len(line) <= 100 for line in text.splitlines())


def test_same_seed_same_bytes_in_another_process(command, tmp_path):
    assert command("run", "api-service", *SMALL, "-o", "a")[0] == 0
    run = process("run", "api-service", *SMALL, "-o", "b", cwd=tmp_path, env={**ENV, "PYTHONHASHSEED": "2"})
    assert run.returncode == 0, run
    files = {path.name for path in (tmp_path / "a").iterdir()}
    for name in files - {"host.json"}:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    host = json.loads((tmp_path / "a" / "host.json").read_text())
    assert host.keys() == {"date", "wall_seconds", "host", "system", "cpus", "python", "numba"}


def test_a_kept_scenario_runs_again(command):
    _, first, _ = command("run", "api-service", *SMALL, "--seed", 5, "--json", "-o", "out")
    _, second, _ = command("run", "out/scenario.toml", "--json")
    assert json.loads(second) == json.loads(first) | {"scenario": "scenario"}
    assert json.loads(first)["seed"] == 5


def test_sets_and_seeds_change_the_run(command):
    base = json.loads(command("run", "batch-worker", *SMALL, "--json")[1])
    changed = json.loads(command("run", "batch-worker", *SMALL, "--set", "gomaxprocs=2", "--seed", 9, "--json")[1])
    assert changed["config"]["runtime"]["gomaxprocs"] == changed["metrics"]["/sched/gomaxprocs:threads"] == 2
    assert (base["seed"], changed["seed"]) == (1, 9)
    assert changed["latency"] != base["latency"]


def test_a_machine_file_of_ones_own(command, tmp_path):
    text = (ROOT / "experiments/machines/epyc-2core.toml").read_text()
    Path("mine.toml").write_text(re.sub(r'^name = ".*"', 'name = "mine"', text, count=1, flags=re.MULTILINE))
    status, printed, _ = command("run", "batch-worker", *SMALL, "--set", "prices=./mine.toml", "-o", "out", "--json")
    assert status == 0
    assert json.loads(printed)["config"]["machine"]["prices"] == "mine"
    assert Path("out/machine.toml").read_bytes() == Path("mine.toml").read_bytes()
    assert str(tmp_path) not in printed


def test_what_a_run_will_not_show_is_said_and_it_runs_all_the_same(command):
    status, text, said = command("run", "batch-worker", *SMALL, "--set", "memory_limit=4MiB")
    assert status == 0 and "GOGC 100, limit 4MiB, " in text
    assert len(said) == 1 and said[0].startswith("allocsim: warning: batch-worker: runtime.memory_limit: ")
    assert "; write " in said[0]


@pytest.mark.parametrize("bad", ["gogc=-5", "memory_limit=12 potatoes", "memory_limit=-1MiB", "memory_limit=", "gogc=many"])
def test_settings_that_mean_nothing_are_refused_in_a_line(command, bad):
    status, text, said = command("run", "batch-worker", *SMALL, "--set", bad)
    assert (status, text, len(said)) == (2, "", 1)
    assert bad.partition("=")[0] in said[0] and "; write " in said[0]


def test_check_says_that_it_looked(command):
    assert command("run", "batch-worker", *SMALL, "--check", "--json")[2] == [
        "checked: every invariant of the heap holds"
    ]


def test_a_broken_invariant_is_said_and_nothing_is_kept(command, monkeypatch):
    from sim.units import throw

    monkeypatch.setattr(experiments.run, "check_heap", lambda heap: throw("3 < 4"))
    status, out, lines = command("run", "batch-worker", *SMALL, "--check", "-o", "out")
    assert (status, out) == (1, "")
    assert lines == ["allocsim: an invariant of the simulator is broken (please report it): 3 < 4"]
    assert not Path("out").exists()


def test_a_result_that_cannot_be_kept_is_shown_all_the_same(command, monkeypatch):
    real = experiments.run.run

    def slow(*arguments):
        found = real(*arguments)
        Path("out").mkdir()
        Path("out/theirs").write_text("kept")
        return found

    monkeypatch.setattr(experiments.run, "run", slow)
    status, out, lines = command("run", "batch-worker", *SMALL, "-o", "out", "--json")
    assert status == 2 and json.loads(out)["schema"] == 1
    (line,) = lines
    assert "out: cannot be written (Directory not empty); the result is in " in line
    assert [path.name for path in Path("out").iterdir()] == ["theirs"]


def test_list(command):
    status, text, said = command("list")
    assert (status, said) == (0, [])
    assert " ".join(text.split()) == " ".join(f"{name} {purpose}" for name, purpose in list_scenarios())
    assert all(len(line) <= 100 for line in text.splitlines())
    status, text, said = command("list", "--json")
    assert json.loads(text) == [{"name": name, "purpose": purpose} for name, purpose in list_scenarios()]


def test_an_ascii_terminal(tmp_path):
    env = {**ENV, "PYTHONIOENCODING": "ascii"}
    run = process("run", "api-service", *SMALL, cwd=tmp_path, env=env)
    assert run.returncode == 0 and "^p50" in run.stdout and run.stdout.isascii()


# Ctrl-C


def on_first_step(action):
    """A run that does something after its first step."""
    real = experiments.run.run

    def run(scenario, watch, interrupted, *others):
        did = []

        def first(share):
            if not did:
                did.append(action())

        return real(scenario, first, interrupted, *others)

    return run


def test_ctrl_c_keeps_what_is_there(command, monkeypatch):
    monkeypatch.setattr(experiments.run, "run", on_first_step(lambda: os.kill(os.getpid(), signal.SIGINT)))
    status, out, lines = command("run", "batch-worker", "--set", "duration=1h", "--json", "-o", "out")
    assert status == 130
    assert lines[-1] == "allocsim: interrupted: the run was cut short, this is what there was"
    found = json.loads(out)
    assert (
        found["cut_short"] is True and found["latency"]["all"]["count"] == found["metrics"]["/sim/mallocs:objects"] > 0
    )
    assert json.loads(Path("out/summary.json").read_text()) == found
    status, text, lines = command("show", "out")
    assert (status, lines) == (0, []) and "CUT SHORT after " in text and " of 1h" not in text and " of 3600s" in text


def test_a_second_ctrl_c_gives_up_at_once(command, monkeypatch):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(experiments.run, "run", on_first_step(twice))
    assert command("run", "batch-worker", "--set", "duration=1h", "-o", "out") == (130, "", ["allocsim: interrupted"])
    assert list(Path().iterdir()) == []


def until(fd, pattern, seconds=120):
    """What was read from a terminal until it showed a pattern."""
    shown, end = b"", time.monotonic() + seconds
    while not re.search(pattern, shown):
        assert time.monotonic() < end, shown
        if select.select([fd], [], [], 1)[0]:
            shown += os.read(fd, 4096)
    return shown


@pytest.mark.slow
def test_a_long_run_on_a_terminal(tmp_path):
    """A bar appears; Ctrl-C of the terminal ends the run, whose result is kept and marked."""
    terminal, theirs = pty.openpty()
    command = [sys.executable, "-m", "experiments.cli", "run", "api-service", "--set", "duration=1h", "-o", "out"]
    run = subprocess.Popen(command, cwd=tmp_path, env=ENV, stdout=subprocess.PIPE, stderr=theirs, text=True)
    until(terminal, rb"\r +\d+ % \[[#.]{30}\] \d+ s")
    run.send_signal(signal.SIGINT)
    out, _ = run.communicate(timeout=60)
    assert run.returncode == 130
    shown = until(terminal, rb"interrupted: the run was cut short")
    assert re.search(rb"\r +\rkept in out", shown)  # the bar is gone
    assert "CUT SHORT after " in out and "\x1b" not in out
    assert json.loads((tmp_path / "out/summary.json").read_text())["cut_short"] is True
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    os.close(terminal)
    os.close(theirs)


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self, stream):
        self._stream = stream

    def isatty(self):
        return True

    def __getattr__(self, name):
        return getattr(self._stream, name)


@pytest.mark.parametrize(("arguments", "has_bar"), [((), True), (("--json",), False)])
def test_json_for_a_pipe_has_no_bar(command, monkeypatch, arguments, has_bar):
    monkeypatch.setattr("experiments.progress._PATIENCE", 0.0)
    monkeypatch.setattr(sys, "stderr", Terminal(sys.stderr))
    _, _, lines = command("run", "batch-worker", *SMALL, *arguments)
    assert any("% [" in line for line in lines) == has_bar


def test_no_bar_without_a_terminal(command, monkeypatch):
    monkeypatch.setattr("experiments.progress._PATIENCE", 0.0)
    assert command("run", "batch-worker", *SMALL)[2] == []


# Bad input

TOML = """
purpose = "A test"
[runtime]
gomaxprocs = 2
[run]
mallocs = 100
[workload]
kind = "workers"
goroutines = 2
[[workload.objects]]
size = "64B"
"""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run"], "missing argument 'SCENARIO'; see allocsim run --help"),
        (["run", "api-service", "--seed", "-1"], "invalid value for '--seed': -1 is not in the range"),
        (["run", "api-service", "--seed", str(1 << 64)], f"invalid value for '--seed': {1 << 64} is not in the range"),
        (["run", "api-service", "--seed", "one"], "invalid value for '--seed': 'one' is not a valid integer range"),
        (["run", "api-service", "--fast"], "no such option"),
        (["run", "api-servise"], "api-servise: no such scenario; did you mean api-service?"),
        (["run", "no.toml"], "no.toml: no such file; name one that exists"),
        (["run", ""], "''"),
        (["run", "folder/"], "folder/: cannot be read (Is a directory)"),
        (["run", "not.toml"], "not.toml: line 1: is not TOML"),
        (["run", "api-service", "-o", "folder"], "folder: exists and is not empty; name a new directory with -o"),
        (["run", "api-service", "-o", "not.toml"], "not.toml: exists and is no directory; name a new one with -o"),
        (["run", "api-service", "-o", "no/where"], "no/where: there is no directory"),
        (["show"], "missing argument 'DIR'; see allocsim show --help"),
        (["show", "nowhere"], "nowhere: is no directory"),
        (["show", "folder"], "folder: holds no result"),
        (["list", "more"], "got unexpected extra argument (more); see allocsim list --help"),
    ],
)
def test_refusals_that_need_nothing_heavy(refusal, arguments, line):
    Path("folder").mkdir()
    Path("folder/kept").touch()
    Path("not.toml").write_text("what is this?")
    assert refusal(*arguments).startswith(line)


@pytest.mark.parametrize(
    ("sets", "line"),
    [
        (["gomaxprocs"], "--set gomaxprocs: is not key=value; write one such as gomaxprocs=8"),
        (["=8"], "--set =8: is not key=value"),
        (["gomaxprocs=0"], "runtime.gomaxprocs: 0 is not allowed; write a whole number from 1 to 1024"),
        (["gomaxprocs=-3"], "runtime.gomaxprocs: -3 is not allowed"),
        (["gomaxproc=8"], "gomaxproc: unknown key; did you mean runtime.gomaxprocs?"),
        (["run.speed=8"], "run.speed: unknown key"),
        (["duration=1parsec"], "run.duration: '1parsec' is not a duration; write a number and one of"),
        (["duration=-1s"], 'run.duration: "-1s" is negative'),
        (["duration=0s"], 'run.duration: "0s" is out of range'),
        (["seed=-1"], "run.seed: -1 is not allowed"),
        (["workload.objects.0.size=-8B"], 'workload.objects.0.size: "-8B" is negative'),
        (["workload.objects.0.size=1000TiB"], 'workload.objects.0.size: "1000TiB" is out of range'),
        (["version=go1.99"], 'runtime.version: "go1.99" is not known'),
    ],
)
def test_values_that_are_refused(refusal, sets, line):
    Path("s.toml").write_text(TOML)
    sets = [part for one in sets for part in ("--set", one)]
    found = refusal("run", "s.toml", *sets)
    assert found.startswith(f"s.toml: {line}") and "; " in found


def test_machines_that_are_refused(refusal):
    Path("s.toml").write_text(TOML)
    Path("broken.toml").write_text("schema = ")
    Path("empty.toml").write_text("")
    os.mkfifo("pipe.toml")
    assert "no such machine; give a path to a .toml file or one of epyc-2core" in refusal(
        "run", "s.toml", "--set", "prices=cray"
    )
    assert "no such file; name one that exists" in refusal("run", "s.toml", "--set", "prices=./no.toml")
    assert "broken.toml: not TOML" in refusal("run", "s.toml", "--set", "prices=./broken.toml")
    assert "empty.toml: " in refusal("run", "s.toml", "--set", "prices=./empty.toml")
    assert "is not a plain file" in refusal("run", "s.toml", "--set", "prices=./pipe.toml")


def test_a_stored_result_is_never_replaced(command, refusal):
    assert command("run", "batch-worker", *SMALL, "-o", "out")[0] == 0
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    assert (
        refusal("run", "batch-worker", *SMALL, "-o", "out")
        == "out: exists and is not empty; name a new directory with -o"
    )
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before
    Path("out/summary.json").write_text("{}")
    assert refusal("show", "out") == "out/summary.json: is damaged (it names no schema); run the scenario again"


def loaded(tmp_path, *arguments):
    """The heavy modules that a command loads, and its exit status."""
    code = f"""
import sys
from experiments import cli
try:
    cli.main({list(arguments)!r})
except SystemExit as ended:
    print(ended.code, *sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=ENV, capture_output=True, text=True, timeout=60, check=True
    )
    status, *modules = run.stderr.splitlines()[-1].split()
    return int(status), set(modules)


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        (0, ["--help"]),
        (0, ["run", "--help"]),
        (0, ["list"]),
        (0, ["list", "--json"]),
        (2, ["run", "no-such"]),
        (2, ["run", "no.toml"]),
        (2, ["run", "api-service", "--seed", "-1"]),
        (2, ["run", "api-service", "-o", "."]),
        (2, ["show", "nowhere"]),
    ],
)
def test_what_answers_at_once(tmp_path, status, arguments):
    (tmp_path / "file").touch()
    assert loaded(tmp_path, *arguments) == (status, set())


@pytest.mark.parametrize("setting", ["gomaxprocs=0", "duration=1parsec", "no=1", "prices=cray", "prices=./no.toml"])
def test_wrong_values_need_the_schema_alone(tmp_path, setting):
    assert loaded(tmp_path, "run", "api-service", "--set", setting) == (2, {"pydantic"})


def test_show_needs_nothing_heavy(command, tmp_path):
    command("run", "batch-worker", *SMALL, "-o", "out")
    assert loaded(tmp_path, "show", "out") == (0, set())
    assert loaded(tmp_path, "show", "out", "--json") == (0, set())
