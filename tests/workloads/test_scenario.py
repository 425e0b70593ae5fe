"""Scenario files: what they become, what is said of wrong ones, and that nothing else comes out whatever they hold."""

import json
import lzma
import subprocess
import sys
import tomllib
from dataclasses import fields, replace
from fractions import Fraction
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.go.gfree import SMALL_FRAMES
from sim.go.params import VERSIONS
from sim.units import GIB, KIB, MIB, SEC, parse_size, parse_time
from tests.traces import trace_path
from workloads import gotrace, scenario_schema, spec
from workloads.gotrace_model import EVENT_COLUMNS
from workloads.scenario import ScenarioError, list_scenarios, load
from workloads.scenario_record import GOGC_OFF, NO_LIMIT, Change, exact_size, exact_time, interval_of

ROOT = Path(__file__).parent.parent.parent
SHIPPED = ROOT / "workloads" / "scenarios"
NAMES = sorted(path.stem for path in SHIPPED.glob("*.toml"))

WORKERS = """
purpose = "a test"
[runtime]
gomaxprocs = 8
[run]
mallocs = 1000
[workload]
kind = "workers"
goroutines = 4
[[workload.objects]]
size = "64B"
"""
SERVICE = """
purpose = "a test"
[runtime]
gomaxprocs = 8
[run]
duration = "1s"
[workload]
kind = "service"
rate = 3000
phases = [{ compute = "20us", mallocs = 5 }]
[[workload.objects]]
size = "64B"
"""


TRACE = f"""
purpose = "a test"
[workload]
kind = "trace"
trace = {json.dumps(str(trace_path("test-fmt-tests-P1-gogc_off")))}
"""


def toml(value):
    """A value as inline TOML."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{toml(key)} = {toml(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


def write(path, tables):
    path.write_text("".join(f"{toml(key)} = {toml(value)}\n" for key, value in tables.items()), "utf-8")
    return path


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A function: load a text from s.toml in the current directory."""
    monkeypatch.chdir(tmp_path)

    def loaded(text, *sets, seed=None):
        Path("s.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return load("s.toml", sets, seed)

    return loaded


def refusal(call, *arguments):
    with pytest.raises(ScenarioError) as caught:
        call(*arguments)
    (text,) = caught.value.args
    assert "\n" not in text
    assert ";" in text or "missing" in text, "says what would be right"
    return text


# What a file becomes


def test_a_share_of_a_shuffled_array_is_in_order_and_no_other_shape_has_one(file):
    given = WORKERS.replace("[runtime]", "[runtime]\nin_order = 0.8", 1)
    assert file(given).in_order_ppm == 800_000 and file(given).resolved()["runtime"]["in_order"] == 0.8
    with pytest.raises(ScenarioError, match='in_order is of heap_shape "array-shuffled"; leave it out'):
        file(given.replace("[runtime]", '[runtime]\nheap_shape = "list"', 1))


def test_defaults(file):
    found = file(WORKERS)
    mix = spec.Mix((spec.Objects(1, ((64, 64, 1),), 0, 1_000_000, spec.Lifetime("request")),))
    assert found.workload == spec.Workers(4, mix)
    assert (found.name, found.purpose) == ("s", "a test")
    assert (found.version, found.gomaxprocs, found.gogc, found.layout) == ("go1.27", 8, 100, "sparse")
    assert (found.memory_limit, found.heap_shape, found.globals_bytes) == (NO_LIMIT, "array-shuffled", 128 * KIB)
    assert found.assists and found.changes == ()
    assert found.in_order_ppm == 0
    assert (found.machine, found.cpus, found.seed) == ("epyc-2core", 8, 1)
    assert (found.duration_ps, found.mallocs, found.max_run_ahead_ps, found.samples) == (None, 1000, 1_000_000, 200)


def test_everything_said(file):
    found = file("""
        purpose = "all keys"
        [runtime]
        version = "go1.19"
        gomaxprocs = 2
        gogc = "off"
        memory_limit = "512MiB"
        heap_shape = "list"
        assists = false
        globals = "1MiB"
        layout = "linear"
        mcentral_mutex = true
        [[runtime.change]]
        at = "1ms"
        gogc = 50
        [[runtime.change]]
        at = "200us"
        memory_limit = "1GiB"
        [[runtime.change]]
        at = "1ms"
        gogc = "off"
        memory_limit = "off"
        [machine]
        prices = "other"
        cpus = 1
        [run]
        seed = 7
        duration = "1.5ms"
        mallocs = 10
        max_run_ahead = "500ns"
        samples = 3
        [workload]
        kind = "service"
        arrivals = "constant"
        rate = 4000
        phases = [{ compute = "2us", compute_dist = "exponential", mallocs = 3 }, { compute = "0s", mallocs = 0 }]
        [[workload.objects]]
        weight = 0.25
        size = ["16B", "24B"]
        pointers = 0.5
        pointer_bytes = 0.25
        lifetime = "immortal"
        [[workload.objects]]
        weight = 0.5
        size = { low = "1KiB", high = "4KiB" }
        lifetime = { ops = 9, dist = "exponential" }
        [[workload.objects]]
        weight = 0
        size = "1B"
        [[workload.objects]]
        weight = 0.75
        size = [{ size = "8B", weight = 0.1 }, { low = "9B", high = "10B", weight = 0.3 }]
        lifetime = { bytes = "1MiB" }
        zeroed = false
        touched = false
        [[workload.objects]]
        size = "1.5KiB"
        lifetime = { cache = 12 }
        """)
    objects = (
        spec.Objects(1, ((16, 16, 1), (24, 24, 1)), 500_000, 250_000, spec.Lifetime("immortal")),
        spec.Objects(2, ((1024, 4096, 1),), 0, 1_000_000, spec.Lifetime("ops", 9, "exponential")),
        spec.Objects(
            3, ((8, 8, 1), (9, 10, 3)), 0, 1_000_000, spec.Lifetime("bytes", MIB), zeroed=False, touched=False
        ),
        spec.Objects(4, ((1536, 1536, 1),), 0, 1_000_000, spec.Lifetime("cache", 12)),
    )
    phases = (spec.Phase(2_000_000, 3, "exponential"), spec.Phase(0, 0))
    assert found.workload == spec.Service("constant", 250_000_000, phases, spec.Mix(objects))
    assert (found.version, found.gomaxprocs, found.layout, found.mcentral_mutex) == ("go1.19", 2, "linear", True)
    assert (found.gogc, found.memory_limit, found.heap_shape, found.globals_bytes) == (-1, 512 * MIB, "list", MIB)
    assert not found.assists
    assert found.changes == (  # by time; at one time, as written
        Change(200_000_000, None, GIB),
        Change(1_000_000_000, 50, None),
        Change(1_000_000_000, GOGC_OFF, NO_LIMIT),
    )
    assert (found.machine, found.cpus, found.seed, found.samples) == ("other", 1, 7, 3)
    assert (found.duration_ps, found.mallocs, found.max_run_ahead_ps) == (1_500_000_000, 10, 500_000)


def test_a_stack_is_said_in_bytes_and_small_by_default(file):
    assert spec.SMALL_STACK == SMALL_FRAMES
    for text in (WORKERS, SERVICE):
        assert file(text).workload.stack == file(text, "stack=288B").workload.stack == SMALL_FRAMES
        assert file(text, "workload.stack=8KiB").workload.stack == 8 * KIB
        assert file(text, "stack=511MiB").workload.stack == 511 * MIB
    assert file(SERVICE, "stack=7KiB").resolved()["workload"]["stack"] == "7KiB"


def test_the_versions_of_the_model_and_their_mutex(file):
    for version, facts in VERSIONS.items():
        assert file(WORKERS, f"version={version}").mcentral_mutex is facts.mcentral_mutex
    assert file(WORKERS, "version=go1.14", "mcentral_mutex=false").mcentral_mutex is False
    assert set(scenario_schema.Runtime.model_fields["version"].annotation.__args__) == set(VERSIONS)


def test_weights_are_the_smallest_integers_and_never_huge(file):
    def weights(*written):
        many = [{"size": "8B", "weight": weight} for weight in written]
        return [kind.weight for kind in file(WORKERS, f"objects={toml(many)}").workload.mix.objects]

    assert weights(20, 30, 50) == [2, 3, 5]
    assert weights(0.1, 0.2, 0.7) == [1, 2, 7]
    assert weights(1000) == [1]
    third, rest = weights(0.3333333333333333, 0.6666666666666667)
    assert abs(third / (third + rest) - 1 / 3) < 1e-8
    assert third + rest <= 10**9
    assert weights(1, 1e-300) == [1]
    again = weights(third, rest)
    assert again == [third, rest]


def test_paths_start_at_the_folder_of_the_file_or_of_the_command(tmp_path, monkeypatch):
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "s.toml").write_text(WORKERS + '[machine]\nprices = "mine.toml"\n')
    monkeypatch.chdir(tmp_path)
    assert load("there/s.toml").machine == str(folder / "mine.toml")
    assert load(folder / "s.toml", ["prices=./other.toml"]).machine == str(tmp_path / "other.toml")
    assert load(folder / "s.toml", ["prices=epyc-2core"]).machine == "epyc-2core"


