"""A program of threads whose allocator is one of the textbooks': heap, one lock and prices on one clock."""

from __future__ import annotations

from sim.textbook.heap import DEFAULT_ALIGN_BYTES, DEFAULT_GROW_BYTES, Textbook
from sim.textbook.lock_pump import NUM_LOCKS, pump
from sim.textbook.malloc import MAX_REQUEST
from sim.textbook.prices import CAUSES, FREE, STEPS
from sim.textbook.state import BASES, NUM_REGIONS
from sim.threads.prices import ThreadPrices
from sim.threads.world import LockFigures, ThreadWorld

_OS_PAGE = 4096


class TextbookWorld(ThreadWorld):
    """One simulated program on a textbook allocator; ``policy`` and ``order`` as `Textbook` has them."""

    heap: Textbook

    def __init__(
        self,
        policy: str,
        nthreads: int,
        prices: ThreadPrices,
        seed: int,
        *,
        order: str | None = None,
        cpus: int | None = None,
        align_bytes: int = DEFAULT_ALIGN_BYTES,
        grow_bytes: int = DEFAULT_GROW_BYTES,
        log_lines: int = 0,
    ) -> None:
        heap = Textbook(policy, order, nthreads, align_bytes, grow_bytes)
        cpus = nthreads if cpus is None else cpus
        super().__init__(
            heap, pump, STEPS, CAUSES, FREE, NUM_LOCKS, MAX_REQUEST, nthreads, cpus, prices, seed, log_lines
        )

    def _make_variables(self, t: int, own: int, shared: int) -> None:
        self.heap.make_variables(own, shared)

    def _make_room(self, t: int) -> None:
        self.heap.make_room()
        regions = self.heap.arrays["regions"]
        highest = max(int(regions["end"][i]) - BASES[i] for i in range(NUM_REGIONS))
        end = highest + self._argument(t) + 2 * int(self.heap.fields.grow_bytes)
        self.clock.at_least("touched", NUM_REGIONS * (end // _OS_PAGE + 1))

    def locks(self) -> dict[str, LockFigures]:
        """What happened at the one lock."""
        return {"global": self.lock_figures()}
