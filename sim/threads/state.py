"""The clock's side of a program of threads: threads, CPUs, locks, prices and histograms, on one page.

A model has two headers: its rooms' own, which knows no clock, and this one. Times are integer picoseconds.

A *thread* runs batches of operations (sim/ops.py). Its clock stands in ``times``, NEVER while it has no CPU or nothing
to do; ``stage`` says what it does when its turn comes. An operation may take several locks one after the other and let
other threads come in between; what else a model has to know of one in progress stands in a table of its own.

A *lock* is a word: the time from which on it is free. Whoever comes first gets it first, since arrivals are dealt with
in the order of time.

A *cause* is where the time of a malloc or a free goes; a model numbers its own: 0 is all of a malloc, then a malloc's,
then all of a free, then a free's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import Tables, header_dtype, header_type, table
from sim.metrics.histogram import BUCKETS

NEVER = 1 << 62
NOBODY = -1
MAX_CAUSES = 20

# thread.stage; a model numbers its own from FIRST_STAGE on
OPS = 0  # between two operations
SLICE = 1  # the same, at the end of its time slice
DONE = 2  # its batch is at its end
FIRST_STAGE = 3

THREAD = np.dtype(
    [
        ("ops", "i8"),  # address of its batch, its length and the operation it is at
        ("nops", "i8"),
        ("pos", "i8"),
        ("stage", "i8"),
        ("compute_left", "i8"),  # of the compute it is in, when its slice cut that
        ("obj", "i8"),  # the object of the malloc or free in progress
        ("spent", "i8", (MAX_CAUSES,)),  # of it so far, by cause
        # its CPU
        ("cpu", "i4"),
        ("next", "i4"),  # behind it in its CPU's queue, NOBODY = it is the last
        ("slice_end", "i8"),
        ("since", "i8"),  # when it began to wait for its CPU, or for something to do
        # what it did with its time
        ("mallocs", "i8"),
        ("frees", "i8"),
        ("asked_bytes", "i8"),  # by its mallocs, and what they were given for that
        ("given_bytes", "i8"),
        ("malloc_time", "i8"),
        ("free_time", "i8"),
        ("compute_time", "i8"),
        ("touch_time", "i8"),  # first touches of the program's own
        ("idle_time", "i8"),
        ("queued_time", "i8"),  # ready, and another thread on its CPU
        ("switch_time", "i8"),  # being switched to, or woken
    ],
    align=True,
)

CPU = np.dtype([("running", "i4"), ("head", "i4"), ("tail", "i4")], align=True)  # threads, NOBODY = none

LOCK = np.dtype(
    [
        ("free_at", "i8"),
        ("holds", "i8"),
        ("hold_time", "i8"),
        ("longest_hold", "i8"),
        ("waits", "i8"),
        ("wait_time", "i8"),
        ("longest_wait", "i8"),
    ],
    align=True,
)

LOG = np.dtype(
    [
        ("time", "i8"),  # when the call ended
        ("thread", "i4"),
        ("kind", "i4"),
        ("arg", "i8"),  # the object
        ("took", "i8"),
    ],
    align=True,
)
LOG_MALLOC = 1
LOG_FREE = 2

TABLES: dict[str, Any] = {
    "times": np.int64,  # by thread
    "threads": THREAD,
    "cpus": CPU,
    "locks": LOCK,
    "prices": np.int64,  # picoseconds, by the model's steps
    "histograms": np.int64,  # causes x BUCKETS
    "cause_time": np.int64,
    "cause_max": np.int64,
    "log": LOG,
    "touched": np.uint8,  # 4 KiB pages that memory stands behind, for models whose rooms do not say
}

SCALARS = [
    ("nthreads", "i8"),
    ("first_free_cause", "i8"),
    ("ncauses", "i8"),
    ("handoff", "i8"),  # from a lock's release to the grant of one who waited
    ("slice", "i8"),  # NEVER: threads share no CPU
    ("switch", "i8"),  # from one thread of a CPU to another
    ("closing", "u1"),  # no operation begins any more
    ("hits", "i8"),  # mallocs and frees of the shortest path: each took the same, so that they are only counted
    ("pushes", "i8"),
    ("resident_pages", "i8"),  # bits of ``touched``
    ("log_used", "i8"),
]

CLOCK = header_dtype(SCALARS, TABLES)
clock_type = header_type(CLOCK)

times = table("times", np.int64)
threads = table("threads", THREAD)
cpus = table("cpus", CPU)
locks = table("locks", LOCK)
prices = table("prices", np.int64)
histograms = table("histograms", np.int64)
cause_time = table("cause_time", np.int64)
cause_max = table("cause_max", np.int64)
log = table("log", LOG)
touched = table("touched", np.uint8)


def new_tables(nthreads: int, ncpus: int, nlocks: int, ncauses: int, log_lines: int) -> Tables:
    """Tables of idle threads on CPUs of their own, or pinned to them one after the other; all prices are 0."""
    tables = Tables(CLOCK, TABLES)
    for name in TABLES:
        tables.allocate(name, 1)
    tables.allocate("times", nthreads)[:] = NEVER
    rows = tables.allocate("threads", nthreads)
    rows["stage"] = DONE
    rows["cpu"] = np.arange(nthreads) % ncpus
    rows["next"] = NOBODY
    rows["slice_end"] = NEVER
    queues = tables.allocate("cpus", ncpus)
    for field in ("running", "head", "tail"):
        queues[field] = NOBODY
    tables.allocate("locks", nlocks)
    tables.allocate("histograms", ncauses * BUCKETS)
    tables.allocate("cause_time", ncauses)
    tables.allocate("cause_max", ncauses)
    tables.allocate("log", log_lines + 1)
    tables.fields.nthreads = nthreads
    tables.fields.ncauses = ncauses
    return tables
