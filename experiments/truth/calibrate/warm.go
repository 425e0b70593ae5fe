package main

import (
	"math"
	"runtime"
	"unsafe"
)

const (
	largestMixed = 32 << 10
	batch        = 4096
	settling     = 4 // collections until as much dies as is born
)

// warm measures loops of mallocs in a heap of so many MiB, one type after the other: each loop fills memory that was
// written and freed before.
func warm() {
	for _, o := range mixable() {
		n := *mib << 20 / o.size
		runtime.GC()
		o.fill(n + 4*cachePages*page/o.size)
		var loops []float64
		for i := 0; i < *rounds; i++ {
			runtime.GC()
			loops = append(loops, spent(func() { o.loop(n) })/float64(n))
		}
		row("warm", []any{o.size, o.kind, *mib}, map[string]float64{"loop": median(loops)})
	}
}

// mixable are the types that size classes serve.
func mixable() []object {
	var found []object
	for _, o := range objects {
		if o.size <= largestMixed {
			found = append(found, o)
		}
	}
	return found
}

// mixed measures single calls as a program makes them: types in random order, smaller ones more often, in a heap of so
// many MiB, half of it alive and dying at random, that is collected and filled again. Calls that find a slot in the span
// of the type's last one are told apart from refills; those that touch new memory are left out.
func mixed() {
	noFaults = true
	kinds := mixable()
	draw := lottery(kinds)
	mixes := make([]mix, len(kinds))
	took, at, order := array[uint32](batch), array[uintptr](batch), array[uint8](batch)
	half, mean := *mib<<19, 0
	for i := 0; i < batch; i++ {
		mean += kinds[draw()].size
	}
	alive := make([]unsafe.Pointer, half/(mean/batch))
	random := xorshift(1)
	for round, left := -settling, 2*half; round < *rounds; {
		for i := range order {
			k := draw()
			order[i] = k
			kinds[k].calls(took[i:i+1], at[i:i+1])
			if random.next(2) == 0 {
				alive[random.next(len(alive))] = sink
			}
			left -= kinds[k].size
		}
		for i, k := range order {
			if round >= 0 {
				mixes[k].add(kinds[k], took[i], at[i])
			}
		}
		if left < 0 {
			runtime.GC()
			asked()
			left = half
			round++
		}
	}
	for k, o := range kinds {
		if mixes[k].hits.n > 0 {
			row("hit", []any{o.size, o.kind, *mib}, trimmed(&mixes[k].hits))
		}
		row("refilled", []any{o.size, o.kind, *mib}, trimmed(&mixes[k].refills))
	}
}

// lottery draws numbers of types, each as often as the root of its size is small.
func lottery(kinds []object) func() uint8 {
	const shares = 1 << 12
	sum := 0.0
	for _, o := range kinds {
		sum += 1 / math.Sqrt(float64(o.size))
	}
	won := make([]uint8, 0, shares)
	upTo := 0.0
	for k, o := range kinds {
		upTo += 1 / math.Sqrt(float64(o.size))
		for float64(len(won)) < shares*upTo/sum {
			won = append(won, uint8(k))
		}
	}
	random := xorshift(88172645463325252)
	return func() uint8 { return won[random.next(shares)] }
}

// mix gathers the calls of a type: those that find a slot in the span of its last object, and those that do not.
type mix struct {
	hits, refills sample
	first, last   uintptr // pages of that span
}

func (m *mix) add(o object, took uint32, address uintptr) {
	number := address / page
	if number >= m.first && number < m.last {
		m.hits.add(took)
		return
	}
	m.refills.add(took)
	m.first, m.last = number, number+uintptr(o.pages)
}

// trimmed are quantiles, and the mean of all but the last hundredth, in which the system's interruptions are.
func trimmed(s *sample) map[string]float64 {
	sum, n := 0.0, 0.0
	limit := s.quantile(0.99)
	for ticks, count := range s.counts {
		if float64(ticks)/perNs <= limit {
			sum += float64(ticks) * float64(count)
			n += float64(count)
		}
	}
	return map[string]float64{
		"p10": s.quantile(0.10), "p50": s.quantile(0.50), "p90": s.quantile(0.90), "p99": limit,
		"mean99": sum / n / perNs,
	}
}
