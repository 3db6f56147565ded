package devtest

import (
	"runtime"
	"syscall"
)

// threads takes what must run on a thread that lasts as long as the binary.
var threads = make(chan func())

func init() {
	go func() {
		runtime.LockOSThread()
		for f := range threads {
			f()
		}
	}()
}

// parentDeath has a process end with ours.
func parentDeath() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
