package tsc

// Now reads the time-stamp counter, in ticks.
func Now() uint64