def test_a_shipped_name_goes_before_a_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ten-size").write_text(WORKERS)
    Path("mine").write_text(WORKERS)
    assert load("ten-size").purpose != "a test"
    assert load("./ten-size").purpose == "a test"
    assert load("mine").purpose == "a test"


# Shipped scenarios


def test_list_has_names_and_purposes_and_imports_nothing_heavy():
    code = (
        "import sys; from workloads.scenario import list_scenarios; print(len(list_scenarios()), "
        "sorted({'numba', 'numpy', 'pydantic', 'scipy', 'simpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == f"{len(NAMES)} []"
    listed = list_scenarios()
    assert [name for name, _ in listed] == NAMES
    assert all(purpose == load(name).purpose and len(purpose) <= 120 for name, purpose in listed)


@pytest.mark.parametrize("name", NAMES)
def test_shipped_scenarios_are_of_a_size_to_run_at_once(name):
    scenario = load(name)
    workload = scenario.workload
    mallocs = scenario.mallocs
    if isinstance(workload, spec.Recorded):
        assert Path(workload.trace).stat().st_size < 100_000
        return
    if isinstance(workload, spec.Service):
        requests = scenario.duration_ps // workload.interval
        mallocs = requests * sum(phase.mallocs for phase in workload.phases)
    assert 200_000 <= mallocs <= 4_000_000
    weight = sum(kind.weight for kind in workload.mix.objects)
    mean = sum(Fraction(kind.weight, weight) * mean_size(kind) for kind in workload.mix.objects)
    assert mallocs * mean < 2 * GIB
    if isinstance(workload, spec.Workers):  # caches fill up, so that they evict
        for kind in workload.mix.objects:
            if kind.lifetime.kind == "cache":
                inserted = Fraction(mallocs * kind.weight, workload.goroutines * weight)
                assert inserted > 2 * kind.lifetime.mean


def test_shipped_scenarios_collect_unless_they_are_about_the_allocator_alone():
    off = [name for name in NAMES if load(name).gogc == GOGC_OFF]
    assert off == ["old-go", "recorded-gofmt", "ten-size"]
    assert {load(name).gogc for name in NAMES} == {GOGC_OFF, 100}
    assert all(load(name).memory_limit == NO_LIMIT for name in NAMES)


def mean_size(kind):
    total = sum(weight for _, _, weight in kind.sizes)
    return sum(Fraction((low + high) * weight, 2 * total) for low, high, weight in kind.sizes)


def test_ten_size_is_the_ten_sizes_in_equal_shares():
    (kind,) = load("ten-size").workload.mix.objects
    assert kind.sizes == tuple((n, n, 1) for n in (16, 24, 32, 48, 64, 96, 128, 256, 512, 1024))
    assert kind.pointers_ppm == 500_000
    assert kind.lifetime == spec.Lifetime("ops", 10_000, "exponential")


# Round trip


def assert_written_again_is_equal(scenario, folder):
    path = write(folder / f"{scenario.name}.toml", scenario.resolved())
    again = load(path)
    assert again == scenario
    assert again.resolved() == scenario.resolved()


@pytest.mark.parametrize("name", NAMES)
def test_a_resolved_scenario_written_out_is_equal(name, tmp_path):
    assert_written_again_is_equal(load(name), tmp_path)


def test_resolved_names_every_key(file):
    for text in (WORKERS, SERVICE, TRACE):
        found = file(text, "duration=1s", "mallocs=5").resolved()
        assert list(found) == list(scenario_schema.File.model_fields)
        for section, model in (("runtime", "Runtime"), ("machine", "Machine"), ("run", "Run")):
            assert set(found[section]) == set(getattr(scenario_schema, model).model_fields)
        model = getattr(scenario_schema, found["workload"]["kind"].title())
        assert set(found["workload"]) == set(model.model_fields) - {"sizes_table"}
        if text != TRACE:
            assert set(found["workload"]["objects"][0]) == set(scenario_schema.Objects.model_fields)


@given(st.integers(0, 2**63 - 1))
def test_times_and_sizes_are_written_exactly(n):
    assert parse_time(exact_time(n)) == n
    assert parse_size(exact_size(n)) == n


def test_times_and_sizes_are_written_for_people():
    assert [exact_time(n) for n in (0, 12_400, 999, 1_000_000, 1_500_000_000, 333_333_333)] == [
        "0s", "12.4ns", "999ps", "1us", "1.5ms", "333333.333ns",
    ]  # fmt: skip
    assert [exact_size(n) for n in (1, 1024, 1536, 33 * KIB, MIB)] == ["1B", "1KiB", "1536B", "33KiB", "1MiB"]


@settings(max_examples=50, deadline=None)
@given(st.floats(0.001, 1e9))
def test_any_rate_keeps_its_interval(tmp_path_factory, rate):
    path = tmp_path_factory.mktemp("rate") / "s.toml"
    path.write_text(SERVICE)
    found = load(path, [f"rate={rate!r}"])
    assert found.workload.interval == interval_of(rate) == round(Fraction(SEC) / Fraction(rate))
    assert_written_again_is_equal(found, path.parent)


# --set


def test_set_takes_dotted_and_short_keys_and_bare_words(file):
    found = file(
        WORKERS,
        "runtime.gomaxprocs=16",
        "gomaxprocs = 32",
        "gogc=off",
        "version=go1.14",
        "think=500us",
        "workload.objects.0.size=512B",
        "workload.objects.0.lifetime={ops = 5}",
        "mcentral_mutex=false",
        "duration='2s'",
        "purpose=another one",
    )
    assert (found.gomaxprocs, found.version, found.mcentral_mutex) == (32, "go1.14", False)
    assert (found.workload.mix.think, found.duration_ps, found.purpose) == (500_000_000, 2 * SEC, "another one")
    (kind,) = found.workload.mix.objects
    assert (kind.sizes, kind.lifetime) == (((512, 512, 1),), spec.Lifetime("ops", 5))


def test_set_makes_a_section_that_the_file_leaves_out(file):
    assert file(WORKERS, "cpus=2").cpus == 2


def test_the_seed_goes_over_file_and_sets(file):
    assert file(WORKERS, "seed=3").seed == 3
    assert file(WORKERS, "seed=3", seed=9).seed == 9
    assert "run.seed: -1" in refusal(lambda: file(WORKERS, seed=-1))


def test_a_key_of_two_sections_is_ambiguous():
    from workloads.scenario import full_key

    text = refusal(full_key, "x", {"one": ["x"], "two": ["x"]}, "f")
    assert text == "f: x: is a key of several sections; write one.x or two.x"


# A stand-in for the reader of size tables


@pytest.fixture
def table(monkeypatch):
    """A stand-in for workloads.sizetable that answers with ``module.answer``, or raises it."""
    module = ModuleType("workloads.sizetable")
    kinds = (
        spec.Objects(20, ((16, 16, 4), (24, 24, 2)), 0, 1_000_000, spec.Lifetime("ops", 4000, "exponential")),
        spec.Objects(10, ((4096, 4096, 1),), 0, 1_000_000, spec.Lifetime("immortal")),
    )
    module.answer = SimpleNamespace(mix=spec.Mix(kinds), rate=Fraction(2_000_000))
    module.paths = []

    def read_size_table(path):
        module.paths.append(path)
        if isinstance(module.answer, Exception):
            raise module.answer
        return module.answer

    module.read_size_table = read_size_table
    monkeypatch.setitem(sys.modules, "workloads.sizetable", module)
    return module


def test_workers_of_a_table_aim_at_its_rate_and_share_its_lifetimes(file, table, tmp_path):
    found = file(WORKERS, "sizes_table=t.csv")
    assert table.paths == [str(tmp_path / "t.csv")]
    mix = found.workload.mix
    assert mix.think == 4 * SEC // 2_000_000
    assert [kind.weight for kind in mix.objects] == [2, 1]
    assert mix.objects[0].sizes == ((16, 16, 2), (24, 24, 1))
    assert mix.objects[0].lifetime == spec.Lifetime("ops", 1000, "exponential")
    assert mix.objects[1].lifetime == spec.Lifetime("immortal")
    assert file(WORKERS, "sizes_table=t.csv", "think=5ns").workload.mix.think == 5000
    assert_written_again_is_equal(found, tmp_path)


def test_requests_of_a_table_arrive_at_its_rate(file, table, tmp_path):
    text = SERVICE.replace("rate = 3000", "").replace('[[workload.objects]]\nsize = "64B"', 'sizes_table = "t.csv"')
    found = file(text)
    assert found.workload.interval == 5 * SEC // 2_000_000
    assert found.workload.mix.objects[0].lifetime.mean == 4000
    assert file(text, "rate=1000").workload.interval == SEC // 1000
    assert_written_again_is_equal(found, tmp_path)


def test_what_is_wrong_with_a_table_is_one_line(file, table, tmp_path):
    table.answer = ValueError("line 3: rate is -1; write one above 0")
    path = tmp_path / "t.csv"
    assert refusal(file, WORKERS, "sizes_table=t.csv") == f"s.toml: workload.sizes_table: {path}: {table.answer}"
    table.answer = ValueError(f"{path}, line 3: rate is -1; write one above 0")
    assert refusal(file, WORKERS, "sizes_table=t.csv") == f"s.toml: workload.sizes_table: {table.answer}"


def test_objects_and_a_table_at_once_are_refused_but_set_replaces(file, table):
    assert "both objects and sizes_table" in refusal(file, WORKERS.replace("goroutines", 'sizes_table="t"\ngoroutines'))
    assert file(WORKERS, "sizes_table=t.csv", "objects=[{size = '8B'}]").workload.mix.objects[0].sizes == ((8, 8, 1),)


# A recorded trace


def test_a_trace_says_how_many_ps_and_when_it_ends(file, tmp_path):
    found = file(TRACE)
    path = str(trace_path("test-fmt-tests-P1-gogc_off"))
    assert found.workload == spec.Recorded(path)
    assert (found.gomaxprocs, found.cpus, found.duration_ps, found.mallocs) == (1, 1, None, None)
    assert_written_again_is_equal(found, tmp_path)
    more = file(TRACE, "gomaxprocs=4", "duration=2ms", "mallocs=7")
    assert (more.gomaxprocs, more.cpus, more.duration_ps, more.mallocs) == (4, 4, 2_000_000_000, 7)
    assert_written_again_is_equal(more, tmp_path)
    two = trace_path("xbench-json-P2-gogc_default")
    assert file(TRACE, f"trace='{two}'").gomaxprocs == 2


def test_a_trace_is_looked_for_beside_its_scenario(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "s.toml").write_text(TRACE.replace(str(trace_path("test-fmt-tests-P1-gogc_off")), "t.xz"))
    (tmp_path / "there" / "t.xz").write_bytes(trace_path("test-fmt-tests-P1-gogc_off").read_bytes())
    assert load(tmp_path / "there" / "s.toml").workload == spec.Recorded(str(tmp_path / "there" / "t.xz"))


def test_what_is_wrong_with_a_trace_is_one_line(file, tmp_path):
    whole = trace_path("test-fmt-tests-P1-gogc_off").read_bytes()
    raw = lzma.decompress(whole)
    for content, says in (
        (None, "cannot be read: No such file or directory; name a whole execution trace of Go"),
        (b"", "is empty; a Go execution trace is wanted"),
        (b"go 1.26 trace\0\0\0", "; name a whole execution trace"),
        (whole[:20_000], "; name a whole execution trace"),
        (raw[: len(raw) // 2], "; name a whole execution trace"),
    ):
        if content is not None:
            (tmp_path / "t").write_bytes(content)
        text = refusal(file, TRACE, "trace=t")
        assert text.startswith(f"s.toml: workload.trace: {tmp_path / 't'}: ") and says in text
    assert "is not a plain file; name a recorded" in refusal(file, TRACE, f"trace={tmp_path}")
    assert refusal(file, TRACE.replace("trace = ", "trac = ")).startswith("s.toml: workload.trac: unknown key; did you")
    assert 'workload.trace: missing; add trace = "' in refusal(file, 'purpose="x"\n[workload]\nkind="trace"')
    assert 'is no key of kind "trace"' in refusal(file, TRACE, "goroutines=2")


def test_a_trace_without_mallocs_says_how_to_record_them(file, tmp_path):
    trace = gotrace.read_trace(trace_path("test-fmt-tests-P1-gogc_off"))
    for keep, says in (
        (trace.kind > gotrace.STACK_FREE, "record it with GODEBUG=traceallocfree=1"),
        (trace.kind != gotrace.OBJECT_ALLOC, "no goroutine of the trace allocates; record a run that does"),
    ):
        columns = {name: getattr(trace, name)[keep] for name in EVENT_COLUMNS}
        gotrace.save(replace(trace, **columns, generation_start=0 * trace.generation_start), tmp_path / "t")
        assert says in refusal(file, TRACE, "trace=t")


# What is said of wrong ones

OBJECT = "workload.objects.0"
WRONG_SETS = [  # value, then what the line says after "s.toml: "
    ("stack=8", 'workload.stack: 8 is no text with a unit; write "8KiB" for instance'),
    ("stack=512MiB", 'workload.stack: "512MiB" is out of range; write what is from 1B to 511MiB'),
    ("stack=0B", 'workload.stack: "0B" is out of range; write what is from 1B to 511MiB'),
    ("runtime.gomaxproc=8", "runtime.gomaxproc: unknown key; did you mean gomaxprocs?"),
    ("gomaxproc=8", "gomaxproc: unknown key; did you mean runtime.gomaxprocs?"),
    ("runtim.gomaxprocs=8", "runtim: unknown key; did you mean runtime?"),
    ("run.gomaxprocs=8", "run.gomaxprocs: unknown key here; it belongs to [runtime]"),
    ("zzz=8", "zzz: unknown key; write it with its section: runtime, machine, run, workload"),
    (f"{OBJECT}.q=8", f"{OBJECT}.q: unknown key; known here: weight, size,"),
    ("rate=8", 'workload.rate: is no key of kind "workers"; leave it out, or change the kind'),
    ("gomaxprocs=0", "runtime.gomaxprocs: 0 is not allowed; write a whole number from 1 to 1024"),
    ("gomaxprocs=1025", "runtime.gomaxprocs: 1025 is not"),
    ("gomaxprocs=2.0", "runtime.gomaxprocs: 2.0 is not"),
    ("gomaxprocs='8'", 'runtime.gomaxprocs: "8" is not'),
    ("gomaxprocs=true", "runtime.gomaxprocs: true is not"),
    ("gomaxprocs=1979-05-27", "runtime.gomaxprocs: a date or time is not"),
    ("gomaxprocs=8\nx=3", 'runtime.gomaxprocs: "8\\nx=3" is not'),
    ("gogc=0", 'runtime.gogc: 0 is not allowed; write a percentage from 1 to 100000, or "off"'),
    ("gogc=-5", 'runtime.gogc: -5 is not allowed; write a percentage from 1 to 100000, or "off"'),
    ("gogc=50.5", "runtime.gogc: 50.5 is not allowed; write a percentage"),
    ("gogc=100%", 'runtime.gogc: "100%" is not allowed; write a percentage'),
    ("gogc=true", "runtime.gogc: true is not allowed; write a percentage"),
    ("memory_limit=512", 'runtime.memory_limit: 512 is no text with a unit; write "512MiB" for instance'),
    ("memory_limit=-1MiB", 'runtime.memory_limit: "-1MiB" is negative; write "512MiB" for instance'),
    ("memory_limit=12 potatoes", "runtime.memory_limit: '12 potatoes' is not a size; write a number and one of B, KiB,"),
    ("memory_limit=0B", 'runtime.memory_limit: "0B" is out of range; write what is from 1B to below 1TiB, or off'),
    ("heap_shape=graph", "runtime.heap_shape: \"graph\" is not known; write 'array-shuffled', 'array'"),
    ("in_order=1.5", "runtime.in_order: 1.5 is"),
    ("globals=-1B", 'runtime.globals: "-1B" is negative; write "128KiB" for instance'),
    ("runtime.change=5", "runtime.change: 5 is no list; write tables in [ ], or under [[runtime.change]]"),
    ("runtime.change=[{gogc=50}]", 'runtime.change.0.at: missing; add at = "200ms"'),
    ("runtime.change=[{at='1ms'}]", 'runtime.change.0: changes nothing; add gogc = 50, or memory_limit = "1GiB"'),
    ("runtime.change=[{at='1ms', gogc=-1}]", "runtime.change.0.gogc: -1 is not allowed; write a percentage"),
    ("runtime.change=[{at='1ms', gc=5}]", "runtime.change.0.gc: unknown key; did you mean gogc?"),
    ("version=go1.20", "runtime.version: \"go1.20\" is not known; write 'go1.27', 'go1.19' or 'go1.14'"),
    ("layout=dense", "runtime.layout: \"dense\" is not known; write 'sparse' or 'linear'"),
    ("mcentral_mutex=1", "runtime.mcentral_mutex: 1 is not allowed; write true or false"),
    ("runtime=8", "runtime: 8 is no table; write { key = value }"),
    ("prices=''", 'machine.prices: "" is no name; write'),
    ("cpus=0", "machine.cpus: 0 is not allowed; write a whole number"),
    ("seed=0x" + "f" * 9999, "run.seed: a number of many digits is not allowed; write a whole number"),
    ("seed=" + "9" * 9999, 'run.seed: "9999999999999999999999999999999999999999..." is not'),
    ("duration=106d", "run.duration: '106d' is not a duration; write a number and one of ps, ns, us,"),
    ("duration=5", 'run.duration: 5 is no text with a unit; write "1s" for instance'),
    ("duration=2563h", 'run.duration: "2563h" is out of range; write what is from 1ps to 106 days'),
    ("duration=" + "9" * 50 + "s", 'run.duration: "9999999999999999999999999999999999999999..." is too long; write'),
    ("duration=0s", 'run.duration: "0s" is out of range'),
    ("duration=-1s", 'run.duration: "-1s" is negative; write'),
    ("run.mallocs=0", "run.mallocs: 0 is not"),
    ("max_run_ahead=2s", 'run.max_run_ahead: "2s" is out of range; write what is from 1ns to 1s'),
    ("samples=0", "run.samples: 0 is not"),
    ("purpose='a\tb'", 'purpose: "a\\tb" is not one line'),
    ("purpose=''", 'purpose: "" is not one line'),
    ("purpose.x=1", "purpose.x: purpose holds no other keys; write purpose=value"),
    ("workload=8", "workload: 8 is no table; write { key = value }, or such lines under [workload]"),
    ("kind=servant", "workload.kind: \"servant\" is not known; write 'workers', 'service'"),
    ("kind=[1]", "workload.kind: a list is not known; write"),
    ("goroutines=0", "workload.goroutines: 0 is not"),
    ("think=2h", 'workload.think: "2h" is out of range; write what is from 0s to 3600s'),
    ("think=0.1ps", "workload.think: '0.1ps' is finer than the smallest unit of a duration; write"),
    ("think_dist=normal", "workload.think_dist: \"normal\" is not known; write 'fixed' or 'exponential'"),
    ("objects=8", "workload.objects: 8 is no list; write tables in [ ], or under [[workload.objects]]"),
    ("objects=[8]", f"{OBJECT}: 8 is no table; write {{ key = value }}"),
    ("objects=[]", "workload: allocates nothing; write at least one"),
    ("objects=[{weight = 1}]", f'{OBJECT}.size: missing; add size = "64B"'),
    ("workload.objects.1.size=8B", "workload.objects.1.size: 1 is no index of this list; write 0 to 0"),
    (f"{OBJECT}.weight=0", "workload: the weights of its objects sum to 0; write at least one above 0"),
    (f"{OBJECT}.weight=-1", f"{OBJECT}.weight: -1 is not allowed; write a number from 0"),
    (f"{OBJECT}.weight=nan", f"{OBJECT}.weight: nan is not allowed"),
    (f"{OBJECT}.weight=1e400", f"{OBJECT}.weight: inf is not allowed"),
    (f"{OBJECT}.size=64", f'{OBJECT}.size: 64 is no size; write "64B",'),
    (f"{OBJECT}.size=64KB", f"{OBJECT}.size: '64KB' is not a size; write a number and one of B, KiB,"),
    (f"{OBJECT}.size=2TiB", f'{OBJECT}.size: "2TiB" is out of range; write what is from 1B to below 1TiB'),
    (f"{OBJECT}.size=0B", f'{OBJECT}.size: "0B" is out of range'),
    (f"{OBJECT}.size=-8B", f'{OBJECT}.size: "-8B" is negative; write "64B" for instance'),
    (f"{OBJECT}.size=[]", f"{OBJECT}.size: the list is empty; write at least one size"),
    (f"{OBJECT}.size=['8B', 9]", f"{OBJECT}.size.1: 9 is no text with a unit; write"),
    (f"{OBJECT}.size=[{{size = '8B', weight = 0}}]", f"{OBJECT}: the weights of its sizes sum to 0; write"),
    (f"{OBJECT}.size={{low = '8B'}}", f"{OBJECT}.size: is neither a size nor a range; write"),
    (f"{OBJECT}.size={{size = '8B', low = '8B', high = '9B'}}", f"{OBJECT}.size: is neither a size nor a range"),
    (f"{OBJECT}.size={{low = '9B', high = '8B'}}", f"{OBJECT}.size: low is 9B, high only 8B; swap them"),
    (f"{OBJECT}.size={{low = '1B', high = '4GiB'}}", f"{OBJECT}.size: the range is wider than 2GiB; write"),
    (f"{OBJECT}.size={{lo = '1B', high = '4GiB'}}", f"{OBJECT}.size.lo: unknown key; did you mean low?"),
    (
        f"{OBJECT}.size={{low=8B}}",
        f"{OBJECT}.size: {{low=8B}} is not a TOML value; write one, with text inside in quotes",
    ),
    (f"{OBJECT}.pointers=1.5", f"{OBJECT}.pointers: 1.5 is not allowed; write a number from 0 to 1"),
    (f"{OBJECT}.pointer_bytes=-0.1", f"{OBJECT}.pointer_bytes: -0.1 is not allowed"),
    (f"{OBJECT}.zeroed=no", f'{OBJECT}.zeroed: "no" is not allowed; write true or false'),
    (f"{OBJECT}.lifetime=short", f'{OBJECT}.lifetime: "short" is no lifetime; write "immortal", "request", {{ ops'),
    (f"{OBJECT}.lifetime={{}}", f"{OBJECT}.lifetime: has not exactly one of ops, bytes and cache; write"),
    (f"{OBJECT}.lifetime={{ops = 1, cache = 1}}", f"{OBJECT}.lifetime: has not exactly one of"),
    (f"{OBJECT}.lifetime={{op = 1}}", f"{OBJECT}.lifetime.op: unknown key; did you mean ops?"),
    (f"{OBJECT}.lifetime={{ops = 0}}", f"{OBJECT}.lifetime.ops: 0 is not allowed"),
    (f"{OBJECT}.lifetime={{bytes = 5}}", f"{OBJECT}.lifetime.bytes: 5 is no text with a unit"),
    (f"{OBJECT}.lifetime={{cache = 5, dist = 'fixed'}}", f"{OBJECT}.lifetime: a cache has no dist; leave it out"),
    (f"{OBJECT}.lifetime={{cache = 30_000_000}}", "workload: caches of 120000000 places in all, one of each per"),
    ("gomaxprocs", "--set gomaxprocs: is not key=value; write one such as gomaxprocs=8"),
    ("=8", "--set =8: is not key=value"),
    ("runtime..x=8", "--set runtime..x=8: is not key=value"),
    ("think=", "think: nothing is not a TOML value; write one"),
    ("think=[", "think: [ is not a TOML value; write one"),
]


@pytest.mark.parametrize(("one", "says"), WRONG_SETS, ids=[one[:40] for one, _ in WRONG_SETS])
def test_wrong_values(file, one, says):
    assert refusal(file, WORKERS, one).startswith(f"s.toml: {says}")


@pytest.mark.parametrize(
    ("one", "says"),
    [
        ("rate=0", "workload.rate: 0 is not allowed; write a number from 0.001 to 1e+09"),
        ("rate=1e10", "workload.rate: 10000000000.0 is not allowed"),
        ("rate=fast", 'workload.rate: "fast" is not allowed'),
        ("arrivals=bursts", "workload.arrivals: \"bursts\" is not known; write 'poisson' or 'constant'"),
        ("phases=[]", "workload: no phase allocates; write mallocs above 0 in one of them"),
        ("workload.phases.0.mallocs=0", "workload: no phase allocates"),
        ("workload.phases.0.mallocs=-1", "workload.phases.0.mallocs: -1 is not allowed"),
        ("workload.phases.0.compute=-1us", 'workload.phases.0.compute: "-1us" is negative'),
        ("workload.phases.0.cost=1us", "workload.phases.0.cost: unknown key; "),
        ("phases=[{mallocs = 1}]", 'workload.phases.0.compute: missing; add compute = "20us"'),
        ("phases=3", "workload.phases: 3 is no list"),
        ("goroutines=3", 'workload.goroutines: is no key of kind "service"; leave it out, or change the kind'),
    ],
)
def test_wrong_values_of_a_service(file, one, says):
    assert refusal(file, SERVICE, one).startswith(f"s.toml: {says}")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('purpose = "a test"', "purpose: missing; add purpose = "),
        ("gomaxprocs = 8", "runtime.gomaxprocs: missing; add gomaxprocs = 8"),
        ("[runtime]\ngomaxprocs = 8", "runtime: missing; add a section [runtime] with gomaxprocs = 8"),
        ("mallocs = 1000", "run: has neither duration nor mallocs; write one or both"),
        ('kind = "workers"', 'workload.kind: missing; add kind = "workers", kind = "service" or'),
        ("goroutines = 4", "workload.goroutines: missing; add goroutines = 8"),
        ('[[workload.objects]]\nsize = "64B"', "workload: allocates nothing; write at least one [[workload.objects]]"),
        ('size = "64B"', "workload.objects.0.size: missing; add size ="),
    ],
)
def test_missing_keys(file, line, says):
    assert line in WORKERS
    assert refusal(file, WORKERS.replace(line, "")).startswith(f"s.toml: {says}")
    assert refusal(file, SERVICE.replace("rate = 3000", "")).startswith("s.toml: workload: has no rate; add")


def test_there_is_an_example_of_every_key_that_may_be_missing():
    models = {model for models in scenario_schema.TABLES.values() for model in models}
    required = {key for model in models for key, field in model.model_fields.items() if field.is_required()}
    required |= {"runtime", "gomaxprocs", "run"}  # unless the workload is a trace
    assert required == set(scenario_schema.EXAMPLES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = 1\nb = 5us\n", "line 2: is not TOML (expected newline"),
        (
            "a = 1\na = 2\n\n\n",
            "line 2: is not TOML (cannot overwrite a value at column 6); write each key and each section once",
        ),
        ("[a.b]\n[a.b]\n", "line 2: is not TOML (cannot declare a.b twice at column 5); write each key"),
        ("a = {x = 1, x = 2}", "line 1: is not TOML (duplicate inline"),
        ("a = 1\na = 2", "line 2: is not TOML (cannot overwrite a value); write"),
        ("\n\n\na = [", "line 4: is not TOML ("),
        ("a = " + "[" * 100_000, "is nested too deeply; write"),
        ("a = " + "9" * 5_000, "is not TOML (exceeds the limit"),
        (b"a = 1\nb = '\xff'\n", "line 2: is not UTF-8 text; save it as UTF-8"),
        ("\ufeff" + WORKERS, "line 1: is not TOML ("),
        ('"a\\nb" = 1\n' + WORKERS, "a\\nb: unknown key; known here: purpose, runtime,"),
    ],
    ids=range(11),
)
def test_wrong_toml_names_the_line(file, text, says):
    found = refusal(file, text)
    assert found.lower().startswith(f"s.toml: {says}".lower())


def test_files_that_are_none(tmp_path):
    assert refusal(load, "tensize") == "tensize: no such scenario; did you mean ten-size?"
    assert refusal(load, "zz").startswith("zz: no such scenario; name a .toml file, or one of api-service,")
    assert refusal(load, "").startswith("'': no such scenario; ")
    assert refusal(load, "a\0b").startswith("a\\x00b: no such scenario; ")
    missing = tmp_path / "x.toml"
    assert refusal(load, missing) == f"{missing}: no such file; name one that exists"
    assert refusal(load, tmp_path) == f"{tmp_path}: cannot be read (Is a directory); name a file that can"
    (tmp_path / "big.toml").write_bytes(b"\n" * (17 << 20))
    assert "is larger than 16 MiB; " in refusal(load, tmp_path / "big.toml")


# Whatever a file holds

scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 100),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["64B", "1KiB", "5us", "2h", "off", "go1.14", "request", "service", "fixed", "-1B", "9e9s"]),
)
known = sorted({key for models in scenario_schema.TABLES.values() for model in models for key in model.model_fields})
keys = st.sampled_from(known) | st.text(max_size=6)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3))


