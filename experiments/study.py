"""What studies share: a service on a simulated program seen in windows of time, a live heap to begin with, tables, plots.

`Watch.until` lets time pass and tells what happened since the last look: mallocs and responses as histograms, where the
time of the Ps went, collections that ended. So what came before, a heap that fills and a pacer that learns, stays out.
"""

from __future__ import annotations

import csv
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from experiments import collector
from experiments.errors import InputError
from experiments.run import build
from sim.go.goroutine import Body, Goroutine
from sim.go.metrics import latency_counts
from sim.go.mstats import rss
from sim.go.state import CAUSES
from sim.metrics.cycles import Cycle
from sim.metrics.histogram import Summary, bucket_of_int, bucket_top, summarize
from sim.ops import ALLOC, NEEDZERO, NO_OBJ, OP, TOUCH
from sim.units import MS, SEC
from workloads.drive import Load
from workloads.scenario import Scenario, load
from workloads.spec import Service

_PERCENTILES = (50.0, 99.0, 99.9, 99.99)
NAMES = tuple(f"p{q:g}" for q in _PERCENTILES)
"""What the percentiles of `percentiles` are called."""
_BATCH = 4096
_SAMPLE = MS  # between two looks at the memory


@dataclass(frozen=True)
class Window:
    """What happened between two instants, picoseconds.

    ``counts``, ``spent``: of mallocs by cause, how many took how long and the sum. ``times``: of all Ps by kind.
    ``responses``: counts of requests that ended. ``cycles``: collections that ended. ``peak_heap``: of the live heap as
    the runtime counts it; ``peak_rss``: of the heap that memory stands behind; bytes.
    """

    begun: int
    ended: int
    procs: int
    counts: Any
    spent: Any
    responses: Any
    response_time: int
    times: Mapping[str, int]
    cycles: tuple[Cycle, ...]
    peak_heap: int
    peak_rss: int

    @property
    def seconds(self) -> float:
        """How long it was."""
        return (self.ended - self.begun) / SEC

    @property
    def cpu_seconds(self) -> float:
        """Of all Ps together."""
        return self.procs * self.seconds

    @property
    def mallocs(self) -> int:
        """How many mallocs ended."""
        return int(self.counts[0].sum())

    @property
    def requests(self) -> int:
        """How many requests ended."""
        return int(self.responses.sum())

    def malloc(self, cause: str = "all") -> Summary:
        """Latency of malloc, whole or of a cause."""
        at = CAUSES.index(cause)
        return _summary(self.counts[at], int(self.spent[at]))

    def response(self) -> Summary:
        """Response times."""
        return _summary(self.responses, self.response_time)

    def above(self, cause: str, picoseconds: int) -> int:
        """How many mallocs spent more than so long on a cause."""
        return int(self.counts[CAUSES.index(cause)][bucket_of_int(picoseconds) + 1 :].sum())

    @property
    def marking(self) -> float:
        """CPU seconds of marking by whoever did it."""
        kinds = ("assist", "gc_dedicated", "gc_fractional", "gc_idle")
        return sum(self.times[kind] for kind in kinds) / SEC

    def gc_share(self, idle_too: bool = False) -> float:
        """The collector's share of the Ps' time: marking and pauses, that of idle Ps only if asked for."""
        pauses = sum(cycle.pause_time for cycle in self.cycles) * self.procs / SEC
        free = 0.0 if idle_too else self.times["gc_idle"] / SEC
        return (self.marking - free + pauses) / self.cpu_seconds


def merged(windows: Sequence[Window]) -> Window:
    """Windows of several runs as one that follow each other: histograms and times add up, peaks are the highest."""
    first = windows[0]
    return Window(
        begun=0,
        ended=sum(one.ended - one.begun for one in windows),
        procs=first.procs,
        counts=sum(one.counts for one in windows),
        spent=sum(one.spent for one in windows),
        responses=sum(one.responses for one in windows),
        response_time=sum(one.response_time for one in windows),
        times={kind: sum(one.times[kind] for one in windows) for kind in first.times},
        cycles=tuple(cycle for one in windows for cycle in one.cycles),
        peak_heap=max(one.peak_heap for one in windows),
        peak_rss=max(one.peak_rss for one in windows),
    )


def _summary(counts: Any, total: int) -> Summary:
    """Of a difference of histograms: the largest value is the top of its bucket."""
    held = counts.nonzero()[0]
    return summarize(counts, total, bucket_top(int(held[-1])) if len(held) else 0, _PERCENTILES)


def percentiles(summary: Summary, unit: int) -> dict[str, float]:
    """The percentiles of a window's latency by `NAMES`, in a unit of so many picoseconds."""
    return {name: value / unit for name, value in zip(NAMES, summary.percentiles, strict=True)}


