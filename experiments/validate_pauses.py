"""Pauses as the machine would have shown them: interrupted, and waiting for memory that its host had taken away.

Simulated pauses have the price of a pause that nothing disturbs. Real ones meet what mallocs meet (validate_run.py,
validate_memory.py), by the same rules:

- One CPU at a time is waited for: that of who stops the world, of who has not stopped, of who is woken. So a pause meets
  as many interruptions as fall into its time on one CPU.
- Sweep termination resets two lists of spans for each span class (mgcsweep.go:finishsweep_m), which nobody has touched
  since the last cycle: of each list that was used a piece of its spine and a block, mostly on pages of their own. Runtimes
  patched to count them found 69, 110 and 165 pages in go1.27.3 and 58, 95 and 156 in go1.19.8 where programs had 5, 16 and 32
  span classes, and 107 and 99 where `allocsim calibrate` had 23 (mixed): 6 and 1.6 for each list, of the program's classes and
  of `_OWN_CLASSES` more, which is within a quarter of each. Each of those pages may be missing.

Left out: what mark termination and going on touch, an interruption in which the other P's CPU is already, and other threads on
the CPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.run import Result
from experiments.validate_figures import Seen
from experiments.validate_memory import Withheld, Writes
from experiments.validate_run import Noise
from sim.go.sizeclasses import class_to_size
from sim.units import NS, SEC
from workloads.spec import PPM, Mix, Recorded

if TYPE_CHECKING:
    from sim.metrics.cycles import Cycle

_TABLE = 6  # pages of mheap.central
_LISTS = 2  # of spans of a class that a cycle leaves to be reset: with room, and full
_PAGES_OF_A_LIST = 1.6
_RUNS = 101  # drawn of a simulated one, which may have no more than twenty pauses
_STREAM = 0x7061757365  # of these draws, apart from those of the same seed for mallocs
_OWN_CLASSES = 13  # of what the runtime and the program's start have allocated


def swept_pages(mix: Mix) -> float:
    """Pages that a sweep termination touches in a program that allocates so. Large objects are in no such list; that tiny
    objects share a class, and that headers may raise one, is left out."""
    classes = set()
    for kind in mix.objects:
        scannable = [kind.pointers_ppm > 0] if kind.pointers_ppm in (0, PPM) else [False, True]
        for low, high, _ in kind.sizes:
            first, last = np.searchsorted(class_to_size, (low, min(high, class_to_size[-1]))).tolist()
            classes |= {(one, scan) for one in range(first, last + 1) for scan in scannable}
    return _TABLE + _PAGES_OF_A_LIST * _LISTS * (_OWN_CLASSES + len(classes))


def with_pauses(ours: Seen, result: Result, noise: Noise, missing: Withheld) -> Seen:
    """The same with pauses as they would have been: medians of some runs, of which some cycles meet something long."""
    load = result.scenario.workload
    if not result.cycles or isinstance(load, Recorded):
        return ours
    seed, cycles = result.scenario.seed, result.cycles
    longer = paused([*cycles] * _RUNS, noise, missing.old, swept_pages(load.mix), seed).reshape(_RUNS, len(cycles), 2)
    more = median(longer.sum(axis=(1, 2)).tolist())
    pauses = longer.sum(axis=2) + [one.pause_time for one in cycles]
    total = ours.memstats["PauseTotalNs"] + more // NS
    longest = median(pauses.max(axis=1).tolist()) // NS
    return replace(ours, memstats={**ours.memstats, "PauseTotalNs": total}, pause_max=longest)


def paused(cycles: Sequence[Cycle], noise: Noise, old: Writes, pages: float, seed: int) -> Any:
    """Picoseconds by which the two pauses of each cycle are longer, at random; the same seed, the same pauses.

    ``old``: writes to pages used before; ``pages``: that a sweep termination touches.
    """
    random = np.random.Generator(np.random.Philox((_STREAM << 64) | seed))
    lengths = np.array([(one.pause_sweep_term, one.pause_mark_term) for one in cycles], float).reshape(-1, 2)
    longer = np.zeros_like(lengths)
    if len(noise.gaps_ns):
        longer += _drawn(random, random.poisson(noise.a_second * lengths / SEC), noise.gaps_ns)
    if len(old.long_ns):
        longer[:, 0] += _drawn(random, random.poisson(pages * old.share, len(cycles)), old.long_ns)
    return np.round(1000 * longer).astype(np.int64)


def _drawn(random: Any, many: Any, lengths: Any) -> Any:
    """The sums of so many lengths each."""
    flat = many.reshape(-1)
    drawn = random.choice(lengths, int(flat.sum()))
    return np.bincount(np.repeat(np.arange(len(flat)), flat), drawn, len(flat)).reshape(many.shape)
