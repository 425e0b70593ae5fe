// Command calibrate measures what the paths of this toolchain's allocator cost on this machine: one mode a process, so
// that each begins with a fresh heap. It prints one JSON object a line: a row of a table of the machine file.
//
// Collection is off unless a mode says otherwise. Times of single calls have the clock's own overhead taken off, and
// what falls below zero by that counts as zero; calls during which the system gave the CPU away are left out. The file
// objects.go, with a loop for each type of object, is written when the program is built
// (experiments/calibrate_objects.py): the compiler calls specialised mallocs for types that it knows, and none in
// generic code. So is globals.go, with globals or without (experiments/calibrate_globals.py).
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"time"
	"unsafe"

	"allocsim/truth/tsc"
)

var (
	size   = flag.Int("size", 0, "bytes of an object, as its size class has them")
	kind   = flag.String("kind", "noscan", "scan or noscan")
	mib    = flag.Int("mib", 64, "MiB of objects, or of memory")
	calls  = flag.Int("calls", 1<<20, "single calls measured at most")
	refill = flag.Bool("refill", false, "tell refills by source")
	part   = flag.Bool("partial", false, "and those from swept spans in use")
	shape  = flag.String("shape", "", "shape of the heap that is marked")
	order  = flag.Bool("inorder", false, "the oldest object dies first")
	unison = flag.Bool("unison", false, "all that is alive dies at once")
	most   = flag.Int("most", largest, "bytes of the largest of mixed types")
	near   = flag.Bool("near", false, "tell refills by how near their spans are")
	alone  = flag.Bool("alone", false, "one goroutine allocates, however many Ps there are")
	rounds = flag.Int("rounds", 3, "collections, loops or batches")
)

// object is a type of object and what is done with it; objects.go has the list.
type object struct {
	size  int
	kind  string
	pages int // of Go, in a span of the class
	loop  func(n int)
	calls func(took []uint32, at []uintptr) unsafe.Pointer // the last one
	fill  func(n int)
	one   func() unsafe.Pointer
}

// slots are the objects that a span of the class holds, as far as it matters here: one, or more.
func (o object) slots() int { return o.pages * page / o.size }

// sink keeps the compiler from putting objects on the stack; the one before is dead.
var sink unsafe.Pointer

var target byte // what written pointers point to

var modes = map[string]func(){
	"small":      small,
	"warm":       warm,
	"mixed":      mixed,
	"steady":     steady,
	"large":      large,
	"goroutines": goroutines,
	"sweep":      sweep,
	"mark":       mark,
	"globals":    globals,
	"stacks":     stacks,
	"profile":    profile,
	"fault":      fault,
	"faults":     faults,
	"lock":       lock,
	"futex":      futex,
	"madvise":    madvise,
	"barrier":    barrier,
	"reference":  reference,
	"touch":      touch,
}

// row prints a row of a table: its key and its values by column. A value that is no number ends the process: a row that
// silently was not there would be taken for one that was not to be measured.
func row(table string, key []any, values map[string]float64) {
	err := json.NewEncoder(os.Stdout).Encode(map[string]any{"table": table, "key": key, "values": values})
	if err != nil {
		fmt.Fprintf(os.Stderr, "calibrate: row %v of %s: %v\n", key, table, err)
		os.Exit(1)
	}
}

// chosen is the object that the flags ask for.
func chosen() object {
	for _, o := range objects {
		if o.size == *size && o.kind == *kind {
			return o
		}
	}
	panic(fmt.Sprint("no object of size ", *size, ", ", *kind))
}

func main() {
	if len(os.Args) < 2 || modes[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "calibrate: the first argument is a mode")
		os.Exit(2)
	}
	flag.CommandLine.Parse(os.Args[2:])
	debug.SetGCPercent(-1)
	perNs, overhead = tsc.PerNs(20*time.Millisecond), tsc.Overhead()
	modes[os.Args[1]]()
}
