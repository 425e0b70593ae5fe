"""Waits for memory while marking: against a list of all that happens, in order, and against chance."""

import random

import numpy as np
import pytest
from numba import int64

from sim.go import mgcstall
from sim.go.runtime import Heap
from sim.go.state import heap_type
from sim.jit import bare, entry
from tests.go.marking import cpu_until, pieces, work_given

US = 10**6
KIB = 1 << 10


@entry(int64(heap_type, int64))
def stalled(h, even):
    return mgcstall.stalled_time(bare(h), even)


@entry(int64(heap_type, int64, int64))
def place_of(h, number, proper):
    return mgcstall.stall_place(bare(h), number, proper)


def a_heap(whole, work, stalls, stall, array=(0, 0, 0)):
    """Marking of so many picoseconds and bytes; parts in a million that are waits, and picoseconds of each."""
    heap = Heap("go1.27", 1)
    array_work, objects, object_cpu = array
    heap.arrays["mark_object"][:] = object_cpu
    fields = heap.fields
    fields.mark_stalls, fields.mark_stall, fields.stall_key = stalls, stall, 12345
    fields.mark_works[2] = work
    pieces(heap.header, array_work, round(array_work / (128 << 10)), objects, whole)
    fields.mark_cpus[2] = fields.mark_total = stalled(heap.header, whole)
    return heap


def walk(heap, whole, stalls, stall):
    """(CPU, share of the work) before and after each wait: a walk through the cycle that keeps them all in a list.

    ``share_done``: of the work by the time without waits.
    """
    length = 8 * stall * 10**6 // stalls
    proper = length - 8 * stall
    at = [(0.0, 0.0)]
    for k in range(whole // length + 1):
        for met, place in enumerate(sorted(place_of(heap.header, 8 * k + i, proper) for i in range(8))):
            even = k * length + place * length / proper
            at += [(k * length + place + met * stall, even), (k * length + place + (met + 1) * stall, even)]
        at.append(((k + 1) * length, (k + 1) * length))
    cpu, even = np.array(at).T
    return cpu, even


@pytest.mark.parametrize("seed", range(12))
def test_work_is_done_between_the_waits_and_none_in_them(seed):
    rng = random.Random(seed)
    whole, work, stalls, stall = rng.randrange(10**10, 10**12), rng.randrange(10**7, 10**9), rng.randrange(10**4, 8 * 10**5), rng.randrange(10**7, 2 * 10**8)
    heap = a_heap(whole, work, stalls, stall)
    cpus, even = walk(heap, whole, stalls, stall)
    works = even * work / whole
    total = int(heap.fields.mark_total)
    assert total == pytest.approx(cpus[np.searchsorted(even, whole)] - (even[np.searchsorted(even, whole)] - whole) * (1 - stalls / 1e6), abs=10)
    for _ in range(200):
        cpu = rng.randrange(total)
        done = work_given(heap.header, cpu)
        assert done == pytest.approx(np.interp(cpu, cpus, works), rel=1e-6, abs=2.01)
        heap.fields.mark_cpu = cpu
        wanted = rng.randrange(1, 1 << 18)
        until = cpu + cpu_until(heap.header, wanted)
        assert cpu < until <= total
        assert until == total or done + wanted <= work_given(heap.header, until) <= done + wanted + 2
    assert work_given(heap.header, total) == work


def test_cycles_take_as_long_as_without_on_average_long_ones_and_short_ones():
    """Waits of 150 us, a quarter of the time: a cycle of 400 ms has 667, one of 100 us one in six times."""
    stall = 150 * US
    heap = a_heap(1000, 1, 250_000, stall)

    def totals(whole, cycles):
        for cycle in range(cycles):
            heap.fields.sweepgen = 2 * cycle
            yield stalled(heap.header, whole)

    long, short = np.array(list(totals(400_000 * US, 20))), np.array(list(totals(100 * US, 5000)))
    assert np.abs(long / (400_000 * US) - 1).max() < 0.005
    waits = (short - 75 * US) / stall
    assert np.abs(waits - waits.round()).max() < 1e-6
    assert waits.mean() == pytest.approx(1 / 6, rel=0.1)


def test_assists_meet_as_many_waits_as_chance_has_it():
    """One after the other, of 64 KiB, 400 in each of 10 cycles: Poisson, but for the eight to a stretch; those that meet
    none all take the same time."""
    whole, work, stall, stalls = 40_000 * US, 400 * 64 * KIB, 150 * US, 300_000
    met = []
    for cycle in range(10):
        heap = a_heap(whole, work, stalls, stall)
        heap.fields.sweepgen = 2 * cycle
        while heap.fields.mark_cpu < heap.fields.mark_total - 2000 * US:
            took = cpu_until(heap.header, 64 * KIB)
            heap.fields.mark_cpu += took
            met.append((took - 70 * US) / stall)
    met = np.array(met)
    assert np.abs(met - met.round()).max() < 0.001
    rate = 0.3 * 100 * US / stall
    assert met.mean() == pytest.approx(rate, rel=0.05)
    for n, poisson in enumerate((np.exp(-rate), rate * np.exp(-rate))):
        assert (met.round() == n).mean() == pytest.approx(poisson, abs=0.02)


def test_pieces_of_arrays_wait_too_and_take_their_turn():
    """As without waits at the end of each stretch of time."""
    array = 8 << 17, 8 << 14, 40_000
    whole, work, stall, stalls = 200_000 * US, 64 << 20, 100 * US, 200_000
    waiting, without = a_heap(whole, work, stalls, stall, array), a_heap(whole, work, 0, 0, array)
    length = 8 * stall * 10**6 // stalls
    for k in range(whole // length):
        assert work_given(waiting.header, k * length) == pytest.approx(work_given(without.header, k * length), abs=2)
    heap = a_heap(whole, work, stalls, stall, array)
    assert cpu_until(heap.header, 1) >= (1 << 14) * 40_000 * 0.8
