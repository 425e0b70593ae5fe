"""Executors at work: batches of runs go out, records come back, whoever dies on the way is replaced.

Any ``concurrent.futures.Executor`` does. Batches are as large as it takes to keep a worker busy for half a second by
what runs took so far. When a process of a pool dies, the whole pool is lost and every batch in flight with it: those
runs are made again. A run that was in flight at two such deaths is made with nothing beside it, and one that its worker
does not survive then either has failed, so that no run can keep a sweep from its end.
"""

from __future__ import annotations

import math
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from multiprocessing import get_context
from types import ModuleType
from typing import Protocol

from experiments.errors import InputError
from experiments.sweeps.record import encode
from experiments.sweeps.work import Done, Task, begin, execute, failed

_TASK_SECONDS = 0.5  # how long a batch should keep a worker
_AHEAD = 2  # batches in flight for each worker, so that none waits for its next one
_LOOK = 0.1  # seconds between looks at Ctrl-C
_ALONE, _TOO_OFTEN = 2, 3  # deaths of workers after which a run is made alone, and not again


class Crew(Protocol):
    """Who works: an executor that may break and be replaced."""

    def workers(self) -> int:
        """How many runs can be made at a time."""

    def submit(self, code: str, tasks: Sequence[Task]) -> Future[list[Done]]:
        """Hand out a batch."""

    def replace(self) -> None:
        """Take a new executor for a broken one; InputError if there is no other."""


class Processes:
    """Worker processes of our own, spawned; an executor for one sweep."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool = self._new()

    def _new(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._jobs, get_context("spawn"), begin)

    def workers(self) -> int:
        """As many as there are processes."""
        return self._jobs

    def submit(self, code: str, tasks: Sequence[Task]) -> Future[list[Done]]:
        """Hand out a batch; processes are started when they are needed."""
        with _apart():
            return self._pool.submit(execute, code, tasks)

    def replace(self) -> None:
        """New processes for those of a broken pool."""
        self.end()
        self._pool = self._new()

    def end(self) -> None:
        """End the processes, whatever they are at."""
        for process in list((self._pool._processes or {}).values()):  # Executor.kill_workers came with Python 3.14
            process.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _apart() -> Iterator[None]:
    """A context in which processes that are spawned do not import the program that runs here: they need nothing of it.

    A user's script would otherwise be run by each worker, and start sweeps of its own. Nor does Ctrl-C reach them, from
    their first moment on.
    """
    main = sys.modules["__main__"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Given:
    """An executor that a user brought, with so many workers; what breaks it is its owner's affair."""

    def __init__(self, executor: Executor, workers: Callable[[], int]) -> None:
        self._executor, self._workers = executor, workers

    def workers(self) -> int:
        """As the owner says."""
        return max(1, self._workers())

    def submit(self, code: str, tasks: Sequence[Task]) -> Future[list[Done]]:
        """Hand out a batch."""
        return self._executor.submit(execute, code, tasks)

    def replace(self) -> None:
        """InputError."""
        raise InputError("the executor broke; give the same command again with a new one, which goes on from here")


class Work:
    """Runs to be made by a crew. ``keep`` is told each one made, at once; ``first_alone``: one goes ahead, and compiles."""

    def __init__(
        self, code: str, tasks: Sequence[Task], crew: Crew, keep: Callable[[Done], None], first_alone: bool = False
    ) -> None:
        self._code, self._crew, self._keep = code, crew, keep
        self._waiting = deque(tasks)
        self._suspects: deque[Task] = deque()
        self._flying: dict[Future[list[Done]], Sequence[Task]] = {}
        self._deaths: Counter[str] = Counter()
        self._made, self._seconds = 0, 0.0
        self._first_alone = first_alone

    def run(self, stop: Callable[[], bool], look: Callable[[], None]) -> bool:
        """Make every run, or as many as there are until ``stop()``; whether all were made. ``look`` is called often."""
        while self._waiting or self._suspects or self._flying:
            stopped = stop()
            if not stopped:
                self._hand_out()
            done, _ = wait(self._flying, 0 if stopped else _LOOK, FIRST_COMPLETED)
            for future in done:
                if future in self._flying:  # no longer, if it broke with the pool
                    self._take(future)
            look()
            if stopped:
                return False
        return True

    def _hand_out(self) -> None:
        """Keep every worker busy."""
        ahead = _AHEAD * self._crew.workers()
        if self._first_alone and not self._made:
            ahead = 1
        while self._waiting and len(self._flying) < ahead and not self._suspects:
            size = min(self._batch(), len(self._waiting))
            self._submit([self._waiting.popleft() for _ in range(size)])
        if self._suspects and not self._flying:
            self._submit([self._suspects.popleft()])

    def _batch(self) -> int:
        """How many runs keep a worker for long enough, and leave some to the others."""
        if not self._made:
            return 1
        wanted = math.ceil(_TASK_SECONDS * self._made / max(self._seconds, 1e-6))
        return max(1, min(wanted, math.ceil(len(self._waiting) / self._crew.workers())))

    def _submit(self, tasks: Sequence[Task]) -> None:
        try:
            self._flying[self._crew.submit(self._code, tasks)] = tasks
        except BrokenExecutor:
            self._broken(tasks)

    def _take(self, future: Future[list[Done]]) -> None:
        """What became of a batch."""
        tasks = self._flying[future]
        try:
            found = future.result()
        except BrokenExecutor:
            self._broken(())
            return
        except InputError:
            raise
        except CancelledError:
            raise InputError("the executor went away; give the same command again, which goes on from here") from None
        except ImportError as error:
            raise InputError(f"a worker cannot import allocsim ({error}); install it on every machine") from None
        except Exception as error:  # noqa: BLE001 - whatever an executor meets, the sweep goes on
            del self._flying[future]
            self._again_or_failed(tasks, error)
            return
        del self._flying[future]
        for done in found:
            self._made += 1
            self._seconds += done.seconds
            self._keep(done)

    def _again_or_failed(self, tasks: Sequence[Task], error: Exception) -> None:
        """A batch that an executor could not do: each run by itself, or the end of it."""
        if len(tasks) > 1:
            for task in tasks:
                self._submit([task])
        else:
            self._fail(tasks[0], f"{type(error).__name__}: {error}")

    def _fail(self, task: Task, what: str) -> None:
        self._keep(Done(task.key, encode(failed(task.key, self._code, what)), True, 0.0))

    def _broken(self, unsent: Sequence[Task]) -> None:
        """The pool is lost with all that was in flight."""
        lost = [task for tasks in self._flying.values() for task in tasks]
        for future in list(self._flying):
            if future.done() and future.exception() is None:
                lost = [task for task in lost if task not in self._flying[future]]
                self._take(future)
        self._flying.clear()
        self._waiting.extendleft(reversed(unsent))
        self._crew.replace()
        for task in reversed(lost):
            self._deaths[task.key] += 1
            if self._deaths[task.key] >= _TOO_OFTEN:
                self._fail(task, f"{_TOO_OFTEN} workers died of it, or were killed; give them more memory, or it less")
            elif self._deaths[task.key] >= _ALONE:
                self._suspects.append(task)
            else:
                self._waiting.appendleft(task)
