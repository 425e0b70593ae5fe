// Package tsc reads a clock that is cheap enough to put around one malloc.
//
// On amd64 that is the time-stamp counter, read so that what was before it is over and what comes after has not begun
// (RDTSCP, LFENCE); elsewhere the runtime's monotonic clock, in nanoseconds.
package tsc

import (
	"sort"
	"time"
)

// PerNs tells how many ticks of Now a nanosecond has, measured against the monotonic clock for the given time.
func PerNs(during time.Duration) float64 {
	begin, first := time.Now(), Now()
	for time.Since(begin) < during {
	}
	last, took := Now(), time.Since(begin)
	return float64(last-first) / float64(took.Nanoseconds())
}

// Overhead tells the ticks between two reads with nothing in between: the median of many.
func Overhead() uint64 {
	const reads = 20001
	found := make([]uint64, reads)
	for i := range found {
		begin := Now()
		found[i] = Now() - begin
	}
	sort.Slice(found, func(i, j int) bool { return found[i] < found[j] })
	return found[reads/2]
}
