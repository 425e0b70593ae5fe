"""How many bytes of globals the collector scans of a program, as its file says.

It scans what the linker gives what has pointers, the sections .data and .bss, from end to end (runtime.data to edata, bss to
ebss; mgcmark.go:gcMarkRootPrepare, markrootBlock); what has none is in .noptrdata and .noptrbss. A program that prints a line has 158,122 B of them
with go1.27.3 by its file and by its own metric /gc/scan/globals:bytes, one of `allocsim validate` 165,386 B by both. With
go1.19.8, which has no such metric, the latter has 226,960 B. Of one with 8,491,088 B gctrace says "8 MB globals".
"""

from __future__ import annotations

import struct
from pathlib import Path

_SCANNED = (b".data", b".bss")
_ELF64 = (b"\x7fELF", 2, 1)  # with the lowest byte of a number first
_HEAD = "<4sBB34xQ10xHHH"  # those, then where sections' headers are, the size of one, how many, and whose section has names
_SECTION = "<I20xQQ"  # name, as an offset in those; offset of the section and its size


def globals_of(program: Path) -> int | None:
    """Bytes of globals with pointers of a program that Go linked; None if its file is no 64-bit ELF file, as on Linux, or
    has no sections."""
    try:
        image = program.read_bytes()
        *kind, at, each, n, named = struct.unpack_from(_HEAD, image)
        sections = [struct.unpack_from(_SECTION, image, at + i * each) for i in range(n)]
        names = sections[named][1]
    except (OSError, struct.error, IndexError):
        return None
    if tuple(kind) != _ELF64:
        return None
    sizes = {image[names + name :].partition(b"\0")[0]: size for name, _, size in sections}
    return sum(sizes[name] for name in _SCANNED) if sizes.keys() >= set(_SCANNED) else None
