package keystore

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"streamcount/internal/testing/etcdtest"
	"streamcount/token"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }

const day = 24 * time.Hour

func config(prefix string) Config {
	return Config{Prefix: prefix + "/tokenkeys/", Algorithm: token.EdDSA, Prepublish: time.Hour, Period: 30 * day, Retention: 2 * time.Hour,
		Spread: 500 * time.Millisecond}
}

func newStore(t *testing.T, cfg Config) *Store {
	t.Helper()
	c := etcdtest.Client(t)
	return New(cfg, &token.Ring{}, func() *clientv3.Client { return c }, slog.New(slog.DiscardHandler))
}

// run runs a store until the test ends.
func run(t *testing.T, s *Store) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { assert.NoError(t, s.Run(ctx)) })
	t.Cleanup(func() { stop(); running.Wait() })
}

// signing waits until a store has a key that signs, and returns its id.
func signing(t *testing.T, s *Store) string {
	t.Helper()
	var id string
	require.Eventually(t, func() bool {
		k, ok := s.ring.Signing(time.Now())
		id = k.ID
		return ok
	}, time.Minute, 5*time.Millisecond)
	return id
}

// kids returns the ids of the keys that a store publishes at a time.
func kids(t *testing.T, s *Store, at time.Time) []string {
	t.Helper()
	doc, _, err := s.ring.JWKS(at)
	require.NoError(t, err)
	var set struct{ Keys []struct{ Kid string } }
	require.NoError(t, json.Unmarshal(doc, &set))
	var out []string
	for _, k := range set.Keys {
		out = append(out, k.Kid)
	}
	return out
}

func states(infos []token.KeyInfo) (out []token.KeyState) {
	for _, i := range infos {
		out = append(out, i.State)
	}
	return out
}

func issue(t *testing.T, s *Store) string {
	t.Helper()
	text, err := token.New(token.Config{Issuer: "https://count.example", Life: 50 * time.Second}, s.ring).
		JWT(token.Playback{User: "maya", Stream: "h_1", LeaseEnd: time.Now().Add(time.Minute)}, time.Now())
	require.NoError(t, err)
	return text
}

// verify verifies a token by the keys that a store publishes, and returns the id of its key.
func verify(t *testing.T, s *Store, text string) (kid string, err error) {
	t.Helper()
	doc, _, err := s.ring.JWKS(time.Now())
	require.NoError(t, err)
	_, err = jwt.Parse(text, func(parsed *jwt.Token) (any, error) {
		var set struct{ Keys []token.Key }
		if err := json.Unmarshal(doc, &set); err != nil {
			return nil, err
		}
		kid, _ = parsed.Header["kid"].(string)
		for _, k := range set.Keys {
			if k.ID == kid {
				return k.PublicKey(), nil
			}
		}
		return nil, jwt.ErrTokenUnverifiable
	})
	return kid, err
}

// All nodes sign with one key from the start on, which one of them creates.
func TestStore_AllNodesSignWithOneKey(t *testing.T) {
	t.Parallel()
	cfg := config(etcdtest.Prefix(t))
	stores := make([]*Store, 5)
	for i := range stores {
		stores[i] = newStore(t, cfg)
		run(t, stores[i])
	}
	want := signing(t, stores[0])
	for _, s := range stores {
		<-s.Ready()
		assert.Equal(t, want, signing(t, s))
		assert.Equal(t, []string{want}, kids(t, s, time.Now()))
	}
	infos, err := stores[0].Keys(t.Context())
	require.NoError(t, err)
	require.Len(t, infos, 1)
	assert.Equal(t, token.Signing, infos[0].State)
	assert.Zero(t, infos[0].Until)
}

