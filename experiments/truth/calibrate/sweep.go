package main

import (
	"runtime"
	"unsafe"

	"allocsim/truth/tsc"
)

const drained = ^uintptr(0) // nothing to sweep

// sweepone sweeps one span that was not swept yet, and tells how many pages it gave back.
//
//go:linkname sweepone runtime.sweepone
func sweepone() uintptr

// sweep measures sweeping a span, by what survives of its objects: all, every second one, none. Another goroutine asks
// for the collection; this one sweeps before it, since there is but one P.
func sweep() {
	runtime.GOMAXPROCS(1)
	o := chosen()
	n := *mib << 20 / o.size
	took := array[uint32](*mib<<20/page + 1<<12)
	kept := make([]unsafe.Pointer, n)
	for i := range kept {
		kept[i] = o.one()
	}
	sink = nil
	for _, keep := range []string{"all", "half", "none"} {
		for i := range kept {
			if keep == "none" || keep == "half" && i%2 == 1 {
				kept[i] = nil
			}
		}
		row("sweep", []any{class(o), keep}, sampled(swept(took)).values())
	}
	runtime.KeepAlive(kept)
}

// swept collects and tells how long sweeping each span took.
func swept(took []uint32) []uint32 {
	done := make(chan bool)
	go func() {
		runtime.GC()
		done <- true
	}()
	for sweepone() == drained {
		runtime.Gosched()
	}
	n := 0
	for ; n < len(took); n++ {
		begin := tsc.Now()
		pages := sweepone()
		took[n] = checked(tsc.Now() - begin)
		if pages == drained {
			break
		}
	}
	<-done
	return took[:n]
}
