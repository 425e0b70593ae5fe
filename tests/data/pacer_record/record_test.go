// Records what the real runtime's pacer and GC CPU limiter answer; README.md says how to run it.

package runtime_test

import (
	"encoding/json"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	. "runtime"
	"strings"
	"testing"
)

const noMemoryLimit = math.MaxInt64

// writeRecord puts a value into a file below $RECORD_DIR.
func writeRecord(t *testing.T, name string, value any) {
	dir := os.Getenv("RECORD_DIR")
	if dir == "" {
		t.Skip("RECORD_DIR is not set")
	}
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
		t.Fatal(err)
	}
}

// drawBytes draws bytes from 1 KiB up to 2^bits, all magnitudes alike.
func drawBytes(r *rand.Rand, bits int) int64 {
	return int64(math.Exp2(10 + r.Float64()*float64(bits-10)))
}

func pickInt(r *rand.Rand, values ...int64) int64 { return values[r.Intn(len(values))] }

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// TestRecordCalls makes random calls, sensible and not, and notes all of the pacer's state after each.
//
//	0 now procs timed live scan stack globals        start a cycle
//	1 live scan heapWork stackWork globalsWork       revise by these changes
//	2 now procs assistTime idleTime marked sweepDone end the cycle
//	3 mapped free alloc freed                        memory statistics
//	4 gcPercent memoryLimit sweepDone                settings
func TestRecordCalls(t *testing.T) {
	type sequence struct {
		GCPercent, MemoryLimit int64
		Calls                  [][]int64
		States                 [][]int64
	}
	var all []sequence
	for seed := int64(0); seed < 24; seed++ {
		r := rand.New(rand.NewSource(seed))
		percents := []int64{100, 100, 100, 50, 10, 0, 1500, -1, math.MaxInt32}
		limits := []int64{noMemoryLimit, noMemoryLimit, noMemoryLimit, 512 << 20, 64 << 20, 1 << 20, 0, 10 << 30}
		s := sequence{GCPercent: pickInt(r, percents...), MemoryLimit: pickInt(r, limits...)}
		c := NewGCController(int(s.GCPercent), s.MemoryLimit)
		big := 24 + r.Intn(14)
		call := func(row ...int64) {
			s.Calls = append(s.Calls, row)
			s.States = append(s.States, c.RecordState())
		}
		now := int64(0)
		for cycle := 0; cycle < 6; cycle++ {
			if r.Intn(3) == 0 {
				alloc := drawBytes(r, big)
				freed := alloc / (1 + r.Int63n(8))
				free := drawBytes(r, big)
				mapped := alloc - freed + free + drawBytes(r, 28)
				c.RecordStats(mapped, free, alloc, freed)
				call(3, mapped, free, alloc, freed)
			}
			procs := 1 + r.Int63n(40)
			timed := r.Intn(4) == 0
			live := drawBytes(r, big)
			if r.Intn(4) != 0 {
				state := c.RecordState()
				live = state[5] // marked
				if state[0] < 1<<40 && state[0] > live {
					live = state[0]
				}
				live += r.Int63n(100000)
			}
			scan := int64(float64(live) * r.Float64())
			stack := drawBytes(r, 22)
			globals := drawBytes(r, 20)
			c.RecordStart(now, procs, timed, live, scan, stack, globals)
			call(0, now, procs, bit(timed), live, scan, stack, globals)
			steps := r.Intn(5)
			for i := 0; i < steps; i++ {
				d := GCControllerReviseDelta{
					HeapLive: drawBytes(r, 22), HeapScan: 0, HeapScanWork: scan / int64(1+r.Intn(6)),
					StackScanWork: stack / 4, GlobalsScanWork: bit(i == 0) * globals,
				}
				if r.Intn(6) == 0 {
					d.HeapLive = -r.Int63n(int64(c.HeapLive()))
				}
				c.Revise(d)
				call(1, d.HeapLive, d.HeapScan, d.HeapScanWork, d.StackScanWork, d.GlobalsScanWork)
				if r.Intn(8) == 0 {
					percent, limit := pickInt(r, percents...), pickInt(r, limits...)
					c.RecordSet(percent, limit, true)
					call(4, percent, limit, 1)
				}
			}
			length := r.Int63n(50000000)
			now += length
			// 0: no assists; 1: some; 2: more than there was CPU time for
			assist := int64(r.Float64() * pickFloat(r, 0, 0.5, 0.75, 1.2) * float64(length*procs))
			idle := int64(r.Float64() * pickFloat(r, 0, 0.5) * float64(length*procs))
			marked := int64(float64(c.HeapLive()) * r.Float64())
			done := r.Intn(3) == 0
			c.RecordEnd(now, procs, assist, idle, marked, done)
			call(2, now, procs, assist, idle, marked, bit(done))
		}
		all = append(all, s)
	}
	writeRecord(t, "pacer_calls.json", map[string]any{"version": Version(), "sequences": all})
}

