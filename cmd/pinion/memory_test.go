package main

import "testing"

func TestRestBeginsOnce(t *testing.T) {
	const mib = 1 << 20
	var r quietening
	for i, c := range []struct {
		now  memory
		want bool
	}{
		{memory{500 * mib, 100 * mib}, false}, // the start
		{memory{900 * mib, 150 * mib}, false}, // still at it
		{memory{920 * mib, 150 * mib}, true},
		{memory{940 * mib, 150 * mib}, false}, // scrapes
		{memory{1200 * mib, 150 * mib}, false},
		{memory{1210 * mib, 150 * mib}, true},
	} {
		if got := r.begins(c.now); got != c.want {
			t.Errorf("step %d: %v, want %v", i, got, c.want)
		}
	}
	if got := (memory{live: 10 * mib}).limit(); got != smallHeap {
		t.Errorf("the limit of a small heap is %d", got)
	}
	if got := (memory{live: 300 * mib}).limit(); got != 600*mib {
		t.Errorf("the limit of a large heap is %d", got)
	}
}
