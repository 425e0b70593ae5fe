"""The machine that is calibrated: who it is, and how quiet it was.

Quiet is what three things say that know nothing of each other: the system's own account of CPU time (others' and what
a hypervisor took), a reference loop of arithmetic and of memory between repetitions, which takes the same time on a
machine that has not changed, and how far the repetitions of a measurement are apart. On virtual machines the first may
show nothing of a busy neighbour; the second does.
"""

from __future__ import annotations

import mmap
import os
import platform
import re
import resource
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
# percent above which a check becomes a caveat
LIMITS = {"steal_percent": 0.5, "others_percent": 2.0, "drift_percent": 10.0, "spread_percent": 20.0}
_SAID = {
    "steal_percent": "the hypervisor took {:g} % of the CPU time",
    "others_percent": "other processes used {:g} % of the CPU time",
    "drift_percent": "the same loop took up to {:g} % longer at times",
    "spread_percent": "repetitions of the loops of mallocs are {:g} % apart",
}


@dataclass(frozen=True, slots=True)
class Account:
    """CPU seconds since the start: of all processes, taken by a hypervisor, of this process and its children; and the
    time on the wall."""

    busy: float
    stolen: float
    ours: float
    wall: float

    @classmethod
    def now(cls) -> Account:
        """As it stands."""
        line = Path("/proc/stat").read_text().splitlines()[0]
        ticks = [int(field) / os.sysconf("SC_CLK_TCK") for field in line.split()[1:]]
        user, nice, system, _, _, irq, softirq, stolen = ticks[:8]
        spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        ours = sum(usage.ru_utime + usage.ru_stime for usage in spent)
        return cls(user + nice + system + irq + softirq, stolen, ours, time.monotonic())


def checks(before: Account, after: Account, references: Sequence[Mapping[str, float]], spread: float) -> dict[str, Any]:
    """How quiet the machine was, in percent."""
    cpu_time = max((after.wall - before.wall) * (os.cpu_count() or 1), 1e-9)
    others = (after.busy - before.busy) - (after.ours - before.ours)
    drift = 0.0
    for loop in references[0] if references else ():
        times = [reference[loop] for reference in references]
        drift = max(drift, max(times) / min(times) - 1)
    found = {
        "steal_percent": 100 * (after.stolen - before.stolen) / cpu_time,
        "others_percent": 100 * max(0.0, others) / cpu_time,
        "drift_percent": 100 * drift,
        "spread_percent": spread,
    }
    return {name: rounded(round(value, 1)) for name, value in found.items()}


def complaints(found: Mapping[str, float]) -> list[str]:
    """What of the checks says that the machine was busy."""
    return [_SAID[name].format(value) for name, value in found.items() if value > LIMITS[name]]


def back(mib: int) -> None:
    """Write to so much memory and give it back, as huge pages and as small ones, so that what begins now finds pages that
    the host of a virtual machine stands behind: the system gives out first what came back last."""
    if mib:
        private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        with mmap.mmap(-1, mib << 20, flags=private) as huge:
            with suppress(OSError):  # a system without huge pages
                huge.madvise(mmap.MADV_HUGEPAGE)
            for at in range(0, mib << 20, mmap.PAGESIZE):
                huge[at] = 1
        mmap.mmap(-1, mib << 20, flags=private | mmap.MAP_POPULATE).close()


def cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def _cpu_lines() -> Iterator[tuple[str, str]]:
    """Names and values of /proc/cpuinfo; none where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        name, _, value = line.partition(":")
        yield name.strip(), value.strip()


def cpu_model() -> str:
    """What the CPU calls itself."""
    return next((value for name, value in _cpu_lines() if name == "model name" and value), "CPU of unknown model")


# what go1.27 looks for before it scans spans with vector instructions (internal/runtime/gc/scan/scan_amd64.go)
_WIDE = {"avx512vl", "avx512bw", "avx512dq", "avx512vbmi", "avx512_bitalg", "gfni", "popcnt"}


def wide_vectors() -> bool:
    """Whether the CPU has the vector instructions that the collector of go1.27 scans dense spans with."""
    return any(name == "flags" and set(value.split()) >= _WIDE for name, value in _cpu_lines())


def describe() -> str:
    """CPU, kernel and memory, in a line."""
    virtual = any(name == "flags" and "hypervisor" in value.split() for name, value in _cpu_lines())
    what = f"{cpu_model()}{', virtual machine' if virtual else ''}"
    gib = memory("MemTotal") / (1 << 20)
    return f"{cpus()} CPUs of {what}, {platform.system()} {platform.release()}, {gib:.1f} GiB"


def memory(name: str) -> int:
    """A line of /proc/meminfo, KiB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0


def huge_pages() -> str:
    """The system's setting of transparent huge pages."""
    try:
        setting = _HUGE_PAGES.read_text()
    except OSError:
        return "none"
    return setting[setting.find("[") + 1 : setting.find("]")]


def timer(architecture: str, clock: Mapping[str, float]) -> tuple[str, float]:
    """The clock in words, and its step in nanoseconds."""
    per_ns, overhead, step = clock["per_ns"], clock["overhead"], clock["step"]
    what = f"RDTSCP at {per_ns:.3f} GHz" if architecture == "amd64" else "the monotonic clock of the runtime"
    taken = f"its overhead of {overhead:g} ticks ({overhead / per_ns:.1f} ns) is taken off every call"
    return f"{what}; {taken}; it counts in steps of {step:g} ticks", rounded(step / per_ns)


def rounded(number: float) -> float:
    """To four digits, and to a thousandth; whole numbers as such."""
    short = round(float(f"{number:.4g}"), 3)
    return int(short) if short == int(short) else short


def host_name() -> str:
    """This machine's name, as a file may be called."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", os.uname().nodename.partition(".")[0]).strip("-") or "this-machine"
