"""Collections as whoever fits a workload to them sees them: recorded in a log or in a trace, or simulated.

Between two collections the live heap grows from what the first marked to what is there when the second has marked,
so that a program allocates, in bytes of slots,

    allocated = sum over cycles of (heap1[i] - heap2[i - 1]), in end[i] - end[i - 1] seconds;

a program's first cycle begins from nothing, at its start. What is allocated during a mark counts as marked (mgcmark.go:
gcmarknewobject), hence what was alive when a cycle began is

    live[i] = heap2[i] - (heap1[i] - heap0[i]).

A gctrace line has whole MiB, cut: half of one is added to each, so that means of many are right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from sim.metrics.cycles import Cycle
from sim.metrics.gctrace import GcLine, gc_line
from sim.units import SEC
from workloads import gotrace_model as t
from workloads.gotrace_cycles import recorded_cycles
from workloads.gotrace_model import Trace

_MIB = 1 << 20
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Seen:
    """One cycle. ``begin``, ``end``: seconds since the program's start, or the trace's.

    Bytes of heap: ``heap0`` live when it began, ``heap1`` when all was marked, ``heap2`` marked, ``goal``. Seconds,
    None where they are not told: ``cpu`` of the collector, but for what idle Ps mark; ``dedicated`` of them;
    ``idle``; and ``clock``, how long marking was.
    """

    number: int
    begin: float
    end: float
    heap0: float
    heap1: float
    heap2: float
    goal: float
    forced: bool
    clock: float | None = None
    cpu: float | None = None
    dedicated: float | None = None
    idle: float | None = None

    @property
    def live(self) -> float:
        """Bytes alive when it began."""
        return max(self.heap2 - (self.heap1 - self.heap0), 0.0)


def of_line(line: GcLine) -> Seen:
    """The cycle of a gctrace line."""
    heap0, heap1, heap2 = ((mib + 0.5) * _MIB for mib in line.heap)
    return Seen(
        number=line.number,
        begin=line.start / _NS,
        end=(line.start + sum(line.clock)) / _NS,
        heap0=heap0,
        heap1=heap1,
        heap2=heap2,
        goal=(line.goal + 0.5) * _MIB,
        forced=line.forced,
        clock=line.clock[1] / _NS,
        cpu=(sum(line.cpu) - line.cpu[3]) / _NS,
        dedicated=line.cpu[2] / _NS,
        idle=line.cpu[3] / _NS,
    )


def of_simulated(cycles: Sequence[Cycle], version: str, *, exact: bool) -> list[Seen]:
    """Simulated cycles, as their gctrace lines tell them, or with heaps to the byte."""
    found = []
    for cycle in cycles:
        seen = of_line(gc_line(cycle, version))
        if exact:
            seen = replace(
                seen,
                begin=cycle.t_sweep_term / SEC,
                end=cycle.t_end / SEC,
                heap0=float(cycle.heap0),
                heap1=float(cycle.heap1),
                heap2=float(cycle.heap2),
                goal=float(cycle.heap_goal),
            )
        found.append(seen)
    return found


def of_trace(trace: Trace) -> list[Seen]:
    """The cycles that begin and end within a trace: heaps to the byte, no CPU times.

    ``heap1`` is the heap as last told before the end; ``goal`` the one that was aimed at, told before the begin.
    """
    first = int(trace.time_ns[0])
    told = np.flatnonzero(trace.kind == t.HEAP_ALLOC)
    goals = np.flatnonzero(trace.kind == t.HEAP_GOAL)
    ends = np.flatnonzero(trace.kind == t.GC_END)
    found = []
    for number, one in enumerate(recorded_cycles(trace), 1):
        after = int(np.searchsorted(ends, one.begin))
        if one.stop < 0 or after == len(ends) or not one.marked or not one.heap_live:
            continue
        end = int(ends[after])
        at = int(np.searchsorted(told, end)) - 2  # the last before is what was marked
        goal = int(np.searchsorted(goals, one.begin)) - 1
        heap1 = int(trace.a[told[at]]) if at >= 0 else 0
        found.append(
            Seen(
                number=number,
                begin=(int(trace.time_ns[one.begin]) - first) / _NS,
                end=(int(trace.time_ns[end]) - first) / _NS,
                heap0=float(one.heap_live),
                heap1=float(max(heap1, one.heap_live)),
                heap2=float(one.marked),
                goal=float(trace.a[goals[goal]]) if goal >= 0 else 0.0,
                forced=one.forced,
            )
        )
    return found


def joined(told: Sequence[Seen], traced: Sequence[Seen]) -> tuple[list[Seen], bool]:
    """A log's cycles with the heaps of a trace of the same run, where they fit on each other; whether nearly all do."""

    def fits(offset: int) -> list[int]:
        pairs = zip(told[offset:], traced, strict=False)
        return [offset + i for i, (a, b) in enumerate(pairs) if a.heap0 // _MIB == b.heap0 // _MIB]

    offset = max(range(max(len(told) - len(traced), 0) + 1), key=lambda one: len(fits(one)))
    found = list(told)
    for i in fits(offset):
        one = traced[i - offset]
        found[i] = replace(told[i], heap0=one.heap0, heap1=one.heap1, heap2=one.heap2, goal=one.goal or told[i].goal)
    return found, 10 * len(fits(offset)) >= 8 * len(told)


def allocated(cycles: Sequence[Seen], *, whole: bool) -> tuple[float, float]:
    """Bytes allocated up to the last cycle's end, and the seconds that took; ``whole``: from the program's start on.

    Cycles whose number does not follow the one before are not known: what lies before them is left out.
    """
    nbytes = seconds = 0.0
    if whole and cycles:
        nbytes, seconds = cycles[0].heap1, cycles[0].end
    for before, one in pairwise(cycles):
        if one.number == before.number + 1:
            nbytes += max(one.heap1 - before.heap2, 0.0)
            seconds += one.end - before.end
    return nbytes, seconds


def quarters(cycles: Sequence[Seen]) -> list[float]:
    """Bytes allocated a second in each quarter of the time between the first cycle's end and the last one's."""
    ends = [one.end for one in cycles]
    made = np.cumsum([0.0, *(max(b.heap1 - a.heap2, 0.0) for a, b in pairwise(cycles))])
    at = np.interp(np.linspace(ends[0], ends[-1], 5), ends, made)
    return [float(x) for x in np.diff(at) / max((ends[-1] - ends[0]) / 4, 1e-9)]


def mark_cost(cycles: Sequence[Seen]) -> float | None:
    """CPU seconds of collecting, by whoever did it, for each byte marked; None where it is not told."""
    told = [one for one in cycles if one.cpu is not None and one.idle is not None]
    marked = sum(one.heap2 for one in told)
    return sum((one.cpu or 0.0) + (one.idle or 0.0) for one in told) / marked if marked else None


@dataclass(frozen=True, slots=True)
class Figures:
    """What cycles come to: how many began by themselves; means over time of these, bytes; bytes allocated a second.

    Over time: each instant counts for the cycle whose beginning is nearest, so that the many of a small heap do not
    outweigh.

    ``gc_share``: of the CPU time of all Ps, the collector's without idle marking; None where it is not told.
    """

    cycles: int
    trigger: float
    marked: float
    goal: float
    rate: float
    gc_share: float | None


def figures(cycles: Sequence[Seen], procs: int, until: float, *, whole: bool) -> Figures:
    """The figures of some cycles, heaps up to an instant; ValueError if none began by itself."""
    own = [one for one in cycles if not one.forced]
    if not own:
        raise ValueError("no cycle began by itself")
    nbytes, seconds = allocated(cycles, whole=whole)
    nearest = [(a.begin + b.begin) / 2 for a, b in pairwise(own)]
    since = np.diff([0.0 if whole else own[0].begin, *nearest, max(until, own[-1].end)])
    cpu = [one.cpu for one in cycles if one.cpu is not None]
    begun = 0.0 if whole else cycles[0].begin
    return Figures(
        cycles=len(own) - (not whole and own[0] is cycles[0]),  # that one is where the time begins
        trigger=float(np.average([one.heap0 for one in own], weights=since)),
        marked=float(np.average([one.heap2 for one in own], weights=since)),
        goal=float(np.average([one.goal for one in own], weights=since)),
        rate=nbytes / seconds if seconds > 0 else 0.0,
        gc_share=sum(cpu) / (procs * (cycles[-1].end - begun)) if cpu and cycles[-1].end > begun else None,
    )
