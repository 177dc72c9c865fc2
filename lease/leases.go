package lease

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/singleflight"
)

// grant takes a new lease of the configured TTL and returns the TTL that etcd
// gave, which may be longer. The id is our own and random: etcd's are
// consecutive, and a grant whose answer is lost can be revoked only by an id
// that we know.
func (l *Limiter) grant(ctx context.Context) (clientv3.LeaseID, time.Duration, error) {
	for {
		id := randomLease()
		resp, err := l.leases.LeaseGrant(ctx, &etcdserverpb.LeaseGrantRequest{ID: id, TTL: int64(l.cfg.TTL / time.Second)})
		if err == nil {
			return clientv3.LeaseID(id), time.Duration(resp.TTL) * time.Second, nil
		}
		if !errors.Is(classify(err), errNotApplied) {
			l.cleaner.add(id) // it may have been granted all the same
		}
		if !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseExist) {
			return 0, 0, unavailable("grant a lease", err)
		}
		// etcd's client repeated a grant whose answer was lost: try another id.
	}
}

// grantGrave is grant for all who wait for a lease for their tombstones.
func (l *Limiter) grantGrave() (clientv3.LeaseID, error) {
	ctx, cancel := context.WithTimeout(context.Background(), l.cfg.Timeout)
	defer cancel()
	id, _, err := l.grant(ctx)
	return id, err
}

func randomLease() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	id := int64(binary.BigEndian.Uint64(b[:]) >> 1)
	return max(id, 1) // 0 would let etcd choose
}

// revoke ends a lease and all its keys. A lease that is gone already is fine.
func (l *Limiter) revoke(ctx context.Context, id int64) error {
	_, err := l.leases.LeaseRevoke(ctx, &etcdserverpb.LeaseRevokeRequest{ID: id})
	if err == nil || errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return fmt.Errorf("revoke lease %x: %w", id, err)
}

// renew gives a lease its full TTL again and returns that TTL, or errLeaseGone.
// It uses a stream of its own, because renewing a lease that has run out but is
// not yet revoked blocks the stream it is on until the revoke is applied.
func (l *Limiter) renew(ctx context.Context, id int64) (time.Duration, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	s, err := l.leases.LeaseKeepAlive(ctx)
	if err != nil {
		return 0, fmt.Errorf("open a keep-alive stream: %w", err)
	}
	err = s.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: id})
	if err != nil && !errors.Is(err, io.EOF) { // on EOF the reason comes with Recv
		return 0, fmt.Errorf("renew lease %x: %w", id, err)
	}
	resp, err := s.Recv()
	switch {
	case err != nil:
		return 0, fmt.Errorf("renew lease %x: %w", id, err)
	case resp.TTL <= 0:
		return 0, errLeaseGone
	}
	return time.Duration(resp.TTL) * time.Second, nil
}

// graveyard hands out the lease under which tombstones lie. Nobody renews it, so
// no tombstone outlives one TTL; it is changed while most of its time is left,
// and before so many keys hang on it that their end would hold etcd up.
type graveyard struct {
	grant func() (clientv3.LeaseID, error)
	fresh time.Duration // how long after its grant a lease is used

	asking singleflight.Group // one grant for all who wait

	mu    sync.Mutex // never held across I/O
	lease clientv3.LeaseID
	used  int
	until time.Time
}

const maxGraves = 1000 // keys on one lease, as Kubernetes has it

// take returns a lease for n more tombstones.
func (g *graveyard) take(ctx context.Context, n int) (clientv3.LeaseID, error) {
	for {
		if id := g.current(n); id != 0 {
			return id, nil
		}
		select {
		case r := <-g.asking.DoChan("", g.renewed):
			if r.Err != nil {
				return 0, r.Err
			}
		case <-ctx.Done():
			return 0, unavailable("grant a lease for tombstones", ctx.Err())
		}
	}
}

// current counts n more tombstones on the lease in use, or returns 0.
func (g *graveyard) current(n int) clientv3.LeaseID {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lease == 0 || g.used+n > maxGraves || !time.Now().Before(g.until) {
		return 0
	}
	g.used += n
	return g.lease
}

func (g *graveyard) renewed() (any, error) {
	sent := time.Now()
	id, err := g.grant()
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lease, g.used, g.until = id, 0, sent.Add(g.fresh)
	return nil, nil
}

// drop forgets a lease that turned out to be gone.
func (g *graveyard) drop(id clientv3.LeaseID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lease == id {
		g.lease = 0
	}
}
