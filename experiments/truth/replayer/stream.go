package main

import (
	"sync"
	"sync/atomic"
	"unsafe"

	"allocsim/truth/tsc"
)

// A word of a stream: a code in its low 16 bits, which is a maker's number or one of these; then a variable, or what
// the code says.
const (
	opCompute = 0xffff // 48 bits: picoseconds
	opDead    = 0xfffe // the variable becomes nil
	opBytes   = 0xfffd // make([]byte, n), n in the next word
	opTable   = 0xfffc // make([]unsafe.Pointer, n), n in the next word: the table of variables
	opReset   = 0xfffb // the whole table of variables becomes nil
	opRequest = 0xfffa // of a service: its arrival in picoseconds and its number of words in the next two
)

// Flags of an operation, in its high 16 bits.
const (
	flagShared = 1 << 0 // the variable is the whole program's
	flagTouch  = 1 << 1 // the object is written
	flagLeft   = 1 << 2 // the object becomes a child of the variable before it
	flagRight  = 1 << 3
)

const (
	line = 64 // bytes of a cache line
	page = 4096
)

// stream is what the goroutines that run one file share.
type stream struct {
	ops        []uint64
	table      []unsafe.Pointer // the worker's own variables, or the service's shared ones
	mallocs    *histogram
	byKind     []uint64
	touchTicks uint64
	touches    uint64
	unpaid     int64
	cut        uint64
	lock       sync.Mutex
}

func newStream(ops []uint64) *stream {
	return &stream{ops: ops, mallocs: newHistogram(), byKind: offHeap(len(makers) + 1)}
}

func newWorker(name string) *stream { return newStream(words(name)) }

// runner is a goroutine that executes operations.
type runner struct {
	account
	stream     *stream
	own        []unsafe.Pointer
	touchTicks uint64
	touches    uint64
	executed   uint64
	byKind     []uint64
}

// runWorkers runs each stream in a goroutine of its own.
func runWorkers(streams []*stream) {
	var done sync.WaitGroup
	for _, s := range streams {
		done.Add(1)
		s := s
		go func() {
			r := runner{stream: s, byKind: s.byKind}
			r.last = tsc.Now()
			r.run(s.ops)
			s.table = r.own
			r.settle()
			done.Done()
		}()
	}
	done.Wait()
}

// settle adds the goroutine's counts to its stream's.
func (r *runner) settle() {
	s := r.stream
	s.lock.Lock()
	s.touchTicks += r.touchTicks
	s.touches += r.touches
	s.cut += r.cut
	if r.debt > 0 {
		s.unpaid += r.debt
	}
	if &s.byKind[0] != &r.byKind[0] {
		for kind, n := range r.byKind {
			s.byKind[kind] += n
		}
	}
	s.lock.Unlock()
}

// run executes operations.
func (r *runner) run(ops []uint64) {
	for i := 0; i < len(ops); i++ {
		if r.executed++; r.executed%lookEvery == 0 {
			pauses.look()
		}
		op := ops[i]
		code, flags := int(op&0xffff), op>>48
		var p unsafe.Pointer
		var begin, end, size uint64
		switch {
		case code < len(makers):
			p, begin, end = makers[code]()
			size = sizes[code]
		case code == opCompute:
			r.compute(int64(float64(op>>16) / clock.tickPs))
			continue
		case code == opDead:
			r.place(op, flags, nil)
			continue
		case code == opBytes:
			i++
			size = ops[i]
			p, begin, end = makeBytes(int(size))
			code = len(makers)
		case code == opTable:
			i++
			begin, end = r.makeTable(int(ops[i]))
			r.driver(begin)
			r.debt += int64(clock.overhead)
			r.last = end
			r.enter(end-begin, len(makers))
			for i := range r.own {
				r.own[i] = nil
			}
			continue
		default: // opReset
			for i := range r.own {
				r.own[i] = nil
			}
			continue
		}
		r.driver(begin)
		r.debt += int64(clock.overhead)
		r.last = end
		if flags&flagTouch != 0 {
			r.touch(p, size)
		}
		r.enter(end-begin, code)
		if flags&(flagLeft|flagRight) != 0 {
			parent := (*[2]unsafe.Pointer)(r.own[uint32(op>>16)-1])
			parent[flags>>3&1] = p
		}
		r.place(op, flags, p)
	}
}

// place assigns to a variable.
func (r *runner) place(op, flags uint64, p unsafe.Pointer) {
	if flags&flagShared != 0 {
		r.stream.table[uint32(op>>16)] = p
	} else {
		r.own[uint32(op>>16)] = p
	}
}

// enter counts a malloc that took so many ticks with the clock reads around it.
func (r *runner) enter(ticks uint64, kind int) {
	if ticks > clock.overhead {
		ticks -= clock.overhead
	} else {
		ticks = 0
	}
	r.stream.mallocs.add(picoseconds(ticks))
	r.byKind[kind]++
}

// touch writes a word of each cache line of an object. The first write of all into a page may be its first touch, a page
// fault unless malloc had it; that is no driver's time. All other writes are.
func (r *runner) touch(p unsafe.Pointer, size uint64) {
	if size < 8 {
		*(*byte)(p) = 0
		return
	}
	last := (size - 8) &^ 7
	for at := uint64(0); ; {
		address := uint64(uintptr(p)) + at
		if isNew(address) {
			begin := tsc.Now()
			*(*uintptr)(unsafe.Add(p, at)) = 0
			r.firstTouch(begin, tsc.Now())
		} else {
			*(*uintptr)(unsafe.Add(p, at)) = 0
		}
		next := at + page - address%page
		for at += line; at < next && at < last; at += line {
			*(*uintptr)(unsafe.Add(p, at)) = 0
		}
		if last < next {
			*(*uintptr)(unsafe.Add(p, last)) = 0
			return
		}
		at = next
	}
}

// firstTouch accounts for a first write that the given times are around, unless something else interrupted it.
func (r *runner) firstTouch(begin, end uint64) {
	took := end - begin
	if took > clock.touch {
		return
	}
	if took > clock.overhead {
		took -= clock.overhead
	}
	r.driver(begin)
	r.touchTicks += took
	r.touches++
	r.last = end
	r.debt += int64(clock.overhead)
}

// written has a bit for each page of 64 GiB from the beginning of the heap on that the program wrote to. What the
// scavenger took back and faults again is not seen.
var written = offHeap(1 << 24 / 64)

// isNew tells whether a page was not written to before, and notes that it was.
func isNew(address uint64) bool {
	number := address / page % (1 << 24)
	word, bit := &written[number/64], uint64(1)<<(number%64)
	for {
		old := atomic.LoadUint64(word)
		if old&bit != 0 {
			return false
		}
		if atomic.CompareAndSwapUint64(word, old, old|bit) {
			return true
		}
	}
}

//go:noinline
func makeBytes(n int) (unsafe.Pointer, uint64, uint64) {
	begin := tsc.Now()
	p := make([]byte, n)
	end := tsc.Now()
	return unsafe.Pointer(&p[0]), begin, end
}

//go:noinline
func (r *runner) makeTable(n int) (uint64, uint64) {
	begin := tsc.Now()
	table := make([]unsafe.Pointer, n)
	end := tsc.Now()
	r.own = table
	return begin, end
}
