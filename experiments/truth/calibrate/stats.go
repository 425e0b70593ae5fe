package main

import (
	"math"
	"math/bits"
	"sort"
	"syscall"
	"time"
	"unsafe"

	"allocsim/truth/tsc"
)

// Of the clock: its ticks a nanosecond, and those that a pair of reads takes by itself.
var (
	perNs    float64
	overhead uint64
)

// elapsed tells the nanoseconds that f takes.
func elapsed(f func()) float64 {
	begin := tsc.Now()
	f()
	return float64(tsc.Now()-begin) / perNs
}

// spent tells the nanoseconds of CPU time that f takes on one P, the collector's with it: what the wall shows where no
// other process gets in between.
func spent(f func()) float64 {
	begin := cpuTime()
	f()
	return float64(cpuTime() - begin)
}

// cpuTime is that of this process so far, in nanoseconds.
func cpuTime() int64 {
	const processClock = 2 // CLOCK_PROCESS_CPUTIME_ID
	var now syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, processClock, uintptr(unsafe.Pointer(&now)), 0)
	return now.Nano()
}

// lost marks a reading during which the system gave the CPU to somebody else, or one with a page fault in it where
// those are not wanted.
const lost = 1 << 31

// Readings shorter than this many nanoseconds are not asked about.
const (
	shortestSwitch = 20_000
	shortestFault  = 900
)

var (
	noFaults bool
	asks     [1 << 10]struct{ switches, faults int64 } // what each thread was told last, by its number
)

// checked is a reading, in ticks, marked if it is lost.
func checked(ticks uint64) uint32 {
	suspect := shortestSwitch * perNs
	if noFaults {
		suspect = shortestFault * perNs
	}
	if float64(ticks) >= suspect && asked() {
		return uint32(ticks) | lost
	}
	return uint32(ticks)
}

// asked tells whether something to be left out happened to this thread since it was asked last: a switch that it did
// not want, or a fault.
func asked() bool {
	const ofThread = 1 // RUSAGE_THREAD
	var usage syscall.Rusage
	syscall.Getrusage(ofThread, &usage)
	last := &asks[syscall.Gettid()%len(asks)]
	found := usage.Nivcsw != last.switches || noFaults && usage.Minflt != last.faults
	last.switches, last.faults = usage.Nivcsw, usage.Minflt
	return found
}

// interruptions tells how often something takes the CPU away from a loop that does nothing, for longer than any step of
// the loop is: so many times a nanosecond. On virtual machines most of it shows in no account of the system's.
func interruptions(during time.Duration) float64 {
	const longest = 1000 // nanoseconds
	found, spent := 0, uint64(0)
	for last := tsc.Now(); float64(spent) < float64(during)*perNs; {
		now := tsc.Now()
		if gap := now - last; float64(gap) > longest*perNs {
			found++
		} else {
			spent += gap
		}
		last = now
	}
	return float64(found) / float64(during)
}

// mapped is anonymous memory outside the heap.
func mapped(bytes int, flags int) []byte {
	memory, err := syscall.Mmap(-1, 0, bytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE|flags)
	if err != nil {
		panic(err)
	}
	return memory
}

// array is a slice of n outside the heap, faulted in.
func array[T any](n int) []T {
	var one T
	return unsafe.Slice((*T)(unsafe.Pointer(&mapped((n+1)*int(unsafe.Sizeof(one)), syscall.MAP_POPULATE)[0])), n)
}

// Readings are counted by their ticks up to fine, from there on by octaves in so many parts each.
const (
	fine    = 1 << 16
	parts   = 1 << 8
	octaves = 64 - 16
)

// sample gathers readings of single calls, in ticks. It has no pointers: samples live in memory that the collector
// does not look at.
type sample struct {
	counts [fine]uint32 // of each reading, the overhead taken off
	beyond [octaves * parts]uint32
	most   uint64
	n      int
	sum    uint64
}

// add takes a reading with the overhead still in it, unless it is lost.
func (s *sample) add(reading uint32) {
	if reading&lost != 0 {
		return
	}
	ticks := uint64(reading)
	if ticks < overhead {
		ticks = overhead
	}
	ticks -= overhead
	s.n++
	s.sum += ticks
	if ticks > s.most {
		s.most = ticks
	}
	if ticks < fine {
		s.counts[ticks]++
	} else {
		s.beyond[long(ticks)]++
	}
}

// long is the part of an octave that a reading of fine or more is in.
func long(ticks uint64) int {
	octave := bits.Len64(ticks) - bits.Len(fine)
	return octave*parts + int(ticks>>(octave+bits.Len(fine)-bits.Len(parts))) - parts
}

// ticksOf is the middle of a part of an octave.
func ticksOf(long int) float64 {
	return (float64(parts+long%parts) + 0.5) * float64(uint64(fine/parts)<<(long/parts))
}

// quantile tells nanoseconds: the least reading that a share q of all does not exceed; none have none.
func (s *sample) quantile(q float64) float64 {
	left := int(q*float64(s.n) + 0.999999)
	if left < 1 {
		left = 1
	}
	for ticks, count := range s.counts {
		if left -= int(count); left <= 0 {
			return float64(ticks) / perNs
		}
	}
	for part, count := range s.beyond {
		if left -= int(count); left <= 0 {
			return math.Min(ticksOf(part), float64(s.most)) / perNs
		}
	}
	return math.NaN()
}

// upTo is the mean of the readings that a share q of all does not exceed.
func (s *sample) upTo(q float64) float64 {
	want := math.Ceil(q * float64(s.n))
	left, sum := want, 0.0
	take := func(ticks float64, count uint32) {
		taken := math.Min(left, float64(count))
		left, sum = left-taken, sum+taken*ticks
	}
	for ticks, count := range s.counts {
		take(float64(ticks), count)
	}
	for part, count := range s.beyond {
		take(ticksOf(part), count)
	}
	return sum / want / perNs
}

// merge adds the readings of another sample.
func (s *sample) merge(other *sample) {
	for ticks, count := range other.counts {
		s.counts[ticks] += count
	}
	for part, count := range other.beyond {
		s.beyond[part] += count
	}
	if other.most > s.most {
		s.most = other.most
	}
	s.n += other.n
	s.sum += other.sum
}

func (s *sample) mean() float64 { return float64(s.sum) / float64(s.n) / perNs }

// values are the columns that most tables share.
func (s *sample) values() map[string]float64 {
	return map[string]float64{
		"p10": s.quantile(0.10), "p50": s.quantile(0.50), "p90": s.quantile(0.90), "p99": s.quantile(0.99),
		"p999": s.quantile(0.999), "max": float64(s.most) / perNs, "mean": s.mean(),
	}
}

// sampled gathers readings; all of them, if most are lost.
func sampled(took []uint32) *sample {
	s := new(sample)
	for _, ticks := range took {
		s.add(ticks)
	}
	if 2*s.n < len(took) {
		return whole(took)
	}
	return s
}

// whole gathers readings with those that are lost.
func whole(took []uint32) *sample {
	s := new(sample)
	for _, ticks := range took {
		s.add(ticks &^ lost)
	}
	return s
}

// median of some numbers, which it sorts.
func median(numbers []float64) float64 {
	sort.Float64s(numbers)
	return (numbers[len(numbers)/2] + numbers[(len(numbers)-1)/2]) / 2
}
