"""What a recorded program says on stderr, and what it serves: gctrace lines are kept, all else goes on at once."""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from experiments.errors import InputError
from sim.metrics.gctrace import GC_FORCED
from workloads.gctrace_log import MAX_LINE, gctrace_part

_CHUNK = 1 << 16
_MAYBE = re.compile(r"(?<![\w.])g(?:c(?: .*)?)?$")
_POLL = 0.1  # seconds
_PATIENCE = 10.0  # seconds that an answer may take longer than asked for


class Splitter:
    """Parts gctrace lines from other output. What may become one is held back until its line ends."""

    def __init__(self, kept: BinaryIO, passed: BinaryIO) -> None:
        self._kept, self._passed = kept, passed
        self._before = ""  # the end of what was passed on of the line under way
        self._held = ""
        self.cycles = 0

    def feed(self, data: bytes) -> None:
        """More output."""
        *lines, rest = (self._held + data.decode("utf-8", "surrogateescape")).split("\n")
        passed = []
        for line in lines:
            passed.append(self._line(line))
            self._before = ""
        at = self._maybe(rest)
        self._held = rest[at:]
        self._before = (self._before + rest[:at])[-1:]
        self._pass("".join([*passed, rest[:at]]))

    def end(self) -> None:
        """No more: what is held back goes where it belongs."""
        self._pass(self._line(self._held).removesuffix("\n"))
        self._held = ""
        self._kept.flush()

    def _maybe(self, rest: str) -> int:
        """Where a line of gctrace may begin in one that has not ended."""
        if not self._before and rest and GC_FORCED.startswith(rest):
            return 0
        found = _MAYBE.search(self._before + rest) if len(rest) <= MAX_LINE else None
        return len(rest) if found is None else found.start() - len(self._before)

    def _line(self, line: str) -> str:
        """Keep a line of gctrace; what is to be passed on of it."""
        part = gctrace_part(self._before + line)
        if part is None and (self._before or line != GC_FORCED):
            return f"{line}\n"
        found = part if part is not None else line
        self.cycles += part is not None
        self._kept.write(f"{found}\n".encode("utf-8", "surrogateescape"))
        return line[: line.index(found)]

    def _pass(self, text: str) -> None:
        if text:
            self._passed.write(text.encode("utf-8", "surrogateescape"))
            self._passed.flush()


def pump(descriptor: int, splitter: Splitter) -> None:
    """Feed a splitter from a file descriptor to its end, and close that."""
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        while data := stream.read(_CHUNK):
            splitter.feed(data)
    splitter.end()


class Fetcher:
    """Fetches profiles of a program that serves net/http/pprof, in a thread, as soon as it answers.

    ``notes``: what went wrong, a line each.
    """

    def __init__(self, url: str, seconds: float, folder: Path, *, trace: bool) -> None:
        self.base, self._seconds, self._folder, self._trace = base_of(url), seconds, folder, trace
        self.notes: list[str] = []
        self.done = threading.Event()
        self._stop = threading.Event()
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # it is on this machine
        self._thread = threading.Thread(target=self._run, daemon=True)

    def check_free(self) -> None:
        """InputError if something answers before the program is there."""
        if self._answers():
            raise InputError(
                f"{self.base}: answers already, before the command runs; stop what is there, or name another port"
            )

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def finish(self) -> None:
        """The program has ended."""
        self._stop.set()
        self._thread.join(_PATIENCE)
        if not self.done.is_set() and not self.notes:
            self.notes.append(
                f"{self.base}/debug/pprof/ has not answered; serve net/http/pprof there, or name where with --pprof"
            )

    def _answers(self) -> bool:
        try:
            with self._opener.open(f"{self.base}/debug/pprof/", timeout=1):
                return True
        except urllib.error.HTTPError:
            return True
        except (OSError, ValueError):
            return False

    def _run(self) -> None:
        while not self._answers():
            if self._stop.wait(_POLL):
                return
        wanted: list[tuple[str, str, float]] = [("heap", "heap.pb.gz", 0.0)]
        if self._trace:
            wanted.append((f"trace?seconds={self._seconds:g}", "trace", self._seconds))
        else:
            self._stop.wait(self._seconds)
        for query, name, length in [*wanted, ("heap", "heap.pb.gz", 0.0), ("allocs", "allocs.pb.gz", 0.0)]:
            if not self._fetch(query, name, length):
                return
        self.done.set()

    def _fetch(self, query: str, name: str, length: float) -> bool:
        """Fetch one profile, whole or not at all."""
        address, part = f"{self.base}/debug/pprof/{query}", self._folder / f".{name}"
        try:
            with self._opener.open(address, timeout=length + _PATIENCE) as answer, part.open("wb") as stream:
                while data := answer.read(_CHUNK):
                    stream.write(data)
                if answer.length:
                    raise OSError(f"{answer.length} bytes are missing")
            part.replace(self._folder / name)
        except urllib.error.HTTPError as error:
            self.notes.append(
                f"{address}: {error.code} {error.reason}; import net/http/pprof and serve http.DefaultServeMux there"
            )
        except Exception as error:  # noqa: BLE001  # whatever a dying server makes of its answer
            part.unlink(missing_ok=True)
            self.notes.append(f"{address}: cut off ({error}); let the program run longer, or fewer --seconds")
        else:
            return True
        return False


def base_of(url: str) -> str:
    """The address of a server, without the path of pprof; InputError if it is none."""
    text = url if "://" in url else f"http://{url}"
    try:
        found = urlsplit(text)
        good = found.scheme in ("http", "https") and bool(found.hostname) and found.port != 0
    except ValueError:
        good = False
    if not good:
        raise InputError(f"--pprof {url}: is no address; write one such as http://localhost:6060")
    path = found.path.partition("/debug/pprof")[0].rstrip("/")
    return f"{found.scheme}://{found.netloc}{path}"


def wait_for(ended: Callable[[], bool], seconds: float) -> bool:
    """Wait until something has ended, for so long at most; whether it has."""
    limit = time.monotonic() + seconds
    while not ended():
        if time.monotonic() > limit:
            return False
        time.sleep(_POLL / 10)
    return True
