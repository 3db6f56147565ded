//go:build !unix

package gitstate

import (
	"context"
	"os"
	"path/filepath"
)

// lockFolder does not lock here: see to it that one process at a time uses a
// mirror.
func lockFolder(_ context.Context, dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
}

func unlockFolder(f *os.File) error { return f.Close() }
