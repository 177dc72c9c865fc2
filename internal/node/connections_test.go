package node

import (
	"fmt"
	"log/slog"
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api"
	"streamcount/internal/config"
	"streamcount/internal/testing/testlog"
)

// Some files are reserved for purposes other than client connections.
func TestConnectionRoom(t *testing.T) {
	for files, want := range map[int]int{
		1: 10, 20: 10, 256: 128, 1024: 512, 2048: 1536, 20_000: 19_488, math.MaxInt32: math.MaxInt32 - reservedFiles,
	} {
		assert.Equal(t, want, maxConnections(files), "%d files", files)
	}
}

// The process may open as many files as both listeners together need.
func TestCapConnections(t *testing.T) {
	var log testlog.Buffer
	all := maxConnections(openFileLimit())
	for name, tt := range map[string]struct {
		listen     string
		main, edge int
		wantMain   int
		wantEdge   int
	}{
		"without an edge": {"", all, all, all, 0},
		"both at most":    {"127.0.0.1:0", all, all, all - all/3, all / 3},
		"a small edge":    {"127.0.0.1:0", all, 1, all - 1, 1},
		"a small API":     {"127.0.0.1:0", 1, 1, 1, 1},
	} {
		cfg := &config.Config{MaxStreams: 1}
		require.NoError(t, cfg.Flags().Parse([]string{"--edge-listen=" + tt.listen, fmt.Sprint("--max-connections=", tt.main), fmt.Sprint("--edge-max-connections=", tt.edge)}))
		n := &service{cfg: cfg, logs: logger{slog: slog.New(slog.NewTextHandler(&log, nil))}}
		var c api.Config
		n.setLimits(&c)
		assert.Equal(t, tt.wantMain, c.MaxConns, name)
		if tt.listen != "" {
			assert.Equal(t, tt.wantEdge, n.edgeConnections(), name)
		}
	}
	assert.Contains(t, log.String(), "fewer than edge-max-connections")
}
