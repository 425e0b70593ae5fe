//go:build !amd64

package tsc

import "time"

var start = time.Now()

// Now reads the monotonic clock, in nanoseconds.
func Now() uint64 { return uint64(time.Since(start)) }
