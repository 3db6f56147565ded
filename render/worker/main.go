package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"time"

	"github.com/pinion-cd/pinion/render"
	"github.com/pinion-cd/pinion/render/sops"
)

// Argument is the hidden argument of a worker's command line.
const Argument = "render-worker"

// guard is the only variable in a worker's environment. It holds the memory
// limit in bytes; without it the argument alone starts no worker.
const guard = "PINION_RENDER_WORKER"

// exitMemory is the exit status of a worker that went over its memory limit.
const exitMemory = 97

// maxStack is how far the stack of a worker may grow, in bytes: enough for
// any manifests that a person wrote, and far less than the memory limit.
const maxStack = 128 << 20

// Hook turns this process into a worker if a Pool started it as one, and
// never returns then. It must be the first thing in main, before anything is
// opened; tests call it in TestMain.
func Hook() {
	if len(os.Args) == 2 && os.Args[1] == Argument && os.Getenv(guard) != "" {
		Main()
	}
}

// Main is a worker's life: it confines itself, then answers one request after
// another until its standard input ends. It does not return.
func Main() {
	limit, err := strconv.ParseInt(os.Getenv(guard), 10, 64)
	if err != nil || limit <= 0 {
		os.Exit(2)
	}
	os.Clearenv()
	in, out := os.Stdin, os.Stdout
	os.Stdout = os.Stderr // what a library prints must not end up between the frames
	debug.SetMaxStack(maxStack)
	debug.SetMemoryLimit(limit)
	debug.SetGCPercent(400) // a rendering leaves little behind; the limit above holds all the same
	runtime.GOMAXPROCS(2)   // one for the rendering, one to watch it
	http.DefaultTransport = refuse{}

	w := &server{
		out:    bufio.NewWriterSize(out, 64<<10),
		frames: make(chan frame),
		limit:  uint64(limit),
	}
	var h hello
	if err := confine(limit); err != nil {
		h.Confined = err.Error()
	}
	go w.receive(bufio.NewReaderSize(in, 64<<10))
	w.send(kindHello, encode(h))
	for f := range w.frames {
		switch f.kind {
		case kindSecrets:
			w.take(f.content)
		case kindRequest:
			w.serve(f.content)
		default:
			os.Exit(2)
		}
	}
}

// refuse is the transport of http.DefaultClient in a worker.
type refuse struct{}

func (refuse) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, errors.New("a rendering has no network")
}

type frame struct {
	kind    kind
	content []byte
}

// server is the worker's side of the connection.
type server struct {
	out      *bufio.Writer
	frames   chan frame
	limit    uint64 // bytes of memory
	renderer render.Renderer
}

// receive reads all that the pool says. It runs beside the rendering, so that
// the end of the pool is the end of the worker even in the middle of a loop.
func (w *server) receive(in *bufio.Reader) {
	for {
		k, content, err := readFrame(in, func(kind) int { return 1 << 30 })
		if err != nil {
			os.Exit(0)
		}
		w.frames <- frame{k, content}
	}
}

func (w *server) send(k kind, content ...[]byte) {
	if err := writeFrame(w.out, k, content...); err != nil {
		os.Exit(0)
	}
}

// take keeps what encrypted files are opened with.
func (w *server) take(content []byte) {
	var o openers
	if err := json.Unmarshal(content, &o); err != nil {
		os.Exit(2)
	}
	if len(o.Keys) > 0 {
		keys, err := sops.ParseKeys("the keys", o.Keys)
		if err != nil {
			os.Exit(2) // the pool has parsed them
		}
		w.renderer.Keys = keys
	}
	if o.Program {
		w.renderer.Program = func(name string) ([]byte, error) { return w.tree().question(kindDecrypt, name) }
	}
}

// tree is the tree of a rendering, as the pool answers for it.
func (w *server) tree() *remote {
	return &remote{ids: map[string]string{}, ask: func(k kind, name string) ([]byte, error) {
		w.send(k, []byte(name))
		f, ok := <-w.frames
		if !ok || f.kind != kindAnswer {
			os.Exit(2)
		}
		return f.content, nil
	}}
}

// serve does one rendering.
func (w *server) serve(content []byte) {
	var req render.Request
	if err := json.Unmarshal(content, &req); err != nil {
		w.send(kindError, encode(failure{Text: err.Error()}))
		return
	}
	done := make(chan struct{})
	defer close(done)
	go w.watch(done)

	result, err := w.renderer.Build(context.Background(), w.tree(), req)
	if err != nil {
		f := failure{Text: err.Error()}
		if e, ok := errors.AsType[*render.Error](err); ok {
			f = failure{Error: e}
		}
		w.send(kindError, encode(f))
		return
	}
	h := header{Digest: result.Digest, Warnings: result.Warnings, Sealed: result.Sealed, Memory: memory()}
	var blob [][]byte
	for _, o := range result.Objects {
		h.Objects = append(h.Objects, objectHeader{Ref: o.Ref, Version: o.Version, Digest: o.Digest, At: o.At, Size: len(o.JSON), Hidden: o.Hidden})
		blob = append(blob, o.JSON)
	}
	for _, o := range result.Hooks {
		h.Objects = append(h.Objects, objectHeader{Ref: o.Ref, Version: o.Version, Digest: o.Digest, At: o.At, Size: len(o.JSON), Hook: o.When, Hidden: o.Hidden})
		blob = append(blob, o.JSON)
	}
	w.send(kindResult, encode(h))
	w.send(kindBlob, blob...)
}

// watch ends the process when it holds more memory than it may.
func (w *server) watch(done <-chan struct{}) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			if memory() > w.limit {
				os.Exit(exitMemory)
			}
		}
	}
}

// memory is how many bytes the process holds.
func memory() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		os.Exit(2) // only strings, numbers and lists of them
	}
	return data
}
