"""Page faults of writing a type's address before an object: one, or two where the write barrier reads first."""

import numpy as np
import pytest
from numba import int64

from sim.costs import STEPS
from sim.go.pay import touch_header
from sim.go.runtime import Heap
from sim.go.state import GC_MARK, GC_OFF, NEVER, PRICE_STEPS, heap_type, spans
from sim.jit import bare, entry
from tests.go.heap_ops import malloc

READ, COPY, FIRST, SHOOTDOWN = 500, 1700, 1200, 17_000


@entry(int64(heap_type, int64, int64, int64))
def faults(h, p, s, offset):
    h = bare(h)
    return touch_header(h, p, spans(h)[s], offset)


def a_heap():
    heap = Heap("go1.27", 3)
    rows = heap.tables.allocate("prices", PRICE_STEPS + len(STEPS))
    rows["row"] = -1
    for name, price in (("read_touch", READ), ("copy_touch", COPY), ("first_touch", FIRST), ("tlb_shootdown", SHOOTDOWN)):
        rows[PRICE_STEPS + STEPS.index(name)]["mean"] = price
    return heap, int(malloc(heap.header, 0, 2048, 0)[0])


def run(heap, p):
    heap.arrays["p_time"][p] = np.int64(10**6)


@pytest.mark.parametrize(
    ("phase", "running", "workers", "price"),
    [
        (GC_OFF, (0,), 0, FIRST),
        (GC_OFF, (0, 1), 0, FIRST),
        (GC_MARK, (0,), 0, READ + COPY),
        (GC_MARK, (0, 2), 0, READ + COPY + SHOOTDOWN),
        (GC_MARK, (0,), 1, READ + COPY + SHOOTDOWN),
    ],
)
def test_marking_reads_first_and_interrupts_whoever_runs_beside(phase, running, workers, price):
    heap, s = a_heap()
    heap.fields.gc_phase = phase
    heap.fields.mark_workers = workers
    assert (heap.arrays["p_time"][:4] == NEVER).all()
    for p in running:
        run(heap, p)
    assert faults(heap.header, 0, s, 0) == price
    assert faults(heap.header, 0, s, 2304) == 0  # the same page of 4 KiB
    assert faults(heap.header, 0, s, 2 * 2304) == price
    assert faults(heap.header, 0, s, 0) == 0
