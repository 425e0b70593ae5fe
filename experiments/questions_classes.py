"""What size classes and spans waste (Q8): heaps full of objects of one size, and the memory of their spans.

The worst size of a class is a byte more than what the class below takes. A class that is left out is served by the next
one: objects of three words were, in 32 bytes, before there was one of 24.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.machine import load_machine
from experiments.published_figure import Row
from sim.go.goroutine import Body, Goroutine
from sim.go.sizeclasses import class_to_size
from sim.go.world import World
from sim.ops import ALLOC, NEEDZERO, NO_OBJ, NOSCAN, OP

_MACHINE, _VERSION = "epyc-2core", "go1.27"
_MAX_WASTE = {24: 29.24, 48: 31.52, 1024: 12.40, 4864: 16.65, 32768: 12.50}  # %: sizeclasses.go, the column "max waste"
_BYTES = 16 << 20  # of objects: spans that are filled in part are little of these
_NODE = 24, 16  # bytes of a node of three words, the first two of them pointers
_NEXT = 32  # the class above
_LESS = 0.75  # issue 8885: 25 % less memory for programs that are full of such nodes


def in_use(size: int, pointers: int) -> float:
    """Bytes of spans for each byte asked for, of a heap of objects of one size with so many bytes up to the last pointer."""
    world = World(_VERSION, 1, load_machine(_MACHINE, _VERSION), 1, gogc=-1)
    count = _BYTES // size
    ops = np.zeros(count, OP)
    ops[:] = (ALLOC, NEEDZERO | (0 if pointers else NOSCAN), NO_OBJ, size, pointers)
    done = world.env.event()
    world.go(_fill, ops, done)
    world.run(until=done)
    return int(world.heap.fields.heap_in_use) / (count * size)


def _fill(g: Goroutine, ops: Any, done: Any) -> Body:
    """Goroutine: allocate objects that stay."""
    yield g.run(ops)
    done.succeed()


def waste() -> list[Row]:
    """The worst that some classes waste, and what a class of 24 bytes saves."""
    rows = []
    for size, percent in _MAX_WASTE.items():
        worst = int(class_to_size[list(class_to_size).index(size) - 1]) + 1
        found = 100 * (1 - 1 / in_use(worst, 0))
        rows.append(Row(f"% wasted by objects of {worst} bytes, in the class of {size}", percent, found, 0.02))
    size, pointers = _NODE
    saved = in_use(size, pointers) * size / (in_use(_NEXT, pointers) * _NEXT)
    rows.append(Row("memory of nodes of 24 bytes, times that without their class", _LESS, saved, 0.02))
    return rows
