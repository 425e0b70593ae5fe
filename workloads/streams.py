"""Synthetic streams of operations: what a worker or the requests of a service allocate, and when requests arrive.

A stream depends on its mix, its seed and its name alone: not on batches, timing or other streams. Within it,
kinds, sizes, pointers, lifetimes and think times have streams of their own (``NAME/kinds`` ...), indexed by malloc:
other think times move nothing else; other pointers, sizes or lifetimes of one kind of object move no other draw (what
follows from a draw may move: a death counted in bytes, which variable is free).

Cost of a malloc with its deaths and a think time, ns, on one core of a 2-core EPYC VM, ten sizes: 20 for fixed
lifetimes of ten thousand mallocs (17 without think times), 12 in caches, 15 request-scoped, 38 and 57 for exponential
lifetimes of ten thousand objects in mallocs and in bytes, 97 in mallocs with a million objects alive (cache misses).

Left out: lifetimes that depend on size or phase (make them kinds of their own), objects handed from one goroutine to
another other than by a service's shared variables, and any change of the mix over time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from sim.engine.rng import MAX_MEAN, Stream
from sim.jit import PLAIN, Tables
from sim.ops import ALLOC, NEEDZERO, OP, SHARED, TOUCH
from sim.units import Time
from workloads.spec import PPM, Lifetime, Mix, Objects, Phase, Service
from workloads.streams_fill import fill
from workloads.streams_state import (
    CACHE,
    IMMORTAL,
    LEVELS,
    LIVES,
    MAX_BYTES,
    MAX_OPS,
    MAX_SIZE,
    MAX_WIDTH,
    NEVER,
    REQUEST,
    SHARE_BITS,
    SLOT_WORDS,
    SLOTS,
    STREAM,
    TABLES,
)

BATCH = 4096  # operations a worker hands over at once; at 1024 a run of 8 Ps takes a third longer, more gain nothing
_WHEELS = 2
_FIRST_VARIABLES = 256
_FIRST_OPERATIONS = 1024
_MEANS = {"ops": MAX_OPS, "bytes": MAX_BYTES, "cache": MAX_WIDTH}


def alias_table(weights: Sequence[int]) -> list[tuple[int, int]]:
    """(threshold, other) of each choice, thresholds in units of 2**-32 (Vose 1991), by integers throughout.

    A cell is chosen evenly; it stands for its own choice below its threshold and for the other above. ValueError
    unless the weights are non-negative and one is positive.
    """
    if not weights or min(weights) < 0 or sum(weights) == 0:
        raise ValueError(f"weights {tuple(weights)}: none may be negative, and one must be positive")
    n, total = len(weights), sum(weights)
    left = [n * weight for weight in weights]  # a cell holds ``total``
    table = [(1 << 32, i) for i in range(n)]
    small = [i for i in range(n) if left[i] < total]
    large = [i for i in range(n) if left[i] >= total]
    while small:
        i, j = small.pop(), large[-1]
        table[i] = ((left[i] << 32) // total, j)
        left[j] -= total - left[i]
        if left[j] < total:
            small.append(large.pop())
    return table


def _check_lifetime(lifetime: Lifetime, where: str) -> None:
    """ValueError unless the lifetime can be drawn."""
    if lifetime.kind not in LIVES:
        raise ValueError(f"{where}: lifetime {lifetime.kind!r} is not one of {', '.join(LIVES)}")
    most = _MEANS.get(lifetime.kind)
    if most is not None and not 1 <= lifetime.mean <= most:
        raise ValueError(f"{where}: lifetime {lifetime.kind} {lifetime.mean} is not in [1, {most}]")


def check_mix(mix: Mix) -> None:
    """ValueError, one line that names the kind of object by its place, unless a stream can be made of the mix."""
    if not mix.objects:
        raise ValueError("mix: no objects; give at least one kind")
    alias_table([objects.weight for objects in mix.objects])
    if not 0 <= mix.think <= MAX_MEAN:
        raise ValueError(f"mix: think {mix.think} ps is not in [0, {MAX_MEAN}]")
    for number, objects in enumerate(mix.objects):
        where = f"objects {number}"
        alias_table([weight for _, _, weight in objects.sizes])
        for low, high, _ in objects.sizes:
            if not 1 <= low <= high < MAX_SIZE or high - low >= MAX_WIDTH:
                raise ValueError(
                    f"{where}: sizes {low} to {high}: 1 <= low <= high < {MAX_SIZE}, less than {MAX_WIDTH} apart"
                )
        if not (0 <= objects.pointers_ppm <= PPM and 0 <= objects.pointer_bytes_ppm <= PPM):
            raise ValueError(f"{where}: pointers_ppm and pointer_bytes_ppm are not both in [0, {PPM}]")
        _check_lifetime(objects.lifetime, where)
    if sum(objects.lifetime.mean for objects in mix.objects if objects.lifetime.kind == "cache") > MAX_WIDTH >> 1:
        raise ValueError(f"mix: its caches have more than {MAX_WIDTH >> 1} places")


def _check_phases(phases: Sequence[Phase]) -> None:
    """ValueError unless the phases can be run."""
    if not phases:
        raise ValueError("service: no phases; give at least one")
    for number, phase in enumerate(phases):
        if not 0 <= phase.compute <= MAX_MEAN or phase.mallocs < 0:
            raise ValueError(
                f"phase {number}: compute {phase.compute} ps is not in [0, {MAX_MEAN}]"
                f" or mallocs {phase.mallocs} is negative"
            )


def _flags(objects: Objects, life: int, service: bool) -> int:
    """The flags of each ALLOC of a kind, but NOSCAN."""
    flags = NEEDZERO * objects.zeroed | TOUCH * objects.touched
    if service and life not in (IMMORTAL, REQUEST):
        flags |= SHARED
    return flags


def _set_mix(tables: Tables, mix: Mix, service: bool) -> None:
    """Fill the tables of kinds and ranges; caches take the first variables."""
    kinds = tables.allocate("kinds", len(mix.objects))
    ranges = tables.allocate("ranges", sum(len(objects.sizes) for objects in mix.objects))
    first = place = 0
    choices = alias_table([objects.weight for objects in mix.objects])
    for row, objects, (threshold, other) in zip(kinds, mix.objects, choices, strict=True):
        lifetime = objects.lifetime
        row.threshold, row.other = threshold, other
        row.first, row.nranges = first, len(objects.sizes)
        row.pointers = (objects.pointers_ppm << 32) // PPM
        row.pointer_bytes = ((objects.pointer_bytes_ppm << SHARE_BITS) + PPM // 2) // PPM
        row.life, row.lifetime, row.exponential = LIVES[lifetime.kind], lifetime.mean, lifetime.dist == "exponential"
        row.op_flags = _flags(objects, row.life, service)
        if row.life == CACHE:
            row.place = place
            place += lifetime.mean
        within = alias_table([weight for _, _, weight in objects.sizes])
        for (low, high, _), (threshold, other) in zip(objects.sizes, within, strict=True):
            ranges[first].low, ranges[first].width = low, high - low + 1
            ranges[first].threshold, ranges[first].other = threshold, row.first + other
            first += 1
    tables.fields.places = place
    tables.fields.think = mix.think
    tables.fields.think_exponential = mix.think_dist == "exponential"


@lru_cache(maxsize=64)
def _template(mix: Mix, phases: tuple[Phase, ...], service: bool) -> Tables:
    """The state of a stream before its first operation, its keys apart: the same for every worker of a mix."""
    check_mix(mix)
    _check_phases(phases)
    tables = Tables(STREAM, TABLES)
    _set_mix(tables, mix, service)
    for row, phase in zip(tables.allocate("phases", len(phases)), phases, strict=True):
        row.compute, row.mallocs, row.exponential = phase.compute, phase.mallocs, phase.compute_dist == "exponential"
    tables.allocate("wheels", _WHEELS)["first"] = NEVER
    tables.allocate("heads", _WHEELS * LEVELS * SLOTS).fill(-1)
    tables.allocate("slot_bits", _WHEELS * LEVELS * SLOT_WORDS)
    tables.allocate("word_bits", _WHEELS * LEVELS)
    tables.allocate("due", _FIRST_VARIABLES)
    tables.allocate("link", _FIRST_VARIABLES)
    fields = tables.fields
    fields.service = service
    fields.free = -1
    fields.scoped = 0 if service else -1
    return tables


def _new_tables(mix: Mix, phases: tuple[Phase, ...], service: bool, seed: int, name: str) -> Tables:
    """The state of a stream before its first operation. (40 us; 360 without the template)"""
    tables = _template(mix, phases, service).copy(("kinds", "ranges"))
    for number in range(len(phases)):
        tables.arrays["phases"]["key"][number] = Stream(seed, f"{name}/compute/{number}").key
    for part in ("kinds", "sizes", "pointers", "lifetimes", "think"):
        tables.header[f"{part}_key"] = Stream(seed, f"{name}/{part}").key
    return tables


def _fill(tables: Tables, ops: Any, n: int) -> int:
    """Write to ops[n:] until it is full or a request is over; the index after the last. Makes room for variables."""
    n = fill(tables.header, ops, n)
    while n < 0:
        for name in ("due", "link"):
            tables.allocate(name, 2 * len(tables.arrays[name]))
        n = fill(tables.header, ops, ~n)
    return int(n)


def operations(n: int) -> Any:
    """A zeroed buffer of n operations (sim.ops.OP), in the form compiled or plain code takes."""
    ops = np.zeros(n, OP)
    return ops.view(np.recarray) if PLAIN else ops


class WorkerStream:
    """The endless operations of one worker: every variable is its goroutine's own."""

    def __init__(self, mix: Mix, round_mallocs: int, seed: int, name: str) -> None:
        """``name`` is the worker's, such as ``worker/3``; ValueError if the mix cannot be drawn."""
        if round_mallocs < 1:
            raise ValueError(f"round_mallocs {round_mallocs}: a round has at least one malloc")
        self._tables = _new_tables(mix, (Phase(0, round_mallocs),), False, seed, name)

    def fill(self, ops: np.ndarray[Any, Any]) -> int:
        """Overwrite all of ``ops`` (dtype sim.ops.OP, contiguous) with the next operations; their number, len(ops).

        Where one call ends and the next begins does not change the stream.
        """
        return _fill(self._tables, ops.view(np.recarray) if PLAIN else ops, 0)

    @property
    def ids(self) -> int:
        """Variables 0 to ids - 1 are used so far; never more than were in use at once, and all places of caches."""
        return self._tables.scalar("places") + self._tables.scalar("dynamic")

    @property
    def mallocs(self) -> int:
        """ALLOC operations so far."""
        return self._tables.scalar("mallocs")


