"""Figures of a run by name: columns of a sweep's table of runs, and short names of those that are drawn most.

A quantile of latency may be any, also one that the tables have not: /sim/latency/response:seconds/p99.5. It is that of
all replications' merged histograms, never a mean of theirs.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from experiments.errors import InputError
from experiments.render import CAUSES

SHORT = {
    "gc-cpu": "/sim/gc/cpu:share",
    "gc-cycles": "/gc/cycles/total:gc-cycles",
    "heap-peak": "/sim/heap/peak:bytes",
    "throughput": "/sim/throughput:mallocs-per-second",
    "malloc-p99": "/sim/latency/all:seconds/p99",
    "response-p99": "/sim/latency/response:seconds/p99",
}
_REQUESTS = ("response", "run-queue")
_SHORT_QUANTILE = re.compile(r"([a-z][a-z_-]*)-(p[\d.]+)")
_QUANTILE = re.compile(r"/sim/latency/([a-z][a-z-]*):seconds/p(\d{1,2}(?:\.\d{1,6})?)")
_OF_LATENCY = re.compile(r"/sim/latency/([a-z][a-z-]*):(?:calls|seconds/(?:mean|max|total))")


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a run. ``cause`` and ``q``, from 0 to 1, if it is a quantile of latency."""

    name: str
    cause: str | None = None
    q: float = 0.0

    @property
    def title(self) -> str:
        """What people call it: the short name if it has one."""
        short = {name: key for key, name in SHORT.items()}.get(self.name)
        if self.cause is None:
            return short.replace("-", " ").replace("gc", "GC").replace("cpu", "CPU") if short else self.name
        what = "malloc" if self.cause == "all" else self.cause.replace("_", " ")
        return f"{what} p{100 * self.q:.9g}"


def metric_of(name: str, known: Collection[str], where: str) -> Metric:
    """The metric of a name, short or in full; InputError names the nearest one if runs have none of it.

    ``known``: columns of a run that was made. ``where``: what messages are about.
    """
    known = [one for one in known if one.startswith("/")]  # what was found, not what was asked
    full = SHORT.get(name, name)
    if short := _SHORT_QUANTILE.fullmatch(full):
        cause = "all" if short[1] == "malloc" else short[1].replace("_", "-")
        full = f"/sim/latency/{cause}:seconds/{short[2]}"
    causes = [cause.replace("_", "-") for cause in CAUSES]  # one that the run has not may be another's
    causes += [cause for cause in _REQUESTS if f"/sim/latency/{cause}:calls" in known]
    if found := _QUANTILE.fullmatch(full):
        if found[1] in causes and float(found[2]) > 0:
            return Metric(full, found[1].replace("-", "_"), float(found[2]) / 100)
    elif full in known or ((part := _OF_LATENCY.fullmatch(full)) and part[1] in causes):
        return Metric(full)
    quantiles = (f"{cause}-p99" for cause in causes[1:])
    raise InputError(f"{where}: no metric {name[:80]}; {near(name, [*SHORT, *quantiles, *known])}")


def near(name: str, known: Collection[str]) -> str:
    """What may have been meant, for a message."""
    close = difflib.get_close_matches(name[:80], list(known), n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]}?"
    shown = list(known)[:6]
    return f"there are {', '.join(shown)}{' and others' if len(known) > len(shown) else ''}"


def of_service(known: Collection[str] | Mapping[str, object]) -> bool:
    """Whether runs answered requests, so that their latency is the one that users see."""
    return "/sim/latency/response:calls" in known
