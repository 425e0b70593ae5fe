"""Tables of a sweep, for other tools: one row a run, and beside it series, histograms and collections.

    runs         point, replicate, seed, the settings varied, error, then metrics by their runtime/metrics names (ours
                 begin with /sim/), and latencies: /sim/latency/CAUSE:seconds/p99.9 and so on, /sim/latency/CAUSE:calls
    series       point, replicate, then gauges over time
    histograms   point, replicate, cause, low_ns, high_ns, count; both limits belong to the bucket
    gc_cycles    point, replicate, then what each collection did (sim/metrics/cycles.py)

Rows are in the order of points and replicates, however the runs were made: the same sweep gives the same bytes. A run
that failed has its error and no figures. Parquet needs pyarrow (extra ``[data]``); CSV and JSON Lines need nothing.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

from experiments.errors import InputError
from experiments.output import atomic
from experiments.sweeps.points import Run
from experiments.sweeps.record import Record
from experiments.sweeps.store import Results
from sim.metrics.cycles import COLUMNS, Cycle, Swept

FORMATS = ("parquet", "csv", "jsonl")
_NAMES = ("p50", "p90", "p99", "p99.9", "p99.99", "p99.999")  # of sim.metrics.histogram.PERCENTILES
_SECOND, _NS = 1e12, 1e3  # picoseconds
_GROUP = 50_000  # rows of a row group, at least
_CHUNK = 4_096  # rows that are turned into Arrow's at a time, at least: each column of a turn takes 10 us
_INT64 = 1 << 63
_KINDS = {"cause": "text", "low_ns": "float", "high_ns": "float"} | {
    prefix + field.name: {"float": "float", "str": "text"}[field.type]
    for record, prefix in ((Cycle, ""), (Swept, "swept_"))
    for field in fields(record)
    if field.type in ("float", "str")
}  # of columns beside the runs that hold no integers

Columns = dict[str, Any]
"""Rows of a table: lists or arrays by column; None where there is nothing."""


def formats(wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The formats that are wanted, or the best one there is; InputError if one cannot be written."""
    there = importlib.util.find_spec("pyarrow") is not None
    if "parquet" in wanted and not there:
        raise InputError("parquet: pyarrow is not installed; pip install 'allocsim[data]', or ask for csv or jsonl")
    return tuple(dict.fromkeys(wanted)) or (("parquet",) if there else ("csv",))


def row_of(results: Results, run: Run, record: Record) -> dict[str, Any]:
    """The row of a run."""
    asked = {"point": run.point, "replicate": run.replicate, "seed": run.seed} | results.values(run)
    return asked | {"error": record.error} | figures_of(record)


def rows_of(run: Run, record: Record) -> dict[str, Columns]:
    """What a run adds to each of the other tables."""
    import numpy as np

    cycles = zip(*record.cycles, strict=True)
    series = np.array(record.series, np.int64)
    found: dict[str, Columns] = {
        "series": dict(zip(record.series_columns, series.T, strict=False)),
        "histograms": _histograms(record),
        "gc_cycles": {name: list(map(_number, cells)) for name, cells in zip(COLUMNS, cycles, strict=False)},
    }
    for table, columns in found.items():
        length = len(next(iter(columns.values()), ()))
        found[table] = {"point": np.full(length, run.point), "replicate": np.full(length, run.replicate)} | columns
    return found


def figures_of(record: Record) -> dict[str, int | float]:
    """Metrics and latencies of a run by name."""
    found = dict(record.metrics)
    for cause, one in record.latency.items():
        name = f"/sim/latency/{cause.replace('_', '-')}"
        found[f"{name}:calls"] = one.count
        seconds = {"total": one.total, "mean": one.total / one.count, "max": one.maximum}
        seconds |= dict(zip(_NAMES, one.percentiles, strict=True))
        found |= {f"{name}:seconds/{key}": value / _SECOND for key, value in seconds.items()}
    return dict(sorted(found.items()))


def _histograms(record: Record) -> Columns:
    import numpy as np

    low, high = _limits()
    whole = record.latency.values()
    buckets, counts = (
        np.fromiter(chain.from_iterable(parts), np.int64)
        for parts in ((one.buckets for one in whole), (one.counts for one in whole))
    )
    return {
        "cause": [cause for cause, one in record.latency.items() for _ in one.buckets],
        "low_ns": low[buckets],
        "high_ns": high[buckets],
        "count": counts,
    }


@cache
def _limits() -> tuple[Any, Any]:
    """The lowest and the highest value of each bucket, nanoseconds."""
    import numpy as np

    from sim.metrics.histogram import BUCKETS, bucket_top

    tops = np.array([-1, *map(bucket_top, range(BUCKETS))])
    return (tops[:-1] + 1) / _NS, tops[1:] / _NS


def _number(cell: str) -> int | float | str | None:
    """A cell of gc_cycles as what it says."""
    for kind in (int, float):
        try:
            return kind(cell)
        except ValueError:
            continue
    return cell or None


# Writing


class _Writer(Protocol):
    def write(self, rows: Columns) -> None:
        """Add rows."""


def write(results: Results, wanted: Sequence[str], look: Callable[[Run, Record], None]) -> list[Path]:
    """Write every table in some formats, each file whole or not at all; their paths.

    ``look`` is shown each record on the way. InputError if one cannot be read, or if there is no room.
    """
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        files = _Files(results.directory, wanted, stack)
        for run, record in results.records():
            look(run, record)
            rows.append(row_of(results, run, record))
            for table, columns in rows_of(run, record).items():
                files.write(table, columns)
        kinds = _kinds(rows, 4 + len(results.points[0].values))
        files.begin("runs", kinds)
        files.write("runs", {name: [row.get(name) for row in rows] for name in kinds})
    return sorted(files.paths)


