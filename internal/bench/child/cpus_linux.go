package child

import (
	"os"
	"runtime"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// cpuHalves returns the processors that were available to this process at the first
// call, in two halves. ok is false if there is only one processor.
var cpuHalves = sync.OnceValue(func() (h struct {
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

// startOnOtherCPUs calls start, which starts a child process, so that the child is
// restricted to one half of the processors, and then restricts this process to the other
// half. The caller's goroutine must be locked to its thread.
func startOnOtherCPUs(start func() error) error {
	h := cpuHalves()
	if !h.ok {
		return start()
	}
	if err := unix.SchedSetaffinity(0, &h.theirs); err != nil { // the child inherits this from the thread
		return start()
	}
	err := start()
	for pinThreads(&h.ours) { // new threads inherit from the thread that creates them, so repeat until all are pinned
	}
	runtime.GOMAXPROCS(min(runtime.GOMAXPROCS(0), h.ours.Count()))
	return err
}

// pinThreads restricts the threads of this process to the given processors. It reports
// whether it changed any thread.
func pinThreads(to *unix.CPUSet) (moved bool) {
	tasks, _ := os.ReadDir("/proc/self/task") // without /proc, no thread is pinned
	for _, task := range tasks {
		tid, err := strconv.Atoi(task.Name())
		var at unix.CPUSet
		if err == nil && unix.SchedGetaffinity(tid, &at) == nil && at != *to {
			moved = unix.SchedSetaffinity(tid, to) == nil || moved
		}
	}
	return moved
}
