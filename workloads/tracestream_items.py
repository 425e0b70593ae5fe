"""The events of a recorded trace as each goroutine saw them: in its own order, with its time on a P in between.

An *item* is something one goroutine did or had done to it, such as a malloc, a block or a wake-up. Items are sorted
by goroutine and row of the trace; a wake-up stands at the row of who woke, so that whatever waits, waits for a row
no later than its own. After each item a goroutine runs, is in a system call, or is off the Ps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from sim.units import NS
from workloads import gotrace_model as t
from workloads.gotrace_cycles import in_runtime_gc, memory_stats_stops, recorded_cycles
from workloads.gotrace_model import Trace
from workloads.tracestream_stacks import find_depths

# what an item becomes
DONE = 0  # nothing more: the end of a goroutine
MALLOC = 1
WAIT = 2  # for an event
FIRE = 3  # an event
CREATE = 4  # start a goroutine
SLEEP = 5  # in a system call that lost its P
SLEEP_ORPHAN = 6  # blocked, woken by nobody known
REAP = 7  # carry out the deaths of a point
COLLECT = 8  # runtime.GC
MEM_STATS = 9  # runtime.ReadMemStats
STACK = 10  # frames reach so many bytes
_NOTHING = 255

# what an item is, for the goroutine on the event's M and for the one that the event names
_BY_G: dict[int, int] = {}
_BY_A: dict[int, int] = {}
_ROLES = (
    *("malloc", "block", "stop", "end", "switch", "switch_end", "syscall", "syscall_end", "syscall_blocked"),
    *("assist", "assist_end", "sweep", "sweep_end", "refill", "wake", "create", "collect", "mem_stats", "gc_step", "gc_wait"),
    *("start", "born", "born_blocked", "born_syscall", "woken", "switched_to", "status", "reap", "stack", "done"),
)
_R = {name: number for number, name in enumerate(_ROLES, 1)}
for _kind, _role in (
    *((t.OBJECT_ALLOC, "malloc"), (t.GO_BLOCK, "block"), (t.GO_STOP, "stop"), (t.GO_DESTROY, "end")),
    *((t.GO_DESTROY_SYSCALL, "end"), (t.GO_SWITCH, "switch"), (t.GO_SWITCH_DESTROY, "switch_end")),
    *(
        (t.GO_SYSCALL_BEGIN, "syscall"),
        (t.GO_SYSCALL_END, "syscall_end"),
        (t.GO_SYSCALL_END_BLOCKED, "syscall_blocked"),
    ),
    *((t.ASSIST_BEGIN, "assist"), (t.ASSIST_END, "assist_end"), (t.SWEEP_BEGIN, "sweep"), (t.SWEEP_END, "sweep_end")),
    *((t.SPAN_ALLOC, "refill"), (t.HEAP_ALLOC, "refill")),
    *(
        (t.GO_UNBLOCK, "wake"),
        (t.GO_CREATE, "create"),
        (t.GO_CREATE_BLOCKED, "create"),
        (t.GO_CREATE_SYSCALL, "create"),
    ),
):
    _BY_G[_kind] = _R[_role]
for _kind, _role in (
    *((t.GO_START, "start"), (t.GO_CREATE, "born"), (t.GO_CREATE_BLOCKED, "born_blocked")),
    *((t.GO_CREATE_SYSCALL, "born_syscall"), (t.GO_UNBLOCK, "woken"), (t.GO_SWITCH, "switched_to")),
    *((t.GO_SWITCH_DESTROY, "switched_to"), (t.GO_STATUS, "status"), (t.ASSIST_ACTIVE, "assist")),
):
    _BY_A[_kind] = _R[_role]

_RUNNABLE, _RUNNING, _SYSCALL, _WAITING = 1, 2, 3, 4  # GO_STATUS
_GC_WAITS = ("GC mark assist wait for work", "wait until GC ends")  # reasons of blocks that a simulated collector has its own of
_OF_RUNTIME = ("runtime.", "runtime/trace.")  # start functions; runtime.main is the program's


@dataclass(frozen=True, eq=False)
class Items:
    """What becomes something, in order of goroutine and row.

    ``kind`` and ``arg``: see `workloads.tracestream.Program`; ``compute``: picoseconds on a P since the goroutine's
    item before; ``goroutine``: its number. ``malloc``: the items that are mallocs, in order of the trace's rows.
    ``starts`` and ``names`` by goroutine. ``events``: how many are waited for. ``strays``: wake-ups of goroutines
    that were not blocked. ``left_out``: goroutines.
    """

    kind: Any
    arg: Any
    compute: Any
    goroutine: Any
    malloc: Any
    starts: Any
    names: Any
    events: int
    strays: int
    left_out: int


def _is(role: Any, *names: str) -> Any:
    return np.isin(role, [_R[name] for name in names])


def of_runtime(trace: Trace) -> Any:
    """Ids of the goroutines of the runtime: known by the function they start with, or a label of the collector."""
    texts = trace.strings
    ours = np.array([name.startswith(_OF_RUNTIME) and name != "runtime.main" for name in texts], bool)
    start, end = trace.stack_start[:-1], trace.stack_start[1:]
    outermost = np.zeros(len(start), bool)
    full = end > start
    outermost[full] = ours[trace.frame_func[end[full] - 1]]
    kind = trace.kind
    created = np.isin(kind, (t.GO_CREATE, t.GO_CREATE_BLOCKED, t.GO_CREATE_SYSCALL))
    there = kind == t.GO_STATUS
    parked = (kind == t.GO_BLOCK) | (kind == t.GO_STOP)
    in_table = created & (trace.b >= 0) & (trace.b < len(outermost))
    labels = np.array([text.startswith("GC (") for text in texts], bool)
    labelled = np.flatnonzero(kind == t.GO_LABEL)
    found = [
        trace.a[in_table][outermost[trace.b[in_table]]],
        trace.a[there][outermost[trace.stack[there]]],
        np.setdiff1d(trace.g[parked][outermost[trace.stack[parked]]], trace.a[created]),
        trace.g[labelled[labels[trace.a[labelled]]]],
    ]
    return np.unique(np.concatenate(found))


def _program_time(trace: Trace, rows: int) -> Any:
    """Nanoseconds since the trace's start at each row, without those in which the world was being or was stopped."""
    kind = trace.kind[:rows]
    marks = np.flatnonzero((kind == t.STW_BEGIN) | (kind == t.STW_END))
    pairs = np.flatnonzero((kind[marks[:-1]] == t.STW_BEGIN) & (kind[marks[1:]] == t.STW_END))
    change = np.zeros(rows, np.int64)
    change[marks[pairs]] += 1
    change[marks[pairs + 1]] -= 1
    steps = np.diff(trace.time_ns[:rows], prepend=trace.time_ns[0])
    steps[1:][np.cumsum(change)[:-1] > 0] = 0
    return np.cumsum(steps)


