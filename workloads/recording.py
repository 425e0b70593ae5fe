"""What was recorded of a program, from whatever there is: a directory of `allocsim record`, a log, a trace, a profile.

Of several sources each tells what it knows best: a log the collections and their CPU time, a trace sizes, pointers,
what lives, and heaps to the byte; a heap profile sizes and what is in use, scaled up from samples. Rows of sizes are
those of sizetable.py, whoever told them. Where nothing told sizes they are those of a shipped table, which is said.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from sim.go.params import nearest_version
from sim.go.state import PAGE_SIZE
from sim.metrics.gctrace import GcLine
from workloads import gotrace_model as t
from workloads.gctrace_log import GcLog, gctrace_part, read_log
from workloads.gotrace import read_trace
from workloads.gotrace_model import Trace, TraceError
from workloads.gotrace_objects import find_objects
from workloads.heapcycles import Seen, joined, of_line, of_trace
from workloads.pprof import HeapProfile, read_profile
from workloads.recorded_files import LOG, PROFILE, RECORD, TRACE
from workloads.scenario_values import gogc_text, limit
from workloads.sizetable import Row, measure, read_size_table

DEFAULT_TABLE = Path(__file__).parent / "data" / "json.csv"
_MIB = 1 << 20
_HEAD = 1 << 20  # bytes looked at to tell a kind of file
_GUESS = "half of the objects are full of them at a guess, or as many as the recorded cost of marking asks for"
_LARGEST = 100  # of the largest live heap, what one object may have at most where the shipped table tells sizes
_LEAST_GOAL = 4 << 20  # the first cycle's, with GOGC=100 (mgcpacer.go:defaultHeapMinimum)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of slots that are allocated: a row each. ``pointers``: share of a size's objects that hold some, if told;
    ``pointer_bytes``: of such an object's bytes, those up to the last one. ``live``: whether the rows tell what lives.
    """

    rows: tuple[Row, ...]
    source: str
    pointers: dict[int, float] | None = None
    pointer_bytes: float = 1.0
    live: bool = True


