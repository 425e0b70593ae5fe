package main

import (
	"math"
	"runtime"
	"runtime/debug"
	"time"
	"unsafe"

	"allocsim/truth/memory"
	"allocsim/truth/tsc"
)

const (
	largest        = 32 << 10 // of mixed types
	batch          = 4096
	settling       = 4 // parts until as much dies as is born
	spinning       = 50 * time.Millisecond
	thinking       = 250 // nanoseconds between two mallocs, besides writing to the object
	cacheLine      = 64
	mostDisturbed  = 0.2                    // of the calls
	fewest         = 200                    // readings that a row is told from: two of them are its last hundredth
	longestRefill  = 20_000                 // nanoseconds: what takes longer waits for memory that the host took
	shortestAssist = 4000                   // nanoseconds; half of one a byte more is for clearing
	writing        = 400 * time.Millisecond // to pages again
	longestTurn    = 500 * time.Millisecond // of writes to all of them
	tinyBlock      = 16                     // bytes of a slot that small objects without pointers share
	largestInline  = 512                    // slots of spans that may hold their own bitmaps,
	inline         = 128                    // in so many bytes
	nearPages      = 8                      // up to so many from the type's last span a refill's is near it
	whileMarking   = 0x80                   // with the number of a type: the collector marked when that malloc began
)

// Hits are told apart by how many other mallocs were since the type's last: the more, the less of what malloc reads is at
// hand and the less of what it does was foreseen. (The slowest tenth of 64 B objects with pointers took 18 ns after up to 3
// others, 23 after up to 7, 42 after up to 15, 57 after up to 31 and 63 after more.) While the collector marks what counts is whether the slot follows the
// last one: part of it may be in the cache for that reason, and setting the mark bit waits for the rest. In a span that came
// back with nothing alive in it no other CPU has read what lies beside the slot, nor sets mark bits beside its own. And where all
// types are small, less lies between two of one type, and less varied: the slowest tenth of 16 B objects with pointers took
// 38 ns after up to 31 others, where the others were of up to 32 KiB 58.
const (
	few  = 8 // fewer others than that
	some = 32
)

var (
	sinceLast = [...]string{"to 7 others", "to 31 others", "more others"}
	place     = [...]string{"marking, next slot to 7 others", "marking, next slot", "marking, another slot"}
	empty     = [...]string{"marking, empty span to 7 others", "marking, empty span"} // and the next slot
)

// what is counted in a round
const (
	ofNothing = iota
	ofRefills
	ofHits
	ofSweeps
)

// writeBarrier is the runtime's; its first byte is 1 while the collector marks.
//
//go:linkname writeBarrier runtime.writeBarrier
var writeBarrier uint32

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
		if o.size <= *most {
			found = append(found, o)
		}
	}
	return found
}

