"""Replay a recorded Go trace through the rooms and count where they hand out the recorded addresses.

No clock: this checks *what* happens, not when. See replay_kernel for how it is done and what is inferred. Of a
collection the record tells everything; or, coupled, when cycles begin and end and who runs where, and what is swept
when is the rooms' own matter (replay_coupled).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments import replay_state as state
from experiments.errors import InputError
from experiments.replay_cycles import infer_triggers, name_sweepers
from experiments.replay_kernel import replay_events
from experiments.replay_repair import NEAR_PAGES
from experiments.replay_start import idle_page_cache, page_cache_at_start, was_free_until
from sim.go.mheap import PAGE_CACHE_MAX_PAGES
from sim.go.runtime import Heap
from sim.go.state import PAGE_SHIFT
from sim.jit import Tables
from workloads.gotrace_cycles import memory_stats_stops, recorded_cycles
from workloads.gotrace_model import SPAN, SPAN_ALLOC, Trace

_MISSES = {
    "fresh_span_elsewhere": state.MISS_SPAN_BASE,
    "partial_span_expected": state.MISS_PARTIAL,
    "cached_span_had_room": state.MISS_NO_REFILL,
    "object_in_other_span": state.MISS_OTHER_SPAN,
    "object_in_other_slot": state.MISS_SLOT,
    "object_announced_late": state.MISS_LATE,
    "object_in_unknown_span": state.MISS_UNKNOWN_SPAN,
}

_MAX_IDLE_PS = 4096  # a P that never acts matters for the pages it may have cached at the start


@dataclass(frozen=True)
class Collections:
    """Cycles of a coupled replay: those it ran and those in the trace, without the forced.

    ``trigger_error``, ``goal_error``: of every cycle for which they are predicted, the relative error.
    """

    cycles: int
    forced: int
    recorded_cycles: int
    trigger_error: tuple[float, ...] = ()
    goal_error: tuple[float, ...] = ()


@dataclass(frozen=True)
class Replay:
    """Counts of one replay. A span or slot is matched when the rooms chose the recorded address themselves.

    ``tiny``: combined tiny allocations among the matched. ``excepted``: the first slot of a span class on a P whose
    span is older than the trace, so that the record alone can tell which span the P had cached. ``places``: the
    first misses with their event, cause, and recorded and chosen place (an array of replay_state.MISS). ``gc``: its
    collections, None if the record told everything of them.
    """

    spans_total: int
    spans_matched: int
    slots_total: int
    slots_matched: int
    tiny: int
    excepted: int
    misses: dict[str, int]
    unknown_events: int
    places: Any
    gc: Collections | None = None

    def to_dict(self) -> dict[str, Any]:
        """The shape of ``allocsim replay --json``."""
        answer: dict[str, Any] = {
            "replay": {
                "spans": {"total": self.spans_total, "matched": self.spans_matched},
                "slots": {
                    "total": self.slots_total,
                    "matched": self.slots_matched,
                    "tiny": self.tiny,
                    "excepted": self.excepted,
                },
                "misses": self.misses,
                "unknown_events": self.unknown_events,
            }
        }
        if self.gc is not None:
            answer["gc"] = asdict(self.gc)
        return answer


def replay(trace: Trace, gc: str | None = None) -> Replay:
    """Run a trace's recorded order through the rooms of go1.27.

    ``gc``: "coupled", or None: the record tells what is swept when.

    Raises InputError when the trace holds no allocation events.
    """
    if not trace.has_allocations:
        raise InputError("the trace holds no allocation events; record it with GODEBUG=traceallocfree=1")
    _, run = _run(trace, gc == "coupled")
    n = [int(x) for x in run.fields.count]
    return Replay(
        spans_total=n[state.SPANS],
        spans_matched=n[state.SPANS_MATCHED],
        slots_total=n[state.SLOTS],
        slots_matched=n[state.SLOTS_MATCHED],
        tiny=n[state.TINY],
        excepted=n[state.EXCEPTED],
        misses={name: n[index] for name, index in _MISSES.items()},
        unknown_events=sum(trace.unknown.values()),
        places=run.arrays["misses"][: int(run.fields.logged)],
        gc=None if gc is None else _collections(trace),
    )


def _collections(trace: Trace) -> Collections:
    """What a coupled replay says of its cycles: it runs those of the record."""
    cycles = recorded_cycles(trace)
    forced = sum(cycle.forced for cycle in cycles)
    return Collections(cycles=len(cycles) - forced, forced=forced, recorded_cycles=len(cycles) - forced)


def _run(trace: Trace, coupled: bool) -> tuple[Heap, Tables]:
    """The heap and the tables of a finished replay. It begins anew each time it has to infer a P's page cache at the start."""
    recorded = _events(trace)
    if coupled:
        name_sweepers(trace, recorded)
        infer_triggers(trace, recorded)
    nprocs = max(1, min(trace.gomaxprocs, _MAX_IDLE_PS), int(trace.p.max()) + 1)
    caches: dict[int, tuple[int, int]] = {}
    while True:
        heap = Heap("go1.27", nprocs)
        room = _most_pages(recorded) + NEAR_PAGES
        heap.make_room(room)
        run = state.new_run(recorded, trace.min_heap >> PAGE_SHIFT, nprocs, len(heap.arrays["spans"]), coupled)
        for p, (first, bits) in caches.items():
            proc = run.arrays["rprocs"][p]
            proc["start_known"], proc["start_base"], proc["start_bits"] = 1, first, bits
        at = 0
        while at < len(recorded):
            at = replay_events(heap.header, run.header, at)
            if run.fields.want >= 0 and _infer_page_cache(recorded, run, caches):
                break
            run.fields.want = -1
            heap.make_room(room)
            run.allocate("noted", len(heap.arrays["spans"]))
            run.allocate("freed_at", len(heap.arrays["spans"]))
        else:
            return heap, run


