"""A recorded Go trace as a workload: what each of its goroutines did, in recorded order, for the timed simulator.

A goroutine is a run of operations (sim/ops.py) cut into *steps*: run the operations up to here, then wait for an
event, fire one, start a goroutine, sleep, or carry out a collection's deaths (`Program`). Everything a step waits for
stands earlier in the recorded order, so that the program cannot deadlock whatever order the simulation takes.

- Sizes. Only slots are recorded. A request is its slot (less the malloc header's 8 bytes where there is one), a large
  object all its pages. The objects of a tiny block get sizes that fill its halves as recorded; an object alone in
  its block asks for 16 bytes, which the tiny allocator does not combine.
- Zeroing. The runtime asks for cleared memory except for the bytes of strings and of slices that grow, which it
  announces without a type (malloc.go: callers of mallocgc with typ nil).
- Compute is the recorded time on a P between two operations, less `TRACED_MALLOC`, without stopped worlds, assists
  and sweeping in between: the simulated runtime has its own. First touches of memory by the program are in it, so
  that operations do not ask for them (TOUCH).
- Deaths. An object freed by the sweep after a cycle was dead at the end of that cycle's mark. It is dropped there, by
  the goroutine that runs next; if its own goroutine is simulated later than recorded and has not yet allocated it, by
  that one, right after. Every object that dies has a SHARED variable of its own: to recycle them would save 8 bytes
  a death and let two goroutines in another order than recorded drop each other's objects.
- Blocking. A blocked goroutine waits for the event that who woke it fires. Woken by nobody known (timers, network,
  the runtime) it wakes after the recorded delay: an *orphan* wake-up.

Left out: the heap at the trace's start (the simulated one is empty) and its objects' deaths; how deep stacks were: each
goroutine uses little of its own; goroutines of the runtime that allocate nothing, and the CPU time of the others
(collector, scavenger, the trace's own); Gosched; preemption (the simulated scheduler has its own); the P that a blocked
system call keeps for a while; mallocs outside any goroutine. Sweeping inside runtime.GC is recorded as no range: it counts
as compute.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from sim.go.sizeclasses import MIN_SIZE_FOR_MALLOC_HEADER
from sim.go.state import TINY_SPAN_CLASS
from sim.ops import ALLOC, COMPUTE, DEAD, NEEDZERO, NO_OBJ, NOSCAN, OP, SHARED
from sim.units import NS
from workloads import gotrace_model as t
from workloads.gotrace import read_trace
from workloads.gotrace_model import Trace, TraceError
from workloads.gotrace_objects import ID_BYTES, Objects, find_objects
from workloads.tracestream_items import MALLOC, SLEEP_ORPHAN, Items, find_items

# What a malloc takes when it is traced, its own 13 ns included: 96 % of two million mallocs of 32 bytes back to back
# were one step of the trace's clock, 64 ns, apart (Go 1.27.3, linux/amd64, Xeon, GOMAXPROCS=1, GOGC=off). The mean is
# 130 to 210 ns: one in a thousand waits some 100 us for a buffer of the trace, and that stays in the compute.
TRACED_MALLOC = 64 * NS
MAX_LENGTH_NS = 1 << 45  # of a trace: ten hours
_HEADER = 8  # bytes of a malloc header
_TINY_BLOCK = 16
_MAX_REQUEST = 1 << 40

STEP = np.dtype([("kind", "u1"), ("arg", "i8"), ("end", "i8")])  # what to do after ops[:end]; arg as the kind says

RECORDED = "/sim/trace/recorded:seconds"
ORPHANS = "/sim/trace/orphan-wakeups:events"


@dataclass(frozen=True, eq=False)
class Program:
    """Goroutines, numbered by when they first appear. Goroutine i has steps ``first[i]:first[i + 1]``.

    ``ops``: sim.ops.OP of all goroutines, each one's together; a step runs from the last one's ``end`` to its own.
    ``steps``: kind and arg are WAIT or FIRE and an event, CREATE and a goroutine, SLEEP or SLEEP_ORPHAN and
    picoseconds, REAP and a cycle, DONE (tracestream_items.py). ``starts``: picoseconds; -1 where a CREATE starts it.
    ``names``: the recorded ids.
    ``deaths``: DEAD operations; ``groups`` of them, those of cycle k ``cycles[k]:cycles[k + 1]``, as (goroutine that
    allocates the objects, its last step that does, start, end). ``figures``: what the trace says of itself.
    """

    ops: Any
    steps: Any
    first: Any
    starts: Any
    names: Any
    deaths: Any
    groups: Any
    cycles: Any
    events: int
    variables: int
    mallocs: int
    figures: dict[str, int | float]

    @property
    def kept(self) -> int:
        """Bytes asked for that were live at the end."""
        return int(self.ops["arg"][(self.ops["kind"] == ALLOC) & (self.ops["obj"] == NO_OBJ)].sum())


def read(path: str) -> Trace:
    """The trace of a file, read once as long as the file is the same. TraceError, one line, if it cannot be run."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise TraceError(f"{path}: is not a plain file; name a recorded execution trace")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise TraceError(f"{path}: cannot be read: {why}") from error
    return _read(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1)
