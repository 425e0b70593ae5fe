"""What `allocsim calibrate` runs: processes of the program truth/calibrate, each with the tables that it feeds.

Each process begins with a fresh heap. Repetitions take turns between toolchains, so that a machine that gets slower
gets slower for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from experiments.calibrate_objects import LARGE, SMALL
from experiments.machine_file import ALONE, KINDS, TIMED
from experiments.machine_small import LARGEST

_REFILLS = {"noscan": (64, 512, 2048, 8192, 32768), "scan": (64, 512)}
_PARTIALS = {"noscan": (64, 512, 2048), "scan": (64, 512)}
_SWEPT = (("n", 16), ("n", 64), ("p", 64), ("n", 1024), ("n", 8192), ("n", 32768))
SHAPES = (
    "list16",
    "list64",
    "list64shuf",
    "tree16",
    "objs64",
    "objs64shuf",
    "leaf64",
    "leaf64shuf",
    "objs512",
    "objs512shuf",
    "objs1024",
    "objs1024shuf",
    "objs2048",
    "objs2048shuf",
    "ptrs1M",
)
_MOST = 10  # collections of a heap; of the largest, one
_SMALL_MIB = 48  # that small objects turn over where all are small
WITH_GLOBALS = "calibrate-globals"  # the program that has a table of them
_HEAPS = (4, 32)  # MiB of heaps smaller than those that all else is measured in
SYSTEM = ("lock", "futex", "madvise", "faults")  # modes that know no allocator: one toolchain's program measures them


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: repetitions, each in processes of its own; MiB of objects up to 64 B, of other small ones,
    of large ones, of those swept and of those marked, and of those that small heaps turn over; calls of what goroutines
    do; seconds that memory is touched for before."""

    processes: int
    small_mib: int
    other_mib: int
    large_mib: int
    swept_mib: int
    marked_mib: int
    turned_mib: int
    singles: int
    touch_seconds: int


FULL = Effort(3, 64, 256, 512, 128, 256, 512, 2000, 40)
QUICK = Effort(2, 64, 64, 128, 32, 64, 128, 1000, 8)


@dataclass(frozen=True, slots=True)
class Run:
    """One process: arguments of the program, the tables that it feeds, and how it is run."""

    arguments: tuple[str, ...]
    tables: tuple[str, ...]
    procs: int | None = 1  # GOMAXPROCS, None for as many as there are
    traced: int = 0  # collections at the end whose gctrace line is wanted
    fresh_mib: int = 0  # of memory that it touches first, which a host is to stand behind by then
    program: str = ""  # which of the programs built of it, the plain one unless said


def runs(effort: Effort, cpus: int) -> list[Run]:
    """The processes of one toolchain in one repetition, in order."""
    few = range(1, min(cpus, 2) + 1)
    return [
        *(_small(effort, size, kind) for size in SMALL for kind in KINDS),
        Run(("steady", "-rounds=3"), ("steady",)),
        *(Run(("warm", f"-mib={mib}", f"-rounds={effort.turned_mib // mib}"), ("warm",)) for mib in _HEAPS),
        *(_mixed(effort, mib, procs) for mib in (*_HEAPS, effort.marked_mib) for procs in few),
        *(_alone(effort, mib, procs) for mib in (*_HEAPS, effort.marked_mib) for procs in few if procs > 1),
        *(_near(effort, mib, procs) for mib in (*_HEAPS, effort.marked_mib) for procs in few),
        *(run for procs in few for run in _of_hits(effort, procs)),
        *(_in_order(effort, mib) for mib in (*_HEAPS, effort.marked_mib)),
        *(_large(effort, size, kind) for size in LARGE for kind in KINDS),
        Run(("goroutines", f"-rounds={effort.singles}"), ("goroutine", "spawn", "stack_growth", "stop_the_world")),
        *(_sweep(effort, kind, size) for kind, size in _SWEPT),
        *(Run(("globals", "-rounds=25"), ("globals",), program=program) for program in ("", WITH_GLOBALS)),
        Run(("stacks",), ("steps",)),
        Run(("profile",), ("steps",)),
        *(
            Run(("barrier", f"-mib={mib}"), ("write_barrier",), procs)
            for mib in (*_HEAPS, effort.marked_mib)
            for procs in few
        ),
        Run(("fault", f"-mib={effort.large_mib}"), ("first_touch",), fresh_mib=effort.large_mib),
        *(
            _mark(effort, shape, mib, procs)
            for mib in (*_HEAPS, effort.marked_mib)
            for shape in SHAPES
            for procs in few
        ),
    ]


