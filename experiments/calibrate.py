"""`allocsim calibrate`: what the paths of real Go cost on this machine, as a machine file.

The program truth/calibrate is built with each toolchain and run in fresh processes (calibrate_plan.py), which print
rows of the tables (calibrate_tables.py); a file is made of them (calibrate_file.py) and read back, prices are derived
from it, and what does not hold together (calibrate_check.py) is measured again before anything is kept. How quiet the
machine was (calibrate_host.py) goes into the file.

A toolchain is recorded under the version that stands for it in the model (`toolchain.Toolchain.model`).
"""

from __future__ import annotations

import datetime
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from experiments import calibrate_host as host
from experiments.calibrate_check import Problem, problems
from experiments.calibrate_file import About, write
from experiments.calibrate_globals import globals_file
from experiments.calibrate_objects import objects_file
from experiments.calibrate_plan import FULL, QUICK, WITH_GLOBALS, Effort, Run, runs, system_runs
from experiments.calibrate_tables import MACHINE, Measurements
from experiments.errors import InputError
from experiments.machine_file import Machine, parse_machine, read_machine
from experiments.toolchain import NoGo, Toolchain, program

_BASE = "epyc-2core"  # whose assumed prices stand where nothing was measured
_AGAIN = 2  # times that a table is measured again
_TIMEOUT = 300  # seconds of one process
_CHECKED_LINKNAMES = (1, 23)  # first version whose linker refuses names of the runtime unless told not to
_SETTINGS = ("GOGC", "GOMEMLIMIT", "GODEBUG", "GOMAXPROCS", "GOTRACEBACK")
_NEEDED_KIB = {True: 2 << 20, False: 1 << 20}  # free memory, for all of it and for --quick
CAVEATS = (
    (
        "Pointerful objects over 512 B were requested 8 bytes short, so that with the malloc header of later versions they "
        "fill the named class."
    ),
    (
        "Single calls during which the system gave the CPU to somebody else are left out, unless they are most of a "
        "process's; loops are timed by CPU time."
    ),
    "Where a version serves requests over 32760 B as large objects, its row of 32768 B noscan is one.",
)

Say = Callable[[str], None]


@dataclass(slots=True)
class Session:
    """One calibration: what it is called, toolchains and their programs by version, who is told of it, and what was
    measured so far."""

    name: str
    chosen: Sequence[Toolchain]
    programs: Mapping[str, Path]
    effort: Effort
    say: Say
    found: Measurements = field(default_factory=Measurements)
    before: host.Account = field(default_factory=host.Account.now)
    references: list[Mapping[str, float]] = field(default_factory=list)
    clock: tuple[str, float] = ("", 0.0)
    touched: str = ""

    @property
    def newest(self) -> str:
        """The version whose program measures what is not the allocator's."""
        return max(self.programs)

    def measure(self, version: str, run: Run) -> None:
        """One process."""
        self.found.add(version, run, *execute(self.programs[version], run))

    def everything(self) -> Iterator[float]:
        """All repetitions, toolchains in turn; after each process of theirs, the share that is done."""
        plan = runs(self.effort, host.cpus())
        self.touch()
        self.reference()
        for repetition in range(self.effort.processes):
            for number, run in enumerate(plan):
                for version in self.programs:
                    self.measure(version, run)
                yield (repetition + number / len(plan)) / self.effort.processes
            for run in system_runs(self.effort):
                self.measure(self.newest, run)
            self.reference()
            yield (repetition + 1) / self.effort.processes

    def again(self, version: str, table: str, rows: Sequence[str] = ()) -> None:
        """More processes of all that feeds a table, or of those with these arguments."""
        system = version == MACHINE and table != "first_touch"
        plan = system_runs(self.effort) if system else runs(self.effort, host.cpus())
        own = [version] if version else [self.newest] if system else list(self.programs)
        for run in plan:
            if table in run.tables and set(rows) <= set(run.arguments):
                for each in own * self.effort.processes:
                    self.measure(each, run)
        self.reference()

    def touch(self) -> None:
        """Write to memory once, since a host may stand behind it only then, and say what that took."""
        mib = host.memory("MemAvailable") >> 11  # half of it
        run = Run(("touch", f"-mib={mib}", f"-rounds={self.effort.touch_seconds}"), ())
        found = self._alone(run, "touch")
        self.touched = (
            f"Before measuring, {found['mib']:.0f} MiB of memory were touched once, at {found['mean']:.0f} ns per 4 KiB, "
            "since the host of a virtual machine may stand behind memory only then; some faults may still show it."
        )

    def reference(self) -> None:
        """Time the reference loops, and read the clock's own facts."""
        run = Run(("reference",), ())
        self.references.append(self._alone(run, "reference"))

    def _alone(self, run: Run, table: str) -> Mapping[str, float]:
        """A process whose rows are no table of the file."""
        own = Measurements()
        own.add(MACHINE, run, *execute(self.programs[self.newest], run))
        if (MACHINE, "clock") in own.tables:
            ((architecture,), values), *_ = own.tables[MACHINE, "clock"].items()
            self.clock = host.timer(str(architecture), {name: numbers[0] for name, numbers in values.items()})
        (values, *_) = own.tables[MACHINE, table].values()
        return {name: numbers[0] for name, numbers in values.items()}

    def text(self, notes: Sequence[str] = ()) -> tuple[str, list[str]]:
        """The file of what was measured so far, and what says that the machine was busy."""
        facts, busy = self.about(notes)
        return write(facts, self.found, read_machine(_BASE)), busy

    def about(self, notes: Sequence[str] = ()) -> tuple[About, list[str]]:
        """What the file says beside its tables, and what of it says that the machine was busy."""
        spread = self.found.spread("loop", "warm_loop")
        checks = host.checks(self.before, host.Account.now(), self.references, spread)
        busy = host.complaints(checks)
        quick = ["A quick calibration: two processes each, and less memory in each."] if self.effort is QUICK else []
        stand_ins = [
            f"{go.model} is Go {go.version} here, the version that was there of those that it stands for."
            for go in self.chosen
            if go.distance
        ]
        facts = About(
            name=self.name,
            date=datetime.date.today().isoformat(),
            description=host.describe(),
            cpus=host.cpus(),
            wide_vectors=host.wide_vectors(),
            huge_pages=host.huge_pages(),
            timer=self.clock[0],
            timer_step_ns=self.clock[1],
            loop_mib=self.effort.other_mib,
            caveats=[self.touched, *CAVEATS, *quick, *stand_ins, *(f"Busy: {line}." for line in busy), *notes],
            checks=checks,
            toolchains={go.model: f"Go {go.version}, {_experiments()}" for go in self.chosen},
        )
        return facts, busy


