"""A recorded Go trace as a workload: what each of its goroutines did, in recorded order, for the timed simulator.

A goroutine is a run of operations (sim/ops.py) cut into *steps*: run the operations up to here, then wait for an
event, fire one, start a goroutine, sleep, call runtime.GC, use more or less of the stack, or carry out deaths
(`Program`). Everything a step waits for stands earlier in the recorded order, so that the program cannot deadlock
whatever order the simulation takes.

- Sizes. Only slots are recorded. A request is its slot (less the malloc header's 8 bytes where there is one), a large
  object all its pages. The objects of a tiny block get sizes that fill its halves as recorded; an object alone in
  its block asks for 16 bytes, which the tiny allocator does not combine.
- Zeroing. The runtime asks for cleared memory except for the bytes of strings and of slices that grow, which it
  announces without a type (malloc.go: callers of mallocgc with typ nil).
- Compute is the recorded time on a P between two operations, less `TRACED_MALLOC`, without stopped worlds, assists
  and sweeping in between: the simulated runtime has its own. First touches of memory by the program are in it, so
  that operations do not ask for them (TOUCH). ``as_traced``: malloc takes as long as the traced one did, so that the
  program allocates at the recorded pace.
- The heap at the start. What the snapshot names is there before the program begins (tracestream_start.py).
- Collections are the simulated runtime's own, but for those that the program asks for (runtime.GC).
- Deaths happen between the last mark an object survived and the mark that missed it (tracestream_deaths.py). An object
  is dropped by the goroutine that runs next; if its own goroutine is simulated later than recorded and has not yet
  allocated it, by that one, right after. Every object that dies has a SHARED variable of its own: to recycle them would
  save 8 bytes a death and let two goroutines in another order than recorded drop each other's objects.
- Stacks reach as far as their growing tells (tracestream_stacks.py).
- Blocking. A blocked goroutine waits for the event that who woke it fires. Woken by nobody known (timers, network,
  the runtime) it wakes after the recorded delay: an *orphan* wake-up.

Left out: the free pages between the spans at the start (the simulated ones are packed); goroutines of
the runtime that allocate nothing, and the CPU time of the others (collector, scavenger, the trace's own); Gosched;
preemption (the simulated scheduler has its own); changes of GOMAXPROCS, GOGC and the
memory limit under way; the P that a blocked system call keeps for a while; mallocs outside any goroutine.
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
from workloads.tracestream_deaths import DRAWN, Allocated, Dying, find_deaths
from workloads.tracestream_items import MALLOC, SLEEP_ORPHAN, Items, find_items
from workloads.tracestream_start import Start, find_start

# What a malloc takes when it is traced, its own 13 ns included: 96 % of two million mallocs of 32 bytes back to back
# were one step of the trace's clock, 64 ns, apart (Go 1.27.3, linux/amd64, Xeon, GOMAXPROCS=1, GOGC=off). The mean is
# 130 to 210 ns: one in a thousand waits some 100 us for a buffer of the trace, and that stays in the compute.
TRACED_MALLOC = 64 * NS
MAX_LENGTH_NS = 1 << 45  # of a trace: ten hours
_OWN_MALLOC = 13 * NS  # of it, what a malloc takes that is not traced
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
    picoseconds, REAP and a point, COLLECT, STACK and bytes, DONE (tracestream_items.py). ``starts``: picoseconds; -1
    where a CREATE starts it. ``names``: the recorded ids.
    ``start``: the heap at the start; ``inherited``: the ALLOC operations of its objects.
    ``deaths``: DEAD operations; ``groups`` of them, those of point k ``points[k]:points[k + 1]``, as (goroutine that
    allocates the objects, its last step that does, start, end); goroutine -1 is who left the inherited ones.
    ``figures``: what the trace says of itself.
    """

    ops: Any
    steps: Any
    first: Any
    starts: Any
    names: Any
    start: Start
    inherited: Any
    deaths: Any
    groups: Any
    points: Any
    events: int
    variables: int
    mallocs: int
    figures: dict[str, int | float]


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
    try:
        check_allocations(trace)
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from error
    return trace


def check_allocations(trace: Trace) -> None:
    """TraceError unless a trace has what a program can be made of."""
    if not trace.has_allocations:
        raise TraceError("the trace holds no allocation events; record it with GODEBUG=traceallocfree=1")
    if not np.any((trace.kind == t.OBJECT_ALLOC) & (trace.g >= 0)):
        raise TraceError("no goroutine of the trace allocates; record a run that does")
    if trace.time_ns[-1] - trace.time_ns[0] > MAX_LENGTH_NS:
        raise TraceError("the trace lasts longer than nine hours; record a shorter run")


def gomaxprocs(trace: Trace) -> int:
    """Ps of the recorded program, from 1 to the 1024 of a scenario."""
    return min(max(trace.gomaxprocs, 1), 1024)


@dataclass(frozen=True, eq=False)
class _Part:
    """What of a trace is run: its first ``rows`` rows with the mallocs at rows ``made``, and the heap it begins with.

    ``mine``: the objects of both, as indices, those of the start first; ``dies``: whether one is freed in these rows;
    ``requests``: what each was asked for as.
    """

    objects: Objects
    start: Start
    made: Any
    rows: int
    mine: Any
    dies: Any
    requests: tuple[Any, Any, Any]


