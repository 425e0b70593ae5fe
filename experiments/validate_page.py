"""What a validation found, for people: text for a terminal, a page in Markdown; and its files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import InputError
from experiments.output import writable, write_whole
from experiments.validate_host import as_calibrated, statement
from sim.units import significant

_HEAD = ("", "real", "least", "most", "simulated", "error", "beyond")
INTRO = """\
# The model against the real runtime

Workloads that exist as a scenario and as a Go program made from that very scenario, run on the real runtime and
simulated: the same operations, sizes, lifetimes and think times. All of them are *validation* workloads: no price comes
from them; those are measured by `allocsim calibrate` with loops of its own. `experiments/validate.py` says how it is
done and what is left out, `experiments/validate_figures.py` what each figure is. This page is written by

    allocsim validate {command}

Simulated latencies of malloc and throughput are told with the interruptions of the machine at the time, which a loop that
only reads the clock showed beside each workload; they, first touches, and what marking and assists took are told with memory
that the host of a virtual machine had taken away, which a loop showed that writes to as many pages as the heap has
(`experiments/validate_memory.py`).
Everything else is as simulated. How fast the host was relative to its calibration, loops of
`allocsim calibrate` told that were run again before each real run (`experiments/validate_host.py`); nothing
that is simulated is changed by it. Real runs are spread over the whole time, so that the spread of a workload's own has what the
host did meanwhile in it; with `--calibrate` so are those that prices come from. Errors are summed up twice: over all workloads, and over those beside which the host
was as calibrated. Real figures are the median of {repeat} runs, with the least and the most of them; *beyond*: the simulated figure lies
outside these. Heaps, goals and marked bytes are those of the second half of a run; what is marked is told in whole MiB.
"""


def number(value: float) -> str:
    """A figure with three significant digits."""
    if value == 0:
        return "0"
    if abs(value) >= 1:
        return ("-" if value < 0 else "") + significant(abs(value))
    return f"{value:.3g}"


def percent(error: float | None) -> str:
    """A relative error."""
    return "-" if error is None else f"{100 * error:+.1f} %"


def rows(version: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """The rows of a table of one workload and version."""
    for row in version["table"]:
        unit = f", {row['unit']}" if row["unit"] else ""
        numbers = (number(row[name]) for name in ("real", "low", "high", "simulated"))
        yield row["quantity"] + unit, *numbers, percent(row["error"]), "beyond" if row["beyond"] else ""


def _columns(table: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of columns: numbers at the right, the first and the last at the left."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    for first, *middle, last in table:
        cells = [cell.rjust(width) for cell, width in zip(middle, widths[1:-1], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells, last]).rstrip()


def _markdown(table: Sequence[Sequence[str]]) -> Iterator[str]:
    head, *body = table
    for row in (head, ["---", *("---:" for _ in head[1:])], *body):
        yield f"| {' | '.join(row)} |"


def _summary(answer: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Errors of all workloads, and of those beside which the host was as calibrated."""
    quiet = {one["quantity"]: one for one in answer["summary_as_calibrated"]}
    head = ("quantity", "figures", "median error", "90th percentile", "beyond the spread")
    table: list[tuple[str, ...]] = [(*head, "host as calibrated", "median error there")]
    for one in answer["summary"]:
        errors = (f"{100 * one[name]:.1f} %" for name in ("median", "p90"))
        there = quiet.get(one["quantity"])
        few = (str(there["n"]), f"{100 * there['median']:.1f} %") if there else ("0", "-")
        table.append((one["quantity"], str(one["n"]), *errors, f"{one['beyond']} of {one['n']}", *few))
    return table


def _directions(answer: Mapping[str, Any]) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [
        ("quantity", "workloads where versions differ", "same direction in the model", "not so: real, simulated")
    ]
    for one in answer["directions"]:
        others = "; ".join(f"{name} x{number(real)}, x{number(ours)}" for name, real, ours in one["others"])
        table.append((one["quantity"], str(one["differ"]), str(one["same"]), others))
    return table


