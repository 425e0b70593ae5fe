"""Machine files: measured tables and assumed prices of one machine, read and checked.

A machine file is TOML of schema 1: who the host is, which versions of Go were measured, their tables as measured, and
single prices: measured by themselves, on the machine or with each version, each with its source, or by nobody, each
with its reason. Each single price has one place, so that nothing is both measured and assumed. Unknown keys, missing tables, rows of the wrong shape and negative
numbers are refused with an `InputError` of one line that names file, key and what would be right.

Numbers are exact fractions of a nanosecond (or of the table's unit) from the text on: every machine reads the same.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any, NoReturn

from experiments.errors import InputError
from sim.costs import STEPS, LockPrices
from sim.go.params import VERSIONS

SCHEMA = 1
KINDS = ("scan", "noscan")  # index: the low bit of a span class

# Columns of the measured tables. Plain names (text) and name# (whole number) together are the key of a row;
# name= is a number, name~ a reading [median, min, max].
TABLES = {
    "loop": "size# kind cold_loop~ cold_p50~ cold_p999~ warm_loop~ warm_p50~ warm_p90~",
    "steady": "size# kind loop~",
    "refill": "mode class source n= p50~ p90= mean=",
    "large": "mode size# kind p10~ p50~ p90~ p99~ max~",
    "goroutine": "what p10~ p50~ p90~ p99~ mean~",
    "spawn": "what mean~",
    "stack_growth": "holds_kib# p10~ p50~ p90~ p99~ mean~",
    "stop_the_world": "what p10~ p50~ p90~ p99~ mean~",
    "sweep": "class keep p10~ p50~ p90~ p99~ mean~",
    "mark": "shape mib# objects= procs# gc_wall~ mark_wall= mark_cpu= cpu_rate= wall_rate= per_object= pauses=",
}
# Tables that a file may lack: mallocs on recycled memory by the size of the heap, and the Ps that share it.
OPTIONAL = {
    "warm": "size# kind mib# loop~",
    "hit": "size# kind mib# procs# p10~ p50~ p90~ p99~ mean99~",
    "hit_marking": "size# kind mib# procs# p10~ p50~ p90~ p99~ mean99~",
    "hit_after": "size# kind mib# procs# after p10~ p50~ p90~ p99~ mean99~",
    "refilled": "size# kind mib# procs# p10~ p50~ p90~ p99~ mean99~",
    "refilled_fresh": "size# kind mib# procs# p10~ p50~ p90~ p99~ mean99~",
    "refilled_unswept": "size# kind mib# procs# p10~ p50~ p90~ p99~ mean99~",
    "refilled_fresh_small": "size# kind mib# procs# p10~ p50~ p90~ p99~ mean99~",
    "refilled_near": "size# kind mib# procs# near~ far~",
    "alive": "size# kind mib# procs# objects=",
    "marked": "mib# procs# cpu~",
    "marked_in_order": "mib# cpu~",
    "paused": "mib# both~",
    "withheld": "mib# procs# wait~",
    "globals": "program bytes= gc~",
    "swept": "place left mib# procs# p10~ p50~ p90~ p99~ mean99~",
    "write_barrier": "mib# procs# note~",
}
# Of those, the ones that tell what mallocs take; and the same again, of one goroutine on several Ps.
TIMED = ("hit", "hit_marking", "hit_after", "refilled", "refilled_fresh", "refilled_unswept", "refilled_fresh_small", "swept")
ALONE = {name: f"{name}_alone" for name in TIMED}
OPTIONAL |= {alone: OPTIONAL[name] for name, alone in ALONE.items()}
# Of those: a short measurement may have too few such calls to tell.
_RARE = ("refilled_fresh", "refilled_unswept", "refilled_fresh_small", "swept")
SELDOM = (*_RARE, *(ALONE[name] for name in _RARE), "refilled_near")
LOOP_MIB = 256  # that the loops of mallocs cycle through, unless a file says otherwise
FIRST_TOUCH = "what version p10~ p50~ p90~ p99~ p999~ mean~"
CHECKS = "steal_percent others_percent drift_percent spread_percent"
LOCK_STEPS = tuple(field.name for field in fields(LockPrices))
ASSUMABLE = (
    "page_alloc",
    "mspan_refill",
    "read_touch",
    "copy_touch",
    "touch_5us",
    "touch_20us",
    "touch_100us",
    "madvise",
    "madvise_page",
    "tlb_shootdown",
    "profile_sample",
    "central",
    "goroutine_exit",
    "stack_pool",
    "steal",
    "wake_p",
    "preempt_signal",
    "os_switch",
    "assist",
    "flush_span",
    "mark_stack",
    "mark_specials",
)
assert set(ASSUMABLE) < set(STEPS)

Key = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """A measured number: the median of repeated runs, and their extremes (equal to it where only it is known)."""

    median: Fraction
    low: Fraction
    high: Fraction


@dataclass(frozen=True, slots=True)
class Table:
    """One measured table: which program measured it and how, its unit, and rows by key."""

    name: str
    source: str
    unit: str
    rows: Mapping[Key, Mapping[str, Reading]]

    def row(self, *key: str | int) -> Mapping[str, Reading]:
        """A row by its key; InputError if it was not measured."""
        found = self.rows.get(key)
        if found is None:
            raise InputError(f"{self.name} has no row {', '.join(map(str, key))}; prices are derived from it")
        return found


@dataclass(frozen=True, slots=True)
class Assumed:
    """A price nobody measured: nanoseconds, and why this value."""

    ns: Fraction
    reason: str


@dataclass(frozen=True, slots=True)
class Measured:
    """A price that was measured by itself: nanoseconds, and how."""

    reading: Reading
    source: str

    @property
    def ns(self) -> Fraction:
        """The median."""
        return self.reading.median


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine file, checked. ``tables`` by measured version, as ``own_steps``, the single prices that depend on it,
    ``alias`` leads from other versions to measured ones.

    ``loop_mib``: MiB that the loops of mallocs cycle through. ``wide_vectors``: the CPU has the vector instructions that
    the collector of go1.27 looks for (Intel and AMD servers with AVX-512, Ice Lake and Zen 4 or newer).
    """

    path: str
    name: str
    date: str
    description: str
    cpus: int
    loop_mib: int
    wide_vectors: bool
    toolchains: Mapping[str, str]
    tables: Mapping[str, Mapping[str, Table]]
    first_touch: Table
    small_fault: Key
    huge_fault: Key
    alias: Mapping[str, str]
    lock: Mapping[str, Assumed | Measured]
    steps: Mapping[str, Assumed | Measured]
    own_steps: Mapping[str, Mapping[str, Measured]]

    def steps_of(self, version: str) -> Mapping[str, Assumed | Measured]:
        """Single prices of the steps, for a measured version."""
        return {**self.steps, **self.own_steps[version]}

    def measured(self, version: str) -> str:
        """The version whose tables price this one; InputError if there is none."""
        found = self.alias.get(version, version)
        if found not in self.tables:
            known = ", ".join(sorted({*self.tables, *self.alias}))
            raise InputError(f"{self.path}: no prices for {version}; it has {known}")
        return found


