//go:build unix

package gitstate

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockFolder makes sure that one process at a time uses a mirror. The kernel
// lets go of the lock when the process ends, however it does.
func lockFolder(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, spelled(dir, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s is in use by another process; give each its own folder: %w", dir, err)
	}
	return f, nil
}

func unlockFolder(f *os.File) error { return f.Close() }
