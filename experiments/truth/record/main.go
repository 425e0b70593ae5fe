// Command record is a program to be recorded: a few ways of using the heap, each for so many seconds or rounds.
//
// churn: objects of many sizes, a ring of which lives. json: documents decoded and encoded, a cache of which lives.
// tree: a tree that lives, others that are built and dropped. grow: records that all stay. serve: json behind HTTP, with
// net/http/pprof, asked by itself.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"runtime/pprof"
	"sync"
	"time"
)

var (
	kind    = flag.String("kind", "churn", "churn, json, tree, grow or serve")
	workers = flag.Int("workers", 1, "goroutines that allocate")
	live    = flag.Int("live", 20, "MB that live, about")
	seconds = flag.Float64("seconds", 2, "how long")
	pause   = flag.Int("compute", 0, "rounds of computing between two steps")
	profile = flag.String("memprofile", "", "write a heap profile there at the end")
	listen  = flag.String("listen", "127.0.0.1:6060", "of serve: where")
)

// generator is a small linear congruence: the same numbers everywhere.
type generator uint64

func (r *generator) below(n int) int {
	*r = *r*6364136223846793005 + 1442695040888963407
	return int(uint64(*r)>>33) % n
}

var sink uint64

func compute(rounds int) {
	x := uint64(rounds)
	for i := 0; i < rounds; i++ {
		x = x*6364136223846793005 + 1
	}
	sink += x
}

// step is one step of a worker that holds some share of the live bytes.
type step func()

type node struct {
	left, right *node
	value       [2]int
}

func tree(depth int) *node {
	if depth == 0 {
		return &node{}
	}
	return &node{left: tree(depth - 1), right: tree(depth - 1)}
}

type linked struct {
	next    *linked
	payload [10]int
}

// churn makes bytes without pointers and records with some, and keeps the last so many of each.
func churn(share int, seed generator) step {
	slots := share / 400
	raw, records := make([][]byte, slots), make([]*linked, slots)
	return func() {
		for i := 0; i < 100; i++ {
			at := seed.below(slots)
			raw[at] = make([]byte, 16<<seed.below(7))
			records[at] = &linked{}
			records[at].next = records[at]
		}
	}
}

type document struct {
	Name   string            `json:"name"`
	Tags   []string          `json:"tags"`
	Fields map[string]string `json:"fields"`
	Points []point           `json:"points"`
}

type point struct {
	X, Y  float64
	Label *string
}

const text = `{"name":"a document","tags":["one","two","three","four"],"fields":{"alpha":"1","beta":"22","gamma":"333"},` +
	`"points":[{"X":1.5,"Y":2.5,"Label":"first"},{"X":3.5,"Y":4.5,"Label":"second"},{"X":5.5,"Y":6.5}]}`

// documents decodes, keeps in a cache that evicts at random, and encodes one of those kept.
func documents(share int, seed generator) step {
	cache := make([]*document, share/1200)
	return func() {
		for i := 0; i < 10; i++ {
			found := new(document)
			if json.Unmarshal([]byte(text), found) != nil {
				panic("the document cannot be decoded")
			}
			cache[seed.below(len(cache))] = found
			if one := cache[seed.below(len(cache))]; one != nil {
				out, _ := json.Marshal(one)
				sink += uint64(len(out))
			}
		}
	}
}

// trees keeps one tree and builds smaller ones.
func trees(share int, _ generator) step {
	depth := 1
	for (2<<depth)*32 < share {
		depth++
	}
	kept := tree(depth - 1)
	return func() {
		sink += uint64(tree(10).value[0] + kept.value[1])
	}
}

var grown sync.Map

// growing keeps a tenth of what it makes.
func growing(_ int, seed generator) step {
	var records []*linked
	name := seed
	return func() {
		for i := 0; i < 100; i++ {
			one := &linked{}
			if seed.below(10) == 0 {
				records = append(records, one)
			}
			sink += uint64(one.payload[0])
		}
		grown.Store(name, records)
	}
}

func serve(share int) {
	var mutex sync.Mutex
	one := documents(share, 1)
	http.HandleFunc("/work", func(w http.ResponseWriter, _ *http.Request) {
		mutex.Lock()
		one()
		mutex.Unlock()
		fmt.Fprintln(w, "done")
	})
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	go http.Serve(listener, nil)
}

func ask() {
	answer, err := http.Get("http://" + *listen + "/work")
	if err == nil {
		answer.Body.Close()
	}
}

var makers = map[string]func(int, generator) step{
	"churn": churn, "json": documents, "tree": trees, "grow": growing,
	"serve": func(int, generator) step { return ask },
}

func main() {
	flag.Parse()
	make, known := makers[*kind]
	if !known {
		fmt.Fprintf(os.Stderr, "no kind %s\n", *kind)
		os.Exit(2)
	}
	if *kind == "serve" {
		serve(*live << 20)
	}
	run(make, *workers, *live<<20, time.Duration(*seconds*1e9))
	if *profile != "" {
		file, err := os.Create(*profile)
		if err == nil {
			err = pprof.Lookup("heap").WriteTo(file, 0)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		file.Close()
	}
}

// held keeps what the workers hold until the program ends.
var held []step

func run(make func(int, generator) step, workers, bytes int, length time.Duration) {
	var all sync.WaitGroup
	var mutex sync.Mutex
	end := time.Now().Add(length)
	for i := 0; i < workers; i++ {
		all.Add(1)
		go func(seed generator) {
			defer all.Done()
			one := make(bytes/workers, seed)
			mutex.Lock()
			held = append(held, one)
			mutex.Unlock()
			for time.Now().Before(end) {
				one()
				compute(*pause)
			}
		}(generator(i + 1))
	}
	all.Wait()
}
