package main

import (
	"runtime"
	"time"
	"unsafe"
)

// Objects of one shape of heap: the first word points on, the others are nil pointers.
type (
	pair     [2]unsafe.Pointer
	line     [8]unsafe.Pointer
	leaf     [8]uint64
	half     [64]unsafe.Pointer
	eighth   [127]unsafe.Pointer // 1 KiB with a malloc header
	quarter  [255]unsafe.Pointer // 2 KiB
	pointers [1 << 17]unsafe.Pointer
)

// xorshift: the next pseudo-random number.
type xorshift uint64

func (x *xorshift) next(n int) int {
	*x ^= *x << 13
	*x ^= *x >> 7
	*x ^= *x << 17
	return int(uint64(*x) % uint64(n))
}

func shuffle(objects []unsafe.Pointer) {
	random := xorshift(88172645463325252)
	for i := len(objects) - 1; i > 0; i-- {
		j := random.next(i + 1)
		objects[i], objects[j] = objects[j], objects[i]
	}
}

// written makes an object and writes all of it: what is only read of memory never written is the system's one page of
// zeros, which is always in the cache.
func written[T any]() unsafe.Pointer {
	p := unsafe.Pointer(new(T))
	sink = p // or the compiler would leave the zeros out
	for at := uintptr(0); at < unsafe.Sizeof(*new(T)); at += 8 {
		*(*uintptr)(unsafe.Add(p, at)) = 0
	}
	return p
}

// many makes n objects and an array of pointers to them.
func many(n int, one func() unsafe.Pointer) []unsafe.Pointer {
	objects := make([]unsafe.Pointer, n)
	for i := range objects {
		objects[i] = one()
	}
	return objects
}

// list links n objects in the order given; their first words are written.
func list(objects []unsafe.Pointer) unsafe.Pointer {
	for i := 0; i+1 < len(objects); i++ {
		*(*unsafe.Pointer)(objects[i]) = objects[i+1]
	}
	return objects[0]
}

func tree(depth int) *pair {
	node := (*pair)(written[pair]())
	if depth > 1 {
		node[0], node[1] = unsafe.Pointer(tree(depth-1)), unsafe.Pointer(tree(depth-1))
	}
	return node
}

// heap builds a heap of so many bytes; what keeps it alive, and its number of objects.
func heap(bytes int) (any, int) {
	of := func(one func() unsafe.Pointer, each int, shuffled bool) ([]unsafe.Pointer, int) {
		objects := many(bytes/each, one)
		if shuffled {
			shuffle(objects)
		}
		return objects, len(objects)
	}
	switch *shape {
	case "list16":
		objects, n := of(written[pair], 16, false)
		return list(objects), n
	case "list64", "list64shuf":
		objects, n := of(written[line], 64, *shape == "list64shuf")
		return list(objects), n
	case "tree16":
		depth := 1
		for 16<<(depth+1) <= bytes {
			depth++
		}
		return tree(depth), 1<<depth - 1
	case "objs64", "objs64shuf":
		return of(written[line], 64+8, *shape == "objs64shuf")
	case "leaf64", "leaf64shuf":
		return of(written[leaf], 64+8, *shape == "leaf64shuf")
	case "objs512", "objs512shuf":
		return of(written[half], 512+8, *shape == "objs512shuf")
	case "objs1024", "objs1024shuf":
		return of(written[eighth], 1024+8, *shape == "objs1024shuf")
	case "objs2048", "objs2048shuf":
		return of(written[quarter], 2048+8, *shape == "objs2048shuf")
	case "ptrs1M":
		return of(written[pointers], 1<<20, false)
	}
	panic("no shape " + *shape)
}

// mark collects a heap of one shape some times. What marking took is told by the runtime (GODEBUG=gctrace=1): the last
// lines, as many as there are rounds, are those of the rounds.
func mark() {
	alive, n := heap(*mib << 20)
	runtime.GC() // what building it left behind
	for i := 0; i < *rounds; i++ {
		runtime.GC()
	}
	runtime.ReadMemStats(new(runtime.MemStats)) // waits for the last line to be written
	row("mark", []any{*shape, *mib, runtime.GOMAXPROCS(0)}, map[string]float64{"objects": float64(n)})
	runtime.KeepAlive(alive)
}

// globals measures a collection of a program that has the table of globals.go, or none: it is built with either.
func globals() {
	runtime.GOMAXPROCS(1)
	const word = unsafe.Sizeof(uintptr(0))
	for at := uintptr(0); at < unsafe.Sizeof(table); at += word {
		*(*uintptr)(unsafe.Add(unsafe.Pointer(&table), at)) = 0
	}
	for i := range table {
		for _, at := range aimed {
			*(*uintptr)(unsafe.Add(unsafe.Pointer(&table[i]), at)) = uintptr(unsafe.Pointer(&target))
		}
	}
	which := "without"
	if len(table) > 0 {
		which = "with"
	}
	row("globals", []any{which}, map[string]float64{"bytes": float64(unsafe.Sizeof(table)), "gc": collection()})
}

// parked waits ten frames deep.
//
//go:noinline
func parked(depth int) int {
	if depth == 0 {
		blocked()
		return 0
	}
	return parked(depth-1) + 1
}

// stacks measures what ten thousand parked goroutines add to a collection, each.
func stacks() {
	const n = 10_000
	runtime.GOMAXPROCS(1)
	without := collection()
	for i := 0; i < n; i++ {
		go parked(10)
		if i%64 == 0 {
			runtime.Gosched()
		}
	}
	time.Sleep(10 * time.Millisecond)
	row("steps", []any{"mark_stack"}, map[string]float64{"ns": (collection() - without) / n})
}

// collection tells how long one takes: the median of some.
func collection() float64 {
	runtime.GC()
	runtime.GC() // the second one finds stacks as large as they are going to be
	var took []float64
	for i := 0; i < 2*(*rounds)+1; i++ {
		took = append(took, spent(runtime.GC))
	}
	return median(took)
}

// profile measures what recording a malloc ten frames deep in the heap profile adds to it.
func profile() {
	*size, *kind = 64, "noscan"
	o := chosen()
	const n = 1 << 14
	var with, without []float64
	for i := 0; i < 2*(*rounds)+1; i++ {
		runtime.MemProfileRate = 0
		without = append(without, spent(func() { below(10, func() { o.loop(n) }) })/n)
		runtime.MemProfileRate = 1
		with = append(with, spent(func() { below(10, func() { o.loop(n) }) })/n)
	}
	runtime.MemProfileRate = 0
	if records, _ := runtime.MemProfile(nil, true); records == 0 {
		panic("nothing was recorded")
	}
	row("steps", []any{"profile_sample"}, map[string]float64{"ns": median(with) - median(without)})
}

//go:noinline
func below(depth int, f func()) int {
	if depth == 0 {
		f()
		return 0
	}
	return below(depth-1, f) + 1
}
