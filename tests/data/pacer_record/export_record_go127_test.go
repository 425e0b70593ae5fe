//go:build go1.20

package runtime

// RecordStart begins a cycle with the heap, stacks and globals as given.
func (c *GCController) RecordStart(now, procs int64, timed bool, live, scan, stack, globals int64) {
	c.heapLive.Store(uint64(live))
	c.heapScan.Store(uint64(scan))
	c.maxStackScan.Store(uint64(stack))
	c.globalsScan.Store(uint64(globals))
	kind := gcTriggerHeap
	if timed {
		kind = gcTriggerTime
	}
	c.startCycle(now, int(procs), gcTrigger{kind: kind})
}

// RecordEnd ends it.
func (c *GCController) RecordEnd(now, procs, assist, idle, marked int64, sweepDone bool) {
	c.assistTime.Store(assist)
	c.idleMarkTime.Store(idle)
	c.endCycle(now, int(procs))
	c.resetLive(uint64(marked))
	c.commit(sweepDone)
}

// RecordState shows everything a call may have moved; floats as their bits.
func (c *GCController) RecordState() []int64 {
	trigger, goal := c.trigger()
	bits := func(x float64) int64 { return int64(float64bits(x)) }
	return []int64{
		int64(trigger), int64(goal), int64(c.triggered), int64(c.heapLive.Load()), int64(c.heapScan.Load()),
		int64(c.heapMarked), int64(c.runway.Load()), c.dedicatedMarkWorkersNeeded.Load(),
		int64(c.idleMarkWorkers.Load() >> 32), bits(c.fractionalUtilizationGoal), bits(c.assistWorkPerByte.Load()),
		bits(c.assistBytesPerWork.Load()), bits(c.consMark),
	}
}
