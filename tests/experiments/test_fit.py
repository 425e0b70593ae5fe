"""Fits of real recordings: the scenario collects as the program did; and the command as a person meets it."""

import json
import tomllib
from pathlib import Path

import pytest

from experiments.cli import main
from experiments.fit import fit, table
from sim.jit import PLAIN
from workloads.scenario import load

ROOT = Path(__file__).parent.parent.parent
DATA = ROOT / "tests" / "data" / "recorded"
JSON, CHURN, OLD = (DATA / f"{name}-P1" for name in ("json-go1.27.3", "churn-go1.27.3", "json-go1.19.8"))


@pytest.fixture
def fit_command(tmp_path, monkeypatch, capsys):
    """The command in a folder of its own: exit status, stdout, and stderr but for the line about the first compile."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(["fit", *map(str, arguments)])
        out, err = capsys.readouterr()
        return caught.value.code, out, [line for line in err.splitlines() if not line.startswith("compiling the")]

    return run


@pytest.mark.skipif(PLAIN, reason="millions of allocations")
@pytest.mark.parametrize(("name", "version"), [(JSON, "go1.27"), (OLD, "go1.19")], ids=["1.27", "1.19"])
def test_the_scenario_collects_as_the_real_program_did(name, version):
    found = fit([f"{name}.log", f"{name}.pb.gz"], sets=[f"version={version}"])
    theirs, ours = found.recorded, found.simulated
    assert theirs.cycles > 10 and ours.cycles == pytest.approx(theirs.cycles, rel=0.1)
    for figure in ("trigger", "marked", "goal"):
        assert getattr(ours, figure) == pytest.approx(getattr(theirs, figure), rel=0.05)
    assert ours.rate == pytest.approx(theirs.rate, rel=0.03)
    assert found.met == ("rate", "gc_share") and len(table(found)) == 7


@pytest.mark.skipif(PLAIN, reason="millions of allocations")
def test_a_log_alone_gives_a_scenario_that_collects_as_often():
    """Heaps are larger: what the program allocates while the collector marks is half of what it does otherwise, for write
    barriers and for marking new objects; without barriers assists end marking before the time slice does."""
    found = fit([f"{CHURN}.log"])
    theirs, ours = found.recorded, found.simulated
    for figure, off in (("cycles", 0.16), ("trigger", 0.1), ("marked", 0.12), ("goal", 0.1), ("gc_share", 0.1)):
        assert getattr(ours, figure) == pytest.approx(getattr(theirs, figure), rel=off)
    assert ours.rate == pytest.approx(theirs.rate, rel=0.02)


def test_the_file_is_a_scenario_that_says_where_numbers_come_from(tmp_path, fit_command):
    status, out, err = fit_command(f"{JSON}.log", f"{JSON}.pb.gz", "--no-run", "--set", "gogc=200", "-o", "own.toml")
    assert (status, out) == (0, "")
    assert "warning: a profile does not tell pointers" in err[0] and "run it with allocsim run own.toml" in err[-1]
    text = (tmp_path / "own.toml").read_text()
    assert "gogc = 200  # as set" in text and "gomaxprocs = 1  # json-go1.log" not in text
    assert f"gomaxprocs = 1  # {JSON.name}.log" in text and "sizes: the heap profile" in text
    scenario = load(tmp_path / "own.toml")
    assert (scenario.gogc, scenario.gomaxprocs, scenario.workload.goroutines) == (200, 1, 1)
    assert tomllib.loads(text)["run"]["duration"].endswith("ms")


@pytest.mark.skipif(PLAIN, reason="a million allocations")
def test_a_profile_alone_meets_its_rate(tmp_path, fit_command):
    _, out, _ = fit_command(f"{JSON}.pb.gz", "--seconds", "1.5", "--set", "duration=100ms", "--json")
    answer = json.loads(out)
    assert answer["recorded"] is None and answer["met"] == ["rate"]
    assert (tmp_path / f"{JSON.name.split('.')[0]}.toml").read_text() == answer["scenario"]
    assert any("Go version" in line for line in answer["cautions"])


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["nothing"], "nothing: no such file; name one that exists"),
        (["folder"], "folder: is a directory without record.json"),
        (["text"], "text: is no gctrace log, execution trace or heap profile"),
        ([f"{JSON}.pb.gz"], "does not tell how long the program ran; add --seconds, or a gctrace log"),
        ([f"{JSON}.log", f"{CHURN}.log"], "is a second log, after"),
        ([f"{JSON}.log", "-o", "text"], "text: exists already; name another file with -o, or replace it with --force"),
        ([f"{JSON}.log", "-o", "no/x.toml"], "there is no directory no; make it first"),
        ([f"{JSON}.log", "--set", "gogc=many"], 'runtime.gogc: "many" is not allowed'),
        ([f"{JSON}.log", "--set", "nonsense=1"], "nonsense: unknown key"),
        (["one"], "one: 1 cycles do not tell how much was allocated; record a longer run"),
        (["broken"], "broken/record.json: is no record of a run"),
        (["trace"], "trace: "),
    ],
)
def test_what_cannot_be_fitted(tmp_path, fit_command, arguments, fault):
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "record.json").write_text("[1]")
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "trace").write_bytes(b"go 1.26 trace\0\0\0nothing")
    (tmp_path / "one").write_text(Path(f"{JSON}.log").read_text().splitlines()[0] + "\n")
    before = sorted(tmp_path.rglob("*"))
    status, out, lines = fit_command(*arguments)
    assert (status, out, len(lines)) == (2, "", 1), lines
    assert fault in lines[0] and sorted(tmp_path.rglob("*")) == before


def test_a_directory_without_a_trace_is_not_replayed(tmp_path, capsys):
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(SystemExit) as caught:
        main(["replay", str(tmp_path)])
    assert caught.value.code == 2 and f"{tmp_path}: holds no trace; record a test" in capsys.readouterr().err
