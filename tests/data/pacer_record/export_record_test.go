package runtime

// RecordStats sets the memory statistics that a memory limit's goal depends on.
func (c *GCController) RecordStats(mapped, free, alloc, freed int64) {
	c.mappedReady.Store(uint64(mapped))
	c.heapFree = sysMemStat(free)
	c.totalAlloc.Store(uint64(alloc))
	c.totalFree.Store(uint64(freed))
}

// RecordSet changes the settings and commits.
func (c *GCController) RecordSet(gcPercent, memoryLimit int64, sweepDone bool) {
	c.setGCPercent(int32(gcPercent))
	c.setMemoryLimit(memoryLimit)
	c.commit(sweepDone)
}

// RecordIdle notifies the limiter of idle time.
func (l *GCCPULimiter) RecordIdle(t int64) {
	l.limiter.addIdleTime(t)
}
