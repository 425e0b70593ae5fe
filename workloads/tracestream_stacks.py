"""How far the stacks of a recorded trace's goroutines reached, as far as their growing and shrinking tells.

A stack of S bytes is made when S / 2 overflow, so its goroutine's frames reach S / 2 then; a third of the way to the
next change they are taken to reach 3 / 4 of S. The collector halves a stack of which less than a quarter is used: at two
thirds of the way from the growth to the first such shrink the frames are taken to go, to a quarter of the smallest stack
that follows.

Only the allocations of stacks are recorded. A goroutine that grows allocates one and frees its old one right after, on
the same thread; shrinking is told from it by the sizes, and by whose stack the old one was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from workloads import gotrace_model as t
from workloads.gotrace_model import Trace

_LEAST = 4096  # bytes of stack up to which nobody is told
_MAX_LOG = 29  # the largest stack of a goroutine is half a GiB: 1e9 bytes are its limit


@dataclass
class _Change:
    row: int
    size: int  # bytes afterwards
    grows: bool


def _changes(trace: Trace, rows: int) -> dict[int, list[_Change]]:
    """By goroutine, when its stack was replaced by a larger or smaller one."""
    size: dict[int, int] = {}  # by stack id
    owner: dict[int, int] = {}
    made: dict[int, tuple[int, int]] = {}  # the stack each thread has just allocated, and the row
    found: dict[int, list[_Change]] = {}
    events = np.flatnonzero((trace.kind[:rows] >= t.STACK) & (trace.kind[:rows] <= t.STACK_FREE))
    columns = (events, *(column[events] for column in (trace.kind, trace.m, trace.g, trace.a, trace.b)))
    for row, kind, m, g, stack, log in zip(*(column.tolist() for column in columns), strict=True):
        if kind != t.STACK_FREE:
            size[stack] = 1 << min(max(log - 1, 0), _MAX_LOG)
            made.pop(m, None)
            owner.pop(stack, None)
            if kind == t.STACK_ALLOC:
                made[m] = stack, row
            continue
        old, name = size.pop(stack, 0), owner.pop(stack, -1)
        new, since = made.pop(m, (0, -1))
        now = size.get(new, 0) if since >= 0 else 0
        if now == 2 * old and old:
            name = g
        elif not (2 * now == old and name >= 0):
            continue
        owner[new] = name
        found.setdefault(name, []).append(_Change(since, now, now > old))
    return found


def find_depths(trace: Trace, rows: int) -> tuple[Any, Any, Any]:
    """Rows, goroutines and the bytes that their frames reach from there on; in order of goroutine and row."""
    told: list[tuple[int, int, int]] = []
    for g, changes in sorted(_changes(trace, rows).items()):
        for i, change in enumerate(changes):
            before = changes[i - 1] if i else None
            after = changes[i + 1].row if i + 1 < len(changes) else rows
            if change.grows and change.size > _LEAST:
                told += [(change.row, g, change.size // 2), (change.row + (after - change.row) // 3, g, change.size * 3 // 4)]
            elif not change.grows and before is not None and before.grows:
                least = change.size
                for later in changes[i:]:
                    if later.grows:
                        break
                    least = later.size
                told.append((before.row + (change.row - before.row) * 2 // 3, g, least // 4))
    told.sort(key=lambda one: (one[1], one[0]))
    columns = np.array(told, np.int64).reshape(-1, 3).T
    return columns[0], columns[1], columns[2]
