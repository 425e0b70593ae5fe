"""Prices of a model of threads: what a machine file says, in integer picoseconds. No price has a default in code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ThreadPrices:
    """Prices of a model of threads on a machine, integer picoseconds.

    ``steps``: by the model's own names. ``handoff``: of a lock to one who waited. ``slice``, ``switch``: of threads
    that share a CPU. ``wake``: of an idle thread. ``assumed``: those nobody measured, with the reason.
    """

    machine: str
    steps: Mapping[str, int]
    handoff: int
    slice: int
    switch: int
    wake: int
    assumed: Mapping[str, str]
