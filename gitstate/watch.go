package gitstate

import (
	"context"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Watch says when to look again: at once, about every Poll, when Poke is
// called, and, if the remote is a folder on this machine, when its references
// change. One look answers all that came before it, so the channel holds one
// signal. It is closed when the context or the mirror is.
func (m *Mirror) Watch(ctx context.Context) <-chan struct{} {
	c := make(chan struct{}, 1)
	c <- struct{}{}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		close(c)
		return c
	}
	m.watchers[c] = true
	m.running.Go(func() {
		m.watch(ctx)
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.watchers, c)
		close(c)
	})
	return c
}

// Poke makes each Watch say that it is time to look.
func (m *Mirror) Poke() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c := range m.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (m *Mirror) watch(ctx context.Context) {
	var events chan fsnotify.Event // nil, and so silent, if there is no folder to watch
	var lost chan error
	w := m.watchFolder()
	if w != nil {
		defer w.Close()
		events, lost = w.Events, w.Errors
	}
	timer := time.NewTimer(jitter(m.options.Poll))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.done.Done():
			return
		case <-timer.C:
			timer.Reset(jitter(m.options.Poll))
		case e := <-events:
			if e.Has(fsnotify.Create) {
				watchTree(w, e.Name) // a folder for branches like ledger/x
			}
			if strings.HasSuffix(e.Name, ".lock") {
				continue
			}
		case <-lost: // events, perhaps
		}
		m.Poke()
	}
}

// jitter is d, give or take a fifth, so that many daemons do not ask at once.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// watchFolder watches the references of a repository on this machine; nil if
// it is elsewhere, or can't be watched.
func (m *Mirror) watchFolder() *fsnotify.Watcher {
	if m.remote.ep.Protocol != "file" {
		return nil
	}
	f, err := openFolder(m.remote.ep.Path)
	if err != nil {
		return nil
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		m.log.Warn("could not watch the remote's folder; it is polled", "error", err)
		return nil
	}
	// The git directory itself for packed-refs.
	if err := w.Add(f.common); err != nil {
		m.log.Warn("could not watch the remote's folder; it is polled", "error", err)
		w.Close()
		return nil
	}
	watchTree(w, filepath.Join(f.common, "refs", "heads"))
	watchTree(w, filepath.Join(f.common, "reftable"))
	return w
}

// watchTree watches a folder and those below it.
func watchTree(w *fsnotify.Watcher, dir string) {
	filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			w.Add(name)
		}
		return nil
	})
}