func pickFloat(r *rand.Rand, values ...float64) float64 { return values[r.Intn(len(values))] }

// TestRecordScenarios lets a steady program run against the pacer, at a fixed period, and notes what `allocsim conform`
// compares. While the pacer asks for r bytes of work per byte allocated, a share u of the CPUs marks and the rest
// allocates, u the larger of 25 % and what gives that ratio.
func TestRecordScenarios(t *testing.T) {
	type scenario struct {
		Name         string  `json:"name"`
		GCPercent    int     `json:"gcPercent"`
		MemoryLimit  int64   `json:"memoryLimit"`
		GlobalsBytes int64   `json:"globalsBytes"`
		NCores       int     `json:"nCores"`
		Events       [][]any `json:"events"`
		allocRate    float64 // bytes per ns of CPU time
		scanRate     float64
		live         int64 // what is marked in the end, without what was allocated meanwhile
		scannable    float64
		stack        int64
		growing      int // cycles until it is
		length       int
	}
	all := []*scenario{
		{Name: "steady", GCPercent: 100, MemoryLimit: noMemoryLimit, GlobalsBytes: 32 << 10, NCores: 8, allocRate: 0.033,
			scanRate: 1, live: 20 << 20, scannable: 1, stack: 8 << 10, growing: 6, length: 30},
		{Name: "fast", GCPercent: 100, MemoryLimit: noMemoryLimit, GlobalsBytes: 1 << 20, NCores: 4, allocRate: 0.3,
			scanRate: 1, live: 40 << 20, scannable: 0.7, stack: 1 << 20, growing: 10, length: 30},
		{Name: "off, limited", GCPercent: -1, MemoryLimit: 64 << 20, GlobalsBytes: 32 << 10, NCores: 2, allocRate: 0.1,
			scanRate: 1, live: 30 << 20, scannable: 0.5, stack: 64 << 10, growing: 4, length: 20},
		{Name: "over the limit", GCPercent: 100, MemoryLimit: 32 << 20, GlobalsBytes: 32 << 10, NCores: 16, allocRate: 0.03,
			scanRate: 1, live: 36 << 20, scannable: 1, stack: 64 << 10, growing: 4, length: 16},
		// a trigger near 2^63: what the arithmetic does at its ends
		{Name: "off, forced", GCPercent: -1, MemoryLimit: noMemoryLimit, GlobalsBytes: 32 << 10, NCores: 4, allocRate: 0.03,
			scanRate: 1, live: 8 << 20, scannable: 0.9, stack: 64 << 10, growing: 4, length: 8},
	}
	const period = 500000.0
	for _, s := range all {
		c := NewGCController(s.GCPercent, s.MemoryLimit)
		cores := float64(s.NCores)
		for cycle := 1; cycle <= s.length; cycle++ {
			live := s.live
			if cycle < s.growing {
				live = live * int64(cycle) / int64(s.growing)
			}
			c.StartCycle(uint64(s.stack), uint64(s.GlobalsBytes), s.scannable, s.NCores)
			s.Events = append(s.Events, []any{"start", s.stack, s.scannable, c.Triggered(), c.HeapGoal(), c.HeapLive(),
				c.HeapMarked(), c.AssistWorkPerByte()})
			left := []int64{int64(float64(live) * s.scannable), s.stack, s.GlobalsBytes}
			black, elapsed, assists := int64(0), 0.0, 0.0
			for left[0]+left[1]+left[2] > 0 {
				wanted := c.AssistWorkPerByte() * s.allocRate
				u := math.Max(0.25, wanted/(wanted+s.scanRate))
				could := s.scanRate * period * cores * u
				work := int64(math.Max(could, 1))
				var did [3]int64
				for i := range left {
					did[i] = work
					if did[i] > left[i] {
						did[i] = left[i]
					}
					left[i] -= did[i]
					work -= did[i]
				}
				share := float64(did[0]+did[1]+did[2]) / could
				allocated := int64(s.allocRate * period * cores * (1 - u) * share)
				d := GCControllerReviseDelta{HeapLive: allocated, HeapScan: int64(float64(allocated) * s.scannable),
					HeapScanWork: did[0], StackScanWork: did[1], GlobalsScanWork: did[2]}
				c.Revise(d)
				s.Events = append(s.Events, []any{"revise", d.HeapLive, d.HeapScan, d.HeapScanWork, d.StackScanWork,
					d.GlobalsScanWork, c.AssistWorkPerByte(), c.HeapGoal(), c.HeapLive()})
				black += allocated
				elapsed += period * share
				assists += period * share * cores * (u - 0.25)
			}
			c.EndCycle(uint64(live+black), int64(assists), int64(elapsed), s.NCores)
			s.Events = append(s.Events, []any{"end", live + black, int64(assists), int64(elapsed), c.HeapGoal(), c.HeapLive(),
				c.HeapMarked()})
		}
	}
	release := strings.Join(strings.SplitN(Version(), ".", 3)[:2], ".")
	writeRecord(t, "pacer_scenarios.json", map[string]any{"version": release, "scenarios": all})
}

