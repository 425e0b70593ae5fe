"""What the mutex of mcentral cost: ``python -m experiments.mcentral_mutex [-o DIR] [--json]``.

Up to go1.14 the central lists of a span class stood behind a mutex; go1.15 replaced them by span sets that need no
lock (golang/go issue 37487, commit a13691966ad5, CL 221182). The issue says that performance "plateaus at around 20-24
cores", without workload or machine; some days before, its author had run allocations of 1 KiB to 64 KiB on a virtual
machine of 72 cores (issue 36521). The commit gives one benchmark in numbers, `MEASURED`: AllocKiB, the throughput of
1 KiB allocations at 1 to 28 Ps, with go1.14, with the tip of the time, and with the span sets. Its source is not
published, its machine not named; the collector was on. There go1.14 is best at 8 Ps and worse beyond.

Modelled: a goroutine a P allocates 1 KiB objects without pointers that must be zero, nobody keeps them, a CPU a P.
There is no collector: each span is fresh, its memory was used before (it is cleared, costs no page faults, the heap
does not grow). So each refill takes the mutex twice, to find no span with room and to enter the fresh one; with a
collector it takes it once or twice, and a sweeper once more for a span it gives back to the heap.

Three parts. (1) Allocation alone, nothing fitted: go1.14, go1.19, and go1.19 with the mutex, which is the same model as
go1.14 but for the name. (2) The benchmark: work between mallocs is fitted so that the *span sets* reach what was
measured with them; it stands for the collector, the loop, the machine. go1.14 is then predicted, by the assumed prices
of the mutex: with the work of 1 P at every number of Ps (one number fitted), where the mutex alone makes the plateau;
and with work fitted at each number (nine of them), which then also stands for what the Ps shared besides the mutex,
and shows what the mutex takes off. (3) How both move with the prices.

Limits: prices are those of one machine, not that of the benchmark; spinning does not slow the holder down (no price for
a cache line that others poll, nor for one that a list's neighbours share); the walk over spans that others sweep is
left out, which the issue names as the main cause.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments import study
from experiments.machine import load_machine
from sim.costs import Price, Prices
from sim.engine.rng import Stream
from sim.go.goroutine import Body, Goroutine
from sim.go.world import World
from sim.ops import ALLOC, COMPUTE, NEEDZERO, NO_OBJ, NOSCAN, OP
from sim.units import GIB, MS, NS, SEC, US

MACHINE = "epyc-2core"
SIZE = 1024  # bytes of an allocation
PS = (1, 2, 4, 8, 16, 32, 64)
SEED = 1

# Ps -> MiB/s of go1.14 and of the tip with span sets, as the message of commit a13691966ad5 gives them (5 runs each,
# spread 0 to 3 %)
MEASURED = {
    1: (1680, 1710),
    2: (2510, 2930),
    4: (4410, 5010),
    8: (5240, 8230),
    12: (4490, 10040),
    16: (4140, 10420),
    20: (3980, 10460),
    24: (3970, 10740),
    28: (4000, 10760),
}

# prices assumed for the mutex, and what else they might be (nanoseconds): the hold of mcentral's lock; 30 PAUSE, some
# 10 cycles each before Skylake, 140 since; the way of a woken thread to its CPU
CENTRAL = (50, 100, 200, 400, 800)
PROCYIELD = (150, 600, 1700)
WAKE_LATENCY = (1_000, 5_000, 25_000)

_BATCH = 512  # mallocs a goroutine hands over at once
_START = 500 * US  # all Ps have been woken by then
_WINDOW = (100 * US, 20 * MS)  # bounds of the time that is measured
_WANTED = 40_000  # mallocs in it
_WANTED_EACH = 12_000  # the same in part 3, which runs many
_NEAR = 0.95  # of the best throughput: the plateau begins there


@dataclass(frozen=True)
class Point:
    """One run: throughput of all Ps, and the share of their time that went into waiting for locks."""

    config: str
    ps: int
    think_ns: float  # mean work between mallocs
    mallocs_per_second: float
    gib_per_second: float
    central_wait: float  # of the Ps' time
    heap_wait: float
    waits_per_refill: float  # of mcentral's lock
    sleeps_per_refill: float


def used_memory(prices: Prices) -> Prices:
    """Prices on memory that was used before: objects are cleared, nothing is touched first, the heap does not grow."""
    free = dict.fromkeys(("grow", "grow_arena", "first_touch", "huge_touch", "meta_touch"), Price(0))
    fast = tuple(hit + clearing for hit, clearing in zip(prices.fast, prices.heaps[-1].zero, strict=True))
    return replace(prices, fast=fast, steps=dict(prices.steps) | free)


def with_prices(prices: Prices, central: int, procyield: int, wake_latency: int) -> Prices:
    """The prices of the mutex replaced, nanoseconds."""
    lock = replace(prices.lock, procyield=procyield * NS, wake_latency=wake_latency * NS)
    return replace(prices, lock=lock, steps=dict(prices.steps) | {"central": Price(central * NS)})


def _worker(g: Goroutine, think: int, stream: Stream) -> Body:
    """Goroutine: allocate for ever, computing ``think`` picoseconds before each malloc, give or take a half."""
    ops = np.zeros(2 * _BATCH if think else _BATCH, OP)
    ops[:] = (ALLOC, NOSCAN | NEEDZERO, NO_OBJ, SIZE, 0)
    if think:
        ops[::2] = [(COMPUTE, 0, 0, think // 2 + stream.below(think), 0) for _ in range(_BATCH)]
    yield g.compute(1 + stream.below(1 * US))  # Ps that start in step would stay in step
    while True:
        yield g.run(ops)


def measure(config: str, prices: Prices, ps: int, think: int = 0, wanted: int = _WANTED) -> Point:
    """Run ``ps`` Ps with ``think`` picoseconds of work before each malloc, for some ``wanted`` mallocs.

    Configs: go1.14, go1.19, go1.19+mutex.
    """
    version, _, mutex = config.partition("+")
    world = World(version, ps, prices, SEED, gogc=-1, mcentral_mutex=True if mutex else None)
    for i in range(ps):
        world.go(_worker, think, world.stream(f"worker/{i}"))
    world.run(until=_START)
    window = min(max(_WINDOW[0], (think + 100 * NS) * wanted // ps), _WINDOW[1])
    before = _counts(world)
    world.run(until=_START + window)
    mallocs, central, heap, waits, sleeps = (b - a for a, b in zip(before, _counts(world), strict=True))
    refills = max(1.0, mallocs * SIZE / 8192)
    rate = mallocs * SEC / window
    share = ps * window
    return Point(
        config=config,
        ps=ps,
        think_ns=think / NS,
        mallocs_per_second=rate,
        gib_per_second=rate * SIZE / GIB,
        central_wait=central / share,
        heap_wait=heap / share,
        waits_per_refill=waits / refills,
        sleeps_per_refill=sleeps / refills,
    )


def _counts(world: World) -> tuple[int, int, int, int, int]:
    locks = world.central_locks
    return (
        world.mallocs,
        sum(lock.total_wait for lock in locks),
        world.heap_lock.total_wait,
        sum(lock.waits for lock in locks),
        sum(lock.futex_sleeps for lock in locks),
    )


def plateau(rates: dict[int, float]) -> int:
    """The least number of Ps that comes near the best throughput of all."""
    best = max(rates.values())
    return min(ps for ps, rate in rates.items() if rate >= _NEAR * best)


def alone(prices: Prices) -> list[Point]:
    """Part 1: allocation alone."""
    return [measure(config, prices, ps) for config in ("go1.14", "go1.19", "go1.19+mutex") for ps in PS]


def _mib(point: Point) -> float:
    return point.gib_per_second * 1024


@dataclass(frozen=True)
class Prediction:
    """One row of part 2, MiB/s. Measured is None where nobody measured."""

    ps: int
    measured_sets: int | None
    measured_mutex: int | None
    one_fit_sets: float  # the work of 1 P at every number
    one_fit_mutex: float
    one_fit_wait: float  # share of the Ps' time that waits for mcentral's lock
    work_ns: float | None  # fitted at this number
    each_fit_sets: float | None
    each_fit_mutex: float | None
    each_fit_wait: float | None


def fitted_work(prices: Prices) -> dict[int, int]:
    """Picoseconds before each malloc at which the span sets reach the measured throughput, by number of Ps."""
    own = 1e12 / measure("go1.19", prices, 1).mallocs_per_second
    work = {}
    for ps, (_, sets) in MEASURED.items():
        wanted = 1e12 * ps * SIZE / (sets << 20)
        first = wanted - own
        off = wanted - 1e12 * ps / measure("go1.19", prices, ps, round(first)).mallocs_per_second
        work[ps] = round(first + off)
    return work


def benchmark(prices: Prices, work: dict[int, int]) -> list[Prediction]:
    """Part 2: the commit's benchmark."""
    rows = []
    for ps in sorted({*MEASURED, *PS}):
        one_sets, one_mutex = (measure(config, prices, ps, work[1]) for config in ("go1.19", "go1.14"))
        each: tuple[float, float, float, float] | tuple[None, None, None, None] = (None, None, None, None)
        mutex = sets = None
        if ps in MEASURED:
            mutex, sets = MEASURED[ps]
            each_sets, each_mutex = (measure(config, prices, ps, work[ps]) for config in ("go1.19", "go1.14"))
            each = (work[ps] / NS, _mib(each_sets), _mib(each_mutex), each_mutex.central_wait)
        rows.append(Prediction(ps, sets, mutex, _mib(one_sets), _mib(one_mutex), one_mutex.central_wait, *each))
    return rows


