"""Real runs kept in a file: what is simulated beside them is compared with the same, and bad files are told."""

import json
import lzma

import numpy as np
import pytest
from click.testing import CliRunner

from experiments import validate
from experiments.calibrate_tables import Measurements
from experiments.cli_validate import validate as command
from experiments.errors import InputError
from experiments.validate_kept import Kept, Shown, read_kept, write_kept
from experiments.validate_memory import Withheld, Writes
from experiments.validate_page import store
from experiments.validate_run import Noise, simulate
from experiments.validate_stream import write
from experiments.validate_workloads import Workload
from sim.jit import PLAIN
from tests.experiments.test_validate import WORKERS, answer, scenario

TOLD = {"mallocs": 0, "overhead_ps": 1, "debt_ns": 0, "interruptions": 0, "minor_faults": 1, "user_ns": 1}
TOLD |= {"system_ns": 1, "wall_ns": 1, "metrics": {"/gc/scan/globals:bytes": 7}}


@pytest.fixture
def ran(tmp_path):
    """A workload, and what its runs showed; a simulated run stands for real ones."""
    found = scenario(tmp_path, WORKERS)
    written = write(found, (), tmp_path)
    seen, _ = simulate(found, written)
    printed = Measurements()
    printed.tables["go1.27", "hit"] = {(16, "noscan", 4, 2): {"p50": [9.75, 10.5]}, (32, "scan", 4, 2): {"p50": [1.0]}}
    missing = Withheld(Writes(1000, np.array([130_000.0])), Writes(10_000, np.zeros(0)))
    told = TOLD | {"mallocs": written.mallocs}
    one = Shown(
        "1.27.3",
        165_386,
        [(seen, seen, told)],
        [Noise(1.0, np.array([1500.0, 2500.5]))],
        [missing],
        [{"hits": printed}],
    )
    return Workload("tiny", str(tmp_path / "tiny.toml")), Kept(1, {"tiny": [one]}, "--repeat 1", {"date": "D"})


@pytest.mark.skipif(PLAIN, reason="thousands of mallocs")
def test_what_is_kept_is_compared_as_before(ran, tmp_path, monkeypatch):
    workload, found = ran
    probes = []
    monkeypatch.setattr(validate, "speeds", lambda wanted, seen: probes.append(seen) or [])
    path = tmp_path / "real.json.xz"
    write_kept(path, found)
    again = read_kept(path, ["tiny", "grid"])
    assert validate.simulated([workload], again) == validate.simulated([workload], found)
    assert probes[0] == probes[1] == [{"hits": found.workloads["tiny"][0].probes[0]["hits"]}]
    assert again.provenance == {"date": "D"}


@pytest.mark.skipif(PLAIN, reason="thousands of mallocs")
def test_a_workload_that_has_changed_since_is_refused(ran, tmp_path):
    workload, found = ran
    changed = Workload("tiny", workload.file, ("run.mallocs=3_000",))
    with pytest.raises(InputError, match=r"^tiny: has another stream now"):
        validate.simulated([changed], found)


@pytest.mark.skipif(PLAIN, reason="thousands of mallocs")
def test_another_workload_than_was_kept_is_told(ran, tmp_path):
    path = tmp_path / "real.json.xz"
    write_kept(path, ran[1])
    with pytest.raises(InputError, match=r"real.json.xz: has none of the workloads that are wanted; it has tiny$"):
        read_kept(path, ["grid"])


@pytest.mark.skipif(PLAIN, reason="thousands of mallocs")
@pytest.mark.parametrize("machine", ["xeon-2core", "epyc-2core"])
def test_prices_of_a_file_with_other_loops_are_compared(ran, tmp_path, machine):
    """Of the loops that were run only those are compared with a file that it has rows of."""
    workload, found = ran
    version = validate.simulated([workload], found, machine)["workloads"][0]["versions"][0]
    assert version["machine"] == machine
    assert [one["aspect"] for one in version["host"]] == (["hits"] if machine == "xeon-2core" else [])


def test_a_page_says_what_made_its_real_runs(tmp_path):
    path = tmp_path / "again.md"
    store(path, answer(), "--kept now.json.xz -o again.md", "--go GO --repeat 3")
    text = path.read_text()
    assert "    allocsim validate --kept now.json.xz -o again.md\n" in text
    assert "Real runs were kept by `allocsim validate --go GO --repeat 3`." in text
    store(path, answer(), "--go GO --repeat 3 -o now.md")
    assert "Real runs were kept" not in path.read_text()


def packed(told):
    return lzma.compress(json.dumps(told).encode())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (None, "No such file or directory"),
        (b"{}", "is no JSON packed by xz"),
        (lzma.compress(b"{"), "is no JSON packed by xz"),
        (lzma.compress(b"{}")[:-20], "is no JSON packed by xz"),
        (lzma.compress(b"[" * 100_000), "is no JSON packed by xz"),
        (packed([]), "has schema None, 1 is known"),
        (packed({"schema": 9}), "has schema 9, 1 is known"),
        (packed({"schema": 1, "repeat": 1}), "workloads: Field required"),
        (packed({"schema": 1, "repeat": 1, "workloads": {"w": [{"toolchain": 3}]}}), "workloads.w.0.toolchain: "),
        (
            packed(
                {"schema": 1, "repeat": 1, "workloads": {"w": [{"toolchain": "1.27.3", "probes": [{"hits": [1]}]}]}}
            ),
            "hits: ",
        ),
    ],
)
def test_a_bad_file_is_one_line(tmp_path, data, why):
    path = tmp_path / "real.json.xz"
    if data is not None:
        path.write_bytes(data)
    found = CliRunner().invoke(command, ["--kept", str(path)])
    assert isinstance(found.exception, InputError)
    assert str(found.exception).startswith(f"{path}: ")
    assert why in str(found.exception)
    assert str(found.exception).endswith("give one that `allocsim validate --keep` wrote")
    assert "\n" not in str(found.exception)


def test_the_file_is_the_same_for_the_same_runs(tmp_path):
    found = Kept(1, {"tiny": [Shown("1.27.3")]})
    for name in "ab":
        write_kept(tmp_path / name, found)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert read_kept(tmp_path / "a", ["tiny"]) == found
