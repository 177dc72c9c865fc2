package cluster

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"streamcount/internal/testing/etcdtest"
)

const soon = time.Minute // for machines busy with many tests

// relayed is a cluster of three that is reached, and advertised, through
// relays.
type relayed struct {
	*etcdtest.Cluster
	relays []*etcdtest.Relay
}

func startRelayed(t *testing.T) *relayed {
	t.Helper()
	r := &relayed{}
	var members []etcdtest.Config
	for range 3 {
		relay := etcdtest.NewRelay(t)
		r.relays = append(r.relays, relay)
		members = append(members, etcdtest.Config{Advertise: "http://" + relay.Address()})
	}
	r.Cluster = etcdtest.StartClusterOf(t, members...)
	for i, relay := range r.relays {
		relay.To(r.Members[i].Endpoint())
	}
	return r
}

func (r *relayed) address(i int) string { return "http://" + r.relays[i].Address() }

func (r *relayed) config() ClientConfig {
	return ClientConfig{Endpoints: []string{r.address(0), r.address(1), r.address(2)}}
}

// follow runs a LeaderLease with a separate client until the test ends.
func follow(t *testing.T, cfg ClientConfig, prepare ...func(*LeaderLease)) *LeaderLease {
	t.Helper()
	c := dial(t, cfg)
	l := NewLeaderLease(c, cfg)
	for _, p := range prepare {
		p(l)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return l
}

// awaitAddress waits until renewals go straight to address.
func awaitAddress(t *testing.T, l *LeaderLease, address string) {
	t.Helper()
	require.Eventually(t, func() bool { _, a := l.Leader(); return a == address }, soon, time.Millisecond,
		"the leader at %s", address)
}

// renewals is a keep-alive stream that renews one lease when asked to.
type renewals struct {
	etcdserverpb.Lease_LeaseKeepAliveClient
	id int64
}

func openRenewals(t *testing.T, l *LeaderLease) *renewals {
	t.Helper()
	id := grantLease(t, l, 60)
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	s, err := l.LeaseKeepAlive(ctx)
	require.NoError(t, err)
	return &renewals{s, id}
}

func (r *renewals) renew(t *testing.T) error {
	t.Helper()
	if err := r.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: r.id}); err != nil {
		_, err = r.Recv() // says why
		return err
	}
	resp, err := r.Recv()
	if err != nil {
		return err
	}
	assert.EqualValues(t, 60, resp.TTL)
	return nil
}

// at returns the address of the member that the stream has led to.
func (r *renewals) at(t *testing.T) string {
	t.Helper()
	p, ok := peer.FromContext(r.Context())
	require.True(t, ok)
	return "http://" + p.Addr.String()
}

func TestLeaderLease_GoesToTheLeader(t *testing.T) {
	t.Parallel()
	cl := startRelayed(t)
	leader := cl.Leader(t)
	t.Run("run", func(t *testing.T) {
		var faults etcdtest.Faults
		cfg := cl.config()
		cfg.DialOptions = faults.DialOptions()
		l := follow(t, cfg)
		awaitAddress(t, l, cl.address(leader))
		id, _ := l.Leader()
		assert.EqualValues(t, cl.Members[leader].Embed().Server.MemberID(), id)

		for range 6 { // a client of all members would come to each of them
			s := openRenewals(t, l)
			require.NoError(t, s.renew(t))
			assert.Equal(t, cl.address(leader), s.at(t))
			require.NoError(t, s.CloseSend())
		}
		assert.Equal(t, 6, faults.Calls(etcdtest.KeepAlive), "the leader's connection has the same interceptors")
		s := openRenewals(t, l)
		ttl, err := l.LeaseTimeToLive(t.Context(), &etcdserverpb.LeaseTimeToLiveRequest{ID: s.id})
		require.NoError(t, err)
		assert.EqualValues(t, 60, ttl.GrantedTTL)

		// While nothing changes, streams stay open.
		const statusMethod = "/etcdserverpb.Maintenance/Status"
		looks := faults.Calls(statusMethod)
		require.Eventually(t, func() bool { return faults.Calls(statusMethod) >= looks+3 }, soon, time.Millisecond)
		require.NoError(t, s.renew(t))
		assert.LessOrEqual(t, cl.relays[leader].Conns(), 2, "the ordinary one and the leader's")
	})
	require.Eventually(t, func() bool {
		return cl.relays[0].Conns()+cl.relays[1].Conns()+cl.relays[2].Conns() == 0 && !running("LeaderLease).Run")
	}, soon, 10*time.Millisecond, "nothing is left of it")
}

