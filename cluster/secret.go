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

// Secret returns the secret with which all nodes sign stream ids. The first caller creates
// it. Secret retries until ctx ends while etcd is unavailable.
func Secret(ctx context.Context, c *clientv3.Client, prefix string) ([]byte, error) {
	fresh := make([]byte, secretSize)
	if _, err := rand.Read(fresh); err != nil {
		return nil, fmt.Errorf("create a secret: %w", err)
	}
	return getOrCreateWithRetry(ctx, c, prefix, fresh)
}

// ShareSecret stores secret, which comes from another shard, in this etcd too. It is an error
// if this etcd has an unrelated secret.
func ShareSecret(
	ctx context.Context, c *clientv3.Client, prefix string, secret []byte, related func(a, b []byte) bool,
) error {
	found, err := getOrCreateWithRetry(ctx, c, prefix, secret)
	if err == nil && !bytes.Equal(found, secret) && !related(found, secret) {
		err = fmt.Errorf("etcd key %s is not that of the other shards: this etcd belongs to another service; use "+
			"another prefix, or an etcd without streams from which you have deleted that key", secretKey(prefix))
	}
	return err
}

// FindSecret returns the stored secret, or nil.
func FindSecret(ctx context.Context, c *clientv3.Client, prefix string) ([]byte, error) {
	return getOrCreateWithRetry(ctx, c, prefix, nil)
}

func secretKey(prefix string) string { return prefix + "/secret" }

// getOrCreateWithRetry returns the stored secret. If there is none, it stores fresh, unless
// fresh is nil. It retries while etcd is unavailable.
func getOrCreateWithRetry(ctx context.Context, c *clientv3.Client, prefix string, fresh []byte) ([]byte, error) {
	key := secretKey(prefix)
	wait := newBackoff()
	for {
		secret, err := getOrCreate(ctx, c, key, fresh)
		if err == nil && secret == nil {
			return nil, nil
		}
		if err == nil {
			return checkSecret(key, secret)
		}
		if isRefusal(err) {
			return nil, fmt.Errorf("read or create etcd key %s: %w", key, err)
		}
		if retry.Sleep(ctx, wait.Next()) != nil {
			return nil, fmt.Errorf("read or create etcd key %s: %w; the last attempt: %w",
				key, context.Cause(ctx), err)
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

func checkSecret(key string, secret []byte) ([]byte, error) {
	if len(secret) == secretSize || bytes.HasPrefix(secret, []byte("{")) { // several secrets, which the caller parses
		return secret, nil
	}
	return nil, fmt.Errorf("etcd key %s holds %d bytes, want the %d of a signing secret: something else "+
		"wrote it; delete it and restart all nodes to get a new secret, which ends all running streams",
		key, len(secret), secretSize)
}

// isRefusal reports whether an error is permanent.
func isRefusal(err error) bool {
	known := rpctypes.Error(err)
	return errors.Is(known, rpctypes.ErrPermissionDenied) || errors.Is(known, rpctypes.ErrAuthFailed) ||
		errors.Is(known, rpctypes.ErrUserEmpty)
}
