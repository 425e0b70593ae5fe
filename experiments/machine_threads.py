"""Prices of allocators that threads call, of one machine: read from a TOML file and checked.

A file is TOML of schema 1: who the machine is, then a price for every step of the clock's side (``threads``) and of
each model, ``{ ns, source }`` if it comes from a measurement, ``{ ns, reason }`` if nobody measured it. Unknown keys,
missing prices and negative numbers are refused with an `InputError` of one line that names file, key and what would be
right.
"""

from __future__ import annotations

import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.machine_file import Reader, text_of
from experiments.quantiles import picoseconds
from sim.tcmalloc import prices as tcmalloc
from sim.textbook import prices as textbook
from sim.threads.prices import ThreadPrices

SCHEMA = 1
MODELS = {"tcmalloc": tcmalloc.STEPS, "textbook": textbook.STEPS}
_THREADS = ("handoff", "slice", "switch", "wake")


def load_thread_machine(path_or_name: str | Path, model: str) -> ThreadPrices:
    """Prices of a model (`MODELS`) on a machine: a file by its path, or one that comes with the program by name."""
    text, path = text_of(path_or_name, "thread_machines")
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    reader = Reader(path)
    if document.get("schema") != SCHEMA:
        reader.refuse("schema", f"{document.get('schema')!r} is not {SCHEMA}, the one this program reads")
    reader.keys(document, "", f"schema name date description threads {' '.join(MODELS)}")
    for key in ("name", "date", "description"):
        reader.word(document[key], key)
    tables = {key: _prices(reader, document[key], key, names) for key, names in {"threads": _THREADS, **MODELS}.items()}
    threads, steps = tables["threads"], tables[model]
    return ThreadPrices(
        machine=document["name"],
        steps={name: ps for name, (ps, _) in steps.items()},
        assumed={name: reason for name, (_, reason) in (threads | steps).items() if reason},
        **{name: ps for name, (ps, _) in threads.items()},
    )


def _prices(reader: Reader, value: Any, key: str, names: tuple[str, ...]) -> dict[str, tuple[int, str]]:
    """A table of prices: (picoseconds, the reason if it is assumed) by name."""
    reader.keys(value, key, " ".join(names))
    found = {}
    for name in names:
        here = f"{key}.{name}"
        assumed = isinstance(value[name], dict) and "reason" in value[name]
        why = "reason" if assumed else "source"
        reader.keys(value[name], here, f"ns {why}")
        ns = reader.number(value[name]["ns"], f"{here}.ns")
        text = reader.word(value[name][why], f"{here}.{why}")
        found[name] = (picoseconds(ns), text if assumed else "")
    if key == "threads" and found["slice"][0] == 0:
        reader.refuse("threads.slice.ns", "0 is no time slice; give more")
    return found
