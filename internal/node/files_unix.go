//go:build unix

package node

import (
	"math"
	"syscall"
)

// openFileLimit returns how many files the process may open. Go raises the soft limit to the
// hard limit at startup.
func openFileLimit() int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return math.MaxInt32
	}
	return int(min(uint64(limit.Cur), math.MaxInt32)) //nolint:unconvert // Cur is signed on FreeBSD
}
