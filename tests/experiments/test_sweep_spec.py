"""What a sweep file means: its points, their order, the runs and what they are recorded under; and what is refused."""

import ast
import itertools
import math
from pathlib import Path

import pytest

from experiments.errors import InputError
from experiments.sweeps import code, points
from experiments.sweeps.spec import Range, Sweep, read_sweep
from sim.units import MIB, US, parse_size, parse_time
from workloads.scenario import load

ROOT = Path(__file__).parent.parent.parent
SMALL = """
purpose = "small"
[runtime]
gomaxprocs = 1
[run]
duration = "1ms"
[workload]
kind = "workers"
goroutines = 1
[[workload.objects]]
size = "64B"
"""


@pytest.fixture
def file(tmp_path):
    """Writes a sweep file beside a scenario of its own; its path."""

    def write(text, scenario="small.toml"):
        (tmp_path / "small.toml").write_text(SMALL)
        path = tmp_path / "sweep.toml"
        path.write_text(f'scenario = "{scenario}"\n{text}' if scenario else text)
        return str(path)

    return write


def values(sweep):
    return [tuple(point.values()) for point in points.values_of(sweep)]


def test_a_grid_is_every_value_with_every_other_in_order():
    sweep = Sweep("api-service", axes={"gogc": [50, "off"], "gomaxprocs": [1, 2, 4]})
    assert values(sweep) == [(50, 1), (50, 2), (50, 4), ("off", 1), ("off", 2), ("off", 4)]


def test_zip_goes_value_by_value_and_a_list_says_each_point():
    assert values(Sweep("s", kind="zip", axes={"a": [1, 2], "b": [True, False]})) == [(1, True), (2, False)]
    assert values(Sweep("s", kind="list", points=[{"a": 1, "b": 2}, {"a": 3, "b": 2}])) == [(1, 2), (3, 2)]


def test_a_latin_hypercube_has_one_point_in_each_stratum_of_each_axis():
    n = 16
    axes = {"gogc": Range(1.0, 17.0), "workload.rate": Range(1.0, math.e**n, "log"), "gomaxprocs": [1, 2, 4, 8]}
    drawn = values(Sweep("s", kind="latin-hypercube", samples=n, seed=3, axes=axes))
    assert sorted(int(one) - 1 for one, _, _ in drawn) == list(range(n))
    assert sorted(int(math.log(one)) for _, one, _ in drawn) == list(range(n))
    assert sorted(one for _, _, one in drawn) == sorted([1, 2, 4, 8] * 4)
    assert [one for one, _, _ in drawn] != sorted(one for one, _, _ in drawn)  # strata are not paired in order
    assert values(Sweep("s", kind="latin-hypercube", samples=n, seed=3, axes=axes)) == drawn
    assert values(Sweep("s", kind="latin-hypercube", samples=n, seed=4, axes=axes)) != drawn


def test_random_points_keep_to_their_ranges_and_units():
    axes = {"gogc": Range(3, 5), "memory_limit": Range("1MiB", "64MiB", "log"), "workload.think": Range("1us", "2us")}
    drawn = values(Sweep("s", kind="random", samples=300, axes=axes))
    assert {one for one, _, _ in drawn} == {3, 4, 5}  # both ends, whole numbers alone
    sizes = [parse_size(one) for _, one, _ in drawn]
    assert MIB <= min(sizes)
    assert max(sizes) <= 64 * MIB
    assert 110 < sum(one < 8 * MIB for one in sizes) < 190  # half of them below the geometric mean: 150 +- 4.6 sigma
    assert all(US <= parse_time(one) <= 2 * US for _, _, one in drawn)


def test_replicates_have_the_same_seeds_at_every_point():
    sweep = Sweep("api-service", axes={"gogc": [50, 100]}, replications=3, seed=7)
    found, scenarios = points.points_of(sweep)
    runs = points.runs_of(sweep.seed, found)
    assert [(run.point, run.replicate, run.seed) for run in runs] == [
        (point, replicate, 7 + replicate) for point, replicate in itertools.product(range(2), range(3))
    ]
    assert len({run.key for run in runs}) == 6
    assert [scenario.gogc for scenario in scenarios] == [50, 100]


