package main

import (
	"unsafe"

	"allocsim/truth/tsc"
)

// Sweeping as mallocs do that owe it: after so many mallocs, so many spans in a row. That is more than these mallocs owe.
const (
	sweepAfter = 64
	inARow     = 6
)

var (
	sweepPlace = [...]string{"first", "next"}
	sweepLeft  = [...]string{"kept", "freed"}
)

// mheap is the first word of the runtime's heap, which counts the pages that were swept in one of those after it.
//
//go:linkname mheap runtime.mheap_
var mheap uint64

const (
	heapWords = 96 << 10 / 8 // the first so many words of it
	mostPages = 1 << 10      // swept meanwhile, by whomever
	enough    = 8            // spans that agree
)

// counter finds that word: whatever is swept, it alone grows each time, by as many pages as are given back at least. A word
// that counts the spans of a set grows with those of one class only, one that counts pages given back only with those.
type counter struct {
	before, now []uint64
	may         []int // be it
	agreed      int   // spans that were swept since one is left
	pages       *uint64
	last        uint64
}

// look notes all words before a span is swept.
func (c *counter) look() {
	if c.pages != nil {
		return
	}
	if c.may == nil {
		c.before, c.now = array[uint64](heapWords), array[uint64](heapWords)
		c.forget()
	}
	copy(c.before, unsafe.Slice(&mheap, heapWords))
}

// forget begins anew: it may be any word.
func (c *counter) forget() {
	c.agreed = 0
	c.may = array[int](heapWords)
	for i := range c.may {
		c.may[i] = i
	}
}

// swept leaves of the words those that have grown as that span's pages must have let them.
func (c *counter) swept(pages uintptr) {
	if c.pages != nil {
		return
	}
	copy(c.now, unsafe.Slice(&mheap, heapWords))
	left := c.may[:0]
	for _, i := range c.may {
		if grown := c.now[i] - c.before[i]; grown >= uint64(pages) && grown > 0 && grown < mostPages {
			left = append(left, i)
		}
	}
	switch c.may = left; {
	case len(left) == 0: // a collection began meanwhile
		c.forget()
	case len(left) > 1:
		c.agreed = 0
	case c.agreed < enough:
		c.agreed++
	default:
		c.pages = &unsafe.Slice(&mheap, heapWords)[left[0]]
	}
}

// grown tells how many pages were swept since it was called last.
func (c *counter) grown() int {
	if c.pages == nil {
		return 0
	}
	last := c.last
	c.last = *c.pages
	return int(c.last - last)
}

// sweeps gathers how long sweeping a span takes: the first one after other things were done, and those right after it;
// spans of which something survives, and those that go back to the heap.
type sweeps [len(sweepPlace)][len(sweepLeft)]sample

// some sweeps as many spans as a malloc may owe, as far as there are any.
func (s *sweeps) some(c *counter) {
	for i := 0; i < inARow; i++ {
		sought := c.pages == nil
		c.look()
		begin := tsc.Now()
		pages := sweepone()
		took := checked(tsc.Now() - begin)
		if pages == drained {
			return
		}
		c.swept(pages)
		if sought { // and with it all that the CPU had at hand
			continue
		}
		place, left := 1, 1
		if i == 0 {
			place = 0
		}
		if pages == 0 {
			left = 0
		}
		s[place][left].add(took)
	}
}

// tellSwept tells the rows of what all mixers swept.
func tellSwept(table string, mixers []*mixer, procs int, often float64) {
	for i, place := range sweepPlace {
		for j, left := range sweepLeft {
			all := new(sample)
			for _, m := range mixers {
				all.merge(&m.swept[i][j])
			}
			if all.n >= fewest {
				row(table, []any{place, left, *mib, procs}, undisturbed(all, often))
			}
		}
	}
}