@dataclass(slots=True)
class Settings:
    """How the program ran, None where nobody told: Go's version, Ps, GOGC and GOMEMLIMIT as their variables have them.

    ``seconds``: how long; ``stacks``, ``globals_``: mean bytes that cycles say; ``sources``: who told what.
    """

    version: str | None = None
    procs: int | None = None
    gogc: str | None = None
    memory_limit: str | None = None
    seconds: float | None = None
    stacks: float | None = None
    globals_: float | None = None
    sources: dict[str, str] = field(default_factory=dict)

    def tell(self, source: str, **values: Any) -> None:
        """Take the values that are told, where nothing was before."""
        for name, value in values.items():
            if value is not None and getattr(self, name) is None:
                setattr(self, name, value)
                self.sources[name] = source


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded program: its cycles, whether from its start on and whether to the byte; sizes; settings.

    ``cautions``: what the sources do not tell or contradict each other in, a line each.
    """

    name: str
    cycles: tuple[Seen, ...]
    whole: bool
    exact: bool
    cycles_from: str
    sizes: Sizes
    settings: Settings
    cautions: tuple[str, ...]


def _kind(path: Path) -> str:
    """What a file is: log, trace or profile. ValueError if it cannot be read."""
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from error
    if head.startswith((b"\x1f\x8b", b"heap profile:")):
        return "profile"
    if head.startswith((b"go 1.", b"\xfd7zXZ", b"PK")):
        return "trace"
    if any(gctrace_part(line) is not None for line in head.decode("utf-8", "replace").splitlines()):
        return "log"
    raise ValueError(
        f"{path}: is no gctrace log, execution trace or heap profile; name one, or what `allocsim record` wrote"
    )


def _files(sources: Iterable[str | os.PathLike[str]], settings: Settings) -> dict[str, Path]:
    """The files of all sources by kind; ValueError if there are two of a kind."""
    found: dict[str, Path] = {}

    def add(kind: str, path: Path) -> None:
        if kind in found:
            raise ValueError(f"{path}: is a second {kind}, after {found[kind]}; name one of each kind at most")
        found[kind] = path

    for source in map(Path, sources):
        if not source.is_dir():
            add(_kind(source), source)
            continue
        record = source / RECORD
        if not record.is_file():
            raise ValueError(
                f"{source}: is a directory without {RECORD}; name one that `allocsim record` wrote, or a file"
            )
        _read_record(record, settings)
        for kind, name in (("log", LOG), ("trace", TRACE), ("profile", PROFILE)):
            path = source / name
            if path.is_file() and path.stat().st_size:
                add(kind, path)
    return found


def _read_record(path: Path, settings: Settings) -> None:
    """Take what a record.json tells of settings."""
    try:
        told = json.loads(path.read_text("utf-8"))
        texts = {
            name: told.get(key) for name, key in (("version", "go"), ("gogc", "GOGC"), ("memory_limit", "GOMEMLIMIT"))
        }
        procs, seconds = told.get("GOMAXPROCS"), told.get("seconds")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: is no record of a run ({error}); record it again") from None
    if any(not isinstance(text, str | None) for text in texts.values()) or not isinstance(seconds, int | float | None):
        raise ValueError(f"{path}: go, GOGC and GOMEMLIMIT are texts, seconds is a number; record it again")
    procs = int(procs) if isinstance(procs, str) and procs.isascii() and procs.isdigit() else None
    settings.tell(RECORD, **{name: text or None for name, text in texts.items()}, procs=procs, seconds=seconds)


def gather(sources: Sequence[str | os.PathLike[str]], seconds: float | None = None) -> Recording:
    """What some sources tell together; ``seconds``: how long the program ran, for a profile alone.

    ValueError or TraceError, one line, where they cannot be used.
    """
    settings, cautions = Settings(), list[str]()
    if seconds is not None:
        settings.tell("the command line", seconds=seconds)
    files = _files(sources, settings)
    if not files:
        raise ValueError(f"{sources[0]}: holds neither cycles nor a trace nor a profile; record a longer run")
    log = read_log(files["log"]) if "log" in files else None
    trace = _readable_trace(files["trace"], cautions, alone=len(files) == 1) if "trace" in files else None
    profile = read_profile(files["profile"]) if "profile" in files else None
    if log is not None:
        _tell_log(log, settings, str(files["log"].name), cautions)
    if trace is not None:
        settings.tell("the trace", procs=trace.gomaxprocs or None, version=_trace_version(trace))
    cycles, whole, exact, cycles_from = _cycles(log, trace, settings.gogc)
    while cycles and cycles[-1].forced:
        cycles.pop()  # a test's end: what it held is gone
    if profile is not None and not cycles:
        settings.tell("the profile", seconds=profile.duration_ns / 1e9 or None)
        if settings.seconds is None:
            raise ValueError(
                f"{files['profile']}: does not tell how long the program ran; add --seconds, or a gctrace log"
            )
    sizes = _sizes(trace, profile, cycles, settings, cautions)
    name = Path(os.path.abspath(sources[0])).name.split(".")[0] or "fitted"
    return Recording(name, tuple(cycles), whole, exact, cycles_from, sizes, settings, tuple(cautions))


def _readable_trace(path: Path, cautions: list[str], *, alone: bool) -> Trace | None:
    """A trace with allocation events; None, and a caution, if it has none and there is something else."""
    try:
        trace = read_trace(path)
        if not trace.has_allocations:
            raise TraceError(f"{path}: holds no allocation events; record it with GODEBUG=traceallocfree=1")
    except TraceError as error:
        if alone:
            raise
        cautions.append(f"the trace is left aside: {error}")
        return None
    return trace


def _trace_version(trace: Trace) -> str:
    """Go's version by a trace's header, which says 1.26 for Go 1.27 too."""
    return "go1.27" if trace.go_version == "1.26" else f"go{trace.go_version}"


def _tell_log(log: GcLog, settings: Settings, source: str, cautions: list[str]) -> None:
    """Take what a log's lines tell."""
    lines = log.lines
    procs = {line.procs for line in lines}
    if len(procs) > 1:
        cautions.append(f"the number of Ps changes from {min(procs)} to {max(procs)}; the scenario has one, the last")
    settings.procs = None  # what cycles ran with is more than what was asked for
    settings.tell(source, procs=lines[-1].procs)
    stacks, globals_ = (sum(values) / len(lines) for values in ([x.stacks for x in lines], [x.globals for x in lines]))
    settings.tell(source, stacks=stacks * _MIB, globals_=globals_ * _MIB)
    if settings.gogc is None and settings.memory_limit is None and (percent := _percent(lines)) is not None:
        settings.tell(f"goals in {source}", gogc=str(percent))
    if log.damaged:
        cautions.append(f"{log.damaged} lines that began like gctrace's are damaged and left out")
    forced = sum(line.forced for line in lines)
    if forced:
        cautions.append(
            f"the program asked for {forced} of {len(lines)} cycles (runtime.GC), which the scenario has not"
        )


def _percent(lines: Sequence[GcLine]) -> int | None:
    """GOGC as goals tell it: goal = marked + (marked + stacks + globals) * GOGC / 100 (mgcpacer.go:commit), in tens.

    None where heaps are too small for whole MiB to tell.
    """
    found = []
    for before, line in pairwise(lines):
        marked = before.heap[2] + 0.5
        if before.heap[2] >= 8 and line.number == before.number + 1:
            found.append(100 * (line.goal + 0.5 - marked) / (marked + before.stacks + before.globals))
    percent = round(median(found), -1) if found else 0
    return int(percent) if percent > 0 else None


