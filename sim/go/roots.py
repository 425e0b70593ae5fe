"""What the program itself holds: the goroutines' rows and the variables their operations name.

Every goroutine has a run of the table of variables, which moves to a longer run when a batch names more of them; the
variables of the whole program (places of a shared cache, handles of single objects) have a table of their own. The
operations of a batch are checked here once, so that the compiled code need not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sim.go.pumpcalls import begin, drop_all
from sim.jit import address_of
from sim.units import throw

if TYPE_CHECKING:
    from sim.go.goroutine import Goroutine, Work
    from sim.go.runtime import Heap

_LEAST = 16  # shortest run of variables


class Roots:
    """Rows and variables of the goroutines of one heap."""

    def __init__(self, heap: Heap) -> None:
        self.heap = heap
        self._runs: dict[int, tuple[int, int]] = {}  # goroutine id -> first variable and length
        self._free_runs: dict[int, list[int]] = {}  # by length, a power of two
        self._end = 0
        self._handles: list[int] = []  # that name nothing
        self._held: set[int] = set()  # those that do
        self._handles_made = False
        self._shared = 0
        self.reserve_goroutines(64)

    def reserve_goroutines(self, n: int) -> None:
        """Have rows for goroutines 0..n-1, and as many places in the queue of assists."""
        self.heap.tables.at_least("goroutines", n)
        tables, fields, rows = self.heap.tables, self.heap.fields, len(self.heap.arrays["goroutines"])
        if rows > len(self.heap.arrays["assist_queue"]):
            ring = self.heap.arrays["assist_queue"]
            waiting = [int(ring[i % len(ring)]) for i in range(int(fields.assist_head), int(fields.assist_tail))]
            tables.allocate("assist_queue", rows)[: len(waiting)] = waiting
            tables.allocate("assist_ready", rows)
            fields.assist_head, fields.assist_tail = 0, len(waiting)

    def reserve_shared(self, n: int) -> int:
        """Reserve n variables of the whole program; the first of them."""
        first = self._shared
        self._shared += n
        self.heap.tables.at_least("shared_variables", self._shared)
        return first

    def reserve_shared_up_to(self, n: int) -> None:
        """Have variables 0..n-1 of the whole program, for one stream that numbers them itself; Throw if handles do too."""
        if self._shared < n:
            if self._handles_made:
                throw("handles and a stream both number the program's variables")
            self.reserve_shared(n - self._shared)

    def new_handle(self) -> int:
        """A variable of the whole program for one object."""
        self._handles_made = True
        handle = self._handles.pop() if self._handles else self.reserve_shared(1)
        self._held.add(handle)
        return handle

    def give_up_handle(self, handle: int) -> None:
        """The handle's object is about to be dropped; Throw if it has none."""
        if handle not in self._held:
            throw(f"drop of {handle!r}, which names no object: it is no handle, or was dropped before")
        self._held.remove(handle)

    def free_handle(self, handle: int) -> None:
        """Its drop was run: the handle may name another object."""
        self._handles.append(handle)

    def _run_of(self, g: Goroutine, n: int) -> tuple[int, int]:
        """A goroutine's run of at least n variables, moved to a longer one if need be."""
        base, length = self._runs.get(g.id, (0, 0))
        if n <= length:
            return base, length
        longer = max(_LEAST, 1 << (n - 1).bit_length())
        free = self._free_runs.get(longer)
        if free:
            new = free.pop()
        else:
            new = self._end
            self._end += longer
            self.heap.tables.at_least("variables", self._end)
        table = self.heap.arrays["variables"]
        table[new : new + length] = table[base : base + length]
        table[new + length : new + longer] = 0
        if length:
            table[base : base + length] = 0
            self._free_runs.setdefault(length, []).append(base)
        self._runs[g.id] = (new, longer)
        return new, longer

    def submit(self, g: Goroutine, work: Work) -> None:
        """Give a goroutine its next batch; Throw names the first operation that may not be run."""
        ops: Any = work.ops
        base, _ = self._run_of(g, work.variables)
        bad = begin(self.heap.header, g.id, address_of(ops), len(ops), base, work.variables)
        if bad >= 0:
            throw(f"operation {bad} of a batch of goroutine {g.label} may not be run: {ops[bad]}")

    def release(self, g: Goroutine) -> None:
        """A goroutine ended: what it held is dead, its variables are free."""
        base, length = self._runs.pop(g.id, (0, 0))
        drop_all(self.heap.header, g.id, base, length)
        if length:
            self._free_runs.setdefault(length, []).append(base)
