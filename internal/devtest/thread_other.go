//go:build !linux

package devtest

import "syscall"

// threads takes what is to be started.
var threads = make(chan func())

func init() {
	go func() {
		for f := range threads {
			f()
		}
	}()
}

// parentDeath can't be asked for here: a killed test leaves its processes.
func parentDeath() *syscall.SysProcAttr { return nil }
