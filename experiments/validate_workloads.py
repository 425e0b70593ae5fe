"""The workloads of ``allocsim validate``: all are for validation, none has anything to do with what prices come from."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from experiments.calibrate_host import cpus
from experiments.errors import InputError
from workloads.scenario import Scenario, ScenarioError, load

_FOLDER = Path(__file__).parent / "validation"
_GRID_MALLOCS = {1: 2_000_000, 50: 3_000_000, 500: 7_000_000}  # by MB live: five cycles and more
_GRID_MEAN = 482  # bytes of an object of the grid
_GRID_LONG, _GRID_CACHE = 0.5, 0.1  # shares of its mallocs that live for long, in order and at random


@dataclass(frozen=True, slots=True)
class Workload:
    """A validation workload: a file of ``validation/``, and what it is set to."""

    name: str
    file: str
    sets: tuple[str, ...] = ()

    def scenario(self, version: str, machine: str | None) -> Scenario:
        """The scenario for a simulated version, on as many CPUs as this process may use; InputError if it cannot be used."""
        sets = [*self.sets, f"runtime.version={version}", f"machine.cpus={cpus()}"]
        if machine is not None:
            sets.append(f"machine.prices={machine}")
        try:
            found = load(_FOLDER / self.file, sets)
        except ScenarioError as error:
            raise InputError(str(error)) from None
        return replace(found, name=self.name)


def _grid(live: int, procs: int, workers: int) -> Workload:
    """A live heap of so many MB, four fifths of it in what dies in order; shared out among the workers."""
    held = live * 1_000_000 / workers / _GRID_MEAN
    return Workload(
        f"grid-{live}MB-P{procs}-W{workers}",
        "grid.toml",
        (
            f"runtime.gomaxprocs={procs}",
            f"workload.goroutines={workers}",
            f"run.mallocs={_GRID_MALLOCS[live]}",
            f"workload.objects.1.lifetime={{ ops = {round(0.8 * held / _GRID_LONG)} }}",
            f"workload.objects.2.lifetime={{ cache = {round(0.2 * held)} }}",
        ),
    )


WORKLOADS = (
    *(_grid(live, procs, workers) for live in (1, 50, 500) for procs in (1, 2) for workers in (1, 2)),
    Workload("service", "service.toml"),
    Workload("cache", "cache.toml"),
    Workload("trees", "trees.toml"),
)


def chosen(pattern: str | None) -> list[Workload]:
    """The workloads whose names match; InputError if none does."""
    found = [one for one in WORKLOADS if pattern is None or fnmatch(one.name, pattern)]
    if not found:
        raise InputError(f"--only {pattern}: is no workload; some are {', '.join(one.name for one in WORKLOADS[-5:])}")
    return found
