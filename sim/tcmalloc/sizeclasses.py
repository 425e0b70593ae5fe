"""Size classes, by the rule of the library's start (common.cc: SizeMap::Init, AlignmentForSize, NumMoveSize).

Candidate sizes advance by 8, 16, then an eighth of the power of 2 below them, at most a page: no more than 12.5 % is lost
within an object. A class's span gets pages until its tail is at most an eighth of it and it holds a quarter of the
objects that move between caches at once. A candidate with as many pages and as many objects as the class before it only
raises that class's size. There are 85 classes; number 0 is for no object, though the transfer cache counts it.

Units: bytes; pages of 8 KiB. Left out: TCMALLOC_TRANSFER_NUM_OBJ other than 32, pages of other sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.jit import inlined

PAGE_SHIFT = 13
PAGE_SIZE = 1 << PAGE_SHIFT
MAX_SIZE = 256 << 10  # larger objects come straight from the page heap (kMaxSize)
MAX_SMALL_SIZE = 1024  # up to here requests round to 8 bytes when their class is looked up, beyond to 128
MIN_ALIGN = 16
ALIGNMENT = 8
TRANSFER_BYTES = 64 << 10  # what moves between caches at once, about
TRANSFER_NUM_OBJ = 32


def alignment_for_size(size: int) -> int:
    """Bytes from a candidate size to the next one, size <= MAX_SIZE. (common.cc:AlignmentForSize)"""
    if size >= 128:
        return min((1 << (size.bit_length() - 1)) // 8, PAGE_SIZE)
    return MIN_ALIGN if size >= MIN_ALIGN else ALIGNMENT


def num_move_size(size: int) -> int:
    """Objects of a size that move between caches at once, the *batch*. (common.cc:NumMoveSize)"""
    return min(max(TRANSFER_BYTES // size, 2), TRANSFER_NUM_OBJ)


def span_pages(size: int) -> int:
    """Pages of a span of objects of a size."""
    nbytes = 0
    while True:
        nbytes += PAGE_SIZE
        while nbytes % size > nbytes >> 3:
            nbytes += PAGE_SIZE
        if nbytes // size >= num_move_size(size) // 4:
            return nbytes >> PAGE_SHIFT


def generate() -> list[tuple[int, int]]:
    """(object bytes, pages of a span) by class; class 0 is (0, 0). (common.cc:SizeMap::Init)"""
    classes = [(0, 0)]
    size = ALIGNMENT
    while size <= MAX_SIZE:
        pages = span_pages(size)
        last_size, last_pages = classes[-1]
        if last_pages == pages and (pages << PAGE_SHIFT) // size == (pages << PAGE_SHIFT) // last_size:
            classes[-1] = (size, pages)
        else:
            classes.append((size, pages))
        size += alignment_for_size(size)
    return classes


def _class_array() -> Any:
    """Class by index of a request (see `size_class`)."""
    array = np.zeros((MAX_SIZE + 127 >> 7) + 121, np.uint8)
    for cl in range(len(_CLASSES) - 1, 0, -1):  # downwards: where two classes share an index, it is the smaller's
        size = _CLASSES[cl][0]
        last = size + 7 >> 3 if size <= MAX_SMALL_SIZE else (size + 127 >> 7) + 120
        array[: last + 1] = cl
    return array


_CLASSES = generate()
NUM_CLASSES = len(_CLASSES)  # 86, class 0 included
class_to_size = np.array([size for size, _ in _CLASSES], np.int64)
class_to_pages = np.array([pages for _, pages in _CLASSES], np.int64)
num_objects_to_move = np.array([0] + [num_move_size(size) for size, _ in _CLASSES[1:]], np.int64)
objects_per_span = np.array([0] + [(pages << PAGE_SHIFT) // size for size, pages in _CLASSES[1:]], np.int64)
tail_bytes = class_to_pages * PAGE_SIZE - objects_per_span * class_to_size  # of a span, behind its last object
class_array = _class_array()


@inlined
def size_class(size: Any) -> Any:
    """Class of a request of 0 to MAX_SIZE bytes; 0 bytes are an object of 8. (common.h:SizeMap::ClassIndex)"""
    index = (size + 7) >> 3 if size <= MAX_SMALL_SIZE else ((size + 127) >> 7) + 120
    return np.int64(class_array[index])
