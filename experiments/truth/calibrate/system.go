package main

import (
	"math"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
	_ "unsafe" // for linkname

	"allocsim/truth/tsc"
)

const (
	osPage       = 4096
	hugePage     = 2 << 20
	advHuge      = 14  // MADV_HUGEPAGE
	advNoHuge    = 15  // MADV_NOHUGEPAGE
	futexWait    = 128 // FUTEX_WAIT | FUTEX_PRIVATE_FLAG
	futexWake    = 129
	asleep       = 100_000 // nanoseconds until a thread that goes to sleep is taken to be asleep
	spins        = 30      // PAUSEs in one round of spinning
	chased       = 1 << 20
	computations = 20_000_000
)

//go:linkname procyield runtime.procyield
func procyield(cycles uint32)

//go:linkname osyield runtime.osyield
func osyield()

// touched measures the first write, or another one, to each 4 KiB page. Where most of them are no faults, the few that
// are fault huge pages in, which takes so long that no reading is left out.
func touched(memory []byte) map[string]float64 {
	const fault = 200 // nanoseconds that none is shorter than
	took := array[uint32](len(memory) / osPage)
	for i := range took {
		begin := tsc.Now()
		memory[i*osPage] = 1
		took[i] = checked(tsc.Now() - begin)
	}
	if all := whole(took); all.quantile(0.5) < fault {
		return all.values()
	}
	return sampled(took).values()
}

// fault measures page faults: of a mapping with small pages, of one with huge pages, of one object on the heap.
func fault() {
	bytes := *mib << 20
	small := mapped(bytes, 0)
	syscall.Madvise(small, advNoHuge)
	row("first_touch", []any{"mmap first touch"}, touched(small))
	row("first_touch", []any{"mmap second touch"}, touched(small))
	syscall.Munmap(small)
	whole := mapped(bytes+hugePage, 0)
	huge := whole[-uintptr(unsafe.Pointer(&whole[0]))%hugePage:][:bytes]
	syscall.Madvise(huge, advHuge)
	row("first_touch", []any{"mmap first touch, huge pages advised"}, touched(huge))
	syscall.Munmap(whole) // its pages are those that the heap gets: a host stands behind them by now
	row("first_touch", []any{"go heap first touch"}, touched(make([]byte, bytes)))
}

//go:noinline
func acquire(word *uint32) bool { return atomic.SwapUint32(word, 1) == 0 }

//go:noinline
func release(word *uint32) { atomic.SwapUint32(word, 0) }

// lock measures the steps of a lock that nobody else wants.
func lock() {
	runtime.GOMAXPROCS(1)
	var word uint32
	each := func(name string, n int, steps float64, f func()) {
		row("lock", []any{name}, map[string]float64{"ns": spent(func() {
			for i := 0; i < n; i++ {
				f()
			}
		}) / float64(n) / steps})
	}
	pair := func() {
		acquire(&word)
		release(&word)
	}
	each("acquire", 1<<22, 2, pair)
	each("release", 1<<22, 2, pair)
	each("procyield", 1<<15, 1, func() { procyield(spins) })
	each("osyield", 1<<15, 1, osyield)
}

func futexCall(word *uint32, operation, value uintptr) {
	syscall.RawSyscall6(syscall.SYS_FUTEX, uintptr(unsafe.Pointer(word)), operation, value, 0, 0, 0)
}

// cpus are those that this process may run on.
func cpus() []int {
	var mask [128]uint64
	syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	var found []int
	for cpu := 0; cpu < 64*len(mask); cpu++ {
		if mask[cpu/64]>>(cpu%64)&1 == 1 {
			found = append(found, cpu)
		}
	}
	return found
}

// pin ties this goroutine to a thread and that to a CPU, for good.
func pin(cpu int) {
	runtime.LockOSThread()
	var mask [128]uint64
	mask[cpu/64] = 1 << (cpu % 64)
	syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
}