def read_machine(path_or_name: str | Path) -> Machine:
    """Read a machine file by path, or one that comes with the program by name; InputError says what is wrong."""
    return parse_machine(*text_of(path_or_name))


def parse_machine(text: str, path: str) -> Machine:
    """Read the text of a machine file; ``path`` is what messages call it."""
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    return Reader(path).machine(document)


def text_of(path_or_name: str | Path, folder: str = "machines") -> tuple[str, str]:
    """The text of a machine file, by path or by the name of one in a folder of ours, and how to call it in messages."""
    name = str(path_or_name)
    packaged = resources.files("experiments") / folder
    is_name = isinstance(path_or_name, str) and not name.endswith(".toml") and "/" not in name
    source = packaged / f"{name}.toml" if is_name else Path(name)
    try:
        return source.read_bytes().decode(), f"{name}.toml" if is_name else name
    except UnicodeDecodeError:
        raise InputError(f"{name}: not UTF-8 text; a machine file is TOML") from None
    except OSError as error:
        if not is_name:
            raise InputError(f"{name}: cannot be read: {error.strerror}; give a machine file") from None
        known = sorted(entry.name.removesuffix(".toml") for entry in packaged.iterdir() if entry.name.endswith(".toml"))
        raise InputError(f"{name}: no such machine; give a path to a .toml file or one of {', '.join(known)}") from None


