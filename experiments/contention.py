"""Where allocators stop scaling: ``python -m experiments.contention [-o DIR] [--json]``.

Question: how does throughput grow with the number of threads, a CPU each, when the allocator is a free list behind one
lock, TCMalloc with a cache a thread, or Go's with a cache a P; and where does each stop?

Simulated: one program, shared out among 1 to 64 threads (goroutines on as many Ps). Each computes, with exponential
times, and allocates, ten sizes of 16 B to 1 KiB in equal shares, half of them with pointers; all together keep `LIVE`
objects alive, so that the heap is as large for 1 thread as for 64. Two loads: 1 us of work before each malloc, and
none. The same streams for every model; counted over `WINDOW` mallocs after some turnovers of all objects. On threads
an object is freed by the one that allocated it; Go collects, at GOGC=100, and at 400 to tell the collector from the rest.

*A model stops scaling* at the least number of threads whose doubling adds less than `LEAST` to its throughput.

*Ceiling*: what the busiest lock allows, 1 / (time that a malloc and its share of frees hold it, and at a lock that
queues, on threads, the hand-off to who waited), as the run had it. *Knee*: the ceiling over the throughput of one
thread. That is the asymptotic bound of a closed queueing network (Denning and Buzen 1978): throughput is at most
min(N * X(1), 1 / D), and the two lines cross at N = (think + hold) / hold.

Prices: those of `MACHINE`, for threads and for Go; the lock's own hold and hand-off of the textbook lists and steps of
runtime locks are assumed, as their files say. Left out: what threads that spin or share cache lines do to others,
queues for memory of the system (mmap_lock), and a memory bus.

Outcome (seed 1; table and figure in contention.md). With 1 us of work the lists stop at 2 threads (first fit, whose
searches grow longer with the time) and 4 (segregated fit), and come to 1.5 and 3.8 million mallocs a second; the knee
of the bounds lies at 1.6 and 4.1. With no work two threads get less than one, who has no hand-off to wait for.
TCMalloc grows in proportion up to 64 with either load: each object goes back to the cache that it came from, which no
other program is as kind as to do. Go does so up to 16 Ps with work, and stops at 32, where it gets less at 64 than at 32; that is
the collector, not a lock: what 64 Ps have cached, a span of each of 20 span classes, counts as full and uses up most of
what a heap of 7.5 MiB may grow by, so that one cycle follows the other, and each stops all Ps and wakes them one by one.
With no work go1.27 stops at 8 and go1.14 at 16. GOGC=400 takes it to 64 with either load.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments import study
from experiments.collector import cpu_time
from experiments.compare_models import thread_world
from experiments.machine import load_machine
from sim.go.world import World
from sim.threads.world import ThreadWorld
from sim.units import NS, SEC, US
from workloads.drive import Load
from workloads.drive_threads import WorkerLoad
from workloads.mixes import ten_sizes
from workloads.spec import Workers

MACHINE = "epyc-2core"
MODELS = ("first-fit", "segregated-fit", "tcmalloc", "go1.14", "go1.27", "go1.27 GOGC=400")
THREADS = (1, 2, 4, 8, 16, 32, 64)
THINKS = (1000, 0)  # mean nanoseconds of work before a malloc
LIVE = 32_768
WARM_UP = 16 * LIVE  # mallocs: by then Go has used all the memory it will, at GOGC=400 too
WARM_UP_EACH = 30_000  # and so many more a thread: lists of TCMalloc caches grow slowly at first
WINDOW = 1_200_000
LEAST = 0.2
SEED = 1
_STEP = 640 * US  # between two looks, of one thread's time


@dataclass(frozen=True)
class Point:
    """One run. ``ceiling``: mallocs a second that the busiest lock allows, None if none was ever held."""

    model: str
    think_ns: int
    threads: int
    mallocs_per_second: float
    lock_wait: float  # of the threads' time
    gc_share: float  # of it, without marking on idle Ps
    ceiling: float | None


@dataclass(frozen=True)
class End:
    """Where a model stops scaling, None if it does not; and the knee of the bounds, of its ceiling at most threads."""

    model: str
    think_ns: int
    stops: int | None
    knee: float | None


@dataclass(frozen=True)
class Answer:
    """Everything the study says."""

    machine: str
    points: list[Point]
    ends: list[End]


@dataclass(frozen=True)
class _Seen:
    """Sums so far: mallocs, and picoseconds of waiting, of the collector, and of each lock's holds and hand-offs."""

    mallocs: int
    waited: int
    collected: int
    held: tuple[int, ...]


