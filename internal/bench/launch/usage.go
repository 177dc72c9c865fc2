package launch

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Usage is the resource usage of a process and its children. It is zero on systems
// without /proc.
type Usage struct {
	CPU         time.Duration
	ChildrenCPU time.Duration // part of CPU
	Resident    int64         // bytes
	Descriptors int
}

// clockTick is the unit of times in /proc. USER_HZ is 100 on all architectures of
// Linux.
const clockTick = 10 * time.Millisecond

// processUsage returns the usage of pid and its children.
func processUsage(pid int) Usage {
	var sum Usage
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return sum
	}
	for _, path := range stats {
		id, parent, cpu, ok := readStat(path)
		if ok && (id == pid || parent == pid) {
			sum.CPU += cpu
			if id != pid {
				sum.ChildrenCPU += cpu
			}
			sum.Resident += readResident(filepath.Dir(path))
			open, _ := os.ReadDir(filepath.Join(filepath.Dir(path), "fd")) // it fails for a process of another user
			sum.Descriptors += len(open)
		}
	}
	return sum
}

// readResident returns the resident memory of the process whose directory in /proc is
// dir, or 0 if it has just ended.
func readResident(dir string) int64 {
	text, err := os.ReadFile(filepath.Join(dir, "statm"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	if len(fields) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(fields[1], 10, 64) // the kernel writes a number
	return pages * int64(os.Getpagesize())
}

// OwnCPU returns the CPU time of this process.
func OwnCPU() time.Duration {
	_, _, cpu, _ := readStat("/proc/self/stat") // 0 on systems without /proc
	return cpu
}

func readStat(path string) (pid, parent int, cpu time.Duration, ok bool) {
	text, err := os.ReadFile(path)
	if err != nil { // the process has ended
		return 0, 0, 0, false
	}
	// The format is: pid (name) state ppid ... The name may contain any character.
	end := bytes.LastIndexByte(text, ')')
	if end < 0 {
		return 0, 0, 0, false
	}
	fields := strings.Fields(string(text[end+1:]))
	if len(fields) < 13 {
		return 0, 0, 0, false
	}
	first, _, _ := strings.Cut(string(text), " ")
	pid, err1 := strconv.Atoi(first)
	parent, err2 := strconv.Atoi(fields[1])
	user, err3 := strconv.ParseInt(fields[11], 10, 64)
	system, err4 := strconv.ParseInt(fields[12], 10, 64)
	ok = err1 == nil && err2 == nil && err3 == nil && err4 == nil
	return pid, parent, time.Duration(user+system) * clockTick, ok
}