def _collect(trace: Trace, rows: int) -> tuple[Any, Any, Any]:
    """Row, id of the goroutine and role of every item, by row.

    What a goroutine does in runtime.GC, or waits for in an assist, is the collector's: it is off the Ps meanwhile.
    """
    kind, g, a = trace.kind[:rows], trace.g[:rows], trace.a[:rows]
    by_g, by_a = np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    by_g[list(_BY_G)], by_a[list(_BY_A)] = list(_BY_G.values()), list(_BY_A.values())
    role = by_g[kind]
    role[(kind == t.SPAN_ALLOC) & (trace.c[:rows] & 1 == 1)] = 0  # of a stack, or the runtime's own
    in_gc = in_runtime_gc(trace)[:rows]
    parks = (kind == t.GO_BLOCK) | (kind == t.GO_STOP)
    waits = np.isin(a, [i for i, text in enumerate(trace.strings) if text in _GC_WAITS])
    role[parks & in_gc] = _R["gc_step"]
    role[(kind == t.GO_BLOCK) & waits & ~in_gc] = _R["gc_wait"]
    role[memory_stats_stops(trace, rows)] = _R["mem_stats"]
    forced = np.array([one.stop for one in recorded_cycles(trace) if one.forced and one.stop < rows], np.int64)
    role[forced] = _R["collect"]
    own = np.flatnonzero((role > 0) & (g >= 0))
    named = np.flatnonzero((by_a[kind] > 0) & (a >= 0) & ((a != g) | (by_g[kind] == 0)))
    row = np.concatenate([own, named])
    return row, np.concatenate([g[own], a[named]]), np.concatenate([role[own], by_a[kind[named]]])


