"""Go execution traces with allocation events, as columns: :func:`read_trace`, :func:`save`, :func:`load`.

A trace is recorded by Go 1.22 to 1.27 with ``GODEBUG=traceallocfree=1``, by ``go test -trace`` or runtime/trace.
Reading needs no Go: bytes and batches (gotrace_bytes), tables (gotrace_tables), then for each generation the compiled
merge (gotrace_order). Without allocation events a trace reads too; :attr:`Trace.has_allocations` tells.

Limits: 4 GiB of raw trace, :data:`MAX_EVENTS` events (some 60 bytes each in memory). A damaged file is refused with
a TraceError of one line, never read in part. Left out: CPU samples and user annotations (counted in ``skipped``),
the formats before Go 1.22. Mirrors internal/trace/reader.go.
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from sim.jit import Tables, address_of
from workloads import gotrace_order as order
from workloads import gotrace_wire as wire
from workloads.gotrace_bytes import Batches, read_batches, record_array
from workloads.gotrace_file import MAGIC, load, save
from workloads.gotrace_merge import merge
from workloads.gotrace_model import (
    ASSIST_ACTIVE,
    ASSIST_BEGIN,
    ASSIST_END,
    EVENT_COLUMNS,
    GC_ACTIVE,
    GC_BEGIN,
    GC_END,
    GO_BLOCK,
    GO_CREATE,
    GO_CREATE_BLOCKED,
    GO_CREATE_SYSCALL,
    GO_DESTROY,
    GO_DESTROY_SYSCALL,
    GO_LABEL,
    GO_START,
    GO_STATUS,
    GO_STOP,
    GO_SWITCH,
    GO_SWITCH_DESTROY,
    GO_SYSCALL_BEGIN,
    GO_SYSCALL_END,
    GO_SYSCALL_END_BLOCKED,
    GO_UNBLOCK,
    GOMAXPROCS,
    HEAP_ALLOC,
    HEAP_GOAL,
    KIND_NAMES,
    OBJECT,
    OBJECT_ALLOC,
    OBJECT_FREE,
    PROC_START,
    PROC_STATUS,
    PROC_STEAL,
    PROC_STOP,
    SPAN,
    SPAN_ALLOC,
    SPAN_FREE,
    STACK,
    STACK_ALLOC,
    STACK_FREE,
    STW_BEGIN,
    STW_END,
    SWEEP_ACTIVE,
    SWEEP_BEGIN,
    SWEEP_END,
    Trace,
    TraceError,
)
from workloads.gotrace_tables import Batch, IdTables

__all__ = [
    "ASSIST_ACTIVE",
    "ASSIST_BEGIN",
    "ASSIST_END",
    "GC_ACTIVE",
    "GC_BEGIN",
    "GC_END",
    "GOMAXPROCS",
    "GO_BLOCK",
    "GO_CREATE",
    "GO_CREATE_BLOCKED",
    "GO_CREATE_SYSCALL",
    "GO_DESTROY",
    "GO_DESTROY_SYSCALL",
    "GO_LABEL",
    "GO_START",
    "GO_STATUS",
    "GO_STOP",
    "GO_SWITCH",
    "GO_SWITCH_DESTROY",
    "GO_SYSCALL_BEGIN",
    "GO_SYSCALL_END",
    "GO_SYSCALL_END_BLOCKED",
    "GO_UNBLOCK",
    "HEAP_ALLOC",
    "HEAP_GOAL",
    "KIND_NAMES",
    "MAX_EVENTS",
    "OBJECT",
    "OBJECT_ALLOC",
    "OBJECT_FREE",
    "PROC_START",
    "PROC_STATUS",
    "PROC_STEAL",
    "PROC_STOP",
    "SPAN",
    "SPAN_ALLOC",
    "SPAN_FREE",
    "STACK",
    "STACK_ALLOC",
    "STACK_FREE",
    "STW_BEGIN",
    "STW_END",
    "SWEEP_ACTIVE",
    "SWEEP_BEGIN",
    "SWEEP_END",
    "Trace",
    "TraceError",
    "load",
    "read_trace",
    "save",
]

MAX_EVENTS = 100_000_000
_MAX_THREADS = 1 << 20
_WORK = 1 << 25  # steps of sorting for a whole trace, and 64 more for each of its events
_HAS_END_MARK = 26  # generations end with a mark since Go 1.26
_CLOCK_SNAPSHOT = 25  # the frequency stands in a sync batch since Go 1.25

_SKIPPED = {
    wire.USER_TASK_BEGIN: "user_task_begin",
    wire.USER_TASK_END: "user_task_end",
    wire.USER_REGION_BEGIN: "user_region_begin",
    wire.USER_REGION_END: "user_region_end",
    wire.USER_LOG: "user_log",
}
_CREATES_G = [wire.GO_CREATE, wire.GO_CREATE_SYSCALL, wire.GO_CREATE_BLOCKED, wire.GO_STATUS, wire.GO_STATUS_STACK]


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Read a trace: raw, .xz, or a file that :func:`save` wrote, told apart by their first bytes.

    Raises TraceError, one line: the file, the byte (of the raw trace) and what is wrong there.
    """
    source = Path(path)
    try:
        with open(source, "rb") as file:
            saved = file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise TraceError(f"{source}: cannot be read: {error.strerror or error}") from error
    if saved:
        return load(source)
    return _Reading(source, read_batches(source)).run()


