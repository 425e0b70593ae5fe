"""The parts of a fit against what they must give: curves, shares, Little's law."""

from dataclasses import replace
from math import exp, inf
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sim.go.params import VERSIONS
from sim.metrics.gctrace import parse_gctrace
from workloads.estimate import live_bytes, slot_bytes
from workloads.fit import GARBAGE, fit, fit_rows, live_curves, mutators, request, shared_out
from workloads.fit_scenario import draft
from workloads.heapcycles import Seen, allocated, figures, joined, of_line, quarters
from workloads.recording import gather, model_version, profile_rows
from workloads.spec import Workers

DATA = Path(__file__).parent.parent / "data" / "recorded"
MB = 1e6
FACTS = VERSIONS["go1.27"]


def cycle(number, begin, heap0, heap1, heap2, goal=0.0, forced=False, **more):
    return Seen(number, begin, begin + 0.01, heap0, heap1, heap2, goal, forced, **more)


def steady(live=20 * MB, rate=100 * MB, n=50):
    """Cycles of a program that allocates evenly and holds a live heap from its start on."""
    at, found = 0.0, []
    for i in range(n):
        heap2 = live + 0.01 * rate
        found.append(cycle(i + 1, at + heap2 / rate, 2 * heap2, 2 * heap2 + 0.01 * rate, heap2))
        at = found[-1].end
    return found


def test_allocation_is_what_cycles_add_up_to():
    nbytes, seconds = allocated(steady(), whole=False)
    assert nbytes / seconds == pytest.approx(100 * MB)
    gap = [one for one in steady() if one.number not in (10, 11, 12)]
    nbytes, shorter = allocated(gap, whole=False)
    assert nbytes / shorter == pytest.approx(100 * MB) and shorter == pytest.approx(seconds - 4 * seconds / 49)


def test_uneven_allocation_is_told_by_quarters_and_said():
    assert quarters(steady()) == pytest.approx([100 * MB] * 4, rel=0.02)
    slow = [replace(one, begin=one.begin * 2, end=one.end * 2) for one in steady(n=25)]
    late = [
        replace(one, begin=one.begin + slow[-1].end, end=one.end + slow[-1].end, number=25 + i)
        for i, one in enumerate(steady(), 1)
    ]
    parts = quarters([*slow, *late])
    assert parts[0] == pytest.approx(50 * MB, rel=0.05) and parts[3] == pytest.approx(100 * MB, rel=0.05)
    sizes = gather([DATA / "json-go1.27.3-P1.log"]).sizes
    told = [fit(cycles, sizes, FACTS, whole=True).cautions for cycles in (steady(), [*slow, *late])]
    assert told[0] == () and "MB a second in the quarters of its time, the scenario evenly" in told[1][-1]


def test_live_is_marked_but_for_what_was_allocated_meanwhile():
    assert {round(one.live) for one in steady()} == {20_000_000}


def test_figures_weigh_cycles_by_their_time():
    cycles = [cycle(1, 0.1, 10, 10, 5, 20), cycle(2, 0.4, 30, 30, 6, 60), cycle(3, 0.5, 7, 7, 6, 60, forced=True)]
    found = figures(cycles, 1, 0.5, whole=True)
    assert (found.cycles, found.gc_share) == (2, None)
    assert found.trigger == pytest.approx((10 * 0.25 + 30 * 0.25) / 0.5)
    with pytest.raises(ValueError, match="began by itself"):
        figures(cycles[2:], 1, 0.5, whole=True)


def test_the_cpu_share_is_without_idle_marking():
    line = parse_gctrace(
        "gc 1 @0.980s 5%: 0+20+0 ms clock, 1+2.0/3.0/30+4 ms cpu, 4->5->1 MB, 5 MB goal, 0 MB stacks, 0 MB globals, 2 P"
    )
    assert figures([of_line(line)], 2, 1.0, whole=True).gc_share == pytest.approx(0.010 / (2 * 1.0))


