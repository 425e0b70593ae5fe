"""Stacks are scanned with their goroutine suspended, and workers look up after each root job and every 100,000 of the heap.

The real runtime, 1 MB live, two goroutines on two Ps, a line for each worker: after the first assist of a cycle the other P
marks as a fractional worker; the starter's own does so 8 to 12 us after that assist, in half of 471 cycles (go1.27.3) and 72 %
of 420 (go1.19.8), wherever its goroutine's stack was scanned after the assist; goroutines do nothing there that gives up a P.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from sim.costs import Price
from sim.go.gcwork import CHECK_WORK
from sim.go.markturns import STACKS
from sim.go.mgc import Collector
from sim.go.mgcmark import ASSISTING
from sim.go.mgcpacer import FRACTIONAL, IDLE
from sim.go.mgcworker import FRACTIONAL_SLACK, MarkWorkers
from sim.go.proc import Proc
from sim.go.ptime import PUMPED
from sim.go.pump import COMPUTING
from sim.go.sched import Sched
from sim.go.world import World
from sim.ops import ALLOC, OP
from sim.units import KIB, MIB, MS, NS, US
from tests.go.prices import made_up_prices

N = 5000
PER_OBJECT = 200 * NS


@pytest.fixture
def runs(monkeypatch):
    """What workers did: (P, kind, when it began, how long), and when marking had begun for the pacer."""
    seen = []
    run = MarkWorkers.run

    def noted(self, p, mode):
        begun = self.world.now
        yield from run(self, p, mode)
        seen.append((p.index, mode, begun, self.world.now - begun, int(self.world.heap.fields.mark_start_time)))

    monkeypatch.setattr(MarkWorkers, "run", noted)
    return seen


def world_of(version, globals_bytes, per_byte, nprocs=2):
    """A root job takes a block's bytes, marking so much an object and nothing a byte of it."""
    prices = made_up_prices(version)
    mark = {
        shape: [replace(m, scan_object=PER_OBJECT, small_byte=0, large_byte=per_byte) for m in found]
        for shape, found in prices.mark.items()
    }
    steps = dict(prices.steps) | dict.fromkeys(("mark_stack", "mark_specials"), Price(0))
    return World(version, nprocs, replace(prices, mark=mark, steps=steps), 1, gogc=-1, globals_bytes=globals_bytes)


def computes(g, time=9 * MS):
    yield g.compute(time)


def collects_beside(world):
    """One goroutine asks for a collection, the other computes and never gives up its P of its own."""
    ops = np.zeros(N, OP)
    ops["kind"], ops["obj"], ops["arg"], ops["ptr_bytes"] = ALLOC, range(N), 64, 64

    def main(g):
        yield g.run(ops, N)
        yield g.go(computes)
        yield g.compute(50 * US)  # it runs by now, on the other P
        yield from world.gc.collect(g)

    world.run(until=world.go(main))


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
def test_a_goroutine_whose_stack_is_scanned_leaves_its_p_to_a_worker(version, runs, monkeypatch):
    """Its P has run a worker once, when the world went on, and has had too little of it when stacks are scanned."""
    collects_beside(world_of(version, 64 * KIB, 20_000_000))
    times = Counter(p for p, mode, *_ in runs if mode == FRACTIONAL)
    assert sorted(times.values()) == [2, 2]  # who scanned it left as soon as it was runnable again, and came back
    runs.clear()
    monkeypatch.setattr(Collector, "_suspend_running", lambda self: None)
    collects_beside(world_of(version, 64 * KIB, 20_000_000))
    times = Counter(p for p, mode, *_ in runs if mode == FRACTIONAL)
    assert sorted(times.values()) == [1, 1]


def test_who_assists_is_scanned_as_it_is(monkeypatch):
    """Of two goroutines that run, one of which assists, the other is to leave its P, for that of who assists if no worker marks."""
    world = world_of("go1.19", 0, 0)
    collects_beside(world)
    rows, procs = world.heap.arrays["goroutines"], world.sched.procs
    left = []
    monkeypatch.setattr(Proc, "suspend", lambda self, scanner: left.append((self.index, scanner.index)))
    monkeypatch.setattr(Proc, "kind", PUMPED)
    for p, stage in zip(procs, (ASSISTING, COMPUTING), strict=True):
        p.fields["g"] = p.index + 1
        rows[p.index + 1]["stage"] = stage
    world.gc._suspend_running()
    assert left == [(1, 0)]


