"""How a command is recorded: what it is, its settings, and the flags that make it write a trace and a heap profile.

`go test` and `go run` start the program themselves, and are Go programs that would print gctrace lines of their own:
there GODEBUG is set by a script that they run the program with (-exec), which also parts the program's stderr from what
they say. The binary of a test takes -test.trace and -test.memprofile. Other programs get the environment alone.
"""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.errors import InputError

GO_HINT = "install it from https://go.dev/dl and put its bin folder in PATH, or pip install 'allocsim[go]'"
MEMPROFILERATE = 64 << 10  # mean bytes between two samples: eight times as many as Go's own, some percent of the time
_TRACED = 22  # the first minor version with allocation events in its traces
_MAGIC = b"\xff Go buildinf:"
_INLINE = 2  # flag of build information that has its strings in itself (Go 1.18 and later)
_HEAD = 64 << 20  # bytes of a program that are searched


@dataclass(slots=True)
class Plan:
    """A command to be run. ``kind``: "go", "test" (a compiled one) or "program".

    ``trace``: it can make one, and shall. ``outputs``: what it will write, by the name it is kept under. ``fifo``: where the program's stderr arrives if not
    on its own. ``remove``: what is not kept.
    """

    kind: str
    argv: list[str]
    environment: dict[str, str]
    godebug: str
    go: str | None
    trace: bool
    outputs: dict[str, Path]
    fifo: Path | None = None
    remove: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def godebug(users: str, wanted: Mapping[str, str]) -> str:
    """A GODEBUG with our keys added to the user's, whose own values stay unless they switch ours off."""
    parts = (part.partition("=") for part in users.split(",") if part)
    keys = {key: value for key, _, value in parts}
    keys |= {key: value for key, value in wanted.items() if keys.get(key, "0") in ("0", "")}
    return ",".join(f"{key}={value}" for key, value in keys.items())


def find_command(command: Sequence[str]) -> str:
    """Where the command is; InputError says what is missing."""
    name = command[0]
    found = shutil.which(name)
    if found is None and name == "go":
        found = shutil.which(name, path=str(Path(sys.executable).parent))  # what allocsim[go] brings
    if found is not None:
        return found
    if name == "go":
        raise InputError(f"go: no such command; {GO_HINT}")
    if "/" in name and Path(name).is_file():
        raise InputError(f"{name}: is not executable; make it so with chmod +x, or build it with go build")
    here = "" if "/" in name else f" (a program of this folder is ./{name})"
    raise InputError(f"{name}: no such command; name a program, go test or go run{here}")


def plan(command: Sequence[str], folder: Path, environment: Mapping[str, str], *, trace: bool) -> Plan:
    """The plan for a command that keeps its files in ``folder``; InputError if it cannot be found."""
    found = find_command(command)
    name, arguments = Path(found).name, list(command[1:])
    verb = _verb(arguments) if name in ("go", "go.exe") else None
    version = _go_version(found) if verb is not None else build_version(Path(found))
    wanted = {"gctrace": "1"} | ({"traceallocfree": "1"} if trace else {})
    settings = godebug(environment.get("GODEBUG", ""), wanted)
    made = Plan("program", [found, *arguments], dict(environment), settings, version, trace, {})
    if trace and (minor := minor_version(version)) is not None and minor < _TRACED:
        made.notes.append(f"{version} has no allocation events: no trace is made, only Go 1.{_TRACED} and later can")
        made.trace = False
    if verb is not None:
        _go_command(made, arguments, verb, folder)
    elif name.removesuffix(".exe").endswith(".test") or any(one.startswith(("-test.", "--test.")) for one in arguments):
        made.kind = "test"
        made.argv[1:1] = _test_flags(made, arguments, "test.", folder)
        made.environment["GODEBUG"] = settings
    else:
        made.environment["GODEBUG"] = settings
    return made


def _verb(arguments: Sequence[str]) -> int | None:
    """Where `test` or `run` stands in the arguments of go; None if neither does."""
    at = 0
    if arguments and arguments[0] in ("-C", "--C"):
        at = 2
    elif arguments and arguments[0].startswith(("-C=", "--C=")):
        at = 1
    return at if len(arguments) > at and arguments[at] in ("test", "run") else None


