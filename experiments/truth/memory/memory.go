// Package memory finds the memory that the host of a virtual machine took away: what writes to pages take.
package memory

import (
	"runtime"
	"syscall"
	"time"

	"allocsim/truth/tsc"
)

// longFault is how much longer than usual a write to a page takes, at least, whose memory the host of a virtual machine
// has to bring; the guest's own page faults are far shorter.
const longFault = 20_000 // ns

const page = 4096

// Writes is what single writes to pages took.
type Writes struct {
	Pages   int       `json:"pages"`    // written to, each time counted
	UsualNs float64   `json:"usual_ns"` // mean of those that were not long
	LongNs  []float64 `json:"long_ns"`  // beyond the usual
}

// Found is what writes to pages took the first time of all, and each time after.
type Found struct {
	Fresh Writes `json:"fresh"`
	Old   Writes `json:"old"`
}

// Clock is that of tsc: its ticks a nanosecond, and those that a pair of reads takes by itself.
type Clock struct {
	PerNs    float64
	Overhead uint64
}

// Withheld writes to so many pages in turn, again and again for the time given, and twice after the first time at the
// least. A pass takes the time given, reading the clock between writes. Small pages, as those of a heap.
func Withheld(clock Clock, pages int, pass, during time.Duration) (Found, error) {
	runtime.LockOSThread()
	data, err := syscall.Mmap(-1, 0, pages*page, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return Found{}, err
	}
	defer syscall.Munmap(data)
	ticks := func(d time.Duration) uint64 { return uint64(float64(d.Nanoseconds()) * clock.PerNs) }
	pace := ticks(pass) / uint64(pages)
	found := Found{Fresh: clock.write(data, pace)}
	found.Old = Writes{LongNs: []float64{}}
	end := tsc.Now() + ticks(during)
	usual := 0.0
	for passes := 0; passes < 2 || tsc.Now() < end; passes++ {
		one := clock.write(data, pace)
		usual += one.UsualNs * float64(one.Pages)
		found.Old.Pages += one.Pages
		found.Old.LongNs = append(found.Old.LongNs, one.LongNs...)
	}
	found.Old.UsualNs = usual / float64(found.Old.Pages)
	return found, nil
}

// write writes to each page, so many ticks apart.
func (c Clock) write(data []byte, pace uint64) Writes {
	found := Writes{LongNs: []float64{}}
	least := uint64(longFault * c.PerNs)
	var short uint64
	next := tsc.Now()
	for at := 0; at < len(data); at += page {
		begin := tsc.Now()
		for ; begin < next; begin = tsc.Now() {
		}
		data[at]++
		took := tsc.Now() - begin - c.Overhead
		if int64(took) < 0 {
			took = 0
		}
		if found.Pages++; took > least {
			found.LongNs = append(found.LongNs, float64(took)/c.PerNs)
		} else {
			short += took
		}
		next += pace
	}
	if n := found.Pages - len(found.LongNs); n > 0 {
		found.UsualNs = float64(short) / c.PerNs / float64(n)
	}
	for i := range found.LongNs {
		found.LongNs[i] -= found.UsualNs
	}
	return found
}
