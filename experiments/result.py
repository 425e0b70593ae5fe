"""A result on disk: a directory that says what was run and what came out, and can be shown again.

    scenario.toml   the scenario with every default: `allocsim run` takes it
    machine.toml    the machine file, if the scenario named one by its path
    summary.json    what `allocsim run --json` prints
    latency.csv     histograms: cause, low_ns, high_ns, count; both limits belong to the bucket, empty ones are left out
    series.csv      gauges over time
    memstats.json   runtime.MemStats at the end, as encoding/json writes it
    gc_cycles.csv   what each collection did, if there was one; sim/metrics/cycles.py says every column
    gctrace.txt     the lines of GODEBUG=gctrace=1, if the run made them
    gcdebug.txt     the same among those of gcpacertrace=1 and scavtrace=1
    timeline.pftrace  a Perfetto trace, if the run recorded one
    versions.json   which allocsim, which schema, which Go was simulated
    host.json       where and when it was run, and how long that took

The same scenario and seed give the same bytes on every machine, in all files but host.json. The directory is written
beside its place and renamed, so that it is there whole or not at all; nothing that exists is replaced.

Reading trusts nothing: files are bounded and checked, since they may be damaged or somebody else's.
"""

from __future__ import annotations

import csv
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.errors import InputError
from sim import __version__
from sim.metrics.cycles import COLUMNS, Cycle, from_row, rows
from sim.metrics.go_text import go_json
from sim.units import Throw

if TYPE_CHECKING:
    from experiments.run import Result
    from sim.metrics.timeline import Timeline

SCHEMA = 1
_MAX_SUMMARY = 16 << 20  # bytes; a scenario of hundreds of objects makes 100 KiB
_MAX_LATENCY = 64 << 20  # some forty bytes for each of 45,056 buckets of each cause
_CYCLES = "gc_cycles.csv"
_GC_CYCLES = "/gc/cycles/total:gc-cycles"
_MAX_CYCLES = 256 << 20  # half a million cycles
_LATENCY_HEADER = ["cause", "low_ns", "high_ns", "count"]
_PERCENTILES = ("p50_ns", "p90_ns", "p99_ns", "p99.9_ns", "p99.99_ns", "p99.999_ns")
_SUMMARY_KEYS = ("count", "share", "mean_ns", *_PERCENTILES, "max_ns")

SHOWN_METRICS = frozenset(
    {
        _GC_CYCLES,
        "/gc/pauses:seconds/max",
        "/gc/pauses:seconds/p50",
        "/memory/classes/heap/free:bytes",
        "/memory/classes/heap/objects:bytes",
        "/memory/classes/heap/released:bytes",
        "/memory/classes/heap/stacks:bytes",
        "/memory/classes/heap/unused:bytes",
        "/memory/classes/total:bytes",
        "/sched/gomaxprocs:threads",
        "/sim/gc/assists:share",
        "/sim/gc/cpu:share",
        "/sim/heap/peak:bytes",
        "/sim/live:bytes",
        "/sim/locks/mcentral/wait:seconds",
        "/sim/locks/mheap/wait:seconds",
        "/sim/mallocs:objects",
        "/sim/throughput:mallocs-per-second",
        "/sim/time/assist:cpu-seconds",
        "/sim/time/compute:cpu-seconds",
        "/sim/time/first-touch-by-program:cpu-seconds",
        "/sim/time/gc-dedicated:cpu-seconds",
        "/sim/time/gc-fractional:cpu-seconds",
        "/sim/time/gc-idle:cpu-seconds",
        "/sim/time/idle:cpu-seconds",
        "/sim/time/lock:cpu-seconds",
        "/sim/time/malloc:cpu-seconds",
        "/sim/time/no-cpu:cpu-seconds",
        "/sim/time/stopped:cpu-seconds",
        "/sim/time/system:cpu-seconds",
        "/sim/time:seconds",
    }
)
"""The metrics that the text of a result shows (render.py); a stored result has them all."""

