package main

import (
	"syscall"

	"allocsim/truth/tsc"
)

// apart are the times that a thread has worked for since its last page fault, by the names of the rows; none in the
// first, which the others are compared with.
var apart = []struct {
	name string
	work float64 // nanoseconds
}{{"", 0}, {"touch_5us", 5_000}, {"touch_20us", 20_000}, {"touch_100us", 100_000}}

// faults measures what the first write to a page takes longer the more its thread has done since the last one: the caches
// have lost the system's code and data. The times take turns, some pages each, so that a host that gets slower is slower
// for all of them. Left out are the first pages of a turn, which meet the caches as the turn before left them, and of each
// time the longest fiftieth: faults that something interrupted or whose memory the host had to bring.
func faults() {
	const turn, settled, kept = 64, 8, 0.98
	memory, other, x := mapped(*mib<<20, 0), array[byte](worked), xorshift(1)
	syscall.Madvise(memory, advNoHuge)
	took := make([]*sample, len(apart))
	for i := range took {
		took[i] = new(sample)
	}
	for page := 0; page < len(memory)/osPage; page++ {
		i := page / turn % len(apart)
		if apart[i].work > 0 {
			works(other, &x, apart[i].work)
		}
		begin := tsc.Now()
		memory[page*osPage] = 1
		if reading := checked(tsc.Now() - begin); page%turn >= settled {
			took[i].add(reading)
		}
	}
	usual := took[0].upTo(kept)
	for i, one := range apart[1:] {
		row("steps", []any{one.name}, map[string]float64{"ns": took[i+1].upTo(kept) - usual})
	}
}
