package etcdsim

import (
	"runtime"
	"testing"
	"testing/synctest"
)

// Bubble runs a simulation in virtual time, on one processor. On more, Go's race
// detector lets two threads at the timers of one bubble, and crashes after a minute or
// two of them (seen with go1.26.8; golang.org/issue/78156 looks like it). It loses
// nothing by it: it looks at what is ordered, not at what happens at once.
func Bubble(t *testing.T, simulation func(*testing.T)) {
	t.Helper()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	synctest.Test(t, simulation)
}
