"""What a replay keeps beside the heap: the recorded events, each P as the record shows it, counts and misses.

Everything stands in tables behind one header ``r``, as the heap does behind ``h`` (sim.jit), so that the compiled
functions of a replay take two arguments and the event's number.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.state import NUM_SPAN_CLASSES
from sim.jit import Tables, header_dtype, header_type, jit, table

# what is counted
SPANS = 0
SPANS_MATCHED = 1
SLOTS = 2
SLOTS_MATCHED = 3
TINY = 4
EXCEPTED = 5
MISS_SPAN_BASE = 6  # a fresh span where the rooms chose other pages
MISS_PARTIAL = 7  # a fresh span where the rooms had a partly free one
MISS_NO_REFILL = 8  # a fresh span where the rooms' cached span had room
MISS_OTHER_SPAN = 9  # the object lies in another span than the rooms chose
MISS_SLOT = 10  # the right span, another slot
MISS_LATE = 11  # the slot was taken before: its goroutine was stopped before it announced the object
MISS_UNKNOWN_SPAN = 12  # an object in no span the record told of
NUM_COUNTERS = 13

# kinds of events that the record has under other names, see replay_cycles
FLUSH_ALL = 255  # every P's cache is flushed
SWEEPER_START = 254  # the background sweeper gets a P; b: event of its turn's end, c: spans it sweeps in it, or ...
TO_THE_END = -1  # ... all that are left
SWEEPER_END = 253  # its turn ends
GC_STEP = 252  # runtime.GC yields, having swept a span if one was left
MAX_LOGGED = 100_000  # misses kept with their places
MAX_SHADOW = 1 << 24  # pages above the heap's base of which the recorded spans are kept
MAX_ASKED = 100  # misses that may be for want of a page cache at the start

EVENT = np.dtype(
    [
        *(("kind", "i8"), ("p", "i8"), ("m", "i8"), ("g", "i8"), ("time", "i8")),
        *(("a", "i8"), ("b", "i8"), ("c", "i8")),  # of HEAP_GOAL, b: the trigger in bytes, as replay_cycles infers it
    ],
    align=True,
)
PROC = np.dtype(
    [
        ("seen", "u1", (NUM_SPAN_CLASSES,)),  # the record has shown this P's cached span of the class
        ("running", "i8"),
        ("idle_since_stop", "i8"),  # has not started since the stop of the last mark termination
        ("in_sweep", "i8"),  # within a sweep on behalf of an allocation ...
        ("sweep_last", "i8"),  # ... and whose last free lies on this page, -1 none
        ("sweep_page", "i8"),  # ... which will get a slot of the old span at this page, -1 none
        ("sweep_fresh", "i8"),  # ... or a fresh span of this class, -1 none
        ("sweeps_more", "i8"),  # another sweep comes before that
        ("loads", "i8"),  # page caches taken so far
        ("start_known", "i8"),  # the page cache at the start is inferred, or cannot be any more
        ("start_base", "i8"),  # the page cache at the start, as inferred: first of its 64 pages, and the free ones
        ("start_bits", "u8"),
        ("last_kind", "i8"),  # of the P's last event, while the start is surveyed
    ],
    align=True,
)
MISS = np.dtype(
    [
        ("event", "i8"),  # its number
        ("cause", "i8"),
        ("page", "i8"),  # recorded page, and slot of an object
        ("slot", "i8"),
        ("chosen_page", "i8"),  # what the rooms chose
        ("chosen_slot", "i8"),
    ],
    align=True,
)

TABLES: dict[str, Any] = {
    "events": EVENT,
    "rprocs": PROC,
    "misses": MISS,
    "noted": np.uint8,  # by span: see the flags below
    "order": np.int64,  # spans of the snapshot in the order in which the record first touches them
    "fresh_at": np.int64,  # by span class: how many spans of ``order`` came before its first fresh one, -1 none
    "shadow": np.int64,  # by page from base_page: 1 + the event of the recorded span there, 0 none (coupled)
    "freed_at": np.int64,  # by span: event at which the record first frees in it what died in this cycle, 0 none
    "withheld": np.int64,  # by page from base_page: 1 if it is taken for a span that the record has not freed yet
}
SCALARS = [
    ("count", "i8", (NUM_COUNTERS,)),
    ("base_page", "i8"),  # page number of the lowest heap address
    ("nprocs", "i8"),
    ("event", "i8"),  # the event at hand
    ("ordered", "i8"),  # spans in ``order``
    ("aside", "i8"),  # spans in ``order`` after the start: swept by reclaiming, not by the rooms yet
    ("logged", "i8"),
    ("want", "i8"),  # P whose small span lies elsewhere, for want of a page cache at the start, perhaps; -1 none
    ("chosen", "i8"),  # the page the rooms chose for it
    ("asked", "i8"),  # how often that was put to the caller
    ("gc_began", "i8"),  # sweep termination is under way
    ("gc_ended", "i8"),  # mark termination is under way
    ("coupled", "i8"),  # sweeping is the rooms' own matter from the first recorded mark termination on ...
    ("ours", "i8"),  # ... which has come
    ("marking", "i8"),  # a mark phase is under way: objects are born marked
    ("live", "i8"),  # heapLive as recorded last
    ("turn", "i8"),  # event at which the background sweeper's turn began, -1 if it has no P
    ("turn_spans", "i8"),  # spans it will sweep in that turn
    ("turn_swept", "i8"),  # and has swept
    ("finish_m", "i8"),  # thread that has still to flush idle Ps after mark termination, -1 none
]
# flags of ``noted``
OLD = 1  # in the snapshot
TOUCHED = 2  # the record has shown it since
UNSWEPT = 4  # the sweep that was under way at the start had not reached it
CACHED = 8  # some P had it cached at the start
GONE = 16  # freed since
AHEAD = 64  # shelved until the record sweeps it, which is behind
PROMISED = 32  # fresh, and its first slot went with the refill, but its object is not announced yet

REPLAY = header_dtype(SCALARS, TABLES)  # type: ignore[arg-type]
replay_type = header_type(REPLAY)

events = table("events", EVENT)
rprocs = table("rprocs", PROC)
misses = table("misses", MISS)
noted = table("noted", np.uint8)
order = table("order", np.int64)
fresh_at = table("fresh_at", np.int64)
shadow = table("shadow", np.int64)
freed_at = table("freed_at", np.int64)
withheld = table("withheld", np.int64)


def new_run(recorded: Any, base: int, nprocs: int, nspans: int, coupled: bool = False) -> Tables:
    """Tables of a replay that has not begun; ``recorded`` is an array of EVENT, ``nspans`` room for spans."""
    tables = Tables(REPLAY, TABLES)
    tables.allocate("events", len(recorded))[:] = recorded
    tables.allocate("rprocs", nprocs)
    tables.allocate("misses", MAX_LOGGED)
    tables.allocate("noted", nspans)
    tables.allocate("freed_at", nspans)
    tables.allocate("order", 1 + int(np.count_nonzero(recorded["kind"] == 1)))
    tables.allocate("fresh_at", NUM_SPAN_CLASSES)[:] = -1
    fields = tables.fields
    fields.coupled = coupled
    if coupled:
        is_span = np.isin(recorded["kind"], (1, 2))
        end = int((recorded["a"] + recorded["b"])[is_span].max(initial=0))
        tables.allocate("shadow", min(end, MAX_SHADOW))
        tables.allocate("withheld", min(end, MAX_SHADOW))
    fields.base_page, fields.nprocs = base, nprocs
    fields.want = fields.finish_m = fields.turn = -1
    return tables


@jit
def note_miss(r: Any, cause: Any, page: Any, slot: Any, chosen_page: Any, chosen_slot: Any) -> None:
    """Count a miss at the event at hand, and keep where it was; pages and slots that do not apply are -1."""
    r[0].count[cause] += 1
    if r[0].logged < MAX_LOGGED:
        miss = misses(r)[r[0].logged]
        miss.event = r[0].event
        miss.cause = cause
        miss.page = page
        miss.slot = slot
        miss.chosen_page = chosen_page
        miss.chosen_slot = chosen_slot
        r[0].logged += 1
