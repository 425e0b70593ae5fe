"""Run a user's program and gather what `allocsim replay` and `allocsim fit` take, in one new directory.

    record.json    the command, its settings, the Go version if that can be told, when and where, exit status, files
    gctrace.txt    the lines of GODEBUG=gctrace=1 out of its stderr; all other output goes where it went
    trace          an execution trace with allocation events: of a test, or of a program that serves net/http/pprof
    heap.pb.gz     a heap profile, of the same; allocs.pb.gz: the same as the server has it under that name

The directory is written beside its place and renamed, so that it is there whole or not at all; a command that fails or
is interrupted leaves what was gathered until then. Ctrl-C is the command's: a terminal sends it to both, and this
process forwards what was sent to it alone.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from experiments.errors import InputError
from experiments.record_plan import Plan, plan
from experiments.record_streams import Fetcher, Splitter, pump, wait_for
from experiments.result import free_directory
from workloads.recorded_files import ALLOCS, LOG, PROFILE, RECORD, TRACE

_DRAIN = 2.0  # seconds that output may come after the command's end, from what it left behind
_SETTINGS = ("GOGC", "GOMEMLIMIT", "GOMAXPROCS")


@dataclass(frozen=True)
class Recorded:
    """What `record` did: exit status of the command, the directory, its record.json, and what is missing there."""

    status: int
    directory: Path
    told: dict[str, Any]
    cycles: int
    notes: tuple[str, ...]


def record(command: Sequence[str], output: str | None, *, url: str | None, seconds: float, trace: bool) -> Recorded:
    """Run a command and gather; InputError, before it runs, where that cannot work."""
    name = Path(command[0]).name.removesuffix(".exe").removesuffix(".test")
    target = free_directory(output if output is not None else f"{name}.record")
    fetcher = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=".allocsim-", dir=target.parent))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); name another directory with -o") from None
    try:
        made = plan(command, folder, os.environ, trace=trace)
        if url is not None:
            fetcher = Fetcher(url, seconds, folder, trace=made.trace)
            fetcher.check_free()
        begun = time.time()
        status, cycles = _run(made, folder, fetcher)
        notes = [*made.notes, *_gather(made, folder, begun), *(fetcher.notes if fetcher is not None else [])]
        if cycles or not status:  # else the command's own words are enough
            notes += _missing(made, folder, cycles, url, trace=trace)
        told = _told(command, made, folder, begun, status)
        (folder / RECORD).write_text(f"{json.dumps(told, indent=2)}\n", encoding="utf-8")
        umask = os.umask(0)
        os.umask(umask)
        folder.chmod(0o777 & ~umask)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise InputError(
            f"{error.filename or target}: {error.strerror}; make room or name another directory with -o"
        ) from error
    try:
        folder.rename(target)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); what was gathered is in {folder}") from error
    return Recorded(status, target, told, cycles, tuple(notes))


def _run(made: Plan, folder: Path, fetcher: Fetcher | None) -> tuple[int, int]:
    """Run the command to its end; its exit status, and how many lines of gctrace came."""
    keeper = None
    if made.fifo is not None:
        os.mkfifo(made.fifo)
        reader = os.open(made.fifo, os.O_RDONLY | os.O_NONBLOCK)
        keeper = os.open(made.fifo, os.O_WRONLY)  # so that the fifo does not end before the program begins
        os.set_blocking(reader, True)
    with (folder / LOG).open("wb") as kept, _signals() as forward_to:
        splitter = Splitter(kept, sys.stderr.buffer)
        stderr = None if made.fifo is not None else subprocess.PIPE
        try:
            child = subprocess.Popen(made.argv, env=made.environment, stderr=stderr)
        except OSError as error:
            raise InputError(
                f"{made.argv[0]}: cannot be run ({error.strerror}); name a program of this machine"
            ) from None
        forward_to(child)
        if made.fifo is None:
            assert child.stderr is not None
            reader = os.dup(child.stderr.fileno())
            child.stderr.close()
        pumping = threading.Thread(target=pump, args=(reader, splitter), daemon=True)
        pumping.start()
        if fetcher is not None:
            fetcher.start()
        status = child.wait()
        if fetcher is not None:
            fetcher.finish()
        if keeper is not None:
            os.close(keeper)
        wait_for(lambda: not pumping.is_alive(), _DRAIN)
    return (128 - status if status < 0 else status), splitter.cycles


@contextmanager
def _signals() -> Iterator[Callable[[subprocess.Popen[bytes]], None]]:
    """A context in which SIGINT and SIGTERM are a child's: forwarded, but for a Ctrl-C that it gets anyhow."""
    children: list[subprocess.Popen[bytes]] = []
    early: list[int] = []  # signals that came before the child was known

    def forward(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and _in_foreground():
            return
        if children:
            children[0].send_signal(number)
        else:
            early.append(number)

    def forward_to(child: subprocess.Popen[bytes]) -> None:
        children.append(child)
        for number in early:
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield forward_to
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Whether the terminal sends Ctrl-C to this process and its children."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _gather(made: Plan, folder: Path, begun: float) -> Iterator[str]:
    """Copy what the command wrote elsewhere, drop what is not kept; what did not come, a line each."""
    for name, path in made.outputs.items():
        if path == folder / name:
            continue
        try:
            if path.stat().st_mtime < begun - 1:
                raise FileNotFoundError
            shutil.copyfile(path, folder / name)
        except OSError:
            yield f"{path}: was not written by the command"
    for path in made.remove:
        path.unlink(missing_ok=True)
    for path in folder.iterdir():
        if not path.stat().st_size or path.name.startswith("."):
            path.unlink()


def _missing(made: Plan, folder: Path, cycles: int, url: str | None, *, trace: bool) -> Iterator[str]:
    """What is not there and how to get it, a line each."""
    if not cycles:
        yield "no collection was printed: the command is no Go program, drops its environment, or never collected"
    if made.kind == "program" and url is None:
        yield "no trace or heap profile: a program that serves net/http/pprof is asked for them with --pprof URL"
    elif trace and made.kind != "program" and TRACE in made.outputs and not (folder / TRACE).exists():
        yield "no trace: the command did not come to run a test"


def _told(command: Sequence[str], made: Plan, folder: Path, begun: float, status: int) -> dict[str, Any]:
    """What record.json holds."""
    environment: Mapping[str, str] = made.environment
    return {
        "command": list(command),
        "kind": made.kind,
        "GODEBUG": made.godebug,
        **{name: environment.get(name) for name in _SETTINGS},
        "go": made.go,
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "seconds": round(time.time() - begun, 3),
        "status": status,
        "host": platform.node(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "files": sorted(path.name for path in folder.iterdir() if path.name in (LOG, TRACE, PROFILE, ALLOCS)),
    }
