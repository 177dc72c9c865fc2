package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Machine is what figures depend on most.
type Machine struct {
	OS          string  `json:"os"`
	Arch        string  `json:"arch"`
	CPU         string  `json:"cpu,omitempty"`
	Cores       int     `json:"cores"` // that this process may use
	MemoryBytes int64   `json:"memoryBytes,omitempty"`
	Go          string  `json:"go"`
	FsyncMillis float64 `json:"fsyncMillis"` // median of writing 4 KiB to the targets' disk and waiting for it
}

func (m Machine) String() string {
	text := fmt.Sprintf("%s/%s, %d cores", m.OS, m.Arch, m.Cores)
	if m.CPU != "" {
		text += " (" + m.CPU + ")"
	}
	if m.MemoryBytes > 0 {
		text += fmt.Sprintf(", %.0f GiB", float64(m.MemoryBytes)/(1<<30))
	}
	return text + fmt.Sprintf(", fsync %.2f ms, %s", m.FsyncMillis, m.Go)
}

func thisMachine(dir string) (Machine, error) {
	fsync, err := timeFsync(dir)
	m := Machine{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Cores: runtime.GOMAXPROCS(0), Go: runtime.Version(),
		CPU:         procField("/proc/cpuinfo", "model name"),
		FsyncMillis: millis(fsync),
	}
	if kb, ok := strings.CutSuffix(procField("/proc/meminfo", "MemTotal"), " kB"); ok {
		if n, err := strconv.ParseInt(kb, 10, 64); err == nil {
			m.MemoryBytes = n << 10
		}
	}
	return m, err
}

// procField returns the value of the first line "name: value", or "" where
// there is none.
func procField(path, name string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		key, value, ok := strings.Cut(lines.Text(), ":")
		if ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func timeFsync(dir string) (_ time.Duration, err error) {
	f, err := os.CreateTemp(dir, "streamcount-fsync-")
	if err != nil {
		return 0, fmt.Errorf("the directory for temporary data: %w", err)
	}
	defer func() {
		_ = f.Close() // nobody reads it
		_ = os.Remove(f.Name())
	}()
	var took []time.Duration
	for range 50 {
		begin := time.Now()
		if _, err := f.Write(make([]byte, 4<<10)); err != nil {
			return 0, fmt.Errorf("the directory for temporary data: %w", err)
		}
		if err := f.Sync(); err != nil {
			return 0, fmt.Errorf("the directory for temporary data: %w", err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

// usage is what a process and its children have used. Where the system does not
// tell, it is zero.
type usage struct {
	cpu         time.Duration
	resident    int64 // bytes
	descriptors int
}

// tickLength is the unit of times in /proc: USER_HZ, which is 100 on all of
// Linux.
const tickLength = 10 * time.Millisecond

// processUsage adds up pid and its children.
func processUsage(pid int) usage {
	var sum usage
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return sum
	}
	for _, path := range stats {
		id, parent, cpu, ok := readStat(path)
		if ok && (id == pid || parent == pid) {
			sum.cpu += cpu
			kb, _ := strings.CutSuffix(procField(filepath.Join(filepath.Dir(path), "status"), "VmRSS"), " kB")
			n, _ := strconv.ParseInt(kb, 10, 64) // 0 for what has just ended
			sum.resident += n << 10
			open, _ := os.ReadDir(filepath.Join(filepath.Dir(path), "fd")) // of another user's process it is not told
			sum.descriptors += len(open)
		}
	}
	return sum
}

// ownCPU is what this process alone has used.
func ownCPU() time.Duration {
	_, _, cpu, _ := readStat("/proc/self/stat") // 0 where there is no such file
	return cpu
}

func readStat(path string) (pid, parent int, cpu time.Duration, ok bool) {
	text, err := os.ReadFile(path)
	if err != nil { // it has ended
		return 0, 0, 0, false
	}
	// pid (name) state ppid ...; the name may hold anything.
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
	return pid, parent, time.Duration(user+system) * tickLength, ok
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
