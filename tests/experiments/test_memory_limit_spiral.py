"""The study of memory limits: its claims hold in shorter runs that begin nearer to the limit."""

from dataclasses import replace

import pytest

from experiments import memory_limit_spiral as study
from sim.jit import PLAIN
from sim.units import MIB, MS, SEC

pytestmark = [pytest.mark.slow, pytest.mark.skipif(PLAIN, reason="some 50 million mallocs")]


@pytest.fixture(scope="module")
def rows():
    """Windows by policy."""
    lengths = {"no limit, GOGC=100": 2, "limit, GOGC=off": 5, "limit, off, floor 25": 4, "light, limit, off": 3}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "LIVE", 38 * MIB)
        found = {}
        for policy in study.POLICIES:
            if policy.name in lengths:
                patch.setattr(study, "DURATION", lengths[policy.name] * SEC)
                found[policy.name] = list(study.run(policy))
        yield found


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
    assert limited[-1].live_mib > study.crossing(limited, "live_mib", 45), "live when it is half"


def test_the_spiral_costs_throughput_and_latency_and_buys_no_time(rows):
    limited, floor, free = (rows[name] for name in ("limit, GOGC=off", "limit, off, floor 25", "no limit, GOGC=100"))
    worst = min(row.requests_per_second for row in limited)
    assert worst < 0.6 * min(row.requests_per_second for row in floor)
    assert max(row.response_p99_ms for row in limited) > 50 * max(row.response_p99_ms for row in floor)
    assert max(row.response_p99_ms for row in floor) > 2 * max(row.response_p99_ms for row in free)
    shares = [max(row.gc_share_busy for row in one) for one in (free, floor, limited)]
    assert shares == sorted(shares) and shares[2] > 0.7 and shares[1] < 0.45
    lost = [study.outcome(of(name), rows[name]).out_of_memory_at for name in ("limit, GOGC=off", "limit, off, floor 25")]
    assert lost[0] == pytest.approx(lost[1], abs=0.6)


def test_the_floor_is_kept(rows):
    for row in rows["limit, off, floor 25"][1:]:
        assert row.peak_heap_mib > 1.2 * row.live_mib - 2
    limits = [row.limit_mib for row in rows["limit, off, floor 25"]]
    assert limits == sorted(limits) and limits[-1] > study.LIMIT / MIB


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
    rate = study.LIGHT[0]
    assert all(row.requests_per_second == pytest.approx(rate, rel=0.05) for row in light)
    assert max(row.gc_share for row in light) < 0.2


def test_crossings_lie_on_lines_between_the_middles_of_windows():
    made = {field: 0.0 for field in study.Row.__dataclass_fields__} | {"policy": "p", "form_gc_share": None}
    one = study.Row(**made)
    rows = [replace(one, seconds=0.5, gc_share=0.2), replace(one, seconds=1.0, gc_share=0.6)]
    assert study.crossing(rows, "gc_share", 0.5) == pytest.approx(0.25 + 0.5 * 0.75)
    assert study.crossing(rows, "gc_share", 0.1) == 0.25
    assert study.crossing(rows, "gc_share", 0.7) is None
    assert study.crossing(rows, "form_gc_share", 0.5) is None


def test_tables_and_files(rows, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(study, "WINDOW", 500 * MS)
    outcomes = [study.outcome(of(name), one) for name, one in rows.items()]
    answer = study.Answer(64.0, 71.0, [row for one in rows.values() for row in one], outcomes)
    said = list(study.report(answer))
    assert any(line.strip().startswith("limit, off, floor 25  ") for line in said)
    written = [line.split("/")[-1] for line in study.write(answer, tmp_path)]
    assert written == [
        "memory_limit_spiral_windows.csv",
        "memory_limit_spiral_outcomes.csv",
        "memory_limit_spiral.svg",
        "memory_limit_spiral.png",
    ]
