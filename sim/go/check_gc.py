"""The collector's invariants over a cycle, checked where the world is stopped anyway: for tests and ``--check``.

`watch` makes a `CycleChecker` of a world; its collector then tells it of each stage of a cycle (mgc.py):

- *swept*: the sweep is over. No set holds a span that is still to be swept, every span in use is swept, and the pages
  swept are those that were in use when the sweep began.
- *marking*: mark set-up is done. Marked is what is allocated and not dead, and every P's current tiny block.
- *marked*: nothing is left to mark. Marked objects are allocated; nothing that was dead when the cycle began is marked,
  tiny blocks apart; nothing live is not; what was marked stayed so. Scan work done is all there was, of each kind.
  Credit for it is either stolen, paid to assists that waited, or left.
- *sweeping*: the next sweep began. Live is what was marked, and every span is to be swept.

At each of them: ``bytes_marked`` is the sum of marked slots, ``heap_live`` not less than what objects take, every P's
times add up to the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sim.go.check import low_bits
from sim.go.markturns import GLOBALS, HEAP_PART, STACKS
from sim.go.mgcmark import CREDIT_SLACK
from sim.go.runtime import Heap
from sim.go.sizeclasses import MIN_SIZE_FOR_MALLOC_HEADER
from sim.go.state import GC_MARK, GC_OFF, SPAN_IN_USE, TINY_SPAN_CLASS
from sim.units import Throw, throw

if TYPE_CHECKING:
    from sim.go.world import World

ROUNDED = 64  # bytes of a cycle's scan work that rounding may misplace, beside two an assist

class Slots:
    """Bitmaps of every span in use, by word: ``span`` and ``at`` (index of the word in its span) name it."""

    def __init__(self, heap: Heap) -> None:
        spans = heap.arrays["spans"][: int(heap.fields.nspans)]
        used = np.flatnonzero(spans.state == SPAN_IN_USE)
        nwords = (spans.nelems[used].astype(np.int64) + 63) >> 6
        self.heap = heap
        self.span = np.repeat(used, nwords)
        self.at = np.arange(len(self.span)) - np.repeat(np.cumsum(nwords) - nwords, nwords)
        self.elemsize = spans.elemsize[self.span]
        self.allocated = self._words("alloc_bits") | low_bits(spans.freeindex[self.span].astype(np.int64) - 64 * self.at)
        self.marked = self._words("mark_bits")
        self.dead = self._words("dead_bits")

    def _words(self, name: str) -> Any:
        first = self.heap.arrays["spans"][name][self.span].astype(np.int64)
        return self.heap.arrays["words"][first + self.at]

    def tiny_blocks(self) -> Any:
        """Bits of the Ps' current tiny blocks."""
        found = np.zeros(len(self.span), np.uint64)
        for cache in self.heap.arrays["mcaches"]:
            if cache["tiny_span"]:
                word, bit = divmod(int(cache["tiny_slot"]), 64)
                found[(self.span == cache["tiny_span"]) & (self.at == word)] |= np.uint64(1 << bit)
        return found

    def bytes(self, bits: Any) -> int:
        """Bytes of the slots whose bits are set."""
        return int((np.bitwise_count(bits).astype(np.int64) * self.elemsize).sum())

    def none(self, bits: Any, what: str) -> None:
        """Throw, naming the first, if any slot's bit is set."""
        bad = np.flatnonzero(bits)
        if len(bad):
            word = int(bits[bad[0]])
            slot = 64 * int(self.at[bad[0]]) + (word & -word).bit_length() - 1
            throw(f"slot {slot} of span {int(self.span[bad[0]])} {what}")


def check_marking(heap: Heap) -> None:
    """Mark set-up: just what is allocated and not dead is marked, and current tiny blocks."""
    if heap.fields.gc_phase != GC_MARK:
        throw(f"mark set-up left phase {heap.fields.gc_phase}")
    slots = Slots(heap)
    wanted = (slots.allocated & ~slots.dead) | slots.tiny_blocks()
    slots.none(slots.marked & ~wanted, "is marked, but free or dead")
    slots.none(wanted & ~slots.marked, "is live, but not marked")


