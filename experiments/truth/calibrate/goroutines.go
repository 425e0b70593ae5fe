package main

import (
	"runtime"
	"strconv"
	"unsafe"

	"allocsim/truth/tsc"
)

const reusable = 32 // goroutines that a P keeps for itself when they have ended

func itoa(n int) string { return strconv.Itoa(n) }

func nothing() {}

var never = make(chan bool)

func blocked() { <-never }

// goroutines measures go statements, lives of goroutines, the growth of their stacks and a stop of the world, on one P.
func goroutines() {
	runtime.GOMAXPROCS(1)
	started("new", 64, *rounds*64, blocked)
	started("reused", reusable, *rounds*64, nothing)
	lives()
	for _, kib := range []int{2, 5, 17, 65} {
		growth(kib, *rounds)
	}
	took, stats := array[uint32](*rounds), new(runtime.MemStats)
	for i := range took {
		begin := tsc.Now()
		runtime.ReadMemStats(stats)
		took[i] = checked(tsc.Now() - begin)
	}
	row("stop_the_world", []any{"ReadMemStats"}, sampled(took).values())
}

// started measures n go statements by themselves; what was started runs after each batch.
func started(what string, batch, n int, body func()) {
	took := array[uint32](n / batch * batch)
	for i := 0; i < batch && what == "reused"; i++ {
		go body()
	}
	runtime.Gosched()
	for i := range took {
		begin := tsc.Now()
		go body()
		took[i] = checked(tsc.Now() - begin)
		if (i+1)%batch == 0 {
			runtime.Gosched()
		}
	}
	row("goroutine", []any{what}, sampled(took).values())
}

// lives measures starting, running and ending goroutines that do nothing.
func lives() {
	n := *rounds * 64
	took := spent(func() {
		for i := 1; i <= n; i++ {
			go nothing()
			if i%reusable == 0 {
				runtime.Gosched()
			}
		}
	})
	row("spawn", []any{"spawn+run+exit"}, map[string]float64{"mean": took / float64(n)})
}

var frames [2]uintptr // where frames of deep lie

//go:noinline
func deep(n int) uintptr {
	var frame [24]uintptr
	frame[n%24] = uintptr(n)
	frames[n&1] = uintptr(unsafe.Pointer(&frame))
	if n == 0 {
		return frame[5]
	}
	return deep(n-1) + frame[n%24]
}

// growth measures the first call of a recursion that needs so much stack less the second, in goroutines that begin
// with 2 KiB.
func growth(kib, n int) {
	deep(1)
	levels := kib << 10 / int(frames[1]-frames[0])
	s, done := new(sample), make(chan uint32)
	for i := 0; i < n; i++ {
		go func() {
			begin := tsc.Now()
			deep(levels)
			middle := tsc.Now()
			deep(levels)
			end := tsc.Now()
			first, second := middle-begin+overhead, end-middle
			if checked(end-begin)&lost != 0 {
				done <- lost
			} else if first > second {
				done <- uint32(first - second)
			} else {
				done <- 0
			}
		}()
		s.add(<-done)
	}
	row("stack_growth", []any{kib}, s.values())
}
