"""Fit a scenario to a recorded program, and run it: recorded against simulated, figure by figure.

What a worker computes before each malloc is not recorded. It is what makes the simulated program allocate as fast as
the recorded one: from an estimate, each run corrects it by the difference of the times that a malloc took and should,

    think += goroutines * bytes a malloc * (1 / recorded rate - 1 / simulated rate),

until the rates are within `CLOSE`, or after `RUNS` runs. Where nothing tells which objects hold pointers, but a log
tells the CPU time of collections, the share of those that do is adjusted likewise, so that marking a byte takes as long
as recorded. Nothing else is adjusted to what a run showed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.run import Result, run
from sim.units import SEC
from workloads.fit import GUESS
from workloads.fit_scenario import Draft, described, draft
from workloads.gotrace_model import TraceError
from workloads.heapcycles import Figures, allocated, figures, mark_cost, of_simulated
from workloads.recording import Recording, gather
from workloads.scenario_record import ScenarioError
from workloads.spec import Workers

RUNS = 6
CLOSE = 0.01
_MB = 1e6

NAMES = {
    "cycles": "cycles begun by themselves",
    "trigger": "heap at trigger, MB, mean",
    "marked": "heap marked, MB, mean",
    "goal": "goal, MB, mean",
    "gc_share": "GC share of CPU time, %",
    "rate": "allocated, MB/s",
}


@dataclass(frozen=True)
class Fitted:
    """A scenario file, and, if it was run, the figures of record and run; ``recorded`` is None without cycles.

    ``met``: the figures that are equal because they were made to be.
    """

    text: str
    cautions: tuple[str, ...]
    recorded: Figures | None
    simulated: Figures | None
    rates: tuple[float, float] | None  # bytes a second wanted and simulated
    met: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """The shape of ``allocsim fit --json``."""
        return {
            "scenario": self.text,
            "cautions": list(self.cautions),
            "recorded": asdict(self.recorded) if self.recorded else None,
            "simulated": asdict(self.simulated) if self.simulated else None,
            "met": list(self.met),
        }


def fit(
    sources: Sequence[str],
    *,
    sets: Sequence[str] = (),
    seconds: float | None = None,
    simulate: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Fitted:
    """Fit a scenario to what some sources recorded, and run it unless told not to; InputError if that cannot be."""
    try:
        recorded = gather(sources, seconds)
        first = draft(recorded, sets)
    except (ScenarioError, TraceError) as error:
        raise InputError(str(error)) from None
    except ValueError as error:
        what = str(error)
        raise InputError(
            what if any(what.startswith(str(Path(one))) for one in sources) else f"{sources[0]}: {what}"
        ) from None
    head = described(first.fit, recorded)
    if not simulate:
        return Fitted(first.text(head), first.cautions, None, None, None, ())
    found, result, rate, unmet = _calibrated(first, recorded, sets, tell)
    cautions = [*first.cautions, *unmet]
    length = (result.scenario.duration_ps or 0) / SEC
    begun = 0.0 if recorded.whole or not recorded.cycles else recorded.cycles[0].end
    seen = [one for one in recorded.cycles if one.end - begun <= length * (1 + 1e-9)]
    simulated = of_simulated(result.cycles, result.scenario.version, exact=recorded.exact)
    procs = result.scenario.gomaxprocs
    met = ("rate", *(["gc_share"] if first.guessed and recorded.cycles else []))
    try:
        ours = figures(simulated, procs, length, whole=True) if recorded.cycles else None
        theirs = figures(seen, procs, begun + length, whole=recorded.whole) if recorded.cycles else None
    except ValueError as error:
        cautions.append(f"record and run cannot be compared: {error}")
        ours = theirs = None
    return Fitted(found.text(head), tuple(cautions), theirs, ours, (first.fit.rate, rate), met)


@dataclass
class _Tuner:
    """What a run shows, and what to change for it: the think time, and the share of pointers where that is a guess.

    ``rate``: bytes a second wanted; ``cost``: seconds that marking a byte should take, None if pointers are told, or it
    is not. ``seen``: the last share of pointers, and what marking a byte took with it; ``slope``: what it takes more for
    all pointers than for none.
    """

    recorded: Recording
    rate: float
    cost: float | None
    seen: tuple[float, float] | None = None
    slope: float | None = None

    @property
    def off(self) -> float:
        """Relative error of what marking a byte took."""
        return abs(self.seen[1] / self.cost - 1) if self.seen is not None and self.cost is not None else 0.0

    def think(self, result: Result, workload: Workers) -> tuple[int, float]:
        """The next think time, and the rate of this run."""
        rate, each = _rate(result, self.recorded)
        off = workload.goroutines * each * (1 / self.rate - 1 / rate) * SEC
        return max(round(workload.mix.think + off), 0), rate

    def pointers(self, result: Result, share: float) -> float | None:
        """The next share of pointers, along the line through the last two runs that differ (a first slope is a guess)."""
        ours = mark_cost(of_simulated(result.cycles, result.scenario.version, exact=True))
        if self.cost is None or ours is None:
            return None
        if self.seen is None or self.slope is None:
            self.slope = 1.4 * ours
        elif abs(share - self.seen[0]) > 2 * CLOSE:
            self.slope = max((ours - self.seen[1]) / (share - self.seen[0]), ours / 2)
        self.seen = share, ours
        return min(max(share + (self.cost - ours) / self.slope, 0.0), 1.0)


def _calibrated(
    first: Draft, recorded: Recording, sets: Sequence[str], tell: Callable[[str], None]
) -> tuple[Draft, Result, float, list[str]]:
    """The draft with values that meet its rate and cost of marking, the run that shows it, its rate, and cautions."""
    now, share = first, GUESS
    tuner = _Tuner(recorded, first.fit.rate, mark_cost(recorded.cycles) if first.guessed else None)
    for i in range(RUNS):
        tell(f"running the scenario, {i + 1} of at most {RUNS} times ...")
        scenario = now.scenario()
        workload = scenario.workload
        assert isinstance(workload, Workers)
        result = run(scenario)
        think, rate = tuner.think(result, workload)
        pointers = tuner.pointers(result, share)
        close = abs(rate / first.fit.rate - 1) <= CLOSE or think == workload.mix.think
        if i == RUNS - 1 or (close and (pointers in (None, share) or tuner.off < 2 * CLOSE)):
            break
        following = now.with_values(think, pointers, sets)
        if following.raw == now.raw:
            break  # they were set
        now, share = following, share if pointers is None else pointers
    return now, result, rate, list(_unmet(now, rate, tuner))


def _rate(result: Result, recorded: Recording) -> tuple[float, float]:
    """Bytes a second of a run, counted as those recorded were: by cycles if there are some; and bytes a malloc."""
    seconds = float(result.metrics["/sim/time:seconds"])
    rate = float(result.metrics["/gc/heap/allocs:bytes"]) / seconds
    if recorded.cycles and result.cycles:
        nbytes, until = allocated(of_simulated(result.cycles, result.scenario.version, exact=True), whole=True)
        rate = nbytes / until
    return rate, rate * seconds / max(int(result.metrics["/sim/mallocs:objects"]), 1)


def _unmet(found: Draft, rate: float, tuner: _Tuner) -> Iterator[str]:
    """What could not be met, a line each."""
    if abs(rate / tuner.rate - 1) > 2 * CLOSE:
        workload = found.raw["workload"]
        yield (
            f"the scenario allocates {rate / _MB:.4g} MB a second, the recorded program {tuner.rate / _MB:.4g}, with"
            f" {workload['think']} before each malloc of {workload['goroutines']} goroutines"
        )
    if tuner.cost is not None and tuner.seen is not None and tuner.off > 5 * CLOSE:
        share, ours = tuner.seen
        yield (
            f"collecting takes {ours * _MB * 1e3:.2g} ms of CPU time for each MB marked, {tuner.cost * _MB * 1e3:.2g}"
            f" in the record, with {100 * share:.0f} % of the objects full of pointers"
        )


def table(found: Fitted) -> list[tuple[str, str, str, str]]:
    """Recorded against simulated as rows of text, the first one the heading. Empty if it was not run."""
    rows = [("", "recorded", "simulated", "error")]
    if found.recorded is not None and found.simulated is not None:
        theirs, ours = asdict(found.recorded), asdict(found.simulated)
        for name, label in NAMES.items():
            unit = 100 if name == "gc_share" else 1 / _MB if name != "cycles" else 1
            rows.append(_row(f"{label}{' *' if name in found.met else ''}", theirs[name], ours[name], unit))
    elif found.rates is not None:
        rows.append(_row(f"{NAMES['rate']} *", *found.rates, 1 / _MB))
    return rows if len(rows) > 1 else []


def _row(label: str, theirs: float | None, ours: float | None, unit: float) -> tuple[str, str, str, str]:
    texts = ["-" if x is None else f"{x * unit:.4g}" for x in (theirs, ours)]
    error = "-" if not theirs or ours is None else f"{100 * (ours / theirs - 1):+.1f} %"
    return label, *texts, error  # type: ignore[return-value]