def _read(path: str, _changed: int, _size: int) -> Trace:
    trace = read_trace(Path(path))
    if not trace.has_allocations:
        raise TraceError(f"{path}: the trace holds no allocation events; record it with GODEBUG=traceallocfree=1")
    if not np.any((trace.kind == t.OBJECT_ALLOC) & (trace.g >= 0)):
        raise TraceError(f"{path}: no goroutine of the trace allocates; record a run that does")
    if trace.time_ns[-1] - trace.time_ns[0] > MAX_LENGTH_NS:
        raise TraceError(f"{path}: the trace lasts longer than nine hours; record a shorter run")
    return trace


def gomaxprocs(trace: Trace) -> int:
    """Ps of the recorded program, from 1 to the 1024 of a scenario."""
    return min(max(trace.gomaxprocs, 1), 1024)


def build(trace: Trace, mallocs: int | None = None) -> Program:
    """The program of a trace, up to its so many-th malloc if there is a limit; some 1.5 us an event."""
    made = np.flatnonzero((trace.kind == t.OBJECT_ALLOC) & (trace.g >= 0))
    if mallocs is not None:
        made = made[:mallocs]
    whole = mallocs is None or len(made) < mallocs
    rows = len(trace.kind) if whole else int(made[-1]) + 1
    objects = find_objects(trace)
    mine = np.searchsorted(objects.row, made)
    dies = objects.freed[mine] < rows
    ends = _mark_ends(trace, rows, objects.freed[mine][dies])
    items = find_items(trace, rows, ends)
    ops, alloc_at, end = _operations(trace, items, objects, mine, dies)
    is_step = items.kind != MALLOC
    steps = np.zeros(int(is_step.sum()), STEP)
    steps["kind"], steps["arg"], steps["end"] = items.kind[is_step], items.arg[is_step], end[is_step]
    first = np.append(0, np.cumsum(np.bincount(items.goroutine[is_step], minlength=len(items.starts))))
    cycle = np.searchsorted(ends, objects.freed[mine][dies], "right") - 1
    owner = items.goroutine[items.malloc][dies]
    deaths, groups, cycles = _deaths(cycle, owner, alloc_at[dies], steps["end"], len(ends))
    blocks = objects.block[mine][dies]
    return Program(
        ops=ops,
        steps=steps,
        first=first,
        starts=items.starts,
        names=items.names,
        deaths=deaths,
        groups=groups,
        cycles=cycles,
        events=items.events,
        variables=int(dies.sum()),
        mallocs=len(made),
        figures={
            RECORDED: int(trace.time_ns[rows - 1] - trace.time_ns[0]) / 1e9,
            ORPHANS: int((steps["kind"] == SLEEP_ORPHAN).sum()),
            "/sim/trace/stray-wakeups:events": items.strays,
            "/sim/trace/goroutines:goroutines": len(items.starts),
            "/sim/trace/left-out:goroutines": items.left_out,
            "/sim/trace/left-out/mallocs:objects": int(
                ((trace.kind == t.OBJECT_ALLOC)[:rows] & (trace.g[:rows] < 0)).sum()
            ),
            "/sim/trace/unknown-size/mallocs:objects": int((objects.size[mine] == 0).sum()),
            "/sim/trace/frees:objects": len(np.unique(blocks)),
        },
    )


def _mark_ends(trace: Trace, rows: int, freed: Any) -> Any:
    """Rows at which marks ended; the first free counts as one if there was none before."""
    ends = np.flatnonzero(trace.kind[:rows] == t.GC_END)
    early = freed[freed < ends[0]] if len(ends) else freed
    return np.append(early.min(), ends) if len(early) else ends


