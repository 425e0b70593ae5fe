// Command replayer runs streams of operations that allocsim wrote on the real runtime and times each malloc.
//
// A stream file is mapped before anything begins, outside the Go heap. Static types come from a generated file
// (`makers`): one function for each size and pointer layout, so that the compiler emits the malloc that a program with
// such a type would have. Variables live in one table a stream, itself a Go object whose malloc is the first that is
// timed. Objects hold nil pointers only, but for trees, whose nodes are linked.
//
// Prints one JSON object; the histograms go to the file of -counts.
package main

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"allocsim/truth/memory"
	"allocsim/truth/tsc"
)

var started = time.Now()

// words maps a file of 64-bit words, all of it read before it returns: once from each page too, since a page that the
// system maps may be one that the host of a virtual machine still has to bring.
func words(name string) []uint64 {
	file, err := os.Open(name)
	check(err)
	info, err := file.Stat()
	check(err)
	data, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_PRIVATE|syscall.MAP_POPULATE)
	check(err)
	check(file.Close())
	all := unsafe.Slice((*uint64)(unsafe.Pointer(&data[0])), len(data)/8)
	for i := 0; i < len(all); i += page / 8 {
		lastRead = all[i]
	}
	return all
}

var lastRead uint64 // keeps the reads

// offHeap gives n zeroed words that the collector does not know, already in memory.
func offHeap(n int) []uint64 {
	data, err := syscall.Mmap(-1, 0, 8*n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON|syscall.MAP_POPULATE)
	check(err)
	return unsafe.Slice((*uint64)(unsafe.Pointer(&data[0])), n)
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "replayer:", err)
		os.Exit(1)
	}
}

// answer is what a run prints.
type answer struct {
	Go         string           `json:"go"`
	BegunNs    int64            `json:"begun_ns"` // after the program's start
	WallNs     int64            `json:"wall_ns"`
	UserNs     int64            `json:"user_ns"`
	SystemNs   int64            `json:"system_ns"`
	Faults     int64            `json:"minor_faults"`
	TickPs     float64          `json:"tick_ps"`
	OverheadPs float64          `json:"overhead_ps"`
	Mallocs    uint64           `json:"mallocs"`
	ByKind     []uint64         `json:"by_kind"`
	MallocPs   uint64           `json:"malloc_ps"`
	MallocMax  uint64           `json:"malloc_max_ps"`
	PauseMax   int64            `json:"pause_max_ns"` // of all cycles since it began
	TouchNs    float64          `json:"first_touch_ns"`
	Touches    uint64           `json:"first_touches"`
	DebtNs     float64          `json:"debt_ns"` // driver time that no compute was left to take up
	Cut        uint64           `json:"interruptions"`
	Live       int              `json:"live"`
	Requests   int              `json:"requests"`
	ResponsePs uint64           `json:"response_ps"`
	ResponseMx uint64           `json:"response_max_ps"`
	LatePs     uint64           `json:"late_ps"`
	LateMax    uint64           `json:"late_max_ps"`
	Profile    int              `json:"mem_profile_rate"`
	Begun      runtime.MemStats `json:"memstats_begun"`
	MemStats   runtime.MemStats `json:"memstats"`
	Metrics    map[string]any   `json:"metrics"`
}

// runtimeMetrics reads what the version has of the collector's, the scheduler's and the CPU's metrics.
func runtimeMetrics() map[string]any {
	var samples []metrics.Sample
	for _, one := range metrics.All() {
		if strings.HasPrefix(one.Name, "/gc/") || strings.HasPrefix(one.Name, "/cpu/") || strings.HasPrefix(one.Name, "/sched/") {
			samples = append(samples, metrics.Sample{Name: one.Name})
		}
	}
	metrics.Read(samples)
	found := map[string]any{}
	for _, one := range samples {
		switch one.Value.Kind() {
		case metrics.KindUint64:
			found[one.Name] = one.Value.Uint64()
		case metrics.KindFloat64:
			found[one.Name] = one.Value.Float64()
		case metrics.KindFloat64Histogram:
			found[one.Name] = filled(one.Value.Float64Histogram())
		}
	}
	return found
}

// filled gives the buckets that are not empty: text of their limits (which may be infinite), and counts.
func filled(h *metrics.Float64Histogram) [][3]any {
	rows := [][3]any{}
	for i, n := range h.Counts {
		if n > 0 {
			rows = append(rows, [3]any{fmt.Sprint(h.Buckets[i]), fmt.Sprint(h.Buckets[i+1]), n})
		}
	}
	return rows
}

func nanoseconds(t syscall.Timeval) int64 { return t.Nano() }

