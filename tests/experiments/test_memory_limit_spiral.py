"""The study of memory limits: its claims hold in shorter runs that begin nearer to the limit."""

from dataclasses import replace

import pytest

from experiments import memory_limit_spiral as study
from sim.jit import PLAIN
from sim.units import MIB, MS, SEC

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PLAIN, reason="some 30 million mallocs")]

LENGTHS = {"no limit, GOGC=100": 1000, "limit, GOGC=off": 4500, "limit, off, floor 25": 3500, "light, limit, off": 2500}


@pytest.fixture(scope="module", autouse=True)
def small():
    """Half of everything: Ps, requests, memory."""
    half = [replace(policy, load=(policy.load[0] // 2, *policy.load[1:])) for policy in study.POLICIES]
    limit = study.LIMIT // 2
    sizes = {"PROCS": study.PROCS // 2, "LIMIT": limit, "CONTAINER": limit * 10 // 9, "LIVE": 19 * MIB}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (sizes | {"POLICIES": tuple(half), "WINDOW": 250 * MS}).items():
            patch.setattr(study, name, value)
        yield


@pytest.fixture(scope="module")
def rows(small):
    """Windows by policy."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, length in LENGTHS.items():
            patch.setattr(study, "DURATION", length * MS)
            found[name] = list(study.run(of(name)))
    return found


def of(name):
    (policy,) = (policy for policy in study.POLICIES if policy.name == name)
    return policy


def test_the_closed_form_tells_the_share_until_it_is_half(rows):
    limited = rows["limit, GOGC=off"]
    below = [row for row in limited[1:] if row.gc_share < 0.5]
    assert len(below) >= 2
    assert all(row.gc_share == pytest.approx(row.form_gc_share, rel=0.1) for row in below)
    found = study.outcome(of("limit, GOGC=off"), limited)
    assert found.half_at == pytest.approx(found.form_half_at, abs=0.4)


def test_the_spiral_costs_throughput_and_latency_and_buys_no_time(rows):
    limited, floor, free = (rows[name] for name in ("limit, GOGC=off", "limit, off, floor 25", "no limit, GOGC=100"))
    worst = min(row.requests_per_second for row in limited)
    assert worst < 0.6 * min(row.requests_per_second for row in floor)
    assert max(row.response_p99_ms for row in limited) > 50 * max(row.response_p99_ms for row in floor)
    filled = [max(row.response_p99_ms for row in one[1:]) for one in (free, floor)]
    assert filled[1] > 2 * filled[0]
    shares = [max(row.gc_share_busy for row in one) for one in (free, floor, limited)]
    assert shares == sorted(shares) and shares[2] > 0.7 and shares[1] < 0.45
    spiral, kept = (study.outcome(of(name), rows[name]) for name in ("limit, GOGC=off", "limit, off, floor 25"))
    assert 0 < kept.out_of_memory_at - spiral.out_of_memory_at < 1.2


def test_the_floor_is_kept(rows):
    floor = rows["limit, off, floor 25"]
    assert all(row.peak_heap_mib > 1.2 * row.live_mib - 1 for row in floor[1:])
    assert all(row.limit_mib >= max(study.LIMIT / MIB, 1.25 * row.live_mib) for row in floor)
    assert floor[-1].limit_mib - floor[0].limit_mib > floor[-1].live_mib - floor[0].live_mib > 5


def test_the_limiter_holds_the_collector_at_half_of_the_cpu_time_and_lets_the_heap_grow(rows):
    limited = rows["limit, GOGC=off"]
    full = [i for i, row in enumerate(limited) if row.limiter >= 0.99]
    assert full, "its bucket is full at the end"
    # GC time beyond the program's fills a bucket of 1 s a P: no sooner than that can be
    excess = sum(max(0.0, 2 * row.gc_share_busy - 1) * study.WINDOW / SEC for row in limited[: full[0] + 1])
    assert excess > 0.9
    assert limited[full[0] + 1].gc_share_busy == pytest.approx(0.5, abs=0.06)
    assert limited[-1].memory_mib > 1.5 * study.LIMIT / MIB


def test_a_service_that_allocates_little_loses_no_request(rows):
    light = rows["light, limit, off"]
    rate = of("light, limit, off").load[0]
    served = [row.requests_per_second for row in light]
    assert served == pytest.approx([rate] * len(light), rel=0.16), "five standard deviations"
    assert sum(served) / len(light) == pytest.approx(rate, rel=0.03)
    assert max(row.gc_share for row in light) < 0.2


def test_crossings_lie_on_lines_between_the_middles_of_windows():
    made = {field: 0.0 for field in study.Row.__dataclass_fields__} | {"policy": "p", "form_gc_share": None}
    one = study.Row(**made)
    rows = [replace(one, seconds=0.5, gc_share=0.2), replace(one, seconds=1.0, gc_share=0.6)]
    assert study.crossing(rows, "gc_share", 0.5) == pytest.approx(0.375 + 0.5 * 0.75)
    assert study.crossing(rows, "gc_share", 0.1) == 0.375
    assert study.crossing(rows, "gc_share", 0.7) is None
    assert study.crossing(rows, "form_gc_share", 0.5) is None


def test_tables_and_files(rows, tmp_path):
    pytest.importorskip("matplotlib")
    outcomes = [study.outcome(of(name), one) for name, one in rows.items()]
    answer = study.Answer(study.LIMIT / MIB, study.CONTAINER / MIB, [row for one in rows.values() for row in one], outcomes)
    said = list(study.report(answer))
    assert any(line.strip().startswith("limit, off, floor 25  ") for line in said)
    written = [line.split("/")[-1] for line in study.write(answer, tmp_path)]
    assert written == [
        "memory_limit_spiral_windows.csv",
        "memory_limit_spiral_outcomes.csv",
        "memory_limit_spiral.svg",
        "memory_limit_spiral.png",
    ]
