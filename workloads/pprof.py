"""Heap profiles of Go programs: gzip'd protocol buffers, as runtime/pprof writes them.

The message is Profile of github.com/google/pprof, proto/profile.proto; read here are its samples, locations, functions
and strings. A heap profile's samples have four values: objects and bytes allocated since the program began, and objects
and bytes in use at the last collection that ended. The runtime samples one allocation in so many bytes and scales the
values up before it writes them (runtime/pprof, protomem.go:scaleHeapSample). Each sample's stack and size are its own;
label ``bytes`` is the size, that of the slot.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_MAX_FILE = 1 << 28  # bytes, packed and unpacked
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_TYPES = ("alloc_objects", "alloc_space", "inuse_objects", "inuse_space")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one stack allocated of one size, bytes of a slot; functions, the innermost first."""

    stack: tuple[str, ...]
    size: int
    alloc_objects: int
    alloc_space: int
    inuse_objects: int
    inuse_space: int


@dataclass(frozen=True, slots=True)
class HeapProfile:
    """``period``: mean bytes between two samples. ``time_ns``: of writing, Unix. ``duration_ns``: mostly 0."""

    samples: tuple[Sample, ...]
    period: int
    time_ns: int
    duration_ns: int


def read_profile(path: str | os.PathLike[str]) -> HeapProfile:
    """The heap profile of a file; ValueError, one line, if it is none."""
    source = Path(path)
    try:
        with source.open("rb") as stream:
            packed = stream.read(_MAX_FILE + 1)
    except OSError as error:
        raise ValueError(f"{source}: cannot be read: {error.strerror}") from error
    if packed.startswith(b"heap profile:"):
        raise ValueError(f"{source}: is a heap profile as text; fetch it without debug=1")
    try:
        return parse_profile(_unpacked(packed))
    except (ValueError, IndexError) as error:
        raise ValueError(
            f"{source}: is no heap profile ({error or 'cut short'}); name one of /debug/pprof/heap"
        ) from None


def _unpacked(packed: bytes) -> bytes:
    if packed[:2] != b"\x1f\x8b":
        return packed
    unpacker = zlib.decompressobj(wbits=31)
    try:
        found = unpacker.decompress(packed, _MAX_FILE)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not unpacker.eof:
        raise ValueError("cut short" if len(found) < _MAX_FILE else "larger than 256 MiB")
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number, and value as an integer or as the bytes of what has a length."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == _BYTES:
            length, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"a field of wire type {kind}")
        if at + length > len(data):
            raise ValueError("cut short")
        yield number, data[at : at + length]
        at += length


def _numbers(value: int | bytes) -> Iterator[int]:
    """A repeated number, packed or not, as signed 64 bits."""
    if isinstance(value, int):
        yield _signed(value)
        return
    at = 0
    while at < len(value):
        one, at = _varint(value, at)
        yield _signed(one)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _message(value: int | bytes) -> dict[int, int | bytes]:
    """The last value of each field of a message without repeated ones."""
    if isinstance(value, bytes):
        return dict(fields(value))
    raise ValueError("a number in place of a message")


def _integer(message: dict[int, int | bytes], number: int) -> int:
    value = message.get(number, 0)
    if isinstance(value, int):
        return _signed(value)
    raise ValueError("bytes in place of a number")


def parse_profile(data: bytes) -> HeapProfile:
    """The heap profile in the bytes of a message; ValueError or IndexError if they are none."""
    repeated: dict[int, list[bytes]] = {number: [] for number in (1, 2, 4, 5, 6)}
    single: dict[int, int | bytes] = {}
    for number, value in fields(data):
        if number in repeated:
            if isinstance(value, int):
                raise ValueError("a number in place of a message")
            repeated[number].append(value)
        else:
            single[number] = value
    types, samples, locations, functions, strings = repeated.values()
    names = [text.decode("utf-8", "replace") for text in strings]
    columns = [names[_integer(_message(one), 1)] for one in types]
    if not set(_TYPES) <= set(columns):
        raise ValueError(f"its samples are of {', '.join(columns) or 'nothing'}")
    order = [columns.index(name) for name in _TYPES]
    named = {_integer(one, 1): names[_integer(one, 2)] for one in map(_message, functions)}
    at = dict(_location(one, named) for one in locations)
    found = (_sample(one, order, at, names) for one in samples)
    return HeapProfile(
        samples=tuple(one for one in found if one.alloc_objects > 0 and one.size > 0),  # go1.19 writes empty ones too
        period=_integer(single, 12),
        time_ns=_integer(single, 9),
        duration_ns=_integer(single, 10),
    )


def _location(data: bytes, functions: dict[int, str]) -> tuple[int, tuple[str, ...]]:
    """Id of a location, and its functions: several where calls are inlined, the innermost first."""
    number, lines = 0, []
    for field, value in fields(data):
        if field == 1 and isinstance(value, int):
            number = value
        elif field == 4:
            lines.append(functions.get(_integer(_message(value), 1), "?"))
    return number, tuple(lines)


def _sample(data: bytes, order: list[int], locations: dict[int, tuple[str, ...]], names: list[str]) -> Sample:
    stack: list[str] = []
    values: list[int] = []
    size = 0
    for field, value in fields(data):
        if field == 1:
            stack += [name for one in _numbers(value) for name in locations.get(one, ("?",))]
        elif field == 2:
            values += _numbers(value)
        elif field == 3:
            label = _message(value)
            if names[_integer(label, 1)] == "bytes":
                size = _integer(label, 3)
    made, made_bytes, used, used_bytes = (values[column] for column in order)
    if size <= 0 and made > 0:
        size = round(made_bytes / made)
    return Sample(tuple(stack), size, made, made_bytes, used, used_bytes)
