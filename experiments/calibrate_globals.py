"""Globals for `allocsim calibrate` to mark, as Go source: what marking a byte of a program's globals takes.

The program is built twice, with a table of globals and without; what a collection takes longer with it is the price.
The collector reads a bit for each word, eight at once, and of words that hold pointers those that are not nil, whose
span it then looks for (mgcmark.go:scanblock): a byte costs by how many of its neighbours are pointers, and where those
lead. So the table is made of what the sections .data and .bss of a small program hold, mostly the runtime's own
variables, many times over, each written: memory never written would all be the system's one page of zeros.

What they hold was counted in programs that do nothing but print, go1.19.8 and go1.27.3 for linux/amd64, with the
runtime's own bitmaps of them. Two thirds of the pointers in .data lead into the binary (types, strings, functions) and the
others are nil; in .bss nearly all are nil, 8192 of them in a row (pageAlloc.chunks). Those that lead to the heap, 113
and 81, are nil here: to find an object belongs to the price of that object.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from random import Random

TABLE_BYTES = 8 << 20  # more than a core's own caches hold: between two collections a program goes through as much
_WORD, _EIGHT = 8, 8
_CHUNKS = 8192


@dataclass(frozen=True, slots=True)
class Section:
    """A section of globals: how many groups of 64 bytes have 0, 1, ... 8 words that are pointers, and how many of all
    those lead into the binary."""

    groups: tuple[int, ...]
    aimed: int

    def words(self, random: Random) -> list[bool]:
        """Whether each word is a pointer: groups without one first, as they are mostly of one variable, others at random."""
        counts = [pointers for pointers, n in enumerate(self.groups) for _ in range(n)]
        some = counts[self.groups[0] :]
        random.shuffle(some)
        found = [False] * (_EIGHT * self.groups[0])
        for pointers in some:
            at = random.sample(range(_EIGHT), pointers)
            found += [word in at for word in range(_EIGHT)]
        return found


# .data, and .bss without the 8192 in a row
_SECTIONS = {
    "go1.19": (Section((0, 1, 258, 41, 79, 6, 3, 2, 91), 1137), Section((1261, 537, 158, 10, 13, 0, 0, 2, 4), 29)),
    "go1.27": (Section((0, 1, 30, 42, 120, 21, 1, 0, 88), 928), Section((286, 552, 170, 16, 8, 3, 1, 0, 6), 53)),
}


def globals_file(version: str | None) -> str:
    """The file globals.go of the program calibrate: a table as a version's globals are, or none."""
    words, aimed = _layout(version) if version else ([], [])
    each = _WORD * len(words)
    return "\n".join(
        [
            "package main",
            "",
            'import "unsafe"' if words else "",
            "",
            f"var table [{TABLE_BYTES // each if words else 0}]struct {{",
            *_fields(words),
            "}",
            "",
            "// aimed are the offsets of words in an element that point to static data.",
            f"var aimed = []uintptr{{{', '.join(map(str, aimed))}}}",
            "",
        ]
    )


def _layout(version: str) -> tuple[list[bool], list[int]]:
    """Of an element: whether each word is a pointer, and offsets of those that lead into the binary."""
    random = Random(version)
    words: list[bool] = []
    aimed: list[int] = []
    for section in _SECTIONS[version]:
        own = section.words(random)
        pointers = [len(words) + at for at, pointer in enumerate(own) if pointer]
        aimed += sorted(random.sample(pointers, section.aimed))
        words += own
    return words + [True] * _CHUNKS, [_WORD * at for at in aimed]


def _fields(words: Sequence[bool]) -> Iterator[str]:
    """Fields of a struct of such words."""
    for pointer, run in groupby(words):
        yield f"\t_ [{len(list(run))}]{'unsafe.Pointer' if pointer else 'uintptr'}"
