"""A recorded trace's stacks through the rooms: are they handed out in the recorded order?

Sizes, Ps, frees and collections are the record's. Which stack of which span comes next, and when a pool needs another
span, is the rooms' to say. Where a span lies is not: that is the page heap's, and checked by the replay of whole
traces. So each span that both make at the same event is mapped to the other; a stack is *matched* when it is at the
same place of the same span.

Not recorded: what caches and pools held when the trace began. Spans of the snapshot are taken for cut and half cached
once, with the stacks that nobody has in the order of addresses; stacks of 16 KiB that never show are threads'. A stack
of such a span that shows for the first time is counted apart (``old``), whether it is matched or not. After a miss the
two stacks change their meaning, so that it causes no other.
"""

from collections import Counter

import numpy as np

from sim.go.check import check_heap
from sim.go.runtime import Heap
from sim.go.state import GC_MARK, GC_OFF
from tests.go import stack_ops as ops
from workloads import gotrace_model as t

UNIT = 2048  # bytes a stack id counts
POOL_SPAN = 32 << 10
KINDS = (
    *(t.STACK, t.STACK_ALLOC, t.STACK_FREE, t.SPAN, t.SPAN_ALLOC, t.SPAN_FREE),
    *(t.GC_BEGIN, t.GC_END, t.STW_BEGIN, t.STW_END),
)