// TestRecordLimiter notes the bucket after each call; times are multiples of 4 ns, so that a quarter of one is exact in
// any unit.
//
//	0 now update   1 time addAssistTime   2 time addIdleTime   3 now enable startGCTransition
//	4 now finishGCTransition   5 now procs resetCapacity   6 now needUpdate
func TestRecordLimiter(t *testing.T) {
	type sequence struct {
		Procs  int64
		Calls  [][]int64 // code, first argument, second
		States [][]int64 // fill, capacity, overflow, limiting, needUpdate at the last time
	}
	const ms, sec = int64(1000000), int64(1000000000)
	run := func(procs int64, calls [][]int64) sequence {
		s := sequence{Procs: procs, Calls: calls}
		l := NewGCCPULimiter(0, int32(procs))
		now := int64(0)
		for _, call := range calls {
			switch call[0] {
			case 0:
				l.Update(call[1])
			case 1:
				l.AddAssistTime(call[1])
			case 2:
				l.RecordIdle(call[1])
			case 3:
				l.StartGCTransition(call[2] == 1, call[1])
			case 4:
				l.FinishGCTransition(call[1])
			case 5:
				l.ResetCapacity(call[1], int32(call[2]))
			}
			if call[0] != 1 && call[0] != 2 {
				now = call[1]
			}
			s.States = append(s.States, []int64{int64(l.Fill()), int64(l.Capacity()), int64(l.Overflow()),
				bit(l.Limiting()), bit(l.NeedUpdate(now))})
		}
		return s
	}
	var all []sequence

	// The calls of the runtime's own test of the limiter, twice over, on 14 Ps.
	const p = int64(14)
	var calls [][]int64
	now := int64(0)
	at := func(code, after, arg int64) {
		now += after
		calls = append(calls, []int64{code, now, arg})
	}
	assist := func(wall int64, share float64) {
		calls = append(calls, []int64{1, int64(share * float64(wall) * float64(p)), 0})
	}
	for i := 0; i < 2; i++ {
		at(0, 10*ms, 0)
		at(0, sec, 0)
		at(0, 3600*sec, 0)
		at(6, 5*ms, 0)
		at(6, 10*ms, 0)
		at(0, 0, 0)
		at(6, 0, 0)
		at(3, 109*ms, 1)
		at(4, 2*ms+1000, 0)
		at(0, 2*(2*ms+1000-1), 0)
		at(0, 2*p*sec, 0)
		assist(10*ms, 0.25)
		at(0, 10*ms, 0)
		assist(ms, 0.75)
		at(0, ms, 0)
		assist(sec-ms, 0.75)
		at(0, sec-ms, 0)
		assist(sec, 0.25)
		at(0, sec, 0)
		at(0, sec, 0)
		assist(sec, 0.75)
		at(0, sec, 0)
		assist(ms, 0.75)
		at(3, ms, 0)
		at(4, 5*ms, 0)
		at(5, 0, p+10)
		at(5, 0, p-10)
		at(5, sec*p, p)
	}
	all = append(all, run(p, calls))

	for seed := int64(0); seed < 12; seed++ {
		r := rand.New(rand.NewSource(seed))
		procs := 1 + r.Int63n(20)
		on := int64(0)
		now, calls = 0, nil
		upTo := func(d int64) int64 { return r.Int63n(d/4) * 4 }
		here := procs
		for len(calls) < 60 {
			wall := upTo(pickInt(r, 20*ms, 400*ms, 3*sec))
			switch r.Intn(8) {
			case 0:
				on = 1 - on
				at(3, wall, on)
				at(0, upTo(ms), 0) // of no effect: the transition counts that time
				at(4, upTo(20*ms), 0)
			case 1:
				if on == 0 {
					here = 1 + r.Int63n(20)
					at(5, wall, here)
				}
			case 2:
				calls = append(calls, []int64{2, upTo(wall*here + 4), 0})
				at(0, wall, 0)
			case 3:
				at(0, -upTo(now+4), 0) // an old time: ignored
				now = latestTime(calls)
			default:
				calls = append(calls, []int64{1, upTo(wall*here + 4), 0})
				at(0, wall, 0)
			}
		}
		all = append(all, run(procs, calls))
	}
	writeRecord(t, "limiter.json", map[string]any{"version": Version(), "sequences": all})
}

func latestTime(calls [][]int64) int64 {
	now := int64(0)
	for _, call := range calls {
		if call[0] != 1 && call[0] != 2 && call[1] > now {
			now = call[1]
		}
	}
	return now
}
