package node

import (
	"context"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/dustin/go-humanize"

	"streamcount/internal/config"
)

// A node with few streams has a small heap. With the default GOGC a small heap is collected
// so often that garbage collection takes a quarter of the CPU time of a busy node. Without
// a memory budget, these limits let at least minGarbage bytes of garbage accumulate, and
// relatively less when the heap is large.
const (
	minGarbage   = 256 << 20
	maxGCPercent = 800 // percent of the live heap
	minGCPercent = 70
	gcInterval   = 2 * time.Second
)

// fullGCPercent is the GC percentage when more than half of a memory budget is live.
const fullGCPercent = 50

// A memoryBudget is how much memory the node may use.
type memoryBudget struct {
	size   uint64 // 0 if there is no budget
	source string
	// goLimit is the part for the memory that the Go runtime manages. The rest is for the
	// pages of the embedded database and for the kernel's buffers.
	goLimit uint64
}

// newMemoryBudget returns the budget that the configuration, GOMEMLIMIT or the cgroup sets,
// in this order.
func newMemoryBudget(cfg *config.Config, log *slog.Logger) (memoryBudget, error) {
	b := memoryBudget{size: cfg.MemoryBytes(), source: cfg.Source("memory")}
	group := cgroupLimit(os.DirFS("/"))
	switch limit := debug.SetMemoryLimit(-1); {
	case os.Getenv("GOGC") != "":
		if b.size > 0 {
			return b, config.Errorf("memory %q (from %s): GOGC in the environment sets how often the garbage collector runs: "+
				"remove one of them", cfg.Memory, b.source)
		}
		return memoryBudget{}, nil
	case b.size > 0:
		if group > 0 && b.size > group {
			log.Warn("the memory budget exceeds the limit of the cgroup: the kernel may kill the process",
				"budget", humanize.IBytes(b.size), "limit", humanize.IBytes(group))
		}
	case os.Getenv("GOMEMLIMIT") != "" && limit < math.MaxInt64:
		return memoryBudget{uint64(limit), "GOMEMLIMIT", uint64(limit)}, nil
	default:
		b.size, b.source = group, "cgroup"
	}
	b.goLimit = b.size / 5 * 4
	return b, nil
}

// gcSettings are the settings of the garbage collector.
type gcSettings struct {
	percent int
	limit   int64
}

// settings returns the settings for a live heap of that many bytes. With a budget, garbage
// may use what is left of it. If more than half of the budget is live, the memory limit of
// the runtime would start the collector ever more often, so a percentage applies instead.
func (b memoryBudget) settings(live uint64) gcSettings {
	switch {
	case b.size == 0:
		return gcSettings{gcPercent(live), math.MaxInt64}
	case b.full(live):
		return gcSettings{fullGCPercent, math.MaxInt64}
	}
	return gcSettings{maxGCPercent, int64(b.goLimit)}
}

// full reports whether more than half of the budget is live.
func (b memoryBudget) full(live uint64) bool { return b.size > 0 && live > b.goLimit/8*5 }

// tuneGC adjusts the garbage collector to the size of the heap until ctx ends. It does nothing
// if GOGC is set in the environment.
func (b memoryBudget) tuneGC(ctx context.Context, log *slog.Logger) {
	if os.Getenv("GOGC") != "" {
		return
	}
	if b.size > 0 {
		log.Info("memory budget", "size", humanize.IBytes(b.size), "from", b.source)
	}
	last := gcSettings{debug.SetGCPercent(maxGCPercent), debug.SetMemoryLimit(-1)}
	defer last.apply()
	warned := false
	heap := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	look := time.NewTicker(gcInterval)
	defer look.Stop()
	for {
		metrics.Read(heap)
		live := heap[0].Value.Uint64()
		b.settings(live).apply()
		if b.full(live) && !warned {
			warned = true
			log.Warn("more than half of the memory budget is in use, so the garbage collector runs more often: raise the limit",
				"budget", humanize.IBytes(b.size), "live", humanize.IBytes(live))
		}
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
	}
}

func (s gcSettings) apply() {
	debug.SetGCPercent(s.percent)
	debug.SetMemoryLimit(s.limit)
}

// gcPercent returns the GC percentage for a live heap of that many bytes without a budget.
func gcPercent(live uint64) int {
	if live == 0 {
		return maxGCPercent
	}
	return int(max(minGCPercent, min(maxGCPercent, 100*minGarbage/live)))
}
