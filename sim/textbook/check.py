"""The allocators' invariants, checked over the whole state at once: for tests and ``--check``.

Each predicate throws with the numbers that break it.

- Regions: blocks tile each from its start to its frontier without a gap or an overlap (bump: they are in order, and the
  holes between them are the dead bytes); links lead back as they lead on; a grown general region ends with its fence.
- Blocks: each has a size that its kind may have and holds what was asked for; what a split could have left was split
  off; no two free neighbours touch; every record names a block of one region or is spare, once.
- Lists: each holds just the free blocks of its own, links and counts right, the general list in order if it is sorted;
  the rover of next fit is a free block.
- Ledger: used, free, dead and live bytes and the arena are what blocks and regions say.
- Variables: what they hold is live, and no object is held twice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.textbook.heap import Textbook
from sim.textbook.state import (
    BASES,
    BUMP,
    FREE,
    GENERAL,
    HEADER_BYTES,
    LISTED,
    NEXT_FIT,
    NUM_LISTS,
    NUM_REGIONS,
    RUN_BYTES,
    RUNS,
    SPARE,
    USED,
)
from sim.units import throw


def check(heap: Textbook) -> None:
    """Every invariant."""
    chains = [chain(heap, region) for region in range(NUM_REGIONS)]
    check_regions(heap, chains)
    check_records(heap, chains)
    for region, found in enumerate(chains):
        check_blocks(heap, region, found)
    check_lists(heap, chains)
    check_ledger(heap, chains)
    check_variables(heap)


def columns(heap: Textbook, *names: str) -> list[list[int]]:
    """Columns of the block table, of the records ever used."""
    rows = heap.arrays["blocks"].view(np.ndarray)[: int(heap.fields.nblocks)]
    return [rows[name].tolist() for name in names]


def chain(heap: Textbook, region: int) -> list[int]:
    """The blocks of a region in order, its links checked."""
    prev, after = columns(heap, "prev", "next")
    r = heap.arrays["regions"][region]
    found: list[int] = []
    before, at = 0, int(r.first)
    while at != 0:
        if not 0 < at < len(prev) or len(found) > len(prev):
            throw(f"region {region} leads to {at}, which is no block")
        if prev[at] != before:
            throw(f"block {at} comes after {before}, its link says {prev[at]}")
        found.append(at)
        before, at = at, after[at]
    if r.last != before:
        throw(f"region {region} ends with block {before}, it says {int(r.last)}")
    return found


def check_regions(heap: Textbook, chains: list[list[int]]) -> None:
    """Places of blocks in their regions, and bounds of the regions."""
    addr, nbytes = columns(heap, "addr", "bytes")
    bump = heap.fields.policy == BUMP
    holes = 0
    for region, found in enumerate(chains):
        r = heap.arrays["regions"][region]
        end = int(r.start)
        for at in found:
            holes += max(addr[at] - end, 0)
            if addr[at] < end or (addr[at] > end and not bump):
                throw(f"block {at} begins at {addr[at]:#x}, what is before it ends at {end:#x}")
            end = addr[at] + nbytes[at]
        holes += max(int(r.frontier) - end, 0)
        if r.frontier < end or (r.frontier > end and not bump):
            throw(f"region {region} ends at {int(r.frontier):#x}, its last block at {end:#x}")
        grown = int(r.end) - BASES[region]
        if grown % int(heap.fields.grow_bytes) or not 0 <= grown <= int(r.limit) - BASES[region]:
            throw(
                f"region {region} grew by {grown} bytes, no multiple of {int(heap.fields.grow_bytes)} that it may have"
            )
        if grown and r.frontier > r.end - r.fence:
            throw(
                f"region {region} ends at {int(r.end):#x}, no room for {int(r.fence)} bytes after {int(r.frontier):#x}"
            )
        if grown and region == GENERAL and not bump and r.frontier != r.end - r.fence:
            throw(f"region {region} has {int(r.end - r.fence - r.frontier)} bytes at its end that no block has")
    carved = int(heap.arrays["regions"][RUNS].frontier) - BASES[RUNS]
    if carved % RUN_BYTES:
        throw(f"{carved} bytes are in runs, no multiple of {RUN_BYTES}")
    if holes != heap.fields.dead_bytes:
        throw(f"{holes} bytes are dead, {int(heap.fields.dead_bytes)} counted")


def check_records(heap: Textbook, chains: list[list[int]]) -> None:
    """Every record names one block or is spare."""
    state, next_free = columns(heap, "state", "next_free")
    spare: list[int] = []
    at = int(heap.fields.spare)
    while at != 0:
        if not 0 < at < len(state) or state[at] != SPARE or len(spare) > len(state):
            throw(f"the spare records lead to {at}, which is not spare")
        spare.append(at)
        at = next_free[at]
    if len(spare) != heap.fields.nspare:
        throw(f"{len(spare)} records are spare, {int(heap.fields.nspare)} counted")
    every = sorted([*spare, *(at for found in chains for at in found)])
    if every != list(range(1, len(state))):
        throw(f"{len(every)} records are spare or in a region, of {len(state) - 1}")


def check_blocks(heap: Textbook, region: int, found: list[int]) -> None:
    """Sizes and states of a region's blocks."""
    fields = heap.fields
    align, least, bump = int(fields.align_bytes), int(fields.min_block), fields.policy == BUMP
    sizes = heap.arrays["lists"].block_bytes.tolist()
    addr, nbytes, requested, state, which = columns(heap, "addr", "bytes", "requested", "state", "list")
    free_before = False
    for at in found:
        used = state[at] == USED
        needed = max(requested[at], 1)
        if region == GENERAL and not bump:
            needed = max(-(-(requested[at] + HEADER_BYTES) // align) * align, least)
        allowed: tuple[int, ...] = (USED, LISTED) if region == RUNS else (USED,) if bump else (USED, FREE)
        if state[at] not in allowed or (which[at] == GENERAL) != (region == GENERAL) or which[at] >= NUM_LISTS:
            throw(f"block {at} of region {region} has state {state[at]} and list {which[at]}")
        if region == RUNS:
            shaped = nbytes[at] == sizes[which[at]] and addr[at] % nbytes[at] == 0
        else:
            shaped = nbytes[at] % align == 0 and nbytes[at] >= (align if bump else least)
        if not shaped:
            throw(f"block {at} at {addr[at]:#x} of list {which[at]} has {nbytes[at]} bytes")
        if requested[at] and not used:
            throw(f"block {at} is free, {requested[at]} bytes of it are asked for")
        if used and nbytes[at] < needed:
            throw(f"block {at} has {nbytes[at]} bytes, {requested[at]} of them were asked for")
        if used and nbytes[at] - needed >= (least if region == GENERAL and not bump else align if bump else nbytes[at]):
            throw(f"block {at} has {nbytes[at]} bytes for {requested[at]}, it was not split")
        if state[at] == FREE and free_before:
            throw(f"block {at} and the one before it are both free")
        free_before = state[at] == FREE


def list_members(heap: Textbook, which: int) -> list[int]:
    """The blocks of a list in order, its links checked."""
    prev, after = columns(heap, "prev_free", "next_free")
    entry = heap.arrays["lists"][which]
    found: list[int] = []
    before, at = 0, int(entry.head)
    while at != 0:
        if not 0 < at < len(prev) or len(found) > len(prev):
            throw(f"list {which} leads to {at}, which is no block")
        if prev[at] != before:
            throw(f"block {at} in list {which} comes after {before}, its link says {prev[at]}")
        found.append(at)
        before, at = at, after[at]
    if entry.tail != before or entry.nfree != len(found):
        throw(
            f"list {which} has {len(found)} blocks up to {before}, it says {int(entry.nfree)} up to {int(entry.tail)}"
        )
    return found


def check_lists(heap: Textbook, chains: list[list[int]]) -> None:
    """Each list against the states of blocks; the sorted list's order; the rover."""
    addr, state, which = columns(heap, "addr", "state", "list")
    wanted: dict[int, list[int]] = {i: [] for i in range(NUM_LISTS)}
    for at in (at for found in chains for at in found if state[at] != USED):
        wanted[which[at]].append(at)
    for i in range(NUM_LISTS):
        found = list_members(heap, i)
        if sorted(found) != sorted(wanted[i]):
            throw(f"list {i} holds blocks {found}, not just its own free ones")
        if i == GENERAL and heap.fields.address_ordered and found != sorted(found, key=addr.__getitem__):
            throw(f"the list sorted by address holds blocks {found}")
    rover = int(heap.fields.rover)
    if rover and (heap.fields.policy != NEXT_FIT or rover not in wanted[GENERAL]):
        throw(f"the rover is {rover}, no free block of next fit")


def check_ledger(heap: Textbook, chains: list[list[int]]) -> None:
    """Counts and bytes as of now."""
    nbytes, requested, state = columns(heap, "bytes", "requested", "state")
    every = [at for found in chains for at in found]
    used = [at for at in every if state[at] == USED]
    counted = {
        "live_objects": len(used),
        "live_bytes": sum(requested[at] for at in used),
        "used_bytes": sum(nbytes[at] for at in used),
        "free_bytes": sum(nbytes[at] for at in every if state[at] != USED),
        "arena_bytes": sum(int(r.end) - base for r, base in zip(heap.arrays["regions"], BASES, strict=True)),
    }
    for name, value in counted.items():
        if heap.fields[name] != value:
            throw(f"{name} is {int(heap.fields[name])}, blocks and regions say {value}")
    if heap.fields.peak_live_bytes < counted["live_bytes"]:
        throw(f"peak_live_bytes is {int(heap.fields.peak_live_bytes)}, live are {counted['live_bytes']}")


def check_variables(heap: Textbook) -> None:
    """Handles in variables."""
    state, times = columns(heap, "state", "times")
    held: Any = np.concatenate([heap.arrays["variables"], heap.arrays["shared_variables"]])
    held = held[held != 0].tolist()
    for obj in held:
        at = obj & 0xFFFF_FFFF
        if not 0 < at < len(state) or state[at] != USED or times[at] != obj >> 32:
            throw(f"a variable holds {obj}, which is no live object")
    if len(held) != len(set(held)):
        throw(f"{len(held)} variables hold {len(set(held))} objects")
