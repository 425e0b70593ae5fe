package main

import (
	"testing"
	"time"
)

func TestDocuments(t *testing.T) {
	run(documents, 1, 4<<20, 300*time.Millisecond)
}

func BenchmarkDocuments(b *testing.B) {
	one := documents(8<<20, 1)
	for i := 0; i < b.N; i++ {
		one()
	}
}
