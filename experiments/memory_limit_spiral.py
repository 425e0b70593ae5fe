"""How a memory limit becomes a death spiral: ``python -m experiments.memory_limit_spiral [-o DIR] [--json]``.

Question (golang/go issues 58106 and 48409): a program leaks towards its GOMEMLIMIT. When does the collector take the CPU
over, how much of it, for how long until the container is out of memory anyway, and what would a least GOGC have done?

The guide's closed form, applied to a limit: a cycle comes whenever goal - live has been allocated, where the limit fixes
the goal, and costs as much as live takes to mark; so the collector's share of CPU is k * live / (goal - live). It has one
number, k, taken from the first second; it then says how much live heap makes half of the CPU time, and so when.

Simulated: a service on 4 Ps, 16,000 requests a second of 100 us and 400 mallocs (1.2 GiB a second: `HEAVY`), which keep
32 MiB of live heap and leak 4 MiB a second; the limit is 64 MiB and the container has a ninth more (limit = 90 % of it, as
automemlimit sets it). Policies: GOGC=100 without a limit; the limit with GOGC=100, and with GOGC=off; and with GOGC=off
and a *floor*, a tuner in the program that looks at /gc/heap/live and /memory/classes 100 times a second and raises the
limit so that the next cycle may begin at no less than live + 25 % or 50 %. The tuner, as a real one, uses
debug.SetMemoryLimit alone. A second service allocates a sixteenth of that (`LIGHT`).

Assumed: memory counts against the container as far as the heap (stacks included) has it from the system, less what the
runtime itself needs; what happens after it is used up is shown as if there were no container.

Outcome (seed 1): the form has the collector's share to a point or two up to 45 % of the CPU time, and says when it is half
of it within 0.2 s (4 % of the limit is left to live heap then). The service needs 57 % of the CPU: where the collector
takes more than the rest, requests queue up, what they hold is live as well, and within a second half of them is
served, the 99th percentile is at a quarter of a second and the container is lost. The limiter comes too late: at 80 % its
bucket takes two seconds to fill; then the collector is held to 53 %, and the heap grows far past the limit. The spiral
buys no time: with a floor of 25 % memory runs out half a second later (4.3 s, not 3.8), and the service is whole until
then, at the price of a third of the CPU time. A floor of 50 % costs a seventh of it and two thirds of the way (1.3 s). A
service that allocates little suffers for half a second at the limit; past it the collector runs without end, three tenths
of the CPU and whatever is idle, as in the trace of issue 58106 (there 32 % of 3 Ps, and 23 % more on idle ones).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import study
from sim.go.world import World
from sim.units import MIB, MS, SEC, format_size

PROCS = 4
LIMIT = 64 * MIB
CONTAINER = LIMIT * 10 // 9
LIVE = 32 * MIB
DURATION = 7 * SEC
WINDOW = 500 * MS
SEED = 1
HALF = 0.5
HEAVY = (16_000, "100us", 400, 0.25)  # requests a second, compute, mallocs, weight of the leak against 100
LIGHT = (8_000, "150us", 100, 2)
LOOK = 10 * MS  # of the tuner
HEADROOM = 0.97  # of its goal that the runtime leaves to the heap (memoryLimitHeapGoal)
_TEXT = """
purpose = "A service that leaks"
[runtime]
gomaxprocs = {procs}
gogc = {gogc}
memory_limit = "{limit}"
[run]
duration = "{duration}ps"
seed = {seed}
[workload]
kind = "service"
rate = {rate}
phases = [{{ compute = "{compute}", compute_dist = "exponential", mallocs = {mallocs} }}]
[[workload.objects]]
weight = 100
size = ["32B", "64B", "128B", "256B", "512B"]
pointers = 0.5
[[workload.objects]]  # the leak
weight = {leak}
size = "256B"
pointers = 1.0
lifetime = "immortal"
"""


@dataclass(frozen=True)
class Policy:
    """What a program is told about its memory. ``floor``: least GOGC of a tuner, 0 without one."""

    name: str
    gogc: str
    limited: bool
    floor: int = 0
    load: tuple[int, str, int, float] = HEAVY


POLICIES = (
    Policy("no limit, GOGC=100", "100", False),
    Policy("limit, GOGC=100", "100", True),
    Policy("limit, GOGC=off", '"off"', True),
    Policy("limit, off, floor 25", '"off"', True, 25),
    Policy("limit, off, floor 50", '"off"', True, 50),
    Policy("light, limit, off", '"off"', True, 0, LIGHT),
)


@dataclass(frozen=True)
class Row:
    """A window of one policy, up to ``seconds``. Shares are of the Ps' time, memory in MiB, at the window's end or peak."""

    policy: str
    seconds: float
    live_mib: float
    gc_share: float  # of marking by idle Ps too
    gc_share_busy: float
    assist_share: float
    form_gc_share: float | None  # None where the form has no sense any more
    cycles_per_second: float
    requests_per_second: float
    response_p50_ms: float
    response_p99_ms: float
    peak_heap_mib: float
    memory_mib: float
    limit_mib: float | None
    limiter: float  # how full its bucket is; the limiter is on while it is 1


@dataclass(frozen=True)
class Outcome:
    """What a policy came to; seconds, None where it did not happen."""

    policy: str
    half_at: float | None  # the collector first had half of the CPU time
    form_half_at: float | None
    limiter_at: float | None
    out_of_memory_at: float | None
    served_until_then: float  # of the requests that arrived
    worst_p99_ms_until_then: float
    largest_gc_share: float


@dataclass(frozen=True)
class Answer:
    """Everything the study says."""

    limit_mib: float
    container_mib: float
    rows: list[Row]
    outcomes: list[Outcome]


def experiment() -> Answer:
    """A service that leaks towards its GOMEMLIMIT: when and how the collector takes the CPU over, and what a floor does."""
    rows = [row for policy in POLICIES for row in run(policy)]
    outcomes = [outcome(policy, [row for row in rows if row.policy == policy.name]) for policy in POLICIES]
    return Answer(LIMIT / MIB, CONTAINER / MIB, rows, outcomes)


def tuner(world: World, least: int) -> Any:
    """Process: keep the limit where the next cycle begins at no less than live + ``least`` percent."""
    fields = world.heap.fields
    while True:
        yield world.env.timeout(LOOK)
        beside = int(fields.mapped_ready - fields.heap_free - (fields.total_alloc - fields.total_free))
        wanted = round(int(fields.heap_marked) * (100 + least) / 100 / HEADROOM) + beside
        limit = max(LIMIT, wanted)
        if limit != int(fields.memory_limit):
            world.gc.set_memory_limit(limit)


def start(policy: Policy) -> study.Watch:
    """A policy's service, about to begin."""
    rate, compute, mallocs, leak = policy.load
    text = _TEXT.format(
        procs=PROCS,
        gogc=policy.gogc,
        limit=f"{LIMIT}B" if policy.limited else "off",
        duration=DURATION,
        seed=SEED,
        rate=rate,
        compute=compute,
        mallocs=mallocs,
        leak=leak,
    )
    watch = study.watch(text, LIVE)
    if policy.floor:
        watch.world.env.process(tuner(watch.world, policy.floor))
    return watch