def check_marked(heap: Heap) -> None:
    """Mark termination: nothing live is unmarked, nothing free is marked, and all work is done."""
    fields = heap.fields
    slots = Slots(heap)
    slots.none(slots.marked & ~slots.allocated, "is marked, but free")
    slots.none(slots.allocated & ~slots.dead & ~slots.marked, "is live, but not marked")
    for part, name in ((STACKS, "stack"), (GLOBALS, "globals"), (HEAP_PART, "heap")):
        done, whole = int(fields[f"{name}_scan_work"]), int(fields.mark_works[part])
        if done != whole:
            throw(f"{done} bytes of {name} scan work are done, there were {whole}")
    if fields.mark_workers or fields.mark_assists or fields.idle_mark_workers:
        throw(f"{fields.mark_workers} workers, {fields.mark_assists} assists still mark when marking is over")


def check_credit(heap: Heap) -> None:
    """The ledger of scan work: work done is the background's or assists', credit is stolen, paid out or left.

    Exact but for what is rounded: less than a byte when an assist ends and when a worker joins or leaves.
    """
    fields = heap.fields
    left = int(fields.background_scan_work + fields.returned_scan_work - fields.stolen_scan_work)
    left -= int(fields.paid_scan_work)
    if left != int(fields.bg_scan_credit):
        throw(f"of the credit for background marking {left} bytes are left, bg_scan_credit says {fields.bg_scan_credit}")
    done = int(fields.stack_scan_work + fields.globals_scan_work + fields.heap_scan_work)
    if not 0 <= int(fields.background_scan_work + fields.mark_unflushed) <= done:
        throw(f"the background has credit for {fields.background_scan_work} bytes of scan work, {done} are done")
    assists = done - int(fields.background_scan_work + fields.mark_unflushed)
    if abs(assists - int(fields.assist_scan_work)) > 2 * int(fields.assists) + ROUNDED:
        throw(f"assists have done {assists} bytes of scan work, credited are {fields.assist_scan_work}")
    if not 0 <= int(fields.mark_unflushed) < CREDIT_SLACK:
        throw(f"{fields.mark_unflushed} bytes of the background's scan work are no credit yet")


def check_bytes_marked(heap: Heap) -> None:
    """bytes_marked is what the marked slots take."""
    slots = Slots(heap)
    marked = slots.bytes(slots.marked)
    if marked != int(heap.fields.bytes_marked):
        throw(f"marked slots take {marked} bytes, bytes_marked says {heap.fields.bytes_marked}")


def check_page_marks(heap: Heap) -> None:
    """The first page of a span is marked if an object of it is and the runtime then marks pages (mheap.mark_span).

    Where spans carry their mark bits, one marked object of a span, or any number without pointers, need not do it; but
    any born in the mark phase does.
    """
    slots, arrays = Slots(heap), heap.arrays
    spans, count = np.unique(slots.span[slots.marked != 0], return_counts=True)
    rows = arrays["spans"][spans]
    inline = bool(heap.facts.inline_mark_bits) & (rows.elemsize >= 16) & (rows.elemsize <= MIN_SIZE_FOR_MALLOC_HEADER)
    must = ~inline | ((rows.spanclass & 1 == 0) & (count >= 2))
    page = rows.start_page
    words = arrays["arenas"]["page_marks"][arrays["arena_map"][page >> 13].astype(np.int64) - 1, (page & 8191) >> 6]
    marked = (words >> (page & 63).astype(np.uint64)) & np.uint64(1) != 0
    bad = np.flatnonzero(must & ~marked)
    if len(bad):
        throw(f"span {int(spans[bad[0]])} has marked objects, but its page is not marked")
    total = int(np.bitwise_count(arrays["arenas"]["page_marks"][: int(heap.fields.narenas)]).sum())
    if total != int(marked.sum()):
        throw(f"{total} pages are marked, {int(marked.sum())} of spans with marked objects")