// futex measures sleeping, waking and signalling, of threads tied to CPUs.
func futex() {
	runtime.GOMAXPROCS(2)
	allowed := cpus()
	sleeping(allowed[0])
	if len(allowed) > 1 {
		waking(allowed[0], allowed[1])
		signalling(allowed[0], allowed[1])
	}
}

// sleeper sleeps n times until its word is set; before each time it says when it goes to sleep, after it when it runs.
type sleeper struct {
	word      uint32
	turn      uint32 // times it went to sleep
	went, ran uint64
}

func (s *sleeper) run(n int) {
	for i := 0; i < n; i++ {
		atomic.StoreUint64(&s.went, tsc.Now())
		atomic.AddUint32(&s.turn, 1)
		for atomic.LoadUint32(&s.word) == 0 {
			futexCall(&s.word, futexWait, 0)
		}
		atomic.StoreUint64(&s.ran, tsc.Now())
		atomic.StoreUint32(&s.word, 0)
	}
}

// sleeping measures, with both threads on one CPU, from the call until the other thread runs.
func sleeping(cpu int) {
	n := uint32(*rounds)
	s, found, idle := new(sleeper), new(sample), uint32(1)
	refused := spent(func() {
		for i := uint32(0); i < n; i++ {
			futexCall(&idle, futexWait, 0) // the word is another: back at once
		}
	}) / float64(n)
	go func() {
		pin(cpu)
		s.run(int(n))
	}()
	pin(cpu)
	for i := uint32(1); i <= n; i++ {
		for atomic.LoadUint32(&s.turn) < i {
			osyield()
		}
		found.add(uint32(tsc.Now() - atomic.LoadUint64(&s.went)))
		atomic.StoreUint32(&s.word, 1)
		futexCall(&s.word, futexWake, 1)
	}
	whole := found.quantile(0.5)
	row("lock", []any{"futex_sleep"}, map[string]float64{"ns": whole})
	if whole > refused {
		row("steps", []any{"os_switch"}, map[string]float64{"ns": whole - refused})
	}
}

// slept are the times that threads have been asleep for when they are woken, by the names of the rows. How soon their
// CPU runs them depends on how deep it has gone to rest, and what the call takes on what the caches hold of the kernel
// when its thread has worked for so long. All wakes after one of these times last no more nanoseconds than together.
var slept = []struct {
	name  string
	least float64 // nanoseconds
}{{"_20us", 20_000}, {"", asleep}, {"_1ms", 1_000_000}, {"_10ms", 10_000_000}}

const (
	together = 1_000_000_000
	worked   = 64 << 20 // bytes
)

// works goes through memory at random for so many nanoseconds, as a program does between two calls of the system.
func works(memory []byte, x *xorshift, during float64) {
	const touches = 8
	for begin := tsc.Now(); float64(tsc.Now()-begin) < during*perNs; {
		for i := 0; i < touches; i++ {
			memory[x.next(len(memory))]++
		}
	}
}

// waking measures, with the threads on two CPUs, the call that wakes and from its end until the other thread runs.
func waking(cpu, other int) {
	s, memory, x := new(sleeper), array[byte](worked), xorshift(1)
	n := make([]int, len(slept))
	all := 0
	for i, one := range slept {
		n[i] = *rounds
		if most := int(together / one.least); n[i] > most {
			n[i] = most
		}
		all += n[i]
	}
	go func() {
		pin(other)
		s.run(all)
	}()
	pin(cpu)
	turn := uint32(0)
	for i, one := range slept {
		calls, latencies := new(sample), new(sample)
		for k := 0; k < n[i]; k++ {
			turn++
			for atomic.LoadUint32(&s.turn) < turn {
			}
			works(memory, &x, one.least)
			call, latency := s.woken()
			calls.add(call)
			latencies.add(latency)
		}
		row("lock", []any{"futex_wake" + one.name}, map[string]float64{"ns": calls.quantile(0.5)})
		row("lock", []any{"wake_latency" + one.name}, map[string]float64{"ns": latencies.quantile(0.5)})
		if one.least == asleep {
			row("steps", []any{"wake_p"}, map[string]float64{"ns": calls.quantile(0.5) + latencies.quantile(0.5)})
		}
	}
}