def system_runs(effort: Effort) -> list[Run]:
    """The processes that measure the system, in one repetition."""
    arguments = {"lock": (), "futex": (f"-rounds={effort.singles}",), "madvise": ("-mib=64",), "faults": ("-mib=32",)}
    return [Run((mode, *arguments[mode]), ("lock", "steps"), None) for mode in SYSTEM]


def _small(effort: Effort, size: int, kind: str) -> Run:
    mib = effort.small_mib if size <= 64 else effort.other_mib
    arguments = ["small", f"-size={size}", f"-kind={kind}", f"-mib={mib}"]
    tables = ["loop"]
    if size in _REFILLS[kind]:
        arguments.append("-refill")
        tables.append("refill")
    if size in _PARTIALS[kind]:
        arguments.append("-partial")
    return Run(tuple(arguments), tuple(tables), fresh_mib=mib)


def _large(effort: Effort, size: int, kind: str) -> Run:
    mib = effort.large_mib
    return Run(("large", f"-size={size}", f"-kind={kind}", f"-mib={mib}"), ("large",), fresh_mib=mib)


def _sweep(effort: Effort, letter: str, size: int) -> Run:
    kind = "scan" if letter == "p" else "noscan"
    return Run(("sweep", f"-size={size}", f"-kind={kind}", f"-mib={effort.swept_mib}"), ("sweep",))


def _mixed(effort: Effort, mib: int, procs: int) -> Run:
    rounds = 2 * effort.turned_mib // mib
    arguments = ("mixed", f"-mib={mib}", f"-rounds={rounds}")
    tables = (*TIMED, "alive", "marked", "withheld", *(() if procs > 1 else ("paused",)))
    return Run(arguments, tables, procs, traced=rounds // 2)


def _alone(effort: Effort, mib: int, procs: int) -> Run:
    """One goroutine of several Ps allocates, the others mark and sweep."""
    rounds = 2 * effort.turned_mib // mib
    return Run(("mixed", f"-mib={mib}", f"-rounds={rounds}", "-alone"), tuple(ALONE.values()), procs)


def _near(effort: Effort, mib: int, procs: int) -> Run:
    """Refills by how near their spans are, in a program of few types: of many, neighbours are seldom of one type."""
    rounds = 2 * effort.turned_mib // mib
    return Run(("mixed", f"-mib={mib}", f"-rounds={rounds}", "-most=2048", "-near"), ("refilled_near",), procs)


def _of_hits(effort: Effort, procs: int) -> Iterator[Run]:
    """Programs whose objects die at once, which on one P would tell nothing: it is what other CPUs do; and those of small types."""
    for alone in ([], ["-alone"]) if procs > 1 else ([],):
        if procs > 1:
            yield from (_hits(effort, mib, procs, *alone, "-unison") for mib in (*_HEAPS, effort.marked_mib))
        yield from (_hits(effort, mib, procs, *alone, f"-most={LARGEST}") for mib in _HEAPS)


def _hits(effort: Effort, mib: int, procs: int, *program: str) -> Run:
    """Other programs, which tell little but what hits take; small objects are many."""
    unison = "-unison" in program
    rounds = effort.turned_mib // mib if unison else _SMALL_MIB // mib
    tables = ["hit_after"] if unison else ["hit_after", "refilled_fresh_small"]
    told = (ALONE[name] if "-alone" in program else name for name in tables)
    return Run(("mixed", f"-mib={mib}", f"-rounds={max(1, rounds)}", *program), tuple(told), procs)


def _in_order(effort: Effort, mib: int) -> Run:
    """On one P: what order does to marking."""
    rounds = 2 * effort.turned_mib // mib
    return Run(("mixed", f"-mib={mib}", f"-rounds={rounds}", "-inorder"), ("marked_in_order",), traced=rounds // 2)


def _mark(effort: Effort, shape: str, mib: int, procs: int) -> Run:
    """More collections of smaller heaps: a line of gctrace tells microseconds."""
    cycles = min(effort.marked_mib // mib, _MOST)
    arguments = ("mark", f"-shape={shape}", f"-mib={mib}", f"-rounds={cycles}")
    return Run(arguments, ("mark",), procs, traced=cycles)
