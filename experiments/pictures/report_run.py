"""The report of a stored run: pictures, tables, settings, what to beware of, how it was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from experiments.errors import visible
from experiments.pictures import of_runs, page
from experiments.pictures.of_runs import Stored
from experiments.render import CAUSES, CYCLE_HEAD, cycle_cells, memory_rows, percent, where_rows
from sim.units import SEC, format_time

_TIMES = ("mean", "p50", "p90", "p99", "p99.9", "p99.99", "max")


def page_of(directory: str) -> str:
    """The page of a stored result; InputError if there is none."""
    run = of_runs.read_runs([directory])[0]
    summary = run.summary
    title = f"{visible(summary['scenario'])}: {visible(summary['config']['purpose'])}"
    lead = page.beware(list(_cautions(summary))) + _settings_line(summary) + page.figures(_figures(summary))
    return page.page(title, lead, _sections(run))


def _sections(run: Stored) -> Iterator[tuple[str, str]]:
    summary = run.summary
    yield "Latency of malloc", _latency(run)
    if run.histograms.get("response"):
        yield "Response times", _response(run)
    yield "The heap over time", _heap(run)
    yield "Where the time and the memory went", _where(summary)
    yield "How far to trust this", _trust(summary)
    yield "How it was made", _made(run)
    yield "Every figure", page.hidden(f"{len(summary['metrics'])} metrics", _metrics(summary["metrics"]))


def _cautions(summary: Mapping[str, Any]) -> Iterator[str]:
    if summary["cut_short"]:
        after = format_time(summary["metrics"]["/sim/time:seconds"] * SEC)
        yield f"The run was cut short after {after}: this is what there was."
    if not summary["metrics"]["/gc/cycles/total:gc-cycles"]:
        yield "No garbage collection happened in this run: it says nothing about what one costs."
    calls = summary["latency"].get("all", {"count": 0})["count"]
    if 0 < calls < 100_000:
        yield f"Of {calls:,} mallocs no more than {calls / 10_000:.2g} lie beyond p99.99: the far tail is chance."


def _settings_line(summary: Mapping[str, Any]) -> str:
    config = summary["config"]
    told = [
        config["runtime"]["version"],
        f"{summary['metrics']['/sched/gomaxprocs:threads']} Ps on {config['machine']['cpus']} CPUs",
        f"GOGC {config['runtime']['gogc']}",
        f"memory limit {config['runtime']['memory_limit']}",
        f"machine {config['machine']['prices']}",
        f"seed {summary['seed']}",
    ]
    return f'<p class="dim">{page.text(", ".join(map(str, told)))}. One run: another seed gives other figures.</p>'


def _figures(summary: Mapping[str, Any]) -> Iterator[tuple[str, page.Cell]]:
    metrics, latency = summary["metrics"], summary["latency"]
    yield "simulated", page.seconds(metrics["/sim/time:seconds"])
    yield "mallocs", page.count(metrics["/sim/mallocs:objects"])
    if "all" in latency:
        for name in ("p50", "p99", "p99.9", "max"):
            yield f"malloc {name}", page.nanoseconds(latency["all"][f"{name}_ns"])
    if "response" in summary:
        yield "response p99", page.nanoseconds(summary["response"]["p99_ns"])
    yield "GC cycles", page.count(metrics["/gc/cycles/total:gc-cycles"])
    for name, title in (("cpu", "GC, of CPU"), ("assists", "assists, of CPU")):
        yield title, _share(metrics[f"/sim/gc/{name}:share"])
    yield "longest pause", page.seconds(metrics["/gc/pauses:seconds/max"])
    yield "heap peak", page.size(metrics["/sim/heap/peak:bytes"])


def _share(value: float) -> page.Cell:
    return page.figure_of(value, percent(value))


def _latency(run: Stored) -> str:
    caption = (
        "Above: the share of mallocs that took longer than what the axis says. Below: of those, in how many this cause"
        " alone took longer, parts of the sum where that is more than all; the rest took several causes together."
    )
    drawn = page.picture(lambda: of_runs.latency([run]), "latency", "malloc latency by cause", caption)
    return drawn + _times(run.summary["latency"])


def _times(rows: Mapping[str, Mapping[str, float]], first: str = "all") -> str:
    names = {"response": "response", "run_queue": "in run queue"} | CAUSES
    body = [
        [
            ("" if cause == first else " ") + page.text(names.get(cause, cause)),
            page.count(row["count"]),
            _share(row["share"]),
            *(page.nanoseconds(row[f"{name}_ns"]) if row["count"] else "-" for name in _TIMES),
        ]
        for cause, row in rows.items()
    ]
    return page.table(["cause" if first == "all" else "requests", "count", "of time", *_TIMES], body)


def _response(run: Stored) -> str:
    caption = "The share of requests that took longer than what the axis says, and of the time they waited for a P."
    drawn = page.picture(lambda: of_runs.response(run), "response", "response times", caption)
    rows: dict[str, Any] = {name: run.summary[name] for name in ("response", "run_queue") if name in run.summary}
    return drawn + _times(rows, "response")


def _heap(run: Stored) -> str:
    caption = (
        "The live heap as the runtime counts it, dead objects included until they are swept; the goal that each cycle set"
        " for the next, and the heap at which it was to begin; shaded while marking. Resident: memory behind the heap."
    )
    drawn = page.picture(
        lambda: of_runs.over_time(run), "heap", "heap over time with goal, trigger and cycles", caption
    )
    if not run.report.cycles:
        return drawn
    rows = [[page.text(cell) for cell in cycle_cells(cycle)] for cycle in run.report.cycles]
    return drawn + page.hidden(f"{len(rows):,} cycles", page.table(CYCLE_HEAD, rows))


def _where(summary: Mapping[str, Any]) -> str:
    metrics = summary["metrics"]
    whole = metrics["/sim/time:seconds"] * metrics["/sched/gomaxprocs:threads"]
    mapped = metrics["/memory/classes/total:bytes"]
    times = [
        [_name(name), page.seconds(value), _share(value / whole)]
        for name, value in where_rows(metrics)
        if value and whole
    ]
    sizes = [
        [_name(name), page.size(value), _share(value / mapped)]
        for name, value in memory_rows(metrics)
        if value and mapped
    ]
    return page.table(("time of all Ps", "spent", "share"), times) + page.table(
        ("memory at the end", "size", "share"), sizes
    )


def _name(name: str) -> str:
    return " " * name.startswith(" ") + page.text(name.strip())


def _trust(summary: Mapping[str, Any]) -> str:
    assumed = summary["assumed_prices"]
    told = f"{len(assumed)} prices that took part were assumed, not measured" if assumed else "Every price was measured"
    reasons = page.hidden(told, page.definitions(sorted(assumed.items()))) if assumed else f"<p>{told}.</p>"
    return f"<p>{page.text(page.FAR)}</p>{reasons}"


def _made(run: Stored) -> str:
    summary = run.summary
    rows = [
        ("made by", f"allocsim {summary['allocsim']}, schema {summary['schema']}"),
        ("kept in", page.named(run.name)),
        (
            "again",
            "allocsim run scenario.toml, with what stands below in that file: the same seed gives the same bytes",
        ),
        *page.host_of(run.name),
    ]
    scenario = page.beside(run.name, "scenario.toml")
    return page.definitions(rows) + (
        page.hidden("scenario.toml, every default", page.quoted(scenario)) if scenario else ""
    )


def _metrics(metrics: Mapping[str, float]) -> str:
    return page.table(
        ("metric", "value"), [[page.text(name), page.figure_of(v, f"{v:.12g}")] for name, v in metrics.items()]
    )
