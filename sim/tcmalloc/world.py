"""A program of threads whose allocator is TCMalloc: heap, caches, locks and prices on one clock."""

from __future__ import annotations

from sim.tcmalloc.heap import DEFAULT_OVERALL_CACHE_SIZE, TCMalloc, pages_of
from sim.tcmalloc.malloc import MAX_REQUEST
from sim.tcmalloc.prices import CAUSES, FREE, STEPS
from sim.tcmalloc.sizeclasses import MAX_SIZE
from sim.tcmalloc.stages import NUM_LOCKS, PAGE_HEAP_LOCK
from sim.tcmalloc.state import MAX_PAGES
from sim.tcmalloc.thread_pump import pump
from sim.threads.prices import ThreadPrices
from sim.threads.world import LockFigures, ThreadWorld


class TCMallocWorld(ThreadWorld):
    """One simulated program on TCMalloc; every thread has its cache from the start, the last one made is thread 0's."""

    heap: TCMalloc

    def __init__(
        self,
        nthreads: int,
        prices: ThreadPrices,
        seed: int,
        *,
        cpus: int | None = None,
        overall_cache_size: int = DEFAULT_OVERALL_CACHE_SIZE,
        release_rate: float = 1.0,
        log_lines: int = 0,
    ) -> None:
        heap = TCMalloc(nthreads, overall_cache_size, release_rate)
        for t in reversed(range(nthreads)):
            heap.new_cache(t)
        cpus = nthreads if cpus is None else cpus
        super().__init__(
            heap, pump, STEPS, CAUSES, FREE, NUM_LOCKS, MAX_REQUEST, nthreads, cpus, prices, seed, log_lines
        )

    def _make_variables(self, t: int, own: int, shared: int) -> None:
        self.heap.make_variables(t, own, shared)

    def _make_room(self, t: int) -> None:
        size = self._argument(t)
        self.heap.make_room(pages_of(size) if size > MAX_SIZE else MAX_PAGES)

    def locks(self) -> dict[str, LockFigures]:
        """What happened at the locks of classes together, and at that of the page heap."""
        return {
            "central lists": self.lock_figures(0, PAGE_HEAP_LOCK),
            "page heap": self.lock_figures(PAGE_HEAP_LOCK),
        }
