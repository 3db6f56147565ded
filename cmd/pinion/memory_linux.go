package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// protectMemory keeps what is in this process's memory, keys and plaintext
// among it, out of core files, and from other processes of the same user.
func protectMemory() error {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("limit core files: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