def run(policy: Policy) -> Iterator[Row]:
    """Its windows. The first second, but for the first window (the heap fills), gives the form its number."""
    watch = start(policy)
    fields = watch.world.heap.fields
    k = goal = 0.0
    for end in range(WINDOW, DURATION + 1, WINDOW):
        window = watch.until(end)
        live = int(fields.live_bytes)
        share = window.gc_share(idle_too=True)
        if policy.limited and not policy.floor and not k and end > WINDOW:
            goal = sum(cycle.heap_goal for cycle in window.cycles) / len(window.cycles)
            k = share * (goal - live) / live
        response = study.percentiles(window.response(), MS)
        limit = int(fields.memory_limit)
        yield Row(
            policy=policy.name,
            seconds=end / SEC,
            live_mib=live / MIB,
            gc_share=share,
            gc_share_busy=window.gc_share(),
            assist_share=window.times["assist"] / SEC / window.cpu_seconds,
            form_gc_share=min(k * live / (goal - live), 1.0) if k and live < goal else None,
            cycles_per_second=len(window.cycles) / window.seconds,
            requests_per_second=window.requests / window.seconds,
            response_p50_ms=response["p50"],
            response_p99_ms=response["p99"],
            peak_heap_mib=window.peak_heap / MIB,
            memory_mib=window.peak_rss / MIB,
            limit_mib=limit / MIB if limit < 1 << 50 else None,
            limiter=int(fields.limiter_fill) / max(int(fields.limiter_capacity), 1),
        )


def crossing(rows: list[Row], name: str, level: float) -> float | None:
    """When a column first reaches a level, seconds: on a line between the middles of windows; None if it never does."""
    before: tuple[float, float] | None = None
    for row in rows:
        value = getattr(row, name)
        at = row.seconds - WINDOW / SEC / 2
        if value is not None and value >= level:
            if before is None:
                return at
            return before[0] + (at - before[0]) * (level - before[1]) / (value - before[1])
        before = (at, value) if value is not None else None
    return None


def outcome(policy: Policy, rows: list[Row]) -> Outcome:
    """What became of a policy."""
    full = crossing(rows, "memory_mib", CONTAINER / MIB)
    until = [row for row in rows if full is None or row.seconds <= max(full, WINDOW / SEC)]
    limited = [row.seconds for row in rows if row.limiter >= 0.99]
    return Outcome(
        policy=policy.name,
        half_at=crossing(rows, "gc_share", HALF),
        form_half_at=crossing(rows, "form_gc_share", HALF),
        limiter_at=limited[0] if limited else None,
        out_of_memory_at=full,
        served_until_then=sum(row.requests_per_second for row in until) / len(until) / policy.load[0],
        worst_p99_ms_until_then=max(row.response_p99_ms for row in until),
        largest_gc_share=max(row.gc_share_busy for row in rows),
    )


