package main

import "allocsim/truth/tsc"

// The account of time. What a stream asks to compute is the program's whole time outside malloc and first touches; what
// the replayer itself takes (decoding, clock reads, histograms, writing objects that are in memory) is taken off the next
// compute, and what that cannot take up off the one after.
//
// An interval of the replayer's own longer than longestDriver was interrupted: by a stop of the world, another goroutine
// on its P, the system. What interrupts the program is no part of its own time, so nominalDriver is taken instead.
const (
	longestDriver = 1000 // ns
	nominalDriver = 50
	longestTouch  = 500_000 // first touch of a page, of 2 MiB even
)

type tscClock struct {
	tickPs                            float64
	overhead, longest, touch, nominal uint64
}

var clock tscClock

// picoseconds of some ticks.
func picoseconds(ticks uint64) uint64 { return uint64(float64(ticks) * clock.tickPs) }

// account is one goroutine's.
type account struct {
	last uint64 // when the time not yet accounted for began
	debt int64  // ticks to be taken off the next compute
	cut  uint64 // intervals that were interrupted
}

// driver accounts for the time up to now as the replayer's own.
func (a *account) driver(now uint64) {
	a.debt += int64(a.own(now - a.last))
	a.last = now
}

// own is what counts of an interval.
func (a *account) own(ticks uint64) uint64 {
	if ticks > clock.longest {
		a.cut++
		return clock.nominal
	}
	return ticks
}

// compute runs for so many ticks, the debt taken off.
func (a *account) compute(ticks int64) {
	ticks -= a.debt
	for ticks > 0 {
		ticks -= a.burn()
	}
	a.debt = -ticks
}

// burn runs for some clock reads: the ticks that passed. The runtime can stop a goroutine at calls of functions that
// have a frame; it could hardly stop a loop in the clock's assembly.
//
//go:noinline
func (a *account) burn() int64 {
	now := tsc.Now()
	passed := a.own(now - a.last)
	a.last = now
	return int64(passed)
}
