package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
)

func TestEdgeCheck(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	dir := t.TempDir()
	out, _ := runCommand(t, exitOK, "edge", "check", "--viewers=20", "--connections=4", "--duration=200ms", "--warmup=0s", "--runs=2",
		"--binary="+nodeBinary(t), "--dir="+dir)
	for _, identity := range []string{"header", "HS256 token in the path"} {
		assert.Regexp(t, identity+` +heartbeat +[1-9]\d* +[\d.]+ us`, out)
		assert.Regexp(t, identity+` +check +[1-9]\d* +[\d.]+ us`, out)
		assert.Regexp(t, identity+` +check / heartbeat +\d+\.\d\d \(\d+\.\d\d-\d+\.\d\d\)`, out)
	}
	checkEmpty(t, dir)
}

func TestEdgeViewers(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	for name, proxy := range map[string]string{"direct": "", "nginx": "nginx"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if proxy != "" {
				longtest.Program(t, proxy, "/usr/sbin/"+proxy)
			}
			dir := t.TempDir()
			out, _ := runCommand(t, exitOK, "edge", "viewers", "--viewers=20", "--connections=4", "--segment=3s", "--ramp=3s", "--duration=3s",
				"--proxy="+proxy, "--proxy-config="+patientConfig(t), "--binary="+nodeBinary(t), "--dir="+dir)
			assert.Regexp(t, `\nfirst +20 `, out, "each viewer has a first request")
			assert.Regexp(t, `\nwith all viewers +20 `, out, "each viewer requests one segment per interval")
			checkEmpty(t, dir)
		})
	}
}

// patientConfig returns the path of a configuration of nginx that waits a minute for a node.
func patientConfig(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("../../deploy/edge/nginx.conf")
	require.NoError(t, err)
	text := string(content)
	for _, old := range []string{"connect_timeout 200ms;", "read_timeout 2s;", "upstream_timeout 2s;"} {
		require.Contains(t, text, old)
		name, _, _ := strings.Cut(old, " ")
		text = strings.ReplaceAll(text, old, name+" 60s;")
	}
	path := filepath.Join(t.TempDir(), "nginx.conf")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// checkEmpty checks that a command has removed its files.
func checkEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Empty(t, left)
}