def _shown(value: Any) -> str:
    """A value of the document as it was written, cut short."""
    text = re.sub(r"Decimal\('([^']*)'\)", r"\1", repr(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


class Reader:
    """Checks one document; every refusal names the file and the dotted key."""

    def __init__(self, path: str) -> None:
        self.path = path

    def refuse(self, key: str, problem: str) -> NoReturn:
        raise InputError(f"{self.path}: {key}: {problem}")

    def keys(self, value: Any, key: str, needed: str, optional: str = "") -> dict[str, Any]:
        """A TOML table with these keys and no others."""
        if not isinstance(value, dict):
            self.refuse(key, f"{_shown(value)} is not a table")
        wanted = needed.split()
        for name in value:
            if name not in wanted and name not in optional.split():
                known = f"{needed} {optional}".strip()
                self.refuse(f"{key}.{name}".removeprefix("."), f"unknown key; known are {known}")
        for name in wanted:
            if name not in value:
                self.refuse(f"{key}.{name}".removeprefix("."), "missing")
        return value

    def word(self, value: Any, key: str) -> str:
        if not isinstance(value, str) or not value.strip():
            self.refuse(key, f"{_shown(value)} is not a text")
        return value

    def whole(self, value: Any, key: str) -> int:
        if type(value) is not int or value <= 0:
            self.refuse(key, f"{_shown(value)} is not a whole number above 0")
        return value

    def truth(self, value: Any, key: str) -> bool:
        if type(value) is not bool:
            self.refuse(key, f"{_shown(value)} is not true or false")
        return bool(value)

    def number(self, value: Any, key: str, lowest: Fraction = Fraction(0)) -> Fraction:
        """An exact number, at least ``lowest``."""
        if type(value) not in (int, Decimal) or (isinstance(value, Decimal) and not value.is_finite()):
            self.refuse(key, f"{_shown(value)} is not a number")
        if Fraction(value) < lowest:
            self.refuse(key, f"{value} is below {lowest}; times are not negative")
        return Fraction(value)

    def reading(self, value: Any, key: str, lowest: Fraction) -> Reading:
        if not isinstance(value, list) or len(value) != 3:
            self.refuse(key, f"{_shown(value)} is not a reading [median, min, max]")
        median, low, high = (self.number(one, key, lowest) for one in value)
        if not low <= median <= high:
            self.refuse(key, f"median {value[0]} is not within [{value[1]}, {value[2]}]; write [median, min, max]")
        return Reading(median, low, high)

    def table(self, value: Any, key: str, spec: str, lowest: Fraction = Fraction(0)) -> Table:
        """A measured table of the columns in ``spec``."""
        self.keys(value, key, "source unit columns rows")
        columns = spec.split()
        names = [column.rstrip("#=~") for column in columns]
        if value["columns"] != names:
            self.refuse(f"{key}.columns", f"{_shown(value['columns'])} is not {names}")
        rows: dict[Key, Mapping[str, Reading]] = {}
        if not isinstance(value["rows"], list) or not value["rows"]:
            self.refuse(f"{key}.rows", "not a list of one row or more")
        for number, cells in enumerate(value["rows"], 1):
            here = f"{key}.rows, row {number}"
            if not isinstance(cells, list) or len(cells) != len(columns):
                self.refuse(here, f"not a list of the {len(columns)} values {', '.join(names)}")
            row_key: list[str | int] = []
            row: dict[str, Reading] = {}
            for column, name, cell in zip(columns, names, cells, strict=True):
                place = f"{here}, {name}"
                if column == name:
                    row_key.append(self.word(cell, place))
                elif column.endswith("#"):
                    row_key.append(self.whole(cell, place))
                elif column.endswith("="):
                    single = self.number(cell, place, lowest)
                    row[name] = Reading(single, single, single)
                else:
                    row[name] = self.reading(cell, place, lowest)
            if tuple(row_key) in rows:
                self.refuse(here, f"a second row {', '.join(map(str, row_key))}")
            rows[tuple(row_key)] = row
        source, unit = (self.word(value[name], f"{key}.{name}") for name in ("source", "unit"))
        return Table(f"{self.path}: {key}", source, unit, rows)

    def assumed(self, value: Any, key: str, names: tuple[str, ...]) -> dict[str, Assumed]:
        """Prices nobody measured, each with its reason."""
        self.keys(value, key, "", " ".join(names))
        found = {}
        for name in value:
            self.keys(value[name], f"{key}.{name}", "ns reason")
            ns = self.number(value[name]["ns"], f"{key}.{name}.ns")
            found[name] = Assumed(ns, self.word(value[name]["reason"], f"{key}.{name}.reason"))
        return found

    def single(self, value: Any, key: str, names: tuple[str, ...]) -> dict[str, Measured]:
        """Prices measured by themselves, each with its source."""
        self.keys(value, key, "", " ".join(names))
        found = {}
        for name in value:
            self.keys(value[name], f"{key}.{name}", "ns source")
            ns = self.reading(value[name]["ns"], f"{key}.{name}.ns", Fraction(0))
            found[name] = Measured(ns, self.word(value[name]["source"], f"{key}.{name}.source"))
        return found

    def once(self, names: tuple[str, ...], assumed: str, places: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse a name that is in none of the places, or in two; ``assumed`` is where it is missing."""
        for name in names:
            found = [place for place, prices in places.items() if name in prices]
            if not found:
                self.refuse(f"{assumed}.{name}", "missing")
            if len(found) > 1:
                self.refuse(f"{found[1]}.{name}", f"is in {found[0]} too; a price has one place")

    def fault(self, value: Any, key: str, table: Table) -> Key:
        """The key of a row of first_touch."""
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            self.refuse(key, f"{_shown(value)} is not a list of two texts [what, version]")
        if tuple(value) not in table.rows:
            self.refuse(key, f"first_touch has no row {', '.join(value)}")
        return tuple(value)

    def machine(self, document: dict[str, Any]) -> Machine:
        """The whole document."""
        if document.get("schema") != SCHEMA:
            self.refuse("schema", f"{_shown(document.get('schema'))} is not {SCHEMA}, the one this program reads")
        versions = [name for name in document if name.startswith("go")]
        self.keys(
            document,
            "",
            "schema name date host faults assumed first_touch",
            " ".join(["alias measured loop_mib", *versions]),
        )
        host = self.host(document["host"])
        step = self.number(host["timer_step_ns"], "host.timer_step_ns")  # a reading may lie so far below zero
        first_touch = self.table(document["first_touch"], "first_touch", FIRST_TOUCH, -step)
        faults = self.keys(document["faults"], "faults", "small huge")
        tables = {version: self.version(document[version], version) for version in versions}
        lock, steps, own_steps = self.prices(document, versions)
        return Machine(
            path=self.path,
            name=self.word(document["name"], "name"),
            date=self.word(document["date"], "date"),
            description=self.word(host["description"], "host.description"),
            cpus=self.whole(host["cpus"], "host.cpus"),
            loop_mib=self.whole(document.get("loop_mib", LOOP_MIB), "loop_mib"),
            wide_vectors=self.truth(host.get("wide_vectors", True), "host.wide_vectors"),
            toolchains={name: self.word(document[name]["toolchain"], f"{name}.toolchain") for name in versions},
            tables=tables,
            first_touch=first_touch,
            small_fault=self.fault(faults["small"], "faults.small", first_touch),
            huge_fault=self.fault(faults["huge"], "faults.huge", first_touch),
            alias=self.aliases(document.get("alias", {}), tables),
            lock=lock,
            steps=steps,
            own_steps=own_steps,
        )

    def host(self, value: Any) -> dict[str, Any]:
        """Who the host is; ``checks`` are numbers in percent that tell how quiet it was."""
        host = self.keys(
            value, "host", "description cpus huge_pages timer timer_step_ns", "caveats checks wide_vectors"
        )
        for name, number in self.keys(host.get("checks", {}), "host.checks", "", CHECKS).items():
            self.number(number, f"host.checks.{name}")
        return host

    def prices(self, document: dict[str, Any], versions: list[str]) -> tuple[Any, Any, Any]:
        """Single prices: of locks, of steps, and by version of steps that were measured with each."""
        assumed = self.keys(document["assumed"], "assumed", "lock steps")
        measured = self.keys(document.get("measured", {}), "measured", "", "lock steps")
        lock: dict[str, Mapping[str, Any]] = {
            "assumed.lock": self.assumed(assumed["lock"], "assumed.lock", LOCK_STEPS),
            "measured.lock": self.single(measured.get("lock", {}), "measured.lock", LOCK_STEPS),
        }
        steps: dict[str, Mapping[str, Any]] = {
            "assumed.steps": self.assumed(assumed["steps"], "assumed.steps", ASSUMABLE),
            "measured.steps": self.single(measured.get("steps", {}), "measured.steps", ASSUMABLE),
        }
        own = {name: self.single(document[name].get("steps", {}), f"{name}.steps", ASSUMABLE) for name in versions}
        self.once(LOCK_STEPS, "assumed.lock", lock)
        for version in versions:
            self.once(ASSUMABLE, "assumed.steps", {**steps, f"{version}.steps": own[version]})
        return (
            {**lock["assumed.lock"], **lock["measured.lock"]},
            {**steps["assumed.steps"], **steps["measured.steps"]},
            own,
        )

    def version(self, value: Any, version: str) -> dict[str, Table]:
        """All tables of one measured version."""
        if version not in VERSIONS:
            self.refuse(version, f"no version known here; known are {', '.join(VERSIONS)}")
        self.keys(value, version, f"toolchain {' '.join(TABLES)}", " ".join(["steps", *OPTIONAL]))
        wanted = {name: spec for name, spec in {**TABLES, **OPTIONAL}.items() if name in value}
        return {name: self.table(value[name], f"{version}.{name}", spec) for name, spec in wanted.items()}

    def aliases(self, value: Any, tables: Mapping[str, Any]) -> dict[str, str]:
        """Versions priced like a measured one."""
        self.keys(value, "alias", "", " ".join(VERSIONS))
        for version, entry in value.items():
            key = f"alias.{version}"
            self.keys(entry, key, "prices reason")
            self.word(entry["reason"], f"{key}.reason")
            if version in tables or self.word(entry["prices"], f"{key}.prices") not in tables:
                self.refuse(key, f"must lead from a version not measured to one that is: {', '.join(tables)}")
        return {version: entry["prices"] for version, entry in value.items()}