def _requests(trace: Trace, objects: Objects, mine: Any) -> tuple[Any, Any, Any]:
    """Bytes, pointer bytes and flags of each malloc."""
    size, spanclass = objects.size[mine], objects.spanclass[mine]
    noscan = (spanclass & 1 == 1) | (size == 0)
    header = ~noscan & (size > MIN_SIZE_FOR_MALLOC_HEADER) & (spanclass >= 2)
    size = np.where(size == 0, _TINY_BLOCK, size - _HEADER * header)
    tiny = np.flatnonzero(spanclass == TINY_SPAN_CLASS)
    size[tiny] = _tiny_sizes(objects.block[mine][tiny], objects.offset[mine][tiny])
    size = np.minimum(size, _MAX_REQUEST)
    kind = trace.b[objects.row[mine]]
    element, pointers = trace.type_size[kind], trace.type_ptr_bytes[kind]
    known = (element > 0) & (element <= size) & (pointers > 0) & (pointers <= element)
    whole = size // np.maximum(element, 1)
    pointers = np.where(noscan, 0, np.where(known, (whole - 1) * element + pointers, size))
    return size, pointers, NOSCAN * noscan + NEEDZERO * (kind != 0)


def _tiny_sizes(block: Any, offset: Any) -> Any:
    """Sizes that make the tiny allocator fill its blocks as recorded: so many objects from each half on."""
    _, block = np.unique(block, return_inverse=True)
    late = (offset >= ID_BYTES).astype(np.int64)
    count = np.bincount(2 * block + late, minlength=2 * len(block)).reshape(-1, 2)
    late[count[block, 0] == 0] = 0  # of a block begun before the trace
    half = 2 * block + late
    count = np.bincount(half, minlength=2 * len(block))
    order = np.argsort(half, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - (np.cumsum(count) - count)[half[order]]
    room = np.where(count[half | 1] > 0, _TINY_BLOCK // 2, _TINY_BLOCK)
    n = count[half]
    unit = np.where(n <= 4, 2, 1)
    return np.where(rank < n - 1, unit, np.maximum(room - unit * (n - 1), 1))


def _operations(trace: Trace, items: Items, objects: Objects, mine: Any, dies: Any) -> tuple[Any, Any, Any]:
    """All operations in order of goroutine; where each malloc stands; how many operations each item is the end of."""
    is_malloc = items.kind == MALLOC
    compute = np.maximum(items.compute - TRACED_MALLOC * is_malloc, 0)
    end = np.cumsum((compute > 0) + is_malloc.astype(np.int64))
    ops = np.zeros(int(end[-1]) if len(end) else 0, OP)
    at = (end - is_malloc - 1)[compute > 0]
    ops["kind"][at], ops["obj"][at], ops["arg"][at] = COMPUTE, NO_OBJ, compute[compute > 0]
    at = end[items.malloc] - 1
    size, pointers, flags = _requests(trace, objects, mine)
    variable = np.where(dies, np.cumsum(dies) - 1, NO_OBJ)
    ops["kind"][at], ops["flags"][at], ops["obj"][at] = ALLOC, flags + SHARED * dies, variable
    ops["arg"][at], ops["ptr_bytes"][at] = size, pointers
    return ops, at, end


def _deaths(cycle: Any, owner: Any, alloc_at: Any, ends: Any, ncycles: int) -> tuple[Any, Any, Any]:
    """DEAD operations by cycle and allocating goroutine, the groups they make, and each cycle's groups."""
    order = np.lexsort((alloc_at, owner, cycle))
    deaths = np.zeros(len(order), OP)
    deaths["kind"], deaths["flags"], deaths["obj"] = DEAD, SHARED, order
    cycle, owner, alloc_at = cycle[order], owner[order], alloc_at[order]
    new = np.ones(len(order), bool)
    new[1:] = (cycle[1:] != cycle[:-1]) | (owner[1:] != owner[:-1])
    start = np.flatnonzero(new)
    stop = np.append(start[1:], len(order))[: len(start)]
    last_step = np.searchsorted(ends, alloc_at[stop - 1], "right")
    groups = np.stack([owner[start], last_step, start, stop], axis=1)
    return deaths, groups, np.searchsorted(cycle[start], np.arange(ncycles + 1))
