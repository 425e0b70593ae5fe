"""Hoard's question of blow-up: ``python -m experiments.blowup [-o DIR] [--json]``.

Question: how much memory does an allocator with a cache a thread take beyond what the program ever had live at once?
Berger et al. (Hoard, ASPLOS 2000, section 2.2) show two programs that ruin some. A *pair*: one thread allocates what
another frees. Private heaps that keep what their threads free grow without bound, by all that was ever allocated: the
one thread's heap gets everything back, the other's needs it. *Turns*: threads allocate and free one after the other.
Heaps that keep their memory need P times what is ever live.

Simulated: rounds of `OBJECTS` objects, sizes of 16 B to 1 KiB, all allocated, then all freed; by a pair, and by
`THREADS` threads in turns, each of several rounds. On TCMalloc (a list that grows too long gives batches to the central
list, a cache over its budget scavenges), on TCMalloc whose caches give nothing back (lists of any length, budgets without
end: private heaps), and on two lists behind one lock. Footprint: what the heap has of the system, after each round.

Outcome (seed 1), 2.2 MiB live at most. The pair needs 3.0 MiB on TCMalloc from the first rounds on, and 2.1 MiB more
each round with private heaps: 540 MiB after 256, the line of what was allocated. 64 threads in turns need 141 MiB with
private heaps, 65 times what is live. With TCMalloc they need 73 MiB, 33 times: a fixed bound, since caches may hold 32
MiB together and each half a MiB, but no small one. Besides, a cache whose budget is stolen gives objects back at its
thread's next free, and those whose turn is over free nothing any more. Lists behind one lock need 2.4 MiB always.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import study
from experiments.compare_models import memory_of, thread_world
from sim.ops import ALLOC, DEAD, OP, SHARED
from sim.tcmalloc.world import TCMallocWorld
from sim.threads.state import NEVER
from sim.threads.world import ThreadWorld
from sim.units import MIB
from workloads.mixes import TEN_SIZES

MACHINE = "epyc-2core"
PRIVATE = "private heaps"
MODELS = ("tcmalloc", PRIVATE, "first-fit", "segregated-fit")
PROGRAMS = ("pair", "turns")
OBJECTS = 10_000
ROUNDS = 256
THREADS = 64  # of turns
SEED = 1
_ENDLESS = 1 << 30  # objects of a list; bytes of a budget


@dataclass(frozen=True)
class Round:
    """What the heap had of the system when a round was over, and the most that was live by then: bytes."""

    program: str
    model: str
    round: int
    footprint: int
    live: int


@dataclass(frozen=True)
class Answer:
    """Everything the study says."""

    rounds: list[Round]


def keep_all(world: TCMallocWorld) -> None:
    """Caches of threads give nothing back from now on: no list is too long, no budget is used up."""
    world.heap.arrays["free_lists"]["max_length"] = _ENDLESS
    world.heap.arrays["threads"]["max_size"] = _ENDLESS << 20


def world_of(model: str, threads: int) -> ThreadWorld:
    """A model in which so many threads are idle."""
    world = thread_world("tcmalloc" if model == PRIVATE else model, threads, threads, MACHINE, SEED)
    if model == PRIVATE:
        assert isinstance(world, TCMallocWorld)
        keep_all(world)
    return world


def batches(rng: Any) -> tuple[Any, Any]:
    """Operations that allocate a round's objects, and those that free them, in the same order; any thread may run them."""
    ops = np.zeros(OBJECTS, OP)
    ops["kind"], ops["flags"], ops["obj"] = ALLOC, SHARED, np.arange(OBJECTS)
    ops["arg"] = rng.choice(TEN_SIZES, OBJECTS)
    frees = ops.copy()
    frees["kind"], frees["arg"] = DEAD, 0
    return ops, frees


def run_alone(world: ThreadWorld, t: int, ops: Any) -> None:
    """A thread runs a batch while the others are idle."""
    world.submit(t, ops)
    world.wake(t, world.now, 0)
    done = world.advance(NEVER)
    assert done == t
    world.rest(t)


def roles(program: str, number: int) -> tuple[int, int]:
    """Who allocates in a round, and who frees."""
    if program == "pair":
        return 0, 1
    t = number * THREADS // ROUNDS  # each has its rounds one after the other
    return t, t


def simulate(program: str, model: str) -> list[Round]:
    """Run a program on a model."""
    world = world_of(model, 2 if program == "pair" else THREADS)
    rng = np.random.default_rng(SEED)
    most, found = 0, []
    for number in range(ROUNDS):
        allocates, frees = roles(program, number)
        new, dead = batches(rng)
        run_alone(world, allocates, new)
        most = max(most, memory_of(world)[2])
        run_alone(world, frees, dead)
        found.append(Round(program, model, number + 1, memory_of(world)[0], most))
    return found


def experiment() -> Answer:
    """Memory of TCMalloc, of private heaps and of lists behind one lock where one thread frees what another allocated."""
    return Answer([one for program in PROGRAMS for model in MODELS for one in simulate(program, model)])


def _runs(answer: Answer) -> dict[tuple[str, str], list[Round]]:
    found: dict[tuple[str, str], list[Round]] = {}
    for one in answer.rounds:
        found.setdefault((one.program, one.model), []).append(one)
    return found


def report(answer: Answer) -> Iterator[str]:
    """The text for the terminal."""
    yield f"Footprint in MiB after a round of {OBJECTS:,} objects; blow-up: the last one over the most that was ever live"
    rows = []
    for (program, model), run in _runs(answer).items():
        at = [run[len(run) // part - 1] for part in (16, 4, 2, 1)]
        numbers = [f"{one.footprint / MIB:.1f}" for one in at]
        rows.append([program, model, f"{at[-1].live / MIB:.1f}", *numbers, f"{at[-1].footprint / at[-1].live:.1f}"])
    yield from study.table(rows, ["program", "model", "live", *(f"{one.round}" for one in at), "blow-up"])


def write(answer: Answer, folder: Path) -> Iterator[str]:
    """Write table and plot; what was written, or why not."""
    yield from study.write(folder, "blowup", {"rounds": answer.rounds}, lambda: _plot(answer))


def _plot(answer: Answer) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, program in zip(figure.subplots(1, len(PROGRAMS)), PROGRAMS, strict=True):
        runs = {model: run for (of, model), run in _runs(answer).items() if of == program}
        for model, run in runs.items():
            axes.plot([one.round for one in run], [one.footprint / MIB for one in run], label=model)
        axes.plot([one.round for one in run], [one.live / MIB for one in run], "k:", label="most ever live")
        axes.set(title=program, xlabel="rounds", ylabel="footprint, MiB", yscale="log")
        axes.legend()
        axes.grid(alpha=0.3)
    return figure


main = study.command("blowup", experiment, report, write)

if __name__ == "__main__":
    main()