class _Files:
    """The files of the tables, begun when there is a row for them."""

    def __init__(self, directory: Path, wanted: Sequence[str], stack: ExitStack) -> None:
        self._directory, self._wanted, self._stack = directory, wanted, stack
        self._writers: dict[str, list[_Writer]] = {}
        self.paths: list[Path] = []

    def begin(self, table: str, kinds: Mapping[str, str]) -> None:
        """Begin the files of a table with these columns."""
        paths = [self._directory / f"{table}.{kind}" for kind in self._wanted]
        made = [_WRITERS[kind](path, kinds) for kind, path in zip(self._wanted, paths, strict=True)]
        self._writers[table] = [self._stack.enter_context(one) for one in made]
        self.paths += paths

    def write(self, table: str, rows: Columns) -> None:
        """Add rows to a table."""
        if not len(next(iter(rows.values()))):
            return
        if table not in self._writers:
            self.begin(table, {name: _KINDS.get(name, "int") for name in rows})
        for writer in self._writers[table]:
            writer.write(rows)


def _kinds(rows: Sequence[Mapping[str, Any]], asked: int) -> dict[str, str]:
    """What each column of the runs holds, "int", "float", "text", or "" of nothing: what was asked, then figures by name."""
    values: dict[str, set[str]] = {}
    for row in rows:
        for name, value in row.items():
            values.setdefault(name, set()).add(_kind(value))
    first = list(values)[:asked]
    order = (*first, *sorted(values.keys() - set(first)))
    return {name: next(kind for kind in ("text", "float", "int", "") if kind in values[name]) for name in order}


def _kind(value: Any) -> str:
    if type(value) is int:
        return "int" if -_INT64 <= value < _INT64 else "float"
    return {float: "float", type(None): ""}.get(type(value), "text")


def _cells(rows: Columns, names: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """Rows of these columns."""
    columns = (rows[name] for name in names)
    return zip(*(column if isinstance(column, list) else column.tolist() for column in columns), strict=True)


class _Csv:
    def __init__(self, stream: Any, kinds: Mapping[str, str]) -> None:
        self._writer = csv.writer(stream, lineterminator="\n")
        self._names = list(kinds)
        self._writer.writerow(self._names)

    def write(self, rows: Columns) -> None:
        self._writer.writerows([_text(cell) for cell in row] for row in _cells(rows, self._names))


class _JsonLines:
    def __init__(self, stream: Any, kinds: Mapping[str, str]) -> None:
        self._stream, self._names = stream, list(kinds)

    def write(self, rows: Columns) -> None:
        for row in _cells(rows, self._names):
            self._stream.write(json.dumps(dict(zip(self._names, row, strict=True)), ensure_ascii=False) + "\n")


class _Parquet:
    def __init__(self, path: Path, kinds: Mapping[str, str]) -> None:
        import pyarrow as pa
        from pyarrow.parquet import ParquetWriter

        types = {"int": pa.int64(), "float": pa.float64()}
        self._arrow = pa
        self._schema = pa.schema([(name, types.get(kind, pa.string())) for name, kind in kinds.items()])
        exact: dict[str, tuple[type, Callable[[Any], Any]]] = {"text": (str, _text), "float": (float, float)}
        self._as = {name: exact[kind] for name, kind in kinds.items() if kind in exact}
        self._writer = ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[Columns] = []
        self._held: list[Any] = []
        self._waiting = self._grouped = 0  # rows of each

    def write(self, rows: Columns) -> None:
        self._rows.append(rows)
        self._waiting += len(next(iter(rows.values())))
        if self._waiting >= _CHUNK:
            self._convert()

    def _convert(self) -> None:
        """Rows that wait become Arrow's, and those a row group if they are enough."""
        if not self._rows:
            return
        whole = {name: _joined([rows[name] for rows in self._rows]) for name in self._schema.names}
        for name, (kind, exact) in self._as.items():
            if isinstance(whole[name], list) and set(map(type, whole[name])) != {kind}:
                whole[name] = [None if value is None else exact(value) for value in whole[name]]
        self._held.append(self._arrow.table(whole, self._schema))
        self._grouped += self._waiting
        self._rows, self._waiting = [], 0
        if self._grouped >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(self._arrow.concat_tables(self._held))
            self._held, self._grouped = [], 0

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._convert()
        self._flush()
        self._writer.close()


def _joined(parts: Sequence[Any]) -> Any:
    """Parts of a column, one after the other: lists as a list, arrays as an array."""
    if isinstance(parts[0], list):
        return list(chain.from_iterable(parts))
    import numpy as np

    return np.concatenate(parts)


def _text(value: Any) -> Any:
    """A value as a cell of text: true and false as TOML has them."""
    return str(value).lower() if isinstance(value, bool) else value if value is None else str(value)


@contextmanager
def _to_stream(kind: type[_Csv | _JsonLines], path: Path, kinds: Mapping[str, str]) -> Iterator[_Writer]:
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        yield kind(stream, kinds)


@contextmanager
def _to_parquet(path: Path, kinds: Mapping[str, str]) -> Iterator[_Writer]:
    with atomic(path) as temporary:
        writer = _Parquet(temporary, kinds)
        try:
            yield writer
        finally:
            writer.close()


_WRITERS: dict[str, Any] = {
    "parquet": _to_parquet,
    "csv": lambda path, kinds: _to_stream(_Csv, path, kinds),
    "jsonl": lambda path, kinds: _to_stream(_JsonLines, path, kinds),
}
