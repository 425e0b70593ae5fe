"""Recorded answers of the real TCMalloc (gperftools 2.10), of one thread.

Such a file holds what happened in the heap before main, operations, the address of each object, and checkpoints between:
statistics and the whole page map. Every address (page and offset, from the heap's lowest page), every statistic, every
span of a page map and every line of the final text is one comparison. What counts the library's metadata is not
compared: it depends on where the system put the heap.

Before main, "b" is a malloc through the cache made at boot, which is then abandoned, and "c" a free of a thread without
a cache; "a", "f" and "r" (realloc) are the main thread's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from experiments.conform_file import Conformance
from experiments.errors import InputError
from sim.ops import ALLOC, DEAD, OP
from sim.tcmalloc.heap import DEFAULT_OVERALL_CACHE_SIZE, TCMalloc
from sim.tcmalloc.sizeclasses import PAGE_SHIFT, PAGE_SIZE
from sim.tcmalloc.stats import numeric_properties, page_map, stats_lines
from sim.units import Throw

BOOT, MAIN = range(2)
_MAX_SIZE = 1 << 40  # bytes of an object, at most
_CACHE_BYTES, _RATE, _SAMPLE = (
    "TCMALLOC_MAX_TOTAL_THREAD_CACHE_BYTES",
    "TCMALLOC_RELEASE_RATE",
    "TCMALLOC_SAMPLE_PARAMETER",
)
_METADATA = ("generic.total_physical_bytes",)
_STARTUP = {"a": 3, "b": 3, "r": 3, "f": 2, "c": 2}
_METADATA_LINES = ("Bytes in malloc metadata", "Actual memory used", "Virtual address space used")
_KEYS = ("startup_ops", "ops", "addr", "checkpoints")


class _Tally:
    """How many answers were compared and equal, and the first that was not."""

    def __init__(self) -> None:
        self.total = self.equal = 0
        self.first: str | None = None

    def compare(self, where: str, recorded: list[Any], computed: list[Any]) -> None:
        """Compare two lists; where they differ in length, what only one of them has differs."""
        n = max(len(recorded), len(computed))
        self.total += n
        if recorded == computed:
            self.equal += n
            return
        nothing = "none"
        pad = [nothing] * n
        for i, (a, b) in enumerate(zip((recorded + pad)[:n], (computed + pad)[:n], strict=True)):
            self.equal += a == b
            if a != b and self.first is None:
                self.first = f"{where.format(i)}: recorded {a}, computed {b}"


def _integer(where: str, value: Any, low: int, high: int) -> int:
    if type(value) is not int or not low <= value < high:
        raise InputError(f"{where} is {value!r:.60}; it is an integer from {low} to {high - 1}")
    return value


def _operation(where: str, row: Any, fields: dict[str, int]) -> tuple[str, Any, int]:
    """Kind, id and size (0 if it has none) of an operation."""
    kind = row[0] if isinstance(row, list) and row and isinstance(row[0], str) else None
    if kind not in fields or len(row) != fields[kind]:
        forms = ", ".join(f'["{k}"{", id" * (n > 1)}{", size" * (n > 2)}]' for k, n in fields.items())
        raise InputError(f"{where} is {row!r:.60}; an operation is {forms}")
    name = row[1] if len(row) > 1 else 0
    if type(name) not in (int, str):
        raise InputError(f"{where}: id {name!r:.60}; an id is an integer or a string")
    return kind, name, _integer(f"{where}: size", row[2], 0, _MAX_SIZE) if len(row) > 2 else 0


def _heap(path: Path, data: Any) -> TCMalloc:
    """An empty heap with the settings the file names."""
    page_size = data.get("page_size", PAGE_SIZE)
    if page_size != PAGE_SIZE:
        raise InputError(f"{path}: page_size is {page_size!r:.60}; the model has pages of {PAGE_SIZE} bytes")
    env = data.get("env", {})
    if not isinstance(env, dict):
        raise InputError(f"{path}: env is {env!r:.60}; it is an object of environment variables")
    for name, value in env.items():
        if name == _SAMPLE and value != "0":
            raise InputError(f"{path}: env: {name} is {value!r:.60}; sampling is not modelled, it is 0 here")
        if name.startswith("TCMALLOC_") and name not in (_CACHE_BYTES, _RATE, _SAMPLE):
            raise InputError(f"{path}: env: {name!r:.80} is not modelled; known: {_CACHE_BYTES}, {_RATE}, {_SAMPLE}")
    try:
        total = int(env.get(_CACHE_BYTES, DEFAULT_OVERALL_CACHE_SIZE))
        rate = float(env.get(_RATE, 1))
        if total < 0:
            raise ValueError
        return TCMalloc(2, min(total, 1 << 62), rate)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"{path}: env: {_CACHE_BYTES} and {_RATE} are numbers, 0 or more") from None


class _Replay:
    """One file's operations on one heap; what it finds is in ``tally``."""

    def __init__(self, path: Path, data: Any) -> None:
        self.path, self.data = path, data
        for key in _KEYS:
            if not isinstance(data.get(key), list):
                raise InputError(f"{path}: {key} is no list; a TCMalloc file has {', '.join(_KEYS)}")
        self.heap = _heap(path, data)
        self.tally = _Tally()
        self.variables: dict[Any, int] = {}  # by id of a live object
        self.used = 0
        self.addresses = self._addresses()
        self.answered = 0

    def _addresses(self) -> list[int]:
        """The recorded addresses in bytes from the heap's lowest page."""
        found = []
        for i, row in enumerate(self.data["addr"]):
            if not isinstance(row, list) or len(row) != 2:
                raise InputError(f"{self.path}: addr[{i}] is {row!r:.60}; an address is [page, offset]")
            page = _integer(f"{self.path}: addr[{i}]: page", row[0], 0, 1 << 40)
            found.append((page << PAGE_SHIFT) + _integer(f"{self.path}: addr[{i}]: offset", row[1], 0, PAGE_SIZE))
        return found

    def _new(self, where: str, name: Any) -> int:
        if name in self.variables:
            raise InputError(f"{where}: id {name!r:.60} is live already")
        self.variables[name] = self.used
        self.used += 1
        return self.used - 1

    def _dead(self, where: str, name: Any) -> int:
        if name not in self.variables:
            raise InputError(f"{where}: id {name!r:.60} is not live")
        return self.variables.pop(name)

    def startup(self) -> None:
        """What happened before main."""
        heap = self.heap
        held: dict[int, int] = {}  # by variable
        caches: set[int] = set()
        for i, row in enumerate(self.data["startup_ops"]):
            where = f"{self.path}: startup_ops[{i}]"
            kind, name, size = _operation(where, row, _STARTUP)
            t = BOOT if kind == "b" else MAIN
            if kind != "c" and t not in caches:
                caches.add(t)
                heap.new_cache(t)
            if kind == "r":
                old = held[self._dead(where, name)] if name in self.variables else 0
                held[self._new(where, name)] = heap.realloc(t, old, size)
            elif kind in "ab":
                held[self._new(where, name)] = heap.malloc(t, size)
            else:
                heap.free(-1 if kind == "c" else t, held[self._dead(where, name)])
        if MAIN not in caches:
            heap.new_cache(MAIN)
        for variable in self.variables.values():
            heap.hold(MAIN, variable, held[variable])

    def run(self) -> None:
        """All operations, and the checkpoints among them."""
        self.startup()
        checkpoints = iter(enumerate(self.data["checkpoints"]))
        self.checkpoint(*next(checkpoints, (0, None)))
        batch: list[tuple[int, int, int]] = []
        for i, row in enumerate(self.data["ops"]):
            where = f"{self.path}: ops[{i}]"
            kind, name, size = _operation(where, row, {"a": 3, "f": 2, "s": 1})
            if kind == "s":
                self._batch(batch)
                self.checkpoint(*next(checkpoints, (-1, None)))
            elif kind == "a":
                batch.append((ALLOC, self._new(where, name), size))
            else:
                batch.append((DEAD, self._dead(where, name), 0))
        self._batch(batch)
        self.checkpoint(*next(checkpoints, (-1, None)))
        left = next(checkpoints, None)
        if left is not None:
            raise InputError(f'{self.path}: checkpoints[{left[0]}] is one too many; there is one per "s" and two')
        if self.answered != len(self.addresses):
            raise InputError(f'{self.path}: addr has {len(self.addresses)} rows; there are {self.answered} "a"')
        if "end_stats_text" in self.data:
            self._text()

    def _batch(self, batch: list[tuple[int, int, int]]) -> None:
        """Run operations and compare addresses; the batch is empty again."""
        ops = np.zeros(len(batch), OP)
        if batch:
            ops["kind"], ops["obj"], ops["arg"] = zip(*batch, strict=True)
        addresses = self.heap.run_ops(MAIN, ops)
        computed = addresses[ops["kind"] == ALLOC].tolist()
        recorded = self.addresses[self.answered : self.answered + len(computed)]
        n = self.answered
        self.answered += len(computed)
        if len(recorded) < len(computed):
            raise InputError(f'{self.path}: addr has {len(self.addresses)} rows; there are more "a" than that')
        batch.clear()
        if recorded == computed:
            self.tally.compare("", recorded, computed)
            return
        pairs = [[[a >> PAGE_SHIFT, a & (PAGE_SIZE - 1)] for a in found] for found in (recorded, computed)]
        for i, (a, b) in enumerate(zip(*pairs, strict=True)):
            self.tally.compare(f"addr[{n + i}]", [a], [b])

    def checkpoint(self, i: int, recorded: Any) -> None:
        """Compare statistics and the page map."""
        where = f"{self.path}: checkpoints[{i}]"
        if i < 0 or recorded is None:
            raise InputError(f'{self.path}: too few checkpoints; there is one at the start, one per "s", one at the end')
        if not isinstance(recorded, dict):
            raise InputError(f"{where} is {recorded!r:.60}; a checkpoint is an object with stats and spans")
        stats, spans = recorded.get("stats"), recorded.get("spans")
        if not isinstance(stats, dict) or not isinstance(spans, list):
            raise InputError(f"{where} lacks stats or spans; a checkpoint has an object of one, a list of the other")
        computed = numeric_properties(self.heap)
        for name, value in stats.items():
            if name in _METADATA:
                continue
            if name not in computed:
                raise InputError(f"{where}: stats: {name!r:.80} is not known; known: {', '.join(computed)}")
            _integer(f"{where}: stats: {name}", value, 0, 1 << 62)
            self.tally.compare(f"checkpoints[{i}] {name}", [value], [computed[name]])
        for j, row in enumerate(spans):
            if not isinstance(row, list) or len(row) != 4 or any(type(x) is not int for x in row):
                raise InputError(f"{where}: spans[{j}] is {row!r:.60}; a span is [page, pages, kind, ppm]")
        self.tally.compare(f"checkpoints[{i}] spans[{{}}]", spans, page_map(self.heap))

    def _text(self) -> None:
        text = self.data["end_stats_text"]
        if not isinstance(text, str):
            raise InputError(f"{self.path}: end_stats_text is {text!r:.60}; it is a text")
        kinds = ("MALLOC: ", "class ", "PageHeap: ")
        lines = [
            line
            for line in text.splitlines()
            if (line.startswith(kinds) or " pages * " in line or " large * " in line)
            and "--------" not in line
            and not any(what in line for what in _METADATA_LINES)
        ]
        computed = [line for line in stats_lines(self.heap) if not line.startswith("-")]
        self.tally.compare("end_stats_text, line {} of those compared", lines, computed)


def conform_tcmalloc(path: Path, data: Any) -> Conformance:
    """Replay one recorded sequence and compare every answer."""
    replay = _Replay(path, data)
    try:
        replay.run()
    except Throw as broken:
        raise InputError(f"{path}: asks for the impossible: {broken}") from None
    tally = replay.tally
    return Conformance("TCMalloc", tally.total, tally.equal, tally.first)
