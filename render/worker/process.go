package worker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/pinion-cd/pinion/desired"
	"github.com/pinion-cd/pinion/render"
)

// process is the pool's side of one worker. One rendering at a time uses it.
type process struct {
	cmd       *exec.Cmd
	in        *os.File // the worker's standard input
	out       *os.File
	writer    *bufio.Writer
	reader    *bufio.Reader
	stderr    *ends
	exited    chan struct{} // closed when the process is gone
	exit      error         // what Wait said; after exited
	idle      *time.Timer   // while it lies in the pool
	renders   int           // done so far
	memory    uint64        // bytes it held after the last one
	inherited int64         // the most memory in bytes that we held when we started it
	confined  *string       // what its hello said; nil before that
}

// start starts a worker. It may do nothing else with the calling thread's
// state: on Linux the worker lives only as long as that thread.
func start(executable string, memory int64, o openers) (*process, error) {
	childIn, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	out, childOut, err := os.Pipe()
	if err != nil {
		childIn.Close()
		in.Close()
		return nil, err
	}
	p := &process{
		in: in, out: out,
		writer: bufio.NewWriterSize(in, 64<<10),
		reader: bufio.NewReaderSize(out, 64<<10),
		stderr: &ends{},
		exited: make(chan struct{}),
	}
	p.cmd = exec.Command(executable, Argument)
	p.cmd.Env = []string{guard + "=" + strconv.FormatInt(memory, 10)}
	p.cmd.Dir = "/"
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = childIn, childOut, p.stderr
	p.cmd.SysProcAttr = attributes()
	p.cmd.WaitDelay = time.Second
	err = p.cmd.Start()
	p.inherited = ownPeak()
	childIn.Close()
	childOut.Close()
	if err != nil {
		in.Close()
		out.Close()
		return nil, fmt.Errorf("start a render worker: %w", err)
	}
	go func() {
		p.exit = p.cmd.Wait()
		close(p.exited)
	}()
	if !o.none() {
		// If it is gone already, the first rendering finds that out.
		_ = writeFrame(p.writer, kindSecrets, encode(o))
	}
	return p, nil
}

// stop ends the worker and waits until it is gone.
func (p *process) stop() {
	p.cmd.Process.Kill()
	<-p.exited
	p.in.Close()
	p.out.Close()
}

// peak is the most memory in bytes that the process held, which must be gone; 0 if
// that is not known.
func (p *process) peak() int64 {
	if p.cmd.ProcessState == nil {
		return 0
	}
	if n := peak(p.cmd.ProcessState); n > p.inherited {
		return n
	}
	return 0
}

// errGone says that the worker was dead before the rendering began: it had not
// even asked for the first file.
var errGone = errors.New("the render worker is gone")

// render does one rendering. After an error the process must be stopped; the
// error is an *ended if the process died or has to.
func (p *process) render(ctx context.Context, rec *render.Recorder, req render.Request, o Options) (*render.Result, error) {
	defer context.AfterFunc(ctx, func() { p.cmd.Process.Kill() })()
	content, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	if err := writeFrame(p.writer, kindRequest, content); err != nil {
		return nil, errGone
	}
	limit := func(k kind) int {
		switch k {
		case kindOpen, kindList, kindStat, kindID, kindDecrypt:
			return maxName
		case kindBlob:
			return o.OutputLimit
		default:
			return maxHeader
		}
	}
	var head header
	heard := false
	for {
		k, content, err := readFrame(p.reader, limit)
		if err != nil {
			if errors.Is(err, errTooLong) {
				return nil, &ended{tooLong: true}
			}
			if !heard {
				return nil, errGone
			}
			return nil, &ended{}
		}
		heard = heard || k != kindHello
		switch k {
		case kindHello:
			var h hello
			if err := json.Unmarshal(content, &h); err != nil {
				return nil, &ended{}
			}
			p.confined = &h.Confined
		case kindOpen, kindList, kindStat, kindID:
			if err := writeFrame(p.writer, kindAnswer, answer(rec, k, string(content))); err != nil {
				return nil, &ended{}
			}
		case kindDecrypt:
			plain := decrypted(ctx, rec, o.Sops, string(content))
			err := writeFrame(p.writer, kindAnswer, plain)
			clear(plain)
			if err != nil {
				return nil, &ended{}
			}
		case kindError:
			var f failure
			if err := json.Unmarshal(content, &f); err != nil {
				return nil, &ended{}
			}
			return nil, f.err()
		case kindResult:
			if err := json.Unmarshal(content, &head); err != nil {
				return nil, &ended{}
			}
		case kindBlob:
			p.renders++
			p.memory = head.Memory
			return head.result(content)
		default:
			return nil, &ended{}
		}
	}
}

