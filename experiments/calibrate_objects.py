"""The loops of mallocs that `allocsim calibrate` times, as Go source: one function for each type of object.

The compiler calls a specialised malloc only where it knows the type, not in generic code, so each type has its own
functions: a loop, the same with each call timed, a loop that writes the objects, and one malloc. Pointerful objects
over 512 B are 8 bytes short of their size class: malloc puts a header of 8 bytes before them from Go 1.22 on.
"""

from __future__ import annotations

from experiments.machine_file import KINDS
from sim.go.sizeclasses import MALLOC_HEADER_SIZE, MIN_SIZE_FOR_MALLOC_HEADER, class_to_allocnpages, class_to_size
from sim.go.state import PAGE_SIZE

SMALL = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 32768)
LARGE = (64 << 10, 1 << 20, 16 << 20)
_WORD = 8
_PER_PAGE = 512  # words of a 4 KiB page

_HEAD = """package main

import (
	"unsafe"

	"allocsim/truth/tsc"
)

"""
_FUNCTIONS = """
func loop{name}(n int) {{
	for i := 0; i < n; i++ {{
		sink = unsafe.Pointer(new({type}))
	}}
}}

func calls{name}(took []uint32, at []uintptr) (p unsafe.Pointer) {{
	for i := range took {{
		begin := tsc.Now()
		p = unsafe.Pointer(new({type}))
		took[i] = checked(tsc.Now() - begin)
		at[i] = uintptr(p)
	}}
	return p
}}

func fill{name}(n int) {{
	for i := 0; i < n; i++ {{
		p := new({type})
		for j := 0; j < len(p); j += {step} {{
			p[j] = {value}
		}}
		sink = unsafe.Pointer(p)
	}}
}}

func one{name}() unsafe.Pointer {{ return unsafe.Pointer(new({type})) }}
"""


def objects_file() -> str:
    """The file objects.go of the program calibrate."""
    entries, functions = [], []
    for size in (*SMALL, *LARGE):
        for kind in KINDS:
            name = f"{'P' if kind == 'scan' else 'N'}{size}"
            entries.append(f'\t{{{size}, "{kind}", {_pages(size)}, loop{name}, calls{name}, fill{name}, one{name}}},')
            functions.append(_functions(name, size, kind))
    return "\n".join([_HEAD + "var objects = []object{", *entries, "}", *functions])


def _pages(size: int) -> int:
    """Go pages of a span of that class, or of a large object's."""
    sizes = [int(one) for one in class_to_size]
    return int(class_to_allocnpages[sizes.index(size)]) if size in sizes else size // PAGE_SIZE


def _functions(name: str, size: int, kind: str) -> str:
    if kind == "noscan":
        return _FUNCTIONS.format(name=name, type=f"[{size // _WORD}]uint64", step=_PER_PAGE, value="1")
    short = MALLOC_HEADER_SIZE if size > MIN_SIZE_FOR_MALLOC_HEADER else 0
    return _FUNCTIONS.format(name=name, type=f"[{(size - short) // _WORD}]*byte", step=_PER_PAGE, value="&target")
