"""A slow page allocator with its scavenger in plain Python, written from the rules alone.

Sets of page numbers stand for bitmaps. A chunk is dense while 496 of its pages are in use, or were when the last
generation ended. What is free is found first fit. One kind of scavenging, or two with cursors of their own (``two``).
"""

CHUNK = 512
HUGE = 256


class Cursor:
    """The highest page worth a look; None for nothing. It is marked from a rise to the next fall."""

    def __init__(self):
        self.page, self.marked = None, False

    def rise(self, page):
        if page is not None and (self.page is None or page > self.page):
            self.page, self.marked = page, True

    def fall(self, page):
        self.page, self.marked = page, False


class Model:
    def __init__(self, two):
        self.two = two
        self.free, self.scavenged = set(), set()  # scavenged pages are among the free ones
        self.chunks, self.flagged = set(), set()
        self.used_before = {}  # pages in use when the last generation ended
        self.bg, self.force = Cursor(), Cursor()
        self.freed_up_to = None

    def grow(self, chunk):
        self.chunks.add(chunk)
        pages = range(chunk * CHUNK, (chunk + 1) * CHUNK)
        self.free.update(pages)
        self.scavenged.update(pages)

    def used(self, chunk):
        return CHUNK - sum(page in self.free for page in range(chunk * CHUNK, (chunk + 1) * CHUNK))

    def dense(self, chunk):
        return self.two and max(self.used(chunk), self.used_before.get(chunk, 0)) >= 496

    # allocation

    def first_fit(self, n):
        for page in sorted(self.free):
            if all(page + i in self.free for i in range(n)):
                return page
        return -1

    def take(self, pages):
        """These pages are in use now; how many were scavenged."""
        pages = set(pages)
        scavenged = len(pages & self.scavenged)
        self.free -= pages
        self.scavenged -= pages
        if self.two:
            self.flagged -= {page // CHUNK for page in pages if self.used(page // CHUNK) == CHUNK}
        return scavenged

    def give(self, pages, scavenged=(), seen=True):
        """These pages are free now; the scavenger learns of it if ``seen``."""
        self.free.update(pages)
        self.scavenged.update(scavenged)
        if seen and pages:
            self.flagged |= {page // CHUNK for page in pages}
            self.force.rise(max(pages))
            self.freed_up_to = max(max(pages), -1 if self.freed_up_to is None else self.freed_up_to)

    # scavenging

    def generation(self):
        if self.two:
            self.bg.rise(self.freed_up_to)
            self.freed_up_to = None
            self.used_before = {chunk: self.used(chunk) for chunk in self.chunks}

    def find(self, force):
        """(chunk, page within it) to look at, or None."""
        background = self.two and not force
        cursor = self.bg if background else self.force
        if cursor.page is None:
            return None
        start = cursor.page // CHUNK
        some = [c for c in self.flagged if c <= start and not (background and self.dense(c))]
        if not some:
            if not cursor.marked:
                cursor.page = None
            return None
        if max(some) == start:
            return start, cursor.page % CHUNK
        cursor.fall(max(some) * CHUNK + CHUNK - 1)
        return max(some), CHUNK - 1

    def candidate(self, chunk, page, limit):
        """The pages of a chunk to release, at most so many: the top of the highest run in reach, whole huge pages."""
        first = chunk * CHUNK
        reach = first + (page | 63) if self.two else first + CHUNK - 1
        backed = [p for p in range(first, reach + 1) if p in self.free and p not in self.scavenged]
        if not backed:
            return []
        run = [backed[-1]]
        while run[-1] - 1 in self.free - self.scavenged and run[-1] - 1 >= first:
            run.append(run[-1] - 1)
        run.reverse()
        chosen = run[-limit:]
        block = range(chosen[0] // HUGE * HUGE, chosen[0] // HUGE * HUGE + HUGE)
        if set(block) <= set(run):
            chosen = [p for p in run if p >= block[0]]
        return chosen

    def scavenge(self, nbytes, force):
        released = 0
        while released < nbytes:
            found = self.find(force)
            if found is None:
                break
            pages = self.candidate(*found, -(-(nbytes - released) // 8192))
            if not pages:
                self.flagged.discard(found[0])
            self.scavenged.update(pages)
            released += 8192 * len(pages)
        return released
