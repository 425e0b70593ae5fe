"""A scenario, resolved: integers of bytes and picoseconds, and the same written out again as its file would be.

`Scenario.resolved` names every default, so that a result that holds it can be run again, by a later version too:
written as TOML and loaded again it gives an equal record. Times and sizes are written exactly, in the largest unit
that keeps them short.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sim.units import GIB, KIB, MIB, MS, NS, SEC, TIB, US
from workloads.spec import PPM, Lifetime, Mix, Objects, Recorded, Service, Workers

GOGC_OFF = -1
"""GOGC=off."""
NO_LIMIT = (1 << 63) - 1
"""No memory limit."""


class ScenarioError(ValueError):
    """A scenario cannot be used; takes exactly one string, the line to print."""


def fault(file: str, key: str, what: str) -> ScenarioError:
    """The error of a key of a file: one line, whatever was in there. ``what`` says what is wrong; what is right."""
    text = f"{file}: {key}: {what}" if key else f"{file}: {what}"
    return ScenarioError("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))


@dataclass(frozen=True, slots=True)
class Change:
    """Settings of the collector from a time on; None where it stays as it is."""

    at_ps: int
    gogc: int | None
    memory_limit: int | None


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that decides a run: the runtime and its settings, the machine, the workload, how long, which seed."""

    name: str
    purpose: str
    version: Literal["go1.14", "go1.19", "go1.27"]
    gomaxprocs: int
    gogc: int  # percent, GOGC_OFF = off
    memory_limit: int  # bytes, NO_LIMIT = none
    heap_shape: str  # which of the machine's measured heaps marking costs as much as
    in_order_ppm: int  # of a shuffled array, so much is found in the order in which it was allocated
    assists: bool  # allocation marks to pay for itself
    globals_bytes: int  # of globals with pointers
    changes: tuple[Change, ...]  # of gogc and memory_limit, the earliest first
    layout: Literal["sparse", "linear"]
    mcentral_mutex: bool
    memprofilerate: int  # mean bytes between heap-profile samples, 0 = no profile
    machine: str  # the name of a shipped machine file, or an absolute path of one
    cpus: int  # fewer than Ps: the system's scheduler shares them out
    seed: int  # in [0, 2**64)
    duration_ps: int | None  # simulated time, or
    mallocs: int | None  # mallocs of all goroutines, after which the run ends: at least one of the two, but for a trace
    max_run_ahead_ps: int
    samples: int  # points of each time series that are kept
    workload: Workers | Service | Recorded

    def resolved(self) -> dict[str, Any]:
        """The scenario in the form of its file, with every default: text, numbers, lists and tables only."""
        run: dict[str, Any] = {"seed": self.seed}
        if self.duration_ps is not None:
            run["duration"] = exact_time(self.duration_ps)
        if self.mallocs is not None:
            run["mallocs"] = self.mallocs
        run |= {"max_run_ahead": exact_time(self.max_run_ahead_ps), "samples": self.samples}
        return {
            "purpose": self.purpose,
            "runtime": {
                "version": self.version,
                "gomaxprocs": self.gomaxprocs,
                "gogc": _gogc(self.gogc),
                "memory_limit": _limit(self.memory_limit),
                "heap_shape": self.heap_shape,
                "in_order": self.in_order_ppm / PPM,
                "assists": self.assists,
                "globals": exact_size(self.globals_bytes),
                "change": [_change(change) for change in self.changes],
                "layout": self.layout,
                "mcentral_mutex": self.mcentral_mutex,
                "memprofilerate": exact_size(self.memprofilerate) if self.memprofilerate else "off",
            },
            "machine": {"prices": self.machine, "cpus": self.cpus},
            "run": run,
            "workload": _workload(self.workload),
        }


def _gogc(percent: int) -> int | str:
    return "off" if percent == GOGC_OFF else percent


def _limit(nbytes: int) -> str:
    return "off" if nbytes == NO_LIMIT else exact_size(nbytes)