def test_the_file_and_three_lines_of_python_are_the_same_sweep(file):
    text = """
        [set]
        run.duration = "2ms"
        "workload.objects.0.size" = "128B"
        [sweep]
        replications = 2
        [axes]
        runtime.gogc = [50, "off"]
        gomaxprocs = [1, 2]
    """
    ours = read_sweep(file(text))
    folder = ours.folder
    sets = {"run.duration": "2ms", "workload.objects.0.size": "128B"}
    theirs = Sweep(
        "small.toml", axes={"runtime.gogc": [50, "off"], "gomaxprocs": [1, 2]}, replications=2, set=sets, folder=folder
    )
    assert ours == theirs
    assert points.points_of(ours)[0] == points.points_of(theirs)[0]
    expected = load(
        folder / "small.toml", ["gogc=off", "gomaxprocs=2", "duration=2ms", "workload.objects.0.size=128B"], 1
    )
    assert points.points_of(ours)[1][3] == expected


def test_a_key_stands_for_what_decides_a_run_and_for_nothing_else(tmp_path, monkeypatch):
    scenario = tmp_path / "a.toml"
    scenario.write_text(SMALL)
    machine = tmp_path / "m.toml"
    machine.write_text((ROOT / "experiments/machines/epyc-2core.toml").read_text())

    def key(**changes):
        wanted = {"scenario": str(scenario), "axes": {"gogc": [100]}, "set": {"prices": str(machine)}} | changes
        return points.points_of(Sweep(**wanted))[0][0].keys[0]

    base = key()
    other = tmp_path / "b.toml"
    other.write_text(SMALL.replace('"small"', '"renamed"'))
    machine.rename(tmp_path / "elsewhere.toml")
    moved = {"prices": str(tmp_path / "elsewhere.toml")}
    assert key(scenario=str(other), set=moved | {"gomaxprocs": 1}, axes={"gogc": [100], "cpus": [1]}) == base
    assert key(seed=2, set=moved) != base
    assert key(axes={"gogc": [99]}, set=moved) != base
    (tmp_path / "elsewhere.toml").write_text((tmp_path / "elsewhere.toml").read_text() + "\n")
    assert key(set=moved) != base
    machine.write_text((ROOT / "experiments/machines/epyc-2core.toml").read_text())
    assert key() == base
    monkeypatch.setattr(points, "code_version", lambda: "another")
    assert key() != base


GRID = "[axes]\ngogc = [50]\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("axis = 1", "axis: unknown key; did you mean axes?"),
        ("[axes", "line 2: is not TOML (expected ']' at the end of a table declaration); write key = value"),
        ("", "axes: missing; write [axes]"),
        ("axes = 5", "axes: 5 is no table; write [axes]"),
        ("[axes]\ngogc = 50", "axes.gogc: 50 is no list of values; write [50, 100]"),
        ("[axes]\ngogc = []", "axes.gogc: has no values; write [50, 100]"),
        (
            f"[sweep]\nreplications = 2\n[axes]\ngogc = {[*range(1, 1001)]}\nworkload.rate = {[*range(1, 1001)]}",
            "axes: make 2,000,000 runs, more than 1,000,000; write fewer values or replications",
        ),
        ("[axes]\ngogc = [[50]]", "axes.gogc: a list is not allowed; write a number"),
        ("[axes]\ngogc = { low = 1, high = 2 }", "axes.gogc: a range is of kind latin-hypercube or random alone"),
        ("[axes]\ngogcc = [50]", "axes: gogcc: unknown key; did you mean runtime.gogc?"),
        (
            "[axes]\nruntime.gogcc = [50]",
            "point 0 (runtime.gogcc = 50): runtime.gogcc: unknown key; did you mean gogc?",
        ),
        ("[axes]\ngogc = [50, 0]", "point 1 (gogc = 0): runtime.gogc: 0 is not allowed; write a percentage from 1"),
        ("[axes]\nprices = ['epyc']", "epyc: no such machine"),
        ("[axes]\nseed = [1, 2]", "axes.seed: seeds are those of the sweep; write seed and replications"),
        (GRID + "runtime.gogc = [50]", "axes.runtime.gogc: is the same setting as axes.gogc; leave one of them out"),
        (GRID + "[set]\ngogc = 5", "set.gogc: is the same setting as axes.gogc; leave one of them out"),
        (GRID + "[set]\npurpose = 2026-01-01", "set.purpose: a date or time is not allowed; write text, numbers"),
        (GRID + "[set]\ndurations = 5", "set: durations: unknown key; did you mean run.duration?"),
        (GRID + "[set]\nduration = 5", 'run.duration: 5 is no text with a unit; write "1s" for instance'),
        (
            GRID + "[sweep]\nkind = 'grit'",
            'sweep.kind: "grit" is not known; write grid, zip, list, latin-hypercube, random',
        ),
        (GRID + "[sweep]\nreplication = 2", "sweep.replication: unknown key; did you mean replications?"),
        (GRID + "[sweep]\nreplications = 0", "sweep.replications: 0 is not allowed; write a whole number from 1"),
        (GRID + "[sweep]\nreplications = '2'", 'sweep.replications: "2" is not allowed; write a whole number'),
        (GRID + "[sweep]\nsamples = 2", "sweep.samples: is of kind latin-hypercube or random alone; leave it out"),
        (GRID + "[sweep]\nkind = 'random'", "sweep.samples: 0 is not allowed; write a whole number from 1"),
        (GRID + "[[point]]\ngogc = 5", 'point: is of kind list; write kind = "list" under [sweep]'),
        ("[sweep]\nkind = 'list'", "point: missing; write [[point]]"),
        (
            "[sweep]\nkind = 'list'\n[[point]]\ngogc = 5\n[[point]]\ncpus = 5",
            "point 1: has other settings than point 0; write gogc",
        ),
        (
            "[sweep]\nkind = 'zip'\n[axes]\ngogc = [1, 2]\ncpus = [1]",
            "axes: of kind zip differ in length (gogc has 2, cpus has 1)",
        ),
        (
            "[sweep]\nkind = 'random'\nsamples = 2\n[axes]\ngogc = { low = 5, high = 1 }",
            "axes.gogc: low 5 is not below high 1",
        ),
        (
            "[sweep]\nkind = 'random'\nsamples = 2\n[axes]\ngogc = { low = 0, high = 1, scale = 'log' }",
            "axes.gogc: 0 has no logarithm",
        ),
        (
            "[sweep]\nkind = 'random'\nsamples = 2\n[axes]\nmemory_limit = { low = '1MiB', high = '1ms' }",
            'axes.memory_limit: "1MiB" and "1ms" are not two sizes or times',
        ),
        ("[sweep]\nkind = 'random'\nsamples = 2\n[axes]\ngogc = { low = 1 }", "axes.gogc.high: missing"),
    ],
)
def test_what_is_refused(file, text, said):
    path = file(text)
    with pytest.raises(InputError) as error:
        points.points_of(read_sweep(path))
    line = str(error.value)
    assert said in line
    assert line.startswith(f"{path}: ") or said.startswith("epyc")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("scenario", "said"),
    [
        ("", "scenario: missing; add scenario ="),
        ("api-servise", "scenario: api-servise: no such scenario; did you mean api-service?"),
        ("missing.toml", "no such file; name one that exists"),
    ],
)
def test_scenarios_that_are_not_there(file, scenario, said):
    with pytest.raises(InputError, match="scenario") as error:
        points.points_of(read_sweep(file(GRID, scenario)))
    assert said in str(error.value)