Buckets = list[tuple[int, int, int]]
"""Buckets of a histogram that hold something: lowest and highest value in picoseconds, count."""


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to show of a run: ``summary`` as ``--json`` prints it, ``malloc`` the histogram of all mallocs."""

    summary: dict[str, Any]
    malloc: Buckets
    cycles: tuple[Cycle, ...] = ()


def report(result: Result) -> Report:
    """The report of a run."""
    return Report(result.to_dict(), buckets(result.counts["all"]), result.cycles)


def buckets(counts: Any) -> Buckets:
    """The buckets of a row of counts that hold something."""
    from sim.metrics.histogram import bucket_rows

    held = counts.nonzero()[0]
    return bucket_rows(held.tolist(), counts[held].tolist())


# Writing


def free_directory(name: str) -> Path:
    """The path of a directory to be written; InputError, before any work, where that would fail or replace something."""
    if not name or "\0" in name:
        raise InputError(f"{name!r}: is no directory; name a new one with -o")
    target = Path(os.path.realpath(name))
    parent = target.parent
    try:
        if target.is_dir():
            if any(target.iterdir()):
                raise InputError(f"{name}: exists and is not empty; name a new directory with -o")
            if target.samefile(Path()) or os.path.ismount(target):
                raise InputError(f"{name}: is in use; name a new directory in it with -o")
        elif target.exists():
            raise InputError(f"{name}: exists and is no directory; name a new one with -o")
        if not parent.is_dir():
            raise InputError(f"{name}: there is no directory {parent}; make it first")
    except OSError as error:
        raise InputError(f"{name}: cannot be written ({error.strerror}); name another directory with -o") from None
    if not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(f"{name}: directory {parent} is not writable; name a directory elsewhere with -o")
    return target


def store(target: Path, result: Result, host: Mapping[str, Any], prices: bytes | None = None) -> None:
    """Write a result to a directory that `free_directory` returned.

    ``prices``: the machine file, if the scenario names one by its path. InputError if it cannot be written; should the
    place have been taken meanwhile, the result stays beside it.
    """
    scenario = result.scenario.resolved()
    if prices is not None:
        scenario["machine"]["prices"] = "machine.toml"
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=".allocsim-", dir=target.parent))
        _lines(temporary / "scenario.toml", _toml(scenario))
        if prices is not None:
            (temporary / "machine.toml").write_bytes(prices)
        _lines(temporary / "summary.json", [json_text(result.to_dict())])
        _lines(temporary / "latency.csv", _latency(result.counts))
        _lines(temporary / "series.csv", _comma_separated([result.series.columns, *result.series.rows]))
        _lines(temporary / "memstats.json", [go_json(result.memstats)])
        if result.cycles:
            write_cycles(temporary, result.cycles)
        if result.gctrace:
            _lines(temporary / "gctrace.txt", result.gctrace)
            _lines(temporary / "gcdebug.txt", result.gcdebug)
        if result.timeline is not None:
            write_timeline(temporary, result.timeline, result.scenario.name)
        versions = {"allocsim": __version__, "schema": SCHEMA, "go": result.scenario.version}
        _lines(temporary / "versions.json", [json_text(versions)])
        _lines(temporary / "host.json", [json_text(host)])
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o777 & ~umask)
    except BaseException as error:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise InputError(f"{target}: cannot be written ({error.strerror}); make room or name another place") from error
    try:
        temporary.rename(target)  # takes the place of nothing but an empty directory
    except OSError as error:
        what = f"{target}: cannot be written ({error.strerror}); the result is in {temporary}"
        raise InputError(what) from error


def write_cycles(directory: Path, cycles: Iterable[Cycle]) -> None:
    """Write gc_cycles.csv."""
    _lines(directory / _CYCLES, _comma_separated(chain([COLUMNS], rows(cycles))))


def write_timeline(directory: Path, timeline: Timeline, name: str) -> None:
    """Write timeline.pftrace of a program called ``name``, for ui.perfetto.dev; its slices must have ended."""
    from sim.metrics.perfetto import packets

    with (directory / "timeline.pftrace").open("wb") as stream:
        stream.writelines(packets(timeline, name))


def host(begun: float) -> dict[str, Any]:
    """What goes into host.json of a run that began at this time of the clock on the wall and ends now."""
    import numba

    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(begun)),
        "wall_seconds": round(time.time() - begun, 3),
        "host": platform.node(),
        "system": platform.platform(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "numba": numba.__version__,
    }


def json_text(value: Any) -> str:
    """A value as the command prints it."""
    return json.dumps(value, indent=2)


def _lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        stream.writelines(f"{line}\n" for line in lines)


def _comma_separated(rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    return (",".join(map(str, row)) for row in rows)


def _nanoseconds(ps: int) -> str:
    return f"{ps // 1000}.{ps % 1000:03}"


def _latency(counts: Mapping[str, Any]) -> Iterator[str]:
    yield ",".join(_LATENCY_HEADER)
    for cause, row in counts.items():
        for low, high, count in buckets(row):
            yield f"{cause},{_nanoseconds(low)},{_nanoseconds(high)},{count}"


def _toml(tables: Mapping[str, Any]) -> Iterator[str]:
    """A scenario as lines of TOML: a section per table, ``[[workload.objects]]`` for each kind of object."""
    for key, value in tables.items():
        if not isinstance(value, dict):
            yield f"{key} = {toml_value(value)}"
    for section, table in tables.items():
        if not isinstance(table, dict):
            continue
        yield ""
        yield f"[{section}]"
        for key, value in table.items():
            if key != "objects":
                yield f"{key} = {toml_value(value)}"
        for one in table.get("objects", ()):
            yield ""
            yield f"[[{section}.objects]]"
            yield from (f"{key} = {toml_value(value)}" for key, value in one.items())


def toml_value(value: Any) -> str:
    """Text, a number, a list or a table on one line."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(inner)}" for key, inner in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)


