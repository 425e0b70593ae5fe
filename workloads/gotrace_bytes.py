"""The bytes of a recorded trace and where its batches lie: reading, .xz, the header, the table of batches.

Batches are looked for while bytes come in, so that a file that turns into something else is refused there and not
after all of it has been unpacked. At most :data:`MAX_BYTES` of trace are held, and :data:`MAX_BATCHES` batches.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sim.jit import PLAIN
from workloads import gotrace_wire as wire
from workloads.gotrace_model import TraceError

MAX_BYTES = 4 << 30
MAX_BATCHES = 1 << 22
XZ_MAGIC = b"\xfd7zXZ\x00"
_XZ_MEMORY = 256 << 20  # bytes; xz -9 needs 65 MiB
_CHUNK = 1 << 20
_HEADER = 16
_VERSIONS = (22, 23, 25, 26)  # 1.24 writes 1.23, 1.27 writes 1.26
_ROWS = 4096


class Batches(NamedTuple):
    """A trace in memory: the minor version of its header, its bytes, and a BATCH record for each batch."""

    version: int
    data: Any
    table: Any


def read_batches(path: Path) -> Batches:
    """Read and index a raw or .xz trace; TraceError tells what is wrong, at which byte of the raw trace."""
    data = bytearray()
    pieces = [np.zeros(0, wire.BATCH)]
    found = version = 0
    at = _HEADER
    for chunk in _chunks(path):
        data += chunk
        if len(data) > MAX_BYTES:
            raise TraceError(f"{path}: holds more than {MAX_BYTES >> 30} GiB of trace; record a shorter one")
        if len(data) < _HEADER:
            continue
        version = version or _version(path, bytes(data[:_HEADER]))
        at, rows = _index(path, data, at)
        pieces += rows
        found += sum(map(len, rows))
        if found > MAX_BATCHES:
            raise TraceError(f"{path}: more than {MAX_BATCHES} batches up to byte {at}; record a shorter trace")
    if not version:
        if not data:
            raise TraceError(f"{path}: is empty; a Go execution trace is wanted")
        _version(path, bytes(data))
    if at != len(data):
        raise TraceError(f"{path}: at byte {at}: {wire.REASONS[wire.CUT_BATCH]}")
    return Batches(version, np.frombuffer(data, np.uint8), np.concatenate(pieces))


def _version(path: Path, header: bytes) -> int:
    """The minor version that a header tells (version.go:ReadHeader)."""
    match = re.fullmatch(rb"go 1\.(\d\d?) trace\0+", header)
    if not match or len(header) != _HEADER:
        if match or (header and b"go 1.".startswith(header[:5]) and len(header) < _HEADER):
            raise TraceError(f"{path}: at byte {len(header)}: the trace is cut off inside its header")
        raise TraceError(f"{path}: at byte 0: no Go execution trace; one begins with 'go 1.N trace'")
    version = int(match[1])
    if version < _VERSIONS[0]:
        raise TraceError(f"{path}: at byte 0: a trace of Go before 1.22; record it with Go 1.22 to 1.27")
    if version not in _VERSIONS:
        raise TraceError(f"{path}: at byte 0: trace format 1.{version} is not known; record it with Go 1.22 to 1.27")
    return version


def _index(path: Path, data: bytearray, at: int) -> tuple[int, list[Any]]:
    """Index the complete batches from byte ``at`` on: the byte reached and the new rows."""
    view = np.frombuffer(data, np.uint8)
    rows: list[Any] = []
    reached = np.zeros(2, np.int64)
    status = wire.FULL
    while status == wire.FULL:
        piece = record_array(_ROWS, wire.BATCH)
        status = wire.index_batches(view, at, piece, reached)
        at = int(reached[0])
        if status < 0:
            raise TraceError(f"{path}: at byte {at}: {wire.REASONS[status]}")
        rows.append(np.asarray(piece[: reached[1]]).copy())
    return at, rows


def record_array(length: int, dtype: Any) -> Any:
    """Zeroed records as compiled functions take them: in plain mode their fields are attributes."""
    records = np.zeros(length, dtype)
    return records.view(np.recarray) if PLAIN else records


def _chunks(path: Path) -> Iterator[bytes]:
    """The raw trace in pieces of bounded size, unpacked if need be."""
    try:
        with open(path, "rb") as file:
            first = file.read(_CHUNK)
            packed = first.startswith(XZ_MAGIC)
            yield from _unpack(path, first, file) if packed else _plain(first, file)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error


def _plain(first: bytes, file: Any) -> Iterator[bytes]:
    while first:
        yield first
        first = file.read(_CHUNK)


def _unpack(path: Path, packed: bytes, file: Any) -> Iterator[bytes]:
    """Unpack .xz streams, one after the other."""
    done = 0
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    while True:
        try:
            yield unpacker.decompress(packed, _CHUNK)
            while not unpacker.needs_input and not unpacker.eof:
                yield unpacker.decompress(b"", _CHUNK)
        except (lzma.LZMAError, MemoryError) as error:
            raise TraceError(f"{path}: damaged .xz before compressed byte {done + len(packed)}: {error}") from error
        done += len(packed)
        packed = unpacker.unused_data.lstrip(b"\0") if unpacker.eof else b""
        done -= len(packed)
        packed = packed or file.read(_CHUNK)
        if unpacker.eof:
            packed = packed.lstrip(b"\0")  # padding between streams
            if not packed and not file.peek(1):
                return
            if packed:
                unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
            continue
        if not packed:
            raise TraceError(f"{path}: the .xz file is cut off after compressed byte {done}")
