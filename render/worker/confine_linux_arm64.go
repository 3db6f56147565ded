package worker

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

var refusedCallsOfArch = []uintptr{unix.SYS_RENAMEAT}
