"""Memory that the host takes away: what a write to a page takes then, and simulated calls as they would have met it.

The host of a virtual machine may stand behind fewer pages than the machine has. A write to one that it has to bring first
takes some hundred microseconds more, and no event of the machine's own tells so. How often that is, a loop measures
beside each workload (truth/replayer/memory.go): it maps as many small pages as the workload's heap has and writes to all
of them in turn, as often as the workload collects garbage; a write that takes much longer than usual is counted, apart
for the first time (*fresh*) and all later ones (*old*). The loop has nothing else in common with the workload.

Simulated calls meet as many as the pages they are the first to write to (`Pages`), each as likely as those of the loop:
a malloc that clears memory used before, pages that are first touched in malloc or by the program, and an assist, which
reads what it marks.

An allocation is taken to write to each page of what it allocates, and to no less than two pages for each span that was
refilled, once. Where the price of a first touch has long ones in it, as many are taken off. Left out: pages of the
runtime's own tables, that what is marked may lie on more pages than it fills, waits of background workers in throughput,
and what the program itself finds missing of used memory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.toolchain import command
from experiments.validate_figures import Numbers, Row
from experiments.validate_run import middle_and_tail
from sim.metrics.histogram import bucket_of_int, bucket_top

if TYPE_CHECKING:
    from experiments.run import Result
    from sim.costs import Price
    from sim.metrics.cycles import Cycle

MEMORY_MS = 600
"""How long the loop writes to pages that it wrote to before, or twice to each."""
_LONGEST_PASS = 0.5  # seconds between two writes to a page, so that a look takes no longer than two
_LONG = 20_000_000  # picoseconds beyond the usual, as longFault of memory.go
_PAGE = 4096
_SPAN = 8192  # bytes of the smallest


@dataclass(frozen=True, slots=True)
class Writes:
    """Writes to pages, and by how much the long ones were longer than usual."""

    pages: int
    long_ns: Numbers

    @property
    def share(self) -> float:
        """Of the writes, those that were long."""
        return len(self.long_ns) / self.pages if self.pages else 0.0

    @property
    def mean(self) -> float:
        """Nanoseconds that a write takes longer, of all of them."""
        return float(self.long_ns.sum()) / self.pages if self.pages else 0.0

    def to_dict(self) -> dict[str, float]:
        """Its figures."""
        return {"pages": self.pages, "share": self.share} | middle_and_tail(self.long_ns)


NONE = Writes(0, np.zeros(0))


@dataclass(frozen=True, slots=True)
class Withheld:
    """What writes to pages showed, the first time of each and all later ones."""

    fresh: Writes
    old: Writes

    def to_dict(self) -> dict[str, dict[str, float]]:
        """Its figures."""
        return {"fresh": self.fresh.to_dict(), "old": self.old.to_dict()}


def together(found: Sequence[Withheld]) -> Withheld:
    """What was measured at several times as one."""
    return Withheld(_joined([one.fresh for one in found]), _joined([one.old for one in found]))


def _joined(found: Sequence[Writes]) -> Writes:
    return Writes(sum(one.pages for one in found), np.concatenate([NONE.long_ns, *(one.long_ns for one in found)]))


def measure_withheld(built: Path, heap: int, turn: float) -> Withheld:
    """Write to the pages of a heap of so many bytes, each once in a turn of so many seconds; with the program replayer."""
    arguments = (
        *("-pages", str(max(1, heap // _PAGE))),
        *("-pass", f"{round(min(turn, _LONGEST_PASS) * 1e6)}us"),
        *("-for", f"{MEMORY_MS}ms"),
    )
    told = json.loads(command([built, *arguments]))
    return Withheld(*(Writes(told[name]["pages"], np.array(told[name]["long_ns"], float)) for name in ("fresh", "old")))


# What a simulated run writes to


@dataclass(frozen=True, slots=True)
class Pages:
    """Pages of 4 KiB that a run is the first to write to or read, since they were mapped or since the last cycle: used
    memory that mallocs clear, and what is read by assists, and by all who mark; fresh memory by malloc, and by the program."""

    cleared: float
    assisted: float
    marked: float
    fresh: float
    fresh_by_program: float


def unpriced(fresh: Writes, first_touch: Price) -> float:
    """The share of what long first writes take that the price of a first touch has not: some were long as it was measured."""
    if not fresh.mean:
        return 0.0
    cells = first_touch.cells or (first_touch.mean,)
    beyond = [cell - cells[len(cells) // 2] for cell in cells]
    priced = sum(long for long in beyond if long > _LONG) / 1000 / len(cells)
    return max(0.0, 1 - priced / fresh.mean)


def pages_of(result: Result, unpriced_share: float) -> Pages:
    """What a simulated run wrote to; of fresh pages, the share whose price is without long writes."""
    metrics, latency = result.metrics, result.latency
    refills = sum(latency[cause].count for cause in ("refill_partial", "refill_fresh"))
    mallocs = latency["all"].count
    written = max(result.memstats["TotalAlloc"] / _PAGE, min(refills * _SPAN / _PAGE, mallocs))
    resident = metrics["/sim/heap/resident:bytes"] / _PAGE
    fresh = unpriced_share * resident
    marked = sum(cycle.heap_scan_work for cycle in result.cycles) / _PAGE  # what has no pointers is not read
    assisting, marking = sum(one.assist_time for one in result.cycles), sum(map(_marking, result.cycles))
    by_program = max(0.0, 1 - latency["first_touch"].count / resident) if resident else 0.0  # a malloc touches a page, or few
    return Pages(
        cleared=written * latency["zero"].count / mallocs if mallocs else 0.0,
        assisted=marked * assisting / marking if marking else 0.0,
        marked=marked,
        fresh=fresh * (1 - by_program),
        fresh_by_program=fresh * by_program,
    )


def _marking(cycle: Cycle) -> int:
    """Picoseconds of CPU time that a cycle's marking took."""
    return cycle.assist_time + cycle.dedicated_time + cycle.fractional_time + cycle.idle_time


