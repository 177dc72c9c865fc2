package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const secretSize = 32

// Secret returns the key that all nodes sign stream ids with. The first caller
// makes it; all callers get the same. While etcd is away it tries again until
// ctx ends.
func Secret(ctx context.Context, c *clientv3.Client, prefix string) ([]byte, error) {
	fresh := make([]byte, secretSize)
	if _, err := rand.Read(fresh); err != nil {
		return nil, fmt.Errorf("make a secret: %w", err)
	}
	return agreed(ctx, c, prefix, fresh)
}

// ShareSecret makes secret, which is another etcd's, the one of this etcd too. It
// is an error if this etcd has one of its own.
func ShareSecret(ctx context.Context, c *clientv3.Client, prefix string, secret []byte) error {
	found, err := agreed(ctx, c, prefix, secret)
	if err == nil && !bytes.Equal(found, secret) {
		err = fmt.Errorf("etcd key %s is not that of the other shards: this etcd belongs to another service; use "+
			"another prefix, or an etcd without streams from which you have deleted that key", secretKey(prefix))
	}
	return err
}

// FindSecret returns the key that Secret has made, nil if nobody has yet.
func FindSecret(ctx context.Context, c *clientv3.Client, prefix string) ([]byte, error) {
	return agreed(ctx, c, prefix, nil)
}

func secretKey(prefix string) string { return prefix + "/secret" }

// agreed returns the secret that is there, or else makes it fresh, unless that is
// nil. While etcd is away it tries again.
func agreed(ctx context.Context, c *clientv3.Client, prefix string, fresh []byte) ([]byte, error) {
	key := secretKey(prefix)
	var wait backoffWait
	for {
		secret, err := agree(ctx, c, key, fresh)
		if err == nil && secret == nil {
			return nil, nil
		}
		if err == nil {
			return checkSecret(key, secret)
		}
		if isRefusal(err) {
			return nil, fmt.Errorf("read or create etcd key %s: %w", key, err)
		}
		if !sleep(ctx, wait.take()) {
			return nil, fmt.Errorf("read or create etcd key %s: %w; the last attempt: %w",
				key, context.Cause(ctx), err)
		}
	}
}

// agree makes one attempt. If a write of fresh was applied but its reply lost,
// the next attempt finds fresh there.
func agree(ctx context.Context, c *clientv3.Client, key string, fresh []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultCallTimeout)
	defer cancel()
	// A plain read first: an etcd that is full refuses any transaction that
	// could write.
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

func checkSecret(key string, secret []byte) ([]byte, error) {
	if len(secret) == secretSize {
		return secret, nil
	}
	return nil, fmt.Errorf("etcd key %s holds %d bytes, want the %d of a signing secret: something else "+
		"wrote it; delete it and restart all nodes to get a new secret, which ends the streams that are running",
		key, len(secret), secretSize)
}

// isRefusal tells errors that come back however often the call is repeated.
func isRefusal(err error) bool {
	known := rpctypes.Error(err)
	return errors.Is(known, rpctypes.ErrPermissionDenied) || errors.Is(known, rpctypes.ErrAuthFailed) ||
		errors.Is(known, rpctypes.ErrUserEmpty)
}