def _infer_page_cache(recorded: Any, run: Tables, caches: dict[int, tuple[int, int]]) -> bool:
    """After a small span elsewhere: add the page cache at the start that explains it, if there is one.

    Either the P itself had another block cached, or the rooms chose free pages that some other P had.
    """
    procs, p = run.arrays["rprocs"], int(run.fields.want)
    event, chosen = int(run.fields.event), int(run.fields.chosen - run.fields.base_page)
    if recorded["b"][event] < PAGE_CACHE_MAX_PAGES and not procs["start_known"][p] and procs["loads"][p] <= 1:
        caches[p] = page_cache_at_start(recorded, p)
        return True
    if not was_free_until(recorded, chosen, event):
        return False
    for q in np.flatnonzero((procs["start_known"] == 0) & (procs["loads"] == 0)).tolist():
        first, bits = page_cache_at_start(recorded, q)
        if bits == 0:
            first, bits = idle_page_cache(recorded, chosen)
        if q != p and bits and first == chosen & ~63:
            caches[q] = first, bits
            return True
    return False


def _events(trace: Trace) -> Any:
    """The columns a replay needs, as an array of records."""
    recorded = np.zeros(len(trace.kind), state.EVENT)
    for name in ("kind", "p", "m", "g", "a", "b", "c"):
        recorded[name] = getattr(trace, name)
    recorded["time"] = trace.time_ns
    recorded["kind"][memory_stats_stops(trace, len(recorded))] = state.FLUSH_ALL
    return recorded


def _most_pages(recorded: Any) -> int:
    """Pages to make room for at a time: the snapshot and the longest span."""
    at_start = recorded[recorded["kind"] == SPAN]
    longest = recorded["b"][np.isin(recorded["kind"], (SPAN, SPAN_ALLOC))].max(initial=1)
    return int((at_start["a"] + at_start["b"]).max(initial=0)) + int(longest)
