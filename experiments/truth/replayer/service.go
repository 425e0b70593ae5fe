package main

import (
	"sync"
	"time"

	"allocsim/truth/tsc"
)

// server is an open loop: a dispatcher starts a goroutine for each request when its time has come.
//
// Until the next one's time the dispatcher sleeps, up to a millisecond longer than it asked to, as sleeps of the runtime
// are; then it starts all whose time has come.
type server struct {
	all       *stream
	responses *histogram
	late      *histogram // starts after the intended arrival
	requests  int
	running   sync.WaitGroup
	start     uint64
	free      chan *request
}

// request is one in flight; serve is its goroutine, made once so that a go statement allocates nothing of its own.
type request struct {
	runner
	server  *server
	ops     []uint64
	arrival uint64 // ticks
	serve   func()
}

func newServer(name string) *server {
	s := &server{all: newStream(words(name)), responses: newHistogram(), late: newHistogram(), free: make(chan *request, 1024)}
	for i := 0; i < 64; i++ {
		s.free <- s.newRequest()
	}
	return s
}

func (s *server) newRequest() *request {
	q := &request{server: s}
	q.stream = s.all
	q.byKind = offHeap(len(makers) + 1)
	q.serve = q.run
	return q
}

// take gives a request's record.
func (s *server) take() *request {
	select {
	case q := <-s.free:
		return q
	default:
		return s.newRequest()
	}
}

// run is the dispatcher. The stream begins with the table of shared variables, if there is one.
func (s *server) run() {
	ops := s.all.ops
	setup := runner{stream: s.all, byKind: s.all.byKind}
	setup.last = tsc.Now()
	if ops[0]&0xffff == opTable {
		setup.run(ops[:2])
		s.all.table = setup.own
		ops = ops[2:]
	}
	s.start = tsc.Now()
	for len(ops) > 0 {
		words := ops[2]
		arrival := s.start + uint64(float64(ops[1])/clock.tickPs)
		s.await(arrival)
		q := s.take()
		q.ops, q.arrival = ops[3:3+words], arrival
		s.running.Add(1)
		s.requests++
		s.late.add(picoseconds(tsc.Now() - arrival))
		go q.serve()
		ops = ops[3+words:]
	}
	s.running.Wait()
	for {
		select {
		case q := <-s.free:
			q.settle()
		default:
			return
		}
	}
}

// await returns at an instant, or as soon after as the dispatcher gets a P.
func (s *server) await(arrival uint64) {
	for {
		now := tsc.Now()
		if now >= arrival {
			return
		}
		time.Sleep(time.Duration(picoseconds(arrival-now)/1000 + 1))
	}
}

// run is a request's goroutine. Its variables are dead at its end. What its last compute left of the replayer's own time
// is taken off the first of the next one with this record.
func (q *request) run() {
	q.last = tsc.Now()
	q.runner.run(q.ops)
	q.own = nil
	q.server.responses.add(picoseconds(tsc.Now() - q.arrival))
	select {
	case q.server.free <- q:
	default:
		q.settle()
	}
	q.server.running.Done()
}