# Reading


def read(name: str) -> Report:
    """The report of a stored result; InputError if there is none, if it is damaged or of another schema."""
    folder = Path(name)
    if not name or "\0" in name or not folder.is_dir():
        raise InputError(f"{name or repr(name)}: is no directory; name one that `allocsim run -o` wrote")
    path = folder / "summary.json"
    if not path.exists():
        raise InputError(f"{name}: holds no result; name a directory that `allocsim run -o` wrote")
    try:
        summary = json.loads(_text(path, _MAX_SUMMARY), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"not JSON: {str(error)[:80]}") from None
    if not isinstance(summary, dict) or type(summary.get("schema")) is not int:
        raise _damaged(path, "it names no schema")
    if summary["schema"] != SCHEMA:
        written = str(summary.get("allocsim"))[:20]
        raise InputError(
            f"{path}: is of schema {str(summary['schema'])[:20]}, written by allocsim {written}; "
            f"this is {__version__}, which reads schema {SCHEMA}"
        )
    _check(path, summary)
    path = folder / "latency.csv"
    malloc = _histograms(path, _text(path, _MAX_LATENCY)).get("all", [])
    if sum(count for _, _, count in malloc) != summary["latency"].get("all", {"count": 0})["count"]:
        raise _damaged(path, "it does not count the mallocs of summary.json")
    count = summary["metrics"].get(_GC_CYCLES, 0)
    return Report(summary, malloc, _read_cycles(folder / _CYCLES, count) if count else ())


def read_histograms(name: str) -> dict[str, Buckets]:
    """Every histogram of a stored result that `read` takes: of mallocs by cause (``all``: all of them), of requests."""
    path = Path(name) / "latency.csv"
    return _histograms(path, _text(path, _MAX_LATENCY))


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{path}: is damaged ({what}); run the scenario again")


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _text(path: Path, limit: int) -> str:
    """The text of a plain file of so many bytes at most."""
    try:
        if not path.is_file():
            raise InputError(f"{path}: no such file; a result has one, run the scenario again")
        with path.open("rb") as stream:
            found = stream.read(limit + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); make it readable") from None
    if len(found) > limit:
        raise _damaged(path, f"larger than {limit >> 20} MiB")
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError:
        raise _damaged(path, "not UTF-8") from None


