"""How fast the simulator is on this machine: simulated mallocs a second against plain SimPy and the real runtime.

All three make the mix of `workloads.mixes.ten_sizes`, one goroutine (or process) a P, either with GC off, or with
GOGC=100 and `LIVE` bytes of live heap in all, whatever the number of Ps:

- *ours*: the simulator as `allocsim run` runs it, from an empty world to the end: streams made, everything recorded.
- *SimPy*: what a newcomer would write. A process a P, one timeout a malloc, a `simpy.Resource` for the refills, as many
  as the mix has; no heap behind it, no collector, nothing recorded.
- *Go*: a program of ours (truth/bench) on the real runtime, built by the ``go`` on PATH or beside this Python. Objects
  are written once and dropped after as many mallocs as in the mix. Its memory is bounded: `GO_MALLOCS` at 0.2 KiB.

Figures are wall time, what a person waits, and the best of some repetitions in turn, as is usual where others disturb
the machine. The first run of each kind (compiled code, caches) does not count. The real program runs on the CPUs there
are, so with more Ps than CPUs its rate is that of a full machine.

With GC off most of what Go does here is page faults on fresh memory, 1.3 GB in all.
"""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import simpy

from experiments.machine import load_machine, slots
from experiments.toolchain import NoGo, command, program, toolchain
from sim.go.params import VERSIONS
from sim.go.sizeclasses import class_to_allocnpages, class_to_size
from sim.go.world import World
from workloads.drive import Load
from workloads.estimate import bytes_a_malloc
from workloads.mixes import TEN_SIZES, ten_sizes
from workloads.spec import Workers

VERSION = "go1.27"
MACHINE = "epyc-2core"
PS = (1, 8, 64)
LIFETIME = 10_000  # mallocs until an object is dead, with GC off
LIVE = 50 << 20  # bytes live with GC on
OUR_MALLOCS = 16_000_000
SIMPY_MALLOCS = 1_000_000
GO_MALLOCS = 6_000_000
_WARM_UP = 200_000
_FAST, _REFILL = 20_000, 400_000  # picoseconds; SimPy takes as long for any other


@dataclass(frozen=True)
class Rates:
    """Mallocs a second of wall time at a number of Ps, a figure for each repetition; ``go`` None if it was not run."""

    ours: list[float]
    simpy: list[float]
    go: list[float] | None

    def to_dict(self) -> dict[str, float | None]:
        """The best of each, and how many times as fast ours is."""
        best = max(self.ours)
        return {
            "mallocs_per_s": best,
            "vs_simpy": best / max(self.simpy),
            "vs_go": best / max(self.go) if self.go else None,
        }


def lifetime(nprocs: int, collect: bool) -> int:
    """Mallocs of its goroutine until an object is dead."""
    return round(LIVE / bytes_a_malloc(ten_sizes(), VERSIONS[VERSION]) / nprocs) if collect else LIFETIME


def our_world(nprocs: int, mallocs: int, collect: bool = False) -> tuple[World, Load]:
    """A world in which one worker a P is about to make so many mallocs together, with GOGC=100 or off."""
    world = World(VERSION, nprocs, load_machine(MACHINE, VERSION), seed=1, gogc=_gogc(collect))
    load = Load(world)
    load.start_workers(Workers(nprocs, ten_sizes(lifetime(nprocs, collect))), mallocs)
    return world, load


def _gogc(collect: bool) -> int:
    return 100 if collect else -1


def mallocs_per_refill() -> int:
    """How many mallocs of the mix there are to a refill: a span class is refilled when its span's slots are used up."""
    facts, share = VERSIONS[VERSION], Fraction(0)
    for size in TEN_SIZES:
        for noscan in (False, True):
            header = 8 * (facts.malloc_header and not noscan and size > 512)
            at = int(np.searchsorted(class_to_size, size + header))
            share += Fraction(1, slots(facts, int(class_to_size[at]), int(class_to_allocnpages[at]), noscan))
    return round(2 * len(TEN_SIZES) / share)


