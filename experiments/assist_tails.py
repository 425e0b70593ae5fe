"""Whose fault the tails are: ``python -m experiments.assist_tails [-o DIR] [--json]``.

Question (golang/go issue 56966; issues 27732, 40225; cockroachdb pull request 170731, which switches assists off by
default): how much of the tail of malloc and of response times is mark assists, how much sweeping, stops of the world,
page faults; and what if there were no assists, or fewer cycles with a larger GOGC?

Simulated: a service, each request a goroutine of 100 us and 400 mallocs (79 KiB), over 64 MiB of live heap. Part 1: on 8 Ps,
20,000 to 55,000 requests a second; allocation and load rise together. Part 2: on 1 to 16 Ps at 5,500 requests a second a P
and 8 MiB of live heap a P, so that the collector has the same part in each. Variants, under the same requests: as Go is; without
assists (the scenario's key ``assists``; the patch of issue 56966); GOGC=400.

*Slow mallocs* are those that take more than 5 us. A call is counted at each cause that alone took more than that; what no
cause explains alone is ``several``. A worker that marks on a P has its part in response times, not in malloc's: it takes
the P between two goroutines.

Assumed: what the machine file says of assists (30 ns to enter one) and of scanning a stack; marking is a stock of work that
any number of Ps can share.

Outcome: a goroutine that allocates while the collector marks must do at least 64 KiB of scan work or find as much credit,
each request anew. At a third of the load a quarter of the slow mallocs are assists and most are sweeping (a refill that
sweeps on its way to a span with room); near saturation, where no idle P marks and credit runs out, four in five: the
99.9th percentile of malloc is 2 to 6 us with them, 0.7 to 1 us without. Responses feel it exactly there: at 83 and 92 % busy
the 99th percentile falls by 48 and 34 % without assists, for a heap that peaks 15 and 22 % higher; below, seeds differ by more.
Issue 56966 has a factor of 20, on a machine and a program that are not described in full: the sign is right, the size is not
shown. GOGC=400 helps while there are idle Ps; near saturation its few cycles are as long as the others, nobody is slowed
down, a queue builds up, and the 99.9th percentile is 2 and 9 % better only: as that issue says, it is better for running
fewer cycles, not for better ones.
At a given load for each P assists are six to seven in ten of the slow mallocs whatever the number of Ps; stops of the world, a
malloc for each P at a time, are rarer by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import study
from sim.units import MIB, MS, NS, SEC, US, format_time

RATES = (20_000, 40_000, 50_000, 55_000)  # requests a second
RATES_ON = 8  # Ps
PROCS = (1, 2, 4, 8, 16)
RATE_PER_P = 5_500
LIVE_PER_P = 8 * MIB
WARM_UP = 300 * MS
WINDOW = 500 * MS
REQUESTS = 20_000  # in a window of part 2 at least
SEEDS = (1, 2, 3)
SLOW = 5 * US
CAUSES = ("assist", "assist_parked", "sweep", "stw", "gc_worker", "first_touch", "heap_wait", "grow", "off_p")
VARIANTS = {"as is": "", "no assists": "assists = false", "GOGC=400": "gogc = 400"}
_TEXT = """
purpose = "A service that allocates"
[runtime]
gomaxprocs = {procs}
{more}
[run]
duration = "{duration}ps"
seed = {seed}
[workload]
kind = "service"
rate = {rate}
phases = [{{ compute = "100us", compute_dist = "exponential", mallocs = 400 }}]
[[workload.objects]]
size = ["32B", "64B", "128B", "256B", "512B"]
pointers = 0.5
"""


@dataclass(frozen=True)
class Point:
    """A variant, its seeds together. Shares are of the Ps' time; ``slow``: mallocs of more than 5 us in a million, by cause and in all."""

    variant: str
    procs: int
    rate: int  # requests a second
    mallocs_per_second: float
    busy: float  # not idle, marking by idle Ps not counted
    gc_share: float  # without idle Ps
    cycles: int
    slow: dict[str, float]
    malloc_ns: dict[str, float]  # by percentile
    response_us: dict[str, float]
    response_p99_least_us: float  # of the seeds
    response_p99_most_us: float
    requests: int
    peak_mib: float


