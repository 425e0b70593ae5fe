package main

import (
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"allocsim/truth/tsc"
)

// quietCPU is what interrupted one CPU: gaps between two clock reads, beyond what those take.
type quietCPU struct {
	CPU     int       `json:"cpu"`
	Seconds float64   `json:"seconds"`
	GapsNs  []float64 `json:"gaps_ns"` // those above a microsecond
}

// noise reads the clock on each CPU in turn and keeps the gaps above a microsecond.
func noise(during time.Duration) []quietCPU {
	runtime.LockOSThread()
	found := []quietCPU{}
	least := uint64(1e6 / clock.tickPs)
	for cpu := 0; cpu < 1024; cpu++ {
		var mask [16]uint64
		mask[cpu/64] = 1 << (cpu % 64)
		_, _, failed := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
		if failed != 0 {
			continue
		}
		one := quietCPU{CPU: cpu, GapsNs: []float64{}}
		begin := tsc.Now()
		end := begin + uint64(float64(during.Nanoseconds())*1000/clock.tickPs)
		for last := begin; last < end; {
			now := tsc.Now()
			if gap := now - last; gap > least {
				one.GapsNs = append(one.GapsNs, float64(gap-clock.overhead)*clock.tickPs/1000)
				now = tsc.Now()
			}
			last = now
		}
		one.Seconds = float64(tsc.Now()-begin) * clock.tickPs / 1e12
		found = append(found, one)
	}
	return found
}
