"""What a worker does: a batch of runs, one after the other, each to the bytes of its record.

A worker imports and loads the simulator once. Only records travel back, no logs of events.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.errors import InputError
from experiments.sweeps.code import code_version, file_digest
from experiments.sweeps.record import Record, encode, record_of
from sim.units import Throw

if TYPE_CHECKING:
    from workloads.scenario import Scenario


_TURN = threading.Lock()
"""One run at a time in a process: threads would only wait for each other, and the simulator knows nothing of them."""


@dataclass(frozen=True, slots=True)
class Task:
    """A run to be made, recorded under ``key``. ``files``: what the scenario names, and digests of what they hold."""

    key: str
    scenario: Scenario
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """A run made: the bytes of its record, whether that is of an error, and how many seconds it took on the wall."""

    key: str
    record: bytes
    failed: bool
    seconds: float


def execute(code: str, tasks: Sequence[Task]) -> list[Done]:
    """Run a batch; a run that fails leaves a record of its error.

    InputError if this worker's code is not the sweep's, or a file that a scenario names does not hold what it held.
    """
    if code != code_version():
        raise InputError(f"a worker has allocsim {code_version()}, the sweep {code}; install the same on every machine")
    with _TURN:
        return [_one(code, task) for task in tasks]


def _one(code: str, task: Task) -> Done:
    begun = time.perf_counter()
    record = _record(code, task)
    for path, digest in task.files:
        if file_digest(path) != digest:
            what = "was changed while the sweep ran, or is another on this worker"
            raise InputError(f"{path}: {what}; put back what it was, or run the sweep in a new directory")
    return Done(task.key, encode(record), record.error is not None, time.perf_counter() - begun)


def _record(code: str, task: Task) -> Record:
    from experiments.run import run

    try:
        return record_of(task.key, code, run(task.scenario))
    except InputError as error:
        what = str(error)
    except Throw as error:
        what = f"an invariant of the simulator is broken: {error}"
    except MemoryError:
        what = "out of memory"
    except Exception as error:  # noqa: BLE001 - the sweep goes on, and this point says why it has no result
        what = f"{type(error).__name__}: {error}"
    return failed(task.key, code, what)


def failed(key: str, code: str, what: str) -> Record:
    """The record of a run without a result."""
    return Record(key, code, error=" ".join(what.split()))


def begin() -> None:
    """Prepare a worker process of ours: Ctrl-C is its parent's affair, and it ends when that does, however it ends."""
    from multiprocessing import parent_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