// After a rotation at once, tokens of both keys can be verified by the keys of every node, and new
// nodes sign with the new key.
func TestStore_RotateAtOnce(t *testing.T) {
	t.Parallel()
	cfg := config(etcdtest.Prefix(t))
	a, b := newStore(t, cfg), newStore(t, cfg)
	run(t, a)
	run(t, b)
	old := signing(t, a)
	require.Equal(t, old, signing(t, b))
	before := issue(t, b)
	infos, err := a.Rotate(t.Context(), true)
	require.NoError(t, err)
	require.Len(t, infos, 2)
	assert.Equal(t, infos[1].Created.Add(cfg.Spread), infos[1].From, "it is published before it signs")
	assert.Equal(t, infos[1].From.Add(cfg.Retention), infos[0].Until)
	again, err := b.Rotate(t.Context(), true)
	require.NoError(t, err)
	require.Len(t, again, 2, "a rotation is safe to repeat")
	assert.Equal(t, infos[1].From, again[1].From)
	for _, s := range []*Store{a, b} {
		require.Eventually(t, func() bool { return signing(t, s) == infos[1].ID }, time.Minute, 5*time.Millisecond)
	}
	c := newStore(t, cfg)
	run(t, c)
	require.Equal(t, infos[1].ID, signing(t, c), "a new node signs with the new key")
	for _, s := range []*Store{a, b, c} {
		kid, err := verify(t, s, before)
		require.NoError(t, err, "a token from before the rotation")
		assert.Equal(t, old, kid)
		for _, signer := range []*Store{a, b, c} {
			kid, err := verify(t, s, issue(t, signer))
			require.NoError(t, err)
			assert.Equal(t, infos[1].ID, kid)
		}
		assert.Equal(t, []string{infos[1].ID}, kids(t, s, infos[0].Until), "the old key is no longer published then")
	}
}

// A rotation publishes the next key, which does not sign yet. It is safe to repeat.
func TestStore_Rotate(t *testing.T) {
	t.Parallel()
	cfg := config(etcdtest.Prefix(t))
	a, b := newStore(t, cfg), newStore(t, cfg)
	run(t, a)
	run(t, b)
	old := signing(t, a)
	first, err := a.Rotate(t.Context(), false)
	require.NoError(t, err)
	assert.Equal(t, []token.KeyState{token.Signing, token.Published}, states(first))
	again, err := b.Rotate(t.Context(), false)
	require.NoError(t, err)
	assert.Equal(t, first, again)
	for _, s := range []*Store{a, b} {
		require.Eventually(t, func() bool { return len(kids(t, s, time.Now())) == 2 }, time.Minute, 5*time.Millisecond)
		assert.Equal(t, old, signing(t, s))
		k, _ := s.ring.Signing(first[1].From)
		assert.Equal(t, first[1].ID, k.ID, "it signs after the time without another read")
	}
	cfg.Spread = time.Minute
	atOnce, err := newStore(t, cfg).Rotate(t.Context(), true)
	require.NoError(t, err)
	assert.Equal(t, first[1].ID, atOnce[1].ID, "of the published key")
	assert.Equal(t, first[1].Created.Add(time.Minute), atOnce[1].From, "it was published a moment ago")
	cfg.Spread = 0
	atOnce, err = newStore(t, cfg).Rotate(t.Context(), true)
	require.NoError(t, err)
	assert.Equal(t, []token.KeyState{token.Verifying, token.Signing}, states(atOnce), "it was published for long enough")
	assert.Equal(t, first[1].ID, atOnce[1].ID)
}

