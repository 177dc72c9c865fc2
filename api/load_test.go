package api

import (
	"context"
	"sync/atomic"
	"time"

	"streamcount/api/internal/overload"
)

// A testLoad is the load control of a server. It rejects classes of requests on demand, and
// does not delay rejections.
type testLoad struct {
	*overload.Control
	starts, reads atomic.Bool // whether to reject them
}

// setLoad replaces the load control of s.
func setLoad(s *Server) *testLoad {
	l := &testLoad{Control: s.load.(*overload.Control)}
	s.load = l
	return l
}

// reject sets whether starts and reads are rejected.
func (l *testLoad) reject(starts, reads bool) {
	l.starts.Store(starts)
	l.reads.Store(reads)
}

func (l *testLoad) Admit(r overload.Request) (overload.Admission, overload.Bound) {
	switch {
	case r.Class == overload.Start && l.starts.Load():
		l.Count(overload.ConcurrentStarts)
		return overload.Admission{}, overload.ConcurrentStarts
	case r.Class == overload.Read && l.reads.Load():
		l.Count(overload.ConcurrentReads)
		return overload.Admission{}, overload.ConcurrentReads
	}
	return l.Control.Admit(r)
}

func (l *testLoad) TakeRate(ctx context.Context, b overload.Bound, key string) time.Duration {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	return l.Control.TakeRate(ctx, b, key)
}
