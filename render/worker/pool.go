package worker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
	"github.com/pinion-cd/pinion/render/sops"
)

// Options are the limits of a Pool. The zero value of each stands for its
// default.
type Options struct {
	Size        int           // workers at once; the number of processors
	Timeout     time.Duration // of one rendering; 30 seconds
	MemoryLimit int64         // of one worker, in bytes; 512 MiB
	OutputLimit int           // of one rendering's objects, in bytes; render.MaxOutput
	Renders     int           // of one worker before another takes its place; 500
	Idle        time.Duration // before a worker without work goes; 1 minute
	Executable  string        // the binary, whose main calls Hook; this one
	Keys        *sops.Keys    // what opens encrypted files; nil: nothing does
	Sops        *Sops         // the program that opens those that Keys do not; nil: nothing does
}

func (o Options) withDefaults() (Options, error) {
	o.Size = cmp.Or(o.Size, runtime.NumCPU())
	o.Timeout = cmp.Or(o.Timeout, 30*time.Second)
	o.MemoryLimit = cmp.Or(o.MemoryLimit, 512<<20)
	o.OutputLimit = cmp.Or(o.OutputLimit, render.MaxOutput)
	o.Renders = cmp.Or(o.Renders, 500)
	o.Idle = cmp.Or(o.Idle, time.Minute)
	if o.Executable == "" {
		var err error
		if o.Executable, err = os.Executable(); err != nil {
			return o, fmt.Errorf("find this program's own file: %w", err)
		}
	}
	return o, nil
}

func (o Options) openers() openers {
	return openers{Keys: o.Keys.Text(), Program: o.Sops != nil}
}

func (o openers) none() bool { return len(o.Keys) == 0 && !o.Program }

// Pool renders in worker processes, several at once. Its methods may be
// called from many goroutines; the trees must allow that, too.
type Pool struct {
	options Options
	err     error         // of New
	slots   chan struct{} // one for each rendering at once
	closed  chan struct{}
	starts  chan func() // to the thread that starts workers
	started chan struct{}

	mu       sync.Mutex
	idle     []*process        // guarded by mu; the last one was used last
	all      map[*process]bool // guarded by mu
	isClosed bool              // guarded by mu
	confined *string           // guarded by mu; what the last new worker said
}

// ErrClosed is what Render returns after Close.
var ErrClosed = errors.New("the render pool is closed")

// New returns a pool. It starts workers when they are needed.
func New(o Options) *Pool {
	o, err := o.withDefaults()
	p := &Pool{
		options: o,
		err:     err,
		slots:   make(chan struct{}, max(o.Size, 1)),
		closed:  make(chan struct{}),
		starts:  make(chan func()),
		started: make(chan struct{}),
		all:     map[*process]bool{},
	}
	go p.startWorkers()
	return p
}

// startWorkers starts all workers from one thread that lives as long as the
// pool, for on Linux a process can ask to be ended together with its parent,
// and means the parent's thread by that.
func (p *Pool) startWorkers() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.started)
	for {
		select {
		case f := <-p.starts:
			f()
		case <-p.closed:
			return
		}
	}
}

// Render renders one service. It waits for a free worker.
//
// The error is a *render.Error if the manifests are to blame, which includes
// that they take too long or need too much memory. It is the context's if
// that is done, and the tree's if that could not be read.
func (p *Pool) Render(ctx context.Context, tree desired.Tree, req render.Request) (*render.Result, error) {
	if p.err != nil {
		return nil, p.err
	}
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-p.closed:
		return nil, ErrClosed
	}
	w, err := p.take()
	if err != nil {
		return nil, err
	}
	result, err := p.render(ctx, w, tree, req)
	if errors.Is(err, errGone) {
		// It died of its own while it waited. A new one that does the same is
		// an error.
		if w, err = p.start(); err != nil {
			return nil, err
		}
		result, err = p.render(ctx, w, tree, req)
		if errors.Is(err, errGone) {
			err = fmt.Errorf("the render worker %s ended before it began (%v): %s", p.options.Executable, w.exit, lastWords(w.stderr.String()))
		}
	}
	return result, err
}

// render does one rendering with w, and puts w back or ends it.
func (p *Pool) render(ctx context.Context, w *process, tree desired.Tree, req render.Request) (*render.Result, error) {
	rec := render.Record(tree)
	result, err := p.record(ctx, w, rec, req)
	if e, ok := errors.AsType[*render.Error](err); ok {
		if reads, unread := rec.Reads(); unread == nil { // else it is not known
			e.Reads = reads
		}
	}
	return result, err
}

