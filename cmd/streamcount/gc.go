package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The heap of a node is small until it has many streams, and a small heap is
// collected all the time: at the default of GOGC, a quarter of the processor
// time of a busy node. So the collector waits for at least gcHeadroom of
// garbage, and with many streams it lets less pile up in proportion.
const (
	gcHeadroom = 256 << 20
	gcMost     = 800 // percent of the live heap
	gcLeast    = 70
	gcLook     = 2 * time.Second
)

// tuneGC sets how much garbage may pile up, until ctx ends. A GOGC in the
// environment is left alone.
func tuneGC(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(gcMost))
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	look := time.NewTicker(gcLook)
	defer look.Stop()
	for {
		metrics.Read(live)
		debug.SetGCPercent(gcPercent(live[0].Value.Uint64()))
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

// gcPercent is the GOGC for a live heap of so many bytes.
func gcPercent(live uint64) int {
	if live == 0 {
		return gcMost
	}
	return int(max(gcLeast, min(gcMost, 100*gcHeadroom/live)))
}
