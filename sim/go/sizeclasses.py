"""Size classes: which slot a request takes, and how many slots a span holds.

The table of 67 small classes is the same in every version here; how many objects fit differs, because go1.27 keeps
mark bits and pointer bitmaps inside the span. Class 0 stands for large objects. A span class is
``class << 1 | noscan``.

Mirrors internal/runtime/gc/sizeclasses.go (runtime/sizeclasses.go before) and mheap.go:initSpan. The sizes are
facts of the runtime; what is derived from them (slots per span) is checked against measured tables in the tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.go.state import NUM_SIZE_CLASSES, PAGE_SIZE
from sim.jit import jit

# slot size in bytes and span length in pages, by size class
_CLASSES = (
    "0/0 8/1 16/1 24/1 32/1 48/1 64/1 80/1 96/1 112/1 128/1 144/1 160/1 176/1 192/1 208/1 224/1 240/1 256/1 288/1 "
    "320/1 352/1 384/1 416/1 448/1 480/1 512/1 576/1 640/1 704/1 768/1 896/1 1024/1 1152/1 1280/1 1408/2 1536/1 "
    "1792/2 2048/1 2304/2 2688/1 3072/3 3200/2 3456/3 4096/1 4864/3 5376/2 6144/3 6528/4 6784/5 6912/6 8192/1 9472/7 "
    "9728/6 10240/5 10880/4 12288/3 13568/5 14336/7 16384/2 18432/9 19072/7 20480/5 21760/8 24576/3 27264/10 28672/7 "
    "32768/4"
)
class_to_size = np.array([int(entry.split("/")[0]) for entry in _CLASSES.split()], dtype=np.int64)
class_to_allocnpages = np.array([int(entry.split("/")[1]) for entry in _CLASSES.split()], dtype=np.int64)

# by request size in units of 8 bytes: the smallest class that holds it; the runtime has a second table for large sizes
size_to_class8 = np.searchsorted(class_to_size, np.arange(0, class_to_size[-1] + 1, 8)).astype(np.uint8)

MALLOC_HEADER_SIZE = 8
MIN_SIZE_FOR_MALLOC_HEADER = 512  # pointerful objects above it carry a header (go1.27)
INLINE_MARK_BITS_SIZE = 128
assert len(class_to_size) == NUM_SIZE_CLASSES


@jit
def size_class(size: Any) -> Any:
    """The smallest size class whose slots hold ``size`` bytes, 1 <= size <= 32768. (malloc.go:mallocgcSmallNoscan)"""
    return np.int64(size_to_class8[(size + 7) >> 3])


@jit
def uses_inline_mark_bits(h: Any, elemsize: Any) -> Any:
    """Whether spans of such slots carry their mark bits. (mgcmark_greenteagc.go:gcUsesSpanInlineMarkBits)"""
    return h[0].inline_mark_bits != 0 and 16 <= elemsize <= MIN_SIZE_FOR_MALLOC_HEADER


@jit
def span_reserve(h: Any, elemsize: Any, npages: Any, noscan: Any) -> Any:
    """Bytes at a span's end that hold no objects: inline mark bits and pointer bitmap. (mheap.go:initSpan)"""
    reserve = 0
    if uses_inline_mark_bits(h, elemsize):
        reserve += INLINE_MARK_BITS_SIZE
    if h[0].heap_bits_in_span and not noscan and elemsize <= MIN_SIZE_FOR_MALLOC_HEADER:
        reserve += npages * PAGE_SIZE // 64
    return reserve


@jit
def span_nelems(h: Any, spanclass: Any) -> Any:
    """Slots of a span of a small span class in the version of ``h``."""
    sizeclass = np.int64(spanclass) >> 1
    elemsize = class_to_size[sizeclass]
    npages = class_to_allocnpages[sizeclass]
    return (npages * PAGE_SIZE - span_reserve(h, elemsize, npages, np.int64(spanclass) & 1)) // elemsize
