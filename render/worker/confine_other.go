//go:build !linux

package worker

import (
	"fmt"
	"runtime"
	"syscall"
)

func attributes() *syscall.SysProcAttr { return nil }

func confine(memory int64) error {
	return fmt.Errorf("%s has no seccomp", runtime.GOOS)
}
