"""A calibration in between the runs of a validation: who has turns when, and what becomes of its file."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from experiments import validate_calibrate
from experiments import validate_real as work
from experiments.calibrate_plan import FULL
from experiments.cli_validate import validate as command
from experiments.errors import InputError
from experiments.validate_calibrate import Meanwhile


class Session:
    """A session of three repetitions of ten processes; ``log`` gets a letter for each process."""

    def __init__(self, log):
        self.log, self.effort, self.name = log, FULL, "now"

    def everything(self):
        for number in range(30):
            self.log.append("c")
            yield (number + 1) / 30

    def text(self):
        return "text so far", []


@pytest.fixture
def log(monkeypatch):
    """What happened, with calibrations that measure nothing."""
    told = []
    monkeypatch.setattr(validate_calibrate, "check", lambda effort: None)
    monkeypatch.setattr(validate_calibrate, "Session", lambda *facts: Session(told))
    monkeypatch.setattr(validate_calibrate, "parse_machine", lambda text, name: text)
    return told


def test_the_first_repetition_comes_first_and_the_others_are_spread_over_the_runs(log, monkeypatch, tmp_path):
    def real(name):
        return [SimpleNamespace(scenario=name, repeat=lambda written, wanted: log.append(wanted[0] + name))]

    monkeypatch.setattr(work, "loops_of", lambda scenario, known: known)
    monkeypatch.setattr(work, "write", lambda scenario, kinds, folder: SimpleNamespace(remove=lambda: None))
    monkeypatch.setattr(validate_calibrate, "settle", lambda session: SimpleNamespace(busy=["others ran"], text="the file"))
    said = []
    meanwhile = Meanwhile(tmp_path / "now.toml", said.append)
    known = meanwhile.begin((), ())
    work.in_turns({"A": real("A"), "B": real("B")}, known, (), Path(), 2, meanwhile, lambda share, doing: None)
    assert "".join(log) == 10 * "c" + "tA" + 5 * "c" + "tB" + 5 * "c" + "tA" + 5 * "c" + "tB" + 5 * "c"
    assert (tmp_path / "now.toml").read_text() == "the file"
    assert said == ["the machine was busy: others ran"]


def test_a_calibration_that_contradicts_itself_leaves_the_file_that_was_there(log, monkeypatch, tmp_path):
    def refuse(session):
        raise InputError("measured 3 times: no")

    monkeypatch.setattr(validate_calibrate, "settle", refuse)
    path = tmp_path / "now.toml"
    path.write_text("before")
    meanwhile = Meanwhile(path, print)
    meanwhile.begin((), ())
    with pytest.raises(InputError, match="measured 3 times"):
        meanwhile.end()
    assert len(log) == 30
    assert path.read_text() == "before"


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--calibrate", "now.toml", "--machine", "xeon-2core"], "--machine and --calibrate: .* give one of them$"),
        (["--calibrate", "old.toml"], "^old.toml: exists already; .* or replace it with --force"),
        (["--calibrate", "nowhere/now.toml"], "there is no directory nowhere"),
        (["--calibrate", "now.toml", "--keep", "old.toml"], "^old.toml: exists already; .* or replace it with --force"),
        (["--calibrate", "now.toml", "--kept", "old.toml"], "--kept: nothing is run; leave out"),
    ],
)
def test_bad_input_is_told_before_any_work(log, monkeypatch, tmp_path, arguments, why):
    monkeypatch.chdir(tmp_path)
    Path("old.toml").write_text("before")
    monkeypatch.setattr("experiments.cli_validate._toolchains", lambda gos: [])
    found = CliRunner().invoke(command, arguments)
    assert isinstance(found.exception, InputError)
    with pytest.raises(InputError, match=why):
        raise found.exception
    assert log == []
