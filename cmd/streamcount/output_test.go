package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

func TestPrintStreams_Aligned(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	require.NoError(t, a.printStreams([]apitype.Stream{
		{ID: "s1", Region: "eu", Device: &apitype.Device{Name: "TV\x1b]0;x\a", Type: "tv"},
			Content: &apitype.Content{Title: "Küche"}},
		{ID: "longer-id"},
	}))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 3)
	assert.Contains(t, lines[1], `TV\x1b]0;x\x07 (tv)`)
	assert.NotContains(t, out.String(), "\x1b")
	at := strings.Index(lines[0], "REGION")
	assert.Equal(t, "eu", strings.Fields(lines[1][at:])[0])
	assert.Equal(t, "-", strings.Fields(lines[2][at:])[0])
}

func TestPrintStreams_Via(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	require.NoError(t, a.printStreams([]apitype.Stream{{ID: "s1", Via: "edge:vod"}, {ID: "s2"}}))
	assert.Regexp(t, `(?m)^STREAM .* SESSION +VIA$`, out.String())
	assert.Regexp(t, `(?m)^s1 .* edge:vod$`, out.String())
	assert.Regexp(t, `(?m)^s2 .* -$`, out.String())
}

func TestJoinEvery(t *testing.T) {
	for in, want := range map[string]string{
		"heartbeat u id --every 10s":    "heartbeat u id --every=10s",
		"heartbeat u id --every":        "heartbeat u id --every",
		"heartbeat --every 10s u id":    "heartbeat --every=10s u id",
		"heartbeat --every u id":        "heartbeat --every u id",
		"heartbeat u id --every --json": "heartbeat u id --every --json",
		"heartbeat --every=3s u id":     "heartbeat --every=3s u id",
		"heartbeat u -- --every 10s":    "heartbeat u -- --every 10s",
	} {
		assert.Equal(t, strings.Fields(want), joinEveryFlag(strings.Fields(in)))
	}
}
