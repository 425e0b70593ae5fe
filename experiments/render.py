"""A result as a person reads it in a terminal: what was run, where malloc's time went, how long one took, the heap.

Plain text of at most `Look.width` columns, made from a `Report` alone, so that a run and its stored result read alike.
Block characters where the encoding has them, else ASCII; colours point out and never tell anything by themselves.
"""

from __future__ import annotations

import math
import os
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, TextIO

from experiments.errors import visible
from experiments.result import Buckets, Report
from sim.metrics.cycles import NO_GOAL, Cycle
from sim.units import NS, SEC, format_size, format_time, significant

CAUSES = {
    "all": "all",
    "tiny": "tiny, combined",
    "fast": "fast path",
    "refill_partial": "refill, swept",
    "refill_fresh": "refill, fresh",
    "central_wait": "mcentral lock",
    "heap_wait": "heap lock wait",
    "page_cache": "page cache",
    "page_search": "page search",
    "grow": "heap growth",
    "first_touch": "first touch",
    "zero": "zeroing",
    "large": "large object",
    "off_p": "off the P",
    "profile": "heap profile",
    "assist": "mark assist",
    "assist_parked": "assist, parked",
    "sweep": "sweeping",
    "stw": "stopped world",
    "gc_worker": "off P for a worker",
    "scavenge": "scavenging",
}
_TIMES = ("mean", "p50", "p99", "p99.9", "p99.99", "max")
_MARKS = ("p50", "p99", "p99.9", "p99.99", "max")
_ROWS = 8  # of the histogram, or as many as there are powers of ten
_BESIDE = 96  # columns that two blocks side by side take
CYCLE_HEAD = ("cycle", "why", "at", "paused", "mark", "heap", "grew to", "marked", "goal", "assists", "CPU")
_ENDS = 6  # cycles shown from either end