@dataclass(eq=False)
class _Sorted:
    """The items of the goroutines that are kept, by goroutine and row, with those of deaths and of stacks."""

    row: Any
    goroutine: Any  # its number, by first appearance
    role: Any
    value: Any  # of a reap its point, of a stack its bytes
    ids: Any  # of the goroutines, by number
    runtime: Any  # whether a goroutine is the runtime's
    left_out: int

    @property
    def head(self) -> Any:
        """Whether an item is its goroutine's first."""
        head = np.ones(len(self.row), bool)
        head[1:] = self.goroutine[1:] != self.goroutine[:-1]
        return head

    @property
    def tail(self) -> Any:
        """Whether an item is its goroutine's last."""
        return np.append(self.head[1:], True)


def _kept(trace: Trace, rows: int) -> tuple[Any, Any, Any, Any, int]:
    """Row, goroutine and role of the items that matter; ids of goroutines of the runtime; how many are left out."""
    row, subject, role = _collect(trace, rows)
    runtime = of_runtime(trace)
    last_malloc = np.full(len(runtime), -1)
    theirs = np.isin(subject, runtime)
    place = np.searchsorted(runtime, subject[theirs])
    mallocs = role[theirs] == _R["malloc"]
    np.maximum.at(last_malloc, place[mallocs], row[theirs][mallocs])
    keep = ~theirs
    keep[theirs] = row[theirs] <= last_malloc[place]  # what they do after their last malloc concerns nobody
    left_out = int((last_malloc[np.isin(runtime, subject)] < 0).sum())
    return row[keep], subject[keep], role[keep], runtime, left_out


def _by_appearance(row: Any, subject: Any, rows: int) -> tuple[Any, Any]:
    """The goroutines' ids in the order of their first rows, and the number there of each item's."""
    ids, number = np.unique(subject, return_inverse=True)
    first = np.full(len(ids), rows)
    np.minimum.at(first, number, row)
    by_time = np.lexsort((ids, first))
    place = np.empty_like(by_time)
    place[by_time] = np.arange(len(ids))
    return ids[by_time], place[number]


def _sort(trace: Trace, rows: int, reaps: Any) -> _Sorted:
    """Sort the items; add an end for each goroutine, the deaths of each point, and how far stacks reach.

    Deaths stand right after the last thing that the program does up to their point.
    """
    row, subject, role, runtime, left_out = _kept(trace, rows)
    ids, number = _by_appearance(row, subject, rows)
    active = np.flatnonzero((role < _R["start"]) & ~np.isin(ids, runtime)[number])
    if not len(active):
        active = np.arange(len(row))
    active = active[np.argsort(row[active], kind="stable")]
    at = active[np.maximum(np.searchsorted(row[active], reaps, "right") - 1, 0)]
    last = np.zeros(len(ids), np.int64)
    np.maximum.at(last, number, row)
    deep_row, deep_g, deep = find_depths(trace, rows)
    sorter = np.argsort(ids)
    deep_number = sorter[np.minimum(np.searchsorted(ids, deep_g, sorter=sorter), len(ids) - 1)]
    known = (ids[deep_number] == deep_g) & ~np.isin(deep_g, runtime) & (deep_row < last[deep_number])
    deep_row, deep_number, deep = deep_row[known], deep_number[known], deep[known]
    added = np.repeat([_R["reap"], _R["stack"], _R["done"]], [len(at), len(deep), len(ids)])
    value = np.concatenate([np.full(len(row), -1), np.arange(len(at)), deep, np.full(len(ids), -1)])
    phase = np.concatenate([np.zeros(len(row), np.int64), added - _R["reap"] + 1])
    role = np.concatenate([role, added.astype(role.dtype)])
    number = np.concatenate([number, number[at], deep_number, np.arange(len(ids))])
    row = np.concatenate([row, row[at], deep_row, last])
    order = np.argsort((number * rows + row) * 4 + phase, kind="stable")
    first = np.append(True, np.diff(number[order]) != 0)
    order = order[first | (role[order] != _R["status"])]  # later generations tell a goroutine's state again
    return _Sorted(row[order], number[order], role[order], value[order], ids, np.isin(ids, runtime), left_out)