// woken wakes the thread: the ticks of the call, and from its end until the thread runs.
func (s *sleeper) woken() (uint32, uint32) {
	atomic.StoreUint64(&s.ran, 0)
	atomic.StoreUint32(&s.word, 1)
	begin := tsc.Now()
	futexCall(&s.word, futexWake, 1)
	end := tsc.Now()
	ran := uint64(0)
	for ran == 0 {
		ran = atomic.LoadUint64(&s.ran)
	}
	if ran < end {
		ran = end
	}
	return uint32(end - begin), uint32(ran - end + overhead)
}

// signalling measures, with the threads on two CPUs, the call that signals a running thread as the runtime does to
// preempt it, when the caller has worked for a while, and from its end until that thread has been through the handler.
// A clock that goes only while that thread runs tells that it does, and when it goes on after a gap.
func signalling(cpu, other int) {
	const gap = 1000 // nanoseconds that the clock is not away for by itself
	var thread, ticking, back uint64
	memory, x := array[byte](worked), xorshift(1)
	go func() {
		pin(other)
		atomic.StoreUint64(&thread, uint64(syscall.Gettid()))
		for last := tsc.Now(); ; {
			now := tsc.Now()
			if float64(now-last) > gap*perNs {
				atomic.StoreUint64(&back, now)
			}
			last = now
			atomic.StoreUint64(&ticking, now)
		}
	}()
	pin(cpu)
	process := uintptr(syscall.Getpid())
	once := func(least float64) (uint32, uint32) {
		works(memory, &x, least)
		for before := atomic.LoadUint64(&ticking); before == atomic.LoadUint64(&ticking); {
		}
		begin := tsc.Now()
		syscall.RawSyscall(syscall.SYS_TGKILL, process, uintptr(atomic.LoadUint64(&thread)), uintptr(syscall.SIGURG))
		end := tsc.Now()
		for atomic.LoadUint64(&back) < begin && float64(tsc.Now()-end) < asleep*perNs {
		}
		if ran := atomic.LoadUint64(&back); ran > end {
			return uint32(end - begin), uint32(ran - end + overhead)
		}
		return uint32(end - begin), 0
	}
	calls, cold, latencies := new(sample), new(sample), new(sample)
	for i := 0; i < *rounds; i++ {
		call, latency := once(asleep)
		calls.add(call)
		latencies.add(latency)
	}
	for i := 0; i < *rounds/2; i++ {
		call, _ := once(1_000_000)
		cold.add(call)
	}
	row("steps", []any{"preempt_signal"}, map[string]float64{"ns": calls.quantile(0.5)})
	row("lock", []any{"signal_1ms"}, map[string]float64{"ns": cold.quantile(0.5)})
	row("lock", []any{"signal_latency"}, map[string]float64{"ns": latencies.quantile(0.5)})
}

// twice measures the two faults of pages that are read before they are written: the system's page of zeros is mapped,
// and then a page of their own in its place.
func twice(memory []byte) {
	reads, writes := new(sample), new(sample)
	sum := byte(0)
	for at := 0; at < len(memory); at += osPage {
		begin := tsc.Now()
		sum += memory[at]
		read := tsc.Now()
		memory[at] = sum + 1
		reads.add(checked(read - begin))
		writes.add(checked(tsc.Now() - read))
	}
	row("steps", []any{"read_touch"}, map[string]float64{"ns": reads.quantile(0.5)})
	row("steps", []any{"copy_touch"}, map[string]float64{"ns": writes.quantile(0.5)})
}