@dataclass(frozen=True, slots=True)
class Look:
    """What the terminal can do."""

    width: int = 100
    unicode: bool = True
    colour: bool = False

    def paint(self, text: str, code: str) -> str:
        """Text in a colour or weight (an SGR code), where that can be seen."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text

    def bold(self, text: str) -> str:
        """Text that stands out."""
        return self.paint(text, "1")

    def dim(self, text: str) -> str:
        """Text that steps back."""
        return self.paint(text, "2")

    def bar(self, share: float, width: int) -> str:
        """A bar of a share of ``width`` columns, padded to them; what is not nothing can be seen."""
        eighths = min(round(share * width * 8), width * 8)
        if self.unicode:
            eighths = max(eighths, 1) if share > 0 else 0
            full, part = divmod(eighths, 8)
            return ("█" * full + " ▏▎▍▌▋▊▉"[part]).rstrip().ljust(width)
        return ("#" * max(round(eighths / 8), share > 0)).ljust(width)


def look_of(stream: TextIO) -> Look:
    """What a stream can show: 100 columns or what the terminal has, from 80 on."""
    width, terminal = 100, stream.isatty()
    if terminal:
        width = min(width, max(shutil.get_terminal_size((width, 24)).columns, 80))
    try:
        "█▏┤▲".encode(stream.encoding or "ascii")
        unicode = True
    except UnicodeEncodeError:
        unicode = False
    colour = terminal and os.environ.get("TERM") != "dumb" and not os.environ.get("NO_COLOR")
    return Look(width, unicode, colour)


def render(report: Report, look: Look) -> str:
    """The whole text, without a line break at its end."""
    summary = report.summary
    blocks = [
        _headline(summary, look),
        _times(summary, look),
        _histogram(summary, report.malloc, look),
        _where_and_heap(summary, look),
        _cycles(report.cycles, look),
        _assumed(summary, look),
    ]
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks if block)


# What was run


def _headline(summary: Mapping[str, Any], look: Look) -> list[str]:
    config, metrics = summary["config"], summary["metrics"]
    name, purpose = visible(summary["scenario"]), visible(config["purpose"])
    wrapped = textwrap.wrap(f"{name}: {purpose}", look.width) or [name]
    lines = [look.bold(wrapped[0][: len(name)]) + wrapped[0][len(name) :], *wrapped[1:]]
    ps, cpus = metrics["/sched/gomaxprocs:threads"], config["machine"]["cpus"]
    seconds, mallocs = metrics["/sim/time:seconds"], metrics["/sim/mallocs:objects"]
    runtime = [
        visible(config["runtime"]["version"]),
        f"{_counted(ps, 'P')} on {_counted(cpus, 'CPU')}",
        f"machine {visible(config['machine']['prices'])}",
        f"seed {summary['seed']}",
    ]
    heap, mapped = (metrics[f"/memory/classes/{name}:bytes"] for name in ("heap/objects", "total"))
    figures = [
        f"{format_time(seconds * SEC)} simulated",
        f"{_counted(mallocs, 'malloc')} ({_rate(metrics['/sim/throughput:mallocs-per-second'])}/s)",
        f"heap {format_size(heap)} of {format_size(mapped)} mapped",
    ]
    for told in (runtime, figures, _collector(summary)):
        lines += textwrap.wrap(", ".join(told), look.width)
    if summary["cut_short"]:
        run = config["run"]
        whole = [visible(run["duration"])] if "duration" in run else []
        whole += [_counted(run["mallocs"], "malloc")] if "mallocs" in run else []
        text = f"CUT SHORT after {format_time(seconds * SEC)} of {' or '.join(whole)}: this is what there was"
        lines.append(look.paint(text, "1;31"))
    return lines


def _collector(summary: Mapping[str, Any]) -> list[str]:
    """What the collector was set to and what it did."""
    settings, metrics = summary["config"]["runtime"], summary["metrics"]
    told = [f"GOGC {visible(str(settings['gogc']))}"]
    if settings["memory_limit"] != "off":
        told.append(f"limit {visible(settings['memory_limit'])}")
    count = metrics["/gc/cycles/total:gc-cycles"]
    told.append(_counted(count, "cycle"))
    if count:
        middle, longest = (format_time(metrics[f"/gc/pauses:seconds/{which}"] * SEC) for which in ("p50", "max"))
        told.append(f"pauses {middle} p50, {longest} max")
        shares = [percent(metrics[f"/sim/gc/{which}:share"]) for which in ("cpu", "assists")]
        told.append(f"{shares[0]} of CPU ({shares[1]} assists)")
    told.append(f"heap peak {format_size(metrics['/sim/heap/peak:bytes'])}")
    return told


def _counted(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _rate(per_second: float) -> str:
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if per_second >= 0.9995 * unit:
            return significant(per_second / unit) + name
    return f"{per_second:.0f}"


def percent(share: float) -> str:
    """A share for people."""
    return "<0.1 %" if 0 < share < 0.0005 else f"{100 * share:.1f} %"


# Times by cause


def _times(summary: Mapping[str, Any], look: Look) -> list[str]:
    """The table of causes, and of response times below it in the same columns."""
    latency = summary["latency"]
    groups = [[(CAUSES.get(key, visible(key)), row) for key, row in latency.items()]]
    if "response" in summary and "run_queue" in summary:
        groups.append([("response", summary["response"]), ("in run queue", summary["run_queue"])])
    body = [[_row(i, name, row) for i, (name, row) in enumerate(group)] for group in groups]
    heads = (["malloc by cause", "calls", "of time"], ["requests", "count", "of time"])
    columns = list(zip(*(row for group in (*body, heads) for row in group), strict=False))
    widths = [max(map(len, column)) for column in columns[:3]]
    times = 8 if sum(widths) + 4 + 8 * len(_TIMES) <= look.width else 7
    bar = min(look.width - sum(widths) - 5 - times * len(_TIMES), 12)
    lines: list[str] = []
    for head, group, rows in zip(heads, groups, body, strict=False):
        if not rows:
            lines.append("no malloc was made")
            continue
        if lines:
            lines.append("")
        gap = " " * (bar + 1 if bar >= 4 else 0)
        cells = [head[0].ljust(widths[0]), head[1].rjust(widths[1]), head[2].rjust(widths[2])]
        lines.append(look.bold("  ".join(cells) + gap + "".join(name.rjust(times) for name in _TIMES)))
        for i, (cells, (_, row)) in enumerate(zip(rows, group, strict=True)):
            text = "  ".join([cells[0].ljust(widths[0]), cells[1].rjust(widths[1]), cells[2].rjust(widths[2])])
            if bar >= 4:
                text += " " + (look.paint(look.bar(row["share"], bar), "36") if i else " " * bar)
            lines.append(text + "".join(cell.rjust(times) for cell in cells[3:]))
    return lines


def _row(i: int, name: str, row: Mapping[str, Any]) -> list[str]:
    """The cells of one row; all but a group's first are parts of it."""
    if not row["count"]:
        return [("  " if i else "") + name, "0", "-", *["-"] * len(_TIMES)]
    times = [format_time(row[f"{name}_ns"] * NS) for name in _TIMES]
    return [("  " if i else "") + name, f"{row['count']:,}", percent(row["share"]), *times]


# Histogram