def _last(mark: Any) -> Any:
    """For each item the last one up to it that is marked; 0 if none is."""
    return np.maximum.accumulate(np.where(mark, np.arange(len(mark)), 0))


def _compute(trace: Trace, rows: int, items: _Sorted) -> Any:
    """Picoseconds on a P from each item to the goroutine's next."""
    role, head, tail = items.role, items.head, items.tail
    status = np.where(role == _R["status"], trace.c[items.row], 0)
    runs = _is(role, "start", "switched_to", "malloc", "syscall_end", "wake", "create")
    runs |= _is(role, "assist", "assist_end", "sweep", "sweep_end", "refill") | (status == _RUNNING)
    in_call = _is(role, "syscall", "born_syscall") | (status == _SYSCALL)
    real = _last(~_is(role, "reap", "stack"))
    runs, in_call = runs[real], in_call[real]
    returns = np.append(role[1:] == _R["syscall_end"], False)
    in_gc = np.append(role[1:] == _R["gc_step"], False)
    mallocs = np.append(_is(role, "malloc", "refill")[1:], False) & (role == _R["refill"])
    counted = (runs | (in_call & returns)) & ~in_gc & ~mallocs & ~tail & ~items.runtime[items.goroutine]
    for begin, ends in (("assist", ("assist_end",)), ("sweep", ("sweep_end", "start", "stop", "block"))):
        begins = role == _R[begin]
        counted &= ~begins[_last(begins | _is(role, *ends) | head)]
    time = _program_time(trace, rows)[items.row]
    return np.where(counted, np.diff(time, append=0), 0) * NS


def _waits(trace: Trace, items: _Sorted) -> tuple[Any, Any, int]:
    """Since which row each wake-up's goroutine was blocked, -1 where the item is none; strays."""
    role, head = items.role, items.head
    waiting = (role == _R["status"]) & (trace.c[items.row] == _WAITING)
    blocks = _is(role, "block", "switch", "born_blocked") | waiting
    of_gc = _is(role, "gc_step", "gc_wait")  # the simulated collector has wake-ups of its own
    wakes = _is(role, "woken", "switched_to")
    before = np.append(0, _last(blocks | wakes | head | of_gc)[:-1])
    blocked = wakes & ~head & blocks[before]
    since = np.where(blocked, items.row[before], -1)
    since[wakes & head] = 0  # nothing is known of it: it was blocked from the start
    return since, wakes & (since >= 0), int((wakes & (since < 0) & ~of_gc[before]).sum())


def _start_times(trace: Trace, items: _Sorted) -> tuple[Any, Any]:
    """Picoseconds at which each goroutine starts, -1 where another starts it, and the row at which it does, or -1."""
    head = np.flatnonzero(items.head)
    row, role = items.row[head], items.role[head]
    time = (trace.time_ns[row] - trace.time_ns[0]) * NS
    time[_is(role, "status", "woken")] = 0
    born = np.flatnonzero(_is(role, "born", "born_blocked", "born_syscall"))
    parents = born[_acts(items, trace.g[row[born]])]
    by = np.full(len(head), -1)
    by[parents] = row[parents]
    time[parents] = -1
    return time, by