// madvise measures the faults of pages that are read first, and giving memory back: runs of one page and of 64, and of
// one while another thread of this process runs on another CPU.
func madvise() {
	const long, enough = 64, 500
	runtime.GOMAXPROCS(2)
	memory := mapped(*mib<<20, 0)
	syscall.Madvise(memory, advNoHuge)
	allowed := cpus()
	pin(allowed[0])
	twice(memory)
	var ticking uint32 // a clock that goes only while the other thread runs
	one, many := returned(memory, 1, nil).quantile(0.5), returned(memory, long, nil).quantile(0.5)
	each := (many - one) / (long - 1)
	row("steps", []any{"madvise_page"}, map[string]float64{"ns": each})
	row("steps", []any{"madvise"}, map[string]float64{"ns": one - each})
	if len(allowed) == 1 {
		return
	}
	go func() {
		pin(allowed[1])
		for {
			atomic.AddUint32(&ticking, 1)
		}
	}()
	for atomic.LoadUint32(&ticking) == 0 {
		osyield()
	}
	if disturbed := returned(memory, 1, &ticking); disturbed.n >= enough {
		row("steps", []any{"tlb_shootdown"}, map[string]float64{"ns": disturbed.quantile(0.5) - one})
	}
}

// returned gives memory back in runs of so many pages, from its top down, and gathers what the calls took: all of
// them, or those during which the clock of another thread went on.
func returned(memory []byte, pages int, clock *uint32) *sample {
	s := new(sample)
	for at := 0; at < len(memory); at += osPage {
		memory[at] = 1
	}
	var before, after uint32
	for end := len(memory); end > 0; end -= pages * osPage {
		run := memory[end-pages*osPage : end]
		if clock != nil {
			before = atomic.LoadUint32(clock)
		}
		begin := tsc.Now()
		syscall.RawSyscall(syscall.SYS_MADVISE, uintptr(unsafe.Pointer(&run[0])), uintptr(len(run)), syscall.MADV_DONTNEED)
		took := tsc.Now() - begin
		if clock != nil {
			after = atomic.LoadUint32(clock)
		}
		if clock == nil || before != after {
			s.add(checked(took))
		}
	}
	return s
}

// reference takes the same time on a machine that has not changed: steps of arithmetic, and of a walk through memory.
// It tells about the clock, too: its ticks a nanosecond, overhead and step, the least difference of two readings.
func reference() {
	step := math.Inf(1)
	for i := 0; i < 1<<16; i++ {
		begin := tsc.Now()
		if off := math.Abs(float64(tsc.Now()-begin) - float64(overhead)); off > 0 && off < step {
			step = off
		}
	}
	row("clock", []any{runtime.GOARCH}, map[string]float64{"per_ns": perNs, "overhead": float64(overhead), "step": step})
	x := xorshift(1)
	compute := elapsed(func() {
		for i := 0; i < computations; i++ {
			x.next(3)
		}
	})
	memory := array[uint32](*mib << 18)
	for i := range memory {
		memory[i] = uint32(i)
	}
	sum := uint32(0)
	walk := elapsed(func() {
		for i := 0; i < chased; i++ {
			sum += memory[(x.next(len(memory))+int(sum&1))%len(memory)]
		}
	})
	row("reference", []any{int(sum & 1)}, map[string]float64{"compute": compute / computations, "memory": walk / chased})
}

// touch writes to so much memory once, so that the host of a virtual machine has to stand behind it; it ends early when
// so many rounds of a second have passed.
func touch() {
	const piece = 64 << 20
	s := new(sample)
	begin := time.Now()
	for bytes := 0; bytes < *mib<<20 && time.Since(begin) < time.Duration(*rounds)*time.Second; bytes += piece {
		memory := mapped(piece, 0)
		syscall.Madvise(memory, advHuge)
		for at := 0; at < len(memory); at += osPage {
			begin := tsc.Now()
			memory[at] = 1
			s.add(checked(tsc.Now() - begin))
		}
	}
	row("touch", []any{"touch"}, map[string]float64{"mib": float64(s.n * osPage >> 20), "mean": s.mean()})
}