@dataclass(frozen=True)
class Variant:
    """One row of part 3: prices of the mutex in nanoseconds, and what they predict for go1.14."""

    central: int
    procyield: int
    wake_latency: int
    plateau: int  # Ps, with the work of 1 P
    best: float  # MiB/s there, over all Ps
    at_8: float  # MiB/s, with work fitted at each number
    at_28: float
    error: float  # with work fitted at each number: root mean square of ln(predicted/measured)


def sensitivity(prices: Prices, work: dict[int, int]) -> list[Variant]:
    """Part 3: each assumed price by itself, the spinning and waking also with the longest hold."""
    hold, spin, wake = (
        prices.steps["central"].mean // NS,
        prices.lock.procyield // NS,
        prices.lock.wake_latency // NS,
    )
    choices = [(other, spin, wake) for other in CENTRAL]
    for with_hold in (hold, CENTRAL[-1]):
        choices += [(with_hold, other, wake) for other in PROCYIELD if other != spin]
        choices += [(with_hold, spin, other) for other in WAKE_LATENCY if other != wake]
    rows = []
    for chosen in choices:
        other = with_prices(prices, *chosen)
        one = {ps: _mib(measure("go1.14", other, ps, work[1], _WANTED_EACH)) for ps in (4, 8, 12, 16, 20, 24, 32, 48, 64)}
        each = {ps: _mib(measure("go1.14", other, ps, work[ps], _WANTED_EACH)) for ps in MEASURED}
        ratios = np.array([np.log(each[ps] / MEASURED[ps][0]) for ps in MEASURED])
        error = float(np.sqrt(np.mean(ratios**2)))
        rows.append(Variant(*chosen, plateau(one), max(one.values()), each[8], each[28], error))
    return rows


