package etcdtest

import (
	"context"
	"sync"

	"google.golang.org/grpc/stats"
)

// methodCounts counts the calls of a gRPC server by method.
type methodCounts struct {
	mu    sync.Mutex
	calls map[string]int
}

func (c *methodCounts) of(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[method]
}

// TagRPC implements stats.Handler.
func (c *methodCounts) TagRPC(ctx context.Context, info *stats.RPCTagInfo) context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.calls == nil {
		c.calls = map[string]int{}
	}
	c.calls[info.FullMethodName]++
	return ctx
}

// HandleRPC implements stats.Handler.
func (c *methodCounts) HandleRPC(context.Context, stats.RPCStats) {}

// TagConn implements stats.Handler.
func (c *methodCounts) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (c *methodCounts) HandleConn(context.Context, stats.ConnStats) {}
