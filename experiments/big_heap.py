"""How long one collection of a large heap takes *us*, and in how much memory: ``python -m experiments.big_heap [GiB]``.

The heap holds 64 B objects that never die, 10 GiB of them unless told otherwise (168 million), built by one goroutine
with the collector off. Then runtime.GC collects it. What counts is our wall time with the world stopped at mark set-up,
where everything that is alive is marked at once (sim/go/mgcmark.py), and the peak of our resident memory.

Marking visits each span's bitmap words, 64 objects at a time. On one core of a 2-core EPYC VM, 10 GiB: 0.05 s with the
world stopped, 0.3 s for the rest of the mark phase (a worker looks up 107,000 times), 2.1 s for the sweep (runtime.GC
lets others run after each of 1.35 million spans); 0.45 GiB at the peak, 0.25 of them the program itself.
"""

from __future__ import annotations

import resource
import time

import click
import numpy as np

from experiments.machine import load_machine
from sim.go.goroutine import Body, Goroutine
from sim.go.world import World
from sim.ops import ALLOC, NO_OBJ, OP
from sim.units import GIB

SIZE = 64
BATCH = 1 << 20  # operations


def fill_and_collect(g: Goroutine, objects: int) -> Body:
    """Goroutine: allocates so many objects, then collects."""
    ops = np.zeros(BATCH, OP)
    ops["kind"], ops["obj"], ops["arg"], ops["ptr_bytes"] = ALLOC, NO_OBJ, SIZE, SIZE
    for done in range(0, objects, BATCH):
        yield g.run(ops[: min(BATCH, objects - done)], 0)
    yield from g.world.gc.collect(g)


def measure(nbytes: int, version: str = "go1.27") -> dict[str, float]:
    """Figures of one collection of so many live bytes; times are our seconds, memory GiB, the rest counts."""
    world = World(version, 1, load_machine("epyc-2core", version), 1, gogc=-1)
    at = {"begin": time.perf_counter()}
    words = spans = 0

    def watcher(stage: str) -> None:
        nonlocal words, spans
        at[stage] = time.perf_counter()
        if stage == "swept":
            rows = world.heap.arrays["spans"][: int(world.heap.fields.nspans)]
            spans = int((rows.state == 1).sum())
            words = int(((rows.nelems[rows.state == 1].astype(np.int64) + 63) >> 6).sum())
            at[stage] = time.perf_counter()

    world.gc.watcher = watcher
    world.run(until=world.go(fill_and_collect, nbytes // SIZE))
    end = time.perf_counter()
    return {
        "objects": int(world.heap.arrays["mark_counts"].sum()),
        "spans": spans,
        "bitmap words": words,
        "build": at["swept"] - at["begin"],
        "mark set-up": at["marking"] - at["swept"],
        "rest of the mark phase": at["sweeping"] - at["marking"],
        "sweep": end - at["sweeping"],
        "peak RSS": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
    }


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("gib", type=click.FloatRange(min=0, min_open=True, max=1024), default=10.0)
def main(gib: float) -> None:
    """Print the figures of collecting a heap of so many GIB of 64-byte objects, by default 10."""
    for name, value in measure(int(gib * GIB)).items():
        unit = " GiB" if name == "peak RSS" else " s" if isinstance(value, float) else ""
        click.echo(f"{name:24}{value:>14,.3f}{unit}" if isinstance(value, float) else f"{name:24}{value:>14,}")


if __name__ == "__main__":
    main()
