"""Prices: what each step of the runtime costs on a machine, in integer picoseconds.

Rooms say *what* happened (a span came from the page cache, two pages were touched first); the shell multiplies by the
prices here. No price has a default in code: all come from a machine file, each with its source there (a measurement,
or marked ``assumed`` with the reason).

A price is a `Price`: a mean alone, or 1024 equally likely values (the midpoints of its quantile cells, the last one
standing for the whole tail above), so that a draw is one look-up and the mean is exactly their mean.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from typing import Any, Protocol, TypeVar

from sim.units import MS, US, throw

CELLS = 1024

# Steps whose price may be a distribution; the index of each is its row in the compiled price table.
STEPS = (
    "tiny",  # a tiny object combined into the P's current block
    "page_cache_refill",  # mheap.lock held while the P takes 64 pages (allocToCache)
    "page_alloc",  # mheap.lock held for one search of the page allocator
    "page_level",  # and per level of the radix tree walked in it
    "mspan_refill",  # and for taking 64 span records
    "grow",  # mheap.lock held while the heap grows (sysMap), by whatever multiple of 4 MiB
    "grow_arena",  # and, on top, for each 64 MiB arena reserved
    "first_touch",  # the system's page fault on a 4 KiB page never touched
    "read_touch",  # the same where the first access reads: the system's page of zeros is mapped
    "copy_touch",  # and of the first write after it: a page of its own takes that one's place
    # and what either takes longer where the P has done other things for so long since its last fault
    "touch_5us",
    "touch_20us",
    "touch_100us",
    "huge_touch",  # the page fault on a 2 MiB huge page
    "meta_touch",  # on a 4 KiB page of the runtime's own metadata
    "large",  # a large object beyond its pages: span initialisation and accounting
    "madvise",  # giving a run of pages back to the system (MADV_DONTNEED): the call
    "madvise_page",  # and per 4 KiB page of it that memory stands behind
    "tlb_shootdown",  # and for interrupting the CPUs that other threads of the program run on, if it has any
    "profile_sample",  # recording an allocation in the heap profile: a stack trace and two locks
    "central",  # mcentral's lock held for taking or returning a span (go1.14)
    "goroutine_new",  # go statement that makes a g, without its stack
    "goroutine_reused",  # go statement that reuses a dead one
    "stack_pool",  # a stack pool's lock held to give 16 KiB of stacks out, or to take them back
    "stack_span",  # a new span of stacks or for one stack, once there are pages for it
    "stack_copy",  # moving a goroutine to another stack, apart from its bytes
    "free_span",  # mheap.lock held while a span goes back to the heap
    "goroutine_exit",
    "switch",  # schedule(): from one goroutine to the next on a P
    "steal",  # taking half of another P's run queue
    "wake_p",  # from readying work until an idle P's thread runs (futex wake and its latency)
    "preempt_signal",  # the call that sends a running thread the signal to preempt it (tgkill)
    "os_switch",  # the system switches a CPU from one thread to another
    "assist",  # an allocation in debt while marking: looking for credit, entering and leaving the assist
    "flush_span",  # giving one cached span back when a P's cache is flushed for a new sweep
    "stw_sweep_term",  # work with the world stopped before marking, sweeping not counted
    "stw_mark_term",  # and after it
    "mark_stack",  # scanning a goroutine's stack, apart from its bytes
    "mark_specials",  # looking for specials in the spans of 512 pages, a root job of marking
)


@dataclass(frozen=True, slots=True)
class Price:
    """A price in picoseconds: its mean, and where it varies its 1024 equally likely values, rising."""

    mean: int
    cells: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.mean < 0 or (self.cells is not None and (len(self.cells) != CELLS or min(self.cells) < 0)):
            throw(f"price of mean {self.mean} ps: not >= 0, or not {CELLS} cells")


@dataclass(frozen=True, slots=True)
class LockPrices:
    """Prices of a runtime lock's steps in integer picoseconds; measured, so there are no defaults."""

    acquire: int  # an exchange on the lock word, won or lost
    release: int  # the exchange that frees it
    procyield: int  # one spin round: 30 PAUSE
    osyield: int  # sched_yield
    futex_sleep: int  # from the call of futex wait until asleep, or until it finds the word changed
    futex_wake: int  # the futex wake call, paid by the releaser
    wake_latency: int  # from the end of that call until the woken thread runs
    handoff: int  # fifo only: from the release until the next owner runs
    signal_latency: int  # from the end of the call that signals a running thread until it has been through the handler
    signal_1ms: int  # that call, where its thread has worked for a millisecond since it was in the system
    # a wake, where the other thread has slept and the caller has worked longer or shorter than a tenth of a millisecond
    futex_wake_20us: int
    wake_latency_20us: int
    futex_wake_1ms: int
    wake_latency_1ms: int
    futex_wake_10ms: int
    wake_latency_10ms: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            price = getattr(self, name)
            if type(price) is not int or price < 0:
                throw(f"lock price {name} is {price!r}, not an int >= 0 of picoseconds")

    def waking(self, asleep: int, worked: int) -> tuple[int, int]:
        """What waking a thread takes: the call, and from its end until the thread runs, picoseconds.

        ``asleep``: for how long, its CPU has gone to rest more or less deep. ``worked``: how long the caller has been out
        of the system, whose code and data the caches have lost more or less.
        """
        calls = self.futex_wake_20us, self.futex_wake, self.futex_wake_1ms, self.futex_wake_10ms
        latencies = self.wake_latency_20us, self.wake_latency, self.wake_latency_1ms, self.wake_latency_10ms
        return _on_lines(_TIMES, calls, worked), _on_lines(_TIMES, latencies, asleep)

    def signal(self, base: int, worked: int) -> int:
        """The call that signals a running thread, of so many picoseconds if its own thread was in the system just now."""
        return _on_lines(_TIMES[1:3], (base, self.signal_1ms), worked)


