"""A workload that collects as a recorded program did: rates, sizes and lifetimes out of its cycles and sizes.

Rate. R = allocated bytes a second, of slots (heapcycles.allocated); without cycles, what a profile tells over its time.

The live heap over time. Objects with a mean lifetime tau, made at A / tau bytes a second and dying at random, come to
A * (1 - exp(-t / tau)) live bytes, after Little's law A in the end; those that never die to g * t. The live heap at
each cycle's beginning (heapcycles.Seen.live) is laid out in such curves, tau a power of two times the least possible
one, A and g not negative, with the least squares of relative errors. The least tau is the larger of L / R, at which all
bytes live that long (L the largest live heap), and a hundredth of the run. So a heap that is there from the start on
becomes objects that turn over soon, and one that fills slowly objects that last.

Sizes. Rows (sizetable.py) tell the share of each size in what is allocated, r[s], and in what lives, l[s]. Of the bytes
that live long, B a second, size s has l[s], but no more than it is allocated: min(c * l[s] * B, r[s] * R)
with the c that makes them B. What is left of r[s] * R is garbage: it dies within `GARBAGE` mallocs.

Without cycles each row has its own mean lifetime, live / rate, as a size table has (sizetable.mix_of).

Left out: bursts and phases (rates are means over the run), which sizes die together, objects that a program made at
its start and keeps (they turn over here), and how many goroutines took part: `mutators` is a guess from idle marking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import exp, inf, log2
from typing import Any

import numpy as np
from scipy.optimize import nnls

from sim.go.params import Facts
from sim.go.sizeclasses import MALLOC_HEADER_SIZE, MIN_SIZE_FOR_MALLOC_HEADER
from workloads.estimate import slot_bytes
from workloads.heapcycles import Seen, allocated, quarters
from workloads.recording import Sizes
from workloads.sizetable import Row, mix_of
from workloads.spec import PPM, Lifetime, Mix, Objects

GARBAGE = 100
"""Mean lifetime of garbage, in mallocs of its goroutine: in the fit 25 KB or so are live of it."""
GUESS = 0.5
"""Share of objects with pointers where nothing tells."""
_LEAST_RUN = 200  # lifetimes from this part of the run on
_FLOOR = 0.02  # of the largest live heap: errors are relative to what is live and this
_WEIGHTS = 10**9
_UNEVEN = 1.3  # between rates of a quarter of the run each: more is said
_SMALL = 1e-3  # of the whole: less than that is left out


@dataclass(frozen=True, slots=True)
class Lives:
    """Long-lived objects: ``amount`` live bytes in the end, of mean lifetime ``seconds``; inf: for ever."""

    seconds: float
    amount: float
    rate: float  # bytes a second


@dataclass(frozen=True, slots=True)
class Fit:
    """``rate``: bytes a second; ``mallocs``: objects a second; ``lives``: the live heap as curves; ``error``: their
    median relative one. ``mix``: without think time, lifetimes in mallocs of the whole program.
    """

    rate: float
    mallocs: float
    lives: tuple[Lives, ...]
    error: float
    mix: Mix
    cautions: tuple[str, ...]


def live_curves(
    times: Sequence[float], live: Sequence[float], rate: float, end: float
) -> tuple[tuple[Lives, ...], float]:
    """The live heap at some times as curves, and their median relative error."""
    most = max(live)
    least = end / _LEAST_RUN
    while True:
        found, error = _curves(np.asarray(times), np.asarray(live), least, end)
        if least >= most / rate or sum(one.rate for one in found) <= rate:
            break
        least = min(2 * least, most / rate)
    total = sum(one.rate for one in found)
    if total > rate:  # only if the curves reach above what was seen
        found = [replace(one, amount=one.amount * rate / total, rate=one.rate * rate / total) for one in found]
    return tuple(found), error


def _curves(t: Any, live: Any, least: float, end: float) -> tuple[list[Lives], float]:
    """The curves of the least squares, of no smaller mean lifetime than that."""
    most = float(live.max())
    means = [least * 2**i for i in range(max(int(log2(4 * end / least)), 0) + 1)]
    columns = np.stack([1 - np.exp(-t / mean) for mean in means] + [t / end], axis=1)
    weight = 1 / (live + _FLOOR * most)
    amounts, _ = nnls(columns * weight[:, None], live * weight)
    error = float(np.median(np.abs(columns @ amounts - live) * weight))
    found = [
        Lives(mean, a, a / mean) for mean, a in zip(means, amounts[:-1].tolist(), strict=True) if a > _SMALL * most
    ]
    if amounts[-1] > _SMALL * most:
        found.append(Lives(inf, float(amounts[-1]), float(amounts[-1]) / end))
    return found, error


def shared_out(total: float, wanted: Mapping[int, float], most: Mapping[int, float]) -> dict[int, float]:
    """``total`` shared out in proportion to what is wanted, to nobody more than ``most``, which may be all."""
    keys = [key for key in wanted if most[key] > 0]
    room = sum(most[key] for key in keys)
    if total >= room * (1 - 1e-9):
        return {key: most[key] for key in keys}
    given: dict[int, float] = {}
    left = total
    open_keys = {key: wanted[key] for key in keys}
    while open_keys:
        share = sum(open_keys.values())
        full = [key for key, one in open_keys.items() if one / share * left >= most[key]] if share > 0 else []
        if not full:
            break
        for key in full:
            given[key] = most[key]
            left -= most[key]
            del open_keys[key]
    share = sum(open_keys.values())
    spare = sum(most[key] for key in open_keys)
    for key, one in open_keys.items():  # nothing is wanted of the rest: as there is room
        given[key] = left * (one / share if share > 0 else most[key] / spare)
    return given


def request(slot: int, facts: Facts, pointers: float) -> int:
    """Bytes to ask for to get such a slot, with a malloc header if pointers need one."""
    header = (
        facts.malloc_header
        and pointers > 0
        and MIN_SIZE_FOR_MALLOC_HEADER < slot <= facts.max_small_size + MALLOC_HEADER_SIZE
    )
    return slot - MALLOC_HEADER_SIZE if header else slot


@dataclass(frozen=True, slots=True)
class _Made:
    """A size that is made: bytes of a slot, objects a second, share of its objects with pointers."""

    slot: int
    rate: float
    live: float
    pointers: float


def _made(sizes: Sizes, facts: Facts) -> list[_Made]:
    """The rows that matter, objects of pointers and those without apart where that is told."""
    whole = sum(float(row.rate) * row.size for row in sizes.rows)
    living = sum(float(row.live) * row.size for row in sizes.rows)
    found = []
    for row in sizes.rows:
        rate, live = float(row.rate), float(row.live)
        if rate * row.size < _SMALL * whole and live * row.size <= _SMALL * living:
            continue
        slot = slot_bytes(row.size, True, replace(facts, malloc_header=False))
        told = sizes.pointers.get(row.size, GUESS) if sizes.pointers is not None else None
        if told is None:
            found.append(_Made(slot, rate, live, 1.0 if row.size <= 8 else GUESS))  # smaller ones share 16 bytes
            continue
        found += [_Made(slot, rate * part, live * part, kind) for part, kind in ((told, 1.0), (1 - told, 0.0)) if part]
    return found


def _objects(
    made: Sequence[_Made], rates: Sequence[float], lifetime: Lifetime, facts: Facts, pointer_bytes: float
) -> list[Objects]:
    """Kinds of one lifetime, one for each share of pointers: weights in billionths of all objects made."""
    scale = _WEIGHTS / sum(one.rate for one in made)
    found = []
    for pointers in sorted({one.pointers for one in made}):
        sizes = [
            (request(one.slot, facts, pointers), round(scale * rate))
            for one, rate in zip(made, rates, strict=True)
            if one.pointers == pointers
        ]
        parts = tuple((size, size, weight) for size, weight in sizes if weight)
        if parts:
            weight = min(sum(weight for _, _, weight in parts), _WEIGHTS)
            ppm = round(pointers * PPM), round(pointer_bytes * PPM)
            found.append(Objects(weight, parts, *ppm, lifetime))
    return found


def fit(cycles: Sequence[Seen], sizes: Sizes, facts: Facts, *, whole: bool) -> Fit:
    """The workload of a program by its cycles; ValueError if they are too few to tell how much it allocates."""
    nbytes, seconds = allocated(cycles, whole=whole)
    if len(cycles) < 2 or nbytes <= 0 or seconds <= 0:
        raise ValueError(f"{len(cycles)} cycles do not tell how much was allocated; record a longer run")
    rate, cautions = nbytes / seconds, []
    own = [one for one in cycles if not one.forced and one.live > 0]
    if whole and own:
        lives, error = live_curves([one.begin for one in own], [one.live for one in own], rate, cycles[-1].end)
    else:
        mean = sum(one.live for one in cycles) / len(cycles)
        lives, error = _steady(mean, rate, cycles[-1].end - cycles[0].begin), 0.0
        if not whole:
            cautions.append(
                "the record begins in the middle of a run: its live heap is taken to be what it is on average"
            )
    if error > 0.1:
        cautions.append(
            f"the live heap rises and falls: the scenario's smooth one is off by {100 * error:.0f} %, the median"
        )
    parts = quarters(cycles)
    if max(parts) > _UNEVEN * min(parts):
        told = ", ".join(f"{part / 1e6:.3g}" for part in parts)
        cautions.append(f"the program allocates {told} MB a second in the quarters of its time, the scenario evenly")
    made = _made(sizes, facts)
    if not made:
        raise ValueError(f"{sizes.source} tells no sizes; record a longer run")
    scale = rate / sum(one.rate * one.slot for one in made)
    made = [replace(one, rate=one.rate * scale) for one in made]
    bytes_made = {i: one.rate * one.slot for i, one in enumerate(made)}
    wanted = {i: (one.live if sizes.live else one.rate) * one.slot for i, one in enumerate(made)}
    long = sum(one.rate for one in lives)
    kept = shared_out(long, wanted, bytes_made)
    mallocs = sum(one.rate for one in made)
    objects = []
    for one in lives:
        rates = [kept.get(i, 0.0) * (one.rate / long) / size.slot for i, size in enumerate(made)]
        objects += _objects(made, rates, _lifetime(one.seconds, mallocs), facts, sizes.pointer_bytes)
    garbage = [(bytes_made[i] - kept.get(i, 0.0)) / size.slot for i, size in enumerate(made)]
    objects += _objects(made, garbage, Lifetime("ops", GARBAGE, "exponential"), facts, sizes.pointer_bytes)
    return Fit(rate, mallocs, lives, error, Mix(tuple(objects)), tuple(cautions))


def _steady(live: float, rate: float, seconds: float) -> tuple[Lives, ...]:
    """A live heap that stays: objects of the least lifetime."""
    mean = max(live / rate, seconds / _LEAST_RUN)
    return (Lives(mean, live, live / mean),) if live > 0 else ()


def _lifetime(seconds: float, mallocs: float) -> Lifetime:
    """A lifetime in mallocs of the whole program."""
    if seconds == inf:
        return Lifetime("immortal")
    return Lifetime("ops", max(1, round(seconds * mallocs)), "exponential")


def fit_rows(sizes: Sizes, facts: Facts) -> Fit:
    """The workload of sizes alone: each one's lifetime is its live objects over its rate."""
    made = [one for one in _made(sizes, facts) if one.rate > 0]
    if not made:
        raise ValueError(f"{sizes.source} tells no allocations; record a longer run")
    rates, living = ([Fraction(x).limit_denominator(1000) for x in xs] for xs in zip(*((m.rate, m.live) for m in made)))
    sized = [request(one.slot, facts, one.pointers) for one in made]
    mix = mix_of([Row(*row) for row in zip(sized, rates, living, strict=True)])
    pairs = zip(mix.objects, made, strict=True)
    objects = tuple(replace(kind, pointers_ppm=round(one.pointers * PPM)) for kind, one in pairs)
    rate = sum(one.rate * one.slot for one in made)
    live = sum(one.live * one.slot for one in made)
    return Fit(rate, sum(one.rate for one in made), (Lives(live / rate, live, rate),), 0.0, Mix(objects), ())


def mutators(cycles: Sequence[Seen], procs: int) -> tuple[int, str]:
    """How many goroutines allocate, at a guess, and why.

    While a cycle marks, Ps that neither run the program nor a dedicated worker mark as idle ones: their CPU time over
    the marking's length is their number. Who never idles has as many goroutines as Ps.
    """
    told = [one for one in cycles if one.clock and one.idle is not None and one.dedicated is not None]
    clock = sum(one.clock or 0.0 for one in told)
    if clock <= 0 or procs == 1:
        return procs, "as many as Ps"
    idle = sum(one.idle or 0.0 for one in told) / clock
    dedicated = sum(one.dedicated or 0.0 for one in told) / clock
    if idle < 0.2:
        return procs, "as many as Ps: none was idle during marks"
    return max(
        1, round(procs - idle - dedicated)
    ), f"{idle:.1f} Ps were idle during marks, {dedicated:.1f} at work on them"


def filled(lives: Sequence[Lives], end: float) -> float:
    """Share of the live bytes that are there at the end, of those that will be."""
    amount = sum(one.amount for one in lives)
    there = sum(one.amount * (1 - exp(-end / one.seconds)) if one.seconds < inf else one.amount for one in lives)
    return there / amount if amount else 1.0
