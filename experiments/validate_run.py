"""Both sides of a validation: the generated program on the real runtime, and the same scenario simulated."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from experiments.run import Result, run
from experiments.toolchain import NoGo, Toolchain, command, program
from experiments.validate_figures import Numbers, Row, Seen, read_cycles
from experiments.validate_stream import Kind, Program, TableLoad, go_source
from sim.metrics.histogram import BUCKETS, bucket_of_int, bucket_top, summarize
from sim.units import NS, SEC
from workloads.scenario import Scenario
from workloads.scenario_record import GOGC_OFF, NO_LIMIT
from workloads.spec import Service

NOISE_MS = 200
_TIMEOUT = 600  # seconds that a run may take


@contextmanager
def replayer(go: Toolchain, kinds: Sequence[Kind]) -> Iterator[Path]:
    """The program, built with these types; NoGo if that fails."""
    with program(go, "replayer", files={"kinds.go": go_source(kinds)}) as built:
        yield built


def run_real(built: Path, scenario: Scenario, written: Program, traced: bool) -> tuple[Seen, dict[str, Any]]:
    """One run on the real runtime, with gctrace and gcpacertrace if asked for; what it printed besides.

    NoGo, one line, if it fails or has not run what was written.
    """
    counts = built.parent / "counts"
    arguments: list[str | Path] = [built, "-counts", counts]
    if isinstance(scenario.workload, Service):
        arguments.append("-service")
    done = _execute([*arguments, *written.files], _environment(scenario, traced))
    answer = json.loads(done.stdout)
    if tuple(answer["by_kind"]) != written.by_kind or answer["requests"] != written.requests:
        raise NoGo(f"{scenario.name}: the program made {answer['mallocs']} mallocs, and {written.mallocs} were written")
    rows = np.fromfile(counts, np.int64).reshape(-1, BUCKETS)
    lines = done.stderr.splitlines()
    cycles = [one for one in read_cycles(lines) if one.line.number <= answer["memstats"]["NumGC"]] if traced else None
    seen = Seen(
        malloc=Row(rows[0], answer["malloc_ps"], answer["malloc_max_ps"]),
        cycles=cycles,
        memstats=answer["memstats"],
        before=answer["memstats_begun"],
        begun=answer["begun_ns"],
        wall=answer["wall_ns"],
        procs=scenario.gomaxprocs,
        first_touch=answer["first_touch_ns"],
        pause_max=answer["pause_max_ns"],
        response=Row(rows[1], answer["response_ps"], answer["response_max_ps"]) if answer["requests"] else None,
    )
    if answer["requests"]:
        late = summarize(rows[2], answer["late_ps"], answer["late_max_ps"], (50.0, 99.0))
        answer["late_us"] = {
            "p50": late.percentiles[0] / 1e6,
            "p99": late.percentiles[1] / 1e6,
            "max": late.maximum / 1e6,
        }
    return seen, answer


def _environment(scenario: Scenario, traced: bool) -> dict[str, str]:
    """The environment that sets the runtime as the scenario says."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GO")}
    return kept | {
        "GODEBUG": "gctrace=1,gcpacertrace=1" if traced else "",
        "GOMAXPROCS": str(scenario.gomaxprocs),
        "GOGC": "off" if scenario.gogc == GOGC_OFF else str(scenario.gogc),
        "GOMEMLIMIT": "off" if scenario.memory_limit == NO_LIMIT else f"{scenario.memory_limit}B",
    }


def _execute(arguments: Sequence[str | Path], env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        # lines go to a file, so that no reader is woken while the program runs
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as told:
            done = subprocess.run(
                arguments, env=env, stdout=subprocess.PIPE, stderr=told, text=True, check=False, timeout=_TIMEOUT
            )
            told.seek(0)
            done.stderr = told.read()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoGo(f"the program did not run: {error}") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("gc ", "pacer: "))]
        raise NoGo(f"the program failed: {(lines or [f'exit status {done.returncode}'])[0]}")
    return done


def simulate(scenario: Scenario, written: Program) -> tuple[Seen, Result]:
    """The same simulated."""
    result = run(scenario, load_of=lambda world: TableLoad(world, written))
    every, response = result.latency["all"], result.response
    seen = Seen(
        malloc=Row(result.counts["all"], every.total, every.maximum),
        cycles=read_cycles(result.gcdebug),
        memstats=result.memstats,
        before={"NumGC": 0, "TotalAlloc": 0, "PauseTotalNs": 0},
        begun=0,
        wall=round(result.metrics["/sim/time:seconds"] * SEC) // NS,
        procs=scenario.gomaxprocs,
        first_touch=result.metrics["/sim/time/first-touch-by-program:cpu-seconds"] * 1e9,
        pause_max=max((cycle.pause_time for cycle in result.cycles), default=0) // NS,
        response=Row(result.counts["response"], response.total, response.maximum) if response else None,
    )
    return seen, result


