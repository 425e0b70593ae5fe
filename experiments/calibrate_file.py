"""The machine file that `allocsim calibrate` writes, as TOML text (machine_file.py reads it).

Prices that were not measured, or that came out as nothing, are those assumed for the machine that comes with the
program, with their reasons. Versions that no toolchain stands for are missing, but go1.14, which is go1.19 with other
central lists.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from experiments.calibrate_tables import MACHINE, SPECS, Measurements, reading
from experiments.machine_file import ALONE, ASSUMABLE, LOCK_STEPS, OPTIONAL, SCHEMA, SELDOM, TABLES, Assumed, Machine

_PROGRAM = "program truth/calibrate"
_EACH = "[median, min, max] of {n} processes"
SOURCES = {
    "loop": "small: one loop of mallocs, GOGC=off, objects not written; cold = memory never touched, warm = recycled; "
    "*_loop = mean of the loop by the CPU time of the process, refills and clearing included; p* = per call less the "
    "timer",
    "steady": "steady: GOGC=100, no live data, 4 MB heap, GOMAXPROCS=1; refills, sweeping, collection and clearing "
    "included, by CPU time. No price comes from it: a simulation with a collector has to come out here",
    "refill": "small: per call less the timer, GOGC=off, by where the span came from (its page number modulo 64, 512, "
    "8192); class n64 = noscan 64 B, p64 = pointerful; partial = swept spans in which one object is alive; n = calls in "
    "one process; p90 and mean are medians",
    "large": "large: per call less the timer, GOGC=off; cold = fresh memory, warm = recycled and cleared",
    "goroutine": "goroutines, GOMAXPROCS=1: the go statement alone, new g and 2 KiB stack or one off the free list of "
    "the P",
    "spawn": "goroutines, GOMAXPROCS=1: go statement, run, exit, in a loop by CPU time",
    "stack_growth": "goroutines, GOMAXPROCS=1: first call less second call of a recursion that needs so much stack, in "
    "frames of some 220 B",
    "stop_the_world": "goroutines, GOMAXPROCS=1, otherwise idle: a round trip of runtime.ReadMemStats",
    "sweep": "sweep: runtime.sweepone per span; keep = which objects of a span survive",
    "warm": "warm: one loop of mallocs by the CPU time of the process, GOGC=off, refills and clearing included; the heap of "
    "so many MiB is written, collected and filled again",
    "hit": "mixed: single calls less the timer, types of all sizes in random order, in a heap of so many MiB, half of it "
    "alive and dying at random, GOGC=100, each object written and 250 ns of other work after it; calls that find a slot in the span of the type's last one "
    "and touch no new memory, while the collector does not mark, at least 200 of them in a process; of all as many are left out, the longest, as interruptions fall "
    "into, by how many a loop that does nothing meets; mean99 = mean of all but the last hundredth",
    "hit_marking": "mixed: such calls while the collector marks, but for those in which an assist was",
    "hit_after": "mixed: the same calls by how many other mallocs were between the type's last one and them, and while "
    "the collector marks by whether their slot is the one after it, with few others between or more; such marking ones where all "
    "objects die at once, so that spans come back empty (-unison); and all in a program whose types have up to 64 B (small, -most=64)",
    "refilled": "mixed: the other calls, in rounds of the same processes with runtime.GC() between them; of spans with "
    "more slots than one, those that get a swept span with room",
    "refilled_fresh": "mixed: those of such calls that get a fresh span, which gives all its slots, but for such of 20 us and more, which wait "
    "for memory that the host took",
    "refilled_fresh_small": "mixed -most=64: calls that get a fresh span in a program whose types have up to 64 B, all objects dying at once",
    "refilled_unswept": "mixed: calls that sweep the span they take, while there are some to be swept",
    "refilled_near": "mixed -most=2048 -near: refills from swept spans with room, runtime.GC() between rounds, in a program whose types have up to "
    "2 KiB, by whether the span begins within 8 pages of the type's last one; means of all but the last hundredth",
    "alive": "mixed: objects alive in the end",
    "marked": "mixed: CPU time of marking in a collection by gctrace, whoever did it; medians of a process",
    "marked_in_order": "mixed: the same on one P, in processes where the oldest object dies instead of any",
    "paused": "mixed: both pauses of a collection by gctrace, on one P; medians of a process, of those that the heap's growth "
    "began and that took up to twice as long as the shortest",
    "withheld": "mixed: writes to as many small pages as the heap has, each written to before, and once in the time of a collection: what those "
    "that take 20 us longer than usual do beyond the usual, in the mean of all",
    "globals": "globals: the CPU time of runtime.GC(), GOMAXPROCS=1, in a program that has so many bytes of globals more, as those of a "
    "small program are (with), and in one that has not (without); medians of a process",
    "swept": "mixed: runtime.sweepone per span, called by the program after 64 mallocs for 6 spans in a row, GOGC=100: the first and the "
    "next ones, of which something survives (kept) or which go back to the heap (freed)",
    "write_barrier": "barrier: what a write of a new object into one of many variables of the heap takes longer while the collector "
    "marks, for each of the two pointers that the barrier notes, GOGC=100, in a heap of so many MiB, half of it alive; medians of a process",
    "mark": "mark: a heap of one shape, all of it written, runtime.GC(), gctrace; list = linked, shuf = shuffled, tree16 = binary tree, "
    "objs64 = slice of pointers to 64 B objects of nil pointers, leaf64 = to noscan 64 B; gc_wall = [median, min, max] "
    "of some cycles of one process, the rest medians",
    "first_touch": "fault: each 4 KiB page touched once, of a mapping or of one object on the heap; what is shorter "
    "than the timer itself reads 0",
}
SOURCES |= {
    alone: f"{SOURCES[name]}; -alone: one goroutine does so, the other Ps mark and sweep" for name, alone in ALONE.items()
}
_UNITS = {
    "alive": "objects",
    "marked": "us",
    "marked_in_order": "us",
    "paused": "us",
    "mark": "see columns: objects in millions, times in ms, rates in MB/s, per object in ns, pauses in us",
    "first_touch": "ns per 4 KiB page",
}
_LOCK_PAIR = (
    "lock: half of an exchange that takes a free lock's word and one that frees it, each a call, in a loop by CPU time"
)
_SLEPT = {"_20us": "20 us", "": "100 us", "_1ms": "1 ms", "_10ms": "10 ms"}
SINGLES = {
    "acquire": _LOCK_PAIR,
    "release": _LOCK_PAIR,
    "procyield": "lock: runtime.procyield(30) in a loop by CPU time",
    "osyield": "lock: runtime.osyield in a loop by CPU time",
    "futex_sleep": "futex: both threads on one CPU, from the call of futex wait until the other thread runs; median of "
    "a process",
    **{
        f"futex_wake{name}": f"futex: the call that wakes a thread asleep for {time} on another CPU, by a thread that has "
        "gone through 64 MiB at random for as long; median of a process"
        for name, time in _SLEPT.items()
    },
    **{
        f"wake_latency{name}": f"futex: from the end of the call that wakes a thread asleep for {time} on another CPU "
        "until that thread runs; median of a process"
        for name, time in _SLEPT.items()
    },
    "signal_1ms": "futex: that call (preempt_signal) by a thread that has gone through 64 MiB at random for 1 ms; median of "
    "a process",
    "signal_latency": "futex: from the end of that call (preempt_signal) until the thread has been through its handler; "
    "median of a process",
    "read_touch": "madvise: each 4 KiB page of a new mapping read once; median of a process",
    "copy_touch": "madvise: each 4 KiB page of a mapping written after it was read once; median of a process",
    **{
        f"touch_{time}us": f"faults: what the first write to a page takes longer by a thread that has gone through 64 MiB at "
        f"random for {time} us since the last one than by one that has done nothing; means of a process, the longest fiftieth "
        "left out"
        for time in (5, 20, 100)
    },
    "madvise": "madvise: MADV_DONTNEED from the top of a touched mapping down, one page less what a page of a run takes",
    "madvise_page": "madvise: per page what a run of 64 takes longer than one page; medians of a process",
    "tlb_shootdown": "madvise: what a page takes longer while a second thread of the process runs on another CPU",
    "os_switch": "futex: both threads on one CPU, futex_sleep less a futex wait that returns at once",
    "wake_p": "futex: the sum of futex_wake and wake_latency",
    "preempt_signal": "futex: the call that signals a thread running on another CPU (tgkill of SIGURG); median of a process",
    "profile_sample": "profile: what MemProfileRate=1 adds to a malloc of 64 B ten frames deep; medians of a process",
    "mark_stack": "stacks: what each of 10000 goroutines parked ten frames deep adds to runtime.GC(), GOMAXPROCS=1",
}
_ALIAS = "the structures of go1.19 but for mcentral's two lists behind a mutex, whose hold is the assumed price central"
_SMALL_FAULT = 200  # nanoseconds: a median touch above this is a fault of its own
FAULTED = "mmap first touch"
_HEAP, _HUGE = "go heap first touch", "mmap first touch, huge pages advised"


@dataclass(frozen=True, slots=True)
class About:
    """What a file says beside its tables. ``toolchains``: version to what ran; else as `Machine` has it."""

    name: str
    date: str
    description: str
    cpus: int
    wide_vectors: bool
    huge_pages: str
    timer: str
    timer_step_ns: float
    loop_mib: int
    caveats: Sequence[str]
    checks: Mapping[str, float]
    toolchains: Mapping[str, str]


def write(about: About, found: Measurements, base: Machine) -> str:
    """The text of a machine file."""
    versions = sorted(about.toolchains)
    # a step has one place: with each version, or with none
    own = set.intersection(*(set(measured_singles(found, version, "steps")) for version in versions))
    return "\n".join(
        [
            "# Prices of one machine: what `allocsim calibrate` measured on it, as measured, and what it did not, with the",
            "# reason for each value. A value [a, b, c] is the median of repeated runs with their minimum and maximum; a",
            "# plain number is a median. Each table says which mode of the program truth/calibrate measured it.",
            "",
            f"schema = {SCHEMA}",
            f"name = {_text(about.name)}",
            f"date = {_text(about.date)}",
            f"loop_mib = {about.loop_mib}  # that the loops of mallocs cycle through",
            "",
            *_host(about),
            *_aliases(versions),
            *_faults(found, versions),
            *_singles(found, base, own),
            *_table("first_touch", "first_touch", MACHINE, found),
            *(line for version in versions for line in _version(version, about.toolchains[version], about.cpus, found, own)),
        ]
    )


def _text(text: str) -> str:
    """A text as TOML writes it: as JSON does."""
    return json.dumps(text, ensure_ascii=False)


def _host(about: About) -> Iterable[str]:
    yield "[host]"
    yield f"description = {_text(about.description)}"
    yield f"cpus = {about.cpus}"
    yield f"wide_vectors = {json.dumps(about.wide_vectors)}  # those of AVX-512 that go1.27 scans dense spans with"
    yield f"huge_pages = {_text(about.huge_pages)}  # /sys/kernel/mm/transparent_hugepage/enabled"
    yield f"timer = {_text(about.timer)}"
    yield f"timer_step_ns = {about.timer_step_ns}"
    yield "caveats = ["
    yield from (f"  {_text(caveat)}," for caveat in about.caveats)
    yield "]"
    yield ""
    yield "[host.checks]  # how quiet it was: CPU time of others, drift of a reference loop, median spread of loops"
    yield from (f"{name} = {value}" for name, value in about.checks.items())
    yield ""


def _aliases(versions: Sequence[str]) -> Iterable[str]:
    if "go1.19" in versions:
        yield '[alias."go1.14"]'
        yield 'prices = "go1.19"'
        yield f"reason = {_text(_ALIAS)}"
        yield ""


def _faults(found: Measurements, versions: Sequence[str]) -> Iterable[str]:
    """Which rows tell the two kinds of fault: of the heap where it shows them, else of a mapping."""
    rows = found.tables[MACHINE, "first_touch"]

    def chosen(small: bool, fallback: str) -> list[str]:
        heaps = [(_HEAP, version) for version in versions]
        fits = [key for key in heaps if (median(rows[key]["p50"]) > _SMALL_FAULT) == small]
        return list(fits[-1] if fits else (fallback, versions[-1]))

    yield "[faults]  # rows of first_touch that tell the system's two kinds of page fault, whoever runs into them"
    yield f"small = {json.dumps(chosen(True, FAULTED))}"
    yield f"huge = {json.dumps(chosen(False, _HUGE))}"
    yield ""


def measured_singles(found: Measurements, version: str, table: str) -> dict[str, list[float]]:
    """Readings of single prices that came out above zero."""
    return {name: values for name, values in found.singles(version, table).items() if median(values) > 0}


def _singles(found: Measurements, base: Machine, own: Collection[str]) -> Iterable[str]:
    """Single prices of the machine, measured ones and then assumed ones."""
    for table, key, names, assumed in (
        ("lock", "lock", LOCK_STEPS, base.lock),
        ("steps", "steps", ASSUMABLE, base.steps),
    ):
        measured = measured_singles(found, MACHINE, table)
        if measured:
            yield f"[measured.{key}]"
            yield from _measured(measured, names)
        yield f"[assumed.{key}]"
        for name in names:
            one = assumed[name]
            if name not in measured and not (table == "steps" and name in own) and isinstance(one, Assumed):
                why = _text(f"as for {base.name}: {one.reason}")
                yield f"{name} = {{ ns = {float(one.ns):g}, reason = {why} }}"
        yield ""


def _measured(prices: Mapping[str, list[float]], names: Sequence[str]) -> Iterable[str]:
    for name in names:
        if name in prices:
            values = prices[name]
            source = _text(f"{_PROGRAM}, {SINGLES[name]}; {_EACH.format(n=len(values))}")
            low_to_high = [max(0, number) for number in reading(values)]
            yield f"{name} = {{ ns = {low_to_high}, source = {source} }}"
    yield ""


def _version(version: str, toolchain: str, cpus: int, found: Measurements, own: Collection[str]) -> Iterable[str]:
    yield f'["{version}"]'
    yield f"toolchain = {_text(toolchain)}"
    yield ""
    if own:
        yield f'["{version}".steps]'
        steps = found.singles(version, "steps")
        yield from _measured({name: steps[name] for name in own}, ASSUMABLE)
    for name in [*TABLES, *OPTIONAL]:
        if (name in SELDOM or (name in ALONE.values() and cpus == 1)) and not found.rows(version, name):
            continue
        yield from _table(f'"{version}".{name}', name, version, found)


def _table(key: str, name: str, version: str, found: Measurements) -> Iterable[str]:
    count = found.processes(version, name)
    each = "" if name == "mark" else f"; {_EACH.format(n=count)}"
    yield f"[{key}]"
    yield f"source = {_text(f'{_PROGRAM}, {SOURCES[name]}{each}')}"
    yield f"unit = {_text(_UNITS.get(name, 'ns'))}"
    yield f"columns = {json.dumps([column.rstrip('#=~') for column in SPECS[name].split()])}"
    yield "rows = ["
    for row in found.rows(version, name):
        yield f"  {json.dumps(row)},"
    yield "]"
    yield ""
