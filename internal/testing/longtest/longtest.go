// Package longtest marks the tests of the second tier: those that take minutes, measure
// time on a real clock, or need other programs. go test ./... skips them; they run
// with STREAMCOUNT_LONG=1, as .ci/run does.
package longtest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Require skips the test unless STREAMCOUNT_LONG is set. It also skips the test where one
// of the programs is not installed, or fails it if STREAMCOUNT_REQUIRE_ALL is set.
func Require(tb testing.TB, programs ...string) {
	tb.Helper()
	if os.Getenv("STREAMCOUNT_LONG") == "" {
		tb.Skip("a long test: set STREAMCOUNT_LONG=1 to run it")
	}
	for _, name := range programs {
		Program(tb, name)
	}
}

// Program is Require for a program that is known under several names. It returns the
// path of the first name that is installed.
func Program(tb testing.TB, names ...string) string {
	tb.Helper()
	Require(tb)
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Missing(tb, strings.Join(names, " or "))
	return ""
}

// Missing skips the test because something that it needs is missing, or fails it if
// STREAMCOUNT_REQUIRE_ALL is set.
func Missing(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("STREAMCOUNT_REQUIRE_ALL") != "" {
		require.Fail(tb, "missing: "+what)
	}
	tb.Skip("missing: " + what)
}
