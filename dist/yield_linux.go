package dist

import "syscall"

// yield lets another thread have the processor, if one waits for it: with more ranks than cores, the one that others wait for.
func yield() { _, _, _ = syscall.Syscall(syscall.SYS_SCHED_YIELD, 0, 0, 0) }
