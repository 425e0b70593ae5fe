"""Stacks and dead goroutines in plain Python lists: a slow model after stack.go and proc.go, apart from the rooms.

Where a new span lies is the page heap's matter: the model is told the address that was handed out, and works out from
it where the span must begin; every later address is predicted.
"""

KIB = 1 << 10
SPAN, HALF = 32 * KIB, 16 * KIB
GUARD, NOSPLIT, LIMIT = 928, 800, 1_000_000_000
NOTHING_DECLARED = 288


class Span:
    """32 KiB of stacks of one size. The last of ``free`` goes out next."""

    def __init__(self, base, size):
        self.base, self.size = base, size
        self.free = list(range(base, base + SPAN, size))

    @property
    def whole(self):
        return len(self.free) == SPAN // self.size


class Stacks:
    """``told``: what the last question to the real thing was answered."""

    def __init__(self, nprocs):
        self.gc = False
        self.pools = {2 * KIB << order: [] for order in range(4)}  # spans with a free stack, first in front
        self.spans = {}  # stack address -> Span
        self.caches = [{size: [] for size in self.pools} for _ in range(nprocs)]  # the last one goes out next
        self.large_free = {}  # bytes -> addresses, the last one goes out next
        self.large = {}  # address -> bytes, of all that are no heap's
        self.told = None

    @property
    def in_use(self):
        """Bytes of spans."""
        return SPAN * len(set(self.spans.values())) + sum(self.large.values())

    def _from_pool(self, size, base):
        """A stack of a pool; ``base`` gives the base of a new span."""
        pool = self.pools[size]
        if not pool:
            pool.insert(0, Span(base(), size))
            self.spans |= dict.fromkeys(pool[0].free, pool[0])
        span = pool[0]
        address = span.free.pop()
        if not span.free:
            pool.remove(span)
        return address

    def _to_pool(self, address):
        span = self.spans[address]
        pool = self.pools[span.size]
        if not span.free:
            pool.insert(0, span)
        assert address not in span.free
        span.free.append(address)
        if span.whole and not self.gc:
            self._give_back(span)

    def _give_back(self, span):
        self.pools[span.size].remove(span)
        for address in span.free:
            del self.spans[address]

    def alloc(self, p, size):
        """What stackalloc returns."""
        if size >= SPAN:
            return self._alloc_large(size)
        if p < 0:
            return self._from_pool(size, lambda: self.told - SPAN + size)
        cache = self.caches[p][size]
        if not cache:
            wanted = HALF // size
            old = sum(len(span.free) for span in self.pools[size])
            # the stack handed out is the last one taken: so many from the top of the new span
            base = lambda: self.told - SPAN + (wanted - old) * size
            cache += [self._from_pool(size, base) for _ in range(wanted)]
        return cache.pop()

    def _alloc_large(self, size):
        if self.large_free.get(size):
            return self.large_free[size].pop()
        assert self.told not in self.large
        self.large[self.told] = size
        return self.told

    def free(self, p, address, size):
        """stackfree."""
        if size >= SPAN:
            if self.gc:
                self.large_free.setdefault(size, []).append(address)
            else:
                del self.large[address]
        elif p < 0:
            self._to_pool(address)
        else:
            cache = self.caches[p][size]
            while len(cache) * size >= SPAN:
                for _ in range(HALF // size):
                    self._to_pool(cache.pop())
            cache.append(address)

    def clear(self, p):
        """stackcache_clear."""
        for cache in self.caches[p].values():
            while cache:
                self._to_pool(cache.pop())

    def free_spans(self):
        """freeStackSpans."""
        for pool in self.pools.values():
            for span in list(pool):
                if span.whole:
                    self._give_back(span)
        for addresses in self.large_free.values():
            for address in addresses:
                del self.large[address]
        self.large_free = {}


class Goroutines:
    """Dead ones in lists, the last goes out next; ``stack``: id -> (address, bytes), ``used``: bytes of live ones."""

    def __init__(self, stacks, nprocs):
        self.stacks = stacks
        self.local = [[] for _ in range(nprocs)]
        self.with_stack, self.without = [], []
        self.stack, self.used = {}, {}
        self.starting = 2 * KIB
        self.made = self.scanned = self.nscanned = 0

    def _global(self):
        return (self.with_stack or self.without).pop()

    def start(self, p):
        """newproc1: the id."""
        own = [] if p < 0 else self.local[p]
        if not own:
            while len(own) < (1 if p < 0 else 32) and (self.with_stack or self.without):
                own.append(self._global())
        if own:
            g = own.pop()
            if g in self.stack and self.stack[g][1] != self.starting:
                self.stacks.free(p, *self.stack.pop(g))
            if g not in self.stack:
                self.stack[g] = self.stacks.alloc(p, self.starting), self.starting
        else:
            self.made += 1
            g = self.made
            self.stack[g] = self.stacks.alloc(p, 2 * KIB), 2 * KIB
        self.used[g] = NOTHING_DECLARED
        return g

    def move(self, p, g, size):
        """copystack."""
        new = self.stacks.alloc(p, size)
        self.stacks.free(p, *self.stack[g])
        self.stack[g] = new, size

    def scan(self, p, g):
        """scanstack, with shrinkstack in it."""
        self.scanned += self.used[g]
        self.nscanned += 1
        size = self.stack[g][1]
        if size > 2 * KIB and self.used[g] + NOSPLIT < size / 4:
            self.move(p, g, size // 2)

    def new_starting_size(self):
        """gcComputeStartingStackSize."""
        self.starting = 2 * KIB
        while self.nscanned and self.starting < self.scanned // self.nscanned + GUARD:
            self.starting *= 2
        self.scanned = self.nscanned = 0

    def free_dead(self, p):
        """markrootFreeGStacks."""
        for g in reversed(self.with_stack):
            self.stacks.free(p, *self.stack.pop(g))
        self.without += self.with_stack
        self.with_stack = []

    def end(self, p, g):
        """goexit."""
        del self.used[g]
        if self.stack[g][1] != self.starting:
            self.stacks.free(p, *self.stack.pop(g))
        if p < 0:
            (self.with_stack if g in self.stack else self.without).append(g)
            return
        self.local[p].append(g)
        if len(self.local[p]) == 64:
            for _ in range(33):
                dead = self.local[p].pop()
                (self.with_stack if dead in self.stack else self.without).append(dead)
