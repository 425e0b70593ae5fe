"""What a workload is, resolved: plain records in integer bytes and picoseconds, no units.

A scenario file is read into these; streams and services are made from them. Shares and weights are integers, so that
a draw never depends on how a machine rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PPM = 1_000_000
SMALL_STACK = 288  # bytes of stack that a goroutine's frames reach if nothing is said (sim/go/gfree.py:SMALL_FRAMES)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """When an object dies.

    ``immortal``: never. ``request``: at the end of its request (a worker: of its round of ``round_mallocs``).
    ``ops``: after ``mean`` more mallocs of its goroutine. ``bytes``: after its goroutine allocated ``mean`` more
    bytes. ``cache``: it takes a random one of ``mean`` places and dies when the next object takes that place.
    ``dist`` says whether ops and bytes are the mean itself or exponential around it.
    """

    kind: Literal["immortal", "request", "ops", "bytes", "cache"]
    mean: int = 0
    dist: Literal["fixed", "exponential"] = "fixed"


@dataclass(frozen=True, slots=True)
class Objects:
    """One kind of object of a mix."""

    weight: int  # against the other kinds of the mix
    sizes: tuple[tuple[int, int, int], ...]  # (low, high, weight): bytes, uniform in [low, high]
    pointers_ppm: int  # how many of a million objects hold pointers
    pointer_bytes_ppm: int  # of such an object's bytes, those up to its last pointer (at least 8)
    lifetime: Lifetime
    zeroed: bool = True  # must read as zeros
    touched: bool = True  # the program writes the object right after it was allocated


@dataclass(frozen=True, slots=True)
class Mix:
    """What a goroutine allocates and how long it computes in between."""

    objects: tuple[Objects, ...]
    think: int = 0  # picoseconds of compute before each malloc
    think_dist: Literal["fixed", "exponential"] = "fixed"


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a request: compute, then so many mallocs of the mix."""

    compute: int  # picoseconds
    mallocs: int
    compute_dist: Literal["fixed", "exponential"] = "fixed"


@dataclass(frozen=True, slots=True)
class Workers:
    """A closed loop: goroutines that allocate from the mix without end."""

    goroutines: int
    mix: Mix
    round_mallocs: int = 1000  # mallocs after which objects of lifetime ``request`` die
    stack: int = SMALL_STACK  # bytes of stack that each goroutine's frames reach


@dataclass(frozen=True, slots=True)
class Service:
    """An open loop: requests arrive whether or not earlier ones are done; each is a goroutine with its phases."""

    arrivals: Literal["poisson", "constant"]
    interval: int  # mean picoseconds between arrivals
    phases: tuple[Phase, ...]
    mix: Mix
    stack: int = SMALL_STACK  # bytes of stack that each request's frames reach


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a real program did: the goroutines of a recorded execution trace, each in its own order."""

    trace: str  # absolute path
