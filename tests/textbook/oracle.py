"""Slow models of the textbook allocators: a Python list of the blocks in order of address, and one of the free ones.

Written from the docstrings of the rooms, with none of their structures: neighbours are found by position in the list of
blocks, a place in a free list by counting. ``facts`` are sums, as the rooms' are.
"""

from collections import Counter

HEADER = 8
SMALLEST = 32  # header, two links and the size at the end
BASES = (1 << 44, 1 << 45)
RUN = 4096


def up(n, step):
    return -(-n // step) * step


class Block:
    def __init__(self, at, nbytes, used=False):
        self.at, self.nbytes, self.used = at, nbytes, used


class General:
    """One list of free blocks of any size, in a region of its own."""

    def __init__(self, search, order, align, grow, facts):
        self.search, self.order, self.align, self.grow, self.facts = search, order, align, grow, facts
        self.all, self.free_list = [], []
        self.start = BASES[0] + up(HEADER, align) - HEADER
        self.end = BASES[0]
        self.rover = None

    def arena(self):
        return self.end - BASES[0]

    def find(self, need):
        """The free block that the policy takes, or None; the steps counted."""
        places = list(range(len(self.free_list)))
        if self.search == "next-fit" and self.rover is not None:
            at = self.free_list.index(self.rover)
            places = places[at:] + places[:at]
        fitting = [i for i in places if self.free_list[i].nbytes >= need]
        if self.search == "best-fit" and fitting:
            best = min(fitting, key=lambda i: (self.free_list[i].nbytes, i))
            exact = self.free_list[best].nbytes == need
            self.facts["visited"] += best + 1 if exact else len(places)
            return self.free_list[best]
        self.facts["visited"] += places.index(fitting[0]) + 1 if fitting else len(places)
        return self.free_list[fitting[0]] if fitting else None

    def extend(self, need):
        """The block at the region's end, after the system gave what is missing to it."""
        last = self.all[-1] if self.all and not self.all[-1].used else None
        begin = last.at if last else self.all[-1].at + self.all[-1].nbytes if self.all else self.start
        grown = up(begin + need + HEADER - self.end, self.grow)
        self.end += grown
        self.facts["growths"] += 1
        self.facts["grown"] += grown
        if last is None:
            last = Block(begin, 0)
            self.all.append(last)
            self.free_list.insert(len(self.free_list) if self.order == "address" else 0, last)
        last.nbytes = self.end - HEADER - begin
        return last

    def malloc(self, size):
        need = max(up(size + HEADER, self.align), up(SMALLEST, self.align))
        block = self.find(need) or self.extend(need)
        place = self.free_list.index(block)
        if block.nbytes - need >= up(SMALLEST, self.align):
            rest = Block(block.at + need, block.nbytes - need)
            self.all.insert(self.all.index(block) + 1, rest)
            self.free_list[place] = rest
            self.facts["splits"] += 1
            block.nbytes = need
            behind = rest
        else:
            del self.free_list[place]
            behind = self.free_list[place] if place < len(self.free_list) else None
        if self.search == "next-fit":
            self.rover = behind
        block.used = True
        return block, block.at + HEADER

    def free(self, block):
        i = self.all.index(block)
        beside = [b for b in self.all[max(i - 1, 0) : i + 2] if not b.used]
        merged = Block(block.at, block.nbytes) if not beside else None
        if beside:
            parts = sorted([*beside, block], key=lambda b: b.at)
            merged = Block(parts[0].at, sum(b.nbytes for b in parts))
        self.facts["coalesced"] += len(beside)
        if self.order == "address":
            if not beside:
                above = [k for k, b in enumerate(self.free_list) if b.at > block.at]
                self.facts["passed"] += above[0] + 1 if above else len(self.free_list)
            self.free_list = sorted([b for b in self.free_list if b not in beside] + [merged], key=lambda b: b.at)
        else:
            self.free_list = [merged] + [b for b in self.free_list if b not in beside]
        if self.rover in beside:
            self.rover = merged
        self.all = [b for b in self.all if b is not block and b not in beside]
        self.all.insert(sum(b.at < merged.at for b in self.all), merged)


class Lists:
    """Lists of blocks of 4, 8, 16 ... 1024 bytes, carved from runs in a region of their own; a general tail."""

    def __init__(self, order, align, grow, facts):
        self.tail = General("first-fit", order, align, grow, facts)
        self.grow, self.facts = grow, facts
        self.free_lists = {4 << k: [] for k in range(9)}
        self.pointer = self.end = BASES[1]

    def arena(self):
        return self.tail.arena() + self.end - BASES[1]

    def malloc(self, size):
        if size > 1024:
            return self.tail.malloc(size)
        nbytes = min(n for n in self.free_lists if n >= size)
        stack = self.free_lists[nbytes]  # its end is the list's head
        if not stack:
            if self.pointer + RUN > self.end:
                self.end += self.grow
                self.facts["growths"] += 1
                self.facts["grown"] += self.grow
            stack += [Block(at, nbytes) for at in reversed(range(self.pointer, self.pointer + RUN, nbytes))]
            self.pointer += RUN
            self.facts["runs"] += 1
            self.facts["carved"] += RUN // nbytes
        self.facts["visited"] += 1
        block = stack.pop()
        block.used = True
        return block, block.at

    def free(self, block):
        if block.at < BASES[1]:
            self.tail.free(block)
        else:
            block.used = False
            self.free_lists[block.nbytes].append(block)


class Bump:
    def __init__(self, align, grow, facts):
        self.align, self.grow, self.facts = align, grow, facts
        self.pointer = self.end = BASES[0]
        self.live = 0

    def arena(self):
        return self.end - BASES[0]

    def malloc(self, size):
        at = self.pointer
        self.pointer += up(max(size, 1), self.align)
        self.live += 1
        if self.pointer > self.end:
            self.facts["growths"] += 1
            self.facts["grown"] += up(self.pointer - self.end, self.grow)
            self.end += up(self.pointer - self.end, self.grow)
        return at, at

    def free(self, _):
        self.live -= 1
        if self.live == 0:
            self.pointer = BASES[0]
            self.facts["resets"] += 1


def oracle(policy, order, align, grow):
    """The slow model of a policy. ``malloc(size)`` gives the block and the address, ``free`` takes the block."""
    facts = Counter()
    if policy == "bump":
        return Bump(align, grow, facts)
    if policy == "segregated-fit":
        return Lists(order, align, grow, facts)
    return General(policy, order, align, grow, facts)
