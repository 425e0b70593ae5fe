"""The compiled loop that writes a stream's operations, any number at a time.

A stream is rounds of phases; a phase computes, then allocates so many times. A malloc is up to three things: COMPUTE
(its think time), ALLOC, and a DEAD for each variable whose object dies with it. Object i with a lifetime of n mallocs
is dead once malloc i + n is done: if that one needs a dynamic variable, it takes over the first that is due, as an
assignment does; the others that are due get a DEAD behind it. At the end of a round comes a DEAD for each of its
objects of lifetime ``request``.

Where a batch ends is no part of the stream: ``stage`` says what comes next, and malloc i draws value i of each of
its named streams (an exponential draw begins at value 64 i), whether or not others draw. Two choices share one value: its high half
chooses from the alias table, so that each probability is right to within 2**-32, the low half a place in the range.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64

from sim.engine.rng import draw64, exponential
from sim.jit import bare, entry, header_type, inlined
from sim.ops import ALLOC, COMPUTE, DEAD, NO_OBJ, NOSCAN, OP, SHARED
from sim.words import shr64
from workloads.streams_deaths import insert, next_due, release, take
from workloads.streams_state import (
    ALLOCATE,
    BEGIN,
    BYTES,
    BYTES_WHEEL,
    CACHE,
    DRAIN,
    END,
    FRACTION,
    IMMORTAL,
    OPS,
    OPS_WHEEL,
    OWN_BITS,
    REQUEST,
    SHARE_BITS,
    THINK,
    kinds,
    link,
    phases,
    ranges,
    stream_type,
)

_HALF = (1 << 32) - 1
_LOW_HALF = np.uint64(_HALF)
_FRACTION_MASK = np.uint64((1 << FRACTION) - 1)


@inlined
def _high(word: Any) -> Any:
    return np.int64(shr64(word, 32))


@inlined
def _low(word: Any) -> Any:
    return np.int64(word & _LOW_HALF)


@inlined
def _choose(rows: Any, first: Any, n: Any, half: Any) -> Any:
    """A row of the alias table rows[first:first + n] by a uniform half word."""
    scaled = half * n
    cell = np.int64(first + (scaled >> 32))
    other = np.int64(rows[cell].other)
    return cell if (scaled & _HALF) < rows[cell].threshold else other  # both read: chance is no branch to predict


@inlined
def _time(key: Any, i: Any, mean: Any, random: Any) -> Any:
    """Draw i of a time: the mean itself, or exponential around it."""
    if mean > 0 and random:
        value, _ = exponential(key, i << OWN_BITS, mean)
        return value
    return np.int64(mean)


@inlined
def _size(h: Any, kind: Any, i: Any) -> Any:
    """Bytes of malloc i, of this kind."""
    row = ranges(h)[kind.first]
    if kind.nranges == 1 and row.width == 1:
        return np.int64(row.low)
    word = draw64(h[0].sizes_key, i)
    row = ranges(h)[_choose(ranges(h), np.int64(kind.first), np.int64(kind.nranges), _high(word))]
    return row.low + ((_low(word) * row.width) >> 32)


@inlined
def _pointer_bytes(h: Any, kind: Any, i: Any, size: Any) -> Any:
    """Bytes up to the last pointer of malloc i, to the nearest word; 0 if it holds none."""
    words = (size * kind.pointer_bytes + (4 << SHARE_BITS)) >> (3 + SHARE_BITS)
    words = min(max(words, np.int64(1)), size >> 3)
    return 8 * words * np.int64(_high(draw64(h[0].pointers_key, i)) < kind.pointers)


@inlined
def _lifetime(h: Any, kind: Any, i: Any) -> Any:
    """Lifetime of malloc i in mallocs or bytes.

    An exponential one in mallocs is the floor of the draw plus a uniform fraction, the low bits of its first value,
    which the draw does not use: so its mean is the mean, even when that is one malloc.
    """
    if not kind.exponential:
        return np.int64(kind.lifetime)
    key, counter = h[0].lifetimes_key, i << OWN_BITS
    if kind.life == BYTES:
        value, _ = exponential(key, counter, np.int64(kind.lifetime))
        return value
    value, _ = exponential(key, counter, np.int64(kind.lifetime) << FRACTION)
    return (value + np.int64(draw64(key, counter) & _FRACTION_MASK)) >> FRACTION


@inlined
def _variable(h: Any, kind: Any, i: Any) -> Any:
    """The variable that malloc i assigns, in the operations' numbers; its death is arranged for."""
    s = h[0]
    life = kind.life
    if life == IMMORTAL:
        return np.int64(NO_OBJ)
    if life == CACHE:
        return kind.place + ((_high(draw64(s.lifetimes_key, i << OWN_BITS)) * kind.lifetime) >> 32)
    if life == REQUEST and s.service:
        s.scoped += 1
        return np.int64(s.scoped - 1)
    var = next_due(h)
    if var < 0:
        var = take(h)
    if life == OPS:
        insert(h, OPS_WHEEL, var, s.mallocs + _lifetime(h, kind, i))
    elif life == BYTES:
        insert(h, BYTES_WHEEL, var, s.bytes + _lifetime(h, kind, i))
    else:
        link(h)[var] = s.scoped
        s.scoped = var
    return s.places + var


