"""64-bit words: bit counting, scanning and wrap-around arithmetic that agree compiled and plain.

Also Go's conversions of floats to integers and its wrapped difference, where the runtime's arithmetic can overflow.

Bitmaps are ``uint64`` words; bit 0 is the lowest address. Mixing uint64 with signed integers turns into float64
in numpy's rules, so every shift and mask of a word goes through these helpers, which take and return words as
uint64 and counts as int64.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

from sim.jit import PLAIN, jit

ZERO = np.uint64(0)
ONE = np.uint64(1)
ALL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_MASK = (1 << 64) - 1

if PLAIN:

    def ctz64(x: Any) -> Any:
        """Trailing zeros of a word; 64 for 0."""
        x = int(x)
        return (x & -x).bit_length() - 1 if x else 64

    def clz64(x: Any) -> Any:
        """Leading zeros of a word; 64 for 0."""
        return 64 - int(x).bit_length()

    def popcount64(x: Any) -> Any:
        """Number of ones in a word."""
        return int(x).bit_count()

    def mul64(a: Any, b: Any) -> Any:
        """Product of two words, wrapped to 64 bits."""
        return np.uint64(int(a) * int(b) & _MASK)

    def add64(a: Any, b: Any) -> Any:
        """Sum of two words, wrapped to 64 bits."""
        return np.uint64((int(a) + int(b)) & _MASK)

    def quotient(a: Any, b: Any) -> Any:
        """Quotient of two floats as IEEE 754 has it: infinite or NaN where b is 0."""
        a, b = float(a), float(b)
        if b != 0.0:
            return a / b
        return math.nan if a == 0.0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)

else:

    @intrinsic  # type: ignore[untyped-decorator]
    def _ctz(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.cttz(args[0], context.get_constant(types.boolean, 0))

        return types.uint64(types.uint64), codegen

    @intrinsic  # type: ignore[untyped-decorator]
    def _clz(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.ctlz(args[0], context.get_constant(types.boolean, 0))

        return types.uint64(types.uint64), codegen

    @intrinsic  # type: ignore[untyped-decorator]
    def _popcount(typingctx: Any, x: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.ctpop(args[0])

        return types.uint64(types.uint64), codegen

    @jit
    def ctz64(x: Any) -> Any:
        """Trailing zeros of a word; 64 for 0."""
        return np.int64(_ctz(np.uint64(x)))

    @jit
    def clz64(x: Any) -> Any:
        """Leading zeros of a word; 64 for 0."""
        return np.int64(_clz(np.uint64(x)))

    @jit
    def popcount64(x: Any) -> Any:
        """Number of ones in a word."""
        return np.int64(_popcount(np.uint64(x)))

    @jit
    def mul64(a: Any, b: Any) -> Any:
        """Product of two words, wrapped to 64 bits."""
        return np.uint64(a) * np.uint64(b)

    @jit
    def add64(a: Any, b: Any) -> Any:
        """Sum of two words, wrapped to 64 bits."""
        return np.uint64(a) + np.uint64(b)

    @jit
    def quotient(a: Any, b: Any) -> Any:
        """Quotient of two floats as IEEE 754 has it: infinite or NaN where b is 0."""
        return float(a) / float(b)


@jit
def shl64(x: Any, n: Any) -> Any:
    """A word shifted left by n in [0, 64]; all zeros at 64, as in Go."""
    if n >= 64:
        return ZERO
    return np.uint64(x) << np.uint64(n)


@jit
def shr64(x: Any, n: Any) -> Any:
    """A word shifted right by n in [0, 64]; all zeros at 64, as in Go."""
    if n >= 64:
        return ZERO
    return np.uint64(x) >> np.uint64(n)


@jit
def ones(n: Any) -> Any:
    """A word with its lowest n bits set, n in [0, 64]."""
    if n >= 64:
        return ALL
    return np.uint64((ONE << np.uint64(n)) - ONE)


@jit
def bit64(n: Any) -> Any:
    """A word with bit n set, n in [0, 63]."""
    return ONE << np.uint64(n)


@jit
def mix64(x: Any) -> Any:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection on words that scatters every bit."""
    x = np.uint64(x)
    x = mul64(x ^ (x >> np.uint64(30)), np.uint64(0xBF58476D1CE4E5B9))
    x = mul64(x ^ (x >> np.uint64(27)), np.uint64(0x94D049BB133111EB))
    return x ^ (x >> np.uint64(31))


@jit
def float_to_int64(x: Any) -> Any:
    """Go's int64(x) on amd64 (CVTTSD2SQ): towards zero; -2**63 for what does not fit, NaN too."""
    x = float(x)
    if -(2.0**63) <= x < 2.0**63:
        return np.int64(x)
    return np.int64(-(2**63))


@jit
def float_to_uint64(x: Any) -> Any:
    """Go's uint64(x) on amd64: the signed conversion's bits (so -1 gives 2**64 - 1), exact from 2**63 on; else 2**63."""
    x = float(x)
    if 2.0**63 <= x < 2.0**64:
        return np.uint64(x)
    return add64(float_to_int64(x), 0)


@jit
def difference64(a: Any, b: Any) -> Any:
    """a - b of two signed 64-bit integers, wrapped."""
    return np.int64(add64(add64(a, ~b), 1))
