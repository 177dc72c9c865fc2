package lease

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/testlog"
	"streamcount/lease/streamid"
)

func fresh(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

// All nodes accept ids of a new secret before any node issues them. They accept ids of the
// old secret until it is retired.
func TestSecrets_RotateWithoutEndingStreams(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	_, err := c.Put(t.Context(), prefix+"/secret", string(testSecret))
	require.NoError(t, err)
	var nodes []*Limiter
	for range 3 {
		nodes = append(nodes, newLimiter(t, c, Config{Prefix: prefix, Limit: 20}))
	}
	heartbeat := func(s Stream) {
		t.Helper()
		for i, node := range nodes {
			_, err := node.Heartbeat(t.Context(), s.User, s.ID)
			require.NoError(t, err, "node %d", i)
		}
	}
	rotate := func(n byte) {
		t.Helper()
		s, mod, err := nodes[0].ReadSecrets(t.Context())
		require.NoError(t, err)
		s, err = s.Rotate(fresh(n), time.Now())
		require.NoError(t, err)
		require.NoError(t, nodes[0].PutSecrets(t.Context(), s, mod))
		require.ErrorIs(t, nodes[0].PutSecrets(t.Context(), s, mod), errSecretsChanged)
		for _, node := range nodes {
			require.Eventually(t, func() bool { return node.ids.Secrets().Len() == s.Len() }, soon, time.Millisecond)
		}
	}
	age := func() { // as if the nodes had read the secret long ago
		for _, node := range nodes {
			node.ids.SetSecrets(node.ids.Secrets(), time.Now().Add(-time.Hour))
		}
	}
	old := mustStart(t, nodes[0], "maya", Request{}).Stream
	rotate(2)
	between := mustStart(t, nodes[1], "maya", Request{}).Stream
	assert.EqualValues(t, 1, numberOf(t, between), "no ids of a new secret before all nodes have it")
	age()
	next := mustStart(t, nodes[2], "maya", Request{}).Stream
	assert.EqualValues(t, 2, numberOf(t, next))
	nodes = append(nodes, newLimiter(t, c, Config{Prefix: prefix, Limit: 20})) // it has to read them first
	require.Eventually(t, func() bool { return nodes[3].ids.Secrets().Len() == 2 }, soon, time.Millisecond)
	for _, s := range []Stream{old, between, next} {
		heartbeat(s)
	}
	rotate(3)
	for _, s := range []Stream{old, next} {
		heartbeat(s)
	}
	n, err := nodes[0].StartedBefore(t.Context(), time.Now().Add(time.Second))
	require.NoError(t, err)
	assert.Equal(t, 3, n)

	s, mod, err := nodes[0].ReadSecrets(t.Context())
	require.NoError(t, err)
	require.NoError(t, nodes[0].PutSecrets(t.Context(), s.RetireOld(), mod))
	for _, node := range nodes {
		require.Eventually(t, func() bool {
			_, err := node.Heartbeat(t.Context(), "maya", next.ID)
			return err != nil
		}, soon, time.Millisecond)
		_, err := node.Heartbeat(t.Context(), "maya", next.ID)
		require.ErrorIs(t, err, streamid.ErrForeign)
	}
	last := mustStart(t, nodes[0], "maya", Request{}).Stream
	assert.EqualValues(t, 3, numberOf(t, last))
	heartbeat(last)
}

func numberOf(t *testing.T, s Stream) byte {
	t.Helper()
	var n byte
	for i := range 64 { // the first character holds six bits, the second two more
		if "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[i] == s.ID[0] {
			n = byte(i) << 2
		}
		if "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"[i] == s.ID[1] {
			n |= byte(i) >> 4
		}
	}
	return n
}

// A node ignores malformed values of the key, and applies those of a restored backup.
func TestSecrets_IgnoresMalformedValues(t *testing.T) {
	log := &testlog.Buffer{}
	audit := slog.New(slog.NewTextHandler(log, nil))
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3, Audit: audit})
	before := l.ids.Secrets()
	for _, foreign := range []string{"", "x", string(fresh(9)), `{"secrets":[`} {
		l.applySecrets([]byte(foreign))
		require.Equal(t, before, l.ids.Secrets(), fmt.Sprintf("%q", foreign))
	}
	assert.Empty(t, log.String())
	rotated, err := before.Rotate(fresh(2), time.Now())
	require.NoError(t, err)
	l.applySecrets(rotated.Value())
	assert.Contains(t, log.String(), `msg=audit what="change secrets" user="" caller=unknown old=1 new=2`)
	l.ids.SetSecrets(l.ids.Secrets(), time.Now().Add(-time.Hour))
	s := mustStart(t, l, "maya", Request{}).Stream
	require.EqualValues(t, 2, numberOf(t, s))
	for range 2 { // as in the backup, which is listed more than once
		l.applySecrets(before.Value())
		_, err = l.Heartbeat(t.Context(), "maya", s.ID)
		require.NoError(t, err)
	}
	assert.EqualValues(t, 1, numberOf(t, mustStart(t, l, "maya", Request{}).Stream))
}