def check_outcome(path, sets=()):
    """A scenario that survives being written, or one line: anything else fails the test."""
    try:
        found = load(path, sets)
    except ScenarioError as error:
        (text,) = error.args
        assert text.startswith(f"{path}: ")
        assert text.isprintable()
        assert len(text) < len(str(path)) + 600
        assert "scenario_schema.py" not in text, "an error of pydantic that has no words of ours"
    else:
        assert_written_again_is_equal(found, path.parent)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "s.toml"


@pytest.fixture(scope="module", autouse=True)
def _no_table():
    """Where a random edit names a size table, there is none."""
    with pytest.MonkeyPatch.context() as patch:
        module = ModuleType("workloads.sizetable")

        def read_size_table(path):
            raise ValueError(f"{path}: cannot be read: No such file or directory")

        module.read_size_table = read_size_table
        patch.setitem(sys.modules, "workloads.sizetable", module)
        yield


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(keys, values, max_size=6))
def test_random_tables(scratch, tables):
    check_outcome(write(scratch, tables))


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_random_edits_of_a_value(scratch, name, data):
    tables = load(name).resolved()
    for _ in range(data.draw(st.integers(1, 2))):
        node = tables
        while True:
            places = list(node) if isinstance(node, dict) else list(range(len(node)))
            place = data.draw(st.sampled_from(places) | keys if isinstance(node, dict) else st.sampled_from(places))
            inner = node.get(place) if isinstance(node, dict) else node[place]
            if not isinstance(inner, (dict, list)) or not inner or data.draw(st.integers(0, 4)) == 0:
                break
            node = inner
        if isinstance(node, dict) and data.draw(st.booleans()) and data.draw(st.booleans()):
            node.pop(place, None)
        else:
            node[place] = data.draw(values)
        if not node:
            break
    check_outcome(write(scratch, tables))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_random_edits_of_the_text(scratch, name, data):
    text = (SHIPPED / f"{name}.toml").read_bytes()
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 12))
        text = (
            text[:at] + data.draw(st.sampled_from([b"", b"0", b"[", b'"', b"\n", b"9", b"-", b"."])) + text[at + cut :]
        )
    scratch.write_bytes(text)
    check_outcome(scratch)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes(scratch, text):
    scratch.write_bytes(text)
    check_outcome(scratch)


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from([WORKERS, SERVICE, TRACE]),
    st.lists(
        st.tuples(
            st.sampled_from([f"{section}.{key}" for section in scenario_schema.SECTIONS for key in known])
            | st.sampled_from([f"workload.objects.0.{key}" for key in known])
            | st.sampled_from(known)
            | st.text(max_size=8),
            values.map(toml) | st.text(max_size=10),
        ).map("=".join)
        | st.text(max_size=10),
        max_size=3,
    ),
)
def test_random_sets(scratch, text, sets):
    scratch.write_text(text)
    check_outcome(scratch, sets)


