package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

const (
	viewPage  = 5000 // keys a read, so that etcd is not held up
	viewPulse = 200 * time.Millisecond
)

// run keeps the view until ctx ends: it lists, watches from there, and begins
// anew where etcd has compacted what it would need to go on.
func (v *view) run(ctx context.Context) error {
	listed := false
	for wait := time.Duration(0); ctx.Err() == nil; {
		var err error
		if listed && v.setBack(ctx) {
			v.heard.Store(0)
			v.own.Store(0) // of the history that was lost
			listed = false
		}
		if !listed {
			err = v.list(ctx)
			listed = err == nil
		}
		if listed {
			began := time.Now()
			err = v.follow(ctx)
			if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrFutureRev) {
				v.heard.Store(0)
				listed = false
			}
			if time.Since(began) > viewStale {
				wait = 0
			}
		}
		if ctx.Err() == nil {
			v.cfg.log.Debug("the view of streams begins again", "listed", listed, "err", err)
		}
		wait = min(2*wait+10*time.Millisecond, time.Second)
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait)):
		}
	}
	v.heard.Store(0)
	return nil
}

// setBack reports whether etcd is at a revision before the view's, as after a
// backup was restored: watched from the view's on, its history would be taken
// for the rest of the one that was lost.
func (v *view) setBack(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, v.cfg.timeout)
	defer cancel()
	resp, err := v.etcd.KV.Range(ctx, oneKey(v.keys.users()).read())
	return err == nil && resp.Header.Revision < v.applied.Load()
}

// list reads everything page by page at one revision. It changes the view in
// place: a second one of a million streams would not fit beside the first. The
// tombstones come first: those of streams that live are of plans that failed.
func (v *view) list(ctx context.Context) error {
	v.gen++
	graves := make(map[nonce]grave)
	rev, err := v.pages(ctx, below(v.keys.ended()), 0, func(kv *mvccpb.KeyValue) {
		for _, g := range gravesOf(kv.Value) {
			graves[g.Nonce] = g
		}
	})
	if err != nil {
		return err
	}
	seen := v.applied.Load()
	_, err = v.pages(ctx, below(v.keys.users()), rev, func(kv *mvccpb.KeyValue) {
		if user, rest, ok := v.keys.split(kv.Key); ok {
			if v.put(user, rest, kv).came != nil && kv.ModRevision <= seen {
				v.back++ // the view had seen it go
			}
			delete(graves, headOf(kv.Value).Nonce)
		}
	})
	if err != nil {
		return err
	}
	for _, prefix := range []string{v.keys.plans(), v.keys.overrides()} {
		_, err = v.pages(ctx, below(prefix), rev, func(kv *mvccpb.KeyValue) { v.rules.put(v.keys, kv, v.gen) })
		if err != nil {
			return err
		}
	}
	if err := v.listShards(ctx, rev); err != nil {
		return err
	}
	v.sweep()
	if v.back > 0 || rev < seen {
		v.cfg.log.Warn("etcd has lost what it had acknowledged, as after a restore: streams that had ended may be there again",
			"keys", v.back, "revision", rev, "revision_before", seen)
		v.onRestore()
		v.back = 0
	}
	for n, g := range graves {
		if _, known := v.ends.get(n); !known {
			v.ends.put(n, g)
		}
	}
	v.applied.Store(rev) // lower than before, if etcd was restored from a backup
	v.waiting.release(rev)
	v.told.listed(rev)
	return nil
}

// pages reads a range at revision rev, or at the present one if that is 0, and
// returns the revision.
func (v *view) pages(ctx context.Context, r keyRange, rev int64, each func(*mvccpb.KeyValue)) (int64, error) {
	for {
		ask := r.read()
		ask.Limit, ask.Revision = viewPage, rev
		call, cancel := context.WithTimeout(ctx, v.cfg.timeout)
		resp, err := v.etcd.KV.Range(call, ask)
		cancel()
		if err != nil {
			return 0, fmt.Errorf("list streams: %w", err)
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			each(kv)
		}
		if !resp.More {
			return rev, nil
		}
		r.from = append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
	}
}

// errViewSilent means that the watch gave no sign of life.
var errViewSilent = errors.New("the watch is silent")

// follow watches from what is applied on, until the watch breaks, falls silent,
// or ctx ends. It begins with what was applied last, which does no harm twice:
// etcd gives no sign of life to a watch that begins in the future.
func (v *view) follow(ctx context.Context) error {
	// A stream of its own: the answers to requests for progress go to all
	// watches on a stream, and streams are told apart by their metadata. Two take
	// turns: a stream that the client has just reopened may carry the watch that
	// was given up, which begins in the future and so holds up signs of life.
	v.watches++
	ctx = metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx),
		"streamcount-view", strconv.Itoa(v.watches%2))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events := v.etcd.Watch.Watch(ctx, v.keys.prefix+"/", clientv3.WithPrefix(),
		clientv3.WithRev(v.applied.Load()), clientv3.WithCreatedNotify())
	pulse := time.NewTicker(viewPulse / 10) // until the first sign of life
	defer pulse.Stop()
	var asked time.Time // when the sign of life was asked for that has not come yet
	began := time.Now()
	for {
		select {
		case resp, ok := <-events:
			switch {
			case !ok:
				return context.Cause(ctx)
			case resp.CompactRevision != 0:
				return rpctypes.ErrCompacted
			case resp.Err() != nil:
				return resp.Err()
			case resp.Created:
				asked = v.askPulse(ctx)
			case resp.IsProgressNotify():
				v.advance(resp.Header.Revision)
				if !asked.IsZero() {
					v.heard.Store(int64(instantOf(asked)))
					began, asked = asked, time.Time{}
					pulse.Reset(viewPulse)
				}
			default:
				// The header's revision may be ahead of events still to come.
				v.apply(resp.Events)
			}
		case now := <-pulse.C:
			if now.Sub(began) > 2*viewStale {
				return errViewSilent
			}
			// Again even where no answer has come: etcd gives none to a watch that
			// has to catch up.
			if at := v.askPulse(ctx); asked.IsZero() {
				asked = at
			}
		}
	}
}

// askPulse asks for a sign of life, and returns when. What comes after it has
// been applied shows the view to be no older.
func (v *view) askPulse(ctx context.Context) time.Time {
	now := time.Now()
	go func() { _ = v.etcd.Watch.RequestProgress(ctx) }() // it may block as long as the stream does
	return now
}
