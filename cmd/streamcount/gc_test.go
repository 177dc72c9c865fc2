package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestGCPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 800, 1 << 20: 800, 16 << 20: 800, 32 << 20: 400, 128 << 20: 100, 256 << 20: 50, 1 << 30: 40, 1 << 40: 40,
	} {
		assert.Equal(t, want, gcPercent(live), "a live heap of %d MiB", live>>20)
	}
}
