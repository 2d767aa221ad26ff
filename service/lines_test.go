package service_test

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/berth-run/berth/service"
)

// TestLines: every line arrives once and whole, whoever writes at the same
// time, in few writes, and without a flush, too.
func TestLines(t *testing.T) {
	r, w := io.Pipe()
	l := service.NewLines(w)
	fmt.Fprintln(l, "first")
	first := make([]byte, len("first\n"))
	if _, err := io.ReadFull(r, first); err != nil || string(first) != "first\n" { // after a moment, by itself
		t.Fatalf("%q, %v", first, err)
	}
	var got counted
	l = service.NewLines(&got)
	var all sync.WaitGroup
	const writers, each = 8, 2000
	for i := range writers {
		all.Go(func() {
			for n := range each {
				fmt.Fprintf(l, "%d-%d\n", i, n)
			}
		})
	}
	all.Wait()
	l.Flush()
	next := [writers]int{}
	for line := range strings.Lines(got.String()) {
		var i, n int
		if _, err := fmt.Sscanf(line, "%d-%d\n", &i, &n); err != nil || n != next[i] {
			t.Fatalf("%q, want %d-%d", line, i, next[i])
		}
		next[i]++
	}
	for i, n := range next {
		if n != each {
			t.Errorf("%d lines of writer %d", n, i)
		}
	}
	if got.writes > writers*each/10 {
		t.Errorf("%d writes", got.writes)
	}
}

type counted struct {
	bytes.Buffer
	writes int
}

func (c *counted) Write(b []byte) (int, error) { c.writes++; return c.Buffer.Write(b) }
