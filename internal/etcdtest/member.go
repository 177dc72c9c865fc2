package etcdtest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"
)

// startTimeout bounds a start, for machines busy with many tests.
const startTimeout = 30 * time.Second

// Config says how a test's own server differs from etcd's defaults.
type Config struct {
	Dir        string             // data directory; "" means one that is removed with the test
	QuotaBytes int64              // size at which etcd raises NOSPACE; 0 means etcd's default
	MaxTxnOps  uint               // 0 means etcd's default, 128
	TickMs     uint               // heartbeat interval; 0 means 10
	ElectionMs uint               // election timeout; 0 means ten ticks
	Advertise  string             // client URL to tell others; "" means that of Member.Endpoint
	TLS        *transport.TLSInfo // serve clients on https with it; nil means plain http

	// peersVia returns where other members are to reach the given listener; nil means there.
	peersVia func(listener url.URL) url.URL
}

func (c Config) withDefaults() Config {
	c.TickMs = cmp.Or(c.TickMs, 10)
	c.ElectionMs = cmp.Or(c.ElectionMs, 10*c.TickMs)
	return c
}

// A Member is one etcd server of a test. Its methods are not for concurrent
// use with each other.
type Member struct {
	cfg     Config
	name    string
	peers   string  // "name=url,..." of the whole cluster; "" for a server alone
	peerURL url.URL // where it listens for the others
	peerVia url.URL // where they reach it
	port    int     // of the client listener: chosen at the first start, then kept

	embed *embed.Etcd // nil while stopped

	mu    sync.Mutex // guards grpcs, which etcd fills from its own goroutine
	grpcs []*grpc.Server
}

// Start runs a server for this test alone and waits until it serves. It is
// stopped when the test ends.
func Start(tb testing.TB, cfg Config) *Member {
	tb.Helper()
	cfg.Dir = cmp.Or(cfg.Dir, tb.TempDir())
	m := &Member{cfg: cfg.withDefaults(), name: "solo"}
	tb.Cleanup(m.Stop)
	require.NoError(tb, m.start(), "start etcd")
	return m
}

// Endpoint returns the client address. It stays the same across restarts.
func (m *Member) Endpoint() string { u := m.clientURL(); return u.String() }

// Client returns a new client of this member, closed when the test ends. A
// member that serves TLS needs a client made by the test.
func (m *Member) Client(tb testing.TB) *clientv3.Client {
	tb.Helper()
	return FaultyClient(tb, []string{m.Endpoint()}, nil)
}

// Embed returns the running server, nil while it is stopped.
func (m *Member) Embed() *embed.Etcd { return m.embed }

// Stop ends the server and cuts its clients off at once. It does nothing if
// the server is stopped already.
func (m *Member) Stop() {
	if m.embed == nil {
		return
	}
	m.hangUp() // otherwise Close waits seconds for open watches
	m.embed.Close()
	m.embed = nil
}

// hangUp cuts clients off.
func (m *Member) hangUp() {
	m.mu.Lock()
	grpcs := m.grpcs
	m.grpcs = nil
	m.mu.Unlock()
	for _, s := range grpcs {
		s.Stop()
	}
}

// Restart stops the server, if it runs, and starts it again on the same data
// and the same addresses. In a cluster without quorum it does not return in
// time: use [Cluster.Restart] to start several members together.
func (m *Member) Restart(tb testing.TB) {
	tb.Helper()
	m.Stop()
	require.NoError(tb, m.start(), "restart etcd")
}

func (m *Member) start() error {
	if err := m.launch(); err != nil {
		return err
	}
	return m.awaitReady()
}

// launch starts the server but does not wait until it has a leader.
func (m *Member) launch() error {
	deadline := time.Now().Add(startTimeout)
	for {
		port := m.port
		if port == 0 {
			var err error
			if port, err = freePort(); err != nil {
				return err
			}
		}
		e, err := embed.StartEtcd(m.embedConfig(port))
		if err == nil {
			m.embed, m.port = e, port
			return nil
		}
		// Another process may hold the port for a moment as its own end of a
		// connection.
		if !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline) {
			return fmt.Errorf("etcd member %s: %w", m.name, err)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (m *Member) awaitReady() error {
	select {
	case <-m.embed.Server.ReadyNotify():
		return nil
	case err := <-m.embed.Err():
		return fmt.Errorf("etcd member %s: %w", m.name, err)
	case <-time.After(startTimeout):
		return fmt.Errorf("etcd member %s: not ready after %v", m.name, startTimeout)
	}
}

func (m *Member) clientURL() url.URL { return m.urlFor(m.port) }

func (m *Member) urlFor(port int) url.URL {
	scheme := "http"
	if m.cfg.TLS != nil {
		scheme = "https"
	}
	return url.URL{Scheme: scheme, Host: fmt.Sprintf("127.0.0.1:%d", port)}
}

func (m *Member) embedConfig(port int) *embed.Config {
	shrinkWAL()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = m.name, m.cfg.Dir
	cfg.TickMs, cfg.ElectionMs = m.cfg.TickMs, m.cfg.ElectionMs
	cfg.UnsafeNoFsync = true
	cfg.QuotaBackendBytes = m.cfg.QuotaBytes
	cfg.MaxTxnOps = cmp.Or(m.cfg.MaxTxnOps, cfg.MaxTxnOps)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(quiet())
	clients := []url.URL{m.urlFor(port)}
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = clients, clients
	if u, err := url.Parse(m.cfg.Advertise); err == nil && m.cfg.Advertise != "" {
		cfg.AdvertiseClientUrls = []url.URL{*u}
	}
	if m.cfg.TLS != nil {
		cfg.ClientTLSInfo = *m.cfg.TLS
	}
	if m.peers == "" { // nobody has to reach it: any port does
		cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
		cfg.InitialCluster = cfg.InitialClusterFromName(m.name)
	} else {
		cfg.ListenPeerUrls = []url.URL{m.peerURL}
		cfg.AdvertisePeerUrls = []url.URL{m.peerVia}
		cfg.InitialCluster = m.peers
	}
	cfg.ServiceRegister = func(s *grpc.Server) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.grpcs = append(m.grpcs, s)
	}
	return cfg
}

// quiet drops etcd's log, but turns its Fatal, which would end the test
// process without a word, into a panic with a stack.
func quiet() *zap.Logger {
	return zap.New(zapcore.NewNopCore(), zap.WithFatalHook(zapcore.WriteThenPanic))
}

// shrinkWAL keeps etcd from allocating 128 MB of log for each server.
var shrinkWAL = sync.OnceFunc(func() { wal.SegmentSizeBytes = 4 << 20 })

// freePort returns a port that was free a moment ago. etcd can listen on port
// 0, but would then advertise port 0 to its clients. It is below the ports that systems
// give to connections for their own end, or one of those might take it meanwhile.
func freePort() (int, error) {
	for range 100 {
		port := 12_000 + rand.IntN(20_000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no port is free")
}