class RequestStream:
    """The operations of a service's requests, in order of arrival.

    Objects of lifetime ``request`` are held by variables of the request's goroutine and dead at its end. Those of
    lifetime ``ops``, ``bytes`` and ``cache`` are held by SHARED variables, since they may outlive it: lifetimes count
    mallocs and bytes of all requests in their order, and the places of a cache are common to all. So a DEAD may stand
    in a later request than its ALLOC: two requests that run at once may reach them in the wrong order.
    """

    def __init__(self, service: Service, seed: int, name: str) -> None:
        """``name`` is the service's; ValueError if its mix or phases cannot be drawn."""
        self._tables = _new_tables(service.mix, service.phases, True, seed, name)
        self._ops = operations(_FIRST_OPERATIONS)

    def next(self) -> Any:
        """All operations of the next request, as an array (sim.ops.OP) of its own."""
        n = _fill(self._tables, self._ops, 0)
        while n == len(self._ops):  # full, so that the request is not over
            longer = operations(2 * n)
            longer[:n] = self._ops
            self._ops = longer
            n = _fill(self._tables, self._ops, n)
        own = operations(n)  # zeroed, so that its bytes are the stream's too, padding included
        own[:] = self._ops[:n]
        return own

    @property
    def ids(self) -> int:
        """Variables 0 to ids - 1 of its goroutine are used by the request that ``next`` gave last."""
        return int(self._tables.fields.scoped_ids)

    @property
    def shared_ids(self) -> int:
        """SHARED variables 0 to shared_ids - 1 are used so far."""
        return self._tables.scalar("places") + self._tables.scalar("dynamic")

    @property
    def mallocs(self) -> int:
        """ALLOC operations so far."""
        return self._tables.scalar("mallocs")


