"""The state of a synthetic stream: records, tables and limits, on one page.

A stream is one header (sim/jit.py). *Dynamic* variables, those of objects whose death is timed or scoped, are
numbered from 0 here; the operations add ``places``, those of all caches, which come first. ``link`` chains the
dynamic variables of one list: of a slot of a wheel, of the round, or of the free ones; -1 ends a list.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import header_dtype, header_type, table

# Lifetime.kind
IMMORTAL, REQUEST, OPS, BYTES, CACHE = 0, 1, 2, 3, 4
LIVES: dict[str, int] = {"immortal": IMMORTAL, "request": REQUEST, "ops": OPS, "bytes": BYTES, "cache": CACHE}

# stage: what comes next
BEGIN, THINK, ALLOCATE, DRAIN, END = 0, 1, 2, 3, 4

# a wheel of deaths (streams_deaths.py)
DIGIT_BITS = 8
SLOTS = 1 << DIGIT_BITS
SLOT_WORDS = SLOTS // 64
LEVELS = 7
NEVER = 1 << 62
OPS_WHEEL, BYTES_WHEEL = 0, 1

FRACTION = 16  # bits after the point of an exponential lifetime in mallocs
SHARE_BITS = 20  # after the point of a share of bytes
OWN_BITS = 6  # an exponential draw of number i may use up values 64 i .. 64 i + 63 of its stream

MAX_SIZE = 1 << 40  # bytes of an object: 2**15 of the largest in a stream's first 2**55 bytes
MAX_WIDTH = 1 << 31  # sizes in a range, and places of a cache
MAX_OPS = 1 << 39  # mean lifetime in mallocs: with its fraction an exponential draw's MAX_MEAN
MAX_BYTES = 1 << 44  # mean lifetime in bytes

KIND = np.dtype(
    [
        ("threshold", "i8"),  # alias table: this kind below it, the other from it on; units of 2**-32
        ("other", "i4"),
        ("first", "i4"),  # of its rows in ranges
        ("nranges", "i4"),
        ("pointers", "i8"),  # a half word below it makes an object with pointers
        ("pointer_bytes", "i8"),  # of whose bytes, those up to its last one; units of 2**-20
        ("life", "u1"),
        ("exponential", "u1"),
        ("op_flags", "u1"),  # of its ALLOCs, but NOSCAN
        ("place", "i4"),  # first variable of its cache
        ("lifetime", "i8"),  # or its mean, or the places of its cache
    ],
    align=True,
)

RANGE = np.dtype([("threshold", "i8"), ("low", "i8"), ("width", "i8"), ("other", "i4")], align=True)

PHASE = np.dtype([("compute", "i8"), ("mallocs", "i8"), ("key", "u8"), ("exponential", "u1")], align=True)

WHEEL = np.dtype([("now", "i8"), ("first", "i8"), ("levels", "u8")], align=True)  # levels: a bit for each in use

TABLES: dict[str, Any] = {
    "kinds": KIND,
    "ranges": RANGE,
    "phases": PHASE,
    "wheels": WHEEL,
    "heads": np.int32,  # first variable of a slot, by wheel, level and digit
    "slot_bits": np.uint64,  # slots that hold anything
    "word_bits": np.uint64,  # by wheel and level: words of slot_bits that are not 0
    "due": np.int64,  # of a dynamic variable: the clock of its wheel at which it dies
    "link": np.int32,
}

SCALARS = [
    ("kinds_key", "u8"),
    ("sizes_key", "u8"),
    ("pointers_key", "u8"),
    ("lifetimes_key", "u8"),
    ("think_key", "u8"),
    ("think", "i8"),
    ("think_exponential", "u1"),
    ("service", "u1"),  # a round is a request: its own goroutine and variables
    ("places", "i4"),  # of all caches
    ("stage", "u1"),
    ("rounds", "i8"),  # over so far
    ("phase", "i8"),
    ("left", "i8"),  # mallocs left in the phase
    ("mallocs", "i8"),  # so far: the clock of the ops wheel, and the number of the next one
    ("bytes", "i8"),  # allocated so far: the clock of the bytes wheel
    ("dynamic", "i4"),  # dynamic variables in use so far
    ("free", "i4"),  # list of those that hold nothing
    ("scoped", "i4"),  # a worker: list of the round's; a service: number of the request's
    ("scoped_ids", "i4"),  # a service: variables of the last request
]

STREAM = header_dtype(SCALARS, TABLES)
stream_type = header_type(STREAM)

kinds = table("kinds", KIND)
ranges = table("ranges", RANGE)
phases = table("phases", PHASE)
wheels = table("wheels", WHEEL)
heads = table("heads", np.int32)
slot_bits = table("slot_bits", np.uint64)
word_bits = table("word_bits", np.uint64)
due = table("due", np.int64)
link = table("link", np.int32)
