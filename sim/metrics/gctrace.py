"""The lines of GODEBUG=gctrace=1, gcpacertrace=1 and scavtrace=1, byte for byte; and reading the first of them back.

Mirrors mgc.go:gcMarkTermination, mgcpacer.go:startCycle and endCycle, mgcsweep.go:activeSweep.end, mgcscavenge.go:
printScavTrace and proc.go:forcegchelper of Go 1.19.8 and 1.27.3; go1.14 counts as go1.19 with other central lists.

The runtime's clock ticks in nanoseconds: each point in time here is cut to one before differences are taken, and
each sum of CPU time is cut. What it prints is cut again: sizes to MiB, the share of CPU to whole percents.

Versions differ in how floats look (go_text.py), in which stacks are counted (all of them; those scanned), in what the
scavenger says, and in ``pacer: sweep done``: go1.19 has that line in its source and never comes to print it
(activeSweep.end compares the state from before its own decrement).

Left out: gctrace=2 and goroutine-leak cycles, but for reading their first line; gcstoptheworld.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sim.metrics.cycles import Cycle
from sim.metrics.go_text import fmt_ns_as_ms, itoa_div, print_float, print_float_fixed
from sim.units import NS

GC_FORCED = "GC forced"
"""The line before a cycle that began because two minutes had passed (forcegchelper)."""

_MS = 1_000_000  # nanoseconds
_MIB = 20
_KIB = 10
_BACKGROUND_UTILIZATION = 0.25  # gcBackgroundUtilization, and gcGoalUtilization
_FLOAT = {"go1.14": print_float_fixed, "go1.19": print_float_fixed, "go1.27": print_float}


def _today(version: str) -> bool:
    """Whether a version prints as go1.27 does; ValueError for one that is not known."""
    if version not in _FLOAT:
        raise ValueError(f"{version!r} is no version with known lines; one of {', '.join(_FLOAT)} is")
    return version == "go1.27"


@dataclass(frozen=True, slots=True)
class GcLine:
    """What a gctrace line says: nanoseconds, MiB, percent of all CPU time since the program's start.

    ``clock``: sweep termination, marking, mark termination. ``cpu``: sweep termination, assists, dedicated and
    fractional workers, idle ones, mark termination. ``heap``: live when it began, when marking was done, and marked.
    Read from text they are as exact as it is.
    """

    number: int
    start: int
    percent: int
    clock: tuple[int, int, int]
    cpu: tuple[int, int, int, int, int]
    heap: tuple[int, int, int]
    goal: int
    stacks: int
    globals: int
    procs: int
    forced: bool = False
    leaks: bool = False  # it looked for leaked goroutines

    def __str__(self) -> str:
        """The line, without a line break."""
        first, *middle, last = map(fmt_ns_as_ms, self.cpu)
        return (
            f"gc {self.number} @{itoa_div(self.start // _MS, 3)}s {self.percent}%"
            f"{' (checking for goroutine leaks)' if self.leaks else ''}: {'+'.join(map(fmt_ns_as_ms, self.clock))}"
            f" ms clock, {first}+{'/'.join(middle)}+{last} ms cpu, {'->'.join(map(str, self.heap))} MB, "
            f"{self.goal} MB goal, {self.stacks} MB stacks, {self.globals} MB globals, {self.procs} P"
            f"{' (forced)' if self.forced else ''}"
        )


def gc_line(cycle: Cycle, version: str) -> GcLine:
    """What the gctrace line of a cycle says."""
    start, mark, mark_term, end = (t // NS for t in (cycle.t_sweep_term, cycle.t_mark, cycle.t_mark_term, cycle.t_end))
    clock = mark - start, mark_term - mark, end - mark_term
    workers = cycle.dedicated_time // NS + cycle.fractional_time // NS
    cpu = (
        cycle.stw_procs * clock[0],
        cycle.assist_time // NS,
        workers,
        cycle.idle_time // NS,
        cycle.stw_procs * clock[2],
    )
    return GcLine(
        number=cycle.number,
        start=start,
        percent=int(cycle.gc_cpu_fraction * 100),
        clock=clock,
        cpu=cpu,
        heap=(cycle.heap0 >> _MIB, cycle.heap1 >> _MIB, cycle.heap2 >> _MIB),
        goal=cycle.heap_goal >> _MIB,
        stacks=(cycle.stack_scan if _today(version) else cycle.max_stack_scan) >> _MIB,
        globals=cycle.globals_scan >> _MIB,
        procs=cycle.procs,
        forced=cycle.forced,
    )


def gctrace_line(cycle: Cycle, version: str) -> str:
    """The line that GODEBUG=gctrace=1 prints at the end of a cycle."""
    return str(gc_line(cycle, version))


_MS_TEXT = r"\d{1,20}(?:\.\d{1,3})?"
_LINE = re.compile(
    rf"gc (\d{{1,10}}) @(\d{{1,17}})\.(\d{{3}})s (\d{{1,20}})%( \(checking for goroutine leaks\))?: "
    rf"({_MS_TEXT})\+({_MS_TEXT})\+({_MS_TEXT}) ms clock, "
    rf"({_MS_TEXT})\+({_MS_TEXT})/({_MS_TEXT})/({_MS_TEXT})\+({_MS_TEXT}) ms cpu, "
    r"(\d{1,20})->(\d{1,20})->(\d{1,20}) MB, (\d{1,20}) MB goal, (\d{1,20}) MB stacks, (\d{1,20}) MB globals, "
    r"(\d{1,9}) P( \(forced\))?",
    re.ASCII,
)


def _nanoseconds(ms: str) -> int:
    whole, _, fraction = ms.partition(".")
    return int(whole + fraction.ljust(6, "0"))


def parse_gctrace(line: str) -> GcLine:
    """What a gctrace line of Go 1.18 or later says; ValueError for a line that is none. A line break may end it."""
    found = _LINE.fullmatch(line.rstrip("\r\n"))
    if found is None:
        raise ValueError(
            f"{line[:60]!r} is no gctrace line of Go 1.18 or later; one begins like 'gc 1 @0.002s 17%: 0.076+1.7+0.020 ms clock, '"
        )
    text = found.groups()
    a, b, c, d, e, f, g, h = map(_nanoseconds, text[5:13])
    heap0, heap1, heap2, goal, stacks, globals_, procs = map(int, text[13:20])
    return GcLine(
        number=int(text[0]),
        start=int(text[1] + text[2]) * _MS,
        percent=int(text[3]),
        clock=(a, b, c),
        cpu=(d, e, f, g, h),
        heap=(heap0, heap1, heap2),
        goal=goal,
        stacks=stacks,
        globals=globals_,
        procs=procs,
        forced=text[20] is not None,
        leaks=text[4] is not None,
    )


# gcpacertrace


def pacer_start_line(cycle: Cycle, version: str) -> str:
    """What the pacer says when marking begins. (startCycle)"""
    _today(version)
    text = _FLOAT[version]
    return (
        f"pacer: assist ratio={text(cycle.assist_ratio)} (scan {cycle.heap_scan >> _MIB} MB in "
        f"{cycle.heap0 >> _MIB}->{cycle.heap_goal_start >> _MIB} MB) "
        f"workers={cycle.dedicated_workers}+{text(cycle.fractional_goal)}"
    )


def pacer_end_line(cycle: Cycle, version: str) -> str | None:
    """What it says when marking is done; nothing if the heap has not grown meanwhile. (endCycle)"""
    today = _today(version)
    if cycle.heap1 <= cycle.triggered:
        return None
    elapsed = cycle.t_mark_term // NS - cycle.t_sweep_term // NS
    utilization = _BACKGROUND_UTILIZATION
    if elapsed:
        utilization += cycle.assist_time // NS / (elapsed * cycle.procs)
    return (
        f"pacer: {int(utilization * 100)}% CPU ({int(_BACKGROUND_UTILIZATION * 100)} exp.) for "
        f"{cycle.heap_scan_work}+{cycle.stack_scan_work}+{cycle.globals_scan_work} B work "
        f"({cycle.expected_scan_work} B exp.) in {cycle.triggered} B -> {cycle.heap1} B "
        f"(∆goal {cycle.heap1 - cycle.heap_goal}, cons/mark {_FLOAT[version](cycle.cons_mark)})"
        f"{'[controller reset]' if cycle.controller_reset and not today else ''}"
    )


def sweep_done_line(cycle: Cycle, version: str) -> str | None:
    """What it says when nothing is left to sweep; nothing before that, and never in go1.19. (activeSweep.end)"""
    swept = cycle.swept
    if not _today(version) or swept is None:
        return None
    return (
        f"pacer: sweep done at heap size {swept.heap_live >> _MIB}MB; allocated "
        f"{_unsigned(swept.heap_live - swept.heap_live_basis) >> _MIB}MB during sweep; swept {swept.pages_swept} pages "
        f"at {print_float(swept.pages_per_byte)} pages/byte"
    )


def _unsigned(value: int) -> int:
    """As a uint64: a live heap below its basis wraps."""
    return value & ((1 << 64) - 1)


# scavtrace


def scav_line(
    released_bg: int,
    released_eager: int,
    heap_released: int,
    heap_in_use: int,
    heap_retained: int,
    version: str,
    *,
    forced: bool = False,
    controller_reset: bool = False,
) -> str:
    """What the scavenger gave back since its last line, in bytes; ``forced`` by debug.FreeOSMemory. (printScavTrace)

    go1.19 counts the background scavenger alone. ``forced``: all of it counts as eager today, as the background's then.
    """
    if _today(version):
        work = f"{released_bg >> _KIB} KiB work (bg), {released_eager >> _KIB} KiB work (eager), "
        now = f"{heap_released >> _KIB} KiB now, "
    else:
        work = f"{released_bg >> _KIB} KiB work, "
        now = f"{heap_released >> _KIB} KiB total, "
    end = " (forced)" if forced else " [controller reset]" if controller_reset else ""
    return f"scav {work}{now}{heap_in_use * 100 // heap_retained if heap_retained else 0}% util{end}"


def sweep_scav_line(cycle: Cycle, version: str) -> str | None:
    """The scavenger's line at the end of a cycle's sweep; nothing before that. (mgcsweep.go:sweepone)"""
    swept = cycle.swept
    if swept is None:
        return None
    return scav_line(
        swept.released_bg,
        swept.released_eager,
        swept.heap_released,
        swept.heap_in_use,
        swept.heap_retained,
        version,
        controller_reset=swept.controller_reset,
    )


def trace_lines(cycles: Iterable[Cycle], version: str, *, pacer: bool = False, scav: bool = False) -> Iterator[str]:
    """All lines of a run in the order of its cycles, with those of gcpacertrace and scavtrace if wanted.

    The runtime prints a cycle's line after the world has gone on, so that the lines of a short sweep's end may precede
    it, in either order; here they follow.
    """
    for cycle in cycles:
        if cycle.kind == "time":
            yield GC_FORCED
        before = (pacer_start_line(cycle, version), pacer_end_line(cycle, version)) if pacer else ()
        yield from (line for line in before if line is not None)
        yield gctrace_line(cycle, version)
        after = [sweep_done_line(cycle, version)] if pacer else []
        after += [sweep_scav_line(cycle, version)] if scav else []
        yield from (line for line in after if line is not None)
