package main

import (
	"math"
	"runtime"
	"time"
	"unsafe"
)

const (
	largestMixed  = 32 << 10
	batch         = 4096
	settling      = 4 // collections until as much dies as is born
	spinning      = 50 * time.Millisecond
	mostDisturbed = 0.2 // of the calls
	fewest        = 200 // readings that a row is told from: two of them are its last hundredth
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
// many MiB, half of it alive and dying at random, that is collected and filled again; a goroutine for each P. Calls that
// find a slot in the span of the type's last one are told apart from refills; those that touch new memory are left out.
func mixed() {
	noFaults = true
	often := interruptions(spinning)
	kinds, procs := mixable(), runtime.GOMAXPROCS(0)
	mixers := make([]*mixer, procs)
	begin, done := make(chan bool), make(chan bool)
	for i := range mixers {
		mixers[i] = newMixer(kinds, *mib<<19/procs, uint64(i+1))
		go mixers[i].work(begin, done)
	}
	for round := -settling; round < *rounds; round++ {
		for range mixers {
			begin <- round >= 0
		}
		for range mixers {
			<-done
		}
		runtime.GC()
	}
	for k, o := range kinds {
		var hits, refills sample
		for _, m := range mixers {
			hits.merge(&m.mixes[k].hits)
			refills.merge(&m.mixes[k].refills)
		}
		if hits.n >= fewest {
			row("hit", []any{o.size, o.kind, *mib, procs}, undisturbed(&hits, often))
		}
		if refills.n >= fewest {
			row("refilled", []any{o.size, o.kind, *mib, procs}, undisturbed(&refills, often))
		}
	}
}

// mixer is one of the goroutines, with its part of what is alive.
type mixer struct {
	kinds  []object
	draw   func() uint8
	random xorshift
	alive  []unsafe.Pointer
	mixes  []mix
	part   int // bytes between two collections, as many as are alive
	took   []uint32
	at     []uintptr
	order  []uint8
}

func newMixer(kinds []object, part int, seed uint64) *mixer {
	m := &mixer{kinds: kinds, draw: lottery(kinds, seed), random: xorshift(seed), part: part}
	m.took, m.at, m.order = array[uint32](batch), array[uintptr](batch), array[uint8](batch)
	m.mixes = array[mix](len(kinds))
	bytes := 0
	for i := 0; i < batch; i++ {
		bytes += kinds[m.draw()].size
	}
	m.alive = make([]unsafe.Pointer, part/(bytes/batch))
	return m
}

// work allocates a part each time it may begin, and counts the calls if it is told so.
func (m *mixer) work(begin <-chan bool, done chan<- bool) {
	runtime.LockOSThread()
	for counts := range begin {
		asked()
		for left := m.part; left > 0; {
			n := 0
			for ; n < batch && left > 0; n++ {
				k := m.draw()
				m.order[n] = k
				left -= m.kinds[k].size
				p := m.kinds[k].calls(m.took[n:n+1], m.at[n:n+1])
				if m.random.next(2) == 0 {
					m.alive[m.random.next(len(m.alive))] = p
				}
			}
			for i, k := range m.order[:n] {
				if counts {
					m.mixes[k].add(m.kinds[k], m.took[i], m.at[i])
				}
			}
		}
		done <- true
	}
}

// lottery draws numbers of types, each as often as the root of its size is small.
func lottery(kinds []object, seed uint64) func() uint8 {
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
	random := xorshift(88172645463325252 + seed)
	return func() uint8 { return won[random.next(shares)] }
}

// mix gathers the calls of a type: those that find a slot in the span of its last object, and those that do not.
type mix struct {
	hits, refills sample
	first, last   uintptr // pages of that span
}

func (m *mix) add(o object, took uint32, address uintptr) {
	number := address / page
	if o.slots() > 1 && number >= m.first && number < m.last { // the one slot again is a span of its own
		m.hits.add(took)
		return
	}
	m.refills.add(took)
	m.first, m.last = number, number+uintptr(o.pages)
}

// undisturbed are quantiles, and the mean of all but the last hundredth, of the calls that nothing interrupted: of all, as
// many as fall into their time are left out, the longest ones. An interruption is longer than most calls.
func undisturbed(s *sample, perNs float64) map[string]float64 {
	share := 1 - math.Min(perNs*s.quantile(0.5), mostDisturbed)
	return map[string]float64{
		"p10": s.quantile(0.10 * share), "p50": s.quantile(0.50 * share), "p90": s.quantile(0.90 * share),
		"p99": s.quantile(0.99 * share), "mean99": s.upTo(0.99 * share),
	}
}