// result puts the objects together again.
func (h header) result(blob []byte) (*render.Result, error) {
	r := &render.Result{Digest: h.Digest, Warnings: h.Warnings, Sealed: h.Sealed}
	for _, o := range h.Objects {
		if o.Size < 0 || o.Size > len(blob) {
			return nil, &ended{}
		}
		object := render.Object{Ref: o.Ref, Version: o.Version, Digest: o.Digest, At: o.At, JSON: blob[:o.Size:o.Size], Hidden: o.Hidden}
		if o.Hook != "" {
			r.Hooks = append(r.Hooks, render.Hook{When: o.Hook, Object: object})
		} else {
			r.Objects = append(r.Objects, object)
		}
		blob = blob[o.Size:]
	}
	if len(blob) > 0 {
		return nil, &ended{}
	}
	return r, nil
}

// answer answers a worker's question from the tree.
func answer(rec *render.Recorder, k kind, name string) []byte {
	if !fs.ValidPath(name) {
		return failed(&fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid})
	}
	content, err := look(rec, k, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []byte{answerAbsent}
	case err != nil:
		return failed(err)
	}
	return content
}

// decrypted answers a worker that wants a file decrypted by the sops program.
func decrypted(ctx context.Context, rec *render.Recorder, program *Sops, name string) []byte {
	if program == nil || !fs.ValidPath(name) {
		return failed(&fs.PathError{Op: "decrypt", Path: name, Err: fs.ErrInvalid})
	}
	data, err := rec.ReadFile(name)
	if err != nil {
		return failed(err)
	}
	plain, err := program.decrypt(ctx, name, data)
	if err != nil {
		return failed(err)
	}
	defer clear(plain)
	return withID("", plain)
}

func look(rec *render.Recorder, k kind, name string) ([]byte, error) {
	var v any
	var content []byte
	var err error
	switch k {
	case kindOpen:
		content, err = rec.ReadFile(name)
	case kindList:
		var list []fs.DirEntry
		list, err = rec.ReadDir(name)
		entries := make([]entry, len(list))
		for i, e := range list {
			entries[i] = entry{Name: e.Name(), Mode: e.Type()}
		}
		v = entries
	case kindStat:
		var i fs.FileInfo
		if i, err = rec.Stat(name); err == nil {
			v = entry{Name: i.Name(), Mode: i.Mode(), Size: i.Size()}
			if i.IsDir() {
				data, err := json.Marshal(v)
				return withID("", data), err // its id is no part of what was asked
			}
		}
	}
	if err != nil {
		return nil, err
	}
	if v != nil {
		if content, err = json.Marshal(v); err != nil {
			return nil, err
		}
	}
	id, err := rec.ID(name)
	return withID(id, content), err
}

var _ desired.Tree = (*render.Recorder)(nil)

// ends keeps the first and the last bytes of what a worker writes to its
// standard error: Go says why it gives up first, and then where, at length.
type ends struct {
	mu   sync.Mutex
	head []byte // guarded by mu
	tail []byte // guarded by mu
}

const keep = 4 << 10

func (e *ends) Write(p []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(p)
	if room := keep - len(e.head); room > 0 {
		room = min(room, len(p))
		e.head = append(e.head, p[:room]...)
		p = p[room:]
	}
	if e.tail = append(e.tail, p...); len(e.tail) > keep {
		e.tail = append([]byte(nil), e.tail[len(e.tail)-keep:]...)
	}
	return n, nil
}

func (e *ends) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return string(e.head) + string(e.tail)
}
