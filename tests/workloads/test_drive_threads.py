"""Workloads on threads: all of a stream and no more, whatever the batches; a service against queueing theory."""

import itertools

import pytest

from experiments.machine_threads import load_thread_machine
from sim.ops import ALLOC
from sim.tcmalloc.check import check
from sim.tcmalloc.world import TCMallocWorld
from sim.textbook.check import check as check_textbook
from sim.textbook.world import TextbookWorld
from sim.threads.state import NEVER
from sim.units import MS, US
from workloads import streams
from workloads.drive_threads import ServiceLoad, WorkerLoad
from workloads.mixes import ten_sizes
from workloads.spec import Lifetime, Mix, Objects, Phase, Service, Workers
from workloads.streams import Arrivals, WorkerStream, operations

SEED = 7


def tcmalloc(n, **options):
    return TCMallocWorld(n, load_thread_machine("epyc-2core", "tcmalloc"), SEED, **options)


def run_workers(mallocs, n=3, **options):
    w = tcmalloc(n, log_lines=1 << 16, **options)
    assert WorkerLoad(w, Workers(n, ten_sizes(100)), mallocs).advance(NEVER)
    check(w.heap)
    return w


def test_workers_run_their_streams_whatever_the_batches(monkeypatch):
    whole = run_workers(5000)
    assert whole.mallocs == 5000
    asked = 0
    for i in range(3):
        ops, left = operations(8000), 5000 // 3 + (i < 5000 % 3)
        WorkerStream(ten_sizes(100), 1000, SEED, f"worker/{i}").fill(ops)
        asked += int(ops["arg"][ops["kind"] == ALLOC][:left].sum())
        assert whole.clock.arrays["threads"]["mallocs"][i] == left
    assert whole.asked_bytes == asked
    monkeypatch.setattr(streams, "BATCH", 64)
    assert sorted(run_workers(5000).log()) == sorted(whole.log())


def test_fewer_cpus_than_threads_share_them():
    """The same calls in a time as many times as long; every thread waits for its CPU."""
    prices = load_thread_machine("epyc-2core", "tcmalloc")
    mix = Mix(ten_sizes(100).objects, think=1 * US)
    ends = {}
    for cpus in (4, 1):
        w = TCMallocWorld(4, prices, SEED, cpus=cpus)
        assert WorkerLoad(w, Workers(4, mix), 40_000).advance(NEVER)
        check(w.heap)
        ends[cpus] = w.now
        assert (w.clock.arrays["threads"]["queued_time"] > 0).all() == (cpus == 1)
    assert ends[1] == pytest.approx(4 * ends[4], rel=0.05)


def test_a_service_of_one_thread_is_m_d_1():
    """Requests that only compute, Poisson arrivals: each response as by Lindley's recursion, a wake if it was idle."""
    cost, interval, horizon = 60 * US, 100 * US, 400 * MS
    mix = Mix((Objects(1, ((16, 16, 1),), 0, 0, Lifetime("request")),))
    service = Service("poisson", interval, (Phase(cost, 0),), mix)
    w = tcmalloc(1)
    load = ServiceLoad(w, service, horizon, None)
    start = w.prices.wake
    assert load.advance(NEVER)
    free_at, responses = 0, []
    for at in itertools.takewhile(lambda time: time < horizon, Arrivals(service, SEED, "service")):
        begin = free_at if free_at > at else at + start
        free_at = begin + cost
        responses.append(free_at - at)
    assert load.requests == load.response.summary().count == len(responses)
    assert load.response.total == sum(responses)
    assert load.response.maximum == max(responses)
    assert load.queued.total == sum(responses) - cost * len(responses)
    mean = cost + 0.6 * cost / (2 * (1 - 0.6))  # Pollaczek-Khinchine
    assert load.response.total / len(responses) == pytest.approx(mean + (1 - 0.6) * start, rel=0.1)


@pytest.mark.parametrize("pool", [1, 4])
def test_a_service_allocates_frees_and_ends(pool):
    kinds = (
        Objects(3, ((16, 4000, 1),), 0, 0, Lifetime("request")),
        Objects(1, ((64, 64, 1),), 0, 0, Lifetime("ops", 500, "exponential")),
        Objects(1, ((300_000, 400_000, 1),), 0, 0, Lifetime("cache", 10)),
    )
    service = Service("poisson", 40 * US, (Phase(10 * US, 20), Phase(5 * US, 10)), Mix(kinds))
    simple = load_thread_machine("epyc-2core", "textbook")
    found = []
    for w, verify in (
        (tcmalloc(pool), check),
        (TextbookWorld("first-fit", pool, simple, SEED, order="lifo"), check_textbook),
    ):
        load = ServiceLoad(w, service, None, 30_000)
        assert load.advance(NEVER)
        verify(w.heap)
        assert w.mallocs == 30 * load.requests >= 30_000
        found.append((load.requests, w.asked_bytes))
    assert found[0] == found[1]
