"""A sweep's directory: what is to be run, and a record of each run that was made, written at once and whole.

    sweep.json            the sweep with every default, the code's version, and each point with the keys of its runs
    runs/KEY.json.gz      a record (record.py) of each run
    runs.*, series.*, histograms.*, gc_cycles.*   tables of all of them (tables.py), when every run was made
    host.json             where and when it was run last, and how long that took

A key stands for everything that decides a run: the resolved scenario, the seed, the version of the code. A sweep given
again goes on with the runs whose records are missing. One with more replications, or a list with more points at its end,
takes over what is there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.output import write_whole
from experiments.sweeps.code import code_version
from experiments.sweeps.points import Point, Run, runs_of
from experiments.sweeps.record import SCHEMA, Damaged, OtherVersion, Record, decode
from experiments.sweeps.spec import Range, Sweep
from sim import __version__

SWEEP = "sweep.json"
_RUNS = "runs"
_SUFFIX = ".json.gz"
_UNFINISHED = ".unfinished"
_MAX = 1 << 30  # bytes of a file that is read


@dataclass(frozen=True)
class Results:
    """A sweep's directory, read: ``sweep`` as JSON has it, points, and runs in their order."""

    directory: Path
    code: str
    sweep: dict[str, Any]
    points: list[Point]
    runs: list[Run]

    def has(self, run: Run) -> bool:
        """Whether there is a record of a run."""
        return self.path(run.key).exists()

    def path(self, key: str) -> Path:
        """Where the record of a key stands."""
        return self.directory / _RUNS / (key + _SUFFIX)

    def record(self, run: Run) -> Record:
        """The record of a run; InputError if there is none, or if it is damaged or of another version."""
        path = self.path(run.key)
        found = read_record(path, run.key)
        if found.code != self.code:
            raise InputError(
                f"{path}: was made by allocsim {found.code}, the sweep by {self.code}; run it in a new directory"
            )
        return found

    def records(self) -> Iterator[tuple[Run, Record]]:
        """Every run that was made, in order, with its record; failed ones too. InputError as `record` has it."""
        for run in self.runs:
            if self.has(run):
                yield run, self.record(run)

    def values(self, run: Run) -> dict[str, Any]:
        """The settings of a run's point."""
        return self.points[run.point].values


def read_record(path: Path, key: str) -> Record:
    """The record in a file; InputError, one line, if it is not whole and of this version."""
    try:
        with path.open("rb") as stream:
            held = stream.read(_MAX)
        found = decode(held)
        if found.key != key:
            raise Damaged(f"it is of run {found.key[:40]}")
    except Damaged as error:
        raise InputError(
            f"{path}: is damaged ({error}); give the command of the sweep again, which runs it again"
        ) from None
    except OtherVersion as error:
        raise InputError(f"{path}: is of {error}; this is {__version__}, which reads schema {SCHEMA}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from None
    return found


def read(name: str | Path) -> Results:
    """What a sweep's directory holds; InputError if it is none, or is damaged or of another schema."""
    path = Path(name) / SWEEP
    try:
        with path.open("rb") as stream:
            whole = json.loads(stream.read(_MAX))
    except FileNotFoundError:
        raise InputError(f"{name}: holds no sweep; name a directory that `allocsim sweep -o` wrote") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON: {str(error)[:80]}") from None
    if not isinstance(whole, dict) or type(whole.get("schema")) is not int:
        raise _damaged(path, "it names no schema")
    if whole["schema"] != SCHEMA:
        written = f"schema {whole['schema']}, written by allocsim {str(whole.get('allocsim'))[:20]}"
        raise InputError(f"{path}: is of {written}; this is {__version__}, which reads schema {SCHEMA}")
    try:
        points = [
            Point(number, dict(one["values"]), tuple(map(_key, one["keys"])))
            for number, one in enumerate(whole["points"])
        ]
        runs = runs_of(int(whole["sweep"]["seed"]), points)
        return Results(Path(name), str(whole["code"]), dict(whole["sweep"]), points, runs)
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(path, f"{type(error).__name__}: {str(error)[:80]}") from None


def _key(text: str) -> str:
    """A key as it may stand in a file's name."""
    if len(text) != 32 or not set(text) <= set("0123456789abcdef"):
        raise ValueError(f"{text[:40]!r} is no key")
    return text


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path}: is damaged ({what}); give the command of the sweep again, with a new directory")


