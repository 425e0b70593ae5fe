"""The host relative to its calibration: what is compared with which number of the file, what is said of it, and for real.

tests/data/calibrate.json.xz is what the processes of a calibration printed, three of each (test_calibrate.py): against
the file that is made of it, each of them was as fast as it was then, whatever it took.
"""

import json
import lzma
from dataclasses import replace
from pathlib import Path
from statistics import geometric_mean, median

import pytest

from experiments.calibrate import built_with
from experiments.calibrate_file import About, write
from experiments.calibrate_host import LIMITS
from experiments.calibrate_plan import Run
from experiments.calibrate_tables import MACHINE, Measurements
from experiments.machine_file import parse_machine, read_machine
from experiments.toolchain import NoGo
from experiments.validate import summed
from experiments.validate_host import as_calibrated, drift, loops, probe, speeds, statement, told_by

RECORDED = json.loads(lzma.decompress((Path(__file__).parent.parent / "data" / "calibrate.json.xz").read_bytes()))


def add(found, one):
    """What a process printed, gathered as calibrate does."""
    run = {name: tuple(value) if isinstance(value, list) else value for name, value in one["run"].items()}
    found.add(one["version"], Run(**run), one["stdout"], one["stderr"])
    return found


@pytest.fixture(scope="module")
def machine():
    """A file made of what was recorded."""
    found = Measurements()
    for one in RECORDED:
        add(found, one)
    versions = {version: "Go" for version in ("go1.19", "go1.27")}
    facts = About(
        "guest", "2026-11-29", "a guest", 2, False, "madvise", "TSC", 0.769, 256, [], dict.fromkeys(LIMITS, 0.5), versions
    )
    return parse_machine(write(facts, found, read_machine("epyc-2core")), "guest")


def by_aspect(found):
    return {one.aspect: one for one in found}


# What is compared


@pytest.mark.parametrize("procs", [1, 2])
@pytest.mark.parametrize("shape", ["array-shuffled", "tree"])
def test_a_loop_of_each_aspect_is_compared_with_its_own_rows(procs, shape):
    found = by_aspect(loops(read_machine("xeon-2core"), "go1.27", procs, shape))
    assert list(found) == ["hits", "clearing", "marking", "page faults"]
    row = {"array-shuffled": "objs64shuf", "tree": "tree16"}[shape]
    timed = {(size, kind, 4, procs) for size in (8, 16, 32, 64, 128, 256, 512) for kind in ("scan", "noscan")}
    assert set(found["hits"].rows) == timed - {(8, "noscan", 4, procs)}  # which shares the slots of 16 B
    assert set(found["clearing"].rows) == {(2048, "noscan")}
    assert set(found["marking"].rows) == {(row, 32, procs)}
    assert set(found["page faults"].rows) == {("mmap first touch", "go1.27")}
    assert [one.run.procs for one in found.values()] == [procs, 1, procs, 1]
    assert f"-shape={row}" in found["marking"].run.arguments and "-mib=32" in found["marking"].run.arguments
    assert "-mib=256" in found["clearing"].run.arguments


def test_a_file_with_fewer_tables_is_compared_in_less():
    """epyc-2core has neither single mallocs by the size of the heap nor small heaps that were marked."""
    found = by_aspect(loops(read_machine("epyc-2core"), "go1.27", 2, "list"))
    assert set(found) == {"hits", "page faults"}
    assert (found["hits"].table, set(found["hits"].rows)) == ("loop", {(64, "noscan")})


def test_a_machine_of_one_cpu_is_compared_on_one(machine):
    tables = dict(machine.tables["go1.27"])
    for name in ("hit", "mark"):
        tables[name] = replace(tables[name], rows={key: row for key, row in tables[name].rows.items() if key[-1] == 1})
    alone = replace(machine, tables={"go1.27": tables})
    assert {one.run.procs for one in loops(alone, "go1.27", 2, "tree")} == {1}


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
def test_processes_of_the_calibration_itself_took_what_it_says(machine, version):
    """The median process of three took as long as the file says, and the others as far from it as its spread."""
    clearing = by_aspect(loops(machine, version, 1, "tree"))["clearing"]
    took = [
        clearing.ratio(add(Measurements(), one))
        for one in RECORDED
        if one["version"] == version and one["run"]["arguments"][:3] == ["small", "-size=2048", "-kind=noscan"]
    ]
    assert len(took) == 3
    assert median(took) == pytest.approx(1, rel=1e-3)
    assert (min(took), max(took)) == pytest.approx(clearing.spread, rel=1e-3)
    assert max(took) > 1.001


def test_rows_are_joined_by_their_geometric_mean():
    hits = by_aspect(loops(read_machine("xeon-2core"), "go1.27", 2, "tree"))["hits"]
    factors = [1 + number / 20 for number in range(len(hits.rows))]
    lines = [
        json.dumps({"table": "hit", "key": key, "values": {"p50": factor * float(row.median)}})
        for factor, (key, row) in zip(factors, hits.rows.items(), strict=True)
    ]
    lines.append(json.dumps({"table": "hit", "key": [1024, "scan", 4, 2], "values": {"p50": 1e9}}))  # not compared
    found = Measurements()
    found.add("go1.27", hits.run, "\n".join(lines), "")
    assert hits.ratio(found) == pytest.approx(geometric_mean(factors))
    with pytest.raises(NoGo, match=r"^calibrate mixed -mib=4 .* printed no hit that the machine file has$"):
        hits.ratio(Measurements())


