"""What one GC cycle did, for every output that speaks of cycles: gctrace lines, tables, timelines, MemStats.

The collector fills a `Cycle` when the world goes on after mark termination, and a `Swept` when nothing is left to
sweep; ``with_swept`` joins them. Names are the runtime's (``work``, ``gcController``) in snake case.

Units: times (``t_``, ``stop_``, ``pause_``, ``_time``) are integer picoseconds, points in time counted from the
program's start; CPU times are of all Ps together; sizes and scan work are bytes; ratios are floats.

Invariants, checked when a record is made: what happened in order has its times in order; no more Ps are stopped than
there are; pauses fall within the cycle; nothing is negative.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from sim.units import NS, throw

NO_GOAL = 1 << 62
"""Heap goals from here on are none: with GOGC=off the goal is what 2**63 leaves."""

KINDS = ("heap", "time", "forced")
"""Why a cycle began: the heap reached the trigger, two minutes without one (gcTriggerTime), runtime.GC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """The sweep that followed a cycle, up to its end; and what the scavenger gave back since the one before.

    ``pages_per_byte``: the proportional sweep ratio. ``spans_freed`` went back to the heap whole. ``released_bg`` and
    ``released_eager``: bytes given back in the background and by allocation. ``heap_retained``: in use and free.
    """

    t_done: int
    heap_live: int  # when it was done, and when it began (sweepHeapLiveBasis)
    heap_live_basis: int
    pages_swept: int
    pages_per_byte: float
    spans_swept: int
    spans_freed: int
    objects_freed: int
    bytes_freed: int
    released_bg: int
    released_eager: int
    heap_released: int
    heap_in_use: int
    heap_retained: int
    controller_reset: bool = False  # the scavenger's controller failed since the sweep before

    def __post_init__(self) -> None:
        _no_negative(self)
        if self.heap_in_use > self.heap_retained:
            throw(f"{self.heap_in_use} bytes of heap in use of {self.heap_retained} retained")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One cycle, from the start of sweep termination to the end of mark termination."""

    number: int  # from 1, runtime.GC's among them
    kind: str  # of KINDS
    # when: sweep termination, marking, mark termination begin; the world goes on
    t_sweep_term: int
    t_mark: int
    t_mark_term: int
    t_end: int
    # until all Ps stood still; and what MemStats counts as pause (go1.27: from the stop's own start)
    stop_sweep_term: int
    stop_mark_term: int
    pause_sweep_term: int
    pause_mark_term: int
    # CPU time of marking
    assist_time: int
    dedicated_time: int
    fractional_time: int
    idle_time: int
    procs: int  # GOMAXPROCS
    stw_procs: int  # of them on CPUs: min(GOMAXPROCS, CPUs)
    # heap: live when it began, when marking was done, and what was marked
    heap0: int
    heap1: int
    heap2: int
    heap_goal_start: int  # when marking began, and when it was done (lastHeapGoal)
    heap_goal: int
    trigger: int  # where a cycle of kind heap begins
    triggered: int  # where the pacer says that this one did: the trigger (1.19), the live heap (1.27)
    # the pacer at the start
    heap_scan: int  # of the live heap, what may hold pointers
    assist_ratio: float  # bytes of scan work for each byte allocated
    dedicated_workers: int
    fractional_goal: float
    runway: int  # bytes that allocation was expected to take while marking
    cons_mark: float  # the estimate it began with
    # and at the end
    heap_scan_work: int
    stack_scan_work: int
    globals_scan_work: int
    expected_scan_work: int
    stack_scan: int  # bytes of stacks scanned (lastStackScan), and of all stacks (maxStackScan)
    max_stack_scan: int
    globals_scan: int
    # CPU time since the program's start: the collector's, of it marking on idle Ps; Ps times time
    gc_total_time: int
    gc_idle_time: int
    total_time: int
    controller_reset: bool = False  # the pacer's controller failed (1.19)
    swept: Swept | None = None

    @property
    def forced(self) -> bool:
        """The program asked for it (work.userForced)."""
        return self.kind == "forced"

    @property
    def pause_time(self) -> int:
        """Both pauses (work.pauseNS)."""
        return self.pause_sweep_term + self.pause_mark_term

    @property
    def scan_work(self) -> int:
        """Bytes scanned in all."""
        return self.heap_scan_work + self.stack_scan_work + self.globals_scan_work

    @property
    def gc_cpu_fraction(self) -> float:
        """The collector's share of CPU time so far, but for marking on idle Ps, which is free. (memstats)"""
        total = self.total_time // NS
        return (self.gc_total_time // NS - self.gc_idle_time // NS) / total if total else 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            throw(f"{self.kind!r} is no kind of cycle; one of {', '.join(KINDS)} is")
        if not 0 <= self.t_sweep_term <= self.t_mark <= self.t_mark_term <= self.t_end:
            times = self.t_sweep_term, self.t_mark, self.t_mark_term, self.t_end
            throw(f"cycle {self.number}: phases begin out of order, at {times}")
        if self.number < 1 or not 1 <= self.stw_procs <= self.procs:
            throw(f"cycle {self.number}: {self.stw_procs} of {self.procs} Ps stopped")
        if self.pause_time > self.t_end - self.t_sweep_term:
            throw(f"cycle {self.number}: paused for {self.pause_time} ps of {self.t_end - self.t_sweep_term}")
        if self.stop_sweep_term > self.pause_sweep_term or self.stop_mark_term > self.pause_mark_term:
            throw(f"cycle {self.number}: stopping the world took longer than it stood still")
        if self.gc_idle_time > self.gc_total_time:
            throw(f"cycle {self.number}: idle marking {self.gc_idle_time} of {self.gc_total_time} ps of the collector")
        if self.swept is not None and self.swept.t_done < self.t_end:
            throw(f"cycle {self.number}: swept at {self.swept.t_done}, before marking ended at {self.t_end}")
        _no_negative(self)

    def with_swept(self, swept: Swept) -> Cycle:
        """The same cycle, its sweep done."""
        return replace(self, swept=swept)


_SIGNED = {"cons_mark"}  # go1.19's controller may swing below zero


def _no_negative(record: Any) -> None:
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, int | float) and value < 0 and field.name not in _SIGNED:
            throw(f"{type(record).__name__}.{field.name} is {value}")