def test_python_is_checked_alike():
    with pytest.raises(InputError, match=r"^Sweep: sweep.replications: 0 is not allowed"):
        Sweep("api-service", axes={"gogc": [1]}, replications=0)


def imported(path, known):
    """The modules of ``known`` that a source imports when it runs, wherever in its text."""
    tree = ast.parse(path.read_text())
    tree.body = [n for n in tree.body if not (isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING")]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & known.keys()


def test_the_codes_version_is_of_everything_a_worker_imports():
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in (ROOT / "experiments").rglob("*.py")
    }
    needed, todo = set(), ["experiments.sweeps.work"]
    while todo:
        name = todo.pop()
        needed.add(name)
        todo += imported(modules[name], modules) - needed
    assert {f"{name.replace('.', '/')}.py" for name in needed} == {part for part in code.PARTS if part.endswith(".py")}


def test_the_codes_version_changes_with_any_of_its_files(tmp_path):
    for part in code.PARTS:
        target = tmp_path / part
        if part.endswith(".py"):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text("a")
        else:
            (target / "below").mkdir(parents=True)
            (target / "below" / "data.csv").write_text("a")
    seen = {code.code_version.__wrapped__(tmp_path)}
    for part in code.PARTS:
        target = tmp_path / part
        (target if target.is_file() else target / "below" / "data.csv").write_text("b")
        seen.add(code.code_version.__wrapped__(tmp_path))
    assert len(seen) == 1 + len(code.PARTS)


@pytest.mark.parametrize("name", [path.stem for path in sorted((ROOT / "experiments/sweeps/examples").glob("*.toml"))])
def test_shipped_sweeps_can_be_run(name):
    found, _ = points.points_of(read_sweep(name))
    assert len(found) >= 40
    assert read_sweep(name).purpose


def test_a_sweep_that_is_not_there_is_refused():
    with pytest.raises(
        InputError, match="gc-setting: no such sweep; name a .toml file, or one of gc-settings, limit-and-load"
    ):
        read_sweep("gc-setting")