func main() {
	service := flag.Bool("service", false, "the stream is a service's requests")
	counts := flag.String("counts", "", "file for the histograms")
	quiet := flag.Duration("noise", 0, "measure the machine's interruptions on each CPU for so long, and nothing else")
	pages := flag.Int("pages", 0, "measure how long writes to so many pages take, the first time and after, and nothing else")
	pass := flag.Duration("pass", 0, "time between two writes to a page")
	during := flag.Duration("for", 0, "write to pages again for so long")
	flag.Parse()
	clock = newClock()
	if *quiet > 0 {
		check(json.NewEncoder(os.Stdout).Encode(noise(*quiet)))
		return
	}
	if *pages > 0 {
		found, err := memory.Withheld(memory.Clock{PerNs: 1000 / clock.tickPs, Overhead: clock.overhead}, *pages, *pass, *during)
		check(err)
		check(json.NewEncoder(os.Stdout).Encode(found))
		return
	}
	var run func()
	var streams []*stream
	var served *server
	if *service {
		served = newServer(flag.Arg(0))
		streams, run = []*stream{served.all}, served.run
	} else {
		for _, name := range flag.Args() {
			streams = append(streams, newWorker(name))
		}
		run = func() { runWorkers(streams) }
	}
	found := measure(run)
	report(found, streams, served)
	if *counts != "" {
		check(writeCounts(*counts, streams, served))
	}
	check(json.NewEncoder(os.Stdout).Encode(found))
}

// measure runs something between readings of what the system and the runtime counted.
func measure(run func()) *answer {
	var before, after syscall.Rusage
	found := &answer{Go: runtime.Version(), TickPs: clock.tickPs, Profile: runtime.MemProfileRate}
	runtime.ReadMemStats(&found.Begun)
	pauses.known = int64(found.Begun.NumGC)
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &before))
	begun := time.Now()
	found.BegunNs = begun.Sub(started).Nanoseconds()
	run()
	found.WallNs = time.Since(begun).Nanoseconds()
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &after))
	runtime.ReadMemStats(&found.MemStats)
	found.PauseMax = pauses.longest()
	debug.SetGCPercent(-1) // no cycle of what follows
	found.Metrics = runtimeMetrics()
	found.UserNs = nanoseconds(after.Utime) - nanoseconds(before.Utime)
	found.SystemNs = nanoseconds(after.Stime) - nanoseconds(before.Stime)
	found.Faults = int64(after.Minflt - before.Minflt)
	found.OverheadPs = float64(clock.overhead) * clock.tickPs
	return found
}

// report adds up what the streams counted.
func report(found *answer, streams []*stream, served *server) {
	found.ByKind = make([]uint64, len(makers)+1)
	for _, s := range streams {
		for kind, n := range s.byKind {
			found.ByKind[kind] += n
			found.Mallocs += n
		}
		found.MallocPs += s.mallocs.total
		found.MallocMax = max(found.MallocMax, s.mallocs.maximum)
		found.TouchNs += float64(s.touchTicks) * clock.tickPs / 1000
		found.Touches += s.touches
		found.DebtNs += float64(s.unpaid) * clock.tickPs / 1000
		found.Cut += s.cut
		for _, p := range s.table {
			if p != nil {
				found.Live++
			}
		}
		runtime.KeepAlive(s)
	}
	if served != nil {
		found.Requests = served.requests
		found.ResponsePs, found.ResponseMx = served.responses.total, served.responses.maximum
		found.LatePs, found.LateMax = served.late.total, served.late.maximum
	}
}

func max(a, b uint64) uint64 {
	if a > b {
		return a
	}
	return b
}

// writeCounts writes the histograms of mallocs (all streams together), responses and late starts, one after the other.
func writeCounts(name string, streams []*stream, served *server) error {
	all := make([]uint64, 0, 3*buckets)
	sum := make([]uint64, buckets)
	for _, s := range streams {
		for i, n := range s.mallocs.counts {
			sum[i] += n
		}
	}
	all = append(all, sum...)
	if served != nil {
		all = append(append(all, served.responses.counts...), served.late.counts...)
	}
	data := make([]byte, 8*len(all))
	for i, n := range all {
		binary.LittleEndian.PutUint64(data[8*i:], n)
	}
	return os.WriteFile(name, data, 0o666)
}

// newClock measures the time-stamp counter.
func newClock() tscClock {
	tickPs := 1000 / tsc.PerNs(200*time.Millisecond)
	ticks := func(ns float64) uint64 { return uint64(1000 * ns / tickPs) }
	return tscClock{tickPs: tickPs, overhead: tsc.Overhead(), longest: ticks(longestDriver), touch: ticks(longestTouch), nominal: ticks(nominalDriver)}
}