class Watch:
    """A world with a service, and how far it was looked at. ``live``: bytes that it holds from the start on."""

    def __init__(self, scenario: Scenario, live: int = 0, size: int = 256) -> None:
        assert isinstance(scenario.workload, Service)
        self.world = build(scenario)
        self.load = Load(self.world)
        if live:
            self.world.go(_hold, live // size, size, name="holder")
        self.load.start_service(scenario.workload, scenario.duration_ps, scenario.mallocs)
        self.peak_rss = 0
        self.world.env.process(self._sample())
        self._seen = self._state()
        self._since = 0

    def _sample(self) -> Any:
        while True:
            self.peak_rss = max(self.peak_rss, rss(self.world.heap))
            yield self.world.env.timeout(_SAMPLE)

    def _state(self) -> tuple[Any, Any, Any, int, dict[str, int], int]:
        world, response = self.world, self.load.response
        assert response is not None
        counts, spent, _ = latency_counts(world)
        times = [p.times() for p in world.sched.procs]
        kinds = {kind: sum(one[kind] for one in times) for kind in times[0]}
        return counts, spent, response.counts.copy(), response.total, kinds, len(world.gc.log.cycles)

    def until(self, time: int) -> Window:
        """Let the world run to an instant; what happened since the last one."""
        self.world.run(until=time)
        before, after = self._seen, self._state()
        self._seen = after
        cycles = tuple(self.world.gc.log.cycles[before[5] : after[5]])
        found = Window(
            begun=self._since,
            ended=time,
            procs=len(self.world.sched.procs),
            counts=after[0] - before[0],
            spent=after[1] - before[1],
            responses=after[2] - before[2],
            response_time=after[3] - before[3],
            times={kind: after[4][kind] - before[4][kind] for kind in after[4]},
            cycles=cycles,
            peak_heap=collector.peak_heap(self.world, cycles),
            peak_rss=self.peak_rss,
        )
        self._since, self.peak_rss = time, 0
        return found


def watch(text: str, live: int) -> Watch:
    """A watch of the scenario that a TOML text is, with so many bytes of live heap from the start on."""
    with tempfile.TemporaryDirectory(prefix="allocsim-") as folder:
        path = Path(folder) / "study.toml"
        path.write_text(text)
        return Watch(load(path), live)


def _hold(g: Goroutine, objects: int, size: int) -> Body:
    """Goroutine: allocate objects full of pointers that live for ever."""
    ops = np.zeros(_BATCH, OP)
    ops[:] = (ALLOC, NEEDZERO | TOUCH, NO_OBJ, size, size)
    while objects > 0:
        yield g.run(ops[: min(objects, _BATCH)])
        objects -= _BATCH


# Tables and plots


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> Iterator[str]:
    """Lines of right-aligned columns."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        yield "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))


def write(folder: Path, name: str, parts: Mapping[str, Sequence[Any]], plot: Callable[[], Any]) -> Iterator[str]:
    """Write records as ``name_part.csv`` and, with matplotlib, the figure of ``plot()`` as SVG and PNG; what was written,
    or why not. The same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        path = folder / f"{name}_{part}.csv"
        with path.open("w", newline="") as file:
            flat = [_flat(asdict(row)) for row in rows]
            writer = csv.DictWriter(file, list(flat[0]))
            writer.writeheader()
            writer.writerows(flat)
        yield f"wrote {path}"
    try:
        import matplotlib
    except ImportError:
        yield "no plot: matplotlib is not installed (pip install 'allocsim[plot]')"
        return
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = name
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text, and the file small
    figure = plot()
    for kind, metadata in (("svg", {"Date": None}), ("png", {"Software": None})):
        path = folder / f"{name}.{kind}"
        figure.savefig(path, metadata=metadata, dpi=120)
        yield f"wrote {path}"


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A record for CSV: ``latency`` that holds ``p50`` becomes ``latency_p50``."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        found |= {f"{name}_{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return found


def command(
    name: str,
    study: Callable[[], Any],
    report: Callable[[Any], Iterator[str]],
    write: Callable[..., Any],
    measured: Mapping[str, Any] | None = None,
) -> Any:
    """The command of a study: its tables on the terminal, or one JSON object, and its files with ``-o``.

    ``measured``: what the JSON says besides.
    """

    @click.command(name, context_settings={"help_option_names": ["-h", "--help"]}, help=study.__doc__)
    @click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Write tables and plot there.")
    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of tables.")
    def main(output: Path | None, as_json: bool) -> None:
        try:
            answer = study()
        except InputError as error:
            click.echo(f"{name}: {error}", err=True)
            sys.exit(2)
        if as_json:
            click.echo(json.dumps(asdict(answer) | dict(measured or {}), indent=1))
        else:
            click.echo("\n".join(report(answer)))
        if output is not None:
            for line in write(answer, output):
                click.echo(line, err=True)

    return main
