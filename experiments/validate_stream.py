"""A scenario as a real program: the streams it runs, as files for ``truth/replayer``, and the types that it allocates.

Both sides run the operations of `workloads.streams`, with tables of variables added: a real program holds its
variables in memory that the collector scans, so each worker's first malloc is that of its table, a service's first that
of the shared one, and each request's first that of its own (`Tables` for the simulation).

A file is 64-bit words; `truth/replayer/stream.go` says their codes. Eight bytes an operation rather than the 24 of
`sim.ops.OP`: the program reads them between its mallocs, through the same caches as its objects.

With ``heap_shape = "tree"`` the objects of a round are the nodes of a binary tree, allocated in preorder, each linked into
its parent; the variables are those on the path from the root, and the whole tree is dropped at the end of the round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import InputError
from sim.go.goroutine import Body, Goroutine
from sim.go.world import World
from sim.metrics.histogram import Histogram
from sim.ops import ALLOC, COMPUTE, DEAD, NEEDZERO, NO_OBJ, SHARED, TOUCH
from workloads.drive import Load
from workloads.scenario import Scenario
from workloads.spec import PPM, SMALL_STACK, Mix, Objects, Recorded, Service, Workers
from workloads.streams import WorkerStream, batches, operations, requests, share
from workloads.streams_state import SHARE_BITS

_COMPUTE, _DEAD, _BYTES, _TABLE, _RESET, _REQUEST = range(0xFFFF, 0xFFF9, -1)
_MAX_TYPES = 4096
_SHARED, _TOUCH, _LEFT, _RIGHT = (1 << (48 + bit) for bit in range(4))
_WORD = 8  # bytes of a variable
_LEAST_NODE = 16  # bytes of pointers in a node of a tree


# What cannot be expressed


def check(scenario: Scenario, file: str) -> None:
    """InputError, one line with file and key, unless a real program can do what the scenario says."""

    def need(right: bool, key: str, what: str) -> None:
        if not right:
            raise InputError(f"{file}: {key}: {what}")

    workload = scenario.workload
    need(not isinstance(workload, Recorded), "workload.kind", "a trace is no program to run; write workers or service")
    assert not isinstance(workload, Recorded)
    need(scenario.assists, "runtime.assists", "a real program cannot switch assists off; leave it out")
    need(not scenario.changes, "runtime.change", "settings of a real program stay; leave it out")
    need(not scenario.memprofilerate, "runtime.memprofilerate", "the real program has no profile; leave it out")
    need(scenario.layout == "sparse", "runtime.layout", "no toolchain of today has that heap; leave it out")
    need(workload.stack == SMALL_STACK, "workload.stack", "the real program's frames are what they are; leave it out")
    tree = scenario.heap_shape == "tree"
    need(
        tree or scenario.heap_shape == "array-shuffled",
        "runtime.heap_shape",
        f'{scenario.heap_shape} cannot be built; write "array-shuffled" (variables in a table) or "tree"',
    )
    if isinstance(workload, Workers):
        need(scenario.mallocs is not None, "run.mallocs", "missing; a real program ends after so many, as in 1_000_000")
        need(scenario.duration_ps is None, "run.duration", "a worker of a real program counts mallocs; leave it out")
    need(not tree or isinstance(workload, Workers), "runtime.heap_shape", "trees are what workers build")
    for number, kind in enumerate(workload.mix.objects):
        _check_kind(kind, tree, f"{file}: workload.objects.{number}")


def _check_kind(kind: Objects, tree: bool, where: str) -> None:
    if not kind.zeroed:
        raise InputError(f"{where}.zeroed: new memory of a Go program is zeroed; leave it out")
    if kind.pointers_ppm:
        for low, high, _ in kind.sizes:
            if low != high or low % _WORD:
                raise InputError(f"{where}.size: objects with pointers have types; write single sizes, multiples of 8B")
    if tree:
        least = min(pointer_bytes(low, kind.pointer_bytes_ppm) for low, _, _ in kind.sizes)
        if kind.lifetime.kind != "request" or kind.pointers_ppm != PPM or least < _LEAST_NODE or not kind.touched:
            raise InputError(
                f"{where}: nodes of a tree have two pointers at least, are written, and die with their round; write "
                'pointers = 1.0, lifetime = "request" and sizes that leave 16 B of pointers'
            )


def pointer_bytes(size: int, ppm: int) -> int:
    """Bytes up to the last pointer of an object that holds some. (streams_fill.py:_pointer_bytes)"""
    share = ((ppm << SHARE_BITS) + PPM // 2) // PPM
    words = (size * share + (4 << SHARE_BITS)) >> (3 + SHARE_BITS)
    return _WORD * min(max(words, 1), size // _WORD)


# Types


Kind = tuple[int, int]
"""Bytes of a type, and those up to its last pointer."""


def kinds_of(mixes: Sequence[Mix]) -> tuple[Kind, ...]:
    """The types that mixes have: all sizes but those of ranges, which are slices of bytes."""
    found = set()
    for mix in mixes:
        for kind in mix.objects:
            for low, high, _ in kind.sizes:
                if low == high and kind.pointers_ppm:
                    found.add((low, pointer_bytes(low, kind.pointer_bytes_ppm)))
                if low == high and kind.pointers_ppm < PPM:
                    found.add((low, 0))
    if len(found) > _MAX_TYPES:
        raise InputError(f"the workloads have {len(found)} sizes; {_MAX_TYPES} are what a program of ours can have")
    return tuple(sorted(found))


def go_source(kinds: Sequence[Kind]) -> str:
    """The generated file: a function for each type that allocates one between two clock reads, and their sizes."""
    lines = [
        "// Code generated by allocsim validate. DO NOT EDIT.",
        "",
        "package main",
        "",
        'import (\n\t"unsafe"\n\n\t"allocsim/truth/tsc"\n)',
        "",
        "// sizes of the types, in bytes.",
        f"var sizes = [...]uint64{{{', '.join(str(size) for size, _ in kinds)}}}",
        "",
        "// makers allocate one each, and tell when it began and ended.",
        "var makers = [...]func() (unsafe.Pointer, uint64, uint64){",
        *(f"\tmake{number}," for number in range(len(kinds))),
        "}",
    ]
    for number, (size, pointers) in enumerate(kinds):
        lines += [
            "",
            f"type type{number} {_go_type(size, pointers)}",
            "",
            "//go:noinline",
            f"func make{number}() (unsafe.Pointer, uint64, uint64) {{",
            "\tbegin := tsc.Now()",
            f"\tp := new(type{number})",
            "\tend := tsc.Now()",
            "\treturn unsafe.Pointer(p), begin, end",
            "}",
        ]
    return "\n".join(lines) + "\n"


def _go_type(size: int, pointers: int) -> str:
    if not pointers:
        return f"[{size}]byte"
    rest = (size - pointers) // _WORD
    plain = f"\n\tplain [{rest}]uintptr" if rest else ""
    return f"struct {{\n\tpointers [{pointers // _WORD}]unsafe.Pointer{plain}\n}}"


# The operations of both sides


def table_op(variables: int, obj: int = NO_OBJ, flags: int = 0) -> Any:
    """A batch of one operation: the malloc of a table of variables."""
    ops = operations(1)
    ops[0] = (ALLOC, flags | NEEDZERO | TOUCH, obj, _WORD * variables, _WORD * variables)
    return ops


def preorder(nodes: int) -> tuple[Any, Any]:
    """Depth, and 1 for right children, of the first nodes of a full binary tree in preorder."""
    depth, right = np.zeros(1, np.int64), np.zeros(1, np.int64)
    while len(depth) < nodes:
        side = right.copy()
        side[0] = 1
        depth = np.concatenate([[0], depth + 1, depth + 1])
        right = np.concatenate([[0], right, side])
    return depth[:nodes], right[:nodes]


# Files


@dataclass(frozen=True, slots=True)
class Program:
    """What a scenario became: stream files, the variables in the table of each, and what they hold.

    ``by_kind``: mallocs of each type, and of all others (slices of bytes, and the tables) at the end.
    """

    files: tuple[Path, ...]
    variables: tuple[int, ...]
    mallocs: int
    by_kind: tuple[int, ...]
    requests: int = 0

    def remove(self) -> None:
        """Remove its files: they take up to a hundred megabytes."""
        for file in self.files:
            file.unlink()


@dataclass(slots=True)
class _Words:
    """The words of one stream in the making. ``immortal``: places of objects that need a variable of their own."""

    keys: Any
    parts: list[Any] = field(default_factory=list)
    length: int = 0
    immortal: list[Any] = field(default_factory=list)
    by_kind: Any = None

    def __post_init__(self) -> None:
        self.by_kind = np.zeros(len(self.keys) + 1, np.int64)

    def put(self, *words: int) -> None:
        """Add words as they are."""
        self.parts.append(np.array(words, np.uint64))
        self.length += len(words)

    def table(self, variables: int) -> None:
        """Add the malloc of a table."""
        self.put(_TABLE, variables)
        self.by_kind[-1] += 1

    def add(self, ops: Any, variables: Any, flags: Any) -> int:
        """Add operations, with these variables and flags in place of their own; the number of words."""
        kind, arg = ops["kind"], ops["arg"].astype(np.uint64)
        alloc = kind == ALLOC
        key = (ops["arg"] << 32) | ops["ptr_bytes"]
        code = np.minimum(np.searchsorted(self.keys, key), len(self.keys) - 1)
        static = alloc & (self.keys[code] == key)
        sized = alloc & ~static
        self.by_kind += np.bincount(np.where(sized, len(self.keys), code)[alloc], minlength=len(self.keys) + 1)
        code = np.select([static, sized, kind == DEAD], [code, _BYTES, _DEAD], _COMPUTE).astype(np.uint64)
        variable = np.where(kind == COMPUTE, arg, np.maximum(variables, 0).astype(np.uint64))
        words = code | (variable << np.uint64(16)) | np.where(kind == COMPUTE, 0, flags).astype(np.uint64)
        place = np.arange(len(ops)) + np.cumsum(sized) - sized
        out = np.zeros(len(ops) + int(sized.sum()), np.uint64)
        out[place] = words
        out[place[sized] + 1] = arg[sized]
        self.immortal.append(self.length + place[alloc & (variables == NO_OBJ)])
        self.parts.append(out)
        self.length += len(out)
        return len(out)

    def write(self, path: Path, variables: int, flags: int = 0) -> int:
        """Write the file, its immortal objects in variables from the given one on; the size of the table then."""
        whole = np.concatenate(self.parts)
        immortal = np.concatenate([np.zeros(0, np.int64), *self.immortal])
        whole[immortal] |= (np.uint64(variables) + np.arange(len(immortal), dtype=np.uint64)) << np.uint64(16)
        whole[immortal] |= np.uint64(flags)
        variables += len(immortal)
        if variables:
            whole[1] = variables
        else:
            whole = whole[2:]
            self.by_kind[-1] -= 1
        whole.tofile(path)
        return variables


def _flags(ops: Any) -> Any:
    flags = ops["flags"].astype(np.uint64)
    shared, touch = (np.where(flags & np.uint64(bit), one, 0) for bit, one in ((SHARED, _SHARED), (TOUCH, _TOUCH)))
    return (shared | np.where(ops["kind"] == ALLOC, touch, 0)).astype(np.uint64)


def write(scenario: Scenario, kinds: Sequence[Kind], folder: Path) -> Program:
    """Write the streams of a scenario that `check` let pass into a folder."""
    keys = np.array([size << 32 | pointers for size, pointers in kinds] or [-1], np.int64)
    if isinstance(scenario.workload, Service):
        return _write_service(scenario, scenario.workload, keys, folder)
    assert isinstance(scenario.workload, Workers) and scenario.mallocs is not None
    files, variables, total = [], [], np.zeros(len(keys) + 1, np.int64)
    for worker in range(scenario.workload.goroutines):
        stream = WorkerStream(scenario.workload.mix, scenario.workload.round_mallocs, scenario.seed, f"worker/{worker}")
        words = _Words(keys)
        words.table(0)
        parts = batches(stream, share(scenario.mallocs, worker, scenario.workload.goroutines))
        if scenario.heap_shape == "tree":
            held = _add_trees(words, parts, scenario.workload.round_mallocs)
        else:
            for ops in parts:
                words.add(ops, ops["obj"], _flags(ops))
            held = stream.ids
        files.append(folder / f"{scenario.name}-{worker}.words")
        variables.append(words.write(files[-1], held))
        total += words.by_kind
    return Program(tuple(files), tuple(variables), int(total.sum()), tuple(total.tolist()))


def _add_trees(words: _Words, parts: Iterator[Any], nodes: int) -> int:
    """Add rounds of mallocs as trees; the variables that takes."""
    depth, right = preorder(nodes)
    done, last = 0, ALLOC
    for ops in parts:
        kind = ops["kind"]
        alloc = kind == ALLOC
        node = (done + np.cumsum(alloc) - 1) % nodes
        link = np.where(alloc & (node > 0), np.where(right[node] == 1, _RIGHT, _LEFT), 0).astype(np.uint64)
        begins = (kind == DEAD) & (np.concatenate([[last], kind[:-1]]) != DEAD)
        start = 0
        for place in [*np.flatnonzero(begins).tolist(), len(ops)]:
            piece = slice(start, place)
            keep = kind[piece] != DEAD
            held = ops[piece][keep]
            words.add(
                held, np.where(held["kind"] == ALLOC, depth[node[piece]][keep], 0), _flags(held) | link[piece][keep]
            )
            if place < len(ops):
                words.put(_RESET)
            start = place
        done += int(alloc.sum())
        last = int(kind[-1])
    return int(depth.max()) + 1


def _write_service(scenario: Scenario, service: Service, keys: Any, folder: Path) -> Program:
    words = _Words(keys)
    words.table(0)
    number = shared = 0
    for time, ops, own, shared in requests(service, scenario.seed, scenario.duration_ps, scenario.mallocs):
        words.put(_REQUEST, time, 0)
        head = words.parts[-1]
        if own:
            words.table(own)
        head[2] = words.add(ops, ops["obj"], _flags(ops)) + (2 if own else 0)
        number += 1
    path = folder / f"{scenario.name}.words"
    held = words.write(path, shared, _SHARED)
    return Program((path,), (held,), int(words.by_kind.sum()), tuple(words.by_kind.tolist()), number)


# The simulated side


class TableLoad(Load):
    """A workload with its tables of variables, whose sizes the written program tells."""

    def __init__(self, world: World, program: Program) -> None:
        super().__init__(world)
        self._program = program

    def start_workers(self, workers: Workers, mallocs: int | None) -> None:
        """Start the workers; each allocates its table and then its share of the mallocs."""
        assert mallocs is not None
        self.mallocs = self._program.mallocs
        for i, variables in enumerate(self._program.variables):
            stream = WorkerStream(workers.mix, workers.round_mallocs, self.world.seed, f"worker/{i}")
            part = share(mallocs, i, workers.goroutines)
            self.await_process(self.world.go(_worker, stream, part, variables, name=f"worker/{i}"))

    def start_service(self, service: Service, duration: int | None, mallocs: int | None) -> None:
        """Let a goroutine allocate the shared table, and then start requests as the written program does."""
        self.mallocs = mallocs
        self.response, self.queued = Histogram(), Histogram()
        self.await_process(self.world.go(self._dispatch, service, duration, mallocs, name="dispatcher"))

    def _dispatch(self, g: Goroutine, service: Service, duration: int | None, mallocs: int | None) -> Body:
        """Goroutine: sleep until the next arrival and start it, and all that have come meanwhile. (service.go:run)"""
        world = self.world
        if self._program.variables[0]:
            yield g.run(table_op(self._program.variables[0]))
        start = world.now
        for time, ops, variables, shared in requests(service, world.seed, duration, mallocs):
            arrival = start + int(time)
            if arrival > world.now:
                yield world.timers.sleep(g, arrival - world.now)
            world.roots.reserve_shared_up_to(shared)
            self.requests += 1
            name = f"request/{self.requests}"
            child = yield g.go(self.request, ops, variables, arrival, name=name, stack=service.stack)
            self.await_process(child)

    def request(self, g: Goroutine, ops: Any, variables: int, arrived: int) -> Body:
        """Goroutine: one request, its table first."""
        if variables:
            ops = np.concatenate([table_op(variables, obj=variables), ops])
            variables += 1
        yield from super().request(g, ops, variables, arrived)


def _worker(g: Goroutine, stream: WorkerStream, mallocs: int, variables: int) -> Body:
    if variables:
        yield g.run(table_op(variables))
    for ops in batches(stream, mallocs):
        yield g.run(ops, stream.ids)
