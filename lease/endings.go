package lease

import (
	"context"
	"encoding/json"
	"path"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// followEndings watches streams end on all nodes, so that a heartbeat which
// comes after the end can be told why, and so that expiries are counted. It is
// a source of hints: while etcd is away it misses some, and "ended" is the
// answer then.
func (l *Limiter) followEndings(ctx context.Context) error {
	for ctx.Err() == nil {
		if rev, err := l.revision(ctx); err == nil {
			l.followFrom(ctx, rev+1)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// followFrom watches until ctx ends or the watch does. It names its first
// revision, because a watch without one sees an event twice when the client
// resumes it.
func (l *Limiter) followFrom(ctx context.Context, rev int64) {
	ctx, stop := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer stop()
	events := l.watch.Watch(ctx, l.keys.prefix+"/", clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithRev(rev))
	for resp := range events {
		if resp.Err() != nil {
			return
		}
		l.noteEndings(resp.Events)
	}
}

// revision is etcd's present one.
func (l *Limiter) revision(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	resp, err := l.kv.Get(ctx, l.keys.users(), clientv3.WithCountOnly())
	if err != nil {
		return 0, unavailable("read the revision", err)
	}
	return resp.Header.Revision, nil
}

// noteEndings reads events, which come in whole revisions. A stream's key that
// went away, or changed hands, has a tombstone in the same revision if one of us
// ended it for a reason; if it has none, its lease ran out.
func (l *Limiter) noteEndings(events []*clientv3.Event) {
	reasons := make(map[nonce]Reason)
	for _, e := range events {
		key := string(e.Kv.Key)
		switch {
		case e.Type == mvccpb.PUT && strings.HasPrefix(key, l.keys.prefix+"/ended/"):
			var n nonce
			var g grave
			if n.UnmarshalText([]byte(path.Base(key))) == nil && json.Unmarshal(e.Kv.Value, &g) == nil {
				reasons[n] = g.Reason
			}
		case e.PrevKv != nil && strings.HasPrefix(key, l.keys.users()):
			var r record
			if json.Unmarshal(e.PrevKv.Value, &r) != nil || r.Nonce == (nonce{}) {
				continue // a foreign value
			}
			if _, told := reasons[r.Nonce]; !told {
				reasons[r.Nonce] = ReasonExpired
			}
		}
	}
	for n, reason := range reasons {
		if reason == ReasonExpired {
			l.expired.Add(1)
		}
		l.ends.put(n, reason)
	}
}
