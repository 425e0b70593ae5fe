"""The compact file of a trace, ``.alloctrace``: a zip of numpy arrays, one per column, without pickles.

The same trace gives the same bytes: members in one order, fixed timestamps. Times are kept as differences. Loading
trusts nothing: the schema's version, each member's type and size, and every index into a table are checked, and a
column's length bounds what is read of it.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from itertools import pairwise
from typing import Any

import numpy as np

from workloads.gotrace_model import (
    EVENT_COLUMNS,
    GO_BLOCK,
    GO_LABEL,
    GO_STOP,
    KIND_NAMES,
    OBJECT,
    OBJECT_ALLOC,
    STACK_COLUMNS,
    STW_BEGIN,
    STW_END,
    TYPE_COLUMNS,
    Trace,
    TraceError,
)

MAGIC = b"PK\x03\x04"
SCHEMA = 1
_MAX_ROWS = 1 << 28
_ARRAYS: dict[str, str] = {
    **EVENT_COLUMNS,
    "generation": "<i8",
    "generation_start": "<i8",
    "stack_start": "<i8",
    **STACK_COLUMNS,
    **TYPE_COLUMNS,
    "string_start": "<i8",
    "string_bytes": "|u1",
    "scalars": "|u1",
}
_SCALARS: dict[str, type] = {"go_version": str, "min_heap": int, "page_size": int, "gomaxprocs": int}
_COUNTS = ("unknown", "skipped")


def save(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write a trace to a file that :func:`load` reads. The same trace gives the same bytes. OSError as it comes."""
    texts = [text.encode("utf-8", "surrogatepass") for text in trace.strings]
    scalars = {name: getattr(trace, name) for name in (*_SCALARS, *_COUNTS)}
    arrays = {name: getattr(trace, name) for name in _ARRAYS if hasattr(trace, name)}
    arrays["time_ns"] = np.diff(trace.time_ns, prepend=0)
    arrays["string_start"] = np.cumsum([0, *map(len, texts)])
    arrays["string_bytes"] = np.frombuffer(b"".join(texts), np.uint8)
    arrays["scalars"] = np.frombuffer(json.dumps({"schema": SCHEMA, **scalars}, sort_keys=True).encode(), np.uint8)
    with zipfile.ZipFile(path, "w") as file:
        for name, dtype in _ARRAYS.items():
            member = zipfile.ZipInfo(name + ".npy", (1980, 1, 1, 0, 0, 0))
            member.compress_type = zipfile.ZIP_DEFLATED
            with file.open(member, "w", force_zip64=True) as stream:
                column = np.ascontiguousarray(arrays[name], dtype)
                np.lib.format.write_array(stream, column, version=(1, 0), allow_pickle=False)


def load(path: str | os.PathLike[str]) -> Trace:
    """Read what :func:`save` wrote; TraceError, one line, if it is anything else or damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            arrays = {name: _member(file, name, dtype) for name, dtype in _ARRAYS.items()}
        trace = _trace(arrays)
    except TraceError as error:
        raise TraceError(f"{path}: {error}") from error
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, NotImplementedError, RuntimeError) as error:
        what = " ".join(str(error).split())
        raise TraceError(f"{path}: no trace that `allocsim import` wrote, or a damaged one: {what}") from error
    except (MemoryError, RecursionError, SyntaxError) as error:
        raise TraceError(f"{path}: no trace that `allocsim import` wrote: {type(error).__name__}") from error
    return trace


def _member(file: zipfile.ZipFile, name: str, dtype: str) -> Any:
    """One column: its type as expected, its length no more than the member holds."""
    info = file.getinfo(name + ".npy")
    with file.open(info) as stream:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise TraceError(f"{info.filename}: not version 1.0 of numpy's format")
        shape, _, found = np.lib.format.read_array_header_1_0(stream)
        if found != np.dtype(dtype) or len(shape) != 1:
            raise TraceError(
                f"{info.filename}: {found} of {len(shape)} dimensions; a column of {np.dtype(dtype)} is due"
            )
        size = shape[0] * found.itemsize
        if not 0 <= shape[0] <= _MAX_ROWS or size > info.file_size:
            raise TraceError(f"{info.filename}: {shape[0]} rows do not fit its {info.file_size} bytes")
        data = bytearray()
        while len(data) < size and (piece := stream.read(min(size - len(data), 1 << 22))):
            data += piece
        if len(data) != size or stream.read(1):
            raise TraceError(f"{info.filename}: is cut off or too long")
    return np.frombuffer(data, dtype)


def _trace(arrays: dict[str, Any]) -> Trace:
    """The trace of checked columns."""
    scalars = json.loads(arrays.pop("scalars").tobytes())
    if not isinstance(scalars, dict) or scalars.pop("schema", None) != SCHEMA:
        raise TraceError(f"written with another schema than {SCHEMA}; import the original trace again")
    for name, kind in _SCALARS.items():
        if type(scalars.get(name)) is not kind:
            raise TraceError(f"scalars.npy: {name} is missing or no {kind.__name__}")
    for name in _COUNTS:
        counts = scalars.get(name)
        if not isinstance(counts, dict) or not all(type(n) is int for n in counts.values()):
            raise TraceError(f"scalars.npy: {name} is missing or no table of counts")
    if set(scalars) != {*_SCALARS, *_COUNTS}:
        raise TraceError("scalars.npy: has entries that do not belong there")
    starts, texts = arrays.pop("string_start"), arrays.pop("string_bytes").tobytes()
    _check_starts("string_start", starts, len(texts))
    edges = starts.tolist()
    strings = tuple(texts[low:high].decode("utf-8", "surrogatepass") for low, high in pairwise(edges))
    _check_lengths(arrays)
    if len(arrays["time_ns"]) and np.any(arrays["time_ns"][1:] <= 0):
        raise TraceError("time_ns.npy: times that do not rise")
    arrays["time_ns"] = np.cumsum(arrays["time_ns"])
    trace = Trace(**arrays, **scalars, strings=strings)
    _check_indices(trace)
    return trace


def _check_starts(name: str, starts: Any, end: int) -> None:
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != end or np.any(np.diff(starts) < 0):
        raise TraceError(f"{name}.npy: does not cut its table into entries")


def _check_lengths(arrays: dict[str, Any]) -> None:
    for group in (EVENT_COLUMNS, STACK_COLUMNS, TYPE_COLUMNS, ("generation", "generation_start")):
        lengths = {name: len(arrays[name]) for name in group}
        if len(set(lengths.values())) != 1:
            raise TraceError(f"columns of one table differ in length: {lengths}")
    _check_starts("stack_start", arrays["stack_start"], len(arrays["frame_pc"]))


def _check_indices(trace: Trace) -> None:
    """Every index into a table is inside it."""
    kind = trace.kind
    strings = np.isin(kind, (STW_BEGIN, STW_END, GO_STOP, GO_BLOCK, GO_LABEL))
    objects = (kind == OBJECT) | (kind == OBJECT_ALLOC)
    for name, column, limit in (
        ("kind", kind, len(KIND_NAMES)),
        ("stack", trace.stack, len(trace.stack_start) - 1),
        ("a", trace.a[strings], len(trace.strings)),
        ("b", trace.b[objects], len(trace.type_name)),
        ("frame_func", trace.frame_func, len(trace.strings)),
        ("frame_file", trace.frame_file, len(trace.strings)),
        ("type_name", trace.type_name, len(trace.strings)),
        ("generation_start", trace.generation_start, len(kind) + 1),
    ):
        if len(column) and not (column.min() >= 0 and column.max() < limit):
            raise TraceError(f"{name}.npy: an index outside its table of {limit}")
