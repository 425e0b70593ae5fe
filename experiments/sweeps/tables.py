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
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from experiments.errors import InputError
from experiments.output import atomic
from experiments.sweeps.points import Run
from experiments.sweeps.record import Record
from experiments.sweeps.store import Results
from sim.metrics.cycles import COLUMNS

FORMATS = ("parquet", "csv", "jsonl")
TABLES = ("runs", "series", "histograms", "gc_cycles")
_NAMES = ("p50", "p90", "p99", "p99.9", "p99.99", "p99.999")  # of sim.metrics.histogram.PERCENTILES
_SECOND, _NS = 1e12, 1e3  # picoseconds
_GROUP = 50_000  # rows of a row group, at least
_INT64 = 1 << 63

Columns = dict[str, list[Any]]
"""Rows of a table, by column; None where there is nothing."""


def formats(wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """The formats that are wanted, or the best one there is; InputError if one cannot be written."""
    there = importlib.util.find_spec("pyarrow") is not None
    if "parquet" in wanted and not there:
        raise InputError("parquet: pyarrow is not installed; pip install 'allocsim[data]', or ask for csv or jsonl")
    return tuple(dict.fromkeys(wanted)) or (("parquet",) if there else ("csv",))


def rows_of(results: Results, run: Run, record: Record) -> dict[str, Columns]:
    """What a run adds to each table."""
    here = {"point": run.point, "replicate": run.replicate}
    row = here | {"seed": run.seed} | results.values(run) | {"error": record.error} | _figures(record)
    found: dict[str, Columns] = {
        "series": dict(zip(record.series_columns, map(list, zip(*record.series, strict=True)), strict=False)),
        "histograms": _histograms(record),
        "gc_cycles": dict(
            zip(COLUMNS, (list(map(_number, column)) for column in zip(*record.cycles, strict=True)), strict=False)
        ),
    }
    tables: dict[str, Columns] = {"runs": {name: [value] for name, value in row.items()}}
    for table, columns in found.items():
        length = len(next(iter(columns.values()), ()))
        tables[table] = {name: [value] * length for name, value in here.items()} | columns
    return tables


def _figures(record: Record) -> dict[str, int | float]:
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
    causes: list[str] = []
    low: list[float] = []
    high: list[float] = []
    count: list[int] = []
    for cause, one in record.latency.items():
        causes += [cause] * len(one.buckets)
        low += [limits(bucket)[0] / _NS for bucket in one.buckets]
        high += [limits(bucket)[1] / _NS for bucket in one.buckets]
        count += one.counts
    return {"cause": causes, "low_ns": low, "high_ns": high, "count": count}


@cache
def limits(bucket: int) -> tuple[int, int]:
    """The lowest and the highest value of a bucket, picoseconds."""
    from sim.metrics.histogram import bucket_top

    return bucket_top(bucket - 1) + 1 if bucket else 0, bucket_top(bucket)


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


def write(results: Results, wanted: Sequence[str]) -> list[Path]:
    """Write every table in some formats, each file whole or not at all; their paths.

    InputError if a record cannot be read, or if there is no room.
    """
    kinds: dict[str, dict[str, str]] = {table: {} for table in TABLES}
    for run, record in results.records():
        for table, columns in rows_of(results, run, record).items():
            _learn(kinds[table], columns)
    kinds["runs"] = _ordered(kinds["runs"], len(next(iter(results.points)).values))
    paths = []
    with ExitStack() as stack:
        writers: list[tuple[str, _Writer]] = []
        for table in (table for table in TABLES if kinds[table]):
            for kind in wanted:
                paths.append(results.directory / f"{table}.{kind}")
                writers.append((table, stack.enter_context(_WRITERS[kind](paths[-1], kinds[table]))))
        for run, record in results.records():
            rows = rows_of(results, run, record)
            for table, writer in writers:
                writer.write(rows[table])
    return paths


def _learn(kinds: dict[str, str], columns: Columns) -> None:
    """Take note of what columns hold: "int", "float", "text", or nothing yet."""
    if not any(columns.values()):
        return  # a table without rows is not written
    for name, values in columns.items():
        seen = {kinds.get(name, ""), *map(_kind, values)}
        kinds[name] = next(kind for kind in ("text", "float", "int", "") if kind in seen)


def _kind(value: Any) -> str:
    if type(value) is int:
        return "int" if -_INT64 <= value < _INT64 else "float"
    return {float: "float", type(None): ""}.get(type(value), "text")


def _ordered(kinds: Mapping[str, str], axes: int) -> dict[str, str]:
    """The columns of the runs: what was asked first, then figures by name."""
    first = list(kinds)[: 4 + axes]
    return {name: kinds[name] for name in (*first, *sorted(kinds.keys() - set(first)))}


def _cells(rows: Columns, names: Iterable[str]) -> Iterator[tuple[Any, ...]]:
    """Rows of these columns."""
    length = len(next(iter(rows.values()), ()))
    return zip(*(rows.get(name, [None] * length) for name in names), strict=True)


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
        exact: dict[str, Callable[[Any], Any]] = {"text": _text, "float": float}
        self._as = {name: exact[kind] for name, kind in kinds.items() if kind in exact}
        self._writer = ParquetWriter(path, self._schema, compression="zstd")
        self._held: list[Any] = []

    def write(self, rows: Columns) -> None:
        length = len(next(iter(rows.values()), ()))
        whole = {name: rows.get(name, [None] * length) for name in self._schema.names}
        for name, kind in self._as.items():
            whole[name] = [None if value is None else kind(value) for value in whole[name]]
        self._held.append(self._arrow.table(whole, self._schema))
        if sum(table.num_rows for table in self._held) >= _GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(self._arrow.concat_tables(self._held))
            self._held.clear()

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._writer.close()


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
