"""How much memory the scavenger leaves, and how fast it works (mirrors mgcscavenge.go, the pacing).

*How much.* At the end of each cycle two goals are set. The heap is to be retained up to what it will grow to, in pages:
110 % of what was in use at mark termination, scaled by how much the heap goal moved. And where a memory limit is set, all
of the program's memory is to come down to 95 % of it. A goal that is met already is switched off until the next cycle.
go1.19 multiplies the limit by 95, not by 0.95 (``memory_limit_goal_times_95``): no limit ever wakes its background.

*How fast.* The background works for a millisecond, then sleeps ``worked / sleep_ratio``; a PI controller moves the ratio so
that the work is 1 % of the CPU time of all Ps. When the controller overflows, the ratio it began with holds for 5 s.

Floats are doubles in the runtime's order of operations, times here nanoseconds as there. Runs once a cycle or a
millisecond of work, so plain Python. Left out: scavengeCostRatio, which is 0 on Linux.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import isfinite
from typing import TYPE_CHECKING

from sim.go.state import NO_GOAL

if TYPE_CHECKING:
    from sim.go.runtime import Heap

SCAVENGE_PERCENT = 1  # of the CPU time of all Ps
RETAIN_EXTRA = 10  # a tenth more than the heap is expected to use
REDUCE_EXTRA_PERCENT = 5  # under the memory limit
PHYS_PAGE = 4096
STARTING_SLEEP_RATIO = 0.001
MIN_WORK_TIME = 1e6  # nanoseconds: less would make the sleep too short to be reliable
COOLDOWN = 5_000_000_000


def gc_pace_scavenger(heap: Heap, heap_goal: int, last_heap_goal: int) -> None:
    """Set both goals of the scavenger, whenever the collector's pacing changes. (mgcscavenge.go:gcPaceScavenger)

    ``heap_goal`` and ``last_heap_goal`` are bytes, that of the cycle to come and that of the last; 0 for the latter means
    that no cycle has ended yet. The memory limit, ``last_heap_in_use`` and the ledger come from the heap.
    """
    fields = heap.fields
    limit = int(fields.memory_limit)
    factor = 100.0 - REDUCE_EXTRA_PERCENT if heap.facts.memory_limit_goal_times_95 else 1 - REDUCE_EXTRA_PERCENT / 100.0
    limit_goal = int(min(float(limit) * factor, float(NO_GOAL)))
    fields.memory_limit_goal = NO_GOAL if int(fields.mapped_ready) <= limit_goal else limit_goal
    fields.gc_percent_goal = NO_GOAL
    if last_heap_goal == 0:
        return
    goal = int(float(int(fields.last_heap_in_use)) * (float(heap_goal) / float(last_heap_goal)))
    goal += goal // RETAIN_EXTRA
    goal = (goal + PHYS_PAGE - 1) & ~(PHYS_PAGE - 1)
    if heap_retained(heap) - goal >= PHYS_PAGE:
        fields.gc_percent_goal = goal


def heap_retained(heap: Heap) -> int:
    """Bytes of the heap that are not released: what the runtime takes for its RSS. (mgcscavenge.go:heapRetained)"""
    return int(heap.fields.heap_in_use + heap.fields.heap_free)


def should_stop(heap: Heap) -> bool:
    """Whether both goals are met, so that the background stops. (mgcscavenge.go:scavengerState.init, shouldStop)"""
    fields = heap.fields
    return heap_retained(heap) <= int(fields.gc_percent_goal) and int(fields.mapped_ready) <= int(fields.memory_limit_goal)


@dataclass(slots=True)
class PIController:
    """A proportional-integral controller with a bounded output. (mgcscavenge.go:piController)

    ``kp``: gain; ``ti``: integral time; ``tt``: time in which the integral is reset when the output is at a bound.
    """

    kp: float
    ti: float
    tt: float
    min: float
    max: float
    err_integral: float = 0.0

    def next(self, value: float, setpoint: float, period: float) -> tuple[float, bool]:
        """The output after a sample, ``period`` after the last one; False: it overflowed and was reset."""
        raw = self.kp * (setpoint - value) + self.err_integral
        if not isfinite(raw):
            self.err_integral = 0.0
            return self.min, False
        output = min(max(raw, self.min), self.max)
        change = (self.kp * period / self.ti) * (setpoint - value) + (period / self.tt) * (output - raw)
        self.err_integral += change
        if not isfinite(self.err_integral):
            self.err_integral = 0.0
            return self.min, False
        return output, True


def _sleep_controller() -> PIController:
    """The one of the background scavenger; its periods are nanoseconds."""
    return PIController(kp=0.3375, ti=3.2e6, tt=1e9, min=0.001, max=1000.0)


@dataclass(slots=True)
class SleepPacer:
    """How long the background scavenger sleeps. (mgcscavenge.go:scavengerState.sleep)

    ``resets`` counts failures of the controller; scavtrace marks the next line after one.
    """

    sleep_ratio: float = STARTING_SLEEP_RATIO
    controller: PIController = field(default_factory=_sleep_controller)
    cooldown: int = 0  # nanoseconds left without the controller
    resets: int = 0

    def sleep_time(self, worked: float) -> int:
        """Nanoseconds to sleep after so many of work."""
        return int(max(worked, MIN_WORK_TIME) / self.sleep_ratio)

    def slept(self, worked: float, slept: int, gomaxprocs: int) -> None:
        """It worked and then slept for so many nanoseconds: set the ratio for the next time."""
        worked = max(worked, MIN_WORK_TIME)
        if self.cooldown > 0:
            self.cooldown = max(0, self.cooldown - (slept + int(worked)))
            return
        fraction = worked / ((float(slept) + worked) * float(gomaxprocs))
        ideal = float(SCAVENGE_PERCENT) / 100.0
        self.sleep_ratio, ok = self.controller.next(fraction, ideal, float(slept) + worked)
        if not ok:
            self.sleep_ratio = STARTING_SLEEP_RATIO
            self.cooldown = COOLDOWN
            self.resets += 1
