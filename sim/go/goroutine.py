"""Goroutines as SimPy processes: what their code may yield, and how they are resumed (the g of runtime2.go).

A goroutine's Python code takes no simulated time and runs when a P runs it (proc.py). Inside, ``yield g.run(ops)``
(thousands of operations), ``yield g.malloc(n)``, ``yield g.drop(obj)``, ``yield g.compute(ps)``, ``yield g.use_stack(n)``
and ``yield g.go(function, ...)`` use the P; any other SimPy event parks the goroutine and frees the P until it fires. An
event that fires at the very instant it is yielded parks nobody: an operation of a channel that need not wait. The
runtime's own goroutines also yield `SystemStack`, a piece of work that is not operations: it uses the P and cannot be
preempted.

Nothing of what is asked for has happened before the yield is over: the child of ``g.go`` runs, and a dropped handle
names another object, only then.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import simpy
from simpy.events import Condition, Initialize

from sim.jit import PLAIN
from sim.ops import ALLOC, COMPUTE, DEAD, NEEDZERO, NOSCAN, OP, SHARED
from sim.units import throw

if TYPE_CHECKING:
    from sim.go.proc import Proc
    from sim.go.world import World

Body = Generator[simpy.Event, Any, Any]


class Work(simpy.Event):
    """What a goroutine asks of its P: to run a batch of operations."""

    def __init__(
        self, g: Goroutine, ops: Any, variables: int, result: Any = None, then: Callable[[], None] | None = None
    ) -> None:
        super().__init__(g.world.env)
        self.ops = ops.view(np.recarray) if PLAIN else ops
        self.variables = variables  # own variables the operations name
        self.result = result  # the value of the yield
        self.then = then  # what happens when it is done
        self.before: Callable[[Proc], Body] | None = None  # a process step that its P does first, and cannot leave


GOSCHED = object()  # result of a step on the system stack: others are to run first (proc.go:Gosched)


class SystemStack(simpy.Event):
    """A process step that a goroutine runs on its P, which it keeps throughout; the step's result is the yield's value.

    (asm_amd64.s:systemstack) The step is called with the P. It tells the P what kind of time passes (`Proc.turn_to`).
    """

    def __init__(self, env: simpy.Environment, step: Callable[[Proc], Generator[simpy.Event, Any, Any]]) -> None:
        super().__init__(env)
        self.step = step


class Goroutine(simpy.Process):
    """A goroutine: a SimPy process that runs when a P runs it. Made by ``world.go`` or, from inside, ``g.go``.

    It is an event too: it fires with the function's return value when it ends, or fails with the exception it raised.
    ``waited`` is the picoseconds it has spent runnable without a P.
    """

    def __init__(
        self,
        world: World,
        name: str,
        function: Callable[..., Body],
        args: tuple[Any, ...],
        stack: int = 0,
        system: bool = False,
    ) -> None:
        # NOTE: SimPy's Process starts when it is made; a goroutine is made by its go statement and starts at its end
        simpy.Event.__init__(self, world.env)
        self.world = world
        self.id = 0  # its row in the table of goroutines, from its go statement to its end
        self.p: Proc | None = None  # the P it runs on
        self.system = system  # the runtime's own: not counted
        self.waited = 0
        self.label = name
        self.settling = False  # its P waits whether this instant brings the event it yielded
        self.cause: simpy.Event | None = None  # the event it goes on with
        self.queued = 0  # when it became runnable
        self.frames = world.stacks.check_frames(stack) if stack else 0  # bytes of stack that its first run reaches
        self.off_since = -1  # when it lost its P in the middle of mallocgc
        self.off_in = 0  # and why
        self.queued_marking = False  # it was a mark worker's P whose queue it last joined
        self.injected = False  # what readies it puts it on the global queue, not before others (injectglist)
        self._generator = function(self, *args)
        if not hasattr(self._generator, "throw"):
            throw(f"goroutine {name} is no generator: {function} must yield at least once")

    def _desc(self) -> str:
        return f"Goroutine({self.label})"

    def start(self) -> None:
        """Let it be runnable from this instant on. (newproc, its end)"""
        if not self.id:
            self.id = self.world.stacks.outside()
        self.world.sched.note_alive(not self.system)
        self._target = Initialize(self.env, self)

    # what its own code yields

    def run(self, ops: Any, variables: int = 0) -> Work:
        """Run a batch: an array of `sim.ops.OP` records, unchanged until done; its own variables are 0..variables-1.

        Throw if a record is none, names another variable, or asks for less than 1 byte or more than 1 TiB.
        """
        if not isinstance(ops, np.ndarray) or ops.dtype != OP or ops.ndim != 1 or not ops.flags.c_contiguous:
            throw("a batch is a contiguous array of sim.ops.OP")
        return Work(self, ops, variables)

    def malloc(self, size: int, ptr_bytes: int = 0, needzero: bool = True) -> Work:
        """Allocate ``size`` bytes, pointers in the first ``ptr_bytes``; its value is a handle for `drop`."""
        handle = self.world.roots.new_handle()
        flags = SHARED | (NEEDZERO if needzero else 0) | (0 if ptr_bytes else NOSCAN)
        return Work(self, _one(ALLOC, flags, handle, size, ptr_bytes), 0, handle)

    def drop(self, handle: int) -> Work:
        """Drop the object of a handle: it is dead, and the handle may name another then. Throw if it names none."""
        roots = self.world.roots
        roots.give_up_handle(handle)
        return Work(self, _one(DEAD, SHARED, handle, 0, 0), 0, None, partial(roots.free_handle, handle))

    def compute(self, picoseconds: int) -> Work:
        """Run that long without allocating; can be preempted anywhere."""
        return Work(self, _one(COMPUTE, 0, 0, picoseconds, 0), 0)

    def use_stack(self, nbytes: int) -> Work:
        """Its frames reach so many bytes from now on: the stack grows if need be, in time for it. Throw beyond 1 GB."""
        work = Work(self, np.zeros(0, OP), 0)
        work.before = partial(self.world.stacks.use, self, self.world.stacks.check_frames(nbytes))
        return work

    def go(self, function: Callable[..., Body], *args: Any, name: str = "", stack: int = 0) -> Work:
        """Start ``function(child, *args)`` as a goroutine; its value is the child. (newproc)

        ``stack``: bytes that the child's frames reach as soon as it runs; by default few.
        """
        child = Goroutine(self.world, name or function.__name__, function, args, stack)
        work = Work(self, _one(COMPUTE, 0, 0, 0, 0), 0, child, child.start)
        work.before = partial(self.world.stacks.newproc, child, work.ops)
        return work

    def call(self, step: Callable[[Proc], Body]) -> SystemStack:
        """Run a process step on the P, as `SystemStack` says; for the runtime's own goroutines."""
        return SystemStack(self.env, step)

    def interrupt(self, cause: Any = None) -> None:
        """Goroutines cannot be interrupted, as in Go: send them something they wait for."""
        throw(f"goroutine {self.label} cannot be interrupted ({cause!r})")

    # what SimPy and the P do with it

    def _resume(self, event: simpy.Event) -> None:
        """The event it waited for fired (SimPy calls this): it is runnable. (ready)"""
        if not event._ok:
            event._defused = True  # it is thrown into the goroutine as soon as that runs
        self.cause = event
        if self.settling:
            return
        if self.injected:
            self.world.sched.ready_global(self)
        else:
            self.world.sched.ready(self)

    def advance(self) -> Work | SystemStack | None:
        """Run its Python code up to the next yield, on its P; what it then asks of that, None if it parked or ended."""
        cause, self.cause = self.cause, None
        assert cause is not None
        super()._resume(cause)
        target = self._target
        if isinstance(target, Work | SystemStack):
            return target
        if isinstance(target, Condition) and any(isinstance(event, Work | SystemStack) for event in target._events):
            throw(f"goroutine {self.label} waits for work together with other events; work is yielded alone")
        return None

    def unfinished(self) -> Work | None:
        """The work it was taken off its P in, if it was."""
        return self._target if self.cause is None and isinstance(self._target, Work) else None

    def finish(self, work: Work) -> None:
        """Its work is done: the value of the yield is the work's result."""
        if work.then is not None:
            work.then()
        self.answer(work, work.result)

    def answer(self, work: Work | SystemStack, value: Any) -> None:
        """What it asked of its P is done, with this value of the yield."""
        work._ok = True
        work._value = value
        work.callbacks = None  # type: ignore[assignment]
        self.cause = work


def _one(kind: int, flags: int, obj: int, arg: int, ptr_bytes: int) -> Any:
    """A batch of one operation."""
    ops = np.zeros(1, OP)
    ops[0] = (kind, flags, obj, arg, ptr_bytes)
    return ops