_TIMES = (20 * US, 100 * US, MS, 10 * MS)


def _on_lines(times: Sequence[int], prices: Sequence[int], time: int) -> int:
    """The price at a time: on straight lines between those known, outside of them as at the first or the last."""
    if time <= times[0]:
        return prices[0]
    for k in range(1, len(times)):
        if time < times[k]:
            return prices[k - 1] + (prices[k] - prices[k - 1]) * (time - times[k - 1]) // (times[k] - times[k - 1])
    return prices[-1]


SWEPT = (("first", "kept"), ("first", "freed"), ("next", "kept"), ("next", "freed"))
"""What sweeping a span is told apart by: whether other spans were swept just before, and whether something survives."""


@dataclass(frozen=True, slots=True)
class HeapPrices:
    """What mallocs take in a heap of ``nbytes``: memory that comes back after so many bytes is in one cache or another.
    ``procs``: how many Ps shared it, since what another CPU wrote last comes from its cache; ``allocate``: on how many of them
    mallocs were made, 0 if on all. The others only mark and sweep.

    By span class: ``zero`` what clearing a slot adds in a loop that does nothing but malloc, picoseconds; ``hit`` all
    that a malloc takes which clears a slot of the span at hand, where the program does something else in between (what
    the CPU has left to write is written meanwhile); ``hit_some``, ``hit_few`` after fewer other mallocs since the last from
    that span class than ``hit`` is for; ``marking`` such a malloc while the collector marks, ``marking_next`` of the slot after
    the last one, ``marking_next_few`` after few others, ``marking_empty`` and ``marking_empty_few`` such mallocs from a span that had
    nothing alive in it; empty where that is as ``hit``, ``marking`` and ``marking_next``. ``refill_partial``
    trading a full span for a swept one with room; ``refill_fresh`` for a fresh one, with other work before it, empty as
    `Prices` has it; ``refill_unswept`` for one with room that the refill has to sweep first, empty if that is
    ``refill_partial`` and a span swept; ``refill_near`` thousandths of these two that they take if that span lies within 8
    pages of the last one of its class, empty where that was not measured.
    ``stopped``: what the collector does with the world stopped, before marking and again after it, picoseconds; None as
    ``steps`` has it. ``write_barrier``: what the program takes longer while the collector marks, for each pointer that a
    variable held or takes: the barrier notes it, and empties its buffer when it is full. ``swept``: sweeping a span with other work before it, in the order of `SWEPT`; empty as `Prices` has it.
    """

    procs: int
    nbytes: int
    zero: tuple[int, ...]
    hit: tuple[Price, ...]
    marking: tuple[Price, ...]
    refill_partial: tuple[Price, ...]
    stopped: int | None = None
    write_barrier: int = 0
    swept: tuple[Price, ...] = ()
    hit_some: tuple[Price, ...] = ()
    hit_few: tuple[Price, ...] = ()
    marking_next: tuple[Price, ...] = ()
    marking_next_few: tuple[Price, ...] = ()
    marking_empty: tuple[Price, ...] = ()
    marking_empty_few: tuple[Price, ...] = ()
    refill_fresh: tuple[Price, ...] = ()
    refill_unswept: tuple[Price, ...] = ()
    refill_near: tuple[int, ...] = ()
    allocate: int = 0

    def hits(self) -> tuple[tuple[Price, ...], ...]:
        """Hits with other work before them: after many other mallocs, some, few (`sim.go.state`)."""
        return self.hit, self.hit_some or self.hit, self.hit_few or self.hit

    def hits_marking(self) -> tuple[tuple[Price, ...], ...]:
        """Hits while the collector marks: of any slot, of the next one, of that after few others, of both in empty spans."""
        following = self.marking_next or self.marking
        few = self.marking_next_few or following
        empty = self.marking_empty or following
        return self.marking, following, few, empty, self.marking_empty_few or self.marking_empty or few


