package main

import "allocsim/truth/tsc"

// Sweeping as mallocs do that owe it: after so many mallocs, so many spans in a row.
const (
	sweepAfter = 64
	inARow     = 4
)

var (
	sweepPlace = [...]string{"first", "next"}
	sweepLeft  = [...]string{"kept", "freed"}
)

// sweeps gathers how long sweeping a span takes: the first one after other things were done, and those right after it;
// spans of which something survives, and those that go back to the heap.
type sweeps [len(sweepPlace)][len(sweepLeft)]sample

// some sweeps as many spans as a malloc may owe, as far as there are any.
func (s *sweeps) some() {
	for i := 0; i < inARow; i++ {
		begin := tsc.Now()
		pages := sweepone()
		took := checked(tsc.Now() - begin)
		if pages == drained {
			return
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
func tellSwept(mixers []*mixer, often float64) {
	for i, place := range sweepPlace {
		for j, left := range sweepLeft {
			all := new(sample)
			for _, m := range mixers {
				all.merge(&m.swept[i][j])
			}
			if all.n >= fewest {
				row("swept", []any{place, left, *mib, len(mixers)}, undisturbed(all, often))
			}
		}
	}
}