// mixed measures single calls as a program makes them: types in random order, smaller ones more often, each object written
// and then something else done for a while, in a heap of so many MiB, half of it alive and dying at random; a goroutine
// for each P. Without the work in between the CPU would begin a malloc
// before it has finished the last, and find all that malloc reads in its first cache. Calls that find a slot in the span
// of the type's last one are counted while the collector keeps the heap as it would anybody's, those while it marks
// apart, but for those that mark themselves; all others, which refill, while it is collected and swept between
// two rounds, so that none of them sweeps: a span that gives all its slots was a fresh one, any other a swept one with
// room. Those that touch new memory are left out. What is alive in the end is told by
// type, for what the runtime says of marking it, and how long memory that the host took has to be waited for. With -inorder the oldest dies, not any: nothing is told then but by the
// runtime, of marking what it finds in the order in which it was allocated. With -alone there is one goroutine: the other Ps only
// mark and sweep; of calls the same is told, as another table's, and of nothing else. With -unison all objects live until as
// much is alive as may be, and die then, so that spans come back empty; nothing but what hits take is told. With -most types are no
// larger than that, and all die at once while refills are counted: small objects have many in a span, so that few refill, long after
// the last. Of those hits are told, and refills with fresh spans. With -near objects die at random, and nothing is told but how long
// refills from swept spans take by how near their span is to the type's last one, which is seldom where types are many.
func mixed() {
	noFaults = true
	often := interruptions(spinning)
	kinds, procs := mixable(), runtime.GOMAXPROCS(0)
	mixers := make([]*mixer, procs)
	if *alone {
		mixers = mixers[:1]
	}
	begin, done := make(chan int), make(chan bool)
	for i := range mixers {
		mixers[i] = newMixer(kinds, *mib<<19/len(mixers), uint64(i+1))
		go mixers[i].work(begin, done)
	}
	round := func(counted int) {
		for range mixers {
			begin <- counted
		}
		for range mixers {
			<-done
		}
	}
	whole, before, refilling := !*unison && *most == largest, settling, *rounds
	if *unison {
		refilling = 0
	} else if dieTogether(ofRefills) {
		before = 1 // there is no balance to settle
	}
	for i := -before; i < refilling; i++ {
		if i < 0 {
			round(ofNothing)
		} else {
			round(ofRefills)
		}
		runtime.GC() // which sweeps, too
	}
	if *near {
		tellNear(kinds, mixers)
		return
	}
	debug.SetGCPercent(100)
	begun := time.Now()
	for i := 0; i < *rounds; i++ {
		round(ofHits)
	}
	turn := time.Since(begun) / time.Duration(*rounds)
	if !*order && whole {
		for i := 0; i < *rounds; i++ {
			round(ofSweeps)
		}
	}
	debug.SetGCPercent(-1)
	if *order {
		runtime.ReadMemStats(new(runtime.MemStats)) // waits for the runtime's last line
		return
	}
	ending := "_alone"
	if !*alone {
		ending = ""
	}
	if !whole {
		tellHits(kinds, mixers, ending, often)
		return
	}
	if !*alone {
		row("withheld", []any{*mib, procs}, map[string]float64{"wait": withheld(turn)})
	}
	tellSwept("swept"+ending, mixers, procs, often)
	for k, o := range kinds {
		alive := 0
		for _, m := range mixers {
			for i, p := range m.alive {
				if p != nil && int(m.aliveOf[i]) == k {
					alive++
				}
			}
		}
		calls := gathered(mixers, k)
		tell := func(name string, calls *sample, key ...any) { tellCalls(name+ending, o, calls, often, key...) }
		for i := range calls.hits {
			tell("hit_after", &calls.hits[i], sinceLast[i])
		}
		for i := range calls.marking {
			tell("hit_after", &calls.marking[i], place[i])
		}
		tell("hit", merged(calls.hits[:]))
		tell("hit_marking", merged(calls.marking[:]))
		tell("refilled", &calls.refills)
		tell("refilled_fresh", &calls.fresh)
		tell("refilled_unswept", &calls.unswept)
		if !*alone {
			row("alive", []any{o.size, o.kind, *mib, procs}, map[string]float64{"objects": float64(alive)})
		}
	}
}

// gathered are the calls of a type that all mixers counted, in what was the first one's.
func gathered(mixers []*mixer, k int) *mix {
	all := &mixers[0].mixes[k]
	for _, m := range mixers[1:] {
		one := &m.mixes[k]
		for i := range all.hits {
			all.hits[i].merge(&one.hits[i])
		}
		for i := range all.marking {
			all.marking[i].merge(&one.marking[i])
		}
		all.refills.merge(&one.refills)
		all.fresh.merge(&one.fresh)
		all.unswept.merge(&one.unswept)
		all.near.merge(&one.near)
		all.far.merge(&one.far)
	}
	return all
}

// tellCalls prints a row of a table of calls, if there are enough to tell.
func tellCalls(table string, o object, calls *sample, often float64, key ...any) {
	if calls.n >= fewest {
		row(table, append([]any{o.size, o.kind, *mib, runtime.GOMAXPROCS(0)}, key...), undisturbed(calls, often))
	}
}

// mixer is one of the goroutines, with its part of what is alive.
type mixer struct {
	kinds   []object
	draw    func() uint8
	random  xorshift
	alive   []unsafe.Pointer
	aliveOf []uint8 // of what type each is
	mixes   []mix
	swept   *sweeps
	counter counter
	pages   []int // swept in each call of a batch
	oldest  int
	part    int // bytes between two collections, as many as are alive
	calls   int
	blocks  int // the type of tiny blocks
	took    []uint32
	at      []uintptr
	order   []uint8
}

func newMixer(kinds []object, part int, seed uint64) *mixer {
	m := &mixer{kinds: kinds, draw: lottery(kinds, seed), random: xorshift(seed), part: part}
	m.took, m.at, m.order = array[uint32](batch), array[uintptr](batch), array[uint8](batch)
	m.pages = array[int](batch)
	m.mixes, m.swept = array[mix](len(kinds)), &array[sweeps](1)[0]
	for k, o := range kinds {
		if o.size == tinyBlock && o.kind == "noscan" {
			m.blocks = k
		}
	}
	bytes := 0
	for i := 0; i < batch; i++ {
		bytes += kinds[m.draw()].size
	}
	m.alive = make([]unsafe.Pointer, part/(bytes/batch))
	m.aliveOf = array[uint8](len(m.alive))
	return m
}