def _part(trace: Trace, mallocs: int | None) -> _Part:
    """The part of a trace up to its so many-th malloc if there is a limit."""
    made = np.flatnonzero((trace.kind == t.OBJECT_ALLOC) & (trace.g >= 0))
    if mallocs is not None:
        made = made[:mallocs]
    whole = mallocs is None or len(made) < mallocs
    rows = len(trace.kind) if whole else int(made[-1]) + 1
    objects = find_objects(trace)
    start = find_start(trace, objects, rows)
    mine = np.concatenate([start.objects, np.searchsorted(objects.row, made)])
    return _Part(objects, start, made, rows, mine, objects.freed[mine] < rows, _requests(trace, objects, mine))


def kept_bytes(trace: Trace, mallocs: int | None = None) -> int:
    """Bytes asked for that are live at the end, by the program or before it began; ``mallocs`` as in `build`."""
    part = _part(trace, mallocs)
    return int(part.requests[0][~part.dies].sum())


def build(
    trace: Trace, mallocs: int | None = None, *, deaths: str = DRAWN, seed: int = 1, as_traced: bool = False
) -> Program:
    """The program of a trace, up to its so many-th malloc if there is a limit; some 1.5 us an event.

    ``deaths``: one of tracestream_deaths.WAYS; ``seed``: of those drawn.
    """
    part = _part(trace, mallocs)
    objects, mine, made, rows, dies, requests = part.objects, part.mine, part.made, part.rows, part.dies, part.requests
    ninherited = len(part.start.objects)
    allocated = Allocated.of(made, requests[0][ninherited:])
    dying = Dying(objects.row[mine], objects.freed[mine], objects.size[mine], objects.block[mine])
    found = find_deaths(trace, rows, allocated, dying, deaths, seed)
    items = find_items(trace, rows, found.rows)
    variable = np.where(dies, np.cumsum(dies) - 1, NO_OBJ)
    ops, alloc_at, end = _operations(
        items, [column[ninherited:] for column in requests], variable[ninherited:], _OWN_MALLOC if as_traced else TRACED_MALLOC
    )
    is_step = items.kind != MALLOC
    steps = np.zeros(int(is_step.sum()), STEP)
    steps["kind"], steps["arg"], steps["end"] = items.kind[is_step], items.arg[is_step], end[is_step]
    first = np.append(0, np.cumsum(np.bincount(items.goroutine[is_step], minlength=len(items.starts))))
    owner = np.append(np.full(ninherited, -1), items.goroutine[items.malloc])
    place = np.append(np.zeros(ninherited, np.int64), alloc_at)
    dead, groups, points = _deaths(found.at, owner[dies], place[dies], steps["end"], len(found.rows))
    return Program(
        ops=ops,
        steps=steps,
        first=first,
        starts=items.starts,
        names=items.names,
        start=part.start,
        inherited=_allocations([column[:ninherited] for column in requests], variable[:ninherited]),
        deaths=dead,
        groups=groups,
        points=points,
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
            "/sim/trace/inherited:objects": ninherited,
            "/sim/trace/frees:objects": len(np.unique(objects.block[mine[dies]])),
        },
    )


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


def _allocations(requests: list[Any], variable: Any) -> Any:
    """ALLOC operations of requests (bytes, pointer bytes, flags); ``variable``: NO_OBJ for what lives on."""
    size, pointers, flags = requests
    ops = np.zeros(len(size), OP)
    ops["kind"], ops["flags"], ops["obj"] = ALLOC, flags + SHARED * (variable >= 0), variable
    ops["arg"], ops["ptr_bytes"] = size, pointers
    return ops


def _operations(items: Items, requests: list[Any], variable: Any, malloc_time: int) -> tuple[Any, Any, Any]:
    """All operations in order of goroutine; where each malloc stands; how many operations each item is the end of."""
    is_malloc = items.kind == MALLOC
    compute = np.maximum(items.compute - malloc_time * is_malloc, 0)
    end = np.cumsum((compute > 0) + is_malloc.astype(np.int64))
    ops = np.zeros(int(end[-1]) if len(end) else 0, OP)
    at = (end - is_malloc - 1)[compute > 0]
    ops["kind"][at], ops["obj"][at], ops["arg"][at] = COMPUTE, NO_OBJ, compute[compute > 0]
    at = end[items.malloc] - 1
    ops[at] = _allocations(requests, variable)
    return ops, at, end


def _deaths(point: Any, owner: Any, alloc_at: Any, ends: Any, npoints: int) -> tuple[Any, Any, Any]:
    """DEAD operations by point and allocating goroutine, the groups they make, and each point's groups."""
    order = np.lexsort((alloc_at, owner, point))
    deaths = np.zeros(len(order), OP)
    deaths["kind"], deaths["flags"], deaths["obj"] = DEAD, SHARED, order
    point, owner, alloc_at = point[order], owner[order], alloc_at[order]
    new = np.ones(len(order), bool)
    new[1:] = (point[1:] != point[:-1]) | (owner[1:] != owner[:-1])
    start = np.flatnonzero(new)
    stop = np.append(start[1:], len(order))[: len(start)]
    last_step = np.searchsorted(ends, alloc_at[stop - 1], "right")
    last_step[owner[start] < 0] = -1
    groups = np.stack([owner[start], last_step, start, stop], axis=1)
    return deaths, groups, np.searchsorted(point[start], np.arange(npoints + 1))