@dataclass(frozen=True, slots=True)
class MarkPrices:
    """Marking a heap of one shape and ``nbytes`` by ``procs`` Ps: picoseconds of CPU time an object, and femtoseconds a
    byte read of it.

    ``scan``: objects with pointers up to 512 B, and large ones, with ``small_byte`` and ``large_byte``; ``middle``: those
    in between, whose type go1.27 finds in a header; ``noscan``: pointer-free ones, of which nothing is read. ``read``:
    bytes that marking reads of the objects of such a heap, 0 if all of it.
    """

    procs: int
    nbytes: int
    scan_object: int
    noscan_object: int
    small_byte: int
    large_byte: int
    middle_object: int
    middle_byte: int
    read: int = 0


IN_ORDER = "in-order"
"""Among the shapes of heaps: objects as they were allocated, one after the other, in memory that was used before."""


@dataclass(frozen=True, slots=True)
class Prices:
    """Everything a simulation of one Go version on one machine pays.

    ``heaps`` and, by the shape of the heap, ``mark``: by Ps and the size of the heap, rising (`of_procs`, `place`). ``small_heaps``: as
    ``heaps``, with hits and fresh spans of a program all of whose types are small; ``mean_sizes``: bytes of an object of that
    program and of that of ``heaps`` in the mean (`smallness`). By span class (136
    entries, index ``class << 1 | noscan``): ``fast`` a hit in the P's cached span, ``refill_fresh`` trading a full span
    for a fresh one whose pages come from the P's page cache, in a loop that does nothing but malloc. Per byte, in femtoseconds, by (scan, noscan):
    ``large_fresh`` what a large object costs in any case, ``large_zero`` what clearing it adds. By span class again:
    ``sweep_kept`` sweeping a span of which something survives, ``sweep_freed`` one that goes back to the heap, in a loop
    that does nothing but sweep.
    ``stack_copy``, femtoseconds a byte of a stack copied, by the size of the new one: to 8 KiB, to 32 KiB, beyond.
    ``globals_byte``, femtoseconds of marking a byte of globals; None if it was not measured: as of large objects.
    ``steps`` has a price for each of `STEPS`. ``wide_vectors``: the CPU has what `sim.go.params.Facts.dense_scan` needs. ``assumed`` names the prices nobody measured, with the reason.
    """

    machine: str
    version: str
    cpus: int
    fast: tuple[int, ...]
    heaps: Sequence[HeapPrices]
    refill_fresh: tuple[Price, ...]
    large_fresh: tuple[int, int]
    large_zero: tuple[int, int]
    sweep_kept: tuple[int, ...]
    sweep_freed: tuple[int, ...]
    mark: Mapping[str, Sequence[MarkPrices]]
    stack_copy: tuple[int, int, int]
    steps: Mapping[str, Price]
    lock: LockPrices
    assumed: Mapping[str, str] = field(default_factory=dict)
    wide_vectors: bool = True
    small_heaps: Sequence[HeapPrices] = ()
    mean_sizes: tuple[int, int] = (0, 0)
    globals_byte: int | None = None


