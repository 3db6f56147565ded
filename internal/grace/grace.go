// Package grace spares a short program its garbage collections: none runs until it
// holds 64 MiB, where the runtime would begin at 4. What the packages that a program
// is made of set up when it starts is more than that, is never garbage, and would be
// marked several times before main is even called.
//
// It begins with the import. Packages are initialised in the order of their paths,
// behind what they import, and this one imports little; so it comes before those of
// Kubernetes. The operator's GOGC and GOMEMLIMIT go before it, and so does whoever
// sets a memory limit later, such as a daemon.
package grace

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// bytes is what a program may hold, in all, before it is collected; the last one
// tells it from a limit that somebody else has set.
const bytes = 64<<20 + 1

var (
	mu      sync.Mutex
	begun   bool // guarded by mu; and not over
	percent int  // guarded by mu; what is set at the end
	limit   int64
)

func init() {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	begun, percent, limit = true, debug.SetGCPercent(-1), debug.SetMemoryLimit(bytes)
	// The first collection is the end.
	runtime.SetFinalizer(new([64]byte), func(*[64]byte) { end() })
}

func end() {
	mu.Lock()
	defer mu.Unlock()
	if begun && debug.SetMemoryLimit(-1) == bytes {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	}
	begun = false
}

// Percent is [debug.SetGCPercent] for what comes after the grace.
func Percent(n int) {
	mu.Lock()
	defer mu.Unlock()
	if percent = n; !begun {
		debug.SetGCPercent(n)
	}
}
