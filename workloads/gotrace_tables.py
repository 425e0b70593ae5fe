"""Strings, stacks and types of a trace: tables of a generation turned into tables of the whole trace.

The runtime numbers strings, stacks and types anew in each generation. :class:`IdTables` gives each distinct one a
number for the file (0 for none) and hands out, generation by generation, arrays that map the runtime's ids to them.
Mirrors generation.go:addStrings, addStacks and the type table of runtime/tracetype.go. Ids are counted up by the
runtime, so a map is as long as its largest id; an absurd id is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from workloads import gotrace_wire as wire
from workloads.gotrace_model import STACK_COLUMNS, TYPE_COLUMNS, TraceError

MAX_ID = 1 << 24
MAX_ENTRIES = 1 << 20  # of each table, in all generations together
MAX_ALL_FRAMES = 1 << 24
_TYPES_BATCH, _INFO_BATCH = 0, 1


class Batch(NamedTuple):
    """The bytes of one batch's events and where in the file they begin."""

    data: Any
    at: int

    def numbers(self, path: Path, skip: int) -> Any:
        """All bytes after the first ``skip`` as base-128 numbers."""
        data = self.data[skip:]
        out = np.zeros(len(data) + 1, np.int64)
        count = wire.numbers(data, out)
        if count < 0:
            raise TraceError(f"{path}: at byte {self.at + skip + out[0]}: {wire.REASONS[count]}")
        return out[:count]


