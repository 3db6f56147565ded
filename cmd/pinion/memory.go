package main

import (
	"context"
	"os"
	"runtime/debug"
	measure "runtime/metrics"
	"time"
)

// The daemon holds little, and makes much garbage when much changes. So garbage
// may be as much as twice what is held before it is collected, but not where
// much is held; and when all is at rest again, what is free goes back to the
// system. The operator's GOGC and GOMEMLIMIT go before all that.
const (
	garbagePercent = 200
	smallHeap      = 384 << 20 // up to this much memory, garbage does not matter
	restInterval   = time.Minute
)

// keepSmall bounds the memory of the daemon until ctx ends.
func keepSmall(ctx context.Context) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(smallHeap) // before the percentage, lest another limit's end sets that again
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbagePercent)
	}
	tick := time.NewTicker(restInterval)
	defer tick.Stop()
	samples := []measure.Sample{{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"}}
	var r quietening
	for {
		measure.Read(samples)
		now := memory{samples[0].Value.Uint64(), samples[1].Value.Uint64()}
		if os.Getenv("GOMEMLIMIT") == "" {
			debug.SetMemoryLimit(int64(now.limit()))
		}
		if r.begins(now) {
			debug.FreeOSMemory()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// memory is what was allocated since the start, and what is held.
type memory struct{ allocated, live uint64 }

// limit is from which size on garbage is collected more often than by percent.
func (m memory) limit() uint64 { return max(smallHeap, 2*m.live) }

// quietening notices when there was much to do and there is no more.
type quietening struct {
	last memory
	busy bool
}

// begins tells whether the first interval without much work has just ended. Who
// looks at the metrics makes some garbage, too.
func (r *quietening) begins(now memory) bool {
	made := now.allocated - r.last.allocated
	r.last = now
	if made > now.live/2 {
		r.busy = true
		return false
	}
	was := r.busy
	r.busy = false
	return was
}
