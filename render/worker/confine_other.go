//go:build !linux

package worker

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

func attributes() *syscall.SysProcAttr { return nil }

// peak is not known: the unit differs from system to system, and only where
// workers are confined does the kernel end them.
func peak(*os.ProcessState) int64 { return 0 }

func ownPeak() int64 { return 0 }

func confine(memory int64) error {
	return fmt.Errorf("%s has no seccomp", runtime.GOOS)
}
