"""What the tests of streams hold them against: a slow interpreter of operations and a slow model of the draws."""

from collections import defaultdict
from dataclasses import dataclass
from math import inf

from sim.engine.rng import Stream
from sim.ops import ALLOC, COMPUTE, DEAD, NEEDZERO, NO_OBJ, NOSCAN, SHARED, TOUCH
from workloads.spec import PPM

KIND, FLAGS, OBJ, ARG, PTR = range(5)


@dataclass
class Object:
    size: int
    ptr_bytes: int
    flags: int
    obj: int
    born: int  # mallocs done, this one included
    born_bytes: int  # bytes allocated, its own included
    died: float = inf  # mallocs done at its death
    died_bytes: float = inf


class Interpreter:
    """Runs operations over dictionaries of variables; fails at the first that breaks a rule."""

    def __init__(self):
        self.objects = []
        self.local, self.shared = {}, {}
        self.bytes = self.live_bytes = self.alive = 0
        self.computes = []
        self.live = []  # objects alive after each malloc and the deaths that come with it

    def _end(self, held, var):
        gone = held.pop(var, None)
        if gone is not None:
            gone.died, gone.died_bytes = len(self.objects), self.bytes
            self.alive -= 1
            self.live_bytes -= gone.size
        return gone

    def run(self, ops):
        for kind, flags, var, arg, ptr_bytes in ops.tolist():
            held = self.shared if flags & SHARED else self.local
            if kind == COMPUTE:
                assert arg > 0, "a compute of no time"
                assert (flags, var, ptr_bytes) == (0, NO_OBJ, 0)
                self.computes.append(arg)
            elif kind == ALLOC:
                self._allocate(held, flags, var, arg, ptr_bytes)
            else:
                assert kind == DEAD
                assert (flags & ~SHARED, arg, ptr_bytes) == (0, 0, 0)
                assert self._end(held, var), f"variable {var} is empty"
                self.live[-1] = self.alive

    def _allocate(self, held, flags, var, size, ptr_bytes):
        assert size > 0
        assert bool(flags & NOSCAN) == (ptr_bytes == 0)
        assert ptr_bytes % 8 == 0
        assert 0 <= ptr_bytes <= size
        assert not flags & ~(NOSCAN | NEEDZERO | TOUCH | SHARED)
        new = Object(size, ptr_bytes, flags, var, len(self.objects) + 1, self.bytes + size)
        self.objects.append(new)
        self.bytes += size
        if var != NO_OBJ:
            assert var >= 0
            self._end(held, var)
            held[var] = new
        self.alive += 1
        self.live_bytes += size
        self.live.append(self.alive)


def interpret(ops):
    run = Interpreter()
    run.run(ops)
    return run


def at(seed, name, i):
    """The stream of this name, its next value number i."""
    stream = Stream(seed, name)
    stream.counter = i
    return stream


class Draws:
    """The documented rules, with Python's integers: what malloc i of a mix draws."""

    def __init__(self, mix, seed, name, alias_table):
        self.mix, self.seed, self.name = mix, seed, name
        self.kinds = alias_table([kind.weight for kind in mix.objects])
        self.sizes = [alias_table([weight for _, _, weight in kind.sizes]) for kind in mix.objects]

    def _choose(self, table, half):
        cell, rest = divmod(half * len(table), 1 << 32)
        threshold, other = table[cell]
        return cell if rest < threshold else other

    def kind(self, i):
        return self._choose(self.kinds, at(self.seed, f"{self.name}/kinds", i).next_u64() >> 32)

    def size(self, i):
        kind = self.kind(i)
        high, low = divmod(at(self.seed, f"{self.name}/sizes", i).next_u64(), 1 << 32)
        first, last, _ = self.mix.objects[kind].sizes[self._choose(self.sizes[kind], high)]
        return first + (low * (last - first + 1) >> 32)

    def ptr_bytes(self, i):
        kind, size = self.mix.objects[self.kind(i)], self.size(i)
        half = at(self.seed, f"{self.name}/pointers", i).next_u64() >> 32
        if size < 8 or half >= (kind.pointers_ppm << 32) // PPM:
            return 0
        share = round(kind.pointer_bytes_ppm * 2**20 / PPM)
        return 8 * min(max((size * share + 2**22) >> 23, 1), size // 8)

    def lifetime(self, i):
        """In mallocs or bytes; the place in a cache; None for others."""
        life = self.mix.objects[self.kind(i)].lifetime
        stream = at(self.seed, f"{self.name}/lifetimes", 64 * i)
        if life.kind == "cache":
            return (stream.next_u64() >> 32) * life.mean >> 32
        if life.kind not in ("ops", "bytes"):
            return None
        if life.dist == "fixed":
            return life.mean
        if life.kind == "bytes":
            return stream.exponential(life.mean)
        low = at(self.seed, f"{self.name}/lifetimes", 64 * i).next_u64() & 0xFFFF
        return (stream.exponential(life.mean << 16) + low) >> 16

    def think(self, i):
        stream = at(self.seed, f"{self.name}/think", 64 * i)
        return stream.exponential(self.mix.think) if self.mix.think_dist == "exponential" else self.mix.think


def check_thinks(run, draws):
    """The computes of a worker are the think times of its mallocs, but for those of no time."""
    thinks = [time for i in range(len(run.objects) + 1) if (time := draws.think(i))]
    assert run.computes in (thinks, thinks[:-1])


def check_draws(run, draws):
    """Sizes, pointers and flags of every malloc are the ones it draws."""
    for i, found in enumerate(run.objects):
        kind = draws.mix.objects[draws.kind(i)]
        assert (found.size, found.ptr_bytes) == (draws.size(i), draws.ptr_bytes(i)), i
        assert bool(found.flags & NEEDZERO) == kind.zeroed
        assert bool(found.flags & TOUCH) == kind.touched
        if kind.lifetime.kind == "immortal":
            assert found.obj == NO_OBJ


def check_deaths(run, draws):
    """Objects of a timed lifetime die with the malloc at which they are due, neither before nor after."""
    ends = [found.born_bytes for found in run.objects]
    last = len(ends)
    for i, found in enumerate(run.objects):
        life = draws.mix.objects[draws.kind(i)].lifetime.kind
        if life == "ops":
            due = found.born + draws.lifetime(i)
            assert found.died == (due if due <= last else inf) or (due == last and found.died == inf), i
        elif life == "bytes":
            due = found.born_bytes + draws.lifetime(i)
            died = next((j for j in range(i, last) if ends[j] >= due), None)
            assert found.died == (inf if died is None else died + 1) or (died == last - 1 and found.died == inf), i
        elif life == "immortal":
            assert found.died == inf


def check_caches(run, draws):
    """A cache's object dies when the next one takes its place; places are where the draws say."""
    first, starts = 0, {}
    for number, kind in enumerate(draws.mix.objects):
        if kind.lifetime.kind == "cache":
            starts[number] = first
            first += kind.lifetime.mean
    taken = defaultdict(lambda: inf)
    for i in range(len(run.objects) - 1, -1, -1):
        number = draws.kind(i)
        if number in starts:
            place = starts[number] + draws.lifetime(i)
            assert run.objects[i].obj == place, i
            assert run.objects[i].died == taken[place], i
            taken[place] = run.objects[i].born
