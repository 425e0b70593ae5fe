"""Stacks and goroutines without a clock, for Python to call."""

from numba import int64, types, void

from sim.go import gfree, stack
from sim.go.mcache import prepare_for_sweep
from sim.go.state import heap_type
from sim.jit import entry


@entry(int64(heap_type, int64, int64))
def stackalloc(h, p, size):
    return stack.stackalloc(h, p, size)


@entry(void(heap_type, int64, int64, int64))
def stackfree(h, p, address, size):
    stack.stackfree(h, p, address, size)


@entry(void(heap_type, int64))
def stackcache_clear(h, p):
    stack.stackcache_clear(h, p)


@entry(void(heap_type, int64))
def free_stack_spans(h, p):
    stack.free_stack_spans(h, p)


@entry(int64(heap_type, int64))
def newproc(h, p):
    return gfree.newproc(h, p)


@entry(void(heap_type, int64, int64))
def goexit(h, p, g):
    gfree.goexit(h, p, g)


@entry(void(heap_type, int64))
def free_dead_stacks(h, p):
    gfree.free_dead_stacks(h, p)


@entry(void(heap_type, int64, int64, int64))
def use_stack(h, p, g, nbytes):
    stack.use_stack(h, p, g, nbytes)


@entry(int64(heap_type, int64, int64))
def shrink_stack(h, p, g):
    return int(stack.shrink_stack(h, p, g))


@entry(int64(heap_type, int64, int64))
def scan_stack(h, p, g):
    return stack.scan_stack(h, p, g)


@entry(types.UniTuple(int64, 2)(heap_type))
def stack_work(h):
    """Bytes of all stacks, and bytes used of them."""
    return stack.scannable_stack_bytes(h), stack.stack_scan_work(h)


@entry(void(heap_type))
def compute_starting_size(h):
    stack.gc_compute_starting_stack_size(h)


@entry(void(heap_type, int64))
def flush(h, p):
    """The flush of a P's caches for the sweep of a cycle that has just ended its mark."""
    h[0].sweepgen += 2
    prepare_for_sweep(h, p)
