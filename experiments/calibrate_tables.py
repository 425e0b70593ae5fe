"""What the processes of `allocsim calibrate` printed, gathered: rows of tables, by version, with all their readings.

A process prints a JSON object a line, {"table": ..., "key": [...], "values": {column: number}}; marking is told by the
runtime's gctrace besides. Of each number all readings are kept; a file has their [median, min, max], to four digits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from experiments.calibrate_host import rounded
from experiments.calibrate_plan import Run
from experiments.errors import InputError
from experiments.machine_file import FIRST_TOUCH, OPTIONAL, TABLES, Key
from sim.metrics.gctrace import GcLine, parse_gctrace

_MS, _US = 1e6, 1e3  # nanoseconds
_MB, _MIB = 1e6, 1 << 20
_OWN_STEPS = ("profile_sample", "mark_stack")  # single prices that are the version's, not the machine's
MACHINE = ""  # stands for a version where a table is the machine's

SPECS = {**TABLES, **OPTIONAL, "first_touch": FIRST_TOUCH}

Values = dict[str, list[float]]


@dataclass(slots=True)
class Measurements:
    """Readings by (version, table), row and column; and how many processes fed a table."""

    tables: dict[tuple[str, str], dict[Key, Values]] = field(default_factory=dict)

    def add(self, version: str, run: Run, stdout: str, stderr: str) -> None:
        """What one process said; InputError if it is not what such a run says."""
        if "marked" in run.tables or "marked_in_order" in run.tables:
            mib = next(int(one.removeprefix("-mib=")) for one in run.arguments if one.startswith("-mib="))
            cycles = _collections(run, stderr)
            table, key = ("marked", (mib, run.procs or 0)) if "marked" in run.tables else ("marked_in_order", (mib,))
            self._row(version, table, key, {"cpu": median(sum(one.cpu[1:4]) / _US for one in cycles)})
            if "paused" in run.tables:
                self._row(version, "paused", (mib,), {"both": _paused(_automatic(run, stderr) or cycles)})
        for line in stdout.splitlines():
            try:
                found = json.loads(line)
                table, key, values = found["table"], tuple(found["key"]), found["values"]
            except (ValueError, KeyError, TypeError):
                raise InputError(f"calibrate {run.arguments[0]} printed {line[:60]!r}, which is no row") from None
            if table == "mark":
                for each in _marked(run, values["objects"], stderr):
                    self._row(version, table, key, each)
            else:
                self._row(*_place(version, table, key), values)

    def _row(self, version: str, table: str, key: Key, values: Mapping[str, float]) -> None:
        row = self.tables.setdefault((version, table), {}).setdefault(key, {})
        for column, value in values.items():
            row.setdefault(column, []).append(value)

    def rows(self, version: str, table: str) -> list[list[Any]]:
        """The rows of a table as a machine file has them, sorted."""
        found = self.tables.get((version, table), {})
        if table.startswith("refilled"):
            found = _mostly_told(found)
        columns = SPECS[table].split()
        return [_cells(columns, key, found[key]) for key in sorted(found, key=_order)]

    def singles(self, version: str, table: str) -> dict[str, list[float]]:
        """All readings of single prices."""
        return {str(name): row["ns"] for (name,), row in self.tables.get((version, table), {}).items()}

    def processes(self, version: str, table: str) -> int:
        """The most readings of one number of a table."""
        rows = self.tables.get((version, table), {}).values()
        return max((len(values) for row in rows for values in row.values()), default=0)

    def spread(self, table: str, column: str) -> float:
        """Of a column, the median over rows and versions of (max - min) / median, in percent."""
        spreads = [
            100 * (max(row[column]) - min(row[column])) / median(row[column])
            for (_, name), rows in self.tables.items()
            if name == table
            for row in rows.values()
            if median(row[column]) > 0
        ]
        return median(spreads) if spreads else 0.0


def reading(values: Sequence[float]) -> list[float]:
    """[median, min, max], to four digits."""
    return [rounded(number) for number in (median(values), min(values), max(values))]


def _mostly_told(found: Mapping[Key, Values]) -> dict[Key, Values]:
    """Rows that at least half of the processes told of those that had the same heap: a process tells none of types that it
    refilled too seldom, which a few do not say of the same type."""
    told = {key: max(map(len, values.values())) for key, values in found.items()}
    most: dict[Key, int] = {}
    for key, n in told.items():
        most[key[2:]] = max(n, most.get(key[2:], 0))
    return {key: found[key] for key, n in told.items() if 2 * n >= most[key[2:]]}


def _place(version: str, table: str, key: Key) -> tuple[str, str, Key]:
    """Whose a row is: first touch is the machine's, by version; single prices are, but for some."""
    if table == "first_touch":
        return MACHINE, table, (*key, version)
    if table == "lock" or (table == "steps" and key[0] not in _OWN_STEPS):
        return MACHINE, table, key
    return version, table, key