def test_a_trace_s_heaps_are_put_to_the_log_s_cycles():
    told = [cycle(i + 1, i, (40 + i) * 2**20, (41 + i) * 2**20, 30 * 2**20) for i in range(10)]
    traced = [cycle(i + 1, one.begin, one.heap0 + 5, one.heap1 + 5, one.heap2 + 5) for i, one in enumerate(told[1:])]
    both, nearly = joined(told, traced)
    assert nearly and [one.heap0 - two.heap0 for one, two in zip(both, told, strict=True)] == [0, *[5] * 9]
    assert joined(told, traced[:3])[1] is False


@pytest.mark.parametrize("parts", [[(0.3, 30 * MB)], [(inf, 80 * MB)], [(0.05, 10 * MB), (inf, 40 * MB)]])
def test_curves_give_back_what_they_were_made_of(parts):
    """Objects of some mean lifetimes, and for ever: the live heap is met within 2 %, whichever curves do it."""
    times = [0.02 * (i + 1) for i in range(100)]
    live = [sum(a * (t / 2 if mean == inf else 1 - exp(-t / mean)) for mean, a in parts) for t in times]
    found, error = live_curves(times, live, 1000 * MB, 2.0)
    assert error < 0.02 and sum(one.rate for one in found) <= 1000 * MB
    assert any(one.seconds == inf for one in found) == any(mean == inf for mean, _ in parts)
    for t, seen in list(zip(times, live, strict=True))[10::30]:
        ours = sum(one.rate * t if one.seconds == inf else one.amount * (1 - exp(-t / one.seconds)) for one in found)
        assert ours == pytest.approx(seen, rel=0.03)


def test_what_the_rate_cannot_make_is_not_asked_for():
    found, _ = live_curves([0.001, 1.0], [50 * MB, 50 * MB], 60 * MB, 1.0)
    assert sum(one.rate for one in found) <= 60 * MB * (1 + 1e-9)


@example([(0.0, 5e-220), (1e-139, 2.0)], 0.0)  # whose products are no numbers
@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), min_size=1, max_size=8).filter(
        lambda p: sum(m for _, m in p) > 1
    ),
    st.floats(0, 1),
)
def test_shares_stay_within_bounds_and_add_up(pairs, part):
    wanted, most = ({i: pair[k] for i, pair in enumerate(pairs)} for k in (0, 1))
    total = part * sum(most.values())
    given_ = shared_out(total, wanted, most)
    assert sum(given_.values()) == pytest.approx(total, rel=1e-6, abs=1e-6)
    assert all(0 <= x <= most[i] * (1 + 1e-9) + 1e-9 for i, x in given_.items())


def test_shares_are_proportional_where_there_is_room():
    assert shared_out(10, {0: 1, 1: 3}, {0: 100, 1: 100}) == {0: 2.5, 1: 7.5}
    assert shared_out(10, {0: 1, 1: 3}, {0: 100, 1: 4}) == {0: 6, 1: 4}


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
def test_a_request_gets_its_slot(version):
    facts = VERSIONS[version]
    for slot in (8, 16, 512, 576, 1024, 32768, 40960):
        for pointers in (0.0, 0.5, 1.0):
            asked = request(slot, facts, pointers)
            assert slot_bytes(asked, True, facts) == slot or pointers == 0.0
            assert slot_bytes(asked, False, facts) == slot or (slot == 8 or pointers == 1.0)


@pytest.mark.parametrize("name", ["json-go1.27.3-P1", "churn-go1.27.3-P1"])
def test_the_fitted_workload_has_the_recorded_live_heap(name):
    """By Little's law, as another module computes it: live bytes of the workload are those of the cycles."""
    recorded = gather([DATA / f"{name}.log", DATA / f"{name}.pb.gz"])
    found = draft(recorded)
    scenario = found.scenario()
    assert isinstance(scenario.workload, Workers)
    own = live_bytes(scenario.workload, VERSIONS[scenario.version])
    amounts = sum(one.amount for one in found.fit.lives if one.seconds < inf)
    assert own == pytest.approx(amounts, rel=0.02)
    assert amounts == pytest.approx(recorded.cycles[-1].live, rel=0.1)


