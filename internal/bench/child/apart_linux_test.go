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

// apartVariable has this test binary share its processors with a child, and tell of it.
const apartVariable = "CHILD_TEST_APART"

func TestMain(m *testing.M) {
	if os.Getenv(apartVariable) != "" {
		if err := shareOut(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

var allowed = regexp.MustCompile(`Cpus_allowed:\s*(\S+)`)

// shareOut fails unless the child has one half of the processors, and every thread of
// this process the other.
func shareOut() error {
	cmd := exec.Command("cat", "/proc/self/status")
	var said bytes.Buffer
	cmd.Stdout = &said
	p, err := StartApart(cmd)
	if err != nil {
		return err
	}
	<-p.Done()
	masks := []string{allowed.FindStringSubmatch(said.String())[1]}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		return err
	}
	for _, task := range tasks {
		status, err := os.ReadFile(task)
		if err != nil {
			continue // it has ended
		}
		masks = append(masks, allowed.FindStringSubmatch(string(status))[1])
	}
	h := halves()
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
			return fmt.Errorf("%d of %d has the processors %s", i, len(masks), mask)
		}
	}
	if n := runtime.GOMAXPROCS(0); n > h.ours.Count() {
		return fmt.Errorf("it runs on %d processors at once", n)
	}
	return nil
}

// setOf reads a mask as /proc shows it: hexadecimal, in groups of eight digits.
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
		t.Skip("there is but one processor: nothing to share out")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), apartVariable+"=1")
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)
	assert.Empty(t, string(said))
}
