"""Each invariant is broken on purpose, and noticed."""

from itertools import pairwise

import numpy as np
import pytest

from sim.ops import ALLOC, DEAD, OP
from sim.textbook.check import chain, check, list_members
from sim.textbook.heap import Textbook
from sim.textbook.state import FREE, GENERAL, LISTED, NUM_LISTS, RUNS, USED
from sim.units import Throw

N = 400


def busy(policy="next-fit", order="address"):
    """A heap with something everywhere: used and free blocks side by side, spare records, a rover."""
    heap = Textbook(policy, order, grow_bytes=4096)
    rng = np.random.default_rng(3)
    ops = np.zeros(N, OP)
    ops["kind"] = np.where(rng.random(N) < 0.7, ALLOC, DEAD)
    ops["obj"] = rng.integers(0, 60, N)
    ops["arg"] = np.where(rng.random(N) < 0.5, rng.integers(1, 200, N), rng.integers(1025, 3000, N))
    heap.run_ops(0, ops)
    check(heap)
    assert heap.fields.nspare > 0
    return heap


def where(heap, region, state, behind=None):
    """The first block of a region in a state that has one behind it (in a state); not the region's first."""
    found, states = chain(heap, region), heap.arrays["blocks"].state
    for at, after in pairwise(found[1:]):
        if states[at] == state and behind in (None, states[after]):
            return at
    raise AssertionError


def put(region, state, field, value, behind=None):
    """A field of such a block becomes value, or what value makes of it."""

    def change(heap):
        rows, at = heap.arrays["blocks"], where(heap, region, state, behind)
        rows[field][at] = value(int(rows[field][at])) if callable(value) else value

    return change


def plus(n):
    return lambda value: value + n


def of(table, row, field, by):
    def change(heap):
        heap.arrays[table][field][row] += by

    return change


def scalar(name, by=1):
    def change(heap):
        heap.fields[name] += by

    return change


def move_boundary(heap):
    rows = heap.arrays["blocks"]
    at = where(heap, GENERAL, USED, USED)
    after = int(rows.next[at])
    rows.bytes[at] += 8
    rows.addr[after] += 8
    rows.bytes[after] -= 8


def free_a_neighbour(heap):
    rows = heap.arrays["blocks"]
    after = int(rows.next[where(heap, GENERAL, FREE, USED)])
    rows.state[after], rows.requested[after] = FREE, 0


def a_large_block_is_asked_for_little(heap):
    rows = heap.arrays["blocks"]
    at = next(at for at in chain(heap, GENERAL) if rows.state[at] == USED and rows.bytes[at] > 100)
    rows.requested[at] = 1


def shorten_the_last_run(heap):
    last = int(heap.arrays["regions"].last[RUNS])
    heap.arrays["blocks"].bytes[last] -= 2
    heap.arrays["regions"].frontier[RUNS] -= 2


def relink(heap, members):
    rows, entry = heap.arrays["blocks"], heap.arrays["lists"][GENERAL]
    ends = [0, *members, 0]
    for before, at, after in zip(ends, members, ends[2:], strict=False):
        rows.prev_free[at], rows.next_free[at] = before, after
    entry.head, entry.tail, entry.nfree = members[0], members[-1], len(members)


def leave_one_out(heap):
    relink(heap, list_members(heap, GENERAL)[1:])


def turn_round(heap):
    members = list_members(heap, GENERAL)
    relink(heap, members[1:] + members[:1])


def second_in_list(field, value):
    def change(heap):
        heap.arrays["blocks"][field][list_members(heap, GENERAL)[1]] = value

    return change


def put_rover(heap):
    heap.fields.rover = where(heap, GENERAL, USED)


def put_spare(heap):
    heap.fields.spare = where(heap, GENERAL, USED)


def forget_the_peak(heap):
    heap.fields.peak_live_bytes = heap.fields.live_bytes - 1


def held(heap):
    return np.flatnonzero(heap.arrays["variables"])


def hold_twice(heap):
    first, second = held(heap)[:2]
    heap.arrays["variables"][first] = heap.arrays["variables"][second]


def free_behind_its_back(heap):
    heap.free(int(heap.arrays["variables"][held(heap)[0]]))


SEGREGATED, BUMP = ("segregated-fit", "lifo"), ("bump", None)


