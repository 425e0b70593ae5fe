"""A published curve of a memory limit: erigon in a container of 16 GiB (erigontech/erigon pull request 23757).

Measured there: requests a second, heap in use and cycles of a run of unknown length at GOMEMLIMIT = 0.5, 0.7, 0.8 and
0.9 of the container. The program is simulated at a 64th of its size: four workers, a live heap that stays, garbage.
Two numbers are fitted to the first two rows: how much is live (the ratio of their cycles) and how much a run allocates
(their number). The cycles of the other two, and the heap in use of all four, are predicted.
"""

from __future__ import annotations

from itertools import pairwise

from experiments.machine import load_machine
from experiments.published_figure import Figure, Row
from sim.go.world import World
from sim.units import GIB, NS, US
from workloads.drive import Load
from workloads.spec import PPM, Lifetime, Mix, Objects, Workers

MACHINE = "epyc-2core"
SCALE = 64
CYCLES = {8.0: 779, 11.2: 187, 12.8: 112, 14.4: 73}  # by GOMEMLIMIT in GiB
IN_USE = {8.0: 8.6, 11.2: 11.2, 12.8: 12.0, 14.4: 12.3}  # GB
_SIZE = 512
_WORKERS = 4
_SEEN = 8  # cycles that a run lasts after the live heap stands


def simulate(limit: float, live: float) -> tuple[float, float]:
    """Bytes allocated a cycle, and the highest heap; GiB of the real size. ``limit`` and ``live`` in GiB of it."""
    world = World(
        "go1.27", _WORKERS, load_machine(MACHINE, "go1.27"), 1, memory_limit=round(limit * GIB / SCALE), globals_bytes=0
    )
    kept = round(live * GIB / SCALE / _SIZE / _WORKERS)
    parts = [
        Objects(1, ((_SIZE, _SIZE, 1),), PPM // 2, PPM, life) for life in (Lifetime("cache", kept), Lifetime("request"))
    ]
    load = Load(world)
    load.start_workers(Workers(_WORKERS, Mix(tuple(parts), 200 * NS)), None)
    fields = world.heap.fields
    while int(fields.live_bytes) < 0.97 * kept * _SIZE * _WORKERS:
        world.run(until=world.now + 100 * US)
    first = len(world.gc.log.cycles) + 1
    while len(world.gc.log.cycles) <= first + _SEEN:
        world.run(until=world.now + 100 * US)
    cycles = world.gc.log.cycles[first : first + _SEEN + 1]
    between = (after.heap0 - one.heap2 + one.heap1 - one.heap0 for one, after in pairwise(cycles))
    return sum(between) / _SEEN * SCALE / GIB, max(one.heap1 for one in cycles) * SCALE / GIB


def fitted_live() -> float:
    """GiB of live heap at which the first two rows' cycles come out in their ratio; to a 50th of a GiB."""
    wanted = CYCLES[8.0] / CYCLES[11.2]
    low, high = 3.0, 7.9
    while high - low > 0.02:
        live = (low + high) / 2
        ratio = simulate(11.2, live)[0] / simulate(8.0, live)[0]
        low, high = (low, live) if ratio > wanted else (live, high)
    return low


def figure() -> Figure:
    """Cycles and heap by limit."""
    live = fitted_live()
    found = {limit: simulate(limit, live) for limit in CYCLES}
    whole = CYCLES[8.0] * found[8.0][0]
    cycles = [
        Row(f"cycles at a limit of {limit} GiB", count, whole / found[limit][0], 0.15, limit < 12)
        for limit, count in CYCLES.items()
    ]
    heap = [
        Row(f"GB of heap in use at a limit of {limit} GiB", used, found[limit][1] * GIB / 1e9, 0.15)
        for limit, used in IN_USE.items()
    ]
    return Figure(
        name="memory limit of a large cache",
        source="https://github.com/erigontech/erigon/pull/23757",
        fitted=f"live heap ({live:.2f} GiB) and bytes a run allocates ({whole:,.0f} GiB), to the cycles of the first two rows",
        rows=(*cycles, *heap),
        says="A live heap that stays makes cycles as 1 / (limit - live - what the runtime keeps free). The pull request says"
        " that the program's working set is about 12 GB: its live heap may not have stayed.",
    )