def test_marking_and_page_faults_are_found_where_they_are_gathered():
    """A line of gctrace for each round; faults are the machine's, by version."""
    found = by_aspect(loops(read_machine("xeon-2core"), "go1.27", 1, "tree"))
    marking, faults = found["marking"], found["page faults"]
    then = float(marking.rows["tree16", 32, 1].median)
    clock = f"0.25+{2 * then - 0.5:.3f}+0.25 ms clock, 0+0/{2 * then:.3f}/0+0 ms cpu"
    gctrace = f"gc 9 @0.250s 2%: {clock}, 32->32->32 MB, 64 MB goal, 0 MB stacks, 0 MB globals, 1 P\n"
    row = {"table": "mark", "key": ["tree16", 32, 1], "values": {"objects": 2097151}}
    took = Measurements()
    took.add("go1.27", marking.run, json.dumps(row), 7 * gctrace)
    assert marking.ratio(took) == pytest.approx(2)
    then = float(faults.rows["mmap first touch", "go1.27"].median)
    row = {"table": "first_touch", "key": ["mmap first touch"], "values": {"p50": then / 2}}
    took.add("go1.27", faults.run, json.dumps(row), "")
    assert faults.ratio(took) == pytest.approx(0.5)


# What is said


def version(error=0.1, share=0.02, **ratios):
    """A workload's version with an error of a median, and what the host took relative to its calibration."""
    line = {"quantity": "malloc p50", "real": 100.0, "low": 99.0, "high": 101.0, "simulated": 100 * (1 + error)}
    return {
        "host": [{"aspect": aspect, "ratio": ratio} for aspect, ratio in ratios.items()],
        "table": [line],
        "noise": {"share": share},
    }


def printed(loop, ratio):
    """What a loop would have printed had it taken so many times as long as in the file."""
    found = Measurements()
    row = found.tables.setdefault((MACHINE if loop.table == "first_touch" else loop.version, loop.table), {})
    for key, reading in loop.rows.items():
        row[key] = {loop.column: [ratio * float(reading.median)]}
    return found


def test_loops_of_another_machine_file_are_not_compared():
    """One that is compared there by rows that were not printed, and one that was not run; but a process that printed nothing is told."""
    wanted = loops(read_machine("xeon-2core"), "go1.27", 2, "tree")
    ran = {one.aspect: printed(one, 1.0) for one in wanted}
    assert told_by(wanted, [ran, ran]) == wanted
    elsewhere = ran | {"marking": printed(by_aspect(loops(read_machine("xeon-2core"), "go1.27", 1, "tree"))["marking"], 1.0)}
    del elsewhere["page faults"]
    assert [one.aspect for one in told_by(wanted, [ran, elsewhere])] == ["hits", "clearing"]
    silent = ran | {"marking": Measurements()}
    assert told_by(wanted, [silent]) == wanted
    with pytest.raises(NoGo, match="printed no mark that"):
        speeds(wanted, [silent])


def test_speeds_are_those_of_all_probes():
    wanted = loops(read_machine("xeon-2core"), "go1.27", 1, "tree")
    probes = [{one.aspect: printed(one, ratio) for one in wanted} for ratio in (1.3, 0.9, 1.0)]
    for one in speeds(wanted, probes):
        assert (one.ratio, one.low, one.high) == pytest.approx((1.0, 0.9, 1.3))
        assert one.calibrated_low <= 1 <= one.calibrated_high


@pytest.mark.parametrize(
    ("ratios", "quiet"),
    [
        ({"hits": 1.0, "marking": 1.1}, True),
        ({"hits": 1.0, "marking": 1.11}, False),
        ({"hits": 0.91, "marking": 1.0}, True),
        ({"hits": 0.90, "marking": 1.0}, False),  # a host that is faster has drifted too
        ({}, False),  # not known
    ],
)
def test_as_calibrated_is_within_a_tenth_in_all(ratios, quiet):
    assert as_calibrated(version(**ratios)) == quiet


def test_a_host_that_drifted_is_told_first_of_all():
    versions = [version(hits=0.97, marking=1.05), version(share=0.5, hits=1.02, marking=1.34)]
    assert statement(drift(versions)).startswith(
        "THE HOST WAS NOT AS CALIBRATED: the host took 0.97 to 1.34 times the calibrated time (hits 0.97 to 1.02, marking "
        "1.05 to 1.34); it was within 10 % of its calibration beside 1 of 2. Something else had the CPUs for 2.00 to 50.00 % of "
        "the time. "
    )
    assert statement(drift(versions[:1])) == (
        "The host took 0.97 to 1.05 times the calibrated time (hits 0.97, marking 1.05): within 10 % of its calibration "
        "beside all of them. Something else had the CPUs for 2.00 % of the time."
    )
    assert "is not known" in statement(drift([version()]))


def test_errors_where_the_host_was_as_calibrated_are_told_beside_all():
    found = summed([version(0.1, hits=1.0), version(-0.5, hits=1.5), version(0.2, hits=1.05), version(0.9, hits=0.5)])
    (every,), (quiet,) = found["summary"], found["summary_as_calibrated"]
    assert (every["n"], every["median"]) == (4, pytest.approx(0.35))
    assert (quiet["n"], quiet["median"]) == (2, pytest.approx(0.15))
    assert (found["drift"]["as_calibrated"], found["drift"]["of"]) == (2, 4)


# For real


def test_the_loops_run_on_a_real_toolchain(go):
    """How fast this host is relative to another's calibration is anybody's guess, but not by a factor of a thousand."""
    wanted = loops(read_machine("xeon-2core"), go.model, 1, "array")
    with built_with(go) as built:
        found = probe(built, wanted)
    assert set(found) == {"hits", "clearing", "marking", "page faults"}
    assert all(0.001 < one.ratio < 1000 for one in speeds(wanted, [found]))