def _histogram(summary: Mapping[str, Any], malloc: Buckets, look: Look) -> list[str]:
    """How often malloc took how long: both axes logarithmic, the percentiles marked below."""
    if not malloc:
        return []
    margin = 8
    first = math.floor(math.log10(max(malloc[0][0], 100)) + 1e-9)
    last = max(math.ceil(math.log10(max(malloc[-1][1], 101)) - 1e-9), first + 1)
    step = min((look.width - margin - len(_tick(last)) + 1) // (last - first), 40)
    columns = [0] * ((last - first) * step)

    def column(ps: float) -> int:
        return min(max(int((math.log10(max(ps, 1)) - first) * step + 1e-9), 0), len(columns) - 1)

    for low, high, count in malloc:
        columns[column((low + high) / 2)] += count
    decades = math.floor(math.log10(max(columns))) + 1
    per_decade = max(round(_ROWS / decades), 1)
    rows = decades * per_decade
    eighths = [max(round(math.log10(n) * per_decade * 8), 1) if n else 0 for n in columns]
    marked = [(name, column(summary["latency"]["all"][f"{name}_ns"] * NS)) for name in _MARKS]
    colours = ["31" if i > marked[2][1] else "33" if i > marked[1][1] else "32" for i in range(len(columns))]
    tick, side, corner, line, notch = "┤│└─┬" if look.unicode else "||+-+"
    lines = [look.bold("malloc latency") + ": number of calls, both axes logarithmic"]
    for row in reversed(range(rows)):
        label = _power(row // per_decade) if row % per_decade == 0 else ""
        bars = [_block(height - 8 * row, look) for height in eighths]
        lines.append(f"{label:>{margin - 2}} {tick if label else side}{_painted(bars, colours, look)}")
    axis = "".join(notch if i % step == 0 else line for i in range(len(columns) + 1))
    lines.append(" " * (margin - 1) + corner + axis[1:])
    ticks = [(i * step, _tick(first + i)) for i in range(last - first + 1)]
    lines.append(" " * (margin - 1) + _labels(ticks)[0])
    arrow = "▲" if look.unicode else "^"
    marks = [
        (at, arrow + name) if margin + at + len(name) < look.width else (at - len(name), name + arrow)
        for name, at in marked
    ]
    return lines + [" " * margin + look.dim(text) for text in _labels(marks)]


def _block(height: int, look: Look) -> str:
    """One character of a bar that is so many eighths higher than the foot of its row."""
    if height <= 0:
        return " "
    if not look.unicode:
        return "#" if height >= 4 else "."
    return " ▁▂▃▄▅▆▇█"[min(height, 8)]


def _power(exponent: int) -> str:
    """A power of ten, short."""
    thousands, rest = divmod(exponent, 3)
    return f"{10**rest}{' kMGTPE'[thousands]}".strip()


def _painted(bars: Sequence[str], colours: Sequence[str], look: Look) -> str:
    """Bars in their colours, one code for each run of the same."""
    text, start = "", 0
    for i in range(1, len(bars) + 1):
        if i == len(bars) or colours[i] != colours[start]:
            text += look.paint("".join(bars[start:i]), colours[start])
            start = i
    return text


def _tick(power: int) -> str:
    """A power of ten of picoseconds."""
    unit = min(power // 3, 4)
    return f"{10 ** (power - 3 * unit)}{('ps', 'ns', 'us', 'ms', 's')[unit]}"


def _labels(places: Sequence[tuple[int, str]]) -> list[str]:
    """Texts at their columns, on as many lines as they need not to run into each other."""
    lines: list[str] = []
    for at, text in places:
        for i in range(len(lines) + 1):
            if i == len(lines):
                lines.append("")
            if len(lines[i]) <= max(at - 1, 0):
                lines[i] = lines[i].ljust(at) + text
                break
    return lines


# Where the Ps' time went, and the heap


def _where_and_heap(summary: Mapping[str, Any], look: Look) -> list[str]:
    beside = look.width >= _BESIDE
    left, right = list(_where(summary, look)), list(_heap(summary, look))
    if not beside:
        return [text for _, text in left] + [""] + [text for _, text in right]
    gap = 54
    return [
        text + " " * (gap - length) + other
        for (length, text), (_, other) in zip_longest(left, right, fillvalue=(0, ""))
    ]


Line = tuple[int, str]
"""A line and its length without colours."""


def where_rows(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """What the Ps did, for how many seconds; what begins with spaces is a part of the row above."""
    total = metrics["/sim/time:seconds"] * metrics["/sched/gomaxprocs:threads"]

    def spent(*kinds: str) -> float:
        return sum(metrics[f"/sim/time/{kind}:cpu-seconds"] for kind in kinds)

    rows = [
        ("malloc", spent("malloc", "lock")),
        (
            "  of it waiting for locks",
            sum(metrics[f"/sim/locks/{name}/wait:seconds"] for name in ("mheap", "mcentral")),
        ),
        ("mark assists", spent("assist")),
        ("mark workers", spent("gc-dedicated", "gc-fractional")),
        ("marking on idle Ps", spent("gc-idle")),
        ("world stopped", spent("stopped")),
        ("the runtime's goroutines", spent("system")),
        ("compute", spent("compute")),
        ("first touches by the program", spent("first-touch-by-program")),
    ]
    last = [("waiting for a CPU", spent("no-cpu")), ("idle", spent("idle"))]
    known = sum(seconds for name, seconds in rows + last if name[0] != " ")
    return [*rows, ("scheduling", max(total - known, 0)), *last]


def _where(summary: Mapping[str, Any], look: Look) -> Iterator[Line]:
    """What the Ps did."""
    metrics = summary["metrics"]
    total = metrics["/sim/time:seconds"] * metrics["/sched/gomaxprocs:threads"]
    ps = _counted(metrics["/sched/gomaxprocs:threads"], "P")
    heading = f"where the time of {ps} went"
    heading = f"{heading:<30}{format_time(total * SEC):>8}"
    yield len(heading), look.bold(heading)
    for name, seconds in where_rows(metrics):
        if not seconds:
            continue
        share = seconds / total if total else 0.0
        text = f"{name:<30}{format_time(seconds * SEC):>8}{percent(share):>8} "
        bar = look.bar(share, 6)
        yield len(text) + len(bar), text + look.paint(bar, "36")


def memory_rows(metrics: Mapping[str, int | float]) -> list[tuple[str, int | float]]:
    """What is in the memory that was mapped, bytes; what begins with spaces is a part of the row above."""
    names = ("objects", "unused", "free", "released", "stacks")
    parts = {name: metrics[f"/memory/classes/heap/{name}:bytes"] for name in names}
    return [
        ("objects, dead ones too", parts["objects"]),
        ("  of them live", metrics["/sim/live:bytes"]),
        ("unused in spans", parts["unused"]),
        ("free pages", parts["free"]),
        ("never used, or given back", parts["released"]),
        ("stacks", parts["stacks"]),
        ("the runtime's own", max(metrics["/memory/classes/total:bytes"] - sum(parts.values()), 0)),
    ]


def _heap(summary: Mapping[str, Any], look: Look) -> Iterator[Line]:
    """What is in the memory that was mapped."""
    metrics = summary["metrics"]
    total = metrics["/memory/classes/total:bytes"]
    heading = f"{'memory at the end':<26}{format_size(total):>8}"
    yield len(heading), look.bold(heading)
    for name, size in memory_rows(metrics):
        if not size:
            continue
        text = f"{name:<26}{format_size(size):>8}{percent(size / total if total else 0.0):>8}"
        yield len(text), text


# Collections


def _cycles(cycles: Sequence[Cycle], look: Look) -> list[str]:
    """What the collections did in all, and a row for each; of many, for the first and the last."""
    if not cycles:
        return []
    paused, forced = [cycle.pause_time for cycle in cycles], sum(cycle.forced for cycle in cycles)
    text = _counted(len(cycles), "collection") + (f" ({forced:,} forced)" if forced else "")
    text += f", paused for {format_time(sum(paused))}, at most {format_time(max(paused))} in one"
    lines = textwrap.wrap(text, look.width)
    shown = [
        cycle_cells(cycle) for cycle in (cycles if len(cycles) <= 2 * _ENDS else (*cycles[:_ENDS], *cycles[-_ENDS:]))
    ]
    table = [CYCLE_HEAD, *shown]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    gap = "  " if sum(widths) + 2 * len(widths) - 2 <= look.width else " "
    for i, row in enumerate(table):
        line = gap.join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(line if i else look.bold(line))
    if len(shown) < len(cycles):
        lines.insert(-_ENDS, look.dim(f"{len(cycles) - len(shown):,} more"))
    return lines


def cycle_cells(cycle: Cycle) -> tuple[str, ...]:
    """The cells of a cycle: when and for how long, the heap, and the collector's share of CPU time so far."""
    times = cycle.t_sweep_term, cycle.pause_time, cycle.t_mark_term - cycle.t_mark
    goal = "none" if cycle.heap_goal >= NO_GOAL else format_size(cycle.heap_goal)
    return (
        f"{cycle.number}",
        cycle.kind,
        *map(format_time, times),
        *map(format_size, (cycle.heap0, cycle.heap1, cycle.heap2)),
        goal,
        format_time(cycle.assist_time),
        f"{int(100 * cycle.gc_cpu_fraction)} %",
    )


def _assumed(summary: Mapping[str, Any], look: Look) -> list[str]:
    """Which prices nobody measured: a result must say so."""
    names = sorted(visible(name) for name in summary["assumed_prices"])
    if not names:
        return ["every price was measured"]
    locks = sum(name.startswith("lock.") for name in names)
    others = [name for name in names if not name.startswith("lock.")]
    told = [f"{_counted(locks, 'lock step')}"] * (locks > 0) + others
    text = f"assumed, not measured: {', '.join(told)}"
    return [look.dim(line) for line in textwrap.wrap(text, look.width, subsequent_indent="  ", break_on_hyphens=False)]
