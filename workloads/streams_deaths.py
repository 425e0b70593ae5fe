"""When variables end: hierarchical timing wheels, one over mallocs and one over bytes, and the free variables.

A wheel is a queue of variables by the clock at which they are due (Varghese and Lauck 1987). A due clock is a number
of 7 digits of 8 bits. ``now`` is never later than anything in the wheel; a variable stands at the level of the
highest digit in which its due clock differs from ``now``, in the slot of that digit. So the lowest level that is not
empty holds what comes first, its first slot above all; at level 0 a slot is one instant. Taking from a higher level
moves ``now`` to that slot's beginning and spreads its list over the levels below: a variable moves down at most six
times, once for a lifetime of ten thousand. The clock may leap (bytes do): empty slots cost nothing, since words of
bits tell which are not.

``first`` is never later than the earliest due: most questions whether
anything is due end there.

Invariants: now <= clock; now <= due and first <= due of all within; a bit is set where a list is not empty; each dynamic variable
below ``dynamic`` is in exactly one list (a slot, the round, the free ones).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import inlined
from sim.words import ZERO, bit64, clz64, ctz64
from workloads.streams_state import (
    BYTES_WHEEL,
    DIGIT_BITS,
    LEVELS,
    NEVER,
    OPS_WHEEL,
    SLOT_WORDS,
    SLOTS,
    due,
    heads,
    link,
    slot_bits,
    wheels,
    word_bits,
)


@inlined
def insert(h: Any, w: Any, var: Any, at: Any) -> Any:
    """Put a dynamic variable into wheel w, to die at clock ``at``, which is not before the wheel's."""
    wheel = wheels(h)[w]
    level = (63 - clz64(np.uint64((at ^ wheel.now) | 1))) // DIGIT_BITS
    digit = (at >> (level * DIGIT_BITS)) & (SLOTS - 1)
    row = w * LEVELS + level
    slot = row * SLOTS + digit
    due(h)[var] = at
    head = heads(h)[slot]
    link(h)[var] = head
    heads(h)[slot] = var
    if head < 0:
        slot_bits(h)[row * SLOT_WORDS + (digit >> 6)] |= bit64(digit & 63)
        word_bits(h)[row] |= bit64(digit >> 6)
        wheel.levels |= bit64(level)
    wheel.first = min(wheel.first, at)


@inlined
def _clear(h: Any, w: Any, row: Any, level: Any, digit: Any) -> Any:
    """Note that a slot's list is empty."""
    word = row * SLOT_WORDS + (digit >> 6)
    slot_bits(h)[word] &= ~bit64(digit & 63)
    if slot_bits(h)[word] == ZERO:
        word_bits(h)[row] &= ~bit64(digit >> 6)
        if word_bits(h)[row] == ZERO:
            wheels(h)[w].levels &= ~bit64(level)


@inlined
def pop(h: Any, w: Any, clock: Any) -> Any:
    """Take out of wheel w the variable due first, if that is not after ``clock``; -1 if there is none."""
    wheel = wheels(h)[w]
    while wheel.levels != ZERO:
        level = ctz64(wheel.levels)
        row = w * LEVELS + level
        word = ctz64(word_bits(h)[row])
        digit = word * 64 + ctz64(slot_bits(h)[row * SLOT_WORDS + word])
        shift = level * DIGIT_BITS
        above = shift + DIGIT_BITS
        begin = ((wheel.now >> above) << above) + (digit << shift)
        wheel.first = begin
        if begin > clock:
            return np.int64(-1)
        wheel.now = begin
        slot = row * SLOTS + digit
        var = np.int64(heads(h)[slot])
        if level == 0:
            heads(h)[slot] = link(h)[var]
            if link(h)[var] < 0:
                _clear(h, w, row, level, digit)
                wheel.first = begin + 1
            return var
        heads(h)[slot] = -1
        _clear(h, w, row, level, digit)
        while var >= 0:
            after = np.int64(link(h)[var])
            insert(h, w, var, due(h)[var])
            var = after
    wheel.first = NEVER
    return np.int64(-1)


@inlined
def next_due(h: Any) -> Any:
    """Take out a dynamic variable that is due by now, of either wheel; -1 if there is none."""
    var = np.int64(-1)
    if wheels(h)[OPS_WHEEL].first <= h[0].mallocs:
        var = pop(h, OPS_WHEEL, h[0].mallocs)
    if var < 0 and wheels(h)[BYTES_WHEEL].first <= h[0].bytes:
        var = pop(h, BYTES_WHEEL, h[0].bytes)
    return var


@inlined
def take(h: Any) -> Any:
    """A dynamic variable that holds nothing; a free one, or else one more. The caller has seen that there is room."""
    var = np.int64(h[0].free)
    if var >= 0:
        h[0].free = link(h)[var]
    else:
        var = np.int64(h[0].dynamic)
        h[0].dynamic = var + 1
    return var


@inlined
def release(h: Any, var: Any) -> Any:
    """A dynamic variable holds nothing any more."""
    link(h)[var] = h[0].free
    h[0].free = var
