package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is a program that the demo has started.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
	err  error         // set before done is closed

	mu    sync.Mutex // guards lines and more
	lines []string   // of its output
	more  chan struct{}
}

// start starts a program whose output is kept.
func start(name string, program string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(program, args...), done: make(chan struct{}), more: make(chan struct{})}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us to handle
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	var wait sync.WaitGroup
	wait.Go(func() {
		s := bufio.NewScanner(r)
		s.Buffer(nil, 1<<20)
		for s.Scan() {
			p.mu.Lock()
			p.lines = append(p.lines, s.Text())
			close(p.more)
			p.more = make(chan struct{})
			p.mu.Unlock()
		}
	})
	go func() {
		p.err = p.cmd.Wait()
		w.Close()
		wait.Wait()
		close(p.done)
	}()
	return p, nil
}

// next waits for the line with number i, from 0 on, and returns it.
func (p *process) next(ctx context.Context, i int) (string, error) {
	for {
		p.mu.Lock()
		more := p.more
		if i < len(p.lines) {
			defer p.mu.Unlock()
			return p.lines[i], nil
		}
		p.mu.Unlock()
		select {
		case <-more:
		case <-p.done:
			if i < len(p.lines) { // nobody writes any more
				return p.lines[i], nil
			}
			return "", fmt.Errorf("%s has ended: %v", p.name, p.err)
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
}

// tail returns the end of what the program has written.
func (p *process) tail() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines[max(0, len(p.lines)-20):], "\n")
}

// all returns what the program has written.
func (p *process) all() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// stop asks the program to end, and ends it if it does not.
func (p *process) stop() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		if p.err != nil {
			return fmt.Errorf("%s did not stop cleanly: %w\n%s", p.name, p.err, p.tail())
		}
		return nil
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not stop within 20 s and was killed", p.name)
	}
}