def _tails(version: Mapping[str, Any]) -> list[tuple[str, ...]]:
    table: list[tuple[str, ...]] = [
        (
            "mallocs of a million above",
            *("real", "least", "most", "simulated", "with interruptions"),
            "causes that take so long alone",
        )
    ]
    for one in version["tails"]:
        causes = ", ".join(f"{cause} {number(rate)}" for cause, rate in list(one["by_cause"].items())[:4])
        numbers = (number(one[name]) for name in ("real", "low", "high", "simulated", "interrupted"))
        table.append((f"{one['above_us']:g} us", *numbers, causes))
    return table


_SHOWN = (
    *(f"malloc {name}" for name in ("p99", "p99.9", "p99.99", "max", "mean")),
    *("throughput", "first touch", "pauses", "pause max", "assist CPU", "mark CPU"),
)


def _notes(version: Mapping[str, Any]) -> Iterator[str]:
    alone, real, missing = version["without_noise"], version["real"], version["withheld"]
    told = ", ".join(f"{name} {number(alone[name])}" for name in _SHOWN if name in alone)
    yield f"What is simulated is told with the machine's interruptions and the memory that it lacked; without those: {told}."
    its = version["globals"]
    if its["of"] == "program":
        yield f"Globals with pointers: {its['bytes']} B, as many as the real program's file says."
    else:
        yield f"Globals with pointers: {its['bytes']} B as in the scenario; the real program's file does not say how many it has."
    met = missing["met"]
    yield (
        f"First to write: mallocs to {number(met['cleared'])} used pages and {number(met['fresh'])} fresh ones, "
        f"the program to {number(met['fresh_by_program'])} fresh ones; {number(met['marked'])} pages were marked, "
        f"{number(met['assisted'])} of them by assists."
    )
    if real["unpaid_driver_ms"] > 10 * real["wall_s"]:
        yield f"The program's own work took {number(real['unpaid_driver_ms'])} ms more than there was think time for."
    late = real["late_us"]
    if late is not None:
        times = ", ".join(f"{number(late[name])} us {name}" for name in ("p50", "p99", "max"))
        yield f"The dispatcher started requests late by {times}."


