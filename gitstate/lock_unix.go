//go:build unix

package gitstate

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// lockFolder makes sure that one process at a time uses a mirror. The kernel
// lets go of the lock when the process ends, however it does.
func lockFolder(ctx context.Context, dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, spelled(dir, err)
	}
	// One that was just killed may hold it for a moment: a program that it was
	// about to start has a copy of the descriptor until it runs.
	patience, again := time.NewTimer(time.Second), time.NewTicker(20*time.Millisecond)
	defer patience.Stop()
	defer again.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		select {
		case <-again.C:
			continue
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-patience.C:
			err = fmt.Errorf("%s is in use by another process; give each its own folder: %w", dir, err)
		}
		f.Close()
		return nil, err
	}
}

func unlockFolder(f *os.File) error { return f.Close() }