@pytest.mark.parametrize("globals_bytes", [64 * KIB, 1 * MIB])
def test_a_fractional_worker_looks_up_after_each_root_job(globals_bytes, runs):
    """And leaves after the first at which it has had more than its share, 30 %, of the time."""
    world = world_of("go1.19", globals_bytes, 20_000_000)
    collects_beside(world)
    job = int(world.heap.fields.mark_root_job)
    share = FRACTIONAL_SLACK * 0.25
    _, mode, begun, length, since = runs[0]
    needed = share * (begun - since) / (1 - share)  # own > share * (begun - since + own)
    assert mode == FRACTIONAL and length == job * (needed // job + 1)


def test_a_fractional_worker_asks_itself_after_the_last_root_job_too(runs):
    """Its share of the time is over in the last one."""
    per_byte = 20_000_000
    for _ in range(2):  # the second time with root jobs that end just then
        world = world_of("go1.19", 64 * KIB, per_byte, nprocs=1)
        runs.clear()
        collects_beside(world)
        _, mode, begun, length, since = runs[0]
        share = FRACTIONAL_SLACK * 0.25
        needed = share * (begun - since) / (1 - share)
        job, roots = int(world.heap.fields.mark_root_job), int(world.heap.fields.mark_cpus[STACKS])
        per_byte = int(per_byte * needed * 1.01 / roots)
    assert roots - job < needed < roots
    assert mode == FRACTIONAL and roots <= length < roots + job


@pytest.mark.parametrize("version", ["go1.19", "go1.27"])
def test_who_has_scanned_a_goroutine_on_an_idle_p_leaves_it_then(version, runs, monkeypatch):
    """Whatever its next look is."""
    given = []
    give = MarkWorkers.give

    def noted(self, p, g):
        given.append((p.index, IDLE, self.world.now))
        give(self, p, g)

    monkeypatch.setattr(MarkWorkers, "give", noted)
    collects_beside(world_of(version, 64 * KIB, 20_000_000))
    assert len(given) == 1 and given[0] in [(p, mode, begun + length) for p, mode, begun, length, _ in runs]


def test_a_slice_goes_on_when_its_goroutine_was_suspended(monkeypatch):
    """Here the goroutine itself inherits it again, which is next on its P: sysmon ends it when it would have ended."""
    preempted = []
    ready = Sched.ready_global
    monkeypatch.setattr(
        Sched, "ready_global", lambda self, g, by=None: (preempted.append((g.label, self.world.now)), ready(self, g, by))
    )
    world = world_of("go1.19", 0, 0, nprocs=1)
    (p,) = world.sched.procs
    world.go(computes, 30 * MS)
    world.go(computes, 1 * MS)  # for which the first is preempted when its slice is over
    world.run(until=12 * MS)
    first = p.slice_end
    assert not preempted and 15 * MS < first < 25 * MS
    p.suspend(p)
    world.sched.driver.rearm()
    world.run(until=13 * MS)
    assert p.scanner is None, "it left and came back"
    world.run(until=first + 1)
    assert preempted == [("computes", first)]


def test_who_inherits_a_slice_that_is_over_runs_until_sysmon_looks_again():
    """retake preempts whoever it sees in a slice that is over, at each look, ten milliseconds apart."""
    world = world_of("go1.19", 0, 0, nprocs=1)
    (p,) = world.sched.procs
    world.go(computes, 30 * MS)
    world.run(until=2 * MS)
    p.slice_end = 1 * MS
    p.suspend(p)
    world.sched.driver.rearm()
    world.run(until=3 * MS)
    assert p.scanner is None and 9 * MS < p.slice_end < 12 * MS
    assert int(p.fields["slice_end"]) == p.slice_end


def test_a_worker_looks_up_when_it_has_scanned_so_much_of_the_heap(runs):
    collects_beside(world_of("go1.19", 0, 0))
    assert runs[0][1] == FRACTIONAL
    assert runs[0][3] == pytest.approx(CHECK_WORK / 64 * PER_OBJECT, abs=PER_OBJECT)
