package lease

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/etcdtest"
)

// A user who comes to the same etcd in a second move has arrived only in the second,
// even where the first was broken off before it had cleaned up after itself. In one
// move he arrives once, however often that is asked for.
func TestArrive_OnceInEachMove(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Limit: 3, Prefix: etcdtest.Prefix(t)})
	luggage := func(n byte, lease int64) Luggage {
		return Luggage{Streams: []luggageStream{{"000", lease, recordValue(nonce{n}, "")}}}
	}
	held := func() nonce {
		s, err := l.read(t.Context(), "maya")
		require.NoError(t, err)
		require.Len(t, s.held, 1)
		return s.held[0].nonce
	}
	first, err := l.PutShards(t.Context(), []byte("first"), &ShardsKey{}, false)
	require.NoError(t, err)
	require.NoError(t, l.Arrive(t.Context(), "maya", luggage(1, randomLease()), first.Mod))
	assert.Equal(t, nonce{1}, held())
	require.NoError(t, l.Arrive(t.Context(), "maya", luggage(2, randomLease()), first.Mod))
	assert.Equal(t, nonce{1}, held(), "somebody slow with the same luggage, who finds it unpacked")

	second, err := l.PutShards(t.Context(), []byte("second"), first, false)
	require.NoError(t, err)
	require.ErrorIs(t, l.Arrive(t.Context(), "maya", luggage(3, randomLease()), first.Mod), ErrRouting)
	_, err = l.Depart(t.Context(), "maya", second.Mod)
	require.NoError(t, err)
	require.NoError(t, l.Departed(t.Context(), "maya"))
	require.NoError(t, l.Arrive(t.Context(), "maya", luggage(4, randomLease()), second.Mod))
	assert.Equal(t, nonce{4}, held(), "he is back")
}

// A stop that goes by a view which is behind learns that the user has moved, or
// its caller would believe that the stream is gone.
func TestStop_LearnsThatTheUserMoved(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Limit: 3, Prefix: etcdtest.Prefix(t)})
	st := mustStart(t, l, "maya", Request{})
	who, err := l.ids.open("maya", st.Stream.ID)
	require.NoError(t, err)
	h, err := l.find(t.Context(), "maya", who)
	require.NoError(t, err)
	other := newLimiter(t, etcdtest.Client(t), Config{Limit: 3, Prefix: l.cfg.Prefix})
	key, err := other.PutShards(t.Context(), []byte("another"), &ShardsKey{}, false)
	require.NoError(t, err)
	_, err = other.Depart(t.Context(), "maya", key.Mod)
	require.NoError(t, err)
	l.view.shardsKey.Store(&ShardsKey{}) // as a view that is behind
	_, err = l.tryStop(t.Context(), "maya", h)
	require.ErrorIs(t, err, ErrEnded)
	assert.Equal(t, key.Mod, l.Shards().Mod)
}

// A stop that goes by a view from before its user went to another etcd and came back
// finds the stream all the same.
func TestStop_OfAStreamThatCameBack(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Limit: 3, Prefix: etcdtest.Prefix(t)})
	st := mustStart(t, l, "maya", Request{})
	who, err := l.ids.open("maya", st.Stream.ID)
	require.NoError(t, err)
	before, err := l.find(t.Context(), "maya", who)
	require.NoError(t, err)
	key, err := l.PutShards(t.Context(), []byte("a map"), &ShardsKey{}, false)
	require.NoError(t, err)
	luggage, err := l.Depart(t.Context(), "maya", key.Mod)
	require.NoError(t, err)
	require.NoError(t, l.Arrive(t.Context(), "maya", luggage, key.Mod))
	u, err := l.tryStop(t.Context(), "maya", before)
	require.NoError(t, err)
	assert.Zero(t, u.Count)
	assert.Zero(t, keysOf(t, l, "maya"))
}
