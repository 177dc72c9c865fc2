package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/retry"
)

const secretSize = 32

// A Shared is a secret that all nodes of a service share through etcd.
type Shared struct {
	key     string // in etcd
	purpose string
	ends    string // what ends if it is replaced
	several bool   // whether the value may be a document with several secrets, which the caller parses
}

// StreamIDSecret is the secret that signs stream ids.
func StreamIDSecret(prefix string) Shared {
	return Shared{prefix + "/secret", "a signing secret", "all running streams", true}
}

// NetworkKey is the secret by which the networks of viewers are computed.
func NetworkKey(prefix string) Shared {
	return Shared{prefix + "/network-key", "the key of networks", "the comparison with networks of running streams", false}
}

// EdgeKey is the secret of the cookies and derived sessions of the edge.
func EdgeKey(prefix string) Shared {
	return Shared{prefix + "/edge-key", "the key of the edge", "the sessions of players at the edge", false}
}

// GetOrCreate returns the secret. The first caller creates it. It retries until ctx ends
// while etcd is unavailable.
func (s Shared) GetOrCreate(ctx context.Context, c *clientv3.Client) ([]byte, error) {
	fresh := make([]byte, secretSize)
	if _, err := rand.Read(fresh); err != nil {
		return nil, fmt.Errorf("create a secret: %w", err)
	}
	return s.getOrCreateWithRetry(ctx, c, fresh)
}

// Share stores secret, which comes from another shard, in this etcd too. It is an error if
// this etcd has an unrelated secret.
func (s Shared) Share(
	ctx context.Context, c *clientv3.Client, secret []byte, related func(a, b []byte) bool,
) error {
	found, err := s.getOrCreateWithRetry(ctx, c, secret)
	if err == nil && !bytes.Equal(found, secret) && !related(found, secret) {
		err = fmt.Errorf("etcd key %s is not that of the other shards: this etcd belongs to another service; use "+
			"another prefix, or an etcd without streams from which you have deleted that key", s.key)
	}
	return err
}

// Find returns the stored secret, or nil.
func (s Shared) Find(ctx context.Context, c *clientv3.Client) ([]byte, error) {
	return s.getOrCreateWithRetry(ctx, c, nil)
}

// getOrCreateWithRetry returns the stored secret. If there is none, it stores fresh, unless
// fresh is nil. It retries while etcd is unavailable.
func (s Shared) getOrCreateWithRetry(ctx context.Context, c *clientv3.Client, fresh []byte) ([]byte, error) {
	wait := newBackoff()
	for {
		secret, err := getOrCreate(ctx, c, s.key, fresh)
		if err == nil && secret == nil {
			return nil, nil
		}
		if err == nil {
			return s.check(secret)
		}
		if isRefusal(err) {
			return nil, fmt.Errorf("read or create etcd key %s: %w", s.key, err)
		}
		if retry.Sleep(ctx, wait.Next()) != nil {
			return nil, fmt.Errorf("read or create etcd key %s: %w; the last attempt: %w",
				s.key, context.Cause(ctx), err)
		}
	}
}

// getOrCreate makes one attempt. If fresh was stored but the reply was lost, the next attempt
// finds it.
func getOrCreate(ctx context.Context, c *clientv3.Client, key string, fresh []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultCallTimeout)
	defer cancel()
	// Read first, because a full etcd rejects any transaction that contains a put.
	found, err := c.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	if len(found.Kvs) > 0 {
		return found.Kvs[0].Value, nil
	}
	if fresh == nil {
		return nil, nil
	}
	resp, err := c.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, string(fresh))).
		Else(clientv3.OpGet(key)).
		Commit()
	if err != nil {
		return nil, err
	}
	if resp.Succeeded {
		return fresh, nil
	}
	return resp.Responses[0].GetResponseRange().Kvs[0].Value, nil
}

// check returns a stored secret, or an error if it is not valid.
func (s Shared) check(secret []byte) ([]byte, error) {
	if len(secret) == secretSize || s.several && bytes.HasPrefix(secret, []byte("{")) {
		return secret, nil
	}
	return nil, fmt.Errorf("etcd key %s holds %d bytes, want the %d of %s: something else wrote it; delete it and "+
		"restart all nodes to get a new secret, which ends %s", s.key, len(secret), secretSize, s.purpose, s.ends)
}

// isRefusal reports whether an error is permanent.
func isRefusal(err error) bool {
	known := rpctypes.Error(err)
	return errors.Is(known, rpctypes.ErrPermissionDenied) || errors.Is(known, rpctypes.ErrAuthFailed) ||
		errors.Is(known, rpctypes.ErrUserEmpty)
}