# The machine's own interruptions


@dataclass(frozen=True, slots=True)
class Noise:
    """What interrupts a CPU that only reads the clock: gaps above a microsecond, of all CPUs together."""

    seconds: float
    gaps_ns: Numbers

    @property
    def a_second(self) -> float:
        """How many a second and CPU."""
        return len(self.gaps_ns) / self.seconds

    @property
    def share(self) -> float:
        """Of the time."""
        return float(self.gaps_ns.sum()) / 1e9 / self.seconds

    def to_dict(self) -> dict[str, float]:
        """Its figures."""
        longest = float(max(self.gaps_ns, default=0.0)) / 1000
        rate = {"seconds": self.seconds, "a_second": self.a_second}
        return rate | middle_and_tail(self.gaps_ns) | {"max_us": longest, "share": self.share}


def middle_and_tail(lengths_ns: Any) -> dict[str, float]:
    """Median and 99th percentile of some lengths, in microseconds; 0 if there are none."""
    lengths = lengths_ns if len(lengths_ns) else np.zeros(1)
    quantiles = {"p50_us": 0.5, "p99_us": 0.99}
    return {name: float(np.quantile(lengths, q, method="inverted_cdf")) / 1000 for name, q in quantiles.items()}


def together(noises: Sequence[Noise]) -> Noise:
    """What was measured at several times as one."""
    return Noise(sum(one.seconds for one in noises), np.concatenate([one.gaps_ns for one in noises]))


def measure_noise(built: Path) -> Noise:
    """Read the clock on each CPU in turn, for a short time."""
    cpus = json.loads(command([built, "-noise", f"{NOISE_MS}ms"]))
    gaps = np.array([gap for cpu in cpus for gap in cpu["gaps_ns"]], float)
    return Noise(sum(cpu["seconds"] for cpu in cpus), gaps)


def interrupted(row: Row, noise: Noise, seed: int) -> Row:
    """Calls as they would have been seen on a CPU that is interrupted so, at random; the same seed, the same calls.

    Each call of a bucket meets a Poisson number of interruptions, by how long it takes, each as long as one of those
    that were measured.
    """
    counts = row.counts.astype(np.int64).copy()
    random = np.random.Generator(np.random.Philox(seed))
    total, longest = row.total, row.maximum
    for bucket in np.flatnonzero(row.counts):
        calls, top = int(row.counts[bucket]), bucket_top(int(bucket))
        rate = noise.a_second * top / SEC
        if rate > 0.01:
            met = random.poisson(rate, calls)
            met = met[met > 0]
        else:  # hardly any meets two
            met = np.ones(random.binomial(calls, -np.expm1(-rate)), np.int64)
        hit = len(met)
        if not hit or not len(noise.gaps_ns):
            continue
        each = np.repeat(np.arange(hit), met)
        lengths = np.round(1000 * random.choice(noise.gaps_ns, len(each))).astype(np.int64)
        extra = np.bincount(each, lengths, hit).astype(np.int64)
        counts[bucket] -= hit
        for one in extra:
            counts[bucket_of_int(top + int(one))] += 1
        total += int(extra.sum())
        longest = max(longest, top + int(extra.max()))
    return Row(counts, total, longest)


# Tails


THRESHOLDS = (1_000_000, 10_000_000, 100_000_000)
"""Picoseconds above which mallocs are counted."""


def tails(real: Sequence[Row], simulated: Result, seen: Row) -> list[dict[str, Any]]:
    """How many of a million mallocs take longer than each threshold, and which causes alone do in the model.

    Real: the median of some runs, with the least and the most. Simulated: alone, and ``seen`` with interruptions.
    """
    found = []
    for threshold in THRESHOLDS:
        first = bucket_of_int(threshold) + 1
        ours = {
            cause: 1e6 * int(row[first:].sum()) / int(simulated.counts["all"].sum())
            for cause, row in simulated.counts.items()
            if cause not in ("response", "run_queue")
        }
        by_cause = {cause: rate for cause, rate in ours.items() if rate and cause != "all"}
        runs = [_above(row, first) for row in real]
        found.append(
            {
                "above_us": threshold / 1e6,
                "real": median(runs),
                "low": min(runs),
                "high": max(runs),
                "simulated": ours["all"],
                "interrupted": _above(seen, first),
                "by_cause": dict(sorted(by_cause.items(), key=lambda one: -one[1])),
            }
        )
    return found


def _above(row: Row, first: int) -> float:
    """How many of a million calls lie in a bucket and those above it."""
    return 1e6 * int(row.counts[first:].sum()) / int(row.counts.sum())
