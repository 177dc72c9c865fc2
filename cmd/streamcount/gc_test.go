package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestGCPercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 800, 1 << 20: 800, 32 << 20: 800, 64 << 20: 400, 256 << 20: 100, 1 << 30: 70, 1 << 40: 70,
	} {
		assert.Equal(t, want, gcPercent(live), "a live heap of %d MiB", live>>20)
	}
}
