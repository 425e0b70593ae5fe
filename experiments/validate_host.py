"""Is the host as it was calibrated? Loops of ``allocsim calibrate``, run again beside each real program.

The program truth/calibrate runs with the very modes and heaps that fed the machine file, only fewer rounds, and what it
prints is gathered as a calibration gathers it; so each number has its own in the file, and their quotient tells how
much longer the host takes now. Where a loop has several rows (types of object) it is their geometric mean. Four things
are told, since a host that has become slower in one need not be in another:

- hits: single mallocs of up to 512 B that find a slot, in a heap that fits a CPU's own caches (medians);
- clearing: a loop of mallocs of 2 KiB on recycled memory, in a heap beyond those caches, most of it clearing (one P);
- marking: a collection of a written heap of the shape that prices the workload's, by gctrace, which tells time on the
  wall: what other processes take of the CPU is in it, here as in the real runs;
- page faults: the first touch of a small page (median).

They run on as many Ps as the workload wherever the file has a row for that. This tells drift, nothing else: no price and
no simulated figure is changed by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from experiments.calibrate import execute
from experiments.calibrate_plan import Run
from experiments.calibrate_tables import MACHINE, Measurements
from experiments.machine_file import Key, Machine, Reading, Table
from experiments.machine_gc import SHAPES
from experiments.toolchain import NoGo

LIMIT = 0.10
"""A host that takes so much longer or shorter than calibrated has drifted."""
_HITS_MIB, _LARGEST_HIT = 4, 512
_CLEARED = 2048
_MARKED_MIB, _MARKS = 32, 5


@dataclass(frozen=True, slots=True)
class Loop:
    """A process of the program calibrate, and what the file says of the numbers that it prints: ``rows`` by their key,
    of a column of a table, as measured for ``version``."""

    aspect: str
    run: Run
    version: str
    table: str
    column: str
    rows: Mapping[Key, Reading]

    def __str__(self) -> str:
        procs = "one P" if self.run.procs == 1 else f"{self.run.procs} Ps"
        return f"{' '.join(self.run.arguments)}, {procs}: {self.table}, {self.column}"

    def ratio(self, found: Measurements) -> float:
        """What a process printed, relative to the file; NoGo if it printed nothing that is in it."""
        quotients = self.quotients(found)
        if not quotients:
            raise NoGo(f"calibrate {' '.join(self.run.arguments)} printed no {self.table} that the machine file has")
        return geometric_mean(quotients)

    def quotients(self, found: Measurements) -> list[float]:
        """The same of each row that both have."""
        printed = found.tables.get((MACHINE if self.table == "first_touch" else self.version, self.table), {})
        both = [(printed[key].get(self.column), self.rows[key].median) for key in self.rows if key in printed]
        return [median(now) / float(then) for now, then in both if now and median(now) > 0 and then > 0]

    @property
    def spread(self) -> tuple[float, float]:
        """The calibration's own: least and most that its processes read, relative to the median; means of the rows."""
        known = [one for one in self.rows.values() if one.low > 0]
        if not known:
            return 1.0, 1.0
        return (
            geometric_mean([float(one.low / one.median) for one in known]),
            geometric_mean([float(one.high / one.median) for one in known]),
        )


def loops(machine: Machine, version: str, procs: int, shape: str) -> list[Loop]:
    """A loop for each aspect of which the file knows one, for a workload on so many Ps whose heap has this shape."""
    measured = machine.measured(version)
    tables = {**machine.tables[measured], "first_touch": machine.first_touch}
    found: dict[str, Loop] = {}
    for aspect, run, column, keys in _candidates(tables, measured, procs, SHAPES[shape]):
        (table,) = run.tables
        known = tables[table].rows if table in tables else {}
        rows = {key: known[key][column] for key in keys if key in known}
        if rows and aspect not in found:
            found[aspect] = Loop(aspect, run, measured, table, column, rows)
    return list(found.values())


def _candidates(
    tables: Mapping[str, Table], version: str, procs: int, shape: str
) -> Iterator[tuple[str, Run, str, Iterable[Key]]]:
    """Loops in order of preference: aspect, process, column, and the rows that it feeds if the file has them."""
    few = list(dict.fromkeys((procs, 1)))
    for on in few:
        run = Run(("mixed", f"-mib={_HITS_MIB}", "-rounds=48"), ("hit",), on)
        small = [key for key in (tables["hit"].rows if "hit" in tables else ()) if int(key[0]) <= _LARGEST_HIT]
        yield "hits", run, "p50", [key for key in small if key[2:] == (_HITS_MIB, on)]
    yield "hits", Run(("small", "-size=64", "-kind=noscan", "-mib=64"), ("loop",)), "warm_loop", [(64, "noscan")]
    largest = max(int(key[1]) for key in tables["mark"].rows)  # MiB; a quick calibration has smaller ones
    clearing = Run(("small", f"-size={_CLEARED}", "-kind=noscan", f"-mib={largest}"), ("loop",))
    yield "clearing", clearing, "warm_loop", [(_CLEARED, "noscan")]
    for on in few:
        arguments = ("mark", f"-shape={shape}", f"-mib={_MARKED_MIB}", f"-rounds={_MARKS}")
        yield "marking", Run(arguments, ("mark",), on, traced=_MARKS), "gc_wall", [(shape, _MARKED_MIB, on)]
    yield "page faults", Run(("fault", "-mib=16"), ("first_touch",)), "p50", [("mmap first touch", version)]


