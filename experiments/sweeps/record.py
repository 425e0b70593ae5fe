"""What is kept of one run: figures, histograms, series and cycles, as plain data that travels between processes.

Written it is compressed JSON; the same run gives the same record on every machine. Reading trusts nothing.
"""

from __future__ import annotations

import gzip
import json
import operator
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import chain
from typing import TYPE_CHECKING, Any

from sim import __version__

if TYPE_CHECKING:
    from experiments.run import Result

SCHEMA = 1
_LEVEL = 1  # of compression: 3 takes 1.8 times as long for 6 % less
_MAX = 256 << 20  # bytes of a record, uncompressed


@dataclass(frozen=True, slots=True)
class Latency:
    """A histogram: counts of the buckets (of sim/metrics/histogram.py) that hold something, exact sum and maximum.

    Picoseconds. ``percentiles``: those of `sim.metrics.histogram.PERCENTILES`, the tops of their buckets.
    """

    total: int
    maximum: int
    percentiles: tuple[int, ...]
    buckets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many values it counts."""
        return sum(self.counts)

    def rows(self) -> list[tuple[int, int, int]]:
        """The buckets that hold something: lowest and highest value in picoseconds, both of the bucket, and count."""
        from sim.metrics.histogram import bucket_rows

        return bucket_rows(self.buckets, self.counts)


@dataclass(frozen=True, slots=True)
class Record:
    """A run by its key, and what came out: ``error``, one line, or else the rest.

    ``metrics``: by runtime/metrics names, ours under /sim/. ``latency``: of malloc ("all"), of its causes, and of a
    service's requests ("response", "run_queue"); those that never occurred are left out. ``series``: gauges over time,
    rows of ``series_columns``. ``cycles``: collections, rows of `sim.metrics.cycles.COLUMNS`, whose `from_row` reads
    them.
    """

    key: str
    code: str
    error: str | None = None
    metrics: dict[str, int | float] = field(default_factory=dict)
    latency: dict[str, Latency] = field(default_factory=dict)
    series_columns: tuple[str, ...] = ()
    series: tuple[tuple[int, ...], ...] = ()
    cycles: tuple[tuple[str, ...], ...] = ()


class Damaged(ValueError):
    """Bytes are no record; takes one string, what is wrong with them."""


class OtherVersion(ValueError):
    """Bytes are a record of another schema; takes one string, which."""


def record_of(key: str, code: str, result: Result) -> Record:
    """What is kept of a run's result."""
    from sim.metrics.cycles import rows

    summaries = dict(result.latency)
    if result.response is not None and result.queued is not None:
        summaries |= {"response": result.response, "run_queue": result.queued}
    latency = {}
    for name, summary in summaries.items():
        held = (result.counts[name] != 0).nonzero()[0]
        if len(held):
            counts = tuple(result.counts[name][held].tolist())
            latency[name] = Latency(summary.total, summary.maximum, summary.percentiles, tuple(held.tolist()), counts)
    return Record(
        key,
        code,
        metrics=result.metrics,
        latency=latency,
        series_columns=result.series.columns,
        series=tuple(result.series.rows),
        cycles=tuple(tuple(row) for row in rows(result.cycles)),
    )


def encode(record: Record) -> bytes:
    """A record as the bytes of its file."""
    whole = {"schema": SCHEMA, "allocsim": __version__} | _fields(record)
    whole["latency"] = {name: _fields(one) for name, one in record.latency.items()}
    return gzip.compress(json.dumps(whole, separators=(",", ":")).encode(), _LEVEL, mtime=0)


def _fields(one: Record | Latency) -> dict[str, Any]:
    """Fields by name; `dataclasses.asdict` copies every number of them, and takes ten times as long."""
    return {field.name: getattr(one, field.name) for field in fields(one)}


def decode(held: bytes) -> Record:
    """The record of such bytes; Damaged or OtherVersion."""
    try:
        unpacker = zlib.decompressobj(31)
        text = unpacker.decompress(held, _MAX)
        if not unpacker.eof or unpacker.unused_data:
            raise Damaged("it ends too early, or is too large" if not unpacker.eof else "it goes on after its end")
        whole = json.loads(text)
    except (zlib.error, RecursionError) as error:
        raise Damaged(str(error)[:80]) from None
    except ValueError as error:
        raise Damaged(f"not JSON: {str(error)[:80]}") from None
    if not isinstance(whole, dict) or type(whole.get("schema")) is not int:
        raise Damaged("it names no schema")
    if whole["schema"] != SCHEMA:
        raise OtherVersion(f"schema {whole['schema']}, written by allocsim {str(whole.get('allocsim'))[:20]}")
    try:
        return _checked(whole)
    except (KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{type(error).__name__}: {str(error)[:80]}") from None


def _checked(whole: Mapping[str, Any]) -> Record:
    """A record of parsed JSON; an error of any kind if it has other keys or types."""
    metrics = whole["metrics"]
    if not all(type(value) in (int, float) for value in metrics.values()):
        raise ValueError("a metric that is no number")
    if not isinstance(whole["key"], str) or not isinstance(whole["error"], str | None):
        raise TypeError("no key, or an error that is no text")
    columns = tuple(whole["series_columns"])
    return Record(
        whole["key"],
        str(whole["code"]),
        whole["error"],
        metrics,
        {name: _latency(one) for name, one in whole["latency"].items()},
        columns,
        _rows(whole["series"], len(columns)),
        tuple(tuple(str(cell) for cell in row) for row in whole["cycles"]),
    )


def _latency(one: Mapping[str, Any]) -> Latency:
    total, maximum = _integers((one["total"], one["maximum"]), 2)
    buckets = _integers(one["buckets"], len(one["buckets"]))
    counts = _integers(one["counts"], len(buckets))
    if not all(map(operator.lt, buckets, buckets[1:])) or not counts or min(counts) < 1:
        raise ValueError("buckets that do not rise, or empty ones")
    return Latency(total, maximum, _integers(one["percentiles"], 6), buckets, counts)


def _rows(rows: Sequence[Sequence[Any]], length: int) -> tuple[tuple[int, ...], ...]:
    if not set(map(len, rows)) <= {length} or not set(map(type, chain.from_iterable(rows))) <= {int}:
        raise ValueError(f"rows that are not of {length} integers")
    return tuple(map(tuple, rows))


def _integers(row: Sequence[Any], length: int) -> tuple[int, ...]:
    if len(row) != length or not set(map(type, row)) <= {int}:
        raise ValueError(f"a row that is not of {length} integers")
    return tuple(row)
