package userdata_test

import (
	"context"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }

// The user and other users whose ids, or keys, begin with the same text.
const (
	user   = "mäx/é%"
	inKeys = "m%C3%A4x%2F%C3%A9%25" // the user in keys
)

var neighbours = []string{"mäx/é", "mäx/é%25", "mäx"}

// eraseKV calls before with each transaction of an erasure. If before returns an error, the
// transaction is not sent.
type eraseKV struct {
	pb.KVClient
	mu     sync.Mutex
	before func(*pb.TxnRequest) error
}

func (k *eraseKV) Txn(ctx context.Context, t *pb.TxnRequest, o ...grpc.CallOption) (*pb.TxnResponse, error) {
	k.mu.Lock()
	before := k.before
	k.mu.Unlock()
	if before != nil {
		for _, op := range t.Success {
			if d := op.GetRequestDeleteRange(); d != nil && d.PrevKv {
				if err := before(t); err != nil {
					return nil, err
				}
				break
			}
		}
	}
	return k.KVClient.Txn(ctx, t, o...)
}

func (k *eraseKV) onErase(before func(*pb.TxnRequest) error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.before = before
}

type env struct {
	*lease.Limiter
	etcd   *clientv3.Client
	kv     *eraseKV
	prefix string
}

func newEnv(t *testing.T, cfg lease.Config) env {
	t.Helper()
	e := env{etcd: etcdtest.Client(t), prefix: etcdtest.Prefix(t)}
	if cfg.Prefix == "" {
		cfg.Prefix = e.prefix
	}
	e.prefix = cfg.Prefix
	cfg.Secret, cfg.TTL, cfg.Timeout = []byte("0123456789abcdef0123456789abcdef"), time.Minute, time.Minute
	on := lease.FromClient(e.etcd)
	e.kv = &eraseKV{KVClient: on.KV}
	on.KV = e.kv
	var err error
	e.Limiter, err = lease.New(on, cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return e
}

func (e env) start(t *testing.T, user string, r lease.Request) lease.Started {
	t.Helper()
	st, err := e.Start(t.Context(), user, r)
	require.NoError(t, err)
	return st
}

func (e env) put(t *testing.T, key, value string) {
	t.Helper()
	_, err := e.etcd.Put(t.Context(), e.prefix+key, value)
	require.NoError(t, err)
}

// keys returns the keys with a segment that is part, by a scan of all keys.
func (e env) keys(t *testing.T, part string) []string {
	t.Helper()
	resp, err := e.etcd.Get(t.Context(), e.prefix+"/", clientv3.WithPrefix())
	require.NoError(t, err)
	require.NotEmpty(t, resp.Kvs, "the scan reads keys")
	var found []string
	for _, kv := range resp.Kvs {
		if strings.Contains(string(kv.Key)+"/", "/"+part+"/") || strings.Contains(string(kv.Value), part) {
			found = append(found, strings.TrimPrefix(string(kv.Key), e.prefix))
		}
	}
	return found
}