// Keys are replaced and removed by their age.
func TestStore_Lifecycle(t *testing.T) {
	t.Parallel()
	cfg := config(etcdtest.Prefix(t))
	s, c := newStore(t, cfg), etcdtest.Client(t)
	began := time.Now()
	at := func(after time.Duration) []token.KeyState {
		_, err := s.sync(t.Context(), c, began.Add(after))
		require.NoError(t, err)
		return states(s.describe(s.known, began.Add(after)))
	}
	assert.Equal(t, []token.KeyState{token.Signing}, at(0))
	assert.Equal(t, []token.KeyState{token.Signing}, at(30*day-time.Hour-time.Second))
	assert.Equal(t, []token.KeyState{token.Signing, token.Published}, at(30*day-time.Hour))
	assert.Equal(t, []token.KeyState{token.Signing, token.Published}, at(30*day-time.Second))
	assert.Equal(t, []token.KeyState{token.Verifying, token.Signing}, at(30*day))
	assert.Equal(t, []token.KeyState{token.Verifying, token.Signing}, at(30*day+2*time.Hour-time.Second))
	assert.Equal(t, []token.KeyState{token.Signing}, at(30*day+2*time.Hour))
	assert.Equal(t, []token.KeyState{token.Signing}, at(30*day+2*time.Hour))
	assert.Len(t, s.known, 1, "the first key was deleted")
	// All nodes were stopped for months: the key signs until its successor was published for long enough.
	assert.Equal(t, []token.KeyState{token.Signing, token.Published}, at(200*day))
	assert.Equal(t, []token.KeyState{token.Signing, token.Published}, at(200*day+time.Hour-time.Second))
	assert.Equal(t, []token.KeyState{token.Verifying, token.Signing}, at(200*day+time.Hour))
}

// Nodes with another algorithm sign with a key of their own when it was published for long enough, and
// with those of the others until then. They publish the keys of all.
func TestStore_OtherAlgorithm(t *testing.T) {
	t.Parallel()
	cfg := config(etcdtest.Prefix(t))
	a := newStore(t, cfg)
	cfg.Algorithm = token.ES256
	b, c := newStore(t, cfg), etcdtest.Client(t)
	now := time.Now()
	for range 2 {
		for _, s := range []*Store{a, b} {
			_, err := s.sync(t.Context(), c, now)
			require.NoError(t, err)
		}
	}
	one := signing(t, a)
	assert.Equal(t, one, signing(t, b))
	last, _ := b.ring.Signing(now.Add(time.Hour - time.Second))
	assert.Equal(t, one, last.ID)
	own, _ := b.ring.Signing(now.Add(time.Hour))
	assert.Equal(t, token.ES256, own.Algorithm)
	assert.ElementsMatch(t, []string{one, own.ID}, kids(t, a, now))
	assert.ElementsMatch(t, []string{one, own.ID}, kids(t, b, now))
	newer, err := a.create(now, now.Add(2*time.Hour))
	require.NoError(t, err)
	keys, _, err := b.read(t.Context(), c)
	require.NoError(t, err)
	b.ring.Set(b.cfg.entries(append(keys, newer...)))
	own2, _ := b.ring.Signing(now.Add(3 * time.Hour))
	assert.Equal(t, own.ID, own2.ID, "the nodes with the first algorithm have rotated their key")
	// When no node has the first algorithm any more, its key is removed after its time.
	for range 2 {
		_, err := b.sync(t.Context(), c, now.Add(30*day+2*time.Hour))
		require.NoError(t, err)
	}
	assert.NotContains(t, kids(t, b, now.Add(30*day+2*time.Hour)), one)
}

// If the algorithm was changed while all nodes were stopped for months, the key of the old one signs until
// the new one was published for long enough.
func TestStore_OtherAlgorithmAfterMonths(t *testing.T) {
	t.Parallel()
	cfg := config(etcdtest.Prefix(t))
	a := newStore(t, cfg)
	cfg.Algorithm = token.ES256
	b, c := newStore(t, cfg), etcdtest.Client(t)
	now := time.Now()
	_, err := a.sync(t.Context(), c, now)
	require.NoError(t, err)
	one, later := signing(t, a), now.Add(100*day)
	for at, want := range map[time.Duration]token.Algorithm{0: token.EdDSA, time.Hour - time.Second: token.EdDSA, time.Hour: token.ES256} {
		_, err := b.sync(t.Context(), c, later)
		require.NoError(t, err)
		k, ok := b.ring.Signing(later.Add(at))
		assert.True(t, ok)
		assert.Equal(t, want, k.Algorithm, "%v", at)
		assert.Contains(t, kids(t, b, later.Add(at)), one)
	}
}

