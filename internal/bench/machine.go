package bench

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Machine describes the machine that a benchmark ran on.
type Machine struct {
	OS          string  `json:"os"`
	Arch        string  `json:"arch"`
	CPU         string  `json:"cpu,omitempty"`
	Cores       int     `json:"cores"` // available to this process
	MemoryBytes int64   `json:"memoryBytes,omitempty"`
	Go          string  `json:"go"`
	FsyncMillis float64 `json:"fsyncMillis"` // median time of a write of 4 KiB with fsync to the targets' disk
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

func inspectMachine(dir string) (Machine, error) {
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

// procField returns the value of the first line "name: value" of a file, or "" if
// there is no such line.
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
		return 0, fmt.Errorf("directory for temporary data: %w", err)
	}
	defer func() {
		_ = f.Close() // the data is not used
		_ = os.Remove(f.Name())
	}()
	var took []time.Duration
	for range 50 {
		begin := time.Now()
		if _, err := f.Write(make([]byte, 4<<10)); err != nil {
			return 0, fmt.Errorf("directory for temporary data: %w", err)
		}
		if err := f.Sync(); err != nil {
			return 0, fmt.Errorf("directory for temporary data: %w", err)
		}
		took = append(took, time.Since(begin))
	}
	slices.Sort(took)
	return took[len(took)/2], nil
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
