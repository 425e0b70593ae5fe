"""What the real runs of a validation showed, kept in a file: simulated and compared again with other prices or another model,
without running anything.

The file is JSON, packed by xz: of each workload and toolchain the histogram, cycles and MemStats of every run, what else
their program told, and what was measured beside them. It has real times in it, so no two are alike.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, TypeAdapter, ValidationError

from experiments.calibrate_tables import Measurements
from experiments.errors import InputError
from experiments.output import atomic
from experiments.toolchain import Toolchain
from experiments.validate_figures import Seen
from experiments.validate_memory import Withheld
from experiments.validate_run import Noise

SCHEMA = 1
_REMEDY = "give one that `allocsim validate --keep` wrote"


def _rows(found: Measurements) -> list[list[Any]]:
    """Measurements as JSON has them, whose objects have no keys but text."""
    return [[*table, key, values] for table, rows in found.tables.items() for key, values in rows.items()]


def _measurements(rows: Any) -> Any:
    """The same back."""
    if isinstance(rows, Measurements):
        return rows
    found = Measurements()
    try:
        for version, table, key, values in rows:
            found.tables.setdefault((version, table), {})[tuple(key)] = values
    except TypeError:
        raise ValueError("is no list of rows of tables") from None
    return found


Printed = Annotated[Measurements, BeforeValidator(_measurements), PlainSerializer(_rows)]


@dataclass(slots=True)
class Shown:
    """What real runs of a workload showed with one toolchain, told by its version as in 1.27.3.

    ``runs``: of each repetition a run, one with lines of cycles, and what the first printed besides. ``probes``: what loops
    of the calibration printed beside each. ``globals_bytes``: of the program, as its file says; None if it does not.
    """

    toolchain: str
    globals_bytes: int | None = None
    runs: list[tuple[Seen, Seen, dict[str, Any]]] = field(default_factory=list)
    noise: list[Noise] = field(default_factory=list)
    withheld: list[Withheld] = field(default_factory=list)
    probes: list[dict[str, Printed]] = field(default_factory=list)

    @property
    def go(self) -> Toolchain:
        """The toolchain, of which no command is known."""
        return Toolchain(Path(), self.toolchain)


@dataclass(frozen=True, slots=True)
class Kept:
    """The real side of a validation: by workload what each toolchain showed; ``command`` and ``provenance`` of the runs."""

    repeat: int
    workloads: dict[str, list[Shown]]
    command: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    schema: int = SCHEMA

    def of_all(self) -> Iterator[Shown]:
        """What all toolchains showed of all workloads."""
        return chain.from_iterable(self.workloads.values())


_FILE = TypeAdapter(Kept)


def write_kept(path: Path, found: Kept) -> None:
    """Write the file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(lzma.compress(_FILE.dump_json(found)))


def read_kept(path: Path, names: Collection[str]) -> Kept:
    """What a file has kept of the workloads of these names; InputError, one line, if that is nothing, or no such file."""
    try:
        told = json.loads(lzma.decompress(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {_REMEDY}") from None
    except (lzma.LZMAError, EOFError, ValueError, RecursionError):
        raise InputError(f"{path}: is no JSON packed by xz; {_REMEDY}") from None
    schema = told.get("schema") if isinstance(told, Mapping) else None
    if schema != SCHEMA:
        raise InputError(f"{path}: has schema {schema!r}, {SCHEMA} is known; {_REMEDY}")
    try:
        found = _FILE.validate_python(told)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {place}: {first['msg']}; {_REMEDY}") from None
    some = {name: shown for name, shown in found.workloads.items() if name in names}
    if not some:
        raise InputError(
            f"{path}: has none of the workloads that are wanted; it has {', '.join(found.workloads) or 'none'}"
        )
    return replace(found, workloads=some)
