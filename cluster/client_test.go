package cluster

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"streamcount/internal/testing/etcdtest"
)

func TestDial_BadConfiguration(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
		return path
	}
	ca := newAuthority(t)
	cert, key := ca.issue(t, "client")
	empty, garbage := write("empty", "\n"), write("garbage", "no PEM here")
	missing := filepath.Join(dir, "missing")
	eps := func(eps ...string) []string { return eps }
	for name, tc := range map[string]struct {
		cfg  ClientConfig
		want string
	}{
		"no-endpoints":      {ClientConfig{}, "no etcd endpoints"},
		"scheme":            {ClientConfig{Endpoints: eps("ftp://x:1")}, `"ftp://x:1"`},
		"empty-endpoint":    {ClientConfig{Endpoints: eps("")}, `""`},
		"mixed":             {ClientConfig{Endpoints: eps("http://a:1", "https://b:1")}, "either http or https"},
		"mixed-bare":        {ClientConfig{Endpoints: eps("https://a:1", "b:1")}, "either http or https"},
		"files-on-http":     {ClientConfig{Endpoints: eps("http://a:1"), CAFile: ca.file}, "is not https"},
		"cert-without-key":  {ClientConfig{Endpoints: eps("https://a:1"), CertFile: cert}, "both"},
		"key-without-cert":  {ClientConfig{Endpoints: eps("a:1"), KeyFile: key}, "both"},
		"cert-missing":      {ClientConfig{Endpoints: eps("a:1"), CertFile: missing, KeyFile: key}, missing},
		"cert-is-no-pem":    {ClientConfig{Endpoints: eps("a:1"), CertFile: garbage, KeyFile: key}, garbage},
		"key-of-other-cert": {ClientConfig{Endpoints: eps("a:1"), CertFile: ca.file, KeyFile: key}, ca.file},
		"ca-missing":        {ClientConfig{Endpoints: eps("a:1"), CAFile: missing}, missing},
		"ca-is-no-pem":      {ClientConfig{Endpoints: eps("a:1"), CAFile: garbage}, garbage},
		"user-alone":        {ClientConfig{Endpoints: eps("a:1"), User: "u"}, "both a user and"},
		"password-alone":    {ClientConfig{Endpoints: eps("a:1"), PasswordFile: garbage}, "both a user and"},
		"password-missing":  {ClientConfig{Endpoints: eps("localhost:1"), User: "u", PasswordFile: missing}, missing},
		"password-empty":    {ClientConfig{Endpoints: eps("localhost:1"), User: "u", PasswordFile: empty}, "is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Dial(t.Context(), tc.cfg)
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), "\n")

			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			_, err = Connect(ctx, tc.cfg)
			require.ErrorContains(t, err, tc.want)
			require.NoError(t, ctx.Err(), "Connect returns at once, too")
		})
	}
}

func TestDial_DoesNotWaitForEtcd(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{})
	m.Stop()
	c := dial(t, ClientConfig{Endpoints: []string{m.Endpoint()}})
	m.Restart(t)
	put(t, c, "k", "v")
}

func TestDial_ContextBoundsDialAlone(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c, err := Dial(ctx, ClientConfig{Endpoints: etcdtest.Endpoints(t)})
	require.NoError(t, err)
	cancel()
	_, err = c.Get(t.Context(), "k")
	require.NoError(t, err, "the client outlives the context of Dial")
	require.NoError(t, c.Close())

	_, err = Dial(ctx, ClientConfig{Endpoints: etcdtest.Endpoints(t)})
	require.ErrorIs(t, err, context.Canceled)
}

func TestBoundCalls_NoAnswer(t *testing.T) {
	t.Parallel()
	var f etcdtest.Faults
	key := etcdtest.Prefix(t)
	c := dial(t, ClientConfig{
		Endpoints:   etcdtest.Endpoints(t),
		CallTimeout: 200 * time.Millisecond,
		DialOptions: f.DialOptions(),
	})
	f.HoldReply(etcdtest.Put)
	_, err := c.Put(context.Background(), key, "v") // must have no deadline
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.ErrorContains(t, err, etcdtest.Put)
	assert.Equal(t, 1, f.Calls(etcdtest.Put), "a write without an answer is not repeated")

	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err = c.Put(ctx, key, "v")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.GreaterOrEqual(t, time.Since(began), 600*time.Millisecond, "a caller's own deadline holds")
	assert.Equal(t, 2, f.Calls(etcdtest.Put))
}

// A server whose clock runs ahead answers DeadlineExceeded, and a stream that
// is reset answers Canceled, while the caller still waits.
func TestBoundCalls_KeepsWritesFromBeingRepeated(t *testing.T) {
	for _, code := range []codes.Code{codes.DeadlineExceeded, codes.Canceled} {
		t.Run(code.String(), func(t *testing.T) {
			calls := 0
			answer := func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker,
				...grpc.CallOption) error {
				calls++
				return status.Error(code, "says the server")
			}
			c := dial(t, ClientConfig{
				Endpoints:   etcdtest.Endpoints(t),
				DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(answer)},
			})
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err := c.Put(ctx, "k", "v")
			require.ErrorContains(t, err, "says the server")
			assert.Equal(t, 1, calls)
			require.NoError(t, ctx.Err(), "at once")
		})
	}
}

func TestDial_WarnsOfReadableSecrets(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	ca := newAuthority(t)
	cert, key := ca.issue(t, "client")
	cfg := ClientConfig{Endpoints: []string{"localhost:1"}, CertFile: cert, KeyFile: key, Log: zap.New(core)}
	dial(t, cfg)
	assert.Empty(t, logs.All())
	require.NoError(t, os.Chmod(key, 0o644))
	dial(t, cfg)
	require.Len(t, logs.All(), 1)
	assert.Equal(t, key, logs.All()[0].ContextMap()["file"])
}
