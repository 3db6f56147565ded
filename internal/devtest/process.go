package devtest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// process is a server of somebody else's that runs for a test.
type process struct {
	process *os.Process
	exited  chan struct{} // closed when it has ended
}

// Kill ends it without notice.
func (p *process) Kill() {
	if p.process != nil {
		p.process.Kill()
		<-p.exited
	}
}

// launch starts a server on a free port of the loopback interface, and returns
// when answers has no complaint any more.
func (p *process) launch(dir string, prepare func(address string) (*exec.Cmd, error), answers func(ctx context.Context) error) error {
	for {
		err := p.try(dir, prepare, answers)
		// Between our choice of a port and its use somebody else may take it.
		if err == nil || !strings.Contains(err.Error(), "address already in use") {
			return err
		}
	}
}

func (p *process) try(dir string, prepare func(address string) (*exec.Cmd, error), answers func(ctx context.Context) error) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	address := listener.Addr().String()
	listener.Close()
	cmd, err := prepare(address)
	if err != nil {
		return err
	}
	log := filepath.Join(dir, "log")
	out, err := os.Create(log)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = parentDeath()
	began := make(chan error, 1)
	threads <- func() { began <- cmd.Start() }
	if err := <-began; err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	exited := make(chan struct{})
	p.process, p.exited = cmd.Process, exited
	go func() {
		cmd.Wait()
		close(exited)
	}()

	ctx, cancel := context.WithTimeout(context.Background(), ready)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-exited:
			said, _ := os.ReadFile(log)
			return fmt.Errorf("%s ended before it was ready: %s: %s", cmd.Path, cmd.ProcessState, bytes.TrimSpace(said))
		case <-ctx.Done():
			said, _ := os.ReadFile(log)
			return fmt.Errorf("%s was not ready after %s: %w: %s", cmd.Path, ready, err, bytes.TrimSpace(said))
		}
	}
}

// locate returns a program: what the variable names, else that of the PATH,
// else the one that make has fetched into .cache/FOLDER.
func locate(program, variable, folder string) (string, error) {
	if path := os.Getenv(variable); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("%s: %w", variable, err)
		}
		return path, nil
	}
	if path, err := exec.LookPath(program); err == nil {
		return path, nil
	}
	root, err := module()
	if err != nil {
		return "", err
	}
	path := filepath.Join(root, ".cache", folder, "usr", "bin", program)
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not there; on Debian and its kin get it with: make %s; "+
			"elsewhere install it so that it is on the PATH, or set %s to the binary", program, folder, variable)
	}
	return path, nil
}