def _check(path: Path, summary: Mapping[str, Any]) -> None:
    """InputError unless a summary has what is shown of one, in its types."""

    def need(holder: Any, where: str, key: str, *types: type) -> Any:
        found = holder.get(key)
        if type(found) not in types:
            raise _damaged(path, f"no {where}{key}, or not of its type")
        return found

    def number(holder: Any, where: str, key: str) -> None:
        found = need(holder, where, key, int, float)
        if not 0 <= found < 1 << 80:
            raise _damaged(path, f"{where}{key} is out of range")

    need(summary, "", "scenario", str)
    need(summary, "", "cut_short", bool)
    number(summary, "", "seed")
    config = need(summary, "", "config", dict)
    need(config, "config.", "purpose", str)
    for section, key, kind in (("runtime", "version", str), ("machine", "prices", str), ("machine", "cpus", int)):
        need(need(config, "config.", section, dict), f"config.{section}.", key, kind)
    need(config["runtime"], "config.runtime.", "gogc", int, str)
    need(config["runtime"], "config.runtime.", "memory_limit", str)
    run = need(config, "config.", "run", dict)
    for key, kind in (("duration", str), ("mallocs", int)):
        if key in run:
            need(run, "config.run.", key, kind)
    need(need(config, "config.", "workload", dict), "config.workload.", "kind", str)
    metrics = need(summary, "", "metrics", dict)
    for name in SHOWN_METRICS | metrics.keys():
        number(metrics, "metrics.", name)
    rows = dict(need(summary, "", "latency", dict))
    rows |= {name: summary[name] for name in ("response", "run_queue") if name in summary}
    for name in rows:
        for key in _SUMMARY_KEYS:
            number(need(rows, "latency.", name, dict), f"{name}.", key)
    for name in (assumed := need(summary, "", "assumed_prices", dict)):
        need(assumed, "assumed_prices.", name, str)


def _histograms(path: Path, text: str) -> dict[str, Buckets]:
    """The histograms in latency.csv, by cause."""
    found: dict[str, Buckets] = {}
    rows = csv.reader(text.splitlines())
    try:
        if next(rows, None) != _LATENCY_HEADER:
            raise ValueError
        for cause, low, high, count in rows:
            bucket = _picoseconds(low), _picoseconds(high), int(count)
            if not 0 <= bucket[0] <= bucket[1] < 1 << 63 or bucket[2] < 1 or not cause.isidentifier():
                raise ValueError
            earlier = found.setdefault(cause, [])
            if earlier and bucket[0] <= earlier[-1][1]:
                raise ValueError
            earlier.append(bucket)
    except (ValueError, csv.Error):
        raise _damaged(path, f"line {rows.line_num}") from None
    return found


def _read_cycles(path: Path, count: int) -> tuple[Cycle, ...]:
    """So many cycles of gc_cycles.csv."""
    found = []
    table = csv.reader(_text(path, _MAX_CYCLES).splitlines())
    try:
        if next(table, None) != list(COLUMNS):
            raise ValueError("its first line names other columns")
        for row in table:
            found.append(from_row(row))
            if found[-1].number != len(found):
                raise ValueError(f"cycle {found[-1].number} comes as number {len(found)}")
    except (ValueError, Throw, csv.Error) as error:
        raise _damaged(path, f"line {table.line_num}: {str(error)[:200]}") from None
    if len(found) != count:
        raise _damaged(path, f"{len(found)} cycles, and summary.json counts {count}")
    return tuple(found)


def _picoseconds(text: str) -> int:
    whole, _, fraction = text.partition(".")
    if len(fraction) != 3:
        raise ValueError
    return int(whole + fraction)