def execute(built: Path, run: Run) -> tuple[str, str]:
    """What a process printed, and its complaints; NoGo with the first of them if it failed."""
    env = {name: value for name, value in os.environ.items() if name not in _SETTINGS}
    if run.procs is not None:
        env["GOMAXPROCS"] = str(run.procs)
    if run.traced:
        env["GODEBUG"] = "gctrace=1"
    command = [str(built.with_name(run.program) if run.program else built), *run.arguments]
    host.back(run.fresh_mib)
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=_TIMEOUT)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoGo(f"calibrate {' '.join(run.arguments)} did not run: {error}") from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line and not line.startswith(("gc ", "\t", "goroutine "))]
        why = lines[0] if lines else f"exit status {done.returncode}"
        raise NoGo(f"calibrate {' '.join(run.arguments)} failed: {why}")
    return done.stdout, done.stderr


def build_flags(go: Toolchain) -> list[str]:
    """Flags that let the program call functions of the runtime."""
    return ["-ldflags=-checklinkname=0"] if go.minor >= _CHECKED_LINKNAMES else []


@dataclass(frozen=True, slots=True)
class Calibration:
    """The text of a machine file, the same as read, and in one line each what says that the machine was busy."""

    text: str
    machine: Machine
    busy: Sequence[str]


def calibrate(
    chosen: Sequence[Toolchain], effort: Effort, name: str, say: Say, progress: Callable[[float], None]
) -> Calibration:
    """Measure all there is to be measured. ``say`` is told, in a line, what is measured again and why.

    InputError: no Linux, too little memory, or tables that contradict each other however often they are measured.
    """
    check(effort)
    with ExitStack() as stack:
        programs = {go.model: stack.enter_context(built_with(go)) for go in chosen}
        session = Session(name, chosen, programs, effort, say)
        for share in session.everything():
            progress(share)
        return settle(session)


def check(effort: Effort) -> None:
    """InputError if this machine cannot be calibrated: no Linux, or too little memory."""
    if not Path("/proc/stat").exists():
        raise InputError("calibrate measures with the means of Linux; run it there")
    needed, free = _NEEDED_KIB[effort is FULL], host.memory("MemAvailable")
    if free < needed:
        raise InputError(f"calibrate needs {needed >> 10} MiB of free memory, there are {free >> 10}; make room first")


@contextmanager
def built_with(go: Toolchain) -> Iterator[Path]:
    """The program, built with a toolchain, and the one with globals beside it; NoGo if that fails."""
    files = {"objects.go": objects_file(), "globals.go": globals_file(None)}
    beside = {WITH_GLOBALS: {"globals.go": globals_file(go.model)}}
    with program(go, "calibrate", build_flags(go), files, beside) as path:
        yield path


def settle(session: Session) -> Calibration:
    """The file, once it holds together; what still does not after measuring again is a caveat, or refused."""
    for attempt in range(_AGAIN + 1):
        text, busy = session.text()
        wrong = problems(text, session.name)
        if not wrong or attempt == _AGAIN:
            break
        for one in {(one.version, one.table, one.rows): one for one in wrong}.values():
            session.say(f"{_told(one)}; measuring it again")
            session.again(one.version, one.table, one.rows)
    for problem in wrong:
        if problem.fatal:
            raise InputError(f"measured {_AGAIN + 1} times: {problem.what}; calibrate when the machine is quiet")
    if wrong:
        text, busy = session.text([f"Not resolved: {_told(one)}." for one in wrong])
    return Calibration(text, parse_machine(text, session.name), busy)


def _told(problem: Problem) -> str:
    """What is wrong, with the table it is wrong with."""
    what, place = problem.what, f"{problem.version}.{problem.table}".removeprefix(".")
    return what if what.startswith(place) else f"{place}: {what}"


def _experiments() -> str:
    """How the toolchains are set up, as far as the environment says it."""
    chosen = os.environ.get("GOEXPERIMENT")
    return f"GOEXPERIMENT={chosen}" if chosen else "defaults"