def simpy_model(nprocs: int, mallocs: int) -> simpy.Environment:
    """The plain SimPy model, ready to run: exactly one timeout a malloc, those of refills under the lock."""
    env = simpy.Environment()
    lock = simpy.Resource(env, capacity=1)
    every = mallocs_per_refill()

    def process(n: int) -> Iterator[simpy.Event]:
        for i in range(n):
            if i % every:
                yield env.timeout(_FAST)
            else:
                with lock.request() as turn:
                    yield turn
                    yield env.timeout(_REFILL)

    for p in range(nprocs):
        env.process(process(mallocs // nprocs + (p < mallocs % nprocs)))  # type: ignore[arg-type]
    return env


def read_go(text: str) -> tuple[float, str]:
    """What the Go program printed: mallocs a second, and the version of Go; NoGo if it is something else."""
    try:
        answer = json.loads(text)
        return answer["mallocs"] / (answer["ns"] / 1e9), str(answer["go"])
    except (ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise NoGo(f"the Go program printed {text.strip()[:80]!r}, not its mallocs, ns and go") from error


def _rate(mallocs: int, run: Callable[[], object]) -> float:
    """Mallocs a second of wall time."""
    gc.collect()
    begun = time.perf_counter()
    run()
    return mallocs / (time.perf_counter() - begun)


def _run_ours(nprocs: int, mallocs: int, collect: bool) -> None:
    world, load = our_world(nprocs, mallocs, collect)
    world.run(until=load.done)


def _measure(
    nprocs: int, repeat: int, program: Path | None, scale: float, collect: bool
) -> tuple[Rates, str | None]:
    """Rates at a number of Ps, the three in turn; and Go's version."""
    ours, plain = int(OUR_MALLOCS * scale), int(SIMPY_MALLOCS * scale)
    _run_ours(nprocs, min(ours, _WARM_UP), collect)
    rates = Rates([], [], None if program is None else [])
    version = None
    for _ in range(repeat):
        rates.ours.append(_rate(ours, lambda: _run_ours(nprocs, ours, collect)))
        rates.simpy.append(_rate(plain, lambda: simpy_model(nprocs, plain).run()))
        if program is not None and rates.go is not None:
            wanted = {"procs": nprocs, "mallocs": int(GO_MALLOCS * scale)}
            wanted |= {"lifetime": lifetime(nprocs, collect), "gogc": _gogc(collect)}
            text = command([program, *(f"-{name}={value}" for name, value in wanted.items())])
            rate, version = read_go(text)
            rates.go.append(rate)
    return rates, version


def run_bench(
    repeat: int = 3,
    ps: Sequence[int] = PS,
    scale: float = 1.0,
    watch: Callable[[str], None] | None = None,
    collect: bool = False,
) -> dict[str, Any]:
    """Measure, at each number of Ps: ``{"bench": {"P1": {...}, ...}, "details": ...}``.

    ``bench`` has ``mallocs_per_s`` of the simulator and how many times that is of SimPy's (``vs_simpy``) and the real
    runtime's (``vs_go``, None without one; ``no_go`` in the details says why). ``scale`` multiplies the number of
    mallocs; ``watch`` is told what is being done. ``collect``: with GOGC=100 and `LIVE` bytes of live heap.
    """
    tell = watch or (lambda _: None)
    details: dict[str, Any] = {"repeat": repeat, "cpus": os.cpu_count(), "gc": collect, "go": None, "no_go": None}
    answer: dict[str, Any] = {"bench": {}, "details": details}

    def measure(program: Path | None) -> None:
        for nprocs in ps:
            tell(f"timing {nprocs} Ps ...")
            rates, version = _measure(nprocs, repeat, program, scale, collect)
            answer["bench"][f"P{nprocs}"] = rates.to_dict()
            details["go"] = version
            details[f"P{nprocs}"] = {
                "median_mallocs_per_s": median(rates.ours),
                "simpy_mallocs_per_s": max(rates.simpy),
                "go_mallocs_per_s": max(rates.go) if rates.go else None,
            }

    try:
        tell("building the Go program ...")
        with program(toolchain(), "bench") as built:
            measure(built)
    except NoGo as why:
        details["no_go"] = str(why)
        measure(None)
    return answer


def table(answer: dict[str, Any]) -> list[tuple[str, ...]]:
    """What `run_bench` returned as rows of text, the first one the heading. Millions of mallocs a second."""
    rows: list[tuple[str, ...]] = [("Ps", "simulated M/s", "median", "SimPy M/s", "ours/SimPy", "Go M/s", "ours/Go")]
    for name, found in answer["bench"].items():
        more = answer["details"][name]
        rates = (found["mallocs_per_s"], more["median_mallocs_per_s"], more["simpy_mallocs_per_s"])
        ours, middle, plain = (f"{rate / 1e6:.2f}" for rate in rates)
        real = "-" if found["vs_go"] is None else f"{more['go_mallocs_per_s'] / 1e6:.2f}"
        times = "-" if found["vs_go"] is None else f"{found['vs_go']:.2f}"
        rows.append((name[1:], ours, middle, plain, f"{found['vs_simpy']:.1f}", real, times))
    return rows
