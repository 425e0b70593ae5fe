"""Mixes that are known by name."""

from __future__ import annotations

from workloads.spec import PPM, Lifetime, Mix, Objects

TEN_SIZES: tuple[int, ...] = (16, 24, 32, 48, 64, 96, 128, 256, 512, 1024)  # bytes


def ten_sizes(lifetime: int = 10_000) -> Mix:
    """Ten sizes in equal shares, half of the objects full of pointers, each dead after ``lifetime`` more mallocs.

    The mix that allocators are timed with here: small sizes only, no think time, a live set of ``lifetime`` objects.
    """
    sizes = tuple((size, size, 1) for size in TEN_SIZES)
    return Mix((Objects(1, sizes, PPM // 2, PPM, Lifetime("ops", lifetime)),))
