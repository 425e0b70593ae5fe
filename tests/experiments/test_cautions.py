"""What is said before a run that will probably not show what was meant; and that the run ends all the same."""

import re

import pytest

from experiments.cautions import cautions
from experiments.run import build, run
from sim.jit import PLAIN
from sim.units import MIB, parse_size
from workloads.scenario import list_scenarios, load


def told(name, *sets):
    scenario = load(name, sets)
    return list(cautions(scenario, build(scenario)))


def size(text):
    """Bytes of a size as a caution shows it."""
    number, unit = re.fullmatch(r"([\d.]+)(\w+)", text).groups()
    return float(number) * parse_size(f"1{unit}")


@pytest.mark.parametrize("name", [name for name, _ in list_scenarios()])
def test_shipped_scenarios_need_no_caution(name):
    assert told(name) == []


def test_a_limit_below_what_the_runtime_has_anyway():
    mapped = int(build(load("ten-size")).heap.fields.mapped_ready)
    (line,) = told("ten-size", "mallocs=1000", "memory_limit=4MiB")
    found = re.fullmatch(
        r"runtime.memory_limit: the workload keeps \S+ live, and the runtime's own memory and a least heap take (\S+), which"
        r" is more than 4MiB: .* write (\d+)MiB or more",
        line,
    )
    assert size(found[1]) == pytest.approx(mapped + 4 * MIB, rel=0.01)
    assert told("ten-size", "mallocs=1000", f"memory_limit={found[2]}MiB") == []


@pytest.mark.skipif(PLAIN, reason="40,000 mallocs, twice")
def test_a_limit_below_what_a_recorded_program_keeps():
    """It was recorded without a collector: nothing of it ever dies, and its heap at the end is all that it asked for."""
    (line,) = told("recorded-gofmt", "memory_limit=6MiB")
    kept = size(re.match("runtime.memory_limit: the workload keeps (\\S+) live, and the runtime's own memory", line)[1])
    assert kept == pytest.approx(run(load("recorded-gofmt")).metrics["/memory/classes/heap/objects:bytes"], rel=0.1)
    enough = re.search(r"write (\d+MiB) or more", line)[1]
    assert told("recorded-gofmt", f"memory_limit={enough}") == []
    (few,) = told("recorded-gofmt", "memory_limit=6MiB", "mallocs=1000")  # what it began with is there from the start
    assert 2 << 20 < size(re.match("runtime.memory_limit: the workload keeps (\\S+) live", few)[1]) < kept
    assert told("recorded-gofmt", "memory_limit=8MiB", "mallocs=1000") == []
    assert told("recorded-gofmt", "memory_limit=6MiB", "duration=1ms") == []


@pytest.mark.parametrize("gogc", ["off", "100"])
def test_a_limit_below_what_the_workload_keeps_live(gogc):
    (line,) = told("cache-eviction", f"gogc={gogc}", "memory_limit=24MiB")
    live = size(re.search(r"keeps (\S+) live", line)[1])
    assert live == pytest.approx(4 * (5_000 * 1_150 + 10_000 * 48), rel=0.1)
    (line,) = told("cache-eviction", f"gogc={gogc}", "runtime.change=[{at='1ms', memory_limit='24MiB'}]")
    assert line.startswith("runtime.change.0.memory_limit: the workload keeps ")
    assert told("cache-eviction", f"gogc={gogc}", "memory_limit=64MiB") == []


ENDLESS = ("gogc=off", "duration=10ms" if not PLAIN else "duration=200us")


def test_without_a_collector_the_heap_grows_as_long_as_the_run_lasts():
    (line,) = told("api-service", "gogc=off")
    assert line.startswith('runtime.gogc: with "off" and no memory_limit nothing is ever freed: at about ')
    for others in (("memory_limit=1GiB",), ("mallocs=1000",), ("gogc=800",)):
        assert told("api-service", "gogc=off", *others) == []
    assert told("api-service", "gogc=off", "runtime.change=[{at='1ms', gogc=100}]") == []
    assert told("api-service", "gogc=off", "runtime.change=[{at='1ms', memory_limit='1GiB'}]") == []
    assert told("recorded-gofmt", "duration=1s") == []


def test_a_collector_that_is_switched_off_later_is_told_by_that_change():
    growth = r'with "off" and no memory_limit nothing is ever freed: at about (\S+) a second the heap grows by about (\S+) in'
    off = "runtime.change=[{at='10ms', gogc='off'}, {at='100ms', gogc=50}, {at='300ms', gogc='off'}]"
    (line,) = told("api-service", off)
    found = re.match(rf"runtime.change.2.gogc: {growth} 100ms;", line)
    assert size(found[2]) == pytest.approx(size(found[1]) / 10, rel=0.02)
    (line,) = told("api-service", "gogc=off", "memory_limit=1GiB", "runtime.change=[{at='10ms', memory_limit='off'}]")
    assert re.match(rf"runtime.change.0.memory_limit: {growth} 390ms;", line)
    assert told("api-service", off.replace("'off'", "20"), "memory_limit=1GiB") == []
    assert told("api-service", off, "memory_limit=1GiB") == []