// work allocates a part each time it may begin, and counts the calls that it is told to. It is bound to no thread, nor is a
// program: the runtime runs collections and sweeps on the thread of the P that is at hand, and another thread would often
// be one of another CPU, from whose cache refills then had to fetch all that sweeping wrote.
func (m *mixer) work(begin <-chan int, done chan<- bool) {
	for counted := range begin {
		ours := counted == ofRefills
		asked()
		for k := range m.mixes {
			m.mixes[k].giveBack() // as the collection did
		}
		for left := m.part; left > 0; {
			n := 0
			for ; n < batch && left > 0; n++ {
				k := m.draw()
				m.order[n] = k
				if writeBarrier != 0 {
					m.order[n] |= whileMarking
				}
				left -= m.kinds[k].size
				m.counter.grown()
				p := m.kinds[k].calls(m.took[n:n+1], m.at[n:n+1])
				m.pages[n] = m.counter.grown()
				occupy(p, m.kinds[k].size)
				if counted == ofSweeps && n%sweepAfter == 0 {
					m.swept.some(&m.counter)
				}
				if dieTogether(counted) {
					m.keep(p, k)
				} else if m.random.next(2) == 0 {
					at := m.random.next(len(m.alive))
					if *order {
						at, m.oldest = m.oldest, (m.oldest+1)%len(m.alive)
					}
					m.alive[at], m.aliveOf[at] = p, k
				}
			}
			for i, k := range m.order[:n] {
				if counted == ofNothing {
					break
				}
				kind := k &^ whileMarking
				m.calls++
				if m.kinds[kind].tiny() { // two get a slot of 16 B
					if m.at[i]%tinyBlock != 0 || m.mixes[m.blocks].holds(m.at[i]) {
						continue
					}
					kind = uint8(m.blocks)
				}
				if one := &m.mixes[kind]; counted == ofSweeps {
					one.sweep(m.kinds[kind], m.took[i], m.at[i], m.pages[i])
				} else {
					one.add(m.kinds[kind], m.took[i], m.at[i], k != kind, ours, m.calls)
				}
			}
		}
		done <- true
	}
}

// dieTogether tells whether all objects of a round die at once.
func dieTogether(counted int) bool {
	return *unison || *most < largest && !*near && counted == ofRefills
}

// keep lets an object live until there is no more room, when all die.
func (m *mixer) keep(p unsafe.Pointer, kind uint8) {
	if m.oldest == len(m.alive) {
		m.oldest = 0
		for i := range m.alive {
			m.alive[i] = nil
		}
	}
	m.alive[m.oldest], m.aliveOf[m.oldest] = p, kind
	m.oldest++
}

// tellHits prints what hits take: of -unison while the collector marks and of the next slot, of small types all, and their refills.
func tellHits(kinds []object, mixers []*mixer, ending string, often float64) {
	for k, o := range kinds {
		calls := gathered(mixers, k)
		tell := func(calls *sample, after string) { tellCalls("hit_after"+ending, o, calls, often, after) }
		if *unison {
			for i := range empty {
				tell(&calls.marking[i], empty[i])
			}
			continue
		}
		tellCalls("refilled_fresh_small"+ending, o, &calls.fresh, often)
		for i := range calls.hits {
			tell(&calls.hits[i], "small, "+sinceLast[i])
		}
		for i := range calls.marking {
			tell(&calls.marking[i], "small, "+place[i])
		}
	}
}

// tellNear prints what refills take whose span is near the type's last one, and others.
func tellNear(kinds []object, mixers []*mixer) {
	for k, o := range kinds {
		calls := gathered(mixers, k)
		if calls.near.n >= fewest && calls.far.n >= fewest {
			key := []any{o.size, o.kind, *mib, runtime.GOMAXPROCS(0)}
			row("refilled_near", key, map[string]float64{"near": calls.near.upTo(0.99), "far": calls.far.upTo(0.99)})
		}
	}
}

// occupy is what the program does after a malloc: it writes a word of each cache line of the object, and thinks.
func occupy(p unsafe.Pointer, size int) {
	for at := 0; at+8 <= size; at += cacheLine {
		*(*uintptr)(unsafe.Add(p, at)) = 0
	}
	for begin := tsc.Now(); float64(tsc.Now()-begin) < thinking*perNs; {
	}
}

