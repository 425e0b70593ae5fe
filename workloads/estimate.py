"""What a workload will come to, before it runs: bytes of heap a malloc, and what is live when it has settled.

By the shares and means that the workload declares; nothing is drawn. Sizes are those of slots, as a version's size
classes have them. Good to some percent: sizes of a range are sampled, and a tiny object counts by its own bytes.

Not known, and not in the live bytes: what requests hold while they are served, the round that workers are in, and
everything about a recorded trace.
"""

from __future__ import annotations

from dataclasses import dataclass

from sim.go.params import Facts
from sim.go.sizeclasses import MALLOC_HEADER_SIZE, MIN_SIZE_FOR_MALLOC_HEADER, class_to_size
from sim.go.state import PAGE_SIZE
from workloads.spec import PPM, Mix, Objects, Service, Workers

_SAMPLES = 64  # of a range of sizes
_TINY = 16


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of object of a mix: its share of the mallocs, and the mean bytes of heap that one takes."""

    objects: Objects
    share: float
    slot: float


def kinds(mix: Mix, facts: Facts) -> list[Kind]:
    """The kinds of a mix."""
    weights = sum(kind.weight for kind in mix.objects)
    return [Kind(kind, kind.weight / weights, _mean_slot(kind, facts)) for kind in mix.objects]


def bytes_a_malloc(mix: Mix, facts: Facts) -> float:
    """Mean bytes of heap that a malloc of the mix takes."""
    return sum(kind.share * kind.slot for kind in kinds(mix, facts))


def live_bytes(workload: Workers | Service, facts: Facts, mallocs: float = 0) -> int:
    """Bytes that stay live once the workload has settled, or, of immortals, after so many mallocs of all goroutines.

    Never more than so many mallocs make, if ``mallocs`` is not 0.
    """
    goroutines = workload.goroutines if isinstance(workload, Workers) else 1
    each = mallocs / goroutines
    live = 0.0
    for kind in kinds(workload.mix, facts):
        lifetime = kind.objects.lifetime
        made = each * kind.share
        if lifetime.kind == "immortal":
            live += made * kind.slot
            continue
        if lifetime.kind == "cache":
            held = float(lifetime.mean)
        elif isinstance(workload, Service) or lifetime.kind == "request":
            continue
        elif lifetime.kind == "ops":
            held = lifetime.mean * kind.share
        else:
            held = lifetime.mean * kind.share / bytes_a_malloc(workload.mix, facts)
        live += (min(held, made) if mallocs else held) * kind.slot
    return round(live * goroutines)


def _mean_slot(kind: Objects, facts: Facts) -> float:
    pointers = kind.pointers_ppm / PPM
    weights = sum(weight for _, _, weight in kind.sizes)
    total = 0.0
    for low, high, weight in kind.sizes:
        n = min(high - low + 1, _SAMPLES)
        sizes = [low + (high - low) * i // max(n - 1, 1) for i in range(n)]
        scan = sum(slot_bytes(size, True, facts) for size in sizes) / n
        noscan = sum(slot_bytes(size, False, facts) for size in sizes) / n
        total += weight * (pointers * scan + (1 - pointers) * noscan)
    return total / weights


def slot_bytes(size: int, pointers: bool, facts: Facts) -> int:
    """Bytes of heap that an object takes."""
    if not pointers and size < _TINY:
        return size
    if size > facts.max_small_size:
        return -(-size // PAGE_SIZE) * PAGE_SIZE
    header = MALLOC_HEADER_SIZE if facts.malloc_header and pointers and size > MIN_SIZE_FOR_MALLOC_HEADER else 0
    return int(class_to_size[class_to_size.searchsorted(size + header)])
