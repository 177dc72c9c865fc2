package cluster

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"streamcount/internal/testing/etcdtest"
)

// An account is a user of an etcd with authentication, and root.
type account struct {
	*etcdtest.Member
	root *clientv3.Client
	file string // with the password
}

func startAuth(t *testing.T, cfg etcdtest.Config) *account {
	t.Helper()
	m := etcdtest.Start(t, cfg)
	enableAuth(t, m.Client(t))
	a := &account{Member: m, file: filepath.Join(t.TempDir(), "password")}
	a.write(t, "app-secret")
	root := filepath.Join(t.TempDir(), "root")
	require.NoError(t, os.WriteFile(root, []byte("root-secret"), 0o600))
	a.root = dial(t, ClientConfig{Endpoints: []string{m.Endpoint()}, User: "root", PasswordFile: root})
	return a
}

// write replaces the password file, as secrets are replaced.
func (a *account) write(t *testing.T, password string) {
	t.Helper()
	next := a.file + ".new"
	require.NoError(t, os.WriteFile(next, []byte(password+"\n"), 0o600))
	require.NoError(t, os.Rename(next, a.file))
}

func (a *account) change(t *testing.T, password string) {
	t.Helper()
	_, err := a.root.UserChangePassword(t.Context(), "app", password)
	require.NoError(t, err)
}

func (a *account) config(t *testing.T) ClientConfig {
	t.Helper()
	cfg, err := ClientConfig{Endpoints: []string{a.Endpoint()}, User: "app", PasswordFile: a.file}.WithSession()
	require.NoError(t, err)
	return cfg
}

// signIns returns how often clients have signed in.
func (a *account) signIns(do func()) int {
	before := a.Calls(etcdtest.SignIn)
	do()
	return a.Calls(etcdtest.SignIn) - before
}

const appKey = "/streamcount/k"

// renewOnStream opens a keep-alive stream and renews a lease on it.
func renewOnStream(ctx context.Context, c *clientv3.Client, id clientv3.LeaseID) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := pb.NewLeaseClient(c.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(&pb.LeaseKeepAliveRequest{ID: int64(id)}); err != nil {
		return err
	}
	_, err = s.Recv()
	return err
}

// All clients and streams share one sign-in, also when etcd has dropped the
// token that all of them use.
func TestSession_OneSignIn(t *testing.T) {
	a := startAuth(t, etcdtest.Config{})
	cfg := a.config(t)
	var clients []*clientv3.Client
	use := func() {
		var all sync.WaitGroup
		for _, c := range clients {
			for range 10 {
				all.Go(func() {
					_, err := c.Put(t.Context(), appKey, "v")
					assert.NoError(t, err)
					lease, err := c.Grant(t.Context(), 60)
					if assert.NoError(t, err) {
						assert.NoError(t, renewOnStream(t.Context(), c, lease.ID))
					}
				})
			}
		}
		all.Wait()
	}
	assert.Equal(t, 1, a.signIns(func() {
		for range 5 {
			clients = append(clients, dial(t, cfg))
		}
		use()
	}))
	a.change(t, "app-secret") // drops all tokens of the user
	assert.Equal(t, 1, a.signIns(use))
}

// The password is changed while clients run, in either order.
func TestSession_PasswordChanges(t *testing.T) {
	a := startAuth(t, etcdtest.Config{})
	core, logs := observer.New(zap.InfoLevel)
	cfg := a.config(t)
	cfg.session.log = zap.New(core)
	c, other := dial(t, cfg), dial(t, cfg)
	put(t, c, appKey, "v")

	a.write(t, "second")
	put(t, c, appKey, "v")
	a.change(t, "second")
	put(t, c, appKey, "v")
	put(t, other, appKey, "v")
	assert.Empty(t, logs.All(), "the file first: nothing is lost")

	a.change(t, "third")
	_, err := c.Put(t.Context(), appKey, "v")
	require.ErrorIs(t, err, rpctypes.ErrAuthFailed)
	require.EqualError(t, Ready(t.Context(), other, "/streamcount"), "etcd does not accept this node's user or password")
	began := time.Now()
	tried := a.signIns(func() {
		for range 1000 {
			_, err := other.Put(t.Context(), appKey, "v")
			require.ErrorIs(t, err, rpctypes.ErrAuthFailed)
		}
	})
	assert.Less(t, time.Since(began), soon, "at once")
	assert.LessOrEqual(t, tried, 8, "with backoff")
	a.write(t, "third")
	require.Eventually(t, func() bool { return Ready(t.Context(), c, "/streamcount") == nil }, soon, time.Millisecond)
	put(t, other, appKey, "v")
	require.Equal(t, 2, logs.Len(), "one line at the beginning, one at the end")
}

// A file that is missing or empty for a moment has no effect.
func TestSession_UnreadableFile(t *testing.T) {
	a := startAuth(t, etcdtest.Config{})
	c := dial(t, a.config(t))
	require.NoError(t, os.WriteFile(a.file, nil, 0o600))
	a.change(t, "app-secret")
	put(t, c, appKey, "v")
	require.NoError(t, os.Remove(a.file))
	a.change(t, "app-secret")
	put(t, c, appKey, "v")
}

// A new watch works although it shares a stream with an old token. The other watches continue.
func TestSession_Watch(t *testing.T) {
	a := startAuth(t, etcdtest.Config{})
	c := dial(t, a.config(t))
	put(t, c, appKey, "v")
	running := c.Watch(t.Context(), appKey)
	a.change(t, "app-secret")
	second := <-c.Watch(t.Context(), appKey, clientv3.WithRev(1))
	require.NoError(t, second.Err())
	put(t, c, appKey, "w")
	assert.Len(t, (<-running).Events, 1)
}

