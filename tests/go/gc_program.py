"""Programs for the collector's tests: goroutines that know what is alive, by a list of their own.

A program is plain data (`Program`), drawn by a seed or by Hypothesis: per goroutine a list of steps, each a tuple of a
name and numbers. Its goroutines write down where each object they hold lies (`Shadow`); an object keeps its place and
stays allocated, and no two share one, until it is dropped. What a batch in progress may drop is not looked at.
"""

import random
from dataclasses import dataclass, field

import numpy as np
import simpy

from sim.engine.clock import after
from sim.go.check import check_heap
from sim.go.check_gc import watch
from sim.go.state import PAGE_SHIFT, SPAN_IN_USE, TINY_SPAN_CLASS
from sim.go.world import World
from sim.ops import ALLOC, COMPUTE, DEAD, NEEDZERO, NO_OBJ, NOSCAN, OP, TOUCH
from sim.units import KIB, MIB, NS, US
from tests.go.prices import made_up_prices

VARIABLES = 48
SIZES = (1, 3, 8, 15, 16, 24, 64, 200, 512, 600, 1024, 3000, 9000, 32760, 32768, 70_000, 300_000)
COMPUTES = (50 * NS, 700 * NS, 3 * US, 40 * US)
MAX_EVENTS = 2_000_000


@dataclass(frozen=True)
class Program:
    """``bodies``: the steps of each goroutine. ``stops``: picoseconds between stops from outside, and of each."""

    bodies: tuple[tuple[tuple, ...], ...]
    stops: tuple[tuple[int, int], ...] = ()
    seed: int = 0


