package etcdsim

import (
	"context"
	"io"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"streamcount/internal/retry"
)

// kv is the KV client of a link. It has the methods that the service calls.
type kv struct {
	pb.KVClient
	*Link
}

// leases is the lease client of a link.
type leases struct {
	pb.LeaseClient
	*Link
}

// KV returns the link's KV client.
func (l *Link) KV() pb.KVClient { return kv{Link: l} }

// Lease returns the link's lease client.
func (l *Link) Lease() pb.LeaseClient { return leases{Link: l} }

// Range reads keys.
func (k kv) Range(ctx context.Context, r *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	return call(ctx, k.Link, "Range", func(e *Etcd) (*pb.RangeResponse, error) { return e.read(r) })
}

// Put puts a key, with or without a lease.
func (k kv) Put(ctx context.Context, r *pb.PutRequest, _ ...grpc.CallOption) (*pb.PutResponse, error) {
	return call(ctx, k.Link, "Put", func(e *Etcd) (*pb.PutResponse, error) {
		if r.Lease != 0 && e.leases[r.Lease] == nil {
			return nil, rpctypes.ErrGRPCLeaseNotFound
		}
		w := &write{Etcd: e}
		w.put(r)
		w.commit()
		return &pb.PutResponse{Header: e.header()}, nil
	})
}

// Txn executes a transaction.
func (k kv) Txn(ctx context.Context, r *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	return call(ctx, k.Link, "Txn", func(e *Etcd) (*pb.TxnResponse, error) { return e.txn(r) })
}

// DeleteRange deletes keys.
func (k kv) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest, _ ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	return call(ctx, k.Link, "DeleteRange", func(e *Etcd) (*pb.DeleteRangeResponse, error) {
		w := &write{Etcd: e}
		deleted := w.delete(r.Key, r.RangeEnd)
		w.commit()
		return &pb.DeleteRangeResponse{Header: e.header(), Deleted: int64(len(deleted))}, nil
	})
}

// LeaseGrant grants a lease with the id in the request.
func (c leases) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest, _ ...grpc.CallOption) (*pb.LeaseGrantResponse, error) {
	return call(ctx, c.Link, "LeaseGrant", func(e *Etcd) (*pb.LeaseGrantResponse, error) {
		if e.leases[r.ID] != nil {
			return nil, rpctypes.ErrGRPCLeaseExist
		}
		ttl := time.Duration(r.TTL) * time.Second
		e.leases[r.ID] = &lease{ttl, time.Now().Add(ttl), time.Now()}
		return &pb.LeaseGrantResponse{Header: e.header(), ID: r.ID, TTL: r.TTL}, nil
	})
}

// LeaseRevoke ends a lease and its keys.
func (c leases) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest, _ ...grpc.CallOption) (*pb.LeaseRevokeResponse, error) {
	return call(ctx, c.Link, "LeaseRevoke", func(e *Etcd) (*pb.LeaseRevokeResponse, error) {
		if e.leases[r.ID] == nil {
			return nil, rpctypes.ErrGRPCLeaseNotFound
		}
		e.revoke(r.ID, Revoked)
		return &pb.LeaseRevokeResponse{Header: e.header()}, nil
	})
}

// LeaseTimeToLive returns the remaining TTL of a lease in whole seconds. It is below 0 if the
// lease has expired or does not exist. A deposed leader may answer from its own state.
func (c leases) LeaseTimeToLive(
	ctx context.Context, r *pb.LeaseTimeToLiveRequest, _ ...grpc.CallOption,
) (*pb.LeaseTimeToLiveResponse, error) {
	return call(ctx, c.Link, "LeaseTimeToLive", func(e *Etcd) (*pb.LeaseTimeToLiveResponse, error) {
		resp := &pb.LeaseTimeToLiveResponse{Header: e.header(), ID: r.ID, TTL: -1}
		l, expiry := e.leases[r.ID], time.Time{}
		if l != nil {
			expiry = l.expiry
		}
		if time.Now().Before(e.deposed.until) && c.transit("deposed").replyDelay%2 == 0 {
			resp.Header.RaftTerm, expiry = e.deposed.term, e.deposed.expiry[r.ID]
		}
		if l != nil && !expiry.IsZero() { // etcd truncates to whole seconds, towards 0
			resp.TTL, resp.GrantedTTL = int64(time.Until(expiry)/time.Second), int64(l.ttl/time.Second)
		}
		return resp, nil
	})
}

// LeaseKeepAlive opens a stream of renewals.
func (c leases) LeaseKeepAlive(ctx context.Context, _ ...grpc.CallOption) (pb.Lease_LeaseKeepAliveClient, error) {
	return call(ctx, c.Link, "LeaseKeepAlive", func(*Etcd) (pb.Lease_LeaseKeepAliveClient, error) {
		return &keepAlive{ctx: ctx, link: c.Link, requests: make(chan int64, 1<<12)}, nil
	})
}

