"""Synthetic streams against a slow interpreter, a slow model of their draws, and queueing theory."""

import heapq
import os
import random
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from math import exp, inf, sqrt
from pathlib import Path

import numpy as np
import pytest
from numba import int64
from scipy import stats

from sim.jit import PLAIN, bare, entry
from sim.ops import ALLOC, COMPUTE, DEAD, NOSCAN, OP, SHARED
from tests.workloads.stream_model import Draws, at, check_caches, check_deaths, check_draws, check_thinks, interpret
from workloads.mixes import TEN_SIZES, ten_sizes
from workloads.spec import PPM, Lifetime, Mix, Objects, Phase, Service
from workloads.streams import Arrivals, RequestStream, WorkerStream, alias_table
from workloads.streams_deaths import insert, pop
from workloads.streams_state import SLOT_WORDS, SLOTS, stream_type

SCALE = 1 if PLAIN else 30
IMMORTAL, REQUEST = Lifetime("immortal"), Lifetime("request")


def kind(weight, low, high, life, pointers=500_000, share=600_000, **more):
    return Objects(weight, ((low, high, 1),), pointers, share, life, **more)


# a kind of each lifetime; sizes tell the kinds apart
EVERY = Mix(
    (
        kind(3, 1, 20, Lifetime("ops", 30, "exponential")),
        kind(2, 21, 40, Lifetime("ops", 17)),
        kind(2, 41, 60, Lifetime("bytes", 900, "exponential"), zeroed=False),
        kind(1, 61, 80, Lifetime("bytes", 2000)),
        kind(2, 81, 100, Lifetime("cache", 8)),
        kind(1, 101, 120, Lifetime("cache", 3), touched=False),
        kind(2, 121, 140, REQUEST),
        kind(1, 141, 160, IMMORTAL),
        kind(1, 161, 100_000, Lifetime("ops", 1, "exponential")),
    ),
    think=500,
    think_dist="exponential",
)


def worker_ops(mix, n, *, rounds=40, seed=1, name="w", batches=()):
    stream = WorkerStream(mix, rounds, seed, name)
    ops = np.zeros(n, OP)
    at = 0
    for size in batches:
        assert stream.fill(ops[at : at + size]) == size
        at += size
    assert stream.fill(ops[at:]) == n - at
    return ops


TWO_PHASES = (Phase(100, 7), Phase(50, 5, "exponential"))


def service(mix, phases=TWO_PHASES):
    return Service("poisson", 1_000_000, phases, mix)


def allocs(ops):
    return ops[ops["kind"] == ALLOC]


def within(found, expected, error, sigmas=4):
    assert abs(found - expected) <= sigmas * error, f"{found} is not {expected} +- {error}"


# the whole stream against the slow model


@pytest.mark.parametrize("seed", [1, 2])
def test_a_worker_does_what_its_mix_draws(seed):
    run = interpret(worker_ops(EVERY, 1000 * SCALE, seed=seed))
    draws = Draws(EVERY, seed, "w", alias_table)
    check_thinks(run, draws)
    check_draws(run, draws)
    check_deaths(run, draws)
    check_caches(run, draws)
    check_rounds(run, draws, 40)