def batch(seed, n):
    """Operations of every kind: tiny, small and large objects, with pointers and without, deaths, computes."""
    rng = random.Random(seed)
    large = rng.choice((0, 0.02, 0.3))
    ops = np.zeros(n, OP)
    for i in range(n):
        what = rng.random()
        if what < 0.7:
            flags = rng.choice((0, NOSCAN)) | rng.choice((0, NEEDZERO)) | rng.choice((0, TOUCH))
            size = rng.choice(SIZES if rng.random() < large else SIZES[:12])
            obj = NO_OBJ if rng.random() < 0.01 else rng.randrange(VARIABLES)
            ops[i] = (ALLOC, flags, obj, size, 0 if flags & NOSCAN else max(size // 16 * 8, 8))
        elif what < 0.9:
            ops[i] = (DEAD, 0, rng.randrange(VARIABLES), 0, 0)
        else:
            ops[i] = (COMPUTE, 0, 0, rng.choice(COMPUTES), 0)
    return ops


@dataclass
class Shadow:
    """Where each live object lies, as their owners wrote it down: (owner, variable) -> (span, slot, address)."""

    world: World
    places: dict = field(default_factory=dict)
    busy: dict = field(default_factory=dict)  # owner -> variables its batch in progress may assign

    def _table(self, owner):
        if owner == "shared":
            return self.world.heap.arrays["shared_variables"], 0
        base, _ = self.world.roots._runs[owner.id]
        return self.world.heap.arrays["variables"], base

    def read(self, owner, variable):
        """Where the object that a variable holds lies, None for nil."""
        table, base = self._table(owner)
        held = int(table[base + variable])
        if held == 0:
            return None
        span = self.world.heap.arrays["spans"][held >> 16]
        address = (int(span["start_page"]) << PAGE_SHIFT) + (held & 0xFFFF) * int(span["elemsize"])
        return held >> 16, held & 0xFFFF, address

    def begin(self, owner, variables):
        """A batch that may assign these variables begins."""
        self.busy[owner] = frozenset(variables)

    def end(self, owner):
        """It is over: write down what they hold now."""
        for variable in self.busy.pop(owner):
            place = self.read(owner, variable)
            if place is None:
                self.places.pop((owner, variable), None)
            else:
                self.places[owner, variable] = place

    def forget(self, owner):
        """A goroutine ends: what it held is dead."""
        self.busy.pop(owner, None)
        for key in [key for key in self.places if key[0] is owner]:
            del self.places[key]

    def check(self):
        """Every object written down is where it was, allocated, and alone there."""
        spans, words = self.world.heap.arrays["spans"], self.world.heap.arrays["words"]
        seen = {}
        for (owner, variable), place in self.places.items():
            if variable in self.busy.get(owner, ()):
                continue
            s, slot, _ = place
            assert self.read(owner, variable) == place, f"an object moved from {place} to {self.read(owner, variable)}"
            span = spans[s]
            assert span["state"] == SPAN_IN_USE, f"a live object lies in span {s}, which is not in use"
            bit = int(words[int(span["alloc_bits"]) + (slot >> 6)]) >> (slot & 63) & 1
            assert slot < span["nelems"] and (slot < span["freeindex"] or bit), f"slot {slot} of span {s} was freed alive"
            dead = int(words[int(span["dead_bits"]) + (slot >> 6)]) >> (slot & 63) & 1
            assert not dead, f"slot {slot} of span {s} is dead, but held"
            if span["spanclass"] != TINY_SPAN_CLASS:
                assert (s, slot) not in seen, f"slot {slot} of span {s} is held twice"
                seen[s, slot] = owner


def read_mem_stats(p):
    """Process step: stop the world for a moment. (runtime.ReadMemStats)"""
    sched = p.world.sched
    yield from sched.stop_the_world(p)
    yield after(p.world.env, 5 * US, p.order)
    sched.start_the_world()
    

def body(g, steps, shadow, pipe):
    """Goroutine: run the steps."""
    world = g.world
    for name, *args in steps:
        if name == "run":
            ops = batch(*args)
            shadow.begin(g, range(VARIABLES))
            yield g.run(ops, VARIABLES)
            shadow.end(g)
        elif name == "drop":  # everything it has
            ops = np.zeros(VARIABLES, OP)
            ops["kind"], ops["obj"] = DEAD, range(VARIABLES)
            shadow.begin(g, range(VARIABLES))
            yield g.run(ops, VARIABLES)
            shadow.end(g)
        elif name == "sleep":
            yield world.env.timeout(args[0])
        elif name == "compute":
            yield g.compute(args[0])
        elif name == "go":
            yield g.go(body, args[0], shadow, pipe)
        elif name == "malloc":
            handle = yield g.malloc(args[0])
            shadow.busy.setdefault("shared", frozenset())
            shadow.places["shared", handle] = shadow.read("shared", handle)
        elif name == "free":
            mine = [variable for owner, variable in shadow.places if owner == "shared"]
            if mine:
                handle = mine[args[0] % len(mine)]
                del shadow.places["shared", handle]
                yield g.drop(handle)
        elif name == "send":
            yield pipe.put(args[0])
        elif name == "receive":
            yield pipe.get()
        elif name == "collect":
            yield from world.gc.collect(g)
        elif name == "percent":
            world.gc.set_gc_percent(args[0])
        elif name == "limit":
            world.gc.set_memory_limit(args[0])
        elif name == "stats":
            yield g.call(read_mem_stats)
        shadow.check()
    if g.system or steps:
        shadow.forget(g)
    yield g.compute(0)


def stopper(world, stops):
    """Process: stop the world from outside now and then."""
    for gap, length in stops:
        yield world.env.timeout(gap)
        yield from world.sched.stop_the_world()
        yield world.env.timeout(length)
        world.sched.start_the_world()


STEPS = ("run", "run", "run", "run", "drop", "sleep", "compute", "go", "malloc", "free", "collect", "percent", "stats")


def draw_body(rng, length, n, depth=0):
    """Steps of a goroutine; ``n``: operations of a batch at most."""
    steps = []
    for _ in range(length):
        name = rng.choice(STEPS)
        if name == "run":
            steps.append((name, rng.randrange(1 << 30), rng.randrange(1, n)))
        elif name in ("sleep", "compute"):
            steps.append((name, rng.choice((0, 1000, 5 * US, 90 * US))))
        elif name == "go":
            if depth < 2:
                steps.append((name, draw_body(rng, length // 2, n, depth + 1)))
        elif name in ("malloc", "free"):
            steps.append((name, rng.choice(SIZES[:9])))
        elif name == "percent":
            if rng.random() < 0.3:
                steps.append((name, rng.choice((1, 2, 5, 20))))
        elif name == "collect":
            if rng.random() < 0.3:
                steps.append((name,))
        else:
            steps.append((name,))
    return tuple(steps)


def draw_program(seed, goroutines, length=6, n=150, pipes=True):
    """A program by a seed alone."""
    rng = random.Random(seed)
    bodies = [list(draw_body(rng, length, n)) for _ in range(goroutines)]
    for _ in range(goroutines if pipes else 0):  # each message is sent once and received once
        sender, receiver = rng.choice(bodies), rng.choice(bodies)
        if sender is not receiver:
            sender.insert(rng.randrange(len(sender) + 1), ("send", 1))
            receiver.append(("receive",))
    stops = tuple((rng.choice((1, 3 * US, 50 * US)), rng.choice((0, 100, 10 * US))) for _ in range(6))
    return Program(tuple(map(tuple, bodies)), stops, seed)


def run_program(program, version="go1.27", nprocs=2, *, gogc=2, checked=True, prices=None, events=MAX_EVENTS, **options):
    """Run a program to the end of all its goroutines, its cycles checked; the world, and its checker or None.

    Fails when that takes more than so many events: it hangs.
    """
    world = World(version, nprocs, prices or made_up_prices(version), program.seed, gogc=gogc, **options)
    shadow = Shadow(world)
    pipe = simpy.Store(world.env)
    checker = None
    if checked:
        checker = watch(world)

        def look(stage):
            checker(stage)
            check_heap(world.heap)
            shadow.check()

        world.gc.watcher = look
    gs = [world.go(body, steps, shadow, pipe, name=f"g{i}") for i, steps in enumerate(program.bodies)]
    if program.stops:
        world.env.process(stopper(world, program.stops))
    end = world.env.all_of(gs)
    while not end.triggered:
        events -= 1
        assert events > 0, f"the program hangs at {world.now} ps"
        world.env.step()
    return world, checker


LIMITS = (100 * KIB, MIB, 4 * MIB)
