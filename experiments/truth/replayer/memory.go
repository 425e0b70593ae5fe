package main

import (
	"runtime"
	"syscall"
	"time"

	"allocsim/truth/tsc"
)

// longFault is how much longer than usual a write to a page takes, at least, whose memory the host of a virtual machine
// has to bring; the guest's own page faults are far shorter.
const longFault = 20_000 // ns

// writes is what single writes to pages took.
type writes struct {
	Pages   int       `json:"pages"`    // written to, each time counted
	UsualNs float64   `json:"usual_ns"` // mean of those that were not long
	LongNs  []float64 `json:"long_ns"`  // beyond the usual
}

// memoryNoise is what writes to pages took the first time of all, and each time after.
type memoryNoise struct {
	Fresh writes `json:"fresh"`
	Old   writes `json:"old"`
}

// withheld writes to so many pages in turn, again and again for the time given, and twice after the first time at the
// least. A pass takes the time given, reading the clock between writes. Small pages, as those of a heap.
func withheld(pages int, pass, during time.Duration) memoryNoise {
	runtime.LockOSThread()
	data, err := syscall.Mmap(-1, 0, pages*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	check(err)
	ticks := func(d time.Duration) uint64 { return uint64(float64(d.Nanoseconds()) * 1000 / clock.tickPs) }
	pace := ticks(pass) / uint64(pages)
	found := memoryNoise{Fresh: writePages(data, pace)}
	found.Old = writes{LongNs: []float64{}}
	end := tsc.Now() + ticks(during)
	usual := 0.0
	for passes := 0; passes < 2 || tsc.Now() < end; passes++ {
		one := writePages(data, pace)
		usual += one.UsualNs * float64(one.Pages)
		found.Old.Pages += one.Pages
		found.Old.LongNs = append(found.Old.LongNs, one.LongNs...)
	}
	found.Old.UsualNs = usual / float64(found.Old.Pages)
	return found
}

// writePages writes to each page, so many ticks apart.
func writePages(data []byte, pace uint64) writes {
	found := writes{LongNs: []float64{}}
	least := uint64(longFault * 1000 / clock.tickPs)
	var short uint64
	next := tsc.Now()
	for at := 0; at < len(data); at += page {
		begin := tsc.Now()
		for ; begin < next; begin = tsc.Now() {
		}
		data[at]++
		took := tsc.Now() - begin - clock.overhead
		if int64(took) < 0 {
			took = 0
		}
		if found.Pages++; took > least {
			found.LongNs = append(found.LongNs, float64(took)*clock.tickPs/1000)
		} else {
			short += took
		}
		next += pace
	}
	if n := found.Pages - len(found.LongNs); n > 0 {
		found.UsualNs = float64(short) * clock.tickPs / 1000 / float64(n)
	}
	for i := range found.LongNs {
		found.LongNs[i] -= found.UsualNs
	}
	return found
}
