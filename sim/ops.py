"""The operation record: what a workload may ask of an allocator, in batches of thousands.

A stream of operations depends on the workload and its seed alone, never on an allocator's timing: two
configurations, or two allocators, see the same stream. The workload says when an object is *dead*; the allocator
decides when that is *free*.

An operation is one fixed-size record. Object ids name live objects; an id may be used again after its object died.
"""

from __future__ import annotations

import numpy as np

OP = np.dtype(
    [
        ("kind", "u1"),
        ("flags", "u1"),
        ("obj", "i4"),
        ("arg", "i8"),  # ALLOC: bytes; COMPUTE: picoseconds
        ("ptr_bytes", "i8"),  # ALLOC: bytes up to the object's last pointer; 0 if none
    ],
    align=True,
)

ALLOC = 0  # obj comes to life with arg bytes
DEAD = 1  # obj is not reachable any more
COMPUTE = 2  # the goroutine runs for arg picoseconds without allocating

NOSCAN = 1  # ALLOC flag: the object holds no pointers
NEEDZERO = 2  # ALLOC flag: the object must read as zeros (a Go value; not append's tail)
