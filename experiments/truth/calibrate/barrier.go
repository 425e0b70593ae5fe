package main

import (
	"runtime"
	"runtime/debug"

	"allocsim/truth/tsc"
)

const (
	writes = 256 // of variables between two looks at the clock: they fill the barrier's buffer once or twice
	chunks = 4096
)

// node is an object that variables hold.
type node struct {
	next  *node
	words [7]uint64
}

// barrier measures what a variable that is given a new object takes longer while the collector marks: the write barrier notes
// what it held and what it holds, and empties its buffer when it is full. Variables are the elements of an array, written in
// no order, in a heap of so many MiB, half of it alive. Times that something else got into are left out.
func barrier() {
	variables := make([]*node, *mib<<19/64)
	for i := range variables {
		variables[i] = new(node)
	}
	debug.SetGCPercent(100)
	var took [2]*sample // before and while marking
	for i := range took {
		took[i] = &array[sample](1)[0]
	}
	var fresh [writes]*node
	draw := uint64(1)
	for took[0].n < chunks || took[1].n < chunks {
		for i := range fresh {
			fresh[i] = new(node) // no write of a pointer to the heap
		}
		marking := writeBarrier & 1
		begin := tsc.Now()
		for _, one := range fresh {
			draw = draw*6364136223846793005 + 1442695040888963407
			variables[draw>>33%uint64(len(variables))] = one
		}
		ticks := tsc.Now() - begin
		if writeBarrier&1 == marking {
			took[marking].add(checked(ticks))
		}
	}
	const pointers = 2 * writes
	note := (took[1].quantile(0.5) - took[0].quantile(0.5)) / pointers
	row("write_barrier", []any{*mib, runtime.GOMAXPROCS(0)}, map[string]float64{"note": note})
}
