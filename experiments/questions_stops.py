"""Whether a memory limit lengthens stops of the world (Q3): a stop that is asked for while a goroutine gives memory back.

A heap of small spans loses three of four of them, here and there; then it gets a limit below the memory it has, as a
program has that went past its limit. Who next takes new memory gives the excess back first, run by run, and comes to no
safepoint meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.machine import load_machine
from experiments.published_figure import Row
from sim.go.goroutine import Body, Goroutine
from sim.go.world import World
from sim.ops import ALLOC, DEAD, NEEDZERO, NO_OBJ, NOSCAN, OP, TOUCH
from sim.units import MIB, US

_MACHINE, _VERSION, _PROCS = "epyc-2core", "go1.27", 4
_HEAP, _OBJECT, _KEPT = 256 * MIB, 8192, 4  # every fourth object stays
_LIMIT = 200 * MIB
_LARGE = 64 << 10  # what takes new memory
_CYCLES = 10


def _program(g: Goroutine, limit: int, done: Any) -> Body:
    """Goroutine: a heap full of holes, a limit if there is one, then an allocation beside collections."""
    count = _HEAP // _OBJECT
    ops, dead = np.zeros(count, OP), np.zeros(count, OP)
    ops[:] = (ALLOC, NEEDZERO | TOUCH | NOSCAN, 0, _OBJECT, 0)
    ops["obj"] = dead["obj"] = np.arange(count)
    dead["kind"] = DEAD
    yield g.run(np.concatenate([ops, dead[np.arange(count) % _KEPT != 0]]), count)
    yield from g.world.gc.collect(g)
    if limit:
        g.world.gc.set_memory_limit(limit)
    g.world.go(_allocate)
    for _ in range(_CYCLES):
        yield g.compute(100 * US)
        yield from g.world.gc.collect(g)
    done.succeed()


def _allocate(g: Goroutine) -> Body:
    """Goroutine: 4 MiB of large objects that stay."""
    ops = np.zeros(4 * MIB // _LARGE, OP)
    ops[:] = (ALLOC, NEEDZERO | TOUCH | NOSCAN, NO_OBJ, _LARGE, 0)
    yield g.run(ops)


def longest_stop(limit: int) -> tuple[int, int]:
    """Picoseconds of the longest stop under a limit in bytes, 0 for none, and of all giving back by who allocates."""
    world = World(_VERSION, _PROCS, load_machine(_MACHINE, _VERSION), 1, gogc=-1)
    done = world.env.event()
    world.go(_program, limit, done)
    world.run(until=done)
    longest = max(max(one.stop_sweep_term, one.stop_mark_term) for one in world.gc.log.cycles)
    return longest, int(world.heap.fields.scavenge_assist_time)


def stops() -> list[Row]:
    """The longest stop of a program past its limit, by what it waits for: giving back that there is not without the limit."""
    stop, giving = longest_stop(_LIMIT)
    _, anyway = longest_stop(0)
    return [Row("longest stop, times what giving back for the limit took", 1, stop / (giving - anyway), 0.1)]