# Calls that meet them


def withheld(row: Row, causes: Mapping[str, Any], pages: Pages, found: Withheld, seed: int) -> Row:
    """Calls as they would have been seen where such pages are missing, at random; the same seed, the same calls.

    ``row``: all calls; ``causes``: histograms of what each cause takes of a call. Of each cause, a Poisson number of
    pages is missing. Each lengthens a call that has the cause, the more likely the longer that takes, by as much as a
    write that was measured. In the histogram, a call is one of those that take as long as the cause alone or little more.
    """
    counts = row.counts.astype(np.int64).copy()
    random = np.random.Generator(np.random.Philox(seed))
    total, longest = row.total, row.maximum
    for cause, many, writes in (
        ("zero", pages.cleared, found.old),
        ("first_touch", pages.fresh, found.fresh),
        ("assist", pages.assisted, found.old),
    ):
        taking = np.flatnonzero(causes[cause])
        missing = int(random.poisson(many * writes.share)) if len(taking) else 0
        if not missing:
            continue
        weights = causes[cause][taking] * np.array([bucket_top(int(bucket)) + 1.0 for bucket in taking])
        chosen = random.choice(taking, missing, p=weights / weights.sum())
        lengths = np.round(1000 * random.choice(writes.long_ns, missing)).astype(np.int64)
        for bucket, extra in zip(_taken(counts, chosen).tolist(), lengths.tolist(), strict=True):
            long = bucket_top(bucket) + extra
            counts[bucket_of_int(long)] += 1
            longest = max(longest, long)
        total += int(lengths.sum())
    return Row(counts, total, longest)


def _taken(counts: Any, wanted: Any) -> Any:
    """Take a call from each bucket that is named, or the next one that has any, or the last; buckets taken from."""
    found = np.empty_like(wanted)
    for i, bucket in enumerate(wanted):
        later = np.flatnonzero(counts[bucket:])
        found[i] = bucket + later[0] if len(later) else np.flatnonzero(counts)[-1]
        counts[found[i]] -= 1
    return found


def longer(wall: float, computing: float, pages: Pages, found: Withheld, interrupted: float, at_once: int) -> float:
    """How many nanoseconds a run of so many takes where pages are missing and CPUs are interrupted for a share of their
    time. So many of its goroutines run at once, and wait for pages alike.

    Only what they compute is taken to be interrupted; what the runtime does is priced by loops that were interrupted too.
    """
    old, fresh = pages.cleared + pages.assisted, pages.fresh + pages.fresh_by_program
    waits = old * found.old.mean + fresh * found.fresh.mean
    return wall + (waits + computing * interrupted / (1 - interrupted)) / at_once


def marked_longer(marking: float, pages: Pages, found: Withheld) -> float:
    """How many times as long marking of so many nanoseconds takes where pages are missing."""
    return 1 + pages.marked * found.old.mean / marking if marking else 1.0