// keepAlive is a stream of renewals. It serves one request at a time. As in etcd, a request
// for an expired lease blocks the stream until the lease is revoked.
type keepAlive struct {
	grpc.ClientStream
	ctx      context.Context
	link     *Link
	requests chan int64 // lease ids
}

// Send requests a renewal.
func (k *keepAlive) Send(r *pb.LeaseKeepAliveRequest) error {
	select {
	case k.requests <- r.ID:
		return nil
	case <-k.ctx.Done():
		return io.EOF
	}
}

// Recv returns the answer to the oldest request.
func (k *keepAlive) Recv() (*pb.LeaseKeepAliveResponse, error) {
	var id int64
	select {
	case id = <-k.requests:
	case <-k.ctx.Done():
		return nil, k.ctx.Err()
	}
	for {
		stuck := false
		resp, err := call(k.ctx, k.link, "renewal", func(e *Etcd) (*pb.LeaseKeepAliveResponse, error) {
			l := e.leases[id]
			switch {
			case l == nil:
				return &pb.LeaseKeepAliveResponse{Header: e.header(), ID: id}, nil
			case time.Now().After(l.expiry):
				stuck = true
				return nil, nil
			}
			l.expiry, l.renewed = time.Now().Add(l.ttl), time.Now()
			if e.AuditRenewal != nil {
				e.AuditRenewal(k.link, id)
			}
			return &pb.LeaseKeepAliveResponse{Header: e.header(), ID: id, TTL: int64(l.ttl / time.Second)}, nil
		})
		if err != nil || !stuck {
			return resp, err
		}
		if retry.Sleep(k.ctx, revokeInterval/5) != nil {
			return nil, k.ctx.Err()
		}
	}
}

// A Watcher is the watch client of a link. A progress request applies to all its watches.
type Watcher struct {
	link     *Link
	progress chan chan struct{} // has one channel, which the next progress request closes
}

// Watcher returns a new watch client of the link.
func (l *Link) Watcher() *Watcher {
	w := &Watcher{l, make(chan chan struct{}, 1)}
	w.progress <- make(chan struct{})
	return w
}

// RequestProgress makes every watch report its revision.
func (w *Watcher) RequestProgress(context.Context) error {
	close(<-w.progress)
	w.progress <- make(chan struct{})
	return nil
}

func (w *Watcher) progressRequested() <-chan struct{} {
	c := <-w.progress
	w.progress <- c
	return c
}

// Close does nothing: watches end with their contexts.
func (w *Watcher) Close() error { return nil }

// Watch sends changes from the revision in opts on.
func (w *Watcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	op := clientv3.OpGet(key, opts...)
	out := make(chan clientv3.WatchResponse)
	go func() {
		defer close(out)
		send := func(r clientv3.WatchResponse) bool {
			if l := w.link; retry.Sleep(ctx, l.Lag+l.transit("watch").replyDelay) != nil {
				return false
			}
			for w.link.cut.Load() { // messages under way arrive after the cut
				if retry.Sleep(ctx, revokeInterval) != nil {
					return false
				}
			}
			select {
			case out <- r:
				return true
			case <-ctx.Done():
				return false
			}
		}
		progress, next := w.progressRequested(), op.Rev()
		if !send(clientv3.WatchResponse{Header: w.link.Etcd.lockedHeader(), Created: true}) {
			return
		}
		for {
			events, head, changed := w.link.Etcd.since(next, op)
			if len(events) > 0 && !send(clientv3.WatchResponse{Header: head, Events: events}) {
				return
			}
			next = head.Revision + 1
			select {
			case <-changed:
			case <-progress:
				select {
				case <-changed: // etcd sends earlier events before the answer
					continue
				default:
				}
				progress = w.progressRequested()
				if !send(clientv3.WatchResponse{Header: head}) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

func (e *Etcd) lockedHeader() *pb.ResponseHeader {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.header()
}

// since returns the events in op's range from revision next on, a header with the newest
// revision, and a channel that the next revision closes.
func (e *Etcd) since(next int64, op clientv3.Op) ([]*clientv3.Event, *pb.ResponseHeader, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*clientv3.Event
	for i := len(e.history) - 1; i >= 0 && e.history[i].Kv.ModRevision >= next; i-- {
		ev := e.history[i]
		if len(inRange(map[string]*mvccpb.KeyValue{"": ev.Kv}, op.KeyBytes(), op.RangeBytes())) == 1 {
			out = append(out, ev)
		}
	}
	slices.Reverse(out)
	return out, e.header(), e.changed
}