def _change(change: Change) -> dict[str, Any]:
    found: dict[str, Any] = {"at": exact_time(change.at_ps)}
    if change.gogc is not None:
        found["gogc"] = _gogc(change.gogc)
    if change.memory_limit is not None:
        found["memory_limit"] = _limit(change.memory_limit)
    return found


def exact_time(ps: int) -> str:
    """Picoseconds as text that `sim.units.parse_time` reads back exactly; at most three digits after the point."""
    for unit, name in ((SEC, "s"), (MS, "ms"), (US, "us"), (NS, "ns")):
        thousandths, rest = divmod(ps * 1000, unit)
        if ps >= unit and not rest:
            whole, fraction = divmod(thousandths, 1000)
            return f"{whole}.{fraction:03}".rstrip("0").rstrip(".") + name
    return f"{ps}ps" if ps else "0s"


def exact_size(n: int) -> str:
    """Bytes as text that `sim.units.parse_size` reads back exactly: a whole number of the largest unit that fits."""
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if n and n % unit == 0:
            return f"{n // unit}{name}"
    return f"{n}B"


def interval_of(rate: float) -> int:
    """Mean picoseconds between arrivals at so many a second."""
    return round(SEC / rate)


def _rate(interval: int) -> int | float:
    """The shortest number a second that `interval_of` turns into this interval."""
    for digits in range(1, 18):
        rate = float(f"{SEC / interval:.{digits}g}")
        if interval_of(rate) == interval:
            break
    return int(rate) if rate.is_integer() else rate


def _workload(workload: Workers | Service | Recorded) -> dict[str, Any]:
    if isinstance(workload, Recorded):
        return {"kind": "trace", "trace": workload.trace}
    if isinstance(workload, Workers):
        return {
            "kind": "workers",
            "goroutines": workload.goroutines,
            "think": exact_time(workload.mix.think),
            "think_dist": workload.mix.think_dist,
            "round_mallocs": workload.round_mallocs,
            "stack": exact_size(workload.stack),
            "objects": _objects(workload.mix),
        }
    phases = [
        {"compute": exact_time(phase.compute), "compute_dist": phase.compute_dist, "mallocs": phase.mallocs}
        for phase in workload.phases
    ]
    return {
        "kind": "service",
        "arrivals": workload.arrivals,
        "rate": _rate(workload.interval),
        "phases": phases,
        "stack": exact_size(workload.stack),
        "objects": _objects(workload.mix),
    }


def _objects(mix: Mix) -> list[dict[str, Any]]:
    return [
        {
            "weight": kind.weight,
            "size": _size(kind),
            "pointers": kind.pointers_ppm / PPM,
            "pointer_bytes": kind.pointer_bytes_ppm / PPM,
            "lifetime": _lifetime(kind.lifetime),
            "zeroed": kind.zeroed,
            "touched": kind.touched,
        }
        for kind in mix.objects
    ]


def _size(kind: Objects) -> str | Sequence[Any] | dict[str, Any]:
    """Sizes in the shortest of their forms."""
    parts = [
        {"size": exact_size(low)} if low == high else {"low": exact_size(low), "high": exact_size(high)}
        for low, high, _ in kind.sizes
    ]
    if len(parts) == 1:
        return parts[0].get("size", parts[0])
    if all(weight == 1 for _, _, weight in kind.sizes):
        return [part.get("size", part) for part in parts]
    return [part | {"weight": weight} for part, (_, _, weight) in zip(parts, kind.sizes, strict=True)]


def _lifetime(lifetime: Lifetime) -> str | dict[str, Any]:
    if lifetime.kind == "ops":
        return {"ops": lifetime.mean, "dist": lifetime.dist}
    if lifetime.kind == "bytes":
        return {"bytes": exact_size(lifetime.mean), "dist": lifetime.dist}
    if lifetime.kind == "cache":
        return {"cache": lifetime.mean}
    return lifetime.kind
