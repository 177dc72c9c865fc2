package lease

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// granted is a lease that nobody uses yet, or any more.
type granted struct {
	lease   int64
	ttl     time.Duration // as etcd granted it, which may be longer than asked
	renewed time.Time     // before the last request left that renewed or granted it
	used    bool          // a stream had it before

	restores int // how often etcd had been restored, as far as the book knew when it came in
}

// grantRest is how long who grants ahead rests after a grant that failed: etcd is
// away, or full.
const grantRest = 250 * time.Millisecond

// grant takes a new lease of the configured TTL.
func (l *Limiter) grant(ctx context.Context) (granted, error) { return l.grantFor(ctx, l.cfg.TTL) }

// grantFor takes a new lease. The id is our own and random:
// etcd's are consecutive, and a grant whose answer is lost can be revoked only
// by an id that we know.
func (l *Limiter) grantFor(ctx context.Context, ttl time.Duration) (granted, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	for {
		id, sent := randomLease(), time.Now()
		resp, err := l.etcd.Lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: int64(ttl / time.Second)})
		if err == nil {
			return granted{lease: id, ttl: time.Duration(resp.TTL) * time.Second, renewed: sent}, nil
		}
		if !errors.Is(classify(err), errNotApplied) {
			l.cleaner.revokeLater(id) // it may have been granted all the same
		}
		if !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseExist) {
			return granted{}, unavailable("grant a lease", err)
		}
		// etcd's client repeated a grant whose answer was lost: try another id.
	}
}

func randomLease() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	id := int64(binary.BigEndian.Uint64(b[:]) >> 1)
	return max(id, 1) // 0 would let etcd choose
}

// revoke ends a lease and all its keys. A lease that is gone already is fine.
func (l *Limiter) revoke(ctx context.Context, id int64) error {
	_, err := l.etcd.Lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	if err == nil || errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
		return nil
	}
	return fmt.Errorf("revoke lease %x: %w", id, err)
}

// renewAlone renews a lease on a stream of its own, for one that may have run
// out: renewing it then blocks the stream until etcd has revoked it.
func (l *Limiter) renewAlone(ctx context.Context, id int64) renewal {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	sent := time.Now()
	s, err := l.etcd.Lease.LeaseKeepAlive(ctx)
	if err != nil {
		return renewal{err: fmt.Errorf("open a keep-alive stream: %w", err)}
	}
	err = s.Send(&pb.LeaseKeepAliveRequest{ID: id})
	if err != nil && !errors.Is(err, io.EOF) { // on EOF the reason comes with Recv
		return renewal{err: fmt.Errorf("renew lease %x: %w", id, err)}
	}
	resp, err := s.Recv()
	if err != nil {
		return renewal{err: fmt.Errorf("renew lease %x: %w", id, err)}
	}
	return renewalOf(resp, sent)
}

// renewal is etcd's answer to one renewal: errLeaseGone, another error if it is
// not known, or the time that the lease has from sent on.
type renewal struct {
	sent time.Time // before the request left: etcd may start the TTL any time after
	ttl  time.Duration
	err  error
}

func renewalOf(resp *pb.LeaseKeepAliveResponse, sent time.Time) renewal {
	if resp.TTL <= 0 {
		return renewal{sent: sent, err: errLeaseGone}
	}
	return renewal{sent: sent, ttl: time.Duration(resp.TTL) * time.Second}
}