// record is render without what is to be told of a failure.
func (p *Pool) record(ctx context.Context, w *process, rec *render.Recorder, req render.Request) (*render.Result, error) {
	limited, cancel := context.WithTimeoutCause(ctx, p.options.Timeout, errTimeout)
	defer cancel()
	result, err := w.render(limited, rec, req, p.options)
	p.note(w)
	if err == nil && rec.Err() == nil && limited.Err() == nil {
		if result.Reads, err = rec.Reads(); err == nil {
			p.put(w)
			return result, nil
		}
	}
	if errors.Is(err, errGone) {
		p.end(w)
	} else {
		p.retire(w)
	}
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case rec.Err() != nil && !mendable(rec.Err(), err):
		return nil, rec.Err()
	case p.over():
		return nil, ErrClosed
	case context.Cause(limited) == errTimeout:
		return nil, tooSlow(p.options, entrance(rec, req.Folder))
	}
	if e, ok := errors.AsType[*ended](err); ok {
		return nil, e.explain(w, p.options, entrance(rec, req.Folder))
	}
	return nil, err
}

// mendable says whether the author can mend what went wrong with reading, so
// that what the worker made of it, with the line, is the better error.
func mendable(reading, rendering error) bool {
	_, ok := errors.AsType[*render.Error](reading)
	return ok && rendering != nil
}

// Confined says whether the operating system keeps the workers from files and
// the network; if not, the text says why. It is known after the first
// rendering.
func (p *Pool) Confined() (bool, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.confined == nil {
		return false, "no worker has run yet"
	}
	return *p.confined == "", *p.confined
}

// Close ends all workers, also those at work, and waits until they are gone.
func (p *Pool) Close() {
	p.mu.Lock()
	if !p.isClosed {
		p.isClosed = true
		close(p.closed)
	}
	var all []*process
	for w := range p.all {
		all = append(all, w)
	}
	p.mu.Unlock()
	<-p.started
	for _, w := range all {
		p.end(w)
	}
}

func (p *Pool) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.isClosed
}

// take returns the worker that was used last, or a new one.
func (p *Pool) take() (*process, error) {
	p.mu.Lock()
	for len(p.idle) > 0 {
		w := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		w.idle.Stop()
		p.mu.Unlock()
		select {
		case <-w.exited:
			p.end(w)
			p.mu.Lock()
		default:
			return w, nil
		}
	}
	p.mu.Unlock()
	return p.start()
}

func (p *Pool) start() (*process, error) {
	var w *process
	err := ErrClosed
	done := make(chan struct{})
	select {
	case p.starts <- func() { w, err = start(p.options.Executable, p.options.MemoryLimit, p.options.openers()); close(done) }:
		<-done
	case <-p.closed:
	}
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	over := p.isClosed
	p.all[w] = true
	p.mu.Unlock()
	if over {
		p.end(w)
		return nil, ErrClosed
	}
	return w, nil
}

// put keeps a worker for the next rendering, unless it has done its share.
func (p *Pool) put(w *process) {
	if w.renders >= p.options.Renders || w.memory > uint64(p.options.MemoryLimit)/2 {
		p.retire(w)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.isClosed {
		return // Close ends it
	}
	w.idle = time.AfterFunc(p.options.Idle, func() { p.expire(w) })
	p.idle = append(p.idle, w)
}

// retire ends a worker and starts the next one, so that it is ready when it
// is needed.
func (p *Pool) retire(w *process) {
	p.end(w)
	if next, err := p.start(); err == nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.isClosed {
			next.idle = time.AfterFunc(p.options.Idle, func() { p.expire(next) })
			p.idle = slices.Insert(p.idle, 0, next)
		}
	}
}

// expire ends a worker that had nothing to do for a while.
func (p *Pool) expire(w *process) {
	p.mu.Lock()
	i := slices.Index(p.idle, w)
	if i >= 0 {
		p.idle = slices.Delete(p.idle, i, i+1)
	}
	p.mu.Unlock()
	if i >= 0 {
		p.end(w)
	}
}

func (p *Pool) end(w *process) {
	w.stop()
	p.mu.Lock()
	delete(p.all, w)
	p.mu.Unlock()
}

func (p *Pool) note(w *process) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w.confined != nil {
		p.confined = w.confined
	}
}