class _Reading:
    """One trace on its way from batches to columns."""

    def __init__(self, path: Path, batches: Batches) -> None:
        self.path = path
        self.version, self.data, self.table = batches
        self.ids = IdTables(path)
        self.unknown: dict[str, int] = {}
        self.skipped: dict[str, int] = {}
        self.sync = wire.SYNC if self.version >= _CLOCK_SNAPSHOT else wire.FREQUENCY
        self.first_byte = np.zeros(len(self.table), np.int64)  # of a batch's events; 0: empty or of an experiment
        plain = (self.table["length"] > 0) & (self.table["exp"] == 0)
        self.first_byte[plain] = self.data[self.table["off"][plain]]
        self.tables = Tables(order.HEADER, order.TABLES)

    def run(self) -> Trace:
        """All generations in turn."""
        generations = self._generations()
        structural = (0, wire.STRINGS, wire.STACKS, wire.CPU_SAMPLES, self.sync)
        holds_events = ~np.isin(self.first_byte, structural)
        self._allocate(self._count(self.table[holds_events]), np.unique(self.table["m"][holds_events]))
        starts = []
        for rows in generations:
            starts.append(int(self.tables.fields.out))
            self._generation(rows, rows[holds_events[rows]])
        return self._trace([int(self.table["gen"][rows[0]]) for rows in generations], starts)

    def _fail(self, at: int, what: str) -> TraceError:
        return TraceError(f"{self.path}: at byte {at}: {what}")

    def _generations(self) -> list[Any]:
        """The rows of each generation in the table of batches."""
        is_mark = self.table["exp"] == wire.END_MARK
        numbers = self.table["gen"]
        if self.version >= _HAS_END_MARK:
            if not len(is_mark) or not is_mark[-1]:
                raise self._fail(len(self.data), "the trace is cut off: its last generation has no end")
            edges = np.concatenate(([0], np.flatnonzero(is_mark) + 1))
        else:
            if np.any(is_mark):
                raise self._fail(self.table["head"][np.argmax(is_mark)], wire.REASONS[wire.BAD_BATCH])
            edges = np.concatenate(([0], np.flatnonzero(np.diff(numbers)) + 1, [len(numbers)]))
        found: list[Any] = []
        last = 0
        for low, high in pairwise(edges):
            rows = np.arange(low, high)
            rows = rows[~is_mark[rows]]
            if not len(rows):
                continue
            wrong = (numbers[rows] != numbers[rows[0]]) | (numbers[rows] <= last)
            if np.any(wrong):
                at = self.table["head"][rows[np.argmax(wrong)]]
                raise self._fail(at, "a batch of another generation than is due")
            last = numbers[rows[0]]
            found.append(rows)
        if not found:
            raise self._fail(len(self.data), "the trace holds no batches")
        return found

    def _count(self, batches: Any) -> Any:
        """Events by code, after a check that every one can be decoded."""
        counts = np.zeros(256, np.int64)
        where = np.zeros(1, np.int64)
        rows = record_array(len(batches), wire.BATCH)
        rows[:] = batches
        status = wire.count_events(self.data, rows, counts, where)
        if status < 0:
            raise self._fail(where[0], wire.REASONS[status])
        if counts.sum() > MAX_EVENTS:
            raise TraceError(f"{self.path}: holds {int(counts.sum())} events, more than {MAX_EVENTS}; record less")
        for code, name in _SKIPPED.items():
            if counts[code]:
                self.skipped[name] = int(counts[code])
        return counts

    def _allocate(self, counts: Any, threads: Any) -> None:
        """The columns, and the scheduler's tables that live from one generation to the next."""
        if len(threads) > _MAX_THREADS:
            raise TraceError(f"{self.path}: holds events of {len(threads)} threads, more than {_MAX_THREADS}")
        tables = self.tables
        tables.header["data"] = address_of(self.data)
        tables.header["data_len"] = len(self.data)
        self.rows = int(counts[wire.KINDS > 0].sum())
        tables.fields.rows = self.rows
        tables.allocate("columns", self.rows * len(EVENT_COLUMNS))
        ms = tables.allocate("ms", len(threads))
        ms["p"] = ms["g"] = -1
        ms["id"][: len(threads)] = threads
        tables.allocate("ps", order.MAX_P)
        created = int(counts[_CREATES_G].sum())
        tables.allocate("gs", 1 << (2 * created + 1).bit_length())["id"] = -1
        tables.allocate("edges", order.LOST + 3)
        tables.fields.work = _WORK + 64 * int(counts.sum())

    def _batch(self, i: int) -> Batch:
        row = self.table[i]
        return Batch(self.data[row["off"] : row["off"] + row["length"]], int(row["off"]))

    def _generation(self, rows: Any, events: Any) -> None:
        """Read a generation's tables, then merge its events."""
        first = self.first_byte
        self.ids.begin([self._batch(i) for i in rows[first[rows] == wire.STRINGS]])
        ns = 0.0
        for i in rows[(first[rows] != wire.STRINGS) & ~np.isin(rows, events)]:
            batch = self._batch(i)
            experiment = int(self.table["exp"][i])
            if experiment == wire.ALLOC_FREE:
                self.ids.add_alloc_free(batch)
            elif experiment:
                name = f"batch_of_experiment_{experiment}"
                self.unknown[name] = self.unknown.get(name, 0) + 1
            elif first[i] == wire.STACKS:
                self.ids.add_stacks(batch)
            elif first[i] == wire.CPU_SAMPLES:
                self._cpu_samples(batch)
            elif first[i] == self.sync:
                ns = self._frequency(batch, ns)
        if not ns:
            raise self._fail(self.table["head"][rows[0]], "a generation without the frequency of its clock")
        self.tables.fields.ns = ns
        self._begin_clock(float(self.table["time"][rows].min()) * ns)
        self._merge(int(self.table["gen"][rows[0]]), events)

    def _cpu_samples(self, batch: Batch) -> None:
        """Count the samples of a batch: a code and five numbers each."""
        found = batch.numbers(self.path, 1)
        if len(found) % 6 or np.any(found[::6] != wire.CPU_SAMPLE):
            raise self._fail(batch.at, "a damaged batch of CPU samples")
        self.skipped["cpu_sample"] = self.skipped.get("cpu_sample", 0) + len(found) // 6

    def _frequency(self, batch: Batch, ns: float) -> float:
        """Nanoseconds per tick from a sync batch; ``ns`` is what an earlier one told (generation.go:setSyncBatch)."""
        found = batch.numbers(self.path, 1 if self.sync == wire.SYNC else 0).tolist()
        while found:
            size = {wire.FREQUENCY: 2, wire.CLOCK_SNAPSHOT: 5}.get(found[0], len(found) + 1)
            if size > len(found):
                raise self._fail(batch.at, "a damaged sync batch")
            if found[0] == wire.FREQUENCY:
                if found[1] <= 0 or ns:
                    raise self._fail(batch.at, "a clock frequency out of range, or a second one")
                ns = 1.0 / (found[1] / 1e9)
            found = found[size:]
        return ns

    def _begin_clock(self, start: float) -> None:
        """Times rise strictly over a generation's start, at which the Go reader puts an event of its own."""
        if start < order.TIME_LIMIT:
            self.tables.fields.last_ns = max(int(self.tables.fields.last_ns) + 1, int(start))

    def _merge(self, generation: int, events: Any) -> None:
        """Put a generation's events into the columns, in order."""
        tables = self.tables
        found, first, member = np.unique(self.table["m"][events], return_index=True, return_inverse=True)
        appear = np.argsort(first, kind="stable")  # the Ms in the order of their first batch
        ends = np.cumsum(np.bincount(member, minlength=len(found)))
        cur = self._fresh("cur", len(found))
        cur["m"][: len(found)] = np.searchsorted(tables.arrays["ms"]["id"], found[appear])
        cur["batches"][: len(found)] = ends[appear]
        cur["batch"][: len(found)] = (ends - np.bincount(member, minlength=len(found)))[appear]
        self._fresh("batches", len(events))[: len(events)] = self.table[events[np.argsort(member, kind="stable")]]
        self._fresh("heap", len(found))
        self._fresh("args", len(found) * order.ARGS)
        maps = self.ids.finish()
        tables.arrays["edges"][: order.LOST] = np.cumsum([0, *map(len, maps)])
        self._fresh("ids", sum(map(len, maps)))[:] = np.concatenate(maps)
        fields = tables.fields
        fields.gen = generation
        fields.first_gen = fields.first_gen or generation
        status = merge(tables.header)
        if status < 0:
            raise self._fail(int(fields.where), {**wire.REASONS, **order.ORDER_REASONS}[status])

    def _fresh(self, name: str, length: int) -> Any:
        """A zeroed table of a generation's own, of one row at least: a cursor of zeros holds no events."""
        self.tables.arrays.pop(name, None)
        return self.tables.allocate(name, length)

    def _trace(self, generations: list[int], starts: list[int]) -> Trace:
        lost = self.tables.arrays["edges"][order.LOST :].tolist()
        for name, n in zip(("stack_id", "string_id", "type_id"), lost, strict=True):
            if n:
                self.unknown[name] = n
        flat = self.tables.arrays["columns"][: self.rows * len(EVENT_COLUMNS)].reshape(len(EVENT_COLUMNS), self.rows)
        columns: dict[str, Any] = {
            name: flat[i].astype(dtype, copy=False) for i, (name, dtype) in enumerate(EVENT_COLUMNS.items())
        }
        kind, a = columns["kind"], columns["a"]
        min_heap, page_size, align, stack_unit = self.ids.info or (0, 0, 0, 0)
        if self.ids.info:
            for low, high, unit in (
                (SPAN, SPAN_FREE, page_size),
                (OBJECT, OBJECT_FREE, align),
                (STACK, STACK_FREE, stack_unit),
            ):
                _sign(kind, a, low, high, unit)
        elif np.any(kind <= STACK_FREE):
            raise self._fail(0, "allocation events, but no batch that tells where the heap begins")
        procs = a[kind == GOMAXPROCS]
        return Trace(
            **columns,
            **self.ids.columns(),
            generation=np.array(generations, np.int64),
            generation_start=np.array(starts, np.int64),
            go_version=f"1.{self.version}",
            min_heap=min_heap,
            page_size=page_size,
            gomaxprocs=int(procs[0]) if len(procs) else 0,
            unknown=self.unknown,
            skipped=self.skipped,
        )


def _sign(kind: Any, a: Any, low: int, high: int, unit: int) -> None:
    """Ids are (address - min_heap) mod 2**64 over unit: make those below min_heap negative, in place."""
    if unit > 1:
        period = (1 << 64) // unit
        rows = np.flatnonzero((a >= period >> 1) & (kind >= low) & (kind <= high))
        a[rows] -= period
