package etcdsim

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Bubble runs a simulation in virtual time, on one processor. On several processors, Go's
// race detector crashes after a minute or two, because two threads access the timers of one
// bubble (seen with go1.26.8; golang.org/issue/78156 may be the cause). One processor does
// not hide races: the detector compares the order of events, not their times.
func Bubble(t *testing.T, simulation func(*testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, simulation)
}