@dataclass(frozen=True)
class Answer:
    """Everything the experiment says."""

    machine: str
    assumed: dict[str, str]
    alone: list[Point]
    benchmark: list[Prediction]
    sensitivity: list[Variant]


def experiment() -> Answer:
    """What the mutex of mcentral cost up to Go 1.14: simulated at 1 to 64 Ps, and against what was measured."""
    prices = used_memory(load_machine(MACHINE, "go1.14"))
    work = fitted_work(prices)
    assumed = {name: why for name, why in prices.assumed.items() if name == "central" or name.startswith("lock.")}
    return Answer(MACHINE, assumed, alone(prices), benchmark(prices, work), sensitivity(prices, work))


def report(answer: Answer) -> Iterator[str]:
    """The text for the terminal."""
    yield f"1. Allocation alone: {SIZE} B, one goroutine a P, a CPU a P, prices of {answer.machine}; nothing fitted"
    yield "   (throughput in GiB/s; share of the Ps' time that waits for mcentral's lock / mheap.lock)"
    by = {(point.config, point.ps): point for point in answer.alone}
    configs = list(dict.fromkeys(point.config for point in answer.alone))
    rows = [
        [str(ps), *(cell for c in configs for cell in (f"{by[c, ps].gib_per_second:.1f}", _waits(by[c, ps])))]
        for ps in PS
    ]
    yield from study.table(rows, ["Ps", *(cell for config in configs for cell in (config, "waits"))])
    for config in configs:
        yield f"   {config}: plateau from {plateau({ps: by[config, ps].gib_per_second for ps in PS})} Ps on"
    yield "   go1.14 takes its prices from go1.19, so the first and the last are one model: they agree to the byte."
    yield ""
    yield from _report_benchmark(answer)
    yield ""
    yield "3. go1.14 with other prices of the mutex (ns): plateau and best with the work of 1 P, the rest with work fitted at"
    yield "   each number of Ps; error: root mean square of ln(predicted/measured)"
    rows = [
        [
            *(str(price) for price in (row.central, row.procyield, row.wake_latency, row.plateau)),
            *(f"{rate:.0f}" for rate in (row.best, row.at_8, row.at_28)),
            f"{row.error:.2f}",
        ]
        for row in answer.sensitivity
    ]
    measured = {ps: float(mutex) for ps, (mutex, _) in MEASURED.items()}
    rows.append(["", "", "measured", str(plateau(measured)), *(f"{measured[ps]:.0f}" for ps in (8, 8, 28)), ""])
    yield from study.table(rows, ["central", "procyield", "wake", "plateau Ps", "best", "at 8 Ps", "at 28 Ps", "error"])


