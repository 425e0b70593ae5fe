"""A sweep carried out: what is missing in its directory is run, then its tables are written."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import InputError
from experiments.output import write_whole
from experiments.progress import announce_compile
from experiments.result import host, json_text
from experiments.sweeps import store, tables
from experiments.sweeps.code import file_digest
from experiments.sweeps.points import Run, files_of, points_of
from experiments.sweeps.pool import Crew, Given, Processes, Work
from experiments.sweeps.spec import Sweep
from experiments.sweeps.store import Results
from experiments.sweeps.summary import Summary
from experiments.sweeps.work import Done, Task

if TYPE_CHECKING:
    from workloads.scenario import Scenario

Progress = Callable[[int, int], None]
"""Told how many runs were made, and of how many that were missing."""


@dataclass(frozen=True)
class Outcome:
    """What became of a sweep: whether every run was made, how many were made now and how many of those failed.

    If every one was made: the files written, and what was found in short (summary.py).
    """

    results: Results
    whole: bool
    made: int
    failed: int
    written: Sequence[Path] = ()
    summary: Mapping[str, Any] = field(default_factory=dict)


def run_sweep(
    sweep: Sweep,
    directory: str | Path,
    executor: Executor | None = None,
    jobs: int | None = None,
    formats: Sequence[str] = (),
) -> Results:
    """Run what is missing of a sweep in a directory, new or begun before, and write its tables; what it holds.

    ``executor``: any of concurrent.futures, with ``jobs`` workers; if none is given, as many processes of our own, or
    one for each CPU. InputError, one line, if it cannot be done; runs that fail leave their errors in the tables.
    """
    wanted = tables.formats(formats)
    count = jobs or len(os.sched_getaffinity(0))
    with crew_of(count) if executor is None else nullcontext(Given(executor, lambda: count)) as crew:
        return carry_out(sweep, directory, crew, wanted).results


@contextmanager
def crew_of(jobs: int) -> Iterator[Crew]:
    """So many worker processes, ended when the context is."""
    crew = Processes(jobs)
    try:
        yield crew
    finally:
        crew.end()


def carry_out(
    sweep: Sweep,
    directory: str | Path,
    crew: Crew,
    formats: Sequence[str],
    progress: Progress = lambda made, missing: None,
    interrupted: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Run what is missing of a sweep; `Outcome`. ``warn`` is told of damaged records, which are made again."""
    begun = time.time()
    points, scenarios = points_of(sweep)
    with store.opened(directory, sweep, points) as results:
        whole, made, failed = make_missing(results, scenarios, crew, progress, interrupted, warn)
        if not whole:
            return Outcome(results, False, made, failed)
        seen = Summary(results)
        written = tables.write(results, formats, seen.add)
        write_whole(results.directory / "host.json", json_text(host(begun)) + "\n")
    return Outcome(results, True, made, failed, written, seen.found())


def make_missing(
    results: Results,
    scenarios: Sequence[Scenario],
    crew: Crew,
    progress: Progress,
    interrupted: Callable[[], bool],
    warn: Callable[[str], None],
) -> tuple[bool, int, int]:
    """Make the runs that are missing in a directory: whether all were made, how many now, how many of these failed.

    ``scenarios``: of each point.
    """
    tasks = list(_missing(results, scenarios, warn))
    made = failed = 0

    def keep(done: Done) -> None:
        nonlocal made, failed
        store.keep(results, done.key, done.record)
        made += 1
        failed += done.failed

    cold = bool(tasks) and isinstance(crew, Processes) and announce_compile()
    work = Work(results.code, tasks, crew, keep, cold)
    whole = work.run(interrupted, lambda: progress(made, len(tasks)))
    return whole, made, failed


def _missing(results: Results, scenarios: Sequence[Scenario], warn: Callable[[str], None]) -> Iterator[Task]:
    """The runs without a record of what came out, each once, in order."""
    seen = set()
    digest = cache(file_digest)
    for run in results.runs:
        if run.key not in seen and not _made(results, run, warn):
            scenario = replace(scenarios[run.point], seed=run.seed)
            yield Task(run.key, scenario, tuple((path, digest(path)) for path in files_of(scenario)))
        seen.add(run.key)


def _made(results: Results, run: Run, warn: Callable[[str], None]) -> bool:
    """Whether there is a whole record of a run, and not of a failure, which is tried again."""
    if not results.has(run):
        return False
    try:
        return results.record(run).error is None
    except InputError as error:
        warn(str(error))
        return False