def check_rounds(run, draws, length):
    for i, found in enumerate(run.objects):
        if draws.mix.objects[draws.kind(i)].lifetime.kind == "request":
            end = (i // length + 1) * length
            assert found.died in ((end,) if end < len(run.objects) else (end, inf)), i


@pytest.fixture(scope="module")
def broken_base():
    """Operations, and the positions of an assignment that ends an object, and of a DEAD with more behind it."""
    ops = worker_ops(EVERY, 1500)
    dead = int(np.flatnonzero(ops["kind"] == DEAD)[40])
    alloc = int(np.flatnonzero((ops["kind"] == ALLOC) & (ops["obj"] >= 11))[40])
    return ops, alloc, dead


def break_nothing(ops, alloc, dead):
    return ops


def break_double_dead(ops, alloc, dead):
    return np.insert(ops, dead, ops[dead])


def break_late_dead(ops, alloc, dead):
    """A DEAD moves behind the next ALLOC."""
    after = dead + 1 + int(np.argmax(ops["kind"][dead + 1 :] == ALLOC))
    order = np.r_[0:dead, dead + 1 : after + 1, dead, after + 1 : len(ops)]
    return ops[order]


def break_lost_dead(ops, alloc, dead):
    return np.delete(ops, dead)


def break_variable(ops, alloc, dead):
    """An object goes to a variable of another."""
    ops["obj"][alloc] = ops["obj"][alloc - 50 : alloc][ops["obj"][alloc - 50 : alloc] >= 11][0]
    return ops


def break_size(ops, alloc, dead):
    ops["arg"][alloc] += 1
    return ops


def break_flag(ops, alloc, dead):
    ops["flags"][alloc] ^= NOSCAN
    return ops


def break_think(ops, alloc, dead):
    ops["arg"][np.flatnonzero(ops["kind"] == COMPUTE)[40]] += 1
    return ops


def break_place(ops, alloc, dead):
    at = np.flatnonzero((ops["kind"] == ALLOC) & (ops["arg"] > 80) & (ops["arg"] <= 100))[5]
    ops["obj"][at] = (ops["obj"][at] + 1) % 8
    return ops


@pytest.mark.parametrize(
    "fault",
    [
        break_nothing,
        break_double_dead,
        break_late_dead,
        break_lost_dead,
        break_variable,
        break_size,
        break_flag,
        break_place,
        break_think,
    ],
)
def test_a_broken_stream_is_found(broken_base, fault):
    ops, alloc, dead = broken_base
    draws = Draws(EVERY, 1, "w", alias_table)

    def check():
        run = interpret(fault(ops.copy(), alloc, dead))
        check_thinks(run, draws)
        check_draws(run, draws)
        check_deaths(run, draws)
        check_caches(run, draws)
        check_rounds(run, draws, 40)

    if fault is break_nothing:
        check()
    else:
        with pytest.raises(AssertionError):
            check()


def test_fixed_lifetimes_of_one_kind_need_no_dead():
    """A ring of variables: malloc i + n takes over the variable of malloc i."""
    ops = worker_ops(ten_sizes(50), 100 * SCALE)
    assert (ops["kind"] == ALLOC).all()
    assert (ops["obj"][50:] == ops["obj"][:-50]).all()
    assert sorted(ops["obj"][:50]) == list(range(50))


def test_padding_and_stale_buffers_do_not_show():
    """Every field of a record is written, whatever the buffer held."""
    stream = WorkerStream(EVERY, 40, 1, "w")
    ops = np.full(500, 0xFF, np.uint8).repeat(OP.itemsize).view(OP)
    stream.fill(ops)
    assert ops.tolist() == worker_ops(EVERY, 500).tolist()


# what a stream does not depend on


def test_batches_do_not_change_the_stream():
    n = 300 * SCALE
    whole = worker_ops(EVERY, n)
    rng = random.Random(5)
    for longest in (1, 3, 100):
        batches, left = [], n
        while left > longest:
            batches.append(rng.randint(1, longest))
            left -= batches[-1]
        assert worker_ops(EVERY, n, batches=batches).tolist() == whole.tolist()


def test_other_streams_do_not_change_a_stream():
    alone = worker_ops(EVERY, 400)
    first, second = WorkerStream(EVERY, 40, 1, "w"), WorkerStream(EVERY, 40, 1, "v")
    ops, other = np.zeros(400, OP), np.zeros(400, OP)
    for i in range(0, 400, 100):
        first.fill(ops[i : i + 100])
        second.fill(other[i : i + 100])
    assert ops.tolist() == alone.tolist()
    assert other.tolist() != alone.tolist()
    assert worker_ops(EVERY, 400, seed=2).tolist() != alone.tolist()


def test_think_times_move_nothing_else():
    plain, thinking = (worker_ops(replace(EVERY, think=think), 500 * SCALE) for think in (0, 10**6))
    assert not (plain["kind"] == COMPUTE).any()
    rest = thinking[thinking["kind"] != COMPUTE]
    assert rest.tolist() == plain[: len(rest)].tolist()


def changed(number, **properties):
    """EVERY with other properties of one kind."""
    objects = list(EVERY.objects)
    objects[number] = replace(objects[number], **properties)
    return replace(EVERY, objects=tuple(objects))


def first_allocs(mix, n=150 * SCALE):
    return allocs(worker_ops(mix, 4 * n))[:n]


def test_lifetimes_move_no_size_and_no_pointer():
    before, after = first_allocs(EVERY), first_allocs(changed(0, lifetime=Lifetime("bytes", 50_000, "exponential")))
    for column in ("arg", "ptr_bytes", "flags"):
        assert (before[column] == after[column]).all()
    assert (before["obj"] != after["obj"]).any()


def test_pointers_move_no_size_and_no_variable():
    before, after = first_allocs(EVERY), first_allocs(changed(2, pointers_ppm=PPM, pointer_bytes_ppm=PPM))
    assert (before["arg"] == after["arg"]).all()
    assert (before["obj"] == after["obj"]).all()
    mine = (before["arg"] > 40) & (before["arg"] <= 60)
    assert (before["ptr_bytes"][~mine] == after["ptr_bytes"][~mine]).all()
    assert (after["ptr_bytes"][mine] == after["arg"][mine] & ~7).all()


def test_sizes_of_a_kind_move_no_other_kind():
    before, after = first_allocs(EVERY), first_allocs(changed(0, sizes=((200_000, 200_100, 1), (300_000, 300_000, 2))))
    mine = before["arg"] <= 20
    assert (after["arg"][mine] >= 200_000).all()
    for column in ("arg", "ptr_bytes", "flags"):
        assert (before[column][~mine] == after[column][~mine]).all()


def digest(n=1500):
    ops = worker_ops(EVERY, n)
    requests = RequestStream(service(EVERY), 3, "s")
    return [ops.tobytes().hex(), *(requests.next().tobytes().hex() for _ in range(10))]


def test_plain_and_compiled_write_the_same_bytes():
    code = "from tests.workloads.test_streams import digest; print(digest())"
    plain = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert plain.stdout.strip() == str(digest())


# theory


def test_littles_law_of_exponential_mallocs():
    """Mean m: the live count has mean m, autocovariance m/2 exp(-t/m), so that an average over T has variance m^2/T."""
    for mean in (1, 50):
        mix = Mix((kind(1, 16, 16, Lifetime("ops", mean, "exponential")),))
        run = interpret(worker_ops(mix, 3000 * SCALE))
        live = np.array(run.live[20 * mean :])
        error = sqrt((mean * mean + 1) / len(live))
        within(live.mean(), mean, error)
        with pytest.raises(AssertionError):
            within(live.mean(), mean * (1 + 12 / sqrt(len(live))), error)


def test_littles_law_of_shares():
    """Kinds with weights 1 and 3 and lifetimes of 80 and 40 mallocs: 20 and 30 alive, as independent arrivals."""
    mix = Mix((kind(1, 8, 8, Lifetime("ops", 80)), kind(3, 16, 16, Lifetime("ops", 40, "exponential"))))
    run = interpret(worker_ops(mix, 3000 * SCALE))
    n = len(run.objects)
    for size, share, mean in ((8, 0.25, 80), (16, 0.75, 40)):
        births = np.array([found.born for found in run.objects if found.size == size])
        deaths = np.array([min(found.died, n) for found in run.objects if found.size == size])
        within(len(births), share * n, sqrt(n * share * (1 - share)))
        # live-malloc integral over time; objects born near the end are cut, which is less than mean**2 in all
        within((deaths - births).sum() / n, share * mean, 2 * mean * sqrt(share / n) + share * mean * mean / n)


def test_littles_law_of_exponential_bytes():
    """Objects of s bytes that live m bytes: alive after a malloc are sum over k of exp(-ks/m) = 1/(1 - exp(-s/m))."""
    size, mean = 48, 4800
    mix = Mix((kind(1, size, size, Lifetime("bytes", mean, "exponential")),))
    run = interpret(worker_ops(mix, 3000 * SCALE))
    steady = 20 * mean // size
    live = np.array(run.live[steady:])
    within(live.mean(), 1 / (1 - exp(-size / mean)), (mean / size) / sqrt(len(live)))


def test_fixed_bytes_keep_that_many_bytes_alive():
    """Alive are the objects that end within the last m bytes: m, and the part of one that reaches out of them."""
    mean = 10_000
    mix = Mix((kind(1, 1, 500, Lifetime("bytes", mean)),))
    run = interpret(worker_ops(mix, 2000))
    assert mean <= run.live_bytes < mean + 500


def lifetimes(mix, n, field="died", born="born"):
    run = interpret(worker_ops(mix, n))
    whole = run.objects[: len(run.objects) // 2]  # all of them dead by the end
    assert all(found.died < inf for found in whole)
    return np.array([getattr(found, field) - getattr(found, born) for found in whole], dtype=float)


@pytest.mark.parametrize("mean", [1, 7, 100])
def test_exponential_lifetimes_in_mallocs(mean):
    """The floor of an exponential and a uniform: mean m exactly; variance m**2 and at most 1/4 more."""
    found = lifetimes(Mix((kind(1, 16, 16, Lifetime("ops", mean, "exponential")),)), 4000 * SCALE)
    within(found.mean(), mean, sqrt((mean * mean + 0.25) / len(found)))
    error = mean * mean * sqrt(8 / len(found))  # fourth central moment 9 m^4
    assert mean * mean - 4 * error <= found.var() <= mean * mean + 0.25 + 4 * error


def test_exponential_lifetimes_in_bytes():
    found = lifetimes(
        Mix((kind(1, 1, 1, Lifetime("bytes", 200, "exponential")),)), 4000 * SCALE, "died_bytes", "born_bytes"
    )
    assert stats.kstest(found + 0.5, "expon", args=(0, 200)).pvalue > 1e-3


def test_think_times_and_phases_have_their_means():
    mix = Mix((kind(1, 16, 16, IMMORTAL),), think=10**6, think_dist="exponential")
    times = worker_ops(mix, 1000 * SCALE)
    times = times["arg"][times["kind"] == COMPUTE]
    within(times.mean(), 10**6, 10**6 / sqrt(len(times)))
    stream = RequestStream(
        service(Mix((kind(1, 16, 16, IMMORTAL),)), (Phase(500, 1), Phase(9000, 2, "exponential"))), 1, "s"
    )
    found = []
    for i in range(100 * SCALE):
        ops = stream.next()
        assert ops["kind"].tolist() == [COMPUTE, ALLOC, COMPUTE, ALLOC, ALLOC]
        assert ops["arg"][0] == 500
        found.append(int(ops["arg"][2]))
        assert found[-1] == at(1, "s/compute/1", 64 * i).exponential(9000)
    within(np.mean(found), 9000, 9000 / sqrt(len(found)))


def test_shares_of_sizes_and_pointers():
    ops = allocs(worker_ops(ten_sizes(), 2000 * SCALE))
    counts = [int((ops["arg"] == size).sum()) for size in TEN_SIZES]
    assert sum(counts) == len(ops)
    assert stats.chisquare(counts).pvalue > 1e-3
    pointers = ops["ptr_bytes"] > 0
    within(pointers.sum(), len(ops) / 2, sqrt(len(ops)) / 2)
    assert (ops["ptr_bytes"][pointers] == ops["arg"][pointers]).all()


def test_sizes_fill_their_range_evenly():
    mix = Mix((Objects(1, ((100, 104, 1), (7, 9, 3)), 0, 0, IMMORTAL),))
    sizes = allocs(worker_ops(mix, 2000 * SCALE))["arg"]
    expected = {**dict.fromkeys(range(100, 105), len(sizes) / 20), **dict.fromkeys(range(7, 10), len(sizes) / 4)}
    assert set(sizes.tolist()) == set(expected)
    assert stats.chisquare([(sizes == size).sum() for size in expected], list(expected.values())).pvalue > 1e-3


@pytest.mark.parametrize(
    ("size", "share", "bytes_"),
    [
        (7, PPM, 0),
        (8, 0, 8),
        (15, PPM, 8),
        (16, 0, 8),
        (24, 500_000, 16),
        (1000, 500_000, 504),
        (1 << 30, 250_000, 1 << 28),
    ],
)
def test_pointer_bytes_are_words_within_the_object(size, share, bytes_):
    ops = worker_ops(Mix((kind(1, size, size, IMMORTAL, PPM, share),)), 5)
    assert (ops["ptr_bytes"] == bytes_).all()
    assert (ops["flags"] & NOSCAN == (NOSCAN if bytes_ == 0 else 0)).all()


def test_alias_tables_are_exact():
    rng = random.Random(3)
    for n in (1, 2, 3, 10, 77):
        weights = [rng.choice([0, 1, 5, rng.randrange(10**12)]) for _ in range(n - 1)] + [3]
        shares = [Fraction(0)] * n
        for cell, (threshold, other) in enumerate(alias_table(weights)):
            shares[cell] += Fraction(threshold, n << 32)
            shares[other] += Fraction((1 << 32) - threshold, n << 32)
        for share, weight in zip(shares, weights, strict=True):
            assert abs(share - Fraction(weight, sum(weights))) <= Fraction(1, 1 << 32)
            assert weight or not share


# variables


def test_variables_are_recycled():
    stream = WorkerStream(EVERY, 40, 1, "w")
    ops = np.zeros(1000 * SCALE, OP)
    stream.fill(ops)
    assert stream.ids == ops["obj"].max() + 1
    assert stream.mallocs == len(allocs(ops))
    run = interpret(ops)
    held = max(
        live - sum(1 for found in run.objects[:i] if found.obj == -1)
        for i, live in enumerate(run.live, 1)
        if i % 50 == 0
    )
    assert stream.ids <= 1.6 * held + 11


@pytest.mark.slow
def test_tables_grow_with_the_live_set():
    n = 40_000
    ops = worker_ops(ten_sizes(30_000), n, batches=[7000])
    assert ops["obj"].max() == 29_999
    assert len(set(ops["obj"][:30_000].tolist())) == 30_000


# services


def run_requests(mix, n):
    """The requests' operations interpreted in order; each begins with no variables of its own."""
    stream, run, caches = RequestStream(service(mix), 1, "s"), interpret(np.zeros(0, OP)), []
    for _ in range(n):
        ops = stream.next()
        run.local = {}
        before = len(run.objects)
        run.run(ops)
        check_request(ops, stream, run)
        assert len(run.objects) - before == 12
        caches.append(sum(1 for var in run.shared if var < 11))
    assert stream.mallocs == len(run.objects)
    return run, caches


def check_request(ops, stream, run):
    """Nothing the request holds is alive at its end, and its variables are numbered without gaps."""
    assert run.local == {}, "request-scoped objects outlive their request"
    own = ops["obj"][(ops["flags"] & SHARED == 0) & (ops["kind"] == ALLOC) & (ops["obj"] >= 0)]
    assert sorted(own.tolist()) == list(range(stream.ids))
    shared = ops["obj"][ops["flags"] & SHARED != 0]
    assert shared.max(initial=-1) < stream.shared_ids


def test_requests_do_what_their_mix_draws():
    run, caches = run_requests(EVERY, 50 * SCALE)
    draws = Draws(EVERY, 1, "s", alias_table)
    check_draws(run, draws)
    check_deaths(run, draws)
    check_caches(run, draws)
    check_rounds(run, draws, 12)
    assert max(caches) == 11  # eight and three places: never more, and in time all are taken
    for i, found in enumerate(run.objects):
        scope = draws.mix.objects[draws.kind(i)].lifetime.kind in ("ops", "bytes", "cache")
        assert bool(found.flags & SHARED) == scope


def test_an_object_left_at_the_end_of_its_request_is_found():
    stream = RequestStream(service(Mix((kind(1, 16, 16, REQUEST),))), 1, "s")
    ops = stream.next()
    check_request(ops, stream, interpret(ops))
    with pytest.raises(AssertionError, match="outlive"):
        check_request(ops, stream, interpret(ops[:-1]))


def test_long_requests_are_whole():
    stream = RequestStream(service(Mix((kind(1, 16, 16, REQUEST),)), (Phase(0, 3000),)), 1, "s")
    for _ in range(2):
        ops = stream.next()
        assert (len(ops), stream.ids) == (6000, 3000)
    assert (RequestStream(service(EVERY, (Phase(9, 0),)), 1, "s").next()["kind"] == [COMPUTE]).all()


def test_cache_lifetimes_are_geometric():
    """Each insertion ends a given place's object with chance 1/n: lifetimes of mean n, variance n (n - 1)."""
    places = 20
    found = lifetimes(Mix((kind(1, 16, 16, Lifetime("cache", places)),)), 2000 * SCALE)
    within(found.mean(), places, sqrt(places * (places - 1) / len(found)))


# arrivals


def gaps(arrivals, n):
    times = [next(arrivals) for _ in range(n)]
    return np.diff([0, *times])


def check_poisson(found, interval):
    """Mean of the gaps, and the index of dispersion of counts, variance over mean: 1 with error sqrt(2/windows)."""
    within(found.mean(), interval, interval / sqrt(len(found)))
    times = found.cumsum()
    counts = np.bincount(times // (20 * interval))[:-1]
    within(counts.var(ddof=1) / counts.mean(), 1, sqrt(2 / len(counts)))


def test_poisson_arrivals():
    load = service(EVERY)
    check_poisson(gaps(Arrivals(load, 1, "s"), 20_000), load.interval)
    constant = gaps(Arrivals(replace(load, arrivals="constant"), 1, "s"), 20_000)
    assert (constant == load.interval).all()
    with pytest.raises(AssertionError):
        check_poisson(constant, load.interval)
    with pytest.raises(AssertionError):
        check_poisson(gaps(Arrivals(load, 1, "s"), 20_000), load.interval * 21 // 20)


def test_arrivals_depend_on_their_name_alone():
    load = service(EVERY)
    first = gaps(Arrivals(load, 1, "s"), 50)
    assert (first == gaps(Arrivals(replace(load, mix=ten_sizes()), 1, "s"), 50)).all()
    assert (first != gaps(Arrivals(load, 1, "t"), 50)).any()


# the wheel


@entry(int64(stream_type, int64, int64, int64))
def insert_entry(h, w, var, at):
    insert(bare(h), w, var, at)
    return 0


@entry(int64(stream_type, int64, int64))
def pop_entry(h, w, clock):
    return pop(bare(h), w, clock)


def check_wheel(tables, waiting):
    """Bits say which lists hold something; each variable that waits stands in one list, where its digits put it."""
    arrays = tables.arrays
    seen = {}
    for slot, var in enumerate(arrays["heads"].tolist()):
        row, digit = divmod(slot, SLOTS)
        bit = int(arrays["slot_bits"][row * SLOT_WORDS + digit // 64]) >> digit % 64 & 1
        assert bit == (var >= 0), "a bit and its list differ"
        while var >= 0:
            assert var not in seen
            seen[var] = int(arrays["due"][var])
            var = int(arrays["link"][var])
    assert seen == waiting
    wheel = arrays["wheels"][1]
    assert not waiting or max(wheel["now"], wheel["first"]) <= min(waiting.values())


@pytest.mark.parametrize("longest", [1, 300, 10**5, 1 << 55])
def test_the_wheel_is_a_queue(longest):
    """Against a binary heap: everything comes out in order and in time, however far the clock leaps."""
    tables = WorkerStream(EVERY, 40, 1, "w")._tables
    rng = random.Random(longest)
    clock, free, heap = 0, list(range(200)), []
    for step in range(200 * SCALE):
        for _ in range(rng.randint(0, min(3, len(free)))):
            due = clock + (rng.randint(0, longest) >> rng.randint(0, 50))
            var = free.pop()
            insert_entry(tables.header, 1, var, due)
            heapq.heappush(heap, (due, var))
        clock += rng.randint(0, longest) >> rng.randint(1, 60) if longest > 300 else rng.randint(0, longest // 20 + 1)
        clock = min(clock, (1 << 55) - 1)
        due = []
        while heap and heap[0][0] <= clock:
            due.append(heapq.heappop(heap))
        found = [pop_entry(tables.header, 1, clock) for _ in due]
        assert [int(tables.arrays["due"][var]) for var in found] == [at for at, _ in due]
        assert sorted(found) == sorted(var for _, var in due)
        assert pop_entry(tables.header, 1, clock) == -1
        free += found
        if step % 50 == 0:
            check_wheel(tables, {var: at for at, var in heap})
    assert step and heap is not None


def test_a_broken_wheel_is_found():
    for name, index in (("slot_bits", 0), ("due", 7), ("link", 7), ("heads", 0)):
        tables = WorkerStream(EVERY, 40, 1, "w")._tables
        insert_entry(tables.header, 1, 7, 100)
        insert_entry(tables.header, 1, 8, 100)
        check_wheel(tables, {7: 100, 8: 100})
        if name in ("slot_bits", "heads"):
            index = int(np.flatnonzero(tables.arrays[name] != (-1 if name == "heads" else 0))[0])
        tables.arrays[name][index] = 3
        with pytest.raises(AssertionError):
            check_wheel(tables, {7: 100, 8: 100})


# bad input


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (Mix(()), "give at least one kind"),
        (Mix((kind(0, 1, 1, IMMORTAL),)), "one must be positive"),
        (Mix((kind(1, 0, 1, IMMORTAL),)), "1 <= low <= high"),
        (Mix((kind(1, 9, 8, IMMORTAL),)), "1 <= low <= high"),
        (Mix((kind(1, 1, 1 << 33, IMMORTAL),)), "apart"),
        (Mix((kind(1, 1, 1, IMMORTAL, pointers=PPM + 1),)), "not both in"),
        (Mix((kind(1, 1, 1, Lifetime("ops", 0)),)), r"ops 0 is not in \[1,"),
        (Mix((kind(1, 1, 1, Lifetime("bytes", 1 << 45)),)), "bytes .* is not in"),
        (Mix((kind(1, 1, 1, Lifetime("cache", 0)),)), "cache 0 is not in"),
        (Mix((kind(1, 1, 1, Lifetime("cache", 1 << 30)), kind(1, 1, 1, Lifetime("cache", 1)))), "places"),
        (Mix((kind(1, 1, 1, Lifetime("forever")),)), "'forever' is not one of immortal, request"),
        (Mix((kind(1, 1, 1, IMMORTAL),), think=-1), "think -1 ps"),
    ],
)
def test_bad_mixes_are_refused(mix, message):
    with pytest.raises(ValueError, match=message):
        WorkerStream(mix, 10, 1, "w")


def test_bad_rounds_phases_and_intervals_are_refused():
    with pytest.raises(ValueError, match="at least one malloc"):
        WorkerStream(EVERY, 0, 1, "w")
    for phases in ((), (Phase(-1, 1),), (Phase(1, -1),)):
        with pytest.raises(ValueError, match="phase"):
            RequestStream(service(EVERY, phases), 1, "s")
    with pytest.raises(ValueError, match="interval 0 ps"):
        Arrivals(replace(service(EVERY), interval=0), 1, "s")
