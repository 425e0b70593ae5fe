"""Made-up cycles for tests of what speaks of them: every number different, so that a mix-up shows."""

from dataclasses import replace

from sim.metrics.cycles import Cycle, Swept
from sim.units import MIB, MS, US

FIRST = Cycle(
    number=1,
    kind="heap",
    t_sweep_term=10 * MS,
    t_mark=10 * MS + 50 * US,
    t_mark_term=12 * MS,
    t_end=12 * MS + 70 * US,
    stop_sweep_term=20 * US,
    stop_mark_term=30 * US,
    pause_sweep_term=49 * US,
    pause_mark_term=69 * US,
    assist_time=300 * US,
    dedicated_time=400 * US,
    fractional_time=150 * US,
    idle_time=90 * US,
    procs=4,
    stw_procs=2,
    heap0=4 * MIB,
    heap1=5 * MIB,
    heap2=3 * MIB,
    heap_goal_start=6 * MIB + 1,
    heap_goal=6 * MIB,
    trigger=4 * MIB - 9,
    triggered=4 * MIB - 8,
    heap_scan=2 * MIB,
    assist_ratio=0.75,
    dedicated_workers=1,
    fractional_goal=0.25,
    runway=1 * MIB,
    cons_mark=0.5,
    heap_scan_work=1_000_000,
    stack_scan_work=20_000,
    globals_scan_work=3_000,
    expected_scan_work=2_000_000,
    stack_scan=7 * MIB,
    max_stack_scan=8 * MIB,
    globals_scan=9 * MIB,
    gc_total_time=1100 * US,
    gc_idle_time=100 * US,
    total_time=48 * MS,
)
SWEPT = Swept(
    t_done=14 * MS,
    heap_live=4 * MIB,
    heap_live_basis=3 * MIB,
    pages_swept=600,
    pages_per_byte=0.000125,
    spans_swept=500,
    spans_freed=40,
    objects_freed=9_000,
    bytes_freed=2 * MIB,
    released_bg=100 << 10,
    released_eager=200 << 10,
    heap_released=300 << 10,
    heap_in_use=7 * MIB,
    heap_retained=8 * MIB,
)
TIMES = ("t_sweep_term", "t_mark", "t_mark_term", "t_end")


def cycles(n, kinds=("heap", "heap", "forced", "time")):
    """So many cycles 10 ms apart, all swept but the last."""
    found = []
    for i in range(n):
        moved = {name: getattr(FIRST, name) + 10 * MS * i for name in TIMES}
        swept = replace(SWEPT, t_done=SWEPT.t_done + 10 * MS * i, spans_swept=500 + i) if i < n - 1 else None
        sums = {name: getattr(FIRST, name) * (i + 1) for name in ("gc_total_time", "gc_idle_time", "total_time")}
        found.append(
            replace(FIRST, number=i + 1, kind=kinds[i % len(kinds)], heap0=(4 + i) * MIB, swept=swept, **moved, **sums)
        )
    return found