def _host(answer: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Beside each workload: times of the calibration's loops relative to it, and what interrupted the CPUs."""
    aspects = list(answer["drift"]["aspects"])
    interruptions = ("interruptions a second and CPU", "p50, us", "p99, us", "% of the time")
    withheld = ("fresh pages missing, %", "p50, us", "old pages missing, %", "p50, us")
    table: list[tuple[str, ...]] = [("workload", "toolchain", *aspects, *interruptions, *withheld, "host")]
    for workload, version in _versions(answer):
        speeds = {one["aspect"]: one for one in version["host"]}
        ratios = (_ratio(speeds.get(aspect)) for aspect in aspects)
        noise = version["noise"]
        rates = (number(noise[name]) for name in ("a_second", "p50_us", "p99_us"))
        said = "as calibrated" if as_calibrated(version) else "drifted" if speeds else "not known"
        share = f"{100 * noise['share']:.2f}"
        missing = [_missing(version["withheld"][name]) for name in ("fresh", "old")]
        table.append(
            (workload["name"], f"go{version['toolchain']}", *ratios, *rates, share, *missing[0], *missing[1], said)
        )
    return table


def _ratio(speed: Mapping[str, float] | None) -> str:
    """Median, least and most of what a loop took, relative to the calibration."""
    if speed is None:
        return "-"
    return f"{speed['ratio']:.2f} [{speed['low']:.2f}, {speed['high']:.2f}]"


def _missing(writes: Mapping[str, float]) -> tuple[str, str]:
    """How many writes to pages were long, and how long."""
    return number(100 * writes["share"]), number(writes["p50_us"])


def _calibrated(answer: Mapping[str, Any]) -> Iterator[str]:
    """The loops that were compared, with the spread that the calibration itself had."""
    loops: dict[tuple[str, str], list[str]] = {}
    for _, version in _versions(answer):
        for one in version["host"]:
            told = f"go{version['toolchain']} {one['calibrated_low']:.2f} to {one['calibrated_high']:.2f}"
            known = loops.setdefault((one["aspect"], one["loop"]), [])
            known.extend([told] if told not in known else [])
    for (aspect, loop), spreads in loops.items():
        yield f"- {aspect}: `{loop}`; processes of the calibration itself read {', '.join(spreads)} times its median"


def _versions(answer: Mapping[str, Any]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Workloads with each of their versions."""
    for workload in answer["workloads"]:
        for version in workload["versions"]:
            yield workload, version


def text(answer: Mapping[str, Any]) -> Iterator[str]:
    """Lines for a terminal."""
    for workload, version in _versions(answer):
        yield f"{workload['name']}, go{version['toolchain']}, prices of {version['machine']} (validation)"
        yield from _columns([_HEAD, *rows(version)])
        yield from _notes(version)
        yield ""
    yield from _columns(_summary(answer))
    if answer["directions"]:
        yield ""
        yield from _columns(_directions(answer))
    yield ""
    yield from _columns(_host(answer))
    yield ""
    yield statement(answer["drift"])


def explanation(answer: Mapping[str, Any]) -> Iterator[str]:
    """Lines that say which path the tails come from."""
    for workload, version in _versions(answer):
        yield f"{workload['name']}, go{version['toolchain']}"
        yield from _columns(_tails(version))
        yield ""


def page(answer: Mapping[str, Any], command: str, made_by: str | None = None) -> str:
    """The page; ``command`` made it, and ``made_by`` the real runs, where that was another."""
    lines = [INTRO.format(command=command, repeat=answer["repeat"])]
    where = answer["provenance"]
    lines += [
        (
            f"Measured {where['date']} on {where['cpu']}, {where['cpus']} CPUs, {where['system']}, "
            f"transparent huge pages {where['huge_pages']}, with {', '.join(where['toolchains'])}; "
            f"load average {where['load_before']} before, {where['load_after']} after."
        ),
        *([f"Real runs were kept by `allocsim validate {made_by}`."] if made_by is not None else []),
        "",
        f"**{statement(answer['drift'])}**",
        "",
        "## All workloads",
        "",
        *_markdown(_summary(answer)),
        "",
        "## The host beside each workload",
        "",
        (
            "Times of loops relative to what the machine file says of the same loops: median of the probes beside a "
            "workload, least and most of them; what interrupted a CPU for more than 1 us; and how many writes to pages took "
            "more than 20 us longer than usual, which is what the host takes to bring one."
        ),
        "",
        *_markdown(_host(answer)),
        "",
        *_calibrated(answer),
        "",
    ]
    if answer["directions"]:
        lines += ["## From the oldest version to the newest", "", *_markdown(_directions(answer)), ""]
    for workload in answer["workloads"]:
        lines += [f"## {workload['name']}", "", f"{workload['purpose']}.", ""]
        for version in workload["versions"]:
            lines += [f"### go{version['toolchain']}, prices of {version['machine']}", ""]
            lines += [*_markdown([_HEAD, *rows(version)]), "", *_markdown(_tails(version)), ""]
            lines += [" ".join(_notes(version)), ""]
    return "\n".join(lines).rstrip() + "\n"


# Files


def target(name: str, force: bool) -> Path:
    """The page to be written; InputError, before any work, where writing it or the JSON beside it would lose something."""
    path = Path(name)
    if not name or "\0" in name or path.suffix != ".md":
        raise InputError(f"{name!r}: is no page; name a file that ends with .md with -o, its JSON is written beside it")
    for one in (path, path.with_suffix(".json")):
        writable(one, force)
    return path


def store(path: Path, answer: Mapping[str, Any], command: str, made_by: str | None = None) -> None:
    """Write a page and the JSON beside it, each whole or not at all."""
    write_whole(path.with_suffix(".json"), json.dumps(answer, indent=1) + "\n")
    write_whole(path, page(answer, command, made_by))
