package main

import (
	"math/bits"
	"sync/atomic"
)

// The layout of sim/metrics/histogram.py: picoseconds, 1024 buckets to a power of two, 2048 of one picosecond.
const (
	subBits = 10
	top     = 53
	buckets = (top-subBits)<<subBits + 1<<subBits
)

// histogram counts picoseconds, by any number of goroutines at once.
type histogram struct {
	counts         []uint64
	total, maximum uint64
}

func newHistogram() *histogram { return &histogram{counts: offHeap(buckets)} }

func bucketOf(value uint64) uint64 {
	if value < 2<<subBits {
		return value
	}
	shift := uint64(63 - subBits - bits.LeadingZeros64(value))
	bucket := shift<<subBits + value>>shift
	if bucket >= buckets {
		return buckets - 1
	}
	return bucket
}

// add counts a value.
func (h *histogram) add(value uint64) {
	atomic.AddUint64(&h.counts[bucketOf(value)], 1)
	atomic.AddUint64(&h.total, value)
	for {
		most := atomic.LoadUint64(&h.maximum)
		if value <= most || atomic.CompareAndSwapUint64(&h.maximum, most, value) {
			return
		}
	}
}