def check_swept(heap: Heap) -> None:
    """The sweep is over: nothing waits for it, everything was."""
    fields, sets = heap.fields, heap.arrays["spansets"]
    sg = int(fields.sweepgen)
    if not fields.sweep_drained or fields.sweepers:
        throw(f"the sweep is not over: drained {fields.sweep_drained}, {fields.sweepers} sweepers")
    unswept = 1 - (sg >> 1 & 1)
    bad = np.flatnonzero((sets.pushed != sets.popped) & (np.arange(len(sets)) % 2 == unswept))
    if len(bad):
        throw(f"span set {int(bad[0])} still holds spans to sweep")
    spans = heap.arrays["spans"][: int(fields.nspans)]
    generation = spans.sweepgen.astype(np.int64)
    bad = np.flatnonzero((spans.state == SPAN_IN_USE) & (generation != sg) & (generation != sg + 3))
    if len(bad):
        throw(f"span {int(bad[0])} in use has sweepgen {int(generation[bad[0]])} of {sg}: it is not swept")
    if heap.fields.gc_phase == GC_OFF and (heap.arrays["mcaches"].flush_gen != sg).any():
        throw("a P's cache is older than the sweep that is over")


def check_heap_live(heap: Heap) -> None:
    """heap_live is an upper bound of what objects take: marked ones of spans to be swept, allocated ones of others.

    While marking nothing is known to be dead: it counts from what the last cycle left.
    """
    slots = Slots(heap)
    generation = heap.arrays["spans"].sweepgen[slots.span].astype(np.int64)
    sg = int(heap.fields.sweepgen)
    to_sweep = (generation == sg - 2) | (generation == sg + 1)
    least = slots.bytes(np.where(to_sweep, slots.marked, slots.allocated))
    if int(heap.fields.heap_live) < least:
        throw(f"objects take {least} bytes, heap_live says {heap.fields.heap_live}")


def check_times(world: World) -> None:
    """Each P's picoseconds are the time, and none is negative but what it ran ahead."""
    for p in world.sched.procs:
        times = p.times()
        if sum(times.values()) != world.now:
            throw(f"the times of P{p.index} sum to {sum(times.values())} ps at {world.now}: {times}")
        for kind, time in times.items():
            if time < 0 and kind != "ahead":
                throw(f"P{p.index} was {time} ps at {kind}")


class CycleChecker:
    """Checks one world's cycles. ``stages`` counts what it was told of."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stages = dict.fromkeys(("swept", "marking", "marked", "sweeping"), 0)
        self._pages = int(world.heap.fields.pages_in_use)
        self._slots: Slots | None = None

    def __call__(self, stage: str) -> None:
        """Look at a stage; Throw names what does not hold."""
        heap = self.world.heap
        self.stages[stage] += 1
        check_times(self.world)
        check_heap_live(heap)
        if stage == "swept":
            check_swept(heap)
            swept = int(heap.fields.pages_swept)
            if self.stages["sweeping"] and swept != self._pages:
                throw(f"{swept} pages were swept, {self._pages} were in use when the sweep began")
        elif stage == "marking":
            check_marking(heap)
            check_bytes_marked(heap)
            check_page_marks(heap)
            self._slots = Slots(heap)
        elif stage == "marked":
            check_marked(heap)
            check_bytes_marked(heap)
            check_page_marks(heap)
            check_credit(heap)
            self._check_since_set_up()
        else:
            self._pages = int(heap.fields.pages_in_use)
            if not int(heap.fields.heap_live) == int(heap.fields.heap_marked) == int(heap.fields.bytes_marked):
                throw(f"{heap.fields.bytes_marked} bytes are marked, heap_live says {heap.fields.heap_live}")

    def _check_since_set_up(self) -> None:
        """Marks of this cycle's set-up stand; what was dead then is not marked, but as a current tiny block."""
        before = self._slots
        if before is None:
            raise Throw("marking ends that never began")
        spans = self.world.heap.arrays["spans"]
        words = self.world.heap.arrays["words"]
        if (spans.state[before.span] != SPAN_IN_USE).any():
            throw("a span was freed while marking")
        now = words[spans.mark_bits[before.span].astype(np.int64) + before.at]
        before.none(before.marked & ~now, "was marked and is not any more")
        dead = np.where(spans.spanclass[before.span] == TINY_SPAN_CLASS, np.uint64(0), before.dead & ~before.marked)
        before.none(dead & now, "was dead before the cycle, but is marked")


def watch(world: World) -> CycleChecker:
    """Check every cycle of a world from now on."""
    world.gc.watcher = checker = CycleChecker(world)
    return checker
