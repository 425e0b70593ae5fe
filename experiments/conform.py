"""Recorded answers of the real runtime, or the real TCMalloc, against the rooms: ``allocsim conform FILE``."""

from __future__ import annotations

from pathlib import Path

from experiments.conform_file import Conformance, load
from experiments.conform_pacer import conform_pacer
from experiments.conform_pages import conform_pages
from experiments.conform_tcmalloc import conform_tcmalloc
from experiments.errors import InputError

_KINDS = {"sequences": conform_pages, "scenarios": conform_pacer}  # by the key that tells the kind


def conform(path: str | Path) -> Conformance:
    """Replay a recorded-answers file, plain or .xz; InputError for a file of no known kind."""
    path = Path(path)
    data = load(path)
    if isinstance(data, dict) and {"startup_ops", "checkpoints"} <= data.keys():
        return conform_tcmalloc(path, data)
    for key, run in _KINDS.items():
        if isinstance(data, dict) and isinstance(data.get(key), list) and data[key]:
            return run(path, data)
    known = 'page allocator ("sequences"), pacer ("scenarios"), TCMalloc ("startup_ops" and "checkpoints")'
    raise InputError(f"{path}: unknown kind of recorded answers; known: {known}")
