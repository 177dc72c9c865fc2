package child

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// checkVariable makes this test binary run checkCPUs instead of the tests.
const checkVariable = "CHILD_TEST_CHECK_CPUS"

func TestMain(m *testing.M) {
	if os.Getenv(checkVariable) != "" {
		if err := checkCPUs(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

var allowed = regexp.MustCompile(`Cpus_allowed:\s*(\S+)`)

// checkCPUs starts a child and returns an error unless the child is restricted to one
// half of the processors, and every thread of this process to the other half.
func checkCPUs() error {
	cmd := exec.Command("cat", "/proc/self/status")
	var output bytes.Buffer
	cmd.Stdout = &output
	p, err := StartOnOtherCPUs(cmd)
	if err != nil {
		return err
	}
	<-p.Done()
	masks := []string{allowed.FindStringSubmatch(output.String())[1]}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		masks = append(masks, allowed.FindStringSubmatch(string(status))[1])
	}
	h := cpuHalves()
	for i, mask := range masks {
		want := h.ours
		if i == 0 {
			want = h.theirs
		}
		got, err := setOf(mask)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("thread %d of %d has the processors %s", i, len(masks), mask)
		}
	}
	if n := runtime.GOMAXPROCS(0); n > h.ours.Count() {
		return fmt.Errorf("GOMAXPROCS is %d", n)
	}
	return nil
}

// setOf parses a mask in the format of /proc: hexadecimal, in groups of eight digits.
func setOf(mask string) (set unix.CPUSet, err error) {
	digits := regexp.MustCompile(`[^0-9a-f]`).ReplaceAllString(mask, "")
	for i := range digits {
		var n int
		if _, err := fmt.Sscanf(digits[len(digits)-1-i:len(digits)-i], "%x", &n); err != nil {
			return set, err
		}
		for bit := range 4 {
			if n&(1<<bit) != 0 {
				set.Set(4*i + bit)
			}
		}
	}
	return set, nil
}

func TestStartApart(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("there is only one processor")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), checkVariable+"=1")
	output, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", output)
	assert.Empty(t, string(output))
}
