//go:build unix

package main

import "syscall"

// maxOpenFiles returns how many files this process may open.
func maxOpenFiles() int {
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		return 0
	}
	return int(min(1<<20, files.Cur))
}