def test_sizes_of_the_fit_are_those_of_the_profile():
    name = DATA / "churn-go1.27.3-P1"
    recorded = gather([f"{name}.log", f"{name}.pb.gz"])
    found = fit(recorded.cycles, recorded.sizes, FACTS, whole=True)
    made = {}
    for kind in found.mix.objects:
        for size, _, weight in kind.sizes:
            made[slot_bytes(size, True, FACTS)] = made.get(slot_bytes(size, True, FACTS), 0) + weight
    rows = {row.size: float(row.rate) for row in recorded.sizes.rows}
    for size in (96, 256, 1024):
        assert made[size] / made[512] == pytest.approx(rows[size] / rows[512], rel=1e-3)


def test_sizes_alone_live_as_long_as_little_says():
    recorded = gather([DATA / "json-go1.27.3-P1.pb.gz"], seconds=1.5)
    assert recorded.cycles == () and recorded.settings.seconds == 1.5
    found = fit_rows(recorded.sizes, FACTS)
    workload = Workers(1, found.mix)
    assert live_bytes(workload, FACTS) == pytest.approx(
        sum(float(r.live) * r.size for r in recorded.sizes.rows), rel=0.02
    )


def test_rows_of_a_profile_are_its_samples_by_size():
    from workloads.pprof import read_profile

    profile = read_profile(DATA / "json-go1.19.8-P1.pb.gz")
    rows = profile_rows(profile, 2.0)
    assert sum(row.rate * row.size for row in rows) * 2 == pytest.approx(
        sum(s.alloc_objects * s.size for s in profile.samples)
    )
    assert sum(row.live for row in rows) == sum(s.inuse_objects for s in profile.samples)


def test_one_mutator_leaves_a_p_idle_while_marking():
    idle = [cycle(i, i, 1, 1, 1, clock=0.01, cpu=0.01, dedicated=0.0025, idle=0.0075) for i in range(1, 5)]
    busy = [cycle(i, i, 1, 1, 1, clock=0.01, cpu=0.01, dedicated=0.005, idle=0.0) for i in range(1, 5)]
    assert (mutators(idle, 2)[0], mutators(busy, 2)[0], mutators(idle, 1)[0]) == (1, 2, 1)


def test_versions_are_those_the_model_has():
    assert [model_version(v)[0] for v in ("go1.27.3", "go1.22rc1", "go1.21.5", "go1.19.8", None)] == [
        *("go1.27", "go1.27", "go1.19", "go1.19", "go1.27")
    ]
    assert model_version("go1.27.3")[1] is None and "nearest" in model_version("go1.24.1")[1]


def test_garbage_hardly_lives():
    recorded = gather([DATA / "churn-go1.27.3-P1.log"])
    assert any("does not tell sizes" in line for line in recorded.cautions)
    found = fit(recorded.cycles, recorded.sizes, FACTS, whole=True)
    assert found.rate / found.mallocs * GARBAGE < 0.01 * sum(one.amount for one in found.lives)


def test_the_percentage_is_read_off_the_goals():
    for name in ("churn-go1.27.3-P1", "json-go1.19.8-P1"):
        assert gather([DATA / f"{name}.log"]).settings.gogc == "100"


def test_what_is_set_is_what_the_fit_goes_by():
    """Goroutines that are set share the lifetimes out among them; objects that are set are left alone."""
    recorded = gather([DATA / "json-go1.27.3-P1.log", DATA / "json-go1.27.3-P1.pb.gz"])
    one, four = draft(recorded), draft(recorded, ["goroutines=4", "gomaxprocs=4"])
    mean = one.raw["workload"]["objects"][0]["lifetime"]["ops"]
    assert four.raw["workload"]["objects"][0]["lifetime"]["ops"] == pytest.approx(mean / 4, abs=1)
    assert four.why["workload", "goroutines"] == "as set" and four.guessed
    own = draft(recorded, ['workload.objects=[{size = "32B"}]'])
    assert own.guessed == () and own.with_values(7000, 0.9, []).raw["workload"]["objects"] == [{"size": "32B"}]
    with pytest.raises(ValueError, match="workload.kind: a fit is of kind workers|workload"):
        draft(recorded, ["workload.kind=service"])
