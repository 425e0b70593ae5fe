"""Bytes of globals with pointers, read from a program's file, against what the linker and the runtime say of it."""

import re
import struct
import subprocess

import pytest

from experiments.program_globals import globals_of
from experiments.toolchain import command

PROGRAM = """package main

import "runtime"

var pointers [1 << 18]*byte // 2 MiB
var numbers [1 << 18]int

func main() {
	pointers[7], numbers[8] = new(byte), 1
	runtime.GC()
	println(pointers[7], numbers[8])
}
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory, go):
    """A program with 2 MiB of pointers and 2 MiB of numbers, and its toolchain."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "main.go").write_text(PROGRAM)
    command([go.path, "build", "-o", folder / "main", folder / "main.go"], folder)
    if (folder / "main").read_bytes()[:4] != b"\x7fELF":
        pytest.skip("no ELF files here")
    return folder / "main", go


def test_they_are_what_lies_between_the_runtimes_marks(built):
    program, go = built
    symbols = {name: int(at, 16) for at, _, name in re.findall(r"(\w+) (\w) (runtime\.e?(?:data|bss))$", command([go.path, "tool", "nm", program]), re.MULTILINE)}
    between = sum(symbols[f"runtime.e{name}"] - symbols[f"runtime.{name}"] for name in ("data", "bss"))
    assert globals_of(program) == between
    assert 2 << 20 < between < 3 << 20  # numbers are not scanned


def test_they_are_what_gctrace_says(built):
    program, _ = built
    done = subprocess.run([program], env={"GODEBUG": "gctrace=1"}, capture_output=True, text=True, check=True)
    (told,) = set(re.findall(r"(\d+) MB globals", done.stderr))
    assert globals_of(program) >> 20 == int(told)


def test_what_is_no_such_program_says_nothing(built, tmp_path):
    image = built[0].read_bytes()
    for name, other in (
        ("text", b"#!/bin/sh\n" * 100),
        ("nothing", b""),
        ("short", image[:1000]),
        ("of 32 bits", image[:4] + b"\1" + image[5:]),
        ("without sections", image[:0x3C] + struct.pack("<HH", 0, 0) + image[0x40:]),
    ):
        (tmp_path / name).write_bytes(other)
        assert globals_of(tmp_path / name) is None, name
    assert globals_of(tmp_path / "missing") is None
    assert globals_of(tmp_path) is None
