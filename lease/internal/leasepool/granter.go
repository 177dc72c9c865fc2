package leasepool

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"streamcount/lease/internal/etcdop"
)

// A Lease is a lease that no stream uses.
type Lease struct {
	ID      int64         // 0 for no lease
	TTL     time.Duration // as etcd granted it, which may be longer than requested
	Renewed time.Time     // before the last grant or renewal request was sent

	usedBefore   bool // by a stream that has ended
	restoreCount int  // the inventory's when the lease was added
}

// grantRetryDelay is the pause after a failed background grant: etcd is unavailable or
// full.
const grantRetryDelay = 250 * time.Millisecond

// A Granter grants and revokes leases.
type Granter struct {
	client  pb.LeaseClient
	timeout time.Duration // of a grant
	cleaner *Cleaner
	lastID  atomic.Int64
}

// NewGranter returns a Granter that completes revocations by cleaner.
func NewGranter(client pb.LeaseClient, timeout time.Duration, cleaner *Cleaner) *Granter {
	g := &Granter{client: client, timeout: timeout, cleaner: cleaner}
	g.lastID.Store(NewID() / 2) // the ids after it do not end
	return g
}

// Grant returns a new lease. It chooses the id, because a grant whose response is lost can
// be revoked only if the id is known. The ids of a Granter are consecutive, from a random
// one. etcd stores leases in the order of their ids, so each random id would change another
// page of its database. Two nodes or shards use one id only if their first ids, of 62 bits,
// differ by less than the number of leases that a node grants.
func (g *Granter) Grant(ctx context.Context, ttl time.Duration) (Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, g.timeout)
	defer cancel()
	for {
		id, sent := g.lastID.Add(1), time.Now()
		resp, err := g.client.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: int64(ttl / time.Second)})
		switch {
		case err == nil:
			return Lease{ID: id, TTL: time.Duration(resp.TTL) * time.Second, Renewed: sent}, nil
		case errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseExist):
			// Another node has granted it, or etcd's client has repeated a grant whose response was
			// lost. It is not revoked, because it may be the lease of a stream.
			continue
		case !errors.Is(etcdop.Classify(err), etcdop.ErrNotApplied):
			g.RevokeLater(id) // the outcome is unknown
		}
		return Lease{}, etcdop.Unavailable("grant a lease", err)
	}
}

// NewID returns a random lease id.
func NewID() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	id := int64(binary.BigEndian.Uint64(b[:]) >> 1)
	return max(id, 1) // etcd would choose an id for 0
}

// Revoke ends a lease and deletes its keys. It is no error if the lease is gone.
func (g *Granter) Revoke(ctx context.Context, id int64) error {
	_, err := g.client.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	if err == nil || errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return fmt.Errorf("revoke lease %x: %w", id, err)
}

// RevokeLater revokes a lease in the background. Only the owner of the lease may call it.
func (g *Granter) RevokeLater(id int64) {
	if id == 0 {
		return // a foreign key without a lease
	}
	g.cleaner.Enqueue(func(ctx context.Context) error { return g.Revoke(ctx, id) })
}