def _go_command(made: Plan, arguments: Sequence[str], verb: int, folder: Path) -> None:
    """Add to go test or go run what makes it run the program with our settings, and the tests write files."""
    made.kind = "go"
    first = verb + 1
    if arguments[first : first + 1] and re.match(r"--?C(=|$)", arguments[first]):
        first += 1 if "=" in arguments[first] else 2
    rest = list(arguments[first:])
    users, rest = _taken(rest, "exec")
    made.fifo = folder / "stderr"
    script = folder / "exec.sh"
    runner = f"{users} " if users else ""
    script.write_text(
        f'#!/bin/sh\nGODEBUG={shlex.quote(made.godebug)} exec {runner}"$@" 2>{shlex.quote(str(made.fifo))}\n',
        encoding="utf-8",
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    made.remove += [script, made.fifo]
    flags = ["-exec", shlex.quote(str(script))]
    if arguments[verb] == "test":
        if _given(rest, "o") is None:
            binary = folder / "program.test"
            flags += ["-o", str(binary)]  # go test leaves it in the user's folder otherwise
            made.remove.append(binary)
        flags += _test_flags(made, rest, "", folder)
    made.argv[1:] = [*arguments[:first], *flags, *rest]


def _test_flags(made: Plan, arguments: Sequence[str], prefix: str, folder: Path) -> list[str]:
    """Flags of a test for a trace and a heap profile; the user's own stay, and what they write is copied."""
    flags: list[str] = []
    for flag, name, wanted in (("trace", "trace", made.trace), ("memprofile", "heap.pb.gz", True)):
        own = _given(arguments, flag)
        if own is not None:
            outputs = _given(arguments, "outputdir")
            made.outputs[name] = Path(outputs or ".") / own
        elif wanted:
            made.outputs[name] = folder / name
            flags.append(f"-{prefix}{flag}={folder / name}")
    if _given(arguments, "memprofilerate") is None and _given(arguments, "memprofile") is None:
        flags.append(f"-{prefix}memprofilerate={MEMPROFILERATE}")
    return flags


def _given(arguments: Sequence[str], flag: str) -> str | None:
    """The value of a flag among the arguments, up to -args; None if it is not there."""
    return _taken(arguments, flag)[0]


def _taken(arguments: Sequence[str], flag: str) -> tuple[str | None, list[str]]:
    """The value of a flag, and the arguments without it."""
    pattern = re.compile(rf"--?(?:test\.)?{flag}(?:=(.*))?", re.DOTALL)
    for i, one in enumerate(arguments):
        if one in ("-args", "--args", "--"):
            break
        if found := pattern.fullmatch(one):
            if found.group(1) is not None:
                return found.group(1), [*arguments[:i], *arguments[i + 1 :]]
            if i + 1 < len(arguments):
                return arguments[i + 1], [*arguments[:i], *arguments[i + 2 :]]
    return None, list(arguments)


def _go_version(go: str) -> str | None:
    """What `go version` says of itself, as "go1.27.3"."""
    try:
        told = subprocess.run([go, "version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r"go\d+\.\d+\S*", told)
    return found.group() if found else None


def build_version(program: Path) -> str | None:
    """The Go version that a program was built with, by its build information (debug/buildinfo); None if it has none."""
    try:
        with program.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError:
        return None
    at = head.find(_MAGIC)
    while at >= 0:
        if len(head) > at + 33 and head[at + 15] & _INLINE and head[at + 32] < 128:
            text = head[at + 33 : at + 33 + head[at + 32]].decode("ascii", "replace")
            if found := re.match(r"go\d+\.\d+\S*", text):
                return found.group()
        at = head.find(_MAGIC, at + 1)
    return None


def minor_version(version: str | None) -> int | None:
    """27 of go1.27.3."""
    found = re.match(r"go1\.(\d+)", version or "")
    return int(found.group(1)) if found else None