def _report_benchmark(answer: Answer) -> Iterator[str]:
    """Part 2 as text."""
    yield "2. The benchmark of commit a13691966ad5, MiB/s. Fitted: the work between mallocs, by the span sets (at 1 P; at each"
    yield "   number of Ps). Predicted: go1.14, by the assumed prices of the mutex alone."
    rows = [
        [
            str(row.ps),
            *("-" if rate is None else str(rate) for rate in (row.measured_sets, row.measured_mutex)),
            f"{row.one_fit_sets:.0f}",
            f"{row.one_fit_mutex:.0f}",
            f"{100 * row.one_fit_wait:.0f} %",
            *("-" if x is None else f"{x:.0f}" for x in (row.work_ns, row.each_fit_sets, row.each_fit_mutex)),
            "-" if row.each_fit_wait is None else f"{100 * row.each_fit_wait:.1f} %",
            _off(row.each_fit_mutex, row.measured_mutex),
        ]
        for row in answer.benchmark
    ]
    head = ["Ps", "sets", "go1.14", "|1 fit: sets", "go1.14", "waits", "|fit each: work ns", "sets", "go1.14", "waits", "off by"]
    yield from study.table(rows, head)
    yield from _verdict(answer)


def _off(predicted: float | None, measured: int | None) -> str:
    return "-" if predicted is None or measured is None else f"{100 * (predicted / measured - 1):+.0f} %"