// Another etcd that has no keys gets those of the node, as after a move of the shards.
func TestStore_OtherEtcd(t *testing.T) {
	t.Parallel()
	s, c := newStore(t, config(etcdtest.Prefix(t))), etcdtest.Client(t)
	_, err := s.sync(t.Context(), c, time.Now())
	require.NoError(t, err)
	before := signing(t, s)
	s.cfg.Prefix = etcdtest.Prefix(t) + "/tokenkeys/"
	_, err = s.sync(t.Context(), c, time.Now())
	require.NoError(t, err)
	assert.Equal(t, before, signing(t, s))
	infos, err := s.Keys(t.Context())
	require.NoError(t, err)
	require.Len(t, infos, 1)
	assert.Equal(t, before, infos[0].ID)
}

// A value that is not a key is reported and skipped.
func TestStore_OtherValues(t *testing.T) {
	t.Parallel()
	cfg := config(etcdtest.Prefix(t))
	c := etcdtest.Client(t)
	for name, value := range map[string]string{
		"a": "hunter2", "b": `{}`, "c": `{"jwk":{"kty":"RSA"}}`, "d": `{"jwk":{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},"signsFrom":"2026-01-01T00:00:00Z"}`,
	} {
		_, err := c.Put(t.Context(), cfg.Prefix+name, value)
		require.NoError(t, err)
	}
	var log strings.Builder
	s := New(cfg, &token.Ring{}, func() *clientv3.Client { return c }, slog.New(slog.NewTextHandler(&log, nil)))
	_, err := s.sync(t.Context(), c, time.Now())
	require.NoError(t, err)
	assert.Len(t, kids(t, s, time.Now()), 1)
	assert.Contains(t, log.String(), "/tokenkeys/a")
	assert.NotContains(t, log.String(), "hunter2")
}

// While etcd is away, a node keeps the keys that it has, and the calls return ErrUnavailable.
func TestStore_Unavailable(t *testing.T) {
	t.Parallel()
	s := newStore(t, config(etcdtest.Prefix(t)))
	s.client = func() *clientv3.Client { return nil }
	select {
	case <-s.Ready():
		t.Error("ready without keys")
	default:
	}
	_, err := s.Keys(t.Context())
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = s.Rotate(t.Context(), true)
	require.ErrorIs(t, err, ErrUnavailable)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.client = func() *clientv3.Client { return etcdtest.Client(t) }
	_, err = s.sync(ctx, s.client(), time.Now())
	require.ErrorIs(t, err, ErrUnavailable)
	require.NoError(t, s.Run(ctx))
}

// While etcd does not respond, the calls end before their callers, the client and the command line,
// stop waiting after 5 s.
func TestStore_UnavailableWithinTheTimeOfACaller(t *testing.T) {
	t.Parallel()
	deadlines := make(chan time.Duration, 10)
	c, err := clientv3.New(clientv3.Config{
		Endpoints: []string{"127.0.0.1:1"}, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(func(ctx context.Context, _ string, _, _ any, _ *grpc.ClientConn,
			_ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
			deadline, _ := ctx.Deadline()
			deadlines <- time.Until(deadline)
			return status.Error(codes.PermissionDenied, "no answer") // which the client does not repeat
		})},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	s := New(config("/x"), &token.Ring{}, func() *clientv3.Client { return c }, slog.New(slog.DiscardHandler))
	_, err = s.Keys(t.Context())
	require.ErrorIs(t, err, ErrUnavailable)
	assert.LessOrEqual(t, <-deadlines, 4*time.Second)
	_, err = s.Rotate(t.Context(), false)
	require.ErrorIs(t, err, ErrUnavailable)
	assert.LessOrEqual(t, <-deadlines, 4*time.Second)
}
