"""How fast the models of threads are: ``python -m experiments.bench_threads``, simulated mallocs a second of wall time.

The mix and the number of mallocs are those of `bench`, a thread and a CPU for each P of it; best of three, streams made
and everything recorded. The first run of each, which compiles, does not count. Go's model, with GC off, is in it for
comparison.

Where the time goes, in CPU time a malloc (a 2-CPU Intel Xeon virtual machine, one CPU busy with other work): making the
stream takes 16 ns whatever the model, TCMalloc's pump another 20 with one thread. Go's model takes 66 with one P, 70
with 8 and 91 with 64. Its pump is some 40 to 60 of that: a segment for each 14 mallocs, as a refill ends one, and the
bits and counts by span that collector and statistics need; with 64 Ps a quarter of it is waiting for the memory that an
object's span and its bits stand in, when it dies. Python is 8 with one P, for the batches. Half the holds of mheap.lock
are waited for with 64, in compiled code: no hold and no wait is an event. So TCMalloc's model is 1.8, 1.8 and 1.7 times
as fast.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import click

from experiments.bench import LIFETIME, MACHINE, OUR_MALLOCS, PS, VERSION, our_world
from experiments.machine_threads import load_thread_machine
from sim.tcmalloc.world import TCMallocWorld
from sim.textbook.world import TextbookWorld
from sim.threads.state import NEVER
from sim.threads.world import ThreadWorld
from sim.units import throw
from workloads.drive_threads import WorkerLoad
from workloads.mixes import ten_sizes
from workloads.spec import Workers

_TEXTBOOK = (("bump", None), ("first-fit", "lifo"), ("segregated-fit", "lifo"))
_TEXTBOOK_MALLOCS = 1_000_000
_REPETITIONS = 3


def worlds() -> dict[str, tuple[int, Callable[[int], ThreadWorld]]]:
    """By name of a model: mallocs to run, and how its world of so many threads is made."""
    prices = load_thread_machine(MACHINE, "tcmalloc")
    found: dict[str, tuple[int, Callable[[int], ThreadWorld]]] = {
        "tcmalloc": (OUR_MALLOCS, lambda n: TCMallocWorld(n, prices, 1))
    }
    simple = load_thread_machine(MACHINE, "textbook")
    for policy, order in _TEXTBOOK:

        def make(n: int, policy: str = policy, order: str | None = order) -> ThreadWorld:
            return TextbookWorld(policy, n, simple, 1, order=order)

        found[policy] = (_TEXTBOOK_MALLOCS, make)
    return found


def rate(make: Callable[[int], ThreadWorld], nthreads: int, mallocs: int) -> float:
    """Simulated mallocs a second of wall time of one run."""
    begun = time.perf_counter()
    world = make(nthreads)
    if not WorkerLoad(world, Workers(nthreads, ten_sizes(LIFETIME)), mallocs).advance(NEVER):
        throw("the workers are not at their end")
    return world.mallocs / (time.perf_counter() - begun)


def go_rate(nprocs: int, mallocs: int) -> float:
    """The same of Go's model."""
    begun = time.perf_counter()
    world, load = our_world(nprocs, mallocs)
    world.run(until=load.done)
    return world.mallocs / (time.perf_counter() - begun)


def models() -> dict[str, tuple[int, Callable[[int, int], float]]]:
    """By name of a model: mallocs to run, and the rate of so many threads and mallocs."""
    found: dict[str, tuple[int, Callable[[int, int], float]]] = {VERSION: (OUR_MALLOCS, go_rate)}
    for name, (mallocs, make) in worlds().items():
        found[name] = (mallocs, partial(rate, make))
    return found


@click.command()
def main() -> None:
    """Measure, and print a line for each model."""
    for name, (mallocs, measured) in models().items():
        measured(1, 1000)
        best = [max(measured(n, mallocs) for _ in range(_REPETITIONS)) for n in PS]
        click.echo(
            f"{name:15}" + "".join(f"  {n} threads {value / 1e6:6.2f} M/s" for n, value in zip(PS, best, strict=True))
        )


if __name__ == "__main__":
    main()