def _waits(point: Point) -> str:
    return f"{100 * point.central_wait:.0f}/{100 * point.heap_wait:.0f} %"


def _verdict(answer: Answer) -> Iterator[str]:
    """Whether the plateau lies where it was measured, and what that is worth."""
    measured = {ps: float(mutex) for ps, (mutex, _) in MEASURED.items()}
    sets = plateau({ps: float(rate) for ps, (_, rate) in MEASURED.items()})
    one = {row.ps: row.one_fit_mutex for row in answer.benchmark}
    last = next(row for row in answer.benchmark if row.ps == 28)
    assert last.each_fit_wait is not None
    best = min(answer.sensitivity, key=lambda row: row.error)
    yield f"   Plateau (least Ps within 5 % of the best): measured {plateau(measured)} Ps with go1.14 (and 24 % less beyond),"
    yield f"   {sets} with span sets. Predicted for go1.14 with the work of 1 P: {plateau(one)} Ps, {_against(plateau(one))} the 20 to 24"
    yield f"   of the issue's text, at {max(one.values()) / max(measured.values()):.1f} times the measured throughput: the mutex as priced is too cheap."
    yield f"   With work fitted at each number it takes {100 * last.each_fit_wait:.1f} % at 28 Ps, so that the curve is that of the span sets; the"
    yield f"   measured loss is 63 %. Nearest below: a hold of {best.central} ns, procyield {best.procyield} ns, wake {best.wake_latency} ns (error {best.error:.2f},"
    yield f"   plateau at {best.plateau} Ps). What the hold lacks: the walk over spans that others sweep, sweepers that take the lock"
    yield "   too, cache lines that spinning threads take from the holder; none has a measured price."


def _against(ours: int) -> str:
    if 20 <= ours <= 24:
        return "within"
    return f"{20 - ours} below" if ours < 20 else f"{ours - 24} above"


def write(answer: Answer, folder: Path) -> Iterator[str]:
    """Write tables and plot; what was written, or why not."""
    parts: dict[str, Sequence[Any]]
    parts = {"alone": answer.alone, "benchmark": answer.benchmark, "sensitivity": answer.sensitivity}
    yield from study.write(folder, "mcentral_mutex", parts, lambda: _plot(answer))


def _plot(answer: Answer) -> Any:
    """Both parts side by side: throughput over Ps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for config, style in (("go1.19", "o-"), ("go1.14", "s-"), ("go1.19+mutex", "x--")):
        points = [point for point in answer.alone if point.config == config]
        left.plot([p.ps for p in points], [p.gib_per_second for p in points], style, label=config)
    left.set(title="allocation alone (simulated)", xscale="log", yscale="log", xlabel="Ps", ylabel="GiB/s")
    left.set_xticks(PS, [str(ps) for ps in PS])
    for name, label, style in (
        ("measured_sets", "span sets, measured", "C0o-"),
        ("each_fit_sets", "span sets, work fitted at each", "C0o:"),
        ("measured_mutex", "go1.14, measured", "C1s-"),
        ("each_fit_mutex", "go1.14, predicted so", "C1s:"),
        ("one_fit_mutex", "go1.14, predicted by the work of 1 P", "C2x:"),
    ):
        rows = [row for row in answer.benchmark if getattr(row, name) is not None and row.ps <= 32]
        right.plot([row.ps for row in rows], [getattr(row, name) / 1024 for row in rows], style, label=label)
    right.set(title="AllocKiB of commit a13691966ad5", xlabel="Ps", ylabel="GiB/s", ylim=(0, 45))
    for axes in (left, right):
        axes.legend(loc="upper left")
        axes.grid(alpha=0.3)
    return figure


main = study.command("mcentral_mutex", experiment, report, write, {"measured_mib_per_second": MEASURED})

if __name__ == "__main__":
    main()