@pytest.mark.parametrize(
    ("kind", "change", "fault"),
    [
        ((), put(GENERAL, USED, "next", 1 << 20), "region 0 leads to 1048576, which is no block"),
        ((), put(GENERAL, USED, "prev", plus(1)), "block .* comes after .*, its link says"),
        ((), of("regions", GENERAL, "last", 1), "region 0 ends with block .*, it says"),
        ((), put(GENERAL, USED, "bytes", plus(16)), "block .* begins at .*, what is before it ends at"),
        ((), put(GENERAL, USED, "bytes", plus(-16)), "block .* begins at .*, what is before it ends at"),
        (BUMP, put(GENERAL, USED, "addr", plus(1 << 20)), "block .* begins at .*, what is before it ends at"),
        ((), of("regions", GENERAL, "frontier", 16), "region 0 ends at .*, its last block at"),
        (BUMP, of("regions", GENERAL, "frontier", -(1 << 20)), "region 0 ends at .*, its last block at"),
        ((), of("regions", GENERAL, "end", 8), "region 0 grew by .* bytes, no multiple of 4096"),
        ((), of("regions", GENERAL, "end", 1 << 45), "region 0 grew by .* that it may have"),
        (SEGREGATED, of("regions", RUNS, "end", -4096), "region 1 ends at .*, no room for 0 bytes after"),
        ((), of("regions", GENERAL, "end", -4096), "region 0 ends at .*, no room for 8 bytes after"),
        ((), of("regions", GENERAL, "end", 4096), "region 0 has 4096 bytes at its end that no block has"),
        (SEGREGATED, shorten_the_last_run, "bytes are in runs, no multiple of 4096"),
        (BUMP, scalar("dead_bytes", 16), "bytes are dead, .* counted"),
        ((), scalar("dead_bytes", 16), "0 bytes are dead, 16 counted"),
        ((), put_spare, "the spare records lead to .*, which is not spare"),
        ((), scalar("nspare"), "records are spare, .* counted"),
        ((), scalar("nblocks"), "records are spare or in a region, of"),
        ((), put(GENERAL, USED, "state", LISTED), "block .* of region 0 has state 3 and list 0"),
        (BUMP, put(GENERAL, USED, "state", FREE), "block .* of region 0 has state 2 and list 0"),
        (SEGREGATED, put(RUNS, LISTED, "state", FREE), "block .* of region 1 has state 2 and list"),
        (SEGREGATED, put(RUNS, LISTED, "list", GENERAL), "block .* of region 1 has state 3 and list 0"),
        (SEGREGATED, put(RUNS, LISTED, "list", NUM_LISTS), "block .* of region 1 has state 3 and list 10"),
        (SEGREGATED, put(GENERAL, USED, "list", 1), "block .* of region 0 has state 1 and list 1"),
        (SEGREGATED, put(RUNS, LISTED, "list", plus(1)), "block .* at .* of list .* has .* bytes"),
        ((), move_boundary, "block .* at .* of list 0 has .* bytes"),
        ((), put(GENERAL, FREE, "requested", 1), "block .* is free, 1 bytes of it are asked for"),
        ((), put(GENERAL, USED, "requested", 10_000), "has .* bytes, 10000 of them were asked for"),
        (SEGREGATED, put(RUNS, USED, "requested", 1025), "has .* bytes, 1025 of them were asked for"),
        ((), a_large_block_is_asked_for_little, "block .* has .* bytes for 1, it was not split"),
        (BUMP, a_large_block_is_asked_for_little, "block .* has .* bytes for 1, it was not split"),
        ((), free_a_neighbour, "block .* and the one before it are both free"),
        ((), second_in_list("next_free", 1 << 20), "list 0 leads to 1048576, which is no block"),
        ((), second_in_list("prev_free", 0), "block .* in list 0 comes after .*, its link says 0"),
        ((), of("lists", GENERAL, "nfree", 1), "list 0 has .* blocks up to .*, it says"),
        ((), of("lists", GENERAL, "tail", 1), "list 0 has .* blocks up to .*, it says"),
        ((), leave_one_out, "list 0 holds blocks .*, not just its own free ones"),
        ((), turn_round, "the list sorted by address holds blocks"),
        ((), put_rover, "the rover is .*, no free block of next fit"),
        (("first-fit", "lifo"), scalar("rover"), "the rover is 1, no free block of next fit"),
        ((), scalar("live_objects"), "live_objects is .*, blocks and regions say"),
        ((), scalar("live_bytes", -1), "live_bytes is .*, blocks and regions say"),
        ((), scalar("used_bytes"), "used_bytes is .*, blocks and regions say"),
        (SEGREGATED, scalar("free_bytes"), "free_bytes is .*, blocks and regions say"),
        (BUMP, scalar("arena_bytes", 4096), "arena_bytes is .*, blocks and regions say"),
        ((), forget_the_peak, "peak_live_bytes is .*, live are"),
        ((), hold_twice, "variables hold .* objects"),
        ((), free_behind_its_back, "a variable holds .*, which is no live object"),
    ],
)
def test_what_is_broken_is_noticed(kind, change, fault):
    heap = busy(*kind)
    change(heap)
    with pytest.raises(Throw, match=fault):
        check(heap)


def test_a_lifo_list_may_be_in_any_order():
    heap = busy("first-fit", "lifo")
    turn_round(heap)
    check(heap)
