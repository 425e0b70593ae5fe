// Command bench times the real runtime on the mix that allocsim is timed with: ten sizes in equal shares, half of the
// objects full of pointers, every object written once and dead after so many more mallocs, the collector off or on.
//
// One goroutine a P. Prints one JSON object: mallocs, nanoseconds from the first malloc to the last, Go's version.
package main

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
	"unsafe"
)

// filled allocates and fills an object of type T, an array of words.
func filled[T any](words int) unsafe.Pointer {
	object := unsafe.Pointer(new(T))
	for i := range unsafe.Slice((*uintptr)(object), words) {
		unsafe.Slice((*uintptr)(object), words)[i] = 1
	}
	return object
}

// linked does the same for an array of pointers, each to the object itself.
func linked[T any](words int) unsafe.Pointer {
	object := unsafe.Pointer(new(T))
	for i := range unsafe.Slice((*unsafe.Pointer)(object), words) {
		unsafe.Slice((*unsafe.Pointer)(object), words)[i] = object
	}
	return object
}

var makers = [20]func() unsafe.Pointer{
	func() unsafe.Pointer { return filled[[2]uintptr](2) },
	func() unsafe.Pointer { return filled[[3]uintptr](3) },
	func() unsafe.Pointer { return filled[[4]uintptr](4) },
	func() unsafe.Pointer { return filled[[6]uintptr](6) },
	func() unsafe.Pointer { return filled[[8]uintptr](8) },
	func() unsafe.Pointer { return filled[[12]uintptr](12) },
	func() unsafe.Pointer { return filled[[16]uintptr](16) },
	func() unsafe.Pointer { return filled[[32]uintptr](32) },
	func() unsafe.Pointer { return filled[[64]uintptr](64) },
	func() unsafe.Pointer { return filled[[128]uintptr](128) },
	func() unsafe.Pointer { return linked[[2]unsafe.Pointer](2) },
	func() unsafe.Pointer { return linked[[3]unsafe.Pointer](3) },
	func() unsafe.Pointer { return linked[[4]unsafe.Pointer](4) },
	func() unsafe.Pointer { return linked[[6]unsafe.Pointer](6) },
	func() unsafe.Pointer { return linked[[8]unsafe.Pointer](8) },
	func() unsafe.Pointer { return linked[[12]unsafe.Pointer](12) },
	func() unsafe.Pointer { return linked[[16]unsafe.Pointer](16) },
	func() unsafe.Pointer { return linked[[32]unsafe.Pointer](32) },
	func() unsafe.Pointer { return linked[[64]unsafe.Pointer](64) },
	func() unsafe.Pointer { return linked[[128]unsafe.Pointer](128) },
}

// work makes n mallocs; the ring holds what lives.
func work(n, lifetime int, seed uint64) {
	ring := make([]unsafe.Pointer, lifetime)
	at := 0
	for ; n > 0; n-- {
		seed ^= seed << 13
		seed ^= seed >> 7
		seed ^= seed << 17
		ring[at] = makers[(seed>>32)*20>>32]()
		if at++; at == lifetime {
			at = 0
		}
	}
	runtime.KeepAlive(ring)
}

func main() {
	procs := flag.Int("procs", 1, "GOMAXPROCS, and goroutines")
	mallocs := flag.Int("mallocs", 1_000_000, "mallocs of all goroutines together")
	lifetime := flag.Int("lifetime", 10_000, "mallocs of its goroutine until an object is dead")
	gogc := flag.Int("gogc", -1, "GOGC in percent, -1 for off")
	flag.Parse()
	if *procs < 1 || *mallocs < 1 || *lifetime < 1 {
		fmt.Fprintln(os.Stderr, "bench: every number must be at least 1")
		os.Exit(2)
	}
	debug.SetGCPercent(*gogc)
	runtime.GOMAXPROCS(*procs)
	var done sync.WaitGroup
	start := time.Now()
	for p := 0; p < *procs; p++ {
		share := *mallocs / *procs
		if p < *mallocs%*procs {
			share++
		}
		seed := uint64(p+1) * 0x9e3779b97f4a7c15
		done.Add(1)
		go func() {
			defer done.Done()
			work(share, *lifetime, seed)
		}()
	}
	done.Wait()
	took := time.Since(start)
	fmt.Printf("{\"mallocs\": %d, \"ns\": %d, \"go\": %q}\n", *mallocs, took.Nanoseconds(), runtime.Version())
}