def test_the_record_is_frozen_and_compares(file):
    found = file(WORKERS)
    with pytest.raises(AttributeError):
        found.seed = 2
    assert replace(found, seed=2) != found
    assert all(field.name in repr(found) for field in fields(found))


def test_the_written_schema_has_every_key_with_its_default():
    """The page at the top of scenario_schema.py, block by block: a wrong default there is found."""
    page = scenario_schema.__doc__.split("In place of objects")[0].split("\n\n", 1)[1]
    kinds = {"workers": "Workers", "service": "Service", "trace": "Trace"}
    defaults, seen = {}, {}
    for block in page.split("\n\n"):
        tables = tomllib.loads("\n".join(line.strip() for line in block.splitlines()))
        for key, value in tables.items():
            within = next((part for part in ("objects", "change") if isinstance(value, dict) and part in value), None)
            inner = value if within is None else value[within][0]
            name = kinds[value["kind"]] if "kind" in inner else (within or key).capitalize()
            seen[name] = inner
    everything = {"purpose": seen.pop("Purpose"), "machine": seen["Machine"]}
    everything |= {"run": seen["Run"]}
    change = seen.pop("Change")
    assert set(change) == set(scenario_schema.ChangeTable.model_fields)
    everything["runtime"] = seen["Runtime"] | {"change": [change]}
    for name, table in seen.items():
        model = getattr(scenario_schema, name)
        inherited = {"objects", "sizes_table"} if name in kinds.values() else {"change"} & set(model.model_fields)
        assert set(table) == set(model.model_fields) - inherited
        defaults[name] = {key: f for key, f in model.model_fields.items() if not f.is_required() and key in table}
    for kind in kinds.values():
        objects = {} if kind == "Trace" else {"objects": [seen["Objects"]]}
        tables = everything | {"workload": seen[kind] | objects}
        model = scenario_schema.File.model_validate(tables)
        for name, part in (("Runtime", model.runtime), ("Run", model.run), (kind, model.workload)):
            for key, field in defaults[name].items():
                if field.default is not None:
                    assert getattr(part, key) == field.default, f"{name}.{key}"
        if kind == "Trace":
            continue
        (objects,) = model.workload.objects
        assert all(getattr(objects, key) == field.default for key, field in defaults["Objects"].items())
