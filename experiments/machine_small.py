"""Mallocs of a program all of whose types are small, beside those of one with types of all sizes.

Less lies between two mallocs of one type there, and less varied: the code they run and what they read is at hand more often.
Table hit_after tells them apart by the word that its rows begin with. But spans have many slots: what refills is not at hand any
more (table refilled_fresh_small). A program whose objects are neither as small nor as large
in the mean lies between the two (`sim.costs.smallness`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.calibrate_objects import SMALL
from experiments.machine_file import KINDS, Table
from experiments.machine_mixed import Mixed, at_size, more_than, one_allocates, price_of
from sim.costs import HeapPrices
from sim.go.sizeclasses import class_to_size
from sim.go.state import NUM_SIZE_CLASSES

LARGEST = 64  # bytes
_SIZES = [size for size in SMALL if size <= LARGEST]
_MIB = 1 << 20
_CLASSES = [(int(class_to_size[sizeclass]), kind) for sizeclass in range(NUM_SIZE_CLASSES) for kind in KINDS]
_AFTER = {
    "more others": "hits",
    "to 31 others": "some",
    "to 7 others": "few",
    "marking, another slot": "marking",
    "marking, next slot": "next",
    "marking, next slot to 7 others": "next_few",
}
_PRICES = {
    "hits": "hit",
    "some": "hit_some",
    "few": "hit_few",
    "marking": "marking",
    "next": "marking_next",
    "next_few": "marking_next_few",
}


def mean_sizes() -> tuple[int, int]:
    """Bytes of an object in the mean, of the program with small types and of that with all."""
    return _mean_size(_SIZES), _mean_size(SMALL)


def _mean_size(sizes: Sequence[int]) -> int:
    """Where types are as frequent as the root of their size is small. (truth/calibrate/warm.go:lottery)"""
    roots = [math.sqrt(size) for size in sizes]
    return round(sum(roots) / sum(1 / root for root in roots))


def small_types(tables: Mapping[str, Table], kind: str, mib: int, procs: int) -> Mixed:
    """Hits and refills with fresh spans of small types only, in a heap of so many MiB on so many Ps; empty if that was not measured."""
    found = Mixed()
    hits, refills = (tables[name].rows if name in tables else {} for name in ("hit_after", "refilled_fresh_small"))
    for size in _SIZES:
        for after, name in _AFTER.items():
            row = hits.get((size, kind, mib, procs, f"small, {after}"))
            if row is not None:
                getattr(found, name)[size] = price_of(row)
        fresh = refills.get((size, kind, mib, procs))
        if fresh is not None and size in found.few:
            found.fresh[size] = more_than(fresh, found.few[size])
    return found


def small_heaps(tables: Mapping[str, Table], heaps: Sequence[HeapPrices]) -> tuple[HeapPrices, ...]:
    """Those of the heaps in which a program of small types was timed, with its hits and fresh spans of small sizes."""
    own, found = one_allocates(tables), []
    for heap in heaps:
        timed = own if heap.allocate else tables
        calls = {kind: small_types(timed, kind, heap.nbytes // _MIB, heap.procs) for kind in KINDS}
        prices = dict(_PRICES)
        if heap.refill_fresh:
            prices["fresh"] = "refill_fresh"
        if all(each.few for each in calls.values()):
            rows: dict[str, Any] = {
                name: tuple(
                    at_size(told, size) if told and 0 < size <= LARGEST else price
                    for price, (size, kind) in zip(getattr(heap, name), _CLASSES, strict=True)
                    for told in (getattr(calls[kind], of),)
                )
                for of, name in prices.items()
            }
            found.append(replace(heap, **rows))
    return tuple(found)
