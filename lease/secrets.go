package lease

import (
	"bytes"
	"context"
	"errors"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/schema"
	"streamcount/lease/streamid"
)

// applySecrets starts to use the secrets that etcd contains now. After the restore of a
// backup it keeps the secrets that the backup lacks.
func (l *Limiter) applySecrets(value []byte) {
	if bytes.Equal(value, l.appliedSecrets) {
		return // listed again: the secrets kept after a restore stay
	}
	l.appliedSecrets = bytes.Clone(value)
	now, err := streamid.ParseSecrets(value)
	old := l.ids.Secrets()
	switch {
	case err != nil:
		l.cfg.Log.Error("cannot decode the secrets of stream ids; the previous secrets stay in use", "err", err)
		return
	case !now.Overlaps(old):
		l.cfg.Log.Error("etcd contains another secret of stream ids than this node uses: restart this node to use it, " +
			"which ends the running streams")
		return
	}
	now = now.Succeed(old)
	if l.ids.SetSecrets(now, time.Now()) {
		l.cfg.Log.Info("the secrets of stream ids have changed", "secrets", now.Len())
		if l.cfg.Audit != nil {
			l.cfg.Audit.Info("audit", "what", "change secrets", "user", "", "caller", "unknown",
				"old", old.Len(), "new", now.Len(), "shard", l.cfg.Shard)
		}
	}
}

// ReadSecrets reads the secrets from etcd, and returns them with the revision of their
// put, which is 0 if etcd has none. Returns [ErrUnavailable].
func (l *Limiter) ReadSecrets(ctx context.Context) (streamid.Secrets, int64, error) {
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	kv, err := etcdop.ReadKey(ctx, l.etcd.KV, l.keys.Secret())
	if err != nil {
		return streamid.Secrets{}, 0, etcdop.Unavailable("read the secrets of stream ids", err)
	}
	if kv == nil {
		return l.ids.Secrets(), 0, nil
	}
	s, err := streamid.ParseSecrets(kv.Value)
	return s, kv.ModRevision, err
}

// errSecretsChanged means that another caller changed the secrets at the same time.
var errSecretsChanged = errors.New("lease: another command changed the secrets at the same time: show them again")

// PutSecrets writes s unless the secrets were put after revision rev. Returns
// [ErrUnavailable].
func (l *Limiter) PutSecrets(ctx context.Context, s streamid.Secrets, rev int64) error {
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	key := l.keys.Secret()
	resp, err := l.etcd.KV.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{etcdop.ModRevisionIs(key, rev)},
		Success: []*pb.RequestOp{etcdop.Put(key, s.Value(), 0)},
	})
	if err != nil {
		return etcdop.Unavailable("write the secrets of stream ids", err)
	}
	if !resp.Succeeded {
		return errSecretsChanged
	}
	return nil
}

// StartedBefore counts the streams that started before at, by the clocks of the
// nodes that started them.
func (l *Limiter) StartedBefore(ctx context.Context, at time.Time) (n int, err error) {
	_, err = l.replica.EachKey(ctx, etcdop.Prefix(l.keys.UsersPrefix()), 0, func(kv *mvccpb.KeyValue) {
		if r := schema.DecodeRecord(kv.Value); r.Nonce != (streamid.Nonce{}) && r.StartTime().Before(at) {
			n++
		}
	})
	return n, err
}