func TestLeaderLease_LeavesADeposedLeader(t *testing.T) {
	t.Parallel()
	cl := startRelayed(t)
	l := follow(t, cl.config())
	old := cl.Leader(t)
	awaitAddress(t, l, cl.address(old))
	idle, busy := openRenewals(t, l), openRenewals(t, l)
	require.NoError(t, busy.renew(t))

	next := (old + 1) % 3
	cl.MoveLeader(t, next)
	_, err := idle.Recv()
	require.ErrorIs(t, rpctypes.Error(err), rpctypes.ErrLeaderChanged)
	assert.Equal(t, codes.Unavailable, status.Code(err))
	_, err = busy.Recv()
	require.ErrorIs(t, rpctypes.Error(err), rpctypes.ErrLeaderChanged)
	s := openRenewals(t, l)
	require.NoError(t, s.renew(t))
	assert.Equal(t, cl.address(next), s.at(t))
	require.Eventually(t, func() bool { return cl.relays[old].Conns() <= 1 }, soon, time.Millisecond,
		"the connection to the old leader is closed")
}

func TestLeaderLease_LeavesAStoppedLeader(t *testing.T) {
	t.Parallel()
	cl := startRelayed(t)
	l := follow(t, cl.config())
	old := cl.Leader(t)
	awaitAddress(t, l, cl.address(old))
	s := openRenewals(t, l)
	require.NoError(t, s.renew(t))
	stopped := time.Now()
	cl.Stop(old)
	_, err := s.Recv()
	require.Error(t, err)
	next := cl.Leader(t)
	awaitAddress(t, l, cl.address(next))
	t.Log("moved after", time.Since(stopped))
	s = openRenewals(t, l)
	require.NoError(t, s.renew(t))
	assert.Equal(t, cl.address(next), s.at(t))
}

// A paused leader keeps its connections and answers nothing.
func TestLeaderLease_LeavesAPausedLeader(t *testing.T) {
	t.Parallel()
	cl := startRelayed(t)
	cfg := cl.config()
	cfg.CallTimeout = time.Second
	l := follow(t, cfg)
	old := cl.Leader(t)
	awaitAddress(t, l, cl.address(old))
	s := openRenewals(t, l)
	require.NoError(t, s.renew(t))

	// The other members have not noticed yet.
	cl.relays[old].Freeze()
	began := time.Now()
	_, err := l.LeaseTimeToLive(t.Context(),
		&etcdserverpb.LeaseTimeToLiveRequest{ID: s.id})
	assert.True(t, err == nil || errors.Is(err, context.DeadlineExceeded), "%v", err)
	require.Error(t, s.renew(t))
	assert.Less(t, time.Since(began), soon)
	id, address := l.Leader()
	assert.EqualValues(t, cl.Members[old].Embed().Server.MemberID(), id)
	assert.Empty(t, address, "known, but not to be reached")
	require.Eventually(t, func() bool { // some go to the paused one until its pings fail
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		return renewOnce(ctx, l, s.id) == nil
	}, soon, time.Millisecond, "through a follower")

	cl.relays[old].Thaw()
	awaitAddress(t, l, cl.address(old))

	// Now the other members lose the connection too.
	s = openRenewals(t, l)
	require.NoError(t, s.renew(t))
	cl.relays[old].Freeze()
	began = time.Now()
	paused := cl.Members[old].Embed().Server
	paused.PauseSending()
	defer paused.ResumeSending()
	_, err = s.Recv()
	require.ErrorIs(t, rpctypes.Error(err), rpctypes.ErrLeaderChanged)
	t.Log("stream ended after", time.Since(began))
	require.Eventually(t, func() bool {
		id, address := l.Leader()
		return address != "" && id != uint64(paused.MemberID())
	}, soon, time.Millisecond, "the new leader")
	t.Log("moved after", time.Since(began))
}

