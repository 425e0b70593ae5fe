"""The points of a sweep and their runs: settings in a defined order, checked before anything runs.

Replication r has the same seed at every point, so that differences between points are those of their settings.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.sweeps.code import code_version
from experiments.sweeps.record import SCHEMA
from experiments.sweeps.spec import DRAWN, Range, Sweep, Value, limits
from workloads.scenario import Scenario, ScenarioError, full_key, load, make_absolute
from workloads.scenario_record import exact_size, exact_time


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of settings. ``keys``: what the runs are recorded under, by replicate."""

    number: int
    values: dict[str, Value]
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One run: the ``replicate``-th of a point, with this seed, recorded under this key."""

    point: int
    replicate: int
    seed: int
    key: str
