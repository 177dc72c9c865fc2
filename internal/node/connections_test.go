package node

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Some files are reserved for purposes other than client connections.
func TestConnectionRoom(t *testing.T) {
	for files, want := range map[int]int{
		1: 10, 20: 10, 256: 128, 1024: 512, 2048: 1536, 20_000: 19_488, math.MaxInt32: math.MaxInt32 - reservedFiles,
	} {
		assert.Equal(t, want, maxConnections(files), "%d files", files)
	}
}