func renewOnce(ctx context.Context, l *LeaderLease, id int64) error {
	s, err := l.LeaseKeepAlive(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(&etcdserverpb.LeaseKeepAliveRequest{ID: id}); err != nil {
		return err
	}
	_, err = s.Recv()
	return err
}

func TestLeaderLease_AdvertisedAddressesMeanNothingHere(t *testing.T) {
	t.Parallel()
	other := etcdtest.Endpoints(t)[0] // answers, but is another cluster
	nobody := "http://127.0.0.1:1"
	cl := etcdtest.StartClusterOf(t, etcdtest.Config{Advertise: nobody},
		etcdtest.Config{Advertise: other}, etcdtest.Config{Advertise: nobody})

	t.Run("configured-ones-do", func(t *testing.T) {
		for leader := range 2 {
			if cl.Leader(t) != leader {
				cl.MoveLeader(t, leader)
			}
			l := follow(t, ClientConfig{Endpoints: cl.Endpoints()})
			awaitAddress(t, l, cl.Members[leader].Endpoint())
			s := openRenewals(t, l)
			require.NoError(t, s.renew(t))
			assert.Equal(t, cl.Members[leader].Endpoint(), s.at(t))
		}
	})
	t.Run("none-does", func(t *testing.T) {
		leader := cl.Leader(t)
		core, logs := observer.New(zap.InfoLevel)
		follower := cl.Members[(leader+1)%3].Endpoint()
		l := follow(t, ClientConfig{Endpoints: []string{follower}, Log: zap.New(core)},
			func(l *LeaderLease) { l.search.warnAfter = 0 })
		s := openRenewals(t, l)
		require.NoError(t, s.renew(t), "through the follower")
		assert.Equal(t, follower, s.at(t))
		require.Eventually(t, func() bool { return logs.Len() > 0 }, soon, time.Millisecond)
		require.NoError(t, s.renew(t), "the stream may stay")

		// That follower becomes the leader, at an address that is known here.
		cl.MoveLeader(t, (leader+1)%3)
		awaitAddress(t, l, follower)
		require.NoError(t, s.renew(t), "the stream may stay")
		require.Eventually(t, func() bool { return logs.Len() == 2 }, soon, time.Millisecond, "the route is logged after it is used")
		assert.Equal(t, zap.WarnLevel, logs.All()[0].Level)
		assert.Contains(t, logs.All()[0].Message, "does not answer")
		assert.Equal(t, zap.InfoLevel, logs.All()[1].Level)
	})
}

func TestLeaderLease_OneMemberOneConnection(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{})
	relay := etcdtest.NewRelay(t)
	relay.To(m.Endpoint())
	cfg := ClientConfig{Endpoints: []string{relay.Address()}}
	c := dial(t, cfg)
	l := NewLeaderLease(c, cfg)
	early := openRenewals(t, l)
	require.NoError(t, early.renew(t), "before Run")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	awaitAddress(t, l, relay.Address())
	late := openRenewals(t, l)
	require.NoError(t, late.renew(t))
	require.NoError(t, early.renew(t), "there is no better way")
	assert.Equal(t, 1, relay.Conns())
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, late.renew(t), "after Run")
	id, address := l.Leader()
	assert.Zero(t, id)
	assert.Empty(t, address)
}

func TestLeaderLease_TLSAndPassword(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	serverCert, serverKey := ca.issue(t, "server")
	secure := etcdtest.Config{TLS: &transport.TLSInfo{
		CertFile: serverCert, KeyFile: serverKey, TrustedCAFile: ca.file, ClientCertAuth: true,
	}}
	cl := etcdtest.StartClusterOf(t, secure, secure, secure)
	cert, key := ca.issue(t, "client")
	cfg := ClientConfig{Endpoints: cl.Endpoints(), CAFile: ca.file, CertFile: cert, KeyFile: key}
	enableAuth(t, dial(t, cfg))
	cfg.User, cfg.PasswordFile = "app", filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(cfg.PasswordFile, []byte("app-secret"), 0o600))
	l := follow(t, cfg)
	leader := cl.Leader(t)
	awaitAddress(t, l, cl.Members[leader].Endpoint())
	s := openRenewals(t, l)
	require.NoError(t, s.renew(t))
	assert.Equal(t, hostPort(cl.Members[leader].Endpoint()), hostPort(s.at(t)))
}

func TestLeaderLease_Addresses(t *testing.T) {
	members := []*etcdserverpb.Member{
		{ID: 1, ClientURLs: []string{"http://a:1", "https://a:1", "http://b:1/", "unix://x"}},
		{ID: 2, ClientURLs: []string{"http://other:1"}},
	}
	for name, tc := range map[string]struct {
		endpoints, want []string
	}{
		"plain":         {[]string{"c:1", "http://b:1"}, []string{"http://b:1", "http://a:1", "http://c:1"}},
		"never-less":    {[]string{"https://c:1"}, []string{"https://a:1", "https://c:1"}},
		"given-twice":   {[]string{"a:1", "http://a:1"}, []string{"http://a:1", "http://b:1"}},
		"not-a-cluster": {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			l := &LeaderLease{cfg: ClientConfig{Endpoints: tc.endpoints}}
			assert.Equal(t, tc.want, l.addresses(members, 1))
			for _, a := range tc.want {
				_, err := url.Parse(a)
				require.NoError(t, err)
			}
		})
	}
}