def _acts(items: _Sorted, ids: Any) -> Any:
    """Whether goroutines of these ids do something for others: kept ones that are not the runtime's."""
    return np.isin(ids, items.ids[~items.runtime])


def _become(trace: Trace, items: _Sorted) -> tuple[Any, Any]:
    """What each item becomes by itself, and its number: mallocs, deaths, ends, and system calls that lost their P."""
    role, row = items.role, items.row
    kind = np.full(len(role), _NOTHING, np.uint8)
    arg = np.zeros(len(role), np.int64)
    kind[role == _R["done"]] = DONE
    kind[role == _R["malloc"]] = MALLOC
    for name, becomes in (("reap", REAP), ("stack", STACK)):
        mine = role == _R[name]
        kind[mine], arg[mine] = becomes, items.value[mine]
    kind[role == _R["collect"]] = COLLECT
    kind[role == _R["mem_stats"]] = MEM_STATS
    there = (role == _R["status"]) & (trace.c[row] == _SYSCALL)
    called = _last(_is(role, "syscall", "born_syscall") | there | items.head)
    returns = role == _R["syscall_blocked"]
    kind[returns], arg[returns] = SLEEP, (trace.time_ns[row] - trace.time_ns[row[called]])[returns] * NS
    return kind, arg


def _pair(trace: Trace, items: _Sorted, kind: Any, arg: Any) -> tuple[int, int]:
    """Enter who waits for whom: the number of events that are waited for, and the wake-ups of who was not blocked."""
    role, row = items.role, items.row
    since, wakes, strays = _waits(trace, items)
    paired = wakes & _acts(items, trace.g[row]) & (trace.g[row] != trace.a[row])
    orphans = wakes & ~paired
    kind[orphans], arg[orphans] = SLEEP_ORPHAN, (trace.time_ns[row] - trace.time_ns[since])[orphans] * NS
    waited = np.sort(row[paired])
    kind[paired], arg[paired] = WAIT, np.searchsorted(waited, row[paired])
    fires = np.flatnonzero(_is(role, "wake", "switch", "switch_end") & np.isin(row, waited))
    kind[fires], arg[fires] = FIRE, np.searchsorted(waited, row[fires])
    return len(waited), strays


def _give_birth(trace: Trace, items: _Sorted, kind: Any, arg: Any) -> Any:
    """Enter who starts whom; picoseconds at which the others start, -1 for those started."""
    starts, by = _start_times(trace, items)
    births = np.flatnonzero(by >= 0)
    births = births[np.argsort(by[births])]
    creates = np.flatnonzero((items.role == _R["create"]) & np.isin(items.row, by[births]))
    kind[creates], arg[creates] = CREATE, births[np.searchsorted(by[births], items.row[creates])]
    return starts


def find_items(trace: Trace, rows: int, reaps: Any) -> Items:
    """The items of a trace's first rows that become something; ``reaps``: the rows at which deaths are carried out."""
    items = _sort(trace, rows, reaps)
    kind, arg = _become(trace, items)
    events, strays = _pair(trace, items, kind, arg)
    starts = _give_birth(trace, items, kind, arg)
    spent = np.append(0, np.cumsum(_compute(trace, rows, items))[:-1])  # up to each item, over all goroutines
    found = np.flatnonzero(kind != _NOTHING)
    goroutine = items.goroutine[found]
    before = np.append(0, spent[found][:-1])
    firsts = np.flatnonzero(np.append(True, np.diff(goroutine) != 0))
    before[firsts] = spent[items.head][goroutine[firsts]]
    mallocs = np.flatnonzero(kind[found] == MALLOC)
    return Items(
        kind=kind[found],
        arg=arg[found],
        compute=spent[found] - before,
        goroutine=goroutine,
        malloc=mallocs[np.argsort(items.row[found[mallocs]])],
        starts=starts,
        names=items.ids,
        events=events,
        strays=strays,
        left_out=items.left_out,
    )
