"""How the heap's part of marking's stock is not even: what is scanned in turns (mgcmark.py says why).

A turn is a piece of an array, then its share of what is scanned by the object, then that of spans scanned whole: objects are
taken before spans (mgcmark.go:gcDrainN). In go1.27.3 an assist of the least work, 64 KiB, was one of the two, seldom both: with
500 MB live and one P 77 % of those that met no array scanned objects only, 40 to 67 us, and 12 % spans only, 12 to 46 us
(5th to 95th percentile, without those that waited for memory), and so did those of a program in which objects died in any
order (256 MiB: 51 to 79 and 16 to 22 us).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import jit

GLOBALS, STACKS, HEAP_PART = range(3)  # of the stock, in order


@jit
def on_line(at: Any, low: Any, high: Any, first: Any, last: Any) -> Any:
    """The value between two where ``at`` lies between two others."""
    return first + (last - first) * (at - low) / (high - low) if high > low else last


@jit
def roots_cpu(h: Any) -> Any:
    """Picoseconds of CPU that root jobs take, before the heap's part of the stock."""
    return h[0].mark_cpus[STACKS]


@jit
def heap_whole(h: Any) -> Any:
    """Picoseconds of CPU that the heap's part of the stock takes."""
    return h[0].mark_cpus[HEAP_PART] - roots_cpu(h)


@jit
def even(h: Any) -> Any:
    """Whether the heap's part of the stock is: no array of pointers, or nothing but such."""
    work = h[0].mark_works[HEAP_PART]
    return h[0].mark_oblets == 0 or h[0].mark_array_cpu >= heap_whole(h) or h[0].mark_array_work >= work


@jit
def in_parts(h: Any) -> Any:
    """Whether what is found in the order of its allocation is a part of the heap's stock that takes a time of its own."""
    return 0.0 < h[0].mark_in_order < 1.0 and 0 < h[0].mark_ordered_cpu < heap_whole(h)


@jit
def bent(at: Any, knee: Any, there: Any, whole: Any) -> Any:
    """On a line from nothing to where ``knee`` is ``there``, and on another from there to all of both."""
    return on_line(at, 0.0, knee, 0.0, there) if at < knee else on_line(at, knee, whole, there, whole)


@jit
def evened(h: Any, given: Any) -> Any:
    """CPU of the heap that would have done, if order made no difference, what so much does."""
    if not in_parts(h):
        return given
    whole = np.float64(heap_whole(h))
    return bent(given, np.float64(h[0].mark_ordered_cpu), h[0].mark_in_order * whole, whole)


@jit
def uneven(h: Any, at: Any) -> Any:
    """CPU of the heap that does what so much would do, if order made no difference."""
    if not in_parts(h):
        return at
    whole = np.float64(heap_whole(h))
    return bent(at, h[0].mark_in_order * whole, np.float64(h[0].mark_ordered_cpu), whole)


@jit
def turn(h: Any) -> Any:
    """Of a piece of an array and its share of all else: picoseconds and scan work of the piece, of it and what is scanned
    by the object, and of all."""
    n = np.float64(h[0].mark_oblets)
    whole = np.float64(heap_whole(h))
    work = np.float64(h[0].mark_works[HEAP_PART])
    piece = np.float64(h[0].mark_array_cpu) / n, np.float64(h[0].mark_array_work) / n
    single = (whole - np.float64(h[0].mark_dense_cpu)) / n, (work - np.float64(h[0].mark_dense_work)) / n
    return piece, single, (whole / n, work / n)


@jit
def heap_work(h: Any, given: Any) -> Any:
    """Scan work of the heap that is done when it was given so much CPU."""
    (cpu1, work1), (cpu2, work2), (cpu, work) = turn(h)
    turns = np.floor(np.float64(given) / cpu)
    rest = np.float64(given) - turns * cpu
    if rest < cpu1:
        return turns * work + on_line(rest, 0.0, cpu1, 0.0, work1)
    if rest < cpu2:
        return turns * work + on_line(rest, cpu1, cpu2, work1, work2)
    return turns * work + on_line(rest, cpu2, cpu, work2, work)


@jit
def heap_cpu(h: Any, done: Any) -> Any:
    """CPU of the heap until so much scan work is done, a piece of an array once begun to its end."""
    (cpu1, work1), (cpu2, work2), (cpu, work) = turn(h)
    turns = np.floor(np.float64(done) / work)
    rest = np.float64(done) - turns * work
    if rest < work1:
        return turns * cpu + (cpu1 if rest > 0 else 0.0)
    if rest < work2:
        return turns * cpu + on_line(rest, work1, work2, cpu1, cpu2)
    return turns * cpu + on_line(rest, work2, work, cpu2, cpu)