def report(answer: Answer) -> Iterator[str]:
    """The text for the terminal."""
    yield (
        f"A limit of {answer.limit_mib:g} MiB, a container of {answer.container_mib:.0f} MiB, live heap from"
        f" {format_size(LIVE)} up by 4 MiB a second"
    )
    for policy in dict.fromkeys(row.policy for row in answer.rows):
        yield ""
        yield policy
        rows = [
            [
                f"{row.seconds:.1f}",
                f"{row.live_mib:.1f}",
                *_shares(row),
                f"{row.cycles_per_second:.0f}",
                f"{row.requests_per_second:.0f}",
                f"{row.response_p50_ms:.3g}",
                f"{row.response_p99_ms:.3g}",
                f"{row.memory_mib:.0f}{' *' if row.memory_mib > answer.container_mib else ''}",
                "-" if row.limit_mib is None else f"{row.limit_mib:.0f}",
                f"{100 * row.limiter:.0f} %",
            ]
            for row in answer.rows
            if row.policy == policy
        ]
        head = ["s", "live", "GC", "form", "busy Ps", "assists", "cycles/s", "requests/s", "p50 ms", "p99", "memory", "limit"]
        yield from study.table(rows, [*head, "limiter"])
    yield ""
    yield "* more than the container has"
    yield ""
    yield from study.table([_outcome(one) for one in answer.outcomes], _OUTCOME_HEAD)


_OUTCOME_HEAD = ["policy", "GC half at", "form", "limiter on", "out of memory", "served till then", "worst p99", "GC at most"]


def _shares(row: Row) -> list[str]:
    values = (row.gc_share, row.form_gc_share, row.gc_share_busy, row.assist_share)
    return ["-" if share is None else f"{100 * share:.1f} %" for share in values]


def _outcome(one: Outcome) -> list[str]:
    times = (one.half_at, one.form_half_at, one.limiter_at, one.out_of_memory_at)
    return [
        one.policy,
        *("-" if at is None else f"{at:.2f} s" for at in times),
        f"{100 * one.served_until_then:.0f} %",
        f"{one.worst_p99_ms_until_then:.3g} ms",
        f"{100 * one.largest_gc_share:.0f} %",
    ]


def write(answer: Answer, folder: Path) -> Iterator[str]:
    """Write tables and plot; what was written, or why not."""
    parts: dict[str, Any] = {"windows": answer.rows, "outcomes": answer.outcomes}
    yield from study.write(folder, "memory_limit_spiral", parts, lambda: _plot(answer))


def _plot(answer: Answer) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), layout="constrained")
    (gc, served), (memory, response) = figure.subplots(2, 2, sharex=True)
    styles = ("C7-", "C1--", "C3-", "C0-", "C2-")
    heavy = [policy for policy in dict.fromkeys(row.policy for row in answer.rows) if not policy.startswith("light")]
    for policy, style in zip(heavy, styles, strict=False):
        rows = [row for row in answer.rows if row.policy == policy]
        x = [row.seconds for row in rows]
        gc.plot(x, [100 * row.gc_share for row in rows], style, label=policy)
        served.plot(x, [row.requests_per_second / 1000 for row in rows], style)
        memory.plot(x, [row.memory_mib for row in rows], style)
        response.plot(x, [row.response_p99_ms for row in rows], style)
        if policy == "limit, GOGC=off":
            form = [None if row.form_gc_share is None else 100 * row.form_gc_share for row in rows]
            gc.plot(x, form, "k:", label="k live / (goal - live)")
            memory.plot(x, [row.live_mib for row in rows], "k-.", label="live")
    gc.set(title="the collector's CPU time, on idle Ps too", ylabel=f"% of {PROCS} Ps", ylim=(0, 102))
    served.set(title="requests served", ylabel="thousands a second", ylim=(0, None))
    memory.axhline(answer.container_mib, color="k", lw=0.8)
    memory.axhline(answer.limit_mib, color="k", lw=0.8, ls="--", label="limit; container")
    memory.set(title="memory", ylabel="MiB", xlabel="seconds")
    response.set(title="response, 99th percentile", ylabel="ms", xlabel="seconds", yscale="log")
    gc.legend(fontsize="small")
    memory.legend(fontsize="small")
    for axes in (gc, served, memory, response):
        axes.grid(alpha=0.3)
    return figure


main = study.command("memory_limit_spiral", experiment, report, write)

if __name__ == "__main__":
    main()