def _order(key: Key) -> list[tuple[bool, int, str]]:
    """Numbers by their value, texts by their letters and then by the number in them."""
    return [(False, part, "") if isinstance(part, int) else (True, *_natural(part)) for part in key]


def _natural(text: str) -> tuple[int, str]:
    digits = "".join(letter for letter in text[1:] if letter.isdigit())
    return (int(digits), text) if text[:1] in "np" and digits == text[1:] else (0, text)


def _cells(columns: Sequence[str], key: Key, values: Values) -> list[Any]:
    """A row: its key, and its numbers as the columns want them."""
    parts, cells = iter(key), list[Any]()
    for column in columns:
        name, sort = column.rstrip("#=~"), column[-1]
        if sort == "~":
            cells.append(reading(values[name]))
        else:
            cells.append(rounded(median(values[name])) if sort == "=" else next(parts))
    return cells


def _marked(run: Run, objects: float, stderr: str) -> list[dict[str, float]]:
    """The columns of the table mark, for each of the last collections."""
    return [_cycle(line, objects) for line in _collections(run, stderr)]


def _collections(run: Run, stderr: str) -> list[GcLine]:
    """The lines of the last collections, as many as were asked for."""
    lines = [line for line in stderr.splitlines() if line.startswith("gc ")][-run.traced :]
    if len(lines) < run.traced:
        raise InputError(f"calibrate {' '.join(run.arguments)}: {len(lines)} of {run.traced} gctrace lines came")
    return _parsed(run, lines)


def _parsed(run: Run, lines: Sequence[str]) -> list[GcLine]:
    """Lines of gctrace; InputError if one is none."""
    try:
        return [parse_gctrace(line) for line in lines]
    except ValueError as error:
        raise InputError(f"calibrate {' '.join(run.arguments)}: {error}") from None


def _automatic(run: Run, stderr: str) -> list[GcLine]:
    """The lines of all collections that the heap's growth began; a large heap has few."""
    lines = [line for line in stderr.splitlines() if line.startswith("gc ")]
    return _parsed(run, [line for line in lines if not line.endswith("(forced)")])


def _paused(cycles: Sequence[GcLine]) -> float:
    """Microseconds of both pauses, the median of those that nothing disturbed: up to twice as long as the shortest. Where a
    host takes memory away, in one of ten pauses of a large heap or in half of them a page is missing, for 100 us and more.
    """
    pauses = [(one.clock[0] + one.clock[2]) / _US for one in cycles]
    return median(pause for pause in pauses if pause <= 2 * min(pauses))


def _cycle(line: GcLine, objects: float) -> dict[str, float]:
    wall, cpu = line.clock[1], sum(line.cpu[1:4])
    bytes_marked = line.heap[2] * _MIB
    return {
        "objects": objects / 1e6,
        "gc_wall": sum(line.clock) / _MS,
        "mark_wall": wall / _MS,
        "mark_cpu": cpu / _MS,
        "cpu_rate": bytes_marked / _MB / (cpu / 1e9) if cpu else 0.0,
        "wall_rate": bytes_marked / _MB / (wall / 1e9) if wall else 0.0,
        "per_object": cpu / objects,
        "pauses": (line.clock[0] + line.clock[2]) / _US,
    }
