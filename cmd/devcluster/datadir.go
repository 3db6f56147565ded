package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// A dataDir is the folder that one cluster owns.
type dataDir struct {
	path string
	lock *os.File // held until the process ends
}

// openDataDir creates the folder if need be, locks it for this process, and
// makes it the working directory: a socket's path has at most 108 bytes, and a
// relative one always fits.
func openDataDir(path string) (dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return dataDir{}, fmt.Errorf("create the data folder: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return dataDir{}, fmt.Errorf("lock the data folder: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return dataDir{}, fmt.Errorf("data folder %s is in use by another devcluster: stop that one, or give another --data-dir", path)
		}
		return dataDir{}, fmt.Errorf("lock the data folder %s: %w", path, err)
	}
	if err := os.Chdir(path); err != nil {
		return dataDir{}, fmt.Errorf("enter the data folder: %w", err)
	}
	return dataDir{path: path, lock: lock}, nil
}

func (d dataDir) file(name ...string) string {
	return filepath.Join(append([]string{d.path}, name...)...)
}

// listen opens the API server's port on loopback: the one that was asked for,
// else the one of the last run, else a free one. What it opened, it remembers,
// so that a kubeconfig outlives a restart.
func (d dataDir) listen(port int) (net.Listener, error) {
	l, err := d.tryListen(port)
	if err != nil {
		return nil, err
	}
	_, text, err := net.SplitHostPort(l.Addr().String())
	if err == nil {
		err = writeFile(d.file("port"), []byte(text+"\n"))
	}
	if err != nil {
		l.Close()
		return nil, fmt.Errorf("remember the port: %w", err)
	}
	return l, nil
}

func (d dataDir) tryListen(port int) (net.Listener, error) {
	if port != 0 {
		l, err := listenLoopback(port)
		if err != nil {
			return nil, fmt.Errorf("%w: free that port, or leave --port out", err)
		}
		return l, nil
	}
	last, err := os.ReadFile(d.file("port"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read the last port: %w", err)
	}
	if port, err := strconv.Atoi(strings.TrimSpace(string(last))); err == nil {
		if l, err := listenLoopback(port); err == nil {
			return l, nil
		}
	}
	return listenLoopback(0)
}

func listenLoopback(port int) (net.Listener, error) {
	return net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// writeFile replaces a file whole: a reader sees the old content or the new,
// and nobody but the user can read it.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