// withheld tells how many nanoseconds longer than usual writes to pages take in the mean, as many as the heap has, where
// each is written to once a turn.
func withheld(turn time.Duration) float64 {
	if turn > longestTurn {
		turn = longestTurn
	}
	found, err := memory.Withheld(memory.Clock{PerNs: perNs, Overhead: overhead}, *mib<<20/page, turn, writing)
	if err != nil {
		panic(err)
	}
	waited := 0.0
	for _, one := range found.Old.LongNs {
		waited += one
	}
	return waited / float64(found.Old.Pages)
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

// assists tells whether a malloc made while the collector marks took so long that it must have marked itself.
func (o object) assists(took uint32) bool {
	return float64(took&^lost) > (shortestAssist+float64(o.size)/2)*perNs
}

// mix gathers the calls of a type: those that find a slot in the span of its last object, by whether the collector marks,
// and those that do not, by whether the span they take is a fresh one. Which it is shows when the next is taken.
type mix struct {
	hits        [len(sinceLast)]sample
	marking     [len(place)]sample
	refills     sample
	fresh       sample
	unswept     sample  // refills that sweep the span they take
	near, far   sample  // of refills, by whether the span is near the one before it
	beside      bool    // it is
	first, last uintptr // pages of that span
	at          uintptr // of that object
	call        int     // that made it
	taken       int     // slots of that span so far, 0 of one whose refill does not count
	refill      uint32  // what taking it took
	gaps        bool    // between those slots, which no fresh span has
}

// add counts the mixer's nth call.
func (m *mix) add(o object, took uint32, address uintptr, marks, ours bool, nth int) {
	others, next := nth-m.call-1, address == m.at+uintptr(o.size)
	m.call, m.at = nth, address
	if marks && o.assists(took) {
		return
	}
	number := address / page
	if o.slots() > 1 && m.holds(address) { // the one slot again is a span of its own
		if m.taken > 0 {
			m.taken++
			m.gaps = m.gaps || !next
		}
		switch {
		case marks && next && others < few:
			m.marking[0].add(took)
		case marks && next:
			m.marking[1].add(took)
		case marks:
			m.marking[2].add(took)
		case ours:
		case others < few:
			m.hits[0].add(took)
		case others < some:
			m.hits[1].add(took)
		default:
			m.hits[2].add(took)
		}
		return
	}
	if o.slots() == 1 && ours {
		m.refills.add(took)
	} else if m.taken > 0 {
		if m.taken >= o.free() {
			if float64(m.refill&^lost) < longestRefill*perNs {
				m.fresh.add(m.refill)
			}
		} else {
			m.addSwept()
		}
	}
	m.beside = number+nearPages >= m.first && number <= m.first+nearPages
	m.taken, m.refill, m.gaps = 1, took, address%page != 0
	if !ours {
		m.taken = 0
	}
	m.first, m.last = number, number+uintptr(o.pages)
}

// sweep counts a call made while there are spans to sweep, during which so many pages were swept: one that needs a span and sweeps
// as many as that has swept itself what it takes. What mallocs owe besides is swept already; what other Ps sweep in just that time,
// as many pages, is not told apart.
func (m *mix) sweep(o object, took uint32, address uintptr, pages int) {
	if m.holds(address) {
		return
	}
	if o.slots() > 1 && pages == o.pages {
		m.unswept.add(took)
	}
	m.first, m.last = address/page, address/page+uintptr(o.pages)
}

// addSwept counts the refill that took the span at hand, a swept one with room.
func (m *mix) addSwept() {
	m.refills.add(m.refill)
	if m.beside {
		m.near.add(m.refill)
	} else {
		m.far.add(m.refill)
	}
}

// tiny tells whether malloc puts more than one such object into a slot.
func (o object) tiny() bool { return o.kind == "noscan" && o.size < tinyBlock }

// holds tells whether the span of the last object has this address too.
func (m *mix) holds(address uintptr) bool { return address/page >= m.first && address/page < m.last }

// giveBack ends a span that was not full yet: one without gaps so far may have been a fresh one or not.
func (m *mix) giveBack() {
	if m.taken > 0 && m.gaps {
		m.addSwept()
	}
	m.taken = 0
}

// free are the slots of a fresh span, of which bitmaps at its end may take some.
func (o object) free() int {
	if o.size <= largestInline && o.kind == "scan" {
		return (o.pages*page - 2*inline) / o.size // one for marks, one for pointers
	}
	if o.size <= largestInline {
		return (o.pages*page - inline) / o.size
	}
	return o.slots()
}

// merged is all readings of some samples.
func merged(samples []sample) *sample {
	all := new(sample)
	for i := range samples {
		all.merge(&samples[i])
	}
	return all
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