def probe(built: Path, wanted: Sequence[Loop]) -> dict[str, Measurements]:
    """Run each loop once, with the program calibrate of a toolchain; what each printed, by aspect."""
    found = {}
    for loop in wanted:
        found[loop.aspect] = Measurements()
        found[loop.aspect].add(loop.version, loop.run, *execute(built, loop.run))
    return found


# What is told


@dataclass(frozen=True, slots=True)
class Speed:
    """Time that a loop took beside a workload, relative to the calibrated one: median of the probes, least and most;
    and least and most of the calibration itself."""

    aspect: str
    loop: str
    ratio: float
    low: float
    high: float
    calibrated_low: float
    calibrated_high: float


def told_by(wanted: Sequence[Loop], probes: Sequence[Mapping[str, Measurements]]) -> list[Loop]:
    """Those of the loops that were run: probes that were kept may be loops of another machine file, with other rows.

    A process that printed nothing at all is none of those: `Loop.ratio` says so.
    """

    def other(loop: Loop, one: Mapping[str, Measurements]) -> bool:
        return loop.aspect not in one or (bool(one[loop.aspect].tables) and not loop.quotients(one[loop.aspect]))

    return [loop for loop in wanted if not any(other(loop, one) for one in probes)]


def speeds(wanted: Sequence[Loop], probes: Sequence[Mapping[str, Measurements]]) -> list[Speed]:
    """Of all probes beside the runs of a workload; NoGo if one printed nothing that is in the file."""
    found = []
    for loop in wanted:
        ratios = [loop.ratio(one[loop.aspect]) for one in probes]
        found.append(Speed(loop.aspect, str(loop), median(ratios), min(ratios), max(ratios), *loop.spread))
    return found


def as_calibrated(version: Mapping[str, Any]) -> bool:
    """Whether the host was within the limit of its calibration in all that was compared beside a workload."""
    return bool(version["host"]) and all(_within(one["ratio"]) for one in version["host"])


def _within(ratio: float) -> bool:
    return 1 / (1 + LIMIT) <= ratio <= 1 + LIMIT


def drift(versions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Over all workloads and versions: least and most by aspect, and of the share of the time that CPUs were interrupted;
    and beside how many the host was as calibrated."""
    aspects: dict[str, list[float]] = {}
    for version in versions:
        for one in version["host"]:
            aspects.setdefault(one["aspect"], []).append(one["ratio"])
    return {
        "limit": LIMIT,
        "aspects": {aspect: [min(ratios), max(ratios)] for aspect, ratios in aspects.items()},
        "interrupted": [choose(version["noise"]["share"] for version in versions) for choose in (min, max)],
        "as_calibrated": sum(map(as_calibrated, versions)),
        "of": len(versions),
    }


def statement(found: Mapping[str, Any]) -> str:
    """The same in a sentence or two; a host that has drifted is told first of all."""
    aspects: Mapping[str, Sequence[float]] = found["aspects"]
    taken = f" Something else had the CPUs for {_span(*(100 * share for share in found['interrupted']))} % of the time."
    if not aspects:
        unknown = "Whether the host was as calibrated is not known: the machine file has none of the loops to compare."
        return unknown + taken
    least, most = min(low for low, _ in aspects.values()), max(high for _, high in aspects.values())
    told = ", ".join(f"{aspect} {_span(*both)}" for aspect, both in aspects.items())
    took = f"the host took {_span(least, most)} times the calibrated time ({told})"
    share = f"{found['as_calibrated']} of {found['of']}"
    if found["as_calibrated"] == found["of"]:
        return f"{took[0].upper()}{took[1:]}: within {100 * found['limit']:g} % of its calibration beside all of them.{taken}"
    return (
        f"THE HOST WAS NOT AS CALIBRATED: {took}; it was within {100 * found['limit']:g} % of its calibration beside {share}.{taken} "
        "Errors elsewhere are the model's and the host's together; have prices measured between the runs (--calibrate)."
    )


def _span(low: float, high: float) -> str:
    """Two ratios, or one where they read the same."""
    return f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
