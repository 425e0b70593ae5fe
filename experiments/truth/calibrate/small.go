package main

import (
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"
)

const (
	page       = 8192
	cachePages = 64 // of a P's page cache
	steadyLoop = 10 * time.Millisecond
)

// small measures mallocs of one type, of which n fill the memory asked for: a loop of them and single calls, each on
// memory never touched; the same on memory that was written and freed before.
func small() {
	o := chosen()
	n := *mib << 20 / o.size
	took := array[uint32](least(n, *calls))
	at := array[uintptr](len(took))
	values := map[string]float64{"cold_loop": spent(func() { o.loop(n) }) / float64(n)}
	o.calls(took, at)
	values["cold_p50"], values["cold_p999"] = sampled(took).quantile(0.50), sampled(took).quantile(0.999)
	tell(o, "cold", took, at)

	runtime.GC() // the next loop writes the same memory and some more, since pages are found from the lowest up
	o.fill(n + 4*cachePages*page/o.size)
	runtime.GC()
	values["warm_loop"] = spent(func() { o.loop(n) }) / float64(n)
	runtime.GC()
	o.calls(took, at)
	values["warm_p50"], values["warm_p90"] = sampled(took).quantile(0.50), sampled(took).quantile(0.90)
	tell(o, "warm", took, at)
	row("loop", []any{o.size, o.kind}, values)
	if *part {
		partial(o, took, at)
	}
}

// tell prints refills by source, if that is asked for: the first call with an object in another span than the one
// before is a refill, and the span's page tells where its pages came from.
func tell(o object, mode string, took []uint32, at []uintptr) {
	if !*refill {
		return
	}
	found := map[string]*sample{}
	var first, last, touched uintptr // pages of the span, and the 4 KiB page of the object before
	for i, address := range at {
		source := "same span"
		if number := address / page; number < first || number >= last {
			first, last = number, number+uintptr(o.pages)
			source = origin(mode, number)
		} else if address>>12 != touched {
			source = "same span, new 4 KiB page"
		}
		touched = address >> 12
		if took[i]&lost != 0 {
			continue
		}
		if found[source] == nil {
			found[source] = new(sample)
		}
		found[source].add(took[i])
	}
	for source, s := range found {
		row("refill", []any{mode, class(o), source}, map[string]float64{
			"n": float64(s.n), "p50": s.quantile(0.50), "p90": s.quantile(0.90), "mean": s.mean(),
		})
	}
}

// class is the name of a type's size class: n64 without pointers, p64 with some.
func class(o object) string {
	if o.kind == "scan" {
		return "p" + itoa(o.size)
	}
	return "n" + itoa(o.size)
}

func origin(mode string, number uintptr) string {
	switch {
	case mode == "partial":
		return "partial swept"
	case number%8192 == 0:
		return "64 MiB arena"
	case number%512 == 0:
		return "4 MiB chunk"
	case number%cachePages == 0:
		return "page cache refill"
	}
	return "page cache"
}

// partial measures calls while refills find swept spans in which one object is alive.
func partial(o object, took []uint32, at []uintptr) {
	runtime.GC()
	spans := *mib << 20 / page / o.pages / 2
	kept := make([]unsafe.Pointer, 0, spans)
	var first, last uintptr
	objects := 0
	for ; len(kept) < spans; objects++ {
		p := o.one()
		if number := uintptr(p) / page; number < first || number >= last {
			first, last = number, number+uintptr(o.pages)
			kept = append(kept, p)
		}
	}
	runtime.GC()
	free := (objects - spans) * 9 / 10 // not to the last one: fresh spans would follow
	if free < len(took) {
		took, at = took[:free], at[:free]
	}
	o.calls(took, at)
	tell(o, "partial", took, at)
	runtime.KeepAlive(kept)
}

// steady measures loops with collection at GOGC=100 and nothing alive.
func steady() {
	debug.SetGCPercent(100)
	for _, o := range objects {
		if o.size > 32<<10 {
			continue
		}
		n := 4 << 20 / o.size
		for begin := time.Now(); time.Since(begin) < steadyLoop; {
			o.loop(n)
		}
		var loops []float64
		for i := 0; i < *rounds; i++ {
			many, begin := 0, time.Now()
			took := spent(func() {
				for ; many == 0 || time.Since(begin) < steadyLoop; many += n {
					o.loop(n)
				}
			})
			loops = append(loops, took/float64(many))
		}
		row("steady", []any{o.size, o.kind}, map[string]float64{"loop": median(loops)})
	}
}

// large measures single calls for objects beyond the size classes, on memory never touched and on recycled memory.
func large() {
	o := chosen()
	n := *mib << 20 / o.size
	took, at := array[uint32](n), array[uintptr](n)
	o.calls(took, at)
	row("large", []any{"cold", o.size, o.kind}, sampled(took).values())
	runtime.GC()
	o.fill(n + 1)
	runtime.GC()
	o.calls(took, at)
	row("large", []any{"warm", o.size, o.kind}, sampled(took).values())
}

func least(a, b int) int {
	if a < b {
		return a
	}
	return b
}
