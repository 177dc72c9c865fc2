package etcdtest

import (
	"cmp"
	"errors"
	"fmt"
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

	"streamcount/internal/testing/freeport"
)

// bcryptCost is bcrypt's minimum.
const bcryptCost = 4

// startTimeout is the deadline of a start. It is long because the machine may run many tests.
const startTimeout = 30 * time.Second

// Config is the configuration of a server of one test.
type Config struct {
	Dir        string             // data directory; "" means a temporary one
	QuotaBytes int64              // size at which etcd raises NOSPACE; 0 means etcd's default
	MaxTxnOps  uint               // 0 means etcd's default, 128
	TickMs     uint               // heartbeat interval; 0 means 10
	ElectionMs uint               // election timeout; 0 means ten ticks
	Advertise  string             // advertised client URL; "" means that of Member.Endpoint
	TLS        *transport.TLSInfo // for clients; nil means plain HTTP
	Token      string             // etcd's --auth-token; "" means "simple"
	TokenTTL   time.Duration      // of simple tokens, in whole seconds; 0 means etcd's default, 5 min

	// peersVia returns the advertised peer URL of a listener; nil means the listener's own.
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
	peers   string  // "name=url,..." of all members; "" for a single server
	peerURL url.URL // of the listener for other members
	peerVia url.URL // advertised to other members
	joins   bool    // it joins an existing cluster
	port    int     // of the client listener, chosen at the first start

	embed *embed.Etcd // nil while stopped

	mu    sync.Mutex // guards grpcs, which etcd fills from its own goroutine
	grpcs []*grpc.Server

	calls methodCounts
}

// Start runs a server for one test and waits until it serves. It is stopped when the test
// ends.
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

// Embed returns the running server, or nil while it is stopped.
func (m *Member) Embed() *embed.Etcd { return m.embed }

// Calls returns how many calls of method clients have made to this member, over
// all its restarts. A stream is one call.
func (m *Member) Calls(method string) int { return m.calls.of(method) }

// Stop stops the server and closes the connections of its clients at once. It does nothing if
// the server is already stopped.
func (m *Member) Stop() {
	if m.embed == nil {
		return
	}
	m.disconnectClients() // otherwise Close waits seconds for open watches
	m.embed.Close()
	m.embed = nil
}

// disconnectClients closes the connections of all clients.
func (m *Member) disconnectClients() {
	m.mu.Lock()
	grpcs := m.grpcs
	m.grpcs = nil
	m.mu.Unlock()
	for _, s := range grpcs {
		s.Stop()
	}
}

// Restart stops the server, if it runs, and starts it with the same data and addresses. In a
// cluster without quorum the start times out: use [Cluster.Restart] to start several members
// together.
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
			if port, err = freeport.Find(); err != nil {
				return err
			}
		}
		e, err := embed.StartEtcd(m.embedConfig(port))
		if err == nil {
			m.embed, m.port = e, port
			return nil
		}
		// The port may be in use for a moment as the local port of a connection.
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
	cfg.AuthToken = cmp.Or(m.cfg.Token, cfg.AuthToken)
	cfg.AuthTokenTTL = cmp.Or(uint(m.cfg.TokenTTL/time.Second), cfg.AuthTokenTTL)
	cfg.BcryptCost = bcryptCost
	cfg.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.StatsHandler(&m.calls)}
	if m.peers == "" { // no other member connects to it
		cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
		cfg.InitialCluster = cfg.InitialClusterFromName(m.name)
	} else {
		cfg.ListenPeerUrls = []url.URL{m.peerURL}
		cfg.AdvertisePeerUrls = []url.URL{m.peerVia}
		cfg.InitialCluster = m.peers
		if m.joins {
			cfg.ClusterState = embed.ClusterStateFlagExisting
		}
	}
	cfg.ServiceRegister = func(s *grpc.Server) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.grpcs = append(m.grpcs, s)
	}
	return cfg
}

// quiet returns a logger that drops etcd's log. Its Fatal panics with a stack, where etcd's
// would exit the test process without a message.
func quiet() *zap.Logger {
	return zap.New(zapcore.NewNopCore(), zap.WithFatalHook(zapcore.WriteThenPanic))
}

// shrinkWAL makes etcd allocate 4 MB of write-ahead log for each server instead of 128 MB.
var shrinkWAL = sync.OnceFunc(func() { wal.SegmentSizeBytes = 4 << 20 })
