"""Replay a recorded Go trace through the rooms and count where they hand out the recorded addresses.

No clock: this checks *what* happens, not when. See replay_kernel for how it is done and what is inferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments import replay_state as state
from experiments.errors import InputError
from experiments.replay_kernel import replay_events
from experiments.replay_start import page_cache_at_start
from sim.go.runtime import Heap
from sim.go.state import PAGE_SHIFT
from sim.jit import Tables
from workloads.gotrace_model import SPAN, SPAN_ALLOC, STW_BEGIN, Trace

_MISSES = {
    "fresh_span_elsewhere": state.MISS_SPAN_BASE,
    "partial_span_expected": state.MISS_PARTIAL,
    "cached_span_had_room": state.MISS_NO_REFILL,
    "object_in_other_span": state.MISS_OTHER_SPAN,
    "object_in_other_slot": state.MISS_SLOT,
    "object_announced_late": state.MISS_LATE,
    "object_in_unknown_span": state.MISS_UNKNOWN_SPAN,
}


@dataclass(frozen=True)
class Replay:
    """Counts of one replay. A span or slot is matched when the rooms chose the recorded address themselves.

    ``tiny``: combined tiny allocations among the matched. ``excepted``: the first slot of a span class on a P whose
    span is older than the trace, so that the record alone can tell which span the P had cached. ``places``: the
    first misses with their event, cause, and recorded and chosen place (an array of replay_state.MISS).
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

    def to_dict(self) -> dict[str, Any]:
        """The shape of ``allocsim replay --json``."""
        return {
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


def replay(trace: Trace) -> Replay:
    """Run a trace's recorded order through the rooms of go1.27.

    Raises InputError when the trace holds no allocation events.
    """
    if not trace.has_allocations:
        raise InputError("the trace holds no allocation events; record it with GODEBUG=traceallocfree=1")
    run = _run(trace)
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
    )


def _run(trace: Trace) -> Tables:
    """The tables of a finished replay. It begins anew for each P whose page cache at the start it has to infer."""
    recorded = _events(trace)
    base = trace.min_heap >> PAGE_SHIFT
    nprocs = max(1, trace.gomaxprocs, int(trace.p.max()) + 1)
    at_start: dict[int, tuple[int, int]] = {}
    while True:
        heap = Heap("go1.27", nprocs)
        heap.make_room(_most_pages(recorded))
        run = state.new_run(recorded, base, nprocs, len(heap.arrays["spans"]))
        for p, (first, bits) in at_start.items():
            proc = run.arrays["rprocs"][p]
            proc["start_known"], proc["start_base"], proc["start_bits"] = 1, first, bits
        at = 0
        while 0 <= at < len(recorded):
            at = replay_events(heap.header, run.header, at)
            heap.make_room(_most_pages(recorded))
            run.allocate("noted", len(heap.arrays["spans"]))
        if at >= 0:
            return run
        p = int(run.fields.want)
        at_start[p] = page_cache_at_start(recorded, p)


def _events(trace: Trace) -> Any:
    """The columns a replay needs, as an array of records."""
    recorded = np.zeros(len(trace.kind), state.EVENT)
    for name in ("kind", "p", "m", "g", "a", "b", "c"):
        recorded[name] = getattr(trace, name)
    recorded["kind"][_flushes(trace)] = state.FLUSH_ALL
    return recorded


def _most_pages(recorded: Any) -> int:
    """Pages to make room for at a time: the snapshot and the longest span."""
    at_start = recorded[recorded["kind"] == SPAN]
    spans = recorded["b"][np.isin(recorded["kind"], (SPAN, SPAN_ALLOC))]
    return int((at_start["a"] + at_start["b"]).max(initial=0)) + int(spans.max(initial=1))


def _flushes(trace: Trace) -> Any:
    """Which events are stops that flush every P's cache: ReadMemStats does."""
    reasons = [i for i, text in enumerate(trace.strings) if "read mem stats" in text]
    return (trace.kind == STW_BEGIN) & np.isin(trace.a, reasons)