# Columns of a table of cycles: name with its unit, and the field

_PLAIN = frozenset(
    ("number", "kind", "procs", "stw_procs", "assist_ratio", "dedicated_workers", "fractional_goal", "cons_mark")
    + ("controller_reset", "pages_swept", "pages_per_byte", "spans_swept", "spans_freed", "objects_freed")
)


def _unit(name: str) -> str:
    if name in _PLAIN:
        return ""
    return "_ps" if name.startswith(("t_", "stop_", "pause_")) or name.endswith("_time") else "_bytes"


_CYCLE = {field.name + _unit(field.name): field for field in fields(Cycle) if field.name != "swept"}
_SWEPT = {f"swept_{field.name}{_unit(field.name)}": field for field in fields(Swept)}
COLUMNS = (*_CYCLE, *_SWEPT)
"""The columns of `rows`: ``_ps`` and ``_bytes`` end the names of what has a unit, ``swept_`` begins the sweep's."""


def rows(cycles: Iterable[Cycle]) -> Iterator[list[str]]:
    """Cycles as text, a cell for each of COLUMNS: integers and floats exact, booleans 0 and 1.

    The cells of a sweep that was not done are empty.
    """
    for cycle in cycles:
        row = [_cell(getattr(cycle, field.name)) for field in _CYCLE.values()]
        swept = cycle.swept
        yield row + ["" if swept is None else _cell(getattr(swept, field.name)) for field in _SWEPT.values()]


def _cell(value: Any) -> str:
    return str(int(value)) if isinstance(value, bool) else repr(value) if isinstance(value, float) else str(value)


def from_row(cells: Sequence[str]) -> Cycle:
    """The cycle of a row that `rows` made; ValueError says which column is wrong, Throw which invariant does not hold."""
    if len(cells) != len(COLUMNS):
        raise ValueError(f"{len(cells)} cells, and there are {len(COLUMNS)} columns")
    by_column = dict(zip(COLUMNS, cells, strict=True))
    swept = None
    if any(by_column[column] for column in _SWEPT):
        swept = Swept(**{field.name: _value(column, field.type, by_column[column]) for column, field in _SWEPT.items()})
    values = {field.name: _value(column, field.type, by_column[column]) for column, field in _CYCLE.items()}
    return Cycle(**values, swept=swept)


_PATTERNS = {
    "int": re.compile(r"\d{1,20}", re.ASCII),
    "float": re.compile(r"-?\d{1,24}(\.\d{1,24})?(e[-+]\d{1,3})?", re.ASCII),
    "bool": re.compile("[01]"),
    "str": re.compile(r"\w{1,20}", re.ASCII),
}
_TYPES: dict[str, Any] = {"int": int, "float": float, "bool": lambda text: text == "1", "str": str}


def _value(column: str, kind: Any, text: str) -> Any:
    value = _TYPES[kind](text) if _PATTERNS[kind].fullmatch(text) else math.inf
    if value == math.inf:
        raise ValueError(f"{column} is {text[:40]!r}, which is no {kind}")
    return value
