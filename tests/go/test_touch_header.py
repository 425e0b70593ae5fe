"""Page faults of writing a type's address before an object: one, or two where the write barrier reads first."""

import pytest
from numba import int64

from sim.costs import STEPS
from sim.go.pay import touch_header
from sim.go.runtime import Heap
from sim.go.state import GC_MARK, GC_OFF, PRICE_STEPS, heap_type, spans
from sim.jit import bare, entry
from tests.go.heap_ops import malloc

READ, COPY, FIRST, SHOOTDOWN = 500, 1700, 1200, 17_000


@entry(int64(heap_type, int64, int64, int64))
def faults(h, p, s, offset):
    h = bare(h)
    return touch_header(h, p, spans(h)[s], offset)


def a_heap(nprocs):
    heap = Heap("go1.27", nprocs)
    rows = heap.tables.allocate("prices", PRICE_STEPS + len(STEPS))
    rows["row"] = -1
    for name, price in (("read_touch", READ), ("copy_touch", COPY), ("first_touch", FIRST), ("tlb_shootdown", SHOOTDOWN)):
        rows[PRICE_STEPS + STEPS.index(name)]["mean"] = price
    return heap, int(malloc(heap.header, 0, 2048, 0)[0])


@pytest.mark.parametrize(
    ("phase", "nprocs", "price"),
    [
        (GC_OFF, 1, FIRST),
        (GC_OFF, 2, FIRST),
        (GC_MARK, 1, READ + COPY),
        (GC_MARK, 2, READ + COPY + SHOOTDOWN),
    ],
)
def test_marking_reads_first_and_interrupts_others(phase, nprocs, price):
    heap, s = a_heap(nprocs)
    heap.fields.gc_phase = phase
    assert faults(heap.header, 0, s, 0) == price
    assert faults(heap.header, 0, s, 2304) == 0  # the same page of 4 KiB
    assert faults(heap.header, 0, s, 2 * 2304) == price
    assert faults(heap.header, 0, s, 0) == 0