# Prices by the size of the heap


class _Sized(Protocol):
    @property
    def procs(self) -> int:
        """Ps that share the heap."""

    @property
    def nbytes(self) -> int:
        """Of the heap."""


def mark_between(low: MarkPrices, high: MarkPrices, at: Fraction) -> MarkPrices:
    """Of a heap between two of the same size."""
    names = [one.name for one in fields(low) if one.name not in ("procs", "nbytes")]
    return replace(low, **{name: between(getattr(low, name), getattr(high, name), at) for name in names})


SizedT = TypeVar("SizedT", bound=_Sized)


def of_procs(measured: Sequence[SizedT], procs: int) -> list[SizedT]:
    """Those measured with so many Ps, or with the nearest number below that was."""
    nearest = max((one.procs for one in measured if one.procs <= procs), default=measured[0].procs)
    return [one for one in measured if one.procs == nearest]


def eighths(nbytes: int) -> int:
    """The size of a heap in eighths of an octave: 8 log2, rounded down."""
    return (max(nbytes, 1) ** 8).bit_length() - 1


def allocating(heaps: Sequence[HeapPrices], procs: int, allocate: int) -> list[HeapPrices]:
    """Those of `of_procs`, and of them those on so many of whose Ps mallocs were made, or the nearest number that was measured."""
    shared = of_procs(heaps, procs)
    nearest = min((one.allocate or one.procs for one in shared), key=lambda n: (abs(n - allocate), n))
    return [one for one in shared if (one.allocate or one.procs) == nearest]


def smallness(mean_sizes: tuple[int, int], size: int) -> Fraction:
    """How near a program whose objects have so many bytes in the mean is to that of small types: 1, or to that of all: 0.

    By the logarithm of the size, in steps of `eighths`.
    """
    small, large = map(eighths, mean_sizes)
    return Fraction(min(max(large - eighths(size), 0), large - small), large - small)


def place(measured: Sequence[SizedT], nbytes: int) -> tuple[SizedT, SizedT, Fraction]:
    """The two of ``measured`` (rising) that a heap's size lies between, and where: 0 the first, 1 the second.

    By the logarithm of the size, in steps of `eighths`; beyond the measured sizes as at the last.
    """
    return _placed(measured, [one.nbytes for one in measured], nbytes)


def _placed(measured: Sequence[SizedT], sizes: Sequence[int], size: int) -> tuple[SizedT, SizedT, Fraction]:
    """As `place`, of those that have such sizes."""
    high = bisect_right(sizes, size)
    if high in (0, len(sizes)):
        one = measured[min(high, len(sizes) - 1)]
        return one, one, Fraction(0)
    first, last = eighths(sizes[high - 1]), eighths(sizes[high])
    at = Fraction(eighths(size) - first, last - first) if last > first else Fraction(0)
    return measured[high - 1], measured[high], at


def mark_placed(measured: Sequence[MarkPrices], nbytes: int, read: int) -> MarkPrices:
    """Of a heap of so many bytes, of whose objects marking reads ``read``, from prices of so many Ps, rising.

    Which cache an object with pointers is in is a matter of what is read between two collections, the heap's pointer-free
    memory apart: of an object without pointers no more than what tells its span, and its mark.
    """
    noscan = mark_between(*place(measured, nbytes)).noscan_object
    by_read = sorted(measured, key=lambda one: one.read or one.nbytes)
    placed = _placed(by_read, [one.read or one.nbytes for one in by_read], read)
    return replace(mark_between(*placed), noscan_object=noscan)


def between(low: Any, high: Any, at: Fraction) -> Any:
    """A whole number, or an array of them, at ``at`` between two, rounded down."""
    return low + (high - low) * at.numerator // at.denominator
