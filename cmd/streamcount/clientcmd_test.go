package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Suggested commands can be pasted into a shell.
func TestArguments(t *testing.T) {
	for _, user := range []string{
		"maya", `CORP\ann`, "tom/admin", "müller", "o'brien@x.example", "ann lee", "-n", "--", "10s", "$HOME", "a;b", "*", "'", "#a", "~root", "!1",
	} {
		words := arguments(user, "AQAA")
		out, err := exec.CommandContext(t.Context(), "sh", "-c", `printf '%s\n' `+words).Output()
		require.NoError(t, err, words)
		got := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if user == "-n" || user == "--" || user == "10s" {
			require.Equal(t, "--", got[0], words)
			got = got[1:]
		}
		assert.Equal(t, []string{user, "AQAA"}, got, words)
		assert.Equal(t, append([]string{"--every"}, strings.Fields(words)...), joinEveryFlag(append([]string{"--every"}, strings.Fields(words)...)))
	}
}

// Without the flag a key is sent over http only to this machine. Secrets in addresses are not
// printed.
func TestPlaintextKey(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	require.NoError(t, os.WriteFile(key, []byte("sc_secret"), 0o600))
	environ := []string{"STREAMCOUNT_KEY_FILE=" + key}
	for _, args := range []string{"ls", "start maya", "watch", "limits get maya", "top --once"} {
		code, _, errOut := runWith(t, environ, strings.Fields(args+" --server http://streams.invalid:3000")...)
		assert.Equal(t, exitUsage, code, args)
		assert.Contains(t, errOut, "use https, or add --plaintext-key", args)
	}
	for _, args := range []string{"ls --server http://127.0.0.1:1", "ls --plaintext-key --server http://streams.invalid:3000"} {
		code, _, errOut := runWith(t, environ, strings.Fields(args)...)
		assert.Equal(t, exitError, code, errOut)
	}
	code, _, errOut := runWith(t, append(environ, "STREAMCOUNT_PLAINTEXT_KEY=true"), "ls", "--server", "http://streams.invalid:3000")
	assert.Equal(t, exitError, code, errOut)
	for _, server := range []string{"http://me:hush@streams.invalid", "http://hush@127.0.0.1:1", "ftp://hush@x", "http://me:hush@x:port", "me:hush@x"} {
		_, out, errOut := runWith(t, nil, "ls", "--server", server)
		assert.NotContains(t, out+errOut, "hush", server)
	}
}

func runWith(t *testing.T, environ []string, args ...string) (code int, out, errOut string) {
	t.Helper()
	p := launch(t, environ, args...)
	return p.end(t), p.out.String(), p.errOut.String()
}

func TestKeyFile_WarnsIfWorldReadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for mode, warned := range map[os.FileMode]bool{0o600: false, 0o644: true} {
		require.NoError(t, os.WriteFile(path, []byte("sck_x\n"), 0o600))
		require.NoError(t, os.Chmod(path, mode))
		var errOut bytes.Buffer
		a := &app{keyFile: path, errOut: &errOut}
		credential, err := a.credential()
		require.NoError(t, err)
		assert.Equal(t, "sck_x", credential)
		assert.Equal(t, warned, strings.Contains(errOut.String(), "readable by every user"), mode)
		assert.NotContains(t, errOut.String(), "sck_x")
	}
}