@dataclass(frozen=True)
class Answer:
    """Everything the study says."""

    by_rate: list[Point]
    by_procs: list[Point]


def experiment() -> Answer:
    """Tails of malloc and of responses by cause, with and without mark assists, over load and number of Ps."""
    by_rate = [measure(variant, RATES_ON, rate, WINDOW) for rate in RATES for variant in VARIANTS]
    by_procs = []
    for procs in PROCS:
        window = max(REQUESTS * SEC // (RATE_PER_P * procs), WINDOW // 2)
        by_procs += [measure(variant, procs, RATE_PER_P * procs, window) for variant in ("as is", "no assists")]
    return Answer(by_rate, by_procs)


def measure(variant: str, procs: int, rate: int, length: int, seeds: Sequence[int] = ()) -> Point:
    """Run a variant with each seed (default: SEEDS): what happened within ``length`` picoseconds after the warm-up."""
    windows = [_window(variant, procs, rate, length, seed) for seed in seeds or SEEDS]
    window = study.merged(windows)
    idle = (window.times["idle"] + window.times["gc_idle"]) / SEC / window.cpu_seconds
    p99 = [study.percentiles(one.response(), US)["p99"] for one in windows]
    return Point(
        variant=variant,
        procs=procs,
        rate=rate,
        mallocs_per_second=window.mallocs / window.seconds,
        busy=1 - idle,
        gc_share=window.gc_share(),
        cycles=len(window.cycles),
        slow=slow(window),
        malloc_ns=study.percentiles(window.malloc(), NS),
        response_us=study.percentiles(window.response(), US),
        response_p99_least_us=min(p99),
        response_p99_most_us=max(p99),
        requests=window.requests,
        peak_mib=window.peak_heap / MIB,
    )


def _window(variant: str, procs: int, rate: int, length: int, seed: int) -> study.Window:
    text = _TEXT.format(procs=procs, more=VARIANTS[variant], duration=WARM_UP + length, seed=seed, rate=rate)
    watch = study.watch(text, LIVE_PER_P * procs)
    watch.until(WARM_UP)
    return watch.until(WARM_UP + length)


def slow(window: study.Window) -> dict[str, float]:
    """Slow mallocs in a million, by the cause that alone made them so, and ``all``."""
    million = 1e6 / max(window.mallocs, 1)
    found = {cause: window.above(cause, SLOW) * million for cause in CAUSES}
    whole = window.above("all", SLOW) * million
    return {"all": whole, **found, "several": max(whole - sum(found.values()), 0.0)}


def report(answer: Answer) -> Iterator[str]:
    """The text for the terminal."""
    yield f"1. On {RATES_ON} Ps, {format_time(WINDOW)} of {len(SEEDS)} seeds each; mallocs of more than {format_time(SLOW)} in a million, by cause"
    yield from study.table([_row(one, f"{one.rate:,}") for one in answer.by_rate], ["requests/s", *_HEAD])
    yield ""
    yield f"2. At {RATE_PER_P:,} requests a second a P"
    yield from study.table([_row(one, str(one.procs)) for one in answer.by_procs], ["Ps", *_HEAD])
    yield from _verdict(answer)


_SHOWN = ("assist", "sweep", "stw", "first_touch")
_HEAD = ["variant", "busy", "GC", "slow", *_SHOWN, "others", "malloc p99.9", "p99.99", "response p99", "by seed", "p99.9", "peak"]


def _row(one: Point, first: str) -> list[str]:
    others = one.slow["all"] - sum(one.slow[cause] for cause in _SHOWN)
    return [
        first,
        one.variant,
        f"{100 * one.busy:.0f} %",
        f"{100 * one.gc_share:.1f} %",
        *(f"{one.slow[cause]:.1f}" for cause in ("all", *_SHOWN)),
        f"{max(others, 0.0):.1f}",
        *(format_time(one.malloc_ns[name] * NS) for name in ("p99.9", "p99.99")),
        format_time(one.response_us["p99"] * US),
        f"{one.response_p99_least_us:.0f}-{one.response_p99_most_us:.0f}",
        format_time(one.response_us["p99.9"] * US),
        f"{one.peak_mib:.0f}",
    ]


def _verdict(answer: Answer) -> Iterator[str]:
    by = {(one.variant, one.rate): one for one in answer.by_rate}
    yield ""
    for rate in RATES:
        as_is, none, larger = (by[variant, rate] for variant in VARIANTS)
        share = as_is.slow["assist"] / as_is.slow["all"]
        yield (
            f"At {rate:,} requests a second ({100 * as_is.busy:.0f} % busy) {100 * share:.0f} % of the slow mallocs are assists;"
            f" responses without them: {_change(none, as_is)}; with GOGC=400: {_change(larger, as_is)}."
        )


def _change(other: Point, one: Point) -> str:
    """What changes from one variant to another."""
    tails = (f"{name} {100 * (other.response_us[name] / one.response_us[name] - 1):+.0f} %" for name in ("p99", "p99.9"))
    return f"{', '.join(tails)}, peak {100 * (other.peak_mib / one.peak_mib - 1):+.0f} %"


def write(answer: Answer, folder: Path) -> Iterator[str]:
    """Write tables and plot; what was written, or why not."""
    parts = {"by_rate": answer.by_rate, "by_procs": answer.by_procs}
    yield from study.write(folder, "assist_tails", parts, lambda: _plot(answer))


def _plot(answer: Answer) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    (causes, response), (procs, peak) = figure.subplots(2, 2)
    rates = [one.rate / 1000 for one in answer.by_rate if one.variant == "as is"]
    _stack(causes, [f"{rate:g}k" for rate in rates], [one for one in answer.by_rate if one.variant == "as is"])
    causes.set(title=f"slow mallocs on {RATES_ON} Ps, by cause", xlabel="requests a second", ylabel="in a million")
    counts = [one for one in answer.by_procs if one.variant == "as is"]
    _stack(procs, [str(one.procs) for one in counts], counts)
    procs.set(title="slow mallocs at 5,500 requests a second a P", xlabel="Ps", ylabel="in a million")
    for variant, colour in zip(VARIANTS, ("C3", "C0", "C2"), strict=True):
        rows = [one for one in answer.by_rate if one.variant == variant]
        response.plot(rates, [one.response_us["p99"] for one in rows], f"{colour}o-", label=f"{variant}, p99")
        response.plot(rates, [one.response_us["p99.9"] for one in rows], f"{colour}s--", label=f"{variant}, p99.9")
        peak.plot(rates, [one.peak_mib for one in rows], f"{colour}o-", label=variant)
    response.set(title=f"response on {RATES_ON} Ps", xlabel="thousand requests a second", ylabel="us", yscale="log")
    peak.set(title=f"peak of the live heap on {RATES_ON} Ps", xlabel="thousand requests a second", ylabel="MiB", ylim=(0, None))
    for axes in (causes, response, procs, peak):
        axes.legend(fontsize="small")
        axes.grid(alpha=0.3)
    return figure


def _stack(axes: Any, labels: Sequence[str], points: Sequence[Point]) -> None:
    """Bars of slow mallocs, a colour a cause."""
    foot = [0.0] * len(points)
    for cause in _SHOWN:
        heights = [one.slow[cause] for one in points]
        axes.bar(labels, heights, bottom=foot, label=cause.replace("_", " "))
        foot = [low + height for low, height in zip(foot, heights, strict=True)]
    others = [max(one.slow["all"] - low, 0.0) for one, low in zip(points, foot, strict=True)]
    axes.bar(labels, others, bottom=foot, label="others, several")


main = study.command("assist_tails", experiment, report, write)

if __name__ == "__main__":
    main()