class _OnThreads:
    """A world of threads with workers on it."""

    def __init__(self, world: ThreadWorld, workers: Workers) -> None:
        self.world = world
        self._load = WorkerLoad(world, workers, None)

    def run(self, until: int) -> None:
        self._load.advance(until)

    def seen(self) -> _Seen:
        locks = self.world.clock.arrays["locks"]
        held = locks["hold_time"] + locks["holds"] * self.world.prices.handoff
        return _Seen(self.world.mallocs, int(locks["wait_time"].sum()), 0, tuple(held.tolist()))


class _OnGo:
    """A Go program with workers on it."""

    def __init__(self, world: World, workers: Workers) -> None:
        self.world = world
        Load(world).start_workers(workers, None)

    def run(self, until: int) -> None:
        self.world.run(until=until)

    def seen(self) -> _Seen:
        world = self.world
        locks = [world.heap_lock, *world.central_locks]
        waited = sum(lock.total_wait for lock in locks)
        return _Seen(
            world.mallocs, waited, cpu_time(world, world.gc.log.cycles), tuple(lock.total_hold for lock in locks)
        )


def program(threads: int, think: int) -> Workers:
    """The program shared out among so many threads; ``think`` in picoseconds."""
    mix = replace(ten_sizes(max(LIVE // threads, 1)), think=think, think_dist="exponential")
    return Workers(threads, mix)


def start(model: str, threads: int, think: int) -> _OnThreads | _OnGo:
    """A model with the program on it, about to begin. ``go1.27 GOGC=400`` is a version with that setting."""
    workers = program(threads, think)
    if not model.startswith("go"):
        return _OnThreads(thread_world(model, threads, threads, MACHINE, SEED), workers)
    version, _, gogc = model.partition(" GOGC=")
    return _OnGo(World(version, threads, load_machine(MACHINE, version), SEED, gogc=int(gogc or 100)), workers)


def measure(model: str, threads: int, think_ns: int) -> Point:
    """Run a model with so many threads: throughput and waits in the window."""
    running = start(model, threads, think_ns * NS)
    now, step = 0, _STEP // threads
    while running.seen().mallocs < WARM_UP + WARM_UP_EACH * threads:
        now += step
        running.run(now)
    begun, before = now, running.seen()
    while (after := running.seen()).mallocs < before.mallocs + WINDOW:
        now += step
        running.run(now)
    mallocs, whole = after.mallocs - before.mallocs, threads * (now - begun)
    busiest = max(b - a for a, b in zip(before.held, after.held, strict=True))
    return Point(
        model=model,
        think_ns=think_ns,
        threads=threads,
        mallocs_per_second=mallocs * SEC / (now - begun),
        lock_wait=(after.waited - before.waited) / whole,
        gc_share=(after.collected - before.collected) / whole,
        ceiling=mallocs * SEC / busiest if busiest else None,
    )


def stops(rates: dict[int, float]) -> int | None:
    """The least number of threads whose doubling adds less than `LEAST`; None if every doubling adds that."""
    return next((n for n in sorted(rates) if 2 * n in rates and rates[2 * n] < (1 + LEAST) * rates[n]), None)


def _end(points: Sequence[Point]) -> End:
    """Of a model's points under one load, in order of threads."""
    first, last = points[0], points[-1]
    knee = None if last.ceiling is None else last.ceiling / first.mallocs_per_second
    rates = {point.threads: point.mallocs_per_second for point in points}
    return End(first.model, first.think_ns, stops(rates), knee)


def experiment() -> Answer:
    """Throughput of free lists behind one lock, TCMalloc and Go at 1 to 64 threads, and where each stops scaling."""
    curves = [[measure(model, n, think) for n in THREADS] for think in THINKS for model in MODELS]
    return Answer(MACHINE, [point for curve in curves for point in curve], [_end(curve) for curve in curves])


def _title(think_ns: int) -> str:
    return f"{think_ns} ns of work before each malloc" if think_ns else "nothing but mallocs"


def _curves(answer: Answer, think_ns: int) -> dict[str, list[Point]]:
    """Points under one load by model."""
    found: dict[str, list[Point]] = {}
    for point in answer.points:
        if point.think_ns == think_ns:
            found.setdefault(point.model, []).append(point)
    return found


def _rows(answer: Answer, think_ns: int) -> tuple[list[str], list[list[str]]]:
    """Heading and rows of one load: throughput by threads, what bounds it, where it stops."""
    curves = _curves(answer, think_ns)
    ends = {end.model: end for end in answer.ends if end.think_ns == think_ns}
    rows = []
    for model, points in curves.items():
        last, end = points[-1], ends[model]
        rows.append(
            [
                model,
                *(f"{point.mallocs_per_second / 1e6:.2f}" for point in points),
                f"{100 * last.lock_wait:.0f} %",
                f"{100 * last.gc_share:.0f} %",
                "-" if last.ceiling is None else f"{last.ceiling / 1e6:.3g}",
                "-" if end.knee is None else f"{end.knee:.3g}",
                f"at {end.stops}" if end.stops else f"not up to {last.threads}",
            ]
        )
    counts = [str(point.threads) for point in next(iter(curves.values()))]
    return ["model", *counts, "lock waits", "GC", "ceiling", "knee", "stops scaling"], rows


_LEGEND = (
    "Million mallocs a second by threads. At the most threads: share of their time that waits for locks, share that",
    "collects, and the ceiling of the busiest lock; knee: threads at which the bounds cross.",
)


def report(answer: Answer) -> Iterator[str]:
    """The text for the terminal."""
    for think_ns in dict.fromkeys(end.think_ns for end in answer.ends):
        yield f"{_title(think_ns)}, {LIVE:,} objects live, prices of {answer.machine}"
        head, rows = _rows(answer, think_ns)
        yield from study.table(rows, head)
        yield ""
    yield from _LEGEND
    yield f"A model stops scaling where twice the threads add less than {100 * LEAST:.0f} %."


def page(answer: Answer) -> Iterator[str]:
    """The same as Markdown, beside the plot."""
    yield "# Where allocators stop scaling"
    yield ""
    yield f"What was simulated, and whose prices these are, says `experiments/contention.py`, which writes this page. {_LEGEND[0]}"
    yield f"{_LEGEND[1]} A model stops scaling where twice the threads add less than {100 * LEAST:.0f} %."
    yield ""
    yield "    python -m experiments.contention -o experiments"
    yield ""
    yield "![throughput by number of threads](contention.svg)"
    for think_ns in dict.fromkeys(end.think_ns for end in answer.ends):
        yield ""
        yield f"## {_title(think_ns)[0].upper()}{_title(think_ns)[1:]}, {LIVE:,} objects live"
        yield ""
        head, rows = _rows(answer, think_ns)
        for row in (head, ["---"] * len(head), *rows):
            yield f"| {' | '.join(row)} |"


def write(answer: Answer, folder: Path) -> Iterator[str]:
    """Write page, table and plot; what was written, or why not."""
    yield from study.write(folder, "contention", {"points": answer.points}, lambda: _plot(answer))
    path = folder / "contention.md"
    fresh = path.with_suffix(".md.new")
    fresh.write_text("\n".join(page(answer)) + "\n")
    os.replace(fresh, path)
    yield f"wrote {path}"


def _plot(answer: Answer) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    thinks = list(dict.fromkeys(end.think_ns for end in answer.ends))
    for axes, think_ns in zip(figure.subplots(1, len(thinks), squeeze=False)[0], thinks, strict=True):
        _panel(axes, answer, think_ns)
    return figure


def _panel(axes: Any, answer: Answer, think_ns: int) -> None:
    """Throughput over threads under one load; a ring where a model stops, a line at the ceiling that it came to."""
    ends = {end.model: end.stops for end in answer.ends if end.think_ns == think_ns}
    for (model, points), mark in zip(_curves(answer, think_ns).items(), "osD^vx", strict=False):
        rates = {point.threads: point.mallocs_per_second / 1e6 for point in points}
        (line,) = axes.plot(list(rates), list(rates.values()), f"{mark}-", label=model)
        stop, ceiling = ends[model], points[-1].ceiling
        if stop:
            axes.plot(stop, rates[stop], "o", markersize=14, fillstyle="none", color=line.get_color())
        if ceiling is not None and points[-1].mallocs_per_second > 0.9 * ceiling:
            axes.axhline(ceiling / 1e6, linestyle=":", linewidth=1, color=line.get_color())
    counts = list(rates)
    axes.plot(counts, [rates[counts[0]] * n / counts[0] for n in counts], "k:", linewidth=1, label="in proportion")
    axes.set(
        title=_title(think_ns), xscale="log", yscale="log", xlabel="threads, or Ps", ylabel="million mallocs a second"
    )
    axes.set_xticks(counts, [str(n) for n in counts])
    axes.minorticks_off()
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)


main = study.command("contention", experiment, report, write)

if __name__ == "__main__":
    main()
