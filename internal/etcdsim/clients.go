package etcdsim

import (
	"context"
	"io"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// kv is the KV client of a link. What it does not have, nobody calls.
type kv struct {
	pb.KVClient
	*Link
}

// leases is the lease client of a link.
type leases struct {
	pb.LeaseClient
	*Link
}

// KV is the link's KV client.
func (l *Link) KV() pb.KVClient { return kv{Link: l} }

// Lease is the link's lease client.
func (l *Link) Lease() pb.LeaseClient { return leases{Link: l} }

// Range reads.
func (k kv) Range(ctx context.Context, r *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	return call(ctx, k.Link, "Range", func(e *Etcd) (*pb.RangeResponse, error) { return e.read(r) })
}

// Txn carries a transaction out.
func (k kv) Txn(ctx context.Context, r *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	return call(ctx, k.Link, "Txn", func(e *Etcd) (*pb.TxnResponse, error) { return e.txn(r) })
}

// DeleteRange deletes.
func (k kv) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest, _ ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	return call(ctx, k.Link, "DeleteRange", func(e *Etcd) (*pb.DeleteRangeResponse, error) {
		w := &write{Etcd: e}
		gone := w.delete(r.Key, r.RangeEnd)
		w.commit()
		return &pb.DeleteRangeResponse{Header: e.header(), Deleted: int64(len(gone))}, nil
	})
}

// LeaseGrant grants a lease of the id that is asked for.
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

// LeaseTimeToLive tells what a lease has left, in whole seconds; less than 0 if it
// has run out or is gone. A leader that was deposed and does not know it may answer.
func (c leases) LeaseTimeToLive(
	ctx context.Context, r *pb.LeaseTimeToLiveRequest, _ ...grpc.CallOption,
) (*pb.LeaseTimeToLiveResponse, error) {
	return call(ctx, c.Link, "LeaseTimeToLive", func(e *Etcd) (*pb.LeaseTimeToLiveResponse, error) {
		resp := &pb.LeaseTimeToLiveResponse{Header: e.header(), ID: r.ID, TTL: -1}
		l, ends := e.leases[r.ID], time.Time{}
		if l != nil {
			ends = l.ends
		}
		if time.Now().Before(e.former.until) && c.passage("former").back%2 == 0 {
			resp.Header.RaftTerm, ends = e.former.term, e.former.ends[r.ID]
		}
		if l != nil && !ends.IsZero() { // etcd cuts to whole seconds, towards 0
			resp.TTL, resp.GrantedTTL = int64(time.Until(ends)/time.Second), int64(l.ttl/time.Second)
		}
		return resp, nil
	})
}

// LeaseKeepAlive opens a stream of renewals.
func (c leases) LeaseKeepAlive(ctx context.Context, _ ...grpc.CallOption) (pb.Lease_LeaseKeepAliveClient, error) {
	return call(ctx, c.Link, "LeaseKeepAlive", func(*Etcd) (pb.Lease_LeaseKeepAliveClient, error) {
		return &keepAlive{ctx: ctx, link: c.Link, asked: make(chan int64, 1<<12)}, nil
	})
}

// keepAlive is served one request at a time, and a lease that has run out holds it up
// until it is revoked, as with etcd.
type keepAlive struct {
	grpc.ClientStream
	ctx   context.Context
	link  *Link
	asked chan int64
}

// Send asks for a renewal.
func (k *keepAlive) Send(r *pb.LeaseKeepAliveRequest) error {
	select {
	case k.asked <- r.ID:
		return nil
	case <-k.ctx.Done():
		return io.EOF
	}
}

// Recv is the answer to the oldest request.
func (k *keepAlive) Recv() (*pb.LeaseKeepAliveResponse, error) {
	var id int64
	select {
	case id = <-k.asked:
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
			case time.Now().After(l.ends):
				stuck = true
				return nil, nil
			}
			l.ends, l.renewed = time.Now().Add(l.ttl), time.Now()
			return &pb.LeaseKeepAliveResponse{Header: e.header(), ID: id, TTL: int64(l.ttl / time.Second)}, nil
		})
		if err != nil || !stuck {
			return resp, err
		}
		if !sleep(k.ctx, revokeEvery/5) {
			return nil, k.ctx.Err()
		}
	}
}

// A Watcher is a link's. Requests for progress go to all its watches.
type Watcher struct {
	link *Link
	ask  chan chan struct{} // holds the signal of the next request for progress
}

// Watcher returns a new one.
func (l *Link) Watcher() *Watcher {
	w := &Watcher{l, make(chan chan struct{}, 1)}
	w.ask <- make(chan struct{})
	return w
}

// RequestProgress has every watch tell how far it is.
func (w *Watcher) RequestProgress(context.Context) error {
	close(<-w.ask)
	w.ask <- make(chan struct{})
	return nil
}

func (w *Watcher) asked() <-chan struct{} {
	c := <-w.ask
	w.ask <- c
	return c
}

// Close does nothing: watches end with their contexts.
func (w *Watcher) Close() error { return nil }

// Watch tells of changes from the revision on that opts say.
func (w *Watcher) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	op := clientv3.OpGet(key, opts...)
	out := make(chan clientv3.WatchResponse)
	go func() {
		defer close(out)
		send := func(r clientv3.WatchResponse) bool {
			if l := w.link; !sleep(ctx, l.Lag+l.passage("watch").back) {
				return false
			}
			for w.link.cut.Load() { // what was on its way comes when it is mended
				if !sleep(ctx, revokeEvery) {
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
		progress, next := w.asked(), op.Rev()
		if !send(clientv3.WatchResponse{Header: w.link.Etcd.heading(), Created: true}) {
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
				progress = w.asked()
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

func (e *Etcd) heading() *pb.ResponseHeader {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.header()
}

// since are the events in op's range from revision next on, how far that is, and what
// is closed with the next.
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
