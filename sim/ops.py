"""The operation record: what a workload may ask of an allocator, in batches of thousands.

A stream of operations depends on the workload and its seed alone, never on an allocator's timing: two
configurations, or two allocators, see the same stream. The workload says when an object is *dead*; the allocator
decides when that is *free*.

An operation is one fixed-size record of 24 bytes. ``obj`` names a *variable* that holds an object, as a root in a
program does: an allocation assigns it, and what it held before is dead. Variables are numbered from 0 within the
goroutine that runs the batch; those flagged SHARED are numbered over the whole program. Objects that never die need
no variable (NO_OBJ).
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

ALLOC = 0  # variable obj becomes a new object of arg bytes
DEAD = 1  # variable obj becomes nil
COMPUTE = 2  # the goroutine runs for arg picoseconds without allocating

NOSCAN = 1  # ALLOC flag: the object holds no pointers
NEEDZERO = 2  # ALLOC flag: the object must read as zeros (a Go value; not append's tail)
TOUCH = 4  # ALLOC flag: the program writes the whole object next, so that it pays first touches malloc did not
SHARED = 8  # ALLOC and DEAD flag: obj is numbered over the whole program

NO_OBJ = -1
