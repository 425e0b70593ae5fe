"""What a sweep costs beyond its runs: ``python -m experiments.bench_sweeps [--replications N] [--set KEY=VALUE]``.

The sweep `gc-settings` (80 points, 5 seeds) is made four times, three of them with its tables:

- *bare*: `experiments.run.run`, run after run in this process, nothing kept; compiled and imported before.
- *start*: a sweep of one run of a hundredth of a millisecond by one process: what any sweep takes once, to begin a worker
  that imports the simulator, and to import what writes tables.
- *1 process*, *2 processes*: `run_sweep` with so many workers, from nothing but the compiled code on disk. What one
  process takes beyond bare and start, over the number of runs, is the overhead of a run: handing out batches, making,
  keeping and reading records, writing tables.
- *Dask*: two worker processes of a scheduler on loopback, which were there before, but had not imported the simulator.

CPU time is that of this process and of all that it started. How busy others kept the machine stands beside each line.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Self

import click

from experiments.calibrate_host import Account, cpus, describe
from experiments.cli_sweep import settings
from experiments.errors import InputError
from experiments.run import run
from experiments.sweeps import Sweep, run_sweep
from experiments.sweeps.points import points_of
from experiments.sweeps.spec import read_sweep

SWEEP = "gc-settings"
_WORKERS = 2


class Timed:
    """Seconds on the wall and of CPUs that a context took, and the percentage of the CPUs' time that others took."""

    def __enter__(self) -> Self:
        self._before = Account.now()
        return self

    def __exit__(self, *error: object) -> None:
        before, after = self._before, Account.now()
        self.wall, self.cpu = after.wall - before.wall, after.ours - before.ours
        busy = after.busy - before.busy + after.stolen - before.stolen
        self.others = 100 * max(0.0, busy - self.cpu) / (self.wall * (os.cpu_count() or 1))


def bare(sweep: Sweep) -> Timed:
    """Every run of a sweep in this process, after one that does not count."""
    points, scenarios = points_of(sweep)
    run(scenarios[0])
    with Timed() as found:
        for point, scenario in zip(points, scenarios, strict=True):
            for replicate in range(len(point.keys)):
                run(replace(scenario, seed=sweep.seed + replicate))
    return found


def by_processes(sweep: Sweep, directory: Path, jobs: int) -> Timed:
    """The sweep by worker processes of its own, from their start to their end."""
    with Timed() as found:
        run_sweep(sweep, directory, jobs=jobs)
    return found


def by_dask(sweep: Sweep, directory: Path) -> tuple[Timed, float]:
    """The sweep through a scheduler and workers on loopback: with their start and end, and the sweep's seconds alone."""
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise InputError("distributed is not installed; pip install 'allocsim[cluster]'") from None
    one = {"n_workers": _WORKERS, "threads_per_worker": 1, "processes": True, "dashboard_address": None}
    with (
        Timed() as found,
        LocalCluster(**one, host="127.0.0.1", silence_logs=50) as cluster,
        Client(cluster) as client,
    ):
        client.wait_for_workers(_WORKERS)
        begun = time.monotonic()
        run_sweep(sweep, directory, client.get_executor(), _WORKERS)
        alone = time.monotonic() - begun
    return found, alone


def tables(directory: Path) -> dict[str, bytes]:
    """The tables in a sweep's directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix in (".parquet", ".csv")}


@contextmanager
def _own_folder(name: Path | None) -> Iterator[Path]:
    """A folder for results: a new one of this name, or one that is gone afterwards."""
    if name is not None:
        try:
            name.mkdir()
        except OSError as error:
            raise InputError(f"{name}: cannot be made ({error.strerror}); name a new folder") from None
    with nullcontext(str(name)) if name is not None else tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def measure(sweep: Sweep, folder: Path, say: Callable[[str], None]) -> bool:
    """Make the sweep in every way, saying what each took; whether all made the same tables."""
    points, _ = points_of(sweep)
    runs = len(points) * sweep.replications
    say(f"{runs} runs of {sweep.scenario}; {describe()}; load {os.getloadavg()[0]:.2f} before")
    alone = bare(sweep)
    per_run = f"{1e3 * alone.cpu / runs:.1f} ms of CPU a run"
    say(_line("bare", alone, per_run))
    least = replace(sweep, axes={"gogc": [100]}, replications=1, set={**sweep.set, "run.duration": "10us"})
    start = by_processes(least, folder / "start", 1)
    say(_line("start", start, "once for each sweep"))
    one = by_processes(sweep, folder / "one", 1)
    wall, cpu = one.wall - alone.wall - start.wall, one.cpu - alone.cpu - start.cpu
    more = f"overhead of a run {100 * wall / alone.wall:+.1f} % wall, {100 * cpu / alone.cpu:+.1f} % CPU"
    whole = f"with the start {100 * (one.wall / alone.wall - 1):+.1f} %, {100 * (one.cpu / alone.cpu - 1):+.1f} %"
    say(_line("1 process", one, f"{more} ({1e3 * cpu / runs:.1f} ms); {whole}"))
    two = by_processes(sweep, folder / "two", _WORKERS)
    say(_line("2 processes", two, f"{two.wall / one.wall:.3f} of the wall time of one"))
    dask, seconds = by_dask(sweep, folder / "dask")
    say(_line("Dask", dask, f"{seconds:.1f} s without starting and ending workers, {seconds / one.wall:.3f} of one"))
    made = [tables(folder / name) for name in ("one", "two", "dask")]
    same = made[0] == made[1] == made[2] and bool(made[0])
    say(f"tables ({', '.join(sorted(made[0]))}): {'the same bytes in all three' if same else 'THEY DIFFER'}")
    return same


def _line(what: str, took: Timed, says: str) -> str:
    return f"{what:12} {took.wall:7.1f} s wall {took.cpu:7.1f} s CPU, others {took.others:3.0f} %   {says}"


@click.command("bench_sweeps", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--replications", type=click.IntRange(1, 100), default=5, show_default=True, help="Seeds of each point.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change a value of all points; repeatable.")
@click.option("--keep", type=click.Path(path_type=Path), metavar="DIR", help="Keep the three sweeps in DIR, a new one.")
def main(replications: int, sets: tuple[str, ...], keep: Path | None) -> None:
    """Measure what a sweep costs beyond its runs; exit status 1 if its tables differ by how it was made."""
    try:
        if cpus() < _WORKERS:
            raise InputError(f"this machine has {cpus()} CPU; {_WORKERS} are needed")
        sweep = replace(read_sweep(SWEEP, settings(SWEEP, sets)), replications=replications)
        with _own_folder(keep) as folder:
            same = measure(sweep, folder, click.echo)
    except InputError as error:
        click.echo(f"bench_sweeps: {error}", err=True)
        raise click.exceptions.Exit(2) from None
    raise click.exceptions.Exit(0 if same else 1)


if __name__ == "__main__":
    main()
