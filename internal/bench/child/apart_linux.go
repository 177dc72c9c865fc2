package child

import (
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// halves are the processors that this process had when it asked first, in two parts.
// It reports false where there is only one.
var halves = sync.OnceValue(func() (h struct {
	theirs, ours unix.CPUSet
	ok           bool
}) {
	var all unix.CPUSet
	if unix.SchedGetaffinity(0, &all) != nil || all.Count() < 2 {
		return h
	}
	for cpu, n := 0, all.Count(); h.theirs.Count()+h.ours.Count() < n; cpu++ {
		switch {
		case !all.IsSet(cpu):
		case h.theirs.Count() < n/2:
			h.theirs.Set(cpu)
		default:
			h.ours.Set(cpu)
		}
	}
	h.ok = true
	return h
})

// startApart calls start, which begins another process, so that this gets one half of
// the processors, and then keeps this process to the other. The caller's goroutine has
// its thread to itself.
func startApart(start func() error) error {
	h := halves()
	if !h.ok {
		return start()
	}
	if err := unix.SchedSetaffinity(0, &h.theirs); err != nil { // a child has what its parent's thread has
		return start()
	}
	err := start()
	for moveThreads(&h.ours) { // a thread has what the one had that made it: until none is left
	}
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), h.ours.Count()))
	return err
}

// moveThreads has this process's threads run on these processors. It reports whether
// some did not before.
func moveThreads(to *unix.CPUSet) (moved bool) {
	tasks, _ := os.ReadDir("/proc/self/task") // without it, they share
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		var at unix.CPUSet
		if err == nil && unix.SchedGetaffinity(tid, &at) == nil && at != *to {
			moved = unix.SchedSetaffinity(tid, to) == nil || moved
		}
	}
	return moved
}
