"""A program that runs against the pacer alone, cycle by cycle: no heap, no clock, only rates.

Every 500 us the pacer revises its assist ratio r (bytes of marking per byte allocated). A share u of the CPUs marks and
the rest allocates; r = scan rate * u / (allocation rate * (1 - u)) gives u, and it is 25 % at least: dedicated workers.
Globals are scanned first, then stacks, then the heap.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import pi, sin

from sim.engine.rng import Stream
from sim.go import gccontroller as gc
from sim.go.mgcpacer import BACKGROUND_UTILIZATION, NO_LIMIT
from sim.go.params import VERSIONS, set_facts
from sim.go.state import new_tables

PERIOD = 500_000  # ns
KIB_PER_MS = 1024 / 1e6  # bytes per ns


def controller(version="go1.27", gc_percent=100, memory_limit=NO_LIMIT):
    """Tables of a pacer with no memory around it, as the runtime's tests have it."""
    tables = new_tables()
    set_facts(tables.fields, VERSIONS[version])
    gc.init(tables.header, gc_percent, memory_limit)
    return tables


def constant(x):
    return lambda n: x


def ramp(height, length):
    """From 0 to height in so many cycles, and then that."""
    return lambda n: height * min(n, length) / length


def peak(height):
    """Once, in the first cycle."""
    return lambda n: height if n == 0 else 0.0


def wave(height, period):
    return lambda n: height * sin(2 * pi * (n % period) / period)


def jitter(height, seed):
    """Evenly between -height and height."""
    stream = Stream(seed, "jitter")
    values = [height * (2 * stream.below(1 << 30) / (1 << 30) - 1) for _ in range(200)]
    return lambda n: values[n]


def later(curve, cycles):
    return lambda n: curve(n - cycles) if n >= cycles else 0.0


def total(*curves):
    return lambda n: sum(curve(n) for curve in curves)


@dataclass
class Cycle:
    """What one cycle showed; bytes."""

    marked: int  # by the last cycle
    trigger: int
    peak: int
    goal: int
    utilization: float  # share of the CPUs that marked, assists included
    allocated_before: int  # from the last cycle's end to this one's trigger
    length: float  # ns of marking

    @property
    def goal_ratio(self):
        return self.peak / self.goal

    @property
    def trigger_ratio(self):
        return (self.trigger - self.marked) / (self.goal - self.marked)

    @property
    def runway(self):
        return self.goal - self.trigger


@dataclass
class Program:
    """Rates in KiB per ms of CPU time; all curves are functions of the cycle's number, from 0 on."""

    alloc_rate: Callable
    scan_rate: Callable
    growth: Callable  # of what is live
    scannable: Callable = field(default_factory=lambda: constant(1.0))
    stacks: Callable = field(default_factory=lambda: constant(8192))
    globals_bytes: int = 32 << 10
    gc_percent: int = 100
    memory_limit: int = NO_LIMIT
    cores: int = 8

    def run(self, version, cycles):
        """So many cycles on a new pacer, as `Cycle` s."""
        tables = controller(version, self.gc_percent, self.memory_limit)
        found, black = [], 0
        for n in range(cycles):
            cycle, black = self._cycle(tables, n, black)
            found.append(cycle)
        return found

    def _cycle(self, tables, n, black_before):
        h, fields = tables.header, tables.fields
        share = min(max(self.scannable(n), 0.0), 1.0)
        marked = int(fields.heap_marked)
        live = int((marked - black_before) * self.growth(n)) if n else 256 << 10
        fields.max_stack_scan = stacks = int(self.stacks(n)) // 2048 * 2048
        fields.globals_scan = self.globals_bytes
        fields.heap_live = max(gc.trigger(h)[0], marked)
        fields.heap_scan += int((int(fields.heap_live) - marked) * share)
        before = int(fields.heap_live) - marked
        gc.start_cycle(h, 0, self.cores, False)
        elapsed, assists, black = self._mark(tables, n, [self.globals_bytes, stacks, int(live * share)], share)
        cycle = Cycle(
            marked=marked,
            trigger=int(fields.triggered),
            peak=int(fields.heap_live),
            goal=int(gc.heap_goal(h)),
            utilization=assists / (elapsed * self.cores) + BACKGROUND_UTILIZATION,
            allocated_before=before,
            length=elapsed,
        )
        fields.assist_time = int(assists)
        gc.end_cycle(h, int(elapsed), self.cores)
        gc.reset_live(h, live + black)
        gc.commit(h, False)
        return cycle, black

    def _mark(self, tables, n, left, share):
        """Work off what is left; wall time and assist time in ns, bytes allocated meanwhile."""
        fields = tables.fields
        alloc_rate = max(self.alloc_rate(n), 1e-4) * KIB_PER_MS * self.cores  # bytes per ns of wall time
        scan_rate = max(self.scan_rate(n), 1e-4) * KIB_PER_MS * self.cores
        elapsed = assists = 0.0
        black = 0
        while any(left):
            wanted = float(fields.assist_work_per_byte) * alloc_rate
            u = max(wanted / (wanted + scan_rate), BACKGROUND_UTILIZATION)
            could = int(scan_rate * PERIOD * u)
            work, did = could, []
            for i, rest in enumerate(left):
                done = min(work, rest)
                did.append(done)
                left[i] -= done
                work -= done
            period = PERIOD if work == 0 else sum(did) / (scan_rate * u)
            allocated = int(alloc_rate * period * (1 - u))
            fields.heap_live += allocated
            fields.heap_scan += int(allocated * share)
            fields.globals_scan_work += did[0]
            fields.stack_scan_work += did[1]
            fields.heap_scan_work += did[2]
            gc.revise(tables.header)
            elapsed += period
            assists += period * self.cores * (u - BACKGROUND_UTILIZATION)
            black += allocated
        return elapsed, assists, black