// Tokens that expire by themselves are replaced.
func TestSession_TokensExpire(t *testing.T) {
	t.Parallel() // it waits for the most part
	a := startAuth(t, etcdtest.Config{TokenTTL: time.Second})
	c := dial(t, a.config(t))
	tries, renewed := 0, 0
	require.Eventually(t, func() bool {
		if a.signIns(func() { put(t, c, appKey, "v") }) > 0 {
			renewed++
		}
		tries++
		return renewed == 2
	}, soon, 2500*time.Millisecond, "a token that is unused for a second expires")
	assert.LessOrEqual(t, renewed, tries)
}

// A restarted server has lost all simple tokens.
func TestSession_Restart(t *testing.T) {
	a := startAuth(t, etcdtest.Config{})
	c := dial(t, a.config(t))
	put(t, c, appKey, "v")
	a.Restart(t)
	require.Eventually(t, func() bool {
		_, err := c.Put(t.Context(), appKey, "v")
		return err == nil
	}, soon, time.Millisecond)
	lease, err := c.Grant(t.Context(), 60)
	require.NoError(t, err)
	require.NoError(t, renewOnStream(t.Context(), c, lease.ID))
}

// A JWT is refused as soon as anything about users has changed.
func TestSession_JWT(t *testing.T) {
	a := startAuth(t, etcdtest.Config{Token: jwtOption(t)})
	c := dial(t, a.config(t))
	put(t, c, appKey, "v")
	for _, name := range []string{"x", "y", "z"} {
		_, err := a.root.UserAdd(t.Context(), name, "p")
		require.NoError(t, err)
		assert.Equal(t, 1, a.signIns(func() {
			for range 10 {
				put(t, c, appKey, "v")
			}
		}))
	}
	running := c.Watch(t.Context(), appKey)
	a.write(t, "second")
	a.change(t, "second")
	put(t, c, appKey, "w")
	assert.Len(t, (<-running).Events, 1)
}

// jwtOption is etcd's --auth-token for tokens signed by a new key.
func jwtOption(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	dir := t.TempDir()
	private, public := filepath.Join(dir, "private"), filepath.Join(dir, "public")
	require.NoError(t, os.WriteFile(private, pem.EncodeToMemory(&pem.Block{
		Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key),
	}), 0o600))
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(public, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600))
	return "jwt,pub-key=" + public + ",priv-key=" + private + ",sign-method=RS256,ttl=10m"
}

// Authentication is switched off and on again while clients run.
func TestSession_AuthenticationSwitched(t *testing.T) {
	a := startAuth(t, etcdtest.Config{})
	c := dial(t, a.config(t))
	put(t, c, appKey, "v")
	_, err := a.root.AuthDisable(t.Context())
	require.NoError(t, err)
	put(t, c, appKey, "v")
	second := dial(t, a.config(t)) // signs in although authentication is disabled
	put(t, second, appKey, "v")
	_, err = a.root.AuthEnable(t.Context())
	require.NoError(t, err)
	put(t, second, appKey, "v")
	put(t, c, appKey, "v")
}

// A sign-in at a member that hangs does not delay calls to others.
func TestSession_MemberHangs(t *testing.T) {
	t.Parallel()
	a := startAuth(t, etcdtest.Config{})
	relay := etcdtest.NewRelay(t)
	relay.To(a.Endpoint())
	cfg := a.config(t)
	cfg.CallTimeout = patient
	c := dial(t, cfg)
	cfg.Endpoints = []string{"http://" + relay.Address()}
	hanging := dial(t, cfg)
	_, err := hanging.Get(t.Context(), appKey)
	require.NoError(t, err)
	relay.Freeze()
	a.change(t, "app-secret")
	cfg.session.mu.Lock()
	cfg.session.token = nil
	cfg.session.mu.Unlock()
	stuck := make(chan error, 1)
	go func() {
		_, err := hanging.Get(t.Context(), appKey)
		stuck <- err
	}()
	require.Eventually(t, func() bool {
		cfg.session.mu.Lock()
		defer cfg.session.mu.Unlock()
		return cfg.session.attempt != nil
	}, soon, time.Millisecond)
	began := time.Now()
	put(t, c, appKey, "v")
	assert.Less(t, time.Since(began), patient/2)
	relay.Thaw()
	require.NoError(t, <-stuck)
}

// The password must not be readable on its way, unless that is asked for.
func TestDial_PasswordOverPlainHTTP(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("p"), 0o600))
	for endpoint, refused := range map[string]bool{
		"http://etcd-1:2379":               true,
		"etcd-1:2379":                      true,
		"http://10.0.0.1:2379":             true,
		"http://[2001:db8::1]:2379":        true,
		"http://localhost.example.com:1":   true,
		"http://127.0.0.1.example.com:1":   true,
		"http://127.0.0.1:2379":            false,
		"http://127.9.9.9:2379":            false,
		"http://[::1]:2379":                false,
		"localhost:2379":                   false,
		"unix:///run/etcd.sock":            false,
		"https://etcd-1.example.com:2379/": false,
	} {
		cfg := ClientConfig{Endpoints: []string{endpoint}, User: "u", PasswordFile: file}
		_, err := cfg.WithSession()
		if !refused {
			require.NoError(t, err, endpoint)
			continue
		}
		require.ErrorContains(t, err, "over plain http", endpoint)
		_, err = Connect(t.Context(), cfg)
		require.ErrorContains(t, err, "etcd-insecure-password", endpoint)
		cfg.InsecurePassword = true
		_, err = cfg.WithSession()
		require.NoError(t, err, endpoint)
	}
}