def test_a_change_that_never_comes_saves_nobody():
    for change in ("gogc=100", "memory_limit='1GiB'", "memory_limit='1MiB'"):
        growth, late = told("api-service", "gogc=off", f"runtime.change=[{{at='1s', {change}}}]")
        assert growth.startswith("runtime.gogc: ") and late.startswith("runtime.change.0.at: ")


def test_so_many_mallocs_are_meant_unless_no_machine_holds_them():
    assert told("large-objects", "gogc=off", "mallocs=10_000") == []
    (line,) = told("large-objects", "gogc=off", "mallocs=1_000_000_000")
    assert re.search(r"the heap grows to about \S+TiB in 1,000,000,000 mallocs; write a percentage, a memory_limit or fewer", line)


def test_the_growth_is_what_the_run_then_shows():
    (line,) = told("api-service", *ENDLESS)
    expected = size(re.search(r"grows to about (\S+) in", line)[1])
    found = run(load("api-service", ENDLESS))
    if not PLAIN:
        assert found.metrics["/gc/heap/allocs:bytes"] == pytest.approx(expected, rel=0.2)


def test_the_growth_of_workers_is_about_right(tmp_path):
    path = tmp_path / "s.toml"
    path.write_text("""
        purpose = "a test"
        [runtime]
        gomaxprocs = 4
        [run]
        duration = "5ms"
        [workload]
        kind = "workers"
        goroutines = 8
        think = "200ns"
        [[workload.objects]]
        size = ["64B", "256B", "1KiB"]
        """)
    sets = ("gogc=off", *(("duration=100us",) if PLAIN else ()))
    scenario = load(path, sets)
    (line,) = cautions(scenario, build(scenario))
    expected = size(re.search(r"grows to about (\S+) in", line)[1])
    assert run(scenario).metrics["/gc/heap/allocs:bytes"] == pytest.approx(expected, rel=0.9 if PLAIN else 0.3)


def test_a_change_past_the_end():
    (line,) = told("api-service", "runtime.change=[{at='1s', gogc=50}]")
    assert line == "runtime.change.0.at: 1s is past the run's end; write less than 400ms"


def test_a_run_is_told_and_ends_all_the_same():
    lines = []
    sets = ("memory_limit=4MiB", "mallocs=200" if PLAIN else "mallocs=5000")
    found = run(load("batch-worker", sets), warn=lines.append, check=True)
    assert not found.cut_short
    assert len(lines) == 1


SMALL_LIVE = """
purpose = "5 MiB live on two Ps"
[runtime]
gomaxprocs = 2
[workload]
kind = "workers"
goroutines = 2
think = "100ns"
objects = [{ size = ["64B", "1KiB"], lifetime = { cache = 5000 } }]
[run]
"""


@pytest.mark.parametrize("until", ['duration = "20ms"', "mallocs = 40_000"])
@pytest.mark.parametrize("gogc", ["off", "100", "1"])
@pytest.mark.parametrize("limit", ["1B", "1MiB", "6MiB"])
@pytest.mark.skipif(PLAIN, reason="40,000 mallocs and hundreds of collections")
def test_contradictory_limits_are_told_and_the_run_ends_at_its_bound(tmp_path, limit, gogc, until):
    """A limit below the runtime's own needs, or below what lives: it collects without end, and the program goes on."""
    path = tmp_path / "s.toml"
    path.write_text(SMALL_LIVE + until)
    scenario = load(path, (f"memory_limit={limit}", f"gogc={gogc}"))
    lines = []
    found = run(scenario, warn=lines.append, check=True)
    assert not found.cut_short and len(lines) == 1
    assert lines[0].startswith("runtime.memory_limit: the workload keeps 5.19MiB live, and the runtime's own memory and a")
    assert found.metrics["/sim/gc/cpu:share"] > 0.5, "and that is true"
    if until.startswith("duration"):
        assert found.metrics["/sim/time:seconds"] == 0.02
    else:
        assert found.metrics["/sim/mallocs:objects"] == 40_000
    enough = re.search(r"write (\d+MiB) or more", lines[0])[1]
    there = load(path, (f"memory_limit={enough}", "gogc=off"))
    assert list(cautions(there, build(there))) == []
    assert run(there).metrics["/sim/gc/cpu:share"] < 0.5
