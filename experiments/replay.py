"""Replay a recorded Go trace through the rooms and count where they hand out the recorded addresses.

No clock: this checks *what* happens, not when. See replay_kernel for how it is done and what is inferred.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments import replay_kernel as kernel
from experiments.errors import InputError
from sim.go.runtime import Heap
from sim.go.state import NUM_SPAN_CLASSES, PAGE_SHIFT
from workloads.gotrace_model import SPAN, SPAN_ALLOC, STW_BEGIN, Trace

_MISSES = {
    "fresh_span_elsewhere": kernel.MISS_SPAN_BASE,
    "partial_span_expected": kernel.MISS_PARTIAL,
    "cached_span_had_room": kernel.MISS_NO_REFILL,
    "object_in_other_span": kernel.MISS_OTHER_SPAN,
    "object_in_other_slot": kernel.MISS_SLOT,
    "object_in_unknown_span": kernel.MISS_UNKNOWN_SPAN,
}


@dataclass(frozen=True)
class Replay:
    """Counts of one replay. A span or slot is matched when the rooms chose the recorded address themselves.

    ``tiny``: combined tiny allocations among the matched. ``excepted``: the first slot of a span class on a P whose
    span is older than the trace, so that the record alone can tell which span the P had cached.
    """

    spans_total: int
    spans_matched: int
    slots_total: int
    slots_matched: int
    tiny: int
    excepted: int
    misses: dict[str, int]
    unknown_events: int

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
    kind = trace.kind.astype(np.int64)
    kind[_flushes(trace)] = kernel.FLUSH_ALL
    nprocs = max(1, int(trace.p.max()) + 1)
    heap = Heap("go1.27", nprocs)
    counters = np.zeros(kernel.NUM_COUNTERS, np.int64)
    seen = np.zeros((nprocs, NUM_SPAN_CLASSES), np.int64)
    in_sweep = np.zeros(nprocs, np.int64)
    columns = [np.ascontiguousarray(x, np.int64) for x in (kind, trace.p, trace.a, trace.b, trace.c)]
    base = trace.min_heap >> PAGE_SHIFT
    at = 0
    largest = int(columns[3][np.isin(kind, (SPAN, SPAN_ALLOC))].max(initial=1))
    heap.make_room(largest + _snapshot_pages(columns))
    while at < len(kind):
        at = kernel.replay_events(heap.header, counters, seen, at, in_sweep, base, nprocs, *columns)
        if at < len(kind):
            heap.make_room(largest)
    n = [int(x) for x in counters]
    return Replay(
        spans_total=n[kernel.SPANS],
        spans_matched=n[kernel.SPANS_MATCHED],
        slots_total=n[kernel.SLOTS],
        slots_matched=n[kernel.SLOTS_MATCHED],
        tiny=n[kernel.TINY],
        excepted=n[kernel.EXCEPTED],
        misses={name: n[index] for name, index in _MISSES.items()},
        unknown_events=sum(trace.unknown.values()),
    )


def _snapshot_pages(columns: list[Any]) -> int:
    """Pages from the heap's base to the end of the snapshot's last span."""
    kind, _, a, b, _ = columns
    at = kind == SPAN
    return int((a[at] + b[at]).max(initial=0))


def _flushes(trace: Trace) -> Any:
    """Which events are stops that flush every P's cache: ReadMemStats does."""
    reasons = [i for i, text in enumerate(trace.strings) if "read mem stats" in text]
    return (trace.kind == STW_BEGIN) & np.isin(trace.a, reasons)
