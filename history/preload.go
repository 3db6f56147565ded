package history

import (
	"context"
	"maps"
	"runtime"
	"slices"
	"sync"

	"github.com/pinion-cd/pinion/desired"
)

// Preload reads main and all records side by side, for who is about to ask for all of
// them. What can't be read is read once more, and told of, when it is asked for.
func (view *View) Preload(ctx context.Context) {
	wait := view.preloadMain(ctx)
	defer wait()
	var mu sync.Mutex
	var running sync.WaitGroup
	envs := make(chan desired.EnvironmentName)
	for range runtime.GOMAXPROCS(0) {
		running.Go(func() {
			for env := range envs {
				// One's own view: these are for one goroutine at a time.
				own := NewView(View{Archive: view.Archive, Now: view.Now, Tips: view.Tips})
				_, _ = own.Records(ctx, env)
				mu.Lock()
				maps.Copy(view.read, own.read)
				mu.Unlock()
			}
		})
	}
	for _, env := range slices.Sorted(maps.Keys(view.Tips)) {
		envs <- env
	}
	close(envs)
	running.Wait()
}

// preloadMain begins to read main. Until wait has returned, the view's owner asks
// nothing of main.
func (view *View) preloadMain(ctx context.Context) (wait func()) {
	var running sync.WaitGroup
	running.Go(func() { _, _ = view.Commit(ctx) })
	return running.Wait
}