class _Reader:
    """Reads numbers and texts of one batch; refuses with the byte's place in the file."""

    def __init__(self, path: Path, batch: Batch) -> None:
        self.path, self.base = path, batch.at
        self.bytes: bytes = batch.data.tobytes()
        self.at = 0

    def fail(self, what: str) -> TraceError:
        return TraceError(f"{self.path}: at byte {self.base + self.at}: {what}")

    def more(self) -> bool:
        return self.at < len(self.bytes)

    def byte(self) -> int:
        self.at += 1
        if self.at > len(self.bytes):
            raise self.fail("a table is cut off")
        return self.bytes[self.at - 1]

    def number(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
            if shift > 63:
                raise self.fail("a number longer than 64 bits")
        if value >> 64:
            raise self.fail("a number longer than 64 bits")
        return value

    def small(self, what: str, limit: int) -> int:
        value = self.number()
        if value > limit:
            raise self.fail(f"{what} {value} is larger than {limit}")
        return value

    def text(self, limit: int) -> bytes:
        size = self.small("text length", limit)
        self.at += size
        if self.at > len(self.bytes):
            raise self.fail("a text runs past the end of its batch")
        return self.bytes[self.at - size : self.at]


class IdTables:
    """The tables of a trace while it is read, and the id maps of the current generation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._strings: dict[bytes, int] = {b"": 0}
        self._stacks: dict[bytes, int] = {b"": 0}
        self._frames: list[Any] = []
        self._starts = [0, 0]
        self._types: dict[tuple[int, int, int, int], int] = {(0, 0, 0, 0): 0}
        self.info: tuple[int, int, int, int] | None = None  # min heap address, page size, heap and stack alignment
        self.begin([])

    def begin(self, strings: list[Batch]) -> None:
        """Start a generation whose string batches are these: ids of the last one mean nothing any more."""
        self._string_ids: dict[int, int] = {0: 0}
        self._stack_ids: dict[int, int] = {0: 0}
        self._type_ids: dict[int, int] = {0: 0}
        for batch in strings:
            self._add_strings(batch)
        self._string_map = id_map(self._string_ids)

    def finish(self) -> tuple[Any, Any, Any]:
        """The generation's id maps: stacks, strings, types."""
        return id_map(self._stack_ids), self._string_map, id_map(self._type_ids)

    def _string(self, text: bytes) -> int:
        number = self._strings.setdefault(text, len(self._strings))
        if number >= MAX_ENTRIES:
            raise TraceError(f"{self.path}: more than {MAX_ENTRIES} different strings")
        return number

    def _add_strings(self, batch: Batch) -> None:
        """The entries of a strings batch: id, text (generation.go:addStrings)."""
        reader = _Reader(self.path, batch)
        reader.byte()
        while reader.more():
            if reader.byte() != wire.STRING:
                raise reader.fail("no string entry in a table of strings")
            number = reader.small("string id", MAX_ID)
            self._string_ids[number] = self._string(reader.text(wire.MAX_STRING))

    def add_stacks(self, batch: Batch) -> None:
        """The entries of a stacks batch: id, then pc, func, file, line of each frame (generation.go:addStacks)."""
        at = batch.at
        out = batch.numbers(self.path, 1)
        count = len(out)
        found: list[tuple[int, int, int]] = []  # id, first number of the frames, depth
        i = 0
        while i < count:
            depth = int(out[i + 2]) if i + 2 < count else -1
            if out[i] != wire.STACK or not 0 <= depth <= wire.MAX_FRAMES or i + 3 + 4 * depth > count:
                raise TraceError(f"{self.path}: at byte {at}: a table of stacks of which number {i} is damaged")
            if not 0 <= out[i + 1] <= MAX_ID:
                raise TraceError(f"{self.path}: at byte {at}: stack id {int(out[i + 1])} is out of range")
            found.append((int(out[i + 1]), i + 3, depth))
            i += 3 + 4 * depth
        is_frame = np.ones(count, bool)
        for _, start, _ in found:
            is_frame[start - 3 : start] = False
        frames = self._with_strings(out[is_frame].reshape(-1, 4), at)
        first = 0
        for number, _, depth in found:
            self._stack_ids[number] = self._stack(frames[first : first + depth], at)
            first += depth

    def _with_strings(self, frames: Any, at: int) -> Any:
        """Frames whose func and file are the file's strings."""
        for column in (1, 2):
            ids = frames[:, column]
            if np.any((ids < 0) | (ids >= len(self._string_map))):
                raise TraceError(f"{self.path}: at byte {at}: a stack frame names a string that is not there")
            frames[:, column] = self._string_map[ids]
        if np.any(frames[:, 1:] < 0) or np.any(frames[:, 3] >= 1 << 31):
            raise TraceError(f"{self.path}: at byte {at}: a stack frame with a string or line that cannot be")
        return frames

    def _stack(self, frames: Any, at: int) -> int:
        """The number of a stack, a new one if it is new."""
        number = self._stacks.setdefault(frames.tobytes(), len(self._stacks))
        if number == len(self._starts) - 1:
            self._frames.append(frames)
            self._starts.append(self._starts[-1] + len(frames))
            if number >= MAX_ENTRIES or self._starts[-1] > MAX_ALL_FRAMES:
                raise TraceError(f"{self.path}: at byte {at}: {number} stacks, {self._starts[-1]} frames: too many")
        return number

    def add_alloc_free(self, batch: Batch) -> None:
        """A batch of the AllocFree experiment: where the heap begins, or types (traceallocfree.go, tracetype.go)."""
        reader = _Reader(self.path, batch)
        if not reader.more():
            return
        what = reader.byte()
        if what == _INFO_BATCH:
            self._add_info(reader)
            return
        if what != _TYPES_BATCH:
            raise reader.fail(f"an allocation batch of kind {what}; only 0 (types) and 1 (info) are known")
        while reader.more():
            number = reader.small("type id", MAX_ID)
            address, size, ptr_bytes = (reader.small("type", (1 << 63) - 1) for _ in range(3))
            name = self._string(reader.text(wire.MAX_BATCH))
            self._type_ids[number] = self._types.setdefault((address, size, ptr_bytes, name), len(self._types))
            if len(self._types) > MAX_ENTRIES:
                raise reader.fail(f"more than {MAX_ENTRIES} different types")

    def _add_info(self, reader: _Reader) -> None:
        info = (reader.number(), reader.number(), reader.number(), reader.number())
        if self.info is not None and self.info != info:
            raise reader.fail("a second, different heap base in one trace")
        if info[0] >> 63 or any(unit & (unit - 1) or not 0 < unit <= 1 << 24 for unit in info[1:]):
            raise reader.fail(f"heap base and units {info} that cannot be")
        self.info = info

    def columns(self) -> dict[str, Any]:
        """The tables as fields of a Trace."""
        frames = np.concatenate(self._frames) if self._frames else np.zeros((0, 4), np.int64)
        rows = np.array(list(self._types), np.int64).reshape(-1, 4)
        found: dict[str, Any] = {
            "strings": tuple(text.decode("utf-8", "replace") for text in self._strings),
            "stack_start": np.array(self._starts, np.int64),
        }
        for i, (name, dtype) in enumerate(STACK_COLUMNS.items()):
            found[name] = frames[:, i].astype(dtype)
        for i, (name, dtype) in enumerate(TYPE_COLUMNS.items()):
            found[name] = rows[:, i].astype(dtype)
        return found


def id_map(numbers: dict[int, int]) -> Any:
    """An array from id to number, -1 where there is none."""
    found = np.full(max(numbers) + 1, -1, np.int64)
    found[list(numbers)] = list(numbers.values())
    return found