class Arrivals(Iterator[Time]):
    """Intended arrival times of a service's requests in picoseconds, rising, without end.

    The first comes one gap after 0. Poisson: gaps are exponential around ``interval``; constant: they are it.
    """

    def __init__(self, service: Service, seed: int, name: str) -> None:
        """``name`` is the service's; ValueError if the interval is out of range."""
        if not 0 < service.interval <= MAX_MEAN:
            raise ValueError(f"service: interval {service.interval} ps is not in (0, {MAX_MEAN}]")
        self._stream = Stream(seed, f"{name}/arrivals")
        self._interval = service.interval
        self._poisson = service.arrivals == "poisson"
        self._now = 0

    def __next__(self) -> Time:
        self._now += self._stream.exponential(self._interval) if self._poisson else self._interval
        return Time(self._now)


# What a program runs of them


def share(mallocs: int, worker: int, workers: int) -> int:
    """Mallocs of one of the workers that together make so many."""
    return mallocs // workers + (worker < mallocs % workers)


def batches(stream: WorkerStream, mallocs: int | None) -> Iterator[Any]:
    """A worker's operations to its so many-th malloc, or without end; each batch is valid until the next."""
    ops = operations(BATCH if mallocs is None else min(BATCH, 3 * mallocs + 64))
    while mallocs is None or stream.mallocs < mallocs:
        before = stream.mallocs
        stream.fill(ops)
        batch = ops
        if mallocs is not None and stream.mallocs > mallocs:
            batch = ops[: int(np.flatnonzero(ops["kind"] == ALLOC)[mallocs - before - 1]) + 1]
        yield batch


def requests(
    service: Service, seed: int, duration: int | None, mallocs: int | None
) -> Iterator[tuple[Time, Any, int, int]]:
    """Arrival, operations, own and shared variables of each request that arrives before a time, or until those that
    arrived make so many mallocs together."""
    stream = RequestStream(service, seed, "service")
    for time in Arrivals(service, seed, "service"):
        if (duration is not None and time >= duration) or (mallocs is not None and stream.mallocs >= mallocs):
            return
        ops = stream.next()
        yield time, ops, stream.ids, stream.shared_ids