def _cycles(log: GcLog | None, trace: Trace | None, gogc: str | None) -> tuple[list[Seen], bool, bool, str]:
    """Cycles, whether from the program's start on, whether to the byte, who told them: a log's, with a trace's heaps if
    that has nearly all of them; else the trace's.
    """
    traced = of_trace(trace) if trace is not None else []
    if log is not None:
        told, whole = [of_line(line) for line in log.lines], log.lines[0].number == 1
        both, nearly = joined(told, traced)
        return (
            (both, whole, True, "the log, heaps to the byte from the trace")
            if nearly
            else (told, whole, False, "the log")
        )
    if not traced:
        return [], False, False, ""
    percent = percent_of(gogc)
    least = _LEAST_GOAL * (percent if isinstance(percent, int) else 100) // 100
    return traced, 0 < traced[0].goal <= least, True, "the trace"


def _sizes(
    trace: Trace | None, profile: HeapProfile | None, cycles: Sequence[Seen], settings: Settings, cautions: list[str]
) -> Sizes:
    """Rows of sizes by who tells them best."""
    if trace is not None:
        try:
            return _trace_sizes(trace)
        except ValueError as error:
            if profile is None:
                raise TraceError(f"{error}; record a longer run") from None
            cautions.append(f"the trace is left aside: {error}")
    if profile is not None:
        seconds = settings.seconds if not cycles else cycles[-1].end
        assert seconds is not None
        found = profile_rows(profile, seconds)
        if not found:
            raise ValueError(
                "the profile has no sample of an allocation; record a longer run, or a lower memprofilerate"
            )
        cautions.append(f"a profile does not tell pointers: {_GUESS}")
        return Sizes(found, "the heap profile", live=any(row.live for row in found))
    most = max(max(one.live for one in cycles) / _LARGEST, PAGE_SIZE)
    rows = tuple(row for row in read_size_table(DEFAULT_TABLE).rows if row.size <= most)
    cautions.append(
        "a gctrace log does not tell sizes: those of a program that decodes JSON are taken, up to"
        f" {rows[-1].size >> 10} KiB; nor pointers: {_GUESS}"
    )
    return Sizes(rows, f"workloads/data/{DEFAULT_TABLE.name}, for want of better")


def profile_rows(profile: HeapProfile, seconds: float) -> tuple[Row, ...]:
    """The rows of a profile: by size, objects allocated in so many seconds and those in use."""
    made: dict[int, list[int]] = {}
    for sample in profile.samples:
        one = made.setdefault(sample.size, [0, 0])
        one[0] += sample.alloc_objects
        one[1] += max(sample.inuse_objects, 0)
    length = Fraction(seconds).limit_denominator(10**9)
    return tuple(Row(size, n / length, Fraction(live)) for size, (n, live) in sorted(made.items()))


def _trace_sizes(trace: Trace) -> Sizes:
    """Rows of a trace, with what its span classes and types tell of pointers. ValueError if it has no cycle."""
    rows = tuple(measure(trace))
    objects = find_objects(trace)
    made = (trace.kind[objects.row] == t.OBJECT_ALLOC) & (objects.size > 0)
    size, scan = objects.size[made], objects.spanclass[made] & 1 == 0
    kind = trace.b[objects.row[made]]
    sizes, which = np.unique(size, return_inverse=True)
    share = np.bincount(which, scan, len(sizes)) / np.maximum(np.bincount(which, minlength=len(sizes)), 1)
    element, pointers = trace.type_size[kind], trace.type_ptr_bytes[kind]
    known = scan & (element > 0) & (pointers > 0) & (pointers <= element)
    part = np.where(known, pointers / np.maximum(element, 1), 1.0)
    whole = float(size[scan].sum())
    return Sizes(
        rows=rows,
        source="the trace",
        pointers=dict(zip(sizes.tolist(), share.tolist(), strict=True)),
        pointer_bytes=float((size * part)[scan].sum()) / whole if whole else 1.0,
    )


_VERSION = re.compile(r"go1\.(\d+)")


def model_version(go: str | None) -> tuple[str, str | None]:
    """The model's version for a Go version such as go1.24.1, and a caution where it is another one."""
    found = _VERSION.match(go or "")
    if found is None:
        return "go1.27", "nothing tells the Go version: go1.27 is taken; --set version=go1.19 is for those up to 1.21"
    minor = int(found.group(1))
    model = nearest_version(minor)
    exact = minor in (14, 19, 27)
    return model, None if exact else f"the program was built with {go}, of which the model has {model} as the nearest"


def percent_of(text: str | None) -> int | str:
    """GOGC as a scenario has it; ValueError if it is no such thing."""
    if text is None:
        return 100
    value = gogc_text(text)
    return "off" if value < 0 else int(value)


def limit_of(text: str | None) -> str:
    """GOMEMLIMIT as a scenario has it; ValueError if it is no such thing."""
    if text is None or text == "off":
        return "off"
    sized = f"{text}B" if text.isdigit() else text
    limit(sized)
    return sized