@inlined
def _write(op: Any, kind: Any, flags: Any, obj: Any, arg: Any, ptr_bytes: Any) -> Any:
    op.kind = kind
    op.flags = flags
    op.obj = obj
    op.arg = arg
    op.ptr_bytes = ptr_bytes


@inlined
def _allocate(h: Any, op: Any) -> Any:
    """Write the ALLOC of the next malloc."""
    s = h[0]
    i = np.int64(s.mallocs)
    row = np.int64(0)
    if s.kinds_len > 1:
        row = _choose(kinds(h), 0, np.int64(s.kinds_len), _high(draw64(s.kinds_key, i)))
    kind = kinds(h)[row]
    size = _size(h, kind, i)
    s.mallocs = i + 1
    s.bytes += size
    ptr_bytes = _pointer_bytes(h, kind, i, size)
    flags = kind.op_flags | NOSCAN * np.int64(ptr_bytes == 0)
    _write(op, ALLOC, flags, _variable(h, kind, i), size, ptr_bytes)


@inlined
def _last_of_round(h: Any) -> Any:
    """Take out a variable of the round that ends, in the operations' numbers; -1 if there is none left."""
    s = h[0]
    if s.service:
        s.scoped -= 1
        return np.int64(s.scoped)
    var = np.int64(s.scoped)
    if var >= 0:
        s.scoped = link(h)[var]
        release(h, var)
        var += s.places
    return var


@entry(int64(stream_type, header_type(OP), int64))
def fill(h: Any, ops: Any, n: Any) -> Any:
    """Write operations to ops[n:]; the index after the last, which is len(ops) unless a service's request is over.

    If an ALLOC might need a variable for which there is no room, the complement (~) of that index: grow ``link`` and
    ``due``, and call again.
    """
    h = bare(h)
    ops = bare(ops)
    s = h[0]
    while n < len(ops):
        stage = s.stage
        if stage == DRAIN:
            var = next_due(h)
            if var < 0:
                s.stage = THINK
                continue
            release(h, var)
            _write(ops[n], DEAD, SHARED * s.service, s.places + var, 0, 0)
            n += 1
        elif stage == THINK:
            if s.left == 0:
                s.phase += 1
                s.stage = BEGIN if s.phase < s.phases_len else END
                if s.service:
                    s.scoped_ids = s.scoped
                continue
            s.stage = ALLOCATE
            time = _time(s.think_key, np.int64(s.mallocs), np.int64(s.think), s.think_exponential)
            if time > 0:
                _write(ops[n], COMPUTE, 0, NO_OBJ, time, 0)
                n += 1
        elif stage == ALLOCATE:
            if s.free < 0 and s.dynamic == s.link_len:
                return ~n
            _allocate(h, ops[n])
            n += 1
            s.left -= 1
            s.stage = DRAIN
        elif stage == BEGIN:
            phase = phases(h)[s.phase]
            s.left = phase.mallocs
            s.stage = THINK
            time = _time(phase.key, np.int64(s.rounds), np.int64(phase.compute), phase.exponential)
            if time > 0:
                _write(ops[n], COMPUTE, 0, NO_OBJ, time, 0)
                n += 1
        else:
            var = _last_of_round(h)
            if var >= 0:
                _write(ops[n], DEAD, 0, var, 0, 0)
                n += 1
                continue
            s.scoped = np.int32(0) if s.service else np.int32(-1)
            s.rounds += 1
            s.phase = 0
            s.stage = BEGIN
            if s.service:
                break
    return n
