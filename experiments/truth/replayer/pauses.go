package main

import (
	"runtime/debug"
	"sync"
	"time"
)

// lookEvery is how many operations a goroutine executes between two looks at the pauses: some cycles at the most, while
// the runtime keeps those of the last 256. A look does not stop the world, and allocates nothing.
const lookEvery = 1 << 16

// pauseLog is the longest pause of a cycle so far, as the runtime tells it.
type pauseLog struct {
	lock  sync.Mutex
	stats debug.GCStats
	known int64 // cycles looked at
	most  time.Duration
}

var pauses = pauseLog{stats: debug.GCStats{Pause: make([]time.Duration, 0, 2*256+3), PauseEnd: make([]time.Time, 0, 256)}}

// look takes note of the cycles since the last look. The latest pause comes first.
func (l *pauseLog) look() {
	l.lock.Lock()
	defer l.lock.Unlock()
	debug.ReadGCStats(&l.stats)
	for i := int64(0); i < l.stats.NumGC-l.known && i < int64(len(l.stats.Pause)); i++ {
		if l.most < l.stats.Pause[i] {
			l.most = l.stats.Pause[i]
		}
	}
	l.known = l.stats.NumGC
}

// longest is that of all cycles that were not known when the program began, in nanoseconds.
func (l *pauseLog) longest() int64 {
	l.look()
	return l.most.Nanoseconds()
}