@contextmanager
def opened(name: str | Path, sweep: Sweep, points: Sequence[Point]) -> Iterator[Results]:
    """The directory of a sweep, to be written by this process alone: a new one, or the one that was begun.

    InputError, with everything in it left as it is, if it holds something else or cannot be written.
    """
    target = Path(name)
    if not str(name) or "\0" in str(name):
        raise InputError(f"{name!r}: is no directory; name one with -o")
    try:
        target.mkdir(exist_ok=True)
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        raise InputError(f"{name}: there is no directory {target.parent}; make it first") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be written ({error.strerror}); name another directory with -o") from None
    try:
        _lock(descriptor, target)
        if not (target / SWEEP).exists() and any(not one.name.startswith(".") for one in target.iterdir()):
            raise InputError(f"{name}: exists and holds no sweep; name a new directory with -o")
        found = Results(target, code_version(), _described(sweep), list(points), runs_of(sweep.seed, list(points)))
        before = read(target) if (target / SWEEP).exists() else None
        if before is not None:
            _check_same(found, before)
        _make(found, before)
        yield found
    finally:
        os.close(descriptor)


def _lock(descriptor: int, target: Path) -> None:
    """Hold the directory until its descriptor is closed, or the process ends, however it does."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise InputError(f"{target}: another sweep is at work in it; wait for its end, or end it") from None
        # a file system without locks: nobody is kept away


def _described(sweep: Sweep) -> dict[str, Any]:
    """A sweep as JSON has it, with every default."""
    axes = {key: asdict(axis) if isinstance(axis, Range) else list(axis) for key, axis in sweep.axes.items()}
    return {
        "purpose": sweep.purpose,
        "scenario": sweep.scenario,
        "kind": sweep.kind,
        "replications": sweep.replications,
        "seed": sweep.seed,
        "samples": sweep.samples,
        "set": dict(sweep.set),
        "axes": axes,
    }


def _check_same(now: Results, before: Results) -> None:
    """InputError unless the runs of a directory are among those of the sweep that is to go on in it."""
    where, other = now.directory, "name a new directory with -o"
    if before.code != now.code:
        what = f"was begun by allocsim {before.code}, this is {now.code}, whose results may differ"
        raise InputError(f"{where}: {what}; {other}, or go on with that version")
    grows = now.sweep["kind"] == before.sweep.get("kind") == "list" and len(before.points) < len(now.points)
    if len(before.points) != len(now.points) and not grows:
        raise InputError(
            f"{where}: holds another sweep, of {len(before.points)} points, not {len(now.points)}; {other}"
        )
    for old, new in zip(before.points, now.points, strict=False):
        if old.values != new.values:
            raise InputError(
                f"{where}: holds another sweep: its point {old.number} is {_told(old)}, not {_told(new)}; {other}"
            )
        if any(a != b for a, b in zip(old.keys, new.keys, strict=False)):
            what = f"scenario, [set] or seed of its point {old.number} ({_told(old)}) were others"
            raise InputError(f"{where}: holds another sweep: {what}; {other}")
        if len(old.keys) > len(new.keys):
            what = f"holds {len(old.keys)} replications, not {len(new.keys)}"
            raise InputError(f"{where}: {what}; ask for as many or more, or {other}")


def _told(point: Point) -> str:
    return ", ".join(f"{key} = {value}" for key, value in point.values.items())


def _make(results: Results, before: Results | None) -> None:
    """Write down what is to be run, unless it is written."""
    try:
        (results.directory / _RUNS).mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{results.directory}: cannot be written ({error.strerror}); make room for it") from None
    if before is not None and (before.points, before.sweep) == (results.points, results.sweep):
        return
    points = [{"values": point.values, "keys": point.keys} for point in results.points]
    whole = {"schema": SCHEMA, "allocsim": __version__, "code": results.code, "sweep": results.sweep, "points": points}
    write_whole(results.directory / SWEEP, json.dumps(whole, indent=1) + "\n")


def keep(results: Results, key: str, record: bytes) -> None:
    """Write the record of a run, whole or not at all; InputError if there is no room for it."""
    path = results.path(key)
    unfinished = path.parent / _UNFINISHED
    try:
        with unfinished.open("wb") as stream:
            stream.write(record)
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        what = (
            f"cannot be written ({error.strerror}); make room and give the same command again, which goes on from here"
        )
        raise InputError(f"{path}: {what}") from error