class Replay:
    """``counts``: stacks in all, matched, old ones and how many of these matched; spans and how many when recorded."""

    def __init__(self, trace):
        self.flushing = {i for i, text in enumerate(trace.strings) if "read mem stats" in text}  # reasons to stop
        self.nprocs = max(1, trace.gomaxprocs)
        self.heap = Heap("go1.27", self.nprocs)
        self.counts = Counter()
        self.meaning = {}  # rooms' address -> recorded address
        self.found = {}  # and back
        self.sizes = {}  # recorded address of a stack in use -> bytes
        self.spans = {}  # recorded base of live spans that are no objects' -> bytes
        self.old = set()  # recorded addresses in spans of the snapshot that did not show yet
        self.ending = False  # a collection's mark is over, the world still stopped
        self.misses = []
        rows = np.flatnonzero(np.isin(trace.kind, KINDS))
        events = [(int(trace.kind[i]), int(trace.p[i]), int(trace.a[i]), int(trace.b[i]), int(trace.c[i])) for i in rows]
        self.begin(events)
        for event in events:
            self.step(*event)

    def header(self):
        self.heap.make_room(1 << 14)
        return self.heap.header

    def bind(self, base, recorded, size):
        """A span of the rooms is one of the record's, cut into stacks of a size."""
        for offset in range(0, max(size, POOL_SPAN) if size < POOL_SPAN else size, size):
            self.swap(base + offset, recorded + offset)

    def swap(self, mine, theirs):
        """From now on this stack of the rooms is that of the record; who meant it before means what is left over."""
        before, other = self.meaning.get(mine), self.found.get(theirs)
        self.meaning[mine], self.found[theirs] = theirs, mine
        if other is not None and other != mine:
            self.meaning.pop(other)
            if before is not None:
                self.meaning[other], self.found[before] = before, other
        elif before is not None and before != theirs:
            self.found.pop(before)

    def base(self, address):
        span = int(self.heap.arrays["page_span"][(address >> 13) % 8192 + 8192 * self.arena(address)])
        return int(self.heap.arrays["spans"].start_page[span]) << 13

    def arena(self, address):
        return int(self.heap.arrays["arena_map"][address >> 26]) - 1

    def recorded_span(self, address):
        return next((base for base, nbytes in self.spans.items() if base <= address < base + nbytes), None)

    def begin(self, events):
        """The snapshot: cut the spans that stacks of the record lie in."""
        start = [e for e in events if e[0] == t.SPAN and e[4] & 1]
        self.spans = {8192 * page: 8192 * npages for _, _, page, npages, _ in start}
        first = {}  # recorded base -> (bytes of a stack, addresses in use)
        for kind, _, a, b, _ in events:
            if kind not in (t.STACK, t.STACK_ALLOC):
                continue
            span, size = self.recorded_span(UNIT * a), 1 << b - 1
            if span is not None and size < POOL_SPAN:
                known, used = first.setdefault(span, (size, set()))
                if kind == t.STACK and known == size:
                    used.add(UNIT * a)
                    self.sizes[UNIT * a] = size
        shown = {UNIT * a for kind, _, a, _, _ in events if kind in (t.STACK, t.STACK_ALLOC, t.STACK_FREE)}
        for span, (size, used) in first.items():
            if size == POOL_SPAN // 2:
                threads = {span, span + size} - shown
                used |= threads
                self.sizes |= dict.fromkeys(threads, size)
            self.cut(span, size, used)
        self.heap.fields.fact_stack_spans = 0

    def cut(self, span, size, used):
        n = POOL_SPAN // size
        lower = any(address < span + POOL_SPAN // 2 for address in used)
        mine = [int(ops.stackalloc(self.header(), 0, size)) for _ in range(n if lower else n // 2)]
        self.bind(self.base(mine[0]), span, size)
        for address in sorted(mine, reverse=True):
            if self.meaning[address] not in used:
                ops.stackfree(self.header(), 0, address, size)
        self.old |= {span + offset for offset in range(0, POOL_SPAN, size)} - used

    def step(self, kind, p, a, b, c):
        if kind == t.SPAN_ALLOC and c & 1:
            self.spans[8192 * a] = 8192 * b
        elif kind == t.SPAN_FREE:
            end = 8192 * a + self.spans.pop(8192 * a, 0)
            for address in [x for x in self.found if 8192 * a <= x < end]:
                self.meaning.pop(self.found.pop(address))
        elif kind == t.STACK_ALLOC:
            self.alloc(p, UNIT * a, 1 << b - 1)
        elif kind == t.STACK_FREE and UNIT * a in self.sizes:
            size = self.sizes.pop(UNIT * a)
            ops.stackfree(self.header(), p, self.found[UNIT * a], size)
        elif kind == t.GC_BEGIN:
            self.heap.fields.gc_phase = GC_MARK
        elif kind == t.GC_END:
            self.heap.fields.gc_phase = GC_OFF
            self.ending = True
        elif kind == t.STW_END and self.ending:  # the P that ends the stop flushes its cache, the others are made to
            self.ending = False
            if p >= 0:
                ops.stackcache_clear(self.header(), p)
            ops.free_stack_spans(self.header(), p)
            self.flush()
        elif kind == t.STW_BEGIN and a in self.flushing:
            self.flush()

    def flush(self):
        """Every P's cache is emptied."""
        for p in range(self.nprocs):
            ops.stackcache_clear(self.header(), p)

    def alloc(self, p, recorded, size):
        mine = int(ops.stackalloc(self.header(), p, size))
        made = int(self.heap.fields.fact_stack_spans) > 0
        self.heap.fields.fact_stack_spans = 0
        span = self.recorded_span(recorded)
        fresh = recorded not in self.found and span is not None
        if made or fresh:
            self.counts["spans"] += 1
            self.counts["spans when recorded"] += made and fresh
        if fresh and made:
            self.bind(self.base(mine), span if size < POOL_SPAN else recorded, size)
        old = recorded in self.old
        self.old.discard(recorded)
        self.counts["stacks"] += 1
        self.counts["old"] += old
        if self.meaning.get(mine) == recorded:
            self.counts["matched"] += 1
            self.counts["old matched"] += old
        else:
            self.misses.append((recorded, size, old))
            self.swap(mine, recorded)
        self.sizes[recorded] = size

    def check(self):
        """The rooms' invariants; stacks in use are held by nobody they know."""
        check_heap(self.heap, {self.found[address]: size for address, size in self.sizes.items()})
