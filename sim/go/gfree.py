"""Dead goroutines and their stacks, for the next go statement (mirrors gfput, gfget, malg and gdestroy of proc.go).

A dead g keeps its stack if that has the size goroutines begin with, else it is freed. Each P has a list of its dead
ones, the last to die first; at 64 all but 31 move to the global lists, of those with and those without a stack. A go
statement takes one of its P's list, which takes up to 32 of the global ones when it is empty, with a stack before
without. One whose stack has the wrong size by now gets another. With none left a new g is made, whose stack is 2 KiB
whatever the starting size.

A g is a row of the table of goroutines, for ever. Rows are made by whoever grows that table.

Left out: sched.gFree.lock's contention, what a g itself takes of the heap (in the price of a new one), gfpurge.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.stack import STACK_MIN, give_stack, stackalloc, stackfree, use_bytes
from sim.go.state import goroutines, procs
from sim.jit import jit
from sim.units import Throw

LOCAL_MAX = 64
LOCAL_HALF = 32
# Bytes that the frames of a goroutine reach which declares nothing: one that waits for a channel, a mutex, a select has
# 288, 368, 520 (/gc/scan/stack:bytes of 10,000 of them, Go 1.27.3).
SMALL_FRAMES = 288


@jit
def global_push(h: Any, g: Any) -> None:
    """Put a dead g in front of its global list."""
    row = goroutines(h)[g]
    if row.stack != 0:
        row.schedlink = h[0].gfree_stack
        h[0].gfree_stack = g
    else:
        row.schedlink = h[0].gfree_nostack
        h[0].gfree_nostack = g
    h[0].gfree_global += 1


@jit
def global_pop(h: Any) -> Any:
    """A dead g of the global lists, with a stack if there is one; 0 if there is none."""
    g = np.int64(h[0].gfree_stack)
    if g != 0:
        h[0].gfree_stack = goroutines(h)[g].schedlink
    else:
        g = np.int64(h[0].gfree_nostack)
        if g == 0:
            return g
        h[0].gfree_nostack = goroutines(h)[g].schedlink
    h[0].gfree_global -= 1
    return g


@jit
def local_push(h: Any, p: Any, g: Any) -> None:
    """Put a dead g in front of the P's list."""
    goroutines(h)[g].schedlink = procs(h)[p].gfree
    procs(h)[p].gfree = g
    procs(h)[p].gfree_n += 1


@jit
def local_pop(h: Any, p: Any) -> Any:
    """The first of the P's list, 0 if it is empty."""
    g = np.int64(procs(h)[p].gfree)
    if g != 0:
        procs(h)[p].gfree = goroutines(h)[g].schedlink
        procs(h)[p].gfree_n -= 1
    return g


@jit
def keeps_stack(h: Any, g: Any) -> Any:
    """Whether the stack of a dead g has the size that goroutines begin with."""
    return goroutines(h)[g].stack_size == h[0].starting_stack_size


@jit
def take_stack(h: Any, g: Any) -> Any:
    """A g's stack is on its way to be freed: (address, bytes)."""
    row = goroutines(h)[g]
    address = row.stack
    size = row.stack_size
    row.stack = 0
    row.stack_size = 0
    return address, size


@jit
def die(h: Any, g: Any) -> None:
    """A goroutine ended: its stack is no longer scanned. (gdestroy)"""
    row = goroutines(h)[g]
    if row.stack_used == 0:
        raise Throw("gfput: bad status (not Gdead)")
    h[0].max_stack_scan -= row.stack_size
    row.stack_used = 0


@jit
def enter_dead(h: Any, p: Any, g: Any) -> None:
    """Put a dead g in the P's list, or in the global ones if there is no P. (gfput, after its stack)"""
    if p < 0:
        global_push(h, g)
        return
    local_push(h, p, g)
    if procs(h)[p].gfree_n < LOCAL_MAX:
        return
    while procs(h)[p].gfree_n >= LOCAL_HALF:
        global_push(h, local_pop(h, p))


@jit
def get_dead(h: Any, p: Any) -> Any:
    """A dead g for a new goroutine, whatever its stack; 0 if there is none. (gfget, before its stack)"""
    if p < 0:
        return global_pop(h)
    if procs(h)[p].gfree == 0:
        while procs(h)[p].gfree_n < LOCAL_HALF:
            g = global_pop(h)
            if g == 0:
                break
            local_push(h, p, g)
    return local_pop(h, p)


@jit
def new_row(h: Any) -> Any:
    """A row for a g that never was; the table must have room. (malg, allgadd)"""
    g = h[0].ngs
    if g >= h[0].goroutines_len:
        raise Throw("table of goroutines full")
    h[0].ngs += 1
    return g


@jit
def come_alive(h: Any, g: Any) -> None:
    """A g with a stack becomes a goroutine that has run nothing yet. (newproc1)"""
    h[0].max_stack_scan += goroutines(h)[g].stack_size
    use_bytes(h, g, np.int64(SMALL_FRAMES))


@jit
def newproc(h: Any, p: Any) -> Any:
    """A goroutine with its stack, every step at once; P -1: none of any P's. (newproc1, gfget)"""
    g = get_dead(h, p)
    if g == 0:
        g = new_row(h)
        give_stack(h, g, stackalloc(h, p, np.int64(STACK_MIN)), np.int64(STACK_MIN))
    elif not keeps_stack(h, g):
        address, size = take_stack(h, g)
        if address != 0:
            stackfree(h, p, address, size)
        size = h[0].starting_stack_size
        give_stack(h, g, stackalloc(h, p, size), size)
    come_alive(h, g)
    return g


@jit
def goexit(h: Any, p: Any, g: Any) -> None:
    """A goroutine ends on P, every step at once. (gdestroy, gfput)"""
    die(h, g)
    if not keeps_stack(h, g):
        address, size = take_stack(h, g)
        stackfree(h, p, address, size)
    enter_dead(h, p, g)


@jit
def free_dead_stacks(h: Any, p: Any) -> None:
    """A collection frees the stacks of the dead ones of the global list. (mgcmark.go:markrootFreeGStacks)"""
    g = np.int64(h[0].gfree_stack)
    h[0].gfree_stack = 0
    first = g
    last = np.int64(0)
    while g != 0:
        address, size = take_stack(h, g)
        stackfree(h, p, address, size)
        last = g
        g = np.int64(goroutines(h)[g].schedlink)
    if last != 0:
        goroutines(h)[last].schedlink = h[0].gfree_nostack
        h[0].gfree_nostack = first
